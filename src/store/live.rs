//! A hash as a reader sees it: without the fields that have expired.
//!
//! Readers cannot remove anything, so they skip expired fields until a writer or the sweeper removes them.
//! For a hash without expired fields, which is nearly every hash, that costs a comparison with its earliest
//! expiry, if it has one.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

use super::field::Field;
use super::hash::HashRef;

/// A hash, as seen at one moment.
#[derive(Clone, Copy)]
pub struct LiveHash<'a> {
    hash: HashRef<'a>,
    now_ms: i64,
    expired: usize,
}

impl<'a> LiveHash<'a> {
    pub(super) fn new(hash: HashRef<'a>, now_ms: i64) -> LiveHash<'a> {
        LiveHash { hash, now_ms, expired: hash.count_expired(now_ms) }
    }

    pub fn len(self) -> usize {
        self.hash.len() - self.expired
    }

    /// About how many bytes a copy takes.
    pub fn copy_bytes(self) -> usize {
        self.hash.copy_bytes()
    }

    /// Whether there are no fields.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The field with its value and expiry.
    pub fn field(self, name: &[u8]) -> Option<Field<'a>> {
        self.hash.get(name).filter(|field| self.is_live(field))
    }

    pub fn get(self, name: &[u8]) -> Option<&'a [u8]> {
        self.field(name).map(|field| field.value)
    }

    pub fn contains(self, name: &[u8]) -> bool {
        self.field(name).is_some()
    }

    /// The number of fields, with those that have expired and are not removed yet.
    pub fn len_with_expired(self) -> usize {
        self.hash.len()
    }

    /// Whether this field has expired and is not removed yet.
    pub fn has_expired(self, name: &[u8]) -> bool {
        self.expired > 0 && self.hash.get(name).is_some_and(|field| !self.is_live(&field))
    }

    /// All fields, in the order of [`HashRef::iter`].
    pub fn iter(self) -> impl Iterator<Item = Field<'a>> {
        self.hash.iter().filter(move |field| self.is_live(field))
    }

    /// Visits about `count` fields, as [`HashRef::scan`] does.
    pub fn scan(self, cursor: u64, count: usize, mut visit: impl FnMut(Field<'a>)) -> u64 {
        self.hash.scan(cursor, count, |field| {
            if self.is_live(&field) {
                visit(field);
            }
        })
    }

    /// `count` different fields at random, or all if there are not more.
    pub fn choose(self, count: usize) -> Vec<Field<'a>> {
        if count >= self.len() {
            return self.iter().collect();
        }
        let mut random = Random::new();
        // Drawing numbers is quick as long as most of them hit a live field that is not chosen yet. Otherwise
        // all live fields are collected, which costs no more than the reply; packed ones are few anyway.
        if self.hash.is_packed() || 2 * count > self.len() || self.is_mostly_expired() {
            let mut all: Vec<Field> = self.iter().collect();
            for place in 0..count {
                all.swap(place, place + random.below(self.len() - place));
            }
            all.truncate(count);
            return all;
        }
        let mut numbers = HashSet::with_capacity(count);
        let mut chosen = Vec::with_capacity(count);
        while chosen.len() < count {
            let number = random.below(self.hash.len());
            let field = self.hash.nth(number).filter(|field| self.is_live(field));
            chosen.extend(field.filter(|_| numbers.insert(number)));
        }
        chosen
    }

    /// Visits `count` fields at random, which may repeat.
    ///
    /// # Errors
    /// The first error of a visit. It is the last visit.
    pub fn choose_with_repetition<E>(
        self,
        count: u64,
        mut visit: impl FnMut(Field<'a>) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.is_empty() {
            return Ok(());
        }
        let mut random = Random::new();
        let collects = count > 1 && self.hash.is_packed() || self.is_mostly_expired();
        let all: Vec<Field> = if collects { self.iter().collect() } else { Vec::new() };
        for _ in 0..count {
            visit(match all.len() {
                0 => self.any(&mut random),
                live => all[random.below(live)],
            })?;
        }
        Ok(())
    }

    /// A random field. There must be a live one.
    fn any(self, random: &mut Random) -> Field<'a> {
        loop {
            let field = self.hash.nth(random.below(self.hash.len()));
            if let Some(field) = field.filter(|field| self.is_live(field)) {
                return field;
            }
        }
    }

    fn is_live(self, field: &Field) -> bool {
        self.expired == 0 || !field.is_expired(self.now_ms)
    }

    fn is_mostly_expired(self) -> bool {
        2 * self.expired > self.hash.len()
    }
}

