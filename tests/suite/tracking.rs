//! Client-side caching: which clients are notified of which changes, in which order among replies, and
//! that no cache keeps an old value.

use std::collections::HashMap;
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crate::harness::{
    Client, Reply, Server, connect, connect_with, eventually, skipped_on_redis, split_command,
    transcript, wait_ms,
};
use crate::rng::Rng;

impl Client {
    /// The invalidations that the client has got, each push in brackets: `[a] [b c]`, `[*]` for all keys.
    #[track_caller]
    fn invalidations(&mut self) -> String {
        self.send(&["PING", "fence"]);
        let mut invalidations = Vec::new();
        loop {
            match self.read_reply() {
                Reply::Bulk(_) => return invalidations.join(" "),
                Reply::Array(items) if items.len() == 2 => return invalidations.join(" "), // of a subscriber
                push => invalidations.push(invalidation(push)),
            }
        }
    }

    /// Sends a command and ignores its reply. Returns the invalidations before the reply and after it.
    #[track_caller]
    fn invalidations_around(&mut self, command: &str) -> (String, String) {
        self.send(&split_command(command));
        let mut before = Vec::new();
        loop {
            match self.read_reply() {
                push @ Reply::Push(_) => before.push(invalidation(push)),
                _ => return (before.join(" "), self.invalidations()),
            }
        }
    }

    fn id(&mut self) -> i64 {
        self.integer("CLIENT ID")
    }
}

/// An invalidation, as a push or a message, in the form of [`Client::invalidations`].
#[track_caller]
fn invalidation(push: Reply) -> String {
    let mut items = push.into_items();
    let keys = items.pop().expect("what has changed");
    let kind: Vec<String> = items.into_iter().map(Reply::into_text).collect();
    match (&kind.iter().map(String::as_str).collect::<Vec<_>>()[..], keys) {
        (["tracking-redir-broken"], Reply::Integer(_)) => "[broken]".into(),
        (["invalidate"] | ["message", "__redis__:invalidate"], Reply::Null | Reply::NullBulk) => {
            "[*]".into()
        }
        (["invalidate"] | ["message", "__redis__:invalidate"], keys) => {
            let keys: Vec<String> = keys.into_items().into_iter().map(Reply::into_text).collect();
            format!("[{}]", keys.join(" "))
        }
        (kind, keys) => panic!("not an invalidation: {kind:?} {keys}"),
    }
}

/// A client that speaks RESP3.
fn resp3(c: &Client) -> Client {
    let mut client = c.another();
    client.reply("HELLO 3");
    client
}

/// A client that speaks RESP3 and has tracking enabled.
fn tracking(c: &Client, options: &str) -> Client {
    let mut client = resp3(c);
    client.expect(&format!("CLIENT TRACKING ON {options}"), "+OK");
    client
}

fn flags(client: &mut Client) -> String {
    let info = client.text("CLIENT INFO");
    let field = |name| info.split(' ').find(|field| field.starts_with(name)).unwrap_or_default();
    format!("{} {}", field("flags="), field("redir="))
}

fn totals(c: &mut Client) -> Vec<String> {
    let info = c.text("INFO");
    let totals = info.lines().filter_map(|line| line.strip_prefix("tracking_"));
    totals.map(|line| line.trim().to_owned()).collect()
}

// ---- Which changes -----------------------------------------------------------------------------------

#[test]
fn a_reader_is_notified_once_that_a_key_has_changed() {
    let mut w = connect();
    let mut c = tracking(&w, "");
    let mut other = tracking(&w, "");
    c.expect("MGET a b a", "[_, _, _]");
    other.reply("GET a");
    w.expect("MSET a 1 b 2 a 3", "+OK");
    assert_eq!((c.invalidations(), other.invalidations()), ("[a] [b]".into(), "[a]".into()));
    w.expect("SET a 4", "+OK");
    assert_eq!(c.invalidations(), "", "it has not asked again");
    c.expect("GET a", "\"4\"");
    // The tracking table ignores databases.
    w.expect("SELECT 3", "+OK");
    w.expect("SET a 5", "+OK");
    assert_eq!(c.invalidations(), "[a]");
    c.expect("CLIENT TRACKING OFF", "+OK");
    w.expect("SELECT 0", "+OK");
    c.reply("GET a");
    w.expect("SET a 6", "+OK");
    assert_eq!(c.invalidations(), "");
}

#[test]
fn a_push_names_the_keys_and_null_means_all() {
    let mut w = connect();
    let mut c = tracking(&w, "");
    c.reply("GET \"a\\r\\n\"");
    w.expect("SET \"a\\r\\n\" 1", "+OK");
    c.expect_bytes(">2\r\n$10\r\ninvalidate\r\n*1\r\n$3\r\na\r\n\r\n");
    w.expect("FLUSHDB", "+OK");
    c.expect_bytes(">2\r\n$10\r\ninvalidate\r\n_\r\n");
    w.expect("FLUSHALL ASYNC", "+OK");
    c.expect_bytes(">2\r\n$10\r\ninvalidate\r\n_\r\n");
}

#[test]
fn keys_that_a_read_command_names_are_tracked_and_others_are_not() {
    let mut w = connect_with(&["--enable-debug-command", "yes"]);
    let mut c = resp3(&w);
    for command in [
        "GET x",
        "STRLEN x",
        "GETRANGE x 0 1",
        "SUBSTR x 0 1",
        "LCS x y",
        "MGET y x",
        "TTL x",
        "PTTL x",
        "EXPIRETIME x",
        "TYPE x",
        "EXISTS y x",
        "TOUCH x",
        "OBJECT ENCODING x",
        "OBJECT IDLETIME x",
        "MEMORY USAGE x",
        "BITCOUNT x",
        "GETBIT x 0",
        "BITPOS x 1",
        "BITFIELD_RO x GET u8 0",
        "PFCOUNT x",
        "HGET x f",
        "HMGET x f",
        "HGETALL x",
        "HLEN x",
        "HEXISTS x f",
        "HSCAN x 0",
        "HRANDFIELD x",
        "HSTRLEN x f",
        "GETRANGE x a b",
    ] {
        w.expect("FLUSHALL", "+OK");
        c.expect("CLIENT TRACKING ON", "+OK");
        c.reply(command);
        w.expect("SET x v", "+OK");
        assert_eq!(
            c.invalidations_around("CLIENT TRACKING OFF"),
            ("[x]".into(), String::new()),
            "{command}"
        );
    }
    for command in [
        "GETEX x",
        "GETDEL x",
        "SETNX x v",
        "SET x v GET",
        "APPEND x \"\"",
        "SETRANGE x 0 \"\"",
        "WATCH x",
        "BITFIELD x GET u8 0",
        "BITOP AND z x y",
        "COPY x q",
        "HDEL x f",
        "KEYS *",
        "SCAN 0",
        "RANDOMKEY",
        "DBSIZE",
        "PUBLISH x m",
        "GET x y",
        "PERSIST x",
        "DEBUG OBJECT x",
    ] {
        w.reply("DEL x y z q");
        c.expect("CLIENT TRACKING ON", "+OK");
        c.reply(command);
        c.reply("UNWATCH");
        w.expect("SET x v", "+OK");
        let (before, behind) = c.invalidations_around("CLIENT TRACKING OFF");
        assert_eq!((before.as_str(), behind.as_str()), ("", ""), "{command}");
    }
}

