//! A model test of the keyspace: random operations on it and on plain `BTreeMap`s must agree, on a clock
//! that the test moves.
//!
//! The model holds live keys and fields only, so the test sees whether the keyspace hides what it has not
//! removed yet. It uses few keys in few shards of few databases, so that operations collide.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::iter::once;
use std::sync::Arc;

use super::key::HashedKey;
use super::{
    Access, Cause, EntryRef, Hash, Keyspace, LockSet, ReadView, Removal, Shards, Value, ValueRef,
    Watcher, WriteView, WrongType,
};
use crate::config::Config;
use crate::rng::Rng;

const DATABASES: usize = 3;
const RUNS: usize = 12;
const STEPS: usize = 1500;
/// The invariants are checked after this many steps.
const CHECK_EVERY: usize = 25;

thread_local! {
    static NOW_MS: Cell<i64> = const { Cell::new(0) };
}

/// Bytes for names and values. They are often equal, empty or too long to be stored in place.
fn random_bytes(random: &mut Rng) -> Vec<u8> {
    let length = [0, 1, 1, 5, 38, 39, 100][random.below(7)];
    vec![b'a' + random.below(3) as u8; length]
}

fn expiry(random: &mut Rng) -> Option<i64> {
    let after_ms = [0, 1, 5, 30, 1000][random.below(5)];
    one_in(random, 2).then_some(NOW_MS.get() + after_ms)
}

fn one_in(random: &mut Rng, times: usize) -> bool {
    random.below(times) == 0
}

/// A database and a key.
type Place = (usize, Vec<u8>);
/// Names, and values with their expiries.
type Fields = BTreeMap<Vec<u8>, (Vec<u8>, Option<i64>)>;

#[derive(Clone, PartialEq, Debug)]
enum Content {
    String(Vec<u8>),
    Hash(Fields),
}

#[derive(Clone)]
struct Item {
    content: Content,
    expires_at_ms: Option<i64>,
}

impl Item {
    fn new(content: Content, expires_at_ms: Option<i64>) -> Item {
        Item { content, expires_at_ms }
    }
}

/// A client that watches keys, and what the model knows about it.
#[derive(Default)]
struct Client {
    watcher: Arc<Watcher>,
    places: Vec<Place>,
    /// A watched key has changed.
    changed: bool,
}

struct Model {
    random: Rng,
    items: BTreeMap<Place, Item>,
    clients: Vec<Client>,
    /// The LSN of the last record.
    lsn: u64,
    /// By shard, the LSN of its last record.
    logged: BTreeMap<usize, u64>,
}

impl Model {
    /// The key has changed.
    fn signal(&mut self, place: &Place) {
        for client in self.clients.iter_mut().filter(|client| client.places.contains(place)) {
            client.changed = true;
        }
    }

    fn set(&mut self, place: Place, item: Item) {
        self.signal(&place);
        self.items.insert(place, item);
    }

    fn remove(&mut self, place: &Place) -> Option<Item> {
        let item = self.items.remove(place)?;
        self.signal(place);
        Some(item)
    }

    /// Moves the clock and drops the keys that expire. Fields stay until they are removed.
    fn advance(&mut self, ms: i64) {
        NOW_MS.set(NOW_MS.get() + ms);
        for (place, item) in self.items.clone() {
            if has_passed(item.expires_at_ms) {
                self.remove(&place);
            }
        }
    }

    /// The log records a change in these shards.
    fn log(&mut self, shards: impl IntoIterator<Item = usize>) -> u64 {
        self.lsn += 1;
        self.logged.extend(shards.into_iter().map(|shard| (shard, self.lsn)));
        self.lsn
    }

