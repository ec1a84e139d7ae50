//! Commands about the connection itself: greeting, password, name, database, and `CLIENT`.

use std::time::Instant;

use crate::harness::{Client, Reply, connect, eventually, skipped_on_redis, transcript};

#[test]
fn ping_and_echo_answer() {
    transcript(
        r#"
        > PING
        +PONG
        > PING hello
        "hello"
        > PING ""
        ""
        > PING "\x00\r\n"
        "\x00\r\n"
        > ping
        +PONG
        > PING a b
        -ERR wrong number of arguments for 'ping' command
        > ECHO hello
        "hello"
        > ECHO ""
        ""
        > ECHO
        -ERR wrong number of arguments for 'echo' command
        > ECHO a b
        -ERR wrong number of arguments for 'echo' command
        "#,
    );
}

/// A field of HELLO's reply.
fn greeting(reply: Reply, key: &str) -> Reply {
    let items = reply.into_items();
    let pair = items.chunks_exact(2).find(|pair| pair[0] == Reply::Bulk(key.into()));
    pair.unwrap_or_else(|| panic!("HELLO has no {key}"))[1].clone()
}

#[test]
fn hello_describes_the_server_and_selects_the_protocol() {
    let mut c = connect();
    let id = c.integer("CLIENT ID");
    for (command, protocol) in [("HELLO", 2), ("HELLO 3", 3), ("HELLO", 3), ("HELLO 2", 2)] {
        let reply = c.reply(command);
        assert_eq!(matches!(reply, Reply::Map(_)), protocol == 3, "{command}: {reply}");
        let keys = reply.clone().into_items().into_iter().step_by(2);
        let keys: Vec<String> = keys.map(Reply::into_text).collect();
        let expected = ["server", "version", "proto", "id", "mode", "role", "modules"];
        assert_eq!(keys, expected);
        let value_of = |key| greeting(reply.clone(), key).to_string();
        assert_eq!(value_of("server"), "\"redis\"");
        assert_eq!(value_of("proto"), format!(":{protocol}"));
        assert_eq!(value_of("id"), format!(":{id}"));
        assert_eq!(value_of("mode"), "\"standalone\"");
        assert_eq!(value_of("role"), "\"master\"");
        let modules = value_of("modules"); // Redis 8 comes with one
        assert!(modules == "[]" || c.peer.is_some(), "{modules}");
    }
}

#[test]
fn hello_rejects_other_protocols_and_options() {
    transcript(
        r#"
        > HELLO 1
        -NOPROTO unsupported protocol version
        > HELLO 4
        -NOPROTO unsupported protocol version
        > HELLO 0
        -NOPROTO unsupported protocol version
        > HELLO -1
        -NOPROTO unsupported protocol version
        > HELLO abc
        -ERR Protocol version is not an integer or out of range
        > HELLO 2.0
        -ERR Protocol version is not an integer or out of range
        > HELLO ""
        -ERR Protocol version is not an integer or out of range
        > HELLO 99999999999999999999
        -ERR Protocol version is not an integer or out of range
        > HELLO AUTH default x
        -ERR Protocol version is not an integer or out of range
        > HELLO 3 FOO
        -ERR Syntax error in HELLO option 'FOO'
        > HELLO 3 AUTH
        -ERR Syntax error in HELLO option 'AUTH'
        > HELLO 3 AUTH default
        -ERR Syntax error in HELLO option 'AUTH'
        > HELLO 3 SETNAME
        -ERR Syntax error in HELLO option 'SETNAME'
        > HELLO 3 SETNAME "a b"
        -ERR Client names cannot contain spaces, newlines or special characters.
        > HELLO 3 AUTH bob x
        -WRONGPASS invalid username-password pair or user is disabled.
        > HELLO 4 AUTH bob x
        -NOPROTO unsupported protocol version
        > GET missing
        nil
        "#,
    );
}

#[test]
fn hello_sets_the_name() {
    let mut c = connect();
    c.reply("HELLO 2 SETNAME first");
    c.expect("CLIENT GETNAME", "\"first\"");
    c.reply("HELLO 3 setname second");
    c.expect("CLIENT GETNAME", "\"second\"");
    c.reply("HELLO");
    c.expect("CLIENT GETNAME", "\"second\"");
    c.reply("HELLO 3 AUTH default anything SETNAME third");
    c.expect("CLIENT GETNAME", "\"third\"");
}

