//! Commands on keys of any type: their names, their databases and their expiry times.

use std::collections::BTreeSet;

use crate::harness::{Client, Reply, connect, eventually, transcript, unix_now_ms};

#[test]
fn del_unlink_exists_and_touch_count_keys() {
    transcript(
        r#"
        > MSET a 1 b 2 c 3
        +OK
        > HSET h f v
        :1
        > EXISTS a
        :1
        > EXISTS a b missing
        :2
        > EXISTS a a a
        :3
        > TOUCH a a missing h
        :3
        > DEL a missing
        :1
        > DEL a
        :0
        > UNLINK b b h
        :2
        > EXISTS a b c h
        :1
        > DEL c c
        :1
        > DBSIZE
        :0
        > DEL
        -ERR wrong number of arguments for 'del' command
        > UNLINK
        -ERR wrong number of arguments for 'unlink' command
        > EXISTS
        -ERR wrong number of arguments for 'exists' command
        > TOUCH
        -ERR wrong number of arguments for 'touch' command
        "#,
    );
}

#[test]
fn type_returns_the_type_of_a_key() {
    transcript(
        r#"
        > SET s v
        +OK
        > HSET h f v
        :1
        > TYPE s
        +string
        > TYPE h
        +hash
        > TYPE missing
        +none
        > TYPE
        -ERR wrong number of arguments for 'type' command
        > TYPE s h
        -ERR wrong number of arguments for 'type' command
        "#,
    );
}

#[test]
fn randomkey_returns_every_key_sooner_or_later() {
    let mut c = connect();
    c.expect("RANDOMKEY", "nil");
    c.expect("RANDOMKEY x", "-ERR wrong number of arguments for 'randomkey' command");
    c.expect("SET only v", "+OK");
    c.expect("RANDOMKEY", "\"only\"");
    c.expect("MSET a 1 b 2 c 3", "+OK");
    let mut seen = BTreeSet::new();
    eventually("each key was returned once", || {
        seen.insert(c.text("RANDOMKEY"));
        seen.len() == 4
    });
    assert!(["a", "b", "c", "only"].iter().all(|key| seen.contains(*key)));
    c.expect("SELECT 1", "+OK");
    c.expect("RANDOMKEY", "nil");
}

// ---- Renaming, moving, copying -----------------------------------------------------------------------

#[test]
fn rename_moves_the_value_and_its_expiry_time() {
    transcript(
        r#"
        > SET a 1 EX 100
        +OK
        > SET b 2
        +OK
        > RENAME a b
        +OK
        > EXISTS a
        :0
        > GET b
        "1"
        > TTL b
        :100
        > HSET h f v
        :1
        > RENAME h b
        +OK
        > TYPE b
        +hash
        > TTL b
        :-1
        > RENAME b b
        +OK
        > TYPE b
        +hash
        > SET t v EX 100
        +OK
        > SET u w
        +OK
        > RENAME u t
        +OK
        > TTL t
        :-1
        > RENAME missing x
        -ERR no such key
        > RENAME missing missing
        -ERR no such key
        > RENAME a
        -ERR wrong number of arguments for 'rename' command
        > RENAME a b c
        -ERR wrong number of arguments for 'rename' command
        "#,
    );
}

#[test]
fn renamenx_does_nothing_if_the_new_name_exists() {
    transcript(
        r#"
        > MSET a 1 b 2
        +OK
        > RENAMENX a b
        :0
        > RENAMENX a c
        :1
        > GET c
        "1"
        > EXISTS a
        :0
        > RENAMENX c c
        :0
        > EXISTS c
        :1
        > RENAMENX missing x
        -ERR no such key
        > RENAMENX missing missing
        -ERR no such key
        > RENAMENX missing b
        -ERR no such key
        > RENAMENX a
        -ERR wrong number of arguments for 'renamenx' command
        "#,
    );
}

