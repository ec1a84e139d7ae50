//! `rename-command`: clients call a command by another name, or not at all. The replies are those of
//! Redis 8.2. None of these tests runs against a Redis at `REDIS_ADDR`, which would have to be started with
//! the names.

use std::fs;

use crate::harness::{Server, TempDir, assert_survives_kill_9, encode, records, skipped_on_redis};

const RENAMED: &[&str] = &[
    "--rename-command",
    "GET",
    "Foo", //
    "--rename-command",
    "set",
    "my set", //
    "--rename-command",
    "config",
    "myconfig", //
    "--rename-command",
    "FLUSHALL",
    "", //
    "--rename-command",
    "append",
    "get", //
];

#[test]
fn clients_call_a_renamed_command_by_its_new_name_only() {
    if skipped_on_redis() {
        return;
    }
    let server = Server::start(RENAMED);
    let mut c = server.client();
    for (call, name, args) in [
        ("SET k v", "SET", "'k' 'v' "),
        ("flushall", "flushall", ""),
        ("CONFIG GET", "CONFIG", "'GET' "),
    ] {
        let unknown = format!("-ERR unknown command '{name}', with args beginning with: {args}");
        c.expect(call, &unknown);
    }
    c.transcript(
        r#"
        > GET k
        -ERR wrong number of arguments for 'append' command
        > "MY set" k v
        +OK
        > foo k
        "v"
        > foo
        -ERR wrong number of arguments for 'get' command
        > get k w
        :2
        > myConfig get timeout
        ["timeout", "0"]
        > myconfig get *rename*
        []
        > myconfig set rename-command x
        -ERR Unknown option or number of arguments for CONFIG SET - 'rename-command'
        > myconfig nosuch
        -ERR unknown subcommand 'nosuch'. Try MYCONFIG HELP.
        > myconfig get
        -ERR wrong number of arguments for 'config|get' command
        > MULTI
        +OK
        > foo k
        +QUEUED
        > get k x
        +QUEUED
        > EXEC
        ["vw", :3]
        > MULTI
        +OK
        > foo
        -ERR wrong number of arguments for 'get' command
        > EXEC
        -EXECABORT Transaction discarded because of previous errors.
        "#,
    );
}

#[test]
fn commands_about_commands_take_the_new_names_and_show_the_old_ones() {
    if skipped_on_redis() {
        return;
    }
    let server = Server::start(RENAMED);
    let mut c = server.client();
    let all = Server::start(&[]).client().integer("COMMAND COUNT");
    assert_eq!(c.integer("COMMAND COUNT"), all - 1);
    assert_eq!(c.reply("COMMAND").into_items().len(), all as usize - 1);
    let shown = c.reply("COMMAND LIST FILTERBY PATTERN *").to_string();
    assert!(shown.contains("\"get\"") && shown.contains("\"config|get\""), "{shown}");
    assert!(!shown.contains("\"flushall\"") && !shown.contains("foo"), "{shown}");
    let infos = c.reply("COMMAND INFO foo set myconfig|get config|get flushall").into_items();
    assert!(infos[0].to_string().starts_with("[\"get\", :2, "), "{}", infos[0]);
    assert!(infos[2].to_string().starts_with("[\"config|get\", "), "{}", infos[2]);
    for missing in [1, 3, 4] {
        assert_eq!(infos[missing].to_string(), "nil");
    }
    c.transcript(
        r#"
        > COMMAND GETKEYS foo k
        ["k"]
        > COMMAND GETKEYS append k v
        -ERR Invalid command specified
        > ACL SETUSER u on nopass ~* +foo
        -ERR Error in ACL SETUSER modifier '+foo': Unknown command or category name in ACL
        > ACL SETUSER u on nopass ~* +get +flushall
        +OK
        > ACL DRYRUN u foo k
        +OK
        > ACL DRYRUN u get k v
        "User u has no permissions to run the 'append' command"
        > ACL DRYRUN u flushall
        -ERR Command 'flushall' not found
        > foo k
        nil
        "#,
    );
    let list = c.reply("ACL LIST").to_string();
    assert!(list.contains("-@all +get +flushall"), "{list}");
    assert!(c.text("CLIENT LIST").contains(" cmd=client|list "));
    assert!(c.text("INFO commandstats").contains("cmdstat_get:calls=1,"));
    let histogram = c.reply("LATENCY HISTOGRAM foo").to_string();
    assert!(histogram.contains("\"get\""), "{histogram}");
    c.expect("LATENCY HISTOGRAM get", "[]");
    c.expect("myconfig SET slowlog-log-slower-than 0", "+OK");
    c.expect("foo k", "nil");
    let entry = c.reply("SLOWLOG GET 1").to_string();
    assert!(entry.contains("[\"foo\", \"k\"]"), "{entry}");
}

