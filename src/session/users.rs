//! Users: what each may do, and the table of all.
//!
//! A [`User`] is never modified. A change puts a modified copy into the table and raises the table's
//! generation; each connection keeps the user that it has logged in as, and looks it up again when the
//! generation is another one ([`super::login`]). So checking a command takes no lock.
//!
//! The rules of `ACL SETUSER`, which state rights, are parsed and printed by [`crate::commands::rules`].
//! Commands have numbers here, because this layer does not know the command table.
//!
//! Passwords are kept as SHA-256 digests, and compared in constant time.
//!
//! Lock: the table. Below it comes only the state of a client that logs in.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::clients::Client;
use crate::stats::{COMMAND_LIMIT, CommandId};
use crate::text::glob;
use crate::text::sha256::{self, Digest};

/// The name of the user that every connection begins as. It cannot be deleted.
pub const DEFAULT: &[u8] = b"default";

/// A user and its rights.
#[derive(Clone)]
pub struct User {
    pub name: Arc<[u8]>,
    /// Whether it can log in.
    pub enabled: bool,
    /// Whether any password is right.
    pub nopass: bool,
    /// `skip-sanitize-payload`, which is only stored and shown: every payload is checked here.
    pub skips_sanitizing: bool,
    pub passwords: Vec<Digest>,
    /// What the rules outside of parentheses grant. All of a command must be granted by one selector.
    pub root: Selector,
    /// What the rules in each pair of parentheses grant.
    pub selectors: Vec<Selector>,
}

/// Rights to commands, keys, channels and databases.
#[derive(Clone, Default)]
pub struct Selector {
    pub commands: CommandRights,
    pub keys: KeyRights,
    pub channels: ChannelRights,
    /// The databases that may be used, in order; `None` for all of them.
    pub databases: Option<Vec<usize>>,
}

/// What is done with a key.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct KeyUse {
    pub reads: bool,
    pub writes: bool,
}

/// Which keys may be used, and how.
#[derive(Clone, Default)]
pub struct KeyRights {
    /// Every key may be read and written; then there are no patterns.
    pub all: bool,
    pub patterns: Vec<(KeyUse, Vec<u8>)>,
}

/// Which channels may be used.
#[derive(Clone, Default)]
pub struct ChannelRights {
    /// Every channel; then there are no patterns.
    pub all: bool,
    pub patterns: Vec<Vec<u8>>,
}

/// Which commands may be run.
#[derive(Clone, Default)]
pub struct CommandRights {
    /// Whether `+@all` came after the last `-@all`.
    pub from_all: bool,
    /// The names in the rules since then, and whether they are allowed. A name is there once.
    pub rules: Vec<(bool, Vec<u8>)>,
    /// What follows from these: a bit for each command.
    allowed: [u64; COMMAND_LIMIT / 64],
    /// And the commands that are allowed only with this first argument, in lower case.
    first_args: Vec<(CommandId, Vec<u8>)>,
}

impl User {
    /// A user that may do nothing, or only use channels.
    pub fn new(name: &[u8], all_channels: bool) -> User {
        User {
            name: name.into(),
            enabled: false,
            nopass: false,
            skips_sanitizing: false,
            passwords: Vec::new(),
            root: Selector::new(all_channels),
            selectors: Vec::new(),
        }
    }

    /// The default user, which may do everything and has this password, or none if it is empty.
    pub fn with_all_rights(password: &str) -> User {
        let mut user = User::new(DEFAULT, true);
        user.enabled = true;
        user.root.commands.set_all(true);
        user.root.keys.all = true;
        user.set_only_password(password);
        user
    }

    /// `requirepass`.
    fn set_only_password(&mut self, password: &str) {
        self.nopass = password.is_empty();
        self.passwords.clear();
        if !self.nopass {
            self.passwords.push(sha256::digest(password.as_bytes()));
        }
    }

    /// The root selector and the others.
    pub fn all_selectors(&self) -> impl Iterator<Item = &Selector> {
        std::iter::once(&self.root).chain(&self.selectors)
    }

