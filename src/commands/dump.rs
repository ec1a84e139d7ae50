//! `DUMP`, `RESTORE` and `MIGRATE`: single values in the format of RDB, to carry them from one server to
//! another. `MIGRATE` runs other commands, so the dispatcher implements it.
//!
//! The log does not get the payload of `RESTORE` but the commands that make the same value, so a log remains
//! readable, and a server that does not know the payload's version can load it.
//!
//! The commands are described at <https://redis.io/docs/latest/commands/?group=generic>.

use std::io::ErrorKind;
use std::sync::atomic::Ordering::Relaxed;

use super::keys::put_in_place;
use super::options::{OptionCursor, integer, is};
use super::spec::{
    Change, Family, Flags, Handler, Nested, Outcome, Propagate, command, read, write,
};
use crate::aof::encode_entry;
use crate::config::events::EventClass;
use crate::memory;
use crate::rdb::payload::{self, Refusal};
use crate::rdb::{Dialect, Error};
use crate::resp::request::encode;
use crate::resp::{Args, CommandError, Reply};
use crate::store::{Access, Entry, EntryRef, ReadView, ValueRef, WriteView};

/// The commands about serialized values.
#[rustfmt::skip]
pub static FAMILY: Family = Family { group: "generic", commands: &[
    read("dump", "key", dump).key("RO access").tips(&["nondeterministic_output"])
        .doc("2.6.0", "O(N) where N is the size of the value", "Returns the value of a key, serialized."),
    command("migrate",
            "host port <key | \"\"> destination-db timeout [COPY] [REPLACE] \
             [AUTH password | AUTH2 username password] [KEYS key [key ...]]",
            Handler::Nested(Nested::Migrate))
        .keys(3, 3, 1, "RW access delete").keys_after("KEYS", 6, "RW access delete incomplete")
        .flags(Flags::DANGEROUS.or(Flags::MAY_REPLICATE))
        .secrets(is_credential).tips(&["nondeterministic_output"])
        .arguments(&["copy@3.0.0", "replace@3.0.0"])
        .history(&[("3.0.0", "Added the options `COPY` and `REPLACE`."),
                   ("3.0.6", "Added the option `KEYS`."), ("4.0.7", "Added the option `AUTH`."),
                   ("6.0.0", "Added the option `AUTH2`.")])
        .doc("2.6.0", "O(N) where N is the size of the values", "Moves keys to another server."),
    write("restore",
          "key ttl serialized-value [REPLACE] [ABSTTL] [IDLETIME seconds] [FREQ frequency]", restore)
        .key("OW update").flags(Flags::DENYOOM.or(Flags::DANGEROUS))
        .arguments(&["replace@3.0.0", "absttl@5.0.0", "seconds@5.0.0", "frequency@5.0.0"])
        .history(&[("3.0.0", "Added the option `REPLACE`."), ("5.0.0", "Added the option `ABSTTL`."),
                   ("5.0.0", "Added the options `IDLETIME` and `FREQ`.")])
        .doc("2.6.0", "O(N) where N is the size of the value", "Creates a key from a serialized value."),
] };

/// Whether an argument of MIGRATE is a password, or the user that it belongs to.
fn is_credential(args: Args, at: usize) -> bool {
    let follows = |option, distance: usize| at >= 6 + distance && is(&args[at - distance], option);
    follows("AUTH", 1) || follows("AUTH2", 1) || follows("AUTH2", 2)
}

fn dump(view: &ReadView, args: Args, reply: &mut Reply) -> Outcome {
    let config = view.config();
    let compresses = config.rdbcompression.load(Relaxed);
    let dump = |entry: EntryRef| {
        // A payload doubles as it grows.
        memory::ensure_available(entry.value.copy_bytes().saturating_mul(2))?;
        Ok::<_, CommandError>(payload::dump(entry.value, Dialect::of(config), compresses))
    };
    let payload = view.get(&args[1], Access::Use).map(dump).transpose()?;
    reply.bulk_or_null(payload.as_deref());
    Ok(())
}

/// The options of RESTORE.
#[derive(Default)]
struct Options {
    replace: bool,
    absolute: bool,
    idle_seconds: Option<i64>,
    /// Of use to LFU only.
    frequency: Option<i64>,
}

