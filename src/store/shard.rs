//! A shard: what one lock guards. In each database, the map of the keys whose hash picks this shard.
//!
//! Always true: a table counts its keys with a deadline; no empty hash is in a map; `last_record` is
//! at least the log position of every change that the shard shows.

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;

use super::key::{BuildPassThrough, HashedKey, Key, Lookup};
use super::value::{Entry, Value};
use super::watch::Watches;

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
        deadline_ms: Option<i64>,
        second: u32,
    ) -> Option<Entry> {
        let entry = || {
            let entry = Entry::new(Value::String(value.to_vec()), deadline_ms);
            entry.touch(second);
            entry
        };
        let old = match self.entries.get_mut(&key as &dyn Lookup) {
            Some(place) => {
                if deadline_ms.is_none() && place.overwrite(value) {
                    place.touch(second);
                    return None;
                }
                Some(std::mem::replace(place, entry()))
            }
            None => self.entries.insert(Key::new(key.bytes()), entry()),
        };
        self.volatile += usize::from(deadline_ms.is_some());
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
    pub(super) fn set_deadline_ms(&mut self, key: HashedKey, deadline_ms: Option<i64>) {
        if let Some(entry) = self.entries.get_mut(&key as &dyn Lookup) {
            self.volatile -= usize::from(entry.is_volatile());
            entry.set_deadline_ms(deadline_ms);
            self.volatile += usize::from(entry.is_volatile());
        }
    }

    /// Takes out what has expired, and returns it with the earliest deadline that is left, or the
    /// end of time.
    fn take_expired(&mut self, now_ms: i64) -> (Vec<(Key, Entry)>, i64) {
        if self.volatile == 0 {
            return (Vec::new(), i64::MAX);
        }
        let expired = self.entries.extract_if(|_, entry| entry.is_expired(now_ms)).collect();
        let deadlines = self.entries.values().filter_map(Entry::deadline_ms);
        (expired, deadlines.min().unwrap_or(i64::MAX))
    }
}

/// What one lock guards. The order of the fields is kept, so that what every command touches, down to
/// `last_record`, shares a cache line with the lock.
#[derive(Default)]
#[repr(C)]
pub struct Shard {
    /// Database 0, which most use, without a detour through another allocation.
    first: Table,
    /// The log position behind the last record about this shard. Who has read the shard may reply
    /// only when the log is flushed as far as that.
    pub last_record: u64,
    /// The databases from 1 on; those that were never used are not there.
    others: Vec<Table>,
    /// The number of the last snapshot that has this shard. Atomic, so that it can be set by a thread
    /// that saves the shard and only reads it.
    pub(super) saved_epoch: AtomicU64,
    /// Which of its keys are watched, if any is. Beside `saved_epoch`, at which a writer looks anyway.
    pub(super) watches: Option<Box<Watches>>,
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
        self.last_record = self.last_record.max(position);
    }

    /// The keys of a database.
    pub(super) fn table_mut(&mut self, db: usize) -> &mut Table {
        if db == 0 {
            return &mut self.first;
        }
        if db > self.others.len() {
            self.others.resize_with(db, Table::default);
        }
        &mut self.others[db - 1]
    }

    /// How many databases were ever used here.
    pub fn databases(&self) -> usize {
        1 + self.others.len()
    }

    /// Takes out everything that has expired: per database the entries, and the earliest deadline
    /// that is left in the shard.
    pub(super) fn take_expired(&mut self, now_ms: i64) -> (Vec<(usize, Key, Entry)>, i64) {
        let mut all = Vec::new();
        let mut earliest_ms = i64::MAX;
        let tables = std::iter::once(&mut self.first).chain(&mut self.others);
        for (db, table) in tables.enumerate() {
            let (expired, earliest_here) = table.take_expired(now_ms);
            all.extend(expired.into_iter().map(|(key, entry)| (db, key, entry)));
            earliest_ms = earliest_ms.min(earliest_here);
        }
        if self.watches.is_some() {
            all.iter().for_each(|(db, key, _)| self.touch(*db, HashedKey::new(key.bytes())));
        }
        (all, earliest_ms)
    }

    /// Empties a database; returns what was in it.
    pub(super) fn flush(&mut self, db: usize) -> Table {
        self.touch_all(db);
        self.take_table(db)
    }

    fn take_table(&mut self, db: usize) -> Table {
        if db < self.databases() { std::mem::take(self.table_mut(db)) } else { Table::default() }
    }

    /// Lets a database have these keys, and returns those that it had.
    pub(super) fn replace_table(&mut self, db: usize, table: Table) -> Table {
        self.touch_all(db);
        if table.is_empty() {
            self.take_table(db)
        } else {
            std::mem::replace(self.table_mut(db), table)
        }
    }

    /// Exchanges two databases.
    pub(super) fn swap(&mut self, one: usize, other: usize, now_ms: i64) {
        self.touch_replaced(one, other, now_ms);
        self.touch_replaced(other, one, now_ms);
        let (first, second) = (self.take_table(one), self.take_table(other));
        *self.table_mut(one) = second;
        *self.table_mut(other) = first; // last, so that a database swapped with itself keeps its keys
    }
}
