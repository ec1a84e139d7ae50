//! The benchmark: Respite and Redis in one run, on one machine, with the same persistence.
//!
//! ```text
//! cargo bench                       everything, about twenty minutes
//! BENCH_SHORT=1 cargo bench         the same with tiny numbers, to check that it works
//! BENCH_ROUNDS=9 cargo bench        nine rounds instead of five
//! BENCH_CASES=SET/,log cargo bench  only cases with these prefixes: `GET/16`, `GET/1/alone`,
//!                                   `always/` (requests with `appendfsync always`), `memory` (per
//!                                   key), `hits`, `log/replay`, `log/rewrite` or `replication`
//! ```
//!
//! It needs `redis-server` and `redis-benchmark` on the PATH; if one is missing, it says so and measures
//! the rest. To compare with another version of Redis, put its directory first on the PATH. Memory, hits and
//! replication of Valkey are measured too if `VALKEY_SERVER` names one, or `valkey-server` is on the PATH. It
//! asserts nothing about speed.
//!
//! To be meaningful on a noisy machine, every round runs every case once on every server, one directly
//! after the other and in rotating order, with new processes and logs. The output shows the ratio of the
//! medians with the lowest and highest ratio of a round, and requests per second with the CPU time of the
//! server process, which a busy neighbour hardly changes.
//!
//! One more server is the floor: a thread per connection that only replies `+PONG`, and with `always`
//! first writes and syncs its input. Its throughput is what kernel, disk and client allow any server of
//! this kind; the longest wait of its clients is due to the machine alone. It is a second process of this
//! program, because CPU time is counted per process.
//!
//! At the end come the tables of the README in Markdown. A full run draws the pictures of the README, the SVG
//! files in `tests/bench`, of what it has measured.
//!
//! All servers are children of this process, each in its own directory below `target/tmp` (which is on a
//! disk, while `/tmp` may be in memory). [`Server`] removes both, even after a panic.

// The benchmark fails by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod hits;
mod load;
mod picture;
mod replicas;
#[path = "../support/rng.rs"]
mod rng;
mod servers;
mod tables;

use std::array::from_fn;
use std::cell::RefCell;
use std::fs;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use hits::{Cache, POLICIES, TRACES, hit_rates};
use load::{
    VALUE, del, hset_one, hset_ten, hset_three, longest_wait, set, set_digits, set_long,
    set_that_expires, set_with,
};
use picture::{Group, bars};
use replicas::replication;
use servers::{Kind, Server, floor, version};
use tables::{Case, Facts, Rounds, Sample, print_cases, show};

