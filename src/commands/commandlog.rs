//! `COMMANDLOG`, which only Valkey has: the commands that were slow (the slow log by another name), that had
//! a large request, or that had a large reply.
//!
//! A request counts as if each argument had its length in front; a reply counts in the protocol of its
//! client. Inside a transaction each command counts for itself.
//!
//! The commands are described at <https://valkey.io/commands/commandlog/>.

use super::docs::help;
use super::options::is;
use super::slowlog::{parse_count, show};
use super::spec::{Command, Context, Family, Flags, Handler, Outcome, command, session};
use crate::resp::{Args, CommandError, Reply};
use crate::session::Server;
use crate::stats::SlowLog;

const ADMIN: Flags = Flags::ADMIN.or(Flags::ALWAYS);

/// The commands about the three logs.
#[rustfmt::skip]
pub static FAMILY: Family = Family { group: "server", commands: &[
    command("commandlog", "subcommand [argument ...]", Handler::Container(COMMANDS, None))
        .doc("8.1.0", "depends on the subcommand",
             "Shows which commands were slow, large, or had a large reply."),
] };

#[rustfmt::skip]
const COMMANDS: &[Command] = &[
    session("commandlog|get", "count <SLOW | LARGE-REQUEST | LARGE-REPLY>", get).flags(ADMIN)
        .tips(&["request_policy:all_nodes", "nondeterministic_output"])
        .doc("8.1.0", "O(N) with N the number of entries returned",
             "Returns the last entries of a log: the given number, or all for -1."),
    help("commandlog|help", "8.1.0"),
    session("commandlog|len", "<SLOW | LARGE-REQUEST | LARGE-REPLY>", len).flags(ADMIN)
        .tips(&["request_policy:all_nodes", "response_policy:agg_sum", "nondeterministic_output"])
        .doc("8.1.0", "O(1)", "Returns the number of entries of a log."),
    session("commandlog|reset", "<SLOW | LARGE-REQUEST | LARGE-REPLY>", reset).flags(ADMIN)
        .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"])
        .doc("8.1.0", "O(N) with N the number of entries", "Forgets the entries of a log."),
];

fn log<'a>(server: &'a Server, name: &[u8]) -> Result<&'a SlowLog, CommandError> {
    let stats = &server.stats;
    let logs = [
        ("slow", &stats.slowlog),
        ("large-request", &stats.large_requests),
        ("large-reply", &stats.large_replies),
    ];
    let found = logs.into_iter().find(|(known, _)| is(name, known)).map(|(_, log)| log);
    let text = "ERR type should be one of the following: slow, large-request, large-reply";
    found.ok_or(CommandError::new(text))
}

fn get(context: &mut Context, args: Args, reply: &mut Reply) -> Outcome {
    let count = parse_count(&args[2])?;
    show(log(context.server, &args[3])?, count, reply);
    Ok(())
}

fn len(context: &mut Context, args: Args, reply: &mut Reply) -> Outcome {
    reply.count(log(context.server, &args[2])?.count());
    Ok(())
}

fn reset(context: &mut Context, args: Args, reply: &mut Reply) -> Outcome {
    log(context.server, &args[2])?.clear();
    reply.ok();
    Ok(())
}
