//! Compare and act: the conditions of `SET`, `MSETEX` and `INCREX`, and `DELEX`, `DELIFEQ` and `DIGEST`.
//!
//! A client compares with a value or with the digest of a value, so that it need not send a long value. As in
//! Redis, a digest is checked only if there is a string to compare it with, and only its length is checked:
//! 16 characters that are not hexadecimal digits are allowed, and match no digest.
//!
//! The commands are described at <https://redis.io/docs/latest/commands/delex/>,
//! <https://valkey.io/commands/delifeq/> and <https://redis.io/docs/latest/commands/digest/>.

use super::options::OptionCursor;
use super::spec::{Change, Family, Flags, Outcome, Propagate, read, write};
use crate::config::events::EventClass;
use crate::resp::{Args, CommandError, Reply};
use crate::store::{Access, ReadView, ValueRef, WriteView};
use crate::text::xxh3;

/// The commands that compare strings.
#[rustfmt::skip]
pub static FAMILY: Family = Family { group: "string", commands: &[
    write("delex", "key [IFEQ ifeq-value | IFNE ifne-value | IFDEQ ifdeq-digest | \
                    IFDNE ifdne-digest]", delex)
        .key("RW delete variable_flags").flags(Flags::FAST)
        .doc("8.4.0", "O(1), and with a digest O(N) where N is the length of the value",
             "Deletes a key if its string value, or the digest of the value, is as expected."),
    write("delifeq", "key value", delifeq).key("RM access delete").fast()
        .doc("9.0.0", "O(1)", "Deletes a key if it holds this string value. (A command of Valkey.)"),
    read("digest", "key", digest).key("RO access").fast()
        .doc("8.4.0", "O(N) where N is the length of the value",
             "Returns the XXH3 hash of the string value of a key, as hexadecimal digits."),
] };

/// The condition under which a command writes or deletes a key.
#[derive(Clone, Copy, Default)]
pub(super) enum SetCondition<'a> {
    #[default]
    None,
    Absent,
    Present,
    Equal(&'a [u8]),
    Unequal(&'a [u8]),
    DigestEqual(&'a [u8]),
    DigestUnequal(&'a [u8]),
}

impl<'a> SetCondition<'a> {
    /// Takes the next word and its operand if it is a condition.
    ///
    /// # Errors
    /// The operand is missing.
    pub(super) fn take(
        words: &mut OptionCursor<'a>,
    ) -> Result<Option<SetCondition<'a>>, CommandError> {
        Ok(if words.take("NX") {
            Some(SetCondition::Absent)
        } else if words.take("XX") {
            Some(SetCondition::Present)
        } else if let Some(value) = words.take_value("IFEQ")? {
            Some(SetCondition::Equal(value))
        } else if let Some(value) = words.take_value("IFNE")? {
            Some(SetCondition::Unequal(value))
        } else if let Some(digest) = words.take_value("IFDEQ")? {
            Some(SetCondition::DigestEqual(digest))
        } else {
            words.take_value("IFDNE")?.map(SetCondition::DigestUnequal)
        })
    }

    /// Adds a condition of the call. NX and XX may be repeated; no two may be combined.
    ///
    /// # Errors
    /// There is another condition already.
    pub(super) fn add(&mut self, new: SetCondition<'a>) -> Result<(), CommandError> {
        let is_repeated = matches!(
            (*self, new),
            (SetCondition::Absent, SetCondition::Absent)
                | (SetCondition::Present, SetCondition::Present)
        );
        if self.is_given() && !is_repeated {
            return Err(CommandError::SYNTAX);
        }
        *self = new;
        Ok(())
    }

    /// Whether there is a condition.
    pub(super) fn is_given(self) -> bool {
        !matches!(self, SetCondition::None)
    }

    /// Whether the condition holds for the key.
    ///
    /// # Errors
    /// The key holds no string to compare, or the digest does not have 16 characters.
    pub(super) fn holds(self, view: &WriteView, key: &[u8]) -> Result<bool, CommandError> {
        Ok(match self {
            SetCondition::None => true,
            SetCondition::Absent => !view.contains(key),
            SetCondition::Present => view.contains(key),
            SetCondition::Equal(expected) => view.string(key, Access::Use)? == Some(expected),
            SetCondition::Unequal(expected) => view.string(key, Access::Use)? != Some(expected),
            SetCondition::DigestEqual(expected) => {
                has_digest(view.string(key, Access::Use)?, expected)?
            }
            SetCondition::DigestUnequal(expected) => {
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
    // If the key is missing or holds no string, even an invalid condition is not looked at.
    let condition = match (args.get(2), view.get(key, Access::Use).map(|entry| entry.value)) {
        (None, _) | (_, None) => SetCondition::None,
        (Some(_), Some(ValueRef::String(_))) => comparison(args)?,
        (Some(_), Some(_)) => {
            let text = "ERR Key should be of string type if conditions are specified";
            return Err(CommandError::new(text));
        }
    };
    delete_if(view, key, condition, reply)
}

/// The condition of DELEX.
fn comparison(args: Args) -> Result<SetCondition, CommandError> {
    match SetCondition::take(&mut OptionCursor::new(args, 2))? {
        Some(SetCondition::Absent | SetCondition::Present) | None => {
            let text = "ERR Invalid condition. Use IFEQ, IFNE, IFDEQ, or IFDNE";
            Err(CommandError::new(text))
        }
        Some(condition) => Ok(condition),
    }
}

fn delifeq(view: &mut WriteView, args: Args, reply: &mut Reply) -> Change {
    delete_if(view, &args[1], SetCondition::Equal(&args[2]), reply)
}

fn delete_if(
    view: &mut WriteView,
    key: &[u8],
    condition: SetCondition,
    reply: &mut Reply,
) -> Change {
    let removed = condition.holds(view, key)? && view.remove(key);
    if removed {
        view.notify(EventClass::GENERIC, "del", key);
    }
    reply.integer(removed.into());
    Ok(if removed { Propagate::rewritten(&[b"DEL", key]) } else { Propagate::Nothing })
}
