//! Replication, as the master: `PSYNC`, `SYNC`, `REPLCONF`, `ROLE`, and waiting for replicas.
//!
//! `PSYNC` and `SYNC` turn their connection into that of a replica. They decide what it needs; the
//! connection's thread then starts the thread that sends it ([`crate::replication::feed`]).
//!
//! The protocol is described at
//! <https://redis.io/docs/latest/operate/oss_and_stack/management/replication/>.

use std::fmt::{self, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::options::{integer, is};
use super::replicaof;
use super::spec::{Context, Family, Flags, Outcome, session};
use crate::config::logger::log_line;
use crate::rdb::Dialect;
use crate::replication::feed::Start;
use crate::replication::identity::Ids;
use crate::replication::replicas::{Phase, Replica};
use crate::replication::upstream::Failover;
use crate::resp::{Args, CommandError, Reply};
use crate::session::{Server, Then, Waiting, Wanted};

/// The longest address that a replica may announce.
const ADDRESS_BYTES: usize = 255;
/// `REPLCONF version`: the first major version of Valkey that reads its own form of expiring fields.
const VALKEY_MAJOR: u32 = 9;

const INTERNAL: Flags = Flags::ADMIN.or(Flags::NOSCRIPT);
const SYNCS: Flags = INTERNAL.or(Flags::NO_ASYNC_LOADING).or(Flags::NO_MULTI);

/// The commands about replication that Redis lists under the server.
#[rustfmt::skip]
pub static FAMILY: Family = Family { group: "server", commands: &[
    session("psync", "replicationid offset [FAILOVER]", psync).flags(SYNCS)
        .arguments(&["failover="])
        .doc("2.8.0", "", "Sends a replica what it lacks, and then every change."),
    session("replconf", "[option value [option value ...]]", replconf)
        .flags(INTERNAL.or(Flags::ALWAYS).or(Flags::ALLOW_BUSY).or(Flags::IN_LOG).or(Flags::SYSTEM))
        .doc("3.0.0", "O(1)", "Takes what a replica says of itself, and what it acknowledges."),
    session("role", "", role).fast().flags(Flags::NOSCRIPT.or(Flags::ALWAYS))
        .flags(Flags::ADMIN_CATEGORY.or(Flags::DANGEROUS))
        .doc("2.8.12", "O(1)", "Returns the role of the server in replication."),
    session("sync", "", sync).flags(SYNCS)
        .doc("1.0.0", "", "Sends a replica a snapshot, and then every change."),
] };

/// WAIT and WAITAOF, which Redis lists under the generic commands.
#[rustfmt::skip]
pub static GENERIC: Family = Family { group: "generic", commands: &[
    session("wait", "numreplicas timeout", wait).flags(Flags::BLOCKING.or(Flags::CONNECTION))
        .tips(&["request_policy:all_shards", "response_policy:agg_min"])
        .doc("3.0.0", "O(1)", "Waits until so many replicas have the writes of the connection."),
    session("waitaof", "numlocal numreplicas timeout", waitaof)
        .flags(Flags::BLOCKING.or(Flags::CONNECTION))
        .tips(&["request_policy:all_shards", "response_policy:agg_min"])
        .doc("7.2.0", "O(1)",
             "Waits until the writes of the connection are synced to disk, here and by so many replicas."),
] };

// ---- Becoming a replica ------------------------------------------------------------------------------

fn psync(context: &mut Context, args: Args, reply: &mut Reply) -> Outcome {
    let (server, id) = (context.server, &args[1]);
    let next = integer(&args[2])?;
    if args.get(3).is_some_and(|word| is(word, "FAILOVER")) {
        take_over(server, id)?;
    }
    // The replica asks for the offset behind the last one that it has.
    let had = next.checked_sub(1).and_then(|had| u64::try_from(had).ok());
    let resumes = |had| server.replication.resumes_at(&server.aof, id, had);
    let wants_stream = {
        let profile = &context.session.profile;
        !profile.wants_snapshot_only && !profile.wants_no_keys
    };
    let lsn = had.filter(|_| wants_stream).and_then(resumes);
    become_replica(context, reply, lsn, |lsn| {
        // Looked up again: now the log keeps what this replica needs.
        let resumed = lsn.is_some_and(|_| had.and_then(resumes) == lsn);
        let stats = &server.replication;
        match lsn.filter(|_| resumed) {
            Some(lsn) => {
                stats.partial_syncs.add(1);
                Start::At(lsn)
            }
            None => {
                stats.refused_syncs.add(u64::from(id != b"?"));
                Start::Snapshot { announced: true }
            }
        }
    })
}

/// The master wants to be the replica of this server.
fn take_over(server: &Server, id: &[u8]) -> Outcome {
    if !server.upstream.follows() {
        return Err(CommandError::new("ERR PSYNC FAILOVER can't be sent to a master."));
    }
    if server.replication.identity.id().as_bytes() != id {
        return Err(CommandError::new("ERR PSYNC FAILOVER replid must match my replid."));
    }
    log_line!(server.config, Notice, "Failover request received: this server is the master now");
    server.promote();
    Ok(())
}

fn sync(context: &mut Context, _: Args, reply: &mut Reply) -> Outcome {
    become_replica(context, reply, None, |_| Start::Snapshot { announced: false })
}

/// Registers the connection as a replica that needs the stream from an LSN on, and then asks how it starts.
fn become_replica(
    context: &mut Context,
    reply: &Reply,
    lsn: Option<u64>,
    start: impl FnOnce(Option<u64>) -> Start,
) -> Outcome {
    let Context { server, session, .. } = context;
    if session.replica.is_some() {
        return Ok(()); // as in Redis, it is one already
    }
    if server.upstream.failover().is_some() {
        return Err(CommandError::new("NOMASTERLINK Can't SYNC while failing over"));
    }
    if server.upstream.follows() && !server.upstream.is_up() {
        let text = "NOMASTERLINK Can't SYNC while not connected with my master";
        return Err(CommandError::new(text));
    }
    if !reply.is_empty() {
        return Err(CommandError::new("ERR SYNC and PSYNC are invalid with pending output"));
    }
    let replication = &server.replication;
    if session.profile.wants_no_keys && !session.profile.takes_unknown_length {
        return Err(CommandError::new("ERR Filtered replica requires EOF capability"));
    }
    replication
        .prepare(&server.aof, &server.config)
        .map_err(|error| format!("ERR Replicas cannot be fed: {error}"))?;
    let needs = lsn.unwrap_or_else(|| server.aof.appended_lsn());
    let (client, profile) = (&session.client, (*session.profile).clone());
    let (id, outbox) = (client.id, client.outbox.clone());
    let replica = Arc::new(Replica::new(id, outbox, profile, &replication.identity, needs));
    replication.replicas.register(replica.clone());
    let start = start(lsn);
    if matches!(start, Start::Snapshot { .. }) {
        replication.full_syncs.add(1);
    }
    let how = match start {
        Start::At(lsn) => format!("goes on at offset {}", replication.identity.offset(lsn)),
        Start::Snapshot { .. } => "gets a snapshot".into(),
    };
    log_line!(server.config, Notice, "Replica {}:{} {how}", replica.address, replica.profile.port);
    session.client_flags.replica = true;
    session.replica = Some(replica);
    session.then = Some(Then::Feed(start));
    Ok(())
}

fn replconf(context: &mut Context, args: Args, reply: &mut Reply) -> Outcome {
    if args.len().is_multiple_of(2) {
        return Err(CommandError::SYNTAX);
    }
    for at in (1..args.len()).step_by(2) {
        let (option, value) = (&args[at], &args[at + 1]);
        let profile = &mut context.session.profile;
        if is(option, "listening-port") {
            profile.port = integer(value)?;
        } else if is(option, "ip-address") {
            if value.len() > ADDRESS_BYTES {
                let bytes = value.len();
                let what = "REPLCONF ip-address provided by replica instance is too long";
                return Err(format!("ERR {what}: {bytes} bytes").into());
            }
            profile.address = String::from_utf8_lossy(value).into_owned();
        } else if is(option, "capa") {
            profile.takes_unknown_length |= is(value, "eof");
            profile.knows_new_ids |= is(value, "psync2");
        } else if is(option, "version") {
            profile.dialect = dialect_of(value)?;
        } else if is(option, "ack") {
            let synced =
                args.get(at + 3).filter(|_| args.get(at + 2).is_some_and(|word| is(word, "fack")));
            acknowledge(context, value, synced);
            return Ok(()); // without a reply
        } else if is(option, "getack") {
            return Ok(()); // it is for replicas: a master does not answer
        } else if is(option, "rdb-only") {
            profile.wants_snapshot_only = match integer(value)? {
                0 => false,
                1 => true,
                _ => {
                    let text = "ERR value is out of range, value must between 0 and 1";
                    return Err(CommandError::new(text));
                }
            };
        } else if is(option, "rdb-filter-only") {
            profile.wants_no_keys = excludes_keys(value)?;
        } else {
            let text = [b"ERR Unrecognized REPLCONF option: ", option].concat();
            return Err(text.into());
        }
    }
    reply.ok();
    Ok(())
}

/// How a replica of this version wants hashes with expiring fields. Only Valkeys tell their version.
fn dialect_of(version: &[u8]) -> Result<Option<Dialect>, CommandError> {
    let text = std::str::from_utf8(version).unwrap_or_default();
    let numbers: Option<Vec<u32>> = text.split('.').map(|number| number.parse().ok()).collect();
    match numbers.as_deref() {
        Some([major, _, _]) => Ok((*major >= VALKEY_MAJOR).then_some(Dialect::Valkey)),
        _ => Err(format!("ERR Unrecognized version format: {text}").into()),
    }
}

/// Whether a filter leaves no keys. It names what a snapshot shall have: functions, of which there are none
/// here, or nothing.
fn excludes_keys(filter: &[u8]) -> Result<bool, CommandError> {
    for word in filter.split(|byte| *byte == b' ').filter(|word| !word.is_empty()) {
        if !is(word, "functions") {
            let text = [b"ERR Unsupported rdb-filter-only option: ", word].concat();
            return Err(text.into());
        }
    }
    Ok(true)
}

fn acknowledge(context: &mut Context, applied: &[u8], synced: Option<&[u8]>) {
    let offset = |text: &[u8]| integer(text).ok().and_then(|offset| u64::try_from(offset).ok());
    let Some(replica) = &context.session.replica else { return };
    if let Some(applied) = offset(applied) {
        let replicas = &context.server.replication.replicas;
        replicas.acknowledge(replica, applied, synced.and_then(offset));
        context.server.replication.count_good(&context.server.config);
    }
}

// ---- The state ---------------------------------------------------------------------------------------

fn role(context: &mut Context, _: Args, reply: &mut Reply) -> Outcome {
    let server = context.server;
    if let Some(master) = server.upstream.master() {
        replicaof::role(server, &master, reply);
        return Ok(());
    }
    let online = server.replication.listed().into_iter();
    let online: Vec<_> = online.filter(|(_, phase)| *phase == Phase::Online).collect();
    reply.array(3);
    reply.bulk(b"master");
    reply.integer(server.replication.offset(&server.aof) as i64);
    reply.array(online.len());
    for (replica, _) in online {
        reply.array(3);
        reply.bulk(replica.address.as_bytes());
        reply.bulk(replica.profile.port.to_string().as_bytes());
        reply.bulk(replica.applied().to_string().as_bytes());
    }
    Ok(())
}

/// The lines of INFO about the replicas and the stream.
pub(super) fn info_lines(server: &Server, text: &mut String) -> fmt::Result {
    let replication = &server.replication;
    let replicas = replication.listed();
    write!(text, "connected_slaves:{}\r\n", replicas.len())?;
    if let Some(good) = replication.good_replicas(&server.config) {
        write!(text, "min_slaves_good_slaves:{good}\r\n")?;
    }
    let shown = replicas.iter().filter_map(|(replica, phase)| Some((replica, phase.name()?)));
    for (number, (replica, state)) in shown.enumerate() {
        let (address, port) = (&replica.address, replica.profile.port);
        let (offset, lag) = (replica.applied(), replica.lag());
        write!(
            text,
            "slave{number}:ip={address},port={port},state={state},offset={offset},lag={lag}\r\n"
        )?;
    }
    let failover = Failover::name(server.upstream.failover().as_ref());
    write!(text, "master_failover_state:{failover}\r\n")?;
    let Ids { id, old } = replication.identity.ids();
    // As in Redis, this is the first offset that the id before does not cover.
    let (old, end) = old.map_or((format!("{:040}", 0), -1), |(old, end)| (old, end as i64 + 1));
    write!(text, "master_replid:{id}\r\nmaster_replid2:{old}\r\n")?;
    let offset = replication.offset(&server.aof);
    write!(text, "master_repl_offset:{offset}\r\nsecond_repl_offset:{end}\r\n")?;
    let (first, bytes) = replication.backlog(&server.aof);
    let size = server.config.repl_backlog_size.load(std::sync::atomic::Ordering::Relaxed);
    write!(text, "repl_backlog_active:{}\r\nrepl_backlog_size:{size}\r\n", u8::from(first > 0))?;
    write!(text, "repl_backlog_first_byte_offset:{first}\r\nrepl_backlog_histlen:{bytes}\r\n")
}

// ---- Waiting for replicas ----------------------------------------------------------------------------

const TIMEOUT_NOT_AN_INTEGER: CommandError =
    CommandError::new("ERR timeout is not an integer or out of range");

/// When a wait of that many milliseconds ends; `None` for never.
fn deadline(timeout: &[u8]) -> Result<Option<Instant>, CommandError> {
    let timeout_ms = integer(timeout).map_err(|_| TIMEOUT_NOT_AN_INTEGER)?;
    if timeout_ms < 0 {
        return Err(CommandError::new("ERR timeout is negative"));
    }
    let timeout = Duration::from_millis(timeout_ms.unsigned_abs());
    Ok((timeout_ms > 0).then(|| Instant::now().checked_add(timeout)).flatten())
}

fn wait(context: &mut Context, args: Args, reply: &mut Reply) -> Outcome {
    if context.server.upstream.follows() {
        return Err(CommandError::new(
            "ERR WAIT cannot be used with replica instances. Please also note that since Redis 4.0 if a \
             replica is configured to be writable (which is not the default) writes to replicas are just \
             local and are not propagated.",
        ));
    }
    let wanted = usize::try_from(integer(&args[1])?).unwrap_or_default();
    let until = deadline(&args[2])?;
    let offset = written_offset(context);
    let waiting =
        Waiting { wanted: Wanted::Applied, replicas: wanted, offset, until, silent: false };
    wait_or_reply(context, waiting, reply)
}

/// Syncs the log up to this connection's last write, without waiting for the syncing thread. The sync serves
/// every other waiting client too.
fn waitaof(context: &mut Context, args: Args, reply: &mut Reply) -> Outcome {
    let local = integer(&args[1])?;
    if !(0..=1).contains(&local) {
        return Err(CommandError::new("ERR value is out of range, value must between 0 and 1"));
    }
    let replicas = integer(&args[2]).ok().and_then(|replicas| usize::try_from(replicas).ok());
    let Some(replicas) = replicas else {
        return Err(CommandError::new("ERR value is out of range, must be positive"));
    };
    let until = deadline(&args[3])?;
    let server = context.server;
    if server.upstream.follows() {
        return Err(CommandError::new(
            "ERR WAITAOF cannot be used with replica instances. Please also note that writes to replicas are \
             just local and are not propagated.",
        ));
    }
    if local == 1 && !server.aof.is_enabled() {
        return Err(CommandError::new(
            "ERR WAITAOF cannot be used when numlocal is set but appendonly is disabled.",
        ));
    }
    let written = context.session.write_lsn;
    // A transaction holds locks, so it must not wait for the disk.
    let synced = match context.transaction {
        Some(_) => server.aof.is_synced(written),
        None => server.aof.flush_to(written).and_then(|()| server.aof.sync_to(written)).is_ok(),
    };
    // While the log is being turned on, a restart would not find the synced file yet.
    let in_log = server.aof.is_enabled() && server.aof.is_at(&server.config.log_path());
    let offset = written_offset(context);
    let wanted = Wanted::Synced { here: synced && in_log };
    wait_or_reply(context, Waiting { wanted, replicas, offset, until, silent: false }, reply)
}

/// The offset of the last change that this connection has made or seen.
fn written_offset(context: &Context) -> u64 {
    let session = &context.session;
    match session.seen_lsn.max(session.read_lsn) {
        0 => 0,
        lsn => context.server.replication.identity.offset(lsn),
    }
}

/// Replies if enough replicas are there, or in a transaction, which must not wait. Otherwise the connection
/// waits.
fn wait_or_reply(context: &mut Context, waiting: Waiting, reply: &mut Reply) -> Outcome {
    let Context { server, session, transaction } = context;
    let replicas = server.replication.replicas.count(|replica| waiting.is_met_by(replica));
    if replicas >= waiting.replicas || transaction.is_some() {
        waiting.reply(replicas, reply);
        return Ok(());
    }
    session.then = Some(Then::Wait(waiting));
    Ok(())
}
