//! Locked shards, as a view holds them.
//!
//! A plain command locks the shards of its keys itself; a transaction locks those of all its commands and
//! lends each command its own. A view holds either kind, so handlers do not see the difference.
//!
//! A panic while a shard is locked for writing may leave it half changed. The log holds the truth, so the
//! process ends there and then ([`Exclusive`]); a restart replays the log.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::sync::{RwLockReadGuard, RwLockWriteGuard};

use super::key::HashedKey;
use super::shard::Shard;
use crate::config::{Level, logger};

/// A shard locked for reading, by the view itself or by the transaction that lends it.
pub enum Shared<'a> {
    /// By the view.
    Locked(RwLockReadGuard<'a, Shard>),
    /// By a transaction.
    Lent(&'a Shard),
}

impl Deref for Shared<'_> {
    type Target = Shard;

    fn deref(&self) -> &Shard {
        match self {
            Shared::Locked(shard) => shard,
            Shared::Lent(shard) => shard,
        }
    }
}

/// A shard locked for writing, by the view itself or by the transaction that lends it.
pub enum Exclusive<'a> {
    /// By the view.
    Locked(Metered<'a>),
    /// By a transaction.
    Lent(&'a mut Shard),
}

/// A shard locked for writing. When it is unlocked, the total gets to know by how much it has grown.
pub struct Metered<'a> {
    shard: RwLockWriteGuard<'a, Shard>,
    total: &'a AtomicI64,
}

impl<'a> Metered<'a> {
    pub(super) fn new(shard: RwLockWriteGuard<'a, Shard>, total: &'a AtomicI64) -> Metered<'a> {
        Metered { shard, total }
    }
}

impl Drop for Metered<'_> {
    fn drop(&mut self) {
        let growth = self.shard.take_growth();
        if growth != 0 {
            self.total.fetch_add(growth, Relaxed);
        }
    }
}

impl Deref for Exclusive<'_> {
    type Target = Shard;

    fn deref(&self) -> &Shard {
        match self {
            Exclusive::Locked(metered) => &metered.shard,
            Exclusive::Lent(shard) => shard,
        }
    }
}

impl DerefMut for Exclusive<'_> {
    fn deref_mut(&mut self) -> &mut Shard {
        match self {
            Exclusive::Locked(metered) => &mut metered.shard,
            Exclusive::Lent(shard) => shard,
        }
    }
}

impl Drop for Exclusive<'_> {
    fn drop(&mut self) {
        // In a unit test, the runner reports the panic.
        if std::thread::panicking() && !cfg!(test) {
            let text =
                "Aborting: a panic interrupted a change, so memory may be wrong. The AOF is right";
            logger::log(Level::Warning, format_args!("{text}"));
            logger::flush();
            std::process::abort();
        }
    }
}

/// A locked shard.
pub trait Guard: Deref<Target = Shard> {
    /// Whether the shard is locked for reading, so that nothing in it can be changed.
    const READS_ONLY: bool;
}

impl Guard for Shared<'_> {
    const READS_ONLY: bool = true;
}

impl Guard for Exclusive<'_> {
    const READS_ONLY: bool = false;
}

/// Locked shards.
pub(super) enum Guards<'k, G> {
    /// The shard of the command's only key.
    One { key: HashedKey<'k>, guard: G },
    /// Several, in ascending order of their index.
    Many(Vec<(usize, G)>),
}

impl<'k, G> Guards<'k, G> {
    /// Calls `lock` once for each shard of the keys, in ascending order.
    pub(super) fn of(mut keys: impl Keys<'k>, mut lock: impl FnMut(usize) -> G) -> Guards<'k, G> {
        if keys.len() == 1
            && let Some(key) = keys.next()
        {
            let key = HashedKey::new(key);
            return Guards::One { key, guard: lock(key.shard()) };
        }
        let mut shards: Vec<usize> = keys.map(|key| HashedKey::new(key).shard()).collect();
        shards.sort_unstable();
        shards.dedup();
        Guards::Many(shards.into_iter().map(|index| (index, lock(index))).collect())
    }
}

/// The index of a key's shard among the locked shards.
///
/// # Panics
/// If it is not among them: the row of the command does not name all of its keys.
pub(super) fn place_of<G>(guards: &[(usize, G)], key: HashedKey) -> usize {
    let found = guards.binary_search_by_key(&key.shard(), |(index, _)| *index);
    found.unwrap_or_else(|_| unreachable!("a command may only use the keys that its row names"))
}

/// The keys of a command.
pub trait Keys<'a>: ExactSizeIterator<Item = &'a [u8]> {}

impl<'a, I: ExactSizeIterator<Item = &'a [u8]>> Keys<'a> for I {}
