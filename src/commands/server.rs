//! The server: settings, rewrites of the log, the time and shutdown.
//!
//! The commands are described at <https://redis.io/docs/latest/commands/?group=server>.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::aclfile;
use super::docs::help;
use super::options::is;
use super::spec::{Command, Context, Family, Flags, Handler, Outcome, command, session};
use crate::config::logger::{self, log_line};
use crate::config::{Consequence, Setting};
use crate::net::descriptors;
use crate::net::pause::Paused;
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
    session("shutdown", "[NOSAVE | SAVE] [NOW] [FORCE] [ABORT]", shutdown)
        .flags(ADMIN.or(Flags::NO_MULTI).or(Flags::ALLOW_BUSY))
        .arguments(&["nosave-save=save-selector", "now@7.0.0", "force@7.0.0", "abort@7.0.0"])
        .history(&[("7.0.0", "Added the options `NOW`, `FORCE` and `ABORT`.")])
        .doc("1.0.0", "O(1)", "Saves the RDB file if asked to, syncs the log, and stops the server."),
    session("time", "", time).fast().flags(Flags::ALWAYS).tips(&["nondeterministic_output"])
        .doc("2.6.0", "O(1)", "Returns the Unix time in seconds and microseconds."),
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
    server.note_write_limits();
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
    server.replication.reset_counters();
    reply.ok();
    Ok(())
}

fn config_rewrite(context: &mut Context, _: Args, reply: &mut Reply) -> Outcome {
    let users = aclfile::config_lines(context.server);
    context.server.config.rewrite(&users).map_err(|why| format!("ERR {why}"))?;
    reply.ok();
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

const NOT_SHUT_DOWN: CommandError = CommandError::new("ERR Errors trying to SHUTDOWN. Check logs.");

/// Saves the RDB file, whatever other save is running. Returns whether that succeeded.
fn save_now(server: &Server) -> bool {
    while !server.saves.claim(Current::Waited) {
        server.saves.cancel();
        std::thread::sleep(Duration::from_millis(1));
    }
    server.save().is_ok()
}

/// Waits until replicas have all of the stream, for `shutdown-timeout` seconds at most; writes are paused
/// meanwhile. Returns false if another client has stopped the shutdown.
fn wait_for_replicas(server: &Server) -> bool {
    let timeout = server.config.shutdown_timeout.load(Relaxed).unsigned_abs();
    let replication = &server.replication;
    if !replication.replicas.any() || timeout == 0 {
        return true;
    }
    let until = Instant::now() + Duration::from_secs(timeout);
    // The pause ends by itself only after the process has.
    server.pause.start(Paused::Writes, until + Duration::from_secs(timeout));
    let went_on = replication.wait_for_shutdown(&server.aof, until);
    if went_on {
        let lagging = replication.lagging(&server.aof);
        if lagging > 0 {
            let text = "replicas lag behind as the server shuts down";
            log_line!(server.config, Warning, "{lagging} {text}");
        }
    } else {
        server.pause.end();
        log_line!(server.config, Warning, "A client has stopped the shutdown");
    }
    went_on
}

fn shutdown(context: &mut Context, args: Args, reply: &mut Reply) -> Outcome {
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
    let server = context.server;
    if abort {
        if !server.replication.abort_shutdown() {
            return Err(CommandError::new("ERR No shutdown in progress."));
        }
        reply.ok();
        return Ok(());
    }
    if !now && !wait_for_replicas(server) {
        return Err(NOT_SHUT_DOWN);
    }
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
