//! Appending, flushing and syncing: how a change gets from memory to the disk.
//!
//! Three steps, each with a position (a count of bytes since the server started) up to which it has
//! come. **Append** puts a record behind those that are pending, while the lock on the shard that it
//! changed is still held, so the log's order is memory's order. **Flush** hands all that is pending
//! through the `BufWriter` to the kernel, once per batch of commands, before any reply leaves that
//! shows it: a process that dies after that takes nothing back. **Sync** makes the kernel put it on
//! the disk, when the policy says; nothing but power loss or a dying kernel needs it.
//!
//! Why records are pending outside of the `BufWriter`: who appends holds a shard, and must not wait
//! there for a write that another thread is about. So whoever flushes takes all that is pending,
//! while the next records already queue up, and writes it with only the files locked. (With a
//! `BufWriter` to append to, `SET` in a pipeline of 16 was a tenth slower.)
//!
//! A flush that another thread has done is not done again: [`Aof::flush_to`] compares positions
//! first, without a lock. A sync has a handle of its own and holds neither lock, so a slow disk
//! delays those who wait for the sync and nobody else.
//!
//! # Failure
//!
//! A *write* for which there is no *space* leaves no hole. What the file did not take waits in memory,
//! in order, and is written first when the file takes bytes again; the syncing thread tries that once
//! a second. Until then nothing that needs it is acknowledged, and the dispatcher refuses changes
//! ([`Aof::failure`]).
//!
//! A *sync* that fails is final for the file. The kernel reports a failure once and may then forget
//! the pages it could not write, so a second sync that succeeds says nothing about them. Only a
//! rewrite into a fresh file ([`super::rewrite`]) clears that error. The same holds for a file that
//! cannot be written for another reason than space, and for one that somebody has removed: what goes
//! into it will not be there after a restart.
//!
//! # Locks
//!
//! `sync`, `files`, `pending`, in this order, and below the shards. Nobody holds `sync` during a sync,
//! and nobody holds `pending` for longer than it takes to copy a small record.

use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::file::LogFile;
use crate::config::{Level, logger};
use crate::resp::request::encode;
use crate::stats::Counter;

/// What the `BufWriter` holds before it writes by itself. A record so large is written at once, with
/// the files locked: to copy it behind those that are pending would take too long.
const BUFFER_BYTES: usize = 64 << 10;
/// How often a thread that is about to sync lets others run before it does …
const SYNC_PATIENCE: usize = 2;
/// … unless it waits for all who are expected. The processor time that each needs to come again, roughly.
const CLIENT_TAKES: Duration = Duration::from_micros(33);
/// How long it waits at most: they may never come, and a sync may take long for once.
const MOST_PATIENCE: Duration = Duration::from_millis(10);
/// What is kept of the memory in which records were pending.
const SPARE_BYTES: usize = 1 << 20;
/// A sync that takes longer is one that the next had to wait for.
const SLOW_SYNC: Duration = Duration::from_secs(1);

type Out = BufWriter<Box<dyn LogFile>>;

/// The append-only file. Without a file (`appendonly no`) it takes everything and keeps nothing.
#[derive(Default)]
pub struct Aof {
    pending: Mutex<Pending>,
    files: Mutex<Files>,
    /// Whether there is a file; beside the locks, for those who need not take them then.
    enabled: AtomicBool,
    /// Up to where the kernel has the log.
    flushed: AtomicU64,
    /// Up to where the disk has it. It changes under the lock on `sync`, and is read without, so that
    /// nobody who needs no sync waits for one.
    synced: AtomicU64,
    /// Who syncs, and how far. See [`Aof::sync_to`].
    sync: Mutex<Sync>,
    /// Tell those who wait that a round of syncing has ended: the even ones, and the odd.
    round_ended: [Condvar; 2],
    /// Tells who leads a round that as many have joined it as were expected.
    all_joined: Condvar,
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

/// What was appended, and is not on its way to the kernel yet.
#[derive(Default)]
struct Pending {
    records: Vec<u8>,
    /// Bytes appended since the server started: the position.
    appended: u64,
    /// The database that a reader of the file would be in; none at first, so that a `SELECT` comes.
    db: Option<usize>,
    /// Bytes of the file, with those that are on their way to it.
    size: u64,
    /// What it was after the last rewrite or at the start.
    base_size: u64,
}

#[derive(Default)]
struct Files {
    file: Option<Out>,
    /// In the last step of a rewrite, the file that is to replace the other. Both get everything.
    next: Option<Next>,
    /// What the file refused to take, to be written before anything else.
    refused: Vec<u8>,
    /// Empty; changes places with what is pending, so that neither is reserved anew each time.
    spare: Vec<u8>,
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
struct Sync {
    file: Option<Arc<dyn LogFile>>,
    next: Option<Arc<dyn LogFile>>,
    /// A thread is at it, without the lock.
    going_on: bool,
    /// The number of the round that is going on, or else of the next.
    round: u64,
    /// The position that the round covers; the end of all, as long as one may still join it.
    covers: u64,
    /// How many take part in the even and in the odd one of the two rounds that can be joined.
    joined: [u64; 2],
    /// How many took part in the last round or came while it synced. As many will be here soon.
    expected: u64,
    /// When it is not worth while to wait for them any more.
    wait_until: Option<Instant>,
}

impl Sync {
    /// Whether the round that goes on has fewer than are expected.
    fn are_missing(&mut self) -> bool {
        self.joined[parity(self.round)] < self.expected
    }
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
        let sync_handle = Arc::from(file.second_handle()?);
        let mut sync = self.lock_sync();
        let mut files = self.lock_files();
        let file = BufWriter::with_capacity(BUFFER_BYTES, file);
        if let Some(old) = files.file.replace(file) {
            drop(old.into_parts()); // a BufWriter that is dropped would try to write once more
        }
        files.refused.clear();
        let mut pending = self.lock_pending();
        pending.records.clear();
        pending.db = None;
        (pending.size, pending.base_size) = (size, size);
        sync.file = Some(sync_handle);
        self.enabled.store(true, SeqCst);
        Ok(())
    }

