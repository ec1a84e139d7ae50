//! Transactions: queueing commands, and running them as one.
//!
//! Between `MULTI` and `EXEC` a command is admitted as usual, but then queued. `EXEC` locks the shards of all
//! keys that the queued commands use, checks whether a watched key has changed, runs the commands, and
//! appends their records to the log as one block before it unlocks. So other clients see the whole
//! transaction or nothing of it, and so does a replay. A command that fails undoes nothing, and the commands
//! after it still run.
//!
//! Commands about the connection and the server run in their turn, with the shards locked, so they must not
//! wait for anything.
//!
//! Messages, keyspace events and `MONITOR` lines of a transaction are queued at once, in the order in which
//! they happen, but not sent before the block can be flushed: they wait for a
//! [`Promise`](crate::net::outbox::Promise).

use std::sync::atomic::Ordering::Relaxed;

use super::admit::{admit_any_user, expect_master};
use super::call::Call;
use super::measure::{measured, rejected};
use crate::commands::lookup::{find_hidden, resolve};
use crate::commands::permission::{self, Databases};
use crate::commands::spec::{Flags, Nested, Outcome};
use crate::commands::{Command, Handler, slowlog};
use crate::config::logger::log_limited;
use crate::memory::{self, COPIES};
use crate::resp::{Args, CommandError, Queue, Reply};
use crate::session::{Access, Exec, Origin, Server, Session};
use crate::store::LockSet;

/// Queues a command for `EXEC`.
///
/// # Errors
/// The system refuses the memory for it.
pub(super) fn queue(
    server: &Server,
    session: &mut Session,
    args: Args,
    reply: &mut Reply,
) -> Outcome {
    let Some(multi) = &mut session.multi else { return Ok(()) };
    // As in Redis, a command that will certainly not run is not kept.
    if !multi.aborted && !session.client.watcher.has_changed() {
        multi.queue.push(args)?;
        multi.queued += 1;
    }
    let limit = server.config.client_query_buffer_limit.load(Relaxed);
    if multi.queue.memory_bytes() as u64 > limit as u64 {
        let text = "Closed a client whose transaction exceeded client-query-buffer-limit";
        log_limited!(server.config, Warning, "{text}");
        server.stats.query_limit_cut_offs.add(1);
        session.closing = true;
        return Ok(());
    }
    reply.simple("QUEUED");
    Ok(())
}

/// Aborts the transaction of a command that was refused instead of queued. If the command is `EXEC`
/// itself, the transaction ends.
#[cold]
pub(super) fn refuse(
    server: &Server,
    session: &mut Session,
    command: Option<&Command>,
    error: CommandError,
) -> CommandError {
    if command.is_some_and(|command| matches!(command.handler, Handler::Nested(Nested::Exec))) {
        end(server, session);
        return discarded(&error);
    }
    if let Some(multi) = &mut session.multi {
        multi.aborted = true;
    }
    error
}

fn discarded(error: &CommandError) -> CommandError {
    let why = error.text();
    let why = why.strip_prefix(b"ERR ").unwrap_or(why);
    [b"EXECABORT Transaction discarded because of: ", why].concat().into()
}

/// Ends the transaction and stops watching keys.
fn end(server: &Server, session: &mut Session) {
    session.multi = None;
    session.unwatch(&server.keyspace);
}

/// Runs `EXEC`.
pub(super) fn execute(server: &Server, session: &mut Session, reply: &mut Reply) -> Outcome {
    let Some(multi) = &mut session.multi else {
        return Err(CommandError::new("ERR EXEC without MULTI"));
    };
    let queue = std::mem::take(&mut multi.queue);
    // A queued UNWATCH must not find these: it would wait for shards that this thread has locked.
    let watched = std::mem::take(&mut session.watched);
    let outcome = if multi.aborted {
        Err(CommandError::new("EXECABORT Transaction discarded because of previous errors."))
    } else {
        carry_out(server, session, &queue, &watched, reply)
    };
    session.watched = watched;
    end(server, session);
    outcome
}

