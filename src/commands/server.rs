//! The server: settings, rewrites of the log, replication (there are no replicas), the time and shutdown.
//!
//! The commands are described at <https://redis.io/docs/latest/commands/?group=server>.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::aclfile;
use super::docs::help;
use super::options::{integer, is};
use super::replicaof;
use super::spec::{Command, Context, Family, Flags, Handler, Outcome, command, session};
use crate::config::logger::{self, log_line};
use crate::config::{Consequence, Setting};
use crate::net::descriptors;
use crate::rdb::progress::Current;
use crate::resp::{Args, CommandError, Reply};
use crate::session::Server;

const ADMIN: Flags = Flags::ADMIN.or(Flags::NOSCRIPT).or(Flags::ALWAYS);

/// The server commands.
#[rustfmt::skip]
pub static FAMILY: Family = Family { group: "server", commands: &[
    session("bgrewriteaof", "", bgrewriteaof)
        .flags(Flags::ADMIN.or(Flags::NOSCRIPT).or(Flags::NO_ASYNC_LOADING))
        .doc("1.0.0", "O(1)", "Rewrites the append-only file in the background."),
    command("config", "subcommand [argument ...]", Handler::Container(CONFIG_COMMANDS, None))
        .doc("2.0.0", "depends on the subcommand", "A container for commands about settings."),
    session("role", "", role).fast().flags(Flags::NOSCRIPT.or(Flags::ALWAYS))
        .flags(Flags::ADMIN_CATEGORY.or(Flags::DANGEROUS))
        .doc("2.8.12", "O(1)", "Returns the role of the server in replication: always master."),
    session("shutdown", "[NOSAVE | SAVE] [NOW] [FORCE] [ABORT]", shutdown)
        .flags(ADMIN.or(Flags::NO_MULTI).or(Flags::ALLOW_BUSY))
        .arguments(&["nosave-save=save-selector", "now@7.0.0", "force@7.0.0", "abort@7.0.0"])
        .history(&[("7.0.0", "Added the options `NOW`, `FORCE` and `ABORT`.")])
        .doc("1.0.0", "O(1)", "Saves the RDB file if asked to, syncs the log, and stops the server."),
    session("time", "", time).fast().flags(Flags::ALWAYS).tips(&["nondeterministic_output"])
        .doc("2.6.0", "O(1)", "Returns the Unix time in seconds and microseconds."),
] };

/// WAIT and WAITAOF, which Redis lists under the generic commands.
#[rustfmt::skip]
pub static GENERIC: Family = Family { group: "generic", commands: &[
    session("wait", "numreplicas timeout", wait).flags(Flags::BLOCKING.or(Flags::CONNECTION))
        .tips(&["request_policy:all_shards", "response_policy:agg_min"])
        .doc("3.0.0", "O(1)", "Returns how many replicas have the writes of the connection: always 0."),
    session("waitaof", "numlocal numreplicas timeout", waitaof)
        .flags(Flags::BLOCKING.or(Flags::CONNECTION))
        .tips(&["request_policy:all_shards", "response_policy:agg_min"])
        .doc("7.2.0", "O(1)", "Waits until the writes of the connection are synced to disk."),
] };

#[rustfmt::skip]
const CONFIG_COMMANDS: &[Command] = &[
    session("config|get", "parameter [parameter ...]", config_get).flags(ADMIN)
        .history(&[("7.0.0", "Accepts several patterns.")])
        .doc("2.0.0", "O(N) where N is the number of settings",
             "Returns the settings whose names match any of the patterns."),
    help("config|help", "5.0.0"),
    session("config|resetstat", "", config_resetstat).flags(ADMIN)
        .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"])
        .doc("2.0.0", "O(N) where N is the number of commands", "Resets the statistics that INFO shows."),
    session("config|rewrite", "", config_rewrite).flags(ADMIN)
        .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"])
        .doc("2.8.0", "O(N) where N is the size of the file",
             "Writes the current settings to the configuration file."),
    session("config|set", "parameter value [parameter value ...]", config_set).flags(ADMIN)
        .secrets(|args, at| at > 2 && !at.is_multiple_of(2) && Setting::is_secret(&args[at - 1]))
        .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"])
        .history(&[("7.0.0", "Accepts several settings.")])
        .doc("2.0.0", "O(N) where N is the number of settings",
             "Changes settings: all that are given, or none if one is refused."),
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
    let is_local = context.session.client.is_local();
    let may_wait = context.transaction.is_none();
    let follow = |consequence| match consequence {
        Consequence::Listeners => server.relisten.get().map_or(Ok(()), |relisten| relisten()),
        Consequence::Log => follow_log_settings(server, may_wait),
        Consequence::Clients => check_client_limit(server),
    };
    let old_password = server.config.requirepass.get();
    server.config.set_as(is_local, &pairs, follow).map_err(|why| format!("ERR {why}"))?;
    let password = server.config.requirepass.get();
    if password != old_password {
        server.users.set_default_password(&password);
    }
    let stats = &server.stats;
    for (log, kept) in [
        (&stats.slowlog, &server.config.slowlog_max_len),
        (&stats.large_requests, &server.config.commandlog_large_request_max_len),
        (&stats.large_replies, &server.config.commandlog_large_reply_max_len),
    ] {
        log.shorten(kept.load(Relaxed) as usize);
    }
    server.tracking.shrink(&server.pubsub);
    reply.ok();
    Ok(())
}

