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
mod options;
pub mod pubsub;
pub mod server;
pub mod slowlog;
pub mod spec;
pub mod strings;
pub mod transactions;

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::LazyLock;

pub use spec::{Command, Context, Effect, Family, Handler};

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

/// The longest name of a command.
const NAME_LIMIT: usize = 32;

/// Finds a command by its name, in letters of any case.
pub fn find(name: &[u8]) -> Option<&'static Command> {
    static BY_NAME: LazyLock<HashMap<&[u8], &Command, BuildHasherDefault<NameHasher>>> =
        LazyLock::new(|| all().map(|(_, row)| (row.name.as_bytes(), row)).collect());
    let mut lower = [0; NAME_LIMIT];
    let lower = lower.get_mut(..name.len())?;
    lower.copy_from_slice(name);
    lower.make_ascii_lowercase();
    BY_NAME.get(&*lower).copied()
}

/// Finds a subcommand by its name, in letters of any case.
pub fn find_subcommand(container: &Command, name: &[u8]) -> Option<&'static Command> {
    let is = |row: &&Command| subcommand_name(row).as_bytes().eq_ignore_ascii_case(name);
    container.subcommands().iter().find(is)
}

/// The name of a subcommand without its container's.
pub fn subcommand_name(row: &Command) -> &'static str {
    row.name.split_once('|').map_or(row.name, |(_, name)| name)
}

/// A few quick steps over a short name (FNV-1a). The names in the map are ours, so nobody can make
/// them collide, and a client's own names only ever look for one.
struct NameHasher(u64);

impl Default for NameHasher {
    fn default() -> Self {
        NameHasher(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for NameHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        // The map takes its tag from the highest bits and its place from the lowest.
        self.0 ^ (self.0 >> 32)
    }
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
