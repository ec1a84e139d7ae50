//! Commands about the server: its commands, settings, statistics and databases.

use std::collections::BTreeMap;

use respite::config::{SETTINGS, Setting, UNUSED};

use crate::harness::{
    Client, Reply, connect, eventually, quote, skipped_on_redis, transcript, unix_now_ms,
};

// ---- Unknown commands --------------------------------------------------------------------------------

#[test]
fn an_unknown_command_is_named_with_its_first_arguments() {
    let mut c = connect();
    // A space follows each argument, even the last.
    let error = |name: &str, args: &str| {
        format!("-ERR unknown command '{name}', with args beginning with: {args}")
    };
    c.expect("nosuch", &error("nosuch", ""));
    c.expect("NoSuch", &error("NoSuch", ""));
    c.expect("nosuch a b", &error("nosuch", "'a' 'b' "));
    c.expect("nosuch \"\" \"a b\"", &error("nosuch", "'' 'a b' "));
    c.expect("\"\" a", &error("", "'a' "));
    c.expect("nosuch \"it's\"", &error("nosuch", "'it's' "));
    c.expect("\"no\\r\\nsuch\" \"a\\r\\nb\"", &error("no  such", "'a  b' "));
    c.expect("CONFIG|GET timeout", &error("CONFIG|GET", "'timeout' "));
}

#[test]
fn an_unknown_command_and_its_arguments_are_shown_up_to_128_bytes_each() {
    let mut c = connect();
    let long = "x".repeat(500);
    let cut = "x".repeat(128);
    let error = |name: &str, args: &str| {
        format!("-ERR unknown command '{name}', with args beginning with: {args}")
    };
    let mut expect_error = |args: &[&str], expected: String| {
        assert_eq!(c.call(args).to_string(), expected);
    };
    expect_error(&[&long], error(&cut, ""));
    expect_error(&["nosuch", &long, "b"], error("nosuch", &format!("'{cut}' ")));
    expect_error(&["nosuch", &long[..128], "b"], error("nosuch", &format!("'{cut}' ")));
    // Each argument gets the space that the previous ones have left.
    let (hundred, forty) = ("a".repeat(100), "b".repeat(40));
    let shown = format!("'{hundred}' '{}' ", &forty[..25]);
    expect_error(&["nosuch", &hundred, &forty, "c"], error("nosuch", &shown));
    let many: Vec<String> = (10..60).map(|i| format!("arg{i}")).collect();
    let shown: String = many[..16].iter().map(|arg| format!("'{arg}' ")).collect();
    let args: Vec<&str> = ["nosuch"].into_iter().chain(many.iter().map(String::as_str)).collect();
    expect_error(&args, error("nosuch", &shown));
}

#[test]
fn errors_show_arguments_as_bytes_up_to_a_zero_byte() {
    let mut c = connect();
    c.send(&[&b"no\x00such"[..], b"a\xff\x00b", b"\x80"]);
    c.expect_bytes(b"-ERR unknown command 'no', with args beginning with: 'a\xff' '\x80' \r\n");
    c.send(&[&b"CONFIG"[..], b"a\xff\nb"]);
    c.expect_bytes(b"-ERR unknown subcommand 'a\xff b'. Try CONFIG HELP.\r\n");
}

#[test]
fn an_unknown_subcommand_is_named() {
    let mut c = connect();
    c.transcript(
        r#"
        > CONFIG NOSUCH
        -ERR unknown subcommand 'NOSUCH'. Try CONFIG HELP.
        > config nosuch
        -ERR unknown subcommand 'nosuch'. Try CONFIG HELP.
        > CONFIG NOSUCH a b c
        -ERR unknown subcommand 'NOSUCH'. Try CONFIG HELP.
        > CONFIG ""
        -ERR unknown subcommand ''. Try CONFIG HELP.
        > CLIENT NOSUCH
        -ERR unknown subcommand 'NOSUCH'. Try CLIENT HELP.
        > COMMAND NOSUCH
        -ERR unknown subcommand 'NOSUCH'. Try COMMAND HELP.
        > COMMAND GETKEY GET k
        -ERR unknown subcommand 'GETKEY'. Try COMMAND HELP.
        "#,
    );
    let long = "x".repeat(300);
    let error = format!("-ERR unknown subcommand '{}'. Try CONFIG HELP.", &long[..128]);
    assert_eq!(c.call(&["CONFIG", &long]).to_string(), error);
}

#[test]
fn a_wrong_number_of_arguments_names_the_command_and_subcommand() {
    transcript(
        r#"
        > CONFIG
        -ERR wrong number of arguments for 'config' command
        > CONFIG GET
        -ERR wrong number of arguments for 'config|get' command
        > CONFIG SET
        -ERR wrong number of arguments for 'config|set' command
        > CONFIG SET timeout
        -ERR wrong number of arguments for 'config|set' command
        > config set timeout
        -ERR wrong number of arguments for 'config|set' command
        > COMMAND COUNT x
        -ERR wrong number of arguments for 'command|count' command
        > COMMAND GETKEYS
        -ERR wrong number of arguments for 'command|getkeys' command
        > TIME x
        -ERR wrong number of arguments for 'time' command
        > DBSIZE x
        -ERR wrong number of arguments for 'dbsize' command
        > SWAPDB
        -ERR wrong number of arguments for 'swapdb' command
        > SWAPDB 1
        -ERR wrong number of arguments for 'swapdb' command
        > SWAPDB 1 2 3
        -ERR wrong number of arguments for 'swapdb' command
        "#,
    );
}

// ---- TIME, INFO --------------------------------------------------------------------------------------

#[test]
fn time_returns_the_current_time() {
    let mut c = connect();
    let time = c.reply("TIME").into_items();
    let time: Vec<i64> = time.into_iter().map(|part| part.into_text().parse().unwrap()).collect();
    let [seconds, microseconds] = time[..] else {
        panic!("TIME has {} parts", time.len());
    };
    assert!((0..1_000_000).contains(&microseconds));
    let differs = unix_now_ms() - (seconds * 1000 + microseconds / 1000);
    assert!(differs.abs() < 10_000, "the clocks differ by {differs} ms");
}

/// The fields of INFO, by name.
struct Info(BTreeMap<String, String>);

impl Info {
    fn ask(c: &mut Client, command: &str) -> Info {
        let text = c.text(command);
        let lines = text.split("\r\n");
        let fields = lines.filter(|line| !line.is_empty() && !line.starts_with("# "));
        let fields = fields.map(|line| {
            let field = line.split_once(':');
            let (name, value) = field.unwrap_or_else(|| panic!("not a field of INFO: {line:?}"));
            (name.to_owned(), value.to_owned())
        });
        Info(fields.collect())
    }

    #[track_caller]
    fn text(&self, name: &str) -> &str {
        let value = self.0.get(name);
        value.unwrap_or_else(|| panic!("no {name} in {:?}", self.0))
    }

    #[track_caller]
    fn number(&self, name: &str) -> u64 {
        let text = self.text(name);
        text.parse().unwrap_or_else(|_| panic!("{name} is {text}"))
    }
}

