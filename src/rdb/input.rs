//! Reading the format's numbers and strings from a file or a payload.
//!
//! The input counts its bytes, so that an error says where it happened, and sums them up for the checksum.
//! No length is trusted: memory grows with the bytes that have arrived.

use std::io::{self, ErrorKind, Read};

use super::{Error, crc64, lzf};
use crate::memory;

/// A length, or a string that is not stored as it is.
enum Length {
    Plain(u64),
    Encoded(u8),
}

/// The special encodings of strings.
const INT8: u8 = 0;
const INT16: u8 = 1;
const INT32: u8 = 2;
const LZF: u8 = 3;

/// Bytes that are read one after the other.
pub struct Input<R> {
    source: R,
    offset: u64,
    crc: u64,
}

impl<R: Read> Input<R> {
    pub(super) fn new(source: R) -> Input<R> {
        Input { source, offset: 0, crc: 0 }
    }

    /// How many bytes were read.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The checksum of the bytes that were read.
    pub(super) fn crc(&self) -> u64 {
        self.crc
    }

    /// An error about what was just read.
    pub(super) fn corrupt(&self, why: impl Into<String>) -> Error {
        Error::Corrupt { offset: self.offset, why: why.into() }
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let mut bytes = [0; N];
        self.source.read_exact(&mut bytes).map_err(|error| match error.kind() {
            ErrorKind::UnexpectedEof => self.ends(),
            _ => Error::Io(error),
        })?;
        self.passed(&bytes);
        Ok(bytes)
    }

    pub(super) fn byte(&mut self) -> Result<u8, Error> {
        self.array().map(u8::from_le_bytes)
    }

    pub(super) fn i64(&mut self) -> Result<i64, Error> {
        self.array().map(i64::from_le_bytes)
    }

    /// This many bytes.
    pub(super) fn bytes(&mut self, count: u64) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        let read = (&mut self.source).take(count).read_to_end(&mut bytes)?;
        if (read as u64) < count {
            return Err(self.ends());
        }
        bytes.shrink_to_fit();
        self.passed(&bytes);
        Ok(bytes)
    }

    fn passed(&mut self, bytes: &[u8]) {
        self.offset += bytes.len() as u64;
        self.crc = crc64::update(self.crc, bytes);
    }

    fn ends(&self) -> Error {
        self.corrupt("it ends in the middle")
    }

    pub(super) fn length(&mut self) -> Result<u64, Error> {
        match self.length_or_encoding()? {
            Length::Plain(length) => Ok(length),
            Length::Encoded(_) => Err(self.corrupt("a string stands in place of a length")),
        }
    }

    fn length_or_encoding(&mut self) -> Result<Length, Error> {
        let first = self.byte()?;
        let six_bits = first & 0x3f;
        Ok(match (first >> 6, six_bits) {
            (0, _) => Length::Plain(six_bits.into()),
            (1, _) => Length::Plain(u16::from_be_bytes([six_bits, self.byte()?]).into()),
            (2, 0) => Length::Plain(u32::from_be_bytes(self.array()?).into()),
            (2, 1) => Length::Plain(u64::from_be_bytes(self.array()?)),
            (3, encoding) => Length::Encoded(encoding),
            _ => return Err(self.corrupt("a length of an unknown form")),
        })
    }

    pub(super) fn string(&mut self) -> Result<Vec<u8>, Error> {
        let digits = |number: i32| number.to_string().into_bytes();
        match self.length_or_encoding()? {
            Length::Plain(length) => self.bytes(length),
            Length::Encoded(INT8) => Ok(digits(i8::from_le_bytes(self.array()?).into())),
            Length::Encoded(INT16) => Ok(digits(i16::from_le_bytes(self.array()?).into())),
            Length::Encoded(INT32) => Ok(digits(i32::from_le_bytes(self.array()?))),
            Length::Encoded(LZF) => {
                let (compressed, length) = (self.length()?, self.length()?);
                let compressed = self.bytes(compressed)?;
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                if length <= compressed.len().saturating_mul(lzf::GREATEST_RATIO) {
                    memory::ensure_available(length).map_err(io::Error::from)?;
                }
                let string = lzf::decompress(&compressed, length);
                string.ok_or_else(|| self.corrupt("a string that cannot be decompressed"))
            }
            Length::Encoded(_) => Err(self.corrupt("a string of an unknown form")),
        }
    }
}
