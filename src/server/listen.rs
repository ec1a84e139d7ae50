//! The listeners, the threads that accept connections, and the one that gives each connection a thread of its
//! own.

use std::fs::Permissions;
use std::io::{ErrorKind, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use super::{connection, spawn};
use crate::config::Config;
use crate::config::logger::log_line;
use crate::net::descriptors;
use crate::net::socket::Socket;
use crate::session::Server;

/// Enough, because a connection's thread does not recurse and keeps nothing large on its stack.
const STACK_BYTES: usize = 256 << 10;
/// How many threads accept from one listener. The kernel lets only 128 connections wait, which is what std
/// asks for, and a client that finds no room tries again after a second. In a burst on a busy machine, one of
/// several threads gets a core sooner: of 800 clients at once 38 waited, with one thread 154.
const ACCEPT_THREADS: usize = 4;
/// How many connections that were accepted may wait to be served, at least and at most. (The least are among
/// the descriptors for files, of which the threads that accept need some more.)
const LEAST_QUEUE: usize = 4;
const LONGEST_QUEUE: usize = 1000;
/// How long a listener may take to close.
const STOP_PATIENCE: Duration = Duration::from_secs(1);
/// How long an accept loop pauses after a failure, such as a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The open listeners.
pub(super) struct Listeners {
    tcp: Vec<TcpListener>,
    unix: Vec<UnixListener>,
    /// The TCP port that is listened on; 0 without one.
    pub(super) port: u16,
    /// They were open when the process started.
    inherited: bool,
}

impl Listeners {
    fn none() -> Listeners {
        Listeners { tcp: Vec::new(), unix: Vec::new(), port: 0, inherited: false }
    }

    pub(super) fn open(config: &Config) -> Result<Listeners, String> {
        let mut listeners = inherited();
        let path = config.unixsocket.get();
        let port = u16::try_from(config.port.load(Relaxed)).unwrap_or_default();
        // Port 0 picks a free one, unless there is a Unix socket: then, as in Redis, it means none.
        if listeners.are_none() && (port != 0 || path.is_empty()) {
            listeners.open_tcp(&config.bind.get(), port)?;
        }
        if !path.is_empty() {
            make_way(&path)?;
            let permissions = config.unixsocketperm.load(Relaxed) as u32;
            let listener = UnixListener::bind(&path).and_then(|listener| {
                if permissions != 0 {
                    std::fs::set_permissions(&path, Permissions::from_mode(permissions))?;
                }
                Ok(listener)
            });
            let listener = listener.map_err(|why| format!("can't listen on '{path}': {why}"))?;
            listeners.unix.push(listener);
        }
        Ok(listeners)
    }

    fn are_none(&self) -> bool {
        self.tcp.is_empty() && self.unix.is_empty()
    }

    /// Listens on the addresses of `bind`.
    fn open_tcp(&mut self, bind: &str, mut port: u16) -> Result<(), String> {
        for word in bind.split_whitespace() {
            let (address, may_be_missing) = match word.strip_prefix('-') {
                Some(address) => (address, true),
                None => (word, false),
            };
            match listen(address, port) {
                Ok(listener) => {
                    port = listener.local_addr().map_or(port, |address| address.port());
                    self.tcp.push(listener);
                }
                Err(_) if may_be_missing => {}
                Err(error) => return Err(format!("can't listen on {address}:{port}: {error}")),
            }
        }
        if self.tcp.is_empty() {
            return Err(format!("can't listen on port {port}: no address of 'bind' is there"));
        }
        self.port = port;
        Ok(())
    }

    /// How many threads will accept. In each the kernel takes a descriptor before it waits for a connection.
    fn accept_threads(&self) -> usize {
        ACCEPT_THREADS * (self.tcp.len() + self.unix.len())
    }

    /// Lowers `maxclients` if there are not enough descriptors.
    pub(super) fn limit_clients(&self, config: &Config) -> Result<(), String> {
        let waiting = self.accept_threads();
        let wanted = config.client_limit().saturating_add(waiting);
        let possible = descriptors::for_clients(wanted).saturating_sub(waiting);
        if possible == 0 {
            let why = "the limit on open files leaves none for clients: raise it with 'ulimit -n'";
            return Err(why.into());
        }
        config.lower_client_limit(possible);
        Ok(())
    }

    /// Starts the threads that accept, and the one that serves what they accept.
    pub(super) fn serve(self, server: &Arc<Server>) -> Result<(), String> {
        // A burst of connections waits here, but only as far as there are descriptors to spare.
        let taken = server.config.client_limit().saturating_add(self.accept_threads());
        let spare = descriptors::for_clients(taken.saturating_add(LONGEST_QUEUE));
        let queue = spare.saturating_sub(taken).max(LEAST_QUEUE);
        let (accepted, arrivals) = mpsc::sync_channel(queue);
        let serving = server.clone();
        spawn("welcomer", move || arrivals.iter().for_each(|socket| welcome(&serving, socket)))?;
        for listener in self.unix {
            let accept = move || listener.accept().map(|(stream, _)| Socket::Unix(stream));
            start_accepting(server, accept, &accepted, &Arc::default())?;
        }
        let mut open = Open {
            loops: Vec::new(),
            bind: server.config.bind.get(),
            port: self.port,
            inherited: self.inherited,
        };
        for listener in self.tcp {
            open.loops.push(AcceptLoop::start(server, listener, &accepted)?);
        }
        let (serving, open) = (server.clone(), Mutex::new(open));
        let relisten =
            move || open.lock().unwrap_or_else(PoisonError::into_inner).reopen(&serving, &accepted);
        server.relisten.get_or_init(|| Box::new(relisten));
        Ok(())
    }
}

/// The TCP listeners that are open. `CONFIG SET bind` and `CONFIG SET port` replace them.
struct Open {
    loops: Vec<AcceptLoop>,
    bind: String,
    port: u16,
    inherited: bool,
}

impl Open {
    /// Listens as the settings say now. If that fails, listens as before.
    fn reopen(
        &mut self,
        server: &Arc<Server>,
        accepted: &SyncSender<Socket>,
    ) -> Result<(), String> {
        if self.inherited {
            return Err("the server listens on the socket that it has inherited".into());
        }
        let bind = server.config.bind.get();
        let port = u16::try_from(server.config.port.load(Relaxed)).unwrap_or_default();
        let has_unix = !server.config.unixsocket.is_empty();
        // The old ones are closed first: the new ones may have addresses of theirs.
        self.loops.drain(..).for_each(AcceptLoop::stop);
        let port = match port {
            0 if has_unix => None,
            0 => Some(self.port), // the free one that was picked
            port => Some(port),
        };
        let opened = self.open(server, accepted, &bind, port);
        if opened.is_ok() {
            self.bind = bind;
        } else {
            let (bind, port) = (self.bind.clone(), Some(self.port).filter(|port| *port != 0));
            self.open(server, accepted, &bind, port)?;
        }
        opened
    }

    fn open(
        &mut self,
        server: &Arc<Server>,
        accepted: &SyncSender<Socket>,
        bind: &str,
        port: Option<u16>,
    ) -> Result<(), String> {
        let mut listeners = Listeners::none();
        if let Some(port) = port {
            listeners.open_tcp(bind, port)?;
        }
        for listener in listeners.tcp {
            self.loops.push(AcceptLoop::start(server, listener, accepted)?);
        }
        self.port = listeners.port;
        server.port.store(self.port, SeqCst);
        Ok(())
    }
}

/// The threads that accept connections from one TCP listener.
struct AcceptLoop {
    address: SocketAddr,
    must_stop: Arc<AtomicBool>,
    /// Closed when the threads have ended.
    ended: Receiver<()>,
}

impl AcceptLoop {
    fn start(
        server: &Arc<Server>,
        listener: TcpListener,
        accepted: &SyncSender<Socket>,
    ) -> Result<AcceptLoop, String> {
        let address = listener.local_addr().map_err(|error| format!("can't listen: {error}"))?;
        let must_stop = Arc::default();
        let accept = move || listener.accept().map(|(stream, _)| Socket::Tcp(stream));
        let ended = start_accepting(server, accept, accepted, &must_stop)?;
        Ok(AcceptLoop { address, must_stop, ended })
    }

    /// Closes the listener. The threads wait in the kernel, and each connection wakes one.
    fn stop(self) {
        self.must_stop.store(true, SeqCst);
        let mut address = self.address;
        if address.ip().is_unspecified() {
            let loopback = match address {
                SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
            };
            address.set_ip(loopback);
        }
        for _ in 0..ACCEPT_THREADS {
            drop(TcpStream::connect_timeout(&address, STOP_PATIENCE));
        }
        let _ = self.ended.recv_timeout(STOP_PATIENCE); // they end without a message
    }
}

/// The listening socket that is standard input, if one is: systemd and inetd hand them over so. It has the
/// backlog and the keepalive that std gives no way to ask for. Its parent may have made it non-blocking, but
/// the accept threads block.
fn inherited() -> Listeners {
    let mut listeners = Listeners::none();
    let descriptor = || std::io::stdin().as_fd().try_clone_to_owned();
    // Only a socket has an address, and only a connected one has a peer.
    if let Ok(listener) = descriptor().map(TcpListener::from)
        && let Ok(address) = listener.local_addr()
        && descriptor().map(TcpStream::from).is_ok_and(|stream| stream.peer_addr().is_err())
        && listener.set_nonblocking(false).is_ok()
    {
        listeners.port = address.port();
        listeners.tcp.push(listener);
        listeners.inherited = true;
    } else if let Ok(listener) = descriptor().map(UnixListener::from)
        && listener.local_addr().is_ok()
        && descriptor().map(UnixStream::from).is_ok_and(|stream| stream.peer_addr().is_err())
        && listener.set_nonblocking(false).is_ok()
    {
        listeners.unix.push(listener);
    }
    listeners
}

/// Removes a socket that an earlier server has left at the path. Whatever else is there is not ours to
/// remove.
fn make_way(path: &str) -> Result<(), String> {
    if !is_socket(path) {
        return Ok(());
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).unwrap_or_default();
            Ok(())
        }
        Ok(_) => Err(format!("another server listens on '{path}'")),
        Err(error) => Err(format!("can't tell whether a server listens on '{path}': {error}")),
    }
}

