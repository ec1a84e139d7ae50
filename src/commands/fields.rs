//! Hash fields that expire: the rows of the table, then their handlers.
//!
//! Whatever unit and condition a client used, the log gets the expiry time as a Unix time in milliseconds:
//! `HPEXPIREAT` for fields that existed; `HSETEX ... PXAT` for fields that are set with it, in one record, so
//! that no crash can separate a value from its expiry time; or `HDEL` if the time has passed already.
//!
//! Options may precede or follow the fields, and errors have the texts of Redis 8.4, the first that reads
//! them like this. HSETEX has Valkey 9's NX and XX for the key in addition to FNX and FXX for the fields.
//!
//! The commands are described at <https://redis.io/docs/latest/commands/?group=hash>.

use super::options::{ExpiryCondition, OptionCursor, TimeUnit, integer, invalid_expire_time};
use super::spec::{Change, Family, Flags, Outcome, Propagate, read, write};
use crate::config::events::EventClass;
use crate::memory;
use crate::resp::{Args, CommandError, Reply};
use crate::store::{ReadView, WriteView};

/// The commands about the expiry times of fields.
#[rustfmt::skip]
pub static FAMILY: Family = Family { group: "hash", commands: &[
    write("hexpire", "key seconds [NX | XX | GT | LT] FIELDS numfields field [field ...]", hexpire)
        .key("RW update").fast()
        .doc("7.4.0", "O(N) where N is the number of fields",
             "Sets the expiry time of hash fields, in seconds from now."),
    write("hexpireat",
          "key unix-time-seconds [NX | XX | GT | LT] FIELDS numfields field [field ...]", hexpireat)
        .key("RW update").fast()
        .doc("7.4.0", "O(N) where N is the number of fields",
             "Sets the expiry time of hash fields to a Unix time in seconds."),
    read("hexpiretime", "key FIELDS numfields field [field ...]", hexpiretime)
        .key("RO access").fast()
        .doc("7.4.0", "O(N) where N is the number of fields",
             "Returns the expiry times of hash fields as Unix times in seconds."),
    write("hgetdel", "key FIELDS numfields field [field ...]", hgetdel)
        .key("RW access delete").fast()
        .doc("8.0.0", "O(N) where N is the number of fields",
             "Returns the values of hash fields and deletes the fields. A hash without fields is deleted."),
    write("hgetex",
          "key [EX seconds | PX milliseconds | EXAT unix-time-seconds | \
           PXAT unix-time-milliseconds | PERSIST] FIELDS numfields field [field ...]", hgetex)
        .key("RW access update").fast().notes("RW and UPDATE because it changes the TTL")
        .doc("8.0.0", "O(N) where N is the number of fields",
             "Returns the values of hash fields and sets or removes their expiry time."),
    write("hpersist", "key FIELDS numfields field [field ...]", hpersist)
        .key("RW update").fast()
        .doc("7.4.0", "O(N) where N is the number of fields",
             "Removes the expiry times of hash fields."),
    write("hpexpire",
          "key milliseconds [NX | XX | GT | LT] FIELDS numfields field [field ...]", hpexpire)
        .key("RW update").fast()
        .doc("7.4.0", "O(N) where N is the number of fields",
             "Sets the expiry time of hash fields, in milliseconds from now."),
    write("hpexpireat",
          "key unix-time-milliseconds [NX | XX | GT | LT] FIELDS numfields field [field ...]",
          hpexpireat)
        .key("RW update").fast()
        .doc("7.4.0", "O(N) where N is the number of fields",
             "Sets the expiry time of hash fields to a Unix time in milliseconds."),
    read("hpexpiretime", "key FIELDS numfields field [field ...]", hpexpiretime)
        .key("RO access").fast()
        .doc("7.4.0", "O(N) where N is the number of fields",
             "Returns the expiry times of hash fields as Unix times in milliseconds."),
    read("hpttl", "key FIELDS numfields field [field ...]", hpttl)
        .key("RO access").fast().tips(&["nondeterministic_output"])
        .doc("7.4.0", "O(N) where N is the number of fields",
             "Returns the remaining time to live of hash fields, in milliseconds."),
    write("hsetex",
          "key [NX | XX] [FNX | FXX] [EX seconds | PX milliseconds | EXAT unix-time-seconds | \
           PXAT unix-time-milliseconds | KEEPTTL] FIELDS numfields field value [field value ...]",
          hsetex)
        .key("RW update").flags(Flags::DENYOOM.or(Flags::FAST))
        .doc("8.0.0", "O(N) where N is the number of fields",
             "Sets the values of hash fields and their expiry time."),
    read("httl", "key FIELDS numfields field [field ...]", httl)
        .key("RO access").fast().tips(&["nondeterministic_output"])
        .doc("7.4.0", "O(N) where N is the number of fields",
             "Returns the remaining time to live of hash fields, in seconds."),
] };