#[test]
fn databases_are_separate() {
    transcript(
        r#"
        > SET k zero
        +OK
        > SELECT 1
        +OK
        > GET k
        nil
        > SET k one
        +OK
        > DBSIZE
        :1
        > SELECT 15
        +OK
        > DBSIZE
        :0
        > SELECT 0
        +OK
        > GET k
        "zero"
        other> GET k
        "zero"
        other> SELECT 1
        +OK
        other> GET k
        "one"
        > FLUSHDB
        +OK
        > GET k
        nil
        other> GET k
        "one"
        "#,
    );
}

#[test]
fn select_rejects_bad_databases() {
    transcript(
        r#"
        > SELECT abc
        -ERR value is not an integer or out of range
        > SELECT 16
        -ERR DB index is out of range
        > SELECT -1
        -ERR DB index is out of range
        > SELECT 1.5
        -ERR value is not an integer or out of range
        > SELECT ""
        -ERR value is not an integer or out of range
        > SELECT 2147483648
        -ERR value is out of range, value must between -2147483648 and 2147483647
        > SELECT 99999999999999999999
        -ERR value is not an integer or out of range
        > SELECT
        -ERR wrong number of arguments for 'select' command
        > SELECT 0 1
        -ERR wrong number of arguments for 'select' command
        "#,
    );
}

#[test]
fn move_moves_a_key_to_another_database() {
    transcript(
        r#"
        > SET k v EX 100
        +OK
        > MOVE k 1
        :1
        > EXISTS k
        :0
        > MOVE k 1
        :0
        > SELECT 1
        +OK
        > GET k
        "v"
        > TTL k
        :100
        > SELECT 0
        +OK
        > SET k w
        +OK
        > MOVE k 1
        :0
        > GET k
        "w"
        > HSET h f v
        :1
        > MOVE h 2
        :1
        > SELECT 2
        +OK
        > HGETALL h
        ["f", "v"]
        "#,
    );
}

#[test]
fn move_rejects_bad_databases() {
    transcript(
        r#"
        > SET k v
        +OK
        > MOVE k 0
        -ERR source and destination objects are the same
        > MOVE missing 0
        -ERR source and destination objects are the same
        > MOVE k 16
        -ERR DB index is out of range
        > MOVE k -1
        -ERR DB index is out of range
        > MOVE missing 16
        -ERR DB index is out of range
        > MOVE k abc
        -ERR value is not an integer or out of range
        > MOVE k 1.5
        -ERR value is not an integer or out of range
        > MOVE k 99999999999
        -ERR value is out of range, value must between -2147483648 and 2147483647
        > MOVE k 99999999999999999999
        -ERR value is not an integer or out of range
        > MOVE k
        -ERR wrong number of arguments for 'move' command
        > MOVE k 1 2
        -ERR wrong number of arguments for 'move' command
        > GET k
        "v"
        "#,
    );
}

#[test]
fn copy_copies_the_value_and_its_expiry_time() {
    transcript(
        r#"
        > SET a 1 EX 100
        +OK
        > COPY a b
        :1
        > GET b
        "1"
        > TTL b
        :100
        > SET a 2
        +OK
        > GET b
        "1"
        > COPY a b
        :0
        > GET b
        "1"
        > COPY a b REPLACE
        :1
        > GET b
        "2"
        > TTL b
        :-1
        > HSET h f v
        :1
        > COPY h h2
        :1
        > HSET h2 f w
        :0
        > HGET h f
        "v"
        > HGET h2 f
        "w"
        > COPY h b replace
        :1
        > TYPE b
        +hash
        > COPY missing x
        :0
        > COPY missing b REPLACE
        :0
        > EXISTS b
        :1
        "#,
    );
}

#[test]
fn copy_copies_into_another_database() {
    transcript(
        r#"
        > SET k v
        +OK
        > COPY k k DB 1
        :1
        > COPY k k DB 1
        :0
        > SET k w
        +OK
        > COPY k k DB 1 REPLACE
        :1
        > COPY k j REPLACE DB 1
        :1
        > COPY k j db 0
        :1
        > GET j
        "w"
        > COPY k x DB 1 DB 2
        :1
        > SELECT 1
        +OK
        > MGET k j
        ["w", "w"]
        > EXISTS x
        :0
        > SELECT 2
        +OK
        > GET x
        "w"
        "#,
    );
}

