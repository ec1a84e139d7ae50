//! The keyspace: 4096 shards, each a [`Shard`] behind an `RwLock`, and everything that locks them.
//!
//! Why so many: a map that grows rehashes under its lock. One map of 10 million keys does so for seconds, a
//! shard of it for 0.2 ms. And clients that use different keys rarely wait for each other. Why not more:
//! the locks and the heads of the maps should fit into a core's cache. (With four times as many shards, a
//! `GET` in a long pipeline took a tenth longer.)
//!
//! **Lock order**: shards in ascending index, then the log, then the registries. No other module calls
//! `.read()` or `.write()` on a shard, so the order is kept here.

use std::array;
use std::hint::black_box;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockWriteGuard, TryLockError, TryLockResult};
use std::time::{Duration, Instant};

use super::SHARDS;
use super::environment::Environment;
use super::guard::{Exclusive, Guards, Keys, Metered, Shared};
use super::hash::PackedLimits;
use super::indexed::Indexed;
use super::key::HashedKey;
use super::memory::{DataBytes, UNIT_BYTES};
use super::shard::{Cause, Removal, Shard};
use super::shards::Shards;
use super::transaction::{Held, LockPlan, LockSet, Transaction};
use super::usage::Usage;
use super::view::{ReadView, View, WriteView};
use super::watch::Watcher;
use super::whole::{AllShards, ReadAll, WriteAll};
use crate::config::Config;
use crate::config::trace::trace;
use crate::stats::lock;
use crate::text::ensure;

/// How long a thread that locks all shards waits for one of them before it unlocks the others …
const LOCK_ALL_PATIENCE: Duration = Duration::from_millis(1);
/// … and how often it does that before it just waits.
const LOCK_ALL_ATTEMPTS: usize = 100;

/// How many keys are prefetched together.
const PREFETCHED: usize = 16;

/// How often a command that waits for the end of a snapshot checks for it.
const SNAPSHOT_SLICE: Duration = Duration::from_millis(1);

/// The sweeper removes up to this many fields before it unlocks the shard for others.
const SWEPT_FIELDS: usize = 1000;

/// A shard with its lock, which are two cache lines. CPUs fetch lines in such pairs.
#[derive(Default)]
#[repr(align(128))]
struct Slot(RwLock<Shard>);

/// All keys of all databases.
pub struct Keyspace {
    shards: Box<[Slot]>,
    pub(super) env: Environment,
    /// Held while a snapshot is taken.
    one_snapshot: Mutex<()>,
    /// The snapshot that is being taken, if any.
    snapshot: RwLock<Option<Snapshot>>,
    /// Its number; 0 without one.
    snapshot_epoch: AtomicU32,
    /// Whether commands such as FLUSHALL may end it.
    snapshot_may_yield: AtomicBool,
    /// How many snapshots there have been.
    epochs: AtomicU32,
    /// Whether the sweeper removes expired keys.
    sweeping: AtomicBool,
    /// What all shards take.
    data_bytes: DataBytes,
}

/// See [`Keyspace::snapshot`].
struct Snapshot {
    epoch: u32,
    save: Arc<SaveShard>,
}

/// Why a snapshot ended before it was complete.
#[derive(Debug)]
pub enum SnapshotError {
    /// It yielded to a command that changes the whole keyspace, such as FLUSHALL.
    Yielded,
    /// The shards could not be saved.
    Io(io::Error),
}

impl From<io::Error> for SnapshotError {
    fn from(error: io::Error) -> SnapshotError {
        SnapshotError::Io(error)
    }
}

/// Saves a shard; the second argument is what a use of a key is recorded as now. Called with the shard
/// locked, by the thread that takes the snapshot or by one that is about to change the shard.
pub type SaveShard = dyn Fn(&Shard, Usage) + Send + Sync;

