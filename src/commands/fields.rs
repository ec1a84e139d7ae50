//! Fields that expire: the rows of the table, then their handlers.
//!
//! The commands are described at <https://redis.io/docs/latest/commands/?group=hash>. Whatever unit and
//! condition a client used, the log gets the deadline in milliseconds: `HPEXPIREAT` for fields that were
//! there; `HSETEX ... PXAT` for fields that are set with it, one record, so that no crash can part a value
//! from its deadline; or `HDEL`, if the deadline had passed already.
//!
//! Where releases differ in what they accept, everything that one of them accepts is accepted: options
//! stand before or behind the fields (Redis 8.4; before it, only HSETEX let them change places), and
//! HSETEX knows the NX and XX of Valkey 9 for the key beside FNX and FXX for the fields.

use super::options::{TimeUnit, integer, invalid_expire_time, is};
use super::spec::{Change, Family, Flags, Outcome, Propagate, read, write};
use crate::config::events::Class;
use crate::resp::{Args, CommandError, Reply};
use crate::store::{ReadView, WriteView};

/// Deadlines of fields.
#[rustfmt::skip]
pub static FAMILY: Family = Family { group: "hash", commands: &[
    write("hexpire", "key seconds [NX | XX | GT | LT] FIELDS numfields field [field ...]", hexpire)
        .key("RW update").fast()
        .doc("7.4.0", "O(N) with N the number of fields",
             "Lets fields of a hash expire in so many seconds."),
    write("hexpireat",
          "key unix-time-seconds [NX | XX | GT | LT] FIELDS numfields field [field ...]", hexpireat)
        .key("RW update").fast()
        .doc("7.4.0", "O(N) with N the number of fields",
             "Lets fields of a hash expire at a Unix time in seconds."),
    read("hexpiretime", "key FIELDS numfields field [field ...]", hexpiretime)
        .key("RO access").fast()
        .doc("7.4.0", "O(N) with N the number of fields",
             "Returns the Unix times in seconds at which fields of a hash expire."),
    write("hgetdel", "key FIELDS numfields field [field ...]", hgetdel)
        .key("RW access delete").fast()
        .doc("8.0.0", "O(N) with N the number of fields",
             "Returns the values of fields of a hash and removes them, and the hash with its last one."),
    write("hgetex",
          "key [EX seconds | PX milliseconds | EXAT unix-time-seconds | \
           PXAT unix-time-milliseconds | PERSIST] FIELDS numfields field [field ...]", hgetex)
        .key("RW access update").fast()
        .doc("8.0.0", "O(N) with N the number of fields",
             "Returns the values of fields of a hash after which they expire then, or never."),
    write("hpersist", "key FIELDS numfields field [field ...]", hpersist)
        .key("RW update").fast()
        .doc("7.4.0", "O(N) with N the number of fields",
             "Lets fields of a hash no longer expire."),
    write("hpexpire",
          "key milliseconds [NX | XX | GT | LT] FIELDS numfields field [field ...]", hpexpire)
        .key("RW update").fast()
        .doc("7.4.0", "O(N) with N the number of fields",
             "Lets fields of a hash expire in so many milliseconds."),
    write("hpexpireat",
          "key unix-time-milliseconds [NX | XX | GT | LT] FIELDS numfields field [field ...]",
          hpexpireat)
        .key("RW update").fast()
        .doc("7.4.0", "O(N) with N the number of fields",
             "Lets fields of a hash expire at a Unix time in milliseconds."),
    read("hpexpiretime", "key FIELDS numfields field [field ...]", hpexpiretime)
        .key("RO access").fast()
        .doc("7.4.0", "O(N) with N the number of fields",
             "Returns the Unix times in milliseconds at which fields of a hash expire."),
    read("hpttl", "key FIELDS numfields field [field ...]", hpttl)
        .key("RO access").fast().tips(&["nondeterministic_output"])
        .doc("7.4.0", "O(N) with N the number of fields",
             "Returns in how many milliseconds fields of a hash expire."),
    write("hsetex",
          "key [NX | XX] [FNX | FXX] [EX seconds | PX milliseconds | EXAT unix-time-seconds | \
           PXAT unix-time-milliseconds | KEEPTTL] FIELDS numfields field value [field value ...]",
          hsetex)
        .key("RW update").flags(Flags::DENYOOM.or(Flags::FAST))
        .doc("8.0.0", "O(N) with N the number of fields",
             "Sets the values of fields of a hash and when they expire."),
    read("httl", "key FIELDS numfields field [field ...]", httl)
        .key("RO access").fast().tips(&["nondeterministic_output"])
        .doc("7.4.0", "O(N) with N the number of fields",
             "Returns in how many seconds fields of a hash expire."),
] };