#[test]
fn without_a_password_only_auth_with_the_user_name_succeeds() {
    transcript(
        r#"
        > AUTH x
        -ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?
        > AUTH ""
        -ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?
        > AUTH default x
        +OK
        > AUTH default ""
        +OK
        > AUTH bob x
        -WRONGPASS invalid username-password pair or user is disabled.
        > AUTH Default x
        -WRONGPASS invalid username-password pair or user is disabled.
        > AUTH
        -ERR wrong number of arguments for 'auth' command
        > AUTH a b c
        -ERR syntax error
        "#,
    );
}

#[test]
fn a_password_shuts_out_clients_that_do_not_give_it() {
    let mut c = connect();
    c.expect("CONFIG SET requirepass secret", "+OK");
    c.expect("PING", "+PONG");
    c.transcript(
        r#"
        stranger> PING
        -NOAUTH Authentication required.
        stranger> GET k
        -NOAUTH Authentication required.
        stranger> ECHO x
        -NOAUTH Authentication required.
        stranger> CLIENT ID
        -NOAUTH Authentication required.
        stranger> COMMAND COUNT
        -NOAUTH Authentication required.
        stranger> CONFIG GET requirepass
        -NOAUTH Authentication required.
        stranger> SELECT 1
        -NOAUTH Authentication required.
        stranger> GET
        -ERR wrong number of arguments for 'get' command
        stranger> CONFIG NOSUCH
        -ERR unknown subcommand 'NOSUCH'. Try CONFIG HELP.
        stranger> AUTH wrong
        -WRONGPASS invalid username-password pair or user is disabled.
        stranger> AUTH default wrong
        -WRONGPASS invalid username-password pair or user is disabled.
        stranger> AUTH bob secret
        -WRONGPASS invalid username-password pair or user is disabled.
        stranger> AUTH secre
        -WRONGPASS invalid username-password pair or user is disabled.
        stranger> AUTH secrets
        -WRONGPASS invalid username-password pair or user is disabled.
        stranger> AUTH ""
        -WRONGPASS invalid username-password pair or user is disabled.
        stranger> AUTH
        -ERR wrong number of arguments for 'auth' command
        stranger> PING
        -NOAUTH Authentication required.
        stranger> AUTH secret
        +OK
        stranger> PING
        +PONG
        stranger> AUTH wrong
        -WRONGPASS invalid username-password pair or user is disabled.
        stranger> PING
        +PONG
        friend> AUTH default secret
        +OK
        friend> GET k
        nil
        leaving> QUIT
        +OK
        resetting> RESET
        +RESET
        "#,
    );
    c.expect("CONFIG SET requirepass \"\"", "+OK");
    c.another().expect("PING", "+PONG");
}

#[test]
fn hello_can_give_the_password() {
    let mut c = connect();
    c.expect("CONFIG SET requirepass secret", "+OK");
    c.transcript(
        r#"
        stranger> HELLO 4
        -NOPROTO unsupported protocol version
        stranger> HELLO abc
        -ERR Protocol version is not an integer or out of range
        stranger> HELLO 3 FOO
        -ERR Syntax error in HELLO option 'FOO'
        stranger> HELLO 3 AUTH default wrong
        -WRONGPASS invalid username-password pair or user is disabled.
        stranger> HELLO 3 AUTH bob secret
        -WRONGPASS invalid username-password pair or user is disabled.
        stranger> PING
        -NOAUTH Authentication required.
        "#,
    );
    let mut stranger = c.another();
    if c.redis_at_least("7.2") {
        let error = "-NOAUTH HELLO must be called with the client already authenticated, otherwise the \
                     HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client and \
                     select the RESP protocol version at the same time";
        for hello in ["HELLO", "HELLO 2", "HELLO 3", "HELLO 3 SETNAME me"] {
            stranger.expect(hello, error);
        }
    }
    let reply = stranger.reply("HELLO 3 AUTH default secret SETNAME me");
    assert_eq!(greeting(reply, "proto"), Reply::Integer(3));
    stranger.expect("CLIENT GETNAME", "\"me\"");
    stranger.expect("GET missing", "_");
}