/// The runs of redis-benchmark: `appendfsync`, the name for `-t`, the pipeline length, the number of
/// clients.
#[rustfmt::skip]
const CASES: &[(&str, &str, u64, u64)] = &[
    ("everysec", "GET", 1, 1), ("everysec", "GET", 1, 50), ("everysec", "GET", 16, 50),
    ("everysec", "GET", 100, 50), ("everysec", "SET", 1, 1), ("everysec", "SET", 1, 50),
    ("everysec", "SET", 16, 50), ("everysec", "SET", 100, 50), ("everysec", "INCR", 16, 50),
    ("everysec", "HSET", 16, 50), ("everysec", "MSET", 16, 50),
    ("always", "SET", 1, 5), ("always", "SET", 1, 50), ("always", "SET", 16, 50),
];
/// What the memory of is measured: a name, how many keys are stored for each of a million, and the command
/// that stores one.
type Kept = (&'static str, f64, fn(usize) -> Vec<u8>);

const KEPT: &[Kept] = &[
    ("string (16 + 32 bytes)", 1.0, set),
    ("string that expires (16 + 32)", 1.0, set_that_expires),
    ("number (16 + 8 digits)", 1.0, set_digits),
    ("string (40 + 100)", 1.0, set_long),
    ("hash of 3 fields (5 + 20)", 1.0, hset_three),
    ("hash of 10 fields (10 + 10)", 0.5, hset_ten),
    // These are not in the picture.
    ("string (16 + 32), 0.5 million", 0.5, set),
    ("string (16 + 32), 0.7 million", 0.7, set),
    ("string (16 + 32), 2 million", 2.0, set),
    ("string (16 + 32), 4 million", 4.0, set),
    ("field of a hash of 100,000 (10 + 32)", 1.0, hset_one),
];
/// How many of them are in the picture.
const PICTURED: usize = 6;
/// How often each key is overwritten, how many of a hundred keys are deleted, and how many connections are
/// idle.
const OVERWRITES: usize = 4;
const DELETED_PERCENT: usize = 90;
const IDLE: usize = 1000;
/// What a connection writes once.
const LARGE_BYTES: usize = 5_000_000;
/// The number of keys from which redis-benchmark chooses.
const KEYS: usize = 100_000;
/// What takes longer counts as hanging.
const LIMIT: Duration = Duration::from_secs(120);
/// The interval at which a rewrite's progress and memory are sampled.
const LOOK: Duration = Duration::from_millis(20);

/// The size of the measurements.
struct Scale {
    rounds: usize,
    /// The target duration of a case's run on Respite.
    run_seconds: f64,
    /// The pause before memory is read or the server is killed.
    settle_seconds: f64,
    /// The number of keys in the memory measurement.
    strings: usize,
    /// The number of keys in the log measurements.
    logged: usize,
    /// The number of keys that a replica gets.
    replicated: usize,
    /// The time in which the longest wait is measured, without a rewrite and with one.
    watch_seconds: f64,
    cache: Cache,
    /// Whether to draw the pictures.
    draws: bool,
}

#[rustfmt::skip]
const FULL: Scale = Scale {
    rounds: 5, run_seconds: 1.5, settle_seconds: 2.5, strings: 1_000_000, logged: 1_500_000,
    replicated: 2_000_000, watch_seconds: 3.0, cache: Cache { maxmemory: "60mb", requests: 3_000_000 }, draws: true,
};
#[rustfmt::skip]
const SHORT: Scale = Scale {
    rounds: 1, run_seconds: 0.05, settle_seconds: 0.2, strings: 10_000, logged: 15_000,
    replicated: 20_000, watch_seconds: 0.2, cache: Cache { maxmemory: "3mb", requests: 60_000 }, draws: false,
};

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if args[1..].first().is_some_and(|word| word == "floor") {
        return floor(&args[2], args.get(3));
    }
    // Without `--bench`, `cargo test --all-targets` runs this.
    let short = is_set("BENCH_SHORT") || !args.iter().any(|arg| arg == "--bench");
    let mut scale = if short { SHORT } else { FULL };
    if let Ok(rounds) = std::env::var("BENCH_ROUNDS") {
        scale.rounds = rounds.parse().expect("BENCH_ROUNDS must be a number");
    }
    let redis = version(&Kind::Redis.program());
    let valkey = version(&Kind::Valkey.program());
    println!("{}", machine(redis.as_deref(), valkey.as_deref()));
    let mut kinds = vec![Kind::Respite];
    if redis.is_some() {
        kinds.push(Kind::Redis);
    } else {
        println!("redis-server is not on the PATH: Respite is measured without it.\n");
    }
    let caches = [&kinds[..], if valkey.is_some() { &[Kind::Valkey] } else { &[] }].concat();
    kinds.push(Kind::Floor);
    let mut tables = Vec::new();
    if version("redis-benchmark").is_some() {
        tables.extend(throughput(&scale, &kinds));
    } else {
        println!("redis-benchmark is not on the PATH: no requests per second.\n");
    }
    if is_wanted("memory") {
        tables.push(memory(&scale, &caches));
    }
    if is_wanted("hits") {
        tables.push(hits(&scale, &caches));
    }
    if is_wanted("log/replay") || is_wanted("log/rewrite") {
        tables.push(log(&scale, &kinds));
    }
    if is_wanted("replication") {
        tables.push(replication(&scale, &caches));
    }
    println!("\nThe tables of the README:\n{}", tables.concat());
}

/// Draws a picture of the README.
fn draw(scale: &Scale, name: &str, title: &str, groups: &[Group], digits: fn(f64) -> String) {
    if scale.draws {
        let kinds = [Kind::Respite, Kind::Redis, Kind::Valkey];
        let picture = bars(title, &kinds, groups, digits);
        fs::write(format!("tests/bench/{name}.svg"), picture).expect("a picture");
    }
}

