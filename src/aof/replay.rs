//! Reading the log back: the only way in which data survives.
//!
//! The file's records go, one by one, to a closure that applies them; this module knows no commands.
//! What the tail of a file may look like, and what is damage, is specified in [`super`].

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::resp::{Args, Request};

const READ_BYTES: usize = 256 << 10;

/// What a replay found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Commands applied.
    pub records: u64,
    /// Bytes of the file that are whole records. What follows them is a torn tail.
    pub valid_bytes: u64,
    /// Bytes of the torn tail.
    pub torn_bytes: u64,
}

/// Why the log cannot be used.
#[derive(Debug)]
pub enum ReplayError {
    /// It cannot be read.
    Io(io::Error),
    /// It is damaged: from that offset on it is not a log.
    Damage {
        /// Bytes before the damage.
        offset: u64,
        /// What is wrong.
        why: String,
    },
}

impl fmt::Display for ReplayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReplayError::Io(error) => write!(f, "it cannot be read: {error}"),
            ReplayError::Damage { offset, why } => write!(f, "damaged at offset {offset}: {why}"),
        }
    }
}

impl From<io::Error> for ReplayError {
    fn from(error: io::Error) -> ReplayError {
        ReplayError::Io(error)
    }
}

/// Reads the whole log, handing each command to `apply`; `progress` hears of the bytes read so far.
///
/// # Errors
/// The file cannot be read, is damaged, or holds a command that `apply` refuses with a reason.
pub fn replay(
    log: impl Read,
    bulk_limit: i64,
    mut apply: impl FnMut(Args) -> Result<(), String>,
    mut progress: impl FnMut(u64),
) -> Result<Replayed, ReplayError> {
    let mut input = BufReader::with_capacity(READ_BYTES, log);
    let mut request = Request::new(bulk_limit);
    let mut replayed = Replayed::default();
    // Where the record began that is being read; and the block, if one is open, with its start.
    let (mut offset, mut read) = (0u64, 0u64);
    let mut block: Option<(u64, Vec<Request>)> = None;
    loop {
        let buffer = input.fill_buf()?;
        if buffer.is_empty() {
            break;
        }
        if !request.is_partial() {
            match buffer[0] {
                b'*' => {}
                b'#' => {
                    let mut line = Vec::new();
                    read += input.read_until(b'\n', &mut line)? as u64;
                    if line.ends_with(b"\n") {
                        offset = read;
                        replayed.valid_bytes = offset;
                    }
                    continue;
                }
                b'R' if buffer.starts_with(b"REDIS") => {
                    let why = "it begins with an RDB snapshot, which only Redis reads; there, run \
                               CONFIG SET aof-use-rdb-preamble no, then BGREWRITEAOF";
                    return Err(ReplayError::Damage { offset, why: why.into() });
                }
                byte => {
                    if byte == 0 && only_zeros(&mut input, &mut read)? {
                        break;
                    }
                    let why = format!("expected '*', got '{}'", byte.escape_ascii());
                    return Err(ReplayError::Damage { offset, why });
                }
            }
        }
        let damage = |why: String| ReplayError::Damage { offset, why };
        let step = request.feed(buffer).map_err(|error| damage(error.to_string()))?;
        input.consume(step.used);
        read += step.used as u64;
        progress(read);
        if !step.complete {
            continue;
        }
        let name = &request.args()[0];
        if name.eq_ignore_ascii_case(b"multi") && block.is_none() {
            block = Some((offset, Vec::new()));
        } else if name.eq_ignore_ascii_case(b"exec") && block.is_some() {
            for queued in block.take().iter().flat_map(|(_, queued)| queued) {
                apply(queued.args()).map_err(damage)?;
                replayed.records += 1;
            }
        } else if let Some((_, queued)) = &mut block {
            queued.push(std::mem::replace(&mut request, Request::new(bulk_limit)));
        } else {
            apply(request.args()).map_err(damage)?;
            replayed.records += 1;
        }
        request.clear();
        offset = read;
        if block.is_none() {
            replayed.valid_bytes = offset;
        }
    }
    replayed.torn_bytes = read - replayed.valid_bytes;
    Ok(replayed)
}

