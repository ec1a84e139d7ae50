//! When or how often a key was used: 24 bits per key, which `maxmemory-policy` gives their meaning.
//!
//! - Normally the time of the last use, in seconds since the server started (LRU). As in Redis, it wraps
//!   around after 194 days: a key that is idle for longer looks younger.
//! - With an LFU policy, a logarithmic counter of uses and the quarter of a minute of the last one. The rules
//!   are those of Redis (<https://redis.io/docs/latest/develop/reference/eviction/#lfu-eviction>): a use
//!   increases the counter with a probability that falls with its value, and each minute decreases it. Redis
//!   keeps the minute. The quarter tells which of two keys with one counter was used last, and most of the
//!   keys that a cache could evict have the same. It wraps around after 11 days.
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
        /// The quarter of a minute, modulo 2^16.
        quarter: u16,
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
            Usage::Frequency { quarter, .. } => pack(quarter, INITIAL_FREQUENCY),
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
        let Usage::Frequency { quarter, log_factor, .. } = self else { return word };
        let frequency = self.frequency(word);
        let above = f64::from(frequency.saturating_sub(INITIAL_FREQUENCY));
        let is_hit = random() < 1.0 / (above * log_factor as f64 + 1.0);
        pack(quarter, frequency.saturating_add(u8::from(is_hit)))
    }

    /// The counter as it is now.
    pub fn frequency(self, word: u32) -> u8 {
        let counter = word as u8;
        match self {
            Usage::Frequency { quarter: now, decay_minutes, .. } if decay_minutes > 0 => {
                let [now, then] = [now, quarter_of(word)].map(|quarter| quarter / QUARTERS);
                let minutes = now.wrapping_sub(then) % (1 << 14);
                let periods = i64::from(minutes) / decay_minutes;
                counter.saturating_sub(u8::try_from(periods).unwrap_or(u8::MAX))
            }
            _ => counter,
        }
    }

    /// How long ago the last use was, in units that depend on the policy.
    pub(super) fn age(self, word: u32) -> u32 {
        match self {
            Usage::Time { .. } => self.idle_seconds(word),
            Usage::Frequency { quarter, .. } => quarter.wrapping_sub(quarter_of(word)).into(),
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
            Usage::Frequency { quarter, .. } => pack(quarter, counter),
        }
    }
}

/// Of a minute.
pub(super) const QUARTERS: u16 = 4;

fn pack(quarter: u16, counter: u8) -> u32 {
    u32::from(quarter) << 8 | u32::from(counter)
}

fn quarter_of(word: u32) -> u16 {
    (word >> 8) as u16
}

/// A random number from 0 up to 1.
fn random() -> f64 {
    (random_bits() >> 11) as f64 / (1u64 << 53) as f64
}

/// A random number (xorshift; each thread has its own seed).
pub(super) fn random_bits() -> u64 {
    thread_local! {
        static STATE: Cell<u64> = Cell::new(RandomState::new().hash_one(0u8) | 1);
    }
    STATE.with(|state| {
        let mut bits = state.get();
        bits ^= bits << 13;
        bits ^= bits >> 7;
        bits ^= bits << 17;
        state.set(bits);
        bits
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FREQUENCY: Usage = Usage::Frequency { quarter: 10, log_factor: 10, decay_minutes: 1 };

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
        let linear = Usage::Frequency { quarter: 10, log_factor: 0, decay_minutes: 1 };
        assert_eq!((used(3, linear), used(300, linear)), (8, 255));
    }

    #[test]
    fn the_counter_falls_by_one_in_each_period_even_if_the_minutes_wrap_around() {
        let last = pack(65_523, 100); // the last quarter of a minute
        for (quarter, decay_minutes, expected) in [
            (65_523, 1, 100),
            (65_524, 1, 99),
            (65_535, 1, 97),
            (3, 1, 96),
            (16, 4, 98),
            (16, 0, 100),
        ] {
            let usage = Usage::Frequency { quarter, log_factor: 10, decay_minutes };
            assert_eq!(usage.frequency(last), expected, "{usage:?}");
        }
        let later = Usage::Frequency { quarter: 4000, log_factor: 10, decay_minutes: 1 };
        assert_eq!(later.frequency(last), 0);
    }

    #[test]
    fn of_keys_that_are_used_equally_often_it_is_known_which_was_used_last() {
        let at = |quarter| Usage::Frequency { quarter, log_factor: 10, decay_minutes: 1 };
        let [older, newer] = [at(65_530), at(65_534)].map(|usage| usage.first());
        assert_eq!([older, newer].map(|word| at(2).age(word)), [8, 4]);
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
