//! The life of a log: it is rewritten under load, switched off and on, and loaded after damage; its disk
//! fills up, and its directory disappears.
//!
//! [`persistence`](crate::persistence) tests a single `kill -9`, and [`crash`](crate::crash) many of them
//! under load. None of these tests runs against a Redis at `REDIS_ADDR`.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{
    Client, FAR, KilledOnDrop, Reply, Server, TempDir, assert_same, assert_survives_kill_9,
    await_rewrite, check_aof, dump, encode, eventually, files, fill, free_port, info, installed,
    pipeline, quote, records, rewrite, say, skipped_on_redis, start_rewrite, start_with_log,
    unix_now_ms, write_all,
};
use crate::rng::Rng;

// ---- Rewriting ---------------------------------------------------------------------------------------

/// A random command that changes a few keys, each of the right type.
fn random_command(random: &mut Rng) -> Vec<u8> {
    let mut key = |kind: &str| format!("{kind}:\r\n{}", random.below(500));
    let (a, b, c, count) = (key("s"), key("s"), key("s"), key("n"));
    let (hash, other_hash) = (key("h"), key("h"));
    let number = random.below(1_000_000).to_string();
    let field = random.below(150).to_string();
    let soon = (1 + random.below(40)).to_string();
    match random.below(20) {
        0 => encode(&["SET", &a, &number]),
        1 => encode(&["SET", &a, &number, "PX", &soon]),
        2 => encode(&["SET", &a, &number, "PXAT", FAR]),
        3 => encode(&["MSET", &a, &number, &b, &number, &c, &number]),
        4 => encode(&["DEL", &a, &hash]),
        5 => encode(&["APPEND", &a, &number]),
        6 => encode(&["RENAME", &a, &b]),
        7 => encode(&["COPY", &a, &b, "REPLACE"]),
        8 => encode(&["PEXPIRE", &hash, &soon]),
        9 => encode(&["PEXPIREAT", &hash, FAR]),
        10 => encode(&["PERSIST", &a]),
        11 => encode(&["INCRBY", &count, &number]),
        12 => encode(&["HDEL", &hash, &field]),
        13 => encode(&["MOVE", &a, "4"]),
        14 => encode(&["HSETEX", &hash, "PX", &soon, "FIELDS", "2", &field, &number, &soon, &soon]),
        15 => encode(&["HPEXPIREAT", &hash, FAR, "FIELDS", "2", &field, &soon]),
        16 => encode(&["HPERSIST", &hash, "FIELDS", "1", &field]),
        17 => encode(&["COPY", &hash, &other_hash, "REPLACE"]),
        18 => encode(&["SELECT", &random.below(3).to_string()]),
        _ => encode(&["HSET", &hash, &field, &number, "always", &number]),
    }
}

#[test]
fn a_rewrite_under_load_keeps_every_change_of_every_kind() {
    if skipped_on_redis() {
        return;
    }
    let mut server = Server::start(&["--enable-debug-command", "yes"]);
    let mut c = server.client();
    fill(&mut c, 2000);
    let running = AtomicBool::new(true);
    let mut random = Rng::of_run();
    thread::scope(|scope| {
        for _ in 0..3 {
            let (mut c, running, mut random) = (server.client(), &running, random.fork());
            scope.spawn(move || {
                while running.load(Ordering::SeqCst) {
                    let commands: Vec<_> = (0..50).map(|_| random_command(&mut random)).collect();
                    for reply in pipeline(&mut c, &commands) {
                        if let Reply::Error(error) = reply {
                            let same = "ERR source and destination objects are the same";
                            assert!(["ERR no such key", same].contains(&error.as_str()), "{error}");
                        }
                    }
                }
            });
        }
        // Commands that change the whole keyspace at once.
        let (mut c, running) = (server.client(), &running);
        scope.spawn(move || {
            for round in (0..).take_while(|_| running.load(Ordering::SeqCst)) {
                c.expect("SWAPDB 1 2", "+OK");
                c.expect("SELECT 4", "+OK");
                c.expect("FLUSHDB", "+OK");
                if round == 20 {
                    c.expect("FLUSHALL", "+OK");
                }
                // Gives the other clients time.
                pipeline(&mut c, &vec![encode(&["GET", "s:1"]); 200]);
            }
        });
        let mut c = server.client();
        (0..5).for_each(|_| rewrite(&mut c));
        running.store(false, Ordering::SeqCst);
    });
    let all_gone = unix_now_ms() + 50;
    eventually("the keys with a short time to live have expired", || unix_now_ms() > all_gone);
    assert_eq!(info(&mut c, "aof_rewrites").as_deref(), Some("5"));
    c.expect("DEBUG CHECK", "+OK");
    assert_survives_kill_9(&mut server);
    // Again, with a log that was just rewritten.
    rewrite(&mut server.client());
    assert_survives_kill_9(&mut server);
    server.client().expect("DEBUG CHECK", "+OK");
    assert_eq!(files(&server.dir()).into_keys().collect::<Vec<_>>(), ["storage.aof"]);
}