    /// Whether no command must be checked.
    pub fn may_do_everything(&self) -> bool {
        self.all_selectors().any(|selector| {
            selector.commands.has_all()
                && selector.keys.all
                && selector.channels.all
                && selector.databases.is_none()
        })
    }

    /// Whether it may be subscribed to the channel, or to the pattern.
    pub fn may_hear(&self, name: &[u8], is_pattern: bool) -> bool {
        self.all_selectors().any(|selector| selector.channels.allows(name, is_pattern))
    }

    /// Whether the connections of clients that give no password may work as this user.
    pub fn is_open(&self) -> bool {
        self.enabled && self.nopass
    }

    /// Whether that is a password, in a time that depends on nothing but the number of passwords.
    fn knows(&self, password: &Digest) -> bool {
        let is_same = |own: &Digest| {
            let differ = |sum, (one, other): (&u8, &u8)| sum | (one ^ other);
            own.iter().zip(password).fold(0, differ) == 0
        };
        self.passwords.iter().fold(false, |known, own| known | is_same(own))
    }
}

impl Selector {
    /// Rights to nothing, or only to channels.
    pub fn new(all_channels: bool) -> Selector {
        let mut selector = Selector::default();
        selector.channels.all = all_channels;
        selector
    }
}

impl KeyRights {
    pub fn allows(&self, key: &[u8], wanted: KeyUse) -> bool {
        let allows = |(granted, pattern): &(KeyUse, Vec<u8>)| {
            (granted.reads || !wanted.reads)
                && (granted.writes || !wanted.writes)
                && glob::matches(pattern, key)
        };
        self.all || self.patterns.iter().any(allows)
    }

    /// Whether the keys that match the pattern may be read and written.
    pub fn allows_every_use_of(&self, pattern: &[u8]) -> bool {
        let every_use = KeyUse { reads: true, writes: true };
        self.patterns.iter().any(|(granted, known)| *granted == every_use && known == pattern)
    }

    /// Adds a pattern, or more uses of the keys that match one.
    pub fn add(&mut self, granted: KeyUse, pattern: &[u8]) {
        match self.patterns.iter_mut().find(|(_, known)| known == pattern) {
            Some((known, _)) => {
                known.reads |= granted.reads;
                known.writes |= granted.writes;
            }
            None => self.patterns.push((granted, pattern.to_vec())),
        }
    }
}

impl ChannelRights {
    /// As in Redis, a pattern may be subscribed to only if it is one of the granted ones itself.
    pub fn allows(&self, name: &[u8], is_pattern: bool) -> bool {
        let allows = |granted: &Vec<u8>| match is_pattern {
            true => granted == name,
            false => glob::matches(granted, name),
        };
        self.all || self.patterns.iter().any(allows)
    }

    pub fn add(&mut self, pattern: &[u8]) {
        if !self.patterns.iter().any(|known| known == pattern) {
            self.patterns.push(pattern.to_vec());
        }
    }
}

impl CommandRights {
    /// `+@all` and `-@all`.
    pub fn set_all(&mut self, allow: bool) {
        let bits = if allow { u64::MAX } else { 0 };
        *self = CommandRights { from_all: allow, allowed: [bits; _], ..CommandRights::default() };
    }

    /// Allows or forbids a command, whatever its first argument.
    pub fn set(&mut self, command: CommandId, allow: bool) {
        self.first_args.retain(|(id, _)| *id != command);
        let bit = 1 << (command % 64);
        match allow {
            true => self.allowed[command / 64] |= bit,
            false => self.allowed[command / 64] &= !bit,
        }
    }

    /// Allows a command with this first argument, which is in lower case.
    pub fn allow_first_arg(&mut self, command: CommandId, first_arg: &[u8]) {
        self.first_args.push((command, first_arg.to_vec()));
    }

