//! Watched keys: how `EXEC` learns that a key has changed since `WATCH`.
//!
//! A connection that watches owns a [`Watcher`], a flag that it shares with the shards of its keys. A
//! command that changes a key holds the key's shard locked for writing, and raises the flags of the
//! key's watchers there.
//!
//! A change is what a client could notice. Setting a key to the value that it has is a change. A command that
//! does nothing is not, and neither is the removal of a key that had already expired when it was watched. A
//! key that expires after `WATCH` has changed, whether it is removed yet or not. The expiry of single fields
//! is a change only when they are removed from the hash, as in Redis, even if they expired before `WATCH`.
//!
//! Invariants ([`Watches::check`]): no list is empty; no connection watches a key twice; a key that had
//! expired before it was watched is still there; `heap_bytes` is the sum over the keys. The shard's lock
//! guards its [`Watches`].

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use super::key::HashedKey;
use super::memory::allocated;
use super::table::Table;
use super::value::EntryRef;
use crate::text::ensure;

/// A connection's flag: whether a key that it watches has changed.
#[derive(Default)]
pub struct Watcher {
    changed: AtomicBool,
}

impl Watcher {
    /// Whether a watched key has changed.
    pub fn has_changed(&self) -> bool {
        self.changed.load(SeqCst)
    }

    /// Lowers the flag. The connection watches nothing any more.
    pub fn reset(&self) {
        self.changed.store(false, SeqCst);
    }

    fn raise(&self) {
        self.changed.store(true, SeqCst);
    }
}

/// The watched keys of a shard.
#[derive(Default)]
pub(super) struct Watches {
    of_key: HashMap<Box<[u8]>, Vec<Watch>>,
    /// What the keys and lists take that the map points to, in bytes.
    heap_bytes: usize,
}

/// One connection watches one key of one database.
struct Watch {
    db: usize,
    watcher: Arc<Watcher>,
    /// The key had expired when it was watched, and is not removed yet. Its removal is not a change.
    was_expired: bool,
}

impl Watch {
    fn is_of(&self, db: usize, watcher: &Arc<Watcher>) -> bool {
        self.db == db && Arc::ptr_eq(&self.watcher, watcher)
    }

    /// Raises the watcher's flag. Returns false: the watch has served its purpose and is dropped.
    fn raise(&self) -> bool {
        self.watcher.raise();
        false
    }
}

impl Watches {
    /// Whether no key of the shard is watched.
    #[inline(always)]
    pub(super) fn is_empty(&self) -> bool {
        self.of_key.is_empty()
    }

    /// The memory that the watches take, in bytes.
    pub(super) fn memory_bytes(&self) -> usize {
        let slot_bytes = size_of::<(Box<[u8]>, Vec<Watch>)>() + 1;
        allocated(self.of_key.capacity() * slot_bytes) + self.heap_bytes
    }

    /// Adds a watch. `was_expired` says whether the key has expired already. Returns false if the watcher
    /// watches the key already.
    pub(super) fn add(
        &mut self,
        db: usize,
        key: HashedKey,
        watcher: &Arc<Watcher>,
        was_expired: bool,
    ) -> bool {
        let watches = self.of_key.entry(key.bytes().into()).or_default();
        if watches.iter().any(|watch| watch.is_of(db, watcher)) {
            return false;
        }
        self.heap_bytes -= heap_bytes(key.bytes(), watches);
        watches.push(Watch { db, watcher: watcher.clone(), was_expired });
        self.heap_bytes += heap_bytes(key.bytes(), watches);
        true
    }

    /// Removes a watch, if it is still there.
    pub(super) fn remove(&mut self, db: usize, key: HashedKey, watcher: &Arc<Watcher>) {
        self.retain_of(key, |watch| !watch.is_of(db, watcher));
    }

