//! When or how often a key was used: one word per key, which `maxmemory-policy` gives its meaning.
//!
//! - Normally the time of the last use, in tenths of a second since the server started (LRU).
//! - With an LFU policy, a logarithmic counter of uses and the minute in which it was last decreased. The
//!   rules are those of Redis (<https://redis.io/docs/latest/develop/reference/eviction/#lfu-eviction>): a
//!   use increases the counter with a probability that falls with its value, and time decreases it.
//!
//! The word is atomic, because readers, which hold only a read lock, set it too. After a change of policy,
//! the words of keys that are not used again keep the old meaning, as in Redis.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// The counter of a new key: not so low that the key is evicted before it can be used again.
const INITIAL_FREQUENCY: u8 = 5;

/// Tenths of a second: the unit of the clock by which keys are marked as used.
pub(super) const TICKS_PER_SECOND: u32 = 10;

/// What a use at this moment is recorded as.
#[derive(Clone, Copy, Debug)]
pub enum Usage {
    /// The time.
    Time {
        /// In ticks since the server started.
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
    pub(super) fn mark(self, word: &AtomicU32) {
        let old = word.load(Relaxed);
        let new = match self {
            Usage::Time { now } => now,
            Usage::Frequency { .. } => self.increased(old),
        };
        if new != old {
            word.store(new, Relaxed);
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

    /// How long ago the last use was, in ticks.
    pub(super) fn idle_ticks(self, word: u32) -> u32 {
        match self {
            Usage::Time { now } => now.saturating_sub(word),
            Usage::Frequency { .. } => 0,
        }
    }

    /// The word of a key whose last use was so many seconds ago. With an LFU policy that says nothing.
    pub(super) fn idle_for(self, seconds: u64) -> u32 {
        let ticks = seconds.saturating_mul(TICKS_PER_SECOND.into());
        match self {
            Usage::Time { now } => now.saturating_sub(u32::try_from(ticks).unwrap_or(u32::MAX)),
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

    /// How long ago the last use was, in seconds.
    pub fn idle_seconds(self, word: u32) -> u32 {
        self.idle_ticks(word) / TICKS_PER_SECOND
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
        let word = AtomicU32::new(usage.first());
        (0..times).for_each(|_| usage.mark(&word));
        usage.frequency(word.load(Relaxed))
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
        let word = AtomicU32::new(Usage::Time { now: 7 }.first());
        Usage::Time { now: 20 }.mark(&word);
        let usage = Usage::Time { now: 55 };
        assert_eq!(usage.idle_ticks(word.load(Relaxed)), 35);
        assert_eq!(usage.idle_seconds(word.load(Relaxed)), 3);
    }
}
