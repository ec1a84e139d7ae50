//! `OBJECT` and `MEMORY`: how a key is stored.
//!
//! Nothing here marks a key as used, or `OBJECT IDLETIME` would always return 0.
//!
//! `OBJECT ENCODING` returns the name of the encoding that *Redis* would choose. Our own forms differ, so
//! the name is derived from the value and from how it was last written
//! ([`StringOrigin`](crate::store::StringOrigin)).
//!
//! The commands are described at <https://redis.io/docs/latest/commands/?group=generic> and
//! <https://redis.io/docs/latest/commands/?group=server>.

use super::docs::help;
use super::options::{OptionCursor, integer};
use super::spec::{Command, Family, Flags, Handler, Outcome, command, read};
use crate::resp::{Args, CommandError, Reply};
use crate::store::{Access, ReadView, Usage};

/// `OBJECT`.
#[rustfmt::skip]
pub static OBJECT: Family = Family { group: "generic", commands: &[
    command("object", "subcommand [argument ...]", Handler::Container(OBJECT_COMMANDS, None))
        .doc("2.2.3", "depends on the subcommand",
             "A container for commands that report how a key is stored."),
] };

const NONDETERMINISTIC: &[&str] = &["nondeterministic_output"];

#[rustfmt::skip]
const OBJECT_COMMANDS: &[Command] = &[
    read("object|encoding", "key", encoding)
        .keys(2, 2, 1, "RO").tips(NONDETERMINISTIC)
        .doc("2.2.3", "O(1)", "Returns the encoding of a value, by Redis's name."),
    read("object|freq", "key", freq)
        .keys(2, 2, 1, "RO").tips(NONDETERMINISTIC)
        .doc("4.0.0", "O(1)",
             "Returns the logarithmic counter of a key's uses, with an LFU `maxmemory-policy`."),
    help("object|help", "6.2.0").flags(Flags::KEYSPACE),
    read("object|idletime", "key", idletime)
        .keys(2, 2, 1, "RO").tips(NONDETERMINISTIC)
        .doc("2.2.3", "O(1)", "Returns the number of seconds since a key was last used."),
    read("object|refcount", "key", refcount)
        .keys(2, 2, 1, "RO").tips(NONDETERMINISTIC)
        .doc("2.2.3", "O(1)", "Returns the reference count of a value, as Redis counts references."),
];

/// `MEMORY`.
#[rustfmt::skip]
pub static MEMORY: Family = Family { group: "server", commands: &[
    command("memory", "subcommand [argument ...]", Handler::Container(MEMORY_COMMANDS, None))
        .doc("4.0.0", "depends on the subcommand", "A container for commands about memory."),
] };

#[rustfmt::skip]
const MEMORY_COMMANDS: &[Command] = &[
    read("memory|usage", "key [SAMPLES count]", usage).keys(2, 2, 1, "RO")
        .doc("4.0.0", "O(1)",
             "Returns the number of bytes that a key and its value reserve."),
    super::memory::DOCTOR,
    help("memory|help", "4.0.0"),
    super::memory::MALLOC_STATS,
    super::memory::PURGE,
    super::memory::STATS,
];

fn encoding(view: &ReadView, args: Args, reply: &mut Reply) -> Outcome {
    reply
        .bulk_or_null(view.get(&args[2], Access::NoEvent).map(|entry| entry.encoding().as_bytes()));
    Ok(())
}

fn freq(view: &ReadView, args: Args, reply: &mut Reply) -> Outcome {
    match (view.get(&args[2], Access::NoEvent), view.usage()) {
        (None, _) => reply.null(),
        (Some(_), Usage::Time { .. }) => {
            return Err(CommandError::new(
                "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note \
                 that when switching between policies at runtime LRU and LFU data will take some time to \
                 adjust.",
            ));
        }
        (Some(entry), usage) => reply.integer(usage.frequency(entry.usage()).into()),
    }
    Ok(())
}

fn idletime(view: &ReadView, args: Args, reply: &mut Reply) -> Outcome {
    match (view.get(&args[2], Access::NoEvent), view.usage()) {
        (None, _) => reply.null(),
        (Some(_), Usage::Frequency { .. }) => {
            return Err(CommandError::new(
                "ERR An LFU maxmemory policy is selected, idle time not tracked. Please note that when \
                 switching between policies at runtime LRU and LFU data will take some time to adjust.",
            ));
        }
        (Some(entry), usage) => reply.integer(usage.idle_seconds(entry.usage()).into()),
    }
    Ok(())
}

fn refcount(view: &ReadView, args: Args, reply: &mut Reply) -> Outcome {
    match view.get(&args[2], Access::NoEvent) {
        Some(_) => reply.integer(REFERENCES),
        None => reply.null(),
    }
    Ok(())
}

/// The number of references to a value. Redis before 8.0 shares small integers, and reports more for them.
pub(super) const REFERENCES: i64 = 1;

/// The size is known, so the number of samples is only checked.
fn usage(view: &ReadView, args: Args, reply: &mut Reply) -> Outcome {
    let mut words = OptionCursor::new(args, 3);
    while !words.is_done() {
        let count = words.take_value("SAMPLES")?.ok_or(CommandError::SYNTAX)?;
        usize::try_from(integer(count)?).map_err(|_| CommandError::SYNTAX)?;
    }
    match view.key_bytes(&args[2]) {
        Some(bytes) => reply.count(bytes),
        None => reply.null(),
    }
    Ok(())
}
