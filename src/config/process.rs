//! What some settings ask of the process as a whole: to run in the background (`daemonize`), to leave its
//! id in a file (`pidfile`), and to tell the service manager when it is ready (`supervised`).
//!
//! The standard library cannot fork. So a server that shall run in the background starts itself a second
//! time, in a process group of its own and without a terminal, waits until that process is ready, and ends.
//! It fails if that one fails, with the same message.

use std::io::{self, BufRead, BufReader};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering::Relaxed;

use super::Config;
use super::logger::log_line;
use super::table::SUPERVISORS;
use crate::files::expect_output;

/// Set in the environment of the process in the background.
const IN_BACKGROUND: &str = "RESPITE_IN_BACKGROUND";
/// How the line on stdout begins that says that the server is ready.
pub const READY: &str = "Listening on ";

/// Whether this process was started by [`run_in_background`].
pub fn is_in_background() -> bool {
    std::env::var_os(IN_BACKGROUND).is_some()
}

/// Starts this program again with the same arguments in the background, and waits until it is ready.
///
/// # Errors
/// Why it did not start.
pub fn run_in_background() -> Result<(), String> {
    let start = || -> io::Result<Option<String>> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(std::env::args_os().skip(1))
            .env(IN_BACKGROUND, "1")
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let lines = child.stdout.take().map(BufReader::new).into_iter().flat_map(BufRead::lines);
        let mut printed = Vec::new();
        for line in lines {
            let line = line?;
            if line.starts_with(READY) {
                return Ok(None);
            }
            printed.push(line);
        }
        child.wait()?; // it has closed its stdout, so it ends
        Ok(Some(printed.join("\n")))
    };
    match start() {
        Ok(None) => Ok(()),
        Ok(Some(printed)) => Err(printed),
        Err(error) => Err(format!("can't start a process in the background: {error}")),
    }
}

impl Config {
    /// Writes the process id into the `pidfile`, if there is one. As in Redis, a failure is only logged.
    pub fn write_pid_file(&self) {
        let path = self.pidfile.get();
        if !path.is_empty()
            && let Err(error) = expect_output(Path::new(&path))
                .and_then(|()| std::fs::write(&path, format!("{}\n", std::process::id())))
        {
            log_line!(self, Warning, "Could not write the pid file '{path}': {error}");
        }
    }

    /// Removes the `pidfile`, at a shutdown.
    pub fn remove_pid_file(&self) {
        let path = self.pidfile.get();
        if !path.is_empty() {
            std::fs::remove_file(path).unwrap_or_default();
        }
    }

    /// The socket of the service manager, if `supervised` asks for it and there is one.
    fn notify_socket(&self) -> Option<String> {
        let is_wanted = SUPERVISORS[self.supervised.load(Relaxed)] != "no";
        std::env::var("NOTIFY_SOCKET").ok().filter(|_| is_wanted)
    }

    /// Whether a service manager hears of the state of the server.
    pub fn is_supervised(&self) -> bool {
        self.notify_socket().is_some()
    }

    /// Tells the service manager a state, such as `READY=1`
    /// (<https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html>).
    pub fn notify_supervisor(&self, state: &str) {
        let Some(path) = self.notify_socket() else { return };
        let send = || {
            let socket = UnixDatagram::unbound()?;
            match path.strip_prefix('@') {
                Some(name) => send_to_abstract(&socket, state, name),
                None => socket.send_to(state.as_bytes(), Path::new(&path)),
            }
        };
        if let Err(error) = send() {
            log_line!(self, Warning, "Could not notify the service manager: {error}");
        }
    }
}

/// Sends to a socket that has a name instead of a path, which only Linux has.
#[cfg(target_os = "linux")]
fn send_to_abstract(socket: &UnixDatagram, state: &str, name: &str) -> io::Result<usize> {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::SocketAddr;
    socket.send_to_addr(state.as_bytes(), &SocketAddr::from_abstract_name(name)?)
}

#[cfg(not(target_os = "linux"))]
fn send_to_abstract(_: &UnixDatagram, _: &str, _: &str) -> io::Result<usize> {
    Err(io::ErrorKind::Unsupported.into())
}
