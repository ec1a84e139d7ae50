//! Transactions: what MULTI queues and EXEC runs, which changes WATCH notices, and that no client and no
//! crash ever sees half of one.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread;

use crate::harness::{
    Client, Reply, Server, assert_survives_kill_9, connect, encode, eventually, fill, pipeline,
    quote, rewrite, skipped_on_redis, transcript,
};
use crate::rng::Rng;

// ---- Queueing and execution --------------------------------------------------------------------------

#[test]
fn queued_commands_run_in_order_and_their_replies_come_together() {
    transcript(
        r#"
        > MULTI
        +OK
        > SET k 1
        +QUEUED
        > INCR k
        +QUEUED
        > GET k
        +QUEUED
        > HSET h f v
        +QUEUED
        > HGETALL h
        +QUEUED
        > MGET k h missing
        +QUEUED
        other> EXISTS k h
        :0
        > EXEC
        [+OK, :2, "2", :1, ["f", "v"], ["2", nil, nil]]
        other> GET k
        "2"
        > MULTI
        +OK
        > EXEC
        []
        > MULTI
        +OK
        > SET k 9
        +QUEUED
        > DISCARD
        +OK
        > GET k
        "2"
        "#,
    );
}

#[test]
fn multi_cannot_be_nested_and_exec_needs_multi() {
    transcript(
        r#"
        > EXEC
        -ERR EXEC without MULTI
        > DISCARD
        -ERR DISCARD without MULTI
        > MULTI
        +OK
        > MULTI
        -ERR MULTI calls can not be nested
        > WATCH k
        -ERR WATCH inside MULTI is not allowed
        > UNWATCH
        +QUEUED
        > EXEC
        [+OK]
        > EXEC
        -ERR EXEC without MULTI
        > MULTI
        +OK
        > RESET
        +RESET
        > EXEC
        -ERR EXEC without MULTI
        > MULTI
        +OK
        > SET k v
        +QUEUED
        > QUIT
        +OK
        other> EXISTS k
        :0
        "#,
    );
}

#[test]
fn a_command_that_cannot_be_queued_makes_exec_abort() {
    let mut c = connect();
    let refused = [
        ("NOSUCH a", "-ERR unknown command 'NOSUCH', with args beginning with: 'a' "),
        ("GET", "-ERR wrong number of arguments for 'get' command"),
        ("CLIENT NOSUCH", "-ERR unknown subcommand 'NOSUCH'. Try CLIENT HELP."),
        ("MULTI x", "-ERR wrong number of arguments for 'multi' command"),
        ("DISCARD x", "-ERR wrong number of arguments for 'discard' command"),
        ("WATCH", "-ERR wrong number of arguments for 'watch' command"),
        ("SHUTDOWN", "-ERR Command not allowed inside a transaction"),
    ];
    for (command, error) in refused {
        c.expect("MULTI", "+OK");
        c.expect("SET k v", "+QUEUED");
        c.expect(command, error);
        c.expect("SET k v", "+QUEUED");
        c.expect("EXEC", "-EXECABORT Transaction discarded because of previous errors.");
        c.expect("EXISTS k", ":0");
    }
    let abort = "-EXECABORT Transaction discarded because of: ";
    let arity = format!("{abort}wrong number of arguments for 'exec' command");
    c.expect("EXEC x", &arity);
    c.expect("MULTI", "+OK");
    c.expect("EXEC x", &arity);
    c.expect("EXEC", "-ERR EXEC without MULTI");
    c.expect("MULTI", "+OK");
    c.expect("GET", "-ERR wrong number of arguments for 'get' command");
    c.expect("DISCARD", "+OK");
    c.expect("CONFIG SET requirepass secret", "+OK");
    let mut stranger = c.another();
    stranger.expect("EXEC", &format!("{abort}NOAUTH Authentication required."));
    stranger.expect("MULTI", "-NOAUTH Authentication required.");
    c.expect("CONFIG SET requirepass ''", "+OK");
}

