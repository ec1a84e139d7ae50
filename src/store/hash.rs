//! The value type of a hash: fields and their values, all of them arbitrary bytes.
//!
//! A hash has one of two forms. Both store a field as a *record*: `[length of name][name][length of
//! value][value]`, with lengths as varints. A field may expire; then its expiry follows the value, in eight
//! bytes.
//!
//! - **Packed**, for small hashes: the records one after another in a single byte string, in the order in
//!   which the fields were first set. There is nothing else, so ten fields of ten bytes each take 244 bytes,
//!   and a search walks through a few cache lines. From its first expiry on, the hash is *timed*: every
//!   record in it has room for one.
//! - **Indexed**, for large hashes: each record is an allocation of its own, numbered by its place in a
//!   vector, and a hash table finds the number. It is a vector and not a `HashMap` because `HSCAN` and
//!   `HRANDFIELD` need what a `HashMap` lacks: continuing at a position, and taking the n-th field, at a cost
//!   that does not depend on the size of the hash. A record's length shows whether it has an expiry, so
//!   fields without one pay nothing. The numbers of those with one are also kept sorted by expiry, so expired
//!   fields are found without looking at the others.
//!
//! Invariants ([`Hash::check`]):
//!
//! - A field occurs once.
//! - A packed hash is within the limits that applied at its last `set`. The first `set` that exceeds them
//!   makes the hash indexed, and it stays so even if it shrinks, as in Redis: a hash whose size hovers around
//!   the limit would otherwise be converted again and again.
//! - Indexed fields have the numbers `0..len` without gaps. A removal moves the last field into the gap and
//!   moves no other; `scan` relies on that.
//!
//! Nothing here locks, or knows keys, the log or the time: the keyspace guards the hash, and a field stays
//! until it is removed. Readers look at a hash through [`LiveHash`](super::LiveHash), which hides expired
//! fields.

use std::collections::{BTreeSet, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::sync::LazyLock;

use super::memory::allocated;
use crate::text::ensure;

/// How large a packed hash may get: `hash-max-listpack-entries` and `hash-max-listpack-value`.
#[derive(Clone, Copy, Debug)]
pub struct PackedLimits {
    /// The maximum number of fields.
    pub entries: usize,
    /// The maximum length of a name or a value, in bytes.
    pub value_bytes: usize,
}

/// Fields and their values; see the module documentation.
#[derive(Clone, Debug, Default)]
pub struct Hash {
    form: Form,
}

/// A field, its value and its expiry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    /// The name of the field.
    pub name: &'a [u8],
    /// Its value.
    pub value: &'a [u8],
    expires_at_ms: i64,
}

impl Field<'_> {
    /// When the field expires: Unix time in milliseconds.
    pub fn expires_at_ms(&self) -> Option<i64> {
        Some(self.expires_at_ms).filter(|&expires_at_ms| expires_at_ms != NEVER)
    }

    /// Whether the field has expired. Like a key, it still exists in the millisecond of its expiry.
    pub fn is_expired(&self, now_ms: i64) -> bool {
        self.expires_at_ms < now_ms
    }
}

/// The expiry of a field that does not expire. Later than any that a client can ask for.
const NEVER: i64 = i64::MAX;
const EXPIRY_BYTES: usize = size_of::<i64>();
/// What an expiry takes in a B-tree whose nodes, of 192 bytes, hold eight of them on average.
const EXPIRY_NODE_BYTES: usize = 24;

/// The indexed form is boxed, so that small hashes, which are the majority, do not pay for its vectors.
#[derive(Clone, Debug)]
enum Form {
    Packed(Packed),
    Indexed(Box<Indexed>),
}

impl Default for Form {
    fn default() -> Self {
        Form::Packed(Packed::default())
    }
}

impl Hash {
    /// An empty hash, packed.
    pub fn new() -> Self {
        Self::default()
    }

    /// The number of fields.
    pub fn len(&self) -> usize {
        match &self.form {
            Form::Packed(packed) => packed.count as usize,
            Form::Indexed(indexed) => indexed.entries.len(),
        }
    }

    /// Whether there are no fields.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the form is packed, which `OBJECT ENCODING` calls `listpack`; indexed is `hashtable`.
    pub fn is_packed(&self) -> bool {
        matches!(self.form, Form::Packed(_))
    }

    /// The heap memory that it takes, in bytes. The tree of expiries is estimated.
    pub fn heap_bytes(&self) -> usize {
        match &self.form {
            Form::Packed(packed) => allocated(packed.bytes.len()),
            Form::Indexed(indexed) => {
                let entries = indexed.entries.capacity() * size_of::<Entry>();
                let buckets = indexed.buckets.capacity() * size_of::<u32>();
                let expiries = indexed.expiries.as_ref().map_or(0, |expiries| expiries.0.len());
                allocated(size_of::<Indexed>())
                    + allocated(entries)
                    + allocated(buckets)
                    + indexed.record_bytes
                    + expiries * EXPIRY_NODE_BYTES
            }
        }
    }

