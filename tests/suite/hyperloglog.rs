//! Commands on HyperLogLogs, and the bytes of the strings that hold them.

use crate::harness::{Client, Server, connect, eventually, skipped_on_redis, transcript};

/// Adds the numbers from `first` to `end - 1`.
fn add_numbers(c: &mut Client, key: &str, first: u32, end: u32) {
    for start in (first..end).step_by(1000) {
        let mut args = vec!["PFADD".to_owned(), key.to_owned()];
        args.extend((start..end.min(start + 1000)).map(|number| number.to_string()));
        c.call(&args);
    }
}

fn bytes(c: &mut Client, key: &str) -> Vec<u8> {
    c.call(&["GET", key]).into_bytes()
}

#[test]
fn pfmerge_replays_without_its_expired_sources() {
    if skipped_on_redis() {
        return;
    }
    let mut server = Server::start(&["--enable-debug-command", "yes"]);
    let mut c = server.client();
    c.expect("DEBUG SET-ACTIVE-EXPIRE 0", "+OK");
    c.expect("PFADD gone a b c", ":1");
    c.expect("PEXPIRE gone 1", ":1");
    eventually("the key expires", || c.integer("EXISTS gone") == 0);
    c.expect("PFMERGE all gone", "+OK");
    c.expect("PFCOUNT all", ":0");
    server.kill_9();
    server.restart();
    server.client().expect("PFCOUNT all", ":0");
}

#[test]
fn pfadd_returns_whether_the_value_changed() {
    transcript(
        r#"
        > PFADD h a b c
        :1
        > PFADD h a b c
        :0
        > PFADD h c d
        :1
        > PFADD h
        :0
        > PFADD empty
        :1
        > PFADD empty
        :0
        > PFADD h ""
        :1
        > PFCOUNT h
        :5
        > TYPE h
        +string
        > PFADD
        -ERR wrong number of arguments for 'pfadd' command
        "#,
    );
}

#[test]
fn pfcount_counts_one_key_or_the_union_of_several() {
    transcript(
        r#"
        > PFADD a 1 2 3
        :1
        > PFADD b 3 4
        :1
        > PFCOUNT a
        :3
        > PFCOUNT a b
        :4
        > PFCOUNT a a missing
        :3
        > PFCOUNT missing
        :0
        > PFCOUNT missing too
        :0
        > EXISTS missing too
        :0
        > PFCOUNT
        -ERR wrong number of arguments for 'pfcount' command
        "#,
    );
}

#[test]
fn pfmerge_merges_into_its_first_key() {
    transcript(
        r#"
        > PFADD a 1 2 3
        :1
        > PFADD b 3 4
        :1
        > PFMERGE a b missing
        +OK
        > PFCOUNT a
        :4
        > PFCOUNT b
        :2
        > PFMERGE new a b
        +OK
        > PFCOUNT new
        :4
        > PFMERGE empty
        +OK
        > GET empty
        "HYLL\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x80\x7f\xff"
        > PFMERGE
        -ERR wrong number of arguments for 'pfmerge' command
        "#,
    );
}

#[test]
fn the_stored_bytes_are_those_of_redis() {
    transcript(
        r#"
        > PFADD h a
        :1
        > GET h
        "HYLL\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x80q\xa6\x84NW"
        > PFCOUNT h
        :1
        > GET h
        "HYLL\x01\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00q\xa6\x84NW"
        > PFADD h b c d e f g
        :1
        > GET h
        "HYLL\x01\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x80Fm\x80V\x0c\x80D<\x848\x80P\xb1\x84I\x8c\x80Bm\x80BZ"
        > PFDEBUG DECODE h
        "Z:1646 v:1,1 Z:5645 v:1,1 Z:1085 v:2,1 z:57 v:1,1 Z:4274 v:2,1 Z:2445 v:1,1 Z:622 v:1,1 Z:603"
        > SET copy "HYLL\x01\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00q\xa6\x84NW"
        +OK
        > PFCOUNT copy h
        :7
        > PFADD copy a
        :0
        "#,
    );
}

