//! The registry of connections, and what other threads may see of each.
//!
//! A connection's thread updates its [`Client`] once per batch of commands, not once per command.
//!
//! Locks: the registry, then a client's state. Both are held for a few copies only, and below them come
//! only the watchers' and the statistics' locks.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::users::DEFAULT;
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
    /// Its command waits: for the end of a pause, or for replicas.
    pub blocked: bool,
    /// `CLIENT NO-EVICT`.
    pub no_evict: bool,
    /// It is a replica.
    pub replica: bool,
    /// `CLIENT NO-TOUCH`: its reads do not count as uses of the keys.
    pub no_touch: bool,
    /// `CLIENT CAPA REDIRECT`: it understands redirections to another server. There are none here.
    pub redirect: bool,
    /// It is the master that this server copies.
    pub master: bool,
    /// `CLIENT IMPORT-SOURCE`: it copies data here, so keys do not expire for it while `import-mode` is on.
    pub import_source: bool,
}

/// The memory that a connection's buffers take, in bytes.
#[derive(Clone, Copy, Default)]
pub struct BufferSizes {
    /// What has arrived and no command has used yet.
    pub unread: usize,
    /// The room for that.
    pub input: usize,
    /// The arguments of the current command, of which perhaps only the first have arrived.
    pub args: usize,
    /// The room for arguments.
    pub args_room: usize,
    /// The room for replies.
    pub reply: usize,
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
    /// Its wait for replicas, which other clients may end.
    pub unblocking: Unblocking,
    connected: Instant,
    state: Mutex<ClientState>,
}

/// Whether a client waits for replicas, and how another one has ended that (`CLIENT UNBLOCK`).
#[derive(Default)]
pub struct Unblocking(AtomicU8);

/// How a wait ends before its time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unblocked {
    /// As if its time was up.
    Timeout,
    /// With an error.
    Error,
}

impl Unblocking {
    const WAITS: u8 = 1;
    const TIMEOUT: u8 = 2;
    const ERROR: u8 = 3;

    /// The client waits from now on.
    pub fn begin(&self) {
        self.0.store(Unblocking::WAITS, SeqCst);
    }

    /// The client waits no longer.
    pub fn end(&self) -> Option<Unblocked> {
        match self.0.swap(0, SeqCst) {
            Unblocking::TIMEOUT => Some(Unblocked::Timeout),
            Unblocking::ERROR => Some(Unblocked::Error),
            _ => None,
        }
    }

    /// Whether the client was unblocked.
    pub fn is_ended(&self) -> bool {
        self.0.load(SeqCst) > Unblocking::WAITS
    }

    /// Ends the wait, if the client waits.
    pub fn unblock(&self, how: Unblocked) -> bool {
        let how = match how {
            Unblocked::Timeout => Unblocking::TIMEOUT,
            Unblocked::Error => Unblocking::ERROR,
        };
        self.0.compare_exchange(Unblocking::WAITS, how, SeqCst, SeqCst).is_ok()
    }
}

/// The part of [`Client`] that changes.
pub struct ClientState {
    /// `CLIENT SETNAME`.
    pub name: Vec<u8>,
    /// The name of the user that it has logged in as. [`Users::log_in`](super::users::Users::log_in) sets it.
    pub user: Arc<[u8]>,
    /// `CLIENT SETINFO LIB-NAME`.
    pub lib_name: Vec<u8>,
    /// `CLIENT SETINFO LIB-VER`.
    pub lib_ver: Vec<u8>,
    pub(super) db: usize,
    pub(super) last_active: Instant,
    pub(super) last_command: &'static str,
    /// How many commands are queued for EXEC; `None` outside a transaction.
    pub(super) queued: Option<usize>,
    /// The memory that these take.
    pub(super) queued_bytes: usize,
    /// The number of keys that it watches.
    pub(super) watched: usize,
    /// The memory that the list of these takes.
    pub(super) watched_bytes: usize,
    pub(super) buffers: BufferSizes,
    pub(super) client_flags: ClientFlags,
}

impl ClientState {
    /// The memory of the client, in bytes, without what waits to be sent and without its subscriptions.
    fn memory_bytes(&self) -> usize {
        let BufferSizes { input, args_room, reply, .. } = self.buffers;
        let names = self.name.len() + self.lib_name.len() + self.lib_ver.len();
        let listed = self.queued_bytes + self.watched_bytes;
        size_of::<Client>() + input + args_room + reply + names + listed
    }
}

