//! The value type of a hash: fields and their values, all of them arbitrary bytes.
//!
//! A hash has one of two forms, and a field with its value is written the same way in both, as a
//! *record*: `[length of name][name][length of value][value]`, lengths as varints. A field may have a
//! deadline, which then stands behind its value in eight bytes.
//!
//! - **Packed**, for small hashes: the records one behind the other in a single byte string, in the
//!   order in which the fields were first set. There is nothing else, so ten fields of ten bytes each
//!   cost 244 bytes, and a search is a walk through memory that fits a few cache lines. From the first
//!   deadline on, the hash is *timed*, and every record in it has room for one.
//! - **Indexed**, for large ones: each record is an allocation of its own, numbered by its place in a
//!   vector, and a hash table finds the number. A vector and not a `HashMap`, because `HSCAN` and
//!   `HRANDFIELD` need what a `HashMap` does not offer: to continue at a position, and to take the
//!   n-th field, at a cost that does not depend on the size of the hash. A record alone tells by its
//!   length whether it has a deadline, so the others pay nothing. The numbers of those that have one
//!   are also kept in the order of the deadlines: what is due is found without a look at the rest.
//!
//! What always holds:
//!
//! - A field occurs once.
//! - A packed hash became no larger than the limits that were in force at its last `set`. The first
//!   `set` that goes past them makes the hash indexed, and it stays so even if it shrinks, as in
//!   Redis: a hash that hovers around the limit would otherwise be rebuilt again and again.
//! - Indexed fields have the numbers `0..len` without gaps. A removal moves the last field into the
//!   hole and nothing else moves; `scan` rests on that.
//!
//! Nothing here locks or knows of keys or the log, nor what time it is: the keyspace owns the hash and
//! guards it, and a field stays until it is removed. Readers look at a hash through
//! [`LiveHash`](super::LiveHash), which hides what has expired.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::sync::LazyLock;

/// How large a packed hash may become: `hash-max-listpack-entries` and `hash-max-listpack-value`.
#[derive(Clone, Copy, Debug)]
pub struct PackedLimits {
    /// The most fields.
    pub entries: usize,
    /// The longest name or value.
    pub value_bytes: usize,
}

/// Fields and their values; see the module's opening words.
#[derive(Clone, Debug, Default)]
pub struct Hash {
    form: Form,
}

/// A field, its value and its deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    /// The name of the field.
    pub name: &'a [u8],
    /// Its value.
    pub value: &'a [u8],
    expires_at_ms: i64,
}

impl Field<'_> {
    /// When it expires, if it does: Unix time in milliseconds.
    pub fn expires_at_ms(&self) -> Option<i64> {
        Some(self.expires_at_ms).filter(|&expires_at_ms| expires_at_ms != NEVER)
    }

    /// Whether it is gone at that moment. Like a key, it is still there in its last millisecond.
    pub fn is_expired(&self, now_ms: i64) -> bool {
        self.expires_at_ms < now_ms
    }
}

/// The deadline of a field that does not expire. Later than any that can be asked for.
const NEVER: i64 = i64::MAX;
const DEADLINE_BYTES: usize = size_of::<i64>();