/// Requests per second, CPU time and latency, case by case.
fn throughput(scale: &Scale, kinds: &[Kind]) -> Option<String> {
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
        return None;
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
    let groups: Vec<Group> = cases.iter().map(Case::group).collect();
    let thousands = |number| format!("{} k", show(number / 1e3, 0));
    draw(scale, "throughput", "Requests per second", &groups, thousands);
    Some(print_cases(&cases))
}

/// One round of cases with the same `appendfsync`. The first round determines the numbers of requests.
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

/// Runs a case once; `None` if redis-benchmark does not know it or the server refuses it.
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
    // The test's name is the only field that is not a number.
    let fields = text.lines().last()?.split(',');
    let numbers = fields.filter_map(|field| field.trim_matches('"').parse().ok());
    let [per_second, _, _, p50, _, p99, _] = numbers.collect::<Vec<f64>>()[..] else {
        return None;
    };
    let [user, system] = from_fn(|mode| (after[mode] - before[mode]) / requests as f64);
    Some([per_second, user, system, p50, p99])
}

/// Memory per key: the growth of a new server.
fn memory(scale: &Scale, kinds: &[Kind]) -> String {
    let mut facts = Facts::new("resident bytes per key");
    let mut empty = Rounds::default();
    for &(what, share, command) in KEPT {
        let mut bytes = Rounds::default();
        for &kind in kinds {
            eprintln!("memory: {what}: {}", kind.name());
            // Each kind of key gets its own server: in a shared one, the second kind could double the key
            // table.
            let server = Server::start(kind, "everysec");
            let count = (scale.strings as f64 * share) as usize;
            let at_first = server.resident_bytes();
            server.connect().load(count, command);
            sleep(scale.settle_seconds);
            empty[kind as usize].push(at_first / 1e6);
            bytes[kind as usize].push((server.resident_bytes() - at_first) / count as f64);
        }
        facts.add(what, bytes, 1);
    }
    let [mut overwritten, mut full, mut refilled, mut idle, mut large] =
        [(); 5].map(|()| Rounds::default());
    for &kind in kinds {
        eprintln!("memory: changes: {}", kind.name());
        let count = scale.strings;
        let resident = |server: &Server| {
            sleep(scale.settle_seconds);
            server.resident_bytes()
        };
        let server = Server::start(kind, "everysec");
        let (mut c, at_first) = (server.connect(), server.resident_bytes());
        for round in 0..=OVERWRITES {
            c.load(count, |number| set_with(number, 22 + 10 * ((number + round) % 3)));
        }
        overwritten[kind as usize].push((resident(&server) - at_first) / count as f64);

        let server = Server::start(kind, "everysec");
        let mut c = server.connect();
        c.load(4 * count, set);
        full[kind as usize].push(resident(&server) / 1e6);
        let deleted = 4 * count * DELETED_PERCENT / 100;
        c.load(deleted, |number| del(number / DELETED_PERCENT * 100 + number % DELETED_PERCENT));
        c.load(count, |number| set(4 * count + number));
        refilled[kind as usize].push(resident(&server) / 1e6);

        let server = Server::start(kind, "everysec");
        let mut c = server.connect();
        c.load(1000, set); // so that nothing is used for the first time
        let before = resident(&server);
        c.load(1, |_| set_with(0, LARGE_BYTES));
        c.load(1, |_| del(0));
        large[kind as usize].push((resident(&server) - before) / 1e3);

        let server = Server::start(kind, "everysec");
        let before = resident(&server);
        let all: Vec<_> = (0..IDLE).map(|_| server.connect()).collect();
        idle[kind as usize].push((resident(&server) - before) / 1e3 / IDLE as f64);
        drop(all);
    }
    facts.add("string (16 + 32), overwritten four times", overwritten, 1);
    facts.add("MB resident with 4 million strings", full, 1);
    facts.add("MB with 90 % of them deleted, a million new", refilled, 1);
    facts.add("KB of an idle connection", idle, 1);
    facts.add("KB more for one that once wrote 5 MB", large, 0);
    facts.add("MB resident when empty", empty, 1);
    let title = "Resident bytes per key, a million keys";
    draw(scale, "memory", title, &facts.groups(PICTURED), |bytes| show(bytes, 0));
    facts.markdown()
}

