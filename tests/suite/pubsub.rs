//! Messages: which clients get them, in which order, and what happens to clients that do not read them.
//! `MONITOR` is here too, because its lines use the same path.

use std::io::Read;
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{
    Client, Reply, Server, TempDir, connect, eventually, skipped_on_redis, transcript,
};

impl Client {
    /// The next reply or push must be this.
    #[track_caller]
    fn next(&mut self, expected: &str) {
        assert_eq!(self.read_reply().to_string(), expected, "the next reply or push");
    }
}

/// A client that speaks RESP3.
fn resp3(c: &Client) -> Client {
    let mut other = c.another();
    other.reply("HELLO 3");
    other
}

// ---- Subscribing -------------------------------------------------------------------------------------

#[test]
fn a_message_reaches_exactly_the_subscribers_of_its_channel() {
    let mut c = connect();
    let mut old = c.another();
    let mut new = resp3(&c);
    let mut elsewhere = c.another();
    old.expect("SUBSCRIBE news", "[\"subscribe\", \"news\", :1]");
    new.expect("subscribe news", ">[\"subscribe\", \"news\", :1]");
    elsewhere.expect("SUBSCRIBE other", "[\"subscribe\", \"other\", :1]");
    c.expect("PUBLISH news \"hello\\r\\n\"", ":2");
    old.next("[\"message\", \"news\", \"hello\\r\\n\"]");
    new.next(">[\"message\", \"news\", \"hello\\r\\n\"]");
    c.expect("PUBLISH other \"\"", ":1");
    elsewhere.next("[\"message\", \"other\", \"\"]");
    c.expect("PUBLISH nobody x", ":0");
    c.expect("PUBLISH News x", ":0");
    // Channels are independent of databases.
    c.expect("SELECT 3", "+OK");
    c.expect("PUBLISH news 3", ":2");
    old.next("[\"message\", \"news\", \"3\"]");
}

#[test]
fn info_counts_channels_and_patterns_not_subscriptions() {
    let mut c = connect();
    let (mut one, mut other) = (c.another(), c.another());
    one.expect("SUBSCRIBE a", "[\"subscribe\", \"a\", :1]");
    other.expect("SUBSCRIBE a", "[\"subscribe\", \"a\", :1]");
    other.expect("PSUBSCRIBE b*", "[\"psubscribe\", \"b*\", :2]");
    other.expect("SSUBSCRIBE d", "[\"ssubscribe\", \"d\", :1]");
    let stats = c.text("INFO stats");
    for field in ["pubsub_channels:1", "pubsub_patterns:1", "pubsubshard_channels:1"] {
        assert!(stats.contains(&format!("{field}\r\n")), "{field} in {stats}");
    }
    if c.redis_at_least("7.4") {
        assert!(c.text("INFO clients").contains("pubsub_clients:2\r\n"));
    }
}

#[test]
fn subscriptions_are_confirmed_one_by_one_and_counted() {
    let mut c = connect();
    c.expect("SUBSCRIBE a b a", "[\"subscribe\", \"a\", :1]");
    c.next("[\"subscribe\", \"b\", :2]");
    c.next("[\"subscribe\", \"a\", :2]");
    c.transcript(
        r#"
        > PSUBSCRIBE x*
        ["psubscribe", "x*", :3]
        > SSUBSCRIBE s
        ["ssubscribe", "s", :1]
        > UNSUBSCRIBE b
        ["unsubscribe", "b", :2]
        > UNSUBSCRIBE never
        ["unsubscribe", "never", :2]
        > PUNSUBSCRIBE
        ["punsubscribe", "x*", :1]
        > UNSUBSCRIBE
        ["unsubscribe", "a", :0]
        > SUNSUBSCRIBE s
        ["sunsubscribe", "s", :0]
        > UNSUBSCRIBE
        ["unsubscribe", nil, :0]
        > PUNSUBSCRIBE
        ["punsubscribe", nil, :0]
        > SUNSUBSCRIBE
        ["sunsubscribe", nil, :0]
        > UNSUBSCRIBE never
        ["unsubscribe", "never", :0]
        > GET k
        nil
        > SUBSCRIBE
        -ERR wrong number of arguments for 'subscribe' command
        > PSUBSCRIBE
        -ERR wrong number of arguments for 'psubscribe' command
        > SSUBSCRIBE
        -ERR wrong number of arguments for 'ssubscribe' command
        > PUBLISH a
        -ERR wrong number of arguments for 'publish' command
        > SPUBLISH a b c
        -ERR wrong number of arguments for 'spublish' command
        "#,
    );
    let mut new = resp3(&c);
    new.expect("UNSUBSCRIBE", ">[\"unsubscribe\", _, :0]");
}

