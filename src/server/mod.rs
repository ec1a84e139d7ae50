//! Serving: the listeners, their accept loops, and the threads that run in the background.
//!
//! [`start`] opens everything, replays the log and returns when the server is ready; the threads go
//! on. Each connection gets a thread of its own ([`connection`]), which reads, carries out, replies
//! and waits, all blocking; that is the whole model of concurrency, and the shards' locks are all that
//! these threads share.
//!
//! Stopping needs no ceremony. Nothing in memory is needed that a client was told of and that is not
//! in the log, so a crash and a shutdown recover by the same code.

mod check;
mod connection;

use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write;
use std::net::{TcpListener, ToSocketAddrs};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

pub use check::check_aof;

use crate::aof::{Aof, ReplayError, Replayed, replay, rewrite};
use crate::config::{Config, FsyncPolicy};
use crate::dispatch;
use crate::resp::{Protocol, Reply};
use crate::session::{Server, Session};
use crate::socket::Socket;
use crate::store::{Garbage, now_ms};

/// A connection's thread does not recurse and keeps nothing large on its stack.
const STACK_BYTES: usize = 256 << 10;
/// How long an accept loop rests after a failure, such as a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How often the sweeper looks for what has expired.
const SWEEP_PERIOD: Duration = Duration::from_millis(100);
/// How often the log is synced, and idle connections are looked for.
const SYNC_PERIOD: Duration = Duration::from_secs(1);
/// How often the replay says how far it is.
const PROGRESS_PERIOD: Duration = Duration::from_secs(2);

/// Opens the listeners and the log, replays it and starts serving. Clients that connect while the
/// log is replayed are told so.
///
/// # Errors
/// A text for the person who started it: what could not be opened, and why.
pub fn start(config: Config) -> Result<Arc<Server>, String> {
    let config = Arc::new(config);
    let listeners = Listeners::open(&config)?;
    let log = match config.appendonly.load(Relaxed) {
        true => Some(open_log(&config.log_path())?),
        false => None,
    };
    let aof = match &log {
        Some(log) => log.try_clone().and_then(|log| Aof::new(Box::new(log), 0)),
        None => Ok(Aof::disabled()),
    };
    let aof = aof.map_err(|error| format!("can't open the log: {error}"))?;
    let (garbage, dropped) = mpsc::channel();
    let (rewrites, requested) = mpsc::channel();
    let server = Arc::new(Server::new(config, aof, garbage, rewrites));
    server.port.store(listeners.port, SeqCst);
    server.loading.store(log.is_some(), SeqCst);
    spawn("dropper", move || drop_garbage(&dropped))?;
    listeners.serve(&server)?;
    if let Some(log) = log {
        load(&server, log)?;
    }
    let rewriting = server.clone();
    spawn("rewriter", move || rewrite_when_asked(&rewriting, &requested))?;
    for (name, work) in [("sweeper", sweep as fn(&Server)), ("syncer", sync)] {
        let server = server.clone();
        spawn(name, move || work(&server))?;
    }
    Ok(server)
}

/// Opens the log for appending, and locks it so that no second server writes into it.
fn open_log(path: &Path) -> Result<File, String> {
    let shown = path.display();
    let mut options = OpenOptions::new();
    let log = options
        .read(true)
        .append(true)
        .create(true)
        .open(path)
        .map_err(|error| format!("can't open the log '{shown}': {error}"))?;
    match log.try_lock() {
        Ok(()) => {
            // What a crash in the middle of a rewrite has left.
            rewrite::remove(&rewrite::temporary(path));
            rewrite::remove(&rewrite::tail(path));
            Ok(log)
        }
        Err(TryLockError::WouldBlock) => {
            Err(format!("the log '{shown}' is in use by another server"))
        }
        Err(TryLockError::Error(error)) => Err(format!("can't lock the log '{shown}': {error}")),
    }
}

