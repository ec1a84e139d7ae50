//! A table: the keys of one database in one shard, with what they hold.
//!
//! Its [`Pages`] hold a record for each key, and its index, a `HashMap`, finds the place of a record by a
//! *fragment* of the key's hash: a slot of the map takes 11 bytes, whatever the key and the value are. (With
//! keys and values in the slots, the map's free ones, up to half of all, would take more than the data.) If
//! another key has the fragment already, a key gets the next free one: the fragments are a hash table of 16
//! million places with linear probing, of which the map stores those in use. A key that is removed leaves no
//! gap before one that was pushed aside by it.
//!
//! Values that are large, or that change in place, stand outside; their records hold a number.
//!
//! Invariants ([`Table::check`]): each key is found by its hash, which picks this shard; every live record
//! has one slot, and every large value one record; no hash is empty. The shard's lock guards the table. The
//! index of expiring fields is in the shard.

use std::collections::{HashMap, HashSet};
use std::hint::black_box;
use std::ops::Deref;

use super::hash::{Hash, HashRef};
use super::indexed::Indexed;
use super::key::{BuildPassThrough, Fragment, HashedKey};
use super::memory::{UNIT_BYTES, allocated, grow_slowly};
use super::pages::{Pages, Place};
use super::record::{Body, LARGE_BYTES, NEVER, NewRecord, Record, StringOrigin};
use super::usage::{Usage, UsageWord};
use super::value::{Entry, EntryRef, Value, ValueRef, WrongType};
use crate::text::ensure;

/// A map gives memory back when its capacity exceeds this many times its length …
const SPARSE: usize = 8;
/// … unless its capacity is at most this.
const SMALL_MAP: usize = 64;

/// Where a key's record is, and when or how often the key was used ([`Usage`]). Readers update that.
struct Slot {
    /// In bytes, so that a slot needs no alignment.
    place: [u8; 4],
    usage: UsageWord,
}

impl Slot {
    fn place(&self) -> Place {
        Place::from(u32::from_le_bytes(self.place))
    }

    fn set_place(&mut self, place: Place) {
        self.place = place.to_u32().to_le_bytes();
    }
}

type Index = HashMap<Fragment, Slot, BuildPassThrough>;

/// A slot of the map: a fragment, what it stands for, and one byte of the hash.
const SLOT_BYTES: usize = size_of::<(Fragment, Slot)>() + 1;

/// The keys of one database in one shard. Its counts include expired keys that are not removed yet.
#[derive(Default)]
pub struct Table {
    index: Index,
    pages: Pages,
    /// Most tables have none.
    large: Option<Box<LargeValues>>,
}

/// What is left of an entry that was removed or replaced.
#[derive(Default)]
pub struct Removed {
    /// When it would have expired: Unix time in milliseconds.
    pub expires_at_ms: Option<i64>,
    /// The earliest expiry of a field in it.
    pub(super) earliest_field_ms: Option<i64>,
    /// Its value, if that stood outside.
    pub(super) large: Option<Value>,
}

/// A key that was removed, with what is left of its entry.
pub type RemovedKey = (Box<[u8]>, Removed);

impl Removed {
    /// Whether it had expired.
    pub(super) fn is_expired(&self, now_ms: i64) -> bool {
        self.expires_at_ms.is_some_and(|expires_at_ms| expires_at_ms < now_ms)
    }
}

/// Where a key is, until the table is changed otherwise than there.
#[derive(Clone, Copy)]
pub(super) struct Spot {
    fragment: Fragment,
    place: Place,
}

/// A key that was found.
struct Found<'a> {
    fragment: Fragment,
    slot: &'a Slot,
    record: Record<'a>,
}

impl Table {
    pub fn len(&self) -> usize {
        self.index.len()
    }

    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// The number of keys that have an expiry.
    pub fn volatile(&self) -> usize {
        self.pages.volatile()
    }

    /// The memory of the index, in bytes. The standard library's map has a power of two of slots, and keeps
    /// an eighth of them free, or one of four. It takes as many bytes more as it compares at once, 16.
    #[inline]
    pub fn index_bytes(&self) -> usize {
        match self.index.capacity() {
            0 => 0,
            capacity => allocated((capacity / 7 * 8).max(4) * SLOT_BYTES + 16),
        }
    }

