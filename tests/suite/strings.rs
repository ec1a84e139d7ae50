//! Commands on strings.

use crate::harness::{
    Reply, Server, connect, encode, eventually, quote, say, skipped_on_redis, split_command,
    transcript, unix_now_ms,
};

#[test]
fn set_stores_and_get_returns() {
    transcript(
        r#"
        > GET k
        nil
        > SET k v
        +OK
        > GET k
        "v"
        > SET k "another value"
        +OK
        > GET k
        "another value"
        > set K lower
        +OK
        > gEt K
        "lower"
        > GET k
        "another value"
        "#,
    );
}

#[test]
fn keys_and_values_are_bytes_and_may_be_empty() {
    transcript(
        r#"
        > SET "" ""
        +OK
        > GET ""
        ""
        > STRLEN ""
        :0
        > EXISTS ""
        :1
        > SET "\x00\xff\r\n" "\x00\x01\xfe\xff\r\n*1\r\n"
        +OK
        > GET "\x00\xff\r\n"
        "\x00\x01\xfe\xff\r\n*1\r\n"
        > STRLEN "\x00\xff\r\n"
        :10
        > SET "\x00" a
        +OK
        > SET "\x00\x00" b
        +OK
        > MGET "\x00" "\x00\x00"
        ["a", "b"]
        "#,
    );
}

#[test]
fn a_value_of_many_megabytes_is_returned_intact() {
    let mut c = connect();
    let value: Vec<u8> = (0..5_000_000u32).map(|i| (i * 31).to_le_bytes()[1]).collect();
    assert_eq!(c.call(&[b"SET", &b"big"[..], &value]).to_string(), "+OK");
    assert!(c.reply("GET big").into_bytes() == value, "the value differs");
    c.expect("STRLEN big", ":5000000");
}

#[test]
fn set_nx_and_xx_check_whether_the_key_exists() {
    transcript(
        r#"
        > SET k v XX
        nil
        > EXISTS k
        :0
        > SET k v NX
        +OK
        > SET k w NX
        nil
        > GET k
        "v"
        > SET k w XX
        +OK
        > GET k
        "w"
        > SET k x nx
        nil
        > SET k x xX
        +OK
        > SET k y NX XX
        -ERR syntax error
        > SET k y XX NX
        -ERR syntax error
        > GET k
        "x"
        "#,
    );
}

#[test]
fn set_overwrites_any_type_but_get_reads_strings_only() {
    transcript(
        r#"
        > HSET h f v
        :1
        > GET h
        -WRONGTYPE Operation against a key holding the wrong kind of value
        > SET h v GET
        -WRONGTYPE Operation against a key holding the wrong kind of value
        > SET h v NX GET
        -WRONGTYPE Operation against a key holding the wrong kind of value
        > SET h v XX GET
        -WRONGTYPE Operation against a key holding the wrong kind of value
        > TYPE h
        +hash
        > SET h v
        +OK
        > GET h
        "v"
        > HSET h2 f v
        :1
        > SET h2 v NX
        nil
        > SET h2 v XX
        +OK
        > TYPE h2
        +string
        "#,
    );
}

#[test]
fn set_get_returns_the_old_value() {
    transcript(
        r#"
        > SET k v1 GET
        nil
        > GET k
        "v1"
        > SET k v2 GET
        "v1"
        > GET k
        "v2"
        > SET k v3 XX GET
        "v2"
        > SET k v4 GET XX
        "v3"
        > GET k
        "v4"
        > SET k v5 NX GET
        "v4"
        > GET k
        "v4"
        > SET new v1 NX GET
        nil
        > GET new
        "v1"
        > SET other v1 XX GET
        nil
        > EXISTS other
        :0
        > SET k v6 GET GET
        "v4"
        > SET k v7 EX 100 GET
        "v6"
        > TTL k
        :100
        > SET k v8 GET KEEPTTL
        "v7"
        > TTL k
        :100
        > SET k v9 get
        "v8"
        > TTL k
        :-1
        "#,
    );
}

#[test]
fn set_ifeq_and_ifne_compare_the_old_value() {
    let mut c = connect();
    if !c.redis_at_least("8.4") {
        return;
    }
    c.transcript(
        r#"
        > SET k v IFEQ old
        nil
        > EXISTS k
        :0
        > SET k v IFNE old
        +OK
        > SET k w IFNE v
        nil
        > SET k w IFEQ V
        nil
        > SET k w ifeq v
        +OK
        > GET k
        "w"
        > SET k x IFEQ w GET
        "w"
        > SET k y IFEQ w GET
        "x"
        > GET k
        "x"
        > SET k y IFNE w EX 100
        +OK
        > TTL k
        :100
        > SET k y IFEQ
        -ERR syntax error
        > SET k y IFEQ y NX
        -ERR syntax error
        > SET k y XX IFNE y
        -ERR syntax error
        > SET k y IFEQ y IFNE y
        -ERR syntax error
        > HSET h f v
        :1
        > SET h v IFEQ v
        -WRONGTYPE Operation against a key holding the wrong kind of value
        > TYPE h
        +hash
        "#,
    );
}

#[test]
fn set_takes_an_expiry_time_in_four_units() {
    let mut c = connect();
    c.transcript(
        r#"
        > SET a v EX 100
        +OK
        > TTL a
        :100
        > SET b v PX 100000
        +OK
        > TTL b
        :100
        > SET c v EXAT 33177117420
        +OK
        > EXPIRETIME c
        :33177117420
        > PEXPIRETIME c
        :33177117420000
        > SET d v PXAT 33177117420123
        +OK
        > EXPIRETIME d
        :33177117420
        > PEXPIRETIME d
        :33177117420123
        > SET e v ex 100 nx
        +OK
        > TTL e
        :100
        > SET e v XX pXaT 33177117420123
        +OK
        > PEXPIRETIME e
        :33177117420123
        > SET e v NX EX 7
        nil
        > PEXPIRETIME e
        :33177117420123
        "#,
    );
    let left = c.integer("PTTL a");
    assert!((95_000..=100_000).contains(&left), "PTTL is {left}");
}