    /// Whether any field has, or ever had, an expiry. `OBJECT ENCODING` calls a packed hash of this kind
    /// `listpackex`.
    pub fn is_timed(&self) -> bool {
        match &self.form {
            Form::Packed(packed) => packed.timed,
            Form::Indexed(indexed) => indexed.expiries.is_some(),
        }
    }

    /// The field with its value and expiry.
    pub fn get(&self, field: &[u8]) -> Option<Field<'_>> {
        match &self.form {
            Form::Packed(packed) => packed.records().find(|record| record.name == field),
            Form::Indexed(indexed) => indexed.get(hash_bytes(field), field),
        }
    }

    /// Sets a field and removes its expiry; returns whether the field is new. An existing field keeps its
    /// place in the order.
    pub fn set(&mut self, field: &[u8], value: &[u8], limits: PackedLimits) -> bool {
        self.put(field, value, NEVER, limits)
    }

    /// Like [`Hash::set`], but the field keeps its expiry.
    pub fn update(&mut self, field: &[u8], value: &[u8], limits: PackedLimits) -> bool {
        let old = if self.is_timed() { self.get(field) } else { None };
        self.put(field, value, old.map_or(NEVER, |old| old.expires_at_ms), limits)
    }

    /// Like [`Hash::set`], with an expiry in Unix milliseconds.
    pub fn set_until(
        &mut self,
        field: &[u8],
        value: &[u8],
        expires_at_ms: Option<i64>,
        limits: PackedLimits,
    ) -> bool {
        self.put(field, value, expires_at_ms.unwrap_or(NEVER), limits)
    }

    fn put(
        &mut self,
        field: &[u8],
        value: &[u8],
        expires_at_ms: i64,
        limits: PackedLimits,
    ) -> bool {
        // Checked first, so that a huge value is never copied into the packed bytes.
        if field.len().max(value.len()) > limits.value_bytes {
            self.make_indexed();
        }
        match &mut self.form {
            Form::Packed(packed) => {
                let is_new = packed.put(field, value, expires_at_ms);
                // Also after an overwrite, as in Redis: the limit may have been lowered since.
                if packed.count as usize > limits.entries {
                    self.make_indexed();
                }
                is_new
            }
            Form::Indexed(indexed) => indexed.put(hash_bytes(field), field, value, expires_at_ms),
        }
    }

    /// Sets or removes the expiry of a field; returns whether the field exists.
    pub fn set_expires_at_ms(&mut self, field: &[u8], expires_at_ms: Option<i64>) -> bool {
        let expires_at_ms = expires_at_ms.unwrap_or(NEVER);
        match &mut self.form {
            Form::Packed(packed) => packed.set_expires_at_ms(field, expires_at_ms),
            Form::Indexed(indexed) => {
                indexed.set_expires_at_ms(hash_bytes(field), field, expires_at_ms)
            }
        }
    }

    /// The earliest expiry of any field: Unix time in milliseconds.
    pub fn earliest_ms(&self) -> Option<i64> {
        let earliest_ms = match &self.form {
            Form::Packed(packed) if packed.timed => {
                packed.records().map(|record| record.expires_at_ms).min()
            }
            Form::Packed(_) => None,
            Form::Indexed(indexed) => {
                indexed.by_expiry().next().map(|(expires_at_ms, _)| expires_at_ms)
            }
        };
        earliest_ms.filter(|&expires_at_ms| expires_at_ms != NEVER)
    }

    /// The number of fields that have expired. It takes time in proportion to that number; if packed, to
    /// the number of fields.
    pub fn count_expired(&self, now_ms: i64) -> usize {
        match &self.form {
            Form::Packed(packed) if packed.timed => {
                packed.records().filter(|record| record.is_expired(now_ms)).count()
            }
            Form::Packed(_) => 0,
            Form::Indexed(indexed) => indexed.expired(now_ms).count(),
        }
    }

    /// Removes expired fields, at most `limit`, and returns their names.
    pub fn take_expired(&mut self, now_ms: i64, limit: usize) -> Vec<Box<[u8]>> {
        let names: Vec<Box<[u8]>> = match &self.form {
            Form::Packed(packed) => {
                let expired = packed.records().filter(|record| record.is_expired(now_ms));
                expired.take(limit).map(|record| record.name.into()).collect()
            }
            Form::Indexed(indexed) => {
                let expired = indexed.expired(now_ms).take(limit);
                expired.map(|number| indexed.entries[number as usize].field().name.into()).collect()
            }
        };
        names.iter().for_each(|name| {
            self.remove(name);
        });
        names
    }

    /// Removes a field; returns whether it existed.
    pub fn remove(&mut self, field: &[u8]) -> bool {
        match &mut self.form {
            Form::Packed(packed) => packed.remove(field),
            Form::Indexed(indexed) => indexed.remove(hash_bytes(field), field),
        }
    }

    /// All fields: in the order in which they were first set while packed, later in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = Field<'_>> {
        let (records, indexed): (_, &[Entry]) = match &self.form {
            Form::Packed(packed) => (packed.records(), &[]),
            Form::Indexed(indexed) => (Records { rest: &[], timed: false }, &indexed.entries),
        };
        records.chain(indexed.iter().map(Entry::field))
    }

    /// The `n`-th field in the order of `iter`, for random choices. It takes constant time if indexed; a
    /// packed hash is too short for the walk to matter.
    pub fn nth(&self, n: usize) -> Option<Field<'_>> {
        match &self.form {
            Form::Packed(packed) => packed.records().nth(n),
            Form::Indexed(indexed) => indexed.entries.get(n).map(Entry::field),
        }
    }

    /// Visits about `count` fields and returns the cursor for the next call. A scan begins with cursor 0
    /// and ends when 0 is returned. A field that exists from the first call to the last is visited at least
    /// once, whatever is added and removed in between.
    ///
    /// To achieve that, an indexed hash is scanned *downwards*: cursor `c` means that the numbers below `c`
    /// are still to be visited; 0 at the start means the end of the vector. Between two calls a field's
    /// number changes only when a removal moves the field from the end into a gap, that is, to a smaller
    /// number. So a field that is still to be visited stays below `c`. A field that was visited may move
    /// below `c` and be visited again, which the protocol allows. (In an upward scan, a removal below the
    /// cursor would move an unvisited field to a number that the cursor has passed.)
    ///
    /// A packed hash is visited in one call, as in Redis. It returns no cursor but 0, so a change of form
    /// between two calls cannot disturb a scan.
    pub fn scan(&self, cursor: u64, count: usize, visit: impl FnMut(Field)) -> u64 {
        match &self.form {
            Form::Packed(packed) => {
                packed.records().for_each(visit);
                0
            }
            Form::Indexed(indexed) => {
                let len = indexed.entries.len();
                // The hash may have shrunk, and a client may send any number.
                let end = match cursor {
                    0 => len,
                    _ => cursor.min(len as u64) as usize,
                };
                // With a count of 0 the scan would never end.
                let start = end.saturating_sub(count.max(1));
                indexed.entries[start..end].iter().rev().map(Entry::field).for_each(visit);
                start as u64
            }
        }
    }

    /// Checks the invariants except the limits of a packed hash, which may have changed since.
    ///
    /// # Errors
    /// A sentence about what is wrong.
    pub fn check(&self) -> Result<(), String> {
        match &self.form {
            Form::Packed(packed) => {
                let (found, count) = (packed.records().count(), packed.count);
                ensure!(found == count as usize, "{found} fields are packed, counted: {count}");
            }
            Form::Indexed(indexed) => {
                indexed.check()?;
                let is_hashed = |entry: &Entry| entry.hash == hash_bytes(entry.field().name);
                ensure!(indexed.entries.iter().all(is_hashed), "a field has the wrong hash");
            }
        }
        let mut names = HashSet::new();
        let twice = self.iter().find(|field| !names.insert(field.name));
        ensure!(twice.is_none(), "a field occurs twice: {twice:?}");
        Ok(())
    }

    fn make_indexed(&mut self) {
        if let Form::Packed(packed) = &self.form {
            let mut indexed = Box::new(Indexed::default());
            for Field { name, value, expires_at_ms } in packed.records() {
                indexed.put(hash_bytes(name), name, value, expires_at_ms);
            }
            self.form = Form::Indexed(indexed);
        }
    }
}