    /// Notes the name in a rule, so that it can be shown. It replaces earlier rules about the same name or
    /// its subcommands.
    pub fn note_rule(&mut self, allow: bool, name: &[u8]) {
        let is_about = |known: &[u8]| {
            known.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest[0] == b'|')
        };
        self.rules.retain(|(_, known)| !is_about(known));
        self.rules.push((allow, name.to_vec()));
    }

    /// Whether a call of the command with this first argument is allowed.
    pub fn allows(&self, command: CommandId, first_arg: Option<&[u8]>) -> bool {
        self.allowed[command / 64] & (1 << (command % 64)) != 0
            || first_arg.is_some_and(|arg| {
                let is_it = |(id, known): &(CommandId, Vec<u8>)| {
                    *id == command && known.eq_ignore_ascii_case(arg)
                };
                self.first_args.iter().any(is_it)
            })
    }

    fn has_all(&self) -> bool {
        self.allowed.iter().all(|bits| *bits == u64::MAX)
    }
}

type Table = BTreeMap<Arc<[u8]>, Arc<User>>;

/// The table of users.
pub struct Users {
    by_name: Mutex<Table>,
    generation: AtomicU64,
}

impl Users {
    /// The default user alone, with this password if it is not empty.
    pub fn new(password: &str) -> Users {
        let users = Users { by_name: Mutex::default(), generation: AtomicU64::new(0) };
        users.replace_all([], password);
        users
    }

    /// A number that is another one after every change. It is never 0.
    #[inline(always)]
    pub fn generation(&self) -> u64 {
        self.generation.load(SeqCst)
    }

    pub fn get(&self, name: &[u8]) -> Option<Arc<User>> {
        self.lock().get(name).cloned()
    }

    /// All users, by name.
    pub fn all(&self) -> Vec<Arc<User>> {
        self.lock().values().cloned().collect()
    }

    /// The default user.
    pub fn default_user(&self) -> Arc<User> {
        let found = self.get(DEFAULT);
        // It cannot be deleted. If it were, nobody could log in as it.
        found.unwrap_or_else(|| Arc::new(User::new(DEFAULT, false)))
    }

    /// Changes a user, or adds one that is made by `create`. After an error nothing has changed.
    ///
    /// # Errors
    /// That of `change`.
    pub fn update<E>(
        &self,
        name: &[u8],
        create: impl FnOnce() -> User,
        change: impl FnOnce(&mut User) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut table = self.lock();
        let mut user = table.get(name).map_or_else(create, |user| User::clone(user));
        change(&mut user)?;
        table.insert(user.name.clone(), Arc::new(user));
        self.generation.fetch_add(1, SeqCst);
        Ok(())
    }

    /// `CONFIG SET requirepass`.
    pub fn set_default_password(&self, password: &str) {
        let create = || User::with_all_rights("");
        let change = |user: &mut User| {
            user.set_only_password(password);
            Ok::<(), ()>(())
        };
        self.update(DEFAULT, create, change).unwrap_or_default();
    }

    /// Deletes a user, and returns whether it existed.
    pub fn remove(&self, name: &[u8]) -> bool {
        let mut table = self.lock();
        let removed = table.remove(name);
        self.generation.fetch_add(1, SeqCst);
        drop(table);
        removed.is_some()
    }

    /// Replaces all users. If the default user is not among the new ones, it has all rights, and this
    /// password if that is not empty. (In Redis it has no password then, and lets everybody in.)
    pub fn replace_all(&self, users: impl IntoIterator<Item = User>, password: &str) {
        let named = |user: User| (user.name.clone(), Arc::new(user));
        let mut new = Table::from([named(User::with_all_rights(password))]);
        new.extend(users.into_iter().map(named));
        let mut table = self.lock();
        std::mem::swap(&mut *table, &mut new);
        self.generation.fetch_add(1, SeqCst);
        drop(table); // before the old users are freed
    }

    /// Checks a password. If it is right, the client is the user's from now on, and who deletes the user
    /// finds it.
    pub fn log_in(&self, client: &Client, name: &[u8], password: &[u8]) -> Option<Arc<User>> {
        let password = sha256::digest(password);
        let table = self.lock();
        let user = table.get(name)?;
        let known = user.knows(&password);
        if !user.enabled || !(user.nopass || known) {
            return None;
        }
        client.state().user = user.name.clone();
        Some(user.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.by_name.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
