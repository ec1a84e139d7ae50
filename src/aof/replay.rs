//! Reading the log at the start, and cutting off its torn tail.
//!
//! The caller's closure applies each record; this module knows no commands but `MULTI` and `EXEC`. It
//! applies whole records and whole blocks only. [`super`] specifies the format, what a torn tail is, and
//! what is damage. No locks are taken: the log is not written yet.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::ANNOTATION;
use crate::files::private;
use crate::rdb;
use crate::rdb::read::{Loaded, Record, Rules};
use crate::resp::{Args, Request};

const READ_BYTES: usize = 256 << 10;

/// The limit on an argument of a record: none, because `proto-max-bulk-len` may have been larger when
/// the record was written. (Minus two, since the parser adds the two bytes of the line end.)
pub const ANY_LENGTH: i64 = i64::MAX - 2;
/// Progress is reported once per this many bytes.
const PROGRESS_BYTES: u64 = 1 << 20;

/// What a replay found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Commands applied.
    pub records: u64,
    /// Bytes of the file that are whole records and blocks. A torn tail may follow them.
    pub valid_bytes: u64,
    /// Bytes of the torn tail.
    pub torn_bytes: u64,
    /// The database that is selected at the end.
    pub db: usize,
    /// The annotations about replication: each line, and the position in the file behind it.
    pub annotations: Vec<(Vec<u8>, u64)>,
}

/// Why the log cannot be used.
#[derive(Debug)]
pub enum ReplayError {
    /// It cannot be read.
    Io(io::Error),
    /// It is damaged.
    Damage {
        /// Where the damaged record begins.
        offset: u64,
        /// Bytes before it that are whole records and blocks.
        valid_bytes: u64,
        /// What is wrong, as a text for the operator.
        why: String,
    },
    /// It is sound, but has something that cannot be held here.
    Unsupported {
        /// Where that is.
        offset: u64,
        /// What it is, as a text for the operator.
        what: String,
    },
}

/// Why a command of the log is not executed, as a text for the operator.
pub enum Fault {
    Damage(String),
    Unsupported(String),
}

impl From<String> for Fault {
    fn from(why: String) -> Fault {
        Fault::Damage(why)
    }
}

impl fmt::Display for ReplayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReplayError::Io(error) => write!(f, "it cannot be read: {error}"),
            ReplayError::Damage { offset, why, .. } => {
                write!(f, "damaged at offset {offset}: {why}")
            }
            ReplayError::Unsupported { offset, what } => write!(f, "at offset {offset}: {what}"),
        }
    }
}

impl From<io::Error> for ReplayError {
    fn from(error: io::Error) -> ReplayError {
        ReplayError::Io(error)
    }
}

/// Reads the RDB snapshot that the log may begin with: Redis writes one unless its `aof-use-rdb-preamble` is
/// `no`. The result says how long it is; the commands follow. `store` gets each key.
///
/// # Errors
/// The file cannot be read, or the snapshot is damaged or has a key that cannot be held here.
pub fn read_preamble(
    log: &mut (impl Read + Seek),
    rules: &Rules,
    store: impl FnMut(Record) -> Result<(), String>,
    progress: impl FnMut(u64),
) -> Result<Loaded, ReplayError> {
    log.rewind()?;
    let mut input = BufReader::with_capacity(READ_BYTES, log);
    if !rdb::read::is_start(input.fill_buf()?) {
        return Ok(Loaded::default());
    }
    rdb::read::read_from(&mut input, rules, store, progress).map_err(|error| match error {
        rdb::Error::Io(error) => ReplayError::Io(error),
        rdb::Error::Corrupt { offset, why } => ReplayError::Damage { offset, valid_bytes: 0, why },
        rdb::Error::Unsupported { offset, what } => ReplayError::Unsupported { offset, what },
    })
}

/// Reads the log from that offset on and calls `apply` with each command. Calls `progress` now and then with
/// the number of bytes read so far.
///
/// # Errors
/// The file cannot be read or is damaged. A command for which `apply` returns a text is damage.
pub fn replay<E: Into<Fault>>(
    log: &mut (impl Read + Seek),
    start: u64,
    bulk_limit: i64,
    apply: impl FnMut(Args) -> Result<(), E>,
    progress: impl FnMut(u64),
) -> Result<Replayed, ReplayError> {
    log.seek(SeekFrom::Start(start))?;
    let replayed = Replayed { valid_bytes: start, ..Replayed::default() };
    let mut reader = Reader { replayed, bulk_limit, apply, progress };
    let result = reader.read(&mut *log);
    if let Err(ReplayError::Damage { offset, .. }) = result
        && !ends_in_zeros(log, offset, bulk_limit)?
    {
        return result.map(|()| reader.replayed);
    }
    let length = log.seek(SeekFrom::End(0))?;
    reader.replayed.torn_bytes = length - reader.replayed.valid_bytes;
    match result {
        Err(ReplayError::Damage { .. }) | Ok(()) => Ok(reader.replayed),
        Err(error) => Err(error),
    }
}

