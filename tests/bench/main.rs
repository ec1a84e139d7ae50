//! The benchmark: Respite beside Redis in one run, on one machine, with the same persistence.
//!
//! ```text
//! cargo bench                       everything, some six minutes
//! BENCH_SHORT=1 cargo bench         the same with tiny numbers, to see that it works
//! BENCH_ROUNDS=9 cargo bench        more rounds than five
//! BENCH_CASES=SET/ cargo bench      only what begins so: `GET/16`, `HSET`, or `data` (memory)
//! BENCH_LONG=1 cargo bench          also the longest pause while the keyspace grows
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
//! The third server is the floor: a thread per connection that does nothing but answer `+PONG`. What
//! it reaches is what kernel and client leave to any server of this kind. CPU time is counted by
//! process, so it is this program, started once more.
//!
//! All servers are children of this process, each in a directory of its own below `target/tmp` (on a
//! real disk, where `/tmp` may be memory); [`Server`] takes both away again, on a panic too.

// A benchmark that cannot go on fails by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::array::from_fn;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

/// What redis-benchmark runs: a name of its `-t` and the length of the pipeline.
#[rustfmt::skip]
const CASES: &[(&str, u64)] = &[
    ("GET", 1), ("GET", 16), ("GET", 100), ("SET", 1), ("SET", 16), ("SET", 100),
    ("INCR", 16), ("HSET", 16), ("MSET", 16),
];
/// The keys that redis-benchmark draws from.
const KEYS: usize = 100_000;
const VALUE: &str = "0123456789abcdef0123456789abcdef";
/// Commands sent at once when data is loaded; their replies fit into any socket's buffer.
const BATCH: usize = 1000;

/// How much is measured.
struct Scale {
    rounds: usize,
    /// How long Respite should take for a run of a case.
    run_seconds: f64,
    /// How long memory and log get to settle before memory is read.
    settle_seconds: f64,
    /// Strings in the measurement of memory and recovery; of hashes a tenth.
    strings: usize,
    /// Keys that the keyspace grows to while the longest pause is looked for.
    growth: usize,
}

#[rustfmt::skip]
const FULL: Scale =
    Scale { rounds: 5, run_seconds: 1.5, settle_seconds: 2.5, strings: 1_000_000, growth: 3_000_000 };
#[rustfmt::skip]
const SHORT: Scale =
    Scale { rounds: 1, run_seconds: 0.05, settle_seconds: 0.2, strings: 10_000, growth: 30_000 };

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if args[1..].first().is_some_and(|word| word == "floor") {
        return floor(&args[2]);
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
    let mut facts = String::new();
    if is_wanted("data") {
        data(&scale, &kinds, &mut facts);
    }
    if is_set("BENCH_LONG") {
        pause(&scale, &kinds, &mut facts);
    }
    if !facts.is_empty() {
        markdown += "\n| | Respite | Redis | floor | Respite/Redis |\n|---|---:|---:|---:|---:|\n";
        markdown += &facts;
    }
    println!("\nThe same in Markdown:\n\n{markdown}");
}

/// One run of redis-benchmark: requests per second, µs of CPU time per request in user and in system
/// mode, median and 99th percentile of latency in ms.
type Sample = [f64; 5];

struct Case {
    test: &'static str,
    pipeline: u64,
    requests: u64,
    /// By [`Kind`] and round.
    samples: [Vec<Sample>; 3],
}

impl Case {
    fn name(&self) -> String {
        format!("{}/{}", self.test, self.pipeline)
    }

    fn medians(&self, kind: Kind) -> Sample {
        let samples = &self.samples[kind as usize];
        from_fn(|column| median(samples.iter().map(|sample| sample[column]).collect()))
    }

    /// Speed as a multiple of Redis's: of the medians, and in the lowest and highest round.
    fn ratio(&self, kind: Kind) -> String {
        let speeds = [kind, Kind::Redis].map(|kind| &self.samples[kind as usize]);
        let rounds = speeds[0].iter().zip(speeds[1]).map(|(a, b)| a[0] / b[0]);
        let low = rounds.clone().fold(f64::NAN, f64::min);
        let high = rounds.fold(f64::NAN, f64::max);
        let ratio = self.medians(kind)[0] / self.medians(Kind::Redis)[0];
        match ratio.is_finite() {
            true => format!("{ratio:.2} ({low:.2}..{high:.2})"),
            false => show(ratio, 2),
        }
    }
}

