//! RDB: `DUMP` and `RESTORE`, saving and loading files, and what other servers make of them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::harness::{
    Client, FAR, KilledOnDrop, Reply, Server, TempDir, assert_same, await_rewrite, check_aof,
    connect, dump, encode, eventually, files, fill, free_port, info, installed, quote, records,
    rewrite, skipped_on_redis, start_rewrite, start_with_log, transcript, unix_now_ms, write_all,
};

/// What Redis 7.0 returns for the string `hello`, and for the hash of `a` = `1` and `bb` = `-300`.
const STRING: &str = r"\x00\x05hello\n\x00cr\xdfve4 \n";
const HASH: &str = r"\x10\x13\x13\x00\x00\x00\x04\x00\x81a\x02\x01\x01\x82bb\x03\xde\xd4\x02\xff\n\x00\xc8W\x7fAU\xadp\xcc";

/// Runs a transcript in which these names stand for the payloads.
#[track_caller]
fn with_payloads(session: &str) {
    transcript(&session.replace("STRING", STRING).replace("HASH", HASH));
}

// ---- DUMP and RESTORE --------------------------------------------------------------------------------

#[test]
fn restore_makes_the_value_that_redis_has_dumped() {
    with_payloads(
        r#"
        > RESTORE s 0 "STRING"
        +OK
        > GET s
        "hello"
        > TTL s
        :-1
        > RESTORE h 0 "HASH"
        +OK
        > HGETALL h
        ["a", "1", "bb", "-300"]
        > DUMP missing
        nil
        "#,
    );
}

#[test]
fn restore_replaces_a_key_only_if_asked_to() {
    with_payloads(
        r#"
        > SET k old
        +OK
        > RESTORE k 0 "STRING"
        -BUSYKEY Target key name already exists.
        // The key comes before the time to live and the payload, but after the options.
        > RESTORE k x junk
        -BUSYKEY Target key name already exists.
        > RESTORE k x junk NOSUCH
        -ERR syntax error
        > RESTORE k 0 "HASH" REPLACE
        +OK
        > TYPE k
        +hash
        > RESTORE k 0 "STRING" replace REPLACE
        +OK
        > GET k
        "hello"
        "#,
    );
}

#[test]
fn a_restored_key_expires_in_as_many_milliseconds_or_at_that_time() {
    let mut c = connect();
    let session = r#"
        > RESTORE k 100000 "STRING"
        +OK
        > RESTORE k 9999999999999 "STRING" REPLACE ABSTTL
        +OK
        > PEXPIRETIME k
        :9999999999999
        // A time that has passed deletes the old value.
        > RESTORE k 1 "STRING" REPLACE ABSTTL
        +OK
        > EXISTS k
        :0
        > RESTORE k 1 "STRING" ABSTTL
        +OK
        > EXISTS k
        :0
        > RESTORE k -1 "STRING"
        -ERR Invalid TTL value, must be >= 0
        > RESTORE k 9223372036854775808 "STRING"
        -ERR value is not an integer or out of range
        // Together with the current time it is out of range, and counts as passed.
        > RESTORE k 9223372036854775807 "STRING"
        +OK
        > EXISTS k
        :0
        > RESTORE k 5000 "STRING"
        +OK
        "#;
    c.transcript(&session.replace("STRING", STRING));
    assert!((1..=5000).contains(&c.integer("PTTL k")));
}

