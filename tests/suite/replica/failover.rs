//! `FAILOVER`: a replica becomes the master without a lost write, and the master its replica.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

use super::real::{Redis, assert_catches_up, programs, stat};
use super::{await_info, info};
use crate::harness::{
    Client, Reply, Server, connect, eventually, free_port, skipped_on_redis, transcript,
};

/// A server as a replica of ours, and a client of it.
struct Replica {
    _server: Box<dyn std::any::Any>,
    client: Client,
    port: u16,
}

impl Replica {
    fn of(master: &Server, program: Option<&Path>) -> Replica {
        let (server, client, port): (Box<dyn std::any::Any>, Client, u16) = match program {
            Some(program) => {
                let redis = Redis::start(program);
                let (client, port) = (redis.client(), redis.port);
                (Box::new(redis), client, port)
            }
            None => {
                let server = Server::start(&[]);
                let (client, port) = (server.client(), server.port());
                (Box::new(server), client, port)
            }
        };
        let mut replica = Replica { _server: server, client, port };
        let place = format!("REPLICAOF 127.0.0.1 {}", master.port());
        replica.client.expect(&place, "+OK");
        await_info(&mut replica.client, "master_link_status", "up");
        replica
    }
}

/// The others that take part: another Respite, and real servers.
fn partners() -> Vec<Option<std::path::PathBuf>> {
    std::iter::once(None).chain(programs().into_iter().map(Some)).collect()
}

#[test]
fn failover_checks_its_arguments() {
    transcript(
        r#"
        > FAILOVER ABORT
        -ERR No failover in progress.
        > FAILOVER ABORT x
        -ERR syntax error
        > FAILOVER TO localhost 7777 ABORT
        -ERR syntax error
        > FAILOVER TO localhost
        -ERR syntax error
        > FAILOVER TIMEOUT abc
        -ERR value is not an integer or out of range
        > FAILOVER TIMEOUT 0
        -ERR FAILOVER timeout must be greater than 0
        > FAILOVER TO localhost abc
        -ERR value is not an integer or out of range
        > FAILOVER FORCE FORCE
        -ERR syntax error
        > FAILOVER
        -ERR FAILOVER requires connected replicas.
        "#,
    );
    let mut c = connect();
    c.expect("REPLICAOF 127.0.0.1 1", "+OK");
    c.expect("FAILOVER", "-ERR FAILOVER is not valid when server is a replica.");
    c.expect("PSYNC x 1 FAILOVER", "-ERR PSYNC FAILOVER replid must match my replid.");
}

#[test]
fn a_failover_makes_a_replica_the_master_and_loses_no_write() {
    if skipped_on_redis() {
        return;
    }
    for partner in partners() {
        let server = Server::start(&[]);
        let mut old = server.client();
        let mut replica = Replica::of(&server, partner.as_deref());
        await_info(&mut old, "connected_slaves", "1");
        eventually("the replica is online", || info(&mut old, "slave0").contains("state=online"));
        let stop = AtomicBool::new(false);
        let written = thread::scope(|scope| {
            let (mut c, stop) = (server.client(), &stop);
            let writer = scope.spawn(move || {
                let mut written = 0;
                while !stop.load(Relaxed) {
                    match c.reply(&format!("SET key{written} {written}")) {
                        Reply::Simple(_) => written += 1,
                        refusal => {
                            let text = "-READONLY You can't write against a read only replica.";
                            assert_eq!(refusal.to_string(), text);
                            break;
                        }
                    }
                }
                written
            });
            eventually("something is written", || old.integer("DBSIZE") > 100);
            old.expect(
                "FAILOVER TO 127.0.0.1 1 FORCE TIMEOUT 100",
                "-ERR FAILOVER target HOST and PORT is not a replica.",
            );
            let command = format!("FAILOVER TO 127.0.0.1 {} TIMEOUT 20000", replica.port);
            old.expect(&command, "+OK");
            await_info(&mut old, "role", "slave");
            await_info(&mut replica.client, "role", "master");
            let written = writer.join().expect("the writer ends");
            stop.store(true, Relaxed);
            written
        });
        assert_catches_up(&mut replica.client, &mut old);
        await_info(&mut old, "master_failover_state", "no-failover");
        assert_eq!(replica.client.integer("DBSIZE"), written);
        // It was told what has changed since, and nothing else.
        assert!(!server.stderr().contains("sends all of its data"), "{}", server.stderr());
        // And back.
        let back = format!("FAILOVER TO 127.0.0.1 {} TIMEOUT 20000", server.port());
        eventually("it can fail back", || replica.client.reply(&back).to_string() == "+OK");
        await_info(&mut old, "role", "master");
        assert_catches_up(&mut old, &mut replica.client);
        old.expect("SET last 1", "+OK");
        assert_catches_up(&mut old, &mut replica.client);
    }
}

#[test]
fn a_failover_that_cannot_succeed_holds_writes_back_until_it_is_given_up() {
    if skipped_on_redis() {
        return;
    }
    let server = Server::start(&[]);
    let mut c = server.client();
    // A replica that confirms nothing.
    let mut silent = server.client();
    silent.expect("REPLCONF listening-port 1 capa eof capa psync2", "+OK");
    silent.send(&["PSYNC", "?", "-1"]);
    assert!(silent.read_reply().to_string().starts_with("+FULLRESYNC"));
    let replicas = |c: &mut Client| info(c, "connected_slaves");
    assert_eq!(replicas(&mut c), "1");
    c.expect("SET a 1", "+OK");
    c.expect("FAILOVER TIMEOUT 300", "+OK");
    assert_eq!(info(&mut c, "master_failover_state"), "waiting-for-sync");
    c.expect("FAILOVER", "-ERR FAILOVER already in progress.");
    c.expect("REPLICAOF 127.0.0.1 1", "-ERR REPLICAOF not allowed while failing over.");
    let mut writer = server.client();
    writer.expect("SET a 2", "+OK"); // once the failover is given up
    assert_eq!(info(&mut c, "master_failover_state"), "no-failover");
    assert_eq!(info(&mut c, "role"), "master");
    c.expect("FAILOVER", "+OK");
    writer.send(&["SET", "a", "3"]);
    c.expect("FAILOVER ABORT", "+OK");
    assert_eq!(writer.read_reply().to_string(), "+OK");
    c.expect("GET a", "\"3\"");
}

