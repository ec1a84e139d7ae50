//! The form of a snapshot in a rewrite's new file: for each key the fewest records that recreate it.

use std::collections::TryReserveError;

use crate::memory;
use crate::resp::request::encode;
use crate::store::snapshot::Encoding;
use crate::store::usage::Usage;
use crate::store::{EntryRef, Field, HashRef, Table, ValueRef};

/// An `HSET` record has at most this many fields …
const RECORD_FIELDS: usize = 64;
/// … and ends once it has this many bytes.
const RECORD_BYTES: usize = 64 << 10;

/// A record of a string has at most so many bytes that are not its key or its value.
const AROUND_STRING: usize = 256;

/// A snapshot in the form of records.
pub(super) struct Records;

impl Encoding for Records {
    fn table(&self, table: &Table, _: Usage) -> Result<Vec<u8>, TryReserveError> {
        let mut records = Vec::new();
        for (key, entry) in table.iter() {
            let bytes = entry.value.copy_bytes();
            if bytes + key.len() >= memory::LARGE_BYTES {
                let is_hash = matches!(entry.value, ValueRef::Hash(_));
                let around = if is_hash { bytes } else { AROUND_STRING }; // small fields take twice as much
                memory::reserve(&mut records, key.len() + bytes + around)?;
            }
            encode_entry(&mut records, key, entry);
        }
        Ok(records)
    }

    fn select(&self, db: usize) -> Vec<u8> {
        let mut record = Vec::new();
        encode(&mut record, &[b"SELECT", db.to_string().as_bytes()]);
        record
    }
}

/// Encodes a key as the fewest records that recreate it.
pub fn encode_entry(out: &mut Vec<u8>, key: &[u8], entry: EntryRef) {
    // No command accepts an expiry before 1970, but a log may have held one.
    let expiry = entry.expires_at_ms().map(|expiry| expiry.max(1).to_string());
    match (entry.value, &expiry) {
        (ValueRef::String(value), None) => encode(out, &[b"SET", key, value]),
        (ValueRef::String(value), Some(expiry)) => {
            encode(out, &[b"SET", key, value, b"PXAT", expiry.as_bytes()]);
        }
        (ValueRef::Hash(hash), _) => {
            let mut record: Vec<&[u8]> = vec![b"HSET", key];
            let mut bytes = 0;
            for Field { name, value, .. } in hash.iter() {
                record.extend([name, value]);
                bytes += name.len() + value.len();
                if record.len() >= 2 * RECORD_FIELDS + 2 || bytes >= RECORD_BYTES {
                    encode(out, &record);
                    record.truncate(2);
                    bytes = 0;
                }
            }
            if record.len() > 2 {
                encode(out, &record);
            }
            encode_field_expiries(out, key, hash);
            if let Some(expiry) = &expiry {
                encode(out, &[b"PEXPIREAT", key, expiry.as_bytes()]);
            }
        }
    }
}

/// Encodes when fields of a hash expire: fields that expire together share a record, up to its limit.
fn encode_field_expiries(out: &mut Vec<u8>, key: &[u8], hash: HashRef) {
    if hash.earliest_ms().is_none() {
        return;
    }
    let timed = hash.iter().filter_map(|field| Some((field.expires_at_ms()?, field.name)));
    let mut timed: Vec<(i64, &[u8])> = timed.collect();
    timed.sort_by_key(|(expiry, _)| *expiry); // stable, so fields keep the hash's order
    for same in timed.chunk_by(|(one, _), (other, _)| one == other) {
        for fields in same.chunks(RECORD_FIELDS) {
            let expiry = fields[0].0.to_string();
            let count = fields.len().to_string();
            let mut record: Vec<&[u8]> = vec![b"HPEXPIREAT", key, expiry.as_bytes(), b"FIELDS"];
            record.push(count.as_bytes());
            record.extend(fields.iter().map(|(_, name)| *name));
            encode(out, &record);
        }
    }
}
