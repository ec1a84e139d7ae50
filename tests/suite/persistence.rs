//! What survives the end of the process, and which logs the server loads.
//!
//! These tests are about our own process and its log: none runs against a Redis at `REDIS_ADDR`.

use std::fs;
use std::io::{BufReader, Write};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, mpsc};
use std::thread;

use crate::harness::{
    Client, KilledOnDrop, Reply, Server, TempDir, dump, encode, eventually, files, installed,
    read_reply, records, skipped_on_redis, start_with_log, unix_now_ms, write_all,
};

// ---- The promise: acknowledged writes survive ---------------------------------------------------------

/// The value that a writer gives its key `i`: of varying length, with bytes that look like RESP.
fn value_of(writer: usize, i: u64) -> Vec<u8> {
    let unit = format!("\r\n$3\r\n{writer}:{i}\x00");
    unit.repeat(1 + (i as usize * 7) % 40).into_bytes()
}

/// Several clients write pipelines until the process is killed. Every acknowledged write, and everything
/// that a reader saw, must be there after a restart; no other write may be there in part.
fn acknowledged_writes_survive_kill_9(fsync: &str, enough: u64) {
    const WRITERS: usize = 4;
    const DEPTH: u64 = 50;
    let mut server = Server::start(&["--appendfsync", fsync]);
    let acknowledged: Vec<AtomicU64> = (0..WRITERS).map(|_| AtomicU64::new(0)).collect();
    let seen = AtomicU64::new(0);
    thread::scope(|scope| {
        for (writer, acknowledged) in acknowledged.iter().enumerate() {
            let mut c = server.client();
            scope.spawn(move || {
                for batch in 0.. {
                    let keys = batch * DEPTH..(batch + 1) * DEPTH;
                    let mut pipeline = Vec::new();
                    for i in keys.clone() {
                        let key = format!("{writer}:{i}").into_bytes();
                        let value = value_of(writer, i);
                        pipeline.extend(match i % 3 {
                            0 => encode(&[b"SET", &key[..], &value]),
                            1 => encode(&[b"HSET", &key[..], b"field", &value]),
                            _ => encode(&[b"MSET", &key[..], &value, b"shared", &value]),
                        });
                        pipeline.extend(encode(&["INCR", "counter"]));
                    }
                    c.try_send_raw(pipeline);
                    for i in keys {
                        if c.read_reply() == Reply::Closed || c.read_reply() == Reply::Closed {
                            return;
                        }
                        acknowledged.store(i + 1, Ordering::SeqCst);
                    }
                }
            });
        }
        let mut reader = server.client();
        let seen = &seen;
        scope.spawn(move || {
            loop {
                match reader.reply("GET counter") {
                    Reply::Bulk(count) => {
                        let count = String::from_utf8(count).unwrap().parse().unwrap();
                        seen.store(count, Ordering::SeqCst);
                    }
                    Reply::NullBulk => {}
                    _ => return,
                }
            }
        });
        let total = || acknowledged.iter().map(|n| n.load(Ordering::SeqCst)).sum::<u64>();
        eventually("enough is acknowledged", || total() >= enough);
        server.kill_9();
    });

    server.restart();
    let mut c = server.client();
    let confirmed: u64 = acknowledged.iter().map(|n| n.load(Ordering::SeqCst)).sum();
    let counter: u64 = c.text("GET counter").parse().unwrap();
    assert!(
        counter >= confirmed,
        "the counter is {counter}, but {confirmed} increments were acknowledged"
    );
    let seen = seen.load(Ordering::SeqCst);
    assert!(counter >= seen, "the counter is {counter}, but a reader saw {seen}");
    for (writer, acknowledged) in acknowledged.iter().enumerate() {
        let acknowledged = acknowledged.load(Ordering::SeqCst);
        // Up to one batch more may have been written without a reply.
        let possible = acknowledged + 2 * DEPTH;
        let mut probes = Vec::new();
        for i in 0..possible {
            let key = format!("{writer}:{i}");
            probes.extend(match i % 3 {
                1 => encode(&["HGET", &key, "field"]),
                _ => encode(&["GET", &key]),
            });
        }
        let mut stream = c.sending_half();
        thread::scope(|scope| {
            scope.spawn(move || stream.write_all(&probes).expect("send"));
            let mut lost = None;
            for i in 0..possible {
                match c.read_reply() {
                    Reply::Bulk(value) => {
                        assert!(value == value_of(writer, i), "{writer}:{i} is torn");
                        assert_eq!(
                            lost, None,
                            "{writer}:{i} is there, but an earlier write is not"
                        );
                    }
                    Reply::NullBulk if i < acknowledged => panic!("{writer}:{i} is lost"),
                    Reply::NullBulk => lost = lost.or(Some(i)),
                    other => panic!("{writer}:{i}: {other}"),
                }
            }
        });
    }
}

