//! Commands that compare a string first: `DIGEST`, `DELEX`, `DELIFEQ`, and `SET` with a digest.
//!
//! Redis has them since 8.4, except for `DELIFEQ`, which Valkey has since 9.0.

use crate::harness::*;

#[test]
fn digest_is_the_xxh3_of_the_value() {
    let mut c = connect();
    if !c.redis_at_least("8.4") {
        return;
    }
    c.transcript(
        r#"
        > SET k "Hello world"
        +OK
        > DIGEST k
        "b6acb9d84a38ff74"
        > SET k ""
        +OK
        > DIGEST k
        "2d06800538d394c2"
        > SET k 123
        +OK
        > DIGEST k
        "404a763b3f4c8c9a"
        > SET k v8
        +OK
        > DIGEST k
        "0cc76dbb41381419"
        > SET k v8lf0c11xh8ymlqztfd3eeq16kfn4sspw7fqmnuuq3k3t75em5wdizgcdw7uc26nnf961u2jkfzkjytls2kwlj7626sd
        +OK
        > DIGEST k
        "00006c38adf31777"
        > DIGEST missing
        nil
        > HSET h f v
        :1
        > DIGEST h
        -WRONGTYPE Operation against a key holding the wrong kind of value
        > DIGEST
        -ERR wrong number of arguments for 'digest' command
        "#,
    );
}

#[test]
fn set_ifdeq_and_ifdne_compare_the_digest_of_the_old_value() {
    let mut c = connect();
    if !c.redis_at_least("8.4") {
        return;
    }
    c.transcript(
        r#"
        > SET k hello
        +OK
        > SET k a IFDEQ 0000000000000000
        nil
        > SET k a IFDNE 9555e8555c62dcfd
        nil
        > SET k hello ifdeq 9555E8555C62DCFD EX 100
        +OK
        > TTL k
        :100
        > SET k b IFDNE 9555e8555c62dcfd GET
        "hello"
        > GET k
        "hello"
        > SET k b IFDEQ 9555e8555c62dcfd GET KEEPTTL
        "hello"
        > GET k
        "b"
        > TTL k
        :100
        // A missing key has no digest, so it equals none.
        > SET missing v IFDEQ 9555e8555c62dcfd
        nil
        > SET missing v IFDEQ short
        nil
        > EXISTS missing
        :0
        > SET new v IFDNE short
        +OK
        > SET new w IFDNE zzzzzzzzzzzzzzzz
        +OK
        > SET new x IFDEQ zzzzzzzzzzzzzzzz
        nil
        > SET k c IFDEQ 9555e8555c62dcf
        -ERR must be exactly 16 hexadecimal characters
        > SET k c IFDNE 09555e8555c62dcfd GET
        -ERR must be exactly 16 hexadecimal characters
        > SET k c IFDEQ ""
        -ERR must be exactly 16 hexadecimal characters
        > GET k
        "b"
        > HSET h f v
        :1
        > SET h v IFDEQ short
        -WRONGTYPE Operation against a key holding the wrong kind of value
        > SET h v IFDNE 9555e8555c62dcfd
        -WRONGTYPE Operation against a key holding the wrong kind of value
        "#,
    );
}

#[test]
fn set_takes_one_condition_and_only_nx_and_xx_may_be_repeated() {
    let mut c = connect();
    if !c.redis_at_least("8.4") {
        return;
    }
    let conditions = ["NX", "XX", "IFEQ x", "IFNE x", "IFDEQ x", "IFDNE x"];
    for one in conditions {
        for other in conditions.into_iter().filter(|other| *other != one) {
            c.expect(&format!("SET k v {one} {other}"), "-ERR syntax error");
        }
    }
    for one in &conditions[2..] {
        c.expect(&format!("SET k v {one} {one}"), "-ERR syntax error");
    }
    c.transcript(
        r#"
        > SET k v NX NX
        +OK
        > SET k x XX XX
        +OK
        > SET k y IFDEQ
        -ERR syntax error
        > SET k y IFDNE
        -ERR syntax error
        > GET k
        "x"
        "#,
    );
}