#[test]
fn a_failing_command_neither_undoes_nor_stops_the_others() {
    transcript(
        r#"
        > MULTI
        +OK
        > SET k text
        +QUEUED
        > INCR k
        +QUEUED
        > HGET k f
        +QUEUED
        > SELECT 99
        +QUEUED
        > SET other v
        +QUEUED
        > EXEC
        [+OK, -ERR value is not an integer or out of range,
        -WRONGTYPE Operation against a key holding the wrong kind of value,
        -ERR DB index is out of range, +OK]
        > MGET k other
        ["text", "v"]
        "#,
    );
}

#[test]
fn connection_commands_take_effect_in_order() {
    let mut c = connect();
    c.expect("MULTI", "+OK");
    let commands = [
        "PING",
        "ECHO hi",
        "SELECT 1",
        "SET k one",
        "SELECT 0",
        "GET k",
        "HELLO 3",
        "HGETALL none",
        "SET k v NX GET",
        "CLIENT SETNAME me",
        "CLIENT GETNAME",
        "HELLO 2",
        "DBSIZE",
        "SELECT 1",
        "DBSIZE",
    ];
    for command in commands {
        c.expect(command, "+QUEUED");
    }
    let mut replies = c.reply("EXEC").into_items();
    let is_greeting = |reply: &Reply| matches!(reply, Reply::Map(_) | Reply::Array(_));
    assert!(matches!(replies[6], Reply::Map(_)) && matches!(replies[11], Reply::Array(_)));
    replies.retain(|reply| !is_greeting(reply));
    let shown: Vec<String> = replies.iter().map(Reply::to_string).collect();
    let expected =
        ["+PONG", "\"hi\"", "+OK", "+OK", "+OK", "nil", "_", "+OK", "\"me\"", ":1", "+OK", ":1"];
    assert_eq!(shown, expected);
    // The last SELECT remains in effect.
    c.expect("GET k", "\"one\"");
}

#[test]
fn commands_on_the_whole_keyspace_see_the_earlier_commands() {
    let mut c = connect();
    c.expect("MSET a 1 b 2", "+OK");
    c.expect("MULTI", "+OK");
    let steps = [
        ("SET c 3", "+OK"),
        ("DBSIZE", ":3"),
        ("KEYS c", "[\"c\"]"),
        ("SCAN 0 MATCH a COUNT 1000", "[\"0\", [\"a\"]]"),
        ("SWAPDB 0 1", "+OK"),
        ("DBSIZE", ":0"),
        ("RANDOMKEY", "nil"),
        ("SET d 4", "+OK"),
        ("RANDOMKEY", "\"d\""),
        ("FLUSHDB", "+OK"),
        ("GET d", "nil"),
        ("SELECT 1", "+OK"),
        ("MGET a b c", "[\"1\", \"2\", \"3\"]"),
        ("FLUSHALL", "+OK"),
        ("EXISTS a b c", ":0"),
        ("SET e 5", "+OK"),
    ];
    for (command, _) in steps {
        c.expect(command, "+QUEUED");
    }
    let expected: Vec<&str> = steps.iter().map(|(_, reply)| *reply).collect();
    c.expect("EXEC", &format!("[{}]", expected.join(", ")));
    c.expect("MULTI", "+OK");
    c.expect("SET f 6", "+QUEUED");
    c.expect("INFO keyspace", "+QUEUED");
    let replies = c.reply("EXEC").into_items();
    let text = replies[1].clone().into_text();
    assert!(text.contains("db1:keys=2,expires=0"), "{text}");
}

// ---- Watching ----------------------------------------------------------------------------------------

/// EXEC's reply if a watched key has changed, and if none has.
const CHANGED: &str = "nil*";
const UNCHANGED: &str = "[+PONG]";

#[track_caller]
fn expect_exec(c: &mut Client, expected: &str, why: &str) {
    c.expect("MULTI", "+OK");
    c.expect("PING", "+QUEUED");
    assert_eq!(c.reply("EXEC").to_string(), expected, "{why}");
}

