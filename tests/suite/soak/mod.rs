//! Everything at once: clients of all kinds load one server in phases, and after each phase the sums are
//! exact, no invariant is broken, and the server holds no more than before.
//!
//! `SOAK_SECONDS` sets how long it takes: `make soak` takes ten minutes, `make test` a few seconds. The first
//! half of the time belongs to one process, so that growth shows. In the second half, each phase ends with a
//! `kill -9`, in every second phase under load: what was acknowledged is then a lower bound of what the
//! server must have, and what was sent an upper bound.
//!
//! While there is load, memory is limited, so that a cache is evicted all the time.
//!
//! [`clients`] describes what each client does and what it checks on its way.

mod clients;

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use crate::harness::{
    Client, Server, assert_same, await_rewrite, check_aof, dump, eventually, skipped_on_redis,
};
use crate::rng::Rng;
use clients::{Counter, Ledger, Load, Swapped};

const DEFAULT_SECONDS: u64 = 6;
/// What the data and the clients may take beyond what there is at first.
const ROOM_BYTES: u64 = 12 << 20;
/// After these phases memory does not grow any more. The allocator has an arena for every few threads, and
/// each of them has held much of the cache by then.
const FIRST_PHASES: u64 = 3;
/// What has a time to live has at most this.
const SOON: Duration = Duration::from_millis(40);

/// How a phase ends.
#[derive(Clone, Copy, PartialEq)]
enum End {
    /// The clients stop, and the process goes on.
    Orderly,
    /// The clients stop, and the server is killed: all data must come back.
    KilledAtRest,
    KilledUnderLoad,
}

