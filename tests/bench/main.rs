//! The benchmark: Respite beside Redis in one run, on one machine, with the same persistence.
//!
//! ```text
//! cargo bench                       everything, some eleven minutes
//! BENCH_SHORT=1 cargo bench         the same with tiny numbers, to see that it works
//! BENCH_ROUNDS=9 cargo bench        more rounds than five
//! BENCH_CASES=SET/,log cargo bench  only what begins so: `GET/16`, `GET/1/alone`, `always/` (requests with
//!                                   `appendfsync always`), `memory` (per key), `log/replay` or
//!                                   `log/rewrite`
//! ```
//!
//! It needs `redis-server` and `redis-benchmark` on the PATH, says which of them is missing and then
//! measures what is left. Nothing is asserted about speed.
//!
//! How it stays meaningful on a noisy machine: every round runs every case once on every server, one
//! directly after the other and in rotating order, on processes and logs that are new in each round.
//! The ratio of the medians stands beside the lowest and the highest of the rounds, and requests per
//! second beside the CPU time of the server process, which a busy neighbour hardly changes.
//!
//! The third server is the floor: a thread per connection that does nothing but answer `+PONG`, and with
//! `always` writes and syncs before what it has read. What it reaches is what kernel, disk and client
//! leave to any server of this kind; the longest that one of its clients waits is what the machine alone
//! does to a client. CPU time is counted by process, so it is this program, started once more.
//!
//! All servers are children of this process, each in a directory of its own below `target/tmp` (on a
//! real disk, where `/tmp` may be memory); [`Server`] takes both away again, on a panic too.

// A benchmark that cannot go on fails by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod load;
#[path = "../support/rng.rs"]
mod rng;
mod servers;
mod tables;

use std::array::from_fn;
use std::fs;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use load::{VALUE, hset, longest_wait, set};
use servers::{Kind, Server, floor, version};
use tables::{Case, Facts, Rounds, Sample, print_cases};

/// What redis-benchmark runs: `appendfsync`, a name of its `-t`, the length of the pipeline, and how many
/// clients.
#[rustfmt::skip]
const CASES: &[(&str, &str, u64, u64)] = &[
    ("everysec", "GET", 1, 1), ("everysec", "GET", 1, 50), ("everysec", "GET", 16, 50),
    ("everysec", "GET", 100, 50), ("everysec", "SET", 1, 1), ("everysec", "SET", 1, 50),
    ("everysec", "SET", 16, 50), ("everysec", "SET", 100, 50), ("everysec", "INCR", 16, 50),
    ("everysec", "HSET", 16, 50), ("everysec", "MSET", 16, 50),
    ("always", "SET", 1, 5), ("always", "SET", 1, 50), ("always", "SET", 16, 50),
];
/// The keys that redis-benchmark draws from.
const KEYS: usize = 100_000;
/// A rewrite that takes longer is taken for one that never ends.
const REWRITE_LIMIT: Duration = Duration::from_secs(120);
/// How often is looked whether a rewrite has ended, and how much memory it takes.
const LOOK: Duration = Duration::from_millis(20);

/// How much is measured.
struct Scale {
    rounds: usize,
    /// How long Respite should take for a run of a case.
    run_seconds: f64,
    /// How long memory and log get to settle before memory is read or the server killed.
    settle_seconds: f64,
    /// Strings in the measurement of memory; of hashes a tenth.
    strings: usize,
    /// Keys in the measurements of the log.
    logged: usize,
    /// How long the longest wait is looked for, without a rewrite and with one.
    watch_seconds: f64,
}

#[rustfmt::skip]
const FULL: Scale = Scale {
    rounds: 5, run_seconds: 1.5, settle_seconds: 2.5, strings: 1_000_000, logged: 1_500_000,
    watch_seconds: 3.0,
};
#[rustfmt::skip]
const SHORT: Scale = Scale {
    rounds: 1, run_seconds: 0.05, settle_seconds: 0.2, strings: 10_000, logged: 15_000,
    watch_seconds: 0.2,
};

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if args[1..].first().is_some_and(|word| word == "floor") {
        return floor(&args[2], args.get(3));
    }
    // Without `--bench` it is `cargo test --all-targets` that runs us.
    let short = is_set("BENCH_SHORT") || !args.iter().any(|arg| arg == "--bench");
    let mut scale = if short { SHORT } else { FULL };
    if let Ok(rounds) = std::env::var("BENCH_ROUNDS") {
        scale.rounds = rounds.parse().expect("BENCH_ROUNDS must be a number");
    }
    let redis = version("redis-server");
    let mut kinds = vec![Kind::Respite, Kind::Redis, Kind::Floor];
    let mut markdown = machine(redis.as_deref());
    println!("{markdown}");
    if redis.is_none() {
        println!("redis-server is not on the PATH: Respite is measured alone.\n");
        kinds.retain(|&kind| kind != Kind::Redis);
    }
    if version("redis-benchmark").is_some() {
        throughput(&scale, &kinds, &mut markdown);
    } else {
        println!("redis-benchmark is not on the PATH: no requests per second.\n");
    }
    let mut facts = Facts::default();
    if is_wanted("memory") {
        memory(&scale, &kinds, &mut facts);
    }
    if is_wanted("log/replay") || is_wanted("log/rewrite") {
        log(&scale, &kinds, &mut facts);
    }
    println!("\nThe same in Markdown:\n\n{markdown}{}", facts.markdown());
}

