//! Group commit: threads that need the disk share syncs.
//!
//! A sync of a thousand records takes as long as a sync of one. So the threads that wait for one form a
//! *round*: one of them, the leader, syncs everything that was appended so far, and the others wait for the
//! end of that sync. A thread that comes during a sync joins the running round if the sync covers its record,
//! and otherwise the next round, which one of its own members leads. When a round ends, only one thread of
//! the next round is woken: its leader.
//!
//! # How long a leader waits for others
//!
//! The clients of a round send their next commands while the next round syncs. Left alone, clients settle
//! into two halves, each of which waits for the other's sync, and each client gets one answer every two
//! syncs. If the leader waits until the clients of the last round are back, each gets one answer per sync.
//! That pays if all are back sooner than a sync takes. If they keep the processors busy for longer, it is
//! better that one half works while the other syncs.
//!
//! Both times are measured in every round, so no constant here depends on a machine. With a sync of 3 ms,
//! waiting makes two clients 1.9 times as fast, ten 1.6 times and fifty 1.2 times.
//!
//! # Invariants
//!
//! The synced LSN only grows, and never passes what a sync has covered. At most one thread leads. The lock is
//! never held during a sync; while it is held, the caller's `appended` may take another lock, which must be
//! further down in the lock order.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::stats::lock;

/// A leader that does not wait for clients still yields the processor up to this often, as long as
/// other threads use it to append.
const YIELDS: usize = 2;

/// What a sync achieved.
pub(super) struct Synced {
    /// The disk has the log up to this LSN.
    pub(super) lsn: u64,
    /// Why the disk has no more than that.
    pub(super) error: Option<io::Error>,
}

impl Synced {
    fn result(&self, lsn: u64) -> io::Result<()> {
        if lsn <= self.lsn {
            return Ok(());
        }
        let unknown = || io::Error::other("the sync did not reach the record");
        Err(self.error.as_ref().map_or_else(unknown, copy_of))
    }
}

/// The same error again, for another thread.
pub(super) fn copy_of(error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), error.to_string())
}

/// Shares syncs between the threads that need one.
#[derive(Default)]
pub(super) struct GroupCommit {
    /// The disk has the log up to this LSN. Outside the lock, so that a thread whose record is synced
    /// never waits.
    synced_lsn: AtomicU64,
    state: Mutex<State>,
    /// Wakes a leader that waits for the clients of the last round.
    all_back: Condvar,
}

#[derive(Default)]
struct State {
    /// A thread leads: it waits for others to join, or it syncs.
    has_leader: bool,
    /// The round that has not begun to sync.
    open: Round,
    /// The round whose sync is running, and the LSN up to which that sync covers the log.
    syncing: Option<(Round, u64)>,
    pace: Pace,
}

/// The threads that share a sync.
#[derive(Default)]
struct Round {
    members: u32,
    end: Arc<End>,
}

#[derive(Default)]
struct End {
    /// Set when the round has ended.
    outcome: OnceLock<Synced>,
    /// Wakes all members at the end of the round, or one of them to lead it.
    wake: Condvar,
}

impl GroupCommit {
    /// Whether the disk has the log up to `lsn`.
    pub(super) fn is_synced(&self, lsn: u64) -> bool {
        lsn <= self.synced_lsn()
    }

    /// The disk has the log up to this LSN.
    pub(super) fn synced_lsn(&self) -> u64 {
        self.synced_lsn.load(SeqCst)
    }

    /// Records that the disk has the log up to `lsn`, although no round has synced it.
    pub(super) fn advance(&self, lsn: u64) {
        self.synced_lsn.fetch_max(lsn, SeqCst);
    }

