//! Transactions: commands that wait, and their execution as one.
//!
//! Between `MULTI` and `EXEC` a command is checked as ever, but then queued. `EXEC` finds out which keys
//! all of them use, locks the shards of these once, looks whether a watched key has changed, carries the
//! commands out through the handlers that they have outside of a transaction, and appends what they
//! changed to the log as one block, before it unlocks. So other clients see all of it or nothing, and so
//! does a replay. A command that fails undoes nothing, and those behind it are carried out.
//!
//! Commands about the connection and the server run in their turn too, with the shards locked: they must
//! not wait for anything.
//!
//! What others hear of it (messages, keyspace events, the lines of `MONITOR`) goes on its way at once, in the
//! order in which it happened, but is not delivered before the block can be flushed: it waits for a
//! [`Promise`](crate::net::outbox::Promise).

use std::sync::atomic::Ordering::Relaxed;

use super::measure::measured;
use super::{
    counts_as_use, enter_if_tracked, find_hidden, permit, resolve, run_session, settle, settle_all,
    show_if_monitored, tell_met_expired, tell_misses,
};
use crate::aof::Block;
use crate::commands::spec::{Flags, Outcome};
use crate::commands::{Command, Handler};
use crate::config::Level;
use crate::resp::{Args, CommandError, Queue, Reply};
use crate::session::{Server, Session};
use crate::store::{LockSet, Transaction};

/// Has a command wait for EXEC.
pub(super) fn queue(server: &Server, session: &mut Session, args: Args, reply: &mut Reply) {
    let Some(multi) = &mut session.multi else { return };
    // As Redis: what will not be carried out in any case need not be kept.
    if !multi.aborted && !session.client.watcher.has_changed() {
        multi.queue.push(args);
        multi.queued += 1;
    }
    let limit = server.config.client_query_buffer_limit.load(Relaxed);
    if multi.queue.memory_bytes() as u64 > limit as u64 {
        let text = "A client queued more than client-query-buffer-limit allows and was cut off";
        server.config.say(Level::Warning, format_args!("{text}"));
        server.stats.query_limit_cut_offs.add(1);
        session.closing = true;
        return;
    }
    reply.simple("QUEUED");
}

/// A command was refused before it could be queued: its transaction cannot be carried out any more. When
/// EXEC itself is refused, the transaction ends.
#[cold]
pub(super) fn refuse(
    server: &Server,
    session: &mut Session,
    args: Args,
    error: CommandError,
) -> CommandError {
    if args[0].eq_ignore_ascii_case(b"exec") {
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

/// Ends a transaction, and the watching for it.
fn end(server: &Server, session: &mut Session) {
    session.multi = None;
    session.unwatch(&server.keyspace);
}

/// EXEC.
pub(super) fn execute(server: &Server, session: &mut Session, reply: &mut Reply) -> Outcome {
    let Some(multi) = &mut session.multi else {
        return Err(CommandError::new("ERR EXEC without MULTI"));
    };
    let queue = std::mem::take(&mut multi.queue);
    // Out of reach of a queued UNWATCH, which would wait for the shards that are locked for it.
    let watched = std::mem::take(&mut session.watched);
    let outcome = match multi.aborted {
        true => {
            Err(CommandError::new("EXECABORT Transaction discarded because of previous errors."))
        }
        false => carry_out(server, session, &queue, &watched, reply),
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
    let commands: Result<Vec<&Command>, _> = queue.iter().map(resolve).collect();
    let commands = commands?; // it was resolved once already
    let mut needs = LockSet::default();
    for (command, args) in commands.iter().zip(queue.iter()) {
        // What was allowed then may not be now: the log may have failed.
        permit(server, session, command).map_err(|error| discarded(&error))?;
        note_needs(server, session, &mut needs, command, args);
    }
    needs.read(watched.iter().map(|(_, key)| key.as_slice()));
    let mut transaction = server.keyspace.transact(needs);
    session.read_lsn = session.read_lsn.max(transaction.last_lsn());
    if transaction.finds_changed(watched, &session.client.watcher) {
        reply.null_array();
        return Ok(());
    }
    session.block = Some(Block::default());
    reply.array(commands.len());
    for (command, args) in commands.iter().zip(queue.iter()) {
        let start = reply.len();
        let outcome = measured(server, session, command, args, |session| {
            run(server, session, &mut transaction, command, args, reply)
        });
        if let Err(error) = outcome {
            reply.truncate(start);
            reply.error(&error);
        }
    }
    let block = session.block.take().unwrap_or_default();
    if let Some(position) = server.aof.append_block(block) {
        transaction.logged(position);
        session.write_lsn = position;
        session.read_lsn = session.read_lsn.max(position);
    }
    session.keep_promise();
    let changed = std::mem::take(&mut session.changed);
    server.tracking.broadcast(&server.hub, &changed, session.client.id);
    server.discard(transaction.unlock());
    Ok(())
}

fn note_needs(
    server: &Server,
    session: &mut Session,
    needs: &mut LockSet,
    command: &Command,
    args: Args,
) {
    match command.handler {
        Handler::Read(_) => needs.read(command.keys_of(args)),
        Handler::Write(_) => needs.write(command.keys_of(args)),
        Handler::ReadAll(_) => needs.read_all(),
        Handler::WriteAll(_) => needs.write_all(),
        Handler::Session(_) if command.has(Flags::VISITS_KEYS) => needs.read_all(),
        Handler::Session(_) | Handler::Container(..) | Handler::Exec => {}
        Handler::Hidden(_) => {
            // If there is none, or it is refused, that is what it answers in its turn.
            if let Ok(found) = find_hidden(server, session, command, args) {
                note_needs(server, session, needs, found, args);
            }
        }
    }
}

/// Carries out one command of a transaction, with what that lends it.
fn run(
    server: &Server,
    session: &mut Session,
    transaction: &mut Transaction,
    command: &Command,
    args: Args,
    reply: &mut Reply,
) -> Outcome {
    let outcome = match command.handler {
        Handler::Read(handler) => {
            let view = transaction
                .read(session.db, command.keys_of(args))
                .with_lru(counts_as_use(session, command));
            let outcome = handler(&view, args, reply);
            session.tally.looked_up(view.lookups());
            tell_misses(server, session, &view, &outcome, command, args);
            tell_met_expired(server, session, &view, command, args);
            enter_if_tracked(server, session, command, args);
            outcome
        }
        Handler::Write(handler) => {
            let mut view = transaction
                .write(session.db, command.keys_of(args))
                .with_lru(counts_as_use(session, command));
            let change = handler(&mut view, args, reply);
            let outcome = settle(server, session, &mut view, change, args);
            enter_if_tracked(server, session, command, args);
            session.tally.looked_up(view.lookups());
            let garbage = view.unlock();
            transaction.keep(garbage.unwrap_or_default());
            outcome
        }
        Handler::ReadAll(handler) => handler(&transaction.read_all(session.db), args, reply),
        Handler::WriteAll(handler) => {
            let mut view = transaction.write_all(session.db);
            let change = handler(&mut view, args, reply);
            let outcome = settle_all(server, session, &mut view, change, args);
            let garbage = view.unlock();
            transaction.keep(garbage);
            outcome
        }
        Handler::Session(_) | Handler::Container(..) | Handler::Exec => {
            return run_session(server, session, Some(transaction), command, args, reply);
        }
        Handler::Hidden(_) => {
            let found = find_hidden(server, session, command, args)?;
            return run(server, session, transaction, found, args, reply);
        }
    };
    show_if_monitored(server, session, command, args);
    outcome
}
