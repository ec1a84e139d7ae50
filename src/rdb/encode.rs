//! Writing: numbers, strings, values, and the parts of a file.

use super::lzf::Compressor;
use super::value::LATEST_MS;
use super::{Dialect, REDIS_VERSION, VALKEY_VERSION, kind, opcode};
use crate::store::usage::Usage;
use crate::store::{EntryRef, HashRef, ValueRef};
use crate::text::integer;

/// Shorter strings are not worth compressing.
const COMPRESSED_BYTES: usize = 21;
/// No integer that is stored in four bytes has more digits, with its sign.
const INTEGER_DIGITS: usize = 11;

/// Encodes keys and values.
pub struct Encoder {
    /// What was encoded.
    pub out: Vec<u8>,
    dialect: Dialect,
    compressor: Option<Compressor>,
}

impl Encoder {
    pub fn new(dialect: Dialect, compresses: bool) -> Encoder {
        let compressor = compresses.then(Compressor::new);
        Encoder { out: Vec::new(), dialect, compressor }
    }

    /// A key with its value and expiry and, given what a use is recorded as now, its last or its number of
    /// uses.
    pub fn entry(&mut self, key: &[u8], entry: EntryRef, now: Option<Usage>) {
        if let Some(expires_at_ms) = entry.expires_at_ms() {
            self.out.push(opcode::EXPIRETIME_MS);
            self.out.extend(expires_at_ms.to_le_bytes());
        }
        match now {
            None => {}
            Some(now @ Usage::Time { .. }) => {
                self.out.push(opcode::IDLE);
                self.length(now.idle_seconds(entry.usage()).into());
            }
            Some(now @ Usage::Frequency { .. }) => {
                self.out.extend([opcode::FREQ, now.frequency(entry.usage())]);
            }
        }
        self.out.push(self.kind(entry.value));
        self.string(key);
        self.value(entry.value);
    }

    /// The type of a value in the encoding that [`Encoder::value`] writes.
    pub fn kind(&self, value: ValueRef) -> u8 {
        match (value, self.dialect) {
            (ValueRef::String(_), _) => kind::STRING,
            (ValueRef::Hash(hash), _) if hash.earliest_ms().is_none() => kind::HASH,
            (ValueRef::Hash(_), Dialect::Redis) => kind::HASH_TIMED,
            (ValueRef::Hash(_), Dialect::Valkey) => kind::HASH_VALKEY,
        }
    }

    /// A value without its type.
    pub fn value(&mut self, value: ValueRef) {
        match value {
            ValueRef::String(bytes) => self.string(bytes),
            ValueRef::Hash(hash) => self.hash(hash),
        }
    }

    fn hash(&mut self, hash: HashRef) {
        let latest_ms = if self.dialect == Dialect::Redis { LATEST_MS } else { i64::MAX };
        let within = |at_ms: i64| at_ms.min(latest_ms);
        let earliest_ms = hash.earliest_ms().map(within);
        if let (Some(earliest_ms), Dialect::Redis) = (earliest_ms, self.dialect) {
            self.out.extend(earliest_ms.to_le_bytes());
        }
        self.length(hash.len() as u64);
        for field in hash.iter() {
            if let (Some(earliest_ms), Dialect::Redis) = (earliest_ms, self.dialect) {
                let offset = field.expires_at_ms().map(|at| within(at).abs_diff(earliest_ms) + 1);
                self.length(offset.unwrap_or(0));
            }
            self.string(field.name);
            self.string(field.value);
            if let (Some(_), Dialect::Valkey) = (earliest_ms, self.dialect) {
                self.out.extend(field.expires_at_ms().unwrap_or(-1).to_le_bytes());
            }
        }
    }

    fn length(&mut self, length: u64) {
        match length {
            0..64 => self.out.push(length as u8),
            64..16384 => self.out.extend((length as u16 | 1 << 14).to_be_bytes()),
            _ => match u32::try_from(length) {
                Ok(length) => {
                    self.out.push(0x80);
                    self.out.extend(length.to_be_bytes());
                }
                Err(_) => {
                    self.out.push(0x81);
                    self.out.extend(length.to_be_bytes());
                }
            },
        }
    }

    fn string(&mut self, bytes: &[u8]) {
        if bytes.len() <= INTEGER_DIGITS
            && let Some(number) = integer::parse_i64(bytes)
            && let Ok(number) = i32::try_from(number)
        {
            return self.integer(number);
        }
        if bytes.len() >= COMPRESSED_BYTES
            && let Some(compressor) = &mut self.compressor
            && let Some(compressed) = compressor.compress(bytes)
        {
            self.out.push(0xc3);
            self.length(compressed.len() as u64);
            self.length(bytes.len() as u64);
            self.out.extend(compressed);
            return;
        }
        self.length(bytes.len() as u64);
        self.out.extend_from_slice(bytes);
    }

    /// A string of digits, as an integer of the fewest bytes.
    fn integer(&mut self, number: i32) {
        if let Ok(number) = i8::try_from(number) {
            self.out.push(0xc0);
            self.out.extend(number.to_le_bytes());
        } else if let Ok(number) = i16::try_from(number) {
            self.out.push(0xc1);
            self.out.extend(number.to_le_bytes());
        } else {
            self.out.push(0xc2);
            self.out.extend(number.to_le_bytes());
        }
    }

    /// The header of a file and a few facts. `timed` says whether there may be expiring fields.
    pub(super) fn header(&mut self, timed: bool, created: u64, more: &[(&str, String)]) {
        let version = self.dialect.version(timed);
        let name = if version == VALKEY_VERSION { "VALKEY" } else { "REDIS" };
        let digits = 9 - name.len();
        self.out.extend(format!("{name}{version:0digits$}").into_bytes());
        let created = created.to_string();
        let facts = [
            ("respite-ver", env!("CARGO_PKG_VERSION")),
            ("redis-bits", "64"),
            ("ctime", created.as_str()),
        ];
        let more = more.iter().map(|(name, value)| (*name, value.as_str()));
        for (name, value) in facts.into_iter().chain(more) {
            self.out.push(opcode::AUX);
            self.string(name.as_bytes());
            self.string(value.as_bytes());
        }
        debug_assert!(version <= REDIS_VERSION || version == VALKEY_VERSION);
    }

    /// The keys that follow are in this database.
    pub(super) fn select(&mut self, db: usize) {
        self.out.push(opcode::SELECTDB);
        self.length(db as u64);
    }

    /// How many keys the selected database has, and how many of them expire.
    pub(super) fn resize(&mut self, keys: u64, volatile: u64) {
        self.out.push(opcode::RESIZEDB);
        self.length(keys);
        self.length(volatile);
    }
}
