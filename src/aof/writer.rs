//! The log as the rest of the server uses it: append, flush, sync.
//!
//! Three steps bring a change from memory to the disk, and each has an LSN up to which it has come (see
//! [`super::append`]). **Append** queues a record while the lock on the shard that it changed is still
//! held, so the log's order is memory's order. **Flush** hands all queued records to the kernel, once per
//! batch of commands, before any reply that shows them leaves: a process that dies after that loses
//! nothing. **Sync** makes the kernel put them on the disk, when the policy says so; only a power loss or
//! a kernel crash makes a difference to it.
//!
//! No step repeats what another thread has done: [`Aof::flush_to`] and [`Aof::sync_to`] compare LSNs first,
//! without a lock. Threads that need a sync share it ([`super::group_commit`]). [`super::failure`] describes
//! what happens when the disk fails: nothing is acknowledged that the log does not have, and the dispatcher
//! refuses changes ([`Aof::failure`]).
//!
//! # Invariants
//!
//! synced LSN ≤ flushed LSN ≤ appended LSN; the file, with what waits to be written to it, is as long as
//! [`Aof::size`] says. [`Aof::check`] verifies these and more.
//!
//! # Locks
//!
//! Group commit, then `files`, then `pending`, all below the shards. Writes happen under `files`; syncs
//! happen under no lock.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::append::Pending;
use super::failure::Failure;
use super::file::{LogFile, StandIn};
use super::flush::{BUFFER_BYTES, Files, Output};
use super::group_commit::{GroupCommit, Synced, copy_of};
use super::progress::Rewrites;
use super::stream::{Copied, Readers};
use crate::config::trace::trace;
use crate::config::{Level, logger};
use crate::stats::{Counter, lock};

/// A sync that takes longer than this is counted as delayed.
const SLOW_SYNC: Duration = Duration::from_secs(1);

/// The append-only file. Without a file (`appendonly no`) everything succeeds and nothing is kept.
#[derive(Default)]
pub struct Aof {
    pending: Mutex<Pending>,
    files: Mutex<Files>,
    /// Whether records are kept: there is a log, or replicas read. Set with `files` locked, and read without.
    enabled: AtomicBool,
    /// Whether there is a log. Set and read in the same way.
    is_log: AtomicBool,
    /// The file that stands in for a log could not be written. Set with `files` locked.
    stand_in_failed: AtomicBool,
    /// The kernel has the log up to this LSN. Set with `files` locked, and read without.
    flushed: AtomicU64,
    group: GroupCommit,
    failure: Failure,
    pub(super) readers: Readers,
    /// Syncs of the syncing thread that took more than a second.
    pub delayed_syncs: Counter,
    /// How rewrites of this log are going.
    pub rewrites: Rewrites,
}

impl Aof {
    /// A log without a file. A rewrite can give it one.
    pub fn disabled() -> Aof {
        Aof::default()
    }

    /// A log that goes on at the end of this file, which is at that path.
    ///
    /// # Errors
    /// The file's handle could not be duplicated, or its length cannot be read.
    pub fn new(file: Box<dyn LogFile>, path: &Path) -> io::Result<Aof> {
        let aof = Aof::default();
        aof.open(file, path)?;
        Ok(aof)
    }

    /// Goes on at the end of this file, which is at that path or will be. Drops the old file with everything
    /// that was not written to it: this is another history.
    ///
    /// # Errors
    /// The file's handle could not be duplicated, or its length cannot be read.
    pub fn open(&self, file: Box<dyn LogFile>, path: &Path) -> io::Result<()> {
        let size = file.length()?;
        let output = Output::new(file, path)?;
        let mut files = self.lock_files();
        let mut pending = self.lock_pending();
        // Nobody may go on where the stream ended, so there is an LSN between. The offsets of a master's
        // stream are not ours to change.
        pending.appended += u64::from(files.file.is_some() && !pending.follows);
        files.stream.begin(pending.appended, size, output.handle.clone());
        self.readers.segments_changed();
        files.replace(Some(output));
        pending.records.clear();
        if !pending.follows {
            pending.db = (size == 0).then_some(0); // a replay begins in database 0
        }
        pending.start_file(size);
        self.enabled.store(true, SeqCst);
        self.is_log.store(true, SeqCst);
        Ok(())
    }

