//! The clients of the soak. Each does one kind of work, and checks what it can while it works.
//!
//! A *mortal* client may be killed by `CLIENT KILL` at any time, and comes back. What it does is therefore a
//! transaction, or the check does not depend on how often it was done. A *watcher* only receives. The others
//! live until the phase ends, so they know how often they were answered.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use super::SOON;
use crate::harness::{Client, Reply, encode};
use crate::rng::Rng;

const ACCOUNTS: usize = 8;
const BALANCE: i64 = 1000;
const TOKENS: usize = 4;
const SLOTS: usize = 6;
const TWINS: usize = 10;
/// A string that is long enough to fill buffers.
const BIG: usize = 100_000;
/// How many keys the cache may have: more than fit.
const CACHED: usize = 20_000;
/// A string that grows by `APPEND` starts again beyond this length.
const LONGEST_APPENDED: u64 = 20_000;

/// What all clients of a phase share.
pub(super) struct Load {
    pub(super) address: SocketAddr,
    pub(super) running: AtomicBool,
    /// All writers have ended and nothing changes any more.
    pub(super) is_quiet: AtomicBool,
    /// Whether the phase ends without a crash.
    pub(super) survives: bool,
}

impl Load {
    fn is_running(&self) -> bool {
        self.running.load(SeqCst)
    }

    /// A connection with this name, by which it can be killed. `None` if it was lost at once.
    fn connect(&self, name: &str) -> Option<Client> {
        let Some(mut c) = Client::try_to(self.address) else {
            thread::sleep(Duration::from_millis(1)); // the server was killed
            return None;
        };
        answered(c.call(&["CLIENT", "SETNAME", name])).map(|_| c)
    }

    /// Repeats the work on one connection after another, as long as the phase lasts.
    fn mortal(&self, name: &str, mut work: impl FnMut(&mut Client) -> Option<()>) {
        while self.is_running() {
            let Some(mut c) = self.connect(name) else { continue };
            while self.is_running() && work(&mut c).is_some() {}
        }
    }

    /// Repeats the work on a connection that only the end of the server may close.
    fn steady(&self, mut work: impl FnMut(&mut Client) -> Option<()>) {
        let Some(mut c) = self.connect("steady") else {
            return assert!(!self.survives, "the server does not answer");
        };
        while self.is_running() {
            if work(&mut c).is_none() {
                return assert!(!self.survives, "a connection was lost");
            }
        }
    }
}

/// A reply that is no error; `None` if the connection was lost.
#[track_caller]
fn answered(reply: Reply) -> Option<Reply> {
    assert!(!matches!(reply, Reply::Error(_)), "{reply}");
    (reply != Reply::Closed).then_some(reply)
}

#[track_caller]
fn integer(reply: Reply) -> Option<i64> {
    match answered(reply)? {
        Reply::Integer(number) => Some(number),
        Reply::Bulk(digits) => Some(String::from_utf8_lossy(&digits).parse().expect("a number")),
        Reply::NullBulk => Some(0),
        other => panic!("not a number: {other}"),
    }
}

fn send_all(c: &mut Client, commands: &[&[&str]]) {
    c.try_send_raw(commands.iter().flat_map(|command| encode(command)).collect::<Vec<_>>());
}

/// Sends `MULTI`, the commands and `EXEC`, and returns the reply to `EXEC`.
fn transaction(c: &mut Client, commands: &[&[&str]]) -> Option<Reply> {
    send_all(c, &[&[&["MULTI"][..]], commands, &[&["EXEC"]]].concat());
    (0..=commands.len()).try_for_each(|_| answered(c.read_reply()).map(drop))?;
    answered(c.read_reply())
}

pub(super) fn set_up(c: &mut Client) {
    for account in 0..ACCOUNTS {
        c.expect(&format!("SET account:{account} {BALANCE}"), "+OK");
    }
    for token in 0..TOKENS {
        c.expect(&format!("SET token:{token}:0 {token}"), "+OK");
    }
    assert_eq!(c.call(&["SET", "big", &"x".repeat(BIG)]).to_string(), "+OK");
    c.transcript(
        "> SELECT 6
         +OK
         > SET marker 6
         +OK
         > SELECT 7
         +OK
         > SET marker 7
         +OK
         > SELECT 0
         +OK",
    );
}

