//! The data: keys, values, expiry times, and the locks around them.
//!
//! | module | what it owns |
//! |---|---|
//! | [`keyspace`] | all shards, and the only code that locks them |
//! | [`view`], [`whole`] | what a handler sees: the keys of its command, or all keys |
//! | [`transaction`] | shards that are locked once and lent to several commands |
//! | [`shard`], [`table`] | what one lock guards, and the keys of one database in it |
//! | `pages`, `record`, `varint` | how a table stores its keys |
//! | [`snapshot`] | encoded shards on their way to a file |
//! | [`watch`] | watched keys, and the flags of the connections that watch them |
//! | [`readers`] | which clients may cache which keys |
//! | [`value`], [`hash`], [`hyperloglog`] | what keys hold |
//! | `memory`, `eviction` | how much memory the data takes, and which keys are evicted |
//! | `usage` | when or how often a key was used |
//! | [`live`] | a hash without its expired fields |
//! | [`key`] | keys and their hashes |
//!
//! Nothing here knows commands, the log or clients (except for their ids). The dispatcher tells a shard the
//! LSN of its last record, and asks for it.

mod aftermath;
mod environment;
mod eviction;
mod field;
mod guard;
pub mod hash;
pub mod hyperloglog;
mod indexed;
pub mod key;
pub mod keyspace;
pub mod live;
mod memory;
#[cfg(test)]
mod model;
mod packed;
mod pages;
pub mod readers;
mod record;
pub mod shard;
mod shards;
pub mod snapshot;
pub mod table;
pub mod transaction;
pub mod usage;
pub mod value;
mod varint;
pub mod view;
pub mod watch;
pub mod whole;

pub use aftermath::{Aftermath, Changes, Event, Garbage};
pub use field::Field;
pub use hash::{Hash, HashRef, PackedLimits};
pub use key::SHARDS;
pub use keyspace::Keyspace;
pub use live::LiveHash;
pub use memory::allocated;
pub use readers::Readers;
pub use record::StringOrigin;
pub use shard::{Cause, Removal};
pub use shards::Shards;
pub use table::{StringMut, Table};
pub use transaction::LockSet;
pub use usage::Usage;
pub use value::{Entry, EntryRef, Value, ValueRef, WrongType};
pub use view::{Access, ReadView, WriteView};
pub use watch::Watcher;
pub use whole::{AllShards, ReadAll, WriteAll};

use std::time::{SystemTime, UNIX_EPOCH};

/// Unix time in milliseconds.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
