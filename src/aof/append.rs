//! Records that were appended and have not been flushed yet, and the LSN that each gets.
//!
//! An *LSN* (log sequence number) is a count of bytes appended. The LSN of a record is the count once it has
//! been appended. So the log is flushed or synced "up to an LSN", and two LSNs tell
//! which record came first.
//!
//! Why records wait here and not in the `BufWriter`: an appender holds a shard lock, so it must not wait for
//! another thread's write. A flush takes all pending records at once and writes them while the next ones
//! already queue up. (Appending to the `BufWriter` made `SET` in a pipeline of 16 a tenth slower.) Their lock
//! is held no longer than it takes to copy a small record.

use crate::resp::request::encode;

/// The records, and where the log ends.
#[derive(Default)]
pub(super) struct Pending {
    pub(super) records: Vec<u8>,
    /// The LSN of the last record.
    pub(super) appended: u64,
    /// The database that is selected after the last record; `None` if the next record needs a `SELECT`.
    pub(super) db: Option<usize>,
    /// The log is a copy of a master's stream: it takes no records of our own.
    pub(super) follows: bool,
    /// The size of the file in bytes once everything appended is written.
    pub(super) size: u64,
    /// The same size after the last rewrite, or at the start.
    pub(super) base_size: u64,
}

impl Pending {
    /// Appends a record that applies to the first database and leaves the second one selected.
    pub(super) fn push(&mut self, databases: (usize, usize), record: &[u8]) {
        self.select(databases);
        self.records.extend_from_slice(record);
        self.count(record.len());
    }

    /// Appends a record that does not depend on the database.
    pub(super) fn push_as_is(&mut self, record: &[u8]) {
        self.records.extend_from_slice(record);
        self.count(record.len());
    }

    /// Like [`Pending::push`], for a large record, which the caller writes itself instead of having it
    /// copied. Returns the pending records, which come before it.
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

    pub(super) fn count(&mut self, bytes: usize) {
        self.appended += bytes as u64;
        self.size += bytes as u64;
    }

    /// The size of the file at this LSN.
    pub(super) fn size_at(&self, lsn: u64) -> u64 {
        self.size - (self.appended - lsn)
    }

    /// Starts over with a file of this size.
    pub(super) fn start_file(&mut self, size: u64) {
        (self.size, self.base_size) = (size, size);
    }
}
