//! Whole data sets: filling a server, dumping all of its data, and reading the files of its log.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::BufReader;
use std::path::Path;

use super::{Client, Reply, Server, encode, eventually, quote, read_reply};

/// All data, by database and key: the type, the value and the expiry time, and those of fields. A hash
/// without fields is left out: all of them have expired, and the sweeper may remove it at any time.
pub(crate) fn dump(c: &mut Client) -> BTreeMap<(usize, String), String> {
    let mut all = BTreeMap::new();
    for database in 0..16 {
        c.expect(&format!("SELECT {database}"), "+OK");
        let mut cursor = "0".to_owned();
        loop {
            let mut parts = c.call(&["SCAN", &cursor, "COUNT", "200"]).into_items();
            let keys = parts.remove(1).into_items().into_iter();
            let keys: Vec<Vec<u8>> = keys.map(Reply::into_bytes).collect();
            // One round trip for the types and expiry times, one for the values.
            let both =
                |key: &Vec<u8>| [encode(&[b"TYPE", &key[..]]), encode(&[b"PEXPIRETIME", &key[..]])];
            c.send_raw(keys.iter().flat_map(both).collect::<Vec<_>>().concat());
            let described: Vec<(String, Reply)> =
                keys.iter().map(|_| (c.read_reply().to_string(), c.read_reply())).collect();
            let value = |(key, (kind, _)): (&Vec<u8>, &(String, Reply))| match kind.as_str() {
                // A key without a type has expired since SCAN found it, and has no value either.
                "+string" | "+none" => encode(&[b"GET", &key[..]]),
                "+hash" => encode(&[b"HGETALL", &key[..]]),
                other => panic!("{} is {other}", quote(key)),
            };
            c.send_raw(keys.iter().zip(&described).map(value).collect::<Vec<_>>().concat());
            let values: Vec<Reply> = keys.iter().map(|_| c.read_reply()).collect();
            for (key, ((kind, expiry), mut value)) in
                keys.iter().zip(described.into_iter().zip(values))
            {
                if matches!(value, Reply::NullBulk | Reply::Null) {
                    continue; // expired meanwhile
                }
                if let Reply::Array(fields) = &value {
                    let pairs = fields.chunks_exact(2);
                    value = Reply::Map(pairs.map(|p| (p[0].clone(), p[1].clone())).collect());
                }
                if matches!(&value, Reply::Map(fields) if fields.is_empty()) {
                    continue;
                }
                value.sort();
                let mut described = format!("{kind} {value} {expiry}");
                if let Reply::Map(fields) = &value {
                    described += &field_expiry_times(c, key, fields);
                }
                all.insert((database, quote(key)), described);
            }
            cursor = parts.remove(0).into_text();
            if cursor == "0" {
                break;
            }
        }
    }
    c.expect("SELECT 0", "+OK");
    all
}

/// The fields of a hash that expire, and when. Redis has them since 7.4.
fn field_expiry_times(c: &mut Client, key: &[u8], fields: &[(Reply, Reply)]) -> String {
    let count = fields.len().to_string();
    let names = fields.iter().map(|(name, _)| name.clone().into_bytes());
    let words = [b"HPEXPIRETIME", key, b"FIELDS", count.as_bytes()].map(<[u8]>::to_vec);
    let Reply::Array(expiries) = c.call(&words.into_iter().chain(names).collect::<Vec<_>>()) else {
        return String::new();
    };
    let timed = fields.iter().zip(expiries).filter(|(_, ms)| *ms != Reply::Integer(-1));
    timed.map(|((name, _), ms)| format!(" expiring {name} {ms}")).collect()
}