    /// The memory that it takes, in [`UNIT_BYTES`].
    #[inline]
    pub fn memory_units(&self) -> u32 {
        let large_bytes = self.large.as_ref().map_or(0, |large| large.memory_bytes());
        self.pages.memory_units() + ((self.index_bytes() + large_bytes) / UNIT_BYTES) as u32
    }

    /// The memory that new keys can use before it takes more: free slots of the index, and what no live
    /// record takes of the pages.
    pub fn free_bytes(&self) -> usize {
        self.index_bytes() - self.len() * SLOT_BYTES + self.pages.free_bytes()
    }

    /// The memory of one key, in bytes: its slot, its record, and its value if that stands outside.
    pub fn key_bytes(&self, key: HashedKey) -> Option<usize> {
        let Found { record, .. } = find(&self.index, &self.pages, key)?;
        let large_bytes = match record.body() {
            Body::Large(number) => size_of::<Option<Value>>() + self.large(number).heap_bytes(),
            _ => 0,
        };
        Some(SLOT_BYTES + record.len() + large_bytes)
    }

    /// Brings all records into the CPU's cache. They are stored in another order than the index, so reading
    /// them one by one waits for each.
    fn prefetch_records(&self) {
        let touched = self.index.values().map(|slot| self.touch(slot.place()));
        black_box(touched.fold(0, u8::wrapping_add));
    }

