//! Commands on bitmaps.

use crate::harness::{Server, connect, eventually, skipped_on_redis, transcript};

#[test]
fn setbit_sets_a_bit_and_returns_the_old_one() {
    transcript(
        r#"
        > SETBIT k 7 1
        :0
        > SETBIT k 7 1
        :1
        > GET k
        "\x01"
        > SETBIT k 0 1
        :0
        > SETBIT k 7 0
        :1
        > GET k
        "\x80"
        // The string grows as far as needed, even for a zero.
        > SETBIT k 20 0
        :0
        > GET k
        "\x80\x00\x00"
        > SETBIT new 9 0
        :0
        > GET new
        "\x00\x00"
        > SET text abc
        +OK
        > SETBIT text 6 1
        :0
        > GET text
        "cbc"
        > SET n 12
        +OK
        > SETBIT n 14 0
        :1
        > SETBIT n 15 1
        :0
        > INCR n
        :12
        > SET e v EX 100
        +OK
        > SETBIT e 7 1
        :0
        > TTL e
        :100
        > GET e
        "w"
        > SET empty ""
        +OK
        > SETBIT empty 1 1
        :0
        > GET empty
        "@"
        "#,
    );
}

#[test]
fn getbit_returns_0_past_the_end() {
    transcript(
        r#"
        > SET k "\x80\x01"
        +OK
        > GETBIT k 0
        :1
        > GETBIT k 1
        :0
        > GETBIT k 14
        :0
        > GETBIT k 15
        :1
        > GETBIT k 16
        :0
        > GETBIT k 4294967295
        :0
        > GETBIT missing 0
        :0
        > EXISTS missing
        :0
        > SET n 1
        +OK
        > GETBIT n 2
        :1
        > GETBIT n 7
        :1
        "#,
    );
}

#[test]
fn setbit_and_getbit_check_their_arguments_before_the_key() {
    transcript(
        r#"
        > HSET h f v
        :1
        > SETBIT k -1 1
        -ERR bit offset is not an integer or out of range
        > SETBIT k 4294967296 1
        -ERR bit offset is not an integer or out of range
        > SETBIT k 9223372036854775807 1
        -ERR bit offset is not an integer or out of range
        > SETBIT k 9223372036854775808 1
        -ERR bit offset is not an integer or out of range
        > SETBIT k abc 1
        -ERR bit offset is not an integer or out of range
        > SETBIT k 01 1
        -ERR bit offset is not an integer or out of range
        > SETBIT k "" 1
        -ERR bit offset is not an integer or out of range
        > SETBIT k 1.0 1
        -ERR bit offset is not an integer or out of range
        > SETBIT k #1 1
        -ERR bit offset is not an integer or out of range
        > SETBIT k 0 2
        -ERR bit is not an integer or out of range
        > SETBIT k 0 -1
        -ERR bit is not an integer or out of range
        > SETBIT k 0 x
        -ERR bit is not an integer or out of range
        > SETBIT k 0 ""
        -ERR bit is not an integer or out of range
        > SETBIT k 0 9223372036854775808
        -ERR bit is not an integer or out of range
        > SETBIT k x x
        -ERR bit offset is not an integer or out of range
        > SETBIT h x 1
        -ERR bit offset is not an integer or out of range
        > SETBIT h 0 2
        -ERR bit is not an integer or out of range
        > SETBIT h 0 1
        -WRONGTYPE Operation against a key holding the wrong kind of value
        > GETBIT k -1
        -ERR bit offset is not an integer or out of range
        > GETBIT k 4294967296
        -ERR bit offset is not an integer or out of range
        > GETBIT k abc
        -ERR bit offset is not an integer or out of range
        > GETBIT k #1
        -ERR bit offset is not an integer or out of range
        > GETBIT h -1
        -ERR bit offset is not an integer or out of range
        > GETBIT h 0
        -WRONGTYPE Operation against a key holding the wrong kind of value
        > EXISTS k
        :0
        > SETBIT k 0
        -ERR wrong number of arguments for 'setbit' command
        > SETBIT k 0 1 1
        -ERR wrong number of arguments for 'setbit' command
        > GETBIT k
        -ERR wrong number of arguments for 'getbit' command
        > GETBIT k 0 0
        -ERR wrong number of arguments for 'getbit' command
        "#,
    );
}

