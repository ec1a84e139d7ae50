//! A hash as a reader sees it at one moment: without the fields that have expired by then.
//!
//! Readers cannot remove anything, so they must look past what has expired until a writer or the
//! sweeper does. For a hash that nothing in has expired, which is nearly every one, this costs a look
//! at its earliest deadline, if it has any, and no more.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

use super::hash::{Field, Hash};

/// See the module's opening words.
#[derive(Clone, Copy)]
pub struct LiveHash<'a> {
    hash: &'a Hash,
    now_ms: i64,
    expired: usize,
}

impl<'a> LiveHash<'a> {
    pub(super) fn new(hash: &'a Hash, now_ms: i64) -> LiveHash<'a> {
        LiveHash { hash, now_ms, expired: hash.count_expired(now_ms) }
    }

    /// The number of fields.
    pub fn len(self) -> usize {
        self.hash.len() - self.expired
    }

    /// Whether there is no field. (A key whose hash is such is not there either.)
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// A field with its value and deadline.
    pub fn field(self, name: &[u8]) -> Option<Field<'a>> {
        self.hash.get(name).filter(|field| self.is_live(field))
    }

    /// The value of a field.
    pub fn get(self, name: &[u8]) -> Option<&'a [u8]> {
        self.field(name).map(|field| field.value)
    }

    /// Whether the field is there.
    pub fn contains(self, name: &[u8]) -> bool {
        self.field(name).is_some()
    }

    /// All fields, in the order of [`Hash::iter`].
    pub fn iter(self) -> impl Iterator<Item = Field<'a>> {
        self.hash.iter().filter(move |field| self.is_live(field))
    }

    /// Visits about `count` fields, as [`Hash::scan`] does.
    pub fn scan(self, cursor: u64, count: usize, mut visit: impl FnMut(Field)) -> u64 {
        self.hash.scan(cursor, count, |field| {
            if self.is_live(&field) {
                visit(field);
            }
        })
    }

    /// So many fields by lot, or all if there are not so many; none twice.
    pub fn choose(self, count: usize) -> Vec<Field<'a>> {
        if count >= self.len() {
            return self.iter().collect();
        }
        let mut random = Random::new();
        // Where it takes few attempts to meet a field that is live and not chosen yet, that is tried;
        // otherwise a walk through all costs no more than the reply.
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

    /// Shows so many fields by lot, each chosen anew from all.
    pub fn choose_again_and_again(self, count: u64, mut visit: impl FnMut(Field<'a>)) {
        if self.is_empty() {
            return;
        }
        let mut random = Random::new();
        let all: Vec<Field> = match count > 1 && self.hash.is_packed() || self.is_mostly_expired() {
            true => self.iter().collect(),
            false => Vec::new(),
        };
        for _ in 0..count {
            visit(match all.len() {
                0 => self.any(&mut random),
                live => all[random.below(live)],
            });
        }
    }

    /// One field by lot, of at least one.
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

/// Numbers by lot: the hashes of 0, 1, 2, ... under a random key, the best that std offers.
struct Random {
    key: RandomState,
    drawn: u64,
}

impl Random {
    fn new() -> Random {
        Random { key: RandomState::new(), drawn: 0 }
    }

    /// A number below the bound. (It favours none by more than one in 2^64 / bound.)
    fn below(&mut self, bound: usize) -> usize {
        self.drawn += 1;
        let wide = u128::from(self.key.hash_one(self.drawn)) * bound as u128;
        (wide >> 64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::super::PackedLimits;
    use super::*;
    use std::collections::BTreeMap;

    /// A hash in either form, in which every third of the fields has expired at 1000, and the names of
    /// the others.
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
    fn what_has_expired_is_seen_by_nothing() {
        for packed in [true, false] {
            let (hash, live) = third_expired(100, packed);
            let seen = LiveHash::new(&hash, 1000);
            assert_eq!(seen.len(), live.len());
            let names = |fields: Vec<Field>| -> HashSet<Vec<u8>> {
                fields.iter().map(|field| field.name.to_vec()).collect()
            };
            assert_eq!(names(seen.iter().collect()), live);
            assert_eq!(names(seen.choose(1000)), live);
            assert!(!seen.contains(b"0") && seen.contains(b"1") && seen.contains(b"2"));
            let mut scanned = HashSet::new();
            let mut cursor = 0;
            loop {
                cursor = seen.scan(cursor, 7, |field| assert!(scanned.insert(field.name.to_vec())));
                if cursor == 0 {
                    break;
                }
            }
            assert_eq!(scanned, live);
        }
    }

    #[test]
    fn a_choice_is_of_live_fields_and_every_one_has_its_chance() {
        for (packed, now_ms, count) in [
            (true, 1000, 1),
            (false, 1000, 10),
            (false, 1000, 60),
            (false, 1001, 20),
            (true, 1001, 9),
        ] {
            let (hash, _) = third_expired(99, packed);
            let seen = LiveHash::new(&hash, now_ms);
            let live: HashSet<&[u8]> = seen.iter().map(|field| field.name).collect();
            let mut met = BTreeMap::new();
            for _ in 0..200 {
                let chosen = seen.choose(count);
                let names: HashSet<&[u8]> = chosen.iter().map(|field| field.name).collect();
                assert_eq!((chosen.len(), names.len()), (count, count), "none twice");
                assert!(names.is_subset(&live));
                seen.choose_again_and_again(20, |field| {
                    assert!(live.contains(field.name));
                    *met.entry(field.name).or_insert(0) += 1;
                });
            }
            // 4,000 drawn from at most 66: about 60 of each, and never none.
            assert_eq!(met.len(), live.len());
            assert!(met.values().all(|&times| times < 400), "{met:?}");
        }
    }
}
