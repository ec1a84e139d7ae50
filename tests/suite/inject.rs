//! System calls of the log that fail, once or a few times in a row: `strace` injects the failures into the
//! real process. Whatever fails, nothing that was acknowledged is lost, and the server recovers by itself.
//!
//! The unit tests of the log have a disk of their own, which fails in more ways. None of these tests runs
//! against a Redis at `REDIS_ADDR`, nor without `strace`, which is for Linux.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::thread;

use crate::harness::{
    Client, Reply, Server, TempDir, encode, eventually, info, installed, say, skipped_on_redis,
};

/// Which calls fail, on which file in the server's directory, and with which error and when, as `strace` puts
/// it. The directory itself is the empty name.
type Fault = (&'static str, &'static str, &'static str);

const FAULTS: &[Fault] = &[
    ("write", "storage.aof", "error=ENOSPC:when=1"),
    ("write", "storage.aof", "error=ENOSPC:when=2..6"),
    ("write", "storage.aof", "error=EDQUOT:when=1..3"),
    ("write", "storage.aof", "error=EIO:when=1"),
    ("write", "storage.aof", "error=EINTR:when=1..3"),
    ("fdatasync", "storage.aof", "error=EIO:when=1"),
    ("fdatasync", "storage.aof", "error=ENOSPC:when=1..2"),
    ("statx", "storage.aof", "error=EIO:when=1"),
    ("openat", "storage.aof.rewrite", "error=EMFILE:when=1"),
    ("fcntl", "storage.aof.rewrite", "error=EMFILE:when=1"),
    ("flock", "storage.aof.rewrite", "error=ENOLCK:when=1"),
    ("write", "storage.aof.rewrite", "error=ENOSPC:when=1"),
    ("write", "storage.aof.rewrite", "error=EIO:when=1..2"),
    ("fdatasync", "storage.aof.rewrite", "error=EIO:when=1"),
    ("fdatasync", "storage.aof.rewrite", "error=EIO:when=2"),
    ("rename", "storage.aof.rewrite", "error=EIO:when=1..2"),
    ("fsync", "", "error=EIO:when=1"),
    ("fsync", "", "error=EIO:when=1..2"),
];

/// A running `strace`.
struct Injector {
    strace: Child,
    trace: PathBuf,
}

impl Injector {
    /// `None` if this process may not trace another.
    fn attach(server: &Server, (calls, name, how): Fault) -> Option<Injector> {
        let trace = server.dir().with_extension("trace");
        let process = server.process_id().to_string();
        let mut strace = Command::new("strace")
            .args(["-qq", "-f", "-p", &process, "-e", &format!("trace={calls}")])
            .args(["-e", &format!("inject={calls}:{how}")])
            .arg("-P")
            .arg(if name.is_empty() { server.dir() } else { server.dir().join(name) })
            .arg("-o")
            .arg(&trace)
            .stderr(Stdio::null())
            .spawn()
            .expect("start strace");
        let traced = || -> Option<bool> {
            let mut tasks = fs::read_dir(format!("/proc/{process}/task")).ok()?.flatten();
            Some(tasks.all(|task| {
                let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
                status.lines().any(|line| {
                    line.strip_prefix("TracerPid:").is_some_and(|pid| pid.trim() != "0")
                })
            }))
        };
        let mut ended = false;
        eventually("strace is attached", || {
            ended = strace.try_wait().expect("wait for strace").is_some();
            ended || traced().unwrap_or_default()
        });
        (!ended).then_some(Injector { strace, trace })
    }

    fn has_injected(&self) -> bool {
        fs::read_to_string(&self.trace).is_ok_and(|trace| trace.contains("(INJECTED)"))
    }
}

impl Drop for Injector {
    /// SIGTERM lets strace leave the process as it found it.
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.strace.id().to_string()).status();
        let _ = self.strace.wait();
    }
}

/// Increments `n`, and returns the reply if it was acknowledged.
fn increment(c: &mut Client) -> Option<i64> {
    match c.reply("INCR n") {
        Reply::Integer(n) => Some(n),
        Reply::Error(error) if error.starts_with("MISCONF ") => None,
        other => panic!("{other}"),
    }
}

/// When a server is killed that has met a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Killed {
    AtOnce,
    /// After it has recovered.
    Later,
}

/// False if this process may not trace another.
fn survives(fault: Fault, fsync: &str, killed: Killed) -> bool {
    let what = format!("{fault:?}, appendfsync {fsync}, killed {killed:?}");
    let mut server = Server::start(&["--appendfsync", fsync]);
    let mut c = server.client();
    c.expect("INCR n", ":1");
    let Some(injector) = Injector::attach(&server, fault) else { return false };
    let mut acknowledged = 1;
    eventually(&format!("a call fails: {what}"), || {
        c.reply("BGREWRITEAOF"); // may be running
        acknowledged = increment(&mut c).unwrap_or(acknowledged);
        injector.has_injected()
    });
    if killed == Killed::Later {
        eventually(&format!("writes are accepted again: {what}"), || {
            let last = increment(&mut c);
            acknowledged = last.unwrap_or(acknowledged);
            last.is_some() && info(&mut c, "aof_last_write_status").as_deref() == Some("ok")
        });
    }
    server.kill_9();
    drop(injector);
    server.restart();
    let mut c = server.client();
    let found: i64 = c.text("GET n").parse().expect("a number");
    // What was answered with an error may have taken effect.
    assert!(found >= acknowledged, "{what}: {found} after {acknowledged} was acknowledged");
    c.expect("INCR n", &format!(":{}", found + 1));
    true
}

/// Calls on the log with which a start reads a record, and cuts off the beginning of another.
const CALLS_AT_START: [&str; 7] =
    ["openat", "flock", "read", "lseek", "copy_file_range", "ftruncate", "fsync"];

#[test]
fn a_start_at_which_a_system_call_of_the_log_fails_says_so_and_loses_nothing() {
    if skipped_on_redis() || cfg!(not(target_os = "linux")) || !installed("strace") {
        return;
    }
    for call in CALLS_AT_START {
        let home = TempDir::new();
        let log = home.data().join("storage.aof");
        let whole = encode(&["SET", "k", "v"]);
        fs::write(&log, [&whole, &whole[..10]].concat()).expect("write the log");
        let inject = format!("inject={call}:error=EIO:when=1");
        let ended = Server::fail_to_start_traced(
            &home,
            &["-P".as_ref(), log.as_ref(), "-e".as_ref(), inject.as_ref()],
        );
        if ended.stderr.contains("ptrace") {
            return say("skipped: strace may not trace the server");
        }
        assert_eq!(ended.code, Some(1), "{call}: {}", ended.stderr);
        assert!(ended.stderr.contains("Startup failed: can't "), "{call}: {}", ended.stderr);
        Server::start_in(home, &[]).client().expect("GET k", "\"v\"");
    }
}

#[test]
fn nothing_acknowledged_is_lost_whichever_system_call_of_the_log_fails() {
    if skipped_on_redis() || cfg!(not(target_os = "linux")) || !installed("strace") {
        return;
    }
    let ways =
        [("everysec", Killed::Later), ("always", Killed::Later), ("everysec", Killed::AtOnce)];
    let cases = ways.map(|(fsync, killed)| FAULTS.iter().map(move |at| (*at, fsync, killed)));
    let cases = Mutex::new(cases.into_iter().flatten());
    let next = || cases.lock().expect("no lock is held in a case").next();
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while let Some((fault, fsync, killed)) = next() {
                    if !survives(fault, fsync, killed) {
                        return say("skipped: strace may not trace the server");
                    }
                }
            });
        }
    });
}
