//! The listeners, and the accept loops that give each connection a thread.

use std::io::Write;
use std::net::{TcpListener, ToSocketAddrs};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Duration;

use super::{connection, spawn};
use crate::config::Config;
use crate::config::logger::log_line;
use crate::net::socket::Socket;
use crate::session::Server;

/// Enough, because a connection's thread does not recurse and keeps nothing large on its stack.
const STACK_BYTES: usize = 256 << 10;
/// How long an accept loop pauses after a failure, such as a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The open listeners.
pub(super) struct Listeners {
    tcp: Vec<TcpListener>,
    unix: Option<UnixListener>,
    /// The TCP port that is listened on; 0 without one.
    pub(super) port: u16,
}

impl Listeners {
    pub(super) fn open(config: &Config) -> Result<Listeners, String> {
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
            // A socket that an earlier server has left. Anything else is not ours to remove.
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
    pub(super) fn serve(self, server: &Arc<Server>) -> Result<(), String> {
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

/// Gives each connection a thread, forever.
fn accept_loop(server: &Arc<Server>, accept: impl Fn() -> std::io::Result<Socket>) {
    let mut failing = false;
    loop {
        match accept() {
            Ok(socket) => {
                failing = false;
                welcome(server, socket);
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

fn welcome(server: &Arc<Server>, socket: Socket) {
    server.stats.connections.add(1);
    let limit = usize::try_from(server.config.maxclients.load(Relaxed)).unwrap_or(usize::MAX);
    let socket = Arc::new(socket);
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
        server.stats.rejected_connections.add(1);
        let refusal = b"-ERR max number of clients reached\r\n";
        (&*socket).write_all(refusal).unwrap_or_default();
    }
}
