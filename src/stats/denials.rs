//! What was denied to clients, which `ACL LOG` shows: logins, and commands, keys and channels that a user may
//! not use.
//!
//! Similar attempts share one entry that counts them, so guessing passwords does not push other entries out
//! of the log. The rules for what is similar are Redis's.

use std::collections::VecDeque;
use std::sync::Mutex;

use super::{Counter, lock};

/// Similar attempts share an entry if at most this much time passes between them.
const SIMILAR_MS: i64 = 60_000;
/// How many of the newest entries are searched for a similar one.
const SEARCHED_ENTRIES: usize = 10;
/// How much of a user's name is kept.
const USER_BYTES: usize = 1024;
/// How much of the name of a key or a channel is kept. Redis keeps all of it.
const OBJECT_BYTES: usize = 1024;

/// Why something was denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// It may not use the database.
    Database,
    /// The user may not run the command.
    Command,
    /// It may not use the key in this way.
    Key,
    /// It may not use the channel.
    Channel,
    /// The login has failed.
    Auth,
}

impl Reason {
    pub const ALL: [Reason; 5] =
        [Reason::Auth, Reason::Command, Reason::Key, Reason::Channel, Reason::Database];

    /// Redis's name.
    pub fn name(self) -> &'static str {
        match self {
            Reason::Database => "database",
            Reason::Command => "command",
            Reason::Key => "key",
            Reason::Channel => "channel",
            Reason::Auth => "auth",
        }
    }
}

/// A denied attempt, or several similar ones.
#[derive(Clone, Debug, PartialEq)]
pub struct Denial {
    /// The entry's number, which is never reused.
    pub id: u64,
    pub count: u64,
    pub reason: Reason,
    /// Whether the attempt was part of a transaction.
    pub in_transaction: bool,
    /// The command, the key or the channel; for a login, the command's name as the client sent it.
    pub object: Vec<u8>,
    pub user: Vec<u8>,
    /// The client of the last attempt, as `CLIENT LIST` shows it.
    pub client: Vec<u8>,
    /// The time of the first attempt: Unix time in milliseconds.
    pub first_ms: i64,
    /// The time of the last attempt: Unix time in milliseconds.
    pub last_ms: i64,
}

impl Denial {
    /// One attempt.
    pub fn new(
        reason: Reason,
        object: &[u8],
        user: &[u8],
        in_transaction: bool,
        now_ms: i64,
    ) -> Denial {
        Denial {
            id: 0, // set by Denials::add
            count: 1,
            reason,
            in_transaction,
            object: object[..object.len().min(OBJECT_BYTES)].to_vec(),
            user: user[..user.len().min(USER_BYTES)].to_vec(),
            client: Vec::new(),
            first_ms: now_ms,
            last_ms: now_ms,
        }
    }

    fn is_similar_to(&self, other: &Denial) -> bool {
        self.reason == other.reason
            && self.in_transaction == other.in_transaction
            && self.object == other.object
            && self.user == other.user
            && other.last_ms - self.last_ms <= SIMILAR_MS
    }
}

/// The last denials, and how many there were for each reason.
#[derive(Default)]
pub struct Denials {
    entries: Mutex<Entries>,
    counts: [Counter; Reason::ALL.len()],
}

#[derive(Default)]
struct Entries {
    last: VecDeque<Denial>,
    next_id: u64,
}

impl Denials {
    /// Adds an attempt, then forgets the oldest entries beyond `limit`.
    pub fn add(&self, attempt: Denial, limit: usize) {
        self.counts[attempt.reason as usize].add(1);
        let mut entries = lock(&self.entries);
        let similar =
            entries.last.iter().take(SEARCHED_ENTRIES).position(|old| old.is_similar_to(&attempt));
        let entry = match similar.and_then(|at| entries.last.remove(at)) {
            Some(old) => {
                Denial { id: old.id, count: old.count + 1, first_ms: old.first_ms, ..attempt }
            }
            None => {
                entries.next_id += 1;
                Denial { id: entries.next_id - 1, ..attempt }
            }
        };
        entries.last.push_front(entry);
        entries.last.truncate(limit);
    }

    /// The last entries, at most `count`, the newest first.
    pub fn last(&self, count: usize) -> Vec<Denial> {
        lock(&self.entries).last.iter().take(count).cloned().collect()
    }

    pub fn clear(&self) {
        lock(&self.entries).last.clear();
    }

    /// How often something was denied for this reason. As in Redis, `CONFIG RESETSTAT` does not reset it.
    pub fn count(&self, reason: Reason) -> u64 {
        self.counts[reason as usize].get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn similar_attempts_within_a_minute_are_counted_together() {
        let log = Denials::default();
        let attempt = |user: &str, now_ms| {
            log.add(Denial::new(Reason::Auth, b"AUTH", user.as_bytes(), false, now_ms), 3);
        };
        attempt("a", 0);
        attempt("b", 1);
        attempt("a", SIMILAR_MS);
        attempt("b", SIMILAR_MS + 2);
        let shown = |entry: &Denial| (entry.id, entry.count, entry.first_ms, entry.last_ms);
        let last = SIMILAR_MS + 2;
        let entries: Vec<_> = log.last(9).iter().map(shown).collect();
        assert_eq!(entries, [(2, 1, last, last), (0, 2, 0, SIMILAR_MS), (1, 1, 1, 1)]);
        attempt("c", last);
        assert_eq!(log.last(9).len(), 3, "the oldest entry is forgotten");
        log.add(Denial::new(Reason::Key, &[b'k'; 9999], &[b'x'; 9999], true, last), 1);
        assert_eq!(log.last(9).iter().map(|entry| entry.user.len()).sum::<usize>(), USER_BYTES);
    }
}
