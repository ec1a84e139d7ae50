//! A shard: what one lock guards. In each database, the map of the keys whose hash picks this shard.
//!
//! Always true: a table counts its keys with a deadline; no empty hash is in a map; a hash with a field
//! that has a deadline is listed, once, under its earliest; `last_lsn` is at least the log position
//! of every change that the shard shows.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::AtomicU64;

use super::key::{BuildPassThrough, HashedKey, Key, Lookup};
use super::value::{ByteString, Entry, Value};
use super::watch::Watches;
use crate::config::events::Class;

/// A map this much larger than what is in it gives memory back.
const SPARSE: usize = 8;
const SMALL_MAP: usize = 64;

/// The keys of one database in one shard.
#[derive(Default)]
pub struct Table {
    entries: HashMap<Key, Entry, BuildPassThrough>,
    volatile: usize,
}

impl Table {
    /// How many keys there are, the expired that nobody has met yet included.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many of them have a deadline.
    pub fn volatile(&self) -> usize {
        self.volatile
    }

    /// The bytes that the map itself has reserved: a place for a key and its entry with a byte of its
    /// hash each, one more than an eighth of them spare. What keys and values have reserved besides is
    /// not among them.
    pub fn reserved_bytes(&self) -> usize {
        match self.entries.capacity() {
            0 => 0,
            capacity => {
                let places = (capacity * 8 / 7).next_power_of_two();
                places * (size_of::<(Key, Entry)>() + 1)
            }
        }
    }

    /// Keys and entries, in no order; the expired that nobody has met yet included.
    pub fn iter(&self) -> impl Iterator<Item = (&Key, &Entry)> {
        self.entries.iter()
    }

    pub(super) fn get(&self, key: HashedKey) -> Option<&Entry> {
        self.entries.get(&key as &dyn Lookup)
    }

    /// The entry, to be changed in place; but for its deadline, which this table counts.
    pub(super) fn get_mut(&mut self, key: HashedKey) -> Option<&mut Entry> {
        self.entries.get_mut(&key as &dyn Lookup)
    }

    /// Puts the entry in the place of what was there, and returns that.
    pub(super) fn insert(&mut self, key: HashedKey, entry: Entry) -> Option<Entry> {
        self.volatile += usize::from(entry.is_volatile());
        let old = match self.entries.get_mut(&key as &dyn Lookup) {
            Some(place) => Some(std::mem::replace(place, entry)),
            None => self.entries.insert(Key::new(key.bytes()), entry),
        };
        self.volatile -= usize::from(old.as_ref().is_some_and(Entry::is_volatile));
        old
    }

    /// As [`Table::insert`], for a string that is used at this second. One of about the same length that
    /// does not expire is overwritten where it stands, which spares an allocation and the return of
    /// another.
    pub(super) fn insert_string(
        &mut self,
        key: HashedKey,
        value: &[u8],
        expires_at_ms: Option<i64>,
        second: u32,
    ) -> Option<Entry> {
        let entry = || {
            let entry = Entry::new(Value::String(ByteString::new(value)), expires_at_ms);
            entry.mark_used(second);
            entry
        };
        let old = match self.entries.get_mut(&key as &dyn Lookup) {
            Some(place) => {
                if expires_at_ms.is_none() && place.overwrite(value) {
                    place.mark_used(second);
                    return None;
                }
                Some(std::mem::replace(place, entry()))
            }
            None => self.entries.insert(Key::new(key.bytes()), entry()),
        };
        self.volatile += usize::from(expires_at_ms.is_some());
        self.volatile -= usize::from(old.as_ref().is_some_and(Entry::is_volatile));
        old
    }

    pub(super) fn remove(&mut self, key: HashedKey) -> Option<Entry> {
        let old = self.entries.remove(&key as &dyn Lookup)?;
        self.volatile -= usize::from(old.is_volatile());
        let capacity = self.entries.capacity();
        if capacity > SMALL_MAP && self.entries.len() * SPARSE < capacity {
            self.entries.shrink_to(self.entries.len() * 2);
        }
        Some(old)
    }

    /// Changes the deadline of a key that is there.
    pub(super) fn set_expires_at_ms(&mut self, key: HashedKey, expires_at_ms: Option<i64>) {
        if let Some(entry) = self.entries.get_mut(&key as &dyn Lookup) {
            self.volatile -= usize::from(entry.is_volatile());
            entry.set_expires_at_ms(expires_at_ms);
            self.volatile += usize::from(entry.is_volatile());
        }
    }

