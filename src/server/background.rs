//! Background work, a thread for each kind: syncing, sweeping, rewriting, freeing.

use std::iter;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::{Duration, Instant};

use crate::config::FsyncPolicy;
use crate::config::logger::log_line;
use crate::dispatch::{self, evict};
use crate::session::{Server, Snapshot};
use crate::stats::unix_seconds;
use crate::store::{Garbage, now_ms};

/// How long the sweeper's thread evicts keys before it goes on with its other work.
const EVICTION_SLICE: Duration = Duration::from_millis(50);
/// How often samples are taken for the rates in INFO.
const SAMPLE_PERIOD: Duration = Duration::from_millis(100);
/// A sample visits all connections. With many thousands, samples are so rare that they take this part of the
/// time.
const SAMPLE_SHARE: u32 = 500;
/// After a failed rewrite, growth of the log starts another one only after this time.
const REWRITE_PAUSE: Duration = Duration::from_secs(60);
/// How often the log is synced and idle connections are closed.
const SYNC_PERIOD: Duration = Duration::from_secs(1);

/// Syncs the log once a second if the policy says so, and retries to write it after a failure.
pub(super) fn sync(server: &Server) {
    let mut failed = false;
    loop {
        thread::sleep(SYNC_PERIOD);
        close_idle(server);
        close_slow(server);
        rewrite_if_due(server);
        save_if_due(server);
        server.replication.tick(&server.aof, &server.config);
        let result = match server.fsync_policy() {
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

/// Takes a snapshot for each message that arrives: rewrites the log, or saves the RDB file.
pub(super) fn take_snapshots(server: &Server, requested: &Receiver<Snapshot>) {
    let mut last_failure = String::new();
    for snapshot in requested {
        let rewritten = match snapshot {
            Snapshot::Rewrite => server.rewrite(),
            Snapshot::Save => {
                server.saves.begin();
                server.save().unwrap_or_default(); // which has logged the error
                continue;
            }
        };
        match rewritten {
            Ok(()) => last_failure.clear(),
            Err(error) => {
                // A rewrite may be tried once a second; the same failure is logged once.
                let failure = error.to_string();
                if failure != last_failure {
                    log_line!(server.config, Warning, "The AOF could not be rewritten: {failure}");
                    last_failure = failure;
                }
            }
        }
    }
}

/// Starts a save if there were as many changes in as many seconds as the settings say.
fn save_if_due(server: &Server) {
    let points = server.config.save_points();
    if !points.is_empty() {
        let changes = server.stats.meters.changes();
        if server.saves.is_due(&points, changes, unix_seconds()) {
            server.start_save();
        }
    }
}

/// Starts a rewrite if the log has grown as much as the settings say, if it cannot be relied on, or if
/// there is no log but `appendonly` is `yes`.
fn rewrite_if_due(server: &Server) {
    let wanted = server.config.appendonly.load(Relaxed);
    server.aof.verify_file().unwrap_or_default(); // an error makes a rewrite due
    let percentage = server.config.auto_aof_rewrite_percentage.load(Relaxed) as u64;
    let least = server.config.auto_aof_rewrite_min_size.load(Relaxed) as u64;
    let (size, base) = server.aof.size();
    let grown = percentage > 0
        && size > least
        && size.saturating_sub(base).saturating_mul(100) >= base.max(1).saturating_mul(percentage);
    // After a failure, growth alone is no reason to try again at once.
    let last = server.aof.rewrites.last();
    let failed = last.is_some_and(|last| !last.ok && last.ended.elapsed() < REWRITE_PAUSE);
    let due = if server.aof.is_enabled() {
        (grown && !failed) || server.aof.needs_rewrite()
    } else {
        wanted
    };
    if due {
        server.start_rewrite();
    }
}

/// Closes connections that have been idle for longer than `timeout`.
fn close_idle(server: &Server) {
    let timeout = server.config.timeout.load(Relaxed);
    if timeout > 0 {
        for client in server.clients.all() {
            if client.is_idle(timeout as u64) {
                client.outbox.close();
            }
        }
    }
}

/// Closes connections whose output has been over the soft limit for too long.
fn close_slow(server: &Server) {
    if server.writers.load(Relaxed) > 0 {
        for client in server.clients.all() {
            server.pubsub.enforce_limit(client.id, &client.outbox);
        }
    }
}

/// Removes what has expired. The same thread advances the keyspace's coarse clock and takes the samples for
/// the rates in INFO.
pub(super) fn sweep(server: &Server) {
    let (mut sampled, mut cost) = (Instant::now(), Duration::ZERO);
    loop {
        thread::sleep(Duration::from_secs(1) / server.config.hz.load(Relaxed) as u32);
        server.keyspace.tick();
        keep_memory_limits(server);
        if sampled.elapsed() >= SAMPLE_PERIOD.max(SAMPLE_SHARE * cost) {
            sampled = Instant::now();
            let replication = &server.replication;
            server.stats.sample(replication.received.get(), replication.sent.get());
            cost = sampled.elapsed();
        }
        if is_paused(server) {
            continue; // removing a key is a write
        }
        if server.config.import_mode.load(Relaxed) {
            continue; // the source of the data decides what expires
        }
        let threshold_ms = server.config.latency_monitor_threshold.load(Relaxed);
        let sweep = || {
            server.keyspace.sweep(now_ms(), |expired| dispatch::commit_removals(server, expired));
        };
        server.stats.latency.timed("expire-cycle", threshold_ms, sweep);
    }
}

/// Whether `CLIENT PAUSE` holds writes back.
fn is_paused(server: &Server) -> bool {
    server.pause.is_likely() && server.pause.paused().is_some()
}

/// Evicts keys and clients if there are limits of memory. Commands evict too, but each only for a short time.
fn keep_memory_limits(server: &Server) {
    let has_limit = server.config.maxmemory.load(Relaxed) > 0;
    server.note_excess();
    if has_limit || server.config.maxmemory_clients() > 0 {
        evict::evict_clients(server);
        server.measure_memory();
        if server.is_full() && !server.evicts_nothing() && !is_paused(server) {
            // If there is nothing to evict, commands get the error.
            evict::evict_for(server, Some(EVICTION_SLICE)).unwrap_or_default();
        }
    }
}

/// Frees values that take long to free: what waits, each time in a thread of its own. A thread keeps a few of
/// the pieces that it frees until it ends, and the allocator gives back only what lies behind the last piece
/// in use: after `FLUSHALL` of 230 MB, this makes a difference of up to 50 MB.
pub(super) fn drop_garbage(server: &Server, dropped: &Receiver<Garbage>) {
    while let Ok(first) = dropped.recv() {
        let waiting: Vec<Garbage> = iter::once(first).chain(dropped.try_iter()).collect();
        let objects = waiting.iter().map(Garbage::objects).sum();
        // If there can be no thread, it is freed in this one.
        if let Ok(thread) = thread::Builder::new().spawn(|| drop(waiting)) {
            let _ = thread.join();
        }
        server.note_freed(objects);
    }
}