#[test]
fn pfcount_caches_the_estimate_in_the_value_and_changes_invalidate_it() {
    transcript(
        r#"
        > PFADD h a
        :1
        > GETRANGE h 8 15
        "\x00\x00\x00\x00\x00\x00\x00\x80"
        > PFCOUNT h h
        :1
        > GETRANGE h 8 15
        "\x00\x00\x00\x00\x00\x00\x00\x80"
        > PFCOUNT h
        :1
        > GETRANGE h 8 15
        "\x01\x00\x00\x00\x00\x00\x00\x00"
        > PFADD h a
        :0
        > GETRANGE h 8 15
        "\x01\x00\x00\x00\x00\x00\x00\x00"
        > SETRANGE h 8 "\x2a\x01"
        :21
        > PFCOUNT h
        :298
        > PFADD h b
        :1
        > GETRANGE h 8 15
        "*\x01\x00\x00\x00\x00\x00\x80"
        > PFCOUNT h
        :2
        > PFMERGE h
        +OK
        > GETRANGE h 8 15
        "\x02\x00\x00\x00\x00\x00\x00\x80"
        "#,
    );
}

#[test]
fn changes_keep_the_expiry_time_and_an_expired_key_starts_empty() {
    transcript(
        r#"
        > PFADD h a
        :1
        > PEXPIREAT h 99999999999999
        :1
        > PFADD h b
        :1
        > PFCOUNT h
        :2
        > PFMERGE h h
        +OK
        > PEXPIRETIME h
        :99999999999999
        > PEXPIREAT h 1
        :1
        > PFADD h c
        :1
        > PFCOUNT h
        :1
        > TTL h
        :-1
        "#,
    );
}

#[test]
fn a_sparse_value_becomes_dense_when_it_would_exceed_the_limit() {
    transcript(
        r#"
        > CONFIG GET hll-sparse-max-bytes
        ["hll-sparse-max-bytes", "3000"]
        > CONFIG SET hll-sparse-max-bytes 21
        +OK
        > PFADD h a
        :1
        > PFDEBUG ENCODING h
        +sparse
        > STRLEN h
        :21
        > PFADD h b
        :1
        > PFDEBUG ENCODING h
        +dense
        > STRLEN h
        :12304
        > PFCOUNT h
        :2
        > CONFIG SET hll-sparse-max-bytes 0
        +OK
        > PFADD empty
        :1
        > PFDEBUG ENCODING empty
        +sparse
        > PFADD empty x
        :1
        > PFDEBUG ENCODING empty
        +dense
        > CONFIG SET hll-sparse-max-bytes 3kb
        +OK
        > CONFIG GET hll-sparse-max-bytes
        ["hll-sparse-max-bytes", "3072"]
        > CONFIG SET hll-sparse-max-bytes -1
        -ERR CONFIG SET failed (possibly related to argument 'hll-sparse-max-bytes') - argument must be a memory value
        "#,
    );
}

#[test]
fn sparse_values_grow_up_to_the_default_limit() {
    let mut c = connect();
    let mut longest = 0;
    for number in (0..3000).step_by(5) {
        add_numbers(&mut c, "h", number, number + 5);
        let length = c.integer("STRLEN h");
        if length == 12304 {
            break;
        }
        longest = length;
    }
    assert!((2950..=3000).contains(&longest), "the longest sparse value had {longest} bytes");
    c.expect("PFDEBUG ENCODING h", "+dense");
}

#[test]
fn a_merge_is_dense_if_any_of_its_keys_is() {
    transcript(
        r#"
        > PFADD a 1 2 3
        :1
        > PFADD b 4
        :1
        > PFDEBUG TODENSE b
        :1
        > PFMERGE m a
        +OK
        > PFDEBUG ENCODING m
        +sparse
        > PFMERGE m b
        +OK
        > PFDEBUG ENCODING m
        +dense
        > PFCOUNT m
        :4
        > PFDEBUG ENCODING a
        +sparse
        "#,
    );
}

#[test]
fn estimates_are_those_of_redis() {
    let mut c = connect();
    let expected = [(10, 10), (100, 100), (1000, 1001), (10_000, 9987), (100_000, 99_565)];
    for (elements, estimate) in expected {
        let key = elements.to_string();
        add_numbers(&mut c, &key, 0, elements);
        assert_eq!(c.integer(&format!("PFCOUNT {key}")), estimate, "{elements} elements");
        // Several keys are counted from merged registers, a single key from its value.
        assert_eq!(c.integer(&format!("PFCOUNT {key} {key}")), estimate, "{elements} elements");
    }
}

