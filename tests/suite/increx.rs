//! `INCREX`: a counter with bounds and an expiry time. Redis has it since 8.8, Valkey since 9.2.

use crate::harness::*;

#[test]
fn increx_returns_the_sum_and_the_increment() {
    let mut c = connect();
    if !c.redis_at_least("8.8") {
        return;
    }
    c.transcript(
        r#"
        > INCREX k
        [:1, :1]
        > INCREX k BYINT 41
        [:42, :41]
        > increx k byint -50
        [:-8, :-50]
        > INCREX k BYINT 0
        [:-8, :0]
        > GET k
        "-8"
        > INCREX k BYFLOAT 0.25
        ["-7.75", "0.25"]
        > INCREX k BYFLOAT -1e1
        ["-17.75", "-10"]
        > GET k
        "-17.75"
        > SET d 0.1
        +OK
        > INCREX d BYFLOAT 0.2
        ["0.3", "0.2"]
        "#,
    );
    c.reply("HELLO 3");
    c.transcript(
        r#"
        > INCREX new BYINT 5
        [:5, :5]
        > INCREX new BYFLOAT 2.5
        [,7.5, ,2.5]
        > INCREX new BYFLOAT 1 UBOUND 3
        [,7.5, ,0]
        "#,
    );
}

#[test]
fn a_sum_out_of_bounds_is_not_stored_unless_saturate_is_given() {
    let mut c = connect();
    if !c.redis_at_least("8.8") {
        return;
    }
    c.transcript(
        r#"
        > SET k 10
        +OK
        > INCREX k BYINT 5 UBOUND 15
        [:15, :5]
        > INCREX k UBOUND 15 EX 100
        [:15, :0]
        > TTL k
        :-1
        > INCREX k BYINT 10 LBOUND 0 UBOUND 20 SATURATE EX 100
        [:20, :5]
        > TTL k
        :100
        > INCREX k UBOUND 20 SATURATE
        [:20, :0]
        > INCREX k BYINT -30 LBOUND 0 PERSIST
        [:20, :0]
        > TTL k
        :100
        > INCREX k LBOUND 0 SATURATE BYINT -30
        [:0, :-20]
        // The bounds apply to the sum, not to the old value.
        > SET k 50
        +OK
        > INCREX k BYINT 5 UBOUND 30
        [:50, :0]
        > INCREX k BYINT -25 UBOUND 30
        [:25, :-25]
        > SET k 50
        +OK
        > INCREX k BYINT 5 UBOUND 30 SATURATE
        [:30, :-20]
        > INCREX k BYINT -5 LBOUND 40 SATURATE
        [:40, :10]
        > INCREX k LBOUND 3 UBOUND 3
        [:40, :0]
        // A missing key counts as 0, and is created only if a sum is stored.
        > INCREX new BYINT 5 LBOUND 10
        [:0, :0]
        > EXISTS new
        :0
        > INCREX new UBOUND 0 SATURATE
        [:0, :0]
        > GET new
        "0"
        > SET f 10
        +OK
        > INCREX f BYFLOAT 10 UBOUND 15.5
        ["10", "0"]
        > INCREX f BYFLOAT 10 UBOUND 15.5 SATURATE
        ["15.5", "5.5"]
        > INCREX f BYFLOAT -10 LBOUND 5.5 SATURATE
        ["5.5", "-10"]
        "#,
    );
}

#[test]
fn the_limits_of_the_number_types_are_bounds_too() {
    let mut c = connect();
    if !c.redis_at_least("8.8") {
        return;
    }
    c.transcript(
        r#"
        > SET k 9223372036854775800
        +OK
        > INCREX k BYINT 9223372036854775800
        [:9223372036854775800, :0]
        > INCREX k BYINT 9223372036854775800 SATURATE
        [:9223372036854775807, :7]
        > INCREX k SATURATE
        [:9223372036854775807, :0]
        > INCREX k BYINT 1 UBOUND -9223372036854775808 SATURATE
        -ERR applied increment would overflow
        > SET k -9223372036854775800
        +OK
        > INCREX k BYINT -9 SATURATE
        [:-9223372036854775808, :-8]
        > SET k 10
        +OK
        > INCREX k BYINT 9223372036854775807 UBOUND 100
        [:10, :0]
        > INCREX k BYINT 9223372036854775807 UBOUND 100 SATURATE
        [:100, :90]
        > SET k 10
        +OK
        > INCREX k BYFLOAT 1 UBOUND inf
        ["11", "1"]
        > INCREX k BYFLOAT 1 LBOUND -inf UBOUND -inf
        ["11", "0"]
        > INCREX k BYFLOAT 1 LBOUND inf UBOUND inf SATURATE
        -ERR applied increment would be Infinity
        > GET k
        "11"
        "#,
    );
    c.expect("SET k 1e4932", "+OK");
    let sum = c.reply("INCREX k BYFLOAT 1e4932").into_items();
    assert_eq!(sum[1], Reply::Bulk(b"0".to_vec()));
    let sum = c.reply("INCREX k BYFLOAT 1e4932 UBOUND 5 SATURATE").into_items();
    assert_eq!(sum[0], Reply::Bulk(b"5".to_vec()));
    c.expect("SET k -1e4932", "+OK");
    let refused = "-ERR applied increment would be Infinity";
    c.expect("INCREX k BYFLOAT 1 LBOUND 1e4932 SATURATE", refused);
}

