//! Hostile bytes for the parser, the replay of a log, all commands and the configuration, in this process.
//!
//! None of them may panic, loop for ever, or take more memory than the bytes that arrived justify. The suite
//! sends such bytes to the real binary too.

use std::io::Cursor;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use crate::aof::Aof;
use crate::aof::replay::{ANY_LENGTH, ReplayError, replay};
use crate::commands::{self, rules, spec::Flags};
use crate::config::{Config, SETTINGS};
use crate::dispatch;
use crate::hostile::{Case, Hostile, cases};
use crate::resp::{Args, Protocol, Reply, Request, request};
use crate::rng::Rng;

use crate::session::users::User;
use crate::session::{Clients, Login, Server, Session};

/// No case takes so long, unless it hangs.
const PATIENCE: Duration = Duration::from_secs(20);

/// Commands of every row that any client may use, except those that change the server itself.
fn hostile() -> Hostile {
    let rows = commands::all().flat_map(|(_, row)| std::iter::once(row).chain(row.subcommands()));
    let rows = rows.filter(|row| !row.has(Flags::ADMIN));
    Hostile::new(Rng::of_run(), rows.map(|row| (row.name, row.syntax)))
}

/// A server without connections, whose strings are short so that memory is bounded.
fn server() -> Server {
    let config = Config::new();
    config.proto_max_bulk_len.store(1 << 20, Relaxed);
    Server::new(Arc::new(config), Aof::disabled(), channel().0, channel().0)
}

#[test]
fn fuzz_the_parser_takes_any_bytes_wherever_they_are_cut() {
    let mut hostile = hostile();
    for _ in 0..cases(420) {
        let mut bytes = hostile.pipeline(4);
        hostile.mutate(&mut bytes);
        let case = Case(&bytes);
        let (strict, unauthenticated) =
            (hostile.random.below(2) == 0, hostile.random.below(4) == 0);
        let mut parse = |cut: usize| {
            let mut request = Request::new(1 << 20);
            (request.strict, request.unauthenticated) = (strict, unauthenticated);
            let (mut commands, mut at, mut fed) = (0u64, 0, 0);
            while at < bytes.len() {
                let length = if cut == 0 { 1 + hostile.random.below(50) } else { cut };
                let end = (at + length).min(bytes.len());
                let progress = match request.feed(&bytes[at..end]) {
                    Ok(progress) => progress,
                    Err(error) => return (commands, Some(error)),
                };
                fed += progress.used;
                assert!(progress.used > 0, "it makes no progress");
                assert!(progress.complete || progress.used == end - at, "it leaves bytes behind");
                assert!(request.memory_bytes() <= 4096 + 16 * fed, "more than {fed} bytes justify");
                at += progress.used;
                if progress.complete {
                    commands += 1;
                    request.clear();
                }
            }
            (commands, None)
        };
        assert_eq!(parse(bytes.len()), parse(0), "in one piece, and in several");
        drop(case);
    }
}

/// Whether a record may make a string so long that the test would take too much of this machine. A log may do
/// that, because what arrives does not bound the memory. For the largest offsets there is no memory anywhere.
fn takes_memory(args: Args) -> bool {
    let has_offset = |row: &commands::Command| row.syntax.contains("offset");
    let is_large = |arg: &[u8]| {
        let digits = str::from_utf8(arg.strip_prefix(b"#").unwrap_or(arg)).unwrap_or_default();
        digits.parse().is_ok_and(|offset: i128| (1 << 20..1 << 52).contains(&offset))
    };
    commands::find(&args[0]).is_some_and(has_offset) && args.from(1).any(is_large)
}

#[test]
fn fuzz_a_replay_of_any_bytes_finds_whole_records_or_damage() {
    let mut hostile = hostile();
    let (server, mut session) = (server(), Session::for_replay());
    let mut reply = Reply::new(Protocol::Resp2);
    for number in 0..cases(200) {
        let mut log = hostile.pipeline(6);
        if hostile.random.below(3) == 0 {
            log = [&b"*1\r\n$5\r\nMULTI\r\n"[..], &log, b"*1\r\n$4\r\nEXEC\r\n"].concat();
        }
        hostile.mutate(&mut log);
        if hostile.random.below(8) == 0 {
            log.resize(log.len() + hostile.random.below(5000), 0);
        }
        let case = Case(&log);
        let started = Instant::now();
        let length = log.len() as u64;
        let valid =
            match replay(&mut Cursor::new(&log), 0, ANY_LENGTH, |_| Ok::<_, String>(()), |_| {}) {
                Ok(replayed) => {
                    assert_eq!(replayed.valid_bytes + replayed.torn_bytes, length);
                    replayed.valid_bytes
                }
                Err(ReplayError::Damage { offset, valid_bytes, .. }) => {
                    assert!(valid_bytes <= offset && offset <= length, "{valid_bytes}, {offset}");
                    valid_bytes
                }
                Err(error) => panic!("{error}"),
            };
        // What is kept if the rest is cut off.
        let kept = &log[..valid as usize];
        let replayed =
            replay(&mut Cursor::new(kept), 0, ANY_LENGTH, |_| Ok::<_, String>(()), |_| {});
        assert!(replayed.is_ok_and(|replayed| replayed.torn_bytes == 0), "cut at {valid}");
        let apply = |args: Args| {
            if takes_memory(args) {
                return Err("skipped".into());
            }
            dispatch::apply(&server, &mut session, args, &mut reply)
        };
        let applied = replay(&mut Cursor::new(&log), 0, ANY_LENGTH, apply, |_| {});
        assert!(!matches!(applied, Err(ReplayError::Io(_))));
        if number % 500 == 499 {
            assert_eq!(server.keyspace.check(), Ok(()));
            session = Session::for_replay();
        }
        assert!(started.elapsed() < PATIENCE, "it hangs");
        drop(case);
    }
}