    /// Syncs what there is and gives the file up.
    ///
    /// # Errors
    /// The disk may not have all of it.
    pub fn close(&self) -> io::Result<()> {
        let synced = self.sync(); // most of it, while others still append
        let mut sync = self.lock_sync();
        let mut files = self.lock_files();
        let flushed = self.flush_locked(&mut files);
        if let Some(file) = files.file.take() {
            drop(file.into_parts());
        }
        files.refused.clear();
        let handle = sync.file.take();
        self.enabled.store(false, SeqCst);
        self.write_failed.store(false, SeqCst);
        self.file_failed.store(false, SeqCst);
        drop((sync, files));
        synced.and(flushed)?;
        handle.map_or(Ok(()), |file| file.sync())
    }

    /// Whether there is a file.
    pub fn is_enabled(&self) -> bool {
        self.enabled.load(SeqCst)
    }

    /// Takes note how long the file was at the start.
    pub fn set_base(&self, bytes: u64) {
        let mut pending = self.lock_pending();
        (pending.size, pending.base_size) = (bytes, bytes);
    }

    /// Appends a record (one or more encoded commands) about a database. The caller still holds the
    /// lock on what the record is about. Returns the position behind it.
    pub fn append(&self, db: usize, record: &[u8]) -> u64 {
        self.append_across((db, db), record)
    }

    /// As [`Aof::append`], for a record that begins in one database and ends in another.
    pub(super) fn append_across(&self, databases: (usize, usize), record: &[u8]) -> u64 {
        if !self.is_enabled() {
            return 0;
        }
        if record.len() < BUFFER_BYTES {
            let mut pending = self.lock_pending();
            pending.select(databases);
            pending.records.extend_from_slice(record);
            return pending.advance(record.len());
        }
        let mut files = self.lock_files();
        let mut pending = self.lock_pending();
        pending.select(databases);
        let before = std::mem::take(&mut pending.records);
        let position = pending.advance(record.len());
        drop(pending);
        // A failure is not lost: whoever wants to reply has to flush first, and hears of it then.
        let written = files.write(&before);
        self.note_write(files.write(record).and(written));
        position
    }

    /// Sees to it that the kernel has the log as far as the position.
    ///
    /// # Errors
    /// The kernel does not take it; nothing that needs the position may be acknowledged.
    pub fn flush_to(&self, position: u64) -> io::Result<()> {
        if position <= self.flushed.load(SeqCst) {
            return Ok(());
        }
        let mut files = self.lock_files();
        if position <= self.flushed.load(SeqCst) {
            return Ok(());
        }
        self.flush_locked(&mut files)
    }

    /// As [`Aof::flush_to`], for everything that was appended.
    ///
    /// # Errors
    /// The kernel does not take it.
    pub fn flush(&self) -> io::Result<()> {
        self.flush_locked(&mut self.lock_files())
    }

    fn flush_locked(&self, files: &mut Files) -> io::Result<()> {
        let (result, flushed) = self.write_pending(files);
        if self.needs_rewrite() {
            // What the file takes now proves nothing: the position stays where it was.
            return Err(io::Error::other(self.failure().unwrap_or_default()));
        }
        if result.is_ok() {
            self.flushed.store(flushed, SeqCst);
            self.write_failed.store(false, SeqCst);
        }
        if let Err(error) = &result {
            self.note_write(Err(copy_of(error)));
        }
        result
    }

    /// Hands everything that is pending to the kernel. Says up to which position that is.
    fn write_pending(&self, files: &mut Files) -> (io::Result<()>, u64) {
        let spare = std::mem::take(&mut files.spare);
        let mut pending = self.lock_pending();
        let mut records = std::mem::replace(&mut pending.records, spare);
        let appended = pending.appended;
        drop(pending);
        files.write(&records).unwrap_or_default(); // what is refused now, the flush tries again
        let result = files.flush();
        records.clear();
        records.shrink_to(SPARE_BYTES);
        files.spare = records;
        (result, appended)
    }

    /// Whether the disk has the log as far as the position.
    pub fn is_synced(&self, position: u64) -> bool {
        position <= self.synced.load(SeqCst)
    }

