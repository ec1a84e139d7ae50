//! `DEBUG`: what test tools do to a server, for whom `enable-debug-command` lets.
//!
//! To clients it is one command, as in Redis; its subcommands are rows of a table all the same
//! ([`Handler::Hidden`]), so that each has a view that it cannot leave.
//!
//! Two of them concern everything at once. `SLEEP` locks every shard and sleeps, so that whoever uses
//! keys waits. `LOADAOF` and `RELOAD` read the log into a keyspace beside the one that is served and
//! then exchange the two, with every shard locked: so nobody sees a half of it, what clients sent
//! meanwhile waits, and if the log cannot be read everything stays as it was. It takes the memory twice.
//! These two and `POPULATE` lock for themselves, so they are refused inside of a transaction.

use std::fs::File;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::docs::explain_subcommands;
use super::inspect::count_references;
use super::options::{integer, is};
use super::spec::{
    Change, Command, Context, Family, Flags, Handler, Outcome, Propagate, command, read, session,
};
use super::subcommand_name;
use crate::aof::{Aof, ReplayError, replay};
use crate::resp::{Args, CommandError, Protocol, Reply, Request, request};
use crate::session::{Server, Session};
use crate::store::{Access, Entry, ReadAll, ReadView, Value, WriteAll};
use crate::text::sha1::sha1;
use crate::text::{glob, integer};

