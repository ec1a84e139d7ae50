//! What several families share: a cursor over the options of a call, and readers for integers, times,
//! databases and scans. The error texts are Redis's.

use crate::resp::{Args, CommandError, Reply};
use crate::text::{glob, integer};

/// Reads the options of a call from left to right.
///
/// A loop asks for one option after the other, in any order, and refuses what is left:
///
/// ```text
/// let mut words = OptionCursor::new(args, 3);
/// while !words.is_done() {
///     if words.take("REPLACE") {
///         replace = true;
///     } else if let Some(index) = words.take_value("DB")? {
///         …
///     } else {
///         return Err(CommandError::SYNTAX);
///     }
/// }
/// ```
pub(crate) struct OptionCursor<'a> {
    args: Args<'a>,
    at: usize,
}

impl<'a> OptionCursor<'a> {
    /// A cursor at the argument with this index; it is done if there is none.
    pub(crate) fn new(args: Args<'a>, first: usize) -> OptionCursor<'a> {
        OptionCursor { args, at: first }
    }

    /// How many words are left.
    pub(crate) fn len(&self) -> usize {
        self.args.len().saturating_sub(self.at)
    }

    pub(crate) fn is_done(&self) -> bool {
        self.len() == 0
    }

    /// The next word, without taking it.
    pub(crate) fn peek(&self) -> Option<&'a [u8]> {
        self.args.get(self.at)
    }

    /// Takes the next word.
    pub(crate) fn next(&mut self) -> Option<&'a [u8]> {
        let word = self.peek()?;
        self.at += 1;
        Some(word)
    }

    /// Takes the next word as the value of the option before it.
    ///
    /// # Errors
    /// A syntax error if there is none.
    pub(crate) fn value(&mut self) -> Result<&'a [u8], CommandError> {
        self.next().ok_or(CommandError::SYNTAX)
    }

    /// Takes the next word if it is this option.
    pub(crate) fn take(&mut self, option: &str) -> bool {
        let is_it = self.peek().is_some_and(|word| is(word, option));
        self.at += usize::from(is_it);
        is_it
    }

    /// Takes the next word if it is this option, and returns the value after it.
    ///
    /// # Errors
    /// A syntax error if the value is missing.
    pub(crate) fn take_value(&mut self, option: &str) -> Result<Option<&'a [u8]>, CommandError> {
        if self.take(option) { self.value().map(Some) } else { Ok(None) }
    }

    /// Takes this many words and returns them with the index of the first; `None` if fewer are left.
    pub(crate) fn take_words(&mut self, count: usize) -> Option<(Args<'a>, usize)> {
        let first = self.at;
        let fits = count <= self.len();
        self.at += if fits { count } else { 0 };
        fits.then_some((self.args, first))
    }
}

/// Whether an argument is this option, in letters of any case.
pub(crate) fn is(arg: &[u8], option: &str) -> bool {
    arg.eq_ignore_ascii_case(option.as_bytes())
}

/// An argument that must be a 64-bit integer.
///
/// # Errors
/// Redis's text if it is not.
pub(crate) fn integer(arg: &[u8]) -> Result<i64, CommandError> {
    integer::parse_i64(arg).ok_or(CommandError::NOT_AN_INTEGER)
}

/// The unit of an expiry time: `EX` and `PX` count from now, `EXAT` and `PXAT` from 1970.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct TimeUnit {
    /// Seconds, not milliseconds.
    pub(super) seconds: bool,
    /// From now, not from 1970.
    pub(super) relative: bool,
}

impl TimeUnit {
    pub(super) const EX: TimeUnit = TimeUnit { seconds: true, relative: true };
    pub(super) const PX: TimeUnit = TimeUnit { seconds: false, relative: true };
    pub(super) const EXAT: TimeUnit = TimeUnit { seconds: true, relative: false };
    pub(super) const PXAT: TimeUnit = TimeUnit { seconds: false, relative: false };

    /// Takes the next word if it names a unit.
    pub(super) fn take(words: &mut OptionCursor) -> Option<TimeUnit> {
        let units = [
            ("EX", TimeUnit::EX),
            ("PX", TimeUnit::PX),
            ("EXAT", TimeUnit::EXAT),
            ("PXAT", TimeUnit::PXAT),
        ];
        units.into_iter().find(|(name, _)| words.take(name)).map(|(_, unit)| unit)
    }

    /// The Unix time in milliseconds that the number means; `None` if it is out of range.
    pub(super) fn expires_at_ms(self, number: i64, now_ms: i64) -> Option<i64> {
        let ms = if self.seconds { number.checked_mul(1000)? } else { number };
        if self.relative { ms.checked_add(now_ms) } else { Some(ms) }
    }
}