/// Replays the log; cuts off and keeps aside what a crash has torn.
fn load(server: &Server, mut log: File) -> Result<(), String> {
    let path = server.config.log_path();
    let shown = path.display();
    let explain = |error: ReplayError| format!("can't use the log '{shown}': {error}");
    let total = log.metadata().map_err(|error| explain(error.into()))?.len();
    let started = Instant::now();
    let mut session = Session::new(server.clients.nobody(), true);
    let mut reply = Reply::new(Protocol::Resp2);
    let mut last_said = started;
    server.keyspace.set_expiring(false);
    let replayed: Replayed = replay::replay(
        &mut log,
        server.config.proto_max_bulk_len.load(Relaxed),
        |args| dispatch::replay(server, &mut session, args, &mut reply),
        |read| {
            if last_said.elapsed() >= PROGRESS_PERIOD {
                last_said = Instant::now();
                eprintln!("Loading '{shown}': {} %", read * 100 / total.max(1));
            }
        },
    )
    .map_err(explain)?;
    if replayed.torn_bytes > 0 && !server.config.aof_load_truncated.load(Relaxed) {
        return Err(format!(
            "the log '{shown}' ends in the middle of a record, at offset {}, and aof-load-truncated \
             is 'no': let it be 'yes', or mend the log with --check-aof {shown} --fix",
            replayed.valid_bytes
        ));
    }
    if replayed.torn_bytes > 0 {
        let side = replay::cut(&mut log, &path, replayed.valid_bytes)
            .map_err(|error| format!("can't cut the torn tail of the log '{shown}': {error}"))?;
        eprintln!(
            "The log '{shown}' ended in the middle of a record: cut {} bytes at offset {}, kept in '{}'",
            replayed.torn_bytes,
            replayed.valid_bytes,
            side.display()
        );
    }
    server.keyspace.set_expiring(true);
    server.aof.set_base(replayed.valid_bytes);
    server.loading.store(false, SeqCst);
    eprintln!(
        "Loaded '{shown}': {} records, {} bytes, {:.3} s",
        replayed.records,
        replayed.valid_bytes,
        started.elapsed().as_secs_f64()
    );
    Ok(())
}

/// Where clients can connect.
struct Listeners {
    tcp: Vec<TcpListener>,
    unix: Option<UnixListener>,
    /// The TCP port that was really got.
    port: u16,
}

impl Listeners {
    fn open(config: &Config) -> Result<Listeners, String> {
        let mut listeners = Listeners { tcp: Vec::new(), unix: None, port: 0 };
        let path = config.unixsocket.get();
        let mut port = u16::try_from(config.port.load(Relaxed)).unwrap_or_default();
        // Port 0 picks a free one, unless there is a Unix socket: then, as in Redis, it means none.
        if port != 0 || path.is_empty() {
            for word in config.bind.get().split_whitespace() {
                let (address, may_be_missing) = match word.strip_prefix('-') {
                    Some(address) => (address, true),
                    None => (word, false),
                };
                match listen(address, port) {
                    Ok(listener) => {
                        port = listener.local_addr().map_or(port, |address| address.port());
                        listeners.tcp.push(listener);
                    }
                    Err(_) if may_be_missing => {}
                    Err(error) => return Err(format!("can't listen on {address}:{port}: {error}")),
                }
            }
            if listeners.tcp.is_empty() {
                return Err(format!("can't listen on port {port}: no address of 'bind' is there"));
            }
            listeners.port = port;
        }
        if !path.is_empty() {
            // What a server before us has left. Anything but a socket is not ours to remove.
            if is_socket(&path) {
                std::fs::remove_file(&path).unwrap_or_default();
            }
            let listener = UnixListener::bind(&path);
            listeners.unix =
                Some(listener.map_err(|error| format!("can't listen on '{path}': {error}"))?);
        }
        Ok(listeners)
    }

    /// Starts the accept loops.
    fn serve(self, server: &Arc<Server>) -> Result<(), String> {
        for listener in self.tcp {
            let server = server.clone();
            let accept = move || listener.accept().map(|(stream, _)| Socket::Tcp(stream));
            spawn("accept", move || accept_loop(&server, accept))?;
        }
        if let Some(listener) = self.unix {
            let server = server.clone();
            let accept = move || listener.accept().map(|(stream, _)| Socket::Unix(stream));
            spawn("accept", move || accept_loop(&server, accept))?;
        }
        Ok(())
    }
}

/// Listens on an address, or for `*` on all.
fn listen(address: &str, port: u16) -> std::io::Result<TcpListener> {
    match address {
        // The IPv6 wildcard takes IPv4 clients too, where there is IPv6.
        "*" => TcpListener::bind(("::", port)).or_else(|_| TcpListener::bind(("0.0.0.0", port))),
        "::*" => TcpListener::bind(("::", port)),
        name => TcpListener::bind((name, port).to_socket_addrs()?.collect::<Vec<_>>().as_slice()),
    }
}

fn is_socket(path: &str) -> bool {
    use std::os::unix::fs::FileTypeExt;
    std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket())
}

/// Hands each connection to a thread of its own, for ever.
fn accept_loop(server: &Arc<Server>, accept: impl Fn() -> std::io::Result<Socket>) {
    loop {
        match accept() {
            Ok(socket) => welcome(server, socket),
            Err(error) => {
                // A lack of descriptors passes; an aborted connection is nobody's loss.
                eprintln!("A connection could not be accepted: {error}");
                thread::sleep(ACCEPT_PAUSE);
            }
        }
    }
}