#[test]
fn an_acknowledged_write_survives_kill_9() {
    if !skipped_on_redis() {
        acknowledged_writes_survive_kill_9("everysec", 20_000);
    }
}

#[test]
fn an_acknowledged_write_survives_kill_9_when_never_synced() {
    if !skipped_on_redis() {
        acknowledged_writes_survive_kill_9("no", 5_000);
    }
}

#[test]
fn an_acknowledged_write_survives_kill_9_when_always_synced() {
    if !skipped_on_redis() {
        acknowledged_writes_survive_kill_9("always", 2_000);
    }
}

// ---- Replay ------------------------------------------------------------------------------------------

#[test]
fn every_write_command_replays_to_the_same_data() {
    if skipped_on_redis() {
        return;
    }
    let mut server = Server::start(&[]);
    let mut c = server.client();
    write_all(&mut c);
    let before = dump(&mut c);
    assert!(before.len() > 30, "only {} keys", before.len());
    server.restart();
    let mut c = server.client();
    assert_eq!(dump(&mut c), before);
    // Again, with the log to which the second process has appended.
    c.expect("SET again value", "+OK");
    let before = dump(&mut c);
    server.restart();
    assert_eq!(dump(&mut server.client()), before);
}

#[test]
fn a_flushed_server_stays_empty() {
    if skipped_on_redis() {
        return;
    }
    let mut server = Server::start(&[]);
    let mut c = server.client();
    write_all(&mut c);
    c.expect("FLUSHALL", "+OK");
    c.expect("SELECT 4", "+OK");
    c.expect("SET after value", "+OK");
    server.restart();
    let all = dump(&mut server.client());
    assert_eq!(all.len(), 1);
    assert_eq!(all[&(4, "\"after\"".to_owned())], "+string \"value\" :-1");
}

#[test]
fn interleaved_databases_are_kept_apart_in_the_log() {
    if skipped_on_redis() {
        return;
    }
    let mut server = Server::start(&[]);
    let mut clients: Vec<Client> = (0..4).map(|_| server.client()).collect();
    for (database, c) in clients.iter_mut().enumerate() {
        c.expect(&format!("SELECT {database}"), "+OK");
    }
    for round in 0..10 {
        for (database, c) in clients.iter_mut().enumerate() {
            c.expect(&format!("SET k{round} {database}"), "+OK");
        }
    }
    let before = dump(&mut clients[0]);
    assert_eq!(before.len(), 40);
    server.restart();
    assert_eq!(dump(&mut server.client()), before);
}

// ---- Expiry ------------------------------------------------------------------------------------------

