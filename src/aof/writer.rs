//! Appending, flushing and syncing: how a change gets from memory to the disk.
//!
//! Three steps, each with a position (a count of bytes since the server started) up to which it has
//! come: **append** puts a record into the `BufWriter`, while the lock on the shard that it changed is
//! still held, so the log's order is memory's order; **flush** hands everything appended to the
//! kernel, once per batch of commands, before any reply leaves that shows it (a process that dies
//! after that takes nothing back); **sync** makes the kernel put it on the disk (nothing but power loss
//! or a dying kernel needs it), when the policy says.
//!
//! A flush that another thread has done is not done again: [`Aof::flush_to`] compares positions
//! first, without a lock. A sync uses a handle of its own and does not hold the lock for appending.
//!
//! Failure: a write that fails leaves no hole. What the file did not take waits in memory, in order,
//! and is written first when the file takes bytes again, which the syncing thread tries once a second;
//! until then [`Aof::failure`] is set, nothing is acknowledged, and the dispatcher refuses changes.
//!
//! Locks: `log`, below the shards in the order; `sync`, never together with it.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::resp::request::encode;

/// What the `BufWriter` holds before it writes by itself.
const BUFFER_BYTES: usize = 64 << 10;

/// The append-only file. Without a file (`appendonly no`) it takes everything and keeps nothing.
pub struct Aof {
    log: Mutex<Option<Log>>,
    enabled: bool,
    /// Up to where the kernel has the log.
    flushed: AtomicU64,
    /// Up to where the disk has it. The lock is held during a sync, so that those who wait for it
    /// find, when they get it, that the sync of the one before covered them: group commit.
    sync: Mutex<Synced>,
    failed: AtomicBool,
    failure: Mutex<String>,
}

struct Log {
    file: BufWriter<File>,
    /// What the file refused to take, to be written before anything else.
    refused: Vec<u8>,
    /// Bytes appended since the server started: the position.
    appended: u64,
    /// The database that a reader of the file would be in; none at first, so that a `SELECT` comes.
    db: Option<usize>,
    /// What the file held at the start.
    base_bytes: u64,
}

struct Synced {
    file: Option<File>,
    position: u64,
}

impl Aof {
    /// A log that keeps nothing.
    pub fn disabled() -> Aof {
        Aof {
            log: Mutex::new(None),
            enabled: false,
            flushed: AtomicU64::new(0),
            sync: Mutex::new(Synced { file: None, position: 0 }),
            failed: AtomicBool::new(false),
            failure: Mutex::default(),
        }
    }

    /// A log that goes on at the end of the file.
    ///
    /// # Errors
    /// When there is no second handle to be had, for syncing.
    pub fn new(file: File) -> io::Result<Aof> {
        let sync = Synced { file: Some(file.try_clone()?), position: 0 };
        let file = BufWriter::with_capacity(BUFFER_BYTES, file);
        let log = Log { file, refused: Vec::new(), appended: 0, db: None, base_bytes: 0 };
        Ok(Aof {
            log: Mutex::new(Some(log)),
            enabled: true,
            sync: Mutex::new(sync),
            ..Aof::disabled()
        })
    }

    /// Whether there is a file.
    pub fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// Takes note how long the file was at the start.
    pub fn set_base(&self, bytes: u64) {
        if let Some(log) = self.lock().as_mut() {
            log.base_bytes = bytes;
        }
    }

    /// Appends a record (one or more encoded commands) about a database. The caller still holds the
    /// lock on what the record is about. Returns the position behind it.
    pub fn append(&self, db: usize, record: &[u8]) -> u64 {
        if !self.enabled {
            return 0;
        }
        let mut guard = self.lock();
        let Some(log) = guard.as_mut() else { return 0 };
        if log.db != Some(db) {
            let mut select = Vec::new();
            encode(&mut select, &[b"SELECT", db.to_string().as_bytes()]);
            self.note(log.write(&select)).unwrap_or_default();
            log.db = Some(db);
        }
        // A failure is not lost: whoever wants to reply has to flush first, and hears of it then.
        self.note(log.write(record)).unwrap_or_default();
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
        let mut guard = self.lock();
        let Some(log) = guard.as_mut() else {
            return Ok(());
        };
        let result = log.flush();
        if result.is_ok() {
            self.flushed.store(log.appended, SeqCst);
            self.failed.store(false, SeqCst);
        }
        drop(guard);
        self.note(result)
    }

    /// Sees to it that the disk has the log as far as the position, which must be flushed.
    ///
    /// # Errors
    /// The disk may not have it.
    pub fn sync_to(&self, position: u64) -> io::Result<()> {
        let mut synced = self.sync.lock().unwrap_or_else(PoisonError::into_inner);
        let flushed = self.flushed.load(SeqCst);
        if synced.position >= position || synced.position == flushed {
            return Ok(());
        }
        if let Some(file) = &synced.file {
            file.sync_data()?;
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
        self.sync_to(self.flushed.load(SeqCst))
    }

    /// Why the log cannot be written at present, if it cannot.
    pub fn failure(&self) -> Option<String> {
        if !self.failed.load(Relaxed) {
            return None;
        }
        Some(self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// Bytes of the file, those that are not flushed yet included, and of the file at the start.
    pub fn size(&self) -> (u64, u64) {
        let guard = self.lock();
        guard.as_ref().map_or((0, 0), |log| (log.base_bytes + log.appended, log.base_bytes))
    }

    /// Keeps a failure, so that writes are refused until a flush succeeds.
    fn note(&self, result: io::Result<()>) -> io::Result<()> {
        if let Err(error) = &result {
            let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
            *failure = error.to_string();
            if !self.failed.swap(true, SeqCst) {
                eprintln!("The log cannot be written: {error}. Changes are refused until it can.");
            }
        }
        result
    }

    fn lock(&self) -> MutexGuard<'_, Option<Log>> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log {
    /// Writes all of it, or keeps what the file does not take. (`write_all` would not tell how far
    /// it came.)
    fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        self.appended += bytes.len() as u64;
        if !self.refused.is_empty() {
            self.refused.extend_from_slice(bytes);
            return Ok(());
        }
        while !bytes.is_empty() {
            match self.file.write(bytes) {
                Ok(0) => return self.refuse(bytes, io::ErrorKind::WriteZero.into()),
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return self.refuse(bytes, error),
            }
        }
        Ok(())
    }

    fn refuse(&mut self, rest: &[u8], error: io::Error) -> io::Result<()> {
        self.refused.extend_from_slice(rest);
        Err(error)
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.refused.is_empty() {
            let refused = std::mem::take(&mut self.refused);
            self.appended -= refused.len() as u64; // they were counted when they came
            self.write(&refused)?;
        }
        self.file.flush()
    }
}