/// Requests per second, CPU time and latency, case by case.
fn throughput(scale: &Scale, kinds: &[Kind], markdown: &mut String) {
    let new_case =
        |&(test, pipeline)| Case { test, pipeline, requests: 0, samples: Default::default() };
    let mut cases: Vec<Case> = CASES.iter().map(new_case).collect();
    cases.retain(|case| is_wanted(&case.name()));
    if cases.is_empty() {
        return;
    }
    for round in 0..scale.rounds {
        eprintln!("round {} of {}", round + 1, scale.rounds);
        let servers: Vec<Server> = kinds.iter().map(|&kind| Server::start(kind)).collect();
        for server in &servers {
            server.connect().load(KEYS, set);
        }
        if round == 0 {
            cases.retain_mut(|case| {
                let trial = (scale.run_seconds * 4000.0) as u64 * (1 + case.pipeline);
                let speed = run(&servers[0], case, trial).map_or(0.0, |sample| sample[0]);
                case.requests = (speed * scale.run_seconds) as u64;
                if case.requests == 0 {
                    println!("{} cannot be run here.\n", case.name());
                }
                case.requests > 0
            });
        }
        for case in &mut cases {
            for turn in 0..servers.len() {
                let server = &servers[(turn + round) % servers.len()];
                let sample = run(server, case, case.requests).expect("redis-benchmark failed");
                case.samples[server.kind as usize].push(sample);
            }
        }
    }
    print_cases(&cases, kinds, markdown);
}

/// Runs a case once; nothing if redis-benchmark does not know it or the server refuses it.
fn run(server: &Server, case: &Case, requests: u64) -> Option<Sample> {
    let (port, pipeline, bytes) = (server.port, case.pipeline, VALUE.len());
    let test = case.test.to_lowercase();
    let options =
        format!("-p {port} -t {test} -c 50 -P {pipeline} -n {requests} -r {KEYS} -d {bytes} --csv");
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

fn print_cases(cases: &[Case], kinds: &[Kind], markdown: &mut String) {
    let print = |case: &str, server: &str, cells: [String; 5], ratio: &str| {
        let cells = cells.map(|cell| format!("{cell:>11}")).concat();
        println!("{case:8} {server:8}{cells}  {ratio}");
    };
    let columns = ["requests/s", "user µs", "system µs", "p50 ms", "p99 ms"];
    print("", "", columns.map(String::from), "to Redis (rounds)");
    *markdown += "\n| 50 clients | Respite/s | Redis/s | floor/s | Respite/Redis (rounds) \
                  | CPU µs: Respite | Redis | floor | p99 ms: Respite | Redis | floor |\n";
    *markdown += &format!("|---|{}\n", "---:|".repeat(10));
    for case in cases {
        for &kind in kinds {
            let [speed, rest @ ..] = case.medians(kind);
            let [user, system, p50, p99] = rest.map(|value| show(value, 2));
            let cells = [show(speed, 0), user, system, p50, p99];
            print(&case.name(), kind.name(), cells, &case.ratio(kind));
        }
        let medians = [Kind::Respite, Kind::Redis, Kind::Floor].map(|kind| case.medians(kind));
        let cells = [
            vec![format!("`{}`, pipeline {}", case.test, case.pipeline)],
            medians.map(|sample| show(sample[0], 0)).to_vec(),
            vec![case.ratio(Kind::Respite)],
            medians.map(|of| show(of[1] + of[2], 2)).to_vec(),
            medians.map(|of| show(of[4], 2)).to_vec(),
        ];
        *markdown += &format!("| {} |\n", cells.concat().join(" | "));
    }
    println!();
}

/// Memory per key, which is what a fresh server grows by; and how fast a restart replays the log.
fn data(scale: &Scale, kinds: &[Kind], facts: &mut String) {
    let (strings, hashes) = (scale.strings, scale.strings / 10);
    let [mut empty, mut string, mut hash] = [[f64::NAN; 3]; 3];
    let mut servers = Vec::new();
    for &kind in kinds.iter().filter(|&&kind| kind != Kind::Floor) {
        eprintln!("loading {}", kind.name());
        // Not into one server: the second kind of key could make its table of keys double.
        let load = |count: usize, command: fn(usize) -> Vec<u8>| {
            let server = Server::start(kind);
            let at_first = server.resident_bytes();
            server.connect().load(count, command);
            thread::sleep(Duration::from_secs_f64(scale.settle_seconds));
            let per_key = (server.resident_bytes() - at_first) / count as f64;
            (server, at_first, per_key)
        };
        hash[kind as usize] = load(hashes, hset).2;
        let (server, at_first, per_key) = load(strings, set);
        server.connect().load(hashes, hset);
        thread::sleep(Duration::from_secs_f64(scale.settle_seconds));
        empty[kind as usize] = at_first / 1e6;
        string[kind as usize] = per_key;
        servers.push(server);
    }
    let mut replays: [Vec<f64>; 3] = Default::default();
    for round in 0..scale.rounds {
        eprintln!("restart {} of {}", round + 1, scale.rounds);
        for server in &mut servers {
            let seconds = server.restart().as_secs_f64();
            let keys = server.connect().ask(&["DBSIZE"]).expect("DBSIZE");
            let records: f64 = keys[1..].parse().expect("DBSIZE");
            replays[server.kind as usize].push(records / seconds);
        }
    }
    print_fact(facts, "MB resident when empty", empty, 1);
    print_fact(facts, "bytes per string of 16 + 32", string, 0);
    print_fact(facts, "bytes per hash of 16 + 10 × (10 + 10)", hash, 0);
    let replays = replays.map(median);
    print_fact(facts, "log records replayed per second", replays, 0);
}

/// The longest that one client waited for one of the `SET`s that make the keyspace grow. The floor's
/// is what the machine alone does to a client.
fn pause(scale: &Scale, kinds: &[Kind], facts: &mut String) {
    let mut longest_ms = [f64::NAN; 3];
    for &kind in kinds {
        eprintln!("growing {}", kind.name());
        let server = Server::start(kind);
        let mut connection = server.connect();
        let waits = (0..scale.growth).map(|number| {
            let command = set(number);
            let sent = Instant::now();
            connection.send(&command, 1);
            sent.elapsed()
        });
        let longest = waits.max().unwrap_or_default();
        longest_ms[kind as usize] = longest.as_secs_f64() * 1e3;
    }
    let keys = show(scale.growth as f64, 0);
    let what = format!("longest of {keys} `SET`s, ms");
    print_fact(facts, &what, longest_ms, 2);
}

fn print_fact(facts: &mut String, what: &str, values: [f64; 3], digits: usize) {
    let [respite, redis, floor] = values.map(|value| show(value, digits));
    let ratio = show(values[0] / values[1], 2);
    println!("{what:40} Respite {respite:>9}  Redis {redis:>9}  floor {floor:>6}  ratio {ratio}");
    *facts += &format!("| {what} | {respite} | {redis} | {floor} | {ratio} |\n");
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Respite,
    Redis,
    Floor,
}

impl Kind {
    fn name(self) -> &'static str {
        ["Respite", "Redis", "floor"][self as usize]
    }

    fn command(self, port: &str, directory: &Path) -> Command {
        let (program, own) = match self {
            Kind::Respite => (env!("CARGO_BIN_EXE_respite").into(), &[][..]),
            Kind::Redis => {
                let own = &["--save", "", "--auto-aof-rewrite-percentage", "0"];
                ("redis-server".into(), &own[..])
            }
            Kind::Floor => {
                let mut command = Command::new(std::env::current_exe().expect("own path"));
                command.args(["floor", port]);
                return command;
            }
        };
        let mut command = Command::new::<PathBuf>(program);
        command
            .args(own)
            .args(["--appendonly", "yes", "--appendfsync", "everysec"])
            .args(["--bind", "127.0.0.1", "--port", port, "--dir"])
            .arg(directory);
        command
    }
}