#[test]
fn reset_restores_the_state_of_a_new_connection() {
    let mut c = connect();
    c.expect("SET k zero", "+OK");
    c.reply("HELLO 3 SETNAME me");
    c.transcript(
        r#"
        > SELECT 3
        +OK
        > GET k
        _
        > RESET
        +RESET
        > GET k
        "zero"
        > GET missing
        nil
        > CLIENT GETNAME
        nil
        > RESET
        +RESET
        > RESET now
        -ERR wrong number of arguments for 'reset' command
        "#,
    );
    c.expect("CONFIG SET requirepass secret", "+OK");
    c.expect("PING", "+PONG");
    c.expect("RESET", "+RESET");
    c.expect("PING", "-NOAUTH Authentication required.");
    c.expect("AUTH secret", "+OK");
    c.expect("PING", "+PONG");
}

// ---- CLIENT ------------------------------------------------------------------------------------------

#[test]
fn client_ids_increase() {
    let mut c = connect();
    let first = c.integer("CLIENT ID");
    assert_eq!(c.integer("client id"), first);
    let mut other = c.another();
    assert!(other.integer("CLIENT ID") > first);
}

#[test]
fn client_setname_takes_printable_text_without_spaces() {
    transcript(
        r#"
        > CLIENT GETNAME
        nil
        > CLIENT SETNAME worker:1
        +OK
        > CLIENT GETNAME
        "worker:1"
        > client setname !~
        +OK
        > CLIENT GETNAME
        "!~"
        > CLIENT SETNAME "a b"
        -ERR Client names cannot contain spaces, newlines or special characters.
        > CLIENT SETNAME "a\n"
        -ERR Client names cannot contain spaces, newlines or special characters.
        > CLIENT SETNAME "\x7f"
        -ERR Client names cannot contain spaces, newlines or special characters.
        > CLIENT SETNAME "\xc3\xa9"
        -ERR Client names cannot contain spaces, newlines or special characters.
        > CLIENT GETNAME
        "!~"
        other> CLIENT GETNAME
        nil
        > CLIENT SETNAME ""
        +OK
        > CLIENT GETNAME
        nil
        "#,
    );
}

#[test]
fn client_setinfo_stores_the_library() {
    let mut c = connect();
    if !c.redis_at_least("7.2") {
        return;
    }
    c.transcript(
        r#"
        > CLIENT SETINFO lib-name redis-rs
        +OK
        > CLIENT SETINFO LIB-VER 1.2.3
        +OK
        > CLIENT SETINFO lib-name "a b"
        -ERR lib-name cannot contain spaces, newlines or special characters.
        > CLIENT SETINFO lib-ver "a\n"
        -ERR lib-ver cannot contain spaces, newlines or special characters.
        > CLIENT SETINFO nosuch x
        -ERR Unrecognized option 'nosuch'
        > CLIENT SETINFO lib-name
        -ERR wrong number of arguments for 'client|setinfo' command
        "#,
    );
    let info = c.text("CLIENT INFO");
    assert_eq!(field(&info, "lib-name"), "redis-rs");
    assert_eq!(field(&info, "lib-ver"), "1.2.3");
    c.expect("CLIENT SETINFO lib-name \"\"", "+OK");
    assert_eq!(field(&c.text("CLIENT INFO"), "lib-name"), "");
}

/// The value of `name=value` in a line of `CLIENT LIST`.
fn field<'a>(line: &'a str, name: &str) -> &'a str {
    let mut fields = line.trim_end().split(' ');
    let value = fields.find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
    value.unwrap_or_else(|| panic!("no {name} in {line}"))
}

#[test]
fn client_info_describes_the_connection() {
    let mut c = connect();
    let id = c.integer("CLIENT ID").to_string();
    let info = c.text("CLIENT INFO");
    assert!(info.ends_with('\n') && info.lines().count() == 1, "{info:?}");
    assert_eq!(field(&info, "id"), id);
    assert_eq!(field(&info, "addr"), c.local_address().to_string());
    assert_eq!(field(&info, "laddr"), c.address().to_string());
    assert_eq!(field(&info, "name"), "");
    assert_eq!(field(&info, "age"), "0");
    assert_eq!(field(&info, "idle"), "0");
    assert_eq!(field(&info, "flags"), "N");
    assert_eq!(field(&info, "db"), "0");
    assert_eq!(field(&info, "sub"), "0");
    assert_eq!(field(&info, "psub"), "0");
    assert_eq!(field(&info, "ssub"), "0");
    assert_eq!(field(&info, "multi"), "-1");
    assert_eq!(field(&info, "events"), "r");
    assert_eq!(field(&info, "cmd"), "client|info");
    assert_eq!(field(&info, "user"), "default");
    assert_eq!(field(&info, "redir"), "-1");
    assert_eq!(field(&info, "resp"), "2");

    c.expect("SELECT 5", "+OK");
    c.expect("CLIENT SETNAME me", "+OK");
    c.reply("HELLO 3");
    let reply = c.reply("CLIENT INFO");
    assert!(matches!(&reply, Reply::Verbatim(kind, _) if kind == "txt"), "{reply}");
    let info = reply.into_text();
    assert_eq!(field(&info, "db"), "5");
    assert_eq!(field(&info, "name"), "me");
    assert_eq!(field(&info, "resp"), "3");
}

