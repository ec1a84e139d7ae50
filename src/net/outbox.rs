//! The output of one client: its own replies, and the messages that other clients send it.
//!
//! A client that reads what it gets and listens to nothing needs no queue: its thread writes the replies
//! itself ([`Outbox::try_write`]). Otherwise all output goes through a queue, which a second thread, the
//! *writer*, writes to the socket ([`Outbox::write_out`]). That is so
//!
//! - while the client does not read what it has asked for. Its thread must go on reading: a client may send
//!   all of a large pipeline before it reads the first reply, and would never get to it if we stopped. The
//!   writer ends when everything is written;
//! - while the client *listens* (to channels, to other clients' commands, to invalidations of what it
//!   caches), and so must get messages even while its thread waits for the next command;
//! - from when another client [redirects](https://redis.io/docs/latest/commands/client-tracking/) its
//!   invalidations here. The thread of the other client starts the writer, which then stays.
//!
//! Invariants:
//!
//! - **Order.** While the connection's thread runs commands, their replies are not in the queue yet, so
//!   messages are *held*. After each command they are inserted into its replies ([`Outbox::take_held`]), or
//!   appended to all replies when these are sent. So a client sees its commands and the messages in one
//!   order in which each command is atomic, as in a single-threaded server: the confirmation of a
//!   subscription precedes the first message.
//! - **Pushing never blocks.** The queue counts its bytes, and a client whose queue exceeds
//!   `client-output-buffer-limit` for its class is disconnected.
//! - **The log first.** A message reveals a change that its sender has seen, so it carries an LSN, and the
//!   log is flushed up to that LSN before the message is written. The writer flushes, not the sender, so one
//!   flush serves many messages. A message from a transaction waits for the LSN of the transaction's block.
//! - **One writer.** There is at most one, and while there is one, no other thread writes to the socket. A
//!   writer that another client's thread started waits until the client's thread has finished its write, and
//!   begins with what the socket did not take of that.
//!
//! Locks: `unfinished`, held while the socket is written; then the queue, the last in the lock order, never
//! held while the socket is written.

use std::io::{self, ErrorKind, IoSlice, Write};
use std::iter::once;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::config::{OutputLimit, UNCOUNTED_OUTPUT_BYTES};
use crate::memory;
use crate::net::socket::Socket;
use crate::resp::{Protocol, Reply};
use crate::stats::meter::OwnCounter;

/// When the socket has taken nothing for this long, the client does not read, and the queue gets the rest.
const TAKING_TIME: Duration = Duration::from_millis(10);

pub struct Outbox {
    /// `None` for the replay of the log.
    socket: Option<Arc<Socket>>,
    resp3: AtomicBool,
    closed: AtomicBool,
    /// What messages the client gets.
    pub listening: Listening,
    /// Bytes written to the socket. Counted while `unfinished` is locked.
    pub sent: Arc<OwnCounter>,
    queue: Mutex<Queue>,
    /// Wakes the writer (there is work), and the client's thread (the writer has ended).
    changed: Condvar,
    /// Whether there is a writer. Changed only while the queue is locked.
    has_writer: AtomicBool,
    /// Locked while the socket is written. The end of replies that the client's thread could not write,
    /// because the client does not read: the next writer begins with it.
    unfinished: Mutex<Vec<u8>>,
}

/// What a client listens to. The registries in [`crate::watchers`] own these facts, but for `redirected`, and
/// alone write them, each while it is locked. The client's thread reads them before and after each command,
/// without a lock.
#[derive(Default)]
pub struct Listening {
    /// The number of its subscriptions.
    pub subscriptions: AtomicUsize,
    /// The memory that these take, and the prefixes of the keys that it tracks, in bytes, as an estimate.
    pub memory_bytes: AtomicUsize,
    /// It is a monitor: it gets all commands.
    pub monitors: AtomicBool,
    /// It tracks keys (`CLIENT TRACKING`).
    pub tracks: AtomicBool,
    /// Another client has redirected its invalidations here. Set by [`Outbox::claim_redirected`].
    redirected: AtomicBool,
    /// Whether a key that it reads is tracked: without `CLIENT CACHING` before the command, and with it.
    pub tracks_reads: [AtomicBool; 2],
}

