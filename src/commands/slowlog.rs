//! `SLOWLOG`: which commands took longer than `slowlog-log-slower-than`.
//!
//! The dispatcher measures every command and enters the slow ones here. What a command took is the time
//! from the end of the command before, or from the arrival of its batch: waiting for a shard's lock is
//! in it, waiting for the client, for the log's flush and for the socket is not.
//!
//! No slow command is missed. But a few equal brief commands in a pipeline are timed together
//! ([`crate::stats::calls`]), and if they were slow the entry shows the first and says so. With
//! `slowlog-log-slower-than` below 1000 every command is timed alone.

use std::time::Duration;

use super::docs::help;
use super::options::wrong_subcommand_args;
use super::spec::{Command, Context, Family, Flags, Handler, Outcome, command, session};
use crate::resp::{Args, CommandError, Reply};
use crate::session::{Server, Session};
use crate::stats::calls::Timed;
use crate::stats::slowlog::{Slow, shorten};
use crate::stats::unix_seconds;
use crate::text::integer::parse_i64;

const ADMIN: Flags = Flags::ADMIN.or(Flags::ALWAYS);

/// The slow log.
#[rustfmt::skip]
pub static FAMILY: Family = Family { group: "server", commands: &[
    command("slowlog", "subcommand [argument ...]", Handler::Container(COMMANDS, None))
        .doc("2.2.12", "depends on the subcommand", "Tells which commands took long."),
] };

#[rustfmt::skip]
const COMMANDS: &[Command] = &[
    session("slowlog|get", "[count]", get).flags(ADMIN)
        .tips(&["request_policy:all_nodes", "nondeterministic_output"])
        .doc("2.2.12", "O(N) with N the number of entries returned",
             "Returns the last entries, ten or as many as asked for; -1 for all."),
    help("slowlog|help", "6.2.0"),
    session("slowlog|len", "", len).flags(ADMIN)
        .tips(&["request_policy:all_nodes", "response_policy:agg_sum", "nondeterministic_output"])
        .doc("2.2.12", "O(1)", "Returns the number of entries."),
    session("slowlog|reset", "", reset).flags(ADMIN)
        .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"])
        .doc("2.2.12", "O(N) with N the number of entries", "Forgets all entries."),
];

/// Enters what took long.
pub fn enter(server: &Server, session: &Session, took: Duration, args: Vec<Vec<u8>>) {
    let slow = Slow {
        id: 0, // the log gives it its own
        at: unix_seconds(),
        microseconds: took.as_micros().try_into().unwrap_or(u64::MAX),
        args,
        address: session.client.addresses().0,
        name: session.client.state().name.clone(),
    };
    server.stats.slowlog.add(slow, server.config.slowlog_limit());
}

/// What the entry of a command shows.
pub fn entry(command: &Command, args: Args) -> Vec<Vec<u8>> {
    shorten(command.without_secrets(args))
}

/// What the entry of commands shows that were timed together: their name, the first key and how many
/// there were.
pub fn entry_of_run(timed: &Timed, first_key: &[u8]) -> Vec<Vec<u8>> {
    let note = format!("... (first of {} in a pipeline, timed together)", timed.calls);
    vec![timed.name.as_bytes().to_vec(), first_key.to_vec(), note.into_bytes()]
}

fn get(context: &mut Context, args: Args, reply: &mut Reply) -> Outcome {
    if args.len() > 3 {
        return Err(wrong_subcommand_args(args));
    }
    let count = match args.get(2).map(parse_i64) {
        None => 10,
        Some(Some(-1)) => usize::MAX,
        Some(count) => count
            .and_then(|count| usize::try_from(count).ok())
            .ok_or(CommandError::new("ERR count should be greater than or equal to -1"))?,
    };
    let entries = context.server.stats.slowlog.last(count);
    reply.array(entries.len());
    for slow in entries {
        reply.array(6);
        reply.integer(slow.id as i64);
        reply.integer(slow.at as i64);
        reply.integer(slow.microseconds as i64);
        reply.array(slow.args.len());
        slow.args.iter().for_each(|arg| reply.bulk(arg));
        reply.bulk(slow.address.as_bytes());
        reply.bulk(&slow.name);
    }
    Ok(())
}

fn len(context: &mut Context, _: Args, reply: &mut Reply) -> Outcome {
    reply.count(context.server.stats.slowlog.len());
    Ok(())
}

fn reset(context: &mut Context, _: Args, reply: &mut Reply) -> Outcome {
    context.server.stats.slowlog.clear();
    reply.ok();
    Ok(())
}