/// Every command that writes and each of its options, at least once with an effect and once without.
const WRITES: &str = r#"
    SET plain value
    SET empty ""
    SET "\x00\xff\r\n" "*1\r\n$4\r\nPING\r\n"
    SET ex value EX 1000
    SET px value PX 1000000
    SET exat value EXAT 33177117420
    SET pxat value PXAT 33177117420123
    SET past value PXAT 1
    SET plain other NX
    SET plain third XX
    SET plain fourth GET
    SET ex kept KEEPTTL
    SET px dropped
    SET fresh value KEEPTTL NX
    SETNX setnx 1
    SETNX setnx 2
    SETEX setex 1000 value
    PSETEX psetex 1000000 value
    GETSET getset old
    GETSET getset new
    SET getdel value
    GETDEL getdel
    GETDEL getdel
    SET getex value
    GETEX getex EX 1000
    SET getex2 value EX 100
    GETEX getex2 PERSIST
    SET getex3 value
    GETEX getex3 PXAT 33177117420123
    SET getex4 value
    GETEX getex4 EXAT 1
    MSET m1 1 m2 2 m3 3 m1 4
    MSETNX m4 4 m5 5
    MSETNX m5 6 m6 6
    APPEND appended one
    APPEND appended two
    APPEND emptied ""
    SETRANGE ranged 3 abc
    SETRANGE ranged 0 xyz
    SETRANGE unranged 5 ""
    INCR n
    INCR n
    DECR n
    INCRBY n 100
    DECRBY n 5
    INCRBYFLOAT f 0.1
    INCRBYFLOAT f 0.2
    SET f2 1 EX 1000
    INCRBYFLOAT f2 1.5
    INCRBY ex 1
    HSET h a 1 b 2 "\x00\r\n" "\xff"
    HSET h a 3
    HSETNX h a 9
    HSETNX h c 9
    HMSET h d 4 e 5
    HDEL h e missing
    HINCRBY h a 5
    HINCRBYFLOAT h f 0.1
    HINCRBYFLOAT h f 0.2
    HSET emptied-hash a 1
    HDEL emptied-hash a
    HSET expiring a 1
    EXPIRE expiring 1000
    DEL m2 missing
    UNLINK m3 missing
    RENAME setnx renamed
    RENAME ex renamed-with-expiry
    RENAMENX setex renamednx
    RENAMENX plain renamed
    COPY h copied
    COPY renamed-with-expiry copied-with-expiry
    COPY plain copied
    COPY plain copied REPLACE
    COPY plain plain DB 2
    MOVE getset 3
    SET over value
    RENAME over psetex
    SET e1 v
    EXPIRE e1 1000
    EXPIRE e1 2000 NX
    EXPIRE e1 3000 GT
    EXPIRE e1 2500 LT
    EXPIRE e1 2600 XX
    SET e2 v
    PEXPIRE e2 1000000
    SET e3 v
    EXPIREAT e3 33177117420
    SET e4 v
    PEXPIREAT e4 33177117420123
    SET e5 v
    EXPIRE e5 -1
    SET e6 v EX 1000
    PERSIST e6
    SELECT 5
    SET five 5 EX 1000
    HSET five-hash a 1
    SELECT 7
    SET seven 7
    FLUSHDB
    SET seven 77
    SELECT 8
    SET eight 8
    SWAPDB 8 9
    SET eight 88
    SWAPDB 5 6
    SELECT 0
    SET last value
"#;

/// Sends the commands of [`WRITES`] one by one. Fails at an unexpected error.
pub(crate) fn write_all(c: &mut Client) {
    for command in WRITES.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if let Reply::Error(error) = c.reply(command) {
            let expected = command == "INCRBY ex 1" && error.contains("not an integer");
            assert!(expected, "{command}: {error}");
        }
    }
}

/// A field of `INFO persistence`.
pub(crate) fn info(c: &mut Client, field: &str) -> Option<String> {
    let text = c.text("INFO persistence");
    text.lines().find_map(|line| Some(line.strip_prefix(field)?.strip_prefix(':')?.to_owned()))
}

/// Rewrites the log, as soon as no other rewrite runs, and waits until the rewrite has succeeded.
#[track_caller]
pub(crate) fn rewrite(c: &mut Client) {
    start_rewrite(c);
    await_rewrite(c);
    assert_eq!(info(c, "aof_last_bgrewrite_status").as_deref(), Some("ok"));
}

