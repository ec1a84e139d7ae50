//! Files and payloads of every form, whole and damaged.

use std::collections::BTreeMap;

use super::encode::Encoder;
use super::payload::{Refusal, dump, restore};
use super::read::{Loaded, Record, Rules, read, read_from};
use super::*;
use crate::hostile::{Case, Hostile, cases};
use crate::rng::Rng;
use crate::store::{Entry, Field, Hash, PackedLimits, Value};

const LIMITS: PackedLimits = PackedLimits { entries: 8, value_bytes: 64 };
const RULES: Rules = Rules { limits: LIMITS, databases: 16, now_ms: None, verify: true };

/// What a value is, for comparing: a string, or fields with their expiries.
#[derive(Debug, PartialEq, Eq, Clone)]
enum Plain {
    String(Vec<u8>),
    Hash(BTreeMap<Vec<u8>, (Vec<u8>, Option<i64>)>),
}

fn plain(value: &Value) -> Plain {
    let field = |field: Field| (field.name.to_vec(), (field.value.to_vec(), field.expires_at_ms()));
    match value {
        Value::String(bytes) => Plain::String(bytes.to_vec()),
        Value::Hash(hash) => Plain::Hash(hash.view().iter().map(field).collect()),
    }
}

fn string(bytes: &[u8]) -> Value {
    Value::String(bytes.to_vec())
}

fn hash(fields: &[(&[u8], &[u8], Option<i64>)]) -> Value {
    let mut hash = Hash::new();
    for (name, value, expiry) in fields {
        hash.set_until(name, value, *expiry, LIMITS);
    }
    Value::Hash(hash)
}

type Keys = BTreeMap<(usize, Vec<u8>), (Plain, Option<i64>)>;

/// The keys of a file with these rules.
fn load_with(file: &[u8], rules: &Rules) -> Result<(Keys, Loaded), Error> {
    let mut keys = Keys::new();
    let store = |record: Record| {
        let Record { db, key, value, expires_at_ms, .. } = record;
        keys.insert((db, key), (plain(&value), expires_at_ms));
        Ok(())
    };
    let loaded = read(file, rules, store, |_| {})?;
    Ok((keys, loaded))
}

fn load(file: &[u8]) -> Result<Keys, Error> {
    load_with(file, &RULES).map(|(keys, _)| keys)
}

/// A file of version 12 with these items, and its checksum.
fn file(items: &[u8]) -> Vec<u8> {
    let mut file = [b"REDIS0012", items, &[opcode::EOF]].concat();
    file.extend(crc64::update(0, &file).to_le_bytes());
    file
}

/// A payload with this type and value, and a sound footer.
fn payload(version: u16, body: &[u8]) -> Vec<u8> {
    let mut payload = [body, &version.to_le_bytes()].concat();
    payload.extend(crc64::update(0, &payload).to_le_bytes());
    payload
}

/// A file with a key of each encoding that is written here.
fn sample(dialect: Dialect) -> (Vec<u8>, Keys) {
    let long: Vec<u8> = (0..500u32).map(|n| ((n * n) >> 3) as u8).collect();
    let large: Vec<(Vec<u8>, Option<i64>)> = (0..20u8)
        .map(|n| (vec![n; 70], Some(1_900_000_000_000 + i64::from(n)).filter(|_| n % 2 == 0)))
        .collect();
    let large: Vec<(&[u8], &[u8], Option<i64>)> =
        large.iter().map(|(name, expiry)| (&name[..], &b"value"[..], *expiry)).collect();
    let mut encoder = Encoder::new(dialect, true);
    encoder.header(true, 1_900_000_000, &[]);
    let mut keys = Keys::new();
    for (db, values) in [
        (0, vec![string(b""), string(b"-128"), string(b"127"), string(b"-129"), string(b"32767")]),
        (1, vec![string(b"-32769"), string(b"2147483647"), string(b"2147483648"), string(b"007")]),
        (15, vec![string(&[b'x'; 63]), string(&[b'y'; 2000]), string(&long)]),
        (3, vec![hash(&[(b"a", b"1", None), (b"", b"", None)])]),
        (2, vec![hash(&[(b"a", b"1", Some(1_800_000_000_000)), (b"b", b"2", None)])]),
        (4, vec![hash(&large)]),
    ] {
        encoder.select(db);
        encoder.resize(values.len() as u64, 0);
        for (number, value) in values.into_iter().enumerate() {
            let key = format!("key {number}").into_bytes();
            let expires_at_ms = Some(2_000_000_000_000).filter(|_| number % 2 == 1);
            keys.insert((db, key.clone()), (plain(&value), expires_at_ms));
            encoder.entry(&key, Entry::new(value, expires_at_ms).view(), None);
        }
    }
    encoder.out.push(opcode::EOF);
    let mut file = encoder.out;
    file.extend(crc64::update(0, &file).to_le_bytes());
    (file, keys)
}

