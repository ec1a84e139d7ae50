//! Failed logins, which `ACL LOG` shows.
//!
//! Similar attempts share one entry that counts them, so guessing passwords does not push other entries out
//! of the log. The rules for what is similar are Redis's.

use std::collections::VecDeque;
use std::sync::Mutex;

use super::lock;

/// Similar attempts share an entry if at most this much time passes between them.
const SIMILAR_MS: i64 = 60_000;
/// How many of the newest entries are searched for a similar one.
const SEARCHED_ENTRIES: usize = 10;
/// How much of the user name is kept.
const USER_BYTES: usize = 1024;

/// A failed login, or several similar ones.
#[derive(Clone, Debug, PartialEq)]
pub struct FailedLogin {
    /// The entry's number, which is never reused.
    pub id: u64,
    pub count: u64,
    /// Whether the attempt was part of a transaction.
    pub in_transaction: bool,
    /// The command's name, as the client sent it.
    pub command: Vec<u8>,
    pub user: Vec<u8>,
    /// The client of the last attempt, as `CLIENT LIST` shows it.
    pub client: Vec<u8>,
    /// The time of the first attempt: Unix time in milliseconds.
    pub first_ms: i64,
    /// The time of the last attempt: Unix time in milliseconds.
    pub last_ms: i64,
}

impl FailedLogin {
    /// One attempt.
    pub fn new(command: &[u8], user: &[u8], in_transaction: bool, now_ms: i64) -> FailedLogin {
        FailedLogin {
            id: 0, // set by FailedLogins::add
            count: 1,
            in_transaction,
            command: command.to_vec(),
            user: user[..user.len().min(USER_BYTES)].to_vec(),
            client: Vec::new(),
            first_ms: now_ms,
            last_ms: now_ms,
        }
    }

    fn is_similar_to(&self, other: &FailedLogin) -> bool {
        self.in_transaction == other.in_transaction
            && self.command == other.command
            && self.user == other.user
            && other.last_ms - self.last_ms <= SIMILAR_MS
    }
}

/// The last failed logins.
#[derive(Default)]
pub struct FailedLogins(Mutex<Entries>);

#[derive(Default)]
struct Entries {
    last: VecDeque<FailedLogin>,
    next_id: u64,
}

impl FailedLogins {
    /// Adds an attempt, then forgets the oldest entries beyond `limit`.
    pub fn add(&self, attempt: FailedLogin, limit: usize) {
        let mut entries = lock(&self.0);
        let similar =
            entries.last.iter().take(SEARCHED_ENTRIES).position(|old| old.is_similar_to(&attempt));
        let entry = match similar.and_then(|at| entries.last.remove(at)) {
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

    /// The last entries, at most `count`, the newest first.
    pub fn last(&self, count: usize) -> Vec<FailedLogin> {
        lock(&self.0).last.iter().take(count).cloned().collect()
    }

    pub fn clear(&self) {
        lock(&self.0).last.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn similar_attempts_within_a_minute_are_counted_together() {
        let log = FailedLogins::default();
        let attempt = |user: &str, now_ms| {
            log.add(FailedLogin::new(b"AUTH", user.as_bytes(), false, now_ms), 3);
        };
        attempt("a", 0);
        attempt("b", 1);
        attempt("a", SIMILAR_MS);
        attempt("b", SIMILAR_MS + 2);
        let shown = |entry: &FailedLogin| (entry.id, entry.count, entry.first_ms, entry.last_ms);
        let last = SIMILAR_MS + 2;
        let entries: Vec<_> = log.last(9).iter().map(shown).collect();
        assert_eq!(entries, [(2, 1, last, last), (0, 2, 0, SIMILAR_MS), (1, 1, 1, 1)]);
        attempt("c", last);
        assert_eq!(log.last(9).len(), 3, "the oldest entry is forgotten");
        log.add(FailedLogin::new(b"AUTH", &[b'x'; 9999], true, last), 1);
        assert_eq!(log.last(9).iter().map(|entry| entry.user.len()).sum::<usize>(), USER_BYTES);
    }
}
