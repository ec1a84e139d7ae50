//! Rewriting the log: replacing it by the shortest log that gives the same data, without a fork, without a
//! second copy of the data, and without a pause that a client would notice.
//!
//! A log only grows; a key that was set a million times is in it a million times. A rewrite takes four
//! steps:
//!
//! 1. **A point in time.** With all shards locked, the log is flushed and its length noted; the shards
//!    are unlocked again. The new file will begin with the state at this point ([`Keyspace::snapshot`]).
//! 2. **The snapshot.** Each shard is encoded as the fewest records that recreate it, by this thread or by
//!    the first writer that reaches the shard, just before it changes it ([`crate::store::snapshot`]).
//! 3. **The changes since.** What was appended to the old log after that point is copied, in rounds that get
//!    shorter and shorter. The last few bytes are copied under the log's lock; from then on every record goes
//!    to both files (the *tee*).
//! 4. **The switch.** The new file is synced and renamed over the old one, the directory is synced, and
//!    the old file is closed.
//!
//! Why the tee: a sync may take long, and clients must not wait for it. With the tee they go on. Until the
//! rename is on the disk, both files are complete logs, so it does not matter which of them has the name
//! after a crash.
//!
//! FLUSHALL, FLUSHDB and SWAPDB change every shard at once and would have to save them all first. Instead
//! they end the snapshot, and the rewrite starts again with less to do.
//!
//! A rewrite that fails removes its temporary file and returns the error; the old log stays in use.
//!
//! `CONFIG SET appendonly yes` starts a rewrite too. There is no old log then, so a temporary one, the
//! *tail*, takes its place until the new file is complete. The same happens when the old log cannot be
//! relied on: a sync has failed, or another program has removed, replaced or changed it. A file that others
//! have put in its place is kept beside the new log.

use std::fs::{File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use super::file::LogFile;
use super::snapshot::Records;
use super::stream::Copied;
use super::writer::{Aof, Mark, was_turned_off};
use crate::files::{create, expect_file, nameless, remove, sync_directory, with_suffix};
use crate::store::keyspace::{SaveShard, SnapshotError};
use crate::store::shard::Shard;
use crate::store::snapshot::SnapshotWriter;
use crate::store::{Keyspace, SHARDS};

/// The rewriting thread writes queued shards once they have this many bytes.
const WRITE_BYTES: usize = 256 << 10;
/// The new file is synced once per this many bytes, so that the last sync has little to do.
const SYNC_BYTES: usize = 16 << 20;
/// When at most this many bytes are left to copy, they are copied under the log's lock.
const LAST_COPY_BYTES: u64 = 64 << 10;
/// After this many rounds of copying, the rest is copied under the log's lock even if it is more: writers
/// that were faster than the copying wait for it.
const COPY_ROUNDS: usize = 50;
/// How much of the old log is copied at a time.
const COPY_BYTES: usize = 256 << 10;
/// At most this many snapshots are tried. The last one does not yield to FLUSHALL and similar commands; they
/// wait for it.
const ATTEMPTS: usize = 4;

impl Aof {
    /// Writes the shortest log with the same data to that path, where it takes the place of the log. The
    /// caller has claimed the rewrite ([`Aof::rewrites`]). The old log may be at another path, where it
    /// stays, or there may be none. The function returns the annotations that follow the snapshot, which is
    /// that of an LSN; it is called with the log locked.
    ///
    /// # Errors
    /// The old log is still in use, or there still is none.
    pub fn rewrite(
        &self,
        keyspace: &Keyspace,
        path: &Path,
        annotations: &dyn Fn(u64) -> Vec<u8>,
    ) -> io::Result<()> {
        let started = Instant::now();
        let was_enabled = self.is_enabled();
        let had_stand_in = self.has_stand_in();
        // A log that cannot be relied on counts as none. This is decided once for all attempts, because
        // the first one puts the tail in its place.
        let has_log = was_enabled && self.verify_file().is_ok() && !self.needs_rewrite();
        let keeps_other = was_enabled && !self.is_at(path);
        let result = Rewrite { aof: self, keyspace, path, annotations, has_log, keeps_other }.run();
        if result.is_err() {
            self.untee();
            remove(&temporary(path));
            if !was_enabled {
                self.give_up_tail(path, had_stand_in);
            }
        }
        remove(&tail(path));
        self.rewrites.end(result.is_ok(), started.elapsed());
        result
    }
}

impl Aof {
    /// Goes back to having no log, after a rewrite has failed that would have been the first.
    fn give_up_tail(&self, path: &Path, had_stand_in: bool) {
        let goes_on = had_stand_in && nameless(path).is_ok_and(|file| self.stand_in(file).is_ok());
        if !goes_on {
            self.close().unwrap_or_default();
        }
    }
}

/// The file in which a rewrite builds the new log.
pub fn temporary(log: &Path) -> PathBuf {
    with_suffix(log, ".rewrite")
}

/// The file that takes the place of the old log if there is none.
pub fn tail(log: &Path) -> PathBuf {
    with_suffix(log, ".tail")
}

struct Rewrite<'a> {
    aof: &'a Aof,
    keyspace: &'a Keyspace,
    path: &'a Path,
    annotations: &'a dyn Fn(u64) -> Vec<u8>,
    /// The old log can be copied from.
    has_log: bool,
    /// A file at the path is not the log, and is kept under another name.
    keeps_other: bool,
}

