//! The user that a connection has logged in as, with the rights that this user had last.
//!
//! Invariant: after [`Login::refresh`], `access` is right for the current rights of the user. The dispatcher
//! refreshes before every command, which costs the load of an atomic.

use std::sync::Arc;

use super::users::{User, Users};

/// How commands of a connection are checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// They need no check.
    Full,
    /// Each must be one that the user may run.
    Checked,
    /// The client must log in first.
    LoginFirst,
}

/// The user of a connection.
pub struct Login {
    user: Arc<User>,
    /// It has given a password, or needed none when it connected.
    authenticated: bool,
    access: Access,
    /// The generation of the table that this was taken from; 0 before the first time.
    generation: u64,
}

impl Login {
    /// A connection that has not logged in is the default user's.
    pub fn new(users: &Users) -> Login {
        let user = users.default_user();
        let authenticated = user.is_open();
        let mut login = Login { user, authenticated, access: Access::LoginFirst, generation: 0 };
        login.refresh(users);
        login
    }

    /// A client that has logged in.
    pub fn of(user: Arc<User>, users: &Users) -> Login {
        let mut login = Login { user, authenticated: true, access: Access::Checked, generation: 0 };
        login.refresh(users);
        login
    }

    /// For a replay of the log, which is not checked.
    pub fn for_replay() -> Login {
        let user = Arc::new(User::with_all_rights(""));
        Login { user, authenticated: true, access: Access::Full, generation: 0 }
    }

    pub fn user(&self) -> &User {
        &self.user
    }

    #[inline(always)]
    pub fn access(&self) -> Access {
        self.access
    }

    /// Takes over what has changed in the table of users. Returns whether anything has.
    #[inline(always)]
    pub fn refresh(&mut self, users: &Users) -> bool {
        let is_outdated = self.generation != users.generation();
        if is_outdated {
            self.look_up(users);
        }
        is_outdated
    }

    /// A user that was deleted keeps its rights until its connections end, which is at once: the rest of a
    /// transaction that deletes its own user still runs.
    #[cold]
    fn look_up(&mut self, users: &Users) {
        self.generation = users.generation(); // first: a later change is found the next time
        if let Some(user) = users.get(&self.user.name) {
            self.user = user;
        }
        self.access = if !self.authenticated && !users.default_user().is_open() {
            Access::LoginFirst
        } else if self.user.may_do_everything() {
            Access::Full
        } else {
            Access::Checked
        };
    }
}
