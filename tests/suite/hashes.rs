//! Commands on hashes.

use std::collections::BTreeMap;

use crate::harness::{Client, Reply, connect, eventually, transcript, unix_now_ms};

#[test]
fn hset_counts_the_new_fields() {
    transcript(
        r#"
        > HSET h a 1
        :1
        > HSET h a 2
        :0
        > HSET h a 3 b 4 c 5
        :2
        > HGET h a
        "3"
        > HSET h x 1 x 2 x 3
        :1
        > HGET h x
        "3"
        > HLEN h
        :4
        > TYPE h
        +hash
        "#,
    );
}

#[test]
fn hset_requires_pairs_of_fields_and_values() {
    transcript(
        r#"
        > HSET h
        -ERR wrong number of arguments for 'hset' command
        > HSET h a
        -ERR wrong number of arguments for 'hset' command
        > HSET h a 1 b
        -ERR wrong number of arguments for 'hset' command
        > HMSET h a
        -ERR wrong number of arguments for 'hmset' command
        > HMSET h a 1 b
        -ERR wrong number of arguments for 'hmset' command
        > HMSET h
        -ERR wrong number of arguments for 'hmset' command
        > hset h a 1 b
        -ERR wrong number of arguments for 'hset' command
        > EXISTS h
        :0
        > SET s v
        +OK
        > HSET s a 1 b
        -ERR wrong number of arguments for 'hset' command
        "#,
    );
}

#[test]
fn fields_and_values_are_bytes_and_may_be_empty() {
    transcript(
        r#"
        > HSET "" "" ""
        :1
        > HGET "" ""
        ""
        > HSTRLEN "" ""
        :0
        > HEXISTS "" ""
        :1
        > HSET h "\x00\xff\r\n" "\r\n\x00" "\x00" z
        :2
        > HGET h "\x00\xff\r\n"
        "\r\n\x00"
        > HSTRLEN h "\x00\xff\r\n"
        :3
        > HGET h "\x00"
        "z"
        > HGET h "\x00\x00"
        nil
        > HGETALL h
        ["\x00\xff\r\n", "\r\n\x00", "\x00", "z"]
        > HDEL h "\x00"
        :1
        > HKEYS h
        ["\x00\xff\r\n"]
        "#,
    );
}

#[test]
fn hget_replies_nil_for_a_missing_field_or_key() {
    transcript(
        r#"
        > HGET h a
        nil
        > HSET h a 1
        :1
        > HGET h a
        "1"
        > HGET h A
        nil
        > HGET h
        -ERR wrong number of arguments for 'hget' command
        > HGET h a b
        -ERR wrong number of arguments for 'hget' command
        "#,
    );
}

#[test]
fn hmset_replies_ok() {
    transcript(
        r#"
        > HMSET h a 1 b 2
        +OK
        > HMSET h b 3 c 4
        +OK
        > HGETALL h
        ["a", "1", "b", "3", "c", "4"]
        "#,
    );
}

#[test]
fn hmget_keeps_the_order_of_its_arguments() {
    transcript(
        r#"
        > HMGET h a b
        [nil, nil]
        > HSET h a 1 b 2
        :2
        > HMGET h b missing a b
        ["2", nil, "1", "2"]
        > HMGET h a
        ["1"]
        > HMGET h
        -ERR wrong number of arguments for 'hmget' command
        "#,
    );
}

#[test]
fn hsetnx_sets_only_a_new_field() {
    transcript(
        r#"
        > HSETNX h a 1
        :1
        > HSETNX h a 2
        :0
        > HSETNX h b 3
        :1
        > HGETALL h
        ["a", "1", "b", "3"]
        > HSETNX h a
        -ERR wrong number of arguments for 'hsetnx' command
        > HSETNX h a 1 b 2
        -ERR wrong number of arguments for 'hsetnx' command
        "#,
    );
}