    /// Goes on in this empty file, which takes the place of the log for some time. Replicas read on, unless
    /// what they must read cannot be written: it is in memory only.
    pub(super) fn open_tail(&self, file: Box<dyn LogFile>, path: &Path) -> io::Result<()> {
        let mut files = self.lock_files();
        let is_whole = files.file.is_some() && self.flush_locked(&mut files).is_ok();
        if is_whole && files.file.is_some() {
            self.go_on_in(&mut files, Output::new(file, path)?, 0);
            self.is_log.store(true, SeqCst);
            return Ok(());
        }
        drop(files);
        self.open(file, path)
    }

    /// Goes on in another file of this size, once everything flushed is in the old one. Replicas read on.
    fn go_on_in(&self, files: &mut Files, output: Output, size: u64) {
        let mut pending = self.lock_pending();
        let queued = pending.records.len() as u64;
        files.stream.go_on(pending.appended - queued, size, output.handle.clone());
        self.readers.segments_changed();
        files.replace(Some(output));
        pending.db = pending.db.filter(|_| pending.follows);
        pending.start_file(size);
        pending.size += queued;
    }

    /// Keeps records for replicas in this file, which nobody else knows, if there is no log or that ends.
    ///
    /// # Errors
    /// The file cannot be used.
    pub fn stand_in(&self, file: File) -> io::Result<()> {
        let output = Output::new(Box::new(StandIn(file)), Path::new(""))?;
        let mut files = self.lock_files();
        let [old, _] = files.handles();
        match &files.file {
            Some(_) => {
                self.flush_locked(&mut files)?;
                self.go_on_in(&mut files, output, 0);
            }
            None => {
                let mut pending = self.lock_pending();
                files.stream.begin(pending.appended, 0, output.handle.clone());
                self.readers.segments_changed();
                files.replace(Some(output));
                pending.db = pending.db.filter(|_| pending.follows);
                pending.start_file(0);
            }
        }
        self.is_log.store(false, SeqCst);
        self.enabled.store(true, SeqCst);
        drop(files);
        old.map_or(Ok(()), |file| {
            file.release();
            file.sync()
        })
    }

    /// Ends what [`Aof::stand_in`] began: nobody can go on in what was recorded so far.
    pub fn end_stand_in(&self) {
        let mut files = self.lock_files();
        if self.has_stand_in() {
            self.flush_locked(&mut files).unwrap_or_default(); // nobody will read it
            self.drop_file(&mut files);
        }
    }

    /// Whether records are kept for replicas only.
    pub fn has_stand_in(&self) -> bool {
        self.keeps_records() && !self.is_enabled()
    }

    /// Whether records are kept, for whatever purpose.
    pub fn keeps_records(&self) -> bool {
        self.enabled.load(SeqCst)
    }

    /// Syncs the log and closes its file. From now on there is none, and records are not kept.
    ///
    /// # Errors
    /// The disk may not have all of it.
    pub fn close(&self) -> io::Result<()> {
        let synced = self.sync(); // most of it, while others still append
        let mut files = self.lock_files();
        let flushed = self.flush_locked(&mut files);
        let [handle, _] = files.handles();
        self.drop_file(&mut files);
        drop(files);
        synced.and(flushed)?;
        handle.map_or(Ok(()), |file| file.sync())
    }

    /// Keeps records no longer. What changes from now on is not in the stream, so nobody may go on where it
    /// ends.
    fn drop_file(&self, files: &mut Files) {
        files.replace(None);
        files.stream.clear();
        self.readers.segments_changed();
        let mut pending = self.lock_pending();
        pending.appended += u64::from(!pending.follows);
        drop(pending);
        self.enabled.store(false, SeqCst);
        self.is_log.store(false, SeqCst);
        self.failure.clear();
    }

    /// Whether there is a log.
    pub fn is_enabled(&self) -> bool {
        self.is_log.load(SeqCst)
    }

