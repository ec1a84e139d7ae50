//! `INFO`: the server's state and statistics, in sections.
//!
//! Every field is true. Redis's fields about things that do not exist here (forks, scripts) are
//! zero where tools read them; what is not measured is left out.
//!
//! `used_memory` is computed, because the standard library does not say how much the allocator has handed
//! out; `used_memory_rss` is what the kernel counts. [`crate::stats::timer`] says how commands are timed.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::connection::REDIS_VERSION;
use super::lookup::rows;
use super::options::is;
use super::replicaof;
use super::replication;
use super::spec::{Command, Context, Family, Flags, Outcome, session};
use crate::config::{MachineMemory, kilobytes};
use crate::net::pause::Paused;
use crate::rdb::progress::Current;
use crate::resp::{Args, Reply};
use crate::session::Server;
use crate::stats::denials::Reason;
use crate::stats::{PerCommand, Rate, unix_seconds};
use crate::store::{Table, ValueRef, now_ms};
use crate::watchers::pubsub::Kind;

/// `INFO`.
#[rustfmt::skip]
pub static FAMILY: Family = Family { group: "server", commands: &[
    session("info", "[section [section ...]]", info)
        .flags(Flags::ALWAYS.or(Flags::DANGEROUS).or(Flags::VISITS_KEYS))
        .tips(&["nondeterministic_output", "request_policy:all_shards", "response_policy:special"])
        .history(&[("7.0.0", "Accepts several sections.")])
        .doc("1.0.0", "O(1)", "Returns the state and the statistics of the server."),
] };