#[test]
fn set_drops_the_old_expiry_time_unless_keepttl_is_given() {
    transcript(
        r#"
        > SET k v EX 100
        +OK
        > SET k w
        +OK
        > TTL k
        :-1
        > SET k v EX 100
        +OK
        > SET k w KEEPTTL
        +OK
        > TTL k
        :100
        > GET k
        "w"
        > SET k x keepttl XX
        +OK
        > TTL k
        :100
        > SET fresh v KEEPTTL
        +OK
        > TTL fresh
        :-1
        > HSET h f v
        :1
        > EXPIRE h 100
        :1
        > SET h v KEEPTTL
        +OK
        > TTL h
        :100
        > SET k v EX 100
        +OK
        > SET k w NX
        nil
        > TTL k
        :100
        "#,
    );
}

#[test]
fn a_key_that_is_set_with_an_expiry_time_in_the_past_never_shows() {
    transcript(
        r#"
        > SET a v EXAT 1
        +OK
        > GET a
        nil
        > EXISTS a
        :0
        > SET b v PXAT 1
        +OK
        > EXISTS b
        :0
        > SET c old
        +OK
        > SET c v PXAT 1 GET
        "old"
        > EXISTS c
        :0
        > KEYS *
        []
        > SET c v PXAT 1 XX
        nil
        > SET c v PXAT 1 NX
        +OK
        > EXISTS c
        :0
        "#,
    );
}

#[test]
fn set_rejects_bad_expiry_times() {
    transcript(
        r#"
        > SET k v EX 0
        -ERR invalid expire time in 'set' command
        > SET k v EX -1
        -ERR invalid expire time in 'set' command
        > SET k v PX 0
        -ERR invalid expire time in 'set' command
        > SET k v PX -1
        -ERR invalid expire time in 'set' command
        > SET k v EXAT 0
        -ERR invalid expire time in 'set' command
        > SET k v EXAT -1
        -ERR invalid expire time in 'set' command
        > SET k v PXAT 0
        -ERR invalid expire time in 'set' command
        > SET k v PXAT -5
        -ERR invalid expire time in 'set' command
        > SET k v EX 9223372036854775807
        -ERR invalid expire time in 'set' command
        > SET k v EX 9223372036854776
        -ERR invalid expire time in 'set' command
        > SET k v EX 9223372036854775
        -ERR invalid expire time in 'set' command
        > SET k v EXAT 9223372036854776
        -ERR invalid expire time in 'set' command
        > SET k v PX 9223372036854775807
        -ERR invalid expire time in 'set' command
        > SET k v EX 9223372036854775808
        -ERR value is not an integer or out of range
        > SET k v EX abc
        -ERR value is not an integer or out of range
        > SET k v EX 1.5
        -ERR value is not an integer or out of range
        > SET k v EX ""
        -ERR value is not an integer or out of range
        > SET k v EX " 1"
        -ERR value is not an integer or out of range
        > SET k v EX "1 "
        -ERR value is not an integer or out of range
        > SET k v EX +1
        -ERR value is not an integer or out of range
        > SET k v EX 01
        -ERR value is not an integer or out of range
        > SET k v PX ten
        -ERR value is not an integer or out of range
        > SET k v EXAT soon
        -ERR value is not an integer or out of range
        > SET k v PXAT -9223372036854775809
        -ERR value is not an integer or out of range
        > EXISTS k
        :0
        > SET k v PXAT 9223372036854775807
        +OK
        > PEXPIRETIME k
        :9223372036854775807
        > EXPIRETIME k
        :9223372036854776
        > SET k v EXAT 9223372036854775
        +OK
        > PEXPIRETIME k
        :9223372036854775000
        "#,
    );
}

#[test]
fn set_rejects_contradictory_and_unknown_options() {
    transcript(
        r#"
        > SET k v FOO
        -ERR syntax error
        > SET k v EX
        -ERR syntax error
        > SET k v PX
        -ERR syntax error
        > SET k v EX 10 PX 10
        -ERR syntax error
        > SET k v EX 10 EX 20
        +OK
        > TTL k
        :20
        > SET k v EXAT 33177117420 EX 10
        -ERR syntax error
        > SET k v PXAT 33177117420000 EXAT 33177117420
        -ERR syntax error
        > SET k v KEEPTTL EX 10
        -ERR syntax error
        > SET k v EX 10 KEEPTTL
        -ERR syntax error
        > SET k v PXAT 33177117420000 KEEPTTL
        -ERR syntax error
        > SET k v NX NX
        nil
        > DEL k
        :1
        > SET k v KEEPTTL KEEPTTL
        +OK
        > SET k v 10
        -ERR syntax error
        > SET k v PERSIST
        -ERR syntax error
        > SET k v EX NX
        -ERR value is not an integer or out of range
        > SET k v EX 0 FOO
        -ERR syntax error
        > SET k v ""
        -ERR syntax error
        > GET k
        "v"
        "#,
    );
}

#[test]
fn set_checks_its_options_before_the_type_of_the_key() {
    transcript(
        r#"
        > HSET h f v
        :1
        > SET h v EX 0 GET
        -ERR invalid expire time in 'set' command
        > SET h v EX abc GET
        -ERR value is not an integer or out of range
        > SET h v GET FOO
        -ERR syntax error
        > SET h v NX XX GET
        -ERR syntax error
        > SET h v GET EX 10
        -WRONGTYPE Operation against a key holding the wrong kind of value
        > TYPE h
        +hash
        "#,
    );
}

#[test]
fn setnx_sets_only_a_new_key() {
    transcript(
        r#"
        > SETNX k v
        :1
        > SETNX k w
        :0
        > GET k
        "v"
        > TTL k
        :-1
        > HSET h f v
        :1
        > SETNX h v
        :0
        > TYPE h
        +hash
        > SETNX k
        -ERR wrong number of arguments for 'setnx' command
        > SETNX k v x
        -ERR wrong number of arguments for 'setnx' command
        "#,
    );
}

