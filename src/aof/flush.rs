//! The files of the log, and handing records to the kernel.
//!
//! There is one file, or none (`appendonly no`). In the last step of a rewrite there is a second one, and
//! both get every record (the *tee*).
//!
//! A full disk leaves no hole in the log: what the file does not take is kept in memory, in order, and is
//! written before anything else. The new file of a rewrite is simpler: after any failure it is given up.
//!
//! The owner guards all of this with one lock. Writes happen under it, syncs do not: each file has a
//! second handle for syncing, so a slow disk delays only the threads that wait for the sync.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::file::LogFile;
use super::group_commit::copy_of;
use super::stream::{Copied, Stream};

/// How much a `BufWriter` holds before it writes by itself. A record of this size or more is written at once
/// instead of being copied to the pending records.
pub(super) const BUFFER_BYTES: usize = 64 << 10;
/// Memory for pending records that is kept between flushes.
const SPARE_BYTES: usize = 1 << 20;

/// Where records are written.
#[derive(Default)]
pub(super) struct Files {
    pub(super) file: Option<Output>,
    /// The new file of a rewrite.
    pub(super) next: Option<Next>,
    /// Where replicas read.
    pub(super) stream: Stream,
    /// What the file did not take.
    refused: Vec<u8>,
    /// An empty buffer, which replaces the buffer of the pending records when that is written.
    spare: Vec<u8>,
}

/// A file with a handle for writing and one for syncing, and the path that it has or is about to get.
pub(super) struct Output {
    writer: BufWriter<Box<dyn LogFile>>,
    pub(super) handle: Arc<dyn LogFile>,
    path: PathBuf,
}

impl Output {
    pub(super) fn new(file: Box<dyn LogFile>, path: &Path) -> io::Result<Output> {
        let handle = Arc::from(file.second_handle()?);
        let writer = BufWriter::with_capacity(BUFFER_BYTES, file);
        Ok(Output { writer, handle, path: path.into() })
    }

    /// Whether the file is where a start of the server will look for it.
    fn is_in_place(&self) -> bool {
        self.handle.is_at(&self.path)
    }

    /// Closes the file. (A `BufWriter` that is dropped would try to write once more.)
    fn close(self) {
        drop(self.writer.into_parts());
    }

    /// How long the file will be once it has what its `BufWriter` holds.
    fn length(&self) -> io::Result<u64> {
        Ok(self.handle.length()? + self.writer.buffer().len() as u64)
    }
}

/// The new file of a rewrite.
pub(super) struct Next {
    output: Output,
    /// The LSN at which the new file had caught up with the old one, and its size then.
    level: (u64, u64),
    copied: Copied,
    /// Why it could not be written or synced. The rewrite will notice and give the file up. Until then
    /// nothing is acknowledged, because the file may already have the log's name.
    error: Option<io::Error>,
}

impl Next {
    pub(super) fn note(&mut self, result: io::Result<()>) {
        self.error = self.error.take().or(result.err());
    }
}

impl Files {
    /// Continues with another file, and forgets the old one and the bytes that it refused.
    pub(super) fn replace(&mut self, output: Option<Output>) {
        if let Some(old) = std::mem::replace(&mut self.file, output) {
            old.close();
        }
        self.refused.clear();
    }

    /// From now on writes everything to this file too. `level` is the LSN at which it has caught up with the
    /// old file, and its own size then.
    pub(super) fn tee(&mut self, output: Output, level: (u64, u64), copied: Copied) {
        self.next = Some(Next { output, level, copied, error: None });
    }

    /// Records that an annotation of that length was written.
    pub(super) fn annotated(&mut self, bytes: u64) {
        if let Some(next) = &mut self.next {
            next.level.1 += bytes;
        }
    }

    /// Gives the new file up.
    pub(super) fn untee(&mut self) {
        if let Some(next) = self.next.take() {
            next.output.close();
        }
    }

