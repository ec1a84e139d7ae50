//! A master that does what the test says: it takes connections of replicas, and sends bytes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use crate::harness::{Client, Reply, encode, eventually, read_reply};

/// How long a replica may take for anything.
const PATIENCE: Duration = Duration::from_secs(20);

/// The id of the master's data.
pub(super) const ID: &str = "0123456789abcdef0123456789abcdef01234567";
/// Marks the end of data of an unknown length.
pub(super) const MARK: &str = "mmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmm";

/// A master that listens for replicas.
pub(super) struct Master {
    listener: TcpListener,
}

/// A master's connection to a replica.
pub(super) struct Link {
    stream: TcpStream,
    input: BufReader<TcpStream>,
    /// What the replica said before it asked for the data, the greeting and passwords included.
    pub(super) said: Vec<Vec<String>>,
    /// What it asked for: an id and an offset.
    pub(super) asked: (String, String),
}

impl Master {
    pub(super) fn start() -> Master {
        Master { listener: TcpListener::bind("127.0.0.1:0").expect("listen") }
    }

    pub(super) fn port(&self) -> u16 {
        self.listener.local_addr().expect("an address").port()
    }

    /// Makes the server of this client a replica.
    pub(super) fn take(&self, c: &mut Client) {
        c.expect(&format!("REPLICAOF 127.0.0.1 {}", self.port()), "+OK");
    }

    /// Waits for the replica to connect, and answers until it asks for the data.
    pub(super) fn accept(&self) -> Link {
        self.listener.set_nonblocking(true).expect("not block");
        let mut accepted = None;
        eventually("the replica connects", || {
            accepted = self.listener.accept().ok();
            accepted.is_some()
        });
        let (stream, _) = accepted.expect("a connection");
        stream.set_nonblocking(false).expect("block");
        stream.set_nodelay(true).expect("set TCP_NODELAY");
        stream.set_read_timeout(Some(PATIENCE)).expect("set a timeout");
        let input = BufReader::new(stream.try_clone().expect("share the socket"));
        let mut link = Link { stream, input, said: Vec::new(), asked: Default::default() };
        loop {
            let words = link.command();
            match words[0].as_str() {
                "PING" => link.send("+PONG\r\n"),
                "PSYNC" => {
                    link.asked = (words[1].clone(), words[2].clone());
                    return link;
                }
                _ => link.send("+OK\r\n"),
            }
            link.said.push(words);
        }
    }
}

impl Link {
    /// The next command of the replica.
    pub(super) fn command(&mut self) -> Vec<String> {
        self.skip_empty_lines();
        if self.input.buffer().first() == Some(&b'S') {
            // As a Redis sends it. (An array begins with an asterisk.)
            let mut line = String::new();
            self.input.read_line(&mut line).expect("a line of the replica");
            return vec![line.trim_end().into()];
        }
        let command = read_reply(&mut self.input).expect("a command of the replica");
        command.into_items().into_iter().map(Reply::into_text).collect()
    }

    fn skip_empty_lines(&mut self) {
        while self.input.fill_buf().expect("a byte of the replica").first() == Some(&b'\n') {
            self.input.consume(1);
        }
    }

    /// The socket, to send what the replica may not want any more.
    pub(super) fn socket(&self) -> TcpStream {
        self.stream.try_clone().expect("share the socket")
    }

    pub(super) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("send to the replica");
    }

    /// Sends commands, written as in redis-cli.
    pub(super) fn commands(&mut self, commands: &[&str]) {
        self.send(stream(commands));
    }

    /// Sends data, with that id and offset, as so many bytes.
    pub(super) fn send_all(&mut self, offset: u64, data: &[u8]) {
        self.send(format!("+FULLRESYNC {ID} {offset}\r\n${}\r\n", data.len()));
        self.send(data);
    }

    /// Sends data up to a mark.
    pub(super) fn send_up_to_mark(&mut self, offset: u64, data: &[u8]) {
        self.send(format!("+FULLRESYNC {ID} {offset}\r\n$EOF:{MARK}\r\n"));
        self.send(data);
        self.send(MARK);
    }

    /// Ends the connection, and returns what the replica has sent since its last command.
    pub(super) fn rest(mut self) -> Vec<u8> {
        self.stream.shutdown(std::net::Shutdown::Write).expect("end the connection");
        let mut rest = Vec::new();
        self.input.read_to_end(&mut rest).expect("the rest of what the replica sent");
        rest
    }

    /// Waits until the replica has confirmed that much of the stream.
    #[track_caller]
    pub(super) fn await_acknowledgement(&mut self, offset: u64) {
        eventually("the replica confirms the offset", || {
            let words = self.command();
            words[0] == "REPLCONF" && words[1] == "ACK" && words[2] == offset.to_string()
        });
    }
}

/// The bytes of commands, written as in redis-cli.
pub(super) fn stream(commands: &[&str]) -> Vec<u8> {
    let encoded = commands.iter().map(|text| encode(&crate::harness::split_command(text)));
    encoded.collect::<Vec<_>>().concat()
}

/// An RDB file with these strings in database 0.
pub(super) fn rdb(strings: &[(&str, &str)]) -> Vec<u8> {
    let mut data = b"REDIS0010\xfe\x00".to_vec();
    for (key, value) in strings {
        data.push(0);
        for text in [key, value] {
            data.push(u8::try_from(text.len()).ok().filter(|len| *len < 64).expect("short text"));
            data.extend(text.as_bytes());
        }
    }
    end(data)
}

/// An RDB file with a list.
pub(super) fn rdb_with_list(key: &str) -> Vec<u8> {
    let mut data = b"REDIS0010\xfe\x00\x01".to_vec();
    data.push(u8::try_from(key.len()).expect("a short key"));
    data.extend(key.as_bytes());
    data.extend(b"\x01\x01x"); // one element
    end(data)
}

/// The end of a file without a checksum.
fn end(mut data: Vec<u8>) -> Vec<u8> {
    data.push(0xff);
    data.extend([0; 8]);
    data
}