#[test]
fn info_describes_the_server() {
    let mut c = connect();
    let server = Info::ask(&mut c, "INFO server");
    assert_eq!(server.number("tcp_port"), u64::from(c.address().port()));
    assert_eq!(server.text("redis_mode"), "standalone");
    assert!(server.text("redis_version").starts_with(|c: char| c.is_ascii_digit()));
    assert!(server.number("process_id") > 0);
    assert!(server.number("uptime_in_seconds") < 1_000_000_000);
    assert_eq!(server.text("run_id").len(), 40);
    let clients = Info::ask(&mut c, "info CLIENTS");
    assert!(clients.number("connected_clients") >= 1);
    assert_eq!(clients.number("maxclients"), 10_000);
    if cfg!(target_os = "linux") {
        assert!(Info::ask(&mut c, "INFO memory").number("used_memory_rss") > 0);
    }
    let persistence = Info::ask(&mut c, "INFO persistence");
    assert_eq!(persistence.number("loading"), 0);
    assert!(persistence.number("aof_enabled") <= 1);
    assert_eq!(Info::ask(&mut c, "INFO replication").text("role"), "master");
    assert_eq!(Info::ask(&mut c, "INFO cluster").number("cluster_enabled"), 0);
}

#[test]
fn info_counts_connections_and_commands() {
    let mut c = connect();
    let before = Info::ask(&mut c, "INFO stats");
    c.another().expect("GET missing", "nil");
    c.expect("SET k v", "+OK");
    c.expect("GET k", "\"v\"");
    let after = Info::ask(&mut c, "INFO stats");
    let grew = |name: &str| after.number(name) - before.number(name);
    assert_eq!(grew("total_connections_received"), 1);
    assert_eq!(grew("total_commands_processed"), 4);
}

#[test]
fn info_lists_the_databases_that_hold_keys() {
    let mut c = connect();
    c.expect("INFO keyspace", "\"# Keyspace\\r\\n\"");
    c.transcript(
        r#"
        > MSET a 1 b 2
        +OK
        > EXPIRE a 1000
        :1
        > SELECT 3
        +OK
        > HSET h f v
        :1
        "#,
    );
    let keyspace = Info::ask(&mut c, "INFO keyspace");
    assert_eq!(keyspace.0.len(), 2, "{:?}", keyspace.0);
    let expect_field = |name, expected: &str| {
        let text = keyspace.text(name);
        assert!(text.starts_with(expected), "{name}:{text}");
    };
    expect_field("db0", "keys=2,expires=1,avg_ttl=");
    expect_field("db3", "keys=1,expires=0,avg_ttl=0");
    // In milliseconds, over the keys that expire.
    eventually("the average is known", || {
        let text = Info::ask(&mut c, "INFO keyspace").text("db0").to_owned();
        let average = text.split(',').find_map(|part| part.strip_prefix("avg_ttl="));
        let average = average.and_then(|average| average.parse().ok());
        average.is_some_and(|average: u64| (900_000..=1_000_000).contains(&average))
    });
}

#[test]
fn info_has_sections() {
    let mut c = connect();
    let sections = |c: &mut Client, command: &str| -> Vec<String> {
        let text = c.text(command);
        assert!(text.ends_with("\r\n"), "{text:?}");
        let titles = text.split("\r\n").filter_map(|line| line.strip_prefix("# "));
        titles.map(str::to_owned).collect()
    };
    assert_eq!(sections(&mut c, "INFO clients"), ["Clients"]);
    assert_eq!(sections(&mut c, "INFO CLIENTS server"), ["Server", "Clients"]);
    assert_eq!(sections(&mut c, "INFO server server"), ["Server"]);
    assert_eq!(sections(&mut c, "INFO nosuch keyspace"), ["Keyspace"]);
    let default = sections(&mut c, "INFO");
    let expected =
        ["Server", "Clients", "Memory", "Persistence", "Stats", "Replication", "CPU", "Keyspace"];
    let known = default.iter().filter(|title| expected.contains(&title.as_str()));
    assert!(known.eq(expected), "{default:?}");
    assert!(!default.contains(&"Commandstats".to_owned()));
    assert_eq!(sections(&mut c, "INFO default"), default);
    for all in ["INFO all", "INFO everything", "INFO ALL"] {
        let all = sections(&mut c, all);
        assert!(default.iter().all(|title| all.contains(title)), "{all:?}");
    }
    c.expect("INFO nosuch", "\"\"");
    c.reply("HELLO 3");
    let reply = c.reply("INFO clients");
    assert!(matches!(&reply, Reply::Verbatim(kind, _) if kind == "txt"), "{reply}");
}

// ---- What does not exist ------------------------------------------------------------------------------

#[test]
fn commands_about_a_cluster_say_that_there_is_none() {
    let mut c = connect();
    c.transcript(
        r#"
        > CLUSTER INFO
        -ERR This instance has cluster support disabled
        > CLUSTER SLOTS
        -ERR This instance has cluster support disabled
        8.2> CLUSTER KEYSLOT k
        -ERR This instance has cluster support disabled
        > CLUSTER
        -ERR wrong number of arguments for 'cluster' command
        > CLUSTER nosuch
        -ERR unknown subcommand 'nosuch'. Try CLUSTER HELP.
        > CLUSTER MEET 127.0.0.1
        -ERR wrong number of arguments for 'cluster|meet' command
        8.2> READONLY
        -ERR This instance has cluster support disabled
        > READONLY x
        -ERR wrong number of arguments for 'readonly' command
        8.2> READWRITE
        -ERR This instance has cluster support disabled
        > ASKING
        -ERR This instance has cluster support disabled
        "#,
    );
    c.transcript(
        r#"
        > COMMAND INFO asking readonly
        [["asking", :1, [+fast], :0, :0, :0, [+@fast, +@connection], [], [], []], ["readonly", :1, [+loading, +stale, +fast], :0, :0, :0, [+@fast, +@connection], [], [], []]]
        "#,
    );
}

#[test]
fn no_module_can_be_loaded() {
    let mut c = connect();
    let refused = "-ERR MODULE command not allowed. If the enable-module-command option is set to \"local\", \
                   you can run it from a local connection, otherwise you need to set this option in the \
                   configuration file, and then restart the server.";
    for command in ["MODULE LOAD a.so", "MODULE LOADEX a.so CONFIG x y", "MODULE UNLOAD a"] {
        c.expect(command, refused);
    }
    c.transcript(
        r#"
        > MODULE LIST x
        -ERR wrong number of arguments for 'module|list' command
        > MODULE nosuch
        -ERR unknown subcommand 'nosuch'. Try MODULE HELP.
        "#,
    );
    // A Redis brings its own.
    if !skipped_on_redis() {
        c.expect("MODULE LIST", "[]");
    }
}

// ---- CONFIG ------------------------------------------------------------------------------------------

#[test]
fn config_get_takes_names_and_patterns() {
    let mut c = connect();
    c.expect("CONFIG SET timeout 0 maxclients 10000", "+OK");
    c.reply("HELLO 3");
    c.transcript(
        r#"
        > CONFIG GET timeout
        {"timeout": "0"}
        > CONFIG GET save
        {"save": ""}
        > config get timeout
        {"timeout": "0"}
        > CONFIG GET TIMEOUT
        {"TIMEOUT": "0"}
        > CONFIG GET nosuch
        {}
        > CONFIG GET nosuch nothing
        {}
        sorted> CONFIG GET timeout maxclients nosuch
        {"maxclients": "10000", "timeout": "0"}
        sorted> CONFIG GET maxclient* timeout timeout
        {"maxclients": "10000", "timeout": "0"}
        > CONFIG GET data[a-c]ases
        {"databases": "16"}
        > CONFIG GET appendf?ync
        {"appendfsync": "everysec"}
        > CONFIG GET DATA*
        {"databases": "16"}
        > CONFIG GET data\bases
        {}
        "#,
    );
    let Reply::Map(all) = c.reply("CONFIG GET *") else {
        panic!("not a map");
    };
    let names: Vec<String> = all.into_iter().map(|(name, _)| name.into_text()).collect();
    let settings = "port bind unixsocket dir appendonly appendfilename appendfsync requirepass databases \
                    maxclients timeout loglevel";
    for name in settings.split(' ') {
        assert_eq!(names.iter().filter(|n| *n == name).count(), 1, "{name} in {names:?}");
    }
}

