//! What every test stands on: a server of its own, a client that speaks raw RESP, and a textual form of
//! replies in which a test can be read as documentation.
//!
//! **The server.** [`connect`] starts the binary under test on a free port with a directory of its own,
//! and ends it by its own child handle when the client is dropped. With `REDIS_ADDR=host:port` in the
//! environment it connects to that real Redis instead: the tests then run one at a time, each begins with
//! an empty Redis, and settings that a test changed are put back. Tests of our own process use [`Server`]
//! directly and begin with [`skipped_on_redis`].
//!
//! **The transcript.** [`Client::transcript`] takes what a session would look like:
//!
//! ```text
//! > SET greeting "hello\r\n"
//! +OK
//! > GET greeting
//! "hello\r\n"
//! other> GET greeting
//! "hello\r\n"
//! 7.4> HSCAN h 0 NOVALUES
//! ["0", []]
//! // A comment.
//! ```
//!
//! A line with a prompt is a command, quoted as `redis-cli` does it; the lines up to the next prompt are
//! the reply it must get, in the form that [`Reply`] displays. What stands before the `>` may be a version
//! (the reply is such since that Redis; on an older one the step is left out, and said so), `sorted` (the
//! elements of the reply come in no particular order), or the name of another connection, opened when it is
//! first named.
//!
//! **Waiting.** A test never sleeps to let something happen: it asks [`eventually`]. Reads time out, so
//! that a server that hangs fails the test.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long a test waits for anything at all before it fails.
const PATIENCE: Duration = Duration::from_secs(20);

// ---- Which server is tested --------------------------------------------------------------------------

/// A client of a server that is empty and not shared with any other test.
pub(crate) fn connect() -> Client {
    connect_with(&[])
}

/// As [`connect`]; our own server is started with these arguments, which a Redis must have been given.
pub(crate) fn connect_with(args: &[&str]) -> Client {
    let host = Arc::new(match std::env::var("REDIS_ADDR") {
        Ok(address) => Host::Redis(SharedRedis::reserve(&address)),
        Err(_) => Host::Respite(Server::start(args)),
    });
    let (address, version) = match &*host {
        Host::Redis(redis) => (redis.address, Some(redis.version)),
        Host::Respite(server) => (server.address(), None),
    };
    let mut client = Client::to(address);
    client.version = version;
    client._host = Some(host);
    client
}

/// A whole test that is one session: see the head of this file.
#[track_caller]
pub(crate) fn transcript(session: &str) {
    connect().transcript(session);
}

/// True, and said so, when the tests run against a real Redis: this one is about our own process.
pub(crate) fn skipped_on_redis() -> bool {
    let on_redis = std::env::var_os("REDIS_ADDR").is_some();
    if on_redis {
        say("skipped: it tests Respite's own process, not a Redis at REDIS_ADDR");
    }
    on_redis
}

/// Prints beside the name of the running test, past the capture of the test runner: a reader of the
/// output must see what was not tested.
pub(crate) fn say(message: &str) {
    let thread = thread::current();
    let test = thread.name().unwrap_or("a test").to_owned();
    // Not eprintln!, which the test runner keeps to itself. Nothing is lost if stderr is closed.
    let _ = writeln!(io::stderr(), "\n    {test}: {message}");
}

/// What a client's server is, kept alive as long as one of its clients is.
enum Host {
    Respite(Server),
    Redis(SharedRedis),
}

/// Exclusive use of the Redis at `REDIS_ADDR`, which is left as it was found.
struct SharedRedis {
    address: SocketAddr,
    version: Version,
    /// Opened before the test could set a password, so that it can clean up after it.
    keeper: Mutex<Client>,
    settings: BTreeMap<String, String>,
    /// Last, so that the next test begins when all is put back.
    _turn: Turn,
}

type Version = (u32, u32);

