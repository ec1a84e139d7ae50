//! Rewriting the log: the shortest log that gives the same data, without a fork, without a second
//! copy of the data, and without a pause that anyone would notice.
//!
//! A log only grows; a key that was set a million times stands in it a million times. A rewrite puts
//! a new file in its place:
//!
//! 1. **A moment.** All shards are locked, the log is flushed and its length noted, the shards are let
//!    go. That fixes a point in time T ([`Keyspace::snapshot`]).
//! 2. **The state at T.** Each shard is encoded as the fewest records that make it, by this thread, or
//!    by a writer that reaches it first, just before its first change. What has been encoded waits in
//!    [`Sink`] and is written to a temporary file.
//! 3. **What happened since.** The old log's bytes behind T are copied, round by round, each round
//!    having less to copy. The last few are copied under the log's lock, and from then on both files
//!    get every record (the *tee*).
//! 4. **The exchange.** The new file is synced, renamed over the old one, and the directory is synced.
//!    Then the old file is let go.
//!
//! Why the tee: a sync may take long, and clients must not wait for it. So they go on, and until the
//! rename is done and on the disk, either file alone is a whole log, whichever name a crash finds.
//!
//! FLUSHALL, FLUSHDB and SWAPDB change every shard at once, and would have to save them all first. They
//! end the snapshot instead, and the rewrite begins again, with less to do.
//!
//! A rewrite that fails removes its temporary file, says why, and leaves the old log in use.
//!
//! `CONFIG SET appendonly yes` is a rewrite too. There is no old log then; a temporary one, the *tail*,
//! takes its place until the new file is complete.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::writer::Aof;
use crate::resp::request::encode;
use crate::stats::Counter;
use crate::store::keyspace::{SHARDS, SaveShard};
use crate::store::shard::Shard;
use crate::store::{Entry, Keyspace, Value};

/// Encoded shards wait in memory up to this; then the next thread that brings one writes them.
const WAITING_BYTES: usize = 4 << 20;
/// This thread writes them as soon as there are so many.
const WRITE_BYTES: usize = 256 << 10;
/// A large file is synced piece by piece, so that the last sync has little to do.
const SYNC_BYTES: usize = 16 << 20;
/// What the log may have grown by since the last look for the rest to be copied under its lock.
const LAST_COPY_BYTES: u64 = 64 << 10;
/// So often that is tried; writers who are faster than the copying have to wait then.
const COPY_ROUNDS: usize = 50;
/// So many snapshots are tried that FLUSHALL and its like may end; the next makes them wait.
const ATTEMPTS: usize = 4;
/// An `HSET` has at most so many fields, and is ended once it has so many bytes.
const RECORD_FIELDS: usize = 64;
const RECORD_BYTES: usize = 64 << 10;

/// How the rewrites are going, for `INFO`.
pub struct Status {
    running: AtomicBool,
    saved_shards: AtomicUsize,
    last: Mutex<Option<Last>>,
    started: Mutex<Option<Instant>>,
    /// Rewrites that were completed.
    pub completed: Counter,
}

/// How the last rewrite went.
#[derive(Clone)]
pub struct Last {
    /// It was completed.
    pub ok: bool,
    /// How long it took.
    pub took: Duration,
}

impl Default for Status {
    fn default() -> Status {
        Status {
            running: AtomicBool::new(false),
            saved_shards: AtomicUsize::new(0),
            last: Mutex::new(None),
            started: Mutex::new(None),
            completed: Counter::default(),
        }
    }
}

impl Aof {
    /// Reserves the right to rewrite; there is one rewrite at a time. False if one is going on.
    pub fn claim_rewrite(&self) -> bool {
        let free = !self.rewrite.running.swap(true, SeqCst);
        if free {
            self.rewrite.saved_shards.store(0, Relaxed);
            let mut started = self.rewrite.started.lock().unwrap_or_else(PoisonError::into_inner);
            *started = Some(Instant::now());
        }
        free
    }

    /// How long a rewrite has been going on, and how many percent of the shards it has saved.
    pub fn rewrite_progress(&self) -> Option<(Duration, usize)> {
        let started = *self.rewrite.started.lock().unwrap_or_else(PoisonError::into_inner);
        let percent = self.rewrite.saved_shards.load(Relaxed) * 100 / SHARDS;
        started.map(|started| (started.elapsed(), percent))
    }