#[test]
fn config_set_changes_several_settings_or_none() {
    let mut c = connect();
    c.reply("HELLO 3");
    c.transcript(
        r#"
        > CONFIG SET timeout 300
        +OK
        > CONFIG GET timeout
        {"timeout": "300"}
        > CONFIG SET timeout 100 maxclients 5000
        +OK
        sorted> CONFIG GET timeout maxclients
        {"maxclients": "5000", "timeout": "100"}
        > CONFIG SET TimeOut 200
        +OK
        > CONFIG GET timeout
        {"timeout": "200"}
        > CONFIG SET timeout 1 nosuch 2
        -ERR Unknown option or number of arguments for CONFIG SET - 'nosuch'
        > CONFIG SET timeout 1 maxclients abc
        -ERR CONFIG SET failed (possibly related to argument 'maxclients') - argument couldn't be parsed into an integer
        > CONFIG SET timeout 1 timeout 2
        -ERR CONFIG SET failed (possibly related to argument 'timeout') - duplicate parameter
        > CONFIG SET timeout 1 maxclients
        -ERR syntax error
        > CONFIG SET timeout 1 databases 3
        -ERR CONFIG SET failed (possibly related to argument 'databases') - can't set immutable config
        sorted> CONFIG GET timeout maxclients
        {"maxclients": "5000", "timeout": "200"}
        > CONFIG SET appendfsync always
        +OK
        > CONFIG GET appendfsync
        {"appendfsync": "always"}
        > CONFIG SET appendfsync EverySec
        +OK
        > CONFIG GET appendfsync
        {"appendfsync": "everysec"}
        > CONFIG SET loglevel warning
        +OK
        > CONFIG GET loglevel
        {"loglevel": "warning"}
        > CONFIG SET requirepass "a b"
        +OK
        > CONFIG GET requirepass
        {"requirepass": "a b"}
        > CONFIG SET requirepass ""
        +OK
        > CONFIG GET requirepass
        {"requirepass": ""}
        "#,
    );
}

#[test]
fn a_snapshot_schedule_is_pairs_of_seconds_and_changes() {
    transcript(
        r#"
        > CONFIG SET save "60 1"
        +OK
        > CONFIG GET save
        ["save", "60 1"]
        > CONFIG SET save "900 1 300 0"
        +OK
        > CONFIG GET save
        ["save", "900 1 300 0"]
        > CONFIG SET save x
        -ERR CONFIG SET failed (possibly related to argument 'save') - Invalid save parameters
        > CONFIG SET save "60"
        -ERR CONFIG SET failed (possibly related to argument 'save') - Invalid save parameters
        > CONFIG SET save "0 1"
        -ERR CONFIG SET failed (possibly related to argument 'save') - Invalid save parameters
        > CONFIG SET save "60 -1"
        -ERR CONFIG SET failed (possibly related to argument 'save') - Invalid save parameters
        > CONFIG SET save "60  1"
        -ERR CONFIG SET failed (possibly related to argument 'save') - Invalid save parameters
        > CONFIG SET save "" save ""
        -ERR CONFIG SET failed (possibly related to argument 'save') - duplicate parameter
        > CONFIG SET save 60 1
        -ERR syntax error
        > CONFIG GET save
        ["save", "900 1 300 0"]
        > CONFIG SET save ""
        +OK
        > CONFIG GET save
        ["save", ""]
        "#,
    );
}

#[test]
fn numbers_that_are_only_adapted_are_shown_as_they_take_effect() {
    transcript(
        r#"
        > CONFIG SET hz 0
        +OK
        > CONFIG GET hz
        ["hz", "1"]
        > CONFIG SET hz 100000
        +OK
        > CONFIG GET hz
        ["hz", "500"]
        > CONFIG SET hz -1
        -ERR CONFIG SET failed (possibly related to argument 'hz') - argument must be between 0 and 2147483647 inclusive
        > CONFIG SET repl-backlog-size 2mb
        +OK
        > CONFIG GET repl-backlog-size
        ["repl-backlog-size", "2097152"]
        "#,
    );
}

#[test]
fn config_get_knows_every_setting_of_redis() {
    let mut c = connect();
    // RDMA is a network that the server does not support.
    for name in c.settings().into_keys().filter(|name| !name.starts_with("rdma-")) {
        let is_known = |setting: &Setting| setting.name == name || setting.alias == name;
        assert!(SETTINGS.iter().chain(UNUSED).any(is_known), "{name} is in no table");
    }
}

