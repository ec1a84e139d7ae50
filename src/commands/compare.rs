//! Strings that are compared before something is done to them: the conditions of `SET` and its kin,
//! and `DELEX`, `DELIFEQ` and `DIGEST`.
//!
//! A comparison is with a value or with the digest of one, which spares sending a long value. As in
//! Redis a digest is looked at only when there is a string to compare it with, and of a digest only
//! the length is checked: 16 other characters equal no digest.

use super::options::is;
use super::spec::{Change, Family, Flags, Outcome, Propagate, read, write};
use crate::config::events::Class;
use crate::resp::{Args, CommandError, Reply};
use crate::store::{Access, ReadView, Value, WriteView};
use crate::text::xxh3;

/// The strings that are compared.
#[rustfmt::skip]
pub static FAMILY: Family = Family { group: "string", commands: &[
    write("delex", "key [IFEQ ifeq-value | IFNE ifne-value | IFDEQ ifdeq-digest | \
                    IFDNE ifdne-digest]", delex)
        .key("RW delete variable_flags").flags(Flags::FAST)
        .doc("8.4.0", "O(1), and with a digest O(N) with N the length of the value",
             "Deletes a key, if its string value or the digest of it is as expected."),
    write("delifeq", "key value", delifeq).key("RM access delete")
        .doc("9.0.0", "O(1)", "Deletes a key, if it has that string value. (A command of Valkey.)"),
    read("digest", "key", digest).key("RO access").fast()
        .doc("8.4.0", "O(N) with N the length of the value",
             "Returns the XXH3 hash of the string value of a key, in hexadecimal digits."),
] };

/// Under which condition a command does what it does.
#[derive(Clone, Copy, Default)]
pub(super) enum Condition<'a> {
    #[default]
    None,
    Absent,
    Present,
    Equal(&'a [u8]),
    Unequal(&'a [u8]),
    DigestEqual(&'a [u8]),
    DigestUnequal(&'a [u8]),
}

impl<'a> Condition<'a> {
    /// The condition that an option is, `rest` standing behind it.
    ///
    /// # Errors
    /// Nothing stands there to compare with.
    pub(super) fn from_option(
        option: &[u8],
        mut rest: impl Iterator<Item = &'a [u8]>,
    ) -> Result<Option<Condition<'a>>, CommandError> {
        let mut operand = || rest.next().ok_or(CommandError::SYNTAX);
        Ok(Some(if is(option, "NX") {
            Condition::Absent
        } else if is(option, "XX") {
            Condition::Present
        } else if is(option, "IFEQ") {
            Condition::Equal(operand()?)
        } else if is(option, "IFNE") {
            Condition::Unequal(operand()?)
        } else if is(option, "IFDEQ") {
            Condition::DigestEqual(operand()?)
        } else if is(option, "IFDNE") {
            Condition::DigestUnequal(operand()?)
        } else {
            return Ok(None);
        }))
    }

    /// Takes an option's condition. One may be said again, the last counts; two may not be mixed.
    ///
    /// # Errors
    /// They are mixed.
    pub(super) fn take(&mut self, said: Condition<'a>) -> Result<(), CommandError> {
        let again = std::mem::discriminant(self) == std::mem::discriminant(&said);
        if self.is_said() && !again {
            return Err(CommandError::SYNTAX);
        }
        *self = said;
        Ok(())
    }

    /// Whether there is one.
    pub(super) fn is_said(self) -> bool {
        !matches!(self, Condition::None)
    }

    /// Whether the key meets it.
    ///
    /// # Errors
    /// The key holds no string to compare; or the digest cannot be one.
    pub(super) fn holds(self, view: &WriteView, key: &[u8]) -> Result<bool, CommandError> {
        Ok(match self {
            Condition::None => true,
            Condition::Absent => !view.contains(key),
            Condition::Present => view.contains(key),
            Condition::Equal(expected) => view.string(key, Access::Use)? == Some(expected),
            Condition::Unequal(expected) => view.string(key, Access::Use)? != Some(expected),
            Condition::DigestEqual(expected) => {
                has_digest(view.string(key, Access::Use)?, expected)?
            }
            Condition::DigestUnequal(expected) => {
                !has_digest(view.string(key, Access::Use)?, expected)?
            }
        })
    }
}

fn has_digest(value: Option<&[u8]>, expected: &[u8]) -> Result<bool, CommandError> {
    let Some(value) = value else { return Ok(false) };
    if expected.len() != DIGEST_DIGITS {
        return Err(CommandError::new("ERR must be exactly 16 hexadecimal characters"));
    }
    Ok(expected.eq_ignore_ascii_case(digest_of(value).as_bytes()))
}

const DIGEST_DIGITS: usize = 16;

fn digest_of(value: &[u8]) -> String {
    format!("{:0DIGEST_DIGITS$x}", xxh3::hash(value))
}

fn digest(view: &ReadView, args: Args, reply: &mut Reply) -> Outcome {
    match view.string(&args[1], Access::Use)? {
        Some(value) => reply.bulk(digest_of(value).as_bytes()),
        None => reply.null(),
    }
    Ok(())
}

fn delex(view: &mut WriteView, args: Args, reply: &mut Reply) -> Change {
    let key = &args[1];
    if args.len() != 2 && args.len() != 4 {
        return Err(CommandError::new("ERR wrong number of arguments for 'delex' command"));
    }
    // Whatever the condition is: of a key that is not there, or holds no string, it is not asked.
    let condition = match (args.get(2), view.get(key, Access::Use).map(|entry| &entry.value)) {
        (None, _) | (_, None) => Condition::None,
        (Some(option), Some(Value::String(_))) => comparison(option, &args[3])?,
        (Some(_), Some(_)) => {
            let text = "ERR Key should be of string type if conditions are specified";
            return Err(CommandError::new(text));
        }
    };
    delete_if(view, key, condition, reply)
}

/// The condition of DELEX.
fn comparison<'a>(option: &[u8], operand: &'a [u8]) -> Result<Condition<'a>, CommandError> {
    match Condition::from_option(option, std::iter::once(operand))? {
        Some(Condition::Absent | Condition::Present) | None => {
            let text = "ERR Invalid condition. Use IFEQ, IFNE, IFDEQ, or IFDNE";
            Err(CommandError::new(text))
        }
        Some(condition) => Ok(condition),
    }
}

fn delifeq(view: &mut WriteView, args: Args, reply: &mut Reply) -> Change {
    delete_if(view, &args[1], Condition::Equal(&args[2]), reply)
}

fn delete_if(view: &mut WriteView, key: &[u8], condition: Condition, reply: &mut Reply) -> Change {
    let removed = condition.holds(view, key)? && view.remove(key);
    if removed {
        view.notify(Class::GENERIC, "del", key);
    }
    reply.integer(removed.into());
    Ok(if removed { Propagate::rewritten(&[b"DEL", key]) } else { Propagate::Nothing })
}
