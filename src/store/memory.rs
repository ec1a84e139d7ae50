//! How much memory the data takes.
//!
//! The standard library does not say what the allocator has handed out, so it is computed: each table knows
//! what its index, its pages and its large values take, used or free, and a shard adds to the total, when it
//! is unlocked after a change, by how much it has grown ([`Exclusive`](super::guard::Exclusive)). Reads pay
//! nothing.
//!
//! Invariant: when no shard is locked for writing, the total is the sum of [`Shard::memory_units`]
//! ([`Keyspace::check`](super::Keyspace::check)).
//!
//! [`Shard::memory_units`]: super::shard::Shard::memory_units

use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

/// The memory that an allocation of this many bytes takes: glibc adds a header of eight bytes, rounds up to
/// a multiple of 16, and hands out at least 32.
#[inline]
pub fn allocated(bytes: usize) -> usize {
    if bytes == 0 { 0 } else { (bytes + 8).next_multiple_of(UNIT_BYTES).max(2 * UNIT_BYTES) }
}

/// What the allocator hands out is a multiple of this.
pub const UNIT_BYTES: usize = 16;

/// Makes room for one more item, in steps from one on: most tables have few pages and large values, and a
/// `Vec` by itself begins with room for four.
pub fn grow_slowly<T>(items: &mut Vec<T>) {
    if items.len() == items.capacity() {
        items.reserve_exact(1 + items.len() / 2);
    }
}

/// The total is split, so that threads that change different shards rarely write to the same cache line.
const PARTS: usize = 16;

/// The bytes that the data of all shards takes.
#[derive(Default)]
pub struct DataBytes([Part; PARTS]);

#[derive(Default)]
#[repr(align(64))]
struct Part(AtomicI64);

impl DataBytes {
    /// The part of the total that the shard adds to.
    pub(super) fn part(&self, shard: usize) -> &AtomicI64 {
        &self.0[shard % PARTS].0
    }

    /// The total. A shard that is locked for writing counts with its size before.
    pub fn get(&self) -> usize {
        let total: i64 = self.0.iter().map(|part| part.0.load(Relaxed)).sum();
        usize::try_from(total).unwrap_or(0) // the parts are not read at one moment
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allocation_takes_what_glibc_takes() {
        for (bytes, taken) in
            [(0, 0), (1, 32), (24, 32), (25, 48), (40, 48), (41, 64), (1000, 1008)]
        {
            assert_eq!(allocated(bytes), taken, "{bytes} bytes");
        }
    }
}
