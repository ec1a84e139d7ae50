//! What each command cost: how often it was called, how long that took, how often it failed.
//!
//! A connection counts in a [`Tally`] of its own and adds that to the shared [`Commands`] once per
//! batch, before it replies: whoever has seen a reply finds its command counted.
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

use super::histogram::{Bucket, Histogram, bucket_of};
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
pub const RUN_LIMIT: u64 = 16;
/// How much of a run's first key is kept, for the slow log.
const KEY_BYTES: usize = 128;

/// What one connection has counted since it last replied.
#[derive(Default)]
pub struct Tally {
    /// The end of the command before, in the same batch.
    last: Option<Instant>,
    /// The name of that command, or of the run with which the batch before ended.
    last_name: &'static str,
    /// Whether it was a run, of more than one.
    last_was_run: bool,
    /// The run that goes on; while there is none, its name is of no command.
    run: Run,
    /// The key of the run's first command.
    first_key: Vec<u8>,
    counts: Vec<Count>,
    /// Which of them was used last, and is likely to be used next.
    recent: usize,
    /// Whether there is anything to publish.
    dirty: bool,
    hits: u64,
    misses: u64,
}

/// Equal commands that are timed together.
#[derive(Clone, Copy, Default)]
struct Run {
    name: &'static str,
    calls: u64,
    start: Option<Instant>,
}

/// Commands that have been timed: one, or a run of equal ones.
pub struct Timed {
    /// Their name.
    pub name: &'static str,
    /// How many there were.
    pub calls: u64,
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
    /// So many of the calls belong into this bucket: most take about as long as the one before.
    bucket: Bucket,
    in_bucket: u64,
}

impl Tally {
    /// A command begins that is timed alone, or with which a run begins. Ask [`Tally::end_run`] before.
    pub fn start(&mut self) -> Instant {
        self.last.take().unwrap_or_else(Instant::now)
    }

    /// A command has ended that began then.
    pub fn end(
        &mut self,
        stats: &Stats,
        name: &'static str,
        start: Instant,
        tracked: bool,
    ) -> Timed {
        self.count(stats, Run { name, start: Some(start), calls: 1 }, tracked)
    }

    /// Whether a command of that name belongs to the run that goes on. (Names are compared by where they
    /// stand, see [`Tally::count_of`].)
    #[inline]
    pub fn is_in_run_of(&self, name: &'static str) -> bool {
        std::ptr::eq(self.run.name, name)
    }

    /// Whether the command before, in the same batch, had that name, or the run before: then a run begins.
    #[inline]
    pub fn is_repeated(&self, name: &'static str) -> bool {
        std::ptr::eq(self.last_name, name)
    }

    /// A run begins, of commands of that name, the first of them with that key.
    pub fn start_run(&mut self, name: &'static str, key: &[u8]) {
        self.first_key.clear();
        self.first_key.extend_from_slice(&key[..key.len().min(KEY_BYTES)]);
        self.run = Run { name, calls: 0, start: Some(self.start()) };
    }

    /// A command of the run has ended. Says whether the run has become so long that it should end too.
    #[inline]
    pub fn extend_run(&mut self) -> bool {
        self.run.calls += 1;
        self.run.calls >= RUN_LIMIT
    }

    /// Ends the run, if there is one.
    pub fn end_run(&mut self, stats: &Stats, tracked: bool) -> Option<Timed> {
        let run = std::mem::take(&mut self.run);
        (run.calls > 0).then(|| self.count(stats, run, tracked))
    }

    /// The key of the first command of the last run.
    pub fn first_key(&self) -> &[u8] {
        &self.first_key
    }

    /// A command of that name has answered an error.
    pub fn fail(&mut self, stats: &Stats, name: &'static str) {
        self.count_of(stats, name).failed += 1;
    }

    fn count(&mut self, stats: &Stats, run: Run, tracked: bool) -> Timed {
        let now = Instant::now();
        self.last = Some(now);
        self.dirty = true;
        let Run { name, start, calls } = run;
        self.last_name = name;
        self.last_was_run = calls > 1;
        let took = start.map_or(Duration::ZERO, |start| now.duration_since(start));
        let nanoseconds = took.as_nanos() as u64; // 584 years fit
        let count = self.count_of(stats, name);
        count.calls += calls;
        count.nanoseconds += nanoseconds;
        if tracked {
            let bucket = bucket_of(nanoseconds / calls / 1000);
            if bucket != count.bucket {
                count.publish_bucket();
                count.bucket = bucket;
            }
            count.in_bucket += calls;
        }
        Timed { name, calls, took }
    }

    /// So many keys were looked for and found, and so many not.
    pub fn looked_up(&mut self, (hits, misses): (u32, u32)) {
        self.hits += u64::from(hits);
        self.misses += u64::from(misses);
    }