#[test]
fn what_is_written_is_read_again() {
    for dialect in [Dialect::Redis, Dialect::Valkey] {
        let (file, keys) = sample(dialect);
        assert_eq!(load(&file).expect("a sound file"), keys);
    }
}

#[test]
fn a_file_says_which_version_is_needed() {
    for (dialect, timed, start) in [
        (Dialect::Redis, false, "REDIS0010"),
        (Dialect::Valkey, false, "REDIS0010"),
        (Dialect::Redis, true, "REDIS0012"),
        (Dialect::Valkey, true, "VALKEY080"),
    ] {
        let mut encoder = Encoder::new(dialect, false);
        encoder.header(timed, 0, &[]);
        assert!(encoder.out.starts_with(start.as_bytes()));
    }
}

#[test]
fn every_byte_matters_and_no_damage_ends_in_a_panic() {
    for dialect in [Dialect::Redis, Dialect::Valkey] {
        let (file, _) = sample(dialect);
        let unverified = Rules { verify: false, ..RULES };
        for at in 0..file.len() {
            assert!(load(&file[..at]).is_err(), "cut at {at}");
            for change in [1, 2, 4, 8, 16, 32, 64, 128, 255] {
                let mut damaged = file.clone();
                damaged[at] ^= change;
                assert!(load(&damaged).is_err(), "{change} at {at}");
                let _ = load_with(&damaged, &unverified); // whatever it finds
            }
        }
        let longer = [&file[..], b"\0"].concat();
        assert!(load(&longer).is_err());
    }
}

#[test]
fn random_bytes_end_in_an_error_and_not_in_a_panic() {
    let mut rng = Rng::of_run();
    for _ in 0..30_000 {
        // Mostly bytes with a meaning.
        let byte = |rng: &mut Rng| match rng.below(3) {
            0 => rng.below(32) as u8,
            1 => 240 + rng.below(16) as u8,
            _ => rng.below(256) as u8,
        };
        let length = rng.below(60);
        let bytes: Vec<u8> = (0..length).map(|_| byte(&mut rng)).collect();
        let _ = load(&file(&bytes));
        let kind = [0, 4, 9, 13, 16, 22, 23, 24, 25][rng.below(9)];
        let version = [10, 12, 80][rng.below(3)];
        // A string around it makes packed forms of it.
        let packed = [&[kind, length as u8][..], &bytes].concat();
        let _ = restore(&payload(version, &packed), LIMITS);
        let _ = restore(&payload(version, &[&[kind][..], &bytes].concat()), LIMITS);
    }
}