// ---- Those whose sums are exact ----------------------------------------------------------------------

/// A number that a client increments: what the server must show of it.
#[derive(Default)]
struct Tally {
    /// The value when the phase began.
    base: u64,
    /// How many increments have been sent since, and how many acknowledged.
    sent: u64,
    acknowledged: u64,
}

impl Tally {
    /// Takes the reply to the next increment, when nobody else increments the number.
    fn acknowledge(&mut self, what: &str, reply: Reply) -> Option<()> {
        let next = self.base + self.acknowledged + 1;
        assert_eq!(integer(reply)?, next as i64, "{what}");
        self.acknowledged += 1;
        Some(())
    }

    /// Compares it with the value that the server has, which is known from then on.
    fn check(&mut self, what: &str, value: i64) {
        let possible = self.base + self.acknowledged..=self.base + self.sent;
        assert!(possible.contains(&(value as u64)), "{what} is {value}, not in {possible:?}");
        *self = Tally { base: value as u64, ..Tally::default() };
    }
}

/// Counts in pipelines, in a number, a field and the length of a string of its own, and in a shared number.
pub(super) struct Counter {
    id: usize,
    own: Tally,
    field: Tally,
    /// Its part of the shared number.
    shared: Tally,
    /// The length of its string; `None` while it is not known whether it was deleted.
    appended: Option<Tally>,
}

impl Counter {
    pub(super) fn new(id: usize) -> Counter {
        let [own, field, shared] = Default::default();
        Counter { id, own, field, shared, appended: Some(Tally::default()) }
    }

    pub(super) fn total(&self) -> u64 {
        self.own.base
    }

    pub(super) fn count(&mut self, load: &Load, mut random: Rng) {
        let id = self.id.to_string();
        let (own, string) = (format!("counter:{id}"), format!("appended:{id}"));
        load.steady(|c| {
            let depth = 1 + random.below(30);
            let step: [&[&str]; 4] = [
                &["INCR", &own],
                &["INCR", "counter"],
                &["HINCRBY", "counters", &id, "1"],
                &["APPEND", &string, "x"],
            ];
            let appended = self.appended.as_mut().expect("it is known between two pipelines");
            for tally in [&mut self.own, &mut self.field, &mut self.shared, appended] {
                tally.sent += depth as u64;
            }
            send_all(c, &vec![&step[..]; depth].concat());
            for _ in 0..depth {
                self.own.acknowledge(&own, c.read_reply())?;
                integer(c.read_reply())?;
                self.shared.acknowledged += 1;
                self.field.acknowledge(&id, c.read_reply())?;
                appended.acknowledge(&string, c.read_reply())?;
            }
            let length = appended.base + appended.acknowledged;
            if length > LONGEST_APPENDED {
                self.appended = None;
                let whole = answered(c.call(&["GETDEL", &string]))?;
                assert!(whole == Reply::Bulk("x".repeat(length as usize).into()), "{string}");
                self.appended = Some(Tally::default());
            }
            Some(())
        });
    }

    fn check(&mut self, c: &mut Client) {
        let id = self.id;
        let mut check = |tally: &mut Tally, command: String| {
            tally.check(&command, integer(c.reply(&command)).expect("a reply"));
        };
        check(&mut self.own, format!("GET counter:{id}"));
        check(&mut self.field, format!("HGET counters {id}"));
        let unknown = || Tally { sent: 2 * LONGEST_APPENDED, ..Tally::default() };
        check(self.appended.get_or_insert_with(unknown), format!("STRLEN appended:{id}"));
    }
}

/// Counts in transactions, so that all its numbers agree even if it or the server is killed.
pub(super) struct Ledger {
    id: usize,
    entries: Tally,
}

impl Ledger {
    pub(super) fn new(id: usize) -> Ledger {
        Ledger { id, entries: Tally::default() }
    }