#[test]
fn a_small_hash_keeps_the_order_of_insertion() {
    transcript(
        r#"
        > HSET h z 1 a 2 m 3
        :3
        > HGETALL h
        ["z", "1", "a", "2", "m", "3"]
        > HKEYS h
        ["z", "a", "m"]
        > HVALS h
        ["1", "2", "3"]
        > HSET h a new
        :0
        > HGETALL h
        ["z", "1", "a", "new", "m", "3"]
        > HDEL h z
        :1
        > HSET h z 9
        :1
        > HGETALL h
        ["a", "new", "m", "3", "z", "9"]
        > HGETALL missing
        []
        > HKEYS missing
        []
        > HVALS missing
        []
        "#,
    );
}

#[test]
fn hgetall_is_a_map_in_resp3() {
    let mut c = connect();
    c.reply("HELLO 3");
    c.transcript(
        r#"
        > HSET h a 1 b 2
        :2
        > HGETALL h
        {"a": "1", "b": "2"}
        > HGETALL missing
        {}
        > HKEYS h
        ["a", "b"]
        > HVALS h
        ["1", "2"]
        > HKEYS missing
        []
        > HGET h missing
        _
        > HMGET h a missing
        ["1", _]
        > HGET missing f
        _
        > HMGET missing f
        [_]
        > HINCRBYFLOAT h a 0.5
        "1.5"
        > HSCAN h 0
        ["0", ["a", "1.5", "b", "2"]]
        "#,
    );
}

#[test]
fn hdel_counts_fields_and_deletes_the_key_with_its_last_field() {
    transcript(
        r#"
        > HSET h a 1 b 2 c 3
        :3
        > HDEL h a missing
        :1
        > HDEL h a
        :0
        > HDEL h b b
        :1
        > EXISTS h
        :1
        > HDEL h c
        :1
        > EXISTS h
        :0
        > TYPE h
        +none
        > HDEL h c
        :0
        > HSET h a 1 b 2
        :2
        > HDEL h a b c
        :2
        > EXISTS h
        :0
        > HDEL h
        -ERR wrong number of arguments for 'hdel' command
        "#,
    );
}

#[test]
fn a_hash_that_is_created_again_does_not_expire() {
    transcript(
        r#"
        > HSET h a 1
        :1
        > EXPIRE h 100
        :1
        > HSET h b 2
        :1
        > TTL h
        :100
        > HDEL h a b
        :2
        > HSET h a 1
        :1
        > TTL h
        :-1
        "#,
    );
}

#[test]
fn hexists_hlen_and_hstrlen_describe_a_hash() {
    transcript(
        r#"
        > HEXISTS h a
        :0
        > HLEN h
        :0
        > HSTRLEN h a
        :0
        > HSET h a hello n -123
        :2
        > HEXISTS h a
        :1
        > HEXISTS h b
        :0
        > HLEN h
        :2
        > HSTRLEN h a
        :5
        > HSTRLEN h n
        :4
        > HSTRLEN h b
        :0
        > HEXISTS h
        -ERR wrong number of arguments for 'hexists' command
        > HEXISTS h a b
        -ERR wrong number of arguments for 'hexists' command
        > HLEN
        -ERR wrong number of arguments for 'hlen' command
        > HLEN h a
        -ERR wrong number of arguments for 'hlen' command
        > HSTRLEN h
        -ERR wrong number of arguments for 'hstrlen' command
        > HSTRLEN h a b
        -ERR wrong number of arguments for 'hstrlen' command
        > HKEYS
        -ERR wrong number of arguments for 'hkeys' command
        > HVALS h a
        -ERR wrong number of arguments for 'hvals' command
        > HGETALL
        -ERR wrong number of arguments for 'hgetall' command
        > HGETALL h a
        -ERR wrong number of arguments for 'hgetall' command
        "#,
    );
}

