//! The bytes on the wire: how requests are parsed, how replies are written, and which errors close a
//! connection.

use std::io::Write;
use std::thread;

use crate::harness::{Client, Reply, connect, encode};

/// The request is a protocol error: the error comes as a reply, then the connection closes.
#[track_caller]
fn expect_protocol_error(c: &Client, request: impl AsRef<[u8]>, error: &str) {
    let mut c = c.another();
    c.send_raw(request);
    c.expect_bytes(format!("-ERR Protocol error: {error}\r\n"));
    c.expect_closed();
}

/// The request gets this reply, and the connection stays usable.
#[track_caller]
fn expect_reply(c: &Client, request: impl AsRef<[u8]>, reply: impl AsRef<[u8]>) {
    let mut c = c.another();
    c.exchange(request, reply);
    c.exchange("*1\r\n$4\r\nPING\r\n", "+PONG\r\n");
}

// ---- Inline commands ---------------------------------------------------------------------------------

#[test]
fn a_line_of_words_is_an_inline_command() {
    let c = connect();
    expect_reply(&c, "PING\r\n", "+PONG\r\n");
    expect_reply(&c, "PING\n", "+PONG\r\n");
    expect_reply(&c, "  PING \t \r\n", "+PONG\r\n");
    expect_reply(&c, "ping hello\r\n", "$5\r\nhello\r\n");
    expect_reply(&c, "PING\thello\r\n", "$5\r\nhello\r\n");
    expect_reply(&c, "SET k v\nGET k\n", "+OK\r\n$1\r\nv\r\n");
    expect_reply(&c, "PING h\u{e9}\r\n", "$3\r\nh\u{e9}\r\n");
    expect_reply(&c, b"PING \xff\xfe\r\n", b"$2\r\n\xff\xfe\r\n");
}

#[test]
fn empty_lines_are_skipped() {
    let c = connect();
    expect_reply(&c, "\r\n\r\n\n   \r\nPING\r\n", "+PONG\r\n");
}

#[test]
fn quotes_join_words_and_allow_escapes() {
    let c = connect();
    expect_reply(&c, "PING \"a b\"\r\n", "$3\r\na b\r\n");
    expect_reply(&c, "PING 'a b'\r\n", "$3\r\na b\r\n");
    expect_reply(&c, "PING \"\"\r\n", "$0\r\n\r\n");
    expect_reply(&c, "PING ''\r\n", "$0\r\n\r\n");
    expect_reply(
        &c,
        "PING \"\\x00\\xfF\\n\\r\\t\\b\\a\\\"\\\\\"\r\n",
        b"$9\r\n\x00\xff\n\r\t\x08\x07\"\\\r\n",
    );
    expect_reply(&c, "PING \"\\q\\xzz\\x4\"\r\n", "$6\r\nqxzzx4\r\n");
    expect_reply(&c, "PING 'it\\'s \\n \"so\"'\r\n", "$12\r\nit's \\n \"so\"\r\n");
    expect_reply(&c, "PING a\"b c\"\r\n", "$4\r\nab c\r\n");
    expect_reply(&c, "\"PING\" 'x'\r\n", "$1\r\nx\r\n");
}

#[test]
fn unbalanced_quotes_are_a_protocol_error() {
    let c = connect();
    let error = "unbalanced quotes in request";
    expect_protocol_error(&c, "PING \"a\r\n", error);
    expect_protocol_error(&c, "PING 'a\r\n", error);
    expect_protocol_error(&c, "PING \"a\"b\r\n", error);
    expect_protocol_error(&c, "PING 'a'b\r\n", error);
    expect_protocol_error(&c, "\"PI\"NG\r\n", error);
    expect_protocol_error(&c, "PING a\"b c\"d\r\n", error);
    expect_protocol_error(&c, "PING \"a\\\"\r\n", error);
}

#[test]
fn an_inline_command_has_a_limit_of_64_kilobytes() {
    let c = connect();
    let word = "a".repeat(65_000);
    expect_reply(&c, format!("PING {word}\r\n"), format!("$65000\r\n{word}\r\n"));
    expect_protocol_error(&c, "a".repeat(64 * 1024 + 1), "too big inline request");
}

#[test]
fn a_line_that_looks_like_a_reply_is_an_inline_command() {
    let c = connect();
    let unknown =
        |name: &str| format!("-ERR unknown command '{name}', with args beginning with: \r\n");
    expect_reply(&c, "+PING\r\n", unknown("+PING"));
    expect_reply(&c, ":1\r\n", unknown(":1"));
    expect_reply(&c, "$4\r\nPING\r\n", unknown("$4") + "+PONG\r\n");
}