    /// How the last rewrite went, and how many were completed.
    pub fn rewrites(&self) -> (Option<Last>, u64) {
        let last = self.rewrite.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        (last, self.rewrite.completed.get())
    }

    /// Rewrites the log at that path, the right to do so having been claimed. If there was no log,
    /// there is one afterwards.
    ///
    /// # Errors
    /// The old log is still in use, or there still is none.
    pub fn rewrite(&self, keyspace: &Keyspace, path: &Path) -> io::Result<()> {
        let started = Instant::now();
        let was_enabled = self.is_enabled();
        let rewrite = Rewrite { aof: self, keyspace, path };
        let mut attempts = 1;
        let mut result = rewrite.run(true);
        while result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::Interrupted) {
            attempts += 1;
            result = rewrite.run(attempts < ATTEMPTS);
        }
        if result.is_err() {
            self.untee();
            remove(&temporary(path));
            if !was_enabled {
                self.close().unwrap_or_default();
            }
        }
        remove(&tail(path));
        self.rewrite.completed.add(u64::from(result.is_ok()));
        let last = Last { ok: result.is_ok(), took: started.elapsed() };
        *self.rewrite.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(last);
        *self.rewrite.started.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.rewrite.running.store(false, SeqCst);
        result
    }
}

/// The file in which a rewrite builds the new log.
pub fn temporary(log: &Path) -> PathBuf {
    with_suffix(log, ".rewrite")
}

/// The file that stands in for the old log where there was none.
pub fn tail(log: &Path) -> PathBuf {
    with_suffix(log, ".tail")
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

/// Removes a file that need not be there.
pub fn remove(path: &Path) {
    std::fs::remove_file(path).unwrap_or_default();
}

struct Rewrite<'a> {
    aof: &'a Aof,
    keyspace: &'a Keyspace,
    path: &'a Path,
}

impl Rewrite<'_> {
    /// One attempt. If `may_yield`, a command that changes the whole keyspace does not wait for the
    /// snapshot but ends it, which is the error `Interrupted`.
    fn run(&self, may_yield: bool) -> io::Result<()> {
        let path = temporary(self.path);
        // A log that cannot be relied on is treated as if there were none.
        let has_log = self.aof.is_enabled() && !self.aof.needs_rewrite();
        let old_path = if has_log { self.path.to_path_buf() } else { tail(self.path) };
        // A file that is there but not ours may be the log of another server.
        let other = File::open(self.path).ok().filter(|_| !self.aof.is_enabled());
        other.as_ref().map_or(Ok(()), File::try_lock)?;
        remove(&path);
        let mut options = OpenOptions::new();
        let new = options.read(true).append(true).create_new(true).open(&path)?;
        // The lock that says that this server uses the log goes with the name.
        new.try_lock()?;
        let sink = Arc::new(Sink::new(new.try_clone()?));
        let mut since = 0;
        let mut old = None;
        let mut unsynced = 0;
        self.keyspace.snapshot(
            may_yield,
            &(Arc::new({
                let sink = sink.clone();
                move |shard: &Shard| sink.save(shard)
            }) as Arc<SaveShard>),
            || {
                if has_log {
                    since = self.aof.mark()?;
                    old = Some(File::open(&old_path)?);
                } else {
                    remove(&old_path);
                    let file = OpenOptions::new().append(true).create_new(true).open(&old_path)?;
                    old = Some(File::open(&old_path)?);
                    self.aof.open(Box::new(file), 0)?;
                }
                Ok(())
            },
            |shards| {
                self.aof.rewrite.saved_shards.store(shards, Relaxed);
                unsynced += sink.write_if(WRITE_BYTES)?;
                if unsynced > SYNC_BYTES {
                    new.sync_data()?;
                    unsynced = 0;
                }
                Ok(())
            },
        )?;
        sink.write_if(0)?;
        let mut old = old.ok_or(io::ErrorKind::NotFound)?;
        let mut copied = since;
        let mut new_file = new.try_clone()?;
        for _ in 0..COPY_ROUNDS {
            let length = old.metadata()?.len();
            copy(&mut old, &mut new_file, &mut copied, length)?;
            new.sync_data()?;
            if old.metadata()?.len() - copied <= LAST_COPY_BYTES {
                break;
            }
        }
        let mut size = 0;
        let teed_at = self.aof.tee(Box::new(new.try_clone()?), |length| {
            copy(&mut old, &mut new_file, &mut copied, length)?;
            size = new.metadata()?.len();
            Ok(())
        })?;
        new.sync_data()?;
        std::fs::rename(&path, self.path)?;
        // The new file has the name now: if it is not good, neither is the log.
        let exchanged = sync_directory(self.path).and_then(|()| self.aof.switch(teed_at, size));
        exchanged.inspect_err(|error| {
            if self.aof.is_enabled() {
                self.aof.fail_file(error);
            }
        })
    }
}

