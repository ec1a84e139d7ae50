//! The server's own log lines, which go to stderr, or to `logfile`, for the operator. (What the rest of the
//! code calls "the log" is the append-only file, [`crate::aof`].)
//!
//! A line goes into a bounded queue, and one thread writes the queue to stderr. So logging never waits,
//! whatever locks the caller holds and wherever stderr leads: even to a pipe that nobody reads. Lines that do
//! not fit are dropped; a line in their place says how many.
//!
//! Code that ends the process calls [`flush`] first, so that the last lines are written. That wait is bounded
//! too: a stalled pipe does not keep the process from ending.
//!
//! What clients can cause as often as they like is logged once a second ([`log_limited!`]).
//!
//! The file is opened anew for each batch of lines, as in Redis, so that it can be renamed at any time.
//!
//! Locks: the queue's, below all others. It is held to append a line, never while stderr is written.

use std::fmt::Arguments;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::files::expect_output;

/// The lines that wait to be written take at most this much.
const QUEUE_BYTES: usize = 256 << 10;
/// How often a line is logged that clients can cause as often as they like.
const REPEAT_PERIOD: Duration = Duration::from_secs(1);
/// How long [`flush`] waits.
const FLUSH_PATIENCE: Duration = Duration::from_secs(1);

static QUEUE: Queue = Queue::new();
/// The file that lines go to; without one they go to stderr.
static LOG_FILE: OnceLock<PathBuf> = OnceLock::new();

/// The values of `log-format`, and those of `log-timestamp-format`.
pub(super) const LOG_FORMATS: &[&str] = &["legacy", "logfmt"];
pub(super) const TIMESTAMPS: &[&str] = &["legacy", "iso8601", "milliseconds"];
/// The indexes of the first of these.
const LEGACY: usize = 0;

/// How important a log line is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Level {
    /// For finding a fault in the server.
    Debug,
    /// Routine events, such as connections that open and close.
    Verbose,
    /// Events that an operator wants to know about.
    Notice,
    /// Problems that an operator should look into.
    Warning,
}

/// Logs a line unless `loglevel` suppresses it: `log_line!(config, Warning, "Client {id} …")`.
macro_rules! log_line {
    ($config:expr, $level:ident, $($text:tt)+) => {
        $config.log_line($crate::config::Level::$level, format_args!($($text)+))
    };
}
pub(crate) use log_line;

/// Like [`log_line!`], for a line that clients can cause as often as they like: it is logged once a second,
/// and says how many lines were left out since.
macro_rules! log_limited {
    ($config:expr, $level:ident, $($text:tt)+) => {{
        static REPEATS: $crate::config::logger::Repeats = $crate::config::logger::Repeats::none();
        REPEATS.log(|left_out| {
            $config.log_line(
                $crate::config::Level::$level,
                format_args!("{}{left_out}", format_args!($($text)+)),
            );
        });
    }};
}
pub(crate) use log_limited;

/// When a line of one kind was logged last, and how many were left out since.
pub struct Repeats(Mutex<(Option<Instant>, u64)>);

impl Repeats {
    /// No line so far.
    pub const fn none() -> Repeats {
        Repeats(Mutex::new((None, 0)))
    }

    /// Calls `log` with what to add to the line, unless one was logged within the last second.
    pub fn log(&self, log: impl FnOnce(&str)) {
        let left_out = self.admit(Instant::now());
        match left_out {
            Some(0) => log(""),
            Some(count) => log(&format!(" ({count} more such lines were left out)")),
            None => {}
        }
    }

    fn admit(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, left_out) = &mut *state;
        if last.is_some_and(|last| now.duration_since(last) < REPEAT_PERIOD) {
            *left_out += 1;
            return None;
        }
        *last = Some(now);
        Some(std::mem::take(left_out))
    }
}

/// Logs a line, whatever `loglevel` is. Never waits.
pub fn log(level: Level, text: Arguments) {
    log_in(LEGACY, LEGACY, level, text);
}

/// Logs a line in one of the [`LOG_FORMATS`], with one of the [`TIMESTAMPS`]. Never waits.
pub(super) fn log_in(format: usize, timestamp: usize, level: Level, text: Arguments) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let time = match TIMESTAMPS[timestamp] {
        "iso8601" => iso8601(now),
        "milliseconds" => now.as_millis().to_string(),
        _ => utc(now),
    };
    let line = match LOG_FORMATS[format] {
        "logfmt" => logfmt_line(level, &time, text),
        _ => format_line(level, &time, text),
    };
    // The test runner captures what `eprint!` prints, and shows it for a failing test.
    if cfg!(test) {
        return eprint!("{line}");
    }
    QUEUE.push(&line);
}

/// Logs a line as it is, without process, time and level.
pub(super) fn log_unstamped(text: Arguments) {
    QUEUE.push(&format!("{text}\n"));
}

