//! What goes to one client: its own replies, and what others send it.
//!
//! As long as nobody else sends it anything, a connection's thread writes its own replies, and nothing
//! here is used but [`Outbox::write_alone`]. A client that listens (to channels, to other clients' commands,
//! to changes of what it caches) must get messages while its thread waits for its next command. From then
//! on everything for it goes through a queue that a thread of its own writes to the socket:
//! [`Outbox::write_out`], which lives as long as the client listens. To a client that another one has
//! *redirected* its messages to, they may come although it listens to nothing itself: it gets that thread
//! from outside, and keeps it.
//!
//! What always holds:
//!
//! - **Order.** While the connection's thread carries out commands, its replies are not in the queue yet,
//!   so messages of others are *held*. Behind each command they go into its replies
//!   ([`Outbox::take_held`]), or behind all of them when those are sent. So a client sees its commands and
//!   the messages in one order, in which every command is a single moment, as in a server that does one
//!   thing at a time: the confirmation of a subscription comes before the first message.
//! - **Who pushes never waits** for the client. What is not written yet is counted, and a client that lets
//!   more pile up than `client-output-buffer-limit` allows its class is disconnected. Its own replies
//!   do wait for room: that slows nobody but itself.
//! - **The log first.** A message shows what its sender has seen, so it carries a position of the
//!   log, and the log is flushed that far before it is written. The writer does it, not the sender:
//!   many messages, one flush. What a transaction sends waits for the position behind its block.
//! - **One writes.** There is one writer at most, and while there is one nobody else writes; when it comes
//!   from outside it waits until the client's thread has written the replies it is at.
//!
//! Locks: whose turn it is to write, held by him; then the queue, the last in the lock order, never held
//! while a socket is written.

use std::io::{self, ErrorKind, IoSlice, Write};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::config::{OutputLimit, UNCOUNTED_OUTPUT_BYTES};
use crate::net::socket::Socket;
use crate::resp::{Protocol, Reply};
use crate::stats::meter::OwnCounter;

/// A client's own replies wait while more than this is on its way to it.
const OWN_BYTES: usize = 1 << 20;

/// The way to one client.
pub struct Outbox {
    /// The replay of the log has none.
    socket: Option<Arc<Socket>>,
    resp3: AtomicBool,
    closed: AtomicBool,
    /// Bytes written to the socket. Counted while `turn` is held.
    pub sent: Arc<OwnCounter>,
    queue: Mutex<Queue>,
    /// The writer has something to do, or its client's thread need not wait any more.
    changed: Condvar,
    /// There is a writer. Changed only while the queue is locked.
    has_writer: AtomicBool,
    /// Held while the socket is written.
    turn: Mutex<()>,
}

#[derive(Default)]
struct Queue {
    /// To be written, in this order.
    pieces: Vec<Piece>,
    /// What others sent while the client's thread carries out commands.
    held: Vec<Piece>,
    holding: bool,
    /// How much is not written: `pieces`, `held`, and what the writer is about to write.
    bytes: usize,
    /// Since when it has been more than the soft limit.
    over_since: Option<Instant>,
    /// The writer waits. Others need not wake it.
    idle: bool,
    /// The writer is to end when all is written.
    ending: bool,
    /// Another client's messages go here, whether this one listens or not: the writer is to stay.
    redirected: bool,
    /// The connection ends when all is written. Nothing more comes from others.
    closing: bool,
}

struct Piece {
    bytes: Arc<[u8]>,
    /// How far the log must be flushed before the client may see it.
    position: VisibleAt,
}

/// A position of the log.
#[derive(Clone)]
pub enum VisibleAt {
    /// This one.
    Lsn(u64),
    /// That behind a transaction which is being carried out.
    Promised(Promise),
}

/// What will be a position of the log, as soon as a transaction stands there. Whoever waits for it holds no
/// lock, and a transaction waits for nobody, so it comes soon.
pub type Promise = Arc<OnceLock<u64>>;

impl VisibleAt {
    fn wait(&self) -> u64 {
        match self {
            VisibleAt::Lsn(position) => *position,
            VisibleAt::Promised(promise) => *promise.wait(),
        }
    }
}

impl From<u64> for VisibleAt {
    fn from(position: u64) -> VisibleAt {
        VisibleAt::Lsn(position)
    }
}

impl Outbox {
    /// The way to whoever is at the other end.
    pub fn new(socket: Option<Arc<Socket>>) -> Outbox {
        Outbox {
            socket,
            resp3: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            sent: Arc::default(),
            queue: Mutex::default(),
            changed: Condvar::new(),
            has_writer: AtomicBool::new(false),
            turn: Mutex::default(),
        }
    }

