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

use super::file::LogFile;
use super::writer::Aof;
use crate::resp::request::encode;
use crate::stats::Counter;
use crate::store::SHARDS;
use crate::store::keyspace::SaveShard;
use crate::store::shard::Shard;
use crate::store::{Entry, Field, Hash, Keyspace, Value};

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
/// So many snapshots are tried; the last does not yield to FLUSHALL and its like, but they wait for it.
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
    /// When it ended.
    pub ended: Instant,
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

    /// Begins to count again how many rewrites there were, and how many syncs took long.
    pub fn reset_counts(&self) {
        self.rewrite.completed.reset();
        self.delayed_syncs.reset();
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
        // A log that cannot be relied on is treated as if there were none. It stays so for all
        // attempts: the first has put the tail in its place.
        let has_log = was_enabled && !self.needs_rewrite();
        let rewrite = Rewrite { aof: self, keyspace, path, has_log };
        let mut attempt = 1;
        let mut result = rewrite.run(true);
        while result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::Interrupted) {
            attempt += 1;
            result = rewrite.run(attempt < ATTEMPTS);
        }
        if result.is_err() {
            self.untee();
            remove(&temporary(path));
            if !was_enabled {
                self.close().unwrap_or_default();
            } else if self.is_enabled() && !self.is_at(path) {
                // It goes into the stand-in of a log that could not be relied on.
                self.fail_file(&io::Error::other("the log is gone"));
            }
        }
        remove(&tail(path));
        self.rewrite.completed.add(u64::from(result.is_ok()));
        let last = Last { ok: result.is_ok(), took: started.elapsed(), ended: Instant::now() };
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
    has_log: bool,
}

