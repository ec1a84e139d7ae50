//! A transaction's shards: those of all its commands, locked once, until it ends.
//!
//! [`LockSet`] collects which keys the commands read and write. The keyspace locks the union of their
//! shards in ascending order, for writing where a command writes and for reading elsewhere, so that
//! transactions that only read do not wait for each other. The [`Transaction`] then lends each command the
//! view that it would have alone, of its own keys only, so handlers do not know that they are part of
//! one. No other client sees the state between two of its commands.
//!
//! The shards of watched keys are locked too, if only for reading. Otherwise two transactions, each of
//! which watches what the other writes, could both find nothing changed and both go on.
//!
//! The clock is read once, when everything is locked.

use std::sync::Arc;

use super::SHARDS;
use super::environment::Environment;
use super::guard::{Exclusive, Guards, Keys, Shared};
use super::key::HashedKey;
use super::shard::Shard;
use super::shards::Shards;
use super::view::{ReadView, View, WriteView};
use super::watch::Watcher;
use super::whole::{AllShards, ReadAll, WriteAll};

/// What a transaction is going to lock.
#[derive(Default)]
pub struct LockSet {
    /// Shards, and whether they are locked for writing.
    shards: Vec<(usize, bool)>,
    reads_all: bool,
    writes_all: bool,
}

impl LockSet {
    /// These keys are read.
    pub fn read<'a>(&mut self, keys: impl Iterator<Item = &'a [u8]>) {
        self.shards.extend(keys.map(|key| (HashedKey::new(key).shard(), false)));
    }

    /// These keys are written.
    pub fn write<'a>(&mut self, keys: impl Iterator<Item = &'a [u8]>) {
        self.shards.extend(keys.map(|key| (HashedKey::new(key).shard(), true)));
    }

    /// The whole keyspace is read.
    pub fn read_all(&mut self) {
        self.reads_all = true;
    }

    /// The whole keyspace is written.
    pub fn write_all(&mut self) {
        self.writes_all = true;
    }

    /// The shards to lock.
    pub(super) fn shards(mut self) -> LockPlan {
        if self.writes_all {
            return LockPlan::AllExclusive;
        }
        // For each shard the exclusive request sorts first, and is the one that stays.
        self.shards.sort_unstable_by_key(|&(index, exclusive)| (index, !exclusive));
        self.shards.dedup_by_key(|(index, _)| *index);
        if self.reads_all {
            let exclusive = self.shards.into_iter().filter(|(_, exclusive)| *exclusive);
            return LockPlan::All { exclusive: exclusive.map(|(index, _)| index).collect() };
        }
        LockPlan::Some(self.shards)
    }
}

/// The shards to lock for a transaction.
pub(super) enum LockPlan {
    /// All, for writing.
    AllExclusive,
    /// All; these, in ascending order, for writing.
    All { exclusive: Vec<usize> },
    /// These, in ascending order, each with whether it is locked for writing.
    Some(Vec<(usize, bool)>),
}

/// A shard of a transaction.
pub(super) enum Held<'a> {
    Shared(Shared<'a>),
    Exclusive(Exclusive<'a>),
}

impl Held<'_> {
    fn shard(&self) -> &Shard {
        match self {
            Held::Shared(shard) => shard,
            Held::Exclusive(shard) => shard,
        }
    }

    fn shard_mut(&mut self) -> Option<&mut Shard> {
        match self {
            Held::Shared(_) => None,
            Held::Exclusive(shard) => Some(shard),
        }
    }
}

/// Locked shards that are lent to one command after the other.
pub struct Transaction<'a> {
    env: &'a Environment,
    /// By ascending index.
    shards: Vec<(usize, Held<'a>)>,
    now_ms: i64,
}

impl<'a> Transaction<'a> {
    pub(super) fn new(env: &'a Environment, shards: Vec<(usize, Held<'a>)>) -> Transaction<'a> {
        Transaction { env, shards, now_ms: env.now_ms() }
    }

    /// The time that all of its commands see: Unix time in milliseconds.
    pub fn now_ms(&self) -> i64 {
        self.now_ms
    }

    /// Whether one of these watched keys, given with their databases, has changed since it was watched.
    /// Their shards are locked.
    pub fn finds_changed(&self, watched: &[(usize, Vec<u8>)], watcher: &Arc<Watcher>) -> bool {
        let has_expired = |(db, key): &(usize, Vec<u8>)| {
            let key = HashedKey::new(key);
            let shard = self.shards[self.place_of(key.shard())].1.shard();
            shard.has_expired_since(*db, key, watcher, self.now_ms)
        };
        watcher.has_changed() || watched.iter().any(has_expired)
    }

    /// The highest LSN of the locked shards.
    pub fn last_lsn(&self) -> u64 {
        self.shards.iter().map(|(_, held)| held.shard().last_lsn).max().unwrap_or(0)
    }

    /// The log has every change of the shards locked for writing up to that LSN.
    pub fn logged(&mut self, lsn: u64) {
        let exclusive = self.shards.iter_mut().filter_map(|(_, held)| held.shard_mut());
        exclusive.for_each(|shard| shard.logged(lsn));
    }

    fn place_of(&self, index: usize) -> usize {
        if self.shards.len() == SHARDS {
            return index;
        }
        let found = self.shards.binary_search_by_key(&index, |(held, _)| *held);
        found.unwrap_or_else(|_| not_held())
    }
}

