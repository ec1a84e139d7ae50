//! `MEMORY STATS`, `DOCTOR`, `MALLOC-STATS` and `PURGE`: the memory of the server.
//!
//! The container `MEMORY` is in [`super::inspect`], together with `MEMORY USAGE`.
//!
//! The standard library does not say how much the allocator has handed out. So these commands report only
//! what is known: the memory that the kernel counts for the process, and the size of our own tables.

use std::collections::BTreeMap;

use super::info::{human_bytes, keyspace_totals, percent, resident_bytes};
use super::spec::{Command, Context, Flags, Outcome, session};
use crate::resp::{Args, Reply};

const TIPS: &[&str] =
    &["nondeterministic_output", "request_policy:all_shards", "response_policy:special"];
/// With less memory than this there is nothing to diagnose.
const LITTLE_BYTES: u64 = 5 << 20;

pub(super) const DOCTOR: Command = session("memory|doctor", "", doctor).tips(TIPS).doc(
    "4.0.0",
    "O(1)",
    "Explains the memory usage in plain words.",
);
pub(super) const MALLOC_STATS: Command = session("memory|malloc-stats", "", malloc_stats)
    .tips(TIPS)
    .doc("4.0.0", "O(1)", "Returns that the allocator has no statistics.");
pub(super) const PURGE: Command = session("memory|purge", "", purge)
    .tips(&["request_policy:all_shards", "response_policy:all_succeeded"])
    .doc("4.0.0", "O(1)", "Does nothing: the allocator decides when to return memory.");
pub(super) const STATS: Command =
    session("memory|stats", "", stats).flags(Flags::VISITS_KEYS).tips(TIPS).doc(
        "4.0.0",
        "O(N) where N is the number of shards",
        "Returns the memory usage of the server in detail.",
    );

/// What Redis calls allocated is the resident memory here, as in `INFO`; `resident` and `resident.peak` are
/// the same by our own names.
fn stats(context: &mut Context, _: Args, reply: &mut Reply) -> Outcome {
    let databases: BTreeMap<usize, _> = keyspace_totals(context)
        .into_iter()
        .enumerate()
        .filter(|(_, totals)| totals.keys > 0)
        .collect();
    let keys: usize = databases.values().map(|totals| totals.keys).sum();
    let tables: usize = databases.values().map(|totals| totals.table_bytes).sum();
    let mut numbers = vec![("overhead.total", tables as u64), ("keys.count", keys as u64)];
    let mut ratios = Vec::new();
    if let Some((now, peak)) = resident_bytes() {
        let dataset = now.saturating_sub(tables as u64);
        numbers.extend([
            ("peak.allocated", peak),
            ("total.allocated", now),
            ("resident.peak", peak),
            ("resident", now),
            ("dataset.bytes", dataset),
            ("keys.bytes-per-key", if keys == 0 { 0 } else { dataset / keys as u64 }),
        ]);
        ratios.push(("dataset.percentage", percent(dataset, now)));
        ratios.push(("peak.percentage", percent(now, peak)));
    }
    numbers.extend(NONE.iter().map(|name| (*name, 0)));
    reply.map(numbers.len() + ratios.len() + databases.len());
    for (name, number) in numbers {
        reply.bulk(name.as_bytes());
        reply.integer(number as i64);
    }
    for (name, ratio) in ratios {
        reply.bulk(name.as_bytes());
        reply.double(ratio.to_string().as_bytes());
    }
    for (db, totals) in databases {
        reply.bulk(format!("db.{db}").as_bytes());
        reply.map(1);
        reply.bulk(b"overhead.hashtable.main");
        reply.count(totals.table_bytes);
    }
    Ok(())
}

/// What does not exist here, so that it takes no memory.
const NONE: &[&str] = &[
    "replication.backlog",
    "replica.fullsync.buffer",
    "clients.slaves",
    "cluster.links",
    "lua.caches",
    "functions.caches",
    "script.VMs",
];

fn doctor(_: &mut Context, _: Args, reply: &mut Reply) -> Outcome {
    let text = match resident_bytes() {
        None => "The system does not say how much memory the server uses.\n".into(),
        Some((now, _)) if now < LITTLE_BYTES => {
            "The server uses too little memory to say anything about it.\n".into()
        }
        Some((now, peak)) => {
            let mut text = format!(
                "The server uses {} of memory; the peak was {}.\n",
                human_bytes(now),
                human_bytes(peak)
            );
            if now < peak / 2 {
                text.push_str("More than half of the peak has been returned to the system.\n");
            }
            text
        }
    };
    reply.verbatim(text.as_bytes());
    Ok(())
}

fn malloc_stats(_: &mut Context, _: Args, reply: &mut Reply) -> Outcome {
    reply.bulk(b"Stats not supported for the current allocator");
    Ok(())
}

fn purge(_: &mut Context, _: Args, reply: &mut Reply) -> Outcome {
    reply.ok();
    Ok(())
}
