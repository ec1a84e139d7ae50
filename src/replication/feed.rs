//! Feeding one replica: the snapshot if it needs one, and then the stream, as fast as it takes them.
//!
//! Each replica has a thread for this, the writer of its connection, which blocks when the replica does not
//! read. It sends what is in files: the spool of the snapshot ([`super::spool`]) and the log
//! ([`StreamReader`]). So nothing is buffered, and a replica that stops for a day has cost nothing but the
//! disk's space.
//!
//! What a replica gets: `+FULLRESYNC id offset`, then a snapshot, framed by its length (`$length`) or by 40
//! random characters (`$EOF:mark`, and the mark again at its end), then the stream from the next offset on.
//! Or `+CONTINUE id`, and the stream. While it waits it gets empty lines, so that it knows that we are
//! there. A replica that reads up to a mark may read more by accident, so the stream waits for its first
//! acknowledgement.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use super::Replication;
use super::identity::random_id;
use super::replicas::{Phase, Replica};
use super::spool::{Begin, Read, Spool, SpoolWriter};
use crate::aof::{Aof, StreamReader};
use crate::config::Config;
use crate::config::logger::log_line;
use crate::files::nameless;
use crate::net::socket::Socket;
use crate::rdb::Dialect;
use crate::rdb::save::{Form, write_empty, write_snapshot};
use crate::store::Keyspace;
use crate::store::keyspace::SnapshotError;

/// How much is read from a file, and written to the socket, at once.
const CHUNK_BYTES: usize = 128 << 10;
/// How long the log may keep records to itself that no reply has made it flush.
const FLUSH_PERIOD: Duration = Duration::from_millis(50);
/// After something was sent, so long more is gathered, unless somebody waits for acknowledgements. Under load
/// that makes one read and one write of many, and those who flush the log need not wake this thread.
const GATHERING: Duration = Duration::from_micros(500);
/// How often a replica that waits gets an empty line.
const SIGN_PERIOD: Duration = Duration::from_secs(1);
/// So many snapshots in a row yield to FLUSHALL and similar commands. The next one makes them wait.
const YIELDS: usize = 3;

/// What a replica is to get.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Start {
    /// The stream from that LSN on.
    At(u64),
    /// A snapshot and then the stream. Whether that is announced: not to those who asked with `SYNC`.
    Snapshot { announced: bool },
}

/// Feeds a replica, until that or its connection ends. The caller has claimed the writer of the connection.
pub fn feed(
    replication: &Replication,
    (aof, keyspace, config): (&Aof, &Keyspace, &Config),
    replica: &Arc<Replica>,
    start: Start,
) {
    let ended = replica.outbox.write_with(|socket| {
        let feeder =
            Feeder { replication, aof, keyspace, config, replica: replica.clone(), socket };
        feeder.run(start)
    });
    let from = &replica.address;
    let port = replica.profile.port;
    let why = ended.err().map(|error| format!(": {error}")).unwrap_or_default();
    log_line!(config, Notice, "Replica {from}:{port} is disconnected{why}");
}

struct Feeder<'a> {
    replication: &'a Replication,
    aof: &'a Aof,
    keyspace: &'a Keyspace,
    config: &'a Config,
    replica: Arc<Replica>,
    socket: &'a Socket,
}

