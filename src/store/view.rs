//! What a handler sees: the keys of its command, in shards that are already locked.
//!
//! A view is all that a handler gets of the keyspace. [`ReadView`] and [`WriteView`] are one type
//! over two kinds of guard: everything that reads is written once, and what changes exists only where
//! the guard allows it, so a command that is declared as a read and changes something does not
//! compile. Handlers cannot lock, and cannot reach a key that is not among those of their command.
//!
//! Expiry: a reader treats an expired key as absent, and so an expired field ([`LiveHash`]). A writer
//! that is about to change one in place removes it first, and the view remembers that, so that the log
//! says `DEL` or `HDEL` before it says what the command did. The clock is read at most once in the life
//! of a view, so a command sees one moment.
//!
//! Use: whoever looks at a key has used it at that second, which `OBJECT IDLETIME` tells; so everything
//! here that returns an entry or what is in it notes that, except [`View::peek`] and [`View::find`].

use std::cell::Cell;
use std::ops::Deref;
use std::sync::atomic::Ordering::Relaxed;

use super::hash::{Hash, PackedLimits};
use super::key::HashedKey;
use super::keyspace::{Exclusive, Keys, Keyspace, Shared};
use super::live::LiveHash;
use super::readers::{Readers, Stripe};
use super::shard::{Expired, Shard, Table, TimedHashes, WhatExpired};
use super::transaction::Transaction;
use super::value::{ByteString, Entry, StringOrigin, Value};
use crate::config::events::{Class, Event};

/// The key holds a value of another type than the command works on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WrongType;

/// What a lookup counts as.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// A use of the key; a hit or a miss if the command only reads.
    Use,
    /// A use, and a hit or a miss even if the command writes: for commands that answer what they find (GETEX,
    /// COPY).
    Answer,
    /// A hit or a miss if the command only reads, but no use (TYPE, EXISTS).
    Look,
    /// Nothing (MEMORY USAGE, DEBUG).
    Inspect,
}

/// Locked shards.
pub(super) enum Guards<G> {
    /// That of the only key of a command, whose hash is known.
    One { hash: u64, guard: G },
    /// Several, by ascending index.
    Many(Vec<(usize, G)>),
}

impl<G> Guards<G> {
    /// Those of the keys, each of which `lock` is asked for once, in ascending order.
    pub(super) fn of<'k>(mut keys: impl Keys<'k>, mut lock: impl FnMut(usize) -> G) -> Guards<G> {
        if keys.len() == 1
            && let Some(key) = keys.next()
        {
            let key = HashedKey::new(key);
            return Guards::One { hash: key.hash(), guard: lock(key.shard()) };
        }
        let mut shards: Vec<usize> = keys.map(|key| HashedKey::new(key).shard()).collect();
        shards.sort_unstable();
        shards.dedup();
        Guards::Many(shards.into_iter().map(|index| (index, lock(index))).collect())
    }
}

/// Keys in locked shards. See the module's opening words.
pub struct View<'a, G> {
    keyspace: &'a Keyspace,
    guards: Guards<G>,
    /// The database that the methods mean. `COPY` and `MOVE` change it for a moment: the shard of a
    /// key is the same in all databases.
    pub db: usize,
    now_ms: Cell<i64>,
    /// Whether every lookup counts: those of commands that only read do.
    reading: bool,
    /// Whether to look at a key counts as a use of it. Not with `CLIENT NO-TOUCH`.
    lru: bool,
    lookups: Cell<(u32, u32)>,
    /// What is left to do after the command. Most leave nothing, and pay for one pointer.
    aftermath: Option<Box<Aftermath>>,
}

/// What a command that only reads sees.
pub type ReadView<'a> = View<'a, Shared<'a>>;
/// What a command that may change its keys sees.
pub type WriteView<'a> = View<'a, Exclusive<'a>>;

/// What a command leaves to be done, beside its effect.
#[derive(Default)]
struct Aftermath {
    /// What had expired and was removed: `DEL`s and `HDEL`s for the log.
    expired: Vec<Expired>,
    /// What happened, for those who subscribe to events.
    events: Vec<Event>,
    /// Which keys have changed, for those who cache what they have read. (Those of `expired` are not
    /// among them.)
    changed: Vec<Box<[u8]>>,
    /// Keys that somebody watches or caches, whose value was handed out to be changed in place, which may
    /// or may not happen.
    handed_out: Vec<(usize, Vec<u8>)>,
    /// What takes long to free, to be dropped when the locks are gone.
    garbage: Garbage,
}