    /// The socket, if there is one.
    pub fn socket(&self) -> Option<&Socket> {
        self.socket.as_deref()
    }

    /// What the client speaks.
    pub fn protocol(&self) -> Protocol {
        if self.resp3.load(SeqCst) { Protocol::Resp3 } else { Protocol::Resp2 }
    }

    /// From here on the client speaks that.
    pub fn speak(&self, protocol: Protocol) {
        self.resp3.store(protocol == Protocol::Resp3, SeqCst);
    }

    // ---- Others ----

    /// Sends a message to the client. Returns whether that was too much and has disconnected it.
    pub fn push(&self, bytes: &Arc<[u8]>, position: VisibleAt, limit: &OutputLimit) -> bool {
        let mut queue = self.lock();
        if self.is_closed() || queue.closing {
            return false;
        }
        queue.bytes += bytes.len();
        let piece = Piece { bytes: bytes.clone(), position };
        if queue.holding {
            queue.held.push(piece);
        } else {
            queue.pieces.push(piece);
            self.wake(&mut queue);
        }
        self.cut_if_over(queue, limit)
    }

    /// Disconnects the client if what has piled up for it is beyond the limit.
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

    /// How many pieces, and how many bytes, are not written yet.
    pub fn backlog(&self) -> (usize, usize) {
        let queue = self.lock();
        (queue.pieces.len() + queue.held.len(), queue.bytes)
    }

    // ---- The client's own thread ----

    /// Messages have to wait from here on, until the replies are sent.
    pub fn hold(&self) {
        self.lock().holding = true;
    }

    /// Moves what was held into the replies, to where there were `at` bytes; what comes is held on only if
    /// the client still `listens`. Returns how far the log must be flushed for it.
    pub fn take_held(&self, reply: &mut Reply, at: usize, listens: bool) -> u64 {
        let mut queue = self.lock();
        queue.holding = listens;
        let held = std::mem::take(&mut queue.held);
        queue.bytes -= held.iter().map(|piece| piece.bytes.len()).sum::<usize>().min(queue.bytes);
        drop(queue);
        if held.is_empty() {
            return 0;
        }
        let pieces: Vec<&[u8]> = held.iter().map(|piece| &*piece.bytes).collect();
        reply.insert(at, &pieces.concat());
        held.iter().map(|piece| piece.position.wait()).max().unwrap_or(0)
    }