impl Keyspace {
    /// An empty keyspace.
    pub fn new(config: Arc<Config>) -> Keyspace {
        Keyspace {
            shards: (0..SHARDS).map(|_| Slot::default()).collect(),
            env: Environment::new(config),
            one_snapshot: Mutex::new(()),
            snapshot: RwLock::new(None),
            snapshot_epoch: AtomicU32::new(0),
            snapshot_may_yield: AtomicBool::new(true),
            epochs: AtomicU32::new(0),
            sweeping: AtomicBool::new(true),
            data_bytes: DataBytes::default(),
        }
    }

    /// An empty keyspace with the same settings and the same coarse clock.
    pub fn new_like(&self) -> Keyspace {
        Keyspace { env: self.env.new_like(), ..Keyspace::new(self.env.config.clone()) }
    }

    /// Calls `save` with every shard as it was at one point in time: when `begin` is called with all
    /// shards, which are locked briefly. After that each shard is saved by this thread on its way through all
    /// of them, or by the first writer that reaches the shard, just before it changes it (copy on write, by
    /// shard). So no client waits for more than one shard, and there is no second copy of the data.
    /// `progress` gets the number of shards that are saved, and may stop the snapshot with an error.
    ///
    /// A command that changes the whole keyspace ends the snapshot if it `may_yield`, and otherwise waits for
    /// its end. One snapshot is taken at a time; another one waits for its turn.
    ///
    /// # Errors
    /// [`SnapshotError::Yielded`] if such a command ended it; otherwise those of `begin` and `progress`.
    pub fn snapshot(
        &self,
        may_yield: bool,
        save: &Arc<SaveShard>,
        begin: impl FnOnce(&[&Shard]) -> io::Result<()>,
        mut progress: impl FnMut(usize) -> io::Result<()>,
    ) -> Result<(), SnapshotError> {
        let _one_at_a_time = lock(&self.one_snapshot);
        let all = self.lock_every_shard();
        begin(&all.iter().map(|shard| &**shard).collect::<Vec<_>>())?;
        let epoch = self.epochs.fetch_add(1, Relaxed) + 1;
        *self.snapshot.write().unwrap_or_else(PoisonError::into_inner) =
            Some(Snapshot { epoch, save: save.clone() });
        self.snapshot_may_yield.store(may_yield, SeqCst);
        self.snapshot_epoch.store(epoch, SeqCst);
        drop(all);
        let done = (0..SHARDS).try_for_each(|index| {
            // Locked for reading, so that clients can read meanwhile.
            let shard = self.shared(index);
            if self.snapshot_epoch.load(SeqCst) != epoch {
                return Err(SnapshotError::Yielded);
            }
            if shard.saved_epoch.swap(epoch, Relaxed) < epoch {
                save(&shard, self.env.usage());
            }
            drop(shard);
            Ok(progress(index + 1)?)
        });
        self.snapshot_epoch.store(0, SeqCst);
        *self.snapshot.write().unwrap_or_else(PoisonError::into_inner) = None;
        done
    }

    /// Saves a shard that is about to be changed, if a snapshot is being taken and does not have it yet.
    fn save_before_change(&self, shard: &Shard) {
        let snapshot = self.snapshot.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(snapshot) = snapshot.as_ref()
            && shard.saved_epoch.swap(snapshot.epoch, Relaxed) < snapshot.epoch
        {
            (snapshot.save)(shard, self.env.usage());
        }
    }

    /// Up to which size a hash stays packed.
    pub fn packed_limits(&self) -> PackedLimits {
        self.env.packed_limits()
    }

    /// The memory that the data takes, in bytes.
    pub fn data_bytes(&self) -> usize {
        self.data_bytes.get()
    }

    /// Turns the sweeper on or off. Clients do not see expired keys either way.
    pub fn set_sweeping(&self, sweeping: bool) {
        self.sweeping.store(sweeping, Relaxed);
    }

    /// The flag that makes views collect which keys they modify: whether any client caches what it reads.
    pub fn tracked(&self) -> &Arc<AtomicBool> {
        &self.env.tracked
    }

    /// The flag that says that the data is a copy of a master's: expired keys are hidden, but not removed.
    pub fn follows(&self) -> &Arc<AtomicBool> {
        &self.env.follows
    }

    /// Advances the coarse clock by which keys are marked as used. Call it several times a second.
    pub fn tick(&self) {
        self.env.tick();
    }

