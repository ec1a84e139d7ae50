//! The records of a transaction, which the log gets at once.

use super::writer::Aof;
use crate::resp::request::encode;

/// What the commands of a transaction have changed so far. It is appended while all their shards are still
/// locked, as one piece: between `MULTI` and `EXEC`, so that a replay carries out all of it or, when a
/// crash has torn it, nothing. One record alone needs no such frame.
#[derive(Default)]
pub struct Block {
    bytes: Vec<u8>,
    records: usize,
    /// The database of the first record, and that of the last.
    databases: (usize, usize),
}

impl Block {
    /// Adds records that only together give a change.
    pub fn push_together(&mut self, db: usize, records: &[u8]) {
        self.push(db, records);
        self.records += 1; // more than one: they get a frame
    }

    /// Adds a record about a database.
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
    /// Appends records that only together give a change, as [`Aof::append`] does one.
    pub fn append_together(&self, db: usize, records: &[u8]) -> u64 {
        let mut block = Block::default();
        block.push_together(db, records);
        self.append_block(block).unwrap_or_default()
    }

    /// Appends the block of a transaction, as [`Aof::append`] does a record. None if nothing changed.
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