#[test]
fn hincrby_counts_within_64_bits() {
    transcript(
        r#"
        > HINCRBY h n 5
        :5
        > HINCRBY h n -7
        :-2
        > HGET h n
        "-2"
        > HINCRBY h n 0
        :-2
        > HSET h n 9223372036854775806
        :0
        > HINCRBY h n 1
        :9223372036854775807
        > HINCRBY h n 1
        -ERR increment or decrement would overflow
        > HGET h n
        "9223372036854775807"
        > HSET h n -9223372036854775807
        :0
        > HINCRBY h n -1
        :-9223372036854775808
        > HINCRBY h n -1
        -ERR increment or decrement would overflow
        > HINCRBY h n -9223372036854775808
        -ERR increment or decrement would overflow
        > HINCRBY h n 9223372036854775807
        :-1
        > HINCRBY h m -9223372036854775808
        :-9223372036854775808
        > HINCRBY fresh n 0
        :0
        > HGETALL fresh
        ["n", "0"]
        "#,
    );
}

#[test]
fn hincrby_rejects_everything_but_integers() {
    transcript(
        r#"
        > HSET h s abc e "" f 1.5 sp " 1" z 007 big 9223372036854775808 n 1
        :7
        > HINCRBY h s 1
        -ERR hash value is not an integer
        > HINCRBY h e 1
        -ERR hash value is not an integer
        > HINCRBY h f 1
        -ERR hash value is not an integer
        > HINCRBY h sp 1
        -ERR hash value is not an integer
        > HINCRBY h z 1
        -ERR hash value is not an integer
        > HINCRBY h big 1
        -ERR hash value is not an integer
        > HINCRBY h n abc
        -ERR value is not an integer or out of range
        > HINCRBY h n 1.5
        -ERR value is not an integer or out of range
        > HINCRBY h n ""
        -ERR value is not an integer or out of range
        > HINCRBY h n 9223372036854775808
        -ERR value is not an integer or out of range
        > HINCRBY h s abc
        -ERR value is not an integer or out of range
        > HGET h n
        "1"
        > HINCRBY missing n abc
        -ERR value is not an integer or out of range
        > EXISTS missing
        :0
        > HINCRBY h n
        -ERR wrong number of arguments for 'hincrby' command
        > HINCRBY h n 1 2
        -ERR wrong number of arguments for 'hincrby' command
        "#,
    );
}

#[test]
fn hincrbyfloat_prints_plain_decimals() {
    transcript(
        r#"
        > HINCRBYFLOAT h n 0.1
        "0.1"
        > HINCRBYFLOAT h n 0.2
        "0.3"
        > HGET h n
        "0.3"
        > HSET h n 10.50
        :0
        > HINCRBYFLOAT h n 0.1
        "10.6"
        > HINCRBYFLOAT h n -5
        "5.6"
        > HSET h n 5.0e3
        :0
        > HINCRBYFLOAT h n 2.0e2
        "5200"
        > HSET h n 3.0
        :0
        > HINCRBYFLOAT h n 0
        "3"
        > HINCRBYFLOAT h fresh 1e3
        "1000"
        > HINCRBYFLOAT new n -1.5
        "-1.5"
        > HGETALL new
        ["n", "-1.5"]
        > HSET h n 9223372036854775807
        :0
        > HINCRBYFLOAT h n 1
        "9223372036854775808"
        "#,
    );
}

