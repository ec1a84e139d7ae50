//! A shard: the data that one lock guards. Per database, the table of the keys whose hash picks this shard.
//!
//! Invariants ([`Shard::check`]): the tables and the watched keys are sound; a hash with an expiring
//! field is in its database's [`TimedHashes`], once, under its earliest expiry, and nothing else is; no key
//! expires before `earliest_key_ms`; `last_lsn` is at least the LSN of every change that the shard shows.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use super::hash::Hash;
use super::key::HashedKey;
use super::memory::{UNIT_BYTES, allocated};
use super::table::{Removed, Table};
use super::usage::Usage;
use super::value::Entry;
use super::watch::{Watcher, Watches};
use crate::config::events::EventClass;
use crate::config::trace::{quoted, trace};
use crate::text::ensure;

/// An index of the hashes of one database in one shard that have expiring fields: the earliest expiry of
/// each, and its key.
pub(super) type TimedHashes = BTreeSet<(i64, Box<[u8]>)>;

/// What an entry of that index takes, with its key.
const TIMED_HASH_BYTES: usize = 64;

/// A key or fields of a hash that were removed without a command, as the log records it.
pub struct Removal {
    pub db: usize,
    /// The key, or the key of the hash.
    pub key: Box<[u8]>,
    pub cause: Cause,
}

/// Why a key or fields of it were removed.
pub enum Cause {
    /// The key has expired.
    Expired,
    /// These fields of a hash have expired; it has others.
    FieldsExpired(Vec<Box<[u8]>>),
    /// The last fields of a hash have expired, this many, and so the key is gone.
    LastFieldsExpired(usize),
    /// The memory was needed.
    Evicted,
}

impl Cause {
    /// The keyspace events that announce it.
    pub fn events(&self) -> &'static [(EventClass, &'static str)] {
        match self {
            Cause::Expired => &[(EventClass::EXPIRED, "expired")],
            Cause::Evicted => &[(EventClass::EVICTED, "evicted")],
            Cause::FieldsExpired(_) => &[(EventClass::HASH, "hexpired")],
            Cause::LastFieldsExpired(_) => {
                &[(EventClass::HASH, "hexpired"), (EventClass::GENERIC, "del")]
            }
        }
    }
}

/// The data that one lock guards. The fields are laid out in this order, so that the ones that every command
/// uses, down to `last_lsn`, share a cache line with the lock.
#[repr(C)]
pub struct Shard {
    /// Database 0, the one that most clients use, in place rather than behind a pointer.
    first: Table,
    /// The LSN of the last record about this shard. A client that has read the shard gets its reply once the
    /// log is flushed up to here.
    pub last_lsn: u64,
    /// The number of the last snapshot that has saved this shard. Atomic because the thread that saves
    /// the shard holds only a read lock.
    pub(super) saved_epoch: AtomicU32,
    /// The memory that the total has of this shard, in [`UNIT_BYTES`].
    counted_units: u32,
    /// What most shards do not have. Beside `saved_epoch`, which a writer reads anyway.
    rest: Option<Box<Rest>>,
    /// No key expires before this moment by its own expiry. It saves searching the keys whenever a field
    /// expires.
    earliest_key_ms: i64,
}

/// The part of a shard that is there as soon as it is needed.
#[derive(Default)]
struct Rest {
    /// The databases but 0 that were ever used here, sorted by number: a shard of ten thousand databases of
    /// which one is used has one.
    others: Vec<(usize, Table)>,
    /// Those of the databases that ever had any, sorted by number.
    timed_hashes: Vec<(usize, TimedHashes)>,
    watches: Watches,
}

impl Default for Shard {
    fn default() -> Shard {
        Shard {
            first: Table::default(),
            last_lsn: 0,
            saved_epoch: AtomicU32::new(0),
            counted_units: 0,
            rest: None,
            earliest_key_ms: i64::MAX,
        }
    }
}

impl Rest {
    fn memory_units(&self) -> u32 {
        let others = self.others.iter().map(|(_, table)| table.memory_units());
        let listed: usize = self.timed_hashes.iter().map(|(_, listed)| listed.len()).sum();
        let bytes = allocated(size_of::<Rest>())
            + allocated(self.others.capacity() * size_of::<(usize, Table)>())
            + allocated(self.timed_hashes.capacity() * size_of::<(usize, TimedHashes)>())
            + listed * TIMED_HASH_BYTES
            + self.watches.memory_bytes();
        others.sum::<u32>() + bytes.div_ceil(UNIT_BYTES) as u32
    }
}