    /// Does something to a key, or moves or copies it to another place, through a view that has both keys.
    fn write(&mut self, view: &mut WriteView, key: &[u8], other: &[u8]) {
        let place = (view.db, key.to_vec());
        let (bytes, expires_at_ms) = (random_bytes(&mut self.random), expiry(&mut self.random));
        assert_eq!(view.contains(key), self.items.contains_key(&place), "{place:?}");
        match self.random.below(12) {
            0 | 1 => {
                view.insert_string(key, &bytes, expires_at_ms);
                self.set(place, Item::new(Content::String(bytes), expires_at_ms));
            }
            2 => {
                view.insert(key, Value::String(bytes.clone()), expires_at_ms);
                self.set(place, Item::new(Content::String(bytes), expires_at_ms));
            }
            3 => {
                let (mut hash, mut fields) = (Hash::new(), Fields::new());
                for _ in 0..=self.random.below(6) {
                    let (name, value) =
                        (random_bytes(&mut self.random), random_bytes(&mut self.random));
                    let expires_at_ms = expiry(&mut self.random);
                    hash.set_until(&name, &value, expires_at_ms, view.packed_limits());
                    fields.insert(name, (value, expires_at_ms));
                }
                view.insert(key, Value::Hash(hash), expires_at_ms);
                self.set(place, Item::new(Content::Hash(fields), expires_at_ms));
            }
            4 | 5 => self.append(view, &place, &bytes),
            6 | 7 => self.set_field(view, &place, bytes, expires_at_ms),
            8 => self.remove_field(view, &place, &bytes),
            9 => assert_eq!(view.remove(key), self.remove(&place).is_some()),
            10 => {
                if view.contains(key) {
                    view.set_expires_at_ms(key, expires_at_ms);
                    self.signal(&place);
                }
                self.items.entry(place).and_modify(|item| item.expires_at_ms = expires_at_ms);
            }
            _ => {
                let target = (self.random.below(DATABASES), other.to_vec());
                let moves = one_in(&mut self.random, 2);
                if target != place {
                    let entry = view.get(key, Access::Use).map(EntryRef::to_owned);
                    let entry = if moves { view.take(key) } else { entry };
                    let copied = self.items.get(&place).cloned();
                    let item = if moves { self.remove(&place) } else { copied };
                    assert_eq!(entry.is_some(), item.is_some());
                    if let (Some(entry), Some(item)) = (entry, item) {
                        let db = std::mem::replace(&mut view.db, target.0);
                        view.insert_entry(other, entry);
                        view.db = db;
                        self.set(target, item);
                    }
                }
            }
        }
    }

    /// Changes a string in place, or only looks at it.
    fn append(&mut self, view: &mut WriteView, place: &Place, bytes: &[u8]) {
        let changes = !one_in(&mut self.random, 4);
        let content = self.items.get_mut(place).map(|item| &mut item.content);
        let expected = match content {
            Some(Content::String(expected)) => expected,
            Some(Content::Hash(_)) => {
                assert_eq!(view.string_mut(&place.1).err(), Some(WrongType));
                return;
            }
            None => {
                assert!(view.string_mut(&place.1).is_ok_and(|found| found.is_none()));
                return;
            }
        };
        let found = view.string_mut(&place.1).expect("it is a string");
        let mut found = found.expect("it exists");
        assert_eq!(*found, **expected);
        if changes {
            found.in_place().extend(bytes);
            expected.extend(bytes);
            drop(found);
            view.finish_write(true);
            self.signal(place);
        }
    }

    fn set_field(
        &mut self,
        view: &mut WriteView,
        place: &Place,
        value: Vec<u8>,
        expires_at_ms: Option<i64>,
    ) {
        let (name, limits) = (random_bytes(&mut self.random), view.packed_limits());
        let set = |hash: &mut Hash| hash.set_until(&name, &value, expires_at_ms, limits);
        let is_new = view.edit_or_make_hash(&place.1, set);
        let empty = || Item::new(Content::Hash(Fields::new()), None);
        match &mut self.items.entry(place.clone()).or_insert_with(empty).content {
            Content::String(_) => assert_eq!(is_new, Err(WrongType)),
            Content::Hash(fields) => {
                let old = fields.insert(name, (value, expires_at_ms));
                assert_eq!(is_new, Ok(old.is_none()));
                view.finish_write(true);
                self.signal(place);
            }
        }
    }

