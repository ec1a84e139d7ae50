//! Keys of any type, and whole databases: the rows of the table, then their handlers.
//!
//! KEYS, SCAN, RANDOMKEY and DBSIZE lock one shard at a time. So they block no other client for longer
//! than one shard takes, and they see each shard at a different moment.
//!
//! The commands are described at <https://redis.io/docs/latest/commands/?group=generic> and
//! <https://redis.io/docs/latest/commands/?group=server>.

use std::hash::{BuildHasher, RandomState};

use super::options::{
    OptionCursor, ScanOptions, Scanned, cursor, database, integer_32, is, reply_page,
};
use super::spec::{
    Change, DatabaseUse, Family, Flags, Handler, Outcome, Propagate, command, read, write,
};
use crate::config::events::EventClass;
use crate::memory;
use crate::resp::{Args, CommandError, Reply};
use crate::store::Table;
use crate::store::key::{HashedKey, POSITION_BITS};
use crate::store::{Access, Entry, EntryRef, ReadAll, ReadView, SHARDS, WriteAll, WriteView};
use crate::text::glob;

/// The commands about keys.
#[rustfmt::skip]
pub static FAMILY: Family = Family { group: "generic", commands: &[
    write("copy", "source destination [DB destination-db] [REPLACE]", copy)
        .keys(1, 1, 1, "RO access").keys(2, 2, 1, "OW update").flags(Flags::DENYOOM)
        .databases(DatabaseUse::Named(|args, at| at > 3 && is(&args[at - 1], "DB")))
        .doc("6.2.0", "O(N) where N is the number of fields of a hash, O(1) for a string",
             "Copies the value of a key to another key."),
    write("del", "key [key ...]", del).every_key("RM delete")
        .tips(&["request_policy:multi_shard", "response_policy:agg_sum"])
        .doc("1.0.0", "O(N) where N is the number of keys", "Deletes one or more keys."),
    read("exists", "key [key ...]", exists).every_key("RO").fast()
        .tips(&["request_policy:multi_shard", "response_policy:agg_sum"])
        .history(&[("3.0.3", "Accepts several keys.")])
        .doc("1.0.0", "O(N) where N is the number of keys", "Returns how many of the keys exist."),
    command("keys", "pattern", Handler::ReadAll(keys)).flags(Flags::DANGEROUS)
        .tips(&["request_policy:all_shards", "nondeterministic_output_order"])
        .doc("1.0.0", "O(N) where N is the number of keys in the database",
             "Returns all keys that match a pattern."),
    write("move", "key db", r#move).key("RW access update").fast()
        .databases(DatabaseUse::Named(|_, at| at == 2))
        .doc("1.0.0", "O(1)", "Moves a key to another database."),
    command("randomkey", "", Handler::ReadAll(randomkey))
        .tips(&["request_policy:all_shards", "response_policy:special", "nondeterministic_output"])
        .doc("1.0.0", "O(1)", "Returns a random key of the database."),
    write("rename", "key newkey", rename)
        .keys(1, 1, 1, "RW access delete").keys(2, 2, 1, "OW update")
        .doc("1.0.0", "O(1)", "Renames a key and overwrites the key that has the new name."),
    write("renamenx", "key newkey", renamenx)
        .keys(1, 1, 1, "RW access delete").keys(2, 2, 1, "OW insert").fast()
        .history(&[("3.2.0", "The same name twice is no error.")])
        .doc("1.0.0", "O(1)", "Renames a key unless the new name exists."),
    command("scan", "cursor [MATCH pattern] [COUNT count] [TYPE type]", Handler::ReadAll(scan))
        .tips(&["nondeterministic_output", "request_policy:special", "response_policy:special"])
        .arguments(&["type@6.0.0"])
        .history(&[("6.0.0", "Added the option `TYPE`.")])
        .doc("2.8.0", "O(1) for a call, O(N) for a whole iteration, where N is the number of keys",
             "Iterates over the keys of the database: returns some of them and the next cursor."),
    read("touch", "key [key ...]", touch).every_key("RO").fast().flags(Flags::ALWAYS_A_USE)
        .tips(&["request_policy:multi_shard", "response_policy:agg_sum"])
        .doc("3.2.1", "O(N) where N is the number of keys",
             "Marks keys as used and returns how many of them exist."),
    read("type", "key", r#type).key("RO").fast()
        .doc("1.0.0", "O(1)", "Returns the type of the value of a key."),
    write("unlink", "key [key ...]", del).every_key("RM delete").fast()
        .tips(&["request_policy:multi_shard", "response_policy:agg_sum"])
        .doc("4.0.0", "O(1) for each key; a background thread frees large values",
             "Deletes one or more keys, exactly as DEL does here: a background thread frees large values."),
] };

/// The commands about whole databases.
#[rustfmt::skip]
pub static WHOLE: Family = Family { group: "server", commands: &[
    command("dbsize", "", Handler::ReadAll(dbsize)).flags(Flags::KEYSPACE).fast()
        .tips(&["request_policy:all_shards", "response_policy:agg_sum"])
        .doc("1.0.0", "O(1)", "Returns the number of keys in the database."),
    command("flushall", "[ASYNC | SYNC]", Handler::WriteAll(flushall))
        .databases(DatabaseUse::All)
        .flags(Flags::KEYSPACE.or(Flags::DANGEROUS))
        .tips(&["request_policy:all_shards", "response_policy:all_succeeded"])
        .arguments(&["async-sync=flush-type", "async@4.0.0", "sync@6.2.0"])
        .history(&[("4.0.0", "Added the mode `ASYNC`."), ("6.2.0", "Added the mode `SYNC`.")])
        .doc("1.0.0", "O(1); a background thread frees the N keys of all databases",
             "Deletes all keys of all databases."),
    command("flushdb", "[ASYNC | SYNC]", Handler::WriteAll(flushdb))
        .flags(Flags::KEYSPACE.or(Flags::DANGEROUS))
        .tips(&["request_policy:all_shards", "response_policy:all_succeeded"])
        .arguments(&["async-sync=flush-type", "async@4.0.0", "sync@6.2.0"])
        .history(&[("4.0.0", "Added the mode `ASYNC`."), ("6.2.0", "Added the mode `SYNC`.")])
        .doc("1.0.0", "O(1); a background thread frees the N keys of the database",
             "Deletes all keys of the database."),
    command("swapdb", "index1 index2", Handler::WriteAll(swapdb))
        .databases(DatabaseUse::Named(|_, at| at == 1 || at == 2))
        .flags(Flags::KEYSPACE.or(Flags::DANGEROUS)).fast()
        .doc("4.0.0", "O(1)", "Swaps two databases."),
] };

const SAME_OBJECT: CommandError =
    CommandError::new("ERR source and destination objects are the same");

fn exists(view: &ReadView, args: Args, reply: &mut Reply) -> Outcome {
    reply.count(args.from(1).filter(|key| view.get(key, Access::NoTouch).is_some()).count());
    Ok(())
}

fn touch(view: &ReadView, args: Args, reply: &mut Reply) -> Outcome {
    reply.count(args.from(1).filter(|key| view.contains(key)).count());
    Ok(())
}

fn r#type(view: &ReadView, args: Args, reply: &mut Reply) -> Outcome {
    reply.simple(
        view.get(&args[1], Access::NoTouch).map_or("none", |entry| entry.value.type_name()),
    );
    Ok(())
}

pub(crate) fn del(view: &mut WriteView, args: Args, reply: &mut Reply) -> Change {
    let mut removed = 0;
    for key in args.from(1) {
        if view.remove(key) {
            view.notify(EventClass::GENERIC, "del", key);
            removed += 1;
        }
    }
    reply.count(removed);
    Ok(Propagate::verbatim_if(removed > 0))
}

fn rename(view: &mut WriteView, args: Args, reply: &mut Reply) -> Change {
    let (key, new_key) = (&args[1], &args[2]);
    if !view.contains(key) {
        return Err(CommandError::NO_SUCH_KEY);
    }
    reply.ok();
    Ok(Propagate::verbatim_if(key != new_key && move_entry(view, key, new_key)))
}

fn renamenx(view: &mut WriteView, args: Args, reply: &mut Reply) -> Change {
    let (key, new_key) = (&args[1], &args[2]);
    if !view.contains(key) {
        return Err(CommandError::NO_SUCH_KEY);
    }
    let renamed = !view.contains(new_key) && move_entry(view, key, new_key);
    reply.integer(i64::from(renamed));
    Ok(Propagate::verbatim_if(renamed))
}

/// Moves the entry to the new name; returns whether the key existed.
fn move_entry(view: &mut WriteView, key: &[u8], new_key: &[u8]) -> bool {
    let Some(entry) = view.take(key) else {
        return false;
    };
    let new = entry.value.type_name();
    let old = put_in_place(view, new_key, entry);
    view.notify(EventClass::GENERIC, "rename_from", key);
    view.notify(EventClass::GENERIC, "rename_to", new_key);
    view.notify_overwritten(new_key, old, new);
    true
}

/// Replaces what the key holds, and returns its type. As in Redis, the events first report a new key; the
/// caller reports later that one was overwritten.
pub(super) fn put_in_place(view: &mut WriteView, key: &[u8], entry: Entry) -> Option<&'static str> {
    let old = view.get(key, Access::Silent).map(|old| old.value.type_name());
    view.remove(key);
    view.insert_entry(key, entry);
    old
}