#[test]
fn increx_sets_keeps_or_removes_the_expiry_time() {
    let mut c = connect();
    if !c.redis_at_least("8.8") {
        return;
    }
    c.transcript(
        r#"
        > INCREX k EX 100
        [:1, :1]
        > TTL k
        :100
        > INCREX k
        [:2, :1]
        > TTL k
        :100
        > INCREX k ENX PX 5000000
        [:3, :1]
        > TTL k
        :100
        > INCREX k PX 5000000
        [:4, :1]
        > TTL k
        :5000
        > INCREX k EXAT 99999999999
        [:5, :1]
        > EXPIRETIME k
        :99999999999
        > INCREX k PERSIST
        [:6, :1]
        > TTL k
        :-1
        > INCREX k PXAT 99999999999999 ENX
        [:7, :1]
        > PEXPIRETIME k
        :99999999999999
        // An expiry time in the past deletes the key, unless it is not set.
        > INCREX k EXAT 1 ENX
        [:8, :1]
        > INCREX k EXAT 1
        [:9, :1]
        > EXISTS k
        :0
        > INCREX k PXAT 1
        [:1, :1]
        > EXISTS k
        :0
        "#,
    );
}

#[test]
fn increx_rejects_bad_arguments() {
    let mut c = connect();
    if !c.redis_at_least("8.8") {
        return;
    }
    c.transcript(
        r#"
        > INCREX
        -ERR wrong number of arguments for 'increx' command
        > INCREX k NOSUCH
        -ERR syntax error
        > INCREX k BYINT
        -ERR syntax error
        > INCREX k UBOUND
        -ERR syntax error
        > INCREX k EX
        -ERR syntax error
        > INCREX k KEEPTTL
        -ERR syntax error
        > INCREX k ENX
        -ERR ENX flag requires an expiration
        > INCREX k BYINT 1.5
        -ERR Increment is not an integer or out of range
        > INCREX k BYFLOAT x
        -ERR Increment is not a valid float
        > INCREX k BYFLOAT nan
        -ERR Increment is not a valid float
        > INCREX k BYFLOAT -inf
        -ERR BYFLOAT increment cannot be Infinity
        > INCREX k LBOUND x
        -ERR LBOUND is not an integer or out of range
        > INCREX k UBOUND 1.5
        -ERR UBOUND is not an integer or out of range
        > INCREX k BYFLOAT 1 UBOUND x
        -ERR UBOUND is not a valid float
        > INCREX k LBOUND 10 UBOUND 5
        -ERR LBOUND can't be greater than UBOUND
        > INCREX k BYFLOAT 1 UBOUND -inf
        -ERR LBOUND can't be greater than UBOUND
        > INCREX k EX 0
        -ERR invalid expire time in 'increx' command
        > INCREX k PXAT x
        -ERR value is not an integer or out of range
        > EXISTS k
        :0
        > SET s hello
        +OK
        > INCREX s
        -ERR value is not an integer or out of range
        > INCREX s BYFLOAT 1
        -ERR value is not a valid float
        > SET s 1.5
        +OK
        > INCREX s EXAT 1
        -ERR value is not an integer or out of range
        > SET s inf
        +OK
        > INCREX s BYFLOAT 1
        -ERR value cannot be Infinity
        > HSET h f v
        :1
        > INCREX h BYFLOAT 1
        -WRONGTYPE Operation against a key holding the wrong kind of value
        "#,
    );
    for twice in [
        "BYINT 1 BYINT 2",
        "BYINT 1 BYFLOAT 2",
        "LBOUND 0 LBOUND 0",
        "UBOUND 9 UBOUND 9",
        "SATURATE SATURATE",
        "ENX ENX EX 10",
        "EX 10 EX 10",
        "EX 10 PXAT 99999999999999",
        "PERSIST PERSIST",
        "PERSIST EX 10",
        "EX 10 PERSIST",
        "PERSIST ENX",
        "ENX PERSIST",
    ] {
        c.expect(&format!("INCREX k {twice}"), "-ERR syntax error");
    }
}

#[test]
fn increx_has_the_conditions_of_valkey_9_2() {
    if skipped_on_redis() {
        return;
    }
    transcript(
        r#"
        > INCREX k XX BYFLOAT 2
        ["0", "0"]
        > INCREX k XX
        [:0, :0]
        > EXISTS k
        :0
        > INCREX k NX BYINT 3 EX 100
        [:3, :3]
        > INCREX k NX BYINT 3 PERSIST
        [:3, :0]
        > TTL k
        :100
        > INCREX k xx
        [:4, :1]
        > INCREX k NX XX
        -ERR syntax error
        "#,
    );
}

#[test]
fn the_log_has_the_sum_and_the_expiry_time() {
    if skipped_on_redis() {
        return;
    }
    let mut server = Server::start(&[]);
    let mut c = server.client();
    c.transcript(
        r#"
        > INCREX a BYINT 5 PX 5000000
        [:5, :5]
        > INCREX a BYINT 9 UBOUND 8 SATURATE
        [:8, :3]
        > INCREX b BYFLOAT 0.1 EX 100
        ["0.1", "0.1"]
        > INCREX b BYFLOAT 0.2 PERSIST
        ["0.3", "0.2"]
        > SET c 1
        +OK
        > INCREX c EXAT 1
        [:2, :1]
        > INCREX d UBOUND 0
        [:0, :0]
        "#,
    );
    let expiry = c.integer("PEXPIRETIME a");
    let log = std::fs::read(server.log_path()).expect("read the log");
    assert!(!log.windows(6).any(|part| part == b"INCREX"), "{}", quote(&log));
    server.kill_9();
    server.restart();
    let mut c = server.client();
    c.expect("MGET a b c d", r#"["8", "0.3", nil, nil]"#);
    assert_eq!(c.integer("PEXPIRETIME a"), expiry);
    c.expect("PEXPIRETIME b", ":-1");
}