impl Rewrite<'_> {
    /// One attempt. If it `may_yield`, a command that changes the whole keyspace ends it, which is the
    /// error `Interrupted`.
    fn run(&self, may_yield: bool) -> io::Result<()> {
        let path = temporary(self.path);
        let has_log = self.has_log;
        let old_path = if has_log { self.path.to_path_buf() } else { tail(self.path) };
        // A file that is there but not ours may be the log of another server.
        let other = File::open(self.path).ok().filter(|_| !self.aof.is_at(self.path));
        other.as_ref().map_or(Ok(()), File::try_lock)?;
        remove(&path);
        let mut options = OpenOptions::new();
        let new = options.read(true).append(true).create_new(true).open(&path)?;
        // The lock that says that this server uses the log goes with the name.
        new.try_lock()?;
        let sink = Arc::new(Sink::new(new.try_clone()?));
        let tail: Option<Box<dyn LogFile>> = if has_log {
            None
        } else {
            remove(&old_path);
            Some(Box::new(OpenOptions::new().append(true).create_new(true).open(&old_path)?))
        };
        let mut old = File::open(&old_path)?;
        if has_log && !self.aof.is_at(&old_path) {
            return Err(io::Error::other(format!(
                "'{}' is not the log any more",
                old_path.display()
            )));
        }
        let mut since = 0;
        let mut unsynced = 0;
        self.keyspace.snapshot(
            may_yield,
            &(Arc::new({
                let sink = sink.clone();
                move |shard: &Shard| sink.save(shard)
            }) as Arc<SaveShard>),
            || {
                match tail {
                    None => since = self.aof.mark()?,
                    Some(tail) => self.aof.open(tail, 0)?,
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
        let mut copied = since;
        let mut new_file = new.try_clone()?;
        for round in 0..COPY_ROUNDS {
            let length = old.metadata()?.len();
            copy(&mut old, &mut new_file, &mut copied, length)?;
            if round == 0 {
                new.sync_data()?; // nearly all of it; while it lasts, the old log goes on growing
            }
            if old.metadata()?.len().saturating_sub(copied) <= LAST_COPY_BYTES {
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
        if has_log && self.aof.needs_rewrite() {
            return Err(io::Error::other(
                "the old log, which was copied from, could not be relied on",
            ));
        }
        self.aof.check_tee()?;
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

struct Output {
    file: File,
    /// Writers who met it could not return it; the rewriting thread will.
    error: Option<io::Error>,
}

#[derive(Default)]
struct Waiting {
    /// The records of each shard, which begin with a `SELECT`.
    shards: Vec<Vec<u8>>,
    bytes: usize,
}

impl Sink {
    fn new(file: File) -> Sink {
        let file = Mutex::new(Output { file, error: None });
        Sink { waiting: Mutex::default(), file }
    }

    fn save(&self, shard: &Shard) {
        // Encoded before the lock is taken: writers must not queue up behind one another's shards.
        let mut records = Vec::new();
        for db in 0..shard.databases() {
            let Some(table) = shard.table(db).filter(|table| !table.is_empty()) else { continue };
            encode(&mut records, &[b"SELECT", db.to_string().as_bytes()]);
            for (key, entry) in table.iter() {
                encode_entry(&mut records, key, entry);
            }
        }
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.bytes += records.len();
        waiting.shards.push(records);
        let too_much = waiting.bytes > WAITING_BYTES;
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
        if waiting.bytes <= bytes {
            return Ok(0);
        }
        let taken = std::mem::take(&mut *waiting);
        drop(waiting);
        taken.shards.iter().try_for_each(|records| output.file.write_all(records))?;
        Ok(taken.bytes)
    }
}

/// The fewest records that make this key.
fn encode_entry(out: &mut Vec<u8>, key: &[u8], entry: &Entry) {
    // No command sets a deadline before 1970, though a log may have held one.
    let deadline = entry.expires_at_ms().map(|deadline| deadline.max(1).to_string());
    match (&entry.value, &deadline) {
        (Value::String(value), None) => encode(out, &[b"SET", key, value]),
        (Value::String(value), Some(deadline)) => {
            encode(out, &[b"SET", key, value, b"PXAT", deadline.as_bytes()]);
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
            encode_field_deadlines(out, key, hash);
            if let Some(deadline) = &deadline {
                encode(out, &[b"PEXPIREAT", key, deadline.as_bytes()]);
            }
        }
    }
}

/// The deadlines of the fields of a hash: a record for all that share one, as far as it may hold them.
fn encode_field_deadlines(out: &mut Vec<u8>, key: &[u8], hash: &Hash) {
    if hash.earliest_ms().is_none() {
        return;
    }
    let timed = hash.iter().filter_map(|field| Some((field.expires_at_ms()?, field.name)));
    let mut timed: Vec<(i64, &[u8])> = timed.collect();
    timed.sort_by_key(|(deadline, _)| *deadline); // stable, so names that belong together stay so
    for same in timed.chunk_by(|(one, _), (other, _)| one == other) {
        for some in same.chunks(RECORD_FIELDS) {
            let deadline = some[0].0.to_string();
            let count = some.len().to_string();
            let mut record: Vec<&[u8]> = vec![b"HPEXPIREAT", key, deadline.as_bytes(), b"FIELDS"];
            record.push(count.as_bytes());
            record.extend(some.iter().map(|(_, name)| *name));
            encode(out, &record);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::thread;

    use super::super::replay::replay;
    use super::*;
    use crate::config::Config;
    use crate::store::{AllShards, ByteString, Hash, PackedLimits};

    const LIMITS: PackedLimits = PackedLimits { entries: 16, value_bytes: 64 };

    /// A directory with a log in it, and the keyspace that the log is about.
    struct Fixture {
        dir: PathBuf,
        log: PathBuf,
        keyspace: Keyspace,
    }

    impl Fixture {
        fn new(name: &str) -> io::Result<Fixture> {
            let dir = std::env::temp_dir().join(format!("respite-{}-{name}", std::process::id()));
            remove_all(&dir);
            std::fs::create_dir_all(&dir)?;
            let keyspace = Keyspace::new(Arc::new(Config::new()));
            Ok(Fixture { log: dir.join("log"), dir, keyspace })
        }

        fn open(&self) -> io::Result<Aof> {
            let file = OpenOptions::new().append(true).create(true).open(&self.log)?;
            let length = file.metadata()?.len();
            Aof::new(Box::new(file), length)
        }

        /// Sets a key as a command would, and logs it.
        fn set(&self, aof: &Aof, db: usize, keys: &[&[u8]], value: &[u8]) {
            let mut view = self.keyspace.write(db, keys.iter().copied());
            keys.iter()
                .for_each(|key| view.insert(key, Value::String(ByteString::new(value)), None));
            let pairs = keys.iter().flat_map(|key| [*key, value]);
            let record: Vec<&[u8]> = [&b"MSET"[..]].into_iter().chain(pairs).collect();
            let mut bytes = Vec::new();
            encode(&mut bytes, &record);
            let position = aof.append(db, &bytes);
            view.logged(position);
        }

        fn flush_db(&self, aof: &Aof, db: usize) {
            let mut view = self.keyspace.write_all(db);
            view.flush();
            let mut bytes = Vec::new();
            encode(&mut bytes, &[b"FLUSHDB"]);
            let position = aof.append(db, &bytes);
            view.logged(position);
        }

        fn rewrite(&self, aof: &Aof) -> io::Result<()> {
            assert!(aof.claim_rewrite());
            assert!(!aof.claim_rewrite(), "there is one at a time");
            let result = aof.rewrite(&self.keyspace, &self.log);
            assert_eq!(aof.rewrites().0.map(|last| last.ok), Some(result.is_ok()));
            assert!(aof.rewrite_progress().is_none());
            result
        }

        /// The commands of the log.
        fn records(&self) -> Vec<Vec<String>> {
            let mut records = Vec::new();
            let read = File::open(&self.log).map_err(Into::into).and_then(|mut log| {
                let keep = |args: crate::resp::Args| {
                    let words = args.from(0).map(|word| word.escape_ascii().to_string());
                    records.push(words.collect());
                    Ok(())
                };
                replay(&mut log, 512 << 20, keep, |_| {})
            });
            let torn = read.map_err(|error| error.to_string()).map(|read| read.torn_bytes);
            assert_eq!(torn, Ok(0));
            records
        }

        /// The strings that the log makes, by database and key.
        fn replayed(&self) -> BTreeMap<(usize, String), String> {
            let mut all = BTreeMap::new();
            let mut db = 0;
            for record in self.records() {
                match record[0].as_str() {
                    "SELECT" => db = record[1].parse().unwrap_or(usize::MAX),
                    "FLUSHDB" => all.retain(|(at, _), _| *at != db),
                    _ => all.extend(
                        record[1..].chunks(2).map(|pair| ((db, pair[0].clone()), pair[1].clone())),
                    ),
                }
            }
            all
        }

        /// The strings that are in memory.
        fn remembered(&self) -> BTreeMap<(usize, String), String> {
            let mut all = BTreeMap::new();
            self.keyspace.visit(0, &mut |_, shard| {
                for db in 0..shard.databases() {
                    for (key, entry) in shard.table(db).iter().flat_map(|table| table.iter()) {
                        let Value::String(value) = &entry.value else { continue };
                        let shown = |bytes: &[u8]| bytes.escape_ascii().to_string();
                        all.insert((db, shown(key)), shown(value));
                    }
                }
                true
            });
            all
        }

        fn files(&self) -> BTreeSet<String> {
            let entries = std::fs::read_dir(&self.dir).into_iter().flatten().flatten();
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
        }
    }

    impl Drop for Fixture {
        fn drop(&mut self) {
            remove_all(&self.dir);
        }
    }

    fn remove_all(dir: &Path) {
        std::fs::remove_dir_all(dir).unwrap_or_default();
    }

    fn only_the_log() -> BTreeSet<String> {
        BTreeSet::from(["log".to_string()])
    }

    #[test]
    fn each_key_takes_the_fewest_records() -> io::Result<()> {
        let fixture = Fixture::new("fewest")?;
        let aof = fixture.open()?;
        let put = |key: &str, value, deadline| {
            let mut view = fixture.keyspace.write(3, [key.as_bytes()].into_iter());
            view.insert(key.as_bytes(), value, deadline);
        };
        let hash = |fields: usize, value: &[u8]| {
            let mut hash = Hash::new();
            for field in 0..fields {
                hash.set(field.to_string().as_bytes(), value, LIMITS);
            }
            Value::Hash(Box::new(hash))
        };
        let string = || Value::String(ByteString::new(b"\r\n\0"));
        put("string", string(), None);
        put("timed", string(), Some(33_177_117_420_123));
        put("one", hash(1, b"v"), None);
        put("sixty-four", hash(64, b"v"), Some(33_177_117_420_123));
        put("sixty-five", hash(65, b"v"), None);
        let mut timed = Hash::new();
        for field in 0..70 {
            timed.set(field.to_string().as_bytes(), b"v", LIMITS);
            let expires_at_ms = 33_177_117_420_123 + i64::from(field % 35 == 0);
            timed.set_expires_at_ms(field.to_string().as_bytes(), Some(expires_at_ms));
        }
        timed.set_expires_at_ms(b"69", None);
        put("fields", Value::Hash(Box::new(timed)), None);
        put("large", hash(5, &vec![b'v'; 40 << 10]), None);
        fixture.rewrite(&aof)?;
        let mut shapes: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for record in fixture.records() {
            let shape = match record[0].as_str() {
                "HSET" => format!("HSET {}", record.len() / 2 - 1),
                "HPEXPIREAT" => format!("{} {} {}", record[2], record[4], record.len() - 5),
                _ => record
                    .iter()
                    .filter(|word| **word != record[1])
                    .cloned()
                    .collect::<Vec<_>>()
                    .join(" "),
            };
            shapes.entry(record[1].clone()).or_default().push(shape);
        }
        // Before the keys of each shard.
        let selects = shapes.remove("3").unwrap_or_default();
        assert!((1..=7).contains(&selects.len()), "{selects:?}");
        let expected = [
            (
                "fields",
                vec![
                    "HSET 64",
                    "HSET 6",
                    "33177117420123 64 64",
                    "33177117420123 3 3",
                    "33177117420124 2 2",
                ],
            ),
            ("large", vec!["HSET 2", "HSET 2", "HSET 1"]),
            ("one", vec!["HSET 1"]),
            ("sixty-five", vec!["HSET 64", "HSET 1"]),
            ("sixty-four", vec!["HSET 64", "PEXPIREAT 33177117420123"]),
            ("string", vec!["SET \\r\\n\\x00"]),
            ("timed", vec!["SET \\r\\n\\x00 PXAT 33177117420123"]),
        ];
        let expected = expected.map(|(key, shapes)| {
            (key.to_string(), shapes.into_iter().map(String::from).collect::<Vec<_>>())
        });
        assert_eq!(shapes, BTreeMap::from(expected));
        let length = std::fs::metadata(&fixture.log)?.len();
        assert_eq!(aof.size(), (length, length));
        assert_eq!(fixture.files(), only_the_log());
        Ok(())
    }

    /// Rewrites again and again while three threads change what they can, one of them everything at
    /// once, which ends a snapshot. Then the log must give what is in memory.
    fn rewrite_during_changes(fixture: &Fixture, aof: &Aof, rewrites: usize) -> io::Result<()> {
        let go_on = AtomicBool::new(true);
        thread::scope(|scope| {
            for writer in 0..2 {
                let go_on = &go_on;
                scope.spawn(move || {
                    for i in (0..).take_while(|_| go_on.load(SeqCst)) {
                        let db = i % 3;
                        let keys = [0, 1, 2].map(|n| format!("{}", (i * 7 + n * writer) % 4000));
                        let keys = keys.each_ref().map(|key| key.as_bytes());
                        fixture.set(aof, db, &keys[..1 + i % 3], i.to_string().as_bytes());
                    }
                });
            }
            scope.spawn(|| {
                while go_on.load(SeqCst) {
                    fixture.flush_db(aof, 2);
                }
            });
            let results = (0..rewrites).map(|_| fixture.rewrite(aof));
            let result = results.collect::<io::Result<()>>();
            go_on.store(false, SeqCst);
            result
        })?;
        aof.sync()?;
        assert!(fixture.remembered().len() > 1000);
        assert!(fixture.replayed() == fixture.remembered(), "the log is not what is in memory");
        assert_eq!(aof.size().0, std::fs::metadata(&fixture.log)?.len());
        assert_eq!(fixture.files(), only_the_log());
        Ok(())
    }

    #[test]
    fn whatever_changes_meanwhile_the_new_log_gives_what_is_in_memory() -> io::Result<()> {
        let fixture = Fixture::new("changes")?;
        rewrite_during_changes(&fixture, &fixture.open()?, 10)
    }

    #[test]
    fn where_there_was_no_log_or_an_old_one_the_new_log_gives_what_is_in_memory() -> io::Result<()>
    {
        for stale in [false, true] {
            let fixture = Fixture::new("none")?;
            let aof = Aof::disabled();
            for key in 0..4000 {
                fixture.set(&aof, 0, &[key.to_string().as_bytes()], b"early");
            }
            if stale {
                std::fs::write(&fixture.log, b"*1\r\n$7\r\nGARBAGE\r\n".repeat(100_000))?;
            }
            rewrite_during_changes(&fixture, &aof, 1)?;
            assert!(aof.is_enabled());
        }
        Ok(())
    }

    #[test]
    fn a_rewrite_that_fails_leaves_the_old_log_in_use() -> io::Result<()> {
        let fixture = Fixture::new("fails")?;
        let aof = fixture.open()?;
        fixture.set(&aof, 0, &[b"a"], b"1");
        // A directory in which there is something cannot be replaced.
        std::fs::create_dir_all(temporary(&fixture.log).join("in the way"))?;
        assert!(fixture.rewrite(&aof).is_err());
        fixture.set(&aof, 0, &[b"a"], b"2");
        aof.sync()?;
        assert_eq!(fixture.records().len(), 3, "SELECT and both");
        assert_eq!(aof.failure(), None);
        remove_all(&temporary(&fixture.log));
        fixture.rewrite(&aof)?;
        assert_eq!(fixture.records().len(), 2, "SELECT and the last");
        assert_eq!(fixture.files(), only_the_log());
        Ok(())
    }

    #[test]
    fn where_there_was_no_log_and_the_rewrite_fails_there_is_none_afterwards() -> io::Result<()> {
        let fixture = Fixture::new("gone")?;
        let aof = Aof::disabled();
        fixture.set(&aof, 0, &[b"a"], b"1");
        remove_all(&fixture.dir);
        assert!(fixture.rewrite(&aof).is_err());
        assert!(!aof.is_enabled());
        fixture.set(&aof, 0, &[b"a"], b"2");
        aof.flush()?;
        std::fs::create_dir_all(&fixture.dir)?;
        fixture.rewrite(&aof)?;
        assert!(aof.is_enabled());
        assert_eq!(fixture.replayed(), fixture.remembered());
        Ok(())
    }

    #[test]
    fn the_log_of_another_server_is_not_replaced() -> io::Result<()> {
        let fixture = Fixture::new("other")?;
        let aof = Aof::disabled();
        std::fs::write(&fixture.log, b"theirs")?;
        let theirs = File::open(&fixture.log)?;
        theirs.try_lock()?;
        assert!(fixture.rewrite(&aof).is_err());
        assert_eq!(std::fs::read(&fixture.log)?, b"theirs");
        assert_eq!(fixture.files(), only_the_log());
        drop(theirs);
        fixture.rewrite(&aof)?;
        // And now nobody else may have ours.
        assert!(File::open(&fixture.log)?.try_lock().is_err());
        Ok(())
    }

    /// A file whose disk fails at every sync.
    struct Unsyncable(File);

    impl Write for Unsyncable {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl LogFile for Unsyncable {
        fn sync(&self) -> io::Result<()> {
            Err(io::Error::other("the disk is broken"))
        }

        fn second_handle(&self) -> io::Result<Box<dyn LogFile>> {
            Ok(Box::new(Unsyncable(self.0.try_clone()?)))
        }

        fn is_at(&self, path: &Path) -> bool {
            self.0.is_at(path)
        }
    }

    #[test]
    fn a_rewrite_makes_good_what_a_failed_sync_has_spoilt() -> io::Result<()> {
        let fixture = Fixture::new("spoilt")?;
        let file = OpenOptions::new().append(true).create(true).open(&fixture.log)?;
        let aof = Aof::new(Box::new(Unsyncable(file)), 0)?;
        fixture.set(&aof, 0, &[b"a"], b"1");
        assert!(aof.sync().is_err());
        assert_eq!(aof.failure().as_deref(), Some("the disk is broken"));
        fixture.set(&aof, 0, &[b"b"], b"2");
        fixture.rewrite(&aof)?;
        assert_eq!(aof.failure(), None);
        fixture.set(&aof, 1, &[b"a"], b"3");
        aof.sync()?;
        assert!(aof.is_at(&fixture.log));
        assert_eq!(fixture.replayed(), fixture.remembered());
        assert_eq!(fixture.files(), only_the_log());
        Ok(())
    }
}