fn r#move(view: &mut WriteView, args: Args, reply: &mut Reply) -> Change {
    let key = &args[1];
    let target = database(integer_32(&args[2])?, view.database_count())?;
    if target == view.db {
        return Err(SAME_OBJECT);
    }
    let mut moved = false;
    if view.contains(key)
        && !in_database(view, target, |view| view.contains(key))
        && let Some(entry) = view.take(key)
    {
        in_database(view, target, |view| view.insert_entry(key, entry));
        view.notify(EventClass::GENERIC, "move_from", key);
        in_database(view, target, |view| view.notify(EventClass::GENERIC, "move_to", key));
        moved = true;
    }
    reply.integer(i64::from(moved));
    Ok(Propagate::verbatim_if(moved))
}

fn copy(view: &mut WriteView, args: Args, reply: &mut Reply) -> Change {
    let (source, destination) = (&args[1], &args[2]);
    let (mut target, mut replace) = (view.db, false);
    let mut words = OptionCursor::new(args, 3);
    while !words.is_done() {
        if words.take("REPLACE") {
            replace = true;
        } else if let Some(index) = words.take_value("DB")? {
            target = database(integer_32(index)?, view.database_count())?;
        } else {
            return Err(CommandError::SYNTAX);
        }
    }
    if target == view.db && source == destination {
        return Err(SAME_OBJECT);
    }
    let is_taken = |view: &mut WriteView| view.contains(destination);
    let may = view.contains(source) && (!in_database(view, target, is_taken) || replace);
    let source_entry = view.get(source, Access::Answer).filter(|_| may);
    memory::ensure_available(source_entry.map_or(0, |entry| entry.value.copy_bytes()))?;
    let copied = source_entry.map(EntryRef::to_owned);
    reply.integer(i64::from(copied.is_some()));
    let Some(copied) = copied else {
        view.notify_if_missing(source);
        return Ok(Propagate::Nothing);
    };
    in_database(view, target, |view| {
        let new = copied.value.type_name();
        let old = put_in_place(view, destination, copied);
        view.notify(EventClass::GENERIC, "copy_to", destination);
        view.notify_overwritten(destination, old, new);
    });
    Ok(Propagate::Verbatim)
}

