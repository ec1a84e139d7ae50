//! What a key holds: a value of some type, perhaps an expiry, and what `OBJECT` shows.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::hash::Hash;
use super::inline::Inline;
use super::memory::allocated;
use super::usage::Usage;
use crate::text::integer;

/// The bytes of a string. Up to 38 are stored in place, which makes a key and its entry 80 bytes.
pub type ByteString = Inline<38, Vec<u8>>;

/// A value. Strings and hashes share one map: a key has one type.
#[derive(Clone)]
pub enum Value {
    /// A byte string.
    String(ByteString),
    /// Fields and their values; never empty while it is in the keyspace.
    Hash(Box<Hash>),
}

/// Values that take long to free are not freed under a lock: strings of more bytes than this …
const COSTLY_BYTES: usize = 1 << 20;
/// … and hashes of more fields than this.
const COSTLY_FIELDS: usize = 512;

/// The longest string that Redis stores in one allocation with its header.
const EMBEDDED_BYTES: usize = 44;

impl Value {
    /// The name of the type of strings.
    pub const STRING: &str = "string";

    /// The name of the type, as `TYPE` returns it.
    pub fn type_name(&self) -> &'static str {
        match self {
            Value::String(_) => Value::STRING,
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

    /// The heap memory that it takes, in bytes, without the entry itself.
    pub fn heap_bytes(&self) -> usize {
        match self {
            Value::String(bytes) => bytes.heap_bytes(),
            Value::Hash(hash) => allocated(size_of::<Hash>()) + hash.heap_bytes(),
        }
    }
}

/// How a string was last written. Redis chooses a string's encoding by that, so `OBJECT ENCODING` shows it;
/// nothing else does. As in Redis, the log records only the string: after a restart, a string is
/// [`StringOrigin::Whole`] unless replay changes it in place.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub enum StringOrigin {
    /// As a whole, by commands such as SET. Redis stores an integer as one.
    #[default]
    Whole,
    /// As a whole, by INCRBYFLOAT. Redis stores it as text even if it is an integer.
    AsText,
    /// In place, by commands such as APPEND, SETBIT and PFADD. Redis does not make it compact again.
    InPlace,
}

/// A value with its expiry and what `OBJECT` shows.
pub struct Entry {
    /// What the key holds.
    pub value: Value,
    /// Unix time in milliseconds, or [`NEVER`]. (An `Option` would take 8 bytes more per key.)
    expires_at_ms: i64,
    /// When or how often it was used ([`Usage`]).
    usage: AtomicU32,
    /// How its string was last written.
    pub origin: StringOrigin,
}

/// The expiry of a key that does not expire. A client can ask for `i64::MAX`, but not for a time before 1970.
const NEVER: i64 = i64::MIN;

impl Entry {
    /// An entry that expires at that Unix time in milliseconds, or never.
    pub fn new(value: Value, expires_at_ms: Option<i64>) -> Entry {
        let (usage, origin) = (AtomicU32::new(0), StringOrigin::default());
        Entry { value, expires_at_ms: expires_at_ms.unwrap_or(NEVER), usage, origin }
    }

    /// A copy with the same value, expiry and origin, not used yet.
    pub fn copy(&self) -> Entry {
        let copy = Entry::new(self.value.clone(), self.expires_at_ms());
        Entry { origin: self.origin, ..copy }
    }

    /// Overwrites a string in place if it does not expire and the reserved memory suits. Returns whether it
    /// did.
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

    /// Records a use.
    pub(super) fn mark_used(&self, usage: Usage) {
        usage.mark(&self.usage);
    }

    /// Records the first use: that it is stored. An entry that replaces another inherits the other's counter.
    pub(super) fn mark_stored(&self, usage: Usage, old: Option<&Entry>) {
        match (usage, old) {
            (Usage::Frequency { .. }, Some(old)) => {
                self.set_usage(old.usage());
                self.mark_used(usage);
            }
            _ => self.set_usage(usage.first()),
        }
    }

    /// When or how often it was used.
    pub fn usage(&self) -> u32 {
        self.usage.load(Relaxed)
    }

    pub(super) fn set_usage(&self, word: u32) {
        self.usage.store(word, Relaxed);
    }

    /// The name of the encoding that Redis would choose for this value.
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

    /// The integer, if Redis would store this string as one.
    pub fn integer(&self) -> Option<i64> {
        match &self.value {
            Value::String(bytes) if self.origin == StringOrigin::Whole => integer::parse_i64(bytes),
            _ => None,
        }
    }

    /// When it expires: Unix time in milliseconds.
    pub fn expires_at_ms(&self) -> Option<i64> {
        Some(self.expires_at_ms).filter(|&expires_at_ms| expires_at_ms != NEVER)
    }

    pub(super) fn set_expires_at_ms(&mut self, expires_at_ms: Option<i64>) {
        self.expires_at_ms = expires_at_ms.unwrap_or(NEVER);
    }

    /// Whether the key has an expiry.
    pub(super) fn is_volatile(&self) -> bool {
        self.expires_at_ms != NEVER
    }

    /// Whether the key has expired. As in Redis, it still exists in the millisecond of its expiry, and a hash
    /// exists until its last field is removed, even if all fields have expired.
    pub(super) fn is_expired(&self, now_ms: i64) -> bool {
        self.is_volatile() && self.expires_at_ms < now_ms
    }

    /// The earliest expiry of a field in it.
    pub(super) fn earliest_field_ms(&self) -> Option<i64> {
        match &self.value {
            Value::Hash(hash) => hash.earliest_ms(),
            Value::String(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::key::Key;
    use super::*;

    #[test]
    fn keys_entries_and_values_have_their_intended_sizes() {
        assert_eq!(size_of::<Value>(), 40);
        assert_eq!(size_of::<Entry>(), 56);
        assert_eq!(size_of::<Key>(), 24);
    }

    #[test]
    fn the_encoding_of_a_string_depends_on_its_length_its_text_and_its_origin() {
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
