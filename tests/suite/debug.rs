//! DEBUG, which test tools use, and who may use it.

use std::fs::OpenOptions;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{Client, Reply, Server, connect, connect_with, eventually, skipped_on_redis};

const ALLOWED: [&str; 2] = ["--enable-debug-command", "yes"];
const REFUSED: &str = "-ERR DEBUG command not allowed. If the enable-debug-command option is set to \
    \"local\", you can run it from a local connection, otherwise you need to set this option in the \
    configuration file, and then restart the server.";

#[test]
fn debug_is_refused_unless_a_start_option_allows_it() {
    if skipped_on_redis() {
        return;
    }
    let mut c = connect();
    c.expect("DEBUG SLEEP 0", REFUSED);
    c.expect("DEBUG nonsense", REFUSED);
    c.expect("DEBUG", "-ERR wrong number of arguments for 'debug' command");
    c.expect("CONFIG GET enable-debug-command", "[\"enable-debug-command\", \"no\"]");
    let immutable = "-ERR CONFIG SET failed (possibly related to argument 'enable-debug-command') - \
        can't set immutable config";
    c.expect("CONFIG SET enable-debug-command yes", immutable);
    connect_with(&["--enable-debug-command", "local"]).expect("DEBUG SLEEP 0", "+OK");
    // As in Redis, whoever must log in first learns that as well.
    connect_with(&["--requirepass", "secret"]).expect("DEBUG SLEEP 0", REFUSED);
}

#[test]
fn debug_is_no_write_so_a_replica_takes_it() {
    if skipped_on_redis() {
        return; // it does the same, but has a backlog from then on, which other tests would notice
    }
    let mut c = connect_with(&ALLOWED);
    c.expect("REPLICAOF 127.0.0.1 1", "+OK");
    c.expect("SET k v", "-READONLY You can't write against a read only replica.");
    c.expect("DEBUG SLEEP 0", "+OK");
    c.expect("DEBUG POPULATE 3 made 5", "+OK");
    c.expect("DBSIZE", ":3");
    c.expect("STRLEN made:2", ":5");
    c.expect("REPLICAOF NO ONE", "+OK");
    c.expect("SET k v", "+OK");
}

#[test]
fn debug_checks_its_arguments() {
    connect_with(&ALLOWED).transcript(
        r#"
        > DEBUG nonsense
        -ERR unknown subcommand or wrong number of arguments for 'nonsense'. Try DEBUG HELP.
        > DEBUG Object
        -ERR unknown subcommand or wrong number of arguments for 'Object'. Try DEBUG HELP.
        > DEBUG OBJECT k too-much
        -ERR unknown subcommand or wrong number of arguments for 'OBJECT'. Try DEBUG HELP.
        > DEBUG SLEEP
        -ERR unknown subcommand or wrong number of arguments for 'SLEEP'. Try DEBUG HELP.
        > DEBUG DIGEST k
        -ERR unknown subcommand or wrong number of arguments for 'DIGEST'. Try DEBUG HELP.
        > DEBUG POPULATE 1 p 2 3
        -ERR unknown subcommand or wrong number of arguments for 'POPULATE'. Try DEBUG HELP.
        > DEBUG POPULATE x
        -ERR value is out of range, must be positive
        > DEBUG POPULATE 1 p -1
        -ERR value is out of range, must be positive
        > DEBUG OBJECT missing
        -ERR no such key
        > DEBUG SLEEP nonsense
        +OK
        > DEBUG SLEEP -1
        +OK
        > DEBUG SET-ACTIVE-EXPIRE 1
        +OK
        > DEBUG RELOAD nonsense
        -ERR DEBUG RELOAD only supports the MERGE, NOFLUSH and NOSAVE options.
        "#,
    );
}

#[test]
fn debug_object_shows_refcount_encoding_and_length() {
    let mut c = connect_with(&ALLOWED);
    c.expect("SET k 50000", "+OK");
    let text = c.text("DEBUG OBJECT k");
    assert!(text.starts_with("Value at:0x"), "{text}");
    let known = " refcount:1 encoding:int serializedlength:5 lru:";
    assert!(text.contains(known) && text.contains(" lru_seconds_idle:"), "{text}");
    c.expect("SET k hello", "+OK");
    let text = c.text("DEBUG OBJECT k");
    assert!(text.contains(" refcount:1 encoding:embstr serializedlength:6 "), "{text}");
}