#[test]
fn hincrbyfloat_rejects_everything_but_numbers() {
    transcript(
        r#"
        > HSET h s abc e "" sp " 1" tr "1 " n 1 i inf
        :6
        > HINCRBYFLOAT h s 1
        -ERR hash value is not a float
        > HINCRBYFLOAT h e 1
        -ERR hash value is not a float
        > HINCRBYFLOAT h sp 1
        -ERR hash value is not a float
        > HINCRBYFLOAT h tr 1
        -ERR hash value is not a float
        > HINCRBYFLOAT h i 1
        -ERR increment would produce NaN or Infinity
        > HINCRBYFLOAT h n abc
        -ERR value is not a valid float
        > HINCRBYFLOAT h n ""
        -ERR value is not a valid float
        > HINCRBYFLOAT h n nan
        -ERR value is not a valid float
        > HINCRBYFLOAT h n 1e5000
        -ERR value is not a valid float
        > HGET h n
        "1"
        > HINCRBYFLOAT h s abc
        -ERR value is not a valid float
        > HINCRBYFLOAT missing n abc
        -ERR value is not a valid float
        > EXISTS missing
        :0
        > HINCRBYFLOAT h n
        -ERR wrong number of arguments for 'hincrbyfloat' command
        > HINCRBYFLOAT h n 1 2
        -ERR wrong number of arguments for 'hincrbyfloat' command
        > HINCRBYFLOAT h n inf
        -ERR value is NaN or Infinity
        > HINCRBYFLOAT h n -inf
        -ERR value is NaN or Infinity
        "#,
    );
}

#[test]
fn hash_commands_reject_strings() {
    transcript(
        r#"
        > SET s v
        +OK
        > HSET s a 1
        -WRONGTYPE Operation against a key holding the wrong kind of value
        > HSETNX s a 1
        -WRONGTYPE Operation against a key holding the wrong kind of value
        > HMSET s a 1
        -WRONGTYPE Operation against a key holding the wrong kind of value
        > HGET s a
        -WRONGTYPE Operation against a key holding the wrong kind of value
        > HMGET s a b
        -WRONGTYPE Operation against a key holding the wrong kind of value
        > HGETALL s
        -WRONGTYPE Operation against a key holding the wrong kind of value
        > HDEL s a
        -WRONGTYPE Operation against a key holding the wrong kind of value
        > HEXISTS s a
        -WRONGTYPE Operation against a key holding the wrong kind of value
        > HLEN s
        -WRONGTYPE Operation against a key holding the wrong kind of value
        > HKEYS s
        -WRONGTYPE Operation against a key holding the wrong kind of value
        > HVALS s
        -WRONGTYPE Operation against a key holding the wrong kind of value
        > HSTRLEN s a
        -WRONGTYPE Operation against a key holding the wrong kind of value
        > HINCRBY s a 1
        -WRONGTYPE Operation against a key holding the wrong kind of value
        > HINCRBY s a abc
        -ERR value is not an integer or out of range
        > HINCRBYFLOAT s a 1
        -WRONGTYPE Operation against a key holding the wrong kind of value
        > HINCRBYFLOAT s a abc
        -ERR value is not a valid float
        > HSCAN s 0
        -WRONGTYPE Operation against a key holding the wrong kind of value
        > HSCAN s abc
        -ERR invalid cursor
        > HSCAN s 0 COUNT 0
        -WRONGTYPE Operation against a key holding the wrong kind of value
        > GET s
        "v"
        "#,
    );
}

#[test]
fn hscan_returns_a_small_hash_at_once() {
    transcript(
        r#"
        > HSCAN h 0
        ["0", []]
        > HSET h a 1 b 2 c 3
        :3
        > HSCAN h 0
        ["0", ["a", "1", "b", "2", "c", "3"]]
        > HSCAN h 0 COUNT 1
        ["0", ["a", "1", "b", "2", "c", "3"]]
        > HSCAN h 0 MATCH b
        ["0", ["b", "2"]]
        > HSCAN h 0 match [ac] count 100
        ["0", ["a", "1", "c", "3"]]
        > HSCAN h 0 COUNT 5 MATCH *
        ["0", ["a", "1", "b", "2", "c", "3"]]
        > HSCAN h 0 MATCH z*
        ["0", []]
        > HSCAN h 0 MATCH a MATCH b
        ["0", ["b", "2"]]
        > HSCAN h 0 COUNT 0x COUNT 1
        -ERR value is not an integer or out of range
        "#,
    );
}

