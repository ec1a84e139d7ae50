//! Keys, and their hash, which finds both the shard of a key and its place in the shard's map.
//!
//! The hash is SipHash with a secret of this process (`RandomState`), so that no client can choose keys that
//! collide. It is the most expensive part of a lookup, so a command computes it once: [`HashedKey`] carries
//! it along, and the maps use it as it is. The bits of a hash:
//!
//! ```text
//!  63    57 56        45 44  41 40                    0
//! |  tag   |   shard    |      |       position        |     (the map itself uses the tag and the
//! ```                                                         low bits: no bit is wasted)
//!
//! `position` orders the keys of a shard for `SCAN`. Together with the shard it makes a cursor of 53 bits,
//! which survives even in clients that store numbers as doubles.

use std::borrow::Borrow;
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher, RandomState};
use std::sync::LazyLock;

use super::inline::Inline;

/// log2 of the number of shards.
pub const SHARD_BITS: u32 = 12;
/// The number of shards.
pub const SHARDS: usize = 1 << SHARD_BITS;
/// log2 of the number of positions in a shard.
pub const POSITION_BITS: u32 = 41;

static SECRET: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// A key that a map owns. Up to 22 bytes are stored in place, which makes it three words.
pub type Key = Inline<22, Box<[u8]>>;

/// A key that a command names, with its hash.
#[derive(Clone, Copy, Debug, Default)]
pub struct HashedKey<'a> {
    hash: u64,
    bytes: &'a [u8],
}

impl<'a> HashedKey<'a> {
    pub fn new(bytes: &'a [u8]) -> HashedKey<'a> {
        let mut hasher = SECRET.build_hasher();
        hasher.write(bytes);
        HashedKey { hash: hasher.finish(), bytes }
    }

    /// The same key in other memory: how a handler names the key of its one-key command. Comparing is far
    /// cheaper than hashing again, and usually the memory is the same.
    ///
    /// # Panics
    /// If it is another key, which may belong to a shard that is not locked: going on could corrupt data.
    #[inline]
    pub(super) fn renamed<'k>(&self, bytes: &'k [u8]) -> HashedKey<'k> {
        if !std::ptr::eq(bytes, self.bytes) && bytes != self.bytes {
            self.refuse(bytes);
        }
        HashedKey { hash: self.hash, bytes }
    }

    #[cold]
    fn refuse(&self, other: &[u8]) -> ! {
        let (declared, used) = (self.bytes.escape_ascii(), other.escape_ascii());
        unreachable!(
            "a command on the key \"{declared}\" used \"{used}\", which its row does not name"
        )
    }

    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The index of the key's shard, the same in every database.
    pub fn shard(&self) -> usize {
        (self.hash >> (57 - SHARD_BITS)) as usize & ((1 << SHARD_BITS) - 1)
    }

    /// The place of the key in the order in which `SCAN` visits its shard.
    pub fn position(&self) -> u64 {
        self.hash & ((1 << POSITION_BITS) - 1)
    }
}

/// What a map looks up: an owned key, or a borrowed one whose hash is known. (`HashMap` wants the borrowed
/// form to be a reference *into* the key; a key with a separate hash is not one. A trait object can stand for
/// both.)
pub trait Lookup {
    fn hash(&self) -> u64;
    fn bytes(&self) -> &[u8];
}

impl Lookup for Key {
    fn hash(&self) -> u64 {
        HashedKey::new(self).hash
    }

    fn bytes(&self) -> &[u8] {
        self
    }
}

impl Lookup for HashedKey<'_> {
    fn hash(&self) -> u64 {
        self.hash
    }

    fn bytes(&self) -> &[u8] {
        self.bytes
    }
}

impl<'a> Borrow<dyn Lookup + 'a> for Key {
    fn borrow(&self) -> &(dyn Lookup + 'a) {
        self
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(Lookup::hash(self));
    }
}

impl Hash for dyn Lookup + '_ {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(Lookup::hash(self));
    }
}

impl PartialEq for dyn Lookup + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.bytes() == other.bytes()
    }
}

impl Eq for dyn Lookup + '_ {}

/// A hasher that returns the hash of a key unchanged.
#[derive(Default)]
pub struct PassThrough(u64);

impl Hasher for PassThrough {
    fn write(&mut self, _: &[u8]) {
        unreachable!("keys hash themselves to one u64");
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// The hasher of the maps of keys.
pub type BuildPassThrough = BuildHasherDefault<PassThrough>;