#[test]
fn every_kind_of_change_is_notified() {
    let mut w = connect();
    let mut c = resp3(&w);
    let mut invalidations = |preparation: &str, command: &str| {
        w.expect("FLUSHALL", "+OK");
        w.reply(preparation);
        c.expect("CLIENT TRACKING ON", "+OK");
        c.reply("MGET x y");
        w.reply(command);
        let invalidations = c.invalidations();
        c.expect("CLIENT TRACKING OFF", "+OK");
        invalidations
    };
    for line in "SET x 5 -> [x]
        APPEND x a -> [x]
        SETRANGE x 0 \"\" ->
        SETRANGE x 0 a -> [x]
        SETBIT x 1 0 ->
        SETBIT x 1 1 -> [x]
        INCRBY x 0 -> [x]
        INCRBYFLOAT x 1 -> [x]
        GETEX x ->
        GETEX x PERSIST ->
        GETEX x EX 100 -> [x]
        GETDEL x -> [x]
        GETSET x 1 -> [x]
        EXPIRE x 100 -> [x]
        EXPIRE x -1 -> [x]
        EXPIRE x 100 XX ->
        PERSIST x ->
        RENAME x y -> [x] [y]
        RENAME x x ->
        RENAMENX x y -> [x] [y]
        MOVE x 1 -> [x]
        COPY x y -> [y]
        COPY x x DB 1 -> [x]
        FLUSHDB -> [*]
        FLUSHALL -> [*]
        DEL x -> [x]
        UNLINK x x -> [x]
        SETNX x 1 ->
        MSETNX x 1 y 2 ->
        MSETNX y 1 z 2 -> [y]
        SET x 1 NX ->
        SET x 1 XX -> [x]
        SETEX x 100 a -> [x]
        TOUCH x ->
        HSET x a 1 ->
        HSET y a 1 -> [y]
        PFADD y a -> [y]
        BITOP AND x y -> [x]
        BITFIELD x SET u8 0 255 -> [x]
        BITFIELD x GET u8 0 ->
        BITFIELD x OVERFLOW FAIL INCRBY u2 0 5 ->
        GET nothing ->"
        .lines()
    {
        let (command, expected) = line.trim().split_once(" ->").expect("an arrow");
        assert_eq!(invalidations("SET x 5", command), expected.trim(), "{command}");
    }
    for (command, expected) in [
        ("HSET x f 1", "[x]"),
        ("HSETNX x f 1", ""),
        ("HDEL x g", ""),
        ("HDEL x f", "[x]"),
        ("HINCRBY x f 0", "[x]"),
        ("HINCRBYFLOAT x f 1", "[x]"),
        ("HSET x f 1 g 2 f 3", "[x]"),
        ("HGETALL x", ""),
    ] {
        assert_eq!(invalidations("HSET x f 1", command), expected, "{command}");
    }
    if c.redis_at_least("7.4") {
        let mut invalidations = |command: &str| {
            w.expect("DEL x", ":1");
            w.reply("HSET x f 1 g 2");
            c.expect("CLIENT TRACKING ON", "+OK");
            c.reply("HGETALL x");
            w.reply(command);
            c.invalidations_around("CLIENT TRACKING OFF").0
        };
        for (command, expected) in [
            ("HEXPIRE x 100 FIELDS 1 f", "[x]"),
            ("HEXPIRE x 0 FIELDS 1 f", "[x]"),
            ("HEXPIRE x 100 XX FIELDS 1 f", ""),
            ("HPERSIST x FIELDS 1 f", ""),
        ] {
            assert_eq!(invalidations(command), expected, "{command}");
        }
    }
}

/// Redis up to version 7 does not notify clients, so their caches keep old values.
#[test]
fn swapdb_invalidates_all_keys() {
    if skipped_on_redis() {
        return;
    }
    let mut w = connect();
    let mut c = tracking(&w, "");
    c.reply("GET a");
    w.expect("SWAPDB 1 1", "+OK");
    assert_eq!(c.invalidations(), "");
    w.expect("SWAPDB 0 1", "+OK");
    assert_eq!(c.invalidations(), "[*]");
}

#[test]
fn an_expired_key_is_notified_by_the_sweeper_or_the_command_that_finds_it() {
    let mut w = connect_with(&["--enable-debug-command", "yes"]);
    let mut c = tracking(&w, "");
    let cache = |w: &mut Client, c: &mut Client, changes: &[&str], read: &str| {
        eventually("the value is read before it expires", || {
            changes.iter().for_each(|change| drop(w.reply(change)));
            c.invalidations(); // of what an earlier round has read too late
            c.reply(read) == Reply::Bulk("1".into())
        });
    };
    cache(&mut w, &mut c, &["SET a 1 PX 50"], "GET a");
    assert_eq!(invalidation(c.read_reply()), "[a]");
    if c.redis_at_least("7.4") {
        cache(&mut w, &mut c, &["HSET h f 1 g 2", "HPEXPIRE h 50 FIELDS 1 f"], "HGET h f");
        assert_eq!(invalidation(c.read_reply()), "[h]");
    }
    w.expect("DEBUG SET-ACTIVE-EXPIRE 0", "+OK");
    for meeting in ["GET a", "EXISTS a", "SET a 2", "DEL a", "TTL a"] {
        cache(&mut w, &mut c, &["SET a 1 PX 50"], "GET a");
        wait_ms(50); // no command may look at the key meanwhile
        w.reply(meeting);
        assert_eq!(c.invalidations(), "[a]", "{meeting}");
    }
    w.expect("DEBUG SET-ACTIVE-EXPIRE 1", "+OK");
}

// ---- The order ---------------------------------------------------------------------------------------

