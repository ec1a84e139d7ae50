//! Expiry: when keys end. The rows of the table, then their handlers.
//!
//! The commands are described at <https://redis.io/docs/latest/commands/?group=generic>. Whatever
//! unit and condition a client used, the log gets `PEXPIREAT` with the deadline, or `DEL` if that
//! had passed already.

use super::options::{TimeUnit, c_text, integer, invalid_expire_time, is};
use super::spec::{Change, Family, Outcome, Propagate, read, write};
use crate::config::events::Class;
use crate::resp::{Args, CommandError, Reply};
use crate::store::{Access, Entry, ReadView, WriteView};

/// The deadlines.
#[rustfmt::skip]
pub static FAMILY: Family = Family { group: "generic", commands: &[
    write("expire", "key seconds [NX | XX | GT | LT]", expire)
        .key("RW update").fast()
        .doc("1.0.0", "O(1)", "Lets a key expire in so many seconds."),
    write("expireat", "key unix-time-seconds [NX | XX | GT | LT]", expireat)
        .key("RW update").fast()
        .doc("1.2.0", "O(1)", "Lets a key expire at a Unix time in seconds."),
    read("expiretime", "key", expiretime).key("RO access").fast()
        .doc("7.0.0", "O(1)", "Returns the Unix time in seconds at which a key expires."),
    write("persist", "key", persist).key("RW update").fast()
        .doc("2.2.0", "O(1)", "Lets a key no longer expire."),
    write("pexpire", "key milliseconds [NX | XX | GT | LT]", pexpire)
        .key("RW update").fast()
        .doc("2.6.0", "O(1)", "Lets a key expire in so many milliseconds."),
    write("pexpireat", "key unix-time-milliseconds [NX | XX | GT | LT]",
            pexpireat).key("RW update").fast()
        .doc("2.6.0", "O(1)", "Lets a key expire at a Unix time in milliseconds."),
    read("pexpiretime", "key", pexpiretime).key("RO access").fast()
        .doc("7.0.0", "O(1)", "Returns the Unix time in milliseconds at which a key expires."),
    read("pttl", "key", pttl).key("RO access").fast()
        .tips(&["nondeterministic_output"])
        .doc("2.6.0", "O(1)", "Returns in how many milliseconds a key expires."),
    read("ttl", "key", ttl).key("RO access").fast()
        .tips(&["nondeterministic_output"])
        .doc("1.0.0", "O(1)", "Returns in how many seconds a key expires."),
] };

fn expire(view: &mut WriteView, args: Args, reply: &mut Reply) -> Change {
    set_deadline(view, args, reply, TimeUnit::EX, "expire")
}

fn pexpire(view: &mut WriteView, args: Args, reply: &mut Reply) -> Change {
    set_deadline(view, args, reply, TimeUnit::PX, "pexpire")
}

fn expireat(view: &mut WriteView, args: Args, reply: &mut Reply) -> Change {
    set_deadline(view, args, reply, TimeUnit::EXAT, "expireat")
}

fn pexpireat(view: &mut WriteView, args: Args, reply: &mut Reply) -> Change {
    set_deadline(view, args, reply, TimeUnit::PXAT, "pexpireat")
}

fn set_deadline(
    view: &mut WriteView,
    args: Args,
    reply: &mut Reply,
    unit: TimeUnit,
    name: &str,
) -> Change {
    let condition = Condition::parse(args.from(3))?;
    // Other than with SET, a time that has passed is no error: it ends the key.
    let expires_at_ms = unit.expires_at_ms(integer(&args[2])?, view.now_ms());
    let expires_at_ms = expires_at_ms.ok_or_else(|| invalid_expire_time(name))?;
    let key = &args[1];
    let old = view.get(key, Access::Use).map(Entry::expires_at_ms);
    let changes = old.is_some_and(|old_ms| condition.holds(old_ms, expires_at_ms));
    reply.integer(i64::from(changes));
    if !changes {
        return Ok(Propagate::Nothing);
    }
    if view.has_passed(expires_at_ms) {
        view.remove(key);
        view.notify(Class::GENERIC, "del", key);
        return Ok(Propagate::rewritten(&[b"DEL", key]));
    }
    view.set_expires_at_ms(key, Some(expires_at_ms));
    view.notify(Class::GENERIC, "expire", key);
    Ok(Propagate::rewritten(&[b"PEXPIREAT", key, expires_at_ms.to_string().as_bytes()]))
}

