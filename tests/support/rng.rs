//! The random numbers of all tests: one generator, and one seed for the whole run.
//!
//! `RANDOM_SEED` sets the seed, as CI does; without it, each run takes a new one from the clock. A test
//! that draws from [`Rng::of_run`] prints the seed, and the test runner shows what a failing test has
//! printed. The unit tests in `src`, the suite and the benchmark all include this file.

#![allow(dead_code, reason = "each crate that includes this file uses a part of it")]

use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

/// SplitMix64: any seed will do, and neighbouring seeds give unrelated numbers.
pub(crate) struct Rng(u64);

impl Rng {
    /// Equal seeds give equal numbers.
    pub(crate) fn new(seed: u64) -> Rng {
        Rng(seed)
    }

    /// The generator of one test, from the seed of this run.
    pub(crate) fn of_run() -> Rng {
        let seed = seed_of_run();
        eprintln!("RANDOM_SEED={seed}");
        Rng(seed)
    }

    /// A generator for one more thread.
    pub(crate) fn fork(&mut self) -> Rng {
        Rng(self.next_u64())
    }

    /// Any 64 bits.
    pub(crate) fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A number from 0 to `end - 1`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next_u64() % end as u64) as usize
    }

    /// Up to `longest` bytes of any value.
    pub(crate) fn bytes(&mut self, longest: usize) -> Vec<u8> {
        let length = self.below(longest + 1);
        (0..length).map(|_| self.below(256) as u8).collect()
    }
}

/// `RANDOM_SEED`, or the time at which it was first asked for.
pub(crate) fn seed_of_run() -> u64 {
    static SEED: LazyLock<u64> = LazyLock::new(|| {
        let given = std::env::var("RANDOM_SEED").ok().and_then(|text| text.parse().ok());
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        given.unwrap_or(now.as_micros() as u64)
    });
    *SEED
}
