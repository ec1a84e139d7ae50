//! What is left to do after a command has read or changed its keys, besides logging its record.
//!
//! A view collects this while the handler runs, and returns it at the end as one value ([`Aftermath`]). From
//! it the dispatcher serves the log, subscribers to keyspace events, clients that cache, and the statistics.

use super::readers::{Readers, Stripe};
use super::shard::{Removal, TimedHashes};
use super::table::Table;
use super::value::Value;

/// What is left to do after a command.
#[derive(Default)]
pub struct Aftermath {
    /// Keys that were looked up and found, and not found, as far as Redis counts them.
    pub lookups: (u32, u32),
    /// Most commands leave nothing else, and pay for one pointer.
    pub changes: Option<Box<Changes>>,
}

/// What happened to keys.
#[derive(Default)]
pub struct Changes {
    /// What had expired and was removed. The log gets a `DEL` or `HDEL` for each before the command's record.
    pub expired: Vec<Removal>,
    /// Keyspace events of the classes that are enabled, in the order in which they happened.
    pub events: Vec<Event>,
    /// The keys that were modified, if any client tracks keys. Those of `expired` are not among them.
    pub modified: Vec<Box<[u8]>>,
    /// Keys that were found expired, with their databases. A write removes them at its end. A read cannot:
    /// its caller does.
    pub found_expired: Vec<(usize, Box<[u8]>)>,
    /// Whole databases were emptied or exchanged: any key may have changed.
    pub replaced_all: bool,
    /// All databases were emptied.
    pub emptied: bool,
    /// Values to free after the locks are released, because that takes long.
    pub garbage: Garbage,
    /// Keys that are watched or tracked and whose value was lent to be changed in place. If the command has
    /// changed something, they count as modified.
    pub(super) lent: Vec<(usize, Vec<u8>)>,
}

/// Something that happened to a key.
pub struct Event {
    pub db: usize,
    pub key: Box<[u8]>,
    /// Redis's name for what happened: `set`, `expired`.
    pub name: &'static str,
}

/// Removed values that take long to free.
#[derive(Default)]
pub struct Garbage {
    pub(super) values: Vec<Value>,
    pub(super) databases: Vec<(Table, TimedHashes)>,
    readers: Vec<Stripe>,
}

impl Garbage {
    /// Whether there is nothing to free.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty() && self.databases.is_empty() && self.readers.is_empty()
    }

    /// How many values there are to free: those of keys, or the keys of tables.
    pub fn objects(&self) -> u64 {
        let tables = self.databases.iter().map(|(table, _)| table.len());
        let readers = self.readers.iter().map(Stripe::len);
        (self.values.len() + tables.chain(readers).sum::<usize>()) as u64
    }

    /// A value that takes long to free.
    pub(super) fn value(value: Value) -> Garbage {
        Garbage { values: vec![value], ..Garbage::default() }
    }

    /// Takes everything that a table of readers holds.
    pub fn of(readers: &Readers) -> Garbage {
        Garbage { readers: readers.take_all(), ..Garbage::default() }
    }
}
