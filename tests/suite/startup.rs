//! Starting the process: settings from the command line and from a file, errors that prevent the start, the
//! addresses it listens on, and its limits for clients. Only for our own process.

use std::fs;
use std::io::{BufReader, Write};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::harness::{
    Client, Reply, Server, TempDir, eventually, free_port, read_reply, skipped_on_redis,
};

/// The server must refuse these arguments: it prints all of `words` on stderr and exits with code 1.
#[track_caller]
fn refuses(args: &[&str], words: &[&str]) {
    let ended = Server::fail_to_start(&TempDir::new(), args);
    assert_eq!(ended.code, Some(1), "{args:?}: {}", ended.stderr);
    for word in words {
        assert!(ended.stderr.contains(word), "{args:?}: {word:?} is not in {:?}", ended.stderr);
    }
}

#[test]
fn an_unknown_setting_is_named() {
    if skipped_on_redis() {
        return;
    }
    refuses(&["--nosuch", "1"], &["nosuch"]);
    refuses(&["--timeout", "5", "--nosuch", "1", "--loglevel", "notice"], &["nosuch"]);
}

#[test]
fn a_malformed_setting_is_named() {
    if skipped_on_redis() {
        return;
    }
    refuses(&["--port", "abc"], &["port"]);
    refuses(&["--port", "65536"], &["port"]);
    refuses(&["--port", "-1"], &["port"]);
    refuses(&["--timeout", "soon"], &["timeout"]);
    refuses(&["--timeout", "-5"], &["timeout"]);
    refuses(&["--databases", "0"], &["databases"]);
    refuses(&["--maxclients", "0"], &["maxclients"]);
    refuses(&["--appendonly", "maybe"], &["appendonly"]);
    refuses(&["--appendfsync", "sometimes"], &["appendfsync"]);
    refuses(&["--loglevel", "loud"], &["loglevel"]);
    refuses(&["--bind", "nowhere.invalid"], &["nowhere.invalid"]);
    refuses(&["--timeout"], &["timeout"]);
    refuses(&["--timeout", "1", "2"], &["timeout"]);
}

#[test]
fn a_port_in_use_is_an_error_at_the_start() {
    if skipped_on_redis() {
        return;
    }
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("its address").port().to_string();
    refuses(&["--port", &port, "--bind", "127.0.0.1"], &[&port, "in use"]);
}

#[test]
fn a_missing_directory_is_named() {
    if skipped_on_redis() {
        return;
    }
    let home = TempDir::new();
    fs::remove_dir(home.data()).expect("remove the data directory");
    let ended = Server::fail_to_start(&home, &[]);
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains(&home.data().display().to_string()), "{}", ended.stderr);
}

#[test]
fn it_listens_on_the_given_port_and_address() {
    if skipped_on_redis() {
        return;
    }
    let port = free_port();
    let server = Server::start(&["--port", &port.to_string(), "--bind", "127.0.0.1"]);
    assert_eq!(server.port(), port);
    let mut c = server.client();
    c.expect("PING", "+PONG");
    c.expect("CONFIG GET port", &format!("[\"port\", \"{port}\"]"));
    c.expect("CONFIG GET bind", "[\"bind\", \"127.0.0.1\"]");
}

#[test]
fn a_second_server_leaves_the_unix_socket_of_the_first_one_alone() {
    if skipped_on_redis() {
        return;
    }
    let home = TempDir::new();
    let path = home.path().join("socket");
    let shown = path.to_str().expect("a path of UTF-8").to_owned();
    let dir = home.data();
    let mut server = Server::start_in(home, &["--unixsocket", &shown]);
    let answers = || {
        let mut stream = UnixStream::connect(&path).expect("connect to the socket");
        stream.write_all(b"PING\r\n").expect("send");
        read_reply(&mut BufReader::new(&stream)).expect("a reply").to_string() == "+PONG"
    };
    assert!(answers());
    let other = TempDir::new();
    let ended = Server::fail_to_start(&other, &["--unixsocket", &shown]);
    let expected = format!("another server listens on '{shown}'");
    assert!(ended.stderr.contains(&expected), "{}", ended.stderr);
    let mut same = Command::new(env!("CARGO_BIN_EXE_respite"));
    same.args(["--port", "0", "--unixsocket", &shown, "--dir"]).arg(&dir);
    let stderr = same.output().expect("it ends").stderr;
    assert!(String::from_utf8_lossy(&stderr).contains("is in use by another server"));
    assert!(answers());
    // What a server has left that was killed is replaced.
    server.restart();
    assert!(answers());
}

