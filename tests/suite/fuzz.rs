//! Hostile bytes for the real binary: mutated traffic on its socket, and mutated logs and configuration files
//! at its start. It must not panic or hang, its memory must stay bounded, and the next client is served.
//!
//! `FUZZ_CASES` sets how many cases there are; the unit tests in `src/server/fuzz.rs` take most of them. A
//! failure prints the bytes, and `RANDOM_SEED` repeats them.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use respite::commands::{self, spec::Flags};

use crate::harness::{Server, TempDir, skipped_on_redis};
use crate::hostile::{Case, Hostile, cases};
use crate::rng::Rng;

/// The server's answers are read for so long, before it counts as hanging.
const PATIENCE: Duration = Duration::from_secs(20);
/// The next client is tried, and memory measured, after this many cases.
const CHECK_EVERY: usize = 100;

/// Commands of every row that any client may use, except those that change the server itself.
fn hostile() -> Hostile {
    let rows = commands::all().flat_map(|(_, row)| std::iter::once(row).chain(row.subcommands()));
    let rows = rows.filter(|row| !row.has(Flags::ADMIN));
    Hostile::new(Rng::of_run(), rows.map(|row| (row.name, row.syntax)))
}

#[test]
fn fuzz_mutated_traffic_harms_no_other_client() {
    if skipped_on_redis() {
        return;
    }
    let mut hostile = hostile();
    let args = ["--proto-max-bulk-len", "1mb", "--enable-debug-command", "yes"];
    let server = Server::start(&args);
    let mut before_kb = None;
    for number in 0..cases(20) {
        let mut bytes = hostile.pipeline(10);
        hostile.mutate(&mut bytes);
        let _case = Case(&bytes);
        let mut socket = TcpStream::connect(server.address()).expect("connect");
        socket.set_read_timeout(Some(PATIENCE)).expect("set a timeout");
        // It may hang up before it has read all.
        let _ = socket.write_all(&bytes);
        let _ = socket.shutdown(Shutdown::Write);
        if let Err(error) = socket.read_to_end(&mut Vec::new()) {
            let hung_up = error.kind() == std::io::ErrorKind::ConnectionReset;
            assert!(hung_up, "the connection is not closed: {error}");
        }
        if number % CHECK_EVERY == CHECK_EVERY - 1 {
            let mut c = server.client();
            c.expect("DEBUG CHECK", "+OK");
            c.expect("FLUSHALL", "+OK");
            if cfg!(target_os = "linux") {
                let now_kb = server.resident_kb();
                let before_kb = *before_kb.get_or_insert(now_kb);
                assert!(now_kb < before_kb + (64 << 10), "{before_kb} KB have become {now_kb} KB");
            }
        }
    }
    let stderr = server.stderr();
    assert!(!stderr.contains("panic"), "{stderr}");
}

#[test]
fn fuzz_a_mutated_log_is_loaded_or_refused() {
    if skipped_on_redis() {
        return;
    }
    let mut hostile = hostile();
    for _ in 0..cases(1) {
        let mut log = hostile.pipeline(30);
        hostile.mutate(&mut log);
        let _case = Case(&log);
        let home = TempDir::new();
        fs::write(home.data().join("storage.aof"), &log).expect("write the log");
        starts_or_refuses(home, &["--enable-debug-command", "yes"]);
    }
}

#[test]
fn fuzz_a_mutated_configuration_file_is_used_or_refused() {
    if skipped_on_redis() {
        return;
    }
    let lines = [
        "appendonly yes",
        "appendfsync everysec",
        "auto-aof-rewrite-min-size 64mb",
        "client-output-buffer-limit normal 0 0 0 pubsub 32mb 8mb 60",
        "databases 16",
        "hz 10",
        "maxclients 10000",
        "notify-keyspace-events KEA",
        "requirepass \"\"",
        "save 3600 1 300 100",
        "slowlog-max-len 128",
        "timeout 0",
    ];
    let mut hostile = hostile();
    for _ in 0..cases(1) {
        let some: Vec<&str> = (0..4).map(|_| lines[hostile.random.below(lines.len())]).collect();
        let mut file = (some.join("\n") + "\n").into_bytes();
        hostile.mutate(&mut file);
        let _case = Case(&file);
        let home = TempDir::new();
        let path = home.path().join("redis.conf");
        fs::write(&path, &file).expect("write the configuration");
        let path = path.to_str().expect("a path of UTF-8").to_owned();
        starts_or_refuses(home, &[&path]);
    }
}

/// Starts the server: it must serve, or say why not.
fn starts_or_refuses(home: TempDir, args: &[&str]) {
    match Server::try_start_in(home, args) {
        Ok(server) => {
            // A password that a mutation has set is an answer too.
            let reply = server.client().reply("PING").to_string();
            assert!(reply == "+PONG" || reply.starts_with("-NOAUTH"), "{reply}");
            assert!(!server.stderr().contains("panic"), "{}", server.stderr());
        }
        Err(ended) => {
            assert_eq!(ended.code, Some(1), "{}", ended.stderr);
            assert!(!ended.stderr.contains("panic"), "{}", ended.stderr);
        }
    }
}