#[test]
fn equal_data_has_the_same_digest_as_in_redis() {
    connect_with(&ALLOWED).transcript(
        r#"
        > DEBUG DIGEST
        +0000000000000000000000000000000000000000
        > SET a 1
        +OK
        > DEBUG DIGEST
        +943d800368fb9c0e951138f1bc0e313ac769d91f
        > SET x 1
        +OK
        > DEBUG DIGEST
        +0fc878990a0db5bb0595c0ccd2ad78944770406c
        > HSET h g w f v
        :2
        > DEBUG DIGEST
        +35b8ef19f1733fad8926242012b69bd87bbfbe84
        > PEXPIRE h 1000000
        :1
        > DEBUG DIGEST
        +70601306f46d46885dbaca93fc7fcddf1dd0bca3
        > DEBUG DIGEST-VALUE
        []
        > DEBUG DIGEST-VALUE a missing
        [+b4fc66738120fba0b5aa500ab5c2bf89cea1c5da, +0000000000000000000000000000000000000000]
        > DEBUG DIGEST-VALUE h
        [+37a278b1093bd332eae0f0578cd769a70d741ab4]
        > SELECT 3
        +OK
        > SET b hello
        +OK
        > DEBUG DIGEST
        +dc8d0fd0aead75716bd6e9e7001e1c0b3219bd6f
        > DEL b
        :1
        > DEBUG DIGEST
        +70601306f46d46885dbaca93fc7fcddf1dd0bca3
        "#,
    );
}

#[test]
fn populate_creates_only_missing_keys() {
    connect_with(&ALLOWED).transcript(
        r#"
        > SET key:1 mine
        +OK
        > DEBUG POPULATE 3
        +OK
        > MGET key:0 key:1 key:2 key:3
        ["value:0", "mine", "value:2", nil]
        > OBJECT ENCODING key:0
        "embstr"
        > DEBUG POPULATE 1 long 10
        +OK
        > GET long:0
        "value:0\x00\x00\x00"
        > DEBUG POPULATE 1 short 3
        +OK
        > GET short:0
        "val"
        > DEBUG POPULATE 0 none
        +OK
        > DBSIZE
        :5
        "#,
    );
}

#[test]
fn populated_keys_survive_kill_9() {
    if skipped_on_redis() {
        return;
    }
    let mut server = Server::start(&ALLOWED);
    let mut c = server.client();
    c.expect("DEBUG POPULATE 1000", "+OK");
    let digest = c.text("DEBUG DIGEST");
    server.restart();
    let mut c = server.client();
    c.expect("DBSIZE", ":1000");
    assert_eq!(c.text("DEBUG DIGEST"), digest);
}

#[test]
fn debug_sleep_blocks_all_access_to_keys() {
    let mut c = connect_with(&ALLOWED);
    let mut other = c.another();
    let woken = AtomicBool::new(false);
    let mut longest = Duration::ZERO;
    thread::scope(|scope| {
        scope.spawn(|| {
            c.expect("DEBUG SLEEP 0.4", "+OK");
            woken.store(true, Ordering::SeqCst);
        });
        while !woken.load(Ordering::SeqCst) {
            let started = Instant::now();
            other.expect("GET k", "nil");
            longest = longest.max(started.elapsed());
        }
    });
    assert!(longest > Duration::from_millis(200), "the longest wait was {longest:?}");
}

#[test]
fn without_active_expiry_an_expired_key_is_hidden_but_still_counted() {
    let mut c = connect_with(&ALLOWED);
    c.expect("DEBUG SET-ACTIVE-EXPIRE 0", "+OK");
    c.expect("SET k v PX 1", "+OK");
    // Nothing must happen, so there is no condition to wait for: some periods of the sweeper pass.
    thread::sleep(Duration::from_millis(350));
    c.expect("DBSIZE", ":1");
    c.expect("EXISTS k", ":0");
    c.expect("SET k v PX 1", "+OK");
    c.expect("DEBUG SET-ACTIVE-EXPIRE 1", "+OK");
    eventually("the key is swept", || c.integer("DBSIZE") == 0);
}

