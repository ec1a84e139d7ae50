//! Keyspace events: those of every command, in which order, and on which channels.

use crate::harness::{Client, Reply, connect, connect_with, eventually, unix_now_ms, wait_ms};

/// Runs the commands. Returns for each the events that are published, as `name key`, followed by the
/// database if it is not the first.
fn events_of(c: &mut Client, commands: &[&str]) -> Vec<String> {
    let mut listener = c.another();
    listener.reply("PSUBSCRIBE __keyevent@*");
    listener.expect("SUBSCRIBE end", "[\"subscribe\", \"end\", :2]");
    let mut all = Vec::new();
    for command in commands {
        c.reply(command);
        all.push(format!("> {command}"));
    }
    // At least one: the server may not have noticed yet that the previous listener has left.
    assert!(c.integer("PUBLISH end x") >= 1);
    let mut published = Vec::new();
    loop {
        let parts: Vec<String> =
            listener.read_reply().into_items().into_iter().map(Reply::into_text).collect();
        match &parts[..] {
            [_, _, channel, key] => {
                let (db, name) = channel["__keyevent@".len()..].split_once("__:").unwrap();
                let db = if db == "0" { String::new() } else { format!(" {db}") };
                published.push(format!("{name} {key}{db}"));
            }
            _ => return published,
        }
    }
}

/// A client of a server that publishes these events.
fn connect_for(classes: &str) -> Client {
    let mut c = connect();
    c.expect(&format!("CONFIG SET notify-keyspace-events {classes}"), "+OK");
    c
}

/// Runs each command and checks the events that are published.
#[track_caller]
fn expect_events(c: &mut Client, session: &str) {
    for line in session.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (command, expected) = line.split_once(" -> ").unwrap_or((line, ""));
        let published = events_of(c, &[command]).join(", ");
        assert_eq!(published, expected.trim(), "after {command}");
    }
}

#[test]
fn the_setting_is_normalized_and_rejects_unknown_letters() {
    let mut c = connect();
    for (given, shown) in
        [("KEA", "AKE"), ("xg$K", "g$xK"), ("EKmn", "nKEm"), ("g$lshzxetdE", "AE"), ("\"\"", "")]
    {
        c.expect(&format!("CONFIG SET notify-keyspace-events {given}"), "+OK");
        let expected = format!("[\"notify-keyspace-events\", \"{shown}\"]");
        c.expect("CONFIG GET notify-keyspace-events", &expected);
    }
    c.expect(
        "CONFIG SET notify-keyspace-events KEq",
        "-ERR CONFIG SET failed (possibly related to argument 'notify-keyspace-events') - Invalid event \
         class character. Use 'Ag$lshzxeKEtmdn'.",
    );
}

#[test]
fn an_event_is_published_on_the_channel_of_the_key_and_of_the_event() {
    let mut c = connect_for("KEA");
    let mut listener = c.another();
    listener.reply("PSUBSCRIBE __key*");
    c.expect("SELECT 3", "+OK");
    c.expect("SET k v", "+OK");
    for message in [["__keyspace@3__:k", "set"], ["__keyevent@3__:set", "k"]] {
        let [channel, text] = message;
        let expected = format!("[\"pmessage\", \"__key*\", \"{channel}\", \"{text}\"]");
        assert_eq!(listener.read_reply().to_string(), expected);
    }
}

#[test]
fn only_the_classes_in_the_setting_are_published() {
    let mut c = connect_for("\"\"");
    expect_events(&mut c, "SET k v");
    c.expect("CONFIG SET notify-keyspace-events A", "+OK");
    expect_events(&mut c, "SET k v");
    c.expect("CONFIG SET notify-keyspace-events Eg", "+OK");
    expect_events(&mut c, "SET k v EX 100 -> expire k");
    c.expect("CONFIG SET notify-keyspace-events E$", "+OK");
    expect_events(&mut c, "SET k v EX 100 -> set k\nGET nothing\nDEL k");
}