    /// Whether the watcher watches the key, and the key had not expired when the watch began.
    pub(super) fn saw_unexpired(&self, db: usize, key: HashedKey, watcher: &Arc<Watcher>) -> bool {
        let watches = self.of_key.get(key.bytes());
        watches.into_iter().flatten().any(|watch| watch.is_of(db, watcher) && !watch.was_expired)
    }

    /// Raises the flags of the watchers of a key that has just changed. `is_gone` says whether it was
    /// removed.
    #[cold]
    pub(super) fn signal_modified(&mut self, db: usize, key: HashedKey, is_gone: bool) {
        self.retain_of(key, |watch| {
            let unseen = watch.db != db || is_gone && std::mem::take(&mut watch.was_expired);
            unseen || watch.raise()
        });
    }

    /// Raises the flags of watchers whose keys are removed because the database is about to be emptied.
    pub(super) fn signal_flushed(&mut self, db: usize, table: Option<&Table>) {
        self.retain(db, |key, watch| {
            let exists = table.is_some_and(|table| table.get(key).is_some());
            !exists || std::mem::take(&mut watch.was_expired)
        });
    }

    /// Raises the flags of watchers whose keys change when the table `before` of a database is replaced by
    /// `after`. A key does not change if it is missing or expired in both.
    pub(super) fn signal_swapped(
        &mut self,
        db: usize,
        before: Option<&Table>,
        after: Option<&Table>,
        now_ms: i64,
    ) {
        let expired = |entry: Option<EntryRef>| entry.is_some_and(|entry| entry.is_expired(now_ms));
        self.retain(db, |key, watch| {
            let old = before.and_then(|table| table.get(key));
            let new = after.and_then(|table| table.get(key));
            let was_absent = watch.was_expired || old.is_none();
            watch.was_expired = was_absent && expired(new);
            was_absent && (new.is_none() || expired(new))
        });
    }

    /// Keeps the watches of a key for which `keep` returns true.
    fn retain_of(&mut self, key: HashedKey, keep: impl FnMut(&mut Watch) -> bool) {
        let Some(watches) = self.of_key.get_mut(key.bytes()) else { return };
        watches.retain_mut(keep);
        if watches.is_empty() {
            self.heap_bytes -= heap_bytes(key.bytes(), watches);
            self.of_key.remove(key.bytes());
        }
        self.drop_empty_map();
    }

    /// Keeps the watches of a database for which `keep` returns true, and raises the flags of the others.
    fn retain(&mut self, db: usize, mut keep: impl FnMut(HashedKey, &mut Watch) -> bool) {
        self.of_key.retain(|name, watches| {
            let key = HashedKey::new(name);
            watches.retain_mut(|watch| watch.db != db || keep(key, watch) || watch.raise());
            if watches.is_empty() {
                self.heap_bytes -= heap_bytes(name, watches);
            }
            !watches.is_empty()
        });
        self.drop_empty_map();
    }

    fn drop_empty_map(&mut self) {
        if self.of_key.is_empty() {
            self.of_key = HashMap::default();
        }
    }

    /// Checks the invariants. `exists` says whether a key is in a database, expired or not.
    ///
    /// # Errors
    /// A sentence about what is wrong.
    pub(super) fn check(&self, exists: impl Fn(usize, HashedKey) -> bool) -> Result<(), String> {
        let heap = self.of_key.iter().map(|(key, watches)| heap_bytes(key, watches)).sum::<usize>();
        ensure!(heap == self.heap_bytes, "watches take {heap} bytes, counted: {}", self.heap_bytes);
        for (key, watches) in &self.of_key {
            let (hashed, name) = (HashedKey::new(key), key.escape_ascii());
            ensure!(!watches.is_empty(), "{name} is listed as watched, but has no watch");
            for (index, watch) in watches.iter().enumerate() {
                let twice = watches[..index].iter().any(|w| w.is_of(watch.db, &watch.watcher));
                ensure!(!twice, "a client watches {name} twice in database {}", watch.db);
                let lies_there = !watch.was_expired || exists(watch.db, hashed);
                ensure!(lies_there, "{name} is gone but listed as expired when it was watched");
            }
        }
        Ok(())
    }
}

