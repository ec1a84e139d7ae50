//! What others do to the server from outside the protocol: they change its log while it runs, or leave it
//! without standard output, descriptors or memory. It says what has happened, and keeps what it has
//! acknowledged.
//!
//! [`durability`](crate::durability) tests full disks. None of these tests runs against a Redis at
//! `REDIS_ADDR`.

use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::ops::RangeInclusive;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::harness::{
    Client, Reply, Server, TempDir, assert_survives_kill_9, await_rewrite, check_aof, encode,
    eventually, files, fill, free_port, info, rewrite, skipped_on_redis, start_rewrite,
};

// ---- Other programs change the log -------------------------------------------------------------------

fn append_to(log: &Path, bytes: &[u8]) {
    let mut file = OpenOptions::new().append(true).open(log).expect("open the log");
    file.write_all(bytes).expect("append to the log");
}

/// Increments `n` until the log has been written again, and returns what it may be now. Meanwhile some
/// increments may get an error. One that had run already, so that only its reply was withdrawn, takes effect.
fn increment_until_rewritten(c: &mut Client, rewrites: u64) -> RangeInclusive<i64> {
    let (mut last, mut refused) = (0, 0);
    eventually("the log is written again", || {
        match c.reply("INCR n") {
            Reply::Integer(n) => (last, refused) = (n, 0),
            Reply::Error(error) => {
                assert!(error.starts_with("MISCONF "), "{error}");
                refused += 1;
            }
            other => panic!("{other}"),
        }
        info(c, "aof_rewrites") == Some(rewrites.to_string())
    });
    await_rewrite(c);
    last..=last + refused
}