#[test]
fn a_clients_own_change_is_notified_after_the_reply() {
    let mut w = connect();
    let mut c = tracking(&w, "");
    c.send_raw("GET a\r\nSET a 1\r\nPING\r\nGET a\r\nINCR a\r\nINCR a\r\nFLUSHALL\r\nPING\r\n");
    for expected in [
        "_",
        "+OK",
        ">[\"invalidate\", [\"a\"]]",
        "+PONG",
        "\"1\"",
        ":2",
        ">[\"invalidate\", [\"a\"]]",
        ":3",
        "+OK",
        ">[\"invalidate\", _]",
        "+PONG",
    ] {
        assert_eq!(c.read_reply().to_string(), expected);
    }
    w.expect("SET a 1", "+OK");
    assert_eq!(c.invalidations(), "");
}

#[test]
fn the_changes_of_a_transaction_are_notified_after_the_reply_of_exec() {
    let mut w = connect();
    let mut c = tracking(&w, "");
    for command in ["MULTI", "GET a", "SET a 1", "GET a", "SET a 2", "SET b 3"] {
        c.reply(command);
    }
    c.expect("EXEC", "[_, +OK, \"1\", +OK, +OK]");
    assert_eq!(c.invalidations(), "[a] [a]");
    for command in ["MULTI", "SET a 3", "GET a"] {
        c.reply(command);
    }
    c.expect("EXEC", "[+OK, \"3\"]");
    assert_eq!(c.invalidations(), "", "it was read after the change");
    c.reply("GET b");
    for command in ["MULTI", "INCR a", "MSET b 1 c 2"] {
        w.reply(command);
    }
    assert_eq!(c.invalidations(), "", "nothing has happened yet");
    w.expect("EXEC", "[:4, +OK]");
    assert_eq!(c.invalidations(), "[a] [b]");
    for command in
        ["MULTI", "CLIENT TRACKING OFF", "GET a", "CLIENT TRACKING ON", "GET b", "MSET a 1 b 1"]
    {
        c.reply(command);
    }
    c.expect("EXEC", "[+OK, \"4\", +OK, \"1\", +OK]");
    assert_eq!(c.invalidations(), "[b]");
}

// ---- Modes -------------------------------------------------------------------------------------------

#[test]
fn optin_tracks_only_the_reads_of_the_next_command_or_transaction() {
    let mut w = connect();
    let mut c = tracking(&w, "OPTIN");
    for (session, expected) in [
        ("GET a", ""),
        ("CLIENT CACHING YES; GET a", "[a]"),
        ("client caching yes; GET b; GET a", ""),
        ("CLIENT CACHING YES; PING; GET a", ""),
        ("CLIENT CACHING YES; NOSUCH; GET a", ""),
        ("CLIENT CACHING YES; GET; GET a", ""),
        ("CLIENT CACHING YES; CLIENT ID; GET a", "[a]"),
        ("CLIENT CACHING YES; MULTI; GET b; GET a; EXEC", "[a]"),
        ("CLIENT CACHING YES; MULTI; EXEC; GET a", ""),
        ("CLIENT CACHING YES; MULTI; NOSUCH; DISCARD; GET a", ""),
        ("MULTI; CLIENT CACHING YES; PING; GET a; EXEC", "[a]"),
        ("MULTI; GET a; CLIENT CACHING YES; EXEC", ""),
        ("MULTI; CLIENT CACHING YES; EXEC; GET a", ""),
        ("CLIENT CACHING YES; CLIENT TRACKING ON OPTIN; GET a", "[a]"),
        ("CLIENT CACHING YES; CLIENT TRACKING OFF; CLIENT TRACKING ON OPTIN; GET a", ""),
    ] {
        session.split("; ").for_each(|command| _ = c.reply(command));
        w.expect("SET a 1", "+OK");
        assert_eq!(c.invalidations(), expected, "{session}");
    }
}

#[test]
fn optout_tracks_all_reads_but_those_of_the_next_command_or_transaction() {
    let mut w = connect();
    let mut c = tracking(&w, "OPTOUT");
    for (session, expected) in [
        ("GET a", "[a]"),
        ("CLIENT CACHING NO; GET a", ""),
        ("CLIENT CACHING no; GET b; GET a", "[a]"),
        ("CLIENT CACHING NO; MULTI; GET b; GET a; EXEC", ""),
    ] {
        session.split("; ").for_each(|command| _ = c.reply(command));
        w.expect("SET a 1", "+OK");
        assert_eq!(c.invalidations(), expected, "{session}");
    }
}

#[test]
fn noloop_suppresses_only_notifications_of_a_clients_own_changes() {
    let mut w = connect();
    let mut c = tracking(&w, "NOLOOP");
    let mut other = tracking(&w, "");
    c.reply("GET a");
    other.reply("GET a");
    c.expect("SET a 1", "+OK");
    assert_eq!((c.invalidations(), other.invalidations()), (String::new(), "[a]".into()));
    w.expect("SET a 2", "+OK");
    assert_eq!(c.invalidations(), "", "its own change has removed the key from the table");
    c.reply("GET a");
    w.expect("SET a 3", "+OK");
    assert_eq!(c.invalidations(), "[a]");
    c.expect("FLUSHALL", "+OK");
    assert_eq!(c.invalidations(), "[*]", "a flush is notified to all clients");
}

#[test]
fn bcast_notifies_of_every_change_even_of_keys_not_read() {
    let mut w = connect();
    let mut c = tracking(&w, "BCAST");
    w.expect("MSET b 1 a 2 b 3", "+OK");
    assert_eq!(c.invalidations(), "[a b]", "each once, in order");
    w.expect("SET a 1", "+OK");
    w.expect("DEL nothing", ":0");
    assert_eq!(c.invalidations(), "[a]");
    c.send(&["SET", "a", "2"]);
    assert_eq!(c.read_reply().to_string(), "+OK");
    assert_eq!(c.invalidations(), "[a]");
    for command in ["MULTI", "SET z 1", "SET b 2"] {
        w.reply(command);
    }
    w.expect("EXEC", "[+OK, +OK]");
    assert_eq!(c.invalidations(), "[b z]", "those of a transaction together");
    w.expect("RENAME z b", "+OK");
    assert_eq!(c.invalidations(), "[b z]");
    w.expect("FLUSHALL", "+OK");
    assert_eq!(c.invalidations(), "[*]");
    w.expect("SET k 1 PX 10", "+OK");
    assert_eq!(invalidation(c.read_reply()), "[k]");
    assert_eq!(invalidation(c.read_reply()), "[k]", "it has expired");
    // Keys that were read before are no longer tracked.
    c.expect("CLIENT TRACKING OFF", "+OK");
    c.expect("CLIENT TRACKING ON", "+OK");
    c.reply("GET a");
    c.expect("CLIENT TRACKING OFF", "+OK");
    c.expect("CLIENT TRACKING ON BCAST PREFIX x", "+OK");
    w.expect("SET a 1", "+OK");
    assert_eq!(c.invalidations(), "");
}