#[test]
fn the_log_holds_expiry_times_not_durations() {
    if skipped_on_redis() {
        return;
    }
    let mut server = Server::start(&[]);
    let mut c = server.client();
    let commands = [
        ("a", "SET a v EX 1000"),
        ("b", "SET b v PX 1000000"),
        ("c", "SETEX c 1000 v"),
        ("d", "PSETEX d 1000000 v"),
        ("e", "EXPIRE e 1000"),
        ("f", "PEXPIRE f 1000000"),
        ("g", "GETEX g EX 1000"),
        ("h", "EXPIRE h 1000 NX"),
    ];
    c.expect("MSET e v f v g v", "+OK");
    c.expect("HSET h f v", ":1");
    for (_, command) in commands {
        c.reply(command);
    }
    let expiries = commands.map(|(key, _)| c.integer(&format!("PEXPIRETIME {key}")));
    assert!(expiries.iter().all(|expiry| *expiry > unix_now_ms()));
    server.restart();
    let mut c = server.client();
    let after = commands.map(|(key, _)| c.integer(&format!("PEXPIRETIME {key}")));
    assert_eq!(after, expiries);
    for record in records(&server.log_path()) {
        let words: Vec<String> =
            record.iter().map(|w| String::from_utf8_lossy(w).to_uppercase()).collect();
        let name = words[0].as_str();
        let relative = ["SETEX", "PSETEX", "EXPIRE", "PEXPIRE"].contains(&name)
            || words[1..].iter().any(|word| word == "EX" || word == "PX");
        assert!(!relative, "{words:?}");
    }
}

/// Waits until the wall clock has passed `expiry_ms`, in Unix milliseconds.
fn wait_past(expiry_ms: i64) {
    eventually("the expiry time has passed", || unix_now_ms() > expiry_ms);
}

#[test]
fn a_key_that_expired_stays_gone() {
    if skipped_on_redis() {
        return;
    }
    let mut server = Server::start(&[]);
    let mut c = server.client();
    c.expect("SET gone v PX 20", "+OK");
    c.expect("SET count 5 PX 20", "+OK");
    c.expect("HSET h f old", ":1");
    c.expect("PEXPIRE h 20", ":1");
    c.expect("SET renamed v PX 20", "+OK");
    wait_past(unix_now_ms() + 21);
    // Each of these finds no key and creates one that does not expire.
    c.expect("INCR count", ":1");
    c.expect("HSET h g new", ":1");
    c.expect("RENAME renamed x", "-ERR no such key");
    c.expect("SET last v", "+OK");
    let before = dump(&mut c);
    assert_eq!(before.len(), 3, "{before:?}");
    server.restart();
    assert_eq!(dump(&mut server.client()), before);
}

#[test]
fn a_key_that_expires_while_the_server_is_down_is_gone() {
    if skipped_on_redis() {
        return;
    }
    let mut server = Server::start(&[]);
    let mut c = server.client();
    let expiry = unix_now_ms() + 500;
    c.expect(&format!("SET n 5 PXAT {expiry}"), "+OK");
    c.expect("INCR n", ":6");
    c.expect("APPEND n 0", ":2");
    c.expect("HSET h f v", ":1");
    c.expect(&format!("PEXPIREAT h {expiry}"), ":1");
    c.expect("HSET h g v", ":1");
    c.expect("SET a v", "+OK");
    c.expect(&format!("PEXPIREAT a {expiry}"), ":1");
    c.expect("RENAME a b", "+OK");
    c.expect("COPY b c", ":1");
    c.expect("MOVE c 1", ":1");
    // PERSIST removes the expiry time before it has passed.
    c.expect(&format!("SET kept v PXAT {expiry}"), "+OK");
    c.expect("PERSIST kept", ":1");
    assert!(unix_now_ms() < expiry, "the machine is too slow for this test");
    server.kill_9();
    wait_past(expiry);
    server.restart();
    let mut c = server.client();
    // No command that followed the expiry time in the log may have created the key again during the replay.
    c.expect("EXISTS n h a b c", ":0");
    c.expect("GET kept", "\"v\"");
    let all = dump(&mut c);
    assert_eq!(all.len(), 1, "{all:?}");
}

// ---- The records -------------------------------------------------------------------------------------

