//! From arguments or a name to the row of the command table.
//!
//! There are two ways to ask. [`find_row`] takes the arguments of a call and, where the command is a
//! container, goes on to the subcommand; [`resolve`] also checks the number of arguments. [`by_name`]
//! takes a name such as `get` or `config|get`. Dispatch, replay, `COMMAND`, `ACL` and `LATENCY` all ask
//! here, so they agree on what a command is and on the error if there is none.

use std::cell::Cell;
use std::sync::LazyLock;

use super::all;
use super::options::{QUOTED_BYTES, is, quotable, wrong_subcommand_args};
use super::spec::{Command, Flags, Handler};
use crate::resp::{Args, CommandError};
use crate::stats::CommandId;

/// Finds the row of a call and checks the number of its arguments.
///
/// # Errors
/// Redis's texts: there is no such command or subcommand, or it takes another number of arguments.
pub fn resolve(args: Args) -> Result<&'static Command, CommandError> {
    let row = find_row(args)?;
    if row.accepts(args.len()) {
        return Ok(row);
    }
    Err(format!("ERR wrong number of arguments for '{}' command", row.name).into())
}

/// Finds the row of a call, whatever the number of its arguments. A container without a subcommand
/// is itself the row.
///
/// # Errors
/// There is no such command or subcommand.
pub fn find_row(args: Args) -> Result<&'static Command, CommandError> {
    let command = find(&args[0]).ok_or_else(|| unknown_command(args))?;
    match args.get(1) {
        Some(name) if !command.subcommands().is_empty() => {
            let is_it = |row: &&Command| is(name, subcommand_name(row));
            let row = command.subcommands().iter().find(is_it);
            row.ok_or_else(|| unknown_subcommand(command, name))
        }
        _ => Ok(command),
    }
}

/// Finds the row of a subcommand that clients do not see as one.
///
/// # Errors
/// There is no such subcommand, or it takes another number of arguments.
pub fn find_hidden(rows: &'static [Command], args: Args) -> Result<&'static Command, CommandError> {
    let is_it = |row: &&Command| is(&args[1], subcommand_name(row)) && row.accepts(args.len());
    rows.iter().find(is_it).ok_or_else(|| wrong_subcommand_args(args))
}

/// Finds the row of a record in the log: a read or a write of keys, or `SELECT`.
///
/// # Errors
/// Those of [`resolve`], or the command does not belong in a log.
pub fn resolve_record(args: Args) -> Result<&'static Command, CommandError> {
    let row = resolve(args)?;
    match row.handler {
        Handler::Read(_) | Handler::Write(_) | Handler::ReadAll(_) | Handler::WriteAll(_) => {
            Ok(row)
        }
        _ if row.has(Flags::IN_LOG) => Ok(row),
        _ => Err(CommandError::new("ERR a command that does not belong in a log")),
    }
}

/// How a report on the log describes a record that failed.
pub fn describe_failure(args: Args, error: &CommandError) -> String {
    let name = args[0].escape_ascii();
    format!("'{name}': {}", String::from_utf8_lossy(error.text()))
}

/// Finds a command or, with `container|name`, a subcommand, in letters of any case; with its group.
/// This walks the table: it is for commands about commands, not for every call.
pub fn by_name(name: &[u8]) -> Option<(&'static str, &'static Command)> {
    rows().find(|(_, row)| is(name, row.name))
}

/// All rows with their groups, each container followed by its subcommands.
pub fn rows() -> impl Iterator<Item = (&'static str, &'static Command)> {
    all().flat_map(|(group, row)| {
        std::iter::once(row).chain(row.subcommands()).map(move |row| (group, row))
    })
}

/// The row with that id: its index among [`rows`].
pub fn row(id: CommandId) -> Option<&'static Command> {
    static ROWS: LazyLock<Vec<&Command>> = LazyLock::new(|| rows().map(|(_, row)| row).collect());
    ROWS.get(id).copied()
}

/// The name of a subcommand without its container's.
pub fn subcommand_name(row: &Command) -> &'static str {
    row.name.split_once('|').map_or(row.name, |(_, name)| name)
}

/// The slots of [`find`]'s table: a power of two, and enough that most names have a slot of their own.
const SLOTS: usize = 1024;

/// Finds a command, not a subcommand, by its name in letters of any case. A client often sends the same
/// command again, so each thread remembers the last one.
#[inline]
pub fn find(name: &[u8]) -> Option<&'static Command> {
    thread_local! {
        static LAST: Cell<Option<&'static Command>> = const { Cell::new(None) };
    }
    let is_it = |row: &&Command| is(name, row.name);
    LAST.get().filter(is_it).or_else(|| search(name).inspect(|row| LAST.set(Some(row))))
}

/// Searches a table with open addressing; a `HashMap` would need a copy of the name in small letters. All
/// names in the table are ours, so no client can make them collide.
fn search(name: &[u8]) -> Option<&'static Command> {
    static TABLE: LazyLock<Vec<Option<&Command>>> = LazyLock::new(|| {
        let mut table = vec![None; SLOTS];
        for (_, row) in all() {
            let free = slots(row.name.as_bytes()).find(|&slot| table[slot].is_none());
            free.into_iter().for_each(|slot| table[slot] = Some(row));
        }
        table
    });
    let mut rows = slots(name).map_while(|slot| TABLE[slot]);
    rows.find(|row| is(name, row.name))
}

/// The slots to try for a name: they begin at its hash (FNV-1a, regardless of case).
fn slots(name: &[u8]) -> impl Iterator<Item = usize> {
    let step =
        |hash: u64, byte: &u8| (hash ^ u64::from(byte | 0x20)).wrapping_mul(0x0100_0000_01b3);
    let hash = name.iter().fold(0xcbf2_9ce4_8422_2325, step);
    let first = (hash ^ (hash >> 32)) as usize;
    (first..first.saturating_add(SLOTS)).map(|slot| slot % SLOTS)
}

fn unknown_command(args: Args) -> CommandError {
    let mut quoted = Vec::new();
    for arg in args.from(1) {
        if quoted.len() >= QUOTED_BYTES {
            break;
        }
        let room = QUOTED_BYTES - quoted.len();
        quoted.extend([b"'", quotable(arg, room), b"' "].concat());
    }
    let name = quotable(&args[0], QUOTED_BYTES);
    [b"ERR unknown command '", name, b"', with args beginning with: ", &quoted].concat().into()
}

fn unknown_subcommand(container: &Command, name: &[u8]) -> CommandError {
    let name = quotable(name, QUOTED_BYTES);
    let container = container.name.to_uppercase();
    let help = format!("'. Try {container} HELP.");
    [b"ERR unknown subcommand '", name, help.as_bytes()].concat().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_found_in_letters_of_any_case_and_only_by_its_whole_name() {
        assert_eq!(find(b"GeT").map(|row| row.name), Some("get"));
        assert!(find(b"ge").is_none() && find(b"").is_none() && find(&[b'g'; 99]).is_none());
    }

    #[test]
    fn a_subcommand_is_found_by_its_whole_name_and_is_no_command_by_itself() {
        assert_eq!(by_name(b"Config|GET").map(|(_, row)| row.name), Some("config|get"));
        assert!(by_name(b"config|").is_none() && by_name(b"get|config").is_none());
        assert!(find(b"config|get").is_none());
    }
}