/// The latest expiry time that a client can give a field. Redis stores it in fewer bits than that of a key.
/// What comes from a file or from a master may be later: Valkey knows no such limit.
const LATEST_MS: i64 = (1 << 46) - 1;

/// The expiry time that an argument gives.
fn expires_at_ms(
    unit: TimeUnit,
    arg: &[u8],
    view: &WriteView,
    command: &str,
) -> Result<i64, CommandError> {
    let number = integer(arg)?;
    if number < 0 {
        return Err(CommandError::new("ERR invalid expire time, must be >= 0"));
    }
    let latest_ms = if view.is_replaying() { i64::MAX } else { LATEST_MS };
    let expires_at_ms = unit.expires_at_ms(number, view.now_ms()).filter(|ms| *ms <= latest_ms);
    expires_at_ms.ok_or_else(|| invalid_expire_time(command))
}

/// The fields, or fields and values, that follow `FIELDS numfields`.
#[derive(Clone, Copy)]
struct Fields<'a> {
    args: Args<'a>,
    first: usize,
    count: usize,
    /// The distance from one field to the next: 2 if a value follows each.
    step: usize,
}

/// Redis's errors about the number of fields, which differ between the commands.
struct CountErrors {
    no_count: CommandError,
    too_few: CommandError,
}

/// The errors of HTTL and similar commands, HPERSIST and HGETDEL, where `FIELDS` follows the key and is last.
const IN_PLACE: CountErrors = CountErrors {
    no_count: CommandError::new("ERR Number of fields must be a positive integer"),
    too_few: CommandError::new("ERR The `numfields` parameter must match the number of arguments"),
};
// In the other commands options may precede or follow the fields. Their errors are those of Redis 8.4.
const TOO_FEW: CommandError = CommandError::new("ERR wrong number of arguments");
/// The errors of HEXPIRE, HPEXPIRE, HEXPIREAT and HPEXPIREAT.
const EXPIRE: CountErrors = CountErrors {
    no_count: CommandError::new("ERR Parameter `numFields` should be greater than 0"),
    too_few: TOO_FEW,
};
/// The errors of HGETEX and HSETEX.
const GET_OR_SET: CountErrors =
    CountErrors { no_count: CommandError::new("ERR invalid number of fields"), too_few: TOO_FEW };
const NO_FIELDS: CommandError = CommandError::new("ERR missing FIELDS argument");

fn unknown_argument(word: &[u8]) -> CommandError {
    [b"ERR unknown argument: ", word].concat().into()
}

