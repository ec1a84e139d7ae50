//! Strings: the rows of the table, then their handlers.
//!
//! The commands are described at <https://redis.io/docs/latest/commands/?group=string>.

use super::compare::SetCondition;
use super::options::{
    OptionCursor, TimeUnit, integer, is, positive_expires_at_ms, wrong_number_of_args,
};
use super::spec::{Change, Family, Flags, Outcome, Propagate, number_of_keys, read, write};
use crate::config::events::EventClass;
use crate::memory;
use crate::resp::{Args, CommandError, Reply};
use crate::store::{Access, ReadView, StringOrigin, Value, WriteView};
use crate::text::integer::write_i64;
use crate::text::long_double::LongDouble;

const WRITE_FAST: Flags = Flags::DENYOOM.or(Flags::FAST);

/// The string commands.
#[rustfmt::skip]
pub static FAMILY: Family = Family { group: "string", commands: &[
    write("append", "key value", append).key("RW insert").flags(WRITE_FAST)
        .doc("2.0.0", "O(1)", "Appends to the string value of a key."),
    write("decr", "key", decr).key("RW access update").flags(WRITE_FAST)
        .doc("1.0.0", "O(1)", "Decrements the integer value of a key by one."),
    write("decrby", "key decrement", decrby).key("RW access update").flags(WRITE_FAST)
        .doc("1.0.0", "O(1)", "Decrements the integer value of a key by a number."),
    read("get", "key", get).key("RO access").fast()
        .doc("1.0.0", "O(1)", "Returns the string value of a key."),
    write("getdel", "key", getdel).key("RW access delete").fast()
        .doc("6.2.0", "O(1)", "Returns the string value of a key and deletes the key."),
    write("getex", "key [EX seconds | PX milliseconds | EXAT unix-time-seconds | \
                    PXAT unix-time-milliseconds | PERSIST]", getex)
        .key("RW access update").fast().notes("RW and UPDATE because it changes the TTL")
        .doc("6.2.0", "O(1)", "Returns the string value of a key and sets or removes its expiry time."),
    read("getrange", "key start end", getrange).key("RO access")
        .doc("2.4.0", "O(N) where N is the length of the reply",
             "Returns a substring of the string value of a key."),
    write("getset", "key value", getset).key("RW access update").flags(WRITE_FAST)
        .doc("1.0.0", "O(1)", "Sets the string value of a key and returns the previous one.")
        .deprecated("6.2.0", "`SET` with the `!GET` argument"),
    write("incr", "key", incr).key("RW access update").flags(WRITE_FAST)
        .doc("1.0.0", "O(1)", "Increments the integer value of a key by one."),
    write("incrby", "key increment", incrby).key("RW access update").flags(WRITE_FAST)
        .doc("1.0.0", "O(1)", "Increments the integer value of a key by a number."),
    write("incrbyfloat", "key increment", incrbyfloat).key("RW access update").flags(WRITE_FAST)
        .arguments(&["increment:double"])
        .doc("2.6.0", "O(1)", "Increments the floating-point value of a key by a number."),
    read("mget", "key [key ...]", mget).every_key("RO access").fast()
        .tips(&["request_policy:multi_shard"])
        .doc("1.0.0", "O(N) where N is the number of keys", "Returns the string values of one or more keys."),
    write("mset", "key value [key value ...]", mset).keys(1, -1, 2, "OW update")
        .flags(Flags::DENYOOM)
        .tips(&["request_policy:multi_shard", "response_policy:all_succeeded"])
        .doc("1.0.1", "O(N) where N is the number of keys", "Sets the string values of one or more keys."),
    write("msetex", "numkeys key value [key value ...] [NX | XX] [EX seconds | PX milliseconds | \
                     EXAT unix-time-seconds | PXAT unix-time-milliseconds | KEEPTTL]", msetex)
        .numbered_keys(1, 2, "OW update").flags(Flags::DENYOOM)
        .tips(&["request_policy:multi_shard", "response_policy:all_succeeded"])
        .doc("8.4.0", "O(N) where N is the number of keys",
             "Sets the string values of one or more keys and an expiry time for all of them."),
    write("msetnx", "key value [key value ...]", msetnx).keys(1, -1, 2, "OW insert")
        .flags(Flags::DENYOOM)
        .doc("1.0.1", "O(N) where N is the number of keys",
             "Sets the string values of one or more keys if none of the keys exists."),
    write("psetex", "key milliseconds value", psetex).key("OW update").flags(Flags::DENYOOM)
        .doc("2.6.0", "O(1)", "Sets the string value of a key and its expiry time, in milliseconds from now.")
        .deprecated("2.6.12", "`SET` with the `PX` argument"),
    write("set", "key value [NX | XX | IFEQ ifeq-value | IFNE ifne-value | IFDEQ ifdeq-digest | \
                  IFDNE ifdne-digest] [GET] [EX seconds | PX milliseconds | EXAT unix-time-seconds | \
                  PXAT unix-time-milliseconds | KEEPTTL]", set)
        .key("RW access update variable_flags").access_of_call(set_access)
        .flags(Flags::DENYOOM.or(Flags::BRIEF))
        .notes("RW and ACCESS due to the optional `GET` argument")
        .arguments(&[
            "condition@2.6.12", "get@6.2.0", "seconds@2.6.12", "milliseconds@2.6.12",
            "unix-time-seconds@6.2.0", "unix-time-milliseconds@6.2.0", "keepttl@6.0.0",
        ])
        .history(&[
            ("2.6.12", "Added the options `EX`, `PX`, `NX` and `XX`."),
            ("6.0.0", "Added the option `KEEPTTL`."),
            ("6.2.0", "Added the options `GET`, `EXAT` and `PXAT`."),
            ("7.0.0", "Allowed `NX` and `GET` together."),
        ])
        .doc("1.0.0", "O(1)", "Sets the string value of a key, whatever its type was before."),
    write("setex", "key seconds value", setex).key("OW update").flags(Flags::DENYOOM)
        .doc("2.0.0", "O(1)", "Sets the string value of a key and its expiry time, in seconds from now.")
        .deprecated("2.6.12", "`SET` with the `EX` argument"),
    write("setnx", "key value", setnx).key("OW insert").flags(WRITE_FAST)
        .doc("1.0.0", "O(1)", "Sets the string value of a key if the key does not exist.")
        .deprecated("2.6.12", "`SET` with the `NX` argument"),
    write("setrange", "key offset value", setrange).key("RW update").flags(Flags::DENYOOM)
        .doc("2.2.0", "O(N) where N is the length of the value given",
             "Overwrites part of the string value of a key, from an offset on."),
    read("strlen", "key", strlen).key("RO").fast()
        .doc("2.2.0", "O(1)", "Returns the length of the string value of a key."),
    read("substr", "key start end", getrange).key("RO access")
        .doc("1.0.0", "O(N) where N is the length of the reply",
             "Returns a substring of the string value of a key.")
        .deprecated("2.0.0", "`GETRANGE`"),
] };