impl SharedRedis {
    fn reserve(address: &str) -> SharedRedis {
        let turn = Turn::wait();
        let address = address
            .to_socket_addrs()
            .ok()
            .and_then(|mut all| all.next())
            .unwrap_or_else(|| panic!("REDIS_ADDR is not host:port: {address}"));
        let mut keeper = Client::to(address);
        let info = keeper.reply("INFO server").into_text();
        let version = info
            .lines()
            .find_map(|line| line.strip_prefix("redis_version:"))
            .map(parse_version)
            .expect("INFO server has no redis_version");
        keeper.expect("FLUSHALL", "+OK");
        let settings = keeper.settings();
        SharedRedis { address, version, keeper: Mutex::new(keeper), settings, _turn: turn }
    }
}

impl Drop for SharedRedis {
    fn drop(&mut self) {
        let keeper = self.keeper.get_mut().unwrap_or_else(|e| e.into_inner());
        for (name, value) in keeper.settings() {
            if self.settings.get(&name) != Some(&value) {
                keeper.call(&["CONFIG", "SET", &name, &self.settings[&name]]);
            }
        }
        keeper.call(&["FLUSHALL"]);
    }
}

/// The right to use the Redis, given to one test at a time. Not a `MutexGuard`, which could not be
/// dropped by another thread than the one that got it.
struct Turn;

static TAKEN: Mutex<bool> = Mutex::new(false);
static FREED: Condvar = Condvar::new();

impl Turn {
    fn wait() -> Turn {
        let mut taken = TAKEN.lock().unwrap();
        while *taken {
            taken = FREED.wait(taken).unwrap();
        }
        *taken = true;
        Turn
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *TAKEN.lock().unwrap_or_else(|e| e.into_inner()) = false;
        FREED.notify_one();
    }
}

