//! Replicas of real masters, under load and with accidents: in the end both have the same data.
//!
//! The masters are the redis-server on the PATH and, with `ORACLES` as for `make conformance`, those in that
//! directory. `REPLICATION_SECONDS=n` loads each master for so long.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use super::{await_info, info};
use crate::harness::{
    Client, KilledOnDrop, Reply, Server, TempDir, assert_same, dump, eventually, free_port,
    installed, say, skipped_on_redis,
};
use crate::rng::Rng;

/// A real server.
pub(super) struct Redis {
    _process: KilledOnDrop,
    _home: TempDir,
    pub(super) port: u16,
}

impl Redis {
    pub(super) fn start(program: &Path) -> Redis {
        let (home, port) = (TempDir::new(), free_port());
        let process = Command::new(program)
            .args(["--port", &port.to_string(), "--save", ""])
            .args(["--repl-diskless-sync-delay", "0", "--repl-backlog-size", "64mb"])
            .args(["--enable-debug-command", "yes", "--maxmemory", "1gb", "--dir"])
            .arg(home.data())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("start the real server");
        let redis = Redis { _process: KilledOnDrop(process), _home: home, port };
        eventually("it listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
        redis
    }

    pub(super) fn client(&self) -> Client {
        Client::to(([127, 0, 0, 1], self.port).into())
    }
}

/// The programs of real servers.
pub(super) fn programs() -> Vec<PathBuf> {
    let mut found = Vec::new();
    if installed("redis-server") {
        found.push(PathBuf::from("redis-server"));
    }
    let Some(oracles) = std::env::var_os("ORACLES") else { return found };
    let list = Command::new("find")
        .arg(oracles)
        .args(["-type", "f", "(", "-name", "redis-server", "-o", "-name", "valkey-server", ")"])
        .output()
        .expect("find the other servers");
    found
        .extend(String::from_utf8(list.stdout).expect("paths in UTF-8").lines().map(PathBuf::from));
    found
}

fn seconds() -> u64 {
    std::env::var("REPLICATION_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(2)
}

/// A command that writes, of any kind.
fn write(rng: &mut Rng, has_field_expiry: bool) -> String {
    let key = |rng: &mut Rng| format!("s{}", rng.below(300));
    let hash = |rng: &mut Rng| format!("h{}", rng.below(60));
    let field = |rng: &mut Rng| format!("f{}", rng.below(20));
    match rng.below(28) {
        0..=5 => format!("SET {} value{}", key(rng), rng.below(1 << 20)),
        6 => format!("SET {} soon PX {}", key(rng), 1 + rng.below(400)),
        7 => format!("INCR n{}", rng.below(30)),
        8 | 9 => format!("HSET {} {} {} {} x", hash(rng), field(rng), rng.below(99), field(rng)),
        10 => format!("HDEL {} {} {}", hash(rng), field(rng), field(rng)),
        11 | 12 if has_field_expiry => {
            format!("HPEXPIRE {} {} FIELDS 1 {}", hash(rng), 1 + rng.below(500), field(rng))
        }
        13 if has_field_expiry => format!("HPERSIST {} FIELDS 1 {}", hash(rng), field(rng)),
        14 => format!("DEL {} {}", key(rng), hash(rng)),
        15 => format!("APPEND {} more", key(rng)),
        16 => format!("PEXPIRE {} {}", hash(rng), 1 + rng.below(1000)),
        17 => format!("PERSIST {}", key(rng)),
        18 => format!("GETEX {} PX {}", key(rng), 1 + rng.below(1000)),
        19 => format!("COPY {} {} REPLACE", key(rng), key(rng)),
        20 => format!("RENAME {} {}", key(rng), key(rng)),
        21 => format!("SETBIT bits {} {}", rng.below(3000), rng.below(2)),
        22 => format!("PFADD p{} {}", rng.below(3), rng.below(1000)),
        23 => "PFMERGE p0 p1 p2".into(),
        24 => "INCRBYFLOAT float 0.5".into(),
        25 => format!("MOVE {} {}", key(rng), rng.below(4)),
        26 => format!("HINCRBY {} counter 1", hash(rng)),
        _ => format!("SETRANGE long{} {} end", rng.below(3), rng.below(50_000)),
    }
}

/// Writes until it is told to stop.
fn load(mut c: Client, mut rng: Rng, stop: &AtomicBool) {
    let has_field_expiry = !matches!(c.reply("HPERSIST x FIELDS 1 y"), Reply::Error(_));
    while !stop.load(Relaxed) {
        match rng.below(500) {
            0..=49 => {
                c.reply("MULTI");
                for _ in 0..=rng.below(5) {
                    c.reply(&write(&mut rng, has_field_expiry));
                }
                if rng.below(4) == 0 {
                    c.reply(&format!("SELECT {}", rng.below(4)));
                    c.reply(&write(&mut rng, has_field_expiry));
                }
                c.reply("EXEC");
            }
            50..=69 => drop(c.reply(&format!("SELECT {}", rng.below(4)))),
            70 => drop(c.reply(&format!("SWAPDB {} {}", rng.below(4), rng.below(4)))),
            71 => drop(c.reply("FLUSHDB")),
            72 => drop(c.reply(if rng.below(4) == 0 { "FLUSHALL" } else { "PUBLISH c m" })),
            _ => drop(c.reply(&write(&mut rng, has_field_expiry))),
        }
    }
}

/// Waits until the replica has everything that the master has written, and compares all data.
#[track_caller]
pub(super) fn assert_catches_up(master: &mut Client, replica: &mut Client) {
    await_info(replica, "master_link_status", "up");
    eventually("the replica has caught up", || {
        info(master, "master_repl_offset") == info(replica, "slave_repl_offset")
    });
    // What expires does so on both sides.
    let mut both = None;
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(10) {
        let (ours, theirs) = (dump(replica), dump(master));
        if ours == theirs {
            return;
        }
        both = Some((ours, theirs));
    }
    both.iter().for_each(|(ours, theirs)| assert_same(ours, theirs));
}

pub(super) fn stat(c: &mut Client, field: &str) -> u64 {
    let text = c.text("INFO stats");
    let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    value.and_then(|value| value.parse().ok()).expect("a number")
}

#[test]
fn a_replica_of_a_real_master_has_its_data_whatever_happens() {
    if skipped_on_redis() {
        return;
    }
    let mut rng = Rng::of_run();
    for program in programs() {
        let redis = Redis::start(&program);
        let mut master = redis.client();
        let place = format!("127.0.0.1 {}", redis.port);
        // Everything comes with the snapshot.
        crate::harness::write_all(&mut master);
        master.reply("HPEXPIRE h 10000000 FIELDS 1 a");
        let mut server = Server::start(&["--replicaof", &place, "--enable-debug-command", "yes"]);
        let mut replica = server.client();
        assert_catches_up(&mut master, &mut replica);
        let end = Instant::now() + Duration::from_secs(seconds());
        while Instant::now() < end {
            let stop = AtomicBool::new(false);
            thread::scope(|scope| {
                for _ in 0..3 {
                    let (client, rng, stop) = (redis.client(), rng.fork(), &stop);
                    scope.spawn(move || load(client, rng, stop));
                }
                for _ in 0..=rng.below(3) {
                    // Not a condition to wait for, but time for the load.
                    thread::sleep(Duration::from_millis(rng.below(500) as u64));
                    match rng.below(5) {
                        0 => drop(master.reply("CLIENT KILL TYPE replica")),
                        1 => drop(replica.reply("CLIENT KILL TYPE master")),
                        2 => {
                            server.kill_9();
                            server.restart();
                            replica = server.client();
                        }
                        3 => drop(replica.reply("BGREWRITEAOF")),
                        _ => drop(replica.reply("DEBUG RELOAD")),
                    }
                }
                stop.store(true, Relaxed);
            });
            assert_catches_up(&mut master, &mut replica);
            replica.expect("DEBUG CHECK", "+OK");
        }
        let (full, partial) =
            (stat(&mut master, "sync_full"), stat(&mut master, "sync_partial_ok"));
        let name = program.display();
        say(&format!("{name}: 1 full synchronisation, {partial} partial ones"));
        assert_eq!(full, 1, "a full synchronisation of {name} was not necessary");
    }
}