impl<'a> Fields<'a> {
    /// Reads what follows `FIELDS`.
    fn read(
        words: &mut OptionCursor<'a>,
        step: usize,
        CountErrors { no_count, too_few }: CountErrors,
    ) -> Result<Fields<'a>, CommandError> {
        let count = words.next().and_then(|count| integer(count).ok());
        let count = count.and_then(|count| usize::try_from(count).ok()).filter(|&count| count > 0);
        let count = count.ok_or(no_count)?;
        let taken = count.checked_mul(step).and_then(|count| words.take_words(count));
        let (args, first) = taken.ok_or(too_few)?;
        Ok(Fields { args, first, count, step })
    }

    /// Takes the next words if they are `FIELDS` and what follows it.
    fn take(
        found: &mut Option<Fields<'a>>,
        words: &mut OptionCursor<'a>,
        step: usize,
        errors: CountErrors,
    ) -> Result<bool, CommandError> {
        if !words.take("FIELDS") {
            return Ok(false);
        }
        if found.is_some() {
            return Err(CommandError::new("ERR FIELDS keyword specified multiple times"));
        }
        if words.len() < 2 {
            let text = "ERR FIELDS requires at least numfields and one field argument";
            return Err(CommandError::new(text));
        }
        *found = Some(Fields::read(words, step, errors)?);
        Ok(true)
    }

    /// Reads the fields of a command that takes nothing else: `key FIELDS numfields field ...`.
    fn parse_call(args: Args<'a>) -> Result<Fields<'a>, CommandError> {
        let mut words = OptionCursor::new(args, 2);
        if !words.take("FIELDS") {
            let text = "ERR Mandatory argument FIELDS is missing or not at the right position";
            return Err(CommandError::new(text));
        }
        let fields = Fields::read(&mut words, 1, IN_PLACE)?;
        words.is_done().then_some(fields).ok_or(IN_PLACE.too_few)
    }

    fn names(self) -> impl Iterator<Item = &'a [u8]> + Clone {
        self.args.from(self.first).step_by(self.step).take(self.count)
    }

    fn pairs(self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        self.names().zip(self.args.from(self.first + 1).step_by(self.step))
    }
}

/// The record of a change to these fields: the words, then `FIELDS` and the names. Without names there is no
/// record.
fn record(words: &[&[u8]], names: &[&[u8]]) -> Propagate {
    if names.is_empty() {
        return Propagate::Nothing;
    }
    let count = names.len().to_string();
    Propagate::rewritten(&[words, &[b"FIELDS", count.as_bytes()], names].concat())
}

/// The record of the removal of these fields.
fn removal_record(key: &[u8], names: &[&[u8]]) -> Propagate {
    if names.is_empty() {
        return Propagate::Nothing;
    }
    Propagate::rewritten(&[&[b"HDEL", key], names].concat())
}

/// Publishes the event if it happened to any field, and the removal of the key if its last field is gone.
fn notify(view: &mut WriteView, event: &'static str, key: &[u8], names: &[&[u8]]) {
    if !names.is_empty() {
        view.notify_removal(event, key);
    }
}

fn hexpire(view: &mut WriteView, args: Args, reply: &mut Reply) -> Change {
    set_expiry_times(view, args, reply, TimeUnit::EX, "hexpire")
}

fn hpexpire(view: &mut WriteView, args: Args, reply: &mut Reply) -> Change {
    set_expiry_times(view, args, reply, TimeUnit::PX, "hpexpire")
}

fn hexpireat(view: &mut WriteView, args: Args, reply: &mut Reply) -> Change {
    set_expiry_times(view, args, reply, TimeUnit::EXAT, "hexpireat")
}

fn hpexpireat(view: &mut WriteView, args: Args, reply: &mut Reply) -> Change {
    set_expiry_times(view, args, reply, TimeUnit::PXAT, "hpexpireat")
}

fn set_expiry_times(
    view: &mut WriteView,
    args: Args,
    reply: &mut Reply,
    unit: TimeUnit,
    command: &str,
) -> Change {
    let key = &args[1];
    view.hash(key)?; // as in Redis, a wrong type is reported before wrong arguments
    let expires_at_ms = expires_at_ms(unit, &args[2], view, command)?;
    let (mut condition, mut has_two, mut fields) = (None, false, None);
    let mut words = OptionCursor::new(args, 3);
    while let Some(option) = words.peek() {
        if let Some(new) = ExpiryCondition::take(&mut words) {
            has_two |= condition.replace(new).is_some_and(|old| old != new);
        } else if !Fields::take(&mut fields, &mut words, 1, EXPIRE)? {
            return Err(unknown_argument(option));
        }
    }
    let fields = fields.ok_or(NO_FIELDS)?;
    if has_two {
        return Err(CommandError::new("ERR Multiple condition flags specified"));
    }
    let (passed, now_ms) = (view.has_passed(expires_at_ms), view.fields_live_from_ms());
    let mut changed = Vec::new();
    reply.array(fields.count);
    let found = view.edit_hash(key, |hash| {
        for name in fields.names() {
            // Redis 8 gives an expired field that is not removed yet a later expiry time, so that its value
            // shows again. Here it is absent, as in Valkey, unless the call removes it.
            let field = hash.get(name).filter(|field| passed || !field.is_expired(now_ms));
            let old = field.map(|field| field.expires_at_ms());
            reply.integer(match old {
                None => -2,
                Some(old) if !condition.is_none_or(|given| given.holds(old, expires_at_ms)) => 0,
                Some(_) if passed => {
                    changed.push(name);
                    hash.remove(name);
                    2
                }
                Some(_) => {
                    changed.push(name);
                    hash.set_expires_at_ms(name, Some(expires_at_ms));
                    1
                }
            });
        }
    })?;
    if found.is_none() {
        (0..fields.count).for_each(|_| reply.integer(-2));
    }
    if passed {
        notify(view, "hdel", key, &changed);
        return Ok(removal_record(key, &changed));
    }
    notify(view, "hexpire", key, &changed);
    Ok(record(&[b"HPEXPIREAT", key, expires_at_ms.to_string().as_bytes()], &changed))
}