#[test]
fn the_log_has_the_old_names_so_that_it_can_be_replayed_under_any() {
    if skipped_on_redis() {
        return;
    }
    let mut server = Server::start(RENAMED);
    let mut c = server.client();
    c.expect("'My Set' k v", "+OK");
    c.expect("get k w", ":2");
    c.expect("MULTI", "+OK");
    c.expect("'my set' l v", "+QUEUED");
    c.expect("EXEC", "[+OK]");
    let names: Vec<Vec<u8>> =
        records(&server.log_path()).into_iter().map(|record| record[0].clone()).collect();
    assert_eq!(names, [&b"set"[..], b"append", b"set"]);
    server.kill_9();
    server.restart();
    server.client().expect("foo k", "\"vw\"");
    server.client().expect("foo l", "\"v\"");

    // Redis logs the name that was called.
    let home = TempDir::new();
    let theirs = [encode(&["my set", "k", "v"]), encode(&["APPEND", "k", "w"])].concat();
    fs::write(home.data().join("storage.aof"), theirs).expect("write a log");
    Server::start_in(home, RENAMED).client().expect("foo k", "\"vw\"");

    let home = TempDir::new();
    fs::copy(server.log_path(), home.data().join("storage.aof")).expect("copy the log");
    let mut plain = Server::start_in(home, &[]);
    plain.client().expect("GET k", "\"vw\"");
    assert_survives_kill_9(&mut plain);
}

#[test]
fn names_change_in_the_order_of_the_lines_and_a_mistake_is_named() {
    if skipped_on_redis() {
        return;
    }
    for (lines, command, reply) in [
        ("rename-command get a\nrename-command a b\n", "b k", "nil"),
        ("rename-command get a\nrename-command a get\n", "get k", "nil"),
        ("rename-command get \"\"\nrename-command strlen GET\n", "get k", ":0"),
        ("rename-command get GET\n", "get k", "nil"),
        ("Rename-Command get \"\\xff\\x00\"\n", "\"\\xff\\x00\" k", "nil"),
    ] {
        let home = TempDir::new();
        let file = home.path().join("redis.conf");
        fs::write(&file, lines).expect("write the file");
        let path = file.to_str().expect("a path of UTF-8").to_owned();
        let server = Server::start_in(home, &[&path]);
        let mut c = server.client();
        c.expect(command, reply);
        // CONFIG REWRITE leaves the lines as they are.
        c.expect("CONFIG SET timeout 7", "+OK");
        c.expect("CONFIG REWRITE", "+OK");
        let text = fs::read_to_string(&file).expect("read the file");
        assert!(text.starts_with(lines) && text.contains("timeout 7"), "{text}");
    }
    for (args, why) in [
        (&["nosuch", "x"][..], "can't rename 'nosuch': No such command in rename-command"),
        (&["", "x"], "can't rename '': No such command in rename-command"),
        (&["config|get", "x"], "can't rename 'config|get': No such command in rename-command"),
        (&["get", "SET"], "can't rename 'get': Target command name already exists"),
        (&["get"], "bad setting '--rename-command': wrong number of arguments"),
        (&["get", "a", "b"], "bad setting '--rename-command': wrong number of arguments"),
    ] {
        let ended = Server::fail_to_start(&TempDir::new(), &[&["--rename-command"], args].concat());
        assert_eq!(ended.code, Some(1));
        assert!(ended.stderr.contains(why), "{}", ended.stderr);
    }
}

#[test]
fn monitors_see_the_name_that_was_called() {
    if skipped_on_redis() {
        return;
    }
    let server = Server::start(RENAMED);
    let mut monitor = server.client();
    monitor.expect("MONITOR", "+OK");
    server.client().call(&["foo", "k"]);
    let line = monitor.read_reply().to_string();
    assert!(line.ends_with("\"foo\" \"k\""), "{line}");
}
