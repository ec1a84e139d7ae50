//! Hashes: the rows of the table, then their handlers.
//!
//! A hash that loses its last field is deleted with its key, so no handler ever sees an empty hash.
//!
//! The commands are described at <https://redis.io/docs/latest/commands/?group=hash>.

use super::options::{ScanOptions, Scanned, cursor, integer, is, reply_page, wrong_number_of_args};
use super::spec::{Change, Family, Flags, Outcome, Propagate, read, write};
use crate::config::events::EventClass;
use crate::resp::{Args, CommandError, Reply};
use crate::store::{Field, Hash, LiveHash, ReadView, WriteView};
use crate::text::integer::{parse_i64, write_i64};
use crate::text::long_double::LongDouble;

const WRITE_FAST: Flags = Flags::DENYOOM.or(Flags::FAST);

/// The hash commands.
#[rustfmt::skip]
pub static FAMILY: Family = Family { group: "hash", commands: &[
    write("hdel", "key field [field ...]", hdel).key("RW delete").fast()
        .history(&[("2.4.0", "Accepts several fields.")])
        .doc("2.0.0", "O(N) where N is the number of fields to delete",
             "Deletes fields of a hash. A hash without fields is deleted."),
    read("hexists", "key field", hexists).key("RO").fast()
        .doc("2.0.0", "O(1)", "Returns whether a field exists in a hash."),
    read("hget", "key field", hget).key("RO access").fast()
        .doc("2.0.0", "O(1)", "Returns the value of a field of a hash."),
    read("hgetall", "key", hgetall).key("RO access")
        .tips(&["nondeterministic_output_order"])
        .doc("2.0.0", "O(N) where N is the size of the hash",
             "Returns all fields and values of a hash."),
    write("hincrby", "key field increment", hincrby)
        .key("RW access update").flags(WRITE_FAST)
        .doc("2.0.0", "O(1)", "Increments the integer value of a field of a hash by a number."),
    write("hincrbyfloat", "key field increment", hincrbyfloat)
        .key("RW access update").flags(WRITE_FAST)
        .arguments(&["increment:double"])
        .doc("2.6.0", "O(1)", "Increments the floating-point value of a field of a hash by a number."),
    read("hkeys", "key", hkeys).key("RO access")
        .tips(&["nondeterministic_output_order"])
        .doc("2.0.0", "O(N) where N is the size of the hash", "Returns all fields of a hash."),
    read("hlen", "key", hlen).key("RO").fast()
        .doc("2.0.0", "O(1)", "Returns the number of fields of a hash."),
    read("hmget", "key field [field ...]", hmget).key("RO access").fast()
        .doc("2.0.0", "O(N) where N is the number of fields requested",
             "Returns the values of several fields of a hash."),
    write("hmset", "key field value [field value ...]", hmset)
        .key("RW update").flags(WRITE_FAST)
        .doc("2.0.0", "O(N) where N is the number of fields to set",
             "Sets the values of several fields of a hash.")
        .deprecated("4.0.0", "`HSET` with multiple field-value pairs"),
    read("hrandfield", "key [count [WITHVALUES]]", hrandfield).key("RO access")
        .tips(&["nondeterministic_output"])
        .arguments(&["count-withvalues=options"])
        .doc("6.2.0", "O(N) where N is the number of fields returned",
             "Returns random fields of a hash."),
    read("hscan", "key cursor [MATCH pattern] [COUNT count] [NOVALUES]", hscan)
        .key("RO access").tips(&["nondeterministic_output"])
        .doc("2.8.0", "O(1) for a call, O(N) for a whole iteration, where N is the size of the hash",
             "Iterates over the fields of a hash: returns some of them and the next cursor."),
    write("hset", "key field value [field value ...]", hset)
        .key("RW update").flags(WRITE_FAST)
        .history(&[("4.0.0", "Accepts several fields with values.")])
        .doc("2.0.0", "O(N) where N is the number of fields to set",
             "Sets the values of fields of a hash. Creates the hash if it does not exist."),
    write("hsetnx", "key field value", hsetnx).key("RW insert").flags(WRITE_FAST)
        .doc("2.0.0", "O(1)", "Sets the value of a field of a hash if the field does not exist."),
    read("hstrlen", "key field", hstrlen).key("RO").fast()
        .doc("3.2.0", "O(1)", "Returns the length of the value of a field of a hash."),
    read("hvals", "key", hvals).key("RO access")
        .tips(&["nondeterministic_output_order"])
        .doc("2.0.0", "O(N) where N is the size of the hash", "Returns all values of a hash."),
] };

/// The value of the field in a call `name key field`.
fn value<'a>(view: &'a ReadView, args: Args) -> Result<Option<&'a [u8]>, CommandError> {
    Ok(view.hash(&args[1])?.and_then(|hash| hash.get(&args[2])))
}