/// What was removed and takes long to free.
#[derive(Default)]
pub struct Garbage {
    values: Vec<Value>,
    databases: Vec<(Table, TimedHashes)>,
    readers: Vec<Stripe>,
}

impl Garbage {
    /// Whether there is nothing to free.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty() && self.databases.is_empty() && self.readers.is_empty()
    }

    /// Takes more of it.
    pub(super) fn extend(&mut self, mut more: Garbage) {
        self.values.append(&mut more.values);
        self.databases.append(&mut more.databases);
        self.readers.append(&mut more.readers);
    }

    /// All that a table of readers had.
    pub fn of(readers: &Readers) -> Garbage {
        Garbage { readers: readers.take_all(), ..Garbage::default() }
    }
}

impl<'a, G: Deref<Target = Shard>> View<'a, G> {
    pub(super) fn new(
        keyspace: &'a Keyspace,
        db: usize,
        guards: Guards<G>,
        reading: bool,
    ) -> View<'a, G> {
        let (now_ms, lookups) = (Cell::new(0), Cell::new((0, 0)));
        let (lru, aftermath) = (true, None);
        View { keyspace, guards, db, now_ms, reading, lru, lookups, aftermath }
    }

    /// How many keys were looked for and found, and how many not. What a writer looks for in order to
    /// change it does not count: that is Redis's rule.
    pub fn lookups(&self) -> (u32, u32) {
        self.lookups.get()
    }

    /// The same at a moment that is known.
    pub(super) fn at(self, now_ms: i64) -> View<'a, G> {
        self.now_ms.set(now_ms);
        self
    }

    /// The same, in which to look at a key counts as a use of it or not.
    pub fn with_lru(mut self, lru: bool) -> View<'a, G> {
        self.lru = lru;
        self
    }

    /// The moment of this command: Unix time in milliseconds.
    pub fn now_ms(&self) -> i64 {
        if self.now_ms.get() == 0 {
            self.now_ms.set(super::now_ms());
        }
        self.now_ms.get()
    }

    /// Whether something that is to expire then is gone at once. (Redis's rule: a key that is there
    /// stays through the millisecond of its deadline, one that is given this deadline does not.)
    pub fn has_passed(&self, expires_at_ms: i64) -> bool {
        self.keyspace.is_expiring() && expires_at_ms <= self.now_ms()
    }

    /// The highest log position of the shards: what the command may show is logged before it.
    pub fn last_lsn(&self) -> u64 {
        match &self.guards {
            Guards::One { guard, .. } => guard.last_lsn,
            Guards::Many(guards) => guards.iter().map(|(_, g)| g.last_lsn).max().unwrap_or(0),
        }
    }

    /// The entry of the key, unless it has expired. `access` says what the lookup counts as.
    pub fn get(&self, key: &[u8], access: Access) -> Option<&Entry> {
        let (shard, hashed) = self.locate(key);
        let found = shard.table(self.db).and_then(|table| table.get(hashed));
        let found = found.filter(|entry| !self.is_expired(entry));
        if access == Access::Answer || (self.reading && access != Access::Inspect) {
            let (hits, misses) = self.lookups.get();
            let hit = found.is_some();
            self.lookups.set((hits + u32::from(hit), misses + u32::from(!hit)));
        }
        if self.lru && matches!(access, Access::Use | Access::Answer) {
            found.inspect(|entry| entry.mark_used(self.keyspace.second()));
        }
        found
    }

    /// Whether the key has expired, and nobody has removed it yet.
    pub fn has_expired(&self, key: &[u8]) -> bool {
        let (shard, key) = self.locate(key);
        let entry = shard.table(self.db).and_then(|table| table.get(key));
        entry.is_some_and(|entry| self.is_expired(entry))
    }

    /// The seconds since the entry was last used.
    pub fn idle_seconds(&self, entry: &Entry) -> u32 {
        self.keyspace.second().saturating_sub(entry.used_at())
    }

    /// Whether the key is there.
    pub fn contains(&self, key: &[u8]) -> bool {
        self.get(key, Access::Use).is_some()
    }

    /// The string at the key.
    ///
    /// # Errors
    /// [`WrongType`] if it holds something else.
    pub fn string(&self, key: &[u8], access: Access) -> Result<Option<&[u8]>, WrongType> {
        match self.get(key, access).map(|entry| &entry.value) {
            None => Ok(None),
            Some(Value::String(bytes)) => Ok(Some(bytes)),
            Some(_) => Err(WrongType),
        }
    }

    /// The hash at the key.
    ///
    /// # Errors
    /// [`WrongType`] if it holds something else.
    pub fn hash(&self, key: &[u8]) -> Result<Option<LiveHash<'_>>, WrongType> {
        match self.get(key, Access::Use).map(|entry| &entry.value) {
            None => Ok(None),
            Some(Value::Hash(hash)) => {
                let expires = hash.is_timed() && self.keyspace.is_expiring();
                let now_ms = if expires { self.now_ms() } else { i64::MIN };
                Ok(Some(LiveHash::new(hash, now_ms)))
            }
            Some(_) => Err(WrongType),
        }
    }

    /// The longest string that may be stored.
    pub fn string_limit(&self) -> usize {
        match self.keyspace.is_expiring() {
            true => self.keyspace.config.proto_max_bulk_len.load(Relaxed) as usize,
            false => usize::MAX, // what the log has was once allowed
        }
    }

    fn is_expired(&self, entry: &Entry) -> bool {
        entry.can_expire() && self.keyspace.is_expiring() && entry.is_expired(self.now_ms())
    }

    fn hashed<'k>(&self, key: &'k [u8]) -> HashedKey<'k> {
        match self.guards {
            Guards::One { hash, .. } => HashedKey::with_hash(key, hash),
            Guards::Many(_) => HashedKey::new(key),
        }
    }

    fn locate<'k>(&self, key: &'k [u8]) -> (&Shard, HashedKey<'k>) {
        let key = self.hashed(key);
        match &self.guards {
            Guards::One { guard, .. } => (guard, key),
            Guards::Many(guards) => (&guards[place_of(guards, key)].1, key),
        }
    }
}