/// A server that runs, and its directory; both are gone when it is dropped.
struct Server {
    kind: Kind,
    port: u16,
    directory: PathBuf,
    process: Option<Child>,
}

impl Server {
    fn start(kind: Kind) -> Server {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let port = free.expect("a free port").port();
        let name = format!("bench-{}-{port}", std::process::id());
        let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&directory).expect("a directory");
        let mut server = Server { kind, port, directory, process: None };
        server.restart();
        server
    }

    /// Kills it if it runs, starts it again, and tells how long it took to be ready.
    fn restart(&mut self) -> Duration {
        self.kill();
        let path = self.directory.join("output");
        let output = File::create(&path).expect("a file");
        let mut command = self.kind.command(&self.port.to_string(), &self.directory);
        command.stdout(output.try_clone().expect("a descriptor"));
        let started = Instant::now();
        let process = command.stderr(output).spawn().expect("a process");
        let process = self.process.insert(process);
        loop {
            // While it replays the log it answers `-LOADING`.
            let answer = Connection::open(self.port).and_then(|mut client| client.ask(&["PING"]));
            if answer.is_ok_and(|answer| answer == "+PONG") {
                return started.elapsed();
            }
            if process.try_wait().expect("a child").is_some() {
                let said = fs::read_to_string(path).unwrap_or_default();
                panic!("{} does not start: {said}", self.kind.name());
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap_or_default(); // it may have ended by itself
            process.wait().expect("a child");
        }
    }

    fn connect(&self) -> Connection {
        Connection::open(self.port).expect("a connection")
    }

    /// CPU time so far, in user and in system mode; not a number where there is no `/proc`.
    fn cpu_us(&self) -> [f64; 2] {
        let stat = self.proc_file("stat");
        // The program's name, in parentheses, may contain anything. Linux counts in ticks of 10 ms.
        let mut fields = stat.rsplit(')').next().unwrap_or_default().split(' ');
        let ticks = [fields.nth(12), fields.next()];
        ticks.map(|ticks| ticks.map_or(f64::NAN, |ticks| ticks.parse::<f64>().unwrap() * 1e4))
    }

    fn resident_bytes(&self) -> f64 {
        let status = self.proc_file("status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        kilobytes.map_or(f64::NAN, |kilobytes| kilobytes * 1024.0)
    }

    fn proc_file(&self, name: &str) -> String {
        let id = self.process.as_ref().map_or(0, Child::id);
        fs::read_to_string(format!("/proc/{id}/{name}")).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        fs::remove_dir_all(&self.directory).unwrap_or_default();
    }
}

/// A client that speaks raw RESP and knows replies of one line.
struct Connection(BufReader<TcpStream>);

impl Connection {
    fn open(port: u16) -> io::Result<Connection> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        Ok(Connection(BufReader::new(stream)))
    }

    fn ask(&mut self, args: &[&str]) -> io::Result<String> {
        self.0.get_mut().write_all(&encode(args))?;
        let mut reply = String::new();
        self.0.read_line(&mut reply)?;
        Ok(reply.trim_end().into())
    }

    /// Sends commands and waits for as many replies.
    fn send(&mut self, commands: &[u8], replies: usize) {
        self.0.get_mut().write_all(commands).expect("to send");
        let mut reply = String::new();
        for _ in 0..replies {
            reply.clear();
            self.0.read_line(&mut reply).expect("a reply");
            assert!(reply.starts_with(['+', ':']), "refused: {reply:?}");
        }
    }

    /// Sends the commands of all numbers below `count`.
    fn load(&mut self, count: usize, command: fn(usize) -> Vec<u8>) {
        for first in (0..count).step_by(BATCH) {
            let numbers = first..count.min(first + BATCH);
            let batch: Vec<u8> = numbers.clone().flat_map(command).collect();
            self.send(&batch, numbers.len());
        }
    }
}

