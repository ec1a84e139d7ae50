//! The program: settings, then the server, then nothing more to do but wait.

use std::backtrace::Backtrace;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use respite::config::{Config, Level, SETTINGS, logger, process, trace};
use respite::server;

fn main() -> ExitCode {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    if let Some(at) = args.iter().position(|arg| arg == "--trace") {
        args.remove(at);
        trace::enable();
    }
    match args.first().map(String::as_str) {
        Some("--help" | "-h") => {
            return print(&help());
        }
        Some("--version" | "-v") => {
            return print(&format!("Respite {}\n", env!("CARGO_PKG_VERSION")));
        }
        Some("--check-aof") => return check_aof(&args[1..]),
        _ => {}
    }
    tune_allocator();
    match start(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            for line in why.lines() {
                logger::log(Level::Warning, format_args!("Startup failed: {line}"));
                if process::is_in_background() {
                    print(&format!("{line}\n")); // for the process that waits for this one
                }
            }
            logger::flush();
            ExitCode::FAILURE
        }
    }
}

/// Serves until the process is ended, or starts another process that does so in the background.
fn start(args: &[String]) -> Result<(), String> {
    let config = Arc::new(Config::from_args(args)?);
    if config.daemonize.load(Relaxed) && !process::is_in_background() {
        return process::run_in_background();
    }
    if !config.logfile.is_empty() {
        logger::write_to_file(Path::new(&config.logfile.get()))?;
    }
    log_panics(config.clone());
    for warning in config.warnings() {
        config.log_line(Level::Warning, format_args!("{warning}"));
    }
    let server = server::start(config.clone())?;
    config.write_pid_file();
    // Standard output may take nothing: inetd makes it the listening socket too.
    let mut places = Vec::new();
    let (port, path) = (server.port.load(SeqCst), config.unixsocket.get());
    if port != 0 {
        places.push(format!("port :{port}"));
    }
    if !path.is_empty() {
        places.push(format!("'{path}'"));
    }
    if places.is_empty() {
        places.push("the inherited socket".into());
    }
    let ready = writeln!(io::stdout(), "{}{}", process::READY, places.join(" and "));
    ready.unwrap_or_default();
    config.notify_supervisor("READY=1");
    loop {
        std::thread::park();
    }
}

/// Logs panics. (The default hook writes to stderr in the thread that panics, which may hold locks.)
fn log_panics(config: Arc<Config>) {
    std::panic::set_hook(Box::new(move |panic| {
        let mut text = panic.to_string();
        if config.crash_log_enabled.load(Relaxed) {
            text.push_str(&format!("\n{}", Backtrace::capture()));
        }
        text.lines().for_each(|line| logger::log(Level::Warning, format_args!("{line}")));
    }));
}

fn check_aof(args: &[String]) -> ExitCode {
    let (path, fix) = match args {
        [path] => (path, false),
        [path, fix] if fix == "--fix" => (path, true),
        [fix, path] if fix == "--fix" => (path, true),
        _ => return fail("usage: respite --check-aof FILE [--fix]\n"),
    };
    match server::check_aof(Path::new(path), fix) {
        Ok(report) => print(&report),
        Err(report) => fail(&report),
    }
}

/// Prints a text. (`print!` panics where it cannot be printed.)
fn print(text: &str) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            fail(&format!("respite: can't print: {error}\n"))
        }
        _ => ExitCode::SUCCESS, // if the reader has read enough, too
    }
}

fn fail(why: &str) -> ExitCode {
    io::stderr().write_all(why.as_bytes()).unwrap_or_default();
    ExitCode::FAILURE
}

fn help() -> String {
    let mut text = String::from(
        "Respite, an in-memory database that speaks the Redis protocol.\n\n\
         Usage: respite [redis.conf] [--name value ...]\n\n\
         Settings, each with its default:\n",
    );
    for setting in SETTINGS {
        let named = format!("--{} {:?}", setting.name, setting.default);
        text.push_str(&format!("  {named:38} {}\n", setting.summary));
    }
    text.push_str(
        "  --include FILE              read another configuration file; may have wildcards\n\
         \x20 --rename-command NAME NEW   let clients call a command by another name, or \"\" for none\n\
         \n  --trace                     print what each command does on its way through the server\n  \
         --check-aof FILE [--fix]    look for damage in a log, and repair it\n  \
         --help                      print this text\n  \
         --version                   print the version\n",
    );
    text
}

/// Starts this program again, in the same process, with settings for glibc's allocator, which reads them from
/// the environment at the start only. Without them, a size that was allocated and freed once is kept for
/// ever: 40 connections that each wrote values of 5 MB hold 100 MB instead of 2.5. Each thread's heap gives
/// back what is free at its end, but for 32 KB, when that is more than 512 KB. (With less, values of 100 KB
/// are written half as fast.) There is one heap for each core instead of eight, because what is freed in one
/// is not used by threads of another: a cache of 60 MB that ten clients write takes 83 MB instead of 107. If
/// `GLIBC_TUNABLES` is set, to anything, nothing is done.
fn tune_allocator() {
    const NAME: &str = "GLIBC_TUNABLES";
    let heaps = std::thread::available_parallelism().map_or(1, usize::from);
    let value = format!(
        "glibc.malloc.mmap_threshold=1048576:glibc.malloc.trim_threshold=524288:\
         glibc.malloc.top_pad=32768:glibc.malloc.arena_max={heaps}"
    );
    if cfg!(all(target_os = "linux", target_env = "gnu"))
        && std::env::var_os(NAME).is_none()
        && let Ok(program) = std::env::current_exe()
    {
        let mut args = std::env::args_os();
        let mut again = Command::new(program);
        again.arg0(args.next().unwrap_or_default()).args(args).env(NAME, value);
        let _ = again.exec(); // returns only if it fails; then the server runs with the defaults
    }
}