/// The last moment at which a field can expire: Redis keeps deadlines of fields in fewer bits than
/// those of keys.
const LATEST_MS: i64 = (1 << 46) - 1;

/// The deadline that an argument gives.
fn expires_at_ms(
    unit: TimeUnit,
    arg: &[u8],
    now_ms: i64,
    command: &str,
) -> Result<i64, CommandError> {
    let number = integer(arg)?;
    if number < 0 {
        return Err(CommandError::new("ERR invalid expire time, must be >= 0"));
    }
    let expires_at_ms = unit.expires_at_ms(number, now_ms).filter(|ms| *ms <= LATEST_MS);
    expires_at_ms.ok_or_else(|| invalid_expire_time(command))
}

/// The fields, or the fields and values, behind `FIELDS numfields`.
#[derive(Clone, Copy)]
struct Fields<'a> {
    args: Args<'a>,
    first: usize,
    count: usize,
    /// From one field to the next: 2 if each is followed by its value.
    step: usize,
}

/// How the commands that have `FIELDS` say what is wrong with it: not with one voice.
struct Complaints {
    misplaced: &'static str,
    no_count: &'static str,
    mismatch: &'static str,
}

const MISPLACED: &str = "ERR Mandatory argument FIELDS is missing or not at the right position";
const MISMATCH: &str = "ERR The `numfields` parameter must match the number of arguments";

/// HEXPIRE and its kin.
const EXPIRE: Complaints = Complaints {
    misplaced: MISPLACED,
    no_count: "ERR Parameter `numFields` should be greater than 0",
    mismatch: MISMATCH,
};
/// HTTL and its kin, HPERSIST, HGETDEL.
const PLAIN: Complaints = Complaints {
    misplaced: MISPLACED,
    no_count: "ERR Number of fields must be a positive integer",
    mismatch: MISMATCH,
};
/// HGETEX and HSETEX.
const OPTIONAL: Complaints = Complaints {
    misplaced: "ERR missing FIELDS argument",
    no_count: "ERR invalid number of fields",
    mismatch: "ERR wrong number of arguments",
};

impl<'a> Fields<'a> {
    /// Reads them where `FIELDS` stands.
    fn parse(
        args: Args<'a>,
        at: usize,
        step: usize,
        complaints: &Complaints,
    ) -> Result<Fields<'a>, CommandError> {
        let count = args.get(at + 1).and_then(|count| integer(count).ok());
        let count = count.and_then(|count| usize::try_from(count).ok()).filter(|&count| count > 0);
        let count = count.ok_or(CommandError::new(complaints.no_count))?;
        let fields = Fields { args, first: at + 2, count, step };
        let end = count.checked_mul(step).and_then(|words| words.checked_add(fields.first));
        let fits = end.is_some_and(|end| end <= args.len());
        fits.then_some(fields).ok_or(CommandError::new(complaints.mismatch))
    }

    /// Those of a command in which nothing else stands: `key FIELDS numfields field ...`.
    fn alone(args: Args<'a>) -> Result<Fields<'a>, CommandError> {
        if !is(&args[2], "FIELDS") {
            return Err(CommandError::new(MISPLACED));
        }
        let fields = Fields::parse(args, 2, 1, &PLAIN)?;
        let all = fields.end() == args.len();
        all.then_some(fields).ok_or(CommandError::new(MISMATCH))
    }

    /// The number of the argument behind them.
    fn end(self) -> usize {
        self.first + self.count * self.step
    }

    fn names(self) -> impl Iterator<Item = &'a [u8]> + Clone {
        self.args.from(self.first).step_by(self.step).take(self.count)
    }

    fn pairs(self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        self.names().zip(self.args.from(self.first + 1).step_by(self.step))
    }
}

/// What the log gets about those fields: a command, its arguments, and `FIELDS` with their names. Nothing,
/// if there are none.
fn logged(words: &[&[u8]], names: &[&[u8]]) -> Propagate {
    if names.is_empty() {
        return Propagate::Nothing;
    }
    let count = names.len().to_string();
    Propagate::rewritten(&[words, &[b"FIELDS", count.as_bytes()], names].concat())
}

