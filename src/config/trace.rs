//! `--trace`: what each command does on its way, a line per step with the function that takes it, for people
//! who learn how the server works.
//!
//! The lines go to stderr, in the order of the steps. They show all that clients send, passwords too. When
//! tracing is off, a step costs reading one flag.

use std::cell::Cell;
use std::fmt::Arguments;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::logger;

/// A line quotes at most this many bytes.
const QUOTED_BYTES: usize = 30;

static ON: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// The client that this thread serves; 0 for none.
    static CLIENT: Cell<u64> = const { Cell::new(0) };
}

/// Traces a step: `trace!("Keyspace::write", "locks shard {index}")`.
macro_rules! trace {
    ($function:literal, $($text:tt)+) => {
        if $crate::config::trace::is_on() {
            $crate::config::trace::step($function, format_args!($($text)+));
        }
    };
}
pub(crate) use trace;

/// Traces from now on.
pub fn enable() {
    ON.store(true, Relaxed);
}

/// Whether steps are traced.
#[inline(always)]
pub(crate) fn is_on() -> bool {
    ON.load(Relaxed)
}

/// From now on this thread serves the client with that id.
pub(crate) fn set_client(id: u64) {
    CLIENT.set(id);
}

/// Writes a line, if this thread serves a client.
#[cold]
pub(crate) fn step(function: &str, text: Arguments) {
    let client = CLIENT.get();
    if client > 0 {
        logger::log_unstamped(format_args!("[client {client}] {function:<23} {text}"));
    }
}

/// Bytes as a line quotes them: escaped, and cut off where they are long.
pub(crate) fn quoted(bytes: &[u8]) -> String {
    let dots = if bytes.len() > QUOTED_BYTES { "…" } else { "" };
    format!("{}{dots}", bytes[..bytes.len().min(QUOTED_BYTES)].escape_ascii())
}