#[test]
fn copy_rejects_bad_arguments() {
    transcript(
        r#"
        > SET k v
        +OK
        > COPY k k
        -ERR source and destination objects are the same
        > COPY k k DB 0
        -ERR source and destination objects are the same
        > COPY k k REPLACE
        -ERR source and destination objects are the same
        > COPY missing missing
        -ERR source and destination objects are the same
        > COPY k j DB
        -ERR syntax error
        > COPY k j DB abc
        -ERR value is not an integer or out of range
        > COPY k j DB 1.5
        -ERR value is not an integer or out of range
        > COPY k j DB 16
        -ERR DB index is out of range
        > COPY k j DB -1
        -ERR DB index is out of range
        > COPY k j DB 99999999999
        -ERR value is out of range, value must between -2147483648 and 2147483647
        > COPY missing j DB 16
        -ERR DB index is out of range
        > COPY k j FOO
        -ERR syntax error
        > COPY k j REPLACE FOO
        -ERR syntax error
        > COPY k j 1
        -ERR syntax error
        > COPY k
        -ERR wrong number of arguments for 'copy' command
        > COPY
        -ERR wrong number of arguments for 'copy' command
        > EXISTS j
        :0
        > COPY k j REPLACE REPLACE
        :1
        "#,
    );
}

// ---- Expiry ------------------------------------------------------------------------------------------

#[test]
fn ttl_distinguishes_a_missing_key_from_one_that_does_not_expire() {
    transcript(
        r#"
        > TTL missing
        :-2
        > PTTL missing
        :-2
        > EXPIRETIME missing
        :-2
        > PEXPIRETIME missing
        :-2
        > SET k v
        +OK
        > TTL k
        :-1
        > PTTL k
        :-1
        > EXPIRETIME k
        :-1
        > PEXPIRETIME k
        :-1
        > TTL
        -ERR wrong number of arguments for 'ttl' command
        > TTL a b
        -ERR wrong number of arguments for 'ttl' command
        > PTTL
        -ERR wrong number of arguments for 'pttl' command
        > EXPIRETIME
        -ERR wrong number of arguments for 'expiretime' command
        > PEXPIRETIME a b
        -ERR wrong number of arguments for 'pexpiretime' command
        "#,
    );
}

#[test]
fn the_expire_commands_take_four_units() {
    let mut c = connect();
    c.transcript(
        r#"
        > SET k v
        +OK
        > EXPIRE k 100
        :1
        > TTL k
        :100
        > PEXPIRE k 200000
        :1
        > TTL k
        :200
        > EXPIREAT k 33177117420
        :1
        > EXPIRETIME k
        :33177117420
        > PEXPIRETIME k
        :33177117420000
        > PEXPIREAT k 33177117420999
        :1
        > EXPIRETIME k
        :33177117421
        > PEXPIRETIME k
        :33177117420999
        > EXPIRE missing 100
        :0
        > PEXPIRE missing 100
        :0
        > EXPIREAT missing 33177117420
        :0
        > PEXPIREAT missing 33177117420000
        :0
        > HSET h f v
        :1
        > EXPIRE h 100
        :1
        > TTL h
        :100
        > GET k
        "v"
        "#,
    );
    let before = unix_now_ms();
    c.expect("PEXPIRE k 5000", ":1");
    let after = unix_now_ms();
    let expiry = c.integer("PEXPIRETIME k");
    assert!((before..=after).contains(&(expiry - 5000)), "{expiry}");
    let left = c.integer("PTTL k");
    assert!((0..=5000).contains(&left), "{left}");
}

