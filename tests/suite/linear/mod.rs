//! Linearizability: what many clients see of a few keys at once is explained by one order of their commands,
//! across rewrites, killed clients and a `kill -9`.
//!
//! A round is a history: each client records what it sent, when, and what it got when. [`model`] says what a
//! command does, and [`checker`] looks for the order. Keys are cut into partitions that are checked
//! separately: a command uses the keys of one, or those of all (`FLUSHALL`, `SWAPDB`). In every third round,
//! keys with a time to live are evicted. Each round has keys of its own, so a command of a killed client that
//! takes effect late disturbs no later round.
//!
//! `LINEAR_ROUNDS` sets the number of rounds. `RANDOM_SEED` repeats the commands, but not their timing.

mod checker;
mod model;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{Client, Reply, Server, encode, eventually, skipped_on_redis};
use crate::rng::Rng;
use checker::{Op, Verdict, check};
use model::{Command, KEYS, STRINGS};

const DEFAULT_ROUNDS: usize = 40;
const CLIENTS: usize = 8;
const PARTITIONS: usize = 2;
/// The commands of each client in a round.
const COMMANDS: usize = 60;

#[test]
fn replies_to_many_clients_are_explained_by_one_order() {
    if skipped_on_redis() {
        return;
    }
    let rounds = std::env::var("LINEAR_ROUNDS").ok().and_then(|rounds| rounds.parse().ok());
    let mut random = Rng::of_run();
    let args = ["--enable-debug-command", "yes", "--maxmemory-policy", "volatile-lru"];
    let mut server = Server::start(&args);
    let mut evicted = 0;
    let (mut commands, mut lost, mut histories, mut undecided) = (0, 0, 0, 0);
    for number in 0..rounds.unwrap_or(DEFAULT_ROUNDS) {
        let is_killed = number % 4 == 3;
        let round = Round::run(&mut server, number, is_killed, &mut random);
        let mut c = server.client();
        c.expect("CONFIG SET maxmemory 0", "+OK");
        c.expect("DEBUG CHECK", "+OK");
        evicted += usize::from(!c.text("INFO stats").contains("\nevicted_keys:0\r"));
        for history in round.histories {
            commands += history.len();
            lost += history.iter().filter(|op| op.reply.is_none()).count();
            histories += 1;
            match check(&history) {
                Verdict::Explained => {}
                Verdict::Unexplained(listing) => panic!("round {number}: {listing}"),
                Verdict::Undecided => undecided += 1,
            }
        }
    }
    eprintln!(
        "{commands} commands, {lost} without a reply; {histories} histories, {undecided} undecided"
    );
    assert!(lost > 0, "no client was killed");
    assert!(evicted > 0, "no key was evicted");
    assert!(undecided * 20 <= histories, "{undecided} of {histories} histories are undecided");
}

/// Where the clients of a round find the server.
struct Place {
    address: SocketAddr,
    /// Whether it was killed and started again.
    is_second: bool,
}

/// What the clients of a round share.
struct Round {
    number: usize,
    /// Whether there is a limit of memory now and then.
    evicts: bool,
    started: Instant,
    place: Mutex<Place>,
    /// How many commands have been replied to or lost.
    ended: AtomicUsize,
    /// All clients have ended, or a check has failed.
    is_over: AtomicBool,
    histories: Vec<Vec<Op>>,
}

impl Round {
    fn run(server: &mut Server, number: usize, is_killed: bool, random: &mut Rng) -> Round {
        let place = Place { address: server.address(), is_second: false };
        let mut round = Round {
            number,
            evicts: number % 3 == 1,
            started: Instant::now(),
            place: Mutex::new(place),
            ended: AtomicUsize::new(0),
            is_over: AtomicBool::new(false),
            histories: vec![Vec::new(); PARTITIONS],
        };
        let recorded: Vec<Recorded> = thread::scope(|scope| {
            let round = &round;
            let over = Over(round);
            let clients: Vec<_> = (0..CLIENTS)
                .map(|client| {
                    let recorder = Recorder::new(round, client, random.fork());
                    scope.spawn(move || recorder.work())
                })
                .collect();
            let admin = Recorder::new(round, CLIENTS, random.fork());
            let admin = scope.spawn(move || admin.administer());
            let killed_at = is_killed.then(|| {
                let enough = random.below(CLIENTS * COMMANDS);
                let is_enough = || round.ended.load(SeqCst) >= enough;
                eventually("enough commands have run", is_enough);
                server.kill_9();
                let killed_at = round.now();
                server.restart();
                *round.place() = Place { address: server.address(), is_second: true };
                killed_at
            });
            let joined = clients.into_iter().map(|client| client.join().expect("a client"));
            let mut recorded: Vec<Recorded> = joined.flatten().collect();
            drop(over);
            recorded.extend(admin.join().expect("the administrator"));
            // What the killed process has not done by then, it never does.
            for command in recorded.iter_mut().filter(|command| !command.is_second) {
                command.op.end = command.op.end.min(killed_at.unwrap_or(u64::MAX));
            }
            recorded
        });
        for Recorded { partition, op, .. } in recorded {
            if op.reply.is_none() && !op.command.writes() {
                continue; // nobody can tell whether it ran
            }
            for (number, history) in round.histories.iter_mut().enumerate() {
                if partition.is_none_or(|partition| partition == number) {
                    history.push(op.clone());
                }
            }
        }
        round
    }