#[test]
fn commands_on_strings_publish_their_events() {
    let mut c = connect_for("EAnm");
    expect_events(
        &mut c,
        "SET s v -> new s, set s
        SET s v EX 100 -> set s, expire s
        SET s v KEEPTTL -> set s
        SET s v NX
        SET g v GET -> keymiss g, new g, set g
        SETNX n v -> new n, set n
        SETNX n v
        PSETEX n 100000 v -> set n, expire n
        GETSET m v -> keymiss m, new m, set m
        GETDEL m -> del m
        GETDEL m -> keymiss m
        GETEX n
        GETEX n EX 100 -> expire n
        GETEX n PERSIST -> persist n
        GETEX n PERSIST
        GETEX n EXAT 1 -> del n
        MSET a 1 b 2 a 3 -> new a, set a, new b, set b, set a
        MSETNX a 1 z 2
        APPEND a x -> append a
        INCR i -> new i, incrby i
        DECRBY i 0 -> incrby i
        INCRBYFLOAT i 1.5 -> incrbyfloat i
        INCR i
        SETRANGE i 0 z -> setrange i
        SETRANGE i 0 \"\"
        SETBIT bit 7 1 -> new bit, setbit bit
        SETBIT bit 7 1
        BITFIELD bit SET u8 0 255 -> setbit bit
        BITFIELD bits OVERFLOW FAIL INCRBY u2 0 5 -> new bits
        BITOP OR to bit no -> keymiss no, new to, set to
        BITOP OR to no -> keymiss no, del to
        PFADD p a -> new p, pfadd p
        PFADD p a
        PFCOUNT p no -> keymiss no
        PFMERGE q p -> keymiss q, new q, pfadd q",
    );
}

#[test]
fn commands_on_hashes_publish_their_events_and_the_deletion_of_an_empty_hash() {
    let mut c = connect_for("EAnm");
    expect_events(
        &mut c,
        "HSET h a 1 b 2 -> new h, hset h
        HMSET h a 1 -> hset h
        HSETNX h c 3 -> hset h
        HSETNX h c 3
        HINCRBY h a 1 -> hincrby h
        HINCRBYFLOAT h a 1.5 -> hincrbyfloat h
        HDEL h nothing
        HDEL h a b -> hdel h
        HDEL h c -> hdel h, del h
        HGET h a -> keymiss h",
    );
    if c.redis_at_least("7.4") {
        c.expect("HSET h a 1 b 2", ":2");
        expect_events(
            &mut c,
            "HEXPIRE h 100 FIELDS 1 a -> hexpire h
            HEXPIRE h 100 NX FIELDS 1 a
            HPERSIST h FIELDS 1 a -> hpersist h
            HPERSIST h FIELDS 1 a
            HEXPIRE h 0 FIELDS 1 a -> hdel h
            HEXPIRE h 0 FIELDS 1 b -> hdel h, del h",
        );
    }
    if c.redis_at_least("8.0") {
        expect_events(
            &mut c,
            "HSETEX h EX 100 FIELDS 1 a 1 -> new h, hset h, hexpire h
            HGETDEL h FIELDS 1 a -> hdel h, del h",
        );
    }
}

#[test]
fn commands_on_keys_publish_their_events_in_the_database_of_the_key() {
    let mut c = connect_for("EAnm");
    expect_events(
        &mut c,
        "SET a 1 -> new a, set a
        SET b 1 -> new b, set b
        RENAME a b -> new b, rename_from a, rename_to b
        RENAME b b
        RENAMENX b c -> new c, rename_from b, rename_to c
        COPY c d -> new d, copy_to d
        COPY c d
        COPY c d REPLACE -> new d, copy_to d
        COPY c d DB 2 -> new d 2, copy_to d 2
        MOVE c 2 -> new c 2, move_from c, move_to c 2
        EXPIRE d 100 -> expire d
        EXPIRE d 100 NX
        PERSIST d -> persist d
        PERSIST d
        EXPIRE d -1 -> del d
        DEL d
        MSET x 1 y 2 -> new x, set x, new y, set y
        UNLINK x no y -> del x, del y
        EXISTS x -> keymiss x
        TTL x -> keymiss x
        OBJECT ENCODING x
        FLUSHALL",
    );
}