    /// Prefetches the first of these keys, which will be used soon, into the CPU cache; with `FIELDS`, each
    /// with a field that it may have. Returns how many.
    ///
    /// A lookup waits for memory four times: for the lock, for the slot in the index, for the page, for the
    /// record; in a large hash three more times. In a large keyspace, a pipeline spends most of its time on
    /// such waits, one after the other. Here they overlap: the shards that are free are locked (in any order,
    /// since it waits for none) and then read. In pipelines of 100, with two million keys, that saves a GET a
    /// third of its user time.
    pub fn prefetch<'a, const FIELDS: bool>(
        &self,
        db: usize,
        keys: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    ) -> usize {
        let mut hashed = [HashedKey::default(); PREFETCHED];
        let mut fields = [&[][..]; PREFETCHED];
        let keys = keys.zip(&mut fields).map(|((key, field), place)| {
            if FIELDS {
                *place = field;
            }
            key
        });
        let count = HashedKey::ahead(keys, &mut hashed);
        let hashed = &hashed[..count];
        // Locking waits for the memory of one lock after the other; reading beside them does not.
        let beside = |key: &HashedKey| self.shards[key.shard()].0.is_poisoned();
        black_box(hashed.iter().map(beside).fold(false, |any, poisoned| any | poisoned));
        let is_same = |at: usize| FIELDS && at > 0 && hashed[at].shard() == hashed[at - 1].shard();
        let shards: [_; PREFETCHED] = array::from_fn(|at| {
            let key = hashed.get(at).filter(|key| !key.bytes().is_empty())?;
            if is_same(at) {
                return None;
            }
            self.shards[key.shard()].0.try_read().ok()
        });
        let mut table = None;
        let tables: [_; PREFETCHED] = array::from_fn(|at| {
            if at >= count || !is_same(at) {
                table = shards[at].as_ref().and_then(|shard| shard.table(db));
            }
            table
        });
        let places: [_; PREFETCHED] = array::from_fn(|at| tables[at]?.probe(*hashed.get(at)?));
        // The compiler would remove reads whose result is unused.
        let touch = |at: usize| Some(tables[at]?.touch(places[at]?));
        black_box((0..PREFETCHED).filter_map(touch).fold(0, u8::wrapping_add));
        if FIELDS {
            let hashes = array::from_fn(|at| tables[at]?.indexed_at(places[at]?));
            if hashes.iter().any(Option::is_some) {
                prefetch_fields(hashes, fields);
            }
        }
        count
    }

    /// Locks the shards of the keys for reading.
    pub fn read<'v, 'k: 'v>(&'v self, db: usize, keys: impl Keys<'k>) -> ReadView<'v> {
        let lock = |index| {
            trace!("Keyspace::read", "locks shard {index} of {SHARDS} for reading");
            self.shared(index)
        };
        View::new(&self.env, db, Guards::of(keys, lock))
    }

    /// Locks the shards of the keys for writing.
    pub fn write<'v, 'k: 'v>(&'v self, db: usize, keys: impl Keys<'k>) -> WriteView<'v> {
        let lock = |index| {
            trace!("Keyspace::write", "locks shard {index} of {SHARDS} for writing");
            self.exclusive(index)
        };
        View::new(&self.env, db, Guards::of(keys, lock))
    }

    /// All keys, to be read. Nothing is locked until they are visited.
    pub fn read_all(&self, db: usize) -> ReadAll<'_> {
        ReadAll::new(self, db, self.env.now_ms())
    }

    /// All keys, to be changed. Nothing is locked until the first change.
    pub fn write_all(&self, db: usize) -> WriteAll<'_> {
        WriteAll::new(&self.env, db, self)
    }

    /// Locks the shards of a transaction, each once, and for writing only where it writes.
    pub fn transact(&self, locks: LockSet) -> Transaction<'_> {
        let hold = |index, written| {
            if written {
                Held::Exclusive(self.exclusive(index))
            } else {
                Held::Shared(self.shared(index))
            }
        };
        let shards: Vec<_> = match locks.shards() {
            LockPlan::AllExclusive => {
                let all = self.lock_all().into_iter().map(Held::Exclusive);
                all.enumerate().collect()
            }
            LockPlan::All { exclusive } => {
                let is_written = |index| exclusive.binary_search(&index).is_ok();
                let attempt = |index| {
                    if is_written(index) {
                        self.try_exclusive(index).map(Held::Exclusive)
                    } else {
                        self.try_shared(index).map(Held::Shared)
                    }
                };
                let all = lock_all(attempt, |index| hold(index, is_written(index)));
                all.into_iter().enumerate().collect()
            }
            LockPlan::Some(shards) => {
                shards.into_iter().map(|(index, written)| (index, hold(index, written))).collect()
            }
        };
        trace!("Keyspace::transact", "locked {} shards for the transaction", shards.len());
        Transaction::new(&self.env, shards)
    }

    /// Raises the watcher's flag when the key changes from now on. Returns false if it watches the key
    /// already.
    pub fn watch(&self, db: usize, key: &[u8], watcher: &Arc<Watcher>) -> bool {
        let key = HashedKey::new(key);
        self.for_watching(key).watch(db, key, watcher, self.env.now_ms())
    }

    /// Ends what [`Keyspace::watch`] began.
    pub fn unwatch(&self, db: usize, key: &[u8], watcher: &Arc<Watcher>) {
        let key = HashedKey::new(key);
        self.for_watching(key).unwatch(db, key, watcher);
    }

    /// Not through `exclusive`: no data changes, so no snapshot needs to save the shard.
    fn for_watching(&self, key: HashedKey) -> Exclusive<'_> {
        let index = key.shard();
        let shard = self.shards[index].0.write().unwrap_or_else(PoisonError::into_inner);
        Exclusive::Locked(Metered::new(shard, self.data_bytes.part(index)))
    }

    /// Every shard, locked. All clients wait until the last one is. So each is locked for a moment before:
    /// that brings its lock and its table's head into the cache, and waits for long commands.
    fn lock_every_shard(&self) -> Vec<Exclusive<'_>> {
        (0..SHARDS).for_each(|index| drop(self.shared(index)));
        lock_all(|index| self.try_exclusive(index), |index| self.exclusive(index))
    }

    /// The memory of a keyspace without keys, in bytes.
    pub fn fixed_bytes(&self) -> usize {
        self.shards.len() * (size_of::<Slot>() + size_of::<AtomicI64>())
    }

    /// Removes expired keys and fields. For each shard that had some, `log` gets them while the shard is
    /// still locked, and returns the LSN of their records; then they are freed without the lock. If very
    /// many fields of a shard have expired, the shard is unlocked in between.
    pub fn sweep(&self, now_ms: i64, mut log: impl FnMut(&[Removal]) -> u64) {
        let shards = if self.sweeping.load(Relaxed) { SHARDS } else { 0 };
        for index in 0..shards {
            while self.env.earliest_expiry_ms(index) < now_ms {
                let mut shard = self.exclusive(index);
                if self.env.follows() {
                    return;
                }
                let (expired, removed, earliest_ms) = shard.take_expired(now_ms, SWEPT_FIELDS);
                self.env.set_earliest_expiry(index, earliest_ms);
                if !expired.is_empty() {
                    shard.last_lsn = shard.last_lsn.max(log(&expired));
                }
                drop(shard);
                drop(removed);
            }
        }
    }

    /// Removes those of these keys, given with their databases, that have expired. `log` is as for
    /// [`Keyspace::sweep`].
    pub fn remove_expired(
        &self,
        keys: &[(usize, Box<[u8]>)],
        mut log: impl FnMut(&[Removal]) -> u64,
    ) {
        for (db, key) in keys {
            let hashed = HashedKey::new(key);
            let mut shard = self.exclusive(hashed.shard());
            if self.env.follows() {
                return;
            }
            let removed = shard.remove_if_expired(*db, hashed, self.env.now_ms());
            if removed.is_some() {
                let expired = Removal { db: *db, key: key.clone(), cause: Cause::Expired };
                shard.last_lsn = shard.last_lsn.max(log(&[expired]));
            }
            drop(shard);
            drop(removed);
        }
    }

    /// Checks the invariants, one shard after another, each locked for reading. It takes time in
    /// proportion to the data.
    ///
    /// # Errors
    /// A sentence about what is wrong.
    pub fn check(&self) -> Result<(), String> {
        for index in 0..SHARDS {
            let shard = self.shared(index);
            let (earliest_ms, bound_ms) = (shard.earliest_ms(), self.env.earliest_expiry_ms(index));
            ensure!(
                bound_ms <= earliest_ms,
                "shard {index}: the sweeper waits until {bound_ms}, \
                 but something expires at {earliest_ms}"
            );
            shard.check(index).map_err(|fault| format!("shard {index}: {fault}"))?;
        }
        let all: Vec<Shared> = (0..SHARDS).map(|index| self.shared(index)).collect();
        let bytes: usize =
            all.iter().map(|shard| shard.memory_units() as usize).sum::<usize>() * UNIT_BYTES;
        let counted = self.data_bytes();
        ensure!(bytes == counted, "the shards take {bytes} bytes, counted: {counted}");
        Ok(())
    }

    pub(super) fn shared(&self, index: usize) -> Shared<'_> {
        Shared::Locked(self.shards[index].0.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn exclusive(&self, index: usize) -> Exclusive<'_> {
        let shard = self.shards[index].0.write().unwrap_or_else(PoisonError::into_inner);
        self.guard(index, shard)
    }

    /// As `shared`, but gives up after a moment.
    fn try_shared(&self, index: usize) -> Option<Shared<'_>> {
        patiently(|| self.shards[index].0.try_read()).map(Shared::Locked)
    }

    /// As `exclusive`, but gives up after a moment.
    fn try_exclusive(&self, index: usize) -> Option<Exclusive<'_>> {
        patiently(|| self.shards[index].0.try_write()).map(|shard| self.guard(index, shard))
    }

    fn guard<'a>(&'a self, index: usize, shard: RwLockWriteGuard<'a, Shard>) -> Exclusive<'a> {
        if self.snapshot_epoch.load(Relaxed) > shard.saved_epoch.load(Relaxed) {
            self.save_before_change(&shard);
        }
        Exclusive::Locked(Metered::new(shard, self.data_bytes.part(index)))
    }
}