/// Hashes with a random key of this process, so that no client can choose fields that collide. All hashes
/// share the key: a key of its own would cost each of them 16 bytes. The low 32 bits are enough because
/// fields are numbered with 32 bits, too.
fn hash_bytes(bytes: &[u8]) -> u32 {
    static KEYS: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    KEYS.hash_one(bytes) as u32
}

/// The packed form: `bytes` holds exactly `count` records, each with an expiry if the hash is `timed`.
///
/// A boxed slice has no spare capacity. The allocator rounds sizes up anyway and grows a block in place
/// where it can, so spare capacity of our own would cost memory and save little.
#[derive(Clone, Debug, Default)]
struct Packed {
    bytes: Box<[u8]>,
    count: u32,
    timed: bool,
}

impl Packed {
    fn records(&self) -> Records<'_> {
        Records { rest: &self.bytes, timed: self.timed }
    }

    /// The range of the field's record in `bytes`.
    fn find(&self, field: &[u8]) -> Option<Range<usize>> {
        let mut records = self.records();
        let mut start = 0;
        while let Some(record) = records.next() {
            let end = self.bytes.len() - records.rest.len();
            if record.name == field {
                return Some(start..end);
            }
            start = end;
        }
        None
    }

    fn put(&mut self, field: &[u8], value: &[u8], expires_at_ms: i64) -> bool {
        if expires_at_ms != NEVER {
            self.make_timed();
        }
        let old = self.find(field);
        let is_new = old.is_none();
        let end = self.bytes.len();
        let record = record(field, value, self.timed.then_some(expires_at_ms));
        self.replace(old.unwrap_or(end..end), &record);
        self.count += u32::from(is_new);
        is_new
    }

    fn set_expires_at_ms(&mut self, field: &[u8], expires_at_ms: i64) -> bool {
        if expires_at_ms != NEVER {
            self.make_timed();
        }
        let Some(Range { end, .. }) = self.find(field) else {
            return false;
        };
        if self.timed {
            let place = end - EXPIRY_BYTES..end;
            self.bytes[place].copy_from_slice(&expires_at_ms.to_le_bytes());
        }
        true
    }

    /// Gives every record room for an expiry.
    fn make_timed(&mut self) {
        if !self.timed {
            let records = self.records().flat_map(|old| record(old.name, old.value, Some(NEVER)));
            self.bytes = records.collect();
            self.timed = true;
        }
    }

    fn remove(&mut self, field: &[u8]) -> bool {
        let Some(old) = self.find(field) else {
            return false;
        };
        self.replace(old, &[]);
        self.count -= 1;
        true
    }

    fn replace(&mut self, old: Range<usize>, new: &[u8]) {
        let mut bytes = std::mem::take(&mut self.bytes).into_vec();
        // `splice` by itself would double the capacity.
        bytes.reserve_exact(new.len().saturating_sub(old.len()));
        bytes.splice(old, new.iter().copied());
        self.bytes = bytes.into_boxed_slice();
    }
}

