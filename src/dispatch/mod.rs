//! From arguments to effect: look up the row, admit the command, lock, run, commit, unlock.
//!
//! [`execute`] is the way in for clients and [`apply`] for a replay; both lead to `Call::run`.
//!
//! There are two invariants. A record is appended while the locks that guarded its change are still held, so
//! the log's order is memory's order. And `session.read_lsn` is at least the LSN of every change that the
//! replies show, whoever made it, so the connection knows how far to flush the log before it sends them.

mod call;
mod commit;
pub mod measure;
mod reload;
mod transaction;

use crate::commands::lookup::{describe_failure, find_hidden, find_row, resolve, resolve_record};
use crate::commands::spec::Outcome;
use crate::commands::{Command, Handler, slowlog, spec::Flags, spec::Nested};
use crate::config::logger::log_line;
use crate::config::trace::trace;
use crate::net::pause::Paused;
use crate::resp::{Args, CommandError, Protocol, Reply};
use crate::session::{Server, Session};
use call::Call;

pub use commit::commit_expired;

/// Runs one command for a connection and appends its answer, or its error, to the reply.
pub fn execute(server: &Server, session: &mut Session, args: Args, reply: &mut Reply) {
    let start = reply.len();
    if session.listens() {
        session.client.outbox.hold();
    }
    // The first words of an HTTP request: a browser was tricked into talking to us. Redis hangs up too.
    if args[0].eq_ignore_ascii_case(b"POST") || args[0].eq_ignore_ascii_case(b"Host:") {
        log_line!(server.config, Warning, "Closed a client that sent an HTTP request");
        session.closing = true;
        return;
    }
    let admitted = resolve(args).and_then(|command| {
        session.last_command = command.name;
        admit(server, session, command).map(|()| command)
    });
    if let Ok(command) = &admitted {
        let flags = || command.flag_names().join(" ");
        trace!("dispatch::execute", "row of the table: {} ({})", command.name, flags());
    }
    let mut confirms = false;
    let result = match admitted {
        Ok(command) if session.multi.is_some() && !command.has(Flags::NOT_QUEUED) => {
            transaction::queue(server, session, args, reply);
            Ok(())
        }
        Ok(command) => {
            let outcome = measure::measured(server, session, command, args, |session| {
                run(server, session, command, args, reply)
            });
            confirms = outcome.is_ok() && command.has(Flags::CONFIRMS);
            slowlog::note_sizes(server, session, command, args, reply.len() - start);
            outcome
        }
        Err(error) => {
            let command = find_row(args).ok();
            let error = transaction::refuse(server, session, command, error);
            session.last_command = command.map_or("NULL", |command| command.name);
            measure::rejected(server, session, command, &error);
            Err(error)
        }
    };
    if let Err(error) = result {
        reply.truncate(start);
        reply.error(&error);
    }
    if session.caching && session.multi.is_none() {
        // CLIENT CACHING applies to the next command or transaction that is not a CLIENT command.
        session.caching = find_row(args).is_ok_and(|row| row.has(Flags::KEEPS_CACHING));
    }
    session.finish(reply, start, confirms);
}

/// Runs a command outside a transaction. Commands that run other commands are handled here, so that
/// [`Call::run`] does not depend on them.
fn run(
    server: &Server,
    session: &mut Session,
    command: &'static Command,
    args: Args,
    reply: &mut Reply,
) -> Outcome {
    let row = match command.handler {
        Handler::Hidden(rows) => find_hidden(rows, args)?,
        _ => command,
    };
    let Handler::Nested(nested) = row.handler else {
        return Call { server, session, command, args }.run(&mut &server.keyspace, reply);
    };
    admit(server, session, row)?;
    let outcome = match nested {
        Nested::Exec => transaction::execute(server, session, reply),
        Nested::LoadAof => reload::load_aof(server, session, reply),
        Nested::Reload => reload::reload(server, session, args, reply),
        Nested::Populate => reload::populate(server, session, args, reply),
    };
    Call { server, session, command, args }.commit_without_keys(outcome)
}