impl Shards for &Keyspace {
    fn read<'v, 'k: 'v>(&'v self, db: usize, keys: impl Keys<'k>) -> ReadView<'v> {
        Keyspace::read(self, db, keys)
    }

    fn write<'v, 'k: 'v>(&'v mut self, db: usize, keys: impl Keys<'k>) -> WriteView<'v> {
        Keyspace::write(self, db, keys)
    }

    fn read_all(&self, db: usize) -> ReadAll<'_> {
        Keyspace::read_all(self, db)
    }

    fn write_all(&mut self, db: usize) -> WriteAll<'_> {
        Keyspace::write_all(self, db)
    }

    fn transaction(&self) -> Option<&dyn AllShards> {
        None
    }
}

impl AllShards for Keyspace {
    fn visit(&self, first: usize, visitor: &mut dyn FnMut(usize, &Shard) -> bool) -> u64 {
        let mut lsn = 0;
        for index in first..SHARDS {
            let shard = self.shared(index);
            lsn = lsn.max(shard.last_lsn);
            if !visitor(index, &shard) {
                break;
            }
        }
        lsn
    }

    /// Ends a snapshot that is being taken: saving all shards first, with all of them locked, would stop
    /// every client. A snapshot that has yielded too often is waited for, with nothing locked.
    fn lock_all(&self) -> Vec<Exclusive<'_>> {
        loop {
            let epoch = self.snapshot_epoch.load(SeqCst);
            if !self.snapshot_may_yield.load(SeqCst) && epoch != 0 {
                std::thread::sleep(SNAPSHOT_SLICE);
            } else if self.snapshot_epoch.compare_exchange(epoch, 0, SeqCst, SeqCst).is_ok() {
                break; // and not another snapshot, which has begun meanwhile
            }
        }
        self.lock_every_shard()
    }
}

