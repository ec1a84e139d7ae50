//! `CLUSTER` and its relatives: there is no cluster, and all of them say so.
//!
//! Clients that can use a cluster ask first, and take this error as the answer. The rows give what
//! `COMMAND` says of them, from which tools generate code.
//!
//! The commands are described at <https://redis.io/docs/latest/commands/?group=cluster>.

use super::spec::{Command, Context, Family, Flags, Handler, Outcome, command, session};
use crate::resp::{Args, CommandError, Reply};

/// The commands about a cluster.
#[rustfmt::skip]
pub static FAMILY: Family = Family { group: "cluster", commands: &[
    disabled("asking", "", "3.0.0").fast().flags(Flags::CONNECTION),
    command("cluster", "subcommand [argument ...]", Handler::Container(COMMANDS, None))
        .doc("3.0.0", "depends on the subcommand", "A container for commands about a cluster."),
    disabled("readonly", "", "3.0.0").fast().flags(Flags::ALWAYS.or(Flags::CONNECTION)),
    disabled("readwrite", "", "3.0.0").fast().flags(Flags::ALWAYS.or(Flags::CONNECTION)),
] };

const ADMIN: Flags = Flags::ADMIN.or(Flags::STALE);
/// For commands that change the cluster.
const CHANGES: Flags = ADMIN.or(Flags::NO_ASYNC_LOADING);
const VARYING: &[&str] = &["nondeterministic_output"];

#[rustfmt::skip]
const COMMANDS: &[Command] = &[
    disabled("cluster|addslots", "slot [slot ...]", "3.0.0").flags(CHANGES),
    disabled("cluster|addslotsrange", "start-slot end-slot [start-slot end-slot ...]", "7.0.0")
        .flags(CHANGES),
    disabled("cluster|bumpepoch", "", "3.0.0").flags(CHANGES).tips(VARYING),
    disabled("cluster|count-failure-reports", "node-id", "3.0.0").flags(ADMIN).tips(VARYING),
    disabled("cluster|countkeysinslot", "slot", "3.0.0").flags(Flags::STALE),
    disabled("cluster|delslots", "slot [slot ...]", "3.0.0").flags(CHANGES),
    disabled("cluster|delslotsrange", "start-slot end-slot [start-slot end-slot ...]", "7.0.0")
        .flags(CHANGES),
    disabled("cluster|failover", "[FORCE | TAKEOVER]", "3.0.0").flags(CHANGES),
    disabled("cluster|flushslots", "", "3.0.0").flags(CHANGES),
    disabled("cluster|forget", "node-id", "3.0.0").flags(CHANGES),
    disabled("cluster|getkeysinslot", "slot count", "3.0.0").flags(Flags::STALE).tips(VARYING),
    disabled("cluster|help", "", "5.0.0").flags(Flags::ALWAYS.or(Flags::HELP)),
    disabled("cluster|info", "", "3.0.0").flags(Flags::STALE).tips(VARYING),
    disabled("cluster|keyslot", "keyname", "3.0.0").flags(Flags::STALE),
    disabled("cluster|links", "", "7.0.0").flags(Flags::STALE).tips(VARYING),
    disabled("cluster|meet", "ip port [cluster-bus-port]", "3.0.0").flags(CHANGES),
    disabled("cluster|myid", "", "3.0.0").flags(Flags::STALE),
    disabled("cluster|myshardid", "", "7.2.0").flags(Flags::STALE).tips(VARYING),
    disabled("cluster|nodes", "", "3.0.0").flags(Flags::STALE).tips(VARYING),
    disabled("cluster|replicas", "node-id", "5.0.0").flags(ADMIN).tips(VARYING),
    disabled("cluster|replicate", "node-id", "3.0.0").flags(CHANGES),
    disabled("cluster|reset", "[HARD | SOFT]", "3.0.0").flags(ADMIN.or(Flags::NOSCRIPT)),
    disabled("cluster|saveconfig", "", "3.0.0").flags(CHANGES),
    disabled("cluster|set-config-epoch", "config-epoch", "3.0.0").flags(CHANGES),
    disabled("cluster|setslot", "slot <IMPORTING node-id | MIGRATING node-id | NODE node-id | STABLE>",
        "3.0.0").flags(CHANGES),
    disabled("cluster|shards", "", "7.0.0").flags(Flags::ALWAYS).tips(VARYING),
    disabled("cluster|slaves", "node-id", "3.0.0").flags(ADMIN).tips(VARYING)
        .deprecated("5.0.0", "`CLUSTER REPLICAS`"),
    disabled("cluster|slot-stats",
        "<SLOTSRANGE start-slot end-slot | ORDERBY metric [LIMIT limit] [ASC | DESC]>", "8.2.0")
        .flags(Flags::ALWAYS)
        .tips(&["nondeterministic_output", "request_policy:all_shards"]),
    disabled("cluster|slots", "", "3.0.0").flags(Flags::ALWAYS).tips(VARYING)
        .deprecated("7.0.0", "`CLUSTER SHARDS`"),
];

const fn disabled(name: &'static str, syntax: &'static str, since: &'static str) -> Command {
    session(name, syntax, refuse).doc(
        since,
        "O(1)",
        "Returns an error, because there is no cluster.",
    )
}

fn refuse(_: &mut Context, _: Args, _: &mut Reply) -> Outcome {
    Err(CommandError::new("ERR This instance has cluster support disabled"))
}