#[test]
fn debug_does_the_same_in_a_transaction_as_alone() {
    let mut c = connect_with(&ALLOWED);
    c.expect("MSET a 1 b 2", "+OK");
    let (all, value) = (c.text("DEBUG DIGEST"), c.reply("DEBUG DIGEST-VALUE a b"));
    c.expect("DEL a", ":1");
    c.expect("MULTI", "+OK");
    for command in [
        "SET a 1",
        "DEBUG DIGEST",
        "DEBUG DIGEST-VALUE a b",
        "DEBUG OBJECT a",
        "DEBUG OBJECT missing",
        "DEBUG SLEEP 0",
        "DEBUG SET-ACTIVE-EXPIRE 1",
        "DEBUG nonsense",
        "INCR b",
    ] {
        c.expect(command, "+QUEUED");
    }
    let replies: Vec<String> = c.reply("EXEC").into_items().iter().map(Reply::to_string).collect();
    assert_eq!(replies[1], format!("+{all}"));
    assert_eq!(replies[2], value.to_string());
    assert!(replies[3].starts_with("+Value at:"), "{}", replies[3]);
    let expected = [
        "-ERR no such key",
        "+OK",
        "+OK",
        "-ERR unknown subcommand or wrong number of arguments for 'nonsense'. Try DEBUG HELP.",
        ":3",
    ];
    assert_eq!(replies[4..], expected);
}

#[test]
fn debug_commands_that_lock_everything_are_refused_in_a_transaction() {
    if skipped_on_redis() {
        return;
    }
    let mut c = connect_with(&ALLOWED);
    c.transcript(
        r#"
        > MULTI
        +OK
        > DEBUG POPULATE 1
        +QUEUED
        > DEBUG RELOAD
        +QUEUED
        > DEBUG LOADAOF
        +QUEUED
        > SET k v
        +QUEUED
        "#,
    );
    let refused = "-ERR Command not allowed inside a transaction";
    c.expect("EXEC", &format!("[{refused}, {refused}, {refused}, +OK]"));
    c.expect("KEYS *", "[\"k\"]");
}

#[test]
fn monitors_do_not_see_debug_commands() {
    let mut c = connect_with(&ALLOWED);
    let mut monitor = c.another();
    monitor.expect("MONITOR", "+OK");
    c.expect("DEBUG SET-ACTIVE-EXPIRE 1", "+OK");
    c.expect("DEBUG OBJECT missing", "-ERR no such key");
    c.reply("ROLE");
    let shown = monitor.read_reply().to_string();
    assert!(shown.contains("ROLE"), "{shown}");
}

#[test]
fn a_digest_ignores_expired_fields_whether_or_not_they_were_removed() {
    if skipped_on_redis() {
        return; // Redis has them since 7.4, and removes expired fields at other times
    }
    let mut c = connect_with(&ALLOWED);
    c.expect("DEBUG SET-ACTIVE-EXPIRE 0", "+OK");
    c.expect("HSET h gone 1 stays 2", ":2");
    c.expect("HPEXPIRE h 1 FIELDS 1 gone", "[:1]");
    eventually("the field expires", || c.integer("HEXISTS h gone") == 0);
    let digests = |c: &mut Client| [c.reply("DEBUG DIGEST"), c.reply("DEBUG DIGEST-VALUE h")];
    let before = digests(&mut c);
    c.expect("HSETNX h stays 3", ":0");
    c.expect("HDEL h missing", ":0"); // a write removes expired fields
    assert_eq!(digests(&mut c), before);
}

#[test]
fn stringmatch_len_shows_whether_a_pattern_matches() {
    if skipped_on_redis() {
        return; // Redis 7.0 does not have it
    }
    let mut c = connect_with(&ALLOWED);
    c.expect("DEBUG STRINGMATCH-LEN a*c abc", ":1");
    c.expect("DEBUG STRINGMATCH-LEN a*d abc", ":0");
}