    /// Takes out the keys whose deadline has passed, and returns them with the earliest deadline that
    /// is left, or the end of time.
    fn take_expired(&mut self, now_ms: i64) -> (Vec<(Key, Entry)>, i64) {
        if self.volatile == 0 {
            return (Vec::new(), i64::MAX);
        }
        let passed = self.entries.extract_if(|_, entry| entry.has_passed(now_ms));
        let expired: Vec<(Key, Entry)> = passed.collect();
        self.volatile -= expired.len();
        let deadlines = self.entries.values().filter_map(Entry::expires_at_ms);
        (expired, deadlines.min().unwrap_or(i64::MAX))
    }
}

/// The hashes of one database in one shard that have fields with deadlines: the earliest deadline of
/// each, and its key.
pub(super) type TimedHashes = BTreeSet<(i64, Box<[u8]>)>;

/// What has expired and was removed, as the log must hear of it.
pub struct Expired {
    /// In which database.
    pub db: usize,
    /// The key, or the key of the hash.
    pub key: Box<[u8]>,
    /// What of it.
    pub what: WhatExpired,
}

/// What of a key has expired.
pub enum WhatExpired {
    /// All of it, by its own deadline.
    Key,
    /// These fields of the hash, which has others.
    Fields(Vec<Box<[u8]>>),
    /// The last fields of the hash, so many, and with them the key.
    LastFields(usize),
}

impl WhatExpired {
    /// The events that tell of it.
    pub fn events(&self) -> &'static [(Class, &'static str)] {
        match self {
            WhatExpired::Key => &[(Class::EXPIRED, "expired")],
            WhatExpired::Fields(_) => &[(Class::HASH, "hexpired")],
            WhatExpired::LastFields(_) => &[(Class::HASH, "hexpired"), (Class::GENERIC, "del")],
        }
    }

    /// What of an entry that is expired.
    pub(super) fn of(entry: &Entry, now_ms: i64) -> WhatExpired {
        match &entry.value {
            Value::Hash(hash) if !entry.has_passed(now_ms) => WhatExpired::LastFields(hash.len()),
            _ => WhatExpired::Key,
        }
    }
}

/// What one lock guards. The order of the fields is kept, so that what every command touches, down to
/// `last_lsn`, shares a cache line with the lock.
#[repr(C)]
pub struct Shard {
    /// Database 0, which most use, without a detour through another allocation.
    first: Table,
    /// The log position behind the last record about this shard. Who has read the shard may reply
    /// only when the log is flushed as far as that.
    pub last_lsn: u64,
    /// The databases from 1 on; those that were never used are not there.
    others: Box<[Table]>,
    /// The number of the last snapshot that has this shard. Atomic, so that it can be set by a thread
    /// that saves the shard and only reads it.
    pub(super) saved_epoch: AtomicU64,
    /// Which of its keys are watched, if any is. Beside `saved_epoch`, at which a writer looks anyway.
    pub(super) watches: Option<Box<Watches>>,
    /// By database, as far as there were any.
    timed_hashes: Vec<TimedHashes>,
    /// A moment before which no key's own deadline passes. The keys are searched only after it, not
    /// whenever a field expires.
    earliest_key_ms: i64,
}

impl Default for Shard {
    fn default() -> Shard {
        Shard {
            first: Table::default(),
            last_lsn: 0,
            others: Box::default(),
            saved_epoch: AtomicU64::new(0),
            watches: None,
            timed_hashes: Vec::new(),
            earliest_key_ms: i64::MAX,
        }
    }
}

impl Shard {
    /// The keys of a database, if it was ever used here.
    pub fn table(&self, db: usize) -> Option<&Table> {
        match db {
            0 => Some(&self.first),
            _ => self.others.get(db - 1),
        }
    }

    /// Takes note that the log has everything about it up to that position. Within a transaction that is
    /// not known yet, and 0 for the time being.
    pub(super) fn logged(&mut self, position: u64) {
        self.last_lsn = self.last_lsn.max(position);
    }