/// The key is one of those that redis-benchmark uses.
fn set(number: usize) -> Vec<u8> {
    encode(&["SET", &format!("key:{number:012}"), VALUE])
}

fn hset(number: usize) -> Vec<u8> {
    let key = format!("hash:{number:011}");
    let fields: [String; 10] = from_fn(|field| format!("field:{field:04}"));
    let pairs = fields.iter().flat_map(|field| [field, &VALUE[..10]]);
    encode(&["HSET", &key].into_iter().chain(pairs).collect::<Vec<_>>())
}

fn encode(args: &[&str]) -> Vec<u8> {
    let bulk = |arg: &&str| format!("${}\r\n{arg}\r\n", arg.len());
    let bulks: String = args.iter().map(bulk).collect();
    format!("*{}\r\n{bulks}", args.len()).into()
}

/// The floor: answers `+PONG` to every `*` it reads, so keys and values must hold none.
fn floor(port: &str) {
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).expect("a listener");
    for stream in listener.incoming() {
        let mut stream = stream.expect("a connection");
        stream.set_nodelay(true).expect("no delay");
        let serve = move || {
            let mut input = vec![0; 64 << 10];
            while let Ok(count @ 1..) = stream.read(&mut input) {
                let commands = input[..count].iter().filter(|&&byte| byte == b'*').count();
                if stream.write_all(&b"+PONG\r\n".repeat(commands)).is_err() {
                    return;
                }
            }
        };
        let thread = thread::Builder::new().stack_size(128 << 10);
        thread.spawn(serve).expect("a thread");
    }
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
    format!("{cores} cores ({model}); Respite {respite}, Redis {redis}; appendfsync everysec.\n")
}

/// What a program says of its version, if it is there.
fn version(program: &str) -> Option<String> {
    let output = Command::new(program).arg("--version").output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).into())
}

fn is_set(name: &str) -> bool {
    std::env::var(name).is_ok_and(|value| !value.is_empty() && value != "0")
}

fn is_wanted(name: &str) -> bool {
    std::env::var("BENCH_CASES").map_or(true, |part| name.starts_with(&part))
}

/// The median, or not a number if there is nothing.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        count => (values[(count - 1) / 2] + values[count / 2]) / 2.0,
    }
}

/// A number with commas between the thousands, or a dash for what was not measured.
fn show(value: f64, digits: usize) -> String {
    if !value.is_finite() {
        return "–".into();
    }
    let mut text = format!("{value:.digits$}");
    let mut at = text.find('.').unwrap_or(text.len());
    while at > 3 {
        at -= 3;
        text.insert(at, ',');
    }
    text
}
