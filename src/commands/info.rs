//! `INFO`: the server's state and statistics, in sections.
//!
//! Every field is true. Redis's fields about things that do not exist here (forks, evictions in progress,
//! scripts, modules, replicas) are left out, except where tools expect one and zero is the right value.
//!
//! `used_memory` is the process's resident memory, as `used_memory_rss` is, because the standard library does
//! not say how much the allocator has handed out. [`crate::stats::timer`] says how commands are timed.

use std::fmt::{self, Write};
use std::sync::atomic::Ordering::Relaxed;

use super::connection::REDIS_VERSION;
use super::lookup::rows;
use super::options::is;
use super::spec::{Command, Context, Family, Flags, Outcome, session};
use crate::resp::{Args, Reply};
use crate::session::Server;
use crate::stats::PerCommand;
use crate::store::{Table, now_ms};
use crate::watchers::pubsub::Kind;

/// `INFO`.
#[rustfmt::skip]
pub static FAMILY: Family = Family { group: "server", commands: &[
    session("info", "[section [section ...]]", info)
        .flags(Flags::ALWAYS.or(Flags::DANGEROUS).or(Flags::VISITS_KEYS))
        .tips(&["nondeterministic_output", "request_policy:all_shards", "response_policy:special"])
        .doc("1.0.0", "O(1)", "Returns the state and the statistics of the server."),
] };

