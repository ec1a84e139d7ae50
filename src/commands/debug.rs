//! `DEBUG`: what test tools do to a server, for whom `enable-debug-command` lets.
//!
//! To clients it is one command, as in Redis; its subcommands are rows of a table all the same
//! ([`Handler::Hidden`]), so that each has a view that it cannot leave.
//!
//! `SLEEP` locks every shard and sleeps, so that everybody who uses keys waits. `LOADAOF`, `RELOAD` and
//! `POPULATE` carry out other commands, so they are the dispatcher's own work, and are refused inside a
//! transaction.

use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::docs::explain_subcommands;
use super::inspect::count_references;
use super::spec::{
    Change, Command, Context, Family, Flags, Handler, Nested, Outcome, Propagate, command, read,
    session,
};
use crate::resp::{Args, CommandError, Reply};
use crate::store::{Access, Entry, ReadAll, ReadView, Value, WriteAll};
use crate::text::sha1::sha1;
use crate::text::{glob, integer};

/// The one command that clients are told of.
#[rustfmt::skip]
pub static FAMILY: Family = Family { group: "server", commands: &[
    command("debug", "subcommand [argument ...]", Handler::Hidden(COMMANDS))
        .flags(Flags::PROTECTED.or(Flags::ADMIN.or(Flags::NOSCRIPT).or(Flags::ALWAYS)))
        .doc("1.0.0", "depends on the subcommand", "Looks into the server, and troubles it."),
] };

/// Of those that lock for themselves.
const ALONE: Flags = Flags::ADMIN.or(Flags::NO_MULTI);

#[rustfmt::skip]
static COMMANDS: &[Command] = &[
    command("debug|digest", "", Handler::ReadAll(digest)).flags(Flags::ADMIN)
        .doc("1.0.0", "O(N) with N the size of all data",
             "Returns 40 hexadecimal digits that tell all data of all databases from any other."),
    read("debug|digest-value", "[key [key ...]]", digest_value).keys(2, -1, 1, "RO").flags(Flags::ADMIN)
        .doc("1.0.0", "O(N) with N the size of the values", "Returns such digits for each of the values."),
    session("debug|help", "", help).flags(Flags::ADMIN.or(Flags::HELP))
        .doc("1.0.0", "O(1)", "Returns this."),
    command("debug|loadaof", "", Handler::Nested(Nested::LoadAof)).flags(ALONE)
        .doc("1.0.0", "O(N) with N the size of the log", "Flushes the log and loads it anew."),
    read("debug|object", "key", object).keys(2, 2, 1, "RO").flags(Flags::ADMIN)
        .doc("1.0.0", "O(N) with N the number of fields of a hash", "Tells how a key is kept."),
    command("debug|populate", "count [prefix [size]]", Handler::Nested(Nested::Populate)).flags(ALONE)
        .doc("1.0.0", "O(N) with N the count",
             "Makes keys, `key:0` and so on, where there are none; their values are as long as the size."),
    command("debug|reload", "[MERGE] [NOFLUSH] [NOSAVE]", Handler::Nested(Nested::Reload)).flags(ALONE)
        .doc("1.0.0", "O(N) with N the size of all data",
             "Rewrites the log and loads it anew; with NOSAVE it is not rewritten. The log has all that \
              memory has, so MERGE and NOFLUSH change nothing."),
    session("debug|set-active-expire", "zero-or-one", set_active_expire).flags(Flags::ADMIN)
        .doc("1.0.0", "O(1)", "Says whether expired keys are removed even if nobody meets them."),
    command("debug|sleep", "seconds", Handler::WriteAll(sleep)).flags(Flags::ADMIN)
        .doc("1.0.0", "O(1)", "Stops everybody who uses keys for so long."),
    session("debug|stringmatch-len", "pattern string", stringmatch_len).flags(Flags::ADMIN)
        .doc("1.0.0", "O(N*M) with N and M the lengths", "Tells whether a string fits a pattern of KEYS."),
];

fn help(_: &mut Context, _: Args, reply: &mut Reply) -> Outcome {
    explain_subcommands("DEBUG", COMMANDS, reply);
    Ok(())
}

fn object(view: &ReadView, args: Args, reply: &mut Reply) -> Outcome {
    let entry = view.get(&args[2], Access::Inspect).ok_or(CommandError::NO_SUCH_KEY)?;
    let idle = view.idle_seconds(entry);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    reply.simple(&format!(
        "Value at:{:p} refcount:{} encoding:{} serializedlength:{} lru:{} lru_seconds_idle:{idle}",
        &raw const entry.value,
        count_references(entry),
        entry.encoding(),
        serialized_bytes(entry),
        now.saturating_sub(idle.into()) & 0xff_ffff, // Redis keeps 24 bits of the time
    ));
    Ok(())
}

/// How long the value would be in a snapshot of Redis's that is not compressed. (Of a hash, if it were
/// written field by field.)
fn serialized_bytes(entry: &Entry) -> usize {
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
    match &entry.value {
        Value::String(bytes) => string(bytes),
        Value::Hash(hash) => {
            let fields = hash.iter().map(|field| string(field.name) + string(field.value));
            length_bytes(hash.len()) + fields.sum::<usize>()
        }
    }
}

/// A digest of what has no order: what belongs together in a certain order is mixed in, one thing after
/// the other; what comes in no order is added, and so is the same in any. It is built as Redis builds
/// it, so that two servers can be compared.
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

    /// Of a value, as it is seen at that moment, and whether it expires; when it does is left out.
    fn mix_entry(&mut self, entry: &Entry, now_ms: i64) {
        // The numbers by which Redis knows the types.
        match &entry.value {
            Value::String(bytes) => {
                self.mix(&0u32.to_be_bytes());
                self.mix(bytes);
            }
            Value::Hash(hash) => {
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
    // For each database that has keys.
    let mut databases = std::collections::BTreeMap::<u32, Digest>::new();
    all.visit_databases(|db, table| {
        for (key, entry) in table.iter().filter(|(_, entry)| all.is_live(entry)) {
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
        view.get(key, Access::Inspect)
            .iter()
            .for_each(|entry| digest.mix_entry(entry, view.now_ms()));
        reply.simple(&digest.to_hex());
    }
    Ok(())
}

fn sleep(all: &mut WriteAll, args: Args, reply: &mut Reply) -> Change {
    // As in Redis, what is no number is 0.
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
    reply.integer(glob::matches(&args[2], &args[3], false).into());
    Ok(())
}
