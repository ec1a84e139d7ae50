//! What a key holds: a value of one of the types, perhaps a deadline, and what `OBJECT` tells of it.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::hash::Hash;
use super::inline::Inline;
use crate::text::integer;

/// The bytes of a string. So many stand in place, which makes a key and its entry 80 bytes.
pub type ByteString = Inline<38, Vec<u8>>;

/// A value. Strings and hashes live in one map, or there could be no `WRONGTYPE`.
#[derive(Clone)]
pub enum Value {
    /// A byte string.
    String(ByteString),
    /// Fields and their values; never empty while it is in the keyspace.
    Hash(Box<Hash>),
}

/// Values that take long to free are not freed under a lock. These are strings of more bytes …
const COSTLY_BYTES: usize = 1 << 20;
/// … and hashes of more fields.
const COSTLY_FIELDS: usize = 512;

/// The longest string that Redis keeps in one piece with what it knows of it.
const EMBEDDED_BYTES: usize = 44;

impl Value {
    /// The name of the type, as `TYPE` answers it.
    pub fn type_name(&self) -> &'static str {
        match self {
            Value::String(_) => "string",
            Value::Hash(_) => "hash",
        }
    }

    /// Whether freeing it may take longer than a lock should be held.
    pub fn is_costly_to_drop(&self) -> bool {
        match self {
            Value::String(bytes) => bytes.heap_bytes() > COSTLY_BYTES,
            Value::Hash(hash) => hash.len() > COSTLY_FIELDS,
        }
    }

    /// The memory that it has reserved beside its entry, in bytes. Of a large hash so many fields are
    /// looked at, and the others taken for like them; 0 for all.
    pub fn heap_bytes(&self, samples: usize) -> usize {
        match self {
            Value::String(bytes) => bytes.heap_bytes(),
            Value::Hash(hash) => size_of::<Hash>() + hash.heap_bytes(samples),
        }
    }
}

/// How a string was last origin. Redis picks the form in which it keeps a string by that, so `OBJECT
/// ENCODING` tells the one from the other, and nothing else does. Like Redis, a log remembers only the
/// string: after a restart, whatever it does not write in place again counts as origin whole.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub enum StringOrigin {
    /// As a whole: SET and its kin. What looks like an integer is kept as one.
    #[default]
    Whole,
    /// As a whole, but as text whatever it looks like: INCRBYFLOAT.
    AsText,
    /// In part, where it stands: APPEND, SETBIT, PFADD and the like. Nobody makes it compact again.
    InPlace,
}

/// A value with what is kept beside it.
pub struct Entry {
    /// What the key holds.
    pub value: Value,
    /// Unix time in milliseconds, or [`NEVER`]. (An `Option` would take 8 bytes more per key.)
    expires_at_ms: i64,
    /// The second of its last use, by the clock of the keyspace. Readers set it too, who hold no more
    /// than a read lock.
    used_at: AtomicU32,
    /// How its string was last origin.
    pub origin: StringOrigin,
}

/// The deadline of what does not expire. The other end of the range is a deadline that can be asked
/// for; before 1970 nothing can.
const NEVER: i64 = i64::MIN;

impl Entry {
    /// A value that expires then, or never.
    pub fn new(value: Value, expires_at_ms: Option<i64>) -> Entry {
        let (used_at, origin) = (AtomicU32::new(0), StringOrigin::default());
        Entry { value, expires_at_ms: expires_at_ms.unwrap_or(NEVER), used_at, origin }
    }

    /// Another of the same value and deadline.
    pub fn copy(&self) -> Entry {
        let copy = Entry::new(self.value.clone(), self.expires_at_ms());
        Entry { origin: self.origin, ..copy }
    }

    /// Overwrites a string without a deadline where it stands, if the room is about right; says whether.
    pub(super) fn overwrite(&mut self, string: &[u8]) -> bool {
        let done = match &mut self.value {
            Value::String(old) => self.expires_at_ms == NEVER && old.overwrite(string),
            Value::Hash(_) => false,
        };
        if done {
            self.origin = StringOrigin::Whole;
        }
        done
    }

