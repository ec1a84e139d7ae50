//! A histogram of durations, to two significant digits.
//!
//! The buckets are log-linear: each doubling of the duration is divided into 128 equal parts. Redis divides
//! it in the same way, so percentiles are the same numbers in both. A histogram takes 26 KB, however much is
//! counted.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The number of parts that each doubling is divided into.
const PARTS: u64 = 1 << PART_BITS;
const PART_BITS: u32 = 7;
/// Durations from 2^9 ns on are counted apart from zero; the unit is a microsecond, so none is shorter.
const FIRST_DOUBLING: u32 = 9;
/// Durations of 2^34 ns (17 seconds) and more are counted in the last bucket.
const LAST_DOUBLING: u32 = 33;
const BUCKETS: usize = 1 + ((LAST_DOUBLING - FIRST_DOUBLING + 1) as usize) * PARTS as usize;

/// A histogram that threads share.
pub struct Histogram(Box<[AtomicU64]>);

/// The bucket for a duration in whole microseconds. Bucket 0 is for zero.
pub fn bucket_of(microseconds: u64) -> usize {
    let nanoseconds = microseconds.saturating_mul(1000).min((1 << (LAST_DOUBLING + 1)) - 1);
    if nanoseconds == 0 {
        return 0;
    }
    let doubling = nanoseconds.ilog2();
    let part = (nanoseconds >> (doubling - PART_BITS)) - PARTS;
    1 + (doubling - FIRST_DOUBLING) as usize * PARTS as usize + part as usize
}

/// The longest duration that a bucket counts, in nanoseconds.
fn end_of(bucket: usize) -> u64 {
    let Some(place) = bucket.checked_sub(1) else { return 0 };
    let (doubling, part) = (place as u32 / PARTS as u32 + FIRST_DOUBLING, place as u64 % PARTS);
    ((PARTS + part + 1) << (doubling - PART_BITS)) - 1
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram((0..BUCKETS).map(|_| AtomicU64::new(0)).collect())
    }
}

impl Histogram {
    /// Adds to the count of a bucket.
    pub fn add(&self, bucket: usize, more: u64) {
        self.0[bucket].fetch_add(more, Relaxed);
    }

    /// A copy that no other thread changes.
    pub fn copy(&self) -> Histogram {
        Histogram(self.0.iter().map(|bucket| bucket.load(Relaxed).into()).collect())
    }

    pub fn reset(&self) {
        self.0.iter().for_each(|bucket| bucket.store(0, Relaxed));
    }

    /// The number of durations counted.
    pub fn total(&self) -> u64 {
        self.0.iter().map(|bucket| bucket.load(Relaxed)).sum()
    }

    /// The duration, in nanoseconds, that this percentage of all durations does not exceed.
    pub fn percentile(&self, percent: f64) -> u64 {
        let wanted = ((percent / 100.0 * self.total() as f64 + 0.5) as u64).max(1);
        let mut counted = 0;
        let reaches = |bucket: &AtomicU64| {
            counted += bucket.load(Relaxed);
            counted >= wanted
        };
        self.0.iter().position(reaches).map_or(0, end_of)
    }

    /// Pairs of a limit in microseconds and the number of durations up to it. The limits double and are
    /// rounded to buckets as in Redis: 1, 2, 4, 8, 16, 33, … Limits that add no duration are left out.
    pub fn cumulative(&self) -> Vec<(u64, u64)> {
        let (mut found, mut counted, mut last) = (Vec::new(), 0, 0);
        let mut buckets = self.0.iter().enumerate().peekable();
        for limit_ns in (0..=LAST_DOUBLING - 9).map(|doublings| (1032u64 << doublings) - 1) {
            while let Some((_, bucket)) = buckets.next_if(|(place, _)| end_of(*place) <= limit_ns) {
                counted += bucket.load(Relaxed);
            }
            if counted > last {
                found.push((limit_ns / 1000, counted));
                last = counted;
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_ends_where_the_next_begins_and_is_at_most_a_hundredth_wide() {
        let mut last = 0;
        for microseconds in (0..200_000).chain((200_000..20_000_000).step_by(997)) {
            let bucket = bucket_of(microseconds);
            assert!(bucket >= last && bucket < BUCKETS);
            let end = end_of(bucket);
            let exceeds_by = end.saturating_sub(microseconds * 1000);
            assert!(
                exceeds_by <= microseconds * 1000 / 100 || end == (1 << 34) - 1,
                "{microseconds}"
            );
            assert!(
                bucket == 0 || end_of(bucket - 1) < microseconds * 1000 || end == (1 << 34) - 1
            );
            last = bucket;
        }
        assert_eq!((bucket_of(0), bucket_of(u64::MAX)), (0, BUCKETS - 1));
    }

    #[test]
    fn percentiles_are_the_ends_of_buckets() {
        let histogram = Histogram::default();
        assert_eq!(histogram.percentile(50.0), 0);
        histogram.add(bucket_of(24), 98);
        histogram.add(bucket_of(240), 1);
        histogram.add(bucket_of(20851), 1);
        // Redis replies these percentiles for the same durations.
        assert_eq!(histogram.percentile(50.0), 24_063);
        assert_eq!(histogram.percentile(99.0), 240_639);
        assert_eq!(histogram.percentile(99.9), 20_971_519);
        assert_eq!(histogram.percentile(0.0), 24_063);
    }

    #[test]
    fn limits_double_and_are_left_out_if_they_add_no_duration() {
        let histogram = Histogram::default();
        for (microseconds, times) in [(0, 1), (1, 2), (5, 1), (33, 1), (34, 1), (20851, 1)] {
            histogram.add(bucket_of(microseconds), times);
        }
        assert_eq!(histogram.cumulative(), [(1, 3), (8, 4), (33, 5), (66, 6), (33816, 7)]);
        histogram.reset();
        assert!(histogram.cumulative().is_empty());
        histogram.add(bucket_of(60_000_000), 1);
        assert_eq!(histogram.cumulative(), [(17_314_086, 1)]);
    }
}