impl Options {
    fn parse(args: Args) -> Result<Options, CommandError> {
        const IDLETIME: CommandError =
            CommandError::new("ERR Invalid IDLETIME value, must be >= 0");
        const FREQ: CommandError =
            CommandError::new("ERR Invalid FREQ value, must be >= 0 and <= 255");
        let mut options = Options::default();
        let mut words = OptionCursor::new(args, 4);
        while !words.is_done() {
            if words.take("REPLACE") {
                options.replace = true;
            } else if words.take("ABSTTL") {
                options.absolute = true;
            } else if options.frequency.is_none()
                && let Some(seconds) = words.take_value("IDLETIME")?
            {
                let seconds = Some(integer(seconds)?).filter(|seconds| *seconds >= 0);
                options.idle_seconds = Some(seconds.ok_or(IDLETIME)?);
            } else if options.idle_seconds.is_none()
                && let Some(frequency) = words.take_value("FREQ")?
            {
                let frequency = Some(integer(frequency)?).filter(|n| (0..=255).contains(n));
                options.frequency = Some(frequency.ok_or(FREQ)?);
            } else {
                return Err(CommandError::SYNTAX);
            }
        }
        Ok(options)
    }
}

fn restore(view: &mut WriteView, args: Args, reply: &mut Reply) -> Change {
    let key = &args[1];
    let options = Options::parse(args)?;
    let existed = view.get(key, Access::Silent).is_some();
    if existed && !options.replace {
        return Err(CommandError::new("BUSYKEY Target key name already exists."));
    }
    let ttl = integer(&args[2])?;
    if ttl < 0 {
        return Err(CommandError::new("ERR Invalid TTL value, must be >= 0"));
    }
    let value = payload::restore(&args[3], view.packed_limits()).map_err(explain)?;
    memory::ensure_available(value.heap_bytes().saturating_mul(2))?; // for its record
    let expires_at_ms = match ttl {
        0 => None,
        _ if options.absolute => Some(ttl),
        _ => Some(ttl.wrapping_add(view.now_ms())), // as in Redis, one too large has passed
    };
    reply.ok();
    if expires_at_ms.is_some_and(|expires_at_ms| view.has_passed(expires_at_ms)) {
        if !view.remove(key) {
            return Ok(Propagate::Nothing);
        }
        view.notify(EventClass::GENERIC, "del", key);
        return Ok(Propagate::rewritten(&[b"DEL", key]));
    }
    let new = value.type_name();
    let old = put_in_place(view, key, Entry::new(value, expires_at_ms));
    if let Some(idle_seconds) = options.idle_seconds {
        view.set_idle(key, idle_seconds as u64);
    }
    if let Some(frequency) = options.frequency {
        view.set_frequency(key, frequency as u8); // it was checked
    }
    view.notify(EventClass::GENERIC, "restore", key);
    view.notify_overwritten(key, old, new);
    Ok(record(view, key, existed))
}

/// The commands that make the value that the key has now.
fn record(view: &WriteView, key: &[u8], existed: bool) -> Propagate {
    let Some(entry) = view.get(key, Access::Silent) else { return Propagate::Nothing };
    let mut records = Vec::new();
    if let ValueRef::String(_) = entry.value {
        encode_entry(&mut records, key, entry);
        return Propagate::Rewritten(records);
    }
    if existed {
        encode(&mut records, &[b"DEL", key]);
    }
    encode_entry(&mut records, key, entry);
    Propagate::Atomically(records)
}

fn explain(refusal: Refusal) -> CommandError {
    match refusal {
        Refusal::Footer => CommandError::new("ERR DUMP payload version or checksum are wrong"),
        Refusal::Value(Error::Unsupported { what, .. }) => {
            format!("ERR Bad data format: it is {what}, and there are only strings and hashes here")
                .into()
        }
        Refusal::Value(Error::Io(error)) if error.kind() == ErrorKind::OutOfMemory => {
            CommandError::NO_MEMORY
        }
        Refusal::Value(_) => CommandError::new("ERR Bad data format"),
    }
}