#[test]
fn a_transaction_publishes_its_events_in_order() {
    let mut c = connect_for("EAnm");
    let session = ["MULTI", "SET a 1", "GET no", "DEL a", "INCR a", "EXEC"];
    let expected = ["new a", "set a", "keymiss no", "del a", "new a", "incrby a"];
    assert_eq!(events_of(&mut c, &session), expected);
}

#[test]
fn an_expired_event_is_published_when_the_sweeper_removes_a_key_or_field() {
    let mut c = connect_for("ExEh");
    let mut listener = c.another();
    listener.reply("PSUBSCRIBE __keyevent@*");
    c.expect("SET swept v PX 10", "+OK");
    let expected = "[\"pmessage\", \"__keyevent@*\", \"__keyevent@0__:expired\", \"swept\"]";
    assert_eq!(listener.read_reply().to_string(), expected);
    if c.redis_at_least("7.4") {
        c.expect("HSET h a 1 b 2", ":2");
        c.expect("HPEXPIRE h 10 FIELDS 1 a", "[:1]");
        for name in ["hset", "hexpire", "hexpired"] {
            let channel = format!("__keyevent@0__:{name}");
            let expected = format!("[\"pmessage\", \"__keyevent@*\", \"{channel}\", \"h\"]");
            assert_eq!(listener.read_reply().to_string(), expected);
        }
    }
}

/// A client of a server that publishes events and removes nothing by itself; `None` before Redis 8.2.
fn connect_without_sweeper(classes: &str) -> Option<Client> {
    let mut c = connect_with(&["--enable-debug-command", "yes"]);
    if !c.redis_at_least("8.2") {
        return None;
    }
    c.expect("DEBUG SET-ACTIVE-EXPIRE 0", "+OK");
    c.expect(&format!("CONFIG SET notify-keyspace-events {classes}"), "+OK");
    Some(c)
}

#[test]
fn a_key_that_is_set_with_a_passed_expiry_time_is_set_first_and_expires_when_it_is_met() {
    let Some(mut c) = connect_without_sweeper("EAn") else { return };
    expect_events(
        &mut c,
        "SET k v EXAT 1 -> new k, set k, expire k
         SET k v -> expired k, new k, set k
         SET k v PXAT 1 -> set k, expire k
         SET k v XX -> expired k
         SET k v PXAT 1 NX -> new k, set k, expire k
         RENAME k x -> expired k
         SET k v EXAT 1 -> new k, set k, expire k
         RENAMENX k x -> expired k
         SET k v -> new k, set k
         GETEX k EXAT 1 -> del k
         SET k v -> new k, set k
         EXPIRE k -1 -> del k
         HSETEX h EXAT 1 FIELDS 1 f v -> new h, hset h, hdel h, del h
         HSET h f v g w -> new h, hset h
         HSETEX h EXAT 1 FIELDS 1 f v -> hset h, hdel h
         HSETEX h FNX EXAT 1 FIELDS 1 z v -> hset h, hdel h",
    );
    c.expect("DBSIZE", ":1");
    c.expect("SET k v EXAT 1", "+OK");
    c.expect("DBSIZE", ":2");
    c.expect("DEBUG SET-ACTIVE-EXPIRE 1", "+OK");
}

