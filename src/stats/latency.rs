//! The latency monitor: events that took at least `latency-monitor-threshold` milliseconds.
//!
//! These events are measured: `command` and `fast-command` by the dispatcher, `aof-write` and
//! `aof-fsync-always` where a connection waits for the log before it replies, and `expire-cycle` in the
//! sweeper. While the threshold is 0, the last three do not read the clock.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::{lock, unix_seconds};

/// How many spikes of an event are kept, as in Redis.
const SPIKES: usize = 160;

/// The longest time that an event took within one second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spike {
    /// Unix time in seconds.
    pub at: u64,
    /// How long it took, in milliseconds.
    pub ms: u64,
}

/// The history of one event.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Event {
    /// The last spikes, the oldest first; at most one per second.
    pub spikes: VecDeque<Spike>,
    /// The longest time since the event was reset, in milliseconds.
    pub worst_ms: u64,
}

/// The history of all events.
#[derive(Default)]
pub struct Monitor(Mutex<BTreeMap<&'static str, Event>>);

impl Monitor {
    /// Records an event if it took at least `threshold_ms` milliseconds. With a threshold of 0 it records
    /// nothing.
    pub fn note(&self, name: &'static str, took: Duration, threshold_ms: i64) {
        let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        if threshold_ms > 0 && ms >= threshold_ms.unsigned_abs() {
            self.add(name, Spike { at: unix_seconds(), ms });
        }
    }

    /// Does the work, measures it, and records it as [`Monitor::note`] does.
    pub fn timed<T>(&self, name: &'static str, threshold_ms: i64, work: impl FnOnce() -> T) -> T {
        let start = (threshold_ms > 0).then(Instant::now);
        let result = work();
        if let Some(start) = start {
            self.note(name, start.elapsed(), threshold_ms);
        }
        result
    }

    fn add(&self, name: &'static str, spike: Spike) {
        let mut events = lock(&self.0);
        let event = events.entry(name).or_default();
        event.worst_ms = event.worst_ms.max(spike.ms);
        match event.spikes.back_mut().filter(|last| last.at == spike.at) {
            Some(last) => last.ms = last.ms.max(spike.ms),
            None => {
                if event.spikes.len() == SPIKES {
                    event.spikes.pop_front();
                }
                event.spikes.push_back(spike);
            }
        }
    }

    /// All events by name.
    pub fn events(&self) -> BTreeMap<&'static str, Event> {
        lock(&self.0).clone()
    }

    /// Forgets the events whose names are wanted. Returns how many it forgot.
    pub fn reset(&self, wanted: impl Fn(&str) -> bool) -> usize {
        let mut events = lock(&self.0);
        let before = events.len();
        events.retain(|name, _| !wanted(name));
        before - events.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_time_of_each_second_is_kept() {
        let monitor = Monitor::default();
        for (at, ms) in [(1, 5), (1, 9), (1, 7), (2, 3)] {
            monitor.add("command", Spike { at, ms });
        }
        let event = &monitor.events()["command"];
        assert_eq!(event.spikes, [Spike { at: 1, ms: 9 }, Spike { at: 2, ms: 3 }]);
        assert_eq!(event.worst_ms, 9);
        (10..1000).for_each(|at| monitor.add("command", Spike { at, ms: 1 }));
        let event = &monitor.events()["command"];
        assert_eq!((event.spikes.len(), event.spikes[0].at, event.worst_ms), (SPIKES, 840, 9));
    }

    #[test]
    fn only_events_that_reach_the_threshold_are_recorded_and_none_without_a_threshold() {
        let monitor = Monitor::default();
        monitor.note("command", Duration::from_secs(1), 0);
        monitor.note("command", Duration::from_micros(9999), 10);
        assert!(monitor.events().is_empty());
        monitor.note("command", Duration::from_millis(10), 10);
        assert_eq!(monitor.timed("aof-write", 1000, || 7), 7);
        assert_eq!(monitor.events().keys().collect::<Vec<_>>(), [&"command"]);
        assert_eq!((monitor.reset(|name| name == "x"), monitor.reset(|_| true)), (0, 1));
    }
}