/// The place of a key's shard among those that are locked.
///
/// # Panics
/// If it is not among them: the row of the command does not name all of its keys.
fn place_of<G>(guards: &[(usize, G)], key: HashedKey) -> usize {
    let found = guards.binary_search_by_key(&key.shard(), |(index, _)| *index);
    found.unwrap_or_else(|_| unreachable!("a command may only use the keys that its row names"))
}

impl WriteView<'_> {
    /// The string at the key, to be changed in place.
    ///
    /// # Errors
    /// [`WrongType`] if it holds something else.
    pub fn string_mut(&mut self, key: &[u8]) -> Result<Option<&mut Vec<u8>>, WrongType> {
        let string = self.string_and_origin_mut(key)?;
        Ok(string.map(|(bytes, origin)| {
            *origin = StringOrigin::InPlace;
            bytes.to_mut()
        }))
    }

    /// As [`WriteView::string_mut`], for those who may leave the string as it is, or put another in its
    /// place: they say how it was written.
    ///
    /// # Errors
    /// [`WrongType`] if it holds something else.
    pub fn string_and_origin_mut(
        &mut self,
        key: &[u8],
    ) -> Result<Option<(&mut ByteString, &mut StringOrigin)>, WrongType> {
        if !self.is_live(key) {
            return Ok(None);
        }
        match self.entry_mut(key) {
            None => Ok(None),
            Some(Entry { value: Value::String(bytes), origin, .. }) => Ok(Some((bytes, origin))),
            Some(_) => Err(WrongType),
        }
    }

    /// Changes the hash at the key, if it is there, without the fields that have expired. If it is
    /// empty then, the key goes away.
    ///
    /// # Errors
    /// [`WrongType`] if it holds something else.
    pub fn edit_hash<T>(
        &mut self,
        key: &[u8],
        edit: impl FnOnce(&mut Hash) -> T,
    ) -> Result<Option<T>, WrongType> {
        if !self.is_live(key) {
            return Ok(None);
        }
        // If the hash has a field with a deadline, the clock has been read to know that it is live.
        let now_ms = if self.keyspace.is_expiring() { self.now_ms.get() } else { 0 };
        let hash = match self.entry_mut(key).map(|entry| &mut entry.value) {
            None => return Ok(None),
            Some(Value::Hash(hash)) => hash,
            Some(_) => return Err(WrongType),
        };
        let was_ms = hash.earliest_ms();
        let expired = match was_ms {
            Some(was_ms) if was_ms < now_ms => hash.take_expired(now_ms, usize::MAX),
            _ => Vec::new(),
        };
        let result = edit(hash);
        let (is_ms, is_empty) = (hash.earliest_ms(), hash.is_empty());
        let db = self.db;
        let (shard, hashed) = self.locate_mut(key);
        shard.relist(db, key, was_ms, is_ms);
        if !expired.is_empty() {
            shard.signal_modified(db, hashed);
            self.notify(Class::HASH, "hexpired", key);
            let what = WhatExpired::Fields(expired);
            self.aftermath().expired.push(Expired { db, key: key.into(), what });
        }
        self.keyspace.note_expiry(hashed.shard(), is_ms);
        if is_empty {
            let (shard, hashed) = self.locate_mut(key);
            let old = shard.remove(db, hashed);
            self.discard(old);
        }
        Ok(Some(result))
    }

    /// As [`WriteView::edit_hash`], with a new hash if the key is not there.
    ///
    /// # Errors
    /// [`WrongType`] if the key holds something else.
    pub fn edit_or_make_hash<T>(
        &mut self,
        key: &[u8],
        edit: impl FnOnce(&mut Hash) -> T,
    ) -> Result<T, WrongType> {
        if !self.contains(key) {
            self.insert(key, Value::Hash(Box::default()), None);
        }
        self.edit_hash(key, edit)?.ok_or(WrongType)
    }

    /// Lets the key hold the value until the deadline, whatever it held before. If that had expired,
    /// the log must say so first: a command that is logged as received and did this because the key
    /// was not there (SETNX) would find it when it is replayed, where nothing expires by itself.
    pub fn insert(&mut self, key: &[u8], value: Value, expires_at_ms: Option<i64>) {
        self.insert_entry(key, Entry::new(value, expires_at_ms));
    }

    /// As [`WriteView::insert`], for an entry that was elsewhere before.
    pub fn insert_entry(&mut self, key: &[u8], entry: Entry) {
        self.notify_insertion(key);
        let (db, expires_at_ms) = (self.db, entry.expires_at_ms());
        entry.mark_used(self.keyspace.second());
        let (shard, hashed) = self.locate_mut(key);
        let earliest_field_ms = entry.earliest_field_ms();
        let old = shard.insert(db, hashed, entry);
        shard.signal_modified(db, hashed);
        self.note_change(key);
        self.keyspace.note_expiry(hashed.shard(), earliest_field_ms);
        self.replaced(hashed, old, expires_at_ms);
    }

    /// As [`WriteView::insert`], for a string: see [`Table::insert_string`].
    pub fn insert_string(&mut self, key: &[u8], value: &[u8], expires_at_ms: Option<i64>) {
        self.notify_insertion(key);
        let (db, second) = (self.db, self.keyspace.second());
        let (shard, hashed) = self.locate_mut(key);
        let old = shard.insert_string(db, hashed, value, expires_at_ms, second);
        shard.signal_modified(db, hashed);
        self.note_change(key);
        self.replaced(hashed, old, expires_at_ms);
    }

    /// Takes note of what the key held before, and of when it expires now.
    fn replaced(&mut self, key: HashedKey, old: Option<Entry>, expires_at_ms: Option<i64>) {
        self.keyspace.note_expiry(key.shard(), expires_at_ms);
        if let Some(old) = old.as_ref().filter(|old| self.is_expired(old)) {
            let (db, what) = (self.db, WhatExpired::of(old, self.now_ms()));
            self.aftermath().expired.push(Expired { db, key: key.bytes().into(), what });
        }
        self.discard(old);
    }

    /// Removes the key; says whether it was there.
    pub fn remove(&mut self, key: &[u8]) -> bool {
        let old = self.take(key);
        let found = old.is_some();
        self.discard(old);
        found
    }

    /// Removes the key and returns what it held.
    pub fn take(&mut self, key: &[u8]) -> Option<Entry> {
        if !self.is_live(key) {
            return None;
        }
        let db = self.db;
        let (shard, hashed) = self.locate_mut(key);
        let entry = shard.remove(db, hashed);
        shard.signal_modified(db, hashed);
        self.note_change(key);
        entry
    }

    /// Removes the key if it has expired. Who only reads a key that it was given to write, and whose
    /// record is to give the same when it is replayed, where nothing expires, lets the log say so.
    pub fn remove_if_expired(&mut self, key: &[u8]) {
        self.is_live(key);
    }

    /// Lets the key, if it is there, expire at the deadline, or never.
    pub fn set_expires_at_ms(&mut self, key: &[u8], expires_at_ms: Option<i64>) {
        let db = self.db;
        let (shard, hashed) = self.locate_mut(key);
        shard.set_expires_at_ms(db, hashed, expires_at_ms);
        shard.signal_modified(db, hashed);
        self.note_change(key);
        self.keyspace.note_expiry(hashed.shard(), expires_at_ms);
    }

    /// When a hash is small enough for its compact form.
    pub fn packed_limits(&self) -> PackedLimits {
        let config = &self.keyspace.config;
        PackedLimits {
            entries: config.hash_max_listpack_entries.load(Relaxed) as usize,
            value_bytes: config.hash_max_listpack_value.load(Relaxed) as usize,
        }
    }

    /// The longest sparse form of a HyperLogLog.
    pub fn hll_sparse_limit(&self) -> usize {
        self.keyspace.config.hll_sparse_max_bytes.load(Relaxed) as usize
    }

    /// The number of databases.
    pub fn database_count(&self) -> usize {
        self.keyspace.config.database_count()
    }

    /// What had expired and was removed.
    pub fn take_expired(&mut self) -> Vec<Expired> {
        let expired = |aftermath: &mut Box<Aftermath>| std::mem::take(&mut aftermath.expired);
        self.aftermath.as_mut().map(expired).unwrap_or_default()
    }

    /// Takes note of what happened to a key, if events of that class are wanted.
    #[inline(always)]
    pub fn notify(&mut self, class: Class, name: &'static str, key: &[u8]) {
        if self.keyspace.config.notify_keyspace_events.has(class) {
            self.note_event(name, key);
        }
    }

    #[cold]
    fn note_event(&mut self, name: &'static str, key: &[u8]) {
        let event = Event { db: self.db, key: key.into(), name };
        self.aftermath().events.push(event);
    }

    /// Takes note that the key, which was just read, is not there, if it is not. (A command that only
    /// reads need not say so.)
    #[inline(always)]
    pub fn notify_if_missing(&mut self, key: &[u8]) {
        if self.keyspace.config.notify_keyspace_events.has(Class::KEY_MISS) && !self.is_live(key) {
            self.note_event("keymiss", key);
        }
    }

    /// Takes note of an event of a hash, and that it went away with its last field, if it did.
    pub fn notify_removal(&mut self, name: &'static str, key: &[u8]) {
        self.notify(Class::HASH, name, key);
        if self.get(key, Access::Look).is_none() {
            self.notify(Class::GENERIC, "del", key);
        }
    }

    /// Something is about to be put at the key: what expired there is told first, then that it is new.
    #[inline(always)]
    fn notify_insertion(&mut self, key: &[u8]) {
        let wanted = &self.keyspace.config.notify_keyspace_events;
        if wanted.has(Class::NEW.or(Class::EXPIRED).or(Class::HASH)) {
            self.note_insertion(key);
        }
    }

    #[cold]
    fn note_insertion(&mut self, key: &[u8]) {
        if !self.is_live(key) {
            self.notify(Class::NEW, "new", key);
        }
    }

    fn notify_expired(&mut self, key: &[u8], what: &WhatExpired) {
        let wanted = &self.keyspace.config.notify_keyspace_events;
        let names = what.events().iter().filter(|(class, _)| wanted.has(*class));
        names.for_each(|(_, name)| self.note_event(name, key));
    }

    /// What happened and was wanted, in that order.
    pub fn take_events(&mut self) -> Vec<Event> {
        let events = |aftermath: &mut Box<Aftermath>| std::mem::take(&mut aftermath.events);
        self.aftermath.as_mut().map(events).unwrap_or_default()
    }

    /// Takes note that the log has everything about these shards up to that position.
    pub fn logged(&mut self, position: u64) {
        match &mut self.guards {
            Guards::One { guard, .. } => guard.logged(position),
            Guards::Many(guards) => guards.iter_mut().for_each(|(_, guard)| guard.logged(position)),
        }
    }

    /// Takes note that the command has changed something: what it was handed out to change in place.
    pub fn changed(&mut self) {
        let Some(aftermath) = &mut self.aftermath else { return };
        for (db, key) in std::mem::take(&mut aftermath.handed_out) {
            let (shard, hashed) = self.locate_mut(&key);
            shard.signal_modified(db, hashed);
            self.note_change(&key);
        }
    }

    /// Takes note that a key has changed, if anybody caches what he has read.
    #[inline(always)]
    fn note_change(&mut self, key: &[u8]) {
        if self.keyspace.is_cached() {
            self.aftermath().changed.push(key.into());
        }
    }

    /// Which keys have changed, if anybody caches.
    pub fn take_changed(&mut self) -> Vec<Box<[u8]>> {
        let changed = |aftermath: &mut Box<Aftermath>| std::mem::take(&mut aftermath.changed);
        self.aftermath.as_mut().map(changed).unwrap_or_default()
    }

    /// Unlocks; what comes back, if anything does, takes long to free.
    pub fn unlock(self) -> Option<Garbage> {
        self.aftermath.map(|aftermath| aftermath.garbage)
    }

    fn aftermath(&mut self) -> &mut Aftermath {
        self.aftermath.get_or_insert_default()
    }

    fn discard(&mut self, old: Option<Entry>) {
        if let Some(old) = old.filter(|old| old.value.is_costly_to_drop()) {
            self.aftermath().garbage.values.push(old.value);
        }
    }

    /// Whether the key is there. If it has expired it is removed.
    fn is_live(&mut self, key: &[u8]) -> bool {
        let (shard, hashed) = self.locate(key);
        let Some(entry) = shard.table(self.db).and_then(|table| table.get(hashed)) else {
            return false;
        };
        if !self.is_expired(entry) {
            return true;
        }
        let db = self.db;
        let what = WhatExpired::of(entry, self.now_ms());
        let (shard, hashed) = self.locate_mut(key);
        let old = shard.remove(db, hashed);
        shard.signal_modified(db, hashed);
        self.discard(old);
        self.notify_expired(key, &what);
        self.aftermath().expired.push(Expired { db, key: key.into(), what });
        false
    }

    /// The entry, expired or not.
    fn entry_mut(&mut self, key: &[u8]) -> Option<&mut Entry> {
        let (db, lru, second) = (self.db, self.lru, self.keyspace.second());
        if self.locate(key).0.watches.is_some() || self.keyspace.is_cached() {
            self.aftermath().handed_out.push((db, key.to_vec()));
        }
        let (shard, key) = self.locate_mut(key);
        let entry = shard.table_mut(db).get_mut(key)?;
        if lru {
            entry.mark_used(second);
        }
        Some(entry)
    }

    fn locate_mut<'k>(&mut self, key: &'k [u8]) -> (&mut Shard, HashedKey<'k>) {
        let key = self.hashed(key);
        match &mut self.guards {
            Guards::One { guard, .. } => (guard, key),
            Guards::Many(guards) => {
                let place = place_of(guards, key);
                (&mut guards[place].1, key)
            }
        }
    }
}

