//! What a view needs from the keyspace besides its locked shards: settings, the clock, and notes that are
//! read without a lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering::Relaxed};
use std::time::Instant;

use super::SHARDS;
use super::hash::PackedLimits;
use super::usage::{QUARTERS, Usage};
use crate::config::Config;

/// See the module documentation.
pub(super) struct Environment {
    pub(super) config: Arc<Config>,
    /// Returns the Unix time in milliseconds. Tests set a clock of their own.
    pub(super) clock: fn() -> i64,
    /// Whether any client caches what it reads, and views must collect which keys they modify. Set before the
    /// first tracked read; the shard lock makes it visible to later writers.
    pub(super) tracked: Arc<AtomicBool>,
    /// Whether the data is a copy of a master's, which alone decides what expires. Set before all shards are
    /// locked once, so that a thread that locks one later sees it.
    pub(super) follows: Arc<AtomicBool>,
    /// For each shard a Unix time in milliseconds before which nothing in it expires. Outside the locks, so
    /// that the sweeper sees what is due without taking any.
    earliest_ms: Box<[AtomicI64]>,
    started: Instant,
    /// Seconds since `started`, as of the last [`Environment::tick`]: a clock that costs a command nothing.
    seconds: AtomicU32,
}

impl Environment {
    pub(super) fn new(config: Arc<Config>) -> Environment {
        Environment {
            config,
            clock: super::now_ms,
            tracked: Arc::default(),
            follows: Arc::default(),
            earliest_ms: (0..SHARDS).map(|_| AtomicI64::new(i64::MAX)).collect(),
            started: Instant::now(),
            seconds: AtomicU32::new(0),
        }
    }

    /// An environment for another keyspace, with the same settings and the same coarse clock.
    pub(super) fn new_like(&self) -> Environment {
        let other = Environment {
            clock: self.clock,
            started: self.started,
            ..Environment::new(self.config.clone())
        };
        other.tick();
        other
    }

    /// Up to which size a hash stays packed.
    pub(super) fn packed_limits(&self) -> PackedLimits {
        PackedLimits {
            entries: self.config.hash_max_listpack_entries.load(Relaxed) as usize,
            value_bytes: self.config.hash_max_listpack_value.load(Relaxed) as usize,
        }
    }

    /// Unix time in milliseconds.
    pub(super) fn now_ms(&self) -> i64 {
        (self.clock)()
    }

    /// Advances the coarse clock. Called several times a second.
    pub(super) fn tick(&self) {
        self.seconds.store(self.started.elapsed().as_secs() as u32, Relaxed);
    }

    /// What a use of a key is recorded as now.
    #[inline(always)]
    pub(super) fn usage(&self) -> Usage {
        let seconds = self.seconds.load(Relaxed);
        if !self.config.counts_uses() {
            return Usage::at(seconds);
        }
        Usage::Frequency {
            quarter: (seconds / (60 / u32::from(QUARTERS))) as u16,
            log_factor: self.config.lfu_log_factor.load(Relaxed),
            decay_minutes: self.config.lfu_decay_time.load(Relaxed),
        }
    }

    /// Whether any client caches what it reads.
    #[inline(always)]
    pub(super) fn is_tracked(&self) -> bool {
        self.tracked.load(Relaxed)
    }

    /// Whether the data is a copy of a master's.
    #[inline(always)]
    pub(super) fn follows(&self) -> bool {
        self.follows.load(Relaxed)
    }

    /// A time before which nothing in the shard expires.
    pub(super) fn earliest_expiry_ms(&self, shard: usize) -> i64 {
        self.earliest_ms[shard].load(Relaxed)
    }

    /// Records that something in the shard expires at that time. The caller has locked the shard.
    pub(super) fn note_expiry(&self, shard: usize, expires_at_ms: Option<i64>) {
        if let Some(expires_at_ms) = expires_at_ms {
            self.earliest_ms[shard].fetch_min(expires_at_ms, Relaxed);
        }
    }

    /// Records that nothing in the shard expires before that time. The caller has locked the shard for
    /// writing.
    pub(super) fn set_earliest_expiry(&self, shard: usize, expires_at_ms: i64) {
        self.earliest_ms[shard].store(expires_at_ms, Relaxed);
    }
}
