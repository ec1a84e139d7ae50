//! When or how often a key was used: 24 bits per key, which `maxmemory-policy` gives their meaning.
//!
//! - Normally the time of the last use, in seconds since the server started (LRU). As in Redis, it wraps
//!   around after 194 days: a key that is idle for longer looks younger.
//! - With an LFU policy, a logarithmic counter of uses and the minute in which it was last decreased. The
//!   rules are those of Redis (<https://redis.io/docs/latest/develop/reference/eviction/#lfu-eviction>): a
//!   use increases the counter with a probability that falls with its value, and time decreases it.
//!
//! They are atomic, because readers, which hold only a read lock, set them too. After a change of policy,
//! those of keys that are not used again keep the old meaning, as in Redis.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

/// The counter of a new key: not so low that the key is evicted before it can be used again.
const INITIAL_FREQUENCY: u8 = 5;

/// The 24 bits of a key. Three bytes need no alignment, so a slot of a table has no gap. Two readers who mark
/// a key at the same moment may mix their bytes; that is off by as much as the two differ.
#[derive(Default)]
pub struct UsageWord([AtomicU8; 3]);

/// What a word holds.
const MASK: u32 = 0xff_ffff;

impl UsageWord {
    /// The bits.
    pub(super) fn load(&self) -> u32 {
        let [low, middle, high] = &self.0;
        u32::from_le_bytes([low.load(Relaxed), middle.load(Relaxed), high.load(Relaxed), 0])
    }

    /// Sets the bits.
    pub(super) fn store(&self, word: u32) {
        self.0.iter().zip(word.to_le_bytes()).for_each(|(byte, new)| byte.store(new, Relaxed));
    }
}

impl From<u32> for UsageWord {
    fn from(word: u32) -> UsageWord {
        let [low, middle, high, _] = word.to_le_bytes();
        UsageWord([low, middle, high].map(AtomicU8::new))
    }
}

/// What a use at this moment is recorded as.
#[derive(Clone, Copy, Debug)]
pub enum Usage {
    /// The time.
    Time {
        /// In seconds since the server started, modulo 2^24.
        now: u32,
    },
    /// The counter.
    Frequency {
        /// The minute, modulo 2^16.
        minute: u16,
        /// `lfu-log-factor`.
        log_factor: i64,
        /// `lfu-decay-time`: after so many minutes the counter falls by one; 0 for never.
        decay_minutes: i64,
    },
}

impl Usage {
    /// A use at that time, in seconds since the server started.
    pub(super) fn at(seconds: u32) -> Usage {
        Usage::Time { now: seconds & MASK }
    }

    /// The word of a key that is used for the first time.
    pub(super) fn first(self) -> u32 {
        match self {
            Usage::Time { now } => now,
            Usage::Frequency { minute, .. } => pack(minute, INITIAL_FREQUENCY),
        }
    }

    /// Records a use. The time is stored only if it has changed, so that the cache line of a key that many
    /// clients read does not move from core to core.
    #[inline]
    pub(super) fn mark(self, word: &UsageWord) {
        let old = word.load();
        let new = match self {
            Usage::Time { now } => now,
            Usage::Frequency { .. } => self.increased(old),
        };
        if new != old {
            word.store(new);
        }
    }

    #[cold]
    fn increased(self, word: u32) -> u32 {
        let Usage::Frequency { minute, log_factor, .. } = self else { return word };
        let frequency = self.frequency(word);
        let above = f64::from(frequency.saturating_sub(INITIAL_FREQUENCY));
        let is_hit = random() < 1.0 / (above * log_factor as f64 + 1.0);
        pack(minute, frequency.saturating_add(u8::from(is_hit)))
    }

    /// The counter as it is now.
    pub fn frequency(self, word: u32) -> u8 {
        let (minute, counter) = ((word >> 8) as u16, word as u8);
        match self {
            Usage::Frequency { minute: now, decay_minutes, .. } if decay_minutes > 0 => {
                let periods = i64::from(now.wrapping_sub(minute)) / decay_minutes;
                counter.saturating_sub(u8::try_from(periods).unwrap_or(u8::MAX))
            }
            _ => counter,
        }
    }