    /// Returns once the disk has the log up to `lsn`, which has been appended.
    ///
    /// If this thread has to lead, it calls `sync`, which covers at least what `appended` returned
    /// before. `appended` is called with the lock held.
    ///
    /// # Errors
    /// The sync that should have covered `lsn` failed; every member of its round gets that error.
    pub(super) fn commit(
        &self,
        lsn: u64,
        appended: impl Fn() -> u64,
        sync: impl FnOnce() -> Synced,
    ) -> io::Result<()> {
        if self.is_synced(lsn) {
            return Ok(());
        }
        let mut state = self.lock();
        if self.is_synced(lsn) {
            return Ok(());
        }
        let end = state.join(lsn);
        if state.pace.is_last_back() && state.has_leader && state.syncing.is_none() {
            self.all_back.notify_one();
        }
        while state.has_leader && end.outcome.get().is_none() {
            state = end.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if let Some(outcome) = end.outcome.get() {
            drop(state);
            return outcome.result(lsn);
        }
        state.has_leader = true;
        state = self.let_others_join(state, &appended);
        let round = std::mem::take(&mut state.open);
        state.syncing = Some((round, appended()));
        drop(state);
        let started = Instant::now();
        let synced = sync();
        let result = synced.result(lsn);
        self.end_round(&end, synced, started.elapsed());
        result
    }

    /// Gives threads that are about to commit the time to join.
    fn let_others_join<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        appended: impl Fn() -> u64,
    ) -> MutexGuard<'a, State> {
        let patience =
            state.pace.wait_until.map(|end| end.saturating_duration_since(Instant::now()));
        if let Some(patience) = patience.filter(|patience| !patience.is_zero()) {
            let missing = |state: &mut State| state.pace.are_missing();
            let waited = self.all_back.wait_timeout_while(state, patience, missing);
            return waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        let mut before = appended();
        for _ in 0..YIELDS {
            drop(state);
            thread::yield_now();
            state = self.lock();
            let after = appended();
            if after == before {
                break;
            }
            before = after;
        }
        state
    }

    fn end_round(&self, end: &End, synced: Synced, took: Duration) {
        self.advance(synced.lsn);
        let mut state = self.lock();
        let members = state.syncing.take().map_or(0, |(round, _)| round.members);
        let (next, waiting) = (state.open.end.clone(), state.open.members);
        state.pace = Pace::after_sync(&state.pace, took, members, waiting);
        state.has_leader = false;
        let ended_before = end.outcome.set(synced).is_err();
        debug_assert!(!ended_before && members > 0, "a round is led and ended once");
        drop(state);
        // The next leader first: its sync can begin while the members of this round reply. In the other
        // order, fifty clients without pipelines were almost a tenth slower.
        if waiting > 0 {
            next.wake.notify_one();
        }
        if members > 1 {
            end.wake.notify_all();
        }
    }