    pub(super) fn enter(&mut self, load: &Load) {
        let own = format!("ledger:{}", self.id);
        load.mortal("mortal", |c| {
            self.entries.sent += 1;
            let increments: [&[&str]; 3] =
                [&["INCR", &own], &["INCR", "ledger"], &["HINCRBY", "ledgers", "total", "1"]];
            let reply = transaction(c, &increments)?;
            assert!(matches!(&reply, Reply::Array(numbers) if numbers.len() == 3), "{reply}");
            self.entries.acknowledged += 1;
            Some(())
        });
    }
}

pub(super) fn check_sums(c: &mut Client, counters: &mut [Counter], ledgers: &mut [Ledger]) {
    let mut shared = Tally::default();
    for counter in &mut *counters {
        counter.check(c);
        let part = std::mem::take(&mut counter.shared);
        shared.base += part.base;
        shared.acknowledged += part.acknowledged;
        shared.sent += part.sent;
    }
    let mut number = |command: &str| integer(c.reply(command)).expect("a reply");
    shared.check("counter", number("GET counter"));
    counters[0].shared = shared;
    let mut sum = 0;
    for ledger in ledgers {
        let own = format!("GET ledger:{}", ledger.id);
        let value = number(&own);
        ledger.entries.check(&own, value);
        sum += value;
    }
    assert_eq!([number("GET ledger"), number("HGET ledgers total")], [sum; 2], "all ledgers");
}

/// Counts in one of two databases that are swapped all the time.
#[derive(Default)]
pub(super) struct Swapped {
    sum: Tally,
}

impl Swapped {
    pub(super) fn count(&mut self, load: &Load) {
        load.steady(|c| {
            answered(c.reply("SELECT 6"))?;
            self.sum.sent += 20;
            send_all(c, &[&["INCR", "n"][..]; 20]);
            for _ in 0..20 {
                integer(c.read_reply())?;
                self.sum.acknowledged += 1;
            }
            Some(())
        });
    }

    pub(super) fn check(&mut self, c: &mut Client) {
        let mut sum = 0;
        for database in ["6", "7"] {
            c.expect(&format!("SELECT {database}"), "+OK");
            sum += integer(c.reply("GET n")).expect("a reply");
        }
        c.expect("SELECT 0", "+OK");
        self.sum.check("the sum of the swapped databases", sum);
    }
}

// ---- Those whose checks do not depend on how often they work -----------------------------------------

type Work = fn(&Load, Rng);

pub(super) const WRITERS: &[(Work, usize)] = &[
    (transfer, 3),
    (rename, 2),
    (set_twins, 2),
    (expire, 2),
    (flush_database, 1),
    (swap_databases, 1),
    (publish, 1),
    (vanish, 3),
    (fill_cache, 2),
    (administer, 1),
];
pub(super) const WATCHERS: &[(Work, usize)] = &[(subscribe, 2), (track, 2), (monitor, 1)];

/// Moves money between two accounts, with `WATCH`.
fn transfer(load: &Load, mut random: Rng) {
    load.mortal("mortal", |c| {
        let from = random.below(ACCOUNTS);
        let to = (from + 1 + random.below(ACCOUNTS - 1)) % ACCOUNTS;
        let [from, to] = [from, to].map(|account| format!("account:{account}"));
        send_all(c, &[&["WATCH", &from, &to], &["GET", &from], &["GET", &to]]);
        answered(c.read_reply())?;
        let amount = random.below(10) as i64;
        let less = (integer(c.read_reply())? - amount).to_string();
        let more = (integer(c.read_reply())? + amount).to_string();
        transaction(c, &[&["SET", &from, &less], &["SET", &to, &more]])?;
        Some(())
    });
}

/// Renames keys of which exactly one of several names exists.
fn rename(load: &Load, mut random: Rng) {
    load.mortal("mortal", |c| {
        let token = random.below(TOKENS);
        let mut slot = || format!("token:{token}:{}", random.below(SLOTS));
        match c.call(&["RENAME", &slot(), &slot()]) {
            Reply::Error(error) if error == "ERR no such key" => Some(()),
            other => answered(other).map(drop),
        }
    });
}

