//! `DEBUG`: commands for test tools, allowed by `enable-debug-command`.
//!
//! Clients see one command, as in Redis. Its subcommands are rows of a table nevertheless
//! ([`Handler::Hidden`]), so that each has a handler with the right kind of view.
//!
//! `SLEEP` locks every shard and sleeps, so that every client that uses keys waits. `LOADAOF`, `RELOAD` and
//! `POPULATE` execute other commands, so the dispatcher implements them, and they are refused in a
//! transaction.
//!
//! The command is described at <https://redis.io/docs/latest/commands/debug/>.

use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::docs::explain_subcommands;
use super::inspect::REFERENCES;
use super::options::{is, wrong_subcommand_args};
use super::spec::{
    Change, Command, Context, Family, Flags, Handler, Nested, Outcome, Propagate, command, read,
    session,
};
use crate::config::logger::log_line;
use crate::resp::{Args, CommandError, Protocol, Reply};
use crate::store::{Access, EntryRef, ReadAll, ReadView, ValueRef, WriteAll};
use crate::text::sha1::sha1;
use crate::text::{glob, integer};

/// The one command that clients see.
#[rustfmt::skip]
pub static FAMILY: Family = Family { group: "server", commands: &[
    command("debug", "subcommand [argument ...]", Handler::Hidden(COMMANDS))
        .flags(Flags::SYSTEM.or(Flags::PROTECTED).or(Flags::ADMIN.or(Flags::NOSCRIPT).or(Flags::ALWAYS)))
        .doc("1.0.0", "depends on the subcommand", "A container for commands that help to test the server."),
] };

/// The flags of commands that take locks of their own.
const OWN_LOCKS: Flags = Flags::ADMIN.or(Flags::NO_MULTI);

#[rustfmt::skip]
static COMMANDS: &[Command] = &[
    session("debug|check", "", check).flags(OWN_LOCKS)
        .doc("1.0.0", "O(N) with N the size of all data",
             "Checks the invariants of the data and of the tables about clients."),
    command("debug|digest", "", Handler::ReadAll(digest)).flags(Flags::ADMIN)
        .doc("1.0.0", "O(N) where N is the size of all data",
             "Returns a digest of all data of all databases, as 40 hexadecimal digits."),
    read("debug|digest-value", "[key [key ...]]", digest_value).keys(2, -1, 1, "RO").flags(Flags::ADMIN)
        .doc("1.0.0", "O(N) where N is the size of the values", "Returns a digest of each of the values."),
    session("debug|error", "text", error).flags(Flags::ADMIN)
        .doc("1.0.0", "O(1)", "Returns this error."),
    session("debug|help", "", help).flags(Flags::ADMIN.or(Flags::HELP))
        .doc("1.0.0", "O(1)", "Prints this help."),
    command("debug|loadaof", "", Handler::Nested(Nested::LoadAof)).flags(OWN_LOCKS)
        .doc("1.0.0", "O(N) where N is the size of the log", "Flushes the append-only file and reloads it."),
    session("debug|log", "text", log).flags(Flags::ADMIN)
        .doc("1.0.0", "O(1)", "Writes a text into the server's log lines."),
    read("debug|object", "key", object).keys(2, 2, 1, "RO").flags(Flags::ADMIN)
        .doc("1.0.0", "O(N) where N is the number of fields of a hash", "Returns how a key is stored."),
    session("debug|pause-cron", "zero-or-one", pause_cron).flags(Flags::ADMIN)
        .doc("1.0.0", "O(1)", "Pauses or resumes the background removal of expired keys."),
    command("debug|populate", "count [prefix [size]]", Handler::Nested(Nested::Populate)).flags(OWN_LOCKS)
        .doc("1.0.0", "O(N) where N is the count",
             "Creates the keys `prefix:0`, `prefix:1` and so on, if they do not exist."),
    session("debug|protocol", "type", protocol).flags(Flags::ADMIN)
        .doc("1.0.0", "O(1)", "Returns a value of that type of the protocol, for tests of clients."),
    command("debug|reload", "[MERGE] [NOFLUSH] [NOSAVE]", Handler::Nested(Nested::Reload)).flags(OWN_LOCKS)
        .doc("1.0.0", "O(N) where N is the size of all data",
             "Rewrites the append-only file, unless NOSAVE is given, and reloads it. MERGE and NOFLUSH \
              change nothing, as the file has everything that is in memory."),
    session("debug|replybuffer", "<PEAK-RESET-TIME time | RESIZING zero-or-one>", replybuffer)
        .flags(Flags::ADMIN)
        .doc("1.0.0", "O(1)", "Changes nothing: a buffer for replies does not remember its peak."),
    read("debug|sdslen", "key", sdslen).keys(2, 2, 1, "RO").flags(Flags::ADMIN)
        .doc("1.0.0", "O(1)", "Returns the lengths of a key and its string, and the memory that they take."),
    session("debug|set-active-expire", "zero-or-one", set_active_expire).flags(Flags::ADMIN)
        .doc("1.0.0", "O(1)", "Turns the background removal of expired keys on or off."),
    command("debug|sleep", "seconds", Handler::WriteAll(sleep)).flags(Flags::ADMIN.or(Flags::SHOWN_AS_READ))
        .doc("1.0.0", "O(1)", "Blocks every client that uses keys for a number of seconds."),
    session("debug|stringmatch-len", "pattern string", stringmatch_len).flags(Flags::ADMIN)
        .doc("1.0.0", "O(N*M) where N and M are the lengths",
             "Returns whether a string matches a glob-style pattern."),
];

