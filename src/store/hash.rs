//! The value type of a hash: fields and their values, all of them arbitrary bytes.
//!
//! A hash has one of two forms. Both store a field as `[length of name][name][length of value][value]`, with
//! lengths as [`varint`](super::varint)s. A field may expire; then its expiry follows the value, in eight
//! bytes.
//!
//! - **Packed**, for small hashes: the fields one after another in a single byte string, in the order in
//!   which they were first set. There is nothing else, so ten fields of ten bytes each take 220 bytes,
//!   and a search walks through a few cache lines. From its first expiry on, the hash is *timed*: every
//!   field in it has room for one. Small ones are part of a record of their table.
//! - **Indexed**, for large hashes: each field is an allocation of its own, numbered by its place in a
//!   vector, and a hash table finds the number. It is a vector and not a `HashMap` because `HSCAN` and
//!   `HRANDFIELD` need what a `HashMap` lacks: continuing at a position, and taking the n-th field, at a cost
//!   that does not depend on the size of the hash. A record's length shows whether it has an expiry, so
//!   fields without one pay nothing. The numbers of those with one are also kept sorted by expiry, so expired
//!   fields are found without looking at the others.
//!
//! Invariants ([`HashRef::check`]):
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

use std::collections::HashSet;

use super::field::{Field, NEVER};
use super::indexed::Indexed;
use super::memory::allocated;
use super::packed::{Packed, PackedRef};
use crate::text::ensure;

/// How large a packed hash may get: `hash-max-listpack-entries` and `hash-max-listpack-value`.
#[derive(Clone, Copy, Debug)]
pub struct PackedLimits {
    /// The maximum number of fields.
    pub entries: usize,
    /// The maximum length of a name or a value, in bytes.
    pub value_bytes: usize,
}

/// Fields and their values, to be changed; see the module documentation.
#[derive(Clone, Default)]
pub struct Hash {
    form: Form,
}

