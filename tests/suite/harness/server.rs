//! The processes that a test starts, their directories and their output.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::{Client, PATIENCE, eventually, say};

/// A running process of the binary under test, and its directory.
pub(crate) struct Server {
    child: Child,
    port: u16,
    home: TempDir,
    args: Vec<String>,
}

impl Server {
    /// Starts the server in a new directory and waits until it listens.
    pub(crate) fn start(args: &[&str]) -> Server {
        Server::start_in(TempDir::new(), args)
    }

    /// Starts the server in `home`, with the data that is there.
    pub(crate) fn start_in(home: TempDir, args: &[&str]) -> Server {
        let child = spawn(&home, args);
        Server::listening(child, home, args)
    }

    /// Starts the server in `home`, with data that it may refuse.
    ///
    /// # Errors
    /// How it ended, if it did.
    pub(crate) fn try_start_in(home: TempDir, args: &[&str]) -> Result<Server, Ended> {
        let child = spawn(&home, args);
        let mut server = Server::starting(child, home, args);
        match server.port_or_end() {
            Ok(port) => server.port = port,
            Err(status) => {
                return Err(Ended { code: status.code(), stderr: server.home.stderr() });
            }
        }
        Ok(server)
    }

    /// Starts the server with a pipe as stderr that nobody reads.
    pub(crate) fn start_unread(args: &[&str]) -> Server {
        let home = TempDir::new();
        let child = command(&home, args).stderr(Stdio::piped()).spawn().expect("start the server");
        Server::listening(child, home, args)
    }

    /// Starts the server with limits of the shell, like `ulimit -n 200`.
    pub(crate) fn start_under(limits: &str, args: &[&str]) -> Server {
        let home = TempDir::new();
        let child = limited(&home, limits, args).spawn().expect("start the server");
        Server::listening(child, home, args)
    }

    /// Starts the server under limits under which it must refuse to start.
    pub(crate) fn fail_to_start_under(limits: &str) -> Ended {
        let home = TempDir::new();
        let child = limited(&home, limits, &[]).spawn().expect("start the server");
        Ended::of(child, &home)
    }

