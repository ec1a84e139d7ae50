//! The server as a program sees it, through the `redis` crate.

use std::collections::{BTreeSet, HashMap};

use redis::{Commands, Connection, ErrorKind, ServerErrorKind, TypedCommands, Value};

use crate::harness::{Client, connect, eventually};

/// A connection of the library, and a client that keeps the server running.
fn library(options: &str) -> (Client, Connection) {
    let c = connect();
    let url = format!("redis://{}/{options}", c.address());
    let client = redis::Client::open(url).expect("a URL that the library accepts");
    let connection = client.get_connection().expect("a connection");
    (c, connection)
}

#[test]
fn a_program_sets_and_gets() {
    let (_server, mut db) = library("");
    let () = Commands::set(&mut db, "name", "ahmed").unwrap();
    let name: String = Commands::get(&mut db, "name").unwrap();
    assert_eq!(name, "ahmed");
    let missing: Option<String> = Commands::get(&mut db, "missing").unwrap();
    assert_eq!(missing, None);
    let bytes = vec![0u8, 255, 13, 10];
    let () = Commands::set(&mut db, &bytes, &bytes).unwrap();
    let back: Vec<u8> = Commands::get(&mut db, &bytes).unwrap();
    assert_eq!(back, bytes);
    let many: Vec<Option<String>> = Commands::mget(&mut db, &["name", "missing"]).unwrap();
    assert_eq!(many, [Some("ahmed".to_owned()), None]);
    assert_eq!(TypedCommands::del(&mut db, &["name", "missing"]).unwrap(), 1);
    assert!(!TypedCommands::exists(&mut db, "name").unwrap());
}

#[test]
fn a_program_counts() {
    let (_server, mut db) = library("");
    let n: i64 = Commands::incr(&mut db, "n", 5).unwrap();
    assert_eq!(n, 5);
    let n: i64 = Commands::decr(&mut db, "n", 7).unwrap();
    assert_eq!(n, -2);
    let x: f64 = Commands::incr(&mut db, "x", 0.1).unwrap();
    assert_eq!(x, 0.1);
    let x: f64 = Commands::incr(&mut db, "x", 0.2).unwrap();
    assert_eq!(x, 0.3);
}

#[test]
fn a_program_keeps_records_in_hashes() {
    for options in ["", "?protocol=resp3"] {
        let (_server, mut db) = library(options);
        let () = Commands::hset_multiple(&mut db, "user:1", &[("name", "ada"), ("born", "1815")])
            .unwrap();
        let user: HashMap<String, String> = Commands::hgetall(&mut db, "user:1").unwrap();
        assert_eq!(user.len(), 2);
        assert_eq!(user["name"], "ada");
        let born: i32 = Commands::hincr(&mut db, "user:1", "born", 1).unwrap();
        assert_eq!(born, 1816);
        let fields: BTreeSet<String> = Commands::hkeys(&mut db, "user:1").unwrap();
        assert_eq!(fields, BTreeSet::from(["born".to_owned(), "name".to_owned()]));
        assert!(TypedCommands::hexists(&mut db, "user:1", "name").unwrap());
        assert_eq!(TypedCommands::hdel(&mut db, "user:1", "name").unwrap(), 1);
        let nobody: HashMap<String, String> = Commands::hgetall(&mut db, "user:2").unwrap();
        assert!(nobody.is_empty());
    }
}

#[test]
fn a_program_sends_a_pipeline() {
    let (_server, mut db) = library("");
    let (a, b, missing): (i64, String, Option<String>) = redis::pipe()
        .cmd("INCRBY")
        .arg("a")
        .arg(42)
        .cmd("SET")
        .arg("b")
        .arg("text")
        .ignore()
        .cmd("GET")
        .arg("b")
        .cmd("GET")
        .arg("missing")
        .query(&mut db)
        .unwrap();
    assert_eq!((a, b.as_str(), missing), (42, "text", None));
    let mut deep = redis::pipe();
    for i in 0..2000 {
        deep.cmd("SET").arg(format!("k{i}")).arg(i).ignore();
    }
    deep.cmd("DBSIZE");
    let (size,): (usize,) = deep.query(&mut db).unwrap();
    assert_eq!(size, 2002);
}

#[test]
fn a_program_lets_keys_expire() {
    let (_server, mut db) = library("");
    let () = Commands::set_ex(&mut db, "k", "v", 100).unwrap();
    let left: i64 = Commands::ttl(&mut db, "k").unwrap();
    assert!((95..=100).contains(&left));
    assert!(TypedCommands::persist(&mut db, "k").unwrap());
    let left: i64 = Commands::ttl(&mut db, "k").unwrap();
    assert_eq!(left, -1);
    let () = Commands::pset_ex(&mut db, "soon", "v", 20).unwrap();
    eventually("the key has expired", || {
        let value: Option<String> = Commands::get(&mut db, "soon").unwrap();
        value.is_none()
    });
}

#[test]
fn a_program_iterates_over_keys_and_fields() {
    let (_server, mut db) = library("");
    let mut fill = redis::pipe();
    for i in 0..500 {
        fill.cmd("SET").arg(format!("key:{i}")).arg(i).ignore();
        fill.cmd("HSET").arg("hash").arg(format!("field:{i}")).arg(i).ignore();
    }
    let () = fill.query(&mut db).unwrap();
    let keys: BTreeSet<String> =
        Commands::scan_match(&mut db, "key:*").unwrap().map(Result::unwrap).collect();
    assert_eq!(keys.len(), 500);
    let fields: HashMap<String, u32> =
        Commands::hscan(&mut db, "hash").unwrap().map(Result::unwrap).collect();
    assert_eq!(fields.len(), 500);
    assert_eq!(fields["field:77"], 77);
}

#[test]
fn a_program_understands_our_errors() {
    let (_server, mut db) = library("");
    let () = Commands::hset(&mut db, "h", "f", "v").unwrap();
    let error = Commands::get::<_, Value>(&mut db, "h").unwrap_err();
    assert_eq!(error.code(), Some("WRONGTYPE"));
    let error = redis::cmd("NOSUCH").query::<Value>(&mut db).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Server(ServerErrorKind::ResponseError));
    let one: String = redis::cmd("PING").query(&mut db).unwrap();
    assert_eq!(one, "PONG");
}

#[test]
fn a_program_chooses_its_database_and_gives_a_password() {
    let (mut c, mut db) = library("3");
    let () = Commands::set(&mut db, "k", "three").unwrap();
    c.expect("EXISTS k", ":0");
    c.expect("SELECT 3", "+OK");
    c.expect("GET k", "\"three\"");
    c.expect("CONFIG SET requirepass secret", "+OK");
    let address = c.address();
    let open = |url: String| redis::Client::open(url).unwrap().get_connection();
    for options in ["3", "3?protocol=resp3"] {
        let mut db =
            open(format!("redis://:secret@{address}/{options}")).expect("the right password");
        let value: String = Commands::get(&mut db, "k").unwrap();
        assert_eq!(value, "three");
        assert!(open(format!("redis://:wrong@{address}/{options}")).is_err());
    }
}
