//! The state of one connection, which belongs to its thread.
//!
//! [`server`] holds what all connections share; [`clients`] the registry of connections and what other
//! threads may see of each; [`users`] who may do what, and [`login`] which user a connection is.

mod clients;
mod login;
mod server;
pub mod users;
mod waiting;

use std::cell::{Cell, OnceCell};
use std::sync::Arc;
use std::time::Instant;

use crate::aof::Block;
use crate::net::outbox::{Outbox, Promise, VisibleAt};
use crate::replication::feed::Start;
use crate::replication::replicas::{Profile, Replica};
use crate::resp::{Queue, Reply};
use crate::stats::CommandTimer;
use crate::store::Keyspace;

pub use clients::{BufferSizes, Client, ClientFlags, Clients, Unblocked};
pub use login::{Access, Login};
pub use server::{Server, Snapshot};
pub use waiting::{Waiting, Wanted};

/// The state of one connection.
pub struct Session {
    /// What other threads see of it.
    pub client: Arc<Client>,
    /// The database that it has selected.
    pub db: usize,
    /// The user that it has logged in as.
    pub login: Login,
    /// The connection is closed once its replies are sent.
    pub closing: bool,
    /// The highest LSN of the changes that its unsent replies may show.
    pub read_lsn: u64,
    /// The same of the replies that were sent.
    pub seen_lsn: u64,
    /// The LSN of its own last change.
    pub write_lsn: u64,
    /// Its last command, as `CLIENT LIST` shows it.
    pub last_command: &'static str,
    /// How replies and messages reach it.
    pub delivery: Delivery,
    /// `CLIENT CACHING` applies to its next command or transaction.
    pub caching: bool,
    /// The memory of its buffers, as of the last read or the last reply.
    pub buffers: BufferSizes,
    /// States that `CLIENT LIST` shows.
    pub client_flags: ClientFlags,
    /// Measures how long its commands take.
    pub timer: CommandTimer,
    /// A buffer for encoding records, kept to avoid an allocation per command.
    pub scratch: Cell<Vec<u8>>,
    /// The transaction that `MULTI` has begun.
    pub multi: Option<Box<Multi>>,
    /// The keys that it watches, with their databases.
    pub watched: Vec<(usize, Vec<u8>)>,
    /// The memory that these take, in bytes.
    pub watched_bytes: usize,
    /// Where its commands come from.
    pub origin: Origin,
    /// What it has said of itself as a replica.
    pub profile: Box<Profile>,
    /// It is a replica.
    pub replica: Option<Arc<Replica>>,
    /// What its thread has to do before the next command.
    pub then: Option<Then>,
}

/// What a command leaves to its connection's thread, because it takes long.
pub enum Then {
    /// To let time pass, because it has failed to log in so many times.
    Delay(u32),
    /// To wait for replicas, and then to reply.
    Wait(Waiting),
    /// To start feeding the replica that the client has become.
    Feed(Start),
}

/// How replies and messages reach a client.
#[derive(Default)]
pub struct Delivery {
    /// Whether replies are sent (`CLIENT REPLY`).
    pub replies: Replies,
    /// Where the held messages go although the client may listen no longer.
    pub held: Option<Held>,
    /// Outboxes of clients that it has redirected invalidations to; they need a writer thread.
    pub redirected: Vec<Arc<Outbox>>,
}

/// Where commands come from, and so where their records go.
#[derive(Default)]
pub enum Origin {
    /// A client. Records go into the log.
    #[default]
    Client,
    /// A client's `EXEC`. Records go into the block of the transaction.
    Transaction(Exec),
    /// The master that this server copies. Its bytes are logged as they come, and nothing expires by itself.
    Master(Exec),
    /// The log itself. Records go nowhere, nothing expires by itself, and no watcher is notified.
    Replay,
}

/// What `EXEC` collects while it runs a transaction.
pub struct Exec {
    /// The records for the log.
    pub block: Block,
    /// The keys that were modified, for clients that track by prefix (`BCAST`).
    pub modified: Vec<Box<[u8]>>,
    /// Those of them that this client itself had read while it tracked.
    pub own: Vec<Box<[u8]>>,
    /// The LSN up to which the log must be flushed before others may see the messages of the transaction: at
    /// first the LSN of what it has read, at the end the LSN of its block.
    pub lsn: u64,
    /// Set to that LSN at the end, if the transaction has sent messages.
    promise: OnceCell<Promise>,
}

impl Exec {
    /// Starts a transaction that has read up to that LSN.
    pub fn new(lsn: u64) -> Exec {
        Exec {
            block: Block::default(),
            modified: Vec::new(),
            own: Vec::new(),
            lsn,
            promise: OnceCell::new(),
        }
    }
}

impl Drop for Exec {
    /// However the transaction ends, its messages stop waiting for it.
    fn drop(&mut self) {
        if let Some(promise) = self.promise.take() {
            promise.get_or_init(|| self.lsn);
        }
    }
}

/// A transaction, from MULTI to the end of EXEC.
#[derive(Default)]
pub struct Multi {
    /// The queued commands.
    pub queue: Queue,
    /// How many commands were queued. Keeps its value while `EXEC` runs them.
    pub queued: usize,
    /// A command could not be queued, so `EXEC` will refuse to run the others.
    pub aborted: bool,
}

