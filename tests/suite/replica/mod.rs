//! A server as a replica: of a master that the test plays ([`fake`]), of real ones ([`real`]),
//! and as one of several that take each other's place ([`failover`], [`sentinel`]).

mod failover;
mod fake;
mod real;
mod sentinel;

use crate::harness::{
    Client, Server, TempDir, check_aof, connect, connect_with, dump, eventually, skipped_on_redis,
    unix_now_ms,
};
use fake::{ID, Link, MARK, Master, rdb, rdb_with_list, stream};

/// A field of `INFO replication`.
fn info(c: &mut Client, field: &str) -> String {
    let text = c.text("INFO replication");
    let find = |line: &str| Some(line.strip_prefix(field)?.strip_prefix(':')?.to_owned());
    text.lines().find_map(find).unwrap_or_else(|| panic!("no {field} in {text}"))
}

#[track_caller]
fn await_info(c: &mut Client, field: &str, value: &str) {
    eventually(&format!("{field} is {value}"), || info(c, field) == value);
}

/// Makes the server a replica of a master with this data, at offset 1000.
fn replicate(c: &mut Client, master: &Master, strings: &[(&str, &str)]) -> Link {
    master.take(c);
    let mut link = master.accept();
    link.send_all(1000, &rdb(strings));
    await_info(c, "master_link_status", "up");
    link
}

// ---- Synchronisation ---------------------------------------------------------------------------------

#[test]
fn a_replica_introduces_itself_and_takes_the_masters_data_in_place_of_its_own() {
    for up_to_mark in [false, true] {
        let mut c = connect();
        c.expect("SET own 1", "+OK");
        let master = Master::start();
        master.take(&mut c);
        let mut link = master.accept();
        let said = |words: &[&str]| {
            link.said.iter().any(|command| {
                command.starts_with(&words.iter().map(|word| word.to_string()).collect::<Vec<_>>())
            })
        };
        let port = c.address().port().to_string();
        assert!(said(&["PING"]) && said(&["REPLCONF", "listening-port", &port]), "{:?}", link.said);
        assert!(said(&["REPLCONF", "capa", "eof", "capa", "psync2"]), "{:?}", link.said);
        // It asks for what follows its own history.
        assert_eq!(link.asked.0.len(), 40);
        assert!(link.asked.1.parse::<u64>().is_ok_and(|next| next > 0), "{:?}", link.asked);
        let data = rdb(&[("a", "1"), ("b", "2")]);
        // Empty lines say that the master lives.
        link.send("\n\n");
        if up_to_mark {
            link.send_up_to_mark(7, &data);
        } else {
            link.send_all(7, &data);
        }
        await_info(&mut c, "master_link_status", "up");
        c.transcript(
            r#"
            sorted> KEYS *
            ["a", "b"]
            > GET b
            "2"
            "#,
        );
        assert_eq!(info(&mut c, "slave_repl_offset"), "7");
        assert_eq!(info(&mut c, "master_replid"), ID);
        link.await_acknowledgement(7);
    }
}

#[test]
fn the_stream_is_executed_in_its_database_and_confirmed_up_to_its_last_command() {
    let mut c = connect();
    let master = Master::start();
    let mut link = replicate(&mut c, &master, &[("a", "1")]);
    let bytes = stream(&["SELECT 3", "SET x 1", "INCR x", "PING", "SELECT 0", "DEL a"]);
    // However it is cut.
    for byte in &bytes {
        link.send([*byte]);
    }
    let end = 1000 + bytes.len() as u64;
    link.await_acknowledgement(end);
    c.expect("EXISTS a", ":0");
    c.expect("SELECT 3", "+OK");
    c.expect("GET x", "\"2\"");
    let ask = stream(&["REPLCONF GETACK *"]);
    link.send(&ask);
    // Whether it counts the question differs.
    link.command();
    link.await_acknowledgement(end + ask.len() as u64);
}

