//! Records that are appended together: those of a transaction, or of one command that needs several.

use super::writer::Aof;
use crate::resp::request::encode;

/// The records of a transaction so far. They are appended as one piece, between `MULTI` and `EXEC`, while all
/// shards of the transaction are still locked. So a replay applies all of them or, if a crash has torn the
/// block, none. A single record needs no such frame.
#[derive(Default)]
pub struct Block {
    bytes: Vec<u8>,
    records: usize,
    /// The databases of the first and the last record.
    databases: (usize, usize),
}

impl Block {
    /// Adds records that a replay must apply together or not at all.
    pub fn push_together(&mut self, db: usize, records: &[u8]) {
        self.push(db, records);
        self.records += 1; // more than one, so that the block gets a frame
    }

    /// Adds a record for a database.
    pub fn push(&mut self, db: usize, record: &[u8]) {
        if self.records == 0 {
            self.databases.0 = db;
        } else if self.databases.1 != db {
            encode(&mut self.bytes, &[b"SELECT", db.to_string().as_bytes()]);
        }
        self.databases.1 = db;
        self.records += 1;
        self.bytes.extend_from_slice(record);
    }
}

impl Aof {
    /// Like [`Aof::append`], for records that a replay must apply together or not at all.
    pub fn append_together(&self, db: usize, records: &[u8]) -> u64 {
        let mut block = Block::default();
        block.push_together(db, records);
        self.append_block(block).unwrap_or_default()
    }

    /// Like [`Aof::append`], for the block of a transaction. `None` if the block is empty.
    pub fn append_block(&self, block: Block) -> Option<u64> {
        let Block { bytes, records, databases } = block;
        match records {
            0 => None,
            1 => Some(self.append(databases.0, &bytes)),
            _ => {
                let mut framed = Vec::with_capacity(bytes.len() + 32);
                encode(&mut framed, &[b"MULTI"]);
                framed.extend_from_slice(&bytes);
                encode(&mut framed, &[b"EXEC"]);
                Some(self.append_across(databases, &framed))
            }
        }
    }
}
