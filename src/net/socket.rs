//! A client's socket, TCP or Unix, which its thread reads and writes and others may close.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

/// A connected socket.
pub enum Socket {
    /// From an address of `bind`.
    Tcp(TcpStream),
    /// From `unixsocket`.
    Unix(UnixStream),
}

impl Socket {
    /// The addresses of the far end and of ours, as `CLIENT LIST` shows them.
    pub fn addresses(&self) -> (String, String) {
        match self {
            Socket::Tcp(stream) => {
                let show = |address: io::Result<std::net::SocketAddr>| {
                    address.map_or_else(|_| "?:0".into(), |address| address.to_string())
                };
                (show(stream.peer_addr()), show(stream.local_addr()))
            }
            Socket::Unix(stream) => {
                let address = stream.local_addr().ok();
                let path = address.as_ref().and_then(|address| address.as_pathname());
                let shown = path.map_or_else(String::new, |path| path.display().to_string());
                (format!("{shown}:0"), format!("{shown}:0"))
            }
        }
    }

    /// Whether the far end is on this machine.
    pub fn is_local(&self) -> bool {
        match self {
            Socket::Tcp(stream) => {
                stream.peer_addr().is_ok_and(|address| address.ip().to_canonical().is_loopback())
            }
            Socket::Unix(_) => true,
        }
    }

    /// Sends what is written at once, instead of waiting for more.
    pub fn send_at_once(&self) -> io::Result<()> {
        match self {
            Socket::Tcp(stream) => stream.set_nodelay(true),
            Socket::Unix(_) => Ok(()),
        }
    }

    /// Lets reads and writes fail at once where they would have to wait; or lets them wait again.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        match self {
            Socket::Tcp(stream) => stream.set_nonblocking(nonblocking),
            Socket::Unix(stream) => stream.set_nonblocking(nonblocking),
        }
    }

    /// The number of its file descriptor.
    pub fn fd(&self) -> i32 {
        match self {
            Socket::Tcp(stream) => stream.as_raw_fd(),
            Socket::Unix(stream) => stream.as_raw_fd(),
        }
    }

    /// Ends it: its thread, wherever it waits, finds it closed.
    pub fn close(&self) {
        let closed = match self {
            Socket::Tcp(stream) => stream.shutdown(Shutdown::Both),
            Socket::Unix(stream) => stream.shutdown(Shutdown::Both),
        };
        closed.unwrap_or_default(); // it was closed already
    }
}

impl Read for &Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(stream) => (&mut &*stream).read(buffer),
            Socket::Unix(stream) => (&mut &*stream).read(buffer),
        }
    }
}

impl Write for &Socket {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(stream) => (&mut &*stream).write(buffer),
            Socket::Unix(stream) => (&mut &*stream).write(buffer),
        }
    }

    fn write_vectored(&mut self, buffers: &[io::IoSlice]) -> io::Result<usize> {
        match self {
            Socket::Tcp(stream) => (&mut &*stream).write_vectored(buffers),
            Socket::Unix(stream) => (&mut &*stream).write_vectored(buffers),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