fn hget(view: &ReadView, args: Args, reply: &mut Reply) -> Outcome {
    reply.bulk_or_null(value(view, args)?);
    Ok(())
}

fn hexists(view: &ReadView, args: Args, reply: &mut Reply) -> Outcome {
    reply.integer(i64::from(value(view, args)?.is_some()));
    Ok(())
}

fn hstrlen(view: &ReadView, args: Args, reply: &mut Reply) -> Outcome {
    reply.count(value(view, args)?.map_or(0, <[u8]>::len));
    Ok(())
}

fn hlen(view: &ReadView, args: Args, reply: &mut Reply) -> Outcome {
    reply.count(view.hash(&args[1])?.map_or(0, LiveHash::len_with_expired));
    Ok(())
}

fn hmget(view: &ReadView, args: Args, reply: &mut Reply) -> Outcome {
    let hash = view.hash(&args[1])?;
    reply.array(args.len() - 2);
    for field in args.from(2) {
        reply.bulk_or_null(hash.and_then(|hash| hash.get(field)));
    }
    Ok(())
}

fn hgetall(view: &ReadView, args: Args, reply: &mut Reply) -> Outcome {
    let hash = view.hash(&args[1])?;
    reply.map(hash.map_or(0, LiveHash::len));
    for field in hash.into_iter().flat_map(LiveHash::iter) {
        reply.bulk(field.name);
        reply.bulk(field.value);
    }
    Ok(())
}

fn hkeys(view: &ReadView, args: Args, reply: &mut Reply) -> Outcome {
    let hash = view.hash(&args[1])?;
    reply.array(hash.map_or(0, LiveHash::len));
    hash.into_iter().flat_map(LiveHash::iter).for_each(|field| reply.bulk(field.name));
    Ok(())
}

fn hvals(view: &ReadView, args: Args, reply: &mut Reply) -> Outcome {
    let hash = view.hash(&args[1])?;
    reply.array(hash.map_or(0, LiveHash::len));
    hash.into_iter().flat_map(LiveHash::iter).for_each(|field| reply.bulk(field.value));
    Ok(())
}

fn hscan(view: &ReadView, args: Args, reply: &mut Reply) -> Outcome {
    let cursor = cursor(&args[2])?;
    // As in Redis, the options are not checked if there is nothing to scan.
    let Some(hash) = view.hash(&args[1])? else {
        reply_page(reply, 0, &[b""; 0]);
        return Ok(());
    };
    let options = ScanOptions::parse(args, 3, Scanned::Fields)?;
    let mut found = Vec::new();
    let next = hash.scan(cursor, options.count, |field| {
        if options.matches(field.name) {
            found.push(field.name);
            if !options.no_values {
                found.push(field.value);
            }
        }
    });
    reply_page(reply, next, &found);
    Ok(())
}

/// The most fields that one call may repeat, and the longest reply with fields that repeat, since the whole
/// reply is in memory until it is sent.
const RANDOM_FIELDS_LIMIT: u64 = 1 << 27;
const RANDOM_FIELDS_BYTES: usize = 1 << 30;

fn hrandfield(view: &ReadView, args: Args, reply: &mut Reply) -> Outcome {
    let Some(count) = args.get(2) else {
        let chosen = view.hash(&args[1])?.and_then(|hash| hash.choose(1).pop());
        reply.bulk_or_null(chosen.map(|field| field.name));
        return Ok(());
    };
    const OUT_OF_RANGE: CommandError = CommandError::new(
        "ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807",
    );
    let count = Some(integer(count)?).filter(|&count| count != i64::MIN).ok_or(OUT_OF_RANGE)?;
    let with_values = args.len() > 3;
    if args.len() > 4 || args.get(3).is_some_and(|option| !is(option, "WITHVALUES")) {
        return Err(CommandError::SYNTAX);
    }
    let may_repeat = count < 0;
    let count = count.unsigned_abs();
    let limit = if with_values { i64::MAX as u64 / 2 } else { u64::MAX };
    const TOO_MANY: CommandError = CommandError::new("ERR value is out of range");
    if count > limit || (may_repeat && count > RANDOM_FIELDS_LIMIT) {
        return Err(TOO_MANY);
    }
    let Some(hash) = view.hash(&args[1])?.filter(|hash| !hash.is_empty()) else {
        reply.array(0);
        return Ok(());
    };
    let chosen = if may_repeat { count } else { count.min(hash.len() as u64) };
    // Pairs, not a map even in RESP3, because a field may appear more than once.
    if with_values {
        reply.pairs(chosen as usize);
    } else {
        reply.array(chosen as usize);
    }
    let show = |field: Field| {
        if with_values {
            reply.pair(field.name, field.value);
        } else {
            reply.bulk(field.name);
        }
        if may_repeat && reply.len() > RANDOM_FIELDS_BYTES { Err(TOO_MANY) } else { Ok(()) }
    };
    if may_repeat {
        hash.choose_with_repetition(chosen, show)
    } else {
        hash.choose(chosen as usize).into_iter().try_for_each(show)
    }
}

