//! The master that this server copies, if it copies one, and how the link to it is doing.
//!
//! Each change of the master begins a *term*. The thread that links this server to a master works for one
//! term, and what it does to the data it does with the term locked ([`Upstream::in_term`]). So a client that
//! ends the term, by `REPLICAOF`, knows that nothing of the old master comes after that.
//!
//! The lock is below the shards and above the log. It is held for as long as one command or transaction of
//! the master takes.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::net::socket::Socket;
use crate::stats::lock;

/// Where a master is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Address {
    pub host: String,
    pub port: u16,
}

impl Address {
    /// From the text of the setting `replicaof`: `None` if that names no master.
    pub fn parse(text: &str) -> Option<Address> {
        let (host, port) = text.split_once(' ')?;
        Some(Address { host: host.into(), port: port.parse().ok()? })
    }
}

/// How far the link has come.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub enum Stage {
    /// It waits to be established again.
    #[default]
    Down,
    Connecting,
    /// The two servers introduce themselves.
    Handshake,
    /// The master's data is on its way.
    Sync,
    Up,
}

impl Stage {
    /// The name in the reply of `ROLE`.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Down => "connect",
            Stage::Connecting => "connecting",
            Stage::Handshake => "handshake",
            Stage::Sync => "sync",
            Stage::Up => "connected",
        }
    }
}

/// How much of the master's data has arrived.
#[derive(Clone, Copy, Default)]
pub struct Transfer {
    /// 0 if the master does not say.
    pub total_bytes: u64,
    pub read_bytes: u64,
}

/// What is known of the link. Times are `None` before they were.
#[derive(Clone, Default)]
pub struct Link {
    pub stage: Stage,
    /// When something last came from the master.
    pub heard: Option<Instant>,
    /// When the link came up.
    pub up_since: Option<Instant>,
    /// When it went down after it had been up.
    pub down_since: Option<Instant>,
    /// How long it has been down between times when it was up.
    pub down_for: Duration,
    /// Attempts to synchronise since the link was last up, and since the server started.
    pub attempts: (u64, u64),
    pub transfer: Transfer,
}

/// A failover that a client has asked for: a replica of this server is to become its master.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failover {
    /// The replica; `None` for whichever has caught up first.
    pub target: Option<Address>,
    /// When it is given up, or forced.
    pub until: Option<Instant>,
    /// Whether the replica becomes the master at that time even if it has not caught up.
    pub is_forced: bool,
    /// This server has become a replica of the target, which does not know it yet.
    pub has_begun: bool,
}

impl Failover {
    /// Redis's name of what it is doing.
    pub fn name(failover: Option<&Failover>) -> &'static str {
        match failover {
            None => "no-failover",
            Some(failover) if failover.has_begun => "failover-in-progress",
            Some(_) => "waiting-for-sync",
        }
    }
}

/// What the thread has to do that waits for changes.
pub enum Work {
    /// A link to that master, in that term.
    Link(u64, Address),
    /// The failover.
    Failover,
}

/// What the lock guards.
#[derive(Default)]
pub struct State {
    master: Option<Address>,
    term: u64,
    failover: Option<Failover>,
    /// Nobody carries the failover out yet.
    failover_is_new: bool,
    pub link: Link,
    /// The connection, so that the end of the term can close it.
    socket: Option<Arc<Socket>>,
}

/// See the module documentation.
#[derive(Default)]
pub struct Upstream {
    /// Whether there is a master. Shared with the keyspace, whose commands ask without a lock.
    follows: Arc<AtomicBool>,
    /// Whether the link is up.
    is_up: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
}

impl Upstream {
    /// Without a master. The flag is the keyspace's.
    pub fn new(follows: Arc<AtomicBool>) -> Upstream {
        Upstream { follows, ..Upstream::default() }
    }

    /// Whether this server is a replica.
    #[inline(always)]
    pub fn follows(&self) -> bool {
        self.follows.load(Relaxed)
    }

    /// Whether the link is up: the data is that of the master, a moment ago.
    pub fn is_up(&self) -> bool {
        self.is_up.load(SeqCst)
    }

    /// The master.
    pub fn master(&self) -> Option<Address> {
        self.lock().master.clone()
    }

    /// The state of the link.
    pub fn link(&self) -> Link {
        self.lock().link.clone()
    }

    /// Begins a term with that master. Clients cannot write any more, except for what they have begun. `act`
    /// is called with the term locked. Returns false if a failover goes on.
    pub fn begin(&self, master: Address, act: impl FnOnce()) -> bool {
        let mut state = self.lock();
        if state.failover.is_some() {
            return false;
        }
        self.begin_locked(&mut state, master);
        act();
        true
    }