#[test]
fn a_rewritten_log_has_one_record_per_string_and_one_per_64_fields() {
    if skipped_on_redis() {
        return;
    }
    let server = Server::start(&[]);
    let mut c = server.client();
    (0..3).for_each(|_| fill(&mut c, 300));
    let keys = dump(&mut c);
    rewrite(&mut c);
    let mut found: BTreeMap<(usize, String), Vec<String>> = BTreeMap::new();
    let mut db = 0;
    for record in records(&server.log_path()) {
        let words: Vec<String> = record.iter().map(|word| quote(word)).collect();
        match words[0].trim_matches('"') {
            "SELECT" => db = String::from_utf8_lossy(&record[1]).parse().unwrap(),
            "HSET" => {
                let fields = words.len() / 2 - 1;
                assert!(fields <= 64, "{fields} fields");
                found.entry((db, words[1].clone())).or_default().push(format!("HSET {fields}"));
            }
            name => found.entry((db, words[1].clone())).or_default().push(name.to_owned()),
        }
    }
    assert_eq!(found.len(), keys.len());
    for (key, value) in &keys {
        let mut expected = vec!["SET".to_owned()];
        if value.starts_with("+hash") {
            let i: usize = key.1.trim_matches('"').split(':').next().unwrap().parse().unwrap();
            let fields = if i % 4 == 2 { 1 + i % 90 } else { 1 };
            expected = vec!["HSET 64".to_owned(); fields / 64];
            expected.extend((fields % 64 > 0).then(|| format!("HSET {}", fields % 64)));
            expected.extend(value.contains(FAR).then(|| "PEXPIREAT".to_owned()));
        }
        assert_eq!(found[key], expected, "{key:?}");
    }
}

#[test]
fn info_shows_a_rewrite_and_a_second_one_is_refused_while_it_runs() {
    if skipped_on_redis() {
        return;
    }
    let server = Server::start(&[]);
    let mut c = server.client();
    fill(&mut c, 1000);
    assert_eq!(info(&mut c, "aof_rewrite_in_progress").as_deref(), Some("0"));
    assert_eq!(info(&mut c, "aof_rewrites").as_deref(), Some("0"));
    let refusal = "ERR Background append only file rewriting already in progress";
    let mut accepted = 0;
    eventually("a second rewrite is refused", || {
        let both = pipeline(&mut c, &[encode(&["BGREWRITEAOF"]), encode(&["BGREWRITEAOF"])]);
        accepted += both.iter().filter(|reply| matches!(reply, Reply::Simple(_))).count();
        both[1] == Reply::Error(refusal.into())
    });
    await_rewrite(&mut c);
    assert_eq!(info(&mut c, "aof_last_bgrewrite_status").as_deref(), Some("ok"));
    assert_eq!(info(&mut c, "aof_rewrites"), Some(accepted.to_string()));
    let length = fs::metadata(server.log_path()).unwrap().len().to_string();
    assert_eq!(info(&mut c, "aof_base_size"), Some(length.clone()));
    assert_eq!(info(&mut c, "aof_current_size"), Some(length));
    c.expect("SET k v", "+OK");
    let length = fs::metadata(server.log_path()).unwrap().len().to_string();
    assert_eq!(info(&mut c, "aof_current_size"), Some(length));
}

#[test]
fn the_log_is_rewritten_automatically_once_it_has_doubled() {
    if skipped_on_redis() {
        return;
    }
    let mut server = Server::start(&["--auto-aof-rewrite-min-size", "20kb"]);
    let mut c = server.client();
    let write = |c: &mut Client, bytes: usize| {
        let commands = vec![encode(&["SET", "k", &"v".repeat(100)]); bytes / 128];
        pipeline(c, &commands);
    };
    write(&mut c, 30_000);
    eventually("it is rewritten", || info(&mut c, "aof_rewrites").as_deref() == Some("1"));
    assert!(fs::metadata(server.log_path()).unwrap().len() < 1000);
    // A changed setting takes effect at once.
    c.expect("CONFIG SET auto-aof-rewrite-min-size 1kb auto-aof-rewrite-percentage 2000", "+OK");
    write(&mut c, 10_000);
    eventually("it is rewritten again", || info(&mut c, "aof_rewrites").as_deref() == Some("2"));
    assert_survives_kill_9(&mut server);
}

#[test]
fn a_failed_rewrite_keeps_the_old_log_in_use_and_is_explained() {
    if skipped_on_redis() {
        return;
    }
    let mut server = Server::start(&[]);
    let mut c = server.client();
    fill(&mut c, 100);
    // A directory that is not empty cannot be replaced.
    let in_the_way = server.dir().join("storage.aof.rewrite");
    fs::create_dir_all(in_the_way.join("x")).unwrap();
    start_rewrite(&mut c);
    await_rewrite(&mut c);
    assert_eq!(info(&mut c, "aof_last_bgrewrite_status").as_deref(), Some("err"));
    assert_eq!(info(&mut c, "aof_last_write_status").as_deref(), Some("ok"));
    eventually("the reason is on stderr", || {
        server.stderr().contains("The AOF could not be rewritten: ")
    });
    c.expect("SET after failure", "+OK");
    assert_survives_kill_9(&mut server);
    fs::remove_dir_all(in_the_way).unwrap();
    rewrite(&mut server.client());
    assert_survives_kill_9(&mut server);
}

#[test]
fn files_left_by_a_crash_during_a_rewrite_are_removed_at_the_start() {
    if skipped_on_redis() {
        return;
    }
    let home = TempDir::new();
    for name in ["storage.aof.rewrite", "storage.aof.tail"] {
        fs::write(home.data().join(name), "*3\r\n$3\r\nSET").unwrap();
    }
    fs::write(home.data().join("storage.aof"), encode(&["SET", "k", "v"])).unwrap();
    let server = Server::start_in(home, &[]);
    server.client().expect("GET k", "\"v\"");
    assert_eq!(files(&server.dir()).into_keys().collect::<Vec<_>>(), ["storage.aof"]);
}

// ---- Switching the log off and on --------------------------------------------------------------------

#[test]
fn a_log_that_is_switched_on_again_holds_all_data() {
    if skipped_on_redis() {
        return;
    }
    let mut server = Server::start(&[]);
    let mut c = server.client();
    c.expect("MSET before 1 deleted 1", "+OK");
    c.expect("CONFIG SET appendonly no", "+OK");
    assert_eq!(info(&mut c, "aof_enabled").as_deref(), Some("0"));
    let left = fs::read(server.log_path()).unwrap();
    c.expect("DEL deleted", ":1");
    fill(&mut c, 1000);
    assert!(fs::read(server.log_path()).unwrap() == left, "the log has changed although it is off");
    c.expect("CONFIG SET appendonly yes", "+OK");
    // These commands run while the log is being written, or after that.
    c.expect("SWAPDB 5 6", "+OK");
    c.expect("SET meanwhile 1", "+OK");
    await_rewrite(&mut c);
    assert_eq!(info(&mut c, "aof_enabled").as_deref(), Some("1"));
    c.expect("SET after 1", "+OK");
    assert_survives_kill_9(&mut server);
    assert_eq!(files(&server.dir()).into_keys().collect::<Vec<_>>(), ["storage.aof"]);
}

