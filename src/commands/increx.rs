//! `INCREX`: a counter with bounds and an expiry time, in one step. For example, `INCREX key UBOUND limit
//! EX 60 ENX` limits the requests per minute: once the limit is reached, the increment in the reply is 0.
//!
//! The command counts in integers or, with `BYFLOAT`, in long doubles; the code is generic over
//! [`Number`]. Redis 8.8 and Valkey 9.2 have it; `NX` and `XX` are Valkey's.
//!
//! The log gets the sum and its expiry time, as a `SET`.

use std::ops::{Add, Sub};

use super::compare::SetCondition;
use super::options::OptionCursor;
use super::spec::{Change, Family, Flags, Propagate, write};
use super::strings::{Expiry, PERSIST, store};
use crate::config::events::EventClass;
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
             "Increments the number at a key within bounds, and sets or removes its expiry time."),
] };

/// The numbers that `INCREX` counts in.
trait Number: Copy + Ord + Add<Output = Self> + Sub<Output = Self> {
    const ZERO: Self;
    const MIN: Self;
    const MAX: Self;
    /// The keyspace event that an increment publishes.
    const EVENT: &'static str;
    /// The end of the error for a text that is not such a number.
    const UNREADABLE: &str;
    /// The error for an increment that is out of range.
    const TOO_GREAT: CommandError;

    fn parse(text: &[u8]) -> Option<Self>;
    /// Whether it may be stored. A sum can be out of range, and a long double infinite.
    fn is_in_range(self) -> bool;
    fn digits(self) -> Vec<u8>;
    fn reply(self, reply: &mut Reply);
}

/// 64-bit integers, in 128 bits so that no sum overflows.
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
struct IncrexOptions<'a> {
    condition: SetCondition<'a>,
    by_float: bool,
    by: Option<&'a [u8]>,
    low: Option<&'a [u8]>,
    high: Option<&'a [u8]>,
    saturate: bool,
    expiry: Expiry<'a>,
    /// ENX: set the expiry time only if the key has none.
    only_without_expiry: bool,
}

impl<'a> IncrexOptions<'a> {
    /// Unlike those of SET, no option may be repeated.
    fn parse(args: Args<'a>) -> Result<IncrexOptions<'a>, CommandError> {
        let mut options = IncrexOptions::default();
        let mut words = OptionCursor::new(args, 2);
        while !words.is_done() {
            let is_repeated = if let Some(by) = words.take_value("BYINT")? {
                options.by.replace(by).is_some()
            } else if let Some(by) = words.take_value("BYFLOAT")? {
                options.by_float = true;
                options.by.replace(by).is_some()
            } else if let Some(low) = words.take_value("LBOUND")? {
                options.low.replace(low).is_some()
            } else if let Some(high) = words.take_value("UBOUND")? {
                options.high.replace(high).is_some()
            } else if words.take("SATURATE") {
                std::mem::replace(&mut options.saturate, true)
            } else if words.take("ENX") {
                std::mem::replace(&mut options.only_without_expiry, true)
            } else if words.take("NX") {
                std::mem::replace(&mut options.condition, SetCondition::Absent).is_given()
            } else if words.take("XX") {
                std::mem::replace(&mut options.condition, SetCondition::Present).is_given()
            } else {
                let is_repeated = options.expiry != Expiry::Unsaid;
                options.expiry.take(&mut words, PERSIST)?;
                is_repeated
            };
            if is_repeated {
                return Err(CommandError::SYNTAX);
            }
        }
        match options.expiry {
            Expiry::Unsaid if options.only_without_expiry => {
                Err(CommandError::new("ERR ENX flag requires an expiration"))
            }
            Expiry::Remove if options.only_without_expiry => Err(CommandError::SYNTAX),
            _ => Ok(options),
        }
    }
}

fn increx(view: &mut WriteView, args: Args, reply: &mut Reply) -> Change {
    let options = IncrexOptions::parse(args)?;
    if options.by_float {
        add::<LongDouble>(view, &args[1], &options, reply)
    } else {
        add::<i128>(view, &args[1], &options, reply)
    }
}

fn add<N: Number>(
    view: &mut WriteView,
    key: &[u8],
    options: &IncrexOptions,
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
        Expiry::At(..) if options.only_without_expiry && kept.is_some() => (None, kept),
        Expiry::At(..) => (expires_at_ms, None),
        Expiry::Remove => (None, None),
        Expiry::Unsaid | Expiry::Keep => (None, kept),
    };
    let effect = store(view, N::EVENT, key, &new.digits(), new_ms, kept_ms);
    if options.expiry == Expiry::Remove && kept.is_some() {
        view.notify(EventClass::GENERIC, "persist", key);
    }
    Ok(effect)
}