fn get(view: &ReadView, args: Args, reply: &mut Reply) -> Outcome {
    reply.bulk_or_null(view.string(&args[1], Access::Use)?);
    Ok(())
}

fn mget(view: &ReadView, args: Args, reply: &mut Reply) -> Outcome {
    reply.array(args.len() - 1);
    for key in args.from(1) {
        reply.bulk_or_null(view.string(key, Access::Use).unwrap_or(None));
    }
    Ok(())
}

fn strlen(view: &ReadView, args: Args, reply: &mut Reply) -> Outcome {
    reply.count(view.string(&args[1], Access::Use)?.map_or(0, <[u8]>::len));
    Ok(())
}

fn getrange(view: &ReadView, args: Args, reply: &mut Reply) -> Outcome {
    let (start, end) = (integer(&args[2])?, integer(&args[3])?);
    let value = view.string(&args[1], Access::Use)?.unwrap_or_default();
    let length = value.len() as i64;
    // A negative index counts from the end, and one before the start means the start. Two negative
    // indexes in the wrong order mean an empty range, even if both lie before the start.
    let from_end = |index: i64| {
        if index < 0 { (index + length).max(0) } else { index }
    };
    let inverted = start < 0 && end < 0 && start > end;
    let (start, end) = (from_end(start), from_end(end).min(length - 1));
    let is_empty = inverted || start > end || length == 0;
    reply.bulk(if is_empty { b"" } else { &value[start as usize..=end as usize] });
    Ok(())
}

