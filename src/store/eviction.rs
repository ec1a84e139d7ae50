//! Which keys are evicted when memory is full.
//!
//! A sample is all keys of a random shard, and of the shards after it until it is large enough. Of each
//! [`SAMPLED_PER_VICTIM`] keys that are sampled, the best one is evicted: so the evicted keys are closer to
//! the oldest of all than with the few keys that Redis samples. All that a sample has found go at once, even
//! if fewer would do, because the next write needs room too, and sampling costs more than evicting. Only one
//! shard is locked at a time.

use std::cmp::Reverse;
use std::hash::{BuildHasher, RandomState};

use super::SHARDS;
use super::aftermath::Garbage;
use super::key::HashedKey;
use super::keyspace::Keyspace;
use super::shard::{Cause, Removal, Shard};
use super::usage::{Usage, random_bits};
use super::value::{EntryRef, Value};
use crate::config::{EvictionOrder, EvictionPolicy};

/// One key is evicted for so many that were looked at: the best 1.6 percent.
const SAMPLED_PER_VICTIM: usize = 64;

/// The higher, the sooner a key is evicted: by the policy, then by the time of its last use, then by chance.
/// (Many keys of a cache have the same counter. The order in which a table lists them is always the same, so
/// without chance some keys would go as soon as they come, and others stay for ever.)
type Score = (u64, u32, u32);

/// A key that may be evicted.
struct Candidate {
    score: Score,
    db: usize,
    key: Box<[u8]>,
}

impl Keyspace {
    /// Evicts the best keys of a sample. `log` is as for [`Keyspace::sweep`]; values that take long to free
    /// go to `discard`. Returns false if there is no key that may be evicted.
    pub fn evict(
        &self,
        policy: EvictionPolicy,
        least_sampled: usize,
        mut log: impl FnMut(&[Removal]) -> u64,
        mut discard: impl FnMut(Garbage),
    ) -> bool {
        let candidates = self.candidates(policy, least_sampled);
        let found = !candidates.is_empty();
        for candidate in candidates {
            self.evict_key(policy, candidate, &mut log, &mut discard);
        }
        found
    }

    fn evict_key(
        &self,
        policy: EvictionPolicy,
        Candidate { db, key, .. }: Candidate,
        log: &mut impl FnMut(&[Removal]) -> u64,
        discard: &mut impl FnMut(Garbage),
    ) {
        let hashed = HashedKey::new(&key);
        let mut shard = self.exclusive(hashed.shard());
        // Since it was sampled, it may have been set anew, without a time to live.
        let entry = shard.table(db).and_then(|table| table.get(hashed));
        if !entry.is_some_and(|entry: EntryRef| !policy.volatile || entry.is_volatile()) {
            return;
        }
        let Some(old) = shard.remove(db, hashed) else { return };
        shard.signal_modified(db, hashed);
        let lsn = log(&[Removal { db, key, cause: Cause::Evicted }]);
        shard.logged(lsn);
        drop(shard);
        if let Some(value) = old.large.filter(Value::is_costly_to_drop) {
            discard(Garbage::value(value));
        }
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
        found.reserve(table.len());
        for (word, place) in table.usages() {
            // Most policies need not read the records, which costs more than all the rest.
            let expires_at_ms = if policy.volatile { table.expires_at(place) } else { None };
            if !policy.volatile || expires_at_ms.is_some() {
                found.push((score(policy.order, usage, word, expires_at_ms), db, place));
            }
        }
    }
    let (sampled, victims) = (found.len(), victims_of(found.len()));
    if victims < sampled {
        found.select_nth_unstable_by_key(victims, |(score, ..)| Reverse(*score));
    }
    best.extend(found.into_iter().take(victims).filter_map(|(score, db, place)| {
        let key = shard.table(db)?.key_at(place).into();
        Some(Candidate { score, db, key })
    }));
    sampled
}

fn score(order: EvictionOrder, usage: Usage, word: u32, expires_at_ms: Option<i64>) -> Score {
    let (first, then) = match order {
        EvictionOrder::Lru | EvictionOrder::Lrm => (0, usage.age(word)),
        EvictionOrder::Lfu => ((u8::MAX - usage.frequency(word)).into(), usage.age(word)),
        EvictionOrder::Random => (0, 0),
        // The sooner it expires, the higher. A key that does not expire is not a candidate.
        EvictionOrder::Ttl => (expires_at_ms.map_or(0, |ms| u64::MAX - (ms.max(0) as u64)), 0),
    };
    (first, then, random_bits() as u32)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::usage::{QUARTERS, UsageWord};
    use super::*;
    use crate::config::Config;

    const VOLATILE_LRU: EvictionPolicy =
        EvictionPolicy { volatile: true, order: EvictionOrder::Lru };

    fn set(keyspace: &Keyspace, key: &[u8], expires_at_ms: Option<i64>) {
        keyspace.write(0, std::iter::once(key)).insert_string(key, b"value", expires_at_ms);
    }

    #[test]
    fn a_key_that_lost_its_time_to_live_since_it_was_sampled_is_not_evicted() {
        let keyspace = Keyspace::new(Arc::new(Config::new()));
        let mut evicted = 0;
        let mut log = |removals: &[Removal]| {
            evicted += removals.len();
            0
        };
        set(&keyspace, b"stays", Some(i64::MAX));
        set(&keyspace, b"goes", Some(i64::MAX));
        let candidates = keyspace.candidates(VOLATILE_LRU, SHARDS);
        set(&keyspace, b"stays", None);
        for key in [b"stays".as_slice(), b"goes", b"gone"] {
            let candidate = Candidate { score: (0, 0, 0), db: 0, key: key.into() };
            keyspace.evict_key(VOLATILE_LRU, candidate, &mut log, &mut drop);
        }
        assert_eq!((candidates.len(), evicted), (1, 1));
        assert!(!keyspace.evict(VOLATILE_LRU, 64, |_| 0, drop));
    }

    #[test]
    fn each_sample_gives_up_the_best_of_each_64_keys_and_at_least_one() {
        let keyspace = Keyspace::new(Arc::new(Config::new()));
        let policy = EvictionPolicy { volatile: false, ..VOLATILE_LRU };
        set(&keyspace, b"alone", None);
        assert_eq!(keyspace.candidates(policy, 320).len(), 1);
        (0..9999).for_each(|number: u32| set(&keyspace, &number.to_le_bytes(), None));
        let found = keyspace.candidates(policy, 3200).len();
        assert!((50..55).contains(&found), "{found}");
    }

    #[test]
    fn of_keys_that_are_used_equally_often_the_one_that_was_not_used_for_longest_goes_first() {
        let at = |minute| Usage::Frequency {
            quarter: minute * QUARTERS,
            log_factor: 0,
            decay_minutes: 0,
        };
        let used = |times, minute| {
            let word = UsageWord::from(at(0).first());
            (1..times).for_each(|_| at(0).mark(&word));
            at(minute).mark(&word);
            word.load()
        };
        let score = |word| score(EvictionOrder::Lfu, at(9), word, None);
        assert!(score(used(1, 8)) > score(used(2, 1)));
        assert!(score(used(2, 1)) > score(used(2, 5)));
    }

    #[test]
    fn of_equal_keys_any_may_go() {
        let keyspace = Keyspace::new(Arc::new(Config::new()));
        let policy = EvictionPolicy { volatile: false, order: EvictionOrder::Lfu };
        [b"one", b"two"].into_iter().for_each(|key| set(&keyspace, key, None));
        let first = || keyspace.candidates(policy, SHARDS).remove(0).key;
        let one = first();
        assert!((0..200).any(|_| first() != one));
    }
}