#[test]
fn the_fields_of_client_info_are_in_the_order_of_redis() {
    let mut c = connect();
    // The order of Redis 8 and Valkey 9. A server omits fields that it does not have.
    let mut order =
        "id addr laddr fd name age idle flags capa db sub psub ssub multi watch qbuf qbuf-free \
         argv-mem multi-mem rbs rbp obl oll omem tot-mem events cmd user redir resp lib-name \
         lib-ver io-thread tot-net-in tot-net-out tot-cmds"
            .split_whitespace();
    let info = c.text("CLIENT INFO");
    let fields = info.trim_end().split(' ').filter_map(|field| field.split('=').next());
    for name in fields {
        assert!(order.any(|known| known == name), "{name} is unknown or out of order in {info}");
    }
}

#[test]
fn client_list_shows_all_clients() {
    let mut c = connect();
    let mut other = c.another();
    let ids = [c.integer("CLIENT ID"), other.integer("CLIENT ID")];
    other.expect("CLIENT SETNAME other", "+OK");
    other.expect("SELECT 7", "+OK");
    other.expect("GET k", "nil");
    let listed = |list: &str, id: i64| -> Option<String> {
        let id = format!("id={id} ");
        let line = list.lines().find(|line| line.starts_with(&id));
        line.map(str::to_owned)
    };
    for list in ["CLIENT LIST", "CLIENT LIST TYPE normal", "client list type NORMAL"] {
        let list = c.text(list);
        assert!(list.ends_with('\n'));
        let own = listed(&list, ids[0]).expect("our own line");
        assert_eq!(field(&own, "cmd"), "client|list");
        let line = listed(&list, ids[1]).expect("the other's line");
        assert_eq!(field(&line, "name"), "other");
        assert_eq!(field(&line, "db"), "7");
        assert_eq!(field(&line, "cmd"), "get");
        assert_eq!(field(&line, "addr"), other.local_address().to_string());
    }
    let list = c.text(&format!("CLIENT LIST ID {} 999999999", ids[1]));
    assert_eq!(list.lines().count(), 1);
    assert!(listed(&list, ids[1]).is_some());
    // In the order of the arguments, repeated ids included.
    let list = c.text(&format!("CLIENT LIST ID {} -1 {} {}", ids[1], ids[0], ids[1]));
    let shown: Vec<String> = list.lines().map(|line| field(line, "id").to_owned()).collect();
    assert_eq!(shown, [ids[1], ids[0], ids[1]].map(|id| id.to_string()));
    // A refused command counts as the last command too.
    for (command, name) in [("STRLEN", "strlen"), ("CLIENT NOSUCH", "NULL"), ("NOSUCH", "NULL")] {
        other.reply(command);
        let line = listed(&c.text("CLIENT LIST"), ids[1]).expect("the other's line");
        assert_eq!(field(&line, "cmd"), name);
    }
    drop(other);
    eventually("the client that left is no longer listed", || {
        listed(&c.text("CLIENT LIST"), ids[1]).is_none()
    });
}

#[test]
fn client_list_rejects_bad_filters() {
    transcript(
        r#"
        > CLIENT LIST TYPE
        -ERR syntax error
        > CLIENT LIST TYPE nosuch
        -ERR Unknown client type 'nosuch'
        > CLIENT LIST TYPE normal x
        -ERR syntax error
        > CLIENT LIST ID
        -ERR syntax error
        > CLIENT LIST ID abc
        -ERR Invalid client ID
        > CLIENT LIST ID 1 abc
        -ERR Invalid client ID
        > CLIENT LIST FOO
        -ERR syntax error
        > CLIENT LIST FOO bar
        -ERR syntax error
        > CLIENT LIST TYPE pubsub
        ""
        > CLIENT LIST TYPE replica
        ""
        > CLIENT LIST TYPE slave
        ""
        > CLIENT LIST TYPE master
        ""
        "#,
    );
}

