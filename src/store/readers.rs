//! Who has read which key, for `watchers::tracking`: keys of all databases, and the numbers of the clients
//! that may have them in a cache.
//!
//! A key's readers are told once that it has changed, and are forgotten then: who reads it again is entered
//! again. Clients that have gone are not looked for; their numbers go with the keys, or with the whole table
//! when nobody is left who caches.
//!
//! The table is cut into [`STRIPES`] with a lock each, so that clients that use different keys rarely meet.
//! They are many also so that each stays small: then a random key is found by walking to it, and no
//! growth is felt. A stripe's lock is held for one operation, and nothing is locked meanwhile.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::key::{BuildPassThrough, HashedKey, Key, Lookup};

/// How many parts the table has.
const STRIPES: usize = 1024;

/// The keys of a stripe, each with the clients that have read it, in ascending order.
pub(super) type Stripe = HashMap<Key, Vec<u64>, BuildPassThrough>;

/// The table.
pub struct Readers {
    stripes: Box<[Mutex<Stripe>]>,
    keys: AtomicUsize,
    entries: AtomicUsize,
}

impl Default for Readers {
    fn default() -> Readers {
        let stripes = (0..STRIPES).map(|_| Mutex::default()).collect();
        Readers { stripes, keys: AtomicUsize::new(0), entries: AtomicUsize::new(0) }
    }
}

impl Readers {
    /// Enters that the client has read the key. The caller has locked the key's shard, so that whoever
    /// changes it afterwards finds the entry.
    pub fn enter(&self, key: &[u8], client: u64) {
        let key = HashedKey::new(key);
        let mut stripe = self.stripe(key.shard());
        let found = stripe.get_mut(&key as &dyn Lookup);
        if let Some(readers) = found {
            if let Err(place) = readers.binary_search(&client) {
                readers.insert(place, client);
                self.entries.fetch_add(1, Relaxed);
            }
        } else {
            stripe.insert(Key::new(key.bytes()), vec![client]);
            self.keys.fetch_add(1, Relaxed);
            self.entries.fetch_add(1, Relaxed);
        }
    }

    /// Takes the key out; returns who has read it.
    pub fn take(&self, key: &[u8]) -> Vec<u64> {
        let key = HashedKey::new(key);
        let readers = self.stripe(key.shard()).remove(&key as &dyn Lookup);
        self.count_out(readers.as_deref());
        readers.unwrap_or_default()
    }

    /// Takes a random key out; none if there is none.
    pub fn take_random(&self) -> Option<(Vec<u8>, Vec<u64>)> {
        let random = RandomState::new().hash_one(0u8) as usize;
        (0..STRIPES).find_map(|step| {
            let mut stripe = self.stripe(random.wrapping_add(step));
            let place = (random / STRIPES).checked_rem(stripe.len())?;
            let key = stripe.keys().nth(place)?.bytes().to_vec();
            let readers = stripe.remove(&HashedKey::new(&key) as &dyn Lookup);
            self.count_out(readers.as_deref());
            Some((key, readers?))
        })
    }

    /// Takes everything out, which may take long to free.
    pub(super) fn take_all(&self) -> Vec<Stripe> {
        let take = |stripe: &Mutex<Stripe>| {
            let taken = std::mem::take(&mut *lock(stripe));
            self.keys.fetch_sub(taken.len(), Relaxed);
            self.entries.fetch_sub(taken.values().map(Vec::len).sum(), Relaxed);
            taken
        };
        self.stripes.iter().map(take).filter(|taken| !taken.is_empty()).collect()
    }

    fn count_out(&self, readers: Option<&[u64]>) {
        if let Some(readers) = readers {
            self.keys.fetch_sub(1, Relaxed);
            self.entries.fetch_sub(readers.len(), Relaxed);
        }
    }

    /// How many keys there are.
    pub fn keys(&self) -> usize {
        self.keys.load(Relaxed)
    }

    /// How many pairs of a key and a client.
    pub fn entries(&self) -> usize {
        self.entries.load(Relaxed)
    }

    fn stripe(&self, number: usize) -> MutexGuard<'_, Stripe> {
        lock(&self.stripes[number % STRIPES])
    }
}

fn lock(stripe: &Mutex<Stripe>) -> MutexGuard<'_, Stripe> {
    stripe.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(readers: &Readers) -> (usize, usize) {
        (readers.keys(), readers.entries())
    }

    #[test]
    fn a_client_is_entered_once_for_a_key_and_goes_with_it() {
        let readers = Readers::default();
        for (key, client) in [("a", 7), ("a", 3), ("a", 7), ("a", 5), ("b", 7)] {
            readers.enter(key.as_bytes(), client);
        }
        assert_eq!(counts(&readers), (2, 4));
        assert_eq!(readers.take(b"a"), [3, 5, 7]);
        assert_eq!(readers.take(b"a"), []);
        assert_eq!(counts(&readers), (1, 1));
    }

    #[test]
    fn every_key_is_found_by_chance_and_none_twice() {
        let readers = Readers::default();
        let mut all: Vec<Vec<u8>> = (0..100).map(|n| format!("key {n}").into_bytes()).collect();
        all.iter().for_each(|key| readers.enter(key, 1));
        let mut taken: Vec<Vec<u8>> = Vec::new();
        while let Some((key, clients)) = readers.take_random() {
            assert_eq!(clients, [1]);
            taken.push(key);
        }
        assert_ne!(taken, all, "in no order");
        all.sort();
        taken.sort();
        assert_eq!((taken, counts(&readers)), (all, (0, 0)));
    }

    #[test]
    fn all_is_taken_at_once() {
        let readers = Readers::default();
        (0..10u8).for_each(|n| readers.enter(&[n], n.into()));
        let taken = readers.take_all();
        assert_eq!(taken.iter().map(HashMap::len).sum::<usize>(), 10);
        assert_eq!((counts(&readers), readers.take_random()), ((0, 0), None));
    }
}