    /// How long ago the last use was, in seconds.
    pub fn idle_seconds(self, word: u32) -> u32 {
        match self {
            Usage::Time { now } => now.wrapping_sub(word) & MASK,
            Usage::Frequency { .. } => 0,
        }
    }

    /// The word of a key whose last use was so many seconds ago. With an LFU policy that says nothing.
    pub(super) fn idle_for(self, seconds: u64) -> u32 {
        match self {
            Usage::Time { now } => now.wrapping_sub(seconds.min(MASK.into()) as u32) & MASK,
            Usage::Frequency { .. } => self.first(),
        }
    }

    /// The word of a key with this counter. With another policy that says nothing.
    pub(super) fn with_frequency(self, counter: u8) -> u32 {
        match self {
            Usage::Time { .. } => self.first(),
            Usage::Frequency { minute, .. } => pack(minute, counter),
        }
    }
}

fn pack(minute: u16, counter: u8) -> u32 {
    u32::from(minute) << 8 | u32::from(counter)
}

/// A random number from 0 up to 1 (xorshift; each thread has its own seed).
pub(super) fn random() -> f64 {
    thread_local! {
        static STATE: Cell<u64> = Cell::new(RandomState::new().hash_one(0u8) | 1);
    }
    STATE.with(|state| {
        let mut bits = state.get();
        bits ^= bits << 13;
        bits ^= bits >> 7;
        bits ^= bits << 17;
        state.set(bits);
        (bits >> 11) as f64 / (1u64 << 53) as f64
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FREQUENCY: Usage = Usage::Frequency { minute: 10, log_factor: 10, decay_minutes: 1 };

    fn used(times: usize, usage: Usage) -> u8 {
        let word = UsageWord::from(usage.first());
        (0..times).for_each(|_| usage.mark(&word));
        usage.frequency(word.load())
    }

    #[test]
    fn the_counter_grows_with_the_logarithm_of_the_uses() {
        // Redis's documentation gives 10 for 100 uses, 18 for 1,000 and 142 for 100,000, with a factor of 10.
        let mean = |times| (0..30).map(|_| f64::from(used(times, FREQUENCY))).sum::<f64>() / 30.0;
        assert!((8.0..12.0).contains(&mean(100)));
        assert!((15.0..22.0).contains(&mean(1000)));
        assert!((130.0..155.0).contains(&mean(100_000)));
        let linear = Usage::Frequency { minute: 10, log_factor: 0, decay_minutes: 1 };
        assert_eq!((used(3, linear), used(300, linear)), (8, 255));
    }

    #[test]
    fn the_counter_falls_by_one_in_each_period_even_if_the_minutes_wrap_around() {
        for (now, decay_minutes, expected) in
            [(65_530, 1, 100), (65_535, 1, 95), (4, 1, 90), (4, 5, 98), (4, 0, 100), (1000, 1, 0)]
        {
            let usage = Usage::Frequency { minute: now, log_factor: 10, decay_minutes };
            assert_eq!(usage.frequency(pack(65_530, 100)), expected, "{usage:?}");
        }
    }

    #[test]
    fn the_time_is_what_was_last_marked() {
        let word = UsageWord::from(Usage::Time { now: 7 }.first());
        for (used, now, idle) in [(20, 55, 35), (0xff_fff0, 0xff_ffff, 15), (0xff_fff0, 4, 20)] {
            Usage::Time { now: used }.mark(&word);
            assert_eq!(Usage::Time { now }.idle_seconds(word.load()), idle);
        }
        let usage = Usage::Time { now: 3 };
        assert_eq!(usage.idle_seconds(usage.idle_for(10)), 10);
        assert_eq!(usage.idle_seconds(usage.idle_for(u64::MAX)), MASK);
    }
}