impl Listening {
    /// Whether it listens to anything.
    pub fn any(&self) -> bool {
        let is_target = self.redirected.load(Relaxed);
        self.subscribes() || self.monitors() || self.tracks.load(Relaxed) || is_target
    }

    pub fn subscribes(&self) -> bool {
        self.subscriptions.load(Relaxed) > 0
    }

    pub fn monitors(&self) -> bool {
        self.monitors.load(Relaxed)
    }

    /// Whether a key that it reads now is tracked. `caching` says whether it has sent `CLIENT CACHING`.
    pub fn tracks_reads(&self, caching: bool) -> bool {
        self.tracks_reads[usize::from(caching)].load(Relaxed)
    }
}

#[derive(Default)]
struct Queue {
    /// What to write, in this order.
    pieces: Vec<Piece>,
    /// Messages that arrived while the client's thread runs commands.
    held: Vec<Piece>,
    holding: bool,
    /// There is an unfinished write.
    unfinished: bool,
    /// The bytes that are not written yet: unfinished, in `pieces`, in `held`, and in the writer's hands.
    bytes: usize,
    /// Since when `bytes` has exceeded the soft limit.
    over_since: Option<Instant>,
    /// Whether the writer waits for work, and so must be woken.
    idle: bool,
    /// The connection ends when everything is written, and accepts no more messages.
    closing: bool,
}

struct Piece {
    bytes: Arc<[u8]>,
    /// When the client may see the piece.
    visible_at: VisibleAt,
}

/// What has become of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pushed {
    /// The client will get it.
    Queued,
    /// It exceeds the output limit, so the client was disconnected.
    CutOff,
    /// The system has no memory for it, so the client was disconnected.
    NoMemory,
    /// The connection is ending.
    Refused,
}

/// How much of the replies was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TryWrite {
    /// All.
    All,
    /// As much as the socket took: the client does not read. A writer must write the rest.
    Beginning,
    /// Nothing: there is a writer.
    Nothing,
}

/// The LSN up to which the log must be flushed before a message may be written.
#[derive(Clone)]
pub enum VisibleAt {
    /// This LSN.
    Lsn(u64),
    /// The LSN of the block of a transaction that is still running.
    Promised(Promise),
}

/// The LSN of a transaction's block, once the transaction has been logged. A thread that waits for it holds
/// no lock, and a transaction waits for no other thread, so the wait is short.
pub type Promise = Arc<OnceLock<u64>>;

impl VisibleAt {
    fn wait(&self) -> u64 {
        match self {
            VisibleAt::Lsn(lsn) => *lsn,
            VisibleAt::Promised(promise) => *promise.wait(),
        }
    }
}

impl From<u64> for VisibleAt {
    fn from(lsn: u64) -> VisibleAt {
        VisibleAt::Lsn(lsn)
    }
}

impl Outbox {
    /// An empty queue for the client at the other end of the socket.
    pub fn new(socket: Option<Arc<Socket>>) -> Outbox {
        let outbox = Outbox {
            socket,
            resp3: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            listening: Listening::default(),
            sent: Arc::default(),
            queue: Mutex::default(),
            changed: Condvar::new(),
            has_writer: AtomicBool::new(false),
            unfinished: Mutex::default(),
        };
        outbox.set_patience(Some(TAKING_TIME));
        outbox
    }

    pub fn socket(&self) -> Option<&Socket> {
        self.socket.as_deref()
    }

    /// The client's protocol, in which messages to it must be encoded.
    pub fn protocol(&self) -> Protocol {
        if self.resp3.load(SeqCst) { Protocol::Resp3 } else { Protocol::Resp2 }
    }

    /// Sets the protocol of all further messages.
    pub fn set_protocol(&self, protocol: Protocol) {
        self.resp3.store(protocol == Protocol::Resp3, SeqCst);
    }

    // ---- For other clients' threads ----

