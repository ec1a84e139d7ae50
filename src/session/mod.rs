//! Who is connected: the state of one connection, the registry of all, and what they share.
//!
//! A [`Session`] belongs to its connection's thread. What others may see of it (`CLIENT LIST`) is its
//! [`Client`] in the registry, brought up to date once per batch of commands, not once per command.
//!
//! Locks: the registry, then a client's state; both below everything else but the statistics, and held for a
//! few copies, or, to collect what all connections have counted, for a walk over them.

use std::cell::{Cell, OnceCell};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::aof::{Aof, Block};
use crate::config::Config;
use crate::net::outbox::{Outbox, Promise, VisibleAt};
use crate::net::pause::Pause;
use crate::net::poll::SpinPermit;
use crate::net::socket::Socket;
use crate::resp::{Protocol, Queue, Reply};
use crate::stats::{CallCounts, Stats, Tally};
use crate::store::{Garbage, Keyspace, Watcher};
use crate::watchers::pubsub::{Counts, Hub};
use crate::watchers::tracking::{Mode, State, Tracked, Tracking};

/// What all connections share.
pub struct Server {
    /// The settings.
    pub config: Arc<Config>,
    /// The data.
    pub keyspace: Keyspace,
    /// The log.
    pub aof: Aof,
    /// Who is connected.
    pub clients: Clients,
    /// Who listens to what.
    pub hub: Hub,
    /// Who caches what.
    pub tracking: Tracking,
    /// What commands have to wait for.
    pub pause: Pause,
    /// What happened.
    pub stats: Stats,
    /// Which connection's thread is awake while it waits: one is enough.
    pub spin_permit: SpinPermit,
    /// The log is being replayed: only commands that do not need the data are answered.
    pub loading: AtomicBool,
    /// The TCP port that is really listened on, 0 without one.
    pub port: AtomicU16,
    /// When the process started.
    pub started: Instant,
    /// Tells this run of the server from others: 40 hexadecimal digits.
    pub run_id: String,
    garbage: Sender<Garbage>,
    rewrites: Sender<()>,
}

impl Server {
    /// A server that serves nobody yet. What takes long to free goes to `garbage`; what is sent to
    /// `rewrites` starts a rewrite of the log.
    pub fn new(
        config: Arc<Config>,
        aof: Aof,
        garbage: Sender<Garbage>,
        rewrites: Sender<()>,
    ) -> Server {
        let keyspace = Keyspace::new(config.clone());
        Server {
            tracking: Tracking::new(config.clone(), keyspace.cached().clone()),
            keyspace,
            hub: Hub::new(config.clone()),
            config,
            aof,
            clients: Clients::default(),
            pause: Pause::default(),
            stats: Stats::default(),
            spin_permit: SpinPermit::default(),
            loading: AtomicBool::new(false),
            port: AtomicU16::new(0),
            started: Instant::now(),
            run_id: run_id(),
            garbage,
            rewrites,
        }
    }

    /// Has the garbage freed by the thread for that.
    pub fn discard(&self, garbage: Garbage) {
        if !garbage.is_empty() {
            // Without the thread (there is always one but in tests) it is freed right here.
            self.garbage.send(garbage).unwrap_or_default();
        }
    }

    /// Starts a rewrite of the log in the background; says no if one is going on.
    pub fn start_rewrite(&self) -> bool {
        self.aof.claim_rewrite() && self.rewrites.send(()).is_ok()
    }

    /// The statistics, with what all connections have counted up to now.
    pub fn collected_stats(&self) -> &Stats {
        self.clients.lock().values().for_each(|client| client.collect(&self.stats));
        &self.stats
    }

    /// Takes a connection out of the registries: nobody sends it anything any more.
    pub fn leave(&self, id: u64) {
        self.hub.leave(id);
        self.tracking.leave(id);
        let mut connected = self.clients.lock();
        // Still under the lock: what it has counted is with it, or with all.
        if let Some(client) = connected.remove(&id) {
            client.collect(&self.stats);
        }
    }

    /// A connection's line in `CLIENT LIST`.
    pub fn describe(&self, client: &Client) -> Vec<u8> {
        client.describe(self.hub.counts(client.id), self.tracking.state(client.id))
    }

    /// Ends a connection, from any thread.
    pub fn kill(&self, client: &Client) {
        client.outbox.close();
        self.leave(client.id);
        if self.pause.is_likely() {
            self.pause.wake();
        }
    }