#[test]
fn fuzz_a_mutated_file_or_payload_is_read_or_refused() {
    let mut hostile = Hostile::new(Rng::of_run(), std::iter::empty());
    let files = [Dialect::Redis, Dialect::Valkey].map(|dialect| sample(dialect).0);
    let bodies = bodies();
    let unverified = Rules { verify: false, ..RULES };
    for _ in 0..cases(80) {
        let mut whole = files[hostile.random.below(2)].clone();
        // What is between the header and the end, behind which a sound checksum is put again.
        let mut items = whole[9..whole.len() - 9].to_vec();
        let (version, mut body, _) = bodies[hostile.random.below(bodies.len())].clone();
        for bytes in [&mut whole, &mut items, &mut body] {
            hostile.mutate(bytes);
        }
        let case = [&whole[..], &items, &body].concat();
        let _case = Case(&case);
        let _ = load_with(&whole, &unverified);
        let _ = load(&file(&items));
        if let Ok(value) = restore(&payload(version, &body), LIMITS) {
            // The forms of Redis have less room for expiries.
            let again = restore(&dump(value.view(), Dialect::Valkey, true), LIMITS);
            assert_eq!(again.ok().map(|value| plain(&value)), Some(plain(&value)));
            assert!(restore(&dump(value.view(), Dialect::Redis, true), LIMITS).is_ok());
        }
    }
}

#[test]
fn a_length_that_the_input_does_not_have_reserves_no_memory() {
    let huge = [0x81, 0x0f, 0, 0, 0, 0, 0, 0, 0];
    let string = [&[kind::STRING, 1, b'k'][..], &huge].concat();
    let fields = [&[kind::HASH, 1, b'k'][..], &huge].concat();
    let compressed = [&[kind::STRING, 1, b'k', 0xc3, 1][..], &huge, b"\0"].concat();
    for items in [string, fields, compressed] {
        assert!(matches!(load(&file(&items)), Err(Error::Corrupt { .. })));
    }
}

#[test]
fn another_type_is_refused_with_its_name_its_key_and_its_offset() {
    let module = [&[7, 1, b'k', 0x81][..], &vector_set_id().to_be_bytes()].concat();
    for (items, what) in [
        (&[18, 1, b'k'][..], "a list"),
        (&[11, 1, b'k'], "a set"),
        (&[17, 1, b'k'], "a sorted set"),
        (&[21, 1, b'k'], "a stream"),
        (&module, "a value of a module, of the type 'vectorset'"),
    ] {
        let items = [&[opcode::SELECTDB, 3][..], items].concat();
        let error = load(&file(&items)).expect_err("there is no such type here");
        let expected = format!("at offset 11: the key 'k' of database 3 is {what}");
        assert_eq!(error.to_string(), expected);
    }
    let list = payload(12, &[18, 1]);
    assert!(matches!(restore(&list, LIMITS), Err(Refusal::Value(Error::Unsupported { .. }))));
    let error = load(&file(&[200])).expect_err("there is no such type");
    assert_eq!(error.to_string(), "damaged at offset 9: there is no type and no mark 200");
}

/// The number for the name `vectorset`, with a version in the last ten bits.
fn vector_set_id() -> u64 {
    let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let place = |letter| letters.iter().position(|known| known == letter).expect("a letter");
    b"vectorset".iter().fold(0, |id, letter| id << 6 | place(letter) as u64) << 10 | 1
}

#[test]
fn versions_and_databases_that_do_not_exist_here_are_refused() {
    for header in ["REDIS0000", "REDIS0013", "REDIS0079", "VALKEY081"] {
        let error = load(header.as_bytes()).expect_err("an unknown version");
        assert!(matches!(error, Error::Unsupported { offset: 0, .. }), "{header}: {error}");
    }
    for header in ["redis0010", "REDIS00x0", "PREDIS010", "REDIS"] {
        let error = load(header.as_bytes()).expect_err("no header");
        assert!(matches!(error, Error::Corrupt { .. }), "{header}: {error}");
    }
    let error = load(&file(&[opcode::SELECTDB, 16])).expect_err("there are 16 databases");
    assert!(error.to_string().contains("database 16, and there are only 16"), "{error}");
}

#[test]
fn what_is_of_no_use_is_skipped() {
    let (aux, text) = (opcode::AUX, b"\x01x");
    let mut items = vec![aux];
    items.extend([&text[..], text, &[opcode::FUNCTION2], text].concat());
    items.extend([opcode::SLOT_INFO, 1, 2, 3, opcode::MODULE_AUX, 7]);
    // An unsigned and a signed integer, a float, a double, a string, the end.
    items.extend([&[2, 1, 1, 9, 3][..], &[0; 4], &[4], &[0; 8], &[5], text, &[0]].concat());
    items.extend([opcode::IDLE, 9, opcode::FREQ, 7, kind::STRING, 1, b'k', 0xc0, 5]);
    let (keys, loaded) = load_with(&file(&items), &RULES).expect("a sound file");
    assert_eq!(keys.len(), 1);
    let size = file(&items).len() as u64;
    assert_eq!(loaded, Loaded { keys: 1, libraries: 1, bytes: size, ..Loaded::default() });
}

