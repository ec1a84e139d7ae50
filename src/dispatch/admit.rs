//! Whether a connection may run a command now. The checks and their order are Redis's.

use std::sync::atomic::Ordering::Relaxed;

use crate::commands::permission::{self, Databases, Lacking};
use crate::commands::spec::Outcome;
use crate::commands::{Command, Handler, spec::Flags};
use crate::resp::{Args, CommandError, Protocol};
use crate::session::{Access, Server, Session};

/// Why a command was refused.
pub(super) enum Refusal {
    Error(CommandError),
    /// The user may not run it. [`Refusal::note`] adds that to `ACL LOG`.
    Lacking(Lacking),
}

impl From<CommandError> for Refusal {
    fn from(error: CommandError) -> Refusal {
        Refusal::Error(error)
    }
}

impl Refusal {
    /// The error for the client, which is about to get it.
    #[cold]
    pub(super) fn note(self, server: &Server, session: &Session) -> CommandError {
        match self {
            Refusal::Error(error) => error,
            Refusal::Lacking(lacking) => {
                lacking.note(server, session);
                lacking.error(session.login.user())
            }
        }
    }
}

/// Checks whether the connection may run the command now.
///
/// # Errors
/// Why it may not.
#[inline(always)]
pub(super) fn admit(
    server: &Server,
    session: &Session,
    command: &Command,
    args: Args,
) -> Result<(), Refusal> {
    expect_allowed(server, session, command)?;
    if session.login.access() == Access::Checked {
        let databases = Databases::of(server, session);
        permission::check(session.login.user(), command, args, &databases)
            .map_err(Refusal::Lacking)?;
    }
    // As in Redis, which can run MIGRATE in a transaction, this comes after the rights.
    let locks_by_itself =
        matches!(command.handler, Handler::Nested(_)) && !command.has(Flags::NOT_QUEUED);
    if session.multi.is_some() && locks_by_itself {
        return Err(NOT_IN_TRANSACTION.into());
    }
    expect_ready(server, session, command)?;
    Ok(())
}

/// The same without a look at the rights of the user.
///
/// # Errors
/// Why nobody may run the command on this connection now.
#[inline(always)]
pub(super) fn admit_any_user(server: &Server, session: &Session, command: &Command) -> Outcome {
    expect_allowed(server, session, command)?;
    expect_ready(server, session, command)
}

const DEBUG_NOT_ALLOWED: CommandError = CommandError::new(
    "ERR DEBUG command not allowed. If the enable-debug-command option is set to \"local\", you can \
     run it from a local connection, otherwise you need to set this option in the configuration file, \
     and then restart the server.",
);

const NOT_IN_TRANSACTION: CommandError =
    CommandError::new("ERR Command not allowed inside a transaction");

/// Checks what does not depend on the rights of the user.
///
/// # Errors
/// The connection may not run the command, whoever its user is.
#[inline(always)]
fn expect_allowed(server: &Server, session: &Session, command: &Command) -> Outcome {
    if command.has(Flags::PROTECTED) && !server.config.allows_debug(session.client.is_local()) {
        return Err(DEBUG_NOT_ALLOWED);
    }
    if session.login.access() == Access::LoginFirst && !command.has(Flags::NO_AUTH) {
        return Err(CommandError::new("NOAUTH Authentication required."));
    }
    if command.has(Flags::NO_MULTI) && session.multi.is_some() {
        return Err(NOT_IN_TRANSACTION);
    }
    Ok(())
}

const SAVE_FAILED: CommandError = CommandError::new(
    "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk. \
     Commands that may modify the data set are disabled, because this instance is configured to report \
     errors during writes if RDB snapshotting fails (stop-writes-on-bgsave-error option). Please check the \
     Redis logs for details about the RDB error.",
);

/// Checks the rare states in which writes are refused.
///
/// # Errors
/// Why they are.
#[cold]
fn expect_writable(server: &Server) -> Outcome {
    if server.refuses_unsaved() {
        return Err(SAVE_FAILED);
    }
    if server.replication.lacks_replicas(&server.config) {
        return Err(CommandError::new("NOREPLICAS Not enough good replicas to write."));
    }
    Ok(())
}

/// Checks the state of the server and of the connection.
///
/// # Errors
/// The command cannot be run in this state.
#[inline(always)]
fn expect_ready(server: &Server, session: &Session, command: &Command) -> Outcome {
    if server.is_loading() && !command.has(Flags::LOADING) {
        return Err(CommandError::new("LOADING Redis is loading the dataset in memory"));
    }
    if matches!(command.handler, Handler::Write(_) | Handler::WriteAll(_))
        && let Some(why) = server.aof.failure()
    {
        return Err(format!("MISCONF Errors writing to the AOF file: {why}").into());
    }
    if matches!(command.handler, Handler::Write(_) | Handler::WriteAll(_))
        && server.may_refuse_writes()
    {
        expect_writable(server)?;
    }
    let follows = server.upstream.follows();
    if follows {
        expect_master(server, command)?;
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
    if follows && !server.upstream.is_up() {
        expect_stale_allowed(server, command)?;
    }
    // To Redis, a monitor is a kind of replica.
    if session.client.outbox.listening.monitors()
        && (command.uses_keyspace() || command.has(Flags::MAY_REPLICATE))
    {
        return Err(CommandError::new("ERR Replica can't interact with the keyspace"));
    }
    Ok(())
}

/// Checks that the command does not write on a replica.
///
/// # Errors
/// It does, and the server is a replica that clients may not write on.
#[cold]
pub(super) fn expect_master(server: &Server, command: &Command) -> Outcome {
    if command.is_write() && server.config.replica_read_only.load(Relaxed) {
        return Err(CommandError::new("READONLY You can't write against a read only replica."));
    }
    Ok(())
}

/// Checks that the command may use data that could be out of date.
///
/// # Errors
/// It may not.
#[cold]
fn expect_stale_allowed(server: &Server, command: &Command) -> Outcome {
    if server.config.replica_serve_stale_data.load(Relaxed) || command.has(Flags::STALE) {
        return Ok(());
    }
    Err(CommandError::new(
        "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    ))
}
