//! From arguments to effect: look up the row, admit the command, lock, run, commit, unlock.
//!
//! [`execute`] is the way in for clients and [`apply`] for a replay; both lead to `Call::run`.
//!
//! There are two invariants. A record is appended while the locks that guarded its change are still held, so
//! the log's order is memory's order. And `session.read_lsn` is at least the LSN of every change that the
//! replies show, whoever made it, so the connection knows how far to flush the log before it sends them.

mod admit;
mod call;
mod commit;
pub mod evict;
pub mod follow;
pub mod measure;
mod migrate;
mod reload;
pub mod replay;
mod transaction;

use crate::commands::lookup::{describe_failure, find_hidden, find_row, resolve, resolve_record};
use crate::commands::spec::Outcome;
use crate::commands::{Command, Handler, slowlog, spec::Flags, spec::Nested};
use crate::config::logger::log_limited;
use crate::config::trace::trace;
use crate::net::pause::Paused;
use crate::resp::{Args, CommandError, Reply};
use crate::session::{Server, Session};
use admit::{Refusal, admit, admit_any_user};
use call::Call;

pub use commit::commit_removals;

/// Runs one command for a connection and appends its answer, or its error, to the reply.
pub fn execute(server: &Server, session: &mut Session, args: Args, reply: &mut Reply) {
    let start = reply.len();
    if session.listens() {
        session.client.outbox.hold();
    }
    // The first words of an HTTP request: a browser was tricked into talking to us. Redis hangs up too.
    if args[0].eq_ignore_ascii_case(b"POST") || args[0].eq_ignore_ascii_case(b"Host:") {
        log_limited!(server.config, Warning, "Closed a client that sent an HTTP request");
        session.closing = true;
        return;
    }
    session.login.refresh(&server.users);
    let admitted = resolve(args).map_err(Refusal::Error).and_then(|command| {
        session.last_command = command.name;
        admit(server, session, command, args)?;
        evict::make_room(server, session, command).map_err(Refusal::Error).map(|()| command)
    });
    if let Ok(command) = &admitted {
        let flags = || command.flag_names().join(" ");
        trace!("dispatch::execute", "row of the table: {} ({})", command.name, flags());
    }
    let mut confirms = false;
    let result = match admitted {
        Ok(command) if session.multi.is_some() && !command.has(Flags::NOT_QUEUED) => {
            let queued = transaction::queue(server, session, args, reply);
            queued.map_err(|error| note_rejection(server, session, Some(command), error))
        }
        Ok(command) => {
            let outcome = measure::measured(server, session, command, args, |session| {
                run(server, session, command, args, reply)?;
                reply.end()
            });
            confirms = outcome.is_ok() && command.has(Flags::CONFIRMS);
            slowlog::note_sizes(server, session, command, args, reply.len() - start);
            outcome
        }
        Err(refusal) => {
            let error = refusal.note(server, session);
            Err(note_rejection(server, session, find_row(args).ok(), error))
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

/// Answers a command of which nothing is known, because the system has refused the memory for it.
#[cold]
pub fn refuse(server: &Server, session: &mut Session, why: CommandError, reply: &mut Reply) {
    let start = reply.len();
    if session.listens() {
        session.client.outbox.hold();
    }
    let error = note_rejection(server, session, None, why);
    reply.error(&error);
    session.caching &= session.multi.is_some();
    session.finish(reply, start, false);
}

/// Notes that a command was refused. Returns what the client is told.
#[cold]
fn note_rejection(
    server: &Server,
    session: &mut Session,
    command: Option<&'static Command>,
    error: CommandError,
) -> CommandError {
    let error = transaction::refuse(server, session, command, error);
    session.last_command = command.map_or("NULL", |command| command.name);
    measure::rejected(server, session, command, &error);
    error
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
    admit_any_user(server, session, row)?;
    let outcome = match nested {
        Nested::Exec => transaction::execute(server, session, reply),
        Nested::LoadAof => reload::load_aof(server, session, reply),
        Nested::Reload => reload::reload(server, session, args, reply),
        Nested::Populate => reload::populate(server, session, args, reply),
        Nested::Migrate => migrate::migrate(server, session, args, reply),
    };
    Call { server, session, command, args }.commit_without_keys(outcome)
}

/// Whether a pause holds the command back. A command that will be refused is not held back.
pub fn waits_for(what: Paused, server: &Server, session: &Session, args: Args) -> bool {
    let allowed = |command: &&Command| admit(server, session, command, args).is_ok();
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
    if follow::is_passed_over(args) {
        return Ok(());
    }
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
    if follow::is_passed_over(args) {
        return Ok(());
    }
    resolve_record(args).map(drop).map_err(|error| describe_failure(args, &error))
}