#[test]
fn keys_that_have_expired_are_left_out_unless_a_log_follows() {
    let expiring = |key: u8| [kind::STRING, 1, key, 0xc0, 5];
    let mut items = vec![opcode::EXPIRETIME];
    items.extend([&10i32.to_le_bytes()[..], &expiring(b'a')].concat());
    items.push(opcode::EXPIRETIME_MS);
    items.extend([&10_001i64.to_le_bytes()[..], &expiring(b'b'), &expiring(b'c')].concat());
    let at = |now_ms| load_with(&file(&items), &Rules { now_ms, ..RULES }).expect("a sound file");
    let (keys, loaded) = at(Some(10_001));
    let names: Vec<_> = keys.iter().map(|((_, key), (_, expiry))| (key[0], *expiry)).collect();
    assert_eq!(names, [(b'b', Some(10_001)), (b'c', None)]);
    assert_eq!((loaded.keys, loaded.expired), (2, 1));
    assert_eq!(at(None).0.len(), 3);
}

#[test]
fn a_checksum_of_zero_is_not_checked_and_old_versions_have_none() {
    let item = [kind::STRING, 1, b'k', 0xc0, 5, opcode::EOF];
    let without = [&b"REDIS0012"[..], &item, &[0; 8]].concat();
    assert_eq!(load(&without).expect("a sound file").len(), 1);
    let old = [&b"REDIS0004"[..], &item].concat();
    assert_eq!(load(&old).expect("a sound file").len(), 1);
    let wrong = [&b"REDIS0012"[..], &item, &[1; 8]].concat();
    assert!(load(&wrong).is_err());
    assert!(load_with(&wrong, &Rules { verify: false, ..RULES }).is_ok());
}

#[test]
fn reading_stops_where_the_log_begins() {
    let (mut bytes, keys) = sample(Dialect::Redis);
    bytes.extend(b"*1\r\n");
    let mut source = &bytes[..];
    let mut found = 0;
    let count = |_| {
        found += 1;
        Ok(())
    };
    let loaded = read_from(&mut source, &RULES, count, |_| {});
    assert_eq!(loaded.expect("a sound file").bytes as usize, bytes.len() - 4);
    assert_eq!((found, source), (keys.len(), &b"*1\r\n"[..]));
}

#[test]
fn an_error_of_the_one_who_stores_a_key_names_its_offset() {
    let items = [kind::STRING, 1, b'k', 0xc0, 5];
    let error = read(&file(&items)[..], &RULES, |_| Err("no room".into()), |_| {});
    assert_eq!(error.expect_err("it fails").to_string(), "damaged at offset 9: no room");
}

