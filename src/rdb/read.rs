//! Reading a file: the header, the items, the checksum.
//!
//! The caller gets one key after the other and decides where it goes. A file that turns out to be damaged, or
//! to hold another type, has been read in part by then: its reader throws the keyspace away.

use std::io::{BufRead, BufReader, Read};
use std::sync::atomic::Ordering::Relaxed;

use super::input::Input;
use super::{Error, is_readable, opcode, value};
use crate::config::Config;
use crate::store::{Access, Keyspace, PackedLimits, Value};
use crate::text::integer::parse_i64;

const READ_BYTES: usize = 256 << 10;
/// Progress is reported once per this many bytes.
const PROGRESS_BYTES: u64 = 1 << 20;

/// How a file is read.
pub struct Rules {
    /// How large a hash may be to stay packed.
    pub limits: PackedLimits,
    /// How many databases there are.
    pub databases: usize,
    /// The Unix time in milliseconds by which keys expire while they are read. `None` keeps expired keys: in
    /// front of a log, because a command in it may give such a key a later expiry.
    pub now_ms: Option<i64>,
    /// Whether the checksum must be right (`rdbchecksum`).
    pub verify: bool,
}

impl Rules {
    /// The rules for reading into this keyspace.
    pub fn of(config: &Config, keyspace: &Keyspace, now_ms: Option<i64>) -> Rules {
        Rules {
            limits: keyspace.packed_limits(),
            databases: config.database_count(),
            now_ms,
            verify: config.rdbchecksum.load(Relaxed),
        }
    }
}

/// A key in a file.
pub struct Record {
    pub db: usize,
    pub key: Vec<u8>,
    pub value: Value,
    /// Unix time in milliseconds.
    pub expires_at_ms: Option<i64>,
    /// For how many seconds it had not been used, if the file says so.
    pub idle_seconds: Option<u64>,
    /// How often it was used, in the measure of LFU, if the file says so.
    pub frequency: Option<u8>,
}

impl Record {
    /// Puts the key into the keyspace.
    ///
    /// # Errors
    /// It is there already.
    pub fn store(self, keyspace: &Keyspace) -> Result<(), String> {
        let Record { db, key, value, expires_at_ms, idle_seconds, frequency } = self;
        let mut view = keyspace.write(db, std::iter::once(&key[..])).replaying(true);
        if view.get(&key, Access::Silent).is_some() {
            return Err(format!(
                "the key '{}' of database {db} is there twice",
                key.escape_ascii()
            ));
        }
        view.insert(&key, value, expires_at_ms);
        if let Some(idle_seconds) = idle_seconds {
            view.set_idle(&key, idle_seconds);
        }
        if let Some(frequency) = frequency {
            view.set_frequency(&key, frequency);
        }
        Ok(())
    }
}

/// What a file held.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Keys that the caller got.
    pub keys: u64,
    /// Keys that had expired.
    pub expired: u64,
    /// Libraries of functions, which were skipped.
    pub libraries: u64,
    /// The size of the snapshot in bytes.
    pub bytes: u64,
    /// The database in which the stream of the server that made the snapshot goes on; 0 if the file does not
    /// say.
    pub stream_db: usize,
    /// The id and the offset of that stream at the point in time that the snapshot shows, as the file says.
    pub stream: Option<(String, u64)>,
}

/// Whether bytes begin like an RDB file.
pub fn is_start(bytes: &[u8]) -> bool {
    bytes.starts_with(b"REDIS") || bytes.starts_with(b"VALKEY")
}

/// Reads a file that holds a snapshot and nothing else. `store` gets each key; its error is damage. Calls
/// `progress` now and then with the number of bytes read so far.
///
/// # Errors
/// The file is damaged, holds what does not exist here, or cannot be read.
pub fn read(
    file: impl Read,
    rules: &Rules,
    store: impl FnMut(Record) -> Result<(), String>,
    progress: impl FnMut(u64),
) -> Result<Loaded, Error> {
    let mut source = BufReader::with_capacity(READ_BYTES, file);
    let loaded = read_from(&mut source, rules, store, progress)?;
    if source.fill_buf()?.is_empty() {
        return Ok(loaded);
    }
    Err(Error::Corrupt { offset: loaded.bytes, why: "it goes on after its end".into() })
}

/// Like [`read`], but leaves `source` at what follows the snapshot.
///
/// # Errors
/// See [`read`].
pub fn read_from(
    source: &mut impl BufRead,
    rules: &Rules,
    store: impl FnMut(Record) -> Result<(), String>,
    progress: impl FnMut(u64),
) -> Result<Loaded, Error> {
    let mut input = Input::new(source);
    let version = read_version(&mut input)?;
    let loaded = Loaded::default();
    let mut reader = Reader { input, version, rules, store, progress, reported: 0, loaded, db: 0 };
    reader.items()?;
    reader.checksum()?;
    reader.loaded.bytes = reader.input.offset();
    Ok(reader.loaded)
}

fn read_version(input: &mut Input<impl Read>) -> Result<u16, Error> {
    let header: [u8; 9] = input.array()?;
    let digits = [&b"REDIS"[..], b"VALKEY"].iter().find_map(|name| header.strip_prefix(*name));
    let version = digits.and_then(|digits| str::from_utf8(digits).ok()?.parse::<u16>().ok());
    let version = version.ok_or_else(|| input.corrupt("it does not begin like an RDB file"))?;
    if is_readable(version) {
        return Ok(version);
    }
    let what = format!("version {version} of the format, and only 1 to 12 and 80 are known here");
    Err(Error::Unsupported { offset: 0, what })
}

/// What stands in front of a key.
#[derive(Clone, Copy, Default)]
struct Attributes {
    expires_at_ms: Option<i64>,
    idle_seconds: Option<u64>,
    frequency: Option<u8>,
}