#[test]
fn setex_and_psetex_set_with_a_time_to_live() {
    transcript(
        r#"
        > SETEX k 100 v
        +OK
        > GET k
        "v"
        > TTL k
        :100
        > PSETEX k 200000 w
        +OK
        > GET k
        "w"
        > TTL k
        :200
        > HSET h f v
        :1
        > SETEX h 100 v
        +OK
        > TYPE h
        +string
        > SETEX k 0 v
        -ERR invalid expire time in 'setex' command
        > SETEX k -1 v
        -ERR invalid expire time in 'setex' command
        > PSETEX k 0 v
        -ERR invalid expire time in 'psetex' command
        > PSETEX k -10 v
        -ERR invalid expire time in 'psetex' command
        > SETEX k 9223372036854775807 v
        -ERR invalid expire time in 'setex' command
        > SETEX k 9223372036854776 v
        -ERR invalid expire time in 'setex' command
        > PSETEX k 9223372036854775807 v
        -ERR invalid expire time in 'psetex' command
        > SETEX k abc v
        -ERR value is not an integer or out of range
        > SETEX k 1.5 v
        -ERR value is not an integer or out of range
        > PSETEX k abc v
        -ERR value is not an integer or out of range
        > SETEX k 10
        -ERR wrong number of arguments for 'setex' command
        > SETEX k 10 v x
        -ERR wrong number of arguments for 'setex' command
        > PSETEX k 10
        -ERR wrong number of arguments for 'psetex' command
        > GET k
        "w"
        > TTL k
        :200
        "#,
    );
}

#[test]
fn getset_returns_the_old_value_and_drops_the_expiry_time() {
    transcript(
        r#"
        > GETSET k v
        nil
        > GETSET k w
        "v"
        > GET k
        "w"
        > SET k v EX 100
        +OK
        > GETSET k x
        "v"
        > TTL k
        :-1
        > HSET h f v
        :1
        > GETSET h v
        -WRONGTYPE Operation against a key holding the wrong kind of value
        > TYPE h
        +hash
        > GETSET k
        -ERR wrong number of arguments for 'getset' command
        > GETSET k v w
        -ERR wrong number of arguments for 'getset' command
        "#,
    );
}

#[test]
fn getdel_returns_the_value_and_deletes_the_key() {
    transcript(
        r#"
        > SET k v
        +OK
        > GETDEL k
        "v"
        > GETDEL k
        nil
        > EXISTS k
        :0
        > HSET h f v
        :1
        > GETDEL h
        -WRONGTYPE Operation against a key holding the wrong kind of value
        > EXISTS h
        :1
        > GETDEL
        -ERR wrong number of arguments for 'getdel' command
        > GETDEL a b
        -ERR wrong number of arguments for 'getdel' command
        "#,
    );
}

#[test]
fn getex_returns_the_value_and_changes_the_expiry_time() {
    transcript(
        r#"
        > GETEX k
        nil
        > GETEX k EX 100
        nil
        > EXISTS k
        :0
        > SET k v
        +OK
        > GETEX k
        "v"
        > TTL k
        :-1
        > GETEX k EX 100
        "v"
        > TTL k
        :100
        > GETEX k
        "v"
        > TTL k
        :100
        > GETEX k px 200000
        "v"
        > TTL k
        :200
        > GETEX k EXAT 33177117420
        "v"
        > PEXPIRETIME k
        :33177117420000
        > GETEX k PXAT 33177117420123
        "v"
        > PEXPIRETIME k
        :33177117420123
        > GETEX k PERSIST
        "v"
        > TTL k
        :-1
        > GETEX k persist
        "v"
        > TTL k
        :-1
        > GETEX k EXAT 1
        "v"
        > EXISTS k
        :0
        > SET k v
        +OK
        > GETEX k PXAT 1
        "v"
        > EXISTS k
        :0
        > HSET h f v
        :1
        > GETEX h
        -WRONGTYPE Operation against a key holding the wrong kind of value
        > GETEX h EX 10
        -WRONGTYPE Operation against a key holding the wrong kind of value
        "#,
    );
}

#[test]
fn getex_rejects_bad_expiry_times_and_options() {
    transcript(
        r#"
        > SET k v
        +OK
        > GETEX k EX 0
        -ERR invalid expire time in 'getex' command
        > GETEX k EX -1
        -ERR invalid expire time in 'getex' command
        > GETEX k PX 0
        -ERR invalid expire time in 'getex' command
        > GETEX k PXAT 0
        -ERR invalid expire time in 'getex' command
        > GETEX k EXAT -1
        -ERR invalid expire time in 'getex' command
        > GETEX k EX 9223372036854775807
        -ERR invalid expire time in 'getex' command
        > GETEX k EX abc
        -ERR value is not an integer or out of range
        > GETEX k EX
        -ERR syntax error
        > GETEX k EX 10 PX 10
        -ERR syntax error
        > GETEX k EX 10 PERSIST
        -ERR syntax error
        > GETEX k PERSIST EX 10
        -ERR syntax error
        > GETEX k PERSIST PERSIST
        "v"
        > GETEX k KEEPTTL
        -ERR syntax error
        > GETEX k NX
        -ERR syntax error
        > GETEX k XX
        -ERR syntax error
        > GETEX k GET
        -ERR syntax error
        > GETEX k FOO
        -ERR syntax error
        > GETEX k 10
        -ERR syntax error
        > GETEX
        -ERR wrong number of arguments for 'getex' command
        > TTL k
        :-1
        > GETEX missing EX 0
        nil
        > GETEX missing FOO
        -ERR syntax error
        > HSET h f v
        :1
        > GETEX h EX 0
        -WRONGTYPE Operation against a key holding the wrong kind of value
        > GETEX h FOO
        -ERR syntax error
        "#,
    );
}

#[test]
fn mget_replies_nil_for_a_missing_key_or_another_type() {
    transcript(
        r#"
        > MSET a 1 b 2
        +OK
        > HSET h f v
        :1
        > MGET a b c h a
        ["1", "2", nil, nil, "1"]
        > MGET a
        ["1"]
        > MGET missing
        [nil]
        > MGET
        -ERR wrong number of arguments for 'mget' command
        "#,
    );
}