#[test]
fn a_listening_socket_that_is_standard_input_is_served() {
    if skipped_on_redis() {
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let port = listener.local_addr().expect("an address").port();
    let server = Server::start_with_stdin(OwnedFd::from(listener));
    assert_eq!(server.port(), port);
    server.client().expect("PING", "+PONG");
    server.client().expect("CONFIG GET port", "[\"port\", \"0\"]");
    let home = TempDir::new();
    let path = home.path().join("socket");
    let listener = UnixListener::bind(&path).expect("a listener");
    let _server = Server::start_with_stdin(OwnedFd::from(listener));
    let mut stream = UnixStream::connect(&path).expect("connect to the socket");
    stream.write_all(b"PING\r\n").expect("send");
    assert_eq!(read_reply(&mut BufReader::new(&stream)).expect("a reply").to_string(), "+PONG");
    // A socket that does not listen is none to serve.
    let (_, connected) = UnixStream::pair().expect("a pair of sockets");
    Server::start_with_stdin(OwnedFd::from(connected)).client().expect("PING", "+PONG");
}

#[test]
fn it_listens_on_a_unix_socket() {
    if skipped_on_redis() {
        return;
    }
    let home = TempDir::new();
    let path = home.path().join("socket");
    let shown = path.to_str().expect("a path of UTF-8").to_owned();
    // With a Unix socket, port 0 means the socket only.
    let port = free_port().to_string();
    let mut server = Server::start_in(home, &["--unixsocket", &shown, "--port", &port]);
    for round in 0..2 {
        let mut stream = UnixStream::connect(&path).expect("connect to the socket");
        stream.write_all(b"PING\r\nINCR n\r\nCLIENT INFO\r\n").expect("send");
        let mut reader = BufReader::new(&stream);
        let mut reply = || read_reply(&mut reader).expect("a reply");
        assert_eq!(reply().to_string(), "+PONG");
        assert_eq!(reply().to_string(), format!(":{}", round + 1));
        let info = reply().into_text();
        assert!(info.contains(&format!("addr={shown}:0 ")), "{info}");
        assert!(info.contains(" flags=U "), "{info}");
        // The socket file of a killed server does not prevent a restart.
        server.restart();
    }
    server.client().expect("GET n", "\"2\"");
}

#[test]
fn settings_come_from_a_file_and_the_command_line_overrides_them() {
    if skipped_on_redis() {
        return;
    }
    let home = TempDir::new();
    let file = home.path().join("redis.conf");
    let text = "# A comment\n\n   timeout 300\nMaxClients 50\nrequirepass \"a \\x62\"\nappendfsync always\n\
                bind 127.0.0.1\ndatabases 4\nloglevel 'warning'\n";
    fs::write(&file, text).expect("write the file");
    let args = [file.to_str().expect("a path of UTF-8"), "--timeout", "20", "--appendfsync", "no"];
    let server = Server::start_in(home, &args);
    let mut c = server.client();
    c.transcript(
        r#"
        > PING
        -NOAUTH Authentication required.
        > AUTH "a b"
        +OK
        > CONFIG GET timeout
        ["timeout", "20"]
        > CONFIG GET appendfsync
        ["appendfsync", "no"]
        > CONFIG GET maxclients
        ["maxclients", "50"]
        > CONFIG GET requirepass
        ["requirepass", "a b"]
        > CONFIG GET databases
        ["databases", "4"]
        > CONFIG GET loglevel
        ["loglevel", "warning"]
        > CONFIG GET bind
        ["bind", "127.0.0.1"]
        > SELECT 3
        +OK
        > SELECT 4
        -ERR DB index is out of range
        > SWAPDB 0 4
        -ERR DB index is out of range
        "#,
    );
}

#[test]
fn a_mistake_in_the_file_is_named_with_its_line() {
    if skipped_on_redis() {
        return;
    }
    let home = TempDir::new();
    let file = home.path().join("redis.conf");
    let path = file.to_str().expect("a path of UTF-8");
    for (text, words) in [
        ("timeout 5\nnosuch 1\n", ["nosuch", "2"]),
        ("timeout 5\n\ntimeout soon\n", ["timeout", "3"]),
        ("port\n", ["port", "1"]),
        ("# fine\nrequirepass \"open\n", ["requirepass", "2"]),
    ] {
        fs::write(&file, text).expect("write the file");
        let ended = Server::fail_to_start(&home, &[path]);
        assert_eq!(ended.code, Some(1), "{text:?}");
        for word in words {
            assert!(ended.stderr.contains(word), "{text:?}: {word:?} is not in {:?}", ended.stderr);
        }
    }
    refuses(&["/nonexistent/redis.conf"], &["/nonexistent/redis.conf"]);
}

#[test]
fn the_defaults_are_as_documented() {
    if skipped_on_redis() {
        return;
    }
    let server = Server::start(&[]);
    let mut c = server.client();
    c.transcript(
        r#"
        > CONFIG GET appendonly
        ["appendonly", "yes"]
        > CONFIG GET appendfilename
        ["appendfilename", "storage.aof"]
        > CONFIG GET appendfsync
        ["appendfsync", "everysec"]
        > CONFIG GET databases
        ["databases", "16"]
        > CONFIG GET maxclients
        ["maxclients", "10000"]
        > CONFIG GET timeout
        ["timeout", "0"]
        > CONFIG GET requirepass
        ["requirepass", ""]
        > CONFIG GET unixsocket
        ["unixsocket", ""]
        > CONFIG GET loglevel
        ["loglevel", "notice"]
        "#,
    );
    let dir = c.reply("CONFIG GET dir").into_items().remove(1).into_text();
    let expected = fs::canonicalize(server.dir()).expect("the directory");
    assert_eq!(fs::canonicalize(dir).expect("a directory"), expected);
}

#[test]
fn help_and_version_are_printed() {
    if skipped_on_redis() {
        return;
    }
    let run = |arg: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_respite"))
            .arg(arg)
            .stdin(Stdio::null())
            .output()
            .expect("run the server");
        assert!(output.status.success(), "{arg}");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let help = run("--help");
    let settings = "port bind unixsocket dir appendonly appendfilename appendfsync requirepass databases \
                    maxclients timeout loglevel";
    for name in settings.split_whitespace() {
        assert!(help.contains(name), "{name} is not in {help}");
    }
    let version = run("--version");
    assert!(version.contains(env!("CARGO_PKG_VERSION")), "{version}");
    assert_eq!(run("-h"), help);
    assert_eq!(run("-v"), version);
}

#[test]
fn an_idle_connection_is_closed_after_the_timeout() {
    if skipped_on_redis() {
        return;
    }
    let server = Server::start(&["--timeout", "1"]);
    let mut idle = server.client();
    let mut busy = server.client();
    idle.expect("PING", "+PONG");
    let started = Instant::now();
    let (sender, closed) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        idle.expect_closed();
        sender.send(started.elapsed()).expect("the test waits");
    });
    let mut after = None;
    eventually("the idle connection is closed", || {
        busy.expect("PING", "+PONG");
        after = closed.try_recv().ok();
        after.is_some()
    });
    let after = after.expect("it was closed").as_millis();
    assert!((900..5000).contains(&after), "after {after} ms");
}

