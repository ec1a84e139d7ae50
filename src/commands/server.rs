//! The server: its settings, what it can tell of itself, the time, its end.
//!
//! The commands are described at <https://redis.io/docs/latest/commands/?group=server>. `INFO` tells
//! only what is known to be true here; fields of Redis's that would have to be invented are left out.

use std::fmt::Write;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{SystemTime, UNIX_EPOCH};

use super::connection::REDIS_VERSION;
use super::options::{integer, is};
use super::spec::{Command, Context, Family, Flags, Handler, Outcome, command, session};
use crate::config::Level;
use crate::resp::{Args, CommandError, Reply};
use crate::store::now_ms;

const ADMIN: Flags = Flags::ADMIN.or(Flags::NOSCRIPT).or(Flags::ALWAYS);

/// The server.
#[rustfmt::skip]
pub static FAMILY: Family = Family { group: "server", commands: &[
    session("bgrewriteaof", "", bgrewriteaof)
        .flags(Flags::ADMIN.or(Flags::NOSCRIPT).or(Flags::NO_ASYNC_LOADING))
        .doc("1.0.0", "O(1)", "Starts a rewrite of the log."),
    command("config", "subcommand [argument ...]", Handler::Container(CONFIG_COMMANDS, None))
        .doc("2.0.0", "depends on the subcommand", "Shows and changes settings."),
    session("info", "[section [section ...]]", info)
        .flags(Flags::ALWAYS.or(Flags::DANGEROUS).or(Flags::VISITS_KEYS))
        .tips(&["nondeterministic_output", "request_policy:all_shards", "response_policy:special"])
        .doc("1.0.0", "O(1)", "Tells about the server."),
    session("shutdown", "[NOSAVE | SAVE] [NOW] [FORCE] [ABORT]", shutdown)
        .flags(ADMIN.or(Flags::NO_MULTI).or(Flags::ALLOW_BUSY))
        .doc("1.0.0", "O(1)", "Syncs the log to the disk and ends the server."),
    session("time", "", time).fast().flags(Flags::ALWAYS).tips(&["nondeterministic_output"])
        .doc("2.6.0", "O(1)", "Returns the Unix time in seconds and microseconds."),
    session("waitaof", "numlocal numreplicas timeout", waitaof)
        .flags(Flags::NOSCRIPT.or(Flags::BLOCKING).or(Flags::CONNECTION))
        .tips(&["request_policy:all_shards", "response_policy:agg_min"])
        .doc("7.2.0", "O(1)", "Waits until the disk has what the connection wrote."),
] };

#[rustfmt::skip]
const CONFIG_COMMANDS: &[Command] = &[
    session("config|get", "parameter [parameter ...]", config_get).flags(ADMIN)
        .doc("2.0.0", "O(N) with N the number of settings",
             "Returns the settings whose names match a pattern."),
    session("config|set", "parameter value [parameter value ...]", config_set).flags(ADMIN)
        .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"])
        .doc("2.0.0", "O(N) with N the number of settings", "Changes settings: all of them or none."),
];

fn time(_: &mut Context, _: Args, reply: &mut Reply) -> Outcome {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    reply.array(2);
    reply.bulk(now.as_secs().to_string().as_bytes());
    reply.bulk(now.subsec_micros().to_string().as_bytes());
    Ok(())
}

fn config_get(context: &mut Context, args: Args, reply: &mut Reply) -> Outcome {
    let patterns: Vec<&[u8]> = args.from(2).collect();
    let settings = context.server.config.matching(&patterns);
    reply.map(settings.len());
    for (name, value) in settings {
        reply.bulk(name.as_bytes());
        reply.bulk(value.as_bytes());
    }
    Ok(())
}

fn config_set(context: &mut Context, args: Args, reply: &mut Reply) -> Outcome {
    if !args.len().is_multiple_of(2) {
        return Err(CommandError::SYNTAX);
    }
    let names = args.from(2).step_by(2);
    let pairs: Vec<(&[u8], &[u8])> = names.zip(args.from(3).step_by(2)).collect();
    let server = context.server;
    server.config.set(&pairs).map_err(|why| format!("ERR {why}"))?;
    match (server.aof.is_enabled(), server.config.appendonly.load(Relaxed)) {
        // A log is written first, in the background; if that fails, it is tried again each second.
        (false, true) => _ = server.start_rewrite(),
        (true, false) => {
            server.aof.close().unwrap_or_else(|error| {
                server.config.say(Level::Warning, format_args!("Closing the log: {error}"));
            });
        }
        _ => {}
    }
    reply.ok();
    Ok(())
}

fn bgrewriteaof(context: &mut Context, _: Args, reply: &mut Reply) -> Outcome {
    if !context.server.start_rewrite() {
        let text = "ERR Background append only file rewriting already in progress";
        return Err(CommandError::new(text));
    }
    reply.simple("Background append only file rewriting started");
    Ok(())
}