    fn now(&self) -> u64 {
        self.started.elapsed().as_nanos() as u64
    }

    fn place(&self) -> MutexGuard<'_, Place> {
        self.place.lock().expect("no thread panics with it")
    }
}

/// Ends the administrator, even if a check fails.
struct Over<'r>(&'r Round);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.is_over.store(true, SeqCst);
    }
}

struct Recorded {
    /// `None` for a command on all partitions.
    partition: Option<usize>,
    /// Whether it was sent to the server that was started again.
    is_second: bool,
    op: Op,
}

/// A client that records what it does.
struct Recorder<'r> {
    round: &'r Round,
    client: usize,
    db: usize,
    random: Rng,
    connection: Option<(Client, bool)>,
    recorded: Vec<Recorded>,
}

impl<'r> Recorder<'r> {
    fn new(round: &'r Round, client: usize, random: Rng) -> Recorder<'r> {
        let db = usize::from(client % 4 == 3);
        Recorder { round, client, db, random, connection: None, recorded: Vec::new() }
    }

    fn work(mut self) -> Vec<Recorded> {
        for _ in 0..COMMANDS {
            let partition = self.random.below(PARTITIONS);
            if self.random.below(8) == 0 {
                self.transact(partition);
            } else {
                let command = self.command();
                self.send(Some(partition), command, &[]);
            }
            self.round.ended.fetch_add(1, SeqCst);
        }
        self.recorded
    }

    /// Disturbs the others, until all have ended.
    fn administer(mut self) -> Vec<Recorded> {
        while !self.round.is_over.load(SeqCst) {
            match self.random.below(40) {
                0 => drop(self.send(None, Command::FlushAll, &[])),
                1 | 2 => drop(self.send(None, Command::SwapDb, &[])),
                3..8 => drop(self.ask(&["BGREWRITEAOF"])),
                8..13 => {
                    let policy = ["always", "everysec", "no"][self.random.below(3)];
                    self.ask(&["CONFIG", "SET", "appendfsync", policy]);
                }
                13..16 => drop(self.ask(&["DEBUG", "CHECK"])),
                16..19 => drop(self.kill_one()),
                19..25 if self.round.evicts => drop(self.ask(&["CONFIG", "SET", "maxmemory", "1"])),
                25..37 if self.round.evicts => drop(self.ask(&["CONFIG", "SET", "maxmemory", "0"])),
                _ => {}
            }
            thread::sleep(Duration::from_micros(self.random.below(2000) as u64));
        }
        self.recorded
    }

    fn kill_one(&mut self) -> Option<()> {
        let list = self.ask(&["CLIENT", "LIST"])?.into_text();
        let named = list.lines().filter(|line| line.contains(" name=recorder "));
        let mut ids: Vec<&str> =
            named.filter_map(|line| line.strip_prefix("id=")?.split(' ').next()).collect();
        if !ids.is_empty() {
            let id = ids.swap_remove(self.random.below(ids.len()));
            self.ask(&["CLIENT", "KILL", "ID", id])?;
        }
        Some(())
    }

    /// The reply to a command that is not recorded; `None` if the connection is lost.
    fn ask(&mut self, words: &[&str]) -> Option<Reply> {
        let reply = self.connected().call(words);
        if reply == Reply::Closed {
            self.connection = None;
            return None;
        }
        Some(reply)
    }

    fn command(&mut self) -> Command {
        let evicts = self.round.evicts;
        let random = &mut self.random;
        let (key, other) = (random.below(STRINGS), random.below(STRINGS));
        let mut hash = || STRINGS + random.below(KEYS - STRINGS);
        let (hash, other_hash) = (hash(), hash());
        let value = random.below(100).to_string();
        let field = random.below(2).to_string();
        match random.below(16) {
            0..3 => Command::Get(key),
            3 => Command::Set(key, value, None),
            4 if evicts => Command::Cache(key, value),
            4 => Command::Set(key, value, Some(1 + random.below(20) as u64)),
            5 | 6 => Command::Incr(key),
            7 | 8 => Command::Append(key, value),
            9 => Command::GetDel(key),
            10 => Command::HGet(hash, field),
            11 => Command::HSet(hash, field, value),
            12 => Command::HIncrBy(hash, field, 1 + random.below(9) as i64),
            13 => Command::Rename(key, other),
            14 => Command::Rename(hash, other_hash),
            _ => Command::MSet(vec![(key, value.clone()), (other, value)]),
        }
    }

    /// A transaction that watches a key and reads it first. What comes between is no command of its own.
    fn transact(&mut self, partition: usize) {
        let prefix = self.prefix(partition);
        let key = self.random.below(STRINGS);
        let commands: Vec<Command> =
            (0..1 + self.random.below(3)).map(|_| self.command()).collect();
        let watch = vec![encode(&["WATCH", &format!("{prefix}{key}")])];
        let Some(value) = self.send(Some(partition), Command::Get(key), &watch) else { return };
        let queue = commands.iter().map(|command| encode(&command.words(&prefix)));
        let before: Vec<Vec<u8>> = [encode(&["MULTI"])].into_iter().chain(queue).collect();
        self.send(Some(partition), Command::Exec(vec![(key, value)], commands), &before);
    }

    fn prefix(&self, partition: usize) -> String {
        format!("{}:{partition}:", self.round.number)
    }

    /// Sends a command and records it; the commands before it are not recorded. Returns its reply, unless the
    /// connection is lost.
    fn send(
        &mut self,
        partition: Option<usize>,
        command: Command,
        before: &[Vec<u8>],
    ) -> Option<Reply> {
        // A transaction that lost its connection lost its watched keys and is not sent.
        if matches!(command, Command::Exec(..)) && self.connection.is_none() {
            return None;
        }
        let prefix = self.prefix(partition.unwrap_or(0));
        self.connected();
        let (c, is_second) = self.connection.as_mut().expect("it is connected");
        let is_second = *is_second;
        let call = self.round.now();
        c.try_send_raw([before.concat(), encode(&command.words(&prefix))].concat());
        let is_open = before.iter().all(|_| c.read_reply() != Reply::Closed);
        let reply = if is_open { c.read_reply() } else { Reply::Closed };
        let end = self.round.now();
        let (client, db) = (self.client, self.db);
        let reply = (reply != Reply::Closed).then_some(reply);
        if reply.is_none() {
            self.connection = None;
        }
        // A command for which there was no memory has done nothing, and tells nothing.
        let is_refusal = |text: &String| text.starts_with("OOM ") || text.starts_with("EXECABORT ");
        if matches!(&reply, Some(Reply::Error(text)) if is_refusal(text)) {
            return None;
        }
        let end = if reply.is_none() { u64::MAX } else { end };
        let op = Op { client, db, command, call, end, reply: reply.clone() };
        self.recorded.push(Recorded { partition, is_second, op });
        reply
    }

    /// The connection, opened again if it was lost.
    fn connected(&mut self) -> &mut Client {
        if self.connection.is_none() {
            eventually("the server can be reached", || {
                self.connection = self.connect();
                self.connection.is_some()
            });
        }
        let (c, _) = self.connection.as_mut().expect("it is connected");
        c
    }

    fn connect(&self) -> Option<(Client, bool)> {
        let (address, is_second) = {
            let place = self.round.place();
            (place.address, place.is_second)
        };
        let mut c = Client::try_to(address)?;
        let name = if self.client < CLIENTS { "recorder" } else { "administrator" };
        let named = c.call(&["CLIENT", "SETNAME", name]) != Reply::Closed;
        let selected = c.call(&["SELECT", &self.db.to_string()]) != Reply::Closed;
        (named && selected).then_some((c, is_second))
    }
}