    /// Goes on at the end of the file, once it has been replayed and is that long. `marks` are the places
    /// of the stream in it: LSNs, and positions in the file.
    pub fn start(&self, bytes: u64, marks: &[(u64, u64)]) {
        let mut files = self.lock_files();
        let mut pending = self.lock_pending();
        pending.start_file(bytes);
        let Some(file) = files.file.as_ref().map(|file| file.handle.clone()) else { return };
        if let Some((lsn, position)) = marks.last() {
            pending.appended = lsn + (bytes - position);
            self.flushed.store(pending.appended, SeqCst);
            self.group.advance(pending.appended);
        }
        let end = (pending.appended, bytes);
        let (first, rest) = marks.split_first().unwrap_or((&end, &[]));
        files.stream.begin(first.0, first.1, file);
        rest.iter().for_each(|(lsn, position)| files.stream.go_on_behind(*lsn, *position));
        self.readers.segments_changed();
    }

    /// Everything up to this LSN was appended.
    pub fn appended_lsn(&self) -> u64 {
        self.lock_pending().appended
    }

    /// The kernel has the log up to this LSN.
    pub fn flushed_lsn(&self) -> u64 {
        self.flushed.load(SeqCst)
    }

    /// The disk has the log up to this LSN.
    pub fn synced_lsn(&self) -> u64 {
        self.group.synced_lsn()
    }

    /// Appends a record that means the same in every database. Returns the LSN behind it, or `None` if the
    /// log takes no records, or only those of a master.
    pub fn append_anywhere(&self, record: &[u8]) -> Option<u64> {
        let mut pending = self.lock_pending();
        let takes_it = self.keeps_records() && !pending.follows;
        takes_it.then(|| {
            pending.push_as_is(record);
            pending.appended
        })
    }

    /// Writes a line about the log into it, which is not part of the stream. The function gets the LSN that
    /// precedes the line, and returns the line, whose first byte is `#`. It is called with the log locked;
    /// the line is lost if the log cannot be written, or if there is none.
    pub fn annotate(&self, line: impl FnOnce(u64) -> Vec<u8>) {
        let mut files = self.lock_files();
        let (_, lsn) = self.write_pending(&mut files);
        let line = line(lsn);
        if files.file.is_none() {
            return;
        }
        let written = files.write(&line);
        self.note_write(&written);
        files.annotated(line.len() as u64);
        let mut pending = self.lock_pending();
        pending.size += line.len() as u64;
        let position = pending.size_at(lsn);
        drop(pending);
        files.stream.go_on_behind(lsn, position);
        self.readers.segments_changed();
        self.flush_locked(&mut files).unwrap_or_default(); // a reply needs a flush, which returns the error
    }

    /// Appends a record (one or more encoded commands) about a database. The caller still holds the lock
    /// on the shards that it is about. Returns the record's LSN, or 0 if there is no file.
    pub fn append(&self, db: usize, record: &[u8]) -> u64 {
        self.append_across((db, db), record)
    }

    /// Like [`Aof::append`], for a record that begins in one database and ends in another.
    pub(super) fn append_across(&self, databases: (usize, usize), record: &[u8]) -> u64 {
        if !self.keeps_records() {
            return 0;
        }
        if record.len() < BUFFER_BYTES {
            let mut pending = self.lock_pending();
            if pending.follows {
                return 0;
            }
            pending.push(databases, record);
            let lsn = pending.appended;
            drop(pending);
            trace!("Aof::append", "record of {} bytes, LSN {lsn}", record.len());
            return lsn;
        }
        let mut files = self.lock_files();
        let mut pending = self.lock_pending();
        if pending.follows {
            return 0;
        }
        let before = pending.push_uncopied(databases, record);
        let lsn = pending.appended;
        drop(pending);
        trace!("Aof::append", "record of {} bytes, LSN {lsn}", record.len());
        // An error is not returned here: a reply needs a flush first, and that returns it.
        let written = files.write(&before);
        self.note_write(&files.write(record).and(written));
        lsn
    }

