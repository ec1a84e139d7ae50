//! One connection: read, run, reply, wait. The whole life of a client's thread.
//!
//! The thread runs every command that its read buffer holds and collects the replies. When the buffer is
//! drained, or the replies have grown large, it sends them in two steps: first it flushes the log up to what
//! the replies show (and syncs it under `appendfsync always`), then it writes to the socket. So one flush and
//! one write serve a whole pipeline, and no client ever learns of a change that a crash could take back.
//!
//! While other threads may send messages to the client, or while it does not read, a writer thread writes to
//! its socket, and the replies go through that thread too ([`crate::net::outbox`]).

use std::io::{self, ErrorKind};
use std::iter;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use crate::aof::Aof;
use crate::commands::lookup::resolve;
use crate::config::FsyncPolicy;
use crate::config::logger::{log_limited, log_line};
use crate::config::trace::{self, quoted, trace};
use crate::dispatch;
use crate::memory::{self, COPIES};
use crate::net::input::Input;
use crate::net::outbox::{Outbox, TryWrite};
use crate::net::poll::Wait;
use crate::net::socket::Socket;
use crate::replication::feed::{Start, feed};
use crate::resp::{Args, CommandError, Protocol, Reply, Request, request};
use crate::session::{
    Access, BufferSizes, Client, Login, Server, Session, Then, Unblocked, Waiting,
};

/// A writer thread only waits and writes.
const WRITER_STACK_BYTES: usize = 128 << 10;
/// How often it is checked whether a client has hung up that a pause holds back.
const HANG_UP_CHECK: Duration = Duration::from_millis(50);
/// How long a connection waits after each failed login, before the reply.
const FAILED_LOGIN_DELAY: Duration = Duration::from_millis(100);
/// Replies of this size are sent before the next command runs.
const REPLY_BYTES: usize = 64 << 10;

/// Serves a client until it disconnects, breaks the protocol or is killed.
pub(super) fn serve(server: &Arc<Server>, socket: &Socket, client: Arc<Client>) {
    let id = client.id;
    let (from, _) = socket.addresses();
    log_line!(server.config, Verbose, "Client {id} connected from {from}");
    // Removed again however the thread ends.
    let _registered = Registered::new(server, &client);
    trace::set_client(id);
    let mut connection = Connection {
        server,
        socket,
        session: Session::new(client, Login::new(&server.users)),
        reply: Reply::new(Protocol::Resp2),
        worked: false,
        answered: 0,
    };
    // An error means that the client is gone, so it cannot be reported.
    let ended = connection.run();
    if ended.is_ok() && connection.session.replica.is_none() {
        // A client that sends no more may still read. Until it has, it is listed and can be killed.
        connection.session.client.outbox.drain_before_close();
    }
    server.deregister(id); // before the socket is closed, so that a closed connection is never listed
    drop(connection);
    log_line!(server.config, Verbose, "Client {id} disconnected");
}

/// A connection's place in the registries, as long as its thread lives.
struct Registered<'a> {
    server: &'a Server,
    id: u64,
}

impl<'a> Registered<'a> {
    /// For a client that is in the registry already. Registers its meter too.
    fn new(server: &'a Server, client: &Client) -> Registered<'a> {
        server.stats.meters.register(client.id, client.meter.clone());
        Registered { server, id: client.id }
    }
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.server.deregister(self.id);
        self.server.stats.meters.deregister(self.id);
    }
}

struct Connection<'a> {
    server: &'a Arc<Server>,
    socket: &'a Socket,
    session: Session,
    reply: Reply,
    /// Whether a command has run since replies were last sent.
    worked: bool,
    /// How many of the commands since then have a reply.
    answered: u64,
}

impl Drop for Connection<'_> {
    /// However the thread ends, it leaves behind no watched key, no writer, and no message that waits for
    /// its transaction.
    fn drop(&mut self) {
        self.session.release(self.server);
        self.session.client.outbox.end();
    }
}

