//! The server's reports about itself: INFO's statistics, the slow log, latency and CONFIG REWRITE.

use std::collections::BTreeMap;
use std::fs;

use crate::harness::{
    Client, Reply, Server, TempDir, connect, eventually, skipped_on_redis, unix_now_ms,
};

/// The fields of a section of INFO, by name.
fn info(c: &mut Client, section: &str) -> BTreeMap<String, String> {
    let text = c.text(&format!("INFO {section}"));
    let lines = text.split("\r\n").filter(|line| !line.is_empty() && !line.starts_with('#'));
    let field = |line: &str| line.split_once(':').map(|(name, value)| (name.into(), value.into()));
    lines.map(|line| field(line).unwrap_or_else(|| panic!("not a field: {line:?}"))).collect()
}

#[track_caller]
fn number(c: &mut Client, section: &str, name: &str) -> u64 {
    let fields = info(c, section);
    let value = fields.get(name).unwrap_or_else(|| panic!("no {name} in {fields:?}"));
    value.parse().unwrap_or_else(|_| panic!("{name} is {value}"))
}

/// A command's `calls`, `rejected_calls` and `failed_calls` in INFO.
fn command_stats(c: &mut Client, name: &str) -> Option<(u64, u64, u64)> {
    let fields = info(c, "commandstats");
    let line = fields.get(&format!("cmdstat_{name}"))?;
    let values: BTreeMap<&str, &str> =
        line.split(',').map(|part| part.split_once('=').expect("name=value")).collect();
    let names: Vec<&str> = line.split(',').map(|part| part.split('=').next().unwrap()).collect();
    assert_eq!(names, ["calls", "usec", "usec_per_call", "rejected_calls", "failed_calls"]);
    assert!(values["usec"].parse::<u64>().is_ok() && values["usec_per_call"].contains('.'));
    let number = |name| values[name].parse().expect("a number");
    Some((number("calls"), number("rejected_calls"), number("failed_calls")))
}

// ---- Counters ----------------------------------------------------------------------------------------

#[test]
fn every_call_is_counted_by_its_command() {
    let mut c = connect();
    c.expect("CONFIG RESETSTAT", "+OK");
    let pipeline = "SET k v\r\nGET k\r\nGET k\r\nGET none\r\nget k\r\nGET k\r\nINCR k\r\n";
    c.exchange(
        pipeline,
        "+OK\r\n$1\r\nv\r\n$1\r\nv\r\n$-1\r\n$1\r\nv\r\n$1\r\nv\r\n\
         -ERR value is not an integer or out of range\r\n",
    );
    c.expect("CONFIG GET timeout", "[\"timeout\", \"0\"]");
    assert_eq!(command_stats(&mut c, "get"), Some((5, 0, 0)));
    assert_eq!(command_stats(&mut c, "set"), Some((1, 0, 0)));
    assert_eq!(command_stats(&mut c, "incr"), Some((1, 0, 1)));
    assert_eq!(command_stats(&mut c, "config|get"), Some((1, 0, 0)));
    assert_eq!(command_stats(&mut c, "append"), None);
}

#[test]
fn a_long_pipeline_is_counted_exactly() {
    let mut c = connect();
    c.expect("CONFIG RESETSTAT", "+OK");
    // A single send, which the server reads in several parts, with other commands in between.
    let mut sent = String::new();
    for number in 0..2000 {
        sent.push_str(if number % 7 == 3 { "EXISTS k\r\n" } else { "STRLEN k\r\n" });
    }
    c.exchange(&sent, ":0\r\n".repeat(2000));
    let exists = (0..2000).filter(|number| number % 7 == 3).count() as u64;
    assert_eq!(command_stats(&mut c, "exists"), Some((exists, 0, 0)));
    assert_eq!(command_stats(&mut c, "strlen"), Some((2000 - exists, 0, 0)));
    assert_eq!(number(&mut c, "stats", "keyspace_misses"), 2000);
    let Reply::Array(histograms) = c.reply("LATENCY HISTOGRAM strlen") else { panic!("no array") };
    let strlen = histograms[1].clone().into_items();
    assert_eq!(strlen[1].to_string(), format!(":{}", 2000 - exists));
    let steps = strlen[3].clone().into_items();
    assert_eq!(steps.last().map(ToString::to_string), Some(format!(":{}", 2000 - exists)));
}

