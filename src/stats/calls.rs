//! What each command cost: how often it was called, how long that took, how often it failed.
//!
//! A connection counts in [`Counts`] of its own. When somebody asks (or a sample is due, or the connection
//! ends) they are collected into the shared [`Commands`]. If each batch added to what is shared, that would
//! travel from core to core, and cost a lone GET a tenth of its time. A command is counted before it is
//! answered: whoever has seen a reply finds its command counted.
//!
//! **What is exact, and what is not.** A GET in a pipeline takes 400 ns of a processor, and a look at
//! the clock 30: too much to do it for each. So
//!
//! - counts are exact, of every command;
//! - so are times, but for *runs*: equal brief commands, one right behind the other in one batch, are
//!   timed together, up to [`RUN_LIMIT`] of them; only the first is timed alone, if the batch before
//!   did not end with such a run. The sum of their times is exact; in the histogram each of them took
//!   the average. A run that was slow stands in the slow log, with its first key. Whoever lets the slow
//!   log begin below a millisecond wants to know better: then each command is timed alone;
//! - where one command or run ends the next begins. So the time of a command includes the parsing of its
//!   request (a tenth of a microsecond), except the first of a batch. A batch ends when the connection
//!   waits for its client, so waiting is in no command's time.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use super::histogram::{Histogram, bucket_of};
use super::{Stats, lock};

/// What one command cost since the server started, or since it was reset.
#[derive(Default)]
pub struct CommandStats {
    calls: AtomicU64,
    nanoseconds: AtomicU64,
    rejected: AtomicU64,
    failed: AtomicU64,
    /// Only with `latency-tracking`.
    histogram: OnceLock<Histogram>,
}

impl CommandStats {
    /// How often it was carried out.
    pub fn calls(&self) -> u64 {
        self.calls.load(Relaxed)
    }

    /// How long that took altogether.
    pub fn nanoseconds(&self) -> u64 {
        self.nanoseconds.load(Relaxed)
    }

    /// How often it was refused before it was carried out.
    pub fn rejected(&self) -> u64 {
        self.rejected.load(Relaxed)
    }

    /// How often it was carried out and answered an error.
    pub fn failed(&self) -> u64 {
        self.failed.load(Relaxed)
    }

    /// How long each call took, if there was one since that is tracked.
    pub fn histogram(&self) -> Option<&Histogram> {
        self.histogram.get().filter(|histogram| histogram.total() > 0)
    }

    fn tracked(&self) -> &Histogram {
        self.histogram.get_or_init(Histogram::default)
    }

    fn reset(&self) {
        for counter in [&self.calls, &self.nanoseconds, &self.rejected, &self.failed] {
            counter.store(0, Relaxed);
        }
        self.histogram.get().into_iter().for_each(Histogram::reset);
    }
}

/// The commands that anyone ever called, by their names.
#[derive(Default)]
pub struct Commands(Mutex<BTreeMap<&'static str, Arc<CommandStats>>>);

impl Commands {
    /// Those that were called since the last reset, or refused.
    pub fn called(&self) -> BTreeMap<&'static str, Arc<CommandStats>> {
        let mut commands = lock(&self.0).clone();
        commands.retain(|_, stats| stats.calls() + stats.rejected() > 0);
        commands
    }

    /// How often any of them was carried out, those of transactions included.
    pub fn calls(&self) -> u64 {
        lock(&self.0).values().map(|stats| stats.calls()).sum()
    }

    /// Counts a command that was refused before it was carried out.
    pub fn reject(&self, name: &'static str) {
        self.of(name).rejected.fetch_add(1, Relaxed);
    }

    fn of(&self, name: &'static str) -> Arc<CommandStats> {
        lock(&self.0).entry(name).or_default().clone()
    }

    pub(super) fn reset(&self) {
        lock(&self.0).values().for_each(|stats| stats.reset());
    }
}

/// How many equal brief commands are timed together at most.
pub const RUN_LIMIT: u32 = 16;
/// How much of a run's first key is kept, for the slow log.
const KEY_BYTES: usize = 128;
/// Most calls take less than so many microseconds.
const BRIEF_US: usize = 8;

