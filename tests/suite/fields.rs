//! Hash fields that expire. Redis has them since 7.4, and HGETEX, HSETEX and HGETDEL since 8.0.

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::harness::{
    Client, Reply, Server, assert_survives_kill_9, check_aof, connect, connect_with, dump, encode,
    eventually, pipeline, records, rewrite, skipped_on_redis, unix_now_ms, wait_ms,
};
use crate::rng::Rng;

/// An expiry time, in Unix milliseconds, that is centuries away.
const FAR_MS: &str = "33177117420123";

/// A client, unless the server is a Redis older than `version`.
fn connect_since(version: &str) -> Option<Client> {
    let c = connect();
    c.redis_at_least(version).then_some(c)
}

/// Runs the test with a small hash and with a large one, which have different encodings.
fn in_both_forms(c: &mut Client, test: impl Fn(&mut Client)) {
    for entries in ["512", "0"] {
        c.expect(&format!("CONFIG SET hash-max-listpack-entries {entries}"), "+OK");
        c.expect("FLUSHALL", "+OK");
        test(c);
    }
}

// ---- Expiry times: Redis 7.4 -------------------------------------------------------------------------

#[test]
fn each_field_has_its_own_expiry_time() {
    let Some(mut c) = connect_since("7.4") else { return };
    in_both_forms(&mut c, |c| {
        c.transcript(
            r#"
            > HSET h a 1 b 2 c 3 d 4 e 5
            :5
            > HEXPIREAT h 33177117420 FIELDS 2 a missing
            [:1, :-2]
            > HPEXPIREAT h 33177117420123 FIELDS 1 b
            [:1]
            > HEXPIRETIME h FIELDS 4 a b c missing
            [:33177117420, :33177117421, :-1, :-2]
            > HPEXPIRETIME h FIELDS 4 a b c missing
            [:33177117420000, :33177117420123, :-1, :-2]
            > HEXPIRE h 1000 FIELDS 1 c
            [:1]
            > HTTL h FIELDS 3 c d missing
            [:1000, :-1, :-2]
            > HPEXPIRE h 999900 FIELDS 1 d
            [:1]
            > HTTL h FIELDS 1 d
            [:1000]
            > HPERSIST h FIELDS 4 a b e missing
            [:1, :1, :-1, :-2]
            > HPEXPIRETIME h FIELDS 2 a b
            [:-1, :-1]
            > HPTTL h FIELDS 2 a missing
            [:-1, :-2]
            > TTL h
            :-1
            sorted> HGETALL h
            ["1", "2", "3", "4", "5", "a", "b", "c", "d", "e"]
            "#,
        );
        let left = c.reply("HPTTL h FIELDS 1 c").to_string();
        let left: i64 = left.trim_matches(|c| "[:]".contains(c)).parse().expect("a number");
        assert!((1..=1_000_000).contains(&left), "{left}");
    });
}

#[test]
fn commands_on_fields_of_a_missing_key_reply_minus_2() {
    let Some(mut c) = connect_since("7.4") else { return };
    c.transcript(
        r#"
        > HEXPIRE missing 10 FIELDS 2 a b
        [:-2, :-2]
        > HPEXPIREAT missing 1 NX FIELDS 1 a
        [:-2]
        > HTTL missing FIELDS 2 a b
        [:-2, :-2]
        > HPEXPIRETIME missing FIELDS 1 a
        [:-2]
        > HPERSIST missing FIELDS 2 a a
        [:-2, :-2]
        > EXISTS missing
        :0
        > SET s v
        +OK
        > HEXPIRE s x y z 1 a
        -WRONGTYPE Operation against a key holding the wrong kind of value
        > HTTL s FIELDS 1 a
        -WRONGTYPE Operation against a key holding the wrong kind of value
        > HPERSIST s FIELDS 1 a
        -WRONGTYPE Operation against a key holding the wrong kind of value
        "#,
    );
}

#[test]
fn a_condition_is_checked_against_the_old_expiry_time_of_each_field() {
    let Some(mut c) = connect_since("7.4") else { return };
    in_both_forms(&mut c, |c| {
        c.transcript(
            r#"
            > HSET h none 1 early 2 late 3
            :3
            > HEXPIREAT h 33177110000 FIELDS 1 early
            [:1]
            > HEXPIREAT h 33177119999 FIELDS 1 late
            [:1]
            > HEXPIREAT h 33177115555 GT FIELDS 4 none early late missing
            [:0, :1, :0, :-2]
            > HEXPIREAT h 33177115555 gt FIELDS 1 early
            [:0]
            > HEXPIREAT h 33177114444 LT FIELDS 3 none early late
            [:1, :1, :1]
            > HEXPIREAT h 33177114444 LT FIELDS 1 none
            [:0]
            > HPERSIST h FIELDS 1 none
            [:1]
            > HEXPIREAT h 33177111111 XX FIELDS 2 none early
            [:0, :1]
            > HEXPIREAT h 33177112222 NX FIELDS 2 none early
            [:1, :0]
            > HEXPIRETIME h FIELDS 3 none early late
            [:33177112222, :33177111111, :33177114444]
            > HEXPIREAT h 1 NX FIELDS 2 none early
            [:0, :0]
            "#,
        );
    });
}

