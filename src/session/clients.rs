//! The registry of connections, and what other threads may see of each.
//!
//! A connection's thread updates its [`Client`] once per batch of commands, not once per command.
//!
//! Locks: the registry, then a client's state. Both are held for a few copies only, and below them come
//! only the watchers' and the statistics' locks.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::net::outbox::Outbox;
use crate::net::socket::Socket;
use crate::resp::Protocol;
use crate::stats::Meter;
use crate::store::Watcher;
use crate::watchers::pubsub::SubscriptionCounts;
use crate::watchers::tracking::{Tracked, TrackingState};

/// States of a client that `CLIENT LIST` shows as single letters.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct ClientFlags {
    /// Its command waits for the end of a pause.
    pub blocked: bool,
    /// `CLIENT NO-EVICT`.
    pub no_evict: bool,
    /// `CLIENT NO-TOUCH`: its reads do not count as uses of the keys.
    pub no_touch: bool,
}

/// What other threads see of a connection.
pub struct Client {
    /// Its id, never used again.
    pub id: u64,
    /// The flag that is raised when a key that it watches changes.
    pub watcher: Arc<Watcher>,
    /// The queue of what is sent to it.
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
    /// How many commands are queued for EXEC; `None` outside a transaction.
    pub(super) queued: Option<usize>,
    /// The number of keys that it watches.
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

    /// The addresses of its end of the connection and of ours.
    pub fn addresses(&self) -> (String, String) {
        self.outbox.socket().map(Socket::addresses).unwrap_or_default()
    }

    /// Whether it connected from this machine.
    pub fn is_local(&self) -> bool {
        self.outbox.socket().is_some_and(Socket::is_local)
    }

    /// Whether it connected through the Unix socket.
    pub fn is_unix(&self) -> bool {
        matches!(self.outbox.socket(), Some(Socket::Unix(_)))
    }

    /// Seconds since it connected.
    pub fn age_seconds(&self) -> u64 {
        self.connected.elapsed().as_secs()
    }

    /// Whether it has sent nothing for that long. A subscriber, a monitor and a client that a pause holds
    /// back are not idle.
    pub fn is_idle(&self, seconds: u64) -> bool {
        let state = self.state();
        let listening = &self.outbox.listening;
        let is_busy = listening.subscribes() || listening.monitors() || state.client_flags.blocked;
        !is_busy && state.last_active.elapsed().as_secs() >= seconds
    }

    /// Locks the part that changes.
    pub fn state(&self) -> MutexGuard<'_, ClientState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether its command waits for the end of a pause.
    pub fn is_blocked(&self) -> bool {
        self.state().client_flags.blocked
    }

    /// Its line in `CLIENT LIST`, without the line end: those of Redis's fields that mean something here.
    pub(super) fn describe(
        &self,
        subscriptions: SubscriptionCounts,
        tracking: Option<TrackingState>,
    ) -> Vec<u8> {
        let (pieces, waiting_bytes) = self.outbox.backlog();
        let (addr, laddr) = self.addresses();
        let fd = self.outbox.socket().map_or(-1, Socket::fd);
        let state = self.state();
        // As in Redis, a client whose watched key has changed is shown as watching nothing.
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

    /// Redis's letters, in Redis's order.
    fn flags(
        &self,
        state: &ClientState,
        changed: bool,
        subscriptions: SubscriptionCounts,
        tracking: Option<&TrackingState>,
    ) -> String {
        let flags = state.client_flags;
        let letters = [
            ('O', self.outbox.listening.monitors()),
            ('P', subscriptions.total() > 0),
            ('x', state.queued.is_some()),
            ('b', flags.blocked),
            ('t', tracking.is_some()),
            ('R', tracking.is_some_and(|tracking| tracking.broken)),
            ('B', tracking.is_some_and(|tracking| tracking.mode.what == Tracked::Prefixes)),
            ('d', changed),
            ('U', self.is_unix()),
            ('e', flags.no_evict),
            ('T', flags.no_touch),
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
    /// Registers a connection.
    pub fn register(&self, socket: Arc<Socket>) -> Arc<Client> {
        let id = self.last_id.fetch_add(1, SeqCst) + 1;
        let client = Arc::new(Client::new(id, Some(socket)));
        self.lock().insert(id, client.clone());
        client
    }

    /// A client without a connection: for the replay of the log.
    pub fn detached() -> Arc<Client> {
        Arc::new(Client::new(0, None))
    }

    pub fn count(&self) -> usize {
        self.lock().len()
    }

    /// The connection with that id.
    pub fn get(&self, id: u64) -> Option<Arc<Client>> {
        self.lock().get(&id).cloned()
    }

    /// All connections, the oldest first.
    pub fn all(&self) -> Vec<Arc<Client>> {
        self.lock().values().cloned().collect()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Client>>> {
        self.connected.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
