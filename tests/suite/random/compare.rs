//! Two servers that get the same commands, and the differences between their replies that are allowed.
//!
//! Ours runs many of them in transactions, Redis runs each alone: the replies must be the same.
//!
//! Replies are compared byte for byte, except for:
//!
//! - the order of keys, and the order of fields in a hash that Redis keeps as a hash table (OBJECT ENCODING
//!   tells; in a listpack they are in insertion order, and must be so in ours);
//! - times to live, and expiry times that were given as such: they may differ by two seconds;
//! - a page of SCAN, unless it is the whole database.
//!
//! A command whose behaviour is newer than the Redis is not sent: see [`NEWER`].

use std::collections::BTreeMap;

use respite::commands::Command as Row;

use super::generator::{ALL, Candidate, Words};
use super::grammar::entry;
use super::on_purpose::{differs_on_purpose, is_same_text, overflows_valkey};
use crate::harness::{Client, Peer, Reply, Server, connect, dump, encode, quote, say};

/// By command: what a Redis before this version does differently.
const NEWER: &[(&str, (u32, u32), Sign)] = &[
    // Valkey 8.1: a start without an end.
    ("bitcount", NO_REDIS, Sign::Words(3)),
    ("bitop", (8, 2), Sign::OneOf(&["DIFF", "DIFF1", "ANDOR", "ONE"])),
    ("hexpire", (8, 4), Sign::Repeated(&["NX", "XX", "GT", "LT"])),
    ("hexpireat", (8, 4), Sign::Repeated(&["NX", "XX", "GT", "LT"])),
    ("hpexpire", (8, 4), Sign::Repeated(&["NX", "XX", "GT", "LT"])),
    ("hpexpireat", (8, 4), Sign::Repeated(&["NX", "XX", "GT", "LT"])),
    ("hexpire", (8, 4), Sign::Is(ends_in_condition)),
    ("hexpire", (8, 0), Sign::Is(is_odd_to_valkey)),
    ("hexpireat", (8, 4), Sign::Is(ends_in_condition)),
    ("hexpireat", (8, 0), Sign::Is(is_odd_to_valkey)),
    ("hpexpire", (8, 4), Sign::Is(ends_in_condition)),
    ("hpexpire", (8, 0), Sign::Is(is_odd_to_valkey)),
    ("hpexpireat", (8, 4), Sign::Is(ends_in_condition)),
    ("hpexpireat", (8, 0), Sign::Is(is_odd_to_valkey)),
    ("hgetex", (8, 0), Sign::Is(is_odd_to_valkey)),
    ("hgetex", (8, 4), Sign::Is(goes_on_after_fields)),
    ("hsetex", (8, 0), Sign::Is(is_odd_to_valkey)),
    ("hsetex", (8, 4), Sign::Is(goes_on_after_fields)),
    ("hscan", (7, 4), Sign::OneOf(&["NOVALUES"])),
    // Valkey accepts several expiry times, and the last one counts.
    ("hgetex", (8, 0), Sign::Repeated(&["EX", "PX", "EXAT", "PXAT", "PERSIST"])),
    ("hsetex", (8, 0), Sign::Repeated(&["EX", "PX", "EXAT", "PXAT", "KEEPTTL"])),
    ("hsetex", (8, 0), Sign::Repeated(&["FXX", "FNX"])),
    // An expired key is stored, or not even that, and counted by DBSIZE until it is removed: tests say when.
    ("set", NO_REDIS, Sign::PastTime),
    ("msetex", NO_REDIS, Sign::PastTime),
    // Valkey's.
    ("hsetex", NO_REDIS, Sign::OneOf(&["NX", "XX"])),
    ("scan", (7, 4), Sign::OneOf(&["NOVALUES"])),
    ("set", (8, 4), Sign::OneOf(&["IFEQ", "IFNE", "IFDEQ", "IFDNE"])),
];