/// The option of SET, GETEX and similar commands that sets, keeps or removes the expiry time.
#[derive(Clone, Copy, PartialEq, Default)]
pub(super) enum Expiry<'a> {
    #[default]
    Unsaid,
    /// KEEPTTL
    Keep,
    /// PERSIST
    Remove,
    At(TimeUnit, &'a [u8]),
}

impl<'a> Expiry<'a> {
    /// Takes EX, PX, EXAT or PXAT with its number, or the one other word that the command knows. An
    /// option may be repeated, and then the last one counts; two may not be combined.
    ///
    /// # Errors
    /// A syntax error: the next word is no such option, lacks its number, or follows another one.
    pub(super) fn take(
        &mut self,
        words: &mut OptionCursor<'a>,
        (word, meaning): (&str, Expiry<'a>),
    ) -> Result<(), CommandError> {
        let new = if words.take(word) {
            meaning
        } else {
            let unit = TimeUnit::take(words).ok_or(CommandError::SYNTAX)?;
            Expiry::At(unit, words.value()?)
        };
        let is_combined = match (*self, new) {
            (Expiry::At(before, _), Expiry::At(now, _)) => before != now,
            (before, now) => before != Expiry::Unsaid && before != now,
        };
        if is_combined {
            return Err(CommandError::SYNTAX);
        }
        *self = new;
        Ok(())
    }

    /// The expiry time that the option gives, if it gives one.
    ///
    /// # Errors
    /// The number is not an integer or out of range.
    pub(super) fn expires_at_ms(
        self,
        now_ms: i64,
        command: &str,
    ) -> Result<Option<i64>, CommandError> {
        match self {
            Expiry::At(unit, number) => {
                positive_expires_at_ms(unit, number, now_ms, command).map(Some)
            }
            _ => Ok(None),
        }
    }
}

/// The option of SET and MSETEX that is not an expiry time.
const KEEPTTL: (&str, Expiry) = ("KEEPTTL", Expiry::Keep);
/// The option of GETEX and INCREX that is not an expiry time.
pub(super) const PERSIST: (&str, Expiry) = ("PERSIST", Expiry::Remove);

/// The options of SET.
#[derive(Default)]
struct SetOptions<'a> {
    condition: SetCondition<'a>,
    get: bool,
    expiry: Expiry<'a>,
}

impl<'a> SetOptions<'a> {
    fn parse(args: Args<'a>) -> Result<SetOptions<'a>, CommandError> {
        let mut options = SetOptions::default();
        let mut words = OptionCursor::new(args, 3);
        while !words.is_done() {
            if words.take("GET") {
                options.get = true;
            } else if let Some(condition) = SetCondition::take(&mut words)? {
                options.condition.add(condition)?;
            } else {
                options.expiry.take(&mut words, KEEPTTL)?;
            }
        }
        Ok(options)
    }
}

/// Only with GET does SET read the key.
fn set_access(args: Args) -> &'static str {
    let gets = args.from(3).any(|arg| is(arg, "GET"));
    if gets { "RW access update" } else { "OW update" }
}

fn set(view: &mut WriteView, args: Args, reply: &mut Reply) -> Change {
    let key = &args[1];
    if args.len() == 3 {
        view.insert_string(key, &args[2], None);
        view.notify(EventClass::STRING, "set", key);
        reply.ok();
        return Ok(Propagate::Verbatim);
    }
    let options = SetOptions::parse(args)?;
    let expires_at_ms = options.expiry.expires_at_ms(view.now_ms(), "set")?;
    if options.get {
        reply.bulk_or_null(view.string(key, Access::Answer)?);
        reply.end()?;
        view.notify_if_missing(key);
    }
    let holds = options.condition.holds(view, key)?;
    if !holds {
        if !options.get {
            reply.null();
        }
        return Ok(Propagate::Nothing);
    }
    if !options.get {
        reply.ok();
    }
    let kept = view.get(key, Access::Use).and_then(|entry| entry.expires_at_ms());
    let kept = kept.filter(|_| options.expiry == Expiry::Keep);
    Ok(store(view, "set", key, &args[2], expires_at_ms, kept))
}