#[test]
fn the_last_bit_of_the_longest_string_can_be_set() {
    transcript(
        r#"
        > SETBIT k 4294967295 1
        :0
        > STRLEN k
        :536870912
        > GETBIT k 4294967295
        :1
        > GETBIT k 4294967294
        :0
        > BITCOUNT k
        :1
        > BITPOS k 1
        :4294967295
        > BITPOS k 1 -1
        :4294967295
        > BITPOS k 0 -1
        :4294967288
        > BITCOUNT k -8 -1 BIT
        :1
        > DEL k
        :1
        > CONFIG SET proto-max-bulk-len 1mb
        +OK
        > SETBIT k 8388608 1
        -ERR bit offset is not an integer or out of range
        > GETBIT k 8388608
        -ERR bit offset is not an integer or out of range
        > BITFIELD k SET u8 8388608 1
        -ERR bit offset is not an integer or out of range
        > SETBIT k 8388607 1
        :0
        > STRLEN k
        :1048576
        // The last field may extend past the limit.
        > BITFIELD k SET u16 8388607 1
        [:32768]
        > STRLEN k
        :1048578
        "#,
    );
}

#[test]
fn bitcount_counts_the_bits_that_are_set() {
    transcript(
        r#"
        > SET k foobar
        +OK
        > BITCOUNT k
        :26
        > BITCOUNT missing
        :0
        > SET empty ""
        +OK
        > BITCOUNT empty
        :0
        > BITCOUNT empty 0 -1
        :0
        > BITCOUNT empty 0 -1 BIT
        :0
        > SET n 123
        +OK
        > BITCOUNT n
        :10
        > SET ones "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"
        +OK
        > BITCOUNT ones
        :152
        > BITCOUNT ones 1 -2
        :136
        > BITCOUNT ones 3 148 BIT
        :146
        "#,
    );
}

#[test]
fn bitcount_counts_in_a_range_of_bytes_or_bits() {
    transcript(
        r#"
        > SET k foobar
        +OK
        > BITCOUNT k 0 0
        :4
        > BITCOUNT k 1 1
        :6
        > BITCOUNT k 0 -1
        :26
        > BITCOUNT k -2 -1
        :7
        > BITCOUNT k -2 1000
        :7
        > BITCOUNT k 0 1000
        :26
        > BITCOUNT k -1000 0
        :4
        > BITCOUNT k 6 10
        :0
        > BITCOUNT k 3 2
        :0
        > BITCOUNT k 1 1 BYTE
        :6
        > BITCOUNT k 1 1 byte
        :6
        > BITCOUNT k 5 30 BIT
        :17
        > BITCOUNT k 1 1 bit
        :1
        > BITCOUNT k 0 0 BIT
        :0
        > BITCOUNT k 0 47 BIT
        :26
        > BITCOUNT k 0 48 BIT
        :26
        > BITCOUNT k -8 -1 BIT
        :4
        > BITCOUNT k -1000 -1 BIT
        :26
        > BITCOUNT k 48 50 BIT
        :0
        > BITCOUNT k 9 8 BIT
        :0
        > BITCOUNT k -9223372036854775808 9223372036854775807
        :26
        > BITCOUNT k -9223372036854775808 9223372036854775807 BIT
        :26
        > BITCOUNT k 9223372036854775807 -9223372036854775808
        :0
        // A start and an end before the string mean its first byte, but an inverted range is empty.
        > BITCOUNT k -20 -10
        :4
        > BITCOUNT k -10 -20
        :0
        > BITCOUNT k -100 -60 BIT
        :0
        > BITCOUNT k -60 -100 BIT
        :0
        "#,
    );
}

#[test]
fn bitcount_rejects_bad_arguments() {
    transcript(
        r#"
        > SET k foobar
        +OK
        > HSET h f v
        :1
        > BITCOUNT
        -ERR wrong number of arguments for 'bitcount' command
        > BITCOUNT k a 1
        -ERR value is not an integer or out of range
        > BITCOUNT k 0 b
        -ERR value is not an integer or out of range
        > BITCOUNT k a b BITS
        -ERR value is not an integer or out of range
        > BITCOUNT k 0 9223372036854775808
        -ERR value is not an integer or out of range
        > BITCOUNT k 0 1 BITS
        -ERR syntax error
        > BITCOUNT k 0 1 ""
        -ERR syntax error
        > BITCOUNT k 0 1 BIT x
        -ERR syntax error
        > BITCOUNT k a 1 BIT x
        -ERR syntax error
        > BITCOUNT h
        -WRONGTYPE Operation against a key holding the wrong kind of value
        "#,
    );
}

#[test]
fn bitcount_accepts_a_start_without_an_end() {
    // As in Valkey 8. In Redis it is a syntax error.
    if skipped_on_redis() {
        return;
    }
    transcript(
        r#"
        > SET k foobar
        +OK
        > BITCOUNT k 0
        :26
        > BITCOUNT k 4
        :7
        > BITCOUNT k -1
        :4
        > BITCOUNT k 6
        :0
        > BITCOUNT k -1000
        :26
        > BITCOUNT k x
        -ERR value is not an integer or out of range
        "#,
    );
}