fn welcome(server: &Arc<Server>, socket: Socket) {
    server.stats.connections.add(1);
    let limit = usize::try_from(server.config.maxclients.load(Relaxed)).unwrap_or(usize::MAX);
    let socket = Arc::new(socket);
    let spawned = server.clients.count() < limit && {
        let (server, socket) = (server.clone(), socket.clone());
        let serve = move || connection::serve(&server, &socket);
        thread::Builder::new().stack_size(STACK_BYTES).name("client".into()).spawn(serve).is_ok()
    };
    if !spawned {
        server.stats.rejected_connections.add(1);
        let refusal = b"-ERR max number of clients reached\r\n";
        (&*socket).write_all(refusal).unwrap_or_default();
    }
}

/// Syncs the log once a second, if the policy says so; and tries again to write it after a failure.
fn sync(server: &Server) {
    let mut failed = false;
    loop {
        thread::sleep(SYNC_PERIOD);
        close_idle(server);
        rewrite_if_due(server);
        let result = match server.config.fsync_policy() {
            FsyncPolicy::EverySecond => server.aof.sync(),
            FsyncPolicy::Always | FsyncPolicy::No => server.aof.flush(),
        };
        match &result {
            Ok(()) if failed => eprintln!("The log can be written again"),
            Err(error) if !failed => eprintln!("The log could not be synced: {error}"),
            _ => {}
        }
        failed = result.is_err();
    }
}

/// Rewrites the log whenever that is asked for.
fn rewrite_when_asked(server: &Server, requested: &Receiver<()>) {
    for () in requested {
        let path = server.config.log_path();
        let was_enabled = server.aof.is_enabled();
        let (before, _) = server.aof.size();
        match server.aof.rewrite(&server.keyspace, &path) {
            Ok(()) => {
                let (after, _) = server.aof.size();
                eprintln!("The log was rewritten: {before} bytes became {after}");
                // With `appendonly no` a rewrite makes a log, but nothing more goes into it.
                if !server.config.appendonly.load(Relaxed) {
                    server
                        .aof
                        .close()
                        .unwrap_or_else(|error| eprintln!("Closing the log: {error}"));
                }
            }
            Err(error) => {
                eprintln!("The log could not be rewritten: {error}");
                if !was_enabled {
                    server.config.appendonly.store(false, Relaxed);
                }
            }
        }
    }
}

/// Starts a rewrite if the log has grown so much that the settings ask for it, or cannot be relied on
/// any more, or if it is wanted and there is none.
fn rewrite_if_due(server: &Server) {
    let wanted = server.config.appendonly.load(Relaxed);
    if wanted && server.aof.is_enabled() && !server.aof.needs_rewrite() {
        let path = server.config.log_path();
        if !server.aof.is_at(&path) {
            server.aof.fail_file(&std::io::Error::other(format!("'{}' is gone", path.display())));
        }
    }
    let percentage = server.config.auto_aof_rewrite_percentage.load(Relaxed) as u64;
    let least = server.config.auto_aof_rewrite_min_size.load(Relaxed) as u64;
    let (size, base) = server.aof.size();
    let grown = percentage > 0
        && size > least
        && size.saturating_sub(base).saturating_mul(100) >= base.max(1).saturating_mul(percentage);
    if server.aof.is_enabled() && (grown || server.aof.needs_rewrite()) {
        server.start_rewrite();
    }
}

/// Closes the connections that have been idle for longer than `timeout`.
fn close_idle(server: &Server) {
    let timeout = server.config.timeout.load(Relaxed);
    if timeout > 0 {
        let idle = |client: &Arc<crate::session::Client>| client.idle_seconds() >= timeout as u64;
        server.clients.all().iter().filter(|client| idle(client)).for_each(|client| client.close());
    }
}

/// Removes what has expired, and logs it.
fn sweep(server: &Server) {
    loop {
        thread::sleep(SWEEP_PERIOD);
        let removed = server.keyspace.sweep(now_ms(), |expired| {
            let records =
                expired.iter().map(|(db, key, _)| dispatch::log_expired(server, *db, key.bytes()));
            records.max().unwrap_or(0)
        });
        server.stats.expired_keys.add(removed as u64);
    }
}

/// Frees what takes long to free.
fn drop_garbage(dropped: &Receiver<Garbage>) {
    dropped.iter().for_each(drop);
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), String> {
    let thread = thread::Builder::new().name(name.into()).spawn(work);
    thread.map(drop).map_err(|error| format!("can't start a thread: {error}"))
}
