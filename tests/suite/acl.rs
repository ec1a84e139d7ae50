//! Users: the rules that say what they may do, what follows from these, and the connections that end.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{
    Client, Reply, Server, TempDir, connect, eventually, skipped_on_redis, transcript,
};

const WRONG_PASSWORD: &str = "-WRONGPASS invalid username-password pair or user is disabled.";
/// The SHA-256 digest of "abc", from the examples of the standard.
const DIGEST: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

/// A connection of a user that is made by these rules and has no password.
fn user(c: &mut Client, name: &str, rules: &str) -> Client {
    c.expect(&format!("ACL SETUSER {name} reset on nopass {rules}"), "+OK");
    let mut other = c.another();
    other.expect(&format!("AUTH {name} any"), "+OK");
    other
}

/// What `ACL GETUSER` shows of a user, by the names of the fields.
fn described(c: &mut Client, name: &str) -> BTreeMap<String, Reply> {
    let fields = c.reply(&format!("ACL GETUSER {name}")).into_items();
    fields.chunks_exact(2).map(|pair| (pair[0].clone().into_text(), pair[1].clone())).collect()
}

// ---- Rules -------------------------------------------------------------------------------------------

#[test]
fn the_default_user_may_do_everything() {
    let mut c = connect();
    c.transcript(
        r#"
        > ACL WHOAMI
        "default"
        > ACL USERS
        ["default"]
        > ACL GETUSER nobody
        nil
        > ACL DRYRUN default GET k
        +OK
        > ACL DRYRUN default CONFIG GET k
        +OK
        > ACL DRYRUN nobody GET k
        -ERR User 'nobody' not found
        > ACL DRYRUN default NOSUCH k
        -ERR Command 'NOSUCH' not found
        > ACL DRYRUN default GET
        -ERR wrong number of arguments for 'get' command
        > ACL
        -ERR wrong number of arguments for 'acl' command
        7.2> ACL LIST
        ["user default on nopass sanitize-payload ~* &* +@all"]
        "#,
    );
    c.expect("CONFIG SET requirepass abc", "+OK");
    let list = c.reply("ACL LIST").to_string();
    assert!(list.contains("user default on ") && list.ends_with(" ~* &* +@all\"]"), "{list}");
    assert!(list.contains(&format!("#{DIGEST}")) && !list.contains("nopass"), "{list}");
    c.reply("HELLO 3");
    let Reply::Map(user) = c.reply("ACL GETUSER default") else { panic!("no map") };
    let user: BTreeMap<String, String> =
        user.into_iter().map(|(name, value)| (name.into_text(), value.to_string())).collect();
    assert!(user["flags"].contains("\"on\"") && !user["flags"].contains("nopass"), "{user:?}");
    assert_eq!(user["passwords"], format!("[\"{DIGEST}\"]"));
    assert_eq!(user["commands"], "\"+@all\"");
    assert_eq!((user["keys"].as_str(), user["channels"].as_str()), ("\"~*\"", "\"&*\""));
    assert_eq!(user["selectors"], "[]");
    c.expect("CONFIG SET requirepass \"\"", "+OK");
    assert!(c.reply("ACL GETUSER default").to_string().contains("nopass"));
}

#[test]
fn rules_are_shown_so_that_they_make_the_same_user() {
    let mut c = connect();
    // The rules; what is shown of commands, keys and channels.
    let cases = [
        ("", "-@all", "", ""),
        ("+get", "-@all +get", "", ""),
        ("+GET +Config|GET", "-@all +get +config|get", "", ""),
        ("+@all -get +get", "+@all +get", "", ""),
        ("-@all +get -get", "-@all -get", "", ""),
        ("allcommands -@Dangerous", "+@all -@dangerous", "", ""),
        ("+get nocommands", "-@all", "", ""),
        ("+config|get +config", "-@all +config", "", ""),
        ("+config -config|get", "-@all +config -config|get", "", ""),
        ("+config|get +config|set -config|get", "-@all +config|set -config|get", "", ""),
        ("+get +@read +get", "-@all +@read +get", "", ""),
        ("+@read +get -@read", "-@all +get -@read", "", ""),
        ("+SELECT|A +select|b", "-@all +select|a +select|b", "", ""),
        ("+select|a +select", "-@all +select", "", ""),
        ("+select +select|a", "-@all +select +select|a", "", ""),
        ("+debug|sleep", "-@all +debug|sleep", "", ""),
        ("+@set +@scripting", "-@all +@set +@scripting", "", ""),
        ("~a ~b* ~a", "-@all", "~a ~b*", ""),
        ("%R~a %W~b %RW~c %r~d %wr~e", "-@all", "%R~a %W~b ~c %R~d ~e", ""),
        ("%R~a %W~a", "-@all", "~a", ""),
        ("%R", "-@all", "%R~", ""),
        ("~a %R~a ~", "-@all", "~a ~", ""),
        ("~a allkeys", "-@all", "~*", ""),
        ("~a resetkeys %R~*", "-@all", "%R~*", ""),
        ("&a &b* &a", "-@all", "", "&a &b*"),
        ("&a &*", "-@all", "", "&*"),
        ("&a resetchannels &b", "-@all", "", "&b"),
        ("allchannels", "-@all", "", "&*"),
        ("~\"a\" &\\xff~", "-@all", "~\"a\"", "&\\xff~"),
    ];
    for (rules, commands, keys, channels) in cases {
        c.expect(&format!("ACL SETUSER u reset resetchannels {rules}"), "+OK");
        let found = described(&mut c, "u");
        let shown = ["commands", "keys", "channels"].map(|name| found[name].clone().into_text());
        assert_eq!(shown, [commands, keys, channels], "{rules}");
        // The description makes the same user.
        let lines = c.reply("ACL LIST").into_items().into_iter().map(Reply::into_bytes);
        let own = lines.filter(|line| line.starts_with(b"user u ")).collect::<Vec<_>>().concat();
        let mut words =
            vec![b"ACL".to_vec(), b"SETUSER".to_vec(), b"v".to_vec(), b"reset".to_vec()];
        words.extend(own.split(|byte| *byte == b' ').skip(2).map(<[u8]>::to_vec));
        assert_eq!(c.call(&words).to_string(), "+OK");
        assert_eq!(described(&mut c, "v"), found, "{rules}");
    }
}