impl Rewrite<'_> {
    fn run(&self) -> io::Result<()> {
        for attempt in 1..=ATTEMPTS {
            match self.attempt(attempt < ATTEMPTS) {
                Err(SnapshotError::Yielded) => {}
                Err(SnapshotError::Io(error)) => return Err(error),
                Ok(()) => return Ok(()),
            }
        }
        Err(io::Error::other("the keyspace was changed as a whole again and again"))
    }

    /// Rewrites the log, unless the snapshot yields to a command that changes the whole keyspace.
    fn attempt(&self, may_yield: bool) -> Result<(), SnapshotError> {
        if !self.aof.is_at(self.path) {
            expect_unused(self.path)?;
        }
        let temporary = temporary(self.path);
        let new = create(&temporary)?;
        // The lock says that this server uses the log. It has to be on the file that gets the name.
        new.try_lock().map_err(io::Error::from)?;
        let (old, level) = self.take_snapshot(&new, may_yield)?;
        let copied = Copied { lsn: level.lsn, old: level.length, new: new.metadata()?.len() };
        self.copy_and_tee(&*old, &new, copied)?;
        new.sync_data()?;
        if self.has_log && self.aof.needs_rewrite() {
            let text = "the old log, which was copied from, could not be relied on";
            return Err(io::Error::other(text).into());
        }
        self.aof.check_tee()?;
        if self.keeps_other {
            keep(self.path)?;
        }
        std::fs::rename(&temporary, self.path)?;
        // The new file has the name now. If it is not good, neither is the log.
        let switched = sync_directory(self.path).and_then(|()| self.aof.switch());
        switched.inspect_err(|error| {
            if self.aof.is_enabled() {
                self.aof.fail_file(error);
            }
        })?;
        Ok(())
    }

    /// Writes the state at one point in time to the new file. Returns the old log, and where it ended at that
    /// point.
    fn take_snapshot(
        &self,
        mut new: &File,
        may_yield: bool,
    ) -> Result<(Arc<dyn LogFile>, Mark), SnapshotError> {
        let tail_path = tail(self.path);
        let mut tail = if self.has_log { None } else { Some(create(&tail_path)?) };
        let snapshot = Arc::new(SnapshotWriter::new(new.try_clone()?, Records));
        let writer = snapshot.clone();
        let save: Arc<SaveShard> = Arc::new(move |shard: &Shard, now| writer.save(shard, now));
        let (mut level, mut annotations) = (Mark::default(), Vec::new());
        let mut old = None;
        let begin = |_: &[&Shard]| {
            match tail.take() {
                None => self.aof.flush_all()?,
                Some(tail) => self.aof.open_tail(Box::new(tail), &tail_path)?,
            }
            old = self.aof.handle();
            self.aof.mark(|mark| (level, annotations) = (mark, (self.annotations)(mark.lsn)));
            Ok(())
        };
        let mut unsynced = 0;
        self.keyspace.snapshot(may_yield, &save, begin, |shards| {
            self.aof.rewrites.set_saved_percent(shards * 100 / SHARDS);
            unsynced += snapshot.write_if_more_than(WRITE_BYTES)?;
            if unsynced > SYNC_BYTES {
                new.sync_data()?;
                unsynced = 0;
            }
            Ok(())
        })?;
        snapshot.write_if_more_than(0)?;
        // What follows the snapshot relies on the database that was selected at that point.
        if let Some(db) = level.db {
            snapshot.select(db)?;
        }
        new.write_all(&annotations)?;
        Ok((old.ok_or_else(was_turned_off)?, level))
    }

    /// Copies what was appended to the old log since the snapshot, and begins the tee.
    fn copy_and_tee(&self, old: &dyn LogFile, new: &File, start: Copied) -> io::Result<()> {
        let mut copied = start.old;
        for round in 0..COPY_ROUNDS {
            let length = old.length()?;
            copy(old, new, &mut copied, length)?;
            if round == 0 {
                new.sync_data()?; // nearly all of the file; the old log goes on growing meanwhile
            }
            if old.length()?.saturating_sub(copied) <= LAST_COPY_BYTES {
                break;
            }
        }
        self.aof.tee(Box::new(new.try_clone()?), self.path, start, |length| {
            copy(old, new, &mut copied, length)?;
            Ok(new.metadata()?.len())
        })
    }
}

