//! The state of one connection, which belongs to its thread.
//!
//! What all connections share is in [`server`]; what others may see of a connection, and the registry of
//! all connections, in [`clients`].

mod clients;
mod server;

use std::cell::{Cell, OnceCell};
use std::sync::Arc;
use std::time::Instant;

use crate::aof::Block;
use crate::net::outbox::{Outbox, Promise, VisibleAt};
use crate::resp::{Queue, Reply};
use crate::stats::CommandTimer;
use crate::store::Keyspace;
use crate::watchers::tracking::Mode;

pub use clients::{Client, ClientFlags, Clients};
pub use server::Server;

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
    /// Measures how long its commands take.
    pub timer: CommandTimer,
    /// Where its records are encoded for the log; kept so that it need not be reserved each time.
    pub scratch: Cell<Vec<u8>>,
    /// The transaction that MULTI has begun.
    pub multi: Option<Box<Multi>>,
    /// The keys that it watches, with their databases.
    pub watched: Vec<(usize, Vec<u8>)>,
    /// Where its commands come from.
    pub origin: Origin,
}

/// Where commands come from, and so where their records go.
#[derive(Default)]
pub enum Origin {
    /// A client: into the log.
    #[default]
    Client,
    /// A client's EXEC: into the block of the transaction.
    Transaction(Exec),
    /// The log itself: nowhere. Nothing expires by itself then, and nobody hears of changes.
    Replay,
}

/// What EXEC collects while it carries out a transaction.
pub struct Exec {
    /// The records for the log.
    pub block: Block,
    /// The keys that were modified, for clients that want to hear of all keys with a prefix.
    pub modified: Vec<Box<[u8]>>,
    /// The LSN up to which the log must be flushed before others may see what the transaction has sent them:
    /// first what it has read, then the end of its block.
    pub lsn: u64,
    /// Told that LSN at the end, if the transaction has sent anything.
    promise: OnceCell<Promise>,
}

impl Exec {
    /// A transaction that has seen the log up to that LSN.
    pub fn new(lsn: u64) -> Exec {
        Exec { block: Block::default(), modified: Vec::new(), lsn, promise: OnceCell::new() }
    }
}

impl Drop for Exec {
    /// However the transaction ends, nobody waits for it any more.
    fn drop(&mut self) {
        if let Some(promise) = self.promise.take() {
            promise.get_or_init(|| self.lsn);
        }
    }
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
            timer: CommandTimer::default(),
            scratch: Cell::default(),
            multi: None,
            watched: Vec::new(),
            origin: Origin::Client,
        }
    }

    /// One whose commands come from the log.
    pub fn for_replay() -> Session {
        Session { origin: Origin::Replay, ..Session::new(Clients::detached(), true) }
    }

    /// Watches no key any more.
    pub fn unwatch(&mut self, keyspace: &Keyspace) {
        let watcher = &self.client.watcher;
        for (db, key) in std::mem::take(&mut self.watched) {
            keyspace.unwatch(db, &key, watcher);
        }
        watcher.reset();
    }

    /// Up to where the log must be flushed before others may see what shows the log up to `lsn`: within a
    /// transaction, which shows its own changes, up to its end.
    pub fn visible_at(&self, lsn: u64) -> VisibleAt {
        match &self.origin {
            Origin::Client | Origin::Replay => VisibleAt::Lsn(lsn),
            Origin::Transaction(exec) => {
                VisibleAt::Promised(exec.promise.get_or_init(Promise::default).clone())
            }
        }
    }

    /// Gives up everything that the connection has registered elsewhere: watched keys, subscriptions,
    /// monitoring, tracking; and its transaction. `RESET` and the end of the connection share this.
    pub fn release(&mut self, server: &Server) {
        self.multi = None;
        self.unwatch(&server.keyspace);
        server.stop_watching(self.client.id);
        self.subscriptions = 0;
        self.tracking = None;
        self.caching = false;
        self.client_flags = ClientFlags::default();
    }

    /// Whether others send it anything, so that what goes to it needs a thread of its own.
    pub fn listens(&self) -> bool {
        self.subscriptions > 0 || self.client_flags.monitor || self.tracking.is_some()
    }

    /// Tracks no more.
    pub fn stop_tracking(&mut self, server: &Server) {
        server.discard(server.tracking.leave(self.client.id));
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

    /// Updates what other connections see of this one, and marks it as active at `now`.
    pub fn sync_client_state(&self, now: Instant) {
        let mut state = self.client.state();
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