#[test]
fn the_log_is_commands_as_a_client_sends_them() {
    if skipped_on_redis() {
        return;
    }
    let server = Server::start(&[]);
    let mut c = server.client();
    write_all(&mut c);
    let records = records(&server.log_path());
    assert!(records.len() > 50);
    let name = |record: &Vec<Vec<u8>>| String::from_utf8_lossy(&record[0]).to_uppercase();
    assert!(records.iter().any(|record| name(record) == "SELECT"));
    for record in &records {
        assert_ne!(name(record), "INCRBYFLOAT", "its result is logged");
        assert_ne!(name(record), "HINCRBYFLOAT", "its result is logged");
    }
    // Another server that gets the records as commands has the same data.
    let other = Server::start(&[]);
    let mut listener = other.client();
    for record in &records {
        let reply = listener.call(record);
        assert!(!matches!(reply, Reply::Error(_)), "{reply}");
    }
    assert_eq!(dump(&mut listener), dump(&mut c));
}

#[test]
fn a_write_that_changes_nothing_is_not_logged() {
    if skipped_on_redis() {
        return;
    }
    let server = Server::start(&[]);
    let mut c = server.client();
    c.expect("MSET k v n 1", "+OK");
    c.expect("HSET h a 1", ":1");
    c.expect("SET timed v EX 1000", "+OK");
    let length = |server: &Server| fs::metadata(server.log_path()).unwrap().len();
    let before = length(&server);
    let idle = "SET k w NX|SET missing w XX|SETNX k w|MSETNX k 1 new 2|GETDEL missing|GETEX k|GETEX missing EX 10\
        |GETEX k PERSIST|DEL missing|UNLINK missing|EXPIRE missing 10|EXPIRE k 10 XX|EXPIRE timed 10 NX\
        |EXPIRE timed 10 GT|PERSIST k|PERSIST missing|HSETNX h a 2|HDEL h missing|HDEL missing a|MOVE missing 1\
        |COPY missing x|COPY k n|RENAMENX k n|RENAME missing x|SETRANGE k 9 \"\"|INCR k|HSET k a 1|HINCRBY h a x\
        |SET k v EX 0|GET k|HGETALL h|TOUCH k|TTL timed|SELECT 1|SELECT 0";
    for command in idle.split('|') {
        c.reply(command);
        assert_eq!(length(&server), before, "logged: {command}");
    }
}

#[test]
fn without_a_log_nothing_is_written() {
    if skipped_on_redis() {
        return;
    }
    let mut server = Server::start(&["--appendonly", "no"]);
    let mut c = server.client();
    c.expect("SET k v", "+OK");
    c.expect("GET k", "\"v\"");
    assert_eq!(files(&server.dir()).len(), 0);
    server.restart();
    server.client().expect("EXISTS k", ":0");
    assert_eq!(files(&server.dir()).len(), 0);
}

#[test]
fn the_log_has_the_name_that_was_set() {
    if skipped_on_redis() {
        return;
    }
    let mut server = Server::start(&["--appendfilename", "other.aof"]);
    server.client().expect("SET k v", "+OK");
    assert_eq!(files(&server.dir()).into_keys().collect::<Vec<_>>(), ["other.aof"]);
    server.restart();
    server.client().expect("GET k", "\"v\"");
}

#[test]
fn shutdown_ends_the_process_and_keeps_the_data() {
    if skipped_on_redis() {
        return;
    }
    for command in ["SHUTDOWN", "SHUTDOWN NOSAVE", "shutdown save", "SHUTDOWN NOW FORCE"] {
        let mut server = Server::start(&[]);
        let mut c = server.client();
        c.expect("SET k v", "+OK");
        c.expect(command, "<closed>");
        assert_eq!(server.wait_for_exit(), Some(0), "{command}");
        server.restart();
        server.client().expect("GET k", "\"v\"");
    }
}

// ---- Torn tails and damage ---------------------------------------------------------------------------

