//! What the log is written to.

use std::fs::{File, Metadata};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

/// A file, or in tests a disk that fails on demand. Whatever can go wrong with a log that is being
/// written is an error of one of these calls or of `write`.
pub trait LogFile: Write + Send + Sync {
    /// Makes everything written so far durable.
    ///
    /// # Errors
    /// Some of it may not be on the disk. A second try proves nothing, because the kernel may have dropped
    /// the pages that it could not write.
    fn sync(&self) -> io::Result<()>;

    /// Returns a second handle on the same file, for syncing while another thread writes.
    ///
    /// # Errors
    /// The handle could not be duplicated.
    fn second_handle(&self) -> io::Result<Box<dyn LogFile>>;

    /// Whether the file still has this name. A file that was removed is gone when the process ends.
    fn is_at(&self, path: &Path) -> bool;

    /// Lets other servers have the file: it is not a log any more.
    fn release(&self) {}

    /// How many bytes the file has.
    ///
    /// # Errors
    /// The file's metadata cannot be read.
    fn length(&self) -> io::Result<u64>;

    /// Reads from that offset on. Returns how many bytes were read, 0 at the end.
    ///
    /// # Errors
    /// The file cannot be read.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
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

    fn release(&self) {
        self.unlock().unwrap_or_default(); // then it is locked as long as replicas read it
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, buffer, offset)
    }
}

/// A file that has no name and no use after the process ends: it stands in for a log while replicas read.
pub(super) struct StandIn(pub(super) File);

impl Write for StandIn {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl LogFile for StandIn {
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn second_handle(&self) -> io::Result<Box<dyn LogFile>> {
        Ok(Box::new(StandIn(self.0.try_clone()?)))
    }

    fn is_at(&self, _: &Path) -> bool {
        true
    }

    fn length(&self) -> io::Result<u64> {
        self.0.length()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        LogFile::read_at(&self.0, buffer, offset)
    }
}