#[test]
fn commands_on_the_whole_keyspace_do_not_prevent_switching_the_log_on() {
    if skipped_on_redis() {
        return;
    }
    let mut server = Server::start(&[]);
    let mut c = server.client();
    fill(&mut c, 5000);
    for _ in 0..3 {
        c.expect("CONFIG SET appendonly no", "+OK");
        c.expect("INCR rounds", ":1");
        c.expect("CONFIG SET appendonly yes", "+OK");
        while info(&mut c, "aof_rewrite_in_progress").as_deref() == Some("1") {
            c.expect("SWAPDB 1 2", "+OK");
            c.expect("SELECT 3", "+OK");
            c.expect("SET k v", "+OK");
            c.expect("FLUSHDB", "+OK");
            c.expect("SELECT 0", "+OK");
        }
        assert_eq!(info(&mut c, "aof_last_bgrewrite_status").as_deref(), Some("ok"));
        c.expect("DEL rounds", ":1");
    }
    assert_survives_kill_9(&mut server);
}

#[test]
fn no_write_is_refused_while_the_log_is_being_switched_on() {
    if skipped_on_redis() {
        return;
    }
    let mut server = Server::start(&["--appendonly", "no"]);
    let mut c = server.client();
    fill(&mut c, 10_000);
    // Again and again, for longer than the interval at which the background threads check the log.
    let started = Instant::now();
    while started.elapsed() < Duration::from_millis(2200) {
        c.expect("CONFIG SET appendonly yes", "+OK");
        while info(&mut c, "aof_rewrite_in_progress").as_deref() == Some("1") {
            c.expect("SET k v", "+OK");
        }
        c.expect("CONFIG SET appendonly no", "+OK");
    }
    c.expect("CONFIG SET appendonly yes", "+OK");
    await_rewrite(&mut c);
    // Not as it was started, without a log.
    let mut other = Server::start_in(copy_of(&server), &[]);
    assert_same(&dump(&mut other.client()), &dump(&mut c));
    other.kill_9();
    server.kill_9();
}

/// A new directory with a copy of the server's log.
fn copy_of(server: &Server) -> TempDir {
    let home = TempDir::new();
    fs::copy(server.log_path(), home.data().join("storage.aof")).expect("copy the log");
    home
}

#[test]
fn a_log_switched_off_and_on_during_a_rewrite_is_on() {
    if skipped_on_redis() {
        return;
    }
    let mut server = Server::start(&[]);
    let mut c = server.client();
    fill(&mut c, 2000);
    let set = |value| encode(&["CONFIG", "SET", "appendonly", value]);
    for commands in [
        vec![encode(&["BGREWRITEAOF"]), set("no"), set("yes")],
        vec![set("no"), set("yes"), set("no"), set("yes")],
    ] {
        for reply in pipeline(&mut c, &commands) {
            assert!(matches!(reply, Reply::Simple(_)), "{reply}");
        }
        c.expect("INCR k", ":1");
        eventually("the log is on, and whole", || {
            info(&mut c, "aof_enabled").as_deref() == Some("1")
                && info(&mut c, "aof_rewrite_in_progress").as_deref() == Some("0")
        });
        c.expect("CONFIG GET appendonly", "[\"appendonly\", \"yes\"]");
        c.expect("INCR k", ":2");
        assert_survives_kill_9(&mut server);
        c = server.client();
        c.expect("DEL k", ":1");
    }
}

/// The reply to `CONFIG SET appendonly yes` if there is no log afterwards.
const NOT_ON: &str = "-ERR CONFIG SET failed (possibly related to argument 'appendonly') - Unable to turn on \
                      AOF. Check server logs.";

#[test]
fn what_is_written_after_the_log_was_switched_on_survives_kill_9() {
    if skipped_on_redis() {
        return;
    }
    let mut server = Server::start(&["--appendonly", "no"]);
    let mut c = server.client();
    fill(&mut c, 10_000);
    c.expect("CONFIG SET appendonly yes", "+OK");
    c.expect("SET after 1", "+OK");
    let keys = c.integer("DBSIZE");
    server.kill_9();
    // Not as it was started, without a log.
    let other = Server::start_in(copy_of(&server), &[]);
    other.client().expect("GET after", "\"1\"");
    assert_eq!(other.client().integer("DBSIZE"), keys);
}

#[test]
fn a_transaction_cannot_switch_the_log_on_because_it_cannot_wait_for_it() {
    if skipped_on_redis() {
        return;
    }
    let server = Server::start(&["--appendonly", "no"]);
    let mut c = server.client();
    c.expect("MULTI", "+OK");
    for command in ["SET k v", "CONFIG SET appendonly yes", "CONFIG SET appendonly no"] {
        c.expect(command, "+QUEUED");
    }
    c.expect("EXEC", &format!("[+OK, {NOT_ON}, +OK]"));
    c.expect("CONFIG GET appendonly", "[\"appendonly\", \"no\"]");
    let why = "CONFIG SET appendonly: the log cannot be opened or moved inside a transaction";
    eventually("the reason is on stderr", || server.stderr().contains(why));
}

