//! A replica's link to its master: how it is established, and what happens when it breaks.
//!
//! One thread waits for changes of the master and starts a link for each *term*
//! ([`crate::replication::upstream`]). A link connects, introduces itself ([`wire`]) and asks with `PSYNC`
//! for what follows its own end of the history. The master grants that, or sends all of its data first
//! ([`sync`](mod@sync)); then comes its stream ([`stream`]). When the connection breaks, the link begins
//! again: almost at once if it had been up, or else after a second.
//!
//! Before the first connection of a term the link locks all shards once. Every write before that is in the
//! log by then, and every later one finds this server a replica, which logs nothing of its own. So the log
//! ends at the offset that the link asks for.

mod failover;
mod stream;
mod sync;
mod wire;

use std::convert::Infallible;
use std::io;
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::config::logger::log_line;
use crate::net::socket::Socket;
use crate::rdb;
use crate::replication::identity::random_id;
use crate::replication::upstream::{Address, Stage, Work};
use crate::session::Server;
use wire::{Granted, Wire};

/// How long a link waits before it connects again …
const RETRY: Duration = Duration::from_secs(1);
/// … if it had been up: the master may keep only a second's worth of its stream …
const RETRY_LOST: Duration = Duration::from_millis(50);
/// … and before it asks again for data that cannot be held here.
const RETRY_UNSUPPORTED: Duration = Duration::from_secs(10);

/// Why a link ended.
enum End {
    /// This server has another master, or none.
    Over,
    /// The connection broke.
    Broken(String),
    /// The master refused.
    Refused(String),
    /// A command of the master cannot be executed here.
    Diverged(String),
    /// The master has data that cannot be held here.
    Unsupported(String),
}

impl End {
    /// How long the link waits before it begins again.
    fn pause(&self, was_up: bool) -> Duration {
        match self {
            End::Broken(_) if was_up => RETRY_LOST,
            End::Unsupported(_) => RETRY_UNSUPPORTED,
            _ => RETRY,
        }
    }
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> End {
        End::Broken(error.to_string())
    }
}

impl From<rdb::Error> for End {
    fn from(error: rdb::Error) -> End {
        match error {
            rdb::Error::Io(error) => error.into(),
            rdb::Error::Corrupt { .. } => End::Broken(format!("the master's data is {error}")),
            rdb::Error::Unsupported { .. } => End::Unsupported(error.to_string()),
        }
    }
}

/// Starts a link for each master that this server gets.
pub(super) fn supervise(server: &Arc<Server>) {
    let mut known = 0;
    loop {
        let work = server.upstream.wait_for_work(known);
        let own = server.clone();
        let started = match work {
            Work::Link(term, master) => {
                known = term;
                super::spawn("link", move || Link { server: own, term, master }.run())
            }
            Work::Failover => super::spawn("failover", move || failover::carry_out(&own)),
        };
        if let Err(why) = started {
            log_line!(server.config, Warning, "A change of the master was not carried out: {why}");
        }
    }
}

/// The link of one term.
struct Link {
    server: Arc<Server>,
    term: u64,
    master: Address,
}

impl Link {
    fn run(&self) {
        let server = &self.server;
        let Address { host, port } = &self.master;
        self.stop_writing();
        if server.upstream.failover().is_none() {
            server.replication.replicas.disconnect(); // they ask again, and learn of our id then
        }
        // Whether the data is known to differ from the master's.
        let mut differs = false;
        loop {
            let Err(end) = self.attempt(&mut differs);
            let was_up = server.upstream.is_up();
            if !server.upstream.enter(self.term, Stage::Down) {
                return;
            }
            let pause = end.pause(was_up);
            match end {
                End::Over => return,
                End::Broken(why) | End::Refused(why) => {
                    log_line!(
                        server.config,
                        Warning,
                        "The link to the master {host}:{port} is down: {why}"
                    );
                }
                End::Diverged(why) => {
                    differs = true;
                    let text = "The master sent a command that fails here, so its data will be fetched anew";
                    log_line!(server.config, Warning, "{text}: {why}");
                }
                End::Unsupported(why) => {
                    let text =
                        "The master has data that cannot be held here, so ours stays as it is";
                    log_line!(server.config, Warning, "{text}: {why}");
                }
            }
            if !server.upstream.pause(self.term, pause) {
                return;
            }
        }
    }