/// Sets two keys to one value, with `MSET`.
fn set_twins(load: &Load, mut random: Rng) {
    load.mortal("mortal", |c| {
        let twin = random.below(TWINS);
        let [a, b] = ["a", "b"].map(|half| format!("twin:{twin}:{half}"));
        let value = random.next_u64().to_string().repeat(1 + random.below(20));
        answered(c.call(&["MSET", &a, &value, &b, &value]))?;
        Some(())
    });
}

/// Sets keys and fields with a short time to live, and looks for them when it is over.
fn expire(load: &Load, mut random: Rng) {
    load.mortal("mortal", |c| {
        let id = random.next_u64(); // a connection that was killed may still write the keys that it named
        let ms = (1 + random.below(SOON.as_millis() as usize - 1)).to_string();
        let keys: Vec<[String; 4]> = (0..20)
            .map(|n| ["px", "pexpire", "hsetex", "hpexpire"].map(|how| format!("{how}:{id}:{n}")))
            .collect();
        for [px, pexpire, hsetex, hpexpire] in &keys {
            let commands: [&[&str]; 6] = [
                &["SET", px, "value", "PX", &ms],
                &["SET", pexpire, "value"],
                &["PEXPIRE", pexpire, &ms],
                &["HSETEX", hsetex, "PX", &ms, "FIELDS", "1", "field", "value"],
                &["HSET", hpexpire, "field", "value"],
                &["HPEXPIRE", hpexpire, &ms, "FIELDS", "1", "field"],
            ];
            send_all(c, &commands);
            (0..commands.len()).try_for_each(|_| answered(c.read_reply()).map(drop))?;
        }
        thread::sleep(SOON);
        for [px, pexpire, hsetex, hpexpire] in &keys {
            assert_eq!(integer(c.call(&["EXISTS", px, pexpire]))?, 0, "{px}, {ms} ms");
            for hash in [hsetex, hpexpire] {
                assert_eq!(integer(c.call(&["HEXISTS", hash, "field"]))?, 0, "{hash}, {ms} ms");
            }
        }
        Some(())
    });
}

/// Fills and empties a database that nobody else uses.
fn flush_database(load: &Load, mut random: Rng) {
    load.steady(|c| {
        answered(c.reply("SELECT 5"))?;
        answered(c.reply("FLUSHDB"))?;
        for key in 0..200 {
            answered(c.call(&["HSET", &key.to_string(), "field", "value"]))?;
        }
        assert_eq!(integer(c.reply("DBSIZE"))?, 200);
        answered(c.reply(["FLUSHDB SYNC", "FLUSHDB ASYNC"][random.below(2)]))?;
        assert_eq!(integer(c.reply("DBSIZE"))?, 0);
        thread::sleep(SOON); // each flush empties all caches
        Some(())
    });
}

/// Fills a cache of which most is evicted, and reads what is left. Nothing else has a time to live and is
/// missed when it is evicted before its time.
fn fill_cache(load: &Load, mut random: Rng) {
    load.mortal("mortal", |c| {
        let numbers: Vec<usize> = (0..50).map(|_| random.below(CACHED)).collect();
        let value = |number: usize| format!("{number}:").repeat(2000);
        send_all(c, &[&["SELECT", "8"]]);
        for number in &numbers {
            let (key, value) = (format!("cache:{number}"), value(*number));
            send_all(c, &[&["SET", &key, &value, "EX", "1000"], &["GET", &key]]);
        }
        answered(c.read_reply())?;
        for number in &numbers {
            answered(c.read_reply())?;
            match answered(c.read_reply())? {
                Reply::NullBulk => {}
                read => assert!(read.into_text() == value(*number), "cache:{number} is another"),
            }
        }
        Some(())
    });
}

/// Swaps two databases whose markers change places.
fn swap_databases(load: &Load, _: Rng) {
    load.steady(|c| {
        let mut markers = Vec::new();
        for database in ["SELECT 6", "SELECT 7"] {
            answered(c.reply(database))?;
            markers.push(integer(c.reply("GET marker"))?);
        }
        answered(c.reply("SWAPDB 6 7"))?;
        assert_eq!(integer(c.reply("GET marker"))?, markers[0], "the marker of database 7");
        answered(c.reply("SELECT 6"))?;
        assert_eq!(integer(c.reply("GET marker"))?, markers[1], "the marker of database 6");
        Some(())
    });
}