/// What a command sees that reads the whole keyspace: one shard after the other, never all at once.
pub struct ReadAll<'a> {
    keyspace: &'a Keyspace,
    /// The database that the command means.
    pub db: usize,
    now_ms: i64,
    last_lsn: Cell<u64>,
    /// The transaction that has all shards locked already.
    transaction: Option<&'a Transaction<'a>>,
}

impl<'a> ReadAll<'a> {
    /// The whole keyspace.
    pub fn new(keyspace: &'a Keyspace, db: usize) -> ReadAll<'a> {
        let (now_ms, last_lsn) = (super::now_ms(), Cell::new(0));
        ReadAll { keyspace, db, now_ms, last_lsn, transaction: None }
    }

    pub(super) fn within(
        keyspace: &'a Keyspace,
        transaction: &'a Transaction<'a>,
        db: usize,
    ) -> ReadAll<'a> {
        let (now_ms, last_lsn) = (transaction.now_ms(), Cell::new(0));
        ReadAll { keyspace, db, now_ms, last_lsn, transaction: Some(transaction) }
    }

    /// The highest log position of what was visited.
    pub fn last_lsn(&self) -> u64 {
        self.last_lsn.get()
    }

    /// Shows the database's part of every shard, from the shard of that number on, with the shard's
    /// number, until the visitor returns false.
    pub fn visit(&self, first: usize, mut visitor: impl FnMut(usize, &Table) -> bool) {
        self.visit_shards(first, |index, shard| {
            shard.table(self.db).is_none_or(|table| visitor(index, table))
        });
    }