/// Commands of many kinds on few keys, so that one round trip returns their state.
const SESSION: &str = r#"
    SET a 1
    SET b "\r\n$1\r\n*2\r\n\x00"
    INCR a
    APPEND b xyz
    HSET h f 1 g 2
    SET c v PXAT 33177117420000
    HDEL h f
    SELECT 1
    SET a one
    HSET h f one
    SELECT 0
    MSET a 5 b 6 d 7
    EXPIREAT a 33177117420
    HINCRBY h g 5
    RENAME a c
    INCRBYFLOAT b 0.5
    MOVE b 1
    COPY c d REPLACE
    SETRANGE b 2 x
    SWAPDB 0 1
    PERSIST d
    SET e "" EX 100000
    SELECT 2
    HSET "" "" ""
    SET a "two\xff"
    SELECT 1
    FLUSHDB
    SET a after
    GETEX a PXAT 33177117420123
    GETDEL a
    SELECT 0
    DEL a
    HSETNX h z 9
    GETSET e old
    PEXPIREAT e 1
    SET f 1
    DECRBY f 10
    UNLINK f missing
    MSETNX f 2 a 3
    SET b last
"#;

/// The state of the keys of [`SESSION`], in one round trip.
fn state(c: &mut Client) -> String {
    let mut probes = Vec::new();
    let mut count = 0;
    for database in ["0", "1", "2"] {
        let mut commands = vec![vec!["SELECT", database], vec!["DBSIZE"], vec!["HGETALL", ""]];
        for key in ["a", "b", "c", "d", "e", "f"] {
            commands.push(vec!["GET", key]);
            commands.push(vec!["PEXPIRETIME", key]);
        }
        commands.push(vec!["HGETALL", "h"]);
        count += commands.len();
        probes.extend(commands.iter().flat_map(|command| encode(command)));
    }
    c.send_raw(probes);
    let replies: Vec<String> = (0..count).map(|_| c.read_reply().to_string()).collect();
    replies.join(" ")
}

/// The log of [`SESSION`], and after each command the log's length and the state.
fn log_of_session() -> (Vec<u8>, Vec<(usize, String)>) {
    let server = Server::start(&[]);
    let (mut c, mut observer) = (server.client(), server.client());
    let mut states = vec![(0, state(&mut observer))];
    for command in SESSION.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let reply = c.reply(command);
        assert!(!matches!(reply, Reply::Error(_)), "{command}: {reply}");
        let length = fs::metadata(server.log_path()).expect("the log").len();
        states.push((length as usize, state(&mut observer)));
    }
    (fs::read(server.log_path()).expect("the log"), states)
}

/// The offsets at which the records of a log start, and its end.
fn boundaries(log: &[u8]) -> Vec<usize> {
    let mut reader = BufReader::new(log);
    let mut boundaries = vec![0];
    while let Ok(reply) = read_reply(&mut reader) {
        let words: Vec<Vec<u8>> = reply.into_items().into_iter().map(Reply::into_bytes).collect();
        boundaries.push(boundaries[boundaries.len() - 1] + encode(&words).len());
    }
    assert_eq!(boundaries.last(), Some(&log.len()), "the log is not all commands");
    boundaries
}

/// Whether `text` contains a number in this range.
fn names_offset(text: &str, offsets: std::ops::RangeInclusive<usize>) -> bool {
    text.split(|c: char| !c.is_ascii_digit())
        .filter_map(|digits| digits.parse().ok())
        .any(|number: usize| offsets.contains(&number))
}

#[test]
fn a_log_cut_at_any_byte_loads_its_whole_records_and_the_tail_is_kept() {
    if skipped_on_redis() {
        return;
    }
    let (log, states) = log_of_session();
    let boundaries = boundaries(&log);
    let check = |cut: usize| {
        let whole = *boundaries.iter().rfind(|&&end| end <= cut).unwrap();
        let tail = &log[whole..cut];
        let server = start_with_log(&log[..cut]);
        let (_, expected) = states.iter().rfind(|(length, _)| *length <= cut).unwrap();
        assert_eq!(&state(&mut server.client()), expected, "cut at {cut}");
        let mut files = files(&server.dir());
        let kept = files.remove("storage.aof").expect("the log");
        assert!(kept == log[..whole], "cut at {cut}: the log is not cut at {whole}");
        if tail.is_empty() {
            assert!(files.is_empty(), "cut at {cut}: {:?}", files.keys());
        } else {
            assert!(files.values().any(|file| file == tail), "cut at {cut}: the tail is not kept");
            let is_said = || names_offset(&server.stderr(), whole..=whole);
            eventually(&format!("cut at {cut}: stderr names offset {whole}"), is_said);
        }
    };
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let cut = next.fetch_add(1, Ordering::Relaxed);
                    if cut > log.len() {
                        break;
                    }
                    check(cut);
                }
            });
        }
    });
}