/// What the log gets about fields that were removed.
fn logged_removal(key: &[u8], names: &[&[u8]]) -> Propagate {
    if names.is_empty() {
        return Propagate::Nothing;
    }
    Propagate::rewritten(&[&[b"HDEL", key], names].concat())
}

/// The event of fields to which that happened, if it did to any, and of the key that went with them.
fn notify(view: &mut WriteView, event: &'static str, key: &[u8], names: &[&[u8]]) {
    if !names.is_empty() {
        view.notify_removal(event, key);
    }
}

fn hexpire(view: &mut WriteView, args: Args, reply: &mut Reply) -> Change {
    set_deadlines(view, args, reply, TimeUnit::EX, "hexpire")
}

fn hpexpire(view: &mut WriteView, args: Args, reply: &mut Reply) -> Change {
    set_deadlines(view, args, reply, TimeUnit::PX, "hpexpire")
}

fn hexpireat(view: &mut WriteView, args: Args, reply: &mut Reply) -> Change {
    set_deadlines(view, args, reply, TimeUnit::EXAT, "hexpireat")
}

fn hpexpireat(view: &mut WriteView, args: Args, reply: &mut Reply) -> Change {
    set_deadlines(view, args, reply, TimeUnit::PXAT, "hpexpireat")
}

/// What an option of HEXPIRE and its kin wants of a field's old deadline.
#[derive(Clone, Copy)]
enum Condition {
    Absent,
    Present,
    /// None at all is later than any.
    Earlier,
    Later,
}

impl Condition {
    fn from_option(option: &[u8]) -> Option<Condition> {
        let all = [
            ("NX", Condition::Absent),
            ("XX", Condition::Present),
            ("GT", Condition::Earlier),
            ("LT", Condition::Later),
        ];
        all.into_iter().find(|(name, _)| is(option, name)).map(|(_, condition)| condition)
    }

    fn holds(self, old_ms: Option<i64>, new_ms: i64) -> bool {
        match self {
            Condition::Absent => old_ms.is_none(),
            Condition::Present => old_ms.is_some(),
            Condition::Earlier => old_ms.is_some_and(|old_ms| old_ms < new_ms),
            Condition::Later => old_ms.is_none_or(|old_ms| old_ms > new_ms),
        }
    }
}

fn set_deadlines(
    view: &mut WriteView,
    args: Args,
    reply: &mut Reply,
    unit: TimeUnit,
    command: &str,
) -> Change {
    let key = &args[1];
    view.hash(key)?; // as in Redis, nobody looks at the arguments if the type is wrong
    let expires_at_ms = expires_at_ms(unit, &args[2], view.now_ms(), command)?;
    let (mut condition, mut fields) = (None, None);
    let mut at = 3;
    while let Some(option) = args.get(at) {
        if let Some(wanted) = Condition::from_option(option).filter(|_| condition.is_none()) {
            condition = Some(wanted);
            at += 1;
        } else if is(option, "FIELDS") && fields.is_none() {
            at = fields.insert(Fields::parse(args, at, 1, &EXPIRE)?).end();
        } else {
            let complaint = if fields.is_some() { EXPIRE.mismatch } else { EXPIRE.misplaced };
            return Err(CommandError::new(complaint));
        }
    }
    let fields = fields.ok_or(CommandError::new(EXPIRE.misplaced))?;
    let passed = view.has_passed(expires_at_ms);
    let mut changed = Vec::new();
    reply.array(fields.count);
    let found = view.edit_hash(key, |hash| {
        for name in fields.names() {
            let old = hash.get(name).map(|field| field.expires_at_ms());
            reply.integer(match old {
                None => -2,
                Some(old) if !condition.is_none_or(|wanted| wanted.holds(old, expires_at_ms)) => 0,
                Some(_) => {
                    changed.push(name);
                    match passed {
                        true => hash.remove(name),
                        false => hash.set_expires_at_ms(name, Some(expires_at_ms)),
                    };
                    1 + i64::from(passed)
                }
            });
        }
    })?;
    if found.is_none() {
        (0..fields.count).for_each(|_| reply.integer(-2));
    }
    notify(view, if passed { "hdel" } else { "hexpire" }, key, &changed);
    Ok(match passed {
        true => logged_removal(key, &changed),
        false => logged(&[b"HPEXPIREAT", key, expires_at_ms.to_string().as_bytes()], &changed),
    })
}