/// The line of a connection in `CLIENT LIST`, if it is listed.
fn line_of(c: &mut Client, id: i64) -> Option<String> {
    let list = c.text("CLIENT LIST");
    let id = format!("id={id} ");
    list.lines().find(|line| line.starts_with(&id)).map(str::to_owned)
}

#[test]
fn client_list_filters_by_type_and_counts_subscriptions() {
    let mut c = connect();
    let mut subscriber = c.another();
    let id = subscriber.integer("CLIENT ID");
    subscriber.reply("SUBSCRIBE a");
    subscriber.reply("SUBSCRIBE b");
    subscriber.reply("PSUBSCRIBE p");
    subscriber.reply("SSUBSCRIBE s");
    let list = c.text("CLIENT LIST TYPE PubSub");
    assert_eq!(list.lines().count(), 1, "{list}");
    assert_eq!(field(&list, "id"), id.to_string());
    assert_eq!(field(&list, "flags"), "P");
    assert_eq!(field(&list, "sub"), "2");
    assert_eq!(field(&list, "psub"), "1");
    if c.redis_at_least("7.0") {
        assert_eq!(field(&list, "ssub"), "1");
    }
    assert_eq!(field(&list, "cmd"), "ssubscribe");
    let normal = c.text("CLIENT LIST TYPE normal");
    assert!(!normal.contains(&format!("id={id} ")), "{normal}");
    subscriber.expect("RESET", "+RESET");
    c.expect("CLIENT LIST TYPE pubsub", "\"\"");
    let line = line_of(&mut c, id).expect("its line");
    assert_eq!(field(&line, "flags"), "N");
    assert_eq!(field(&line, "sub"), "0");
}

#[test]
fn client_kill_closes_the_clients_that_match_all_filters() {
    let mut c = connect();
    let own = c.integer("CLIENT ID");
    let victim = || {
        let mut victim = c.another();
        let id = victim.integer("CLIENT ID");
        let address = victim.local_address();
        (victim, id, address)
    };
    let [one, two, three, four, five] = std::array::from_fn(|_| victim());
    let (mut subscriber, _, _) = victim();
    subscriber.reply("SUBSCRIBE a");
    let server = c.address();
    let gone = |c: &mut Client, (mut victim, id, _): (Client, i64, _)| {
        assert!(line_of(c, id).is_none());
        victim.expect_closed();
    };
    // The old form, then each filter.
    c.expect(&format!("CLIENT KILL {}", one.2), "+OK");
    gone(&mut c, one);
    c.expect(&format!("CLIENT KILL ID {}", two.1), ":1");
    gone(&mut c, two);
    c.expect(&format!("client kill addr {} user default", three.2), ":1");
    gone(&mut c, three);
    c.expect(&format!("CLIENT KILL ID {} LADDR {server} TYPE normal SKIPME no", four.1), ":1");
    gone(&mut c, four);
    // Not all filters match.
    c.expect(&format!("CLIENT KILL ID {} TYPE pubsub", five.1), ":0");
    c.expect(&format!("CLIENT KILL ID {} ADDR {}", five.1, server), ":0");
    c.expect(&format!("CLIENT KILL ID {own}"), ":0");
    c.expect("CLIENT KILL TYPE replica", ":0");
    c.expect("CLIENT KILL TYPE pubsub", ":1");
    subscriber.expect_closed();
    if c.redis_at_least("7.4") {
        c.expect("CLIENT KILL MAXAGE 1000", ":0");
        eventually("it is a second old", || {
            let line = line_of(&mut c, five.1);
            line.is_none_or(|line| field(&line, "age") != "0")
        });
        c.expect(&format!("CLIENT KILL MAXAGE 1 ID {}", five.1), ":1");
        gone(&mut c, five);
    }
    c.expect("PING", "+PONG");
}

#[test]
fn a_client_that_kills_itself_gets_the_reply_first() {
    let c = connect();
    let mut own = c.another();
    let id = own.integer("CLIENT ID");
    own.expect(&format!("CLIENT KILL ID {id}"), ":0");
    own.expect(&format!("CLIENT KILL ID {id} SKIPME no"), ":1");
    own.expect_closed();
    let mut own = c.another();
    let address = own.local_address();
    own.expect(&format!("CLIENT KILL {address}"), "+OK");
    own.expect_closed();
}