/// Later than every Redis.
const NO_REDIS: (u32, u32) = (u32::MAX, 0);

/// How such a command is recognized.
enum Sign {
    /// It contains one of these words.
    OneOf(&'static [&'static str]),
    /// It has this many words.
    Words(usize),
    /// This is true of it.
    Is(fn(&Words) -> bool),
    /// It has an expiry time in the past.
    PastTime,
    /// It has several of these words.
    Repeated(&'static [&'static str]),
}

/// Redis 8.4 takes options behind the fields, too.
fn goes_on_after_fields(command: &Words) -> bool {
    let words_per_field = if command[0].eq_ignore_ascii_case(b"hsetex") { 2 } else { 1 };
    let at = command.iter().position(|word| word.eq_ignore_ascii_case(b"FIELDS"));
    let behind = at.map(|at| &command[at + 1..]).unwrap_or_default();
    let Some((count, fields)) = behind.split_first() else { return false };
    let count = std::str::from_utf8(count).ok().and_then(|count| count.parse::<usize>().ok());
    count.is_some_and(|count| fields.len() > count.saturating_mul(words_per_field))
}

/// Redis 8.4 takes a condition behind the fields, too.
fn ends_in_condition(command: &Words) -> bool {
    let last = command.last().map(Vec::as_slice).unwrap_or_default();
    ["NX", "XX", "GT", "LT"].iter().any(|name| last.eq_ignore_ascii_case(name.as_bytes()))
}

/// Valkey takes a key for the word FIELDS, and expiry times that are out of range to others.
fn is_odd_to_valkey(command: &Words) -> bool {
    let is_huge = |word: &Vec<u8>| word.len() > 14 && word.iter().all(u8::is_ascii_digit);
    let is_word = |key: &Vec<u8>| key.eq_ignore_ascii_case(b"FIELDS");
    command.get(1).is_some_and(is_word) || command.iter().any(is_huge)
}

/// The number of commands that are sent before replies are read.
const BATCH: usize = 64;

/// Our server and a Redis.
pub(super) struct Pair {
    ours: Server,
    reference: Client,
    version: (u32, u32),
    crashed: bool,
}

/// The settings of an episode.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setup {
    pub(super) protocol: usize,
    pub(super) packed_entries: usize,
    pub(super) sparse_bytes: usize,
}

/// The first difference between the two.
pub(super) struct Difference {
    /// The number of the command.
    pub(super) step: usize,
    pub(super) ours: String,
    pub(super) theirs: String,
}

impl Pair {
    /// Starts our server and connects to the Redis at `REDIS_ADDR`.
    pub(super) fn start() -> Pair {
        let reference = connect();
        let version = reference.redis_version();
        Pair {
            ours: Server::start(&["--enable-debug-command", "yes"]),
            reference,
            version,
            crashed: false,
        }
    }

