//! A start without a log: the data that was saved before, or that another server left.
//!
//! With `appendonly yes` that is Redis's own log, in the directory `appenddirname`, or else the RDB file. The
//! data is loaded and then written as a log, before the first client is served. The log appears with its
//! rename, when it is complete, so a start that is interrupted changes nothing, and the next one begins
//! again. With `appendonly no` the RDB file is all there is. What is loaded is not changed.
//!
//! Redis's log consists of several files. A *manifest* names them, in lines such as
//!
//! ```text
//! file appendonly.aof.2.base.rdb seq 2 type b
//! file appendonly.aof.5.incr.aof seq 5 type i
//! ```
//!
//! First comes the one of type `b`, the result of a rewrite, then those of type `i` in the order of the
//! lines; those of type `h` are no longer part of the log.

use std::fs::{File, TryLockError};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{Ordering::Relaxed, Ordering::SeqCst};
use std::time::Instant;

use super::log::progress;
use crate::config::Config;
use crate::config::logger::log_line;
use crate::dispatch;
use crate::files::{expect_file, remove};
use crate::rdb::read::{Loaded, Record, Rules, read};
use crate::rdb::save;
use crate::replication::identity::is_place;
use crate::session::Server;
use crate::store::now_ms;
use crate::text::split_quoted;

/// What there is to load.
pub(super) struct Import {
    kind: Kind,
    path: PathBuf,
    /// Locked, so that no second server loads it into a log at the same place.
    file: File,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A manifest.
    Manifest,
    /// An RDB file.
    Dump,
}

/// Finds what there is to load, if there is no log.
pub(super) fn find(config: &Config) -> Result<Option<Import>, String> {
    if config.appendonly.load(Relaxed) {
        if config.log_path().exists() {
            return Ok(None);
        }
        if let Some(manifest) = find_manifest(config)? {
            return open(Kind::Manifest, manifest);
        }
    }
    let path = config.dump_path();
    remove(&save::temporary(&path)); // left over from a crash
    open(Kind::Dump, path)
}

/// The manifest that has the name of the log or, without one, the only manifest in the directory.
fn find_manifest(config: &Config) -> Result<Option<PathBuf>, String> {
    let directory = PathBuf::from(config.dir.get()).join(config.appenddirname.get());
    let named = directory.join(format!("{}.manifest", config.appendfilename.get()));
    if named.exists() {
        return Ok(Some(named));
    }
    let paths = match std::fs::read_dir(&directory) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(format!("can't read '{}': {error}", directory.display()));
        }
        paths => paths.into_iter().flatten().flatten(),
    };
    let is_manifest = |path: &PathBuf| path.extension().is_some_and(|end| end == "manifest");
    let mut found: Vec<PathBuf> = paths.map(|entry| entry.path()).filter(is_manifest).collect();
    if found.len() > 1 {
        let shown = directory.display();
        return Err(format!("'{shown}' has several manifests: set 'appendfilename' to choose one"));
    }
    Ok(found.pop())
}

fn open(kind: Kind, path: PathBuf) -> Result<Option<Import>, String> {
    let shown = path.display();
    let file = match expect_file(&path).and_then(|()| File::open(&path)) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("can't open '{shown}': {error}")),
    };
    match file.try_lock() {
        Ok(()) => Ok(Some(Import { kind, path, file })),
        Err(TryLockError::WouldBlock) => Err(format!("'{shown}' is in use by another server")),
        Err(TryLockError::Error(error)) => Err(format!("can't lock '{shown}': {error}")),
    }
}

/// Loads what there is, and writes the log if there shall be one.
pub(super) fn load(server: &Server, import: &Import) -> Result<(), String> {
    let Import { kind, path, file } = import;
    match kind {
        Kind::Manifest => load_parts(server, path, file)?,
        Kind::Dump => load_dump(server, path, file)?,
    }
    if server.config.appendonly.load(Relaxed) {
        server.aof.rewrites.claim_next();
        server.rewrite().map_err(|error| format!("can't write the log: {error}"))?;
    }
    server.loading.store(false, SeqCst);
    Ok(())
}

