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
    pub(super) fn touch(&mut self, db: usize, key: HashedKey) {
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
    pub(super) fn touch_all(&mut self, db: usize) {
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
    pub(super) fn touch_replaced(&mut self, db: usize, other: usize, now_ms: i64) {
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