#[test]
fn client_kill_rejects_bad_filters() {
    transcript(
        r#"
        > CLIENT KILL
        -ERR wrong number of arguments for 'client|kill' command
        > CLIENT KILL 1.2.3.4:5
        -ERR No such client
        > CLIENT KILL ID
        -ERR No such client
        > CLIENT KILL ID x
        -ERR client-id should be greater than 0
        > CLIENT KILL ID 0
        -ERR client-id should be greater than 0
        > CLIENT KILL ID -1
        -ERR client-id should be greater than 0
        > CLIENT KILL TYPE nosuch
        -ERR Unknown client type 'nosuch'
        > CLIENT KILL USER nobody
        -ERR No such user 'nobody'
        > CLIENT KILL SKIPME maybe
        -ERR syntax error
        > CLIENT KILL FOO bar
        -ERR syntax error
        > CLIENT KILL ID 999999 TYPE
        -ERR syntax error
        7.4> CLIENT KILL MAXAGE x
        -ERR maxage is not an integer or out of range
        7.4> CLIENT KILL MAXAGE 0
        -ERR maxage should be greater than 0
        "#,
    );
}

#[test]
fn a_write_pause_delays_only_writes_and_messages() {
    let mut c = connect();
    c.expect("SET k v", "+OK");
    c.expect("CLIENT PAUSE 100000 WRITE", "+OK");
    let writes = [
        ("SET k w", "set"),
        ("PUBLISH a b", "publish"),
        ("FLUSHALL", "flushall"),
        ("PFCOUNT k", "pfcount"),
    ];
    for (command, name) in writes {
        let mut writer = c.another();
        let id = writer.integer("CLIENT ID");
        // The commands before it are answered.
        writer.send_raw(format!("GET k\r\n{command}\r\n"));
        assert_eq!(writer.read_reply().to_string(), "\"v\"");
        // CLIENT LIST shows the waiting command.
        eventually("it waits", || {
            line_of(&mut c, id)
                .is_some_and(|line| field(&line, "flags") == "b" && field(&line, "cmd") == name)
        });
        c.expect(&format!("CLIENT KILL ID {id}"), ":1");
        writer.expect_closed();
    }
    // A command that is refused anyway does not wait.
    c.expect("SET k", "-ERR wrong number of arguments for 'set' command");
    let mut writer = c.another();
    writer.send_raw("SET k w\r\nGET k\r\n");
    c.expect("CLIENT UNPAUSE", "+OK");
    assert_eq!(writer.read_reply().to_string(), "+OK");
    assert_eq!(writer.read_reply().to_string(), "\"w\"");
    c.expect("GET k", "\"w\"");
}

#[test]
fn a_pause_delays_every_command_until_its_end() {
    let mut c = connect();
    let mut other = c.another();
    other.expect("PING", "+PONG");
    let started = Instant::now();
    c.expect("CLIENT PAUSE 300", "+OK");
    other.expect("NOSUCH x", "-ERR unknown command 'NOSUCH', with args beginning with: 'x' ");
    assert!(started.elapsed().as_millis() < 300);
    other.expect("PING", "+PONG");
    assert!(started.elapsed().as_millis() >= 300);
    // A second pause makes the first neither shorter nor weaker.
    let started = Instant::now();
    c.expect("CLIENT PAUSE 400 WRITE", "+OK");
    c.expect("CLIENT PAUSE 1 ALL", "+OK");
    other.expect("PING", "+PONG");
    assert!(started.elapsed().as_millis() >= 400);
    c.expect("SET k v", "+OK");
}