#[test]
fn a_log_that_cannot_be_switched_on_stays_off() {
    if skipped_on_redis() {
        return;
    }
    let server = Server::start(&["--appendonly", "no"]);
    let mut c = server.client();
    fill(&mut c, 100);
    fs::create_dir(server.log_path()).unwrap();
    c.expect("CONFIG SET timeout 5 appendonly yes", NOT_ON);
    c.expect("CONFIG GET appendonly", "[\"appendonly\", \"no\"]");
    c.expect("CONFIG GET timeout", "[\"timeout\", \"0\"]");
    assert_eq!(info(&mut c, "aof_enabled").as_deref(), Some("0"));
    eventually("the reason is on stderr", || {
        server.stderr().contains("CONFIG SET appendonly: the log could not be written: ")
    });
    c.expect("SET still served", "+OK");
    fs::remove_dir(server.log_path()).unwrap();
    c.expect("CONFIG SET appendonly yes", "+OK");
    // Not as it was started, without a log.
    let other = Server::start_in(copy_of(&server), &[]);
    assert_same(&dump(&mut other.client()), &dump(&mut c));
}

#[test]
fn no_write_is_refused_or_lost_while_the_log_moves_to_another_directory() {
    if skipped_on_redis() {
        return;
    }
    let mut server = Server::start(&["--enable-protected-configs", "yes"]);
    let mut c = server.client();
    fill(&mut c, 300);
    let running = AtomicBool::new(true);
    let written = thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut c = server.client();
            let writes = (1..).take_while(|_| running.load(Ordering::SeqCst));
            writes.inspect(|n| c.expect("INCR n", &format!(":{n}"))).last()
        });
        for number in 0..100 {
            let dir = server.dir().join(number.to_string());
            fs::create_dir(&dir).expect("a directory");
            c.expect(&format!("CONFIG SET dir {}", dir.display()), "+OK");
        }
        running.store(false, Ordering::SeqCst);
        writer.join().expect("no write was refused")
    });
    assert_eq!(info(&mut c, "aof_last_write_status").as_deref(), Some("ok"));
    server.kill_9();
    let home = TempDir::new();
    fs::copy(server.dir().join("99/storage.aof"), home.data().join("storage.aof")).expect("a copy");
    let written = written.expect("there were writes");
    Server::start_in(home, &[]).client().expect("GET n", &format!("\"{written}\""));
}

#[test]
fn a_log_selects_a_database_only_where_it_changes() {
    if skipped_on_redis() {
        return;
    }
    let server = Server::start(&[]);
    let mut c = server.client();
    let selected = || {
        let records = records(&server.log_path());
        let selects = records.iter().filter(|record| record[0] == b"SELECT");
        selects.map(|record| String::from_utf8_lossy(&record[1]).into_owned()).collect::<Vec<_>>()
    };
    (0..200).for_each(|n| c.expect(&format!("SET {n} v"), "+OK"));
    assert_eq!(selected(), [""; 0], "a log begins in database 0");
    let before = fs::metadata(server.log_path()).unwrap().len();
    rewrite(&mut c);
    assert_eq!(fs::metadata(server.log_path()).unwrap().len(), before);
    for db in [9, 4] {
        c.expect(&format!("SELECT {db}"), "+OK");
        (0..200).for_each(|n| c.expect(&format!("SET {n} v"), "+OK"));
    }
    assert_eq!(selected(), ["9", "4"]);
    rewrite(&mut c);
    assert_eq!(selected(), ["4", "9"]);
    c.expect("SET k v", "+OK");
    assert_eq!(selected(), ["4", "9", "4"]);
}

#[test]
fn without_a_log_bgrewriteaof_writes_one_that_is_not_appended_to() {
    if skipped_on_redis() {
        return;
    }
    let server = Server::start(&["--appendonly", "no"]);
    let mut c = server.client();
    fill(&mut c, 100);
    let before = dump(&mut c);
    rewrite(&mut c);
    eventually("the log is closed", || info(&mut c, "aof_enabled").as_deref() == Some("0"));
    let log = fs::read(server.log_path()).unwrap();
    c.expect("SET more v", "+OK");
    assert!(fs::read(server.log_path()).unwrap() == log);
    let other = Server::start_in(copy_of(&server), &[]);
    assert_same(&dump(&mut other.client()), &before);
}

#[test]
fn the_sync_policy_changes_while_the_server_runs() {
    if skipped_on_redis() {
        return;
    }
    let mut server = Server::start(&[]);
    for policy in ["always", "no", "everysec", "always"] {
        let mut c = server.client();
        c.expect(&format!("CONFIG SET appendfsync {policy}"), "+OK");
        c.expect("CONFIG GET appendfsync", &format!("[\"appendfsync\", \"{policy}\"]"));
        c.expect(
            &format!("APPEND k {policy}"),
            &format!(":{}", length_of_k(&server) + policy.len()),
        );
        assert_survives_kill_9(&mut server);
    }
}

fn length_of_k(server: &Server) -> usize {
    server.client().integer("STRLEN k") as usize
}

#[test]
fn waitaof_syncs_and_does_not_wait_for_replicas() {
    if skipped_on_redis() {
        return;
    }
    let server = Server::start(&[]);
    let mut c = server.client();
    c.transcript(
        r#"
        // Nothing was written, so it does not wait.
        > WAITAOF 1 0 0
        [:1, :0]
        > SET k v
        +OK
        > WAITAOF 1 0 0
        [:1, :0]
        > WAITAOF 2 0 0
        -ERR value is out of range, value must between 0 and 1
        > WAITAOF x 0 0
        -ERR value is not an integer or out of range
        > WAITAOF 1 -1 0
        -ERR value is out of range, must be positive
        > WAITAOF 1 x 0
        -ERR value is out of range, must be positive
        > WAITAOF 1 0 -1
        -ERR timeout is negative
        > WAITAOF 1 0 x
        -ERR timeout is not an integer or out of range
        > WAITAOF 1 0
        -ERR wrong number of arguments for 'waitaof' command
        "#,
    );
    c.expect("WAITAOF 1 1 50", "[:1, :0]");
    c.expect("CONFIG SET appendonly no", "+OK");
    c.expect(
        "WAITAOF 1 0 0",
        "-ERR WAITAOF cannot be used when numlocal is set but appendonly is disabled.",
    );
}