impl Session {
    /// The state of a new connection.
    pub fn new(client: Arc<Client>, login: Login) -> Session {
        Session {
            client,
            db: 0,
            login,
            closing: false,
            read_lsn: 0,
            seen_lsn: 0,
            write_lsn: 0,
            last_command: "NULL",
            delivery: Delivery::default(),
            caching: false,
            buffers: BufferSizes::default(),
            client_flags: ClientFlags::default(),
            timer: CommandTimer::default(),
            scratch: Cell::default(),
            multi: None,
            watched: Vec::new(),
            watched_bytes: 0,
            origin: Origin::Client,
            profile: Box::default(),
            replica: None,
            then: None,
        }
    }

    /// The state for a replay of the log.
    pub fn for_replay() -> Session {
        Session { origin: Origin::Replay, ..Session::new(Clients::detached(), Login::for_replay()) }
    }

    /// Stops watching all keys (`UNWATCH`).
    pub fn unwatch(&mut self, keyspace: &Keyspace) {
        let watcher = &self.client.watcher;
        for (db, key) in std::mem::take(&mut self.watched) {
            keyspace.unwatch(db, &key, watcher);
        }
        self.watched_bytes = 0;
        watcher.reset();
    }

    /// When other clients may see a message that shows changes up to `lsn`: once the log is flushed up to
    /// there, or, within a transaction, up to the transaction's end.
    pub fn visible_at(&self, lsn: u64) -> VisibleAt {
        match &self.origin {
            Origin::Client | Origin::Replay => VisibleAt::Lsn(lsn),
            Origin::Transaction(exec) | Origin::Master(exec) => {
                VisibleAt::Promised(exec.promise.get_or_init(Promise::default).clone())
            }
        }
    }

    /// Ends the transaction and everything that the connection has registered elsewhere: watched keys,
    /// subscriptions, monitoring, tracking. `RESET` and the end of the connection share this.
    pub fn release(&mut self, server: &Server) {
        self.multi = None;
        self.unwatch(&server.keyspace);
        server.stop_watching(self.client.id);
        self.caching = false;
        self.client_flags = ClientFlags::default();
    }

    /// Whether other threads may send it messages, so that a writer thread writes to its socket.
    pub fn listens(&self) -> bool {
        self.client.outbox.listening.any()
    }

    /// Ends `CLIENT TRACKING`.
    pub fn stop_tracking(&mut self, server: &Server) {
        server.discard(server.tracking.deregister(self.client.id));
        self.caching = false;
    }

    /// For a command that ends something that the client listens to. Messages that arrived before go out
    /// before the confirmation; within a transaction all messages follow the reply of `EXEC`.
    pub fn stops_listening(&mut self) {
        if self.listens() {
            let in_transaction = matches!(self.origin, Origin::Transaction(_));
            self.delivery.held =
                Some(if in_transaction { Held::AfterReply } else { Held::BeforeReply });
        }
    }

    /// Called after each command, whose reply starts at `start`. Drops the reply if `CLIENT REPLY` says so,
    /// and adds the messages that others sent meanwhile.
    #[inline(always)]
    pub fn finish(&mut self, reply: &mut Reply, start: usize, confirms: bool) {
        if self.delivery.replies != Replies::On {
            if matches!(self.delivery.replies, Replies::Off | Replies::Skipped) && !confirms {
                reply.truncate(start);
                if let Some(Then::Wait(waiting)) = &mut self.then {
                    waiting.silent = true;
                }
            }
            self.delivery.replies = match self.delivery.replies {
                Replies::SkipNext => Replies::Skipped,
                Replies::Skipped => Replies::On,
                replies => replies,
            };
        }
        let held = self.delivery.held.take();
        if self.listens() || held.is_some() {
            let at = if held == Some(Held::BeforeReply) { start } else { reply.len() };
            let held = self.client.outbox.take_held(reply, at, self.listens());
            self.read_lsn = self.read_lsn.max(held);
        }
    }

    /// Updates what other connections see of its buffers.
    pub fn sync_buffers(&self) {
        self.client.state().buffers = self.buffers;
    }

    /// Updates what other connections see of this one, and marks it as active at `now`.
    pub fn sync_client_state(&self, now: Instant) {
        let mut state = self.client.state();
        state.db = self.db;
        state.last_command = self.last_command;
        state.last_active = now;
        state.queued = self.multi.as_ref().map(|multi| multi.queued);
        state.queued_bytes = self.multi.as_ref().map_or(0, |multi| multi.queue.memory_bytes());
        state.watched = self.watched.len();
        state.watched_bytes = self.watched_bytes;
        state.buffers = self.buffers;
        state.client_flags = self.client_flags;
    }
}

/// Where messages go that arrived while a command ran.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Held {
    /// Before its reply.
    BeforeReply,
    /// After its reply.
    AfterReply,
}

/// Whether replies are sent (`CLIENT REPLY`).
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub enum Replies {
    /// They are sent.
    #[default]
    On,
    /// They are dropped.
    Off,
    /// The next one is dropped.
    SkipNext,
    /// The one to the current command is dropped.
    Skipped,
}
