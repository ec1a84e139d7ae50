//! How rewrites of the log are going: the right to start one, its progress, and how the last one ended.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::stats::{Counter, lock};

/// The state of rewriting. Its locks are below all others.
#[derive(Default)]
pub struct Rewrites {
    saved_percent: AtomicUsize,
    /// When the rewrite began that is running.
    started: Mutex<Option<Instant>>,
    ended: Condvar,
    last: Mutex<Option<Last>>,
    /// Rewrites that were completed.
    pub completed: Counter,
}

/// How the last rewrite went.
#[derive(Clone)]
pub struct Last {
    /// It was completed.
    pub ok: bool,
    /// How long it took.
    pub took: Duration,
    /// When it ended.
    pub ended: Instant,
}

impl Rewrites {
    /// Claims the right to rewrite. False if a rewrite is running: there is one at a time.
    pub fn claim(&self) -> bool {
        self.claim_in(&mut lock(&self.started))
    }

    /// Claims the right to rewrite, once the rewrite that may be running has ended.
    pub fn claim_next(&self) {
        let running = |started: &mut Option<Instant>| started.is_some();
        let waited = self.ended.wait_while(lock(&self.started), running);
        let claimed = self.claim_in(&mut waited.unwrap_or_else(PoisonError::into_inner));
        debug_assert!(claimed, "it was free, and is locked");
    }

    fn claim_in(&self, started: &mut Option<Instant>) -> bool {
        if started.is_some() {
            return false;
        }
        self.saved_percent.store(0, Relaxed);
        *started = Some(Instant::now());
        true
    }

    /// How long the current rewrite has been running, and how many percent of the shards it has saved.
    /// None if no rewrite is running.
    pub fn progress(&self) -> Option<(Duration, usize)> {
        let started = *lock(&self.started);
        started.map(|started| (started.elapsed(), self.saved_percent.load(Relaxed)))
    }

    /// How the last rewrite went, if there was one.
    pub fn last(&self) -> Option<Last> {
        lock(&self.last).clone()
    }

    pub(super) fn set_saved_percent(&self, percent: usize) {
        self.saved_percent.store(percent, Relaxed);
    }

    /// Records how a rewrite ended, and gives the right to rewrite back.
    pub fn end(&self, ok: bool, took: Duration) {
        self.completed.add(u64::from(ok));
        *lock(&self.last) = Some(Last { ok, took, ended: Instant::now() });
        *lock(&self.started) = None;
        self.ended.notify_one();
    }
}
