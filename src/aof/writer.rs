//! Appending, flushing and syncing: how a change gets from memory to the disk.
//!
//! Three steps, each with a position (a count of bytes since the server started) up to which it has
//! come. **Append** puts a record into the `BufWriter`, while the lock on the shard that it changed
//! is still held, so the log's order is memory's order. **Flush** hands everything appended to the
//! kernel, once per batch of commands, before any reply leaves that shows it: a process that dies
//! after that takes nothing back. **Sync** makes the kernel put it on the disk, when the policy says;
//! nothing but power loss or a dying kernel needs it.
//!
//! A flush that another thread has done is not done again: [`Aof::flush_to`] compares positions
//! first, without a lock. A sync has a handle of its own and does not hold the lock for appending,
//! so a slow disk delays those who wait for the sync and nobody else.
//!
//! # Failure
//!
//! A *write* that fails leaves no hole. What the file did not take waits in memory, in order, and is
//! written first when the file takes bytes again; the syncing thread tries that once a second. Until
//! then nothing that needs it is acknowledged, and the dispatcher refuses changes
//! ([`Aof::failure`]).
//!
//! A *sync* that fails is final for the file. The kernel reports a failure once and may then forget
//! the pages it could not write, so a second sync that succeeds says nothing about them. Only a
//! rewrite into a fresh file ([`super::rewrite`]) clears that error. The same holds for a file that
//! somebody has removed: what goes into it will not be there after a restart.
//!
//! # Locks
//!
//! `log`, below the shards in the order. `sync` is held during a sync and taken with no other held;
//! a rewrite, when it changes files, takes `sync` and then `log`.

use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::file::LogFile;
use crate::resp::request::encode;
use crate::stats::Counter;

/// What the `BufWriter` holds before it writes by itself.
const BUFFER_BYTES: usize = 64 << 10;
/// A sync that takes longer is one that the next had to wait for.
const SLOW_SYNC: Duration = Duration::from_secs(1);

type Out = BufWriter<Box<dyn LogFile>>;

/// The append-only file. Without a file (`appendonly no`) it takes everything and keeps nothing.
#[derive(Default)]
pub struct Aof {
    log: Mutex<Log>,
    /// Whether `log` has a file; beside the lock, for those who need not take it then.
    enabled: AtomicBool,
    /// Up to where the kernel has the log.
    flushed: AtomicU64,
    /// The lock is held during a sync, so that those who wait for it find, when they get it, that
    /// the sync of the one before covered them. That is all there is to group commit.
    sync: Mutex<Synced>,
    /// The last write failed. A flush that succeeds clears it.
    write_failed: AtomicBool,
    /// The file has lost what it was given, or may have. A completed rewrite clears it.
    file_failed: AtomicBool,
    /// Why, for people.
    failure: Mutex<String>,
    /// Syncs of the syncing thread that took more than a second.
    pub delayed_syncs: Counter,
    pub(super) rewrite: super::rewrite::Status,
}

#[derive(Default)]
pub(super) struct Log {
    file: Option<Out>,
    /// In the last step of a rewrite, the file that is to replace the other. Both get everything.
    next: Option<Next>,
    /// What the file refused to take, to be written before anything else.
    refused: Vec<u8>,
    /// Bytes appended since the server started: the position.
    appended: u64,
    /// The database that a reader of the file would be in; none at first, so that a `SELECT` comes.
    db: Option<usize>,
    /// Bytes of the file, with those that are on their way to it.
    size: u64,
    /// What it was after the last rewrite or at the start.
    base_size: u64,
}

/// The file that is to replace the other.
struct Next {
    out: Out,
    /// It could not be written; the rewrite will find that out and give it up. Until then nothing is
    /// acknowledged, for it may have the log's name already.
    error: Option<io::Error>,
}

impl Next {
    fn note(&mut self, result: io::Result<()>) {
        self.error = self.error.take().or(result.err());
    }
}

#[derive(Default)]
struct Synced {
    file: Option<Box<dyn LogFile>>,
    next: Option<Box<dyn LogFile>>,
    position: u64,
}

impl Aof {
    /// A log that keeps nothing, until it is given a file.
    pub fn disabled() -> Aof {
        Aof::default()
    }

    /// A log that goes on at the end of the file, which is `size` bytes long.
    ///
    /// # Errors
    /// When there is no second handle to be had, for syncing.
    pub fn new(file: Box<dyn LogFile>, size: u64) -> io::Result<Aof> {
        let aof = Aof::default();
        aof.open(file, size)?;
        Ok(aof)
    }