    /// Keys and entries in no particular order, expired ones included. The first one waits until all records
    /// are in the CPU's cache.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], EntryRef<'_>)> {
        self.prefetch_records();
        self.index.values().map(|slot| {
            let record = self.pages.record(slot.place());
            (record.key, self.entry(slot, record))
        })
    }

    /// When or how often each key was used, with the place of its record. Unlike [`Table::iter`] it does not
    /// read the record, which is rarely in the CPU's cache.
    pub(super) fn usages(&self) -> impl ExactSizeIterator<Item = (u32, Place)> {
        self.index.values().map(|slot| (slot.usage.load(), slot.place()))
    }

    /// The key of the record at that place.
    pub(super) fn key_at(&self, place: Place) -> &[u8] {
        self.pages.record(place).key
    }

    /// When the key of the record at that place expires.
    pub(super) fn expires_at(&self, place: Place) -> Option<i64> {
        let expires_at_ms = self.pages.record(place).expires_at_ms;
        (expires_at_ms != NEVER).then_some(expires_at_ms)
    }

    /// Finds the place of the record of the key, or of another with its fragment. To prefetch: with
    /// [`Table::touch`] it is half of a lookup.
    pub(super) fn probe(&self, key: HashedKey) -> Option<Place> {
        self.index.get(&key.fragment()).map(|slot| slot.place())
    }

    /// Brings a record into the CPU's cache.
    pub(super) fn touch(&self, place: Place) -> u8 {
        self.pages.touch(place)
    }

    /// The hash that the record at that place names, if it is in the indexed form.
    pub(super) fn indexed_at(&self, place: Place) -> Option<&Indexed> {
        let Body::Large(number) = self.pages.record(place).body() else { return None };
        match self.large(number).view() {
            ValueRef::Hash(HashRef::Indexed(indexed)) => Some(indexed),
            _ => None,
        }
    }

    #[inline]
    fn entry<'a>(&'a self, slot: &'a Slot, record: Record<'a>) -> EntryRef<'a> {
        let value = match record.body() {
            Body::String(bytes) => ValueRef::String(bytes),
            Body::Packed(packed) => ValueRef::Hash(HashRef::Packed(packed)),
            Body::Large(number) => self.large(number).view(),
        };
        let (expires_at_ms, origin) = (record.expires_at_ms, record.origin());
        EntryRef { value, expires_at_ms, origin, usage: &slot.usage }
    }

    fn large(&self, number: u32) -> &Value {
        let value =
            self.large.as_ref().and_then(|large| large.values.get(number as usize)?.as_ref());
        value.unwrap_or_else(|| unreachable!("the record of a large value has its number"))
    }

    /// What the key holds.
    #[inline]
    pub(super) fn get(&self, key: HashedKey) -> Option<EntryRef<'_>> {
        find(&self.index, &self.pages, key).map(|found| self.entry(found.slot, found.record))
    }

    /// What the key holds, and where it is.
    #[inline]
    pub(super) fn locate(&self, key: HashedKey) -> Option<(Spot, EntryRef<'_>)> {
        let found = find(&self.index, &self.pages, key)?;
        let spot = Spot { fragment: found.fragment, place: found.slot.place() };
        Some((spot, self.entry(found.slot, found.record)))
    }

    // ---- Changes ----

    /// Stores the entry, which counts as a use of the key. Returns what is left of the one it replaces.
    pub(super) fn insert(&mut self, key: HashedKey, entry: Entry, usage: Usage) -> Option<Removed> {
        let Entry { value, expires_at_ms, origin, .. } = entry;
        let bytes = key.bytes();
        if let Some(body) = value.body() {
            return self.put(NewRecord { key: bytes, body, origin, expires_at_ms }, key, usage);
        }
        let body = Body::Large(self.large.get_or_insert_default().add(value));
        self.put(NewRecord { key: bytes, body, origin, expires_at_ms }, key, usage)
    }

    /// Like [`Table::insert`], for a string.
    #[inline]
    pub(super) fn insert_string(
        &mut self,
        key: HashedKey,
        value: &[u8],
        expires_at_ms: Option<i64>,
        usage: Usage,
    ) -> Option<Removed> {
        if value.len() > LARGE_BYTES {
            return self.insert(key, Entry::new(Value::String(value.into()), expires_at_ms), usage);
        }
        let (body, origin) = (Body::String(value), StringOrigin::Whole);
        let expires_at_ms = expires_at_ms.unwrap_or(NEVER);
        self.put(NewRecord { key: key.bytes(), body, origin, expires_at_ms }, key, usage)
    }

    #[inline]
    fn put(&mut self, new: NewRecord, key: HashedKey, usage: Usage) -> Option<Removed> {
        let Some(Found { fragment, slot, record }) = find(&self.index, &self.pages, key) else {
            let place = self.pages.append(&new).to_u32().to_le_bytes();
            self.add_slot(key.fragment(), Slot { place, usage: usage.first().into() });
            return None;
        };
        usage.mark(&slot.usage);
        let (place, shape) = (slot.place(), record.shape());
        let removed = remains(&mut self.large, record);
        if !self.pages.overwrite(place, shape, new.body, new.origin, new.expires_at_ms) {
            self.replace(fragment, place, &new);
        }
        Some(removed)
    }

    fn add_slot(&mut self, mut fragment: Fragment, slot: Slot) {
        while self.index.contains_key(&fragment) {
            fragment = fragment.next();
        }
        self.index.insert(fragment, slot);
    }

    /// Appends a record in place of another.
    fn replace(&mut self, fragment: Fragment, old: Place, new: &NewRecord) {
        self.pages.kill(old);
        let place = self.pages.append(new);
        if let Some(slot) = self.index.get_mut(&fragment) {
            slot.set_place(place);
        }
        self.clean();
    }

    /// Removes the key.
    pub(super) fn remove(&mut self, key: HashedKey) -> Option<Removed> {
        let Found { fragment, slot, record } = find(&self.index, &self.pages, key)?;
        let (place, removed) = (slot.place(), remains(&mut self.large, record));
        self.pages.kill(place);
        self.index.remove(&fragment);
        if self.is_empty() {
            *self = Table::default();
            return Some(removed);
        }
        self.close_gap(fragment);
        self.clean();
        if self.large.as_ref().is_some_and(|large| large.is_empty()) {
            self.large = None;
        }
        let capacity = self.index.capacity();
        if capacity > SMALL_MAP && self.index.len() * SPARSE < capacity {
            self.index.shrink_to(self.index.len() * 2);
        }
        Some(removed)
    }

    /// Moves the keys that were pushed aside by others back as far as they can go.
    fn close_gap(&mut self, gap: Fragment) {
        let mut fragment = gap.next();
        while let Some(slot) = self.index.remove(&fragment) {
            let home = HashedKey::new(self.pages.record(slot.place()).key).fragment();
            self.add_slot(home, slot);
            fragment = fragment.next();
        }
    }

    /// Removes the key and returns its entry.
    pub(super) fn take(&mut self, key: HashedKey) -> Option<Entry> {
        let entry = self.get(key)?;
        let (expires_at_ms, origin) = (entry.expires_at_ms(), entry.origin);
        let is_large = matches!(find(&self.index, &self.pages, key)?.record.body(), Body::Large(_));
        let small = if is_large { None } else { Some(entry.value.to_owned()) };
        let value = self.remove(key)?.large.or(small)?;
        Some(Entry { origin, ..Entry::new(value, expires_at_ms) })
    }

    /// Changes the expiry of the key if it exists.
    pub(super) fn set_expires_at_ms(&mut self, key: HashedKey, expires_at_ms: Option<i64>) {
        let Some(Found { fragment, slot, .. }) = find(&self.index, &self.pages, key) else {
            return;
        };
        let (place, expires_at_ms) = (slot.place(), expires_at_ms.unwrap_or(NEVER));
        if !self.pages.set_expiry(place, expires_at_ms) {
            let copy = self.pages.record(place).to_vec();
            let old = Record::at(&copy);
            let (key, body, origin) = (old.key, old.body(), old.origin());
            self.replace(fragment, place, &NewRecord { key, body, origin, expires_at_ms });
        }
    }

    /// The string in that spot, to be changed.
    ///
    /// # Errors
    /// [`WrongType`] if it holds something else.
    pub(super) fn string_mut(&mut self, spot: Spot) -> Result<StringMut<'_>, WrongType> {
        let is_string = match self.pages.record(spot.place).body() {
            Body::String(_) => true,
            Body::Packed(_) => false,
            Body::Large(number) => matches!(self.large(number), Value::String(_)),
        };
        if is_string { Ok(StringMut { table: self, spot, changed: None }) } else { Err(WrongType) }
    }

    /// Calls `edit` with the hash in that spot.
    ///
    /// # Errors
    /// [`WrongType`] if it holds something else.
    pub(super) fn edit_hash<T>(
        &mut self,
        spot: Spot,
        edit: impl FnOnce(&mut Hash) -> T,
    ) -> Result<T, WrongType> {
        let mut hash = match self.pages.record(spot.place).body() {
            Body::Packed(packed) => HashRef::Packed(packed).to_owned(),
            Body::Large(number) if matches!(self.large(number), Value::Hash(_)) => {
                let Value::Hash(hash) = take_large(&mut self.large, number) else {
                    unreachable!("it is a hash");
                };
                hash
            }
            _ => return Err(WrongType),
        };
        let result = edit(&mut hash);
        self.store(spot, Value::Hash(hash), StringOrigin::default());
        Ok(result)
    }

    /// The string whose record is there.
    fn string_at(&self, place: Place) -> &[u8] {
        match self.pages.record(place).body() {
            Body::String(bytes) => bytes,
            Body::Large(number) => match self.large(number) {
                Value::String(bytes) => bytes,
                Value::Hash(_) => &[],
            },
            Body::Packed(_) => &[],
        }
    }

    /// Takes the string whose record is there out of it, to be changed and stored.
    fn take_string(&mut self, place: Place) -> Vec<u8> {
        match self.pages.record(place).body() {
            Body::Large(number) => match take_large(&mut self.large, number) {
                Value::String(bytes) => bytes,
                Value::Hash(_) => Vec::new(),
            },
            Body::String(bytes) => bytes.to_vec(),
            Body::Packed(_) => Vec::new(),
        }
    }

    /// Stores a value in place of the one that was taken out of the record there.
    fn store(&mut self, spot: Spot, value: Value, origin: StringOrigin) {
        if let Some(body) = value.body() {
            return self.store_body(spot, body, origin);
        }
        let number = self.large.get_or_insert_default().add(value);
        self.store_body(spot, Body::Large(number), origin);
    }

    fn store_body(&mut self, spot: Spot, body: Body, origin: StringOrigin) {
        let Spot { fragment, place } = spot;
        let old = self.pages.record(place);
        let (shape, expires_at_ms) = (old.shape(), old.expires_at_ms);
        if !self.pages.overwrite(place, shape, body, origin, expires_at_ms) {
            let key = &self.pages.record(place).key.to_vec();
            self.replace(fragment, place, &NewRecord { key, body, origin, expires_at_ms });
        }
    }

    /// Cleans pages until few bytes are dead.
    #[inline]
    fn clean(&mut self) {
        while let Some(page) = self.pages.to_clean() {
            let index = &mut self.index;
            self.pages.clean(page, |key, old, new| {
                let mut fragment = HashedKey::new(key).fragment();
                while let Some(slot) = index.get_mut(&fragment) {
                    if slot.place() == old {
                        slot.set_place(new);
                        break;
                    }
                    fragment = fragment.next();
                }
            });
        }
    }

    /// Removes the keys whose own expiry has passed. Returns them and the earliest expiry that is left,
    /// or `i64::MAX`.
    pub(super) fn take_expired(&mut self, now_ms: i64) -> (Vec<RemovedKey>, i64) {
        if self.volatile() == 0 {
            return (Vec::new(), i64::MAX);
        }
        let (mut expired, mut earliest_ms): (Vec<Box<[u8]>>, i64) = (Vec::new(), i64::MAX);
        for (_, record) in self.pages.iter().filter(|(_, record)| record.is_volatile()) {
            if record.expires_at_ms < now_ms {
                expired.push(record.key.into());
            } else {
                earliest_ms = earliest_ms.min(record.expires_at_ms);
            }
        }
        let mut remove = |key: Box<[u8]>| {
            let removed = self.remove(HashedKey::new(&key))?;
            Some((key, removed))
        };
        (expired.into_iter().filter_map(&mut remove).collect(), earliest_ms)
    }

    /// Checks the invariants of the table, which is in the shard with that index.
    ///
    /// # Errors
    /// A sentence about what is wrong.
    pub(super) fn check(&self, shard: usize) -> Result<(), String> {
        self.pages.check()?;
        let (records, keys) = (self.pages.iter().count(), self.len());
        ensure!(records == keys, "{records} records are live, but the index has {keys}");
        let mut numbers = HashSet::new();
        for slot in self.index.values() {
            let record = self.pages.record(slot.place());
            let (hashed, name) = (HashedKey::new(record.key), record.key.escape_ascii());
            ensure!(!record.is_dead(), "the record of key {name} is dead");
            ensure!(hashed.shard() == shard, "key {name} belongs to shard {}", hashed.shard());
            let found = find(&self.index, &self.pages, hashed);
            let is_found = found.is_some_and(|found| std::ptr::eq(found.slot, slot));
            ensure!(is_found, "key {name} is not found under its hash");
            if let Body::Large(number) = record.body() {
                ensure!(numbers.insert(number), "key {name} shares its value with another");
            }
            if let ValueRef::Hash(hash) = self.entry(slot, record).value {
                ensure!(!hash.is_empty(), "key {name} holds an empty hash");
                hash.check().map_err(|fault| format!("key {name}: {fault}"))?;
            }
        }
        self.large.as_ref().map_or(Ok(()), |large| large.check(numbers.len()))
    }
}