#[test]
fn nobody_goes_on_in_what_a_server_without_a_log_recorded_before_it_became_a_replica() {
    if skipped_on_redis() {
        return;
    }
    let mut c = connect_with(&["--appendonly", "no"]);
    let mut replica = c.another();
    let answer = replica.reply("PSYNC ? -1").to_string();
    assert!(answer.starts_with("+FULLRESYNC"), "{answer}");
    (0..200).for_each(|n| c.expect(&format!("SET own:{n} value"), "+OK"));
    let master = Master::start();
    let _link = replicate(&mut c, &master, &[("a", "1")]);
    let mut other = c.another();
    other.send(&["PSYNC", ID, "501"]);
    let answer = other.read_reply().to_string();
    assert!(answer.starts_with("+FULLRESYNC"), "{answer}");
}

#[test]
fn a_transaction_of_the_master_is_seen_whole_or_not_at_all() {
    let mut c = connect();
    let master = Master::start();
    let mut link = replicate(&mut c, &master, &[]);
    link.commands(&["SELECT 0", "SET first 1", "MULTI", "SET a 1", "SET b 1"]);
    eventually("the command before it is executed", || c.integer("EXISTS first") == 1);
    c.expect("EXISTS a b", ":0");
    link.commands(&["EXEC"]);
    eventually("it is executed", || c.integer("EXISTS a b") > 0);
    c.expect("EXISTS a b", ":2");
}

#[test]
fn after_a_break_a_replica_asks_for_the_rest_and_follows_a_new_id() {
    let mut c = connect();
    let master = Master::start();
    let mut link = replicate(&mut c, &master, &[("a", "1")]);
    let bytes = stream(&["SELECT 5", "SET a 5"]);
    link.send(&bytes);
    link.await_acknowledgement(1000 + bytes.len() as u64);
    // The beginning of a command does not count, nor that of a transaction.
    link.send(&stream(&["MULTI", "SET a 6"])[..20]);
    drop(link);
    let mut link = master.accept();
    let next = 1000 + bytes.len() + 1;
    assert_eq!(link.asked, (ID.into(), next.to_string()));
    let new_id = ID.replace('0', "f");
    link.send(format!("+CONTINUE {new_id}\r\n"));
    // The database is still selected.
    link.commands(&["INCR a"]);
    await_info(&mut c, "master_link_status", "up");
    c.expect("SELECT 5", "+OK");
    eventually("the stream goes on", || c.reply("GET a").to_string() == "\"6\"");
    assert_eq!(info(&mut c, "master_replid"), new_id);
    assert_eq!(info(&mut c, "master_replid2"), ID);
    assert_eq!(info(&mut c, "second_repl_offset"), next.to_string());
}

#[test]
fn a_master_that_does_not_know_psync_is_asked_for_everything_with_sync() {
    let mut c = connect();
    let master = Master::start();
    master.take(&mut c);
    for round in ["1", "2"] {
        let mut link = master.accept();
        link.send("-ERR unknown command 'PSYNC'\r\n");
        assert_eq!(link.command(), ["SYNC"]);
        let data = rdb(&[("round", round)]);
        link.send(format!("${}\r\n", data.len()));
        link.send(data);
        link.commands(&["SELECT 0", "SET a 1", "INCR a", "PING"]);
        await_info(&mut c, "master_link_status", "up");
        eventually("the stream is executed", || c.reply("GET a").to_string() == "\"2\"");
        c.expect("GET round", &format!("\"{round}\""));
        // It would answer acknowledgements, in the middle of its stream.
        let rest = link.rest();
        assert!(rest.iter().all(|byte| *byte == b'\n'), "{rest:?}");
    }
}