#[test]
fn delex_deletes_a_value_that_meets_the_condition() {
    let mut c = connect();
    if !c.redis_at_least("8.4") {
        return;
    }
    c.transcript(
        r#"
        > SET k hello
        +OK
        > DELEX k IFEQ other
        :0
        > DELEX k IFNE hello
        :0
        > DELEX k IFDEQ 0000000000000000
        :0
        > DELEX k IFDNE 9555E8555C62DCFD
        :0
        > DELEX k IFDEQ zzzzzzzzzzzzzzzz
        :0
        > GET k
        "hello"
        > DELEX k ifeq hello
        :1
        > EXISTS k
        :0
        > SET k hello
        +OK
        > DELEX k IFNE other
        :1
        > SET k hello
        +OK
        > DELEX k IFDEQ 9555e8555c62dcfd
        :1
        > SET k hello
        +OK
        > DELEX k IFDNE 0000000000000000
        :1
        > SET k 0123
        +OK
        > DELEX k IFEQ 123
        :0
        > DELEX k
        :1
        > DELEX k
        :0
        > HSET h f v
        :1
        > DELEX h
        :1
        "#,
    );
}

#[test]
fn delex_checks_its_condition_only_if_the_key_exists() {
    let mut c = connect();
    if !c.redis_at_least("8.4") {
        return;
    }
    c.transcript(
        r#"
        > SET k hello
        +OK
        > HSET h f v
        :1
        > DELEX missing IFEQ x
        :0
        > DELEX missing IFNE x
        :0
        > DELEX missing IFDNE short
        :0
        > DELEX missing NOSUCH x
        :0
        > DELEX k NOSUCH x
        -ERR Invalid condition. Use IFEQ, IFNE, IFDEQ, or IFDNE
        > DELEX k NX x
        -ERR Invalid condition. Use IFEQ, IFNE, IFDEQ, or IFDNE
        > DELEX k IFDEQ short
        -ERR must be exactly 16 hexadecimal characters
        > DELEX h IFEQ v
        -ERR Key should be of string type if conditions are specified
        > DELEX h IFDNE short
        -ERR Key should be of string type if conditions are specified
        > DELEX h NOSUCH v
        -ERR Key should be of string type if conditions are specified
        > DELEX
        -ERR wrong number of arguments for 'delex' command
        > DELEX k IFEQ
        -ERR wrong number of arguments for 'delex' command
        > DELEX missing IFEQ a b
        -ERR wrong number of arguments for 'delex' command
        > EXISTS k h
        :2
        "#,
    );
}

#[test]
fn delifeq_of_valkey_9_deletes_an_equal_value() {
    if skipped_on_redis() {
        return;
    }
    transcript(
        r#"
        > SET k token
        +OK
        > DELIFEQ k other
        :0
        > DELIFEQ k token
        :1
        > DELIFEQ k token
        :0
        > DELIFEQ k ""
        :0
        > HSET h f v
        :1
        > DELIFEQ h v
        -WRONGTYPE Operation against a key holding the wrong kind of value
        > DELIFEQ k
        -ERR wrong number of arguments for 'delifeq' command
        "#,
    );
}

/// An older Redis can load the log, because it holds results, not conditions.
#[test]
fn the_log_has_the_result_of_a_comparison() {
    if skipped_on_redis() {
        return;
    }
    let mut server = Server::start(&[]);
    let mut c = server.client();
    c.transcript(
        r#"
        > MSET a 1 b 2 c 3 d 4
        +OK
        > SET a one IFEQ 1 PXAT 99999999999999
        +OK
        > SET b two IFDNE 0000000000000000
        +OK
        > SET c three IFEQ 4
        nil
        > DELEX c IFEQ 3
        :1
        > DELEX d IFNE 4
        :0
        > DELIFEQ d 4
        :1
        "#,
    );
    let log = std::fs::read(server.log_path()).expect("read the log");
    for word in ["IF", "DELEX"] {
        let found = log.windows(word.len()).any(|part| part == word.as_bytes());
        assert!(!found, "{word} is in the log: {}", quote(&log));
    }
    server.kill_9();
    server.restart();
    let mut c = server.client();
    c.expect("MGET a b c d", r#"["one", "two", nil, nil]"#);
    c.expect("PEXPIRETIME a", ":99999999999999");
    c.expect("PEXPIRETIME b", ":-1");
}
