//! What the log is written to.

use std::fs::{File, Metadata};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// A file, or in tests something that fails when it is told to: every failure of a disk that the
/// writer has an answer to is one of these three calls.
pub trait LogFile: Write + Send + Sync {
    /// Makes the disk have what was written.
    ///
    /// # Errors
    /// The disk may not have it, and a second try proves nothing: the kernel may have forgotten.
    fn sync(&self) -> io::Result<()>;

    /// A second handle on the same file, for syncing beside the writing.
    ///
    /// # Errors
    /// There is none to be had.
    fn second_handle(&self) -> io::Result<Box<dyn LogFile>>;

    /// Whether the file still has that name. What is written to a file that was removed is gone when
    /// the process is.
    fn is_at(&self, path: &Path) -> bool;
}

impl LogFile for File {
    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn second_handle(&self) -> io::Result<Box<dyn LogFile>> {
        Ok(Box::new(self.try_clone()?))
    }

    fn is_at(&self, path: &Path) -> bool {
        let identity = |metadata: Metadata| (metadata.dev(), metadata.ino());
        let named = std::fs::metadata(path).map(identity);
        self.metadata().map(identity).is_ok_and(|own| named.is_ok_and(|named| named == own))
    }
}