#[test]
fn bcast_with_prefixes_notifies_only_of_keys_with_these() {
    let mut w = connect();
    let mut c = tracking(&w, "BCAST PREFIX a PREFIX bb NOLOOP");
    let mut other = tracking(&w, "BCAST PREFIX bb");
    w.expect("MSET a1 1 b2 2 bb 3 bbb 4 c 5 a 1", "+OK");
    assert_eq!(
        (c.invalidations(), other.invalidations()),
        ("[a a1] [bb bbb]".into(), "[bb bbb]".into())
    );
    c.expect("MSET a 1 bb 1", "+OK");
    assert_eq!((c.invalidations(), other.invalidations()), (String::new(), "[bb]".into()));
    // Further prefixes are added; for the other options, the last command counts.
    c.expect("CLIENT TRACKING ON BCAST PREFIX c", "+OK");
    c.expect(
        "CLIENT TRACKINGINFO",
        "{\"flags\": ~[\"on\", \"bcast\"], \"redirect\": :0, \"prefixes\": [\"a\", \"bb\", \"c\"]}",
    );
    c.expect("MSET a 1 c 1", "+OK");
    assert_eq!(c.invalidations(), "[a] [c]");
    // No prefix means the empty one, although it overlaps with all.
    c.expect("CLIENT TRACKING ON BCAST", "+OK");
    w.expect("SET a 1", "+OK");
    assert_eq!(c.invalidations(), "[a] [a]");
    assert_eq!(totals(&mut w)[3], "total_prefixes:4");
}

#[test]
fn prefixes_of_one_client_must_not_overlap() {
    transcript(
        r#"
        > CLIENT TRACKING ON BCAST PREFIX ab PREFIX c
        +OK
        > CLIENT TRACKING ON BCAST PREFIX a
        -ERR Prefix 'a' overlaps with an existing prefix 'ab'. Prefixes for a single client must not overlap.
        > CLIENT TRACKING ON BCAST PREFIX x PREFIX abc
        -ERR Prefix 'abc' overlaps with an existing prefix 'ab'. Prefixes for a single client must not overlap.
        > CLIENT TRACKING ON BCAST PREFIX c
        -ERR Prefix 'c' overlaps with an existing prefix 'c'. Prefixes for a single client must not overlap.
        > CLIENT TRACKING ON BCAST PREFIX ""
        -ERR Prefix '' overlaps with an existing prefix 'ab'. Prefixes for a single client must not overlap.
        > CLIENT TRACKING ON BCAST PREFIX q PREFIX r PREFIX q1
        -ERR Prefix 'q' overlaps with another provided prefix 'q1'. Prefixes for a single client must not overlap.
        > CLIENT TRACKING ON BCAST PREFIX "x\x00y" PREFIX "x\x00y\r\n"
        -ERR Prefix 'x' overlaps with another provided prefix 'x'. Prefixes for a single client must not overlap.
        > CLIENT TRACKINGINFO
        ["flags", ["on", "bcast"], "redirect", :0, "prefixes", ["ab", "c"]]
        other> CLIENT TRACKING ON BCAST PREFIX a
        +OK
        "#,
    );
}

// ---- Redirection to another connection ---------------------------------------------------------------

#[test]
fn a_resp2_client_is_notified_through_a_subscribed_connection() {
    let mut w = connect();
    let (mut c, mut t) = (w.another(), w.another());
    let mut change = |c: &mut Client| {
        c.reply("GET a");
        w.expect("SET a 1", "+OK");
    };
    c.expect(&format!("CLIENT TRACKING ON REDIRECT {}", t.id()), "+OK");
    change(&mut c);
    t.expect("PING", "+PONG");
    // Any subscription makes it a connection that expects messages.
    for (subscribe, leave) in [
        ("SUBSCRIBE other", "UNSUBSCRIBE"),
        ("SUBSCRIBE __redis__:invalidate", "UNSUBSCRIBE"),
        ("PSUBSCRIBE x*", "PUNSUBSCRIBE"),
        ("SSUBSCRIBE x", "SUNSUBSCRIBE"),
    ] {
        t.reply(subscribe);
        change(&mut c);
        let message = "[\"message\", \"__redis__:invalidate\", [\"a\"]]";
        assert_eq!(t.read_reply().to_string(), message, "{subscribe}");
        t.reply(leave);
        change(&mut c);
        t.expect("PING", "+PONG");
    }
    t.reply("SUBSCRIBE __redis__:invalidate");
    c.expect("FLUSHALL", "+OK");
    assert_eq!(t.read_reply().to_string(), "[\"message\", \"__redis__:invalidate\", nil]");
    c.reply("MGET a b");
    c.expect("MSET a 1 b 2", "+OK");
    assert_eq!(t.invalidations(), "[a] [b]");
    c.expect("PING", "+PONG");
}

#[test]
fn a_resp3_client_can_be_a_target_without_a_subscription() {
    let mut w = connect();
    let (mut c, mut t) = (w.another(), resp3(&w));
    t.expect("SET k v", "+OK");
    let id = t.id();
    c.expect(&format!("CLIENT TRACKING ON REDIRECT {id}"), "+OK");
    assert_eq!(flags(&mut c), format!("flags=t redir={id}"));
    c.expect("CLIENT GETREDIR", &format!(":{id}"));
    c.reply("GET a");
    w.expect("SET a 1", "+OK");
    assert_eq!(invalidation(t.read_reply()), "[a]", "without a subscription");
    c.reply("GET a");
    c.expect("SET a 2", "+OK");
    assert_eq!(t.invalidations(), "[a]");
    c.expect("CLIENT TRACKING OFF", "+OK");
    c.expect(&format!("CLIENT TRACKING ON BCAST PREFIX a REDIRECT {id}"), "+OK");
    w.expect("MSET a1 1 a2 2 b 3", "+OK");
    assert_eq!(t.invalidations(), "[a1 a2]");
    // It may subscribe and unsubscribe itself, and it still gets its replies.
    t.expect("SUBSCRIBE x", ">[\"subscribe\", \"x\", :1]");
    t.expect("UNSUBSCRIBE x", ">[\"unsubscribe\", \"x\", :0]");
    w.expect("SET a 1", "+OK");
    assert_eq!(invalidation(t.read_reply()), "[a]");
    t.expect("GET k", "\"v\"");
    t.expect("QUIT", "+OK");
    t.expect_closed();
}