/// Bodies of payloads with the hash of `a` = `1` and `bb` = `-300`, in every form; and the expiry of `bb`.
fn bodies() -> Vec<(u16, Vec<u8>, Option<i64>)> {
    let zipmap = b"\x09\x12\x02\x01a\x01\x001\x02bb\x04\x02-300??\xff";
    let ziplist =
        b"\x0d\x18\x18\0\0\0\x13\0\0\0\x04\0\0\x01a\x03\xf2\x02\x02bb\x04\xc0\xd4\xfe\xff";
    let listpack = b"\x10\x13\x13\0\0\0\x04\0\x81a\x02\x01\x01\x82bb\x03\xde\xd4\x02\xff";
    let plain = b"\x04\x02\x01a\xc0\x01\x02bb\xc1\xd4\xfe";
    let at = 1_900_000_000_000i64;
    let timed =
        [&b"\x18"[..], &(at - 1).to_le_bytes(), b"\x02\x00\x01a\x011\x02\x02bb\x04-300"].concat();
    let mut triples = b"\x2e\0\0\0\x06\0\x82bb\x03\xde\xd4\x02\xf4".to_vec();
    triples.extend(at.to_le_bytes());
    triples.extend(b"\x09\x81a\x02\x01\x01\x00\x01\xff");
    triples[0] = triples.len() as u8;
    let length = triples.len() as u8;
    let triples_at = [&[25][..], &at.to_le_bytes(), &[length], &triples].concat();
    let preview = [&[23, length][..], &triples].concat();
    let mut preview_table = b"\x16\x02\x00\x01a\x011\x81".to_vec();
    preview_table.extend(at.to_be_bytes());
    preview_table.extend(b"\x02bb\x04-300");
    let valkey =
        [&b"\x16\x02\x01a\x011"[..], &[255; 8], b"\x02bb\x04-300", &at.to_le_bytes()].concat();
    vec![
        (10, zipmap.to_vec(), None),
        (10, ziplist.to_vec(), None),
        (10, listpack.to_vec(), None),
        (10, plain.to_vec(), None),
        (12, timed, Some(at)),
        (12, triples_at, Some(at)),
        (12, preview, Some(at)),
        (12, preview_table, Some(at)),
        (80, valkey, Some(at)),
    ]
}

#[test]
fn a_hash_is_read_in_every_form() {
    for (version, body, expiry) in bodies() {
        let kind = body[0];
        let Ok(value) = restore(&payload(version, &body), LIMITS) else {
            panic!("type {kind} is refused: {}", body.escape_ascii());
        };
        let expected = hash(&[(b"a", b"1", None), (b"bb", b"-300", expiry)]);
        assert_eq!(plain(&value), plain(&expected), "type {kind}");
    }
}

#[test]
fn a_damaged_hash_of_any_form_is_refused_or_another_hash() {
    for (version, body, _) in bodies() {
        for at in 0..body.len() {
            let cut = payload(version, &body[..at]);
            assert!(restore(&cut, LIMITS).is_err(), "type {} cut at {at}", body[0]);
            for change in 1..=255 {
                let mut damaged = body.clone();
                damaged[at] ^= change;
                // The bytes of names and values may be any. What says how long things are may not.
                let _ = restore(&payload(version, &damaged), LIMITS).map(|value| plain(&value));
                let mut damaged = payload(version, &body);
                damaged[at] ^= change;
                assert!(matches!(restore(&damaged, LIMITS), Err(Refusal::Footer)));
            }
        }
        let longer = payload(version, &[&body[..], b"\0"].concat());
        assert!(restore(&longer, LIMITS).is_err());
    }
}

#[test]
fn hashes_with_a_field_twice_or_without_fields_are_refused() {
    for body in [&b"\x04\x02\x01a\x011\x01a\x012"[..], b"\x04\x00", b"\x10\x07\x07\0\0\0\0\0\xff"] {
        assert!(restore(&payload(10, body), LIMITS).is_err());
    }
}

#[test]
fn a_payload_is_read_again_whatever_it_holds() {
    let mut rng = Rng::of_run();
    for _ in 0..2000 {
        let value = match rng.below(3) {
            0 => string(&rng.bytes(300)),
            1 => string((rng.next_u64() as i64 >> rng.below(64)).to_string().as_bytes()),
            _ => {
                let fields: Vec<_> = (0..1 + rng.below(12))
                    .map(|_| {
                        let expiry = Some(rng.below(1 << 41) as i64).filter(|at| at % 3 == 0);
                        (rng.bytes(80), rng.bytes(80), expiry)
                    })
                    .collect();
                let fields: Vec<_> =
                    fields.iter().map(|(name, value, at)| (&name[..], &value[..], *at)).collect();
                hash(&fields)
            }
        };
        for dialect in [Dialect::Redis, Dialect::Valkey] {
            let payload = dump(value.view(), dialect, rng.below(2) == 0);
            let again = restore(&payload, LIMITS).ok().map(|value| plain(&value));
            assert_eq!(again, Some(plain(&value)));
        }
    }
}