#[test]
fn soak_of_everything_at_once_keeps_exact_sums_and_grows_in_nothing() {
    if skipped_on_redis() {
        return;
    }
    let seconds = std::env::var("SOAK_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    let total = Duration::from_secs(seconds.unwrap_or(DEFAULT_SECONDS));
    let phase = (total / 8).clamp(Duration::from_millis(500), Duration::from_secs(10));
    let limits = "normal 4mb 0 0 pubsub 1mb 0 0";
    let policy = "volatile-lru"; // only the cache and what expires anyway has a time to live
    let args = [
        "--enable-debug-command",
        "yes",
        "--client-output-buffer-limit",
        limits,
        "--maxmemory-policy",
        policy,
    ];
    let server = Server::start(&args);
    let mut control = server.client();
    clients::set_up(&mut control);
    let mut soak = Soak {
        held: held(&server),
        limit_bytes: number(&mut control, "used_memory") + ROOM_BYTES,
        evicted: 0,
        control,
        server,
        random: Rng::of_run(),
        counters: (0..4).map(Counter::new).collect(),
        ledgers: (0..3).map(Ledger::new).collect(),
        swapped: Swapped::default(),
    };
    let started = Instant::now();
    // The memory after the first phases, which fill the cache, all tables and buffers.
    let mut level_kb = 0;
    let mut phases = 0;
    while started.elapsed() < total {
        let end = match phases % 2 {
            _ if started.elapsed() < total / 2 => End::Orderly,
            0 => End::KilledUnderLoad,
            _ => End::KilledAtRest,
        };
        soak.phase(phase, end);
        phases += 1;
        if end == End::Orderly && cfg!(target_os = "linux") {
            let resident_kb = soak.server.resident_kb();
            eprintln!("after phase {phases}: {resident_kb} KB");
            if phases <= FIRST_PHASES {
                level_kb = level_kb.max(resident_kb);
            }
            let bound_kb = level_kb + level_kb / 2 + (16 << 10);
            eventually("memory is given back", || soak.server.resident_kb() <= bound_kb);
        }
    }
    let (is_good, report) = check_aof(&soak.server.log_path(), &[]);
    assert!(is_good, "{report}");
    let steps: u64 = soak.counters.iter().map(Counter::total).sum();
    let evicted = soak.evicted;
    assert!(evicted > 0 || total < Duration::from_secs(30), "nothing was evicted");
    eprintln!("{phases} phases, {steps} steps of the counters, {evicted} keys evicted");
}

struct Soak {
    server: Server,
    /// The only client at rest.
    control: Client,
    /// The threads and files of this process at rest.
    held: (usize, usize),
    /// The limit of memory under load.
    limit_bytes: u64,
    /// How many keys were evicted, as far as that is known.
    evicted: u64,
    random: Rng,
    counters: Vec<Counter>,
    ledgers: Vec<Ledger>,
    swapped: Swapped,
}

impl Soak {
    /// Loads the server for a while, and checks it when the load has ended.
    fn phase(&mut self, length: Duration, end: End) {
        self.load(length, end);
        if end == End::KilledUnderLoad {
            self.restart();
        } else {
            let (threads, files) = self.held;
            let what = format!("there are no more than {threads} threads and {files} open files");
            eventually(&what, || {
                let (now_threads, now_files) = held(&self.server);
                now_threads <= threads && now_files <= files
            });
            await_rewrite(&mut self.control);
            self.control.expect("CONFIG SET maxmemory 0", "+OK");
            self.evicted += number(&mut self.control, "evicted_keys");
            self.control.expect("CONFIG RESETSTAT", "+OK");
        }
        self.check();
        if end == End::KilledAtRest {
            thread::sleep(SOON); // what expires is gone then, before the kill and after it
            let before = dump(&mut self.control);
            self.server.kill_9();
            self.restart();
            assert_same(&dump(&mut self.control), &before);
            self.check();
        }
    }

    fn restart(&mut self) {
        self.server.restart();
        self.control = self.server.client();
        self.control.expect("PING", "+PONG"); // it has a thread now
        self.held = held(&self.server);
    }

    fn load(&mut self, length: Duration, end: End) {
        let limit = format!("CONFIG SET maxmemory {}", self.limit_bytes);
        self.control.expect(&limit, "+OK");
        let load = &Load {
            address: self.server.address(),
            running: AtomicBool::new(true),
            is_quiet: AtomicBool::new(false),
            survives: end != End::KilledUnderLoad,
        };
        let random = &mut self.random;
        thread::scope(|scope| {
            let _ended = Ended(load);
            let mut writers: Vec<ScopedJoinHandle<()>> = Vec::new();
            for counter in &mut self.counters {
                let random = random.fork();
                writers.push(scope.spawn(move || counter.count(load, random)));
            }
            for ledger in &mut self.ledgers {
                writers.push(scope.spawn(move || ledger.enter(load)));
            }
            let swapped = &mut self.swapped;
            writers.push(scope.spawn(move || swapped.count(load)));
            for (client, count) in clients::WRITERS {
                for _ in 0..*count {
                    let random = random.fork();
                    writers.push(scope.spawn(move || client(load, random)));
                }
            }
            let mut watchers: Vec<ScopedJoinHandle<()>> = Vec::new();
            for (client, count) in clients::WATCHERS {
                for _ in 0..*count {
                    let random = random.fork();
                    watchers.push(scope.spawn(move || client(load, random)));
                }
            }
            // Of another length each time, so that the kill comes in any moment.
            thread::sleep(length.mul_f64(0.5 + random.below(1000) as f64 / 1000.0));
            if end == End::KilledUnderLoad {
                self.server.kill_9();
            }
            load.running.store(false, SeqCst);
            writers.into_iter().for_each(|writer| writer.join().expect("a writer's checks hold"));
            load.is_quiet.store(true, SeqCst);
            eventually("the watchers end", || {
                if load.survives {
                    _ = clients::kill_by_name(&mut self.server.client(), "watcher", |_| true);
                }
                watchers.iter().all(ScopedJoinHandle::is_finished)
            });
            watchers.into_iter().for_each(|watcher| watcher.join().expect("what it saw is right"));
        });
    }

    /// Compares what the server has with what the clients know.
    fn check(&mut self) {
        let c = &mut self.control;
        c.expect("DEBUG CHECK", "+OK");
        clients::check_sums(c, &mut self.counters, &mut self.ledgers);
        self.swapped.check(c);
        clients::audit(c).expect("the server answers");
        c.expect("DEBUG CHECK", "+OK");
    }
}

/// Ends the clients even if a check fails.
struct Ended<'a>(&'a Load);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.running.store(false, SeqCst);
        self.0.is_quiet.store(true, SeqCst);
    }
}

/// A number in INFO.
fn number(c: &mut Client, field: &str) -> u64 {
    let text = c.text("INFO");
    let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    value.and_then(|value| value.parse().ok()).expect("a number")
}

/// How many threads and open files the server has (Linux; elsewhere it does not show).
fn held(server: &Server) -> (usize, usize) {
    let count = |what| {
        let entries = fs::read_dir(format!("/proc/{}/{what}", server.process_id()));
        entries.map_or(0, Iterator::count)
    };
    (count("task"), count("fd"))
}