fn hpersist(view: &mut WriteView, args: Args, reply: &mut Reply) -> Change {
    let key = &args[1];
    view.hash(key)?;
    let fields = Fields::alone(args)?;
    let mut changed = Vec::new();
    reply.array(fields.count);
    let found = view.edit_hash(key, |hash| {
        for name in fields.names() {
            reply.integer(match hash.get(name).map(|field| field.expires_at_ms()) {
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
    Ok(logged(&[b"HPERSIST", key], &changed))
}

fn httl(view: &ReadView, args: Args, reply: &mut Reply) -> Outcome {
    answer(view, args, reply, |expires_at_ms| to_seconds(expires_at_ms - view.now_ms()))
}

fn hpttl(view: &ReadView, args: Args, reply: &mut Reply) -> Outcome {
    answer(view, args, reply, |expires_at_ms| expires_at_ms - view.now_ms())
}

fn hexpiretime(view: &ReadView, args: Args, reply: &mut Reply) -> Outcome {
    answer(view, args, reply, to_seconds)
}

fn hpexpiretime(view: &ReadView, args: Args, reply: &mut Reply) -> Outcome {
    answer(view, args, reply, |expires_at_ms| expires_at_ms)
}

/// Replies what is to be said of each field's deadline, or that there is none, or no field.
fn answer(view: &ReadView, args: Args, reply: &mut Reply, said: impl Fn(i64) -> i64) -> Outcome {
    let hash = view.hash(&args[1])?;
    let fields = Fields::alone(args)?;
    reply.array(fields.count);
    for name in fields.names() {
        let field = hash.and_then(|hash| hash.field(name));
        reply.integer(match field.map(|field| field.expires_at_ms()) {
            None => -2,
            Some(None) => -1,
            Some(Some(expires_at_ms)) => said(expires_at_ms),
        });
    }
    Ok(())
}

/// Other than with keys, rounded up.
fn to_seconds(ms: i64) -> i64 {
    (ms + 999) / 1000
}

fn hgetdel(view: &mut WriteView, args: Args, reply: &mut Reply) -> Change {
    let key = &args[1];
    view.hash(key)?;
    let fields = Fields::alone(args)?;
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
    Ok(logged_removal(key, &removed))
}

/// The options of HGETEX and HSETEX.
struct Options<'a> {
    /// When the fields are to expire, if EX or one of its kin says so.
    expires_at_ms: Option<i64>,
    /// PERSIST of the one, KEEPTTL of the other.
    word: bool,
    /// NX is false: the key must not be there. XX is true: it must.
    key_exists: Option<bool>,
    /// FNX is false: none of the fields may be there. FXX is true: all of them must.
    fields_exist: Option<bool>,
    fields: Fields<'a>,
}

impl<'a> Options<'a> {
    fn of_hgetex(args: Args<'a>, now_ms: i64) -> Result<Options<'a>, CommandError> {
        Options::parse(args, now_ms, "hgetex", "PERSIST", 1)
    }

    fn of_hsetex(args: Args<'a>, now_ms: i64) -> Result<Options<'a>, CommandError> {
        Options::parse(args, now_ms, "hsetex", "KEEPTTL", 2)
    }

    fn parse(
        args: Args<'a>,
        now_ms: i64,
        command: &str,
        word: &str,
        step: usize,
    ) -> Result<Options<'a>, CommandError> {
        let (mut deadline, mut keeps_word) = (None, false);
        let (mut key_exists, mut fields_exist, mut fields) = (None, None, None);
        let sets = command == "hsetex";
        let mut at = 2;
        while let Some(option) = args.get(at) {
            at += 1;
            let unit = TimeUnit::from_option(option);
            if unit.is_some() || is(option, word) {
                if deadline.is_some() || keeps_word {
                    let text = "arguments can be specified";
                    let text = format!("ERR Only one of EX, PX, EXAT, PXAT or {word} {text}");
                    return Err(text.into());
                }
                match unit {
                    None => keeps_word = true,
                    Some(unit) => {
                        let number = args.get(at);
                        let number = number.ok_or(CommandError::new("ERR missing expire time"))?;
                        deadline = Some(expires_at_ms(unit, number, now_ms, command)?);
                        at += 1;
                    }
                }
            } else if sets && (is(option, "FNX") || is(option, "FXX")) {
                if fields_exist.replace(is(option, "FXX")).is_some() {
                    let text = "ERR Only one of FXX or FNX arguments can be specified";
                    return Err(CommandError::new(text));
                }
            } else if sets && (is(option, "NX") || is(option, "XX")) {
                if key_exists.replace(is(option, "XX")).is_some() {
                    return Err(CommandError::SYNTAX);
                }
            } else if is(option, "FIELDS") && fields.is_none() {
                at = fields.insert(Fields::parse(args, at - 1, step, &OPTIONAL)?).end();
            } else if fields.is_some() {
                return Err(CommandError::new(OPTIONAL.mismatch));
            } else {
                return Err([b"ERR unknown argument: ", option].concat().into());
            }
        }
        let fields = fields.ok_or(CommandError::new(OPTIONAL.misplaced))?;
        Ok(Options { expires_at_ms: deadline, word: keeps_word, key_exists, fields_exist, fields })
    }
}

fn hgetex(view: &mut WriteView, args: Args, reply: &mut Reply) -> Change {
    let key = &args[1];
    let options = Options::of_hgetex(args, view.now_ms())?;
    let fields = options.fields;
    view.hash(key)?;
    let (expires_at_ms, changes) =
        (options.expires_at_ms, options.word || options.expires_at_ms.is_some());
    let passed = expires_at_ms.is_some_and(|expires_at_ms| view.has_passed(expires_at_ms));
    let mut changed = Vec::new();
    reply.array(fields.count);
    let found = view.edit_hash(key, |hash| {
        for name in fields.names() {
            let field = hash.get(name);
            reply.bulk_or_null(field.map(|field| field.value));
            let old = field.map(|field| field.expires_at_ms());
            if changes && old.is_some_and(|old| old != expires_at_ms) {
                changed.push(name);
                match passed {
                    true => hash.remove(name),
                    false => hash.set_expires_at_ms(name, expires_at_ms),
                };
            }
        }
    })?;
    if found.is_none() {
        (0..fields.count).for_each(|_| reply.bulk_or_null(None));
    }
    let event = match expires_at_ms {
        _ if passed => "hdel",
        None => "hpersist",
        Some(_) => "hexpire",
    };
    notify(view, event, key, &changed);
    Ok(match expires_at_ms {
        _ if passed => logged_removal(key, &changed),
        None => logged(&[b"HPERSIST", key], &changed),
        Some(deadline) => logged(&[b"HPEXPIREAT", key, deadline.to_string().as_bytes()], &changed),
    })
}

fn hsetex(view: &mut WriteView, args: Args, reply: &mut Reply) -> Change {
    let key = &args[1];
    let options = Options::of_hsetex(args, view.now_ms())?;
    let fields = options.fields;
    let hash = view.hash(key)?;
    let is_there = |name| hash.is_some_and(|hash| hash.contains(name));
    let may = options.key_exists.is_none_or(|wanted| wanted == hash.is_some())
        && options
            .fields_exist
            .is_none_or(|wanted| fields.names().all(|name| wanted == is_there(name)));
    reply.integer(i64::from(may));
    if !may {
        return Ok(Propagate::Nothing);
    }
    if options.expires_at_ms.is_some_and(|expires_at_ms| view.has_passed(expires_at_ms)) {
        let mut removed = Vec::new();
        view.edit_hash(key, |hash| {
            removed.extend(fields.names().filter(|name| hash.remove(name)));
        })?;
        notify(view, "hdel", key, &removed);
        return Ok(logged_removal(key, &removed));
    }
    let limits = view.packed_limits();
    view.edit_or_make_hash(key, |hash| {
        for (name, value) in fields.pairs() {
            match options.word {
                true => hash.update(name, value, limits),
                false => hash.set_until(name, value, options.expires_at_ms, limits),
            };
        }
    })?;
    view.notify(Class::HASH, "hset", key);
    let Some(expires_at_ms) = options.expires_at_ms else {
        return Ok(Propagate::Verbatim);
    };
    view.notify(Class::HASH, "hexpire", key);
    let words: Vec<&[u8]> = args.from(fields.first).take(fields.count * 2).collect();
    let (deadline, count) = (expires_at_ms.to_string(), fields.count.to_string());
    let start: [&[u8]; 6] =
        [b"HSETEX", key, b"PXAT", deadline.as_bytes(), b"FIELDS", count.as_bytes()];
    Ok(Propagate::rewritten(&[&start, &words[..]].concat()))
}