// ---- Loading -----------------------------------------------------------------------------------------

fn log_of(commands: &[&[&str]]) -> Vec<u8> {
    commands.iter().flat_map(|command| encode(command)).collect()
}

#[test]
fn a_torn_tail_of_any_kind_is_cut_off_and_kept() {
    if skipped_on_redis() {
        return;
    }
    let whole = log_of(&[&["SET", "a", "1"], &["MULTI"], &["SET", "b", "1"], &["EXEC"]]);
    let half_a_block = log_of(&[&["MULTI"], &["SET", "a", "2"], &["SET", "c", "2"]]);
    let tails = [
        ("part of a record", b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$5\r\nab".to_vec()),
        ("zeros", vec![0; 5000]),
        ("a record that ends in zeros", [&b"*3\r\n$3\r\nSET"[..], &[0; 600]].concat()),
        ("a block without its end", half_a_block.clone()),
        ("a block with a torn record", half_a_block[..half_a_block.len() - 3].to_vec()),
        ("a block and zeros", [&half_a_block[..], &[0; 600]].concat()),
    ];
    for (what, tail) in tails {
        let log = [&whole[..], &tail].concat();
        let offset = whole.len().to_string();
        let home = TempDir::new();
        fs::write(home.data().join("storage.aof"), &log).unwrap();
        let ended = Server::fail_to_start(&home, &["--aof-load-truncated", "no"]);
        assert_eq!(ended.code, Some(1), "{what}");
        for word in ["aof-load-truncated", "--check-aof", &offset] {
            assert!(ended.stderr.contains(word), "{what}: {word} is not in {}", ended.stderr);
        }
        assert!(files(&home.data()) == BTreeMap::from([("storage.aof".into(), log)]), "{what}");
        let mut server = Server::start_in(home, &[]);
        server.client().expect("MGET a b c", "[\"1\", \"1\", nil]");
        let is_said = || server.stderr().contains(&offset);
        eventually(&format!("{what}: stderr names the offset"), is_said);
        let mut files = files(&server.dir());
        assert!(files.remove("storage.aof").unwrap() == whole, "{what}");
        assert!(files.len() == 1 && files.into_values().next().unwrap() == tail, "{what}");
        server.client().expect("SET d 1", "+OK");
        assert_survives_kill_9(&mut server);
    }
}

#[test]
fn anything_but_a_valid_record_prevents_the_start_and_is_named() {
    if skipped_on_redis() {
        return;
    }
    let whole = log_of(&[&["SET", "s", "text"], &["HSET", "h", "f", "v"]]);
    let cases = [
        ("garbage at the end", b"garbage".to_vec(), "expected '*', got 'g'"),
        ("an inline command", b"SET a 1\r\n".to_vec(), "expected '*', got 'S'"),
        ("zeros in the middle", [&[0; 10][..], b"*1\r\n"].concat(), "expected '*'"),
        ("an unknown command", log_of(&[&["NOSUCH"]]), "unknown command"),
        ("too few arguments", log_of(&[&["SET", "a"]]), "wrong number of arguments"),
        ("a key of another type", log_of(&[&["HSET", "s", "f", "v"]]), "WRONGTYPE"),
        ("not a number", log_of(&[&["INCR", "s"]]), "not an integer"),
        ("no such key", log_of(&[&["RENAME", "none", "a"]]), "no such key"),
        ("a command that is never logged", log_of(&[&["SHUTDOWN"]]), "does not belong in a log"),
        ("EXEC without MULTI", log_of(&[&["EXEC"]]), "exec"),
        ("RDB data", b"REDIS0010\xfa\x09redis-ver".to_vec(), "expected '*', got 'R'"),
    ];
    for (what, damage, why) in cases {
        // At the end, and with a valid record after it.
        for behind in [&b""[..], &whole] {
            let home = TempDir::new();
            let log = [&whole[..], &damage, behind].concat();
            fs::write(home.data().join("storage.aof"), &log).unwrap();
            let ended = Server::fail_to_start(&home, &[]);
            assert_eq!(ended.code, Some(1), "{what}");
            let at = format!("damaged at offset {}: ", whole.len());
            let output = ended.stderr.to_lowercase();
            assert!(output.contains(&at), "{what}: {at:?} is not in {}", ended.stderr);
            assert!(
                output.contains(&why.to_lowercase()),
                "{what}: {why:?} is not in {}",
                ended.stderr
            );
            assert!(files(&home.data()) == BTreeMap::from([("storage.aof".into(), log)]), "{what}");
        }
    }
}

#[test]
fn a_log_with_the_annotations_and_transactions_of_redis_is_loaded() {
    if skipped_on_redis() {
        return;
    }
    let log = [
        b"#TS:1700000000\r\n".to_vec(),
        log_of(&[&["SELECT", "0"], &["set", "a", "1"]]),
        b"#TS:1700000001\r\n".to_vec(),
        log_of(&[&["MULTI"], &["incr", "a"], &["hset", "h", "f", "v"], &["EXEC"]]),
        b"#TS:1700000002\r\n".to_vec(),
    ];
    let mut server = start_with_log(&log.concat());
    let mut c = server.client();
    c.expect("GET a", "\"2\"");
    c.expect("HGET h f", "\"v\"");
    assert_survives_kill_9(&mut server);
}

#[test]
fn a_log_written_by_a_real_redis_is_loaded() {
    if skipped_on_redis() || !installed("redis-server") {
        return;
    }
    let home = TempDir::new();
    let port = free_port();
    // With `everysec`, Redis postpones a write during a sync, and would be killed before it writes.
    let options = "--appendonly yes --appendfsync always --aof-use-rdb-preamble no \
                   --aof-timestamp-enabled yes --bind 127.0.0.1";
    let child = Command::new("redis-server")
        .args(options.split(' '))
        .args(["--save", "", "--port", &port.to_string(), "--dir"])
        .arg(home.data())
        .stdout(Stdio::null())
        .spawn()
        .expect("start redis-server");
    let redis = KilledOnDrop(child);
    eventually("Redis listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
    let mut c = Client::to(([127, 0, 0, 1], port).into());
    write_all(&mut c);
    rewrite(&mut c);
    for command in
        ["MULTI", "SET a 1", "HSET b f 1", "INCR a", "EXEC", "SELECT 3", "SETEX t 1000 v"]
    {
        c.reply(command);
    }
    let expected = dump(&mut c);
    let parts = home.data().join("appendonlydir");
    eventually("Redis has removed its old files", || files(&parts).len() == 3);
    drop(redis);
    // In the order of their names: the rewritten part, then the commands after it.
    let mut parts = files(&parts);
    parts.retain(|name, _| name.ends_with(".aof"));
    let log: Vec<u8> = parts.into_values().flatten().collect();
    assert!(log.windows(4).any(|word| word == b"#TS:"));
    assert_same(&dump(&mut start_with_log(&log).client()), &expected);
}

/// Valkey takes any time, so it may come from one: in a file, or as a master's command.
#[test]
fn a_field_may_expire_later_in_a_log_than_a_client_may_ask_for() {
    if skipped_on_redis() {
        return;
    }
    let late = ["HPEXPIREAT", "h", "100000000000000", "FIELDS", "1", "f"];
    let log = log_of(&[&["SELECT", "0"], &["HSET", "h", "f", "v"], &late]);
    let mut server = start_with_log(&log);
    let mut c = server.client();
    c.expect("HPEXPIRETIME h FIELDS 1 f", "[:100000000000000]");
    let error = "-ERR invalid expire time in 'hpexpireat' command";
    c.expect(&late.join(" "), error);
    assert_survives_kill_9(&mut server);
    let mut c = server.client();
    c.expect("BGREWRITEAOF", "+Background append only file rewriting started");
    eventually("it is rewritten", || {
        c.reply("INFO persistence").into_text().contains(
            "\
        aof_rewrite_in_progress:0",
        )
    });
    assert_survives_kill_9(&mut server);
    let mut c = server.client();
    c.expect("HPEXPIRETIME h FIELDS 1 f", "[:100000000000000]");
}

#[test]
fn only_the_owner_can_read_what_holds_data() {
    if skipped_on_redis() {
        return;
    }
    let mut server = Server::start(&[]);
    let others = |server: &Server| -> Vec<(PathBuf, u32)> {
        let files = fs::read_dir(server.dir()).expect("list the files").map(|file| {
            let path = file.expect("a file").path();
            let mode = fs::metadata(&path).expect("its mode").permissions().mode();
            (path, mode & 0o077)
        });
        files.collect()
    };
    let mut c = server.client();
    c.expect("SET a 1", "+OK");
    c.expect("SAVE", "+OK");
    assert!(others(&server).len() == 2 && others(&server).iter().all(|(_, mode)| *mode == 0));
    c.expect("BGREWRITEAOF", "+Background append only file rewriting started");
    eventually("it is rewritten", || info(&mut c, "aof_rewrites").as_deref() == Some("1"));
    server.kill_9();
    let mut log = fs::File::options().append(true).open(server.log_path()).expect("open the log");
    log.write_all(b"*2\r\n$3\r\nGE").expect("write a torn tail");
    server.restart();
    // The log, the snapshot, and what was cut off.
    let files = others(&server);
    assert!(files.len() == 3 && files.iter().all(|(_, mode)| *mode == 0), "{files:?}");
}

#[test]
fn check_aof_describes_damage_and_repairs_it() {
    if skipped_on_redis() {
        return;
    }
    let whole = log_of(&[&["SELECT", "0"], &["SET", "a", "1"], &["HSET", "h", "f", "v"]]);
    let block = log_of(&[&["MULTI"], &["SET", "a", "2"]]);
    let cases = [
        ("a torn tail", b"*2\r\n$3\r\nDEL\r\n$1\r\n".to_vec(), "middle of a record"),
        ("zeros", vec![0; 100], "middle of a record"),
        ("half a block", block.clone(), "middle of a record"),
        ("garbage", [&b"garbage"[..], &whole].concat(), "expected '*', got 'g'"),
        ("an unknown command", log_of(&[&["NOSUCH"]]), "unknown command"),
        ("garbage in a block", [&block[..], b"garbage"].concat(), "expected '*', got 'g'"),
        (
            "an unknown command in a block",
            [&block[..], &log_of(&[&["NOSUCH"], &["EXEC"]])].concat(),
            "unknown command",
        ),
    ];
    for (what, bad, why) in cases {
        let home = TempDir::new();
        let path = home.data().join("storage.aof");
        fs::write(&path, [&whole[..], &bad].concat()).unwrap();
        let (good, output) = check_aof(&path, &[]);
        assert!(!good && output.contains(why), "{what}: {output}");
        assert_eq!(files(&home.data()).len(), 1, "{what}: a check must not change anything");
        let (repaired, output) = check_aof(&path, &["--fix"]);
        assert!(repaired && output.contains(why), "{what}: {output}");
        let mut kept = files(&home.data());
        assert_eq!(quote(&kept.remove("storage.aof").unwrap()), quote(&whole), "{what}");
        assert!(kept.into_values().eq([bad]), "{what}: the rest is not kept");
        let (good, output) = check_aof(&path, &[]);
        assert!(
            good && output.contains("3 records") && output.contains("good"),
            "{what}: {output}"
        );
        let size = format!("{} bytes", whole.len());
        assert!(output.contains(&size), "{what}: {output}");
        let server = Server::start_in(home, &["--aof-load-truncated", "no"]);
        server.client().expect("GET a", "\"1\"");
        let (repaired, output) = check_aof(&path, &["--fix"]);
        assert!(repaired, "a second repair failed: {output}");
    }
    let (good, output) = check_aof(Path::new("/nonexistent/log"), &[]);
    assert!(!good && output.contains("/nonexistent/log"), "{output}");
}

#[test]
fn check_aof_does_not_repair_the_log_of_a_running_server() {
    if skipped_on_redis() {
        return;
    }
    let server = Server::start(&[]);
    server.client().expect("SET k v", "+OK");
    let mut log = fs::OpenOptions::new().append(true).open(server.log_path()).unwrap();
    log.write_all(b"*1\r\n").unwrap();
    let (repaired, output) = check_aof(&server.log_path(), &["--fix"]);
    assert!(!repaired && output.contains("in use"), "{output}");
    let names = files(&server.dir()).into_keys();
    assert!(names.filter(|name| name.contains("torn")).eq([""; 0]));
}

#[test]
fn clients_get_a_loading_error_while_the_log_is_being_loaded() {
    if skipped_on_redis() {
        return;
    }
    let home = TempDir::new();
    let set = |i: usize| encode(&["SET", &format!("key:{i}"), "value"]);
    let log: Vec<u8> = (0..400_000).flat_map(set).collect();
    fs::write(home.data().join("storage.aof"), log).unwrap();
    let port = free_port();
    let starting = thread::spawn(move || Server::start_in(home, &["--port", &port.to_string()]));
    eventually("the server listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
    let mut c = Client::to(([127, 0, 0, 1], port).into());
    c.transcript(
        r#"
        > PING
        -LOADING Redis is loading the dataset in memory
        > GET key:1
        -LOADING Redis is loading the dataset in memory
        > SET key:1 v
        -LOADING Redis is loading the dataset in memory
        > BGREWRITEAOF
        -LOADING Redis is loading the dataset in memory
        > SELECT 0
        +OK
        "#,
    );
    c.expect("CONFIG SET appendonly no", "+OK");
    c.expect("CONFIG SET appendonly yes", NOT_ON);
    assert_eq!(info(&mut c, "loading").as_deref(), Some("1"));
    eventually("the log is read", || c.reply("PING") == Reply::Simple("PONG".into()));
    assert_eq!(info(&mut c, "loading").as_deref(), Some("0"));
    c.expect("CONFIG SET appendonly yes", "+OK");
    c.expect("DBSIZE", ":400000");
    drop(starting.join().expect("it started"));
}

#[test]
fn a_log_in_use_by_another_server_is_refused() {
    if skipped_on_redis() {
        return;
    }
    let server = Server::start(&[]);
    let mut c = server.client();
    let home = TempDir::new();
    std::os::unix::fs::symlink(server.log_path(), home.data().join("storage.aof")).unwrap();
    for _ in 0..2 {
        let ended = Server::fail_to_start(&home, &[]);
        assert_eq!(ended.code, Some(1));
        assert!(ended.stderr.contains("in use by another server"), "{}", ended.stderr);
        c.expect("SET k v", "+OK");
        // The file that replaces the log is locked too.
        rewrite(&mut c);
    }
}

// ---- The directory disappears ------------------------------------------------------------------------

#[test]
fn without_its_directory_the_server_refuses_writes_until_it_is_back() {
    if skipped_on_redis() {
        return;
    }
    let mut server = Server::start(&[]);
    let mut c = server.client();
    fill(&mut c, 100);
    c.expect("SET k v", "+OK");
    fs::remove_dir_all(server.dir()).unwrap();
    let misconf = "MISCONF Errors writing to the AOF file: ";
    eventually("writes are refused", || match c.reply("INCR n") {
        Reply::Error(error) => error.starts_with(misconf),
        _ => false,
    });
    c.expect("GET k", "\"v\"");
    assert_eq!(info(&mut c, "aof_last_write_status").as_deref(), Some("err"));
    fs::create_dir(server.dir()).unwrap();
    eventually("writes are accepted again", || matches!(c.reply("INCR n"), Reply::Integer(_)));
    assert_eq!(info(&mut c, "aof_last_write_status").as_deref(), Some("ok"));
    assert_survives_kill_9(&mut server);
}

// ---- The disk fills up -------------------------------------------------------------------------------

/// A small disk, mounted as the data directory of a server. Drop it after the server.
struct SmallDisk {
    home: PathBuf,
}

impl SmallDisk {
    /// `None`, with a message, where it cannot be mounted: that needs Linux and root.
    fn mount(home: &TempDir, bytes: usize) -> Option<SmallDisk> {
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs"])
            .arg(home.data())
            .stderr(Stdio::null())
            .status();
        if !mounted.is_ok_and(|status| status.success()) {
            say("skipped: no small disk can be mounted, which needs Linux and root");
            return None;
        }
        let disk = SmallDisk { home: home.path().to_owned() };
        fs::write(disk.ballast(), vec![b'x'; bytes / 4]).expect("write the ballast");
        Some(disk)
    }

    /// A file whose removal frees space.
    fn ballast(&self) -> PathBuf {
        self.home.join("data/ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.home.join("data")).status();
        let _ = fs::remove_dir_all(&self.home);
    }
}

const NO_SPACE: &str = "MISCONF Errors writing to the AOF file: No space left on device";

/// Writes until the disk is full. Returns the acknowledged keys, and the number of writes.
fn write_until_full(c: &mut Client) -> (Vec<String>, usize) {
    let mut acknowledged = Vec::new();
    for i in 0.. {
        assert!(i < 100_000, "the disk does not fill up");
        let key = format!("k{i}");
        // Sizes vary, so that the space ends at different places in a record.
        match c.call(&["SET", &key, &value_of(i)]) {
            Reply::Error(error) => {
                assert!(error.starts_with(NO_SPACE), "{error}");
                return (acknowledged, i + 1);
            }
            reply => assert_eq!(reply.to_string(), "+OK"),
        }
        acknowledged.push(key);
    }
    unreachable!("it ends when the disk is full");
}

fn value_of(i: usize) -> String {
    format!("{i}:").repeat(1 + i * 37 % 3000)
}

/// Every acknowledged write is there, and no write is there in part.
fn assert_whole(c: &mut Client, acknowledged: &[String], tried: usize) {
    for i in 0..tried {
        let key = format!("k{i}");
        match c.call(&["GET", &key]) {
            Reply::NullBulk => assert!(!acknowledged.contains(&key), "{key} is lost"),
            reply => assert!(reply.into_text() == value_of(i), "{key} is torn"),
        }
    }
}

#[test]
fn on_a_full_disk_writes_are_refused_until_space_is_freed() {
    if skipped_on_redis() {
        return;
    }
    for fsync in ["everysec", "always"] {
        let home = TempDir::new();
        let Some(disk) = SmallDisk::mount(&home, 1 << 20) else { return };
        let mut server = Server::start_in(home, &["--appendfsync", fsync]);
        let mut c = server.client();
        c.expect("SET old v", "+OK");
        let (mut acknowledged, tried) = write_until_full(&mut c);
        for command in ["SET x 1", "FLUSHALL", "INCR n", "DEL old"] {
            let reply = c.reply(command).to_string();
            assert!(reply.starts_with(&format!("-{NO_SPACE}")), "{command}: {reply}");
        }
        c.expect("GET old", "\"v\"");
        c.expect("PING", "+PONG");
        // This connection's last write is not on disk.
        c.expect("WAITAOF 1 0 20", "[:0, :0]");
        assert_eq!(info(&mut c, "aof_last_write_status").as_deref(), Some("err"));
        fs::remove_file(disk.ballast()).unwrap();
        eventually("writes are accepted again", || c.reply("SET x 1").to_string() == "+OK");
        assert_eq!(info(&mut c, "aof_last_write_status").as_deref(), Some("ok"));
        let key = format!("k{tried}");
        c.expect(&format!("SET {key} {}", value_of(tried)), "+OK");
        acknowledged.push(key);
        c.expect("WAITAOF 1 0 0", "[:1, :0]");
        server.kill_9();
        // No record is torn, not even the last one.
        records(&server.log_path());
        server.restart();
        let mut c = server.client();
        c.expect("MGET old x n", "[\"v\", \"1\", nil]");
        assert_whole(&mut c, &acknowledged, tried + 1);
        drop(server);
    }
}

/// When replies are withdrawn because the log cannot be written, so are the invalidations between them;
/// but the keys have changed. So the client must be told to drop all keys.
#[test]
fn on_a_full_disk_a_caching_client_is_told_to_drop_all_keys() {
    if skipped_on_redis() {
        return;
    }
    for fsync in ["everysec", "always"] {
        let home = TempDir::new();
        let Some(_disk) = SmallDisk::mount(&home, 1 << 20) else { return };
        let server = Server::start_in(home, &["--appendfsync", fsync]);
        let mut c = server.client();
        c.reply("HELLO 3");
        c.expect("CLIENT TRACKING ON", "+OK");
        let too_long = "x".repeat(2 << 20);
        c.expect("GET k", "_");
        let reply = c.call(&["SET", "k", &too_long]).to_string();
        assert!(reply.starts_with(&format!("-{NO_SPACE}")), "{reply}");
        assert_eq!(c.read_reply().to_string(), ">[\"invalidate\", _]");
        drop(server);
    }
}

#[test]
fn a_server_killed_on_a_full_disk_starts_again() {
    if skipped_on_redis() {
        return;
    }
    let home = TempDir::new();
    let Some(_disk) = SmallDisk::mount(&home, 1 << 20) else { return };
    let mut server = Server::start_in(home, &[]);
    let (acknowledged, tried) = write_until_full(&mut server.client());
    server.kill_9();
    server.restart();
    assert_whole(&mut server.client(), &acknowledged, tried);
    drop(server);
}

#[test]
fn a_rewrite_without_disk_space_keeps_the_old_log_in_use() {
    if skipped_on_redis() {
        return;
    }
    let home = TempDir::new();
    let Some(disk) = SmallDisk::mount(&home, 1 << 20) else { return };
    let mut server = Server::start_in(home, &[]);
    let mut c = server.client();
    for i in 0..6 {
        c.expect(&format!("SET k{i} {}", "v".repeat(80_000)), "+OK");
    }
    start_rewrite(&mut c);
    await_rewrite(&mut c);
    assert_eq!(info(&mut c, "aof_last_bgrewrite_status").as_deref(), Some("err"));
    eventually("the reason is on stderr", || {
        server.stderr().contains("The AOF could not be rewritten: No space left on device")
    });
    let names: Vec<String> = files(&server.dir()).into_keys().collect();
    assert_eq!(names, ["ballast", "storage.aof"]);
    c.expect("SET after failure", "+OK");
    assert_eq!(info(&mut c, "aof_last_write_status").as_deref(), Some("ok"));
    fs::remove_file(disk.ballast()).unwrap();
    rewrite(&mut c);
    assert_survives_kill_9(&mut server);
    drop(server);
}

#[test]
fn a_read_only_directory_is_an_error_at_the_start() {
    if skipped_on_redis() {
        return;
    }
    let home = TempDir::new();
    let Some(_disk) = SmallDisk::mount(&home, 1 << 20) else { return };
    let read_only = Command::new("mount").args(["-o", "remount,ro"]).arg(home.data()).status();
    assert!(read_only.is_ok_and(|status| status.success()));
    let ended = Server::fail_to_start(&home, &[]);
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("Read-only file system"), "{}", ended.stderr);
    assert!(ended.stderr.contains("storage.aof"), "{}", ended.stderr);
}