#[test]
fn mset_sets_all_keys() {
    transcript(
        r#"
        > MSET a 1 b 2 c 3
        +OK
        > MGET a b c
        ["1", "2", "3"]
        > MSET a 1 a 2 a 3
        +OK
        > GET a
        "3"
        > HSET h f v
        :1
        > SET e v EX 100
        +OK
        > MSET h v e w
        +OK
        > TYPE h
        +string
        > TTL e
        :-1
        > MSET
        -ERR wrong number of arguments for 'mset' command
        > MSET a
        -ERR wrong number of arguments for 'mset' command
        > MSET a 1 b
        -ERR wrong number of arguments for 'mset' command
        > MSET a 9 b 9 c
        -ERR wrong number of arguments for 'mset' command
        > MGET a b c
        ["3", "2", "3"]
        "#,
    );
}

#[test]
fn msetnx_sets_all_keys_or_none() {
    transcript(
        r#"
        > MSETNX a 1 b 2
        :1
        > MSETNX b 3 c 4
        :0
        > MGET a b c
        ["1", "2", nil]
        > MSETNX d 1 d 2
        :1
        > GET d
        "2"
        > HSET h f v
        :1
        > MSETNX x 1 h 2
        :0
        > EXISTS x
        :0
        > MSETNX
        -ERR wrong number of arguments for 'msetnx' command
        > MSETNX a
        -ERR wrong number of arguments for 'msetnx' command
        > MSETNX x 1 y
        -ERR wrong number of arguments for 'msetnx' command
        "#,
    );
}

#[test]
fn append_extends_the_value_and_returns_its_length() {
    transcript(
        r#"
        > APPEND k Hello
        :5
        > APPEND k " World"
        :11
        > GET k
        "Hello World"
        > APPEND k ""
        :11
        > APPEND new ""
        :0
        > EXISTS new
        :1
        > GET new
        ""
        > SET n 10
        +OK
        > APPEND n 5
        :3
        > INCR n
        :106
        > GET n
        "106"
        > SET e v EX 100
        +OK
        > APPEND e "\x00\xff"
        :3
        > GET e
        "v\x00\xff"
        > TTL e
        :100
        > HSET h f v
        :1
        > APPEND h x
        -WRONGTYPE Operation against a key holding the wrong kind of value
        > APPEND k
        -ERR wrong number of arguments for 'append' command
        > APPEND k a b
        -ERR wrong number of arguments for 'append' command
        "#,
    );
}

#[test]
fn strlen_counts_bytes() {
    transcript(
        r#"
        > STRLEN missing
        :0
        > SET k hello
        +OK
        > STRLEN k
        :5
        > SET k "\xc3\xa9\x00"
        +OK
        > STRLEN k
        :3
        > SET n -12345
        +OK
        > STRLEN n
        :6
        > HSET h f v
        :1
        > STRLEN h
        -WRONGTYPE Operation against a key holding the wrong kind of value
        > STRLEN
        -ERR wrong number of arguments for 'strlen' command
        > STRLEN a b
        -ERR wrong number of arguments for 'strlen' command
        "#,
    );
}

#[test]
fn getrange_takes_offsets_from_both_ends() {
    transcript(
        r#"
        > SET k "This is a string"
        +OK
        > GETRANGE k 0 3
        "This"
        > GETRANGE k -3 -1
        "ing"
        > GETRANGE k 0 -1
        "This is a string"
        > GETRANGE k 10 100
        "string"
        > GETRANGE k 5 5
        "i"
        > GETRANGE k 15 15
        "g"
        > GETRANGE k 16 16
        ""
        > GETRANGE k 16 20
        ""
        > GETRANGE k 5 3
        ""
        > GETRANGE k -1 -3
        ""
        > GETRANGE k -3 2
        ""
        > GETRANGE k -100 3
        "This"
        > GETRANGE k -100 -16
        "T"
        > GETRANGE k -100 100
        "This is a string"
        > GETRANGE k -16 -16
        "T"
        > GETRANGE k 3 -3
        "s is a stri"
        > GETRANGE k -5 8
        ""
        > GETRANGE k 9223372036854775807 9223372036854775807
        ""
        > GETRANGE k -9223372036854775808 9223372036854775807
        "This is a string"
        > GETRANGE k 0 9223372036854775807
        "This is a string"
        > GETRANGE missing 0 -1
        ""
        > SET empty ""
        +OK
        > GETRANGE empty 0 -1
        ""
        > GETRANGE empty -1 -1
        ""
        > SET n 1234567
        +OK
        > GETRANGE n 2 4
        "345"
        "#,
    );
}

#[test]
fn getrange_takes_an_end_before_the_first_byte_as_the_first_byte() {
    transcript(
        r#"
        > SET k hello
        +OK
        > GETRANGE k 0 -5
        "h"
        > GETRANGE k 0 -6
        "h"
        > GETRANGE k 0 -100
        "h"
        > GETRANGE k 1 -100
        ""
        > GETRANGE k -1 -100
        ""
        > GETRANGE k -100 -99
        "h"
        > GETRANGE k -100 -100
        "h"
        > GETRANGE k -100 -101
        ""
        > GETRANGE k -9223372036854775808 -9223372036854775808
        "h"
        "#,
    );
}

#[test]
fn getrange_checks_its_offsets_first() {
    transcript(
        r#"
        > GETRANGE missing a 1
        -ERR value is not an integer or out of range
        > GETRANGE missing 0 b
        -ERR value is not an integer or out of range
        > GETRANGE missing 0 9223372036854775808
        -ERR value is not an integer or out of range
        > GETRANGE missing 1.0 2
        -ERR value is not an integer or out of range
        > HSET h f v
        :1
        > GETRANGE h 0 1
        -WRONGTYPE Operation against a key holding the wrong kind of value
        > GETRANGE h x 1
        -ERR value is not an integer or out of range
        > GETRANGE k 0
        -ERR wrong number of arguments for 'getrange' command
        > GETRANGE k 0 1 2
        -ERR wrong number of arguments for 'getrange' command
        > GETRANGE k -0 1
        -ERR value is not an integer or out of range
        "#,
    );
}