/// Locks all shards. While it holds some, it does not wait long for another: all clients would wait for
/// the one long command that holds it.
fn lock_all<G>(attempt: impl Fn(usize) -> Option<G>, lock: impl Fn(usize) -> G) -> Vec<G> {
    let mut all = Vec::with_capacity(SHARDS);
    for _ in 0..LOCK_ALL_ATTEMPTS {
        while all.len() < SHARDS {
            match attempt(all.len()) {
                Some(shard) => all.push(shard),
                None => break,
            }
        }
        if all.len() == SHARDS {
            return all;
        }
        let slow = all.len();
        all.clear();
        drop(lock(slow));
    }
    (0..SHARDS).map(lock).collect()
}

/// Tries to lock for up to `LOCK_ALL_PATIENCE`.
fn patiently<G>(attempt: impl Fn() -> TryLockResult<G>) -> Option<G> {
    let mut started = None;
    loop {
        match attempt() {
            Ok(shard) => return Some(shard),
            Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => {}
        }
        if started.get_or_insert_with(Instant::now).elapsed() > LOCK_ALL_PATIENCE {
            return None;
        }
        std::thread::yield_now();
    }
}

/// The same for fields of large hashes, whose shards are locked.
fn prefetch_fields(hashes: [Option<&Indexed>; PREFETCHED], fields: [&[u8]; PREFETCHED]) {
    let numbers: [_; PREFETCHED] = array::from_fn(|at| hashes[at]?.probe(fields[at]));
    let places: [_; PREFETCHED] = array::from_fn(|at| hashes[at]?.place_of(numbers[at]?));
    let touch = |at: usize| Some(hashes[at]?.touch(places[at]?));
    black_box((0..PREFETCHED).filter_map(touch).fold(0, u8::wrapping_add));
}

