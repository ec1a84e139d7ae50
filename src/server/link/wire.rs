//! The connection to the master: lines, requests, and signs of life.
//!
//! Once a second the master gets a sign of life: an empty line while it sends its data, and then an
//! acknowledgement of how much of its stream the log has. It gets one as well whenever the stream pauses,
//! since a failover may wait for it. A master that is silent for `repl-timeout` seconds is given up.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::End;
use crate::config::FsyncPolicy;
use crate::config::logger::log_line;
use crate::net::socket::Socket;
use crate::resp::request::encode;
use crate::session::Server;

const READ_BYTES: usize = 256 << 10;
/// The newest Valkey whose data can be read here. A Valkey sends expiring fields only to one that is new
/// enough; a Redis does not ask.
const VALKEY_VERSION: &[u8] = b"9.1.0";
/// How often the master gets a sign of life.
const BEAT: Duration = Duration::from_secs(1);
/// When nothing has come for so long, what has come is acknowledged.
const LULL: Duration = Duration::from_millis(10);
/// The longest line that a master sends.
const LINE_LIMIT: u64 = 4096;

/// What the master grants to a `PSYNC`.
pub(super) enum Granted {
    /// The rest of our history, which may have got another id.
    Rest(Option<String>),
    /// All of its data, which has this id and offset.
    Everything { id: String, offset: u64 },
    /// All of its data, without an id: it knows `SYNC` only. Nothing can go on after a break.
    Unnamed,
}

/// What the master gets as a sign of life.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Beat {
    Nothing,
    EmptyLine,
    Acknowledgement,
}

/// See the module documentation.
pub(super) struct Wire<'a> {
    input: BufReader<Patient<'a>>,
}

/// The socket, read with patience.
struct Patient<'a> {
    server: &'a Server,
    socket: &'a Socket,
    term: u64,
    beat: Beat,
    /// The master would answer signs of life with errors, in the middle of its stream.
    is_silent: bool,
    /// An acknowledgement is due as soon as the stream pauses.
    owes: bool,
    last_beat: Instant,
    heard: Instant,
}

impl<'a> Wire<'a> {
    pub(super) fn new(
        server: &'a Server,
        term: u64,
        socket: &'a Arc<Socket>,
    ) -> io::Result<Wire<'a>> {
        socket.send_at_once(true)?;
        socket.set_read_timeout(Some(BEAT))?;
        socket.set_write_timeout(Some(timeout(server)))?;
        let now = Instant::now();
        let patient = Patient {
            server,
            socket,
            term,
            beat: Beat::Nothing,
            is_silent: false,
            owes: false,
            last_beat: now,
            heard: now,
        };
        Ok(Wire { input: BufReader::with_capacity(READ_BYTES, patient) })
    }

    /// What comes from the master.
    pub(super) fn input(&mut self) -> &mut impl BufRead {
        &mut self.input
    }

    /// Tells the master who this is.
    pub(super) fn introduce(&mut self) -> Result<(), End> {
        let server = self.input.get_ref().server;
        let config = &server.config;
        let pong = self.call(&[b"PING"])?;
        // One that wants a password first is fine too.
        let is_fine = ["+", "-NOAUTH", "-NOPERM", "-ERR operation not permitted"];
        if !is_fine.iter().any(|start| pong.starts_with(start)) {
            return Err(End::Broken(format!("it answers PING with '{pong}'")));
        }
        let (user, password) = (config.masteruser.get(), config.masterauth.get());
        if !password.is_empty() {
            let words = [b"AUTH", user.as_bytes(), password.as_bytes()];
            let words: Vec<&[u8]> = words.into_iter().filter(|word| !word.is_empty()).collect();
            let answer = self.call(&words)?;
            if answer.starts_with('-') {
                return Err(End::Broken(format!("unable to AUTH: {answer}")));
            }
        }
        let port = match config.replica_announce_port.load(Relaxed) {
            0 => i64::from(server.port.load(Relaxed)),
            port => port,
        };
        let (port, ip) = (port.to_string(), config.replica_announce_ip.get());
        let mut facts: Vec<Vec<&[u8]>> = vec![vec![b"listening-port", port.as_bytes()]];
        if !ip.is_empty() {
            facts.push(vec![b"ip-address", ip.as_bytes()]);
        }
        facts.push(vec![b"capa", b"eof", b"capa", b"psync2"]);
        facts.push(vec![b"version", VALKEY_VERSION]);
        for fact in facts {
            let words: Vec<&[u8]> = [&b"REPLCONF"[..]].into_iter().chain(fact).collect();
            let answer = self.call(&words)?;
            if answer.starts_with('-') {
                let what = words[1].escape_ascii();
                let text = format!("(Non critical) Master does not understand REPLCONF {what}");
                log_line!(config, Verbose, "{text}: {answer}");
            }
        }
        Ok(())
    }

    /// Asks for what follows our history, or for all data. `fails_over` makes the other server a master.
    pub(super) fn ask_for_stream(
        &mut self,
        for_all: bool,
        fails_over: bool,
    ) -> Result<Granted, End> {
        let server = self.input.get_ref().server;
        let id = server.replication.identity.id();
        let next = (server.replication.offset(&server.aof) + 1).to_string();
        let (id, next) = if for_all { ("?".into(), "-1".into()) } else { (id, next) };
        log_line!(server.config, Notice, "Asking the master for {id}:{next}");
        let mut request: Vec<&[u8]> = vec![b"PSYNC", id.as_bytes(), next.as_bytes()];
        if fails_over {
            request.push(b"FAILOVER");
        }
        let answer = self.call(&request)?;
        let words: Vec<&str> = answer.split(' ').collect();
        match words[..] {
            ["+FULLRESYNC", id, offset] if is_id(id) => {
                let offset = offset.parse().ok().filter(|offset| *offset < 1 << 62);
                let offset = offset.ok_or_else(|| unexpected("PSYNC", &answer))?;
                Ok(Granted::Everything { id: id.into(), offset })
            }
            ["+CONTINUE"] => Ok(Granted::Rest(None)),
            ["+CONTINUE", id] if is_id(id) => Ok(Granted::Rest(Some(id.into()))),
            ["-ERR", "unknown", "command", ..] if !fails_over => {
                log_line!(server.config, Notice, "The master does not know PSYNC, so it gets SYNC");
                self.input.get_mut().is_silent = true;
                self.input.get_ref().write(b"*1\r\n$4\r\nSYNC\r\n")?;
                Ok(Granted::Unnamed)
            }
            _ => Err(unexpected("PSYNC", &answer)),
        }
    }

    /// Sends a command and returns the line that answers it.
    fn call(&mut self, words: &[&[u8]]) -> Result<String, End> {
        let mut request = Vec::new();
        encode(&mut request, words);
        self.input.get_ref().write(&request)?;
        self.line()
    }

    /// The next line that is not empty.
    pub(super) fn line(&mut self) -> Result<String, End> {
        loop {
            let mut line = Vec::new();
            (&mut self.input).take(LINE_LIMIT).read_until(b'\n', &mut line)?;
            if !line.ends_with(b"\n") {
                return Err(closed().into());
            }
            let line = String::from_utf8_lossy(line.trim_ascii()).into_owned();
            if !line.is_empty() {
                return Ok(line);
            }
        }
    }

    /// While the master's data comes, the master gets empty lines.
    pub(super) fn send_empty_lines(&mut self) {
        self.input.get_mut().beat = Beat::EmptyLine;
    }

    /// The master waits for an acknowledgement before it sends its stream, even if it was asked with `SYNC`.
    pub(super) fn expects_acknowledgements(&mut self) {
        self.input.get_mut().is_silent = false;
    }

    /// From now on the master gets acknowledgements, the first one at once.
    pub(super) fn send_acknowledgements(&mut self) -> io::Result<()> {
        self.input.get_mut().beat = Beat::Acknowledgement;
        self.acknowledge()
    }

    /// Tells the master how much of its stream the log has.
    pub(super) fn acknowledge(&mut self) -> io::Result<()> {
        self.input.get_mut().give_sign()
    }

    /// Gives a sign of life if it is time.
    pub(super) fn keep_alive(&mut self) -> io::Result<()> {
        self.input.get_mut().give_sign_if_due()
    }
}