    /// The rows that the Redis also has, each with our arguments and with those that the Redis documents:
    /// so options that ours lacks are tried too.
    pub(super) fn rows(&mut self) -> Vec<&'static Candidate> {
        let (known, lacking): (Vec<_>, Vec<_>) =
            ALL.iter().partition(|candidate| self.knows(candidate.row.name));
        if !lacking.is_empty() {
            let names: Vec<&str> = lacking.iter().map(|candidate| candidate.row.name).collect();
            let (peer, names) = (self.reference.peer.expect("a real server"), names.join(" "));
            say(&format!("not compared, since {peer} lacks them: {names}"));
        }
        let documented = known.iter().map(|candidate| -> &'static Candidate {
            let docs = self.reference.call(&["COMMAND", "DOCS", candidate.row.name]).into_items();
            let arguments = docs.last().and_then(|docs| entry(docs, "arguments")).cloned();
            // A few hundred bytes for each row, as long as the test runs.
            Box::leak(Box::new(candidate.documented(&arguments.unwrap_or(Reply::NullArray))))
        });
        let documented: Vec<_> = documented.collect();
        [known, documented].concat()
    }

    fn differs_on_purpose(
        &self,
        command: &Words,
        one: &Reply,
        other: &Reply,
        is_alike: bool,
    ) -> bool {
        let Some((peer, row)) = self.reference.peer.zip(row_of(command)) else { return false };
        differs_on_purpose(peer, row.name, command, [one, other], is_alike)
    }

    pub(super) fn is_valkey(&self) -> bool {
        self.reference.peer.is_some_and(Peer::is_valkey)
    }

    pub(super) fn is_redis_since(&self, version: (u32, u32)) -> bool {
        !self.is_valkey() && self.version >= version
    }

    /// Whether the Redis has a command of this name.
    pub(super) fn knows(&mut self, name: &str) -> bool {
        let info = self.reference.call(&["COMMAND", "INFO", name]).into_items();
        matches!(info[..], [Reply::Array(_)])
    }

    pub(super) fn is_same_text(&self, ours: &str, theirs: &str) -> bool {
        self.reference.peer.map_or(ours == theirs, |peer| is_same_text(peer, ours, theirs))
    }

    /// Whether this Redis should behave as ours.
    pub(super) fn is_known(&self, command: &Words) -> bool {
        let Some(row) = row_of(command) else { return true };
        if self.is_valkey() && overflows_valkey(row.name, command) {
            return false;
        }
        let newer = |(name, since, sign): &(&str, (u32, u32), Sign)| {
            let shows = match sign {
                Sign::OneOf(tokens) => tokens.iter().any(|token| has_token(command, token)),
                Sign::Words(count) => command.len() == *count,
                Sign::Is(shows) => shows(command),
                Sign::PastTime => command.windows(2).any(|pair| {
                    let names = ["EXAT", "PXAT"].map(str::as_bytes);
                    let is_time = names.iter().any(|name| pair[0].eq_ignore_ascii_case(name));
                    is_time && pair[1].len() < 10
                }),
                Sign::Repeated(names) => {
                    let is_one = |word: &&Vec<u8>| {
                        names.iter().any(|name| word.eq_ignore_ascii_case(name.as_bytes()))
                    };
                    command.iter().filter(is_one).count() > 1
                }
            };
            *name == row.name && self.version < *since && shows
        };
        !NEWER.iter().any(newer)
    }

    /// A new connection to each server.
    pub(super) fn connect(&mut self) -> [Client; 2] {
        if std::mem::take(&mut self.crashed) {
            self.ours.restart();
        }
        [self.ours.client(), self.reference.another()]
    }

    /// Empties both servers. Opens a connection to each for commands, and one for keyspace events.
    fn begin(&mut self, setup: Setup) -> ([Client; 2], [Client; 2]) {
        let mut both = self.connect();
        for c in &mut both {
            c.expect("FLUSHALL", "+OK");
            let (entries, bytes) = (setup.packed_entries, setup.sparse_bytes);
            c.expect(&format!("CONFIG SET hash-max-listpack-entries {entries}"), "+OK");
            c.expect(&format!("CONFIG SET hll-sparse-max-bytes {bytes}"), "+OK");
            c.expect("CONFIG SET notify-keyspace-events KEAmn", "+OK");
            // An expired key is deleted by a command that meets it, not at a random moment.
            c.expect("DEBUG SET-ACTIVE-EXPIRE 0", "+OK");
            c.reply(&format!("HELLO {}", setup.protocol));
        }
        let mut watchers = self.connect();
        for c in &mut watchers {
            c.expect("PSUBSCRIBE __key*__:*", r#"["psubscribe", "__key*__:*", :1]"#);
        }
        (both, watchers)
    }

    /// Sends the commands to both, which are empty at first. Returns the first difference: in a reply, or
    /// in their data after the last command.
    pub(super) fn difference(&mut self, setup: Setup, commands: &[Words]) -> Option<Difference> {
        let ([mut ours, mut reference], [mut our_events, mut their_events]) = self.begin(setup);
        for (number, batch) in commands.chunks(BATCH).enumerate() {
            let probes: Vec<Option<Words>> = batch.iter().map(probe).collect();
            let with_probes = batch.iter().zip(&probes);
            let with_probes =
                with_probes.flat_map(|(command, probe)| probe.iter().chain([command]));
            let marked = with_marks(batch);
            ours.try_send_raw(in_transactions(&marked));
            let sent = with_probes.flat_map(|words| [encode(words), encode(&MARK)].concat());
            reference.send_raw(sent.collect::<Vec<_>>());
            let our_replies = read_of_transactions(&mut ours, &marked);
            let mut our_replies = our_replies.into_iter().step_by(2);
            let mut first = None;
            // All replies are read, so no command still runs when the next attempt connects.
            for (place, command) in batch.iter().enumerate() {
                let probed = probes[place].is_some().then(|| {
                    let reply = reference.read_reply();
                    reference.read_reply();
                    events_to_mark(&mut their_events);
                    reply
                });
                let (one, bytes) = our_replies.next().unwrap_or((Reply::Closed, None));
                let (other, other_bytes) = reference.read_reply_and_bytes();
                reference.read_reply();
                self.crashed |= one == Reply::Closed;
                let is_alike = bytes.map_or(one == other, |bytes| bytes == other_bytes)
                    || are_alike(command, &one, &other, probed.as_ref());
                let mut events = [&mut our_events, &mut their_events].map(events_to_mark);
                if row_of(command).is_some_and(|row| is_unordered(row) || row.name == "scan") {
                    events.iter_mut().for_each(|events| events.sort());
                }
                let is_same = is_alike && events[0] == events[1];
                let on_purpose = || self.differs_on_purpose(command, &one, &other, is_alike);
                if first.is_none() && !is_same && !on_purpose() {
                    let [ours, theirs] = [(one, &events[0]), (other, &events[1])]
                        .map(|(reply, events)| format!("{reply}\n    and the events {events:?}"));
                    first = Some(Difference { step: number * BATCH + place, ours, theirs });
                }
            }
            if first.is_some() {
                return first;
            }
        }
        let differs = state_difference(&dump(&mut ours), &dump(&mut reference));
        let step = commands.len().saturating_sub(1);
        differs.map(|(ours, theirs)| Difference { step, ours, theirs })
    }
}

