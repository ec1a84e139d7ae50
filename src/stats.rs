//! Counters that `INFO` shows. They only ever grow; nothing waits for them.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A count of things that happened since the server started.
#[derive(Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Counts so many more. Hot paths count for themselves and add when they reply.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Relaxed);
    }

    /// How many there were.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// What is counted.
#[derive(Default)]
pub struct Stats {
    /// Connections accepted.
    pub connections: Counter,
    /// Connections refused, because there were `maxclients` already or no thread could be had.
    pub rejected_connections: Counter,
    /// Commands carried out.
    pub commands: Counter,
    /// Keys removed because their deadline had passed.
    pub expired_keys: Counter,
    /// Fields removed because their deadline had passed.
    pub expired_fields: Counter,
    /// Bytes received from clients.
    pub input_bytes: Counter,
    /// Bytes sent to clients.
    pub output_bytes: Counter,
}