#[test]
fn a_dense_value_does_not_depend_on_the_order_of_the_additions() {
    let mut c = connect();
    add_numbers(&mut c, "up", 0, 5000);
    for start in (0..5000).step_by(1000).rev() {
        add_numbers(&mut c, "down", start, start + 1000);
    }
    add_numbers(&mut c, "left", 0, 2500);
    add_numbers(&mut c, "right", 2500, 5000);
    c.expect("PFMERGE both left right", "+OK");
    let up = bytes(&mut c, "up");
    assert!(up == bytes(&mut c, "down"), "up and down differ");
    assert!(up == bytes(&mut c, "both"), "the merged value differs");
}

#[test]
fn a_string_that_is_not_a_hyperloglog_is_rejected() {
    transcript(
        r#"
        > SET s "HYLL\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
        +OK
        > PFADD s a
        -WRONGTYPE Key is not a valid HyperLogLog string value.
        > PFCOUNT s
        -WRONGTYPE Key is not a valid HyperLogLog string value.
        > PFCOUNT missing s
        -WRONGTYPE Key is not a valid HyperLogLog string value.
        > PFMERGE new s
        -WRONGTYPE Key is not a valid HyperLogLog string value.
        > PFMERGE s new
        -WRONGTYPE Key is not a valid HyperLogLog string value.
        > PFDEBUG ENCODING s
        -WRONGTYPE Key is not a valid HyperLogLog string value.
        > EXISTS new
        :0
        > SET n 12345678901234567
        +OK
        > PFADD n a
        -WRONGTYPE Key is not a valid HyperLogLog string value.
        > SET form "HYLL\x02\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x7f\xff"
        +OK
        > PFCOUNT form
        -WRONGTYPE Key is not a valid HyperLogLog string value.
        > SET length "HYLL\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x7f\xff"
        +OK
        > PFCOUNT length
        -WRONGTYPE Key is not a valid HyperLogLog string value.
        > HSET hash f v
        :1
        > PFADD hash a
        -WRONGTYPE Operation against a key holding the wrong kind of value
        > PFCOUNT hash
        -WRONGTYPE Operation against a key holding the wrong kind of value
        > PFCOUNT s hash
        -WRONGTYPE Key is not a valid HyperLogLog string value.
        > PFMERGE new hash
        -WRONGTYPE Operation against a key holding the wrong kind of value
        > PFDEBUG DECODE hash
        -WRONGTYPE Operation against a key holding the wrong kind of value
        "#,
    );
}

#[test]
fn a_corrupt_hyperloglog_is_rejected() {
    transcript(
        r#"
        > SET short "HYLL\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x80\x7f\xfe"
        +OK
        > PFCOUNT short
        -INVALIDOBJ Corrupted HLL object detected
        > PFCOUNT short missing
        -INVALIDOBJ Corrupted HLL object detected
        > PFMERGE new short
        -INVALIDOBJ Corrupted HLL object detected
        > PFMERGE short
        -INVALIDOBJ Corrupted HLL object detected
        > PFDEBUG TODENSE short
        -INVALIDOBJ Corrupted HLL object detected
        > PFDEBUG GETREG short
        -INVALIDOBJ Corrupted HLL object detected
        > EXISTS new
        :0
        > SET long "HYLL\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x80\x7f\xff\x80"
        +OK
        > PFMERGE new long
        -INVALIDOBJ Corrupted HLL object detected
        > PFCOUNT long
        -INVALIDOBJ Corrupted HLL object detected
        > SET bare "HYLL\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x80"
        +OK
        > PFADD bare a
        -INVALIDOBJ Corrupted HLL object detected
        > PFADD bare
        :0
        "#,
    );
}

#[test]
fn elements_added_before_the_corruption_was_found_remain() {
    // The runs end after 8192 registers: `d` belongs to register 7292, `e` to one past the end.
    transcript(
        r#"
        > SET h "HYLL\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00_\xff"
        +OK
        > PFADD h e
        -INVALIDOBJ Corrupted HLL object detected
        > GET h
        "HYLL\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00_\xff"
        > PFADD h d e
        -INVALIDOBJ Corrupted HLL object detected
        > PFDEBUG DECODE h
        "Z:7292 v:1,1 Z:899"
        > GETRANGE h 8 15
        "\x00\x00\x00\x00\x00\x00\x00\x80"
        "#,
    );
}