    /// Starts the server at that port with this as its standard output.
    pub(crate) fn start_with_stdout(stdout: impl Into<Stdio>, port: u16) -> Server {
        let home = TempDir::new();
        let args = ["--port", &port.to_string()];
        let child = command(&home, &args).stdout(stdout).spawn().expect("start the server");
        let args = args.map(String::from).into();
        eventually("the server listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        Server { child, port, home, args }
    }

    /// Starts the server with this as its standard input.
    pub(crate) fn start_with_stdin(stdin: impl Into<Stdio>, args: &[&str]) -> Server {
        let home = TempDir::new();
        let child = command(&home, args).stdin(stdin).spawn().expect("start the server");
        Server::listening(child, home, args)
    }

    /// Starts the server below `strace`, which makes a system call fail, so that it must refuse to start.
    pub(crate) fn fail_to_start_traced(home: &TempDir, options: &[&OsStr]) -> Ended {
        let plain = command(home, &[]);
        let mut traced = Command::new("strace");
        traced.args(["-qq", "-f", "-o", "/dev/null"]).args(options);
        traced.arg(plain.get_program()).args(plain.get_args()).current_dir(&home.path);
        let child = redirect(&mut traced, home).spawn().expect("start strace");
        Ended::of(child, home)
    }

    fn listening(child: Child, home: TempDir, args: &[&str]) -> Server {
        let mut server = Server::starting(child, home, args);
        server.port = server.await_port();
        server
    }

    fn starting(child: Child, home: TempDir, args: &[&str]) -> Server {
        let args = args.iter().map(|arg| arg.to_string()).collect();
        Server { child, port: 0, home, args }
    }

    /// Starts the server where it must refuse to start, and returns how it ended.
    pub(crate) fn fail_to_start(home: &TempDir, args: &[&str]) -> Ended {
        Ended::of(spawn(home, args), home)
    }

    fn await_port(&mut self) -> u16 {
        self.port_or_end().unwrap_or_else(|status| {
            panic!("the server ended ({status}) before it listened:\n{}", self.home.output())
        })
    }

    /// Waits until the server listens or ends.
    fn port_or_end(&mut self) -> Result<u16, ExitStatus> {
        let started = Instant::now();
        loop {
            let port = self
                .home
                .stdout()
                .split_inclusive('\n')
                .filter(|line| line.ends_with('\n'))
                .find_map(|line| {
                    let (_, rest) = line.split_once("Listening on ")?;
                    let Some(port) = rest.strip_prefix("port :") else { return Some(0) };
                    let digits = port.find(|c: char| !c.is_ascii_digit())?;
                    port[..digits].parse().ok()
                });
            if let Some(port) = port {
                return Ok(port);
            }
            if let Some(status) = self.child.try_wait().expect("wait for the server") {
                return Err(status);
            }
            if started.elapsed() > PATIENCE {
                panic!("the server does not listen:\n{}", self.home.output());
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn process_id(&self) -> u32 {
        self.child.id()
    }

    /// The memory that the process holds (Linux).
    pub(crate) fn resident_kb(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.expect("read the process's status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kb = line.expect("VmRSS").trim().trim_end_matches("kB").trim();
        kb.parse().expect("a number")
    }

    pub(crate) fn client(&self) -> Client {
        Client::to(self.address())
    }

    /// The directory of the server's data.
    pub(crate) fn dir(&self) -> PathBuf {
        self.home.data()
    }

    pub(crate) fn log_path(&self) -> PathBuf {
        self.home.data().join("storage.aof")
    }

    pub(crate) fn stdout(&self) -> String {
        self.home.stdout()
    }

    /// See [`TempDir::stderr`].
    pub(crate) fn stderr(&self) -> String {
        self.home.stderr()
    }

    /// The log lines as they were written, with their process ids and times.
    pub(crate) fn stamped_stderr(&self) -> String {
        read_lossy(&self.home.path.join("stderr"))
    }

    /// Sends SIGKILL: the process cannot do anything more.
    pub(crate) fn kill_9(&mut self) {
        self.child.kill().expect("kill the server");
        self.child.wait().expect("wait for the server");
    }

    /// Waits until the process exits by itself, and returns its exit code.
    pub(crate) fn wait_for_exit(&mut self) -> Option<i32> {
        let mut code = None;
        eventually("the server ends", || {
            match self.child.try_wait().expect("wait for the server") {
                Some(status) => {
                    code = status.code();
                    true
                }
                None => false,
            }
        });
        code
    }

    /// Kills the process if it still runs, and starts it again with its data.
    pub(crate) fn restart(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let args: Vec<&str> = self.args.iter().map(String::as_str).collect();
        self.child = spawn(&self.home, &args);
        self.port = self.await_port();
    }

    /// Like [`Server::restart`], under limits of the shell.
    pub(crate) fn restart_under(&mut self, limits: &str) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let args: Vec<&str> = self.args.iter().map(String::as_str).collect();
        self.child = limited(&self.home, limits, &args).spawn().expect("start the server");
        self.port = self.await_port();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("{}", self.home.output());
        }
    }
}

/// How a server that refused to start ended.
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stderr: String,
}

impl Ended {
    fn of(mut child: Child, home: &TempDir) -> Ended {
        let started = Instant::now();
        let code = loop {
            if let Some(status) = child.try_wait().expect("wait for the server") {
                break status.code();
            }
            if started.elapsed() > PATIENCE || home.stdout().contains("Listening on ") {
                let _ = child.kill();
                let _ = child.wait();
                panic!("the server started, but it must not:\n{}", home.output());
            }
            thread::sleep(Duration::from_millis(1));
        };
        Ended { code, stderr: home.stderr() }
    }
}

fn spawn(home: &TempDir, args: &[&str]) -> Child {
    command(home, args).spawn().expect("start the server")
}

fn command(home: &TempDir, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_respite"));
    command
        .args(args)
        .args(["--port", "0"].iter().filter(|_| !args.contains(&"--port")))
        .arg("--dir")
        .arg(home.data())
        // Not the package's directory, which holds a storage.aof.
        .current_dir(&home.path);
    redirect(&mut command, home);
    command
}

fn limited(home: &TempDir, limits: &str, args: &[&str]) -> Command {
    let plain = command(home, args);
    let mut limited = Command::new("sh");
    limited.arg("-c").arg(format!("{limits} && exec \"$0\" \"$@\""));
    limited.arg(plain.get_program()).args(plain.get_args()).current_dir(&home.path);
    redirect(&mut limited, home);
    limited
}

/// Sends the output to the files of the directory.
fn redirect<'a>(command: &'a mut Command, home: &TempDir) -> &'a mut Command {
    let output = |name| File::create(home.path.join(name)).expect("create a file for the output");
    command.stdin(Stdio::null()).stdout(output("stdout")).stderr(output("stderr"))
}

/// A directory for one test, removed when dropped: `data/` for the server, and its output next to it.
pub(crate) struct TempDir {
    path: PathBuf,
}

impl TempDir {
    pub(crate) fn new() -> TempDir {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "respite-test-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(path.join("data")).expect("create a directory for the test");
        TempDir { path }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.path.join("data")
    }

    pub(crate) fn stdout(&self) -> String {
        read_lossy(&self.path.join("stdout"))
    }

    /// The log lines without process ids and times, in which a test could find the number it looks for.
    pub(crate) fn stderr(&self) -> String {
        let text = |line: &str| match line.split_once(":M ") {
            Some((_, stamped)) => stamped.splitn(6, ' ').last().unwrap_or_default().to_owned(),
            None => line.to_owned(),
        };
        let lines = read_lossy(&self.path.join("stderr"));
        lines.lines().map(|line| text(line) + "\n").collect()
    }

    fn output(&self) -> String {
        format!(
            "---- stdout of the server ----\n{}---- stderr of the server ----\n{}",
            self.stdout(),
            self.stderr()
        )
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

fn read_lossy(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

pub(crate) fn start_with_log(log: &[u8]) -> Server {
    let home = TempDir::new();
    fs::write(home.data().join("storage.aof"), log).expect("write the log");
    Server::start_in(home, &[])
}

/// Runs `respite --check-aof`. Returns whether the log is good, and the output.
pub(crate) fn check_aof(log: &Path, options: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_respite"))
        .arg("--check-aof")
        .arg(log)
        .args(options)
        .stdin(Stdio::null())
        .output()
        .expect("run the check");
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).expect("UTF-8"))
}

// ---- Other programs ----------------------------------------------------------------------------------

/// Whether a program can be run. Prints a message if not.
pub(crate) fn installed(program: &str) -> bool {
    let found = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok();
    if !found {
        say(&format!("skipped: {program} is not installed"));
    }
    found
}

pub(crate) struct KilledOnDrop(pub(crate) Child);

impl Drop for KilledOnDrop {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A port that no process listens on.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address").port()
}