#[test]
fn writes_are_appended_after_a_torn_tail_was_cut() {
    if skipped_on_redis() {
        return;
    }
    let (log, _) = log_of_session();
    let mut server = start_with_log(&log[..log.len() - 3]);
    let mut c = server.client();
    c.expect("SELECT 3", "+OK");
    c.expect("SET after tail", "+OK");
    let before = dump(&mut c);
    server.restart();
    assert_eq!(dump(&mut server.client()), before);
    records(&server.log_path());
}

#[test]
fn a_second_torn_tail_does_not_overwrite_the_first() {
    if skipped_on_redis() {
        return;
    }
    let first = b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$5\r\nfirst\r\n".to_vec();
    let tails = [&b"*2\r\n$3\r\nDE"[..], b"*3\r\n$3\r\nSET\r\n$1\r\nk"];
    let mut server = start_with_log(&[&first[..], tails[0]].concat());
    server.kill_9();
    let mut log =
        fs::OpenOptions::new().append(true).open(server.log_path()).expect("open the log");
    log.write_all(tails[1]).expect("write a second tail");
    drop(log);
    server.restart();
    server.client().expect("GET a", "\"first\"");
    let files = files(&server.dir());
    for tail in tails {
        assert!(files.values().any(|file| file == tail), "{:?}", files.keys());
    }
}

#[test]
fn damage_in_the_middle_prevents_the_start_and_leaves_the_log_unchanged() {
    if skipped_on_redis() {
        return;
    }
    let (log, _) = log_of_session();
    let boundaries = boundaries(&log);
    let at = boundaries[boundaries.len() / 2];
    let damaged = |offset: usize, bytes: &[u8]| {
        let mut copy = log.clone();
        copy[offset..offset + bytes.len()].copy_from_slice(bytes);
        copy
    };
    let inserted = |bytes: &[u8]| [&log[..at], bytes, &log[at..]].concat();
    let cases = [
        ("no start of a record", damaged(at, b"X")),
        ("no count of arguments", damaged(at + 1, b"z")),
        ("no length of an argument", damaged(at + 4, b"#")),
        ("zero bytes", inserted(&[0; 16])),
        ("garbage", inserted(b"garbage in the middle")),
        ("an unknown command", inserted(b"*1\r\n$6\r\nNOSUCH\r\n")),
        ("an argument that does not end", inserted(b"*2\r\n$3\r\nDEL\r\n$1\r\nkk\r\n")),
    ];
    for (what, log) in cases {
        let home = TempDir::new();
        fs::write(home.data().join("storage.aof"), &log).expect("write the log");
        let ended = Server::fail_to_start(&home, &[]);
        assert_eq!(ended.code, Some(1), "{what}");
        assert!(
            names_offset(&ended.stderr, at..=at + 40),
            "{what}: {at} is not in {}",
            ended.stderr
        );
        let files = files(&home.data());
        assert_eq!(files.len(), 1, "{what}: {:?}", files.keys());
        assert!(files["storage.aof"] == log, "{what}: the log was changed");
    }
}

#[test]
fn an_empty_log_loads_as_an_empty_data_set() {
    if skipped_on_redis() {
        return;
    }
    let server = start_with_log(b"");
    server.client().expect("DBSIZE", ":0");
}