fn find<'a>(index: &'a Index, pages: &'a Pages, key: HashedKey) -> Option<Found<'a>> {
    let mut fragment = key.fragment();
    loop {
        let slot = index.get(&fragment)?;
        let record = pages.record(slot.place());
        if record.key == key.bytes() {
            return Some(Found { fragment, slot, record });
        }
        fragment = fragment.next();
    }
}

/// Takes a value that stands outside, for a record that is about to lose it.
fn take_large(large: &mut Option<Box<LargeValues>>, number: u32) -> Value {
    let value = large.as_mut().and_then(|large| large.take(number));
    value.unwrap_or_else(|| unreachable!("the record of a large value has its number"))
}

/// What is left of a record that is about to be dead.
fn remains(large: &mut Option<Box<LargeValues>>, record: Record) -> Removed {
    let expires_at_ms = Some(record.expires_at_ms).filter(|&at_ms| at_ms != NEVER);
    let (large, earliest_field_ms) = match record.body() {
        Body::String(_) => (None, None),
        Body::Packed(packed) => (None, HashRef::Packed(packed).earliest_ms()),
        Body::Large(number) => {
            let value = take_large(large, number);
            let earliest_ms = match &value {
                Value::Hash(hash) => hash.earliest_ms(),
                Value::String(_) => None,
            };
            (Some(value), earliest_ms)
        }
    };
    Removed { expires_at_ms, earliest_field_ms, large }
}