#[test]
fn hscan_rejects_bad_arguments() {
    transcript(
        r#"
        > HSET h a 1
        :1
        > HSCAN h abc
        -ERR invalid cursor
        8.2> HSCAN h " 0"
        ["0", ["a", "1"]]
        8.2> HSCAN h -1
        -ERR invalid cursor
        8.2> HSCAN h ""
        -ERR invalid cursor
        8.2> HSCAN missing ""
        -ERR invalid cursor
        > SET s v
        +OK
        8.2> HSCAN s ""
        -ERR invalid cursor
        > HSCAN h 1x
        -ERR invalid cursor
        > HSCAN h 18446744073709551616
        -ERR invalid cursor
        > HSCAN h 0 COUNT 0
        -ERR syntax error
        > HSCAN h 0 COUNT -5
        -ERR syntax error
        > HSCAN h 0 COUNT abc
        -ERR value is not an integer or out of range
        > HSCAN h 0 COUNT 1.5
        -ERR value is not an integer or out of range
        > HSCAN h 0 COUNT
        -ERR syntax error
        > HSCAN h 0 MATCH
        -ERR syntax error
        > HSCAN h 0 FOO
        -ERR syntax error
        > HSCAN h 0 FOO bar
        -ERR syntax error
        > HSCAN h 0 TYPE string
        -ERR syntax error
        > HSCAN h
        -ERR wrong number of arguments for 'hscan' command
        > HSCAN
        -ERR wrong number of arguments for 'hscan' command
        > HSCAN missing abc
        -ERR invalid cursor
        > HSCAN missing 0 COUNT 0
        ["0", []]
        > HSCAN missing 0 FOO
        ["0", []]
        "#,
    );
}

#[test]
fn hscan_novalues_omits_the_values() {
    let mut c = connect();
    if !c.redis_at_least("7.4") {
        return;
    }
    c.transcript(
        r#"
        > HSET h a 1 b 2 c 3
        :3
        > HSCAN h 0 NOVALUES
        ["0", ["a", "b", "c"]]
        > HSCAN h 0 novalues MATCH b
        ["0", ["b"]]
        > HSCAN h 0 COUNT 10 NOVALUES
        ["0", ["a", "b", "c"]]
        > SCAN 0 NOVALUES
        -ERR NOVALUES option can only be used in HSCAN
        "#,
    );
}

/// Follows the cursor to its end. Returns the fields with their values.
fn hscan_all(c: &mut Client, options: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut cursor = "0".to_owned();
    loop {
        let reply = c.reply(&format!("HSCAN big {cursor} {options}"));
        let [next, page] = <[Reply; 2]>::try_from(reply.into_items()).expect("a cursor and a page");
        let mut page = page.into_items().into_iter();
        while let (Some(field), Some(value)) = (page.next(), page.next()) {
            found.insert(field.into_text(), value.into_text());
        }
        cursor = next.into_text();
        if cursor == "0" {
            return found;
        }
    }
}

#[test]
fn hscan_visits_every_field_of_a_large_hash() {
    let mut c = connect();
    let fields: BTreeMap<String, String> =
        (0..3000).map(|i| (format!("field:{i}"), format!("value:{i}"))).collect();
    for (field, value) in &fields {
        c.send(&["HSET", "big", field, value]);
    }
    for _ in &fields {
        assert_eq!(c.read_reply(), Reply::Integer(1));
    }
    assert!(hscan_all(&mut c, "") == fields);
    assert!(hscan_all(&mut c, "COUNT 1") == fields);
    assert!(hscan_all(&mut c, "COUNT 1000") == fields);
    let matching = fields.iter().filter(|(field, _)| field.ends_with("00"));
    let matching: BTreeMap<_, _> = matching.map(|(f, v)| (f.clone(), v.clone())).collect();
    assert!(hscan_all(&mut c, "MATCH field:*00 COUNT 100") == matching);
}

