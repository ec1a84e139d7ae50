//! `MEMORY STATS`, `DOCTOR`, `MALLOC-STATS` and `PURGE`: the memory of the server.
//!
//! The container `MEMORY` is in [`super::inspect`], together with `MEMORY USAGE`.
//!
//! What is used is computed ([`crate::store`] knows the data, each connection its buffers); what is resident
//! the kernel says.

use std::collections::BTreeMap;

use super::info::{Memory, human_bytes, keyspace_totals, percent};
use super::spec::{Command, Context, Flags, Outcome, session};
use crate::resp::{Args, Reply};

const TIPS: &[&str] =
    &["nondeterministic_output", "request_policy:all_shards", "response_policy:special"];
/// With less memory than this there is nothing to diagnose.
const LITTLE_BYTES: u64 = 5 << 20;

pub(super) const DOCTOR: Command =
    session("memory|doctor", "", doctor).flags(Flags::VISITS_KEYS).tips(TIPS).doc(
        "4.0.0",
        "O(N) where N is the number of shards",
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

fn stats(context: &mut Context, _: Args, reply: &mut Reply) -> Outcome {
    let databases: BTreeMap<usize, _> = keyspace_totals(context)
        .into_iter()
        .enumerate()
        .filter(|(_, totals)| totals.keys > 0)
        .collect();
    let keys = databases.values().map(|totals| totals.keys as u64).sum::<u64>();
    let indexes: usize = databases.values().map(|totals| totals.table_bytes).sum();
    let memory = Memory::measure(context);
    let net = memory.used.saturating_sub(memory.startup);
    let mut numbers = vec![
        ("peak.allocated", memory.peak),
        ("total.allocated", memory.used),
        ("startup.allocated", memory.startup),
        ("clients.normal", memory.clients),
        ("aof.buffer", context.server.aof.buffered_bytes() as u64),
        ("overhead.total", memory.overhead),
        ("keys.count", keys),
        ("keys.bytes-per-key", net.checked_div(keys).unwrap_or(0)),
        ("dataset.bytes", memory.dataset),
        ("overhead.db.hashtable.lut", indexes as u64),
    ];
    let mut ratios = vec![
        ("dataset.percentage", percent(memory.dataset, net)),
        ("peak.percentage", percent(memory.used, memory.peak)),
    ];
    if let Some(resident) = memory.resident {
        numbers.push(("resident", resident));
        ratios.push(("fragmentation", resident as f64 / memory.used.max(1) as f64));
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
        reply.map(2);
        reply.bulk(b"overhead.hashtable.main");
        reply.count(totals.table_bytes);
        reply.bulk(b"overhead.hashtable.expires"); // a key's expiry is part of its record
        reply.integer(0);
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
    "overhead.db.hashtable.rehashing",
    "db.dict.rehashing.count",
];

fn doctor(context: &mut Context, _: Args, reply: &mut Reply) -> Outcome {
    let memory = Memory::measure(context);
    let text = if memory.used < LITTLE_BYTES {
        "The server uses too little memory to say anything about it.\n".into()
    } else {
        let (used, peak) = (human_bytes(memory.used), human_bytes(memory.peak));
        let mut text = format!("The server uses {used} of memory; the peak was {peak}.\n");
        if memory.used < memory.peak / 2 {
            text.push_str("It has used more than twice as much, and reuses what was freed.\n");
        }
        if let Some(resident) = memory.resident.filter(|&resident| resident > memory.used * 3 / 2) {
            let resident = human_bytes(resident);
            text += &format!("The process takes {resident}: the allocator keeps what was freed.\n");
        }
        if memory.free > memory.used / 2 {
            text.push_str(
                "Most of it is free for new keys: many were removed, or the indexes have just grown.\n",
            );
        }
        text
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
