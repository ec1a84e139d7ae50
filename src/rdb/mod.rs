//! RDB, the format in which Redis and Valkey store and exchange data: whole data sets in files, and single
//! values in the payloads of `DUMP` and `RESTORE`. Data comes in and goes out through here.
//!
//! | module | what it owns |
//! |---|---|
//! | [`input`] | reading the format's numbers and strings, whatever the bytes are |
//! | [`packed`] | the byte strings in which Redis keeps small hashes: listpack, ziplist, zipmap |
//! | [`value`] | which types there are, and reading those that exist here |
//! | [`read`] | reading a file |
//! | [`encode`] | writing |
//! | [`payload`] | values for `DUMP` and from `RESTORE` |
//! | [`save`] | writing the keyspace to a file while the server goes on |
//! | [`progress`] | the right to save, and how saves went |
//! | [`crc64`], [`lzf`] | the checksum and the compression |
//!
//! # A file
//!
//! ```text
//! file    = header item* EOF checksum
//! header  = "REDIS" and four digits, or "VALKEY" and three: the version
//! item    = AUX string string             a fact about the file: all but those on replication are skipped
//!         | SELECTDB length               the database of the keys that follow
//!         | RESIZEDB length length        how many keys it has, and how many of them expire
//!         | attribute* type string value  a key
//!         | FUNCTION2 string              a library of functions, which is skipped
//!         | MODULE_AUX …                  a module's own data, which is skipped
//!         | SLOT_INFO length length length
//! attribute = EXPIRETIME seconds:4 | EXPIRETIME_MS milliseconds:8 | IDLE length | FREQ byte
//! ```
//!
//! Numbers of a fixed size are little-endian. `EXPIRETIME` is Unix time. The checksum is the CRC-64 of
//! everything before it ([`crc64`]), or zero if it was not computed; versions before 5 have none.
//!
//! # Lengths and strings
//!
//! The first two bits of a length say how it goes on: `00` six bits, `01` fourteen bits, both in big-endian
//! order; `10` four bytes if the other bits are zero, eight if the last of them is one, in big-endian order.
//! `11` is no length but a string in a special encoding: an integer of one, two or four bytes, which stands
//! for its digits, or compressed bytes ([`lzf`]): the length of the compressed bytes, that of the original,
//! and the compressed bytes. Any other string is its length and its bytes.
//!
//! # Values
//!
//! ```text
//!  0       a string
//!  4       a hash: the number of fields; for each the name and the value
//!  9 13 16 a hash in a string: zipmap, ziplist, listpack (see `packed`)
//! 24       a hash with expiring fields (Redis 7.4): a Unix time in 8 bytes; the number of fields; for each a
//!          length, the name and the value. The length is 0 for a field that does not expire, or else 1 more
//!          than the milliseconds from that time to its expiry
//! 25       the same in a string: a Unix time; a listpack of names, values, and Unix times or 0
//! 22 23    previews of 24 and 25 without the Unix time in front; the lengths in 22 are Unix times
//! 22       in Valkey's versions, a hash with expiring fields: the number of fields; for each the name, the
//!          value, and a Unix time in 8 bytes or -1
//! ```
//!
//! All other types are lists, sets, sorted sets, streams and values of modules, which do not exist here. A
//! file with one of them is refused; the error names the type, the key and the offset.
//!
//! # Versions
//!
//! Versions 1 to 12 are those of Redis, up to 8.2. Valkey shares them up to 11, and counts its own from 80
//! on. What is written here is version 10, which Redis 7.0 and Valkey 7.2 read, and all that came later. A
//! hash with expiring fields needs a newer version, in which Redis and Valkey differ: see [`Dialect`].
//!
//! # Damage
//!
//! Whatever bytes are read, the result is data or an [`Error`]. A length in the input is not trusted: memory
//! is reserved as bytes arrive, so it is bounded by a multiple of the input's size (88 for compressed bytes,
//! about the same for a file of tiny keys).

mod crc64;
pub mod encode;
pub mod input;
mod lzf;
mod packed;
pub mod payload;
pub mod progress;
pub mod read;
pub mod save;
#[cfg(test)]
mod tests;
pub mod value;

use std::{fmt, io};

use crate::config::Config;
pub use progress::Saves;

/// Versions that can be read.
fn is_readable(version: u16) -> bool {
    matches!(version, 1..=12 | VALKEY_VERSION)
}

/// The version that every server since Redis 7.0 reads.
const COMMON_VERSION: u16 = 10;
/// The version of Redis 7.4, the first with expiring fields.
const REDIS_VERSION: u16 = 12;
/// The version of Valkey 9, the first of Valkey with expiring fields.
const VALKEY_VERSION: u16 = 80;

/// The server that must understand hashes with expiring fields. Both understand everything else.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dialect {
    /// Redis since 7.4.
    Redis,
    /// Valkey since 9.0.
    Valkey,
}

impl Dialect {
    /// The one that the settings ask for.
    pub fn of(config: &Config) -> Dialect {
        if config.writes_for_valkey() { Dialect::Valkey } else { Dialect::Redis }
    }

    /// The version to write. `timed` says whether there may be expiring fields.
    fn version(self, timed: bool) -> u16 {
        match self {
            _ if !timed => COMMON_VERSION,
            Dialect::Redis => REDIS_VERSION,
            Dialect::Valkey => VALKEY_VERSION,
        }
    }
}

/// The marks before items that are not keys.
mod opcode {
    pub(super) const SLOT_INFO: u8 = 244;
    pub(super) const FUNCTION2: u8 = 245;
    pub(super) const MODULE_AUX: u8 = 247;
    pub(super) const IDLE: u8 = 248;
    pub(super) const FREQ: u8 = 249;
    pub(super) const AUX: u8 = 250;
    pub(super) const RESIZEDB: u8 = 251;
    pub(super) const EXPIRETIME_MS: u8 = 252;
    pub(super) const EXPIRETIME: u8 = 253;
    pub(super) const SELECTDB: u8 = 254;
    pub(super) const EOF: u8 = 255;
}

/// The types of values that exist here.
mod kind {
    pub(super) const STRING: u8 = 0;
    pub(super) const HASH: u8 = 4;
    pub(super) const HASH_ZIPMAP: u8 = 9;
    pub(super) const HASH_ZIPLIST: u8 = 13;
    pub(super) const HASH_LISTPACK: u8 = 16;
    /// In Valkey's versions; in Redis's, [`HASH_TIMED_PREVIEW`].
    pub(super) const HASH_VALKEY: u8 = 22;
    pub(super) const HASH_TIMED_PREVIEW: u8 = 22;
    pub(super) const HASH_TIMED_LISTPACK_PREVIEW: u8 = 23;
    pub(super) const HASH_TIMED: u8 = 24;
    pub(super) const HASH_TIMED_LISTPACK: u8 = 25;
}

/// Why data cannot be read.
#[derive(Debug)]
pub enum Error {
    /// The file cannot be read.
    Io(io::Error),
    /// The bytes are not what the format says.
    Corrupt {
        /// Where.
        offset: u64,
        /// What is wrong, as a text for the operator.
        why: String,
    },
    /// The data is sound, but cannot be held here.
    Unsupported {
        /// Where it begins.
        offset: u64,
        /// What it is.
        what: String,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Io(error) => write!(f, "it cannot be read: {error}"),
            Error::Corrupt { offset, why } => write!(f, "damaged at offset {offset}: {why}"),
            Error::Unsupported { offset, what } => write!(f, "at offset {offset}: {what}"),
        }
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Error {
        Error::Io(error)
    }
}