#[test]
fn a_target_that_was_subscribed_only_briefly_is_notified_at_once() {
    let mut w = connect();
    let moments = [
        "CLIENT TRACKING ON\r\nCLIENT TRACKING OFF",
        "SUBSCRIBE x\r\nUNSUBSCRIBE x",
        "MULTI\r\nSUBSCRIBE x\r\nUNSUBSCRIBE x\r\nUNSUBSCRIBE y\r\nEXEC",
    ];
    for moment in moments {
        let (mut c, mut t) = (w.another(), resp3(&w));
        let id = t.id();
        t.send_raw(format!("{moment}\r\nPING fence\r\n"));
        while t.read_reply() != Reply::Bulk(b"fence".to_vec()) {}
        c.expect(&format!("CLIENT TRACKING ON REDIRECT {id}"), "+OK");
        c.reply("GET a");
        w.expect("SET a 1", "+OK");
        assert_eq!(invalidation(t.read_reply()), "[a]", "{moment}");
    }
}

#[test]
fn a_brief_redirection_does_not_keep_the_socket_of_the_target_open() {
    if skipped_on_redis() || !cfg!(target_os = "linux") {
        return;
    }
    let server = Server::start(&[]);
    let mut c = server.client();
    let sockets = || {
        let all = fs::read_dir(format!("/proc/{}/fd", server.process_id())).expect("its files");
        let targets = all.flatten().filter_map(|file| fs::read_link(file.path()).ok());
        targets.filter(|target| target.to_string_lossy().starts_with("socket:")).count()
    };
    c.expect("PING", "+PONG");
    let before = sockets();
    for _ in 0..10 {
        let mut t = server.client();
        let id = t.id();
        c.send_raw(format!("CLIENT TRACKING ON REDIRECT {id}\r\nCLIENT TRACKING OFF\r\n"));
        c.expect_bytes("+OK\r\n+OK\r\n");
    }
    eventually("the sockets of the targets are closed", || sockets() == before);
}

#[test]
fn notifications_never_interrupt_a_reply_of_the_target() {
    let w = connect();
    let mut t = resp3(&w);
    let long = "x".repeat(100_000);
    t.expect(&format!("SET long {long}"), "+OK");
    let id = t.id();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut c = w.another();
            for round in 0.. {
                c.expect(&format!("CLIENT TRACKING ON BCAST REDIRECT {id}"), "+OK");
                c.expect("SET a 1", "+OK");
                if round % 3 == 0 {
                    c.expect("CLIENT TRACKING OFF", "+OK");
                }
                if stop.load(Ordering::SeqCst) {
                    break;
                }
            }
        });
        for _ in 0..300 {
            t.send_raw("GET long\r\n".repeat(5));
            let mut answers = 0;
            while answers < 5 {
                match t.read_reply() {
                    Reply::Bulk(bytes) => {
                        assert_eq!(bytes.len(), long.len());
                        answers += 1;
                    }
                    push => assert_eq!(invalidation(push), "[a]"),
                }
            }
        }
        stop.store(true, Ordering::SeqCst);
    });
}

#[test]
fn a_redirection_to_a_closed_connection_is_broken() {
    let mut w = connect();
    let mut c = resp3(&w);
    let mut t = resp3(&w);
    let id = t.id();
    c.expect(&format!("CLIENT TRACKING ON REDIRECT {id}"), "+OK");
    c.reply("MGET a b");
    w.expect(&format!("CLIENT KILL ID {id}"), ":1");
    t.expect_closed();
    assert_eq!(
        flags(&mut c),
        format!("flags=t redir={id}"),
        "the broken redirection is not yet noticed"
    );
    w.expect("MSET a 1 b 2", "+OK");
    for _ in 0..2 {
        let expected = format!(">[\"tracking-redir-broken\", :{id}]");
        assert_eq!(c.read_reply().to_string(), expected);
    }
    assert_eq!(flags(&mut c), format!("flags=tR redir={id}"));
    c.expect(
        "CLIENT TRACKINGINFO",
        &format!(
            "{{\"flags\": ~[\"on\", \"broken_redirect\"], \"redirect\": :{id}, \"prefixes\": []}}"
        ),
    );
    w.expect("FLUSHALL", "+OK");
    assert_eq!(c.invalidations(), "[broken]");
    c.reply("GET a");
    c.send(&["SET", "a", "1"]);
    assert_eq!(c.read_reply().to_string(), "+OK");
    assert_eq!(c.invalidations(), "[broken]");
    // In RESP2 there is no push to notify of it.
    c.reply("HELLO 2");
    c.reply("GET a");
    w.expect("SET a 2", "+OK");
    c.expect("PING", "+PONG");
    c.reply("HELLO 3");
    c.expect("CLIENT TRACKING ON", "+OK");
    assert_eq!(flags(&mut c), "flags=t redir=0");
    c.reply("GET a");
    w.expect("SET a 3", "+OK");
    assert_eq!(c.invalidations(), "[a]");
}

#[test]
fn a_redirection_is_broken_as_soon_as_its_target_has_quit() {
    let mut w = connect();
    let mut c = resp3(&w);
    for round in 0..100 {
        let mut t = if round % 2 == 0 { resp3(&w) } else { w.another() };
        let id = t.id();
        if round % 4 == 1 {
            t.expect(
                "SUBSCRIBE __redis__:invalidate",
                "[\"subscribe\", \"__redis__:invalidate\", :1]",
            );
        }
        c.expect(&format!("CLIENT TRACKING ON REDIRECT {id}"), "+OK");
        c.reply("GET a");
        t.expect("QUIT", "+OK");
        w.expect("SET a 1", "+OK");
        assert_eq!(c.read_reply().to_string(), format!(">[\"tracking-redir-broken\", :{id}]"));
        c.expect("CLIENT TRACKING OFF", "+OK");
    }
}

#[test]
fn an_invalidation_follows_the_reply_of_a_transaction_that_stops_tracking() {
    let w = connect();
    let mut c = resp3(&w);
    c.expect("CLIENT TRACKING ON", "+OK");
    c.reply("GET a");
    c.send_raw("MULTI\r\nSET a 1\r\nCLIENT TRACKING OFF\r\nEXEC\r\nPING\r\n");
    let mut read = || c.read_reply().to_string();
    assert_eq!(read(), "+OK");
    assert_eq!((read(), read()), ("+QUEUED".into(), "+QUEUED".into()));
    assert_eq!(read(), "[+OK, +OK]");
    assert_eq!(read(), ">[\"invalidate\", [\"a\"]]");
    assert_eq!(read(), "+PONG");
}

