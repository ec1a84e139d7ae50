//! The whole keyspace, for the few commands that need all of it.
//!
//! [`ReadAll`] visits one shard after the other and never locks more than one, so no client waits long for
//! it. [`WriteAll`] locks all shards, but only when it begins to change something.

use std::cell::{Cell, RefCell};

use super::SHARDS;
use super::aftermath::{Aftermath, Changes};
use super::environment::Environment;
use super::guard::Exclusive;
use super::shard::Shard;
use super::table::Table;
use super::value::EntryRef;

/// Access to all shards: the keyspace locks them, a transaction has locked them already.
pub trait AllShards {
    /// Calls the visitor with every shard from the `first` on, one after the other, until it returns false.
    /// Returns the highest LSN of the visited shards.
    fn visit(&self, first: usize, visitor: &mut dyn FnMut(usize, &Shard) -> bool) -> u64;
    /// Locks every shard for writing.
    fn lock_all(&self) -> Vec<Exclusive<'_>>;
}

/// The whole keyspace for a command that reads it, one shard at a time.
pub struct ReadAll<'a> {
    shards: &'a dyn AllShards,
    /// The database that the client has selected.
    pub db: usize,
    now_ms: i64,
    last_lsn: Cell<u64>,
    found_expired: RefCell<Vec<(usize, Box<[u8]>)>>,
}

impl<'a> ReadAll<'a> {
    pub(super) fn new(shards: &'a dyn AllShards, db: usize, now_ms: i64) -> ReadAll<'a> {
        let found_expired = RefCell::default();
        ReadAll { shards, db, now_ms, last_lsn: Cell::new(0), found_expired }
    }

    /// The highest LSN of the shards that were visited.
    pub fn last_lsn(&self) -> u64 {
        self.last_lsn.get()
    }

    /// Calls the visitor with the index of each shard from the `first` on and its keys in the selected
    /// database, until it returns false.
    pub fn visit(&self, first: usize, mut visitor: impl FnMut(usize, &Table) -> bool) {
        self.visit_shards(first, |index, shard| {
            shard.table(self.db).is_none_or(|table| visitor(index, table))
        });
    }

    /// Calls the visitor with the number of each database and its keys, shard by shard.
    pub fn visit_databases(&self, mut visitor: impl FnMut(usize, &Table)) {
        self.visit_shards(0, |_, shard| {
            let tables = shard.databases().filter_map(|db| Some((db, shard.table(db)?)));
            tables.for_each(|(db, table)| visitor(db, table));
            true
        });
    }

    fn visit_shards(&self, first: usize, mut visitor: impl FnMut(usize, &Shard) -> bool) {
        let lsn = self.shards.visit(first, &mut visitor);
        self.last_lsn.set(self.last_lsn.get().max(lsn));
    }

    /// The time that the command sees: Unix time in milliseconds.
    pub fn now_ms(&self) -> i64 {
        self.now_ms
    }

    /// Whether the entry has not expired.
    pub fn is_live(&self, entry: EntryRef) -> bool {
        !entry.is_expired(self.now_ms)
    }

    /// Whether the entry of the key has not expired. If it has, the key is removed after the command.
    pub fn is_live_or_noted(&self, key: &[u8], entry: EntryRef) -> bool {
        let is_live = self.is_live(entry);
        if !is_live {
            self.found_expired.borrow_mut().push((self.db, key.into()));
        }
        is_live
    }

    /// The keys that the command has found expired, with their databases.
    pub fn found_expired(&self) -> Vec<(usize, Box<[u8]>)> {
        self.found_expired.take()
    }
}

/// The whole keyspace for a command that changes it: all shards, locked as soon as it begins to.
pub struct WriteAll<'a> {
    env: &'a Environment,
    /// The database that the client has selected.
    pub db: usize,
    /// Locks all shards, unless they are locked already.
    unlocked: Option<&'a dyn AllShards>,
    shards: Vec<Exclusive<'a>>,
    changes: Changes,
}

impl<'a> WriteAll<'a> {
    /// The whole keyspace, not locked yet.
    pub(super) fn new(
        env: &'a Environment,
        db: usize,
        unlocked: &'a dyn AllShards,
    ) -> WriteAll<'a> {
        let (shards, changes) = (Vec::new(), Changes::default());
        WriteAll { env, db, unlocked: Some(unlocked), shards, changes }
    }

    /// The whole keyspace, with all shards locked.
    pub(super) fn locked(
        env: &'a Environment,
        db: usize,
        shards: Vec<Exclusive<'a>>,
    ) -> WriteAll<'a> {
        WriteAll { env, db, unlocked: None, shards, changes: Changes::default() }
    }

    /// All shards, locked from now on.
    fn lock(&mut self) -> &mut [Exclusive<'a>] {
        if let Some(unlocked) = self.unlocked.take() {
            self.shards = unlocked.lock_all();
        }
        &mut self.shards
    }

    pub fn database_count(&self) -> usize {
        self.env.config.database_count()
    }

    /// Empties the selected database.
    pub fn flush(&mut self) {
        self.changes.replaced_all = true;
        let db = self.db;
        let databases: Vec<_> = self.lock().iter_mut().map(|shard| shard.flush(db)).collect();
        self.changes
            .garbage
            .databases
            .extend(databases.into_iter().filter(|(table, _)| !table.is_empty()));
    }

    /// Empties all databases.
    pub fn flush_all(&mut self) {
        (self.changes.replaced_all, self.changes.emptied) = (true, true);
        self.lock();
        for shard in &mut self.shards {
            let databases: Vec<usize> = shard.databases().collect();
            let databases = databases.into_iter().map(|db| shard.flush(db));
            self.changes.garbage.databases.extend(databases.filter(|(table, _)| !table.is_empty()));
        }
    }

    /// Locks all shards now: no other client uses any key until this is dropped.
    pub fn stop(&mut self) {
        self.lock();
    }

    /// Replaces all databases by those of another keyspace.
    pub fn take_over(&mut self, mut other: WriteAll) {
        self.lock();
        self.changes.replaced_all = true;
        let earliest_ms = |index| Some(other.env.earliest_expiry_ms(index));
        (0..SHARDS).for_each(|index| self.env.note_expiry(index, earliest_ms(index)));
        for (ours, theirs) in self.shards.iter_mut().zip(other.lock()) {
            let old = ours.take_over(theirs);
            self.changes
                .garbage
                .databases
                .extend(old.into_iter().filter(|(table, _)| !table.is_empty()));
        }
    }

    /// Exchanges two databases.
    pub fn swap(&mut self, one: usize, other: usize) {
        self.changes.replaced_all = one != other;
        let now_ms = self.env.now_ms();
        self.lock().iter_mut().for_each(|shard| shard.swap(one, other, now_ms));
    }

    /// The highest LSN of the shards.
    pub fn last_lsn(&self) -> u64 {
        self.shards.iter().map(|shard| shard.last_lsn).max().unwrap_or(0)
    }

    /// The log has every change up to that LSN.
    pub fn logged(&mut self, lsn: u64) {
        self.shards.iter_mut().for_each(|shard| shard.logged(lsn));
    }

    /// Takes what is left to do after the command. (Nothing counts as a lookup.)
    pub fn finish(&mut self) -> Aftermath {
        let changes = std::mem::take(&mut self.changes);
        let is_needed = changes.replaced_all || !changes.garbage.is_empty();
        Aftermath { lookups: (0, 0), changes: is_needed.then(|| Box::new(changes)) }
    }
}