#[test]
fn ttl_rounds_to_the_nearest_second() {
    let mut c = connect();
    c.expect("SET k v PX 100400", "+OK");
    c.expect("TTL k", ":100");
    c.expect("SET k v PX 100900", "+OK");
    c.expect("TTL k", ":101");
    c.expect("SET k v PXAT 33177117420499", "+OK");
    c.expect("EXPIRETIME k", ":33177117420");
    c.expect("SET k v PXAT 33177117420500", "+OK");
    c.expect("EXPIRETIME k", ":33177117421");
}

#[test]
fn an_expiry_time_in_the_past_deletes_the_key_at_once() {
    transcript(
        r#"
        > SET k v
        +OK
        > EXPIRE k 0
        :1
        > EXISTS k
        :0
        > SET k v
        +OK
        > EXPIRE k -1
        :1
        > EXISTS k
        :0
        > SET k v
        +OK
        > PEXPIRE k -100
        :1
        > EXISTS k
        :0
        > SET k v
        +OK
        > EXPIREAT k 1
        :1
        > EXISTS k
        :0
        > SET k v
        +OK
        > PEXPIREAT k 0
        :1
        > EXISTS k
        :0
        > SET k v
        +OK
        > EXPIREAT k -5
        :1
        > DBSIZE
        :0
        > SET k v EX 100
        +OK
        > EXPIRE k -1 GT
        :0
        > TTL k
        :100
        > EXPIRE k -1 LT
        :1
        > EXISTS k
        :0
        > HSET h f v
        :1
        > EXPIRE h -1 NX
        :1
        > EXISTS h
        :0
        "#,
    );
}

#[test]
fn expire_nx_xx_gt_and_lt_check_the_old_expiry_time() {
    transcript(
        r#"
        > SET k v
        +OK
        > EXPIRE k 100 XX
        :0
        > EXPIRE k 100 GT
        :0
        > TTL k
        :-1
        > EXPIRE k 100 NX
        :1
        > EXPIRE k 200 NX
        :0
        > TTL k
        :100
        > EXPIRE k 200 XX
        :1
        > EXPIRE k 100 GT
        :0
        > EXPIRE k 199 GT
        :0
        > EXPIRE k 300 GT
        :1
        > TTL k
        :300
        > EXPIRE k 400 LT
        :0
        > EXPIRE k 250 lt
        :1
        > TTL k
        :250
        > PERSIST k
        :1
        > EXPIRE k 100 LT
        :1
        > TTL k
        :100
        > EXPIRE k 200 XX GT
        :1
        > EXPIRE k 100 GT XX
        :0
        > EXPIRE k 150 xx lt
        :1
        > TTL k
        :150
        > EXPIRE k 500 XX XX
        :1
        > EXPIRE k 400 GT GT
        :0
        > PERSIST k
        :1
        > EXPIRE k 100 XX LT
        :0
        > EXPIRE k 100 XX GT
        :0
        > TTL k
        :-1
        > PEXPIRE k 100000 NX
        :1
        > PEXPIRE k 200000 GT
        :1
        > EXPIREAT k 33177117420 GT
        :1
        > EXPIREAT k 33177117420 GT
        :0
        > EXPIREAT k 33177117420 LT
        :0
        > PEXPIREAT k 33177117420001 GT
        :1
        > PEXPIREAT k 33177117420000 LT
        :1
        > PEXPIRETIME k
        :33177117420000
        > EXPIRE missing 100 NX
        :0
        > EXPIRE missing 100 LT
        :0
        "#,
    );
}