#[test]
fn config_set_rejects_bad_settings() {
    let mut c = connect();
    c.transcript(
        r#"
        > CONFIG SET nosuch 1
        -ERR Unknown option or number of arguments for CONFIG SET - 'nosuch'
        > CONFIG SET NoSuch 1
        -ERR Unknown option or number of arguments for CONFIG SET - 'NoSuch'
        > CONFIG SET "" 1
        -ERR Unknown option or number of arguments for CONFIG SET - ''
        > CONFIG SET time* 1
        -ERR Unknown option or number of arguments for CONFIG SET - 'time*'
        > CONFIG SET timeout abc
        -ERR CONFIG SET failed (possibly related to argument 'timeout') - argument couldn't be parsed into an integer
        > CONFIG SET timeout ""
        -ERR CONFIG SET failed (possibly related to argument 'timeout') - argument couldn't be parsed into an integer
        > CONFIG SET timeout 1.5
        -ERR CONFIG SET failed (possibly related to argument 'timeout') - argument couldn't be parsed into an integer
        > CONFIG SET timeout " 1"
        -ERR CONFIG SET failed (possibly related to argument 'timeout') - argument couldn't be parsed into an integer
        > CONFIG SET timeout -1
        -ERR CONFIG SET failed (possibly related to argument 'timeout') - argument must be between 0 and 2147483647 inclusive
        > CONFIG SET timeout 2147483648
        -ERR CONFIG SET failed (possibly related to argument 'timeout') - argument must be between 0 and 2147483647 inclusive
        > CONFIG SET timeout 99999999999999999999
        -ERR CONFIG SET failed (possibly related to argument 'timeout') - argument couldn't be parsed into an integer
        > CONFIG SET TIMEOUT abc
        -ERR CONFIG SET failed (possibly related to argument 'timeout') - argument couldn't be parsed into an integer
        > CONFIG SET maxclients 0
        -ERR CONFIG SET failed (possibly related to argument 'maxclients') - argument must be between 1 and 4294967295 inclusive
        8.2> CONFIG SET maxclients -5
        -ERR CONFIG SET failed (possibly related to argument 'maxclients') - argument must be greater or equal to 0
        8.2> CONFIG SET hash-max-listpack-entries -1
        -ERR CONFIG SET failed (possibly related to argument 'hash-max-listpack-entries') - argument must be greater or equal to 0
        8.2> CONFIG SET hash-max-listpack-value 9223372036854775808
        -ERR CONFIG SET failed (possibly related to argument 'hash-max-listpack-value') - argument must be greater or equal to 0
        8.2> CONFIG SET tracking-table-max-keys -1
        -ERR CONFIG SET failed (possibly related to argument 'tracking-table-max-keys') - argument must be greater or equal to 0
        > CONFIG SET slowlog-max-len -1
        -ERR CONFIG SET failed (possibly related to argument 'slowlog-max-len') - argument must be between 0 and 9223372036854775807 inclusive
        > CONFIG SET proto-max-bulk-len 9223372036854775808
        -ERR CONFIG SET failed (possibly related to argument 'proto-max-bulk-len') - argument must be between 1048576 and 9223372036854775807 inclusive
        > CONFIG SET maxmemory-clients 101%
        -ERR CONFIG SET failed (possibly related to argument 'maxmemory-clients') - percentage argument must be less or equal to 100
        > CONFIG SET maxmemory ""
        +OK
        > CONFIG SET maxmemory kb
        +OK
        > CONFIG GET maxmemory
        ["maxmemory", "0"]
        > CONFIG SET maxmemory -1
        -ERR CONFIG SET failed (possibly related to argument 'maxmemory') - argument must be a memory value
        > CONFIG SET maxmemory-clients x
        -ERR CONFIG SET failed (possibly related to argument 'maxmemory-clients') - argument must be a memory or percent value
        > CONFIG SET dir /tmp
        -ERR CONFIG SET failed (possibly related to argument 'dir') - can't set protected config
        > CONFIG SET maxclients 4294967296
        -ERR CONFIG SET failed (possibly related to argument 'maxclients') - argument must be between 1 and 4294967295 inclusive
        > CONFIG SET hash-max-listpack-value abc
        -ERR CONFIG SET failed (possibly related to argument 'hash-max-listpack-value') - argument must be a memory value
        > CONFIG SET HASH-MAX-ZIPLIST-ENTRIES abc
        -ERR CONFIG SET failed (possibly related to argument 'hash-max-ziplist-entries') - argument couldn't be parsed into an integer
        > CONFIG SET hash-max-listpack-value 1kb
        +OK
        > CONFIG GET hash-max-listpack-value
        ["hash-max-listpack-value", "1024"]
        > CONFIG SET hash-max-ziplist-value 64
        +OK
        > CONFIG SET appendfsync sometimes
        -ERR CONFIG SET failed (possibly related to argument 'appendfsync') - argument(s) must be one of the following: everysec, always, no
        > CONFIG SET databases 3
        -ERR CONFIG SET failed (possibly related to argument 'databases') - can't set immutable config
        > CONFIG SET appendfilename other.aof
        -ERR CONFIG SET failed (possibly related to argument 'appendfilename') - can't set immutable config
        > CONFIG SET unixsocket other.sock
        -ERR CONFIG SET failed (possibly related to argument 'unixsocket') - can't set immutable config
        > CONFIG SET nosuch 1 timeout abc
        -ERR Unknown option or number of arguments for CONFIG SET - 'nosuch'
        > CONFIG SET timeout abc nosuch 1
        -ERR Unknown option or number of arguments for CONFIG SET - 'nosuch'
        > CONFIG SET timeout abc databases 3
        -ERR CONFIG SET failed (possibly related to argument 'databases') - can't set immutable config
        > CONFIG SET databases 3 timeout abc
        -ERR CONFIG SET failed (possibly related to argument 'databases') - can't set immutable config
        > CONFIG SET timeout 1 TIMEOUT 2
        -ERR CONFIG SET failed (possibly related to argument 'TIMEOUT') - duplicate parameter
        7.2> CONFIG SET loglevel loud
        -ERR CONFIG SET failed (possibly related to argument 'loglevel') - argument(s) must be one of the following: debug, verbose, notice, warning, nothing
        "#,
    );
}

// ---- COMMAND -----------------------------------------------------------------------------------------