/// The one command that clients are told of.
#[rustfmt::skip]
pub static FAMILY: Family = Family { group: "server", commands: &[
    command("debug", "subcommand [argument ...]", Handler::Hidden(find))
        .flags(Flags::ADMIN.or(Flags::NOSCRIPT).or(Flags::ALWAYS))
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
    session("debug|help", "", help).flags(Flags::ADMIN)
        .doc("1.0.0", "O(1)", "Returns this."),
    session("debug|loadaof", "", loadaof).flags(ALONE)
        .doc("1.0.0", "O(N) with N the size of the log", "Flushes the log and loads it anew."),
    read("debug|object", "key", object).keys(2, 2, 1, "RO").flags(Flags::ADMIN)
        .doc("1.0.0", "O(N) with N the number of fields of a hash", "Tells how a key is kept."),
    session("debug|populate", "count [prefix [size]]", populate).flags(ALONE)
        .doc("1.0.0", "O(N) with N the count",
             "Makes keys, `key:0` and so on, where there are none; their values are as long as the size."),
    session("debug|reload", "[MERGE] [NOFLUSH] [NOSAVE]", reload).flags(ALONE)
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

const NOT_ALLOWED: CommandError = CommandError::new(
    "ERR DEBUG command not allowed. If the enable-debug-command option is set to \"local\", you can \
     run it from a local connection, otherwise you need to set this option in the configuration file, \
     and then restart the server.",
);

/// How much of a subcommand that is not known an error repeats.
const QUOTED_BYTES: usize = 128;

fn find(context: &Context, args: Args) -> Result<&'static Command, CommandError> {
    if !context.server.config.allows_debug(context.session.client.is_local()) {
        return Err(NOT_ALLOWED);
    }
    let name = &args[1];
    let meant = |row: &&Command| is(name, subcommand_name(row)) && row.accepts(args.len());
    COMMANDS.iter().find(meant).ok_or_else(|| unknown(name))
}

fn unknown(name: &[u8]) -> CommandError {
    let name = &name[..name.len().min(QUOTED_BYTES)];
    let text = b"ERR unknown subcommand or wrong number of arguments for '";
    [text, name, b"'. Try DEBUG HELP."].concat().into()
}

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

/// Sends itself a SETNX for each key, which is logged like anybody's.
fn populate(context: &mut Context, args: Args, reply: &mut Reply) -> Outcome {
    const NOT_POSITIVE: CommandError =
        CommandError::new("ERR value is out of range, must be positive");
    let number = |arg: &[u8]| {
        let number = integer(arg).ok().and_then(|number| usize::try_from(number).ok());
        number.ok_or(NOT_POSITIVE)
    };
    if args.len() > 5 {
        return Err(unknown(&args[1]));
    }
    let count = number(&args[2])?;
    let prefix = args.get(3).unwrap_or(b"key");
    let size = args.get(4).map_or(Ok(0), number)?;
    let (mut request, mut record) = (Request::new(replay::ANY_LENGTH), Vec::new());
    let mut ignored = Reply::new(Protocol::Resp2);
    for index in 0..count {
        let key = [prefix, b":", index.to_string().as_bytes()].concat();
        let mut value = format!("value:{index}").into_bytes();
        if size > 0 {
            value.resize(size, 0);
        }
        record.clear();
        request::encode(&mut record, &[b"SETNX", &key, &value]);
        request.clear();
        let fed = request.feed(&record);
        fed.map_err(|error| CommandError::from(format!("ERR {error}")))?;
        (context.replay)(context.server, context.session, request.args(), &mut ignored)
            .map_err(|why| CommandError::from(format!("ERR {why}")))?;
    }
    reply.ok();
    Ok(())
}

fn loadaof(context: &mut Context, _: Args, reply: &mut Reply) -> Outcome {
    expect_log(context.server)?;
    load(context)?;
    reply.ok();
    Ok(())
}

/// How often RELOAD looks whether a rewrite that is going on has ended.
const LOOK: Duration = Duration::from_millis(1);

fn reload(context: &mut Context, args: Args, reply: &mut Reply) -> Outcome {
    let mut rewrites = true;
    for option in args.from(2) {
        if is(option, "NOSAVE") {
            rewrites = false;
        } else if !is(option, "MERGE") && !is(option, "NOFLUSH") {
            return Err(CommandError::new(
                "ERR DEBUG RELOAD only supports the MERGE, NOFLUSH and NOSAVE options.",
            ));
        }
    }
    let server = context.server;
    expect_log(server)?;
    if rewrites {
        while !server.aof.claim_rewrite() {
            thread::sleep(LOOK);
        }
        let rewritten = server.aof.rewrite(&server.keyspace, &server.config.log_path());
        rewritten.map_err(|error| format!("ERR The log could not be rewritten: {error}"))?;
    }
    load(context)?;
    reply.ok();
    Ok(())
}

/// Without a log there is nothing to load from.
fn expect_log(server: &Server) -> Outcome {
    let off = CommandError::new("ERR There is no log to load from: appendonly is no");
    if server.aof.is_enabled() { Ok(()) } else { Err(off) }
}

/// Lets the keyspace be what the log says.
fn load(context: &mut Context) -> Outcome {
    let (server, apply) = (context.server, context.replay);
    let mut all = WriteAll::new(&server.keyspace, 0);
    all.stop();
    let keyspace = read_log(server, apply).map_err(|why| {
        CommandError::from(format!(
            "ERR The log could not be loaded, everything is as it was: {why}"
        ))
    })?;
    all.take_over(&keyspace.keyspace);
    server.discard(server.tracking.tell_all(&server.hub));
    context.session.read_lsn = context.session.read_lsn.max(all.last_lsn());
    server.discard(all.unlock());
    Ok(())
}

/// Replays the log for a server of its own, which has no log and no clients.
fn read_log(server: &Server, apply: super::spec::Replay) -> Result<Server, ReplayError> {
    let path = server.config.log_path();
    server.aof.flush()?;
    if !server.aof.is_at(&path) {
        return Err(std::io::Error::other("it is still being written").into());
    }
    let config = server.config.clone();
    let mut other = Server::new(config, Aof::disabled(), mpsc::channel().0, mpsc::channel().0);
    other.keyspace = server.keyspace.beside();
    other.keyspace.set_expiring(false);
    other.loading.store(true, SeqCst);
    let mut session = Session::new(server.clients.detached(), true);
    let mut ignored = Reply::new(Protocol::Resp2);
    let replayed = replay::replay(
        &mut File::open(&path)?,
        replay::ANY_LENGTH,
        |args| apply(&other, &mut session, args, &mut ignored),
        |_| other.keyspace.tick(),
    )?;
    if replayed.torn_bytes > 0 {
        return Err(std::io::Error::other("it ends in the middle of a record").into());
    }
    Ok(other)
}
