//! Watched keys: how `EXEC` learns that one of them has changed.
//!
//! A connection that watches has a [`Watcher`], a flag that the shards of its keys share with it. Whatever
//! changes a key does so with the key's shard locked for writing, and raises there the flags of those who
//! watch the key. A shard in which nothing is watched has no list, so those who write to it pay for one
//! look at a pointer.
//!
//! What counts as a change is what a client could see: a value set again to what it was does, a command
//! that did nothing does not, and neither does the removal of a key that had expired before it was watched.
//! A key that expires while it is watched has changed, whether it was removed yet or not.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Place;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use super::key::{BuildPassThrough, HashedKey, Key, Lookup};
use super::shard::Shard;
use super::value::Entry;

/// Whether something that a connection watches has changed.
#[derive(Default)]
pub struct Watcher {
    changed: AtomicBool,
}

impl Watcher {
    /// Whether it has.
    pub fn has_changed(&self) -> bool {
        self.changed.load(SeqCst)
    }

    /// Begins anew, nothing being watched.
    pub fn reset(&self) {
        self.changed.store(false, SeqCst);
    }

    fn raise(&self) {
        self.changed.store(true, SeqCst);
    }
}

/// That somebody watches a key.
struct Watch {
    db: usize,
    watcher: Arc<Watcher>,
    /// The key had expired already, and still lies there: its removal changes nothing.
    was_expired: bool,
}

/// The watched keys of a shard. The boxed list of an unwatched shard does not exist.
#[derive(Default)]
pub(super) struct Watches {
    keys: HashMap<Key, Vec<Watch>, BuildPassThrough>,
}

impl Watches {
    /// Shows each watch of a database with its key, and drops those of which `keep` says no: these have
    /// seen a change.
    fn retain(&mut self, db: usize, mut keep: impl FnMut(HashedKey, &mut Watch) -> bool) {
        self.keys.retain(|key, watches| {
            let key = HashedKey::new(key.bytes());
            watches.retain_mut(|watch| watch.db != db || keep(key, watch) || watch.raise());
            !watches.is_empty()
        });
    }
}

impl Watch {
    /// Tells the watcher, who then need not be told again.
    fn raise(&self) -> bool {
        self.watcher.raise();
        false
    }
}

impl Shard {
    /// Has the watcher told when the key changes. False if it watches the key already.
    pub(super) fn watch(
        &mut self,
        db: usize,
        key: HashedKey,
        watcher: &Arc<Watcher>,
        now_ms: i64,
    ) -> bool {
        let was_expired = self.has_expired(db, key, now_ms);
        let watches = self.watches.get_or_insert_default();
        let watches = watches.keys.entry(Key::new(key.bytes())).or_default();
        if watches.iter().any(|watch| watch.is_of(db, watcher)) {
            return false;
        }
        watches.push(Watch { db, watcher: watcher.clone(), was_expired });
        true
    }

    /// Ends that. Nothing of it stays behind.
    pub(super) fn unwatch(&mut self, db: usize, key: HashedKey, watcher: &Arc<Watcher>) {
        let Some(list) = &mut self.watches else { return };
        if let Place::Occupied(mut watches) = list.keys.entry(Key::new(key.bytes())) {
            watches.get_mut().retain(|watch| !watch.is_of(db, watcher));
            if watches.get().is_empty() {
                watches.remove();
            }
        }
        self.drop_empty_list();
    }

    /// Whether a key that this one watches has expired since.
    pub(super) fn has_expired_since(
        &self,
        db: usize,
        key: HashedKey,
        watcher: &Arc<Watcher>,
        now_ms: i64,
    ) -> bool {
        let watches = self.watches.iter().filter_map(|list| list.keys.get(&key as &dyn Lookup));
        let own = watches.flatten().find(|watch| watch.is_of(db, watcher));
        own.is_some_and(|watch| !watch.was_expired) && self.has_expired(db, key, now_ms)
    }

    /// Takes note that the key has changed. Everything that changes one calls it afterwards.
    #[inline]
    pub(super) fn signal_modified(&mut self, db: usize, key: HashedKey) {
        if self.watches.is_some() {
            self.tell_watchers(db, key);
        }
    }

    #[cold]
    fn tell_watchers(&mut self, db: usize, key: HashedKey) {
        let is_gone = self.table(db).is_none_or(|table| table.get(key).is_none());
        let Some(list) = &mut self.watches else { return };
        let Some(watches) = list.keys.get_mut(&key as &dyn Lookup) else { return };
        watches.retain_mut(|watch| {
            let unseen = is_gone && std::mem::take(&mut watch.was_expired);
            watch.db != db || unseen || watch.raise()
        });
        if watches.is_empty() {
            list.keys.remove(&key as &dyn Lookup);
        }
        self.drop_empty_list();
    }

    /// Takes note that a database is about to be emptied.
    pub(super) fn signal_flushed(&mut self, db: usize) {
        let Some(mut list) = self.watches.take() else { return };
        let table = self.table(db);
        list.retain(db, |key, watch| {
            let there = table.is_some_and(|table| table.get(key).is_some());
            !there || std::mem::take(&mut watch.was_expired)
        });
        self.watches = Some(list);
        self.drop_empty_list();
    }

    /// Takes note that what is in a database is about to be replaced by what is in another.
    pub(super) fn signal_swapped(&mut self, db: usize, other: usize, now_ms: i64) {
        let Some(mut list) = self.watches.take() else { return };
        let (before, after) = (self.table(db), self.table(other));
        let expired = |entry: Option<&Entry>| entry.is_some_and(|entry| entry.is_expired(now_ms));
        list.retain(db, |key, watch| {
            let old = before.and_then(|table| table.get(key));
            let new = after.and_then(|table| table.get(key));
            let was_absent = watch.was_expired || old.is_none();
            watch.was_expired = was_absent && expired(new);
            was_absent && (new.is_none() || expired(new))
        });
        self.watches = Some(list);
        self.drop_empty_list();
    }