#[test]
fn an_http_request_closes_the_connection_without_a_reply() {
    let c = connect();
    for line in ["POST / HTTP/1.1\r\n", "Host: localhost\r\n", "host: x\r\n"] {
        let mut c = c.another();
        c.send_raw(line);
        c.expect_closed();
    }
}

// ---- Multibulk requests ------------------------------------------------------------------------------

#[test]
fn arguments_are_byte_strings_of_any_content() {
    let c = connect();
    expect_reply(&c, "*2\r\n$4\r\nPING\r\n$0\r\n\r\n", "$0\r\n\r\n");
    expect_reply(&c, "*2\r\n$4\r\nECHO\r\n$4\r\n\r\n\r\n\r\n", "$4\r\n\r\n\r\n\r\n");
    expect_reply(&c, b"*2\r\n$4\r\nECHO\r\n$3\r\n\x00\xff\x00\r\n", b"$3\r\n\x00\xff\x00\r\n");
    expect_reply(
        &c,
        "*2\r\n$4\r\nECHO\r\n$14\r\n*1\r\n$4\r\nPING\r\n\r\n",
        "$14\r\n*1\r\n$4\r\nPING\r\n\r\n",
    );
    let all: Vec<u8> = (0..=255).collect();
    let reply = [b"$256\r\n", &all[..], b"\r\n"].concat();
    expect_reply(&c, encode(&[b"ECHO", &all[..]]), reply);
}

#[test]
fn a_request_without_arguments_is_skipped() {
    let c = connect();
    for empty in ["*0\r\n", "*-1\r\n", "*-10\r\n", "*-9223372036854775808\r\n"] {
        expect_reply(&c, format!("{empty}PING\r\n"), "+PONG\r\n");
    }
}

#[test]
fn the_count_of_arguments_must_be_a_number() {
    let c = connect();
    let counts = ["", "abc", "1x", "x1", " 1", "1 ", "+1", "01", "-0", "1.5", "0x1", "--1"];
    for count in counts {
        expect_protocol_error(&c, format!("*{count}\r\n"), "invalid multibulk length");
    }
    for count in ["2147483648", "9223372036854775807", "9999999999999999999999"] {
        expect_protocol_error(&c, format!("*{count}\r\n"), "invalid multibulk length");
    }
    expect_protocol_error(&c, "*1\n$4\r\nPING\r\n", "invalid multibulk length");
}

#[test]
fn each_argument_must_start_with_a_dollar_sign() {
    let c = connect();
    for wrong in ["P", "+", ":", "*", "!", "'", "\"", "\\"] {
        let error = format!("expected '$', got '{wrong}'");
        expect_protocol_error(&c, format!("*1\r\n{wrong}4\r\nPING\r\n"), &error);
    }
    expect_protocol_error(&c, "*1\r\n\r\n", "expected '$', got ' '");
    expect_protocol_error(&c, "*1\r\n\n\r\n", "expected '$', got ' '");
    expect_protocol_error(&c, "*2\r\n$4\r\nPING\r\n:1\r\n", "expected '$', got ':'");
}

#[test]
fn the_length_of_an_argument_must_be_a_number_up_to_512_megabytes() {
    let c = connect();
    let lengths = ["", "abc", "4x", " 4", "+4", "04", "-1", "-5", "-0", "4.0"];
    for length in lengths {
        expect_protocol_error(&c, format!("*1\r\n${length}\r\n"), "invalid bulk length");
    }
    for length in ["536870913", "600000000", "9223372036854775807", "9999999999999999999"] {
        expect_protocol_error(&c, format!("*1\r\n${length}\r\n"), "invalid bulk length");
    }
    expect_protocol_error(&c, "*1\r\n$4\nPING\r\n", "invalid bulk length");
    expect_protocol_error(&c, "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$-1\r\n", "invalid bulk length");
}

#[test]
fn the_line_of_a_length_has_a_limit_of_64_kilobytes_too() {
    let c = connect();
    let zeros = "0".repeat(64 * 1024 + 1);
    expect_protocol_error(&c, format!("*{zeros}"), "too big mbulk count string");
    expect_protocol_error(&c, format!("*1\r\n${zeros}"), "too big bulk count string");
}

