//! The command table: each file is a family of commands, with the rows first and the handlers below.
//!
//! [`FAMILIES`] is the only list of commands. To add a command, add a row and a function to the file of its
//! family. Dispatch, arity, locking, logging and `COMMAND` follow from the row, and a test prints what is
//! missing in the README.
//!
//! Redis documents every command on a page of its own: `HGET` at
//! <https://redis.io/docs/latest/commands/hget/>, `CLIENT ID` at
//! <https://redis.io/docs/latest/commands/client-id/>.

pub mod acl;
pub mod aclfile;
pub mod bitmaps;
pub mod clients;
pub mod cluster;
pub mod commandlog;
pub mod compare;
pub mod connection;
pub mod debug;
pub mod docs;
pub mod dump;
pub mod expiry;
pub mod failover;
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
pub mod modules;
pub mod monitor;
pub mod names;
pub mod options;
pub mod permission;
pub mod pubsub;
pub mod replicaof;
pub mod replication;
pub mod rules;
pub mod server;
pub mod slowlog;
pub mod snapshots;
pub mod spec;
pub mod strings;
mod tracking;
pub mod transactions;

pub use lookup::subcommand_name;
pub use names::find;
use std::sync::LazyLock;

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
    &dump::FAMILY,
    &keys::WHOLE,
    &transactions::FAMILY,
    &connection::FAMILY,
    &pubsub::FAMILY,
    &replication::GENERIC,
    &server::FAMILY,
    &replicaof::FAMILY,
    &replication::FAMILY,
    &failover::FAMILY,
    &snapshots::FAMILY,
    &inspect::MEMORY,
    &debug::FAMILY,
    &info::FAMILY,
    &slowlog::FAMILY,
    &commandlog::FAMILY,
    &latency::FAMILY,
    &acl::FAMILY,
    &lolwut::FAMILY,
    &docs::FAMILY,
    &monitor::FAMILY,
    &modules::FAMILY,
    &cluster::FAMILY,
];

/// The rows of [`FAMILIES`] with their ids and groups.
static TABLE: LazyLock<Vec<(&str, Command)>> = LazyLock::new(|| {
    let mut next_id = 0;
    let mut with_id = |row: &Command| {
        let mut row = *row;
        row.id = next_id;
        next_id += 1;
        row
    };
    let mut table = Vec::new();
    for family in FAMILIES {
        for row in family.commands {
            let mut row = with_id(row);
            if let Handler::Container(rows, _) = &mut row.handler {
                *rows = rows.iter().map(&mut with_id).collect::<Vec<_>>().leak();
            }
            table.push((family.group, row));
        }
    }
    table
});

/// All commands, without subcommands, with their groups, in the order of the table.
pub fn all() -> impl Iterator<Item = (&'static str, &'static Command)> {
    TABLE.iter().map(|(group, row)| (*group, row))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::COMMAND_LIMIT;

    #[test]
    fn names_are_unique_and_in_lower_case_and_every_row_has_a_summary() {
        let mut names = std::collections::HashSet::new();
        for (id, (_, row)) in lookup::rows().enumerate() {
            assert!(row.id == id && id < COMMAND_LIMIT, "{} has another id", row.name);
            assert!(names.insert(row.name), "{} is in the table twice", row.name);
            assert!(!row.summary.is_empty(), "{} has no summary", row.name);
            assert_eq!(row.name, row.name.to_lowercase());
        }
    }
}