/// How a connection times its commands. It is small, and so are [`Counts`]: where fifty connections take
/// turns, what each touches for one command has left the nearest cache since its last.
#[derive(Default)]
pub struct Tally {
    /// When the run that goes on began; else, within a batch, when the command before ended.
    since: Option<Instant>,
    /// The name of the run that goes on; else of the command, or run, before.
    name: &'static str,
    phase: Phase,
    /// How many commands the run has had.
    run_calls: u32,
    /// The keys that were looked for since the last command was counted.
    hits: u32,
    misses: u32,
    /// What was timed last, until it is counted.
    uncounted: Option<Timed>,
    /// The key of the run's first command.
    first_key: Vec<u8>,
}

/// Where a [`Tally`] is.
#[derive(Clone, Copy, Default, PartialEq)]
enum Phase {
    /// The command before was timed alone, or this one is.
    #[default]
    Alone,
    /// A run goes on.
    InRun,
    /// A run, of more than one, has just ended.
    AfterRun,
}

/// What one connection has counted, and nobody has collected yet.
#[derive(Default)]
pub struct Counts {
    /// Of the command that was counted last, and is likely to be counted next.
    recent: Option<Count>,
    others: Vec<Count>,
    hits: u64,
    misses: u64,
    /// How many bytes received, and sent, have been collected.
    collected: [u64; 2],
}

/// Commands that have been timed: one, or a run of equal ones.
#[derive(Clone, Copy)]
pub struct Timed {
    /// Their name.
    pub name: &'static str,
    /// How many there were.
    pub calls: u32,
    /// How long they took together.
    pub took: Duration,
}

/// What a connection has counted of one command.
struct Count {
    name: &'static str,
    stats: Arc<CommandStats>,
    calls: u64,
    nanoseconds: u64,
    failed: u64,
    /// How many of the calls took so many microseconds. Longer ones go into the shared histogram at once.
    brief: [u32; BRIEF_US],
}

impl Tally {
    /// A command begins that is timed alone, or with which a run begins. No run may go on.
    pub fn start(&mut self) -> Instant {
        self.since.take().unwrap_or_else(Instant::now)
    }

    /// A command has ended that began then. No run may go on, and nothing be uncounted.
    pub fn end(&mut self, name: &'static str, start: Instant) -> Timed {
        self.name = name;
        self.phase = Phase::Alone;
        self.time(start, 1)
    }

    /// Whether a run goes on, of commands of that name. (Names are compared by where they stand, see
    /// [`Counts::of`].)
    #[inline]
    pub fn is_in_run_of(&self, name: &'static str) -> bool {
        self.is_in_run() && std::ptr::eq(self.name, name)
    }

    /// Whether a run goes on.
    #[inline]
    pub fn is_in_run(&self) -> bool {
        self.phase == Phase::InRun
    }

    /// Whether the command before, in the same batch, had that name, or the run before: then a run begins.
    pub fn is_repeated(&self, name: &'static str) -> bool {
        std::ptr::eq(self.name, name)
    }

    /// A run begins, of commands of that name, the first of them with that key.
    pub fn start_run(&mut self, name: &'static str, key: &[u8]) {
        self.first_key.clear();
        self.first_key.extend_from_slice(&key[..key.len().min(KEY_BYTES)]);
        self.since = Some(self.start());
        self.name = name;
        self.phase = Phase::InRun;
        self.run_calls = 0;
    }

    /// A command of the run has ended. Says whether the run has become so long that it should end too.
    #[inline]
    pub fn extend_run(&mut self) -> bool {
        self.run_calls += 1;
        self.run_calls >= RUN_LIMIT
    }

    /// Ends the run that goes on, and has had a command. Nothing may be uncounted.
    pub fn end_run(&mut self) -> Timed {
        self.phase = if self.run_calls > 1 { Phase::AfterRun } else { Phase::Alone };
        let start = self.start();
        self.time(start, self.run_calls)
    }

    /// The key of the first command of the last run.
    pub fn first_key(&self) -> &[u8] {
        &self.first_key
    }

    fn time(&mut self, start: Instant, calls: u32) -> Timed {
        let now = Instant::now();
        self.since = Some(now);
        let timed = Timed { name: self.name, calls, took: now.duration_since(start) };
        self.uncounted = Some(timed);
        timed
    }

    /// Whether something was timed and has not been counted.
    #[inline]
    pub fn is_uncounted(&self) -> bool {
        self.uncounted.is_some()
    }