#[test]
fn setrange_overwrites_and_pads_with_zero_bytes() {
    transcript(
        r#"
        > SET k "Hello World"
        +OK
        > SETRANGE k 6 Redis
        :11
        > GET k
        "Hello Redis"
        > SETRANGE k 9 "is it"
        :14
        > GET k
        "Hello Redis it"
        > SETRANGE k 0 J
        :14
        > GET k
        "Jello Redis it"
        > SETRANGE k 0 ""
        :14
        > SETRANGE k 1000 ""
        :14
        > STRLEN k
        :14
        > SETRANGE new 3 abc
        :6
        > GET new
        "\x00\x00\x00abc"
        > SETRANGE missing 5 ""
        :0
        > EXISTS missing
        :0
        > SET short ab
        +OK
        > SETRANGE short 4 z
        :5
        > GET short
        "ab\x00\x00z"
        > SET n 12345
        +OK
        > SETRANGE n 1 99
        :5
        > INCR n
        :19946
        > SET e v EX 100
        +OK
        > SETRANGE e 1 w
        :2
        > TTL e
        :100
        > GET e
        "vw"
        "#,
    );
}

#[test]
fn setrange_rejects_bad_offsets() {
    transcript(
        r#"
        > SETRANGE k -1 x
        -ERR offset is out of range
        > SETRANGE k -9223372036854775808 ""
        -ERR offset is out of range
        > SETRANGE k abc x
        -ERR value is not an integer or out of range
        > SETRANGE k 1.5 x
        -ERR value is not an integer or out of range
        > SETRANGE k 9223372036854775808 x
        -ERR value is not an integer or out of range
        > SETRANGE k 536870912 x
        -ERR string exceeds maximum allowed size (proto-max-bulk-len)
        > SETRANGE k 536870911 xy
        -ERR string exceeds maximum allowed size (proto-max-bulk-len)
        > SETRANGE k 9223372036854775807 x
        -ERR string exceeds maximum allowed size (proto-max-bulk-len)
        > SETRANGE k 4294967295 x
        -ERR string exceeds maximum allowed size (proto-max-bulk-len)
        > SETRANGE k 9223372036854775807 ""
        :0
        > EXISTS k
        :0
        > SET k v
        +OK
        > SETRANGE k 536870912 x
        -ERR string exceeds maximum allowed size (proto-max-bulk-len)
        > SETRANGE k 9223372036854775807 ""
        :1
        > HSET h f v
        :1
        > SETRANGE h 0 x
        -WRONGTYPE Operation against a key holding the wrong kind of value
        > SETRANGE h 0 ""
        -WRONGTYPE Operation against a key holding the wrong kind of value
        > SETRANGE h 536870912 x
        -WRONGTYPE Operation against a key holding the wrong kind of value
        > SETRANGE h -1 x
        -ERR offset is out of range
        > SETRANGE k 0
        -ERR wrong number of arguments for 'setrange' command
        > SETRANGE k 0 a b
        -ERR wrong number of arguments for 'setrange' command
        "#,
    );
}

#[test]
fn the_largest_string_is_512_megabytes() {
    transcript(
        r#"
        > SETRANGE k 536870910 xy
        :536870912
        > APPEND k z
        -ERR string exceeds maximum allowed size (proto-max-bulk-len)
        > SETRANGE k 536870912 z
        -ERR string exceeds maximum allowed size (proto-max-bulk-len)
        > STRLEN k
        :536870912
        > GETRANGE k -3 -1
        "\x00xy"
        "#,
    );
}

#[test]
fn incr_decr_incrby_and_decrby_change_the_value() {
    transcript(
        r#"
        > INCR n
        :1
        > INCR n
        :2
        > GET n
        "2"
        > DECR n
        :1
        > DECR new
        :-1
        > INCRBY n 10
        :11
        > INCRBY n -20
        :-9
        > DECRBY n 5
        :-14
        > DECRBY n -100
        :86
        > GET n
        "86"
        > SET n 010
        +OK
        > INCR n
        -ERR value is not an integer or out of range
        > SET n 17 EX 100
        +OK
        > INCRBY n 0
        :17
        > TTL n
        :100
        > INCRBY fresh 0
        :0
        > GET fresh
        "0"
        > SET zero 0
        +OK
        > DECR zero
        :-1
        > SET neg -1
        +OK
        > INCR neg
        :0
        "#,
    );
}

#[test]
fn counters_stop_at_the_limits_of_64_bits() {
    transcript(
        r#"
        > SET n 9223372036854775806
        +OK
        > INCR n
        :9223372036854775807
        > INCR n
        -ERR increment or decrement would overflow
        > INCRBY n 1
        -ERR increment or decrement would overflow
        > GET n
        "9223372036854775807"
        > SET n -9223372036854775807
        +OK
        > DECR n
        :-9223372036854775808
        > DECR n
        -ERR increment or decrement would overflow
        > DECRBY n 1
        -ERR increment or decrement would overflow
        > INCRBY n -1
        -ERR increment or decrement would overflow
        > GET n
        "-9223372036854775808"
        > INCRBY n 9223372036854775807
        :-1
        > DECRBY n -9223372036854775808
        -ERR decrement would overflow
        > DECRBY missing -9223372036854775808
        -ERR decrement would overflow
        > EXISTS missing
        :0
        > INCRBY m -9223372036854775808
        :-9223372036854775808
        > INCRBY m 9223372036854775808
        -ERR value is not an integer or out of range
        > INCRBY m -9223372036854775809
        -ERR value is not an integer or out of range
        > SET m 1
        +OK
        > INCRBY m 9223372036854775807
        -ERR increment or decrement would overflow
        > SET m -2
        +OK
        > INCRBY m -9223372036854775807
        -ERR increment or decrement would overflow
        > GET m
        "-2"
        "#,
    );
}

