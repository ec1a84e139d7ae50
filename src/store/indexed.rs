//! The indexed form: a hash table by linear hashing (Witold Litwin, "Linear hashing: a new tool for file and
//! table addressing", 1980). There are always as many buckets as entries, and each bucket is a chain of
//! entries that are linked by their numbers.
//!
//! An ordinary table doubles when it is full and moves every entry at once: with ten million fields, all
//! clients of the shard would wait for half a second. Here each new field adds one bucket at the end, and
//! only one chain, about one entry, is divided between the new bucket and the one that has served in its
//! place. A removal merges the last bucket back. So every operation has a small bound, the table shrinks by
//! itself, and there are neither tombstones nor load factors.
//!
//! Invariants ([`Indexed::check`]):
//!
//! - `buckets.len() == entries.len()`.
//! - Each entry is in exactly one chain, that of `bucket_of` its hash.
//! - `expiries` lists exactly the entries that have an expiry.
//! - Every live record is that of one entry.

use std::collections::{BTreeSet, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::sync::LazyLock;

use super::field::{Field, NEVER};
use super::memory::allocated;
use super::pages::{Pages, Place};
use super::record::{self, Body, NewRecord, Record, StringOrigin};
use crate::text::ensure;

/// What an expiry takes in a B-tree whose nodes, of 192 bytes, hold eight of them on average.
const EXPIRY_NODE_BYTES: usize = 24;

/// Hashes with a random key of this process, so that no client can choose fields that collide. All hashes
/// share the key: a key of its own would cost each of them 16 bytes. The low 32 bits are enough because
/// fields are numbered with 32 bits, too.
fn hash_bytes(bytes: &[u8]) -> u32 {
    static KEYS: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    KEYS.hash_one(bytes) as u32
}

/// An expiry as a record has it.
fn in_record(expires_at_ms: i64) -> i64 {
    if expires_at_ms == NEVER { record::NEVER } else { expires_at_ms }
}

/// Fields and their values, in the indexed form; see the module documentation.
#[derive(Clone)]
pub struct Indexed {
    entries: Vec<Entry>,
    /// A record for each field: its name is the key.
    pages: Pages,
    /// The number of the first entry of each chain, or `NONE`.
    buckets: Vec<u32>,
    /// `None` until a field expires. Boxed because most hashes never have an expiring field.
    expiries: Option<Box<Expiries>>,
    /// [`hash_bytes`], unless a test makes fields collide.
    hash_of: fn(&[u8]) -> u32,
}

impl Default for Indexed {
    fn default() -> Indexed {
        let (entries, buckets, expiries) = (Vec::new(), Vec::new(), None);
        Indexed { entries, pages: Pages::default(), buckets, expiries, hash_of: hash_bytes }
    }
}

/// Expiries with the numbers of their entries, the earliest first.
#[derive(Clone, Debug, Default)]
struct Expiries(BTreeSet<(i64, u32)>);

/// A field in the indexed form. The stored hash decides nearly every comparison without reading the record,
/// and lets entries change buckets without reading it.
#[derive(Clone)]
struct Entry {
    place: Place,
    hash: u32,
    /// The number of the next entry in the chain, or `NONE`.
    next: u32,
}

const NONE: u32 = u32::MAX;

impl Indexed {
    /// The number of fields.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// The field of that number.
    pub fn nth(&self, number: usize) -> Option<Field<'_>> {
        self.entries.get(number).map(|entry| self.field(entry))
    }

    /// All fields, by number.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Field<'_>> {
        self.fields(0..self.len())
    }

    /// The fields with these numbers.
    pub fn fields(&self, numbers: Range<usize>) -> impl DoubleEndedIterator<Item = Field<'_>> {
        self.entries[numbers].iter().map(|entry| self.field(entry))
    }

    fn field(&self, entry: &Entry) -> Field<'_> {
        let record = self.pages.record(entry.place);
        let Body::String(value) = record.body() else {
            unreachable!("the value of a field is in its record");
        };
        let expires_at_ms = if record.is_volatile() { record.expires_at_ms } else { NEVER };
        Field { name: record.key, value, expires_at_ms }
    }

    /// Whether any field has, or ever had, an expiry.
    pub fn is_timed(&self) -> bool {
        self.expiries.is_some()
    }

    /// The memory that it takes, in bytes. The tree of expiries is estimated.
    pub fn memory_bytes(&self) -> usize {
        let expiries = self.expiries.as_ref().map_or(0, |expiries| expiries.0.len());
        allocated(size_of::<Indexed>())
            + allocated(self.entries.capacity() * size_of::<Entry>())
            + allocated(self.buckets.capacity() * size_of::<u32>())
            + self.pages.memory_bytes()
            + expiries * EXPIRY_NODE_BYTES
    }

    /// The field with that name.
    pub fn get(&self, name: &[u8]) -> Option<Field<'_>> {
        let number = self.find((self.hash_of)(name), name)?;
        self.nth(number as usize)
    }

    /// Sets a field; returns whether it is new. `expires_at_ms` may be [`NEVER`].
    pub fn put(&mut self, name: &[u8], value: &[u8], expires_at_ms: i64) -> bool {
        let hash = (self.hash_of)(name);
        let (body, origin) = (Body::String(value), StringOrigin::default());
        let expiry = in_record(expires_at_ms);
        let record = NewRecord { key: name, body, origin, expires_at_ms: expiry };
        if let Some(number) = self.find(hash, name) {
            self.relist(number, expires_at_ms);
            let place = self.place(number);
            let shape = self.pages.record(place).shape();
            if !self.pages.overwrite(place, shape, body, origin, expiry) {
                self.replace(number, &record);
            }
            return false;
        }
        let number = self.entries.len() as u32;
        assert!(number != NONE, "a hash has fewer than 2^32 - 1 fields");
        self.add_bucket();
        let place = self.pages.append(&record);
        self.entries.push(Entry { place, hash, next: NONE });
        self.link(number);
        if expires_at_ms != NEVER {
            self.expiries.get_or_insert_default().0.insert((expires_at_ms, number));
        }
        true
    }

    /// Sets or removes the expiry of a field; returns whether the field exists.
    pub fn set_expires_at_ms(&mut self, name: &[u8], expires_at_ms: i64) -> bool {
        let Some(number) = self.find((self.hash_of)(name), name) else {
            return false;
        };
        self.relist(number, expires_at_ms);
        let place = self.place(number);
        if !self.pages.set_expiry(place, in_record(expires_at_ms)) {
            let copy = self.pages.record(place).to_vec();
            let old = Record::at(&copy);
            let (body, origin) = (old.body(), old.origin());
            let expires_at_ms = in_record(expires_at_ms);
            self.replace(number, &NewRecord { key: old.key, body, origin, expires_at_ms });
        }
        true
    }

    fn place(&self, number: u32) -> Place {
        self.entries[number as usize].place
    }

    /// Appends a record in place of another.
    fn replace(&mut self, number: u32, new: &NewRecord) {
        self.pages.kill(self.place(number));
        self.entries[number as usize].place = self.pages.append(new);
        self.clean();
    }

    /// Cleans pages until few bytes are dead.
    fn clean(&mut self) {
        while let Some(page) = self.pages.to_clean() {
            let mut moved = Vec::new();
            self.pages.clean(page, |name, old, new| moved.push(((self.hash_of)(name), old, new)));
            for (hash, old, new) in moved {
                let mut number = self.buckets[self.bucket_of(hash)];
                while self.place(number) != old {
                    number = self.entries[number as usize].next;
                }
                self.entries[number as usize].place = new;
            }
        }
    }

    /// Updates `expiries` for an entry whose expiry is about to change.
    fn relist(&mut self, number: u32, expires_at_ms: i64) {
        if expires_at_ms == NEVER && self.expiries.is_none() {
            return;
        }
        let old_ms = self.field(&self.entries[number as usize]).expires_at_ms;
        let expiries = self.expiries.get_or_insert_default();
        expiries.0.remove(&(old_ms, number));
        if expires_at_ms != NEVER {
            expiries.0.insert((expires_at_ms, number));
        }
    }

    /// Expiries with the numbers of their entries, the earliest first.
    pub fn by_expiry(&self) -> impl Iterator<Item = (i64, u32)> {
        self.expiries.iter().flat_map(|expiries| expiries.0.iter().copied())
    }

    /// The numbers of the entries that have expired.
    pub fn expired(&self, now_ms: i64) -> impl Iterator<Item = u32> {
        let expired =
            self.by_expiry().take_while(move |(expires_at_ms, _)| *expires_at_ms < now_ms);
        expired.map(|(_, number)| number)
    }

    /// Removes a field; returns whether it existed.
    pub fn remove(&mut self, name: &[u8]) -> bool {
        let Some(number) = self.find((self.hash_of)(name), name) else {
            return false;
        };
        *self.link_to(number) = self.entries[number as usize].next;
        let last = self.entries.len() as u32 - 1;
        self.relist(number, NEVER);
        if number != last {
            *self.link_to(last) = number;
            self.renumber_expiry(last, number);
        }
        let removed = self.entries.swap_remove(number as usize);
        self.remove_bucket();
        self.pages.kill(removed.place);
        self.clean();

        // Far below one half, so that a vector that has just grown does not shrink again.
        if self.entries.len() < self.entries.capacity() / 4 {
            self.entries.shrink_to(self.entries.len() * 2);
            self.buckets.shrink_to(self.buckets.len() * 2);
        }
        true
    }

    /// Updates `expiries` for an entry whose number changes.
    fn renumber_expiry(&mut self, old: u32, new: u32) {
        if let Some(expiries) = &mut self.expiries {
            let record = self.pages.record(self.entries[old as usize].place);
            let expires_at_ms = record.expires_at_ms;
            if expiries.0.remove(&(expires_at_ms, old)) {
                expiries.0.insert((expires_at_ms, new));
            }
        }
    }

    /// The number of the field, or of another in its chain. To prefetch: with [`Indexed::place_of`] and
    /// [`Indexed::touch`] it is half of a lookup.
    pub(super) fn probe(&self, name: &[u8]) -> Option<u32> {
        self.buckets.get(self.bucket_of((self.hash_of)(name))).copied()
    }

    /// The place of a field's record.
    pub(super) fn place_of(&self, number: u32) -> Option<Place> {
        self.entries.get(number as usize).map(|entry| entry.place)
    }

    /// Brings the record of a field into the CPU's cache.
    pub(super) fn touch(&self, place: Place) -> u8 {
        self.pages.touch(place)
    }

    fn find(&self, hash: u32, name: &[u8]) -> Option<u32> {
        if self.buckets.is_empty() {
            return None;
        }
        let mut number = self.buckets[self.bucket_of(hash)];
        while number != NONE {
            let entry = &self.entries[number as usize];
            if entry.hash == hash && self.pages.record(entry.place).key == name {
                return Some(number);
            }
            number = entry.next;
        }
        None
    }

    /// The link to this entry: in its bucket, or in its predecessor in the chain.
    fn link_to(&mut self, number: u32) -> &mut u32 {
        let bucket = self.bucket_of(self.entries[number as usize].hash);
        if self.buckets[bucket] == number {
            return &mut self.buckets[bucket];
        }
        let mut before = self.buckets[bucket] as usize;
        while self.entries[before].next != number {
            before = self.entries[before].next as usize;
        }
        &mut self.entries[before].next
    }

    /// The bucket of a hash: as many low bits as it takes to number all buckets. If there is no bucket of
    /// that number yet, the one without the highest bit serves in its place.
    fn bucket_of(&self, hash: u32) -> usize {
        let mask = self.buckets.len().next_power_of_two() - 1;
        let bucket = hash as usize & mask;
        if bucket < self.buckets.len() { bucket } else { bucket & (mask >> 1) }
    }

    fn add_bucket(&mut self) {
        let new = self.buckets.len();
        self.buckets.push(NONE);
        if new > 0 {
            let stand_in = new & !(1 << new.ilog2());
            let chain = std::mem::replace(&mut self.buckets[stand_in], NONE);
            self.link_chain(chain);
        }
    }

    fn remove_bucket(&mut self) {
        if let Some(chain) = self.buckets.pop() {
            self.link_chain(chain);
        }
    }

    /// Links each entry of a chain into the bucket that it belongs to now.
    fn link_chain(&mut self, mut number: u32) {
        while number != NONE {
            let next = self.entries[number as usize].next;
            self.link(number);
            number = next;
        }
    }

    fn link(&mut self, number: u32) {
        let entry = self.entries[number as usize].hash;
        let bucket = self.bucket_of(entry);
        self.entries[number as usize].next = self.buckets[bucket];
        self.buckets[bucket] = number;
    }

    /// Checks the invariants.
    ///
    /// # Errors
    /// A sentence about what is wrong.
    pub fn check(&self) -> Result<(), String> {
        self.pages.check()?;
        let (buckets, entries) = (self.buckets.len(), self.entries.len());
        ensure!(buckets == entries, "{buckets} buckets for {entries} fields");
        let mut linked = HashSet::new();
        for (bucket, &first) in self.buckets.iter().enumerate() {
            let mut number = first;
            while number != NONE {
                ensure!(linked.insert(number), "field number {number} is linked twice");
                let entry = self.entries.get(number as usize);
                let entry = entry.ok_or_else(|| format!("bucket {bucket} links to {number}"))?;
                let home = self.bucket_of(entry.hash);
                ensure!(home == bucket, "field number {number} is in bucket {bucket}, not {home}");
                number = entry.next;
            }
        }
        ensure!(linked.len() == entries, "{} of {entries} fields are linked", linked.len());
        let wrong =
            self.entries.iter().find(|entry| entry.hash != (self.hash_of)(self.field(entry).name));
        ensure!(wrong.is_none(), "a field has the wrong hash");
        let records = self.pages.iter().count();
        ensure!(records == entries, "{records} records are live, for {entries} fields");
        let expiries = (0..).zip(self.iter()).map(|(n, field)| (field.expires_at_ms, n));
        let expiries: BTreeSet<_> = expiries.filter(|(ms, _)| *ms != NEVER).collect();
        let listed: BTreeSet<_> = self.by_expiry().collect();
        ensure!(listed == expiries, "expiries {expiries:?} are listed as {listed:?}");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::rng::Rng;

    #[test]
    fn fields_whose_hashes_collide_are_told_apart() {
        // All fields in one bucket; in the last buckets; in a few buckets.
        let hashings: [fn(&[u8]) -> u32; 3] =
            [|_| 5, |name| u32::MAX - u32::from(name[0] % 2), |name| u32::from(name[0] % 5)];
        let mut random = Rng::of_run();
        for hash_of in (0..60).flat_map(|_| hashings) {
            let fields = 1 + random.below(40);
            let mut indexed = Indexed { hash_of, ..Indexed::default() };
            let mut model = HashMap::new();
            for _ in 0..300 {
                let n = random.below(fields) as u8;
                if random.below(2) == 0 {
                    let is_new = indexed.put(&[n], &vec![b'v'; random.below(50)], NEVER);
                    assert_eq!(is_new, model.insert(n, ()).is_none());
                } else {
                    let was_there = indexed.remove(&[n]);
                    assert_eq!(was_there, model.remove(&n).is_some());
                }
                assert_eq!(indexed.check(), Ok(()));
                assert_eq!(indexed.entries.len(), model.len());
                let n = random.below(fields) as u8;
                let found = indexed.get(&[n]).is_some();
                assert_eq!(found, model.contains_key(&n));
            }
        }
    }

    #[test]
    fn what_is_prefetched_is_the_record_that_a_lookup_reads_first() {
        let mut indexed = Indexed::default();
        assert_eq!(indexed.probe(b"a"), None);
        indexed.put(b"a", b"1", NEVER);
        let place = |name| indexed.probe(name).and_then(|number| indexed.place_of(number));
        assert!(place(b"a").is_some_and(|place| indexed.pages.record(place).key == b"a"));
        assert_eq!(place(b"b"), place(b"a"), "there is one chain");
        assert_eq!(indexed.place_of(NONE), None, "the end of a chain");
    }

    #[test]
    fn types_that_exist_once_per_hash_or_field_are_small() {
        assert_eq!(size_of::<Entry>(), 16);
        assert_eq!(size_of::<Indexed>(), 104);
    }
}