impl Patient<'_> {
    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let mut socket = self.socket;
        socket.write_all(bytes)
    }

    fn give_sign_if_due(&mut self) -> io::Result<()> {
        if self.last_beat.elapsed() >= BEAT { self.give_sign() } else { Ok(()) }
    }

    fn give_sign(&mut self) -> io::Result<()> {
        self.last_beat = Instant::now();
        self.owe(false)?;
        match self.beat {
            _ if self.is_silent => Ok(()),
            Beat::Nothing => Ok(()),
            Beat::EmptyLine => self.write(b"\n"),
            Beat::Acknowledgement => self.acknowledge(),
        }
    }

    fn owe(&mut self, owes: bool) -> io::Result<()> {
        if self.owes != owes {
            self.socket.set_read_timeout(Some(if owes { LULL } else { BEAT }))?;
            self.owes = owes;
        }
        Ok(())
    }

    /// The log has everything that was executed: only this thread adds to it.
    fn acknowledge(&self) -> io::Result<()> {
        let Server { aof, replication, .. } = self.server;
        match self.server.fsync_policy() {
            FsyncPolicy::Always => aof.sync()?,
            FsyncPolicy::EverySecond | FsyncPolicy::No => aof.flush()?,
        }
        let offset = replication.offset(aof).to_string();
        let synced = replication.identity.offset(aof.synced_lsn()).to_string();
        let mut words: Vec<&[u8]> = vec![b"REPLCONF", b"ACK", offset.as_bytes()];
        if aof.is_enabled() {
            words.extend([b"FACK", synced.as_bytes()]);
        }
        let mut request = Vec::new();
        encode(&mut request, &words);
        self.write(&request)
    }
}

impl Read for Patient<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            self.give_sign_if_due()?;
            let mut socket = self.socket;
            match socket.read(buffer) {
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    if self.owes {
                        self.give_sign()?;
                    } else if self.heard.elapsed() > timeout(self.server) {
                        return Err(io::Error::other("the master is silent (repl-timeout)"));
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Ok(0) => return Err(closed()),
                Ok(read) => {
                    self.heard = Instant::now();
                    self.owe(self.beat == Beat::Acknowledgement)?;
                    self.server.replication.received.add(read as u64);
                    self.server.upstream.hear(self.term);
                    return Ok(read);
                }
                Err(error) => return Err(error),
            }
        }
    }
}

fn timeout(server: &Server) -> Duration {
    Duration::from_secs(server.config.repl_timeout.load(Relaxed) as u64)
}

fn closed() -> io::Error {
    io::Error::other("the connection was closed")
}

fn unexpected(to: &str, answer: &str) -> End {
    End::Refused(format!("it answers {to} with '{answer}'"))
}

fn is_id(id: &str) -> bool {
    id.len() == 40 && id.bytes().all(|byte| byte.is_ascii_alphanumeric())
}