/// The first parts of `COMMAND INFO` for each command: name, arity, flags, first key, last key, step,
/// categories. Recorded from Redis 7.0.
const COMMANDS: &str = r#"
["ping", :-1, [+fast], :0, :0, :0, [+@fast, +@connection]]
["echo", :2, [+loading, +stale, +fast], :0, :0, :0, [+@fast, +@connection]]
["quit", :-1, [+noscript, +loading, +stale, +fast, +no_auth, +allow_busy], :0, :0, :0, [+@fast, +@connection]]
["select", :2, [+loading, +stale, +fast], :0, :0, :0, [+@fast, +@connection]]
["hello", :-1, [+noscript, +loading, +stale, +fast, +no_auth, +allow_busy], :0, :0, :0, [+@fast, +@connection]]
["auth", :-2, [+noscript, +loading, +stale, +fast, +no_auth, +allow_busy], :0, :0, :0, [+@fast, +@connection]]
["reset", :1, [+noscript, +loading, +stale, +fast, +no_auth, +allow_busy], :0, :0, :0, [+@fast, +@connection]]
["time", :1, [+loading, +stale, +fast], :0, :0, :0, [+@fast]]
["client", :-2, [], :0, :0, :0, [+@slow]]
["command", :-1, [+loading, +stale], :0, :0, :0, [+@slow, +@connection]]
["info", :-1, [+loading, +stale], :0, :0, :0, [+@slow, +@dangerous]]
["config", :-2, [], :0, :0, :0, [+@slow]]
["dbsize", :1, [+readonly, +fast], :0, :0, :0, [+@keyspace, +@read, +@fast]]
["flushdb", :-1, [+write], :0, :0, :0, [+@keyspace, +@write, +@slow, +@dangerous]]
["flushall", :-1, [+write], :0, :0, :0, [+@keyspace, +@write, +@slow, +@dangerous]]
["swapdb", :3, [+write, +fast], :0, :0, :0, [+@keyspace, +@write, +@fast, +@dangerous]]
["shutdown", :-1, [+admin, +noscript, +loading, +stale, +no_multi, +allow_busy], :0, :0, :0, [+@admin, +@slow, +@dangerous]]
["set", :-3, [+write, +denyoom], :1, :1, :1, [+@write, +@string, +@slow]]
["get", :2, [+readonly, +fast], :1, :1, :1, [+@read, +@string, +@fast]]
["getset", :3, [+write, +denyoom, +fast], :1, :1, :1, [+@write, +@string, +@fast]]
["getdel", :2, [+write, +fast], :1, :1, :1, [+@write, +@string, +@fast]]
["getex", :-2, [+write, +fast], :1, :1, :1, [+@write, +@string, +@fast]]
["setnx", :3, [+write, +denyoom, +fast], :1, :1, :1, [+@write, +@string, +@fast]]
["setex", :4, [+write, +denyoom], :1, :1, :1, [+@write, +@string, +@slow]]
["psetex", :4, [+write, +denyoom], :1, :1, :1, [+@write, +@string, +@slow]]
["mget", :-2, [+readonly, +fast], :1, :-1, :1, [+@read, +@string, +@fast]]
["mset", :-3, [+write, +denyoom], :1, :-1, :2, [+@write, +@string, +@slow]]
["msetnx", :-3, [+write, +denyoom], :1, :-1, :2, [+@write, +@string, +@slow]]
["append", :3, [+write, +denyoom, +fast], :1, :1, :1, [+@write, +@string, +@fast]]
["strlen", :2, [+readonly, +fast], :1, :1, :1, [+@read, +@string, +@fast]]
["getrange", :4, [+readonly], :1, :1, :1, [+@read, +@string, +@slow]]
["substr", :4, [+readonly], :1, :1, :1, [+@read, +@string, +@slow]]
["lcs", :-3, [+readonly], :1, :2, :1, [+@read, +@string, +@slow]]
["setrange", :4, [+write, +denyoom], :1, :1, :1, [+@write, +@string, +@slow]]
["setbit", :4, [+write, +denyoom], :1, :1, :1, [+@write, +@bitmap, +@slow]]
["getbit", :3, [+readonly, +fast], :1, :1, :1, [+@read, +@bitmap, +@fast]]
["bitcount", :-2, [+readonly], :1, :1, :1, [+@read, +@bitmap, +@slow]]
["bitpos", :-3, [+readonly], :1, :1, :1, [+@read, +@bitmap, +@slow]]
["bitop", :-4, [+write, +denyoom], :2, :-1, :1, [+@write, +@bitmap, +@slow]]
["bitfield", :-2, [+write, +denyoom], :1, :1, :1, [+@write, +@bitmap, +@slow]]
["bitfield_ro", :-2, [+readonly, +fast], :1, :1, :1, [+@read, +@bitmap, +@fast]]
["incr", :2, [+write, +denyoom, +fast], :1, :1, :1, [+@write, +@string, +@fast]]
["decr", :2, [+write, +denyoom, +fast], :1, :1, :1, [+@write, +@string, +@fast]]
["incrby", :3, [+write, +denyoom, +fast], :1, :1, :1, [+@write, +@string, +@fast]]
["decrby", :3, [+write, +denyoom, +fast], :1, :1, :1, [+@write, +@string, +@fast]]
["incrbyfloat", :3, [+write, +denyoom, +fast], :1, :1, :1, [+@write, +@string, +@fast]]
["hset", :-4, [+write, +denyoom, +fast], :1, :1, :1, [+@write, +@hash, +@fast]]
["hsetnx", :4, [+write, +denyoom, +fast], :1, :1, :1, [+@write, +@hash, +@fast]]
["hget", :3, [+readonly, +fast], :1, :1, :1, [+@read, +@hash, +@fast]]
["hmset", :-4, [+write, +denyoom, +fast], :1, :1, :1, [+@write, +@hash, +@fast]]
["hmget", :-3, [+readonly, +fast], :1, :1, :1, [+@read, +@hash, +@fast]]
["hgetall", :2, [+readonly], :1, :1, :1, [+@read, +@hash, +@slow]]
["hdel", :-3, [+write, +fast], :1, :1, :1, [+@write, +@hash, +@fast]]
["hexists", :3, [+readonly, +fast], :1, :1, :1, [+@read, +@hash, +@fast]]
["hlen", :2, [+readonly, +fast], :1, :1, :1, [+@read, +@hash, +@fast]]
["hkeys", :2, [+readonly], :1, :1, :1, [+@read, +@hash, +@slow]]
["hvals", :2, [+readonly], :1, :1, :1, [+@read, +@hash, +@slow]]
["hstrlen", :3, [+readonly, +fast], :1, :1, :1, [+@read, +@hash, +@fast]]
["hincrby", :4, [+write, +denyoom, +fast], :1, :1, :1, [+@write, +@hash, +@fast]]
["hincrbyfloat", :4, [+write, +denyoom, +fast], :1, :1, :1, [+@write, +@hash, +@fast]]
["hscan", :-3, [+readonly], :1, :1, :1, [+@read, +@hash, +@slow]]
["del", :-2, [+write], :1, :-1, :1, [+@keyspace, +@write, +@slow]]
["unlink", :-2, [+write, +fast], :1, :-1, :1, [+@keyspace, +@write, +@fast]]
["exists", :-2, [+readonly, +fast], :1, :-1, :1, [+@keyspace, +@read, +@fast]]
["type", :2, [+readonly, +fast], :1, :1, :1, [+@keyspace, +@read, +@fast]]
["touch", :-2, [+readonly, +fast], :1, :-1, :1, [+@keyspace, +@read, +@fast]]
["keys", :2, [+readonly], :0, :0, :0, [+@keyspace, +@read, +@slow, +@dangerous]]
["scan", :-2, [+readonly], :0, :0, :0, [+@keyspace, +@read, +@slow]]
["randomkey", :1, [+readonly], :0, :0, :0, [+@keyspace, +@read, +@slow]]
["rename", :3, [+write], :1, :2, :1, [+@keyspace, +@write, +@slow]]
["renamenx", :3, [+write, +fast], :1, :2, :1, [+@keyspace, +@write, +@fast]]
["move", :3, [+write, +fast], :1, :1, :1, [+@keyspace, +@write, +@fast]]
["copy", :-3, [+write, +denyoom], :1, :2, :1, [+@keyspace, +@write, +@slow]]
["expire", :-3, [+write, +fast], :1, :1, :1, [+@keyspace, +@write, +@fast]]
["pexpire", :-3, [+write, +fast], :1, :1, :1, [+@keyspace, +@write, +@fast]]
["expireat", :-3, [+write, +fast], :1, :1, :1, [+@keyspace, +@write, +@fast]]
["pexpireat", :-3, [+write, +fast], :1, :1, :1, [+@keyspace, +@write, +@fast]]
["ttl", :2, [+readonly, +fast], :1, :1, :1, [+@keyspace, +@read, +@fast]]
["pttl", :2, [+readonly, +fast], :1, :1, :1, [+@keyspace, +@read, +@fast]]
["expiretime", :2, [+readonly, +fast], :1, :1, :1, [+@keyspace, +@read, +@fast]]
["pexpiretime", :2, [+readonly, +fast], :1, :1, :1, [+@keyspace, +@read, +@fast]]
["persist", :2, [+write, +fast], :1, :1, :1, [+@keyspace, +@write, +@fast]]
"#;