    /// Sends a message to the client.
    pub fn push(&self, bytes: &Arc<[u8]>, visible_at: VisibleAt, limit: &OutputLimit) -> Pushed {
        let mut queue = self.lock();
        if self.is_closed() || queue.closing {
            return Pushed::Refused;
        }
        queue.bytes += bytes.len();
        let piece = Piece { bytes: bytes.clone(), visible_at };
        if queue.holding {
            queue.held.push(piece);
        } else {
            queue.pieces.push(piece);
            self.wake(&mut queue);
        }
        if self.cut_if_over(queue, limit) { Pushed::CutOff } else { Pushed::Queued }
    }

    /// Disconnects the client if its queue exceeds the limit, and returns whether it did.
    pub fn check(&self, limit: &OutputLimit) -> bool {
        self.cut_if_over(self.lock(), limit)
    }

    fn cut_if_over(&self, mut queue: MutexGuard<Queue>, limit: &OutputLimit) -> bool {
        let (hard_bytes, soft_bytes, soft_seconds) = limit.get();
        let bytes = queue.bytes.saturating_sub(UNCOUNTED_OUTPUT_BYTES);
        let is_over = |limit: usize| limit > 0 && bytes > limit;
        let is_over_too_long = if is_over(soft_bytes) {
            let since = queue.over_since.get_or_insert_with(Instant::now);
            since.elapsed() > Duration::from_secs(soft_seconds)
        } else {
            queue.over_since = None;
            false
        };
        drop(queue);
        (is_over(hard_bytes) || is_over_too_long) && !self.close()
    }

    /// Ends the connection, from any thread, whatever locks that holds. What is not written is freed by the
    /// connection's own threads as they end. Returns whether it had ended before.
    pub fn close(&self) -> bool {
        let queue = self.lock(); // nothing is pushed from here on
        let was_closed = self.closed.swap(true, SeqCst);
        drop(queue);
        self.changed.notify_all();
        self.socket().into_iter().for_each(Socket::close);
        was_closed
    }