    fn remove_field(&mut self, view: &mut WriteView, place: &Place, name: &[u8]) {
        let removed = view.edit_hash(&place.1, |hash| hash.remove(name));
        match self.items.get_mut(place).map(|item| &mut item.content) {
            None => assert_eq!(removed, Ok(None)),
            Some(Content::String(_)) => assert_eq!(removed, Err(WrongType)),
            Some(Content::Hash(fields)) => {
                let existed = fields.remove(name).is_some();
                assert_eq!(removed, Ok(Some(existed)));
                let is_empty = fields.is_empty();
                if existed {
                    view.finish_write(true);
                    self.signal(place);
                }
                if is_empty {
                    self.items.remove(place);
                }
            }
        }
    }

    /// Compares what a view shows of a key.
    fn compare(&self, view: &ReadView, key: &[u8]) {
        let item = self.items.get(&(view.db, key.to_vec()));
        let found = view.get(key, Access::NoTouch);
        assert_eq!(found.is_some(), item.is_some(), "{} in {}", key.escape_ascii(), view.db);
        let Some(item) = item else { return };
        assert_eq!(found.and_then(EntryRef::expires_at_ms), item.expires_at_ms);
        match &item.content {
            Content::String(bytes) => {
                assert_eq!(view.string(key, Access::Use), Ok(Some(bytes.as_slice())));
                assert_eq!(view.hash(key).err(), Some(WrongType));
            }
            Content::Hash(fields) => {
                assert_eq!(view.string(key, Access::Use), Err(WrongType));
                let Ok(Some(hash)) = view.hash(key) else { panic!("{key:?} is no hash") };
                let found = hash.iter().map(|field| {
                    (field.name.to_vec(), (field.value.to_vec(), field.expires_at_ms()))
                });
                let mut live = fields.clone();
                live.retain(|_, (_, expires_at_ms)| !has_passed(*expires_at_ms));
                assert_eq!(found.collect::<Fields>(), live);
                assert_eq!((hash.len(), hash.len_with_expired()), (live.len(), fields.len()));
                assert!(fields.keys().all(|name| hash.contains(name) == live.contains_key(name)));
                assert!(
                    fields.keys().all(|name| hash.has_expired(name) != live.contains_key(name))
                );
            }
        }
    }

    /// What the sweeper removes has expired: keys, which the model has dropped already, and fields.
    fn sweep(&mut self, expired: &[Removal]) {
        for Removal { db, key, cause } in expired {
            let place = (*db, key.to_vec());
            match (cause, self.items.get_mut(&place).map(|item| &mut item.content)) {
                (_, None) => {}
                (Cause::FieldsExpired(names), Some(Content::Hash(fields))) => {
                    let removed = names.iter().map(|name| fields.remove(&**name));
                    assert!(
                        removed.flatten().filter(|(_, ms)| has_passed(*ms)).count() == names.len()
                    );
                    self.signal(&place);
                }
                (Cause::LastFieldsExpired(count), Some(Content::Hash(fields))) => {
                    assert!(fields.values().all(|(_, ms)| has_passed(*ms)));
                    assert_eq!(fields.len(), *count);
                    self.remove(&place);
                }
                (_, Some(content)) => panic!("{db}/{key:?} holds {content:?} and is swept"),
            }
        }
    }
}

fn has_passed(expires_at_ms: Option<i64>) -> bool {
    expires_at_ms.is_some_and(|ms| ms < NOW_MS.get())
}