/// Stores a string with a new expiry time or with the one that the key had. If a new one has passed already,
/// the key is set all the same, and expires at once. The log gets the expiry time as a Unix time. Publishes
/// `event`, and `expire` for a new expiry time.
pub(super) fn store(
    view: &mut WriteView,
    event: &'static str,
    key: &[u8],
    value: &[u8],
    new_ms: Option<i64>,
    kept_ms: Option<i64>,
) -> Propagate {
    let Some(expires_at_ms) = new_ms.or(kept_ms) else {
        view.insert_string(key, value, None);
        view.notify(EventClass::STRING, event, key);
        return Propagate::rewritten(&[b"SET", key, value]);
    };
    view.insert_string(key, value, Some(expires_at_ms));
    view.notify(EventClass::STRING, event, key);
    if new_ms.is_some() {
        view.notify(EventClass::GENERIC, "expire", key);
    }
    Propagate::rewritten(&[b"SET", key, value, b"PXAT", expires_at_ms.to_string().as_bytes()])
}

fn setnx(view: &mut WriteView, args: Args, reply: &mut Reply) -> Change {
    let absent = !view.contains(&args[1]);
    if absent {
        view.insert_string(&args[1], &args[2], None);
        view.notify(EventClass::STRING, "set", &args[1]);
    }
    reply.integer(i64::from(absent));
    Ok(Propagate::verbatim_if(absent))
}

fn setex(view: &mut WriteView, args: Args, reply: &mut Reply) -> Change {
    set_with_expiry(view, args, reply, TimeUnit::EX, "setex")
}

fn psetex(view: &mut WriteView, args: Args, reply: &mut Reply) -> Change {
    set_with_expiry(view, args, reply, TimeUnit::PX, "psetex")
}

fn set_with_expiry(
    view: &mut WriteView,
    args: Args,
    reply: &mut Reply,
    unit: TimeUnit,
    name: &str,
) -> Change {
    let expires_at_ms = positive_expires_at_ms(unit, &args[2], view.now_ms(), name)?;
    reply.ok();
    Ok(store(view, "set", &args[1], &args[3], Some(expires_at_ms), None))
}

fn getset(view: &mut WriteView, args: Args, reply: &mut Reply) -> Change {
    reply.bulk_or_null(view.string(&args[1], Access::Answer)?);
    reply.end()?;
    view.notify_if_missing(&args[1]);
    view.insert_string(&args[1], &args[2], None);
    view.notify(EventClass::STRING, "set", &args[1]);
    Ok(Propagate::rewritten(&[b"SET", &args[1], &args[2]]))
}

fn getdel(view: &mut WriteView, args: Args, reply: &mut Reply) -> Change {
    reply.bulk_or_null(view.string(&args[1], Access::Answer)?);
    reply.end()?;
    view.notify_if_missing(&args[1]);
    if !view.remove(&args[1]) {
        return Ok(Propagate::Nothing);
    }
    view.notify(EventClass::GENERIC, "del", &args[1]);
    Ok(Propagate::rewritten(&[b"DEL", &args[1]]))
}

fn getex(view: &mut WriteView, args: Args, reply: &mut Reply) -> Change {
    let key = &args[1];
    let mut expiry = Expiry::Unsaid;
    let mut words = OptionCursor::new(args, 2);
    while !words.is_done() {
        expiry.take(&mut words, PERSIST)?;
    }
    let value = view.string(key, Access::Answer)?;
    reply.bulk_or_null(value);
    reply.end()?;
    let Some(old_expires_at_ms) = view.get(key, Access::Use).map(|entry| entry.expires_at_ms())
    else {
        view.notify_if_missing(key);
        return Ok(Propagate::Nothing);
    };
    match expiry.expires_at_ms(view.now_ms(), "getex")? {
        Some(expires_at_ms) if view.has_passed(expires_at_ms) => {
            view.remove(key);
            view.notify(EventClass::GENERIC, "del", key);
            Ok(Propagate::rewritten(&[b"DEL", key]))
        }
        Some(expires_at_ms) => {
            view.set_expires_at_ms(key, Some(expires_at_ms));
            view.notify(EventClass::GENERIC, "expire", key);
            Ok(Propagate::rewritten(&[b"PEXPIREAT", key, expires_at_ms.to_string().as_bytes()]))
        }
        None if expiry == Expiry::Remove && old_expires_at_ms.is_some() => {
            view.set_expires_at_ms(key, None);
            view.notify(EventClass::GENERIC, "persist", key);
            Ok(Propagate::rewritten(&[b"PERSIST", key]))
        }
        None => Ok(Propagate::Nothing),
    }
}