#[test]
fn the_bytes_after_a_carriage_return_or_an_argument_are_not_checked() {
    let c = connect();
    expect_reply(&c, "*1\r\n$4\r\nPINGxx", "+PONG\r\n");
    expect_reply(&c, "*2\r\n$4\r\nPINGxx$1\r\na\n\n", "$1\r\na\r\n");
    expect_reply(&c, "*1\rx$4\rxPING\r\n", "+PONG\r\n");
}

#[test]
fn replies_before_a_protocol_error_are_sent() {
    let mut c = connect();
    c.send_raw("PING\r\n*1\r\n$4\r\nPING\r\n*1\r\n!4\r\nPING\r\nPING\r\n");
    c.expect_bytes("+PONG\r\n+PONG\r\n-ERR Protocol error: expected '$', got '!'\r\n");
    c.expect_closed();
}

#[test]
fn a_command_error_does_not_close_the_connection() {
    let mut c = connect();
    c.exchange(
        "GET\r\nNOSUCH\r\nHSET h a\r\n*1\r\n$0\r\n\r\nPING\r\n",
        "-ERR wrong number of arguments for 'get' command\r\n\
         -ERR unknown command 'NOSUCH', with args beginning with: \r\n\
         -ERR wrong number of arguments for 'hset' command\r\n\
         -ERR unknown command '', with args beginning with: \r\n\
         +PONG\r\n",
    );
}

// ---- Pipelines and packets ---------------------------------------------------------------------------

#[test]
fn a_request_may_come_byte_by_byte() {
    let mut c = connect();
    let request = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$6\r\n\r\nv\x00\r\n\r\nGET k\r\n*2\r\n$4\r\nPING\r\n$0\r\n\r\n";
    for byte in request {
        c.send_raw([*byte]);
    }
    c.expect_bytes("+OK\r\n$6\r\n\r\nv\x00\r\n\r\n$0\r\n\r\n");
}

#[test]
fn a_request_may_be_split_anywhere() {
    let mut c = connect();
    let request = b"*2\r\n$4\r\nECHO\r\n$5\r\na\r\nb\r\r\n";
    for split in 1..request.len() {
        c.send_raw(&request[..split]);
        // Another command runs in between, so that the server reads the halves separately.
        c.another().expect("PING", "+PONG");
        c.exchange(&request[split..], "$5\r\na\r\nb\r\r\n");
    }
}

#[test]
fn replies_come_in_the_order_of_requests() {
    let mut c = connect();
    let mut request = Vec::new();
    let mut expected = Vec::new();
    for i in 0..5000 {
        if i % 3 == 0 {
            request.extend_from_slice(format!("ECHO {i}\r\n").as_bytes());
        } else {
            request.extend(encode(&["ECHO", &i.to_string()]));
        }
        let text = i.to_string();
        expected.extend_from_slice(format!("${}\r\n{text}\r\n", text.len()).as_bytes());
    }
    c.exchange(request, expected);
}

#[test]
fn a_pipeline_may_exceed_the_socket_buffers() {
    let mut c = connect();
    let value = "v".repeat(10_000);
    c.call(&["SET", "k", &value]);
    let count = 3000;
    thread::scope(|scope| {
        // 30 MB of replies must be read while requests are still being sent.
        let mut stream = c.sending_half();
        scope.spawn(move || stream.write_all(&encode(&["GET", "k"]).repeat(count)));
        for _ in 0..count {
            assert!(c.read_reply() == Reply::Bulk(value.clone().into_bytes()));
        }
    });
}

#[test]
fn a_client_that_stops_sending_still_gets_its_replies() {
    let mut c = connect();
    c.send_raw("SET k v\r\nGET k\r\n*2\r\n$3\r\nGET\r\n$1\r\nk");
    c.close_sending();
    c.expect_bytes("+OK\r\n$1\r\nv\r\n");
    // The last request is incomplete.
    c.expect_closed();
}

#[test]
fn an_incomplete_request_has_no_effect() {
    let mut c = connect();
    let mut other = c.another();
    other.send_raw("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\nvalu");
    other.close_sending();
    other.expect_closed();
    c.expect("EXISTS k", ":0");
}

#[test]
fn quit_replies_ok_and_closes_the_connection() {
    let c = connect();
    for request in ["QUIT\r\n", "quit\r\n", "*1\r\n$4\r\nQUIT\r\n", "QUIT now\r\n"] {
        let mut c = c.another();
        c.send_raw(format!("PING\r\n{request}SET after v\r\nPING\r\n"));
        c.expect_bytes("+PONG\r\n+OK\r\n");
        c.expect_closed();
    }
    c.another().expect("EXISTS after", ":0");
}

