//! `INCREX`: a counter with bounds and a deadline, in one step. (A limit on requests per minute is
//! `INCREX key UBOUND limit EX 60 ENX`: it answers 0 as what was added to who comes too often.)
//!
//! It counts in integers, or with `BYFLOAT` in long doubles; what follows is written once for both,
//! over [`Number`]. Redis 8.8 and Valkey 9.2 have the command; `NX` and `XX` are Valkey's.
//!
//! The log gets the sum and its deadline, as a `SET`.

use std::ops::{Add, Sub};

use super::compare::Condition;
use super::options::is;
use super::spec::{Change, Family, Flags, Propagate, write};
use super::strings::{Expiry, store};
use crate::config::events::Class;
use crate::resp::{Args, CommandError, Reply};
use crate::store::{Access, WriteView};
use crate::text::integer::parse_i64;
use crate::text::long_double::LongDouble;

/// The command.
#[rustfmt::skip]
pub static FAMILY: Family = Family { group: "string", commands: &[
    write("increx", "key [NX | XX] [BYFLOAT float | BYINT integer] [LBOUND lowerbound] \
                     [UBOUND upperbound] [SATURATE] [EX seconds | PX milliseconds | \
                     EXAT unix-time-seconds | PXAT unix-time-milliseconds | PERSIST] [ENX]", increx)
        .key("RW access update").flags(Flags::DENYOOM.or(Flags::FAST))
        .doc("8.8.0", "O(1)",
             "Adds to the number that a key holds, within bounds, and sets or removes its expiration."),
] };

/// What `INCREX` counts in.
trait Number: Copy + Ord + Add<Output = Self> + Sub<Output = Self> {
    const ZERO: Self;
    const MIN: Self;
    const MAX: Self;
    /// The event of an addition.
    const EVENT: &'static str;
    /// What is wrong with a text that is none.
    const UNREADABLE: &str;
    /// What is wrong with a step that is too great.
    const TOO_GREAT: CommandError;

    fn parse(text: &[u8]) -> Option<Self>;
    /// Whether it may be stored; a sum may be out of range, and a long double infinite.
    fn is_in_range(self) -> bool;
    fn digits(self) -> Vec<u8>;
    fn reply(self, reply: &mut Reply);
}

/// Of 64 bits, with room for every sum.
impl Number for i128 {
    const ZERO: i128 = 0;
    const MIN: i128 = i64::MIN as i128;
    const MAX: i128 = i64::MAX as i128;
    const EVENT: &'static str = "incrby";
    const UNREADABLE: &str = "is not an integer or out of range";
    const TOO_GREAT: CommandError = CommandError::new("ERR applied increment would overflow");

    fn parse(text: &[u8]) -> Option<i128> {
        parse_i64(text).map(i128::from)
    }

    fn is_in_range(self) -> bool {
        i64::try_from(self).is_ok()
    }

    fn digits(self) -> Vec<u8> {
        self.to_string().into_bytes()
    }

    fn reply(self, reply: &mut Reply) {
        reply.integer(self as i64);
    }
}

impl Number for LongDouble {
    const ZERO: LongDouble = LongDouble::ZERO;
    const MIN: LongDouble = LongDouble::MIN;
    const MAX: LongDouble = LongDouble::MAX;
    const EVENT: &'static str = "incrbyfloat";
    const UNREADABLE: &str = "is not a valid float";
    const TOO_GREAT: CommandError = CommandError::new("ERR applied increment would be Infinity");

    fn parse(text: &[u8]) -> Option<LongDouble> {
        LongDouble::parse(text)
    }

    fn is_in_range(self) -> bool {
        self.is_finite()
    }

    fn digits(self) -> Vec<u8> {
        let mut digits = Vec::new();
        self.write_to(&mut digits);
        digits
    }

    fn reply(self, reply: &mut Reply) {
        reply.double(&self.digits());
    }
}

#[derive(Default)]
struct Options<'a> {
    condition: Condition<'a>,
    by_float: bool,
    by: Option<&'a [u8]>,
    low: Option<&'a [u8]>,
    high: Option<&'a [u8]>,
    saturate: bool,
    expiry: Expiry<'a>,
    /// The deadline is only for a key that has none.
    only_first_deadline: bool,
}