/// Runs a function with the view switched to another database.
fn in_database<T>(view: &mut WriteView, db: usize, act: impl FnOnce(&mut WriteView) -> T) -> T {
    let own = std::mem::replace(&mut view.db, db);
    let result = act(view);
    view.db = own;
    result
}

fn keys(all: &ReadAll, args: Args, reply: &mut Reply) -> Outcome {
    let pattern = &args[1];
    let open = reply.open_array();
    let mut count = 0;
    all.visit(0, |_, table| {
        for (key, entry) in table.iter() {
            if (pattern == b"*" || glob::matches(pattern, key)) && all.is_live(entry) {
                reply.bulk(key);
                count += 1;
            }
        }
        true
    });
    reply.close_array(&open, count);
    Ok(())
}

fn dbsize(all: &ReadAll, _: Args, reply: &mut Reply) -> Outcome {
    let mut keys = 0;
    all.visit(0, |_, table| {
        keys += table.len();
        true
    });
    reply.count(keys);
    Ok(())
}

fn randomkey(all: &ReadAll, _: Args, reply: &mut Reply) -> Outcome {
    reply.bulk_or_null(choose(all).as_deref());
    Ok(())
}

/// How many keys are enough to choose one from; see [`choose`].
const CANDIDATES: u64 = 64;

/// Chooses a random key.
///
/// The candidates are all keys of a random shard and, while they are fewer than [`CANDIDATES`], of the shards
/// that follow it. So a large database costs one shard. In a small one, where most shards are empty, a key
/// after a long gap of empty shards is hardly more likely than others; and if there are fewer keys than
/// candidates, all are equally likely.
fn choose(all: &ReadAll) -> Option<Vec<u8>> {
    // A hash under a random key is the best random number that the standard library offers.
    let random = RandomState::new();
    let start = (random.hash_one(0u64) % SHARDS as u64) as usize;
    let (mut seen, mut chosen) = (0u64, None);
    let mut consider = |table: &Table| {
        for (key, _) in table.iter().filter(|(_, entry)| all.is_live(*entry)) {
            seen += 1;
            // Reservoir sampling: the n-th key replaces the chosen one with probability 1/n.
            if random.hash_one(seen).is_multiple_of(seen) {
                chosen = Some(key.to_vec());
            }
        }
        seen < CANDIDATES
    };
    let mut enough = false;
    all.visit(start, |_, table| {
        enough = !consider(table);
        !enough
    });
    if !enough {
        all.visit(0, |shard, table| shard < start && consider(table));
    }
    chosen
}

