//! The running server: startup, accept loops, a thread per connection, background threads.
//!
//! [`start`] opens everything, replays the log and returns when the server is ready; its threads go on
//! running. Each connection has a thread ([`connection`]) that reads, runs commands, replies and waits, all
//! blocking. That is the whole model of concurrency. A client that other threads send messages to has a
//! second thread, which writes them. [`listen`] accepts connections, [`log`] opens and replays the log,
//! [`import`] loads other files if there is none, [`background`] does the rest.
//!
//! Stopping needs no special steps. Every change that a client has learned of is in the log, so the server
//! recovers from a shutdown and from a crash by the same code.

mod background;
mod check;
mod connection;
#[cfg(test)]
mod fuzz;
mod import;
mod link;
mod listen;
mod log;

use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::mpsc;
use std::thread;

use crate::aof::Aof;
use crate::commands::{aclfile, names};
use crate::config::{Config, logger};
use crate::replication::upstream::Address;
use crate::session::Server;

pub use check::check_aof;

/// Opens the listeners and the log, replays the log and starts serving. Clients that connect during the
/// replay get `LOADING` errors.
///
/// # Errors
/// A text for the operator: what could not be opened, and why.
pub fn start(config: impl Into<Arc<Config>>) -> Result<Arc<Server>, String> {
    logger::start()?;
    let config: Arc<Config> = config.into();
    names::rename(&config.renames())?;
    // The lock on the file comes first: a second server must not touch the socket of the first one.
    let import = import::find(&config)?;
    let has_log = config.appendonly.load(Relaxed) && import.is_none();
    let log = if has_log { Some(log::open(&config.log_path())?) } else { None };
    let listeners = listen::Listeners::open(&config)?;
    let aof = match &log {
        Some(log) => log.try_clone().and_then(|log| Aof::new(Box::new(log), &config.log_path())),
        None => Ok(Aof::disabled()),
    };
    let aof = aof.map_err(|error| format!("can't open the log: {error}"))?;
    listeners.limit_clients(&config)?;
    let (garbage, dropped) = mpsc::channel();
    let (snapshots, requested) = mpsc::channel();
    let server = Arc::new(Server::new(config, aof, garbage, snapshots));
    aclfile::load_at_start(&server)?;
    server.port.store(listeners.port, SeqCst);
    server.loading.store(log.is_some() || import.is_some(), SeqCst);
    let dropping = server.clone();
    spawn("dropper", move || background::drop_garbage(&dropping, &dropped))?;
    if let Some(master) = Address::parse(&server.config.replicaof.get()) {
        server.follow(master);
    }
    listeners.serve(&server)?;
    if let Some(log) = log {
        log::load(&server, log)?;
    }
    if let Some(import) = import {
        import::load(&server, &import)?;
    }
    let replica = server.clone();
    spawn("supervisor", move || link::supervise(&replica))?;
    let saving = server.clone();
    spawn("snapshots", move || background::take_snapshots(&saving, &requested))?;
    for (name, work) in
        [("sweeper", background::sweep as fn(&Server)), ("syncer", background::sync)]
    {
        let server = server.clone();
        spawn(name, move || work(&server))?;
    }
    Ok(server)
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), String> {
    let thread = thread::Builder::new().name(name.into()).spawn(work);
    thread.map(drop).map_err(|error| format!("can't start a thread: {error}"))
}