#[test]
fn many_connections_are_served_concurrently() {
    let c = connect();
    let mut all: Vec<Client> = (0..100).map(|_| c.another()).collect();
    for (i, c) in all.iter_mut().enumerate() {
        c.send(&["SET", &format!("k{i}"), &i.to_string()]);
    }
    for c in &mut all {
        assert_eq!(c.read_reply(), Reply::Simple("OK".into()));
    }
    for (i, c) in all.iter_mut().enumerate() {
        c.expect(&format!("GET k{}", (i + 1) % 100), &format!("\"{}\"", (i + 1) % 100));
    }
}

// ---- Before the password -----------------------------------------------------------------------------

#[test]
fn an_unauthenticated_client_may_send_only_small_requests() {
    let mut c = connect();
    c.expect("CONFIG SET requirepass secret", "+OK");
    expect_protocol_error(&c, "*11\r\n", "unauthenticated multibulk length");
    expect_protocol_error(&c, "*2\r\n$16385\r\n", "unauthenticated bulk length");
    let mut stranger = c.another();
    stranger.send(&["GET"; 10]);
    stranger.expect_bytes("-ERR wrong number of arguments for 'get' command\r\n");
    stranger.send(&["AUTH", &"x".repeat(16384)]);
    stranger.expect_bytes("-WRONGPASS invalid username-password pair or user is disabled.\r\n");
    stranger.exchange("AUTH secret\r\n", "+OK\r\n");
    stranger.send(&["ECHO", &"x".repeat(20_000)]);
    assert_eq!(stranger.read_reply().into_bytes().len(), 20_000);
    let mut exists = vec!["EXISTS"];
    exists.resize(20, "k");
    assert_eq!(stranger.call(&exists), Reply::Integer(0));
}

// ---- RESP2 and RESP3 ---------------------------------------------------------------------------------

#[test]
fn the_two_protocols_write_the_same_replies_differently() {
    let mut c = connect();
    c.transcript(
        r#"
        > HSET h f v
        :1
        > GET missing
        nil
        > HGETALL h
        ["f", "v"]
        > HGETALL missing
        []
        > MGET missing
        [nil]
        > CONFIG GET timeout
        ["timeout", "0"]
        > COMMAND INFO nosuch
        [nil]
        > COMMAND DOCS nosuch
        []
        > CLIENT GETNAME
        nil
        > INFO nosuch
        ""
        > CLIENT LIST ID 0
        ""
        > RANDOMKEY
        "h"
        "#,
    );
    c.reply("HELLO 3");
    c.transcript(
        r#"
        > GET missing
        _
        > HGETALL h
        {"f": "v"}
        > HGETALL missing
        {}
        > MGET missing
        [_]
        > HMGET h f missing
        ["v", _]
        > CONFIG GET timeout
        {"timeout": "0"}
        > COMMAND INFO nosuch
        [_]
        > COMMAND DOCS nosuch
        {}
        > CLIENT GETNAME
        _
        > INFO nosuch
        =txt:""
        > CLIENT LIST ID 0
        =txt:""
        > RANDOMKEY
        "h"
        > SET k v NX GET
        _
        > SCAN 0 MATCH nothing COUNT 100000
        ["0", []]
        > PING
        +PONG
        > ECHO text
        "text"
        > EXISTS k
        :1
        > INCRBYFLOAT f 1.5
        "1.5"
        > KEYS nothing
        []
        > GET h
        -WRONGTYPE Operation against a key holding the wrong kind of value
        "#,
    );
}

#[test]
fn nulls_maps_and_verbatim_strings_have_their_bytes_in_resp3_and_resp2() {
    let mut c = connect();
    c.expect("HSET h f v", ":1");
    c.reply("HELLO 3");
    c.exchange("GET missing\r\n", "_\r\n");
    c.exchange("HGETALL h\r\n", "%1\r\n$1\r\nf\r\n$1\r\nv\r\n");
    c.exchange("HGETALL missing\r\n", "%0\r\n");
    c.exchange("CLIENT LIST ID 0\r\n", "=4\r\ntxt:\r\n");
    c.reply("HELLO 2");
    c.exchange("GET missing\r\n", "$-1\r\n");
    c.exchange("HGETALL h\r\n", "*2\r\n$1\r\nf\r\n$1\r\nv\r\n");
    c.exchange("HGETALL missing\r\n", "*0\r\n");
    c.exchange("CLIENT LIST ID 0\r\n", "$0\r\n\r\n");
}