#[test]
fn each_command_of_a_transaction_is_counted_once() {
    let mut c = connect();
    c.expect("CONFIG RESETSTAT", "+OK");
    c.expect("CONFIG SET slowlog-log-slower-than 0", "+OK");
    c.expect("SLOWLOG RESET", "+OK");
    c.transcript(
        r#"
        > MULTI
        +OK
        > SET k v
        +QUEUED
        > GET k
        +QUEUED
        > GET k
        +QUEUED
        > GET none
        +QUEUED
        > INCR k
        +QUEUED
        > EXEC
        [+OK, "v", "v", nil, -ERR value is not an integer or out of range]
        > CONFIG SET slowlog-log-slower-than -1
        +OK
        "#,
    );
    assert_eq!(command_stats(&mut c, "get"), Some((3, 0, 0)));
    assert_eq!(command_stats(&mut c, "set"), Some((1, 0, 0)));
    assert_eq!(command_stats(&mut c, "incr"), Some((1, 0, 1)));
    assert_eq!(command_stats(&mut c, "multi"), Some((1, 0, 0)));
    assert_eq!(command_stats(&mut c, "exec"), Some((1, 0, 0)));
    let stats = info(&mut c, "stats");
    assert_eq!((stats["keyspace_hits"].as_str(), stats["keyspace_misses"].as_str()), ("2", "1"));
    assert_eq!(stats["total_error_replies"], "1");
    // The slow log has the commands of the transaction, not EXEC.
    let slow = ["INCR", "GET", "GET", "GET", "SET", "MULTI", "SLOWLOG"];
    let found = slow_commands(&mut c);
    assert!(found.iter().zip(slow).all(|(found, name)| found.starts_with(&format!("[\"{name}\""))));
    assert_eq!(found.len(), slow.len(), "{found:?}");
}

#[test]
fn rejected_and_failed_calls_are_counted_separately() {
    let mut c = connect();
    c.expect("CONFIG RESETSTAT", "+OK");
    c.transcript(
        r#"
        > HSET h f v
        :1
        > GET
        -ERR wrong number of arguments for 'get' command
        > GET a b
        -ERR wrong number of arguments for 'get' command
        > GET h
        -WRONGTYPE Operation against a key holding the wrong kind of value
        "#,
    );
    c.expect("NOSUCH", "-ERR unknown command 'NOSUCH', with args beginning with: ");
    assert_eq!(command_stats(&mut c, "get"), Some((1, 2, 1)));
    let errors = info(&mut c, "errorstats");
    assert_eq!(errors["errorstat_ERR"], "count=3");
    assert_eq!(errors["errorstat_WRONGTYPE"], "count=1");
    assert_eq!(number(&mut c, "stats", "total_error_replies"), 4);
}

#[test]
fn only_reads_count_as_hits_and_misses() {
    let mut c = connect();
    let mut grows = |command: &str, hits: u64, misses: u64| {
        let of = |c: &mut Client| {
            let stats = info(c, "stats");
            let number = |name: &str| stats[name].parse::<u64>().expect("a number");
            (number("keyspace_hits"), number("keyspace_misses"))
        };
        let before = of(&mut c);
        c.reply(command);
        let after = of(&mut c);
        assert_eq!((after.0 - before.0, after.1 - before.1), (hits, misses), "{command}");
    };
    grows("MSET a 1 b 2 c 3", 0, 0);
    grows("HSET h f v", 0, 0);
    for (command, hits, misses) in [
        ("GET a", 1, 0),
        ("GET none", 0, 1),
        ("GET h", 1, 0),
        ("MGET a b none h", 3, 1),
        ("EXISTS a a none", 2, 1),
        ("HGET h f", 1, 0),
        ("HGET h none", 1, 0),
        ("HGETALL none", 0, 1),
        ("STRLEN a", 1, 0),
        ("TTL a", 1, 0),
        ("TYPE none", 0, 1),
        ("GETEX a", 1, 0),
        ("GETEX none", 0, 1),
        ("GETSET a 2", 1, 0),
        ("SET a 3 GET", 1, 0),
        ("SET a 4 NX", 0, 0),
        ("SET a 5 XX", 0, 0),
        ("COPY a d", 1, 0),
        ("BITOP OR e a none", 1, 1),
        ("BITCOUNT a", 1, 0),
        ("GETBIT none 1", 0, 1),
        ("GETDEL d", 1, 0),
        ("GETDEL d", 0, 1),
        ("LCS h a", 2, 0),
        ("PFCOUNT none", 0, 1),
        ("PFCOUNT h", 1, 0),
        ("OBJECT ENCODING none", 0, 1),
        // Nor do commands that look at something other than the value.
        ("MEMORY USAGE a", 0, 0),
        ("MEMORY USAGE none", 0, 0),
        // Lookups of a write command do not count.
        ("INCR a", 0, 0),
        ("APPEND a x", 0, 0),
        ("HSET h f w", 0, 0),
        ("HDEL none f", 0, 0),
        ("EXPIRE a 100", 0, 0),
        ("PERSIST a", 0, 0),
        ("DEL a none", 0, 0),
    ] {
        grows(command, hits, misses);
    }
}

