//! A snapshot on its way to a file: encoded shards that wait for the disk.
//!
//! A writer that saves a shard before changing it only queues the encoded keys here, so it does not wait
//! for the disk; the thread that takes the snapshot writes them. A writer writes only when too much is
//! queued, which bounds the memory. Lock order: `output`, then `queue`, both below the shards.

use std::collections::{BTreeMap, TryReserveError};
use std::io::{self, Write};
use std::sync::Mutex;

use super::shard::Shard;
use super::table::Table;
use super::usage::Usage;
use crate::stats::lock;

/// When more bytes than this are queued, the thread that queues them writes.
const QUEUED_BYTES: usize = 4 << 20;

/// The form in which a snapshot is written.
pub trait Encoding: Send + Sync {
    /// The keys of a table. `now` is what a use of a key is recorded as.
    ///
    /// # Errors
    /// The system has no memory for them.
    fn table(&self, table: &Table, now: Usage) -> Result<Vec<u8>, TryReserveError>;
    /// What precedes the keys of a database.
    fn select(&self, db: usize) -> Vec<u8>;
}

/// Takes shards, and writes them to a file.
pub struct SnapshotWriter<W, E> {
    encoding: E,
    queue: Mutex<Queue>,
    output: Mutex<Output<W>>,
}

#[derive(Default)]
struct Queue {
    /// The encoded keys of each shard, by database: so few databases are selected.
    databases: BTreeMap<usize, Vec<Vec<u8>>>,
    bytes: usize,
}

struct Output<W> {
    file: W,
    /// The database that is selected after the last key.
    db: usize,
    /// A failure that a client's thread met and cannot return. The thread that takes the snapshot returns it.
    error: Option<io::Error>,
}

impl<W: Write, E: Encoding> SnapshotWriter<W, E> {
    /// A writer to a file that begins in database 0.
    pub fn new(file: W, encoding: E) -> SnapshotWriter<W, E> {
        let output = Mutex::new(Output { file, db: 0, error: None });
        SnapshotWriter { encoding, queue: Mutex::default(), output }
    }

    /// Writes bytes that are not keys, and select this database.
    ///
    /// # Errors
    /// The file does not take them.
    pub fn write(&self, bytes: &[u8], db: usize) -> io::Result<()> {
        let mut output = lock(&self.output);
        output.db = db;
        output.file.write_all(bytes)
    }

    /// Selects this database, if another one is.
    ///
    /// # Errors
    /// The file does not take it.
    pub fn select(&self, db: usize) -> io::Result<()> {
        let mut output = lock(&self.output);
        if std::mem::replace(&mut output.db, db) != db {
            output.file.write_all(&self.encoding.select(db))?;
        }
        Ok(())
    }

    /// Calls a function with the file.
    pub fn with_file<T>(&self, act: impl FnOnce(&mut W) -> T) -> T {
        act(&mut lock(&self.output).file)
    }

    /// Encodes a shard, which the caller has locked, and queues it.
    pub fn save(&self, shard: &Shard, now: Usage) {
        // Encoded before the lock is taken, so that writers do not wait for one another's shards.
        let mut encoded = Vec::new();
        for db in shard.databases() {
            if let Some(table) = shard.table(db).filter(|table| !table.is_empty()) {
                match self.encoding.table(table, now) {
                    Ok(keys) => encoded.push((db, keys)),
                    Err(refused) => lock(&self.output).error = Some(refused.into()),
                }
            }
        }
        let mut queue = lock(&self.queue);
        for (db, keys) in encoded {
            queue.bytes += keys.len();
            queue.databases.entry(db).or_default().push(keys);
        }
        let too_much = queue.bytes > QUEUED_BYTES;
        drop(queue);
        if too_much && let Err(error) = self.write_if_more_than(QUEUED_BYTES) {
            lock(&self.output).error = Some(error);
        }
    }

    /// Writes what is queued if it is more than this many bytes. Returns how many bytes were written.
    ///
    /// # Errors
    /// This write failed, or an earlier one of another thread.
    pub fn write_if_more_than(&self, bytes: usize) -> io::Result<usize> {
        let mut output = lock(&self.output);
        if let Some(error) = output.error.take() {
            return Err(error);
        }
        let mut queue = lock(&self.queue);
        if queue.bytes <= bytes {
            return Ok(0);
        }
        let taken = std::mem::take(&mut *queue);
        drop(queue);
        let Output { file, db: selected, .. } = &mut *output;
        // The selected database comes first.
        let (before, after) =
            (taken.databases.range(..*selected), taken.databases.range(*selected..));
        for (db, shards) in after.chain(before) {
            if std::mem::replace(selected, *db) != *db {
                file.write_all(&self.encoding.select(*db))?;
            }
            shards.iter().try_for_each(|keys| file.write_all(keys))?;
        }
        Ok(taken.bytes)
    }
}
