//! The differences from other servers that are on purpose, each with its reason. No other is tolerated.
//!
//! Where Redis 8.2 and Valkey differ, ours follows Redis. Redis 7.0 is only a floor: where 8.2 changed a
//! reply, ours has changed too.

use super::generator::Words;
use crate::harness::{Peer, Reply};

struct OnPurpose {
    /// Whether it concerns this server.
    server: fn(Peer) -> bool,
    /// The names of rows.
    commands: &'static [&'static str],
    what: What,
    #[expect(dead_code, reason = "for the reader")]
    reason: &'static str,
}

enum What {
    /// The texts of two errors.
    ErrorText,
    /// The whole reply, if at least one is an error.
    Error,
    /// The reply to commands that contain this word.
    With(&'static str),
}

#[rustfmt::skip]
const HASH_FIELDS: &[&str] = &[
    "hexpire", "hpexpire", "hexpireat", "hpexpireat", "hexpiretime", "hpexpiretime", "httl", "hpttl",
    "hpersist", "hgetex", "hsetex", "hgetdel",
];

const LIST: &[OnPurpose] = &[
    OnPurpose {
        server: Peer::is_valkey,
        commands: HASH_FIELDS,
        what: What::ErrorText,
        reason: "Valkey words the errors of expiring fields differently from Redis.",
    },
    OnPurpose {
        server: Peer::is_before_8_2,
        commands: &["bitcount", "bitpos", "scan", "hscan"],
        what: What::Error,
        reason: "Redis 7.0 looked up the key before it checked arguments, and read cursors loosely.",
    },
    OnPurpose {
        server: Peer::is_valkey,
        commands: &["set"],
        what: What::With("IFEQ"),
        reason: "Valkey has IFEQ without the rest of Redis 8.4's conditions.",
    },
];

/// Whether two replies to a command differ on purpose.
pub(super) fn differs_on_purpose(
    peer: Peer,
    row: &str,
    command: &Words,
    one: &Reply,
    other: &Reply,
) -> bool {
    let errors = [one, other].map(|reply| matches!(reply, Reply::Error(_)));
    LIST.iter().any(|entry| {
        let is_of = |name: &&str| row == *name;
        (entry.server)(peer)
            && entry.commands.iter().any(is_of)
            && match entry.what {
                What::ErrorText => errors == [true, true],
                What::Error => errors != [false, false],
                What::With(word) => {
                    command.iter().any(|arg| arg.eq_ignore_ascii_case(word.as_bytes()))
                }
            }
    })
}

/// Texts that ours takes from Redis, and what Valkey says instead: it words one error for all commands that
/// a transaction refuses.
const TEXTS_OF_VALKEY: &[(&str, &str)] = &[
    ("-ERR MULTI calls can not be nested", "-ERR Command 'multi' not allowed inside a transaction"),
    (
        "-ERR WATCH inside MULTI is not allowed",
        "-ERR Command 'watch' not allowed inside a transaction",
    ),
];

/// Whether what a connection received means the same.
pub(super) fn is_same_text(peer: Peer, ours: &str, theirs: &str) -> bool {
    ours == theirs || (peer.is_valkey() && TEXTS_OF_VALKEY.contains(&(ours.trim(), theirs.trim())))
}
