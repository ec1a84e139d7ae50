//! Real clients, installed from their registries, against the server: `make clients`.
//!
//! ```text
//! cargo test --test clients                              all clients
//! cargo test --test clients -- redis-py ioredis          clients whose names contain a word
//! CLIENTS_REQUIRED=1 cargo test --test clients           a client that cannot be installed fails
//! CLIENTS_SERVER=redis-server cargo test --test clients  against a real Redis, where all must pass
//! ```
//!
//! The checks of a client in another language are a script next to this file; the versions are in
//! `requirements.txt` and `package.json`. `pip` and `npm` install them below `target/clients`, where they
//! stay until those files change. Programs ([`redis_cli`], [`nutcracker`], [`exporter`]) come from the PATH
//! and are driven from here, like the [`redis_crate`].
//!
//! The output lists each client as ok, failed, or not installed with the reason; only a failed one fails
//! the run. Nothing hangs: every process has a time limit and is killed when it has passed.

// A check fails by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod exporter;
mod nutcracker;
mod process;
mod redis_cli;
mod redis_crate;

use std::env;
use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use process::{Server, output_of, version_of};

/// The time limit for an installation and for a script.
const LIMIT: Duration = Duration::from_secs(60);

/// The servers that the clients connect to, each on its own port.
pub(crate) struct Servers {
    pub(crate) open: Server,
    /// Its password is `secret`.
    pub(crate) locked: Server,
}