fn mset(view: &mut WriteView, args: Args, reply: &mut Reply) -> Change {
    set_pairs(view, args)?;
    reply.ok();
    Ok(Propagate::Verbatim)
}

fn msetnx(view: &mut WriteView, args: Args, reply: &mut Reply) -> Change {
    let free = pairs(args)?.all(|(key, _)| !view.contains(key));
    if free {
        set_pairs(view, args)?;
    }
    reply.integer(i64::from(free));
    Ok(Propagate::verbatim_if(free))
}

fn msetex(view: &mut WriteView, args: Args, reply: &mut Reply) -> Change {
    let count = number_of_keys(args, 1);
    let count = count.ok_or(CommandError::new("ERR invalid numkeys value"))?;
    let end = 2 + 2 * count;
    if end > args.len() {
        return Err(CommandError::new("ERR wrong number of key-value pairs"));
    }
    let (mut condition, mut expiry) = (SetCondition::None, Expiry::Unsaid);
    let mut words = OptionCursor::new(args, end);
    while !words.is_done() {
        match SetCondition::take(&mut words)? {
            Some(new @ (SetCondition::Absent | SetCondition::Present)) => condition.add(new)?,
            Some(_) => return Err(CommandError::SYNTAX), // SET alone compares values
            None => expiry.take(&mut words, KEEPTTL)?,
        }
    }
    let expires_at_ms = expiry.expires_at_ms(view.now_ms(), "msetex")?;
    let pairs = args.from(2).step_by(2).zip(args.from(3).step_by(2)).take(count);
    for (key, _) in pairs.clone() {
        if !condition.holds(view, key)? {
            reply.integer(0);
            return Ok(Propagate::Nothing);
        }
    }
    let mut records = Vec::new();
    for (key, value) in pairs {
        let kept = view.get(key, Access::Use).and_then(|entry| entry.expires_at_ms());
        let kept = kept.filter(|_| expiry == Expiry::Keep);
        if let Propagate::Rewritten(record) = store(view, "set", key, value, expires_at_ms, kept) {
            records.extend(record);
        }
    }
    reply.integer(1);
    Ok(if records.is_empty() { Propagate::Nothing } else { Propagate::Atomically(records) })
}

fn set_pairs(view: &mut WriteView, args: Args) -> Result<(), CommandError> {
    for (key, value) in pairs(args)? {
        view.insert_string(key, value, None);
        view.notify(EventClass::STRING, "set", key);
    }
    Ok(())
}

/// The keys and values of MSET and MSETNX.
///
/// # Errors
/// The last key has no value.
fn pairs<'a>(args: Args<'a>) -> Result<impl Iterator<Item = (&'a [u8], &'a [u8])>, CommandError> {
    if args.len().is_multiple_of(2) {
        return Err(wrong_number_of_args(args));
    }
    Ok(args.from(1).step_by(2).zip(args.from(2).step_by(2)))
}

fn append(view: &mut WriteView, args: Args, reply: &mut Reply) -> Change {
    let (key, more, limit) = (&args[1], &args[2], view.string_limit());
    let length = if let Some(mut value) = view.string_mut(key)? {
        if value.len() + more.len() > limit {
            return Err(CommandError::TOO_LONG);
        }
        let bytes = value.in_place();
        memory::reserve(bytes, more.len())?;
        bytes.extend_from_slice(more);
        value.len()
    } else {
        view.insert_string(key, more, None);
        more.len()
    };
    view.notify(EventClass::STRING, "append", key);
    reply.count(length);
    Ok(Propagate::Verbatim)
}

