//! `REPLICAOF`: making this server a copy of another, or a master again; and what a replica tells of itself.
//!
//! The command only says what is to be. The thread that links this server to its master does the rest, so the
//! command can be part of a transaction, as Sentinel sends it.
//!
//! The commands are described at <https://redis.io/docs/latest/commands/replicaof/>.

use std::fmt::{self, Write};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use super::options::is;
use super::spec::{Context, Family, Flags, Outcome, session};
use crate::config::logger::log_line;
use crate::replication::upstream::{Address, Link, Stage};
use crate::resp::{Args, CommandError, Reply};
use crate::session::Server;
use crate::text::integer::parse_i64;

const CHANGES_ROLE: Flags =
    Flags::ADMIN.or(Flags::NOSCRIPT).or(Flags::STALE).or(Flags::NO_ASYNC_LOADING);

/// `REPLICAOF`, and its older name.
#[rustfmt::skip]
pub static FAMILY: Family = Family { group: "server", commands: &[
    session("replicaof", "<host port | NO ONE>", replicaof).flags(CHANGES_ROLE)
        .arguments(&["host-port-one=args", "port:integer"])
        .doc("5.0.0", "O(1)",
             "Makes the server a replica of another, or with `NO ONE` a master."),
    session("slaveof", "<host port | NO ONE>", replicaof).flags(CHANGES_ROLE)
        .arguments(&["host-port-one=args", "port:integer"])
        .doc("1.0.0", "O(1)",
             "Makes the server a replica of another, or with `NO ONE` a master.")
        .deprecated("5.0.0", "`REPLICAOF`"),
] };

fn replicaof(context: &mut Context, args: Args, reply: &mut Reply) -> Outcome {
    const FAILS_OVER: CommandError =
        CommandError::new("ERR REPLICAOF not allowed while failing over.");
    let server = context.server;
    if server.upstream.failover().is_some() {
        return Err(FAILS_OVER);
    }
    if is(&args[1], "NO") && is(&args[2], "ONE") {
        if server.promote() {
            log_line!(server.config, Notice, "MASTER MODE enabled: a client asked for it");
        }
        reply.ok();
        return Ok(());
    }
    let port = parse_i64(&args[2]).and_then(|port| u16::try_from(port).ok());
    let port = port.ok_or(CommandError::new("ERR Invalid master port"))?;
    let host = String::from_utf8_lossy(&args[1]).into_owned();
    let master = Address { host, port };
    let old = server.upstream.master();
    if old.is_some_and(|old| old.host.eq_ignore_ascii_case(&master.host) && old.port == port) {
        reply.simple("OK Already connected to specified master");
        return Ok(());
    }
    let what = format!("REPLICAOF {}:{} enabled", master.host, master.port);
    if !server.follow(master) {
        return Err(FAILS_OVER);
    }
    log_line!(server.config, Notice, "{what}: a client asked for it");
    reply.ok();
    Ok(())
}

/// What `ROLE` says of a replica.
pub(super) fn role(server: &Server, master: &Address, reply: &mut Reply) {
    let stage = server.upstream.link().stage;
    let offset = if stage == Stage::Up { server.replication_offset() as i64 } else { -1 };
    reply.array(5);
    reply.bulk(b"slave");
    reply.bulk(master.host.as_bytes());
    reply.integer(i64::from(master.port));
    reply.bulk(stage.name().as_bytes());
    reply.integer(offset);
}

/// What `INFO replication` says only of a replica.
pub(super) fn info(server: &Server, master: &Address, text: &mut String) -> fmt::Result {
    let link = server.upstream.link();
    let Link { stage, heard, up_since, down_since, down_for, attempts, transfer } = link;
    let (is_up, syncs) = (stage == Stage::Up, stage == Stage::Sync);
    let since = |time: Option<Instant>| time.map_or(-1, |time| time.elapsed().as_secs() as i64);
    let offset = server.replication_offset();
    write!(text, "master_host:{}\r\nmaster_port:{}\r\n", master.host, master.port)?;
    write!(text, "master_link_status:{}\r\n", if is_up { "up" } else { "down" })?;
    let heard_ago = if is_up { since(heard) } else { -1 };
    write!(text, "master_last_io_seconds_ago:{heard_ago}\r\n")?;
    write!(text, "master_sync_in_progress:{}\r\n", u8::from(syncs))?;
    write!(text, "slave_read_repl_offset:{offset}\r\nslave_repl_offset:{offset}\r\n")?;
    write!(text, "replica_full_sync_buffer_size:0\r\nreplica_full_sync_buffer_peak:0\r\n")?;
    if syncs {
        let (total, read) = (transfer.total_bytes, transfer.read_bytes);
        let percent = if total == 0 { 0.0 } else { read as f64 * 100.0 / total as f64 };
        write!(text, "master_sync_total_bytes:{total}\r\nmaster_sync_read_bytes:{read}\r\n")?;
        write!(text, "master_sync_left_bytes:{}\r\n", total as i64 - read as i64)?;
        write!(text, "master_sync_perc:{percent:.2}\r\n")?;
        write!(text, "master_sync_last_io_seconds_ago:{}\r\n", since(heard))?;
    }
    write!(text, "master_current_sync_attempts:{}\r\n", attempts.0)?;
    write!(text, "master_total_sync_attempts:{}\r\n", attempts.1)?;
    if is_up {
        write!(text, "master_link_up_since_seconds:{}\r\n", since(up_since))?;
    } else {
        write!(text, "master_link_down_since_seconds:{}\r\n", since(down_since))?;
    }
    write!(text, "total_disconnect_time_sec:{}\r\n", down_for.as_secs())?;
    let config = &server.config;
    write!(text, "slave_priority:{}\r\n", config.replica_priority.load(Relaxed))?;
    write!(text, "slave_read_only:{}\r\n", u8::from(config.replica_read_only.load(Relaxed)))?;
    write!(text, "replica_announced:{}\r\n", u8::from(config.replica_announced.load(Relaxed)))
}