/// Where a database is in a list that is sorted by number, or where it belongs.
fn place<T>(list: &[(usize, T)], db: usize) -> Result<usize, usize> {
    list.binary_search_by_key(&db, |(db, _)| *db)
}

impl Shard {
    /// The keys of a database; `None` if it was never used here.
    pub fn table(&self, db: usize) -> Option<&Table> {
        match db {
            0 => Some(&self.first),
            _ => place(self.others(), db).ok().map(|at| &self.others()[at].1),
        }
    }

    /// Raises `last_lsn`. (A transaction learns its LSN late, and passes 0 until then.)
    pub(super) fn logged(&mut self, lsn: u64) {
        self.last_lsn = self.last_lsn.max(lsn);
    }

    /// The keys of a database.
    pub(super) fn table_mut(&mut self, db: usize) -> &mut Table {
        if db == 0 {
            return &mut self.first;
        }
        let others = &mut self.rest.get_or_insert_default().others;
        let at = place(others, db).unwrap_or_else(|at| {
            others.insert(at, (db, Table::default()));
            at
        });
        &mut others[at].1
    }

    fn others(&self) -> &[(usize, Table)] {
        self.rest.as_ref().map_or(&[], |rest| &rest.others)
    }

    fn all_timed(&self) -> &[(usize, TimedHashes)] {
        self.rest.as_ref().map_or(&[], |rest| &rest.timed_hashes)
    }

    /// The databases that were ever used here, sorted.
    pub fn databases(&self) -> impl Iterator<Item = usize> {
        std::iter::once(0).chain(self.others().iter().map(|(db, _)| *db))
    }

    fn timed(&self, db: usize) -> Option<&TimedHashes> {
        let all = self.all_timed();
        place(all, db).ok().map(|at| &all[at].1)
    }

    fn timed_mut(&mut self, db: usize) -> &mut TimedHashes {
        let all = &mut self.rest.get_or_insert_default().timed_hashes;
        let at = place(all, db).unwrap_or_else(|at| {
            all.insert(at, (db, TimedHashes::new()));
            at
        });
        &mut all[at].1
    }

    /// The number of hashes in a database that have expiring fields.
    pub fn timed_hashes(&self, db: usize) -> usize {
        self.timed(db).map_or(0, BTreeSet::len)
    }

    /// The memory that its data takes, in [`UNIT_BYTES`]. The index of expiring fields is estimated.
    #[inline]
    pub(super) fn memory_units(&self) -> u32 {
        self.first.memory_units() + self.rest.as_ref().map_or(0, |rest| rest.memory_units())
    }

    /// By how many bytes the shard has grown since the last call.
    #[inline]
    pub(super) fn take_growth(&mut self) -> i64 {
        let units = self.memory_units();
        let counted = std::mem::replace(&mut self.counted_units, units);
        (i64::from(units) - i64::from(counted)) * UNIT_BYTES as i64
    }

    // ---- Keys ----

    /// Stores the entry, which counts as a use of the key. Returns what is left of the one it replaces.
    pub(super) fn insert(
        &mut self,
        db: usize,
        key: HashedKey,
        entry: Entry,
        usage: Usage,
    ) -> Option<Removed> {
        let earliest_field_ms = entry.view().earliest_field_ms();
        self.note_key_expiry(entry.expires_at_ms());
        let old = self.table_mut(db).insert(key, entry, usage);
        let old_ms = old.as_ref().and_then(|old| old.earliest_field_ms);
        self.relist(db, key.bytes(), old_ms, earliest_field_ms);
        old
    }

    /// Like [`Shard::insert`], for a string: see [`Table::insert_string`].
    pub(super) fn insert_string(
        &mut self,
        db: usize,
        key: HashedKey,
        value: &[u8],
        expires_at_ms: Option<i64>,
        usage: Usage,
    ) -> Option<Removed> {
        self.note_key_expiry(expires_at_ms);
        let old = self.table_mut(db).insert_string(key, value, expires_at_ms, usage);
        let old_ms = old.as_ref().and_then(|old| old.earliest_field_ms);
        self.relist(db, key.bytes(), old_ms, None);
        old
    }

    /// Removes the key.
    pub(super) fn remove(&mut self, db: usize, key: HashedKey) -> Option<Removed> {
        let old = self.table_mut(db).remove(key)?;
        self.relist(db, key.bytes(), old.earliest_field_ms, None);
        Some(old)
    }