/// A string that may be changed.
pub struct StringMut<'a> {
    table: &'a mut Table,
    spot: Spot,
    /// From the first change on. It is stored when this is dropped.
    changed: Option<(Vec<u8>, StringOrigin)>,
}

impl StringMut<'_> {
    /// The bytes, to be changed in place. From then on it is [`StringOrigin::InPlace`].
    pub fn in_place(&mut self) -> &mut Vec<u8> {
        let (table, place) = (&mut *self.table, self.spot.place);
        let take_out = || (table.take_string(place), StringOrigin::InPlace);
        let (bytes, origin) = self.changed.get_or_insert_with(take_out);
        *origin = StringOrigin::InPlace;
        bytes
    }

    /// Replaces the whole string.
    pub fn replace(&mut self, bytes: Vec<u8>, origin: StringOrigin) {
        if self.changed.is_none() && self.len() > LARGE_BYTES {
            self.table.take_string(self.spot.place);
        }
        self.changed = Some((bytes, origin));
    }
}

impl Deref for StringMut<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.changed {
            Some((bytes, _)) => bytes,
            None => self.table.string_at(self.spot.place),
        }
    }
}

impl Drop for StringMut<'_> {
    fn drop(&mut self) {
        if let Some((bytes, origin)) = self.changed.take() {
            self.table.store(self.spot, Value::String(bytes), origin);
        }
    }
}