    /// Whether the log is still being replayed.
    pub fn is_loading(&self) -> bool {
        self.loading.load(Relaxed)
    }

    /// Whether a connection has to give a password before anything else.
    pub fn wants_password(&self) -> bool {
        !self.config.requirepass.is_empty()
    }
}

/// 160 random bits, from the randomness that the standard library takes for its hash maps.
fn run_id() -> String {
    use std::hash::{BuildHasher, RandomState};
    let random = || RandomState::new().hash_one(0u8);
    format!("{:016x}{:016x}{:08x}", random(), random(), random() as u32)
}

/// The state of one connection.
pub struct Session {
    /// What others see of it.
    pub client: Arc<Client>,
    /// The database that it has selected.
    pub db: usize,
    /// Whether it has given the password, or there was none when it connected.
    pub authenticated: bool,
    /// It is to be closed once its replies are sent.
    pub closing: bool,
    /// The highest log position of anything that its unsent replies show.
    pub read_lsn: u64,
    /// The log position behind its own last change.
    pub write_lsn: u64,
    /// The command it was last given, as `CLIENT LIST` shows it.
    pub last_command: &'static str,
    /// How many subscriptions it has. The hub knows which.
    pub subscriptions: usize,
    /// How it tracks the keys that it reads, if it does.
    pub tracking: Option<Mode>,
    /// It has said `CLIENT CACHING`, for the next command or transaction.
    pub caching: bool,
    /// Connections to which it has redirected, and which therefore need a thread that writes.
    pub redirected: Vec<Arc<Outbox>>,
    /// What becomes of its replies.
    pub replies: Replies,
    /// Messages that are held came before the reply to the command that is being carried out.
    pub drain_before_reply: bool,
    /// What else others see of it.
    pub client_flags: ClientFlags,
    /// How its commands are timed.
    pub tally: Tally,
    /// Bytes that it sent since others were told.
    pub received: u64,
    /// Its commands that were carried out since then.
    pub commands: u64,
    /// Where its records are encoded for the log; kept so that it need not be reserved each time.
    pub scratch: Cell<Vec<u8>>,
    /// The transaction that MULTI has begun.
    pub multi: Option<Box<Multi>>,
    /// The keys that it watches, with their databases.
    pub watched: Vec<(usize, Vec<u8>)>,
    /// While EXEC carries out a transaction, what that has for the log.
    pub block: Option<Block>,
    /// And the position behind that, if others are going to see something of the transaction.
    promise: OnceCell<Promise>,
    /// And which keys have changed, for those who want to hear of all keys.
    pub changed: Vec<Box<[u8]>>,
}

/// A transaction, from MULTI to the end of EXEC.
#[derive(Default)]
pub struct Multi {
    /// The commands that wait for EXEC.
    pub queue: Queue,
    /// How many there were, while EXEC carries them out too.
    pub queued: usize,
    /// A command could not be queued: EXEC will refuse to carry out the others.
    pub aborted: bool,
}

impl Session {
    /// A new connection.
    pub fn new(client: Arc<Client>, authenticated: bool) -> Session {
        Session {
            client,
            db: 0,
            authenticated,
            closing: false,
            read_lsn: 0,
            write_lsn: 0,
            last_command: "NULL",
            subscriptions: 0,
            tracking: None,
            caching: false,
            redirected: Vec::new(),
            replies: Replies::On,
            drain_before_reply: false,
            client_flags: ClientFlags::default(),
            tally: Tally::default(),
            received: 0,
            commands: 0,
            scratch: Cell::default(),
            multi: None,
            watched: Vec::new(),
            block: None,
            promise: OnceCell::new(),
            changed: Vec::new(),
        }
    }

    /// Watches no key any more.
    pub fn unwatch(&mut self, keyspace: &Keyspace) {
        let watcher = &self.client.watcher;
        for (db, key) in std::mem::take(&mut self.watched) {
            keyspace.unwatch(db, &key, watcher);
        }
        watcher.reset();
    }

    /// How far the log must be flushed before others may see what shows the log up to `seen`: within a
    /// transaction, which shows its own changes, up to where that ends.
    pub fn visible_at(&self, lsn: u64) -> VisibleAt {
        match self.block {
            None => VisibleAt::Lsn(lsn),
            Some(_) => VisibleAt::Promised(self.promise.get_or_init(Promise::default).clone()),
        }
    }

    /// The transaction, if there was one, stands in the log before what the session has seen: others may
    /// see what it has shown them.
    pub fn keep_promise(&mut self) {
        if let Some(promise) = self.promise.take() {
            promise.get_or_init(|| self.read_lsn);
        }
    }