    fn begin_locked(&self, state: &mut State, master: Address) {
        state.end_term();
        state.master = Some(master);
        self.is_up.store(false, SeqCst);
        self.follows.store(true, SeqCst);
        self.changed.notify_all();
    }

    /// Ends the term: this server is a master. `act` is called with the term locked. Returns false if it was
    /// a master already.
    pub fn end(&self, act: impl FnOnce()) -> bool {
        self.end_locked(&mut self.lock(), act)
    }

    fn end_locked(&self, state: &mut State, act: impl FnOnce()) -> bool {
        if state.master.is_none() {
            return false;
        }
        state.end_term();
        act();
        self.is_up.store(false, SeqCst);
        self.follows.store(false, SeqCst);
        self.changed.notify_all();
        true
    }

    /// Waits for a term with a master after the one that is `known`, or for a failover.
    pub fn wait_for_work(&self, known: u64) -> Work {
        let is_idle = |state: &mut State| {
            !state.failover_is_new && (state.term == known || state.master.is_none())
        };
        let waited = self.changed.wait_while(self.lock(), is_idle);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        match &state.master {
            Some(master) if state.term != known => Work::Link(state.term, master.clone()),
            _ => {
                state.failover_is_new = false;
                Work::Failover
            }
        }
    }

    /// The failover that goes on.
    pub fn failover(&self) -> Option<Failover> {
        self.lock().failover.clone()
    }

    /// Starts a failover. `act` is called with the term locked. Returns false if one goes on, or if this
    /// server is a replica.
    pub fn start_failover(&self, failover: Failover, act: impl FnOnce()) -> bool {
        let mut state = self.lock();
        if state.failover.is_some() || state.master.is_some() {
            return false;
        }
        (state.failover, state.failover_is_new) = (Some(failover), true);
        act();
        self.changed.notify_all();
        true
    }

    /// Begins a term with the target of the failover as master, unless the failover was aborted. `act` is
    /// called with the term locked.
    pub fn begin_failover(&self, target: Address, act: impl FnOnce()) {
        let mut state = self.lock();
        let Some(failover) = &mut state.failover else { return };
        failover.has_begun = true;
        self.begin_locked(&mut state, target);
        act();
    }

    /// Ends the failover. `act` is called with the term locked. Returns false if there was none.
    pub fn end_failover(&self, act: impl FnOnce()) -> bool {
        let mut state = self.lock();
        let ended = state.end_failover().is_some();
        if ended {
            act();
        }
        ended
    }

    /// Gives the failover up, if there is one. If it has begun, this server is a master again, and `lead` is
    /// called; then `act`. Returns what the failover was doing.
    pub fn abort_failover(&self, lead: impl FnOnce(), act: impl FnOnce()) -> Option<Failover> {
        let mut state = self.lock();
        let ended = state.end_failover()?;
        if ended.has_begun {
            self.end_locked(&mut state, lead);
        }
        act();
        Some(ended)
    }

    /// Waits for that long, or until the term ends. Returns whether it goes on.
    pub fn pause(&self, term: u64, limit: Duration) -> bool {
        let waited =
            self.changed.wait_timeout_while(self.lock(), limit, |state| state.term == term);
        waited.unwrap_or_else(PoisonError::into_inner).0.term == term
    }