fn scan(all: &ReadAll, args: Args, reply: &mut Reply) -> Outcome {
    let cursor = cursor(&args[1])?;
    let options = ScanOptions::parse(args, 2, Scanned::Keys)?;
    let mut found = Vec::new();
    let next = walk(all, cursor, options.count, |key, entry| {
        let of_type = |name| is(name, entry.value.type_name());
        if options.matches(key)
            && options.type_name.is_none_or(of_type)
            && all.is_live_or_noted(key, entry)
        {
            found.push(key.to_vec());
        }
    });
    reply_page(reply, next, &found);
    Ok(())
}

/// Visits about `count` keys from the cursor on and returns the cursor for the next call. A walk begins
/// with 0 and ends when 0 is returned.
///
/// All possible keys are ordered by shard and then by position in the shard; both are bits of the key's
/// hash. A cursor is a place in this order, and everything before it has been visited. A key never changes
/// its place. So a key that exists from the first call to the last is visited exactly once, whatever is
/// added and removed in between. One call visits all keys with the same position.
///
/// A call costs about `count` plus the size of the last shard, whose keys are in no order. It passes over
/// empty shards: all of them take less than a millisecond, and otherwise a small database would need
/// thousands of calls.
fn walk(all: &ReadAll, cursor: u64, count: usize, mut visitor: impl FnMut(&[u8], EntryRef)) -> u64 {
    let first = (cursor >> POSITION_BITS) as usize;
    let first_position = cursor & ((1 << POSITION_BITS) - 1);
    let (mut left, mut next) = (count, 0);
    all.visit(first.min(SHARDS), |shard, table| {
        let cursor_at = |position| ((shard as u64) << POSITION_BITS) + position;
        if left == 0 && !table.is_empty() {
            next = cursor_at(0);
            return false;
        }
        let start = if shard == first { first_position } else { 0 };
        let mut keys: Vec<_> = table
            .iter()
            .map(|(key, entry)| (HashedKey::new(key).position(), key, entry))
            .filter(|(position, ..)| *position >= start)
            .collect();
        let ends_here = keys.len() > left;
        let mut end = u64::MAX;
        if ends_here {
            end = keys.select_nth_unstable_by_key(left - 1, |(position, ..)| *position).1.0 + 1;
            next = cursor_at(end);
        }
        for (_, key, entry) in keys.iter().filter(|(position, ..)| *position < end) {
            visitor(key, *entry);
        }
        left = left.saturating_sub(keys.len());
        !ends_here
    });
    next
}

fn flushall(all: &mut WriteAll, args: Args, reply: &mut Reply) -> Change {
    check_flush_option(args)?;
    all.flush_all();
    reply.ok();
    Ok(Propagate::Verbatim)
}

fn flushdb(all: &mut WriteAll, args: Args, reply: &mut Reply) -> Change {
    check_flush_option(args)?;
    all.flush();
    reply.ok();
    Ok(Propagate::Verbatim)
}

/// Checks for one of the words ASYNC and SYNC, or none. Either way a background thread frees the memory.
fn check_flush_option(args: Args) -> Result<(), CommandError> {
    let understood = match args.get(1) {
        None => true,
        Some(option) => args.len() == 2 && (is(option, "ASYNC") || is(option, "SYNC")),
    };
    if understood { Ok(()) } else { Err(CommandError::SYNTAX) }
}

