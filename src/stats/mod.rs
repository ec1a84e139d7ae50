//! What the server knows of its own past: counters, what each command cost, slow commands, latency events.
//!
//! Nobody waits for any of it. What every command touches is counted by its connection in [`CallCounts`]
//! of its own, and collected into the shared counters when somebody asks for those. The locks here
//! ([`slowlog`], [`latency`], the errors, the list of commands that were ever called) are below all others,
//! held for a few copies, and met only when something happens that is rare or slow anyway.

pub mod calls;
pub mod histogram;
pub mod latency;
pub mod logins;
pub mod slowlog;

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub use calls::{CommandStats, Commands, Counts as CallCounts, Tally};
pub use latency::Monitor;
pub use logins::FailedLogins;
pub use slowlog::SlowLog;

/// A count of things that happened since the server started, or since `CONFIG RESETSTAT`.
#[derive(Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Counts so many more.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Relaxed);
    }

    /// How many there were.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// Begins again.
    pub fn reset(&self) {
        self.0.store(0, Relaxed);
    }
}

/// What is counted.
#[derive(Default)]
pub struct Stats {
    /// Connections accepted.
    pub connections: Counter,
    /// Connections refused, because there were `maxclients` already or no thread could be had.
    pub rejected_connections: Counter,
    /// Clients that queued more than `client-query-buffer-limit` allows.
    pub query_limit_cut_offs: Counter,
    /// Logins that were refused.
    pub refused_logins: Counter,
    /// Keys removed because their deadline had passed.
    pub expired_keys: Counter,
    /// Fields removed because their deadline had passed.
    pub expired_fields: Counter,
    /// Bytes received from clients.
    pub input_bytes: Counter,
    /// Bytes sent to clients.
    pub output_bytes: Counter,
    /// Keys that a command that reads found.
    pub hits: Counter,
    /// Keys that a command that reads did not find.
    pub misses: Counter,
    /// What each command cost.
    pub commands: Commands,
    /// What was refused.
    pub errors: Errors,
    /// How much was done lately.
    pub rates: Rates,
    /// Which commands took long.
    pub slowlog: SlowLog,
    /// Who could not log in.
    pub failed_logins: FailedLogins,
    /// When something took long.
    pub latency: Monitor,
}

impl Stats {
    /// `CONFIG RESETSTAT`: begins to count again. As in Redis, the slow log and the latency events stay.
    pub fn reset(&self) {
        let counters = [
            &self.connections,
            &self.rejected_connections,
            &self.query_limit_cut_offs,
            &self.refused_logins,
            &self.expired_keys,
            &self.expired_fields,
            &self.input_bytes,
            &self.output_bytes,
            &self.hits,
            &self.misses,
        ];
        counters.into_iter().for_each(Counter::reset);
        self.commands.reset();
        self.errors.reset();
        self.rates.reset();
    }

    /// Takes note of how much has been done up to now. Called every now and then, see [`Rates`].
    pub fn sample(&self) {
        self.rates.add(Sample {
            at: Instant::now(),
            calls: self.commands.calls(),
            input_bytes: self.input_bytes.get(),
            output_bytes: self.output_bytes.get(),
        });
    }
}

/// Locks. What the locks of this module guard is right even if a thread panicked while it held one.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How often each kind of error was replied. The kind is the first word of the text.
#[derive(Default)]
pub struct Errors(Mutex<ErrorCounts>);

#[derive(Default)]
struct ErrorCounts {
    total: u64,
    kinds: BTreeMap<String, u64>,
}

/// How many kinds of error are told apart, and what all others are counted as: as in Redis.
const ERROR_KINDS: usize = 128;
const OTHER_ERRORS: &str = "ERRORSTATS_OVERFLOW";

