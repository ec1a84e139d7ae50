//! The snapshot in a rewrite's new file: encoded shards on their way to the disk.
//!
//! A writer that saves a shard before changing it only queues the encoded records here, so it does not wait
//! for the disk; the rewriting thread writes them. A writer writes only when too much is queued, which bounds
//! the memory. Lock order: `output`, then `queue`, both below the shards.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::sync::Mutex;

use crate::resp::request::encode;
use crate::stats::lock;
use crate::store::shard::Shard;
use crate::store::{Entry, Field, Hash, Value};

/// When more bytes than this are queued, the thread that queues them writes.
const QUEUED_BYTES: usize = 4 << 20;
/// An `HSET` record has at most this many fields …
const RECORD_FIELDS: usize = 64;
/// … and ends once it has this many bytes.
const RECORD_BYTES: usize = 64 << 10;

/// Takes shards, and writes them to the new file.
pub(super) struct SnapshotWriter {
    queue: Mutex<Queue>,
    output: Mutex<Output>,
}

#[derive(Default)]
struct Queue {
    /// The records of each shard, by database: so few `SELECT`s are needed.
    databases: BTreeMap<usize, Vec<Vec<u8>>>,
    bytes: usize,
}

struct Output {
    file: File,
    /// The database that is selected after the last record.
    db: usize,
    /// A failure that a client's thread met and cannot return. The rewriting thread returns it.
    error: Option<io::Error>,
}

impl SnapshotWriter {
    pub(super) fn new(file: File) -> SnapshotWriter {
        let output = Mutex::new(Output { file, db: 0, error: None });
        SnapshotWriter { queue: Mutex::default(), output }
    }

    /// Encodes a shard, which the caller has locked, and queues it.
    pub(super) fn save(&self, shard: &Shard) {
        // Encoded before the lock is taken, so that writers do not wait for one another's shards.
        let mut encoded = Vec::new();
        for db in 0..shard.databases() {
            let Some(table) = shard.table(db).filter(|table| !table.is_empty()) else { continue };
            let mut records = Vec::new();
            for (key, entry) in table.iter() {
                encode_entry(&mut records, key, entry);
            }
            encoded.push((db, records));
        }
        let mut queue = lock(&self.queue);
        for (db, records) in encoded {
            queue.bytes += records.len();
            queue.databases.entry(db).or_default().push(records);
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
    pub(super) fn write_if_more_than(&self, bytes: usize) -> io::Result<usize> {
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
                let mut select = Vec::new();
                encode(&mut select, &[b"SELECT", db.to_string().as_bytes()]);
                file.write_all(&select)?;
            }
            shards.iter().try_for_each(|records| file.write_all(records))?;
        }
        Ok(taken.bytes)
    }
}

/// Encodes a key as the fewest records that recreate it.
fn encode_entry(out: &mut Vec<u8>, key: &[u8], entry: &Entry) {
    // No command accepts an expiry before 1970, but a log may have held one.
    let expiry = entry.expires_at_ms().map(|expiry| expiry.max(1).to_string());
    match (&entry.value, &expiry) {
        (Value::String(value), None) => encode(out, &[b"SET", key, value]),
        (Value::String(value), Some(expiry)) => {
            encode(out, &[b"SET", key, value, b"PXAT", expiry.as_bytes()]);
        }
        (Value::Hash(hash), _) => {
            let mut record: Vec<&[u8]> = vec![b"HSET", key];
            let mut bytes = 0;
            for Field { name, value, .. } in hash.iter() {
                record.extend([name, value]);
                bytes += name.len() + value.len();
                if record.len() >= 2 * RECORD_FIELDS + 2 || bytes >= RECORD_BYTES {
                    encode(out, &record);
                    record.truncate(2);
                    bytes = 0;
                }
            }
            if record.len() > 2 {
                encode(out, &record);
            }
            encode_field_expiries(out, key, hash);
            if let Some(expiry) = &expiry {
                encode(out, &[b"PEXPIREAT", key, expiry.as_bytes()]);
            }
        }
    }
}

/// Encodes when fields of a hash expire: fields that expire together share a record, up to its limit.
fn encode_field_expiries(out: &mut Vec<u8>, key: &[u8], hash: &Hash) {
    if hash.earliest_ms().is_none() {
        return;
    }
    let timed = hash.iter().filter_map(|field| Some((field.expires_at_ms()?, field.name)));
    let mut timed: Vec<(i64, &[u8])> = timed.collect();
    timed.sort_by_key(|(expiry, _)| *expiry); // stable, so fields keep the hash's order
    for same in timed.chunk_by(|(one, _), (other, _)| one == other) {
        for fields in same.chunks(RECORD_FIELDS) {
            let expiry = fields[0].0.to_string();
            let count = fields.len().to_string();
            let mut record: Vec<&[u8]> = vec![b"HPEXPIREAT", key, expiry.as_bytes(), b"FIELDS"];
            record.push(count.as_bytes());
            record.extend(fields.iter().map(|(_, name)| *name));
            encode(out, &record);
        }
    }
}
