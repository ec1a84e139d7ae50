//! The log of a replica: it is the master's stream, byte for byte, behind a snapshot.
//!
//! While the log *follows*, it takes no records of our own. So the offsets of the master's stream are ours
//! too: other replicas can be fed from this log, and a restart goes on where it ended.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use super::rewrite::temporary;
use super::snapshot::Records;
use super::writer::Aof;
use crate::files::create;
use crate::resp::request::encode;
use crate::store::Keyspace;
use crate::store::keyspace::{SaveShard, SnapshotError};
use crate::store::shard::Shard;
use crate::store::snapshot::SnapshotWriter;

/// Queued shards are written once they have this many bytes.
const WRITE_BYTES: usize = 256 << 10;

impl Aof {
    /// From now on the log is a copy of a master's stream. The caller has locked all shards.
    pub fn follow(&self) {
        self.lock_pending().follows = true;
    }

    /// From now on the log takes our own records again.
    pub fn lead(&self) {
        let mut pending = self.lock_pending();
        pending.follows = false;
        pending.db = None;
    }

    /// Appends bytes of the master's stream: whole commands, after which that database is selected. The
    /// caller still holds the lock on the shards that they changed. Returns their LSN, which is counted even
    /// if there is no file.
    pub fn append_foreign(&self, bytes: &[u8], db: usize) -> u64 {
        let mut pending = self.lock_pending();
        if self.keeps_records() {
            pending.push_as_is(bytes);
        } else {
            pending.count(bytes.len());
        }
        pending.db = Some(db);
        pending.appended
    }

    /// From here on the log is a copy of a stream that goes on in that database. Returns the LSN here.
    pub fn begin_foreign(&self, db: usize) -> u64 {
        let mut pending = self.lock_pending();
        pending.db = Some(db);
        pending.appended
    }

    /// Whether the log is a copy of a master's stream.
    pub fn follows(&self) -> bool {
        self.lock_pending().follows
    }

    /// The database that is selected at the end of the log, if it is known.
    pub fn selected_db(&self) -> Option<usize> {
        self.lock_pending().db
    }

    /// Replaces the log by the one that [`write_log`] has written, which gets the log's name. The caller has
    /// claimed a rewrite and locked all shards. The directory is to be synced.
    ///
    /// # Errors
    /// The old log is still in use.
    pub fn take_over(&self, new: File, path: &Path) -> io::Result<()> {
        std::fs::rename(temporary(path), path)?;
        self.open(Box::new(new), path).inspect_err(|error| self.fail_file(error))?;
        self.heal();
        Ok(())
    }
}

/// Writes a keyspace that nobody else uses to the file in which a rewrite would build a log for that path.
/// Behind the snapshot come a `SELECT` of that database, and then `end`. Calls `progress` now and then; its
/// error ends the writing.
///
/// # Errors
/// The file cannot be written.
pub fn write_log(
    keyspace: &Keyspace,
    path: &Path,
    db: usize,
    end: &[u8],
    mut progress: impl FnMut() -> io::Result<()>,
) -> io::Result<File> {
    let mut file = create(&temporary(path))?;
    // The lock says that this server uses the log.
    file.try_lock().map_err(io::Error::from)?;
    let snapshot = Arc::new(SnapshotWriter::new(file.try_clone()?, Records));
    let writer = snapshot.clone();
    let save: Arc<SaveShard> = Arc::new(move |shard: &Shard, now| writer.save(shard, now));
    let written = keyspace.snapshot(
        false,
        &save,
        |_| Ok(()),
        |_| {
            progress()?;
            snapshot.write_if_more_than(WRITE_BYTES).map(drop)
        },
    );
    match written {
        Ok(()) => {}
        Err(SnapshotError::Io(error)) => return Err(error),
        Err(SnapshotError::Yielded) => return Err(io::Error::other("it was interrupted")),
    }
    snapshot.write_if_more_than(0)?;
    let mut last = Vec::new();
    encode(&mut last, &[b"SELECT", db.to_string().as_bytes()]);
    last.extend(end);
    file.write_all(&last)?;
    file.sync_data()?;
    Ok(file)
}
