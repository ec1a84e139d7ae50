//! The data: keys, values, expiry times, and the locks around them.
//!
//! | module | what it owns |
//! |---|---|
//! | [`keyspace`] | all shards, and the only code that locks them |
//! | [`view`], [`whole`] | what a handler sees: the keys of its command, or all keys |
//! | [`transaction`] | shards that are locked once and lent to several commands |
//! | [`shard`], [`table`] | what one lock guards, and the keys of one database in it |
//! | [`snapshot`] | encoded shards on their way to a file |
//! | [`watch`] | watched keys, and the flags of the connections that watch them |
//! | [`readers`] | which clients may cache which keys |
//! | [`value`], [`hash`], [`hyperloglog`] | what keys hold |
//! | `memory`, `eviction` | how much memory the data takes, and which keys are evicted |
//! | `usage` | when or how often a key was used |
//! | [`live`] | a hash without its expired fields |
//! | [`key`], [`inline`] | keys and their hashes; short bytes stored in place |
//!
//! Nothing here knows commands, the log or clients (except for their ids). The dispatcher tells a shard the
//! LSN of its last record, and asks for it.

mod aftermath;
mod environment;
mod eviction;
mod guard;
pub mod hash;
pub mod hyperloglog;
pub mod inline;
pub mod key;
pub mod keyspace;
pub mod live;
mod memory;
#[cfg(test)]
mod model;
pub mod readers;
pub mod shard;
mod shards;
pub mod snapshot;
pub mod table;
pub mod transaction;
mod usage;
pub mod value;
pub mod view;
pub mod watch;
pub mod whole;

pub use aftermath::{Aftermath, Changes, Event, Garbage};
pub use hash::{Field, Hash, PackedLimits};
pub use key::SHARDS;
pub use keyspace::Keyspace;
pub use live::LiveHash;
pub use readers::Readers;
pub use shard::{Cause, Removal};
pub use shards::Shards;
pub use table::{StringMut, Table};
pub use transaction::LockSet;
pub use usage::Usage;
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
