//! What every test builds on: a server of its own, a client that speaks raw RESP, and a textual form of
//! replies, so that a test reads like documentation.
//!
//! **The server.** [`connect`] starts the binary under test on a free port, in a directory of its own, and
//! kills it when the client is dropped. With `REDIS_ADDR=host:port` in the environment it connects to that
//! real Redis instead: the tests then run one at a time, each starts with an empty Redis, and the settings
//! that a test changed are restored. Tests of our own process use [`Server`] directly and start with
//! [`skipped_on_redis`].
//!
//! **The transcript.** [`Client::transcript`] takes a session as text:
//!
//! ```text
//! > SET greeting "hello\r\n"
//! +OK
//! > GET greeting
//! "hello\r\n"
//! other> GET greeting
//! "hello\r\n"
//! 7.4> HSCAN h 0 NOVALUES
//! ["0", []]
//! 8.2+valkey> SCAN -1
//! -ERR invalid cursor
//! // A comment.
//! ```
//!
//! A line with a prompt is a command, quoted as in `redis-cli`; the lines up to the next prompt are the
//! expected reply, as [`Reply`] displays it. The word before the `>` says which servers take the step (see
//! [`Peer::takes`]; on others it is skipped with a message), or is `sorted` (the elements of the reply come
//! in any order), or the name of another connection, which is opened at its first use.
//!
//! **Waiting.** A test does not sleep until something has happened: it calls [`eventually`]. Reads time
//! out, so a server that hangs fails the test.
//!
//! [`data`] fills and compares whole data sets, and reads the log's files.

mod client;
mod data;
mod reply;
mod server;
mod transcript;

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub(crate) use client::{Client, encode};
pub(crate) use data::{
    FAR, assert_same, assert_survives_kill_9, await_rewrite, dump, files, fill, info, pipeline,
    records, rewrite, start_rewrite, write_all,
};
pub(crate) use reply::{Reply, quote, read_reply};
pub(crate) use server::{
    KilledOnDrop, Server, TempDir, check_aof, free_port, installed, start_with_log,
};
pub(crate) use transcript::split_command;

/// How long a test waits for a reply or a condition before it fails.
const PATIENCE: Duration = Duration::from_secs(20);

// ---- Which server is tested --------------------------------------------------------------------------

/// A client of an empty server that no other test uses.
pub(crate) fn connect() -> Client {
    connect_with(&[])
}

/// Like [`connect`], but starts our server with these arguments. A real Redis must run with them already.
pub(crate) fn connect_with(args: &[&str]) -> Client {
    let host = Arc::new(match std::env::var("REDIS_ADDR") {
        Ok(address) => Host::Redis(SharedRedis::reserve(&address)),
        Err(_) => Host::Respite(Server::start(args)),
    });
    let (address, peer) = match &*host {
        Host::Redis(redis) => (redis.address, Some(redis.peer)),
        Host::Respite(server) => (server.address(), None),
    };
    let mut client = Client::to(address);
    client.peer = peer;
    client._host = Some(host);
    client
}

/// Runs a transcript in a new session: see the top of this file.
#[track_caller]
pub(crate) fn transcript(session: &str) {
    connect().transcript(session);
}

/// Whether the tests run against a real Redis, which a test of our own process cannot use. Prints a message
/// if so.
pub(crate) fn skipped_on_redis() -> bool {
    let on_redis = std::env::var_os("REDIS_ADDR").is_some();
    if on_redis {
        say("skipped: it tests Respite's own process, not a Redis at REDIS_ADDR");
    }
    on_redis
}

/// Prints a message with the name of the running test, even if the test passes: the reader of the output
/// must see what was not tested.
pub(crate) fn say(message: &str) {
    let thread = thread::current();
    let test = thread.name().unwrap_or("a test").to_owned();
    // Not eprintln!, because the test runner hides it. If stderr is closed, nothing is lost.
    let _ = writeln!(io::stderr(), "\n    {test}: {message}");
}

/// The server of a client. It lives as long as any of its clients.
enum Host {
    Respite(Server),
    Redis(SharedRedis),
}

/// Exclusive use of the Redis at `REDIS_ADDR`; dropping it restores the settings and the users.
struct SharedRedis {
    address: SocketAddr,
    peer: Peer,
    /// Opened before the test can set a password, so it can clean up afterwards.
    keeper: Mutex<Client>,
    settings: BTreeMap<String, String>,
    /// Dropped last, so the next test starts after the clean-up.
    _turn: Turn,
}

