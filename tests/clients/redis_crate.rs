//! What a Rust program expects of the server, through the `redis` crate without async.
//!
//! The suite uses the same crate (`tests/suite/library.rs`) to test single commands.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use redis::{Commands, Connection, ConnectionLike, ErrorKind, ServerErrorKind, Value};

use crate::process::{PATIENCE, eventually};
use crate::{Check, Servers};

pub(crate) const CHECKS: &[Check] = &[
    ("the handshake introduces the library", handshake),
    ("strings and hashes are kept, of any bytes and size", strings_and_hashes),
    ("keys expire", expiry),
    ("errors are distinguished by their first word", errors),
    ("a pipeline of 10,000 commands", pipeline),
    (
        "a pipeline larger than all buffers is written before the first reply is read",
        large_pipeline,
    ),
    ("a transaction runs completely or not at all", transaction),
    ("messages reach their subscribers", messages),
    ("scans return every key and field", scans),
    ("a killed connection is noticed", killed),
    ("a password is required", password),
];

const PROTOCOLS: [&str; 2] = ["", "?protocol=resp3"];

/// The version, from the lock file, because the crate does not export it.
pub(crate) fn version() -> Result<String, String> {
    let lock = include_str!("../../Cargo.lock");
    let (_, entry) =
        lock.split_once("name = \"redis\"\nversion = \"").ok_or("not in Cargo.lock")?;
    Ok(entry.split('"').next().unwrap_or_default().to_owned())
}

/// A field of CLIENT INFO.
fn info(db: &mut Connection, field: &str) -> Option<String> {
    let text: String = redis::cmd("CLIENT").arg("INFO").query(db).unwrap();
    let fields = text.split_whitespace().filter_map(|word| word.split_once('='));
    fields.filter(|(name, _)| *name == field).map(|(_, value)| value.to_owned()).next()
}

fn handshake(servers: &Servers) {
    for (protocol, number) in PROTOCOLS.into_iter().zip(["2", "3"]) {
        let mut db = servers.open.connect(&format!("3{protocol}"));
        assert_eq!(info(&mut db, "resp").as_deref(), Some(number));
        assert_eq!(info(&mut db, "db").as_deref(), Some("3"));
        // Redis stores the library's name since 7.2.
        if let Some(library) = info(&mut db, "lib-name") {
            assert_eq!(library, "redis-rs");
            assert_eq!(info(&mut db, "lib-ver"), Some(version().unwrap()));
        }
        let () = Commands::client_setname(&mut db, "worker").unwrap();
        let name: String = Commands::client_getname(&mut db).unwrap();
        assert_eq!(name, "worker");
    }
}

fn strings_and_hashes(servers: &Servers) {
    let bytes: Vec<u8> = (0..=255).chain(*b"\r\n$-1\r\n").collect();
    let large = bytes.repeat(4096);
    for protocol in PROTOCOLS {
        servers.open.clear();
        let mut db = servers.open.connect(protocol);
        let () = db.set(&bytes, &large).unwrap();
        let back: Vec<u8> = db.get(&bytes).unwrap();
        assert!(back == large);
        let missing: Option<String> = db.get("missing").unwrap();
        assert_eq!(missing, None);
        let n: i64 = db.incr("n", 42).unwrap();
        assert_eq!(n, 42);
        let x: f64 = db.incr("x", 0.5).unwrap();
        assert_eq!(x, 0.5);
        let () = db.hset_multiple("user:1", &[("name", "ada"), ("born", "1815")]).unwrap();
        let user: HashMap<String, String> = db.hgetall("user:1").unwrap();
        assert_eq!(user["born"], "1815");
        let fields: Vec<Option<String>> =
            Commands::hmget(&mut db, "user:1", &["name", "none"]).unwrap();
        assert_eq!(fields, [Some("ada".to_owned()), None]);
        let reply: Value = redis::cmd("HGETALL").arg("user:1").query(&mut db).unwrap();
        assert_eq!(matches!(reply, Value::Map(_)), !protocol.is_empty(), "{reply:?}");
    }
}

fn expiry(servers: &Servers) {
    let mut db = servers.open.connect("");
    let () = db.set_ex("k", "v", 100).unwrap();
    let left: i64 = db.ttl("k").unwrap();
    assert!((95..=100).contains(&left), "{left} seconds");
    assert!(Commands::persist::<_, bool>(&mut db, "k").unwrap());
    let () = db.pset_ex("soon", "v", 20).unwrap();
    eventually("the key has expired", || !Commands::exists::<_, bool>(&mut db, "soon").unwrap());
}

fn errors(servers: &Servers) {
    let mut db = servers.open.connect("");
    let () = db.hset("h", "f", "v").unwrap();
    let error = Commands::get::<_, Value>(&mut db, "h").unwrap_err();
    assert_eq!(error.code(), Some("WRONGTYPE"));
    assert_eq!(error.detail(), Some("Operation against a key holding the wrong kind of value"));
    let error = redis::cmd("NOSUCH").arg("a").query::<Value>(&mut db).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Server(ServerErrorKind::ResponseError));
    let text = "unknown command 'NOSUCH', with args beginning with: 'a' ";
    assert_eq!(error.detail(), Some(text));
}