impl Errors {
    /// Counts an error of this text.
    pub fn count(&self, text: &[u8]) {
        let end = text.iter().position(|byte| *byte == b' ').unwrap_or(text.len());
        let kind = String::from_utf8_lossy(&text[..end]);
        let mut counts = lock(&self.0);
        counts.total += 1;
        let full = counts.kinds.len() >= ERROR_KINDS && !counts.kinds.contains_key(&*kind);
        let kind = if full { OTHER_ERRORS.into() } else { kind.into_owned() };
        *counts.kinds.entry(kind).or_default() += 1;
    }

    /// How many there were.
    pub fn total(&self) -> u64 {
        lock(&self.0).total
    }

    /// The kinds there were, and how many of each.
    pub fn kinds(&self) -> BTreeMap<String, u64> {
        lock(&self.0).kinds.clone()
    }

    fn reset(&self) {
        *lock(&self.0) = ErrorCounts::default();
    }
}

/// What had been done at a moment.
#[derive(Clone, Copy)]
struct Sample {
    at: Instant,
    calls: u64,
    input_bytes: u64,
    output_bytes: u64,
}

/// How many samples are looked at: with ten a second, those of the last second and a half.
const SAMPLES: usize = 16;

/// How much was done lately: the difference between two samples, over the time between them.
#[derive(Default)]
pub struct Rates(Mutex<VecDeque<Sample>>);

/// How much was done in a second.
#[derive(Default, Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Commands.
    pub calls: f64,
    /// Bytes received.
    pub input_bytes: f64,
    /// Bytes sent.
    pub output_bytes: f64,
}

impl Rates {
    fn add(&self, sample: Sample) {
        let mut samples = lock(&self.0);
        if samples.len() == SAMPLES {
            samples.pop_front();
        }
        samples.push_back(sample);
    }

    fn reset(&self) {
        lock(&self.0).clear();
    }

    /// The rate between the oldest sample and the newest; none while there are not two.
    pub fn get(&self) -> Option<Rate> {
        let samples = lock(&self.0);
        let (first, last) = (samples.front()?, samples.back()?);
        let seconds = last.at.duration_since(first.at).as_secs_f64();
        let per_second = |now: u64, then: u64| now.saturating_sub(then) as f64 / seconds;
        (seconds > 0.0).then(|| Rate {
            calls: per_second(last.calls, first.calls),
            input_bytes: per_second(last.input_bytes, first.input_bytes),
            output_bytes: per_second(last.output_bytes, first.output_bytes),
        })
    }
}

/// Unix time in seconds.
pub fn unix_seconds() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.unwrap_or(Duration::ZERO).as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_counted_by_their_first_word_and_beyond_a_limit_together() {
        let errors = Errors::default();
        errors.count(b"ERR syntax error");
        errors.count(b"ERR no such key");
        errors.count(b"EXECABORT");
        assert_eq!(errors.kinds(), BTreeMap::from([("ERR".into(), 2), ("EXECABORT".into(), 1)]));
        for number in 0..1000 {
            errors.count(format!("E{number} text").as_bytes());
        }
        errors.count(b"ERR again");
        let kinds = errors.kinds();
        assert_eq!(kinds.len(), ERROR_KINDS + 1);
        assert_eq!((kinds["ERR"], kinds[OTHER_ERRORS]), (3, 1000 - (ERROR_KINDS as u64 - 2)));
        assert_eq!(errors.total(), 1004);
    }

    #[test]
    fn a_rate_is_what_was_done_between_the_samples_that_are_kept() {
        let rates = Rates::default();
        assert_eq!(rates.get(), None);
        let start = Instant::now();
        // A burst that is too long ago to count, then ten commands each tenth of a second.
        for number in 0..100u64 {
            rates.add(Sample {
                at: start + Duration::from_millis(100) * number as u32,
                calls: if number == 0 { 0 } else { 1_000_000 + number * 10 },
                input_bytes: number * 1000,
                output_bytes: number * 2000,
            });
        }
        let rate = rates.get().unwrap_or_default();
        assert_eq!(rate.calls.round(), 100.0);
        assert_eq!((rate.input_bytes.round(), rate.output_bytes.round()), (10_000.0, 20_000.0));
    }
}
