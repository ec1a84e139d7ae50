//! The log as a stream of bytes, as replicas read it: where in which file the bytes of an LSN are.
//!
//! The stream is what was appended: LSNs count its bytes. A file of the log holds a part of it, in one or
//! more *segments*. A rewritten log begins with a snapshot, which is not part of the stream, and annotations
//! ([`Aof::annotate`]) stand between segments. So a segment is a place in a file and the LSN of its first
//! byte; it ends where the next one begins. The file that a rewrite has replaced stays readable through its
//! handle, although it has lost its name.
//!
//! A [`StreamReader`] remembers its place and looks it up again only after segments have changed, which the
//! *generation* tells. It reads no further than the log is flushed, and loads the flushed LSN before the
//! generation: an annotation at an LSN is announced before any byte behind it is flushed, so a reader never
//! takes an annotation for a part of the stream.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::file::LogFile;
use super::writer::Aof;
use crate::stats::lock;

/// A piece of the stream that stands in one place.
struct Segment {
    /// The LSN at which it begins: that of the record before it.
    lsn: u64,
    /// Where it begins in the file.
    position: u64,
    file: Arc<dyn LogFile>,
}

/// Where the stream can be read. Guarded by the lock on the files.
#[derive(Default)]
pub(super) struct Stream {
    /// In ascending order. The last one goes on at the end of the log.
    segments: VecDeque<Segment>,
}

impl Stream {
    /// Forgets everything before, and begins in this place.
    pub(super) fn begin(&mut self, lsn: u64, position: u64, file: Arc<dyn LogFile>) {
        self.segments.clear();
        self.go_on(lsn, position, file);
    }

    /// Goes on in this place.
    pub(super) fn go_on(&mut self, lsn: u64, position: u64, file: Arc<dyn LogFile>) {
        debug_assert!(self.segments.back().is_none_or(|last| last.lsn <= lsn));
        self.segments.push_back(Segment { lsn, position, file });
    }

    /// Goes on in this place of the file that has the last segment, behind an annotation.
    pub(super) fn go_on_behind(&mut self, lsn: u64, position: u64) {
        if let Some(last) = self.segments.back() {
            let file = last.file.clone();
            self.go_on(lsn, position, file);
        }
    }

    pub(super) fn clear(&mut self) {
        self.segments.clear();
    }

    /// Goes on in the new file of a rewrite, which has a copy of the old file's bytes from a position on.
    pub(super) fn move_to(&mut self, new: &Arc<dyn LogFile>, copied: &Copied) {
        let Copied { lsn, old, new: start } = *copied;
        let Some(file) = self.segments.back().map(|last| last.file.clone()) else { return };
        let is_copied = |segment: &&Segment| {
            Arc::ptr_eq(&segment.file, &file) && segment.lsn >= lsn && segment.position > old
        };
        let moved = self.segments.iter().filter(is_copied);
        let moved: Vec<(u64, u64)> =
            moved.map(|segment| (segment.lsn, segment.position - old + start)).collect();
        self.segments.retain(|segment| segment.lsn < lsn);
        self.go_on(lsn, start, new.clone());
        moved.into_iter().for_each(|(lsn, position)| self.go_on(lsn, position, new.clone()));
    }

    /// Forgets what comes before this LSN, as far as it stands in other files than the last segment. Returns
    /// it.
    fn forget_before(&mut self, lsn: u64) -> Vec<Segment> {
        let mut forgotten = Vec::new();
        let Some(last) = self.segments.back().map(|last| last.file.clone()) else {
            return forgotten;
        };
        while let (Some(first), Some(next)) = (self.segments.front(), self.segments.get(1))
            && next.lsn <= lsn
            && !Arc::ptr_eq(&first.file, &last)
        {
            forgotten.extend(self.segments.pop_front());
        }
        forgotten
    }
}

/// Where a rewrite has copied the stream from, and to.
#[derive(Clone, Copy, Default)]
pub(super) struct Copied {
    /// The LSN of the snapshot.
    pub(super) lsn: u64,
    /// The position in the old file from which on it was copied.
    pub(super) old: u64,
    /// The position of these bytes in the new file.
    pub(super) new: u64,
}