/// What a watched key and its list take outside the map. (A list has had a watch, so a new one counts as if
/// the key were not there.)
fn heap_bytes(key: &[u8], watches: &Vec<Watch>) -> usize {
    match watches.capacity() {
        0 => 0,
        places => allocated(key.len()) + allocated(places * size_of::<Watch>()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::shard::Shard;
    use super::super::usage::Usage;
    use super::super::value::{Entry, Value};
    use super::super::{Hash, PackedLimits};
    use super::*;

    const USED: Usage = Usage::Time { now: 0 };

    const NOW: i64 = 1000;

    fn key(name: &str) -> HashedKey<'_> {
        HashedKey::new(name.as_bytes())
    }

    fn put(shard: &mut Shard, db: usize, expires_at_ms: Option<i64>) {
        let entry = Entry::new(Value::String(Vec::new()), expires_at_ms);
        shard.insert(db, key("k"), entry, USED);
        shard.signal_modified(db, key("k"));
    }

    /// A key as a test sets it up: `None` if it is missing, or its expiry.
    type State = Option<Option<i64>>;

    const ABSENT: State = None;
    const LIVE: State = Some(None);
    const EXPIRED: State = Some(Some(NOW - 1));

    /// A shard in which the key `k` has these states in databases 0 and 1, and a watcher of it in
    /// database 0.
    fn watched(first: State, second: State) -> (Shard, Arc<Watcher>) {
        let (mut shard, watcher) = (Shard::default(), Arc::default());
        for (db, state) in [first, second].into_iter().enumerate() {
            state.into_iter().for_each(|expires_at_ms| put(&mut shard, db, expires_at_ms));
        }
        assert!(shard.watch(0, key("k"), &watcher, NOW));
        (shard, watcher)
    }

    /// A shard in which `k` in database 0 is a hash with this expiry and fields with these, and a watcher
    /// of it.
    fn watched_hash(expires_at_ms: Option<i64>, fields: &[Option<i64>]) -> (Shard, Arc<Watcher>) {
        let limits = PackedLimits { entries: 2, value_bytes: 9 };
        let mut hash = Hash::new();
        for (n, &expires_at_ms) in fields.iter().enumerate() {
            hash.set_until(&[n as u8], b"", expires_at_ms, limits);
        }
        let (mut shard, watcher) = (Shard::default(), Arc::default());
        shard.insert(0, key("k"), Entry::new(Value::Hash(hash), expires_at_ms), USED);
        assert!(shard.watch(0, key("k"), &watcher, NOW));
        (shard, watcher)
    }

    #[track_caller]
    fn check(shard: &Shard) {
        assert_eq!(shard.check(key("k").shard()), Ok(()));
    }

    #[test]
    fn a_watch_that_ends_or_was_signalled_leaves_nothing_behind() {
        let (mut shard, one) = watched(LIVE, ABSENT);
        let other = Arc::default();
        assert!(shard.watch(0, key("k"), &other, NOW) && shard.watch(1, key("k"), &one, NOW));
        assert!(!shard.watch(0, key("k"), &one, NOW), "already watched");
        check(&shard);
        shard.unwatch(0, key("k"), &one);
        shard.unwatch(1, key("k"), &one);
        assert!(shard.is_watched(), "the other still watches");
        shard.signal_modified(0, key("k"));
        assert!(other.has_changed() && !one.has_changed());
        assert!(!shard.is_watched(), "a watch is dropped once it is signalled");
        assert_eq!((Arc::strong_count(&one), Arc::strong_count(&other)), (1, 1));
        shard.unwatch(0, key("k"), &other);
        check(&shard);
    }

    #[test]
    fn removing_a_key_that_had_expired_is_no_change_and_setting_it_again_is() {
        let (mut shard, watcher) = watched(EXPIRED, ABSENT);
        shard.take_expired(NOW, usize::MAX);
        assert!(!watcher.has_changed());
        check(&shard);
        put(&mut shard, 0, None);
        assert!(watcher.has_changed());
        let (mut shard, watcher) = watched(EXPIRED, ABSENT);
        put(&mut shard, 0, None);
        assert!(watcher.has_changed(), "overwritten before it was removed");
    }

    #[test]
    fn removing_the_last_fields_of_a_hash_is_a_change_even_if_all_had_expired() {
        for fields in [1, 2, 9] {
            let (mut shard, watcher) = watched_hash(None, &vec![Some(NOW - 1); fields]);
            assert!(!shard.has_expired_since(0, key("k"), &watcher, NOW));
            shard.take_expired(NOW, 2);
            assert!(watcher.has_changed(), "{fields} fields");
            check(&shard);
        }
    }

    #[test]
    fn removing_expired_fields_of_a_hash_whose_key_had_expired_is_no_change() {
        let (mut shard, watcher) = watched_hash(Some(NOW - 1), &[Some(NOW - 1), None]);
        shard.take_expired(NOW, usize::MAX);
        assert!(!watcher.has_changed());
        check(&shard);
        put(&mut shard, 0, None);
        assert!(watcher.has_changed());
    }

    #[test]
    fn removing_expired_fields_of_a_live_hash_is_a_change() {
        let (mut shard, watcher) = watched_hash(None, &[Some(NOW - 1), None]);
        assert!(!shard.has_expired_since(0, key("k"), &watcher, NOW));
        shard.take_expired(NOW, usize::MAX);
        assert!(watcher.has_changed());
    }

    #[test]
    fn removing_a_key_of_one_database_leaves_the_watches_of_another_alone() {
        let (mut shard, watcher) = watched(EXPIRED, LIVE);
        shard.remove(1, key("k"));
        shard.signal_modified(1, key("k"));
        assert!(!shard.has_expired_since(0, key("k"), &watcher, NOW));
        shard.take_expired(NOW, usize::MAX);
        assert!(!watcher.has_changed());
        check(&shard);
    }

    #[test]
    fn a_key_that_expires_after_watch_has_changed_whether_removed_or_not() {
        let (mut shard, watcher) = watched(Some(Some(NOW + 1)), ABSENT);
        assert!(!shard.has_expired_since(0, key("k"), &watcher, NOW + 1));
        assert!(shard.has_expired_since(0, key("k"), &watcher, NOW + 2));
        shard.take_expired(NOW + 2, usize::MAX);
        assert!(watcher.has_changed());
        let (shard, watcher) = watched(EXPIRED, ABSENT);
        assert!(!shard.has_expired_since(0, key("k"), &watcher, NOW + 2));
    }

    #[test]
    fn a_flush_changes_the_keys_that_exist_in_that_database() {
        for (state, changed) in [(LIVE, true), (ABSENT, false), (EXPIRED, false)] {
            let (mut shard, watcher) = watched(state, LIVE);
            shard.flush(1);
            assert!(!watcher.has_changed(), "another database");
            shard.flush(0);
            assert_eq!(watcher.has_changed(), changed, "{state:?}");
            check(&shard);
        }
    }

    #[test]
    fn a_swap_changes_keys_unless_they_are_missing_before_and_after() {
        let states = [ABSENT, LIVE, EXPIRED];
        for (before, after) in states.into_iter().flat_map(|one| states.map(|two| (one, two))) {
            let (mut shard, watcher) = watched(before, after);
            shard.swap(0, 1, NOW);
            let changed = before == LIVE || after == LIVE;
            assert_eq!(watcher.has_changed(), changed, "{before:?} becomes {after:?}");
            check(&shard);
            if !changed {
                // An expired key that came with the swap is removed unseen, too.
                shard.take_expired(NOW, usize::MAX);
                assert!(!watcher.has_changed(), "{before:?} becomes {after:?}");
                assert!(!shard.has_expired_since(0, key("k"), &watcher, NOW));
                check(&shard);
            }
        }
    }
}
