//! HyperLogLogs: the rows of the table, then their handlers.
//!
//! The commands are described at <https://redis.io/docs/latest/commands/?group=hyperloglog>; what they
//! work on, strings of a certain layout, in [`crate::store::hyperloglog`].
//!
//! `PFCOUNT` of one key keeps the number that it found in the value, where `GET` shows it. So it is a
//! write here, and logged when it changed the value, though clients are told, as by Redis, that it reads.
//!
//! Replay gives the same bytes, with one step more than the command as it came: whether a value is still
//! sparse depends on `hll-sparse-max-bytes` at the moment, so the log says when one has become dense.
//! (With a lower limit than it was written under, a value may become dense earlier in replay. That is
//! the same value in another form.)

use super::options::{c_text, is};
use super::spec::{Change, Context, Family, Flags, Outcome, Propagate, session, write};
use crate::config::events::Class;
use crate::resp::{Args, CommandError, Reply, request};
use crate::store::hyperloglog::{self, Corrupt, REGISTERS, Registers};
use crate::store::{Access, StringOrigin, Value, WriteView};

/// The HyperLogLogs.
#[rustfmt::skip]
pub static FAMILY: Family = Family { group: "hyperloglog", commands: &[
    write("pfadd", "key [element [element ...]]", pfadd).key("RW insert")
        .flags(Flags::DENYOOM.or(Flags::FAST))
        .doc("2.8.9", "O(1) per element", "Adds elements to a HyperLogLog, which is made if need be."),
    write("pfcount", "key [key ...]", pfcount).every_key("RW access").flags(Flags::TOLD_AS_READ)
        .notes("RW because it may change the internal representation of the key, and propagate to replicas")
        .doc("2.8.9", "O(1) with one key; O(N) with N keys, and far more of it",
             "Estimates the number of different elements of HyperLogLogs together."),
    write("pfdebug", "subcommand key", pfdebug).keys(2, 2, 1, "RW access")
        .flags(Flags::DENYOOM.or(Flags::ADMIN))
        .doc("2.8.9", "N/A", "Shows what is inside a HyperLogLog."),
    write("pfmerge", "destkey [sourcekey [sourcekey ...]]", pfmerge)
        .keys(1, 1, 1, "RW access insert").keys(2, -1, 1, "RO access").flags(Flags::DENYOOM)
        .doc("2.8.9", "O(N) with N the number of keys", "Adds what HyperLogLogs have to one of them."),
    session("pfselftest", "", pfselftest).flags(Flags::ADMIN)
        .doc("2.8.9", "N/A", "Tests the HyperLogLogs of this server."),
] };

const INVALID: CommandError =
    CommandError::new("WRONGTYPE Key is not a valid HyperLogLog string value.");
const CORRUPT: CommandError = CommandError::new("INVALIDOBJ Corrupted HLL object detected");

impl From<Corrupt> for CommandError {
    fn from(_: Corrupt) -> CommandError {
        CORRUPT
    }
}

fn pfadd(view: &mut WriteView, args: Args, reply: &mut Reply) -> Change {
    let (key, limit) = (&args[1], view.hll_sparse_limit());
    let created = create_if_absent(view, key);
    let Some(value) = hyperloglog_mut(view, key)? else { return Ok(Propagate::Nothing) };
    let was_dense = hyperloglog::is_dense(value);
    let mut changed = created;
    for element in args.from(2) {
        match hyperloglog::add(value, element, limit) {
            Ok(raised) => changed |= raised,
            Err(Corrupt) if changed => {
                // The elements before this one stay in, but what fails cannot be replayed.
                hyperloglog::mark_stale(value);
                reply.error(&CORRUPT);
                return Ok(Propagate::rewritten(&[b"SET", key, value, b"KEEPTTL"]));
            }
            Err(Corrupt) => return Err(CORRUPT),
        }
    }
    reply.integer(changed.into());
    if !changed {
        return Ok(Propagate::Nothing);
    }
    hyperloglog::mark_stale(value);
    let became_dense = !was_dense && hyperloglog::is_dense(value);
    view.notify(Class::STRING, "pfadd", key);
    Ok(effect(args, became_dense))
}

fn pfcount(view: &mut WriteView, args: Args, reply: &mut Reply) -> Change {
    if args.len() > 2 {
        let mut union = Registers::default();
        merge_all(view, args, &mut union)?;
        reply.integer(union.count());
        return Ok(Propagate::Nothing);
    }
    view.get(&args[1], Access::Answer); // it counts, as the look of one that only reads
    view.notify_if_missing(&args[1]);
    let Some(value) = hyperloglog_mut(view, &args[1])? else {
        reply.integer(0);
        return Ok(Propagate::Nothing);
    };
    if let Some(count) = hyperloglog::cached_estimate(value) {
        reply.integer(count);
        return Ok(Propagate::Nothing);
    }
    let count = hyperloglog::count(value)?;
    hyperloglog::cache_estimate(value, count);
    reply.integer(count);
    Ok(Propagate::Verbatim)
}