/// Publishes numbered messages, and long ones.
fn publish(load: &Load, _: Rng) {
    let long = "x".repeat(BIG);
    let mut number = 0;
    load.steady(|c| {
        number += 1;
        answered(c.call(&["PUBLISH", "numbers", &number.to_string()]))?;
        if number % 50 == 0 {
            answered(c.call(&["PUBLISH", "long", &long]))?;
        }
        Some(())
    });
}

/// Misbehaves: leaves a command, a transaction or its replies where they are, and hangs up.
fn vanish(load: &Load, mut random: Rng) {
    load.mortal("mortal", |c| {
        let requests = match random.below(6) {
            0 => b"*3\r\n$3\r\nSET\r\n$8\r\nunsent".to_vec(),
            1 => encode(&["GET", "big"]).repeat(100),
            2 => encode(&["SUBSCRIBE", "long", "numbers"]),
            3 => encode(&["MONITOR"]),
            4 => [encode(&["WATCH", "counter", "ledger"]), encode(&["MULTI"])].concat(),
            _ => [encode(&["CLIENT", "TRACKING", "ON", "BCAST"]), encode(&["HELLO", "3"])].concat(),
        };
        c.try_send_raw(requests);
        thread::sleep(Duration::from_millis(random.below(300) as u64));
        None
    });
}

/// Rewrites the log, changes settings, reads everything, and kills clients.
fn administer(load: &Load, mut random: Rng) {
    load.steady(|c| {
        match random.below(8) {
            0 => {
                let policy = ["always", "everysec", "no"][random.below(3)];
                answered(c.call(&["CONFIG", "SET", "appendfsync", policy]))?;
            }
            1 => {
                let entries = ["2", "512"][random.below(2)];
                answered(c.call(&["CONFIG", "SET", "hash-max-listpack-entries", entries]))?;
            }
            2 => {
                if c.reply("BGREWRITEAOF") == Reply::Closed {
                    return None; // an error says that a rewrite is running
                }
            }
            3 => drop(answered(c.reply("INFO everything"))?),
            4 => drop(answered(c.reply("DEBUG CHECK"))?),
            5 => scan(c)?,
            6 => audit(c)?,
            _ => {
                let mut one_in = |times| random.below(times) == 0;
                kill_by_name(c, "mortal", |_| one_in(4))?;
                kill_by_name(c, "watcher", |_| one_in(4))?;
            }
        }
        thread::sleep(Duration::from_millis(random.below(20) as u64));
        Some(())
    });
}

/// Kills those clients with a name that are chosen by id. `None` if the connection was lost.
pub(super) fn kill_by_name(
    c: &mut Client,
    name: &str,
    mut chosen: impl FnMut(&str) -> bool,
) -> Option<()> {
    let list = answered(c.reply("CLIENT LIST"))?.into_text();
    let name = format!(" name={name} ");
    let named = list.lines().filter(|line| line.contains(&name));
    let ids = named.filter_map(|line| line.strip_prefix("id=")?.split(' ').next());
    for id in ids.filter(|id| chosen(id)) {
        integer(c.call(&["CLIENT", "KILL", "ID", id]))?; // 0 if it is gone
    }
    Some(())
}

fn scan(c: &mut Client) -> Option<()> {
    let mut cursor = "0".to_owned();
    loop {
        let mut parts = answered(c.call(&["SCAN", &cursor, "COUNT", "100"]))?.into_items();
        cursor = parts.remove(0).into_text();
        if cursor == "0" {
            return Some(());
        }
    }
}