    /// Keeps a writer that may come from the socket, as long as what it returns lives; nothing if there is
    /// a writer already.
    pub fn try_exclusive_write(&self) -> Option<MutexGuard<'_, ()>> {
        // Not waiting for it: a writer's turn may last as long as its client does not read.
        let turn = self.turn.try_lock().ok()?;
        (!self.has_writer.load(SeqCst)).then_some(turn)
    }

    /// Ends the connection from its own thread: closes it, waits until a write in progress has ended and is
    /// counted, which is soon with the socket closed, and frees what is not written.
    pub fn end(&self) {
        self.close();
        drop(self.turn.lock().unwrap_or_else(PoisonError::into_inner));
        self.free_backlog();
    }

    /// Frees what a closed connection has not written: perhaps hundreds of megabytes, so not under a lock.
    fn free_backlog(&self) {
        let mut queue = self.lock();
        let backlog = (std::mem::take(&mut queue.pieces), std::mem::take(&mut queue.held));
        queue.bytes = 0;
        drop(queue);
        drop(backlog);
    }

    /// Writes replies, for which the log is flushed, unless there is a writer: it says no then.
    ///
    /// # Errors
    /// The client is gone.
    pub fn write_alone(&self, replies: &[u8]) -> io::Result<bool> {
        let Some(_turn) = self.try_exclusive_write() else { return Ok(false) };
        // Counted first: whoever has seen a reply finds it in the statistics.
        self.sent.add(replies.len() as u64);
        self.socket().map_or(Ok(()), |mut socket| socket.write_all(replies))?;
        Ok(true)
    }

    /// Sends replies, for which the log is flushed, and behind them what was held.
    pub fn send_own(&self, replies: &[u8]) {
        let mut queue = self.lock();
        while queue.bytes > OWN_BYTES && !queue.pieces.is_empty() && !self.is_closed() {
            queue = self.wait(queue);
        }
        if self.is_closed() {
            return;
        }
        if !replies.is_empty() {
            queue.bytes += replies.len();
            queue.pieces.push(Piece { bytes: replies.into(), position: 0.into() });
        }
        let held = std::mem::take(&mut queue.held);
        queue.pieces.extend(held);
        queue.holding = false;
        self.wake(&mut queue);
    }

    /// Has the writer, if there is one, write everything and end, and waits for that. One that is needed
    /// from outside stays, unless the connection is `closing`: then nothing more is taken from there.
    pub fn end_writer(&self, closing: bool) {
        let mut queue = self.lock();
        if queue.redirected && !closing {
            return;
        }
        queue.closing = closing;
        queue.ending = true;
        self.wake(&mut queue);
        while queue.ending && self.has_writer.load(SeqCst) && !self.is_closed() {
            queue = self.wait(queue);
        }
        queue.ending = false;
    }

    // ---- The writer ----

    /// Claims the place of the writer, unless there is one, or nothing to be written any more.
    pub fn claim_writer(&self) -> bool {
        let _queue = self.lock();
        !self.is_closed() && !self.has_writer.swap(true, SeqCst)
    }

    /// As [`Outbox::claim_writer`], for a client that need not listen: messages of another one go to it.
    pub fn claim_redirected(&self) -> bool {
        let mut queue = self.lock();
        if queue.closing {
            return false; // there is an end to be waited for
        }
        queue.redirected = true;
        queue.ending = false; // whoever waits for that goes on with the writer there is
        drop(queue);
        self.changed.notify_all();
        self.claim_writer()
    }

    /// Writes what comes, until [`Outbox::end_writer`] or the end of the connection. `flush` flushes the log
    /// as far as it is told.
    pub fn write_out(&self, flush: impl Fn(u64) -> io::Result<()>) {
        let _whatever_happens = Writing(self);
        while let Some(mut pieces) = self.next() {
            let farthest = pieces.iter().map(|piece| piece.position.wait()).max().unwrap_or(0);
            if flush(farthest).is_err() {
                // Nobody may be shown what the log does not have. The sender gets an error for it; to
                // those whom it was sent to, it has not happened.
                pieces.retain(|piece| {
                    let may_be_seen = flush(piece.position.wait()).is_ok();
                    if !may_be_seen {
                        self.forget(piece.bytes.len());
                    }
                    may_be_seen
                });
            }
            if self.write(&pieces).is_err() {
                self.close();
                return;
            }
        }
    }

    /// Waits for something to write.
    fn next(&self) -> Option<Vec<Piece>> {
        let mut queue = self.lock();
        loop {
            if self.is_closed() {
                return None;
            }
            if !queue.pieces.is_empty() {
                return Some(std::mem::take(&mut queue.pieces));
            }
            if queue.ending {
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
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let mut slices: Vec<IoSlice> = pieces.iter().map(|p| IoSlice::new(&p.bytes)).collect();
        let mut rest = &mut slices[..];
        while !rest.is_empty() {
            match socket.write_vectored(rest) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => {
                    IoSlice::advance_slices(&mut rest, written);
                    self.forget(written);
                    self.sent.add(written as u64);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// So many bytes are not on their way any more.
    fn forget(&self, bytes: usize) {
        let mut queue = self.lock();
        queue.bytes = queue.bytes.saturating_sub(bytes);
        if queue.bytes == 0 {
            queue.over_since = None;
        }
        drop(queue);
        self.changed.notify_all(); // its client's thread may be waiting for room
    }

    fn wake(&self, queue: &mut Queue) {
        if std::mem::take(&mut queue.idle) {
            self.changed.notify_all();
        }
    }

    fn wait<'a>(&self, queue: MutexGuard<'a, Queue>) -> MutexGuard<'a, Queue> {
        self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner)
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

    fn push(outbox: &Outbox, text: &str, position: u64, config: &Config) -> bool {
        let limit = &config.client_output_buffer_limit.pubsub;
        outbox.push(&text.as_bytes().into(), position.into(), limit)
    }

    /// What the writer would write next.
    fn next(outbox: &Outbox) -> Vec<u8> {
        let pieces = outbox.next().unwrap_or_default();
        pieces.iter().flat_map(|piece| piece.bytes.to_vec()).collect()
    }

    #[test]
    fn what_is_held_goes_behind_the_replies_or_into_them() {
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
        outbox.send_own(reply.bytes());
        push(&outbox, "e", 0, &config);
        assert_eq!(next(&outbox), b"bc+OK\r\nde");
        assert_eq!(outbox.lock().pieces.capacity(), 0, "a burst leaves no memory behind");
    }

    #[test]
    fn what_is_held_for_who_does_not_listen_any_more_is_sent_at_once() {
        let (outbox, config) = (Outbox::new(None), Config::new());
        outbox.hold();
        outbox.take_held(&mut Reply::new(Protocol::Resp2), 0, false);
        push(&outbox, "a", 0, &config);
        assert_eq!(next(&outbox), b"a");
    }

    #[test]
    fn the_end_waits_for_what_is_to_be_written_whoever_redirects_to_it() {
        let (outbox, config) = (Outbox::new(None), Config::new());
        assert!(outbox.claim_writer());
        push(&outbox, "a", 0, &config);
        std::thread::scope(|scope| {
            let ending = scope.spawn(|| outbox.end_writer(true));
            while !outbox.lock().ending {
                std::thread::yield_now();
            }
            assert!(!outbox.claim_redirected() && !ending.is_finished());
            push(&outbox, "too late", 0, &config);
            assert_eq!(next(&outbox), b"a");
            assert!(outbox.lock().ending && outbox.next().is_none());
        });
    }

    #[test]
    fn a_redirection_keeps_the_writer_that_was_to_end() {
        let outbox = Outbox::new(None);
        assert!(outbox.claim_writer());
        std::thread::scope(|scope| {
            scope.spawn(|| outbox.end_writer(false));
            while !outbox.lock().ending {
                std::thread::yield_now();
            }
            assert!(!outbox.claim_redirected(), "there is one");
        });
        outbox.end_writer(false);
        assert!(outbox.try_exclusive_write().is_none());
    }

    #[test]
    fn nobody_waits_for_a_writer_whose_client_does_not_read() {
        let outbox = Outbox::new(None);
        let _writing = outbox.turn.lock();
        assert!(outbox.try_exclusive_write().is_none());
    }

    #[test]
    fn too_much_ends_it_and_is_freed_by_its_own_threads() {
        let (outbox, config) = (Outbox::new(None), limited("pubsub 1k 0 0"));
        let uncounted = "x".repeat(UNCOUNTED_OUTPUT_BYTES);
        assert!(!push(&outbox, &uncounted, 0, &config));
        assert!(!push(&outbox, &"x".repeat(1000), 0, &config));
        assert!(push(&outbox, "x", 0, &config) && outbox.is_closed());
        assert!(!push(&outbox, "x", 0, &config), "it ends only once");
        assert_eq!(outbox.backlog().0, 3, "not freed by whoever pushed");
        outbox.write_out(|_| Ok(()));
        assert_eq!(outbox.backlog(), (0, 0), "the writer frees it");
        outbox.hold();
        outbox.end();
        assert_eq!(outbox.backlog(), (0, 0));
    }

    #[test]
    fn the_soft_limit_counts_the_time_without_a_break() {
        let (outbox, config) = (Outbox::new(None), limited("pubsub 0 1 1"));
        let limit = &config.client_output_buffer_limit.pubsub;
        let large = "x".repeat(UNCOUNTED_OUTPUT_BYTES + 2);
        assert!(!push(&outbox, &large, 0, &config));
        let long_ago = Instant::now().checked_sub(Duration::from_secs(9)).expect("a time");
        outbox.lock().over_since = Some(long_ago);
        // All of it is written: the time begins anew.
        outbox.forget(large.len());
        assert!(!outbox.check(limit));
        assert!(!push(&outbox, &large, 0, &config));
        outbox.lock().over_since = Some(long_ago);
        assert!(outbox.check(limit));
    }

    #[test]
    fn what_the_log_does_not_have_is_not_written() {
        use std::io::Read;
        use std::os::unix::net::UnixStream;
        let (mut client, server) = UnixStream::pair().expect("a pair of sockets");
        let (outbox, config) = (Outbox::new(Some(Arc::new(Socket::Unix(server)))), Config::new());
        for (text, position) in [("a", 5), ("b", 7), ("c", 6)] {
            push(&outbox, text, position, &config);
        }
        outbox.lock().ending = true;
        let flush = |position| if position > 6 { Err(ErrorKind::Other.into()) } else { Ok(()) };
        outbox.write_out(flush);
        outbox.close();
        let mut written = String::new();
        client.read_to_string(&mut written).expect("read what was written");
        assert_eq!(written, "ac");
        assert_eq!((outbox.backlog(), outbox.sent.get()), ((0, 0), 2));
    }
}