    /// Removes the key and returns its entry.
    pub(super) fn take(&mut self, db: usize, key: HashedKey) -> Option<Entry> {
        let old = self.table_mut(db).take(key)?;
        self.relist(db, key.bytes(), old.view().earliest_field_ms(), None);
        Some(old)
    }

    /// Changes the expiry of the key if it exists.
    pub(super) fn set_expires_at_ms(
        &mut self,
        db: usize,
        key: HashedKey,
        expires_at_ms: Option<i64>,
    ) {
        self.note_key_expiry(expires_at_ms);
        self.table_mut(db).set_expires_at_ms(key, expires_at_ms);
    }

    /// Updates the index of expiring fields when the earliest expiry in a hash changes.
    pub(super) fn relist(
        &mut self,
        db: usize,
        key: &[u8],
        old_ms: Option<i64>,
        new_ms: Option<i64>,
    ) {
        if old_ms == new_ms {
            return;
        }
        let listed = self.timed_mut(db);
        if let Some(old_ms) = old_ms {
            listed.remove(&(old_ms, key.into()));
        }
        if let Some(new_ms) = new_ms {
            listed.insert((new_ms, key.into()));
        }
    }

    fn note_key_expiry(&mut self, expires_at_ms: Option<i64>) {
        self.earliest_key_ms = self.earliest_key_ms.min(expires_at_ms.unwrap_or(i64::MAX));
    }

    // ---- Expiry ----

    /// Removes expired keys, and at most `field_limit` expired fields in each database. Returns what the log
    /// must record, what is left of the entries, and a moment before which nothing left in the shard expires.
    pub(super) fn take_expired(
        &mut self,
        now_ms: i64,
        field_limit: usize,
    ) -> (Vec<Removal>, Vec<Removed>, i64) {
        let (mut expired, mut removed) = (Vec::new(), Vec::new());
        let timed: Vec<usize> = self.all_timed().iter().map(|(db, _)| *db).collect();
        for db in timed {
            self.take_expired_fields(db, now_ms, field_limit, &mut expired, &mut removed);
        }
        if self.earliest_key_ms < now_ms {
            self.earliest_key_ms = i64::MAX;
            for db in self.databases().collect::<Vec<_>>() {
                let (entries, earliest_ms) = self.table_mut(db).take_expired(now_ms);
                self.earliest_key_ms = self.earliest_key_ms.min(earliest_ms);
                for (key, old) in entries {
                    self.signal_modified(db, HashedKey::new(&key));
                    self.relist(db, &key, old.earliest_field_ms, None);
                    expired.push(Removal { db, key, cause: Cause::Expired });
                    removed.push(old);
                }
            }
        }
        (expired, removed, self.earliest_ms())
    }

    /// Removes the key if it has expired.
    pub(super) fn remove_if_expired(
        &mut self,
        db: usize,
        key: HashedKey,
        now_ms: i64,
    ) -> Option<Removed> {
        if !self.has_expired(db, key, now_ms) {
            return None;
        }
        let old = self.remove(db, key);
        self.signal_modified(db, key);
        old
    }

    fn take_expired_fields(
        &mut self,
        db: usize,
        now_ms: i64,
        limit: usize,
        expired: &mut Vec<Removal>,
        removed: &mut Vec<Removed>,
    ) {
        let mut left = limit;
        while left > 0
            && let Some((earliest_ms, key)) = self.timed_mut(db).first().cloned()
            && earliest_ms < now_ms
        {
            let hashed = HashedKey::new(&key);
            let was_expired = self.has_expired(db, hashed, now_ms);
            let take = |hash: &mut Hash| {
                let fields = hash.take_expired(now_ms, left);
                (fields, hash.earliest_ms(), hash.is_empty())
            };
            let table = self.table_mut(db);
            let spot = table.locate(hashed).map(|(spot, _)| spot);
            let Some(Ok((fields, now_earliest_ms, is_empty))) =
                spot.map(|spot| table.edit_hash(spot, take))
            else {
                unreachable!("a listed key holds a hash");
            };
            left -= fields.len();
            self.relist(db, &key, Some(earliest_ms), now_earliest_ms);
            let cause = if is_empty {
                removed.extend(self.remove(db, hashed));
                Cause::LastFieldsExpired(fields.len())
            } else {
                Cause::FieldsExpired(fields)
            };
            // No client sees the fields that are left of an expired hash.
            if is_empty || !was_expired {
                self.signal_modified(db, hashed);
            }
            expired.push(Removal { db, key, cause });
        }
    }

