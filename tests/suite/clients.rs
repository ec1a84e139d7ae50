//! What a client asks about itself and others: the filters of CLIENT LIST and CLIENT KILL, capabilities, the
//! source of an import, and the logs of slow and large commands.

use crate::harness::{Client, connect, eventually, skipped_on_redis, transcript, unix_now_ms};

/// The names of the clients that these filters select.
fn names(c: &mut Client, filters: &str) -> Vec<String> {
    let list = c.text(&format!("CLIENT LIST {filters}"));
    let name = |line: &str| {
        let name = line.split(' ').find_map(|field| field.strip_prefix("name="));
        name.expect("a name").to_owned()
    };
    list.lines().map(name).collect()
}

/// A client with this name, as the server sees it after a command.
fn named(c: &Client, name: &str) -> Client {
    let mut client = c.another();
    client.expect(&format!("CLIENT SETNAME {name}"), "+OK");
    client
}

/// Redis knows few filters for lists; all are Valkey's.
#[test]
fn every_filter_selects_the_clients_with_that_property_and_its_opposite_the_others() {
    if skipped_on_redis() {
        return;
    }
    let mut c = connect();
    c.expect("CLIENT SETNAME own", "+OK");
    let mut plain = named(&c, "plain");
    let mut busy = named(&c, "busy");
    for command in [
        "CLIENT SETINFO LIB-NAME lib",
        "CLIENT SETINFO LIB-VER 1.2",
        "CLIENT CAPA redirect unknown",
        "CLIENT NO-TOUCH ON",
    ] {
        busy.expect(command, "+OK");
    }
    busy.expect("SELECT 3", "+OK");
    busy.expect("MULTI", "+OK");
    let mut subscriber = named(&c, "subscriber");
    subscriber.reply("SUBSCRIBE channel");
    let id = plain.integer("CLIENT ID");
    let address = |c: &mut Client, field: &str| {
        let info = c.text("CLIENT INFO");
        let mut fields = info.split(' ').filter_map(|text| text.split_once('='));
        fields.find(|(name, _)| *name == field).expect("the field").1.to_owned()
    };
    let (own, server) = (address(&mut plain, "addr"), address(&mut plain, "laddr"));
    let all = ["own", "plain", "busy", "subscriber"];
    for (filter, expected) in [
        (format!("ID {id}"), vec!["plain"]),
        (format!("ADDR {own}"), vec!["plain"]),
        (format!("LADDR {server}"), all.to_vec()),
        ("TYPE pubsub".into(), vec!["subscriber"]),
        ("TYPE replica".into(), vec![]),
        ("USER default".into(), all.to_vec()),
        ("NAME busy".into(), vec!["busy"]),
        ("FLAGS P".into(), vec!["subscriber"]),
        ("FLAGS Tx".into(), vec!["busy"]),
        ("FLAGS N".into(), vec!["own", "plain"]),
        ("LIB-NAME lib".into(), vec!["busy"]),
        ("LIB-VER 1.2".into(), vec!["busy"]),
        ("DB 3".into(), vec!["busy"]),
        ("CAPA r".into(), vec!["busy"]),
        ("IP 127.0.0.1".into(), all.to_vec()),
        ("IP 127.0.0.2".into(), vec![]),
    ] {
        assert_eq!(names(&mut c, &filter), expected, "{filter}");
        let mut others = all.to_vec();
        others.retain(|name| !expected.contains(name));
        assert_eq!(names(&mut c, &format!("NOT-{filter}")), others, "NOT-{filter}");
    }
    assert_eq!(names(&mut c, "SKIPME yes"), ["plain", "busy", "subscriber"]);
    assert_eq!(names(&mut c, "SKIPME no db 0 NOT-TYPE pubsub"), ["own", "plain"]);
    assert_eq!(names(&mut c, "IDLE 1000"), Vec::<String>::new());
    assert_eq!(names(&mut c, "MAXAGE 1000"), Vec::<String>::new());
    assert_eq!(names(&mut c, "NAME busy NAME plain"), ["plain"], "the last one counts");
    assert_eq!(names(&mut c, &format!("ID {id} 999999 TYPE normal")), ["plain"]);
    c.expect(&format!("CLIENT KILL ID {id} 999999 NOT-NAME busy"), ":1");
    plain.expect_closed();
    c.expect("CLIENT KILL NOT-FLAGS x", ":1");
    subscriber.expect_closed();
    assert_eq!(names(&mut c, ""), ["own", "busy"]);
}

