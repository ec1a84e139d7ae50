//! One connection: read, carry out, reply, wait. The whole life of a client's thread.
//!
//! The thread runs every command that its read buffer already holds; the replies collect. When there
//! is nothing left to do but wait, or when the replies have grown large, they are sent, always in
//! two steps: first the log is flushed as far as the replies show (and under `appendfsync always`
//! synced), then the socket is written. So one flush and one write serve a whole pipeline, and no
//! client is ever told of a change that a crash could take back.

use std::io::{self, BufRead, BufReader, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crate::config::{FsyncPolicy, Level};
use crate::dispatch;
use crate::resp::{CommandError, Protocol, Reply, Request};
use crate::session::{Client, Server, Session};
use crate::socket::Socket;

/// What one read takes from the socket at most.
const READ_BYTES: usize = 16 << 10;
/// Replies that have grown to this are sent before the next command.
const REPLY_BYTES: usize = 64 << 10;

/// Serves a client until it leaves, breaks the protocol or is sent away.
pub(super) fn serve(server: &Server, socket: &Socket, client: Arc<Client>) {
    let id = client.id;
    let (from, _) = socket.addresses();
    server.config.say(Level::Verbose, format_args!("Client {id} has come from {from}"));
    // Taken out again however the thread ends.
    let _entry = server.clients.entry(id);
    let mut connection = Connection {
        server,
        socket,
        session: Session::new(client, !server.wants_password()),
        reply: Reply::new(Protocol::Resp2),
        commands: 0,
    };
    // An error means that the client is gone: there is nobody left to tell.
    connection.run().unwrap_or_default();
    server.config.say(Level::Verbose, format_args!("Client {id} has gone"));
}

struct Connection<'a> {
    server: &'a Server,
    socket: &'a Socket,
    session: Session,
    reply: Reply,
    /// Commands carried out since the last sending.
    commands: u64,
}

impl Drop for Connection<'_> {
    /// However the thread ends, it leaves no watched key behind.
    fn drop(&mut self) {
        self.session.unwatch(&self.server.keyspace);
    }
}

impl Connection<'_> {
    fn run(&mut self) -> io::Result<()> {
        self.socket.send_at_once()?;
        let mut input = BufReader::with_capacity(READ_BYTES, self.socket);
        let mut request = Request::new(0);
        loop {
            request.bulk_limit = self.server.config.proto_max_bulk_len.load(Relaxed);
            request.unauthenticated = !self.session.authenticated;
            let progress = match request.feed(input.buffer()) {
                Ok(progress) => progress,
                Err(error) => {
                    let error = format!("ERR Protocol error: {error}");
                    self.reply.error(&CommandError::from(error));
                    return self.send();
                }
            };
            input.consume(progress.used);
            if progress.complete {
                dispatch::execute(self.server, &mut self.session, request.args(), &mut self.reply);
                self.commands += 1;
                request.clear();
                if self.session.closing {
                    return self.send();
                }
                if self.reply.len() >= REPLY_BYTES {
                    self.send()?;
                }
                continue;
            }
            self.send()?;
            let arrived = input.fill_buf()?.len();
            if arrived == 0 {
                return Ok(());
            }
            self.server.stats.input_bytes.add(arrived as u64);
        }
    }

    /// Flushes the log as far as the replies show, then sends them.
    fn send(&mut self) -> io::Result<()> {
        if self.reply.is_empty() {
            return Ok(());
        }
        self.session.publish();
        let commands = std::mem::take(&mut self.commands);
        self.server.stats.commands.add(commands);
        let durable = self.make_durable();
        self.session.seen = 0; // what comes next shows what it shows, whatever became of this
        if let Err(error) = durable {
            // None of these replies may be seen: each command gets the error instead. What the
            // commands changed is in memory, and in the log as soon as that can be written.
            self.reply.clear(0);
            let text = format!("MISCONF Errors writing to the AOF file: {error}");
            (0..commands).for_each(|_| self.reply.error(&CommandError::from(text.clone())));
        }
        let mut socket = self.socket;
        socket.write_all(self.reply.bytes())?;
        self.server.stats.output_bytes.add(self.reply.len() as u64);
        self.reply.clear(REPLY_BYTES);
        Ok(())
    }

    fn make_durable(&self) -> io::Result<()> {
        match self.server.config.fsync_policy() {
            FsyncPolicy::Always => self.server.aof.sync_to(self.session.seen),
            FsyncPolicy::EverySecond | FsyncPolicy::No => {
                self.server.aof.flush_to(self.session.seen)
            }
        }
    }
}