/// Names of keys: four in each of three shards. Every other one is too long to be stored in place.
fn keys_that_share_shards() -> Vec<Vec<u8>> {
    let mut shards = BTreeMap::<usize, Vec<Vec<u8>>>::new();
    for number in 0.. {
        let long = if number % 2 == 0 { "a name too long to be stored in place: " } else { "" };
        let name = format!("{long}{number}").into_bytes();
        shards.entry(HashedKey::new(&name).shard()).or_default().push(name);
        if number % 1000 == 0 && shards.values().filter(|names| names.len() >= 4).count() >= 3 {
            break;
        }
    }
    let full = shards.into_values().filter(|names| names.len() >= 4).take(3);
    full.flat_map(|names| names.into_iter().take(4)).collect()
}

struct Run {
    keyspace: Keyspace,
    keys: Vec<Vec<u8>>,
    model: Model,
}

impl Run {
    fn new(random: Rng) -> Run {
        NOW_MS.set(1000);
        let config = Config::new();
        config.set(&[(b"hash-max-listpack-entries", b"3")]).expect("a setting");
        let mut keyspace = Keyspace::new(Arc::new(config));
        keyspace.env.clock = || NOW_MS.get();
        let clients = (0..3).map(|_| Client::default()).collect();
        let (items, logged) = (BTreeMap::new(), BTreeMap::new());
        let model = Model { random, items, clients, lsn: 0, logged };
        Run { keyspace, keys: keys_that_share_shards(), model }
    }

    fn key(&mut self) -> Vec<u8> {
        self.keys[self.model.random.below(self.keys.len())].clone()
    }

    fn step(&mut self) {
        let db = self.model.random.below(DATABASES);
        let (key, other) = (self.key(), self.key());
        let shards = [&key, &other].map(|key| HashedKey::new(key).shard());
        match self.model.random.below(100) {
            0..35 => {
                let mut view = self.keyspace.write(db, once(&*key));
                self.model.write(&mut view, &key, &key);
                view.logged(self.model.log([shards[0]]));
            }
            35..50 => {
                let mut view = self.keyspace.write(db, [&*key, &other].into_iter());
                self.model.write(&mut view, &key, &other);
                view.logged(self.model.log(shards));
            }
            50..65 => {
                let view = self.keyspace.read(db, [&*key, &other].into_iter());
                [&key, &other].into_iter().for_each(|key| self.model.compare(&view, key));
                let logged = shards.map(|shard| self.model.logged.get(&shard).copied());
                assert_eq!(Some(view.last_lsn()), logged.into_iter().max().flatten().or(Some(0)));
            }
            65..72 => {
                let ms = [1, 1, 2, 10, 100][self.model.random.below(5)];
                self.model.advance(ms);
            }
            72..74 => self.sweep(),
            74 => {
                let mut all = self.keyspace.write_all(db);
                let every = one_in(&mut self.model.random, 3);
                if every {
                    all.flush_all();
                } else {
                    all.flush();
                }
                let places = self.model.items.keys().cloned();
                let gone: Vec<Place> = places.filter(|(of, _)| every || *of == db).collect();
                gone.iter().for_each(|place| _ = self.model.remove(place));
            }
            75 => self.swap(db, (db + 1) % DATABASES),
            76..83 => self.watch((db, key)),
            83..90 => self.end_watches(),
            _ => self.transact(db, &key, &other),
        }
    }

    /// A transaction in which a client changes and reads keys, and learns whether its watches are raised.
    fn transact(&mut self, db: usize, key: &[u8], other: &[u8]) {
        let client = self.model.random.below(self.model.clients.len());
        let places = self.model.clients[client].places.clone();
        let mut locks = LockSet::default();
        locks.read(places.iter().map(|(_, key)| &**key));
        locks.write([key, other].into_iter());
        match self.model.random.below(10) {
            0 => locks.read_all(),
            1 => locks.write_all(),
            _ => {}
        }
        let mut transaction = self.keyspace.transact(locks);
        let Client { watcher, changed, .. } = &self.model.clients[client];
        assert_eq!(transaction.finds_changed(&places, watcher), *changed, "{places:?}");
        for _ in 0..3 {
            let mut view = transaction.write(db, [key, other].into_iter());
            self.model.write(&mut view, key, other);
            drop(view);
            self.model.compare(&transaction.read(db, once(other)), other);
        }
        // All shards may be locked for writing; the test checks the LSNs of these two only.
        let lsn = self.model.log([key, other].map(|key| HashedKey::new(key).shard()));
        transaction.write(db, [key, other].into_iter()).logged(lsn);
    }

