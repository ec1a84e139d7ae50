//! The model: what each command does to a few keys in two databases, one command after the other.
//!
//! When a key expires is not known exactly: its time to live began between the call of the command that set
//! it and the reply, on the server's clock. Within that interval, and a little around it, the key may exist
//! or not, so a command may have several outcomes.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::harness::Reply;

/// The keys of a partition by number: strings, then hashes.
pub(super) const STRINGS: usize = 3;
pub(super) const KEYS: usize = 5;
/// The server's clock has a resolution of a millisecond, and truncates.
const CLOCK_SLACK: u64 = 5_000_000;

/// A command on the keys of one partition, or on all of them.
#[derive(Clone, Debug)]
pub(super) enum Command {
    Get(usize),
    /// With a time to live in milliseconds, if any.
    Set(usize, String, Option<u64>),
    /// With a time to live that is longer than the test, so that the key may be evicted at any time.
    Cache(usize, String),
    Incr(usize),
    Append(usize, String),
    GetDel(usize),
    HGet(usize, String),
    HSet(usize, String, String),
    HIncrBy(usize, String, i64),
    Rename(usize, usize),
    MSet(Vec<(usize, String)>),
    /// A transaction, and the values of the keys that it watches when it began to watch them.
    Exec(Vec<(usize, Reply)>, Vec<Command>),
    FlushAll,
    SwapDb,
}

use Command::*;

impl Command {
    /// The words that are sent, with this in front of each key.
    pub(super) fn words(&self, prefix: &str) -> Vec<String> {
        let key = |key: &usize| format!("{prefix}{key}");
        match self {
            Get(k) => vec!["GET".into(), key(k)],
            Set(k, value, None) => vec!["SET".into(), key(k), value.clone()],
            Set(k, value, Some(ms)) => {
                vec!["SET".into(), key(k), value.clone(), "PX".into(), ms.to_string()]
            }
            Cache(k, value) => {
                vec!["SET".into(), key(k), value.clone(), "EX".into(), "1000".into()]
            }
            Incr(k) => vec!["INCR".into(), key(k)],
            Append(k, value) => vec!["APPEND".into(), key(k), value.clone()],
            GetDel(k) => vec!["GETDEL".into(), key(k)],
            HGet(k, field) => vec!["HGET".into(), key(k), field.clone()],
            HSet(k, field, value) => vec!["HSET".into(), key(k), field.clone(), value.clone()],
            HIncrBy(k, field, by) => {
                vec!["HINCRBY".into(), key(k), field.clone(), by.to_string()]
            }
            Rename(from, to) => vec!["RENAME".into(), key(from), key(to)],
            MSet(pairs) => {
                let pairs = pairs.iter().flat_map(|(k, value)| [key(k), value.clone()]);
                ["MSET".to_owned()].into_iter().chain(pairs).collect()
            }
            Exec(..) => vec!["EXEC".into()],
            FlushAll => vec!["FLUSHALL".into()],
            SwapDb => vec!["SWAPDB".into(), "0".into(), "1".into()],
        }
    }

    pub(super) fn writes(&self) -> bool {
        !matches!(self, Get(_) | HGet(..))
    }

    /// The keys that it reads or changes.
    fn keys(&self) -> Vec<usize> {
        match self {
            Get(k) | Set(k, ..) | Cache(k, _) | Incr(k) | Append(k, _) | GetDel(k) => vec![*k],
            HGet(k, _) | HSet(k, ..) | HIncrBy(k, ..) => vec![*k],
            Rename(from, to) => vec![*from, *to],
            MSet(pairs) => pairs.iter().map(|(k, _)| *k).collect(),
            Exec(watched, commands) => {
                let watched = watched.iter().map(|(k, _)| *k);
                watched.chain(commands.iter().flat_map(Command::keys)).collect()
            }
            FlushAll | SwapDb => Vec::new(),
        }
    }
}

