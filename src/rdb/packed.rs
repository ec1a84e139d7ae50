//! The byte strings in which Redis keeps small hashes: names and values, one after the other.
//!
//! **Listpack** (Redis 7): the size of the whole string (4 bytes), the number of elements (2, or 65535 for an
//! unknown number), elements, and 255. An element is its encoding and data, and then their size, 7 bits a
//! byte, so that it can be read backwards: the most significant bits come first, and all bytes but the first
//! have their top bit set.
//!
//! **Ziplist** (before Redis 7): the size of the whole string (4), the offset of the last element (4), the
//! number of elements (2, or 65535), elements, and 255. An element is the size of the one before it (a byte,
//! or 254 and four bytes), its encoding and its data.
//!
//! **Zipmap** (before Redis 2.6): the number of fields (a byte, or 254 for an unknown number), and for
//! each field the length of its name (a byte, or 254 and four bytes), the name, the length of its value, the
//! number of unused bytes, the value, and the unused bytes; then 255.
//!
//! Everything is checked, so that a reader that walks backwards, as Redis does, agrees on what is there.

use std::borrow::Cow;

/// An element: bytes, or the digits of an integer.
type Element<'a> = Cow<'a, [u8]>;

/// The elements, or `None` if the bytes are not sound.
type Elements<'a> = Option<Vec<Element<'a>>>;

const END: u8 = 255;
/// A number of elements that means that it is unknown.
const UNKNOWN: u16 = u16::MAX;

/// Takes bytes from the front of what is left.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn byte(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<usize> {
        usize::try_from(self.array().map(u32::from_le_bytes)?).ok()
    }

    fn bytes(&mut self, count: usize) -> Option<Element<'a>> {
        self.take(count).map(Cow::Borrowed)
    }

    /// The digits of a signed integer of this many bytes.
    fn integer(&mut self, size: usize) -> Option<Element<'a>> {
        let mut bytes = [0; 8];
        bytes[8 - size..].copy_from_slice(self.take(size)?);
        Some(digits(i64::from_le_bytes(bytes) >> (64 - 8 * size)))
    }
}

fn digits<'a>(number: i64) -> Element<'a> {
    Cow::Owned(number.to_string().into_bytes())
}

fn counts(announced: u16, elements: &[Element]) -> bool {
    announced == UNKNOWN || usize::from(announced) == elements.len()
}

pub(super) fn listpack(bytes: &[u8]) -> Elements<'_> {
    let mut cursor = Cursor(bytes);
    let (size, announced) = (cursor.u32()?, cursor.u16()?);
    let mut elements = Vec::new();
    while *cursor.0.first()? != END {
        let before = cursor.0.len();
        elements.push(listpack_element(&mut cursor)?);
        let length = before - cursor.0.len();
        let back = backward_length(length);
        if cursor.take(back.len())? != back {
            return None;
        }
    }
    (cursor.0.len() == 1 && size == bytes.len() && counts(announced, &elements)).then_some(elements)
}

fn listpack_element<'a>(cursor: &mut Cursor<'a>) -> Option<Element<'a>> {
    let first = cursor.byte()?;
    match first {
        0..=0x7f => Some(digits(first.into())),
        0x80..=0xbf => cursor.bytes((first & 0x3f).into()),
        0xc0..=0xdf => {
            let low = cursor.byte()?;
            // 13 bits, the first of which is the sign.
            let number = i16::from_be_bytes([first << 3 | low >> 5, low << 3]) >> 3;
            Some(digits(number.into()))
        }
        0xe0..=0xef => {
            let low = cursor.byte()?;
            cursor.bytes(u16::from_be_bytes([first & 0xf, low]).into())
        }
        0xf0 => {
            let length = cursor.u32()?;
            cursor.bytes(length)
        }
        0xf1 => cursor.integer(2),
        0xf2 => cursor.integer(3),
        0xf3 => cursor.integer(4),
        0xf4 => cursor.integer(8),
        _ => None,
    }
}

/// The size of an element as it stands behind it.
fn backward_length(mut length: usize) -> Vec<u8> {
    let mut backward = Vec::new();
    loop {
        backward.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
        if length == 0 {
            break;
        }
    }
    backward.reverse();
    backward[0] &= 0x7f;
    backward
}

pub(super) fn ziplist(bytes: &[u8]) -> Elements<'_> {
    let mut cursor = Cursor(bytes);
    let (size, tail, announced) = (cursor.u32()?, cursor.u32()?, cursor.u16()?);
    let mut elements = Vec::new();
    let mut last = bytes.len() - cursor.0.len();
    let mut previous = 0;
    while *cursor.0.first()? != END {
        let before = cursor.0.len();
        last = bytes.len() - before;
        let stated = match cursor.byte()? {
            254 => cursor.u32()?,
            short => short.into(),
        };
        elements.push(ziplist_element(&mut cursor)?);
        if stated != previous {
            return None;
        }
        previous = before - cursor.0.len();
    }
    let is_whole = cursor.0.len() == 1 && size == bytes.len() && tail == last;
    (is_whole && counts(announced, &elements)).then_some(elements)
}

fn ziplist_element<'a>(cursor: &mut Cursor<'a>) -> Option<Element<'a>> {
    let first = cursor.byte()?;
    match first {
        0..=0x3f => cursor.bytes(first.into()),
        0x40..=0x7f => {
            let low = cursor.byte()?;
            cursor.bytes(u16::from_be_bytes([first & 0x3f, low]).into())
        }
        0x80 => {
            let length = u32::from_be_bytes(cursor.array()?);
            cursor.bytes(usize::try_from(length).ok()?)
        }
        0xc0 => cursor.integer(2),
        0xd0 => cursor.integer(4),
        0xe0 => cursor.integer(8),
        0xf0 => cursor.integer(3),
        0xfe => cursor.integer(1),
        0xf1..=0xfd => Some(digits(i64::from(first & 0xf) - 1)),
        _ => None,
    }
}

pub(super) fn zipmap(bytes: &[u8]) -> Elements<'_> {
    let mut cursor = Cursor(bytes);
    let announced = cursor.byte()?;
    let mut elements = Vec::new();
    while *cursor.0.first()? != END {
        let name = zipmap_length(&mut cursor)?;
        elements.push(cursor.bytes(name)?);
        let value = zipmap_length(&mut cursor)?;
        let unused = cursor.byte()?;
        elements.push(cursor.bytes(value)?);
        cursor.take(unused.into())?;
    }
    let counts = announced == 254 || usize::from(announced) == elements.len() / 2;
    (cursor.0.len() == 1 && counts).then_some(elements)
}

fn zipmap_length(cursor: &mut Cursor) -> Option<usize> {
    match cursor.byte()? {
        254 => cursor.u32(),
        255 => None,
        short => Some(short.into()),
    }
}