    /// Sees to it that the disk has the log as far as the position.
    ///
    /// Group commit, in rounds: one thread leads, flushes and syncs everything appended until then, and
    /// the others follow; they wait for the end of the round and find themselves covered. So a disk that
    /// takes a millisecond serves all clients each millisecond. Who comes too late for the round that is
    /// going on waits for the next, which one of these leads; the two groups wait apart, so that nobody
    /// is woken only to wait again.
    ///
    /// # Errors
    /// The disk may not have it.
    pub fn sync_to(&self, position: u64) -> io::Result<()> {
        if position <= self.synced.load(SeqCst) {
            return Ok(());
        }
        let mut sync = self.lock_sync();
        let mut round = None;
        while sync.going_on && position > self.synced.load(SeqCst) {
            let mine = sync.round + u64::from(position > sync.covers);
            if round.replace(mine) != Some(mine) {
                sync.joined[parity(mine)] += 1;
                if mine == sync.round && !sync.are_missing() {
                    self.all_joined.notify_one();
                }
            }
            sync = self.round_ended(mine).wait(sync).unwrap_or_else(PoisonError::into_inner);
        }
        let covered = position <= self.synced.load(SeqCst);
        if covered || self.needs_rewrite() {
            if round == Some(sync.round) && !sync.going_on {
                self.round_ended(sync.round).notify_one(); // the lead was ours, and is another's now
            }
            drop(sync);
            let failure = || io::Error::other(self.failure().unwrap_or_default());
            return covered.then_some(()).ok_or_else(failure);
        }
        let leads = sync.round;
        sync.joined[parity(leads)] += u64::from(round != Some(leads));
        sync.going_on = true;
        sync.covers = u64::MAX;
        self.let_others_append(sync);
        let flushed = self.flush(); // without room for all, what was flushed before can be synced
        let mut sync = self.lock_sync();
        let (file, next) = (sync.file.clone(), sync.next.clone());
        // Under the lock still: what is flushed after an exchange of the files is in others.
        let covers = self.flushed.load(SeqCst);
        sync.covers = covers;
        drop(sync);
        let started = Instant::now();
        let synced = self.sync_files(file.as_deref(), next.as_deref());
        let took = started.elapsed();
        let mut sync = self.lock_sync();
        sync.expected = sync.joined.iter().sum();
        sync.wait_until = Some(Instant::now() + patience(took, sync.expected));
        sync.joined[parity(leads)] = 0;
        if synced.is_ok() {
            self.synced.fetch_max(covers, SeqCst);
        }
        sync.going_on = false;
        sync.round += 1;
        drop(sync);
        // First who leads the next: its sync can begin while these reply. (The other way round, fifty
        // clients without pipelines got almost a tenth less.) Should that round end before these are
        // told, and its leader tell one of them instead of the next leader: all are told here.
        self.round_ended(leads + 1).notify_one();
        self.round_ended(leads).notify_all();
        if position <= covers { synced } else { flushed.and(synced) }
    }

    /// Where those wait who are covered when that round of syncing ends.
    fn round_ended(&self, round: u64) -> &Condvar {
        &self.round_ended[parity(round)]
    }

    /// Whoever is about to append gets the chance to do so before a sync, and to be covered by it: a
    /// moment's patience costs less than the next sync. It ends when nobody comes any more.
    ///
    /// Where a sync takes long for so few, it deserves more: those whom the last round served are about to
    /// come again, and without them clients would be served in two halves, each waiting for the other's
    /// sync. So the leader waits until all have come, but at most, from the end of the last sync, half as
    /// long as that took: it may be in vain. By that two clients get 1.3 times as many answers where a sync
    /// takes 0.3 ms; where it takes 3 ms two get 1.9 times as many, ten 1.6 and fifty 1.2. Where they keep
    /// the processors busy for longer than a sync takes, it is better that some do while others wait.
    fn let_others_append(&self, sync: MutexGuard<Sync>) {
        let rest = sync.wait_until.map(|end| end.saturating_duration_since(Instant::now()));
        if let Some(rest) = rest.filter(|rest| !rest.is_zero()) {
            return drop(self.all_joined.wait_timeout_while(sync, rest, Sync::are_missing));
        }
        drop(sync);
        let mut appended = self.lock_pending().appended;
        for _ in 0..SYNC_PATIENCE {
            std::thread::yield_now();
            let before = std::mem::replace(&mut appended, self.lock_pending().appended);
            if before == appended {
                return;
            }
        }
    }

    fn sync_files(&self, file: Option<&dyn LogFile>, next: Option<&dyn LogFile>) -> io::Result<()> {
        file.map_or(Ok(()), LogFile::sync).inspect_err(|error| self.fail_file(error))?;
        next.map_or(Ok(()), LogFile::sync).inspect_err(|error| {
            // The rewrite's own sync would not hear of it: the kernel reports it once. If there is no
            // such file any more, it is the log by now.
            match &mut self.lock_files().next {
                Some(next) => next.note(Err(copy_of(error))),
                None => self.fail_file(error),
            }
        })
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
        let sync = self.lock_sync();
        sync.file.iter().chain(&sync.next).any(|file| file.is_at(path))
    }

    /// Bytes of the file, with those on their way to it; and what they were after the last rewrite,
    /// or at the start.
    pub fn size(&self) -> (u64, u64) {
        let pending = self.lock_pending();
        (pending.size, pending.base_size)
    }

    /// Keeps a failure, so that changes are refused: for want of space until a flush succeeds.
    fn note_write(&self, result: io::Result<()>) {
        let Err(error) = result else { return };
        if !is_for_want_of_space(&error) {
            self.fail_file(&error);
        } else if !self.write_failed.load(SeqCst) {
            self.say_failure(&error);
            self.write_failed.store(true, SeqCst);
        }
    }

    fn say_failure(&self, error: &io::Error) {
        let text =
            format_args!("The AOF cannot be relied on: {error}. Writes are refused until it can");
        logger::log(Level::Warning, text);
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = error.to_string();
    }

