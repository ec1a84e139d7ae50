//! A start without a log: the data that was saved before, or that another server left.
//!
//! With `appendonly yes` the data is loaded and then written as a log, before the first client is served. The
//! log appears with its rename, when it is complete, so a start that is interrupted changes nothing, and the
//! next one begins again. With `appendonly no` the RDB file is all there is.

use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{Ordering::Relaxed, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crate::config::Config;
use crate::config::logger::log_line;
use crate::files::remove;
use crate::rdb::read::{Loaded, Rules, read};
use crate::rdb::save;
use crate::session::Server;
use crate::store::now_ms;

/// How often loading logs its progress.
const PROGRESS_PERIOD: Duration = Duration::from_secs(2);

/// The file to load.
pub(super) struct Import {
    path: PathBuf,
    /// Locked, so that no second server loads it into a log at the same place.
    file: File,
}

/// Finds the file to load, if there is no log to load.
pub(super) fn find(config: &Config) -> Result<Option<Import>, String> {
    if config.appendonly.load(Relaxed) && config.log_path().exists() {
        return Ok(None);
    }
    let path = config.dump_path();
    let shown = path.display();
    remove(&save::temporary(&path)); // left over from a crash
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("can't open '{shown}': {error}")),
    };
    match file.try_lock() {
        Ok(()) => Ok(Some(Import { path, file })),
        Err(TryLockError::WouldBlock) => Err(format!("'{shown}' is in use by another server")),
        Err(TryLockError::Error(error)) => Err(format!("can't lock '{shown}': {error}")),
    }
}

/// Loads the file, and writes the log if there shall be one.
pub(super) fn load(server: &Server, import: &Import) -> Result<(), String> {
    let started = Instant::now();
    let Loaded { keys, expired, libraries, bytes } = load_dump(server, &import.path, &import.file)
        .map_err(|why| format!("can't load '{}': {why}", import.path.display()))?;
    let (shown, seconds) = (import.path.display(), started.elapsed().as_secs_f64());
    log_line!(
        server.config,
        Notice,
        "Loaded '{shown}': {keys} keys, {expired} expired, {bytes} bytes, {seconds:.3} s"
    );
    if libraries > 0 {
        let text = "there are no functions here, so these libraries were left out";
        log_line!(server.config, Warning, "'{shown}': {text}: {libraries}");
    }
    if server.config.appendonly.load(Relaxed) {
        server.aof.rewrites.claim_next();
        server.rewrite().map_err(|error| format!("can't write the log: {error}"))?;
    }
    server.loading.store(false, SeqCst);
    Ok(())
}

fn load_dump(server: &Server, path: &Path, file: &File) -> Result<Loaded, String> {
    let total = file.metadata().map_err(|error| error.to_string())?.len();
    let rules = Rules::of(&server.config, &server.keyspace, Some(now_ms()));
    let mut last_said = Instant::now();
    let loaded = read(file, &rules, |record, read| {
        if last_said.elapsed() >= PROGRESS_PERIOD {
            last_said = Instant::now();
            let percent = read * 100 / total.max(1);
            log_line!(server.config, Notice, "Loading '{}': {percent} %", path.display());
        }
        record.store(&server.keyspace)
    });
    let loaded = loaded.map_err(|error| error.to_string())?;
    server.saves.loaded.add(loaded.keys);
    server.saves.expired.add(loaded.expired);
    Ok(loaded)
}
