//! A crowd of clients that misbehave: they never read, send a byte now and then, stop in the middle of a
//! command, say nothing, or vanish. Others are served as before, limits and timeouts end the crowd, and what
//! it held is given back.
//!
//! `CROWD` sets how many they are.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{Client, Reply, Server, encode, eventually, skipped_on_redis};

const DEFAULT_CROWD: usize = 210;
/// The output that may wait for a client, and the memory that a client may hold with it.
const LIMIT_KB: u64 = 1 << 10;
const SPARE_KB: u64 = 64 << 10;

/// What a client of the crowd does.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    /// Asks for more than all buffers hold.
    NeverReads,
    NeverReadsMessages,
    NeverReadsWhatItMonitors,
    StopsInACommand,
    SaysNothing,
    /// Sends a byte now and then: it is slow, and may stay.
    Drips,
    Vanishes,
}

use Manner::*;

const MANNERS: [Manner; 7] = [
    NeverReads,
    NeverReadsMessages,
    NeverReadsWhatItMonitors,
    StopsInACommand,
    SaysNothing,
    Drips,
    Vanishes,
];

/// A client of the crowd. It sends without waiting: what it does not read must not hold it up.
fn join(address: SocketAddr, manner: Manner) -> Option<TcpStream> {
    let mut socket = TcpStream::connect(address).expect("connect");
    let request = match manner {
        NeverReads => encode(&["GET", "big"]).repeat(200),
        NeverReadsMessages => encode(&["SUBSCRIBE", "news"]),
        NeverReadsWhatItMonitors => encode(&["MONITOR"]),
        StopsInACommand | Vanishes => b"*3\r\n$3\r\nSET\r\n$5\r\nkey".to_vec(),
        SaysNothing => Vec::new(),
        Drips => b"*2\r\n$4\r\nECHO\r\n$100000\r\n".to_vec(),
    };
    socket.write_all(&request).expect("send");
    (manner != Vanishes).then_some(socket)
}

/// The longest that a client waits which works for a while.
fn longest_wait(c: &mut Client) -> Duration {
    let message = "x".repeat(64 << 10);
    let mut longest = Duration::ZERO;
    for _ in 0..300 {
        let commands: [&[&str]; 3] =
            [&["SET", "key", "value"], &["GET", "key"], &["PUBLISH", "news", &message]];
        for command in commands {
            let sent = Instant::now();
            let reply = c.call(command);
            longest = longest.max(sent.elapsed());
            assert!(!matches!(reply, Reply::Error(_) | Reply::Closed), "{reply}");
        }
    }
    longest
}

fn number(c: &mut Client, section: &str, field: &str) -> usize {
    let info = c.text(&format!("INFO {section}"));
    let found = info.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    found.and_then(|number| number.trim().parse().ok()).expect("a number")
}

#[test]
fn a_crowd_of_slow_and_dead_clients_slows_nobody_and_leaves_nothing_behind() {
    if skipped_on_redis() {
        return;
    }
    let crowd = std::env::var("CROWD").ok().and_then(|count| count.parse().ok());
    let each = crowd.unwrap_or(DEFAULT_CROWD) / MANNERS.len();
    let limits = "normal 1mb 0 0 pubsub 1mb 0 0";
    let server = Server::start(&["--client-output-buffer-limit", limits]);
    let mut c = server.client();
    assert_eq!(c.call(&["SET", "big", &"x".repeat(100_000)]).to_string(), "+OK");
    let alone = longest_wait(&mut c);
    let resident_kb = || if cfg!(target_os = "linux") { server.resident_kb() } else { 0 };
    let before_kb = resident_kb();
    let is_over = AtomicBool::new(false);
    let in_crowd = thread::scope(|scope| {
        let over = Over(&is_over);
        let crowd = scope.spawn(|| {
            let manners = MANNERS.iter().cycle().take(each * MANNERS.len());
            let (mut drips, mut others): (Vec<_>, Vec<_>) = manners
                .filter_map(|manner| Some((*manner, join(server.address(), *manner)?)))
                .partition(|(manner, _)| *manner == Drips);
            while !is_over.load(SeqCst) {
                for (_, socket) in &mut drips {
                    socket.write_all(b".").expect("it is not cut off");
                }
                thread::sleep(Duration::from_millis(100));
            }
            others.clear();
        });
        // Those who do not read are disconnected while others work.
        let mut longest = Duration::ZERO;
        let unread = 3 * each;
        let field = "client_output_buffer_limit_disconnections";
        eventually("those who do not read are disconnected", || {
            longest = longest.max(longest_wait(&mut c));
            let now_kb = resident_kb();
            let most_kb = before_kb + (each * MANNERS.len()) as u64 * LIMIT_KB + SPARE_KB;
            assert!(now_kb <= most_kb, "{before_kb} KB have become {now_kb} KB");
            number(&mut c, "stats", field) >= unread
        });
        c.expect("CONFIG SET timeout 1", "+OK");
        eventually("those who are silent are disconnected", || {
            number(&mut c, "clients", "connected_clients") <= 1 + each
        });
        drop(over);
        crowd.join().expect("the crowd");
        longest
    });
    // A busy machine delays both.
    assert!(in_crowd <= alone * 10 + Duration::from_secs(1), "{in_crowd:?} instead of {alone:?}");
    eventually("all have ended", || number(&mut c, "clients", "connected_clients") == 1);
    eventually("memory is given back", || resident_kb() <= before_kb + SPARE_KB);
}

struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}