fn hset(view: &mut WriteView, args: Args, reply: &mut Reply) -> Change {
    reply.count(set_fields(view, args)?);
    Ok(Propagate::Verbatim)
}

fn hmset(view: &mut WriteView, args: Args, reply: &mut Reply) -> Change {
    set_fields(view, args)?;
    reply.ok();
    Ok(Propagate::Verbatim)
}

/// Sets the fields of HSET and HMSET; returns how many are new.
fn set_fields(view: &mut WriteView, args: Args) -> Result<usize, CommandError> {
    if !args.len().is_multiple_of(2) {
        return Err(wrong_number_of_args(args));
    }
    let limits = view.packed_limits();
    let pairs = args.from(2).step_by(2).zip(args.from(3).step_by(2));
    let added = view.edit_or_make_hash(&args[1], |hash| {
        pairs.filter(|(field, value)| hash.set(field, value, limits)).count()
    })?;
    view.notify(EventClass::HASH, "hset", &args[1]);
    Ok(added)
}

fn hsetnx(view: &mut WriteView, args: Args, reply: &mut Reply) -> Change {
    view.remove_expired_fields(&args[1], args.from(2).take(1))?;
    let absent = !view.hash(&args[1])?.is_some_and(|hash| hash.contains(&args[2]));
    if absent {
        update_field(view, args, &args[3])?;
        view.notify(EventClass::HASH, "hset", &args[1]);
    }
    reply.integer(i64::from(absent));
    Ok(Propagate::verbatim_if(absent))
}

/// Sets the field in a call `name key field`. A field that exists keeps its expiry time.
fn update_field(view: &mut WriteView, args: Args, value: &[u8]) -> Result<(), CommandError> {
    let limits = view.packed_limits();
    view.edit_or_make_hash(&args[1], |hash| hash.update(&args[2], value, limits))?;
    Ok(())
}

fn hdel(view: &mut WriteView, args: Args, reply: &mut Reply) -> Change {
    let key = &args[1];
    let remove = |hash: &mut Hash| args.from(2).filter(|field| hash.remove(field)).count();
    let removed = view.edit_hash(key, remove)?.unwrap_or(0);
    if removed > 0 {
        view.notify_removal("hdel", key);
    }
    reply.count(removed);
    Ok(Propagate::verbatim_if(removed > 0))
}

fn hincrby(view: &mut WriteView, args: Args, reply: &mut Reply) -> Change {
    let increment = integer(&args[3])?;
    view.remove_expired_fields(&args[1], args.from(2).take(1))?;
    let old = match view.hash(&args[1])?.and_then(|hash| hash.get(&args[2])) {
        Some(old) => parse_i64(old).ok_or(CommandError::new("ERR hash value is not an integer"))?,
        None => 0,
    };
    let sum = old
        .checked_add(increment)
        .ok_or(CommandError::new("ERR increment or decrement would overflow"))?;
    let mut digits = Vec::with_capacity(20);
    write_i64(&mut digits, sum);
    update_field(view, args, &digits)?;
    view.notify(EventClass::HASH, "hincrby", &args[1]);
    reply.integer(sum);
    Ok(Propagate::Verbatim)
}

fn hincrbyfloat(view: &mut WriteView, args: Args, reply: &mut Reply) -> Change {
    let increment = LongDouble::parse(&args[3]).ok_or(CommandError::NOT_A_FLOAT)?;
    if !increment.is_finite() {
        return Err(CommandError::new("ERR value is NaN or Infinity"));
    }
    view.remove_expired_fields(&args[1], args.from(2).take(1))?;
    let old = view.hash(&args[1])?.and_then(|hash| hash.get(&args[2])).unwrap_or(b"0");
    let old = LongDouble::parse(old).ok_or(CommandError::new("ERR hash value is not a float"))?;
    let sum = old + increment;
    if !sum.is_finite() {
        return Err(CommandError::new("ERR increment would produce NaN or Infinity"));
    }
    let mut digits = Vec::new();
    sum.write_to(&mut digits);
    update_field(view, args, &digits)?;
    view.notify(EventClass::HASH, "hincrbyfloat", &args[1]);
    reply.bulk(&digits);
    // The log gets the sum, not the increment: a machine with another precision might add differently.
    let (key, name) = (&args[1], &args[2]);
    let field = view.hash(key)?.and_then(|hash| hash.field(name));
    Ok(match field.and_then(|field| field.expires_at_ms()) {
        None => Propagate::rewritten(&[b"HSET", key, name, &digits]),
        Some(_) => {
            Propagate::rewritten(&[b"HSETEX", key, b"KEEPTTL", b"FIELDS", b"1", name, &digits])
        }
    })
}