/// A newer master, from which PSYNC was taken away, waits for an acknowledgement before it sends its stream.
#[test]
fn a_master_that_is_asked_with_sync_and_sends_up_to_a_mark_gets_an_acknowledgement() {
    if skipped_on_redis() {
        return;
    }
    let mut c = connect();
    let master = Master::start();
    master.take(&mut c);
    let mut link = master.accept();
    link.send("-ERR unknown command 'PSYNC', with args beginning with: \r\n");
    assert_eq!(link.command(), ["SYNC"]);
    link.send(format!("$EOF:{MARK}\r\n"));
    link.send(rdb(&[("round", "3")]));
    link.send(MARK);
    link.await_acknowledgement(0);
    c.expect("GET round", "\"3\"");
}

#[test]
fn the_rate_of_what_comes_from_the_master_is_measured() {
    let mut c = connect();
    let master = Master::start();
    let mut link = replicate(&mut c, &master, &[]);
    link.commands(&["SELECT 0"]);
    let set = format!("SET a {}", "x".repeat(10_000));
    let rate = |c: &mut Client| {
        let text = c.text("INFO stats");
        let field = "instantaneous_input_repl_kbps:";
        let value = text.lines().find_map(|line| line.strip_prefix(field)?.parse::<f64>().ok());
        value.unwrap_or_else(|| panic!("no rate in {text}"))
    };
    eventually("the rate is that of what was sent", || {
        link.commands(&[&set]);
        rate(&mut c) > 1.0
    });
}

#[test]
fn a_master_that_is_not_ready_is_asked_again() {
    let mut c = connect();
    let master = Master::start();
    master.take(&mut c);
    for refusal in ["-LOADING Redis is loading the dataset in memory", "-NOMASTERLINK not yet"] {
        let mut link = master.accept();
        link.send(format!("{refusal}\r\n"));
    }
    let mut link = master.accept();
    link.send_all(0, &rdb(&[("a", "1")]));
    await_info(&mut c, "master_link_status", "up");
    c.expect("GET a", "\"1\"");
}

#[test]
fn a_replica_logs_in_to_its_master() {
    let mut c = connect();
    c.expect("CONFIG SET masteruser ana masterauth secret", "+OK");
    let master = Master::start();
    master.take(&mut c);
    let link = master.accept();
    let auth = ["AUTH", "ana", "secret"].map(String::from).to_vec();
    assert!(link.said.contains(&auth), "{:?}", link.said);
    c.expect("REPLICAOF NO ONE", "+OK");
    c.expect("CONFIG SET masteruser ''", "+OK");
    master.take(&mut c);
    let link = master.accept();
    assert!(link.said.contains(&["AUTH", "secret"].map(String::from).to_vec()), "{:?}", link.said);
}

#[test]
fn damaged_data_of_a_master_changes_nothing() {
    if skipped_on_redis() {
        return; // which has deleted its own data by then
    }
    let server = Server::start(&[]);
    let mut c = server.client();
    c.expect("SET own 1", "+OK");
    let master = Master::start();
    master.take(&mut c);
    let data = rdb(&[("a", "1")]);
    let mut damaged = data.clone();
    damaged[0] = b'X';
    let list = rdb_with_list("tasks");
    let before = dump(&mut c);
    // Cut, damaged, too long, of a type that does not exist here.
    master.accept().send_all(9, &data[..data.len() - 9]);
    master.accept().send_all(9, &damaged);
    master.accept().send_all(9, &[data, b"more".to_vec()].concat());
    master.accept().send_up_to_mark(9, &list);
    eventually("the refusal is logged", || server.stderr().contains("cannot be held here"));
    let stderr = server.stderr();
    assert!(stderr.contains("'tasks'") && stderr.contains("list"), "{stderr}");
    assert_eq!(dump(&mut c), before);
    c.expect("REPLICAOF NO ONE", "+OK");
    c.expect("SET own 2", "+OK");
}