/// When a command ran: from its call to its reply, in nanoseconds.
#[derive(Clone, Copy)]
pub(super) struct Span {
    pub(super) call: u64,
    pub(super) end: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Value {
    String(String),
    Hash(BTreeMap<String, String>),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Item {
    value: Value,
    /// The earliest and the latest moment at which it may expire.
    expires: Option<(u64, u64)>,
}

/// The keys of both databases.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct State([BTreeMap<usize, Item>; 2]);

impl State {
    /// What the command may lead to: the states after it, with its replies.
    pub(super) fn outcomes(&self, db: usize, command: &Command, span: Span) -> Vec<(State, Reply)> {
        let mut outcomes = Vec::new();
        for before in self.expirations(db, &command.keys(), span) {
            let mut after = before.clone();
            match command {
                Exec(watched, commands) => {
                    let unchanged = |(k, value): &(usize, Reply)| {
                        before.clone().run(db, &Get(*k), span) == *value
                    };
                    if watched.iter().all(unchanged) {
                        let replies =
                            commands.iter().map(|command| after.run(db, command, span)).collect();
                        outcomes.push((after, Reply::Array(replies)));
                    }
                    if !watched.is_empty() {
                        outcomes.push((before, Reply::NullArray));
                    }
                }
                _ => {
                    let reply = after.run(db, command, span);
                    outcomes.push((after, reply));
                }
            }
        }
        outcomes
    }

    /// The state with each of the keys expired that must be, and also without those that may be.
    fn expirations(&self, db: usize, keys: &[usize], span: Span) -> Vec<State> {
        let mut states = vec![self.clone()];
        for key in keys {
            let Some((earliest, latest)) = self.0[db].get(key).and_then(|item| item.expires) else {
                continue;
            };
            if span.end < earliest {
                continue;
            }
            let mut expired = states.clone();
            expired.iter_mut().for_each(|state| _ = state.0[db].remove(key));
            if span.call > latest {
                states.clear();
            }
            states.append(&mut expired);
        }
        states
    }

    fn run(&mut self, db: usize, command: &Command, span: Span) -> Reply {
        let ok = || Reply::Simple("OK".into());
        let bulk = |value: &str| Reply::Bulk(value.into());
        let keys = &mut self.0[db];
        match command {
            Get(k) => string(keys, *k).map_or(Reply::NullBulk, bulk),
            Set(k, value, ms) => {
                let expires = ms.map(|ms| {
                    let ttl = Duration::from_millis(ms).as_nanos() as u64;
                    let earliest = (span.call + ttl).saturating_sub(CLOCK_SLACK);
                    (earliest, span.end.saturating_add(ttl + CLOCK_SLACK))
                });
                keys.insert(*k, Item { value: Value::String(value.clone()), expires });
                ok()
            }
            Cache(k, value) => {
                let expires = Some((span.call, u64::MAX));
                keys.insert(*k, Item { value: Value::String(value.clone()), expires });
                ok()
            }
            Incr(k) => match string_entry(keys, *k, "0") {
                value if number(value).is_some() => {
                    *value = (number(value).unwrap_or(0) + 1).to_string();
                    Reply::Integer(number(value).unwrap_or(0))
                }
                _ => Reply::Error("ERR value is not an integer or out of range".into()),
            },
            Append(k, more) => {
                let value = string_entry(keys, *k, "");
                value.push_str(more);
                Reply::Integer(value.len() as i64)
            }
            GetDel(k) => {
                let reply = string(keys, *k).map_or(Reply::NullBulk, bulk);
                keys.remove(k);
                reply
            }
            HGet(k, field) => match keys.get(k).map(|item| &item.value) {
                Some(Value::Hash(fields)) => {
                    fields.get(field).map_or(Reply::NullBulk, |value| bulk(value))
                }
                _ => Reply::NullBulk,
            },
            HSet(k, field, value) => {
                let is_new = hash_entry(keys, *k).insert(field.clone(), value.clone()).is_none();
                Reply::Integer(is_new.into())
            }
            HIncrBy(k, field, by) => {
                let value = hash_entry(keys, *k).entry(field.clone()).or_insert("0".into());
                *value = (number(value).expect("only numbers are set") + by).to_string();
                Reply::Integer(number(value).unwrap_or(0))
            }
            Rename(from, to) => match keys.remove(from) {
                Some(item) => {
                    keys.insert(*to, item);
                    ok()
                }
                None => Reply::Error("ERR no such key".into()),
            },
            MSet(pairs) => {
                for (k, value) in pairs {
                    let value = Value::String(value.clone());
                    keys.insert(*k, Item { value, expires: None });
                }
                ok()
            }
            FlushAll => {
                self.0.iter_mut().for_each(BTreeMap::clear);
                ok()
            }
            SwapDb => {
                self.0.swap(0, 1);
                ok()
            }
            Exec(..) => unreachable!("a transaction has no transaction in it"),
        }
    }
}

fn string(keys: &BTreeMap<usize, Item>, key: usize) -> Option<&str> {
    match &keys.get(&key)?.value {
        Value::String(value) => Some(value),
        Value::Hash(_) => None,
    }
}

fn string_entry<'s>(
    keys: &'s mut BTreeMap<usize, Item>,
    key: usize,
    default: &str,
) -> &'s mut String {
    let new = || Item { value: Value::String(default.into()), expires: None };
    match &mut keys.entry(key).or_insert_with(new).value {
        Value::String(value) => value,
        Value::Hash(_) => unreachable!("strings and hashes have keys of their own"),
    }
}

fn hash_entry(keys: &mut BTreeMap<usize, Item>, key: usize) -> &mut BTreeMap<String, String> {
    let new = || Item { value: Value::Hash(BTreeMap::new()), expires: None };
    match &mut keys.entry(key).or_insert_with(new).value {
        Value::Hash(fields) => fields,
        Value::String(_) => unreachable!("strings and hashes have keys of their own"),
    }
}

/// An integer as the server accepts it: no sign in front of a zero, no zeros in front.
fn number(text: &str) -> Option<i64> {
    text.parse::<i64>().ok().filter(|number| number.to_string() == *text)
}
