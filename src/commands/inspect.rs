//! `OBJECT` and `MEMORY`: what is known of a key beside its value.
//!
//! Nothing here counts as a use of the key, or `OBJECT IDLETIME` could never answer anything but 0.
//!
//! The encodings are Redis's names for the forms in which *it* would keep the value. Where our forms
//! are others, the answer is still the same: it follows from the value and from how it was last
//! written ([`StringOrigin`](crate::store::StringOrigin)).
//!
//! The commands are described at <https://redis.io/docs/latest/commands/?group=generic> and
//! <https://redis.io/docs/latest/commands/?group=server>.

use super::docs::help;
use super::options::{integer, is};
use super::spec::{Command, Family, Flags, Handler, Outcome, command, read};
use crate::resp::{Args, CommandError, Reply};
use crate::store::key::Key;
use crate::store::{Access, Entry, ReadView};

/// What Redis keeps an object for.
#[rustfmt::skip]
pub static OBJECT: Family = Family { group: "generic", commands: &[
    command("object", "subcommand [argument ...]", Handler::Container(OBJECT_COMMANDS, None))
        .doc("2.2.3", "depends on the subcommand", "Tells how a key is kept."),
] };

const NONDETERMINISTIC: &[&str] = &["nondeterministic_output"];

#[rustfmt::skip]
const OBJECT_COMMANDS: &[Command] = &[
    read("object|encoding", "key", encoding).keys(2, 2, 1, "RO").tips(NONDETERMINISTIC)
        .doc("2.2.3", "O(1)", "Returns Redis's name for the form in which a value is kept."),
    read("object|freq", "key", freq).keys(2, 2, 1, "RO").tips(NONDETERMINISTIC)
        .doc("4.0.0", "O(1)", "Is refused: nothing is evicted here, so no use is counted."),
    help("object|help", "6.2.0").flags(Flags::KEYSPACE),
    read("object|idletime", "key", idletime).keys(2, 2, 1, "RO").tips(NONDETERMINISTIC)
        .doc("2.2.3", "O(1)", "Returns the seconds since a key was last used."),
    read("object|refcount", "key", refcount).keys(2, 2, 1, "RO").tips(NONDETERMINISTIC)
        .doc("2.2.3", "O(1)", "Returns how many keys share the value, as Redis counts them."),
];

/// Memory.
#[rustfmt::skip]
pub static MEMORY: Family = Family { group: "server", commands: &[
    command("memory", "subcommand [argument ...]", Handler::Container(MEMORY_COMMANDS, None))
        .doc("4.0.0", "depends on the subcommand", "Tells about memory."),
] };

#[rustfmt::skip]
const MEMORY_COMMANDS: &[Command] = &[
    read("memory|usage", "key [SAMPLES count]", usage).keys(2, 2, 1, "RO")
        .doc("4.0.0", "O(N) with N the number of samples",
             "Returns the bytes of memory that a key and its value have reserved."),
    super::memory::DOCTOR,
    help("memory|help", "4.0.0"),
    super::memory::MALLOC_STATS,
    super::memory::PURGE,
    super::memory::STATS,
];

fn encoding(view: &ReadView, args: Args, reply: &mut Reply) -> Outcome {
    reply.bulk_or_null(view.get(&args[2], Access::Peek).map(|entry| entry.encoding().as_bytes()));
    Ok(())
}

fn freq(view: &ReadView, args: Args, reply: &mut Reply) -> Outcome {
    if view.get(&args[2], Access::Peek).is_some() {
        return Err(CommandError::new(
            "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note \
             that when switching between policies at runtime LRU and LFU data will take some time to \
             adjust.",
        ));
    }
    reply.null();
    Ok(())
}

fn idletime(view: &ReadView, args: Args, reply: &mut Reply) -> Outcome {
    match view.get(&args[2], Access::Peek) {
        Some(entry) => reply.integer(view.idle_seconds(entry).into()),
        None => reply.null(),
    }
    Ok(())
}

fn refcount(view: &ReadView, args: Args, reply: &mut Reply) -> Outcome {
    match view.get(&args[2], Access::Peek) {
        Some(entry) => reply.integer(count_references(entry)),
        None => reply.null(),
    }
    Ok(())
}

/// Redis has one object each of the integers below 10,000, which it counts as shared by so many that
/// it is never freed. (A copy that COPY makes has one of its own there; not here.)
pub(super) fn count_references(entry: &Entry) -> i64 {
    match entry.integer() {
        Some(0..10_000) => i32::MAX.into(),
        _ => 1,
    }
}

/// Of the fields of a large hash so many are looked at, unless the client says how many.
const SAMPLES: usize = 5;

fn usage(view: &ReadView, args: Args, reply: &mut Reply) -> Outcome {
    let mut samples = SAMPLES;
    let mut options = args.from(3);
    while let Some(option) = options.next() {
        let count = options.next().filter(|_| is(option, "SAMPLES")).ok_or(CommandError::SYNTAX)?;
        samples = usize::try_from(integer(count)?).map_err(|_| CommandError::SYNTAX)?;
    }
    match view.get(&args[2], Access::Inspect) {
        Some(entry) => reply.count(memory_bytes(&args[2], entry, samples)),
        None => reply.null(),
    }
    Ok(())
}

/// What the key takes: its place in the map with the map's byte of control, the key itself if it is too
/// long for that place, and what the value has reserved. Not counted is what the allocator adds to each
/// of these, and the places of the map that are free.
fn memory_bytes(key: &[u8], entry: &Entry, samples: usize) -> usize {
    size_of::<(Key, Entry)>() + 1 + Key::heap_bytes_of(key.len()) + entry.value.heap_bytes(samples)
}
