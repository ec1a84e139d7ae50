//! [`CLIENT PAUSE`](https://redis.io/docs/latest/commands/client-pause/) holds back write commands, or all
//! commands, for a while.
//!
//! A paused command is delayed, not refused: its connection's thread waits until the pause ends. Without a
//! pause, this costs each command one atomic load. The lock here is held only briefly; threads wait on a
//! condition variable. A failover holds back writes too, until it ends.

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
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// `CLIENT PAUSE`, and when that ends.
    by_client: Option<(Paused, Instant)>,
    /// A failover goes on.
    by_failover: bool,
}

impl Pause {
    /// A cheap check for every command: if false, there is no pause.
    pub fn is_likely(&self) -> bool {
        self.maybe.load(Relaxed)
    }

    /// Which commands are paused now, if any.
    pub fn paused(&self) -> Option<Paused> {
        self.look(&mut self.lock())
    }

    /// Which commands `CLIENT PAUSE` holds back now, and for how long still.
    pub fn left(&self) -> Option<(Paused, Duration)> {
        let mut state = self.lock();
        self.look(&mut state);
        let left = |until: Instant| until.saturating_duration_since(Instant::now());
        state.by_client.map(|(what, until)| (what, left(until)))
    }

    /// Starts a pause. If one is active already, the later end and the stricter mode win.
    pub fn start(&self, what: Paused, until: Instant) {
        let mut state = self.lock();
        self.look(&mut state);
        let (old_what, old_until) = state.by_client.unwrap_or((what, until));
        state.by_client = Some((what.max(old_what), until.max(old_until)));
        self.maybe.store(true, SeqCst);
    }

    pub fn end(&self) {
        let mut state = self.lock();
        state.by_client = None;
        self.look(&mut state);
        self.changed.notify_all();
    }

    /// Sets whether a failover holds back writes.
    pub fn set_failover(&self, goes_on: bool) {
        let mut state = self.lock();
        state.by_failover = goes_on;
        self.maybe.store(true, SeqCst);
        self.look(&mut state);
        self.changed.notify_all();
    }

    /// Blocks the calling thread while there is a pause for which `must_wait` is true, but at most so long.
    /// Returns whether there still is one.
    pub fn wait_while(&self, at_most: Duration, must_wait: impl Fn(Paused) -> bool) -> bool {
        let limit = Instant::now() + at_most;
        let mut state = self.lock();
        while let Some(what) = self.look(&mut state)
            && must_wait(what)
        {
            let until = state.by_client.map_or(limit, |(_, until)| until.min(limit));
            let rest = until.saturating_duration_since(Instant::now());
            if limit <= Instant::now() {
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

    /// Which commands are paused, after clearing what is over.
    fn look(&self, state: &mut State) -> Option<Paused> {
        if state.by_client.is_some_and(|(_, until)| until <= Instant::now()) {
            state.by_client = None;
        }
        let by_failover = state.by_failover.then_some(Paused::Writes);
        let paused = state.by_client.map(|(what, _)| what).max(by_failover);
        if paused.is_none() {
            self.maybe.store(false, SeqCst);
        }
        paused
    }

    fn lock(&self) -> MutexGuard<'_, State> {
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
    fn a_failover_holds_back_writes_until_it_ends_whatever_clients_ask_for() {
        let pause = Pause::default();
        pause.set_failover(true);
        assert!(pause.is_likely() && pause.left().is_none());
        pause.start(Paused::Everything, Instant::now() + Duration::from_secs(100));
        assert_eq!(pause.paused(), Some(Paused::Everything));
        pause.end();
        assert_eq!(pause.paused(), Some(Paused::Writes));
        assert!(pause.wait_while(Duration::from_millis(1), |what| what == Paused::Writes));
        pause.set_failover(false);
        assert!(!pause.is_likely() && pause.paused().is_none());
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