/// The hit rates of caches.
fn hits(scale: &Scale, kinds: &[Kind]) -> String {
    let mut facts = Facts::new("keys found, %");
    for &trace in TRACES {
        for policy in POLICIES {
            eprintln!("hits: {}, {policy}", trace.0);
            let rates = hit_rates(kinds, policy, trace, scale.cache);
            facts.add(&format!("{}, {policy}", trace.0), rates.map(Vec::from_iter), 2);
        }
    }
    let (title, all) =
        (format!("Keys found, %, with maxmemory {}", scale.cache.maxmemory), TRACES.len() * 2);
    draw(scale, "hits", &title, &facts.groups(all), |percent| show(percent, 1));
    facts.markdown()
}

/// The log's costs: the speed of a replay, and the effect of a rewrite on clients and memory.
fn log(scale: &Scale, kinds: &[Kind]) -> String {
    let mut facts = Facts::new(&format!("{} keys", show(scale.logged as f64, 0)));
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
                let mut seen = Effort::default();
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
        facts.add("log records replayed per second", replayed, 0);
    }
    if is_wanted("log/rewrite") {
        facts.add("longest wait for a `SET`, ms", quiet_ms, 2);
        facts.add("the same during a rewrite, ms", rewrite_ms, 2);
        facts.add("peak memory of a rewrite, % of before", peak, 1);
        facts.add("seconds that a rewrite takes", took, 2);
    }
    facts.markdown()
}

/// What something that a server does takes.
#[derive(Default)]
struct Effort {
    seconds: f64,
    /// The peak memory of the server and its child together, compared with the memory before.
    peak_percent: f64,
}

/// Starts something, and samples the server until `INFO`, as it is returned, contains that text.
fn watch(server: &Server, start: impl FnOnce(), info: impl Fn() -> String, end: &str) -> Effort {
    let before = server.resident_bytes();
    server.forget_peak();
    let started = Instant::now();
    start();
    let mut highest: f64 = 0.0;
    loop {
        // Samples include the child; the kernel's count is exact for the server itself.
        highest = highest.max(server.resident_bytes_of_all());
        let info = info();
        if info.contains(end) {
            break;
        }
        assert!(started.elapsed() < LIMIT, "no {end}:\n{info}");
        thread::sleep(LOOK);
    }
    let seconds = started.elapsed().as_secs_f64();
    Effort { seconds, peak_percent: highest.max(server.peak_bytes()) / before * 100.0 }
}

/// Rewrites the log and samples the server for this time, or longer if the rewrite takes longer.
fn rewrite(server: &Server, watch_seconds: f64) -> Effort {
    let client = RefCell::new(server.connect());
    let ask = |args: &[&str]| client.borrow_mut().ask(args).expect("an answer");
    // A short rewrite starts in the middle of the time.
    sleep(watch_seconds / 4.0);
    let start = || drop(ask(&["BGREWRITEAOF"]));
    let info = || ask(&["INFO", "persistence"]);
    let effort = watch(server, start, info, "aof_rewrite_in_progress:0");
    assert!(info().contains("aof_last_bgrewrite_status:ok"), "the rewrite failed:\n{}", info());
    sleep(watch_seconds * 0.75 - effort.seconds);
    effort
}

/// One line about the programs and the machine.
fn machine(redis: Option<&str>, valkey: Option<&str>) -> String {
    let cores = thread::available_parallelism().map_or(0, usize::from);
    let about = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = about.lines().find(|line| line.starts_with("model name"));
    let model = model.and_then(|line| line.split(": ").nth(1));
    let model = model.unwrap_or("unknown");
    let respite = env!("CARGO_PKG_VERSION");
    let [redis, valkey] = [redis, valkey].map(|version| version.unwrap_or("missing"));
    format!(
        "{cores} cores ({model}); Respite {respite}, Redis {redis}, Valkey {valkey}; appendfsync \
         everysec where nothing else is said.\n"
    )
}

fn sleep(seconds: f64) {
    thread::sleep(Duration::from_secs_f64(seconds.max(0.0)));
}

fn is_set(name: &str) -> bool {
    std::env::var(name).is_ok_and(|value| !value.is_empty() && value != "0")
}

/// Whether `BENCH_CASES` is not set or contains a prefix of this name.
fn is_wanted(name: &str) -> bool {
    let list = std::env::var("BENCH_CASES").unwrap_or_default();
    list.split(',').any(|part| name.starts_with(part))
}
