//! `MEMORY STATS`, `DOCTOR`, `MALLOC-STATS` and `PURGE`: what is known of the server's memory.
//!
//! Their rows stand in the table of [`super::inspect`], beside `MEMORY USAGE`.
//!
//! What the allocator has handed out the standard library does not tell, so nothing here pretends to
//! know: told are the memory that the kernel counts for the process, and the size of our own tables.

use std::collections::BTreeMap;

use super::info::{human_bytes, keyspace_totals, resident_bytes};
use super::spec::{Command, Context, Flags, Outcome, session};
use crate::resp::{Args, Reply};

const TIPS: &[&str] =
    &["nondeterministic_output", "request_policy:all_shards", "response_policy:special"];
/// Less memory than this tells nothing.
const LITTLE_BYTES: u64 = 5 << 20;

pub(super) const DOCTOR: Command = session("memory|doctor", "", doctor).tips(TIPS).doc(
    "4.0.0",
    "O(1)",
    "Explains in words how much memory is used.",
);
pub(super) const MALLOC_STATS: Command = session("memory|malloc-stats", "", malloc_stats)
    .tips(TIPS)
    .doc("4.0.0", "O(1)", "Says that the allocator tells nothing of itself.");
pub(super) const PURGE: Command = session("memory|purge", "", purge)
    .tips(&["request_policy:all_shards", "response_policy:all_succeeded"])
    .doc("4.0.0", "O(1)", "Does nothing: the allocator gives memory back when it pleases.");
pub(super) const STATS: Command =
    session("memory|stats", "", stats).flags(Flags::VISITS_KEYS).tips(TIPS).doc(
        "4.0.0",
        "O(N) with N the number of shards",
        "Returns what is known of the server's memory.",
    );

/// Redis's names where they mean the same; `resident` and `resident.peak` are ours.
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
        None => "The system does not tell how much memory the server has.\n".into(),
        Some((now, _)) if now < LITTLE_BYTES => {
            "There is next to nothing in memory, and so nothing to say about it.\n".into()
        }
        Some((now, peak)) => {
            let mut text = format!(
                "The server has {} in memory; at most it had {}.\n",
                human_bytes(now),
                human_bytes(peak)
            );
            if now < peak / 2 {
                text.push_str("Much of what it had was given back.\n");
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