#[test]
fn whatever_others_do_to_the_log_it_is_written_again_and_nothing_acknowledged_is_lost() {
    if skipped_on_redis() {
        return;
    }
    let replace = |log: &Path| {
        let other = log.with_extension("other");
        fs::write(&other, encode(&["SET", "other", "1"])).expect("write another log");
        fs::rename(other, log).expect("replace the log");
    };
    let truncate = |log: &Path, length| {
        let file = OpenOptions::new().write(true).open(log).expect("open the log");
        file.set_len(length).expect("truncate the log");
    };
    type Action<'a> = (&'a str, &'a dyn Fn(&Path), &'a [&'a str]);
    let actions: [Action; 7] = [
        ("empty", &|log| truncate(log, 0), &["storage.aof"]),
        ("shorten", &|log| truncate(log, 1000), &["storage.aof"]),
        ("lengthen", &|log| truncate(log, 1 << 20), &["storage.aof"]),
        ("append", &|log| append_to(log, &encode(&["SET", "other", "1"])), &["storage.aof"]),
        ("delete", &|log| fs::remove_file(log).expect("delete the log"), &["storage.aof"]),
        (
            "move",
            &|log| fs::rename(log, log.with_extension("moved")).expect("move the log"),
            &["storage.aof", "storage.moved"],
        ),
        ("replace", &replace, &["storage.aof", "storage.aof.replaced"]),
    ];
    for (what, act, left) in actions {
        let mut server = Server::start(&[]);
        let mut c = server.client();
        fill(&mut c, 100);
        act(&server.log_path());
        let expected = increment_until_rewritten(&mut c, 1);
        assert_eq!(info(&mut c, "aof_files_lost").as_deref(), Some("1"), "{what}");
        assert_eq!(info(&mut c, "aof_last_write_status").as_deref(), Some("ok"), "{what}");
        eventually("the reason is on stderr", || {
            server.stderr().contains("The AOF cannot be relied on: ")
        });
        assert_survives_kill_9(&mut server);
        let n = server.client().text("GET n").parse().expect("a number");
        assert!(expected.contains(&n), "{what}: {n} is not in {expected:?}");
        server.client().expect("EXISTS other", ":0");
        assert!(files(&server.dir()).into_keys().eq(left.iter().copied()), "{what}");
    }
}

#[test]
fn a_rewrite_does_not_copy_what_others_have_appended() {
    if skipped_on_redis() {
        return;
    }
    let mut server = Server::start(&[]);
    let mut c = server.client();
    fill(&mut c, 100);
    append_to(&server.log_path(), &encode(&["SET", "other", "1"]));
    for n in 1..100 {
        c.expect("INCR n", &format!(":{n}"));
    }
    start_rewrite(&mut c);
    await_rewrite(&mut c);
    assert_survives_kill_9(&mut server);
    server.client().expect("MGET n other", "[\"99\", nil]");
}

#[test]
fn the_log_of_another_server_in_place_of_ours_is_left_alone_and_writes_are_refused() {
    if skipped_on_redis() {
        return;
    }
    let mut server = Server::start(&[]);
    let mut c = server.client();
    c.expect("SET k v", "+OK");
    let other = Server::start(&[]);
    other.client().expect("SET theirs v", "+OK");
    let log = server.log_path();
    fs::remove_file(&log).expect("remove the log");
    fs::hard_link(other.log_path(), &log).expect("a second name");
    let theirs = fs::read(&log).expect("read the log");
    eventually("the reason is on stderr", || {
        server.stderr().contains("The AOF could not be rewritten: ")
            && server.stderr().contains("is in use by another server")
    });
    let refused = c.reply("SET k w").to_string();
    assert!(refused.starts_with("-MISCONF Errors writing to the AOF file: "), "{refused}");
    c.expect("GET k", "\"v\"");
    c.expect("SHUTDOWN", "-ERR Errors trying to SHUTDOWN. Check logs.");
    assert_eq!(fs::read(&log).expect("read the log"), theirs);
    drop(other);
    eventually("writes are accepted again", || c.reply("SET k w").to_string() == "+OK");
    assert_survives_kill_9(&mut server);
}

#[test]
fn a_shutdown_does_not_end_a_server_whose_log_is_lost() {
    if skipped_on_redis() {
        return;
    }
    let mut server = Server::start(&[]);
    let mut c = server.client();
    c.expect("SET k v", "+OK");
    fs::write(server.log_path(), "").expect("empty the log");
    c.expect("SHUTDOWN", "-ERR Errors trying to SHUTDOWN. Check logs.");
    eventually("the log is whole again", || {
        info(&mut c, "aof_last_write_status").as_deref() == Some("ok")
    });
    assert_survives_kill_9(&mut server);
}

// ---- What is no file, and output that nobody takes ---------------------------------------------------

/// What can stand in the place of a file.
fn kinds_of_no_file() -> &'static [&'static str] {
    let all = &["a directory", "a FIFO", "a socket", "a device"];
    if cfg!(target_os = "linux") { all } else { &all[..3] }
}

/// Puts something there that is no file: itself, or for a device a symbolic link to it.
fn make(what: &str, path: &Path) {
    match what {
        "a directory" => fs::create_dir(path).expect("a directory"),
        "a FIFO" => {
            let made = Command::new("mkfifo").arg(path).status();
            assert!(made.is_ok_and(|status| status.success()));
        }
        "a socket" => drop(UnixListener::bind(path).expect("a socket")),
        _ => std::os::unix::fs::symlink("/dev/zero", path).expect("a symbolic link"),
    }
}

#[test]
fn a_file_to_read_that_is_no_file_is_an_error_at_the_start() {
    if skipped_on_redis() {
        return;
    }
    for what in kinds_of_no_file() {
        for (name, args) in [
            ("dump.rdb", &[][..]),
            ("appendonlydir/storage.aof.manifest", &[]),
            ("appendonlydir/part", &[]),
            ("users.acl", &["--aclfile", "users.acl"]),
            ("respite.conf", &["--include", "$"]),
        ] {
            let home = TempDir::new();
            let path = home.data().join(name);
            if name.starts_with("appendonlydir/") {
                fs::create_dir(home.data().join("appendonlydir")).expect("a directory");
            }
            if name.ends_with("/part") {
                fs::write(path.with_file_name("a.manifest"), "file part seq 1 type b\n")
                    .expect("write a manifest");
            }
            make(what, &path);
            let shown = path.to_str().expect("a path of UTF-8");
            let args: Vec<&str> =
                args.iter().map(|arg| [*arg, shown][(*arg == "$") as usize]).collect();
            let ended = Server::fail_to_start(&home, &args);
            assert_eq!(ended.code, Some(1), "{what}");
            let error = format!("{name}': it is {what}, not a file");
            assert!(ended.stderr.contains(&error), "{}", ended.stderr);
        }
    }
    let home = TempDir::new();
    fs::write(home.data().join("appendonlydir"), "").expect("write a file");
    let ended = Server::fail_to_start(&home, &[]);
    assert!(ended.stderr.contains("appendonlydir': Not a directory"), "{}", ended.stderr);
}