    fn lock_pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_files(&self) -> MutexGuard<'_, Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_sync(&self) -> MutexGuard<'_, Sync> {
        self.sync.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a rewrite does with the files. Its story is told in [`super::rewrite`].
impl Aof {
    /// At the point in time of a rewrite, all shards being locked: flushes, and has the next record
    /// say its database. Returns the length of the file.
    pub(super) fn mark(&self) -> io::Result<u64> {
        self.flush()?;
        let mut pending = self.lock_pending();
        pending.db = None;
        Ok(pending.size)
    }

    /// Flushes, lets `copy` bring the new file level with the old one, whose length it is told, and
    /// from then on writes everything to both. Returns the position at which they were level.
    pub(super) fn tee(
        &self,
        next: Box<dyn LogFile>,
        copy: impl FnOnce(u64) -> io::Result<()>,
    ) -> io::Result<u64> {
        let sync_handle = Arc::from(next.second_handle()?);
        let mut sync = self.lock_sync();
        let mut files = self.lock_files();
        self.expect_enabled()?;
        let (flushed, level_at) = self.write_pending(&mut files);
        flushed?;
        copy(self.size_at(level_at))?;
        files.next = Some(Next { out: BufWriter::with_capacity(BUFFER_BYTES, next), error: None });
        sync.next = Some(sync_handle);
        Ok(level_at)
    }

    /// Makes the new file the only one. It had `size` bytes at the position of the tee, and as far as
    /// that it is on the disk.
    pub(super) fn switch(&self, teed_at: u64, size: u64) -> io::Result<()> {
        let mut sync = self.lock_sync();
        let mut files = self.lock_files();
        self.expect_enabled()?;
        let (_, position) = self.write_pending(&mut files); // the old file counts no more
        files.flush_next()?;
        files.refused.clear();
        let next = files.next.take().ok_or(io::ErrorKind::NotFound)?;
        let sync_handle = sync.next.take();
        if let Some(old) = files.file.replace(next.out) {
            drop(old.into_parts());
        }
        let mut pending = self.lock_pending();
        pending.size = size + (pending.appended - teed_at);
        pending.base_size = pending.size;
        sync.file = sync_handle;
        self.synced.fetch_max(teed_at, SeqCst);
        self.flushed.store(position, SeqCst);
        self.write_failed.store(false, SeqCst);
        self.file_failed.store(false, SeqCst);
        Ok(())
    }

    /// Whether the new file has got everything so far. It must not have the log's name otherwise.
    pub(super) fn check_tee(&self) -> io::Result<()> {
        self.lock_files().next_error()
    }

    fn expect_enabled(&self) -> io::Result<()> {
        let off = || io::Error::other("appendonly was turned off meanwhile");
        self.is_enabled().then_some(()).ok_or_else(off)
    }

    /// How long the file is at that position.
    fn size_at(&self, position: u64) -> u64 {
        let pending = self.lock_pending();
        pending.size - (pending.appended - position)
    }

    /// Goes back to one file.
    pub(super) fn untee(&self) {
        let mut sync = self.lock_sync();
        let mut files = self.lock_files();
        if let Some(next) = files.next.take() {
            drop(next.out.into_parts());
        }
        sync.next = None;
    }
}

/// Where what belongs to a round is kept: two at most go on or are waited for.
fn parity(round: u64) -> usize {
    usize::from(round % 2 == 1)
}

/// How long it is worth while to wait for so many, where a sync takes so long.
fn patience(sync_takes: Duration, expected: u64) -> Duration {
    match sync_takes > CLIENT_TAKES * u32::try_from(expected).unwrap_or(u32::MAX) {
        true => (sync_takes / 2).min(MOST_PATIENCE),
        false => Duration::ZERO,
    }
}

/// Whether the file will take more as soon as there is room.
fn is_for_want_of_space(error: &io::Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, StorageFull, WriteZero};
    matches!(error.kind(), StorageFull | QuotaExceeded | WriteZero)
}

/// An error that can be told twice.
fn copy_of(error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), error.to_string())
}

impl Pending {
    /// Sees to it that the next record is read as one that begins in the first of these databases, and
    /// the one behind it as what follows the end of it in the last.
    fn select(&mut self, (db, last): (usize, usize)) {
        if self.db != Some(db) {
            let before = self.records.len();
            encode(&mut self.records, &[b"SELECT", db.to_string().as_bytes()]);
            self.advance(self.records.len() - before);
        }
        self.db = Some(last);
    }

    /// Counts what was appended; returns the position behind it.
    fn advance(&mut self, bytes: usize) -> u64 {
        self.appended += bytes as u64;
        self.size += bytes as u64;
        self.appended
    }
}

impl Files {
    /// Takes records into all files there are.
    fn write(&mut self, records: &[u8]) -> io::Result<()> {
        if let Some(next) = self.next.as_mut().filter(|next| next.error.is_none()) {
            let result = next.out.write_all(records);
            next.note(result);
        }
        self.write_old(records)
    }

    /// Hands the new file's part to the kernel; returns what it has met so far.
    fn flush_next(&mut self) -> io::Result<()> {
        if let Some(next) = self.next.as_mut().filter(|next| next.error.is_none()) {
            let result = next.out.flush();
            next.note(result);
        }
        self.next_error()
    }

    fn next_error(&self) -> io::Result<()> {
        let error = self.next.as_ref().and_then(|next| next.error.as_ref());
        error.map_or(Ok(()), |error| Err(copy_of(error)))
    }