#[test]
fn a_client_that_hangs_up_during_a_pause_is_gone_and_its_commands_do_not_run() {
    let mut c = connect();
    let hang_up = |c: &Client| {
        for pipelined in [1, 10, 20_000] {
            (0..5).for_each(|_| c.another().send_raw("INCR gone\r\n".repeat(pipelined)));
        }
    };
    let mut waiting = c.another();
    waiting.expect("PING", "+PONG");
    let connected = |c: &mut Client| c.text("CLIENT LIST").lines().count();
    let accepted = |c: &mut Client| -> usize {
        let stats = c.text("INFO stats");
        let mut fields = stats.lines().filter_map(|line| line.split_once(':'));
        fields.find(|(name, _)| *name == "total_connections_received").unwrap().1.parse().unwrap()
    };
    c.expect("CLIENT PAUSE 100000 WRITE", "+OK");
    let before = (accepted(&mut c) + 15, connected(&mut c));
    hang_up(&c);
    // What arrives during the pause runs afterwards, in its order.
    waiting.send_raw("INCR kept\r\n".repeat(20_000));
    eventually("they are gone", || (accepted(&mut c), connected(&mut c)) == before);
    c.expect("CLIENT UNPAUSE", "+OK");
    (1..=20_000).for_each(|n| assert_eq!(waiting.read_reply(), Reply::Integer(n)));
    c.expect("GET gone", "nil");
    c.expect("CLIENT PAUSE 2000 ALL", "+OK");
    hang_up(&c);
    c.expect("GET gone", "nil");
}

#[test]
fn client_pause_checks_its_arguments() {
    transcript(
        r#"
        > CLIENT PAUSE
        -ERR wrong number of arguments for 'client|pause' command
        > CLIENT PAUSE x
        -ERR timeout is not an integer or out of range
        > CLIENT PAUSE 1.5
        -ERR timeout is not an integer or out of range
        > CLIENT PAUSE -1
        -ERR timeout is negative
        > CLIENT PAUSE 1 NOSUCH
        -ERR CLIENT PAUSE mode must be WRITE or ALL
        > CLIENT PAUSE 1 WRITE x
        -ERR unknown subcommand or wrong number of arguments for 'PAUSE'. Try CLIENT HELP.
        > CLIENT PAUSE 0
        +OK
        > PING
        +PONG
        > CLIENT UNPAUSE x
        -ERR wrong number of arguments for 'client|unpause' command
        > CLIENT UNPAUSE
        +OK
        "#,
    );
}

#[test]
fn client_reply_turns_replies_off_and_on() {
    let mut c = connect();
    c.exchange("CLIENT REPLY OFF\r\nPING\r\nSET k v\r\nNOSUCH\r\nCLIENT REPLY ON\r\n", "+OK\r\n");
    c.expect("GET k", "\"v\"");
    c.exchange("CLIENT REPLY SKIP\r\nPING\r\nGET k\r\n", "$1\r\nv\r\n");
    c.exchange("CLIENT REPLY SKIP\r\nCLIENT REPLY SKIP\r\nPING\r\nGET k\r\n", "$1\r\nv\r\n");
    c.exchange(
        "CLIENT REPLY OFF\r\nCLIENT REPLY SKIP\r\nPING\r\nPING\r\nRESET\r\nPING\r\n",
        "+RESET\r\n+PONG\r\n",
    );
    c.transcript(
        r#"
        > CLIENT REPLY ON
        +OK
        > CLIENT REPLY NOSUCH
        -ERR syntax error
        > CLIENT REPLY
        -ERR wrong number of arguments for 'client|reply' command
        > PING
        +PONG
        "#,
    );
}

#[test]
fn client_no_evict_and_no_touch_are_shown_as_flags() {
    let mut c = connect();
    c.expect("CLIENT NO-EVICT on", "+OK");
    assert_eq!(field(&c.text("CLIENT INFO"), "flags"), "e");
    c.expect("CLIENT NO-EVICT maybe", "-ERR syntax error");
    c.expect("CLIENT NO-EVICT off", "+OK");
    assert_eq!(field(&c.text("CLIENT INFO"), "flags"), "N");
    if c.redis_at_least("7.2") {
        c.expect("client no-touch ON", "+OK");
        assert_eq!(field(&c.text("CLIENT INFO"), "flags"), "T");
        c.expect("CLIENT NO-TOUCH x", "-ERR syntax error");
        c.expect("RESET", "+RESET");
        assert_eq!(field(&c.text("CLIENT INFO"), "flags"), "N");
    }
}

#[test]
fn client_unblock_getredir_and_trackinginfo_find_nothing_by_default() {
    transcript(
        r#"
        > CLIENT UNBLOCK 999999
        :0
        > CLIENT UNBLOCK 999999 TIMEOUT
        :0
        > CLIENT UNBLOCK 999999 error
        :0
        > CLIENT UNBLOCK 1 NOSUCH
        -ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR
        > CLIENT UNBLOCK x
        -ERR value is not an integer or out of range
        > CLIENT UNBLOCK 1 ERROR x
        -ERR unknown subcommand or wrong number of arguments for 'UNBLOCK'. Try CLIENT HELP.
        > CLIENT GETREDIR
        :-1
        > CLIENT TRACKINGINFO
        ["flags", ["off"], "redirect", :-1, "prefixes", []]
        "#,
    );
}

