//! Hashes: the rows of the table, then their handlers.
//!
//! The commands are described at <https://redis.io/docs/latest/commands/?group=hash>. A hash that
//! loses its last field goes away with its key, so no handler ever meets an empty one.

use super::options::{ScanOptions, Scanned, cursor, integer, reply_page, wrong_number_of_args};
use super::spec::{Change, Effect, Family, Flags, Outcome, read, write};
use crate::resp::{Args, CommandError, Reply};
use crate::store::{Hash, ReadView, WriteView};
use crate::text::integer::{parse_i64, write_i64};
use crate::text::long_double::LongDouble;

const WRITE_FAST: Flags = Flags::DENYOOM.or(Flags::FAST);

/// The hashes.
#[rustfmt::skip]
pub static FAMILY: Family = Family { group: "hash", commands: &[
    write("hdel", "key field [field ...]", hdel).key("RW delete").fast()
        .doc("2.0.0", "O(N) with N the number of fields to remove",
             "Removes fields from a hash, and the hash with its last one."),
    read("hexists", "key field", hexists).key("RO").fast()
        .doc("2.0.0", "O(1)", "Tells whether a hash has a field."),
    read("hget", "key field", hget).key("RO access").fast()
        .doc("2.0.0", "O(1)", "Returns the value of a field of a hash."),
    read("hgetall", "key", hgetall).key("RO access")
        .tips(&["nondeterministic_output_order"])
        .doc("2.0.0", "O(N) with N the size of the hash",
             "Returns all fields of a hash with their values."),
    write("hincrby", "key field increment", hincrby)
        .key("RW access update").flags(WRITE_FAST)
        .doc("2.0.0", "O(1)", "Adds a number to the integer value of a field of a hash."),
    write("hincrbyfloat", "key field increment", hincrbyfloat)
        .key("RW access update").flags(WRITE_FAST)
        .doc("2.6.0", "O(1)", "Adds a number to the floating-point value of a field of a hash."),
    read("hkeys", "key", hkeys).key("RO access")
        .tips(&["nondeterministic_output_order"])
        .doc("2.0.0", "O(N) with N the size of the hash", "Returns all fields of a hash."),
    read("hlen", "key", hlen).key("RO").fast()
        .doc("2.0.0", "O(1)", "Returns the number of fields of a hash."),
    read("hmget", "key field [field ...]", hmget).key("RO access").fast()
        .doc("2.0.0", "O(N) with N the number of fields asked for",
             "Returns the values of fields of a hash."),
    write("hmset", "key field value [field value ...]", hmset)
        .key("RW update").flags(WRITE_FAST)
        .doc("2.0.0", "O(N) with N the number of fields to set",
             "Sets the values of fields of a hash; HSET is what one should use."),
    read("hscan", "key cursor [MATCH pattern] [COUNT count] [NOVALUES]", hscan)
        .key("RO access").tips(&["nondeterministic_output"])
        .doc("2.8.0", "O(1) for a call, O(N) for all calls until the cursor is back at 0, with N \
                       the size of the hash",
             "Returns some fields of a hash with their values, and a cursor to the next ones."),
    write("hset", "key field value [field value ...]", hset)
        .key("RW update").flags(WRITE_FAST)
        .doc("2.0.0", "O(N) with N the number of fields to set",
             "Sets the values of fields of a hash, making the hash if need be."),
    write("hsetnx", "key field value", hsetnx).key("RW insert").flags(WRITE_FAST)
        .doc("2.0.0", "O(1)", "Sets the value of a field of a hash, if the field is not there."),
    read("hstrlen", "key field", hstrlen).key("RO").fast()
        .doc("3.2.0", "O(1)", "Returns the length of the value of a field of a hash."),
    read("hvals", "key", hvals).key("RO access")
        .tips(&["nondeterministic_output_order"])
        .doc("2.0.0", "O(N) with N the size of the hash", "Returns all values of a hash."),
] };

/// The value of the field that the arguments name.
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
    reply.count(view.hash(&args[1])?.map_or(0, Hash::len));
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
    reply.map(hash.map_or(0, Hash::len));
    for (field, value) in hash.iter().flat_map(|hash| hash.iter()) {
        reply.bulk(field);
        reply.bulk(value);
    }
    Ok(())
}

fn hkeys(view: &ReadView, args: Args, reply: &mut Reply) -> Outcome {
    let hash = view.hash(&args[1])?;
    reply.array(hash.map_or(0, Hash::len));
    hash.iter().flat_map(|hash| hash.iter()).for_each(|(field, _)| reply.bulk(field));
    Ok(())
}

