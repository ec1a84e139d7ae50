//! How rewrites of the log are going: the right to start one, its progress, and how the last one ended.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crate::stats::{Counter, lock};

/// The state of rewriting. Its locks are below all others.
#[derive(Default)]
pub struct Rewrites {
    claimed: AtomicBool,
    saved_percent: AtomicUsize,
    started: Mutex<Option<Instant>>,
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
        let claimed = !self.claimed.swap(true, SeqCst);
        if claimed {
            self.saved_percent.store(0, Relaxed);
            *lock(&self.started) = Some(Instant::now());
        }
        claimed
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
    pub(super) fn end(&self, ok: bool, took: Duration) {
        self.completed.add(u64::from(ok));
        *lock(&self.last) = Some(Last { ok, took, ended: Instant::now() });
        *lock(&self.started) = None;
        self.claimed.store(false, SeqCst);
    }
}
