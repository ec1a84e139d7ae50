//! What a replica costs its master and the master's clients. The replica is a server of the same kind, on the
//! same machine; so it takes CPU time that the master would have if it were elsewhere.

use std::cell::RefCell;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use crate::load::{Stop, StopAtEnd, longest_wait, set};
use crate::servers::{Kind, Server};
use crate::tables::{Facts, Rounds, show};
use crate::{Case, Effort, LIMIT, LOOK, Scale, run, sleep, watch};

/// So many rounds are enough, each of which loads much data.
const ROUNDS: usize = 3;
/// How often the servers change roles.
const MOVES: usize = 4;

/// A full synchronisation, writes with and without a replica, and failovers.
pub(crate) fn replication(scale: &Scale, kinds: &[Kind]) -> String {
    let mut facts = Facts::new(&format!("a replica, {} keys", show(scale.replicated as f64, 0)));
    let [mut took, mut waits, mut peaks, mut moves] = [(); 4].map(|()| Rounds::default());
    // Without a replica, and with it.
    let [mut speeds, mut costs] = [(); 2].map(|()| [Rounds::default(), Rounds::default()]);
    let rounds = scale.rounds.min(ROUNDS);
    for round in 0..rounds {
        for turn in 0..kinds.len() {
            let kind = kinds[(turn + round) % kinds.len()];
            eprintln!("replication: round {} of {rounds}, {}", round + 1, kind.name());
            let [master, replica] = [(); 2].map(|()| Server::start(kind, "everysec"));
            master.connect().load(scale.replicated, set);
            let sets = |requests| {
                let (appendfsync, test) = ("everysec", "SET");
                let (pipeline, clients, samples) = (16, 50, Default::default());
                let case = Case { appendfsync, test, pipeline, clients, requests, samples };
                run(&master, &case, requests)
            };
            let requests = sets((scale.run_seconds * 1e5) as u64)
                .map_or(0, |[per_second, ..]| (per_second * scale.run_seconds) as u64);
            let alone = sets(requests.max(1));
            sleep(scale.settle_seconds);
            // What was not used for a while is slow at first.
            longest_wait(&master, scale.replicated, || sleep(scale.watch_seconds / 4.0));
            let mut seen = Effort::default();
            let synchronized = || seen = synchronize(&master, &replica);
            let longest = longest_wait(&master, scale.replicated, synchronized);
            took[kind as usize].push(seen.seconds);
            waits[kind as usize].push(longest.as_secs_f64() * 1e3);
            peaks[kind as usize].push(seen.peak_percent);
            sleep(scale.settle_seconds);
            for (at, sample) in [alone, sets(requests.max(1))].into_iter().flatten().enumerate() {
                let [per_second, user, system, ..] = sample;
                speeds[at][kind as usize].push(per_second);
                costs[at][kind as usize].push(user + system);
            }
            sleep(scale.settle_seconds);
            for number in 0..MOVES {
                let pair = [&master, &replica];
                let (from, to) = (pair[number % 2], pair[(number + 1) % 2]);
                let longest = fail_over(from, to, scale.watch_seconds / 4.0);
                moves[kind as usize].push(longest.as_secs_f64() * 1e3);
            }
        }
    }
    facts.add("seconds until a new replica has all", took, 2);
    facts.add("longest wait for a `SET` meanwhile, ms", waits, 2);
    facts.add("master's peak memory meanwhile, % of before", peaks, 1);
    let [without, with] = speeds;
    facts.add("`SET`s per second, pipeline 16, without it", without, 0);
    facts.add("the same with it, on the same cores", with, 0);
    let [without, with] = costs;
    facts.add("master's CPU time for a `SET` without it, µs", without, 2);
    facts.add("the same with it, µs", with, 2);
    facts.add("longest wait for a `SET` in a failover, ms", moves, 1);
    facts.markdown()
}

fn synchronize(master: &Server, replica: &Server) -> Effort {
    let client = RefCell::new(replica.connect());
    let ask = |args: &[&str]| client.borrow_mut().ask(args).expect("an answer");
    let port = master.port.to_string();
    let start = || assert_eq!(ask(&["REPLICAOF", "127.0.0.1", &port]), "+OK");
    watch(master, start, || ask(&["INFO", "replication"]), "master_link_status:up")
}

/// Lets the servers change roles under a client that writes all the time, and returns its longest wait.
fn fail_over(from: &Server, to: &Server, seconds: f64) -> Duration {
    let stop = Stop::default();
    thread::scope(|scope| {
        let _stop_at_end = StopAtEnd(&stop);
        let writer = scope.spawn(|| write_to_the_master(from, to, &stop));
        sleep(seconds);
        let mut client = from.connect();
        let started = Instant::now();
        let port = to.port.to_string();
        let answer = client.ask(&["FAILOVER", "TO", "127.0.0.1", &port, "TIMEOUT", "60000"]);
        assert_eq!(answer.expect("an answer"), "+OK");
        loop {
            let info = client.ask(&["INFO", "replication"]).expect("an answer");
            let is_over = |word: &&str| info.contains(*word);
            let words = ["role:slave", "master_link_status:up", "_failover_state:no-failover"];
            if words.iter().all(is_over) {
                break;
            }
            assert!(started.elapsed() < LIMIT, "the failover does not end:\n{info}");
            thread::sleep(LOOK);
        }
        sleep(seconds);
        stop.store(true, Relaxed);
        writer.join().expect("the writer failed")
    })
}

fn write_to_the_master(from: &Server, to: &Server, stop: &Stop) -> Duration {
    let mut longest = Duration::ZERO;
    let (mut master, mut other) = (from.connect(), to.connect());
    while !stop.load(Relaxed) {
        let sent = Instant::now();
        // The one that is a replica refuses it.
        while master.ask(&["SET", "key", "value"]).expect("an answer") != "+OK" {
            assert!(sent.elapsed() < LIMIT, "neither server takes a write");
            std::mem::swap(&mut master, &mut other);
        }
        longest = longest.max(sent.elapsed());
    }
    longest
}
