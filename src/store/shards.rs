//! Where a command gets its shards from: the keyspace, which locks them for it, or its transaction, which has
//! locked them already. The same code runs the command either way.

use super::guard::Keys;
use super::view::{ReadView, WriteView};
use super::whole::{AllShards, ReadAll, WriteAll};

/// See the module documentation.
pub trait Shards {
    /// Keys, to be read.
    fn read<'v, 'k: 'v>(&'v self, db: usize, keys: impl Keys<'k>) -> ReadView<'v>;
    /// Keys, to be changed.
    fn write<'v, 'k: 'v>(&'v mut self, db: usize, keys: impl Keys<'k>) -> WriteView<'v>;
    /// The whole keyspace, to be read.
    fn read_all(&self, db: usize) -> ReadAll<'_>;
    /// The whole keyspace, to be changed.
    fn write_all(&mut self, db: usize) -> WriteAll<'_>;
    /// All shards, if this is a transaction: its commands must use those that it has locked.
    fn transaction(&self) -> Option<&dyn AllShards>;
}
