//! `MIGRATE`: moving keys to another server.
//!
//! Redis stops while a key is on its way, so that nobody can change it. Here no lock is held meanwhile: the
//! key is watched, its value is sent, and then the key is deleted only if it has not changed since. If it
//! has, the new value is sent. So a change is either in what the other server got, or the key is still here.
//! A key that changes all the time is sent in the end with its shard locked, if the other server is quick.
//!
//! What is sent shows changes, so the log is flushed first, as before a reply.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::admit::admit_any_user;
use super::call::Call;
use crate::aof::replay::ANY_LENGTH;
use crate::commands::options::{OptionCursor, integer};
use crate::commands::spec::{Flags, Outcome, write};
use crate::commands::{Command, keys};
use crate::rdb::{Dialect, payload};
use crate::resp::{Args, CommandError, Protocol, Reply, Request, request};
use crate::session::{Server, Session};
use crate::store::transaction::Transaction;
use crate::store::{Access, LockSet, Shards, ValueRef, Watcher};

/// Keys are sent together until they have this many bytes.
const BATCH_BYTES: usize = 1 << 20;
/// How often a key is sent that changes each time before it can be deleted; then it is locked.
const ATTEMPTS: usize = 5;
/// How long a locked key waits for the other server.
const LOCKED_TIMEOUT: Duration = Duration::from_millis(50);
/// The longest line that another server replies with.
const REPLY_BYTES: u64 = 64 << 10;
const DEFAULT_TIMEOUT_MS: u64 = 1000;

/// How a key is deleted that has been moved. To everyone but monitors, this is a `DEL`.
static DELETION: Command =
    write("migrate", "key", keys::del).key("RW access delete").flags(Flags::ADMIN);

struct Options<'a> {
    host: &'a [u8],
    port: &'a [u8],
    keys: Vec<&'a [u8]>,
    db: i64,
    timeout: Duration,
    /// The keys stay here.
    copies: bool,
    replaces: bool,
    /// The arguments of AUTH.
    auth: Vec<&'a [u8]>,
}

impl<'a> Options<'a> {
    fn parse(args: Args<'a>) -> Result<Options<'a>, CommandError> {
        const WITH_KEY: CommandError = CommandError::new(
            "ERR When using MIGRATE KEYS option, the key argument must be set to the empty string",
        );
        let word = |at| args.get(at).unwrap_or_default();
        let (mut keys, mut auth) = (vec![word(3)], Vec::new());
        let (mut copies, mut replaces) = (false, false);
        let mut words = OptionCursor::new(args, 6);
        while !words.is_done() {
            if words.take("COPY") {
                copies = true;
            } else if words.take("REPLACE") {
                replaces = true;
            } else if let Some(password) = words.take_value("AUTH")? {
                auth = vec![password];
            } else if let Some(user) = words.take_value("AUTH2")? {
                auth = vec![user, words.value()?];
            } else if words.take("KEYS") {
                if !args[3].is_empty() {
                    return Err(WITH_KEY);
                }
                keys = std::iter::from_fn(|| words.next()).collect();
            } else {
                return Err(CommandError::SYNTAX);
            }
        }
        let (timeout_ms, db) = (integer(&args[5])?, integer(&args[4])?);
        let timeout_ms = u64::try_from(timeout_ms).ok().filter(|ms| *ms > 0);
        let timeout = Duration::from_millis(timeout_ms.unwrap_or(DEFAULT_TIMEOUT_MS));
        Ok(Options { host: word(1), port: word(2), keys, db, timeout, copies, replaces, auth })
    }
}

/// A key that is on its way.
struct Moving<'a> {
    key: &'a [u8],
    watcher: Arc<Watcher>,
    /// It was sent before, and has changed since.
    again: bool,
    /// Some of its fields expire, so there are two ways to encode it.
    timed: bool,
    /// The command that puts it there, encoded.
    command: Vec<u8>,
}

/// Runs `MIGRATE`.
pub(super) fn migrate(
    server: &Server,
    session: &mut Session,
    args: Args,
    reply: &mut Reply,
) -> Outcome {
    let options = Options::parse(args)?;
    if !options.copies {
        admit_any_user(server, session, &DELETION)?;
    }
    let mut target = None;
    let mut batch = Vec::new();
    let mut batch_bytes = 0;
    for key in &options.keys {
        let Some(moving) = pack(server, session, &options, key, false) else { continue };
        batch_bytes += moving.command.len();
        batch.push(moving);
        if batch_bytes >= BATCH_BYTES {
            send(server, session, &options, &mut target, std::mem::take(&mut batch))?;
            batch_bytes = 0;
        }
    }
    if batch.is_empty() && target.is_none() {
        reply.simple("NOKEY");
        return Ok(());
    }
    send(server, session, &options, &mut target, batch)?;
    reply.ok();
    Ok(())
}

