//! Keys, and their hash, which finds both the shard of a key and its place in the shard's map.
//!
//! The hash is SipHash with a secret of this process (`RandomState`), so that no client can choose keys that
//! collide. It is the most expensive part of a lookup, so a command computes it once: [`HashedKey`] carries
//! it along. The bits of a hash:
//!
//! ```text
//!  63      48 47    41 40              24 23          0
//! |   shard  |        |           position             |
//!                                        |  fragment   |
//! ```
//!
//! The `fragment` finds the key in its shard. `position` orders the keys of a shard for `SCAN`; together with
//! the shard it makes a cursor of 53 bits, which survives even in clients that store numbers as doubles.
//!
//! Shards are not equally large: the largest gets twice as many keys as the smallest, and the others all that
//! is between. A map doubles when it is full, and then is half empty; shards of one size would all do so at
//! the same number of keys, and a keyspace that has just passed it would take nearly twice the memory of one
//! that has not. With sizes like these, the same part of the shards is half empty at any number of keys.

use std::cell::RefCell;
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher, RandomState};
use std::sync::LazyLock;

/// log2 of the number of shards.
pub const SHARD_BITS: u32 = 12;
/// The number of shards.
pub const SHARDS: usize = 1 << SHARD_BITS;
/// log2 of the number of positions in a shard.
pub const POSITION_BITS: u32 = 41;

static SECRET: LazyLock<RandomState> = LazyLock::new(RandomState::new);

fn hash_of(bytes: &[u8]) -> u64 {
    let mut hasher = SECRET.build_hasher();
    hasher.write(bytes);
    hasher.finish()
}

/// How many hashes are remembered.
const AHEAD_KEYS: usize = 16;

thread_local! {
    static AHEAD: RefCell<Ahead> =
        const { RefCell::new(Ahead { hashes: [(Exact::NONE, 0); AHEAD_KEYS], len: 0, taken: 0 }) };
}

/// Hashes that were computed ahead, in the order in which they will be wanted, with their keys.
struct Ahead {
    hashes: [(Exact, u64); AHEAD_KEYS],
    len: usize,
    taken: usize,
}

impl Ahead {
    /// The hash of the key, if it is the next one, or the one behind it: a command need not use its key.
    #[inline]
    fn take(&mut self, key: &[u8]) -> Option<u64> {
        let next = self.hashes[..self.len].get(self.taken..)?;
        let key = Exact::of(key)?;
        let step = next.iter().take(2).position(|(known, _)| *known == key)?;
        self.taken += step + 1;
        Some(next[step].1)
    }

    #[inline]
    fn push(&mut self, key: HashedKey) {
        if let (Some(place), Some(exact)) = (self.hashes.get_mut(self.len), Exact::of(key.bytes)) {
            *place = (exact, key.hash);
            self.len += 1;
        }
    }
}

/// A key of 8 to 32 bytes, in a form that is quickly compared: its first bytes, its last bytes, which may
/// overlap, and its length.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Exact([u8; 16], [u8; 16], usize);

impl Exact {
    const NONE: Exact = Exact([0; 16], [0; 16], 0);

    #[inline]
    fn of(key: &[u8]) -> Option<Exact> {
        let (mut first, mut last) = ([0; 16], [0; 16]);
        if key.len() >= 16 {
            (first, last) = (*key.first_chunk()?, *key.last_chunk()?);
        } else {
            first[..8].copy_from_slice(key.first_chunk::<8>()?);
            last[..8].copy_from_slice(key.last_chunk::<8>()?);
        }
        (key.len() <= 32).then_some(Exact(first, last, key.len()))
    }
}

/// A key that a command names, with its hash.
#[derive(Clone, Copy, Debug, Default)]
pub struct HashedKey<'a> {
    hash: u64,
    bytes: &'a [u8],
}

