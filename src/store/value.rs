//! What a key holds: a value of one of the types, and perhaps a deadline.

use super::hash::Hash;

/// A value. Strings and hashes live in one map, or there could be no `WRONGTYPE`.
#[derive(Clone)]
pub enum Value {
    /// A byte string.
    String(Vec<u8>),
    /// Fields and their values; never empty while it is in the keyspace.
    Hash(Box<Hash>),
}

/// Values that take long to free are not freed under a lock. These are strings of more bytes …
const COSTLY_BYTES: usize = 1 << 20;
/// … and hashes of more fields.
const COSTLY_FIELDS: usize = 512;

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
            Value::String(bytes) => bytes.capacity() > COSTLY_BYTES,
            Value::Hash(hash) => hash.len() > COSTLY_FIELDS,
        }
    }
}

/// A value with its deadline.
pub struct Entry {
    /// What the key holds.
    pub value: Value,
    /// Unix time in milliseconds, or [`NEVER`]. (An `Option` would take 8 bytes more per key.)
    pub(super) deadline_ms: i64,
}

/// The deadline of what does not expire. The other end of the range is a deadline that can be asked
/// for; before 1970 nothing can.
pub(super) const NEVER: i64 = i64::MIN;

impl Entry {
    /// A value that expires then, or never.
    pub fn new(value: Value, deadline_ms: Option<i64>) -> Entry {
        Entry { value, deadline_ms: deadline_ms.unwrap_or(NEVER) }
    }

    /// When it expires: Unix time in milliseconds.
    pub fn deadline_ms(&self) -> Option<i64> {
        Some(self.deadline_ms).filter(|&deadline| deadline != NEVER)
    }

    pub(super) fn set_deadline_ms(&mut self, deadline_ms: Option<i64>) {
        self.deadline_ms = deadline_ms.unwrap_or(NEVER);
    }

    /// Whether it can expire at all.
    pub(super) fn is_volatile(&self) -> bool {
        self.deadline_ms != NEVER
    }

    /// Whether it is gone at that moment. Like Redis, a key is still there in its last millisecond.
    pub(super) fn is_expired(&self, now_ms: i64) -> bool {
        self.is_volatile() && self.deadline_ms < now_ms
    }
}

#[cfg(test)]
mod tests {
    use super::super::key::Key;
    use super::*;

    #[test]
    fn an_entry_takes_no_more_than_it_must() {
        assert_eq!(size_of::<Value>(), 24);
        assert_eq!(size_of::<Entry>(), 32);
        assert_eq!(size_of::<Key>(), 24);
    }
}