impl Shards for Transaction<'_> {
    fn read<'v, 'k: 'v>(&'v self, db: usize, keys: impl Keys<'k>) -> ReadView<'v> {
        let lend = |index| Shared::Lent(self.shards[self.place_of(index)].1.shard());
        View::new(self.env, db, Guards::of(keys, lend)).at(self.now_ms)
    }

    fn write<'v, 'k: 'v>(&'v mut self, db: usize, keys: impl Keys<'k>) -> WriteView<'v> {
        // Shards are asked for in ascending order, so each is split off from those after it.
        let mut rest = self.shards.iter_mut();
        let lend = |index| {
            let place = rest.as_slice().partition_point(|(held, _)| *held < index);
            let held = rest.nth(place).filter(|(held, _)| *held == index);
            Exclusive::Lent(
                held.and_then(|(_, held)| held.shard_mut()).unwrap_or_else(|| not_held()),
            )
        };
        View::new(self.env, db, Guards::of(keys, lend)).at(self.now_ms)
    }

    fn read_all(&self, db: usize) -> ReadAll<'_> {
        ReadAll::new(self, db, self.now_ms)
    }

    fn write_all(&mut self, db: usize) -> WriteAll<'_> {
        let shards = self.shards.iter_mut().filter_map(|(_, held)| held.shard_mut());
        let shards: Vec<Exclusive> = shards.map(Exclusive::Lent).collect();
        assert_eq!(shards.len(), SHARDS, "a transaction locks what its commands use");
        WriteAll::locked(self.env, db, shards)
    }

    fn transaction(&self) -> Option<&dyn AllShards> {
        Some(self)
    }
}

impl AllShards for Transaction<'_> {
    fn visit(&self, first: usize, visitor: &mut dyn FnMut(usize, &Shard) -> bool) -> u64 {
        let mut lsn = 0;
        for (index, held) in self.shards.iter().skip(self.place_of(first)) {
            lsn = lsn.max(held.shard().last_lsn);
            if !visitor(*index, held.shard()) {
                break;
            }
        }
        lsn
    }

    fn lock_all(&self) -> Vec<Exclusive<'_>> {
        unreachable!("a transaction has its shards locked")
    }
}

/// # Panics
/// Always: a command uses a key that its row does not name, or writes to one that it only reads.
fn not_held() -> ! {
    unreachable!("a transaction locks what its commands use")
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::super::keyspace::{SaveShard, SnapshotError};
    use super::*;
    use crate::config::Config;
    use crate::store::{Keyspace, Value};

    fn locks(read: &[&str], exclusive: &[&str]) -> LockSet {
        let mut locks = LockSet::default();
        locks.read(read.iter().map(|key| key.as_bytes()));
        locks.write(exclusive.iter().map(|key| key.as_bytes()));
        locks
    }

    fn insert(view: &mut WriteView, key: &str) {
        view.insert(key.as_bytes(), Value::String(Vec::new()), None);
    }

    #[test]
    fn a_shard_is_locked_once_and_for_writing_if_anything_in_it_is_written() {
        let shards = |locks: LockSet| match locks.shards() {
            LockPlan::Some(shards) => shards,
            _ => Vec::new(),
        };
        let place = |key: &str| HashedKey::new(key.as_bytes()).shard();
        assert_eq!(shards(locks(&["a", "a"], &[])), [(place("a"), false)]);
        assert_eq!(shards(locks(&["a"], &["a"])), [(place("a"), true)]);
        let mut both = [(place("a"), false), (place("b"), true)];
        both.sort_unstable();
        assert_eq!(shards(locks(&["b", "a"], &["b", "b"])), both);
        let mut all = locks(&["a"], &["b"]);
        all.read_all();
        assert!(matches!(all.shards(), LockPlan::All { exclusive } if exclusive == [place("b")]));
    }

    #[test]
    fn a_command_sees_what_those_before_it_did() {
        let keyspace = Keyspace::new(Arc::new(Config::new()));
        let names: Vec<String> = (0..200).map(|n| format!("key {n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let keys = || names.iter().map(|key| key.as_bytes());
        let mut transaction = keyspace.transact(locks(&[], &names));
        for key in &names {
            insert(&mut transaction.write(0, std::iter::once(key.as_bytes())), key);
        }
        assert!(keys().all(|key| transaction.read(0, keys()).contains(key)));
        let mut view = transaction.write(0, keys());
        assert_eq!(keys().filter(|key| view.remove(key)).count(), 200);
        drop(view);
        assert!(!transaction.read(0, std::iter::once(&b"key 7"[..])).contains(b"key 7"));
    }

    #[test]
    fn transactions_on_some_or_all_keys_and_snapshots_do_not_deadlock() {
        let keyspace = Keyspace::new(Arc::new(Config::new()));
        let names: Vec<String> = (0..40).map(|n| n.to_string()).collect();
        let own = |thread: usize, round: usize| &*names[(thread * 7 + round * 3) % names.len()];
        thread::scope(|scope| {
            for thread in 0..4 {
                let (keyspace, own) = (&keyspace, &own);
                scope.spawn(move || {
                    for round in 0..100 {
                        let (read, exclusive) = (own(thread, round), own(thread + 1, round + 1));
                        let mut locks = locks(&[read], &[exclusive]);
                        match round % 20 {
                            3 => locks.read_all(),
                            7 => locks.write_all(),
                            _ => {}
                        }
                        let mut transaction = keyspace.transact(locks);
                        let keys = std::iter::once(exclusive.as_bytes());
                        insert(&mut transaction.write(0, keys), exclusive);
                        let view = transaction.read(0, std::iter::once(read.as_bytes()));
                        view.contains(read.as_bytes());
                    }
                });
            }
            let save: Arc<SaveShard> = Arc::new(|_: &Shard, _| ());
            for _ in 0..5 {
                let result = keyspace.snapshot(true, &save, |_| Ok(()), |_| Ok(()));
                assert!(matches!(result, Ok(()) | Err(SnapshotError::Yielded)));
            }
        });
    }
}
