//! Which clients have read which keys, for `watchers::tracking`: keys of all databases, each with the ids of
//! the clients that may cache it.
//!
//! When a key changes, it is taken out and its readers are notified; a client that reads it again is added
//! again. Clients that have gone are not searched for: their ids go when their keys do, or with the whole
//! table when the last client stops tracking.
//!
//! The table is divided into [`STRIPES`], each behind a lock, so that clients that use different keys rarely
//! contend. There are many stripes, so each stays small: a random key is found by walking through its stripe,
//! and no growth is noticeable. A stripe is locked for one operation, during which nothing else is locked.
//!
//! Invariants ([`Readers::check`]): a key is in the stripe that its hash picks; its readers ascend and
//! are not empty; the counts are those of the stripes.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::key::HashedKey;
use super::memory::allocated;
use crate::text::ensure;

/// The number of parts of the table.
const STRIPES: usize = 1024;

/// The keys of a stripe, each with the ids of its readers in ascending order.
pub(super) type Stripe = HashMap<Box<[u8]>, Vec<u64>>;

/// The table of keys and their readers.
pub struct Readers {
    stripes: Box<[Mutex<Stripe>]>,
    keys: AtomicUsize,
    entries: AtomicUsize,
    /// The memory that the names of the keys take.
    name_bytes: AtomicUsize,
}

impl Default for Readers {
    fn default() -> Readers {
        let stripes = (0..STRIPES).map(|_| Mutex::default()).collect();
        let [keys, entries, name_bytes] = [(); 3].map(|()| AtomicUsize::new(0));
        Readers { stripes, keys, entries, name_bytes }
    }
}

impl Readers {
    /// Adds the client to the readers of the key. The caller has locked the key's shard, so that the next
    /// writer of the key finds the client here.
    pub fn add(&self, key: &[u8], client: u64) {
        let mut stripe = self.stripe(HashedKey::new(key).shard());
        if let Some(readers) = stripe.get_mut(key) {
            if let Err(place) = readers.binary_search(&client) {
                readers.insert(place, client);
                self.entries.fetch_add(1, Relaxed);
            }
        } else {
            stripe.insert(key.into(), vec![client]);
            self.keys.fetch_add(1, Relaxed);
            self.entries.fetch_add(1, Relaxed);
            self.name_bytes.fetch_add(allocated(key.len()), Relaxed);
        }
    }

    /// Removes the key and returns its readers.
    pub fn take(&self, key: &[u8]) -> Vec<u64> {
        let mut stripe = self.stripe(HashedKey::new(key).shard());
        self.remove(&mut stripe, key).unwrap_or_default()
    }

    /// Removes a random key and returns it with its readers; `None` if there are no keys.
    pub fn take_random(&self) -> Option<(Vec<u8>, Vec<u64>)> {
        let random = RandomState::new().hash_one(0u8) as usize;
        (0..STRIPES).find_map(|step| {
            let mut stripe = self.stripe(random.wrapping_add(step));
            let place = (random / STRIPES).checked_rem(stripe.len())?;
            let key = stripe.keys().nth(place)?.to_vec();
            let readers = self.remove(&mut stripe, &key)?;
            Some((key, readers))
        })
    }

    /// Removes everything and returns it, because freeing it may take long.
    pub(super) fn take_all(&self) -> Vec<Stripe> {
        let take = |stripe: &Mutex<Stripe>| {
            let mut stripe = lock(stripe);
            self.keys.fetch_sub(stripe.len(), Relaxed);
            self.entries.fetch_sub(stripe.values().map(Vec::len).sum(), Relaxed);
            self.name_bytes.fetch_sub(name_bytes(&stripe), Relaxed);
            std::mem::take(&mut *stripe)
        };
        self.stripes.iter().map(take).filter(|taken| !taken.is_empty()).collect()
    }

    /// Counts while the stripe is locked, as everything here does, so that [`Readers::check`] can compare.
    fn remove(&self, stripe: &mut Stripe, key: &[u8]) -> Option<Vec<u64>> {
        let readers = stripe.remove(key)?;
        self.keys.fetch_sub(1, Relaxed);
        self.entries.fetch_sub(readers.len(), Relaxed);
        self.name_bytes.fetch_sub(allocated(key.len()), Relaxed);
        Some(readers)
    }

