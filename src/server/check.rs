//! `respite --check-aof FILE [--fix]`: checks a log without starting a server, and repairs it.

use std::fmt::Write;
use std::fs::OpenOptions;
use std::path::Path;
use std::sync::Arc;

use crate::aof::replay::{ANY_LENGTH, ReplayError, cut, read_preamble, replay};
use crate::config::Config;
use crate::dispatch;
use crate::files::expect_file;
use crate::rdb::read::Rules;
use crate::resp::Args;
use crate::store::Keyspace;

/// Reads the log as the server would, without running its commands, and reports what it finds. A record that
/// only fails when it runs is not noticed. With `fix`,
/// everything after the last good record is cut off and kept in a side file.
///
/// # Errors
/// The report, if the log is bad and was not repaired, or why it cannot be read.
pub fn check_aof(path: &Path, fix: bool) -> Result<String, String> {
    let shown = path.display();
    let unreadable = |error: std::io::Error| format!("can't read '{shown}': {error}\n");
    let mut options = OpenOptions::new();
    options.read(true).append(fix);
    let log = expect_file(path).and_then(|()| options.open(path));
    let mut log = log.map_err(unreadable)?;
    // Locked before it is read: a server that still writes it must not lose what comes later.
    let locked = fix && log.try_lock().is_ok();
    let size = log.metadata().map_err(unreadable)?.len();
    let mut records = 0;
    let (mut good, mut complaint) = (size, None);
    let check = |args: Args| {
        records += 1;
        dispatch::check(args)
    };
    let config = Arc::new(Config::new());
    let rules =
        Rules { databases: usize::MAX, ..Rules::of(&config, &Keyspace::new(config.clone()), None) };
    let preamble = match read_preamble(&mut log, &rules, |_| Ok(()), |_| {}) {
        Ok(preamble) => preamble,
        Err(error) => {
            return Err(format!(
                "'{shown}': the snapshot at its beginning cannot be loaded: {error}\n"
            ));
        }
    };
    match replay(&mut log, preamble.bytes, ANY_LENGTH, check, |_| {}) {
        Ok(replayed) => {
            if replayed.torn_bytes > 0 {
                good = replayed.valid_bytes;
                complaint = Some("it ends in the middle of a record (a torn tail)".to_string());
            }
        }
        Err(ReplayError::Damage { offset, valid_bytes, why }) => {
            good = valid_bytes;
            complaint = Some(if offset == valid_bytes {
                why
            } else {
                format!("in a MULTI without a good EXEC, at offset {offset}: {why}")
            });
        }
        Err(ReplayError::Io(error)) => return Err(unreadable(error)),
        Err(error @ ReplayError::Unsupported { .. }) => {
            return Err(format!("'{shown}': {error}\n"));
        }
    }
    let keys = match preamble.bytes {
        0 => String::new(),
        bytes => format!("a snapshot of {} keys in {bytes} bytes, ", preamble.keys),
    };
    let mut report = format!("'{shown}': {keys}{records} records, {size} bytes\n");
    let Some(complaint) = complaint else {
        report.push_str("The log is good.\n");
        return Ok(report);
    };
    // Writing to a String cannot fail.
    let bad = size - good;
    let report_written = writeln!(report, "Bad from offset {good} on ({bad} bytes): {complaint}");
    report_written.unwrap_or_default();
    if fix && !locked {
        report.push_str("It is in use by a server, and is left as it is.\n");
        return Err(report);
    }
    if !fix {
        report.push_str("With --fix these bytes are cut off and kept in a side file.\n");
        return Err(report);
    }
    let side =
        cut(&mut log, path, good).map_err(|error| format!("can't cut '{shown}': {error}\n"))?;
    report.push_str(&format!("Cut off; they are in '{}'. The log is good now.\n", side.display()));
    Ok(report)
}