#[test]
fn expire_rejects_contradictory_and_unknown_options() {
    transcript(
        r#"
        > SET k v
        +OK
        > EXPIRE k 100 NX XX
        -ERR NX and XX, GT or LT options at the same time are not compatible
        > EXPIRE k 100 XX NX
        -ERR NX and XX, GT or LT options at the same time are not compatible
        > EXPIRE k 100 NX GT
        -ERR NX and XX, GT or LT options at the same time are not compatible
        > EXPIRE k 100 LT NX
        -ERR NX and XX, GT or LT options at the same time are not compatible
        > EXPIRE k 100 GT LT
        -ERR GT and LT options at the same time are not compatible
        > EXPIRE k 100 LT GT
        -ERR GT and LT options at the same time are not compatible
        > EXPIRE k 100 NX GT LT
        -ERR NX and XX, GT or LT options at the same time are not compatible
        > EXPIRE k 100 XX GT LT
        -ERR GT and LT options at the same time are not compatible
        > EXPIRE k 100 FOO
        -ERR Unsupported option FOO
        > EXPIRE k 100 "a b"
        -ERR Unsupported option a b
        > EXPIRE k 100 NX FOO
        -ERR Unsupported option FOO
        > EXPIRE k 100 200
        -ERR Unsupported option 200
        > EXPIRE k abc FOO
        -ERR Unsupported option FOO
        > EXPIRE missing 100 NX XX
        -ERR NX and XX, GT or LT options at the same time are not compatible
        > PEXPIRE k 100 AB
        -ERR Unsupported option AB
        > EXPIREAT k 100 GT LT
        -ERR GT and LT options at the same time are not compatible
        > PEXPIREAT k 100 NX LT
        -ERR NX and XX, GT or LT options at the same time are not compatible
        > TTL k
        :-1
        "#,
    );
}

#[test]
fn expire_rejects_bad_times() {
    transcript(
        r#"
        > SET k v
        +OK
        > EXPIRE k abc
        -ERR value is not an integer or out of range
        > EXPIRE k 1.5
        -ERR value is not an integer or out of range
        > EXPIRE k ""
        -ERR value is not an integer or out of range
        > EXPIRE k " 1"
        -ERR value is not an integer or out of range
        > EXPIRE k 9223372036854775808
        -ERR value is not an integer or out of range
        > EXPIRE missing abc
        -ERR value is not an integer or out of range
        > PEXPIRE k abc
        -ERR value is not an integer or out of range
        > EXPIREAT k abc
        -ERR value is not an integer or out of range
        > PEXPIREAT k abc
        -ERR value is not an integer or out of range
        > EXPIRE k 9223372036854775807
        -ERR invalid expire time in 'expire' command
        > EXPIRE k -9223372036854775808
        -ERR invalid expire time in 'expire' command
        > EXPIRE k 9223372036854776
        -ERR invalid expire time in 'expire' command
        > EXPIRE k 9223372036854775
        -ERR invalid expire time in 'expire' command
        > EXPIRE k -9223372036854776
        -ERR invalid expire time in 'expire' command
        > PEXPIRE k 9223372036854775807
        -ERR invalid expire time in 'pexpire' command
        > EXPIREAT k 9223372036854775807
        -ERR invalid expire time in 'expireat' command
        > EXPIREAT k 9223372036854776
        -ERR invalid expire time in 'expireat' command
        > EXPIREAT k -9223372036854776
        -ERR invalid expire time in 'expireat' command
        > EXPIRE missing 9223372036854775807
        -ERR invalid expire time in 'expire' command
        > TTL k
        :-1
        > PEXPIREAT k 9223372036854775807
        :1
        > PEXPIRETIME k
        :9223372036854775807
        > EXPIREAT k 9223372036854775
        :1
        > PEXPIRETIME k
        :9223372036854775000
        > EXPIRE k
        -ERR wrong number of arguments for 'expire' command
        > EXPIRE
        -ERR wrong number of arguments for 'expire' command
        > PEXPIRE k
        -ERR wrong number of arguments for 'pexpire' command
        > EXPIREAT k
        -ERR wrong number of arguments for 'expireat' command
        > PEXPIREAT k
        -ERR wrong number of arguments for 'pexpireat' command
        "#,
    );
}

#[test]
fn persist_removes_the_expiry_time() {
    transcript(
        r#"
        > SET k v EX 100
        +OK
        > PERSIST k
        :1
        > TTL k
        :-1
        > PERSIST k
        :0
        > PERSIST missing
        :0
        > PERSIST
        -ERR wrong number of arguments for 'persist' command
        > PERSIST a b
        -ERR wrong number of arguments for 'persist' command
        "#,
    );
}