struct Reader<A, P> {
    replayed: Replayed,
    bulk_limit: i64,
    apply: A,
    progress: P,
}

impl<E: Into<Fault>, A: FnMut(Args) -> Result<(), E>, P: FnMut(u64)> Reader<A, P> {
    /// Reads up to the end, or to the first failure, and counts in `replayed` what was applied.
    fn read(&mut self, log: impl Read) -> Result<(), ReplayError> {
        let mut input = BufReader::with_capacity(READ_BYTES, log);
        let mut request = self.request();
        // `offset` is where the current record began.
        let mut offset = self.replayed.valid_bytes;
        let (mut read, mut reported) = (offset, offset);
        // The commands since a `MULTI` whose `EXEC` has not come yet.
        let mut block: Option<Vec<Request>> = None;
        loop {
            let buffer = input.fill_buf()?;
            let Some(&first) = buffer.first() else { return Ok(()) };
            let valid_bytes = self.replayed.valid_bytes;
            let damage = |why: String| ReplayError::Damage { offset, valid_bytes, why };
            let failed = |fault: E| match fault.into() {
                Fault::Damage(why) => damage(why),
                Fault::Unsupported(what) => ReplayError::Unsupported { offset, what },
            };
            if !request.is_partial() && matches!(first, b'\r' | b'\n') {
                input.consume(1);
                read += 1;
                offset = read;
                if block.is_none() {
                    self.replayed.valid_bytes = offset;
                }
                continue;
            }
            if !request.is_partial() && first == b'#' {
                let mut line = Vec::new();
                read += input.read_until(b'\n', &mut line)? as u64;
                if !line.ends_with(b"\n") {
                    return Ok(());
                }
                offset = read;
                if block.is_none() {
                    self.replayed.valid_bytes = offset;
                    if line.starts_with(ANNOTATION) {
                        self.replayed.annotations.push((line, offset));
                    }
                }
                continue;
            }
            if !request.is_partial() && first != b'*' {
                let found = first.escape_ascii();
                return Err(damage(format!("expected '*', got '{found}'")));
            }
            let step = request.feed(buffer).map_err(|error| damage(error.to_string()))?;
            input.consume(step.used);
            read += step.used as u64;
            if read - reported >= PROGRESS_BYTES {
                (self.progress)(read);
                reported = read;
            }
            if !step.complete {
                continue;
            }
            let args = request.args().map_err(io::Error::from)?;
            let name = &args[0];
            if name.eq_ignore_ascii_case(b"multi") && block.is_none() {
                block = Some(Vec::new());
            } else if name.eq_ignore_ascii_case(b"exec") && block.is_some() {
                for queued in block.take().iter().flatten() {
                    (self.apply)(queued.args().map_err(io::Error::from)?).map_err(failed)?;
                    self.replayed.records += 1;
                }
            } else if let Some(queued) = &mut block {
                queued.push(std::mem::replace(&mut request, self.request()));
            } else {
                (self.apply)(args).map_err(failed)?;
                self.replayed.records += 1;
            }
            request.clear();
            offset = read;
            if block.is_none() {
                self.replayed.valid_bytes = offset;
            }
        }
    }

    fn request(&self) -> Request {
        let mut request = Request::new(self.bulk_limit);
        request.strict = true;
        request
    }
}