#[test]
fn bytes_and_connections_are_counted() {
    let mut c = connect();
    c.expect("CONFIG RESETSTAT", "+OK");
    c.another().expect("PING", "+PONG");
    let stats = info(&mut c, "stats");
    let number = |name: &str| stats[name].parse::<u64>().expect("a number");
    assert_eq!(number("total_connections_received"), 1);
    assert_eq!(number("rejected_connections"), 0);
    assert!((20..1000).contains(&number("total_net_input_bytes")));
    assert!(number("total_net_output_bytes") >= 7);
    assert_eq!((stats["expired_keys"].as_str(), stats["evicted_keys"].as_str()), ("0", "0"));
    c.expect("SET k v PX 1", "+OK");
    eventually("the key has expired", || number_of_expired(&mut c) == 1);
}

#[test]
fn bytes_without_a_command_are_counted_and_a_reset_clears_those_of_its_own_batch() {
    let mut c = connect();
    let mut other = c.another();
    other.send_raw(b"\r\n".repeat(1000));
    drop(other);
    let received = |c: &mut Client| number(c, "stats", "total_net_input_bytes");
    eventually("the bytes are counted", || received(&mut c) >= 2000);
    let pipeline = format!("SET k {}\r\nCONFIG RESETSTAT\r\n", "x".repeat(2000));
    c.exchange(pipeline, b"+OK\r\n+OK\r\n");
    assert!(received(&mut c) < 2000);
}

fn number_of_expired(c: &mut Client) -> u64 {
    c.reply("GET k");
    number(c, "stats", "expired_keys")
}

#[test]
fn the_rate_of_commands_rises_under_load() {
    let mut c = connect();
    eventually("the rate has risen", || {
        (0..100).for_each(|_| c.expect("PING", "+PONG"));
        let stats = info(&mut c, "stats");
        let number = |name: &str| stats.get(name).and_then(|text| text.parse::<f64>().ok());
        number("instantaneous_ops_per_sec").is_some_and(|rate| rate > 0.0)
            && number("instantaneous_input_kbps").is_some_and(|rate| rate > 0.0)
            && number("instantaneous_output_kbps").is_some_and(|rate| rate > 0.0)
    });
}

#[test]
fn config_resetstat_clears_the_statistics() {
    let mut c = connect();
    c.expect("GET k", "nil");
    c.reply("NOSUCH");
    c.expect("CONFIG RESETSTAT", "+OK");
    let stats = info(&mut c, "stats");
    for name in ["keyspace_misses", "total_error_replies", "total_connections_received"] {
        assert_eq!(stats[name], "0", "{name}");
    }
    assert_eq!(info(&mut c, "errorstats").len(), 0);
    assert_eq!(command_stats(&mut c, "get"), None);
    c.reply("BGREWRITEAOF");
    eventually("the log is rewritten", || number(&mut c, "persistence", "aof_rewrites") > 0);
    c.expect("CONFIG RESETSTAT", "+OK");
    assert_eq!(number(&mut c, "persistence", "aof_rewrites"), 0);
    c.reply("LATENCY HISTOGRAM get")
        .into_items()
        .is_empty()
        .then_some(())
        .expect("there must be no histogram");
}

/// Redis counts logins since 7.2, and connections since 7.4.
#[test]
fn disconnections_at_a_limit_and_failed_logins_are_counted() {
    if skipped_on_redis() {
        return;
    }
    let mut c = connect();
    let fields = [
        "client_output_buffer_limit_disconnections",
        "client_query_buffer_limit_disconnections",
        "acl_access_denied_auth",
    ];
    let counts = |c: &mut Client| fields.map(|name| number(c, "stats", name));
    assert_eq!(counts(&mut c), [0, 0, 0]);
    c.expect("CONFIG SET client-output-buffer-limit \"pubsub 1mb 0 0\"", "+OK");
    c.expect("CONFIG SET client-query-buffer-limit 1mb", "+OK");
    let mut slow = c.another();
    slow.expect("SUBSCRIBE news", "[\"subscribe\", \"news\", :1]");
    let large = "x".repeat(600_000);
    eventually("it is disconnected", || c.call(&["PUBLISH", "news", &large]).to_string() == ":0");
    let mut greedy = c.another();
    greedy.expect("MULTI", "+OK");
    greedy.call(&["ECHO", &large]);
    assert_eq!(greedy.call(&["ECHO", &large]), Reply::Closed);
    c.reply("AUTH nobody x");
    c.reply("HELLO 3 AUTH nobody x");
    assert_eq!(counts(&mut c), [1, 1, 2]);
    c.expect("CONFIG RESETSTAT", "+OK");
    assert_eq!(counts(&mut c), [0, 0, 2], "Redis does not reset what was denied");
}

// ---- INFO --------------------------------------------------------------------------------------------