#[test]
fn while_the_data_comes_our_own_is_served_and_a_client_can_end_it() {
    if skipped_on_redis() {
        return;
    }
    let mut c = connect();
    c.expect("SET own 1", "+OK");
    let master = Master::start();
    master.take(&mut c);
    let mut link = master.accept();
    link.send(format!("+FULLRESYNC {ID} 5\r\n$1000\r\nREDIS0010"));
    await_info(&mut c, "master_sync_in_progress", "1");
    c.expect("GET own", "\"1\"");
    await_info(&mut c, "master_sync_total_bytes", "1000");
    c.expect("REPLICAOF NO ONE", "+OK");
    c.expect("SET own 2", "+OK");
    assert_eq!(info(&mut c, "role"), "master");
}

#[test]
fn a_command_that_does_not_exist_here_leads_to_a_new_full_synchronisation() {
    if skipped_on_redis() {
        return;
    }
    let server = Server::start(&[]);
    let mut c = server.client();
    let master = Master::start();
    let mut link = replicate(&mut c, &master, &[("a", "1")]);
    // Functions are no data; a list would be.
    link.commands(&["SELECT 0", "FUNCTION LOAD x", "SET a 2", "RPUSH tasks x"]);
    let mut link = master.accept();
    assert_eq!(link.asked, ("?".into(), "-1".into()));
    assert!(server.stderr().contains("RPUSH"), "{}", server.stderr());
    c.expect("GET a", "\"2\"");
    link.send_all(2000, &rdb(&[("a", "3")]));
    await_info(&mut c, "master_link_status", "up");
    c.expect("GET a", "\"3\"");
}

#[test]
fn a_command_without_lengths_of_the_master_leads_to_a_new_full_synchronisation() {
    let mut c = connect();
    let master = Master::start();
    let mut link = replicate(&mut c, &master, &[("a", "1")]);
    link.send("SET a 2\r\n");
    let mut link = master.accept();
    assert_eq!(link.asked, ("?".into(), "-1".into()));
    c.expect("GET a", "\"1\"");
    link.send_all(2000, &rdb(&[("a", "3")]));
    await_info(&mut c, "master_link_status", "up");
    c.expect("GET a", "\"3\"");
}

#[test]
fn empty_lines_of_the_master_count_and_do_no_harm_in_the_log() {
    if skipped_on_redis() {
        return;
    }
    let master = Master::start();
    let place = format!("127.0.0.1 {}", master.port());
    let mut server = Server::start(&["--replicaof", &place]);
    let mut link = master.accept();
    link.send_all(1000, &rdb(&[("a", "1")]));
    let mut bytes = Vec::new();
    for command in ["SELECT 0", "SET x 1", "MULTI", "SET y 2", "EXEC", "SET z 3"] {
        bytes.extend(b"\r\n\n");
        bytes.extend(stream(&[command]));
    }
    link.send(&bytes);
    let end = 1000 + bytes.len() as u64;
    link.await_acknowledgement(end);
    let before = dump(&mut server.client());
    assert_eq!(before.len(), 4);
    server.kill_9();
    let (good, report) = check_aof(&server.log_path(), &[]);
    assert!(good, "{report}");
    server.restart();
    let link = master.accept();
    assert_eq!(link.asked, (ID.into(), (end + 1).to_string()));
    assert_eq!(dump(&mut server.client()), before);
}

#[test]
fn a_silent_master_is_given_up_and_connected_again() {
    let mut c = connect();
    c.expect("CONFIG SET repl-timeout 1", "+OK");
    let master = Master::start();
    // It is silent during the handshake, while its data comes, and later.
    master.take(&mut c);
    let mut links = vec![master.accept()];
    links.push(master.accept());
    links[1].send(format!("+FULLRESYNC {ID} 5\r\n$1000\r\nREDIS0010"));
    links.push(master.accept());
    links[2].send_all(1000, &rdb(&[("a", "1")]));
    await_info(&mut c, "master_link_status", "up");
    links.push(master.accept());
    assert_eq!(links[3].asked, (ID.into(), "1001".into()));
    c.expect("GET a", "\"1\"");
}