#[test]
fn exec_does_nothing_when_a_watched_key_has_changed() {
    transcript(
        r#"
        > SET k 1
        +OK
        > WATCH k another
        +OK
        > MULTI
        +OK
        > SET k 2
        +QUEUED
        other> SET k 3
        +OK
        > SET mine v
        +QUEUED
        > EXEC
        nil*
        > MGET k mine
        ["3", nil]
        // Each EXEC unwatches all keys, even if it is aborted.
        > MULTI
        +OK
        > SET k 4
        +QUEUED
        > EXEC
        [+OK]
        > WATCH k
        +OK
        > MULTI
        +OK
        > EXEC
        []
        other> SET k 5
        +OK
        > MULTI
        +OK
        > GET k
        +QUEUED
        > EXEC
        ["5"]
        // UNWATCH between MULTI and EXEC comes too late.
        > WATCH k another
        +OK
        > MULTI
        +OK
        > UNWATCH
        +QUEUED
        > SET k 5
        +QUEUED
        > EXEC
        [+OK, +OK]
        > WATCH k
        +OK
        other> SET k 5
        +OK
        > MULTI
        +OK
        > UNWATCH
        +QUEUED
        > EXEC
        nil*
        // The client's own change before MULTI counts too.
        > WATCH k
        +OK
        > SET k 6
        +OK
        > MULTI
        +OK
        > EXEC
        nil*
        > WATCH k
        +OK
        other> SET k 7
        +OK
        > UNWATCH
        +OK
        > MULTI
        +OK
        > EXEC
        []
        > WATCH k
        +OK
        other> SET k 8
        +OK
        > MULTI
        +OK
        > DISCARD
        +OK
        > MULTI
        +OK
        > EXEC
        []
        > WATCH k
        +OK
        other> SET k 9
        +OK
        > RESET
        +RESET
        > MULTI
        +OK
        > EXEC
        []
        > WATCH k
        +OK
        other> SET k 9
        +OK
        > MULTI
        +OK
        > GET
        -ERR wrong number of arguments for 'get' command
        > EXEC
        -EXECABORT Transaction discarded because of previous errors.
        "#,
    );
}

#[test]
fn only_commands_that_change_a_watched_key_abort_exec() {
    let mut c = connect();
    let mut other = c.another();
    let cases = [
        ("s", "SET s value", CHANGED),
        ("s", "SET s v XX", CHANGED),
        ("s", "SET s v NX", UNCHANGED),
        ("s", "SETNX s v", UNCHANGED),
        ("none", "SETNX none v", CHANGED),
        ("s", "APPEND s ''", CHANGED),
        ("s", "SETRANGE s 0 ''", UNCHANGED),
        ("s", "SETRANGE s 0 v", CHANGED),
        ("s", "MSETNX s 1 none 2", UNCHANGED),
        ("none", "MSET s 1 none 2", CHANGED),
        ("n", "INCR n", CHANGED),
        ("s", "INCR s", UNCHANGED),
        ("s", "GETEX s", UNCHANGED),
        ("s", "GETEX s EX 100", CHANGED),
        ("s", "GETDEL s", CHANGED),
        ("none", "GETDEL none", UNCHANGED),
        ("s", "EXPIRE s 100", CHANGED),
        ("s", "EXPIRE s 100 XX", UNCHANGED),
        ("s", "PEXPIREAT s 1", CHANGED),
        ("s", "PERSIST s", UNCHANGED),
        ("t", "PERSIST t", CHANGED),
        ("s", "DEL s", CHANGED),
        ("none", "DEL s none", UNCHANGED),
        ("s", "RENAME s s", UNCHANGED),
        ("s", "RENAME s none", CHANGED),
        ("none", "RENAME s none", CHANGED),
        ("s", "COPY s none", UNCHANGED),
        ("none", "COPY s none", CHANGED),
        ("s", "COPY s none DB 1", UNCHANGED),
        ("s", "MOVE s 1", CHANGED),
        ("s", "TOUCH s", UNCHANGED),
        ("h", "HSET h f v", CHANGED),
        ("h", "HMSET h f v", CHANGED),
        ("h", "HSETNX h f v", UNCHANGED),
        ("h", "HDEL h none", UNCHANGED),
        ("h", "HDEL h f", CHANGED),
        ("h", "HINCRBY h f 1", UNCHANGED),
        ("h", "HINCRBY h n 1", CHANGED),
        ("b", "SETBIT b 1 1", UNCHANGED),
        ("b", "SETBIT b 1 0", CHANGED),
        ("b", "BITFIELD b GET u8 0", UNCHANGED),
        ("b", "BITFIELD b SET u8 0 97", UNCHANGED),
        ("b", "BITFIELD b SET u8 0 98", CHANGED),
        ("b", "BITOP NOT none b", UNCHANGED),
        ("none", "BITOP NOT none b", CHANGED),
        ("none", "BITOP NOT none none", UNCHANGED),
        ("p", "PFADD p a", UNCHANGED),
        ("p", "PFADD p z", CHANGED),
        ("p", "PFMERGE none p", UNCHANGED),
        ("none", "PFMERGE none p", CHANGED),
        ("s", "FLUSHDB", CHANGED),
        ("none", "FLUSHALL", UNCHANGED),
        ("s", "SWAPDB 0 1", CHANGED),
        ("none", "SWAPDB 0 1", UNCHANGED),
        ("in1", "SWAPDB 0 1", CHANGED),
        ("s", "SWAPDB 1 2", UNCHANGED),
        ("s", "SWAPDB 0 0", UNCHANGED),
    ];
    for (key, command, expected) in cases {
        let setup = [
            "FLUSHALL",
            "SELECT 1",
            "SET in1 v",
            "SELECT 0",
            "SET s v",
            "SET n 1",
            "SET t v EX 100",
            "HSET h f v",
            "SET b a",
            "PFADD p a b c",
        ];
        setup.iter().for_each(|step| _ = c.reply(step));
        c.expect(&format!("WATCH {key}"), "+OK");
        other.reply(command);
        expect_exec(&mut c, expected, &format!("WATCH {key}, then {command}"));
        // The same in another client's transaction.
        setup.iter().for_each(|step| _ = c.reply(step));
        c.expect(&format!("WATCH {key}"), "+OK");
        other.expect("MULTI", "+OK");
        other.expect(command, "+QUEUED");
        other.reply("EXEC");
        expect_exec(&mut c, expected, &format!("WATCH {key}, then {command} in a transaction"));
    }
}