#[test]
fn a_filter_with_a_bad_value_is_refused() {
    let mut c = connect();
    c.transcript(
        r#"
        > CLIENT LIST ID
        -ERR syntax error
        > CLIENT LIST ID x
        -ERR Invalid client ID
        > CLIENT LIST ID 1 2 x
        -ERR Invalid client ID
        > CLIENT LIST TYPE nosuch
        -ERR Unknown client type 'nosuch'
        > CLIENT LIST SKIPME maybe
        -ERR syntax error
        > CLIENT LIST nosuch x
        -ERR syntax error
        > CLIENT KILL ID 1 x
        -ERR syntax error
        > CLIENT KILL SKIPME
        -ERR No such client
        > CLIENT KILL TYPE nosuch
        -ERR Unknown client type 'nosuch'
        "#,
    );
    if skipped_on_redis() {
        return;
    }
    c.transcript(
        r#"
        > CLIENT LIST USER nosuch
        -ERR No such user 'nosuch'
        > CLIENT LIST MAXAGE 0
        -ERR maxage should be greater than 0
        > CLIENT LIST IDLE x
        -ERR idle is not an integer or out of range
        > CLIENT LIST IDLE -1
        -ERR idle should be greater than 0
        > CLIENT LIST NOT-IDLE 1
        -ERR syntax error
        > CLIENT LIST FLAGS Z
        -ERR Unknown flags found in the provided filter: Z
        > CLIENT LIST NOT-FLAGS NZ
        -ERR Unknown flags found in the NOT-FLAGS filter: NZ
        > CLIENT LIST CAPA x
        -ERR Unknown capa found in the provided filter: x
        > CLIENT LIST NOT-CAPA x
        -ERR Unknown capa found in the NOT-CAPA filter: x
        > CLIENT LIST DB 16
        -ERR DB number should be between 0 and 15
        > CLIENT LIST NOT-DB x
        -ERR NOT-DB is not an integer or out of range
        > CLIENT LIST NOT-ID x
        -ERR syntax error
        > CLIENT KILL ID 999 998 TYPE pubsub
        :0
        > CLIENT KILL ID 999 0
        -ERR client-id should be greater than 0
        > CLIENT CAPA
        -ERR wrong number of arguments for 'client|capa' command
        "#,
    );
}

#[test]
fn a_client_that_kills_itself_in_a_transaction_gets_no_reply_after_that_one() {
    let mut c = connect();
    let mut other = c.another();
    let id = c.integer("CLIENT ID");
    let kill = format!("CLIENT KILL ID {id} SKIPME no");
    for command in ["MULTI", "SET k 1", &kill, "SET k 2"] {
        c.reply(command);
    }
    c.send_raw("EXEC\r\nSET k 3\r\n");
    c.expect_bytes("*3\r\n+OK\r\n:1\r\n");
    c.expect_closed();
    other.expect("GET k", "\"2\"");
}

#[test]
fn only_executed_commands_count_in_tot_cmds() {
    let mut c = connect();
    let count = |c: &mut Client| {
        let info = c.text("CLIENT INFO");
        let fields = info.trim_end().split(' ');
        fields.filter_map(|field| field.strip_prefix("tot-cmds=")).next().map(str::to_owned)
    };
    let Some(before) = count(&mut c) else { return }; // an older Redis
    for command in ["NOSUCH", "GET", "MULTI", "PING", "GET", "PING"] {
        c.reply(command);
    }
    c.expect("EXEC", "-EXECABORT Transaction discarded because of previous errors.");
    // It is executed, and fails.
    c.expect("HINCRBY k f x", "-ERR value is not an integer or out of range");
    // CLIENT INFO itself, MULTI, EXEC and HINCRBY.
    let expected: u64 = before.parse::<u64>().expect("a number") + 4;
    assert_eq!(count(&mut c), Some(expected.to_string()));
}