    /// Counts what was timed last, in the histograms too if they are kept. It was not counted at once, so
    /// that the last of a batch, which is most often the only one, takes no lock of its own.
    pub fn count(&mut self, stats: &Stats, counts: &mut Counts, tracked: bool) {
        counts.hits += u64::from(std::mem::take(&mut self.hits));
        counts.misses += u64::from(std::mem::take(&mut self.misses));
        let Some(Timed { name, calls, took }) = self.uncounted.take() else { return };
        let nanoseconds = took.as_nanos() as u64; // 584 years fit
        let count = counts.of(stats, name);
        count.calls += u64::from(calls);
        count.nanoseconds += nanoseconds;
        if tracked {
            let microseconds = nanoseconds / 1000 / u64::from(calls.max(1));
            match count.brief.get_mut(microseconds as usize) {
                Some(brief) => *brief += calls, // it is collected ten times a second
                None => count.stats.tracked().add(bucket_of(microseconds), calls.into()),
            }
        }
    }

    /// So many keys were looked for and found, and so many not.
    #[inline]
    pub fn looked_up(&mut self, (hits, misses): (u32, u32)) {
        self.hits += hits;
        self.misses += misses;
    }

    /// The batch has ended, and its last run. Returns when, if a command was timed in it.
    pub fn end_batch(&mut self) -> Option<Instant> {
        if self.phase == Phase::Alone {
            self.name = "";
        }
        self.since.take()
    }
}

impl Counts {
    /// A command of that name has answered an error.
    pub fn fail(&mut self, stats: &Stats, name: &'static str) {
        self.of(stats, name).failed += 1;
    }

    /// Adds what was counted to what all connections share; so, too, how many bytes the connection has
    /// received and sent altogether, which are counted elsewhere.
    pub fn collect(&mut self, stats: &Stats, received: u64, sent: u64) {
        self.recent.iter_mut().chain(&mut self.others).for_each(Count::collect);
        stats.hits.add(std::mem::take(&mut self.hits));
        stats.misses.add(std::mem::take(&mut self.misses));
        let bytes = [(received, &stats.input_bytes), (sent, &stats.output_bytes)];
        for ((total, shared), collected) in bytes.into_iter().zip(&mut self.collected) {
            shared.add(total - std::mem::replace(collected, total));
        }
    }

    /// The count of a command. Names are compared by where they stand, which the table of commands
    /// decides; if one stood in two places, both counts would lead to the same statistics.
    fn of(&mut self, stats: &Stats, name: &'static str) -> &mut Count {
        let is = |count: &Count| std::ptr::eq(count.name, name);
        if !self.recent.as_ref().is_some_and(is) {
            let other = self.others.iter().position(is).map(|place| self.others.swap_remove(place));
            self.others.extend(self.recent.take());
            self.recent = other;
        }
        self.recent.get_or_insert_with(|| Count {
            name,
            stats: stats.commands.of(name),
            calls: 0,
            nanoseconds: 0,
            failed: 0,
            brief: [0; BRIEF_US],
        })
    }
}