    /// Returns once the kernel has the log up to `lsn`.
    ///
    /// # Errors
    /// The kernel does not take it. Nothing that needs this record may be acknowledged.
    pub fn flush_to(&self, lsn: u64) -> io::Result<()> {
        let is_flushed = || lsn <= self.flushed.load(SeqCst);
        if is_flushed() {
            trace!("Aof::flush_to", "the kernel has the log up to LSN {lsn} already");
            return Ok(());
        }
        let mut files = self.lock_files();
        if is_flushed() {
            trace!("Aof::flush_to", "another thread has flushed up to LSN {lsn} meanwhile");
            return Ok(());
        }
        trace!("Aof::flush_to", "writes the log up to LSN {lsn} to the kernel");
        self.flush_locked(&mut files)
    }

    /// Like [`Aof::flush_to`], for everything that was appended.
    ///
    /// # Errors
    /// The kernel does not take it.
    pub fn flush(&self) -> io::Result<()> {
        self.flush_locked(&mut self.lock_files())
    }

    fn flush_locked(&self, files: &mut Files) -> io::Result<()> {
        let (written, lsn) = self.write_pending(files);
        if self.stand_in_failed.load(SeqCst) {
            self.stand_in_failed.store(false, SeqCst);
            // Replicas must begin anew. That is no reason to refuse writes.
            let text = "What replicas read cannot be written, so they will be synchronized again";
            logger::log(Level::Warning, format_args!("{text}"));
            self.drop_file(files);
            return Ok(());
        }
        if self.needs_rewrite() {
            // Whatever the file takes now proves nothing, so the flushed LSN stays where it was.
            return Err(self.failure.error());
        }
        if written.is_ok() {
            self.flushed.store(lsn, SeqCst);
            self.readers.wake();
            self.failure.flush_succeeded();
        }
        written
    }

    /// Writes all pending records to the files. Also returns the LSN of the last.
    fn write_pending(&self, files: &mut Files) -> (io::Result<()>, u64) {
        let spare = files.take_spare();
        let mut pending = self.lock_pending();
        let records = std::mem::replace(&mut pending.records, spare);
        let lsn = pending.appended;
        drop(pending);
        let written = files.write_through(records);
        self.note_write(&written);
        (written, lsn)
    }

    fn note_write(&self, written: &io::Result<()>) {
        match written {
            Err(_) if self.has_stand_in() => self.stand_in_failed.store(true, SeqCst),
            Err(error) => self.failure.write_failed(error),
            Ok(()) => {}
        }
    }

    /// Whether the disk has the log up to `lsn`.
    pub fn is_synced(&self, lsn: u64) -> bool {
        self.group.is_synced(lsn)
    }

