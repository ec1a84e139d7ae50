//! Facts about a key besides its value: OBJECT and MEMORY.

use crate::harness::{Reply, connect, eventually, skipped_on_redis, transcript};

const TEXT_44: &str = "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";
const TEXT_45: &str = "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";

#[test]
fn the_encoding_of_a_set_string_depends_on_its_content() {
    let mut c = connect();
    for (value, encoding) in [
        ("0", "int"),
        ("-9223372036854775808", "int"),
        ("9223372036854775808", "embstr"),
        ("007", "embstr"),
        ("1.5", "embstr"),
        ("", "embstr"),
        (TEXT_44, "embstr"),
        (TEXT_45, "raw"),
    ] {
        for command in [
            format!("SET k \"{value}\""),
            format!("GETSET k \"{value}\""),
            format!("MSET k \"{value}\""),
            format!("SETEX k 100 \"{value}\""),
            format!("SET k \"{value}\" KEEPTTL"),
        ] {
            c.reply(&command);
            assert_eq!(c.text("OBJECT ENCODING k"), encoding, "after {command}");
        }
        c.expect("DEL k", ":1");
        for command in ["SETNX", "APPEND", "MSETNX"] {
            c.reply(&format!("{command} k \"{value}\""));
            assert_eq!(c.text("OBJECT ENCODING k"), encoding, "made by {command} {value}");
            c.expect("DEL k", ":1");
        }
    }
}

#[test]
fn a_string_that_is_changed_in_place_is_raw_until_it_is_set_again() {
    let mut c = connect();
    for command in [
        "APPEND k 6",
        "APPEND k \"\"",
        "SETRANGE k 0 6",
        "SETBIT k 0 0",
        "BITFIELD k SET u8 0 1",
        "BITOP OR k k",
    ] {
        c.expect("SET k 5", "+OK");
        c.expect("OBJECT ENCODING k", "\"int\"");
        c.reply(command);
        assert_eq!(c.text("OBJECT ENCODING k"), "raw", "after {command}");
        c.expect("COPY k copy REPLACE", ":1");
        c.expect("RENAME copy copy2", "+OK");
        c.expect("MOVE copy2 1", ":1");
        c.expect("SELECT 1", "+OK");
        c.expect("OBJECT ENCODING copy2", "\"raw\"");
        c.expect("DEL copy2", ":1");
        c.expect("SELECT 0", "+OK");
        c.expect("EXPIRE k 100", ":1");
        c.expect("OBJECT ENCODING k", "\"raw\"");
        c.expect("SET k 5", "+OK");
        c.expect("OBJECT ENCODING k", "\"int\"");
    }
    for command in [
        "SETRANGE k 0 \"\"",
        "BITFIELD k GET u8 0",
        "GETRANGE k 0 1",
        "BITOP NOT other k",
        "GETEX k",
    ] {
        c.reply(command);
        assert_eq!(c.text("OBJECT ENCODING k"), "int", "after {command}, which changes nothing");
    }
    for command in
        ["SETRANGE new 0 5", "SETBIT new 2 1", "BITOP NOT new k", "PFADD new 5", "PFMERGE new"]
    {
        c.reply(command);
        assert_eq!(c.text("OBJECT ENCODING new"), "raw", "made by {command}");
        c.expect("DEL new", ":1");
    }
}

#[test]
fn incremented_numbers_are_int_and_embstr() {
    transcript(
        r#"
        > INCR k
        :1
        > OBJECT ENCODING k
        "int"
        > APPEND k 2
        :2
        > OBJECT ENCODING k
        "raw"
        > DECR k
        :11
        > OBJECT ENCODING k
        "int"
        > INCRBYFLOAT k 2
        "13"
        > OBJECT ENCODING k
        "embstr"
        > INCRBYFLOAT k 1e50
        "100000000000000000003583830118858923890798487404544"
        > OBJECT ENCODING k
        "raw"
        > SET k abc
        +OK
        > APPEND k d
        :4
        > INCR k
        -ERR value is not an integer or out of range
        > PFADD k a
        -WRONGTYPE Key is not a valid HyperLogLog string value.
        > OBJECT ENCODING k
        "raw"
        > SET k abc
        +OK
        > PFADD k a
        -WRONGTYPE Key is not a valid HyperLogLog string value.
        > OBJECT ENCODING k
        "embstr"
        "#,
    );
}