#[test]
fn an_expiry_time_in_the_past_deletes_the_field_at_once() {
    let Some(mut c) = connect_since("7.4") else { return };
    in_both_forms(&mut c, |c| {
        c.transcript(
            r#"
            > HSET h a 1 b 2 c 3 d 4
            :4
            > HEXPIRE h 0 FIELDS 2 a missing
            [:2, :-2]
            > HPEXPIREAT h 1 FIELDS 2 b b
            [:2, :-2]
            sorted> HGETALL h
            ["3", "4", "c", "d"]
            > HEXPIREAT h 0 FIELDS 2 c d
            [:2, :2]
            > EXISTS h
            :0
            > TYPE h
            +none
            "#,
        );
    });
}

#[test]
fn bad_arguments_get_the_errors_of_redis() {
    let Some(mut c) = connect_since("7.4") else { return };
    c.transcript(
        r#"
        > HSET h f 1
        :1
        > HEXPIRE h 10 FIELDS 1
        -ERR wrong number of arguments for 'hexpire' command
        > HTTL h FIELDS 1
        -ERR wrong number of arguments for 'httl' command
        > HEXPIRE h x FIELDS 1 f
        -ERR value is not an integer or out of range
        > HEXPIRE h -1 FIELDS 1 f
        -ERR invalid expire time, must be >= 0
        > HPEXPIREAT h -1 FIELDS 1 f
        -ERR invalid expire time, must be >= 0
        > HEXPIRE h 99999999999 FIELDS 1 f
        -ERR invalid expire time in 'hexpire' command
        > HPEXPIRE h 9223372036854775807 FIELDS 1 f
        -ERR invalid expire time in 'hpexpire' command
        > HEXPIREAT h 9223372036854775807 FIELDS 1 f
        -ERR invalid expire time in 'hexpireat' command
        > HPEXPIREAT h 70368744177664 FIELDS 1 f
        -ERR invalid expire time in 'hpexpireat' command
        > HPEXPIREAT h 70368744177663 FIELDS 1 f
        [:1]
        > HEXPIRE h 10 FIELDS 0 f
        -ERR Parameter `numFields` should be greater than 0
        > HEXPIRE h 10 FIELDS x f
        -ERR Parameter `numFields` should be greater than 0
        // From here on, as Redis 8.4 reads the options of HEXPIRE in any order: known from the tests of
        // servers that are compared with it.
        8.4> HEXPIRE h 10 FIELDS 2 f
        -ERR wrong number of arguments
        8.4> HEXPIRE h 10 FIELDS 1 f g
        -ERR unknown argument: g
        8.4> HEXPIRE h 10 FIELD 1 f
        -ERR unknown argument: FIELD
        8.4> HEXPIRE h 10 NX XX FIELDS 1 f
        -ERR Multiple condition flags specified
        8.4> HEXPIRE h 10 FIELDS 1 f GT LT
        -ERR Multiple condition flags specified
        8.4> HEXPIRE h 10 FIELDS 1 f FIELDS 1 f
        -ERR FIELDS keyword specified multiple times
        8.4> HEXPIRE h 10 NX XX FIELDS
        -ERR FIELDS requires at least numfields and one field argument
        8.4> HEXPIRE h 10 NX NX NX NX
        -ERR missing FIELDS argument
        > HTTL h FIELD 1 f
        -ERR Mandatory argument FIELDS is missing or not at the right position
        > HTTL h FIELDS 0 f
        -ERR Number of fields must be a positive integer
        > HPERSIST h FIELDS 2 f
        -ERR The `numfields` parameter must match the number of arguments
        > HPEXPIRETIME h FIELDS 1 f g
        -ERR The `numfields` parameter must match the number of arguments
        > HPEXPIRETIME h FIELDS 1 f
        [:70368744177663]
        8.4> HEXPIREAT h 33177117420 FIELDS 1 f LT
        [:1]
        "#,
    );
}

#[test]
fn setting_a_field_drops_its_expiry_time_and_incrementing_keeps_it() {
    let Some(mut c) = connect_since("7.4") else { return };
    in_both_forms(&mut c, |c| {
        c.transcript(
            r#"
            > HSET h set 1 mset 1 nx 1 by 1 float 1 gone 1
            :6
            > HEXPIREAT h 33177117420 FIELDS 6 set mset nx by float gone
            [:1, :1, :1, :1, :1, :1]
            > HSET h set 2
            :0
            > HMSET h mset 2
            +OK
            > HSETNX h nx 2
            :0
            > HINCRBY h by 1
            :2
            > HINCRBYFLOAT h float 0.5
            "1.5"
            > HDEL h gone
            :1
            > HSET h gone again
            :1
            > HEXPIRETIME h FIELDS 6 set mset nx by float gone
            [:-1, :-1, :33177117420, :33177117420, :33177117420, :-1]
            "#,
        );
    });
}

#[test]
fn fields_keep_their_expiry_times_when_their_hash_moves_or_is_copied() {
    let Some(mut c) = connect_since("7.4") else { return };
    in_both_forms(&mut c, |c| {
        c.transcript(
            r#"
            > HSET h a 1 b 2
            :2
            > HEXPIREAT h 33177117420 FIELDS 1 a
            [:1]
            > COPY h copy
            :1
            > RENAME h named
            +OK
            > COPY named moved
            :1
            > MOVE moved 1
            :1
            > HEXPIRETIME copy FIELDS 2 a b
            [:33177117420, :-1]
            > HEXPIRETIME named FIELDS 2 a b
            [:33177117420, :-1]
            > SWAPDB 0 1
            +OK
            > HEXPIRETIME moved FIELDS 2 a b
            [:33177117420, :-1]
            > HPEXPIRE moved 1 FIELDS 1 a
            [:1]
            > SWAPDB 1 0
            +OK
            "#,
        );
        // The sweeper finds it in its new database.
        c.expect("SELECT 1", "+OK");
        eventually("the field has expired", || c.integer("HLEN moved") == 1);
        c.expect("SELECT 0", "+OK");
        c.expect("HLEN copy", ":2");
    });
}