    /// A moment before which nothing in the shard expires.
    pub(super) fn earliest_ms(&self) -> i64 {
        let earliest_hash =
            |(_, listed): &(usize, TimedHashes)| listed.first().map(|(at_ms, _)| *at_ms);
        let earliest_field_ms = self.all_timed().iter().filter_map(earliest_hash).min();
        self.earliest_key_ms.min(earliest_field_ms.unwrap_or(i64::MAX))
    }

    // ---- Whole databases ----

    /// Empties a database and returns its data.
    pub(super) fn flush(&mut self, db: usize) -> (Table, TimedHashes) {
        self.signal(|watches, shard| watches.signal_flushed(db, shard.table(db)));
        self.take_database(db)
    }

    fn take_database(&mut self, db: usize) -> (Table, TimedHashes) {
        let timed = self.timed(db).is_some().then(|| std::mem::take(self.timed_mut(db)));
        let has_table = self.table(db).is_some();
        let table = if has_table { std::mem::take(self.table_mut(db)) } else { Table::default() };
        (table, timed.unwrap_or_default())
    }

    /// Gives a database that was taken its data.
    fn put_database(&mut self, db: usize, (table, timed): (Table, TimedHashes)) {
        if !table.is_empty() {
            *self.table_mut(db) = table;
        }
        if !timed.is_empty() {
            *self.timed_mut(db) = timed;
        }
    }

    /// Replaces the data of all databases by that of another shard, and returns the old data.
    pub(super) fn take_over(&mut self, other: &mut Shard) -> Vec<(Table, TimedHashes)> {
        self.earliest_key_ms = self.earliest_key_ms.min(other.earliest_key_ms);
        let databases: BTreeSet<usize> = self.databases().chain(other.databases()).collect();
        let replace = |db| {
            let (old, new) = (self.flush(db), other.take_database(db));
            self.put_database(db, new);
            old
        };
        databases.into_iter().map(replace).collect()
    }

    /// Swaps two databases.
    pub(super) fn swap(&mut self, one: usize, other: usize, now_ms: i64) {
        self.signal(|watches, shard| {
            let (first, second) = (shard.table(one), shard.table(other));
            watches.signal_swapped(one, first, second, now_ms);
            watches.signal_swapped(other, second, first, now_ms);
        });
        let (first, second) = (self.take_database(one), self.take_database(other));
        self.put_database(one, second);
        self.put_database(other, first); // last, so that a database swapped with itself keeps its keys
    }

    // ---- Watched keys ----

    /// Whether any key of the shard is watched.
    #[inline(always)]
    pub(super) fn is_watched(&self) -> bool {
        self.rest.as_ref().is_some_and(|rest| !rest.watches.is_empty())
    }

    /// Adds a watch of the key. Returns false if the watcher watches the key already.
    pub(super) fn watch(
        &mut self,
        db: usize,
        key: HashedKey,
        watcher: &Arc<Watcher>,
        now_ms: i64,
    ) -> bool {
        let was_expired = self.has_expired(db, key, now_ms);
        self.watches_mut().add(db, key, watcher, was_expired)
    }

    /// Ends a watch, if there is one.
    pub(super) fn unwatch(&mut self, db: usize, key: HashedKey, watcher: &Arc<Watcher>) {
        self.watches_mut().remove(db, key, watcher);
    }

    /// Whether a key has expired since the watcher began to watch it.
    pub(super) fn has_expired_since(
        &self,
        db: usize,
        key: HashedKey,
        watcher: &Arc<Watcher>,
        now_ms: i64,
    ) -> bool {
        let watches = self.rest.as_ref().map(|rest| &rest.watches);
        watches.is_some_and(|watches| watches.saw_unexpired(db, key, watcher))
            && self.has_expired(db, key, now_ms)
    }

    /// Raises the flags of the key's watchers. Everything that changes a key calls it afterwards.
    #[inline]
    pub(super) fn signal_modified(&mut self, db: usize, key: HashedKey) {
        trace!(
            "Shard::signal_modified",
            "key {} in database {db} is modified",
            quoted(key.bytes())
        );
        if self.is_watched() {
            let is_gone = self.table(db).is_none_or(|table| table.get(key).is_none());
            self.watches_mut().signal_modified(db, key, is_gone);
        }
    }