fn parse_version(text: &str) -> Version {
    let mut parts = text.trim().split('.').map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

// ---- Our own process ---------------------------------------------------------------------------------

/// One running process of the binary under test, and its directory.
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

    /// Starts it in `home`, on the data that is there.
    pub(crate) fn start_in(home: TempDir, args: &[&str]) -> Server {
        let child = spawn(&home, args);
        Server::listening(child, home, args)
    }

    /// Starts it with a pipe as stderr that nobody reads.
    pub(crate) fn start_unread(args: &[&str]) -> Server {
        let home = TempDir::new();
        let child = command(&home, args).stderr(Stdio::piped()).spawn().expect("start the server");
        Server::listening(child, home, args)
    }

    fn listening(child: Child, home: TempDir, args: &[&str]) -> Server {
        let args = args.iter().map(|arg| arg.to_string()).collect();
        let mut server = Server { child, port: 0, home, args };
        server.port = server.await_port();
        server
    }

    /// Runs the server where it is expected to refuse to start, and returns how it ended.
    pub(crate) fn fail_to_start(home: &TempDir, args: &[&str]) -> Ended {
        let mut child = spawn(home, args);
        let started = Instant::now();
        let code = loop {
            if let Some(status) = child.try_wait().expect("wait for the server") {
                break status.code();
            }
            if started.elapsed() > PATIENCE || home.stdout().contains("Listening on port") {
                let _ = child.kill();
                let _ = child.wait();
                panic!("the server started though it must not:\n{}", home.output());
            }
            thread::sleep(Duration::from_millis(1));
        };
        Ended { code, stderr: home.stderr() }
    }

    fn await_port(&mut self) -> u16 {
        let started = Instant::now();
        loop {
            let port = self
                .home
                .stdout()
                .split_inclusive('\n')
                .filter(|line| line.ends_with('\n'))
                .find_map(|line| {
                    let (_, rest) = line.split_once("Listening on port :")?;
                    let digits = rest.find(|c: char| !c.is_ascii_digit())?;
                    rest[..digits].parse().ok()
                });
            if let Some(port) = port {
                return port;
            }
            if let Some(status) = self.child.try_wait().expect("wait for the server") {
                panic!("the server ended ({status}) before it listened:\n{}", self.home.output());
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

    pub(crate) fn client(&self) -> Client {
        Client::to(self.address())
    }

    /// Where the server keeps its data.
    pub(crate) fn dir(&self) -> PathBuf {
        self.home.data()
    }

    pub(crate) fn log_path(&self) -> PathBuf {
        self.home.data().join("storage.aof")
    }

    /// See [`TempDir::stderr`].
    pub(crate) fn stderr(&self) -> String {
        self.home.stderr()
    }

    pub(crate) fn stamped_stderr(&self) -> String {
        read_lossy(&self.home.path.join("stderr"))
    }

    /// SIGKILL: the process gets no chance to do anything more.
    pub(crate) fn kill_9(&mut self) {
        self.child.kill().expect("kill the server");
        self.child.wait().expect("wait for the server");
    }

    /// Waits for the process to end by itself.
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

    /// Kills the process if it still runs, and starts it again on its data.
    pub(crate) fn restart(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let args: Vec<&str> = self.args.iter().map(String::as_str).collect();
        self.child = spawn(&self.home, &args);
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

/// How a process that did not start ended.
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stderr: String,
}

fn spawn(home: &TempDir, args: &[&str]) -> Child {
    command(home, args).spawn().expect("start the server")
}

fn command(home: &TempDir, args: &[&str]) -> Command {
    let output = |name| File::create(home.path.join(name)).expect("create a file for the output");
    let mut command = Command::new(env!("CARGO_BIN_EXE_respite"));
    command
        .args(args)
        .args(["--port", "0"].iter().filter(|_| !args.contains(&"--port")))
        .arg("--dir")
        .arg(home.data())
        // Not the package's directory, where the committed storage.aof lies.
        .current_dir(&home.path)
        .stdin(Stdio::null())
        .stdout(output("stdout"))
        .stderr(output("stderr"));
    command
}

/// A directory for one test, removed with it: `data/` for the server, its output beside it.
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

    /// The log lines without their stamps: a test that looks for a number must not find it in a time.
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

// ---- Waiting -----------------------------------------------------------------------------------------

/// Waits until `condition` holds; fails, saying `what` did not come about, when it takes too long.
#[track_caller]
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < PATIENCE, "waited in vain until {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

pub(crate) fn unix_now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.expect("the clock is past 1970").as_millis() as i64
}

// ---- The client --------------------------------------------------------------------------------------

/// A connection that sends what it is told, right or wrong, and reads replies strictly.
pub(crate) struct Client {
    stream: TcpStream,
    reader: BufReader<TcpStream>,
    address: SocketAddr,
    /// The version of the real Redis at the other end; none when it is Respite, which follows the newest.
    version: Option<Version>,
    _host: Option<Arc<Host>>,
}

impl Client {
    pub(crate) fn to(address: SocketAddr) -> Client {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)
            .unwrap_or_else(|error| panic!("cannot connect to {address}: {error}"));
        stream.set_nodelay(true).expect("set TCP_NODELAY");
        stream.set_read_timeout(Some(PATIENCE)).expect("set a timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("set a timeout");
        Client {
            reader: BufReader::new(stream.try_clone().expect("share the socket")),
            stream,
            address,
            version: None,
            _host: None,
        }
    }

    /// One more connection to the same server.
    pub(crate) fn another(&self) -> Client {
        let mut client = Client::to(self.address);
        client.version = self.version;
        client._host = self._host.clone();
        client
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address of this end, as the server's `CLIENT LIST` shows it.
    pub(crate) fn local_address(&self) -> SocketAddr {
        self.stream.local_addr().expect("a local address")
    }

    /// The version of the Redis; of Respite, which follows the newest, the highest there could be.
    pub(crate) fn redis_version(&self) -> Version {
        self.version.unwrap_or((u32::MAX, u32::MAX))
    }

    /// False, and said so, when the server is a Redis older than `version`.
    pub(crate) fn redis_at_least(&self, version: &str) -> bool {
        match self.version {
            Some(actual) if actual < parse_version(version) => {
                say(&format!(
                    "skipped in part: needs Redis {version}, this is {}.{}",
                    actual.0, actual.1
                ));
                false
            }
            _ => true,
        }
    }

    // -- Bytes --

    /// The socket, to send from another thread while this one reads.
    pub(crate) fn sending_half(&self) -> TcpStream {
        self.stream.try_clone().expect("share the socket")
    }

    pub(crate) fn send_raw(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("send");
    }

    /// Like [`Client::send_raw`], for what the server may stop reading and close on.
    pub(crate) fn try_send_raw(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref());
    }

    /// Tells the server that nothing more comes.
    pub(crate) fn close_sending(&self) {
        self.stream.shutdown(Shutdown::Write).expect("shut down");
    }

    /// Reads exactly as many bytes as are expected, and compares.
    #[track_caller]
    pub(crate) fn expect_bytes(&mut self, expected: impl AsRef<[u8]>) {
        let expected = expected.as_ref();
        let mut received = Vec::new();
        let mut byte = [0];
        while received.len() < expected.len() {
            match self.reader.read(&mut byte) {
                Ok(1) => received.push(byte[0]),
                _ => break,
            }
        }
        assert_eq!(
            quote(&received),
            quote(expected),
            "the bytes received (left) are not those expected (right)"
        );
    }

    /// Sends bytes and expects bytes.
    #[track_caller]
    pub(crate) fn exchange(&mut self, sent: impl AsRef<[u8]>, expected: impl AsRef<[u8]>) {
        self.send_raw(sent);
        self.expect_bytes(expected);
    }

    #[track_caller]
    pub(crate) fn expect_closed(&mut self) {
        let mut rest = Vec::new();
        match self.reader.read_to_end(&mut rest) {
            Ok(_) => {}
            Err(error) if is_disconnection(&error) => {}
            Err(error) => panic!("the connection is not closed: {error}"),
        }
        assert_eq!(quote(&rest), "\"\"", "came before the connection closed");
    }

    // -- Replies --

    /// The next reply; [`Reply::Closed`] when the server has closed the connection.
    #[track_caller]
    pub(crate) fn read_reply(&mut self) -> Reply {
        match read_reply(&mut self.reader) {
            Ok(reply) => reply,
            Err(error) if is_disconnection(&error) => Reply::Closed,
            Err(error) => panic!("no reply: {error}"),
        }
    }

    /// Reads one reply, and keeps its bytes as they came.
    #[track_caller]
    pub(crate) fn read_reply_and_bytes(&mut self) -> (Reply, Vec<u8>) {
        let mut recorder = Recorder { inner: &mut self.reader, bytes: Vec::new() };
        match read_reply(&mut recorder) {
            Ok(reply) => (reply, recorder.bytes),
            Err(error) if is_disconnection(&error) => (Reply::Closed, recorder.bytes),
            Err(error) => panic!("no reply: {error}"),
        }
    }

    /// Sends one command, as a client library would.
    pub(crate) fn send<A: AsRef<[u8]>>(&mut self, args: &[A]) {
        let bytes = encode(args);
        self.try_send_raw(bytes);
    }

    #[track_caller]
    pub(crate) fn call<A: AsRef<[u8]>>(&mut self, args: &[A]) -> Reply {
        self.send(args);
        self.read_reply()
    }

    /// The reply to a command that is written as in `redis-cli`.
    #[track_caller]
    pub(crate) fn reply(&mut self, command: &str) -> Reply {
        self.call(&split_command(command))
    }

    #[track_caller]
    pub(crate) fn expect(&mut self, command: &str, expected: &str) {
        let reply = self.reply(command).to_string();
        assert_eq!(reply, expected, "is the reply to: {command}");
    }

    #[track_caller]
    pub(crate) fn integer(&mut self, command: &str) -> i64 {
        match self.reply(command) {
            Reply::Integer(number) => number,
            other => panic!("not an integer: {other}, the reply to: {command}"),
        }
    }

    /// The text of a bulk, simple or verbatim string.
    #[track_caller]
    pub(crate) fn text(&mut self, command: &str) -> String {
        self.reply(command).into_text()
    }

    /// Checks a whole session: see the head of this file. All steps are taken before it fails, so that
    /// one run shows everything that is wrong.
    #[track_caller]
    pub(crate) fn transcript(&mut self, session: &str) {
        let mut others: HashMap<String, Client> = HashMap::new();
        let mut wrong = Vec::new();
        for step in steps(session) {
            if let Some(version) = &step.since
                && !self.redis_at_least(version)
            {
                continue;
            }
            let client = match &step.connection {
                None => &mut *self,
                Some(name) => {
                    let another = || self.another();
                    others.entry(name.clone()).or_insert_with(another)
                }
            };
            let mut reply = client.reply(&step.command);
            if step.sorted {
                reply.sort();
            }
            let reply = reply.to_string();
            if reply != step.expected {
                wrong.push(format!(
                    "  > {}\n    expected {}\n    received {reply}",
                    step.command, step.expected
                ));
            }
        }
        assert!(wrong.is_empty(), "{} of the replies differ:\n{}", wrong.len(), wrong.join("\n"));
    }

    /// All settings, by name.
    fn settings(&mut self) -> BTreeMap<String, String> {
        let all = self.reply("CONFIG GET *").into_items();
        all.chunks_exact(2)
            .map(|pair| (pair[0].clone().into_text(), pair[1].clone().into_text()))
            .collect()
    }
}

fn is_disconnection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
    )
}

/// Keeps what is read through it.
struct Recorder<'a> {
    inner: &'a mut BufReader<TcpStream>,
    bytes: Vec<u8>,
}