#[test]
fn library_names_are_refused_under_the_name_as_it_was_typed() {
    transcript(
        r#"
        8.2> CLIENT SETINFO LIB-VER "a b"
        -ERR LIB-VER cannot contain spaces, newlines or special characters.
        8.2> CLIENT SETINFO Lib-Name "a b"
        -ERR Lib-Name cannot contain spaces, newlines or special characters.
        "#,
    );
}

/// Valkey's.
#[test]
fn nothing_expires_for_the_source_of_an_import() {
    if skipped_on_redis() {
        return;
    }
    let mut c = connect();
    c.transcript(
        r#"
        > CLIENT IMPORT-SOURCE ON
        -ERR Server is not in import mode
        > CLIENT IMPORT-SOURCE OFF
        +OK
        > CONFIG SET import-mode yes
        +OK
        > CLIENT IMPORT-SOURCE maybe
        -ERR syntax error
        > CLIENT IMPORT-SOURCE ON
        +OK
        "#,
    );
    assert!(c.text("CLIENT INFO").contains(" flags=I "));
    c.expect(&format!("SET old v PXAT {}", unix_now_ms() - 1000), "+OK");
    c.expect("GET old", "\"v\"");
    let mut other = c.another();
    other.expect("GET old", "nil");
    c.expect("CLIENT IMPORT-SOURCE OFF", "+OK");
    c.expect("GET old", "nil");
    c.expect("DBSIZE", ":1"); // it stays until the import has ended
    c.expect("CONFIG SET import-mode no", "+OK");
    eventually("it is removed", || c.integer("DBSIZE") == 0);
}

/// Valkey's.
#[test]
fn the_command_log_has_large_requests_and_large_replies() {
    if skipped_on_redis() {
        return;
    }
    let mut c = connect();
    c.transcript(
        r#"
        > COMMANDLOG GET 1 nosuch
        -ERR type should be one of the following: slow, large-request, large-reply
        > COMMANDLOG GET x slow
        -ERR count should be greater than or equal to -1
        > COMMANDLOG GET
        -ERR wrong number of arguments for 'commandlog|get' command
        > CLIENT SETNAME bob
        +OK
        > CONFIG SET commandlog-request-larger-than 37 commandlog-reply-larger-than 17
        +OK
        > COMMANDLOG RESET large-request
        +OK
        > COMMANDLOG RESET LARGE-REPLY
        +OK
        > SET k 0123456789
        +OK
        > SET k 012345678
        +OK
        > SET k 0123456789
        +OK
        > GET k
        "0123456789"
        > CONFIG SET commandlog-reply-larger-than -1
        +OK
        > COMMANDLOG LEN large-reply
        :1
        > CONFIG SET commandlog-request-larger-than -1
        +OK
        "#,
    );
    let amounts = |c: &mut Client, kind: &str| -> Vec<String> {
        let entries = c.reply(&format!("COMMANDLOG GET -1 {kind}")).into_items();
        let shown = entries.into_iter().map(|entry| {
            let fields = entry.into_items();
            assert_eq!(fields[5].to_string(), "\"bob\"");
            format!("{} {}", fields[2], fields[3])
        });
        shown.collect()
    };
    assert_eq!(amounts(&mut c, "large-reply"), [r#":17 ["GET", "k"]"#]);
    let mut requests = amounts(&mut c, "large-request");
    requests.retain(|request| request.contains("\"SET\", \"k\""));
    let expected = r#":37 ["SET", "k", "0123456789"]"#;
    assert_eq!(requests, [expected, expected], "not the one of 35 bytes");
    c.expect("CONFIG SET commandlog-large-request-max-len 1", "+OK");
    c.expect("COMMANDLOG LEN large-request", ":1");
    // The slow log has two names.
    c.transcript(
        r#"
        > CONFIG SET commandlog-execution-slower-than 0
        +OK
        > CONFIG GET slowlog-log-slower-than
        ["slowlog-log-slower-than", "0"]
        > CONFIG SET slowlog-max-len 3
        +OK
        > COMMANDLOG LEN slow
        :3
        "#,
    );
}

#[test]
fn a_monitor_gets_no_line_for_its_own_quit() {
    let mut c = connect();
    c.expect("MONITOR", "+OK");
    c.send_raw("QUIT\r\n");
    c.expect_bytes("+OK\r\n");
    c.expect_closed();
}
