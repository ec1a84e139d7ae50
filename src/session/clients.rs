//! Who is connected: what others may see of each connection, and the registry of all.
//!
//! A [`Client`] is brought up to date by its connection's thread once per batch of commands, not once per
//! command.
//!
//! Locks: the registry, then a client's state; both below everything else but the statistics, and held for
//! a few copies.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::net::outbox::Outbox;
use crate::net::socket::Socket;
use crate::resp::Protocol;
use crate::stats::Meter;
use crate::store::Watcher;
use crate::watchers::pubsub::Counts;
use crate::watchers::tracking::{State, Tracked};

/// What `CLIENT LIST` shows by single letters.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct ClientFlags {
    /// It is shown all commands.
    pub monitor: bool,
    /// Its command waits for the end of a pause.
    pub blocked: bool,
    /// `CLIENT NO-EVICT`.
    pub no_evict: bool,
    /// `CLIENT NO-TOUCH`: what it reads does not count as used.
    pub no_touch: bool,
}

/// What others see of a connection.
pub struct Client {
    /// Its number, never given twice.
    pub id: u64,
    /// Tells it when a key that it watches changes.
    pub watcher: Arc<Watcher>,
    /// The way to it.
    pub outbox: Arc<Outbox>,
    /// What it counts for the statistics.
    pub meter: Arc<Meter>,
    connected: Instant,
    state: Mutex<ClientState>,
}

/// The part of [`Client`] that changes.
pub struct ClientState {
    /// `CLIENT SETNAME`.
    pub name: Vec<u8>,
    /// `CLIENT SETINFO LIB-NAME`.
    pub lib_name: Vec<u8>,
    /// `CLIENT SETINFO LIB-VER`.
    pub lib_ver: Vec<u8>,
    pub(super) db: usize,
    pub(super) last_active: Instant,
    pub(super) last_command: &'static str,
    /// How many commands wait for EXEC; none outside of a transaction.
    pub(super) queued: Option<usize>,
    /// How many keys it watches.
    pub(super) watched: usize,
    pub(super) client_flags: ClientFlags,
}

impl Client {
    fn new(id: u64, socket: Option<Arc<Socket>>) -> Client {
        let now = Instant::now();
        let state = ClientState {
            name: Vec::new(),
            lib_name: Vec::new(),
            lib_ver: Vec::new(),
            db: 0,
            last_active: now,
            last_command: "NULL",
            queued: None,
            watched: 0,
            client_flags: ClientFlags::default(),
        };
        let outbox = Arc::new(Outbox::new(socket));
        Client {
            id,
            watcher: Arc::default(),
            meter: Arc::new(Meter::new(outbox.sent.clone())),
            outbox,
            connected: now,
            state: Mutex::new(state),
        }
    }

    /// The addresses of its end and of ours.
    pub fn addresses(&self) -> (String, String) {
        self.outbox.socket().map(Socket::addresses).unwrap_or_default()
    }

    /// Whether it has come from this machine.
    pub fn is_local(&self) -> bool {
        self.outbox.socket().is_some_and(Socket::is_local)
    }

    /// Whether it came through the Unix socket.
    pub fn is_unix(&self) -> bool {
        matches!(self.outbox.socket(), Some(Socket::Unix(_)))
    }

    /// Seconds since it connected.
    pub fn age_seconds(&self) -> u64 {
        self.connected.elapsed().as_secs()
    }

    /// Whether it has sent nothing for so long, though it could.
    pub fn is_idle(&self, seconds: u64) -> bool {
        let state = self.state();
        let is_busy = state.client_flags.monitor || state.client_flags.blocked;
        !is_busy && state.last_active.elapsed().as_secs() >= seconds
    }

    /// The part that changes.
    pub fn state(&self) -> MutexGuard<'_, ClientState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether its command waits for the end of a pause.
    pub fn is_blocked(&self) -> bool {
        self.state().client_flags.blocked
    }

