//! Measures every executed command: counts it, times it, and records it if it was slow.
//!
//! [`measured`] wraps the one place where commands are executed. [`crate::stats::timer`] says which times
//! are exact.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use crate::commands::spec::{Flags, Outcome};
use crate::commands::{Command, lookup, slowlog};
use crate::resp::{Args, CommandError};
use crate::session::{Server, Session};
use crate::stats::Timing;

/// With a `slowlog-log-slower-than` below this, every command is timed alone.
const PRECISE_BELOW_US: i64 = 1000;

/// Executes a command by `work` and measures it. Calls may nest: EXEC is measured, and so are the commands
/// that it executes.
#[inline(always)]
pub(super) fn measured(
    server: &Server,
    session: &mut Session,
    command: &Command,
    args: Args,
    work: impl FnOnce(&mut Session) -> Outcome,
) -> Outcome {
    let joins_run = session.timer.extend_run(command.id);
    let started = if joins_run { None } else { start(server, session, command, args) };
    let outcome = work(session);
    match started {
        Some(start) => end(server, session, command, args, start),
        None if session.timer.is_run_full() => end_run(server, session),
        None => {}
    }
    if let Err(error) = &outcome {
        server.stats.failed(&session.client.meter, command.id, error.text());
    }
    outcome
}

/// Starts a run. If this command cannot be in a run, it is timed alone, and its start time is returned.
#[inline(never)]
fn start(server: &Server, session: &mut Session, command: &Command, args: Args) -> Option<Instant> {
    end_run(server, session);
    let slow_us = server.config.slowlog_log_slower_than.load(Relaxed);
    let may_run = command.is_brief() && !(0..PRECISE_BELOW_US).contains(&slow_us);
    let starts_run = may_run && session.timer.start_run(command.id, &args[1]);
    (!starts_run).then(|| session.timer.start())
}

#[inline(never)]
fn end(server: &Server, session: &mut Session, command: &Command, args: Args, start: Instant) {
    end_run(server, session); // of commands inside EXEC
    let timed = session.timer.end(command.id, start);
    record(server, session, command, timed, || slowlog::entry(command, args));
}

#[inline(never)]
fn end_run(server: &Server, session: &mut Session) {
    if let Some(timed) = session.timer.end_run()
        && let Some(command) = lookup::row(timed.command)
    {
        let first_key = session.timer.first_key();
        let entry = || slowlog::entry_of_run(command, timed.calls, first_key);
        record(server, session, command, timed, entry);
    }
}

/// Ends a batch of commands. Returns when its last command ended, if it had any.
pub fn end_batch(server: &Server, session: &mut Session) -> Option<Instant> {
    end_run(server, session);
    session.timer.end_batch()
}

/// Counts what was timed. If it was slow, adds `entry` to the slow log and tells the latency monitor.
fn record(
    server: &Server,
    session: &Session,
    command: &Command,
    timed: Timing,
    entry: impl FnOnce() -> Vec<Vec<u8>>,
) {
    let Server { config, stats, .. } = server;
    stats.executed(&session.client.meter, timed, config.latency_tracking.load(Relaxed));
    // If this is negative, nothing is slow.
    let slow_us = u128::try_from(config.slowlog_log_slower_than.load(Relaxed));
    if slow_us.is_ok_and(|slow_us| timed.took.as_micros() >= slow_us)
        && !command.has(Flags::SKIP_SLOWLOG)
    {
        slowlog::add(server, session, timed.took, entry());
    }
    let event = if command.has(Flags::FAST) { "fast-command" } else { "command" };
    stats.latency.note(event, timed.took, config.latency_monitor_threshold.load(Relaxed));
}

/// Counts a command that was refused before it was executed; `command` is `None` if it does not exist.
#[cold]
pub(super) fn rejected(
    server: &Server,
    session: &Session,
    command: Option<&Command>,
    error: &CommandError,
) {
    let command = command.map(|command| command.id);
    server.stats.rejected(&session.client.meter, command, error.text());
}