/// The indexed form is boxed, so that the many small hashes do not pay for its two vectors.
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

    /// Whether there is no field.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What `OBJECT ENCODING` calls `listpack`; the other form is its `hashtable`.
    pub fn is_packed(&self) -> bool {
        matches!(self.form, Form::Packed(_))
    }

    /// The memory that it has reserved, in bytes. Of an indexed hash so many fields are looked at, and
    /// the others taken for like them; 0 for all.
    pub fn heap_bytes(&self, samples: usize) -> usize {
        match &self.form {
            Form::Packed(packed) => packed.bytes.len(),
            Form::Indexed(indexed) => {
                let looked_at = if samples == 0 { usize::MAX } else { samples }.min(self.len());
                let records =
                    indexed.entries.iter().take(looked_at).map(|entry| entry.record.len());
                let records = records.sum::<usize>() * self.len() / looked_at.max(1);
                let table = indexed.entries.capacity() * size_of::<Entry>()
                    + indexed.buckets.capacity() * size_of::<u32>();
                let deadlines = indexed.order().count() * size_of::<(i64, u32)>();
                size_of::<Indexed>() + table + records + deadlines
            }
        }
    }

    /// Whether a field has, or once had, a deadline. What `OBJECT ENCODING` calls `listpackex` is a
    /// packed hash of which this is true.
    pub fn is_timed(&self) -> bool {
        match &self.form {
            Form::Packed(packed) => packed.timed,
            Form::Indexed(indexed) => indexed.deadlines.is_some(),
        }
    }

    /// A field with its value and deadline.
    pub fn get(&self, field: &[u8]) -> Option<Field<'_>> {
        match &self.form {
            Form::Packed(packed) => packed.records().find(|record| record.name == field),
            Form::Indexed(indexed) => indexed.get(hash_bytes(field), field),
        }
    }

    /// Sets a field, which from now on has no deadline; returns whether it is new. An old field keeps
    /// its place in the order.
    pub fn set(&mut self, field: &[u8], value: &[u8], limits: PackedLimits) -> bool {
        self.put(field, value, NEVER, limits)
    }

    /// As [`Hash::set`], but the field keeps the deadline that it had.
    pub fn update(&mut self, field: &[u8], value: &[u8], limits: PackedLimits) -> bool {
        let expires_at_ms = match self.is_timed() {
            true => self.get(field).map_or(NEVER, |field| field.expires_at_ms),
            false => NEVER,
        };
        self.put(field, value, expires_at_ms, limits)
    }

    /// As [`Hash::set`], but the field expires then.
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
        // Checked before the change, so that a huge value is never copied into the packed bytes.
        if field.len().max(value.len()) > limits.value_bytes {
            self.make_indexed();
        }
        match &mut self.form {
            Form::Packed(packed) => {
                let is_new = packed.put(field, value, expires_at_ms);
                // Also after an overwrite: the limit may have been lowered since (Redis does so too).
                if packed.count as usize > limits.entries {
                    self.make_indexed();
                }
                is_new
            }
            Form::Indexed(indexed) => indexed.put(hash_bytes(field), field, value, expires_at_ms),
        }
    }

    /// Lets a field expire then, or never; returns whether it is there.
    pub fn set_expires_at_ms(&mut self, field: &[u8], expires_at_ms: Option<i64>) -> bool {
        let expires_at_ms = expires_at_ms.unwrap_or(NEVER);
        match &mut self.form {
            Form::Packed(packed) => packed.set_deadline(field, expires_at_ms),
            Form::Indexed(indexed) => indexed.set_deadline(hash_bytes(field), field, expires_at_ms),
        }
    }

    /// The earliest deadline of all fields.
    pub fn earliest_ms(&self) -> Option<i64> {
        let earliest_ms = match &self.form {
            Form::Packed(packed) if packed.timed => {
                packed.records().map(|record| record.expires_at_ms).min()
            }
            Form::Packed(_) => None,
            Form::Indexed(indexed) => {
                indexed.order().next().map(|(expires_at_ms, _)| expires_at_ms)
            }
        };
        earliest_ms.filter(|&expires_at_ms| expires_at_ms != NEVER)
    }

    /// How many fields have expired by that moment. It costs as much as there are.
    pub fn count_expired(&self, now_ms: i64) -> usize {
        match &self.form {
            Form::Packed(packed) if packed.timed => {
                packed.records().filter(|record| record.is_expired(now_ms)).count()
            }
            Form::Packed(_) => 0,
            Form::Indexed(indexed) => indexed.expired(now_ms).count(),
        }
    }

    /// Whether all fields have expired by that moment, and the hash with them.
    pub fn is_expired(&self, now_ms: i64) -> bool {
        match &self.form {
            Form::Packed(packed) => {
                packed.timed && packed.records().all(|record| record.is_expired(now_ms))
            }
            Form::Indexed(indexed) => indexed.deadlines.as_ref().is_some_and(|deadlines| {
                deadlines.0.len() == indexed.entries.len()
                    && deadlines.0.last().is_some_and(|&(latest_ms, _)| latest_ms < now_ms)
            }),
        }
    }

    /// Removes what has expired by that moment, but no more than so many fields, and returns their
    /// names.
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

    /// Returns whether the field was there.
    pub fn remove(&mut self, field: &[u8]) -> bool {
        match &mut self.form {
            Form::Packed(packed) => packed.remove(field),
            Form::Indexed(indexed) => indexed.remove(hash_bytes(field), field),
        }
    }

    /// All fields: in the order of first setting while packed, in no particular order later.
    pub fn iter(&self) -> impl Iterator<Item = Field<'_>> {
        let (records, indexed): (_, &[Entry]) = match &self.form {
            Form::Packed(packed) => (packed.records(), &[]),
            Form::Indexed(indexed) => (Records { rest: &[], timed: false }, &indexed.entries),
        };
        records.chain(indexed.iter().map(Entry::field))
    }

    /// The `n`-th field in the order of `iter`. Any fixed numbering serves a random choice; this one
    /// is free in the indexed form, and the packed form is too short for its walk to matter.
    pub fn nth(&self, n: usize) -> Option<Field<'_>> {
        match &self.form {
            Form::Packed(packed) => packed.records().nth(n),
            Form::Indexed(indexed) => indexed.entries.get(n).map(Entry::field),
        }
    }

    /// Visits about `count` fields and returns the cursor for the next call. A scan begins with 0
    /// and is finished when 0 comes back. A field that is there from the first call to the last is
    /// visited at least once, whatever is added and removed in between.
    ///
    /// That is why an indexed hash is scanned *downwards*: cursor `c` says that the numbers below
    /// `c` are still to be visited, and 0 at the start stands for the end of the vector. Between two
    /// calls a field changes its number only when a removal moves it from the end into a hole, so
    /// only to a smaller number. A field that is still to be visited hence stays below `c`. One that
    /// was visited may come below `c` and be visited again, which the protocol allows. (Upwards, a
    /// removal behind the cursor would carry an unvisited field past it.)
    ///
    /// A packed hash is visited whole in one call, as in Redis. It never gives out a cursor other
    /// than 0, so its change of form between two calls cannot upset a scan.
    pub fn scan(&self, cursor: u64, count: usize, visit: impl FnMut(Field)) -> u64 {
        match &self.form {
            Form::Packed(packed) => {
                packed.records().for_each(visit);
                0
            }
            Form::Indexed(indexed) => {
                let len = indexed.entries.len();
                // The hash may have shrunk since, and a client may send any number.
                let end = match cursor {
                    0 => len,
                    _ => cursor.min(len as u64) as usize,
                };
                // A count of 0 would return its own cursor for ever.
                let start = end.saturating_sub(count.max(1));
                indexed.entries[start..end].iter().rev().map(Entry::field).for_each(visit);
                start as u64
            }
        }
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

/// Keyed with random bits at the start of the process, so that no client can choose fields that
/// collide. One key for all hashes: a key in each would cost every one of them 16 bytes. The low 32
/// bits are enough, for fields are numbered with 32 bits too.
fn hash_bytes(bytes: &[u8]) -> u32 {
    static KEYS: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    KEYS.hash_one(bytes) as u32
}

/// `bytes` holds exactly `count` records, with deadlines if it is `timed`.
///
/// A boxed slice has no spare capacity. The allocator rounds sizes up anyway and grows a block in
/// place where it can, so a reserve of our own would cost memory and save little.
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

    /// Where the record of `field` lies in `bytes`.
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

    fn set_deadline(&mut self, field: &[u8], expires_at_ms: i64) -> bool {
        if expires_at_ms != NEVER {
            self.make_timed();
        }
        let Some(Range { end, .. }) = self.find(field) else {
            return false;
        };
        if self.timed {
            let place = end - DEADLINE_BYTES..end;
            self.bytes[place].copy_from_slice(&expires_at_ms.to_le_bytes());
        }
        true
    }

    /// Gives every record room for a deadline.
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

/// A hash table by linear hashing (Litwin, 1980): there are always as many buckets as entries, and
/// each bucket is a chain of entries, linked by their numbers.
///
/// An ordinary table doubles when it is full and moves every entry at once: with ten million fields
/// all clients of this keyspace shard would wait for half a second. Here each new field adds one
/// bucket at the end, and only one chain, about one entry, has to be divided between the new bucket
/// and the one that stood in for it. A removal merges the last bucket back. So every operation has a
/// small bound, the table shrinks by itself, and there are neither tombstones nor load factors.
///
/// - `buckets.len() == entries.len()`.
/// - Each entry is in exactly one chain, that of `bucket_of` its hash.
/// - `deadlines` has each entry that has one, and no other.
#[derive(Clone, Debug, Default)]
struct Indexed {
    entries: Vec<Entry>,
    /// The number of the first entry of each chain, or `NONE`.
    buckets: Vec<u32>,
    /// There from the first on. Most hashes never have any, hence the box.
    deadlines: Option<Box<Deadlines>>,
}

/// Deadlines with the numbers of their entries.
#[derive(Clone, Debug, Default)]
struct Deadlines(BTreeSet<(i64, u32)>);

/// The part of the hash that is kept decides nearly every comparison without a look at the record,
/// and lets entries move between buckets without it.
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
            field.expires_at_ms = split_deadline(rest).0;
        }
        field
    }
}

