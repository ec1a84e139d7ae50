//! A table: the keys of one database in one shard, with their entries.
//!
//! Invariants ([`Table::check`]): each key is found under its hash, which picks this shard; `volatile` is the
//! number of keys that have an expiry, and `heap_bytes` what keys and values take; no hash is empty. The
//! shard's lock guards the table. The index of expiring fields is in the shard.

use std::collections::HashMap;
use std::ops::{Deref, DerefMut};

use super::key::{BuildPassThrough, HashedKey, Key, Lookup};
use super::memory::allocated;
use super::usage::Usage;
use super::value::{ByteString, Entry, StringOrigin, Value};
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
    /// The heap memory of keys and values.
    heap_bytes: usize,
}

/// A place in the map: a key, an entry, and one byte of the hash.
const PLACE_BYTES: usize = size_of::<(Key, Entry)>() + 1;

fn heap_bytes(key: &[u8], entry: &Entry) -> usize {
    Key::heap_bytes_of(key.len()) + entry.value.heap_bytes()
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
                places * PLACE_BYTES
            }
        }
    }

    /// The memory that its keys take, in bytes. The free places of the map are not counted: new keys will use
    /// them.
    pub fn memory_bytes(&self) -> usize {
        self.len() * PLACE_BYTES + self.heap_bytes
    }

    /// The memory of the map's free places.
    pub fn free_bytes(&self) -> usize {
        allocated(self.reserved_bytes()).saturating_sub(self.len() * PLACE_BYTES)
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
    pub(super) fn get_mut(&mut self, key: HashedKey) -> Option<EntryMut<'_>> {
        let entry = self.entries.get_mut(&key as &dyn Lookup)?;
        Some(EntryMut {
            bytes_before: entry.value.heap_bytes(),
            entry,
            total: &mut self.heap_bytes,
        })
    }

    /// Stores the entry and returns the one it replaces.
    pub(super) fn insert(&mut self, key: HashedKey, entry: Entry) -> Option<Entry> {
        self.volatile += usize::from(entry.is_volatile());
        self.heap_bytes += heap_bytes(key.bytes(), &entry);
        let old = match self.entries.get_mut(&key as &dyn Lookup) {
            Some(place) => Some(std::mem::replace(place, entry)),
            None => self.entries.insert(Key::new(key.bytes()), entry),
        };
        self.forget(key.bytes(), old.as_ref());
        old
    }

    /// Stops counting an entry that was removed or replaced.
    fn forget(&mut self, key: &[u8], old: Option<&Entry>) {
        if let Some(old) = old {
            self.volatile -= usize::from(old.is_volatile());
            self.heap_bytes -= heap_bytes(key, old);
        }
    }

    /// Like [`Table::insert`], for a string, which is marked as used. If the old and the new
    /// string are of similar length and neither expires, the old one is overwritten in place, which saves an
    /// allocation; then nothing is returned.
    pub(super) fn insert_string(
        &mut self,
        key: HashedKey,
        value: &[u8],
        expires_at_ms: Option<i64>,
        usage: Usage,
    ) -> Option<Entry> {
        let mut added = 0;
        let mut entry = |old: Option<&Entry>| {
            let entry = Entry::new(Value::String(ByteString::new(value)), expires_at_ms);
            entry.mark_stored(usage, old);
            added = heap_bytes(key.bytes(), &entry);
            entry
        };
        let old = match self.entries.get_mut(&key as &dyn Lookup) {
            Some(place) => {
                if expires_at_ms.is_none() && place.overwrite(value) {
                    place.mark_used(usage);
                    return None;
                }
                let new = entry(Some(place));
                Some(std::mem::replace(place, new))
            }
            None => self.entries.insert(Key::new(key.bytes()), entry(None)),
        };
        self.volatile += usize::from(expires_at_ms.is_some());
        self.heap_bytes += added;
        self.forget(key.bytes(), old.as_ref());
        old
    }

    pub(super) fn remove(&mut self, key: HashedKey) -> Option<Entry> {
        let old = self.entries.remove(&key as &dyn Lookup)?;
        self.forget(key.bytes(), Some(&old));
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
        expired.iter().for_each(|(key, entry)| self.forget(key, Some(entry)));
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
        let bytes: usize = self.entries.iter().map(|(key, entry)| heap_bytes(key, entry)).sum();
        ensure!(bytes == self.heap_bytes, "{bytes} bytes, counted: {}", self.heap_bytes);
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

/// An entry whose value may be changed in place. When it is given back, its table counts the difference in
/// memory.
pub struct EntryMut<'a> {
    entry: &'a mut Entry,
    bytes_before: usize,
    total: &'a mut usize,
}

impl Drop for EntryMut<'_> {
    fn drop(&mut self) {
        *self.total += self.entry.value.heap_bytes();
        *self.total -= self.bytes_before;
    }
}

impl Deref for EntryMut<'_> {
    type Target = Entry;

    fn deref(&self) -> &Entry {
        self.entry
    }
}

impl DerefMut for EntryMut<'_> {
    fn deref_mut(&mut self) -> &mut Entry {
        self.entry
    }
}

/// A string that may be changed in place.
pub struct StringMut<'a>(EntryMut<'a>);

impl<'a> StringMut<'a> {
    /// `None` if the entry holds something else.
    pub(super) fn new(entry: EntryMut<'a>) -> Option<StringMut<'a>> {
        matches!(entry.value, Value::String(_)).then_some(StringMut(entry))
    }

    /// The bytes, to be changed in place. From then on it is [`StringOrigin::InPlace`].
    pub fn in_place(&mut self) -> &mut Vec<u8> {
        self.0.origin = StringOrigin::InPlace;
        self.bytes().to_mut()
    }

    /// Replaces the whole string.
    pub fn replace(&mut self, bytes: ByteString, origin: StringOrigin) {
        *self.bytes() = bytes;
        self.0.origin = origin;
    }

    fn bytes(&mut self) -> &mut ByteString {
        match &mut self.0.value {
            Value::String(bytes) => bytes,
            Value::Hash(_) => unreachable!("it was checked when this was made"),
        }
    }
}

impl Deref for StringMut<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0.value {
            Value::String(bytes) => bytes,
            Value::Hash(_) => unreachable!("it was checked when this was made"),
        }
    }
}