#[cfg(test)]
mod tests {
    use super::super::hash::Hash;
    use super::super::value::Value;
    use super::*;

    #[test]
    #[should_panic(expected = "a command on the key \"own\" used \"other\"")]
    fn a_one_key_command_cannot_use_another_key() {
        let keyspace = Keyspace::new(Arc::new(Config::new()));
        let copied = b"own".to_vec();
        let view = keyspace.read(0, std::iter::once(&b"own"[..]));
        assert!(!view.contains(b"own") && !view.contains(&copied));
        view.contains(b"other");
    }

    #[test]
    fn prefetching_waits_for_no_lock_and_keeps_none() {
        let keyspace = Keyspace::new(Arc::new(Config::new()));
        let names: Vec<String> =
            (0..2 * PREFETCHED).map(|number| format!("key {number}")).collect();
        let keys = || names.iter().map(|name| (name.as_bytes(), &b""[..]));
        let locked = keyspace.exclusive(HashedKey::new(names[1].as_bytes()).shard());
        assert_eq!(keyspace.prefetch::<true>(0, keys()), PREFETCHED);
        drop(locked);
        assert_eq!(keyspace.prefetch::<false>(9, keys().take(3)), 3);
        assert_eq!(
            keyspace.prefetch::<true>(0, [keys().next(), keys().next()].into_iter().flatten()),
            2
        );
        let mut hash = Hash::default();
        let limits = PackedLimits { entries: 2, value_bytes: 9 };
        for field in [b"a", b"b", b"c"] {
            hash.set(field, b"v", limits);
        }
        let mut view = keyspace.write(0, std::iter::once(&b"hash"[..]));
        view.insert(b"hash", Value::Hash(hash), None);
        drop(view);
        let fields = [&b"a"[..], b"none", b""].map(|field| (&b"hash"[..], field));
        assert_eq!(keyspace.prefetch::<true>(0, fields.into_iter()), 3);
        assert_eq!(keyspace.prefetch::<true>(0, std::iter::empty()), 0);
        assert!(keyspace.shards.iter().all(|slot| slot.0.try_write().is_ok()));
    }
}