/// Whether the file ends in zeros from that offset on, or from somewhere within the record that begins
/// there.
fn ends_in_zeros(log: &mut (impl Read + Seek), offset: u64, bulk_limit: i64) -> io::Result<bool> {
    log.seek(SeekFrom::Start(offset))?;
    let (mut length, mut content) = (0u64, 0u64);
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let bytes = match log.read(&mut buffer)? {
            0 => break,
            read => &buffer[..read],
        };
        if let Some(last) = bytes.iter().rposition(|&byte| byte != 0) {
            content = length + last as u64 + 1;
        }
        length += bytes.len() as u64;
    }
    if content == length {
        return Ok(false);
    }
    log.seek(SeekFrom::Start(offset))?;
    let mut input = BufReader::with_capacity(READ_BYTES, log.take(content));
    let mut request = Request::new(bulk_limit);
    request.strict = true;
    loop {
        let bytes = input.fill_buf()?;
        match bytes.first() {
            None => return Ok(true),
            Some(b'*') => {}
            Some(_) if request.is_partial() => {}
            Some(_) => return Ok(false),
        }
        match request.feed(bytes) {
            Ok(step) if !step.complete => input.consume(step.used),
            _ => return Ok(false),
        }
    }
}

/// Cuts the log off at that offset and keeps the rest in a side file. Returns the path of the side file.
///
/// # Errors
/// The rest could not be saved (then the log is unchanged), or the log could not be cut.
pub fn cut(log: &mut File, path: &Path, offset: u64) -> io::Result<PathBuf> {
    let mut side = path.as_os_str().to_owned();
    side.push(format!(".torn-{offset}"));
    let (mut file, side) = create_new(&PathBuf::from(side))?;
    log.seek(SeekFrom::Start(offset))?;
    let saved = io::copy(log, &mut file).and_then(|_| file.sync_all());
    if let Err(error) = saved {
        std::fs::remove_file(&side).unwrap_or_default();
        return Err(error);
    }
    log.set_len(offset)?;
    log.sync_all()?;
    Ok(side)
}

/// Creates a new file with this name or, if it is taken, with a number appended to it.
fn create_new(path: &Path) -> io::Result<(File, PathBuf)> {
    let mut candidate = path.to_path_buf();
    for number in 1.. {
        match private().write(true).create_new(true).open(&candidate) {
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
        let result = replay(&mut io::Cursor::new(log), 0, 512 << 20, apply, |_| {});
        (applied, result)
    }

    fn damage(log: &[u8]) -> String {
        read(log).1.err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn a_log_cut_at_any_byte_gives_whole_records_and_whole_blocks() {
        // The ends of SELECT, EXEC, the annotation and the last record, and the records up to there.
        let whole = [(0, 0), (23, 1), (74, 3), (82, 3), (LOG.len(), 4)];
        for length in 0..=LOG.len() {
            let (applied, result) = read(&LOG[..length]);
            let (valid, records) =
                whole.iter().rev().find(|(end, _)| *end <= length).copied().unwrap_or_default();
            let expected = Replayed {
                records: records as u64,
                valid_bytes: valid as u64,
                torn_bytes: (length - valid) as u64,
                db: 0,
                annotations: Vec::new(),
            };
            assert_eq!(result.ok(), Some(expected), "cut at {length}");
            assert_eq!(applied, ["SELECT", "a", "b", "c"][..records]);
        }
    }

    #[test]
    fn zeros_at_the_end_are_a_torn_tail_and_zeros_before_other_bytes_are_damage() {
        let mut log = LOG.to_vec();
        log.extend([0; 5000]);
        let torn = read(&log).1.ok().map(|replayed| replayed.torn_bytes);
        assert_eq!(torn, Some(5000));
        log.push(b'*');
        assert!(damage(&log).starts_with(&format!("damaged at offset {}", LOG.len())));
    }

    #[test]
    fn a_record_that_turns_into_zeros_at_any_byte_is_a_torn_tail() {
        let record = b"*2\r\n$3\r\nGET\r\n$5\r\nabcde\r\n";
        for kept in 0..record.len() {
            for zeros in [1, 2, 3, 700] {
                let log = [LOG, &record[..kept], &vec![0; zeros]].concat();
                // Zeros may fill the last argument, so that only the missing line end shows the tear.
                let torn = read(&log).1.ok().map(|replayed| replayed.torn_bytes);
                assert_eq!(torn, Some((kept + zeros) as u64), "{kept} bytes, {zeros} zeros");
            }
        }
    }

    #[test]
    fn damage_is_reported_with_the_offset_of_its_record() {
        let after_log = |bad: &[u8]| damage(&[LOG, bad].concat());
        let at = format!("damaged at offset {}: ", LOG.len());
        assert_eq!(after_log(b"xyz"), format!("{at}expected '*', got 'x'"));
        assert_eq!(after_log(b"*1\r\n$x\r\n"), format!("{at}invalid bulk length"));
        assert_eq!(after_log(b"*1\r\n$3\r\nbad\r\n"), format!("{at}unknown command"));
    }
}