impl Feeder<'_> {
    fn run(&self, start: Start) -> io::Result<()> {
        self.socket.send_at_once(!self.config.repl_disable_tcp_nodelay.load(Relaxed))?;
        match start {
            Start::At(lsn) => {
                let id = self.replication.identity.id();
                let known = if self.replica.profile.knows_new_ids { &*id } else { "" };
                self.put(format!("+CONTINUE {known}").trim_end().as_bytes())?;
                self.put(b"\r\n")?;
                self.replication.go_online(&self.replica);
                self.stream(lsn)
            }
            Start::Snapshot { announced } => self.synchronize(announced),
        }
    }

    fn put(&self, bytes: &[u8]) -> io::Result<()> {
        let mut socket = self.socket;
        socket.write_all(bytes)?;
        self.replica.outbox.sent.add(bytes.len() as u64);
        self.replication.sent.add(bytes.len() as u64);
        Ok(())
    }

    /// Fails if the replica cannot go on.
    fn expect_open(&self) -> io::Result<()> {
        if self.replica.outbox.is_closed() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        if self.replication.identity.history() != self.replica.history {
            return Err(io::Error::other("the data was replaced"));
        }
        Ok(())
    }

    // ---- The stream ----

    fn stream(&self, lsn: u64) -> io::Result<()> {
        let mut reader = StreamReader::new(lsn);
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            let read = reader.read(self.aof, &mut buffer)?;
            self.expect_open()?; // looked at after the read: then it is of the history that is expected
            match read {
                0 => {
                    self.aof.wait_flushed(reader.lsn(), FLUSH_PERIOD);
                    if self.aof.flushed_lsn() <= reader.lsn()
                        && self.aof.appended_lsn() > reader.lsn()
                    {
                        self.aof.flush().unwrap_or_default(); // the next one tries again
                    }
                }
                read => {
                    self.put(&buffer[..read])?;
                    self.replica.set_sent(reader.lsn());
                    if read < buffer.len() {
                        self.replication.replicas.wait_for_news(GATHERING);
                    }
                }
            }
        }
    }

    // ---- The snapshot ----

    fn synchronize(&self, announced: bool) -> io::Result<()> {
        let profile = &self.replica.profile;
        let dialect = profile.dialect.unwrap_or_else(|| {
            // A real replica that does not say that it is a Valkey is a Redis.
            let is_replica = profile.knows_new_ids;
            if is_replica { Dialect::Redis } else { Dialect::of(self.config) }
        });
        let create = || nameless(&self.config.dump_path());
        let (spool, is_ours) =
            self.replication.spools.join(dialect, !profile.wants_no_keys, create)?;
        let reading = Reading(&spool);
        let begin = thread::scope(|scope| {
            // Ends before the thread that writes, which then may have nobody to write for.
            let _reading = reading;
            if is_ours {
                let (make, thread) = (|| self.make(&spool), thread::Builder::new());
                let started = thread.name("full sync".into()).spawn_scoped(scope, make);
                started.inspect_err(|error| spool.end(Err(error.to_string())))?;
            }
            self.send(&spool, announced)
        })?;
        if profile.wants_snapshot_only {
            self.replica.enter(Phase::Done);
            loop {
                self.expect_open()?;
                self.replication.replicas.wait_for_news(SIGN_PERIOD);
            }
        }
        self.replication.go_online(&self.replica);
        let Replica { address, profile, .. } = &*self.replica;
        log_line!(self.config, Notice, "Replica {address}:{} has the snapshot", profile.port);
        self.stream(begin.lsn)
    }

    /// Sends a snapshot.
    fn send(&self, spool: &Spool, announced: bool) -> io::Result<Begin> {
        let begin = self.wait(|| spool.wait_for_begin(SIGN_PERIOD))?;
        self.replica.set_sent(begin.lsn);
        if announced {
            self.put(format!("+FULLRESYNC {} {}\r\n", begin.id, begin.offset).as_bytes())?;
        }
        let by_mark = self.replica.profile.takes_unknown_length
            && self.config.repl_diskless_sync.load(Relaxed);
        if by_mark {
            let mark = random_id();
            self.replica.enter(Phase::Receiving);
            self.put(format!("$EOF:{mark}\r\n").as_bytes())?;
            self.send_bytes(spool)?;
            self.put(mark.as_bytes())?;
            while !self.replica.has_acknowledged() && !self.replica.profile.wants_snapshot_only {
                self.expect_open()?;
                self.replication.replicas.wait_for_news(FLUSH_PERIOD);
            }
        } else {
            let bytes = self.wait(|| spool.wait_for_end(SIGN_PERIOD))?;
            self.replica.enter(Phase::Receiving);
            self.put(format!("${bytes}\r\n").as_bytes())?;
            self.send_bytes(spool)?;
        }
        Ok(begin)
    }

    /// Waits for something, and meanwhile tells the replica that we are there.
    fn wait<T>(&self, step: impl Fn() -> io::Result<Option<T>>) -> io::Result<T> {
        loop {
            self.expect_open()?;
            match step()? {
                Some(result) => return Ok(result),
                None => self.put(b"\n")?,
            }
            self.replica.heard();
        }
    }

    fn send_bytes(&self, spool: &Spool) -> io::Result<()> {
        let mut buffer = vec![0; CHUNK_BYTES];
        let mut position = 0;
        loop {
            self.expect_open()?;
            match spool.read(&mut buffer, position, SIGN_PERIOD)? {
                Read::Bytes(read) => {
                    self.put(&buffer[..read])?;
                    position += read as u64;
                    self.replica.heard();
                }
                Read::Nothing => {}
                Read::End => return Ok(()),
            }
        }
    }

    /// Waits so that replicas that come soon share the snapshot.
    fn wait_for_others(&self, spool: &Spool) {
        let started = Instant::now();
        loop {
            let seconds = self.config.repl_diskless_sync_delay.load(Relaxed).unsigned_abs();
            let left = Duration::from_secs(seconds).saturating_sub(started.elapsed());
            if left.is_zero() || spool.is_abandoned() {
                return;
            }
            self.replication.replicas.wait_for_news(left.min(SIGN_PERIOD));
        }
    }

    /// Writes a snapshot for all who read it.
    fn make(&self, spool: &Arc<Spool>) {
        if self.config.repl_diskless_sync.load(Relaxed) {
            self.wait_for_others(spool);
        }
        let started = Instant::now();
        let result = self.write(spool).map_err(|error| match error {
            SnapshotError::Io(error) => error.to_string(),
            SnapshotError::Yielded => "the keyspace was changed as a whole meanwhile".into(),
        });
        match &result {
            Ok(bytes) => {
                let seconds = started.elapsed().as_secs_f64();
                let text = format!("{bytes} bytes, {seconds:.3} s");
                log_line!(self.config, Notice, "Took a snapshot for replicas: {text}");
            }
            Err(why) => log_line!(self.config, Warning, "No snapshot for replicas: {why}"),
        }
        spool.end(result.map(drop));
    }

    fn write(&self, spool: &Arc<Spool>) -> Result<u64, SnapshotError> {
        let Replication { identity, yields, .. } = self.replication;
        self.replication.prepare(self.aof, self.config)?;
        let form = Form::of(self.config, spool.dialect);
        let begin = || {
            let mut facts = Vec::new();
            self.aof.mark(|mark| {
                let (id, offset) = (identity.id(), identity.offset(mark.lsn));
                facts.extend(self.replication.facts_at(&mark));
                spool.begin(Begin { lsn: mark.lsn, id, offset });
            });
            facts
        };
        let writer = SpoolWriter::new(spool.clone());
        if !spool.has_keys {
            return Ok(write_empty(form, writer, &begin())?);
        }
        let may_yield = yields.load(Relaxed) < YIELDS;
        let progress = |_| {
            if spool.is_abandoned() {
                return Err(io::Error::other("no replica waits for it any more"));
            }
            Ok(())
        };
        let written = write_snapshot(self.keyspace, form, writer, may_yield, begin, progress);
        match &written {
            Err(SnapshotError::Yielded) => _ = yields.fetch_add(1, Relaxed),
            _ => yields.store(0, Relaxed),
        }
        written
    }
}

/// A replica's share in a spool.
struct Reading<'a>(&'a Spool);

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.0.leave();
    }
}