    /// Goes on with this file, which is `size` bytes long, and gives up what there was before.
    pub(super) fn open(&self, file: Box<dyn LogFile>, size: u64) -> io::Result<()> {
        let sync_handle = file.second_handle()?;
        let mut synced = self.lock_sync();
        let mut log = self.lock();
        let file = BufWriter::with_capacity(BUFFER_BYTES, file);
        if let Some(old) = log.file.replace(file) {
            drop(old.into_parts()); // a BufWriter that is dropped would try to write once more
        }
        log.db = None;
        (log.size, log.base_size) = (size, size);
        synced.file = Some(sync_handle);
        log.refused.clear();
        self.enabled.store(true, SeqCst);
        Ok(())
    }

    /// Syncs what there is and gives the file up.
    ///
    /// # Errors
    /// The disk may not have all of it.
    pub fn close(&self) -> io::Result<()> {
        let result = self.sync();
        let mut synced = self.lock_sync();
        let mut log = self.lock();
        if let Some(file) = log.file.take() {
            drop(file.into_parts());
        }
        log.refused.clear();
        synced.file = None;
        self.enabled.store(false, SeqCst);
        self.write_failed.store(false, SeqCst);
        self.file_failed.store(false, SeqCst);
        result
    }

    /// Whether there is a file.
    pub fn is_enabled(&self) -> bool {
        self.enabled.load(SeqCst)
    }

    /// Takes note how long the file was at the start.
    pub fn set_base(&self, bytes: u64) {
        let mut log = self.lock();
        (log.size, log.base_size) = (bytes, bytes);
    }

    /// Appends a record (one or more encoded commands) about a database. The caller still holds the
    /// lock on what the record is about. Returns the position behind it.
    pub fn append(&self, db: usize, record: &[u8]) -> u64 {
        if !self.is_enabled() {
            return 0;
        }
        let mut log = self.lock();
        if log.db != Some(db) {
            let mut select = Vec::new();
            encode(&mut select, &[b"SELECT", db.to_string().as_bytes()]);
            self.note_write(log.append(&select));
            log.db = Some(db);
        }
        // A failure is not lost: whoever wants to reply has to flush first, and hears of it then.
        self.note_write(log.append(record));
        log.appended
    }

    /// Sees to it that the kernel has the log as far as the position.
    ///
    /// # Errors
    /// The kernel does not take it; nothing that needs the position may be acknowledged.
    pub fn flush_to(&self, position: u64) -> io::Result<()> {
        if position <= self.flushed.load(SeqCst) {
            return Ok(());
        }
        self.flush()
    }

    /// As [`Aof::flush_to`], for everything that was appended.
    ///
    /// # Errors
    /// The kernel does not take it.
    pub fn flush(&self) -> io::Result<()> {
        let mut log = self.lock();
        self.flush_locked(&mut log)
    }

    fn flush_locked(&self, log: &mut Log) -> io::Result<()> {
        let result = log.flush();
        if self.needs_rewrite() {
            // What the file takes now proves nothing: the position stays where it was.
            return Err(io::Error::other(self.failure().unwrap_or_default()));
        }
        if result.is_ok() {
            self.flushed.store(log.appended, SeqCst);
            self.write_failed.store(false, SeqCst);
        }
        if let Err(error) = &result {
            self.note_write(Err(copy_of(error)));
        }
        result
    }

    /// Sees to it that the disk has the log as far as the position, which must be flushed.
    ///
    /// # Errors
    /// The disk may not have it.
    pub fn sync_to(&self, position: u64) -> io::Result<()> {
        let mut synced = self.lock_sync();
        if self.file_failed.load(SeqCst) {
            return Err(io::Error::other(self.failure().unwrap_or_default()));
        }
        let flushed = self.flushed.load(SeqCst);
        if synced.position >= position || synced.position == flushed {
            return Ok(());
        }
        for file in synced.file.iter().chain(&synced.next) {
            if let Err(error) = file.sync() {
                self.fail_file(&error);
                return Err(error);
            }
        }
        synced.position = flushed;
        Ok(())
    }

    /// Flushes and syncs everything: what the syncing thread does once a second.
    ///
    /// # Errors
    /// The disk may not have it.
    pub fn sync(&self) -> io::Result<()> {
        self.flush()?;
        let started = Instant::now();
        let result = self.sync_to(self.flushed.load(SeqCst));
        self.delayed_syncs.add(u64::from(started.elapsed() > SLOW_SYNC));
        result
    }