#[test]
fn bitpos_finds_the_first_bit() {
    transcript(
        r#"
        > SET k "\xff\xf0\x00"
        +OK
        > BITPOS k 0
        :12
        > BITPOS k 1
        :0
        > SET k "\x00\xff\xf0"
        +OK
        > BITPOS k 0
        :0
        > BITPOS k 1
        :8
        > BITPOS k 1 0
        :8
        > BITPOS k 1 2
        :16
        > BITPOS k 0 1
        :20
        > BITPOS k 0 2
        :20
        > BITPOS k 1 -1
        :16
        > BITPOS k 0 -1
        :20
        > BITPOS k 1 -100
        :8
        > SET n 1
        +OK
        > BITPOS n 1
        :2
        > BITPOS n 0
        :0
        > SET zeros "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
        +OK
        > BITPOS zeros 1
        :-1
        > BITPOS zeros 0
        :0
        > BITPOS zeros 1 0 -1 BIT
        :-1
        > SETBIT zeros 83 1
        :0
        > BITPOS zeros 1
        :83
        > BITPOS zeros 1 0 82 BIT
        :-1
        > BITPOS zeros 1 83 83 BIT
        :83
        > BITPOS zeros 1 84 -1 BIT
        :-1
        "#,
    );
}

#[test]
fn bitpos_finds_a_zero_past_the_string_unless_an_end_is_given() {
    transcript(
        r#"
        > SET k "\xff\xff\xff"
        +OK
        > BITPOS k 0
        :24
        > BITPOS k 0 0
        :24
        > BITPOS k 0 2
        :24
        > BITPOS k 0 -1
        :24
        > BITPOS k 0 0 -1
        :-1
        > BITPOS k 0 0 2
        :-1
        > BITPOS k 0 0 5
        :-1
        > BITPOS k 0 0 -1 BIT
        :-1
        > BITPOS k 0 3
        :-1
        > BITPOS k 0 3 5
        :-1
        > BITPOS k 1 3
        :-1
        > BITPOS k 0 2 1
        :-1
        > SET empty ""
        +OK
        > BITPOS empty 0
        :-1
        > BITPOS empty 1
        :-1
        > BITPOS empty 0 0
        :-1
        > BITPOS empty 0 0 -1
        :-1
        > BITPOS missing 0
        :0
        > BITPOS missing 1
        :-1
        > BITPOS missing 0 3
        :0
        > BITPOS missing 0 3 5 BIT
        :0
        > BITPOS missing 1 3 5 BIT
        :-1
        "#,
    );
}

#[test]
fn bitpos_searches_a_range_of_bits() {
    transcript(
        r#"
        > SET k "\x00\xff\xf0"
        +OK
        > BITPOS k 1 7 15 BIT
        :8
        > BITPOS k 1 7 -3 bit
        :8
        > BITPOS k 1 0 7 BIT
        :-1
        > BITPOS k 0 8 15 BIT
        :-1
        > BITPOS k 0 8 20 BIT
        :20
        > BITPOS k 0 8 19 BIT
        :-1
        > BITPOS k 0 -4 -1 BIT
        :20
        > BITPOS k 1 -5 -1 BIT
        :19
        > BITPOS k 1 10 10 BIT
        :10
        > BITPOS k 0 20 1000 BIT
        :20
        > BITPOS k 1 24 30 BIT
        :-1
        > BITPOS k 0 24 30 BIT
        :-1
        > BITPOS k 1 1 1 BYTE
        :8
        > BITPOS k 0 1 2 byte
        :20
        > BITPOS k 0 -9223372036854775808 9223372036854775807 BIT
        :0
        "#,
    );
}

#[test]
fn bitpos_rejects_bad_arguments() {
    transcript(
        r#"
        > SET k foobar
        +OK
        > HSET h f v
        :1
        > BITPOS k
        -ERR wrong number of arguments for 'bitpos' command
        > BITPOS k 2
        -ERR The bit argument must be 1 or 0.
        > BITPOS k -1
        -ERR The bit argument must be 1 or 0.
        > BITPOS k x
        -ERR value is not an integer or out of range
        > BITPOS missing 2
        -ERR The bit argument must be 1 or 0.
        > BITPOS h 2
        -ERR The bit argument must be 1 or 0.
        > BITPOS h 1
        -WRONGTYPE Operation against a key holding the wrong kind of value
        > BITPOS k 1 a
        -ERR value is not an integer or out of range
        > BITPOS k 1 0 b
        -ERR value is not an integer or out of range
        > BITPOS k 1 0 1 BITS
        -ERR syntax error
        > BITPOS k 1 0 b BITS
        -ERR syntax error
        > BITPOS k 1 a b BITS
        -ERR value is not an integer or out of range
        > BITPOS k 1 0 1 BIT x
        -ERR syntax error
        > BITPOS k 1 a 1 BIT x
        -ERR syntax error
        "#,
    );
}