    /// Whether others send it anything, so that what goes to it needs a thread of its own.
    pub fn listens(&self) -> bool {
        self.subscriptions > 0 || self.client_flags.monitor || self.tracking.is_some()
    }

    /// Tracks no more.
    pub fn stop_tracking(&mut self, tracking: &Tracking) {
        tracking.leave(self.client.id);
        self.tracking = None;
        self.caching = false;
    }

    /// After a command: takes back the reply if the client wants none, and puts behind it what others
    /// sent meanwhile. The reply began where there were `start` bytes.
    pub fn finish(&mut self, reply: &mut Reply, start: usize, confirms: bool) {
        if self.replies != Replies::On {
            if matches!(self.replies, Replies::Off | Replies::Skipped) && !confirms {
                reply.truncate(start);
            }
            self.replies = match self.replies {
                Replies::SkipNext => Replies::Skipped,
                Replies::Skipped => Replies::On,
                replies => replies,
            };
        }
        if self.listens() || self.drain_before_reply {
            let at = if std::mem::take(&mut self.drain_before_reply) { start } else { reply.len() };
            let held = self.client.outbox.take_held(reply, at, self.listens());
            self.read_lsn = self.read_lsn.max(held);
        }
    }

    /// Counts what was timed last, if that has not been done.
    #[inline]
    pub fn count(&mut self, server: &Server) {
        if self.tally.is_uncounted() {
            let tracked = server.config.latency_tracking.load(Relaxed);
            self.tally.count(&server.stats, &mut self.client.state().counts, tracked);
        }
    }

    /// Brings what others see up to date; it is active now.
    pub fn publish(&mut self, server: &Server, now: Instant) {
        let mut state = self.client.state();
        let tracked = server.config.latency_tracking.load(Relaxed);
        self.tally.count(&server.stats, &mut state.counts, tracked);
        state.received += std::mem::take(&mut self.received);
        state.commands += std::mem::take(&mut self.commands);
        state.db = self.db;
        state.last_command = self.last_command;
        state.last_active = now;
        state.queued = self.multi.as_ref().map(|multi| multi.queued);
        state.watched = self.watched.len();
        state.client_flags = self.client_flags;
    }
}

/// What becomes of the replies of a connection (`CLIENT REPLY`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Replies {
    /// They are sent.
    On,
    /// They are not.
    Off,
    /// That to the next command is not.
    SkipNext,
    /// That to this command is not.
    Skipped,
}

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
    db: usize,
    last_active: Instant,
    last_command: &'static str,
    /// How many commands wait for EXEC; none outside of a transaction.
    queued: Option<usize>,
    /// How many keys it watches.
    watched: usize,
    client_flags: ClientFlags,
    /// Bytes that it sent.
    received: u64,
    /// Commands of it that were carried out.
    commands: u64,
    /// What they cost.
    pub counts: CallCounts,
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
            received: 0,
            commands: 0,
            counts: CallCounts::default(),
        };
        Client {
            id,
            watcher: Arc::default(),
            outbox: Arc::new(Outbox::new(socket)),
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

    /// Adds what its connection has counted to the statistics.
    pub fn collect(&self, stats: &Stats) {
        let mut state = self.state();
        let received = state.received;
        state.counts.collect(stats, received, self.outbox.sent.get());
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
    fn describe(&self, subscriptions: Counts, tracking: Option<State>) -> Vec<u8> {
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
            state.received,
            self.outbox.sent.get(),
            state.commands
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
    pub fn enter(&self, socket: Arc<Socket>) -> Arc<Client> {
        let id = self.last_id.fetch_add(1, SeqCst) + 1;
        let client = Arc::new(Client::new(id, Some(socket)));
        self.lock().insert(id, client.clone());
        client
    }

    /// Somebody who is not connected: the replay of the log.
    pub fn detached(&self) -> Arc<Client> {
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

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Client>>> {
        self.connected.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's place in the registries, as long as it lasts.
pub struct ClientEntry<'a> {
    server: &'a Server,
    id: u64,
}

impl<'a> ClientEntry<'a> {
    /// That of the client, which has been entered already.
    pub fn new(server: &'a Server, id: u64) -> ClientEntry<'a> {
        ClientEntry { server, id }
    }
}

impl Drop for ClientEntry<'_> {
    fn drop(&mut self) {
        self.server.leave(self.id);
    }
}
