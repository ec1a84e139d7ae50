//! What users at a terminal and shell scripts expect of the server, through `redis-cli` and its C library
//! hiredis.
//!
//! Features that need a terminal (hints, the screen of `--stat`) run in a pseudo terminal, which `script`
//! of util-linux provides.

use std::process::Command;

use crate::process::{PATIENCE, Running, Server, eventually, output_of, version_of};
use crate::{Check, Servers};

pub(crate) const CHECKS: &[Check] = &[
    ("commands on the command line get their replies, in every form", command_line),
    ("errors have their texts and the exit status", errors),
    ("commands come from the standard input", standard_input),
    ("a password is required", password),
    ("--pipe loads 10,000 commands", pipe),
    ("--scan finds the keys that match --pattern", scan),
    ("--bigkeys and --memkeys find the biggest keys", big_keys),
    ("--latency and --stat draw what they measure", screens),
    ("SUBSCRIBE and MONITOR print what others send", listeners),
    ("hints, help and the prompt at a terminal", terminal),
    ("a killed connection is replaced at a terminal", killed),
];

/// The version, if util-linux's `script` is installed too.
pub(crate) fn version() -> Result<String, String> {
    version_of("script").and_then(|_| version_of("redis-cli"))
}

fn redis_cli(server: &Server) -> Command {
    let mut command = Command::new("redis-cli");
    command.args(["-p", &server.port.to_string()]);
    command
}

/// The output of `redis-cli` with these arguments, which are separated by spaces.
#[track_caller]
fn cli_reading(server: &Server, args: &str, input: &[u8]) -> String {
    let output = output_of(redis_cli(server).args(args.split(' ')), input, PATIENCE);
    output.unwrap_or_else(|output| panic!("redis-cli {args}: {output}"))
}

#[track_caller]
fn cli(server: &Server, args: &str) -> String {
    cli_reading(server, args, b"")
}

/// `redis-cli` at a terminal.
fn at_terminal(server: &Server, args: &str) -> Running {
    let mut command = Command::new("script");
    // redis-cli asks the terminal for its size, and a pseudo terminal has none.
    let session = format!("stty cols 100 rows 24; exec redis-cli -p {} {args}", server.port);
    command.args(["-qec", &session, "/dev/null"]).env("TERM", "xterm");
    Running::start(&mut command).expect("`script`, which gives a pseudo terminal")
}