/// The indexed form: a hash table by linear hashing (Witold Litwin, "Linear hashing: a new tool for file and
/// table addressing", 1980). There are always as many buckets as entries, and each bucket is a chain of
/// entries that are linked by their numbers.
///
/// An ordinary table doubles when it is full and moves every entry at once: with ten million fields, all
/// clients of the shard would wait for half a second. Here each new field adds one bucket at the end, and
/// only one chain, about one entry, is divided between the new bucket and the one that has served in its
/// place. A removal merges the last bucket back. So every operation has a small bound, the table shrinks by
/// itself, and there are neither tombstones nor load factors.
///
/// Invariants ([`Indexed::check`]):
///
/// - `buckets.len() == entries.len()`.
/// - Each entry is in exactly one chain, that of `bucket_of` its hash.
/// - `expiries` lists exactly the entries that have an expiry.
/// - `record_bytes` is the sum over the records.
#[derive(Clone, Debug, Default)]
struct Indexed {
    entries: Vec<Entry>,
    /// The number of the first entry of each chain, or `NONE`.
    buckets: Vec<u32>,
    /// `None` until a field expires. Boxed because most hashes never have an expiring field.
    expiries: Option<Box<Expiries>>,
    /// The memory that the records take.
    record_bytes: usize,
}

/// Expiries with the numbers of their entries, the earliest first.
#[derive(Clone, Debug, Default)]
struct Expiries(BTreeSet<(i64, u32)>);

/// A field in the indexed form. The stored hash decides nearly every comparison without reading the record,
/// and lets entries change buckets without reading it.
#[derive(Clone, Debug)]
struct Entry {
    record: Box<[u8]>,
    hash: u32,
    /// The number of the next entry in the chain, or `NONE`.
    next: u32,
}

impl Entry {
    fn field(&self) -> Field<'_> {
        let (mut field, rest) = split_record(&self.record, false);
        if !rest.is_empty() {
            field.expires_at_ms = split_expiry(rest).0;
        }
        field
    }
}

const NONE: u32 = u32::MAX;