#[test]
fn a_pattern_gets_the_messages_of_the_channels_it_matches() {
    let mut c = connect();
    let mut s = c.another();
    s.expect("PSUBSCRIBE n?ws.* *.today", "[\"psubscribe\", \"n?ws.*\", :1]");
    s.next("[\"psubscribe\", \"*.today\", :2]");
    c.expect("PUBLISH news.art 1", ":1");
    s.next("[\"pmessage\", \"n?ws.*\", \"news.art\", \"1\"]");
    c.expect("PUBLISH news 1", ":0");
    // A client gets one message for each matching subscription.
    s.expect("SUBSCRIBE news.today", "[\"subscribe\", \"news.today\", :3]");
    c.expect("PUBLISH news.today 2", ":3");
    s.next("[\"message\", \"news.today\", \"2\"]");
    let mut rest = [s.read_reply().to_string(), s.read_reply().to_string()];
    rest.sort();
    assert_eq!(rest[0], "[\"pmessage\", \"*.today\", \"news.today\", \"2\"]");
    assert_eq!(rest[1], "[\"pmessage\", \"n?ws.*\", \"news.today\", \"2\"]");
    let mut new = resp3(&c);
    new.expect("PSUBSCRIBE [a-c]", ">[\"psubscribe\", \"[a-c]\", :1]");
    c.expect("PUBLISH b x", ":1");
    new.next(">[\"pmessage\", \"[a-c]\", \"b\", \"x\"]");
}

#[test]
fn shard_channels_are_separate_channels() {
    let mut c = connect();
    let mut s = c.another();
    s.expect("SSUBSCRIBE a", "[\"ssubscribe\", \"a\", :1]");
    s.expect("SUBSCRIBE a", "[\"subscribe\", \"a\", :1]");
    s.expect("PSUBSCRIBE *", "[\"psubscribe\", \"*\", :2]");
    c.expect("SPUBLISH a shard", ":1");
    s.next("[\"smessage\", \"a\", \"shard\"]");
    c.expect("PUBLISH a all", ":2");
    s.next("[\"message\", \"a\", \"all\"]");
    s.next("[\"pmessage\", \"*\", \"a\", \"all\"]");
    s.expect("SUNSUBSCRIBE", "[\"sunsubscribe\", \"a\", :0]");
    c.expect("SPUBLISH a shard", ":0");
}

#[test]
fn pubsub_counts_channels_patterns_and_subscribers() {
    let mut c = connect();
    let mut one = c.another();
    let mut two = resp3(&c);
    one.send(&["SUBSCRIBE", "a", "b"]);
    one.read_reply();
    one.read_reply();
    two.expect("SUBSCRIBE a", ">[\"subscribe\", \"a\", :1]");
    one.expect("PSUBSCRIBE p*", "[\"psubscribe\", \"p*\", :3]");
    two.expect("PSUBSCRIBE p*", ">[\"psubscribe\", \"p*\", :2]");
    one.expect("SSUBSCRIBE s", "[\"ssubscribe\", \"s\", :1]");
    c.transcript(
        r#"
        sorted> PUBSUB CHANNELS
        ["a", "b"]
        > PUBSUB CHANNELS [b-z]
        ["b"]
        > PUBSUB CHANNELS B
        []
        > PUBSUB NUMSUB
        []
        > PUBSUB NUMSUB a nobody b p*
        ["a", :2, "nobody", :0, "b", :1, "p*", :0]
        > PUBSUB NUMPAT
        :1
        > PUBSUB SHARDCHANNELS
        ["s"]
        > pubsub shardchannels x*
        []
        > PUBSUB SHARDNUMSUB s a
        ["s", :1, "a", :0]
        > PUBSUB SHARDNUMSUB
        []
        > PUBSUB
        -ERR wrong number of arguments for 'pubsub' command
        > PUBSUB NOSUCH
        -ERR unknown subcommand 'NOSUCH'. Try PUBSUB HELP.
        > PUBSUB NUMPAT x
        -ERR wrong number of arguments for 'pubsub|numpat' command
        > PUBSUB channels a b
        -ERR unknown subcommand or wrong number of arguments for 'channels'. Try PUBSUB HELP.
        > PUBSUB SHARDCHANNELS a b
        -ERR unknown subcommand or wrong number of arguments for 'SHARDCHANNELS'. Try PUBSUB HELP.
        "#,
    );
    let help = c.reply("PUBSUB HELP").into_items();
    assert!(help[0].to_string().starts_with("+PUBSUB <subcommand>"), "{}", help[0]);
    // It is an array even in RESP3.
    two.expect("PUBSUB NUMSUB a", "[\"a\", :2]");
    drop(one);
    eventually("the client that left is no longer subscribed", || {
        c.reply("PUBSUB NUMSUB a b").to_string() == "[\"a\", :1, \"b\", :0]"
    });
    c.expect("PUBSUB CHANNELS", "[\"a\"]");
    c.expect("PUBSUB SHARDCHANNELS", "[]");
    drop(two);
    eventually("no pattern is subscribed", || c.reply("PUBSUB NUMPAT") == Reply::Integer(0));
    c.expect("PUBSUB CHANNELS", "[]");
}