fn load_dump(server: &Server, path: &Path, file: &File) -> Result<(), String> {
    let explain = |why: &dyn std::fmt::Display| format!("can't load '{}': {why}", path.display());
    let started = Instant::now();
    let total = file.metadata().map_err(|error| explain(&error))?.len();
    let follows = server.upstream.follows();
    // What has expired is for the master of a replica to say.
    let now_ms = (!follows).then(now_ms);
    let rules = Rules::of(&server.config, &server.keyspace, now_ms);
    let store = |record: Record| record.store(&server.keyspace);
    let loaded = read(file, &rules, store, progress(server, path, total));
    let loaded = loaded.map_err(|error| explain(&error))?;
    server.note_loaded(&loaded);
    if let (true, Some((id, offset))) = (follows, &loaded.stream)
        && is_place(id, *offset)
    {
        // The data is the master's at that offset, so the link goes on there.
        server.aof.follow();
        let lsn = server.aof.begin_foreign(loaded.stream_db);
        server.replication.identity.begin(id.clone(), *offset, lsn);
    }
    let Loaded { keys, expired, bytes, .. } = loaded;
    let (shown, seconds) = (path.display(), started.elapsed().as_secs_f64());
    let text = format!("{keys} keys, {expired} expired, {bytes} bytes, {seconds:.3} s");
    log_line!(server.config, Notice, "Loaded '{shown}': {text}");
    Ok(())
}

/// Loads the files that a manifest names.
fn load_parts(server: &Server, manifest: &Path, mut file: &File) -> Result<(), String> {
    let mut text = Vec::new();
    let parts = match file.read_to_end(&mut text) {
        Ok(_) => parse_manifest(&text),
        Err(error) => Err(error.to_string()),
    };
    let parts = parts.map_err(|why| format!("can't use '{}': {why}", manifest.display()))?;
    let last = parts.len().saturating_sub(1);
    for (number, name) in parts.iter().enumerate() {
        let path = manifest.with_file_name(name);
        load_part(server, &path, number == last)
            .map_err(|why| format!("can't load '{}': {why}", path.display()))?;
    }
    Ok(())
}

/// Loads a file of Redis's log. Only the last one may end in the middle of a record.
fn load_part(server: &Server, path: &Path, is_last: bool) -> Result<(), String> {
    let text = |error: std::io::Error| error.to_string();
    let started = Instant::now();
    let mut file = expect_file(path).and_then(|()| File::open(path)).map_err(text)?;
    let total = file.metadata().map_err(text)?.len();
    let replayed = dispatch::replay::load(server, &mut file, progress(server, path, total));
    let replayed = replayed.map_err(|error| error.to_string())?;
    let (records, bytes, torn) = (replayed.records, replayed.valid_bytes, replayed.torn_bytes);
    let shown = path.display();
    if torn > 0 {
        if !is_last || !server.config.aof_load_truncated.load(Relaxed) {
            return Err(format!("it ends in the middle of a record, at offset {bytes}"));
        }
        let text = format!("ended in the middle of a record: {torn} bytes were left out");
        log_line!(server.config, Warning, "'{shown}' {text}");
    }
    let seconds = started.elapsed().as_secs_f64();
    let text = format!("{records} records, {bytes} bytes, {seconds:.3} s");
    log_line!(server.config, Notice, "Loaded '{shown}': {text}");
    Ok(())
}

/// The names of the files of a log, in the order in which they are loaded.
fn parse_manifest(text: &[u8]) -> Result<Vec<String>, String> {
    let (mut base, mut increments) = (None, Vec::new());
    for (number, line) in text.split(|&byte| byte == b'\n').enumerate() {
        if line.trim_ascii().is_empty() || line.starts_with(b"#") {
            continue;
        }
        let bad = || format!("line {} is not that of a manifest", number + 1);
        let words = split_quoted(line).ok_or_else(bad)?;
        let value = |name: &[u8]| {
            let pair = words.chunks_exact(2).find(|pair| pair[0] == name);
            pair.map(|pair| pair[1].as_slice())
        };
        let file = value(b"file").and_then(|file| String::from_utf8(file.into()).ok());
        let file = file.filter(|file| !file.contains('/')).ok_or_else(bad)?;
        match value(b"type") {
            Some(b"b") if base.is_none() => base = Some(file),
            Some(b"i") => increments.push(file),
            Some(b"h") => {}
            _ => return Err(bad()),
        }
    }
    Ok(base.into_iter().chain(increments).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_names_the_base_first_then_the_increments_in_the_order_of_their_lines() {
        let text = b"file a.1.incr.aof seq 1 type h\n# a comment\nfile a.2.incr.aof seq 2 type i\n\
                     file \"a b.2.base.rdb\" seq 2 type b\n\nfile a.3.incr.aof seq 3 type i startoffset 7\n";
        let names = ["a b.2.base.rdb", "a.2.incr.aof", "a.3.incr.aof"];
        assert_eq!(parse_manifest(text), Ok(names.map(String::from).into()));
        assert_eq!(parse_manifest(b""), Ok(Vec::new()));
        for bad in [
            &b"file a seq 1 type x"[..],
            b"file a seq 1",
            b"seq 1 type b",
            b"file ../a seq 1 type b",
            b"file \"a seq 1 type b",
            b"file a type b\nfile b type b",
        ] {
            assert!(parse_manifest(bad).is_err(), "{}", bad.escape_ascii());
        }
    }
}