    /// Locks the term. `None` if it has ended.
    pub fn in_term(&self, term: u64) -> Option<MutexGuard<'_, State>> {
        Some(self.lock()).filter(|state| state.term == term)
    }

    /// Whether the term goes on.
    pub fn is_current(&self, term: u64) -> bool {
        self.in_term(term).is_some()
    }

    /// Records how far the link has come. Returns false if the term has ended.
    pub fn enter(&self, term: u64, stage: Stage) -> bool {
        let Some(mut state) = self.in_term(term) else { return false };
        let link = &mut state.link;
        let (was_up, is_up) = (link.stage == Stage::Up, stage == Stage::Up);
        if was_up && !is_up {
            link.down_since = Some(Instant::now());
        }
        if stage == Stage::Connecting {
            link.attempts = (link.attempts.0 + 1, link.attempts.1 + 1);
        }
        if is_up && !was_up {
            link.up_since = Some(Instant::now());
            link.down_for += link.down_since.take().map_or(Duration::ZERO, |since| since.elapsed());
        }
        if stage == Stage::Down && was_up {
            link.attempts.0 = 0;
        }
        link.stage = stage;
        if stage == Stage::Down {
            state.socket = None;
        }
        self.is_up.store(is_up, SeqCst);
        true
    }

    /// Records that something has come from the master.
    pub fn hear(&self, term: u64) {
        if let Some(mut state) = self.in_term(term) {
            state.link.heard = Some(Instant::now());
        }
    }

    /// Records how much of the master's data has arrived.
    pub fn transferred(&self, term: u64, transfer: Transfer) {
        if let Some(mut state) = self.in_term(term) {
            state.link.transfer = transfer;
            state.link.heard = Some(Instant::now());
        }
    }

    /// Leaves the connection where the end of the term closes it. Returns false if it has ended.
    pub fn connected(&self, term: u64, socket: &Arc<Socket>) -> bool {
        let Some(mut state) = self.in_term(term) else { return false };
        state.socket = Some(socket.clone());
        true
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl State {
    fn end_failover(&mut self) -> Option<Failover> {
        self.failover_is_new = false;
        self.failover.take()
    }

    fn end_term(&mut self) {
        self.term += 1;
        self.master = None;
        self.link = Link { attempts: (0, self.link.attempts.1), ..Link::default() };
        if let Some(socket) = self.socket.take() {
            socket.close();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn somewhere() -> Address {
        Address { host: "somewhere".into(), port: 1 }
    }

    #[test]
    fn what_works_for_a_term_finds_out_that_it_has_ended() {
        let upstream = Upstream::default();
        assert!(!upstream.follows() && upstream.master().is_none());
        assert!(upstream.begin(somewhere(), || {}));
        let Work::Link(term, master) = upstream.wait_for_work(0) else { panic!("no link") };
        assert_eq!((term, master), (1, somewhere()));
        assert!(upstream.enter(term, Stage::Up) && upstream.is_up() && upstream.follows());
        assert!(upstream.begin(somewhere(), || {}));
        assert!(!upstream.is_up() && !upstream.is_current(term));
        assert!(!upstream.enter(term, Stage::Up) && !upstream.is_up());
        assert!(!upstream.pause(term, Duration::from_secs(100)));
        let mut ended = false;
        assert!(upstream.end(|| ended = true) && ended);
        assert!(!upstream.end(|| unreachable!()) && !upstream.follows());
    }

    #[test]
    fn what_is_changed_with_the_term_says_what_is_followed() {
        let (upstream, setting) = (Upstream::default(), Mutex::new(None));
        std::thread::scope(|scope| {
            for port in 1..=4 {
                let (upstream, setting) = (&upstream, &setting);
                scope.spawn(move || {
                    for _ in 0..500 {
                        let master = Address { port, ..somewhere() };
                        let set = Some(master.clone());
                        assert!(upstream.begin(master, || *lock(setting) = set));
                    }
                });
            }
        });
        assert_eq!(*lock(&setting), upstream.master());
    }

    #[test]
    fn while_a_failover_goes_on_there_is_no_other_master_and_on_a_replica_there_is_none() {
        let upstream = Upstream::default();
        let failover = Failover { target: None, until: None, is_forced: false, has_begun: false };
        assert!(upstream.start_failover(failover.clone(), || {}));
        assert!(!upstream.start_failover(failover.clone(), || unreachable!()));
        assert!(!upstream.begin(somewhere(), || unreachable!()) && !upstream.follows());
        upstream.begin_failover(somewhere(), || {});
        let (mut leads, mut goes_on) = (false, false);
        let aborted = upstream.abort_failover(|| leads = true, || goes_on = true);
        assert!(aborted.is_some_and(|failover| failover.has_begun) && leads && goes_on);
        assert!(!upstream.follows() && !upstream.end_failover(|| unreachable!()));
        assert!(upstream.begin(somewhere(), || {}));
        assert!(!upstream.start_failover(failover, || unreachable!()));
    }

    #[test]
    fn attempts_are_counted_since_the_link_was_last_up() {
        let upstream = Upstream::default();
        assert!(upstream.begin(somewhere(), || {}));
        for stage in
            [Stage::Connecting, Stage::Down, Stage::Connecting, Stage::Handshake, Stage::Up]
        {
            assert!(upstream.enter(1, stage));
        }
        let link = upstream.link();
        assert_eq!((link.attempts, link.down_since), ((2, 2), None));
        assert!(link.up_since.is_some());
        assert!(upstream.enter(1, Stage::Down) && upstream.enter(1, Stage::Connecting));
        let link = upstream.link();
        assert_eq!((link.attempts, link.down_since.is_some()), ((1, 3), true));
    }
}