    fn watch(&mut self, place: Place) {
        let client = self.model.random.below(self.model.clients.len());
        let client = &mut self.model.clients[client];
        let is_new = self.keyspace.watch(place.0, &place.1, &client.watcher);
        if client.places.contains(&place) {
            assert!(!is_new || client.changed, "{place:?} is watched already");
            return;
        }
        assert!(is_new, "{place:?} is not watched yet");
        client.places.push(place);
    }

    fn end_watches(&mut self) {
        for client in &mut self.model.clients {
            let Client { watcher, places, .. } = std::mem::take(client);
            places.iter().for_each(|(db, key)| self.keyspace.unwatch(*db, key, &watcher));
            assert_eq!(Arc::strong_count(&watcher), 1, "no watch is left behind");
        }
    }

    fn swap(&mut self, one: usize, other: usize) {
        self.keyspace.write_all(0).swap(one, other);
        for (place, item) in std::mem::take(&mut self.model.items) {
            let (db, key) = place;
            let swapped = [(one, other), (other, one)].into_iter().find(|(from, _)| *from == db);
            match swapped {
                None => _ = self.model.items.insert((db, key), item),
                Some((_, to)) => {
                    self.model.signal(&(db, key.clone()));
                    self.model.set((to, key), item);
                }
            }
        }
    }

    /// Removes what has expired. Then the keyspace holds exactly what the model does.
    fn sweep(&mut self) {
        let Run { keyspace, model, .. } = self;
        keyspace.sweep(NOW_MS.get(), |expired| {
            model.sweep(expired);
            model.log(expired.iter().map(|expired| HashedKey::new(&expired.key).shard()))
        });
        let mut fields = BTreeMap::new();
        keyspace.read_all(0).visit_databases(|db, table| {
            for (key, entry) in table.iter() {
                let count = match entry.value {
                    ValueRef::String(_) => 1,
                    ValueRef::Hash(hash) => hash.len(),
                };
                fields.insert((db, key.to_vec()), count);
            }
        });
        let expected = model.items.iter().map(|(place, item)| {
            let count = match &item.content {
                Content::String(_) => 1,
                Content::Hash(fields) => fields.len(),
            };
            (place.clone(), count)
        });
        assert_eq!(fields, expected.collect());
    }

    /// Compares everything, and checks the invariants.
    fn check(&self) {
        assert_eq!(self.keyspace.check(), Ok(()));
        let mut found = BTreeSet::new();
        for db in 0..DATABASES {
            let all = self.keyspace.read_all(db);
            all.visit(0, |_, table| {
                let live = table.iter().filter(|(_, entry)| all.is_live(*entry));
                found.extend(live.map(|(key, _)| (db, key.to_vec())));
                true
            });
            let keys = self.keys.iter().map(Vec::as_slice);
            let view = self.keyspace.read(db, keys.clone());
            keys.for_each(|key| self.model.compare(&view, key));
        }
        assert!(found.iter().eq(self.model.items.keys()));
    }
}

#[test]
fn the_keyspace_agrees_with_a_model_of_btree_maps() {
    let mut random = Rng::of_run();
    for _ in 0..RUNS {
        let mut run = Run::new(random.fork());
        for step in 1..=STEPS {
            run.step();
            if step % CHECK_EVERY == 0 {
                run.check();
            }
        }
        run.model.advance(10_000);
        run.sweep();
        run.end_watches();
        run.check();
    }
}