/// Fails if there is a log of another server at that path, or something else than a file.
fn expect_unused(path: &Path) -> io::Result<()> {
    let in_path = |why: io::Error| io::Error::other(format!("'{}': {why}", path.display()));
    expect_file(path).map_err(in_path)?;
    let Ok(file) = File::open(path) else { return Ok(()) };
    file.try_lock().map_err(|error| match error {
        TryLockError::Error(error) => error,
        TryLockError::WouldBlock => {
            io::Error::other(format!("'{}' is in use by another server", path.display()))
        }
    })
}

/// Gives the file with that path, if there is one, a second name, so that it survives when the path gets
/// another file.
fn keep(path: &Path) -> io::Result<()> {
    let mut name = with_suffix(path, ".replaced");
    for number in 1.. {
        match std::fs::hard_link(path, &name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                name = with_suffix(path, &format!(".replaced.{number}"));
            }
            result => return result,
        }
    }
    Ok(())
}

/// Copies the old log's bytes from `copied` to `length`, and moves `copied` on.
fn copy(old: &dyn LogFile, mut new: &File, copied: &mut u64, length: u64) -> io::Result<()> {
    let mut buffer = vec![0; COPY_BYTES];
    while *copied < length {
        let wanted = usize::try_from(length - *copied).unwrap_or(usize::MAX).min(COPY_BYTES);
        match old.read_at(&mut buffer[..wanted], *copied)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => {
                new.write_all(&buffer[..read])?;
                *copied += read as u64;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::fs::OpenOptions;
    use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
    use std::thread;

    use super::super::replay::replay;
    use super::*;
    use crate::config::Config;
    use crate::resp::request::encode;
    use crate::store::{AllShards, Hash, PackedLimits, Value, ValueRef};

    const LIMITS: PackedLimits = PackedLimits { entries: 16, value_bytes: 64 };

    /// A directory for a log, and the keyspace whose changes go into that log.
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
            let file = OpenOptions::new().read(true).append(true).create(true).open(&self.log)?;
            Aof::new(Box::new(file), &self.log)
        }

        /// Sets keys as a command would, and logs that.
        fn set(&self, aof: &Aof, db: usize, keys: &[&[u8]], value: &[u8]) {
            let mut view = self.keyspace.write(db, keys.iter().copied());
            keys.iter().for_each(|key| view.insert(key, Value::String(value.to_vec()), None));
            let pairs = keys.iter().flat_map(|key| [*key, value]);
            let record: Vec<&[u8]> = [&b"MSET"[..]].into_iter().chain(pairs).collect();
            let mut bytes = Vec::new();
            encode(&mut bytes, &record);
            let lsn = aof.append(db, &bytes);
            view.logged(lsn);
        }

        fn flush_db(&self, aof: &Aof, db: usize) {
            let mut view = self.keyspace.write_all(db);
            view.flush();
            let mut bytes = Vec::new();
            encode(&mut bytes, &[b"FLUSHDB"]);
            let lsn = aof.append(db, &bytes);
            view.logged(lsn);
        }

        fn rewrite(&self, aof: &Aof) -> io::Result<()> {
            assert!(aof.rewrites.claim());
            assert!(!aof.rewrites.claim(), "there is one at a time");
            let result = aof.rewrite(&self.keyspace, &self.log, &|_| Vec::new());
            assert_eq!(aof.rewrites.last().map(|last| last.ok), Some(result.is_ok()));
            assert!(aof.rewrites.progress().is_none());
            assert_eq!(aof.check(), Ok(()));
            result
        }

        /// The commands in the log.
        fn records(&self) -> Vec<Vec<String>> {
            let mut records = Vec::new();
            let read = File::open(&self.log).map_err(Into::into).and_then(|mut log| {
                let keep = |args: crate::resp::Args| {
                    let words = args.from(0).map(|word| word.escape_ascii().to_string());
                    records.push(words.collect());
                    Ok::<_, String>(())
                };
                replay(&mut log, 0, 512 << 20, keep, |_| {})
            });
            let torn = read.map_err(|error| error.to_string()).map(|read| read.torn_bytes);
            assert_eq!(torn, Ok(0));
            records
        }

        /// The strings that a replay of the log gives, by database and key.
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
        fn in_memory(&self) -> BTreeMap<(usize, String), String> {
            let mut all = BTreeMap::new();
            self.keyspace.visit(0, &mut |_, shard| {
                for db in shard.databases() {
                    for (key, entry) in shard.table(db).iter().flat_map(|table| table.iter()) {
                        let ValueRef::String(value) = entry.value else { continue };
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
    fn a_key_is_encoded_as_the_fewest_records() -> io::Result<()> {
        let fixture = Fixture::new("fewest")?;
        let aof = fixture.open()?;
        let put = |key: &str, value, expires_at_ms| {
            let mut view = fixture.keyspace.write(3, [key.as_bytes()].into_iter());
            view.insert(key.as_bytes(), value, expires_at_ms);
        };
        let hash = |fields: usize, value: &[u8]| {
            let mut hash = Hash::new();
            for field in 0..fields {
                hash.set(field.to_string().as_bytes(), value, LIMITS);
            }
            Value::Hash(hash)
        };
        let string = || Value::String(b"\r\n\0".to_vec());
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
        put("fields", Value::Hash(timed), None);
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
        assert_eq!(shapes.remove("3"), Some(vec!["SELECT".to_string()]));
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

    /// Rewrites again and again while two threads change keys and a third flushes a database, which ends
    /// snapshots. Then a replay of the log must give what is in memory.
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
        assert!(fixture.in_memory().len() > 1000);
        assert!(fixture.replayed() == fixture.in_memory(), "the log is not what is in memory");
        assert_eq!(aof.size().0, std::fs::metadata(&fixture.log)?.len());
        assert_eq!(fixture.files(), only_the_log());
        Ok(())
    }

    #[test]
    fn a_log_that_was_rewritten_during_changes_gives_what_is_in_memory() -> io::Result<()> {
        let fixture = Fixture::new("changes")?;
        rewrite_during_changes(&fixture, &fixture.open()?, 10)
    }

    #[test]
    fn a_rewrite_without_a_log_or_over_a_stale_one_gives_what_is_in_memory() -> io::Result<()> {
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
        // A directory that is not empty cannot be replaced.
        std::fs::create_dir_all(temporary(&fixture.log).join("in the way"))?;
        assert!(fixture.rewrite(&aof).is_err());
        fixture.set(&aof, 0, &[b"a"], b"2");
        aof.sync()?;
        assert_eq!(fixture.records().len(), 2);
        assert_eq!(aof.failure(), None);
        remove_all(&temporary(&fixture.log));
        fixture.rewrite(&aof)?;
        assert_eq!(fixture.records().len(), 1);
        assert_eq!(fixture.files(), only_the_log());
        Ok(())
    }

    #[test]
    fn a_failed_rewrite_without_a_log_leaves_none() -> io::Result<()> {
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
        assert_eq!(fixture.replayed(), fixture.in_memory());
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
        // The new log is locked, so that no other server takes it.
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

        fn length(&self) -> io::Result<u64> {
            self.0.length()
        }

        fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
            LogFile::read_at(&self.0, buffer, offset)
        }
    }

    #[test]
    fn a_rewrite_recovers_from_a_failed_sync() -> io::Result<()> {
        let fixture = Fixture::new("unsynced")?;
        let file = OpenOptions::new().append(true).create(true).open(&fixture.log)?;
        let aof = Aof::new(Box::new(Unsyncable(file)), &fixture.log)?;
        fixture.set(&aof, 0, &[b"a"], b"1");
        assert!(aof.sync().is_err());
        assert_eq!(aof.failure().as_deref(), Some("the disk is broken"));
        fixture.set(&aof, 0, &[b"b"], b"2");
        fixture.rewrite(&aof)?;
        assert_eq!(aof.failure(), None);
        fixture.set(&aof, 1, &[b"a"], b"3");
        aof.sync()?;
        assert!(aof.is_at(&fixture.log));
        assert_eq!(fixture.replayed(), fixture.in_memory());
        assert_eq!(fixture.files(), only_the_log());
        Ok(())
    }
}
