//! Clients that do not read what they have asked for, or not yet: nobody waits for them, nothing is lost,
//! and what waits for them is counted and bounded.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::harness::{
    Client, Reply, Server, TempDir, connect, encode, eventually, quote, skipped_on_redis,
};

/// A field of the client's line in `CLIENT LIST`; `None` if it is not connected.
fn of_client(c: &mut Client, id: i64, field: &str) -> Option<u64> {
    let line = c.text(&format!("CLIENT LIST ID {id}"));
    let value =
        line.split_whitespace().find_map(|word| word.strip_prefix(field)?.strip_prefix('='));
    value.map(|value| value.parse().unwrap())
}

/// 12 MB of commands, more than the kernel takes for a client that does not read, and their replies.
fn large_pipeline() -> (Vec<u8>, Vec<u8>) {
    let values = (0..1200).map(|n| format!("{n:010}").repeat(1000));
    values.fold((Vec::new(), Vec::new()), |(mut sent, mut expected), value| {
        sent.extend(encode(&["ECHO", &value]));
        expected.extend(format!("$10000\r\n{value}\r\n").into_bytes());
        (sent, expected)
    })
}

/// Sends everything, then reads.
#[track_caller]
fn send_then_read(client: &mut Client, sent: &[u8], expected: &[u8]) {
    client.send_raw(sent);
    let mut received = vec![0; expected.len()];
    client.read_exact(&mut received);
    let differs = received.iter().zip(expected).position(|(one, other)| one != other);
    let shown = differs.map(|at| quote(&received[at..received.len().min(at + 100)]));
    assert_eq!(shown, None, "the first bytes that differ, at {differs:?}");
}

#[test]
fn a_pipeline_may_be_sent_whole_before_its_replies_are_read() {
    let c = connect();
    let (sent, expected) = large_pipeline();
    let preludes: [&[&str]; 6] = [
        &[],
        &["HELLO 3"],
        &["HELLO 3", "CLIENT TRACKING ON"],
        &["CLIENT TRACKING ON"],
        &["HELLO 3", "SUBSCRIBE channel"],
        &["HELLO 3", "PSUBSCRIBE a", "PUNSUBSCRIBE a"],
    ];
    for prelude in preludes {
        let mut client = c.another();
        prelude.iter().for_each(|command| drop(client.reply(command)));
        send_then_read(&mut client, &sent, &expected);
        // What follows is as before, and may be as large again.
        client.expect("ECHO x", "\"x\"");
        send_then_read(&mut client, &sent, &expected);
    }
}

#[test]
fn a_transaction_with_large_replies_may_be_sent_whole_before_they_are_read() {
    let mut c = connect();
    let (sent, replies) = large_pipeline();
    let queued = "+QUEUED\r\n".repeat(1200);
    let expected = [b"+OK\r\n", queued.as_bytes(), b"*1200\r\n", &replies].concat();
    let sent = [&encode(&["MULTI"]), &sent[..], &encode(&["EXEC"])].concat();
    send_then_read(&mut c, &sent.repeat(2), &expected.repeat(2));
}

#[test]
fn messages_keep_their_place_among_replies_that_are_read_late() {
    let c = connect();
    if !c.redis_at_least("7.2") {
        return; // there a message precedes the reply of the client's own PUBLISH
    }
    let mut client = c.another();
    client.reply("HELLO 3");
    client.reply("SUBSCRIBE a");
    let value = "x".repeat(100_000);
    let one = [encode(&["ECHO", &value]), encode(&["PUBLISH", "a", "m"])].concat();
    let reply =
        format!("$100000\r\n{value}\r\n:1\r\n>3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nm\r\n");
    send_then_read(&mut client, &one.repeat(120), &reply.into_bytes().repeat(120));
}

#[test]
fn a_pipeline_may_be_sent_whole_over_a_unix_socket() {
    if skipped_on_redis() {
        return;
    }
    let home = TempDir::new();
    let path = home.path().join("socket");
    let _server = Server::start_in(home, &["--unixsocket", path.to_str().unwrap()]);
    let (sent, expected) = large_pipeline();
    let value = "v".repeat(100);
    let (set, get) = (encode(&["SET", "k", &value]), encode(&["GET", "k"]));
    let got = format!("$100\r\n{value}\r\n").into_bytes();
    let cases = [
        (sent, expected),
        ([set, get.repeat(20_000)].concat(), [b"+OK\r\n", &got.repeat(20_000)[..]].concat()),
    ];
    for (sent, expected) in cases {
        let mut client = UnixStream::connect(&path).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        client.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
        client.write_all(&sent).unwrap();
        let mut received = vec![0; expected.len()];
        client.read_exact(&mut received).unwrap();
        assert!(received == expected);
    }
}

#[test]
fn what_waits_for_a_client_is_counted_until_it_reads() {
    let mut c = connect();
    let mut client = c.another();
    let id = client.integer("CLIENT ID");
    let (sent, expected) = large_pipeline();
    client.send_raw(&sent);
    eventually("much waits", || of_client(&mut c, id, "omem").is_some_and(|bytes| bytes > 1 << 20));
    assert!(of_client(&mut c, id, "oll") > Some(0));
    client.read_exact(&mut vec![0; expected.len()]);
    eventually("nothing waits", || of_client(&mut c, id, "omem") == Some(0));
    assert_eq!(of_client(&mut c, id, "oll"), Some(0));
}

#[test]
fn a_client_that_does_not_read_is_disconnected_at_the_limits_of_its_class() {
    let mut c = connect();
    c.call(&["SET", "k", &"v".repeat(100_000)]);
    // A soft limit ends the connection after its time, even if nothing more is added.
    for limit in ["1000000 0 0", "0 1000000 1"] {
        c.expect(&format!("CONFIG SET client-output-buffer-limit \"normal {limit}\""), "+OK");
        for prelude in ["PING", "CLIENT TRACKING ON"] {
            let mut client = c.another();
            client.reply(prelude);
            let id = client.integer("CLIENT ID");
            client.try_send_raw(encode(&["GET", "k"]).repeat(150));
            eventually("it is disconnected", || of_client(&mut c, id, "omem").is_none());
        }
    }
    // Who reads is not disconnected.
    let mut client = c.another();
    let replies = (0..150).map(|_| client.reply("GET k"));
    assert!(replies.into_iter().all(|reply| matches!(reply, Reply::Bulk(_))));
}

#[test]
fn a_client_that_does_not_read_can_be_killed_and_can_quit() {
    let mut c = connect();
    let (sent, expected) = large_pipeline();
    let mut client = c.another();
    let id = client.integer("CLIENT ID");
    client.send_raw(&sent);
    eventually("much waits", || of_client(&mut c, id, "omem").is_some_and(|bytes| bytes > 1 << 20));
    c.expect(&format!("CLIENT KILL ID {id}"), ":1");
    assert_eq!(of_client(&mut c, id, "omem"), None);
    let mut client = c.another();
    let id = client.integer("CLIENT ID");
    client.send_raw(&sent);
    client.send_raw("QUIT\r\n");
    client.read_exact(&mut vec![0; expected.len()]);
    assert_eq!(client.read_reply().to_string(), "+OK");
    client.expect_closed();
    eventually("it is gone", || of_client(&mut c, id, "omem").is_none());
}