/// Random numbers: the hashes of 0, 1, 2, ... under a random key, the best that std offers.
struct Random {
    key: RandomState,
    drawn: u64,
}

impl Random {
    fn new() -> Random {
        Random { key: RandomState::new(), drawn: 0 }
    }

    /// A number below the bound. (The bias is at most bound / 2^64.)
    fn below(&mut self, bound: usize) -> usize {
        self.drawn += 1;
        let wide = u128::from(self.key.hash_one(self.drawn)) * bound as u128;
        (wide >> 64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Hash, PackedLimits};
    use super::*;
    use std::collections::BTreeMap;

    /// A hash in either form in which every third field has expired at 1000, and the names of the others.
    fn third_expired(fields: usize, packed: bool) -> (Hash, HashSet<Vec<u8>>) {
        let entries = if packed { usize::MAX } else { 0 };
        let mut hash = Hash::new();
        for n in 0..fields {
            let name = n.to_string();
            hash.set(name.as_bytes(), b"v", PackedLimits { entries, value_bytes: 64 });
            let expires_at_ms = [Some(999), Some(1000), None][n % 3];
            hash.set_expires_at_ms(name.as_bytes(), expires_at_ms);
        }
        let live = (0..fields).filter(|n| n % 3 != 0).map(|n| n.to_string().into_bytes());
        (hash, live.collect())
    }

    #[test]
    fn no_method_shows_an_expired_field() {
        for packed in [true, false] {
            let (hash, live) = third_expired(100, packed);
            let view = LiveHash::new(hash.view(), 1000);
            assert_eq!(view.len(), live.len());
            let names = |fields: Vec<Field>| -> HashSet<Vec<u8>> {
                fields.iter().map(|field| field.name.to_vec()).collect()
            };
            assert_eq!(names(view.iter().collect()), live);
            assert_eq!(names(view.choose(1000)), live);
            assert!(!view.contains(b"0") && view.contains(b"1") && view.contains(b"2"));
            let mut scanned = HashSet::new();
            let mut cursor = 0;
            loop {
                cursor = view.scan(cursor, 7, |field| assert!(scanned.insert(field.name.to_vec())));
                if cursor == 0 {
                    break;
                }
            }
            assert_eq!(scanned, live);
        }
    }

    #[test]
    fn a_random_choice_takes_every_live_field_sooner_or_later_and_no_other() {
        for (packed, now_ms, count) in [
            (true, 1000, 1),
            (false, 1000, 10),
            (false, 1000, 60),
            (false, 1001, 20),
            (true, 1001, 9),
        ] {
            let (hash, _) = third_expired(99, packed);
            let view = LiveHash::new(hash.view(), now_ms);
            let live: HashSet<&[u8]> = view.iter().map(|field| field.name).collect();
            let mut met = BTreeMap::new();
            for _ in 0..200 {
                let chosen = view.choose(count);
                let names: HashSet<&[u8]> = chosen.iter().map(|field| field.name).collect();
                assert_eq!((chosen.len(), names.len()), (count, count), "all different");
                assert!(names.is_subset(&live));
                let visited = view.choose_with_repetition(20, |field| {
                    assert!(live.contains(field.name));
                    *met.entry(field.name).or_insert(0) += 1;
                    Ok::<(), ()>(())
                });
                assert_eq!(visited, Ok(()));
                let mut visits = 0;
                let stopped = view.choose_with_repetition(u64::MAX, |_| {
                    visits += 1;
                    if visits < 3 { Ok(()) } else { Err("enough") }
                });
                assert_eq!((stopped, visits), (Err("enough"), 3));
            }
            // 4,000 drawn from at most 66: about 60 of each.
            assert_eq!(met.len(), live.len());
            assert!(met.values().all(|&times| times < 400), "{met:?}");
        }
    }
}