// ---- Subscriber mode ---------------------------------------------------------------------------------

#[test]
fn a_resp2_subscriber_may_send_few_commands() {
    for (subscribe, leave) in [
        ("SUBSCRIBE", "UNSUBSCRIBE"),
        ("PSUBSCRIBE", "PUNSUBSCRIBE"),
        ("SSUBSCRIBE", "SUNSUBSCRIBE"),
    ] {
        let mut c = connect();
        c.reply(&format!("{subscribe} a"));
        c.transcript(
            r#"
            > GET k
            -ERR Can't execute 'get': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context
            > HELLO 3
            -ERR Can't execute 'hello': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context
            > client id
            -ERR Can't execute 'client|id': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context
            > PUBLISH a b
            -ERR Can't execute 'publish': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context
            > GET
            -ERR wrong number of arguments for 'get' command
            > CLIENT NOSUCH
            -ERR unknown subcommand 'NOSUCH'. Try CLIENT HELP.
            > PING
            ["pong", ""]
            > PING hello
            ["pong", "hello"]
            "#,
        );
        c.reply(leave);
        c.expect("PING", "+PONG");
        c.expect("GET k", "nil");
    }
}

#[test]
fn a_resp3_subscriber_may_send_any_command() {
    let mut c = connect();
    let mut s = resp3(&c);
    s.expect("SUBSCRIBE a", ">[\"subscribe\", \"a\", :1]");
    s.expect("SET k v", "+OK");
    s.expect("PING", "+PONG");
    s.expect("PING x", "\"x\"");
    c.expect("PUBLISH a 1", ":1");
    s.next(">[\"message\", \"a\", \"1\"]");
    s.expect("GET k", "\"v\"");
    // Back in RESP2, the restrictions apply again.
    s.reply("HELLO 2");
    let error = s.reply("GET k").to_string();
    assert!(error.starts_with("-ERR Can't execute 'get'"), "{error}");
    c.expect("PUBLISH a 2", ":1");
    s.next("[\"message\", \"a\", \"2\"]");
}

#[test]
fn reset_and_quit_end_all_subscriptions() {
    let mut c = connect();
    let mut s = c.another();
    s.expect("SUBSCRIBE a", "[\"subscribe\", \"a\", :1]");
    s.expect("SSUBSCRIBE s", "[\"ssubscribe\", \"s\", :1]");
    s.expect("RESET", "+RESET");
    c.expect("PUBLISH a x", ":0");
    c.expect("SPUBLISH s x", ":0");
    s.expect("GET k", "nil");
    s.expect("SUBSCRIBE a", "[\"subscribe\", \"a\", :1]");
    s.expect("QUIT", "+OK");
    s.expect_closed();
    eventually("the client that quit is no longer subscribed", || {
        c.reply("PUBLISH a x") == Reply::Integer(0)
    });
}

#[test]
fn a_pipeline_may_enter_and_leave_subscriber_mode() {
    let mut c = connect();
    c.send_raw(
        "SET k v\r\nSUBSCRIBE a\r\nPING\r\nGET k\r\nUNSUBSCRIBE\r\nGET k\r\nSUBSCRIBE b\r\nRESET\r\nGET k\r\n",
    );
    c.next("+OK");
    c.next("[\"subscribe\", \"a\", :1]");
    c.next("[\"pong\", \"\"]");
    assert!(matches!(c.read_reply(), Reply::Error(_)));
    c.next("[\"unsubscribe\", \"a\", :0]");
    c.next("\"v\"");
    c.next("[\"subscribe\", \"b\", :1]");
    c.next("+RESET");
    c.next("\"v\"");
}

#[test]
fn client_reply_skip_also_skips_the_reply_of_reset() {
    let mut c = connect();
    c.send_raw("CLIENT REPLY SKIP\r\nRESET\r\nPING\r\nCLIENT REPLY OFF\r\nRESET\r\n");
    c.next("+PONG");
    c.next("+RESET");
}