/// Starts the thread that writes the lines, if it does not run yet. Lines logged before that wait for it.
///
/// # Errors
/// The thread cannot be started.
pub fn start() -> Result<(), String> {
    static STARTED: OnceLock<Result<(), String>> = OnceLock::new();
    let spawn = || {
        let thread = thread::Builder::new().name("logger".into());
        let spawned = thread.spawn(|| QUEUE.write_to(&mut Output));
        spawned.map(drop).map_err(|error| format!("can't start a thread: {error}"))
    };
    STARTED.get_or_init(spawn).clone()
}

/// Waits until all lines so far are written, for a second at most. Call this before the process ends.
pub fn flush() {
    if start().is_ok() {
        QUEUE.flush(FLUSH_PATIENCE);
    } else {
        QUEUE.write_batch(&mut Output);
    }
}

/// From now on lines go to this file.
///
/// # Errors
/// It cannot be opened.
pub fn write_to_file(path: &Path) -> Result<(), String> {
    // The working directory may change later.
    let path = std::path::absolute(path).unwrap_or_else(|_| path.into());
    open(&path)
        .map_err(|error| format!("can't open the log file '{}': {error}", path.display()))?;
    LOG_FILE.get_or_init(|| path);
    Ok(())
}

fn open(path: &Path) -> io::Result<File> {
    expect_output(path)?;
    OpenOptions::new().append(true).create(true).open(path)
}