/// Copies the old log's bytes from `copied` to `length`, and moves `copied` on.
fn copy(old: &mut File, new: &mut File, copied: &mut u64, length: u64) -> io::Result<()> {
    old.seek(SeekFrom::Start(*copied))?;
    let wanted = length.saturating_sub(*copied);
    let got = io::copy(&mut old.take(wanted), new)?;
    *copied += got;
    if got == wanted { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// Makes a rename in the directory of this file survive a power loss.
fn sync_directory(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

/// Where encoded shards wait to be written to the temporary file.
///
/// A writer who has to save a shard only puts it here, so it does not wait for the disk; only when
/// too much is waiting does it write, so that memory stays bounded. Lock order: `file`, then
/// `waiting`.
struct Sink {
    waiting: Mutex<Waiting>,
    file: Mutex<Output>,
}

#[derive(Default)]
struct Waiting {
    bytes: Vec<u8>,
    /// The database in which a reader of the bytes would be at their end.
    db: Option<usize>,
}

struct Output {
    file: File,
    /// Writers who met it could not return it; the rewriting thread will.
    error: Option<io::Error>,
}

impl Sink {
    fn new(file: File) -> Sink {
        let file = Mutex::new(Output { file, error: None });
        Sink { waiting: Mutex::default(), file }
    }

    fn save(&self, shard: &Shard) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        for db in 0..shard.databases() {
            let Some(table) = shard.table(db).filter(|table| !table.is_empty()) else { continue };
            if waiting.db != Some(db) {
                encode(&mut waiting.bytes, &[b"SELECT", db.to_string().as_bytes()]);
                waiting.db = Some(db);
            }
            for (key, entry) in table.iter() {
                encode_entry(&mut waiting.bytes, key.bytes(), entry);
            }
        }
        let too_much = waiting.bytes.len() > WAITING_BYTES;
        drop(waiting);
        if too_much && let Err(error) = self.write_if(WAITING_BYTES) {
            self.file.lock().unwrap_or_else(PoisonError::into_inner).error = Some(error);
        }
    }

    /// Writes what is waiting, if it is more than so much; returns how much it was.
    fn write_if(&self, bytes: usize) -> io::Result<usize> {
        let mut output = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = output.error.take() {
            return Err(error);
        }
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.bytes.len() <= bytes {
            return Ok(0);
        }
        // The next that come begin with a SELECT of their own.
        let taken = std::mem::take(&mut *waiting).bytes;
        drop(waiting);
        output.file.write_all(&taken)?;
        Ok(taken.len())
    }
}

/// The fewest records that make this key.
fn encode_entry(out: &mut Vec<u8>, key: &[u8], entry: &Entry) {
    let deadline = entry.deadline_ms().map(|deadline| deadline.to_string());
    match (&entry.value, &deadline) {
        (Value::String(value), None) => encode(out, &[b"SET", key, value]),
        (Value::String(value), Some(deadline)) => {
            encode(out, &[b"SET", key, value, b"PXAT", deadline.as_bytes()]);
        }
        (Value::Hash(hash), _) => {
            let mut record: Vec<&[u8]> = vec![b"HSET", key];
            let mut bytes = 0;
            for (field, value) in hash.iter() {
                record.extend([field, value]);
                bytes += field.len() + value.len();
                if record.len() >= 2 * RECORD_FIELDS + 2 || bytes >= RECORD_BYTES {
                    encode(out, &record);
                    record.truncate(2);
                    bytes = 0;
                }
            }
            if record.len() > 2 {
                encode(out, &record);
            }
            if let Some(deadline) = &deadline {
                encode(out, &[b"PEXPIREAT", key, deadline.as_bytes()]);
            }
        }
    }
}