#[test]
fn client_rejects_bad_subcommands() {
    transcript(
        r#"
        > CLIENT
        -ERR wrong number of arguments for 'client' command
        > CLIENT NOSUCH
        -ERR unknown subcommand 'NOSUCH'. Try CLIENT HELP.
        > CLIENT ID x
        -ERR wrong number of arguments for 'client|id' command
        > CLIENT GETNAME x
        -ERR wrong number of arguments for 'client|getname' command
        > CLIENT SETNAME
        -ERR wrong number of arguments for 'client|setname' command
        > CLIENT SETNAME a b
        -ERR wrong number of arguments for 'client|setname' command
        > CLIENT INFO x
        -ERR wrong number of arguments for 'client|info' command
        > client nosuch
        -ERR unknown subcommand 'nosuch'. Try CLIENT HELP.
        "#,
    );
}

#[test]
fn a_connection_beyond_maxclients_gets_an_error_and_is_closed() {
    let mut c = connect();
    let connected = c.text("CLIENT LIST").lines().count();
    c.expect(&format!("CONFIG SET maxclients {}", connected + 1), "+OK");
    let mut last: Client = c.another();
    last.expect("PING", "+PONG");
    let mut refused = c.another();
    refused.expect_bytes("-ERR max number of clients reached\r\n");
    refused.expect_closed();
    last.expect("QUIT", "+OK");
    last.expect_closed();
    eventually("a connection is accepted again", || {
        c.another().reply("PING") == Reply::Simple("PONG".into())
    });
}

#[test]
fn client_list_shows_the_memory_of_each_clients_buffers() {
    let mut c = connect();
    let mut other = c.another();
    let id = other.integer("CLIENT ID");
    let mut shown = |name: &str| -> usize {
        let line = c.text(&format!("CLIENT LIST ID {id}"));
        field(&line, name).parse().expect("it is a number")
    };
    let idle = shown("tot-mem");
    assert!(idle > 0 && shown("qbuf") == 0 && shown("argv-mem") == 0);
    // A command of which only the beginning has arrived.
    other.send_raw([b"*2\r\n$4\r\nECHO\r\n$1000000\r\n", &[b'x'; 400_000][..]].concat());
    eventually("it is counted", || shown("tot-mem") >= idle + 400_000);
    other.send_raw([b'x'; 600_000].iter().chain(b"\r\n").copied().collect::<Vec<u8>>());
    assert_eq!(other.read_reply().into_text().len(), 1_000_000);
    eventually("it is given back", || shown("tot-mem") < idle + 400_000);
    other.expect("MULTI", "+OK");
    other.expect(&format!("ECHO {}", "x".repeat(5000)), "+QUEUED");
    eventually("what is queued is counted", || shown("multi-mem") >= 5000);
}

#[test]
fn a_silent_client_gives_its_buffers_back_and_nothing_else() {
    if skipped_on_redis() {
        return;
    }
    let mut c = connect();
    let (mut burst, mut partial, mut queue) = (c.another(), c.another(), c.another());
    let mut shown = |id: i64, name: &str| -> usize {
        let line = c.text(&format!("CLIENT LIST ID {id}"));
        field(&line, name).parse().expect("it is a number")
    };
    let id = burst.integer("CLIENT ID");
    let idle = shown(id, "tot-mem");
    let value = "x".repeat(50_000);
    assert_eq!(burst.call(&["ECHO", &value]).into_text(), value);
    assert!(shown(id, "tot-mem") > idle + 50_000);

    let partial_id = partial.integer("CLIENT ID");
    partial.send_raw("*2\r\n$4\r\nECHO\r\n$6\r\nabc");
    queue.expect("MULTI", "+OK");
    queue.expect(&format!("SET k {value}"), "+QUEUED");

    eventually("the burst is forgotten", || shown(id, "tot-mem") <= idle);
    eventually("half a command has waited longer than that", || shown(partial_id, "idle") >= 2);
    partial.send_raw("def\r\n");
    assert_eq!(partial.read_reply().into_text(), "abcdef");
    queue.expect("EXEC", "[+OK]");
    assert_eq!(burst.call(&["ECHO", &value]).into_text(), value);
}