#[test]
fn an_expired_key_is_hidden_from_every_command() {
    let mut c = connect();
    c.expect("SET k v PX 20", "+OK");
    c.expect("HSET h f v", ":1");
    c.expect("PEXPIRE h 20", ":1");
    c.expect("SET stays v", "+OK");
    let set = unix_now_ms();
    eventually("the expiry time has passed", || unix_now_ms() > set + 21);
    c.transcript(
        r#"
        > EXISTS k h
        :0
        > TOUCH k h
        :0
        > TYPE h
        +none
        > KEYS *
        ["stays"]
        > RANDOMKEY
        "stays"
        > DEL k
        :0
        > UNLINK h
        :0
        > RENAME k x
        -ERR no such key
        > COPY k x
        :0
        > MOVE k 1
        :0
        > PERSIST k
        :0
        > EXPIRE k 100
        :0
        > TTL k
        :-2
        > PTTL k
        :-2
        > EXPIRETIME k
        :-2
        "#,
    );
    assert_eq!(scan_all(&mut c, "COUNT 1000"), ["stays"]);
}

#[test]
fn expired_keys_are_swept_without_being_read() {
    let mut c = connect();
    for i in 0..500 {
        c.send(&["SET", &format!("short:{i}"), "v", "PX", "10"]);
        c.send(&["SET", &format!("long:{i}"), "v", "EX", "1000"]);
    }
    for _ in 0..1000 {
        assert_eq!(c.read_reply(), Reply::Simple("OK".into()));
    }
    eventually("DBSIZE counts only the keys that have not expired", || c.integer("DBSIZE") == 500);
}

// ---- KEYS and SCAN -----------------------------------------------------------------------------------

