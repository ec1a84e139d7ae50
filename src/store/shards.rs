//! Where a command gets its shards from: the keyspace, which locks them for it, or the transaction of which
//! it is a part, which has locked them already. The command is carried out by the same code either way.

use super::guard::Keys;
use super::transaction::Transaction;
use super::view::{ReadView, WriteView};
use super::whole::{ReadAll, WriteAll};

/// See the module's opening words.
pub trait Shards {
    /// Keys, to be read.
    fn read<'v, 'k: 'v>(&'v self, db: usize, keys: impl Keys<'k>) -> ReadView<'v>;
    /// Keys, to be changed.
    fn write<'v, 'k: 'v>(&'v mut self, db: usize, keys: impl Keys<'k>) -> WriteView<'v>;
    /// The whole keyspace, to be read.
    fn read_all(&self, db: usize) -> ReadAll<'_>;
    /// The whole keyspace, to be changed.
    fn write_all(&mut self, db: usize) -> WriteAll<'_>;
    /// The transaction, if it is one.
    fn transaction(&self) -> Option<&Transaction<'_>>;
}