    /// Waits for writes that were admitted before this server became a replica. From now on the log takes
    /// only what comes from the master.
    fn stop_writing(&self) {
        let mut all = self.server.keyspace.write_all(0);
        all.stop();
        if self.server.upstream.failover().is_some() {
            self.server.replication.ask_for_end(&self.server.aof); // after the last write
        }
        if let Some(_in_term) = self.server.upstream.in_term(self.term) {
            self.server.aof.follow();
        }
    }

    /// Connects, and follows the master until the link breaks.
    fn attempt(&self, differs: &mut bool) -> Result<Infallible, End> {
        let Link { server, term, master } = self;
        let enter = |stage| server.upstream.enter(*term, stage).then_some(()).ok_or(End::Over);
        enter(Stage::Connecting)?;
        log_line!(
            server.config,
            Notice,
            "Connecting to the master {}:{}",
            master.host,
            master.port
        );
        let socket = Arc::new(Socket::Tcp(self.connect()?));
        if !server.upstream.connected(*term, &socket) {
            return Err(End::Over);
        }
        enter(Stage::Handshake)?;
        let mut wire = Wire::new(server, *term, &socket)?;
        wire.introduce()?;
        let granted = self.ask_for_stream(&mut wire, *differs)?;
        let db = match granted {
            Granted::Rest(id) => {
                self.go_on_as(id)?;
                log_line!(server.config, Notice, "The master sends what has changed since");
                server.aof.selected_db().unwrap_or(0)
            }
            Granted::Everything { id, offset } => self.fetch_all(&mut wire, &id, offset)?,
            Granted::Unnamed => self.fetch_all(&mut wire, &random_id(), 0)?,
        };
        *differs = false;
        enter(Stage::Up)?;
        let client = server.clients.register(socket.clone());
        let ended = self.follow_stream(&mut wire, client.clone(), db);
        server.deregister(client.id);
        ended
    }

    /// Asks for what follows our history, or for all data. During a failover the master is told that it is
    /// one now; its refusal ends that.
    fn ask_for_stream(&self, wire: &mut Wire, for_all: bool) -> Result<Granted, End> {
        let fails_over = self.hand_over()?;
        let granted = wire.ask_for_stream(for_all, fails_over);
        match &granted {
            Ok(_) => self.end_failover(),
            Err(End::Refused(why)) if fails_over => {
                let text = format!("Failover target rejected psync request: {why}");
                self.server.abort_failover(&text);
            }
            Err(_) => {}
        }
        granted
    }

    fn connect(&self) -> io::Result<TcpStream> {
        let Address { host, port } = &self.master;
        let limit = Duration::from_secs(self.server.config.repl_timeout.load(Relaxed) as u64);
        let mut failure = io::Error::other("the name has no address");
        for address in (host.as_str(), *port).to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, limit) {
                Ok(stream) => return Ok(stream),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// The master goes on with our history, perhaps under another id.
    fn go_on_as(&self, id: Option<String>) -> Result<(), End> {
        let server = &self.server;
        let _in_term = server.upstream.in_term(self.term).ok_or(End::Over)?;
        if let Some(id) = id.filter(|id| *id != server.replication.identity.id()) {
            server.replication.change_id(&server.aof, Some(id));
            server.replication.replicas.disconnect();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_that_was_up_begins_again_before_the_master_has_forgotten_where_it_was() {
        let broken = || End::Broken(String::new());
        assert!(broken().pause(true) <= Duration::from_millis(100));
        assert_eq!(broken().pause(false), RETRY);
        // What would only fail in the same way again takes its time.
        assert_eq!(End::Diverged(String::new()).pause(true), RETRY);
        assert!(End::Unsupported(String::new()).pause(false) > RETRY);
    }
}
