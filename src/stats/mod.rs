//! The server's statistics: counters, what each command cost, slow commands, latency events.
//!
//! What every command adds to is counted by each connection in a [`Meter`] of its own. The locks here (the
//! list of meters, [`slowlog`], [`latency`], [`denials`], the errors) are below all others; they are held for
//! a few copies and taken only when something rare or slow happens, or when someone reads the statistics.

pub mod denials;
pub mod histogram;
pub mod latency;
pub mod meter;
pub mod slowlog;
pub mod timer;

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use histogram::{Histogram, bucket_of};

pub use denials::Denials;
pub use latency::Monitor;
pub use meter::{Meter, Meters, PerCommand};
pub use slowlog::SlowLog;
pub use timer::{CommandTimer, Timing};

/// A command's number, below [`COMMAND_LIMIT`]: its place in the table of commands.
pub type CommandId = usize;

/// The table has fewer commands, subcommands included.
pub const COMMAND_LIMIT: usize = 512;

/// A counter that any thread adds to. It starts with the server, or with `CONFIG RESETSTAT`.
#[derive(Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// Starts again from zero.
    pub fn reset(&self) {
        self.0.store(0, Relaxed);
    }
}

/// All statistics of a server.
#[derive(Default)]
pub struct Stats {
    /// Connections accepted.
    pub connections: Counter,
    /// Connections refused because of `maxclients`, or because no thread could be started.
    pub rejected_connections: Counter,
    /// Clients disconnected because they queued more than `client-query-buffer-limit` allows.
    pub query_limit_cut_offs: Counter,
    /// Keys removed because they had expired.
    pub expired_keys: Counter,
    /// Keys removed because memory was needed.
    pub evicted_keys: Counter,
    /// Clients disconnected because of `maxmemory-clients`.
    pub evicted_clients: Counter,
    /// Hash fields removed because they had expired.
    pub expired_fields: Counter,
    pub lazy_free: LazyFree,
    pub excess: Excess,
    /// What connections count: bytes, lookups, and each command's calls and times.
    pub meters: Meters,
    /// The calls of at least [`meter::BRIEF_US`]. Connections count briefer ones.
    long_calls: Histograms,
    pub errors: Errors,
    /// The recent rates of commands and bytes.
    pub rates: Rates,
    pub slowlog: SlowLog,
    /// The last large requests and the last large replies: `COMMANDLOG`.
    pub large_requests: SlowLog,
    pub large_replies: SlowLog,
    /// What users were denied.
    pub denials: Denials,
    pub latency: Monitor,
}

/// Values that a thread of their own frees.
#[derive(Default)]
pub struct LazyFree {
    /// How many it has not freed yet.
    pub pending: AtomicU64,
    pub freed: Counter,
}

/// For how long memory has exceeded `maxmemory`. What a single command puts right does not count.
#[derive(Default)]
pub struct Excess(Mutex<(Option<Instant>, Duration)>);

impl Excess {
    /// Whether memory exceeds its limit now.
    pub fn note(&self, exceeds: bool) {
        let mut excess = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, total) = &mut *excess;
        if exceeds {
            since.get_or_insert_with(Instant::now);
        } else if let Some(since) = since.take() {
            *total += since.elapsed();
        }
    }

    /// How long it has exceeded its limit in all, and since it last began to.
    pub fn times(&self) -> [Duration; 2] {
        let (since, total) = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let current = since.map_or(Duration::ZERO, |since| since.elapsed());
        [total + current, current]
    }

    fn reset(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Default::default();
    }
}

/// A histogram per command, made when it is first needed.
struct Histograms(Box<[OnceLock<Histogram>]>);

impl Default for Histograms {
    fn default() -> Histograms {
        Histograms((0..COMMAND_LIMIT).map(|_| OnceLock::new()).collect())
    }
}

impl Histograms {
    fn add(&self, command: CommandId, bucket: usize, calls: u64) {
        let histogram = self.0.get(command).map(|cell| cell.get_or_init(Histogram::default));
        histogram.into_iter().for_each(|histogram| histogram.add(bucket, calls));
    }
}

