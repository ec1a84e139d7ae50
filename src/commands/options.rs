//! What several families share: reading integers, times, databases and the options of SCAN and its
//! kin, and replying a page of a scan.

use crate::resp::{Args, CommandError, Reply};
use crate::text::{glob, integer};

/// An argument that must be a 64-bit integer.
///
/// # Errors
/// Redis's text when it is not.
pub(crate) fn integer(arg: &[u8]) -> Result<i64, CommandError> {
    integer::parse_i64(arg).ok_or(CommandError::NOT_AN_INTEGER)
}

/// In what an argument gives a moment: `EX` and `PX` count from now, `EXAT` and `PXAT` from 1970.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct TimeUnit {
    /// It counts seconds, not milliseconds.
    pub(super) seconds: bool,
    /// It counts from now.
    pub(super) relative: bool,
}

impl TimeUnit {
    pub(super) const EX: TimeUnit = TimeUnit { seconds: true, relative: true };
    pub(super) const PX: TimeUnit = TimeUnit { seconds: false, relative: true };
    pub(super) const EXAT: TimeUnit = TimeUnit { seconds: true, relative: false };
    pub(super) const PXAT: TimeUnit = TimeUnit { seconds: false, relative: false };

    /// The unit that an option of SET and its kin names.
    pub(super) fn from_option(option: &[u8]) -> Option<TimeUnit> {
        let units = [
            ("EX", TimeUnit::EX),
            ("PX", TimeUnit::PX),
            ("EXAT", TimeUnit::EXAT),
            ("PXAT", TimeUnit::PXAT),
        ];
        let is = |name: &str| option.eq_ignore_ascii_case(name.as_bytes());
        units.into_iter().find(|(name, _)| is(name)).map(|(_, unit)| unit)
    }

    /// The Unix time in milliseconds that the number means; none if that is out of range.
    pub(super) fn expires_at_ms(self, number: i64, now_ms: i64) -> Option<i64> {
        let ms = if self.seconds { number.checked_mul(1000)? } else { number };
        if self.relative { ms.checked_add(now_ms) } else { Some(ms) }
    }
}

/// The deadline that an argument of SET, SETEX, GETEX and their kin gives.
///
/// # Errors
/// Not an integer; or zero, negative or out of range, with the name of the command in the text.
pub(super) fn positive_deadline(
    unit: TimeUnit,
    arg: &[u8],
    now_ms: i64,
    command: &str,
) -> Result<i64, CommandError> {
    let number = integer(arg)?;
    let deadline = unit.expires_at_ms(number, now_ms).filter(|_| number > 0);
    deadline.ok_or_else(|| invalid_expire_time(command))
}

/// A time that is out of range.
pub(super) fn invalid_expire_time(command: &str) -> CommandError {
    CommandError::from(format!("ERR invalid expire time in '{command}' command"))
}

/// Whether an argument is that option, in letters of any case.
pub(crate) fn is(arg: &[u8], option: &str) -> bool {
    arg.eq_ignore_ascii_case(option.as_bytes())
}

/// What Redis reads of an argument where it takes it for a text of C: the part before a zero byte.
pub(super) fn c_text(arg: &[u8]) -> &[u8] {
    arg.split(|&byte| byte == 0).next().unwrap_or_default()
}

/// A wrong number of arguments, where the arity alone does not tell: fields without their values.
pub(super) fn wrong_number_of_args(args: Args) -> CommandError {
    let name = args[0].to_ascii_lowercase();
    let name = name.escape_ascii();
    CommandError::from(format!("ERR wrong number of arguments for '{name}' command"))
}

/// A wrong number of arguments of a subcommand, where the arity alone does not tell.
pub(crate) fn wrong_subcommand_args(args: Args) -> CommandError {
    let container = args[0].to_ascii_uppercase();
    let text: [&[u8]; 5] = [
        b"ERR unknown subcommand or wrong number of arguments for '",
        &args[1],
        b"'. Try ",
        &container,
        b" HELP.",
    ];
    text.concat().into()
}

/// An argument that must be a 32-bit integer.
///
/// # Errors
/// Redis's texts, which tell what is no integer from what does not fit.
pub(super) fn integer_32(arg: &[u8]) -> Result<i32, CommandError> {
    const OUT_OF_RANGE: CommandError = CommandError::new(
        "ERR value is out of range, value must between -2147483648 and 2147483647",
    );
    i32::try_from(integer(arg)?).map_err(|_| OUT_OF_RANGE)
}

