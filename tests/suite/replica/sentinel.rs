//! Sentinel: three of them watch a Respite with two replicas, a Redis and a Respite. The master is killed
//! under load, and each kind of replica is promoted once.
//!
//! A Sentinel judges by the clock: beside other tests, it would take a busy server for a dead one, and
//! promote another. So this runs alone, in `make replication`, which sets `SENTINEL`.

use std::fs;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::real::{Redis, assert_catches_up};
use crate::harness::{
    Client, KilledOnDrop, Reply, Server, TempDir, eventually, free_port, installed, say,
    skipped_on_redis,
};

const SENTINELS: usize = 3;

/// A Sentinel that watches the master at that port.
struct Sentinel {
    _process: KilledOnDrop,
    _home: TempDir,
    client: Client,
}

impl Sentinel {
    fn start(master: u16) -> Sentinel {
        let (home, port) = (TempDir::new(), free_port());
        let file = home.data().join("sentinel.conf");
        let dir = home.data();
        let text = format!(
            "port {port}\ndir {}\nsentinel monitor main 127.0.0.1 {master} 2\n\
             sentinel down-after-milliseconds main 3000\nsentinel failover-timeout main 6000\n",
            dir.display()
        );
        fs::write(&file, text).expect("write the configuration");
        let process = Command::new("redis-server")
            .arg(&file)
            .arg("--sentinel")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("start a Sentinel");
        let process = KilledOnDrop(process);
        let address = ([127, 0, 0, 1], port).into();
        let listens = || std::net::TcpStream::connect(address).is_ok();
        eventually("the Sentinel listens", listens);
        Sentinel { _process: process, _home: home, client: Client::to(address) }
    }

    /// A field of what it knows of the master.
    fn knows(&mut self, field: &str) -> String {
        let pairs = self.client.reply("SENTINEL MASTER main").into_items();
        let texts: Vec<String> = pairs.into_iter().map(Reply::into_text).collect();
        let found = texts.chunks_exact(2).find(|pair| pair[0] == field);
        found.map(|pair| pair[1].clone()).unwrap_or_default()
    }

    /// Waits for another master. If the Sentinels do not agree at once, they try again after a while.
    #[track_caller]
    fn await_master(&mut self, is_it: impl Fn(u16) -> bool) {
        let started = Instant::now();
        while !is_it(self.master()) {
            assert!(started.elapsed() < Duration::from_secs(90), "no other master was chosen");
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn master(&mut self) -> u16 {
        self.knows("port").parse().unwrap_or_default()
    }
}

/// A new connection: a Sentinel ends those that there are when a server gets another role.
fn client_at(port: u16) -> Client {
    Client::to(([127, 0, 0, 1], port).into())
}

/// Waits until a server says that of itself.
#[track_caller]
fn await_at(port: u16, field: &str, value: &str) {
    eventually(&format!("{field} is {value}"), || {
        let mut c = client_at(port);
        let Reply::Bulk(text) = c.reply("INFO replication") else { return false };
        String::from_utf8_lossy(&text).lines().any(|line| line == format!("{field}:{value}"))
    });
}

/// Writes until the master is gone. Returns the last number that `wait` replicas have confirmed.
fn write_confirmed(mut c: Client, start: u64, wait: usize) -> u64 {
    let mut confirmed = start;
    for number in start + 1.. {
        c.send(&["SET", &format!("n{number}"), &number.to_string()]);
        c.send(&["WAIT", &wait.to_string(), "1000"]);
        if !matches!(c.read_reply(), Reply::Simple(_)) {
            return confirmed;
        }
        match c.read_reply() {
            Reply::Integer(replicas) if replicas >= wait as i64 => confirmed = number,
            Reply::Integer(_) => {}
            _ => return confirmed,
        }
    }
    confirmed
}

#[test]
fn sentinel_promotes_either_kind_of_replica_and_no_confirmed_write_is_lost() {
    if std::env::var_os("SENTINEL").is_none() || skipped_on_redis() || !installed("redis-server") {
        return;
    }
    let mut first = Server::start(&["--port", &free_port().to_string()]);
    let master_is = format!("127.0.0.1 {}", first.port());
    let ours = Server::start(&["--replicaof", &master_is]);
    let redis = Redis::start("redis-server".as_ref());
    redis.client().expect(&format!("REPLICAOF {master_is}"), "+OK");
    let mut sentinels: Vec<Sentinel> =
        (0..SENTINELS).map(|_| Sentinel::start(first.port())).collect();
    for sentinel in &mut sentinels {
        eventually("each Sentinel knows everybody", || {
            sentinel.knows("num-slaves") == "2" && sentinel.knows("num-other-sentinels") == "2"
        });
    }
    // The master dies under load. One replica has each confirmed write, and that is the one to promote.
    let (writer, port) = (first.client(), first.port());
    let writing = thread::spawn(move || write_confirmed(writer, 0, 1));
    thread::sleep(Duration::from_secs(1)); // of load
    first.kill_9();
    let confirmed = writing.join().expect("the writer ends");
    assert!(confirmed > 0, "something was confirmed");
    sentinels[0].await_master(|master| master != port);
    let second = sentinels[0].master();
    await_at(second, "role", "master");
    let mut promoted = client_at(second);
    (1..=confirmed).for_each(|n| promoted.expect(&format!("GET n{n}"), &format!("\"{n}\"")));
    promoted.expect("SET after-the-first 1", "+OK");
    // The old one comes back, as a replica.
    first.restart();
    await_at(port, "role", "slave");
    await_at(port, "master_link_status", "up");
    assert_catches_up(&mut promoted, &mut client_at(port));
    // Now the other kind: it is preferred, so every write needs both.
    let third = if second == redis.port { ours.port() } else { redis.port };
    await_at(third, "master_port", &second.to_string());
    await_at(third, "master_link_status", "up");
    client_at(third).expect("CONFIG SET replica-priority 1", "+OK");
    for sentinel in &mut sentinels {
        eventually("each Sentinel knows the new state", || {
            let replicas = sentinel.client.reply("SENTINEL REPLICAS main").to_string();
            sentinel.master() == second
                && replicas.contains(r#""slave-priority", "1""#)
                && replicas.matches(r#""flags", "slave""#).count() == 2
                && replicas.matches(r#""master-link-status", "ok""#).count() == 2
        });
    }
    await_at(second, "connected_slaves", "2");
    let writer = client_at(second);
    let writing = thread::spawn(move || write_confirmed(writer, confirmed, 2));
    thread::sleep(Duration::from_secs(1)); // of load
    client_at(second).send(&["SHUTDOWN", "NOSAVE", "NOW"]);
    let confirmed = writing.join().expect("the writer ends");
    sentinels[0].await_master(|master| master == third);
    await_at(third, "role", "master");
    let mut next = client_at(third);
    (1..=confirmed).for_each(|n| next.expect(&format!("GET n{n}"), &format!("\"{n}\"")));
    await_at(port, "master_port", &third.to_string());
    await_at(port, "master_link_status", "up");
    assert_catches_up(&mut next, &mut client_at(port));
    say(&format!("{confirmed} confirmed writes, two masters lost, both kinds promoted"));
}
