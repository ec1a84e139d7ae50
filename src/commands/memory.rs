//! `MEMORY STATS`, `DOCTOR`, `MALLOC-STATS` and `PURGE`: the memory of the server.
//!
//! The container `MEMORY` is in [`super::inspect`], together with `MEMORY USAGE`.
//!
//! The standard library does not say how much the allocator has handed out. So these commands report only
//! what is known: the memory that the kernel counts for the process, and the size of our own tables.

use std::collections::BTreeMap;

use super::info::{human_bytes, keyspace_totals, resident_bytes};
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

/// Uses Redis's names where they mean the same; `resident` and `resident.peak` are ours.
fn stats(context: &mut Context, _: Args, reply: &mut Reply) -> Outcome {
    let databases: BTreeMap<usize, _> = keyspace_totals(context)
        .into_iter()
        .enumerate()
        .filter(|(_, totals)| totals.keys > 0)
        .collect();
    let keys: usize = databases.values().map(|totals| totals.keys).sum();
    let tables: usize = databases.values().map(|totals| totals.table_bytes).sum();
    let resident = resident_bytes();
    reply.map(2 + databases.len() + resident.map_or(0, |_| 2));
    if let Some((now, peak)) = resident {
        for (name, bytes) in [("resident.peak", peak), ("resident", now)] {
            reply.bulk(name.as_bytes());
            reply.integer(bytes as i64);
        }
    }
    for (db, totals) in databases {
        reply.bulk(format!("db.{db}").as_bytes());
        reply.map(1);
        reply.bulk(b"overhead.hashtable.main");
        reply.count(totals.table_bytes);
    }
    reply.bulk(b"overhead.total");
    reply.count(tables);
    reply.bulk(b"keys.count");
    reply.count(keys);
    Ok(())
}

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