#[test]
fn an_acl_file_that_is_no_file_any_more_is_an_error_and_the_users_stay() {
    if skipped_on_redis() {
        return;
    }
    for what in kinds_of_no_file() {
        let home = TempDir::new();
        let path = home.data().join("users.acl");
        fs::write(&path, "user ann on nopass +@all\n").expect("write a file");
        let server = Server::start_in(home, &["--aclfile", "users.acl"]);
        let mut c = server.client();
        fs::remove_file(&path).expect("remove the file");
        make(what, &path);
        let error = c.reply("ACL LOAD").to_string();
        assert!(error.ends_with(&format!("users.acl': it is {what}, not a file")), "{error}");
        c.expect("ACL USERS", "[\"ann\", \"default\"]");
    }
}

#[test]
fn a_fifo_without_a_reader_is_an_error_for_the_log_file_and_a_warning_for_the_pid_file() {
    if skipped_on_redis() {
        return;
    }
    let home = TempDir::new();
    let path = home.data().join("fifo");
    make("a FIFO", &path);
    let path = path.to_str().expect("a path of UTF-8").to_owned();
    let ended = Server::fail_to_start(&home, &["--logfile", &path]);
    assert!(ended.stderr.contains("fifo': it is a FIFO, not a file"), "{}", ended.stderr);
    let server = Server::start_in(home, &["--pidfile", &path]);
    eventually("it says so", || server.stderr().contains("fifo': it is a FIFO, not a file"));
}

#[test]
fn the_configuration_may_come_from_a_pipe_that_config_rewrite_does_not_touch() {
    if skipped_on_redis() {
        return;
    }
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    writer.write_all(b"timeout 7\n").expect("write");
    drop(writer);
    let server = Server::start_with_stdin(reader, &["/dev/stdin"]);
    let mut c = server.client();
    c.expect("CONFIG GET timeout", "[\"timeout\", \"7\"]");
    c.expect("CONFIG REWRITE", "-ERR Rewriting config file: it is a FIFO, not a file");
}

#[test]
fn a_log_that_is_no_file_is_an_error_at_the_start_and_for_check_aof() {
    if skipped_on_redis() {
        return;
    }
    for what in kinds_of_no_file() {
        let home = TempDir::new();
        let log = home.data().join("storage.aof");
        make(what, &log);
        let ended = Server::fail_to_start(&home, &[]);
        assert_eq!(ended.code, Some(1), "{what}");
        let error = format!("storage.aof': it is {what}, not a file");
        assert!(ended.stderr.contains(&error), "{}", ended.stderr);
        let (good, output) = check_aof(&log, &[]);
        assert!(!good && output.contains(&error), "{output}");
    }
}

#[test]
fn the_server_runs_whether_or_not_its_standard_output_takes_anything() {
    if skipped_on_redis() {
        return;
    }
    let (reader, broken) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut outputs = vec![Stdio::from(broken)];
    if let Ok(full) = OpenOptions::new().write(true).open("/dev/full") {
        outputs.push(full.into());
    }
    for stdout in outputs {
        let server = Server::start_with_stdout(stdout, free_port());
        let mut c = server.client();
        eventually("the log is read", || c.reply("SET k v").to_string() == "+OK");
        eventually("it says so", || server.stderr().contains("Loaded "));
        c.expect("GET k", "\"v\"");
    }
}

