//! The data: keys, values, deadlines, and the locks around them.
//!
//! [`keyspace`] locks, [`view`] is what handlers get of it, [`transaction`] lends several commands what is
//! locked once, [`shard`] is what one lock guards, [`watch`] tells those who wait for a change,
//! [`readers`] is who may have a copy of what, [`value`] and [`hash`] are what keys hold, [`inline`] is how
//! short bytes are kept, [`live`] is a hash without the fields that have expired, [`hyperloglog`] is what a
//! string may be, [`key`] finds them.
//! Nothing here knows commands, the log or clients (but for their numbers): the dispatcher tells a shard
//! the log position of its last record, and asks for it.

mod aftermath;
mod environment;
mod guard;
pub mod hash;
pub mod hyperloglog;
pub mod inline;
pub mod key;
pub mod keyspace;
pub mod live;
#[cfg(test)]
mod model;
pub mod readers;
pub mod shard;
mod shards;
pub mod table;
pub mod transaction;
pub mod value;
pub mod view;
pub mod watch;
pub mod whole;

pub use aftermath::{Aftermath, Changes, Event, Garbage};
#[cfg(test)]
pub use hash::PackedLimits;
pub use hash::{Field, Hash};
pub use key::SHARDS;
pub use keyspace::Keyspace;
pub use live::LiveHash;
pub use readers::Readers;
pub use shard::{Expired, WhatExpired};
pub use shards::Shards;
pub use table::Table;
pub use transaction::LockSet;
pub use value::{ByteString, Entry, StringOrigin, Value};
pub use view::{Access, ReadView, WriteView, WrongType};
pub use watch::Watcher;
pub use whole::{AllShards, ReadAll, WriteAll};

use std::time::{SystemTime, UNIX_EPOCH};

/// Unix time in milliseconds.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