fn help(_: &mut Context, _: Args, reply: &mut Reply) -> Outcome {
    explain_subcommands("DEBUG", COMMANDS, reply);
    Ok(())
}

/// For the random and the crash tests. Redis does not know it.
fn check(context: &mut Context, _: Args, reply: &mut Reply) -> Outcome {
    let server = context.server;
    let data = server.keyspace.check().and_then(|()| server.aof.check());
    let checked = data.and_then(|()| server.tracking.check()).and_then(|()| server.pubsub.check());
    checked.map_err(|fault| format!("ERR A check failed: {fault}"))?;
    reply.ok();
    Ok(())
}

fn object(view: &ReadView, args: Args, reply: &mut Reply) -> Outcome {
    let entry = view.get(&args[2], Access::Silent).ok_or(CommandError::NO_SUCH_KEY)?;
    let idle = view.usage().idle_seconds(entry.usage());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    reply.simple(&format!(
        "Value at:{:p} refcount:{REFERENCES} encoding:{} serializedlength:{} lru:{} lru_seconds_idle:{idle}",
        &raw const entry.value,
        entry.encoding(),
        serialized_bytes(entry),
        now.saturating_sub(idle.into()) & 0xff_ffff, // Redis keeps 24 bits of the time
    ));
    Ok(())
}

/// The length of the value in an uncompressed RDB file. (A hash counts as if it were written field by field.)
fn serialized_bytes(entry: EntryRef) -> usize {
    let length_bytes = |length: usize| match length {
        0..64 => 1,
        64..16_384 => 2,
        _ => 5,
    };
    let string = |bytes: &[u8]| match integer::parse_i64(bytes) {
        Some(-128..=127) => 2,
        Some(-32_768..=32_767) => 3,
        Some(number) if i32::try_from(number).is_ok() => 5,
        _ => length_bytes(bytes.len()) + bytes.len(),
    };
    match entry.value {
        ValueRef::String(bytes) => string(bytes),
        ValueRef::Hash(hash) => {
            let fields = hash.iter().map(|field| string(field.name) + string(field.value));
            length_bytes(hash.len()) + fields.sum::<usize>()
        }
    }
}