/// Sent after each command: the message shows where the command's events end.
const MARK: [&str; 3] = ["PUBLISH", "__key__:mark", ""];

fn with_marks(batch: &[Words]) -> Vec<Words> {
    let mark = MARK.map(|word| word.as_bytes().to_vec());
    batch.iter().flat_map(|command| [command.clone(), mark.to_vec()]).collect()
}

/// The keyspace events up to the next mark, as `channel message`.
fn events_to_mark(watcher: &mut Client) -> Vec<String> {
    let next = || match watcher.read_reply() {
        Reply::Array(parts) if parts[2] != Reply::Bulk(MARK[1].into()) => {
            Some(format!("{} {}", parts[2], parts[3]))
        }
        _ => None,
    };
    let events: Vec<String> = std::iter::from_fn(next).collect();
    // A Redis removes what has expired when a command meets it, ours when a write meets it or the sweeper
    // comes. So the events of that come with another command. The tests of the store and of events say when.
    let mut rest = events.iter().peekable();
    let mut kept = Vec::new();
    while let Some(event) = rest.next() {
        if event.contains("hexpired") {
            let is_end = |next: &&String| next.contains("\"del\"") || next.contains(":del\"");
            while rest.next_if(is_end).is_some() {}
        } else if !event.contains("expired") {
            kept.push(event.clone());
        }
    }
    kept
}