/// A section: its title, whether it is shown by default, and the function that writes its lines.
type Section = (&'static str, bool, fn(&mut Context, &mut String) -> fmt::Result);

const SECTIONS: &[Section] = &[
    ("Server", true, server_section),
    ("Clients", true, clients_section),
    ("Memory", true, memory_section),
    ("Persistence", true, persistence_section),
    ("Threads", true, nothing), // no thread does the input and output of others
    ("Stats", true, stats_section),
    ("Replication", true, replication_section),
    ("CPU", true, cpu_section),
    ("Modules", true, nothing),
    ("Commandstats", false, commandstats_section),
    ("Errorstats", true, errorstats_section),
    ("Latencystats", false, latencystats_section),
    ("Cluster", true, cluster_section),
    ("Keyspace", true, keyspace_section),
    ("Keysizes", false, keysizes_section), // visits every key
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

fn nothing(_: &mut Context, _: &mut String) -> fmt::Result {
    Ok(())
}

/// Writes the fields of things that do not exist here, of which there are always zero.
fn zeros(text: &mut String, names: &str) -> fmt::Result {
    names.split_whitespace().try_for_each(|name| write!(text, "{name}:0\r\n"))
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
    let supervised = if server.config.is_supervised() { "systemd" } else { "no" };
    write!(text, "process_supervised:{supervised}\r\n")?;
    write!(text, "run_id:{}\r\n", server.run_id)?;
    write!(text, "tcp_port:{}\r\n", server.port.load(Relaxed))?;
    write!(text, "server_time_usec:{}\r\n", now_ms() * 1000)?;
    write!(text, "uptime_in_seconds:{uptime}\r\n")?;
    write!(text, "uptime_in_days:{}\r\n", uptime / 86_400)?;
    let hz = server.config.hz.load(Relaxed);
    write!(text, "hz:{hz}\r\nconfigured_hz:{hz}\r\n")?;
    write!(text, "lru_clock:{}\r\n", unix_seconds() & 0xff_ffff)?; // Redis keeps 24 bits of the time
    if let Ok(program) = std::env::current_exe() {
        write!(text, "executable:{}\r\n", program.display())?;
    }
    let config_file = server.config.file().map(|path| path.display().to_string());
    write!(text, "config_file:{}\r\n", config_file.unwrap_or_default())?;
    let zone = server.config.availability_zone.get();
    write!(text, "availability_zone:{zone}\r\nio_threads_active:0\r\n")?;
    let (port, path) = (server.port.load(Relaxed), server.config.unixsocket.get());
    let addresses = server.config.bind.get();
    let addresses = addresses.split_whitespace().map(|address| format!(",bind={address}"));
    let tcp = format!("name=tcp{},port={port}", addresses.collect::<String>());
    let unix = format!("name=unix,bind={path}");
    let listeners = [(port != 0, tcp), (!path.is_empty(), unix)].into_iter();
    for (number, (_, listener)) in listeners.filter(|(is_there, _)| *is_there).enumerate() {
        write!(text, "listener{number}:{listener}\r\n")?;
    }
    Ok(())
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
    let watching = all.iter().filter(|client| client.watches()).count();
    write!(text, "pubsub_clients:{subscribed}\r\nwatching_clients:{watching}\r\n")?;
    zeros(
        text,
        "cluster_connections clients_in_timeout_table total_blocking_keys total_blocking_keys_on_nokey",
    )?;
    let (reason, actions, left) = match server.pause.left() {
        None => ("none", "none", Duration::ZERO),
        Some((Paused::Writes, left)) => ("client_pause", "write", left),
        Some((Paused::Everything, left)) => ("client_pause", "all", left),
    };
    write!(text, "paused_reason:{reason}\r\npaused_actions:{actions}\r\n")?;
    write!(text, "paused_timeout_milliseconds:{}\r\n", left.as_millis())
}

fn memory_section(context: &mut Context, text: &mut String) -> fmt::Result {
    let memory = Memory::measure(context);
    let Memory { used, peak, overhead, dataset, resident, .. } = memory;
    let server = context.server;
    let mut show = |name: &str, bytes| {
        write!(text, "{name}:{bytes}\r\n{name}_human:{}\r\n", human_bytes(bytes))
    };
    show("used_memory", used)?;
    if let Some(resident) = resident {
        show("used_memory_rss", resident)?;
    }
    show("used_memory_peak", peak)?;
    if let Some(machine) = MachineMemory::read() {
        show("total_system_memory", machine.total)?;
    }
    show("maxmemory", server.config.maxmemory.load(Relaxed) as u64)?;
    ["used_memory_lua", "used_memory_vm_total", "used_memory_scripts"]
        .into_iter()
        .try_for_each(|name| show(name, 0))?;
    write!(text, "used_memory_peak_time:{}\r\n", server.peak_at())?;
    write!(text, "used_memory_peak_perc:{:.2}%\r\n", percent(used, peak))?;
    write!(text, "used_memory_overhead:{overhead}\r\nused_memory_startup:{}\r\n", memory.startup)?;
    write!(text, "used_memory_dataset:{dataset}\r\n")?;
    let net = used.saturating_sub(memory.startup);
    write!(text, "used_memory_dataset_perc:{:.2}%\r\n", percent(dataset, net))?;
    if let Some(resident) = resident {
        let (ratio, lost) = (resident as f64 / used.max(1) as f64, resident as i64 - used as i64);
        write!(text, "mem_fragmentation_ratio:{ratio:.2}\r\nmem_fragmentation_bytes:{lost}\r\n")?;
    }
    write!(text, "mem_clients_normal:{}\r\n", memory.clients)?;
    write!(text, "mem_aof_buffer:{}\r\n", server.aof.buffered_bytes())?; // not a part of used_memory
    let lazy_free = &server.stats.lazy_free;
    write!(text, "lazyfree_pending_objects:{}\r\n", lazy_free.pending.load(Relaxed))?;
    write!(text, "lazyfreed_objects:{}\r\n", lazy_free.freed.get())?;
    write!(
        text,
        "maxmemory_policy:{}\r\nmem_allocator:libc\r\n",
        server.config.eviction_policy_name()
    )?;
    zeros(
        text,
        "mem_not_counted_for_evict used_memory_vm_eval used_memory_scripts_eval \
         number_of_cached_scripts number_of_functions number_of_libraries used_memory_vm_functions \
         used_memory_functions mem_overhead_db_hashtable_rehashing mem_replication_backlog \
         mem_total_replication_buffers mem_replica_full_sync_buffer mem_clients_slaves \
         mem_cluster_links active_defrag_running",
    )
}

/// What takes memory, in bytes.
pub(super) struct Memory {
    /// All of this together, as it is computed.
    pub(super) used: u64,
    /// The most that was used at any measurement.
    pub(super) peak: u64,
    /// A server without keys and clients.
    pub(super) startup: u64,
    /// The buffers of all clients.
    pub(super) clients: u64,
    /// What new keys can use before the data takes more.
    pub(super) free: u64,
    /// Everything but keys and values.
    pub(super) overhead: u64,
    /// Keys and values, with their indexes.
    pub(super) dataset: u64,
    /// What the kernel counts for the process. Known only on Linux.
    pub(super) resident: Option<u64>,
}

impl Memory {
    pub(super) fn measure(context: &mut Context) -> Memory {
        let free = keyspace_totals(context).iter().map(|totals| totals.free_bytes).sum::<usize>();
        let server = context.server;
        server.measure_memory();
        let dataset = server.keyspace.data_bytes() as u64;
        let used = server.used_memory() as u64;
        Memory {
            used,
            peak: used.max(server.peak_memory() as u64),
            startup: server.keyspace.fixed_bytes() as u64,
            clients: server.clients_bytes() as u64,
            free: free as u64,
            overhead: used.saturating_sub(dataset),
            dataset,
            resident: kilobytes("/proc/self/status", "VmRSS:"),
        }
    }
}

pub(super) fn percent(part: u64, whole: u64) -> f64 {
    part as f64 * 100.0 / whole.max(1) as f64
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
    let (bytes, base_bytes) = server.aof.size();
    write!(text, "loading:{}\r\n", u8::from(server.is_loading()))?;
    write!(text, "async_loading:0\r\n")?;
    let saves = &server.saves;
    let changes = server.stats.meters.changes() - saves.saved_changes();
    write!(text, "rdb_changes_since_last_save:{changes}\r\n")?;
    let running = match saves.current() {
        Some(Current::Running(since)) => Some(since.elapsed()),
        _ => None,
    };
    write!(text, "rdb_bgsave_in_progress:{}\r\n", u8::from(running.is_some()))?;
    write!(text, "rdb_last_save_time:{}\r\n", saves.saved_at())?;
    let status = if saves.has_failed() { "err" } else { "ok" };
    write!(text, "rdb_last_bgsave_status:{status}\r\n")?;
    let seconds = |time: Option<Duration>| time.map_or(-1, |time| time.as_secs() as i64);
    write!(text, "rdb_last_bgsave_time_sec:{}\r\n", seconds(saves.last_took()))?;
    write!(text, "rdb_current_bgsave_time_sec:{}\r\n", seconds(running))?;
    write!(text, "rdb_saves:{}\r\n", saves.completed.get())?;
    write!(text, "rdb_last_load_keys_expired:{}\r\n", saves.expired.get())?;
    write!(text, "rdb_last_load_keys_loaded:{}\r\n", saves.loaded.get())?;
    zeros(
        text,
        "rdb_last_cow_size current_cow_peak current_cow_size current_cow_size_age aof_last_cow_size \
         module_fork_in_progress module_fork_last_cow_size",
    )?;
    write!(text, "aof_enabled:{}\r\n", u8::from(server.aof.is_enabled()))?;
    let progress = server.aof.rewrites.progress();
    write!(text, "aof_rewrite_in_progress:{}\r\n", u8::from(progress.is_some()))?;
    let seconds = |time: Option<Duration>| time.map_or(-1, |time| time.as_secs() as i64);
    let elapsed = progress.map(|(elapsed, _)| elapsed);
    write!(text, "aof_current_rewrite_time_sec:{}\r\n", seconds(elapsed))?;
    if let Some((_, percent)) = progress {
        write!(text, "aof_rewrite_percent:{percent}\r\n")?;
    }
    let last = server.aof.rewrites.last();
    let ok = last.as_ref().is_none_or(|last| last.ok);
    write!(text, "aof_last_bgrewrite_status:{}\r\n", if ok { "ok" } else { "err" })?;
    let took = last.map(|last| last.took);
    write!(text, "aof_last_rewrite_time_sec:{}\r\n", seconds(took))?;
    write!(text, "aof_rewrites:{}\r\n", server.aof.rewrites.completed.get())?;
    if server.aof.is_enabled() {
        let status = if server.aof.failure().is_none() { "ok" } else { "err" };
        write!(text, "aof_last_write_status:{status}\r\n")?;
        write!(text, "aof_files_lost:{}\r\n", server.aof.files_lost().get())?;
        write!(text, "aof_delayed_fsync:{}\r\n", server.aof.delayed_syncs.get())?;
        write!(text, "aof_current_size:{bytes}\r\naof_base_size:{base_bytes}\r\n")?;
        write!(text, "aof_buffer_length:{}\r\n", server.aof.buffered_bytes())?;
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
    write!(text, "evicted_keys:{}\r\n", stats.evicted_keys.get())?;
    write!(text, "evicted_clients:{}\r\n", stats.evicted_clients.get())?;
    let [total, current] = stats.excess.times().map(|time| time.as_millis());
    write!(text, "total_eviction_exceeded_time:{total}\r\n")?;
    write!(text, "current_eviction_exceeded_time:{current}\r\n")?;
    write!(text, "keyspace_hits:{}\r\n", totals.hits)?;
    write!(text, "keyspace_misses:{}\r\n", totals.misses)?;
    for (name, kind) in [
        ("pubsub_channels", Kind::Channel),
        ("pubsub_patterns", Kind::Pattern),
        ("pubsubshard_channels", Kind::Shard),
    ] {
        write!(text, "{name}:{}\r\n", context.server.pubsub.count(kind))?;
    }
    let Rate { from_master, to_replicas, .. } = rate.unwrap_or_default();
    write!(text, "instantaneous_input_repl_kbps:{:.2}\r\n", from_master / 1024.0)?;
    write!(text, "instantaneous_output_repl_kbps:{:.2}\r\n", to_replicas / 1024.0)?;
    zeros(
        text,
        "evicted_scripts \
         latest_fork_usec total_forks migrate_cached_sockets \
         slave_expires_tracked_keys active_defrag_hits active_defrag_misses active_defrag_key_hits \
         active_defrag_key_misses total_active_defrag_time current_active_defrag_time \
         unexpected_error_replies dump_payload_sanitizations io_threaded_reads_processed \
         io_threaded_writes_processed",
    )?;
    let replication = &context.server.replication;
    write!(text, "total_net_repl_input_bytes:{}\r\n", replication.received.get())?;
    write!(text, "total_net_repl_output_bytes:{}\r\n", replication.sent.get())?;
    write!(text, "sync_full:{}\r\n", replication.full_syncs.get())?;
    write!(text, "sync_partial_ok:{}\r\n", replication.partial_syncs.get())?;
    write!(text, "sync_partial_err:{}\r\n", replication.refused_syncs.get())?;
    let [_, keys, entries, prefixes] = context.server.tracking.counts();
    write!(text, "tracking_total_keys:{keys}\r\ntracking_total_items:{entries}\r\n")?;
    write!(text, "tracking_total_prefixes:{prefixes}\r\n")?;
    write!(text, "total_error_replies:{}\r\n", stats.errors.total())?;
    let cut_off = [stats.query_limit_cut_offs.get(), context.server.pubsub.cut_off.get()];
    write!(text, "client_query_buffer_limit_disconnections:{}\r\n", cut_off[0])?;
    write!(text, "client_output_buffer_limit_disconnections:{}\r\n", cut_off[1])?;
    for reason in Reason::ALL {
        let name = match reason {
            Reason::Command => "cmd",
            Reason::Database => "db",
            _ => reason.name(),
        };
        write!(text, "acl_access_denied_{name}:{}\r\n", stats.denials.count(reason))?;
    }
    Ok(())
}

fn replication_section(context: &mut Context, text: &mut String) -> fmt::Result {
    let Context { server, .. } = context;
    let master = server.upstream.master();
    write!(text, "role:{}\r\n", if master.is_some() { "slave" } else { "master" })?;
    if let Some(master) = master {
        replicaof::info(server, &master, text)?;
    }
    replication::info_lines(server, text)
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

/// How many strings and hashes there are of each size. A size counts as the greatest power of two that is
/// not above it.
fn keysizes_section(context: &mut Context, text: &mut String) -> fmt::Result {
    // By database, type and the bits of the size.
    let mut counts = BTreeMap::<(usize, bool, u32), u64>::new();
    context.visit(|shard| {
        for db in shard.databases() {
            for (_, entry) in shard.table(db).into_iter().flat_map(Table::iter) {
                let (is_hash, size) = match entry.value {
                    ValueRef::String(bytes) => (false, bytes.len()),
                    ValueRef::Hash(hash) => (true, hash.len()),
                };
                *counts.entry((db, is_hash, usize::BITS - size.leading_zeros())).or_default() += 1;
            }
        }
    });
    let mut line = None;
    for ((db, is_hash, bits), count) in counts {
        if line.replace((db, is_hash)) != Some((db, is_hash)) {
            let kind = if is_hash { "hashes_items" } else { "strings_sizes" };
            let end = if text.ends_with("# Keysizes\r\n") { "" } else { "\r\n" };
            write!(text, "{end}db{db}_distrib_{kind}:{}={count}", size_label(bits))?;
        } else {
            write!(text, ",{}={count}", size_label(bits))?;
        }
    }
    if line.is_some() { write!(text, "\r\n") } else { Ok(()) }
}

/// Redis's name for sizes of that many bits: `512`, `1K`, `2K`.
fn size_label(bits: u32) -> String {
    match bits {
        0 => "0".into(),
        _ => {
            let (unit, exponent) = ((bits - 1) / 10, (bits - 1) % 10);
            let letter = ["", "K", "M", "G", "T"].get(unit as usize).unwrap_or(&"");
            format!("{}{letter}", 1 << exponent)
        }
    }
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
    /// What new keys can use before the data takes more.
    pub(super) free_bytes: usize,
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
        for db in shard.databases() {
            let totals = &mut totals[db];
            if let Some(table) = shard.table(db) {
                totals.keys += table.len();
                totals.volatile += table.volatile();
                totals.table_bytes += table.index_bytes();
                totals.free_bytes += table.free_bytes();
                totals.sample(table, now_ms);
            }
            totals.timed += shard.timed_hashes(db);
        }
    });
    totals
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_named_by_powers_of_two() {
        let label = |size: usize| size_label(usize::BITS - size.leading_zeros());
        for (size, name) in [
            (0, "0"),
            (1, "1"),
            (3, "2"),
            (1023, "512"),
            (1024, "1K"),
            (4095, "2K"),
            (1 << 20, "1M"),
        ] {
            assert_eq!(label(size), name);
        }
    }

    #[test]
    fn bytes_are_shown_in_the_unit_that_fits() {
        assert_eq!(human_bytes(0), "0B");
        assert_eq!(human_bytes(1023), "1023B");
        assert_eq!(human_bytes(941_232), "919.17K");
        assert_eq!(human_bytes(6_795_264), "6.48M");
        assert_eq!(human_bytes(25_276_510_208), "23.54G");
    }
}
