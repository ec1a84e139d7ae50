//! Replication: the log is the stream that replicas follow.
//!
//! | module | what it owns |
//! |---|---|
//! | [`identity`] | which history of changes the log holds, and the offset of each LSN |
//! | [`upstream`] | the master that this server copies, and the link to it |
//!
//! Whoever has the same id and the same offset has the same data: that is what a replica that comes back
//! relies on.

pub mod identity;
pub mod upstream;

use crate::aof::Aof;
use identity::{Id, Identity};

/// The state of replication. Its locks are below those of the log.
#[derive(Default)]
pub struct Replication {
    pub identity: Identity,
}

impl Replication {
    /// The offset at the end of the log.
    pub fn offset(&self, aof: &Aof) -> u64 {
        self.identity.offset(aof.appended_lsn())
    }

    /// Makes sure that the log names the id, before another server learns of it.
    pub fn announce_id(&self, aof: &Aof) {
        if !self.identity.is_announced() {
            aof.annotate(|lsn| self.identity.announce(lsn));
        }
    }

    /// Goes on under another id: the one that the master has taken, or a new one for this server as master.
    /// What was replicated so far can still be asked for by the old id.
    pub fn change_id(&self, aof: &Aof, id: Option<Id>) {
        aof.annotate(|lsn| self.identity.change(id.unwrap_or_else(identity::random_id), lsn));
    }

    /// Closes files that rewrites have replaced and that nobody needs any more. To be called once a second.
    pub fn forget(&self, aof: &Aof) {
        aof.forget_before(u64::MAX);
    }
}