/// Whether ours runs the command in a transaction, together with its neighbours for which this is true too.
/// There each must do what it does alone. (It depends only on the command, so a shortened list has the same
/// transactions.)
fn is_queued(command: &Words) -> bool {
    let letters = command.iter().flatten().fold(0u32, |sum, &byte| sum + u32::from(byte));
    (letters % 3 > 0 && row_of(command).is_some()) || command[0] == MARK[0].as_bytes()
}

/// The commands in runs: those of one transaction, or a single command outside of any.
fn runs(batch: &[Words]) -> impl Iterator<Item = (&[Words], bool)> {
    let runs = batch.chunk_by(|one, next| is_queued(one) && is_queued(next));
    runs.map(|run| (run, is_queued(&run[0])))
}

/// The encoded commands, with `MULTI` and `EXEC` around each transaction.
pub(super) fn in_transactions(batch: &[Words]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (run, is_queued) in runs(batch) {
        let commands = run.iter().flat_map(|command| encode(command));
        match is_queued {
            true => bytes
                .extend(encode(&["MULTI"]).into_iter().chain(commands).chain(encode(&["EXEC"]))),
            false => bytes.extend(commands),
        }
    }
    bytes
}

/// The replies to the commands, and their bytes unless they are part of EXEC's reply.
pub(super) fn read_of_transactions(
    c: &mut Client,
    batch: &[Words],
) -> Vec<(Reply, Option<Vec<u8>>)> {
    let mut replies = Vec::new();
    for (run, is_queued) in runs(batch) {
        if !is_queued {
            let (reply, bytes) = c.read_reply_and_bytes();
            replies.push((reply, Some(bytes)));
            continue;
        }
        (0..=run.len()).for_each(|_| _ = c.read_reply());
        match c.read_reply() {
            Reply::Array(items) if items.len() == run.len() => {
                replies.extend(items.into_iter().map(|reply| (reply, None)));
            }
            other => replies.extend(run.iter().map(|_| (other.clone(), None))),
        }
    }
    replies
}

/// The first key on which the two differ, as each of them holds it.
fn state_difference(ours: &Dump, theirs: &Dump) -> Option<(String, String)> {
    // A value in a dump ends in expiry times: of the key, and of fields.
    let is_same_word = |(one, other): (&str, &str)| {
        let number = |word: &str| -> Option<i64> { word.strip_prefix(':')?.parse().ok() };
        let times = number(one).zip(number(other));
        one == other || times.is_some_and(|(one, other)| is_near(one, other, 2000))
    };
    let differs = |place: &&(usize, String)| match (ours.get(place), theirs.get(place)) {
        (Some(one), Some(other)) => {
            one.matches(' ').count() != other.matches(' ').count()
                || !one.split(' ').zip(other.split(' ')).all(is_same_word)
        }
        _ => true,
    };
    let place = ours.keys().chain(theirs.keys()).find(differs)?;
    let show = |dump: &Dump| format!("{place:?}: {:?}", dump.get(place));
    Some((show(ours), show(theirs)))
}

type Dump = BTreeMap<(usize, String), String>;

/// Whether one of the arguments is this token.
fn has_token(command: &Words, token: &str) -> bool {
    command[1..].iter().any(|word| word.eq_ignore_ascii_case(token.as_bytes()))
}

/// The row of the command, if there is one and it accepts the number of arguments.
fn row_of(command: &Words) -> Option<&'static Row> {
    let candidate = ALL.iter().find(|candidate| {
        let mut names = candidate.row.name.split('|').zip(command);
        names.all(|(name, word)| word.eq_ignore_ascii_case(name.as_bytes()))
    });
    candidate.map(|candidate| candidate.row).filter(|row| row.accepts(command.len()))
}

