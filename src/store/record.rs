//! A record: how a table stores a key with what it holds.
//!
//! ```text
//! flags | length of key | length of body | expiry  | key | body
//! 1     | varint        | varint         | 0 or 8  |     |
//!
//! flags:  0    1    2    3    4    5    6    7
//!        | kind    | origin  | ex | de |         |
//! ```
//!
//! - `kind` says what the body is: the bytes of a string; a packed hash, which is its number of fields as a
//!   [`varint`] and then the fields as `hash.rs` describes them; the same with room for expiries; or, in four
//!   bytes, the number of a large value, which stands outside.
//! - `origin` is the [`StringOrigin`].
//! - `ex`: the key has an expiry, in Unix milliseconds. (Numbers of several bytes are little-endian.)
//! - `de`: the record is dead. It stays until its page is cleaned.
//!
//! A record says how long it is, so a page is walked from one to the next.

use super::packed::PackedRef;
use super::varint;

const KIND: u8 = 0b11;
const STRING: u8 = 0;
const PACKED: u8 = 1;
const PACKED_TIMED: u8 = 2;
const LARGE: u8 = 3;
const ORIGIN_SHIFT: u32 = 2;
const VOLATILE: u8 = 1 << 4;
const DEAD: u8 = 1 << 5;

/// A longer value stands outside: a place of its own takes less than what is left free in a page when the
/// next record does not fit.
pub const LARGE_BYTES: usize = 640;

/// The expiry of a key that does not expire. A client can ask for `i64::MAX`, but not for a time before 1970.
pub const NEVER: i64 = i64::MIN;

const EXPIRY_BYTES: usize = size_of::<i64>();
const NUMBER_BYTES: usize = size_of::<u32>();

/// How a string was last written. Redis chooses a string's encoding by that, so `OBJECT ENCODING` shows it;
/// nothing else does. As in Redis, the log records only the string: after a restart, a string is
/// [`StringOrigin::Whole`] unless replay changes it in place.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub enum StringOrigin {
    /// As a whole, by commands such as SET. Redis stores an integer as one.
    #[default]
    Whole = 0,
    /// As a whole, by INCRBYFLOAT. Redis stores it as text even if it is an integer.
    AsText = 1,
    /// In place, by commands such as APPEND, SETBIT and PFADD. Redis does not make it compact again.
    InPlace = 2,
}

/// A record that was read.
#[derive(Clone, Copy)]
pub struct Record<'a> {
    /// What it begins, with whatever is behind it.
    bytes: &'a [u8],
    flags: u8,
    /// How many bytes come before the key.
    head_bytes: usize,
    /// The key.
    pub key: &'a [u8],
    body: &'a [u8],
    /// When it expires: Unix time in milliseconds, or [`NEVER`].
    pub expires_at_ms: i64,
}

/// Where the parts of a record are.
#[derive(Clone, Copy)]
pub struct Shape {
    head_bytes: usize,
    body_at: usize,
    len: usize,
    is_volatile: bool,
}