    /// The keys of a database.
    pub(super) fn table_mut(&mut self, db: usize) -> &mut Table {
        if db == 0 {
            return &mut self.first;
        }
        if db > self.others.len() {
            let mut others = std::mem::take(&mut self.others).into_vec();
            others.resize_with(db, Table::default);
            self.others = others.into();
        }
        &mut self.others[db - 1]
    }

    /// How many databases were ever used here.
    pub fn databases(&self) -> usize {
        1 + self.others.len()
    }

    /// How many hashes of a database have fields with deadlines.
    pub fn timed_hashes(&self, db: usize) -> usize {
        self.timed_hashes.get(db).map_or(0, BTreeSet::len)
    }

    /// Puts the entry in the place of what was there, and returns that.
    pub(super) fn insert(&mut self, db: usize, key: HashedKey, entry: Entry) -> Option<Entry> {
        let earliest_field_ms = entry.earliest_field_ms();
        self.note_key_expiry(entry.expires_at_ms());
        let old = self.table_mut(db).insert(key, entry);
        let old_ms = old.as_ref().and_then(Entry::earliest_field_ms);
        self.relist(db, key.bytes(), old_ms, earliest_field_ms);
        old
    }

    /// As [`Shard::insert`], for a string: see [`Table::insert_string`].
    pub(super) fn insert_string(
        &mut self,
        db: usize,
        key: HashedKey,
        value: &[u8],
        expires_at_ms: Option<i64>,
        second: u32,
    ) -> Option<Entry> {
        self.note_key_expiry(expires_at_ms);
        let old = self.table_mut(db).insert_string(key, value, expires_at_ms, second);
        let old_ms = old.as_ref().and_then(Entry::earliest_field_ms);
        self.relist(db, key.bytes(), old_ms, None);
        old
    }

    /// Takes the entry out.
    pub(super) fn remove(&mut self, db: usize, key: HashedKey) -> Option<Entry> {
        let old = self.table_mut(db).remove(key)?;
        self.relist(db, key.bytes(), old.earliest_field_ms(), None);
        Some(old)
    }

    /// Changes the deadline of a key that is there.
    pub(super) fn set_expires_at_ms(
        &mut self,
        db: usize,
        key: HashedKey,
        expires_at_ms: Option<i64>,
    ) {
        self.note_key_expiry(expires_at_ms);
        self.table_mut(db).set_expires_at_ms(key, expires_at_ms);
    }

    /// Lists a hash, whose earliest deadline of a field was and is such.
    pub(super) fn relist(
        &mut self,
        db: usize,
        key: &[u8],
        was_ms: Option<i64>,
        is_ms: Option<i64>,
    ) {
        if was_ms == is_ms {
            return;
        }
        if db >= self.timed_hashes.len() {
            self.timed_hashes.resize_with(db + 1, TimedHashes::new);
        }
        let listed = &mut self.timed_hashes[db];
        if let Some(was_ms) = was_ms {
            listed.remove(&(was_ms, key.into()));
        }
        if let Some(is_ms) = is_ms {
            listed.insert((is_ms, key.into()));
        }
    }

    fn note_key_expiry(&mut self, expires_at_ms: Option<i64>) {
        self.earliest_key_ms = self.earliest_key_ms.min(expires_at_ms.unwrap_or(i64::MAX));
    }

    /// Removes what has expired, but of fields no more than so many. Returns what the log must hear,
    /// what is to be dropped, and a moment before which nothing in the shard expires now.
    pub(super) fn take_expired(
        &mut self,
        now_ms: i64,
        field_limit: usize,
    ) -> (Vec<Expired>, Vec<Entry>, i64) {
        let (mut expired, mut removed) = (Vec::new(), Vec::new());
        for db in 0..self.timed_hashes.len() {
            self.take_expired_fields(db, now_ms, field_limit, &mut expired, &mut removed);
        }
        if self.earliest_key_ms < now_ms {
            self.earliest_key_ms = i64::MAX;
            for db in 0..self.databases() {
                let (entries, earliest_ms) = self.table_mut(db).take_expired(now_ms);
                self.earliest_key_ms = self.earliest_key_ms.min(earliest_ms);
                for (key, entry) in entries {
                    let key: Box<[u8]> = key.bytes().into();
                    self.signal_modified(db, HashedKey::new(&key));
                    self.relist(db, &key, entry.earliest_field_ms(), None);
                    expired.push(Expired { db, key, what: WhatExpired::Key });
                    removed.push(entry);
                }
            }
        }
        let earliest_hash =
            |listed: &TimedHashes| listed.first().map(|(earliest_ms, _)| *earliest_ms);
        let earliest_field_ms = self.timed_hashes.iter().filter_map(earliest_hash).min();
        let earliest_ms = self.earliest_key_ms.min(earliest_field_ms.unwrap_or(i64::MAX));
        (expired, removed, earliest_ms)
    }