/// Watches a key and encodes its value; `None` if it does not exist.
fn pack<'a>(
    server: &Server,
    session: &mut Session,
    options: &Options,
    key: &'a [u8],
    again: bool,
) -> Option<Moving<'a>> {
    let watcher = Arc::new(Watcher::default());
    if !options.copies {
        server.keyspace.watch(session.db, key, &watcher);
    }
    let mut moving = Moving { key, watcher, again, timed: false, command: Vec::new() };
    let dialect = Dialect::of(&server.config);
    if encode(server, &&server.keyspace, session, options, &mut moving, dialect) {
        return Some(moving);
    }
    server.keyspace.unwatch(session.db, key, &moving.watcher);
    None
}

/// Encodes the command that puts the key there as it is now. Returns whether the key exists.
fn encode(
    server: &Server,
    shards: &impl Shards,
    session: &mut Session,
    options: &Options,
    moving: &mut Moving,
    dialect: Dialect,
) -> bool {
    let view = shards.read(session.db, std::iter::once(moving.key));
    let Some(entry) = view.get(moving.key, Access::Silent) else { return false };
    let compresses = server.config.rdbcompression.load(Relaxed);
    let payload = payload::dump(entry.value, dialect, compresses);
    let ttl = entry.expires_at_ms().map_or(0, |at| view.left_ms(at).max(1)).to_string();
    moving.timed = matches!(entry.value, ValueRef::Hash(hash) if hash.earliest_ms().is_some());
    let mut words = vec![&b"RESTORE"[..], moving.key, ttl.as_bytes(), &payload];
    if options.replaces || moving.again {
        words.push(b"REPLACE");
    }
    moving.command.clear();
    request::encode(&mut moving.command, &words);
    session.read_lsn = session.read_lsn.max(view.last_lsn());
    true
}

/// Sends keys, and deletes those that arrived. Those that have changed meanwhile are sent again.
fn send(
    server: &Server,
    session: &mut Session,
    options: &Options,
    target: &mut Option<Target>,
    mut batch: Vec<Moving>,
) -> Outcome {
    let mut outcome = Ok(());
    for _ in 0..ATTEMPTS {
        if batch.is_empty() {
            return outcome;
        }
        let mut changed = Vec::new();
        let sent = deliver(server, session, options, target, &mut batch);
        for (moving, arrived) in batch.into_iter().zip(sent) {
            let key = moving.key;
            match arrived {
                Err(error) => outcome = outcome.and(Err(error)),
                Ok(()) if options.copies => {}
                Ok(()) if delete(server, session, &moving) => {}
                Ok(()) => changed.push(key),
            }
            server.keyspace.unwatch(session.db, key, &moving.watcher);
        }
        batch = Vec::new();
        for key in changed {
            match pack(server, session, options, key, true) {
                Some(moving) => batch.push(moving),
                // Somebody has deleted it here, after it was sent.
                None => outcome = outcome.and(target.as_mut().map_or(Ok(()), |t| t.delete(key))),
            }
        }
    }
    for moving in &batch {
        server.keyspace.unwatch(session.db, moving.key, &moving.watcher);
    }
    for moving in batch {
        let Some(target) = target else { break };
        // After an error the next reply may be that to another command, so the rest stays here.
        send_locked(server, session, options, target, moving)?;
    }
    outcome
}

/// Sends a key and deletes it while its shard is locked.
fn send_locked(
    server: &Server,
    session: &mut Session,
    options: &Options,
    target: &mut Target,
    mut moving: Moving,
) -> Outcome {
    let mut locks = LockSet::default();
    locks.write(std::iter::once(moving.key));
    let mut locked = server.keyspace.transact(locks);
    if !encode(server, &locked, session, options, &mut moving, target.dialect) {
        drop(locked);
        return target.delete(moving.key);
    }
    target.set_timeout(LOCKED_TIMEOUT.min(options.timeout))?;
    let flushed = server.aof.flush_to(session.read_lsn);
    flushed.map_err(|error| format!("MISCONF {error}"))?;
    target.write(&moving.command)?;
    target.reply()??;
    delete_locked(server, session, &mut locked, moving.key)?;
    drop(locked);
    target.set_timeout(options.timeout)
}

/// Sends the commands. Returns for each whether its key has arrived.
fn deliver(
    server: &Server,
    session: &mut Session,
    options: &Options,
    target: &mut Option<Target>,
    batch: &mut [Moving],
) -> Vec<Result<(), CommandError>> {
    let result = (|| {
        server.aof.flush_to(session.read_lsn).map_err(|error| format!("MISCONF {error}"))?;
        let target = match target {
            Some(target) => target,
            None => target.insert(Target::connect(options, Dialect::of(&server.config))?),
        };
        batch.iter().try_for_each(|moving| target.write(&moving.command))?;
        batch.iter().map(|_| target.reply()).collect::<Result<Vec<_>, _>>()
    })();
    let mut replies = match result {
        Ok(replies) => replies,
        Err(error) => return batch.iter().map(|_| Err(CommandError::clone(&error))).collect(),
    };
    // Of the two ways to encode expiring fields the other server may know the other one.
    let other = match Dialect::of(&server.config) {
        Dialect::Redis => Dialect::Valkey,
        Dialect::Valkey => Dialect::Redis,
    };
    for (moving, reply) in batch.iter_mut().zip(&mut replies) {
        let is_unknown = |error: &CommandError| {
            let text = String::from_utf8_lossy(error.text()).into_owned();
            text.contains("DUMP payload version") || text.contains("Bad data format")
        };
        if moving.timed
            && reply.as_ref().is_err_and(is_unknown)
            && encode(server, &&server.keyspace, session, options, moving, other)
            && let Some(target) = target
        {
            let flushed = server.aof.flush_to(session.read_lsn);
            let flushed = flushed.map_err(|error| format!("MISCONF {error}").into());
            let sent = flushed.and_then(|()| target.write(&moving.command));
            *reply = sent.and_then(|()| target.reply()?);
            if reply.is_ok() {
                target.dialect = other;
            }
        }
    }
    replies
}

