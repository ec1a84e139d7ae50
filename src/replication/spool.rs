//! A snapshot on its way to replicas: it is written to a file without a name, and read from there.
//!
//! The file is between the two because clients help to write the snapshot, while they hold shards, and must
//! not wait for a replica. So a slow replica costs disk and no memory. Replicas read the file while it is
//! written; those that come during that time share it.
//!
//! FLUSHALL and similar commands end the snapshot. The replicas that have a part of it are disconnected, and
//! come again; there is less to send then.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::identity::Id;
use crate::rdb::Dialect;
use crate::stats::lock;

/// How much is written at once.
const WRITE_BYTES: usize = 128 << 10;

/// A snapshot in a file.
pub struct Spool {
    file: File,
    pub(super) dialect: Dialect,
    /// It holds the keyspace; otherwise it is empty.
    pub(super) has_keys: bool,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    begins: Option<Begin>,
    written: u64,
    end: Option<Result<(), String>>,
    /// How many replicas read it.
    readers: usize,
}

/// The point in time that a snapshot shows.
#[derive(Clone, Debug)]
pub struct Begin {
    pub lsn: u64,
    pub id: Id,
    pub offset: u64,
}

/// What there is to read.
pub(super) enum Read {
    /// So many bytes.
    Bytes(usize),
    /// Nothing yet.
    Nothing,
    /// All was read.
    End,
}

impl Spool {
    fn new(file: File, dialect: Dialect, has_keys: bool) -> Spool {
        let state = Mutex::new(State { readers: 1, ..State::default() });
        Spool { file, dialect, has_keys, state, changed: Condvar::new() }
    }

    pub(super) fn begin(&self, begin: Begin) {
        self.lock().begins = Some(begin);
        self.changed.notify_all();
    }

    pub(super) fn end(&self, result: Result<(), String>) {
        self.lock().end = Some(result);
        self.changed.notify_all();
    }

    /// Waits for that long for the snapshot to begin.
    ///
    /// # Errors
    /// It has failed.
    pub(super) fn wait_for_begin(&self, patience: Duration) -> io::Result<Option<Begin>> {
        let state = self.wait(patience, |state| state.begins.is_none());
        match &state.end {
            Some(Err(why)) => Err(io::Error::other(why.clone())),
            _ => Ok(state.begins.clone()),
        }
    }

    /// Waits for that long for the snapshot to end. Returns its length.
    ///
    /// # Errors
    /// It has failed.
    pub(super) fn wait_for_end(&self, patience: Duration) -> io::Result<Option<u64>> {
        let state = self.wait(patience, |_| true);
        match &state.end {
            Some(Err(why)) => Err(io::Error::other(why.clone())),
            Some(Ok(())) => Ok(Some(state.written)),
            None => Ok(None),
        }
    }

    /// Reads from that position on, and waits for that long if there is nothing yet.
    ///
    /// # Errors
    /// The file cannot be read, or the snapshot has failed.
    pub(super) fn read(&self, buffer: &mut [u8], at: u64, patience: Duration) -> io::Result<Read> {
        let state = self.wait(patience, |state| state.written <= at);
        let left = state.written - at;
        match &state.end {
            Some(Err(why)) => return Err(io::Error::other(why.clone())),
            Some(Ok(())) if left == 0 => return Ok(Read::End),
            _ if left == 0 => return Ok(Read::Nothing),
            _ => {}
        }
        drop(state);
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        Ok(Read::Bytes(self.file.read_at(&mut buffer[..wanted], at)?))
    }

    /// Another replica reads it, if it is being written.
    fn join(&self) -> bool {
        let mut state = self.lock();
        let joins = state.readers > 0 && state.end.is_none();
        state.readers += usize::from(joins);
        joins
    }

    /// A replica reads no more.
    pub(super) fn leave(&self) {
        self.lock().readers -= 1;
    }

    /// Whether nobody reads it.
    pub(super) fn is_abandoned(&self) -> bool {
        self.lock().readers == 0
    }

    fn wait(
        &self,
        patience: Duration,
        mut lacks: impl FnMut(&State) -> bool,
    ) -> MutexGuard<'_, State> {
        let lacks = |state: &mut State| state.end.is_none() && lacks(state);
        let waited = self.changed.wait_timeout_while(self.lock(), patience, lacks);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// Writes to a spool, in large pieces.
pub(super) struct SpoolWriter {
    spool: Arc<Spool>,
    buffer: Vec<u8>,
}

impl SpoolWriter {
    pub(super) fn new(spool: Arc<Spool>) -> SpoolWriter {
        SpoolWriter { spool, buffer: Vec::with_capacity(WRITE_BYTES) }
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        (&self.spool.file).write_all(bytes)?;
        self.spool.lock().written += bytes.len() as u64;
        self.spool.changed.notify_all();
        Ok(())
    }
}

impl Write for SpoolWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.len() + bytes.len() > WRITE_BYTES {
            self.flush()?;
        }
        if bytes.len() >= WRITE_BYTES {
            self.put(bytes)?;
        } else {
            self.buffer.extend_from_slice(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let written = self.put(&buffer);
        buffer.clear();
        self.buffer = buffer;
        written
    }
}

/// The spools that are in use.
#[derive(Default)]
pub struct Spools(Mutex<Vec<Arc<Spool>>>);

impl Spools {
    /// Joins a snapshot that is being written in this dialect, or begins one. Then the caller must write it.
    ///
    /// # Errors
    /// `create` could not create a file.
    pub(super) fn join(
        &self,
        dialect: Dialect,
        has_keys: bool,
        create: impl FnOnce() -> io::Result<File>,
    ) -> io::Result<(Arc<Spool>, bool)> {
        let mut spools = lock(&self.0);
        let fits = |spool: &&Arc<Spool>| spool.dialect == dialect && spool.has_keys == has_keys;
        if let Some(spool) = spools.iter().filter(fits).find(|spool| spool.join()) {
            return Ok((spool.clone(), false));
        }
        let spool = Arc::new(Spool::new(create()?, dialect, has_keys));
        spools.push(spool.clone());
        Ok((spool, true))
    }

    /// Forgets the spools that nobody reads. Returns the least LSN of the others.
    pub(super) fn needs(&self) -> Option<u64> {
        let mut spools = lock(&self.0);
        spools.retain(|spool| !spool.is_abandoned());
        let begins = spools.iter().filter_map(|spool| Some(spool.lock().begins.as_ref()?.lsn));
        begins.min()
    }
}