fn swapdb(all: &mut WriteAll, args: Args, reply: &mut Reply) -> Change {
    let index = |arg, error| integer_32(arg).map_err(|_| CommandError::new(error));
    let one = index(&args[1], "ERR invalid first DB index")?;
    let other = index(&args[2], "ERR invalid second DB index")?;
    let one = database(one, all.database_count())?;
    let other = database(other, all.database_count())?;
    if one != other {
        all.swap(one, other);
    }
    reply.ok();
    Ok(Propagate::verbatim_if(one != other))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;

    use super::*;
    use crate::config::Config;
    use crate::store::{Keyspace, Value};

    fn keyspace() -> Keyspace {
        Keyspace::new(Arc::new(Config::new()))
    }

    fn set(keyspace: &Keyspace, name: &str, expires_at_ms: Option<i64>) {
        let key = name.as_bytes();
        let mut view = keyspace.write(0, [key].into_iter());
        view.insert(key, Value::String(Vec::new()), expires_at_ms);
    }

    fn remove(keyspace: &Keyspace, name: &str) {
        let key = name.as_bytes();
        keyspace.write(0, [key].into_iter()).remove(key);
    }

    /// Walks to the end and counts how often each key was visited; `between` runs between two calls.
    fn walk_through(
        keyspace: &Keyspace,
        count: usize,
        mut between: impl FnMut(),
    ) -> HashMap<Vec<u8>, usize> {
        let mut visits = HashMap::new();
        let mut cursor = 0;
        loop {
            let mut visited = 0;
            cursor = walk(&keyspace.read_all(0), cursor, count, |key, _| {
                *visits.entry(key.to_vec()).or_default() += 1;
                visited += 1;
            });
            assert!(visited <= count);
            assert!(cursor < 1 << 53, "exact as a double");
            if cursor == 0 {
                return visits;
            }
            between();
        }
    }

    #[test]
    fn a_scan_without_changes_returns_each_key_once() {
        for keys in [0, 1, 10, 3000, 40_000] {
            let keyspace = keyspace();
            (0..keys).for_each(|n| set(&keyspace, &n.to_string(), None));
            for count in [if keys > 3000 { 100 } else { 1 }, 10, keys.max(1), usize::MAX] {
                let visits = walk_through(&keyspace, count, || ());
                assert_eq!(visits.len(), keys);
                assert!(visits.values().all(|&times| times == 1));
            }
        }
    }

    #[test]
    fn a_scan_returns_every_key_that_exists_throughout() {
        let keyspace = keyspace();
        for n in 0..2000 {
            set(&keyspace, &format!("stays {n}"), None);
            set(&keyspace, &format!("goes {n}"), None);
        }
        let mut round = 0;
        let visits = walk_through(&keyspace, 20, || {
            for n in round * 20..(round + 1) * 20 {
                remove(&keyspace, &format!("goes {n}"));
                set(&keyspace, &format!("comes {}", n % 4000), None);
            }
            round += 1;
        });
        assert!(visits.values().all(|&times| times == 1));
        for n in 0..2000 {
            assert!(visits.contains_key(format!("stays {n}").as_bytes()));
        }
    }

    #[test]
    fn a_scan_resumes_in_the_middle_of_a_shard() {
        let shard_of = |name: &String| HashedKey::new(name.as_bytes()).shard();
        let keyspace = keyspace();
        let names = (0..2_000_000).map(|n| n.to_string());
        let names: Vec<String> = names.filter(|name| shard_of(name) == SHARDS - 1).collect();
        names.iter().for_each(|name| set(&keyspace, name, None));
        assert!(names.len() > 50);
        for count in [1, 7, names.len() - 1, names.len(), names.len() + 1] {
            let visits = walk_through(&keyspace, count, || ());
            assert!(visits.len() == names.len() && visits.values().all(|&times| times == 1));
        }
    }

    #[test]
    fn a_scan_ends_even_with_an_invented_cursor() {
        let keyspace = keyspace();
        (0..100).for_each(|n| set(&keyspace, &n.to_string(), None));
        let all = keyspace.read_all(0);
        for cursor in [1 << 53, u64::MAX, (1 << 53) + 1, 1 << 63] {
            assert_eq!(walk(&all, cursor, 10, |_, _| unreachable!("behind the end")), 0);
        }
        let last = (1 << 53) - 1;
        assert_eq!(walk(&all, last, usize::MAX, |_, _| ()), 0);
        let mut visited = 0;
        assert_eq!(walk(&all, 1, usize::MAX, |_, _| visited += 1), 0);
        assert_eq!(visited, 100);
    }

    #[test]
    fn every_live_key_is_chosen_about_as_often_as_any_other() {
        let keyspace = keyspace();
        assert_eq!(choose(&keyspace.read_all(0)), None);
        // Fewer than there are candidates, and more.
        for keys in [5, 80] {
            for n in 0..keys {
                set(&keyspace, &n.to_string(), None);
                set(&keyspace, &format!("expired {n}"), Some(1));
            }
            let mut times: HashMap<Vec<u8>, u32> = HashMap::new();
            for _ in 0..keys * 40 {
                let key = choose(&keyspace.read_all(0)).unwrap_or_default();
                *times.entry(key).or_default() += 1;
            }
            assert_eq!(times.len(), keys);
            for n in 0..keys {
                let times = times.get(n.to_string().as_bytes());
                assert!(times.is_some_and(|times| (5..200).contains(times)));
            }
        }
    }
}