/// Reads on to the end of the file; says whether it consists of zeros from here on.
fn only_zeros(input: &mut impl BufRead, read: &mut u64) -> io::Result<bool> {
    loop {
        let buffer = input.fill_buf()?;
        let length = buffer.len();
        if length == 0 {
            return Ok(true);
        }
        if buffer.iter().any(|&byte| byte != 0) {
            return Ok(false);
        }
        *read += length as u64;
        input.consume(length);
    }
}

/// Cuts the torn tail off the log and keeps it in a side file, whose path is returned.
///
/// # Errors
/// The tail could not be saved (then the log is as it was), or not cut.
pub fn cut_torn_tail(log: &mut File, path: &Path, replayed: &Replayed) -> io::Result<PathBuf> {
    let mut side = path.as_os_str().to_owned();
    side.push(format!(".torn-{}", replayed.valid_bytes));
    let (mut file, side) = create_new(&PathBuf::from(side))?;
    log.seek(SeekFrom::Start(replayed.valid_bytes))?;
    io::copy(log, &mut file)?;
    file.flush()?;
    file.sync_all()?;
    log.set_len(replayed.valid_bytes)?;
    log.sync_all()?;
    Ok(side)
}

/// Creates a file that does not exist yet, of that name or one with a number behind it.
fn create_new(path: &Path) -> io::Result<(File, PathBuf)> {
    let mut candidate = path.to_path_buf();
    for number in 1.. {
        match OpenOptions::new().write(true).create_new(true).open(&candidate) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let mut next = path.as_os_str().to_owned();
                next.push(format!(".{number}"));
                candidate = next.into();
            }
            result => return Ok((result?, candidate)),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &[u8] = b"*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n*1\r\n$5\r\nMULTI\r\n*1\r\n$1\r\na\r\n\
        *1\r\n$1\r\nb\r\n*1\r\n$4\r\nEXEC\r\n#TS:17\r\n*1\r\n$1\r\nc\r\n";

    fn read(log: &[u8]) -> (Vec<String>, Result<Replayed, ReplayError>) {
        let mut applied = Vec::new();
        let apply = |args: Args| match &args[0] {
            b"bad" => Err("unknown command".to_string()),
            name => {
                applied.push(name.escape_ascii().to_string());
                Ok(())
            }
        };
        let result = replay(log, 512 << 20, apply, |_| {});
        (applied, result)
    }

    fn damage(log: &[u8]) -> String {
        read(log).1.err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn cut_at_any_byte_a_log_gives_whole_records_and_whole_blocks() {
        // Behind SELECT, EXEC, the annotation and the last record.
        let whole = [(0, 0), (23, 1), (74, 3), (82, 3), (LOG.len(), 4)];
        for length in 0..=LOG.len() {
            let (applied, result) = read(&LOG[..length]);
            let (valid, records) =
                whole.iter().rev().find(|(end, _)| *end <= length).copied().unwrap_or_default();
            let expected = Replayed {
                records: records as u64,
                valid_bytes: valid as u64,
                torn_bytes: (length - valid) as u64,
            };
            assert_eq!(result.ok(), Some(expected), "cut at {length}");
            assert_eq!(applied, ["SELECT", "a", "b", "c"][..records]);
        }
    }

    #[test]
    fn a_tail_of_zeros_is_torn_and_zeros_before_something_are_damage() {
        let mut log = LOG.to_vec();
        log.extend([0; 5000]);
        let torn = read(&log).1.ok().map(|replayed| replayed.torn_bytes);
        assert_eq!(torn, Some(5000));
        log.push(b'*');
        assert!(damage(&log).starts_with(&format!("damaged at offset {}", LOG.len())));
    }

    #[test]
    fn damage_is_reported_with_the_offset_of_its_record() {
        let behind = |bad: &[u8]| damage(&[LOG, bad].concat());
        let at = format!("damaged at offset {}: ", LOG.len());
        assert_eq!(behind(b"xyz"), format!("{at}expected '*', got 'x'"));
        assert_eq!(behind(b"*1\r\n$x\r\n"), format!("{at}invalid bulk length"));
        assert_eq!(behind(b"*1\r\n$3\r\nbad\r\n"), format!("{at}unknown command"));
        assert!(behind(b"REDIS0011").contains("aof-use-rdb-preamble no"));
    }
}