/// What the options of EXPIRE and its kin want of the old deadline.
#[derive(Default)]
struct Condition {
    /// NX: there is none.
    absent: bool,
    /// XX: there is one.
    present: bool,
    /// GT: it is earlier than the new one. None at all is later than any.
    earlier: bool,
    /// LT: it is later than the new one.
    later: bool,
}

impl Condition {
    fn parse<'a>(options: impl Iterator<Item = &'a [u8]>) -> Result<Condition, CommandError> {
        let mut condition = Condition::default();
        for option in options {
            let wanted = match option {
                _ if is(option, "NX") => &mut condition.absent,
                _ if is(option, "XX") => &mut condition.present,
                _ if is(option, "GT") => &mut condition.earlier,
                _ if is(option, "LT") => &mut condition.later,
                _ => return Err(unsupported(option)),
            };
            *wanted = true;
        }
        let Condition { absent, present, earlier, later } = condition;
        if absent && (present || earlier || later) {
            let text = "ERR NX and XX, GT or LT options at the same time are not compatible";
            return Err(CommandError::new(text));
        }
        if earlier && later {
            let text = "ERR GT and LT options at the same time are not compatible";
            return Err(CommandError::new(text));
        }
        Ok(condition)
    }

    fn holds(&self, old_ms: Option<i64>, new_ms: i64) -> bool {
        (!self.absent || old_ms.is_none())
            && (!self.present || old_ms.is_some())
            && (!self.earlier || old_ms.is_some_and(|old_ms| old_ms < new_ms))
            && (!self.later || old_ms.is_none_or(|old_ms| old_ms > new_ms))
    }
}

/// As Redis prints it: up to a zero byte.
fn unsupported(option: &[u8]) -> CommandError {
    [b"ERR Unsupported option ".as_slice(), c_text(option)].concat().into()
}

fn persist(view: &mut WriteView, args: Args, reply: &mut Reply) -> Change {
    let key = &args[1];
    let expires = view.get(key, Access::Use).and_then(Entry::expires_at_ms).is_some();
    if expires {
        view.set_expires_at_ms(key, None);
        view.notify(Class::GENERIC, "persist", key);
    }
    reply.integer(i64::from(expires));
    Ok(Propagate::verbatim_if(expires))
}

fn ttl(view: &ReadView, args: Args, reply: &mut Reply) -> Outcome {
    answer(view, args, reply, |expires_at_ms| to_seconds(expires_at_ms - view.now_ms()))
}

fn pttl(view: &ReadView, args: Args, reply: &mut Reply) -> Outcome {
    answer(view, args, reply, |expires_at_ms| expires_at_ms - view.now_ms())
}

fn expiretime(view: &ReadView, args: Args, reply: &mut Reply) -> Outcome {
    answer(view, args, reply, to_seconds)
}

fn pexpiretime(view: &ReadView, args: Args, reply: &mut Reply) -> Outcome {
    answer(view, args, reply, |expires_at_ms| expires_at_ms)
}

/// Replies what is to be said of the key's deadline, or that there is none, or no key.
fn answer(view: &ReadView, args: Args, reply: &mut Reply, said: impl Fn(i64) -> i64) -> Outcome {
    reply.integer(match view.get(&args[1], Access::Look).map(Entry::expires_at_ms) {
        None => -2,
        Some(None) => -1,
        Some(Some(expires_at_ms)) => said(expires_at_ms),
    });
    Ok(())
}

/// To the nearest second. (Half a second is added to the remainder, as the sum might not fit.)
fn to_seconds(ms: i64) -> i64 {
    ms / 1000 + (ms % 1000 + 500) / 1000
}