fn hpersist(view: &mut WriteView, args: Args, reply: &mut Reply) -> Change {
    let key = &args[1];
    view.hash(key)?;
    let fields = Fields::parse_call(args)?;
    let now_ms = view.fields_live_from_ms();
    let mut changed = Vec::new();
    reply.array(fields.count);
    let found = view.edit_hash(key, |hash| {
        for name in fields.names() {
            let field = hash.get(name).filter(|field| !field.is_expired(now_ms));
            reply.integer(match field.map(|field| field.expires_at_ms()) {
                None => -2,
                Some(None) => -1,
                Some(Some(_)) => {
                    changed.push(name);
                    hash.set_expires_at_ms(name, None);
                    1
                }
            });
        }
    })?;
    if found.is_none() {
        (0..fields.count).for_each(|_| reply.integer(-2));
    }
    notify(view, "hpersist", key, &changed);
    Ok(record(&[b"HPERSIST", key], &changed))
}

fn httl(view: &ReadView, args: Args, reply: &mut Reply) -> Outcome {
    answer(view, args, reply, |expires_at_ms| ceil_to_seconds(view.left_ms(expires_at_ms)))
}

fn hpttl(view: &ReadView, args: Args, reply: &mut Reply) -> Outcome {
    answer(view, args, reply, |expires_at_ms| view.left_ms(expires_at_ms))
}

fn hexpiretime(view: &ReadView, args: Args, reply: &mut Reply) -> Outcome {
    answer(view, args, reply, ceil_to_seconds)
}

fn hpexpiretime(view: &ReadView, args: Args, reply: &mut Reply) -> Outcome {
    answer(view, args, reply, |expires_at_ms| expires_at_ms)
}

/// Replies with `shown` of each field's expiry time, -1 for a field without one, and -2 for no field.
fn answer(view: &ReadView, args: Args, reply: &mut Reply, shown: impl Fn(i64) -> i64) -> Outcome {
    let hash = view.hash(&args[1])?;
    let fields = Fields::parse_call(args)?;
    reply.array(fields.count);
    for name in fields.names() {
        let field = hash.and_then(|hash| hash.field(name));
        reply.integer(match field.map(|field| field.expires_at_ms()) {
            None => -2,
            Some(None) => -1,
            Some(Some(expires_at_ms)) => shown(expires_at_ms),
        });
    }
    Ok(())
}

/// Rounds up. (The expiry times of keys are rounded to the nearest second.)
fn ceil_to_seconds(ms: i64) -> i64 {
    ms / 1000 + i64::from(ms % 1000 > 0)
}

fn hgetdel(view: &mut WriteView, args: Args, reply: &mut Reply) -> Change {
    let key = &args[1];
    view.hash(key)?;
    let fields = Fields::parse_call(args)?;
    view.remove_expired_fields(key, fields.names())?;
    reserve_reply(view, key, fields, reply)?;
    let mut removed = Vec::new();
    reply.array(fields.count);
    let found = view.edit_hash(key, |hash| {
        for name in fields.names() {
            reply.bulk_or_null(hash.get(name).map(|field| field.value));
            if hash.remove(name) {
                removed.push(name);
            }
        }
    })?;
    if found.is_none() {
        (0..fields.count).for_each(|_| reply.bulk_or_null(None));
    }
    notify(view, "hdel", key, &removed);
    Ok(removal_record(key, &removed))
}