// ---- What clients of a replica see -------------------------------------------------------------------

#[test]
fn clients_may_not_write_on_a_replica_unless_its_settings_say_so() {
    let mut c = connect();
    let master = Master::start();
    let mut link = replicate(&mut c, &master, &[("a", "1")]);
    c.transcript(
        r#"
        > SET a 2
        -READONLY You can't write against a read only replica.
        > GETEX a EX 10
        -READONLY You can't write against a read only replica.
        > FLUSHALL
        -READONLY You can't write against a read only replica.
        > PFCOUNT missing
        :0
        > PUBLISH channel message
        :0
        > SET a
        -ERR wrong number of arguments for 'set' command
        > MULTI
        +OK
        > GET a
        +QUEUED
        > SET a 2
        -READONLY You can't write against a read only replica.
        > EXEC
        -EXECABORT Transaction discarded because of previous errors.
        > GET a
        "1"
        > CONFIG SET replica-read-only no
        +OK
        > SET local 2
        +OK
        > CONFIG SET slave-read-only yes
        +OK
        > GET local
        "2"
        "#,
    );
    link.commands(&["SELECT 0", "SET local 3"]);
    eventually("the master's write comes", || c.reply("GET local").to_string() == "\"3\"");
}

#[test]
fn without_the_master_a_replica_answers_only_if_its_settings_say_so() {
    let mut c = connect();
    let master = Master::start();
    let link = replicate(&mut c, &master, &[("a", "1")]);
    c.expect("GET a", "\"1\"");
    c.expect("CONFIG SET replica-serve-stale-data no", "+OK");
    c.expect("GET a", "\"1\"");
    drop((link, master));
    await_info(&mut c, "master_link_status", "down");
    c.transcript(
        r#"
        > GET a
        -MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.
        > PING
        -MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.
        > SET a 1
        -READONLY You can't write against a read only replica.
        > MULTI
        +OK
        > GET a
        -MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.
        > EXEC
        -EXECABORT Transaction discarded because of previous errors.
        > CONFIG SET replica-serve-stale-data yes
        +OK
        > GET a
        "1"
        "#,
    );
}