    /// Writes all of it, or keeps what the file does not take. (`write_all` would not tell how far
    /// it came.)
    fn write_old(&mut self, mut bytes: &[u8]) -> io::Result<()> {
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
        let flushed = self.flush_next();
        if !self.refused.is_empty() {
            let refused = std::mem::take(&mut self.refused);
            self.write_old(&refused)?;
        }
        self.file.as_mut().map_or(Ok(()), Write::flush)?;
        flushed
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::io::ErrorKind;
    use std::sync::{Arc, Barrier, Condvar, mpsc};
    use std::thread;

    use super::*;

    /// How long a test waits for another thread before it fails.
    const PATIENCE: Duration = Duration::from_secs(10);

    /// A disk that does what it is told, and a record of what was done to it.
    #[derive(Default)]
    struct Disk {
        state: Mutex<DiskState>,
        changed: Condvar,
    }

    #[derive(Default)]
    struct DiskState {
        /// What has reached the file.
        bytes: Vec<u8>,
        /// What the next writes come to: so many bytes taken at most, or a failure.
        writes: VecDeque<Result<usize, ErrorKind>>,
        /// No write takes anything any more.
        full: bool,
        /// The next so many syncs fail.
        failing_syncs: usize,
        /// Syncs that have begun wait.
        stuck: bool,
        /// How long the file was when each sync began.
        syncs: Vec<usize>,
        /// How much of it a sync that succeeded covers.
        durable: usize,
    }

    struct FakeFile(Arc<Disk>);

    impl Disk {
        fn file(self: &Arc<Disk>) -> Box<dyn LogFile> {
            Box::new(FakeFile(self.clone()))
        }

        fn state(&self) -> MutexGuard<'_, DiskState> {
            self.state.lock().unwrap_or_else(PoisonError::into_inner)
        }

        fn set(&self, change: impl FnOnce(&mut DiskState)) {
            change(&mut self.state());
            self.changed.notify_all();
        }

        fn text(&self) -> String {
            String::from_utf8_lossy(&self.state().bytes).into_owned()
        }

        /// How long the file is, and how much of it a sync covers.
        fn lengths(&self) -> (usize, usize) {
            let state = self.state();
            (state.bytes.len(), state.durable)
        }

        fn wait_while(&self, condition: impl FnMut(&mut DiskState) -> bool) {
            let waited = self.changed.wait_timeout_while(self.state(), PATIENCE, condition);
            let waited = waited.unwrap_or_else(PoisonError::into_inner).1.timed_out();
            assert!(!waited, "waited in vain for another thread");
        }
    }

    impl Write for FakeFile {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut state = self.0.state();
            if state.full {
                return Err(ErrorKind::StorageFull.into());
            }
            let taken = state.writes.pop_front().unwrap_or(Ok(bytes.len()))?.min(bytes.len());
            state.bytes.extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl LogFile for FakeFile {
        fn sync(&self) -> io::Result<()> {
            let mut length = 0;
            self.0.set(|state| {
                length = state.bytes.len();
                state.syncs.push(length);
            });
            self.0.wait_while(|state| state.stuck);
            let mut state = self.0.state();
            if state.failing_syncs > 0 {
                state.failing_syncs -= 1;
                return Err(ErrorKind::Other.into());
            }
            state.durable = state.durable.max(length);
            Ok(())
        }

        fn second_handle(&self) -> io::Result<Box<dyn LogFile>> {
            Ok(self.0.file())
        }

        fn is_at(&self, _: &Path) -> bool {
            true
        }
    }

    /// A log on a new disk. It begins with a `SELECT 0`, which has not been flushed.
    fn aof() -> io::Result<(Aof, Arc<Disk>)> {
        let disk = Arc::new(Disk::default());
        let aof = Aof::new(disk.file(), 0)?;
        aof.append(0, b"");
        Ok((aof, disk))
    }

    const SELECT_0: &str = "*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n";

    /// Numbers that look random and are the same in each run.
    struct Numbers(u64);