type Version = (u32, u32);

/// A real server. Valkey calls itself Redis 7.2, from which it was forked, and counts as that.
#[derive(Clone, Copy)]
pub(crate) struct Peer {
    redis: Version,
    valkey: Option<Version>,
}

impl Peer {
    /// From the text of `INFO server`.
    fn of(info: &str) -> Peer {
        let version = |field| info.lines().find_map(|line| line.strip_prefix(field));
        let redis = version("redis_version:").expect("INFO server has no redis_version");
        Peer { redis: parse_version(redis), valkey: version("valkey_version:").map(parse_version) }
    }

    pub(crate) fn is_valkey(self) -> bool {
        self.valkey.is_some()
    }

    pub(crate) fn is_before_8_2(self) -> bool {
        !self.is_valkey() && self.redis < (8, 2)
    }

    /// Whether a step with these words, joined by `+`, is for this server: `8.2` means Redis since 8.2,
    /// `redis` every Redis, `valkey` every Valkey. Ours takes every step.
    fn takes(self, words: &str) -> bool {
        words.split('+').any(|word| match word {
            "redis" => self.valkey.is_none(),
            "valkey" => self.valkey.is_some(),
            version => self.redis >= parse_version(version),
        })
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        match (self.valkey, self.redis) {
            (Some((major, minor)), _) => write!(out, "Valkey {major}.{minor}"),
            (None, (major, minor)) => write!(out, "Redis {major}.{minor}"),
        }
    }
}

impl SharedRedis {
    fn reserve(address: &str) -> SharedRedis {
        let turn = Turn::wait();
        let address = address
            .to_socket_addrs()
            .ok()
            .and_then(|mut all| all.next())
            .unwrap_or_else(|| panic!("REDIS_ADDR is not host:port: {address}"));
        let mut keeper = Client::to(address);
        let info = keeper.reply("INFO server").into_text();
        let peer = Peer::of(&info);
        keeper.expect("FLUSHALL", "+OK");
        let settings = keeper.settings();
        SharedRedis { address, peer, keeper: Mutex::new(keeper), settings, _turn: turn }
    }
}

impl Drop for SharedRedis {
    fn drop(&mut self) {
        let keeper = self.keeper.get_mut().unwrap_or_else(|e| e.into_inner());
        keeper.call(&["REPLICAOF", "NO", "ONE"]);
        for user in keeper.reply("ACL USERS").into_items() {
            keeper.call(&[b"ACL".to_vec(), b"DELUSER".to_vec(), user.into_bytes()]);
        }
        keeper.reply("ACL SETUSER default reset on nopass ~* &* +@all");
        for (name, value) in keeper.settings() {
            if self.settings.get(&name) != Some(&value) {
                keeper.call(&["CONFIG", "SET", &name, &self.settings[&name]]);
            }
        }
        keeper.call(&["FLUSHALL"]);
        keeper.call(&["DEBUG", "SET-ACTIVE-EXPIRE", "1"]);
        keeper.call(&["DEBUG", "PAUSE-CRON", "0"]);
    }
}

/// The right to use the Redis, which one test has at a time. Not a `MutexGuard`, because only the thread
/// that locked it may drop it.
struct Turn;

static TAKEN: Mutex<bool> = Mutex::new(false);
static FREED: Condvar = Condvar::new();

impl Turn {
    fn wait() -> Turn {
        let mut taken = TAKEN.lock().unwrap();
        while *taken {
            taken = FREED.wait(taken).unwrap();
        }
        *taken = true;
        Turn
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *TAKEN.lock().unwrap_or_else(|e| e.into_inner()) = false;
        FREED.notify_one();
    }
}

fn parse_version(text: &str) -> Version {
    let mut parts = text.trim().split('.').map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

// ---- Waiting -----------------------------------------------------------------------------------------

/// Waits until `condition` holds. Fails with `what` if it takes too long.
#[track_caller]
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < PATIENCE, "timed out waiting until {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Waits until everything that expires within this many milliseconds has expired.
pub(crate) fn wait_ms(milliseconds: i64) {
    let expiry = unix_now_ms() + milliseconds;
    eventually("the expiry time has passed", || unix_now_ms() > expiry);
}

pub(crate) fn unix_now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.expect("the clock is past 1970").as_millis() as i64
}
