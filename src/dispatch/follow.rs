//! Applies what comes from a master: one command, or the commands of a transaction as one.
//!
//! The way is that of a client's transaction: the shards of all keys are locked together, the commands run,
//! and one piece is appended to the log before the shards are unlocked. But the piece is the master's own
//! bytes, whether the commands changed anything or not, so that our log is the master's stream. Nothing
//! expires by itself, and nobody is asked whether the commands are admitted.

use super::call::Call;
use super::measure::measured;
use super::transaction::{add_locks, announce};
use crate::commands::lookup::{describe_failure, resolve_record};
use crate::resp::{Args, Protocol, Queue, Reply};
use crate::session::{Exec, Origin, Server, Session};
use crate::store::LockSet;

/// What a stream has besides changes: signs of life, questions to replicas, and the functions and scripts of
/// a Redis that has them. They concern no data, and are passed over.
const PASSED_OVER: [&[u8]; 4] = [b"PING", b"REPLCONF", b"FUNCTION", b"SCRIPT"];

/// Why what a master sent was not applied.
pub enum Failure {
    /// The server does not follow that master any more.
    Over,
    /// A command that does not exist here, or that fails here, as a text for the operator. Those before it
    /// have been executed.
    Command(String),
}

/// Whether a command of a master's stream is passed over.
pub(super) fn is_passed_over(args: Args) -> bool {
    PASSED_OVER.iter().any(|name| args[0].eq_ignore_ascii_case(name))
}

/// Executes the commands that the master has sent as `bytes`, in the current `term`.
///
/// # Errors
/// See [`Failure`]. Nothing was appended to the log.
pub fn follow(
    server: &Server,
    session: &mut Session,
    term: u64,
    commands: &Queue,
    bytes: &[u8],
) -> Result<(), Failure> {
    let mut ignored = Reply::new(Protocol::Resp2);
    let (mut locks, mut calls) = (LockSet::default(), Vec::with_capacity(commands.len()));
    for args in commands.iter().filter(|args| !is_passed_over(*args)) {
        let command = resolve_record(args)
            .map_err(|error| Failure::Command(describe_failure(args, &error)))?;
        add_locks(&mut locks, command, args);
        calls.push((command, args));
    }
    let mut transaction = server.keyspace.transact(locks);
    let _in_term = server.upstream.in_term(term).ok_or(Failure::Over)?;
    session.read_lsn = session.read_lsn.max(transaction.last_lsn());
    session.origin = Origin::Master(Exec::new(session.read_lsn));
    let mut outcome = Ok(());
    for (command, args) in calls {
        session.last_command = command.name;
        let done = measured(server, session, command, args, |session| {
            Call { server, session, command, args }.run(&mut transaction, &mut ignored)
        });
        ignored.clear(0);
        if let Err(error) = done {
            outcome = Err(Failure::Command(describe_failure(args, &error)));
            break;
        }
    }
    if outcome.is_ok() {
        let lsn = server.aof.append_foreign(bytes, session.db);
        transaction.logged(lsn);
        session.read_lsn = lsn;
    }
    if let Origin::Master(exec) = std::mem::take(&mut session.origin) {
        announce(server, session, exec);
    }
    outcome
}