/// A digest of unordered data, built as Redis builds it so that two servers can be compared. Ordered parts
/// are mixed in one after the other; unordered parts are added by XOR, so their order does not matter.
#[derive(Clone, Copy, Default)]
struct Digest([u8; 20]);

impl Digest {
    fn mix(&mut self, bytes: &[u8]) {
        self.add(bytes);
        self.0 = sha1(&self.0);
    }

    fn add(&mut self, bytes: &[u8]) {
        self.combine(Digest(sha1(bytes)));
    }

    fn combine(&mut self, other: Digest) {
        self.0.iter_mut().zip(other.0).for_each(|(ours, theirs)| *ours ^= theirs);
    }

    /// Mixes in a value as it is at this moment, and whether it expires, but not when.
    fn mix_entry(&mut self, entry: EntryRef, now_ms: i64) {
        // The numbers are Redis's for the types.
        match entry.value {
            ValueRef::String(bytes) => {
                self.mix(&0u32.to_be_bytes());
                self.mix(bytes);
            }
            ValueRef::Hash(hash) => {
                self.mix(&4u32.to_be_bytes());
                for field in hash.iter().filter(|field| !field.is_expired(now_ms)) {
                    let mut pair = Digest::default();
                    pair.mix(field.name);
                    pair.mix(field.value);
                    if field.expires_at_ms().is_some() {
                        pair.add(b"!!hexpire!!");
                    }
                    self.add(&pair.0);
                }
            }
        }
        if entry.expires_at_ms().is_some() {
            self.add(b"!!expire!!");
        }
    }

    fn to_hex(self) -> String {
        self.0.map(|byte| format!("{byte:02x}")).concat()
    }
}

fn digest(all: &ReadAll, _: Args, reply: &mut Reply) -> Outcome {
    // One digest for each database that has keys.
    let mut databases = std::collections::BTreeMap::<u32, Digest>::new();
    all.visit_databases(|db, table| {
        for (key, entry) in table.iter().filter(|(_, entry)| all.is_live(*entry)) {
            let mut digest = Digest::default();
            digest.mix(key);
            digest.mix_entry(entry, all.now_ms());
            databases.entry(db as u32).or_default().add(&digest.0);
        }
    });
    let mut total = Digest::default();
    for (db, digest) in databases {
        total.mix(&db.to_be_bytes());
        total.combine(digest);
    }
    reply.simple(&total.to_hex());
    Ok(())
}

fn digest_value(view: &ReadView, args: Args, reply: &mut Reply) -> Outcome {
    reply.array(args.len() - 2);
    for key in args.from(2) {
        let mut digest = Digest::default();
        view.get(key, Access::Silent)
            .into_iter()
            .for_each(|entry| digest.mix_entry(entry, view.now_ms()));
        reply.simple(&digest.to_hex());
    }
    Ok(())
}

fn sleep(all: &mut WriteAll, args: Args, reply: &mut Reply) -> Change {
    // As in Redis, a text that is not a number means 0.
    let seconds = str::from_utf8(&args[2]).ok().and_then(|text| text.parse().ok());
    let duration = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    if let Some(duration) = duration.filter(|duration| !duration.is_zero()) {
        all.stop();
        thread::sleep(duration);
    }
    reply.ok();
    Ok(Propagate::Nothing)
}

fn set_active_expire(context: &mut Context, args: Args, reply: &mut Reply) -> Outcome {
    let on = integer::parse_i64(&args[2]).is_some_and(|number| number != 0);
    context.server.keyspace.set_sweeping(on);
    reply.ok();
    Ok(())
}

fn stringmatch_len(_: &mut Context, args: Args, reply: &mut Reply) -> Outcome {
    reply.integer(glob::matches(&args[2], &args[3]).into());
    Ok(())
}

fn error(_: &mut Context, args: Args, _: &mut Reply) -> Outcome {
    Err(args[2].to_vec().into())
}