/// A sentence, and the function that checks it.
pub(crate) type Check = (&'static str, fn(&Servers));

struct Client {
    name: &'static str,
    /// Installs the client if necessary. Returns its version, or why it cannot be installed.
    install: fn() -> Result<String, String>,
    run: fn(&Servers) -> Result<(), String>,
}

#[rustfmt::skip]
const CLIENTS: &[Client] = &[
    Client { name: "redis-py (RESP2)", install: || python_package("redis"), run: |servers| python(servers, "2", "redis") },
    Client { name: "redis-py (RESP3)", install: || python_package("redis"), run: |servers| python(servers, "3", "redis") },
    Client { name: "valkey-py (RESP2)", install: || python_package("valkey"), run: |servers| python(servers, "2", "valkey") },
    Client { name: "valkey-py (RESP3)", install: || python_package("valkey"), run: |servers| python(servers, "3", "valkey") },
    Client { name: "node-redis", install: || node_package("redis"), run: |servers| node(servers, "node_redis.js") },
    Client { name: "ioredis", install: || node_package("ioredis"), run: |servers| node(servers, "ioredis.js") },
    Client { name: "redis crate", install: redis_crate::version, run: |servers| all(redis_crate::CHECKS, servers) },
    Client { name: "redis-cli (hiredis)", install: redis_cli::version, run: |servers| all(redis_cli::CHECKS, servers) },
    Client { name: "nutcracker", install: || version_of("nutcracker"), run: |servers| all(nutcracker::CHECKS, servers) },
    Client { name: "redis_exporter", install: exporter::version, run: |servers| all(exporter::CHECKS, servers) },
];

fn main() -> ExitCode {
    // Cargo adds flags of the usual test runner.
    let words: Vec<String> = env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let wanted = |name: &str| words.is_empty() || words.iter().any(|word| name.contains(word));
    fs::create_dir_all(directory()).expect("a directory for the clients");
    let servers =
        Servers { open: Server::start(&[]), locked: Server::start(&["--requirepass", "secret"]) };
    let (mut failed, mut missing) = (0, 0);
    for client in CLIENTS.iter().filter(|client| wanted(client.name)) {
        let name = client.name;
        match (client.install)() {
            Err(why) => {
                missing += 1;
                println!("not installed  {name}: {why}");
            }
            Ok(version) => {
                let started = Instant::now();
                let result = (client.run)(&servers);
                let word = if result.is_ok() { "ok" } else { "FAILED" };
                println!("{word:<14} {name} {version}, {:.1} s", started.elapsed().as_secs_f64());
                if let Err(output) = result {
                    failed += 1;
                    println!("{}", output.trim_end());
                }
            }
        }
    }
    println!("{failed} failed, {missing} could not be installed");
    let required = env::var_os("CLIENTS_REQUIRED").is_some_and(|value| !value.is_empty());
    ExitCode::from(u8::from(failed > 0 || (required && missing > 0)))
}

/// Runs checks that are written in Rust.
fn all(checks: &[Check], servers: &Servers) -> Result<(), String> {
    let mut failed = String::new();
    for (sentence, check) in checks {
        servers.open.clear();
        // A check's state is on the server, which the next check empties, so unwinding is safe.
        let holds = std::panic::AssertUnwindSafe(|| check(servers));
        if catch_unwind(holds).is_err() {
            failed += &format!("FAILED: {sentence} (the reason is above)\n");
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(failed) }
}

// ---- Python ------------------------------------------------------------------------------------------

fn python_package(name: &str) -> Result<String, String> {
    let target = directory().join("python");
    install(&target, "requirements.txt", |list| {
        let mut command = python3();
        command.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
        command.args(["--retries", "1", "--timeout", "15", "--upgrade", "--target"]).arg(&target);
        command.arg("--requirement").arg(list);
        command
    })?;
    let script = format!("import {name}; print({name}.__version__)");
    output_of(python3().args(["-c", &script]), b"", LIMIT)
}

fn python(servers: &Servers, protocol: &str, library: &str) -> Result<(), String> {
    let mut command = python3();
    command.arg(source("redis_py.py")).args(ports(servers)).args([protocol, library]);
    output_of(&mut command, b"", LIMIT).map(|_| ())
}

fn python3() -> Command {
    let mut command = Command::new("python3");
    command.env("PYTHONPATH", directory().join("python"));
    // Otherwise Python leaves compiled files in the source tree.
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

// ---- JavaScript --------------------------------------------------------------------------------------

fn node_package(name: &str) -> Result<String, String> {
    let target = directory().join("node");
    install(&target, "package.json", |list| {
        fs::copy(list, target.join("package.json")).expect("copy the list of packages");
        let mut command = Command::new("npm");
        command.args([
            "install",
            "--no-audit",
            "--no-fund",
            "--no-package-lock",
            "--loglevel=error",
        ]);
        command.args(["--fetch-retries=1", "--fetch-timeout=15000", "--engine-strict"]);
        command.current_dir(&target);
        command
    })?;
    let script = format!("console.log(require('{name}/package.json').version)");
    output_of(node_command().args(["-e", &script]), b"", LIMIT)
}

fn node(servers: &Servers, script: &str) -> Result<(), String> {
    output_of(node_command().arg(source(script)).args(ports(servers)), b"", LIMIT).map(|_| ())
}

fn node_command() -> Command {
    let mut command = Command::new("node");
    command.env("NODE_PATH", directory().join("node/node_modules"));
    command
}

// ---- Installed packages ------------------------------------------------------------------------------

/// Runs the command that installs the packages in `list` into `target`, unless they are installed.
fn install(
    target: &Path,
    list: &str,
    command: impl FnOnce(&Path) -> Command,
) -> Result<(), String> {
    let (list, stamp) = (source(list), target.join("installed"));
    let wanted = fs::read(&list).expect("the list of packages");
    if fs::read(&stamp).is_ok_and(|found| found == wanted) {
        return Ok(());
    }
    fs::create_dir_all(target).expect("a directory for packages");
    output_of(&mut command(&list), b"", LIMIT)?;
    fs::write(stamp, wanted).expect("note what is installed");
    Ok(())
}

/// The directory of everything that this program installs or writes.
pub(crate) fn directory() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("clients")
}

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(name)
}

fn ports(servers: &Servers) -> [String; 2] {
    [&servers.open, &servers.locked].map(|server| server.port.to_string())
}