/// Sees to it that the disk has what this connection wrote. We do not wait for the syncing thread but
/// sync ourselves, which serves all who wait. There are no replicas, so who asks for some would wait
/// in vain: the answer, that none has it, comes at once.
fn waitaof(context: &mut Context, args: Args, reply: &mut Reply) -> Outcome {
    let (local, replicas) = (integer(&args[1])?, integer(&args[2])?);
    if !(0..=1).contains(&local) {
        return Err(CommandError::new("ERR value is out of range, must be between 0 and 1"));
    }
    if replicas < 0 {
        return Err(CommandError::new("ERR value is out of range, must be positive"));
    }
    let timeout_ms = integer(&args[3]).map_err(|_| TIMEOUT_NOT_AN_INTEGER)?;
    if timeout_ms < 0 {
        return Err(CommandError::new("ERR timeout is negative"));
    }
    let server = context.server;
    if local == 1 && !server.aof.is_enabled() {
        return Err(CommandError::new(
            "ERR WAITAOF cannot be used when numlocal is set but appendonly is disabled.",
        ));
    }
    let written = context.session.written;
    // A transaction holds locks, and nobody shall wait for a disk with it.
    let synced = match context.transaction {
        Some(_) => server.aof.is_synced(written),
        None => server.aof.flush_to(written).and_then(|()| server.aof.sync_to(written)).is_ok(),
    };
    // While the log is only being turned on, what is synced is not yet where a restart looks.
    let in_log = server.aof.is_enabled() && server.aof.is_at(&server.config.log_path());
    reply.array(2);
    reply.integer(i64::from(synced && in_log));
    reply.integer(0);
    Ok(())
}

const TIMEOUT_NOT_AN_INTEGER: CommandError =
    CommandError::new("ERR timeout is not an integer or out of range");

fn shutdown(context: &mut Context, args: Args, _: &mut Reply) -> Outcome {
    let (mut save, mut nosave, mut abort, mut force, mut others) =
        (false, false, false, false, false);
    for option in args.from(1) {
        match option.to_ascii_uppercase().as_slice() {
            b"SAVE" => save = true,
            b"NOSAVE" => nosave = true,
            b"ABORT" => abort = true,
            b"FORCE" => force = true,
            b"NOW" => others = true,
            _ => return Err(CommandError::SYNTAX),
        }
    }
    if (save && nosave) || (abort && (save || nosave || force || others)) {
        return Err(CommandError::SYNTAX);
    }
    if abort {
        return Err(CommandError::new("ERR No shutdown in progress."));
    }
    match context.server.aof.sync() {
        Err(error) if !force => {
            let text = format_args!("Not ending: the log cannot be synced: {error}");
            context.server.config.say(Level::Warning, text);
            Err(CommandError::new("ERR Errors trying to SHUTDOWN. Check logs."))
        }
        _ => {
            context.server.config.say(Level::Notice, format_args!("Ending at a client's wish"));
            std::process::exit(0)
        }
    }
}

/// A section of INFO: its title, and what writes its lines.
type Section = (&'static str, fn(&mut Context, &mut String) -> std::fmt::Result);

const SECTIONS: &[Section] = &[
    ("Server", server_section),
    ("Clients", clients_section),
    ("Memory", memory_section),
    ("Persistence", persistence_section),
    ("Stats", stats_section),
    ("Replication", replication_section),
    ("CPU", cpu_section),
    ("Cluster", cluster_section),
    ("Keyspace", keyspace_section),
];

fn info(context: &mut Context, args: Args, reply: &mut Reply) -> Outcome {
    let everything = |arg: &[u8]| ["all", "default", "everything"].iter().any(|name| is(arg, name));
    let wanted =
        |title: &str| args.len() == 1 || args.from(1).any(|arg| everything(arg) || is(arg, title));
    let mut text = String::new();
    for (title, write) in SECTIONS.iter().filter(|(title, _)| wanted(title)) {
        let gap = if text.is_empty() { "" } else { "\r\n" };
        // Writing to a String does not fail.
        let written = write!(text, "{gap}# {title}\r\n").and_then(|()| write(context, &mut text));
        written.unwrap_or_default();
    }
    reply.verbatim(text.as_bytes());
    Ok(())
}

fn server_section(context: &mut Context, text: &mut String) -> std::fmt::Result {
    let server = context.server;
    let uptime = server.started.elapsed().as_secs();
    write!(text, "redis_version:{REDIS_VERSION}\r\n")?;
    write!(text, "server_name:respite\r\n")?;
    write!(text, "respite_version:{}\r\n", env!("CARGO_PKG_VERSION"))?;
    write!(text, "redis_mode:standalone\r\n")?;
    write!(text, "os:{} {}\r\n", std::env::consts::OS, std::env::consts::ARCH)?;
    write!(text, "arch_bits:{}\r\n", usize::BITS)?;
    write!(text, "process_id:{}\r\n", std::process::id())?;
    write!(text, "run_id:{}\r\n", server.run_id)?;
    write!(text, "tcp_port:{}\r\n", server.port.load(Relaxed))?;
    write!(text, "server_time_usec:{}\r\n", now_ms() * 1000)?;
    write!(text, "uptime_in_seconds:{uptime}\r\n")?;
    write!(text, "uptime_in_days:{}\r\n", uptime / 86_400)
}

fn clients_section(context: &mut Context, text: &mut String) -> std::fmt::Result {
    let server = context.server;
    write!(text, "connected_clients:{}\r\n", server.clients.count())?;
    write!(text, "maxclients:{}\r\n", server.config.maxclients.load(Relaxed))
}

fn memory_section(_: &mut Context, text: &mut String) -> std::fmt::Result {
    if let Some((now, peak)) = resident_bytes() {
        write!(text, "used_memory_rss:{now}\r\nused_memory_peak_rss:{peak}\r\n")?;
    }
    Ok(())
}

/// What the process has in memory now, and the most it ever had, where Linux tells.
fn resident_bytes() -> Option<(u64, u64)> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kb| kb * 1024)
    };
    Some((field("VmRSS:")?, field("VmHWM:")?))
}