// ---- Expiry ------------------------------------------------------------------------------------------

#[test]
fn an_expired_field_is_hidden_from_every_command() {
    let Some(mut c) = connect_since("7.4") else { return };
    in_both_forms(&mut c, |c| {
        // So that most reads come before the sweeper.
        for _ in 0..3 {
            c.transcript(
                r#"
                > DEL h
                :0
                > HSET h gone 1 stays 2 also 3
                :3
                > HPEXPIRE h 5 FIELDS 2 gone also
                [:1, :1]
                "#,
            );
            wait_ms(5);
            c.transcript(
                r#"
                > HGET h gone
                nil
                > HMGET h gone stays
                [nil, "2"]
                > HGETALL h
                ["stays", "2"]
                > HKEYS h
                ["stays"]
                > HVALS h
                ["2"]
                > HEXISTS h gone
                :0
                > HSTRLEN h gone
                :0
                > HSCAN h 0 COUNT 100
                ["0", ["stays", "2"]]
                > HRANDFIELD h
                "stays"
                > HRANDFIELD h 5 WITHVALUES
                ["stays", "2"]
                > HRANDFIELD h -3
                ["stays", "stays", "stays"]
                > HTTL h FIELDS 2 gone stays
                [:-2, :-1]
                > HPEXPIRETIME h FIELDS 1 gone
                [:-2]
                > HPERSIST h FIELDS 1 gone
                [:-2]
                > HEXPIRE h 100 FIELDS 1 gone
                [:-2]
                > HSETNX h gone new
                :1
                > HINCRBY h also 7
                :7
                > HTTL h FIELDS 2 gone also
                [:-1, :-1]
                "#,
            );
            c.expect("DEL h", ":1");
        }
    });
}

/// A client of a server that removes nothing by itself, with a hash `h` whose fields have expired.
fn with_expired_fields(fields: &[&str], live: &str) -> Option<Client> {
    let mut c = connect_with(&["--enable-debug-command", "yes"]);
    if !c.redis_at_least("8.2") {
        return None;
    }
    c.expect("DEBUG SET-ACTIVE-EXPIRE 0", "+OK");
    let pairs: Vec<String> = fields.iter().map(|field| format!("{field} 1")).collect();
    c.reply(&format!("HSET h {} {live}", pairs.join(" ")));
    c.reply(&format!("HPEXPIRE h 1 FIELDS {} {}", fields.len(), fields.join(" ")));
    wait_ms(2);
    Some(c)
}

#[test]
fn a_hash_of_expired_fields_exists_until_they_are_removed_but_shows_none_of_them() {
    let Some(mut c) = with_expired_fields(&["a", "b"], "") else { return };
    c.transcript(
        r#"
        > EXISTS h
        :1
        > TYPE h
        +hash
        > HLEN h
        :2
        > HGETALL h
        []
        > HTTL h FIELDS 1 a
        [:-2]
        > TTL h
        :-1
        > GET h
        -WRONGTYPE Operation against a key holding the wrong kind of value
        > KEYS *
        ["h"]
        > SCAN 0 TYPE hash
        ["0", ["h"]]
        > RANDOMKEY
        "h"
        > SETNX h v
        :0
        > COPY h copy
        :1
        > HLEN copy
        :2
        > RENAME copy other
        +OK
        > HGETALL other
        []
        > DEL other
        :1
        > HPERSIST h FIELDS 1 a
        [:-2]
        > HDEL h zz
        :0
        > HSET h a 2
        :0
        > HGETALL h
        ["a", "2"]
        > HDEL h a b
        :2
        > EXISTS h
        :0
        > DEBUG SET-ACTIVE-EXPIRE 1
        +OK
        "#,
    );
}

#[test]
fn random_fields_are_chosen_from_those_that_have_not_expired() {
    let Some(mut c) = with_expired_fields(&["a", "b"], "") else { return };
    for command in ["HRANDFIELD h 2", "HRANDFIELD h -2", "HRANDFIELD h 2 WITHVALUES"] {
        c.expect(command, "[]");
    }
    c.expect("DEBUG SET-ACTIVE-EXPIRE 1", "+OK");
}

#[test]
fn a_write_that_reads_an_expired_field_removes_it_and_no_other() {
    for (command, reply, left) in [
        ("HSETNX h a 5", ":1", ":2"),
        ("HINCRBY h a 5", ":5", ":2"),
        ("HINCRBYFLOAT h a 5", "\"5\"", ":2"),
        ("HGETDEL h FIELDS 1 a", "[nil]", ":1"),
        ("HGETEX h PERSIST FIELDS 1 a", "[nil]", ":1"),
        ("HSETEX h FXX FIELDS 1 a 5", ":0", ":1"),
        ("HEXPIRE h 0 FIELDS 1 a", "[:2]", ":1"),
        // Redis 8.2 returns 0, for an old field, and keeps the key's other expired field too.
        ("HSET h a 5", ":0", ":2"),
    ] {
        let Some(mut c) = with_expired_fields(&["a", "b"], "") else { return };
        c.expect(command, reply);
        c.expect("HLEN h", left);
        c.expect("DEBUG SET-ACTIVE-EXPIRE 1", "+OK");
    }
}