/// Where lines go: the log file, or stderr.
struct Output;

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes).map(|()| bytes.len())
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match LOG_FILE.get() {
            Some(path) => open(path)?.write_all(bytes),
            None => io::stderr().write_all(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Queue {
    state: Mutex<State>,
    /// There is something to write, or something was written.
    changed: Condvar,
}

struct State {
    /// The lines that wait, each with its line end, oldest first.
    waiting: String,
    /// How many lines did not fit after those.
    dropped: u64,
    /// Lines have been taken out and are being written.
    is_writing: bool,
}

impl State {
    fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.dropped == 0
    }
}

impl Queue {
    const fn new() -> Queue {
        let state = State { waiting: String::new(), dropped: 0, is_writing: false };
        Queue { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Appends a line, or drops it if there is no room. Once a line is dropped, so are all others until the
    /// queue is written. So the line that counts them appears where they are missing.
    fn push(&self, line: &str) {
        let mut state = self.lock();
        if state.dropped > 0 || state.waiting.len() + line.len() > QUEUE_BYTES {
            state.dropped += 1;
        } else {
            state.waiting.push_str(line);
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Waits for lines and writes them, forever.
    fn write_to(&self, output: &mut impl Write) {
        loop {
            let idle = self.changed.wait_while(self.lock(), |state| state.is_empty());
            drop(idle);
            self.write_batch(output);
        }
    }

    /// Writes the lines that wait.
    fn write_batch(&self, output: &mut impl Write) {
        let mut state = self.lock();
        let mut lines = std::mem::take(&mut state.waiting);
        let dropped = std::mem::take(&mut state.dropped);
        state.is_writing = true;
        drop(state);
        if dropped > 0 {
            let text = format_args!("{dropped} log lines were dropped: stderr was too slow");
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            lines.push_str(&format_line(Level::Warning, &utc(now), text));
        }
        // If stderr is closed or its disk is full, there is nobody to tell.
        output.write_all(lines.as_bytes()).unwrap_or_default();
        self.lock().is_writing = false;
        self.changed.notify_all();
    }

    /// Waits until everything is written, or until patience ends.
    fn flush(&self, patience: Duration) {
        let is_behind = |state: &mut State| state.is_writing || !state.is_empty();
        drop(self.changed.wait_timeout_while(self.lock(), patience, is_behind));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One line in Redis's format: process, role (`M` for a master), time, level, text.
fn format_line(level: Level, time: &str, text: Arguments) -> String {
    let sign = ['.', '-', '*', '#'][level as usize];
    format!("{}:M {time} {sign} {}\n", std::process::id(), on_one_line(text))
}

/// One line in Valkey's other format.
fn logfmt_line(level: Level, time: &str, text: Arguments) -> String {
    let (process, level) = (std::process::id(), LEVEL_NAMES[level as usize]);
    let text = on_one_line(text).replace('"', "'");
    format!("pid={process} role=primary timestamp=\"{time}\" level={level} message=\"{text}\"\n")
}

const LEVEL_NAMES: [&str; 4] = ["debug", "info", "notice", "warning"];

/// What is quoted in a text, such as the name of a file, may contain a line break.
fn on_one_line(text: Arguments) -> String {
    let mut line = String::new();
    for character in text.to_string().chars() {
        if character.is_control() {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
    line
}

/// A Unix time as `29 Nov 2026 00:41:00.123`. UTC: the standard library knows no time zones.
fn utc(unix: Duration) -> String {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let ((year, month, day), time) = date_and_time(unix);
    format!("{day:02} {} {year} {time}", MONTHS[month])
}

/// A Unix time as `2026-11-29T00:41:00.123+00:00`.
fn iso8601(unix: Duration) -> String {
    let ((year, month, day), time) = date_and_time(unix);
    format!("{year}-{:02}-{day:02}T{time}+00:00", month + 1)
}

/// The year, the index of the month, and the day; and the time of day.
fn date_and_time(unix: Duration) -> ((u64, usize, u64), String) {
    let is_leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let days_of = |year| if is_leap(year) { 366 } else { 365 };
    let (mut day, second) = (unix.as_secs() / 86_400, unix.as_secs() % 86_400);
    let mut year = 1970;
    while day >= days_of(year) {
        day -= days_of(year);
        year += 1;
    }
    let month_days = [31, days_of(year) - 337, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while day >= month_days[month] {
        day -= month_days[month];
        month += 1;
    }
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let millis = unix.subsec_millis();
    let time = format!("{hour:02}:{minute:02}:{second:02}.{millis:03}");
    ((year, month, day + 1), time)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All that the queue would write to stderr now.
    fn written(queue: &Queue) -> String {
        let mut output = Vec::new();
        queue.write_batch(&mut output);
        String::from_utf8(output).expect("lines of UTF-8")
    }

    #[test]
    fn lines_are_written_in_order() {
        let queue = Queue::new();
        let lines: Vec<String> = (0..100).map(|number| format!("line {number}\n")).collect();
        lines.iter().for_each(|line| queue.push(line));
        assert_eq!(written(&queue), lines.concat());
        assert_eq!(written(&queue), "");
    }

    #[test]
    fn lines_that_do_not_fit_are_counted_where_they_are_missing() {
        let queue = Queue::new();
        let half = "x".repeat(QUEUE_BYTES / 2);
        queue.push(&half);
        queue.push(&half);
        queue.push("too much\n");
        queue.push("\n");
        let first = written(&queue);
        let (lines, count) = first.split_at(QUEUE_BYTES);
        assert_eq!(lines, half.repeat(2));
        assert!(count.ends_with(" # 2 log lines were dropped: stderr was too slow\n"), "{count}");
        queue.push("later\n");
        assert_eq!(written(&queue), "later\n", "there is room again");
    }

    #[test]
    fn a_repeated_line_is_logged_once_a_second_and_counts_those_left_out() {
        let repeats = Repeats::none();
        let start = Instant::now();
        let admitted = [0, 1, 999, 1000, 1500, 3000]
            .map(|ms| repeats.admit(start + Duration::from_millis(ms)));
        assert_eq!(admitted, [Some(0), None, None, Some(2), None, Some(1)]);
    }

    #[test]
    fn a_line_longer_than_the_queue_is_counted_too() {
        let queue = Queue::new();
        queue.push(&"x".repeat(QUEUE_BYTES + 1));
        assert!(written(&queue).contains(" 1 log lines were dropped"));
    }

    /// A stderr that takes nothing until it is opened.
    struct Gate(&'static Mutex<Vec<u8>>);

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("the gate").write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_flush_returns_when_all_is_written_and_gives_up_on_a_stderr_that_is_stalled() {
        static STALLED: Queue = Queue::new();
        static OUTPUT: Mutex<Vec<u8>> = Mutex::new(Vec::new());
        let gate = OUTPUT.lock().expect("the gate");
        thread::spawn(|| STALLED.write_to(&mut Gate(&OUTPUT)));
        STALLED.push("one\n");
        STALLED.flush(Duration::from_millis(1));
        STALLED.push("two\n"); // does not wait either
        assert!(gate.is_empty());
        drop(gate);
        STALLED.flush(Duration::from_secs(60));
        assert_eq!(*OUTPUT.lock().expect("the gate"), b"one\ntwo\n");
    }

    #[test]
    fn a_line_has_the_format_of_redis_and_stays_one_line() {
        let time = utc(Duration::from_millis(1_795_912_860_123));
        let line = format_line(Level::Notice, &time, format_args!("Loading 'a\nb\u{7f}ü'"));
        let (process, rest) = line.split_once(":M ").expect("a role");
        assert_eq!(process, std::process::id().to_string());
        let (time, text) = rest.split_at("29 Nov 2026 00:41:00.123".len());
        assert!(time.contains(" 20") && time.contains(':') && time.contains('.'), "{time}");
        assert_eq!(text, " * Loading 'a\\nb\\u{7f}ü'\n");
    }

    #[test]
    fn dates_are_right_in_leap_years_and_at_the_turn_of_centuries() {
        for (seconds, expected) in [
            (0, "01 Jan 1970 00:00:00.007"),
            (951_782_399, "28 Feb 2000 23:59:59.007"),
            (951_782_400, "29 Feb 2000 00:00:00.007"),
            (951_868_800, "01 Mar 2000 00:00:00.007"),
            (1_735_689_599, "31 Dec 2024 23:59:59.007"),
            (1_795_912_860, "29 Nov 2026 00:41:00.007"),
            (4_107_542_400, "01 Mar 2100 00:00:00.007"),
        ] {
            assert_eq!(utc(Duration::new(seconds, 7_000_000)), expected);
        }
    }
}