impl Count {
    fn collect(&mut self) {
        if self.calls == 0 && self.failed == 0 {
            return;
        }
        self.stats.calls.fetch_add(std::mem::take(&mut self.calls), Relaxed);
        self.stats.nanoseconds.fetch_add(std::mem::take(&mut self.nanoseconds), Relaxed);
        self.stats.failed.fetch_add(std::mem::take(&mut self.failed), Relaxed);
        for (microseconds, calls) in (0..).zip(&mut self.brief).filter(|(_, calls)| **calls > 0) {
            self.stats.tracked().add(bucket_of(microseconds), std::mem::take(calls).into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_connection_counts_is_shared_when_it_is_collected() {
        let stats = Stats::default();
        let (mut tally, mut counts) = (Tally::default(), Counts::default());
        for name in ["get", "set", "get", "get"] {
            let start = tally.start();
            tally.end(name, start);
            tally.count(&stats, &mut counts, true);
        }
        counts.fail(&stats, "get");
        assert!(stats.commands.called().is_empty());
        counts.collect(&stats, 0, 0);
        let called = stats.commands.called();
        assert_eq!((called["get"].calls(), called["get"].failed()), (3, 1));
        assert_eq!((called["set"].calls(), called["set"].failed()), (1, 0));
        assert_eq!(called["get"].histogram().map(Histogram::total), Some(3));
        assert_eq!(stats.commands.calls(), 4);
        counts.collect(&stats, 0, 0);
        assert_eq!(stats.commands.calls(), 4);
        stats.reset();
        assert!(stats.commands.called().is_empty());
    }

    #[test]
    fn bytes_are_collected_once() {
        let (stats, mut counts) = (Stats::default(), Counts::default());
        for total in [5, 5, 10] {
            counts.collect(&stats, total, 2 * total);
            assert_eq!((stats.input_bytes.get(), stats.output_bytes.get()), (total, 2 * total));
        }
        stats.reset();
        counts.collect(&stats, 11, 20);
        assert_eq!((stats.input_bytes.get(), stats.output_bytes.get()), (1, 0));
    }

    #[test]
    fn a_call_stands_in_the_bucket_of_its_time_however_long_it_took() {
        let stats = Stats::default();
        let (mut tally, mut counts) = (Tally::default(), Counts::default());
        let ago = |microseconds| Instant::now() - Duration::from_micros(microseconds);
        for microseconds in [0, BRIEF_US as u64 / 2, 10_000] {
            tally.end("get", ago(microseconds));
            tally.count(&stats, &mut counts, true);
        }
        counts.collect(&stats, 0, 0);
        let called = stats.commands.called();
        let Some(histogram) = called["get"].histogram() else { panic!("it was tracked") };
        assert_eq!(histogram.total(), 3);
        assert!(histogram.percentile(50.0) >= BRIEF_US as u64 / 2 * 1000);
        assert!(histogram.percentile(100.0) >= 10_000_000);
    }

    #[test]
    fn a_command_begins_where_the_one_before_has_ended_but_not_across_a_wait() {
        let stats = Stats::default();
        let (mut tally, mut counts) = (Tally::default(), Counts::default());
        let first = tally.start();
        tally.end("get", first);
        let ended = tally.since;
        assert!(ended.is_some_and(|ended| ended >= first));
        let second = tally.start();
        assert_eq!(Some(second), ended);
        // One that is carried out inside of another begins by the clock.
        assert!(tally.start() >= second && tally.since.is_none());
        tally.end("get", second);
        tally.count(&stats, &mut counts, false);
        assert!(tally.end_batch().is_some_and(|ended| ended >= second));
        assert!(tally.since.is_none());
        counts.collect(&stats, 0, 0);
        assert!(stats.commands.called()["get"].histogram().is_none(), "it was not tracked");
    }

    #[test]
    fn a_run_is_timed_as_a_whole_and_keeps_its_first_key() {
        let stats = Stats::default();
        let (mut tally, mut counts) = (Tally::default(), Counts::default());
        assert!(!tally.is_in_run_of("get"));
        tally.start_run("get", &[b'k'; 200]);
        let full: Vec<bool> = (0..RUN_LIMIT).map(|_| tally.extend_run()).collect();
        assert_eq!(full.iter().position(|full| *full), Some(RUN_LIMIT as usize - 1));
        assert!(tally.is_in_run_of("get") && !tally.is_in_run_of("set"));
        assert!(tally.is_in_run());
        let timed = tally.end_run();
        assert!(tally.is_uncounted());
        tally.count(&stats, &mut counts, true);
        assert!(!tally.is_uncounted());
        assert!(timed.calls == RUN_LIMIT && timed.name == "get");
        assert!(!tally.is_in_run() && !tally.is_in_run_of("get"));
        assert_eq!(tally.first_key(), [b'k'; KEY_BYTES]);
        tally.end_batch();
        counts.collect(&stats, 0, 0);
        let called = stats.commands.called();
        assert_eq!(called["get"].calls(), RUN_LIMIT.into());
        assert_eq!(called["get"].histogram().map(Histogram::total), Some(RUN_LIMIT.into()));
        // Another is expected of the next batch, but not behind a command that was alone.
        assert!(tally.is_repeated("get") && !tally.is_repeated("set"));
        let start = tally.start();
        tally.end("get", start);
        assert!(tally.is_repeated("get"));
        tally.end_batch();
        assert!(!tally.is_repeated("get"));
    }
}
