//! Whether the log can be relied on, and if not, why.
//!
//! A *full disk* heals. What the file did not take waits in memory and is written first once there is
//! space; a flush that succeeds clears the failure.
//!
//! A *lost file* does not. After a failed sync the kernel may have forgotten the pages that it could not
//! write, so a later sync that succeeds proves nothing about them. A write that fails for another reason
//! than space, and a file that another program has removed, replaced or changed, are as bad: what is in the
//! file may not be there after a restart. Only a rewrite into a new file clears this failure.
//!
//! The reason is set before the flag, so a thread that sees the flag finds the reason. The lock on the reason
//! is below all others.

use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use crate::config::{Level, logger};
use crate::stats::{Counter, lock};

/// The log's state of health.
#[derive(Default)]
pub(super) struct Failure {
    /// The last write found no space.
    disk_full: AtomicBool,
    /// The file has lost, or may have lost, what was written to it.
    file_lost: AtomicBool,
    /// How often a file was lost.
    pub(super) losses: Counter,
    /// The cause, as a text for the operator.
    reason: Mutex<String>,
}

impl Failure {
    /// Why the log cannot be relied on at present; `None` if it can.
    pub(super) fn reason(&self) -> Option<String> {
        let failed = self.disk_full.load(SeqCst) || self.needs_rewrite();
        failed.then(|| lock(&self.reason).clone())
    }

    /// The reason as an error.
    pub(super) fn error(&self) -> io::Error {
        io::Error::other(self.reason().unwrap_or_default())
    }

    /// Whether only a rewrite can make the log good again.
    pub(super) fn needs_rewrite(&self) -> bool {
        self.file_lost.load(SeqCst)
    }

    /// Records a failed write.
    pub(super) fn write_failed(&self, error: &io::Error) {
        use io::ErrorKind::{QuotaExceeded, StorageFull, WriteZero};
        if !matches!(error.kind(), StorageFull | QuotaExceeded | WriteZero) {
            self.file_lost(error);
        } else if !self.disk_full.load(SeqCst) {
            self.explain(error);
            self.disk_full.store(true, SeqCst);
        }
    }

    /// Records that the file has lost, or may have lost, what was written to it.
    pub(super) fn file_lost(&self, error: &io::Error) {
        if !self.needs_rewrite() {
            self.explain(error);
            self.losses.add(1);
            self.file_lost.store(true, SeqCst);
        }
    }

    /// Records that the file has taken everything, so there is space again.
    pub(super) fn flush_succeeded(&self) {
        self.disk_full.store(false, SeqCst);
    }

    /// Records that a new file has taken the old one's place.
    pub(super) fn clear(&self) {
        self.disk_full.store(false, SeqCst);
        self.file_lost.store(false, SeqCst);
    }

    fn explain(&self, error: &io::Error) {
        let advice = "Changes are refused until it can.";
        logger::log(Level::Warning, format_args!("The AOF cannot be relied on: {error}. {advice}"));
        *lock(&self.reason) = error.to_string();
    }
}