struct Reader<'a, R, S, P> {
    input: Input<R>,
    version: u16,
    rules: &'a Rules,
    store: S,
    progress: P,
    /// How many bytes were read at the last call of `progress`.
    reported: u64,
    loaded: Loaded,
    db: usize,
}

impl<R, S, P> Reader<'_, R, S, P>
where
    R: Read,
    S: FnMut(Record) -> Result<(), String>,
    P: FnMut(u64),
{
    /// Reads all items up to the end.
    fn items(&mut self) -> Result<(), Error> {
        let mut attributes = Attributes::default();
        loop {
            let offset = self.input.offset();
            if offset - self.reported >= PROGRESS_BYTES {
                (self.progress)(offset);
                self.reported = offset;
            }
            match self.input.byte()? {
                opcode::EOF => return Ok(()),
                opcode::SELECTDB => self.select()?,
                opcode::RESIZEDB => self.lengths(2)?,
                opcode::SLOT_INFO => self.lengths(3)?,
                opcode::AUX => {
                    let (name, value) = (self.input.string()?, self.input.string()?);
                    self.fact(&name, value);
                }
                opcode::EXPIRETIME => {
                    let seconds = i32::from_le_bytes(self.input.array()?);
                    attributes.expires_at_ms = Some(i64::from(seconds) * 1000);
                }
                opcode::EXPIRETIME_MS => attributes.expires_at_ms = Some(self.input.i64()?),
                opcode::IDLE => attributes.idle_seconds = Some(self.input.length()?),
                opcode::FREQ => attributes.frequency = Some(self.input.byte()?),
                opcode::FUNCTION2 => {
                    self.input.string()?;
                    self.loaded.libraries += 1;
                }
                opcode::MODULE_AUX => self.skip_module_aux()?,
                kind => self.key(kind, offset, std::mem::take(&mut attributes))?,
            }
        }
    }

    /// Takes note of a fact about the stream. The id comes before its offset.
    fn fact(&mut self, name: &[u8], value: Vec<u8>) {
        let number = parse_i64(&value).and_then(|number| u64::try_from(number).ok());
        match name {
            b"repl-stream-db" => {
                let db = number.and_then(|db| usize::try_from(db).ok());
                self.loaded.stream_db = db.filter(|db| *db < self.rules.databases).unwrap_or(0);
            }
            b"repl-id" => {
                self.loaded.stream = String::from_utf8(value).ok().map(|id| (id, 0));
            }
            b"repl-offset" => {
                let stream = self.loaded.stream.take();
                self.loaded.stream = stream.zip(number).map(|((id, _), offset)| (id, offset));
            }
            _ => {}
        }
    }

    fn select(&mut self) -> Result<(), Error> {
        let number = self.input.length()?;
        let found = usize::try_from(number).ok().filter(|db| *db < self.rules.databases);
        self.db = found.ok_or_else(|| {
            let what = beyond_databases(number, self.rules.databases);
            Error::Unsupported { offset: self.input.offset(), what }
        })?;
        Ok(())
    }

    fn lengths(&mut self, count: usize) -> Result<(), Error> {
        (0..count).try_for_each(|_| self.input.length().map(drop))
    }

    /// A module's own data is a sequence of values, each with its type in front.
    fn skip_module_aux(&mut self) -> Result<(), Error> {
        self.input.length()?; // the module
        loop {
            match self.input.length()? {
                0 => return Ok(()),
                1 | 2 => _ = self.input.length()?, // an integer
                3 => _ = self.input.array::<4>()?, // a float
                4 => _ = self.input.array::<8>()?, // a double
                5 => _ = self.input.string()?,
                _ => return Err(self.input.corrupt("a module's data of an unknown form")),
            }
        }
    }

    fn key(&mut self, kind: u8, offset: u64, attributes: Attributes) -> Result<(), Error> {
        let is_known = value::is_known(kind);
        if !is_known && !value::is_foreign(kind) {
            let why = format!("there is no type and no mark {kind}");
            return Err(Error::Corrupt { offset, why });
        }
        let key = self.input.string()?;
        if !is_known {
            let foreign = value::foreign(kind, &mut self.input)?;
            let (name, db) = (key.escape_ascii(), self.db);
            let what = format!("the key '{name}' of database {db} is {foreign}");
            return Err(Error::Unsupported { offset, what });
        }
        let value = value::read(kind, self.version, self.rules.limits, &mut self.input)?;
        let Some(value) = value else { return Ok(()) };
        let Attributes { expires_at_ms, idle_seconds, frequency } = attributes;
        if expires_at_ms.is_some_and(|at| self.rules.now_ms.is_some_and(|now_ms| at < now_ms)) {
            self.loaded.expired += 1;
            return Ok(());
        }
        self.loaded.keys += 1;
        let expires_at_ms = expires_at_ms.map(|at| at.max(0)); // no key expires before 1970
        let record = Record { db: self.db, key, value, expires_at_ms, idle_seconds, frequency };
        let stored = (self.store)(record);
        stored.map_err(|why| Error::Corrupt { offset, why })
    }

    fn checksum(&mut self) -> Result<(), Error> {
        if self.version < 5 {
            return Ok(());
        }
        let computed = self.input.crc();
        let stated = u64::from_le_bytes(self.input.array()?);
        if self.rules.verify && stated != 0 && stated != computed {
            let why = format!("the checksum is {computed:016x}, and should be {stated:016x}");
            return Err(self.input.corrupt(why));
        }
        Ok(())
    }
}

/// What is said of a database that does not exist here.
pub fn beyond_databases(number: u64, databases: usize) -> String {
    format!("database {number}, and there are only {databases} here: set 'databases'")
}