    /// Returns once the disk has the log up to `lsn`. Flushes first if needed.
    ///
    /// # Errors
    /// The disk may not have it.
    pub fn sync_to(&self, lsn: u64) -> io::Result<()> {
        self.group.commit(lsn, || self.lock_pending().appended, || self.flush_and_sync())
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

    fn flush_and_sync(&self) -> Synced {
        if self.needs_rewrite() {
            return Synced { lsn: 0, error: Some(self.failure.error()) };
        }
        let mut files = self.lock_files();
        let flushed = self.flush_locked(&mut files);
        // On a full disk, what was flushed before can still be synced.
        let lsn = self.flushed.load(SeqCst);
        // Taken under the same lock: what is flushed after a rewrite's switch is in another file.
        let [file, next] = files.handles();
        drop(files);
        match self.sync_files(file.as_deref(), next.as_deref()) {
            Ok(()) => Synced { lsn, error: flushed.err() },
            Err(error) => Synced { lsn: 0, error: Some(error) },
        }
    }

    fn sync_files(&self, file: Option<&dyn LogFile>, next: Option<&dyn LogFile>) -> io::Result<()> {
        file.map_or(Ok(()), LogFile::sync).inspect_err(|error| self.fail_file(error))?;
        next.map_or(Ok(()), LogFile::sync).inspect_err(|error| {
            // The kernel reports a failure once, so the rewrite's own sync would not see it. If there is
            // no new file any more, it has become the log.
            match &mut self.lock_files().next {
                Some(next) => next.note(Err(copy_of(error))),
                None => self.fail_file(error),
            }
        })
    }

    /// Why the log cannot be relied on at present; `None` if it can.
    pub fn failure(&self) -> Option<String> {
        self.failure.reason()
    }

    /// Whether only a rewrite can make the log good again.
    pub fn needs_rewrite(&self) -> bool {
        self.failure.needs_rewrite()
    }

    /// How often a file was lost, so that the log had to be written again from memory.
    pub fn files_lost(&self) -> &Counter {
        &self.failure.losses
    }

    /// Records that the file has lost, or may have lost, what was written to it.
    pub fn fail_file(&self, error: &io::Error) {
        self.failure.file_lost(error);
    }

    /// Records that a new file has taken the place of the log.
    pub(super) fn heal(&self) {
        self.failure.clear();
    }

    /// Finds out whether another program has removed, replaced or changed the file. If so, the file is lost.
    /// A file that is lost already is not looked at.
    ///
    /// # Errors
    /// What has happened.
    pub fn verify_file(&self) -> io::Result<()> {
        let files = self.lock_files();
        if let Some(path) = files.path()
            && !self.needs_rewrite()
            && !files.is_in_place()
        {
            let error = io::Error::other(format!("'{}' is gone", path.display()));
            self.fail_file(&error);
            return Err(error);
        }
        self.verify_length(&files)
    }

    /// The same for the file's length: it must be what this process has written.
    fn verify_length(&self, files: &Files) -> io::Result<()> {
        let Some(path) = files.path().filter(|_| !self.needs_rewrite()) else { return Ok(()) };
        let pending = self.lock_pending();
        let expected = pending.size - pending.records.len() as u64;
        drop(pending);
        let verified = match files.length() {
            Ok(length) if length.is_none_or(|length| length == expected) => Ok(()),
            Ok(length) => Err(io::Error::other(format!(
                "'{}' was changed by another program: it has {} bytes, not {expected}",
                path.display(),
                length.unwrap_or_default()
            ))),
            Err(error) => Err(error),
        };
        verified.inspect_err(|error| self.fail_file(error))
    }

    /// Whether the log, or the new file of a rewrite, still has this name.
    pub fn is_at(&self, path: &Path) -> bool {
        let handles = self.lock_files().handles();
        self.is_enabled() && handles.iter().flatten().any(|file| file.is_at(path))
    }

    /// The file's size in bytes once everything appended is written, and the same size after the last rewrite
    /// or at the start.
    pub fn size(&self) -> (u64, u64) {
        let pending = self.lock_pending();
        (pending.size, pending.base_size)
    }

    /// The bytes that have been appended and not been handed to the kernel yet.
    pub fn buffered_bytes(&self) -> usize {
        self.lock_pending().records.len()
    }

    /// Checks the invariants of the log. Can be called at any time; takes the locks for a moment.
    ///
    /// # Errors
    /// The invariant that does not hold.
    pub fn check(&self) -> Result<(), String> {
        self.group.check()?;
        let synced = self.group.synced_lsn(); // before the others, which may move on
        let files = self.lock_files();
        let pending = self.lock_pending();
        let flushed = self.flushed.load(SeqCst);
        let Pending { appended, size, base_size, .. } = *pending;
        let queued = pending.records.len() as u64;
        let unreadable = |error: io::Error| format!("the log's length cannot be read: {error}");
        // A file that is lost may have any length.
        let length =
            if self.needs_rewrite() { None } else { files.length().map_err(unreadable)? };
        let next = files.next_length().map_err(unreadable)?;
        let next = next.map(|(length, (lsn, size))| (length + queued, size + (appended - lsn)));
        let checks = [
            (synced <= flushed, format!("synced to {synced}, flushed only to {flushed}")),
            (
                flushed + queued <= appended,
                format!(
                    "flushed to {flushed}, {queued} bytes pending, appended only to {appended}"
                ),
            ),
            (base_size <= size, format!("the log had {base_size} bytes and has only {size}")),
            (
                files.file.is_some() == self.keeps_records(),
                "records are kept without a file, or there is one and they are not".into(),
            ),
            (
                !files.has_refused() || self.failure().is_some(),
                "the file refused records, but no failure is known".into(),
            ),
            (
                length.is_none_or(|length| length + queued == size),
                format!("the log has {length:?} and {queued} pending bytes, not {size}"),
            ),
            (
                next.is_none_or(|(length, expected)| length == expected),
                format!("the new log's length and expected length are {next:?}"),
            ),
        ];
        checks.into_iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, broken)| Err(broken))
    }

    pub(super) fn lock_pending(&self) -> MutexGuard<'_, Pending> {
        lock(&self.pending)
    }

    pub(super) fn lock_files(&self) -> MutexGuard<'_, Files> {
        lock(&self.files)
    }
}

