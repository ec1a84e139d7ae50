//! What a handler sees: the keys of its command, in shards that are locked already.
//!
//! A view is all that a handler gets of the keyspace. [`ReadView`] and [`WriteView`] are one type over two
//! kinds of guard: methods that read are written once, and methods that change something exist only where the
//! guard allows it. So a command that is declared as a read but changes something does not compile. Handlers
//! cannot lock. One that uses a key outside its locks panics, which ends the process if it could write.
//!
//! Expiry: an expired key is absent to every command, and an expired field shows its value to none. A reader
//! skips them ([`LiveHash`]); a writer that meets an expired key removes it, and one that would read an
//! expired field removes that. The view remembers what was removed, so that the log gets a `DEL` or `HDEL`
//! before the record of the command. Other expired fields stay until the sweeper removes them, and count as
//! fields until then, as in Redis 8: HLEN and HDEL count them, and a hash of nothing else exists. The clock
//! is read at most once in the life of a view, so a command sees a single point in time.
//!
//! Every lookup says with [`Access`] what it counts as.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::sync::atomic::Ordering::Relaxed;

use super::aftermath::{Aftermath, Changes, Event};
use super::environment::Environment;
use super::guard::{Exclusive, Guard, Guards, Shared, place_of};
use super::hash::{Hash, PackedLimits};
use super::key::HashedKey;
use super::live::LiveHash;
use super::shard::{Cause, Removal, Shard};
use super::table::{Removed, Spot, StringMut};
use super::usage::Usage;
use super::value::{Entry, EntryRef, Value, ValueRef, WrongType};
use crate::config::Config;
use crate::config::events::EventClass;

/// What a lookup counts as.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// A use of the key; a hit or a miss if the command only reads.
    Use,
    /// A use, and a hit or a miss even if the command writes: for commands that answer what they find
    /// (GETEX, COPY).
    Answer,
    /// A hit or a miss if the command only reads, but no use (TYPE, EXISTS).
    NoTouch,
    /// The same, but a miss is no `keymiss` event (OBJECT).
    NoEvent,
    /// Nothing (MEMORY USAGE, DEBUG).
    Silent,
}

/// Keys in locked shards.
pub struct View<'a, G> {
    env: &'a Environment,
    guards: Guards<'a, G>,
    /// The database that the methods refer to. `COPY` and `MOVE` change it temporarily, which works because
    /// a key has the same shard in all databases.
    pub db: usize,
    /// Unix time in milliseconds; 0 until it is first needed.
    now_ms: Cell<i64>,
    /// Whether a lookup may count as a use of the key. Not with `CLIENT NO-TOUCH`.
    touches: bool,
    /// The log is being replayed, and nothing expires by itself: a key that has expired by now may get a
    /// later expiry time further on in the log, and a key that did expire has a `DEL` there.
    replaying: bool,
    lookups: Cell<(u32, u32)>,
    /// Boxed, because most commands leave nothing.
    changes: Cell<Option<Box<Changes>>>,
}

/// The classes of [`WriteView::notify_overwritten`].
const OVERWRITES: EventClass = EventClass::OVERWRITTEN.or(EventClass::TYPE_CHANGED);

/// What a command that only reads sees.
pub type ReadView<'a> = View<'a, Shared<'a>>;
/// What a command that may change its keys sees.
pub type WriteView<'a> = View<'a, Exclusive<'a>>;