#[test]
fn detailed_sections_are_shown_only_on_request() {
    let mut c = connect();
    let titles = |c: &mut Client, command: &str| -> Vec<String> {
        let text = c.text(command);
        text.split("\r\n").filter_map(|line| line.strip_prefix("# ")).map(str::to_owned).collect()
    };
    for command in ["INFO", "INFO default"] {
        let shown = titles(&mut c, command);
        assert!(shown.contains(&"Errorstats".into()), "{shown:?}");
        assert!(!shown.contains(&"Commandstats".into()) && !shown.contains(&"Latencystats".into()));
    }
    for command in ["INFO all", "INFO everything"] {
        let shown = titles(&mut c, command);
        let curious = ["Commandstats", "Errorstats", "Latencystats"];
        let found: Vec<&String> =
            shown.iter().filter(|title| curious.contains(&title.as_str())).collect();
        assert_eq!(found, curious);
    }
    assert_eq!(titles(&mut c, "INFO latencystats CPU"), ["CPU", "Latencystats"]);
    let with_default = titles(&mut c, "INFO commandstats default");
    assert!(
        with_default.contains(&"Commandstats".into()) && with_default.contains(&"Server".into())
    );
}

#[test]
fn info_has_the_fields_that_tools_read() {
    if !cfg!(target_os = "linux") {
        return; // the figures of memory and CPU time come from /proc
    }
    let mut c = connect();
    c.expect("SET k v EX 1000", "+OK");
    // The first are read by redis-cli --stat, the others by metrics exporters and libraries.
    let fields = "used_memory used_memory_human used_memory_rss used_memory_peak used_memory_peak_human \
                  total_system_memory maxmemory maxmemory_policy connected_clients blocked_clients \
                  maxclients total_commands_processed total_connections_received \
                  aof_rewrite_in_progress rdb_bgsave_in_progress loading async_loading db0 \
                  uptime_in_seconds uptime_in_days process_id run_id os arch_bits executable config_file \
                  redis_version redis_mode tcp_port keyspace_hits keyspace_misses evicted_keys \
                  expired_keys total_net_input_bytes total_net_output_bytes total_error_replies \
                  role connected_slaves master_repl_offset used_cpu_sys used_cpu_user cluster_enabled \
                  aof_enabled aof_last_bgrewrite_status hz lru_clock \
                  clients_in_timeout_table mem_fragmentation_ratio \
                  used_memory_overhead used_memory_dataset used_memory_dataset_perc \
                  used_memory_peak_perc used_memory_lua mem_allocator number_of_cached_scripts mem_aof_buffer \
                  rdb_last_save_time rdb_last_bgsave_status rdb_last_bgsave_time_sec \
                  rdb_current_bgsave_time_sec latest_fork_usec sync_full sync_partial_ok \
                  sync_partial_err evicted_clients unexpected_error_replies \
                  master_replid second_repl_offset repl_backlog_histlen \
                  active_defrag_running slave_expires_tracked_keys migrate_cached_sockets";
    let newer = if c.redis_at_least("7.4") {
        "listener0 watching_clients total_blocking_keys acl_access_denied_cmd"
    } else {
        ""
    };
    let info = info(&mut c, "everything");
    for name in fields.split_whitespace().chain(newer.split_whitespace()) {
        assert!(info.contains_key(name), "no {name} in {info:?}");
    }
    assert!(info["used_memory_human"].ends_with(['K', 'M', 'G']));
    assert!(info["db0"].starts_with("keys=1,expires=1"));
    let used: f64 = info["used_cpu_user"].parse().expect("seconds");
    assert!(used >= 0.0);
}

#[test]
fn info_counts_keys_by_their_size_if_it_is_asked() {
    let mut c = connect();
    if !c.redis_at_least("8.0") {
        return;
    }
    for command in ["SET empty \"\"", "SET five 12345", "SET seven 1234567", "SETRANGE long 1023 x"]
    {
        c.reply(command);
    }
    c.expect("HSET small f v", ":1");
    c.expect("HSET large a 1 b 2 c 3", ":3");
    c.expect("SELECT 3", "+OK");
    c.expect("HSET other a 1 b 2", ":2");
    let expected = "# Keysizes\r\ndb0_distrib_strings_sizes:0=1,4=2,1K=1\r\n\
                    db0_distrib_hashes_items:1=1,2=1\r\ndb3_distrib_hashes_items:2=1\r\n";
    assert_eq!(c.text("INFO keysizes"), expected);
}

#[test]
fn info_tells_of_watching_clients_and_of_a_pause() {
    let mut c = connect();
    if !c.redis_at_least("7.4") {
        return;
    }
    let mut other = c.another();
    other.expect("WATCH k", "+OK");
    assert_eq!(info(&mut c, "clients")["watching_clients"], "1");
    other.expect("UNWATCH", "+OK");
    assert_eq!(info(&mut c, "clients")["watching_clients"], "0");
    if skipped_on_redis() {
        return; // Valkey's
    }
    c.expect("CLIENT PAUSE 100000 WRITE", "+OK");
    let paused = info(&mut c, "clients");
    assert_eq!((&*paused["paused_reason"], &*paused["paused_actions"]), ("client_pause", "write"));
    let left: u64 = paused["paused_timeout_milliseconds"].parse().expect("a number");
    assert!((50_000..=100_000).contains(&left), "{left}");
    c.expect("CLIENT UNPAUSE", "+OK");
    assert_eq!(info(&mut c, "clients")["paused_actions"], "none");
}