/// Listens on an address; `*` stands for all addresses.
fn listen(address: &str, port: u16) -> std::io::Result<TcpListener> {
    match address {
        // Where there is IPv6, its wildcard accepts IPv4 clients too.
        "*" => TcpListener::bind(("::", port)).or_else(|_| TcpListener::bind(("0.0.0.0", port))),
        "::*" => TcpListener::bind(("::", port)),
        name => TcpListener::bind((name, port).to_socket_addrs()?.collect::<Vec<_>>().as_slice()),
    }
}

fn is_socket(path: &str) -> bool {
    use std::os::unix::fs::FileTypeExt;
    std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket())
}

/// Starts threads that accept connections until they must stop. Returns a channel that is closed when they
/// have ended and dropped `accept`.
fn start_accepting(
    server: &Arc<Server>,
    accept: impl Fn() -> std::io::Result<Socket> + Send + Sync + 'static,
    accepted: &SyncSender<Socket>,
    must_stop: &Arc<AtomicBool>,
) -> Result<Receiver<()>, String> {
    let accept = Arc::new(accept);
    let (ending, ended) = mpsc::channel();
    for _ in 0..ACCEPT_THREADS {
        let (server, accepted, stop) = (server.clone(), accepted.clone(), must_stop.clone());
        let (accept, ending) = (accept.clone(), ending.clone());
        spawn("accept", move || {
            accept_loop(&server, &*accept, &accepted, &stop);
            drop(accept);
            drop(ending);
        })?;
    }
    Ok(ended)
}