/// Fields and their values, to be read: those of a [`struct@Hash`], or of a record in a table.
#[derive(Clone, Copy)]
pub enum HashRef<'a> {
    /// All fields in one byte string.
    Packed(PackedRef<'a>),
    /// A record for each field, and an index.
    Indexed(&'a Indexed),
}

/// The indexed form is boxed, so that small hashes, which are the majority, do not pay for its vectors.
#[derive(Clone)]
enum Form {
    Packed(Packed),
    Indexed(Box<Indexed>),
}

impl Default for Form {
    fn default() -> Self {
        Form::Packed(Packed::default())
    }
}

impl<'a> HashRef<'a> {
    /// The number of fields.
    pub fn len(self) -> usize {
        match self {
            HashRef::Packed(packed) => packed.count as usize,
            HashRef::Indexed(indexed) => indexed.len(),
        }
    }

    /// Whether there are no fields.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// About how many bytes a copy takes.
    pub fn copy_bytes(self) -> usize {
        match self {
            HashRef::Packed(packed) => packed.bytes.len(),
            HashRef::Indexed(indexed) => indexed.memory_bytes(),
        }
    }

    /// Whether the form is packed, which `OBJECT ENCODING` calls `listpack`; indexed is `hashtable`.
    pub fn is_packed(self) -> bool {
        matches!(self, HashRef::Packed(_))
    }

    /// Whether any field has, or ever had, an expiry. `OBJECT ENCODING` calls a packed hash of this kind
    /// `listpackex`.
    pub fn is_timed(self) -> bool {
        match self {
            HashRef::Packed(packed) => packed.timed,
            HashRef::Indexed(indexed) => indexed.is_timed(),
        }
    }

    /// The field with its value and expiry.
    pub fn get(self, field: &[u8]) -> Option<Field<'a>> {
        match self {
            HashRef::Packed(packed) => packed.fields().find(|found| found.name == field),
            HashRef::Indexed(indexed) => indexed.get(field),
        }
    }

    /// The earliest expiry of any field: Unix time in milliseconds.
    pub fn earliest_ms(self) -> Option<i64> {
        let earliest_ms = match self {
            HashRef::Packed(packed) if packed.timed => {
                packed.fields().map(|field| field.expires_at_ms).min()
            }
            HashRef::Packed(_) => None,
            HashRef::Indexed(indexed) => {
                indexed.by_expiry().next().map(|(expires_at_ms, _)| expires_at_ms)
            }
        };
        earliest_ms.filter(|&expires_at_ms| expires_at_ms != NEVER)
    }

    /// The number of fields that have expired. It takes time in proportion to that number; if packed, to
    /// the number of fields.
    pub fn count_expired(self, now_ms: i64) -> usize {
        match self {
            HashRef::Packed(packed) if packed.timed => {
                packed.fields().filter(|field| field.is_expired(now_ms)).count()
            }
            HashRef::Packed(_) => 0,
            HashRef::Indexed(indexed) => indexed.expired(now_ms).count(),
        }
    }

    /// All fields: in the order in which they were first set while packed, later in no particular order.
    pub fn iter(self) -> impl Iterator<Item = Field<'a>> {
        let (packed, indexed) = match self {
            HashRef::Packed(packed) => (Some(packed.fields()), None),
            HashRef::Indexed(indexed) => (None, Some(indexed.iter())),
        };
        packed.into_iter().flatten().chain(indexed.into_iter().flatten())
    }

    /// The `n`-th field in the order of `iter`, for random choices. It takes constant time if indexed; a
    /// packed hash is too short for the walk to matter.
    pub fn nth(self, n: usize) -> Option<Field<'a>> {
        match self {
            HashRef::Packed(packed) => packed.fields().nth(n),
            HashRef::Indexed(indexed) => indexed.nth(n),
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
    pub fn scan(self, cursor: u64, count: usize, visit: impl FnMut(Field<'a>)) -> u64 {
        match self {
            HashRef::Packed(packed) => {
                packed.fields().for_each(visit);
                0
            }
            HashRef::Indexed(indexed) => {
                let len = indexed.len();
                // The hash may have shrunk, and a client may send any number.
                let end = match cursor {
                    0 => len,
                    _ => cursor.min(len as u64) as usize,
                };
                // With a count of 0 the scan would never end.
                let start = end.saturating_sub(count.max(1));
                indexed.fields(start..end).rev().for_each(visit);
                start as u64
            }
        }
    }

    /// Checks the invariants except the limits of a packed hash, which may have changed since.
    ///
    /// # Errors
    /// A sentence about what is wrong.
    pub fn check(self) -> Result<(), String> {
        match self {
            HashRef::Packed(packed) => {
                let (found, count) = (packed.fields().count(), packed.count);
                ensure!(found == count as usize, "{found} fields are packed, counted: {count}");
            }
            HashRef::Indexed(indexed) => indexed.check()?,
        }
        let mut names = HashSet::new();
        let twice = self.iter().find(|field| !names.insert(field.name));
        ensure!(twice.is_none(), "a field occurs twice: {twice:?}");
        Ok(())
    }

    /// A copy that can be changed.
    pub fn to_owned(self) -> Hash {
        let form = match self {
            HashRef::Packed(PackedRef { bytes, count, timed }) => {
                Form::Packed(Packed { bytes: bytes.to_vec(), count, timed })
            }
            HashRef::Indexed(indexed) => Form::Indexed(Box::new(indexed.clone())),
        };
        Hash { form }
    }
}

impl Hash {
    /// An empty hash, packed.
    pub fn new() -> Self {
        Self::default()
    }

    /// The hash, to be read.
    pub fn view(&self) -> HashRef<'_> {
        match &self.form {
            Form::Packed(packed) => HashRef::Packed(packed.view()),
            Form::Indexed(indexed) => HashRef::Indexed(indexed),
        }
    }

    /// The number of fields.
    pub fn len(&self) -> usize {
        self.view().len()
    }

    /// Whether there are no fields.
    pub fn is_empty(&self) -> bool {
        self.view().is_empty()
    }

    /// The field with its value and expiry.
    pub fn get(&self, field: &[u8]) -> Option<Field<'_>> {
        self.view().get(field)
    }

    /// The earliest expiry of any field: Unix time in milliseconds.
    pub fn earliest_ms(&self) -> Option<i64> {
        self.view().earliest_ms()
    }

    /// The heap memory that it takes, in bytes.
    pub fn heap_bytes(&self) -> usize {
        match &self.form {
            Form::Packed(packed) => allocated(packed.bytes.capacity()),
            Form::Indexed(indexed) => indexed.memory_bytes(),
        }
    }

    /// Sets a field and removes its expiry; returns whether the field is new. An existing field keeps its
    /// place in the order.
    pub fn set(&mut self, field: &[u8], value: &[u8], limits: PackedLimits) -> bool {
        self.put(field, value, NEVER, limits)
    }

    /// Like [`Hash::set`], but the field keeps its expiry.
    pub fn update(&mut self, field: &[u8], value: &[u8], limits: PackedLimits) -> bool {
        let old = if self.view().is_timed() { self.get(field) } else { None };
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
            Form::Indexed(indexed) => indexed.put(field, value, expires_at_ms),
        }
    }

    /// Sets or removes the expiry of a field; returns whether the field exists.
    pub fn set_expires_at_ms(&mut self, field: &[u8], expires_at_ms: Option<i64>) -> bool {
        let expires_at_ms = expires_at_ms.unwrap_or(NEVER);
        match &mut self.form {
            Form::Packed(packed) => packed.set_expires_at_ms(field, expires_at_ms),
            Form::Indexed(indexed) => indexed.set_expires_at_ms(field, expires_at_ms),
        }
    }

    /// Removes expired fields, at most `limit`, and returns their names.
    pub fn take_expired(&mut self, now_ms: i64, limit: usize) -> Vec<Box<[u8]>> {
        let names: Vec<Box<[u8]>> = match &self.form {
            Form::Packed(packed) => {
                let expired = packed.view().fields().filter(|field| field.is_expired(now_ms));
                expired.take(limit).map(|field| field.name.into()).collect()
            }
            Form::Indexed(indexed) => {
                let expired = indexed.expired(now_ms).take(limit);
                let fields = expired.filter_map(|number| indexed.nth(number as usize));
                fields.map(|field| field.name.into()).collect()
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
            Form::Indexed(indexed) => indexed.remove(field),
        }
    }

    fn make_indexed(&mut self) {
        if let Form::Packed(packed) = &self.form {
            let mut indexed = Box::new(Indexed::default());
            for Field { name, value, expires_at_ms } in packed.view().fields() {
                indexed.put(name, value, expires_at_ms);
            }
            self.form = Form::Indexed(indexed);
        }
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
        hash.view().iter().map(|field| field.name).collect()
    }

    fn assert_equals_model(hash: &Hash, model: &Model) {
        assert_eq!(hash.view().check(), Ok(()));
        assert_eq!(hash.len(), model.len());
        assert_eq!(hash.is_empty(), model.is_empty());
        assert_eq!(&hash.view().iter().map(owned).collect::<Model>(), model);
        for (n, pair) in hash.view().iter().enumerate() {
            assert_eq!(hash.view().nth(n), Some(pair));
        }
        assert_eq!(hash.view().nth(hash.len()), None);
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
                    assert!(!hash.view().is_packed() || hash.len() <= limits.entries);
                }
                assert!(!(was_indexed && hash.view().is_packed()), "an indexed hash stays indexed");
                was_indexed = !hash.view().is_packed();
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
                        assert_eq!(hash.view().count_expired(now_ms), expired);
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
                assert_eq!(hash.view().iter().map(found).collect::<BTreeMap<_, _>>(), model);
                assert_eq!(hash.view().check(), Ok(()));
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
        assert!(hash.view().is_packed());
        hash.set(&[3], b"", limits(3, 64));
        assert!(!hash.view().is_packed());
        for n in 0..4 {
            assert!(hash.remove(&[n]));
        }
        assert!(hash.is_empty() && !hash.view().is_packed());
    }

    #[test]
    fn a_name_or_a_value_over_the_limit_makes_the_hash_indexed() {
        for (name, value, packed) in
            [("12345", "12345", true), ("123456", "", false), ("", "123456", false)]
        {
            let mut hash = Hash::new();
            hash.set(b"old", b"value", limits(9, 5));
            hash.set(name.as_bytes(), value.as_bytes(), limits(9, 5));
            assert_eq!(hash.view().is_packed(), packed);
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
        assert!(!hash.view().is_packed());
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
                cursor = hash.view().scan(cursor, count, |field| {
                    seen.insert(field.name.to_vec());
                    visited += 1;
                });
                assert!(visited <= count || hash.view().is_packed());
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
                    cursor =
                        hash.view().scan(cursor, count, |field| names.push(field.name.to_vec()));
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
            assert_eq!(hash.view().scan(5, 10, |_| panic!("nothing to visit")), 0);
            hash.set(b"a", b"", limits);
            hash.set(b"b", b"", limits);
            let mut visited = 0;
            assert_eq!(hash.view().scan(u64::MAX, 10, |_| visited += 1), 0);
            assert_eq!(visited, 2);
            assert!(hash.view().scan(2, 0, |_| ()) < 2);
            hash.remove(b"a");
            hash.remove(b"b");
            assert_eq!(hash.view().scan(7, 10, |_| panic!("nothing to visit")), 0);
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
        assert!(indexed.memory_bytes() < 5000, "{}", indexed.memory_bytes());
        assert_eq!(hash.view().check(), Ok(()));
    }

    #[test]
    fn ten_short_fields_take_220_bytes() {
        let mut hash = Hash::new();
        for n in 0..10 {
            let ten_bytes = format!("field-{n:04}");
            hash.set(ten_bytes.as_bytes(), ten_bytes.as_bytes(), ALWAYS_PACKED);
        }
        let Form::Packed(packed) = &hash.form else { panic!("indexed") };
        assert_eq!(packed.bytes.len(), 220);
    }
}
