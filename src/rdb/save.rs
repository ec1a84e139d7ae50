//! Writing the keyspace to a file while the server goes on.
//!
//! There is no fork. The file shows the keyspace at one point in time, like the snapshot in a rewrite of the
//! log ([`Keyspace::snapshot`]): each shard is encoded by this thread or by the first writer that reaches it,
//! just before it changes the shard. The file is written under another name, synced, and renamed, so there
//! is a whole file at any time.
//!
//! FLUSHALL, FLUSHDB and SWAPDB change every shard at once and would have to save them all first. Instead
//! they end the snapshot, and the save starts again.

use std::collections::TryReserveError;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::encode::Encoder;
use super::{Dialect, Saves, crc64, opcode};
use crate::config::{Config, EvictionOrder};
use crate::files::{create, remove, sync_directory, with_suffix};
use crate::memory;
use crate::stats::unix_seconds;
use crate::store::keyspace::{SaveShard, SnapshotError};
use crate::store::shard::Shard;
use crate::store::snapshot::{Encoding, SnapshotWriter};
use crate::store::usage::Usage;
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

/// Saves the keyspace. `mark` is called at the point in time that the file shows, with all shards locked, and
/// returns facts for the header. Returns the file's size.
///
/// # Errors
/// The file could not be written, or the save was cancelled; an older file is still there.
pub fn save(
    keyspace: &Keyspace,
    config: &Config,
    saves: &Saves,
    mut mark: impl FnMut() -> Vec<Fact>,
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
    mark: &mut impl FnMut() -> Vec<Fact>,
) -> Result<u64, SnapshotError> {
    let temporary = temporary(path);
    let file = create(&temporary)?;
    let form = Form::of(config, Dialect::of(config));
    let mut unsynced = 0;
    let bytes = write_snapshot(keyspace, form, file.try_clone()?, may_yield, mark, |written| {
        if saves.is_cancelled() {
            return Err(io::Error::other("it was cancelled"));
        }
        unsynced += written;
        if unsynced > SYNC_BYTES {
            file.sync_data()?;
            unsynced = 0;
        }
        Ok(())
    })?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    sync_directory(path)?;
    Ok(bytes)
}

/// How a snapshot is written.
#[derive(Clone, Copy)]
pub struct Form {
    dialect: Dialect,
    compresses: bool,
    checked: bool,
    /// With each key goes when or how often it was used, as far as that decides which keys are evicted.
    has_usage: bool,
}

impl Form {
    /// The one that the settings ask for, in this dialect.
    pub fn of(config: &Config, dialect: Dialect) -> Form {
        use EvictionOrder::{Lfu, Lrm, Lru};
        let order = config.eviction_policy().map(|policy| policy.order);
        Form {
            dialect,
            compresses: config.rdbcompression.load(Relaxed),
            checked: config.rdbchecksum.load(Relaxed),
            has_usage: matches!(order, Some(Lru | Lrm | Lfu)),
        }
    }
}

/// A fact about a snapshot, in its header.
pub type Fact = (&'static str, String);

/// Writes a snapshot of the keyspace as an RDB file. `begin` is called at the point in time that it shows,
/// with all shards locked, and returns facts for the header. `progress` gets the number of bytes that were
/// written since the last call, and may stop the snapshot with an error. Returns the number of all bytes.
///
/// # Errors
/// The file does not take them, `progress` has stopped it, or it yielded to FLUSHALL or a similar command.
pub fn write_snapshot<W: Write + Send + 'static>(
    keyspace: &Keyspace,
    form: Form,
    file: W,
    may_yield: bool,
    begin: impl FnOnce() -> Vec<Fact>,
    mut progress: impl FnMut(usize) -> io::Result<()>,
) -> Result<u64, SnapshotError> {
    let output = Output { file, checked: form.checked, crc: 0, bytes: 0 };
    let writer = Arc::new(SnapshotWriter::new(output, Keys(form)));
    let shards = writer.clone();
    let save: Arc<SaveShard> = Arc::new(move |shard: &Shard, now| shards.save(shard, now));
    let begin = |shards: &[&Shard]| {
        let (header, db) = header(shards, form.dialect, &begin());
        writer.write(&header, db)
    };
    keyspace
        .snapshot(may_yield, &save, begin, |_| progress(writer.write_if_more_than(WRITE_BYTES)?))?;
    writer.write_if_more_than(0)?;
    Ok(writer.with_file(Output::finish)?)
}

/// Writes an RDB file without keys.
///
/// # Errors
/// The file does not take it.
pub fn write_empty(form: Form, file: impl Write, facts: &[Fact]) -> io::Result<u64> {
    let mut output = Output { file, checked: form.checked, crc: 0, bytes: 0 };
    output.write_all(&header(&[], form.dialect, facts).0)?;
    output.finish()
}

/// The header of the file, and how many keys each database has. The last database is selected.
fn header(shards: &[&Shard], dialect: Dialect, facts: &[Fact]) -> (Vec<u8>, usize) {
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
    encoder.header(timed, unix_seconds(), facts);
    let mut last = 0;
    for (db, (keys, volatile)) in sizes.into_iter().enumerate().filter(|(_, size)| size.0 > 0) {
        encoder.select(db);
        encoder.resize(keys, volatile);
        last = db;
    }
    (encoder.out, last)
}

/// A snapshot in the form of an RDB file.
struct Keys(Form);

impl Encoding for Keys {
    fn table(&self, table: &Table, now: Usage) -> Result<Vec<u8>, TryReserveError> {
        let mut encoder = Encoder::new(self.0.dialect, self.0.compresses);
        let now = self.0.has_usage.then_some(now);
        for (key, entry) in table.iter() {
            let bytes = key.len() + entry.value.copy_bytes();
            if bytes >= memory::LARGE_BYTES {
                memory::ensure_available(2 * bytes)?; // with a compressed copy
                memory::reserve(&mut encoder.out, bytes)?;
            }
            encoder.entry(key, entry, now);
        }
        Ok(encoder.out)
    }

    fn select(&self, db: usize) -> Vec<u8> {
        let mut encoder = Encoder::new(self.0.dialect, false);
        encoder.select(db);
        encoder.out
    }
}

/// The file, and the checksum of what was written to it.
struct Output<W> {
    file: W,
    checked: bool,
    crc: u64,
    bytes: u64,
}

impl<W: Write> Output<W> {
    /// Writes the end of the file. Returns the size of the file.
    fn finish(&mut self) -> io::Result<u64> {
        self.write_all(&[opcode::EOF])?;
        let crc = self.crc.to_le_bytes();
        self.write_all(&crc)?;
        self.flush()?;
        Ok(self.bytes)
    }
}

impl<W: Write> Write for Output<W> {
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
