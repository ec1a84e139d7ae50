//! What the dispatcher counts: every command once, what it cost, and whether it was slow.
//!
//! [`measured`] stands around the one place where a command is carried out. What is exact and what is
//! not, and why, says [`crate::stats::calls`]. Only what took long is looked at more closely.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use crate::commands::spec::{Flags, Outcome};
use crate::commands::{self, Command, slowlog};
use crate::resp::{Args, CommandError};
use crate::session::{Server, Session};
use crate::stats::calls::Timed;

/// If the slow log begins below this, every command is timed alone.
const PRECISE_BELOW_US: i64 = 1000;

/// Carries out a command that may be carried out, and counts it. It may be part of another one: of
/// EXEC, which is counted too.
#[inline(always)]
pub(super) fn measured(
    server: &Server,
    session: &mut Session,
    command: &Command,
    args: Args,
    work: impl FnOnce(&mut Session) -> Outcome,
) -> Outcome {
    let alone_since = match session.tally.is_in_run_of(command.name) {
        true => None,
        false => begin(server, session, command, args),
    };
    let outcome = work(session);
    match alone_since {
        None if session.tally.extend_run() => end_run(server, session),
        None => {}
        Some(start) => end_alone(server, session, command, args, start),
    }
    if let Err(error) = &outcome {
        session.client.state().counts.fail(&server.stats, command.name);
        server.stats.errors.count(error.text());
    }
    outcome
}

/// Something else begins than what went on: a run, or a command that is timed alone, and then since when.
#[inline(never)]
fn begin(server: &Server, session: &mut Session, command: &Command, args: Args) -> Option<Instant> {
    end_run(server, session);
    let precise =
        || (0..PRECISE_BELOW_US).contains(&server.config.slowlog_log_slower_than.load(Relaxed));
    if session.tally.is_repeated(command.name) && command.is_brief() && !precise() {
        session.tally.start_run(command.name, &args[1]);
        return None;
    }
    Some(session.tally.start())
}

#[inline(never)]
fn end_alone(
    server: &Server,
    session: &mut Session,
    command: &Command,
    args: Args,
    start: Instant,
) {
    end_run(server, session); // of commands that were part of it
    session.count(server);
    let timed = session.tally.end(command.name, start);
    if is_slow(server, &timed) {
        note_slow(server, session, command, &timed, || slowlog::entry(command, args));
    }
}

/// A batch of commands has ended. Returns when, if it had any that was timed.
pub fn end_batch(server: &Server, session: &mut Session) -> Option<Instant> {
    end_run(server, session);
    session.tally.end_batch()
}

#[inline(always)]
fn end_run(server: &Server, session: &mut Session) {
    if session.tally.is_in_run() {
        end_this_run(server, session);
    }
}

#[inline(never)]
fn end_this_run(server: &Server, session: &mut Session) {
    session.count(server);
    let timed = session.tally.end_run();
    if is_slow(server, &timed)
        && let Some(command) = commands::find(timed.name.as_bytes())
    {
        let key = session.tally.first_key();
        note_slow(server, session, command, &timed, || slowlog::entry_of_run(&timed, key));
    }
}

/// Whether the slow log or the latency monitor asks for it.
fn is_slow(server: &Server, timed: &Timed) -> bool {
    let slow_us = server.config.slowlog_log_slower_than.load(Relaxed);
    let monitored_ms = server.config.latency_monitor_threshold.load(Relaxed);
    let microseconds = timed.took.as_micros() as i64;
    (slow_us >= 0 && microseconds >= slow_us)
        || (monitored_ms > 0 && microseconds / 1000 >= monitored_ms)
}

/// Enters what took long where that is asked for.
#[cold]
fn note_slow(
    server: &Server,
    session: &Session,
    command: &Command,
    timed: &Timed,
    shown: impl FnOnce() -> Vec<Vec<u8>>,
) {
    let slow_us = server.config.slowlog_log_slower_than.load(Relaxed);
    let is_wanted = slow_us >= 0 && timed.took.as_micros() >= slow_us.unsigned_abs().into();
    if is_wanted && !command.has(Flags::SKIP_SLOWLOG) {
        slowlog::enter(server, session, timed.took, shown());
    }
    let event = if command.has(Flags::FAST) { "fast-command" } else { "command" };
    let threshold_ms = server.config.latency_monitor_threshold.load(Relaxed);
    server.stats.latency.note(event, timed.took, threshold_ms);
}

/// Counts what was refused before it was carried out; without a command, if there is none of that name.
#[cold]
pub(super) fn rejected(server: &Server, command: Option<&'static Command>, error: &CommandError) {
    if let Some(command) = command {
        server.stats.commands.reject(command.name);
    }
    server.stats.errors.count(error.text());
}