/// A command that is sent to the Redis first, if the comparison of the replies needs its answer.
fn probe(command: &Words) -> Option<Words> {
    let row = row_of(command)?;
    if row.name == "dbsize" {
        // DBSIZE counts expired keys until they are deleted; SCAN deletes them.
        return Some([&b"SCAN"[..], b"0", b"COUNT", b"1000000"].map(<[u8]>::to_vec).into());
    }
    let is_of_hash = row.keys[0].is_some() && (is_unordered(row) || row.name == "hscan");
    is_of_hash.then(|| vec![b"OBJECT".to_vec(), b"ENCODING".to_vec(), command[1].clone()])
}

fn is_unordered(row: &Row) -> bool {
    row.tips.contains(&"nondeterministic_output_order")
}

/// Whether two replies with different bytes mean the same.
fn are_alike(command: &Words, one: &Reply, other: &Reply, probed: Option<&Reply>) -> bool {
    let Some(row) = row_of(command) else { return false };
    if let Some((_, tolerance)) = TIMES.iter().find(|(name, _)| *name == row.name) {
        return are_near(one, other, *tolerance);
    }
    let is_compact = probed == Some(&Reply::Bulk(b"listpack".to_vec()));
    let has_pairs =
        row.name == "hgetall" || (row.name == "hscan" && !has_token(command, "NOVALUES"));
    let same_in_any_order =
        |one, other| !is_compact && sorted(one, has_pairs) == sorted(other, has_pairs);
    match (row.name, one, other) {
        ("scan" | "hscan", Reply::Array(one), Reply::Array(other)) => {
            let cursor = &command[if row.name == "scan" { 1 } else { 2 }];
            let begins = cursor.iter().all(|byte| b"+-0".contains(byte));
            let zero = Reply::Bulk(b"0".to_vec());
            let is_whole = begins && one[0] == zero && other[0] == zero;
            !is_whole || same_in_any_order(&one[1], &other[1])
        }
        _ => is_unordered(row) && same_in_any_order(one, other),
    }
}

/// Commands that reply with times, and by how much these may differ: two seconds.
const TIMES: &[(&str, i64)] = &[
    ("ttl", 2),
    ("pttl", 2000),
    ("expiretime", 2),
    ("pexpiretime", 2000),
    ("httl", 2),
    ("hpttl", 2000),
    ("hexpiretime", 2),
    ("hpexpiretime", 2000),
];

fn are_near(one: &Reply, other: &Reply, tolerance: i64) -> bool {
    match (one, other) {
        (Reply::Integer(one), Reply::Integer(other)) => is_near(*one, *other, tolerance),
        (Reply::Array(one), Reply::Array(other)) => {
            let mut pairs = one.iter().zip(other);
            one.len() == other.len() && pairs.all(|(one, other)| are_near(one, other, tolerance))
        }
        _ => one == other,
    }
}

/// Equal, or both positive and near each other.
fn is_near(one: i64, other: i64, tolerance: i64) -> bool {
    one == other || (one > 0 && other > 0 && one.abs_diff(other) <= tolerance as u64)
}

/// The reply with its elements sorted, or, if it is an array of pairs, the pairs.
fn sorted(reply: &Reply, has_pairs: bool) -> Reply {
    let mut sorted = match reply {
        Reply::Array(items) if has_pairs && items.len() % 2 == 0 => {
            Reply::Array(items.chunks(2).map(|pair| Reply::Array(pair.to_vec())).collect())
        }
        other => other.clone(),
    };
    sorted.sort();
    sorted
}

/// The commands as one would type them into `redis-cli`.
pub(super) fn listing(commands: &[Words]) -> String {
    let plain = |word: &[u8]| {
        !word.is_empty() && word.iter().all(|b| b.is_ascii_alphanumeric() || b"-_.:+".contains(b))
    };
    let word = |word: &Vec<u8>| {
        if plain(word) { String::from_utf8_lossy(word).into_owned() } else { quote(word) }
    };
    let line = |command: &Words| command.iter().map(word).collect::<Vec<_>>().join(" ");
    commands.iter().map(line).collect::<Vec<_>>().join("\n")
}
