//! Replication as the master: a fake replica speaks the protocol by hand. `.ci/replication` runs real ones.

use crate::harness::{
    Client, Reply, Server, connect, connect_with, eventually, files, rewrite, skipped_on_redis,
    transcript, unix_now_ms,
};

/// A replica that acknowledges only what it is told to.
struct Replica {
    client: Client,
    id: String,
    /// The offset of what it has read.
    offset: i64,
}

/// A server with an empty log, which begins snapshots at once.
fn master() -> Client {
    let mut c = connect();
    c.expect("CONFIG SET repl-diskless-sync-delay 0", "+OK");
    c
}

impl Replica {
    /// Asks for a full synchronisation, with these options of REPLCONF.
    #[track_caller]
    fn attach(c: &Client, options: &[&str]) -> Replica {
        let mut replica = Replica { client: c.another(), id: String::new(), offset: 0 };
        for option in options {
            replica.client.expect(&format!("REPLCONF {option}"), "+OK");
        }
        replica.client.send(&["PSYNC", "?", "-1"]);
        let line = replica.line();
        let words: Vec<&str> = line.split(' ').collect();
        assert_eq!(words[0], "+FULLRESYNC", "{line}");
        replica.id = words[1].into();
        replica.offset = words[2].parse().expect("an offset");
        replica
    }

    /// A replica that has taken the snapshot.
    #[track_caller]
    fn online(c: &Client) -> Replica {
        let mut replica = Replica::attach(c, &["listening-port 7777", "capa psync2"]);
        replica.snapshot();
        replica
    }

    /// Comes back from another connection, and expects to go on.
    #[track_caller]
    fn come_back(&mut self, c: &Client) {
        self.client = c.another();
        for option in ["listening-port 7777", "capa psync2"] {
            self.client.expect(&format!("REPLCONF {option}"), "+OK");
        }
        self.client.send(&["PSYNC", &self.id, &(self.offset + 1).to_string()]);
        let line = self.line();
        let id = line.strip_prefix("+CONTINUE ");
        self.id = id.unwrap_or_else(|| panic!("it does not go on: {line}")).into();
    }

    /// The next line that is not empty.
    #[track_caller]
    fn line(&mut self) -> String {
        let mut line = Vec::new();
        let mut byte = [0];
        loop {
            self.client.read_exact(&mut byte);
            match byte[0] {
                b'\n' if line.is_empty() => {}
                b'\n' => return String::from_utf8(line).expect("UTF-8"),
                b'\r' => {}
                other => line.push(other),
            }
        }
    }

    /// The snapshot, in either form.
    #[track_caller]
    fn snapshot(&mut self) -> Vec<u8> {
        let frame = self.line();
        let mut bytes = Vec::new();
        if let Some(mark) = frame.strip_prefix("$EOF:") {
            assert_eq!(mark.len(), 40);
            while !bytes.ends_with(mark.as_bytes()) {
                let mut byte = [0];
                self.client.read_exact(&mut byte);
                bytes.push(byte[0]);
            }
            bytes.truncate(bytes.len() - mark.len());
        } else {
            let length = frame.strip_prefix('$').and_then(|length| length.parse().ok());
            bytes.resize(length.unwrap_or_else(|| panic!("no length: {frame}")), 0);
            self.client.read_exact(&mut bytes);
        }
        assert!(bytes.starts_with(b"REDIS") || bytes.starts_with(b"VALKEY"));
        bytes
    }

    /// The next command of the stream that is not a PING.
    #[track_caller]
    fn command(&mut self) -> String {
        loop {
            let (reply, bytes) = self.client.read_reply_and_bytes();
            self.offset += bytes.len() as i64;
            let words: Vec<String> = reply.into_items().into_iter().map(Reply::into_text).collect();
            if !words[0].eq_ignore_ascii_case("ping") {
                return words.join(" ");
            }
        }
    }

    /// Expects commands in the stream.
    #[track_caller]
    fn expect(&mut self, commands: &[&str]) {
        for command in commands {
            assert_eq!(self.command(), *command);
        }
    }