    /// Takes note of its use. Once a second at most that is a store: the memory of a key that many
    /// read at once must not wander from core to core.
    pub(super) fn mark_used(&self, second: u32) {
        if self.used_at.load(Relaxed) != second {
            self.used_at.store(second, Relaxed);
        }
    }

    /// The second of its last use, by the clock of the keyspace.
    pub fn used_at(&self) -> u32 {
        self.used_at.load(Relaxed)
    }

    /// Redis's name for the form in which it would keep this value.
    pub fn encoding(&self) -> &'static str {
        match &self.value {
            Value::Hash(hash) if hash.is_packed() && hash.is_timed() => "listpackex",
            Value::Hash(hash) if hash.is_packed() => "listpack",
            Value::Hash(_) => "hashtable",
            Value::String(_) if self.integer().is_some() => "int",
            Value::String(bytes) => match self.origin {
                StringOrigin::Whole | StringOrigin::AsText if bytes.len() <= EMBEDDED_BYTES => {
                    "embstr"
                }
                _ => "raw",
            },
        }
    }

    /// The integer that Redis would keep in the place of this string.
    pub fn integer(&self) -> Option<i64> {
        match &self.value {
            Value::String(bytes) if self.origin == StringOrigin::Whole => integer::parse_i64(bytes),
            _ => None,
        }
    }

    /// When it expires: Unix time in milliseconds.
    pub fn expires_at_ms(&self) -> Option<i64> {
        Some(self.expires_at_ms).filter(|&deadline| deadline != NEVER)
    }

    pub(super) fn set_expires_at_ms(&mut self, expires_at_ms: Option<i64>) {
        self.expires_at_ms = expires_at_ms.unwrap_or(NEVER);
    }

    /// Whether it can expire at all.
    pub(super) fn is_volatile(&self) -> bool {
        self.expires_at_ms != NEVER
    }

    /// Whether it, or any field in it, can expire.
    pub(super) fn can_expire(&self) -> bool {
        self.is_volatile() || self.timed_hash().is_some()
    }

    /// Whether its own deadline has passed at that moment. Like Redis, a key is still there in its
    /// last millisecond.
    pub(super) fn has_passed(&self, now_ms: i64) -> bool {
        self.is_volatile() && self.expires_at_ms < now_ms
    }

    /// Whether it is gone at that moment: its own deadline has passed, or it is a hash and those of all
    /// of its fields have.
    pub(super) fn is_expired(&self, now_ms: i64) -> bool {
        self.has_passed(now_ms) || self.timed_hash().is_some_and(|hash| hash.is_expired(now_ms))
    }

    /// The earliest deadline of a field in it.
    pub(super) fn earliest_field_ms(&self) -> Option<i64> {
        self.timed_hash().and_then(Hash::earliest_ms)
    }

    fn timed_hash(&self) -> Option<&Hash> {
        match &self.value {
            Value::Hash(hash) if hash.is_timed() => Some(hash),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::key::Key;
    use super::*;

    #[test]
    fn an_entry_takes_no_more_than_it_must() {
        assert_eq!(size_of::<Value>(), 40);
        assert_eq!(size_of::<Entry>(), 56);
        assert_eq!(size_of::<Key>(), 24);
    }

    #[test]
    fn the_encoding_of_a_string_follows_from_its_length_what_it_says_and_how_it_was_written() {
        let encoding = |text: &[u8], origin| {
            let entry = Entry::new(Value::String(ByteString::new(text)), None);
            Entry { origin, ..entry }.encoding()
        };
        use StringOrigin::{AsText, InPlace, Whole};
        for (text, origin, expected) in [
            (&b"5"[..], Whole, "int"),
            (b"-9223372036854775808", Whole, "int"),
            (b"9223372036854775808", Whole, "embstr"),
            (b"007", Whole, "embstr"),
            (b"", Whole, "embstr"),
            (b"5", AsText, "embstr"),
            (b"5", InPlace, "raw"),
            (&[b'x'; 44], Whole, "embstr"),
            (&[b'x'; 45], Whole, "raw"),
            (&[b'1'; 45], AsText, "raw"),
        ] {
            assert_eq!(encoding(text, origin), expected, "{} {origin:?}", text.escape_ascii());
        }
    }
}
