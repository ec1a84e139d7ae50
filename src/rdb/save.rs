//! Writing the keyspace to a file while the server goes on.
//!
//! There is no fork. The file shows the keyspace at one point in time, like the snapshot in a rewrite of the
//! log ([`Keyspace::snapshot`]): each shard is encoded by this thread or by the first writer that reaches it,
//! just before it changes the shard. The file is written under another name, synced, and renamed, so there
//! is a whole file at any time.
//!
//! FLUSHALL, FLUSHDB and SWAPDB change every shard at once and would have to save them all first. Instead
//! they end the snapshot, and the save starts again.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::encode::Encoder;
use super::{Dialect, Saves, crc64, opcode};
use crate::config::Config;
use crate::files::{create, remove, sync_directory, with_suffix};
use crate::stats::unix_seconds;
use crate::store::keyspace::{SaveShard, SnapshotError};
use crate::store::shard::Shard;
use crate::store::snapshot::{Encoding, SnapshotWriter};
use crate::store::{Keyspace, Table};

/// The saving thread writes queued shards once they have this many bytes.
const WRITE_BYTES: usize = 256 << 10;
/// The file is synced once per this many bytes, so that the last sync has little to do.
const SYNC_BYTES: usize = 16 << 20;
/// At most this many snapshots are tried. The last one does not yield to FLUSHALL and similar commands; they
/// wait for it.
const ATTEMPTS: usize = 4;

/// The file in which a save builds the new one.
pub fn temporary(path: &Path) -> PathBuf {
    with_suffix(path, ".tmp")
}

/// Saves the keyspace. `mark` is called at the point in time that the file shows. Returns the file's size.
///
/// # Errors
/// The file could not be written, or the save was cancelled; an older file is still there.
pub fn save(
    keyspace: &Keyspace,
    config: &Config,
    saves: &Saves,
    mut mark: impl FnMut(),
) -> io::Result<u64> {
    let path = config.dump_path();
    let result = (1..=ATTEMPTS).find_map(|attempt| {
        match attempt_save(keyspace, config, saves, &path, attempt < ATTEMPTS, &mut mark) {
            Err(SnapshotError::Yielded) => None,
            Err(SnapshotError::Io(error)) => Some(Err(error)),
            Ok(bytes) => Some(Ok(bytes)),
        }
    });
    let text = "the keyspace was changed as a whole again and again";
    let result = result.unwrap_or_else(|| Err(io::Error::other(text)));
    if result.is_err() {
        remove(&temporary(&path));
    }
    result
}

fn attempt_save(
    keyspace: &Keyspace,
    config: &Config,
    saves: &Saves,
    path: &Path,
    may_yield: bool,
    mark: &mut impl FnMut(),
) -> Result<u64, SnapshotError> {
    let temporary = temporary(path);
    let file = create(&temporary)?;
    let dialect = Dialect::of(config);
    let compresses = config.rdbcompression.load(Relaxed);
    let checked = config.rdbchecksum.load(Relaxed);
    let output = Output { file: file.try_clone()?, checked, crc: 0, bytes: 0 };
    let writer = Arc::new(SnapshotWriter::new(output, Keys { dialect, compresses }));
    let shards = writer.clone();
    let save: Arc<SaveShard> = Arc::new(move |shard: &Shard| shards.save(shard));
    let begin = |shards: &[&Shard]| {
        mark();
        let (header, db) = header(shards, dialect);
        writer.write(&header, db)
    };
    let mut unsynced = 0;
    keyspace.snapshot(may_yield, &save, begin, |_| {
        if saves.is_cancelled() {
            return Err(io::Error::other("it was cancelled"));
        }
        unsynced += writer.write_if_more_than(WRITE_BYTES)?;
        if unsynced > SYNC_BYTES {
            file.sync_data()?;
            unsynced = 0;
        }
        Ok(())
    })?;
    writer.write_if_more_than(0)?;
    let bytes = writer.with_file(Output::finish)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    sync_directory(path)?;
    Ok(bytes)
}

/// The header of the file, and how many keys each database has. The last database is selected.
fn header(shards: &[&Shard], dialect: Dialect) -> (Vec<u8>, usize) {
    let mut sizes: Vec<(u64, u64)> = Vec::new();
    let mut timed = false;
    for shard in shards {
        for db in shard.databases() {
            sizes.resize(sizes.len().max(db + 1), (0, 0));
            if let Some(table) = shard.table(db) {
                sizes[db].0 += table.len() as u64;
                sizes[db].1 += table.volatile() as u64;
            }
            timed |= shard.timed_hashes(db) > 0;
        }
    }
    let mut encoder = Encoder::new(dialect, false);
    encoder.header(timed, unix_seconds());
    let mut last = 0;
    for (db, (keys, volatile)) in sizes.into_iter().enumerate().filter(|(_, size)| size.0 > 0) {
        encoder.select(db);
        encoder.resize(keys, volatile);
        last = db;
    }
    (encoder.out, last)
}

/// A snapshot in the form of an RDB file.
struct Keys {
    dialect: Dialect,
    compresses: bool,
}

impl Encoding for Keys {
    fn table(&self, table: &Table) -> Vec<u8> {
        let mut encoder = Encoder::new(self.dialect, self.compresses);
        table.iter().for_each(|(key, entry)| encoder.entry(key, entry));
        encoder.out
    }

    fn select(&self, db: usize) -> Vec<u8> {
        let mut encoder = Encoder::new(self.dialect, false);
        encoder.select(db);
        encoder.out
    }
}

/// The file, and the checksum of what was written to it.
struct Output {
    file: File,
    checked: bool,
    crc: u64,
    bytes: u64,
}

impl Output {
    /// Writes the end of the file. Returns the size of the file.
    fn finish(&mut self) -> io::Result<u64> {
        self.write_all(&[opcode::EOF])?;
        let crc = self.crc.to_le_bytes();
        self.write_all(&crc)?;
        Ok(self.bytes)
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        if self.checked {
            self.crc = crc64::update(self.crc, &bytes[..written]);
        }
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
