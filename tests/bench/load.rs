//! Load that redis-benchmark cannot generate, as raw RESP.

use std::array::from_fn;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use crate::rng::Rng;
use crate::servers::Server;

pub(crate) const VALUE: &str = "0123456789abcdef0123456789abcdef";
/// Commands in a pipeline when data is loaded; their replies fit into any socket's buffer.
const BATCH: usize = 1000;
/// The number of steady writers, and the time from one request of each to the next.
const WRITERS: u64 = 3;
const PACE: Duration = Duration::from_micros(500);

/// A client's connection.
pub(crate) struct Connection(BufReader<TcpStream>);

impl Connection {
    pub(crate) fn open(port: u16) -> io::Result<Connection> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        Ok(Connection(BufReader::new(stream)))
    }

    /// Sends a command and returns the reply: its line, or the contents of a bulk string.
    pub(crate) fn ask(&mut self, args: &[&str]) -> io::Result<String> {
        self.0.get_mut().write_all(&encode(args))?;
        let mut reply = String::new();
        self.0.read_line(&mut reply)?;
        if let Some(length) = reply.strip_prefix('$').and_then(|text| text.trim_end().parse().ok())
        {
            let mut bulk: Vec<u8> = vec![0; length];
            self.0.read_exact(&mut bulk)?;
            self.0.read_exact(&mut [0; 2])?;
            reply = String::from_utf8_lossy(&bulk).into();
        }
        Ok(reply.trim_end().into())
    }

    /// Sends commands that read one key each, and returns which of the keys exist.
    pub(crate) fn find(&mut self, commands: &[u8], replies: usize) -> Vec<bool> {
        self.0.get_mut().write_all(commands).expect("to send");
        let read = |_| {
            let mut reply = String::new();
            self.0.read_line(&mut reply).expect("a reply");
            let length = reply.trim_end().strip_prefix('$').and_then(|text| text.parse().ok());
            match length.unwrap_or_else(|| panic!("refused: {reply:?}")) {
                -1 => false,
                length => {
                    let (skipped, reader) = (length as u64 + 2, &mut self.0);
                    io::copy(&mut reader.take(skipped), &mut io::sink()).expect("a value");
                    true
                }
            }
        };
        (0..replies).map(read).collect()
    }

    /// Sends commands and waits for their replies, of one line each.
    pub(crate) fn send(&mut self, commands: &[u8], replies: usize) {
        self.0.get_mut().write_all(commands).expect("to send");
        let mut reply = String::new();
        for _ in 0..replies {
            reply.clear();
            self.0.read_line(&mut reply).expect("a reply");
            assert!(reply.starts_with(['+', ':']), "refused: {reply:?}");
        }
    }

    /// Sends the commands of all numbers below `count`.
    pub(crate) fn load(&mut self, count: usize, command: impl Fn(usize) -> Vec<u8>) {
        for first in (0..count).step_by(BATCH) {
            let numbers = first..count.min(first + BATCH);
            let batch: Vec<u8> = numbers.clone().flat_map(&command).collect();
            self.send(&batch, numbers.len());
        }
    }
}

/// The longest wait for a reply of [`WRITERS`] clients that send one `SET` after the other at a steady
/// pace, to random keys below `keys`, until `meanwhile` returns.
pub(crate) fn longest_wait(server: &Server, keys: usize, meanwhile: impl FnOnce()) -> Duration {
    let stop = Stop::default();
    thread::scope(|scope| {
        // Also stops them when `meanwhile` panics.
        let _stop_at_end = StopAtEnd(&stop);
        let start = |seed| {
            let (mut connection, random, stop) = (server.connect(), Rng::new(seed), &stop);
            scope.spawn(move || write_steadily(&mut connection, keys, random, stop))
        };
        let writers: Vec<_> = (1..=WRITERS).map(start).collect();
        meanwhile();
        stop.store(true, Relaxed);
        let longest = writers.into_iter().map(|writer| writer.join().expect("a writer failed"));
        longest.max().unwrap_or_default()
    })
}