#[test]
fn a_replica_of_a_replica_follows_it_through_a_crash_and_its_promotion() {
    if skipped_on_redis() {
        return;
    }
    for partner in partners() {
        let top = Server::start(&[]);
        let mut master = top.client();
        let (place, port) = (format!("127.0.0.1 {}", top.port()), free_port().to_string());
        let mut middle = Server::start(&["--port", &port, "--replicaof", &place]);
        await_info(&mut middle.client(), "master_link_status", "up");
        let mut leaf = Replica::of(&middle, partner.as_deref());
        crate::harness::write_all(&mut master);
        assert_catches_up(&mut master, &mut leaf.client);
        middle.kill_9();
        master.expect("SET meanwhile 1", "+OK");
        middle.restart();
        assert_catches_up(&mut master, &mut leaf.client);
        let mut promoted = middle.client();
        promoted.expect("REPLICAOF NO ONE", "+OK");
        promoted.expect("SELECT 3", "+OK");
        promoted.expect("SET own 1", "+OK");
        assert_catches_up(&mut promoted, &mut leaf.client);
        assert_eq!(info(&mut leaf.client, "master_replid"), info(&mut promoted, "master_replid"));
        assert_eq!(stat(&mut promoted, "sync_full"), 0, "it went on after the crash");
    }
}

/// The commands of the README's chapter on moving without a pause: ports and commands.
fn move_of_the_readme() -> Vec<(u16, String)> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
    let readme = std::fs::read_to_string(path).expect("read the README");
    let (_, chapter) = readme.split_once("**In and out, without a pause.**").expect("the chapter");
    let (_, block) = chapter.split_once("```sh\n").expect("a block of commands");
    let (block, _) = block.split_once("```").expect("its end");
    let commands = block.lines().filter(|line| !line.is_empty()).map(|line| {
        let (command, _) = line.split_once('#').unwrap_or((line, ""));
        let command = command.trim().strip_prefix("redis-cli -p ").expect("a call of redis-cli");
        let (port, command) = command.split_once(' ').expect("a port and a command");
        (port.parse().expect("a port"), command.to_owned())
    });
    commands.collect()
}

#[test]
fn the_move_of_the_readme_from_redis_to_respite_to_valkey_loses_no_write() {
    if skipped_on_redis() {
        return;
    }
    let all = programs();
    let is_valkey = |program: &&std::path::PathBuf| program.ends_with("valkey-server");
    let (Some(from), Some(to)) = (
        all.iter().rev().find(|program| !is_valkey(program)),
        all.iter().rev().find(is_valkey).or(all.first()),
    ) else {
        return;
    };
    let (redis, ours, valkey) = (Redis::start(from), Server::start(&[]), Redis::start(to));
    let ports = [(6379, ours.port()), (6380, redis.port), (6381, valkey.port)];
    let client_at = |place: u16| {
        let (_, port) = ports.iter().find(|(shown, _)| *shown == place).expect("a known port");
        Client::to(([127, 0, 0, 1], *port).into())
    };
    crate::harness::write_all(&mut redis.client());
    let stop = AtomicBool::new(false);
    let written = thread::scope(|scope| {
        let stop = &stop;
        let writer = scope.spawn(move || {
            let (mut written, mut here) = (0, 0);
            let mut clients = [6380, 6379, 6381].map(client_at).into_iter();
            let mut c = clients.next().expect("the first master");
            while !stop.load(Relaxed) {
                match c.reply(&format!("SET key{written} {written}")) {
                    Reply::Simple(_) => (written, here) = (written + 1, here + 1),
                    refusal => {
                        assert!(refusal.to_string().starts_with("-READONLY"), "{refusal}");
                        // The next one may not know for a moment that it is the master.
                        if here > 0 {
                            c = clients.next().expect("another master");
                            here = 0;
                        }
                    }
                }
            }
            written
        });
        for (place, command) in move_of_the_readme() {
            let mut c = client_at(place);
            let command = ports.iter().fold(command, |command, (shown, port)| {
                command.replace(&format!(" {shown}"), &format!(" {port}"))
            });
            if command.starts_with("INFO") {
                await_info(&mut c, "master_link_status", "up");
                continue;
            }
            eventually("the command is accepted", || c.reply(&command).to_string() == "+OK");
            if command.starts_with("FAILOVER") {
                await_info(&mut c, "role", "slave");
                await_info(&mut c, "master_link_status", "up");
            }
        }
        let mut last = client_at(6381);
        let before = last.integer("DBSIZE");
        eventually("the last master takes writes", || last.integer("DBSIZE") > before + 100);
        stop.store(true, Relaxed);
        writer.join().expect("the writer ends")
    });
    let mut last = client_at(6381);
    (0..written).for_each(|n| last.expect(&format!("GET key{n}"), &format!("\"{n}\"")));
    assert_catches_up(&mut last, &mut client_at(6379));
}