/// Redis 8.2 gives the field a new expiry time, so that its old value shows again. Valkey does not.
#[test]
fn an_expired_field_cannot_be_given_a_later_expiry_time() {
    if skipped_on_redis() {
        return;
    }
    let Some(mut c) = with_expired_fields(&["a"], "") else { return };
    c.expect("HEXPIRE h 100 FIELDS 1 a", "[:-2]");
    c.expect("HGET h a", "nil");
}

#[test]
fn commands_on_expired_fields_are_replayed_as_they_were_executed() {
    if skipped_on_redis() {
        return;
    }
    let mut server = Server::start(&["--enable-debug-command", "yes"]);
    let mut c = server.client();
    c.expect("DEBUG SET-ACTIVE-EXPIRE 0", "+OK");
    let hashes = ["set", "add", "incr", "float", "move", "copy", "del", "keep", "nx", "past"];
    for key in hashes {
        c.expect(&format!("HSETEX {key} PX 1 FIELDS 2 a 1 b 2"), ":1");
    }
    wait_ms(2);
    c.transcript(
        r#"
        > HSET set a new
        :0
        > HSET add c new
        :1
        > HINCRBY incr a 5
        :5
        > HINCRBYFLOAT float a 1.5
        "1.5"
        > RENAME move moved
        +OK
        > COPY copy copied
        :1
        > HDEL del a
        :1
        > HSETEX keep KEEPTTL FIELDS 2 a new c new
        :1
        > HSETNX nx a new
        :1
        > HSETEX past EXAT 1 FIELDS 1 a new
        :1
        > MULTI
        +OK
        > HINCRBY moved b 7
        +QUEUED
        > HGETDEL copied FIELDS 1 a
        +QUEUED
        > EXEC
        [:7, [nil]]
        "#,
    );
    assert_survives_kill_9(&mut server);
}

/// A number in `INFO`.
fn info(c: &mut Client, name: &str) -> i64 {
    let text = c.text("INFO");
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{name} in {text}"))
}

#[test]
fn expired_fields_are_swept_and_counted_without_being_read() {
    if skipped_on_redis() {
        return;
    }
    let mut c = connect();
    for hash in 0..50 {
        for field in 0..100 {
            let expiry = if field < hash * 2 { "1" } else { "1000000" };
            let (hash, field) = (format!("h{hash}"), field.to_string());
            c.send(&["HSETEX", &hash, "PX", expiry, "FIELDS", "1", &field, "v"]);
        }
    }
    (0..5000).for_each(|_| assert_eq!(c.read_reply(), Reply::Integer(1)));
    c.expect("HSETEX gone PX 1 FIELDS 2 a 1 b 2", ":1");
    c.expect("SET string v PX 1", "+OK");
    let expired: i64 = (0..50).map(|hash| hash * 2).sum::<i64>() + 2;
    eventually("all is swept", || info(&mut c, "expired_subkeys") == expired);
    eventually("the keys too", || c.integer("DBSIZE") == 50);
    assert_eq!(info(&mut c, "expired_keys"), 1);
    let hashes = |c: &mut Client| {
        let text = c.text("INFO keyspace");
        text.trim().rsplit_once("subexpiry=").expect("subexpiry").1.to_owned()
    };
    assert_eq!(hashes(&mut c), "50");
    c.expect("DEL h0", ":1");
    c.expect("HDEL h49 98 99", ":2");
    c.expect("HPERSIST h48 FIELDS 4 96 97 98 99", "[:1, :1, :1, :1]");
    assert_eq!(hashes(&mut c), "47");
    c.expect("FLUSHALL", "+OK");
    c.expect("SET string v", "+OK");
    assert_eq!(hashes(&mut c), "0");
}

