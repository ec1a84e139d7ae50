//! The packed form of a hash; see `hash.rs`.

use std::ops::Range;

use super::field::{Field, NEVER};
use super::varint;

const EXPIRY_BYTES: usize = size_of::<i64>();

/// The packed form: `bytes` holds exactly `count` fields, each with an expiry if the hash is `timed`.
#[derive(Clone, Debug, Default)]
pub struct Packed {
    pub(super) bytes: Vec<u8>,
    pub(super) count: u32,
    pub(super) timed: bool,
}

/// A packed hash, to be read. A table stores it as it is.
#[derive(Clone, Copy, Debug)]
pub struct PackedRef<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) count: u32,
    pub(super) timed: bool,
}

impl<'a> PackedRef<'a> {
    pub fn fields(self) -> Fields<'a> {
        Fields { rest: self.bytes, timed: self.timed }
    }
}

impl Packed {
    pub fn view(&self) -> PackedRef<'_> {
        PackedRef { bytes: &self.bytes, count: self.count, timed: self.timed }
    }

    /// The range of the field in `bytes`.
    fn find(&self, name: &[u8]) -> Option<Range<usize>> {
        let mut fields = self.view().fields();
        let mut start = 0;
        while let Some(field) = fields.next() {
            let end = self.bytes.len() - fields.rest.len();
            if field.name == name {
                return Some(start..end);
            }
            start = end;
        }
        None
    }

    pub fn put(&mut self, name: &[u8], value: &[u8], expires_at_ms: i64) -> bool {
        if expires_at_ms != NEVER {
            self.make_timed();
        }
        let expiry = self.timed.then_some(expires_at_ms);
        let Some(old) = self.find(name) else {
            push_field(&mut self.bytes, name, value, expiry);
            self.count += 1;
            return true;
        };
        let value_at = old.start + varint::len(name.len()) + name.len() + varint::len(value.len());
        let value_end = value_at + value.len();
        if value_end + expiry.map_or(0, |_| EXPIRY_BYTES) == old.end {
            // As long as before: usually so.
            self.bytes[value_at..value_end].copy_from_slice(value);
            if let Some(expires_at_ms) = expiry {
                self.bytes[value_end..old.end].copy_from_slice(&expires_at_ms.to_le_bytes());
            }
        } else {
            let new = field_bytes(name, value, expiry);
            self.bytes.splice(old, new);
        }
        false
    }

    pub fn set_expires_at_ms(&mut self, name: &[u8], expires_at_ms: i64) -> bool {
        if expires_at_ms != NEVER {
            self.make_timed();
        }
        let Some(Range { end, .. }) = self.find(name) else {
            return false;
        };
        if self.timed {
            let place = end - EXPIRY_BYTES..end;
            self.bytes[place].copy_from_slice(&expires_at_ms.to_le_bytes());
        }
        true
    }

    /// Gives every field room for an expiry.
    fn make_timed(&mut self) {
        if !self.timed {
            let fields = self.view().fields();
            self.bytes =
                fields.flat_map(|old| field_bytes(old.name, old.value, Some(NEVER))).collect();
            self.timed = true;
        }
    }

    pub fn remove(&mut self, name: &[u8]) -> bool {
        let Some(old) = self.find(name) else {
            return false;
        };
        self.bytes.drain(old);
        self.count -= 1;
        true
    }
}

/// Iterates over fields that are stored one after another.
pub struct Fields<'a> {
    rest: &'a [u8],
    timed: bool,
}

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    fn next(&mut self) -> Option<Field<'a>> {
        if self.rest.is_empty() {
            return None;
        }
        let (field, rest) = split_field(self.rest, self.timed);
        self.rest = rest;
        Some(field)
    }
}

/// Encodes a field, with exactly the capacity that it needs: boxing it copies nothing.
fn field_bytes(name: &[u8], value: &[u8], expires_at_ms: Option<i64>) -> Vec<u8> {
    let len = varint::len(name.len()) + name.len() + varint::len(value.len()) + value.len();
    let mut bytes = Vec::with_capacity(len + expires_at_ms.map_or(0, |_| EXPIRY_BYTES));
    push_field(&mut bytes, name, value, expires_at_ms);
    bytes
}

fn push_field(bytes: &mut Vec<u8>, name: &[u8], value: &[u8], expires_at_ms: Option<i64>) {
    for part in [name, value] {
        varint::push(bytes, part.len());
        bytes.extend_from_slice(part);
    }
    bytes.extend(expires_at_ms.iter().flat_map(|expires_at_ms| expires_at_ms.to_le_bytes()));
}

/// Splits off the first field.
fn split_field(bytes: &[u8], timed: bool) -> (Field<'_>, &[u8]) {
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
    let (len, rest) = varint::split(bytes);
    rest.split_at(len)
}
