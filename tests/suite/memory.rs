//! `maxmemory`: which keys are evicted, what is refused, and what INFO says about memory.

use std::collections::BTreeSet;
use std::iter;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{Client, Reply, Server, connect, connect_with, eventually, skipped_on_redis};

const OOM: &str = "-OOM command not allowed when used memory > 'maxmemory'.";

fn info(c: &mut Client, name: &str) -> u64 {
    let text = c.text("INFO");
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name}:")));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().expect("a number")
}

/// Sets the limit to what is used now and this many bytes more.
fn limit(c: &mut Client, policy: &str, more_bytes: u64) {
    c.expect(&format!("CONFIG SET maxmemory-policy {policy}"), "+OK");
    let limit = info(c, "used_memory") - info(c, "mem_not_counted_for_evict") + more_bytes;
    c.expect(&format!("CONFIG SET maxmemory {limit}"), "+OK");
}

/// Sets keys with values of 1000 bytes.
fn fill(c: &mut Client, names: impl Iterator<Item = String>, suffix: &str) {
    let value = "x".repeat(1000);
    let names: Vec<String> = names.collect();
    for batch in names.chunks(100) {
        let commands: String =
            batch.iter().map(|name| format!("SET {name} {value} {suffix}\r\n")).collect();
        c.send_raw(commands);
        batch.iter().for_each(|_| assert_eq!(c.read_reply().to_string(), "+OK"));
    }
}

fn names(prefix: &str, count: usize) -> impl Iterator<Item = String> {
    (0..count).map(move |number| format!("{prefix}:{number}"))
}

fn keys(c: &mut Client, pattern: &str) -> BTreeSet<String> {
    c.reply(&format!("KEYS {pattern}")).into_items().into_iter().map(Reply::into_text).collect()
}

