//! Expiry times of keys: the rows of the table, then their handlers.
//!
//! Whatever unit and condition a client used, the log gets `PEXPIREAT` with the expiry time, or `DEL` if
//! the time has passed already.
//!
//! The commands are described at <https://redis.io/docs/latest/commands/?group=generic>.

use super::options::{
    ExpiryCondition, OptionCursor, TimeUnit, c_text, integer, invalid_expire_time,
};
use super::spec::{Change, Family, Outcome, Propagate, read, write};
use crate::config::events::EventClass;
use crate::resp::{Args, CommandError, Reply};
use crate::store::{Access, EntryRef, ReadView, WriteView};

/// The commands about expiry times.
#[rustfmt::skip]
pub static FAMILY: Family = Family { group: "generic", commands: &[
    write("expire", "key seconds [NX | XX | GT | LT]", expire)
        .key("RW update").fast()
        .arguments(&["condition@7.0.0"])
        .history(&[("7.0.0", "Added the options `NX`, `XX`, `GT` and `LT`.")])
        .doc("1.0.0", "O(1)", "Sets the expiry time of a key, in seconds from now."),
    write("expireat", "key unix-time-seconds [NX | XX | GT | LT]", expireat)
        .key("RW update").fast()
        .arguments(&["condition@7.0.0"])
        .history(&[("7.0.0", "Added the options `NX`, `XX`, `GT` and `LT`.")])
        .doc("1.2.0", "O(1)", "Sets the expiry time of a key to a Unix time in seconds."),
    read("expiretime", "key", expiretime).key("RO access").fast()
        .doc("7.0.0", "O(1)", "Returns the expiry time of a key as a Unix time in seconds."),
    write("persist", "key", persist).key("RW update").fast()
        .doc("2.2.0", "O(1)", "Removes the expiry time of a key."),
    write("pexpire", "key milliseconds [NX | XX | GT | LT]", pexpire)
        .key("RW update").fast()
        .arguments(&["condition@7.0.0"])
        .history(&[("7.0.0", "Added the options `NX`, `XX`, `GT` and `LT`.")])
        .doc("2.6.0", "O(1)", "Sets the expiry time of a key, in milliseconds from now."),
    write("pexpireat", "key unix-time-milliseconds [NX | XX | GT | LT]",
            pexpireat).key("RW update").fast()
        .arguments(&["condition@7.0.0"])
        .history(&[("7.0.0", "Added the options `NX`, `XX`, `GT` and `LT`.")])
        .doc("2.6.0", "O(1)", "Sets the expiry time of a key to a Unix time in milliseconds."),
    read("pexpiretime", "key", pexpiretime).key("RO access").fast()
        .doc("7.0.0", "O(1)", "Returns the expiry time of a key as a Unix time in milliseconds."),
    read("pttl", "key", pttl).key("RO access").fast()
        .tips(&["nondeterministic_output"])
        .history(&[("2.8.0", "Replies -2 if the key does not exist.")])
        .doc("2.6.0", "O(1)", "Returns the remaining time to live of a key, in milliseconds."),
    read("ttl", "key", ttl).key("RO access").fast()
        .tips(&["nondeterministic_output"])
        .history(&[("2.8.0", "Replies -2 if the key does not exist.")])
        .doc("1.0.0", "O(1)", "Returns the remaining time to live of a key, in seconds."),
] };

fn expire(view: &mut WriteView, args: Args, reply: &mut Reply) -> Change {
    set_expiry_time(view, args, reply, TimeUnit::EX, "expire")
}

fn pexpire(view: &mut WriteView, args: Args, reply: &mut Reply) -> Change {
    set_expiry_time(view, args, reply, TimeUnit::PX, "pexpire")
}

fn expireat(view: &mut WriteView, args: Args, reply: &mut Reply) -> Change {
    set_expiry_time(view, args, reply, TimeUnit::EXAT, "expireat")
}

fn pexpireat(view: &mut WriteView, args: Args, reply: &mut Reply) -> Change {
    set_expiry_time(view, args, reply, TimeUnit::PXAT, "pexpireat")
}