    /// Shows the parts of all databases of every shard, with the numbers of the databases.
    pub fn visit_databases(&self, mut visitor: impl FnMut(usize, &Table)) {
        self.visit_shards(0, |_, shard| {
            let databases = 0..shard.databases();
            databases.for_each(|db| shard.table(db).iter().for_each(|table| visitor(db, table)));
            true
        });
    }

    fn visit_shards(&self, first: usize, visitor: impl FnMut(usize, &Shard) -> bool) {
        let seen = match self.transaction {
            Some(transaction) => transaction.visit(first, visitor),
            None => self.keyspace.visit(first, visitor),
        };
        self.last_lsn.set(self.last_lsn.get().max(seen));
    }

    /// The moment of this command: Unix time in milliseconds.
    pub fn now_ms(&self) -> i64 {
        self.now_ms
    }

    /// Whether the entry is there at the moment of this command.
    pub fn is_live(&self, entry: &Entry) -> bool {
        !entry.is_expired(self.now_ms)
    }
}

/// What a command sees that changes the whole keyspace: every shard, locked as soon as it begins to.
pub struct WriteAll<'a> {
    keyspace: &'a Keyspace,
    shards: Vec<Exclusive<'a>>,
    /// The database that the command means.
    pub db: usize,
    garbage: Garbage,
    /// No key need be what it was.
    has_replaced: bool,
}