#[test]
fn a_key_is_watched_in_its_database() {
    transcript(
        r#"
        > WATCH k
        +OK
        other> SELECT 1
        +OK
        other> SET k v
        +OK
        > SELECT 1
        +OK
        > MULTI
        +OK
        > EXEC
        []
        > WATCH k
        +OK
        > SELECT 0
        +OK
        other> SET k v
        +OK
        > MULTI
        +OK
        > EXEC
        nil*
        "#,
    );
}

#[test]
fn a_watched_key_that_expires_has_changed() {
    let mut c = connect();
    let mut other = c.another();
    let watch_a_short_lived_key = |c: &mut Client| {
        eventually("the key is still there when it is watched", || {
            c.expect("UNWATCH", "+OK");
            c.expect("SET k v PX 50", "+OK");
            c.expect("WATCH k", "+OK");
            c.reply("EXISTS k") == Reply::Integer(1)
        });
    };
    watch_a_short_lived_key(&mut c);
    eventually("the key has expired", || other.reply("EXISTS k") == Reply::Integer(0));
    expect_exec(&mut c, CHANGED, "it was there when it was watched");
    // It has changed even if it is created again.
    watch_a_short_lived_key(&mut c);
    eventually("the key has expired", || other.reply("EXISTS k") == Reply::Integer(0));
    other.expect("SET k v", "+OK");
    expect_exec(&mut c, CHANGED, "it is another key of the same name");
    // After it has expired, WATCH watches a missing key.
    c.expect("SET k v PX 20", "+OK");
    eventually("the key has expired", || other.reply("EXISTS k") == Reply::Integer(0));
    c.expect("WATCH k", "+OK");
    other.expect("DEL k", ":0");
    expect_exec(&mut c, UNCHANGED, "it had expired before");
    c.expect("WATCH k", "+OK");
    other.expect("SET k v", "+OK");
    expect_exec(&mut c, CHANGED, "it came back");
}