    /// Its line in `CLIENT LIST`, without an end: the fields of Redis's that mean something here.
    pub(super) fn describe(&self, subscriptions: Counts, tracking: Option<State>) -> Vec<u8> {
        let (pieces, waiting_bytes) = self.outbox.backlog();
        let (addr, laddr) = self.addresses();
        let fd = self.outbox.socket().map_or(-1, Socket::fd);
        let state = self.state();
        // As Redis, who has seen a change is said to watch nothing any more.
        let changed = state.watched > 0 && self.watcher.has_changed();
        let mut line =
            format!("id={} addr={addr} laddr={laddr} fd={fd} name=", self.id).into_bytes();
        line.extend_from_slice(&state.name);
        let rest = format!(
            " age={} idle={} flags={} db={} sub={} psub={} ssub={} multi={} watch={} oll={pieces} \
             omem={waiting_bytes} events={} cmd={} user=default redir={} resp={} lib-name=",
            self.age_seconds(),
            state.last_active.elapsed().as_secs(),
            self.flags(&state, changed, subscriptions, tracking.as_ref()),
            state.db,
            subscriptions.channels,
            subscriptions.patterns,
            subscriptions.shards,
            state.queued.map_or(-1, |queued| queued as i64),
            if changed { 0 } else { state.watched },
            if waiting_bytes > 0 { "rw" } else { "r" },
            state.last_command,
            tracking.map_or(-1, |tracking| tracking.mode.redirect as i64),
            if self.outbox.protocol() == Protocol::Resp2 { 2 } else { 3 },
        );
        line.extend_from_slice(rest.as_bytes());
        line.extend_from_slice(&state.lib_name);
        line.extend_from_slice(b" lib-ver=");
        line.extend_from_slice(&state.lib_ver);
        let totals = format!(
            " tot-net-in={} tot-net-out={} tot-cmds={}",
            self.meter.received.get(),
            self.meter.sent.get(),
            self.meter.commands.get()
        );
        line.extend_from_slice(totals.as_bytes());
        line
    }

    /// Redis's letters, in its order.
    fn flags(
        &self,
        state: &ClientState,
        changed: bool,
        subscriptions: Counts,
        tracking: Option<&State>,
    ) -> String {
        let marks = state.client_flags;
        let letters = [
            ('O', marks.monitor),
            ('P', subscriptions.total() > 0),
            ('x', state.queued.is_some()),
            ('b', marks.blocked),
            ('t', tracking.is_some()),
            ('R', tracking.is_some_and(|tracking| tracking.broken)),
            ('B', tracking.is_some_and(|tracking| tracking.mode.what == Tracked::Prefixes)),
            ('d', changed),
            ('U', self.is_unix()),
            ('e', marks.no_evict),
            ('T', marks.no_touch),
        ];
        let set: String = letters.iter().filter(|(_, is)| *is).map(|(letter, _)| letter).collect();
        if set.is_empty() { "N".into() } else { set }
    }
}

/// The registry of connections, by id.
#[derive(Default)]
pub struct Clients {
    connected: Mutex<BTreeMap<u64, Arc<Client>>>,
    last_id: AtomicU64,
}

impl Clients {
    /// Enters a connection.
    pub fn register(&self, socket: Arc<Socket>) -> Arc<Client> {
        let id = self.last_id.fetch_add(1, SeqCst) + 1;
        let client = Arc::new(Client::new(id, Some(socket)));
        self.lock().insert(id, client.clone());
        client
    }

    /// Somebody who is not connected: the replay of the log.
    pub fn detached() -> Arc<Client> {
        Arc::new(Client::new(0, None))
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    /// The one of that number.
    pub fn get(&self, id: u64) -> Option<Arc<Client>> {
        self.lock().get(&id).cloned()
    }

    /// All of them, the oldest first.
    pub fn all(&self) -> Vec<Arc<Client>> {
        self.lock().values().cloned().collect()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Client>>> {
        self.connected.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