fn carry_out(
    server: &Server,
    session: &mut Session,
    queue: &Queue,
    watched: &[(usize, Vec<u8>)],
    reply: &mut Reply,
) -> Outcome {
    let copies = memory::ensure_available(COPIES * queue.memory_bytes());
    copies.map_err(|refused| discarded(&refused.into()))?;
    let commands: Result<Vec<&'static Command>, _> = queue.iter().map(resolve).collect();
    let commands = commands?; // they were resolved once already
    let mut locks = LockSet::default();
    for (command, args) in commands.iter().zip(queue.iter()) {
        // A command that was admitted before may be refused now: the log may have failed.
        admit_any_user(server, session, command).map_err(|error| discarded(&error))?;
        add_locks(&mut locks, command, args);
    }
    locks.read(watched.iter().map(|(_, key)| key.as_slice()));
    let mut transaction = server.keyspace.transact(locks);
    session.read_lsn = session.read_lsn.max(transaction.last_lsn());
    if server.upstream.follows() {
        // It may have become a replica since.
        let mut commands = commands.iter();
        commands
            .try_for_each(|command| expect_master(server, command))
            .map_err(|e| discarded(&e))?;
    }
    if transaction.finds_changed(watched, &session.client.watcher) {
        reply.null_array();
        return Ok(());
    }
    session.origin = Origin::Transaction(Exec::new(session.read_lsn));
    reply.array(commands.len());
    let mut whole = Ok(());
    for (command, args) in commands.into_iter().zip(queue.iter()) {
        let start = reply.len();
        // After CLIENT KILL of its own connection, the rest is executed, but not replied to.
        let was_closing = session.closing;
        let outcome = match still_permitted(server, session, command, args) {
            Ok(()) => measured(server, session, command, args, |session| {
                Call { server, session, command, args }.run(&mut transaction, reply)?;
                reply.end()
            }),
            Err(error) => Err(error),
        };
        if outcome.is_err() || was_closing {
            reply.truncate(start);
        }
        if let Err(error) = outcome
            && !was_closing
        {
            reply.error(&error);
            whole = whole.and(reply.end());
        }
        slowlog::note_sizes(server, session, command, args, reply.len() - start);
    }
    if let Origin::Transaction(mut exec) = std::mem::take(&mut session.origin) {
        if let Some(lsn) = server.aof.append_block(std::mem::take(&mut exec.block)) {
            transaction.logged(lsn);
            session.write_lsn = lsn;
            session.read_lsn = session.read_lsn.max(lsn);
        }
        announce(server, session, exec);
    }
    whole
}

/// Sends the messages of a transaction that had to wait for its end. The session has read up to the LSN of
/// its block.
pub(super) fn announce(server: &Server, session: &Session, mut exec: Exec) {
    exec.lsn = session.read_lsn;
    let (id, outbox) = (session.client.id, &session.client.outbox);
    for key in &exec.own {
        server.tracking.notify_self(&server.pubsub, key, id, outbox);
    }
    server.tracking.broadcast(&server.pubsub, &exec.modified, id);
}

/// Checks whether the user may still run a queued command. The rights may have changed since it was queued;
/// an earlier command of the transaction may have done that.
fn still_permitted(
    server: &Server,
    session: &mut Session,
    command: &Command,
    args: Args,
) -> Outcome {
    session.login.refresh(&server.users);
    if session.login.access() != Access::Checked {
        return Ok(());
    }
    let databases = Databases::of(server, session);
    permission::check(session.login.user(), command, args, &databases).map_err(|lacking| {
        lacking.note(server, session);
        let error = lacking.error_in_transaction();
        rejected(server, session, Some(command), &error);
        error
    })
}

/// Adds the shards that a command uses to those that its transaction locks.
pub(super) fn add_locks(locks: &mut LockSet, command: &Command, args: Args) {
    match command.handler {
        Handler::Read(_) => locks.read(command.keys_of(args)),
        Handler::Write(_) => locks.write(command.keys_of(args)),
        Handler::ReadAll(_) => locks.read_all(),
        Handler::WriteAll(_) => locks.write_all(),
        Handler::Session(_) if command.has(Flags::VISITS_KEYS) => locks.read_all(),
        Handler::Session(_) | Handler::Container(..) | Handler::Nested(_) => {}
        Handler::Hidden(rows) => {
            // If there is no such subcommand, running it gives the error.
            if let Ok(found) = find_hidden(rows, args) {
                add_locks(locks, found, args);
            }
        }
    }
}
