//! Records that were appended and have not been flushed yet, and the LSN that each gets.
//!
//! An *LSN* (log sequence number) is a count of bytes appended since the server started. The LSN of a
//! record is the count behind it. So the log is flushed or synced "up to an LSN", and two LSNs tell which
//! record came first.
//!
//! Why records wait here and not in the `BufWriter`: an appender holds a shard lock, so it must not wait
//! for another thread's write. A flush takes all pending records at once and writes them while the next
//! ones already queue up. (Appending to the `BufWriter` made `SET` in a pipeline of 16 a tenth slower.)
//! The lock on them is held no longer than it takes to copy a small record.

use crate::resp::request::encode;

/// The records, and where the log ends.
#[derive(Default)]
pub(super) struct Pending {
    pub(super) records: Vec<u8>,
    /// The LSN of the last record.
    pub(super) appended: u64,
    /// The database in which a reader is after the last record. None if the next record needs a `SELECT`.
    pub(super) db: Option<usize>,
    /// Bytes of the file once it has all that was appended.
    pub(super) size: u64,
    /// That size after the last rewrite, or at the start.
    pub(super) base_size: u64,
}

impl Pending {
    /// Appends a record that a reader has to be in the first database for, and that leaves it in the
    /// second.
    pub(super) fn push(&mut self, databases: (usize, usize), record: &[u8]) {
        self.select(databases);
        self.records.extend_from_slice(record);
        self.count(record.len());
    }

    /// As [`Pending::push`], for a record that is written right behind those that are pending, without
    /// being copied. Returns these.
    pub(super) fn push_uncopied(&mut self, databases: (usize, usize), record: &[u8]) -> Vec<u8> {
        self.select(databases);
        self.count(record.len());
        std::mem::take(&mut self.records)
    }

    fn select(&mut self, (first, last): (usize, usize)) {
        if self.db != Some(first) {
            let before = self.records.len();
            encode(&mut self.records, &[b"SELECT", first.to_string().as_bytes()]);
            self.count(self.records.len() - before);
        }
        self.db = Some(last);
    }

    fn count(&mut self, bytes: usize) {
        self.appended += bytes as u64;
        self.size += bytes as u64;
    }

    /// How long the file is at this LSN.
    pub(super) fn size_at(&self, lsn: u64) -> u64 {
        self.size - (self.appended - lsn)
    }

    /// Begins a file of this size.
    pub(super) fn start_file(&mut self, size: u64) {
        (self.size, self.base_size) = (size, size);
    }
}
