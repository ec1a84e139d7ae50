//! A table: the keys of one database in one shard, with their entries.
//!
//! Invariants ([`Table::check`]): each key is found under its hash, which picks this shard; `volatile` is the
//! number of keys that have an expiry; no hash is empty. The shard's lock guards the table. The index of
//! expiring fields is in the shard.

use std::collections::HashMap;

use super::key::{BuildPassThrough, HashedKey, Key, Lookup};
use super::value::{ByteString, Entry, Value};
use crate::text::ensure;

/// A map gives memory back when its capacity exceeds this many times its length …
const SPARSE: usize = 8;
/// … unless its capacity is at most this.
const SMALL_MAP: usize = 64;

/// The keys of one database in one shard. Its counts include expired keys that are not removed yet.
#[derive(Default)]
pub struct Table {
    entries: HashMap<Key, Entry, BuildPassThrough>,
    volatile: usize,
}

impl Table {
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The number of keys that have an expiry.
    pub fn volatile(&self) -> usize {
        self.volatile
    }

    /// The bytes that the map itself has reserved, without the heap memory of keys and values. The
    /// standard library's map has a power of two of places, keeps an eighth of them free, and takes for
    /// each place a key, an entry and one byte of the hash.
    pub fn reserved_bytes(&self) -> usize {
        match self.entries.capacity() {
            0 => 0,
            capacity => {
                let places = (capacity * 8 / 7).next_power_of_two();
                places * (size_of::<(Key, Entry)>() + 1)
            }
        }
    }

    /// Keys and entries in no particular order, expired ones included.
    pub fn iter(&self) -> impl Iterator<Item = (&Key, &Entry)> {
        self.entries.iter()
    }

    pub(super) fn get(&self, key: HashedKey) -> Option<&Entry> {
        self.entries.get(&key as &dyn Lookup)
    }

    /// The entry, to change its value in place. To change its expiry, use [`Table::set_expires_at_ms`], which
    /// keeps `volatile` right.
    pub(super) fn get_mut(&mut self, key: HashedKey) -> Option<&mut Entry> {
        self.entries.get_mut(&key as &dyn Lookup)
    }

    /// Stores the entry and returns the one it replaces.
    pub(super) fn insert(&mut self, key: HashedKey, entry: Entry) -> Option<Entry> {
        self.volatile += usize::from(entry.is_volatile());
        let old = match self.entries.get_mut(&key as &dyn Lookup) {
            Some(place) => Some(std::mem::replace(place, entry)),
            None => self.entries.insert(Key::new(key.bytes()), entry),
        };
        self.volatile -= usize::from(old.as_ref().is_some_and(Entry::is_volatile));
        old
    }

    /// Like [`Table::insert`], for a string, which is marked as used in this second. If the old and the new
    /// string are of similar length and neither expires, the old one is overwritten in place, which saves an
    /// allocation; then nothing is returned.
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

    /// Changes the expiry of the key if it exists.
    pub(super) fn set_expires_at_ms(&mut self, key: HashedKey, expires_at_ms: Option<i64>) {
        if let Some(entry) = self.entries.get_mut(&key as &dyn Lookup) {
            self.volatile -= usize::from(entry.is_volatile());
            entry.set_expires_at_ms(expires_at_ms);
            self.volatile += usize::from(entry.is_volatile());
        }
    }

    /// Removes the keys whose own expiry has passed. Returns them and the earliest expiry that is left,
    /// or `i64::MAX`.
    pub(super) fn take_expired(&mut self, now_ms: i64) -> (Vec<(Key, Entry)>, i64) {
        if self.volatile == 0 {
            return (Vec::new(), i64::MAX);
        }
        let passed = self.entries.extract_if(|_, entry| entry.is_expired(now_ms));
        let expired: Vec<(Key, Entry)> = passed.collect();
        self.volatile -= expired.len();
        let left = self.entries.values().filter_map(Entry::expires_at_ms);
        (expired, left.min().unwrap_or(i64::MAX))
    }

    /// Checks the invariants of the table, which is in the shard with that index.
    ///
    /// # Errors
    /// A sentence about what is wrong.
    pub(super) fn check(&self, shard: usize) -> Result<(), String> {
        let volatile = self.entries.values().filter(|entry| entry.is_volatile()).count();
        ensure!(volatile == self.volatile, "{volatile} keys expire, counted: {}", self.volatile);
        for (key, entry) in &self.entries {
            let (hashed, name) = (HashedKey::new(key), key.escape_ascii());
            ensure!(hashed.shard() == shard, "key {name} belongs to shard {}", hashed.shard());
            let found = self.get(hashed).is_some_and(|found| std::ptr::eq(found, entry));
            ensure!(found, "key {name} is not found under its hash");
            if let Value::Hash(hash) = &entry.value {
                ensure!(!hash.is_empty(), "key {name} holds an empty hash");
                hash.check().map_err(|fault| format!("key {name}: {fault}"))?;
            }
        }
        Ok(())
    }
}