impl<'a, G: Guard> View<'a, G> {
    pub(super) fn new(env: &'a Environment, db: usize, guards: Guards<'a, G>) -> View<'a, G> {
        let (now_ms, lookups, changes) = (Cell::new(0), Cell::new((0, 0)), Cell::new(None));
        View { env, guards, db, now_ms, touches: true, replaying: false, lookups, changes }
    }

    /// Sets the time that the command sees.
    pub(super) fn at(self, now_ms: i64) -> View<'a, G> {
        self.now_ms.set(now_ms);
        self
    }

    /// Sets whether a lookup may count as a use of the key. With an LRM policy none does.
    #[inline(always)]
    pub fn touching(self, touches: bool) -> View<'a, G> {
        View { touches: touches && !self.env.config.ignores_reads(), ..self }
    }

    /// Sets whether the log is being replayed.
    #[inline(always)]
    pub fn replaying(self, replaying: bool) -> View<'a, G> {
        View { replaying, ..self }
    }

    /// The time that the command sees: Unix time in milliseconds.
    pub fn now_ms(&self) -> i64 {
        if self.now_ms.get() == 0 {
            self.now_ms.set(self.env.now_ms());
        }
        self.now_ms.get()
    }

    /// The milliseconds until that time; 0 if it has passed.
    pub fn left_ms(&self, expires_at_ms: i64) -> i64 {
        expires_at_ms.saturating_sub(self.now_ms()).max(0)
    }

    /// Whether a key that is given this expiry time is deleted at once. (Redis's rule: a key still exists in
    /// the millisecond of its expiry time, but a key whose expiry time is set to the current millisecond is
    /// deleted.)
    pub fn has_passed(&self, expires_at_ms: i64) -> bool {
        !self.replaying && expires_at_ms <= self.now_ms()
    }

    /// Whether the log is being replayed, or what a master sends is executed.
    pub fn is_replaying(&self) -> bool {
        self.replaying
    }

    /// A field whose expiry lies before this moment has expired: now, or in a replay, where nothing expires
    /// by itself, the beginning of time.
    pub fn fields_live_from_ms(&self) -> i64 {
        if self.replaying { i64::MIN } else { self.now_ms() }
    }

    /// The highest LSN of the shards: every change that the command can see is in the log up to there.
    pub fn last_lsn(&self) -> u64 {
        match &self.guards {
            Guards::One { guard, .. } => guard.last_lsn,
            Guards::Many(guards) => guards.iter().map(|(_, g)| g.last_lsn).max().unwrap_or(0),
        }
    }

    /// The entry of the key, unless it has expired. `access` says what the lookup counts as.
    pub fn get(&self, key: &[u8], access: Access) -> Option<EntryRef<'_>> {
        let (shard, hashed) = self.locate(key);
        let held = shard.table(self.db).and_then(|table| table.get(hashed));
        let found = held.filter(|entry| !self.is_expired(*entry));
        if access == Access::Answer || (G::READS_ONLY && access != Access::Silent) {
            let (hits, misses) = self.lookups.get();
            let hit = found.is_some();
            self.lookups.set((hits + u32::from(hit), misses + u32::from(!hit)));
            if G::READS_ONLY && !hit {
                self.note_miss(key, access);
            }
        }
        if found.is_none() && held.is_some() && !(G::READS_ONLY && access == Access::Silent) {
            self.note_expired(key);
        }
        if self.touches && matches!(access, Access::Use | Access::Answer) {
            found.inspect(|entry| entry.mark_used(self.env.usage()));
        }
        found
    }

    /// The memory that the key takes, in bytes; see [`Table::key_bytes`](super::table::Table::key_bytes).
    pub fn key_bytes(&self, key: &[u8]) -> Option<usize> {
        self.get(key, Access::Silent)?;
        let (shard, hashed) = self.locate(key);
        shard.table(self.db)?.key_bytes(hashed)
    }

    /// Records that a read did not find the key.
    #[inline]
    fn note_miss(&self, key: &[u8], access: Access) {
        let wanted = &self.env.config.notify_keyspace_events;
        if access != Access::NoEvent && wanted.has(EventClass::KEY_MISS) {
            let mut changes = self.changes.take().unwrap_or_default();
            changes.events.push(Event { db: self.db, key: key.into(), name: "keymiss" });
            self.changes.set(Some(changes));
        }
    }

    /// Records that the key has expired and is not removed yet.
    #[cold]
    fn note_expired(&self, key: &[u8]) {
        let mut changes = self.changes.take().unwrap_or_default();
        changes.found_expired.push((self.db, key.into()));
        self.changes.set(Some(changes));
    }

    /// The keys that the command has found expired, with their databases.
    #[inline(always)]
    pub fn found_expired(&self) -> Vec<(usize, Box<[u8]>)> {
        let Some(changes) = self.changes.take() else { return Vec::new() };
        let found = changes.found_expired.clone();
        self.changes.set(Some(changes));
        found
    }

    /// The settings.
    pub fn config(&self) -> &'a Config {
        &self.env.config
    }

    /// How to read [`Entry::usage`].
    pub fn usage(&self) -> Usage {
        self.env.usage()
    }

    /// Whether the key exists.
    pub fn contains(&self, key: &[u8]) -> bool {
        self.get(key, Access::Use).is_some()
    }

    /// The string at the key.
    ///
    /// # Errors
    /// [`WrongType`] if it holds something else.
    pub fn string(&self, key: &[u8], access: Access) -> Result<Option<&[u8]>, WrongType> {
        match self.get(key, access).map(|entry| entry.value) {
            None => Ok(None),
            Some(ValueRef::String(bytes)) => Ok(Some(bytes)),
            Some(_) => Err(WrongType),
        }
    }

    /// The hash at the key.
    ///
    /// # Errors
    /// [`WrongType`] if it holds something else.
    pub fn hash(&self, key: &[u8]) -> Result<Option<LiveHash<'_>>, WrongType> {
        match self.get(key, Access::Use).map(|entry| entry.value) {
            None => Ok(None),
            Some(ValueRef::Hash(hash)) => {
                let expires = hash.is_timed() && !self.replaying;
                let now_ms = if expires { self.now_ms() } else { i64::MIN };
                Ok(Some(LiveHash::new(hash, now_ms)))
            }
            Some(_) => Err(WrongType),
        }
    }

    /// The longest string that may be stored, in bytes.
    pub fn string_limit(&self) -> usize {
        if self.replaying {
            return usize::MAX; // the length was allowed when it was logged
        }
        self.env.config.proto_max_bulk_len.load(Relaxed) as usize
    }

    fn is_expired(&self, entry: EntryRef) -> bool {
        entry.is_volatile() && !self.replaying && entry.is_expired(self.now_ms())
    }

    /// Takes what is left to do after the command.
    #[inline(always)]
    pub fn finish(&self) -> Aftermath {
        Aftermath { lookups: self.lookups.get(), changes: self.changes.take() }
    }

    fn hashed<'k>(&self, key: &'k [u8]) -> HashedKey<'k> {
        match &self.guards {
            Guards::One { key: declared, .. } => declared.renamed(key),
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

impl WriteView<'_> {
    /// The string at the key, to be changed in place.
    ///
    /// # Errors
    /// [`WrongType`] if it holds something else.
    pub fn string_mut(&mut self, key: &[u8]) -> Result<Option<StringMut<'_>>, WrongType> {
        let Some(spot) = self.lend(key) else { return Ok(None) };
        let db = self.db;
        self.locate_mut(key).0.table_mut(db).string_mut(spot).map(Some)
    }

    /// Calls `edit` with the hash at the key, if the key exists. If the hash is empty afterwards, the key is
    /// deleted. `edit` sees expired fields too.
    ///
    /// # Errors
    /// [`WrongType`] if it holds something else.
    pub fn edit_hash<T>(
        &mut self,
        key: &[u8],
        edit: impl FnOnce(&mut Hash) -> T,
    ) -> Result<Option<T>, WrongType> {
        let Some(spot) = self.lend(key) else { return Ok(None) };
        let db = self.db;
        let (shard, hashed) = self.locate_mut(key);
        let (result, old_ms, new_ms, is_empty) = shard.table_mut(db).edit_hash(spot, |hash| {
            let old_ms = hash.earliest_ms();
            let result = edit(hash);
            (result, old_ms, hash.earliest_ms(), hash.is_empty())
        })?;
        shard.relist(db, key, old_ms, new_ms);
        self.env.note_expiry(hashed.shard(), new_ms);
        if is_empty {
            let (shard, hashed) = self.locate_mut(key);
            let old = shard.remove(db, hashed);
            old.into_iter().for_each(|old| self.discard(old));
        }
        Ok(Some(result))
    }

    /// Like [`WriteView::edit_hash`], with a new hash if the key does not exist.
    ///
    /// # Errors
    /// [`WrongType`] if the key holds something else.
    pub fn edit_or_make_hash<T>(
        &mut self,
        key: &[u8],
        edit: impl FnOnce(&mut Hash) -> T,
    ) -> Result<T, WrongType> {
        if self.contains(key) {
            return self.edit_hash(key, edit)?.ok_or(WrongType); // the key exists: never None
        }
        let mut hash = Hash::new();
        let result = edit(&mut hash);
        let is_empty = hash.is_empty();
        self.insert(key, Value::Hash(hash), None);
        if is_empty {
            // It counts as made and deleted: its fields had expired when they were set.
            let db = self.db;
            let (shard, hashed) = self.locate_mut(key);
            shard.remove(db, hashed);
        }
        Ok(result)
    }

    /// Removes those of these fields of the hash at the key that have expired. For a command that reads them
    /// and may be logged verbatim: a replay, where nothing expires by itself, must find them absent too.
    ///
    /// # Errors
    /// [`WrongType`] if the key holds something else.
    pub fn remove_expired_fields<'f>(
        &mut self,
        key: &[u8],
        names: impl Iterator<Item = &'f [u8]>,
    ) -> Result<(), WrongType> {
        let Some(hash) = self.hash(key)? else { return Ok(()) };
        let expired: BTreeSet<Box<[u8]>> =
            names.filter(|name| hash.has_expired(name)).map(Into::into).collect();
        if expired.is_empty() {
            return Ok(());
        }
        let is_gone = self.edit_hash(key, |hash| {
            expired.iter().for_each(|name| _ = hash.remove(name));
            hash.is_empty()
        })?;
        let cause = match is_gone {
            Some(true) => Cause::LastFieldsExpired(expired.len()),
            _ => Cause::FieldsExpired(expired.into_iter().collect()),
        };
        let db = self.db;
        let (shard, hashed) = self.locate_mut(key);
        shard.signal_modified(db, hashed);
        self.notify_expired(key, &cause);
        self.changes().expired.push(Removal { db, key: key.into(), cause });
        Ok(())
    }

    /// Sets the key to the value, with that expiry time or none. If it held a value that had expired, the log
    /// gets a `DEL` first: otherwise a command that is logged verbatim and succeeded because the key was
    /// absent (SETNX) would find the key during a replay, where nothing expires by itself.
    pub fn insert(&mut self, key: &[u8], value: Value, expires_at_ms: Option<i64>) {
        self.insert_entry(key, Entry::new(value, expires_at_ms));
    }

    /// Like [`WriteView::insert`], for an entry that was taken from another place.
    pub fn insert_entry(&mut self, key: &[u8], entry: Entry) {
        self.notify_insertion(key, entry.value.type_name());
        let (db, expires_at_ms) = (self.db, entry.expires_at_ms());
        let usage = self.env.usage();
        let (shard, hashed) = self.locate_mut(key);
        let earliest_field_ms = entry.view().earliest_field_ms();
        let old = shard.insert(db, hashed, entry, usage);
        shard.signal_modified(db, hashed);
        self.note_change(key);
        self.env.note_expiry(hashed.shard(), earliest_field_ms);
        self.replaced(hashed, old, expires_at_ms);
    }

    /// Like [`WriteView::insert`], for a string, which may reuse the memory of the old one.
    pub fn insert_string(&mut self, key: &[u8], value: &[u8], expires_at_ms: Option<i64>) {
        self.notify_insertion(key, Value::STRING);
        let (db, usage) = (self.db, self.env.usage());
        let (shard, hashed) = self.locate_mut(key);
        let old = shard.insert_string(db, hashed, value, expires_at_ms, usage);
        shard.signal_modified(db, hashed);
        self.note_change(key);
        self.replaced(hashed, old, expires_at_ms);
    }

    /// Records what the key held before and when it expires now.
    fn replaced(&mut self, key: HashedKey, old: Option<Removed>, expires_at_ms: Option<i64>) {
        self.env.note_expiry(key.shard(), expires_at_ms);
        let Some(old) = old else { return };
        if old.expires_at_ms.is_some() && !self.replaying && old.is_expired(self.now_ms()) {
            self.note_removal_of_expired(key.bytes());
        }
        self.discard(old);
    }

    /// Deletes the key. Returns whether it existed.
    pub fn remove(&mut self, key: &[u8]) -> bool {
        self.remove_by(key, Shard::remove).map(|old| self.discard(old)).is_some()
    }

    /// Deletes the key and returns its entry.
    pub fn take(&mut self, key: &[u8]) -> Option<Entry> {
        self.remove_by(key, Shard::take)
    }

    fn remove_by<T>(
        &mut self,
        key: &[u8],
        remove: impl FnOnce(&mut Shard, usize, HashedKey) -> Option<T>,
    ) -> Option<T> {
        if !self.is_live(key) {
            return None;
        }
        let db = self.db;
        let (shard, hashed) = self.locate_mut(key);
        let removed = remove(shard, db, hashed);
        shard.signal_modified(db, hashed);
        self.note_change(key);
        removed
    }

    /// Removes the key if it has expired. For a command that only reads this key but is logged verbatim: a
    /// replay, where nothing expires by itself, must find the key absent too.
    pub fn remove_if_expired(&mut self, key: &[u8]) {
        self.is_live(key);
    }

    /// Makes the key, if it exists, look as if it had not been used for so many seconds.
    pub fn set_idle(&mut self, key: &[u8], seconds: u64) {
        let usage = self.env.usage();
        self.get(key, Access::Silent).inspect(|entry| entry.set_usage(usage.idle_for(seconds)));
    }

    /// Sets the counter of the key's uses, if the key exists and uses are counted.
    pub fn set_frequency(&mut self, key: &[u8], counter: u8) {
        let usage = self.env.usage();
        let entry = self.get(key, Access::Silent);
        entry.inspect(|entry| entry.set_usage(usage.with_frequency(counter)));
    }

    /// Sets the expiry time of the key, if it exists, or removes it.
    pub fn set_expires_at_ms(&mut self, key: &[u8], expires_at_ms: Option<i64>) {
        let db = self.db;
        let (shard, hashed) = self.locate_mut(key);
        shard.set_expires_at_ms(db, hashed, expires_at_ms);
        shard.signal_modified(db, hashed);
        self.note_change(key);
        self.env.note_expiry(hashed.shard(), expires_at_ms);
        if self.env.config.ignores_reads() {
            self.get(key, Access::Silent).inspect(|entry| entry.mark_used(self.env.usage()));
        }
    }

    /// Up to which size a hash stays packed.
    pub fn packed_limits(&self) -> PackedLimits {
        self.env.packed_limits()
    }

    /// The longest sparse form of a HyperLogLog, in bytes.
    pub fn hll_sparse_limit(&self) -> usize {
        self.env.config.hll_sparse_max_bytes.load(Relaxed) as usize
    }

    pub fn database_count(&self) -> usize {
        self.env.config.database_count()
    }

    /// Records a keyspace event, if its class is enabled.
    #[inline(always)]
    pub fn notify(&mut self, class: EventClass, name: &'static str, key: &[u8]) {
        if self.env.config.notify_keyspace_events.has(class) {
            self.note_event(name, key);
        }
    }

    #[cold]
    fn note_event(&mut self, name: &'static str, key: &[u8]) {
        let event = Event { db: self.db, key: key.into(), name };
        self.changes().events.push(event);
    }

    /// Records a `keymiss` event if the key, which the command has just read, does not exist. (For commands
    /// that write. For commands that only read, every miss is recorded.)
    #[inline(always)]
    pub fn notify_if_missing(&mut self, key: &[u8]) {
        if self.env.config.notify_keyspace_events.has(EventClass::KEY_MISS) && !self.is_live(key) {
            self.note_event("keymiss", key);
        }
    }

    /// Records the event for removed fields of a hash, and `del` if the hash is gone with its last field.
    pub fn notify_removal(&mut self, name: &'static str, key: &[u8]) {
        self.notify(EventClass::HASH, name, key);
        if self.get(key, Access::NoTouch).is_none() {
            self.notify(EventClass::GENERIC, "del", key);
        }
    }

    /// Records the events that come before a key is set to a value of this type: `expired` if its old value
    /// had expired, then `new` or what [`WriteView::notify_overwritten`] records.
    #[inline(always)]
    fn notify_insertion(&mut self, key: &[u8], type_name: &str) {
        const CLASSES: EventClass = EventClass::NEW.or(EventClass::EXPIRED).or(OVERWRITES);
        if self.env.config.notify_keyspace_events.has(CLASSES) {
            self.note_insertion(key, type_name);
        }
    }

    #[cold]
    fn note_insertion(&mut self, key: &[u8], type_name: &str) {
        if !self.is_live(key) {
            self.notify(EventClass::NEW, "new", key);
            return;
        }
        let old = self.get(key, Access::Silent).map(|entry| entry.value.type_name());
        self.notify_overwritten(key, old, type_name);
    }

    /// Records the events for a value of the type `new` that replaces one of the type `old`, if there is one:
    /// `overwritten`, and `type_changed` if the types differ.
    pub fn notify_overwritten(&mut self, key: &[u8], old: Option<&str>, new: &str) {
        let Some(old) = old else { return };
        self.notify(EventClass::OVERWRITTEN, "overwritten", key);
        if old != new {
            self.notify(EventClass::TYPE_CHANGED, "type_changed", key);
        }
    }

    fn notify_expired(&mut self, key: &[u8], cause: &Cause) {
        let wanted = &self.env.config.notify_keyspace_events;
        let names = cause.events().iter().filter(|(class, _)| wanted.has(*class));
        names.for_each(|(_, name)| self.note_event(name, key));
    }

    /// The log has every change of these shards up to that LSN.
    pub fn logged(&mut self, lsn: u64) {
        match &mut self.guards {
            Guards::One { guard, .. } => guard.logged(lsn),
            Guards::Many(guards) => guards.iter_mut().for_each(|(_, guard)| guard.logged(lsn)),
        }
    }

    /// Records that a key was modified, if any client caches what it reads.
    #[inline(always)]
    fn note_change(&mut self, key: &[u8]) {
        if self.env.is_tracked() {
            self.changes().modified.push(key.into());
        }
    }

    /// Takes what is left to do after the command. If it has `changed` something, the values that were lent
    /// to be changed in place count as modified.
    #[inline(always)]
    pub fn finish_write(&mut self, changed: bool) -> Aftermath {
        if self.changes.get_mut().is_some() {
            self.finish_changes(changed);
        }
        self.finish()
    }

    #[cold]
    fn finish_changes(&mut self, changed: bool) {
        let own = self.db;
        for (db, key) in std::mem::take(&mut self.changes().found_expired) {
            self.db = db;
            self.remove_if_expired(&key);
        }
        self.db = own;
        if !changed {
            return;
        }
        for (db, key) in std::mem::take(&mut self.changes().lent) {
            let (shard, hashed) = self.locate_mut(&key);
            shard.signal_modified(db, hashed);
            self.note_change(&key);
        }
    }

    fn changes(&mut self) -> &mut Changes {
        self.changes.get_mut().get_or_insert_default()
    }

    fn discard(&mut self, old: Removed) {
        if let Some(value) = old.large.filter(Value::is_costly_to_drop) {
            self.changes().garbage.values.push(value);
        }
    }

    /// Whether the key exists. If it has expired, it is removed.
    fn is_live(&mut self, key: &[u8]) -> bool {
        let (shard, hashed) = self.locate(key);
        let Some(entry) = shard.table(self.db).and_then(|table| table.get(hashed)) else {
            return false;
        };
        if !self.is_expired(entry) {
            return true;
        }
        let db = self.db;
        let (shard, hashed) = self.locate_mut(key);
        let old = shard.remove(db, hashed);
        shard.signal_modified(db, hashed);
        old.into_iter().for_each(|old| self.discard(old));
        self.notify_expired(key, &Cause::Expired);
        self.note_removal_of_expired(key);
        false
    }

    /// The expired value of the key is gone; one that is stored from now on is not to be removed at the end.
    fn note_removal_of_expired(&mut self, key: &[u8]) {
        let db = self.db;
        let changes = self.changes();
        changes.found_expired.retain(|(found_db, found)| *found_db != db || **found != *key);
        changes.expired.push(Removal { db, key: key.into(), cause: Cause::Expired });
    }

    /// Prepares a change in place of what the key holds, which counts as a use. If it has expired, it is
    /// removed. Returns where it is.
    fn lend(&mut self, key: &[u8]) -> Option<Spot> {
        let (shard, hashed) = self.locate(key);
        let (spot, entry) = shard.table(self.db)?.locate(hashed)?;
        if self.is_expired(entry) {
            self.is_live(key);
            return None;
        }
        if self.touches || self.env.config.ignores_reads() {
            entry.mark_used(self.env.usage());
        }
        if shard.is_watched() || self.env.is_tracked() {
            let db = self.db;
            self.changes().lent.push((db, key.to_vec()));
        }
        Some(spot)
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