#[test]
fn counters_accept_only_integers_in_canonical_form() {
    transcript(
        r#"
        > SET n abc
        +OK
        > INCR n
        -ERR value is not an integer or out of range
        > SET n ""
        +OK
        > INCR n
        -ERR value is not an integer or out of range
        > SET n 1.0
        +OK
        > INCR n
        -ERR value is not an integer or out of range
        > SET n " 1"
        +OK
        > INCR n
        -ERR value is not an integer or out of range
        > SET n "1 "
        +OK
        > DECR n
        -ERR value is not an integer or out of range
        > SET n +1
        +OK
        > INCR n
        -ERR value is not an integer or out of range
        > SET n -0
        +OK
        > INCR n
        -ERR value is not an integer or out of range
        > SET n 9223372036854775808
        +OK
        > INCR n
        -ERR value is not an integer or out of range
        > SET n -9223372036854775809
        +OK
        > DECR n
        -ERR value is not an integer or out of range
        > SET n 0x10
        +OK
        > INCR n
        -ERR value is not an integer or out of range
        > SET n "1\x00"
        +OK
        > INCR n
        -ERR value is not an integer or out of range
        > SET n 1
        +OK
        > INCRBY n abc
        -ERR value is not an integer or out of range
        > INCRBY n 1.5
        -ERR value is not an integer or out of range
        > INCRBY n ""
        -ERR value is not an integer or out of range
        > INCRBY n +5
        -ERR value is not an integer or out of range
        > INCRBY n 05
        -ERR value is not an integer or out of range
        > INCRBY n " 5"
        -ERR value is not an integer or out of range
        > DECRBY n abc
        -ERR value is not an integer or out of range
        > DECRBY n 9223372036854775808
        -ERR value is not an integer or out of range
        > GET n
        "1"
        > HSET h f v
        :1
        > INCR h
        -WRONGTYPE Operation against a key holding the wrong kind of value
        > DECR h
        -WRONGTYPE Operation against a key holding the wrong kind of value
        > INCRBY h 1
        -WRONGTYPE Operation against a key holding the wrong kind of value
        > DECRBY h 1
        -WRONGTYPE Operation against a key holding the wrong kind of value
        > INCRBY h abc
        -ERR value is not an integer or out of range
        > INCR
        -ERR wrong number of arguments for 'incr' command
        > INCR a b
        -ERR wrong number of arguments for 'incr' command
        > DECR
        -ERR wrong number of arguments for 'decr' command
        > INCRBY n
        -ERR wrong number of arguments for 'incrby' command
        > INCRBY n 1 2
        -ERR wrong number of arguments for 'incrby' command
        > DECRBY n
        -ERR wrong number of arguments for 'decrby' command
        "#,
    );
}

#[test]
fn incrbyfloat_prints_plain_decimals() {
    transcript(
        r#"
        > INCRBYFLOAT n 0.1
        "0.1"
        > INCRBYFLOAT n 0.2
        "0.3"
        > GET n
        "0.3"
        > SET n 10.50
        +OK
        > INCRBYFLOAT n 0.1
        "10.6"
        > INCRBYFLOAT n -5
        "5.6"
        > SET n 5.0e3
        +OK
        > INCRBYFLOAT n 2.0e2
        "5200"
        > SET n 3.0
        +OK
        > INCRBYFLOAT n 0
        "3"
        > GET n
        "3"
        > INCRBYFLOAT n 1.000
        "4"
        > INCRBYFLOAT n -4
        "0"
        > INCRBYFLOAT n -0.5
        "-0.5"
        > SET n 1e3
        +OK
        > INCRBYFLOAT n 1E-3
        "1000.001"
        > SET n .5
        +OK
        > INCRBYFLOAT n 5.
        "5.5"
        > SET n +1.5
        +OK
        > INCRBYFLOAT n +1
        "2.5"
        > SET n 0
        +OK
        > INCRBYFLOAT n 0.00000000000000001
        "0.00000000000000001"
        > SET n 0
        +OK
        > INCRBYFLOAT n 0.000000000000000001
        "0"
        > SET n 0
        +OK
        > INCRBYFLOAT n -0.0
        "0"
        > SET n 100
        +OK
        > INCRBYFLOAT n 1e-10
        "100.0000000001"
        > SET n 1.1
        +OK
        > INCRBYFLOAT n 2.2
        "3.3"
        > SET n 1e25
        +OK
        > INCRBYFLOAT n 1
        "10000000000000000000000000"
        "#,
    );
}

/// Redis computes in `long double`. On x86-64, where the values were observed, it has 64 bits of
/// precision and an exponent of 15 bits, and is printed with 17 decimals without trailing zeros.
#[test]
fn incrbyfloat_computes_with_64_bits_of_precision() {
    if std::env::var_os("REDIS_ADDR").is_some() && !cfg!(target_arch = "x86_64") {
        return say("skipped: the precision of Redis is that of x86-64 only there");
    }
    transcript(
        r#"
        > SET n 9007199254740993
        +OK
        > INCRBYFLOAT n 1
        "9007199254740994"
        > SET n 9223372036854775807
        +OK
        > INCRBYFLOAT n 1
        "9223372036854775808"
        > SET n 18446744073709551615
        +OK
        > INCRBYFLOAT n 1
        "18446744073709551616"
        > INCRBYFLOAT n 1
        "18446744073709551616"
        > SET n 3.14159265358979323846
        +OK
        > INCRBYFLOAT n 0
        "3.14159265358979324"
        > SET n 1
        +OK
        > INCRBYFLOAT n 0.333333333333333333
        "1.33333333333333333"
        > SET n 1234567.891
        +OK
        > INCRBYFLOAT n 0.0001
        "1234567.89109999999993761"
        > SET n 1e17
        +OK
        > INCRBYFLOAT n 0.1
        "100000000000000000.1015625"
        > SET n 1e30
        +OK
        > INCRBYFLOAT n 1e10
        "1000000000000000000024696061952"
        > SET n 1e300
        +OK
        > INCRBYFLOAT n 0
        "1000000000000000000008997324079559193870523944273290747938260082321265646596180935755849152083750497190350372508614274835903592556184672983913096260520748646287327135641843653294084255107606016789726652932370030551382947620994540294772781889620606179267611627097410650567187386105690089424915104006144"
        > SET n 1e308
        +OK
        > INCRBYFLOAT n 9e308
        "999999999999999999986349424581256454766307763249906048699722933664407363742116431635427166600418245409398702382304152749971957328402423172341126484032370375772746974788657214625693651444984012739133113268869496442311034817571120406763557498021655642425941543468850939783228659030453659621446207643423114002432"
        > SET n 0.1
        +OK
        > INCRBYFLOAT n 0.7
        "0.8"
        > SET n 4.35
        +OK
        > INCRBYFLOAT n 0.15
        "4.5"
        > SET n 100.01
        +OK
        > INCRBYFLOAT n -0.01
        "100"
        > SET n 123456789012345.678
        +OK
        > INCRBYFLOAT n 0.001
        "123456789012345.6790008544921875"
        > SET n 1e-17
        +OK
        > INCRBYFLOAT n 1e-17
        "0.00000000000000002"
        > SET n 0.000000000000000005
        +OK
        > INCRBYFLOAT n 0
        "0"
        > SET n -0.000000000000000006
        +OK
        > INCRBYFLOAT n 0
        "-0.00000000000000001"
        "#,
    );
}