fn set_expiry_time(
    view: &mut WriteView,
    args: Args,
    reply: &mut Reply,
    unit: TimeUnit,
    name: &str,
) -> Change {
    let conditions = conditions(args)?;
    // Unlike in SET, a time in the past is no error: it deletes the key.
    let expires_at_ms = unit.expires_at_ms(integer(&args[2])?, view.now_ms());
    let expires_at_ms = expires_at_ms.ok_or_else(|| invalid_expire_time(name))?;
    let key = &args[1];
    let old = view.get(key, Access::Use).map(EntryRef::expires_at_ms);
    let changes = old.is_some_and(|old_ms| {
        conditions.iter().all(|condition| condition.holds(old_ms, expires_at_ms))
    });
    reply.integer(i64::from(changes));
    if !changes {
        return Ok(Propagate::Nothing);
    }
    if view.has_passed(expires_at_ms) {
        view.remove(key);
        view.notify(EventClass::GENERIC, "del", key);
        return Ok(Propagate::rewritten(&[b"DEL", key]));
    }
    view.set_expires_at_ms(key, Some(expires_at_ms));
    view.notify(EventClass::GENERIC, "expire", key);
    Ok(Propagate::rewritten(&[b"PEXPIREAT", key, expires_at_ms.to_string().as_bytes()]))
}

/// The conditions of EXPIRE and similar commands, all of which must hold.
fn conditions(args: Args) -> Result<Vec<ExpiryCondition>, CommandError> {
    let mut conditions = Vec::new();
    let mut words = OptionCursor::new(args, 3);
    while let Some(option) = words.peek() {
        let condition = ExpiryCondition::take(&mut words);
        conditions.push(condition.ok_or_else(|| unsupported(option))?);
    }
    let has = |condition| conditions.contains(&condition);
    let is_absent = |condition: &ExpiryCondition| *condition == ExpiryCondition::Absent;
    if has(ExpiryCondition::Absent) && !conditions.iter().all(is_absent) {
        let text = "ERR NX and XX, GT or LT options at the same time are not compatible";
        return Err(CommandError::new(text));
    }
    if has(ExpiryCondition::Later) && has(ExpiryCondition::Earlier) {
        let text = "ERR GT and LT options at the same time are not compatible";
        return Err(CommandError::new(text));
    }
    Ok(conditions)
}

/// Redis prints the option up to a zero byte.
fn unsupported(option: &[u8]) -> CommandError {
    [b"ERR Unsupported option ".as_slice(), c_text(option)].concat().into()
}

fn persist(view: &mut WriteView, args: Args, reply: &mut Reply) -> Change {
    let key = &args[1];
    let expires = view.get(key, Access::Use).and_then(EntryRef::expires_at_ms).is_some();
    if expires {
        view.set_expires_at_ms(key, None);
        view.notify(EventClass::GENERIC, "persist", key);
    }
    reply.integer(i64::from(expires));
    Ok(Propagate::verbatim_if(expires))
}

fn ttl(view: &ReadView, args: Args, reply: &mut Reply) -> Outcome {
    answer(view, args, reply, |expires_at_ms| round_to_seconds(view.left_ms(expires_at_ms)))
}

fn pttl(view: &ReadView, args: Args, reply: &mut Reply) -> Outcome {
    answer(view, args, reply, |expires_at_ms| view.left_ms(expires_at_ms))
}

fn expiretime(view: &ReadView, args: Args, reply: &mut Reply) -> Outcome {
    answer(view, args, reply, round_to_seconds)
}

fn pexpiretime(view: &ReadView, args: Args, reply: &mut Reply) -> Outcome {
    answer(view, args, reply, |expires_at_ms| expires_at_ms)
}

/// Replies with `shown` of the key's expiry time, -1 if it has none, and -2 for no key.
fn answer(view: &ReadView, args: Args, reply: &mut Reply, shown: impl Fn(i64) -> i64) -> Outcome {
    reply.integer(match view.get(&args[1], Access::NoTouch).map(EntryRef::expires_at_ms) {
        None => -2,
        Some(None) => -1,
        Some(Some(expires_at_ms)) => shown(expires_at_ms),
    });
    Ok(())
}

/// Rounds to the nearest second. (Half a second is added to the remainder, since adding it to `ms` could
/// overflow.)
fn round_to_seconds(ms: i64) -> i64 {
    ms / 1000 + (ms % 1000 + 500) / 1000
}