#[test]
fn pfdebug_shows_the_registers_and_the_encoding() {
    let mut c = connect();
    c.transcript(
        r#"
        > PFADD h a
        :1
        > PFDEBUG encoding h
        +sparse
        > PFDEBUG Decode h
        "Z:12711 v:2,1 Z:3672"
        > PFDEBUG TODENSE h
        :1
        > PFDEBUG TODENSE h
        :0
        > PFDEBUG DECODE h
        -ERR HLL encoding is not sparse
        > PFDEBUG NOSUCH h
        -ERR Unknown PFDEBUG subcommand 'NOSUCH'
        > PFDEBUG "NOSUCH\x00 of these" h
        -ERR Unknown PFDEBUG subcommand 'NOSUCH'
        > PFDEBUG NOSUCH missing
        -ERR The specified key does not exist
        > PFDEBUG ENCODING
        -ERR wrong number of arguments for 'pfdebug' command
        > PFADD other a
        :1
        "#,
    );
    let registers = c.reply("PFDEBUG GETREG other").into_items();
    let set: Vec<(usize, String)> = registers.iter().map(ToString::to_string).enumerate().collect();
    let set: Vec<_> = set.into_iter().filter(|(_, rank)| rank != ":0").collect();
    assert_eq!((registers.len(), set), (16384, vec![(12711, ":2".to_owned())]));
    c.expect("PFDEBUG ENCODING other", "+dense");
}

#[test]
fn pfselftest_passes() {
    transcript(
        r#"
        > PFSELFTEST
        +OK
        > PFSELFTEST x
        -ERR wrong number of arguments for 'pfselftest' command
        "#,
    );
}

#[test]
fn command_info_of_hyperloglog_commands_matches_redis() {
    let mut c = connect();
    c.expect("COMMAND GETKEYS PFMERGE dest source other", r#"["dest", "source", "other"]"#);
    c.expect("COMMAND GETKEYS PFDEBUG ENCODING key", r#"["key"]"#);
    let expected = [
        ("pfadd", "[+write, +denyoom, +fast]", "[+@write, +@hyperloglog, +@fast]"),
        ("pfcount", "[+readonly]", "[+@read, +@hyperloglog, +@slow]"),
        ("pfmerge", "[+write, +denyoom]", "[+@write, +@hyperloglog, +@slow]"),
        (
            "pfdebug",
            "[+write, +denyoom, +admin]",
            "[+@write, +@hyperloglog, +@admin, +@slow, +@dangerous]",
        ),
        ("pfselftest", "[+admin]", "[+@hyperloglog, +@admin, +@slow, +@dangerous]"),
    ];
    for (name, flags, categories) in expected {
        let info = c.reply(&format!("COMMAND INFO {name}")).into_items().remove(0).into_items();
        assert_eq!(info[2].to_string(), flags, "{name}");
        assert_eq!(info[6].to_string(), categories, "{name}");
    }
}

#[test]
fn a_replay_restores_the_same_bytes() {
    if skipped_on_redis() {
        return;
    }
    let mut server = Server::start(&[]);
    let mut c = server.client();
    add_numbers(&mut c, "sparse", 0, 300);
    add_numbers(&mut c, "dense", 0, 5000);
    add_numbers(&mut c, "counted", 0, 300);
    c.integer("PFCOUNT counted");
    add_numbers(&mut c, "shown", 0, 3);
    c.reply("PFDEBUG GETREG shown");
    c.expect("PFMERGE merged sparse shown", "+OK");
    c.expect("CONFIG SET hll-sparse-max-bytes 100", "+OK");
    add_numbers(&mut c, "early", 0, 300);
    c.expect("PFMERGE from sparse", "+OK");
    c.expect("PEXPIREAT from 99999999999999", ":1");
    c.expect(r#"SET torn "HYLL\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00_\xff""#, "+OK");
    c.expect("PFADD torn d e", "-INVALIDOBJ Corrupted HLL object detected");
    let keys = ["sparse", "dense", "counted", "shown", "merged", "early", "from", "torn"];
    let before = keys.map(|key| bytes(&mut c, key));
    server.kill_9();
    server.restart();
    let mut c = server.client();
    for (key, before) in keys.iter().zip(before) {
        assert!(bytes(&mut c, key) == before, "{key} differs after replay");
    }
    c.expect("PEXPIRETIME from", ":99999999999999");
}