/// What a record holds.
#[derive(Clone, Copy)]
pub enum Body<'a> {
    /// A string.
    String(&'a [u8]),
    /// A packed hash.
    Packed(PackedRef<'a>),
    /// The number of a large value.
    Large(u32),
}

impl<'a> Record<'a> {
    /// The record that these bytes begin with.
    ///
    /// # Panics
    /// If they do not begin with one.
    #[inline(always)]
    pub fn at(bytes: &'a [u8]) -> Record<'a> {
        if let [flags, key_bytes, body_bytes, rest @ ..] = bytes
            && (key_bytes | body_bytes) & 0x80 == 0
            && flags & VOLATILE == 0
        {
            let (key, rest) = rest.split_at((*key_bytes).into());
            let body = &rest[..(*body_bytes).into()];
            return Record { bytes, flags: *flags, head_bytes: 3, key, body, expires_at_ms: NEVER };
        }
        Record::any_at(bytes)
    }

    /// The same, for a record that has long parts or an expiry.
    fn any_at(bytes: &'a [u8]) -> Record<'a> {
        let flags = bytes[0];
        let (key_bytes, rest) = varint::split(&bytes[1..]);
        let (body_bytes, mut rest) = varint::split(rest);
        let mut expires_at_ms = NEVER;
        if flags & VOLATILE != 0
            && let Some((expiry, behind)) = rest.split_first_chunk()
        {
            (expires_at_ms, rest) = (i64::from_le_bytes(*expiry), behind);
        }
        let head_bytes = bytes.len() - rest.len();
        let (key, rest) = rest.split_at(key_bytes);
        Record { bytes, flags, head_bytes, key, body: &rest[..body_bytes], expires_at_ms }
    }

    /// How many bytes it takes.
    pub fn len(&self) -> usize {
        self.head_bytes + self.key.len() + self.body.len()
    }

    /// Where its parts are.
    pub fn shape(&self) -> Shape {
        let (head_bytes, body_at) = (self.head_bytes, self.head_bytes + self.key.len());
        Shape { head_bytes, body_at, len: self.len(), is_volatile: self.is_volatile() }
    }

    /// A copy of its bytes.
    pub fn to_vec(self) -> Vec<u8> {
        self.bytes[..self.len()].to_vec()
    }

    /// Whether it is dead.
    pub fn is_dead(&self) -> bool {
        self.flags & DEAD != 0
    }

    /// Whether the key has an expiry.
    pub fn is_volatile(&self) -> bool {
        self.flags & VOLATILE != 0
    }

    /// How the string was last written.
    pub fn origin(&self) -> StringOrigin {
        match self.flags >> ORIGIN_SHIFT & 0b11 {
            0 => StringOrigin::Whole,
            1 => StringOrigin::AsText,
            _ => StringOrigin::InPlace,
        }
    }

    /// What it holds.
    #[inline]
    pub fn body(&self) -> Body<'a> {
        match self.flags & KIND {
            STRING => Body::String(self.body),
            LARGE => {
                let number = self.body.first_chunk::<NUMBER_BYTES>();
                Body::Large(number.map_or(u32::MAX, |number| u32::from_le_bytes(*number)))
            }
            kind => {
                let (count, bytes) = varint::split(self.body);
                let timed = kind == PACKED_TIMED;
                Body::Packed(PackedRef { bytes, count: count as u32, timed })
            }
        }
    }
}

/// A record to be written.
#[derive(Clone, Copy)]
pub struct NewRecord<'a> {
    pub key: &'a [u8],
    pub body: Body<'a>,
    pub origin: StringOrigin,
    /// Unix time in milliseconds, or [`NEVER`].
    pub expires_at_ms: i64,
}

impl NewRecord<'_> {
    fn flags(&self) -> u8 {
        let kind = match self.body {
            Body::String(_) => STRING,
            Body::Packed(PackedRef { timed: false, .. }) => PACKED,
            Body::Packed(_) => PACKED_TIMED,
            Body::Large(_) => LARGE,
        };
        let volatile = if self.expires_at_ms == NEVER { 0 } else { VOLATILE };
        kind | (self.origin as u8) << ORIGIN_SHIFT | volatile
    }

    fn body_bytes(&self) -> usize {
        match self.body {
            Body::String(bytes) => bytes.len(),
            Body::Packed(PackedRef { bytes, count, .. }) => {
                varint::len(count as usize) + bytes.len()
            }
            Body::Large(_) => NUMBER_BYTES,
        }
    }

    /// How many bytes it takes.
    pub fn len(&self) -> usize {
        let expiry_bytes = if self.expires_at_ms == NEVER { 0 } else { EXPIRY_BYTES };
        let body_bytes = self.body_bytes();
        let lengths_bytes = varint::len(self.key.len()) + varint::len(body_bytes);
        1 + lengths_bytes + expiry_bytes + self.key.len() + body_bytes
    }

    /// Appends it.
    pub fn push_to(&self, bytes: &mut Vec<u8>) {
        bytes.push(self.flags());
        varint::push(bytes, self.key.len());
        varint::push(bytes, self.body_bytes());
        if self.expires_at_ms != NEVER {
            bytes.extend_from_slice(&self.expires_at_ms.to_le_bytes());
        }
        bytes.extend_from_slice(self.key);
        match self.body {
            Body::String(body) => bytes.extend_from_slice(body),
            Body::Packed(packed) => {
                varint::push(bytes, packed.count as usize);
                bytes.extend_from_slice(packed.bytes);
            }
            Body::Large(number) => bytes.extend_from_slice(&number.to_le_bytes()),
        }
    }
}

/// Overwrites all but the key of the record that the bytes begin with, which has this shape, if that needs as
/// much room. Returns whether it does.
#[inline]
pub fn overwrite(
    bytes: &mut [u8],
    old: Shape,
    body: Body,
    origin: StringOrigin,
    expires_at_ms: i64,
) -> bool {
    let new = NewRecord { key: &[], body, origin, expires_at_ms };
    let flags = new.flags();
    let body_bytes = old.len - old.body_at;
    if old.is_volatile != (flags & VOLATILE != 0) || body_bytes != new.body_bytes() {
        return false;
    }
    bytes[0] = flags;
    if flags & VOLATILE != 0 {
        let end = old.head_bytes;
        bytes[end - EXPIRY_BYTES..end].copy_from_slice(&expires_at_ms.to_le_bytes());
    }
    let place = &mut bytes[old.body_at..old.len];
    match body {
        Body::String(new) => place.copy_from_slice(new),
        Body::Packed(packed) => {
            let (count, fields) = place.split_at_mut(place.len() - packed.bytes.len());
            varint::write(count, packed.count as usize);
            fields.copy_from_slice(packed.bytes);
        }
        Body::Large(number) => place.copy_from_slice(&number.to_le_bytes()),
    }
    true
}

/// Changes the expiry of the record that the bytes begin with, if that needs as much room. Returns whether it
/// does.
pub fn set_expiry(bytes: &mut [u8], expires_at_ms: i64) -> bool {
    let old = Record::at(bytes);
    let (is_volatile, end) = (old.is_volatile(), old.head_bytes);
    if is_volatile && expires_at_ms != NEVER {
        bytes[end - EXPIRY_BYTES..end].copy_from_slice(&expires_at_ms.to_le_bytes());
    }
    is_volatile == (expires_at_ms != NEVER)
}

/// Marks a record as dead.
pub fn kill(bytes: &mut [u8]) {
    bytes[0] |= DEAD;
}