/// The expiry time that an argument of SET, SETEX, GETEX and similar commands gives.
///
/// # Errors
/// It is not an integer; or it is zero, negative or out of range, and then the text names the command.
pub(super) fn positive_expires_at_ms(
    unit: TimeUnit,
    arg: &[u8],
    now_ms: i64,
    command: &str,
) -> Result<i64, CommandError> {
    let number = integer(arg)?;
    let expires_at_ms = unit.expires_at_ms(number, now_ms).filter(|_| number > 0);
    expires_at_ms.ok_or_else(|| invalid_expire_time(command))
}

/// The error for an expiry time that is out of range.
pub(super) fn invalid_expire_time(command: &str) -> CommandError {
    CommandError::from(format!("ERR invalid expire time in '{command}' command"))
}

/// The condition that EXPIRE, HEXPIRE and similar commands put on the expiry time so far.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum ExpiryCondition {
    /// NX: there is none.
    Absent,
    /// XX: there is one.
    Present,
    /// GT: the new one is later. No expiry time is later than any other.
    Later,
    /// LT: the new one is earlier.
    Earlier,
}

impl ExpiryCondition {
    /// Takes the next word if it is a condition.
    pub(super) fn take(words: &mut OptionCursor) -> Option<ExpiryCondition> {
        let all = [
            ("NX", ExpiryCondition::Absent),
            ("XX", ExpiryCondition::Present),
            ("GT", ExpiryCondition::Later),
            ("LT", ExpiryCondition::Earlier),
        ];
        all.into_iter().find(|(name, _)| words.take(name)).map(|(_, condition)| condition)
    }

    pub(super) fn holds(self, old_ms: Option<i64>, new_ms: i64) -> bool {
        match self {
            ExpiryCondition::Absent => old_ms.is_none(),
            ExpiryCondition::Present => old_ms.is_some(),
            ExpiryCondition::Later => old_ms.is_some_and(|old_ms| old_ms < new_ms),
            ExpiryCondition::Earlier => old_ms.is_none_or(|old_ms| old_ms > new_ms),
        }
    }
}

/// The part of an argument before a zero byte, which is all that Redis sees where it reads a C string.
pub(super) fn c_text(arg: &[u8]) -> &[u8] {
    arg.split(|&byte| byte == 0).next().unwrap_or_default()
}

/// An error repeats at most this many bytes of what the client sent.
pub(super) const QUOTED_BYTES: usize = 128;

/// The part of an argument that an error repeats. Like Redis, it stops at a zero byte.
pub(super) fn quotable(arg: &[u8], limit: usize) -> &[u8] {
    let text = c_text(arg);
    &text[..text.len().min(limit)]
}

/// A name that can appear in a line of CLIENT LIST.
///
/// # Errors
/// It has spaces, control characters or bytes beyond ASCII; `what` names it in the text.
pub(super) fn printable<'a>(name: &'a [u8], what: &str) -> Result<&'a [u8], CommandError> {
    if name.iter().all(|byte| (b'!'..=b'~').contains(byte)) {
        return Ok(name);
    }
    Err(format!("ERR {what} cannot contain spaces, newlines or special characters.").into())
}

/// The error for a wrong number of arguments that the arity cannot catch, such as a field without a value.
pub(super) fn wrong_number_of_args(args: Args) -> CommandError {
    let name = args[0].to_ascii_lowercase();
    let name = name.escape_ascii();
    CommandError::from(format!("ERR wrong number of arguments for '{name}' command"))
}

/// The same error for a subcommand.
pub(crate) fn wrong_subcommand_args(args: Args) -> CommandError {
    let container = args[0].to_ascii_uppercase();
    let text: [&[u8]; 5] = [
        b"ERR unknown subcommand or wrong number of arguments for '",
        quotable(&args[1], QUOTED_BYTES),
        b"'. Try ",
        &container,
        b" HELP.",
    ];
    text.concat().into()
}

/// An argument that must be a 32-bit integer.
///
/// # Errors
/// Redis's texts: one for a text that is not an integer, one for a number that does not fit.
pub(super) fn integer_32(arg: &[u8]) -> Result<i32, CommandError> {
    const OUT_OF_RANGE: CommandError = CommandError::new(
        "ERR value is out of range, value must between -2147483648 and 2147483647",
    );
    i32::try_from(integer(arg)?).map_err(|_| OUT_OF_RANGE)
}

/// The index of one of `count` databases.
///
/// # Errors
/// There is no such database.
pub(super) fn database(index: i32, count: usize) -> Result<usize, CommandError> {
    let index = usize::try_from(index).ok().filter(|&index| index < count);
    index.ok_or(CommandError::new("ERR DB index is out of range"))
}