#[test]
fn a_text_that_cannot_be_printed_is_an_error_unless_its_reader_has_read_enough() {
    if skipped_on_redis() {
        return;
    }
    let run = |stdout: Stdio| {
        let mut help = Command::new(env!("CARGO_BIN_EXE_respite"));
        help.arg("--help").stdout(stdout).stderr(Stdio::piped()).output().expect("run it")
    };
    let (reader, broken) = std::io::pipe().expect("a pipe");
    drop(reader);
    assert_eq!(run(broken.into()).status.code(), Some(0));
    let Ok(full) = OpenOptions::new().write(true).open("/dev/full") else { return };
    let ended = run(full.into());
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.stderr.starts_with(b"respite: can't print: "));
}

// ---- Memory ends -------------------------------------------------------------------------------------

const NO_MEMORY: &str = "-OOM the system has not enough memory for a value of this size";

#[test]
fn a_size_that_no_memory_can_hold_is_an_error_and_changes_nothing() {
    if skipped_on_redis() {
        return;
    }
    let mut server = Server::start(&["--enable-debug-command", "yes"]);
    let mut c = server.client();
    let too_long = "-ERR string exceeds maximum allowed size (proto-max-bulk-len)";
    c.expect("DEBUG POPULATE 10 kk 9223372036854775807", too_long);
    c.expect("CONFIG SET proto-max-bulk-len 9223372036854775807", "+OK");
    c.expect("SET old v", "+OK");
    for key in ["old", "new"] {
        for command in [
            "SETRANGE key 9223372036854770000 x",
            "SETBIT key 9223372036854775807 1",
            "BITFIELD key SET u8 9223372036854770000 1",
            "BITFIELD key INCRBY i64 #144115188075855000 1",
        ] {
            c.expect(&command.replace("key", key), NO_MEMORY);
        }
    }
    c.expect("DEBUG POPULATE 10 kk 9223372036854775807", NO_MEMORY);
    // The table of LCS would take a bit for each pair of bytes, 312 TB.
    for key in ["a", "b"] {
        c.expect(&format!("SETRANGE {key} 49999999 x"), ":50000000");
    }
    let transient = "-ERR Insufficient memory, failed allocating transient memory for LCS";
    c.expect("LCS a b LEN", transient);
    c.expect("DEL a b", ":2");
    c.expect("KEYS *", "[\"old\"]");
    c.expect("GET old", "\"v\"");
    assert_survives_kill_9(&mut server);
}

#[test]
fn a_string_for_which_the_system_refuses_memory_is_an_error_and_the_server_goes_on() {
    if skipped_on_redis() || cfg!(not(target_os = "linux")) {
        return;
    }
    let server = Server::start_under("ulimit -v 2500000", &[]);
    let mut c = server.client();
    let set = |c: &mut Client, key: usize| c.reply(&format!("SETRANGE {key} 499999999 x"));
    let last = (0..8).find(|key| set(&mut c, *key).to_string() == NO_MEMORY);
    let last = last.expect("2.5 GB hold less than 4 GB");
    c.expect("BITOP NOT result 0", NO_MEMORY);
    c.expect("SET small v", "+OK");
    c.expect("GETRANGE 0 499999999 -1", "\"x\"");
    assert_eq!(c.integer("DBSIZE"), 1 + last as i64);
    c.expect("DEL 0", ":1");
    eventually("the memory is free again", || set(&mut c, 0) == Reply::Integer(500_000_000));
}

const NO_MEMORY_FOR_REPLY: &str = "-OOM the system has not enough memory for a reply of this size";