#[test]
fn an_aborted_exec_replies_with_the_null_of_the_protocol() {
    let mut c = connect();
    c.reply("HELLO 3");
    c.expect("WATCH k", "+OK");
    c.another().expect("SET k v", "+OK");
    expect_exec(&mut c, "_", "RESP3");
}

#[test]
fn client_list_shows_transactions_and_watching() {
    let mut c = connect();
    let mut other = c.another();
    let field = |text: &str, name: &str| {
        let words = text.split_whitespace();
        let found = words.filter_map(|word| word.strip_prefix(name)?.strip_prefix('=')).next();
        found.unwrap_or_default().to_owned()
    };
    let id = c.integer("CLIENT ID");
    let mut shown = |name: &str| field(&other.text(&format!("CLIENT LIST ID {id}")), name);
    assert_eq!((shown("flags"), shown("multi")), ("N".into(), "-1".into()));
    c.expect("WATCH a b", "+OK");
    if c.redis_at_least("7.4") {
        eventually("it watches two keys", || shown("watch") == "2");
    }
    c.expect("MULTI", "+OK");
    c.expect("PING", "+QUEUED");
    eventually("its transaction has begun", || shown("flags") == "x" && shown("multi") == "1");
    c.another().expect("SET a v", "+OK");
    eventually("its transaction will be aborted", || shown("flags") == "xd");
    if c.redis_at_least("7.4") {
        assert_eq!(shown("watch"), "0");
    }
    c.expect("PING", "+QUEUED");
    assert_eq!(shown("multi"), "1", "commands of an aborted transaction are not queued");
    c.expect("EXEC", "nil*");
    c.expect("MULTI", "+OK");
    c.expect("CLIENT INFO", "+QUEUED");
    let info = c.reply("EXEC").into_items()[0].clone().into_text();
    assert_eq!((field(&info, "flags"), field(&info, "multi")), ("x".into(), "1".into()));
    eventually("its transaction has ended", || shown("flags") == "N" && shown("multi") == "-1");
}

#[test]
fn command_info_of_transaction_commands_matches_redis() {
    transcript(
        r#"
        > COMMAND INFO exec watch
        [["exec", :1, [+noscript, +loading, +stale, +skip_slowlog], :0, :0, :0,
        [+@slow, +@transaction], [], [], []],
        ["watch", :-2, [+noscript, +loading, +stale, +fast, +allow_busy], :1, :-1, :1,
        [+@fast, +@transaction], [], [["flags", [+RO], "begin_search",
        ["type", "index", "spec", ["index", :1]], "find_keys",
        ["type", "range", "spec", ["lastkey", :-1, "keystep", :1, "limit", :0]]]], []]]
        sorted> COMMAND LIST FILTERBY ACLCAT transaction
        ["discard", "exec", "multi", "unwatch", "watch"]
        "#,
    );
}

// ---- Concurrency -------------------------------------------------------------------------------------

#[test]
fn increments_of_20_clients_that_watch_what_they_read_sum_up_exactly() {
    const CLIENTS: usize = 20;
    const INCREMENTS: usize = 50;
    let mut c = connect();
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            let mut c = c.another();
            scope.spawn(move || {
                let mut done = 0;
                while done < INCREMENTS {
                    c.expect("WATCH n", "+OK");
                    let n = match c.reply("GET n") {
                        Reply::Bulk(digits) => String::from_utf8(digits).unwrap().parse().unwrap(),
                        _ => 0u64,
                    };
                    c.send_raw(
                        [
                            encode(&["MULTI"]),
                            encode(&["SET", "n", &(n + 1).to_string()]),
                            encode(&["EXEC"]),
                        ]
                        .concat(),
                    );
                    c.read_reply();
                    c.read_reply();
                    done += usize::from(c.read_reply() != Reply::NullArray);
                }
            });
        }
    });
    c.expect("GET n", &quote((CLIENTS * INCREMENTS).to_string().as_bytes()));
}