fn hvals(view: &ReadView, args: Args, reply: &mut Reply) -> Outcome {
    let hash = view.hash(&args[1])?;
    reply.array(hash.map_or(0, Hash::len));
    hash.iter().flat_map(|hash| hash.iter()).for_each(|(_, value)| reply.bulk(value));
    Ok(())
}

fn hscan(view: &ReadView, args: Args, reply: &mut Reply) -> Outcome {
    let cursor = cursor(&args[2])?;
    // As in Redis, nobody looks at the options when there is nothing to scan.
    let Some(hash) = view.hash(&args[1])? else {
        reply_page(reply, 0, &[]);
        return Ok(());
    };
    let options = ScanOptions::parse(args.from(3), Scanned::Fields)?;
    let mut found = Vec::new();
    let next = hash.scan(cursor, options.count, |field, value| {
        if options.matches(field) {
            found.push(field.to_vec());
            if !options.no_values {
                found.push(value.to_vec());
            }
        }
    });
    reply_page(reply, next, &found);
    Ok(())
}

fn hset(view: &mut WriteView, args: Args, reply: &mut Reply) -> Change {
    reply.count(set_fields(view, args)?);
    Ok(Effect::AsReceived)
}

fn hmset(view: &mut WriteView, args: Args, reply: &mut Reply) -> Change {
    set_fields(view, args)?;
    reply.ok();
    Ok(Effect::AsReceived)
}

/// Sets the fields of HSET and HMSET; returns how many are new.
fn set_fields(view: &mut WriteView, args: Args) -> Result<usize, CommandError> {
    if !args.len().is_multiple_of(2) {
        return Err(wrong_number_of_args(args));
    }
    let limits = view.packed_limits();
    let hash = view.hash_or_new(&args[1])?;
    let pairs = args.from(2).step_by(2).zip(args.from(3).step_by(2));
    Ok(pairs.filter(|(field, value)| hash.set(field, value, limits)).count())
}

fn hsetnx(view: &mut WriteView, args: Args, reply: &mut Reply) -> Change {
    let absent = !view.hash(&args[1])?.is_some_and(|hash| hash.contains(&args[2]));
    if absent {
        set_field(view, args, &args[3])?;
    }
    reply.integer(i64::from(absent));
    Ok(Effect::if_changed(absent))
}

/// Sets the field that the arguments name.
fn set_field(view: &mut WriteView, args: Args, value: &[u8]) -> Result<(), CommandError> {
    let limits = view.packed_limits();
    view.hash_or_new(&args[1])?.set(&args[2], value, limits);
    Ok(())
}

fn hdel(view: &mut WriteView, args: Args, reply: &mut Reply) -> Change {
    let key = &args[1];
    let Some(hash) = view.hash_mut(key)? else {
        reply.integer(0);
        return Ok(Effect::None);
    };
    let removed = args.from(2).filter(|field| hash.remove(field)).count();
    if hash.is_empty() {
        view.remove(key);
    }
    reply.count(removed);
    Ok(Effect::if_changed(removed > 0))
}

fn hincrby(view: &mut WriteView, args: Args, reply: &mut Reply) -> Change {
    let increment = integer(&args[3])?;
    let old = match view.hash(&args[1])?.and_then(|hash| hash.get(&args[2])) {
        Some(old) => parse_i64(old).ok_or(CommandError::new("ERR hash value is not an integer"))?,
        None => 0,
    };
    let sum = old
        .checked_add(increment)
        .ok_or(CommandError::new("ERR increment or decrement would overflow"))?;
    let mut digits = Vec::with_capacity(20);
    write_i64(&mut digits, sum);
    set_field(view, args, &digits)?;
    reply.integer(sum);
    Ok(Effect::AsReceived)
}

fn hincrbyfloat(view: &mut WriteView, args: Args, reply: &mut Reply) -> Change {
    let increment = LongDouble::parse(&args[3]).ok_or(CommandError::NOT_A_FLOAT)?;
    if !increment.is_finite() {
        return Err(CommandError::new("ERR value is NaN or Infinity"));
    }
    let old = view.hash(&args[1])?.and_then(|hash| hash.get(&args[2])).unwrap_or(b"0");
    let old = LongDouble::parse(old).ok_or(CommandError::new("ERR hash value is not a float"))?;
    let sum = old + increment;
    if !sum.is_finite() {
        return Err(CommandError::new("ERR increment would produce NaN or Infinity"));
    }
    let mut digits = Vec::new();
    sum.write_to(&mut digits);
    set_field(view, args, &digits)?;
    reply.bulk(&digits);
    // The sum is logged, not the increment: another machine might add in another precision.
    Ok(Effect::replay(&[b"HSET", &args[1], &args[2], &digits]))
}