impl<'a> WriteAll<'a> {
    /// The whole keyspace, not locked yet.
    pub fn new(keyspace: &'a Keyspace, db: usize) -> WriteAll<'a> {
        WriteAll::within(keyspace, Vec::new(), db)
    }

    /// The same with all shards, locked already.
    pub(super) fn within(
        keyspace: &'a Keyspace,
        shards: Vec<Exclusive<'a>>,
        db: usize,
    ) -> WriteAll<'a> {
        WriteAll { keyspace, shards, db, garbage: Garbage::default(), has_replaced: false }
    }

    /// All shards, locked from now on.
    fn locked(&mut self) -> &mut [Exclusive<'a>] {
        if self.shards.is_empty() {
            self.shards = self.keyspace.write_all();
        }
        &mut self.shards
    }

    /// The number of databases.
    pub fn database_count(&self) -> usize {
        self.keyspace.config.database_count()
    }

    /// Empties the database that the command means.
    pub fn flush(&mut self) {
        self.has_replaced = true;
        let db = self.db;
        let databases: Vec<_> = self.locked().iter_mut().map(|shard| shard.flush(db)).collect();
        self.garbage.databases.extend(databases.into_iter().filter(|(table, _)| !table.is_empty()));
    }

    /// Empties all databases.
    pub fn flush_all(&mut self) {
        self.has_replaced = true;
        self.locked();
        for shard in &mut self.shards {
            let databases = (0..shard.databases()).map(|db| shard.flush(db));
            self.garbage.databases.extend(databases.filter(|(table, _)| !table.is_empty()));
        }
    }

