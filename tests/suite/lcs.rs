//! `LCS`: the longest common subsequence of two strings.

use crate::harness::*;

#[test]
fn lcs_returns_the_string_its_length_or_its_positions() {
    let mut c = connect();
    c.transcript(
        r#"
        > MSET a ohmytext b mynewtext
        +OK
        > LCS a b
        "mytext"
        > LCS a b LEN
        :6
        > LCS a b IDX
        ["matches", [[[:4, :7], [:5, :8]], [[:2, :3], [:0, :1]]], "len", :6]
        > LCS b a IDX
        ["matches", [[[:5, :8], [:4, :7]], [[:0, :1], [:2, :3]]], "len", :6]
        > lcs a b idx minmatchlen 4
        ["matches", [[[:4, :7], [:5, :8]]], "len", :6]
        > LCS a b WITHMATCHLEN MINMATCHLEN 3 IDX
        ["matches", [[[:4, :7], [:5, :8], :4]], "len", :6]
        > LCS a b IDX MINMATCHLEN 5
        ["matches", [], "len", :6]
        > LCS a b IDX MINMATCHLEN -4
        ["matches", [[[:4, :7], [:5, :8]], [[:2, :3], [:0, :1]]], "len", :6]
        > LCS a a IDX WITHMATCHLEN
        ["matches", [[[:0, :7], [:0, :7], :8]], "len", :8]
        // Without IDX the other two options have no effect.
        > LCS a b MINMATCHLEN 5 WITHMATCHLEN
        "mytext"
        > LCS a b LEN MINMATCHLEN 5
        :6
        "#,
    );
    c.reply("HELLO 3");
    c.expect("LCS a b IDX MINMATCHLEN 4", r#"{"matches": [[[:4, :7], [:5, :8]]], "len": :6}"#);
}

#[test]
fn of_several_subsequences_lcs_returns_the_same_as_redis() {
    transcript(
        r#"
        > MSET x ab y ba z bac v abcbdab w bdcaba
        +OK
        > LCS x y IDX
        ["matches", [[[:1, :1], [:0, :0]]], "len", :1]
        > LCS y x IDX
        ["matches", [[[:1, :1], [:0, :0]]], "len", :1]
        > LCS x z IDX
        ["matches", [[[:1, :1], [:0, :0]]], "len", :1]
        > LCS z x
        "a"
        > LCS v w
        "bdab"
        > LCS w v
        "bcba"
        > SET p "\x00\xff\r\n\x00"
        +OK
        > SET q "\xff\x00\r\x00"
        +OK
        > LCS p q
        "\xff\r\x00"
        "#,
    );
}

#[test]
fn lcs_treats_a_missing_key_as_empty_and_rejects_other_types() {
    transcript(
        r#"
        > SET a text
        +OK
        > LCS a missing
        ""
        > LCS missing a LEN
        :0
        > LCS missing missing IDX
        ["matches", [], "len", :0]
        > HSET h f v
        :1
        > LCS a h
        -ERR The specified keys must contain string values
        > LCS h missing NOSUCH
        -ERR The specified keys must contain string values
        "#,
    );
}

#[test]
fn lcs_rejects_bad_options() {
    transcript(
        r#"
        > MSET a x b y
        +OK
        > LCS a
        -ERR wrong number of arguments for 'lcs' command
        > LCS a b LEN IDX
        -ERR If you want both the length and indexes, please just use IDX.
        > LCS a b NOSUCH
        -ERR syntax error
        > LCS a b IDX MINMATCHLEN
        -ERR syntax error
        > LCS a b IDX MINMATCHLEN x
        -ERR value is not an integer or out of range
        > LCS a b MINMATCHLEN 1 MINMATCHLEN 99999999999999999999
        -ERR value is not an integer or out of range
        "#,
    );
}

/// The table that Redis fills has 4 bytes for each pair of prefixes, the empty ones included.
#[test]
fn lcs_is_refused_if_its_table_would_exceed_the_longest_string() {
    let refused = "-ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len";
    let mut c = connect();
    c.expect("CONFIG SET proto-max-bulk-len 1mb", "+OK");
    c.call(&["SET", "a", &"a".repeat(511)]);
    c.call(&["SET", "b", &"b".repeat(511)]);
    c.expect("LCS a b LEN", ":0");
    c.expect("APPEND b a", ":512");
    c.expect("LCS a b LEN", refused);
    c.expect("LCS b a IDX", refused);
    c.call(&["SET", "long", &"x".repeat((1 << 18) - 1)]);
    c.expect("LCS long missing", "\"\"");
    c.expect("APPEND long x", ":262144");
    c.expect("LCS missing long", refused);
}