#[test]
fn flags_passwords_and_selectors_are_shown() {
    let mut c = connect();
    for (rules, flags, passwords) in [
        ("", "off sanitize-payload", ""),
        ("ON skip-sanitize-payload", "on skip-sanitize-payload", ""),
        ("on off skip-sanitize-payload sanitize-payload", "off sanitize-payload", ""),
        ("nopass", "off nopass sanitize-payload", ""),
        (">abc", "off sanitize-payload", DIGEST),
        (&format!("nopass #{DIGEST} >abc"), "off sanitize-payload", DIGEST),
        (">abc >x <x", "off sanitize-payload", DIGEST),
        (&format!(">abc !{DIGEST}"), "off sanitize-payload", ""),
        (">abc nopass", "off nopass sanitize-payload", ""),
        (">abc resetpass", "off sanitize-payload", ""),
        ("on >abc +get ~* (+set) RESET", "off sanitize-payload", ""),
    ] {
        c.expect("ACL SETUSER u reset", "+OK");
        c.expect(&format!("ACL SETUSER u {rules}"), "+OK");
        let found = described(&mut c, "u");
        let words = |name: &str| {
            let words = found[name].clone().into_items().into_iter().map(Reply::into_text);
            words.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            (words("flags"), words("passwords")),
            (flags.into(), passwords.into()),
            "{rules}"
        );
    }
    c.transcript(
        r##"
        > ACL SETUSER u reset resetchannels ~* (+get ~a) "(+set" "%R~b" "&c)" "( )" "(+@all\t-get\nallkeys)"
        +OK
        7.2> ACL LIST
        ["user default on nopass sanitize-payload ~* &* +@all", "user u off sanitize-payload ~* resetchannels -@all (~a resetchannels -@all +get) (%R~b resetchannels &c -@all +set) (resetchannels -@all) (~* resetchannels +@all -get)"]
        > ACL SETUSER u clearselectors
        +OK
        7.2> ACL LIST
        ["user default on nopass sanitize-payload ~* &* +@all", "user u off sanitize-payload ~* resetchannels -@all"]
        > ACL SETUSER u reset (~a)
        +OK
        "##,
    );
    c.reply("HELLO 3");
    c.transcript(
        r##"
        > ACL GETUSER u
        {"flags": ~["off", "sanitize-payload"], "passwords": [], "commands": "-@all", "keys": "", "channels": "", "selectors": [{"commands": "-@all", "keys": "~a", "channels": ""}]}
        "##,
    );
}