/// The number of a database, of which there are so many.
///
/// # Errors
/// There is none of that number.
pub(super) fn database(index: i32, count: usize) -> Result<usize, CommandError> {
    let index = usize::try_from(index).ok().filter(|&index| index < count);
    index.ok_or(CommandError::new("ERR DB index is out of range"))
}

/// The cursor of SCAN and its kin, by the rules of `strtoul`: with a sign or without, leading zeros
/// are welcome, nothing is 0, and a negative number counts down from 2^64. No spaces.
///
/// # Errors
/// It is no such number, or exceeds 64 bits.
pub(super) fn cursor(arg: &[u8]) -> Result<u64, CommandError> {
    let arg = c_text(arg);
    let (negative, digits) = match arg {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    let magnitude = digits.iter().try_fold(0u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| byte - b'0')?;
        number.checked_mul(10)?.checked_add(digit.into())
    });
    let magnitude = magnitude.filter(|_| arg.is_empty() || !digits.is_empty());
    let magnitude = magnitude.ok_or(CommandError::new("ERR invalid cursor"))?;
    Ok(if negative { magnitude.wrapping_neg() } else { magnitude })
}

/// What a scan goes through.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Scanned {
    /// The keys of a database.
    Keys,
    /// The fields of a hash.
    Fields,
}

/// The options of SCAN and HSCAN.
pub(super) struct ScanOptions<'a> {
    /// About how many to look at.
    pub(super) count: usize,
    /// Only keys that hold this; any text is a type that a key might have.
    pub(super) type_name: Option<&'a [u8]>,
    /// Fields without their values.
    pub(super) no_values: bool,
    pattern: Option<&'a [u8]>,
}

impl<'a> ScanOptions<'a> {
    /// Reads them, the last of each counting.
    ///
    /// # Errors
    /// The first that is unknown, lacks its argument, or has a bad one.
    pub(super) fn parse(
        mut options: impl Iterator<Item = &'a [u8]>,
        scanned: Scanned,
    ) -> Result<ScanOptions<'a>, CommandError> {
        let mut parsed =
            ScanOptions { count: 10, type_name: None, no_values: false, pattern: None };
        while let Some(option) = options.next() {
            if is(option, "NOVALUES") {
                if scanned != Scanned::Fields {
                    let text = "ERR NOVALUES option can only be used in HSCAN";
                    return Err(CommandError::new(text));
                }
                parsed.no_values = true;
                continue;
            }
            let value = options.next().ok_or(CommandError::SYNTAX)?;
            if is(option, "COUNT") {
                let count = integer(value)?;
                let count = usize::try_from(count).ok().filter(|&count| count > 0);
                parsed.count = count.ok_or(CommandError::SYNTAX)?;
            } else if is(option, "MATCH") {
                parsed.pattern = Some(value);
            } else if is(option, "TYPE") && scanned == Scanned::Keys {
                parsed.type_name = Some(value);
            } else {
                return Err(CommandError::SYNTAX);
            }
        }
        Ok(parsed)
    }

    /// Whether MATCH, if given, lets this name through.
    pub(super) fn matches(&self, name: &[u8]) -> bool {
        self.pattern.is_none_or(|pattern| glob::matches(pattern, name, false))
    }
}

/// Replies what a call of SCAN or its kin found, and the cursor for the next.
pub(super) fn reply_page(reply: &mut Reply, next: u64, found: &[Vec<u8>]) {
    reply.array(2);
    let mut digits = Vec::with_capacity(20);
    integer::write_u64(&mut digits, next);
    reply.bulk(&digits);
    reply.array(found.len());
    for name in found {
        reply.bulk(name);
    }
}

#[cfg(test)]
mod tests {
    use super::cursor;

    #[test]
    fn a_cursor_is_whatever_strtoul_takes_whole() {
        let accepted: [(&[u8], u64); 12] = [
            (b"", 0),
            (b"\0", 0),
            (b"1\0x", 1),
            (b"0", 0),
            (b"007", 7),
            (b"+1", 1),
            (b"-0", 0),
            (b"-1", u64::MAX),
            (b"9007199254740991", (1 << 53) - 1),
            (b"18446744073709551615", u64::MAX),
            (b"-18446744073709551615", 1),
            (b"00000000000000000000000001", 1),
        ];
        for (text, number) in accepted {
            assert_eq!(cursor(text), Ok(number), "{}", text.escape_ascii());
        }
        let refused: [&[u8]; 10] = [
            b"+",
            b"-",
            b"+-1",
            b"--1",
            b" 1",
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