#[test]
fn a_client_that_sends_a_long_command_slowly_is_not_idle() {
    if skipped_on_redis() {
        return;
    }
    let server = Server::start(&["--timeout", "1"]);
    let mut c = server.client();
    c.send_raw(b"*2\r\n$4\r\nECHO\r\n$10\r\n");
    for _ in 0..10 {
        std::thread::sleep(std::time::Duration::from_millis(300)); // the test is about slowness
        c.send_raw(b"x");
    }
    c.send_raw(b"\r\n");
    assert_eq!(c.read_reply().to_string(), "\"xxxxxxxxxx\"");
}

#[test]
fn an_announced_length_reserves_no_memory() {
    if skipped_on_redis() || !cfg!(target_os = "linux") {
        return;
    }
    let server = Server::start(&[]);
    let resident_kb = || -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", server.process_id()));
        let status = status.expect("read the process's status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kb = line.expect("VmRSS").trim().trim_end_matches("kB").trim();
        kb.parse().expect("a number")
    };
    let mut all: Vec<Client> = (0..50).map(|_| server.client()).collect();
    for c in &mut all {
        c.expect("PING", "+PONG");
    }
    let before = resident_kb();
    for (i, c) in all.iter_mut().enumerate() {
        c.send_raw(if i % 2 == 0 {
            "*2\r\n$4\r\nECHO\r\n$536870912\r\nbegun"
        } else {
            "*2147483647\r\n$4\r\nECHO\r\n$5\r\nbegun\r\n"
        });
    }
    // No reply shows when the server has read the lengths, so it gets some time to do so.
    let mut other = server.client();
    for _ in 0..100 {
        assert_eq!(other.reply("PING"), Reply::Simple("PONG".into()));
    }
    let grown = resident_kb().saturating_sub(before);
    assert!(grown < 50 * 1024, "{grown} kB more for 50 announced lengths");
}