/// A section: its title, whether it is shown by default, and the function that writes its lines.
type Section = (&'static str, bool, fn(&mut Context, &mut String) -> fmt::Result);

const SECTIONS: &[Section] = &[
    ("Server", true, server_section),
    ("Clients", true, clients_section),
    ("Memory", true, memory_section),
    ("Persistence", true, persistence_section),
    ("Stats", true, stats_section),
    ("Replication", true, replication_section),
    ("CPU", true, cpu_section),
    ("Commandstats", false, commandstats_section),
    ("Errorstats", true, errorstats_section),
    ("Latencystats", false, latencystats_section),
    ("Cluster", true, cluster_section),
    ("Keyspace", true, keyspace_section),
];

fn info(context: &mut Context, args: Args, reply: &mut Reply) -> Outcome {
    let asked = |name: &str| args.from(1).any(|arg| is(arg, name));
    let everything = asked("all") || asked("everything");
    let default = args.len() == 1 || asked("default");
    let wanted = |title: &str, is_default| everything || (default && is_default) || asked(title);
    let mut text = String::new();
    for (title, _, write) in SECTIONS.iter().filter(|(title, default, _)| wanted(title, *default)) {
        let gap = if text.is_empty() { "" } else { "\r\n" };
        // Writing to a String does not fail.
        let written = write!(text, "{gap}# {title}\r\n").and_then(|()| write(context, &mut text));
        written.unwrap_or_default();
    }
    reply.verbatim(text.as_bytes());
    Ok(())
}

fn server_section(context: &mut Context, text: &mut String) -> fmt::Result {
    let server = context.server;
    let uptime = server.started.elapsed().as_secs();
    write!(text, "redis_version:{REDIS_VERSION}\r\n")?;
    write!(text, "server_name:respite\r\n")?;
    write!(text, "respite_version:{}\r\n", env!("CARGO_PKG_VERSION"))?;
    write!(text, "redis_mode:standalone\r\n")?;
    write!(text, "os:{}\r\n", operating_system())?;
    write!(text, "arch_bits:{}\r\n", usize::BITS)?;
    write!(text, "process_id:{}\r\n", std::process::id())?;
    write!(text, "process_supervised:no\r\n")?;
    write!(text, "run_id:{}\r\n", server.run_id)?;
    write!(text, "tcp_port:{}\r\n", server.port.load(Relaxed))?;
    write!(text, "server_time_usec:{}\r\n", now_ms() * 1000)?;
    write!(text, "uptime_in_seconds:{uptime}\r\n")?;
    write!(text, "uptime_in_days:{}\r\n", uptime / 86_400)?;
    if let Ok(program) = std::env::current_exe() {
        write!(text, "executable:{}\r\n", program.display())?;
    }
    let config_file = server.config.file().map(|path| path.display().to_string());
    write!(text, "config_file:{}\r\n", config_file.unwrap_or_default())
}

/// The system, its release and the architecture, as `uname` shows them. Without `/proc` the release is
/// missing.
fn operating_system() -> String {
    let arch = std::env::consts::ARCH;
    let read = |name| std::fs::read_to_string(format!("/proc/sys/kernel/{name}"));
    match (read("ostype"), read("osrelease")) {
        (Ok(system), Ok(release)) => format!("{} {} {arch}", system.trim(), release.trim()),
        _ => format!("{} {arch}", std::env::consts::OS),
    }
}

fn clients_section(context: &mut Context, text: &mut String) -> fmt::Result {
    let server = context.server;
    write!(text, "connected_clients:{}\r\n", server.clients.count())?;
    write!(text, "maxclients:{}\r\n", server.config.maxclients.load(Relaxed))?;
    let all = server.clients.all();
    let blocked = all.iter().filter(|client| client.is_blocked()).count();
    let subscribed =
        all.iter().filter(|client| server.pubsub.counts(client.id).total() > 0).count();
    let [tracking, ..] = server.tracking.counts();
    write!(text, "blocked_clients:{blocked}\r\ntracking_clients:{tracking}\r\n")?;
    write!(text, "pubsub_clients:{subscribed}\r\n")
}

fn memory_section(_: &mut Context, text: &mut String) -> fmt::Result {
    let mut show = |name: &str, bytes| {
        write!(text, "{name}:{bytes}\r\n{name}_human:{}\r\n", human_bytes(bytes))
    };
    if let Some((now, peak)) = resident_bytes() {
        show("used_memory", now)?;
        show("used_memory_rss", now)?;
        show("used_memory_peak", peak)?;
    }
    if let Some(bytes) = kilobytes("/proc/meminfo", "MemTotal:") {
        show("total_system_memory", bytes)?;
    }
    show("maxmemory", 0)?;
    write!(text, "maxmemory_policy:noeviction\r\n")
}

/// The process's resident memory now and at its peak, in bytes. Known only on Linux.
pub(super) fn resident_bytes() -> Option<(u64, u64)> {
    let of = |name| kilobytes("/proc/self/status", name);
    Some((of("VmRSS:")?, of("VmHWM:")?))
}

/// The value of the line with this name in a file of `/proc`, converted from kilobytes to bytes.
fn kilobytes(path: &str, name: &str) -> Option<u64> {
    let lines = std::fs::read_to_string(path).ok()?;
    let line = lines.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}

/// A number of bytes in the largest unit that fits, as Redis writes it.
pub(super) fn human_bytes(bytes: u64) -> String {
    let units = [('T', 1u64 << 40), ('G', 1 << 30), ('M', 1 << 20), ('K', 1 << 10)];
    match units.iter().find(|(_, unit)| bytes >= *unit) {
        Some((letter, unit)) => format!("{:.2}{letter}", bytes as f64 / *unit as f64),
        None => format!("{bytes}B"),
    }
}

fn persistence_section(context: &mut Context, text: &mut String) -> fmt::Result {
    let server = context.server;
    let status = if server.aof.failure().is_none() { "ok" } else { "err" };
    let (bytes, base_bytes) = server.aof.size();
    write!(text, "loading:{}\r\n", u8::from(server.is_loading()))?;
    write!(text, "async_loading:0\r\n")?;
    write!(text, "rdb_bgsave_in_progress:0\r\n")?;
    write!(text, "aof_enabled:{}\r\n", u8::from(server.aof.is_enabled()))?;
    let progress = server.aof.rewrites.progress();
    write!(text, "aof_rewrite_in_progress:{}\r\n", u8::from(progress.is_some()))?;
    if let Some((elapsed, percent)) = progress {
        write!(text, "aof_current_rewrite_time_sec:{}\r\n", elapsed.as_secs())?;
        write!(text, "aof_rewrite_percent:{percent}\r\n")?;
    }
    let last = server.aof.rewrites.last();
    let ok = last.as_ref().is_none_or(|last| last.ok);
    write!(text, "aof_last_bgrewrite_status:{}\r\n", if ok { "ok" } else { "err" })?;
    if let Some(last) = last {
        write!(text, "aof_last_rewrite_time_sec:{}\r\n", last.took.as_secs())?;
    }
    write!(text, "aof_rewrites:{}\r\n", server.aof.rewrites.completed.get())?;
    if server.aof.is_enabled() {
        write!(text, "aof_last_write_status:{status}\r\n")?;
        write!(text, "aof_delayed_fsync:{}\r\n", server.aof.delayed_syncs.get())?;
        write!(text, "aof_current_size:{bytes}\r\naof_base_size:{base_bytes}\r\n")?;
    }
    Ok(())
}

fn stats_section(context: &mut Context, text: &mut String) -> fmt::Result {
    let stats = &context.server.stats;
    let totals = stats.meters.totals();
    write!(text, "total_connections_received:{}\r\n", stats.connections.get())?;
    write!(text, "total_commands_processed:{}\r\n", totals.calls())?;
    let rate = stats.rates.get();
    if let Some(rate) = rate {
        write!(text, "instantaneous_ops_per_sec:{:.0}\r\n", rate.calls)?;
    }
    write!(text, "total_net_input_bytes:{}\r\n", totals.received)?;
    write!(text, "total_net_output_bytes:{}\r\n", totals.sent)?;
    if let Some(rate) = rate {
        write!(text, "instantaneous_input_kbps:{:.2}\r\n", rate.input_bytes / 1024.0)?;
        write!(text, "instantaneous_output_kbps:{:.2}\r\n", rate.output_bytes / 1024.0)?;
    }
    write!(text, "rejected_connections:{}\r\n", stats.rejected_connections.get())?;
    write!(text, "expired_keys:{}\r\n", stats.expired_keys.get())?;
    write!(text, "expired_subkeys:{}\r\n", stats.expired_fields.get())?;
    write!(text, "evicted_keys:0\r\n")?;
    write!(text, "keyspace_hits:{}\r\n", totals.hits)?;
    write!(text, "keyspace_misses:{}\r\n", totals.misses)?;
    for (name, kind) in [
        ("pubsub_channels", Kind::Channel),
        ("pubsub_patterns", Kind::Pattern),
        ("pubsubshard_channels", Kind::Shard),
    ] {
        write!(text, "{name}:{}\r\n", context.server.pubsub.count(kind))?;
    }
    write!(text, "total_forks:0\r\n")?;
    let [_, keys, entries, prefixes] = context.server.tracking.counts();
    write!(text, "tracking_total_keys:{keys}\r\ntracking_total_items:{entries}\r\n")?;
    write!(text, "tracking_total_prefixes:{prefixes}\r\n")?;
    write!(text, "total_error_replies:{}\r\n", stats.errors.total())?;
    let cut_off = [stats.query_limit_cut_offs.get(), context.server.pubsub.cut_off.get()];
    write!(text, "client_query_buffer_limit_disconnections:{}\r\n", cut_off[0])?;
    write!(text, "client_output_buffer_limit_disconnections:{}\r\n", cut_off[1])?;
    write!(text, "acl_access_denied_auth:{}\r\n", stats.refused_logins.get())
}

fn replication_section(_: &mut Context, text: &mut String) -> fmt::Result {
    write!(text, "role:master\r\nconnected_slaves:0\r\nmaster_failover_state:no-failover\r\n")?;
    write!(text, "master_repl_offset:0\r\nrepl_backlog_active:0\r\n")
}

/// The process's user and system time. Known only on Linux, which counts it in hundredths of a second.
fn cpu_section(_: &mut Context, text: &mut String) -> fmt::Result {
    let Ok(stat) = std::fs::read_to_string("/proc/self/stat") else {
        return Ok(());
    };
    let Some((_, fields)) = stat.rsplit_once(')') else {
        return Ok(());
    };
    let ticks: Vec<f64> = fields.split_whitespace().skip(11).take(4).flat_map(str::parse).collect();
    if let [user, system, children_user, children_system] = ticks[..] {
        write!(text, "used_cpu_sys:{:.6}\r\n", system / 100.0)?;
        write!(text, "used_cpu_user:{:.6}\r\n", user / 100.0)?;
        write!(text, "used_cpu_sys_children:{:.6}\r\n", children_system / 100.0)?;
        write!(text, "used_cpu_user_children:{:.6}\r\n", children_user / 100.0)?;
    }
    Ok(())
}

/// The commands that were executed or refused since the last reset, by name.
pub(super) fn called(server: &Server) -> Vec<(&'static Command, PerCommand)> {
    let mut totals = server.stats.meters.totals();
    let mut called: Vec<_> = rows()
        .filter_map(|(_, row)| Some((row, totals.commands.remove(&row.id)?)))
        .filter(|(_, counts)| counts.calls + counts.rejected > 0)
        .collect();
    called.sort_by_key(|(row, _)| row.name);
    called
}

fn commandstats_section(context: &mut Context, text: &mut String) -> fmt::Result {
    for (Command { name, .. }, counts) in called(context.server) {
        let PerCommand { calls, rejected, failed, .. } = counts;
        let microseconds = counts.nanoseconds as f64 / 1000.0;
        let per_call = if calls == 0 { 0.0 } else { microseconds / calls as f64 };
        write!(
            text,
            "cmdstat_{name}:calls={calls},usec={microseconds:.0},usec_per_call={per_call:.2},"
        )?;
        write!(text, "rejected_calls={rejected},failed_calls={failed}\r\n")?;
    }
    Ok(())
}

fn errorstats_section(context: &mut Context, text: &mut String) -> fmt::Result {
    for (kind, count) in context.server.stats.errors.kinds() {
        write!(text, "errorstat_{kind}:count={count}\r\n")?;
    }
    Ok(())
}

fn latencystats_section(context: &mut Context, text: &mut String) -> fmt::Result {
    let Context { server, .. } = context;
    if !server.config.latency_tracking.load(Relaxed) {
        return Ok(());
    }
    let percentiles = server.config.latency_tracking_info_percentiles.get();
    for (Command { name, id, .. }, counts) in called(server) {
        let Some(histogram) = server.stats.histogram(*id, &counts) else { continue };
        let shown = percentiles.split_whitespace().map(|percent| {
            let nanoseconds = histogram.percentile(percent.parse().unwrap_or_default());
            format!("p{percent}={:.3}", nanoseconds as f64 / 1000.0)
        });
        let shown: Vec<String> = shown.collect();
        write!(text, "latency_percentiles_usec_{name}:{}\r\n", shown.join(","))?;
    }
    Ok(())
}

fn cluster_section(_: &mut Context, text: &mut String) -> fmt::Result {
    write!(text, "cluster_enabled:0\r\n")
}

fn keyspace_section(context: &mut Context, text: &mut String) -> fmt::Result {
    let totals = keyspace_totals(context);
    for (db, totals) in totals.iter().enumerate().filter(|(_, totals)| totals.keys > 0) {
        let Totals { keys, volatile, timed, .. } = totals;
        let ttl_ms = totals.average_ttl_ms();
        write!(
            text,
            "db{db}:keys={keys},expires={volatile},avg_ttl={ttl_ms},subexpiry={timed}\r\n"
        )?;
    }
    Ok(())
}

/// The contents of one database.
#[derive(Clone, Default)]
pub(super) struct Totals {
    pub(super) keys: usize,
    /// Keys with an expiry time.
    pub(super) volatile: usize,
    /// Hashes with fields that have an expiry time.
    pub(super) timed: usize,
    pub(super) table_bytes: usize,
    /// Keys visited for [`Totals::average_ttl_ms`].
    visited: usize,
    /// How many of these have an expiry time, and the sum of the times that they have left.
    sampled: usize,
    left_ms: u128,
}

/// At most this many keys are visited for [`Totals::average_ttl_ms`], in the first shards that have a key
/// with an expiry time. A hash decides which shard a key is in, so the sample is fair.
const VISITED_KEYS: usize = 16_384;

impl Totals {
    fn sample(&mut self, table: &Table, now_ms: i64) {
        if table.volatile() == 0 {
            return;
        }
        for (_, entry) in table.iter().take(VISITED_KEYS - self.visited) {
            self.visited += 1;
            if let Some(expires_at_ms) = entry.expires_at_ms() {
                self.sampled += 1;
                self.left_ms += expires_at_ms.saturating_sub(now_ms).max(0) as u128;
            }
        }
    }

    /// The average time left until a key with an expiry time expires, over a sample if there are many keys,
    /// as in Redis. 0 if no key has an expiry time.
    fn average_ttl_ms(&self) -> u128 {
        self.left_ms / self.sampled.max(1) as u128
    }
}

/// The contents of each database.
pub(super) fn keyspace_totals(context: &mut Context) -> Vec<Totals> {
    let mut totals = vec![Totals::default(); context.server.config.database_count()];
    let now_ms = now_ms();
    context.visit(|shard| {
        for (db, totals) in totals.iter_mut().enumerate().take(shard.databases()) {
            if let Some(table) = shard.table(db) {
                totals.keys += table.len();
                totals.volatile += table.volatile();
                totals.table_bytes += table.reserved_bytes();
                totals.sample(table, now_ms);
            }
            totals.timed += shard.timed_hashes(db);
        }
    });
    totals
}

#[cfg(test)]
mod tests {
    use super::human_bytes;

    #[test]
    fn bytes_are_shown_in_the_unit_that_fits() {
        assert_eq!(human_bytes(0), "0B");
        assert_eq!(human_bytes(1023), "1023B");
        assert_eq!(human_bytes(941_232), "919.17K");
        assert_eq!(human_bytes(6_795_264), "6.48M");
        assert_eq!(human_bytes(25_276_510_208), "23.54G");
    }
}