#[test]
fn bitcount_and_bitpos_check_arguments_before_they_look_up_the_key() {
    transcript(
        r#"
        > HSET h f v
        :1
        8.2> BITCOUNT missing 0 x
        -ERR value is not an integer or out of range
        8.2> BITCOUNT missing x 0
        -ERR value is not an integer or out of range
        8.2> BITCOUNT missing 0 1 BAD
        -ERR syntax error
        8.2> BITCOUNT missing 0 1 BIT x
        -ERR syntax error
        8.2> BITCOUNT h 0 x BAD
        -ERR value is not an integer or out of range
        8.2> BITCOUNT h 0 1 BAD
        -ERR syntax error
        > BITCOUNT h 0 1
        -WRONGTYPE Operation against a key holding the wrong kind of value
        8.2> BITPOS missing 1 x
        -ERR value is not an integer or out of range
        8.2> BITPOS missing 1 0 x
        -ERR value is not an integer or out of range
        8.2> BITPOS missing 1 0 x BAD
        -ERR syntax error
        8.2> BITPOS missing 1 0 1 BIT x
        -ERR syntax error
        8.2> BITPOS h 1 x
        -ERR value is not an integer or out of range
        8.2> BITPOS h 1 0 1 BAD
        -ERR syntax error
        > BITPOS h 1 0 1
        -WRONGTYPE Operation against a key holding the wrong kind of value
        > BITPOS h x
        -ERR value is not an integer or out of range
        > SET k foobar
        +OK
        8.2> BITCOUNT k -1 -2 BITS
        -ERR syntax error
        > BITCOUNT k 2 1 BITS
        -ERR syntax error
        "#,
    );
}

#[test]
fn bitop_combines_strings() {
    transcript(
        r#"
        > SET a "\xff\x0f\x55"
        +OK
        > SET b "\x0f\xff\xaa"
        +OK
        > BITOP AND r a b
        :3
        > GET r
        "\x0f\x0f\x00"
        > BITOP OR r a b
        :3
        > GET r
        "\xff\xff\xff"
        > BITOP XOR r a b
        :3
        > GET r
        "\xf0\xf0\xff"
        > BITOP NOT r a
        :3
        > GET r
        "\x00\xf0\xaa"
        > SET c "\xf0\xf0\xf0"
        +OK
        > BITOP and r a b c
        :3
        > GET r
        "\x00\x00\x00"
        > BITOP Or r a b c
        :3
        > GET r
        "\xff\xff\xff"
        > BITOP xOR r a b c
        :3
        > GET r
        "\x00\x00\x0f"
        > BITOP XOR r a a
        :3
        > GET r
        "\x00\x00\x00"
        // One source is copied.
        > BITOP AND r c
        :3
        > GET r
        "\xf0\xf0\xf0"
        > SET n 123
        +OK
        > BITOP OR r n
        :3
        > GET r
        "123"
        "#,
    );
}

#[test]
fn bitop_extends_shorter_strings_with_zeros() {
    transcript(
        r#"
        > SET long "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"
        +OK
        > SET short "\x0f\x0f"
        +OK
        > BITOP AND r long short
        :10
        > GET r
        "\x0f\x0f\x00\x00\x00\x00\x00\x00\x00\x00"
        > BITOP AND r short long
        :10
        > GET r
        "\x0f\x0f\x00\x00\x00\x00\x00\x00\x00\x00"
        > BITOP OR r short long
        :10
        > GET r
        "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"
        > BITOP XOR r short long missing
        :10
        > GET r
        "\xf0\xf0\xff\xff\xff\xff\xff\xff\xff\xff"
        > BITOP AND r long missing
        :10
        > GET r
        "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
        > BITOP NOT r short
        :2
        > GET r
        "\xf0\xf0"
        "#,
    );
}

#[test]
fn bitop_may_overwrite_a_source() {
    transcript(
        r#"
        > SET a "\xf0"
        +OK
        > SET b "\x3c\x01"
        +OK
        > BITOP AND a a b
        :2
        > GET a
        "0\x00"
        > BITOP NOT b b
        :2
        > GET b
        "\xc3\xfe"
        > BITOP XOR b b b
        :2
        > GET b
        "\x00\x00"
        "#,
    );
}

#[test]
fn bitop_replaces_a_destination_of_any_type() {
    transcript(
        r#"
        > SET a abc
        +OK
        > HSET r f v
        :1
        > BITOP OR r a
        :3
        > TYPE r
        +string
        > SET r x EX 100
        +OK
        > BITOP OR r a
        :3
        > TTL r
        :-1
        // All sources are empty: the destination is deleted.
        > BITOP AND r missing1 missing2
        :0
        > EXISTS r
        :0
        > SET empty ""
        +OK
        > SET r x
        +OK
        > BITOP NOT r empty
        :0
        > EXISTS r
        :0
        > BITOP OR r missing
        :0
        > HSET r f v
        :1
        > BITOP XOR r missing empty
        :0
        > EXISTS r
        :0
        "#,
    );
}

