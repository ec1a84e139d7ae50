//! [`CLIENT PAUSE`](https://redis.io/docs/latest/commands/client-pause/) holds back write commands, or all
//! commands, for a while.
//!
//! A paused command is delayed, not refused: its connection's thread waits until the pause ends. Without a
//! pause, this costs each command one atomic load. The lock here is held only briefly; threads wait on a
//! condition variable.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Which commands a pause holds back. Ordered: the later variant includes the earlier one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Paused {
    /// Commands that change data or send messages.
    Writes,
    /// All commands.
    Everything,
}

/// The pause of a server, if there is one.
#[derive(Default)]
pub struct Pause {
    /// False only if there is no pause. Stays true after the end of a pause until the next check.
    maybe: AtomicBool,
    state: Mutex<Option<(Paused, Instant)>>,
    changed: Condvar,
}

impl Pause {
    /// A cheap check for every command: if false, there is no pause.
    pub fn is_likely(&self) -> bool {
        self.maybe.load(Relaxed)
    }

    /// Which commands are paused now, if any.
    pub fn paused(&self) -> Option<Paused> {
        self.look(&mut self.lock()).map(|(what, _)| what)
    }

    /// Which commands are paused now, and for how long still.
    pub fn left(&self) -> Option<(Paused, Duration)> {
        let paused = self.look(&mut self.lock());
        paused.map(|(what, until)| (what, until.saturating_duration_since(Instant::now())))
    }

    /// Starts a pause. If one is active already, the later end and the stricter mode win.
    pub fn start(&self, what: Paused, until: Instant) {
        let mut state = self.lock();
        let (old_what, old_until) = self.look(&mut state).unwrap_or((what, until));
        *state = Some((what.max(old_what), until.max(old_until)));
        self.maybe.store(true, SeqCst);
    }

    pub fn end(&self) {
        *self.lock() = None;
        self.maybe.store(false, SeqCst);
        self.changed.notify_all();
    }

    /// Blocks the calling thread while there is a pause for which `must_wait` is true, but at most so long.
    /// Returns whether there still is one.
    pub fn wait_while(&self, at_most: Duration, must_wait: impl Fn(Paused) -> bool) -> bool {
        let limit = Instant::now() + at_most;
        let mut state = self.lock();
        while let Some((what, until)) = self.look(&mut state)
            && must_wait(what)
        {
            let rest = until.min(limit).saturating_duration_since(Instant::now());
            if rest.is_zero() {
                return true;
            }
            let waited = self.changed.wait_timeout(state, rest);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        false
    }

    /// Makes all waiting threads evaluate their `must_wait` again.
    pub fn wake(&self) {
        let _state = self.lock(); // no thread is between its check and its wait
        self.changed.notify_all();
    }

    /// The pause, after clearing it if it is over.
    fn look(&self, state: &mut MutexGuard<Option<(Paused, Instant)>>) -> Option<(Paused, Instant)> {
        if state.is_some_and(|(_, until)| until <= Instant::now()) {
            **state = None;
        }
        if state.is_none() {
            self.maybe.store(false, SeqCst);
        }
        **state
    }

    fn lock(&self) -> MutexGuard<'_, Option<(Paused, Instant)>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_pause_can_only_extend_the_first() {
        let pause = Pause::default();
        assert!(!pause.is_likely());
        let (soon, later) = (Instant::now(), Instant::now() + Duration::from_secs(100));
        pause.start(Paused::Writes, later);
        pause.start(Paused::Everything, soon);
        pause.start(Paused::Writes, soon);
        assert_eq!(pause.paused(), Some(Paused::Everything));
        pause.end();
        assert_eq!(pause.paused(), None);
    }

    #[test]
    fn a_pause_ends_by_itself() {
        let pause = Pause::default();
        let started = Instant::now();
        pause.start(Paused::Writes, started + Duration::from_millis(20));
        let wait = |at_most, held| pause.wait_while(at_most, |what| what == held);
        assert!(!wait(Duration::from_secs(100), Paused::Everything));
        assert!(wait(Duration::from_millis(1), Paused::Writes));
        assert!(!wait(Duration::from_secs(100), Paused::Writes));
        assert!(started.elapsed() >= Duration::from_millis(20));
        assert!(!pause.is_likely());
    }
}