    /// Lets the watches look at the tables before the tables change.
    fn signal(&mut self, look: impl FnOnce(&mut Watches, &Shard)) {
        if self.is_watched() {
            let mut watches = std::mem::take(self.watches_mut());
            look(&mut watches, self);
            *self.watches_mut() = watches;
        }
    }

    fn watches_mut(&mut self) -> &mut Watches {
        &mut self.rest.get_or_insert_default().watches
    }

    fn has_expired(&self, db: usize, key: HashedKey, now_ms: i64) -> bool {
        let entry = self.table(db).and_then(|table| table.get(key));
        entry.is_some_and(|entry| entry.is_expired(now_ms))
    }

    // ---- Checking ----

    /// Checks the invariants of the shard with that index. (What `last_lsn` promises is left out: only
    /// the log knows it.) It takes time in proportion to the data.
    ///
    /// # Errors
    /// A sentence about what is wrong.
    pub(super) fn check(&self, index: usize) -> Result<(), String> {
        let timed = self.all_timed().iter().map(|(db, _)| *db);
        for db in self.databases().chain(timed) {
            self.check_database(db, index).map_err(|fault| format!("database {db}: {fault}"))?;
        }
        let Some(rest) = &self.rest else { return Ok(()) };
        rest.watches.check(|db, key| self.table(db).is_some_and(|table| table.get(key).is_some()))
    }

    fn check_database(&self, db: usize, index: usize) -> Result<(), String> {
        let mut timed = TimedHashes::new();
        if let Some(table) = self.table(db) {
            table.check(index)?;
            for (key, entry) in table.iter() {
                let earliest_ms = entry.expires_at_ms().unwrap_or(i64::MAX);
                let (name, bound_ms) = (key.escape_ascii(), self.earliest_key_ms);
                ensure!(earliest_ms >= bound_ms, "key {name} expires before {bound_ms}");
                timed.extend(entry.earliest_field_ms().map(|ms| (ms, key.into())));
            }
        }
        let listed = self.timed(db);
        let is_listed = listed.map_or(timed.is_empty(), |listed| *listed == timed);
        ensure!(is_listed, "the index of expiring fields has {listed:?}, not {timed:?}");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::hash::PackedLimits;
    use super::super::value::Value;
    use super::*;

    const NOW: Usage = Usage::Time { now: 0 };

    #[test]
    fn keys_that_have_expired_are_removed_and_no_longer_counted() {
        let mut shard = Shard::default();
        for (name, expires_at_ms) in [("a", Some(1)), ("b", Some(9)), ("c", None), ("d", Some(2))] {
            let entry = Entry::new(Value::String(Vec::new()), expires_at_ms);
            shard.insert(0, HashedKey::new(name.as_bytes()), entry, NOW);
        }
        let (expired, _, earliest_ms) = shard.take_expired(5, usize::MAX);
        let table = shard.table(0).expect("it was used");
        assert_eq!((expired.len(), table.len(), table.volatile(), earliest_ms), (2, 2, 1, 9));
    }

    #[test]
    fn a_database_that_was_never_used_takes_no_place() {
        let (mut shard, mut other) = (Shard::default(), Shard::default());
        let mut hash = Hash::new();
        hash.set(b"f", b"v", PackedLimits { entries: 16, value_bytes: 64 });
        hash.set_expires_at_ms(b"f", Some(5));
        for db in [9999, 7, 500] {
            let entry = Entry::new(Value::Hash(hash.clone()), None);
            shard.insert(db, HashedKey::new(b"k"), entry, NOW);
        }
        let used = |shard: &Shard| shard.databases().collect::<Vec<_>>();
        assert_eq!((used(&shard), shard.all_timed().len()), (vec![0, 7, 500, 9999], 3));
        shard.swap(7, 8, 0);
        assert!(shard.table(7).is_some_and(Table::is_empty) && shard.table(8).is_some());
        let taken = other.take_over(&mut shard);
        assert!(taken.iter().all(|(table, timed)| table.is_empty() && timed.is_empty()));
        assert_eq!(used(&other), [0, 8, 500, 9999]);
        let (expired, removed, earliest_ms) = other.take_expired(6, usize::MAX);
        assert_eq!((expired.len(), removed.len(), earliest_ms), (3, 3, i64::MAX));
    }

    #[test]
    fn a_shard_takes_two_cache_lines_with_its_lock() {
        assert_eq!(size_of::<std::sync::RwLock<Shard>>(), 128);
    }
}