    /// Makes the new file the only one. Returns the LSN at which it had caught up with the old one, and its
    /// size then.
    ///
    /// # Errors
    /// The new file does not have everything, or there is none.
    pub(super) fn switch(&mut self) -> io::Result<(u64, u64)> {
        self.flush_next()?;
        let next = self.next.take().ok_or(io::ErrorKind::NotFound)?;
        self.stream.move_to(&next.output.handle, &next.copied);
        self.replace(Some(next.output));
        Ok(next.level)
    }

    /// The handles for syncing: of the file, and of the new file of a rewrite.
    pub(super) fn handles(&self) -> [Option<Arc<dyn LogFile>>; 2] {
        let file = self.file.as_ref().map(|file| file.handle.clone());
        [file, self.next.as_ref().map(|next| next.output.handle.clone())]
    }

    /// Whether a file is where it should be: the one, or the new one of a rewrite, which takes its name.
    pub(super) fn is_in_place(&self) -> bool {
        let next = self.next.as_ref().map(|next| &next.output);
        self.file.iter().chain(next).any(Output::is_in_place)
    }

    /// The path of the file.
    pub(super) fn path(&self) -> Option<&Path> {
        self.file.as_ref().map(|file| &*file.path)
    }

    /// An empty buffer to put in place of the pending records.
    pub(super) fn take_spare(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.spare)
    }

    /// Hands records to the kernel, after those that the file refused before.
    pub(super) fn write_through(&mut self, mut records: Vec<u8>) -> io::Result<()> {
        self.write(&records).unwrap_or_default(); // the flush tries again to write what is refused now
        let result = self.flush();
        records.clear();
        records.shrink_to(SPARE_BYTES);
        self.spare = records;
        result
    }

    /// Puts records into all buffers.
    pub(super) fn write(&mut self, records: &[u8]) -> io::Result<()> {
        if let Some(next) = self.next.as_mut().filter(|next| next.error.is_none()) {
            let result = next.output.writer.write_all(records);
            next.note(result);
        }
        self.write_file(records)
    }

    /// Writes all bytes to the file, or keeps what it does not take. (`write_all` does not tell how many
    /// bytes it wrote.)
    fn write_file(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        let Some(Output { writer, .. }) = &mut self.file else { return Ok(()) };
        let mut result = Ok(());
        while self.refused.is_empty() && result.is_ok() && !bytes.is_empty() {
            match writer.write(bytes) {
                Ok(0) => result = Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => result = Err(error),
            }
        }
        self.refused.extend_from_slice(bytes);
        result
    }

    fn flush(&mut self) -> io::Result<()> {
        let next = self.flush_next();
        if !self.refused.is_empty() {
            let refused = std::mem::take(&mut self.refused);
            self.write_file(&refused)?;
        }
        self.file.as_mut().map_or(Ok(()), |file| file.writer.flush())?;
        next
    }

    fn flush_next(&mut self) -> io::Result<()> {
        if let Some(next) = self.next.as_mut().filter(|next| next.error.is_none()) {
            let result = next.output.writer.flush();
            next.note(result);
        }
        self.next_result()
    }

    /// Fails if the new file could not be written or synced.
    pub(super) fn next_result(&self) -> io::Result<()> {
        let error = self.next.as_ref().and_then(|next| next.error.as_ref());
        error.map_or(Ok(()), |error| Err(copy_of(error)))
    }

    /// Whether the file refused something that is still to be written.
    pub(super) fn has_refused(&self) -> bool {
        !self.refused.is_empty()
    }

    /// How long the file will be once everything that waits here is written to it.
    pub(super) fn length(&self) -> io::Result<Option<u64>> {
        let length = self.file.as_ref().map(Output::length).transpose()?;
        Ok(length.map(|length| length + self.refused.len() as u64))
    }

    /// The same for the new file, unless it has failed, with the LSN and the size at which it had caught up.
    pub(super) fn next_length(&self) -> io::Result<Option<(u64, (u64, u64))>> {
        let next = self.next.as_ref().filter(|next| next.error.is_none());
        next.map(|next| Ok((next.output.length()?, next.level))).transpose()
    }
}