/// Requests per second, CPU time and latency, case by case.
fn throughput(scale: &Scale, kinds: &[Kind], markdown: &mut String) {
    let new_case = |&(appendfsync, test, pipeline, clients)| Case {
        appendfsync,
        test,
        pipeline,
        clients,
        requests: 0,
        samples: Default::default(),
    };
    let mut cases: Vec<Case> = CASES.iter().map(new_case).collect();
    cases.retain(|case| is_wanted(&case.name()));
    if cases.is_empty() {
        return;
    }
    for round in 0..scale.rounds {
        eprintln!("requests: round {} of {}", round + 1, scale.rounds);
        for cases in cases.chunk_by_mut(|a, b| a.appendfsync == b.appendfsync) {
            throughput_round(scale, kinds, cases, round);
        }
    }
    for case in cases.extract_if(.., |case| case.requests == 0) {
        println!("{} cannot be run here.\n", case.name());
    }
    *markdown += &print_cases(&cases);
}

/// One round of cases with the same `appendfsync`. The first finds out how much is to be requested.
fn throughput_round(scale: &Scale, kinds: &[Kind], cases: &mut [Case], round: usize) {
    let appendfsync = cases[0].appendfsync;
    let servers: Vec<Server> = kinds.iter().map(|&kind| Server::start(kind, appendfsync)).collect();
    for server in &servers {
        server.connect().load(KEYS, set);
    }
    for case in cases {
        if round == 0 {
            let trial = (scale.run_seconds * 4000.0) as u64 * (1 + case.pipeline);
            let speed = run(&servers[0], case, trial).map_or(0.0, |sample| sample[0]);
            case.requests = (speed * scale.run_seconds) as u64;
        }
        if case.requests == 0 {
            continue;
        }
        for turn in 0..servers.len() {
            let server = &servers[(turn + round) % servers.len()];
            let sample = run(server, case, case.requests).expect("redis-benchmark failed");
            case.samples[server.kind as usize].push(sample);
        }
    }
}

/// Runs a case once; nothing if redis-benchmark does not know it or the server refuses it.
fn run(server: &Server, case: &Case, requests: u64) -> Option<Sample> {
    let Case { pipeline, clients, .. } = case;
    let (port, bytes) = (server.port, VALUE.len());
    let test = case.test.to_lowercase();
    let options = format!(
        "-p {port} -t {test} -c {clients} -P {pipeline} -n {requests} -r {KEYS} -d {bytes} --csv"
    );
    let mut client = Command::new("redis-benchmark");
    client.args(options.split(' '));
    let before = server.cpu_us();
    let output = client.output().ok()?;
    let after = server.cpu_us();
    let text = String::from_utf8_lossy(&output.stdout);
    // The name of the test is the one field that is no number.
    let fields = text.lines().last()?.split(',');
    let numbers = fields.filter_map(|field| field.trim_matches('"').parse().ok());
    let [per_second, _, _, p50, _, p99, _] = numbers.collect::<Vec<f64>>()[..] else {
        return None;
    };
    let [user, system] = from_fn(|mode| (after[mode] - before[mode]) / requests as f64);
    Some([per_second, user, system, p50, p99])
}

/// Memory per key, which is what a fresh server grows by.
fn memory(scale: &Scale, kinds: &[Kind], facts: &mut Facts) {
    let [mut empty, mut string, mut hash] = [(); 3].map(|()| Rounds::default());
    for &kind in kinds.iter().filter(|&&kind| kind != Kind::Floor) {
        eprintln!("memory: {}", kind.name());
        // Not into one server: the second kind of key could make its table of keys double.
        let load = |count: usize, command: fn(usize) -> Vec<u8>| {
            let server = Server::start(kind, "everysec");
            let at_first = server.resident_bytes();
            server.connect().load(count, command);
            sleep(scale.settle_seconds);
            (at_first / 1e6, (server.resident_bytes() - at_first) / count as f64)
        };
        let (at_first, per_string) = load(scale.strings, set);
        empty[kind as usize].push(at_first);
        string[kind as usize].push(per_string);
        hash[kind as usize].push(load(scale.strings / 10, hset).1);
    }
    facts.add("MB resident when empty", &empty, 1);
    facts.add("bytes per string of 16 + 32", &string, 0);
    facts.add("bytes per hash of 16 + 10 × (10 + 10)", &hash, 0);
}