#[test]
fn an_expired_key_is_hidden_and_stays_until_the_master_deletes_it() {
    let mut c = connect();
    let master = Master::start();
    let mut link = replicate(&mut c, &master, &[]);
    let soon = unix_now_ms() + 20;
    link.commands(&[
        "SELECT 0",
        "SET past 1 PXAT 1000",
        &format!("SET soon 1 PXAT {soon}"),
        "SET last 1",
    ]);
    eventually("the stream is executed", || c.integer("EXISTS last") == 1);
    eventually("the key expires", || c.integer("EXISTS soon") == 0);
    c.transcript(
        r#"
        > GET past
        nil
        > TTL soon
        :-2
        > TYPE past
        +none
        > DBSIZE
        :3
        sorted> KEYS *
        ["last"]
        "#,
    );
    // The master's clock decides: it still has the key.
    link.commands(&["PERSIST soon", "INCR soon", "DEL past"]);
    eventually("the key is back", || c.reply("GET soon").to_string() == r#""2""#);
    c.expect("DBSIZE", ":2");
}

#[test]
fn watchers_subscribers_and_caching_clients_hear_of_what_the_master_changes() {
    let mut c = connect();
    let master = Master::start();
    let mut link = replicate(&mut c, &master, &[("a", "1")]);
    let (mut watcher, mut listener, mut tracker) = (c.another(), c.another(), c.another());
    watcher.expect("WATCH a", "+OK");
    watcher.expect("MULTI", "+OK");
    watcher.expect("GET a", "+QUEUED");
    c.expect("CONFIG SET notify-keyspace-events KA", "+OK");
    listener.reply("SUBSCRIBE __keyspace@0__:a news");
    listener.read_reply();
    tracker.reply("HELLO 3");
    tracker.expect("CLIENT TRACKING ON", "+OK");
    tracker.expect("GET a", "\"1\"");
    link.commands(&["SELECT 0", "MULTI", "SET a 2", "PUBLISH news hello", "EXEC"]);
    assert_eq!(listener.read_reply().to_string(), r#"["message", "__keyspace@0__:a", "set"]"#);
    assert_eq!(listener.read_reply().to_string(), r#"["message", "news", "hello"]"#);
    assert_eq!(tracker.read_reply().to_string(), r#">["invalidate", ["a"]]"#);
    watcher.expect("EXEC", "nil*");
}

#[test]
fn role_and_client_list_show_the_master() {
    let mut c = connect();
    let role = c.reply("ROLE").to_string();
    assert!(role.starts_with(r#"["master", :"#) && role.ends_with(", []]"), "{role}");
    let master = Master::start();
    let link = replicate(&mut c, &master, &[]);
    let port = master.port();
    c.expect("ROLE", &format!(r#"["slave", "127.0.0.1", :{port}, "connected", :1000]"#));
    assert_eq!(info(&mut c, "master_host"), "127.0.0.1");
    assert_eq!(info(&mut c, "master_port"), port.to_string());
    let list = c.text("CLIENT LIST TYPE master");
    assert!(list.contains(&format!("addr=127.0.0.1:{port} ")), "{list}");
    assert!(list.contains("flags=M ") && list.lines().count() == 1, "{list}");
    c.expect("CONFIG GET replicaof", &format!(r#"["replicaof", "127.0.0.1 {port}"]"#));
    c.expect("CLIENT KILL TYPE master", ":1");
    // The link is established again.
    drop(link);
    let mut link = master.accept();
    link.send("+CONTINUE\r\n");
    await_info(&mut c, "master_link_status", "up");
    drop((link, master));
    await_info(&mut c, "master_link_status", "down");
    assert_eq!(info(&mut c, "master_last_io_seconds_ago"), "-1");
    eventually("the link waits", || {
        c.reply("ROLE").to_string() == format!(r#"["slave", "127.0.0.1", :{port}, "connect", :-1]"#)
    });
}

#[test]
fn replicaof_checks_its_arguments_and_works_in_a_transaction() {
    let mut c = connect();
    let master = Master::start();
    let port = master.port();
    c.transcript(&format!(
        r#"
        > REPLICAOF localhost
        -ERR wrong number of arguments for 'replicaof' command
        > REPLICAOF localhost abc
        -ERR Invalid master port
        > REPLICAOF localhost 99999
        -ERR Invalid master port
        > SLAVEOF localhost -1
        -ERR Invalid master port
        > REPLICAOF no one
        +OK
        > CONFIG SET replicaof "localhost 1"
        -ERR CONFIG SET failed (possibly related to argument 'replicaof') - can't set immutable config
        > MULTI
        +OK
        > SLAVEOF 127.0.0.1 {port}
        +QUEUED
        > PING
        +QUEUED
        > EXEC
        [+OK, +PONG]
        > REPLICAOF 127.0.0.1 {port}
        +OK Already connected to specified master
        > CONFIG GET slaveof
        ["slaveof", "127.0.0.1 {port}"]
        > SLAVEOF NO ONE
        +OK
        > CONFIG GET replicaof
        ["replicaof", ""]
        "#
    ));
}

#[test]
fn config_rewrite_keeps_the_master_that_replicaof_has_set() {
    if skipped_on_redis() {
        return;
    }
    let home = TempDir::new();
    let path = home.path().join("redis.conf");
    std::fs::write(&path, "timeout 5\nslaveof 127.0.0.1 1\n").expect("write the file");
    let file = path.to_str().expect("a path in UTF-8").to_owned();
    let server = Server::start_in(home, &[&file]);
    let mut c = server.client();
    assert_eq!(info(&mut c, "master_port"), "1");
    for (command, line) in [
        ("REPLICAOF 127.0.0.2 2", "replicaof 127.0.0.2 2\n"),
        ("REPLICAOF NO ONE", ""),
        ("REPLICAOF 127.0.0.3 3", "replicaof 127.0.0.3 3\n"),
    ] {
        c.expect(command, "+OK");
        c.expect("CONFIG REWRITE", "+OK");
        let text = std::fs::read_to_string(&path).expect("read the file");
        assert!(text.starts_with(&format!("timeout 5\n{line}")) || text.contains(line), "{text}");
        assert_eq!(text.contains("replicaof"), !line.is_empty(), "{text}");
    }
}

// ---- Promotion and restarts --------------------------------------------------------------------------

#[test]
fn a_promoted_replica_writes_at_once_under_an_id_of_its_own() {
    let mut c = connect();
    let master = Master::start();
    let mut link = replicate(&mut c, &master, &[("a", "1")]);
    let bytes = stream(&["SELECT 4", "SET a 4"]);
    link.send(&bytes);
    link.await_acknowledgement(1000 + bytes.len() as u64);
    c.expect("REPLICAOF NO ONE", "+OK");
    c.expect("SET own 1", "+OK");
    assert_eq!(info(&mut c, "role"), "master");
    assert_eq!(info(&mut c, "master_replid2"), ID);
    let next = 1000 + bytes.len() + 1;
    assert_eq!(info(&mut c, "second_repl_offset"), next.to_string());
    assert_ne!(info(&mut c, "master_replid"), ID);
    // What the old master still sends changes nothing.
    let _ = std::io::Write::write_all(&mut link.socket(), &stream(&["SET own 2"]));
    c.expect("GET own", "\"1\"");
    // It becomes a replica again, and asks for what follows its own history.
    let id = info(&mut c, "master_replid");
    master.take(&mut c);
    let link = master.accept();
    assert_eq!(link.asked.0, id);
}

#[test]
fn a_replica_goes_on_after_a_crash_where_its_log_ends() {
    if skipped_on_redis() {
        return;
    }
    let master = Master::start();
    let place = format!("127.0.0.1 {}", master.port());
    let mut server = Server::start(&["--replicaof", &place]);
    let mut link = master.accept();
    link.send_all(1000, &rdb(&[("a", "1")]));
    let mut c = server.client();
    await_info(&mut c, "master_link_status", "up");
    let mut offset = 1000;
    for round in 0..4 {
        drop(c);
        server.kill_9();
        server.restart();
        c = server.client();
        let mut link = master.accept();
        assert_eq!(link.asked, (ID.into(), (offset + 1).to_string()), "round {round}");
        link.send("+CONTINUE\r\n");
        let bytes = stream(&[&format!("SELECT {round}"), "INCR n"]);
        // The database that is selected is remembered, also by a rewrite.
        let more = stream(&["INCR n", "PUBLISH c m"]);
        link.send(&bytes);
        offset += bytes.len();
        link.await_acknowledgement(offset as u64);
        if round % 2 == 0 {
            crate::harness::rewrite(&mut c);
        }
        link.send(&more);
        offset += more.len();
        link.await_acknowledgement(offset as u64);
        c.expect(&format!("SELECT {round}"), "+OK");
        c.expect("GET n", "\"2\"");
        let before = dump(&mut c);
        server.kill_9();
        server.restart();
        c = server.client();
        assert_eq!(dump(&mut c), before);
        let mut link = master.accept();
        assert_eq!(link.asked, (ID.into(), (offset + 1).to_string()));
        link.send("+CONTINUE\r\n");
        let bytes = stream(&["INCR n"]);
        link.send(&bytes);
        offset += bytes.len();
        link.await_acknowledgement(offset as u64);
        c.expect(&format!("SELECT {round}"), "+OK");
        c.expect("GET n", "\"3\"");
    }
}

#[test]
fn a_replica_goes_on_where_the_file_ends_that_it_saved_when_it_was_shut_down() {
    if skipped_on_redis() {
        return;
    }
    let master = Master::start();
    let place = format!("127.0.0.1 {}", master.port());
    let mut server =
        Server::start(&["--replicaof", &place, "--appendonly", "no", "--save", "3600 1"]);
    let mut link = master.accept();
    link.send_all(1000, &rdb(&[("a", "1")]));
    let mut c = server.client();
    await_info(&mut c, "master_link_status", "up");
    let mut offset = 1000;
    let mut send = |link: &mut Link, commands: &[&str]| {
        let bytes = stream(commands);
        link.send(&bytes);
        offset += bytes.len();
        link.await_acknowledgement(offset as u64);
        offset
    };
    send(&mut link, &["SELECT 3", "SET n 1", "SET gone 1 PXAT 1"]);
    for round in 2..5 {
        let end = send(&mut link, &["INCR n"]);
        c.send(&["SHUTDOWN"]);
        assert_eq!(server.wait_for_exit(), Some(0));
        server.restart();
        link = master.accept();
        assert_eq!(link.asked, (ID.into(), (end + 1).to_string()), "round {round}");
        link.send("+CONTINUE\r\n");
        // The database that is selected is remembered.
        send(&mut link, &["INCR n", "INCRBY n -1"]);
        c = server.client();
        c.expect("SELECT 3", "+OK");
        c.expect("GET n", &format!("\"{round}\""));
        // The master decides what expires.
        c.expect("DBSIZE", ":2");
    }
    // So does one that writes a log from now on.
    let file = std::fs::read(server.dir().join("dump.rdb")).expect("the file");
    c.send(&["SHUTDOWN"]);
    assert_eq!(server.wait_for_exit(), Some(0));
    let home = TempDir::new();
    std::fs::write(home.data().join("dump.rdb"), file).expect("write the file");
    let server = Server::start_in(home, &["--replicaof", &place]);
    let mut link = master.accept();
    assert_eq!(link.asked.0, ID);
    link.send("+CONTINUE\r\n");
    link.commands(&["INCR n"]);
    let mut c = server.client();
    c.expect("SELECT 3", "+OK");
    eventually("the stream goes on", || c.reply("GET n").to_string() == "\"5\"");
}

#[test]
fn a_replica_without_a_log_counts_the_stream_all_the_same() {
    let mut c = connect_with(&["--appendonly", "no"]);
    let master = Master::start();
    let mut link = replicate(&mut c, &master, &[("a", "1")]);
    let bytes = stream(&["SELECT 0", "SET a 2"]);
    link.send(&bytes);
    link.await_acknowledgement(1000 + bytes.len() as u64);
    drop(link);
    let link = master.accept();
    assert_eq!(link.asked, (ID.into(), (1001 + bytes.len()).to_string()));
}

#[test]
fn writes_of_clients_on_a_writable_replica_are_not_logged() {
    if skipped_on_redis() {
        return;
    }
    let master = Master::start();
    let place = format!("127.0.0.1 {}", master.port());
    let mut server = Server::start(&["--replicaof", &place, "--replica-read-only", "no"]);
    let mut link = master.accept();
    link.send_all(1000, &rdb(&[("a", "1")]));
    let mut c = server.client();
    await_info(&mut c, "master_link_status", "up");
    c.expect("SET local 1", "+OK");
    let bytes = stream(&["SELECT 0", "SET a 2"]);
    link.send(&bytes);
    link.await_acknowledgement(1000 + bytes.len() as u64);
    server.restart();
    c = server.client();
    c.expect("MGET a local", r#"["2", nil]"#);
    assert_eq!(master.accept().asked, (ID.into(), (1001 + bytes.len()).to_string()));
}
