//! The server: its settings, its part in a replication that is not there, the time, its end.
//!
//! The commands are described at <https://redis.io/docs/latest/commands/?group=server>.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::docs::help;
use super::options::{integer, is};
use super::spec::{Command, Context, Family, Flags, Handler, Outcome, command, session};
use crate::config::logger::{self, log_line};
use crate::resp::{Args, CommandError, Reply};

const ADMIN: Flags = Flags::ADMIN.or(Flags::NOSCRIPT).or(Flags::ALWAYS);

/// The server.
#[rustfmt::skip]
pub static FAMILY: Family = Family { group: "server", commands: &[
    session("bgrewriteaof", "", bgrewriteaof)
        .flags(Flags::ADMIN.or(Flags::NOSCRIPT).or(Flags::NO_ASYNC_LOADING))
        .doc("1.0.0", "O(1)", "Starts a rewrite of the log."),
    command("config", "subcommand [argument ...]", Handler::Container(CONFIG_COMMANDS, None))
        .doc("2.0.0", "depends on the subcommand", "Shows and changes settings."),
    session("role", "", role).fast().flags(Flags::NOSCRIPT.or(Flags::ALWAYS))
        .flags(Flags::ADMIN_CATEGORY.or(Flags::DANGEROUS))
        .doc("2.8.12", "O(1)", "Tells the server's part in replication, which is a master's."),
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

/// What Redis puts among the generic commands.
#[rustfmt::skip]
pub static GENERIC: Family = Family { group: "generic", commands: &[
    session("wait", "numreplicas timeout", wait).flags(Flags::NOSCRIPT.or(Flags::CONNECTION))
        .tips(&["request_policy:all_shards", "response_policy:agg_min"])
        .doc("3.0.0", "O(1)", "Returns how many replicas have what the connection wrote: none."),
] };

#[rustfmt::skip]
const CONFIG_COMMANDS: &[Command] = &[
    session("config|get", "parameter [parameter ...]", config_get).flags(ADMIN)
        .doc("2.0.0", "O(N) with N the number of settings",
             "Returns the settings whose names match a pattern."),
    help("config|help", "5.0.0"),
    session("config|resetstat", "", config_resetstat).flags(ADMIN)
        .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"])
        .doc("2.0.0", "O(N) with N the number of commands", "Begins to count again what INFO shows."),
    session("config|rewrite", "", config_rewrite).flags(ADMIN)
        .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"])
        .doc("2.8.0", "O(N) with N the size of the file", "Writes the settings to the configuration file."),
    session("config|set", "parameter value [parameter value ...]", config_set).flags(ADMIN)
        .secrets(|args, at| at > 2 && !at.is_multiple_of(2) && is(&args[at - 1], "requirepass"))
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
    server.stats.slowlog.shorten(server.config.slowlog_limit());
    server.tracking.shrink(&server.hub);
    match (server.aof.is_enabled(), server.config.appendonly.load(Relaxed)) {
        // A log is written first, in the background; if that fails, it is tried again each second.
        (false, true) => _ = server.start_rewrite(),
        (true, false) => {
            server.aof.close().unwrap_or_else(|error| {
                log_line!(server.config, Warning, "The AOF could not be closed: {error}");
            });
        }
        _ => {}
    }
    reply.ok();
    Ok(())
}

fn config_resetstat(context: &mut Context, _: Args, reply: &mut Reply) -> Outcome {
    let Context { server, session, .. } = context;
    session.publish(server, Instant::now());
    server.collected_stats().reset();
    server.hub.cut_off.reset();
    server.aof.rewrites.completed.reset();
    server.aof.delayed_syncs.reset();
    reply.ok();
    Ok(())
}

fn config_rewrite(context: &mut Context, _: Args, reply: &mut Reply) -> Outcome {
    context.server.config.rewrite().map_err(|why| format!("ERR {why}"))?;
    reply.ok();
    Ok(())
}

/// A master, at the beginning of its replication, without replicas.
fn role(_: &mut Context, _: Args, reply: &mut Reply) -> Outcome {
    reply.array(3);
    reply.bulk(b"master");
    reply.integer(0);
    reply.array(0);
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
    let written = context.session.write_lsn;
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

/// As WAITAOF, who waits for replicas is told at once that there are none, and not after the timeout:
/// none can come meanwhile.
fn wait(_: &mut Context, args: Args, reply: &mut Reply) -> Outcome {
    integer(&args[1])?;
    let timeout_ms = integer(&args[2]).map_err(|_| TIMEOUT_NOT_AN_INTEGER)?;
    if timeout_ms < 0 {
        return Err(CommandError::new("ERR timeout is negative"));
    }
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
            let config = &context.server.config;
            log_line!(config, Warning, "Not shutting down: the AOF could not be synced: {error}");
            Err(CommandError::new("ERR Errors trying to SHUTDOWN. Check logs."))
        }
        _ => {
            log_line!(context.server.config, Notice, "Shutting down at a client's request");
            logger::flush();
            std::process::exit(0)
        }
    }
}