#[test]
fn many_fields_of_one_hash_that_expire_at_once_are_all_swept() {
    if skipped_on_redis() {
        return;
    }
    let mut server = Server::start(&[]);
    let mut c = server.client();
    let names: Vec<String> = (0..50_000).map(|n| n.to_string()).collect();
    let pairs = names.iter().flat_map(|name| [name.as_str(), "v"]);
    let set: Vec<&str> = ["HSET", "h"].into_iter().chain(pairs).collect();
    assert_eq!(c.call(&set), Reply::Integer(50_000));
    let expire = ["HPEXPIRE", "h", "1", "FIELDS", "50000"];
    let names = names.iter().map(String::as_str);
    c.call(&expire.into_iter().chain(names).collect::<Vec<_>>());
    c.expect("HSET h stays 1", ":1");
    eventually("all is swept", || info(&mut c, "expired_subkeys") == 50_000);
    c.expect("HGETALL h", r#"["stays", "1"]"#);
    assert_survives_kill_9(&mut server);
}

// ---- HGETEX, HSETEX, HGETDEL: Redis 8.0 --------------------------------------------------------------

#[test]
fn hgetex_returns_values_and_changes_expiry_times() {
    let Some(mut c) = connect_since("8.0") else { return };
    in_both_forms(&mut c, |c| {
        c.transcript(
            r#"
            > HSET h a 1 b 2 c 3 d 4
            :4
            > HGETEX h FIELDS 3 a missing b
            ["1", nil, "2"]
            > HGETEX missing FIELDS 2 a b
            [nil, nil]
            > HGETEX missing EX 10 FIELDS 1 a
            [nil]
            > EXISTS missing
            :0
            > HGETEX h EXAT 33177117420 FIELDS 2 a missing
            ["1", nil]
            > HGETEX h pxat 33177117420123 fields 1 b
            ["2"]
            > HPEXPIRETIME h FIELDS 3 a b c
            [:33177117420000, :33177117420123, :-1]
            > HGETEX h FIELDS 1 a
            ["1"]
            > HGETEX h PERSIST FIELDS 2 b c
            ["2", "3"]
            > HEXPIRETIME h FIELDS 3 a b c
            [:33177117420, :-1, :-1]
            > HGETEX h EX 1000 FIELDS 1 c
            ["3"]
            > HTTL h FIELDS 1 c
            [:1000]
            > HGETEX h PX 0 FIELDS 2 c c
            ["3", nil]
            > HGETEX h EXAT 1 FIELDS 3 a b d
            ["1", "2", "4"]
            > EXISTS h
            :0
            "#,
        );
    });
}

#[test]
fn hgetdel_returns_values_and_removes_them() {
    let Some(mut c) = connect_since("8.0") else { return };
    in_both_forms(&mut c, |c| {
        c.transcript(
            r#"
            > HSET h a 1 b 2 c 3
            :3
            > HGETDEL h FIELDS 3 a missing a
            ["1", nil, nil]
            > HGETDEL missing FIELDS 2 a b
            [nil, nil]
            sorted> HGETALL h
            ["2", "3", "b", "c"]
            > HGETDEL h FIELDS 2 b c
            ["2", "3"]
            > EXISTS h
            :0
            > HGETDEL h FIELD 1 b
            -ERR Mandatory argument FIELDS is missing or not at the right position
            > HGETDEL h FIELDS 0 b
            -ERR Number of fields must be a positive integer
            > HGETDEL h FIELDS 2 b
            -ERR The `numfields` parameter must match the number of arguments
            > HGETDEL h FIELDS 1
            -ERR wrong number of arguments for 'hgetdel' command
            "#,
        );
    });
}

#[test]
fn hsetex_sets_values_and_expiry_times_if_all_fields_meet_the_condition() {
    let Some(mut c) = connect_since("8.0") else { return };
    in_both_forms(&mut c, |c| {
        c.transcript(
            r#"
            > HSETEX h FIELDS 2 a 1 b 2
            :1
            > HSETEX h FNX EXAT 33177117420 FIELDS 2 b x c x
            :0
            > HSETEX h FXX EXAT 33177117420 FIELDS 2 b x c x
            :0
            > HSETEX missing FXX FIELDS 1 a 1
            :0
            sorted> HGETALL h
            ["1", "2", "a", "b"]
            > HSETEX h FXX EXAT 33177117420 FIELDS 2 a 3 b 4
            :1
            > HSETEX h PXAT 33177117420123 FNX FIELDS 1 c 5
            :1
            > HPEXPIRETIME h FIELDS 3 a b c
            [:33177117420000, :33177117420000, :33177117420123]
            > HSETEX h KEEPTTL FIELDS 2 a 6 d 7
            :1
            > HSETEX h FIELDS 1 b 8
            :1
            > HPEXPIRETIME h FIELDS 4 a b c d
            [:33177117420000, :-1, :33177117420123, :-1]
            sorted> HGETALL h
            ["5", "6", "7", "8", "a", "b", "c", "d"]
            > HSETEX h EX 0 FIELDS 2 a 9 new 9
            :1
            > HSETEX new PXAT 1 FIELDS 1 a 9
            :1
            > EXISTS new
            :0
            sorted> HKEYS h
            ["b", "c", "d"]
            > HSETEX h FNX PX 1000000 FIELDS 2 x 1 x 2
            :1
            > HGET h x
            "2"
            > HTTL h FIELDS 1 x
            [:1000]
            "#,
        );
    });
}

#[test]
fn the_options_of_hgetex_and_hsetex_are_checked() {
    let Some(mut c) = connect_since("8.4") else { return };
    c.transcript(
        r#"
        > HSETEX h EX 10 KEEPTTL FIELDS 1 a 1
        -ERR Only one of EX, PX, EXAT, PXAT or KEEPTTL arguments can be specified
        > HSETEX h EX 10 PX 10 FIELDS 1 a 1
        -ERR Only one of EX, PX, EXAT, PXAT or KEEPTTL arguments can be specified
        > HSETEX h FNX FXX FIELDS 1 a 1
        -ERR Only one of FXX or FNX arguments can be specified
        > HGETEX h EX 10 PERSIST FIELDS 1 a
        -ERR Only one of EX, PX, EXAT, PXAT or PERSIST arguments can be specified
        > HSETEX h PERSIST FIELDS 1 a 1
        -ERR unknown argument: PERSIST
        > HGETEX h KEEPTTL FIELDS 1 a
        -ERR unknown argument: KEEPTTL
        > HGETEX h fnx FIELDS 1 a
        -ERR unknown argument: fnx
        > HGETEX h XX FIELDS 1 a
        -ERR unknown argument: XX
        > HSETEX h FIELDS 0 a 1
        -ERR invalid number of fields
        > HSETEX h FIELDS 2 a 1
        -ERR wrong number of arguments
        > HSETEX h FIELDS 1 a 1 b
        -ERR unknown argument: b
        > HSETEX h FIELDS 1 a 1 FIELDS 1 b 1
        -ERR FIELDS keyword specified multiple times
        > HGETEX h FIELDS 1 a FIELDS 1 a
        -ERR FIELDS keyword specified multiple times
        > HGETEX h FIELDS 1 a b
        -ERR unknown argument: b
        > HGETEX h EX 10 PERSIST
        -ERR Only one of EX, PX, EXAT, PXAT or PERSIST arguments can be specified
        > HGETEX h FIELDS 2 a
        -ERR wrong number of arguments
        > HSETEX h EX x FIELDS 1 a 1
        -ERR value is not an integer or out of range
        > HSETEX h EX -1 FIELDS 1 a 1
        -ERR invalid expire time, must be >= 0
        > HSETEX h EXAT 99999999999 FIELDS 1 a 1
        -ERR invalid expire time in 'hsetex' command
        > HGETEX h PX 9223372036854775807 FIELDS 1 a
        -ERR invalid expire time in 'hgetex' command
        > EXISTS h
        :0
        > HSETEX h FIELDS 1 a 1 FNX EXAT 33177117420
        :1
        > HGETEX h FIELDS 1 a PERSIST
        ["1"]
        > HTTL h FIELDS 1 a
        [:-1]
        > SET s v
        +OK
        > HSETEX s FIELDS 1 a 1
        -WRONGTYPE Operation against a key holding the wrong kind of value
        > HGETEX s FIELDS 1 a
        -WRONGTYPE Operation against a key holding the wrong kind of value
        > HGETDEL s FIELDS 1 a
        -WRONGTYPE Operation against a key holding the wrong kind of value
        "#,
    );
}

#[test]
fn hsetex_takes_a_condition_on_the_key_as_valkey_9_does() {
    if skipped_on_redis() {
        return;
    }
    connect().transcript(
        r#"
        > HSETEX h XX FIELDS 1 a 1
        :0
        > HSETEX h NX FIELDS 1 a 1
        :1
        > HSETEX h NX FIELDS 1 b 1
        :0
        > HSETEX h XX FNX EXAT 33177117420 FIELDS 1 b 1
        :1
        > HEXPIRETIME h FIELDS 2 a b
        [:-1, :33177117420]
        "#,
    );
}

// ---- HRANDFIELD --------------------------------------------------------------------------------------

#[test]
fn hrandfield_returns_distinct_fields_or_repeats_with_a_negative_count() {
    let mut c = connect();
    in_both_forms(&mut c, |c| {
        let fields: Vec<String> = (0..300).map(|n| format!("f{n}")).collect();
        for field in &fields {
            c.call(&["HSET", "h", field, &format!("v{field}")]);
        }
        for (count, expected) in [("1", 1), ("20", 20), ("299", 299), ("300", 300), ("999", 300)] {
            let mut drawn = c.call(&["HRANDFIELD", "h", count]).into_items();
            drawn.sort_by_key(Reply::to_string);
            assert_eq!(drawn.len(), expected);
            drawn.dedup();
            assert_eq!(drawn.len(), expected, "a field came twice");
            let pairs = c.call(&["HRANDFIELD", "h", count, "WITHVALUES"]).into_items();
            assert_eq!(pairs.len(), expected * 2);
            for pair in pairs.chunks(2) {
                let text = |reply: &Reply| reply.clone().into_text();
                assert_eq!(format!("v{}", text(&pair[0])), text(&pair[1]));
            }
        }
        let mut met = BTreeMap::new();
        for field in c.call(&["HRANDFIELD", "h", "-9000"]).into_items() {
            *met.entry(field.into_text()).or_insert(0) += 1;
        }
        // About 30 of each are expected.
        assert!(met.len() > 290 && met.values().all(|times| *times < 120), "{met:?}");
    });
}

#[test]
fn hrandfield_has_the_reply_shapes_and_limits_of_redis() {
    let mut c = connect();
    c.transcript(
        r#"
        > HSET h a 1
        :1
        > HRANDFIELD h
        "a"
        > HRANDFIELD h 0
        []
        > HRANDFIELD h 3
        ["a"]
        > HRANDFIELD h -3
        ["a", "a", "a"]
        > HRANDFIELD h 3 withvalues
        ["a", "1"]
        > HRANDFIELD h -2 WITHVALUES
        ["a", "1", "a", "1"]
        > HRANDFIELD missing
        nil
        > HRANDFIELD missing -3 WITHVALUES
        []
        > HRANDFIELD h x
        -ERR value is not an integer or out of range
        > HRANDFIELD h 1 x
        -ERR syntax error
        > HRANDFIELD h 1 WITHVALUES x
        -ERR syntax error
        > HRANDFIELD h -9223372036854775808
        -ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807
        > HRANDFIELD h -9223372036854775807 WITHVALUES
        -ERR value is out of range
        > HRANDFIELD h 4611686018427387904 WITHVALUES
        -ERR value is out of range
        > HRANDFIELD h 4611686018427387903 WITHVALUES
        ["a", "1"]
        > HRANDFIELD h 9223372036854775807
        ["a"]
        > SET s v
        +OK
        > HRANDFIELD s
        -WRONGTYPE Operation against a key holding the wrong kind of value
        > HRANDFIELD s 1
        -WRONGTYPE Operation against a key holding the wrong kind of value
        > HRANDFIELD s x
        -ERR value is not an integer or out of range
        "#,
    );
    c.reply("HELLO 3");
    c.transcript(
        r#"
        > HRANDFIELD h -2 WITHVALUES
        [["a", "1"], ["a", "1"]]
        > HRANDFIELD h 1
        ["a"]
        > HRANDFIELD missing
        _
        > HRANDFIELD missing 1 WITHVALUES
        []
        "#,
    );
}

// ---- The log -----------------------------------------------------------------------------------------

/// Every command that concerns the expiry of fields, at least once with an effect and once without.
const WRITES: &str = r#"
    HSET h a 1 b 2 c 3 d 4 e 5 f 6 g 7 \xff 8
    HEXPIRE h 1000 FIELDS 2 a missing
    HPEXPIRE h 1000000 NX FIELDS 2 a b
    HEXPIREAT h 33177117420 FIELDS 1 c
    HPEXPIREAT h 33177117420123 FIELDS 2 d "\xff"
    HEXPIRE h 0 FIELDS 1 e
    HPERSIST h FIELDS 2 c f
    HGETEX h EX 1000 FIELDS 2 f missing
    HGETEX h PERSIST FIELDS 1 a
    HGETEX h PXAT 1 FIELDS 1 g
    HSETEX h EX 1000 FIELDS 2 k 1 "\r\n" "\x00"
    HSETEX h KEEPTTL FIELDS 2 k 2 l 3
    HSETEX h FNX PX 1000000 FIELDS 1 k 3
    HSETEX h FXX PXAT 33177117420123 FIELDS 1 l 4
    HSETEX h EX 0 FIELDS 1 b 0
    HINCRBY h k 5
    HINCRBYFLOAT h k 0.5
    HINCRBYFLOAT h new 0.5
    HSET h d 9
    HSET gone a 1
    HGETDEL gone FIELDS 2 a missing
    HSET gone2 a 1
    HEXPIREAT gone2 1 FIELDS 1 a
    HSETEX large EX 1000 FIELDS 2 a 1 b 0123456789012345678901234567890123456789012345678901234567890123456789
    HSETEX large PXAT 33177117420123 FIELDS 2 c 1 d 2
    HDEL large a
    HPERSIST large FIELDS 1 c
    COPY large copied
    COPY h copied2 DB 3
    RENAME copied renamed
    MOVE renamed 2
    SWAPDB 2 4
    HSETEX both EX 1000 FIELDS 1 a 1
    EXPIRE both 2000
"#;

fn write_all(c: &mut Client) {
    for command in WRITES.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let reply = c.reply(command);
        assert!(!matches!(reply, Reply::Error(_)), "{command}: {reply}");
    }
}

