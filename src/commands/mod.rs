//! The command table: one family a file, each with its rows on top and their handlers below.
//!
//! [`FAMILIES`] is the only list of commands there is. To add a command, add a row and a function to
//! the file of its family; dispatch, arity, locking, logging and `COMMAND` follow, and a test says what the
//! README lacks.

pub mod acl;
pub mod bitmaps;
pub mod clients;
pub mod compare;
pub mod connection;
pub mod debug;
pub mod docs;
pub mod expiry;
pub mod fields;
pub mod hashes;
pub mod hyperloglog;
pub mod increx;
pub mod info;
pub mod inspect;
pub mod keys;
pub mod latency;
pub mod lcs;
pub mod lolwut;
pub mod memory;
pub mod monitor;
pub mod options;
pub mod pubsub;
pub mod server;
pub mod slowlog;
pub mod spec;
pub mod strings;
mod tracking;
pub mod transactions;

use std::cell::Cell;
use std::sync::LazyLock;

use crate::resp::{Args, CommandError};

pub use spec::{Command, Context, Family, Handler, Propagate};

/// All families of commands.
pub static FAMILIES: &[&Family] = &[
    &strings::FAMILY,
    &compare::FAMILY,
    &increx::FAMILY,
    &lcs::FAMILY,
    &bitmaps::FAMILY,
    &hyperloglog::FAMILY,
    &hashes::FAMILY,
    &fields::FAMILY,
    &keys::FAMILY,
    &expiry::FAMILY,
    &inspect::OBJECT,
    &keys::WHOLE,
    &transactions::FAMILY,
    &connection::FAMILY,
    &pubsub::FAMILY,
    &server::GENERIC,
    &server::FAMILY,
    &inspect::MEMORY,
    &debug::FAMILY,
    &info::FAMILY,
    &slowlog::FAMILY,
    &latency::FAMILY,
    &acl::FAMILY,
    &lolwut::FAMILY,
    &docs::FAMILY,
    &monitor::FAMILY,
];

/// All commands with the group that each is in, in the order of the table.
pub fn all() -> impl Iterator<Item = (&'static str, &'static Command)> {
    FAMILIES.iter().flat_map(|family| family.commands.iter().map(|row| (family.group, row)))
}

/// The places of [`find`]'s table: a power of two, and so many that most names have one for themselves.
const PLACES: usize = 1024;

/// Finds a command by its name, in letters of any case. A thread's client mostly asks for the same again.
#[inline]
pub fn find(name: &[u8]) -> Option<&'static Command> {
    thread_local! {
        static LAST: Cell<Option<&'static Command>> = const { Cell::new(None) };
    }
    let is_it = |row: &&Command| row.name.as_bytes().eq_ignore_ascii_case(name);
    LAST.get().filter(is_it).or_else(|| search(name).inspect(|row| LAST.set(Some(row))))
}

/// In a table with open addressing, as a `HashMap` would want a copy of the name in small letters. The names
/// in it are ours, so nobody can make them collide.
fn search(name: &[u8]) -> Option<&'static Command> {
    static TABLE: LazyLock<Vec<Option<&Command>>> = LazyLock::new(|| {
        let mut table = vec![None; PLACES];
        for (_, row) in all() {
            let mut free = places(row.name.as_bytes()).filter(|&place| table[place].is_none());
            let place = free.next();
            place.into_iter().for_each(|place| table[place] = Some(row));
        }
        table
    });
    let mut rows = places(name).map_while(|place| TABLE[place]);
    rows.find(|row| row.name.as_bytes().eq_ignore_ascii_case(name))
}

/// Where a name may stand: from a place that a hash of it tells (FNV-1a, letters taken for small) on.
fn places(name: &[u8]) -> impl Iterator<Item = usize> {
    let step =
        |hash: u64, byte: &u8| (hash ^ u64::from(byte | 0x20)).wrapping_mul(0x0100_0000_01b3);
    let hash = name.iter().fold(0xcbf2_9ce4_8422_2325, step);
    let first = (hash ^ (hash >> 32)) as usize;
    (first..first.saturating_add(PLACES)).map(|place| place % PLACES)
}

/// Finds a subcommand by its name, in letters of any case.
pub fn find_subcommand(container: &Command, name: &[u8]) -> Option<&'static Command> {
    let is = |row: &&Command| subcommand_name(row).as_bytes().eq_ignore_ascii_case(name);
    container.subcommands().iter().find(is)
}

/// Finds the row of a subcommand of which clients are not told.
///
/// # Errors
/// There is none of that name that takes so many arguments.
pub fn find_hidden(
    container: &Command,
    rows: &'static [Command],
    args: Args,
) -> Result<&'static Command, CommandError> {
    let name = &args[1];
    let is_meant = |row: &&Command| {
        name.eq_ignore_ascii_case(subcommand_name(row).as_bytes()) && row.accepts(args.len())
    };
    rows.iter().find(is_meant).ok_or_else(|| unknown_hidden(container.name, name))
}

/// That a container of hidden subcommands has none of that name, or that it takes other arguments.
pub fn unknown_hidden(container: &str, name: &[u8]) -> CommandError {
    let name = &name[..name.len().min(QUOTED_BYTES)];
    let text = b"ERR unknown subcommand or wrong number of arguments for '";
    let help = format!("'. Try {} HELP.", container.to_uppercase());
    [text, name, help.as_bytes()].concat().into()
}

/// How much of what it does not know an error repeats.
pub const QUOTED_BYTES: usize = 128;

/// The name of a subcommand without its container's.
pub fn subcommand_name(row: &Command) -> &'static str {
    row.name.split_once('|').map_or(row.name, |(_, name)| name)
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
    fn no_two_rows_have_one_name_and_all_are_documented() {
        let mut names = std::collections::HashSet::new();
        let rows = all().flat_map(|(_, row)| std::iter::once(row).chain(row.subcommands()));
        for row in rows {
            assert!(names.insert(row.name), "{} stands in the table twice", row.name);
            assert!(!row.summary.is_empty(), "{} has no summary", row.name);
            assert_eq!(row.name, row.name.to_lowercase());
        }
    }
}