#[test]
fn hscan_returns_about_count_fields_per_call() {
    let mut c = connect();
    for i in 0..3000 {
        c.send(&["HSET", "big", &format!("field:{i}"), "v"]);
    }
    for _ in 0..3000 {
        assert_eq!(c.read_reply(), Reply::Integer(1));
    }
    for (options, most) in [("", 60), ("COUNT 100", 400)] {
        let reply = c.reply(&format!("HSCAN big 0 {options}"));
        let page = reply.into_items().remove(1).into_items();
        assert!(page.len() <= 2 * most, "{} for {options:?}", page.len() / 2);
    }
}

#[test]
fn hscan_returns_every_field_that_exists_throughout_the_scan() {
    let mut c = connect();
    let write = |c: &mut Client, command: &str, field: &str| {
        if command == "HSET" {
            c.call(&["HSET", "big", field, "v"]);
        } else {
            c.call(&["HDEL", "big", field]);
        }
    };
    for i in 0..1000 {
        write(&mut c, "HSET", &format!("stays:{i}"));
        write(&mut c, "HSET", &format!("goes:{i}"));
    }
    let mut found = BTreeMap::new();
    let mut cursor = "0".to_owned();
    let mut round = 0;
    loop {
        let reply = c.call(&["HSCAN", "big", &cursor, "COUNT", "20"]);
        let mut parts = reply.into_items();
        for pair in parts.remove(1).into_items().chunks_exact(2) {
            found.insert(pair[0].clone().into_text(), ());
        }
        cursor = parts.remove(0).into_text();
        if cursor == "0" {
            break;
        }
        for i in 0..20 {
            write(&mut c, "HDEL", &format!("goes:{}", round * 20 + i));
            write(&mut c, "HSET", &format!("comes:{round}:{i}"));
        }
        round += 1;
    }
    let missing = (0..1000).filter(|i| !found.contains_key(&format!("stays:{i}")));
    assert_eq!(missing.count(), 0, "fields that existed throughout are missing");
}

#[test]
fn a_large_hash_behaves_like_a_small_one() {
    let mut c = connect();
    let mut hset = vec!["HSET".to_owned(), "big".to_owned()];
    for i in 0..2000 {
        hset.extend([format!("f{i}"), i.to_string()]);
    }
    assert_eq!(c.call(&hset), Reply::Integer(2000));
    assert_eq!(c.call(&hset), Reply::Integer(0));
    c.transcript(
        r#"
        > HLEN big
        :2000
        > HGET big f1234
        "1234"
        > HINCRBY big f7 1
        :8
        > HDEL big f0 f1 missing f2
        :3
        > HLEN big
        :1997
        > HEXISTS big f1
        :0
        > HMGET big f1999 f0 f3
        ["1999", nil, "3"]
        "#,
    );
    assert_eq!(c.reply("HGETALL big").into_items().len(), 2 * 1997);
    assert_eq!(c.reply("HKEYS big").into_items().len(), 1997);
    assert_eq!(c.reply("HVALS big").into_items().len(), 1997);
    let fields = c.reply("HKEYS big").into_items();
    let mut hdel = vec!["HDEL".to_owned(), "big".to_owned()];
    hdel.extend(fields.into_iter().map(Reply::into_text));
    assert_eq!(c.call(&hdel), Reply::Integer(1997));
    c.expect("EXISTS big", ":0");
}

#[test]
fn an_expired_hash_does_not_exist() {
    let mut c = connect();
    c.transcript(
        r#"
        > HSET h a 1
        :1
        > PEXPIRE h 30
        :1
        "#,
    );
    let set = unix_now_ms();
    eventually("the expiry time has passed", || unix_now_ms() > set + 31);
    c.transcript(
        r#"
        > HGET h a
        nil
        > HGETALL h
        []
        > HLEN h
        :0
        > HSCAN h 0
        ["0", []]
        > HINCRBY h a 5
        :5
        > TTL h
        :-1
        > SET h v
        +OK
        "#,
    );
}