impl Connection<'_> {
    fn run(&mut self) -> io::Result<()> {
        self.socket.send_at_once(true)?;
        let mut input = Input::new(self.socket)?;
        let mut request = Request::new(0);
        let mut wait = Wait::default();
        // How many commands, from the next on, have their keys prefetched.
        let mut prefetched: usize = 0;
        loop {
            request.bulk_limit = self.server.config.proto_max_bulk_len.load(Relaxed);
            request.unauthenticated = self.session.login.access() == Access::LoginFirst;
            let progress = match request.feed(input.bytes()) {
                Ok(progress) => progress,
                Err(error) => {
                    let error = CommandError::from(format!("ERR Protocol error: {error}"));
                    self.server.stats.errors.count(error.text());
                    self.reply.error(&error);
                    return self.send_last();
                }
            };
            input.consume(progress.used);
            if progress.complete {
                if self.session.client.outbox.is_closed() {
                    return Err(ErrorKind::ConnectionAborted.into()); // it was killed
                }
                let args = request.args().ok();
                let Some(args) = args.filter(|args| can_copy(*args)) else {
                    self.refuse();
                    request.clear();
                    continue;
                };
                let shown = || args.from(0).map(quoted).collect::<Vec<_>>().join(" ");
                trace!("Request::feed", "arguments: {}", shown());
                let rest = input.bytes();
                if prefetched == 0 && !rest.is_empty() && !request.unauthenticated {
                    let word = |number| args.get(number).unwrap_or_default();
                    let first = (word(1), word(2));
                    let keys = iter::once(first).chain(request::keys_ahead(rest));
                    let (keyspace, db) = (&self.server.keyspace, self.session.db);
                    // A hash command is likely to be followed by others.
                    prefetched = match args[0].first() {
                        Some(b'h' | b'H') => keyspace.prefetch::<true>(db, keys),
                        _ => keyspace.prefetch::<false>(db, keys),
                    };
                }
                prefetched = prefetched.saturating_sub(1);
                if self.server.pause.is_likely() {
                    self.wait_for_pause(args, &mut input)?;
                }
                let before = self.reply.len();
                dispatch::execute(self.server, &mut self.session, args, &mut self.reply);
                self.worked = true;
                self.answered += u64::from(self.reply.len() > before);
                request.clear();
                if self.session.then.is_some() {
                    self.complete(&mut input)?;
                }
                if self.session.closing {
                    return self.send_last();
                }
                if self.reply.len() >= REPLY_BYTES {
                    self.note_buffers(&input, &request);
                    self.send()?;
                }
                continue;
            }
            self.note_buffers(&input, &request);
            self.send()?;
            if request.is_partial() {
                // A client that is sending a long command is not idle.
                self.session.sync_client_state(Instant::now());
            }
            // A writer thread must not meet a socket in non-blocking mode.
            let exclusive = || self.session.client.outbox.try_exclusive_write();
            let arrived = match wait.receive(&mut input, &self.server.poll_permit, exclusive) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.release_buffers(&mut input, &mut request);
                    input.fill_after_silence()?
                }
                arrived => arrived?,
            };
            if arrived == 0 {
                return Ok(());
            }
            self.session.client.meter.received.add(arrived as u64);
            if let Some(replica) = &self.session.replica {
                replica.heard();
            }
            self.note_buffers(&input, &request);
            trace!("Connection::run", "reads {arrived} bytes: {}", quoted(input.bytes()));
        }
    }

    /// Answers a command for which the system has no memory.
    #[cold]
    fn refuse(&mut self) {
        let Connection { server, session, reply, .. } = self;
        dispatch::refuse(server, session, CommandError::NO_MEMORY, reply);
        (self.worked, self.answered) = (true, self.answered + 1);
    }

    fn note_buffers(&mut self, input: &Input, request: &Request) {
        self.session.buffers = BufferSizes {
            unread: input.bytes().len(),
            input: input.capacity(),
            args: request.used_bytes(),
            args_room: request.memory_bytes(),
            reply: self.reply.memory_bytes().min(REPLY_BYTES), // what is left of it after it is sent
        };
    }

    /// Gives back the memory that a burst has left, once the client is silent.
    #[cold]
    fn release_buffers(&mut self, input: &mut Input, request: &mut Request) {
        input.release();
        request.release();
        self.reply.clear(0);
        self.session.scratch.take();
        self.note_buffers(input, request);
        self.session.sync_buffers();
    }

    /// Waits as long as `CLIENT PAUSE` holds the command back, after sending the replies to earlier commands.
    /// A client that hangs up meanwhile is gone, and its command does not run.
    fn wait_for_pause(&mut self, args: Args, input: &mut Input) -> io::Result<()> {
        let must_wait = |session: &Session, what| {
            dispatch::waits_for(what, self.server, session, args)
                && !session.client.outbox.is_closed()
        };
        if !self.server.pause.paused().is_some_and(|what| must_wait(&self.session, what)) {
            return Ok(());
        }
        self.send()?;
        self.session.client_flags.blocked = true;
        self.session.last_command = resolve(args).map_or("NULL", |command| command.name);
        self.session.sync_client_state(Instant::now());
        let paused =
            || self.server.pause.wait_while(HANG_UP_CHECK, |what| must_wait(&self.session, what));
        while paused() {
            self.read_ahead(input)?;
        }
        self.session.client_flags.blocked = false;
        if self.session.client.outbox.is_closed() {
            return Err(ErrorKind::ConnectionAborted.into()); // it was killed
        }
        Ok(())
    }

    /// Reads what a client sends whose command waits, to learn whether it has hung up.
    fn read_ahead(&self, input: &mut Input) -> io::Result<()> {
        let limit = self.server.config.client_query_buffer_limit.load(Relaxed);
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        input.read_ahead(limit).inspect_err(|error| {
            if error.kind() == ErrorKind::FileTooLarge {
                self.server.stats.query_limit_cut_offs.add(1);
                let text = "Closed a client whose command waits: client-query-buffer-limit";
                log_limited!(self.server.config, Warning, "{text}");
            }
        })
    }

    /// Waits until enough replicas have what the client has seen, and replies. Sends the replies to earlier
    /// commands before. A client that hangs up meanwhile is gone.
    fn wait_for_replicas(&mut self, waiting: &Waiting, input: &mut Input) -> io::Result<()> {
        self.send()?;
        let client = self.session.client.clone();
        let (aof, replication) = (&self.server.aof, &self.server.replication);
        let replicas = &replication.replicas;
        client.unblocking.begin();
        self.session.client_flags.blocked = true;
        self.session.sync_client_state(Instant::now());
        let count = loop {
            // Again each time: one that has come back since must be asked too.
            replication.ask_since(aof, self.session.seen_lsn.max(self.session.read_lsn));
            let now = Instant::now();
            let left = waiting.until.map(|until| until.saturating_duration_since(now));
            let slice = left.map_or(HANG_UP_CHECK, |left| left.min(HANG_UP_CHECK));
            let count = replicas.wait(waiting.replicas, slice, |replica| {
                waiting.is_met_by(replica) || client.unblocking.is_ended()
            });
            if count >= waiting.replicas
                || left.is_some_and(|left| left.is_zero())
                || client.unblocking.is_ended()
            {
                break replicas.count(|replica| waiting.is_met_by(replica));
            }
            if client.outbox.is_closed() {
                return Err(ErrorKind::ConnectionAborted.into()); // it was killed
            }
            self.read_ahead(input)?;
        };
        self.session.client_flags.blocked = false;
        let unblocked = client.unblocking.end();
        if waiting.silent {
            return Ok(());
        }
        if unblocked == Some(Unblocked::Error) {
            let text = "UNBLOCKED client unblocked via CLIENT UNBLOCK";
            self.reply.error(&CommandError::new(text));
        } else {
            waiting.reply(count, &mut self.reply);
        }
        (self.worked, self.answered) = (true, 1);
        Ok(())
    }

    /// Starts the thread that feeds the replica that the client has become.
    fn start_feeding(&mut self, start: Start) -> io::Result<()> {
        self.send()?;
        self.session.sync_client_state(Instant::now());
        let Some(replica) = self.session.replica.clone() else { return Ok(()) };
        if !replica.outbox.claim_writer() {
            return Err(ErrorKind::ConnectionAborted.into()); // it has not read earlier replies
        }
        let server = self.server.clone();
        let feed = move || {
            let data = (&server.aof, &server.keyspace, &*server.config);
            feed(&server.replication, data, &replica, start);
        };
        thread::Builder::new().name("feeder".into()).spawn(feed).map(drop)
    }

    /// Does what a command has left to this thread.
    #[cold]
    fn complete(&mut self, input: &mut Input) -> io::Result<()> {
        match self.session.then.take() {
            Some(Then::Wait(waiting)) => self.wait_for_replicas(&waiting, input),
            Some(Then::Feed(start)) => self.start_feeding(start),
            Some(Then::Delay(failures)) => {
                self.wait_after_failed_logins(failures);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Makes it slow to guess passwords.
    fn wait_after_failed_logins(&self, failures: u32) {
        for _ in 0..failures {
            if self.session.client.outbox.is_closed() {
                break;
            }
            thread::sleep(FAILED_LOGIN_DELAY);
        }
    }

    /// Sends the replies, after which the connection ends. A client that has read them knows that it gets no
    /// more messages.
    fn send_last(&mut self) -> io::Result<()> {
        self.session.client.outbox.refuse_messages();
        self.send()
    }

    /// Flushes the log up to what the replies show, then sends them.
    fn send(&mut self) -> io::Result<()> {
        let ended = dispatch::measure::end_batch(self.server, &mut self.session);
        let worked = std::mem::take(&mut self.worked);
        if self.reply.is_empty() && !worked {
            return Ok(());
        }
        // The stream of a replica has no place for replies, so there must be none.
        if self.session.replica.is_some() {
            self.session.sync_client_state(ended.unwrap_or_else(Instant::now));
            let none = self.reply.is_empty();
            return if none { Ok(()) } else { Err(ErrorKind::InvalidInput.into()) };
        }
        self.session.sync_client_state(ended.unwrap_or_else(Instant::now));
        let answered = std::mem::take(&mut self.answered);
        if self.reply.is_empty() {
            return self.put();
        }
        let durable = self.flush_shown();
        self.session.seen_lsn = self.session.seen_lsn.max(self.session.read_lsn);
        self.session.read_lsn = 0; // these replies are sent or withdrawn now
        if let Err(error) = durable {
            // None of these replies may be sent: each command gets the error instead. What the commands
            // changed is in memory, and goes into the log as soon as that can be written.
            self.reply.clear(0);
            let text = format!("MISCONF Errors writing to the AOF file: {error}");
            (0..answered).for_each(|_| self.reply.error(&CommandError::from(text.clone())));
            self.server.tracking.forget_all(&self.server.pubsub, self.session.client.id);
        }
        trace!("Connection::send", "replies {}", quoted(self.reply.bytes()));
        self.put()?;
        self.reply.clear(REPLY_BYTES);
        Ok(())
    }

    /// Writes the replies, or queues them for the writer thread among the messages of others.
    fn put(&mut self) -> io::Result<()> {
        let outbox = &self.session.client.outbox;
        for target in self.session.delivery.redirected.drain(..) {
            if target.claim_redirected() {
                start_writer(self.server, &target)?;
            }
        }
        let (pubsub, id) = (&self.server.pubsub, self.session.client.id);
        let mut replies = self.reply.bytes();
        // Redis disconnects a client for a reply beyond the hard limit, even if it would read it.
        if !self.session.listens() && !pubsub.exceeds_limit(outbox, replies.len()) {
            match outbox.try_write(replies)? {
                TryWrite::All => return Ok(()),
                TryWrite::Beginning => replies = &[],
                TryWrite::Nothing => {}
            }
        }
        // A writer ends as soon as it has nothing to write, so it is not looked for before.
        pubsub.push_replies(id, outbox, replies);
        if outbox.claim_writer() {
            start_writer(self.server, outbox)?;
        }
        Ok(())
    }

    fn flush_shown(&self) -> io::Result<()> {
        flush_shown(self.server, self.session.read_lsn)
    }
}

/// Whether the system has memory for what becomes of a command.
#[inline(always)]
fn can_copy(args: Args) -> bool {
    memory::ensure_available(COPIES * args.memory_bytes()).is_ok()
}

/// Flushes the log up to what will be sent, and syncs it if the policy says so.
fn flush_shown(server: &Server, lsn: u64) -> io::Result<()> {
    let Server { aof, config, stats, .. } = server;
    let threshold_ms = config.latency_monitor_threshold.load(Relaxed);
    let timed = |event, work: fn(&Aof, u64) -> io::Result<()>| {
        stats.latency.timed(event, threshold_ms, || work(aof, lsn))
    };
    match server.fsync_policy() {
        FsyncPolicy::Always => timed("aof-fsync-always", Aof::sync_to),
        FsyncPolicy::EverySecond | FsyncPolicy::No => timed("aof-write", Aof::flush_to),
    }
}

/// Starts the writer thread that was claimed. If that fails, the connection ends.
fn start_writer(server: &Arc<Server>, outbox: &Arc<Outbox>) -> io::Result<()> {
    let (server, queue) = (server.clone(), outbox.clone());
    let write = move || {
        server.writers.fetch_add(1, Relaxed);
        queue.write_out(|lsn| flush_shown(&server, lsn));
        server.writers.fetch_sub(1, Relaxed);
    };
    let thread = thread::Builder::new().stack_size(WRITER_STACK_BYTES).name("writer".into());
    thread.spawn(write).map(drop).inspect_err(|_| _ = outbox.close())
}
