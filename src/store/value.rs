//! What a key holds: a value of some type, perhaps an expiry, and what `OBJECT` shows. A table stores an
//! entry as a record; readers get an [`EntryRef`], which points into it.

use super::hash::{Hash, HashRef};
use super::memory::allocated;
use super::record::{Body, LARGE_BYTES, NEVER, StringOrigin};
use super::usage::{Usage, UsageWord};
use crate::text::integer;

/// A value. Strings and hashes share one map: a key has one type.
#[derive(Clone)]
pub enum Value {
    /// A byte string.
    String(Vec<u8>),
    /// Fields and their values; never empty while it is in the keyspace.
    Hash(Hash),
}

/// The key holds a value of a type that the command does not work on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WrongType;

/// A value, to be read.
#[derive(Clone, Copy)]
pub enum ValueRef<'a> {
    /// A byte string.
    String(&'a [u8]),
    /// Fields and their values.
    Hash(HashRef<'a>),
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

    /// The value, to be read.
    pub fn view(&self) -> ValueRef<'_> {
        match self {
            Value::String(bytes) => ValueRef::String(bytes),
            Value::Hash(hash) => ValueRef::Hash(hash.view()),
        }
    }

    /// The name of the type, as `TYPE` returns it.
    pub fn type_name(&self) -> &'static str {
        self.view().type_name()
    }

    /// Whether freeing it may take longer than a lock should be held.
    pub fn is_costly_to_drop(&self) -> bool {
        match self {
            Value::String(bytes) => bytes.capacity() > COSTLY_BYTES,
            Value::Hash(hash) => hash.len() > COSTLY_FIELDS,
        }
    }

    /// The heap memory that it takes, in bytes.
    pub fn heap_bytes(&self) -> usize {
        match self {
            Value::String(bytes) => allocated(bytes.capacity()),
            Value::Hash(hash) => hash.heap_bytes(),
        }
    }
}

impl Value {
    /// What of a value goes into its record; `None` if the value is large and stands outside.
    pub(super) fn body(&self) -> Option<Body<'_>> {
        match self {
            Value::String(bytes) if bytes.len() <= LARGE_BYTES => Some(Body::String(bytes)),
            Value::Hash(hash) => match hash.view() {
                HashRef::Packed(packed) if packed.bytes.len() <= LARGE_BYTES => {
                    Some(Body::Packed(packed))
                }
                _ => None,
            },
            Value::String(_) => None,
        }
    }
}

impl ValueRef<'_> {
    /// The name of the type, as `TYPE` returns it.
    pub fn type_name(self) -> &'static str {
        match self {
            ValueRef::String(_) => Value::STRING,
            ValueRef::Hash(_) => "hash",
        }
    }

    /// About how many bytes a copy takes.
    pub fn copy_bytes(self) -> usize {
        match self {
            ValueRef::String(bytes) => bytes.len(),
            ValueRef::Hash(hash) => hash.copy_bytes(),
        }
    }

    /// A copy of the value.
    pub fn to_owned(self) -> Value {
        match self {
            ValueRef::String(bytes) => Value::String(bytes.to_vec()),
            ValueRef::Hash(hash) => Value::Hash(hash.to_owned()),
        }
    }
}

/// A value with its expiry and what `OBJECT` shows, on its way into a table or out of one.
pub struct Entry {
    /// What the key holds.
    pub value: Value,
    /// Unix time in milliseconds, or [`NEVER`].
    pub(super) expires_at_ms: i64,
    /// When or how often it was used ([`Usage`]).
    pub(super) usage: UsageWord,
    /// How its string was last written.
    pub origin: StringOrigin,
}

fn expiry(expires_at_ms: i64) -> Option<i64> {
    Some(expires_at_ms).filter(|&expires_at_ms| expires_at_ms != NEVER)
}

impl Entry {
    /// An entry that expires at that Unix time in milliseconds, or never.
    pub fn new(value: Value, expires_at_ms: Option<i64>) -> Entry {
        let (usage, origin) = (UsageWord::default(), StringOrigin::default());
        Entry { value, expires_at_ms: expires_at_ms.unwrap_or(NEVER), usage, origin }
    }

    /// The entry, to be read.
    pub fn view(&self) -> EntryRef<'_> {
        let Entry { value, expires_at_ms, usage, origin } = self;
        EntryRef { value: value.view(), expires_at_ms: *expires_at_ms, usage, origin: *origin }
    }

    /// When it expires: Unix time in milliseconds.
    pub fn expires_at_ms(&self) -> Option<i64> {
        expiry(self.expires_at_ms)
    }
}

/// What a key holds, to be read: it points into the table.
#[derive(Clone, Copy)]
pub struct EntryRef<'a> {
    /// What the key holds.
    pub value: ValueRef<'a>,
    /// How its string was last written.
    pub origin: StringOrigin,
    /// Unix time in milliseconds, or [`NEVER`].
    pub(super) expires_at_ms: i64,
    pub(super) usage: &'a UsageWord,
}

impl EntryRef<'_> {
    /// A copy with the same value, expiry and origin, not used yet.
    pub fn to_owned(self) -> Entry {
        let copy = Entry::new(self.value.to_owned(), self.expires_at_ms());
        Entry { origin: self.origin, ..copy }
    }

    /// Records a use.
    #[inline]
    pub(super) fn mark_used(self, usage: Usage) {
        usage.mark(self.usage);
    }

    /// When or how often it was used.
    pub fn usage(self) -> u32 {
        self.usage.load()
    }

    pub(super) fn set_usage(self, word: u32) {
        self.usage.store(word);
    }

    /// The name of the encoding that Redis would choose for this value.
    pub fn encoding(self) -> &'static str {
        match self.value {
            ValueRef::Hash(hash) if hash.is_packed() && hash.is_timed() => "listpackex",
            ValueRef::Hash(hash) if hash.is_packed() => "listpack",
            ValueRef::Hash(_) => "hashtable",
            ValueRef::String(_) if self.integer().is_some() => "int",
            ValueRef::String(bytes) => match self.origin {
                StringOrigin::Whole | StringOrigin::AsText if bytes.len() <= EMBEDDED_BYTES => {
                    "embstr"
                }
                _ => "raw",
            },
        }
    }

    /// The integer, if Redis would store this string as one.
    pub fn integer(self) -> Option<i64> {
        match self.value {
            ValueRef::String(bytes) if self.origin == StringOrigin::Whole => {
                integer::parse_i64(bytes)
            }
            _ => None,
        }
    }

    /// When it expires: Unix time in milliseconds.
    pub fn expires_at_ms(self) -> Option<i64> {
        expiry(self.expires_at_ms)
    }

    /// Whether the key has an expiry.
    pub(super) fn is_volatile(self) -> bool {
        self.expires_at_ms != NEVER
    }

    /// Whether the key has expired. As in Redis, it still exists in the millisecond of its expiry, and a hash
    /// exists until its last field is removed, even if all fields have expired.
    pub(super) fn is_expired(self, now_ms: i64) -> bool {
        self.is_volatile() && self.expires_at_ms < now_ms
    }

    /// The earliest expiry of a field in it.
    pub(super) fn earliest_field_ms(self) -> Option<i64> {
        match self.value {
            ValueRef::Hash(hash) => hash.earliest_ms(),
            ValueRef::String(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_encoding_of_a_string_depends_on_its_length_its_text_and_its_origin() {
        let encoding = |text: &[u8], origin| {
            let entry = Entry::new(Value::String(text.to_vec()), None);
            Entry { origin, ..entry }.view().encoding()
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