    fn has_expired(&self, db: usize, key: HashedKey, now_ms: i64) -> bool {
        let entry = self.table(db).and_then(|table| table.get(key));
        entry.is_some_and(|entry| entry.is_expired(now_ms))
    }

    fn drop_empty_list(&mut self) {
        if self.watches.as_ref().is_some_and(|list| list.keys.is_empty()) {
            self.watches = None;
        }
    }
}

impl Watch {
    fn is_of(&self, db: usize, watcher: &Arc<Watcher>) -> bool {
        self.db == db && Arc::ptr_eq(&self.watcher, watcher)
    }
}

#[cfg(test)]
mod tests {
    use super::super::value::{ByteString, Value};
    use super::*;

    const NOW: i64 = 1000;

    fn key(name: &str) -> HashedKey<'_> {
        HashedKey::new(name.as_bytes())
    }

    fn put(shard: &mut Shard, db: usize, name: &str, expires_at_ms: Option<i64>) {
        let entry = Entry::new(Value::String(ByteString::new(b"")), expires_at_ms);
        shard.insert(db, key(name), entry);
    }

    /// A shard in which the key is such in databases 0 and 1, and a watcher of it in database 0.
    fn watched(first: Option<Option<i64>>, second: Option<Option<i64>>) -> (Shard, Arc<Watcher>) {
        let (mut shard, watcher) = (Shard::default(), Arc::default());
        for (db, expires_at_ms) in [first, second].into_iter().enumerate() {
            expires_at_ms
                .into_iter()
                .for_each(|expires_at_ms| put(&mut shard, db, "k", expires_at_ms));
        }
        assert!(shard.watch(0, key("k"), &watcher, NOW));
        (shard, watcher)
    }

    const ABSENT: Option<Option<i64>> = None;
    const LIVE: Option<Option<i64>> = Some(None);
    const EXPIRED: Option<Option<i64>> = Some(Some(NOW - 1));

    #[test]
    fn who_no_longer_watches_leaves_nothing_behind() {
        let (mut shard, one) = watched(LIVE, ABSENT);
        let other = Arc::default();
        assert!(shard.watch(0, key("k"), &other, NOW) && shard.watch(1, key("k"), &one, NOW));
        assert!(!shard.watch(0, key("k"), &one, NOW), "it watches that already");
        shard.unwatch(0, key("k"), &one);
        shard.unwatch(1, key("k"), &one);
        assert!(shard.watches.is_some(), "the other still watches");
        shard.signal_modified(0, key("k"));
        assert!(other.has_changed() && !one.has_changed());
        assert!(shard.watches.is_none(), "who was told need not be told again");
        assert_eq!((Arc::strong_count(&one), Arc::strong_count(&other)), (1, 1));
        shard.unwatch(0, key("k"), &other);
    }

    #[test]
    fn the_removal_of_what_had_expired_is_no_change_and_its_return_is() {
        let (mut shard, watcher) = watched(EXPIRED, ABSENT);
        shard.take_expired(NOW, usize::MAX);
        assert!(!watcher.has_changed());
        put(&mut shard, 0, "k", None);
        shard.signal_modified(0, key("k"));
        assert!(watcher.has_changed());
        // Overwritten before it was removed, it has changed as well.
        let (mut shard, watcher) = watched(EXPIRED, ABSENT);
        put(&mut shard, 0, "k", None);
        shard.signal_modified(0, key("k"));
        assert!(watcher.has_changed());
    }

    #[test]
    fn a_key_that_has_expired_since_has_changed_removed_or_not() {
        let (mut shard, watcher) = watched(Some(Some(NOW + 1)), ABSENT);
        assert!(!shard.has_expired_since(0, key("k"), &watcher, NOW + 1));
        assert!(shard.has_expired_since(0, key("k"), &watcher, NOW + 2));
        shard.take_expired(NOW + 2, usize::MAX);
        assert!(watcher.has_changed());
        let (shard, watcher) = watched(EXPIRED, ABSENT);
        assert!(!shard.has_expired_since(0, key("k"), &watcher, NOW + 2));
    }

    #[test]
    fn emptying_a_database_changes_the_keys_that_are_there() {
        for (state, changed) in [(LIVE, true), (ABSENT, false), (EXPIRED, false)] {
            let (mut shard, watcher) = watched(state, LIVE);
            shard.flush(1);
            assert!(!watcher.has_changed(), "another database");
            shard.flush(0);
            assert_eq!(watcher.has_changed(), changed, "{state:?}");
        }
    }

    #[test]
    fn exchanging_databases_changes_keys_unless_they_are_missing_before_and_after() {
        let states = [ABSENT, LIVE, EXPIRED];
        for (before, after) in states.into_iter().flat_map(|one| states.map(|two| (one, two))) {
            let (mut shard, watcher) = watched(before, after);
            shard.swap(0, 1, NOW);
            let changed = before == LIVE || after == LIVE;
            assert_eq!(watcher.has_changed(), changed, "{before:?} becomes {after:?}");
            if !changed {
                // What came with the exchange and had expired is removed unseen, too.
                shard.take_expired(NOW, usize::MAX);
                assert!(!watcher.has_changed(), "{before:?} becomes {after:?}");
                assert!(!shard.has_expired_since(0, key("k"), &watcher, NOW));
            }
        }
    }
}
