//! What a connection waits for that has sent `WAIT` or `WAITAOF`.

use std::time::Instant;

use crate::replication::replicas::Replica;
use crate::resp::Reply;

/// A wait for replicas.
pub struct Waiting {
    pub wanted: Wanted,
    /// How many replicas are enough.
    pub replicas: usize,
    /// The offset that they must have.
    pub offset: u64,
    /// When the wait ends in any case; `None` for never.
    pub until: Option<Instant>,
    /// There is no reply: `CLIENT REPLY` says so.
    pub silent: bool,
}

/// What replicas must have done with the writes of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wanted {
    /// Applied them.
    Applied,
    /// Synced them to their logs. `here` says whether this server has.
    Synced { here: bool },
}

impl Waiting {
    pub fn is_met_by(&self, replica: &Replica) -> bool {
        let has = match self.wanted {
            Wanted::Applied => replica.applied(),
            Wanted::Synced { .. } => replica.synced(),
        };
        has >= self.offset
    }

    /// Writes the reply, when that many replicas have done it.
    pub fn reply(&self, replicas: usize, reply: &mut Reply) {
        if let Wanted::Synced { here } = self.wanted {
            reply.array(2);
            reply.integer(i64::from(here));
        }
        reply.count(replicas);
    }
}