// ---- RELOAD and LOADAOF ------------------------------------------------------------------------------

/// Writes strings and hashes to two databases, some with an expiry time.
fn fill(c: &mut Client) {
    c.transcript(
        r#"
        > DEBUG POPULATE 1000 key 50
        +OK
        > HSET h a 1 b 2
        :2
        > EXPIRE h 1000
        :1
        > SET timed v PXAT 99999999999999
        +OK
        > SELECT 3
        +OK
        > SET other 5
        +OK
        > APPEND other 6
        :2
        > SELECT 0
        +OK
        "#,
    );
}

#[test]
fn a_reload_keeps_all_data() {
    let mut c = connect_with(&ALLOWED);
    fill(&mut c);
    let digest = c.text("DEBUG DIGEST");
    for command in ["DEBUG RELOAD", "DEBUG RELOAD NOSAVE", "DEBUG RELOAD"] {
        c.expect(command, "+OK");
        assert_eq!(c.text("DEBUG DIGEST"), digest, "after {command}");
    }
    c.transcript(
        r#"
        > DBSIZE
        :1002
        > PEXPIRETIME timed
        :99999999999999
        > SELECT 3
        +OK
        > OBJECT ENCODING other
        "int"
        "#,
    );
}

#[test]
fn loadaof_keeps_all_data_and_expiry_times() {
    if skipped_on_redis() {
        return; // a Redis without a log would exit
    }
    let mut server = Server::start(&ALLOWED);
    let mut c = server.client();
    fill(&mut c);
    c.expect("SET short v PX 300", "+OK");
    let digest = c.text("DEBUG DIGEST");
    c.expect("DEBUG LOADAOF", "+OK");
    assert_eq!(c.text("DEBUG DIGEST"), digest);
    eventually("the sweeper deletes the expired keys", || c.integer("DBSIZE") == 1002);
    let digest = c.text("DEBUG DIGEST");
    server.restart();
    assert_eq!(server.client().text("DEBUG DIGEST"), digest);
}

#[test]
fn no_acknowledged_write_is_lost_while_the_log_is_loaded() {
    if skipped_on_redis() {
        return;
    }
    let mut server = Server::start(&ALLOWED);
    let mut c = server.client();
    fill(&mut c);
    let done = AtomicBool::new(false);
    let counts: Vec<i64> = thread::scope(|scope| {
        let writers: Vec<_> = (0..3)
            .map(|number| {
                let (mut writer, done) = (server.client(), &done);
                scope.spawn(move || {
                    let mut count = 0;
                    while !done.load(Ordering::SeqCst) {
                        count += 1;
                        assert_eq!(writer.integer(&format!("INCR counter:{number}")), count);
                    }
                    count
                })
            })
            .collect();
        for _ in 0..5 {
            c.expect("DEBUG LOADAOF", "+OK");
            c.expect("DEBUG RELOAD", "+OK");
        }
        done.store(true, Ordering::SeqCst);
        writers.into_iter().map(|writer| writer.join().expect("a writer")).collect()
    });
    let check = |c: &mut Client| {
        for (number, count) in counts.iter().enumerate() {
            c.expect(&format!("GET counter:{number}"), &format!("\"{count}\""));
        }
    };
    check(&mut c);
    server.restart();
    check(&mut server.client());
}

#[test]
fn a_log_that_cannot_be_loaded_changes_no_data() {
    if skipped_on_redis() {
        return;
    }
    let server = Server::start(&ALLOWED);
    let mut c = server.client();
    c.expect("SET k v", "+OK");
    let mut log = OpenOptions::new().append(true).open(server.log_path()).expect("open the log");
    log.write_all(b"nonsense\r\n").expect("damage the log");
    let error = c.reply("DEBUG LOADAOF").to_string();
    assert!(error.contains("nothing has changed: damaged at offset"), "{error}");
    c.expect("GET k", "\"v\"");
}