fn pipeline(servers: &Servers) {
    let mut db = servers.open.connect("");
    let mut deep = redis::pipe();
    for i in 0..5000 {
        deep.set(format!("key:{i}"), i).ignore();
    }
    for i in 0..5000 {
        deep.get(format!("key:{i}"));
    }
    let values: Vec<i64> = deep.query(&mut db).unwrap();
    assert!(values.into_iter().eq(0..5000));
}

fn large_pipeline(servers: &Servers) {
    let value = "x".repeat(10_500);
    let mut pipeline = redis::pipe();
    for _ in 0..1200 {
        pipeline.cmd("ECHO").arg(&value);
    }
    let values: Vec<String> = pipeline.query(&mut servers.open.connect("")).unwrap();
    assert!(values == vec![value; 1200]);
}

fn transaction(servers: &Servers) {
    let (mut db, mut other) = (servers.open.connect(""), servers.open.connect("?protocol=resp3"));
    let (n, value): (i64, String) =
        redis::pipe().atomic().set("a", 1).ignore().incr("a", 1).get("a").query(&mut db).unwrap();
    assert_eq!((n, value.as_str()), (2, "2"));
    // Another client interferes with the first attempt, so there is a second one.
    let mut attempts = 0;
    let (result,): (i64,) = redis::transaction(&mut db, &["a"], |db, pipe| {
        attempts += 1;
        let seen: i64 = db.get("a")?;
        if attempts == 1 {
            let () = other.set("a", 100)?;
        }
        pipe.set("a", seen + 1).ignore().get("a").query(db)
    })
    .unwrap();
    assert_eq!((attempts, result), (2, 101));
    let error = redis::pipe().atomic().set("a", 0).cmd("GET").query::<Value>(&mut db).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Server(ServerErrorKind::ExecAbort), "{error}");
    let value: i64 = db.get("a").unwrap();
    assert_eq!(value, 101);
}

fn messages(servers: &Servers) {
    let mut db = servers.open.connect("");
    for protocol in PROTOCOLS {
        let mut hub = servers.open.connect(protocol);
        let mut hub = hub.as_pubsub();
        hub.set_read_timeout(Some(PATIENCE)).unwrap();
        hub.subscribe("news").unwrap();
        hub.psubscribe("wea*").unwrap();
        let receivers: i64 = db.publish("news", "hello").unwrap();
        assert_eq!(receivers, 1);
        let _: i64 = db.publish("weather", b"\x00\xff\r\n").unwrap();
        let message = hub.get_message().unwrap();
        assert_eq!(
            (message.get_channel_name(), message.get_payload_bytes()),
            ("news", &b"hello"[..])
        );
        let message = hub.get_message().unwrap();
        assert_eq!(message.get_pattern::<String>().unwrap(), "wea*");
        assert_eq!(message.get_payload_bytes(), b"\x00\xff\r\n");
        hub.unsubscribe("news").unwrap();
        hub.punsubscribe("wea*").unwrap();
        let channels: Vec<String> = redis::cmd("PUBSUB").arg("CHANNELS").query(&mut db).unwrap();
        assert!(channels.is_empty(), "{channels:?}");
    }
}

fn scans(servers: &Servers) {
    let mut db = servers.open.connect("");
    let mut fill = redis::pipe();
    for i in 0..1000 {
        fill.set(format!("key:{i}"), i).ignore();
        fill.hset("hash", format!("field:{i}"), i).ignore();
    }
    let () = fill.query(&mut db).unwrap();
    let keys: BTreeSet<String> = db.scan_match("key:*").unwrap().map(Result::unwrap).collect();
    assert_eq!(keys.len(), 1000);
    let fields: HashMap<String, u32> = db.hscan("hash").unwrap().map(Result::unwrap).collect();
    assert_eq!((fields.len(), fields["field:77"]), (1000, 77));
}

fn killed(servers: &Servers) {
    let (mut db, mut victim) = (servers.open.connect(""), servers.open.connect(""));
    let id: i64 = redis::cmd("CLIENT").arg("ID").query(&mut victim).unwrap();
    let count: i64 = redis::cmd("CLIENT").arg(&["KILL", "ID"]).arg(id).query(&mut db).unwrap();
    assert_eq!(count, 1);
    eventually("the connection is dead", || {
        let error = Commands::get::<_, Option<String>>(&mut victim, "k").err();
        error.is_some_and(|error| error.is_connection_dropped())
    });
    assert!(!victim.is_open());
    assert!(servers.open.connect("").check_connection());
}

fn password(servers: &Servers) {
    assert!(servers.locked.connect("").check_connection());
    assert!(servers.locked.connect("1?protocol=resp3").check_connection());
    let attempt = |user: &str, protocol: &str| {
        let url = format!("redis://{user}127.0.0.1:{}/{protocol}", servers.locked.port);
        let client = redis::Client::open(url).unwrap();
        let mut db = client.get_connection_with_timeout(Duration::from_secs(5))?;
        redis::cmd("PING").query::<String>(&mut db)
    };
    for protocol in PROTOCOLS {
        assert_eq!(attempt("default:secret@", protocol).unwrap(), "PONG");
        let error = attempt(":wrong@", protocol).unwrap_err();
        // The library replaces the error of AUTH, but not that of HELLO.
        let refused = error.kind() == ErrorKind::AuthenticationFailed;
        assert!(refused || error.code() == Some("WRONGPASS"), "{error}");
        let error = attempt("", protocol).unwrap_err();
        assert_eq!(error.code(), Some("NOAUTH"), "{error}");
    }
}