#[test]
fn without_eviction_a_full_server_refuses_what_may_use_memory_and_nothing_else() {
    let mut c = connect();
    // Redis 7.0 refuses to queue any command.
    if !c.redis_at_least("8.2") {
        return;
    }
    c.expect("SET there 1", "+OK");
    c.expect("CONFIG SET maxmemory 1", "+OK");
    c.transcript(&format!(
        "
        > SET a 1
        {OOM}
        > HSET h f v
        {OOM}
        > APPEND there x
        {OOM}
        > GET there
        \"1\"
        > EXPIRE there 1000
        :1
        > MULTI
        +OK
        > SET a 1
        {OOM}
        > EXEC
        -EXECABORT Transaction discarded because of previous errors.
        > MULTI
        +OK
        > GET there
        +QUEUED
        > DEL there
        +QUEUED
        > EXEC
        [\"1\", :1]
        > CONFIG SET maxmemory 0
        +OK
        > MULTI
        +OK
        > SET a 1
        +QUEUED
        "
    ));
    let mut other = c.another();
    other.expect("CONFIG SET maxmemory 1", "+OK");
    c.expect(
        "EXEC",
        "-EXECABORT Transaction discarded because of: OOM command not allowed when used memory > \
         'maxmemory'.",
    );
    other.expect("CONFIG SET maxmemory 0", "+OK");
    c.expect("SET a 1", "+OK");
}

#[test]
fn the_least_recently_used_keys_are_evicted_first() {
    let mut c = connect();
    fill(&mut c, names("old", 500), "");
    // The clock has to move on. Redis's has a resolution of a second.
    eventually("they have been idle", || c.integer("OBJECT IDLETIME old:0") >= 2);
    fill(&mut c, names("new", 500), "");
    limit(&mut c, "allkeys-lru", 0);
    fill(&mut c, names("more", 250), "");
    let (old, new) = (keys(&mut c, "old:*").len(), keys(&mut c, "new:*").len());
    assert!(old < 330 && new > 450, "{old} old and {new} new keys are left");
    assert!(info(&mut c, "evicted_keys") >= 200);
    c.expect("CONFIG SET maxmemory 0", "+OK");
}

#[test]
fn the_least_frequently_used_keys_are_evicted_first() {
    let mut c = connect();
    c.expect("CONFIG SET maxmemory-policy allkeys-lfu", "+OK");
    c.expect("CONFIG SET lfu-log-factor 0", "+OK");
    fill(&mut c, names("often", 300), "");
    for name in names("often", 300) {
        for _ in 0..10 {
            c.reply(&format!("GET {name}"));
        }
    }
    assert!(c.integer("OBJECT FREQ often:0") >= 10);
    fill(&mut c, names("seldom", 300), "");
    limit(&mut c, "allkeys-lfu", 0);
    fill(&mut c, names("more", 150), "");
    let (often, seldom) = (keys(&mut c, "often:*").len(), keys(&mut c, "seldom:*").len());
    assert!(often > 280 && often > seldom, "{often} often and {seldom} seldom used keys are left");
    c.expect("CONFIG SET maxmemory 0", "+OK");
    c.expect("CONFIG SET lfu-log-factor 10", "+OK");
    c.expect("CONFIG SET maxmemory-policy noeviction", "+OK");
}

#[test]
fn volatile_policies_evict_only_keys_that_expire() {
    let all = ["volatile-lru", "volatile-lfu", "volatile-random", "volatile-ttl", "volatile-lrm"];
    for policy in all {
        let mut c = connect();
        if matches!(c.reply(&format!("CONFIG SET maxmemory-policy {policy}")), Reply::Error(_)) {
            continue; // Redis has LRM since 8.6
        }
        fill(&mut c, names("stays", 200), "");
        fill(&mut c, names("soon", 200), "EX 1000");
        fill(&mut c, names("later", 200), "EX 100000");
        limit(&mut c, policy, 0);
        fill(&mut c, names("more", 100), "");
        assert_eq!(keys(&mut c, "stays:*").len(), 200, "{policy}");
        assert_eq!(keys(&mut c, "more:*").len(), 100, "{policy}");
        let (soon, later) = (keys(&mut c, "soon:*").len(), keys(&mut c, "later:*").len());
        assert!(soon + later < 330, "{policy}: {soon} and {later} are left");
        if policy == "volatile-ttl" {
            assert!(soon < 130 && later > 180, "{soon} and {later} are left");
        }
        // Once there is nothing left that expires, writes are refused.
        let value = "x".repeat(100_000);
        let refused = (0..50).any(|n| c.reply(&format!("SET big:{n} {value}")).to_string() == OOM);
        assert!(refused, "{policy}");
        assert_eq!(keys(&mut c, "soon:*").len() + keys(&mut c, "later:*").len(), 0, "{policy}");
        c.expect("CONFIG SET maxmemory 0", "+OK");
        c.expect("CONFIG SET maxmemory-policy noeviction", "+OK");
        c.expect("FLUSHALL", "+OK");
    }
}

#[test]
fn any_key_may_be_evicted_at_random() {
    let mut c = connect();
    fill(&mut c, names("key", 500), "");
    limit(&mut c, "allkeys-random", 0);
    fill(&mut c, names("more", 250), "");
    let left = keys(&mut c, "*").len();
    assert!((400..600).contains(&left), "{left} keys are left");
    c.expect("CONFIG SET maxmemory 0", "+OK");
    c.expect("CONFIG SET maxmemory-policy noeviction", "+OK");
}

#[test]
fn an_eviction_is_published_counted_logged_and_changes_watched_keys() {
    let mut c = connect();
    c.expect("CONFIG SET notify-keyspace-events Ee", "+OK");
    c.expect("SET victim 1 EX 1000", "+OK");
    let mut listener = c.another();
    listener.reply("PSUBSCRIBE *");
    let mut watcher = c.another();
    watcher.expect("WATCH victim", "+OK");
    let mut reader = c.another();
    reader.reply("HELLO 3");
    reader.expect("CLIENT TRACKING ON", "+OK");
    reader.expect("GET victim", "\"1\"");
    let before = info(&mut c, "evicted_keys");
    c.expect("CONFIG SET maxmemory-policy volatile-lru", "+OK");
    c.expect("CONFIG SET maxmemory 1", "+OK");
    eventually("the only key that may be evicted is", || c.integer("EXISTS victim") == 0);
    let event = "[\"pmessage\", \"*\", \"__keyevent@0__:evicted\", \"victim\"]";
    assert_eq!(listener.read_reply().to_string(), event);
    assert_eq!(reader.read_reply().to_string(), ">[\"invalidate\", [\"victim\"]]");
    assert_eq!(info(&mut c, "evicted_keys") - before, 1);
    c.expect("CONFIG SET maxmemory 0", "+OK");
    c.expect("CONFIG SET maxmemory-policy noeviction", "+OK");
    c.expect("CONFIG SET notify-keyspace-events \"\"", "+OK");
    watcher.expect("MULTI", "+OK");
    watcher.expect("PING", "+QUEUED");
    watcher.expect("EXEC", "nil*");
}

#[test]
fn the_least_recently_modified_keys_are_evicted_first_however_often_they_are_read() {
    let mut c = connect();
    if matches!(c.reply("CONFIG SET maxmemory-policy allkeys-lrm"), Reply::Error(_)) {
        return; // Redis has it since 8.6
    }
    c.expect("CONFIG SET maxmemory-policy noeviction", "+OK");
    fill(&mut c, names("read", 500), "");
    c.expect("SET expired 1", "+OK");
    c.expect("SET changed 1", "+OK");
    c.expect("HSET hash field 1", ":1");
    c.expect("CONFIG SET maxmemory-policy allkeys-lrm", "+OK");
    eventually("they have been idle", || c.integer("OBJECT IDLETIME read:0") >= 2);
    fill(&mut c, names("new", 500), "");
    for command in ["EXPIRE expired 1000", "APPEND changed 2", "HINCRBY hash field 1"] {
        c.reply(command);
    }
    names("read", 500).for_each(|name| _ = c.reply(&format!("GET {name}")));
    c.reply("TOUCH read:0");
    for name in ["expired", "changed", "hash", "new:499"] {
        let idle = c.integer(&format!("OBJECT IDLETIME {name}"));
        assert!(idle < c.integer("OBJECT IDLETIME read:0"), "{name}: {idle}");
    }
    limit(&mut c, "allkeys-lrm", 0);
    fill(&mut c, names("more", 250), "");
    let (read, new) = (keys(&mut c, "read:*").len(), keys(&mut c, "new:*").len());
    assert!(read < 330 && new > 450, "{read} old and {new} new keys are left");
    c.expect("CONFIG SET maxmemory 0", "+OK");
    c.expect("CONFIG SET maxmemory-policy noeviction", "+OK");
}

#[test]
fn nothing_is_evicted_during_a_pause() {
    let mut c = connect();
    fill(&mut c, names("key", 500), "");
    c.expect("CONFIG SET maxmemory-policy allkeys-lru", "+OK");
    c.expect("CLIENT PAUSE 100000 WRITE", "+OK");
    let evicted = info(&mut c, "evicted_keys");
    c.expect("CONFIG SET maxmemory 1", "+OK");
    let started = Instant::now();
    while started.elapsed() < Duration::from_millis(300) {
        assert_eq!(info(&mut c, "evicted_keys"), evicted);
    }
    c.expect("CLIENT UNPAUSE", "+OK");
    eventually("they are evicted afterwards", || info(&mut c, "evicted_keys") > evicted);
    c.expect("CONFIG SET maxmemory 0", "+OK");
    c.expect("CONFIG SET maxmemory-policy noeviction", "+OK");
}

#[test]
fn values_stay_whole_while_their_pages_are_cleaned_others_read_and_the_log_is_rewritten() {
    if skipped_on_redis() {
        return;
    }
    const KEYS: usize = 2000;
    let mut server = Server::start(&["--enable-debug-command", "yes"]);
    let mut c = server.client();
    // A value says to which key it belongs. Each round has other lengths, so that records move.
    let overwrite = |c: &mut Client, round: usize| {
        for key in 0..KEYS {
            let value = format!("{key}:").repeat(1 + (key * 7 + round * 31) % 100);
            c.send_raw(format!("SET key:{key} {value}\r\n"));
        }
        (0..KEYS).for_each(|_| assert_eq!(c.read_reply().to_string(), "+OK"));
    };
    overwrite(&mut c, 0);
    let has_ended = AtomicBool::new(false);
    let read = |first: usize| {
        let mut c = server.client();
        let keys = (first..1_000_000).step_by(17).map(|number| number % KEYS);
        for key in keys.take_while(|_| !has_ended.load(SeqCst)) {
            let value = c.text(&format!("GET key:{key}"));
            let rest = value.replace(&format!("{key}:"), "");
            assert!(!value.is_empty() && rest.is_empty(), "key:{key} holds {value}");
        }
    };
    thread::scope(|scope| {
        for first in [0, 1] {
            scope.spawn(move || read(first));
        }
        for round in 1..=10 {
            if round % 3 == 0 {
                c.expect("BGREWRITEAOF", "+Background append only file rewriting started");
            }
            overwrite(&mut c, round);
            c.expect("DEBUG CHECK", "+OK");
            eventually("it is rewritten", || info(&mut c, "aof_rewrite_in_progress") == 0);
        }
        has_ended.store(true, SeqCst);
    });
    let digest = c.text("DEBUG DIGEST");
    server.kill_9();
    server.restart();
    assert_eq!(server.client().text("DEBUG DIGEST"), digest);
}

#[test]
fn swapping_empty_databases_takes_no_memory() {
    let mut c = connect();
    c.expect("SWAPDB 0 1", "+OK");
    let before = info(&mut c, "used_memory");
    for db in 2..16 {
        c.expect(&format!("SWAPDB 1 {db}"), "+OK");
    }
    let grown = info(&mut c, "used_memory") - before;
    assert!(grown < 200_000, "{grown} bytes");
}

#[test]
fn what_was_evicted_stays_away_after_a_kill() {
    if skipped_on_redis() {
        return;
    }
    let limits = ["--maxmemory", "2mb", "--maxmemory-policy", "allkeys-lru"];
    let mut server = Server::start(&[&limits[..], &["--enable-debug-command", "yes"]].concat());
    let mut c = server.client();
    fill(&mut c, names("key", 5000), "");
    c.expect("BGREWRITEAOF", "+Background append only file rewriting started");
    fill(&mut c, names("other", 5000), "");
    // The last command may have taken a little more.
    eventually("memory is within its limit", || {
        info(&mut c, "used_memory") - info(&mut c, "mem_not_counted_for_evict") <= 2 << 20
    });
    let keys = c.integer("DBSIZE");
    assert!(keys < 3000 && info(&mut c, "evicted_keys") > 7000, "{keys} keys are left");
    c.expect("DEBUG CHECK", "+OK");
    server.kill_9();
    server.restart();
    let mut c = server.client();
    assert_eq!(c.integer("DBSIZE"), keys);
    c.expect("SET one v", "+OK");
    c.expect("DEBUG CHECK", "+OK");
}

#[test]
fn a_server_that_was_killed_while_it_evicted_is_within_its_limit_again() {
    if skipped_on_redis() {
        return;
    }
    let limits = ["--maxmemory", "2mb", "--maxmemory-policy", "allkeys-lru"];
    let mut server = Server::start(&[&limits[..], &["--enable-debug-command", "yes"]].concat());
    let value = "x".repeat(1000);
    for round in 0..3 {
        let mut c = server.client();
        // It is killed while it works through these.
        let commands = (0..20_000).map(|n| format!("SET key:{round}:{n} {value}\r\n"));
        c.try_send_raw(commands.collect::<String>());
        let mut other = server.client();
        eventually("it evicts", || info(&mut other, "evicted_keys") > 1000);
        server.kill_9();
        server.restart();
        let mut c = server.client();
        assert!(c.integer("DBSIZE") > 100);
        c.expect("SET one v", "+OK");
        eventually("it is within the limit", || info(&mut c, "used_memory") <= 2 << 20);
        c.expect("GET one", "\"v\"");
        c.expect("DEBUG CHECK", "+OK");
    }
}

#[test]
fn the_uses_of_a_key_are_counted_only_with_an_lfu_policy() {
    let mut c = connect();
    c.expect("SET a 1", "+OK");
    let no_lfu = "-ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please \
                  note that when switching between policies at runtime LRU and LFU data will take \
                  some time to adjust.";
    let lfu = "-ERR An LFU maxmemory policy is selected, idle time not tracked. Please note that when \
               switching between policies at runtime LRU and LFU data will take some time to adjust.";
    c.expect("OBJECT FREQ a", no_lfu);
    c.expect("OBJECT FREQ missing", "nil");
    c.expect("CONFIG SET maxmemory-policy volatile-lfu", "+OK");
    c.expect("OBJECT IDLETIME a", lfu);
    c.expect("OBJECT IDLETIME missing", "nil");
    c.expect("SET new 1", "+OK");
    c.expect("OBJECT FREQ new", ":5");
    c.expect("CONFIG SET lfu-log-factor 0", "+OK");
    c.expect("GET new", "\"1\"");
    c.expect("OBJECT FREQ new", ":6");
    // An overwritten key keeps its counter.
    c.expect("SET new 2", "+OK");
    assert!(c.integer("OBJECT FREQ new") >= 6);
    c.expect("CONFIG SET lfu-log-factor 10", "+OK");
    c.expect("CONFIG SET maxmemory-policy noeviction", "+OK");
}

#[test]
fn the_largest_clients_are_disconnected_beyond_maxmemory_clients() {
    let mut c = connect();
    c.expect("CLIENT NO-EVICT ON", "+OK");
    let mut large = c.another();
    large.expect("MULTI", "+OK");
    large.expect(&format!("ECHO {}", "x".repeat(3_000_000)), "+QUEUED");
    c.expect("CONFIG SET maxmemory-clients 2mb", "+OK");
    eventually("the large client is gone", || info(&mut c, "evicted_clients") > 0);
    c.expect("PING", "+PONG");
    c.expect("CONFIG SET maxmemory-clients 0", "+OK");
}

#[test]
fn what_a_client_subscribes_to_and_watches_counts_towards_maxmemory_clients() {
    let mut c = connect();
    c.expect("CLIENT NO-EVICT ON", "+OK");
    let names: Vec<String> = names("name", 10_000).collect();
    for command in ["SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE", "WATCH", "CLIENT TRACKING ON BCAST"] {
        if command.starts_with("CLIENT") && skipped_on_redis() {
            continue; // Redis counts 24 bytes for each prefix
        }
        let mut client = c.another();
        let id = client.integer("CLIENT ID");
        let mut shown = || -> u64 {
            let line = c.text(&format!("CLIENT LIST ID {id}"));
            let number =
                line.split_once("tot-mem=").unwrap_or_else(|| panic!("{command}: {line:?}")).1;
            number.split(' ').next().and_then(|number| number.parse().ok()).expect("a number")
        };
        let before = shown();
        if command.starts_with("CLIENT") {
            client.reply("HELLO 3");
            let prefixes = names[..1000].iter().map(|name| format!(" PREFIX {name}:"));
            client.expect(&format!("{command}{}", prefixes.collect::<String>()), "+OK");
        } else {
            let words = iter::once(command).chain(names.iter().map(String::as_str));
            client.send(&words.collect::<Vec<_>>());
            let replies = if command == "WATCH" { 1 } else { names.len() };
            (0..replies).for_each(|_| drop(client.read_reply()));
        }
        let now = shown();
        assert!(now > before + 60_000, "{command}: {before}, then {now}");
        let evicted = info(&mut c, "evicted_clients");
        c.expect(&format!("CONFIG SET maxmemory-clients {now}"), "+OK");
        eventually("the client is gone", || info(&mut c, "evicted_clients") > evicted);
        client.expect_closed();
        c.expect("CONFIG SET maxmemory-clients 0", "+OK");
    }
}

#[test]
fn maxmemory_may_be_a_share_of_the_memory_there_is() {
    if skipped_on_redis() {
        return;
    }
    let mut c = connect_with(&["--maxmemory", "50%"]);
    let total = info(&mut c, "total_system_memory");
    let limit = info(&mut c, "maxmemory");
    assert!(limit > 0 && limit <= total / 2, "{limit} of {total}");
    c.expect(
        "CONFIG SET maxmemory 101%",
        "-ERR CONFIG SET failed (possibly related to argument 'maxmemory') - percentage argument must \
         be between 1 and 100",
    );
    c.expect("CONFIG SET maxmemory-clients 5%", "+OK");
    c.expect("CONFIG GET maxmemory-clients", "[\"maxmemory-clients\", \"5%\"]");
}

#[test]
fn used_memory_grows_by_what_the_data_takes_and_shrinks_with_it() {
    let mut c = connect();
    let data = |c: &mut Client| info(c, "used_memory_dataset");
    let before = data(&mut c);
    fill(&mut c, names("key", 5000), ""); // a Redis may free meanwhile what another test has left
    let full = data(&mut c);
    assert!(full - before > 4_500_000, "{before} became {full}");
    c.expect("FLUSHALL", "+OK");
    eventually("the memory is free again", || data(&mut c) + 4_500_000 < full);
}

#[test]
fn watched_keys_tracked_keys_and_subscriptions_count_as_used_memory() {
    if skipped_on_redis() {
        return;
    }
    let mut c = connect_with(&["--enable-debug-command", "yes"]);
    let name = "n".repeat(10_000);
    let used = |c: &mut Client| info(c, "used_memory");
    let mut other = c.another();
    for (command, end) in
        [("WATCH", "UNWATCH"), ("SUBSCRIBE", "RESET"), ("GET", "CLIENT TRACKING OFF")]
    {
        if command == "GET" {
            other.reply("HELLO 3");
            other.expect("CLIENT TRACKING ON", "+OK");
        }
        let before = used(&mut c);
        // One by one: then the buffers of the client stay small.
        for number in 0..100 {
            other.reply(&format!("{command} {name}{number}"));
        }
        c.expect("DEBUG CHECK", "+OK");
        eventually(&format!("{command} is counted"), || {
            used(&mut c).saturating_sub(before) >= 1_000_000
        });
        other.reply(end);
        eventually("it is free again", || used(&mut c).saturating_sub(before) < 500_000);
        c.expect("DEBUG CHECK", "+OK");
    }
}

#[test]
fn the_time_for_which_memory_exceeds_its_limit_is_counted() {
    let mut c = connect();
    let times = ["current_eviction_exceeded_time", "total_eviction_exceeded_time"];
    let [current, total] = times.map(|name| move |c: &mut Client| info(c, name));
    c.expect("SET a 1", "+OK");
    c.expect("CONFIG RESETSTAT", "+OK");
    assert_eq!((current(&mut c), total(&mut c)), (0, 0));
    c.expect("CONFIG SET maxmemory 1", "+OK");
    eventually("time passes", || {
        c.reply("SET a 1");
        current(&mut c) > 20
    });
    c.expect("CONFIG SET maxmemory 1gb", "+OK");
    c.expect("SET a 1", "+OK");
    eventually("there is room again", || current(&mut c) == 0);
    assert!(total(&mut c) > 20);
    c.expect("CONFIG RESETSTAT", "+OK");
    assert_eq!(total(&mut c), 0);
    c.expect("CONFIG SET maxmemory 0", "+OK");
}

#[test]
fn values_that_a_thread_frees_are_counted() {
    let mut c = connect();
    c.expect("CONFIG RESETSTAT", "+OK");
    let fields: String = (0..1000).map(|number| format!(" {number} v")).collect();
    c.reply(&format!("HSET large{fields}"));
    c.expect("UNLINK large", ":1");
    eventually("it is freed", || info(&mut c, "lazyfreed_objects") == 1);
    (0..10).for_each(|number| c.expect(&format!("SET key:{number} v"), "+OK"));
    c.expect("FLUSHALL ASYNC", "+OK");
    eventually("the keys are freed", || info(&mut c, "lazyfreed_objects") == 11);
    assert_eq!(info(&mut c, "lazyfree_pending_objects"), 0);
    c.expect("CONFIG RESETSTAT", "+OK");
    assert_eq!(info(&mut c, "lazyfreed_objects"), 0);
}