fn setrange(view: &mut WriteView, args: Args, reply: &mut Reply) -> Change {
    let (key, part, limit) = (&args[1], &args[3], view.string_limit());
    let offset = integer(&args[2])?;
    let offset =
        usize::try_from(offset).map_err(|_| CommandError::new("ERR offset is out of range"))?;
    let old = view.string(key, Access::Use)?.map(<[u8]>::len);
    if part.is_empty() {
        reply.count(old.unwrap_or(0));
        return Ok(Propagate::Nothing);
    }
    let end = offset.checked_add(part.len()).filter(|&end| end <= limit);
    let end = end.ok_or(CommandError::TOO_LONG)?;
    if old.is_none() {
        view.insert(key, Value::String(memory::zeros(end)?), None);
    }
    if let Some(mut value) = view.string_mut(key)? {
        let bytes = value.in_place();
        grow(bytes, end)?;
        bytes[offset..end].copy_from_slice(part);
        reply.count(bytes.len());
    }
    view.notify(EventClass::STRING, "setrange", key);
    Ok(Propagate::Verbatim)
}

/// Pads a string with zeros up to a length. Far beyond the end that is cheap: a new allocation is zeroed
/// memory that the kernel maps page by page, on first use.
///
/// # Errors
/// There is not enough memory.
pub(super) fn grow(value: &mut Vec<u8>, length: usize) -> Result<(), CommandError> {
    if length > value.capacity().saturating_mul(2) {
        let old = std::mem::replace(value, memory::zeros(length)?);
        value[..old.len()].copy_from_slice(&old);
    } else if length > value.len() {
        memory::reserve(value, length - value.len())?;
        value.resize(length, 0);
    }
    Ok(())
}

fn incr(view: &mut WriteView, args: Args, reply: &mut Reply) -> Change {
    add(view, args, reply, 1)
}

fn decr(view: &mut WriteView, args: Args, reply: &mut Reply) -> Change {
    add(view, args, reply, -1)
}

fn incrby(view: &mut WriteView, args: Args, reply: &mut Reply) -> Change {
    add(view, args, reply, integer(&args[2])?)
}

fn decrby(view: &mut WriteView, args: Args, reply: &mut Reply) -> Change {
    let decrement = integer(&args[2])?;
    let increment =
        decrement.checked_neg().ok_or(CommandError::new("ERR decrement would overflow"))?;
    add(view, args, reply, increment)
}

fn add(view: &mut WriteView, args: Args, reply: &mut Reply, increment: i64) -> Change {
    let key = &args[1];
    let mut digits = Vec::with_capacity(20);
    let value = if let Some(mut value) = view.string_mut(key)? {
        let sum = integer(&value)?
            .checked_add(increment)
            .ok_or(CommandError::new("ERR increment or decrement would overflow"))?;
        write_i64(&mut digits, sum);
        value.replace(digits, StringOrigin::Whole);
        sum
    } else {
        write_i64(&mut digits, increment);
        view.insert(key, Value::String(digits), None);
        increment
    };
    view.notify(EventClass::STRING, "incrby", key);
    reply.integer(value);
    Ok(Propagate::Verbatim)
}

fn incrbyfloat(view: &mut WriteView, args: Args, reply: &mut Reply) -> Change {
    let key = &args[1];
    let old = view.string(key, Access::Use)?.unwrap_or(b"0");
    let old = LongDouble::parse(old).ok_or(CommandError::NOT_A_FLOAT)?;
    let increment = LongDouble::parse(&args[2]).ok_or(CommandError::NOT_A_FLOAT)?;
    let sum = old + increment;
    if !sum.is_finite() {
        return Err(CommandError::new("ERR increment would produce NaN or Infinity"));
    }
    let mut digits = Vec::new();
    sum.write_to(&mut digits);
    reply.bulk(&digits);
    // The log gets the sum, not the increment: a machine with another precision might add differently.
    let effect = Propagate::rewritten(&[b"SET", key, &digits, b"KEEPTTL"]);
    if !view.contains(key) {
        view.insert(key, Value::String(Vec::new()), None);
    }
    if let Some(mut value) = view.string_mut(key)? {
        value.replace(digits, StringOrigin::AsText);
    }
    view.notify(EventClass::STRING, "incrbyfloat", key);
    Ok(effect)
}
