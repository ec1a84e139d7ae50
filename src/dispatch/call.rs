//! One command on its way: the single path for plain commands, for commands inside `EXEC` and for a replay.
//!
//! They differ in who locks the shards ([`Shards`]: the command itself, or its transaction) and in where
//! the records go ([`Origin`]). Everything else is the same code: lock, run the handler,
//! [`commit`](Call::commit), unlock. A read that finds an expired key cannot remove it: the key is removed
//! in between, and the read starts again.

use std::sync::atomic::Ordering::Relaxed;

use crate::commands::lookup::find_hidden;
use crate::commands::spec::Outcome;
use crate::commands::{Command, Context, Handler, Propagate, spec::Flags};
use crate::resp::{Args, CommandError, Reply};
use crate::session::{Origin, Server, Session};
use crate::store::{Aftermath, ReadAll, ReadView, Shards, WriteAll, WriteView};

use super::admit::{admit_any_user, expect_master};
use super::commit::commit_removals;

/// A command that was found and admitted, with its arguments.
pub(super) struct Call<'a> {
    pub(super) server: &'a Server,
    pub(super) session: &'a mut Session,
    pub(super) command: &'static Command,
    pub(super) args: Args<'a>,
}

impl<'a> Call<'a> {
    /// Runs the command. After an error, the caller removes what the command has put into the reply.
    pub(super) fn run(self, shards: &mut impl Shards, reply: &mut Reply) -> Outcome {
        let (command, args, db) = (self.command, self.args, self.session.db);
        let touches = !self.session.client_flags.no_touch || command.has(Flags::ALWAYS_A_USE);
        let replaying = matches!(self.session.origin, Origin::Replay | Origin::Master(_))
            || (self.session.client_flags.import_source
                && self.server.config.import_mode.load(Relaxed));
        match command.handler {
            Handler::Read(handler) => {
                let view = shards.read(db, command.keys_of(args));
                let view = view.touching(touches).replaying(replaying);
                let start = reply.len();
                let outcome = handler(&view, args, reply);
                let expired = view.found_expired();
                if !expired.is_empty() && self.removes_expired() {
                    drop(view);
                    reply.truncate(start);
                    remove_expired(self.server, &expired);
                    return self.run(shards, reply);
                }
                self.commit(view, outcome.map(|()| Propagate::Nothing))
            }
            Handler::Write(handler) => {
                let view = shards.write(db, command.keys_of(args));
                let mut view = view.touching(touches).replaying(replaying);
                self.expect_still_writable()?;
                let change = handler(&mut view, args, reply);
                self.commit(view, change)
            }
            Handler::ReadAll(handler) => {
                let view = shards.read_all(db);
                let outcome = handler(&view, args, reply);
                let (server, expired) = (self.server, view.found_expired());
                let removes = !expired.is_empty() && self.removes_expired();
                let outcome = self.commit(view, outcome.map(|()| Propagate::Nothing));
                if removes {
                    remove_expired(server, &expired);
                }
                outcome
            }
            Handler::WriteAll(handler) => {
                let mut view = shards.write_all(db);
                self.expect_still_writable()?;
                let change = handler(&mut view, args, reply);
                self.commit(view, change)
            }
            Handler::Session(handler) | Handler::Container(_, Some(handler)) => {
                let Call { server, session, .. } = self;
                let transaction = shards.transaction();
                let outcome = handler(&mut Context { server, session, transaction }, args, reply);
                Call { server, session, command, args }.commit_without_keys(outcome)
            }
            Handler::Hidden(rows) => {
                let command = find_hidden(rows, args)?;
                admit_any_user(self.server, self.session, command)?;
                Call { command, ..self }.run(shards, reply)
            }
            // A container's arity requires a subcommand; commands that run others never get here.
            Handler::Container(_, None) | Handler::Nested(_) => Err(CommandError::SYNTAX),
        }
    }

    /// Checks once more, now that the shards are locked, that clients may write: since the command was
    /// admitted, the server may have become a replica.
    ///
    /// # Errors
    /// It has.
    #[inline(always)]
    fn expect_still_writable(&self) -> Outcome {
        if self.server.upstream.follows() && matches!(self.session.origin, Origin::Client) {
            return expect_master(self.server, self.command);
        }
        Ok(())
    }

    /// Whether the expired keys that the command finds, although it only reads, are removed, as in Redis. The
    /// shards of a transaction are locked for its own commands only.
    fn removes_expired(&self) -> bool {
        let Server { pause, config, .. } = self.server;
        let is_paused = || pause.is_likely() && pause.paused().is_some();
        matches!(self.session.origin, Origin::Client)
            && !self.server.upstream.follows()
            && !config.import_mode.load(Relaxed)
            && !is_paused()
    }

    /// Commits a command that locks no shard itself.
    pub(super) fn commit_without_keys(self, outcome: Outcome) -> Outcome {
        self.commit(NoKeys, outcome.map(|()| Propagate::Nothing))
    }
}

/// Removes keys that a read has found expired.
#[cold]
fn remove_expired(server: &Server, keys: &[(usize, Box<[u8]>)]) {
    server.keyspace.remove_expired(keys, |expired| commit_removals(server, expired));
}

/// The shards that a command has locked.
pub(super) trait Locked {
    /// The highest LSN of the changes that the command may have seen.
    fn last_lsn(&self) -> u64;
    /// The log has every change of these shards up to that LSN.
    fn set_logged(&mut self, lsn: u64);
    /// Takes what is left to do after the command. `changed` says whether the command has a record for the
    /// log.
    fn finish(&mut self, changed: bool) -> Aftermath;
}

impl Locked for ReadView<'_> {
    fn last_lsn(&self) -> u64 {
        ReadView::last_lsn(self)
    }

    fn set_logged(&mut self, _: u64) {
        unreachable!("a command that only reads logs nothing")
    }

    fn finish(&mut self, _: bool) -> Aftermath {
        ReadView::finish(self)
    }
}

impl Locked for WriteView<'_> {
    fn last_lsn(&self) -> u64 {
        WriteView::last_lsn(self)
    }

    fn set_logged(&mut self, lsn: u64) {
        self.logged(lsn);
    }

    fn finish(&mut self, changed: bool) -> Aftermath {
        self.finish_write(changed)
    }
}

impl Locked for ReadAll<'_> {
    fn last_lsn(&self) -> u64 {
        ReadAll::last_lsn(self)
    }

    fn set_logged(&mut self, _: u64) {
        unreachable!("a command that only reads logs nothing")
    }

    fn finish(&mut self, _: bool) -> Aftermath {
        Aftermath::default()
    }
}

impl Locked for WriteAll<'_> {
    fn last_lsn(&self) -> u64 {
        WriteAll::last_lsn(self)
    }

    fn set_logged(&mut self, lsn: u64) {
        self.logged(lsn);
    }

    fn finish(&mut self, _: bool) -> Aftermath {
        WriteAll::finish(self)
    }
}

/// For commands about the connection or the server, which lock no shard.
struct NoKeys;

impl Locked for NoKeys {
    fn last_lsn(&self) -> u64 {
        0
    }

    fn set_logged(&mut self, _: u64) {
        unreachable!("a command without keys logs nothing")
    }

    fn finish(&mut self, _: bool) -> Aftermath {
        Aftermath::default()
    }
}