#[test]
fn a_wrong_rule_is_named_and_none_of_the_rules_is_applied() {
    let mut c = connect();
    c.expect("ACL SETUSER u resetchannels +get ~a", "+OK");
    let before = described(&mut c, "u");
    let unknown = "Unknown command or category name in ACL";
    let hash = "The password hash must be exactly 64 characters and contain only lowercase hexadecimal \
                characters";
    let missing = "The password you are trying to remove from the user does not exist";
    let keys = "Adding a pattern after the * pattern (or the 'allkeys' flag) is not valid and does not have \
                any effect. Try 'resetkeys' to start with an empty list of patterns";
    let channels = "Adding a pattern after the * pattern (or the 'allchannels' flag) is not valid and does \
                    not have any effect. Try 'resetchannels' to start with an empty list of channels";
    for (rule, why) in [
        ("xyz", "Syntax error"),
        (" on", "Syntax error"),
        ("a b", "Syntax error"),
        ("~a b", "Syntax error"),
        ("&a b", "Syntax error"),
        ("%", "Syntax error"),
        ("%~a", "Syntax error"),
        ("%X~a", "Syntax error"),
        ("%RRW~a", "Syntax error"),
        ("+foo", unknown),
        ("+", unknown),
        ("-", unknown),
        ("+@", unknown),
        ("+@foo", unknown),
        ("+get ", unknown),
        ("+get)", unknown),
        ("-select|0", unknown),
        ("+config|foo", unknown),
        ("+foo|bar", unknown),
        ("+get|k|l", unknown),
        ("+select|", "Syntax error"),
        ("+config|", "Syntax error"),
        ("+client|getname|x", "Allowing first-arg of a subcommand is not supported"),
        ("#abc", hash),
        ("!abc", hash),
        (&format!("#{}", DIGEST.to_uppercase()), hash),
        ("<abc", missing),
        (&format!("!{DIGEST}"), missing),
        ("(on)", "Syntax error"),
        ("(>x)", "Syntax error"),
        ("(+foo)", unknown),
        ("((+get))", "Syntax error"),
        ("(~* ~x)", keys),
        ("(&* &x)", channels),
    ] {
        let reply = c.call(&["ACL", "SETUSER", "u", "on", ">new", "+set", "(~b)", rule, "%R~c"]);
        assert_eq!(
            reply.to_string(),
            format!("-ERR Error in ACL SETUSER modifier '{rule}': {why}")
        );
        assert_eq!(described(&mut c, "u"), before, "{rule}");
    }
    for (rules, rule, why) in [("allkeys ~x", "~x", keys), ("&* &x", "&x", channels)] {
        let expected = format!("-ERR Error in ACL SETUSER modifier '{rule}': {why}");
        c.expect(&format!("ACL SETUSER u {rules}"), &expected);
    }
    c.transcript(
        r#"
        > ACL SETUSER u "(+get ~x"
        -ERR Unmatched parenthesis in acl selector starting at '(+get ~x'.
        > ACL SETUSER u on (+get ~x
        -ERR Unmatched parenthesis in acl selector starting at '(+get'.
        > ACL SETUSER "a b"
        -ERR Usernames can't contain spaces or null characters
        > ACL SETUSER "a\x00b"
        -ERR Usernames can't contain spaces or null characters
        > ACL SETUSER new +foo
        -ERR Error in ACL SETUSER modifier '+foo': Unknown command or category name in ACL
        > ACL USERS
        ["default", "u"]
        > ACL SETUSER
        -ERR wrong number of arguments for 'acl|setuser' command
        > ACL SETUSER "" ""
        +OK
        > ACL USERS
        ["", "default", "u"]
        > ACL DELUSER nosuch "" u
        :2
        > ACL DELUSER u default
        -ERR The 'default' user cannot be removed
        > ACL USERS
        ["default"]
        > ACL DELUSER
        -ERR wrong number of arguments for 'acl|deluser' command
        redis> ACL LOAD
        -ERR This Redis instance is not configured to use an ACL file. You may want to specify users via the ACL SETUSER command and then issue a CONFIG REWRITE (assuming you have a Redis configuration file set) in order to store users in the Redis configuration.
        redis> ACL SAVE
        -ERR This Redis instance is not configured to use an ACL file. You may want to specify users via the ACL SETUSER command and then issue a CONFIG REWRITE (assuming you have a Redis configuration file set) in order to store users in the Redis configuration.
        "#,
    );
    assert_eq!(described(&mut c, "default")["commands"].to_string(), "\"+@all\"");
}

#[test]
fn a_new_user_may_use_the_channels_of_acl_pubsub_default() {
    transcript(
        r#"
        > CONFIG SET acl-pubsub-default allchannels
        +OK
        > ACL SETUSER u on nopass +publish (+subscribe)
        +OK
        > ACL DRYRUN u PUBLISH c m
        +OK
        > ACL DRYRUN u SUBSCRIBE c
        +OK
        > CONFIG SET acl-pubsub-default resetchannels
        +OK
        > ACL DRYRUN u PUBLISH c m
        +OK
        > ACL SETUSER u reset +publish
        +OK
        > ACL DRYRUN u PUBLISH c m
        "User u has no permissions to access the 'c' channel"
        > CONFIG SET acl-pubsub-default x
        -ERR CONFIG SET failed (possibly related to argument 'acl-pubsub-default') - argument(s) must be one of the following: allchannels, resetchannels
        "#,
    );
}

// ---- What a user may do ------------------------------------------------------------------------------

#[test]
fn a_command_needs_a_right_to_itself_and_to_its_keys_and_channels() {
    let mut c = connect();
    let mut u = user(&mut c, "u", "resetchannels +@all -config|get ~a* %R~r %W~w &c*");
    u.transcript(
        r#"
        > ACL WHOAMI
        "u"
        > SET a1 1
        +OK
        > CONFIG GET port
        -NOPERM User u has no permissions to run the 'config|get' command
        > CONFIG SET maxclients 0
        -ERR CONFIG SET failed (possibly related to argument 'maxclients') - argument must be between 1 and 4294967295 inclusive
        > GET b
        -NOPERM No permissions to access a key
        > MGET a1 b a2
        -NOPERM No permissions to access a key
        > MSET a1 1 b 2
        -NOPERM No permissions to access a key
        > GET a1
        "1"
        // A key may be read, or written, or neither of both is needed.
        > GET r
        nil
        > SET r 1
        -NOPERM No permissions to access a key
        > GETDEL r
        -NOPERM No permissions to access a key
        > SET w 1
        +OK
        > GET w
        -NOPERM No permissions to access a key
        > SET w 2 GET
        -NOPERM No permissions to access a key
        > SET w 2 NX
        nil
        > APPEND w x
        :2
        > STRLEN w
        :2
        > EXISTS r w
        :1
        > TYPE w
        +string
        > EXISTS b
        -NOPERM No permissions to access a key
        > COPY r w
        :0
        > COPY w r
        -NOPERM No permissions to access a key
        > BITFIELD r GET u8 0
        [:0]
        > BITFIELD r OVERFLOW SAT GET u8 0
        [:0]
        > BITFIELD r SET u8 0 1
        -NOPERM No permissions to access a key
        > BITFIELD r GET u8
        -NOPERM No permissions to access a key
        > INCR w
        -NOPERM No permissions to access a key
        > DEL w
        :1
        > OBJECT ENCODING b
        -NOPERM No permissions to access a key
        > PUBLISH c1 m
        :0
        > PUBLISH d m
        -NOPERM No permissions to access a channel
        > SPUBLISH d m
        -NOPERM No permissions to access a channel
        > SUBSCRIBE c1 d
        -NOPERM No permissions to access a channel
        > PSUBSCRIBE c1
        -NOPERM No permissions to access a channel
        > PUBSUB NUMSUB d
        ["d", :0]
        > UNSUBSCRIBE d
        ["unsubscribe", "d", :0]
        // What is wrong with the call itself comes first.
        > GET
        -ERR wrong number of arguments for 'get' command
        > CONFIG NOSUCH
        -ERR unknown subcommand 'NOSUCH'. Try CONFIG HELP.
        > ACL SETUSER u -@all +get
        +OK
        > PING
        -NOPERM User u has no permissions to run the 'ping' command
        // Everybody may log in.
        > HELLO 2 AUTH nobody x
        -WRONGPASS invalid username-password pair or user is disabled.
        > RESET
        +RESET
        > ACL WHOAMI
        "default"
        "#,
    );
}

#[test]
fn a_pattern_may_be_subscribed_to_only_if_it_is_granted_itself() {
    let mut c = connect();
    let mut u = user(&mut c, "u", "resetchannels +@all &c* &d");
    u.reply("HELLO 3");
    u.transcript(
        r#"
        > PSUBSCRIBE c
        -NOPERM No permissions to access a channel
        > PSUBSCRIBE c* d
        >["psubscribe", "c*", :1]
        "#,
    );
    assert_eq!(u.read_reply().to_string(), r#">["psubscribe", "d", :2]"#);
}

#[test]
fn one_selector_must_grant_all_of_a_command() {
    let mut c = connect();
    let mut u = user(
        &mut c,
        "u",
        "resetchannels +get +mget ~a (+set ~b) (+mget ~a ~c) (+publish &x) (allkeys +del|k1)",
    );
    u.transcript(
        r#"
        > GET a
        nil
        > SET b 1
        +OK
        > GET b
        -NOPERM No permissions to access a key
        > SET a 1
        -NOPERM No permissions to access a key
        > MGET a c
        [nil, nil]
        > MGET a b
        -NOPERM No permissions to access a key
        > PUBLISH x m
        :0
        > PUBLISH y m
        -NOPERM No permissions to access a channel
        > DEL K1 other
        :0
        > DEL k2
        -NOPERM User u has no permissions to run the 'del' command
        > DEL
        -ERR wrong number of arguments for 'del' command
        "#,
    );
    // The selector that goes furthest tells what is missing.
    c.transcript(
        r#"
        > ACL DRYRUN u MGET a c d
        "User u has no permissions to access the 'd' key"
        > ACL DRYRUN u MGET a b
        "User u has no permissions to access the 'b' key"
        > ACL DRYRUN u DEL k2
        "User u has no permissions to run the 'del' command"
        "#,
    );
}

#[test]
fn categories_and_containers_include_subcommands() {
    let mut c = connect();
    c.transcript(
        r#"
        > ACL SETUSER u +@connection -client|kill
        +OK
        > ACL DRYRUN u CLIENT ID
        +OK
        > ACL DRYRUN u PING
        +OK
        > ACL DRYRUN u CLIENT KILL x
        "User u has no permissions to run the 'client|kill' command"
        > ACL DRYRUN u GET k
        "User u has no permissions to run the 'get' command"
        > ACL SETUSER u reset +@all -client +client|id
        +OK
        > ACL DRYRUN u CLIENT ID
        +OK
        > ACL DRYRUN u CLIENT INFO
        "User u has no permissions to run the 'client|info' command"
        > ACL SETUSER u reset +select|0
        +OK
        > ACL DRYRUN u SELECT 0
        +OK
        > ACL DRYRUN u SELECT 1
        "User u has no permissions to run the 'select' command"
        > ACL SETUSER u -@connection
        +OK
        > ACL DRYRUN u SELECT 0
        "User u has no permissions to run the 'select' command"
        > ACL SETUSER u +@slow
        +OK
        > ACL DRYRUN u CONFIG GET x
        +OK
        > ACL DRYRUN u AUTH x
        +OK
        > ACL DRYRUN u CONFIG|GET x
        -ERR Command 'CONFIG|GET' not found
        > ACL DRYRUN u CONFIG NOSUCH
        -ERR Command 'CONFIG' not found
        > ACL DRYRUN u CONFIG
        -ERR wrong number of arguments for 'config' command
        "#,
    );
}

#[test]
fn rights_change_for_clients_that_are_logged_in() {
    let mut c = connect();
    let mut u = user(&mut c, "u", "+get +acl|whoami ~*");
    u.expect("GET k", "nil");
    c.expect("ACL SETUSER u -get", "+OK");
    u.expect("GET k", "-NOPERM User u has no permissions to run the 'get' command");
    c.expect("ACL SETUSER u +@all", "+OK");
    u.expect("GET k", "nil");
    // A disabled user stays logged in, but nobody logs in as it any more.
    c.expect("ACL SETUSER u off", "+OK");
    u.expect("ACL WHOAMI", "\"u\"");
    c.another().expect("AUTH u any", WRONG_PASSWORD);
    // Its own rights, too.
    u.expect("ACL SETUSER u -acl|whoami", "+OK");
    u.expect("ACL WHOAMI", "-NOPERM User u has no permissions to run the 'acl|whoami' command");
}

// ---- Logging in --------------------------------------------------------------------------------------

#[test]
fn any_password_of_an_enabled_user_logs_in() {
    let mut c = connect();
    c.expect("ACL SETUSER u >one >two +@all", "+OK");
    c.transcript(&format!(
        r##"
        u> AUTH u one
        {WRONG_PASSWORD}
        > ACL SETUSER u on
        +OK
        u> AUTH u three
        {WRONG_PASSWORD}
        u> AUTH u two
        +OK
        u> ACL WHOAMI
        "u"
        u> AUTH U two
        {WRONG_PASSWORD}
        u> ACL WHOAMI
        "u"
        > ACL SETUSER u <two #{DIGEST}
        +OK
        u> AUTH u two
        {WRONG_PASSWORD}
        u> AUTH u abc
        +OK
        u> AUTH default any
        +OK
        u> ACL WHOAMI
        "default"
        "##
    ));
}

#[test]
fn a_default_user_that_is_off_or_has_a_password_lets_nobody_in() {
    let mut c = connect();
    c.transcript(&format!(
        r#"
        early> PING
        +PONG
        > ACL SETUSER default off
        +OK
        early> PING
        +PONG
        late> PING
        -NOAUTH Authentication required.
        late> AUTH any
        -ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?
        late> AUTH default any
        {WRONG_PASSWORD}
        > ACL SETUSER default on
        +OK
        late> PING
        +PONG
        > ACL SETUSER default >p
        +OK
        late> PING
        -NOAUTH Authentication required.
        late> AUTH p
        +OK
        late> RESET
        +RESET
        late> ACL WHOAMI
        -NOAUTH Authentication required.
        > ACL SETUSER default nopass
        +OK
        late> ACL WHOAMI
        "default"
        "#
    ));
}

#[test]
fn requirepass_is_the_password_of_the_default_user() {
    transcript(
        r#"
        > CONFIG SET requirepass one
        +OK
        > ACL SETUSER default >two
        +OK
        other> AUTH two
        +OK
        > CONFIG SET requirepass three
        +OK
        other> AUTH two
        -WRONGPASS invalid username-password pair or user is disabled.
        other> AUTH three
        +OK
        // The setting shows what it was set to.
        > ACL SETUSER default nopass
        +OK
        > CONFIG GET requirepass
        ["requirepass", "three"]
        > CONFIG SET requirepass ""
        +OK
        "#,
    );
}

/// Without the delay, a pipeline tries tens of thousands of passwords in a second.
#[test]
fn a_failed_login_delays_the_connection_and_no_other() {
    if skipped_on_redis() {
        return;
    }
    let mut c = connect();
    c.expect("ACL SETUSER u on >right +ping", "+OK");
    let mut other = c.another();
    let started = Instant::now();
    other.send_raw("AUTH u wrong\r\n".repeat(5));
    c.expect("PING", "+PONG");
    assert!(started.elapsed() < Duration::from_millis(400), "it waits for the other connection");
    for _ in 0..5 {
        assert_eq!(other.read_reply().to_string(), WRONG_PASSWORD);
    }
    assert!(started.elapsed() >= Duration::from_millis(500));
    // A connection that waits can be ended.
    let id = other.integer("CLIENT ID");
    other.send_raw("AUTH u wrong\r\n".repeat(1000));
    c.expect(&format!("CLIENT KILL ID {id}"), ":1");
    eventually("it is gone", || c.text("CLIENT LIST").lines().count() == 1);
}

// ---- The end of connections --------------------------------------------------------------------------

#[test]
fn the_connections_of_a_deleted_user_end() {
    let mut c = connect();
    let mut u = user(&mut c, "u", "+@all ~* &*");
    let mut subscriber = c.another();
    subscriber.expect("AUTH u x", "+OK");
    subscriber.expect("SUBSCRIBE c", r#"["subscribe", "c", :1]"#);
    let mut other = user(&mut c, "v", "+@all");
    c.expect("ACL DELUSER u", ":1");
    u.expect_closed();
    subscriber.expect_closed();
    other.expect("PING", "+PONG");
    // A new user of the same name has nothing to do with the old one.
    let mut u = user(&mut c, "u", "+@all");
    u.send_raw("PING\r\nACL DELUSER u\r\nPING\r\n");
    u.expect_bytes("+PONG\r\n:1\r\n");
    u.expect_closed();
    c.expect("ACL USERS", r#"["default", "v"]"#);
}

#[test]
fn a_subscriber_that_may_not_hear_its_channels_any_more_is_disconnected() {
    let mut c = connect();
    let mut listening = |rules: &str, command: &str| {
        let mut u = user(&mut c, "u", &format!("resetchannels +@all {rules}"));
        u.reply(command);
        u
    };
    let mut channel = listening("&*", "SUBSCRIBE x");
    let mut pattern = listening("&*", "PSUBSCRIBE x*");
    let mut shard = listening("&*", "SSUBSCRIBE x");
    let mut idle = listening("&*", "PING");
    c.expect("ACL SETUSER u resetchannels &x*", "+OK");
    for c in [&mut channel, &mut pattern, &mut shard] {
        let prefix = c.reply("PING").to_string();
        assert_eq!(prefix, r#"["pong", ""]"#);
    }
    // As in Redis, a pattern must be granted itself.
    c.expect("ACL SETUSER u resetchannels &x**", "+OK");
    pattern.expect_closed();
    c.expect("ACL SETUSER u (+@all &x)", "+OK");
    c.expect("ACL SETUSER u resetchannels", "+OK");
    channel.expect("PING", r#"["pong", ""]"#);
    c.expect("ACL SETUSER u clearselectors", "+OK");
    channel.expect_closed();
    shard.expect_closed();
    idle.expect("PING", "+PONG");
    // The client's own connection ends after the reply. (It ends Redis 7.0 itself.)
    if !c.redis_at_least("7.2+valkey") {
        return;
    }
    c.expect("ACL SETUSER u &*", "+OK");
    idle.reply("HELLO 3");
    idle.expect("SUBSCRIBE x", r#">["subscribe", "x", :1]"#);
    idle.expect("ACL SETUSER u resetchannels", "+OK");
    idle.expect_closed();
}

#[test]
fn no_subscription_outlives_the_right_to_it() {
    if skipped_on_redis() {
        return;
    }
    let mut c = connect();
    for round in 0..100 {
        let name = format!("u{round}");
        let mut subscriber = user(&mut c, &name, "resetchannels +@all &*");
        let subscribes = thread::spawn(move || {
            subscriber.send_raw("SUBSCRIBE news\r\n");
            subscriber
        });
        c.expect(&format!("ACL SETUSER {name} resetchannels"), "+OK");
        let mut subscriber = subscribes.join().expect("it subscribes");
        // Either it was refused, or it is disconnected.
        let first = subscriber.read_reply();
        assert!(
            first == Reply::Closed
                || first.to_string().contains("news")
                || first.to_string().contains("NOPERM")
        );
        if !first.to_string().contains("NOPERM") {
            assert_eq!(subscriber.read_reply(), Reply::Closed);
        }
        c.expect("PUBSUB NUMSUB news", "[\"news\", :0]");
    }
}

// ---- Transactions ------------------------------------------------------------------------------------

#[test]
fn a_transaction_with_a_command_that_is_denied_is_aborted() {
    let mut c = connect();
    let mut u = user(&mut c, "u", "+@all -config ~a");
    u.transcript(
        r#"
        > MULTI
        +OK
        > SET b 1
        -NOPERM No permissions to access a key
        > SET a 1
        +QUEUED
        > EXEC
        -EXECABORT Transaction discarded because of previous errors.
        > MULTI
        +OK
        > ACL SETUSER u -exec
        +QUEUED
        > EXEC
        [+OK]
        > MULTI
        +OK
        > EXEC
        -EXECABORT Transaction discarded because of: NOPERM User u has no permissions to run the 'exec'
        command
        > GET a
        nil
        "#,
    );
}

#[test]
fn a_queued_command_runs_only_if_it_is_still_allowed() {
    let mut c = connect();
    let mut u = user(&mut c, "u", "+@all ~* &*");
    u.transcript(
        r#"
        > MULTI
        +OK
        > SET a 1
        +QUEUED
        > PUBLISH c m
        +QUEUED
        > GET b
        +QUEUED
        > GET a
        +QUEUED
        "#,
    );
    c.expect("ACL SETUSER u resetkeys ~a resetchannels -set", "+OK");
    let changed = "-NOPERM ACLs rules changed between the moment the transaction was accumulated and the \
                   EXEC call. This command is no longer allowed for the following reason: ";
    let command = "no permission to execute the command or subcommand";
    let key = "no permission to touch the specified keys";
    let channel = "no permission to access one of the channels used as arguments";
    let replies = format!("{changed}{command}, {changed}{channel}");
    let own = u.reply("EXEC").to_string();
    assert_eq!(own.replace(" to the command", ""), format!("[{replies}, {changed}{key}, nil]"));
    // A transaction may take a right from itself, and delete its own user.
    let mut u = user(&mut c, "u", "+@all ~* &*");
    u.transcript(&format!(
        "> MULTI\n+OK\n> SET a 1\n+QUEUED\n> ACL SETUSER u -set\n+QUEUED\n> SET a 2\n+QUEUED\n\
         > EXEC\n[+OK, +OK, {changed}{command}]"
    ));
    let mut u = user(&mut c, "u", "+@all ~* &*");
    u.transcript("> MULTI\n+OK\n> ACL DELUSER u\n+QUEUED\n> SET a 3\n+QUEUED\n");
    u.send_raw("EXEC\r\nPING\r\n");
    u.expect_bytes("*2\r\n:1\r\n");
    u.expect_closed();
    c.expect("GET a", "\"3\"");
}

// ---- Reports -----------------------------------------------------------------------------------------

#[test]
fn client_list_and_client_kill_know_the_user() {
    let mut c = connect();
    let mut u = user(&mut c, "u", "+@all");
    let info = u.text("CLIENT INFO");
    assert!(info.contains(" user=u "), "{info}");
    let mut v = user(&mut c, "v", "+@all");
    c.expect("CLIENT KILL USER nobody", "-ERR No such user 'nobody'");
    c.expect("CLIENT KILL USER u", ":1");
    u.expect_closed();
    v.expect("PING", "+PONG");
    v.expect("RESET", "+RESET");
    assert!(v.text("CLIENT INFO").contains(" user=default "));
}

#[test]
fn users_and_passwords_do_not_show_in_the_slow_log() {
    let mut c = connect();
    c.expect("CONFIG SET slowlog-log-slower-than 0", "+OK");
    c.expect("ACL SETUSER ann on >p4ss #ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", "+OK");
    c.reply("ACL GETUSER ann");
    c.expect("AUTH ann wr0ng", WRONG_PASSWORD);
    c.expect("HELLO 2 AUTH ann wr0ng", WRONG_PASSWORD);
    c.expect("ACL DELUSER ann", ":1");
    c.expect("CONFIG SET slowlog-log-slower-than -1", "+OK");
    let slow = c.reply("SLOWLOG GET -1").to_string();
    assert!(
        slow.contains(
            r#"["ACL", "SETUSER", "(redacted)", "(redacted)", "(redacted)", "(redacted)"]"#
        ),
        "{slow}"
    );
    for word in ["ann", "p4ss", "wr0ng", DIGEST] {
        assert!(!slow.contains(word), "{word} in {slow}");
    }
}

/// The entries of `ACL LOG`, each as its fields by name.
fn log_entries(c: &mut Client, command: &str) -> Vec<BTreeMap<String, Reply>> {
    let field = |pair: &[Reply]| (pair[0].clone().into_text(), pair[1].clone());
    let entries = c.reply(command).into_items().into_iter().map(Reply::into_items);
    entries.map(|fields| fields.chunks_exact(2).map(field).collect()).collect()
}

#[test]
fn acl_log_and_info_show_what_was_denied() {
    let mut c = connect();
    c.expect("ACL LOG RESET", "+OK");
    let counts = |c: &mut Client| {
        let text = c.text("INFO stats");
        ["cmd", "key", "channel"].map(|name| {
            let prefix = format!("acl_access_denied_{name}:");
            let number = text.lines().find_map(|line| line.strip_prefix(&prefix));
            number.map_or(0, |number| number.parse::<u64>().expect("a number"))
        })
    };
    let before = counts(&mut c);
    let mut u = user(&mut c, "u", "resetchannels +@all -config ~a &x");
    for command in [
        "CONFIG GET x",
        "Get b",
        "MGET a b",
        "MGET a c b",
        "PUBLISH y m",
        "SUBSCRIBE x y z",
        "MULTI",
        "GET b",
        "DISCARD",
        "GET", // an error that comes before
        "ACL DRYRUN u GET b",
    ] {
        u.reply(command);
    }
    let shown = |entry: &BTreeMap<String, Reply>| {
        let names = ["count", "reason", "context", "object", "username"];
        names.map(|name| entry[name].to_string().replace('"', "")).join(" ")
    };
    let all = log_entries(&mut c, "ACL LOG");
    let expected = [
        ":1 key multi b u",
        ":2 channel toplevel y u",
        ":1 key toplevel c u",
        ":2 key toplevel b u",
        ":1 command toplevel config|get u",
    ];
    assert_eq!(all.iter().map(shown).collect::<Vec<_>>(), expected);
    let client = all[1]["client-info"].clone().into_text();
    assert!(client.contains("cmd=subscribe ") && client.contains("user=u "), "{client}");
    if c.redis_at_least("7.2") {
        let after = counts(&mut c);
        assert_eq!([0, 1, 2].map(|kind| after[kind] - before[kind]), [1, 4, 2]);
    }
}

#[test]
fn acl_log_shows_failed_logins() {
    let mut c = connect();
    c.expect("ACL LOG RESET", "+OK");
    c.expect("CONFIG SET requirepass secret", "+OK");
    let wrong = "-WRONGPASS invalid username-password pair or user is disabled.";
    let mut other = c.another();
    for command in ["AUTH x", "auth x", "AUTH default y", "HELLO 3 AUTH bob z"] {
        other.expect(command, wrong);
    }
    c.transcript(&format!("> MULTI\n+OK\n> AUTH eve z\n+QUEUED\n> EXEC\n[{wrong}]"));
    let shown = |entry: &BTreeMap<String, Reply>| {
        assert_eq!(entry["reason"].to_string(), "\"auth\"");
        let names = ["count", "context", "object", "username"];
        names.map(|name| entry[name].to_string().replace('"', "")).join(" ")
    };
    let all = log_entries(&mut c, "ACL LOG");
    let expected = [
        ":1 multi AUTH eve",
        ":1 toplevel HELLO bob",
        ":2 toplevel AUTH default",
        ":1 toplevel auth default",
    ];
    assert_eq!(all.iter().map(shown).collect::<Vec<_>>(), expected);
    let client = all[1]["client-info"].clone().into_text();
    let address = format!("addr={} ", other.local_address());
    assert!(client.contains(&address) && client.contains("cmd=hello"), "{client}");
    let age: f64 = all[0]["age-seconds"].clone().into_text().parse().expect("a number");
    assert!((0.0..20.0).contains(&age), "{age}");
    if c.redis_at_least("7.2") {
        let number = |entry: usize, name: &str| match all[entry][name] {
            Reply::Integer(number) => number,
            ref other => panic!("{name} is {other}"),
        };
        assert_eq!(number(0, "entry-id") - number(3, "entry-id"), 2);
        assert!(number(2, "timestamp-created") <= number(2, "timestamp-last-updated"));
    }
    for (command, count) in
        [("ACL LOG 2", 2), ("ACL LOG 0", 0), ("ACL LOG -1", 0), ("ACL LOG 99", 4)]
    {
        assert_eq!(log_entries(&mut c, command).len(), count, "{command}");
    }
    c.expect("CONFIG SET acllog-max-len 1", "+OK");
    other.expect("AUTH a b", wrong);
    assert_eq!(log_entries(&mut c, "ACL LOG").len(), 1);
    c.transcript(
        r#"
        > ACL LOG x
        -ERR value is not an integer or out of range
        > ACL LOG 1 2
        -ERR unknown subcommand or wrong number of arguments for 'LOG'. Try ACL HELP.
        > ACL GENPASS 1 2
        -ERR unknown subcommand or wrong number of arguments for 'GENPASS'. Try ACL HELP.
        > ACL LOG reset
        +OK
        > ACL LOG
        []
        > CONFIG SET requirepass ""
        +OK
        "#,
    );
}

#[test]
fn acl_cat_lists_categories_and_their_commands() {
    let mut c = connect();
    let words = |c: &mut Client, command: &str| -> Vec<String> {
        c.reply(command).into_items().into_iter().map(Reply::into_text).collect()
    };
    let categories = words(&mut c, "ACL CAT");
    for category in ["keyspace", "read", "write", "hash", "string", "admin", "fast", "dangerous"] {
        assert!(categories.contains(&category.into()), "{category} in {categories:?}");
    }
    let hash = words(&mut c, "ACL CAT HASH");
    assert!(hash.contains(&"hget".into()) && !hash.contains(&"get".into()));
    assert!(words(&mut c, "ACL CAT dangerous").contains(&"config|set".into()));
    c.expect("ACL CAT nosuch", "-ERR Unknown category 'nosuch'");
}

#[test]
fn acl_genpass_returns_random_hexadecimal_digits() {
    let mut c = connect();
    for (command, digits) in [
        ("ACL GENPASS", 64),
        ("ACL GENPASS 5", 2),
        ("ACL GENPASS 1", 1),
        ("ACL GENPASS 4096", 1024),
    ] {
        let password = c.text(command);
        assert_eq!(password.len(), digits, "{command}");
        assert!(password.bytes().all(|byte| byte.is_ascii_hexdigit()), "{password}");
    }
    assert_ne!(c.text("ACL GENPASS"), c.text("ACL GENPASS"));
    let error = "-ERR ACL GENPASS argument must be the number of bits for the output password, a \
                 positive number up to 4096";
    c.expect("ACL GENPASS 0", error);
    c.expect("ACL GENPASS 4097", error);
    c.expect("ACL GENPASS x", "-ERR value is not an integer or out of range");
    let error = "-ERR unknown subcommand or wrong number of arguments for 'GENPASS'. Try ACL HELP.";
    c.expect("ACL GENPASS x y", error);
}

// ---- Files -------------------------------------------------------------------------------------------

/// The rules of the default user, and of a new one.
const ALL: &str = "sanitize-payload ~* &* +@all";
const NONE: &str = "sanitize-payload resetchannels -@all";

/// A server with an ACL file of this content.
fn with_file(content: &str, args: &[&str]) -> Server {
    let home = TempDir::new();
    fs::write(home.data().join("users.acl"), content).expect("write the file");
    Server::start_in(home, &[&["--aclfile", "users.acl"], args].concat())
}

#[test]
fn users_come_from_a_file_and_go_to_it() {
    if skipped_on_redis() {
        return;
    }
    let content = "user b on >pw ~b* +get\r\n\n user a (+get ~x) +set  ~\"y\" \nuser c off";
    let server = with_file(content, &[]);
    let path = server.dir().join("users.acl");
    let mut c = server.client();
    let digest = "#30c952fab122c3f9759f02a6d95c3758b246b4fee239957b2d4fee46e26170c4";
    let users = [
        "user a off sanitize-payload ~\"y\" resetchannels -@all +set (~x resetchannels -@all +get)"
            .to_owned(),
        format!("user b on sanitize-payload {digest} ~b* resetchannels -@all +get"),
        format!("user c off {NONE}"),
        format!("user default on nopass {ALL}"),
    ];
    let listed = |c: &mut Client| -> Vec<String> {
        c.reply("ACL LIST").into_items().into_iter().map(Reply::into_text).collect()
    };
    assert_eq!(listed(&mut c), users);
    // It is written whole, and keeps its permissions.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("set permissions");
    c.expect("ACL SAVE", "+OK");
    assert_eq!(fs::read_to_string(&path).expect("the file"), users.join("\n") + "\n");
    assert_eq!(fs::metadata(&path).expect("the file").permissions().mode() & 0o777, 0o640);
    c.expect("ACL LOAD", "+OK");
    assert_eq!(listed(&mut c), users);
    fs::remove_file(&path).expect("remove the file");
    let missing = format!(
        "-ERR Error loading ACLs, opening file '{}': No such file or directory (os error 2)",
        path.display()
    );
    c.expect("ACL LOAD", &missing);
    c.expect("ACL SAVE", "+OK");
    assert_eq!(fs::metadata(&path).expect("the file").permissions().mode() & 0o777, 0o600);
    fs::remove_file(&path).expect("remove the file");
    fs::create_dir(&path).expect("something in its place");
    let failed = "-ERR There was an error trying to save the ACLs. Please check the server logs for more information";
    c.expect("ACL SAVE", failed);
    assert_eq!(listed(&mut c), users);
    c.expect("CONFIG SET aclfile x", "-ERR CONFIG SET failed (possibly related to argument 'aclfile') - can't set immutable config");
}

#[test]
fn words_in_a_selector_may_be_quoted_and_are_shown_without_quotes() {
    transcript(
        r#"
        8.2> ACL SETUSER u "(~\"a\" '%R~b' ~c\\ &\"x\\x41\")"
        +OK
        8.2> ACL LIST
        ["user default on nopass sanitize-payload ~* &* +@all", "user u off sanitize-payload resetchannels -@all (~a %R~b ~c\\ resetchannels &xA -@all)"]
        // A quote that is not closed empties the selector.
        8.2> ACL SETUSER u reset "(~a ~b\"c)" "(~\"a\"b)"
        +OK
        8.2> ACL LIST
        ["user default on nopass sanitize-payload ~* &* +@all", "user u off sanitize-payload resetchannels -@all (resetchannels -@all) (resetchannels -@all)"]
        8.2> ACL SETUSER u "(~\"a b\")"
        -ERR Error in ACL SETUSER modifier '(~"a b")': Syntax error
        8.2> ACL SETUSER u "(~\"a\\x00\")"
        -ERR Error in ACL SETUSER modifier '(~"a\x00")': Syntax error
        // A bracket inside a word does not end the selector.
        8.2> ACL SETUSER u reset resetchannels "(~a)b ~c))"
        +OK
        8.2> ACL LIST
        ["user default on nopass sanitize-payload ~* &* +@all", "user u off sanitize-payload resetchannels -@all (~a)b ~c) resetchannels -@all)"]
        "#,
    );
}

#[test]
fn a_file_keeps_patterns_of_selectors_that_look_like_their_end() {
    if skipped_on_redis() {
        return;
    }
    let mut server = with_file("", &[]);
    let mut c = server.client();
    let selector = r#"(~a) %R~"\"" &b) +select|0) +get)"#;
    c.call(&["ACL", "SETUSER", "u", "on", "nopass", selector, "(~c))", "~d)"]);
    let shown = c.reply("ACL GETUSER u").to_string();
    for part in [r#""~a) %R~\"""#, r#""&b)""#, r#""-@all +select|0) +get""#, r#""~c)""#, r#""~d)""#]
    {
        assert!(shown.contains(part), "{part} in {shown}");
    }
    c.expect("ACL SAVE", "+OK");
    c.expect("ACL LOAD", "+OK");
    assert_eq!(c.reply("ACL GETUSER u").to_string(), shown);
    server.kill_9();
    server.restart();
    assert_eq!(server.client().reply("ACL GETUSER u").to_string(), shown);
}

#[test]
fn a_user_may_use_only_the_databases_that_it_is_granted() {
    let mut c = connect();
    if !c.redis_at_least("valkey") {
        return;
    }
    c.transcript(
        r#"
        > ACL SETUSER u on nopass ~* +@all db=2,1,2
        +OK
        u> AUTH u any
        +OK
        u> GET k
        -NOPERM No permissions to access database
        u> DBSIZE
        -NOPERM No permissions to access database
        u> PING
        +PONG
        u> SELECT 3
        -NOPERM No permissions to access database
        u> SELECT 99
        -ERR DB index is out of range
        u> SELECT 1
        +OK
        u> SET k v
        +OK
        u> COPY k l DB 2
        :1
        u> COPY k l REPLACE DB 0
        -NOPERM No permissions to access database
        u> MOVE k 0
        -NOPERM No permissions to access database
        u> SWAPDB 1 2
        +OK
        u> SWAPDB 0 1
        -NOPERM No permissions to access database
        u> FLUSHDB
        +OK
        u> FLUSHALL
        -NOPERM No permissions to access database
        u> MULTI
        +OK
        u> SELECT 2
        +QUEUED
        u> GET k
        +QUEUED
        u> SELECT 0
        -NOPERM No permissions to access database
        u> EXEC
        -EXECABORT Transaction discarded because of previous errors.
        // The selected database counts, so an administrator sees what the user may do there.
        > ACL DRYRUN u get k
        "User u has no permissions to access database get"
        > ACL DRYRUN u MOVE k 0
        "User u has no permissions to access database 0"
        > ACL DRYRUN u SWAPDB 1 3
        "User u has no permissions to access database 3"
        > ACL DRYRUN u PUBLISH a b
        "User u has no permissions to access the 'a' channel"
        > SELECT 1
        +OK
        > ACL DRYRUN u GET k
        +OK
        // A selector grants all of a command or nothing.
        > ACL SETUSER u db=2 (+@all ~a db=1)
        +OK
        > ACL DRYRUN u GET k
        "User u has no permissions to access the 'k' key"
        > ACL DRYRUN u GET a
        +OK
        > ACL SETUSER u clearselectors (-@all ~k db=1)
        +OK
        > ACL DRYRUN u GET k
        "User u has no permissions to run the 'get' command"
        > ACL SETUSER u clearselectors resetdbs
        +OK
        > ACL DRYRUN u SELECT 1
        "User u has no permissions to access database 1"
        > ACL SETUSER u ALLDBS
        +OK
        > ACL DRYRUN u FLUSHALL
        +OK
        > ACL SETUSER u DB=1
        +OK
        > ACL SETUSER u reset on nopass ~* +@all
        +OK
        > ACL DRYRUN u FLUSHALL
        +OK
        > ACL SETUSER u db=
        -ERR Error in ACL SETUSER modifier 'db=': Syntax error
        > ACL SETUSER u db=1,
        -ERR Error in ACL SETUSER modifier 'db=1,': Syntax error
        > ACL SETUSER u db=x
        -ERR Error in ACL SETUSER modifier 'db=x': Syntax error
        > ACL SETUSER u db=1,-1
        -ERR Error in ACL SETUSER modifier 'db=1,-1': The provided database ID is out of range
        > ACL SETUSER u db=2147483648
        -ERR Error in ACL SETUSER modifier 'db=2147483648': The provided database ID is out of range
        > ACL SETUSER u db=2147483647
        +OK
        > SELECT 0
        +OK
        "#,
    );
    let log = c.reply("ACL LOG 1").to_string();
    assert!(log.contains("\"reason\", \"database\""), "{log}");
    let every: Vec<String> = (0..16).map(|db| db.to_string()).collect();
    c.expect(&format!("ACL SETUSER u db={}", every.join(",")), "+OK");
    c.expect("ACL DRYRUN u FLUSHALL", "+OK");
}

#[test]
fn rights_to_databases_are_shown_only_if_some_are_given_and_survive_in_a_file() {
    if skipped_on_redis() {
        return;
    }
    let mut server = with_file("", &[]);
    let mut c = server.client();
    c.expect("ACL SETUSER u on nopass ~* +@all", "+OK");
    assert!(!c.reply("ACL GETUSER u").to_string().contains("databases"));
    c.expect("ACL SETUSER u db=3,1 (~a +get resetdbs)", "+OK");
    let shown = c.reply("ACL GETUSER u").to_string();
    assert!(shown.contains("\"databases\", \"db=1,3\", \"selectors\""), "{shown}");
    assert!(shown.contains("\"databases\", \"\""), "{shown}");
    let list = c.reply("ACL LIST").to_string();
    let rules = "~* resetchannels db=1,3 +@all (~a resetchannels resetdbs -@all +get)";
    assert!(list.contains(rules), "{list}");
    assert!(c.text("INFO stats").contains("acl_access_denied_db:0"));
    c.expect("ACL SAVE", "+OK");
    server.kill_9();
    server.restart();
    assert_eq!(server.client().reply("ACL LIST").to_string(), list);
}

#[test]
fn a_file_with_a_mistake_changes_nothing_and_every_mistake_is_named() {
    if skipped_on_redis() {
        return;
    }
    let server = with_file("user a on\n", &[]);
    let path = server.dir().join("users.acl");
    let mut c = server.client();
    let wrong = "user a on\nuser a off\nfoo bar\nuser\nuser x +foo\n user y on\nuser e >s3cret w0rd\n\
                 user q (+get\n# comment\nuser r #abc\nuser z on\n";
    fs::write(&path, wrong).expect("write the file");
    let error = c.reply("ACL LOAD").to_string();
    let shown = path.display();
    for part in [
        "-ERR WARNING: Duplicate user 'a' found on line 2.".to_owned(),
        format!("{shown}:3 should start with user keyword followed by the username."),
        format!("{shown}:4 should start with user keyword followed by the username."),
        format!(
            "{shown}:5: Error in applying operation '+foo': Unknown command or category name in ACL."
        ),
        format!("{shown}:7: Syntax error."),
        format!("{shown}:8: Unmatched parenthesis in selector definition."),
        format!("{shown}:9 should start with user keyword"),
        format!("{shown}:10: The password hash must be exactly 64 characters"),
        "WARNING: ACL errors detected, no change to the previously active ACL rules was performed"
            .into(),
    ] {
        assert!(error.contains(&part), "{part:?} in {error}");
    }
    assert!(!error.contains("w0rd") && !error.contains("s3cret"), "{error}");
    c.expect("ACL USERS", r#"["a", "default"]"#);
    // Nor does a server start with it.
    let home = TempDir::new();
    fs::write(home.data().join("wrong.acl"), wrong).expect("write the file");
    let ended = Server::fail_to_start(&home, &["--aclfile", "wrong.acl"]);
    assert!(ended.stderr.contains("Duplicate user 'a' found on line 2."), "{}", ended.stderr);
    let ended = Server::fail_to_start(&home, &["--aclfile", "missing.acl"]);
    assert!(ended.stderr.contains("missing.acl"), "{}", ended.stderr);
}

#[test]
fn loading_a_file_ends_only_the_connections_of_users_that_lose_by_it() {
    if skipped_on_redis() {
        return;
    }
    let line = |name: &str, rules: &str| format!("user {name} on nopass ~* +@all {rules}\n");
    let old = ["a", "b", "c"].map(|name| line(name, "&*")).concat();
    let server = with_file(&old, &[]);
    let mut c = server.client();
    let mut connections = Vec::new();
    for name in ["a", "b", "c"] {
        for command in ["PING", "SUBSCRIBE x"] {
            let mut client = server.client();
            client.expect(&format!("AUTH {name} any"), "+OK");
            client.reply(command);
            connections.push(client);
        }
    }
    let new = line("a", "-get &*") + &line("b", "resetchannels &y");
    fs::write(server.dir().join("users.acl"), new).expect("write the file");
    c.expect("ACL LOAD", "+OK");
    let [a, hears_a, b, hears_b, gone, hears_gone] = &mut connections[..] else { panic!("six") };
    a.expect("GET k", "-NOPERM User a has no permissions to run the 'get' command");
    hears_a.expect("PING", r#"["pong", ""]"#);
    b.expect("GET k", "nil");
    for client in [hears_b, gone, hears_gone] {
        client.expect_closed();
    }
}

/// In Redis, everybody may log in as the default user then.
#[test]
fn requirepass_holds_if_the_file_does_not_define_the_default_user() {
    if skipped_on_redis() {
        return;
    }
    let server = with_file("user a on nopass +@all\n", &["--requirepass", "secret"]);
    let mut c = server.client();
    c.expect("PING", "-NOAUTH Authentication required.");
    c.expect("AUTH secret", "+OK");
    c.expect("ACL LOAD", "+OK");
    server.client().expect("PING", "-NOAUTH Authentication required.");
    fs::write(server.dir().join("users.acl"), "user default on nopass +@all\n").expect("write");
    c.expect("ACL LOAD", "+OK");
    server.client().expect("PING", "+PONG");
}

#[test]
fn users_come_from_the_configuration_file_and_config_rewrite_writes_them_back() {
    if skipped_on_redis() {
        return;
    }
    let home = TempDir::new();
    let path = home.path().join("my.conf");
    let shown = path.to_str().expect("a path of UTF-8").to_owned();
    let before = "# Users.\nuser a on nopass (+get ~x) +set \"~y\\\"\\xff\"\nUSER b allcommands\n\
                  acl-pubsub-default allchannels\nuser c resetchannels\n";
    fs::write(&path, before).expect("write the file");
    let mut server = Server::start_in(home, &[&shown]);
    let mut c = server.client();
    let lines = |c: &mut Client| c.reply("ACL LIST").to_string();
    let listed = lines(&mut c);
    assert_eq!(
        listed,
        r#"["user a on nopass sanitize-payload ~y\"\xff &* -@all +set (~x &* -@all +get)", "user b off sanitize-payload &* +@all", "user c off sanitize-payload resetchannels -@all", "user default on nopass sanitize-payload ~* &* +@all"]"#
    );
    c.expect("ACL DELUSER c", ":1");
    c.expect("ACL SETUSER new", "+OK");
    c.expect("CONFIG REWRITE", "+OK");
    let after = fs::read_to_string(&path).expect("the file");
    let expected = "# Users.\n\
        user a on nopass sanitize-payload \"~y\\\"\\xff\" &* -@all +set (~x &* -@all +get)\n\
        user b off sanitize-payload &* +@all\n\
        acl-pubsub-default allchannels\n";
    assert!(after.starts_with(expected), "{after}");
    assert!(after.contains("\nuser new off sanitize-payload &* -@all\n"), "{after}");
    assert!(!after.contains("user default"), "it is as without a line:\n{after}");
    let listed = lines(&mut c);
    server.restart();
    let mut c = server.client();
    assert_eq!(lines(&mut c), listed, "it reads back what it has written");
    // A default user with other rights gets a line.
    c.expect("ACL SETUSER default -debug", "+OK");
    c.expect("CONFIG REWRITE", "+OK");
    let after = fs::read_to_string(&path).expect("the file");
    assert!(
        after.contains("\nuser default on nopass sanitize-payload ~* &* +@all -debug\n"),
        "{after}"
    );
}

#[test]
fn a_wrong_user_in_the_configuration_stops_the_start_and_no_password_gets_into_the_log() {
    if skipped_on_redis() {
        return;
    }
    let home = TempDir::new();
    let path = home.path().join("my.conf");
    let shown = path.to_str().expect("a path of UTF-8").to_owned();
    let refuses = |text: &str, words: &[&str]| {
        fs::write(&path, text).expect("write the file");
        let ended = Server::fail_to_start(&home, &[&shown]);
        assert_eq!(ended.code, Some(1), "{text}");
        for word in words {
            assert!(ended.stderr.contains(word), "{text}: {word:?} in {}", ended.stderr);
        }
        assert!(!ended.stderr.contains("s3cret"), "{text}: {}", ended.stderr);
    };
    let unknown =
        "bad user 'a': Error in applying operation '+foo': Unknown command or category name in ACL";
    refuses(
        "user a >s3cret +foo\nuser b on\nuser c (+get\n",
        &[unknown, "bad user 'c': Unmatched parenthesis"],
    );
    refuses("user a >s3cret s3cret\n", &["bad user 'a': Syntax error"]);
    refuses(
        "user a on\nuser a >s3cret\n",
        &["line 2: 'user a …': a user can only be defined once"],
    );
    refuses("user\n", &["wrong number of arguments"]);
    refuses("user \"a b\" on\n", &["spaces"]);
    refuses("requirepass s3cret s3cret\n", &["line 1: 'requirepass …': wrong number of arguments"]);
    refuses("user a on\naclfile x\n", &["remove either"]);
}
