//! Whether a user may run a command, and the record of what was denied.
//!
//! What a command does follows from its row: its keys and how it accesses them, what it does with channels,
//! and which databases it uses. One selector must grant all of it. The rights to databases, which Redis does
//! not have, are those of Valkey 9.1.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use super::options::integer;
use super::spec::{ChannelUse, Command, DatabaseUse, Flags};
use crate::resp::{Args, CommandError};
use crate::session::users::{Selector, User};
use crate::session::{Server, Session};
use crate::stats::denials::{Denial, Reason};
use crate::store::now_ms;

/// What a user may not do.
#[derive(Debug)]
pub struct Lacking {
    /// What kind of right.
    pub reason: Reason,
    /// The name of the command, the key or the channel.
    pub object: Vec<u8>,
}

impl Lacking {
    /// The error that the client gets. Like Redis's, it does not name keys and channels.
    pub fn error(&self, user: &User) -> CommandError {
        match self.reason {
            Reason::Database => CommandError::new("NOPERM No permissions to access database"),
            Reason::Key => CommandError::new("NOPERM No permissions to access a key"),
            Reason::Channel => CommandError::new("NOPERM No permissions to access a channel"),
            Reason::Command | Reason::Auth => [b"NOPERM ", &*self.explain(user)].concat().into(),
        }
    }

    /// The sentence that names it, for administrators.
    pub fn explain(&self, user: &User) -> Vec<u8> {
        let (verb, noun) = match self.reason {
            Reason::Database => {
                let object = self.object.split(|byte| *byte == b'|').next().unwrap_or_default();
                let text = b" has no permissions to access database ";
                return [b"User ", &*user.name, text, object].concat();
            }
            Reason::Command | Reason::Auth => ("run", "command"),
            Reason::Key => ("access", "key"),
            Reason::Channel => ("access", "channel"),
        };
        let before = format!(" has no permissions to {verb} the '");
        let after = format!("' {noun}");
        [b"User ", &*user.name, before.as_bytes(), &self.object, after.as_bytes()].concat()
    }

    /// The error in place of the reply to a command that was allowed when it was queued.
    pub fn error_in_transaction(&self) -> CommandError {
        let why = match self.reason {
            Reason::Database => "no permission",
            Reason::Command | Reason::Auth => "no permission to execute the command or subcommand",
            Reason::Key => "no permission to touch the specified keys",
            Reason::Channel => "no permission to access one of the channels used as arguments",
        };
        let text = "NOPERM ACLs rules changed between the moment the transaction was accumulated and the \
                    EXEC call. This command is no longer allowed for the following reason: ";
        [text, why].concat().into()
    }

    /// Adds it to `ACL LOG`.
    #[cold]
    pub fn note(&self, server: &Server, session: &Session) {
        note(server, session, self.reason, &self.object, &session.login.user().name);
    }
}

/// Where a command would run.
pub struct Databases {
    /// The selected one.
    pub selected: usize,
    /// How many there are.
    pub count: usize,
}

impl Databases {
    /// Of this server, for the next command of this session.
    pub fn of(server: &Server, session: &Session) -> Databases {
        let count = server.config.databases.load(Relaxed) as usize;
        Databases { selected: session.db, count }
    }

    /// A database that the command uses and that is not granted: its number, or the command's name if it is
    /// the selected one, or any.
    fn refused<'a>(
        &self,
        granted: &[usize],
        command: &Command,
        args: Args<'a>,
    ) -> Option<&'a [u8]> {
        let is_refused = |db: usize| !granted.contains(&db);
        let name = Some(command.name.as_bytes());
        let named = match command.databases {
            Some(DatabaseUse::All) => return name.filter(|_| (0..self.count).any(is_refused)),
            Some(DatabaseUse::Named(is_named)) => Some(is_named),
            None => None,
        };
        let is_refused_number = |number: &[u8]| {
            let db = integer(number).ok().and_then(|number| usize::try_from(number).ok());
            db.is_some_and(|db| db < self.count && is_refused(db))
        };
        let refused = named.and_then(|is_named| {
            let mut numbers = (1..args.len()).filter(|at| is_named(args, *at));
            numbers.find_map(|at| args.get(at).filter(|number| is_refused_number(number)))
        });
        let needs_selected = command.uses_selected_database();
        refused.or(name.filter(|_| needs_selected && is_refused(self.selected)))
    }
}

/// Checks whether the user may run the command.
///
/// # Errors
/// What it lacks. If there are several selectors: for the one that goes furthest.
pub fn check(
    user: &User,
    command: &Command,
    args: Args,
    databases: &Databases,
) -> Result<(), Lacking> {
    let mut furthest = None;
    for selector in user.all_selectors() {
        match lacking(selector, command, args, databases) {
            None => return Ok(()),
            found => furthest = furthest.max(found),
        }
    }
    let (reason, _, object) = furthest.unwrap_or((Reason::Command, 0, command.name.as_bytes()));
    Err(Lacking { reason, object: object.to_vec() })
}

/// What a selector does not grant: the reason, the place among the arguments, and the object.
fn lacking<'a>(
    selector: &Selector,
    command: &Command,
    args: Args<'a>,
    databases: &Databases,
) -> Option<(Reason, usize, &'a [u8])> {
    let granted = selector.databases.as_ref();
    if let Some(object) = granted.and_then(|granted| databases.refused(granted, command, args)) {
        return Some((Reason::Database, 0, object));
    }
    if !command.has(Flags::NO_AUTH) && !selector.commands.allows(command.id, args.get(1)) {
        return Some((Reason::Command, 0, command.name.as_bytes()));
    }
    if !selector.keys.all {
        for keys in command.keys.iter().flatten().filter(|keys| keys.are_keys()) {
            let needed = keys.needed_rights(args);
            let is_refused = |(_, key): &(usize, &[u8])| !selector.keys.allows(key, needed);
            if let Some((at, key)) = command.keys_at(keys, args).find(is_refused) {
                return Some((Reason::Key, at, key));
            }
        }
    }
    if selector.channels.all || command.channels.is_none() {
        return None;
    }
    let are_patterns = command.channels == Some(ChannelUse::SubscribeToPatterns);
    let is_refused = |(_, name): &(usize, &[u8])| !selector.channels.allows(name, are_patterns);
    let refused = command.channels_at(args).find(is_refused);
    refused.map(|(at, name)| (Reason::Channel, at, name))
}

/// Adds a denial to `ACL LOG`.
pub fn note(server: &Server, session: &Session, reason: Reason, object: &[u8], user: &[u8]) {
    session.sync_client_state(Instant::now());
    let client = server.describe(&session.client);
    let attempt = Denial::new(reason, object, user, session.multi.is_some(), now_ms());
    let limit = server.config.acllog_max_len.load(Relaxed) as usize;
    server.stats.denials.add(Denial { client, ..attempt }, limit);
}
