//! Where clients connect: the listeners, and the loops that hand each connection to a thread.

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

/// A connection's thread does not recurse and keeps nothing large on its stack.
const STACK_BYTES: usize = 256 << 10;
/// How long an accept loop rests after a failure, such as a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Where clients can connect.
pub(super) struct Listeners {
    tcp: Vec<TcpListener>,
    unix: Option<UnixListener>,
    /// The TCP port that was really got.
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
    let mut failing = false;
    loop {
        match accept() {
            Ok(socket) => {
                failing = false;
                welcome(server, socket);
            }
            Err(error) => {
                // A lack of descriptors passes; an aborted connection is nobody's loss.
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
        // Entered here, not by its thread: the next connection must count it.
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
