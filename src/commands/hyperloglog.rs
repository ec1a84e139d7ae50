//! HyperLogLogs: the rows of the table, then their handlers.
//!
//! A HyperLogLog is a string with a layout that [`crate::store::hyperloglog`] describes.
//!
//! `PFCOUNT` of one key caches its result in the value, where `GET` shows it. So it is a write here, and it
//! is logged if it changed the value. Like Redis, `COMMAND INFO` says that it is a read.
//!
//! A replay must give the same bytes. The moment when a value becomes dense depends on
//! `hll-sparse-max-bytes`, which may change, so the log records it as a command of its own. (If a log is
//! replayed with a lower limit, a value may become dense earlier: the same value in another form.)
//!
//! The commands are described at <https://redis.io/docs/latest/commands/?group=hyperloglog>.

use super::options::{c_text, is};
use super::spec::{Change, Context, Family, Flags, Outcome, Propagate, session, write};
use crate::config::events::EventClass;
use crate::resp::{Args, CommandError, Reply, request};
use crate::store::hyperloglog::{self, Corrupt, REGISTERS, Registers};
use crate::store::{Access, StringMut, Value, WriteView};

/// The HyperLogLog commands.
#[rustfmt::skip]
pub static FAMILY: Family = Family { group: "hyperloglog", commands: &[
    write("pfadd", "key [element [element ...]]", pfadd).key("RW insert")
        .flags(Flags::DENYOOM.or(Flags::FAST))
        .doc("2.8.9", "O(1) per element", "Adds elements to a HyperLogLog. Creates it if it does not exist."),
    write("pfcount", "key [key ...]", pfcount).every_key("RW access").flags(Flags::SHOWN_AS_READ)
        .notes("RW because it may change the internal representation of the key, and propagate to replicas")
        .doc("2.8.9", "O(1) for one key; O(N) for N keys, with a large constant",
             "Estimates the number of distinct elements in one or more HyperLogLogs."),
    write("pfdebug", "subcommand key", pfdebug).keys(2, 2, 1, "RW access")
        .flags(Flags::DENYOOM.or(Flags::ADMIN).or(Flags::SYSTEM))
        .doc("2.8.9", "N/A", "Returns internal data of a HyperLogLog."),
    write("pfmerge", "destkey [sourcekey [sourcekey ...]]", pfmerge)
        .keys(1, 1, 1, "RW access insert").keys(2, -1, 1, "RO access").flags(Flags::DENYOOM)
        .doc("2.8.9", "O(N) where N is the number of keys", "Merges HyperLogLogs into one."),
    session("pfselftest", "", pfselftest).flags(Flags::ADMIN.or(Flags::SYSTEM))
        .doc("2.8.9", "N/A", "Tests the HyperLogLog implementation."),
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
    let Some(mut lent) = hyperloglog_mut(view, key)? else { return Ok(Propagate::Nothing) };
    let value = lent.in_place();
    let was_dense = hyperloglog::is_dense(value);
    let mut changed = created;
    for element in args.from(2) {
        match hyperloglog::add(value, element, limit) {
            Ok(raised) => changed |= raised,
            Err(Corrupt) if changed => {
                // The elements before this one were added. A failed command cannot be replayed, so the log
                // gets the value.
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
    drop(lent);
    view.notify(EventClass::STRING, "pfadd", key);
    Ok(record(args, became_dense))
}

fn pfcount(view: &mut WriteView, args: Args, reply: &mut Reply) -> Change {
    if args.len() > 2 {
        let mut union = Registers::default();
        merge_all(view, args, &mut union)?;
        reply.integer(union.count());
        return Ok(Propagate::Nothing);
    }
    view.get(&args[1], Access::Answer); // counts as a lookup, as in a command that only reads
    view.notify_if_missing(&args[1]);
    let Some(mut lent) = hyperloglog_mut(view, &args[1])? else {
        reply.integer(0);
        return Ok(Propagate::Nothing);
    };
    let value = lent.in_place(); // even if only the estimate is cached in it, as in Redis
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
    // As in BITOP, the log must record that an expired source was gone.
    for key in args.from(1) {
        view.remove_if_expired(key);
    }
    let mut union = Registers::default();
    let any_dense = merge_all(view, args, &mut union)?;
    create_if_absent(view, key);
    let Some(mut lent) = hyperloglog_mut(view, key)? else { return Ok(Propagate::Nothing) };
    let value = lent.in_place();
    let was_dense = hyperloglog::is_dense(value);
    if any_dense {
        hyperloglog::make_dense(value)?;
    }
    hyperloglog::raise_all(value, &union, limit)?;
    hyperloglog::mark_stale(value);
    reply.ok();
    let became_dense = !was_dense && hyperloglog::is_dense(value);
    drop(lent);
    view.notify(EventClass::STRING, "pfadd", key);
    Ok(record(args, became_dense))
}

fn pfdebug(view: &mut WriteView, args: Args, reply: &mut Reply) -> Change {
    let missing = CommandError::new("ERR The specified key does not exist");
    let (subcommand, key) = (&args[1], &args[2]);
    let mut lent = hyperloglog_mut(view, key)?.ok_or(missing)?;
    let value = lent.in_place();
    let was_dense = hyperloglog::is_dense(value);
    if is(subcommand, "GETREG") {
        hyperloglog::make_dense(value)?; // as in Redis, GETREG changes the form
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

/// Adds many elements to a sparse value that becomes dense and to one that is dense from the start. Both
/// must give the same estimate, and it must be within the standard error.
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
        // Six standard errors, plus one.
        let tolerated = 6.0 * 0.0081 * f64::from(added) + 1.0;
        if counts[0] != counts[1] || (counts[0] as f64 - f64::from(added)).abs() > tolerated {
            return Err(format!("TESTFAILED {added} elements were estimated as {counts:?}").into());
        }
    }
    reply.ok();
    Ok(())
}

/// Creates an empty HyperLogLog if the key does not exist; returns whether it did.
fn create_if_absent(view: &mut WriteView, key: &[u8]) -> bool {
    let absent = !view.contains(key);
    if absent {
        view.insert(key, Value::String(hyperloglog::create()), None);
    }
    absent
}

fn hyperloglog_mut<'v>(
    view: &'v mut WriteView,
    key: &[u8],
) -> Result<Option<StringMut<'v>>, CommandError> {
    match view.string_mut(key)? {
        Some(value) if !hyperloglog::is_valid(&value) => Err(INVALID),
        value => Ok(value),
    }
}

/// Merges the values of all keys; returns whether any of them was dense.
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

/// The record of a change to the first key.
fn record(args: Args, became_dense: bool) -> Propagate {
    if !became_dense {
        return Propagate::Verbatim;
    }
    let mut records = Vec::new();
    request::encode_args(&mut records, args);
    request::encode(&mut records, &[b"PFDEBUG", b"TODENSE", &args[1]]);
    Propagate::Rewritten(records)
}