#[test]
fn a_hash_is_a_listpack_until_it_exceeds_the_limits() {
    transcript(
        r#"
        > CONFIG SET hash-max-listpack-entries 2 hash-max-listpack-value 5
        +OK
        > HSET h a 1 b 12345
        :2
        > OBJECT ENCODING h
        "listpack"
        > HSET h c 3
        :1
        > OBJECT ENCODING h
        "hashtable"
        > HDEL h b c
        :2
        > OBJECT ENCODING h
        "hashtable"
        > HSET long a 123456
        :1
        > OBJECT ENCODING long
        "hashtable"
        "#,
    );
}

#[test]
fn object_replies_null_for_a_missing_key_and_rejects_bad_arguments() {
    transcript(
        r#"
        > OBJECT ENCODING missing
        nil
        > OBJECT IDLETIME missing
        nil
        > OBJECT REFCOUNT missing
        nil
        > OBJECT FREQ missing
        nil
        > SET k v
        +OK
        > OBJECT FREQ k
        -ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when switching between policies at runtime LRU and LFU data will take some time to adjust.
        > OBJECT
        -ERR wrong number of arguments for 'object' command
        > OBJECT encoding
        -ERR wrong number of arguments for 'object|encoding' command
        > OBJECT encoding k k
        -ERR wrong number of arguments for 'object|encoding' command
        > OBJECT size k
        -ERR unknown subcommand 'size'. Try OBJECT HELP.
        "#,
    );
}

#[test]
fn every_value_has_one_reference() {
    transcript(
        r#"
        > MSET k 0 l 10000 m abc
        +OK
        8.2> OBJECT REFCOUNT k
        :1
        > OBJECT REFCOUNT l
        :1
        > OBJECT REFCOUNT m
        :1
        > HSET h f 1
        :1
        > OBJECT REFCOUNT h
        :1
        "#,
    );
}

#[test]
fn idletime_counts_the_seconds_since_a_key_was_used() {
    let uses = [
        "GET k",
        "STRLEN k",
        "MGET k",
        "GETRANGE k 0 1",
        "TOUCH k",
        "EXPIRE k 100",
        "PERSIST k",
        "SETNX k v",
        "SET k v NX",
        "SET k w",
        "APPEND k x",
        "GETEX k",
        "GETBIT k 1",
        "INCR k",
        "HGET k f",
        "BITCOUNT k",
        "COPY k copy REPLACE",
        "RENAMENX other k",
    ];
    let looks = [
        "OBJECT IDLETIME k",
        "OBJECT ENCODING k",
        "TYPE k",
        "TTL k",
        "PTTL k",
        "EXPIRETIME k",
        "EXISTS k",
        "MEMORY USAGE k",
        "SCAN 0",
        "KEYS *",
        "RANDOMKEY",
        "DBSIZE",
    ];
    let mut c = connect();
    c.expect("SET other v", "+OK");
    let name = |number: usize| format!("key:{number}");
    let all = || uses.iter().chain(&looks).enumerate();
    for (number, _) in all() {
        c.expect(&format!("SET {} value", name(number)), "+OK");
    }
    let last = name(uses.len() + looks.len() - 1);
    eventually("the key is idle for 3 seconds", || {
        c.integer(&format!("OBJECT IDLETIME {last}")) >= 3
    });
    for (number, command) in all() {
        c.reply(&command.replace(" k", &format!(" {}", name(number))));
        let idle = c.integer(&format!("OBJECT IDLETIME {}", name(number)));
        assert_eq!(idle < 2, number < uses.len(), "idle for {idle} s after {command}");
    }
}