fn persistence_section(context: &mut Context, text: &mut String) -> std::fmt::Result {
    let server = context.server;
    let status = if server.aof.failure().is_none() { "ok" } else { "err" };
    let (bytes, base_bytes) = server.aof.size();
    write!(text, "loading:{}\r\n", u8::from(server.is_loading()))?;
    write!(text, "aof_enabled:{}\r\n", u8::from(server.aof.is_enabled()))?;
    let progress = server.aof.rewrite_progress();
    write!(text, "aof_rewrite_in_progress:{}\r\n", u8::from(progress.is_some()))?;
    if let Some((elapsed, percent)) = progress {
        write!(text, "aof_current_rewrite_time_sec:{}\r\n", elapsed.as_secs())?;
        write!(text, "aof_rewrite_percent:{percent}\r\n")?;
    }
    let (last, completed) = server.aof.rewrites();
    let ok = last.as_ref().is_none_or(|last| last.ok);
    write!(text, "aof_last_bgrewrite_status:{}\r\n", if ok { "ok" } else { "err" })?;
    if let Some(last) = last {
        write!(text, "aof_last_rewrite_time_sec:{}\r\n", last.took.as_secs())?;
    }
    write!(text, "aof_rewrites:{completed}\r\n")?;
    if server.aof.is_enabled() {
        write!(text, "aof_last_write_status:{status}\r\n")?;
        write!(text, "aof_delayed_fsync:{}\r\n", server.aof.delayed_syncs.get())?;
        write!(text, "aof_current_size:{bytes}\r\naof_base_size:{base_bytes}\r\n")?;
    }
    Ok(())
}

fn stats_section(context: &mut Context, text: &mut String) -> std::fmt::Result {
    let server = context.server;
    let stats = &server.stats;
    write!(text, "total_connections_received:{}\r\n", stats.connections.get())?;
    write!(text, "total_commands_processed:{}\r\n", stats.commands.get())?;
    write!(text, "total_net_input_bytes:{}\r\n", stats.input_bytes.get())?;
    write!(text, "total_net_output_bytes:{}\r\n", stats.output_bytes.get())?;
    write!(text, "rejected_connections:{}\r\n", stats.rejected_connections.get())?;
    write!(text, "expired_keys:{}\r\n", stats.expired_keys.get())?;
    write!(text, "expired_subkeys:{}\r\n", stats.expired_fields.get())
}

fn replication_section(_: &mut Context, text: &mut String) -> std::fmt::Result {
    write!(text, "role:master\r\nconnected_slaves:0\r\n")
}

/// User and system time of the process, where Linux tells. It counts in hundredths of a second.
fn cpu_section(_: &mut Context, text: &mut String) -> std::fmt::Result {
    let Ok(stat) = std::fs::read_to_string("/proc/self/stat") else {
        return Ok(());
    };
    let Some((_, fields)) = stat.rsplit_once(')') else {
        return Ok(());
    };
    let ticks: Vec<f64> = fields.split_whitespace().skip(11).take(2).flat_map(str::parse).collect();
    if let [user, system] = ticks[..] {
        write!(text, "used_cpu_sys:{:.6}\r\n", system / 100.0)?;
        write!(text, "used_cpu_user:{:.6}\r\n", user / 100.0)?;
    }
    Ok(())
}

fn cluster_section(_: &mut Context, text: &mut String) -> std::fmt::Result {
    write!(text, "cluster_enabled:0\r\n")
}

fn keyspace_section(context: &mut Context, text: &mut String) -> std::fmt::Result {
    let mut totals = vec![(0, 0, 0); context.server.config.database_count()];
    context.visit(|shard| {
        for (db, (keys, volatile, timed)) in totals.iter_mut().enumerate().take(shard.databases()) {
            if let Some(table) = shard.table(db) {
                *keys += table.len();
                *volatile += table.volatile();
            }
            *timed += shard.timed_hashes(db);
        }
    });
    let filled = totals.iter().enumerate().filter(|(_, (keys, ..))| *keys > 0);
    for (db, (keys, volatile, timed)) in filled {
        write!(text, "db{db}:keys={keys},expires={volatile},subexpiry={timed}\r\n")?;
    }
    Ok(())
}