#[test]
fn of_two_clients_that_watch_each_others_keys_exactly_one_succeeds() {
    let c = connect();
    for round in 0..100 {
        let [a, b] = [format!("a{round}"), format!("b{round}")];
        let attempt = |watched: &str, written: &str| {
            let mut c = c.another();
            c.expect(&format!("WATCH {watched}"), "+OK");
            c.expect("MULTI", "+OK");
            c.expect(&format!("SET {written} v"), "+QUEUED");
            c
        };
        let (mut one, mut other) = (attempt(&a, &b), attempt(&b, &a));
        let done = thread::scope(|scope| {
            let first = scope.spawn(move || one.reply("EXEC") != Reply::NullArray);
            let second = other.reply("EXEC") != Reply::NullArray;
            usize::from(first.join().unwrap()) + usize::from(second)
        });
        assert_eq!(done, 1, "round {round}");
    }
}

#[test]
fn no_client_sees_half_of_a_transaction() {
    let c = connect();
    let running = AtomicBool::new(true);
    thread::scope(|scope| {
        for writer in 0..3 {
            let (mut c, running) = (c.another(), &running);
            scope.spawn(move || {
                let mut round = 0;
                while running.load(SeqCst) {
                    round += 1;
                    let value = format!("{writer}:{round}");
                    let clear: &[&str] = match round % 8 {
                        0 => &["FLUSHDB"],
                        1 => &["SWAPDB", "0", "1"],
                        2 => &["DBSIZE"],
                        _ => &["DEL", "a", "b", "h"],
                    };
                    let commands = [
                        encode(&["MULTI"]),
                        encode(clear),
                        encode(&["SET", "a", &value]),
                        encode(&["SET", "b", &value]),
                        encode(&["HSET", "h", "f", &value]),
                        encode(&["EXEC"]),
                    ];
                    let replies = pipeline(&mut c, &commands);
                    assert!(matches!(replies[5], Reply::Array(_)), "{}", replies[5]);
                }
            });
        }
        let mut readers = Vec::new();
        for reader in 0..3 {
            let mut c = c.another();
            readers.push(scope.spawn(move || {
                for _ in 0..300 {
                    let commands: Vec<Vec<u8>> = match reader {
                        0 => vec![encode(&["MGET", "a", "b"])],
                        1 => ["MULTI", "GET a", "GET b", "HGET h f", "EXEC"]
                            .map(|command| encode(&command.split(' ').collect::<Vec<_>>()))
                            .to_vec(),
                        _ => ["MULTI", "DBSIZE", "EXISTS a b h", "EXEC"]
                            .map(|command| encode(&command.split(' ').collect::<Vec<_>>()))
                            .to_vec(),
                    };
                    let replies = pipeline(&mut c, &commands).pop().unwrap().into_items();
                    let first = &replies[0];
                    assert!(replies.iter().all(|reply| reply == first), "{replies:?}");
                }
            }));
        }
        for reader in readers {
            let result = reader.join();
            running.store(false, SeqCst);
            result.unwrap();
        }
    });
}

// ---- The log -----------------------------------------------------------------------------------------

/// The records that the commands add to the log.
fn logged(server: &Server, commands: &[&str]) -> String {
    let mut c = server.client();
    c.expect("SELECT 0", "+OK");
    c.expect("SET mark v", "+OK");
    let before = fs::read(server.log_path()).unwrap().len();
    commands.iter().for_each(|command| _ = c.reply(command));
    let log = fs::read(server.log_path()).unwrap();
    let text = String::from_utf8(log[before..].to_vec()).unwrap();
    let words = text.split("\r\n").filter(|line| !line.starts_with('$'));
    words.map(|line| if line.starts_with('*') { "|" } else { line }).collect::<Vec<_>>().join(" ")
}