#[test]
fn with_client_no_touch_only_touch_updates_the_idle_time() {
    let mut c = connect();
    if !c.redis_at_least("7.2") {
        return;
    }
    let mut other = c.another();
    for key in ["a", "b", "c"] {
        c.expect(&format!("SET {key} 1"), "+OK");
    }
    eventually("the keys are idle for 2 seconds", || c.integer("OBJECT IDLETIME c") >= 2);
    c.expect("CLIENT NO-TOUCH ON", "+OK");
    for command in ["GET a", "MGET a b", "STRLEN a", "INCR a", "GETEX b"] {
        c.reply(command);
        assert!(c.integer("OBJECT IDLETIME a") >= 2, "after {command}");
    }
    assert!(c.integer("OBJECT IDLETIME b") >= 2);
    c.expect("TOUCH a", ":1");
    assert!(c.integer("OBJECT IDLETIME a") < 2);
    other.expect("GET b", "\"1\"");
    assert!(c.integer("OBJECT IDLETIME b") < 2);
    c.expect("CLIENT NO-TOUCH OFF", "+OK");
    c.expect("GET c", "\"1\"");
    assert!(c.integer("OBJECT IDLETIME c") < 2);
}

#[test]
fn moving_a_key_counts_as_a_use() {
    let mut c = connect();
    for key in ["a", "b"] {
        c.expect(&format!("SET {key} v"), "+OK");
    }
    eventually("the keys are idle for 2 seconds", || c.integer("OBJECT IDLETIME b") >= 2);
    c.expect("RENAME a c", "+OK");
    c.expect("MOVE b 1", ":1");
    assert!(c.integer("OBJECT IDLETIME c") < 2);
    c.expect("SELECT 1", "+OK");
    assert!(c.integer("OBJECT IDLETIME b") < 2);
}

#[test]
fn memory_usage_rejects_bad_options() {
    transcript(
        r#"
        > MEMORY USAGE missing
        nil
        > MEMORY USAGE missing SAMPLES 5
        nil
        > MEMORY USAGE missing FOO
        -ERR syntax error
        > MEMORY USAGE missing SAMPLES
        -ERR syntax error
        > MEMORY USAGE missing SAMPLES -1
        -ERR syntax error
        > MEMORY USAGE missing SAMPLES x
        -ERR value is not an integer or out of range
        > MEMORY USAGE
        -ERR wrong number of arguments for 'memory|usage' command
        > MEMORY
        -ERR wrong number of arguments for 'memory' command
        > MEMORY foo
        -ERR unknown subcommand 'foo'. Try MEMORY HELP.
        "#,
    );
}

#[test]
fn memory_usage_grows_with_the_data() {
    let mut c = connect();
    let mut usage = |setup: &[&str], options: &str| {
        c.reply("DEL k");
        c.reply(&format!("{} {}", setup[0], setup[1..].join(" ")));
        c.integer(&format!("MEMORY USAGE k {options}"))
    };
    let small = usage(&["SET", "k", "abc"], "");
    let value = "x".repeat(1000);
    let large = usage(&["SET", "k", &value], "");
    assert!((small + 950..small + 2000).contains(&large), "{small}, then {large}");
    let fields: Vec<String> = (0..1000).map(|n| format!("field:{n:04} {value}")).collect();
    let hash = [vec!["HSET", "k"], fields.iter().map(String::as_str).collect()].concat();
    let [all, some] = ["SAMPLES 0", "SAMPLES 3"].map(|options| usage(&hash, options));
    assert!((1_000_000..1_400_000).contains(&all), "{all}");
    assert!((all - some).abs() < all / 20, "{all} from all fields, {some} from three");
    let [name, short] = ["n".repeat(500), "n".into()];
    for name in [&name, &short] {
        c.expect(&format!("SET {name} abc"), "+OK");
    }
    let difference = c.integer(&format!("MEMORY USAGE {name}")) - c.integer("MEMORY USAGE n");
    assert!((450..700).contains(&difference), "{difference} more for a name of 500 bytes");
}

#[test]
fn memory_usage_counts_our_own_structures() {
    if skipped_on_redis() {
        return;
    }
    let mut c = connect();
    // A slot of the index, and a record: three or four bytes, the key and the value.
    for (length, expected) in [(0, ":15"), (38, ":53"), (39, ":54"), (640, ":656")] {
        c.expect(&format!("SET k '{}'", "x".repeat(length)), "+OK");
        c.expect("MEMORY USAGE k", expected);
    }
    c.expect("SETRANGE k 100000 x", ":100001");
    assert!(c.integer("MEMORY USAGE k") >= 100_050);
    assert!(matches!(c.reply("MEMORY HELP"), Reply::Array(_)));
}