/// The caller passes the hash of the field, so that tests can make fields collide.
impl Indexed {
    fn get(&self, hash: u32, field: &[u8]) -> Option<Field<'_>> {
        let number = self.find(hash, field)?;
        Some(self.entries[number as usize].field())
    }

    fn put(&mut self, hash: u32, field: &[u8], value: &[u8], expires_at_ms: i64) -> bool {
        let expiry = Some(expires_at_ms).filter(|&expires_at_ms| expires_at_ms != NEVER);
        let record = record(field, value, expiry).into_boxed_slice();
        if let Some(number) = self.find(hash, field) {
            self.relist(number, expires_at_ms);
            self.record_bytes += allocated(record.len());
            let old = std::mem::replace(&mut self.entries[number as usize].record, record);
            self.record_bytes -= allocated(old.len());
            return false;
        }
        let number = self.entries.len() as u32;
        assert!(number != NONE, "a hash has fewer than 2^32 - 1 fields");
        self.add_bucket();
        let next = NONE;
        self.record_bytes += allocated(record.len());
        self.entries.push(Entry { record, hash, next });
        self.link(number);
        if let Some(expires_at_ms) = expiry {
            self.expiries.get_or_insert_default().0.insert((expires_at_ms, number));
        }
        true
    }

    fn set_expires_at_ms(&mut self, hash: u32, field: &[u8], expires_at_ms: i64) -> bool {
        let Some(number) = self.find(hash, field) else {
            return false;
        };
        self.relist(number, expires_at_ms);
        // The record is changed in place: its value may be long.
        let entry = &mut self.entries[number as usize];
        let had_expiry = entry.field().expires_at_ms != NEVER;
        let mut record = std::mem::take(&mut entry.record).into_vec();
        self.record_bytes -= allocated(record.len());
        if had_expiry {
            record.truncate(record.len() - EXPIRY_BYTES);
        }
        if expires_at_ms != NEVER {
            record.reserve_exact(EXPIRY_BYTES);
            record.extend_from_slice(&expires_at_ms.to_le_bytes());
        }
        entry.record = record.into_boxed_slice();
        self.record_bytes += allocated(entry.record.len());
        true
    }

    /// Updates `expiries` for an entry whose expiry is about to change.
    fn relist(&mut self, number: u32, expires_at_ms: i64) {
        if expires_at_ms == NEVER && self.expiries.is_none() {
            return;
        }
        let old_ms = self.entries[number as usize].field().expires_at_ms;
        let expiries = self.expiries.get_or_insert_default();
        expiries.0.remove(&(old_ms, number));
        if expires_at_ms != NEVER {
            expiries.0.insert((expires_at_ms, number));
        }
    }

    /// Expiries with the numbers of their entries, the earliest first.
    fn by_expiry(&self) -> impl Iterator<Item = (i64, u32)> {
        self.expiries.iter().flat_map(|expiries| expiries.0.iter().copied())
    }

    /// The numbers of the entries that have expired.
    fn expired(&self, now_ms: i64) -> impl Iterator<Item = u32> {
        let expired =
            self.by_expiry().take_while(move |(expires_at_ms, _)| *expires_at_ms < now_ms);
        expired.map(|(_, number)| number)
    }

    fn remove(&mut self, hash: u32, field: &[u8]) -> bool {
        let Some(number) = self.find(hash, field) else {
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
        self.record_bytes -= allocated(removed.record.len());
        self.remove_bucket();

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
            let expires_at_ms = self.entries[old as usize].field().expires_at_ms;
            if expiries.0.remove(&(expires_at_ms, old)) {
                expiries.0.insert((expires_at_ms, new));
            }
        }
    }

    fn find(&self, hash: u32, field: &[u8]) -> Option<u32> {
        if self.buckets.is_empty() {
            return None;
        }
        let mut number = self.buckets[self.bucket_of(hash)];
        while number != NONE {
            let entry = &self.entries[number as usize];
            if entry.hash == hash && entry.field().name == field {
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
    fn check(&self) -> Result<(), String> {
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
        let expiries = (0..).zip(&self.entries).map(|(n, entry)| (entry.field().expires_at_ms, n));
        let expiries: BTreeSet<_> = expiries.filter(|(ms, _)| *ms != NEVER).collect();
        let listed: BTreeSet<_> = self.by_expiry().collect();
        ensure!(listed == expiries, "expiries {expiries:?} are listed as {listed:?}");
        let bytes: usize = self.entries.iter().map(|entry| allocated(entry.record.len())).sum();
        ensure!(bytes == self.record_bytes, "{bytes} bytes, counted: {}", self.record_bytes);
        Ok(())
    }
}

/// Iterates over records that are stored one after another.
struct Records<'a> {
    rest: &'a [u8],
    timed: bool,
}

impl<'a> Iterator for Records<'a> {
    type Item = Field<'a>;

    fn next(&mut self) -> Option<Field<'a>> {
        if self.rest.is_empty() {
            return None;
        }
        let (field, rest) = split_record(self.rest, self.timed);
        self.rest = rest;
        Some(field)
    }
}

/// Encodes a record, with exactly the capacity that it needs: boxing it copies nothing.
fn record(name: &[u8], value: &[u8], expires_at_ms: Option<i64>) -> Vec<u8> {
    let len = varint_len(name.len()) + name.len() + varint_len(value.len()) + value.len();
    let mut record = Vec::with_capacity(len + expires_at_ms.map_or(0, |_| EXPIRY_BYTES));
    for part in [name, value] {
        push_varint(&mut record, part.len());
        record.extend_from_slice(part);
    }
    record.extend(expires_at_ms.iter().flat_map(|expires_at_ms| expires_at_ms.to_le_bytes()));
    record
}

/// Splits off the first record.
fn split_record(bytes: &[u8], timed: bool) -> (Field<'_>, &[u8]) {
    let (name, rest) = split_part(bytes);
    let (value, rest) = split_part(rest);
    let (expires_at_ms, rest) = if timed { split_expiry(rest) } else { (NEVER, rest) };
    (Field { name, value, expires_at_ms }, rest)
}

fn split_expiry(bytes: &[u8]) -> (i64, &[u8]) {
    let Some((expires_at_ms, rest)) = bytes.split_first_chunk() else {
        unreachable!("an expiry takes eight bytes");
    };
    (i64::from_le_bytes(*expires_at_ms), rest)
}

fn split_part(bytes: &[u8]) -> (&[u8], &[u8]) {
    let (len, rest) = split_varint(bytes);
    rest.split_at(len)
}

// A varint holds seven bits in each byte, the lowest first; the top bit means that more bytes follow.