#[test]
fn a_log_written_by_hand_is_read() {
    if skipped_on_redis() {
        return;
    }
    // Like the sample in the repository: without a SELECT at the start, names in any case.
    let mut server = start_with_log(
        b"*3\r\n$3\r\nSET\r\n$4\r\nname\r\n$5\r\nahmed\r\n*4\r\n$4\r\nhset\r\n$1\r\nh\r\n$1\r\nf\r\n$1\r\nv\r\n\
          *5\r\n$3\r\nset\r\n$1\r\nt\r\n$1\r\nv\r\n$2\r\nex\r\n$3\r\n100\r\n",
    );
    let mut c = server.client();
    c.expect("GET name", "\"ahmed\"");
    c.expect("HGET h f", "\"v\"");
    c.expect("TTL t", ":100");
    c.expect("SET more v", "+OK");
    server.restart();
    server.client().expect("MGET name more", "[\"ahmed\", \"v\"]");
}

// ---- A real Redis reads the log ----------------------------------------------------------------------

#[test]
fn redis_check_aof_finds_the_log_valid() {
    if skipped_on_redis() || !installed("redis-check-aof") {
        return;
    }
    let server = Server::start(&[]);
    write_all(&mut server.client());
    let output = Command::new("redis-check-aof")
        .arg(server.log_path())
        .output()
        .expect("run redis-check-aof");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("is valid"), "{text}");
}

#[test]
fn a_real_redis_serves_the_same_data_from_a_copy_of_the_log() {
    if skipped_on_redis() || !installed("redis-server") {
        return;
    }
    let server = Server::start(&[]);
    let mut c = server.client();
    write_all(&mut c);
    let expected = dump(&mut c);

    let home = TempDir::new();
    fs::copy(server.log_path(), home.data().join("storage.aof")).expect("copy the log");
    let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = free.local_addr().expect("its address");
    drop(free);
    let child = Command::new("redis-server")
        .args(["--port", &address.port().to_string(), "--save", "", "--appendonly", "yes"])
        .args(["--appendfilename", "storage.aof", "--bind", "127.0.0.1", "--dir"])
        .arg(home.data())
        .stdout(Stdio::null())
        .spawn()
        .expect("start redis-server");
    let _ended = KilledOnDrop(child);
    eventually("the real Redis has loaded the log", || {
        std::net::TcpStream::connect(address).is_ok()
            && Client::to(address).reply("PING") == Reply::Simple("PONG".into())
    });
    assert_eq!(dump(&mut Client::to(address)), expected);
}

// ---- Order -------------------------------------------------------------------------------------------

#[test]
fn concurrent_writers_of_the_same_keys_are_logged_in_the_order_of_their_changes() {
    if skipped_on_redis() {
        return;
    }
    let mut server = Server::start(&[]);
    let failed: Mutex<Vec<String>> = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for writer in 0..4 {
            let mut c = server.client();
            let failed = &failed;
            scope.spawn(move || {
                let mut pipeline = Vec::new();
                for i in 0..2000 {
                    let key = format!("k{}", i % 7);
                    let value = format!("{writer}:{i}");
                    pipeline.extend(match i % 5 {
                        0 => encode(&["SET", &key, &value]),
                        1 => encode(&["APPEND", &key, &value]),
                        2 => encode(&["RENAME", &key, &format!("k{}", (i + 3) % 7)]),
                        3 => encode(&["COPY", &key, &format!("k{}", (i + 1) % 7), "REPLACE"]),
                        _ => encode(&["DEL", &key]),
                    });
                }
                let (sent, waits) = mpsc::channel();
                let mut stream = c.sending_half();
                scope.spawn(move || {
                    stream.write_all(&pipeline).expect("send");
                    sent.send(()).expect("the reader waits");
                });
                for _ in 0..2000 {
                    match c.read_reply() {
                        Reply::Error(error) if error == "ERR no such key" => {}
                        Reply::Error(error) => failed.lock().unwrap().push(error),
                        _ => {}
                    }
                }
                waits.recv().expect("all was sent");
            });
        }
    });
    assert_eq!(failed.into_inner().unwrap(), Vec::<String>::new());
    let before = dump(&mut server.client());
    server.restart();
    assert_eq!(dump(&mut server.client()), before);
}