#[test]
fn every_expiry_time_survives_kill_9_and_a_rewrite() {
    if skipped_on_redis() {
        return;
    }
    let mut server = Server::start(&[]);
    write_all(&mut server.client());
    let all = dump(&mut server.client());
    let timed = all.values().filter(|hash| hash.contains("expiring")).count();
    assert_eq!((all.len(), timed), (5, 5), "{all:?}");
    assert_survives_kill_9(&mut server);
    rewrite(&mut server.client());
    let (good, said) = check_aof(&server.log_path(), &[]);
    assert!(good, "{said}");
    assert_survives_kill_9(&mut server);
    assert_eq!(dump(&mut server.client()), all);
}

#[test]
fn the_log_holds_expiry_times_of_fields_not_durations() {
    if skipped_on_redis() {
        return;
    }
    let server = Server::start(&[]);
    let mut c = server.client();
    write_all(&mut c);
    for record in records(&server.log_path()) {
        let words: Vec<_> = record.iter().map(|word| String::from_utf8_lossy(word)).collect();
        let relative = words.iter().any(|word| ["EX", "PX", "EXAT"].contains(&&**word));
        let relative =
            relative || ["HEXPIRE", "HPEXPIRE", "HGETEX", "HEXPIREAT"].contains(&&*words[0]);
        assert!(!relative, "{words:?}");
    }
    let (good, said) = check_aof(&server.log_path(), &[]);
    assert!(good, "{said}");
    let length = || fs::metadata(server.log_path()).expect("the log").len();
    let before = length();
    let idle = "HEXPIRE h 10 FIELDS 1 missing|HEXPIRE missing 10 FIELDS 1 a|HEXPIREAT h 99 GT FIELDS 1 d\
        |HPERSIST h FIELDS 2 d missing|HGETEX h FIELDS 1 a|HGETEX h PERSIST FIELDS 1 d|HGETEX h EX 5 FIELDS 1 x\
        |HGETDEL h FIELDS 1 missing|HSETEX h FNX FIELDS 1 d 1|HSETEX missing FXX EX 5 FIELDS 1 a 1\
        |HSETEX missing PXAT 1 FIELDS 1 a 1|HTTL h FIELDS 1 a|HRANDFIELD h 5|HSETEX h EX x FIELDS 1 a 1";
    for command in idle.split('|') {
        c.reply(command);
        assert_eq!(length(), before, "logged: {command}");
    }
}