/// The cursor of SCAN or HSCAN, by the rules of `strtoul`: white space, a sign and leading zeros are allowed,
/// and a negative number counts down from 2^64. Before that, Redis refuses an empty text and a negative
/// 64-bit integer in its usual form.
///
/// # Errors
/// It is not such a number, or it exceeds 64 bits.
pub(super) fn cursor(arg: &[u8]) -> Result<u64, CommandError> {
    const INVALID: CommandError = CommandError::new("ERR invalid cursor");
    let arg = c_text(arg);
    if integer::parse_i64(arg).is_some_and(|number| number < 0) {
        return Err(INVALID);
    }
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t'..=b'\r');
    let spaces = arg.iter().take_while(|byte| is_space(byte)).count();
    let (negative, digits) = match &arg[spaces..] {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    let magnitude = digits.iter().try_fold(0u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| byte - b'0')?;
        number.checked_mul(10)?.checked_add(digit.into())
    });
    let magnitude = magnitude.filter(|_| !digits.is_empty()).ok_or(INVALID)?;
    Ok(if negative { magnitude.wrapping_neg() } else { magnitude })
}

/// What a scan walks over.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Scanned {
    /// The keys of a database.
    Keys,
    /// The fields of a hash.
    Fields,
}

/// The options of SCAN and HSCAN.
pub(super) struct ScanOptions<'a> {
    /// About how many keys or fields to visit.
    pub(super) count: usize,
    /// Return only keys of this type. Any text is allowed, as a key could have any type.
    pub(super) type_name: Option<&'a [u8]>,
    /// Return fields without their values.
    pub(super) no_values: bool,
    pattern: Option<&'a [u8]>,
}

impl<'a> ScanOptions<'a> {
    /// Reads the options from the argument with this index on. Of a repeated option the last one counts.
    ///
    /// # Errors
    /// An option is unknown, its value is missing, or the value is invalid.
    pub(super) fn parse(
        args: Args<'a>,
        first: usize,
        scanned: Scanned,
    ) -> Result<ScanOptions<'a>, CommandError> {
        let mut options =
            ScanOptions { count: 10, type_name: None, no_values: false, pattern: None };
        let mut words = OptionCursor::new(args, first);
        while !words.is_done() {
            if words.take("NOVALUES") {
                if scanned != Scanned::Fields {
                    let text = "ERR NOVALUES option can only be used in HSCAN";
                    return Err(CommandError::new(text));
                }
                options.no_values = true;
            } else if let Some(count) = words.take_value("COUNT")? {
                let count = usize::try_from(integer(count)?).ok().filter(|&count| count > 0);
                options.count = count.ok_or(CommandError::SYNTAX)?;
            } else if let Some(pattern) = words.take_value("MATCH")? {
                options.pattern = Some(pattern);
            } else if scanned == Scanned::Keys
                && let Some(type_name) = words.take_value("TYPE")?
            {
                options.type_name = Some(type_name);
            } else {
                return Err(CommandError::SYNTAX);
            }
        }
        Ok(options)
    }

    /// Whether the name matches the pattern, if one was given.
    pub(super) fn matches(&self, name: &[u8]) -> bool {
        self.pattern.is_none_or(|pattern| pattern == b"*" || glob::matches(pattern, name))
    }
}

/// Replies with the cursor for the next call and what this call of SCAN or HSCAN found.
pub(super) fn reply_page(reply: &mut Reply, next: u64, found: &[impl AsRef<[u8]>]) {
    reply.array(2);
    let mut digits = Vec::with_capacity(20);
    integer::write_u64(&mut digits, next);
    reply.bulk(&digits);
    reply.array(found.len());
    for name in found {
        reply.bulk(name.as_ref());
    }
}

#[cfg(test)]
mod tests {
    use super::cursor;

    #[test]
    fn a_cursor_is_a_text_that_strtoul_reads_to_its_end() {
        let accepted: [(&[u8], u64); 13] = [
            (b"1\0x", 1),
            (b" 1", 1),
            (b"\t\n\x0b\x0c\r +1", 1),
            (b" -1", u64::MAX),
            (b"0", 0),
            (b"007", 7),
            (b"+1", 1),
            (b"-0", 0),
            (b"-01", u64::MAX),
            (b"9007199254740991", (1 << 53) - 1),
            (b"18446744073709551615", u64::MAX),
            (b"-18446744073709551615", 1),
            (b"00000000000000000000000001", 1),
        ];
        for (text, number) in accepted {
            assert_eq!(cursor(text), Ok(number), "{}", text.escape_ascii());
        }
        let refused: [&[u8]; 14] = [
            b"",
            b"\0",
            b" ",
            b"-1",
            b"-9223372036854775808",
            b"+",
            b"-",
            b"+-1",
            b"--1",
            b"1 ",
            b"1x",
            b"0x10",
            b"18446744073709551616",
            b"-18446744073709551616",
        ];
        for text in refused {
            assert!(cursor(text).is_err(), "{}", text.escape_ascii());
        }
    }
}