/// C's `strtold` accepts them, so Redis does.
#[test]
fn incrbyfloat_takes_hexadecimal_numbers() {
    transcript(
        r#"
        > SET n 0x10
        +OK
        > INCRBYFLOAT n 0x1p1
        "18"
        > INCRBYFLOAT n -0X.8
        "17.5"
        > INCRBYFLOAT n 0x
        -ERR value is not a valid float
        "#,
    );
}

#[test]
fn incrbyfloat_keeps_the_expiry_time() {
    transcript(
        r#"
        > SET n 1 EX 100
        +OK
        > INCRBYFLOAT n 1.5
        "2.5"
        > TTL n
        :100
        > GET n
        "2.5"
        > INCRBYFLOAT fresh 1.5
        "1.5"
        > TTL fresh
        :-1
        "#,
    );
}

#[test]
fn incrbyfloat_rejects_everything_but_numbers() {
    transcript(
        r#"
        > SET n abc
        +OK
        > INCRBYFLOAT n 1
        -ERR value is not a valid float
        > SET n ""
        +OK
        > INCRBYFLOAT n 1
        -ERR value is not a valid float
        > SET n " 1"
        +OK
        > INCRBYFLOAT n 1
        -ERR value is not a valid float
        > SET n "1 "
        +OK
        > INCRBYFLOAT n 1
        -ERR value is not a valid float
        > SET n "1\x00"
        +OK
        > INCRBYFLOAT n 1
        -ERR value is not a valid float
        > SET n 1.5.5
        +OK
        > INCRBYFLOAT n 1
        -ERR value is not a valid float
        > SET n nan
        +OK
        > INCRBYFLOAT n 1
        -ERR value is not a valid float
        > SET n 1
        +OK
        > INCRBYFLOAT n abc
        -ERR value is not a valid float
        > INCRBYFLOAT n ""
        -ERR value is not a valid float
        > INCRBYFLOAT n " 1"
        -ERR value is not a valid float
        > INCRBYFLOAT n 1x
        -ERR value is not a valid float
        > INCRBYFLOAT n nan
        -ERR value is not a valid float
        > INCRBYFLOAT n 1e
        -ERR value is not a valid float
        > INCRBYFLOAT n 1,5
        -ERR value is not a valid float
        > INCRBYFLOAT n inf
        -ERR increment would produce NaN or Infinity
        > INCRBYFLOAT n +inf
        -ERR increment would produce NaN or Infinity
        > INCRBYFLOAT n -inf
        -ERR increment would produce NaN or Infinity
        > INCRBYFLOAT n infinity
        -ERR increment would produce NaN or Infinity
        > INCRBYFLOAT n 1e5000
        -ERR value is not a valid float
        > INCRBYFLOAT fresh inf
        -ERR increment would produce NaN or Infinity
        > EXISTS fresh
        :0
        > GET n
        "1"
        > SET n inf
        +OK
        > INCRBYFLOAT n 1
        -ERR increment would produce NaN or Infinity
        > HSET h f v
        :1
        > INCRBYFLOAT h 1
        -WRONGTYPE Operation against a key holding the wrong kind of value
        > INCRBYFLOAT h abc
        -WRONGTYPE Operation against a key holding the wrong kind of value
        > INCRBYFLOAT n
        -ERR wrong number of arguments for 'incrbyfloat' command
        > INCRBYFLOAT n 1 2
        -ERR wrong number of arguments for 'incrbyfloat' command
        "#,
    );
}

#[test]
fn string_commands_reject_a_wrong_number_of_arguments() {
    transcript(
        r#"
        > GET
        -ERR wrong number of arguments for 'get' command
        > GET a b
        -ERR wrong number of arguments for 'get' command
        > SET
        -ERR wrong number of arguments for 'set' command
        > SET k
        -ERR wrong number of arguments for 'set' command
        > MGET
        -ERR wrong number of arguments for 'mget' command
        > mset a
        -ERR wrong number of arguments for 'mset' command
        > Append a
        -ERR wrong number of arguments for 'append' command
        > getdel
        -ERR wrong number of arguments for 'getdel' command
        > substr k 0
        -ERR wrong number of arguments for 'substr' command
        "#,
    );
}

#[test]
fn an_expired_string_does_not_exist() {
    let mut c = connect();
    c.expect("SET k v PX 30", "+OK");
    c.expect("SET n 5 PX 30", "+OK");
    c.expect("SET a abc PX 30", "+OK");
    let set = unix_now_ms();
    eventually("the expiry time has passed", || unix_now_ms() > set + 31);
    c.transcript(
        r#"
        > GET k
        nil
        > STRLEN k
        :0
        > MGET k n
        [nil, nil]
        > INCR n
        :1
        > TTL n
        :-1
        > APPEND a x
        :1
        > SETNX k v
        :1
        > TTL k
        :-1
        "#,
    );
}