/// Makes sure that the values of fields that are about to change can be replied.
///
/// # Errors
/// The system refuses the memory, or the key holds a string.
fn reserve_reply(
    view: &WriteView,
    key: &[u8],
    fields: Fields,
    reply: &mut Reply,
) -> Result<(), CommandError> {
    let Some(hash) = view.hash(key)?.filter(|hash| hash.copy_bytes() >= memory::LARGE_BYTES) else {
        return Ok(());
    };
    let values = fields.names().filter_map(|name| hash.get(name));
    reply.reserve(values.map(|value| value.len() + 25).sum()) // 25 for its length and line ends
}

/// The options of HGETEX and HSETEX.
struct FieldOptions<'a> {
    expiry: FieldExpiry,
    fields: Fields<'a>,
}

/// What HGETEX and HSETEX do with the expiry times of the fields.
#[derive(Clone, Copy, PartialEq)]
enum FieldExpiry {
    /// No option was given.
    NotGiven,
    /// PERSIST of HGETEX, KEEPTTL of HSETEX.
    Word,
    AtMs(i64),
}

impl<'a> FieldOptions<'a> {
    /// Reads the options of a command that takes `word` in addition to EX, PX, EXAT and PXAT. After `FIELDS
    /// numfields`, every `step`-th word is a field. `take_own` takes an option that only this command has.
    fn parse(
        args: Args<'a>,
        view: &WriteView,
        (command, word, step): (&str, &str, usize),
        mut take_own: impl FnMut(&mut OptionCursor<'a>) -> Result<bool, CommandError>,
    ) -> Result<FieldOptions<'a>, CommandError> {
        let (mut expiry, mut fields) = (FieldExpiry::NotGiven, None);
        let mut words = OptionCursor::new(args, 2);
        while let Some(option) = words.peek() {
            let unit = TimeUnit::take(&mut words);
            if unit.is_some() || words.take(word) {
                if expiry != FieldExpiry::NotGiven {
                    let text = "arguments can be specified";
                    let text = format!("ERR Only one of EX, PX, EXAT, PXAT or {word} {text}");
                    return Err(text.into());
                }
                expiry = FieldExpiry::Word;
                if let Some(unit) = unit {
                    let number = words.next();
                    let number = number.ok_or(CommandError::new("ERR missing expire time"))?;
                    expiry = FieldExpiry::AtMs(expires_at_ms(unit, number, view, command)?);
                }
            } else if !take_own(&mut words)?
                && !Fields::take(&mut fields, &mut words, step, GET_OR_SET)?
            {
                return Err(unknown_argument(option));
            }
        }
        let fields = fields.ok_or(NO_FIELDS)?;
        Ok(FieldOptions { expiry, fields })
    }
}

fn hgetex(view: &mut WriteView, args: Args, reply: &mut Reply) -> Change {
    let key = &args[1];
    let grammar = ("hgetex", "PERSIST", 1);
    let FieldOptions { expiry, fields } = FieldOptions::parse(args, view, grammar, |_| Ok(false))?;
    view.remove_expired_fields(key, fields.names())?;
    let new = match expiry {
        FieldExpiry::AtMs(ms) => Some(ms),
        FieldExpiry::Word | FieldExpiry::NotGiven => None,
    };
    let passed = new.is_some_and(|expires_at_ms| view.has_passed(expires_at_ms));
    reserve_reply(view, key, fields, reply)?;
    let mut changed = Vec::new();
    reply.array(fields.count);
    let found = view.edit_hash(key, |hash| {
        for name in fields.names() {
            let field = hash.get(name);
            reply.bulk_or_null(field.map(|field| field.value));
            let old = field.map(|field| field.expires_at_ms());
            // A field that never expired cannot persist; one that gets the expiry it has counts as changed.
            if expiry == FieldExpiry::NotGiven
                || old.is_none_or(|old| old.is_none() && new.is_none())
            {
                continue;
            }
            changed.push(name);
            if passed {
                hash.remove(name);
            } else {
                hash.set_expires_at_ms(name, new);
            }
        }
    })?;
    if found.is_none() {
        (0..fields.count).for_each(|_| reply.bulk_or_null(None));
    }
    if passed {
        notify(view, "hdel", key, &changed);
        return Ok(removal_record(key, &changed));
    }
    let Some(expires_at_ms) = new else {
        notify(view, "hpersist", key, &changed);
        return Ok(record(&[b"HPERSIST", key], &changed));
    };
    notify(view, "hexpire", key, &changed);
    Ok(record(&[b"HPEXPIREAT", key, expires_at_ms.to_string().as_bytes()], &changed))
}