impl Read for Recorder<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(into)?;
        self.bytes.extend_from_slice(&into[..count]);
        Ok(count)
    }
}

impl BufRead for Recorder<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inner.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        self.bytes.extend_from_slice(&self.inner.buffer()[..count]);
        self.inner.consume(count);
    }
}

/// The multibulk form of a command.
pub(crate) fn encode<A: AsRef<[u8]>>(args: &[A]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", args.len()).into_bytes();
    for arg in args {
        let arg = arg.as_ref();
        bytes.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        bytes.extend_from_slice(arg);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

// ---- The transcript ----------------------------------------------------------------------------------

struct Step {
    since: Option<String>,
    sorted: bool,
    connection: Option<String>,
    command: String,
    expected: String,
}

fn steps(session: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for line in session.lines().map(str::trim) {
        if line.is_empty() || line.starts_with("//") {
            continue;
        }
        if let Some((prompt, command)) = split_prompt(line) {
            let is_version = prompt.starts_with(|c: char| c.is_ascii_digit());
            let is_name = !prompt.is_empty() && prompt != "sorted" && !is_version;
            steps.push(Step {
                since: is_version.then(|| prompt.to_owned()),
                sorted: prompt == "sorted",
                connection: is_name.then(|| prompt.to_owned()),
                command: command.to_owned(),
                expected: String::new(),
            });
            continue;
        }
        let step = steps.last_mut().expect("a reply before any command");
        if !step.expected.is_empty() {
            step.expected.push(' ');
        }
        step.expected.push_str(line);
    }
    for step in &steps {
        assert!(!step.expected.is_empty(), "no reply to: {}", step.command);
    }
    steps
}

/// `word> command`, where the word may be missing: a push (`>[…]`) is no prompt, for want of the space.
fn split_prompt(line: &str) -> Option<(&str, &str)> {
    let (prompt, command) = line.split_once("> ")?;
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '.';
    prompt.chars().all(is_word).then_some((prompt, command))
}

/// Splits a command into arguments as `redis-cli` does: `"…"` with escapes, `'…'` without.
pub(crate) fn split_command(line: &str) -> Vec<Vec<u8>> {
    let mut args = Vec::new();
    let mut rest = line.as_bytes().iter().copied().peekable();
    loop {
        while rest.next_if(u8::is_ascii_whitespace).is_some() {}
        let mut arg = Vec::new();
        match rest.peek() {
            None => return args,
            Some(b'"') => {
                rest.next();
                loop {
                    match rest.next().expect("a closing quote") {
                        b'"' => break,
                        b'\\' => match rest.next().expect("an escaped character") {
                            b'n' => arg.push(b'\n'),
                            b'r' => arg.push(b'\r'),
                            b't' => arg.push(b'\t'),
                            b'a' => arg.push(7),
                            b'b' => arg.push(8),
                            b'x' => {
                                let digits = [rest.next(), rest.next()].map(|d| d.unwrap_or(b'?'));
                                let digits = str::from_utf8(&digits).unwrap_or("?");
                                arg.push(u8::from_str_radix(digits, 16).expect("two hex digits"));
                            }
                            other => arg.push(other),
                        },
                        byte => arg.push(byte),
                    }
                }
            }
            Some(b'\'') => {
                rest.next();
                arg.extend(rest.by_ref().take_while(|&byte| byte != b'\''));
            }
            Some(_) => {
                while let Some(byte) = rest.next_if(|byte| !byte.is_ascii_whitespace()) {
                    arg.push(byte);
                }
            }
        }
        args.push(arg);
    }
}

// ---- Replies -----------------------------------------------------------------------------------------

/// One reply, of either protocol. Displayed so that no two different replies look alike:
///
/// | | | | |
/// |---|---|---|---|
/// | `+OK` simple string | `"a\x00"` bulk string | `nil` null bulk string | `[a, b]` array |
/// | `-ERR …` error | `:1` integer | `nil*` null array | `{k: v}` map (RESP3, as all below) |
/// | `~[a]` set | `>[a]` push | `,1.5` double | `#t` `#f` boolean |
/// | `_` null | `(123` big number | `=txt:"a"` verbatim | `<closed>` no reply: connection closed |
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Reply {
    Simple(String),
    Error(String),
    Integer(i64),
    Bulk(Vec<u8>),
    NullBulk,
    NullArray,
    Array(Vec<Reply>),
    Map(Vec<(Reply, Reply)>),
    Set(Vec<Reply>),
    Push(Vec<Reply>),
    Double(String),
    Boolean(bool),
    Null,
    BigNumber(String),
    Verbatim(String, Vec<u8>),
    Closed,
}

impl Reply {
    /// The elements of an array, set or push; a map's keys and values in turn.
    #[track_caller]
    pub(crate) fn into_items(self) -> Vec<Reply> {
        match self {
            Reply::Array(items) | Reply::Set(items) | Reply::Push(items) => items,
            Reply::Map(pairs) => pairs.into_iter().flat_map(|(k, v)| [k, v]).collect(),
            other => panic!("not an array: {other}"),
        }
    }

    #[track_caller]
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        match self {
            Reply::Bulk(bytes) | Reply::Verbatim(_, bytes) => bytes,
            Reply::Simple(text) => text.into_bytes(),
            other => panic!("not a string: {other}"),
        }
    }

    #[track_caller]
    pub(crate) fn into_text(self) -> String {
        String::from_utf8(self.into_bytes()).expect("a string of UTF-8")
    }

    /// Orders the elements by how they are displayed, for replies that come in no particular order.
    pub(crate) fn sort(&mut self) {
        match self {
            Reply::Array(items) | Reply::Set(items) => items.sort_by_cached_key(Reply::to_string),
            Reply::Map(pairs) => pairs.sort_by_cached_key(|(key, _)| key.to_string()),
            _ => {}
        }
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Reply::Simple(text) => write!(out, "+{text}"),
            Reply::Error(text) => write!(out, "-{text}"),
            Reply::Integer(number) => write!(out, ":{number}"),
            Reply::Bulk(bytes) => write!(out, "{}", quote(bytes)),
            Reply::NullBulk => write!(out, "nil"),
            Reply::NullArray => write!(out, "nil*"),
            Reply::Array(items) => write_items(out, "", items),
            Reply::Set(items) => write_items(out, "~", items),
            Reply::Push(items) => write_items(out, ">", items),
            Reply::Map(pairs) => {
                write!(out, "{{")?;
                for (index, (key, value)) in pairs.iter().enumerate() {
                    let comma = if index == 0 { "" } else { ", " };
                    write!(out, "{comma}{key}: {value}")?;
                }
                write!(out, "}}")
            }
            Reply::Double(text) => write!(out, ",{text}"),
            Reply::Boolean(value) => write!(out, "#{}", if *value { 't' } else { 'f' }),
            Reply::Null => write!(out, "_"),
            Reply::BigNumber(text) => write!(out, "({text}"),
            Reply::Verbatim(kind, bytes) => write!(out, "={kind}:{}", quote(bytes)),
            Reply::Closed => write!(out, "<closed>"),
        }
    }
}