fn varint_len(n: usize) -> usize {
    let bits = usize::BITS - (n | 1).leading_zeros();
    bits.div_ceil(7) as usize
}

fn push_varint(bytes: &mut Vec<u8>, mut n: usize) {
    while n >= 0x80 {
        bytes.push(n as u8 | 0x80);
        n >>= 7;
    }
    bytes.push(n as u8);
}

fn split_varint(mut bytes: &[u8]) -> (usize, &[u8]) {
    let (mut n, mut shift) = (0, 0);
    loop {
        let byte = bytes[0];
        bytes = &bytes[1..];
        n |= usize::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return (n, bytes);
        }
        shift += 7;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use std::collections::{BTreeMap, HashMap};

    const NEVER_PACKED: PackedLimits = PackedLimits { entries: 0, value_bytes: 0 };
    const ALWAYS_PACKED: PackedLimits =
        PackedLimits { entries: usize::MAX, value_bytes: usize::MAX };
    const BOTH: [PackedLimits; 2] = [NEVER_PACKED, ALWAYS_PACKED];

    type Model = HashMap<Vec<u8>, Vec<u8>>;

    fn limits(entries: usize, value_bytes: usize) -> PackedLimits {
        PackedLimits { entries, value_bytes }
    }

    fn owned(field: Field) -> (Vec<u8>, Vec<u8>) {
        (field.name.to_vec(), field.value.to_vec())
    }

    fn value_of<'a>(hash: &'a Hash, name: &[u8]) -> Option<&'a [u8]> {
        hash.get(name).map(|field| field.value)
    }

    fn names_in_order(hash: &Hash) -> Vec<&[u8]> {
        hash.iter().map(|field| field.name).collect()
    }

    fn assert_equals_model(hash: &Hash, model: &Model) {
        assert_eq!(hash.check(), Ok(()));
        assert_eq!(hash.len(), model.len());
        assert_eq!(hash.is_empty(), model.is_empty());
        assert_eq!(&hash.iter().map(owned).collect::<Model>(), model);
        for (n, pair) in hash.iter().enumerate() {
            assert_eq!(hash.nth(n), Some(pair));
        }
        assert_eq!(hash.nth(hash.len()), None);
        for (name, value) in model {
            assert_eq!(value_of(hash, name), Some(value.as_slice()));
        }
    }

    #[test]
    fn a_hash_behaves_like_a_map_in_both_forms() {
        let mut random = Rng::of_run();
        for _ in 0..300 {
            let limits = limits(random.below(20), random.below(6));
            let alphabet: Vec<_> = (0..60).map(|_| random.bytes(5)).collect();
            let (mut hash, mut model) = (Hash::new(), Model::new());
            let mut was_indexed = false;
            for step in 0..400 {
                // Phases of growth and of removal, so that the index grows and shrinks.
                let removals = if step / 100 % 2 == 0 { 2 } else { 8 };
                let name = &alphabet[random.below(alphabet.len())];
                if random.below(10) < removals {
                    assert_eq!(hash.remove(name), model.remove(name).is_some());
                } else {
                    let value = random.bytes(6);
                    let is_new = hash.set(name, &value, limits);
                    assert_eq!(is_new, model.insert(name.clone(), value).is_none());
                    assert!(!hash.is_packed() || hash.len() <= limits.entries);
                }
                assert!(!(was_indexed && hash.is_packed()), "an indexed hash stays indexed");
                was_indexed = !hash.is_packed();
                let name = &alphabet[random.below(alphabet.len())];
                assert_eq!(value_of(&hash, name), model.get(name).map(Vec::as_slice));
                assert_eq!(hash.get(name).is_some(), model.contains_key(name));
                if step % 10 == 9 {
                    assert_equals_model(&hash, &model);
                }
            }
        }
    }

    #[test]
    fn expiries_stay_with_their_fields_through_random_changes() {
        let mut random = Rng::of_run();
        for _ in 0..300 {
            let limits = limits(random.below(30), 9);
            let (mut hash, mut model) = (Hash::new(), BTreeMap::<Vec<u8>, (Vec<u8>, i64)>::new());
            for now_ms in 0..300 {
                let name = random.bytes(1);
                let value = random.bytes(6);
                let expires_at_ms = now_ms + random.below(100) as i64;
                let old_ms = model.get(&name).map(|(_, old_ms)| *old_ms);
                match random.below(10) {
                    0..3 => {
                        hash.set(&name, &value, limits);
                        model.insert(name, (value, NEVER));
                    }
                    3..5 => {
                        hash.set_until(&name, &value, Some(expires_at_ms), limits);
                        model.insert(name, (value, expires_at_ms));
                    }
                    5 => {
                        hash.update(&name, &value, limits);
                        model.insert(name, (value, old_ms.unwrap_or(NEVER)));
                    }
                    6 => {
                        let found = hash.set_expires_at_ms(&name, Some(expires_at_ms));
                        assert_eq!(found, old_ms.is_some());
                        model.entry(name).and_modify(|(_, old_ms)| *old_ms = expires_at_ms);
                    }
                    7 => {
                        hash.set_expires_at_ms(&name, None);
                        model.entry(name).and_modify(|(_, old_ms)| *old_ms = NEVER);
                    }
                    8 => assert_eq!(hash.remove(&name), model.remove(&name).is_some()),
                    _ => {
                        let limit = 1 + random.below(9);
                        let expired = model.values().filter(|(_, ms)| *ms < now_ms).count();
                        assert_eq!(hash.count_expired(now_ms), expired);
                        let taken = hash.take_expired(now_ms, limit);
                        assert_eq!(taken.len(), expired.min(limit));
                        let had = |name: &[u8]| model.remove(name).map(|(_, ms)| ms < now_ms);
                        let had: Vec<_> = taken.iter().map(|name| &**name).map(had).collect();
                        assert!(had.iter().all(|expired| *expired == Some(true)));
                    }
                }
                let earliest = model.values().map(|(_, ms)| *ms).filter(|ms| *ms != NEVER).min();
                assert_eq!(hash.earliest_ms(), earliest);
                let found = |field: Field| {
                    (field.name.to_vec(), (field.value.to_vec(), field.expires_at_ms))
                };
                assert_eq!(hash.iter().map(found).collect::<BTreeMap<_, _>>(), model);
                assert_eq!(hash.check(), Ok(()));
            }
        }
    }

    #[test]
    fn fields_whose_hashes_collide_are_told_apart() {
        // All fields in one bucket; in the last buckets; in a few buckets.
        let hashings: [fn(u8) -> u32; 3] =
            [|_| 5, |n| u32::MAX - u32::from(n % 2), |n| u32::from(n % 5)];
        let mut random = Rng::of_run();
        for hash_of in (0..60).flat_map(|_| hashings) {
            let fields = 1 + random.below(40);
            let (mut indexed, mut model) = (Indexed::default(), HashMap::new());
            for _ in 0..300 {
                let n = random.below(fields) as u8;
                if random.below(2) == 0 {
                    let is_new = indexed.put(hash_of(n), &[n], b"value", NEVER);
                    assert_eq!(is_new, model.insert(n, ()).is_none());
                } else {
                    let was_there = indexed.remove(hash_of(n), &[n]);
                    assert_eq!(was_there, model.remove(&n).is_some());
                }
                assert_eq!(indexed.check(), Ok(()));
                assert_eq!(indexed.entries.len(), model.len());
                let n = random.below(fields) as u8;
                let found = indexed.get(hash_of(n), &[n]).is_some();
                assert_eq!(found, model.contains_key(&n));
            }
        }
    }

    #[test]
    fn fields_stay_in_the_order_in_which_they_were_first_set() {
        let mut hash = Hash::new();
        for (name, value) in [("a", "1"), ("b", "2"), ("c", "3"), ("a", "longer"), ("b", "")] {
            hash.set(name.as_bytes(), value.as_bytes(), ALWAYS_PACKED);
        }
        assert_eq!(names_in_order(&hash), [b"a", b"b", b"c"]);
        assert_eq!(value_of(&hash, b"a"), Some(b"longer".as_slice()));
        assert!(hash.remove(b"a"));
        assert!(hash.set(b"a", b"again", ALWAYS_PACKED));
        assert_eq!(names_in_order(&hash), [b"b", b"c", b"a"]);
    }

    #[test]
    fn one_field_over_the_limit_makes_the_hash_indexed_forever() {
        let mut hash = Hash::new();
        for n in 0..3 {
            hash.set(&[n], b"", limits(3, 64));
        }
        hash.set(&[0], b"overwritten", limits(3, 64));
        assert!(hash.is_packed());
        hash.set(&[3], b"", limits(3, 64));
        assert!(!hash.is_packed());
        for n in 0..4 {
            assert!(hash.remove(&[n]));
        }
        assert!(hash.is_empty() && !hash.is_packed());
    }

    #[test]
    fn a_name_or_a_value_over_the_limit_makes_the_hash_indexed() {
        for (name, value, packed) in
            [("12345", "12345", true), ("123456", "", false), ("", "123456", false)]
        {
            let mut hash = Hash::new();
            hash.set(b"old", b"value", limits(9, 5));
            hash.set(name.as_bytes(), value.as_bytes(), limits(9, 5));
            assert_eq!(hash.is_packed(), packed);
            assert_eq!(value_of(&hash, b"old"), Some(b"value".as_slice()));
            assert_eq!(value_of(&hash, name.as_bytes()), Some(value.as_bytes()));
        }
    }

    #[test]
    fn an_overwrite_under_a_lowered_limit_makes_the_hash_indexed() {
        let mut hash = Hash::new();
        hash.set(b"a", b"", limits(2, 64));
        hash.set(b"b", b"", limits(2, 64));
        assert!(!hash.set(b"a", b"", limits(1, 64)));
        assert!(!hash.is_packed());
    }

    #[test]
    fn names_and_values_of_any_length_and_content_come_back_unchanged() {
        for limits in BOTH {
            let (mut hash, mut model) = (Hash::new(), Model::new());
            for len in [0, 1, 127, 128, 255, 16_383, 16_384, 2_097_151, 2_097_152] {
                for (name_len, value_len) in [(len, 3), (len + 1, len)] {
                    let name = vec![0xff; name_len];
                    let value: Vec<u8> = (0..value_len).map(|n| n as u8).collect();
                    hash.set(&name, &value, limits);
                    model.insert(name, value);
                }
            }
            assert_equals_model(&hash, &model);
        }
    }

    #[test]
    fn varint_len_is_the_length_that_push_varint_writes() {
        for bits in 0..usize::BITS {
            for n in [(1 << bits) - 1, 1 << bits, usize::MAX >> bits] {
                let mut bytes = Vec::new();
                push_varint(&mut bytes, n);
                assert_eq!(bytes.len(), varint_len(n));
                assert_eq!(split_varint(&bytes), (n, [].as_slice()));
            }
        }
    }

    #[test]
    fn a_scan_returns_every_field_that_exists_throughout() {
        let mut random = Rng::of_run();
        for _ in 0..500 {
            let (mut hash, limits) = (Hash::new(), limits(random.below(12), 64));
            let stays = |n: usize| n.is_multiple_of(3);
            let fields = 3 + random.below(300);
            let numbers = 0..fields;
            for n in numbers.clone() {
                hash.set(&n.to_be_bytes(), b"", limits);
            }
            let mut seen = HashSet::new();
            let (mut cursor, count) = (0, 1 + random.below(20));
            loop {
                let mut visited = 0;
                cursor = hash.scan(cursor, count, |field| {
                    seen.insert(field.name.to_vec());
                    visited += 1;
                });
                assert!(visited <= count || hash.is_packed());
                if cursor == 0 {
                    break;
                }
                for _ in 0..random.below(30) {
                    let n = random.below(2 * fields);
                    if random.below(3) == 0 {
                        hash.set(&n.to_be_bytes(), b"new", limits);
                    } else if n >= fields || !stays(n) {
                        hash.remove(&n.to_be_bytes());
                    }
                }
            }
            for n in numbers.filter(|n| stays(*n)) {
                assert!(seen.contains(n.to_be_bytes().as_slice()));
            }
        }
    }

    #[test]
    fn a_scan_without_changes_returns_each_field_once() {
        for limits in BOTH {
            let mut hash = Hash::new();
            for n in 0..1000_u32 {
                hash.set(&n.to_be_bytes(), b"", limits);
            }
            for count in [1, 7, 1000, usize::MAX] {
                let (mut cursor, mut names) = (0, Vec::new());
                loop {
                    cursor = hash.scan(cursor, count, |field| names.push(field.name.to_vec()));
                    if cursor == 0 {
                        break;
                    }
                }
                names.sort_unstable();
                assert!(names.into_iter().eq((0..1000_u32).map(|n| n.to_be_bytes().to_vec())));
            }
        }
    }

    #[test]
    fn a_scan_ends_for_any_cursor_and_count() {
        for limits in BOTH {
            let mut hash = Hash::new();
            assert_eq!(hash.scan(5, 10, |_| panic!("nothing to visit")), 0);
            hash.set(b"a", b"", limits);
            hash.set(b"b", b"", limits);
            let mut visited = 0;
            assert_eq!(hash.scan(u64::MAX, 10, |_| visited += 1), 0);
            assert_eq!(visited, 2);
            assert!(hash.scan(2, 0, |_| ()) < 2);
            hash.remove(b"a");
            hash.remove(b"b");
            assert_eq!(hash.scan(7, 10, |_| panic!("nothing to visit")), 0);
        }
    }

    #[test]
    fn an_index_that_becomes_nearly_empty_shrinks() {
        let mut hash = Hash::new();
        for n in 0..10_000_u32 {
            hash.set(&n.to_be_bytes(), b"", NEVER_PACKED);
        }
        for n in 10..10_000_u32 {
            hash.remove(&n.to_be_bytes());
        }
        let Form::Indexed(indexed) = &hash.form else { panic!("packed") };
        assert!(indexed.buckets.capacity() <= 64);
        assert!(indexed.entries.capacity() <= 64);
        assert_eq!(hash.check(), Ok(()));
    }

    #[test]
    fn ten_short_fields_take_244_bytes() {
        let mut hash = Hash::new();
        for n in 0..10 {
            let ten_bytes = format!("field-{n:04}");
            hash.set(ten_bytes.as_bytes(), ten_bytes.as_bytes(), ALWAYS_PACKED);
        }
        let Form::Packed(packed) = &hash.form else { panic!("indexed") };
        assert_eq!(size_of::<Hash>() + packed.bytes.len(), 244);
    }

    #[test]
    fn types_that_exist_once_per_hash_or_field_are_small() {
        assert_eq!(size_of::<Hash>(), 24);
        assert_eq!(size_of::<Entry>(), 24);
        assert_eq!(size_of::<Indexed>(), 64);
    }
}