#[test]
fn an_expired_field_is_announced_by_the_write_that_reads_it() {
    let Some(mut c) = connect_without_sweeper("EAn") else { return };
    for key in ["nx", "incr", "get", "fxx", "set", "del", "gone"] {
        c.expect(&format!("HSET {key} a 1 b 2"), ":2");
        c.expect(&format!("HPEXPIRE {key} 1 FIELDS 2 a b"), "[:1, :1]");
    }
    let set_at = unix_now_ms();
    eventually("the fields have expired", || unix_now_ms() > set_at + 1);
    expect_events(
        &mut c,
        "HSETNX nx a 2 -> hexpired nx, hset nx
         HINCRBY incr a 2 -> hexpired incr, hincrby incr
         HGETDEL get FIELDS 2 a b -> hexpired get, del get
         HSETEX fxx FXX FIELDS 1 a 2 -> hexpired fxx
         HSET set a 2 -> hset set
         HDEL del a -> hdel del
         HDEL del b -> hdel del, del del
         HPERSIST gone FIELDS 1 a
         DEL gone -> del gone",
    );
    c.expect("DEBUG SET-ACTIVE-EXPIRE 1", "+OK");
}

#[test]
fn a_bitop_looks_up_its_sources_up_to_one_of_the_wrong_type() {
    let mut c = connect_for("Em");
    c.expect("HSET h f v", ":1");
    expect_events(
        &mut c,
        "BITOP AND d one h two -> keymiss one
         BITOP AND d h one
         BITOP AND d one two -> keymiss one, keymiss two",
    );
}

#[test]
fn overwritten_keys_are_announced_and_whether_their_type_changes() {
    let Some(mut c) = connect_without_sweeper("KEAnoc") else { return };
    c.expect("CONFIG SET notify-keyspace-events EAnoc", "+OK");
    expect_events(
        &mut c,
        "SET a v -> new a, set a
         SET a w -> overwritten a, set a
         HSET h f v -> new h, hset h
         SET h v -> overwritten h, type_changed h, set h
         SETEX h 10 v -> overwritten h, set h, expire h
         GETSET a v -> overwritten a, set a
         MSET a 1 b 2 -> overwritten a, set a, new b, set b
         INCR a -> incrby a
         APPEND a 1 -> append a
         BITOP NOT a b -> overwritten a, set a
         HSET h2 f v -> new h2, hset h2
         BITOP NOT h2 b -> overwritten h2, type_changed h2, set h2
         RENAME a b -> new b, rename_from a, rename_to b, overwritten b
         HSET h3 f v -> new h3, hset h3
         RENAME h3 b -> new b, rename_from h3, rename_to b, overwritten b, type_changed b
         SET s v -> new s, set s
         COPY s b REPLACE -> new b, copy_to b, overwritten b, type_changed b
         COPY s b REPLACE -> new b, copy_to b, overwritten b
         PFADD p a -> new p, pfadd p
         PFMERGE p p -> pfadd p",
    );
    c.expect("DEBUG SET-ACTIVE-EXPIRE 1", "+OK");
}

#[test]
fn a_read_that_meets_an_expired_key_removes_it_before_it_misses_it() {
    let mut c = connect_with(&["--enable-debug-command", "yes"]);
    if !c.redis_at_least("8.2") {
        return;
    }
    c.expect("CONFIG SET notify-keyspace-events AKEm", "+OK");
    c.expect("DEBUG SET-ACTIVE-EXPIRE 0", "+OK");
    for (read, expected) in [
        ("GET k", "expired k, keymiss k"),
        ("EXISTS k k", "expired k, keymiss k, keymiss k"),
        ("MGET there k", "expired k, keymiss k"),
        ("OBJECT ENCODING k", "expired k"),
        ("HGETALL k", "expired k, keymiss k"),
        ("SCAN 0 COUNT 100", "expired k"),
        ("SCAN 0 MATCH t* COUNT 100", ""),
        ("KEYS *", ""),
        ("DBSIZE", ""),
    ] {
        c.expect("MSET there v k v", "+OK");
        c.expect("PEXPIRE k 1", ":1");
        wait_ms(3);
        expect_events(&mut c, &format!("{read} -> {expected}"));
        let left = if expected.is_empty() { ":2" } else { ":1" };
        c.expect("DBSIZE", left);
    }
}