#[test]
fn info_shows_the_percentiles_in_the_setting() {
    let mut c = connect();
    c.expect("CONFIG SET latency-tracking-info-percentiles \"50 99 99.9\"", "+OK");
    c.expect("CONFIG RESETSTAT", "+OK");
    c.expect("GET k", "nil");
    let percentiles = |c: &mut Client| {
        let line = info(c, "latencystats")["latency_percentiles_usec_get"].clone();
        let part = |part: &str| -> (String, f64) {
            let (name, value) = part.split_once('=').expect("p50=1.003");
            assert_eq!(value.split_once('.').expect("a point").1.len(), 3, "{value}");
            (name.into(), value.parse().expect("microseconds"))
        };
        line.split(',').map(part).collect::<Vec<_>>()
    };
    let names =
        |found: Vec<(String, f64)>| found.into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    assert_eq!(names(percentiles(&mut c)), ["p50", "p99", "p99.9"]);
    c.expect("CONFIG SET latency-tracking-info-percentiles \"0 25.5 100\"", "+OK");
    assert_eq!(names(percentiles(&mut c)), ["p0", "p25.5", "p100"]);
    c.expect("CONFIG SET latency-tracking no", "+OK");
    assert!(info(&mut c, "latencystats").is_empty());
    c.expect("GETBIT k 1", ":0");
    c.expect("LATENCY HISTOGRAM getbit", "[]");
    assert_eq!(
        command_stats(&mut c, "getbit"),
        Some((1, 0, 0)),
        "calls are counted even without latency tracking"
    );
    c.expect("GET k", "nil");
    let found = c.reply("LATENCY HISTOGRAM get").to_string();
    assert!(
        found.starts_with("[\"get\", [\"calls\", :1, "),
        "only calls with latency tracking are in the histogram: {found}"
    );
    c.transcript(
        r#"
        > CONFIG SET latency-tracking-info-percentiles abc
        -ERR CONFIG SET failed (possibly related to argument 'latency-tracking-info-percentiles') - Invalid latency-tracking-info-percentiles parameters
        > CONFIG SET latency-tracking-info-percentiles nan
        -ERR CONFIG SET failed (possibly related to argument 'latency-tracking-info-percentiles') - Invalid latency-tracking-info-percentiles parameters
        > CONFIG SET latency-tracking-info-percentiles "50 101"
        -ERR CONFIG SET failed (possibly related to argument 'latency-tracking-info-percentiles') - latency-tracking-info-percentiles parameters should sit between [0.0,100.0]
        > CONFIG GET latency-tracking-info-percentiles
        ["latency-tracking-info-percentiles", "0 25.5 100"]
        > CONFIG SET latency-tracking-info-percentiles ""
        +OK
        > CONFIG GET latency-tracking-info-percentiles
        ["latency-tracking-info-percentiles", ""]
        > CONFIG SET latency-tracking-info-percentiles "50 99 99.9"
        +OK
        "#,
    );
}

// ---- SLOWLOG -----------------------------------------------------------------------------------------

/// The entries of the slow log, each as its arguments.
fn slow_commands(c: &mut Client) -> Vec<String> {
    let entries = c.reply("SLOWLOG GET -1").into_items();
    entries.into_iter().map(|entry| entry.into_items()[3].to_string()).collect()
}

#[test]
fn with_a_limit_of_0_every_command_is_in_the_slow_log() {
    let mut c = connect();
    c.expect("CONFIG SET slowlog-log-slower-than 0", "+OK");
    c.expect("SLOWLOG RESET", "+OK");
    c.exchange("get a\r\nget b\r\nget c\r\nget d\r\n", "$-1\r\n".repeat(4));
    c.expect("SET \"a b\" \"c\\r\\nd\"", "+OK");
    c.expect("CLIENT SETNAME tester", "+OK");
    c.expect("PING", "+PONG");
    c.expect("CONFIG SET slowlog-log-slower-than -1", "+OK");
    c.expect("PING", "+PONG");
    assert_eq!(
        slow_commands(&mut c),
        [
            "[\"PING\"]",
            "[\"CLIENT\", \"SETNAME\", \"tester\"]",
            "[\"SET\", \"a b\", \"c\\r\\nd\"]",
            "[\"get\", \"d\"]",
            "[\"get\", \"c\"]",
            "[\"get\", \"b\"]",
            "[\"get\", \"a\"]",
            "[\"SLOWLOG\", \"RESET\"]",
        ]
    );
    let newest = c.reply("SLOWLOG GET 2").into_items();
    assert_eq!(newest.len(), 2);
    let Reply::Array(ping) = &newest[0] else { panic!("not an array") };
    let number = |index: usize| ping[index].to_string()[1..].parse::<i64>().expect("a number");
    assert!((number(1) - unix_now_ms() / 1000).abs() < 10);
    assert!((0..1_000_000).contains(&number(2)));
    assert_eq!(ping[4].to_string(), format!("\"{}\"", c.local_address()));
    assert_eq!(ping[5].to_string(), "\"tester\"");
    let Reply::Array(earlier) = &newest[1] else { panic!("not an array") };
    assert_eq!(earlier[0].to_string(), format!(":{}", number(0) - 1));
}