#[test]
fn keys_matches_patterns() {
    transcript(
        r#"
        > MSET hello 1 hallo 2 hillo 3 hllo 4 heeeello 5 world 6 "a*b" 7 "a[b" 8 "" 9
        +OK
        sorted> KEYS *
        ["", "a*b", "a[b", "hallo", "heeeello", "hello", "hillo", "hllo", "world"]
        sorted> KEYS h?llo
        ["hallo", "hello", "hillo"]
        sorted> KEYS h*llo
        ["hallo", "heeeello", "hello", "hillo", "hllo"]
        sorted> KEYS h[ae]llo
        ["hallo", "hello"]
        sorted> KEYS h[^e]llo
        ["hallo", "hillo"]
        sorted> KEYS h[a-e]llo
        ["hallo", "hello"]
        sorted> KEYS h[e-a]llo
        ["hallo", "hello"]
        sorted> KEYS hello
        ["hello"]
        sorted> KEYS HELLO
        []
        sorted> KEYS ?
        []
        sorted> KEYS ?????
        ["hallo", "hello", "hillo", "world"]
        sorted> KEYS **o
        ["hallo", "heeeello", "hello", "hillo", "hllo"]
        sorted> KEYS a\*b
        ["a*b"]
        sorted> KEYS a*b
        ["a*b", "a[b"]
        sorted> KEYS a\[b
        ["a[b"]
        sorted> KEYS h\allo
        ["hallo"]
        sorted> KEYS h[\a]llo
        ["hallo"]
        sorted> KEYS ""
        [""]
        sorted> KEYS nothing*
        []
        > KEYS
        -ERR wrong number of arguments for 'keys' command
        > KEYS a b
        -ERR wrong number of arguments for 'keys' command
        "#,
    );
}

#[test]
fn patterns_are_bytes_and_may_be_malformed() {
    transcript(
        r#"
        > MSET "\x00\xff" 1 "a\nb" 2 "a]b" 3 "a-b" 4 "a^b" 5 "ab" 6 "a\\b" 7
        +OK
        sorted> KEYS "\x00*"
        ["\x00\xff"]
        sorted> KEYS "?\xff"
        ["\x00\xff"]
        sorted> KEYS "a[\x01-\x20]b"
        ["a\nb"]
        sorted> KEYS "a[]b"
        []
        sorted> KEYS "a[]]b"
        []
        sorted> KEYS "a[-]b"
        ["a-b"]
        sorted> KEYS "a[^]b"
        ["a-b", "a\\b", "a\nb", "a]b", "a^b"]
        sorted> KEYS "a[^a]b"
        ["a-b", "a\\b", "a\nb", "a]b", "a^b"]
        sorted> KEYS "a[b"
        ["ab"]
        sorted> KEYS "a["
        []
        sorted> KEYS "a[a-"
        []
        sorted> KEYS "ab\\"
        []
        sorted> KEYS "a\\\\b"
        ["a\\b"]
        sorted> KEYS "a[\\\\]b"
        ["a\\b"]
        sorted> KEYS "a[\\]]b"
        ["a]b"]
        sorted> KEYS "a[+-.]b"
        ["a-b"]
        sorted> KEYS "a[^-]b"
        ["a\\b", "a\nb", "a]b", "a^b"]
        sorted> KEYS "a[z-^]b"
        ["a^b"]
        "#,
    );
}

#[test]
fn a_pattern_with_many_stars_is_matched_quickly() {
    let mut c = connect();
    c.call(&["SET", &"a".repeat(60), "v"]);
    c.expect(&format!("KEYS {}b", "*a".repeat(30)), "[]");
    let found = scan_all(&mut c, &format!("COUNT 1000 MATCH {}b", "*a".repeat(30)));
    assert!(found.is_empty());
}

/// Follows the cursor to its end. Returns the keys with duplicates.
fn scan_all(c: &mut Client, options: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut cursor = "0".to_owned();
    loop {
        let reply = c.reply(&format!("SCAN {cursor} {options}"));
        let [next, page] = <[Reply; 2]>::try_from(reply.into_items()).expect("a cursor and a page");
        found.extend(page.into_items().into_iter().map(Reply::into_text));
        cursor = next.into_text();
        if cursor == "0" {
            return found;
        }
    }
}

fn fill(c: &mut Client, count: usize) -> BTreeSet<String> {
    let keys: BTreeSet<String> = (0..count).map(|i| format!("key:{i}")).collect();
    for key in &keys {
        c.send(&["SET", key, "v"]);
    }
    for _ in &keys {
        assert_eq!(c.read_reply(), Reply::Simple("OK".into()));
    }
    keys
}

#[test]
fn scan_visits_every_key() {
    let mut c = connect();
    let keys = fill(&mut c, 2000);
    for options in ["", "COUNT 1", "COUNT 7", "COUNT 100000", "count 100 match *"] {
        let found: BTreeSet<String> = scan_all(&mut c, options).into_iter().collect();
        assert!(found == keys, "with {options:?}: {} keys", found.len());
    }
    let found: BTreeSet<String> = scan_all(&mut c, "MATCH key:*99 COUNT 50").into_iter().collect();
    let expected: BTreeSet<String> = keys.into_iter().filter(|k| k.ends_with("99")).collect();
    assert_eq!(found, expected);
    c.expect("SELECT 1", "+OK");
    assert!(scan_all(&mut c, "").is_empty(), "another database");
}

#[test]
fn scan_of_a_small_database_ends_with_the_first_call() {
    let mut c = connect();
    c.expect("SCAN 0", "[\"0\", []]");
    c.expect("MSET a 1 b 2 c 3", "+OK");
    let mut parts = c.reply("SCAN 0").into_items();
    parts[1].sort();
    assert_eq!(parts[1].to_string(), "[\"a\", \"b\", \"c\"]");
    assert_eq!(parts[0].to_string(), "\"0\"");
}

#[test]
fn scan_returns_about_count_keys_per_call() {
    let mut c = connect();
    fill(&mut c, 2000);
    for (options, most) in [("", 100), ("COUNT 100", 500)] {
        let reply = c.reply(&format!("SCAN 0 {options}"));
        let page = reply.into_items().remove(1).into_items();
        assert!(page.len() <= most, "{} keys for {options:?}", page.len());
    }
}

#[test]
fn scan_returns_every_key_that_exists_throughout_the_scan() {
    let mut c = connect();
    for i in 0..1000 {
        c.call(&["SET", &format!("stays:{i}"), "v"]);
        c.call(&["SET", &format!("goes:{i}"), "v"]);
    }
    let mut found = BTreeSet::new();
    let mut cursor = "0".to_owned();
    let mut round = 0;
    loop {
        let mut parts = c.call(&["SCAN", &cursor, "COUNT", "20"]).into_items();
        let page = parts.remove(1).into_items();
        found.extend(page.into_iter().map(Reply::into_text));
        cursor = parts.remove(0).into_text();
        if cursor == "0" {
            break;
        }
        for i in 0..20 {
            c.call(&["DEL", &format!("goes:{}", round * 20 + i)]);
            c.call(&["SET", &format!("comes:{round}:{i}"), "v"]);
        }
        round += 1;
    }
    let missing = (0..1000).filter(|i| !found.contains(&format!("stays:{i}")));
    assert_eq!(missing.count(), 0, "keys that existed throughout are missing");
}

#[test]
fn scan_filters_by_type() {
    let mut c = connect();
    c.transcript(
        r#"
        > MSET s1 1 s2 2
        +OK
        > HSET h1 f v
        :1
        > HSET h2 f v
        :1
        "#,
    );
    let mut typed = |options: &str| {
        let mut keys = scan_all(&mut c, options);
        keys.sort();
        keys.join(" ")
    };
    assert_eq!(typed("TYPE string"), "s1 s2");
    assert_eq!(typed("TYPE hash"), "h1 h2");
    assert_eq!(typed("TYPE HASH COUNT 100"), "h1 h2");
    assert_eq!(typed("MATCH *1 TYPE hash"), "h1");
    assert_eq!(typed("TYPE list"), "");
    assert_eq!(typed("TYPE nonsense"), "");
    assert_eq!(typed("MATCH *1 MATCH *2"), "h2 s2");
}

#[test]
fn a_zero_byte_ends_a_cursor() {
    transcript(
        r#"
        > SET k v
        +OK
        > SCAN "0\x00nonsense"
        ["0", ["k"]]
        8.2> SCAN "\x00"
        -ERR invalid cursor
        > SCAN "x\x00"
        -ERR invalid cursor
        "#,
    );
}

#[test]
fn scan_rejects_bad_arguments() {
    transcript(
        r#"
        > SCAN abc
        -ERR invalid cursor
        8.2> SCAN " 0"
        ["0", []]
        8.2> SCAN "\t+0"
        ["0", []]
        8.2> SCAN ""
        -ERR invalid cursor
        8.2> SCAN "" COUNT 0
        -ERR invalid cursor
        8.2> SCAN -1
        -ERR invalid cursor
        > SCAN "0 "
        -ERR invalid cursor
        > SCAN 0x
        -ERR invalid cursor
        > SCAN 1.5
        -ERR invalid cursor
        > SCAN 18446744073709551616
        -ERR invalid cursor
        > SCAN 18446744073709551615
        ["0", []]
        > SCAN 0 COUNT 0
        -ERR syntax error
        > SCAN 0 COUNT -1
        -ERR syntax error
        > SCAN 0 COUNT abc
        -ERR value is not an integer or out of range
        > SCAN 0 COUNT 1.5
        -ERR value is not an integer or out of range
        > SCAN 0 COUNT 9223372036854775808
        -ERR value is not an integer or out of range
        > SCAN 0 COUNT 9223372036854775807
        ["0", []]
        > SCAN 0 COUNT
        -ERR syntax error
        > SCAN 0 MATCH
        -ERR syntax error
        > SCAN 0 TYPE
        -ERR syntax error
        > SCAN 0 FOO
        -ERR syntax error
        > SCAN 0 FOO bar
        -ERR syntax error
        > SCAN 0 COUNT 10 FOO
        -ERR syntax error
        > SCAN abc COUNT 0
        -ERR invalid cursor
        > SCAN
        -ERR wrong number of arguments for 'scan' command
        "#,
    );
}
