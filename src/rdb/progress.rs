//! The right to save, how the current save is going, and how the last one ended.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crate::stats::{Counter, lock};

/// After a failed save in the background, a due one is tried again only after this time.
const PAUSE: Duration = Duration::from_secs(5);

/// How saves are going. Its lock is below all others.
#[derive(Default)]
pub struct Saves {
    state: Mutex<State>,
    /// Whether the last save in the background failed. Set with `state` locked; every write reads it.
    failed: AtomicBool,
    cancelled: AtomicBool,
    /// How many changes the last save has of those since the start.
    saved_changes: AtomicU64,
    /// Saves that were completed.
    pub completed: Counter,
    /// Keys that were loaded from an RDB file at the start.
    pub loaded: Counter,
    /// Keys in that file that had expired.
    pub expired: Counter,
}

#[derive(Default)]
struct State {
    current: Option<Current>,
    /// The Unix time of the last completed save, in seconds.
    saved_at: u64,
    /// How long the last save in the background took, and when it ended.
    last: Option<(Duration, Instant)>,
}

/// The save that has the right to save.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Current {
    /// In the background; it waits for its turn.
    Scheduled,
    /// In the background, since then.
    Running(Instant),
    /// Not in the background: a client waits for it.
    Waited,
}

impl Saves {
    /// Counts from this Unix time in seconds, as if there had been a save.
    pub fn since(&self, now: u64) {
        lock(&self.state).saved_at = now;
    }

    /// Claims the right to save. False if there is a save already: there is one at a time.
    pub fn claim(&self, current: Current) -> bool {
        let mut state = lock(&self.state);
        if state.current.is_some() {
            return false;
        }
        self.cancelled.store(false, SeqCst);
        state.current = Some(current);
        true
    }

    /// Records that a save in the background begins.
    pub fn begin(&self) {
        lock(&self.state).current = Some(Current::Running(Instant::now()));
    }

    pub fn current(&self) -> Option<Current> {
        lock(&self.state).current
    }

    /// Makes a save in the background end without a result.
    pub fn cancel(&self) {
        self.cancelled.store(true, SeqCst);
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled.load(SeqCst)
    }

    /// Gives the right to save back. A save that `succeeded` has that many changes. One that was cancelled is
    /// no failure.
    pub fn end(&self, succeeded: bool, changes: u64, now: u64) {
        let mut state = lock(&self.state);
        if let Some(Current::Running(since)) = state.current {
            state.last = Some((since.elapsed(), Instant::now()));
            if !self.is_cancelled() {
                self.failed.store(!succeeded, SeqCst);
            }
        }
        if succeeded {
            state.saved_at = now;
            self.failed.store(false, SeqCst);
            self.saved_changes.store(changes, SeqCst);
            self.completed.add(1);
        }
        state.current = None;
    }

    /// The Unix time of the last completed save, or of the start, in seconds.
    pub fn saved_at(&self) -> u64 {
        lock(&self.state).saved_at
    }

    /// How many of the changes since the start the last save has.
    pub fn saved_changes(&self) -> u64 {
        self.saved_changes.load(SeqCst)
    }

    /// Whether the last save in the background failed.
    pub fn has_failed(&self) -> bool {
        self.failed.load(SeqCst)
    }

    /// How long the last save in the background took.
    pub fn last_took(&self) -> Option<Duration> {
        lock(&self.state).last.map(|(took, _)| took)
    }

    /// Whether a save is due by one of these points: so many seconds since the last one, and so many changes.
    pub fn is_due(&self, points: &[(u64, u64)], changes: u64, now: u64) -> bool {
        let state = lock(&self.state);
        let waits = self.has_failed() && state.last.is_some_and(|(_, at)| at.elapsed() < PAUSE);
        let (age, changes) = (now.saturating_sub(state.saved_at), changes - self.saved_changes());
        !waits && points.iter().any(|(seconds, least)| age > *seconds && changes >= *least)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_save_is_due_when_one_point_is_reached_and_there_is_one_save_at_a_time() {
        let saves = Saves::default();
        saves.since(1000);
        let due = |changes, now| saves.is_due(&[(100, 5), (10, 50)], changes, now);
        assert!(!due(4, 9999) && !due(5, 1100) && due(5, 1101) && !due(50, 1010) && due(50, 1011));
        assert!(saves.claim(Current::Scheduled) && !saves.claim(Current::Waited));
        saves.begin();
        saves.end(true, 50, 2000);
        assert_eq!((saves.saved_at(), saves.completed.get(), saves.current()), (2000, 1, None));
        assert!(!due(54, 9999) && due(55, 9999));
    }

    #[test]
    fn only_a_save_in_the_background_that_was_not_cancelled_can_fail() {
        let saves = Saves::default();
        let fail = |current, cancelled| {
            assert!(saves.claim(current));
            if current == Current::Scheduled {
                saves.begin();
            }
            if cancelled {
                saves.cancel();
            }
            saves.end(false, 0, 0);
            saves.has_failed()
        };
        assert!(!fail(Current::Waited, false) && !fail(Current::Scheduled, true));
        assert!(fail(Current::Scheduled, false) && fail(Current::Scheduled, true));
        assert!(!saves.is_due(&[(0, 0)], 1, 1), "it was tried a moment ago");
        assert!(saves.claim(Current::Waited));
        saves.end(true, 0, 0);
        assert!(!saves.has_failed());
    }
}
