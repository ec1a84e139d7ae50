//! From arguments or a name to the row of the command table.
//!
//! There are two ways to ask. [`find_row`] takes the arguments of a call and, where the command is a
//! container, goes on to the subcommand; [`resolve`] also checks the number of arguments. [`by_name`]
//! takes a name such as `get` or `config|get`. Dispatch, replay, `COMMAND`, `ACL` and `LATENCY` all ask
//! here, so they agree on what a command is and on the error if there is none.

use std::sync::LazyLock;

use super::all;
use super::names::{callable, find, find_original};
use super::options::{QUOTED_BYTES, is, quotable, wrong_subcommand_args};
use super::spec::{Command, Flags, Handler};
use crate::resp::{Args, CommandError};
use crate::stats::CommandId;

/// Finds the row of a call and checks the number of its arguments.
///
/// # Errors
/// Redis's texts: there is no such command or subcommand, or it takes another number of arguments.
pub fn resolve(args: Args) -> Result<&'static Command, CommandError> {
    with_arity(find_row(args)?, args)
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
            subcommand(command, name).ok_or_else(|| unknown_subcommand(&args[0], name))
        }
        _ => Ok(command),
    }
}

fn subcommand(container: &'static Command, name: &[u8]) -> Option<&'static Command> {
    container.subcommands().iter().find(|row| is(name, subcommand_name(row)))
}

fn with_arity(row: &'static Command, args: Args) -> Result<&'static Command, CommandError> {
    if row.accepts(args.len()) {
        return Ok(row);
    }
    Err(format!("ERR wrong number of arguments for '{}' command", row.name).into())
}

/// Finds the row of a subcommand that clients do not see as one.
///
/// # Errors
/// There is no such subcommand, or it takes another number of arguments.
pub fn find_hidden(rows: &'static [Command], args: Args) -> Result<&'static Command, CommandError> {
    let is_it = |row: &&Command| is(&args[1], subcommand_name(row)) && row.accepts(args.len());
    rows.iter().find(is_it).ok_or_else(|| wrong_subcommand_args(args))
}

/// Finds the row of a record in the log: a read or a write of keys, or `SELECT`. A log that Redis left has
/// the names that its clients used.
///
/// # Errors
/// Those of [`resolve`], or the command does not belong in a log.
pub fn resolve_record(args: Args) -> Result<&'static Command, CommandError> {
    let row = find_original(&args[0]).or_else(|| find(&args[0]));
    let row = row.ok_or_else(|| unknown_command(args))?;
    let row = with_arity(row, args)?;
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

/// Finds a command or, with `container|name`, a subcommand, by its name in the table, in letters of any case;
/// with its group. This walks the table: it is for commands about commands, not for every call.
pub fn by_name(name: &[u8]) -> Option<(&'static str, &'static Command)> {
    rows().find(|(_, row)| is(name, row.name))
}

/// The same by the name that clients use.
pub fn by_called_name(name: &[u8]) -> Option<(&'static str, &'static Command)> {
    let mut parts = name.splitn(2, |byte| *byte == b'|');
    let command = find(parts.next()?)?;
    let row = parts.next().map_or(Some(command), |name| subcommand(command, name))?;
    rows().nth(row.id)
}

/// All rows with their groups, each container followed by its subcommands.
pub fn rows() -> impl Iterator<Item = (&'static str, &'static Command)> {
    all().flat_map(with_subcommands)
}

/// Those of them that clients can call.
pub fn callable_rows() -> impl Iterator<Item = (&'static str, &'static Command)> {
    callable().flat_map(with_subcommands)
}

fn with_subcommands(
    (group, row): (&'static str, &'static Command),
) -> impl Iterator<Item = (&'static str, &'static Command)> {
    std::iter::once(row).chain(row.subcommands()).map(move |row| (group, row))
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

fn unknown_subcommand(container: &[u8], name: &[u8]) -> CommandError {
    let name = quotable(name, QUOTED_BYTES);
    let container = quotable(container, QUOTED_BYTES).to_ascii_uppercase();
    [b"ERR unknown subcommand '", name, b"'. Try ", &*container, b" HELP."].concat().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subcommand_is_found_by_its_whole_name_and_is_no_command_by_itself() {
        assert_eq!(by_name(b"Config|GET").map(|(_, row)| row.name), Some("config|get"));
        assert!(by_name(b"config|").is_none() && by_name(b"get|config").is_none());
        assert!(find(b"config|get").is_none());
    }
}