#[test]
fn only_slow_commands_are_in_the_slow_log() {
    let mut c = connect();
    c.expect("SLOWLOG RESET", "+OK");
    c.expect("SETBIT big 400000000 1", ":0");
    c.expect("CONFIG SET slowlog-log-slower-than 1000", "+OK");
    c.exchange("GET k\r\nGET k\r\nBITCOUNT big\r\nGET k\r\n", "$-1\r\n$-1\r\n:1\r\n$-1\r\n");
    c.expect("CONFIG SET slowlog-log-slower-than -1", "+OK");
    let slow = slow_commands(&mut c);
    assert!(slow.contains(&"[\"BITCOUNT\", \"big\"]".into()), "{slow:?}");
    c.expect("DEL big", ":1");
}

#[test]
fn the_slow_log_hides_passwords_and_shortens_long_arguments() {
    let mut c = connect();
    c.expect("CONFIG SET slowlog-log-slower-than 0", "+OK");
    c.expect("SLOWLOG RESET", "+OK");
    c.reply("AUTH secret");
    c.reply("AUTH default secret");
    c.reply("HELLO 2 AUTH default secret SETNAME me");
    c.expect("CONFIG SET timeout 0 requirepass \"\"", "+OK");
    let (long, many) = ("x".repeat(200), vec!["a"; 40]);
    c.call(&["GET", &long]);
    c.call(&[&["EXISTS"][..], &many].concat());
    c.expect("CONFIG SET slowlog-log-slower-than -1", "+OK");
    let slow = slow_commands(&mut c);
    let kept = "\"a\", ".repeat(30);
    assert_eq!(
        slow[..6],
        [
            format!("[\"EXISTS\", {kept}\"... (10 more arguments)\"]"),
            format!("[\"GET\", \"{}... (72 more bytes)\"]", &long[..128]),
            "[\"CONFIG\", \"SET\", \"timeout\", \"0\", \"requirepass\", \"(redacted)\"]".into(),
            "[\"HELLO\", \"2\", \"AUTH\", \"(redacted)\", \"(redacted)\", \"SETNAME\", \"me\"]"
                .into(),
            "[\"AUTH\", \"(redacted)\", \"(redacted)\"]".into(),
            "[\"AUTH\", \"(redacted)\"]".into(),
        ]
    );
}

#[test]
fn the_slow_log_keeps_at_most_slowlog_max_len_entries() {
    let mut c = connect();
    c.transcript(
        r#"
        > CONFIG SET slowlog-log-slower-than 0 slowlog-max-len 3
        +OK
        > PING
        +PONG
        > PING
        +PONG
        > PING
        +PONG
        > PING
        +PONG
        > SLOWLOG LEN
        :3
        > CONFIG SET slowlog-log-slower-than 1000000 slowlog-max-len 2
        +OK
        > SLOWLOG LEN
        :2
        > CONFIG SET slowlog-log-slower-than -1
        +OK
        > SLOWLOG RESET
        +OK
        > SLOWLOG LEN
        :0
        > SLOWLOG GET
        []
        > SLOWLOG GET -2
        -ERR count should be greater than or equal to -1
        > SLOWLOG GET x
        -ERR count should be greater than or equal to -1
        > SLOWLOG GET 1 2
        -ERR unknown subcommand or wrong number of arguments for 'GET'. Try SLOWLOG HELP.
        > SLOWLOG LEN x
        -ERR wrong number of arguments for 'slowlog|len' command
        > SLOWLOG
        -ERR wrong number of arguments for 'slowlog' command
        > CONFIG SET slowlog-log-slower-than -2
        -ERR CONFIG SET failed (possibly related to argument 'slowlog-log-slower-than') - argument must be between -1 and 9223372036854775807 inclusive
        > CONFIG SET slowlog-max-len -1
        -ERR CONFIG SET failed (possibly related to argument 'slowlog-max-len') - argument must be between 0 and 9223372036854775807 inclusive
        "#,
    );
}

// ---- LATENCY -----------------------------------------------------------------------------------------

