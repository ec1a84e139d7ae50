//! `SLOWLOG`: the commands that took at least `slowlog-log-slower-than` microseconds.
//!
//! The dispatcher measures every command and adds the slow ones here. A command's time begins when the
//! command before it ends, or when its batch arrives. It includes waiting for a shard's lock, but not waiting
//! for the client, for the log's flush or for the socket.
//!
//! No slow command is missed. Equal brief commands in a pipeline are timed together
//! ([`crate::stats::timer`]); if they were slow, the entry shows the first of them and says so. With
//! `slowlog-log-slower-than` below 1000, every command is timed alone.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::docs::help;
use super::options::wrong_subcommand_args;
use super::spec::{Command, Context, Family, Flags, Handler, Outcome, command, session};
use crate::resp::{Args, CommandError, Reply};
use crate::session::{Server, Session};
use crate::stats::SlowLog;
use crate::stats::slowlog::{Slow, shorten};
use crate::stats::unix_seconds;
use crate::text::integer::parse_i64;

const ADMIN: Flags = Flags::ADMIN.or(Flags::ALWAYS);

/// The commands about the slow log.
#[rustfmt::skip]
pub static FAMILY: Family = Family { group: "server", commands: &[
    command("slowlog", "subcommand [argument ...]", Handler::Container(COMMANDS, None))
        .doc("2.2.12", "depends on the subcommand", "Shows which commands took long."),
] };

#[rustfmt::skip]
const COMMANDS: &[Command] = &[
    session("slowlog|get", "[count]", get).flags(ADMIN)
        .tips(&["request_policy:all_nodes", "nondeterministic_output"])
        .history(&[("4.0.0", "Added the address and name of the client.")])
        .doc("2.2.12", "O(N) with N the number of entries returned",
             "Returns the last entries: ten, or the given number, or all for -1."),
    help("slowlog|help", "6.2.0"),
    session("slowlog|len", "", len).flags(ADMIN)
        .tips(&["request_policy:all_nodes", "response_policy:agg_sum", "nondeterministic_output"])
        .doc("2.2.12", "O(1)", "Returns the number of entries."),
    session("slowlog|reset", "", reset).flags(ADMIN)
        .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"])
        .doc("2.2.12", "O(N) with N the number of entries", "Forgets all entries."),
];

/// Adds a slow command to the slow log.
pub fn add(server: &Server, session: &Session, took: Duration, args: Vec<Vec<u8>>) {
    let microseconds = took.as_micros().try_into().unwrap_or(u64::MAX);
    let slow = new_entry(session, microseconds, args);
    server.stats.slowlog.add(slow, server.config.slowlog_limit());
}

fn new_entry(session: &Session, amount: u64, args: Vec<Vec<u8>>) -> Slow {
    Slow {
        id: 0, // set by SlowLog::add
        at: unix_seconds(),
        amount,
        args,
        address: session.client.addresses().0,
        name: session.client.state().name.clone(),
    }
}

/// Adds a command to the logs of large requests and large replies, if it is that large.
#[inline(always)]
pub fn note_sizes(
    server: &Server,
    session: &Session,
    command: &Command,
    args: Args,
    reply_bytes: usize,
) {
    let Server { config, stats, .. } = server;
    // A negative limit becomes one that nothing reaches.
    let [request_limit, reply_limit] =
        [&config.commandlog_request_larger_than, &config.commandlog_reply_larger_than]
            .map(|limit| limit.load(Relaxed) as usize);
    if let Some(bytes) = args.encoded_bytes_from(request_limit) {
        let kept = config.commandlog_large_request_max_len.load(Relaxed);
        note_size(&stats.large_requests, kept, session, command, args, bytes);
    }
    if reply_bytes >= reply_limit {
        let kept = config.commandlog_large_reply_max_len.load(Relaxed);
        note_size(&stats.large_replies, kept, session, command, args, reply_bytes);
    }
}

#[cold]
fn note_size(
    log: &SlowLog,
    kept: i64,
    session: &Session,
    command: &Command,
    args: Args,
    bytes: usize,
) {
    if !command.has(Flags::SKIP_SLOWLOG) {
        log.add(new_entry(session, bytes as u64, entry(command, args)), kept as usize);
    }
}

/// The arguments that the entry of a command shows.
pub fn entry(command: &Command, args: Args) -> Vec<Vec<u8>> {
    shorten(command.without_secrets(args))
}

/// The arguments that the entry of a run shows: the command's name, the first key, and the number of calls.
pub fn entry_of_run(command: &Command, calls: u32, first_key: &[u8]) -> Vec<Vec<u8>> {
    let note = format!("... (first of {calls} in a pipeline, timed together)");
    vec![command.name.as_bytes().to_vec(), first_key.to_vec(), note.into_bytes()]
}

fn get(context: &mut Context, args: Args, reply: &mut Reply) -> Outcome {
    if args.len() > 3 {
        return Err(wrong_subcommand_args(args));
    }
    let count = args.get(2).map_or(Ok(10), parse_count)?;
    show(&context.server.stats.slowlog, count, reply);
    Ok(())
}

/// The number of entries to return; -1 means all.
pub(super) fn parse_count(count: &[u8]) -> Result<usize, CommandError> {
    match parse_i64(count) {
        Some(-1) => Ok(usize::MAX),
        count => count
            .and_then(|count| usize::try_from(count).ok())
            .ok_or(CommandError::new("ERR count should be greater than or equal to -1")),
    }
}

/// Replies with the last entries of a log.
pub(super) fn show(log: &SlowLog, count: usize, reply: &mut Reply) {
    let entries = log.last(count);
    reply.array(entries.len());
    for slow in entries {
        reply.array(6);
        reply.integer(slow.id as i64);
        reply.integer(slow.at as i64);
        reply.integer(slow.amount as i64);
        reply.array(slow.args.len());
        slow.args.iter().for_each(|arg| reply.bulk(arg));
        reply.bulk(slow.address.as_bytes());
        reply.bulk(&slow.name);
    }
}

fn len(context: &mut Context, _: Args, reply: &mut Reply) -> Outcome {
    reply.count(context.server.stats.slowlog.count());
    Ok(())
}

fn reset(context: &mut Context, _: Args, reply: &mut Reply) -> Outcome {
    context.server.stats.slowlog.clear();
    reply.ok();
    Ok(())
}