    /// Checks the invariants. Can be called at any time.
    ///
    /// # Errors
    /// The invariant that does not hold.
    pub(super) fn check(&self) -> Result<(), String> {
        let state = self.lock();
        let State { has_leader, open, syncing, .. } = &*state;
        if syncing.is_some() && !has_leader {
            return Err("a sync is running, but no thread leads it".into());
        }
        if open.end.outcome.get().is_some() {
            return Err("the round that can be joined has ended".into());
        }
        if syncing.as_ref().is_some_and(|(round, _)| round.members == 0) {
            return Err("a sync is running, but no thread waits for it".into());
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl State {
    /// Joins the round whose sync will cover `lsn`.
    fn join(&mut self, lsn: u64) -> Arc<End> {
        self.pace.back += 1;
        if self.pace.is_last_back() {
            self.pace.all_back_after = self.pace.sync_ended.map(|ended| ended.elapsed());
        }
        let round = match &mut self.syncing {
            Some((round, covers)) if lsn <= *covers => round,
            _ => &mut self.open,
        };
        round.members += 1;
        round.end.clone()
    }
}

/// How soon the clients that a sync has served come back, and whether the next leader waits for them.
#[derive(Default)]
struct Pace {
    /// When the last sync ended.
    sync_ended: Option<Instant>,
    /// How long it took.
    sync_took: Option<Duration>,
    /// How many threads it served.
    served: u32,
    /// How many threads have joined a round since then.
    back: u32,
    /// How long after the sync as many threads had joined as it had served.
    all_back_after: Option<Duration>,
    /// Until when a leader waits for them.
    wait_until: Option<Instant>,
}

impl Pace {
    fn are_missing(&self) -> bool {
        self.back < self.served
    }

    fn is_last_back(&self) -> bool {
        self.back == self.served
    }

    /// The pace after a sync that took this long and served this many threads, while `waiting` others already
    /// wait for the next.
    fn after_sync(&self, took: Duration, served: u32, waiting: u32) -> Pace {
        let now = Instant::now();
        // A single sync that takes very long says nothing about the next.
        let next_takes = self.sync_took.map_or(Duration::ZERO, |before| before.min(took));
        let each_takes = self.all_back_after.and_then(|all| all.checked_div(self.served));
        let patience = each_takes.map(|each| patience(next_takes, each, served + waiting));
        Pace {
            sync_ended: Some(now),
            sync_took: Some(took),
            served,
            wait_until: patience.and_then(|patience| now.checked_add(patience)),
            ..Pace::default()
        }
    }
}

/// How long a leader waits for this many clients, if each takes `each_takes` to come back: half the time of a
/// sync if all can be back sooner than a sync takes, and otherwise not at all. It does not wait longer,
/// because some may not come.
fn patience(sync_takes: Duration, each_takes: Duration, clients: u32) -> Duration {
    let pays = each_takes.saturating_mul(clients) < sync_takes;
    if pays { sync_takes / 2 } else { Duration::ZERO }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    /// How long a test waits for another thread before it fails.
    const PATIENCE: Duration = Duration::from_secs(10);

    /// A log that is a counter, on a disk whose syncs can be held up and fail.
    #[derive(Default)]
    struct Log {
        group: GroupCommit,
        appended: AtomicU64,
        durable: AtomicU64,
        syncs: AtomicUsize,
        failing: Mutex<bool>,
        stuck: Mutex<bool>,
        released: Condvar,
    }

    impl Log {
        fn append(&self) -> u64 {
            self.appended.fetch_add(1, SeqCst) + 1
        }

        fn commit(&self, lsn: u64) -> io::Result<()> {
            let result = self.group.commit(lsn, || self.appended.load(SeqCst), || self.sync());
            assert!(result.is_err() || self.durable.load(SeqCst) >= lsn);
            assert_eq!(self.group.check(), Ok(()));
            result
        }

        fn sync(&self) -> Synced {
            let lsn = self.appended.load(SeqCst);
            self.syncs.fetch_add(1, SeqCst);
            let stuck = lock(&self.stuck);
            let waited = self.released.wait_timeout_while(stuck, PATIENCE, |stuck| *stuck);
            assert!(!waited.unwrap_or_else(PoisonError::into_inner).1.timed_out());
            if *lock(&self.failing) {
                let lsn = self.durable.load(SeqCst);
                return Synced { lsn, error: Some(io::Error::other("broken")) };
            }
            self.durable.fetch_max(lsn, SeqCst);
            Synced { lsn, error: None }
        }

        fn set_stuck(&self, stuck: bool) {
            *lock(&self.stuck) = stuck;
            self.released.notify_all();
        }

        fn syncs(&self) -> usize {
            self.syncs.load(SeqCst)
        }

        /// Waits until the condition holds.
        fn await_state(&self, wanted: impl Fn(&State) -> bool) {
            let started = Instant::now();
            while !wanted(&self.group.lock()) {
                assert!(started.elapsed() < PATIENCE, "waited in vain for other threads");
                thread::yield_now();
            }
        }

        /// Makes the next leader wait for this many clients, for this long from now on.
        fn expect(&self, clients: u32, patience: Duration) {
            let wait_until = Instant::now().checked_add(patience);
            self.group.lock().pace = Pace { served: clients, wait_until, ..Pace::default() };
        }
    }

    fn members(state: &State) -> (u32, u32) {
        (state.syncing.as_ref().map_or(0, |(round, _)| round.members), state.open.members)
    }

    #[test]
    fn a_lone_thread_syncs_once_for_everything_appended_and_waits_for_nobody() -> io::Result<()> {
        let log = Log::default();
        let (first, second) = (log.append(), log.append());
        log.commit(first)?;
        log.commit(second)?;
        assert_eq!((log.syncs(), log.group.synced_lsn()), (1, 2));
        let started = Instant::now();
        for _ in 0..10 {
            log.expect(1, PATIENCE);
            log.commit(log.append())?;
        }
        assert_eq!(log.syncs(), 11);
        assert!(started.elapsed() < PATIENCE);
        Ok(())
    }

    #[test]
    fn threads_that_come_during_a_sync_share_it_if_it_covers_them_and_else_the_next() {
        let log = &Log::default();
        log.set_stuck(true);
        let covered = [log.append(), log.append(), log.append()];
        thread::scope(|scope| {
            let commit =
                |lsn| scope.spawn(move || log.commit(lsn).map_err(|error| error.to_string()));
            let mut threads = vec![commit(covered[0])];
            log.await_state(|state| state.syncing.is_some());
            threads.extend([commit(covered[1]), commit(covered[2])]);
            threads.extend((0..20).map(|_| commit(log.append())));
            log.await_state(|state| members(state) == (3, 20));
            log.set_stuck(false);
            assert!(threads.into_iter().all(|thread| matches!(thread.join(), Ok(Ok(())))));
        });
        assert_eq!(log.syncs(), 2);
    }

    #[test]
    fn a_failed_sync_is_an_error_for_its_whole_round_and_the_next_round_tries_again()
    -> io::Result<()> {
        let log = &Log::default();
        let synced = log.append();
        log.commit(synced)?;
        log.set_stuck(true);
        *lock(&log.failing) = true;
        let lsns = [log.append(), log.append()];
        thread::scope(|scope| {
            let threads = lsns.map(|lsn| scope.spawn(move || log.commit(lsn)));
            log.await_state(|state| members(state) == (2, 0));
            log.set_stuck(false);
            let errors = threads.map(|thread| thread.join().ok()?.err());
            assert_eq!(
                errors.map(|error| Some(error?.to_string())),
                [const { None }; 2].map(|_: Option<()>| Some("broken".to_string()))
            );
        });
        assert_eq!(log.syncs(), 2);
        log.commit(synced)?;
        *lock(&log.failing) = false;
        log.commit(lsns[1])?;
        assert_eq!((log.syncs(), log.group.is_synced(lsns[0])), (3, true));
        Ok(())
    }

    #[test]
    fn a_leader_waits_for_as_many_threads_as_the_last_sync_served() {
        let log = &Log::default();
        log.expect(3, PATIENCE);
        let started = Instant::now();
        thread::scope(|scope| {
            let commit = || scope.spawn(|| log.commit(log.append()).is_ok());
            let first = [commit(), commit()];
            log.await_state(|state| members(state) == (0, 2));
            assert_eq!(log.syncs(), 0);
            let threads = first.into_iter().chain([commit()]);
            assert!(threads.map(thread::ScopedJoinHandle::join).all(|ok| ok.unwrap_or_default()));
        });
        assert_eq!(log.syncs(), 1);
        assert_eq!(log.group.lock().pace.served, 3);
        assert!(started.elapsed() < PATIENCE, "it waited although all had come");
    }

    #[test]
    fn a_leader_waits_no_longer_than_it_may_and_not_at_all_when_it_comes_late() -> io::Result<()> {
        let log = Log::default();
        let started = Instant::now();
        log.expect(2, Duration::ZERO);
        log.commit(log.append())?;
        assert!(started.elapsed() < PATIENCE);
        const WAIT: Duration = Duration::from_millis(10);
        let started = Instant::now();
        log.expect(2, WAIT);
        log.commit(log.append())?;
        assert!((WAIT..PATIENCE).contains(&started.elapsed()));
        // The other did not come back, so the next leader does not wait for it.
        let pace = &log.group.lock().pace;
        assert_eq!((pace.served, pace.all_back_after), (1, None));
        Ok(())
    }

    #[test]
    fn it_pays_to_wait_for_clients_that_are_all_back_sooner_than_a_sync_takes() {
        let patience_us = |sync_us, each_us, clients| {
            let takes = Duration::from_micros;
            patience(takes(sync_us), takes(each_us), clients).as_micros()
        };
        assert_eq!([300, 3000].map(|sync_us| patience_us(sync_us, 30, 5)), [150, 1500]);
        assert_eq!([1500, 3000].map(|sync_us| patience_us(sync_us, 30, 50)), [0, 1500]);
        assert_eq!(patience_us(3000, 0, 50), 1500);
        assert_eq!(patience_us(3000, u64::MAX, u32::MAX), 0);
    }

    #[test]
    fn the_time_that_clients_take_is_measured_until_as_many_are_back_as_were_served() {
        const MINUTE: Duration = Duration::from_secs(60);
        let mut state = State::default();
        state.pace = state.pace.after_sync(MINUTE, 2, 0);
        assert!(state.pace.are_missing());
        state.join(1);
        assert_eq!(state.pace.all_back_after, None);
        state.join(2);
        let measured = state.pace.all_back_after;
        assert!(measured.is_some() && !state.pace.are_missing());
        state.join(3);
        assert_eq!(state.pace.all_back_after, measured);
        let waits = |pace: &Pace| pace.wait_until > pace.sync_ended;
        let after = state.pace.after_sync(MINUTE, 3, 0);
        assert!(waits(&after), "they were back much sooner than a sync takes");
        assert!(!waits(&state.pace.after_sync(Duration::ZERO, 3, 0)), "syncs got fast");
        assert!(!waits(&after.after_sync(MINUTE, 1, 0)), "nobody came back after that");
        state.pace.sync_took = Some(Duration::ZERO);
        assert!(!waits(&state.pace.after_sync(MINUTE, 3, 0)), "only one sync took long");
    }

    #[test]
    fn no_thread_is_told_that_its_record_is_synced_before_it_is() {
        let log = &Log::default();
        thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| (0..500).for_each(|_| assert!(log.commit(log.append()).is_ok())));
            }
        });
        assert_eq!(log.durable.load(SeqCst), 3000);
        assert!(log.syncs() <= 3000);
    }
}
