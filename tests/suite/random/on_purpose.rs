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
    /// The texts of two errors, and their events.
    ErrorText,
    /// The whole reply and its events, if at least one is an error.
    Error,
    /// The events alone.
    Events,
    /// The reply, whatever it is.
    Any,
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
        server: |_| true,
        commands: HASH_FIELDS,
        what: What::ErrorText,
        reason: "Valkey words the errors of expiring fields differently; ours has the texts of Redis 8.4.",
    },
    OnPurpose {
        server: Peer::is_valkey,
        commands: HASH_FIELDS,
        what: What::Error,
        reason: "Valkey looks a field up before it checks that the expiry time is in range.",
    },
    OnPurpose {
        server: Peer::is_valkey,
        commands: HASH_FIELDS,
        what: What::Events,
        reason: "Valkey calls what a past expiry time removes hexpired, and HGETEX can miss a key.",
    },
    OnPurpose {
        server: Peer::is_valkey,
        commands: &["expire", "pexpire", "expireat", "pexpireat", "getex"],
        what: What::Events,
        reason: "Valkey calls what a past expiry time removes expired, Redis del.",
    },
    OnPurpose {
        server: Peer::is_valkey,
        commands: &[
            "getex",
            "msetex",
            "bitcount",
            "client|kill",
            "client|list",
            "client|pause",
            "client|unblock",
        ],
        what: What::Error,
        reason: "Valkey checks an expiry time before the key, and words errors of filters differently.",
    },
    OnPurpose {
        server: |_| true,
        commands: &["client|list"],
        what: What::Error,
        reason: "Redis has few of these filters.",
    },
    OnPurpose {
        server: Peer::is_before_8_2,
        commands: &["bitcount", "bitpos", "scan", "hscan"],
        what: What::Error,
        reason: "Redis 7.0 looked up the key before it checked arguments, and read cursors loosely.",
    },
    OnPurpose {
        server: |_| true,
        commands: &["scan"],
        what: What::Events,
        reason: "Others look a key up to learn its type, and count a miss if it has expired.",
    },
    OnPurpose {
        server: Peer::is_valkey,
        commands: &["scan"],
        what: What::Error,
        reason: "To Valkey an unknown type is an error.",
    },
    OnPurpose {
        server: |peer| !peer.is_before_8_2(),
        commands: &["object|encoding"],
        what: What::Any,
        reason: "Ours follows the documented limits. Redis 8.2 counts the bytes of the key too, counts a repeated \
                 field twice, and gives a hash room for expiry times even if HEXPIRE finds no field; Valkey \
                 has other encodings.",
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
    [one, other]: [&Reply; 2],
    is_alike: bool,
) -> bool {
    let errors = [one, other].map(|reply| matches!(reply, Reply::Error(_)));
    LIST.iter().any(|entry| {
        let is_of = |name: &&str| row == *name;
        (entry.server)(peer)
            && entry.commands.iter().any(is_of)
            && match entry.what {
                What::ErrorText => errors == [true, true],
                What::Error => errors != [false, false],
                What::Events => is_alike,
                What::Any => true,
                What::With(word) => {
                    command.iter().any(|arg| arg.eq_ignore_ascii_case(word.as_bytes()))
                }
            }
    })
}

/// Whether the command makes Valkey set fields although their number is wrong: it doubles the number, which
/// overflows. Ours refuses it, so the data would differ from there on.
pub(super) fn overflows_valkey(row: &str, command: &Words) -> bool {
    let is_huge = |word: &Vec<u8>| {
        let number = std::str::from_utf8(word).ok().and_then(|text| text.parse::<i64>().ok());
        number.is_some_and(|number| number.checked_mul(2).is_none())
    };
    let announces = |pair: &[Vec<u8>]| pair[0].eq_ignore_ascii_case(b"FIELDS") && is_huge(&pair[1]);
    row == "hsetex" && command.windows(2).any(announces)
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