/// Whether a pause holds the command back. A command that will be refused is not held back.
pub fn waits_for(what: Paused, server: &Server, session: &Session, args: Args) -> bool {
    let allowed = |command: &&Command| admit(server, session, command).is_ok();
    let writes = |command: &Command| {
        matches!(command.handler, Handler::Write(_) | Handler::WriteAll(_))
            || command.has(Flags::MAY_REPLICATE)
    };
    resolve(args).ok().filter(allowed).is_some_and(|command| {
        let queued = session.multi.iter().flat_map(|multi| multi.queue.iter());
        let mut queued = queued.filter_map(|args| resolve(args).ok());
        what == Paused::Everything
            || writes(command)
            || (matches!(command.handler, Handler::Nested(Nested::Exec)) && queued.any(writes))
    })
}

/// Runs one command of a log, without asking whether it is admitted.
///
/// # Errors
/// The command does not belong in a log, or it fails.
pub fn apply(
    server: &Server,
    session: &mut Session,
    args: Args,
    reply: &mut Reply,
) -> Result<(), String> {
    let result = resolve_record(args).and_then(|command| {
        Call { server, session, command, args }.run(&mut &server.keyspace, reply)
    });
    reply.clear(0);
    result.map_err(|error| describe_failure(args, &error))
}

/// Checks a record without running it, for `--check-aof`.
///
/// # Errors
/// It does not belong in a log, or it has the wrong number of arguments.
pub fn check(args: Args) -> Result<(), String> {
    resolve_record(args).map(drop).map_err(|error| describe_failure(args, &error))
}

const DEBUG_NOT_ALLOWED: CommandError = CommandError::new(
    "ERR DEBUG command not allowed. If the enable-debug-command option is set to \"local\", you can \
     run it from a local connection, otherwise you need to set this option in the configuration file, \
     and then restart the server.",
);

const SAVE_FAILED: CommandError = CommandError::new(
    "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk. \
     Commands that may modify the data set are disabled, because this instance is configured to report \
     errors during writes if RDB snapshotting fails (stop-writes-on-bgsave-error option). Please check the \
     Redis logs for details about the RDB error.",
);

/// Checks whether the connection may run the command now.
///
/// # Errors
/// Why it may not.
#[inline(always)]
fn admit(server: &Server, session: &Session, command: &Command) -> Outcome {
    if command.has(Flags::PROTECTED) && !server.config.allows_debug(session.client.is_local()) {
        return Err(DEBUG_NOT_ALLOWED);
    }
    if !session.authenticated && !command.has(Flags::NO_AUTH) {
        return Err(CommandError::new("NOAUTH Authentication required."));
    }
    if command.has(Flags::NO_MULTI) && session.multi.is_some() {
        return Err(CommandError::new("ERR Command not allowed inside a transaction"));
    }
    if server.is_loading() && !command.has(Flags::LOADING) {
        return Err(CommandError::new("LOADING Redis is loading the dataset in memory"));
    }
    if matches!(command.handler, Handler::Write(_) | Handler::WriteAll(_))
        && let Some(why) = server.aof.failure()
    {
        return Err(format!("MISCONF Errors writing to the AOF file: {why}").into());
    }
    if matches!(command.handler, Handler::Write(_) | Handler::WriteAll(_))
        && server.refuses_writes()
    {
        return Err(SAVE_FAILED);
    }
    if session.client.outbox.listening.subscribes()
        && session.client.outbox.protocol() == Protocol::Resp2
        && !command.has(Flags::SUBSCRIBED)
    {
        let text = format!(
            "ERR Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are \
             allowed in this context",
            command.name
        );
        return Err(text.into());
    }
    // To Redis, a monitor is a kind of replica.
    if session.client.outbox.listening.monitors()
        && (command.uses_keyspace() || command.has(Flags::MAY_REPLICATE))
    {
        return Err(CommandError::new("ERR Replica can't interact with the keyspace"));
    }
    Ok(())
}
