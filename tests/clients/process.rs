//! Processes: programs with a time limit, and the servers under test.

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

/// The time limit of every wait that has no other.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A running process and its output so far. Dropping it kills the process.
pub(crate) struct Running {
    child: Child,
    output: PathBuf,
}

impl Running {
    pub(crate) fn start(command: &mut Command) -> Result<Running, String> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        // A file, not a pipe: reading a pipe to its end would wait for every process that may still write.
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

    /// Waits until its output satisfies the condition.
    #[track_caller]
    pub(crate) fn expect_output(&self, what: &str, condition: impl Fn(&str) -> bool) {
        let started = Instant::now();
        while !condition(&self.output()) {
            if started.elapsed() > PATIENCE {
                let output = self.output();
                let lines: Vec<&str> = output.lines().collect();
                let last = lines[lines.len().saturating_sub(20)..].join("\n");
                panic!("timed out waiting for {what}; the output ends:\n{last}");
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Writes to its standard input.
    pub(crate) fn send(&mut self, input: &[u8]) {
        self.child.stdin.as_mut().expect("an input that is open").write_all(input).expect("send");
    }

    /// Its output after it has succeeded, or an error.
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

/// The output of a program that reads `input`; an error if it fails or takes too long.
pub(crate) fn output_of(
    command: &mut Command,
    input: &[u8],
    limit: Duration,
) -> Result<String, String> {
    let mut running = Running::start(command)?;
    // A program may exit without reading its input.
    let _ = running.child.stdin.as_mut().map(|stdin| stdin.write_all(input));
    running.finish(limit)
}

/// The version of a program on the PATH.
pub(crate) fn version_of(program: &str) -> Result<String, String> {
    let output = output_of(Command::new(program).arg("--version"), b"", PATIENCE)?;
    let mut words = output.lines().next().unwrap_or_default().split([' ', '-']);
    let is_version = |word: &&str| word.starts_with(|c: char| c.is_ascii_digit());
    Ok(words.rfind(is_version).unwrap_or("of unknown version").to_owned())
}

/// A server under test, with its own directory. Dropping it removes both.
pub(crate) struct Server {
    pub(crate) port: u16,
    password: Option<String>,
    directory: PathBuf,
    _process: Running,
}

impl Server {
    /// Starts our server, or the program in `CLIENTS_SERVER`.
    pub(crate) fn start(args: &[&str]) -> Server {
        let ours = || OsString::from(env!("CARGO_BIN_EXE_respite"));
        let program = env::var_os("CLIENTS_SERVER").unwrap_or_else(ours);
        let port = free_port();
        let directory = directory().join(format!("server-{}-{port}", std::process::id()));
        fs::create_dir_all(&directory).expect("a directory for the server");
        let mut command = Command::new(program);
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1"]).args(args);
        command.arg("--dir").arg(&directory).current_dir(&directory);
        command.arg("--unixsocket").arg(directory.join("socket"));
        let process = Running::start(&mut command).expect("a server");
        let password = args.iter().position(|&arg| arg == "--requirepass");
        let password = password.map(|at| args[at + 1].to_owned());
        let server = Server { port, password, directory, _process: process };
        eventually("the server answers", || server.try_connect("").is_ok());
        server
    }

    /// A connection of the `redis` crate; `options` are appended to its URL.
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

    /// Deletes all its data.
    pub(crate) fn clear(&self) {
        let () = redis::cmd("FLUSHALL").query(&mut self.connect("")).expect("FLUSHALL");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Waits until the condition holds. Fails if it takes too long.
#[track_caller]
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < PATIENCE, "timed out waiting until {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    listener.expect("a free port").port()
}