#[test]
fn restore_sets_how_long_a_key_was_not_used() {
    with_payloads(
        r#"
        > RESTORE k 0 "STRING" IDLETIME -1
        -ERR Invalid IDLETIME value, must be >= 0
        > RESTORE k 0 "STRING" IDLETIME x
        -ERR value is not an integer or out of range
        > RESTORE k 0 "STRING" IDLETIME
        -ERR syntax error
        > RESTORE k 0 "STRING" FREQ 256
        -ERR Invalid FREQ value, must be >= 0 and <= 255
        > RESTORE k 0 "STRING" FREQ -1
        -ERR Invalid FREQ value, must be >= 0 and <= 255
        > RESTORE k 0 "STRING" FREQ 1 IDLETIME 1
        -ERR syntax error
        > RESTORE k 0 "STRING" IDLETIME 1 FREQ 1
        -ERR syntax error
        > RESTORE k 0 "STRING" FREQ 255
        +OK
        "#,
    );
    let mut c = connect();
    c.expect(&format!(r#"RESTORE k 0 "{STRING}" IDLETIME 5 IDLETIME 7000000"#), "+OK");
    assert!((7_000_000..7_000_060).contains(&c.integer("OBJECT IDLETIME k")));
    c.expect("GET k", "\"hello\"");
    assert!(c.integer("OBJECT IDLETIME k") < 60);
}

#[test]
fn restore_refuses_payloads_that_are_not_sound() {
    with_payloads(
        r#"
        > RESTORE k 0 ""
        -ERR DUMP payload version or checksum are wrong
        > RESTORE k 0 "\x00\x05hallo\n\x00cr\xdfve4 \n"
        -ERR DUMP payload version or checksum are wrong
        // The checksums are right, but what they are of is not: a field without a value, a type that does not
        // exist, no fields.
        > RESTORE k 0 "\x04\x01\x01\x61\x0a\x00\x4c\xdb\x9f\xa5\xd7\xf7\xe6\x72"
        -ERR Bad data format
        > RESTORE k 0 "\xc8\x00\x0a\x00\x04\x15\x32\x79\xa9\x8a\x6c\xc2"
        -ERR Bad data format
        > RESTORE k 0 "\x10\x07\x07\x00\x00\x00\x00\x00\xff\x0a\x00\xda\x12\x96\x88\x74\x99\x5a\x38"
        -ERR Bad data format
        > EXISTS k
        :0
        "#,
    );
}

#[test]
fn a_list_in_a_payload_is_refused_by_its_name() {
    if skipped_on_redis() {
        return;
    }
    let list = r"\x12\x01\x02\n\n\x00\x00\x00\x01\x00\x81a\x02\xff\x0c\x00\xc2\xcf\xd95n\xf4G\xdc";
    let error = "-ERR Bad data format: it is a list, and there are only strings and hashes here";
    let mut c = connect();
    c.expect("SET k old", "+OK");
    c.expect(&format!(r#"RESTORE k 0 "{list}" REPLACE"#), error);
    c.expect("GET k", "\"old\"");
}

#[test]
fn restore_publishes_what_happens() {
    let mut c = connect();
    if !c.redis_at_least("8.2") {
        return;
    }
    c.expect("CONFIG SET notify-keyspace-events Egnoc", "+OK");
    let mut listener = c.another();
    listener.expect("PSUBSCRIBE *", r#"["psubscribe", "*", :1]"#);
    for command in [
        format!(r#"RESTORE k 0 "{STRING}""#),
        format!(r#"RESTORE k 0 "{HASH}" REPLACE"#),
        format!(r#"RESTORE k 0 "{HASH}" REPLACE"#),
        format!(r#"RESTORE k 1 "{HASH}" REPLACE ABSTTL"#),
        format!(r#"RESTORE k 1 "{HASH}" REPLACE ABSTTL"#),
        "SET end 1".into(),
    ] {
        c.expect(&command, "+OK");
    }
    for event in [
        "new",
        "restore",
        "new",
        "restore",
        "overwritten",
        "type_changed",
        "new",
        "restore",
        "overwritten",
        "del",
    ] {
        let message = format!(r#"["pmessage", "*", "__keyevent@0__:{event}", "k"]"#);
        assert_eq!(listener.read_reply().to_string(), message);
    }
    let message = r#"["pmessage", "*", "__keyevent@0__:new", "end"]"#;
    assert_eq!(listener.read_reply().to_string(), message);
}

/// Commands that make a key of each form.
const KEYS: &[&str] = &[
    "SET k hello",
    "SET k -12345",
    "SET k 99999999999",
    "SET k 0012",
    "SET k ''",
    "SETRANGE k 100000 x",
    "HSET k a 1 bb -300",
    "HSET k '' ''",
    "HSET k abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz 1 b 2",
];

#[test]
fn what_is_dumped_is_restored() {
    let mut c = connect();
    for command in KEYS {
        c.reply("DEL k copy");
        c.reply(command);
        let payload = c.reply("DUMP k").into_bytes();
        assert_eq!(c.call(&[&b"RESTORE"[..], b"copy", b"0", &payload]).to_string(), "+OK");
        let read = if c.reply("TYPE k").to_string() == "+hash" { "HGETALL" } else { "GET" };
        let (mut original, mut copy) =
            (c.reply(&format!("{read} k")), c.reply(&format!("{read} copy")));
        original.sort();
        copy.sort();
        assert_eq!(original, copy, "{command}");
    }
}

#[test]
fn expiring_fields_are_dumped_and_restored() {
    let mut c = connect();
    if !c.redis_at_least("7.4+valkey") {
        return;
    }
    c.expect("HSET k a 1 b 2 c 3", ":3");
    c.expect("HPEXPIREAT k 9999999999999 FIELDS 1 b", "[:1]");
    c.expect("HPEXPIREAT k 9999999999111 FIELDS 1 c", "[:1]");
    let payload = c.reply("DUMP k").into_bytes();
    assert_eq!(c.call(&[&b"RESTORE"[..], b"copy", b"0", &payload]).to_string(), "+OK");
    let expiries = "[:-1, :9999999999999, :9999999999111]";
    c.expect("HPEXPIRETIME copy FIELDS 3 a b c", expiries);
    c.expect("HMGET copy a b c", r#"["1", "2", "3"]"#);
}

#[test]
fn the_log_has_the_commands_that_make_a_restored_value() {
    if skipped_on_redis() {
        return;
    }
    let mut server = Server::start(&[]);
    let mut c = server.client();
    c.expect(&format!(r#"RESTORE s 9999999999999 "{STRING}" ABSTTL"#), "+OK");
    c.expect(&format!(r#"RESTORE h 0 "{HASH}""#), "+OK");
    c.expect(&format!(r#"RESTORE s 0 "{HASH}" REPLACE"#), "+OK");
    c.expect(&format!(r#"RESTORE h 1 "{HASH}" REPLACE ABSTTL"#), "+OK");
    let lines: Vec<String> = records(&server.log_path())
        .iter()
        .map(|record| String::from_utf8_lossy(&record.join(&b' ')).into_owned())
        .collect();
    let expected = [
        "SET s hello PXAT 9999999999999",
        "MULTI",
        "HSET h a 1 bb -300",
        "EXEC",
        "MULTI",
        "DEL s",
        "HSET s a 1 bb -300",
        "EXEC",
        "DEL h",
    ];
    assert_eq!(lines, expected);
    let before = dump(&mut c);
    server.restart();
    assert_same(&dump(&mut server.client()), &before);
}

// ---- MIGRATE -----------------------------------------------------------------------------------------

#[test]
fn migrate_refuses_what_it_cannot_do() {
    transcript(
        r#"
        > SET k 1
        +OK
        > MIGRATE 127.0.0.1 1 k 0 x
        -ERR value is not an integer or out of range
        > MIGRATE 127.0.0.1 1 k x 10
        -ERR value is not an integer or out of range
        > MIGRATE 127.0.0.1 1 k 0 10 KEYS a
        -ERR When using MIGRATE KEYS option, the key argument must be set to the empty string
        > MIGRATE 127.0.0.1 1 "" 0 10
        +NOKEY
        > MIGRATE 127.0.0.1 1 "" 0 10 KEYS
        +NOKEY
        > MIGRATE 127.0.0.1 1 "" 0 10 KEYS a b
        +NOKEY
        > MIGRATE 127.0.0.1 1 missing 0 10
        +NOKEY
        > MIGRATE 127.0.0.1 1 k 0 10 AUTH
        -ERR syntax error
        > MIGRATE 127.0.0.1 1 k 0 10 AUTH2 a
        -ERR syntax error
        > MIGRATE 127.0.0.1 1 k 0 10 COPY REPLACE NOSUCH
        -ERR syntax error
        > MIGRATE 127.0.0.1 1 k 0 10
        -IOERR error or timeout writing to target instance
        > GET k
        "1"
        > COMMAND GETKEYS MIGRATE host 1 k 0 1
        ["k"]
        > COMMAND GETKEYS MIGRATE host 1 k 0 1 AUTH keys
        ["k"]
        > COMMAND GETKEYS MIGRATE host 1 "" 0 1 COPY KEYS a b
        ["a", "b"]
        > COMMAND GETKEYSANDFLAGS MIGRATE host 1 "" 0 1 KEYS a
        [["a", [+RW, +access, +delete]]]
        "#,
    );
}

/// A server to move to, and the beginning of the command that does.
fn target(options: &[&str]) -> (Server, Client, String) {
    let server = Server::start(options);
    let client = server.client();
    let address = format!("MIGRATE 127.0.0.1 {}", server.port());
    (server, client, address)
}

#[test]
fn keys_move_to_another_server_with_their_values_and_expiries() {
    let mut c = connect();
    let (_target, mut other, migrate) = target(&[]);
    c.expect("SET s hello PXAT 9999999999999", "+OK");
    c.expect("HSET h a 1 b 2", ":2");
    c.expect("SET stays 1", "+OK");
    c.expect(&format!("{migrate} s 3 1000"), "+OK");
    c.expect(&format!("{migrate} '' 0 1000 COPY KEYS h missing stays"), "+OK");
    c.expect("EXISTS s h stays", ":2");
    c.expect(
        &format!("{migrate} h 0 1000"),
        "-ERR Target instance replied with error: BUSYKEY Target key name already exists.",
    );
    c.expect(&format!("{migrate} '' 0 1000 REPLACE KEYS h"), "+OK");
    c.expect("EXISTS s h stays", ":1");
    other.expect("HGETALL h", r#"["a", "1", "b", "2"]"#);
    other.expect("GET stays", "\"1\"");
    other.expect("SELECT 3", "+OK");
    other.expect("GET s", "\"hello\"");
    let expires_at_ms = other.integer("PEXPIRETIME s");
    assert!((expires_at_ms - 9_999_999_999_999).abs() < 20_000, "{expires_at_ms}");
}

#[test]
fn keys_that_arrive_are_deleted_even_if_others_do_not() {
    let mut c = connect();
    let (_target, mut other, migrate) = target(&[]);
    other.expect("SET b taken", "+OK");
    c.expect("MSET a 1 b 2 c 3", "+OK");
    let busy = "-ERR Target instance replied with error: BUSYKEY Target key name already exists.";
    c.expect(&format!("{migrate} '' 0 1000 KEYS a b c"), busy);
    c.expect("MGET a b c", r#"[nil, "2", nil]"#);
    other.expect("MGET a b c", r#"["1", "taken", "3"]"#);
    let range = "-ERR Target instance replied with error: ERR DB index is out of range";
    c.expect(&format!("{migrate} b 99 1000"), range);
    c.expect("GET b", "\"2\"");
}

#[test]
fn migrate_gives_the_password_of_the_other_server() {
    let mut c = connect();
    let (_target, mut other, migrate) = target(&["--requirepass", "secret"]);
    other.expect("AUTH secret", "+OK");
    c.expect("SET k 1", "+OK");
    let required = "-ERR Target instance replied with error: NOAUTH Authentication required.";
    c.expect(&format!("{migrate} k 0 1000"), required);
    let Reply::Error(error) = c.reply(&format!("{migrate} k 0 1000 AUTH wrong")) else {
        panic!("the password is wrong");
    };
    assert!(error.starts_with("ERR Target instance replied with error: WRONGPASS"), "{error}");
    c.expect(&format!("{migrate} k 0 1000 COPY AUTH secret"), "+OK");
    c.expect(&format!("{migrate} k 0 1000 REPLACE AUTH2 default secret"), "+OK");
    c.expect("EXISTS k", ":0");
    other.expect("GET k", "\"1\"");
}

#[test]
fn a_target_that_does_not_answer_is_given_up_and_the_key_stays() {
    let mut c = connect();
    // It accepts connections, since the kernel does, and reads nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = silent.local_addr().expect("its address").port();
    c.expect("SET k 1", "+OK");
    let timeout = "-IOERR error or timeout reading to target instance";
    c.expect(&format!("MIGRATE 127.0.0.1 {port} k 0 50"), timeout);
    c.expect("GET k", "\"1\"");
}

#[test]
fn no_write_is_lost_while_keys_move() {
    if skipped_on_redis() {
        return;
    }
    let mut server = Server::start(&[]);
    let (_target, mut other, migrate) = target(&[]);
    let mut writer = server.client();
    let mut c = server.client();
    let moving = std::thread::spawn(move || {
        let mut sum = 0;
        for _ in 0..50 {
            if c.reply(&format!("{migrate} counter 0 1000")).to_string() == "+OK" {
                let moved = other.reply("GETDEL counter").into_text();
                sum += moved.parse::<i64>().expect("a number");
            }
        }
        sum
    });
    // What has been moved begins again at 1, so all sums add up.
    let mut written = 0;
    while !moving.is_finished() {
        writer.integer("INCR counter");
        written += 1;
    }
    written -= moving.join().expect("the moves");
    server.kill_9();
    server.restart();
    let left = server.client().reply("GET counter");
    let left = if left == Reply::NullBulk { "0".into() } else { left.into_text() };
    assert_eq!(left, written.to_string(), "increments that are not in what was moved");
}

#[test]
fn expiring_fields_move_to_servers_with_another_form_of_them() {
    if skipped_on_redis() {
        return;
    }
    for dialect in ["redis", "valkey"] {
        let server = Server::start(&["--rdb-field-expiry", dialect]);
        let mut c = server.client();
        let (_target, mut other, migrate) = target(&[]);
        c.expect("HSET h a 1 b 2", ":2");
        c.expect("HPEXPIREAT h 9999999999999 FIELDS 1 b", "[:1]");
        c.expect(&format!("{migrate} h 0 1000"), "+OK");
        other.expect("HPEXPIRETIME h FIELDS 2 a b", "[:-1, :9999999999999]");
        c.expect("EXISTS h", ":0");
    }
}

#[test]
fn migrate_is_refused_in_a_transaction_and_monitors_do_not_see_its_password() {
    if skipped_on_redis() {
        return;
    }
    let mut c = connect();
    let (_target, _, migrate) = target(&[]);
    c.expect("MULTI", "+OK");
    c.expect(&format!("{migrate} k 0 10"), "-ERR Command not allowed inside a transaction");
    c.expect("DISCARD", "+OK");
    c.transcript(
        "
        > ACL SETUSER limited on nopass ~own +multi +migrate
        +OK
        > AUTH limited any
        +OK
        > MULTI
        +OK
        > MIGRATE 127.0.0.1 1 other 0 10
        -NOPERM No permissions to access a key
        > MIGRATE 127.0.0.1 1 own 0 10
        -ERR Command not allowed inside a transaction
        ",
    );
    let mut c = c.another();
    let mut monitor = c.another();
    monitor.expect("MONITOR", "+OK");
    c.expect("SET k 1", "+OK");
    c.reply(&format!("{migrate} k 0 1000 AUTH2 default secret"));
    c.expect("PING", "+PONG");
    let lines: Vec<String> = (0..3).map(|_| monitor.read_reply().to_string()).collect();
    assert!(lines[1].contains("\"MIGRATE\""), "{lines:?}");
    assert!(!lines[1].contains("secret") && lines[1].contains("(redacted)"), "{lines:?}");
    assert!(lines[2].contains("\"PING\""), "{lines:?}");
}

// ---- SAVE and BGSAVE ---------------------------------------------------------------------------------

#[test]
fn save_and_bgsave_refuse_what_they_do_not_know() {
    transcript(
        "
        > SAVE now
        -ERR wrong number of arguments for 'save' command
        > BGSAVE now
        -ERR syntax error
        > BGSAVE SCHEDULE now
        -ERR syntax error
        > LASTSAVE now
        -ERR wrong number of arguments for 'lastsave' command
        valkey> BGSAVE CANCEL
        -ERR Background saving is currently not in progress or scheduled
        > MULTI
        +OK
        > LASTSAVE
        +QUEUED
        redis> SAVE
        -ERR Command not allowed inside a transaction
        redis> EXEC
        -EXECABORT Transaction discarded because of previous errors.
        ",
    );
}

#[test]
fn a_save_is_counted_and_takes_over_the_changes_since_the_last_one() {
    let mut c = connect();
    c.expect("SAVE", "+OK");
    c.expect("SET a 1", "+OK");
    c.expect("SET b 1", "+OK");
    c.expect("GET b", "\"1\"");
    assert_eq!(info(&mut c, "rdb_changes_since_last_save").as_deref(), Some("2"));
    let saves = info(&mut c, "rdb_saves");
    c.expect("SAVE", "+OK");
    assert_eq!(info(&mut c, "rdb_changes_since_last_save").as_deref(), Some("0"));
    let more = |saves: &Option<String>| saves.as_ref().and_then(|saves| saves.parse::<u64>().ok());
    if let Some(saves) = more(&saves) {
        assert_eq!(more(&info(&mut c, "rdb_saves")), Some(saves + 1));
    }
    assert!((c.integer("LASTSAVE") - unix_now_ms() / 1000).abs() < 60);
    c.expect("SET a 2", "+OK");
    save_in_background(&mut c);
    assert_eq!(info(&mut c, "rdb_changes_since_last_save").as_deref(), Some("0"));
    assert_eq!(info(&mut c, "rdb_last_bgsave_status").as_deref(), Some("ok"));
}

/// Saves in the background, and waits until that is done.
fn save_in_background(c: &mut Client) {
    eventually("a save begins", || c.reply("BGSAVE").to_string() == "+Background saving started");
    let status = |c: &mut Client| info(c, "rdb_bgsave_in_progress");
    let changes = |c: &mut Client| info(c, "rdb_changes_since_last_save");
    eventually("the save has ended", || {
        status(c).as_deref() == Some("0") && changes(c).as_deref() == Some("0")
    });
}

#[test]
fn a_start_without_a_log_loads_the_file_and_writes_a_log() {
    if skipped_on_redis() {
        return;
    }
    let saving = Server::start(&["--appendonly", "no"]);
    let mut c = saving.client();
    fill(&mut c, 2000);
    c.expect("SET soon 1 PX 1", "+OK");
    c.expect("SAVE", "+OK");
    eventually("the key is gone", || c.integer("EXISTS soon") == 0);
    let before = dump(&mut c);
    assert_eq!(fs::read(saving.dir().join("dump.rdb")).expect("the file")[..9], *b"REDIS0010");
    let home = TempDir::new();
    let copied = fs::copy(saving.dir().join("dump.rdb"), home.data().join("dump.rdb"));
    copied.expect("copy the file");
    let mut server = Server::start_in(home, &[]);
    let mut c = server.client();
    assert_same(&dump(&mut c), &before);
    assert_eq!(info(&mut c, "rdb_last_load_keys_loaded"), Some(before.len().to_string()));
    // From now on the log counts, not the file.
    c.expect("FLUSHALL", "+OK");
    c.expect("SET only this", "+OK");
    server.kill_9();
    server.restart();
    assert_eq!(server.client().reply("KEYS *").to_string(), r#"["only"]"#);
}

#[test]
fn without_a_log_a_restart_goes_back_to_the_last_save() {
    if skipped_on_redis() {
        return;
    }
    let mut server = Server::start(&["--appendonly", "no", "--dbfilename", "other.rdb"]);
    let mut c = server.client();
    c.expect("SET a 1", "+OK");
    c.expect("SAVE", "+OK");
    c.expect("SET a 2", "+OK");
    server.restart();
    let mut c = server.client();
    c.expect("GET a", "\"1\"");
    // SHUTDOWN saves if it is told to, or if there is a schedule.
    c.expect("SET a 3", "+OK");
    c.send(&["SHUTDOWN", "SAVE"]);
    assert_eq!(server.wait_for_exit(), Some(0));
    server.restart();
    let mut c = server.client();
    c.expect("GET a", "\"3\"");
    c.expect("SET a 4", "+OK");
    c.expect("CONFIG SET save '3600 1'", "+OK");
    c.send(&["SHUTDOWN"]);
    assert_eq!(server.wait_for_exit(), Some(0));
    server.restart();
    let mut c = server.client();
    c.expect("GET a", "\"4\"");
    c.expect("SET a 5", "+OK");
    c.expect("CONFIG SET save '3600 1'", "+OK");
    c.send(&["SHUTDOWN", "NOSAVE"]);
    assert_eq!(server.wait_for_exit(), Some(0));
    server.restart();
    server.client().expect("GET a", "\"4\"");
}

#[test]
fn a_file_says_when_or_how_often_keys_were_used_if_that_decides_which_are_evicted() {
    if skipped_on_redis() {
        return;
    }
    let restore = |option| format!("RESTORE k 0 \"{STRING}\" {option}");
    for (policy, option, question, kept) in [
        ("allkeys-lru", "IDLETIME 1000", "OBJECT IDLETIME k", 1000..1100),
        ("volatile-lfu", "FREQ 100", "OBJECT FREQ k", 95..101),
        ("noeviction", "IDLETIME 1000", "OBJECT IDLETIME k", 0..100),
    ] {
        let mut server = Server::start(&[
            "--appendonly",
            "no",
            "--save",
            "3600 1",
            "--maxmemory-policy",
            policy,
        ]);
        let mut c = server.client();
        c.expect(&restore(option), "+OK");
        c.send(&["SHUTDOWN"]);
        assert_eq!(server.wait_for_exit(), Some(0));
        server.restart();
        let found = server.client().integer(question);
        assert!(kept.contains(&found), "{policy}: {found}");
    }
}

#[test]
fn flushall_replaces_the_file_if_there_is_a_schedule() {
    let mut c = connect();
    c.expect("CONFIG SET save ''", "+OK");
    c.expect("SET a 1", "+OK");
    c.expect("SAVE", "+OK");
    c.expect("FLUSHALL", "+OK");
    assert_eq!(info(&mut c, "rdb_changes_since_last_save").as_deref(), Some("1"));
    c.expect("CONFIG SET save '3600 1000'", "+OK");
    c.expect("SET a 2", "+OK");
    c.expect("SAVE", "+OK");
    c.expect("FLUSHALL", "+OK");
    eventually("the file has no data", || {
        info(&mut c, "rdb_changes_since_last_save").as_deref() == Some("0")
    });
}

#[test]
fn what_flushall_has_removed_does_not_come_back_after_a_crash() {
    if skipped_on_redis() {
        return;
    }
    let mut server = Server::start(&["--appendonly", "no", "--save", "3600 1000"]);
    let mut c = server.client();
    c.expect("SET a 1", "+OK");
    c.expect("SAVE", "+OK");
    // In a transaction too.
    c.transcript(
        "
        > MULTI
        +OK
        > FLUSHALL
        +QUEUED
        > EXEC
        [+OK]
        ",
    );
    eventually("the file was replaced", || {
        info(&mut c, "rdb_changes_since_last_save").as_deref() == Some("0")
    });
    server.kill_9();
    server.restart();
    assert_eq!(server.client().integer("DBSIZE"), 0);
}

#[test]
fn a_schedule_saves_by_itself() {
    if skipped_on_redis() {
        return;
    }
    let server = Server::start(&["--save", "1 3"]);
    let mut c = server.client();
    c.expect("SET a 1", "+OK");
    c.expect("SET a 2", "+OK");
    c.expect("SET a 3", "+OK");
    eventually("it is saved", || server.dir().join("dump.rdb").exists());
    eventually("it is counted", || info(&mut c, "rdb_saves").as_deref() == Some("1"));
}

#[test]
fn writes_are_refused_while_the_last_scheduled_save_has_failed() {
    if skipped_on_redis() {
        return;
    }
    let server = Server::start(&["--save", "3600 1"]);
    let mut c = server.client();
    c.expect("SET a 1", "+OK");
    // A directory with this name cannot be replaced by a file.
    fs::create_dir_all(server.dir().join("dump.rdb").join("x")).expect("make a directory");
    c.expect("BGSAVE", "+Background saving started");
    let status = |c: &mut Client| info(c, "rdb_last_bgsave_status");
    eventually("the save has failed", || status(&mut c).as_deref() == Some("err"));
    let Reply::Error(error) = c.reply("SET a 2") else { panic!("it was written") };
    assert!(error.starts_with("MISCONF Redis is configured to save RDB snapshots, but"), "{error}");
    c.expect("GET a", "\"1\"");
    c.expect("CONFIG SET stop-writes-on-bgsave-error no", "+OK");
    c.expect("SET a 2", "+OK");
    c.expect("CONFIG SET stop-writes-on-bgsave-error yes", "+OK");
    fs::remove_dir_all(server.dir().join("dump.rdb")).expect("remove the directory");
    c.expect("SAVE", "+OK");
    c.expect("SET a 3", "+OK");
    assert!(!server.dir().join("dump.rdb.tmp").exists());
}

#[test]
fn a_save_shows_one_point_in_time_while_clients_write() {
    if skipped_on_redis() {
        return;
    }
    // Each transaction sets both keys; a file that shows one point in time has them equal.
    let saving = Server::start(&["--appendonly", "no"]);
    let mut c = saving.client();
    fill(&mut c, 3000);
    let mut writer = saving.client();
    for round in 0..20 {
        c.send(&["SAVE"]);
        for number in 0..50 {
            let value = format!("{round}.{number}");
            let pair = ["MSET", "left", &value, "right", &value];
            writer.send(&pair);
            assert_eq!(writer.read_reply().to_string(), "+OK");
        }
        assert_eq!(c.read_reply().to_string(), "+OK");
        let home = TempDir::new();
        let copied = fs::copy(saving.dir().join("dump.rdb"), home.data().join("dump.rdb"));
        copied.expect("copy the file");
        if round % 5 == 0 {
            let loaded = Server::start_in(home, &["--appendonly", "no"]);
            let pair = loaded.client().reply("MGET left right").into_items();
            assert_eq!(pair[0], pair[1]);
        }
    }
}

#[test]
fn a_damaged_file_and_one_with_another_type_keep_the_server_from_starting() {
    if skipped_on_redis() {
        return;
    }
    let list = b"REDIS0012\xfe\x03\x12\x01k\x01";
    for (file, why) in [
        (&list[..], "at offset 11: the key 'k' of database 3 is a list"),
        (&list[..12], "damaged at offset 12: it ends in the middle"),
        (b"", "damaged at offset 0: it ends in the middle"),
        (b"REDIS0099", "version 99 of the format"),
        (b"something else", "it does not begin like an RDB file"),
    ] {
        let home = TempDir::new();
        fs::write(home.data().join("dump.rdb"), file).expect("write the file");
        let ended = Server::fail_to_start(&home, &[]);
        assert_eq!(ended.code, Some(1));
        assert!(ended.stderr.contains(why), "{}", ended.stderr);
        assert!(!home.data().join("storage.aof").exists());
        assert_eq!(fs::read(home.data().join("dump.rdb")).expect("the file"), file);
    }
}

// ---- Logs of Redis -----------------------------------------------------------------------------------

/// An RDB file, and the data in it.
fn saved() -> (Vec<u8>, BTreeMap<(usize, String), String>) {
    let server = Server::start(&[]);
    let mut c = server.client();
    fill(&mut c, 500);
    c.expect("SAVE", "+OK");
    (fs::read(server.dir().join("dump.rdb")).expect("the file"), dump(&mut c))
}

#[test]
fn a_log_may_begin_with_a_snapshot() {
    if skipped_on_redis() {
        return;
    }
    let (snapshot, mut expected) = saved();
    let records = [encode(&["SET", "behind", "1"]), encode(&["INCR", "behind"])].concat();
    let mut server = start_with_log(&[snapshot, records].concat());
    let mut c = server.client();
    let behind = (0, quote(b"behind"));
    expected.insert(behind.clone(), dump(&mut c)[&behind].clone());
    c.expect("SELECT 0", "+OK");
    c.expect("GET behind", "\"2\"");
    assert_same(&dump(&mut c), &expected);
    c.expect("SELECT 0", "+OK");
    c.expect("DEL behind", ":1");
    expected.remove(&behind);
    server.kill_9();
    server.restart();
    let mut c = server.client();
    assert_same(&dump(&mut c), &expected);
    let (good, report) = check_aof(&server.log_path(), &[]);
    assert!(good && report.contains("a snapshot of"), "{report}");
    rewrite(&mut c);
    assert!(fs::read(server.log_path()).expect("the log").starts_with(b"*"));
    server.kill_9();
    server.restart();
    assert_same(&dump(&mut server.client()), &expected);
}

#[test]
fn a_torn_tail_behind_a_snapshot_is_cut_off_and_damage_in_it_is_not_repaired() {
    if skipped_on_redis() {
        return;
    }
    let (snapshot, expected) = saved();
    let server = start_with_log(&[&snapshot[..], b"*2\r\n$3\r\nDE"].concat());
    assert_same(&dump(&mut server.client()), &expected);
    assert_eq!(fs::read(server.log_path()).expect("the log"), snapshot);
    let mut damaged = snapshot.clone();
    damaged[snapshot.len() / 2] ^= 1;
    for log in [&damaged[..], &snapshot[..snapshot.len() - 1]] {
        let home = TempDir::new();
        let path = home.data().join("storage.aof");
        fs::write(&path, log).expect("write the log");
        let ended = Server::fail_to_start(&home, &[]);
        assert!(ended.stderr.contains("can't use the log"), "{}", ended.stderr);
        let (good, report) = check_aof(&path, &["--fix"]);
        assert!(
            !good && report.contains("the snapshot at its beginning cannot be loaded"),
            "{report}"
        );
        assert!(files(&home.data()) == BTreeMap::from([("storage.aof".into(), log.to_vec())]));
    }
}

#[test]
fn a_log_that_cannot_be_held_here_is_not_called_damaged() {
    if skipped_on_redis() {
        return;
    }
    let list = b"REDIS0012\xfe\x03\x12\x01k\x01".to_vec();
    let beyond = "database 20, and there are only 16 here: set 'databases'";
    let in_block = [encode(&["MULTI"]), encode(&["SELECT", "20"]), encode(&["EXEC"])].concat();
    for (log, why) in [
        (list, "at offset 11: the key 'k' of database 3 is a list"),
        (encode(&["SELECT", "20"]), beyond),
        (in_block, beyond),
    ] {
        let home = TempDir::new();
        fs::write(home.data().join("storage.aof"), &log).expect("write the log");
        let ended = Server::fail_to_start(&home, &[]);
        assert_eq!(ended.code, Some(1));
        assert!(ended.stderr.contains(why), "{}", ended.stderr);
        assert!(!ended.stderr.contains("damaged"), "{}", ended.stderr);
        assert!(files(&home.data()) == BTreeMap::from([("storage.aof".into(), log)]));
    }
    let log = [encode(&["SELECT", "20"]), encode(&["SET", "a", "1"])].concat();
    let home = TempDir::new();
    fs::write(home.data().join("storage.aof"), log).expect("write the log");
    let server = Server::start_in(home, &["--databases", "21"]);
    let mut c = server.client();
    c.expect("SELECT 20", "+OK");
    c.expect("GET a", "\"1\"");
}

#[test]
fn an_expired_key_in_front_of_a_log_lives_if_the_log_says_so() {
    if skipped_on_redis() {
        return;
    }
    let mut log = b"REDIS0010".to_vec();
    for key in *b"ab" {
        log.extend([0xfc, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, key, 0xc0, 5]);
    }
    log.extend([0xff, 0, 0, 0, 0, 0, 0, 0, 0]);
    log.extend(encode(&["PEXPIREAT", "a", FAR]));
    let server = start_with_log(&log);
    server.client().expect("GET a", "\"5\"");
    server.client().expect("GET b", "nil");
}

#[test]
fn a_directory_of_redis_is_loaded_and_becomes_a_log() {
    if skipped_on_redis() {
        return;
    }
    let (snapshot, mut expected) = saved();
    let home = TempDir::new();
    let dir = home.data().join("appendonlydir");
    let write = |name: &str, bytes: &[u8]| fs::write(dir.join(name), bytes).expect("write a file");
    fs::create_dir(&dir).expect("make the directory");
    let names = "file old.aof seq 1 type h\nfile base.rdb seq 2 type b\nfile 1.aof seq 2 type i\n\
                 file 2.aof seq 3 type i\n";
    write("appendonly.aof.manifest", names.as_bytes());
    write("base.rdb", &snapshot);
    write("1.aof", &[encode(&["SELECT", "1"]), encode(&["SET", "n", "1"])].concat());
    // Each file begins in database 0.
    write("2.aof", &[&encode(&["SET", "n", "2"])[..], b"*2\r\n$3\r\nDE"].concat());
    fs::write(home.data().join("dump.rdb"), b"not looked at").expect("write a file");
    let before = files(&dir);
    let mut server = Server::start_in(home, &[]);
    let mut c = server.client();
    let loaded = dump(&mut c);
    for db in [0, 1] {
        let key = (db, quote(b"n"));
        expected.insert(key.clone(), loaded[&key].clone());
    }
    assert_same(&loaded, &expected);
    c.expect("SELECT 0", "+OK");
    c.expect("GET n", "\"2\"");
    assert!(server.stderr().contains("ended in the middle of a record: 10 bytes were left out"));
    assert!(files(&dir) == before);
    server.kill_9();
    server.restart();
    assert_same(&dump(&mut server.client()), &expected);
}

#[test]
fn a_directory_of_redis_that_is_not_whole_keeps_the_server_from_starting() {
    if skipped_on_redis() {
        return;
    }
    let manifest = "file 1.aof seq 1 type i\nfile 2.aof seq 2 type i\n";
    let set = encode(&["SET", "a", "1"]);
    for (files, why) in [
        (vec![("a.manifest", "nonsense".as_bytes())], "line 1 is not that of a manifest"),
        (vec![("a.manifest", manifest.as_bytes()), ("1.aof", &set)], "2.aof': No such file"),
        (
            vec![("a.manifest", manifest.as_bytes()), ("1.aof", &set[..9]), ("2.aof", &set)],
            "1.aof': it ends in the middle of a record, at offset 0",
        ),
        (vec![("a.manifest", b""), ("b.manifest", b"")], "has several manifests"),
    ] {
        let home = TempDir::new();
        let dir = home.data().join("appendonlydir");
        fs::create_dir(&dir).expect("make the directory");
        for (name, bytes) in files {
            fs::write(dir.join(name), bytes).expect("write a file");
        }
        let ended = Server::fail_to_start(&home, &[]);
        assert!(ended.stderr.contains(why), "{}", ended.stderr);
        assert!(!home.data().join("storage.aof").exists());
    }
}

// ---- Other servers -----------------------------------------------------------------------------------

/// A Redis of this machine in that directory.
fn start_redis(dir: &Path, options: &[&str]) -> (KilledOnDrop, Client) {
    let port = free_port();
    let redis = Command::new("redis-server")
        .args(["--port", &port.to_string(), "--save", ""])
        .arg("--dir")
        .arg(dir)
        .args(options)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("start Redis");
    let redis = KilledOnDrop(redis);
    let address = ([127, 0, 0, 1], port).into();
    eventually("Redis listens", || std::net::TcpStream::connect(address).is_ok());
    let mut client = Client::to(address);
    eventually("Redis has loaded", || client.reply("PING").to_string() == "+PONG");
    (redis, client)
}

#[test]
fn redis_loads_our_file_and_finds_nothing_wrong_with_it() {
    if skipped_on_redis() || !installed("redis-server") {
        return;
    }
    let server = Server::start(&[]);
    let mut c = server.client();
    fill(&mut c, 2000);
    c.expect("SETRANGE long 100000 x", ":100001");
    c.expect("SAVE", "+OK");
    if installed("redis-check-rdb") {
        let check = Command::new("redis-check-rdb").arg(server.dir().join("dump.rdb")).output();
        let check = check.expect("run the check");
        let said = String::from_utf8_lossy(&check.stdout).into_owned();
        assert!(check.status.success() && said.contains("looks OK"), "{said}");
    }
    let home = TempDir::new();
    let copied = fs::copy(server.dir().join("dump.rdb"), home.data().join("dump.rdb"));
    copied.expect("copy the file");
    let (_redis, mut redis) = start_redis(&home.data(), &[]);
    assert_same(&dump(&mut redis), &dump(&mut c));
}

#[test]
fn a_file_of_redis_is_loaded() {
    if skipped_on_redis() || !installed("redis-server") {
        return;
    }
    for compression in ["yes", "no"] {
        let home = TempDir::new();
        let (redis, mut c) = start_redis(&home.data(), &["--rdbcompression", compression]);
        fill(&mut c, 2000);
        c.expect("SETRANGE long 100000 x", ":100001");
        c.expect("SAVE", "+OK");
        let before = dump(&mut c);
        drop(redis);
        let server = Server::start_in(home, &[]);
        assert_same(&dump(&mut server.client()), &before);
    }
}

#[test]
fn the_directory_of_a_redis_that_was_stopped_is_loaded_as_it_is() {
    if skipped_on_redis() || !installed("redis-server") {
        return;
    }
    let home = TempDir::new();
    // Under everysec it may hold back what it has acknowledged, while the disk is busy.
    let args = ["--appendonly", "yes", "--appendfsync", "always"];
    let (redis, mut c) = start_redis(&home.data(), &args);
    fill(&mut c, 1000);
    start_rewrite(&mut c);
    await_rewrite(&mut c);
    write_all(&mut c);
    let before = dump(&mut c);
    drop(redis);
    let mut server = Server::start_in(home, &[]);
    assert_same(&dump(&mut server.client()), &before);
    fs::remove_dir_all(server.dir().join("appendonlydir")).expect("remove the directory");
    server.restart();
    assert_same(&dump(&mut server.client()), &before);
}