/// Accepts connections until it must stop. Whatever else is to be done, another thread does.
fn accept_loop(
    server: &Server,
    accept: impl Fn() -> std::io::Result<Socket>,
    accepted: &SyncSender<Socket>,
    must_stop: &AtomicBool,
) {
    let mut failing = false;
    loop {
        match accept() {
            _ if must_stop.load(SeqCst) => return,
            Ok(socket) => {
                failing = false;
                accepted.send(socket).unwrap_or_default(); // its receiver lives as long as the server
            }
            Err(error) => {
                // A lack of descriptors passes, and an aborted connection needs no service.
                if !std::mem::replace(&mut failing, true) {
                    log_line!(server.config, Warning, "Could not accept a connection: {error}");
                }
                thread::sleep(ACCEPT_PAUSE);
            }
        }
    }
}

/// The answer to a client from elsewhere, as long as anybody could use the server.
const PROTECTED: &str = "-DENIED Redis is running in protected mode because \
    protected mode is enabled and no password is set for the default user. In this mode connections are \
    only accepted from the loopback interface. If you want to connect from external computers to Redis \
    you may adopt one of the following solutions: 1) Just disable protected mode sending the command \
    'CONFIG SET protected-mode no' from the loopback interface by connecting to Redis from the same host \
    the server is running, however MAKE SURE Redis is not publicly accessible from internet if you do \
    so. Use CONFIG REWRITE to make this change permanent. 2) Alternatively you can just disable the \
    protected mode by editing the Redis configuration file, and setting the protected mode option to \
    'no', and then restarting the server. 3) If you started the server manually just for testing, \
    restart it with the '--protected-mode no' option. 4) Set up an authentication password for the \
    default user. NOTE: You only need to do one of the above things in order for the server to start \
    accepting connections from the outside.\r\n";

/// Gives a connection a thread.
fn welcome(server: &Arc<Server>, socket: Socket) {
    server.stats.connections.add(1);
    let limit = server.config.client_limit();
    let socket = Arc::new(socket);
    let is_protected = server.config.protected_mode.load(Relaxed) && !server.wants_password();
    if is_protected && !socket.is_local() {
        return refuse(server, &socket, PROTECTED);
    }
    let spawned = server.clients.count() < limit && {
        // Registered here, not by its thread, so that the next connection counts it.
        let client = server.clients.register(socket.clone());
        let (serving, socket, id) = (server.clone(), socket.clone(), client.id);
        let serve = move || connection::serve(&serving, &socket, client);
        let thread = thread::Builder::new().stack_size(STACK_BYTES).name("client".into());
        let spawned = thread.spawn(serve).is_ok();
        if !spawned {
            server.deregister(id);
        }
        spawned
    };
    if !spawned {
        refuse(server, &socket, "-ERR max number of clients reached\r\n");
    }
}

fn refuse(server: &Server, mut socket: &Socket, why: &str) {
    server.stats.rejected_connections.add(1);
    socket.write_all(why.as_bytes()).unwrap_or_default();
}
