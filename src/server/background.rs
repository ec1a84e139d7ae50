//! What goes on without anybody asking: syncing, sweeping, rewriting, freeing. A thread each.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::Duration;

use crate::config::FsyncPolicy;
use crate::config::logger::log_line;
use crate::dispatch;
use crate::session::Server;
use crate::store::{Garbage, now_ms};

/// How often the sweeper looks for what has expired.
const SWEEP_PERIOD: Duration = Duration::from_millis(100);
/// How long the log, having failed to be rewritten, may go on growing.
const REWRITE_PAUSE: Duration = Duration::from_secs(60);
/// How often the log is synced, and idle connections are looked for.
const SYNC_PERIOD: Duration = Duration::from_secs(1);

/// Syncs the log once a second, if the policy says so; and tries again to write it after a failure.
pub(super) fn sync(server: &Server) {
    let mut failed = false;
    loop {
        thread::sleep(SYNC_PERIOD);
        close_idle(server);
        close_slow(server);
        rewrite_if_due(server);
        let result = match server.config.fsync_policy() {
            FsyncPolicy::EverySecond => server.aof.sync(),
            FsyncPolicy::Always | FsyncPolicy::No => server.aof.flush(),
        };
        match &result {
            Ok(()) if failed => {
                log_line!(server.config, Notice, "The AOF can be written again");
            }
            Err(error) if !failed => {
                log_line!(server.config, Warning, "The AOF could not be synced: {error}");
            }
            _ => {}
        }
        failed = result.is_err();
    }
}

/// Rewrites the log whenever that is asked for.
pub(super) fn rewrite_when_asked(server: &Server, requested: &Receiver<()>) {
    let mut last_failure = String::new();
    for () in requested {
        let path = server.config.log_path();
        let (before, _) = server.aof.size();
        match server.aof.rewrite(&server.keyspace, &path) {
            Ok(()) => {
                last_failure.clear();
                let (after, _) = server.aof.size();
                log_line!(
                    server.config,
                    Notice,
                    "The AOF was rewritten: {before} bytes became {after}"
                );
                // With `appendonly no` a rewrite makes a log, but nothing more goes into it.
                if !server.config.appendonly.load(Relaxed) {
                    let closed = server.aof.close();
                    closed.unwrap_or_else(|error| {
                        log_line!(server.config, Warning, "The AOF could not be closed: {error}");
                    });
                }
            }
            Err(error) => {
                // It may be tried once a second; once is enough to say the same thing.
                let failure = error.to_string();
                if failure != last_failure {
                    log_line!(server.config, Warning, "The AOF could not be rewritten: {failure}");
                    last_failure = failure;
                }
            }
        }
    }
}

/// Starts a rewrite if the log has grown so much that the settings ask for it, or cannot be relied on
/// any more, or if it is wanted and there is none.
fn rewrite_if_due(server: &Server) {
    let wanted = server.config.appendonly.load(Relaxed);
    if server.aof.is_enabled() && !server.aof.needs_rewrite() {
        let path = server.config.log_path();
        let gone = || !server.aof.is_at(&path);
        // A rewrite gives the name to another file. If it did so between the two looks, the second
        // sees it.
        if gone() && server.aof.rewrites.progress().is_none() && gone() {
            server.aof.fail_file(&std::io::Error::other(format!("'{}' is gone", path.display())));
        }
    }
    let percentage = server.config.auto_aof_rewrite_percentage.load(Relaxed) as u64;
    let least = server.config.auto_aof_rewrite_min_size.load(Relaxed) as u64;
    let (size, base) = server.aof.size();
    let grown = percentage > 0
        && size > least
        && size.saturating_sub(base).saturating_mul(100) >= base.max(1).saturating_mul(percentage);
    // After a failure, growth alone is no reason to try at once again.
    let last = server.aof.rewrites.last();
    let failed = last.is_some_and(|last| !last.ok && last.ended.elapsed() < REWRITE_PAUSE);
    let due = match server.aof.is_enabled() {
        true => (grown && !failed) || server.aof.needs_rewrite(),
        false => wanted,
    };
    if due {
        server.start_rewrite();
    }
}

/// Closes the connections that have been idle for longer than `timeout`. Who listens, or waits for the
/// end of a pause, is not idle.
fn close_idle(server: &Server) {
    let timeout = server.config.timeout.load(Relaxed);
    if timeout > 0 {
        for client in server.clients.all() {
            if client.is_idle(timeout as u64) && server.hub.counts(client.id).total() == 0 {
                client.outbox.close();
            }
        }
    }
}

/// Closes the connections for which too much has piled up for too long.
fn close_slow(server: &Server) {
    if server.hub.has_listeners() || server.tracking.is_on() {
        for client in server.clients.all() {
            server.hub.check(client.id, &client.outbox);
        }
    }
}

/// Moves the clock of the keyspace on; removes what has expired, and logs it. The same thread takes the
/// samples for the rates of INFO, for which it looks at all connections.
pub(super) fn sweep(server: &Server) {
    loop {
        thread::sleep(SWEEP_PERIOD);
        server.keyspace.tick();
        server.stats.sample();
        if server.pause.is_likely() && server.pause.paused().is_some() {
            continue; // to remove a key is a write
        }
        let threshold_ms = server.config.latency_monitor_threshold.load(Relaxed);
        let sweep = || {
            server.keyspace.sweep(now_ms(), |expired| dispatch::commit_expired(server, expired));
        };
        server.stats.latency.timed("expire-cycle", threshold_ms, sweep);
    }
}

/// Frees what takes long to free.
pub(super) fn drop_garbage(dropped: &Receiver<Garbage>) {
    dropped.iter().for_each(drop);
}
