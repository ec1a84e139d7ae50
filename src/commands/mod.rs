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
pub mod lookup;
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

pub use lookup::{find, subcommand_name};
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_rows_have_one_name_and_all_are_documented() {
        let mut names = std::collections::HashSet::new();
        for (_, row) in lookup::rows() {
            assert!(names.insert(row.name), "{} stands in the table twice", row.name);
            assert!(!row.summary.is_empty(), "{} has no summary", row.name);
            assert_eq!(row.name, row.name.to_lowercase());
        }
    }
}