/// Values that stand outside of the records, by number.
#[derive(Default)]
struct LargeValues {
    values: Vec<Option<Value>>,
    free: Vec<u32>,
    heap_bytes: usize,
}

impl LargeValues {
    fn is_empty(&self) -> bool {
        self.values.len() == self.free.len()
    }

    fn add(&mut self, value: Value) -> u32 {
        self.heap_bytes += value.heap_bytes();
        let number = self.free.pop().unwrap_or_else(|| {
            grow_slowly(&mut self.values);
            self.values.push(None);
            self.values.len() as u32 - 1
        });
        self.values[number as usize] = Some(value);
        number
    }

    fn take(&mut self, number: u32) -> Option<Value> {
        let value = self.values.get_mut(number as usize)?.take()?;
        self.heap_bytes -= value.heap_bytes();
        self.free.push(number);
        Some(value)
    }

    fn memory_bytes(&self) -> usize {
        let values = allocated(self.values.capacity() * size_of::<Option<Value>>());
        let free = allocated(self.free.capacity() * size_of::<u32>());
        allocated(size_of::<LargeValues>()) + values + free + self.heap_bytes
    }

    fn check(&self, records: usize) -> Result<(), String> {
        let values = self.values.iter().flatten();
        let bytes: usize = values.clone().map(Value::heap_bytes).sum();
        ensure!(bytes == self.heap_bytes, "{bytes} bytes, counted: {}", self.heap_bytes);
        let (count, free) = (values.count(), self.values.len() - self.free.len());
        ensure!(count == records, "{count} large values for {records} records");
        ensure!(count == free, "{count} large values, but {free} numbers are in use");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::hash::PackedLimits;
    use super::*;
    use crate::rng::Rng;

    const USED: Usage = Usage::Time { now: 3 };
    const LIMITS: PackedLimits = PackedLimits { entries: 20, value_bytes: 100 };

    /// What a key holds, and when it expires.
    type Item = (Content, Option<i64>);

    #[derive(Clone, Debug, PartialEq, Eq)]
    enum Content {
        String(Vec<u8>),
        Hash(BTreeMap<Vec<u8>, Vec<u8>>),
    }

    fn content(value: ValueRef) -> Content {
        match value {
            ValueRef::String(bytes) => Content::String(bytes.to_vec()),
            ValueRef::Hash(hash) => {
                let fields = hash.iter().map(|field| (field.name.to_vec(), field.value.to_vec()));
                Content::Hash(fields.collect())
            }
        }
    }

    /// The keys, as the table has them. It is checked too, but not which shard the keys belong to.
    fn items(table: &Table) -> BTreeMap<Vec<u8>, Item> {
        table.pages.check().expect("the pages are sound");
        assert_eq!(table.pages.iter().count(), table.len());
        let large = |table: &Table| {
            let is_large =
                |slot: &&Slot| matches!(table.pages.record(slot.place()).body(), Body::Large(_));
            table.index.values().filter(is_large).count()
        };
        if let Some(values) = &table.large {
            values.check(large(table)).expect("the large values are sound");
        }
        let found = table.iter().map(|(key, entry)| {
            let found = table.get(HashedKey::new(key)).map(|found| content(found.value));
            assert_eq!(found, Some(content(entry.value)), "{}", key.escape_ascii());
            (key.to_vec(), (content(entry.value), entry.expires_at_ms()))
        });
        found.collect()
    }

    /// Pairs of keys that have the same fragment: of 20,000 keys, about ten.
    fn pairs_with_the_same_fragment() -> Vec<[Vec<u8>; 2]> {
        let mut by_fragment = HashMap::new();
        let mut pairs = Vec::new();
        for n in 0u32.. {
            let key = n.to_be_bytes().to_vec();
            let fragment = HashedKey::new(&key).fragment();
            pairs.extend(by_fragment.insert(fragment, key.clone()).map(|first| [first, key]));
            if n > 20_000 && !pairs.is_empty() {
                return pairs;
            }
        }
        unreachable!("there are as many keys as fragments")
    }

    fn string_mut<'a>(
        table: &'a mut Table,
        key: HashedKey,
    ) -> Option<Result<StringMut<'a>, WrongType>> {
        let (spot, _) = table.locate(key)?;
        Some(table.string_mut(spot))
    }

    fn random_bytes(random: &mut Rng) -> Vec<u8> {
        let len = match random.below(40) {
            0 => 600 + random.below(100),
            1 => 3000 + random.below(8000),
            _ => random.below(80),
        };
        vec![random.below(256) as u8; len]
    }

    #[test]
    fn a_table_holds_what_was_stored_through_growth_changes_deletions_and_cleaning() {
        for seed in 0..30 {
            let mut random = Rng::new(seed);
            let (mut table, mut model) = (Table::default(), BTreeMap::<Vec<u8>, Item>::new());
            let keys = 1 + random.below(300);
            for step in 0..3000 {
                let number = random.below(keys);
                let key = match number % 50 {
                    0 => vec![number as u8; 5000], // longer than a page
                    _ => format!("key {number}").into_bytes(),
                };
                let hashed = HashedKey::new(&key);
                let bytes = random_bytes(&mut random);
                let expires_at_ms = Some(random.below(100) as i64).filter(|at_ms| *at_ms < 30);
                match random.below(9) {
                    0..3 => {
                        let old = table.insert_string(hashed, &bytes, expires_at_ms, USED);
                        let new = (Content::String(bytes), expires_at_ms);
                        let expected = model.insert(key, new).map(|(_, at_ms)| at_ms);
                        assert_eq!(old.map(|old| old.expires_at_ms), expected);
                    }
                    3 => {
                        let mut hash = Hash::new();
                        (0..=random.below(30))
                            .for_each(|n| _ = hash.set(&[n as u8], &bytes, LIMITS));
                        let new = (content(ValueRef::Hash(hash.view())), expires_at_ms);
                        table.insert(hashed, Entry::new(Value::Hash(hash), expires_at_ms), USED);
                        model.insert(key, new);
                    }
                    4 => match (string_mut(&mut table, hashed), model.get_mut(&key)) {
                        (Some(Ok(mut string)), Some((Content::String(expected), _))) => {
                            assert_eq!(*string, **expected);
                            if random.below(2) == 0 {
                                string.in_place().extend_from_slice(&bytes);
                                expected.extend_from_slice(&bytes);
                            } else {
                                string.replace(bytes.clone(), StringOrigin::AsText);
                                *expected = bytes;
                            }
                        }
                        (Some(Err(WrongType)), Some((Content::Hash(_), _))) | (None, None) => {}
                        (found, expected) => panic!("{} {expected:?}", found.is_some()),
                    },
                    5 => {
                        let name = [random.below(30) as u8];
                        let edit = |hash: &mut Hash| hash.set(&name, &bytes, LIMITS);
                        let spot = table.locate(hashed).map(|(spot, _)| spot);
                        let edited = spot.map(|spot| table.edit_hash(spot, edit));
                        match (edited, model.get_mut(&key)) {
                            (Some(Ok(is_new)), Some((Content::Hash(fields), _))) => {
                                assert_eq!(is_new, fields.insert(name.to_vec(), bytes).is_none());
                            }
                            (Some(Err(WrongType)), Some((Content::String(_), _)))
                            | (None, None) => {}
                            (edited, expected) => panic!("{edited:?} {expected:?}"),
                        }
                    }
                    6 => {
                        table.set_expires_at_ms(hashed, expires_at_ms);
                        model.entry(key).and_modify(|(_, at_ms)| *at_ms = expires_at_ms);
                    }
                    7 => {
                        let taken = table.take(hashed);
                        let taken =
                            taken.map(|old| (content(old.value.view()), old.expires_at_ms()));
                        assert_eq!(taken, model.remove(&key));
                    }
                    _ => assert_eq!(table.remove(hashed).is_some(), model.remove(&key).is_some()),
                }
                if step % 500 == 0 {
                    let (expired, earliest_ms) = table.take_expired(10);
                    let passed =
                        |_: &Vec<u8>, (_, at_ms): &mut Item| at_ms.is_some_and(|ms| ms < 10);
                    let expected: Vec<_> =
                        model.extract_if(.., passed).map(|(key, _)| key).collect();
                    let mut expired: Vec<_> =
                        expired.into_iter().map(|(key, _)| key.into_vec()).collect();
                    expired.sort_unstable();
                    assert_eq!(expired, expected);
                    let left = model.values().filter_map(|(_, at_ms)| *at_ms).min();
                    assert_eq!(earliest_ms, left.unwrap_or(i64::MAX));
                    assert_eq!(items(&table), model);
                    let volatile = model.values().filter(|(_, at_ms)| at_ms.is_some()).count();
                    assert_eq!(table.volatile(), volatile);
                }
            }
            assert_eq!(items(&table), model);
            model.keys().for_each(|key| _ = table.remove(HashedKey::new(key)));
            assert_eq!(items(&table), BTreeMap::new());
            assert!(table.memory_units() < 1250, "{} units are left", table.memory_units());
        }
    }

    #[test]
    fn two_keys_with_the_same_fragment_are_both_found_whichever_is_removed_first() {
        for pair in pairs_with_the_same_fragment() {
            let [one, other] = [HashedKey::new(&pair[0]), HashedKey::new(&pair[1])];
            // A key whose place the pushed one took.
            let fill = |table: &mut Table| {
                table.insert_string(one, b"1", None, USED);
                table.insert_string(other, b"2", Some(9), USED);
            };
            for (removed, left) in [(one, other), (other, one)] {
                let mut table = Table::default();
                fill(&mut table);
                assert_eq!(items(&table).len(), 2);
                table.insert_string(left, b"longer than before", None, USED);
                assert!(table.remove(removed).is_some() && table.get(removed).is_none());
                let found = table.get(left).map(|found| content(found.value));
                assert_eq!(found, Some(Content::String(b"longer than before".to_vec())));
                assert_eq!(table.index.keys().collect::<Vec<_>>(), [&one.fragment()]);
                table.insert_string(removed, b"again", None, USED);
                assert_eq!(items(&table).len(), 2);
            }
        }
    }

    #[test]
    fn little_is_free_however_often_values_change_their_length() {
        let (mut table, mut random) = (Table::default(), Rng::new(1));
        for step in 0..20_000 {
            let key = format!("key:{:012}", step % 1000);
            let value = vec![b'x'; 16 + random.below(33)];
            table.insert_string(HashedKey::new(key.as_bytes()), &value, None, USED);
        }
        let (free, all) = (table.pages.free_bytes(), table.pages.memory_bytes());
        assert!(free * 4 < all, "{free} of {all} bytes are free");
    }

    #[test]
    fn a_table_without_large_values_takes_ten_words() {
        assert_eq!(size_of::<Table>(), 80);
        assert_eq!(SLOT_BYTES, 11);
    }
}