fn log(context: &mut Context, args: Args, reply: &mut Reply) -> Outcome {
    let text = String::from_utf8_lossy(&args[2]);
    log_line!(context.server.config, Warning, "DEBUG LOG: {text}");
    reply.ok();
    Ok(())
}

fn pause_cron(context: &mut Context, args: Args, reply: &mut Reply) -> Outcome {
    let paused = integer::parse_i64(&args[2]).is_some_and(|number| number != 0);
    context.server.keyspace.set_sweeping(!paused);
    reply.ok();
    Ok(())
}

fn replybuffer(_: &mut Context, args: Args, reply: &mut Reply) -> Outcome {
    if !is(&args[2], "PEAK-RESET-TIME") && !is(&args[2], "RESIZING") {
        return Err(wrong_subcommand_args(args));
    }
    reply.ok();
    Ok(())
}

fn sdslen(view: &ReadView, args: Args, reply: &mut Reply) -> Outcome {
    let entry = view.get(&args[2], Access::Silent).ok_or(CommandError::NO_SUCH_KEY)?;
    let ValueRef::String(bytes) = entry.value else {
        return Err(CommandError::new("ERR Not an sds encoded string."));
    };
    // Both are parts of one record.
    let (key_bytes, value_bytes) = (args[2].len(), bytes.len());
    reply.simple(&format!(
        "key_sds_len:{}, key_sds_avail:0, key_zmalloc: {key_bytes}, val_sds_len:{}, val_sds_avail:0, \
         val_zmalloc: {value_bytes}",
        args[2].len(),
        bytes.len(),
    ));
    Ok(())
}

/// The replies are those of Redis, byte for byte.
fn protocol(context: &mut Context, args: Args, reply: &mut Reply) -> Outcome {
    let resp3 = context.session.client.outbox.protocol() == Protocol::Resp3;
    let mut put = |in_resp2: &str, in_resp3: &str| {
        reply.insert(reply.len(), if resp3 { in_resp3 } else { in_resp2 }.as_bytes());
    };
    match args[2].to_ascii_lowercase().as_slice() {
        b"string" => reply.bulk(b"Hello World"),
        b"integer" => reply.integer(12345),
        b"double" => reply.double(b"3.141"),
        b"bignum" => {
            let digits = "1234567999999999999999999999999999999";
            put(&format!("$37\r\n{digits}\r\n"), &format!("({digits}\r\n"));
        }
        b"null" => reply.null(),
        b"array" => {
            reply.array(3);
            (0..3).for_each(|number| reply.integer(number));
        }
        b"set" => {
            reply.set(3);
            (0..3).for_each(|number| reply.integer(number));
        }
        b"map" => put(
            "*6\r\n:0\r\n:0\r\n:1\r\n:1\r\n:2\r\n:0\r\n",
            "%3\r\n:0\r\n#f\r\n:1\r\n#t\r\n:2\r\n#f\r\n",
        ),
        b"attrib" => {
            put("", "|1\r\n$14\r\nkey-popularity\r\n*2\r\n$7\r\nkey:123\r\n:90\r\n");
            reply.bulk(b"Some real reply following the attribute");
        }
        b"push" if resp3 => {
            reply.bulk(b"Some real reply following the push reply");
            reply.push(2);
            reply.bulk(b"server-cpu-usage");
            reply.integer(42);
        }
        b"push" => return Err(CommandError::new("ERR RESP2 is not supported by this command")),
        b"verbatim" => reply.verbatim(b"This is a verbatim\nstring"),
        b"true" => put(":1\r\n", "#t\r\n"),
        b"false" => put(":0\r\n", "#f\r\n"),
        _ => {
            return Err(CommandError::new(
                "ERR Wrong protocol type name. Please use one of the following: \
                 string|integer|double|bignum|null|array|set|map|attrib|push|verbatim|true|false",
            ));
        }
    }
    Ok(())
}