impl<'a> Options<'a> {
    /// Unlike those of SET, none may be said again.
    fn parse(args: Args<'a>) -> Result<Options<'a>, CommandError> {
        let mut options = Options::default();
        let mut rest = args.from(2);
        while let Some(option) = rest.next() {
            let mut operand = || rest.next().ok_or(CommandError::SYNTAX);
            let again = if is(option, "BYINT") || is(option, "BYFLOAT") {
                options.by_float = is(option, "BYFLOAT");
                options.by.replace(operand()?).is_some()
            } else if is(option, "LBOUND") {
                options.low.replace(operand()?).is_some()
            } else if is(option, "UBOUND") {
                options.high.replace(operand()?).is_some()
            } else if is(option, "SATURATE") {
                std::mem::replace(&mut options.saturate, true)
            } else if is(option, "ENX") {
                std::mem::replace(&mut options.only_first_deadline, true)
            } else if is(option, "NX") {
                std::mem::replace(&mut options.condition, Condition::Absent).is_said()
            } else if is(option, "XX") {
                std::mem::replace(&mut options.condition, Condition::Present).is_said()
            } else {
                let again = options.expiry != Expiry::Unsaid || is(option, "KEEPTTL");
                options.expiry.take(option, rest.by_ref())?;
                again
            };
            if again {
                return Err(CommandError::SYNTAX);
            }
        }
        match options.expiry {
            Expiry::Unsaid if options.only_first_deadline => {
                Err(CommandError::new("ERR ENX flag requires an expiration"))
            }
            Expiry::Remove if options.only_first_deadline => Err(CommandError::SYNTAX),
            _ => Ok(options),
        }
    }
}

fn increx(view: &mut WriteView, args: Args, reply: &mut Reply) -> Change {
    let options = Options::parse(args)?;
    if options.by_float {
        add::<LongDouble>(view, &args[1], &options, reply)
    } else {
        add::<i128>(view, &args[1], &options, reply)
    }
}

fn add<N: Number>(
    view: &mut WriteView,
    key: &[u8],
    options: &Options,
    reply: &mut Reply,
) -> Change {
    let number = |text: &[u8], what: &str| {
        let error = || CommandError::from(format!("ERR {what} {}", N::UNREADABLE));
        N::parse(text).ok_or_else(error)
    };
    let by = number(options.by.unwrap_or(b"1"), "Increment")?;
    if !by.is_in_range() {
        return Err(CommandError::new("ERR BYFLOAT increment cannot be Infinity"));
    }
    let low = options.low.map_or(Ok(N::MIN), |text| number(text, "LBOUND"))?;
    let high = options.high.map_or(Ok(N::MAX), |text| number(text, "UBOUND"))?;
    if low > high {
        return Err(CommandError::new("ERR LBOUND can't be greater than UBOUND"));
    }
    let expires_at_ms = options.expiry.expires_at_ms(view.now_ms(), "increx")?;
    let old = number(view.string(key, Access::Use)?.unwrap_or(b"0"), "value")?;
    if !old.is_in_range() {
        return Err(CommandError::new("ERR value cannot be Infinity"));
    }
    let sum = old + by;
    let new = sum.clamp(low, high);
    let fits = new == sum && sum.is_in_range();
    reply.array(2);
    if !options.condition.holds(view, key)? || !(fits || options.saturate) {
        old.reply(reply);
        N::ZERO.reply(reply);
        return Ok(Propagate::Nothing);
    }
    let applied = new - old;
    if !applied.is_in_range() {
        return Err(N::TOO_GREAT);
    }
    new.reply(reply);
    applied.reply(reply);
    let kept = view.get(key, Access::Use).and_then(|entry| entry.expires_at_ms());
    let (new_ms, kept_ms) = match options.expiry {
        Expiry::At(..) if options.only_first_deadline && kept.is_some() => (None, kept),
        Expiry::At(..) => (expires_at_ms, None),
        Expiry::Remove => (None, None),
        Expiry::Unsaid | Expiry::Keep => (None, kept),
    };
    let effect = store(view, N::EVENT, key, &new.digits(), new_ms, kept_ms);
    if options.expiry == Expiry::Remove && kept.is_some() {
        view.notify(Class::GENERIC, "persist", key);
    }
    Ok(effect)
}