/// Where the log ends at some moment.
#[derive(Clone, Copy, Default)]
pub struct Mark {
    /// Everything up to here was appended.
    pub lsn: u64,
    /// The length of the file once everything appended is written.
    pub length: u64,
    /// The database that is selected there, if the next record relies on it.
    pub db: Option<usize>,
}

/// Why a rewrite cannot go on without a log.
pub(super) fn was_turned_off() -> io::Error {
    io::Error::other("appendonly was turned off meanwhile")
}

/// The steps of a rewrite that concern the files; see [`super::rewrite`].
impl Aof {
    /// Flushes, with all shards locked.
    pub(super) fn flush_all(&self) -> io::Result<()> {
        let mut files = self.lock_files();
        self.flush_locked(&mut files)?;
        self.verify_length(&files)
    }

    /// Calls a function with the place where the log ends; no annotation comes in between. What is appended
    /// next will follow a snapshot: it begins with a `SELECT` if it can.
    pub fn mark(&self, act: impl FnOnce(Mark)) {
        let files = self.lock_files();
        let mut pending = self.lock_pending();
        pending.db = pending.db.filter(|_| pending.follows);
        let Pending { appended: lsn, size: length, db, .. } = *pending;
        drop(pending);
        act(Mark { lsn, length, db });
        drop(files);
    }

    /// Flushes, calls `copy`, which completes the new file, and from then on writes everything to both files.
    /// `copy` gets the length of the old file and returns the length of the new one. That one will be renamed
    /// to `path`. `copied` says where it has the stream.
    pub(super) fn tee(
        &self,
        next: Box<dyn LogFile>,
        path: &Path,
        copied: Copied,
        copy: impl FnOnce(u64) -> io::Result<u64>,
    ) -> io::Result<()> {
        let output = Output::new(next, path)?;
        let mut files = self.lock_files();
        self.expect_enabled()?;
        let (flushed, lsn) = self.write_pending(&mut files);
        flushed?;
        self.verify_length(&files)?;
        let old_size = self.lock_pending().size_at(lsn);
        let size = copy(old_size)?;
        files.tee(output, (lsn, size), copied);
        Ok(())
    }

    /// Makes the new file the only one. The disk has it as it was when the tee began.
    pub(super) fn switch(&self) -> io::Result<()> {
        let mut files = self.lock_files();
        self.expect_enabled()?;
        let (_, flushed) = self.write_pending(&mut files); // errors of the old file do not matter now
        let (teed_lsn, teed_size) = files.switch()?;
        let mut pending = self.lock_pending();
        let size = teed_size + (pending.appended - teed_lsn);
        pending.start_file(size);
        self.readers.segments_changed();
        self.flushed.store(flushed, SeqCst);
        self.readers.wake();
        self.group.advance(teed_lsn);
        self.failure.clear();
        Ok(())
    }

    /// Fails if the new file does not have everything. It must not get the log's name then.
    pub(super) fn check_tee(&self) -> io::Result<()> {
        self.lock_files().next_result()
    }

    fn expect_enabled(&self) -> io::Result<()> {
        self.is_enabled().then_some(()).ok_or_else(was_turned_off)
    }

    /// A handle on the file, if there is one.
    pub(super) fn handle(&self) -> Option<Arc<dyn LogFile>> {
        self.lock_files().file.as_ref().map(|file| file.handle.clone())
    }

    /// Goes back to one file.
    pub(super) fn untee(&self) {
        self.lock_files().untee();
    }
}