    /// Locks everything now: nobody else uses any key until this is dropped.
    pub fn stop(&mut self) {
        self.locked();
    }

    /// Takes over all keys of all databases of another keyspace, and gives up what there was.
    pub fn take_over(&mut self, other: &Keyspace) {
        self.locked();
        for (index, mut theirs) in other.write_all().into_iter().enumerate() {
            self.keyspace.note_expiry(index, other.earliest_expiry_ms(index));
            let old = self.shards[index].take_over(&mut theirs);
            self.garbage.databases.extend(old.into_iter().filter(|(table, _)| !table.is_empty()));
        }
    }

    /// Exchanges two databases.
    pub fn swap(&mut self, one: usize, other: usize) {
        self.has_replaced = one != other;
        let now_ms = super::now_ms();
        self.locked().iter_mut().for_each(|shard| shard.swap(one, other, now_ms));
    }

    /// Whether whole databases have been emptied or exchanged.
    pub fn has_replaced(&self) -> bool {
        self.has_replaced
    }

    /// The highest log position of the shards.
    pub fn last_lsn(&self) -> u64 {
        self.shards.iter().map(|shard| shard.last_lsn).max().unwrap_or(0)
    }

    /// Takes note that the log has everything up to that position.
    pub fn logged(&mut self, position: u64) {
        self.shards.iter_mut().for_each(|shard| shard.logged(position));
    }

    /// Unlocks; what comes back takes long to free.
    pub fn unlock(self) -> Garbage {
        self.garbage
    }
}