/// Deletes a key that has arrived, unless it has changed since it was watched. Returns whether it did.
fn delete(server: &Server, session: &mut Session, moving: &Moving) -> bool {
    let mut locks = LockSet::default();
    locks.write(std::iter::once(moving.key));
    let mut locked = server.keyspace.transact(locks);
    let watched = [(session.db, moving.key.to_vec())];
    !locked.finds_changed(&watched, &moving.watcher)
        && delete_locked(server, session, &mut locked, moving.key).is_ok()
}

/// Deletes a key whose shard is locked.
fn delete_locked(
    server: &Server,
    session: &mut Session,
    locked: &mut Transaction,
    key: &[u8],
) -> Outcome {
    let mut record = Vec::new();
    request::encode(&mut record, &[b"DEL", key]);
    let mut request = Request::new(ANY_LENGTH);
    request.feed(&record).map_err(|error| format!("ERR {error}"))?;
    let mut ignored = Reply::new(Protocol::Resp2);
    let call = Call { server, session, command: &DELETION, args: request.args()? };
    call.run(locked, &mut ignored)
}

/// The other server.
struct Target {
    stream: BufReader<TcpStream>,
    /// How it reads expiring fields.
    dialect: Dialect,
}

impl Target {
    fn connect(options: &Options, dialect: Dialect) -> Result<Target, CommandError> {
        let stream = open(options)?;
        let mut target = Target { stream: BufReader::new(stream), dialect };
        target.set_timeout(options.timeout)?;
        let mut commands = Vec::new();
        if !options.auth.is_empty() {
            let words = [&b"AUTH"[..]].into_iter().chain(options.auth.iter().copied());
            request::encode(&mut commands, &words.collect::<Vec<_>>());
        }
        request::encode(&mut commands, &[b"SELECT", options.db.to_string().as_bytes()]);
        target.write(&commands)?;
        if !options.auth.is_empty() {
            target.reply()??;
        }
        target.reply()??;
        Ok(target)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), CommandError> {
        self.stream.get_mut().write_all(bytes).map_err(|_| NOT_WRITTEN)
    }

    /// Reads a reply of one line. The inner error is the other server's.
    fn reply(&mut self) -> Result<Result<(), CommandError>, CommandError> {
        const FAILED: CommandError =
            CommandError::new("IOERR error or timeout reading to target instance");
        let mut line = Vec::new();
        let read = (&mut self.stream).take(REPLY_BYTES).read_until(b'\n', &mut line);
        if read.is_err() || !line.ends_with(b"\r\n") {
            return Err(FAILED);
        }
        let text = &line[..line.len() - 2];
        Ok(match text.strip_prefix(b"-") {
            Some(error) => {
                Err([b"ERR Target instance replied with error: ", error].concat().into())
            }
            None => Ok(()),
        })
    }

    fn set_timeout(&mut self, timeout: Duration) -> Outcome {
        let stream = self.stream.get_ref();
        let set = stream
            .set_read_timeout(Some(timeout))
            .and_then(|()| stream.set_write_timeout(Some(timeout)));
        set.map_err(|_| NOT_WRITTEN)
    }

    fn delete(&mut self, key: &[u8]) -> Outcome {
        let mut command = Vec::new();
        request::encode(&mut command, &[b"DEL", key]);
        self.write(&command)?;
        self.reply()?
    }
}

const NOT_WRITTEN: CommandError =
    CommandError::new("IOERR error or timeout writing to target instance");

/// Opens a connection. As in Redis, one that is refused counts as one that cannot be written to.
fn open(options: &Options) -> Result<TcpStream, CommandError> {
    const NOT_CONNECTED: CommandError =
        CommandError::new("IOERR error or timeout connecting to the client");
    let host = str::from_utf8(options.host).map_err(|_| NOT_CONNECTED)?;
    let port: Option<u16> = str::from_utf8(options.port).ok().and_then(|port| port.parse().ok());
    let addresses = (host, port.ok_or(NOT_CONNECTED)?).to_socket_addrs();
    let mut error = NOT_CONNECTED;
    for address in addresses.map_err(|_| NOT_CONNECTED)? {
        match TcpStream::connect_timeout(&address, options.timeout) {
            Ok(stream) => {
                stream.set_nodelay(true).map_err(|_| NOT_CONNECTED)?;
                return Ok(stream);
            }
            Err(why) if why.kind() == ErrorKind::ConnectionRefused => error = NOT_WRITTEN,
            Err(_) => {}
        }
    }
    Err(error)
}