    impl Numbers {
        fn below(&mut self, end: u64) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 % end) as usize
        }
    }

    #[test]
    fn a_record_waits_for_the_flush_and_names_its_database_where_that_changes() -> io::Result<()> {
        let (aof, disk) = aof()?;
        aof.append(0, b"a");
        aof.append(0, b"b");
        aof.append(12, b"c");
        let position = aof.append(12, b"d");
        assert_eq!(disk.text(), "");
        aof.flush_to(position)?;
        let expected = format!("{SELECT_0}ab*2\r\n$6\r\nSELECT\r\n$2\r\n12\r\ncd");
        assert_eq!(disk.text(), expected);
        assert_eq!(position, expected.len() as u64);
        assert_eq!(aof.size(), (position, 0));
        Ok(())
    }

    #[test]
    fn without_a_file_everything_succeeds_and_nothing_is_kept() -> io::Result<()> {
        let aof = Aof::disabled();
        assert_eq!(aof.append(0, b"a"), 0);
        aof.flush()?;
        aof.sync()?;
        assert_eq!((aof.failure(), aof.size(), aof.is_enabled()), (None, (0, 0), false));
        let disk = Arc::new(Disk::default());
        let aof = Aof::new(disk.file(), 0)?;
        aof.append(0, b"a");
        aof.close()?;
        assert_eq!(disk.text(), format!("{SELECT_0}a"));
        assert_eq!(disk.lengths(), (24, 24));
        assert_eq!(aof.append(0, b"b"), 0);
        aof.flush()?;
        assert_eq!(disk.text(), format!("{SELECT_0}a"));
        Ok(())
    }

    #[test]
    fn whatever_fails_the_file_is_the_records_in_order_and_has_all_that_was_acknowledged()
    -> io::Result<()> {
        for seed in 1..200 {
            let (aof, disk) = aof()?;
            let mut expected = SELECT_0.as_bytes().to_vec();
            let mut numbers = Numbers(seed);
            for record in 0..60 {
                let outcome = match numbers.below(6) {
                    0 => Some(Err(ErrorKind::StorageFull)),
                    1 => Some(Err(ErrorKind::Interrupted)),
                    2 => Some(Ok(0)),
                    3 => Some(Ok(1 + numbers.below(100_000))),
                    _ => None,
                };
                disk.set(|state| state.writes.extend(outcome));
                // Around the size of the buffer all is different.
                let length = match numbers.below(4) {
                    0 => BUFFER_BYTES - 2 + numbers.below(4),
                    1 => numbers.below(3 * BUFFER_BYTES as u64),
                    _ => numbers.below(200),
                };
                let bytes = vec![record; length];
                expected.extend_from_slice(&bytes);
                let position = aof.append(0, &bytes);
                assert_eq!(position, expected.len() as u64);
                if numbers.below(2) == 0 && aof.flush_to(position).is_ok() {
                    assert!(disk.state().bytes == expected, "seed {seed}, record {record}");
                    assert_eq!(aof.failure(), None);
                }
                assert!(expected.starts_with(&disk.state().bytes), "seed {seed}, record {record}");
            }
            disk.set(|state| state.writes.clear());
            aof.flush()?;
            assert!(disk.state().bytes == expected, "seed {seed}");
            assert_eq!((aof.failure(), aof.size().0), (None, expected.len() as u64));
        }
        Ok(())
    }

    #[test]
    fn while_the_disk_is_full_nothing_new_is_acknowledged_and_then_all_is_by_itself()
    -> io::Result<()> {
        let (aof, disk) = aof()?;
        let before = aof.append(0, b"before");
        aof.flush_to(before)?;
        disk.set(|state| state.full = true);
        let first = aof.append(0, b"first");
        for _ in 0..3 {
            let error = aof.flush_to(first).err();
            assert_eq!(error.map(|error| error.kind()), Some(ErrorKind::StorageFull));
            assert!(aof.sync().is_err());
        }
        let full = io::Error::from(ErrorKind::StorageFull).to_string();
        assert_eq!((aof.failure(), aof.needs_rewrite()), (Some(full), false));
        let second = aof.append(0, b"second");
        assert!(aof.flush_to(second).is_err());
        // What was acknowledged before may still be shown.
        aof.flush_to(before)?;
        aof.sync_to(before)?;
        assert_eq!(disk.text(), format!("{SELECT_0}before"));
        disk.set(|state| state.full = false);
        // What the syncing thread does once a second.
        aof.sync()?;
        assert_eq!(aof.failure(), None);
        aof.flush_to(second)?;
        assert_eq!(disk.text(), format!("{SELECT_0}beforefirstsecond"));
        assert_eq!(disk.lengths(), (second as usize, second as usize));
        Ok(())
    }

    #[test]
    fn a_file_that_cannot_be_written_for_another_reason_is_given_up_for_a_new_one() -> io::Result<()>
    {
        let (aof, old) = aof()?;
        old.set(|state| state.writes.extend([Err(ErrorKind::FileTooLarge); 2]));
        let position = aof.append(0, b"record");
        assert!(aof.flush_to(position).is_err());
        assert!(aof.needs_rewrite());
        // It would take more by now; but nobody knows why it did not.
        assert!(aof.flush_to(position).is_err());
        let tail = Arc::new(Disk::default());
        aof.open(tail.file(), 0)?;
        let new = Arc::new(Disk::default());
        let teed_at = aof.tee(new.file(), |_| Ok(()))?;
        aof.switch(teed_at, 0)?;
        assert_eq!((aof.failure(), aof.needs_rewrite()), (None, false));
        let after = aof.append(0, b"after");
        aof.flush_to(after)?;
        assert_eq!(new.text(), format!("{SELECT_0}after"));
        Ok(())
    }

    #[test]
    fn a_record_that_was_taken_in_part_is_completed_before_the_next() -> io::Result<()> {
        let (aof, disk) = aof()?;
        aof.flush()?;
        // One that waits in the buffer, and one that goes past it.
        for length in [100, 3 * BUFFER_BYTES] {
            disk.set(|state| {
                state.bytes.clear();
                state.writes = [Ok(7), Ok(20), Err(ErrorKind::StorageFull)].into();
            });
            let position = aof.append(0, &vec![b'x'; length]);
            assert!(aof.flush_to(position).is_err() || disk.state().bytes.len() == length);
            disk.set(|state| state.full = true);
            let behind = aof.append(0, b"y");
            assert!(aof.flush_to(behind).is_err());
            assert!(disk.state().bytes.iter().all(|byte| *byte == b'x'));
            disk.set(|state| (state.full, state.writes) = (false, VecDeque::new()));
            aof.flush_to(behind)?;
            assert!(disk.state().bytes == [&vec![b'x'; length][..], b"y"].concat(), "{length}");
        }
        Ok(())
    }

    #[test]
    fn after_a_failed_sync_nothing_new_is_ever_acknowledged() -> io::Result<()> {
        let (aof, disk) = aof()?;
        let before = aof.append(0, b"before");
        aof.flush_to(before)?;
        aof.sync_to(before)?;
        let flushed = aof.append(0, b"flushed");
        aof.flush_to(flushed)?;
        disk.set(|state| state.failing_syncs = 1);
        assert!(aof.sync_to(flushed).is_err());
        let why = io::Error::from(ErrorKind::Other).to_string();
        // The disk is fine again, but may have forgotten what it could not write.
        for _ in 0..3 {
            assert_eq!((aof.failure(), aof.needs_rewrite()), (Some(why.clone()), true));
            assert!(aof.sync_to(flushed).is_err());
            let after = aof.append(0, b"after");
            assert_eq!(aof.flush_to(after).err().map(|error| error.to_string()), Some(why.clone()));
            assert_eq!(aof.sync_to(after).err().map(|error| error.to_string()), Some(why.clone()));
            assert!(aof.sync().is_err());
        }
        // What was flushed may be shown under `everysec`, what was synced also under `always`.
        aof.flush_to(flushed)?;
        aof.flush_to(before)?;
        aof.sync_to(before)
    }

    #[test]
    fn many_waiters_share_one_sync() -> io::Result<()> {
        const WAITERS: usize = 20;
        let (aof, disk) = aof()?;
        disk.set(|state| state.stuck = true);
        let all_flushed = Barrier::new(WAITERS + 1);
        thread::scope(|scope| {
            let leader = aof.append(0, b"leader");
            aof.flush_to(leader)?;
            let leader = scope.spawn({
                let aof = &aof;
                move || aof.sync_to(leader)
            });
            disk.wait_while(|state| state.syncs.is_empty());
            // While the leader's sync is under way, the others come as far as waiting for theirs.
            let follow = || {
                let position = aof.append(0, b"follower");
                let flushed = aof.flush_to(position);
                all_flushed.wait();
                flushed.and_then(|()| aof.sync_to(position))?;
                assert!(disk.state().durable as u64 >= position);
                Ok(())
            };
            let followers: Vec<_> = (0..WAITERS).map(|_| scope.spawn(follow)).collect();
            all_flushed.wait();
            disk.set(|state| state.stuck = false);
            let results = followers.into_iter().chain([leader]).map(thread::ScopedJoinHandle::join);
            let result = |joined: thread::Result<_>| joined.unwrap_or(Err(ErrorKind::Other.into()));
            results.map(result).collect::<io::Result<Vec<()>>>()
        })?;
        assert_eq!(disk.state().syncs.len(), 2, "one of the leader, one of all others");
        Ok(())
    }

    #[test]
    fn with_a_slow_disk_a_sync_waits_for_all_who_are_expected_and_for_nobody_else() -> io::Result<()>
    {
        let (aof, disk) = aof()?;
        let write = || aof.sync_to(aof.append(0, b"record"));
        let expect = |expected, patience| {
            let mut sync = aof.lock_sync();
            sync.expected = expected;
            sync.wait_until = Instant::now().checked_add(patience);
        };
        expect(3, PATIENCE);
        let started = Instant::now();
        thread::scope(|scope| {
            let others = [scope.spawn(write), scope.spawn(write)];
            while aof.lock_sync().joined != [2, 0] {
                assert!(started.elapsed() < PATIENCE, "the two have not joined one round");
                thread::yield_now();
            }
            assert!(disk.state().syncs.is_empty());
            write()?;
            let results = others.into_iter().map(thread::ScopedJoinHandle::join);
            let result = |joined: thread::Result<_>| joined.unwrap_or(Err(ErrorKind::Other.into()));
            results.map(result).collect::<io::Result<Vec<()>>>()
        })?;
        let state = |aof: &Aof| (disk.state().syncs.len(), aof.lock_sync().expected);
        assert_eq!(state(&aof), (1, 3), "they will come again");
        expect(1, PATIENCE);
        write()?;
        assert_eq!(state(&aof), (2, 1));
        assert!(started.elapsed() < PATIENCE, "it waited for nobody");
        // Too late to be expected still.
        expect(2, Duration::ZERO);
        write()?;
        assert!(started.elapsed() < PATIENCE);
        // In vain, and therefore not again.
        let started = Instant::now();
        expect(2, MOST_PATIENCE);
        write()?;
        assert!(started.elapsed() >= MOST_PATIENCE);
        assert_eq!(state(&aof), (4, 1));
        let patience_ms =
            |sync_ms, clients| patience(Duration::from_millis(sync_ms), clients).as_millis();
        assert_eq!([4, 12, 5000].map(|sync_ms| patience_ms(sync_ms, 50)), [2, 6, 10]);
        assert_eq!([10, 100, 1000].map(|clients| patience_ms(4, clients)), [2, 2, 0]);
        assert_eq!(patience_ms(4, u64::MAX), 0);
        Ok(())
    }

    #[test]
    fn who_is_told_that_it_is_synced_was_flushed_before_that_sync_began() -> io::Result<()> {
        let (aof, disk) = aof()?;
        thread::scope(|scope| {
            let write = |writer: usize| {
                for record in 0..200 {
                    let position = aof.append(writer % 3, &vec![b'r'; record]);
                    aof.flush_to(position)?;
                    assert!(disk.state().bytes.len() as u64 >= position);
                    aof.sync_to(position)?;
                    assert!(disk.state().durable as u64 >= position);
                }
                Ok(())
            };
            let writers: Vec<_> = (0..6).map(|w| scope.spawn(move || write(w))).collect();
            let results = writers.into_iter().map(thread::ScopedJoinHandle::join);
            let result = |joined: thread::Result<_>| joined.unwrap_or(Err(ErrorKind::Other.into()));
            results.map(result).collect::<io::Result<Vec<()>>>()
        })?;
        Ok(())
    }

    #[test]
    fn a_slow_sync_delays_nobody_but_those_who_wait_for_it() -> io::Result<()> {
        let (aof, disk) = aof()?;
        let synced = aof.append(0, b"synced");
        aof.flush_to(synced)?;
        aof.sync_to(synced)?;
        disk.set(|state| state.stuck = true);
        let (done, steps) = mpsc::channel();
        thread::scope(|scope| {
            let slow = aof.append(0, b"slow");
            let aof = &aof;
            scope.spawn(move || aof.flush_to(slow).and_then(|()| aof.sync_to(slow)));
            disk.wait_while(|state| state.syncs.len() < 2);
            scope.spawn(move || {
                let position = aof.append(1, b"meanwhile");
                let send = |step, result: io::Result<()>| done.send((step, result.is_ok()));
                send("flushed", aof.flush_to(position))?;
                send("sized", Ok(_ = aof.size()))?;
                // A reader under `always`, of something that was synced long ago.
                send("synced before", aof.sync_to(synced))
            });
            let steps: Vec<_> = (0..3).map(|_| steps.recv_timeout(PATIENCE / 5).ok()).collect();
            disk.set(|state| state.stuck = false);
            assert_eq!(steps, ["flushed", "sized", "synced before"].map(|step| Some((step, true))));
        });
        assert!(disk.text().ends_with("meanwhile"));
        Ok(())
    }

    #[test]
    fn while_two_files_are_written_an_acknowledged_record_is_in_both() -> io::Result<()> {
        let (aof, old) = aof()?;
        let new = Arc::new(Disk::default());
        let before = aof.append(0, b"before");
        let mut level = 0;
        let teed_at = aof.tee(new.file(), |length| {
            level = length;
            Ok(())
        })?;
        assert_eq!((teed_at, level), (before, before));
        assert_eq!(old.text(), format!("{SELECT_0}before"));
        let both = aof.append(0, b"both");
        aof.flush_to(both)?;
        aof.sync_to(both)?;
        assert_eq!(old.text(), format!("{SELECT_0}beforeboth"));
        assert_eq!(new.text(), "both");
        assert_eq!((old.lengths().1 as u64, new.lengths().1), (both, 4));
        aof.switch(teed_at, 1000)?;
        assert_eq!(aof.size(), (1004, 1004));
        let after = aof.append(0, b"after");
        aof.flush_to(after)?;
        aof.sync_to(after)?;
        assert_eq!(old.text(), format!("{SELECT_0}beforeboth"));
        assert_eq!(new.text(), "bothafter");
        assert_eq!(new.state().durable, 9);
        Ok(())
    }

    #[test]
    fn when_the_new_file_fails_nothing_is_acknowledged_until_it_is_given_up() -> io::Result<()> {
        let (aof, old) = aof()?;
        let new = Arc::new(Disk::default());
        let teed_at = aof.tee(new.file(), |_| Ok(()))?;
        new.set(|state| state.full = true);
        let position = aof.append(0, b"record");
        assert!(aof.flush_to(position).is_err());
        assert!(aof.failure().is_some());
        // That it would take more by now does not help: there is a hole in it.
        new.set(|state| state.full = false);
        assert!(aof.flush_to(position).is_err());
        assert!(aof.switch(teed_at, 0).is_err());
        aof.untee();
        aof.flush_to(position)?;
        assert_eq!(aof.failure(), None);
        aof.sync_to(position)?;
        assert_eq!(old.text(), format!("{SELECT_0}record"));
        Ok(())
    }

    #[test]
    fn a_new_file_that_failed_to_sync_does_not_become_the_log() -> io::Result<()> {
        let (aof, _) = aof()?;
        let new = Arc::new(Disk::default());
        let teed_at = aof.tee(new.file(), |_| Ok(()))?;
        let position = aof.append(0, b"record");
        aof.flush_to(position)?;
        // A client's sync meets the failure. The rewrite's own sync, a moment later, would not: the
        // kernel reports it once.
        new.set(|state| state.failing_syncs = 1);
        assert!(aof.sync_to(position).is_err());
        new.file().sync()?;
        assert!(aof.switch(teed_at, 0).is_err());
        Ok(())
    }

    #[test]
    fn a_sync_of_the_new_file_that_fails_when_that_is_the_log_spoils_the_log() -> io::Result<()> {
        let (aof, _) = aof()?;
        let new = Arc::new(Disk::default());
        let teed_at = aof.tee(new.file(), |_| Ok(()))?;
        let position = aof.append(0, b"record");
        aof.flush_to(position)?;
        new.set(|state| (state.stuck, state.failing_syncs) = (true, 1));
        let failed = thread::scope(|scope| {
            let waiter = scope.spawn(|| aof.sync_to(position).is_err());
            new.wait_while(|state| state.syncs.is_empty());
            let switched = aof.switch(teed_at, 0);
            new.set(|state| state.stuck = false);
            switched.map(|()| waiter.join().unwrap_or_default())
        })?;
        assert!(failed && aof.needs_rewrite());
        assert!(aof.sync_to(position).is_err());
        Ok(())
    }

    #[test]
    fn a_new_file_makes_good_what_a_failed_sync_has_spoilt() -> io::Result<()> {
        let (aof, old) = aof()?;
        let position = aof.append(0, b"record");
        aof.flush_to(position)?;
        old.set(|state| state.failing_syncs = 1);
        assert!(aof.sync_to(position).is_err());
        let new = Arc::new(Disk::default());
        let teed_at = aof.tee(new.file(), |_| Ok(()))?;
        let during = aof.append(0, b"during");
        assert!(aof.flush_to(during).is_err(), "the new file is not the log yet");
        aof.switch(teed_at, 0)?;
        assert_eq!((aof.failure(), aof.needs_rewrite()), (None, false));
        aof.flush_to(during)?;
        aof.sync_to(during)?;
        assert_eq!(new.text(), "during");
        assert_eq!(new.state().durable, 6);
        Ok(())
    }
}