/// What the log takes: how fast a restart replays it, and what a rewrite does to clients and memory.
fn log(scale: &Scale, kinds: &[Kind], facts: &mut Facts) {
    let mut replayed = Rounds::default();
    let [mut quiet_ms, mut rewrite_ms, mut peak, mut took] = [(); 4].map(|()| Rounds::default());
    for round in 0..scale.rounds {
        for turn in 0..kinds.len() {
            let kind = kinds[(turn + round) % kinds.len()];
            eprintln!("log: round {} of {}, {}", round + 1, scale.rounds, kind.name());
            let mut server = Server::start(kind, "everysec");
            if kind != Kind::Floor {
                server.connect().load(scale.logged, set);
                sleep(scale.settle_seconds);
            }
            if kind != Kind::Floor && is_wanted("log/replay") {
                let seconds = server.restart().as_secs_f64();
                let keys = server.connect().ask(&["DBSIZE"]).expect("DBSIZE");
                let records: f64 = keys[1..].parse().expect("DBSIZE");
                replayed[kind as usize].push(records / seconds);
            }
            if is_wanted("log/rewrite") {
                let quiet = longest_wait(&server, scale.logged, || sleep(scale.watch_seconds));
                quiet_ms[kind as usize].push(quiet.as_secs_f64() * 1e3);
            }
            if kind != Kind::Floor && is_wanted("log/rewrite") {
                let mut seen = Rewrite::default();
                let longest = longest_wait(&server, scale.logged, || {
                    seen = rewrite(&server, scale.watch_seconds);
                });
                rewrite_ms[kind as usize].push(longest.as_secs_f64() * 1e3);
                peak[kind as usize].push(seen.peak_percent);
                took[kind as usize].push(seen.seconds);
            }
        }
    }
    if is_wanted("log/replay") {
        facts.add("log records replayed per second", &replayed, 0);
    }
    if is_wanted("log/rewrite") {
        facts.add("longest wait for a `SET`, ms", &quiet_ms, 2);
        facts.add("the same during a rewrite, ms", &rewrite_ms, 2);
        facts.add("peak memory of a rewrite, % of before", &peak, 1);
        facts.add("seconds that a rewrite takes", &took, 2);
    }
}

/// What was seen of a rewrite of the log.
#[derive(Default)]
struct Rewrite {
    seconds: f64,
    /// The most memory that server and child took together.
    peak_percent: f64,
}

/// Has the log rewritten, and watches the server for so long, or until that is done.
fn rewrite(server: &Server, watch_seconds: f64) -> Rewrite {
    let mut client = server.connect();
    let mut ask = |args: &[&str]| client.ask(args).expect("an answer");
    // A rewrite in the middle of the time, as far as it is a short one.
    sleep(watch_seconds / 4.0);
    let before = server.resident_bytes();
    server.forget_peak();
    let started = Instant::now();
    ask(&["BGREWRITEAOF"]);
    let mut highest: f64 = 0.0;
    let info = loop {
        // Samples see the child; the kernel's own count misses nothing of the server itself.
        highest = highest.max(server.resident_bytes_of_all());
        let info = ask(&["INFO", "persistence"]);
        if info.contains("aof_rewrite_in_progress:0") {
            break info;
        }
        assert!(started.elapsed() < REWRITE_LIMIT, "the rewrite does not end:\n{info}");
        thread::sleep(LOOK);
    };
    let seconds = started.elapsed().as_secs_f64();
    assert!(info.contains("aof_last_bgrewrite_status:ok"), "the rewrite failed:\n{info}");
    let peak = highest.max(server.peak_bytes());
    sleep(watch_seconds * 0.75 - seconds);
    Rewrite { seconds, peak_percent: peak / before * 100.0 }
}

/// One line about what is measured on what.
fn machine(redis: Option<&str>) -> String {
    let cores = thread::available_parallelism().map_or(0, usize::from);
    let about = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = about.lines().find(|line| line.starts_with("model name"));
    let model = model.and_then(|line| line.split(": ").nth(1));
    let model = model.unwrap_or("unknown");
    let respite = env!("CARGO_PKG_VERSION");
    let redis = redis.and_then(|text| text.split("v=").nth(1)?.split(' ').next());
    let redis = redis.unwrap_or("missing");
    format!(
        "{cores} cores ({model}); Respite {respite}, Redis {redis}; appendfsync everysec where \
         nothing else is said.\n"
    )
}

fn sleep(seconds: f64) {
    thread::sleep(Duration::from_secs_f64(seconds.max(0.0)));
}

fn is_set(name: &str) -> bool {
    std::env::var(name).is_ok_and(|value| !value.is_empty() && value != "0")
}

/// Whether `BENCH_CASES`, if there is such a list, has a beginning of this name.
fn is_wanted(name: &str) -> bool {
    let list = std::env::var("BENCH_CASES").unwrap_or_default();
    list.split(',').any(|part| name.starts_with(part))
}
