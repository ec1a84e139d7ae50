//! A client's socket, TCP or Unix. The client's threads read and write it; any thread may close it.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// How long reading ahead waits for bytes that may be on their way.
const READ_AHEAD_TIME: Duration = Duration::from_millis(1);

pub enum Socket {
    /// Accepted on an address of `bind`.
    Tcp(TcpStream),
    /// Accepted on `unixsocket`.
    Unix(UnixStream),
}

impl Socket {
    /// The addresses of the peer and of this end, as `CLIENT LIST` shows them.
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

    /// Whether the peer is on this machine.
    pub fn is_local(&self) -> bool {
        match self {
            Socket::Tcp(stream) => {
                stream.peer_addr().is_ok_and(|address| address.ip().to_canonical().is_loopback())
            }
            Socket::Unix(_) => true,
        }
    }

    /// Sets whether every write is sent at once. Otherwise small ones wait until the peer has confirmed what
    /// was sent before (Nagle's algorithm, [RFC 896](https://www.rfc-editor.org/rfc/rfc896)).
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn send_at_once(&self, at_once: bool) -> io::Result<()> {
        match self {
            Socket::Tcp(stream) => stream.set_nodelay(at_once),
            Socket::Unix(_) => Ok(()),
        }
    }

    /// Sets whether reads and writes fail with `WouldBlock` instead of blocking.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        match self {
            Socket::Tcp(stream) => stream.set_nonblocking(nonblocking),
            Socket::Unix(stream) => stream.set_nonblocking(nonblocking),
        }
    }

    /// Sets how long a read waits for bytes before it fails with `WouldBlock`; `None` for ever.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn set_read_timeout(&self, limit: Option<Duration>) -> io::Result<()> {
        match self {
            Socket::Tcp(stream) => stream.set_read_timeout(limit),
            Socket::Unix(stream) => stream.set_read_timeout(limit),
        }
    }

    /// Sets how long a write waits before it fails with `WouldBlock` if the peer reads nothing; `None` for
    /// ever.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn set_write_timeout(&self, limit: Option<Duration>) -> io::Result<()> {
        match self {
            Socket::Tcp(stream) => stream.set_write_timeout(limit),
            Socket::Unix(stream) => stream.set_write_timeout(limit),
        }
    }

    pub fn fd(&self) -> i32 {
        match self {
            Socket::Tcp(stream) => stream.as_raw_fd(),
            Socket::Unix(stream) => stream.as_raw_fd(),
        }
    }

    /// Shuts the socket down in both directions. A thread that is blocked on it returns.
    pub fn close(&self) {
        let closed = match self {
            Socket::Tcp(stream) => stream.shutdown(Shutdown::Both),
            Socket::Unix(stream) => stream.shutdown(Shutdown::Both),
        };
        closed.unwrap_or_default(); // an error means that it is closed already
    }
}

/// What arrives on a socket. While a pause holds the client's command back, more is read *ahead*, to learn
/// whether the client has hung up.
pub struct Incoming<'a> {
    pub socket: &'a Socket,
    ahead: VecDeque<u8>,
}

impl<'a> Incoming<'a> {
    pub fn new(socket: &'a Socket) -> Incoming<'a> {
        Incoming { socket, ahead: VecDeque::new() }
    }

    /// Reads ahead what has arrived, if that makes at most so many bytes. Changes how long a read waits.
    ///
    /// # Errors
    /// [`ErrorKind::UnexpectedEof`]: the client has hung up. [`ErrorKind::FileTooLarge`]: it has sent more.
    /// Others are those of the socket.
    pub fn read_ahead(&mut self, most_bytes: usize) -> io::Result<()> {
        // A time limit and not non-blocking mode: another thread may be writing.
        self.socket.set_read_timeout(Some(READ_AHEAD_TIME))?;
        let mut buffer = [0; 16 << 10];
        let mut socket = self.socket;
        loop {
            match socket.read(&mut buffer) {
                Ok(0) => break Err(ErrorKind::UnexpectedEof.into()),
                Ok(got) => match self.ahead.try_reserve(got) {
                    Ok(()) => self.ahead.extend(&buffer[..got]),
                    Err(refused) => break Err(refused.into()),
                },
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break Ok(()),
                Err(error) => break Err(error),
            }
            if self.ahead.len() > most_bytes {
                break Err(ErrorKind::FileTooLarge.into());
            }
        }
    }
}

impl Read for Incoming<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.ahead.is_empty() {
            return self.socket.read(buffer);
        }
        let got = self.ahead.read(buffer)?;
        if self.ahead.is_empty() {
            self.ahead = VecDeque::new(); // it may have been large
        }
        Ok(got)
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn small_writes_are_sent_at_once_or_gathered_as_asked() -> io::Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let stream = TcpStream::connect(listener.local_addr()?)?;
        let socket = Socket::Tcp(stream.try_clone()?);
        for at_once in [true, false] {
            socket.send_at_once(at_once)?;
            assert_eq!(stream.nodelay()?, at_once);
        }
        Ok(())
    }
}
