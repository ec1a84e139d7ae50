//! Keys, and the one hash of a key that finds both its shard and its place in the shard's map.
//!
//! The hash is SipHash with a secret of this process (`RandomState`), so nobody can choose keys that
//! collide. It is the dearest part of a lookup, so a command computes it once: [`HashedKey`] carries
//! it along, and the maps take it as it is. The bits of a hash:
//!
//! ```text
//!  63    57 56        45 44  41 40                    0
//! |  tag   |   shard    |      |       position        |     (the map itself uses the tag and the
//! ```                                                          low bits, so none goes to waste)
//!
//! `position` orders the keys of a shard for `SCAN`; with the shard it makes a cursor of 53 bits,
//! which even a client that keeps numbers as doubles hands back unharmed.

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

/// A key as a map owns it; with so many bytes in place it takes three words.
pub type Key = Inline<22, Box<[u8]>>;

/// A key as a command names it, with its hash.
#[derive(Clone, Copy, Debug, Default)]
pub struct HashedKey<'a> {
    hash: u64,
    bytes: &'a [u8],
}

impl<'a> HashedKey<'a> {
    /// Hashes the key.
    pub fn new(bytes: &'a [u8]) -> HashedKey<'a> {
        let mut hasher = SECRET.build_hasher();
        hasher.write(bytes);
        HashedKey { hash: hasher.finish(), bytes }
    }

    /// Another name for a key whose hash is known: the view of a one-key command.
    pub(super) fn with_hash(bytes: &'a [u8], hash: u64) -> HashedKey<'a> {
        debug_assert_eq!(HashedKey::new(bytes).hash, hash, "the command has just one key");
        HashedKey { hash, bytes }
    }

    /// The hash.
    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    /// The key.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The number of the shard that has the key, in every database.
    pub fn shard(&self) -> usize {
        (self.hash >> (57 - SHARD_BITS)) as usize & ((1 << SHARD_BITS) - 1)
    }

    /// Where the key stands in the order in which `SCAN` visits its shard.
    pub fn position(&self) -> u64 {
        self.hash & ((1 << POSITION_BITS) - 1)
    }
}

/// What a map compares: an owned key, or a borrowed one whose hash is known already. (`HashMap`
/// wants the borrowed form to be a reference *into* the key, which a hash beside it cannot be; a
/// trait object is the way to have two representations of one thing.)
pub trait Lookup {
    /// Its hash.
    fn hash(&self) -> u64;
    /// The key.
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

/// Takes the hash of a key as it is.
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
