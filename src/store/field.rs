//! A field of a hash, as readers see it.

/// A field, its value and its expiry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    /// The name of the field.
    pub name: &'a [u8],
    /// Its value.
    pub value: &'a [u8],
    /// Unix time in milliseconds, or [`NEVER`].
    pub(super) expires_at_ms: i64,
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
pub(super) const NEVER: i64 = i64::MAX;