impl<'a> HashedKey<'a> {
    /// The key with its hash, which is remembered if it was computed ahead.
    #[inline]
    pub fn new(bytes: &'a [u8]) -> HashedKey<'a> {
        let known = AHEAD.with_borrow_mut(|ahead| ahead.take(bytes));
        HashedKey { hash: known.unwrap_or_else(|| hash_of(bytes)), bytes }
    }

    /// The keys with their hashes, which the next calls of [`HashedKey::new`] in this thread are likely to
    /// want in this order. Hashing is a tenth of the work of a `GET`, and need not be done twice.
    pub(super) fn ahead<const N: usize>(
        keys: impl Iterator<Item = &'a [u8]>,
        hashed: &mut [HashedKey<'a>; N],
    ) -> usize {
        AHEAD.with_borrow_mut(|ahead| {
            ahead.len = 0;
            ahead.taken = 0;
            let mut count = 0;
            for (place, bytes) in hashed.iter_mut().zip(keys) {
                *place = HashedKey { hash: hash_of(bytes), bytes };
                ahead.push(*place);
                count += 1;
            }
            count
        })
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
        // A parabola through (0, 0) and (1, 1) whose slope, the inverse of a shard's size, doubles.
        let part = self.hash >> 48;
        let curved = part * ((2 << 16) + part) / 3;
        (curved >> (32 - SHARD_BITS)) as usize
    }

    /// The bits by which a table finds the key.
    #[inline]
    pub(super) fn fragment(&self) -> Fragment {
        let [low, middle, high, ..] = self.hash.to_le_bytes();
        Fragment([low, middle, high])
    }

    /// The place of the key in the order in which `SCAN` visits its shard.
    pub fn position(&self) -> u64 {
        self.hash & ((1 << POSITION_BITS) - 1)
    }
}

/// The part of a key's hash by which a table finds the key: 24 bits, in bytes, so that it needs no alignment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fragment([u8; 3]);

impl Fragment {
    fn to_u32(self) -> u32 {
        let [low, middle, high] = self.0;
        u32::from_le_bytes([low, middle, high, 0])
    }

    /// The one behind it; behind the last, the first.
    pub(super) fn next(self) -> Fragment {
        let [low, middle, high, _] = self.to_u32().wrapping_add(1).to_le_bytes();
        Fragment([low, middle, high])
    }
}

impl Hash for Fragment {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u32(self.to_u32());
    }
}

/// The hasher of fragments, which are hashes already. The map takes its tag from the high bits, and the slot
/// from the low ones.
#[derive(Default)]
pub struct PassThrough(u64);

impl Hasher for PassThrough {
    fn write(&mut self, _: &[u8]) {
        unreachable!("a fragment hashes itself to one u32");
    }

    fn write_u32(&mut self, fragment: u32) {
        self.0 = u64::from(fragment) << 40 | u64::from(fragment);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// What makes that hasher.
pub type BuildPassThrough = BuildHasherDefault<PassThrough>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_that_was_computed_ahead_is_that_of_the_same_key() {
        let names: Vec<Vec<u8>> = (0..20).map(|len| vec![b'k'; 2 * len]).collect();
        let mut hashed = [HashedKey::default(); 20];
        assert_eq!(HashedKey::ahead(names.iter().map(|name| &**name), &mut hashed), 20);
        let other = HashedKey::new(b"another key").hash;
        assert_eq!(other, hash_of(b"another key"));
        for (name, ahead) in names.iter().zip(hashed) {
            assert_eq!(HashedKey::new(name).hash, hash_of(name), "{}", name.len());
            assert_eq!(ahead.hash, hash_of(name));
        }
    }

    #[test]
    fn the_largest_shard_has_twice_as_many_keys_as_the_smallest_and_none_is_out_of_range() {
        let mut keys = vec![0u32; SHARDS];
        for high in 0..1u64 << 16 {
            keys[HashedKey { hash: high << 48, bytes: b"" }.shard()] += 1;
        }
        let sum = |range: std::ops::Range<usize>| keys[range].iter().sum::<u32>();
        let (first, last) = (sum(0..SHARDS / 16), sum(SHARDS * 15 / 16..SHARDS));
        let ratio = f64::from(first.max(last)) / f64::from(first.min(last));
        assert!((1.85..2.15).contains(&ratio), "{ratio}");
        assert!(keys.iter().all(|&keys| keys > 0));
    }
}
