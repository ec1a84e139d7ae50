//! Which keys are evicted when memory is full.
//!
//! A sample is all keys of a random shard, and of the shards after it until it is large enough. Of each
//! [`SAMPLED_PER_VICTIM`] keys that are sampled, at most one is evicted, the best ones first: so the evicted
//! keys are closer to the oldest of all than with the few keys that Redis samples, at about the same cost
//! for each. Only one shard is locked at a time.

use std::cmp::Reverse;
use std::hash::{BuildHasher, RandomState};

use super::SHARDS;
use super::aftermath::Garbage;
use super::key::HashedKey;
use super::keyspace::Keyspace;
use super::shard::{Cause, Removal, Shard};
use super::usage::{Usage, random};
use super::value::{EntryRef, Value};
use crate::config::{EvictionOrder, EvictionPolicy};

/// One key is evicted for so many that were looked at: the best 1.6 percent.
const SAMPLED_PER_VICTIM: usize = 64;

/// A key that may be evicted.
struct Candidate {
    /// The higher, the sooner it is evicted.
    score: u64,
    db: usize,
    key: Box<[u8]>,
}

impl Keyspace {
    /// Evicts the best keys of a sample, as long as memory `is_full`. `log` is as for [`Keyspace::sweep`];
    /// values that take long to free go to `discard`. Returns false if there is no key that may be evicted.
    pub fn evict(
        &self,
        policy: EvictionPolicy,
        least_sampled: usize,
        is_full: impl Fn() -> bool,
        mut log: impl FnMut(&[Removal]) -> u64,
        mut discard: impl FnMut(Garbage),
    ) -> bool {
        let candidates = self.candidates(policy, least_sampled);
        let found = !candidates.is_empty();
        for Candidate { db, key, .. } in candidates {
            if !is_full() {
                break;
            }
            let hashed = HashedKey::new(&key);
            let mut shard = self.exclusive(hashed.shard());
            // Since it was sampled, it may have been set anew, without a time to live.
            let entry = shard.table(db).and_then(|table| table.get(hashed));
            let may_go = |entry: EntryRef| !policy.volatile || entry.is_volatile();
            if !entry.is_some_and(may_go) {
                continue;
            }
            let Some(old) = shard.remove(db, hashed) else { continue };
            shard.signal_modified(db, hashed);
            let lsn = log(&[Removal { db, key: key.clone(), cause: Cause::Evicted }]);
            shard.logged(lsn);
            drop(shard);
            if let Some(value) = old.large.filter(Value::is_costly_to_drop) {
                discard(Garbage::value(value));
            }
        }
        found
    }

    /// The best candidates of a sample, the best first.
    fn candidates(&self, policy: EvictionPolicy, least_sampled: usize) -> Vec<Candidate> {
        let start = RandomState::new().hash_one(0u8) as usize;
        let usage = self.env.usage();
        let (mut sampled, mut best) = (0, Vec::new());
        for step in 0..SHARDS {
            let shard = self.shared(start.wrapping_add(step) % SHARDS);
            sampled += sample(&shard, policy, usage, &mut best);
            if sampled >= least_sampled.max(SAMPLED_PER_VICTIM) {
                break;
            }
        }
        best.sort_unstable_by_key(|candidate| Reverse(candidate.score));
        best.truncate(victims_of(sampled));
        best
    }
}

fn victims_of(sampled: usize) -> usize {
    sampled.div_ceil(SAMPLED_PER_VICTIM)
}

/// Adds the best candidates of a shard. Returns how many keys it has looked at.
fn sample(shard: &Shard, policy: EvictionPolicy, usage: Usage, best: &mut Vec<Candidate>) -> usize {
    let mut found = Vec::new();
    for db in shard.databases() {
        let Some(table) = shard.table(db) else { continue };
        if policy.volatile && table.volatile() == 0 {
            continue;
        }
        let entries = table.iter().filter(|(_, entry)| !policy.volatile || entry.is_volatile());
        found.extend(entries.map(|(key, entry)| (score(policy.order, usage, entry), db, key)));
    }
    let (sampled, victims) = (found.len(), victims_of(found.len()));
    if victims < sampled {
        found.select_nth_unstable_by_key(victims, |(score, ..)| Reverse(*score));
    }
    best.extend(found.into_iter().take(victims).map(|(score, db, key)| Candidate {
        score,
        db,
        key: key.into(),
    }));
    sampled
}

fn score(order: EvictionOrder, usage: Usage, entry: EntryRef) -> u64 {
    match order {
        EvictionOrder::Lru | EvictionOrder::Lrm => usage.idle_seconds(entry.usage()).into(),
        EvictionOrder::Lfu => u64::from(u8::MAX - usage.frequency(entry.usage())),
        EvictionOrder::Random => (random() * 2f64.powi(53)) as u64,
        // The sooner it expires, the higher. A key that does not expire is not a candidate.
        EvictionOrder::Ttl => entry.expires_at_ms().map_or(0, |ms| u64::MAX - (ms.max(0) as u64)),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::sync::Arc;

    use super::*;
    use crate::config::Config;

    #[test]
    fn a_key_that_lost_its_time_to_live_since_it_was_sampled_is_not_evicted() {
        let keyspace = Keyspace::new(Arc::new(Config::new()));
        let set = |value: &[u8], expires_at_ms| {
            let key = b"key".as_slice();
            keyspace.write(0, std::iter::once(key)).insert_string(key, value, expires_at_ms);
        };
        let policy = EvictionPolicy { volatile: true, order: EvictionOrder::Lru };
        let evicted = Cell::new(0);
        let log = |removals: &[Removal]| {
            evicted.set(evicted.get() + removals.len());
            0
        };
        set(b"old", Some(i64::MAX));
        let is_full = || {
            set(b"new", None); // after the sample, and before the key is removed
            true
        };
        assert!(keyspace.evict(policy, 64, is_full, log, drop));
        assert_eq!(evicted.get(), 0);
        set(b"old", Some(i64::MAX));
        assert!(keyspace.evict(policy, 64, || true, log, drop));
        assert_eq!(evicted.get(), 1);
        assert!(!keyspace.evict(policy, 64, || true, log, drop));
    }
}