#[test]
fn a_client_may_redirect_to_itself() {
    let mut w = connect();
    let mut c = resp3(&w);
    let id = c.id();
    c.expect(&format!("CLIENT TRACKING ON REDIRECT {id}"), "+OK");
    c.reply("GET a");
    w.expect("SET a 1", "+OK");
    assert_eq!(c.invalidations(), "[a]");
    c.reply("GET a");
    c.send(&["SET", "a", "2"]);
    assert_eq!(c.read_reply().to_string(), "+OK");
    assert_eq!(c.invalidations(), "[a]");
}

// ---- The connection ----------------------------------------------------------------------------------

#[test]
fn bad_and_contradictory_options_are_rejected() {
    transcript(
        r#"
        > CLIENT TRACKING
        -ERR wrong number of arguments for 'client|tracking' command
        > CLIENT TRACKING maybe
        -ERR syntax error
        > CLIENT TRACKING ON NOSUCH
        -ERR syntax error
        > CLIENT TRACKING ON REDIRECT
        -ERR syntax error
        > CLIENT TRACKING ON BCAST PREFIX
        -ERR syntax error
        > CLIENT TRACKING ON REDIRECT x
        -ERR value is not an integer or out of range
        > CLIENT TRACKING ON REDIRECT 0
        -ERR The client ID you want redirect to does not exist
        > CLIENT TRACKING ON REDIRECT -1
        -ERR The client ID you want redirect to does not exist
        > CLIENT TRACKING OFF REDIRECT 999999999
        -ERR The client ID you want redirect to does not exist
        > CLIENT TRACKING ON PREFIX a
        -ERR PREFIX option requires BCAST mode to be enabled
        > CLIENT TRACKING ON BCAST OPTIN
        -ERR OPTIN and OPTOUT are not compatible with BCAST
        > CLIENT TRACKING ON BCAST OPTOUT
        -ERR OPTIN and OPTOUT are not compatible with BCAST
        > CLIENT TRACKING ON OPTIN OPTOUT
        -ERR You can't specify both OPTIN mode and OPTOUT mode
        > CLIENT TRACKINGINFO
        ["flags", ["off"], "redirect", :-1, "prefixes", []]
        > CLIENT TRACKING OFF BCAST PREFIX a OPTIN OPTOUT
        +OK
        > CLIENT TRACKING on noloop optin
        +OK
        > CLIENT TRACKINGINFO
        ["flags", ["on", "optin", "noloop"], "redirect", :0, "prefixes", []]
        > CLIENT CACHING yes
        +OK
        > CLIENT TRACKINGINFO
        ["flags", ["on", "optin", "caching-yes", "noloop"], "redirect", :0, "prefixes", []]
        > PING
        +PONG
        > CLIENT TRACKINGINFO
        ["flags", ["on", "optin", "noloop"], "redirect", :0, "prefixes", []]
        > CLIENT TRACKING ON OPTOUT
        -ERR You can't switch OPTIN/OPTOUT mode before disabling tracking for this client, and then re-enabling it with a different mode.
        > CLIENT TRACKING ON BCAST
        -ERR You can't switch BCAST mode on/off before disabling tracking for this client, and then re-enabling it with a different mode.
        > CLIENT TRACKING ON
        +OK
        > CLIENT TRACKING ON OPTOUT
        +OK
        > CLIENT CACHING NO
        +OK
        > CLIENT TRACKINGINFO
        ["flags", ["on", "optout", "caching-no"], "redirect", :0, "prefixes", []]
        > CLIENT TRACKING ON OPTIN
        -ERR You can't switch OPTIN/OPTOUT mode before disabling tracking for this client, and then re-enabling it with a different mode.
        > CLIENT TRACKING OFF
        +OK
        > CLIENT TRACKING ON BCAST
        +OK
        > CLIENT TRACKING ON
        -ERR You can't switch BCAST mode on/off before disabling tracking for this client, and then re-enabling it with a different mode.
        > CLIENT TRACKING ON BCAST OPTIN
        -ERR OPTIN and OPTOUT are not compatible with BCAST
        > CLIENT TRACKING OFF
        +OK
        > CLIENT TRACKING OFF
        +OK
        > CLIENT GETREDIR
        :-1
        "#,
    );
    let mut c = connect();
    let id = c.another().id();
    let mut other = c.another();
    let id = id.max(other.id());
    c.expect(
        &format!("CLIENT TRACKING ON REDIRECT {id} REDIRECT {id}"),
        "-ERR A client can only redirect to a single other client",
    );
}

#[test]
fn client_caching_needs_optin_or_optout() {
    transcript(
        r#"
        > CLIENT CACHING
        -ERR wrong number of arguments for 'client|caching' command
        > CLIENT CACHING YES NO
        -ERR wrong number of arguments for 'client|caching' command
        > CLIENT CACHING maybe
        -ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT mode enabled
        > CLIENT TRACKING ON
        +OK
        > CLIENT CACHING maybe
        -ERR syntax error
        > CLIENT CACHING YES
        -ERR CLIENT CACHING YES is only valid when tracking is enabled in OPTIN mode.
        > CLIENT CACHING NO
        -ERR CLIENT CACHING NO is only valid when tracking is enabled in OPTOUT mode.
        > CLIENT TRACKING ON OPTIN
        +OK
        > CLIENT CACHING NO
        -ERR CLIENT CACHING NO is only valid when tracking is enabled in OPTOUT mode.
        > CLIENT TRACKING OFF
        +OK
        > CLIENT TRACKING ON OPTOUT
        +OK
        > CLIENT CACHING YES
        -ERR CLIENT CACHING YES is only valid when tracking is enabled in OPTIN mode.
        "#,
    );
}

#[test]
fn a_connection_in_resp2_is_not_notified_but_goes_on_tracking() {
    let mut w = connect();
    let mut c = w.another();
    c.expect("CLIENT TRACKING ON", "+OK");
    c.reply("GET a");
    w.expect("SET a 1", "+OK");
    c.expect("GET a", "\"1\"");
    c.reply("HELLO 3");
    w.expect("SET a 2", "+OK");
    assert_eq!(c.invalidations(), "[a]");
    c.reply("GET a");
    c.reply("HELLO 2");
    w.expect("SET a 3", "+OK");
    c.expect("PING", "+PONG");
}

#[test]
fn client_reply_off_does_not_suppress_invalidations() {
    let mut w = connect();
    let mut c = tracking(&w, "");
    c.reply("GET a");
    c.send(&["CLIENT", "REPLY", "OFF"]);
    c.send(&["SET", "a", "1"]);
    assert_eq!(invalidation(c.read_reply()), "[a]");
    c.send(&["GET", "a"]);
    c.send(&["CLIENT", "REPLY", "SKIP"]);
    c.expect("CLIENT REPLY ON", "+OK");
    w.expect("SET a 2", "+OK");
    assert_eq!(invalidation(c.read_reply()), "[a]");
    c.reply("GET a");
    c.send(&["CLIENT", "REPLY", "SKIP"]);
    c.send(&["SET", "a", "3"]);
    assert_eq!(c.invalidations(), "[a]");
}