    /// Whether [`Outbox::close`] was called.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Relaxed)
    }

    /// Whether the client gets no more messages, because its connection ends.
    pub fn is_ending(&self) -> bool {
        self.lock().closing || self.is_closed()
    }

    /// The numbers of pieces and of bytes that are not written yet.
    pub fn backlog(&self) -> (usize, usize) {
        let queue = self.lock();
        (queue.pieces.len() + queue.held.len(), queue.bytes)
    }

    // ---- For the client's own thread ----

    /// Holds messages back from now on, until the replies are sent.
    pub fn hold(&self) {
        self.lock().holding = true;
    }

    /// Moves the held messages into the replies, at the byte offset `at`. Goes on holding messages only if
    /// the client still `listens`. Returns the LSN up to which the log must be flushed for them.
    pub fn take_held(&self, reply: &mut Reply, at: usize, listens: bool) -> u64 {
        let mut queue = self.lock();
        queue.holding = listens;
        let held = std::mem::take(&mut queue.held);
        queue.bytes -= held.iter().map(|piece| piece.bytes.len()).sum::<usize>().min(queue.bytes);
        drop(queue);
        if held.is_empty() {
            return 0;
        }
        if memory::ensure_available(2 * held.iter().map(|piece| piece.bytes.len()).sum::<usize>())
            .is_err()
        {
            self.close();
            return 0;
        }
        let pieces: Vec<&[u8]> = held.iter().map(|piece| &*piece.bytes).collect();
        reply.insert(at, &pieces.concat());
        held.iter().map(|piece| piece.visible_at.wait()).max().unwrap_or(0)
    }

    /// Sets how long a write waits for a client that does not read; `None` for ever.
    fn set_patience(&self, limit: Option<Duration>) {
        let set = self.socket().map_or(Ok(()), |socket| socket.set_write_timeout(limit));
        set.unwrap_or_default(); // an error means that the connection is over
    }

    /// Returns a guard that keeps every other thread from writing to the socket, or `None` if there is a
    /// writer.
    pub fn try_exclusive_write(&self) -> Option<MutexGuard<'_, Vec<u8>>> {
        // Do not wait: a writer holds the lock as long as its client does not read.
        let unfinished = self.unfinished.try_lock().ok()?;
        (!self.has_writer.load(SeqCst)).then_some(unfinished)
    }

    /// Ends the connection from its own thread: closes it, waits until a write in progress has ended and is
    /// counted, which is soon with the socket closed, and frees what is not written.
    pub fn end(&self) {
        self.close();
        drop(self.lock_socket());
        self.free_backlog();
    }

    /// Frees what a closed connection has not written: perhaps hundreds of megabytes, so not under a lock.
    fn free_backlog(&self) {
        let unfinished = std::mem::take(&mut *self.lock_socket());
        let mut queue = self.lock();
        let backlog = (std::mem::take(&mut queue.pieces), std::mem::take(&mut queue.held));
        queue.bytes = 0;
        drop(queue);
        drop((unfinished, backlog));
    }

    /// Writes replies to the socket, if there is no writer. The log must be flushed for them.
    ///
    /// # Errors
    /// Those of the socket: the client is gone.
    pub fn try_write(&self, replies: &[u8]) -> io::Result<TryWrite> {
        let Some(mut unfinished) = self.try_exclusive_write() else { return Ok(TryWrite::Nothing) };
        // Count first, so that a client that has read a reply finds it in the statistics.
        self.sent.add(replies.len() as u64);
        let Some(mut socket) = self.socket() else { return Ok(TryWrite::All) };
        let mut rest = replies;
        while !rest.is_empty() {
            match socket.write(rest) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    memory::ensure_available(rest.len())?;
                    *unfinished = rest.to_vec();
                    let mut queue = self.lock();
                    queue.unfinished = true;
                    queue.bytes += rest.len();
                    return Ok(TryWrite::Beginning);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(TryWrite::All)
    }

    /// Queues replies for the writer, and the held messages after them. The log must be flushed for the
    /// replies.
    pub fn push_replies(&self, replies: &[u8], limit: &OutputLimit) -> Pushed {
        let mut queue = self.lock();
        if self.is_closed() {
            return Pushed::Refused;
        }
        if !replies.is_empty() {
            if memory::ensure_available(replies.len()).is_err() {
                drop(queue);
                return self.refuse();
            }
            queue.bytes += replies.len();
            queue.pieces.push(Piece { bytes: replies.into(), visible_at: 0.into() });
        }
        let held = std::mem::take(&mut queue.held);
        queue.pieces.extend(held);
        queue.holding = false;
        self.wake(&mut queue);
        if self.cut_if_over(queue, limit) { Pushed::CutOff } else { Pushed::Queued }
    }

    /// Disconnects the client, because the system has no memory for what it should get.
    pub fn refuse(&self) -> Pushed {
        if self.close() { Pushed::Refused } else { Pushed::NoMemory }
    }

    /// Accepts no more messages from now on: the replies that are sent next are the last ones.
    pub fn refuse_messages(&self) {
        self.lock().closing = true;
    }

    /// Accepts no more messages, and waits until everything is written and the writer, if there is one, has
    /// ended.
    pub fn drain_before_close(&self) {
        let mut queue = self.lock();
        queue.closing = true;
        self.wake(&mut queue);
        while self.has_writer.load(SeqCst) && !self.is_closed() {
            queue = self.wait(queue);
        }
    }

    // ---- For the writer ----

    /// Returns true if the caller must start a writer: there is none, and the connection is open.
    pub fn claim_writer(&self) -> bool {
        let _queue = self.lock();
        !self.is_closed() && !self.has_writer.swap(true, SeqCst)
    }

    /// Like [`Outbox::claim_writer`], for the target of a redirection, which need not listen itself.
    pub fn claim_redirected(&self) -> bool {
        let queue = self.lock();
        if queue.closing {
            return false; // a thread waits for the writer to end
        }
        self.listening.redirected.store(true, SeqCst);
        drop(queue);
        self.claim_writer()
    }

    /// Runs the writer until it is not needed or the connection ends. `flush` flushes the log up to an LSN.
    pub fn write_out(&self, flush: impl Fn(u64) -> io::Result<()>) {
        let _guard = Writing(self);
        self.set_patience(None);
        while let Some(mut pieces) = self.next() {
            let last = pieces.iter().map(|piece| piece.visible_at.wait()).max().unwrap_or(0);
            if flush(last).is_err() {
                // No client may see a change that is not in the log. The sender gets an error; for the
                // receivers the change has not happened.
                pieces.retain(|piece| {
                    let is_visible = flush(piece.visible_at.wait()).is_ok();
                    if !is_visible {
                        self.forget(piece.bytes.len());
                    }
                    is_visible
                });
            }
            if self.write(&pieces).is_err() {
                self.close();
                return;
            }
        }
    }

    /// Runs a writer that gets the socket for itself, and has nothing to do with the queue; then the
    /// connection ends. The caller has claimed the writer.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn write_with(&self, write: impl FnOnce(&Socket) -> io::Result<()>) -> io::Result<()> {
        let _guard = Writing(self);
        self.set_patience(None);
        let unfinished = std::mem::take(&mut *self.lock_socket());
        let written = match self.socket() {
            Some(mut socket) => socket.write_all(&unfinished).and_then(|()| {
                let _counted = self.lock_socket();
                write(socket)
            }),
            None => Ok(()),
        };
        self.close();
        written
    }

    /// Waits for something to write: pieces or an unfinished write. `None` if the writer must end.
    fn next(&self) -> Option<Vec<Piece>> {
        let mut queue = self.lock();
        loop {
            if self.is_closed() {
                return None;
            }
            if std::mem::take(&mut queue.unfinished) || !queue.pieces.is_empty() {
                return Some(std::mem::take(&mut queue.pieces));
            }
            if queue.closing || !self.listening.any() {
                self.set_patience(Some(TAKING_TIME));
                self.has_writer.store(false, SeqCst);
                self.changed.notify_all();
                return None;
            }
            queue.idle = true;
            queue = self.wait(queue);
        }
    }

    fn write(&self, pieces: &[Piece]) -> io::Result<()> {
        let Some(mut socket) = self.socket() else { return Ok(()) };
        let mut unfinished = self.lock_socket();
        let rest = std::mem::take(&mut *unfinished);
        let mut counted = rest.len(); // these bytes count as sent already
        let pieces = pieces.iter().map(|piece| &*piece.bytes);
        let mut slices: Vec<IoSlice> = once(&*rest).chain(pieces).map(IoSlice::new).collect();
        let mut rest = &mut slices[..];
        while !rest.is_empty() {
            match socket.write_vectored(rest) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => {
                    IoSlice::advance_slices(&mut rest, written);
                    self.forget(written);
                    self.sent.add(written.saturating_sub(counted) as u64);
                    counted = counted.saturating_sub(written);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Subtracts bytes that have been written or dropped.
    fn forget(&self, bytes: usize) {
        let mut queue = self.lock();
        queue.bytes = queue.bytes.saturating_sub(bytes);
        if queue.bytes == 0 {
            queue.over_since = None;
        }
    }

    fn wake(&self, queue: &mut Queue) {
        if std::mem::take(&mut queue.idle) {
            self.changed.notify_all();
        }
    }

    fn wait<'a>(&self, queue: MutexGuard<'a, Queue>) -> MutexGuard<'a, Queue> {
        self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until no other thread writes to the socket.
    fn lock_socket(&self) -> MutexGuard<'_, Vec<u8>> {
        self.unfinished.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The writer at work: after a panic there is none, and the connection ends. Of a connection that has ended,
/// the writer frees the backlog, since its client's thread may wait for the end of a pause.
struct Writing<'a>(&'a Outbox);

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.close();
        }
        if self.0.is_closed() {
            self.0.free_backlog();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn limited(limit: &str) -> Config {
        let config = Config::new();
        config.set(&[(b"client-output-buffer-limit", limit.as_bytes())]).expect("a limit");
        config
    }

    fn push(outbox: &Outbox, text: &str, lsn: u64, config: &Config) -> Pushed {
        let limit = &config.client_output_buffer_limit.pubsub;
        outbox.push(&text.as_bytes().into(), lsn.into(), limit)
    }

    /// The bytes that the writer would write next.
    fn next(outbox: &Outbox) -> Vec<u8> {
        let pieces = outbox.next().unwrap_or_default();
        pieces.iter().flat_map(|piece| piece.bytes.to_vec()).collect()
    }

    #[test]
    fn held_messages_go_into_the_replies_or_after_them() {
        let (outbox, config) = (Outbox::new(None), Config::new());
        push(&outbox, "a", 0, &config);
        outbox.hold();
        push(&outbox, "b", 7, &config);
        push(&outbox, "c", 5, &config);
        let mut reply = Reply::new(Protocol::Resp2);
        reply.ok();
        assert_eq!(outbox.take_held(&mut reply, 0, true), 7);
        assert_eq!(reply.bytes(), b"bc+OK\r\n");
        push(&outbox, "d", 0, &config);
        assert_eq!(next(&outbox), b"a");
        outbox.push_replies(reply.bytes(), &config.client_output_buffer_limit.pubsub);
        push(&outbox, "e", 0, &config);
        assert_eq!(next(&outbox), b"bc+OK\r\nde");
        assert_eq!(outbox.lock().pieces.capacity(), 0, "a burst leaves no memory behind");
    }

    #[test]
    fn messages_are_not_held_for_a_client_that_no_longer_listens() {
        let (outbox, config) = (Outbox::new(None), Config::new());
        outbox.hold();
        outbox.take_held(&mut Reply::new(Protocol::Resp2), 0, false);
        push(&outbox, "a", 0, &config);
        assert_eq!(next(&outbox), b"a");
    }

    #[test]
    fn closing_waits_until_everything_is_written_despite_a_redirection() {
        let (outbox, config) = (Outbox::new(None), Config::new());
        assert!(outbox.claim_writer());
        push(&outbox, "a", 0, &config);
        std::thread::scope(|scope| {
            let closing = scope.spawn(|| outbox.drain_before_close());
            while !outbox.is_ending() {
                std::thread::yield_now();
            }
            assert!(!outbox.claim_redirected() && !closing.is_finished());
            assert_eq!(push(&outbox, "too late", 0, &config), Pushed::Refused);
            assert_eq!(next(&outbox), b"a");
            assert!(outbox.next().is_none());
        });
    }

    #[test]
    fn a_writer_stays_while_the_client_listens_or_another_one_redirects_to_it() {
        let outbox = Outbox::new(None);
        let ends = || outbox.next().is_none() && outbox.try_exclusive_write().is_some();
        assert!(outbox.claim_writer() && !outbox.claim_writer(), "there is one");
        assert!(ends());
        outbox.listening.monitors.store(true, SeqCst);
        assert!(outbox.claim_writer());
        std::thread::scope(|scope| {
            let next = scope.spawn(|| outbox.next().is_none());
            while !outbox.lock().idle {
                std::thread::yield_now();
            }
            assert!(!outbox.claim_redirected() && outbox.try_exclusive_write().is_none());
            outbox.listening.monitors.store(false, SeqCst);
            outbox.push_replies(b"", &Config::new().client_output_buffer_limit.normal);
            assert!(!next.is_finished());
            outbox.refuse_messages();
            outbox.push_replies(b"", &Config::new().client_output_buffer_limit.normal);
        });
        assert!(outbox.try_exclusive_write().is_some());
    }

    #[test]
    fn what_a_client_does_not_read_waits_in_order_and_is_counted() {
        use std::io::Read;
        use std::os::unix::net::UnixStream;
        let (mut client, server) = UnixStream::pair().expect("a pair of sockets");
        let (outbox, config) = (Outbox::new(Some(Arc::new(Socket::Unix(server)))), Config::new());
        let large = vec![b'x'; 4 << 20];
        assert_eq!(outbox.try_write(b"a").ok(), Some(TryWrite::All));
        assert_eq!(outbox.try_write(&large).ok(), Some(TryWrite::Beginning));
        let waiting = outbox.backlog().1;
        assert!(waiting > 1 << 20 && waiting < large.len(), "{waiting}");
        assert!(outbox.claim_writer());
        assert_eq!(outbox.try_write(b"b").ok(), Some(TryWrite::Nothing));
        outbox.push_replies(b"b", &config.client_output_buffer_limit.normal);
        assert_eq!(outbox.backlog().1, waiting + 1);
        std::thread::scope(|scope| {
            scope.spawn(|| outbox.write_out(|_| Ok(())));
            let mut read = vec![0; large.len() + 2];
            client.read_exact(&mut read).expect("everything");
            assert!(read == [b"a", &large[..], b"b"].concat());
        });
        assert_eq!((outbox.backlog(), outbox.sent.get()), ((0, 0), large.len() as u64 + 2));
        assert_eq!(outbox.try_write(b"c").ok(), Some(TryWrite::All), "the writer has ended");
    }

    #[test]
    fn exclusive_write_does_not_wait_for_a_writer_whose_client_does_not_read() {
        let outbox = Outbox::new(None);
        let _writing = outbox.unfinished.lock();
        assert!(outbox.try_exclusive_write().is_none());
    }

    #[test]
    fn exceeding_the_limit_ends_the_connection_whose_own_threads_free_the_queue() {
        let (outbox, config) = (Outbox::new(None), limited("pubsub 1k 0 0"));
        let uncounted = "x".repeat(UNCOUNTED_OUTPUT_BYTES);
        assert_eq!(push(&outbox, &uncounted, 0, &config), Pushed::Queued);
        assert_eq!(push(&outbox, &"x".repeat(1000), 0, &config), Pushed::Queued);
        assert_eq!(push(&outbox, "x", 0, &config), Pushed::CutOff);
        assert!(outbox.is_closed());
        assert_eq!(push(&outbox, "x", 0, &config), Pushed::Refused);
        assert_eq!(outbox.backlog().0, 3, "not freed by the thread that pushed");
        outbox.write_out(|_| Ok(()));
        assert_eq!(outbox.backlog(), (0, 0), "the writer frees it");
        outbox.hold();
        outbox.end();
        assert_eq!(outbox.backlog(), (0, 0));
    }

    #[test]
    fn the_soft_limit_needs_uninterrupted_time() {
        let (outbox, config) = (Outbox::new(None), limited("pubsub 0 1 1"));
        let limit = &config.client_output_buffer_limit.pubsub;
        let large = "x".repeat(UNCOUNTED_OUTPUT_BYTES + 2);
        assert_eq!(push(&outbox, &large, 0, &config), Pushed::Queued);
        let long_ago = Instant::now().checked_sub(Duration::from_secs(9)).expect("a time");
        outbox.lock().over_since = Some(long_ago);
        // Everything is written, so the time starts again.
        outbox.forget(large.len());
        assert!(!outbox.check(limit));
        assert_eq!(push(&outbox, &large, 0, &config), Pushed::Queued);
        outbox.lock().over_since = Some(long_ago);
        assert!(outbox.check(limit));
    }

    #[test]
    fn a_message_whose_change_is_not_in_the_log_is_not_written() {
        use std::io::Read;
        use std::os::unix::net::UnixStream;
        let (mut client, server) = UnixStream::pair().expect("a pair of sockets");
        let (outbox, config) = (Outbox::new(Some(Arc::new(Socket::Unix(server)))), Config::new());
        for (text, lsn) in [("a", 5), ("b", 7), ("c", 6)] {
            push(&outbox, text, lsn, &config);
        }
        let flush = |lsn| if lsn > 6 { Err(ErrorKind::Other.into()) } else { Ok(()) };
        outbox.write_out(flush);
        outbox.close();
        let mut written = String::new();
        client.read_to_string(&mut written).expect("read what was written");
        assert_eq!(written, "ac");
        assert_eq!((outbox.backlog(), outbox.sent.get()), ((0, 0), 2));
    }
}