#[test]
fn latency_histograms_are_cumulative_with_doubling_limits() {
    let mut c = connect();
    c.expect("CONFIG RESETSTAT", "+OK");
    (0..50).for_each(|_| c.expect("GET k", "nil"));
    c.expect("SET k v", "+OK");
    c.reply("HELLO 3");
    let Reply::Map(found) = c.reply("LATENCY HISTOGRAM get nosuch set append") else {
        panic!("no map")
    };
    let mut names: Vec<String> = found.iter().map(|(name, _)| name.to_string()).collect();
    names.sort();
    assert_eq!(names, ["\"get\"", "\"set\""]);
    for (name, of) in found {
        let Reply::Map(of) = of else { panic!("no map") };
        let calls = if name.to_string() == "\"get\"" { 50 } else { 1 };
        assert_eq!(of[0].0.to_string(), "\"calls\"");
        assert_eq!(of[0].1.to_string(), format!(":{calls}"));
        assert_eq!(of[1].0.to_string(), "\"histogram_usec\"");
        let Reply::Map(steps) = &of[1].1 else { panic!("no map") };
        let number = |reply: &Reply| reply.to_string()[1..].parse::<u64>().expect("a number");
        let steps: Vec<_> =
            steps.iter().map(|(limit, count)| (number(limit), number(count))).collect();
        assert!(
            steps.windows(2).all(|two| two[0].0 < two[1].0 && two[0].1 < two[1].1),
            "{steps:?}"
        );
        assert_eq!(steps.last().map(|(_, count)| *count), Some(calls));
        let limits = [1, 2, 4, 8, 16, 33, 66, 132, 264, 528, 1056, 2113, 4227, 8454, 16908, 33816];
        assert!(
            steps.iter().all(|(limit, _)| *limit > 33816 || limits.contains(limit)),
            "{steps:?}"
        );
    }
    // A container means all of its subcommands.
    c.reply("CONFIG GET timeout");
    let Reply::Map(found) = c.reply("LATENCY HISTOGRAM config") else { panic!("no map") };
    assert!(found.iter().any(|(name, _)| name.to_string() == "\"config|get\""), "{found:?}");
    let Reply::Map(found) = c.reply("LATENCY HISTOGRAM config|get") else { panic!("no map") };
    assert_eq!(found.len(), 1);
    let Reply::Map(found) = c.reply("LATENCY HISTOGRAM \"\"") else { panic!("no map") };
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn a_slow_command_is_a_latency_event() {
    let mut c = connect();
    c.expect("LATENCY RESET", ":0");
    c.expect("SETBIT big 400000000 1", ":0");
    c.expect("CONFIG SET latency-monitor-threshold 1", "+OK");
    c.expect("BITCOUNT big", ":1");
    c.expect("CONFIG SET latency-monitor-threshold 1000000", "+OK");
    let latest = c.reply("LATENCY LATEST").into_items();
    let event = latest
        .into_iter()
        .map(Reply::into_items)
        .find(|event| event[0].to_string() == "\"command\"");
    let event = event.expect("no event of that name");
    assert_eq!(event.len(), 4);
    let number = |reply: &Reply| reply.to_string()[1..].parse::<i64>().expect("a number");
    assert!((number(&event[1]) - unix_now_ms() / 1000).abs() < 10);
    assert!(number(&event[2]) >= 1 && number(&event[3]) >= number(&event[2]));
    let history = c.reply("LATENCY HISTORY command").into_items();
    assert_eq!(history.last().unwrap().to_string(), format!("[{}, {}]", event[1], event[2]));
    let graph = c.text("LATENCY GRAPH command");
    assert!(graph.starts_with("command - high "), "{graph}");
    assert!(graph.contains(&format!("(all time high {} ms)", number(&event[3]))), "{graph}");
    assert!(c.text("LATENCY DOCTOR").contains("command"));
    c.transcript(
        r#"
        > LATENCY RESET nosuch
        :0
        > LATENCY RESET command nosuch
        :1
        > LATENCY HISTORY command
        []
        > LATENCY GRAPH command
        -ERR No samples available for event 'command'
        > LATENCY HISTORY
        -ERR wrong number of arguments for 'latency|history' command
        > CONFIG SET latency-monitor-threshold 0
        +OK
        > DEL big
        :1
        "#,
    );
    assert!(c.text("LATENCY DOCTOR").contains("latency-monitor-threshold"));
}

// ---- ROLE, LOLWUT, MEMORY, COMMAND -------------------------------------------------------------------

#[test]
fn role_and_wait_describe_a_master_without_replicas() {
    let mut c = connect();
    // The offset grows once a replica was there.
    let role = c.reply("ROLE").to_string();
    assert!(role.starts_with("[\"master\", :") && role.ends_with(", []]"), "{role}");
    c.transcript(
        r#"
        > WAIT 0 0
        :0
        > WAIT 1 10
        :0
        > WAIT x 1
        -ERR value is not an integer or out of range
        > WAIT 1 x
        -ERR timeout is not an integer or out of range
        > WAIT 1 -1
        -ERR timeout is negative
        > ROLE x
        -ERR wrong number of arguments for 'role' command
        "#,
    );
}

#[test]
fn lolwut_draws_a_picture_for_every_version() {
    let mut c = connect();
    for command in
        ["LOLWUT", "LOLWUT VERSION 5", "LOLWUT VERSION 5 30 10", "lolwut version 999 1 1 1"]
    {
        let picture = c.text(command);
        assert!(picture.contains("Redis ver. ") && picture.ends_with('\n'), "{picture}");
    }
    c.expect("LOLWUT VERSION x", "-ERR value is not an integer or out of range");
}

#[test]
fn memory_commands_report_memory_usage() {
    let mut c = connect();
    c.expect("MSET a 1 b 2 c 3", "+OK");
    c.expect("MEMORY PURGE", "+OK");
    assert!(!c.text("MEMORY DOCTOR").is_empty());
    assert!(!c.text("MEMORY MALLOC-STATS").is_empty());
    c.reply("HELLO 3");
    let Reply::Map(stats) = c.reply("MEMORY STATS") else { panic!("no map") };
    let stats: BTreeMap<String, Reply> =
        stats.into_iter().map(|(name, value)| (name.into_text(), value)).collect();
    assert_eq!(stats["keys.count"].to_string(), ":3");
    if cfg!(target_os = "linux") {
        let names = "peak.allocated total.allocated overhead.total dataset.bytes dataset.percentage \
                     peak.percentage keys.bytes-per-key replication.backlog clients.slaves lua.caches";
        for name in names.split_whitespace() {
            assert!(stats.contains_key(name), "no {name}");
        }
    }
    let Reply::Map(db) = &stats["db.0"] else { panic!("no map") };
    assert!(db.iter().any(|(name, _)| name.to_string() == "\"overhead.hashtable.main\""));
}

#[test]
fn command_getkeysandflags_shows_how_keys_are_used() {
    let mut c = connect();
    c.transcript(
        r#"
        > COMMAND GETKEYSANDFLAGS GET a
        [["a", [+RO, +access]]]
        > COMMAND GETKEYSANDFLAGS SET a b
        [["a", [+OW, +update]]]
        > COMMAND GETKEYSANDFLAGS SET a b GET
        [["a", [+RW, +access, +update]]]
        > COMMAND GETKEYSANDFLAGS MSET a 1 b 2
        [["a", [+OW, +update]], ["b", [+OW, +update]]]
        > COMMAND GETKEYSANDFLAGS COPY a b
        [["a", [+RO, +access]], ["b", [+OW, +update]]]
        > COMMAND GETKEYSANDFLAGS BITFIELD a GET u8 0
        [["a", [+RO, +access]]]
        8.2> COMMAND GETKEYSANDFLAGS PING
        -ERR The command has no key arguments
        8.2> COMMAND GETKEYSANDFLAGS GET
        -ERR Invalid number of arguments specified for command
        8.2> COMMAND GETKEYSANDFLAGS PFMERGE a
        -ERR Invalid arguments specified for command
        > COMMAND GETKEYSANDFLAGS NOSUCH a
        -ERR Invalid command specified
        "#,
    );
}

// ---- CONFIG REWRITE ----------------------------------------------------------------------------------

#[test]
fn config_rewrite_needs_a_file() {
    let server = (!skipped_on_redis()).then(|| Server::start(&[]));
    let Some(server) = server else { return };
    server.client().expect("CONFIG REWRITE", "-ERR The server is running without a config file");
}

#[test]
fn config_rewrite_writes_changed_settings_and_keeps_the_rest() {
    if skipped_on_redis() {
        return;
    }
    let home = TempDir::new();
    let path = home.path().join("my.conf");
    let before = "# A comment.\nmaxclients 500\n\n  TimeOut 10\nslowlog-max-len 7";
    fs::write(&path, before).expect("write a configuration file");
    let path = path.to_str().expect("a path of UTF-8").to_owned();
    let mut server = Server::start_in(home, &[&path]);
    let mut c = server.client();
    c.expect("CONFIG SET timeout 20 requirepass \"a b\" loglevel warning", "+OK");
    c.expect("CONFIG REWRITE", "+OK");
    let after = fs::read_to_string(&path).expect("read the configuration file");
    let kept = "# A comment.\nmaxclients 500\n\ntimeout 20\nslowlog-max-len 7\n\
                # Generated by CONFIG REWRITE\n";
    assert!(after.starts_with(kept), "{after}");
    for added in ["requirepass \"a b\"\n", "loglevel warning\n", "port 0\n"] {
        assert!(after[kept.len()..].contains(added), "{after}");
    }
    // A restart reads the new file, and rewriting it again changes nothing.
    drop(c);
    server.kill_9();
    server.restart();
    let mut c = server.client();
    c.expect("AUTH \"a b\"", "+OK");
    c.expect("CONFIG GET timeout", "[\"timeout\", \"20\"]");
    assert!(c.text("INFO server").contains(&format!("config_file:{path}\r\n")));
    c.expect("CONFIG REWRITE", "+OK");
    assert_eq!(fs::read_to_string(&path).expect("read it again"), after);
    // A removed file is created again.
    fs::remove_file(&path).expect("remove the configuration file");
    c.expect("CONFIG REWRITE", "+OK");
    let anew = fs::read_to_string(&path).expect("read the new file");
    assert!(anew.contains("\ntimeout 20\n") && !anew.contains("A comment"), "{anew}");
}