impl Client {
    fn new(id: u64, socket: Option<Arc<Socket>>) -> Client {
        let now = Instant::now();
        let state = ClientState {
            name: Vec::new(),
            user: DEFAULT.into(),
            lib_name: Vec::new(),
            lib_ver: Vec::new(),
            db: 0,
            last_active: now,
            last_command: "NULL",
            queued: None,
            queued_bytes: 0,
            watched: 0,
            watched_bytes: 0,
            buffers: BufferSizes::default(),
            client_flags: ClientFlags::default(),
        };
        let outbox = Arc::new(Outbox::new(socket));
        Client {
            id,
            watcher: Arc::default(),
            meter: Arc::new(Meter::new(outbox.sent.clone())),
            outbox,
            unblocking: Unblocking::default(),
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

    /// Whether it has sent nothing for that long. A subscriber, a monitor, a replica and a client whose
    /// command waits are not idle.
    pub fn is_idle(&self, seconds: u64) -> bool {
        let state = self.state();
        let listening = &self.outbox.listening;
        let flags = state.client_flags;
        let is_connection = flags.master || flags.replica;
        let is_busy =
            listening.subscribes() || listening.monitors() || flags.blocked || is_connection;
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

    /// Whether `maxmemory-clients` spares it: `CLIENT NO-EVICT`, or a replica.
    pub fn is_spared(&self) -> bool {
        let flags = self.state().client_flags;
        flags.no_evict || flags.master || flags.replica
    }

    /// Whether it watches keys.
    pub fn watches(&self) -> bool {
        self.state().watched > 0
    }

    /// The memory that it takes, in bytes, without its thread. Its share of tables that clients have in
    /// common (subscriptions, tracked prefixes) is an estimate.
    pub fn memory_bytes(&self) -> usize {
        self.own_bytes() + self.outbox.listening.memory_bytes.load(Relaxed)
    }

    /// The same without such a share.
    pub fn own_bytes(&self) -> usize {
        let (_, waiting_bytes) = self.outbox.backlog();
        self.state().memory_bytes() + waiting_bytes
    }

    /// The names and values of its fields in `CLIENT LIST`: those of Redis and Valkey that mean something
    /// here.
    pub(super) fn fields(
        &self,
        subscriptions: SubscriptionCounts,
        tracking: Option<TrackingState>,
    ) -> Vec<(&'static str, Vec<u8>)> {
        let (pieces, waiting_bytes) = self.outbox.backlog();
        let total_bytes = self.memory_bytes();
        let (addr, laddr) = self.addresses();
        let state = self.state();
        // As in Redis, a client whose watched key has changed is shown as watching nothing.
        let changed = state.watched > 0 && self.watcher.has_changed();
        let buffers = state.buffers;
        let number = |value: i64| value.to_string().into_bytes();
        let count = |value: usize| value.to_string().into_bytes();
        let total = |value: u64| value.to_string().into_bytes();
        vec![
            ("id", total(self.id)),
            ("addr", addr.into()),
            ("laddr", laddr.into()),
            ("fd", number(self.outbox.socket().map_or(-1, Socket::fd).into())),
            ("name", state.name.clone()),
            ("age", total(self.age_seconds())),
            ("idle", total(state.last_active.elapsed().as_secs())),
            ("flags", self.flags(&state, changed, subscriptions, tracking.as_ref()).into()),
            ("capa", if state.client_flags.redirect { b"r".to_vec() } else { Vec::new() }),
            ("db", count(state.db)),
            ("sub", count(subscriptions.channels)),
            ("psub", count(subscriptions.patterns)),
            ("ssub", count(subscriptions.shards)),
            ("multi", number(state.queued.map_or(-1, |queued| queued as i64))),
            ("watch", count(if changed { 0 } else { state.watched })),
            ("qbuf", count(buffers.unread)),
            ("qbuf-free", count(buffers.input.saturating_sub(buffers.unread))),
            ("argv-mem", count(buffers.args)),
            ("multi-mem", count(state.queued_bytes)),
            ("rbs", count(buffers.reply)),
            ("obl", count(0)), // what is not sent when the connection waits is in the queue
            ("oll", count(pieces)),
            ("omem", count(waiting_bytes)),
            ("tot-mem", count(total_bytes)),
            ("events", if waiting_bytes > 0 { "rw".into() } else { "r".into() }),
            ("cmd", state.last_command.into()),
            (
                "user",
                if state.client_flags.master { b"(superuser)".into() } else { state.user.to_vec() },
            ),
            ("redir", number(tracking.map_or(-1, |tracking| tracking.mode.redirect as i64))),
            ("resp", number(if self.outbox.protocol() == Protocol::Resp2 { 2 } else { 3 })),
            ("lib-name", state.lib_name.clone()),
            ("lib-ver", state.lib_ver.clone()),
            ("tot-net-in", total(self.meter.received.get())),
            ("tot-net-out", total(self.meter.sent.get())),
            ("tot-cmds", total(self.meter.calls())),
        ]
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
            ('M', flags.master),
            ('O', self.outbox.listening.monitors()),
            ('S', flags.replica),
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
            ('I', flags.import_source),
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
