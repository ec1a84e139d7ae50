//! Single values outside of files: what `DUMP` returns and `RESTORE` takes.
//!
//! A payload is a type, a value, the version of the format (2 bytes), and the checksum of all that (8).

use super::encode::Encoder;
use super::input::Input;
use super::{Dialect, Error, crc64, is_readable, value};
use crate::store::{PackedLimits, Value, ValueRef};

/// Why a payload is refused.
pub enum Refusal {
    /// It was damaged, or is of a version that is not known here.
    Footer,
    /// What it holds is not a value that exists here.
    Value(Error),
}

/// The payload of a value.
pub fn dump(value: ValueRef, dialect: Dialect, compresses: bool) -> Vec<u8> {
    let mut encoder = Encoder::new(dialect, compresses);
    encoder.out.push(encoder.kind(value));
    encoder.value(value);
    let timed = matches!(value, ValueRef::Hash(hash) if hash.earliest_ms().is_some());
    let mut payload = encoder.out;
    payload.extend(dialect.version(timed).to_le_bytes());
    payload.extend(crc64::update(0, &payload).to_le_bytes());
    payload
}

/// The value in a payload.
///
/// # Errors
/// Why it is refused.
pub fn restore(payload: &[u8], limits: PackedLimits) -> Result<Value, Refusal> {
    let (checked, crc) = payload.split_last_chunk::<8>().ok_or(Refusal::Footer)?;
    let (body, version) = checked.split_last_chunk::<2>().ok_or(Refusal::Footer)?;
    let version = u16::from_le_bytes(*version);
    if !is_readable(version) || u64::from_le_bytes(*crc) != crc64::update(0, checked) {
        return Err(Refusal::Footer);
    }
    read(body, version, limits).map_err(Refusal::Value)
}

fn read(body: &[u8], version: u16, limits: PackedLimits) -> Result<Value, Error> {
    let mut input = Input::new(body);
    let kind = input.byte()?;
    if value::is_foreign(kind) {
        return Err(Error::Unsupported { offset: 0, what: value::foreign(kind, &mut input)? });
    }
    if !value::is_known(kind) {
        return Err(input.corrupt(format!("there is no type {kind}")));
    }
    let value = value::read(kind, version, limits, &mut input)?;
    let value = value.ok_or_else(|| input.corrupt("a hash without fields"))?;
    if input.offset() != body.len() as u64 {
        return Err(input.corrupt("bytes after the value"));
    }
    Ok(value)
}
