//! The client: raw bytes or commands out, replies in.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;

use super::transcript::steps;
use super::{Host, PATIENCE, Peer, Reply, Version, quote, read_reply, say, split_command};

/// A connection that sends any bytes, valid or not, and reads replies strictly.
pub(crate) struct Client {
    stream: TcpStream,
    reader: BufReader<TcpStream>,
    address: SocketAddr,
    /// The real server at the other end; `None` for Respite, which follows the newest.
    pub(crate) peer: Option<Peer>,
    pub(super) _host: Option<Arc<Host>>,
}

impl Client {
    pub(crate) fn to(address: SocketAddr) -> Client {
        let stream = TcpStream::connect_timeout(&address, PATIENCE);
        let refused = |error| panic!("cannot connect to {address}: {error}");
        Client::over(stream.unwrap_or_else(refused), address)
    }

    /// A client of a server that may be gone.
    pub(crate) fn try_to(address: SocketAddr) -> Option<Client> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE).ok()?;
        Some(Client::over(stream, address))
    }

    fn over(stream: TcpStream, address: SocketAddr) -> Client {
        stream.set_nodelay(true).expect("set TCP_NODELAY");
        stream.set_read_timeout(Some(PATIENCE)).expect("set a timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("set a timeout");
        Client {
            reader: BufReader::new(stream.try_clone().expect("share the socket")),
            stream,
            address,
            peer: None,
            _host: None,
        }
    }

    /// Opens another connection to the same server.
    pub(crate) fn another(&self) -> Client {
        let mut client = Client::to(self.address);
        client.peer = self.peer;
        client._host = self._host.clone();
        client
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address of this end, as `CLIENT LIST` shows it.
    pub(crate) fn local_address(&self) -> SocketAddr {
        self.stream.local_addr().expect("a local address")
    }

    /// The version of the Redis; for Respite, which follows the newest, the highest possible one.
    pub(crate) fn redis_version(&self) -> Version {
        self.peer.map_or((u32::MAX, u32::MAX), |peer| peer.redis)
    }

    /// Whether the server is ours or one of those that [`Peer::takes`] describes. Prints a message if not.
    pub(crate) fn redis_at_least(&self, servers: &str) -> bool {
        match self.peer {
            Some(peer) if !peer.takes(servers) => {
                say(&format!("skipped in part: needs {servers}, this is {peer}"));
                false
            }
            _ => true,
        }
    }

    // -- Bytes --

    /// A handle of the socket, so another thread can send while this one reads.
    pub(crate) fn sending_half(&self) -> TcpStream {
        self.stream.try_clone().expect("share the socket")
    }

    pub(crate) fn send_raw(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("send");
    }

    /// Like [`Client::send_raw`], for bytes that may make the server close the connection.
    pub(crate) fn try_send_raw(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref());
    }

    /// Shuts down this side of the connection.
    pub(crate) fn close_sending(&self) {
        self.stream.shutdown(Shutdown::Write).expect("shut down");
    }

    /// Reads as many bytes as are expected, and compares them.
    #[track_caller]
    pub(crate) fn expect_bytes(&mut self, expected: impl AsRef<[u8]>) {
        let expected = expected.as_ref();
        let mut received = Vec::new();
        let mut byte = [0];
        while received.len() < expected.len() {
            match self.reader.read(&mut byte) {
                Ok(1) => received.push(byte[0]),
                _ => break,
            }
        }
        assert_eq!(
            quote(&received),
            quote(expected),
            "the bytes received (left) are not those expected (right)"
        );
    }

    /// Fills the buffer with bytes that are received.
    #[track_caller]
    pub(crate) fn read_exact(&mut self, buffer: &mut [u8]) {
        self.reader.read_exact(buffer).expect("as many bytes as expected");
    }

    /// Sends bytes and expects bytes.
    #[track_caller]
    pub(crate) fn exchange(&mut self, sent: impl AsRef<[u8]>, expected: impl AsRef<[u8]>) {
        self.send_raw(sent);
        self.expect_bytes(expected);
    }

    #[track_caller]
    pub(crate) fn expect_closed(&mut self) {
        let mut rest = Vec::new();
        match self.reader.read_to_end(&mut rest) {
            Ok(_) => {}
            Err(error) if is_disconnection(&error) => {}
            Err(error) => panic!("the connection is not closed: {error}"),
        }
        assert_eq!(quote(&rest), "\"\"", "bytes that came before the connection closed");
    }

    // -- Replies --

    /// The next reply; [`Reply::Closed`] when the server has closed the connection.
    #[track_caller]
    pub(crate) fn read_reply(&mut self) -> Reply {
        match read_reply(&mut self.reader) {
            Ok(reply) => reply,
            Err(error) if is_disconnection(&error) => Reply::Closed,
            Err(error) => panic!("no reply: {error}"),
        }
    }

    /// Reads one reply and also returns its bytes.
    #[track_caller]
    pub(crate) fn read_reply_and_bytes(&mut self) -> (Reply, Vec<u8>) {
        let mut recorder = Recorder { inner: &mut self.reader, bytes: Vec::new() };
        match read_reply(&mut recorder) {
            Ok(reply) => (reply, recorder.bytes),
            Err(error) if is_disconnection(&error) => (Reply::Closed, recorder.bytes),
            Err(error) => panic!("no reply: {error}"),
        }
    }

    /// Sends one command, as a client library would.
    pub(crate) fn send<A: AsRef<[u8]>>(&mut self, args: &[A]) {
        let bytes = encode(args);
        self.try_send_raw(bytes);
    }

    #[track_caller]
    pub(crate) fn call<A: AsRef<[u8]>>(&mut self, args: &[A]) -> Reply {
        self.send(args);
        self.read_reply()
    }

    /// The reply to a command, which is written as in `redis-cli`.
    #[track_caller]
    pub(crate) fn reply(&mut self, command: &str) -> Reply {
        self.call(&split_command(command))
    }

    #[track_caller]
    pub(crate) fn expect(&mut self, command: &str, expected: &str) {
        let reply = self.reply(command).to_string();
        assert_eq!(reply, expected, "the reply to: {command}");
    }

    #[track_caller]
    pub(crate) fn integer(&mut self, command: &str) -> i64 {
        match self.reply(command) {
            Reply::Integer(number) => number,
            other => panic!("not an integer: {other}, the reply to: {command}"),
        }
    }

    /// The text of a bulk, simple or verbatim string.
    #[track_caller]
    pub(crate) fn text(&mut self, command: &str) -> String {
        self.reply(command).into_text()
    }

    /// Checks a whole session: see the top of [`harness`](super). It takes all steps before it fails, so
    /// one run shows every difference.
    #[track_caller]
    pub(crate) fn transcript(&mut self, session: &str) {
        let mut others: HashMap<String, Client> = HashMap::new();
        let mut wrong = Vec::new();
        for step in steps(session) {
            if let Some(servers) = &step.servers
                && !self.redis_at_least(servers)
            {
                continue;
            }
            let client = match &step.connection {
                None => &mut *self,
                Some(name) => {
                    let another = || self.another();
                    others.entry(name.clone()).or_insert_with(another)
                }
            };
            let mut reply = client.reply(&step.command);
            if step.sorted {
                reply.sort();
            }
            let reply = reply.to_string();
            if reply != step.expected {
                wrong.push(format!(
                    "  > {}\n    expected {}\n    received {reply}",
                    step.command, step.expected
                ));
            }
        }
        assert!(wrong.is_empty(), "{} of the replies differ:\n{}", wrong.len(), wrong.join("\n"));
    }

    /// All settings, by name.
    pub(crate) fn settings(&mut self) -> BTreeMap<String, String> {
        let all = self.reply("CONFIG GET *").into_items();
        all.chunks_exact(2)
            .map(|pair| (pair[0].clone().into_text(), pair[1].clone().into_text()))
            .collect()
    }
}

fn is_disconnection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
    )
}

/// Records the bytes that are read through it.
struct Recorder<'a> {
    inner: &'a mut BufReader<TcpStream>,
    bytes: Vec<u8>,
}

impl Read for Recorder<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(into)?;
        self.bytes.extend_from_slice(&into[..count]);
        Ok(count)
    }
}

impl BufRead for Recorder<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inner.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        self.bytes.extend_from_slice(&self.inner.buffer()[..count]);
        self.inner.consume(count);
    }
}

/// The multibulk form of a command.
pub(crate) fn encode<A: AsRef<[u8]>>(args: &[A]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", args.len()).into_bytes();
    for arg in args {
        let arg = arg.as_ref();
        bytes.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        bytes.extend_from_slice(arg);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}