#[test]
fn a_write_that_finds_expired_fields_replays_to_the_same_hash() {
    if skipped_on_redis() {
        return;
    }
    let mut server = Server::start(&[]);
    let mut c = server.client();
    for round in 0..20 {
        let (counter, nx, whole) =
            (format!("counter{round}"), format!("nx{round}"), format!("whole{round}"));
        for hash in [&counter, &nx, &whole] {
            c.call(&["HSETEX", hash, "PX", "2", "FIELDS", "1", "f", "5"]);
        }
        c.call(&["HSET", &counter, "stays", "1"]);
        c.call(&["HSET", &nx, "stays", "1"]);
        wait_ms(2);
        assert_eq!(c.call(&["HINCRBY", &counter, "f", "1"]), Reply::Integer(1));
        assert_eq!(c.call(&["HSETNX", &nx, "f", "new"]), Reply::Integer(1));
        assert_eq!(
            c.call(&["HSETEX", &whole, "FNX", "FIELDS", "1", "f", "new"]),
            Reply::Integer(1)
        );
    }
    assert_survives_kill_9(&mut server);
    server.client().expect("HGETALL whole7", r#"["f", "new"]"#);
}

#[test]
fn a_field_that_expires_while_the_server_is_down_does_not_show_after_it() {
    if skipped_on_redis() {
        return;
    }
    let mut server = Server::start(&[]);
    let mut c = server.client();
    let expiry = unix_now_ms() + 500;
    c.expect(&format!("HSETEX h PXAT {expiry} FIELDS 2 n 5 kept 1"), ":1");
    c.expect("HINCRBY h n 1", ":6");
    c.expect("HINCRBYFLOAT h n 1.5", "\"7.5\"");
    c.expect("HSETEX h KEEPTTL FIELDS 1 n 8", ":1");
    c.expect("HPERSIST h FIELDS 1 kept", "[:1]");
    c.expect("COPY h copy", ":1");
    c.expect("HDEL copy kept", ":1");
    assert!(unix_now_ms() < expiry, "the machine is too slow for this test");
    server.kill_9();
    wait_ms(expiry - unix_now_ms());
    server.restart();
    let mut c = server.client();
    c.expect("HGETALL h", r#"["kept", "1"]"#);
    c.expect("HGETALL copy", "[]");
    eventually("the sweeper has removed it", || c.integer("DBSIZE") == 1);
}

// ---- Concurrency -------------------------------------------------------------------------------------

/// The value of each field is its own expiry time, or `never`.
const NEVER: &str = "never";

/// Sets fields of hashes that all writers share, but each writer its own fields. Returns what must be
/// there in the end.
fn write_fields(mut c: Client, writer: u64, mut random: Rng) -> BTreeMap<(String, String), String> {
    let mut last = BTreeMap::new();
    for _ in 0..120 {
        let mut commands = Vec::new();
        for _ in 0..50 {
            let hash = format!("h{}", random.below(6));
            let field = format!("{writer}:{}", random.below(200));
            let soon = (unix_now_ms() + random.below(20) as i64).to_string();
            let value = [&soon, &soon, &soon, FAR_MS, NEVER, ""][random.below(6)];
            commands.push(match value {
                "" => encode(&["HDEL", &hash, &field]),
                NEVER => encode(&["HSET", &hash, &field, NEVER]),
                at => encode(&["HSETEX", &hash, "PXAT", at, "FIELDS", "1", &field, at]),
            });
            last.insert((hash, field), value.to_owned());
        }
        pipeline(&mut c, &commands);
    }
    last.retain(|_, value| value == FAR_MS || value == NEVER);
    last
}

/// Reads the hashes by every kind of command. No reply may show a field that had expired before the
/// request.
fn read_fields(mut c: Client, mut random: Rng, running: &AtomicBool) {
    while running.load(Ordering::SeqCst) {
        let hash = format!("h{}", random.below(6));
        let asked = unix_now_ms();
        let pairs = match random.below(4) {
            0 => c.call(&["HGETALL", &hash]),
            1 => c.call(&["HRANDFIELD", &hash, "30", "WITHVALUES"]),
            2 => c.call(&["HRANDFIELD", &hash, "-30", "WITHVALUES"]),
            _ => c.call(&["HSCAN", &hash, "0", "COUNT", "300"]).into_items().remove(1),
        };
        for pair in pairs.into_items().chunks(2) {
            let value = pair[1].clone().into_text();
            let expired = value != NEVER && value.parse::<i64>().expect("a time") < asked;
            assert!(!expired, "{} was there at {asked}", pair[0]);
        }
    }
}

#[test]
fn readers_never_see_expired_fields_and_writers_lose_none() {
    if skipped_on_redis() {
        return;
    }
    let mut server = Server::start(&["--hash-max-listpack-entries", "300"]);
    let running = AtomicBool::new(true);
    let mut expected = BTreeMap::new();
    let mut random = Rng::of_run();
    thread::scope(|scope| {
        for _ in 0..2 {
            let (c, random, running) = (server.client(), random.fork(), &running);
            scope.spawn(move || read_fields(c, random, running));
        }
        let writers: Vec<_> = (0..3)
            .map(|writer| {
                let (c, random) = (server.client(), random.fork());
                scope.spawn(move || write_fields(c, writer, random))
            })
            .collect();
        rewrite(&mut server.client());
        for writer in writers {
            expected.extend(writer.join().expect("a writer"));
        }
        running.store(false, Ordering::SeqCst);
    });
    wait_ms(50);
    let mut found = BTreeMap::new();
    let mut c = server.client();
    for n in 0..6 {
        let hash = format!("h{n}");
        for pair in c.call(&["HGETALL", &hash]).into_items().chunks(2) {
            let (field, value) = (pair[0].clone().into_text(), pair[1].clone().into_text());
            let expiry = c.call(&["HPEXPIRETIME", &hash, "FIELDS", "1", &field]).to_string();
            let of_value = if value == NEVER { "[:-1]".to_owned() } else { format!("[:{value}]") };
            assert_eq!(expiry, of_value, "{hash} {field}");
            found.insert((hash.clone(), field), value);
        }
    }
    assert_eq!(found, expected);
    assert_survives_kill_9(&mut server);
    rewrite(&mut server.client());
    assert_survives_kill_9(&mut server);
}