#[track_caller]
pub(crate) fn start_rewrite(c: &mut Client) {
    let started = Reply::Simple("Background append only file rewriting started".into());
    eventually("a rewrite starts", || c.reply("BGREWRITEAOF") == started);
}

#[track_caller]
pub(crate) fn await_rewrite(c: &mut Client) {
    eventually("the rewrite has ended", || {
        info(c, "aof_rewrite_in_progress").as_deref() == Some("0")
    });
}

/// Sends commands in batches, and returns the replies.
pub(crate) fn pipeline(c: &mut Client, commands: &[Vec<u8>]) -> Vec<Reply> {
    let mut replies = Vec::new();
    for batch in commands.chunks(200) {
        c.send_raw(batch.concat());
        replies.extend(batch.iter().map(|_| c.read_reply()));
    }
    replies
}

/// An expiry time, in Unix milliseconds, that is centuries away.
pub(crate) const FAR: &str = "33177117420123";

/// Writes `count` keys of all types in each of three databases.
pub(crate) fn fill(c: &mut Client, count: usize) {
    for db in ["1", "2", "0"] {
        let mut commands = vec![encode(&["SELECT", db])];
        for i in 0..count {
            let key = format!("{i}:\x00\r\n");
            let value = "v".repeat(20 + i % 100);
            commands.push(match i % 4 {
                0 => encode(&["SET", &key, &value]),
                1 => encode(&["SET", &key, &value, "PXAT", FAR]),
                2 => {
                    let pairs = (0..1 + i % 90).flat_map(|n| [n.to_string(), value.clone()]);
                    let head = ["HSET", &key].map(String::from).into_iter();
                    encode(&head.chain(pairs).collect::<Vec<_>>())
                }
                _ => encode(&["HSET", &key, "f", &value]),
            });
            if i % 7 == 0 {
                commands.push(encode(&["PEXPIREAT", &key, FAR]));
            }
        }
        for reply in pipeline(c, &commands) {
            assert!(!matches!(reply, Reply::Error(_)), "{reply}");
        }
    }
}

/// Fails with the first difference, not with both data sets.
#[track_caller]
pub(crate) fn assert_same(
    after: &BTreeMap<(usize, String), String>,
    before: &BTreeMap<(usize, String), String>,
) {
    let keys: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    let differing: Vec<_> =
        keys.into_iter().filter(|key| before.get(key) != after.get(key)).collect();
    if let Some(key) = differing.first() {
        let (count, before, after) = (differing.len(), before.get(key), after.get(key));
        panic!("{count} keys differ; the first, {key:?}, was {before:?} and is {after:?}");
    }
}

/// Kills the server and starts it again: all data must be there.
#[track_caller]
pub(crate) fn assert_survives_kill_9(server: &mut Server) {
    let before = dump(&mut server.client());
    server.kill_9();
    server.restart();
    assert_same(&dump(&mut server.client()), &before);
}

/// The log as a list of commands. Fails if it is not plain RESP.
pub(crate) fn records(log: &Path) -> Vec<Vec<Vec<u8>>> {
    let bytes = fs::read(log).expect("read the log");
    let mut reader = BufReader::new(&bytes[..]);
    let mut records: Vec<Vec<Vec<u8>>> = Vec::new();
    while let Ok(reply) = read_reply(&mut reader) {
        let words = reply.into_items().into_iter();
        records.push(words.map(Reply::into_bytes).collect());
    }
    let length: usize = records.iter().map(|record| encode(record).len()).sum();
    assert_eq!(length, bytes.len(), "the log holds something other than commands");
    records
}

/// The files of a directory, by name.
pub(crate) fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(dir).expect("read the directory");
    let entries = entries.map(|entry| entry.expect("an entry"));
    entries
        .map(|entry| {
            let name = entry.file_name().into_string().expect("a name");
            (name, fs::read(entry.path()).expect("read a file"))
        })
        .collect()
}