pub(crate) type Stop = AtomicBool;

/// Sets it when it is dropped.
pub(crate) struct StopAtEnd<'a>(pub(crate) &'a Stop);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

fn write_steadily(c: &mut Connection, keys: usize, mut random: Rng, stop: &Stop) -> Duration {
    let mut longest = Duration::ZERO;
    let mut next = Instant::now();
    while !stop.load(Relaxed) {
        let command = set(random.below(keys));
        let sent = Instant::now();
        c.send(&command, 1);
        longest = longest.max(sent.elapsed());
        // A late request is not caught up with, which would be a burst.
        next = Instant::now().max(next + PACE);
        thread::sleep(next - Instant::now());
    }
    longest
}

/// A `SET` of one of the keys that redis-benchmark uses.
pub(crate) fn set(number: usize) -> Vec<u8> {
    encode(&["SET", &format!("key:{number:012}"), VALUE])
}

/// The same with a value of that many bytes.
pub(crate) fn set_with(number: usize, length: usize) -> Vec<u8> {
    encode(&["SET", &format!("key:{number:012}"), &"x".repeat(length)])
}

/// A `DEL` of one of these keys.
pub(crate) fn del(number: usize) -> Vec<u8> {
    encode(&["DEL", &format!("key:{number:012}")])
}

/// A `GET` of one of these keys.
pub(crate) fn get(number: usize) -> Vec<u8> {
    encode(&["GET", &format!("key:{number:012}")])
}

/// A `SET` of one to a value of 20 to 140 bytes.
pub(crate) fn set_of_any_size(number: usize) -> Vec<u8> {
    let length = 20 + Rng::new(number as u64).below(121);
    encode(&["SET", &format!("key:{number:012}"), &VALUE.repeat(5)[..length]])
}

/// A `SET` with an expiry.
pub(crate) fn set_that_expires(number: usize) -> Vec<u8> {
    encode(&["SET", &format!("key:{number:012}"), VALUE, "EX", "100000"])
}

/// A `SET` to a number.
pub(crate) fn set_digits(number: usize) -> Vec<u8> {
    encode(&["SET", &format!("key:{number:012}"), &format!("{}", 10_000_000 + number)])
}

/// A `SET` of a key of 40 bytes to a value of 100.
pub(crate) fn set_long(number: usize) -> Vec<u8> {
    encode(&["SET", &format!("key:{number:036}"), &VALUE.repeat(4)[..100]])
}

/// An `HSET` of three fields, with names of 5 bytes and values of 20.
pub(crate) fn hset_three(number: usize) -> Vec<u8> {
    hset_of(number, &from_fn::<_, 3, _>(|field| format!("fld{field:02}")), &VALUE[..20])
}

/// An `HSET` of ten fields, with names and values of 10 bytes.
pub(crate) fn hset_ten(number: usize) -> Vec<u8> {
    hset_of(number, &from_fn::<_, 10, _>(|field| format!("field:{field:04}")), &VALUE[..10])
}

/// An `HSET` of one field of a hash of 100,000, with a name of 10 bytes.
pub(crate) fn hset_one(number: usize) -> Vec<u8> {
    let (hash, field) = (number / 100_000, number % 100_000);
    encode(&["HSET", &format!("hash:{hash:011}"), &format!("field{field:05}"), VALUE])
}

fn hset_of<const N: usize>(number: usize, fields: &[String; N], value: &str) -> Vec<u8> {
    let key = format!("hash:{number:011}");
    let pairs = fields.iter().flat_map(|field| [field, value]);
    encode(&["HSET", &key].into_iter().chain(pairs).collect::<Vec<_>>())
}

fn encode(args: &[&str]) -> Vec<u8> {
    let bulk = |arg: &&str| format!("${}\r\n{arg}\r\n", arg.len());
    let bulks: String = args.iter().map(bulk).collect();
    format!("*{}\r\n{bulks}", args.len()).into()
}