impl Stats {
    /// Counts an executed command, or a run of equal ones; in the histogram too if that is `tracked`.
    pub fn executed(&self, meter: &Meter, timed: Timing, tracked: bool) {
        let (counts, calls) = (meter.of(timed.command), u64::from(timed.calls));
        let nanoseconds = timed.took.as_nanos() as u64; // 584 years fit
        counts.calls.add(calls);
        counts.nanoseconds.add(nanoseconds);
        if tracked {
            let microseconds = nanoseconds / 1000 / calls;
            match counts.brief.get(microseconds as usize) {
                Some(brief) => brief.add(calls),
                None => self.long_calls.add(timed.command, bucket_of(microseconds), calls),
            }
        }
    }

    /// Counts that an executed command replied with this error.
    pub fn failed(&self, meter: &Meter, command: CommandId, error: &[u8]) {
        meter.of(command).failed.add(1);
        self.errors.count(error);
    }

    /// Counts that a command was refused with this error before it was executed.
    pub fn rejected(&self, meter: &Meter, command: Option<CommandId>, error: &[u8]) {
        command.into_iter().for_each(|command| meter.of(command).rejected.add(1));
        self.errors.count(error);
    }

    /// How long a command's calls took, if any was tracked. `counts` are its totals.
    pub fn histogram(&self, command: CommandId, counts: &PerCommand) -> Option<Histogram> {
        let long_calls = self.long_calls.0.get(command).and_then(OnceLock::get);
        let histogram = long_calls.map(Histogram::copy).unwrap_or_default();
        for (microseconds, calls) in (0..).zip(counts.brief) {
            histogram.add(bucket_of(microseconds), calls);
        }
        (histogram.total() > 0).then_some(histogram)
    }

    /// `CONFIG RESETSTAT`: starts again from zero. As in Redis, the slow log and the latency events stay.
    pub fn reset(&self) {
        let counters = [
            &self.connections,
            &self.rejected_connections,
            &self.query_limit_cut_offs,
            &self.expired_keys,
            &self.evicted_keys,
            &self.evicted_clients,
            &self.expired_fields,
            &self.lazy_free.freed,
        ];
        counters.into_iter().for_each(Counter::reset);
        self.meters.reset();
        self.long_calls.0.iter().filter_map(OnceLock::get).for_each(Histogram::reset);
        self.errors.reset();
        self.rates.reset();
        self.excess.reset();
    }

    /// Takes a sample for [`Rates`]. The bytes are those that came from a master, and those that went to
    /// replicas.
    pub fn sample(&self, from_master: u64, to_replicas: u64) {
        let totals = self.meters.totals();
        self.rates.add(Sample {
            at: Instant::now(),
            calls: totals.calls(),
            input_bytes: totals.received,
            output_bytes: totals.sent,
            from_master,
            to_replicas,
        });
    }
}

/// Locks. The data behind these locks is valid even if a thread panicked while it held one.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many error replies there were of each kind. The kind is the first word of the text.
#[derive(Default)]
pub struct Errors(Mutex<ErrorCounts>);

#[derive(Default)]
struct ErrorCounts {
    total: u64,
    kinds: BTreeMap<String, u64>,
}

/// How many kinds of error are counted apart, and the name for all others; both as in Redis.
const ERROR_KINDS: usize = 128;
const OTHER_ERRORS: &str = "ERRORSTATS_OVERFLOW";

impl Errors {
    /// Counts an error with this text.
    pub fn count(&self, text: &[u8]) {
        let end = text.iter().position(|byte| *byte == b' ').unwrap_or(text.len());
        let kind = String::from_utf8_lossy(&text[..end]);
        let mut counts = lock(&self.0);
        counts.total += 1;
        let full = counts.kinds.len() >= ERROR_KINDS && !counts.kinds.contains_key(&*kind);
        let kind = if full { OTHER_ERRORS.into() } else { kind.into_owned() };
        *counts.kinds.entry(kind).or_default() += 1;
    }