/// Checks what must hold at any time. `None` if the connection was lost.
pub(super) fn audit(c: &mut Client) -> Option<()> {
    let keys = |prefix: &str, names: &mut dyn Iterator<Item = String>| -> Vec<String> {
        names.map(|name| format!("{prefix}:{name}")).collect()
    };
    let mut read = |command: &str, keys: Vec<String>| {
        answered(c.call(&[vec![command.to_owned()], keys].concat()))
    };
    let accounts = keys("account", &mut (0..ACCOUNTS).map(|n| n.to_string()));
    let balances = read("MGET", accounts)?.into_items().into_iter();
    let sum: i64 = balances.filter_map(integer).sum();
    assert_eq!(sum, ACCOUNTS as i64 * BALANCE, "the sum of all accounts");
    for token in 0..TOKENS {
        let slots = keys("token", &mut (0..SLOTS).map(|slot| format!("{token}:{slot}")));
        assert_eq!(integer(read("EXISTS", slots)?)?, 1, "the names of token {token}");
    }
    for twin in 0..TWINS {
        let twins = keys("twin", &mut ["a", "b"].iter().map(|half| format!("{twin}:{half}")));
        let values = read("MGET", twins)?.into_items();
        assert_eq!(values[0], values[1], "both halves of twin {twin}");
    }
    Some(())
}

// ---- Those who only receive --------------------------------------------------------------------------

/// Receives numbered messages without a gap.
fn subscribe(load: &Load, _: Rng) {
    let mut last = None;
    receive(load, &["SUBSCRIBE", "numbers"], |message| match message.into_items().pop() {
        Some(Reply::Bulk(digits)) => {
            let number: u64 = String::from_utf8_lossy(&digits).parse().expect("a number");
            assert!(last.is_none_or(|last| number == last + 1), "{number} follows {last:?}");
            last = Some(number);
        }
        _ => last = None, // it has subscribed
    });
}

/// Receives the commands of all clients.
fn monitor(load: &Load, _: Rng) {
    receive(load, &["MONITOR"], |line| assert!(matches!(line, Reply::Simple(_)), "{line}"));
}

/// Sends one command and receives, until it is killed.
fn receive(load: &Load, command: &[&str], mut each: impl FnMut(Reply)) {
    while load.is_running() {
        let Some(mut c) = load.connect("watcher") else { continue };
        c.send(command);
        while let Some(message) = answered(c.read_reply()) {
            each(message);
        }
    }
}

/// Caches what it reads. When all writers have ended, what was not invalidated must still be true.
fn track(load: &Load, mut random: Rng) {
    let twins = (0..TWINS).map(|twin| format!("twin:{twin}:a"));
    let accounts = (0..ACCOUNTS).map(|account| format!("account:{account}"));
    let shared = ["counter", "ledger"].map(String::from);
    let keys: Vec<String> = twins.chain(accounts).chain(shared).collect();
    while load.is_running() {
        let Some(c) = load.connect("watcher") else { continue };
        let mut cache = Cache { c, values: BTreeMap::new() };
        // It ends when it was killed, and when all is checked.
        cache.fill_and_check(load, || &keys[random.below(keys.len())]);
    }
}

struct Cache {
    c: Client,
    values: BTreeMap<String, Reply>,
}

impl Cache {
    fn fill_and_check<'k>(&mut self, load: &Load, mut key: impl FnMut() -> &'k str) -> Option<()> {
        answered(self.c.reply("HELLO 3"))?;
        answered(self.c.reply("CLIENT TRACKING ON"))?;
        while load.is_running() {
            let key = key();
            let value = self.call(&["GET", key])?;
            self.values.insert(key.to_owned(), value);
        }
        while load.survives && !load.is_quiet.load(SeqCst) {
            thread::sleep(Duration::from_millis(1));
        }
        self.call(&["PING"])?;
        for (key, cached) in self.values.clone() {
            let value = self.call(&["GET", &key])?;
            assert_eq!(cached, value, "the cached value of {key} was not invalidated");
        }
        Some(())
    }

    /// The reply to a command. Forgets what is invalidated before it.
    fn call(&mut self, args: &[&str]) -> Option<Reply> {
        self.c.send(args);
        loop {
            match answered(self.c.read_reply())? {
                Reply::Push(mut message) => match message.pop() {
                    Some(Reply::Array(keys)) => {
                        keys.into_iter().for_each(|key| _ = self.values.remove(&key.into_text()));
                    }
                    _ => self.values.clear(),
                },
                reply => return Some(reply),
            }
        }
    }
}