/// What HSETEX requires of the key or of each field.
#[derive(Clone, Copy, PartialEq)]
enum Existence {
    Absent,
    Present,
}

impl Existence {
    /// Takes the next word if it is one of these two.
    fn take(words: &mut OptionCursor, absent: &str, present: &str) -> Option<Existence> {
        if words.take(absent) {
            return Some(Existence::Absent);
        }
        words.take(present).then_some(Existence::Present)
    }

    fn holds(self, exists: bool) -> bool {
        exists == (self == Existence::Present)
    }
}

fn hsetex(view: &mut WriteView, args: Args, reply: &mut Reply) -> Change {
    let key = &args[1];
    let (mut of_key, mut of_fields) = (None, None);
    let take_own = |words: &mut OptionCursor| {
        if let Some(new) = Existence::take(words, "FNX", "FXX") {
            if of_fields.replace(new).is_some() {
                let text = "ERR Only one of FXX or FNX arguments can be specified";
                return Err(CommandError::new(text));
            }
        } else if let Some(new) = Existence::take(words, "NX", "XX") {
            if of_key.replace(new).is_some() {
                return Err(CommandError::SYNTAX);
            }
        } else {
            return Ok(false);
        }
        Ok(true)
    };
    let grammar = ("hsetex", "KEEPTTL", 2);
    let FieldOptions { expiry, fields } = FieldOptions::parse(args, view, grammar, take_own)?;
    if of_fields.is_some() {
        view.remove_expired_fields(key, fields.names())?;
    }
    let hash = view.hash(key)?;
    let exists = |name| hash.is_some_and(|hash| hash.contains(name));
    let may = of_key.is_none_or(|wanted| wanted.holds(hash.is_some()))
        && of_fields.is_none_or(|wanted| fields.names().all(|name| wanted.holds(exists(name))));
    reply.integer(i64::from(may));
    if !may {
        return Ok(Propagate::Nothing);
    }
    let new = match expiry {
        FieldExpiry::AtMs(ms) => Some(ms),
        FieldExpiry::Word | FieldExpiry::NotGiven => None,
    };
    if new.is_some_and(|expires_at_ms| view.has_passed(expires_at_ms)) {
        // As in Redis, the events report that the fields are set first, and that the key is new.
        let mut removed = Vec::new();
        view.edit_or_make_hash(key, |hash| {
            removed.extend(fields.names().filter(|name| hash.remove(name)));
        })?;
        view.notify(EventClass::HASH, "hset", key);
        view.notify_removal("hdel", key);
        return Ok(removal_record(key, &removed));
    }
    let limits = view.packed_limits();
    view.edit_or_make_hash(key, |hash| {
        for (name, value) in fields.pairs() {
            if expiry == FieldExpiry::Word {
                hash.update(name, value, limits);
            } else {
                hash.set_until(name, value, new, limits);
            }
        }
    })?;
    view.notify(EventClass::HASH, "hset", key);
    let Some(expires_at_ms) = new else {
        return Ok(Propagate::Verbatim);
    };
    view.notify(EventClass::HASH, "hexpire", key);
    let words: Vec<&[u8]> = args.from(fields.first).take(fields.count * 2).collect();
    let (at_ms, count) = (expires_at_ms.to_string(), fields.count.to_string());
    let start: [&[u8]; 6] =
        [b"HSETEX", key, b"PXAT", at_ms.as_bytes(), b"FIELDS", count.as_bytes()];
    Ok(Propagate::rewritten(&[&start, &words[..]].concat()))
}