fn pfmerge(view: &mut WriteView, args: Args, reply: &mut Reply) -> Change {
    let (key, limit) = (&args[1], view.hll_sparse_limit());
    // As with BITOP, the log must say that a source was gone.
    for key in args.from(1) {
        view.remove_if_expired(key);
    }
    let mut union = Registers::default();
    let any_dense = merge_all(view, args, &mut union)?;
    create_if_absent(view, key);
    let Some(value) = hyperloglog_mut(view, key)? else { return Ok(Propagate::Nothing) };
    let was_dense = hyperloglog::is_dense(value);
    if any_dense {
        hyperloglog::make_dense(value)?;
    }
    hyperloglog::raise_all(value, &union, limit)?;
    hyperloglog::mark_stale(value);
    reply.ok();
    let became_dense = !was_dense && hyperloglog::is_dense(value);
    view.notify(Class::STRING, "pfadd", key);
    Ok(effect(args, became_dense))
}

fn pfdebug(view: &mut WriteView, args: Args, reply: &mut Reply) -> Change {
    let missing = CommandError::new("ERR The specified key does not exist");
    let (subcommand, key) = (&args[1], &args[2]);
    let value = hyperloglog_mut(view, key)?.ok_or(missing)?;
    let was_dense = hyperloglog::is_dense(value);
    if is(subcommand, "GETREG") {
        hyperloglog::make_dense(value)?; // as Redis: who looks at the registers changes the form
        reply.array(REGISTERS);
        for rank in Registers::of(value)?.ranks() {
            reply.integer((*rank).into());
        }
        return Ok(Propagate::verbatim_if(!was_dense));
    }
    if is(subcommand, "TODENSE") {
        hyperloglog::make_dense(value)?;
        reply.integer((!was_dense).into());
        return Ok(Propagate::verbatim_if(!was_dense));
    }
    if is(subcommand, "ENCODING") {
        reply.simple(if was_dense { "dense" } else { "sparse" });
    } else if !is(subcommand, "DECODE") {
        let text = [b"ERR Unknown PFDEBUG subcommand '", c_text(subcommand), b"'"].concat();
        return Err(CommandError::from(text));
    } else if was_dense {
        return Err(CommandError::new("ERR HLL encoding is not sparse"));
    } else {
        reply.bulk(hyperloglog::describe_runs(value).as_bytes());
    }
    Ok(Propagate::Nothing)
}

/// Adds many elements to a sparse value that becomes dense and to one that is dense from the start: both
/// must count the same, and about right.
fn pfselftest(_: &mut Context, _: Args, reply: &mut Reply) -> Outcome {
    const ELEMENTS: u32 = 100_000;
    const SPARSE_LIMIT: usize = 3000;
    let mut values = [hyperloglog::create(), hyperloglog::create()];
    hyperloglog::make_dense(&mut values[1])?;
    for added in 1..=ELEMENTS {
        for value in &mut values {
            hyperloglog::add(value, &added.to_le_bytes(), SPARSE_LIMIT)?;
        }
        if !added.is_power_of_two() {
            continue;
        }
        let counts = [hyperloglog::count(&values[0])?, hyperloglog::count(&values[1])?];
        // Six times the standard error, and one.
        let tolerated = 6.0 * 0.0081 * f64::from(added) + 1.0;
        if counts[0] != counts[1] || (counts[0] as f64 - f64::from(added)).abs() > tolerated {
            return Err(format!("TESTFAILED {added} elements were counted as {counts:?}").into());
        }
    }
    reply.ok();
    Ok(())
}

/// Makes an empty HyperLogLog where there is nothing; says whether it did.
fn create_if_absent(view: &mut WriteView, key: &[u8]) -> bool {
    let absent = !view.contains(key);
    if absent {
        view.insert(key, Value::String(hyperloglog::create().into()), None);
    }
    absent
}

fn hyperloglog_mut<'v>(
    view: &'v mut WriteView,
    key: &[u8],
) -> Result<Option<&'v mut Vec<u8>>, CommandError> {
    match view.string_and_origin_mut(key)? {
        None => Ok(None),
        Some((value, _)) if !hyperloglog::is_valid(value) => Err(INVALID),
        Some((value, origin)) => {
            *origin = StringOrigin::InPlace; // also by those who only count: they may keep the number in it
            Ok(Some(value.to_mut()))
        }
    }
}

/// Merges what all the keys hold; says whether any of it was dense.
fn merge_all(
    view: &mut WriteView,
    args: Args,
    union: &mut Registers,
) -> Result<bool, CommandError> {
    let mut any_dense = false;
    for key in args.from(1) {
        view.notify_if_missing(key);
        let Some(value) = view.string(key, Access::Answer)? else { continue };
        if !hyperloglog::is_valid(value) {
            return Err(INVALID);
        }
        any_dense |= hyperloglog::is_dense(value);
        union.merge(value)?;
    }
    Ok(any_dense)
}

/// What is logged of a change to the first key.
fn effect(args: Args, became_dense: bool) -> Propagate {
    if !became_dense {
        return Propagate::Verbatim;
    }
    let mut records = Vec::new();
    request::encode_args(&mut records, args);
    request::encode(&mut records, &[b"PFDEBUG", b"TODENSE", &args[1]]);
    Propagate::Rewritten(records)
}
