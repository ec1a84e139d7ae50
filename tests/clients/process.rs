//! Processes: programs that run with a limit, and the servers under test.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use redis::Connection;

use crate::directory;

/// How long anything is waited for, where nothing else is said.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A process that runs, and what it has said so far. It is killed when it is dropped.
pub(crate) struct Running {
    child: Child,
    output: PathBuf,
}

impl Running {
    pub(crate) fn start(command: &mut Command) -> Result<Running, String> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        // A file, and no pipe: whoever reads a pipe waits for all who might still write.
        let output = directory().join(format!("output-{}-{number}", std::process::id()));
        let file = File::create(&output).expect("create a file for the output");
        command
            .stdin(Stdio::piped())
            .stdout(file.try_clone().expect("share the file"))
            .stderr(file);
        let child = command.spawn().map_err(|why| {
            let _ = fs::remove_file(&output);
            format!("{}: {why}", command.get_program().to_string_lossy())
        })?;
        Ok(Running { child, output })
    }

    pub(crate) fn output(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.output).unwrap_or_default()).into_owned()
    }

    /// Waits until it has said something that satisfies the condition.
    #[track_caller]
    pub(crate) fn says(&self, what: &str, condition: impl Fn(&str) -> bool) {
        let started = Instant::now();
        while !condition(&self.output()) {
            if started.elapsed() > PATIENCE {
                let output = self.output();
                let lines: Vec<&str> = output.lines().collect();
                let last = lines[lines.len().saturating_sub(20)..].join("\n");
                panic!("waited in vain for {what} in the output, which ends so:\n{last}");
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Gives it something to read.
    pub(crate) fn send(&mut self, input: &[u8]) {
        self.child.stdin.as_mut().expect("an input that is open").write_all(input).expect("send");
    }

    /// Its output, when it has ended and ended well.
    fn finish(mut self, limit: Duration) -> Result<String, String> {
        drop(self.child.stdin.take());
        let started = Instant::now();
        loop {
            match self.child.try_wait().expect("wait for a child") {
                Some(status) if status.success() => return Ok(self.output().trim_end().to_owned()),
                Some(status) => return Err(format!("{}{status}", self.output())),
                None if started.elapsed() > limit => {
                    return Err(format!("{}killed after {limit:?}", self.output()));
                }
                None => thread::sleep(Duration::from_millis(5)),
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(&self.output);
    }
}

/// What a program says when it gets `input`; an error if it ends with one or takes too long.
pub(crate) fn output_of(
    command: &mut Command,
    input: &[u8],
    limit: Duration,
) -> Result<String, String> {
    let mut running = Running::start(command)?;
    // A program that ends without reading is not wrong.
    let _ = running.child.stdin.as_mut().map(|stdin| stdin.write_all(input));
    running.finish(limit)
}

/// The version that a program on the PATH names when it is asked for it.
pub(crate) fn version_of(program: &str) -> Result<String, String> {
    let said = output_of(Command::new(program).arg("--version"), b"", PATIENCE)?;
    let mut words = said.lines().next().unwrap_or_default().split([' ', '-']);
    let is_version = |word: &&str| word.starts_with(|c: char| c.is_ascii_digit());
    Ok(words.rfind(is_version).unwrap_or("of unknown version").to_owned())
}

/// A server under test, with a directory of its own; both are gone when it is dropped.
pub(crate) struct Server {
    pub(crate) port: u16,
    password: Option<String>,
    directory: PathBuf,
    _process: Running,
}

impl Server {
    /// Starts the server of this package, or the program that `CLIENTS_SERVER` names.
    pub(crate) fn start(args: &[&str]) -> Server {
        let ours = || OsString::from(env!("CARGO_BIN_EXE_respite"));
        let program = env::var_os("CLIENTS_SERVER").unwrap_or_else(ours);
        let port = free_port();
        let directory = directory().join(format!("server-{}-{port}", std::process::id()));
        fs::create_dir_all(&directory).expect("a directory for the server");
        let mut command = Command::new(program);
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1"]).args(args);
        command.arg("--dir").arg(&directory).current_dir(&directory);
        let process = Running::start(&mut command).expect("a server");
        let password = args.iter().position(|&arg| arg == "--requirepass");
        let password = password.map(|at| args[at + 1].to_owned());
        let server = Server { port, password, directory, _process: process };
        eventually("the server answers", || server.try_connect("").is_ok());
        server
    }

    /// A connection of the `redis` crate; `options` end its URL.
    pub(crate) fn connect(&self, options: &str) -> Connection {
        self.try_connect(options).expect("a connection")
    }

    fn try_connect(&self, options: &str) -> redis::RedisResult<Connection> {
        let user = self.password.as_ref().map_or(String::new(), |password| format!(":{password}@"));
        let url = format!("redis://{user}127.0.0.1:{}/{options}", self.port);
        let db = redis::Client::open(url)?.get_connection_with_timeout(PATIENCE)?;
        db.set_read_timeout(Some(PATIENCE))?;
        db.set_write_timeout(Some(PATIENCE))?;
        Ok(db)
    }

    /// Empties it.
    pub(crate) fn clear(&self) {
        let () = redis::cmd("FLUSHALL").query(&mut self.connect("")).expect("FLUSHALL");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Waits until the condition holds, and fails when that takes too long.
#[track_caller]
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < PATIENCE, "waited in vain until {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    listener.expect("a free port").port()
}