    /// The number of keys.
    pub fn keys(&self) -> usize {
        self.keys.load(Relaxed)
    }

    /// The number of pairs of a key and a reader.
    pub fn entries(&self) -> usize {
        self.entries.load(Relaxed)
    }

    /// The memory that the table takes, in bytes. The maps and lists are estimated by the numbers of keys and
    /// of pairs.
    pub fn memory_bytes(&self) -> usize {
        let key = size_of::<(Box<[u8]>, Vec<u64>)>() + 1 + allocated(size_of::<u64>());
        let lists = self.keys() * key + self.entries() * size_of::<u64>();
        lists + self.name_bytes.load(Relaxed) + STRIPES * size_of::<Mutex<Stripe>>()
    }

    /// Checks the invariants, with all stripes locked.
    ///
    /// # Errors
    /// A sentence about what is wrong.
    pub fn check(&self) -> Result<(), String> {
        let stripes: Vec<MutexGuard<Stripe>> = self.stripes.iter().map(lock).collect();
        for (index, stripe) in stripes.iter().enumerate() {
            for (key, readers) in &**stripe {
                let (home, name) = (HashedKey::new(key).shard() % STRIPES, key.escape_ascii());
                ensure!(home == index, "read key {name} is in stripe {index}, not {home}");
                let ascends = readers.is_sorted_by(|one, next| one < next) && !readers.is_empty();
                ensure!(ascends, "read key {name} has the readers {readers:?}");
            }
        }
        let keys: usize = stripes.iter().map(|stripe| stripe.len()).sum();
        ensure!(keys == self.keys(), "{keys} keys were read, counted: {}", self.keys());
        let readers = stripes.iter().flat_map(|stripe| stripe.values());
        let (entries, counted) = (readers.map(Vec::len).sum::<usize>(), self.entries());
        ensure!(entries == counted, "keys have {entries} readers, counted: {counted}");
        let names: usize = stripes.iter().map(|stripe| name_bytes(stripe)).sum();
        let counted = self.name_bytes.load(Relaxed);
        ensure!(names == counted, "names take {names} bytes, counted: {counted}");
        Ok(())
    }

    fn stripe(&self, number: usize) -> MutexGuard<'_, Stripe> {
        lock(&self.stripes[number % STRIPES])
    }
}

fn name_bytes(stripe: &Stripe) -> usize {
    stripe.keys().map(|key| allocated(key.len())).sum()
}

fn lock(stripe: &Mutex<Stripe>) -> MutexGuard<'_, Stripe> {
    stripe.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks, and returns the numbers of keys and of pairs.
    fn counts(readers: &Readers) -> (usize, usize) {
        assert_eq!(readers.check(), Ok(()));
        (readers.keys(), readers.entries())
    }

    #[test]
    fn a_client_is_added_once_per_key_and_removed_with_the_key() {
        let readers = Readers::default();
        for (key, client) in [("a", 7), ("a", 3), ("a", 7), ("a", 5), ("b", 7)] {
            readers.add(key.as_bytes(), client);
        }
        assert_eq!(counts(&readers), (2, 4));
        assert_eq!(readers.take(b"a"), [3, 5, 7]);
        assert_eq!(readers.take(b"a"), []);
        assert_eq!(counts(&readers), (1, 1));
    }

    #[test]
    fn taking_random_keys_takes_every_key_once() {
        let readers = Readers::default();
        let mut all: Vec<Vec<u8>> = (0..100).map(|n| format!("key {n}").into_bytes()).collect();
        all.iter().for_each(|key| readers.add(key, 1));
        let mut taken: Vec<Vec<u8>> = Vec::new();
        while let Some((key, clients)) = readers.take_random() {
            assert_eq!(clients, [1]);
            taken.push(key);
        }
        assert_ne!(taken, all, "the order is random");
        all.sort();
        taken.sort();
        assert_eq!((taken, counts(&readers)), (all, (0, 0)));
    }

    #[test]
    fn take_all_leaves_nothing() {
        let readers = Readers::default();
        (0..10u8).for_each(|n| readers.add(&[n], n.into()));
        let taken = readers.take_all();
        assert_eq!(taken.iter().map(HashMap::len).sum::<usize>(), 10);
        assert_eq!((counts(&readers), readers.take_random()), ((0, 0), None));
    }
}