    /// Adds what was counted to what all connections share. The batch has ended, and its last run.
    pub fn publish(&mut self, stats: &Stats) {
        self.last = None;
        if !self.last_was_run {
            self.last_name = "";
        }
        if !std::mem::take(&mut self.dirty) {
            return;
        }
        self.counts.iter_mut().filter(|count| count.calls > 0).for_each(Count::publish);
        for (counter, more) in [(&stats.hits, &mut self.hits), (&stats.misses, &mut self.misses)] {
            if *more > 0 {
                counter.add(std::mem::take(more));
            }
        }
    }

    /// The count of a command. Names are compared by where they stand, which the table of commands
    /// decides; if one stood in two places, both counts would lead to the same statistics.
    fn count_of(&mut self, stats: &Stats, name: &'static str) -> &mut Count {
        let is = |count: &Count| std::ptr::eq(count.name, name);
        if !self.counts.get(self.recent).is_some_and(is) {
            self.recent = self.counts.iter().position(is).unwrap_or_else(|| {
                self.counts.push(Count {
                    name,
                    stats: stats.commands.of(name),
                    calls: 0,
                    nanoseconds: 0,
                    failed: 0,
                    bucket: 0,
                    in_bucket: 0,
                });
                self.counts.len() - 1
            });
        }
        &mut self.counts[self.recent]
    }
}

impl Count {
    fn publish(&mut self) {
        self.stats.calls.fetch_add(std::mem::take(&mut self.calls), Relaxed);
        self.stats.nanoseconds.fetch_add(std::mem::take(&mut self.nanoseconds), Relaxed);
        if self.failed > 0 {
            self.stats.failed.fetch_add(std::mem::take(&mut self.failed), Relaxed);
        }
        self.publish_bucket();
    }

    fn publish_bucket(&mut self) {
        if self.in_bucket > 0 {
            let histogram = self.stats.histogram.get_or_init(Histogram::default);
            histogram.add(self.bucket, std::mem::take(&mut self.in_bucket));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_connection_counts_is_shared_when_it_is_published() {
        let stats = Stats::default();
        let mut tally = Tally::default();
        for name in ["get", "set", "get", "get"] {
            let start = tally.start();
            tally.end(&stats, name, start, true);
        }
        tally.fail(&stats, "get");
        assert!(stats.commands.called().is_empty());
        tally.publish(&stats);
        let called = stats.commands.called();
        assert_eq!((called["get"].calls(), called["get"].failed()), (3, 1));
        assert_eq!((called["set"].calls(), called["set"].failed()), (1, 0));
        assert_eq!(called["get"].histogram().map(Histogram::total), Some(3));
        assert_eq!(stats.commands.calls(), 4);
        tally.publish(&stats);
        assert_eq!(stats.commands.calls(), 4);
        stats.reset();
        assert!(stats.commands.called().is_empty());
    }

    #[test]
    fn a_command_begins_where_the_one_before_has_ended_but_not_across_a_wait() {
        let stats = Stats::default();
        let mut tally = Tally::default();
        let first = tally.start();
        tally.end(&stats, "get", first, false);
        let ended = tally.last;
        assert!(ended.is_some_and(|ended| ended >= first));
        let second = tally.start();
        assert_eq!(Some(second), ended);
        // One that is carried out inside of another begins by the clock.
        assert!(tally.start() >= second && tally.last.is_none());
        tally.end(&stats, "get", second, false);
        tally.publish(&stats);
        assert!(tally.last.is_none());
        assert!(stats.commands.called()["get"].histogram().is_none(), "it was not tracked");
    }

    #[test]
    fn a_run_is_timed_as_a_whole_and_keeps_its_first_key() {
        let stats = Stats::default();
        let mut tally = Tally::default();
        assert!(!tally.is_in_run_of("get"));
        tally.start_run("get", &[b'k'; 200]);
        let full: Vec<bool> = (0..RUN_LIMIT).map(|_| tally.extend_run()).collect();
        assert_eq!(full.iter().position(|full| *full), Some(RUN_LIMIT as usize - 1));
        assert!(tally.is_in_run_of("get") && !tally.is_in_run_of("set"));
        let timed = tally.end_run(&stats, true);
        assert!(timed.is_some_and(|timed| timed.calls == RUN_LIMIT && timed.name == "get"));
        assert!(tally.end_run(&stats, true).is_none() && !tally.is_in_run_of("get"));
        assert_eq!(tally.first_key(), [b'k'; KEY_BYTES]);
        tally.publish(&stats);
        let called = stats.commands.called();
        assert_eq!(called["get"].calls(), RUN_LIMIT);
        assert_eq!(called["get"].histogram().map(Histogram::total), Some(RUN_LIMIT));
        // Another is expected of the next batch, but not behind a command that was alone.
        assert!(tally.is_repeated("get") && !tally.is_repeated("set"));
        let start = tally.start();
        tally.end(&stats, "get", start, true);
        assert!(tally.is_repeated("get"));
        tally.publish(&stats);
        assert!(!tally.is_repeated("get"));
    }
}