#[test]
fn fuzz_any_command_with_any_arguments_is_answered() {
    let mut hostile = hostile();
    let server = server();
    let new_session = || Session::new(Clients::detached(), Login::new(&server.users));
    let mut session = new_session();
    for number in 0..cases(220) {
        if number % 20 == 0 {
            session.release(&server);
            session = new_session();
        }
        let mut words = hostile.command();
        for word in words.iter_mut().skip(1).filter(|_| number % 3 == 0) {
            hostile.mutate(word);
        }
        let mut bytes = Vec::new();
        let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
        request::encode(&mut bytes, &words);
        let case = Case(&bytes);
        let started = Instant::now();
        let mut parsed = Request::new(1 << 20);
        assert!(parsed.feed(&bytes).is_ok_and(|progress| progress.complete));
        let mut reply = Reply::new(Protocol::Resp2);
        dispatch::execute(&server, &mut session, parsed.args().expect("memory"), &mut reply);
        if number % 500 == 499 {
            assert_eq!(server.keyspace.check(), Ok(()));
        }
        assert!(started.elapsed() < PATIENCE, "it hangs");
        drop(case);
    }
}

/// A transaction locks beforehand what the rows of its commands say. Nothing else is held when they run.
#[test]
fn every_command_runs_inside_a_transaction() {
    let server = server();
    let mut session = Session::new(Clients::detached(), Login::new(&server.users));
    let rows = commands::all().flat_map(|(_, row)| std::iter::once(row).chain(row.subcommands()));
    let mut random = Rng::of_run();
    for row in rows.filter(|row| row.subcommands().is_empty() && !row.has(Flags::ADMIN)) {
        let mut one = Hostile::new(random.fork(), std::iter::once((row.name, row.syntax)));
        for _ in 0..20 {
            for words in [vec![b"MULTI".to_vec()], one.command(), vec![b"EXEC".to_vec()]] {
                let mut bytes = Vec::new();
                let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
                request::encode(&mut bytes, &words);
                let case = Case(&bytes);
                let mut parsed = Request::new(1 << 20);
                assert!(parsed.feed(&bytes).is_ok_and(|progress| progress.complete));
                let mut reply = Reply::new(Protocol::Resp2);
                dispatch::execute(
                    &server,
                    &mut session,
                    parsed.args().expect("memory"),
                    &mut reply,
                );
                drop(case);
            }
        }
    }
    assert_eq!(server.keyspace.check(), Ok(()));
}

#[test]
fn fuzz_any_rules_make_a_user_whose_rules_in_a_file_make_it_again() {
    let hash = "#".to_owned() + &"0123456789abcdef".repeat(4);
    let words = [
        "on",
        "off",
        "nopass",
        "resetpass",
        ">secret",
        "<secret",
        &hash,
        "~a*",
        "%R~b*",
        "%W~c",
        "%RW~d",
        "allkeys",
        "resetkeys",
        "&news*",
        "allchannels",
        "resetchannels",
        "+@all",
        "-@all",
        "+get",
        "-set",
        "+@read",
        "-@write",
        "+config|get",
        "-config|set",
        "+select|0",
        "(~x +get)",
        "(~x)",
        "~y)",
        "(~(z",
        "(~\"q)\"",
        "+select|1)",
        "clearselectors",
        "alldbs",
        "resetdbs",
        "db=1,0,7",
        "reset",
        "(%R~s* -@all +get &c)",
        "skip-sanitize-payload",
    ];
    let mut hostile = hostile();
    for _ in 0..cases(30) {
        let mut bytes = Vec::new();
        for _ in 0..1 + hostile.random.below(8) {
            bytes.extend(words[hostile.random.below(words.len())].bytes());
            bytes.push(b' ');
        }
        hostile.mutate(&mut bytes);
        let case = Case(&bytes);
        let make = |bytes: &[u8]| {
            let rules = rules::join_selectors(bytes.split(|byte| *byte == b' ')).ok()?;
            let mut user = User::new(b"user", false);
            rules::apply(&mut user, &rules, false).ok()?;
            Some(rules::describe_for_file(&user))
        };
        if let Some(shown) = make(&bytes) {
            assert_eq!(make(&shown), Some(shown));
        }
        drop(case);
    }
}

#[test]
fn fuzz_any_configuration_is_read_or_refused() {
    let lines: Vec<String> = SETTINGS
        .iter()
        .map(|setting| format!("{} \"{}\"\n", setting.name, setting.default))
        .collect();
    let mut hostile = hostile();
    let path = std::env::temp_dir().join(format!("respite-fuzz-{}.conf", std::process::id()));
    let args = [path.to_string_lossy().into_owned()];
    for _ in 0..cases(50) {
        let mut bytes = Vec::new();
        for _ in 0..1 + hostile.random.below(5) {
            bytes.extend(lines[hostile.random.below(lines.len())].bytes());
        }
        hostile.mutate(&mut bytes);
        let case = Case(&bytes);
        let started = Instant::now();
        assert!(std::fs::write(&path, &bytes).is_ok());
        if let Err(why) = Config::from_args(&args) {
            assert!(why.contains("line ") && why.len() < 1000 + 20 * bytes.len(), "{why}");
        }
        assert!(started.elapsed() < PATIENCE, "it hangs");
        drop(case);
    }
    assert!(std::fs::remove_file(&path).is_ok());
}