/// Wakes those who wait for the flush of an LSN.
#[derive(Default)]
pub(super) struct Readers {
    /// Raised when segments have changed.
    generation: AtomicU64,
    waiting: AtomicUsize,
    lock: Mutex<()>,
    flushed: Condvar,
}

impl Readers {
    /// To be called after segments have changed, and before anything behind them is flushed.
    pub(super) fn segments_changed(&self) {
        self.generation.fetch_add(1, SeqCst);
    }

    /// To be called after a flush.
    pub(super) fn wake(&self) {
        if self.waiting.load(SeqCst) > 0 {
            drop(lock(&self.lock)); // a reader that has just looked waits by now
            self.flushed.notify_all();
        }
    }
}

impl Aof {
    /// Waits until the kernel has more of the log than up to this LSN, or for that long.
    pub fn wait_flushed(&self, lsn: u64, patience: Duration) {
        let readers = &self.readers;
        readers.waiting.fetch_add(1, SeqCst);
        let none = |(): &mut ()| self.flushed_lsn() <= lsn;
        let waited = readers.flushed.wait_timeout_while(lock(&readers.lock), patience, none);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
        readers.waiting.fetch_sub(1, SeqCst);
    }

    /// The first LSN from which on the stream can be read.
    pub fn stream_from(&self) -> u64 {
        let end = self.appended_lsn();
        self.lock_files().stream.segments.front().map_or(end, |first| first.lsn)
    }

    /// Closes files that rewrites have replaced, as far as they hold nothing from this LSN on. A reader keeps
    /// the one that it reads.
    pub fn forget_before(&self, lsn: u64) {
        let forgotten = self.lock_files().stream.forget_before(lsn);
        // Without the lock: closing a large file that has no name any more takes tens of milliseconds.
        drop(forgotten);
    }
}

/// Reads the stream from an LSN on.
pub struct StreamReader {
    lsn: u64,
    /// The segment in which that is; `None` before it was looked up.
    place: Option<Place>,
}

struct Place {
    file: Arc<dyn LogFile>,
    /// The position of the next byte.
    position: u64,
    /// The LSN at which the segment ends, as of this generation.
    end: u64,
    generation: u64,
}

impl StreamReader {
    /// A reader of what comes behind this LSN.
    pub fn new(lsn: u64) -> StreamReader {
        StreamReader { lsn, place: None }
    }

    /// Everything up to this LSN was read.
    pub fn lsn(&self) -> u64 {
        self.lsn
    }

    /// Reads what the log has flushed. Returns how many bytes were read: 0 if there is no more.
    ///
    /// # Errors
    /// The file cannot be read, or the log does not go back so far.
    pub fn read(&mut self, aof: &Aof, buffer: &mut [u8]) -> io::Result<usize> {
        let flushed = aof.flushed_lsn(); // before the generation
        let generation = aof.readers.generation.load(SeqCst);
        if flushed <= self.lsn {
            return Ok(0);
        }
        let place = match &mut self.place {
            Some(place) if place.generation == generation && self.lsn < place.end => place,
            place => place.insert(Place::find(aof, self.lsn)?),
        };
        let left = place.end.min(flushed).saturating_sub(self.lsn);
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let read = place.file.read_at(&mut buffer[..wanted], place.position)?;
        if read == 0 && wanted > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        place.position += read as u64;
        self.lsn += read as u64;
        Ok(read)
    }
}

impl Place {
    fn find(aof: &Aof, lsn: u64) -> io::Result<Place> {
        let files = aof.lock_files();
        let generation = aof.readers.generation.load(SeqCst);
        let segments = &files.stream.segments;
        let behind = segments.partition_point(|segment| segment.lsn <= lsn);
        let Some(Segment { lsn: begins, position, file }) =
            behind.checked_sub(1).and_then(|at| segments.get(at))
        else {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the log begins later"));
        };
        let end = segments.get(behind).map_or(u64::MAX, |next| next.lsn);
        Ok(Place { file: file.clone(), position: position + (lsn - begins), end, generation })
    }
}
