//! Opening the log and replaying it, before the server serves.
//!
//! [`crate::aof`] specifies what the end of a log may look like and what is done with it.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::{Duration, Instant};

use crate::aof::{ReplayError, replay, rewrite};
use crate::config::logger::log_line;
use crate::dispatch;
use crate::files::{expect_file, private, remove};
use crate::session::Server;

/// How often the replay logs its progress.
const PROGRESS_PERIOD: Duration = Duration::from_secs(2);

/// Opens the log for appending, and locks it so that no second server writes into it.
pub(super) fn open(path: &Path) -> Result<File, String> {
    let shown = path.display();
    let open = || private().read(true).append(true).create(true).open(path);
    let log = expect_file(path).and_then(|()| open());
    let log = log.map_err(|error| format!("can't open the log '{shown}': {error}"))?;
    match log.try_lock() {
        Ok(()) => {
            // Left over from a crash during a rewrite.
            remove(&rewrite::temporary(path));
            remove(&rewrite::tail(path));
            Ok(log)
        }
        Err(TryLockError::WouldBlock) => {
            Err(format!("the log '{shown}' is in use by another server"))
        }
        Err(TryLockError::Error(error)) => Err(format!("can't lock the log '{shown}': {error}")),
    }
}

/// Logs every now and then how much of a file has been read.
pub(super) fn progress(server: &Server, path: &Path, total: u64) -> impl FnMut(u64) {
    let mut last_said = Instant::now();
    move |read| {
        server.keyspace.tick();
        if last_said.elapsed() >= PROGRESS_PERIOD {
            last_said = Instant::now();
            let (shown, percent) = (path.display(), read * 100 / total.max(1));
            log_line!(server.config, Notice, "Loading '{shown}': {percent} %");
        }
    }
}

/// Replays the log. A torn tail is cut off and kept in a side file.
pub(super) fn load(server: &Server, mut log: File) -> Result<(), String> {
    let path = server.config.log_path();
    let shown = path.display();
    let explain = |error: ReplayError| format!("can't use the log '{shown}': {error}");
    let total = log.metadata().map_err(|error| explain(error.into()))?.len();
    let started = Instant::now();
    let replayed = dispatch::replay::load(server, &mut log, progress(server, &path, total))
        .map_err(explain)?;
    if replayed.torn_bytes > 0 && !server.config.aof_load_truncated.load(Relaxed) {
        return Err(format!(
            "the log '{shown}' ends in the middle of a record, at offset {}, and aof-load-truncated \
             is 'no': let it be 'yes', or mend the log with --check-aof {shown} --fix",
            replayed.valid_bytes
        ));
    }
    if replayed.torn_bytes > 0 {
        let (cut, offset) = (replayed.torn_bytes, replayed.valid_bytes);
        let kept = match replay::cut(&mut log, &path, offset) {
            Ok(side) => Ok(format!("kept in '{}'", side.display())),
            // No client has learned of what is in a torn tail, so a full disk must not keep the server down.
            Err(error) if error.kind() == std::io::ErrorKind::StorageFull => {
                log.set_len(offset).map(|()| format!("not kept: {error}"))
            }
            Err(error) => Err(error),
        };
        let kept =
            kept.map_err(|error| format!("can't cut the torn tail of the log '{shown}': {error}"))?;
        let what = format!("cut {cut} bytes at offset {offset}, {kept}");
        log_line!(
            server.config,
            Warning,
            "The AOF '{shown}' ended in the middle of a record: {what}"
        );
    }
    let identity = &server.replication.identity;
    let places = identity.load(&replayed.annotations, replayed.valid_bytes);
    server.aof.start(replayed.valid_bytes, &places);
    if server.upstream.follows() {
        server.aof.begin_foreign(replayed.db);
    } else {
        identity.start_as_master(server.aof.appended_lsn());
    }
    drop(log); // its lock would be in the way of a log that is switched off and on
    server.loading.store(false, SeqCst);
    let (records, bytes) = (replayed.records, replayed.valid_bytes);
    let seconds = started.elapsed().as_secs_f64();
    log_line!(
        server.config,
        Notice,
        "Loaded '{shown}': {records} records, {bytes} bytes, {seconds:.3} s"
    );
    Ok(())
}
