//! The servers: starting and stopping them, and their figures in `/proc`.

use std::env;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::iter;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use crate::load::Connection;

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    Respite,
    Redis,
    Valkey,
    Floor,
}

/// The length of an array with a place for each kind.
pub(crate) const BY_KIND: usize = 4;

impl Kind {
    pub(crate) const ALL: [Kind; BY_KIND] = [Kind::Respite, Kind::Redis, Kind::Valkey, Kind::Floor];

    pub(crate) fn name(self) -> &'static str {
        ["Respite", "Redis", "Valkey", "floor"][self as usize]
    }

    /// The colour of its bars, which can be seen on white and on black.
    pub(crate) fn colour(self) -> &'static str {
        ["#2a9d8f", "#b0b4ba", "#8d99c9", "#d9c27e"][self as usize]
    }

    /// What to start, of the two that are not ours.
    pub(crate) fn program(self) -> String {
        match self {
            Kind::Valkey => env::var("VALKEY_SERVER").unwrap_or("valkey-server".into()),
            _ => "redis-server".into(),
        }
    }

    /// Both have the same persistence. (`aof-use-rdb-preamble no` makes Redis load a log after a rewrite.)
    fn command(self, appendfsync: &str, port: &str, directory: &Path) -> Command {
        let (program, own) = match self {
            Kind::Respite => (env!("CARGO_BIN_EXE_respite").into(), &[][..]),
            Kind::Redis | Kind::Valkey => {
                let own = &["--save", "", "--aof-use-rdb-preamble", "no"];
                (self.program().into(), &own[..])
            }
            Kind::Floor => {
                let mut command = Command::new(env::current_exe().expect("own path"));
                command.args(["floor", port]);
                if appendfsync == "always" {
                    command.arg(directory.join("log"));
                }
                return command;
            }
        };
        let mut command = Command::new::<PathBuf>(program);
        command
            .args(own)
            .args(["--appendonly", "yes", "--appendfsync", appendfsync])
            .args(["--auto-aof-rewrite-percentage", "0", "--repl-diskless-sync-delay", "0"])
            .args(["--bind", "127.0.0.1", "--port", port, "--dir"])
            .arg(directory);
        command
    }
}

/// A running server and its directory. Dropping it removes both.
pub(crate) struct Server {
    pub(crate) kind: Kind,
    pub(crate) port: u16,
    appendfsync: &'static str,
    directory: PathBuf,
    process: Option<Child>,
}

impl Server {
    /// Starts a server in an empty directory.
    pub(crate) fn start(kind: Kind, appendfsync: &'static str) -> Server {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let port = free.expect("a free port").port();
        let name = format!("bench-{}-{port}", std::process::id());
        let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&directory).expect("a directory");
        let mut server = Server { kind, port, appendfsync, directory, process: None };
        server.restart();
        server
    }

    /// Kills the server if it runs and starts it again. Returns the time until it is ready.
    pub(crate) fn restart(&mut self) -> Duration {
        self.kill();
        let path = self.directory.join("output");
        let output = File::create(&path).expect("a file");
        let port = self.port.to_string();
        let mut command = self.kind.command(self.appendfsync, &port, &self.directory);
        command.stdout(output.try_clone().expect("a descriptor"));
        let started = Instant::now();
        let process = command.stderr(output).spawn().expect("a process");
        let process = self.process.insert(process);
        loop {
            // While it replays the log, it replies `-LOADING`.
            let answer = Connection::open(self.port).and_then(|mut client| client.ask(&["PING"]));
            if answer.is_ok_and(|answer| answer == "+PONG") {
                return started.elapsed();
            }
            if process.try_wait().expect("a child").is_some() {
                let said = fs::read_to_string(path).unwrap_or_default();
                panic!("{} does not start: {said}", self.kind.name());
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap_or_default(); // it may have exited already
            process.wait().expect("a child");
        }
    }

    pub(crate) fn connect(&self) -> Connection {
        Connection::open(self.port).expect("a connection")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        fs::remove_dir_all(&self.directory).unwrap_or_default();
    }
}

/// Readings from `/proc`; where it does not exist, not a number.
impl Server {
    /// CPU time so far, in user and in system mode.
    pub(crate) fn cpu_us(&self) -> [f64; 2] {
        let stat = proc_file(self.id(), "stat");
        // Linux counts ticks of 10 ms.
        let ticks = [11, 12].map(|index| stat_field(&stat, index));
        ticks.map(|ticks| ticks.map_or(f64::NAN, |ticks| ticks as f64 * 1e4))
    }

