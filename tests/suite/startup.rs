//! Starting the process: settings from the command line and from a file, errors that prevent the start, the
//! addresses it listens on, and its limits for clients. Only for our own process.

use std::fs;
use std::io::{BufReader, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use respite::config::{SETTINGS, UNUSED};

use crate::harness::{
    Client, KilledOnDrop, Reply, Server, TempDir, eventually, free_port, read_reply, say,
    skipped_on_redis,
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
fn a_server_says_where_it_listens() {
    if skipped_on_redis() {
        return;
    }
    let home = TempDir::new();
    let path = home.path().join("socket").to_str().expect("a path of UTF-8").to_owned();
    let server = Server::start(&["--unixsocket", &path]);
    assert_eq!(server.stdout(), format!("Listening on '{path}'\n"));
    let port = free_port().to_string();
    let server = Server::start(&["--unixsocket", &format!("{path}2"), "--port", &port]);
    assert_eq!(server.stdout(), format!("Listening on port :{port} and '{path}2'\n"));
}

#[test]
fn a_listening_socket_that_is_standard_input_is_served() {
    if skipped_on_redis() {
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let port = listener.local_addr().expect("an address").port();
    listener.set_nonblocking(true).expect("set as some parents do");
    let server = Server::start_with_stdin(OwnedFd::from(listener), &[]);
    assert_eq!(server.port(), port);
    server.client().expect("PING", "+PONG");
    server.client().expect("CONFIG GET port", "[\"port\", \"0\"]");
    let home = TempDir::new();
    let path = home.path().join("socket");
    let listener = UnixListener::bind(&path).expect("a listener");
    let _server = Server::start_with_stdin(OwnedFd::from(listener), &[]);
    let mut stream = UnixStream::connect(&path).expect("connect to the socket");
    stream.write_all(b"PING\r\n").expect("send");
    assert_eq!(read_reply(&mut BufReader::new(&stream)).expect("a reply").to_string(), "+PONG");
    // A socket that does not listen is none to serve.
    let (_, connected) = UnixStream::pair().expect("a pair of sockets");
    Server::start_with_stdin(OwnedFd::from(connected), &[]).client().expect("PING", "+PONG");
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
fn one_message_names_every_line_that_must_change() {
    if skipped_on_redis() {
        return;
    }
    let home = TempDir::new();
    let file = home.path().join("redis.conf");
    let text = "timeout 5\nrename-command FLUSHALL\nmaxmemory 1gigabyte\nloadmodule x.so\nhz 10\n\
                sentinel monitor x\nreplicaof 10.0.0.1 x\ncluster-enabled yes\ntls-port 6380\nport x\n";
    fs::write(&file, text).expect("write the file");
    let ended =
        Server::fail_to_start(&home, &[file.to_str().expect("a path of UTF-8"), "--nosuch", "1"]);
    assert_eq!(ended.code, Some(1));
    assert!(
        ended.stderr.contains("Startup failed: 9 settings cannot be used:"),
        "{}",
        ended.stderr
    );
    for (line, word) in [
        (2, "wrong number of arguments"),
        (3, "memory value"),
        (4, "modules"),
        (6, "Sentinel"),
        (7, "master port"),
        (8, "cluster"),
        (9, "stunnel"),
        (10, "integer"),
    ] {
        let names =
            |shown: &&str| shown.contains(&format!("line {line}: ")) && shown.contains(word);
        assert!(ended.stderr.lines().any(|shown| names(&shown)), "{line}: {}", ended.stderr);
    }
    assert!(ended.stderr.contains("bad setting '--nosuch': unknown setting"), "{}", ended.stderr);
}

#[test]
fn a_file_with_every_setting_of_redis_starts_the_server_with_one_warning() {
    if skipped_on_redis() {
        return;
    }
    let home = TempDir::new();
    let file = home.path().join("redis.conf");
    let mut text = String::new();
    for setting in SETTINGS.iter().chain(UNUSED).filter(|setting| setting.name != "dir") {
        let value = if setting.default.contains(' ') && setting.name.ends_with("template") {
            format!("\"{}\"", setting.default)
        } else if setting.default.is_empty() {
            "\"\"".to_owned()
        } else {
            setting.default.to_owned()
        };
        text.push_str(&format!("{} {value}\n", setting.name));
    }
    // These are the values that Redis's own file has where the server does something else.
    text.push_str("port 0\ntcp-backlog 511\ntcp-keepalive 300\naof-use-rdb-preamble yes\n");
    text.push_str("save 3600 1\nsave 300 100\n");
    fs::write(&file, text).expect("write the file");
    let server = Server::start_in(home, &[file.to_str().expect("a path of UTF-8")]);
    let mut c = server.client();
    c.expect("CONFIG GET tcp-backlog", "[\"tcp-backlog\", \"511\"]");
    c.expect("CONFIG GET save", "[\"save\", \"3600 1 300 100\"]");
    let unused =
        "These settings have no effect here: aof-use-rdb-preamble, tcp-backlog, tcp-keepalive";
    eventually("it warns", || server.stderr().contains(&format!("{unused}\n")));
}

#[test]
fn a_server_without_a_log_and_without_a_schedule_says_that_nothing_is_kept() {
    if skipped_on_redis() {
        return;
    }
    let server = Server::start(&["--appendonly", "no"]);
    eventually("it warns", || server.stderr().contains("so no data outlives the server"));
    let server = Server::start(&["--save", "60", "1", "--appendonly", "no"]);
    server.client().expect("CONFIG GET save", "[\"save\", \"60 1\"]");
    assert!(!server.stderr().contains("no data outlives the server"));
    refuses(&["--save", "60"], &["--save", "Invalid save parameters"]);
}

#[test]
fn a_file_includes_others_by_name_and_by_wildcard() {
    if skipped_on_redis() {
        return;
    }
    let home = TempDir::new();
    let write = |name: &str, text: &str| {
        let path = home.path().join(name);
        fs::write(&path, text).expect("write a file");
        path.to_str().expect("a path of UTF-8").to_owned()
    };
    write("a.inc", "timeout 1\nmaxclients 11\n");
    write("b.inc", "timeout 2\n");
    let pattern = home.path().join("*.inc");
    let last = write("last.conf", "maxclients 12\n");
    let text = format!("timeout 7\ninclude {}\ninclude {last}\ninclude no*e\n", pattern.display());
    let file = write("redis.conf", &text);
    let itself = write("loop.conf", "");
    fs::write(&itself, format!("include {itself}\n")).expect("write a file");
    refuses(&[&itself], &["include each other"]);
    refuses(&["--include", "/no/such.conf"], &["/no/such.conf"]);
    let server = Server::start_in(home, &[&file]);
    server.client().transcript(
        r#"
        > CONFIG GET timeout
        ["timeout", "2"]
        > CONFIG GET maxclients
        ["maxclients", "12"]
        "#,
    );
}

#[test]
fn in_the_background_it_has_a_log_file_and_a_pid_file() {
    if skipped_on_redis() {
        return;
    }
    let home = TempDir::new();
    let [log, pid] = ["server.log", "server.pid"].map(|name| home.path().join(name));
    let run = |port: &str| {
        Command::new(env!("CARGO_BIN_EXE_respite"))
            .args(["--daemonize", "yes", "--port", port, "--dir"])
            .arg(home.data())
            .args(["--logfile".as_ref(), log.as_os_str(), "--pidfile".as_ref(), pid.as_os_str()])
            .current_dir(home.path())
            .stdin(Stdio::null())
            .output()
            .expect("run the server")
    };
    let port = free_port();
    let started = run(&port.to_string());
    // It is ready when the first process has ended.
    assert!(started.status.success(), "{started:?}");
    let mut c = Client::to(([127, 0, 0, 1], port).into());
    let info = c.reply("INFO server").into_text();
    let id = fs::read_to_string(&pid).expect("the pid file");
    assert!(info.contains(&format!("process_id:{}\r\n", id.trim())), "{id} {info}");
    assert!(fs::read_to_string(&log).expect("the log file").contains("Loaded '"));
    // A second one fails, and the first process says why.
    let second = run(&port.to_string());
    let why = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(1));
    assert!(why.contains("in use by another server"), "{why}");
    c.send(&["SHUTDOWN"]);
    c.expect_closed();
    assert!(!pid.exists(), "a shutdown removes it");
}

/// Starts a server in `home` as a service manager would, and waits until it says that it is ready.
fn start_as_service(home: &TempDir, set_up: impl FnOnce(&mut Command)) -> KilledOnDrop {
    let path = home.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    let mut command = Command::new(env!("CARGO_BIN_EXE_respite"));
    command.args(["--supervised", "systemd", "--port", "0", "--dir"]).arg(home.data());
    command.env("NOTIFY_SOCKET", &path);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    set_up(&mut command);
    let server = KilledOnDrop(command.spawn().expect("start the server"));
    let mut text = [0; 100];
    socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    let length = socket.recv(&mut text).expect("a message");
    assert_eq!(&text[..length], b"READY=1");
    server
}

#[test]
fn the_service_manager_hears_when_the_server_is_ready() {
    if skipped_on_redis() {
        return;
    }
    start_as_service(&TempDir::new(), |_| {});
}

#[test]
fn an_inherited_socket_may_be_standard_output_and_error_too() {
    if skipped_on_redis() {
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let address = listener.local_addr().expect("an address");
    let socket = OwnedFd::from(listener);
    let copy = || socket.try_clone().expect("another descriptor");
    let home = TempDir::new();
    let _server = start_as_service(&home, |command| {
        command.stdin(copy()).stdout(copy()).stderr(copy());
    });
    Client::to(address).expect("PING", "+PONG");
}

#[test]
fn without_a_password_it_serves_only_this_machine_unless_protected_mode_is_off() {
    if skipped_on_redis() {
        return;
    }
    // The address from which this machine would send to another; nothing is sent.
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
    let own = socket.connect("192.0.2.1:1").and_then(|()| socket.local_addr());
    let Some(own) = own.ok().map(|own| own.ip()).filter(|own| !own.is_loopback()) else {
        return say("skipped: this machine has only its loopback address");
    };
    let server = Server::start(&["--bind", "0.0.0.0"]);
    let mut local = server.client();
    let reply = |server: &Server| {
        let mut stream = TcpStream::connect((own, server.port())).expect("a connection");
        // It may be refused before it sends anything.
        let _ = stream.write_all(b"PING\r\n");
        read_reply(&mut BufReader::new(stream)).expect("a reply").to_string()
    };
    let denied = reply(&server);
    assert!(denied.starts_with("-DENIED Redis is running in protected mode because "), "{denied}");
    let end = "4) Set up an authentication password for the default user. NOTE: You only need to do one of \
        the above things in order for the server to start accepting connections from the outside.";
    assert!(denied.ends_with(end), "{denied}");
    local.expect("CONFIG SET protected-mode no", "+OK");
    assert_eq!(reply(&server), "+PONG");
    local.expect("CONFIG SET protected-mode yes requirepass secret", "+OK");
    assert_eq!(reply(&server), "-NOAUTH Authentication required.");
}

#[test]
fn it_listens_elsewhere_when_bind_or_port_change_and_as_before_if_that_fails() {
    if skipped_on_redis() {
        return;
    }
    let (old, new) = (free_port(), free_port());
    let server = Server::start(&["--port", &old.to_string(), "--bind", "127.0.0.1"]);
    let mut c = server.client();
    let listens = |address: &str, port: u16| TcpStream::connect((address, port)).is_ok();
    c.expect(&format!("CONFIG SET port {new} timeout 7"), "+OK");
    assert!(listens("127.0.0.1", new) && !listens("127.0.0.1", old));
    Client::to(([127, 0, 0, 1], new).into()).expect("PING", "+PONG");
    c.expect("CONFIG SET bind \"127.0.0.2 -192.0.2.1\"", "+OK"); // the client stays connected
    assert!(listens("127.0.0.2", new) && !listens("127.0.0.1", new));
    assert!(c.text("INFO server").contains(&format!("tcp_port:{new}\r\n")));
    let refused = "-ERR CONFIG SET failed (possibly related to argument";
    c.expect(
        "CONFIG SET timeout 8 bind nowhere.invalid",
        &format!("{refused} 'bind') - Failed to bind to specified addresses."),
    );
    c.expect("CONFIG SET bind 127.0.0.1", "+OK");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("its address").port();
    c.expect(
        &format!("CONFIG SET timeout 9 port {port}"),
        &format!("{refused} 'port') - Unable to listen on this port. Check server logs."),
    );
    assert!(listens("127.0.0.1", new), "as before");
    c.transcript(&format!(
        r#"
        > CONFIG GET port
        ["port", "{new}"]
        > CONFIG GET bind
        ["bind", "127.0.0.1"]
        > CONFIG GET timeout
        ["timeout", "7"]
        > CONFIG SET port 1 port 2
        {refused} 'port') - duplicate parameter
        "#
    ));
}

#[test]
fn the_unix_socket_gets_its_permissions() {
    if skipped_on_redis() {
        return;
    }
    let home = TempDir::new();
    let path = home.path().join("socket");
    let shown = path.to_str().expect("a path of UTF-8").to_owned();
    let port = free_port().to_string();
    let args = ["--port", &port, "--unixsocket", &shown, "--unixsocketperm", "604"];
    let server = Server::start_in(home, &args);
    let permissions = fs::metadata(&path).expect("the socket").permissions();
    assert_eq!(permissions.mode() & 0o777, 0o604);
    server.client().expect("CONFIG GET unixsocketperm", "[\"unixsocketperm\", \"604\"]");
    refuses(&["--unixsocketperm", "1000"], &["argument must be between 0 and 777 inclusive"]);
    refuses(&["--unixsocketperm", "8"], &["argument couldn't be parsed as an octal number"]);
}

#[test]
fn log_lines_have_the_format_of_the_settings() {
    if skipped_on_redis() {
        return;
    }
    let args = ["--log-format", "logfmt", "--log-timestamp-format", "iso8601"];
    let server = Server::start(&args);
    let line = || {
        let text = server.stamped_stderr();
        text.lines().find(|line| line.contains("Loaded '")).map(String::from)
    };
    eventually("it logs", || line().is_some());
    let line = line().expect("a line");
    let (id, rest) = line.split_once(" role=primary timestamp=\"20").expect("the first fields");
    assert_eq!(id, format!("pid={}", server.process_id()));
    let (time, rest) = rest.split_once("\" ").expect("a time");
    assert!(time.len() == 27 && time.ends_with("+00:00") && time.contains('T'), "{time}");
    assert!(
        rest.starts_with("level=notice message=\"Loaded '") && rest.ends_with(" s\""),
        "{rest}"
    );
}

#[test]
fn the_log_moves_to_another_directory_if_protected_settings_may_change() {
    if skipped_on_redis() {
        return;
    }
    let mut server = Server::start(&["--enable-protected-configs", "local"]);
    let mut c = server.client();
    let old = server.log_path();
    let new = server.dir().join("new");
    fs::create_dir(&new).expect("a directory");
    c.expect("SET a 1", "+OK");
    let refused = "-ERR CONFIG SET failed (possibly related to argument 'dir') - ";
    c.expect("CONFIG SET dir /no/such", &format!("{refused}No such file or directory"));
    c.expect(&format!("CONFIG SET dir {}", new.display()), "+OK");
    let moved = new.join("storage.aof");
    assert!(fs::read(&moved).expect("the log").ends_with(b"$1\r\n1\r\n"));
    c.expect("SET b 2", "+OK");
    assert!(fs::read(&moved).expect("the log").ends_with(b"$1\r\n2\r\n"));
    assert!(fs::read(&old).expect("the old log").ends_with(b"$1\r\n1\r\n"));
    // A log that is already there is not overwritten.
    c.expect(
        &format!("CONFIG SET dir {}", server.dir().display()),
        &format!("{refused}there is a log in that directory"),
    );
    server.kill_9();
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
        std::thread::sleep(Duration::from_millis(300)); // the test is about slowness
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
    let mut all: Vec<Client> = (0..50).map(|_| server.client()).collect();
    for c in &mut all {
        c.expect("PING", "+PONG");
    }
    let before = server.resident_kb();
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
    let grown = server.resident_kb().saturating_sub(before);
    assert!(grown < 50 * 1024, "{grown} kB more for 50 announced lengths");
}

#[test]
fn an_idle_connection_keeps_nothing_of_its_largest_command() {
    // Only glibc's allocator is told to give back what is freed.
    if skipped_on_redis() || !cfg!(all(target_os = "linux", target_env = "gnu")) {
        return;
    }
    let server = Server::start(&[]);
    let value = "v".repeat(5 << 20);
    let uses: [fn(&mut Client, &str); 4] = [
        |c, value| drop(c.call(&["SET", "k", value])),
        |c, value| drop(c.call(&["SET", "k", value, "EX", "100"])),
        |c, value| {
            c.reply("MULTI");
            c.call(&["SET", "k", value]);
            c.reply("EXEC");
        },
        |c, value| assert_eq!(c.call(&["ECHO", value]), Reply::Bulk(value.into())),
    ];
    let mut clients: Vec<Client> = (0..20).map(|_| server.client()).collect();
    clients.iter_mut().for_each(|c| c.expect("PING", "+PONG"));
    let before = server.resident_kb();
    for (index, c) in clients.iter_mut().enumerate() {
        uses[index % uses.len()](c, &value);
        c.reply("DEL k");
    }
    // 100 MB went through the connections. The log's own buffers are bounded, but counted here too.
    eventually("the memory is given back", || server.resident_kb() < before + (24 << 10));
}