#[test]
fn command_info_describes_every_command() {
    let mut c = connect();
    let mut wrong = Vec::new();
    for expected in COMMANDS.trim().lines() {
        let name = expected.split('"').nth(1).expect("a name");
        let mut reply = c.call(&["COMMAND", "INFO", name]).into_items();
        let described = match reply.remove(0) {
            Reply::Array(mut parts) => {
                assert_eq!(parts.len(), 10, "{name} has {} parts", parts.len());
                // Tips, key specifications and subcommands differ between versions.
                parts.truncate(7);
                Reply::Array(parts).to_string()
            }
            other => other.to_string(),
        };
        if described != expected {
            wrong.push(format!("expected {expected}\nreceived {described}"));
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn command_info_takes_several_names() {
    let mut c = connect();
    let reply = c.reply("COMMAND INFO GET nosuch config|get get|x set CONFIG|NOSUCH").into_items();
    let names: Vec<String> = reply
        .into_iter()
        .map(|entry| match entry {
            Reply::Array(parts) => parts[0].to_string(),
            other => other.to_string(),
        })
        .collect();
    assert_eq!(names, ["\"get\"", "nil", "\"config|get\"", "nil", "\"set\"", "nil"]);
}

#[test]
fn command_info_has_the_key_specifications() {
    let mut c = connect();
    let mut specification = |name: &str| {
        let mut entry = c.call(&["COMMAND", "INFO", name]).into_items().remove(0).into_items();
        entry.remove(8).to_string()
    };
    let expected = |flags: &str, last_key: i64, step: i64| {
        format!(
            "[[\"flags\", [{flags}], \"begin_search\", [\"type\", \"index\", \"spec\", [\"index\", :1]], \
             \"find_keys\", [\"type\", \"range\", \"spec\", \
             [\"lastkey\", :{last_key}, \"keystep\", :{step}, \"limit\", :0]]]]"
        )
    };
    assert_eq!(specification("get"), expected("+RO, +access", 0, 1));
    assert_eq!(specification("mset"), expected("+OW, +update", -1, 2));
    assert_eq!(specification("del"), expected("+RM, +delete", -1, 1));
    assert_eq!(specification("hset"), expected("+RW, +update", 0, 1));
    assert_eq!(specification("ping"), "[]");
}

/// Recorded from Redis 7.0.
#[test]
fn command_info_has_the_notes_of_redis_on_keys() {
    let mut c = connect();
    for (name, notes) in [
        ("set", "RW and ACCESS due to the optional `GET` argument"),
        ("getex", "RW and UPDATE because it changes the TTL"),
        ("bitfield", "This command allows both access and modification of the key"),
        (
            "pfcount",
            "RW because it may change the internal representation of the key, and propagate to replicas",
        ),
    ] {
        let mut entry = c.call(&["COMMAND", "INFO", name]).into_items().remove(0).into_items();
        let specification = entry.remove(8).into_items().remove(0).into_items();
        assert_eq!(specification[0].to_string(), "\"notes\"", "{name}");
        assert_eq!(specification[1].to_string(), quote(notes.as_bytes()), "{name}");
        assert_eq!(specification[2].to_string(), "\"flags\"", "{name}");
    }
}

#[test]
fn command_info_describes_keys_after_a_numkeys_argument() {
    let mut c = connect();
    if !c.redis_at_least("8.4") {
        return;
    }
    let invalid = "-ERR Invalid arguments specified for command";
    c.expect("COMMAND GETKEYS MSETEX 2 a 1 b 2 EX 10", r#"["a", "b"]"#);
    c.expect("COMMAND GETKEYS MSETEX 1 a 1 b 2", r#"["a"]"#);
    c.expect("COMMAND GETKEYS MSETEX 3 a 1 b 2", invalid);
    c.expect("COMMAND GETKEYS MSETEX 0 a 1", invalid);
    c.expect("COMMAND GETKEYS MSETEX -1 a 1", invalid);
    c.expect("COMMAND GETKEYS MSETEX x a 1", invalid);
    c.expect("COMMAND GETKEYS MSETEX 9223372036854775807 a 1", invalid);
    let entry = c.reply("COMMAND INFO MSETEX").into_items().remove(0).into_items();
    assert_eq!(entry[2].to_string(), "[+write, +denyoom, +movablekeys]");
    assert_eq!(Reply::Array(entry[3..6].to_vec()).to_string(), "[:0, :0, :0]");
    let expected = "[[\"flags\", [+OW, +update], \"begin_search\", [\"type\", \"index\", \"spec\", \
                    [\"index\", :1]], \"find_keys\", [\"type\", \"keynum\", \"spec\", \
                    [\"keynumidx\", :0, \"firstkey\", :1, \"keystep\", :2]]]]";
    assert_eq!(entry[8].to_string(), expected);
}

#[test]
fn command_info_of_a_container_lists_its_subcommands() {
    let mut c = connect();
    let mut subcommands = |name: &str| -> Vec<String> {
        let mut entry = c.call(&["COMMAND", "INFO", name]).into_items().remove(0).into_items();
        let subcommands = entry.remove(9).into_items().into_iter();
        subcommands.map(|sub| sub.into_items().remove(0).into_text()).collect()
    };
    let config = subcommands("config");
    assert!(config.contains(&"config|get".into()) && config.contains(&"config|set".into()));
    let client = subcommands("client");
    for name in ["id", "getname", "setname", "info", "list"] {
        assert!(client.contains(&format!("client|{name}")), "{name} in {client:?}");
    }
    assert!(subcommands("get").is_empty());
}

#[test]
fn help_is_a_subcommand_of_every_container() {
    let mut c = connect();
    for (name, category) in [
        ("acl", ""),
        ("client", ", +@connection"),
        ("command", ", +@connection"),
        ("config", ""),
        ("latency", ""),
        ("memory", ""),
        ("module", ""),
        ("pubsub", ""),
        ("slowlog", ""),
    ] {
        let info = c.reply(&format!("COMMAND INFO {name}|help")).to_string();
        let expected = format!("[+loading, +stale], :0, :0, :0, [+@slow{category}], [], [], []]");
        assert_eq!(info, format!("[[\"{name}|help\", :2, {expected}]"));
    }
    c.transcript(
        r#"
        > COMMAND INFO object|help
        [["object|help", :2, [+loading, +stale], :0, :0, :0, [+@keyspace, +@slow], [], [], []]]
        > COMMAND GETKEYS CLIENT HELP
        -ERR The command has no key arguments
        "#,
    );
    let names = c.reply("COMMAND LIST").to_string();
    assert!(names.contains("\"client|help\"") && names.contains("\"object|encoding\""), "{names}");
    let names = c.reply("COMMAND LIST FILTERBY ACLCAT connection").to_string();
    assert!(names.contains("\"client|help\"") && !names.contains("\"client\""), "{names}");
    c.reply("CLIENT HELP");
    assert!(c.text("INFO commandstats").contains("cmdstat_client|help:calls="));
}

#[test]
fn acl_categories_that_do_not_follow_from_group_or_flags_are_those_of_redis() {
    let mut c = connect();
    for (name, flags, categories) in [
        ("object", "[]", "[+@slow]"),
        ("role", "[+noscript, +loading, +stale, +fast]", "[+@admin, +@fast, +@dangerous]"),
    ] {
        let info = c.reply(&format!("COMMAND INFO {name}")).into_items().remove(0).into_items();
        assert_eq!((info[2].to_string(), info[6].to_string()), (flags.into(), categories.into()));
    }
}

#[test]
fn command_info_uses_sets_in_resp3() {
    let mut c = connect();
    c.reply("HELLO 3");
    let mut entry = c.reply("COMMAND INFO get").into_items().remove(0).into_items();
    entry.truncate(7);
    let expected = r#"["get", :2, ~[+readonly, +fast], :1, :1, :1, ~[+@read, +@string, +@fast]]"#;
    assert_eq!(Reply::Array(entry).to_string(), expected);
}

#[test]
fn command_count_is_the_number_of_commands_listed() {
    let mut c = connect();
    let count = c.integer("COMMAND COUNT");
    let all = c.reply("COMMAND").into_items();
    assert_eq!(all.len() as i64, count);
    let described = |reply: Reply| -> Vec<String> {
        let names = reply.into_items().into_iter();
        let mut names: Vec<String> = names.map(Reply::into_text).collect();
        names.sort();
        names
    };
    let mut names: Vec<String> =
        all.into_iter().map(|entry| entry.into_items().remove(0).into_text()).collect();
    names.sort();
    let listed = described(c.reply("COMMAND LIST"));
    let without_subcommands: Vec<_> = listed.into_iter().filter(|n| !n.contains('|')).collect();
    assert_eq!(without_subcommands, names);
    assert_eq!(c.reply("COMMAND INFO").into_items().len() as i64, count);
    for line in COMMANDS.trim().lines() {
        let name = line.split('"').nth(1).unwrap();
        assert!(names.iter().any(|n| n == name), "{name} is missing");
    }
}

#[test]
fn command_list_filters_by_pattern_category_and_module() {
    transcript(
        r#"
        sorted> COMMAND LIST FILTERBY PATTERN hsetn*
        ["hsetnx"]
        sorted> COMMAND LIST FILTERBY PATTERN GETD*
        ["getdel"]
        sorted> command list filterby pattern ?get
        ["hget", "mget"]
        sorted> COMMAND LIST FILTERBY PATTERN nosuch*
        []
        sorted> COMMAND LIST FILTERBY PATTERN config|[gs]et
        ["config|get", "config|set"]
        sorted> COMMAND LIST FILTERBY ACLCAT nosuch
        []
        sorted> COMMAND LIST FILTERBY MODULE nosuch
        []
        > COMMAND LIST FILTERBY
        -ERR syntax error
        > COMMAND LIST FILTERBY PATTERN
        -ERR syntax error
        > COMMAND LIST FILTERBY NOSUCH x
        -ERR syntax error
        > COMMAND LIST NOSUCH
        -ERR syntax error
        > COMMAND LIST FILTERBY PATTERN a b
        -ERR syntax error
        "#,
    );
    let mut c = connect();
    let category = |c: &mut Client, name: &str| -> Vec<String> {
        let reply = c.call(&["COMMAND", "LIST", "FILTERBY", "ACLCAT", name]);
        reply.into_items().into_iter().map(Reply::into_text).collect()
    };
    let hash = category(&mut c, "hash");
    assert!(hash.contains(&"hset".into()) && !hash.contains(&"get".into()));
    let dangerous = category(&mut c, "DANGEROUS");
    assert!(dangerous.contains(&"flushall".into()) && !dangerous.contains(&"get".into()));
}

#[test]
fn command_docs_describe_a_command() {
    let mut c = connect();
    c.expect("COMMAND DOCS nosuch", "[]");
    c.reply("HELLO 3");
    c.expect("COMMAND DOCS nosuch", "{}");
    let Reply::Map(docs) = c.reply("COMMAND DOCS GET nosuch expire config|set") else {
        panic!("not a map");
    };
    let names: Vec<String> = docs.iter().map(|(name, _)| name.to_string()).collect();
    assert_eq!(names, ["\"get\"", "\"expire\"", "\"config|set\""]);
    let field = |doc: &Reply, name: &str| -> Reply {
        let Reply::Map(fields) = doc else {
            panic!("not a map: {doc}");
        };
        let mut values = fields.iter().filter(|(key, _)| *key == Reply::Bulk(name.into()));
        values.next().unwrap_or_else(|| panic!("no {name} in {doc}")).1.clone()
    };
    for ((_, doc), (since, group)) in
        docs.iter().zip([("1.0.0", "string"), ("1.0.0", "generic"), ("2.0.0", "server")])
    {
        assert!(!field(doc, "summary").into_bytes().is_empty());
        assert!(!field(doc, "complexity").into_bytes().is_empty());
        assert_eq!(field(doc, "since").into_text(), since);
        assert_eq!(field(doc, "group").into_text(), group);
    }
    let arguments = field(&docs[1].1, "arguments").into_items();
    let named = |argument: &Reply, name: &str, kind: &str| {
        assert_eq!(field(argument, "name").into_text(), name);
        assert_eq!(field(argument, "type").into_text(), kind);
    };
    named(&arguments[0], "key", "key");
    assert_eq!(field(&arguments[0], "key_spec_index"), Reply::Integer(0));
    named(&arguments[1], "seconds", "integer");
    named(&arguments[2], "condition", "oneof");
    assert_eq!(field(&arguments[2], "flags").to_string(), "~[+optional]");
    let choices = field(&arguments[2], "arguments").into_items();
    let tokens: Vec<String> =
        choices.iter().map(|choice| field(choice, "token").into_text()).collect();
    assert_eq!(tokens, ["NX", "XX", "GT", "LT"]);
    let Reply::Map(old) = c.reply("COMMAND DOCS substr") else {
        panic!("not a map");
    };
    assert_eq!(field(&old[0].1, "doc_flags").to_string(), "~[+deprecated]");
    assert_eq!(field(&old[0].1, "deprecated_since").into_text(), "2.0.0");
    assert!(field(&old[0].1, "replaced_by").into_text().contains("GETRANGE"));
    let Reply::Map(all) = c.reply("COMMAND DOCS") else {
        panic!("not a map");
    };
    assert_eq!(all.len() as i64, c.integer("COMMAND COUNT"));
}

#[test]
fn command_getkeys_finds_the_keys() {
    transcript(
        r#"
        > COMMAND GETKEYS GET k
        ["k"]
        > COMMAND GETKEYS get k
        ["k"]
        > COMMAND GETKEYS SET k v EX 10 GET
        ["k"]
        > COMMAND GETKEYS MSET a 1 b 2 c 3
        ["a", "b", "c"]
        > COMMAND GETKEYS MGET a "" a
        ["a", "", "a"]
        > COMMAND GETKEYS DEL a b c
        ["a", "b", "c"]
        > COMMAND GETKEYS HSET h a 1 b 2
        ["h"]
        > COMMAND GETKEYS RENAME a b
        ["a", "b"]
        > COMMAND GETKEYS COPY a b DB 1 REPLACE
        ["a", "b"]
        > COMMAND GETKEYS MOVE a 1
        ["a"]
        > COMMAND GETKEYS EXPIRE a 10 NX
        ["a"]
        > COMMAND GETKEYS HSCAN h 0
        ["h"]
        > COMMAND GETKEYS GETEX k PERSIST
        ["k"]
        > COMMAND GETKEYS GET "\x00\xff"
        ["\x00\xff"]
        > COMMAND GETKEYS CONFIG GET timeout
        -ERR The command has no key arguments
        > COMMAND GETKEYS SCAN 0
        -ERR The command has no key arguments
        > COMMAND GETKEYS KEYS *
        -ERR The command has no key arguments
        > COMMAND GETKEYS ECHO hello
        -ERR The command has no key arguments
        > COMMAND GETKEYS GET a b
        -ERR Invalid number of arguments specified for command
        > COMMAND GETKEYS SET k
        -ERR Invalid number of arguments specified for command
        > COMMAND GETKEYS nosuch k
        -ERR Invalid command specified
        > COMMAND GETKEYS CONFIG NOSUCH
        -ERR Invalid command specified
        8.2> COMMAND GETKEYS GET
        -ERR Invalid number of arguments specified for command
        8.2> COMMAND GETKEYS PING
        -ERR The command has no key arguments
        8.2> COMMAND GETKEYS x
        -ERR Invalid command specified
        8.2> COMMAND GETKEYS PFMERGE a
        -ERR Invalid arguments specified for command
        > COMMAND GETKEYS
        -ERR wrong number of arguments for 'command|getkeys' command
        "#,
    );
}

#[test]
fn help_of_a_container_rejects_arguments() {
    let mut c = connect();
    for container in ["OBJECT", "MEMORY", "COMMAND", "CONFIG", "CLIENT", "PUBSUB"] {
        let name = container.to_lowercase();
        let error = format!("-ERR wrong number of arguments for '{name}|help' command");
        c.expect(&format!("{container} HELP x"), &error);
        c.expect(&format!("{container} help x y"), &error);
    }
}

// ---- Whole databases ---------------------------------------------------------------------------------

#[test]
fn flushdb_empties_one_database_and_flushall_all_of_them() {
    transcript(
        r#"
        > SET a 1
        +OK
        > SELECT 1
        +OK
        > SET b 2
        +OK
        > HSET h f v
        :1
        > DBSIZE
        :2
        > FLUSHDB
        +OK
        > DBSIZE
        :0
        > SELECT 0
        +OK
        > DBSIZE
        :1
        > FLUSHDB ASYNC
        +OK
        > DBSIZE
        :0
        > SET a 1
        +OK
        > FLUSHDB sync
        +OK
        > DBSIZE
        :0
        > SET a 1
        +OK
        > SELECT 1
        +OK
        > SET b 2
        +OK
        > FLUSHALL
        +OK
        > DBSIZE
        :0
        > SELECT 0
        +OK
        > DBSIZE
        :0
        > FLUSHALL
        +OK
        > FLUSHALL async
        +OK
        > FLUSHALL SYNC
        +OK
        > SET a 1
        +OK
        > FLUSHALL NOSUCH
        -ERR syntax error
        > FLUSHDB NOSUCH
        -ERR syntax error
        > FLUSHALL ASYNC SYNC
        -ERR syntax error
        > FLUSHDB ASYNC ASYNC
        -ERR syntax error
        > FLUSHDB ""
        -ERR syntax error
        > GET a
        "1"
        "#,
    );
}

#[test]
fn swapdb_swaps_two_databases_for_every_client() {
    transcript(
        r#"
        > SET k zero EX 100
        +OK
        > SELECT 1
        +OK
        > SET k one
        +OK
        > SET more one
        +OK
        other> SELECT 1
        +OK
        > SWAPDB 0 1
        +OK
        > GET k
        "zero"
        > TTL k
        :100
        > EXISTS more
        :0
        other> GET k
        "zero"
        > SELECT 0
        +OK
        > GET k
        "one"
        > DBSIZE
        :2
        > SWAPDB 1 0
        +OK
        > GET k
        "zero"
        > SWAPDB 0 0
        +OK
        > GET k
        "zero"
        > SWAPDB 0 9
        +OK
        > DBSIZE
        :0
        "#,
    );
}

#[test]
fn swapdb_rejects_bad_databases() {
    transcript(
        r#"
        > SWAPDB a 1
        -ERR invalid first DB index
        > SWAPDB 1 b
        -ERR invalid second DB index
        > SWAPDB a b
        -ERR invalid first DB index
        > SWAPDB 1.5 0
        -ERR invalid first DB index
        > SWAPDB 0 99999999999999
        -ERR invalid second DB index
        > SWAPDB 99999999999999999999 0
        -ERR invalid first DB index
        > SWAPDB 0 16
        -ERR DB index is out of range
        > SWAPDB -1 0
        -ERR DB index is out of range
        > SWAPDB 16 a
        -ERR invalid second DB index
        "#,
    );
}

#[test]
fn shutdown_checks_its_arguments() {
    transcript(
        r#"
        > SHUTDOWN NOSUCH
        -ERR syntax error
        > SHUTDOWN SAVE NOSAVE
        -ERR syntax error
        > SHUTDOWN NOSAVE NOSUCH
        -ERR syntax error
        > SHUTDOWN ABORT NOSAVE
        -ERR syntax error
        > SHUTDOWN ABORT
        -ERR No shutdown in progress.
        "#,
    );
}

/// The value of a section of what `COMMAND DOCS` tells about a command.
fn docs_section(c: &mut Client, command: &str, section: &str) -> String {
    let entry = c.reply(&format!("COMMAND DOCS {command}")).into_items().remove(1).into_items();
    let at = entry.iter().position(|item| item.to_string() == quote(section.as_bytes()));
    at.map_or("nothing".into(), |at| entry[at + 1].to_string())
}

#[test]
fn command_docs_describes_arguments_as_clients_that_generate_code_expect() {
    let mut c = connect();
    if !c.redis_at_least("8.2") {
        return;
    }
    let key = r#"["name", "key", "type", "key", "display_text", "key", "key_spec_index", :0]"#;
    let fields = r#"["name", "fields", "type", "block", "token", "FIELDS", "arguments", [["name", "numfields", "type", "integer", "display_text", "numfields"], ["name", "field", "type", "string", "display_text", "field", "flags", [+multiple]]]]"#;
    let increment =
        |kind| format!(r#"["name", "increment", "type", "{kind}", "display_text", "increment"]"#);
    let condition = r#"["name", "condition", "type", "oneof", "since", "7.0.0", "flags", [+optional], "arguments", [["name", "nx", "type", "pure-token", "display_text", "nx", "token", "NX"], ["name", "xx", "type", "pure-token", "display_text", "xx", "token", "XX"], ["name", "gt", "type", "pure-token", "display_text", "gt", "token", "GT"], ["name", "lt", "type", "pure-token", "display_text", "lt", "token", "LT"]]]"#;
    let seconds = r#"["name", "seconds", "type", "integer", "display_text", "seconds"]"#;
    let gets = r#"["name", "get-block", "type", "block", "token", "GET", "flags", [+optional, +multiple, +multiple_token], "arguments", [["name", "encoding", "type", "string", "display_text", "encoding"], ["name", "offset", "type", "integer", "display_text", "offset"]]]"#;
    for (command, arguments) in [
        ("HGETDEL", format!("[{key}, {fields}]")),
        ("INCRBY", format!("[{key}, {}]", increment("integer"))),
        ("INCRBYFLOAT", format!("[{key}, {}]", increment("double"))),
        ("EXPIRE", format!("[{key}, {seconds}, {condition}]")),
        ("BITFIELD_RO", format!("[{key}, {gets}]")),
        ("QUIT", "nothing".into()),
        ("DEBUG", "nothing".into()),
    ] {
        assert_eq!(docs_section(&mut c, command, "arguments"), arguments, "{command}");
    }
    for (command, section, value) in [
        ("WAITAOF", "group", r#""generic""#),
        ("PFDEBUG", "doc_flags", "[+syscmd]"),
        ("SETEX", "doc_flags", "[+deprecated]"),
        ("SETEX", "replaced_by", r#""`SET` with the `EX` argument""#),
        ("GET", "history", "nothing"),
    ] {
        assert_eq!(docs_section(&mut c, command, section), value, "{command}");
    }
    assert!(docs_section(&mut c, "TTL", "history").starts_with(r#"[["2.8.0", "#));
}

#[test]
fn command_info_has_the_flags_and_tips_of_redis_8() {
    let mut c = connect();
    if !c.redis_at_least("8.2") {
        return;
    }
    for (command, flags, tips) in [
        ("WAIT", "[+blocking]", r#"["request_policy:all_shards", "response_policy:agg_min"]"#),
        ("WAITAOF", "[+blocking]", r#"["request_policy:all_shards", "response_policy:agg_min"]"#),
        ("MSETNX", "[+write, +denyoom]", "[]"),
        (
            "LATENCY|RESET",
            "[+admin, +noscript, +loading, +stale]",
            r#"["request_policy:all_nodes", "response_policy:agg_sum"]"#,
        ),
        (
            "RANDOMKEY",
            "[+readonly]",
            r#"["request_policy:all_shards", "response_policy:special", "nondeterministic_output"]"#,
        ),
        (
            "SCAN",
            "[+readonly]",
            r#"["nondeterministic_output", "request_policy:special", "response_policy:special"]"#,
        ),
    ] {
        let info = c.reply(&format!("COMMAND INFO {command}")).into_items().remove(0).into_items();
        assert_eq!(info[2].to_string(), flags, "{command}");
        assert_eq!(info[7].to_string(), tips, "{command}");
    }
}