#[test]
fn a_transaction_is_logged_as_one_block() {
    if skipped_on_redis() {
        return;
    }
    let mut server = Server::start(&[]);
    let cases: [(&[&str], &str); 6] = [
        (&["MULTI", "SET a 1", "GET a", "INCR a", "EXEC"], "| MULTI | SET a 1 | INCR a | EXEC "),
        // A single record needs no MULTI and EXEC; a transaction that changes nothing is not logged.
        (&["MULTI", "GET a", "SET a 2", "DEL none", "EXEC"], "| SET a 2 "),
        (&["MULTI", "GET a", "DEL none", "HSET a f v", "EXEC"], ""),
        (&["MULTI", "SET a 3", "DISCARD"], ""),
        (
            &["MULTI", "SET a 4", "SELECT 2", "SET a 5", "DEL none", "SELECT 0", "DEL a", "EXEC"],
            "| MULTI | SET a 4 | SELECT 2 | SET a 5 | SELECT 0 | DEL a | EXEC ",
        ),
        (
            &[
                "SELECT 3",
                "MULTI",
                "SET a 6",
                "FLUSHDB",
                "SELECT 4",
                "SWAPDB 3 5",
                "EXEC",
                "SET b 7",
            ],
            "| SELECT 3 | MULTI | SET a 6 | FLUSHDB | SELECT 4 | SWAPDB 3 5 | EXEC | SET b 7 ",
        ),
    ];
    for (commands, expected) in cases {
        assert_eq!(logged(&server, commands), expected, "{commands:?}");
    }
    // A time to live becomes an expiry time.
    let text = logged(&server, &["MULTI", "SET k v EX 1000", "EXEC"]);
    assert!(text.starts_with("| SET k v PXAT "), "{text}");
    assert_survives_kill_9(&mut server);
    let mut c = server.client();
    c.expect("SELECT 2", "+OK");
    c.expect("GET a", "\"5\"");
    c.expect("SELECT 4", "+OK");
    c.expect("GET b", "\"7\"");
}

/// A transaction that writes the same number everywhere, in several databases, sometimes with a command on
/// the whole keyspace.
fn numbered(id: usize, number: u64) -> Vec<Vec<u8>> {
    let (key, value) = (|kind: &str| format!("{kind}:{id}"), number.to_string());
    let mut commands = vec![
        encode(&["MULTI"]),
        encode(&["SELECT", "0"]),
        encode(&["SET", &key("a"), &value]),
        encode(&["HSET", &key("h"), "f", &value]),
        encode(&["SELECT", "1"]),
        encode(&["SET", &key("a"), &value]),
    ];
    match number % 16 {
        3 => commands.push(encode(&["DBSIZE"])),
        7 => commands.push(encode(&["SWAPDB", "2", "3"])),
        11 => commands.extend([encode(&["SELECT", "4"]), encode(&["FLUSHDB"])]),
        _ => {}
    }
    commands.extend([encode(&["SELECT", "0"]), encode(&["SET", &key("b"), &value])]);
    commands.push(encode(&["EXEC"]));
    commands
}

#[test]
fn a_server_killed_amid_transactions_and_rewrites_never_loads_half_of_one() {
    const CLIENTS: usize = 4;
    const ROUNDS: usize = 8;
    if skipped_on_redis() {
        return;
    }
    let mut server = Server::start(&[]);
    fill(&mut server.client(), 1000);
    let mut random = Rng::of_run();
    let mut known = [0u64; CLIENTS];
    for round in 0..ROUNDS {
        let acknowledged = AtomicU64::new(0);
        let enough = 1 + random.below(600) as u64;
        let asked = thread::scope(|scope| {
            let mut clients = Vec::new();
            for (id, known) in known.iter_mut().enumerate() {
                let (mut c, acknowledged) = (server.client(), &acknowledged);
                clients.push(scope.spawn(move || {
                    for number in *known + 1.. {
                        let commands = numbered(id, number);
                        c.try_send_raw(commands.concat());
                        let replies: Vec<Reply> = commands.iter().map(|_| c.read_reply()).collect();
                        match &replies[commands.len() - 1] {
                            Reply::Closed => return number,
                            Reply::Array(_) => *known = number,
                            other => panic!("{other}"),
                        }
                        acknowledged.fetch_add(1, SeqCst);
                    }
                    0
                }));
            }
            if round % 2 == 1 {
                let mut c = server.client();
                scope.spawn(move || while c.reply("BGREWRITEAOF") != Reply::Closed {});
            }
            eventually("enough is acknowledged", || acknowledged.load(SeqCst) >= enough);
            server.kill_9();
            let asked = clients.into_iter().map(|client| client.join().expect("it ends"));
            asked.collect::<Vec<u64>>()
        });
        server.restart();
        let mut c = server.client();
        for (id, (known, asked)) in known.iter_mut().zip(asked).enumerate() {
            let commands = [
                encode(&["GET", &format!("a:{id}")]),
                encode(&["GET", &format!("b:{id}")]),
                encode(&["HGET", &format!("h:{id}"), "f"]),
                encode(&["SELECT", "1"]),
                encode(&["GET", &format!("a:{id}")]),
                encode(&["SELECT", "0"]),
            ];
            let mut replies = pipeline(&mut c, &commands);
            replies.retain(|reply| !matches!(reply, Reply::Simple(_)));
            assert!(
                replies.iter().all(|reply| *reply == replies[0]),
                "half of a transaction: {replies:?}"
            );
            let found = match &replies[0] {
                Reply::Bulk(digits) => String::from_utf8_lossy(digits).parse().unwrap(),
                _ => 0,
            };
            assert!((*known..=asked).contains(&found), "{found} is not in {known}..={asked}");
            *known = found;
        }
    }
    rewrite(&mut server.client());
    assert_survives_kill_9(&mut server);
}