const NONE: u32 = u32::MAX;

/// The caller hands in the hash of the field, so that tests can make fields collide.
impl Indexed {
    fn get(&self, hash: u32, field: &[u8]) -> Option<Field<'_>> {
        let number = self.find(hash, field)?;
        Some(self.entries[number as usize].field())
    }

    fn put(&mut self, hash: u32, field: &[u8], value: &[u8], expires_at_ms: i64) -> bool {
        let deadline = Some(expires_at_ms).filter(|&expires_at_ms| expires_at_ms != NEVER);
        let record = record(field, value, deadline).into_boxed_slice();
        if let Some(number) = self.find(hash, field) {
            self.reorder(number, expires_at_ms);
            self.entries[number as usize].record = record;
            return false;
        }
        let number = self.entries.len() as u32;
        assert!(number != NONE, "a hash has less than 2^32 fields");
        self.add_bucket();
        let next = NONE;
        self.entries.push(Entry { record, hash, next });
        self.link(number);
        if let Some(expires_at_ms) = deadline {
            self.deadlines.get_or_insert_default().0.insert((expires_at_ms, number));
        }
        true
    }

    fn set_deadline(&mut self, hash: u32, field: &[u8], expires_at_ms: i64) -> bool {
        let Some(number) = self.find(hash, field) else {
            return false;
        };
        self.reorder(number, expires_at_ms);
        // Not written anew: the value may be long.
        let entry = &mut self.entries[number as usize];
        let has_deadline = entry.field().expires_at_ms != NEVER;
        let mut record = std::mem::take(&mut entry.record).into_vec();
        if has_deadline {
            record.truncate(record.len() - DEADLINE_BYTES);
        }
        if expires_at_ms != NEVER {
            record.reserve_exact(DEADLINE_BYTES);
            record.extend_from_slice(&expires_at_ms.to_le_bytes());
        }
        entry.record = record.into_boxed_slice();
        true
    }

    /// Moves an entry, which is about to get that deadline, to its place in their order.
    fn reorder(&mut self, number: u32, expires_at_ms: i64) {
        if expires_at_ms == NEVER && self.deadlines.is_none() {
            return;
        }
        let old_ms = self.entries[number as usize].field().expires_at_ms;
        let deadlines = self.deadlines.get_or_insert_default();
        deadlines.0.remove(&(old_ms, number));
        if expires_at_ms != NEVER {
            deadlines.0.insert((expires_at_ms, number));
        }
    }

    /// Deadlines with the numbers of their entries, the earliest first.
    fn order(&self) -> impl Iterator<Item = (i64, u32)> {
        self.deadlines.iter().flat_map(|deadlines| deadlines.0.iter().copied())
    }

    /// The numbers of the entries that have expired by that moment.
    fn expired(&self, now_ms: i64) -> impl Iterator<Item = u32> {
        let expired = self.order().take_while(move |(expires_at_ms, _)| *expires_at_ms < now_ms);
        expired.map(|(_, number)| number)
    }

    fn remove(&mut self, hash: u32, field: &[u8]) -> bool {
        let Some(number) = self.find(hash, field) else {
            return false;
        };
        *self.link_to(number) = self.entries[number as usize].next;
        let last = self.entries.len() as u32 - 1;
        self.reorder(number, NEVER);
        if number != last {
            *self.link_to(last) = number;
            self.renumber_deadline(last, number);
        }
        self.entries.swap_remove(number as usize);
        self.remove_bucket();

        // Far below the half where a vector grows, so that neither undoes the other's work.
        if self.entries.len() < self.entries.capacity() / 4 {
            self.entries.shrink_to(self.entries.len() * 2);
            self.buckets.shrink_to(self.buckets.len() * 2);
        }
        true
    }

    /// Gives the place that an entry has in the order of deadlines to its new number.
    fn renumber_deadline(&mut self, old: u32, new: u32) {
        if let Some(deadlines) = &mut self.deadlines {
            let expires_at_ms = self.entries[old as usize].field().expires_at_ms;
            if deadlines.0.remove(&(expires_at_ms, old)) {
                deadlines.0.insert((expires_at_ms, new));
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

    /// The place that holds the number of this entry: its bucket, or its predecessor in the chain.
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

    /// As many low bits of the hash as it takes to number all buckets. Where that names a bucket
    /// that is not there yet, the one without the highest bit stands in for it.
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

    /// Puts each entry of a chain where it belongs now.
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
}

/// Walks through records that lie one behind the other.
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

/// With exactly the capacity it needs, so that boxing it copies nothing.
fn record(name: &[u8], value: &[u8], expires_at_ms: Option<i64>) -> Vec<u8> {
    let len = varint_len(name.len()) + name.len() + varint_len(value.len()) + value.len();
    let mut record = Vec::with_capacity(len + expires_at_ms.map_or(0, |_| DEADLINE_BYTES));
    for part in [name, value] {
        push_varint(&mut record, part.len());
        record.extend_from_slice(part);
    }
    record.extend(expires_at_ms.iter().flat_map(|expires_at_ms| expires_at_ms.to_le_bytes()));
    record
}

/// The first record and what lies behind it.
fn split_record(bytes: &[u8], timed: bool) -> (Field<'_>, &[u8]) {
    let (name, rest) = split_part(bytes);
    let (value, rest) = split_part(rest);
    let (expires_at_ms, rest) = if timed { split_deadline(rest) } else { (NEVER, rest) };
    (Field { name, value, expires_at_ms }, rest)
}

fn split_deadline(bytes: &[u8]) -> (i64, &[u8]) {
    let Some((deadline, rest)) = bytes.split_first_chunk() else {
        unreachable!("a record has its deadline whole");
    };
    (i64::from_le_bytes(*deadline), rest)
}

fn split_part(bytes: &[u8]) -> (&[u8], &[u8]) {
    let (len, rest) = split_varint(bytes);
    rest.split_at(len)
}

// A varint holds seven bits in each byte, the lowest first; the top bit says that more follow.

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
    use std::collections::{BTreeMap, HashMap, HashSet};

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

    fn assert_sound(indexed: &Indexed) {
        assert_eq!(indexed.buckets.len(), indexed.entries.len());
        let mut met = HashSet::new();
        for (bucket, first) in indexed.buckets.iter().enumerate() {
            let mut number = *first;
            while number != NONE {
                assert!(met.insert(number), "an entry is in one chain, once");
                let entry = &indexed.entries[number as usize];
                assert_eq!(indexed.bucket_of(entry.hash), bucket);
                number = entry.next;
            }
        }
        assert_eq!(met.len(), indexed.entries.len());
        let numbered = (0..).zip(&indexed.entries);
        let deadlines = numbered.map(|(number, entry)| (entry.field().expires_at_ms, number));
        let deadlines: BTreeSet<_> = deadlines.filter(|(ms, _)| *ms != NEVER).collect();
        assert_eq!(indexed.order().collect::<BTreeSet<_>>(), deadlines);
    }

    fn assert_equals_model(hash: &Hash, model: &Model) {
        if let Form::Indexed(indexed) = &hash.form {
            assert_sound(indexed);
        }
        assert_eq!(hash.len(), model.len());
        assert_eq!(hash.is_empty(), model.is_empty());
        // With equal lengths this also shows that no field occurs twice.
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
    fn a_hash_behaves_like_a_map_whatever_its_form_and_changes() {
        let mut random = Rng::of_run();
        for _ in 0..300 {
            let limits = limits(random.below(20), random.below(6));
            let alphabet: Vec<_> = (0..60).map(|_| random.bytes(5)).collect();
            let (mut hash, mut model) = (Hash::new(), Model::new());
            let mut was_indexed = false;
            for step in 0..400 {
                // Waves of growth and of removal, so that the index grows and shrinks.
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
                assert!(!(was_indexed && hash.is_packed()), "the change is final");
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
    fn deadlines_stay_with_their_fields_whatever_changes_around_them() {
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
                        let gone = expired == model.len() && hash.is_timed();
                        assert_eq!(hash.is_expired(now_ms), gone);
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
                if let Form::Indexed(indexed) = &hash.form {
                    assert_sound(indexed);
                }
            }
        }
    }

    #[test]
    fn fields_whose_hashes_collide_are_told_apart() {
        // All homes in one slot; around the end of the table; and a few overlapping clusters.
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
                assert_sound(&indexed);
                assert_eq!(indexed.entries.len(), model.len());
                let n = random.below(fields) as u8;
                let found = indexed.get(hash_of(n), &[n]).is_some();
                assert_eq!(found, model.contains_key(&n));
            }
        }
    }

    #[test]
    fn the_order_is_that_of_first_setting_and_an_overwrite_keeps_its_place() {
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
    fn one_field_over_the_limit_makes_the_hash_indexed_for_good() {
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
    fn the_length_of_a_varint_is_known_beforehand() {
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
    fn a_scan_returns_every_field_that_is_there_throughout() {
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
    fn a_scan_ends_whatever_cursor_and_count_a_client_invents() {
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
    fn an_index_that_has_become_nearly_empty_shrinks() {
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
        assert_sound(indexed);
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
    fn the_types_that_exist_once_per_hash_or_field_are_small() {
        assert_eq!(size_of::<Hash>(), 24);
        assert_eq!(size_of::<Entry>(), 24);
        assert_eq!(size_of::<Indexed>(), 56); // a block of the allocator, as 48 would be
    }
}