// ---- MSETEX ------------------------------------------------------------------------------------------

#[test]
fn msetex_sets_all_keys_or_none_with_their_expiry_time() {
    let mut c = connect();
    if !c.redis_at_least("8.4") {
        return;
    }
    c.transcript(
        r#"
        > MSETEX 2 a 1 b 2
        :1
        > TTL a
        :-1
        > MSETEX 2 b 3 c 4 NX EX 100
        :0
        > MSETEX 2 b 3 c 4 XX
        :0
        > MGET a b c
        ["1", "2", nil]
        > MSETEX 2 a 3 b 4 EX 100 xx
        :1
        > MGET a b
        ["3", "4"]
        > TTL b
        :100
        > MSETEX 3 a 5 c 6 a 7 KEEPTTL
        :1
        > MGET a c
        ["7", "6"]
        > TTL a
        :100
        > TTL c
        :-1
        > MSETEX 2 d 1 e 2 px 5000000 nx
        :1
        > TTL e
        :5000
        > MSETEX 1 d 1 EXAT 99999999999
        :1
        > EXPIRETIME d
        :99999999999
        > MSETEX 2 d 1 e 2 PXAT 99999999999999
        :1
        > PEXPIRETIME e
        :99999999999999
        > MSETEX 1 e 3
        :1
        > TTL e
        :-1
        // A key of another type is replaced, and an expiry time in the past deletes a key.
        > HSET h f v
        :1
        > MSETEX 2 h v e 4 PXAT 1
        :1
        > EXISTS h e
        :0
        "#,
    );
}

#[test]
fn msetex_rejects_bad_counts_and_options() {
    let mut c = connect();
    if !c.redis_at_least("8.4") {
        return;
    }
    c.transcript(
        r#"
        > MSETEX 1 a
        -ERR wrong number of arguments for 'msetex' command
        > MSETEX a 1 EX 10
        -ERR invalid numkeys value
        > MSETEX 0 a 1
        -ERR invalid numkeys value
        > MSETEX -1 a 1
        -ERR invalid numkeys value
        > MSETEX 2147483648 a 1
        -ERR invalid numkeys value
        > MSETEX 99999999999999999999 a 1
        -ERR invalid numkeys value
        > MSETEX 2147483647 a 1
        -ERR wrong number of key-value pairs
        > MSETEX 2 a 1 b
        -ERR wrong number of key-value pairs
        > MSETEX 1 a 1 b
        -ERR syntax error
        > MSETEX 1 a 1 NX XX
        -ERR syntax error
        > MSETEX 1 a 1 EX 10 PX 10
        -ERR syntax error
        > MSETEX 1 a 1 KEEPTTL EX 10
        -ERR syntax error
        > MSETEX 1 a 1 PERSIST
        -ERR syntax error
        > MSETEX 1 a 1 IFEQ 1
        -ERR syntax error
        > MSETEX 1 a 1 EX
        -ERR syntax error
        > MSETEX 1 a 1 EX 0
        -ERR invalid expire time in 'msetex' command
        > MSETEX 1 a 1 EX x
        -ERR value is not an integer or out of range
        > EXISTS a
        :0
        "#,
    );
}

/// It is logged as a transaction of commands that an older Redis has, so a crash leaves all keys or none.
#[test]
fn msetex_is_logged_as_one_transaction() {
    if skipped_on_redis() {
        return;
    }
    let mut server = Server::start(&[]);
    let mut c = server.client();
    c.expect("MSETEX 2 a 1 b 2 EX 1000", ":1");
    c.expect("MSETEX 2 b 3 c 4 KEEPTTL", ":1");
    c.expect("MSETEX 2 c 5 d 6 NX", ":0");
    let expiry = c.integer("PEXPIRETIME a");
    let log = std::fs::read(server.log_path()).expect("read the log");
    assert!(!log.windows(6).any(|part| part == b"MSETEX"), "{}", quote(&log));
    let last = format!(
        "*1\r\n$5\r\nMULTI\r\n*5\r\n$3\r\nSET\r\n$1\r\nb\r\n$1\r\n3\r\n$4\r\nPXAT\r\n$13\r\n{expiry}\r\n\
         *3\r\n$3\r\nSET\r\n$1\r\nc\r\n$1\r\n4\r\n*1\r\n$4\r\nEXEC\r\n"
    );
    assert!(log.ends_with(last.as_bytes()), "{}", quote(&log));
    server.kill_9();
    // As if the end of the transaction had not reached the disk.
    let torn = &log[..log.len() - 5];
    std::fs::write(server.log_path(), torn).expect("write the log");
    server.restart();
    let mut c = server.client();
    c.expect("MGET a b c d", r#"["1", "2", nil, nil]"#);
    assert_eq!(c.integer("PEXPIRETIME a"), expiry);
    assert_eq!(c.integer("PEXPIRETIME b"), expiry);
}

#[test]
fn keepttl_keeps_a_key_alive_in_its_last_millisecond() {
    let mut c = connect();
    // The clock stands still in a transaction. There are enough of them to meet the last millisecond.
    const LOOKS: usize = 200;
    let look = ["MULTI", "EXISTS k", "SET k v XX KEEPTTL", "EXISTS k", "EXEC"];
    let look: Vec<u8> = look.iter().flat_map(|line| encode(&split_command(line))).collect();
    for _ in 0..20 {
        c.expect("SET k v PX 3", "+OK");
        let mut is_there = true;
        while is_there {
            c.send_raw(look.repeat(LOOKS));
            for _ in 0..LOOKS {
                (0..4).for_each(|_| _ = c.read_reply());
                let replies = c.read_reply().into_items();
                assert_eq!(replies[0], replies[2], "it was there and was set");
                is_there = replies[0] == Reply::Integer(1);
            }
        }
    }
}