fn command_line(servers: &Servers) {
    let server = &servers.open;
    assert_eq!(cli(server, "SET k v"), "OK");
    assert_eq!(cli(server, "--no-raw GET k"), "\"v\"");
    assert_eq!(cli(server, "--no-raw GET missing"), "(nil)");
    assert_eq!(cli(server, "-r 3 -i 0.01 INCR n"), "1\n2\n3");
    assert_eq!(cli(server, "HSET h f v g w"), "2");
    assert_eq!(cli(server, "--csv HGETALL h"), r#""f","v","g","w""#);
    assert_eq!(cli(server, "-3 --no-raw HGETALL h"), "1# \"f\" => \"v\"\n2# \"g\" => \"w\"");
    assert_eq!(cli(server, "--json HGETALL h"), r#"{"f":"v","g":"w"}"#);
    let large = b"0123456789abcde\n".repeat(1 << 16);
    assert_eq!(cli_reading(server, "-x SET large", &large), "OK");
    assert_eq!(cli(server, "STRLEN large"), large.len().to_string());
    assert_eq!(cli(server, "-n 3 SET k three"), "OK");
    assert_eq!(cli(server, "--no-raw -n 3 GET k"), "\"three\"");
    assert_eq!(cli(server, "GET k"), "v");
}

fn errors(servers: &Servers) {
    let server = &servers.open;
    cli(server, "HSET h f v");
    let text = "WRONGTYPE Operation against a key holding the wrong kind of value";
    assert_eq!(cli(server, "GET h"), text);
    assert_eq!(cli(server, "--no-raw GET h"), format!("(error) {text}"));
    let ended = output_of(redis_cli(server).args(["-e", "GET", "h"]), b"", PATIENCE).unwrap_err();
    assert!(ended.starts_with(text) && ended.ends_with("exit status: 1"), "{ended}");
    let text = "ERR unknown command 'NOSUCH', with args beginning with: 'a' 'b' ";
    assert_eq!(cli(server, "NOSUCH a b"), text.trim_end());
}

fn standard_input(servers: &Servers) {
    let session = b"SET a 1\nMULTI\nINCR a\nHGET a f\nEXEC\nMULTI\nGET\nEXEC\nGET a\n";
    let replies = [
        "OK",
        "OK",
        "QUEUED",
        "QUEUED",
        "2",
        "WRONGTYPE Operation against a key holding the wrong kind of value",
        "",
        "OK",
        "ERR wrong number of arguments for 'get' command",
        "",
        "EXECABORT Transaction discarded because of previous errors.",
        "",
        "2",
    ];
    let output = output_of(&mut redis_cli(&servers.open), session, PATIENCE).unwrap();
    assert_eq!(output.lines().collect::<Vec<_>>(), replies);
}

fn password(servers: &Servers) {
    let server = &servers.locked;
    assert_eq!(cli(server, "GET k"), "NOAUTH Authentication required.");
    assert_eq!(cli(server, "--no-auth-warning -a secret PING"), "PONG");
    assert_eq!(cli(server, "--no-auth-warning -3 --user default --pass secret PING"), "PONG");
    let output = cli(server, "--no-auth-warning -a wrong PING");
    let refused = "AUTH failed: WRONGPASS invalid username-password pair or user is disabled.";
    assert_eq!(output, format!("{refused}\nNOAUTH Authentication required."));
}

fn pipe(servers: &Servers) {
    let server = &servers.open;
    let command = |i| {
        let (key, value) = (format!("key:{i}"), format!("\r\n{i}"));
        let [key_length, value_length] = [key.len(), value.len()];
        format!("*3\r\n$3\r\nSET\r\n${key_length}\r\n{key}\r\n${value_length}\r\n{value}\r\n")
    };
    let input: String = (0..10_000).map(command).collect();
    let output = cli_reading(server, "--pipe", input.as_bytes());
    assert!(output.ends_with("errors: 0, replies: 10000"), "{output}");
    assert_eq!(cli(server, "DBSIZE"), "10000");
    assert_eq!(cli(server, "--no-raw GET key:9999"), r#""\r\n9999""#);
}

fn scan(servers: &Servers) {
    let server = &servers.open;
    let fill: String = (0..1000).map(|i| format!("SET key:{i} {i}\n")).collect();
    output_of(&mut redis_cli(server), fill.as_bytes(), PATIENCE).unwrap();
    assert_eq!(cli(server, "--scan").lines().count(), 1000);
    let output = cli(server, "--scan --pattern key:99?");
    let mut keys: Vec<&str> = output.lines().collect();
    keys.sort_unstable();
    assert!(keys.into_iter().eq((990..1000).map(|i| format!("key:{i}"))), "{output}");
}

fn big_keys(servers: &Servers) {
    let server = &servers.open;
    cli(server, "MSET short s long 0123456789");
    cli(server, "HSET hash f v g w");
    let output = cli(server, "--bigkeys");
    for line in [
        "Sampled 3 keys in the keyspace!",
        "Total key length in bytes is 13 (avg len 4.33)",
        r#"Biggest string found '"long"' has 10 bytes"#,
        r#"Biggest   hash found '"hash"' has 2 fields"#,
    ] {
        assert!(output.contains(line), "{line} is not in:\n{output}");
    }
    cli_reading(server, "-x SET long", &[b'x'; 5000]);
    let output = cli(server, "--memkeys");
    let (_, bytes) = output.split_once(r#"Biggest string found '"long"' has "#).expect(&output);
    let bytes: usize = bytes.split(' ').next().unwrap().parse().unwrap();
    assert!((5000..20_000).contains(&bytes), "{output}");
    assert!(output.contains(r#"Biggest   hash found '"hash"' has "#), "{output}");
}

fn screens(servers: &Servers) {
    let server = &servers.open;
    // Minimum, maximum and mean in milliseconds, and the number of samples.
    let output = cli(server, "--latency -i 0.2");
    let numbers: Vec<f64> = output.split(' ').map(|word| word.parse().expect(&output)).collect();
    assert!(
        matches!(numbers[..], [min, max, avg, count] if min <= avg && avg <= max && count > 1.0)
    );
    cli(server, "MSET a 1 b 2 c 3");
    let screen = at_terminal(server, "--stat -i 0.05");
    screen.expect_output("three lines of statistics", |text| {
        // Keys, memory, clients, blocked clients, requests (and the increase), connections.
        let is_row = |line: &&str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            words.len() == 7 && words[0] == "3" && words[1].ends_with(['B', 'K', 'M'])
        };
        text.contains("keys       mem") && text.lines().filter(is_row).count() >= 3
    });
}

fn listeners(servers: &Servers) {
    let server = &servers.open;
    for protocol in ["-2", "-3"] {
        let mut command = redis_cli(server);
        let subscriber = Running::start(command.args([protocol, "SUBSCRIBE", "news"])).unwrap();
        subscriber.expect_output("the subscription", |text| text == "subscribe\nnews\n1\n");
        assert_eq!(cli(server, "PUBLISH news hello"), "1");
        subscriber.expect_output("the message", |text| text.ends_with("message\nnews\nhello\n"));
        drop(subscriber);
        eventually("the subscriber is gone", || cli(server, "PUBLISH news hello") == "0");
    }
    let monitor = Running::start(redis_cli(server).arg("MONITOR")).unwrap();
    monitor.expect_output("that it listens", |text| text == "OK\n");
    cli(server, "-n 2 SET k it's");
    monitor.expect_output("the command", |text| {
        text.lines().any(|line| {
            let (address, command) = line.split_once("] ").unwrap_or_default();
            address.contains(" [2 127.0.0.1:") && command == r#""SET" "k" "it's""#
        })
    });
}

fn terminal(servers: &Servers) {
    let mut terminal = at_terminal(&servers.open, "");
    let port = servers.open.port;
    let mut enter = |input: &[u8], expected: &str| {
        let before = terminal.output().len();
        terminal.send(input);
        terminal.expect_output(expected, |text| {
            text.get(before..).is_some_and(|new| new.contains(expected))
        });
    };
    enter(b"", &format!("127.0.0.1:{port}> "));
    // The hint follows the typed text, in grey; Ctrl-U deletes the text.
    enter(b"hset", " key field value [field value ...]\x1b[0m");
    enter(b" k", " field value [field value ...]\x1b[0m");
    enter(b"\x15client setna", "client setna");
    enter(b"me", " connection-name\x1b[0m");
    enter(b"\x15help getdel\r", "\x1b[33mgroup:\x1b[0m string");
    enter(b"hset user:1 name \"a b\"\r", "(integer) 1");
    enter(b"hello 3\r", "\"standalone\"");
    enter(b"hgetall user:1\r", "1# \"name\" => \"a b\"");
    enter(b"select 3\r", &format!("127.0.0.1:{port}[3]> "));
    enter(b"multi\r", &format!("127.0.0.1:{port}[3](TX)> "));
    enter(b"set k v\r", "QUEUED");
    enter(b"exec\r", "1) OK");
}

fn killed(servers: &Servers) {
    let mut terminal = at_terminal(&servers.open, "");
    terminal.expect_output("the prompt", |text| text.contains("> "));
    terminal.send(b"client setname victim\r");
    terminal.expect_output("OK", |text| text.contains("\nOK"));
    let list = cli(&servers.open, "CLIENT LIST");
    let victim = list.lines().find(|line| line.contains(" name=victim ")).expect(&list);
    let id = victim.strip_prefix("id=").and_then(|rest| rest.split(' ').next()).expect(victim);
    assert_eq!(cli(&servers.open, &format!("CLIENT KILL ID {id}")), "1");
    // The first command afterwards finds the connection closed, the second one opens a new one.
    terminal.send(b"set k lost\r");
    terminal.expect_output("the loss", |text| text.contains("not connected> "));
    terminal.send(b"set k again\r");
    eventually("the command has run", || cli(&servers.open, "GET k") == "again");
}
