//! The bytes that a client has sent and no command has used yet.
//!
//! The buffer begins small and grows with what arrives at once, because most clients send little: an idle
//! connection costs a thread's stack and hardly more. When a client has been silent for a moment, its thread
//! wakes up once, gives back what a burst has left ([`Input::release`]), and then waits without a limit. A
//! client that goes on sending never gets there, so it costs a pipeline nothing.

use std::io::{self, ErrorKind, Read};
use std::time::Duration;

use super::socket::{Incoming, Socket};

/// The size of the buffer at first.
const FIRST_BYTES: usize = 1 << 10;
/// The most that one read takes from the socket.
const MOST_BYTES: usize = 16 << 10;
/// How long a client is silent before its buffers are given back.
const SILENCE: Duration = Duration::from_secs(1);

pub struct Input<'a> {
    incoming: Incoming<'a>,
    buffer: Vec<u8>,
    /// What has arrived and is not used is from here …
    start: usize,
    /// … to here.
    end: usize,
}

impl<'a> Input<'a> {
    /// Nothing has arrived.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn new(socket: &'a Socket) -> io::Result<Input<'a>> {
        socket.set_read_timeout(Some(SILENCE))?;
        Ok(Input { incoming: Incoming::new(socket), buffer: Vec::new(), start: 0, end: 0 })
    }

    pub fn socket(&self) -> &'a Socket {
        self.incoming.socket
    }

    /// The bytes that no command has used.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// The room for bytes.
    pub fn capacity(&self) -> usize {
        self.buffer.len()
    }

    /// Marks so many bytes as used.
    pub fn consume(&mut self, count: usize) {
        self.start += count;
        debug_assert!(self.start <= self.end);
    }

    /// Waits for bytes if there are none. Returns how many there are: 0 at the end of the stream.
    ///
    /// # Errors
    /// [`ErrorKind::WouldBlock`]: nothing has arrived, because the client is silent or the socket is
    /// non-blocking. Others are those of the socket.
    pub fn fill(&mut self) -> io::Result<usize> {
        if self.start == self.end {
            if self.end == self.buffer.len() && self.end < MOST_BYTES {
                let length = (4 * self.end).clamp(FIRST_BYTES, MOST_BYTES);
                self.buffer = vec![0; length];
            }
            (self.start, self.end) = (0, 0);
            self.end = loop {
                match self.incoming.read(&mut self.buffer) {
                    // A read with a time limit is interrupted when the process is stopped and goes on.
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    result => break result?,
                }
            };
        }
        Ok(self.end - self.start)
    }

    /// Gives the buffer back, if all bytes are used.
    pub fn release(&mut self) {
        if self.start == self.end {
            (self.buffer, self.start, self.end) = (Vec::new(), 0, 0);
        }
    }

    /// Like [`Input::fill`] for a client that is silent: waits without a limit.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn fill_after_silence(&mut self) -> io::Result<usize> {
        self.socket().set_read_timeout(None)?;
        let arrived = self.fill()?;
        self.socket().set_read_timeout(Some(SILENCE))?;
        Ok(arrived)
    }

    /// Reads ahead what has arrived, if that makes at most so many bytes.
    ///
    /// # Errors
    /// Those of [`Incoming::read_ahead`].
    pub fn read_ahead(&mut self, most_bytes: usize) -> io::Result<()> {
        let read = self.incoming.read_ahead(most_bytes);
        self.socket().set_read_timeout(Some(SILENCE))?;
        read
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    #[test]
    fn the_buffer_grows_with_what_arrives_at_once_and_can_be_given_back() {
        let (mut client, server) = UnixStream::pair().expect("a pair of sockets");
        let socket = Socket::Unix(server);
        let mut input = Input::new(&socket).expect("a socket with a time limit");
        let mut sizes = Vec::new();
        let sent: Vec<u8> = (0..40_000).map(|n| n as u8).collect();
        client.write_all(&sent).expect("to send");
        let mut received = Vec::new();
        while received.len() < sent.len() {
            let arrived = input.fill().expect("bytes");
            assert_eq!(input.fill().ok(), Some(arrived), "what is not used stays");
            sizes.push(input.capacity());
            received.extend_from_slice(&input.bytes()[..1]);
            input.consume(1);
            input.release();
            received.extend_from_slice(input.bytes());
            input.consume(arrived - 1);
        }
        assert_eq!(received, sent);
        assert_eq!(sizes, [FIRST_BYTES, 4096, MOST_BYTES, MOST_BYTES, MOST_BYTES]);
        input.release();
        assert_eq!(input.capacity(), 0);
    }

    #[test]
    fn a_silent_client_is_waited_for_with_a_limit_and_then_without() {
        let (mut client, server) = UnixStream::pair().expect("a pair of sockets");
        let socket = Socket::Unix(server);
        let mut input = Input::new(&socket).expect("a socket with a time limit");
        let silent = input.fill().expect_err("nothing has arrived");
        assert_eq!(silent.kind(), ErrorKind::WouldBlock);
        let arrived = std::thread::scope(|scope| {
            scope.spawn(move || {
                std::thread::sleep(SILENCE + SILENCE / 4);
                client.write_all(b"late").expect("to send");
            });
            input.fill_after_silence()
        });
        assert_eq!(arrived.ok(), Some(4));
    }
}