    /// The resident memory in bytes.
    pub(crate) fn resident_bytes(&self) -> f64 {
        bytes_after(&proc_file(self.id(), "status"), "VmRSS:").unwrap_or(f64::NAN)
    }

    /// The resident memory with the private memory of its children. A fork copies a page when either
    /// process changes it, so this is the memory of both together.
    pub(crate) fn resident_bytes_of_all(&self) -> f64 {
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let own = u64::from(self.id());
        let children = ids.filter(|&id| stat_field(&proc_file(id, "stat"), 1) == Some(own));
        let private: f64 = children
            .map(|id| {
                let text = proc_file(id, "smaps_rollup");
                ["Private_Clean:", "Private_Dirty:"]
                    .map(|name| bytes_after(&text, name).unwrap_or_default())
                    .iter()
                    .sum::<f64>()
            })
            .sum();
        self.resident_bytes() + private
    }

    /// The peak resident memory since [`Server::forget_peak`], without children.
    pub(crate) fn peak_bytes(&self) -> f64 {
        bytes_after(&proc_file(self.id(), "status"), "VmHWM:").unwrap_or(f64::NAN)
    }

    pub(crate) fn forget_peak(&self) {
        fs::write(format!("/proc/{}/clear_refs", self.id()), "5").unwrap_or_default();
    }

    fn id(&self) -> u32 {
        self.process.as_ref().map_or(0, Child::id)
    }
}

fn proc_file(id: u32, name: &str) -> String {
    fs::read_to_string(format!("/proc/{id}/{name}")).unwrap_or_default()
}

/// A field of `/proc/PID/stat`, counted from 0 after the program's name, which is in parentheses and may
/// contain any character.
fn stat_field(stat: &str, index: usize) -> Option<u64> {
    stat.rsplit(") ").next()?.split(' ').nth(index)?.parse().ok()
}

/// The value of a `/proc` line that is in kilobytes, in bytes.
fn bytes_after(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.split_whitespace().next()?.parse::<f64>().ok()? * 1024.0)
}

/// The version that a program prints for `--version`, if it is installed.
pub(crate) fn version(program: &str) -> Option<String> {
    let output = Command::new(program).arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let words = || text.split_whitespace();
    // A server's is `v=8.2.3`; that of redis-benchmark is the last word.
    Some(words().find_map(|word| word.strip_prefix("v=")).or(words().last())?.into())
}

/// The floor: replies `+PONG` to every `*` it reads, so keys and values must not contain any. With a log
/// (for `appendfsync always`), a thread repeatedly takes the input of all connections, writes it, syncs
/// it and then replies. This is the cheapest way to share a sync.
pub(crate) fn floor(port: &str, log: Option<&String>) {
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).expect("a listener");
    let (sender, received) = mpsc::channel();
    if let Some(path) = log {
        let log = File::create(path).expect("a log");
        thread::spawn(move || answer_in_turns(log, &received));
    }
    for stream in listener.incoming() {
        let stream = Arc::new(stream.expect("a connection"));
        stream.set_nodelay(true).expect("no delay");
        let to_log = log.map(|_| sender.clone());
        let serve = move || {
            let mut input = vec![0; 64 << 10];
            loop {
                thread::yield_now(); // like Respite, before it sleeps
                let Ok(count @ 1..) = (&*stream).read(&mut input) else { return };
                let sent = match &to_log {
                    Some(log) => log.send((stream.clone(), input[..count].to_vec())).is_ok(),
                    None => answer(&stream, &input[..count]).is_ok(),
                };
                if !sent {
                    return;
                }
            }
        };
        let thread = thread::Builder::new().stack_size(128 << 10);
        thread.spawn(serve).expect("a thread");
    }
}

fn answer(mut stream: &TcpStream, input: &[u8]) -> io::Result<()> {
    let commands = input.iter().filter(|&&byte| byte == b'*').count();
    stream.write_all(&b"+PONG\r\n".repeat(commands))
}

fn answer_in_turns(mut log: File, received: &Receiver<(Arc<TcpStream>, Vec<u8>)>) {
    while let Ok(first) = received.recv() {
        let turn: Vec<_> = iter::once(first).chain(received.try_iter()).collect();
        let inputs: Vec<&[u8]> = turn.iter().map(|(_, input)| &input[..]).collect();
        log.write_all(&inputs.concat()).and_then(|()| log.sync_data()).expect("a disk");
        turn.iter().for_each(|(stream, input)| answer(stream, input).unwrap_or_default());
    }
}
