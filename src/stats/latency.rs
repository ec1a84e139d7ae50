//! The latency monitor: when something took longer than `latency-monitor-threshold`, and how long.
//!
//! Only what really is measured has a name here: `command` and `fast-command` by the dispatcher,
//! `aof-write` and `aof-fsync-always` where a connection waits for the log before it replies,
//! `expire-cycle` in the sweeper. While the threshold is 0 nobody even looks at the clock for it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::{lock, unix_seconds};

/// How many samples of an event are kept, as in Redis.
const SAMPLES: usize = 160;

/// The worst of an event in one second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spike {
    /// Unix time in seconds.
    pub at: u64,
    /// How long it took.
    pub ms: u64,
}

/// What is known of an event.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Event {
    /// The last samples, the oldest first; one a second at most.
    pub spikes: VecDeque<Spike>,
    /// The worst since it was reset.
    pub worst_ms: u64,
}

/// All events that took long.
#[derive(Default)]
pub struct Monitor(Mutex<BTreeMap<&'static str, Event>>);

impl Monitor {
    /// Takes note of an event if it took at least so many milliseconds, 0 standing for no limit at all:
    /// then nothing is noted.
    pub fn note(&self, name: &'static str, took: Duration, threshold_ms: i64) {
        let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        if threshold_ms > 0 && ms >= threshold_ms.unsigned_abs() {
            self.add(name, Spike { at: unix_seconds(), ms });
        }
    }

    /// Does the work, and takes note of how long that took.
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
                if event.spikes.len() == SAMPLES {
                    event.spikes.pop_front();
                }
                event.spikes.push_back(spike);
            }
        }
    }

    /// The events by their names.
    pub fn events(&self) -> BTreeMap<&'static str, Event> {
        lock(&self.0).clone()
    }

    /// Forgets the events whose names are wanted, and says how many those were.
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
    fn of_each_second_the_worst_is_kept() {
        let monitor = Monitor::default();
        for (at, ms) in [(1, 5), (1, 9), (1, 7), (2, 3)] {
            monitor.add("command", Spike { at, ms });
        }
        let event = &monitor.events()["command"];
        assert_eq!(event.spikes, [Spike { at: 1, ms: 9 }, Spike { at: 2, ms: 3 }]);
        assert_eq!(event.worst_ms, 9);
        (10..1000).for_each(|at| monitor.add("command", Spike { at, ms: 1 }));
        let event = &monitor.events()["command"];
        assert_eq!((event.spikes.len(), event.spikes[0].at, event.worst_ms), (SAMPLES, 840, 9));
    }

    #[test]
    fn what_took_less_than_the_threshold_is_not_noted_and_without_one_nothing_is() {
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