#[test]
fn a_transaction_may_subscribe_but_not_to_shard_channels() {
    transcript(
        r#"
        > MULTI
        +OK
        > SSUBSCRIBE s
        +QUEUED
        > GET k
        +QUEUED
        > EXEC
        [-ERR SSUBSCRIBE isn't allowed for a DENY BLOCKING client, nil]
        > PUBSUB SHARDCHANNELS
        []
        > MULTI
        +OK
        > SUBSCRIBE a
        +QUEUED
        > EXEC
        [["subscribe", "a", :1]]
        "#,
    );
}

#[test]
fn messages_of_a_transaction_follow_its_reply_even_if_it_unsubscribes() {
    let mut w = connect();
    let mut c = resp3(&w);
    c.send_raw(
        "MULTI\r\nSUBSCRIBE a\r\nPUBLISH a x\r\nUNSUBSCRIBE a\r\nEXEC\r\nPING\r\n\
         MULTI\r\nPSUBSCRIBE a*\r\nPUBLISH a y\r\nPUNSUBSCRIBE\r\nEXEC\r\nPING\r\n",
    );
    c.next("+OK");
    (0..3).for_each(|_| c.next("+QUEUED"));
    c.next("[>[\"subscribe\", \"a\", :1], :1, >[\"unsubscribe\", \"a\", :0]]");
    c.next(">[\"message\", \"a\", \"x\"]");
    c.next("+PONG");
    c.next("+OK");
    (0..3).for_each(|_| c.next("+QUEUED"));
    c.next("[>[\"psubscribe\", \"a*\", :1], :1, >[\"punsubscribe\", \"a*\", :0]]");
    c.next(">[\"pmessage\", \"a*\", \"a\", \"y\"]");
    c.next("+PONG");
    w.expect("PUBLISH a z", ":0");
    c.expect("PING", "+PONG");
}

#[test]
fn client_reply_off_does_not_suppress_messages() {
    let mut c = connect();
    let mut s = resp3(&c);
    s.send_raw("CLIENT REPLY OFF\r\nPING\r\nSUBSCRIBE a\r\nPING\r\nUNSUBSCRIBE x\r\n");
    s.next(">[\"subscribe\", \"a\", :1]");
    s.next(">[\"unsubscribe\", \"x\", :1]");
    c.expect("PUBLISH a x", ":1");
    s.next(">[\"message\", \"a\", \"x\"]");
    s.expect("CLIENT REPLY ON", "+OK");
}

// ---- Order -------------------------------------------------------------------------------------------

#[test]
fn a_message_to_oneself_comes_after_the_reply() {
    let c = connect();
    if !c.redis_at_least("7.2") {
        return;
    }
    let mut c = resp3(&c);
    c.expect("SUBSCRIBE a", ">[\"subscribe\", \"a\", :1]");
    c.send_raw("PUBLISH a 1\r\nPUBLISH a 2\r\nPING\r\n");
    c.next(":1");
    c.next(">[\"message\", \"a\", \"1\"]");
    c.next(":1");
    c.next(">[\"message\", \"a\", \"2\"]");
    c.next("+PONG");
    c.send_raw("SUBSCRIBE b\r\nPUBLISH b 3\r\nUNSUBSCRIBE b\r\nPUBLISH b 4\r\n");
    c.next(">[\"subscribe\", \"b\", :2]");
    c.next(":1");
    c.next(">[\"message\", \"b\", \"3\"]");
    c.next(">[\"unsubscribe\", \"b\", :1]");
    c.next(":0");
}

#[test]
fn every_subscriber_gets_the_messages_of_a_publisher_in_order() {
    const MESSAGES: usize = 5_000;
    let mut c = connect();
    let subscribers: Vec<Client> = (0..4)
        .map(|number| {
            let mut s = if number % 2 == 0 { c.another() } else { resp3(&c) };
            s.reply(if number < 2 { "SUBSCRIBE a" } else { "PSUBSCRIBE ?" });
            s
        })
        .collect();
    let readers: Vec<_> = subscribers
        .into_iter()
        .map(|mut s| {
            thread::spawn(move || {
                for number in 0..MESSAGES {
                    let items = s.read_reply().into_items();
                    let text = items.last().cloned().expect("a message").into_text();
                    assert_eq!(text, number.to_string());
                }
            })
        })
        .collect();
    let messages = (0..MESSAGES).map(|number| format!("PUBLISH a {number}\r\n"));
    c.send_raw(messages.collect::<String>());
    for _ in 0..MESSAGES {
        c.next(":4");
    }
    readers.into_iter().for_each(|reader| reader.join().expect("a subscriber"));
}

#[test]
fn messages_come_only_between_the_subscribe_and_unsubscribe_confirmations() {
    let c = connect();
    let mut publisher = c.another();
    let mut s = c.another();
    let flood = thread::spawn(move || {
        // Publishes until the subscriber sets a key.
        while publisher.reply("GET enough") == Reply::NullBulk {
            publisher.send_raw("PUBLISH a x\r\n".repeat(50));
            (0..50).for_each(|_| drop(publisher.read_reply()));
        }
    });
    for round in 0..200 {
        // All commands at once, or each after some messages.
        if round % 2 == 0 {
            s.send_raw("SUBSCRIBE a\r\nPING\r\nUNSUBSCRIBE a\r\nPING\r\n");
            s.next("[\"subscribe\", \"a\", :1]");
        } else {
            s.expect("SUBSCRIBE a", "[\"subscribe\", \"a\", :1]");
            (0..20).for_each(|_| s.next("[\"message\", \"a\", \"x\"]"));
            s.send_raw("PING\r\nUNSUBSCRIBE a\r\nPING\r\n");
        }
        loop {
            match s.read_reply().to_string().as_str() {
                "[\"message\", \"a\", \"x\"]" | "[\"pong\", \"\"]" => {}
                "[\"unsubscribe\", \"a\", :0]" => break,
                other => panic!("{other}"),
            }
        }
        s.next("+PONG");
    }
    c.another().expect("SET enough 1", "+OK");
    flood.join().expect("the publisher");
}

#[test]
fn replies_and_messages_share_a_connection_without_loss() {
    const COMMANDS: usize = 20_000;
    let mut c = connect();
    let mut s = resp3(&c);
    s.expect("SUBSCRIBE a", ">[\"subscribe\", \"a\", :1]");
    let mut sending = s.sending_half();
    let sender = thread::spawn(move || {
        use std::io::Write;
        let commands = (0..COMMANDS).map(|number| format!("ECHO {number}\r\n"));
        sending.write_all(commands.collect::<String>().as_bytes()).expect("send");
    });
    let messages =
        (0..COMMANDS).map(|number| format!("PUBLISH a {number}\r\n")).collect::<String>();
    let publisher = thread::spawn(move || {
        c.send_raw(messages);
        (0..COMMANDS).for_each(|_| c.next(":1"));
    });
    let (mut replies, mut messages) = (0, 0);
    while replies < COMMANDS || messages < COMMANDS {
        let (count, text) = match s.read_reply() {
            Reply::Push(items) => (&mut messages, items[2].clone().into_text()),
            reply => (&mut replies, reply.into_text()),
        };
        assert_eq!(text, count.to_string());
        *count += 1;
    }
    sender.join().expect("the sender");
    publisher.join().expect("the publisher");
}

// ---- Clients that do not read ------------------------------------------------------------------------

#[test]
fn a_subscriber_that_does_not_read_is_disconnected_and_slows_no_other_client() {
    const SUBSCRIBERS: usize = 99;
    const ROUNDS: usize = 300;
    let mut c = connect();
    c.expect("CONFIG SET client-output-buffer-limit \"pubsub 1mb 0 0\"", "+OK");
    let mut slow = c.another();
    slow.send(&["SUBSCRIBE", "news", "flood"]);
    slow.read_reply();
    slow.read_reply();
    let readers: Vec<_> = (0..SUBSCRIBERS)
        .map(|_| {
            let mut s = c.another();
            s.expect("SUBSCRIBE news", "[\"subscribe\", \"news\", :1]");
            thread::spawn(move || {
                for number in 0..ROUNDS {
                    let expected = format!("[\"message\", \"news\", \"{number}\"]");
                    assert_eq!(s.read_reply().to_string(), expected);
                }
                s
            })
        })
        .collect();
    // The sockets buffer some megabytes; then messages accumulate in the server.
    let flood = "x".repeat(256 << 10);
    let mut longest = Duration::ZERO;
    for number in 0..ROUNDS {
        let started = Instant::now();
        c.call(&["PUBLISH", "flood", &flood]);
        c.call(&["PUBLISH", "news", &number.to_string()]);
        longest = longest.max(started.elapsed());
    }
    c.expect("PUBSUB NUMSUB flood", "[\"flood\", :0]");
    let readers = readers.into_iter().map(|reader| reader.join().expect("a subscriber"));
    let _readers: Vec<Client> = readers.collect();
    c.expect("PUBSUB NUMSUB news", "[\"news\", :99]");
    // It gets what the sockets have buffered, then the end of the connection.
    let mut rest = Vec::new();
    let end = slow.sending_half().read_to_end(&mut rest);
    assert!(end.is_ok() || rest.len() > 1000, "{end:?} after {} bytes", rest.len());
    assert!(longest < Duration::from_secs(5), "a publisher waited for {longest:?}");
}

#[test]
fn a_subscriber_over_the_soft_limit_is_disconnected_in_time_without_further_messages() {
    let mut c = connect();
    c.expect("CONFIG SET client-output-buffer-limit \"pubsub 0 64k 1\"", "+OK");
    let mut slow = c.another();
    slow.expect("SUBSCRIBE flood", "[\"subscribe\", \"flood\", :1]");
    let flood = "x".repeat(1 << 20);
    let started = Instant::now();
    for _ in 0..20 {
        c.call(&["PUBLISH", "flood", &flood]);
    }
    eventually("it is disconnected", || {
        c.reply("PUBSUB NUMSUB flood").to_string() == "[\"flood\", :0]"
    });
    assert!(started.elapsed() > Duration::from_secs(1), "the client was disconnected too soon");
}

#[test]
fn output_buffer_limits_are_set_by_client_class() {
    let mut c = connect();
    c.expect(
        "CONFIG SET client-output-buffer-limit \"normal 0 0 0 replica 256mb 64mb 60 pubsub 32mb 8mb 60\"",
        "+OK",
    );
    c.transcript(
        r#"
        > CONFIG GET client-output-buffer-limit
        ["client-output-buffer-limit", "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60"]
        > CONFIG SET client-output-buffer-limit "PubSub 1mb 1k 3 normal 5 6 7"
        +OK
        > CONFIG GET client-output-buffer-limit
        ["client-output-buffer-limit", "normal 5 6 7 slave 268435456 67108864 60 pubsub 1048576 1000 3"]
        > CONFIG SET client-output-buffer-limit "slave 1 2 3"
        +OK
        > CONFIG SET client-output-buffer-limit ""
        +OK
        > CONFIG SET client-output-buffer-limit foo
        -ERR CONFIG SET failed (possibly related to argument 'client-output-buffer-limit') - Wrong number of arguments in buffer limit configuration.
        > CONFIG SET client-output-buffer-limit "master 1 2 3"
        -ERR CONFIG SET failed (possibly related to argument 'client-output-buffer-limit') - Invalid client class specified in buffer limit configuration.
        > CONFIG SET client-output-buffer-limit "normal 0 0 0 pubsub -1 0 0"
        -ERR CONFIG SET failed (possibly related to argument 'client-output-buffer-limit') - Error in hard, soft or soft_seconds setting in buffer limit configuration.
        > CONFIG SET client-output-buffer-limit "pubsub 1 0 x"
        -ERR CONFIG SET failed (possibly related to argument 'client-output-buffer-limit') - Error in hard, soft or soft_seconds setting in buffer limit configuration.
        > CONFIG GET client-output-buffer-limit
        ["client-output-buffer-limit", "normal 5 6 7 slave 1 2 3 pubsub 1048576 1000 3"]
        "#,
    );
}

#[test]
fn a_reply_beyond_the_limit_closes_the_connection() {
    let mut c = connect();
    let mut other = c.another();
    c.call(&["SET", "large", &"x".repeat(1 << 20)]);
    c.expect("CONFIG SET client-output-buffer-limit \"normal 100k 0 0\"", "+OK");
    other.expect("PING", "+PONG");
    assert_eq!(other.reply("GET large"), Reply::Closed);
    c.expect("PING", "+PONG");
}

#[test]
fn a_killed_subscriber_leaves_nothing_behind() {
    let mut c = connect();
    let mut s = resp3(&c);
    let id = s.integer("CLIENT ID");
    s.expect("SUBSCRIBE a", ">[\"subscribe\", \"a\", :1]");
    s.expect("PSUBSCRIBE a*", ">[\"psubscribe\", \"a*\", :2]");
    s.expect("SSUBSCRIBE s", ">[\"ssubscribe\", \"s\", :1]");
    c.expect(&format!("CLIENT KILL ID {id}"), ":1");
    c.expect("PUBSUB CHANNELS", "[]");
    c.expect("PUBSUB SHARDCHANNELS", "[]");
    c.expect("PUBSUB NUMPAT", ":0");
    c.expect("PUBLISH a x", ":0");
    c.expect(&format!("CLIENT LIST ID {id}"), "\"\"");
    s.expect_closed();
}

#[test]
fn writer_threads_end_with_the_subscriptions() {
    if skipped_on_redis() || !cfg!(target_os = "linux") {
        return;
    }
    let server = Server::start(&[]);
    let mut c = server.client();
    let threads = || {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", server.process_id()));
        tasks.expect("the threads of the server").count()
    };
    c.expect("PING", "+PONG");
    let before = threads();
    c.expect("SUBSCRIBE a", "[\"subscribe\", \"a\", :1]");
    assert_eq!(threads(), before + 1);
    c.expect("UNSUBSCRIBE a", "[\"unsubscribe\", \"a\", :0]");
    eventually("the writer thread has ended", || threads() == before);
    let mut others: Vec<Client> = (0..20).map(|_| server.client()).collect();
    for (number, other) in others.iter_mut().enumerate() {
        other.reply(if number % 2 == 0 { "SUBSCRIBE a" } else { "MONITOR" });
    }
    assert_eq!(threads(), before + 40);
    drop(others);
    eventually("all writer threads have ended", || threads() == before);
}

#[test]
fn no_message_reveals_a_write_that_kill_9_undoes() {
    if skipped_on_redis() {
        return;
    }
    for appendfsync in ["everysec", "always"] {
        let mut server = Server::start_in(TempDir::new(), &["--appendfsync", appendfsync]);
        for round in 0..10 {
            let mut s = server.client();
            let mut monitor = server.client();
            s.expect("SUBSCRIBE done", "[\"subscribe\", \"done\", :1]");
            let shown = if round % 2 == 0 {
                monitor.expect("MONITOR", "+OK");
                &mut monitor
            } else {
                &mut s
            };
            // The rest of the pipeline keeps the publisher from replying, and so from flushing the log
            // for its reply.
            let mut publisher = server.client();
            let more = "INCR busy\r\n".repeat(1000);
            publisher.send_raw(format!("SET k {round}\r\nPUBLISH done {round}\r\n{more}"));
            shown.read_reply();
            server.kill_9();
            server.restart();
            server.client().expect("GET k", &format!("\"{round}\""));
        }
    }
}

#[test]
fn no_client_learns_of_a_transaction_that_kill_9_undoes() {
    if skipped_on_redis() {
        return;
    }
    let flags = ["--appendfsync", "always", "--notify-keyspace-events", "KA"];
    let mut server = Server::start_in(TempDir::new(), &flags);
    for (round, listen) in ["SUBSCRIBE a", "SSUBSCRIBE a", "SUBSCRIBE __keyspace@0__:k", "MONITOR"]
        .iter()
        .cycle()
        .take(8)
        .enumerate()
    {
        let mut listener = server.client();
        listener.reply(listen);
        // Long, so that an event sent at its start would arrive before the transaction is in the log.
        let more = "INCR busy\r\n".repeat(20_000);
        let session =
            format!("MULTI\r\nSET k {round}\r\nPUBLISH a x\r\nSPUBLISH a x\r\n{more}EXEC\r\n");
        let mut publisher = server.client();
        publisher.send_raw(session);
        loop {
            let shown = listener.read_reply().to_string();
            if !shown.contains("MULTI") {
                break;
            }
        }
        server.kill_9();
        server.restart();
        server.client().expect("GET k", &format!("\"{round}\""));
    }
}

#[test]
fn events_of_a_transaction_are_sent_in_the_order_of_its_commands() {
    let mut c = connect();
    c.expect("CONFIG SET notify-keyspace-events KA", "+OK");
    let (mut listener, mut monitor) = (c.another(), c.another());
    listener.expect("PSUBSCRIBE *", "[\"psubscribe\", \"*\", :1]");
    let mut others = c.another();
    others.expect("SUBSCRIBE b", "[\"subscribe\", \"b\", :1]");
    monitor.expect("MONITOR", "+OK");
    c.transcript(
        r#"
        > MULTI
        +OK
        > SET k 1
        +QUEUED
        > PUBLISH a 1
        +QUEUED
        > APPEND k 2
        +QUEUED
        > PUBLISH b 2
        +QUEUED
        > PUBLISH a 3
        +QUEUED
        > EXEC
        [+OK, :1, :2, :2, :1]
        "#,
    );
    let keyspace = "__keyspace@0__:k";
    for (channel, message) in
        [(keyspace, "set"), ("a", "1"), (keyspace, "append"), ("b", "2"), ("a", "3")]
    {
        listener.next(&format!("[\"pmessage\", \"*\", \"{channel}\", \"{message}\"]"));
    }
    others.next("[\"message\", \"b\", \"2\"]");
    for line in ["MULTI", "SET", "PUBLISH", "APPEND", "PUBLISH", "PUBLISH", "EXEC"] {
        let shown = shown(&mut monitor, &c);
        assert!(shown.starts_with(&format!("[0 <addr>] \"{line}\"")), "{shown}");
    }
}

// ---- MONITOR -----------------------------------------------------------------------------------------

/// A line of MONITOR without its time, whose form is checked, and with `<addr>` for the client's address.
#[track_caller]
fn shown(monitor: &mut Client, of: &Client) -> String {
    let Reply::Simple(line) = monitor.read_reply() else { panic!("not a line") };
    let (time, rest) = line.split_once(' ').expect("a time");
    let (seconds, micros) = time.split_once('.').expect("a fraction");
    assert!(seconds.parse::<u64>().is_ok() && micros.len() == 6 && micros.parse::<u32>().is_ok());
    rest.replace(&of.local_address().to_string(), "<addr>")
}

#[test]
fn a_monitor_gets_every_command_with_its_database_and_sender() {
    let mut c = connect();
    let mut monitor = c.another();
    monitor.expect("MONITOR", "+OK");
    for (command, line) in [
        ("SET k \"a b\"", "[0 <addr>] \"SET\" \"k\" \"a b\""),
        (
            "set k \"\\x00\\n\\r\\t\\a\\b\\x7f\\xc3\\\"\\\\\"",
            "[0 <addr>] \"set\" \"k\" \"\\x00\\n\\r\\t\\a\\b\\x7f\\xc3\\\"\\\\\"",
        ),
        ("HGET k f", "[0 <addr>] \"HGET\" \"k\" \"f\""), // though it fails
        ("SELECT 3", "[3 <addr>] \"SELECT\" \"3\""),
        ("DBSIZE", "[3 <addr>] \"DBSIZE\""),
        ("FLUSHDB", "[3 <addr>] \"FLUSHDB\""),
        ("CLIENT ID", "[3 <addr>] \"CLIENT\" \"ID\""),
        ("PUBLISH a \"\"", "[3 <addr>] \"PUBLISH\" \"a\" \"\""),
        ("AUTH default secret", "[3 <addr>] \"AUTH\" \"(redacted)\" \"(redacted)\""),
        ("AUTH secret", "[3 <addr>] \"AUTH\" \"(redacted)\""),
        (
            "HELLO 2 auth default secret SETNAME me",
            "[3 <addr>] \"HELLO\" \"2\" \"auth\" \"(redacted)\" \"(redacted)\" \"SETNAME\" \"me\"",
        ),
        ("RESET", "[0 <addr>] \"RESET\""),
    ] {
        // Not shown: commands for administrators, and commands that are refused before they run.
        for hidden in ["CONFIG GET port", "CLIENT LIST", "CLIENT KILL ID 999999", "GET", "NOSUCH"] {
            c.reply(hidden);
        }
        c.reply(command);
        assert_eq!(shown(&mut monitor, &c), line);
    }
}

#[test]
fn a_transaction_does_not_make_its_client_a_monitor() {
    transcript(
        r#"
        > MULTI
        +OK
        > MONITOR
        +QUEUED
        > PING
        +QUEUED
        > EXEC
        [-ERR MONITOR isn't allowed for DENY BLOCKING client, +PONG]
        > SET k v
        +OK
        "#,
    );
}

#[test]
fn a_monitor_gets_its_own_commands_after_their_replies() {
    let mut c = connect();
    c.expect("MONITOR", "+OK");
    c.send_raw("PING\r\nECHO x\r\nMONITOR\r\n");
    let sees = |c: &mut Client, command: &str| {
        let Reply::Simple(line) = c.read_reply() else { panic!("not a line") };
        assert!(line.ends_with(command), "{line}");
    };
    c.next("+PONG");
    sees(&mut c, "\"PING\"");
    c.next("\"x\"");
    sees(&mut c, "\"ECHO\" \"x\"");
    for command in ["GET k", "SET k v", "DBSIZE", "FLUSHALL", "PUBLISH a b"] {
        c.expect(command, "-ERR Replica can't interact with the keyspace");
    }
    let info = c.text("CLIENT INFO");
    assert!(info.contains(" flags=O "), "{info}");
    sees(&mut c, "\"CLIENT\" \"INFO\"");
    c.expect("RESET", "+RESET");
    let mut other = c.another();
    other.expect("GET k", "nil");
    c.expect("GET k", "nil");
    c.expect("MONITOR x", "-ERR wrong number of arguments for 'monitor' command");
}

#[test]
fn monitors_get_the_commands_on_a_key_in_the_order_of_execution() {
    let c = connect();
    let mut monitor = c.another();
    monitor.expect("MONITOR", "+OK");
    let writers: Vec<_> = (0..4)
        .map(|_| {
            let mut writer = c.another();
            thread::spawn(move || (0..200).for_each(|_| drop(writer.reply("APPEND k x"))))
        })
        .collect();
    let mut reader = c.another();
    let reading =
        thread::spawn(move || (0..200).map(|_| reader.integer("STRLEN k")).collect::<Vec<i64>>());
    let (mut length, mut lengths) = (0, Vec::new());
    for _ in 0..1000 {
        let Reply::Simple(line) = monitor.read_reply() else { panic!("not a line") };
        if line.contains("APPEND") {
            length += 1;
        } else {
            lengths.push(length);
        }
    }
    writers.into_iter().for_each(|writer| writer.join().expect("a writer"));
    assert_eq!(reading.join().expect("the reader"), lengths);
}

#[test]
fn a_monitor_that_does_not_read_is_disconnected() {
    // In Redis a monitor has no limit by default, so the test sets one.
    if skipped_on_redis() {
        return;
    }
    let mut c = connect();
    c.expect("CONFIG SET client-output-buffer-limit \"pubsub 1mb 0 0\"", "+OK");
    let mut slow = c.another();
    slow.expect("MONITOR", "+OK");
    let mut other = c.another();
    let large = "x".repeat(256 << 10);
    eventually("it is disconnected", || {
        other.call(&["ECHO", &large]);
        !c.text("CLIENT LIST").contains("flags=O")
    });
}

#[test]
fn command_info_of_publish_matches_redis() {
    transcript(
        r#"
        > COMMAND INFO publish
        [["publish", :3, [+pubsub, +loading, +stale, +fast], :0, :0, :0, [+@pubsub, +@fast], [], [], []]]
        > COMMAND GETKEYS SPUBLISH channel message
        -ERR The command has no key arguments
        > COMMAND GETKEYS SUBSCRIBE channel
        -ERR The command has no key arguments
        "#,
    );
}

#[test]
fn no_pattern_but_the_empty_one_matches_a_channel_without_a_name() {
    let mut c = connect();
    let mut listener = c.another();
    listener.expect("PSUBSCRIBE *", r#"["psubscribe", "*", :1]"#);
    c.expect("PUBLISH \"\" m", ":0");
    listener.expect("PSUBSCRIBE \"\"", r#"["psubscribe", "", :2]"#);
    listener.expect("SUBSCRIBE \"\"", r#"["subscribe", "", :3]"#);
    c.expect("PUBLISH \"\" m", ":2");
    c.expect("PUBSUB CHANNELS *", "[]");
    c.expect("PUBSUB CHANNELS", "[\"\"]");
    c.expect("PUBSUB CHANNELS \"\"", "[\"\"]");
}
