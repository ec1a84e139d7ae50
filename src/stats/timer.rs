//! How long the commands of one connection take.
//!
//! Reading the clock costs 30 to 100 ns, and a pipelined GET about 400. So equal brief commands that follow
//! one another in a batch are timed together, as a *run* of up to [`RUN_LIMIT`]. The first of them is timed
//! alone, unless the batch before ended with a run. Hence:
//!
//! - The total time of each command is exact, and so is its number of calls. The histogram gives each command
//!   of a run the average time of the run.
//! - A command or run begins when the one before it in the batch ends, so its time includes parsing its
//!   request (about 100 ns). Waiting for the client ends the batch, so no command's time includes it.

use std::time::{Duration, Instant};

use super::CommandId;

/// The most commands that are timed together.
pub const RUN_LIMIT: u32 = 16;
/// How much of a run's first key is kept for the slow log.
const KEY_BYTES: usize = 128;

/// Measures the commands of one connection, alone or in runs.
#[derive(Default)]
pub struct CommandTimer {
    /// When the current run began; between commands, when the last command or run of this batch ended.
    since: Option<Instant>,
    /// The command of the current run; otherwise the last one that was timed.
    command: Option<CommandId>,
    /// The number of commands in the current run; 0 if there is none.
    run_calls: u32,
    /// The last command was timed alone, not in a run of several.
    was_alone: bool,
    first_key: Vec<u8>,
}

/// How long one command took, or a run of equal ones.
#[derive(Clone, Copy)]
pub struct Timing {
    pub command: CommandId,
    /// How often it was called, at least once.
    pub calls: u32,
    /// The time that all calls took together.
    pub took: Duration,
}

impl CommandTimer {
    /// Starts to time one command. No run may be in progress.
    pub fn start(&mut self) -> Instant {
        debug_assert!(!self.is_in_run());
        self.since.take().unwrap_or_else(Instant::now)
    }

    /// Ends the timing of one command, which began at `start`. No run may be in progress.
    pub fn end(&mut self, command: CommandId, start: Instant) -> Timing {
        debug_assert!(!self.is_in_run());
        self.time(command, 1, start)
    }

    /// Adds a command to the current run. Returns false if there is no run of this command.
    #[inline]
    pub fn extend_run(&mut self, command: CommandId) -> bool {
        let extends = self.is_in_run() && self.command == Some(command);
        self.run_calls += u32::from(extends);
        extends
    }

    /// Starts a run if the command repeats the one before it. Returns false if it does not.
    pub fn start_run(&mut self, command: CommandId, first_key: &[u8]) -> bool {
        if self.command != Some(command) {
            return false;
        }
        self.since = Some(self.start());
        self.run_calls = 1;
        self.first_key.clear();
        self.first_key.extend_from_slice(&first_key[..first_key.len().min(KEY_BYTES)]);
        true
    }

    /// Ends the current run, if there is one.
    pub fn end_run(&mut self) -> Option<Timing> {
        let calls = std::mem::take(&mut self.run_calls);
        let command = self.command.filter(|_| calls > 0)?;
        let start = self.start();
        Some(self.time(command, calls, start))
    }

    /// Whether a run is in progress.
    #[inline]
    pub fn is_in_run(&self) -> bool {
        self.run_calls > 0
    }

    /// Whether the current run has as many commands as it may have.
    #[inline]
    pub fn is_run_full(&self) -> bool {
        self.run_calls >= RUN_LIMIT
    }

    /// The key of the last run's first command, cut to [`KEY_BYTES`].
    pub fn first_key(&self) -> &[u8] {
        &self.first_key
    }

    /// Ends a batch, which has no run in progress. Returns when its last command ended, if it had any.
    pub fn end_batch(&mut self) -> Option<Instant> {
        debug_assert!(!self.is_in_run());
        if self.was_alone {
            self.command = None;
        }
        self.since.take()
    }

    fn time(&mut self, command: CommandId, calls: u32, start: Instant) -> Timing {
        let now = Instant::now();
        self.since = Some(now);
        self.command = Some(command);
        self.was_alone = calls == 1;
        Timing { command, calls, took: now.duration_since(start) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: CommandId = 1;
    const SET: CommandId = 2;

    #[test]
    fn a_command_begins_where_the_one_before_it_ended_but_not_across_a_wait() {
        let mut timer = CommandTimer::default();
        let first = timer.start();
        timer.end(GET, first);
        let ended = timer.since;
        assert!(ended.is_some_and(|ended| ended >= first));
        let second = timer.start();
        assert_eq!(Some(second), ended);
        // A command inside EXEC does not begin where the one before EXEC ended.
        assert!(timer.start() >= second && timer.since.is_none());
        timer.end(GET, second);
        assert!(timer.end_batch().is_some_and(|ended| ended >= second));
        assert!(timer.end_batch().is_none());
    }

    #[test]
    fn a_run_is_timed_as_a_whole_and_keeps_its_first_key() {
        let mut timer = CommandTimer::default();
        assert!(!timer.extend_run(GET) && !timer.start_run(GET, b"k"));
        let start = timer.start();
        timer.end(GET, start);
        assert!(!timer.start_run(SET, b"k") && timer.start_run(GET, &[b'k'; 200]));
        assert!(!timer.extend_run(SET));
        for _ in 1..RUN_LIMIT {
            assert!(!timer.is_run_full() && timer.extend_run(GET));
        }
        assert!(timer.is_run_full());
        let Some(timed) = timer.end_run() else { panic!("a run was in progress") };
        assert_eq!((timed.command, timed.calls), (GET, RUN_LIMIT));
        assert_eq!(timer.first_key(), [b'k'; KEY_BYTES]);
        assert!(timer.end_run().is_none() && !timer.extend_run(GET));
    }

    #[test]
    fn a_batch_starts_with_a_run_only_if_the_one_before_ended_with_a_run() {
        let mut timer = CommandTimer::default();
        let starts_with_run = |timer: &mut CommandTimer, calls: u32| {
            timer.end_batch();
            let starts = timer.start_run(GET, b"k");
            if !starts {
                let start = timer.start();
                timer.end(GET, start);
                timer.start_run(GET, b"k");
            }
            (1..calls).for_each(|_| _ = timer.extend_run(GET));
            timer.end_run();
            starts
        };
        assert!(!starts_with_run(&mut timer, 2), "the first batch");
        assert!(starts_with_run(&mut timer, 1), "after a run of two");
        assert!(!starts_with_run(&mut timer, 2), "after a run of one");
    }
}