    /// The first PING; the next one takes a long time.
    #[track_caller]
    fn await_ping(&mut self, c: &mut Client) {
        let (reply, bytes) = self.client.read_reply_and_bytes();
        assert_eq!(reply.to_string().to_uppercase(), r#"["PING"]"#);
        self.offset += bytes.len() as i64;
        c.expect("CONFIG SET repl-ping-replica-period 1000", "+OK");
    }

    fn acknowledge(&mut self, offset: i64) {
        self.client.send(&["REPLCONF", "ACK", &offset.to_string()]);
    }
}

/// The lines of INFO about replicas, without the number.
fn listed(c: &mut Client) -> Vec<String> {
    let text = c.text("INFO replication");
    let lines = text.lines().filter(|line| line.starts_with("slave"));
    lines.filter_map(|line| line.split_once(':')).map(|(_, rest)| rest.to_string()).collect()
}

/// A field of INFO.
fn info(c: &mut Client, field: &str) -> Option<String> {
    let text = c.text("INFO");
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    lines.next().map(String::from)
}

fn number(c: &mut Client, field: &str) -> i64 {
    info(c, field).and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {field}"))
}

/// Waits until there are that many replicas, all of which follow the stream.
fn await_online(c: &mut Client, count: usize) {
    eventually("the replicas are online", || {
        let listed = listed(c);
        listed.len() == count && listed.iter().all(|line| line.contains("state=online"))
    });
}

// ---- What a replica says -----------------------------------------------------------------------------

#[test]
fn replconf_takes_what_a_replica_says_of_itself() {
    let long = "x".repeat(256);
    transcript(&format!(
        "
        > REPLCONF
        +OK
        > REPLCONF listening-port 7777 ip-address 1.2.3.4
        +OK
        > REPLCONF LISTENING-PORT abc
        -ERR value is not an integer or out of range
        > REPLCONF ip-address {long}
        -ERR REPLCONF ip-address provided by replica instance is too long: 256 bytes
        > REPLCONF capa eof capa psync2 capa anything
        +OK
        > REPLCONF rdb-only 1 rdb-only 0
        +OK
        > REPLCONF rdb-only x
        -ERR value is not an integer or out of range
        > REPLCONF rdb-filter-only functions
        +OK
        > REPLCONF rdb-filter-only ''
        +OK
        > REPLCONF rdb-filter-only \"functions keys\"
        -ERR Unsupported rdb-filter-only option: keys
        > REPLCONF listening-port
        -ERR syntax error
        > REPLCONF nothing 1
        -ERR Unrecognized REPLCONF option: nothing
        valkey> REPLCONF version 8.1.3
        +OK
        "
    ));
    // Neither has a reply, whoever sends it.
    let mut c = connect();
    c.send(&["REPLCONF", "ACK", "5"]);
    c.send(&["REPLCONF", "GETACK", "*"]);
    c.expect("PING", "+PONG");
}

#[test]
fn psync_and_sync_check_their_arguments_and_are_not_for_transactions() {
    transcript(
        "
        > PSYNC
        -ERR wrong number of arguments for 'psync' command
        > PSYNC ?
        -ERR wrong number of arguments for 'psync' command
        > PSYNC ? abc
        -ERR value is not an integer or out of range
        > SYNC now
        -ERR wrong number of arguments for 'sync' command
        > MULTI
        +OK
        > PSYNC ? -1
        -ERR Command not allowed inside a transaction
        > SYNC
        -ERR Command not allowed inside a transaction
        > DISCARD
        +OK
        ",
    );
}

#[test]
fn a_master_without_replicas_says_so() {
    let mut c = connect();
    c.transcript(
        "
        > WAIT 0 0
        :0
        > WAIT 1 10
        :0
        > WAIT 1 abc
        -ERR timeout is not an integer or out of range
        > WAIT 1 -1
        -ERR timeout is negative
        ",
    );
    if !skipped_on_redis() {
        c.expect("ROLE", r#"["master", :0, []]"#);
        let text = c.text("INFO replication");
        for line in [
            "role:master",
            "connected_slaves:0",
            "master_failover_state:no-failover",
            "master_repl_offset:0",
            "second_repl_offset:-1",
            "repl_backlog_active:0",
            "repl_backlog_size:1048576",
            "repl_backlog_first_byte_offset:0",
            "repl_backlog_histlen:0",
        ] {
            assert!(text.lines().any(|other| other == line), "no {line} in {text}");
        }
    }
}

// ---- Full synchronisation ----------------------------------------------------------------------------

#[test]
fn a_replica_gets_a_snapshot_and_then_every_change() {
    let mut c = master();
    c.expect("SET before 1", "+OK");
    let mut replica = Replica::attach(&c, &["listening-port 7777", "capa psync2"]);
    let snapshot = replica.snapshot();
    assert!(snapshot.windows(6).any(|bytes| bytes == b"before"));
    for fact in [&b"repl-stream-db"[..], b"repl-id", replica.id.as_bytes()] {
        assert!(snapshot.windows(fact.len()).any(|bytes| bytes == fact));
    }
    await_online(&mut c, 1);
    c.expect("SET after 2", "+OK");
    c.expect("SELECT 3", "+OK");
    c.expect("HSET h f v", ":1");
    c.expect("SELECT 0", "+OK");
    c.expect("DEL missing", ":0");
    c.expect("INCR after", ":3");
    replica.expect(&[
        "SELECT 0",
        "SET after 2",
        "SELECT 3",
        "HSET h f v",
        "SELECT 0",
        "INCR after",
    ]);
    assert_eq!(number(&mut c, "master_repl_offset"), replica.offset);
    assert_eq!(info(&mut c, "master_replid"), Some(replica.id.clone()));
    let backlog = number(&mut c, "repl_backlog_first_byte_offset");
    assert_eq!(number(&mut c, "repl_backlog_histlen"), replica.offset - backlog + 1);
}

#[test]
fn a_replica_that_can_gets_a_snapshot_between_marks_and_the_stream_after_its_acknowledgement() {
    let mut c = master();
    c.expect("SET before 1", "+OK");
    let mut replica = Replica::attach(&c, &["capa eof capa psync2"]);
    let snapshot = replica.snapshot();
    assert!(snapshot.windows(6).any(|bytes| bytes == b"before"));
    c.expect("SET after 2", "+OK");
    let offset = replica.offset;
    eventually("the replica is online", || {
        replica.acknowledge(offset);
        listed(&mut c)[0].contains("state=online")
    });
    replica.expect(&["SELECT 0", "SET after 2"]);
}

#[test]
fn sync_sends_a_snapshot_without_an_announcement() {
    let mut c = master();
    c.expect("SET before 1", "+OK");
    let mut replica = Replica { client: c.another(), id: String::new(), offset: 0 };
    replica.client.send(&["SYNC"]);
    let snapshot = replica.snapshot();
    assert!(snapshot.windows(6).any(|bytes| bytes == b"before"));
    await_online(&mut c, 1);
    c.expect("SET after 2", "+OK");
    replica.expect(&["SELECT 0", "SET after 2"]);
}

#[test]
fn who_wants_only_a_snapshot_gets_no_stream_and_a_filter_leaves_no_keys() {
    let mut c = master();
    c.expect("SET before 1", "+OK");
    for (option, has_keys) in [("rdb-only 1", true), ("rdb-filter-only functions", false)] {
        let mut replica = Replica::attach(&c, &["capa eof", "rdb-only 1", option]);
        let snapshot = replica.snapshot();
        assert_eq!(snapshot.windows(6).any(|bytes| bytes == b"before"), has_keys, "{option}");
        eventually("it is not listed any more", || listed(&mut c).is_empty());
        c.expect("SET after 2", "+OK");
        replica.client.close_sending();
        replica.client.expect_closed();
    }
    let mut other = c.another();
    other.expect("REPLCONF rdb-filter-only functions", "+OK");
    other.expect("PSYNC ? -1", "-ERR Filtered replica requires EOF capability");
}

#[test]
fn fields_that_expire_are_sent_in_the_form_of_the_server_that_asks() {
    if skipped_on_redis() {
        return; // a Redis has one form, and a Valkey another
    }
    let mut c = master();
    c.expect("HSET h f v g w", ":2");
    let form = |c: &Client, options: &[&str]| {
        let snapshot = Replica::attach(c, options).snapshot();
        String::from_utf8_lossy(&snapshot[..9]).into_owned()
    };
    // Without such fields the form is one that every server reads.
    assert_eq!(form(&c, &["capa psync2", "version 9.1.2"]), "REDIS0010");
    c.expect("HEXPIRE h 1000 FIELDS 1 f", "[:1]");
    assert_eq!(form(&c, &["capa psync2", "version 9.1.2"]), "VALKEY080");
    for options in [&["capa psync2"][..], &["capa psync2", "version 8.1.0"]] {
        assert_eq!(form(&c, options), "REDIS0012");
    }
    // A backup has the form that the setting asks for.
    c.expect("CONFIG SET rdb-field-expiry valkey", "+OK");
    assert_eq!(form(&c, &["rdb-only 1"]), "VALKEY080");
    assert_eq!(form(&c, &["capa psync2"]), "REDIS0012");
}

#[test]
fn repl_diskless_sync_no_announces_the_length_of_a_snapshot() {
    let mut c = master();
    // Valkey 9.1 announces none to a replica that can do without.
    if !c.redis_at_least("redis") {
        return;
    }
    c.expect("CONFIG SET repl-diskless-sync no", "+OK");
    // A snapshot of the other form may be under way, and serves this replica too.
    eventually("a snapshot is announced with its length", || {
        let frame = Replica::attach(&c, &["capa eof capa psync2"]).line();
        frame[1..].parse::<usize>().is_ok()
    });
}

#[test]
fn config_resetstat_counts_synchronisations_from_zero() {
    let mut c = master();
    let _replica = Replica::online(&c);
    assert!(number(&mut c, "sync_full") >= 1);
    c.expect("CONFIG RESETSTAT", "+OK");
    assert_eq!(number(&mut c, "sync_full"), 0);
}

#[test]
fn a_replica_that_sends_something_with_a_reply_is_disconnected() {
    let mut c = master();
    for command in [&["GET", "key"][..], &["PING"], &["NOSUCHCOMMAND"]] {
        let mut replica = Replica::online(&c);
        await_online(&mut c, 1);
        replica.client.send(command);
        replica.client.expect_closed();
        eventually("it has left", || listed(&mut c).is_empty());
    }
}

#[test]
fn flushall_while_a_snapshot_is_taken_leaves_a_replica_that_comes_again_with_the_right_data() {
    if skipped_on_redis() {
        return;
    }
    let mut c = master();
    c.reply("DEBUG POPULATE 20000 key 100");
    let mut replica = Replica { client: c.another(), id: String::new(), offset: 0 };
    replica.client.send(&["PSYNC", "?", "-1"]);
    c.expect("FLUSHALL", "+OK");
    drop(replica);
    let mut replica = Replica::online(&c);
    await_online(&mut c, 1);
    c.expect("SET after 2", "+OK");
    assert!(replica.command().starts_with("SELECT"));
    replica.expect(&["SET after 2"]);
}

// ---- The stream --------------------------------------------------------------------------------------

#[test]
fn transactions_expiries_and_messages_are_in_the_stream() {
    let mut c = master();
    let mut replica = Replica::online(&c);
    await_online(&mut c, 1);
    c.transcript(
        "
        > MULTI
        +OK
        > SET a 1
        +QUEUED
        > PUBLISH channel inside
        +QUEUED
        > SET b 2
        +QUEUED
        > EXEC
        [+OK, :0, +OK]
        > PUBLISH channel message
        :0
        > SET soon 1 PX 1
        +OK
        ",
    );
    let mut commands = Vec::new();
    while commands.last().is_none_or(|last| last != "EXEC") {
        commands.push(replica.command());
    }
    commands.retain(|command| command != "SELECT 0"); // which is in the transaction in Redis
    assert_eq!(commands, ["MULTI", "SET a 1", "PUBLISH channel inside", "SET b 2", "EXEC"]);
    replica.expect(&["PUBLISH channel message"]);
    let set = replica.command();
    assert!(set.starts_with("SET soon 1 PXAT "), "{set}");
    // Redis says UNLINK since 8.
    let removal = replica.command();
    assert!(["DEL soon", "UNLINK soon"].contains(&removal.as_str()), "{removal}");
}

#[test]
fn replicas_that_come_within_the_delay_share_a_snapshot() {
    let mut c = master();
    c.expect("CONFIG SET repl-diskless-sync-delay 3600", "+OK");
    let ask = |port: &str| {
        let mut client = c.another();
        client.expect(&format!("REPLCONF listening-port {port} capa eof capa psync2"), "+OK");
        client.send(&["PSYNC", "?", "-1"]);
        Replica { client, id: String::new(), offset: 0 }
    };
    let mut replicas = [ask("7001"), ask("7002")];
    let waits = |c: &mut Client| {
        let listed = listed(c);
        listed.iter().filter(|line| line.contains("state=wait_bgsave")).count()
    };
    eventually("both wait", || waits(&mut c) == 2);
    c.expect("SET late 1", "+OK");
    c.expect("CONFIG SET repl-diskless-sync-delay 0", "+OK");
    for replica in &mut replicas {
        let line = replica.line();
        assert!(line.starts_with("+FULLRESYNC "), "{line}");
        let late = replica.snapshot().windows(4).any(|bytes| bytes == b"late");
        assert!(late, "the snapshot was taken before");
    }
}

#[test]
fn the_rate_of_what_replicas_get_is_measured() {
    let mut c = master();
    c.expect("CONFIG SET repl-disable-tcp-nodelay yes", "+OK");
    let mut replica = Replica::online(&c);
    await_online(&mut c, 1);
    let rate = |c: &mut Client| {
        let text = c.text("INFO stats");
        let field = "instantaneous_output_repl_kbps:";
        let value = text.lines().find_map(|line| line.strip_prefix(field)?.parse::<f64>().ok());
        value.unwrap_or_else(|| panic!("no rate in {text}"))
    };
    let value = "x".repeat(10_000);
    eventually("the rate is that of what was sent", || {
        c.expect(&format!("SET key {value}"), "+OK");
        while replica.command() != format!("SET key {value}") {}
        rate(&mut c) > 1.0
    });
}

#[test]
fn a_master_pings_its_replicas() {
    let mut c = master();
    c.expect("CONFIG SET repl-ping-replica-period 1", "+OK");
    let mut replica = Replica::online(&c);
    for _ in 0..2 {
        let (reply, _) = replica.client.read_reply_and_bytes();
        assert_eq!(reply.to_string().to_uppercase(), r#"["PING"]"#);
    }
}

#[test]
fn a_log_with_what_is_only_for_replicas_is_replayed_and_publishes_nothing() {
    if skipped_on_redis() {
        return;
    }
    let mut server = Server::start(&["--repl-ping-replica-period", "1"]);
    let mut c = server.client();
    let mut replica = Replica::online(&c);
    await_online(&mut c, 1);
    c.expect("SET a 1", "+OK");
    c.expect("PUBLISH channel message", ":0");
    c.expect("WAIT 1 10", ":0");
    replica.expect(&["SELECT 0", "SET a 1", "PUBLISH channel message", "REPLCONF GETACK *"]);
    let (reply, _) = replica.client.read_reply_and_bytes();
    assert_eq!(reply.to_string(), r#"["PING"]"#);
    server.kill_9();
    server.restart();
    server.client().expect("GET a", "\"1\"");
}

// ---- Partial resynchronisation -----------------------------------------------------------------------

#[test]
fn a_replica_that_comes_back_gets_what_it_has_missed() {
    let mut c = master();
    let mut replica = Replica::online(&c);
    await_online(&mut c, 1);
    c.expect("SET a 1", "+OK");
    replica.expect(&["SELECT 0", "SET a 1"]);
    replica.client.close_sending();
    eventually("it has left", || listed(&mut c).is_empty());
    c.expect("SET b 2", "+OK");
    replica.come_back(&c);
    c.expect("SET c 3", "+OK");
    replica.expect(&["SET b 2", "SET c 3"]);
    assert_eq!(number(&mut c, "sync_partial_ok"), 1);
}

#[test]
fn another_id_or_an_offset_that_is_not_there_gets_a_snapshot() {
    let mut c = master();
    let mut replica = Replica::online(&c);
    await_online(&mut c, 1);
    c.expect("SET a 1", "+OK");
    replica.expect(&["SELECT 0", "SET a 1"]);
    let (id, beyond) = (replica.id.clone(), (replica.offset + 2).to_string());
    drop(replica);
    let other = "0".repeat(40);
    for (id, offset) in [(&other, "5"), (&id, "0"), (&id, &*beyond), (&id, "-5")] {
        let mut replica = Replica { client: c.another(), id: String::new(), offset: 0 };
        replica.client.send(&["PSYNC", id, offset]);
        let line = replica.line();
        assert!(line.starts_with("+FULLRESYNC "), "{id} {offset}: {line}");
        replica.snapshot();
    }
    // One that does not know psync2 gets no id.
    let mut old = Replica { client: c.another(), id: String::new(), offset: 0 };
    let offset = number(&mut c, "master_repl_offset") + 1;
    old.client.send(&["PSYNC", &id, &offset.to_string()]);
    assert_eq!(old.line(), "+CONTINUE");
}

#[test]
fn a_replica_goes_on_after_restarts_of_the_master_under_the_new_ids() {
    if skipped_on_redis() {
        return;
    }
    let mut server = Server::start(&[]);
    let mut c = server.client();
    let mut replica = Replica::online(&c);
    c.expect("SET a 1", "+OK");
    replica.expect(&["SELECT 0", "SET a 1"]);
    for round in 0..3 {
        c.expect(&format!("SET missed {round}"), "+OK");
        server.kill_9();
        server.restart();
        c = server.client();
        let old = replica.id.clone();
        replica.come_back(&c);
        assert_ne!(replica.id, old);
        assert_eq!(info(&mut c, "master_replid2"), Some(old));
        c.expect("SET after 1", "+OK");
        replica.expect(&[&format!("SET missed {round}"), "SELECT 0", "SET after 1"]);
        assert_eq!(number(&mut c, "master_repl_offset"), replica.offset);
    }
    // What is ahead of the log, after a power loss, cannot go on: the log may part from it.
    server.kill_9();
    server.restart();
    let c = server.client();
    replica.client = c.another();
    replica.client.send(&["PSYNC", &replica.id, &(replica.offset + 20).to_string()]);
    assert!(replica.line().starts_with("+FULLRESYNC "));
}

#[test]
fn a_restart_keeps_the_ids_of_a_log_that_nobody_has_asked_for_since() {
    if skipped_on_redis() {
        return;
    }
    let mut server = Server::start(&[]);
    let mut c = server.client();
    let mut replica = Replica::online(&c);
    c.expect("SET a 1", "+OK");
    replica.expect(&["SELECT 0", "SET a 1"]);
    for _ in 0..3 {
        server.kill_9();
        server.restart();
        let mut c = server.client();
        c.expect("SET b 1", "+OK");
        rewrite(&mut c);
        c.expect("SET b 2", "+OK");
    }
    let mut c = server.client();
    // The snapshot of the rewrite is in the way, but the offset has gone on.
    assert!(number(&mut c, "master_repl_offset") > replica.offset);
    assert!(number(&mut c, "second_repl_offset") > 0);
}

#[test]
fn a_rewrite_keeps_what_replicas_still_need() {
    if skipped_on_redis() {
        return;
    }
    let mut c = master();
    let mut replica = Replica::online(&c);
    await_online(&mut c, 1);
    c.expect("SET a 1", "+OK");
    // It has read nothing of that yet.
    rewrite(&mut c);
    c.expect("SET b 2", "+OK");
    rewrite(&mut c);
    c.expect("SET c 3", "+OK");
    replica.expect(&["SELECT 0", "SET a 1"]);
    replica.expect(&["SELECT 0", "SET b 2", "SELECT 0", "SET c 3"]);
    // And while it is away.
    replica.client.close_sending();
    eventually("it has left", || listed(&mut c).is_empty());
    c.expect("SET d 4", "+OK");
    rewrite(&mut c);
    c.expect("SET e 5", "+OK");
    replica.come_back(&c);
    replica.expect(&["SET d 4", "SELECT 0", "SET e 5"]);
}

#[test]
fn a_replica_goes_on_after_a_rewrite_and_a_restart() {
    if skipped_on_redis() {
        return;
    }
    let mut server = Server::start(&[]);
    let mut c = server.client();
    let mut replica = Replica::online(&c);
    c.expect("SET a 1", "+OK");
    replica.expect(&["SELECT 0", "SET a 1"]);
    rewrite(&mut c);
    c.expect("SET b 2", "+OK");
    replica.expect(&["SELECT 0", "SET b 2"]);
    c.expect("SET c 3", "+OK");
    server.kill_9();
    server.restart();
    let mut c = server.client();
    replica.come_back(&c);
    c.expect("SET d 4", "+OK");
    replica.expect(&["SET c 3", "SELECT 0", "SET d 4"]);
}

#[test]
fn without_a_log_a_file_stands_in_for_it_while_replicas_read() {
    if skipped_on_redis() {
        return;
    }
    let server = Server::start(&["--appendonly", "no", "--repl-backlog-ttl", "1"]);
    let mut c = server.client();
    c.expect("SET before 1", "+OK");
    let mut replica = Replica::online(&c);
    await_online(&mut c, 1);
    c.expect("SET a 1", "+OK");
    replica.expect(&["SELECT 0", "SET a 1"]);
    assert_eq!(info(&mut c, "aof_enabled").as_deref(), Some("0"));
    assert!(files(&server.dir()).is_empty(), "the file has no name");
    // A log that is switched on and off goes on with the stream.
    for appendonly in ["yes", "no"] {
        c.expect(&format!("CONFIG SET appendonly {appendonly}"), "+OK");
        c.expect(&format!("SET a {appendonly}"), "+OK");
        replica.expect(&["SELECT 0", &format!("SET a {appendonly}")]);
    }
    replica.client.close_sending();
    eventually("it has left", || listed(&mut c).is_empty());
    eventually("nothing is kept any more", || number(&mut c, "repl_backlog_active") == 0);
    c.expect("SET b 2", "+OK");
    let mut again = Replica { client: c.another(), id: String::new(), offset: 0 };
    again.client.send(&["PSYNC", &replica.id, &(replica.offset + 1).to_string()]);
    assert!(again.line().starts_with("+FULLRESYNC "));
}

#[test]
fn the_log_of_a_server_without_replicas_has_no_annotations() {
    if skipped_on_redis() {
        return;
    }
    let mut server = Server::start(&[]);
    let mut c = server.client();
    c.expect("SET a 1", "+OK");
    rewrite(&mut c);
    server.kill_9();
    server.restart();
    server.client().expect("GET a", "\"1\"");
    let log = std::fs::read(server.log_path()).expect("the log");
    assert!(!log.contains(&b'#'));
}

// ---- The state ---------------------------------------------------------------------------------------

#[test]
fn info_role_and_client_list_show_a_replica() {
    let mut c = master();
    let mut replica =
        Replica::attach(&c, &["listening-port 7777", "ip-address 1.2.3.4", "capa psync2"]);
    replica.snapshot();
    await_online(&mut c, 1);
    let (offset, ahead) = (replica.offset, number(&mut c, "master_repl_offset"));
    replica.acknowledge(offset);
    let expected = format!("ip=1.2.3.4,port=7777,state=online,offset={offset},lag=");
    eventually("the acknowledgement is shown", || listed(&mut c)[0].starts_with(&expected));
    let role = c.reply("ROLE").into_items();
    assert_eq!(role[0].to_string(), "\"master\"");
    assert!(
        role[1].to_string().trim_start_matches(':').parse::<i64>().is_ok_and(|now| now >= ahead)
    );
    assert_eq!(role[2].to_string(), format!(r#"[["1.2.3.4", "7777", "{offset}"]]"#));
    let line = c.text("CLIENT LIST TYPE replica");
    assert!(line.contains(" flags=S") && line.contains(" cmd=replconf "), "{line}");
    assert_eq!(c.text("CLIENT LIST TYPE slave").lines().count(), 1);
    let normal = c.text("CLIENT LIST TYPE normal");
    assert!(!normal.contains("flags=S"), "{normal}");
    c.expect("CLIENT KILL TYPE replica", ":1");
    replica.client.expect_closed();
    eventually("it has left", || listed(&mut c).is_empty());
}

#[test]
fn a_silent_replica_is_disconnected_after_repl_timeout() {
    let mut c = master();
    c.expect("CONFIG SET repl-timeout 1", "+OK");
    let replica = Replica::online(&c);
    await_online(&mut c, 1);
    eventually("it has left", || listed(&mut c).is_empty());
    drop(replica.client.sending_half());
    // An empty line is a sign of life.
    let mut replica = Replica::online(&c);
    let end = unix_now_ms() + 3000;
    eventually("time has passed", || {
        replica.client.send_raw("\n");
        unix_now_ms() > end
    });
    assert_eq!(listed(&mut c).len(), 1);
}

// ---- Waiting for replicas ----------------------------------------------------------------------------

#[test]
fn wait_returns_when_replicas_have_acknowledged_or_when_its_time_is_up() {
    let mut c = master();
    let mut replica = Replica::online(&c);
    await_online(&mut c, 1);
    c.expect("SET a 1", "+OK");
    c.expect("WAIT 1 20", ":0");
    replica.expect(&["SELECT 0", "SET a 1"]);
    let written = replica.offset;
    replica.expect(&["REPLCONF GETACK *"]);
    c.send(&["WAIT", "1", "0"]);
    replica.acknowledge(written - 1);
    let blocked = |c: &mut Client| info(c, "blocked_clients").as_deref() == Some("1");
    let mut other = c.another();
    eventually("it waits", || blocked(&mut other));
    replica.acknowledge(written);
    assert_eq!(c.read_reply().to_string(), ":1");
    // Within a transaction it does not wait.
    c.transcript(
        "
        > MULTI
        +OK
        > SET a 2
        +QUEUED
        > WAIT 5 0
        +QUEUED
        ",
    );
    let all = c.reply("EXEC").into_items();
    assert_eq!(all.len(), 2);
}

#[test]
fn a_replica_that_comes_back_while_a_client_waits_is_asked_for_an_acknowledgement() {
    let mut c = master();
    let mut other = c.another();
    let mut replica = Replica::online(&c);
    await_online(&mut c, 1);
    c.expect("SET a 1", "+OK");
    replica.expect(&["SELECT 0", "SET a 1"]);
    replica.client = c.another(); // the link breaks
    await_online(&mut c, 0);
    c.expect("SET a 2", "+OK");
    c.send(&["WAIT", "1", "0"]);
    eventually("it waits", || info(&mut other, "blocked_clients").as_deref() == Some("1"));
    replica.come_back(&other);
    replica.expect(&["SET a 2", "REPLCONF GETACK *"]);
    replica.acknowledge(replica.offset);
    assert_eq!(c.read_reply().to_string(), ":1");
    if skipped_on_redis() {
        return; // a Redis waits for the acknowledgement that a replica sends every second
    }
    c.expect("SET a 3", "+OK");
    c.send(&["WAIT", "1", "0"]);
    replica.expect(&["SET a 3", "REPLCONF GETACK *"]);
    replica.client = c.another(); // the answer is lost
    await_online(&mut other, 0);
    replica.come_back(&other);
    replica.expect(&["REPLCONF GETACK *"]);
    replica.acknowledge(replica.offset);
    assert_eq!(c.read_reply().to_string(), ":1");
}

#[test]
fn replies_before_a_wait_do_not_wait_for_it() {
    let mut c = master();
    let replica = Replica::online(&c);
    await_online(&mut c, 1);
    c.send_raw("SET a 1\r\nWAIT 1 0\r\nGET a\r\n");
    assert_eq!(c.read_reply().to_string(), "+OK");
    let mut other = c.another();
    eventually("it waits", || info(&mut other, "blocked_clients").as_deref() == Some("1"));
    let mut replica = replica;
    replica.acknowledge(1 << 40);
    assert_eq!(c.read_reply().to_string(), ":1");
    assert_eq!(c.read_reply().to_string(), "\"1\"");
}

#[test]
fn a_wait_ends_when_its_client_is_unblocked_or_killed() {
    let mut c = master();
    let _replica = Replica::online(&c);
    await_online(&mut c, 1);
    let mut waiter = c.another();
    let id = waiter.integer("CLIENT ID");
    for (how, reply) in [
        ("", ":0"),
        (" TIMEOUT", ":0"),
        (" ERROR", "-UNBLOCKED client unblocked via CLIENT UNBLOCK"),
    ] {
        waiter.expect("SET a 1", "+OK");
        waiter.send(&["WAIT", "1", "0"]);
        eventually("it is unblocked", || c.integer(&format!("CLIENT UNBLOCK {id}{how}")) == 1);
        assert_eq!(waiter.read_reply().to_string(), reply);
    }
    waiter.send(&["WAIT", "1", "0"]);
    eventually("it waits", || info(&mut c, "blocked_clients").as_deref() == Some("1"));
    c.expect(&format!("CLIENT KILL ID {id}"), ":1");
    waiter.expect_closed();
}

#[test]
fn waitaof_waits_for_what_replicas_have_synced() {
    let mut c = connect_with(&[]);
    if !c.redis_at_least("7.2+valkey") {
        return;
    }
    c.expect("CONFIG SET repl-diskless-sync-delay 0", "+OK");
    let mut replica = Replica::online(&c);
    await_online(&mut c, 1);
    c.expect("SET a 1", "+OK");
    replica.expect(&["SELECT 0", "SET a 1"]);
    let offset = replica.offset.to_string();
    replica.client.send(&["REPLCONF", "ACK", &offset]);
    c.expect("WAIT 1 0", ":1");
    let none = c.reply("WAITAOF 0 1 20").into_items();
    assert_eq!(none[1].to_string(), ":0");
    c.send(&["WAITAOF", "0", "1", "0"]);
    replica.client.send(&["REPLCONF", "ACK", &offset, "FACK", &offset]);
    let reply = c.read_reply().into_items();
    assert_eq!(reply[1].to_string(), ":1");
}

#[test]
fn writes_are_refused_with_fewer_good_replicas_than_min_replicas_to_write() {
    const REFUSED: &str = "-NOREPLICAS Not enough good replicas to write.";
    let mut c = master();
    c.expect("CONFIG SET min-replicas-to-write 1", "+OK");
    c.transcript(&format!(
        "
        > SET a 1
        {REFUSED}
        > DEL missing
        {REFUSED}
        > GET a
        nil
        > PUBLISH channel message
        :0
        > MULTI
        +OK
        > SET a 1
        {REFUSED}
        > EXEC
        -EXECABORT Transaction discarded because of previous errors.
        "
    ));
    let mut replica = Replica::online(&c);
    await_online(&mut c, 1);
    let offset = replica.offset;
    replica.acknowledge(offset);
    eventually("writes are accepted", || c.reply("SET a 1").to_string() == "+OK");
    assert_eq!(info(&mut c, "min_slaves_good_slaves").as_deref(), Some("1"));
    c.expect("CONFIG SET min-replicas-max-lag 0", "+OK");
    drop(replica);
    eventually("it has left", || listed(&mut c).is_empty());
    c.expect("SET a 1", "+OK");
    c.expect("CONFIG SET min-replicas-max-lag 1", "+OK");
    eventually("writes are refused", || c.reply("SET a 1").to_string() == REFUSED);
    c.expect("CONFIG SET min-replicas-to-write 0", "+OK");
    c.expect("SET a 1", "+OK");
}

#[test]
fn a_failover_asks_replicas_and_begins_once_one_has_every_write() {
    if skipped_on_redis() {
        return; // it waits for what replicas say every second
    }
    let mut c = master();
    let mut replica = Replica::online(&c);
    await_online(&mut c, 1);
    replica.await_ping(&mut c);
    c.expect("SET a 1", "+OK");
    replica.expect(&["SELECT 0", "SET a 1"]);
    let written = replica.offset;
    let acknowledged = |c: &mut Client, offset: i64| {
        let shown = format!("offset={offset},");
        eventually("the acknowledgement arrives", || listed(c)[0].contains(&shown));
    };
    replica.acknowledge(written);
    acknowledged(&mut c, written);
    c.expect("FAILOVER", "+OK");
    let state = |c: &mut Client| info(c, "master_failover_state").expect("a state");
    // It has every write. But without the questions it would not know where the stream goes on.
    assert_eq!(state(&mut c), "waiting-for-sync");
    replica.expect(&["REPLCONF GETACK *"]);
    replica.acknowledge(replica.offset - 1);
    acknowledged(&mut c, replica.offset - 1);
    assert_eq!(state(&mut c), "waiting-for-sync");
    replica.acknowledge(replica.offset); // without the second question, as a Redis counts
    replica.expect(&["REPLCONF GETACK *"]);
    eventually("it goes on", || state(&mut c) == "failover-in-progress");
    c.expect("FAILOVER ABORT", "+OK");
}

// ---- Stopping ----------------------------------------------------------------------------------------

#[test]
fn shutdown_waits_for_replicas_unless_it_is_stopped() {
    if skipped_on_redis() {
        return;
    }
    let mut server = Server::start(&["--shutdown-timeout", "100"]);
    let mut c = server.client();
    let mut replica = Replica::online(&c);
    await_online(&mut c, 1);
    replica.await_ping(&mut c);
    c.expect("SHUTDOWN ABORT", "-ERR No shutdown in progress.");
    c.expect("SET a 1", "+OK");
    let mut stopping = c.another();
    stopping.send(&["SHUTDOWN"]);
    eventually("the shutdown is stopped", || c.reply("SHUTDOWN ABORT").to_string() == "+OK");
    let refused = "-ERR Errors trying to SHUTDOWN. Check logs.";
    assert_eq!(stopping.read_reply().to_string(), refused);
    c.expect("SET b 2", "+OK");
    stopping.send(&["SHUTDOWN"]);
    // Writes are held back meanwhile.
    eventually("it waits", || info(&mut c, "paused_actions").as_deref() == Some("write"));
    let question = "REPLCONF GETACK *";
    replica.expect(&["SELECT 0", "SET a 1", question, question, "SET b 2", question]);
    let end = replica.offset;
    replica.expect(&[question]);
    replica.acknowledge(end); // without the last question, as a Redis counts
    assert_eq!(server.wait_for_exit(), Some(0));
}

#[test]
fn shutdown_now_and_a_timeout_end_without_replicas() {
    if skipped_on_redis() {
        return;
    }
    for (command, timeout) in [("SHUTDOWN NOW", "100"), ("SHUTDOWN", "1"), ("SHUTDOWN", "0")] {
        let mut server = Server::start(&["--shutdown-timeout", timeout]);
        let mut c = server.client();
        let _replica = Replica::online(&c);
        await_online(&mut c, 1);
        c.expect("SET a 1", "+OK");
        c.send(&command.split(' ').collect::<Vec<_>>());
        assert_eq!(server.wait_for_exit(), Some(0), "{command} {timeout}");
    }
}