#[test]
fn a_half_closed_client_still_gets_all_replies() {
    let w = connect();
    for listening in ["CLIENT TRACKING ON", "SUBSCRIBE x"] {
        for _ in 0..20 {
            let mut c = resp3(&w);
            c.send_raw(format!("{listening}\r\nPING first\r\nPING last\r\n"));
            c.close_sending();
            let replies = [(); 3].map(|()| c.read_reply());
            assert_eq!(replies[2], Reply::Bulk(b"last".to_vec()));
            c.expect_closed();
        }
    }
}

#[test]
fn a_half_closed_client_that_does_not_read_is_listed_and_can_be_killed() {
    if skipped_on_redis() {
        return; // Redis buffers the last replies or drops them
    }
    let mut w = connect();
    w.call(&["SET", "long", &"x".repeat(30_000_000)]);
    for end in ["QUIT", ""] {
        let mut c = tracking(&w, "");
        let id = c.id();
        c.send_raw(format!("GET long\r\nPING\r\n{end}\r\n"));
        c.close_sending();
        let list = format!("CLIENT LIST ID {id}");
        let last = if end.is_empty() { "cmd=ping" } else { "cmd=quit" };
        eventually("its last command has run", || w.text(&list).contains(last));
        thread::sleep(Duration::from_millis(50)); // the test would fail if its thread ended meanwhile
        w.expect(&format!("CLIENT KILL ID {id}"), ":1");
        eventually("it is no longer listed", || w.text(&list).is_empty());
    }
}

#[test]
fn reset_and_disconnecting_end_tracking() {
    let mut w = connect();
    let mut c = tracking(&w, "OPTIN");
    c.expect("CLIENT CACHING YES", "+OK");
    let mut other = tracking(&w, "BCAST PREFIX x PREFIX y");
    assert_eq!(
        (flags(&mut c), flags(&mut other)),
        ("flags=t redir=0".into(), "flags=tB redir=0".into())
    );
    assert_eq!(totals(&mut w)[0], "clients:2");
    c.reply("SUBSCRIBE x");
    assert_eq!(flags(&mut c), "flags=Pt redir=0");
    c.expect("RESET", "+RESET");
    assert_eq!(flags(&mut c), "flags=N redir=-1");
    c.expect("CLIENT TRACKINGINFO", "[\"flags\", [\"off\"], \"redirect\", :-1, \"prefixes\", []]");
    c.expect("GET a", "nil");
    w.expect("SET a 1", "+OK");
    c.expect("PING", "+PONG");
    assert_eq!(totals(&mut w), ["clients:1", "total_keys:0", "total_items:0", "total_prefixes:2"]);
    drop(other);
    eventually("the other has gone", || totals(&mut w)[0] == "clients:0");
    assert_eq!(totals(&mut w)[3], "total_prefixes:0");
}

#[test]
fn a_client_that_does_not_read_its_invalidations_is_disconnected_at_the_normal_limit() {
    let mut w = connect();
    w.expect("CONFIG SET client-output-buffer-limit \"pubsub 1mb 0 0\"", "+OK");
    let mut c = tracking(&w, "BCAST");
    let list = format!("CLIENT LIST ID {}", c.id());
    let change = format!("SET {} 1", "k".repeat(100_000));
    for _ in 0..200 {
        w.expect(&change, "+OK");
    }
    assert_ne!(w.text(&list), "", "by default there is no limit");
    w.expect("CONFIG SET client-output-buffer-limit \"normal 1mb 0 0\"", "+OK");
    eventually("it is disconnected", || {
        w.expect(&change, "+OK");
        w.text(&list).is_empty()
    });
}

// ---- The table ---------------------------------------------------------------------------------------

#[test]
fn the_tracking_table_is_counted_and_limited() {
    let mut w = connect();
    let (mut c, mut other) = (tracking(&w, ""), tracking(&w, ""));
    c.reply("MGET a b c");
    other.reply("MGET b b");
    assert_eq!(totals(&mut w), ["clients:2", "total_keys:3", "total_items:4", "total_prefixes:0"]);
    w.expect("SET b 1", "+OK");
    assert_eq!(totals(&mut w)[1..3], ["total_keys:2", "total_items:2"]);
    w.expect("FLUSHALL", "+OK");
    assert_eq!(totals(&mut w)[1..3], ["total_keys:0", "total_items:0"]);
    c.invalidations();
    let name = "tracking-table-max-keys";
    w.expect(&format!("CONFIG GET {name}"), &format!("[\"{name}\", \"1000000\"]"));
    w.expect(&format!("CONFIG SET {name} 2"), "+OK");
    c.reply("MGET p q r s t");
    let invalidations = c.invalidations();
    assert_eq!(
        invalidations.split(' ').count(),
        3,
        "three of five keys must be evicted: {invalidations}"
    );
    assert_eq!(totals(&mut w)[1], "total_keys:2");
    let kept: Vec<&str> =
        ["p", "q", "r", "s", "t"].into_iter().filter(|key| !invalidations.contains(key)).collect();
    w.expect("MSET p 1 q 1 r 1 s 1 t 1", "+OK");
    assert_eq!(
        c.invalidations(),
        format!("[{}] [{}]", kept[0], kept[1]),
        "the others are still tracked"
    );
    w.expect(&format!("CONFIG SET {name} 0"), "+OK");
    c.reply("MGET p q r s t");
    assert_eq!(c.invalidations(), "");
    w.expect(&format!("CONFIG SET {name} 1"), "+OK");
    w.expect("PING", "+PONG");
    assert_eq!(c.invalidations().split(' ').count(), 4);
}

// ---- No cache keeps an old value ---------------------------------------------------------------------

const KEYS: usize = 40;

fn random_key(random: &mut Rng) -> String {
    format!("k{}", random.below(KEYS))
}

/// The cache of a client.
#[derive(Default)]
struct Cache {
    values: HashMap<String, Reply>,
    hits: u64,
    dropped: u64,
}

impl Cache {
    fn apply(&mut self, push: Reply) {
        let invalidations = invalidation(push);
        let keys = invalidations.trim_matches(['[', ']']);
        self.dropped += 1;
        match keys {
            "*" => self.values.clear(),
            keys => keys.split(' ').for_each(|key| _ = self.values.remove(key)),
        }
    }
}