#[test]
fn an_argument_or_a_reply_for_which_the_system_refuses_memory_costs_one_error_and_nothing_else() {
    if skipped_on_redis() || cfg!(not(target_os = "linux")) {
        return;
    }
    let mut server = Server::start_under("ulimit -v 600000", &[]);
    let mut c = server.client();
    let large = vec![b'x'; 400 << 20];
    let set: [&[u8]; 3] = [b"SET", b"big", &large];
    assert_eq!(c.call(&set).to_string(), NO_MEMORY);
    c.expect("MULTI", "+OK");
    c.expect("SET small v", "+QUEUED");
    assert_eq!(c.call(&set).to_string(), NO_MEMORY);
    c.expect("EXEC", "-EXECABORT Transaction discarded because of previous errors.");
    drop(large);
    c.expect("KEYS *", "[]");

    c.expect("SETRANGE big 299999999 x", ":300000000");
    c.expect("HSET hash field v", ":1");
    for command in ["GET big", "GETRANGE big 0 -1", "MGET hash big", "GETDEL big", "GETSET big v"] {
        c.expect(command, NO_MEMORY_FOR_REPLY);
    }
    for command in ["SET big v GET", "GETEX big EX 1", "GETEX big EXAT 1"] {
        c.expect(command, NO_MEMORY_FOR_REPLY);
    }
    c.expect("COPY big other", NO_MEMORY);
    c.expect("DUMP big", NO_MEMORY);
    c.expect("MULTI", "+OK");
    for command in ["HGET hash field", "GET big", "HSET hash field w"] {
        c.expect(command, "+QUEUED");
    }
    c.expect("EXEC", &format!("[\"v\", {NO_MEMORY_FOR_REPLY}, :0]"));
    c.exchange(
        "PING\r\nGET big\r\nPING\r\n",
        format!("+PONG\r\n{NO_MEMORY_FOR_REPLY}\r\n+PONG\r\n"),
    );
    c.expect("STRLEN big", ":300000000");
    c.expect("TTL big", ":-1");
    c.expect("HGET hash field", "\"w\"");
    c.expect("DEL big", ":1");
    assert_survives_kill_9(&mut server);
}

#[test]
fn fields_that_cannot_be_replied_stay_as_they_are() {
    if skipped_on_redis() || cfg!(not(target_os = "linux")) {
        return;
    }
    let server = Server::start_under("ulimit -v 600000", &[]);
    let mut c = server.client();
    let value = vec![b'x'; 50 << 20];
    let set: [&[u8]; 4] = [b"HSET", b"h", b"f", &value];
    assert_eq!(c.call(&set).to_string(), ":1");
    for command in ["HGETEX h EX 100 FIELDS 12", "HGETDEL h FIELDS 12"] {
        c.expect(&format!("{command}{}", " f".repeat(12)), NO_MEMORY_FOR_REPLY);
    }
    c.expect("HTTL h FIELDS 1 f", "[:-1]");
    c.expect("HSTRLEN h f", &format!(":{}", value.len()));
}

#[test]
fn values_fill_the_memory_until_one_is_refused_and_small_ones_still_fit() {
    if skipped_on_redis() || cfg!(not(target_os = "linux")) {
        return;
    }
    let server = Server::start_under("ulimit -v 500000", &[]);
    let mut c = server.client();
    let value = vec![b'x'; 2 << 20];
    let mut set = |key: usize| c.call(&[b"SET", key.to_string().as_bytes(), &value]).to_string();
    let refused = (0..250).map(&mut set).find(|reply| reply != "+OK");
    assert_eq!(refused.as_deref(), Some(NO_MEMORY), "500 MB do not fit");
    c.expect("SET small v", "+OK");
    c.expect("GET small", "\"v\"");
}

#[test]
fn a_log_that_was_written_under_a_limit_can_be_loaded_under_it() {
    if skipped_on_redis() || cfg!(not(target_os = "linux")) {
        return;
    }
    let limit = "ulimit -v 450000";
    let mut server = Server::start_under(limit, &[]);
    let mut c = server.client();
    c.expect("SETRANGE big 104857599 x", ":104857600");
    c.reply("BGREWRITEAOF");
    let rewritten = |c: &mut Client| info(c, "aof_rewrites").as_deref() == Some("1");
    eventually("the rewrite ends", || rewritten(&mut c));
    server.restart_under(limit);
    let mut c = server.client();
    c.expect("STRLEN big", ":104857600");
    // Once more it does not fit beside itself: the rewrite fails, and nothing else.
    c.expect("SETRANGE big 209715199 x", ":209715200");
    c.reply("BGREWRITEAOF");
    let status = |c: &mut Client| info(c, "aof_last_bgrewrite_status");
    eventually("the rewrite fails", || status(&mut c).as_deref() == Some("err"));
    c.expect("STRLEN big", ":209715200");
}