    fn take_expired_fields(
        &mut self,
        db: usize,
        now_ms: i64,
        limit: usize,
        expired: &mut Vec<Expired>,
        removed: &mut Vec<Entry>,
    ) {
        let mut left = limit;
        while left > 0
            && let Some((earliest_ms, key)) = self.timed_hashes[db].first().cloned()
            && earliest_ms < now_ms
        {
            let hashed = HashedKey::new(&key);
            let entry = self.table_mut(db).get_mut(hashed);
            let Some(Entry { value: Value::Hash(hash), .. }) = entry else {
                unreachable!("what is listed is a hash that is there");
            };
            let fields = hash.take_expired(now_ms, left);
            left -= fields.len();
            let (now_earliest_ms, is_empty) = (hash.earliest_ms(), hash.is_empty());
            self.relist(db, &key, Some(earliest_ms), now_earliest_ms);
            self.signal_modified(db, hashed);
            let what = if is_empty {
                removed.extend(self.remove(db, hashed));
                WhatExpired::LastFields(fields.len())
            } else {
                WhatExpired::Fields(fields)
            };
            expired.push(Expired { db, key, what });
        }
    }

    /// Empties a database; returns what was in it.
    pub(super) fn flush(&mut self, db: usize) -> (Table, TimedHashes) {
        self.signal_flushed(db);
        self.take_database(db)
    }

    fn take_database(&mut self, db: usize) -> (Table, TimedHashes) {
        let timed = self.timed_hashes.get_mut(db).map(std::mem::take).unwrap_or_default();
        let has_table = db < self.databases();
        let table = if has_table { std::mem::take(self.table_mut(db)) } else { Table::default() };
        (table, timed)
    }

    fn put_database(&mut self, db: usize, (table, timed): (Table, TimedHashes)) {
        *self.table_mut(db) = table;
        if !timed.is_empty() && db >= self.timed_hashes.len() {
            self.timed_hashes.resize_with(db + 1, TimedHashes::new);
        }
        if let Some(place) = self.timed_hashes.get_mut(db) {
            *place = timed;
        }
    }

    /// Lets all databases have the keys of another shard, and returns those that they had.
    pub(super) fn take_over(&mut self, other: &mut Shard) -> Vec<(Table, TimedHashes)> {
        self.earliest_key_ms = self.earliest_key_ms.min(other.earliest_key_ms);
        let databases = 0..self.databases().max(other.databases());
        let replace = |db| {
            let (old, new) = (self.flush(db), other.take_database(db));
            if !new.0.is_empty() {
                self.put_database(db, new);
            }
            old
        };
        databases.map(replace).collect()
    }

    /// Exchanges two databases.
    pub(super) fn swap(&mut self, one: usize, other: usize, now_ms: i64) {
        self.signal_swapped(one, other, now_ms);
        self.signal_swapped(other, one, now_ms);
        let (first, second) = (self.take_database(one), self.take_database(other));
        self.put_database(one, second);
        self.put_database(other, first); // last, so that one swapped with itself keeps its keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_expired_is_counted_no_more() {
        let mut shard = Shard::default();
        for (name, expires_at_ms) in [("a", Some(1)), ("b", Some(9)), ("c", None), ("d", Some(2))] {
            let entry = Entry::new(Value::String(ByteString::new(b"")), expires_at_ms);
            shard.insert(0, HashedKey::new(name.as_bytes()), entry);
        }
        let (expired, ..) = shard.take_expired(5, usize::MAX);
        let table = shard.table(0).expect("it was used");
        assert_eq!((expired.len(), table.len(), table.volatile()), (2, 2, 1));
    }

    #[test]
    fn a_shard_takes_two_cache_lines_with_its_lock() {
        assert_eq!(size_of::<std::sync::RwLock<Shard>>(), 128);
    }
}