    pub fn total(&self) -> u64 {
        lock(&self.0).total
    }

    /// The number of error replies of each kind.
    pub fn kinds(&self) -> BTreeMap<String, u64> {
        lock(&self.0).kinds.clone()
    }

    fn reset(&self) {
        *lock(&self.0) = ErrorCounts::default();
    }
}

/// The totals at one moment.
#[derive(Clone, Copy)]
struct Sample {
    at: Instant,
    calls: u64,
    input_bytes: u64,
    output_bytes: u64,
    from_master: u64,
    to_replicas: u64,
}

/// How many samples are kept: the last second and a half, at ten samples per second.
const SAMPLES: usize = 16;

/// Recent rates: the difference between two samples, divided by the time between them.
#[derive(Default)]
pub struct Rates(Mutex<VecDeque<Sample>>);

/// Amounts per second.
#[derive(Default, Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    pub calls: f64,
    pub input_bytes: f64,
    pub output_bytes: f64,
    /// Bytes.
    pub from_master: f64,
    pub to_replicas: f64,
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

    /// The rate between the oldest and the newest sample, or `None` until there are two.
    pub fn get(&self) -> Option<Rate> {
        let samples = lock(&self.0);
        let (first, last) = (samples.front()?, samples.back()?);
        let seconds = last.at.duration_since(first.at).as_secs_f64();
        let per_second = |now: u64, then: u64| now.saturating_sub(then) as f64 / seconds;
        (seconds > 0.0).then(|| Rate {
            calls: per_second(last.calls, first.calls),
            input_bytes: per_second(last.input_bytes, first.input_bytes),
            output_bytes: per_second(last.output_bytes, first.output_bytes),
            from_master: per_second(last.from_master, first.from_master),
            to_replicas: per_second(last.to_replicas, first.to_replicas),
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
    fn a_call_is_in_the_bucket_of_its_time_however_long_it_took() {
        let (stats, meter) = (Stats::default(), std::sync::Arc::new(Meter::default()));
        stats.meters.register(1, meter.clone());
        let call = |command, calls, took, tracked| {
            stats.executed(&meter, Timing { command, calls, took }, tracked);
        };
        let brief = Duration::from_micros(meter::BRIEF_US as u64 / 2);
        call(7, 1, Duration::ZERO, true);
        call(7, 4, brief * 4, true);
        call(7, 1, Duration::from_millis(10), true);
        call(8, 1, brief, false);
        let histogram = |command| {
            let totals = stats.meters.totals();
            stats.histogram(command, &totals.commands[&command])
        };
        assert!(histogram(8).is_none(), "it was not tracked");
        let Some(found) = histogram(7) else { panic!("it was tracked") };
        assert_eq!(found.total(), 6);
        assert_eq!(found.percentile(50.0) / 1000, brief.as_micros() as u64);
        assert!(found.percentile(100.0) >= 10_000_000);
        stats.reset();
        assert!(histogram(7).is_none());
    }

    #[test]
    fn errors_are_counted_by_their_first_word_and_together_beyond_a_limit() {
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
    fn a_rate_covers_the_time_between_the_kept_samples() {
        let rates = Rates::default();
        assert_eq!(rates.get(), None);
        let start = Instant::now();
        // A burst that is too long ago to count, then ten commands every tenth of a second.
        for number in 0..100u64 {
            rates.add(Sample {
                at: start + Duration::from_millis(100) * number as u32,
                calls: if number == 0 { 0 } else { 1_000_000 + number * 10 },
                input_bytes: number * 1000,
                output_bytes: number * 2000,
                from_master: number * 3000,
                to_replicas: number * 4000,
            });
        }
        let rate = rates.get().unwrap_or_default();
        assert_eq!(rate.calls.round(), 100.0);
        assert_eq!((rate.input_bytes.round(), rate.output_bytes.round()), (10_000.0, 20_000.0));
        assert_eq!((rate.from_master.round(), rate.to_replicas.round()), (30_000.0, 40_000.0));
    }
}