#[test]
fn a_transaction_for_which_the_system_refuses_memory_changes_nothing() {
    if skipped_on_redis() || cfg!(not(target_os = "linux")) {
        return;
    }
    let server = Server::start_under("ulimit -v 600000", &[]);
    let mut c = server.client();
    let value = vec![b'x'; 10 << 20];
    c.expect("MULTI", "+OK");
    let mut sent = (0..60).map(|key: usize| c.call(&[b"SET", key.to_string().as_bytes(), &value]));
    let refused = sent.find(|reply| reply.to_string() != "+QUEUED").expect("600 MB do not fit");
    assert_eq!(refused.to_string(), NO_MEMORY);
    c.expect("EXEC", "-EXECABORT Transaction discarded because of previous errors.");
    // These fit into the queue, but not once more into memory and into the log.
    c.expect("MULTI", "+OK");
    for key in ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o"] {
        assert_eq!(c.call(&[b"SET", key.as_bytes(), &value]).to_string(), "+QUEUED");
    }
    c.expect(
        "EXEC",
        "-EXECABORT Transaction discarded because of: OOM the system has not enough \
         memory for a value of this size",
    );
    c.expect("DBSIZE", ":0");
}

// ---- Descriptors end ---------------------------------------------------------------------------------

#[test]
fn with_few_descriptors_as_many_clients_are_served_as_possible_and_the_log_is_rewritten() {
    if skipped_on_redis() {
        return;
    }
    let mut server = Server::start_under("ulimit -n 200", &[]);
    let mut c = server.client();
    eventually("it says so", || {
        server.stderr().contains("'maxclients' is 1")
            && server.stderr().contains("instead of 10000")
    });
    let number = |c: &mut Client, field| -> usize {
        let text = c.text("INFO");
        let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        value.expect("a field").parse().expect("a number")
    };
    let limit = number(&mut c, "maxclients");
    assert!((100..180).contains(&limit), "{limit}");
    let error = c.reply("CONFIG SET maxclients 1000").to_string();
    let advice =
        "- The operating system is not able to handle the specified number of clients, try with ";
    assert!(error.contains(advice), "{error}");
    c.expect(&format!("CONFIG SET maxclients {limit}"), "+OK");
    for round in 0..3 {
        let sockets: Vec<TcpStream> =
            (0..300).map(|_| TcpStream::connect(server.address()).expect("connect")).collect();
        eventually("all are served or refused", || {
            let refused = number(&mut c, "rejected_connections") - round * (301 - limit);
            number(&mut c, "connected_clients") == limit && refused == 301 - limit
        });
        fill(&mut c, 50);
        rewrite(&mut c);
        let mut refused = 0;
        for mut socket in sockets {
            socket.set_nonblocking(true).expect("a mode");
            let mut answer = [0; 100];
            match socket.read(&mut answer) {
                Ok(read) => {
                    assert_eq!(&answer[..read], b"-ERR max number of clients reached\r\n");
                    refused += 1;
                }
                Err(_) => {
                    socket.set_nonblocking(false).expect("a mode");
                    socket.write_all(b"PING\r\n").expect("send");
                    let read = socket.read(&mut answer).expect("a reply");
                    assert_eq!(&answer[..read], b"+PONG\r\n");
                }
            }
        }
        assert_eq!(refused, 301 - limit);
        eventually("all are gone", || number(&mut c, "connected_clients") == 1);
    }
    assert_survives_kill_9(&mut server);
}

#[test]
fn without_descriptors_for_clients_the_server_does_not_start() {
    if skipped_on_redis() {
        return;
    }
    let ended = Server::fail_to_start_under("ulimit -n 30");
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("raise it with 'ulimit -n'"), "{}", ended.stderr);
}