/// Reads through a cache until `stop`. Returns the cache after all invalidations have arrived.
fn cache(w: &Client, mode: &str, mut random: Rng, [quiet, stop]: [&AtomicBool; 2]) -> Cache {
    let mut c = resp3(w);
    let mut target = (mode == "REDIRECT").then(|| resp3(w));
    let options = match &mut target {
        Some(target) => format!("REDIRECT {}", target.id()),
        None => mode.replace("MULTI", ""),
    };
    c.expect(&format!("CLIENT TRACKING ON {options}"), "+OK");
    let mut cache = Cache::default();
    while !stop.load(Ordering::SeqCst) {
        // A few at once, so that invalidations arrive in the middle of a pipeline.
        let mut asked = Vec::new();
        for _ in 0..=random.below(8) {
            let key = random_key(&mut random);
            if cache.values.contains_key(&key) {
                cache.hits += 1;
                continue;
            }
            match mode {
                "OPTIN" => c.send_raw(format!("CLIENT CACHING YES\r\nGET {key}\r\n")),
                "MULTI" => c.send_raw(format!("MULTI\r\nGET {key}\r\nEXEC\r\n")),
                _ => c.send_raw(format!("GET {key}\r\n")),
            }
            asked.push(key);
        }
        if random.below(20) == 0 && !quiet.load(Ordering::SeqCst) {
            let key = random_key(&mut random);
            let value = random.next_u64();
            c.send_raw(format!("SET {key} {value}\r\n")); // its `+OK` is passed over below
        }
        c.send_raw("PING fence\r\n");
        let mut asked = asked.into_iter();
        loop {
            match c.read_reply() {
                push @ Reply::Push(_) => cache.apply(push),
                Reply::Simple(_) => {}
                Reply::Bulk(bytes) if bytes == b"fence" => break,
                Reply::Array(mut values) => {
                    let key = asked.next().expect("a key that was asked for");
                    cache.values.insert(key, values.pop().expect("a value"));
                }
                value => _ = cache.values.insert(asked.next().expect("a key"), value),
            }
        }
        if let Some(target) = &mut target {
            listen(target, &mut cache);
        }
    }
    // A key may have expired since the last round.
    target.iter_mut().chain([&mut c]).for_each(|client| listen(client, &mut cache));
    cache
}

/// Stops the other threads when one fails.
struct StopOnDrop<'a>([&'a AtomicBool; 2]);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.iter().for_each(|flag| flag.store(true, Ordering::SeqCst));
    }
}

fn listen(client: &mut Client, cache: &mut Cache) {
    client.send_raw("PING fence\r\n");
    loop {
        match client.read_reply() {
            Reply::Bulk(_) => return,
            push => cache.apply(push),
        }
    }
}

#[test]
fn no_cache_keeps_an_old_value() {
    let mut w = connect();
    let modes = ["", "BCAST", "OPTIN", "REDIRECT", "MULTI", ""];
    let (stop, written) = (AtomicBool::new(false), AtomicU64::new(0));
    let quiet = AtomicBool::new(false);
    let mut random = Rng::of_run();
    let caches: Vec<Cache> = thread::scope(|scope| {
        let _end = StopOnDrop([&stop, &quiet]);
        let readers: Vec<_> = modes
            .iter()
            .map(|mode| {
                let (w, random, flags) = (w.another(), random.fork(), [&quiet, &stop]);
                scope.spawn(move || cache(&w, mode, random, flags))
            })
            .collect();
        let writers: Vec<_> = (0..3)
            .map(|_| {
                let (mut c, written, quiet) = (w.another(), &written, &quiet);
                let mut random = random.fork();
                scope.spawn(move || {
                    while !quiet.load(Ordering::SeqCst) {
                        let (key, other) = (random_key(&mut random), random_key(&mut random));
                        let value = written.fetch_add(1, Ordering::SeqCst);
                        let command = match random.below(40) {
                            0..15 => format!("SET {key} {value}"),
                            15..20 => format!("SET {key} {value} PX {}", 1 + random.below(30)),
                            20..23 => format!("DEL {key} {other}"),
                            23..26 => format!("APPEND {key} {value}"),
                            26..29 => format!("MSET {key} {value} {other} {value}"),
                            29..31 => format!("RENAME {key} {other}"),
                            31..33 => format!("COPY {key} {other} REPLACE"),
                            33..35 => format!("PEXPIRE {key} {}", random.below(20)),
                            35..37 => format!("SETRANGE {key} 2 {value}"),
                            37 => format!("MULTI\r\nSET {key} {value}\r\nDEL {other}\r\nEXEC"),
                            38 => format!("GETDEL {key}"),
                            _ if random.below(10) == 0 => "FLUSHALL".into(),
                            _ => format!("PERSIST {key}"),
                        };
                        c.send_raw(format!("{command}\r\n"));
                        (0..command.lines().count()).for_each(|_| _ = c.read_reply());
                    }
                })
            })
            .collect();
        thread::sleep(Duration::from_millis(1500)); // the time for which the clients run
        quiet.store(true, Ordering::SeqCst);
        writers.into_iter().for_each(|writer| writer.join().expect("a writer"));
        eventually("all keys with a time to live have expired", || {
            let info = w.text("INFO keyspace");
            !info.contains("db0") || info.contains("expires=0,")
        });
        stop.store(true, Ordering::SeqCst);
        readers.into_iter().map(|reader| reader.join().expect("a reader")).collect()
    });
    let mut w = resp3(&w);
    for (mode, cache) in modes.iter().zip(caches) {
        assert!(
            cache.hits > 100 && cache.dropped > 100,
            "{mode}: {} {}",
            cache.hits,
            cache.dropped
        );
        for (key, value) in cache.values {
            assert_eq!(value, w.reply(&format!("GET {key}")), "{key} is cached by '{mode}'");
        }
    }
}

#[test]
fn a_transactions_own_invalidations_follow_its_messages() {
    let w = connect();
    let (mut c, mut target) = (resp3(&w), w.another());
    let id = target.id();
    target
        .expect("SUBSCRIBE __redis__:invalidate", "[\"subscribe\", \"__redis__:invalidate\", :1]");
    target.expect("SUBSCRIBE news", "[\"subscribe\", \"news\", :2]");
    c.expect(&format!("CLIENT TRACKING ON REDIRECT {id}"), "+OK");
    c.send_raw("MULTI\r\nGET a\r\nSET a 1\r\nPUBLISH news 1\r\nEXEC\r\n");
    assert_eq!(target.read_reply().to_string(), "[\"message\", \"news\", \"1\"]");
    let invalidation = "[\"message\", \"__redis__:invalidate\", [\"a\"]]";
    assert_eq!(target.read_reply().to_string(), invalidation);
}
