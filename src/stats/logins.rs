//! Wrong passwords and unknown users: what `ACL LOG` shows.
//!
//! Attempts that are alike are one entry, which counts them: so whoever guesses passwords cannot push
//! everything else out of the log. Which attempts are alike follows Redis.

use std::collections::VecDeque;
use std::sync::Mutex;

use super::lock;

/// So long after an attempt another that is like it is counted with it.
const ALIKE_MS: i64 = 60_000;
/// Among so many entries one that is like it is looked for.
const ALIKE_ENTRIES: usize = 10;
/// How much of what a client calls a user is kept.
const USER_BYTES: usize = 1024;

/// An attempt to log in that failed, or several that are alike.
#[derive(Clone, Debug, PartialEq)]
pub struct FailedLogin {
    /// Its number, never given twice.
    pub id: u64,
    /// How often it was tried.
    pub count: u64,
    /// Whether EXEC tried it.
    pub in_transaction: bool,
    /// The command, as it was sent.
    pub command: Vec<u8>,
    /// Who it was to be.
    pub user: Vec<u8>,
    /// The client that tried it last, as `CLIENT LIST` shows it.
    pub client: Vec<u8>,
    /// When it was first tried: Unix time in milliseconds.
    pub first_ms: i64,
    /// When it was last tried.
    pub last_ms: i64,
}

impl FailedLogin {
    /// One attempt.
    pub fn new(command: &[u8], user: &[u8], in_transaction: bool, now_ms: i64) -> FailedLogin {
        FailedLogin {
            id: 0, // the log gives it its own
            count: 1,
            in_transaction,
            command: command.to_vec(),
            user: user[..user.len().min(USER_BYTES)].to_vec(),
            client: Vec::new(),
            first_ms: now_ms,
            last_ms: now_ms,
        }
    }

    fn is_like(&self, other: &FailedLogin) -> bool {
        self.in_transaction == other.in_transaction
            && self.command == other.command
            && self.user == other.user
            && other.last_ms - self.last_ms <= ALIKE_MS
    }
}

/// The last of them.
#[derive(Default)]
pub struct FailedLogins(Mutex<Entries>);

#[derive(Default)]
struct Entries {
    last: VecDeque<FailedLogin>,
    next_id: u64,
}

impl FailedLogins {
    /// Enters an attempt, and forgets the oldest beyond `limit`.
    pub fn add(&self, attempt: FailedLogin, limit: usize) {
        let mut entries = lock(&self.0);
        let alike = entries.last.iter().take(ALIKE_ENTRIES).position(|old| old.is_like(&attempt));
        let entry = match alike.and_then(|at| entries.last.remove(at)) {
            Some(old) => {
                FailedLogin { id: old.id, count: old.count + 1, first_ms: old.first_ms, ..attempt }
            }
            None => {
                entries.next_id += 1;
                FailedLogin { id: entries.next_id - 1, ..attempt }
            }
        };
        entries.last.push_front(entry);
        entries.last.truncate(limit);
    }

    /// The last so many, the newest first.
    pub fn last(&self, count: usize) -> Vec<FailedLogin> {
        lock(&self.0).last.iter().take(count).cloned().collect()
    }

    /// Forgets all.
    pub fn clear(&self) {
        lock(&self.0).last.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_alike_and_not_long_ago_is_counted_together() {
        let log = FailedLogins::default();
        let attempt = |user: &str, now_ms| {
            log.add(FailedLogin::new(b"AUTH", user.as_bytes(), false, now_ms), 3);
        };
        attempt("a", 0);
        attempt("b", 1);
        attempt("a", ALIKE_MS);
        attempt("b", ALIKE_MS + 2);
        let shown = |entry: &FailedLogin| (entry.id, entry.count, entry.first_ms, entry.last_ms);
        let last = ALIKE_MS + 2;
        let entries: Vec<_> = log.last(9).iter().map(shown).collect();
        assert_eq!(entries, [(2, 1, last, last), (0, 2, 0, ALIKE_MS), (1, 1, 1, 1)]);
        attempt("c", last);
        assert_eq!(log.last(9).len(), 3, "the oldest is forgotten");
        log.add(FailedLogin::new(b"AUTH", &[b'x'; 9999], true, last), 1);
        assert_eq!(log.last(9).iter().map(|entry| entry.user.len()).sum::<usize>(), USER_BYTES);
    }
}