    /// Why the log cannot be relied on at present, if it cannot.
    pub fn failure(&self) -> Option<String> {
        if !self.write_failed.load(SeqCst) && !self.needs_rewrite() {
            return None;
        }
        Some(self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// Whether only a rewrite can make the log good again.
    pub fn needs_rewrite(&self) -> bool {
        self.file_failed.load(SeqCst)
    }

    /// Takes note that the file has lost, or may have lost, what it was given.
    pub fn fail_file(&self, error: &io::Error) {
        if !self.file_failed.load(SeqCst) {
            self.say_failure(error);
            self.file_failed.store(true, SeqCst);
        }
    }

    /// Whether the log, or the one that is about to replace it, still has that name.
    pub fn is_at(&self, path: &Path) -> bool {
        let synced = self.lock_sync();
        synced.file.iter().chain(&synced.next).any(|file| file.is_at(path))
    }

    /// Bytes of the file, with those on their way to it; and what they were after the last rewrite,
    /// or at the start.
    pub fn size(&self) -> (u64, u64) {
        let log = self.lock();
        (log.size, log.base_size)
    }

    /// Keeps a failure, so that changes are refused until a flush succeeds.
    fn note_write(&self, result: io::Result<()>) {
        if let Err(error) = result
            && !self.write_failed.load(SeqCst)
        {
            self.say_failure(&error);
            self.write_failed.store(true, SeqCst);
        }
    }

    fn say_failure(&self, error: &io::Error) {
        eprintln!("The log cannot be relied on: {error}. Changes are refused until it can.");
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = error.to_string();
    }

    fn lock(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_sync(&self) -> MutexGuard<'_, Synced> {
        self.sync.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a rewrite does with the files. Its story is told in [`super::rewrite`].
impl Aof {
    /// At the point in time of a rewrite, all shards being locked: flushes, and has the next record
    /// say its database. Returns the length of the file.
    pub(super) fn mark(&self) -> io::Result<u64> {
        let mut log = self.lock();
        self.flush_locked(&mut log)?;
        log.db = None;
        Ok(log.size)
    }

    /// Flushes, lets `copy` bring the new file level with the old one, whose length it is told, and
    /// from then on writes everything to both. Returns the position at which they were level.
    pub(super) fn tee(
        &self,
        next: Box<dyn LogFile>,
        copy: impl FnOnce(u64) -> io::Result<()>,
    ) -> io::Result<u64> {
        let sync_handle = next.second_handle()?;
        let mut synced = self.lock_sync();
        let mut log = self.lock();
        self.expect_enabled()?;
        log.flush()?;
        copy(log.size)?;
        log.next = Some(Next { out: BufWriter::with_capacity(BUFFER_BYTES, next), error: None });
        synced.next = Some(sync_handle);
        Ok(log.appended)
    }

    /// Makes the new file the only one. It had `size` bytes at the position of the tee, and as far as
    /// that it is on the disk.
    pub(super) fn switch(&self, teed_at: u64, size: u64) -> io::Result<()> {
        let mut synced = self.lock_sync();
        let mut log = self.lock();
        self.expect_enabled()?;
        log.flush()?;
        let next = log.next.take().ok_or(io::ErrorKind::NotFound)?;
        let sync_handle = synced.next.take();
        if let Some(old) = log.file.replace(next.out) {
            drop(old.into_parts());
        }
        log.size = size + (log.appended - teed_at);
        log.base_size = log.size;
        (synced.file, synced.position) = (sync_handle, teed_at);
        self.flushed.store(log.appended, SeqCst);
        self.file_failed.store(false, SeqCst);
        Ok(())
    }

    fn expect_enabled(&self) -> io::Result<()> {
        let off = || io::Error::other("appendonly was turned off meanwhile");
        self.is_enabled().then_some(()).ok_or_else(off)
    }

    /// Goes back to one file.
    pub(super) fn untee(&self) {
        let mut synced = self.lock_sync();
        let mut log = self.lock();
        if let Some(next) = log.next.take() {
            drop(next.out.into_parts());
        }
        synced.next = None;
    }
}

/// An error that can be told twice.
fn copy_of(error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), error.to_string())
}

impl Log {
    /// Takes a record into all files there are.
    fn append(&mut self, record: &[u8]) -> io::Result<()> {
        self.appended += record.len() as u64;
        self.size += record.len() as u64;
        if let Some(next) = &mut self.next {
            let result = next.out.write_all(record);
            next.note(result);
        }
        self.write(record)
    }

    /// Writes all of it, or keeps what the file does not take. (`write_all` would not tell how far
    /// it came.)
    fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        while self.refused.is_empty() && !bytes.is_empty() {
            match file.write(bytes) {
                Ok(0) => return self.refuse(bytes, io::ErrorKind::WriteZero.into()),
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return self.refuse(bytes, error),
            }
        }
        self.refused.extend_from_slice(bytes);
        Ok(())
    }

    fn refuse(&mut self, rest: &[u8], error: io::Error) -> io::Result<()> {
        self.refused.extend_from_slice(rest);
        Err(error)
    }

    fn flush(&mut self) -> io::Result<()> {
        if let Some(next) = &mut self.next {
            let result = next.out.flush();
            next.note(result);
        }
        if !self.refused.is_empty() {
            let refused = std::mem::take(&mut self.refused);
            self.write(&refused)?;
        }
        self.file.as_mut().map_or(Ok(()), Write::flush)?;
        let error = self.next.as_ref().and_then(|next| next.error.as_ref());
        error.map_or(Ok(()), |error| Err(copy_of(error)))
    }
}