#[test]
fn without_a_log_loadaof_is_an_error() {
    if skipped_on_redis() {
        return;
    }
    let server = Server::start(&[ALLOWED[0], ALLOWED[1], "--appendonly", "no"]);
    let mut c = server.client();
    c.expect("SET k v", "+OK");
    let error = "-ERR There is no log to load from: appendonly is no";
    c.expect("DEBUG LOADAOF", error);
    c.expect("DEBUG RELOAD", error);
    c.expect("GET k", "\"v\"");
}

#[test]
fn debug_protocol_returns_a_value_of_each_type() {
    for (kind, resp2, resp3) in [
        ("string", "$11\r\nHello World\r\n", "$11\r\nHello World\r\n"),
        ("integer", ":12345\r\n", ":12345\r\n"),
        ("double", "$5\r\n3.141\r\n", ",3.141\r\n"),
        ("null", "$-1\r\n", "_\r\n"),
        ("array", "*3\r\n:0\r\n:1\r\n:2\r\n", "*3\r\n:0\r\n:1\r\n:2\r\n"),
        ("set", "*3\r\n:0\r\n:1\r\n:2\r\n", "~3\r\n:0\r\n:1\r\n:2\r\n"),
        (
            "map",
            "*6\r\n:0\r\n:0\r\n:1\r\n:1\r\n:2\r\n:0\r\n",
            "%3\r\n:0\r\n#f\r\n:1\r\n#t\r\n:2\r\n#f\r\n",
        ),
        (
            "attrib",
            "$39\r\nSome real reply following the attribute\r\n",
            "|1\r\n$14\r\nkey-popularity\r\n*2\r\n$7\r\nkey:123\r\n:90\r\n\
             $39\r\nSome real reply following the attribute\r\n",
        ),
        (
            "push",
            "-ERR RESP2 is not supported by this command\r\n",
            "$40\r\nSome real reply following the push reply\r\n\
             >2\r\n$16\r\nserver-cpu-usage\r\n:42\r\n",
        ),
        (
            "verbatim",
            "$25\r\nThis is a verbatim\nstring\r\n",
            "=29\r\ntxt:This is a verbatim\nstring\r\n",
        ),
        ("TRUE", ":1\r\n", "#t\r\n"),
        ("false", ":0\r\n", "#f\r\n"),
    ] {
        let mut c = connect_with(&ALLOWED);
        if !c.redis_at_least("7.2") {
            return; // in older ones a push comes before the reply
        }
        c.exchange(format!("DEBUG PROTOCOL {kind}\r\n"), resp2);
        c.reply("HELLO 3");
        c.exchange(format!("DEBUG PROTOCOL {kind}\r\n"), resp3);
    }
}

#[test]
fn debug_has_commands_for_tests_of_errors_log_lines_lengths_and_buffers() {
    let mut c = connect_with(&ALLOWED);
    c.transcript(
        r#"
        > DEBUG ERROR "MYERR some text"
        -MYERR some text
        > DEBUG ERROR
        -ERR unknown subcommand or wrong number of arguments for 'ERROR'. Try DEBUG HELP.
        > DEBUG LOG "a line"
        +OK
        > DEBUG SDSLEN missing
        -ERR no such key
        > DEBUG PROTOCOL nosuch
        -ERR Wrong protocol type name. Please use one of the following: string|integer|double|bignum|null|array|set|map|attrib|push|verbatim|true|false
        > DEBUG REPLYBUFFER PEAK-RESET-TIME never
        +OK
        > DEBUG REPLYBUFFER RESIZING 1
        +OK
        > DEBUG REPLYBUFFER nosuch 1
        -ERR unknown subcommand or wrong number of arguments for 'REPLYBUFFER'. Try DEBUG HELP.
        > DEBUG PAUSE-CRON 1
        +OK
        > SET old v PX 1
        +OK
        > SET k value
        +OK
        "#,
    );
    let lengths = c.text("DEBUG SDSLEN k");
    assert!(lengths.starts_with("key_sds_len:1, ") && lengths.contains(" val_sds_len:5, "));
    c.expect("DEBUG PAUSE-CRON 0", "+OK");
    eventually("what has expired is removed", || c.integer("DBSIZE") == 1);
}