fn write_items(out: &mut fmt::Formatter, mark: &str, items: &[Reply]) -> fmt::Result {
    write!(out, "{mark}[")?;
    for (index, item) in items.iter().enumerate() {
        let comma = if index == 0 { "" } else { ", " };
        write!(out, "{comma}{item}")?;
    }
    write!(out, "]")
}

/// A byte string as `redis-cli` would take it back.
pub(crate) fn quote(bytes: &[u8]) -> String {
    let mut text = String::from("\"");
    for &byte in bytes {
        match byte {
            b'"' | b'\\' => text.extend(['\\', byte as char]),
            b'\n' => text.push_str("\\n"),
            b'\r' => text.push_str("\\r"),
            b'\t' => text.push_str("\\t"),
            b' '..=b'~' => text.push(byte as char),
            _ => text.push_str(&format!("\\x{byte:02x}")),
        }
    }
    text.push('"');
    text
}

/// Reads one reply. Whatever is not RESP to the letter is an error.
pub(crate) fn read_reply(reader: &mut impl BufRead) -> io::Result<Reply> {
    let mut line = Vec::new();
    reader.read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let body = line.strip_suffix(b"\r\n").unwrap_or(&[]);
    let Some((&kind, rest)) = body.split_first() else {
        return Err(malformed(&line));
    };
    let text = String::from_utf8_lossy(rest).into_owned();
    let length = || text.parse::<i64>().map_err(|_| malformed(&line));
    let mut items = |per_entry: i64| -> io::Result<Vec<Reply>> {
        let count = length()? * per_entry;
        (0..count).map(|_| read_reply(reader)).collect()
    };
    Ok(match kind {
        b'+' => Reply::Simple(text),
        b'-' => Reply::Error(text),
        b':' => Reply::Integer(length()?),
        b'$' if text == "-1" => Reply::NullBulk,
        b'$' => Reply::Bulk(read_body(reader, length()?)?),
        b'*' if text == "-1" => Reply::NullArray,
        b'*' => Reply::Array(items(1)?),
        b'~' => Reply::Set(items(1)?),
        b'>' => Reply::Push(items(1)?),
        b'%' => {
            let mut flat = items(2)?.into_iter();
            let mut pairs = Vec::new();
            while let (Some(key), Some(value)) = (flat.next(), flat.next()) {
                pairs.push((key, value));
            }
            Reply::Map(pairs)
        }
        b',' => Reply::Double(text),
        b'#' if text == "t" || text == "f" => Reply::Boolean(text == "t"),
        b'_' if text.is_empty() => Reply::Null,
        b'(' => Reply::BigNumber(text),
        b'=' => {
            let body = read_body(reader, length()?)?;
            match body.iter().position(|&byte| byte == b':') {
                Some(3) => {
                    let kind = String::from_utf8_lossy(&body[..3]).into_owned();
                    Reply::Verbatim(kind, body[4..].to_vec())
                }
                _ => return Err(malformed(&line)),
            }
        }
        _ => return Err(malformed(&line)),
    })
}

fn read_body(reader: &mut impl BufRead, length: i64) -> io::Result<Vec<u8>> {
    let length = usize::try_from(length).map_err(|_| malformed(b"a negative length"))?;
    let mut body = vec![0; length + 2];
    reader.read_exact(&mut body)?;
    if !body.ends_with(b"\r\n") {
        return Err(malformed(&body));
    }
    body.truncate(length);
    Ok(body)
}

fn malformed(bytes: &[u8]) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not RESP: {}", quote(bytes)))
}