#[test]
fn a_torn_transaction_is_cut_off_as_a_whole() {
    if skipped_on_redis() {
        return;
    }
    let mut server = Server::start(&[]);
    let mut c = server.client();
    c.expect("SET k 1", "+OK");
    let whole = fs::read(server.log_path()).unwrap().len();
    for command in ["MULTI", "SET k 2", "SELECT 1", "SET k 3", "SELECT 0", "INCR k", "EXEC"] {
        c.reply(command);
    }
    server.kill_9();
    let log = fs::read(server.log_path()).unwrap();
    for length in [whole + 1, whole + 20, log.len() - 20, log.len() - 1] {
        fs::write(server.log_path(), &log[..length]).unwrap();
        server.restart();
        server.client().expect("GET k", "\"1\"");
        assert_eq!(fs::read(server.log_path()).unwrap().len(), whole, "cut at {length}");
        server.kill_9();
    }
}

// ---- Refusals ----------------------------------------------------------------------------------------

#[test]
fn a_log_that_cannot_be_written_refuses_transactions_that_write() {
    if skipped_on_redis() {
        return;
    }
    let server = Server::start(&[]);
    let mut c = server.client();
    c.expect("SET k v", "+OK");
    c.expect("MULTI", "+OK");
    c.expect("SET k w", "+QUEUED");
    fs::remove_file(server.log_path()).unwrap();
    let (misconf, mut probe) = ("MISCONF Errors writing to the AOF file: ", server.client());
    // EXEC is sent only after the server has noticed the missing log; a rewrite may then have written
    // another.
    let refused = |reply: Reply| reply.to_string().contains(misconf);
    fs::create_dir(server.dir().join("storage.aof.rewrite")).unwrap();
    eventually("the server notices the missing log", || refused(probe.reply("SET p v")));
    let abort = format!("-EXECABORT Transaction discarded because of: {misconf}");
    let reply = c.reply("EXEC").to_string();
    assert!(reply.starts_with(&abort), "{reply}");
    c.expect("EXEC", "-ERR EXEC without MULTI");
    c.expect("MULTI", "+OK");
    assert!(refused(c.reply("SET k w")));
    c.expect("EXEC", "-EXECABORT Transaction discarded because of previous errors.");
    c.expect("MULTI", "+OK");
    c.expect("GET k", "+QUEUED");
    c.expect("EXEC", "[\"v\"]");
}

#[test]
fn a_client_that_queues_too_much_is_disconnected() {
    if skipped_on_redis() {
        return;
    }
    let mut c = connect();
    c.expect("CONFIG SET client-query-buffer-limit 1mb", "+OK");
    let mut greedy = c.another();
    greedy.expect("MULTI", "+OK");
    let value = "v".repeat(400_000);
    greedy.expect(&format!("SET k {value}"), "+QUEUED");
    greedy.expect(&format!("SET k {value}"), "+QUEUED");
    assert_eq!(greedy.reply(&format!("SET k {value}")), Reply::Closed);
    c.expect("EXISTS k", ":0");
}
