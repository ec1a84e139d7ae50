//! Which types of values there are, and reading the values that exist here.

use std::io::Read;

use super::input::Input;
use super::{Error, VALKEY_VERSION, kind, packed};
use crate::store::{Hash, PackedLimits, Value};
use crate::text::integer;

/// The latest time at which a field may expire in the forms of Redis, in Unix milliseconds: it has 48 bits.
pub(super) const LATEST_MS: i64 = (1 << 48) - 2;

/// Whether a byte is a type of values that exist here.
pub(super) fn is_known(kind: u8) -> bool {
    let known = [
        kind::STRING,
        kind::HASH,
        kind::HASH_ZIPMAP,
        kind::HASH_ZIPLIST,
        kind::HASH_LISTPACK,
        kind::HASH_VALKEY,
        kind::HASH_TIMED_LISTPACK_PREVIEW,
        kind::HASH_TIMED,
        kind::HASH_TIMED_LISTPACK,
    ];
    known.contains(&kind)
}

/// Whether a byte is a type of values that do not exist here.
pub(super) fn is_foreign(kind: u8) -> bool {
    matches!(kind, 1..=3 | 5..=7 | 10..=12 | 14 | 15 | 17..=21 | 26)
}

/// What a value of a type that does not exist here is. For a value of a module, its type is read.
pub(super) fn foreign(kind: u8, input: &mut Input<impl Read>) -> Result<String, Error> {
    Ok(match kind {
        1 | 10 | 14 | 18 => "a list".into(),
        2 | 11 | 20 => "a set".into(),
        3 | 5 | 12 | 17 => "a sorted set".into(),
        15 | 19 | 21 | 26 => "a stream".into(),
        _ => format!("a value of a module, of the type '{}'", module_name(input.length()?)),
    })
}

/// The name of a module's type: nine letters of six bits each, and a version.
fn module_name(id: u64) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    (0..9).map(|at| char::from(LETTERS[(id >> (58 - 6 * at)) as usize & 63])).collect()
}

/// Reads a value of a type that exists here. `None` is a hash without fields, which older versions of Redis
/// could write; there is no such key.
pub(super) fn read(
    kind: u8,
    version: u16,
    limits: PackedLimits,
    input: &mut Input<impl Read>,
) -> Result<Option<Value>, Error> {
    let is_valkey = kind == kind::HASH_VALKEY && version >= VALKEY_VERSION;
    let latest_ms = if is_valkey { i64::MAX } else { LATEST_MS };
    let mut hash = HashBuilder { hash: Hash::new(), limits, latest_ms };
    match kind {
        kind::STRING => return Ok(Some(Value::String(input.string()?))),
        kind::HASH_ZIPMAP
        | kind::HASH_ZIPLIST
        | kind::HASH_LISTPACK
        | kind::HASH_TIMED_LISTPACK
        | kind::HASH_TIMED_LISTPACK_PREVIEW => read_packed(kind, &mut hash, input)?,
        _ => read_fields(kind, is_valkey, &mut hash, input)?,
    }
    let hash = hash.hash;
    Ok((!hash.is_empty()).then_some(Value::Hash(hash)))
}

/// Reads the fields of a packed hash.
fn read_packed(
    kind: u8,
    hash: &mut HashBuilder,
    input: &mut Input<impl Read>,
) -> Result<(), Error> {
    if kind == kind::HASH_TIMED_LISTPACK {
        input.i64()?; // the earliest expiry, which the fields tell too
    }
    let string = input.string()?;
    let (elements, size) = match kind {
        kind::HASH_ZIPMAP => (packed::zipmap(&string), 2),
        kind::HASH_ZIPLIST => (packed::ziplist(&string), 2),
        kind::HASH_LISTPACK => (packed::listpack(&string), 2),
        _ => (packed::listpack(&string), 3),
    };
    let elements = elements.ok_or_else(|| input.corrupt("a packed hash that is not sound"))?;
    for field in elements.chunks(size) {
        let added = match field {
            [name, value] if size == 2 => hash.add(name, value, None),
            [name, value, expiry] => {
                let expiry = integer::parse_i64(expiry).unwrap_or(-1); // which is refused
                hash.add(name, value, Some(expiry).filter(|expiry| *expiry != 0))
            }
            _ => Err("a packed hash that ends within a field"),
        };
        added.map_err(|why| input.corrupt(why))?;
    }
    Ok(())
}

/// Reads the fields of a hash that is not packed.
fn read_fields(
    kind: u8,
    is_valkey: bool,
    hash: &mut HashBuilder,
    input: &mut Input<impl Read>,
) -> Result<(), Error> {
    let base = if kind == kind::HASH_TIMED { input.i64()? } else { 0 };
    for _ in 0..input.length()? {
        let offset = match kind {
            kind::HASH_TIMED => input.length()?,
            kind::HASH_TIMED_PREVIEW if !is_valkey => input.length()?,
            _ => 0,
        };
        let (name, value) = (input.string()?, input.string()?);
        let expiry = if is_valkey {
            Some(input.i64()?).filter(|expiry| *expiry != -1)
        } else if kind == kind::HASH_TIMED && offset > 0 {
            Some(base.saturating_add_unsigned(offset - 1))
        } else {
            i64::try_from(offset).ok().filter(|offset| *offset > 0)
        };
        hash.add(&name, &value, expiry).map_err(|why| input.corrupt(why))?;
    }
    Ok(())
}

struct HashBuilder {
    hash: Hash,
    limits: PackedLimits,
    latest_ms: i64,
}

impl HashBuilder {
    fn add(&mut self, name: &[u8], value: &[u8], expiry: Option<i64>) -> Result<(), &'static str> {
        if expiry.is_some_and(|expiry| !(0..=self.latest_ms).contains(&expiry)) {
            return Err("a field has an impossible expiry");
        }
        let is_new = self.hash.set_until(name, value, expiry, self.limits);
        if is_new { Ok(()) } else { Err("a field occurs twice") }
    }
}