/// Opens, closes or moves the log as the settings say. A log that is opened or moved is first written whole.
/// The client waits for that, because what it writes after the OK must survive a crash, and a start looks for
/// the log at the new place only. A transaction holds locks that the rewrite needs, so it may not wait.
fn follow_log_settings(server: &Server, may_wait: bool) -> Result<(), String> {
    let is_enabled = server.aof.is_enabled();
    if !server.config.appendonly.load(Relaxed) {
        if is_enabled {
            server.close_log();
        }
        return Ok(());
    }
    if is_enabled && server.aof.is_at(&server.config.log_path()) {
        return Ok(());
    }
    if !may_wait {
        return Err("the log cannot be opened or moved inside a transaction".into());
    }
    if server.is_loading() {
        return Err("the log cannot be opened or moved while it is being loaded".into());
    }
    server.aof.rewrites.claim_next();
    server.rewrite().map_err(|error| format!("the log could not be written: {error}"))
}

/// Refuses more clients than there are descriptors for.
fn check_client_limit(server: &Server) -> Result<(), String> {
    let connected = server.clients.count();
    let wanted = server.config.client_limit().saturating_sub(connected);
    let possible = descriptors::for_clients(wanted);
    if possible >= wanted {
        return Ok(());
    }
    Err(format!(
        "The operating system is not able to handle the specified number of clients, try with {}",
        connected + possible
    ))
}

fn config_resetstat(context: &mut Context, _: Args, reply: &mut Reply) -> Outcome {
    let server = context.server;
    server.stats.reset();
    server.pubsub.cut_off.reset();
    server.aof.rewrites.completed.reset();
    server.aof.delayed_syncs.reset();
    server.aof.files_lost().reset();
    reply.ok();
    Ok(())
}

fn config_rewrite(context: &mut Context, _: Args, reply: &mut Reply) -> Outcome {
    let users = aclfile::config_lines(context.server);
    context.server.config.rewrite(&users).map_err(|why| format!("ERR {why}"))?;
    reply.ok();
    Ok(())
}

/// The server is a master without replicas.
fn role(context: &mut Context, _: Args, reply: &mut Reply) -> Outcome {
    if let Some(master) = context.server.upstream.master() {
        replicaof::role(context.server, &master, reply);
        return Ok(());
    }
    reply.array(3);
    reply.bulk(b"master");
    reply.integer(context.server.replication.offset(&context.server.aof) as i64);
    reply.array(0);
    Ok(())
}

fn bgrewriteaof(context: &mut Context, _: Args, reply: &mut Reply) -> Outcome {
    if !context.server.start_rewrite() {
        let text = "ERR Background append only file rewriting already in progress";
        return Err(CommandError::new(text));
    }
    let waits = context.server.saves.current().is_some();
    let state = if waits { "scheduled" } else { "started" };
    reply.simple(&format!("Background append only file rewriting {state}"));
    Ok(())
}

/// Syncs the log up to this connection's last write, without waiting for the syncing thread. The sync serves
/// every other waiting client too. No replica can appear while a client waits, so a call that asks for
/// replicas returns 0 at once.
fn waitaof(context: &mut Context, args: Args, reply: &mut Reply) -> Outcome {
    let local = integer(&args[1])?;
    if !(0..=1).contains(&local) {
        return Err(CommandError::new("ERR value is out of range, value must between 0 and 1"));
    }
    if !integer(&args[2]).is_ok_and(|replicas| replicas >= 0) {
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
    // A transaction holds locks, so it must not wait for the disk.
    let synced = match context.transaction {
        Some(_) => server.aof.is_synced(written),
        None => server.aof.flush_to(written).and_then(|()| server.aof.sync_to(written)).is_ok(),
    };
    // While the log is being turned on, a restart would not find the synced file yet.
    let in_log = server.aof.is_enabled() && server.aof.is_at(&server.config.log_path());
    reply.array(2);
    reply.integer(i64::from(synced && in_log));
    reply.integer(0);
    Ok(())
}

/// Returns 0 at once instead of after the timeout: no replica can appear in the meantime.
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

const NOT_SHUT_DOWN: CommandError = CommandError::new("ERR Errors trying to SHUTDOWN. Check logs.");

/// Saves the RDB file, whatever other save is running. Returns whether that succeeded.
fn save_now(server: &Server) -> bool {
    while !server.saves.claim(Current::Waited) {
        server.saves.cancel();
        std::thread::sleep(Duration::from_millis(1));
    }
    server.save().is_ok()
}

fn shutdown(context: &mut Context, args: Args, _: &mut Reply) -> Outcome {
    const OPTIONS: [&str; 6] = ["SAVE", "NOSAVE", "NOW", "FORCE", "SAFE", "ABORT"];
    if args.from(1).any(|arg| !OPTIONS.iter().any(|option| is(arg, option))) {
        return Err(CommandError::SYNTAX);
    }
    // SAFE is Valkey's, and refuses where slots of a cluster would be lost: never here.
    let [save, nosave, now, force, safe, abort] =
        OPTIONS.map(|option| args.from(1).any(|arg| is(arg, option)));
    if (save && nosave) || (abort && (save || nosave || force || now || safe)) {
        return Err(CommandError::SYNTAX);
    }
    if abort {
        return Err(CommandError::new("ERR No shutdown in progress."));
    }
    let server = context.server;
    if (save || (!nosave && !server.config.save.is_empty())) && !save_now(server) && !force {
        return Err(NOT_SHUT_DOWN);
    }
    match server.aof.verify_file().and_then(|()| server.aof.sync()) {
        Err(error) if !force => {
            log_line!(
                server.config,
                Warning,
                "Not shutting down: the AOF could not be synced: {error}"
            );
            Err(NOT_SHUT_DOWN)
        }
        _ => {
            log_line!(server.config, Notice, "Shutting down at a client's request");
            server.config.remove_pid_file();
            logger::flush();
            std::process::exit(0)
        }
    }
}
