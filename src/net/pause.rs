//! `CLIENT PAUSE`: for a while, commands that change data, or all, are not carried out.
//!
//! They are not refused either: each connection's thread waits with its next command until the pause
//! ends. Without a pause that costs a command one load of an atomic.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// What a pause stops. The later stops more.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Paused {
    /// Commands that change data or send messages.
    Writes,
    /// All commands.
    Everything,
}

/// Whether there is a pause, and until when.
#[derive(Default)]
pub struct Pause {
    /// There is one, or there was and nobody has noticed its end.
    maybe: AtomicBool,
    state: Mutex<Option<(Paused, Instant)>>,
    changed: Condvar,
}

impl Pause {
    /// Whether it is worth while to ask for more. Every command does.
    pub fn is_likely(&self) -> bool {
        self.maybe.load(Relaxed)
    }

    /// What is paused now.
    pub fn paused(&self) -> Option<Paused> {
        self.look(&mut self.lock()).map(|(what, _)| what)
    }

    /// Starts a pause. One that goes on already becomes neither shorter nor less strict.
    pub fn start(&self, what: Paused, until: Instant) {
        let mut state = self.lock();
        let (old_what, old_until) = self.look(&mut state).unwrap_or((what, until));
        *state = Some((what.max(old_what), until.max(old_until)));
        self.maybe.store(true, SeqCst);
    }

    /// Ends it.
    pub fn end(&self) {
        *self.lock() = None;
        self.maybe.store(false, SeqCst);
        self.changed.notify_all();
    }

    /// Waits as long as what is paused makes one wait.
    pub fn wait_while(&self, must_wait: impl Fn(Paused) -> bool) {
        let mut state = self.lock();
        while let Some((what, until)) = self.look(&mut state)
            && must_wait(what)
        {
            let rest = until.saturating_duration_since(Instant::now());
            let waited = self.changed.wait_timeout(state, rest);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Has all who wait ask again whether they must.
    pub fn wake(&self) {
        let _state = self.lock(); // nobody is between asking and waiting
        self.changed.notify_all();
    }

    /// The pause, unless it is over.
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
    use std::time::Duration;

    #[test]
    fn a_pause_becomes_only_longer_and_stricter() {
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
        pause.wait_while(|what| what == Paused::Everything);
        pause.wait_while(|what| what == Paused::Writes);
        assert!(started.elapsed() >= Duration::from_millis(20));
        assert!(!pause.is_likely());
    }
}