#[test]
fn bitop_replays_without_its_expired_sources() {
    if skipped_on_redis() {
        return;
    }
    let mut server = Server::start(&[]);
    let mut c = server.client();
    c.expect("SET a a", "+OK");
    // Many times, so that BITOP meets some keys before the sweeper deletes them.
    for number in 0..30 {
        c.expect(&format!("SET gone{number} longer PX 1"), "+OK");
        eventually("the key expires", || c.integer(&format!("EXISTS gone{number}")) == 0);
        c.expect(&format!("BITOP OR r{number} a gone{number}"), ":1");
        c.expect(&format!("BITOP OR gone{number} a gone{number}"), ":1");
    }
    server.restart();
    let mut c = server.client();
    for number in 0..30 {
        c.expect(&format!("GET r{number}"), r#""a""#);
        c.expect(&format!("GET gone{number}"), r#""a""#);
    }
}

#[test]
fn long_bitmaps_are_combined_to_the_last_bit() {
    let mut c = connect();
    let source = |seed: u32, length: u32| -> Vec<u8> {
        (0..length).map(|i| (i.wrapping_mul(seed) >> 11).to_le_bytes()[0]).collect()
    };
    let long = source(2_654_435_761, 100_003);
    let short = source(40_503, 50_001);
    c.call(&[b"SET", &b"long"[..], &long]);
    c.call(&[b"SET", &b"short"[..], &short]);
    let ones = |bytes: &[u8]| bytes.iter().map(|byte| byte.count_ones() as i64).sum::<i64>();
    assert_eq!(c.integer("BITCOUNT long"), ones(&long));
    assert_eq!(c.integer("BITCOUNT long 1 -2"), ones(&long[1..long.len() - 1]));
    let other = |i: usize| short.get(i).copied().unwrap_or(0);
    type Operation = fn(u8, u8) -> u8;
    let operations: [(&str, Operation); 3] =
        [("AND", |a, b| a & b), ("OR", |a, b| a | b), ("XOR", |a, b| a ^ b)];
    for (name, operation) in operations {
        c.expect(&format!("BITOP {name} r short long"), ":100003");
        let expected: Vec<u8> =
            long.iter().enumerate().map(|(i, &byte)| operation(byte, other(i))).collect();
        assert!(c.reply("GET r").into_bytes() == expected, "{name} differs");
    }
    if c.redis_at_least("8.2") {
        // For two sources, ONE is XOR; DIFF and ANDOR divide the first source.
        c.expect("BITOP ONE one long short", ":100003");
        assert!(c.reply("GET one") == c.reply("GET r"), "ONE differs from XOR");
        c.expect("BITOP DIFF diff long short", ":100003");
        c.expect("BITOP ANDOR andor long short", ":100003");
        c.expect("BITOP XOR both diff andor", ":100003");
        assert!(c.reply("GET both").into_bytes() == long, "DIFF or ANDOR is wrong");
        c.expect("BITOP DIFF1 diff1 short long", ":100003");
        assert!(c.reply("GET diff1") == c.reply("GET diff"), "DIFF1 differs from DIFF");
    }
}

#[test]
fn bitop_rejects_bad_arguments() {
    transcript(
        r#"
        > SET a abc
        +OK
        > HSET h f v
        :1
        > BITOP
        -ERR wrong number of arguments for 'bitop' command
        > BITOP AND
        -ERR wrong number of arguments for 'bitop' command
        > BITOP AND r
        -ERR wrong number of arguments for 'bitop' command
        > BITOP NAND r a
        -ERR syntax error
        > BITOP "" r a
        -ERR syntax error
        > BITOP NOT r a a
        -ERR BITOP NOT must be called with a single source key.
        > BITOP NOT r h a
        -ERR BITOP NOT must be called with a single source key.
        > BITOP NAND r h
        -ERR syntax error
        > BITOP AND r a h
        -WRONGTYPE Operation against a key holding the wrong kind of value
        > BITOP NOT r h
        -WRONGTYPE Operation against a key holding the wrong kind of value
        > EXISTS r
        :0
        "#,
    );
}

#[test]
fn bitop_has_the_diff_diff1_andor_and_one_of_redis_8_2() {
    transcript(
        r#"
        > SET x "\xff\x0f\x00"
        +OK
        > SET y "\x0f\xff\x0f"
        +OK
        > SET z "\x33\x33\x33\x33"
        +OK
        8.2> BITOP DIFF r x y
        :3
        8.2> GET r
        "\xf0\x00\x00"
        8.2> BITOP DIFF r x y z
        :4
        8.2> GET r
        "\xc0\x00\x00\x00"
        8.2> BITOP diff1 r x y z
        :4
        8.2> GET r
        "\x00\xf0?3"
        8.2> BITOP DIFF1 r z x
        :4
        8.2> GET r
        "\xcc\x0c\x00\x00"
        8.2> BITOP ANDOR r x y z
        :4
        8.2> GET r
        "?\x0f\x00\x00"
        8.2> BITOP AndOr r z x
        :4
        8.2> GET r
        "3\x03\x00\x00"
        8.2> BITOP ONE r x y z
        :4
        8.2> GET r
        "\xc0\xc0<3"
        8.2> BITOP ONE r x x x
        :3
        8.2> GET r
        "\x00\x00\x00"
        8.2> BITOP ONE r x
        :3
        8.2> GET r
        "\xff\x0f\x00"
        // A missing key is an empty string, even as the first source.
        8.2> BITOP DIFF r missing x
        :3
        8.2> GET r
        "\x00\x00\x00"
        8.2> BITOP DIFF1 r missing x
        :3
        8.2> GET r
        "\xff\x0f\x00"
        8.2> BITOP ANDOR r missing x
        :3
        8.2> GET r
        "\x00\x00\x00"
        8.2> BITOP ONE r missing x
        :3
        8.2> GET r
        "\xff\x0f\x00"
        8.2> BITOP DIFF r x missing
        :3
        8.2> GET r
        "\xff\x0f\x00"
        8.2> BITOP DIFF x x y
        :3
        8.2> GET x
        "\xf0\x00\x00"
        8.2> BITOP DIFF r missing missing
        :0
        8.2> EXISTS r
        :0
        8.2> BITOP DIFF r x
        -ERR BITOP DIFF must be called with at least two source keys.
        8.2> BITOP DIFF1 r x
        -ERR BITOP DIFF1 must be called with at least two source keys.
        8.2> BITOP ANDOR r x
        -ERR BITOP ANDOR must be called with at least two source keys.
        8.2> BITOP andor r x
        -ERR BITOP ANDOR must be called with at least two source keys.
        "#,
    );
}

#[test]
fn bitfield_gets_and_sets_integers_of_any_width() {
    transcript(
        r#"
        > BITFIELD k SET u8 0 255 GET u8 0 GET i8 0 GET u4 0 GET i4 4 GET u1 7
        [:0, :255, :-1, :15, :-1, :1]
        > GET k
        "\xff"
        > BITFIELD k SET i5 3 -1 SET u13 10 8191 GET u24 0
        [:-1, :0, :16728062]
        > GET k
        "\xff?\xfe"
        > BITFIELD k SET u4 6 0 GET u16 0
        [:12, :64575]
        > BITFIELD i SET i64 1 -9223372036854775808 GET i64 1 GET i64 0 GET u63 2
        [:0, :-9223372036854775808, :4611686018427387904, :0]
        > GET i
        "@\x00\x00\x00\x00\x00\x00\x00\x00"
        > BITFIELD i SET u63 7 9223372036854775807 GET u63 7 GET i1 7 GET u1 69
        [:0, :9223372036854775807, :-1, :1]
        > GET i
        "A\xff\xff\xff\xff\xff\xff\xff\xfc"
        > BITFIELD k get u8 100 GeT i64 4294967295
        [:0, :0]
        > BITFIELD k
        []
        > BITFIELD missing GET u8 0 GET i64 #5
        [:0, :0]
        > EXISTS missing
        :0
        > SET n 12
        +OK
        > BITFIELD n SET u8 8 57
        [:50]
        > INCR n
        :20
        > SET e v EX 100
        +OK
        > BITFIELD e SET u8 0 119
        [:118]
        > TTL e
        :100
        "#,
    );
}

#[test]
fn bitfield_offsets_with_a_hash_sign_count_fields() {
    transcript(
        r#"
        > BITFIELD k SET u8 #0 1 SET u8 #2 3 SET i16 #2 -2 GET i16 #2 GET u8 #5
        [:0, :0, :0, :-2, :254]
        > GET k
        "\x01\x00\x03\x00\xff\xfe"
        > BITFIELD k GET u63 #0 GET u5 #3
        [:36030448433823744, :0]
        > BITFIELD k GET u8 #536870911
        [:0]
        > BITFIELD k GET u8 #536870912
        -ERR bit offset is not an integer or out of range
        // As in Redis, an offset may become valid by wrapping around.
        > BITFIELD k GET i4 #4611686018427387904
        [:0]
        > BITFIELD k GET i4 #4611686018427387903
        -ERR bit offset is not an integer or out of range
        "#,
    );
}

#[test]
fn bitfield_incrby_returns_the_sum() {
    transcript(
        r#"
        > BITFIELD k INCRBY u8 0 5 INCRBY u8 0 -2 INCRBY i8 8 -3
        [:5, :3, :-3]
        > GET k
        "\x03\xfd"
        > BITFIELD k INCRBY i64 #1 9223372036854775807 INCRBY i64 #1 0
        [:9223372036854775807, :9223372036854775807]
        > BITFIELD k INCRBY u63 #1 0 GET u63 #1
        [:2305843009213693951, :2305843009213693951]
        "#,
    );
}

#[test]
fn bitfield_overflow_wraps_by_default() {
    transcript(
        r#"
        > BITFIELD k SET u8 0 255 INCRBY u8 0 1
        [:0, :0]
        > BITFIELD k SET i8 0 127 INCRBY i8 0 1 INCRBY i8 0 -1
        [:0, :-128, :127]
        > BITFIELD k SET u2 0 3 INCRBY u2 0 9 SET u2 0 -1 GET u2 0
        [:1, :0, :0, :3]
        > BITFIELD k SET i4 0 23 GET i4 0 SET i4 0 8 GET i4 0
        [:-1, :7, :7, :-8]
        > BITFIELD k SET i64 0 9223372036854775807 INCRBY i64 0 1 INCRBY i64 0 -1
        [:-8142508126285856768, :-9223372036854775808, :9223372036854775807]
        > BITFIELD k SET u63 0 9223372036854775807 INCRBY u63 0 1 INCRBY u63 0 -1
        [:4611686018427387903, :0, :9223372036854775807]
        > BITFIELD k OVERFLOW WRAP SET u8 0 255 INCRBY u8 0 2
        [:255, :1]
        "#,
    );
}

#[test]
fn bitfield_overflow_sat_stops_at_the_limits() {
    transcript(
        r#"
        > BITFIELD k OVERFLOW SAT SET u8 0 250 INCRBY u8 0 10 INCRBY u8 0 -500
        [:0, :255, :0]
        > BITFIELD k OVERFLOW SAT SET i8 0 100 INCRBY i8 0 100 INCRBY i8 0 -500
        [:0, :127, :-128]
        > BITFIELD k OVERFLOW SAT SET u8 0 300 GET u8 0 SET i8 0 300 GET i8 0 SET i8 0 -300 GET i8 0
        [:128, :255, :-1, :127, :127, :-128]
        > BITFIELD k OVERFLOW SAT INCRBY i64 0 9223372036854775807 INCRBY i64 0 9223372036854775807
        [:-1, :9223372036854775806]
        > BITFIELD k OVERFLOW SAT SET i64 0 -9223372036854775808 INCRBY i64 0 -1
        [:9223372036854775806, :-9223372036854775808]
        > BITFIELD k OVERFLOW SAT SET u63 0 9223372036854775807 INCRBY u63 0 9223372036854775807
        [:4611686018427387904, :9223372036854775807]
        // A value far below the range saturates at the upper limit.
        > BITFIELD k OVERFLOW SAT SET u8 0 -1 GET u8 0
        [:255, :255]
        > BITFIELD k OVERFLOW SAT SET i8 0 -9223372036854775679 GET i8 0 SET i8 0 -9223372036854775680 GET i8 0
        [:-1, :-128, :-128, :-128]
        > BITFIELD k OVERFLOW SAT SET i8 0 -9223372036854775681 GET i8 0
        [:-128, :127]
        "#,
    );
}

#[test]
fn bitfield_overflow_fail_writes_nothing() {
    transcript(
        r#"
        > BITFIELD k OVERFLOW FAIL SET u8 0 255 INCRBY u8 0 1 GET u8 0
        [:0, nil, :255]
        > BITFIELD k OVERFLOW FAIL SET u8 0 256 SET u8 0 -1 SET i8 0 128 GET u8 0
        [nil, nil, nil, :255]
        > BITFIELD k OVERFLOW FAIL INCRBY u8 0 -255 INCRBY u8 0 -1 GET u8 0
        [:0, nil, :0]
        // Each OVERFLOW applies until the next.
        > BITFIELD k INCRBY u2 0 5 OVERFLOW SAT INCRBY u2 0 5 OVERFLOW FAIL INCRBY u2 0 1 OVERFLOW wrap INCRBY u2 0 1
        [:1, :3, nil, :0]
        > BITFIELD k OVERFLOW SAT
        []
        // The string grows although nothing is written.
        > BITFIELD new OVERFLOW FAIL SET u8 8 256
        [nil]
        > GET new
        "\x00\x00"
        "#,
    );
}

#[test]
fn bitfield_replies_with_the_null_of_the_protocol() {
    let mut c = connect();
    c.expect("BITFIELD k OVERFLOW FAIL SET u8 0 256 GET u8 0", "[nil, :0]");
    c.reply("HELLO 3");
    c.expect("BITFIELD k OVERFLOW FAIL SET u8 0 256 GET u8 0", "[_, :0]");
}

#[test]
fn bitfield_rejects_bad_arguments() {
    transcript(
        r#"
        > SET k abc
        +OK
        > HSET h f v
        :1
        > BITFIELD
        -ERR wrong number of arguments for 'bitfield' command
        > BITFIELD k GET
        -ERR syntax error
        > BITFIELD k GET u8
        -ERR syntax error
        > BITFIELD k SET u8 0
        -ERR syntax error
        > BITFIELD k INCRBY u8 0
        -ERR syntax error
        > BITFIELD k OVERFLOW
        -ERR syntax error
        > BITFIELD k OVERFLOW NO
        -ERR Invalid OVERFLOW type specified
        > BITFIELD k PUT u8 0 1
        -ERR syntax error
        > BITFIELD k GET u8 0 0
        -ERR syntax error
        > BITFIELD k GET u64 0
        -ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported but i64 is.
        > BITFIELD k GET i65 0
        -ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported but i64 is.
        > BITFIELD k GET i0 0
        -ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported but i64 is.
        > BITFIELD k GET u-1 0
        -ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported but i64 is.
        > BITFIELD k GET U8 0
        -ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported but i64 is.
        > BITFIELD k GET i08 0
        -ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported but i64 is.
        > BITFIELD k GET 8 0
        -ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported but i64 is.
        > BITFIELD k GET i 0
        -ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported but i64 is.
        > BITFIELD k GET "" 0
        -ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported but i64 is.
        > BITFIELD k GET u8 -1
        -ERR bit offset is not an integer or out of range
        > BITFIELD k GET u8 4294967296
        -ERR bit offset is not an integer or out of range
        > BITFIELD k GET u8 x
        -ERR bit offset is not an integer or out of range
        > BITFIELD k GET u8 #x
        -ERR bit offset is not an integer or out of range
        > BITFIELD k GET u8 #
        -ERR bit offset is not an integer or out of range
        > BITFIELD k GET u8 #-1
        -ERR bit offset is not an integer or out of range
        > BITFIELD k SET u8 0 x
        -ERR value is not an integer or out of range
        > BITFIELD k SET u8 0 9223372036854775808
        -ERR value is not an integer or out of range
        > BITFIELD k INCRBY u8 0 1.5
        -ERR value is not an integer or out of range
        // The first error is reported, but a missing argument comes before invalid ones.
        > BITFIELD k SET x y z
        -ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported but i64 is.
        > BITFIELD k SET u8 y z
        -ERR bit offset is not an integer or out of range
        > BITFIELD k SET x y
        -ERR syntax error
        > BITFIELD k SET u8 0 1 GET u64 0
        -ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported but i64 is.
        > GET k
        "abc"
        > BITFIELD h GET u64 0
        -ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported but i64 is.
        > BITFIELD h GET u8 0
        -WRONGTYPE Operation against a key holding the wrong kind of value
        > BITFIELD h SET u8 0 1
        -WRONGTYPE Operation against a key holding the wrong kind of value
        > BITFIELD h
        -WRONGTYPE Operation against a key holding the wrong kind of value
        "#,
    );
}

#[test]
fn bitfield_ro_only_gets() {
    transcript(
        r#"
        > SET k "\x01\x02"
        +OK
        > BITFIELD_RO k GET u8 0 get i8 #1 GET u16 0
        [:1, :2, :258]
        > BITFIELD_RO k
        []
        > BITFIELD_RO k OVERFLOW SAT GET u8 0
        [:1]
        > BITFIELD_RO k SET u8 0 1
        -ERR BITFIELD_RO only supports the GET subcommand
        > BITFIELD_RO k GET u8 0 INCRBY u8 0 1
        -ERR BITFIELD_RO only supports the GET subcommand
        > BITFIELD_RO k SET u8 0 x
        -ERR value is not an integer or out of range
        > BITFIELD_RO k SET u8 0
        -ERR syntax error
        > BITFIELD_RO missing GET u8 0
        [:0]
        > EXISTS missing
        :0
        > HSET h f v
        :1
        > BITFIELD_RO h GET u8 0
        -WRONGTYPE Operation against a key holding the wrong kind of value
        > BITFIELD_RO h SET u8 0 1
        -ERR BITFIELD_RO only supports the GET subcommand
        > GET k
        "\x01\x02"
        "#,
    );
}

#[test]
fn bitop_names_its_destination_and_its_sources_as_keys() {
    transcript(
        r#"
        > COMMAND GETKEYS BITOP AND r a b
        ["r", "a", "b"]
        > COMMAND GETKEYS BITOP AND r
        -ERR Invalid number of arguments specified for command
        > COMMAND GETKEYS BITFIELD k GET u8 0
        ["k"]
        sorted> COMMAND LIST FILTERBY ACLCAT bitmap
        ["bitcount", "bitfield", "bitfield_ro", "bitop", "bitpos", "getbit", "setbit"]
        "#,
    );
}
