//! The server's own log lines on stderr: their form, and that a stalled stderr delays no client.

use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{Client, Reply, Server, eventually, skipped_on_redis};

#[test]
fn every_line_has_a_time_stamp_and_the_last_one_is_written_before_the_end() {
    if skipped_on_redis() {
        return;
    }
    let mut server = Server::start(&["--loglevel", "verbose"]);
    server.client().send(&["SHUTDOWN"]);
    assert_eq!(server.wait_for_exit(), Some(0));
    let lines = server.stamped_stderr();
    assert!(lines.contains(" * Loaded '"), "{lines}");
    assert!(lines.contains(" - Client 1 connected from 127.0.0.1:"), "{lines}");
    assert!(lines.ends_with(" * Shutting down at a client's request\n"), "{lines}");
    let process = format!("{}:M", server.process_id());
    for line in lines.lines() {
        let words: Vec<&str> = line.splitn(7, ' ').collect();
        let [id, day, month, year, time, sign, _text] = words[..] else { panic!("{line}") };
        assert_eq!(id, process, "{line}");
        assert_eq!([day, month, year, time].map(str::len), [2, 3, 4, 12], "{line}");
        assert!(["*", "-"].contains(&sign), "{line}");
    }
}

#[test]
fn latency_stays_what_it_was_while_nobody_reads_stderr() {
    if skipped_on_redis() {
        return;
    }
    let limit = ["--client-output-buffer-limit", "pubsub", "1mb", "0", "0"];
    let args = [&["--loglevel", "verbose"], &limit[..]].concat();
    let mut servers = [Server::start(&args), Server::start_unread(&args)];
    for server in &servers {
        // Each connection logs two lines of some 70 bytes. The pipe holds 64 KB, and the queue in front of it
        // 256 KB.
        for _ in 0..4000 {
            server.client().expect("PING", "+PONG");
        }
    }
    let mut longest = [Duration::ZERO; 2];
    for _ in 0..2 {
        for (server, longest) in servers.iter().zip(&mut longest) {
            *longest = longest_wait(server).max(*longest);
        }
    }
    let [healthy, unread] = longest;
    // A busy machine delays both. A thread that waits for the pipe waits until a time limit ends the test.
    let bound = healthy * 10 + Duration::from_secs(1);
    assert!(
        unread <= bound,
        "a client waited for {unread:?}, and {healthy:?} with a healthy stderr"
    );
    for server in &mut servers {
        server.client().send(&["SHUTDOWN"]);
        assert_eq!(server.wait_for_exit(), Some(0));
    }
}

/// The longest that one of 50 clients waits for a reply, while each works as fast as it can and one
/// subscriber after the other is disconnected because it does not read.
fn longest_wait(server: &Server) -> Duration {
    const CLIENTS: usize = 50;
    const ROUNDS: usize = 100;
    let message = "x".repeat(64 << 10);
    let work = |mut client: Client| {
        let mut longest = Duration::ZERO;
        for _ in 0..ROUNDS {
            let commands: [&[&str]; 3] =
                [&["SET", "key", "value"], &["GET", "key"], &["PUBLISH", "news", &message]];
            for command in commands {
                let sent = Instant::now();
                let reply = client.call(command);
                assert!(!matches!(reply, Reply::Error(_) | Reply::Closed), "{reply}");
                longest = longest.max(sent.elapsed());
            }
        }
        longest
    };
    let mut c = server.client();
    let start = disconnections(&mut c);
    let longest = thread::scope(|scope| {
        let clients = (0..CLIENTS).map(|_| server.client());
        let workers: Vec<_> = clients.map(|client| scope.spawn(|| work(client))).collect();
        let is_working = || workers.iter().any(|worker| !worker.is_finished());
        while is_working() {
            let before = disconnections(&mut c);
            let mut slow = server.client();
            slow.send(&["SUBSCRIBE", "news"]);
            while is_working() && disconnections(&mut c) == before {
                thread::sleep(Duration::from_millis(1));
            }
        }
        workers.into_iter().map(|worker| worker.join().expect("it is served")).max()
    });
    assert!(disconnections(&mut c) > start + 1, "no subscriber was disconnected repeatedly");
    longest.unwrap_or_default()
}

/// How many clients were disconnected because they did not read.
fn disconnections(c: &mut Client) -> u64 {
    let info = c.text("INFO stats");
    let field = "client_output_buffer_limit_disconnections:";
    let found = info.lines().find_map(|line| line.strip_prefix(field));
    found.and_then(|count| count.trim().parse().ok()).expect("a number")
}

#[test]
fn what_clients_can_cause_often_is_logged_once_a_second_with_the_number_of_times() {
    if skipped_on_redis() {
        return;
    }
    const TIMES: usize = 300;
    let server = Server::start(&[]);
    let attack = || {
        let mut client = server.client();
        client.send_raw("POST / HTTP/1.1\r\n");
        client.expect_closed();
    };
    let text = "Closed a client that sent an HTTP request";
    let lines = || {
        let logged = server.stamped_stderr();
        let of_text = logged.lines().filter_map(|line| Some(line.split_once(text)?.1.to_owned()));
        of_text.collect::<Vec<_>>()
    };
    let started = Instant::now();
    (0..TIMES).for_each(|_| attack());
    let seconds = started.elapsed().as_secs() as usize;
    let logged = lines().len();
    assert!((1..=seconds + 2).contains(&logged), "{logged} lines in {seconds} s");
    // The next lines count those that were left out.
    let mut attacks = TIMES;
    eventually("all are counted", || {
        attack();
        attacks += 1;
        let left_out = |line: &String| -> usize {
            let number = line.trim_start_matches(" (").split(' ').next();
            number.and_then(|number| number.parse().ok()).unwrap_or(0)
        };
        let lines = lines();
        lines.len() + lines.iter().map(left_out).sum::<usize>() == attacks
    });
}

#[test]
fn with_trace_the_steps_of_a_command_are_printed_in_order() {
    if skipped_on_redis() {
        return;
    }
    let server = Server::start(&["--trace"]);
    server.client().expect("SET name ahmed", "+OK");
    let replied = || server.stamped_stderr().contains(r"replies +OK\r\n");
    eventually("the reply is traced", replied);
    let lines = server.stamped_stderr();
    let steps = lines.lines().filter(|line| line.starts_with("[client "));
    let functions: Vec<&str> = steps.filter_map(|line| line.split_whitespace().nth(2)).collect();
    let expected = [
        "Connection::run",
        "Request::feed",
        "dispatch::execute",
        "Keyspace::write",
        "Shard::signal_modified",
        "Aof::append",
        "Call::commit",
        "Aof::flush_to",
        "Connection::send",
    ];
    assert!(functions.ends_with(&expected), "{lines}");
}
