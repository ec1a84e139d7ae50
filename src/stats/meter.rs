//! What each connection has counted, and the sums over all connections.
//!
//! A connection counts in its own [`Meter`]. Only one thread at a time writes to it, so a counter needs no
//! atomic addition, and clients that call the same command do not share a cache line. Counters are summed
//! when they are read ([`Meters::totals`]).
//!
//! Invariants: each count is in one place, either in the meter of a live connection or in the sum for
//! the connections that have ended. A command is counted before its reply is sent, so a client that has seen
//! the reply finds the command counted.
//!
//! Lock: the list of meters. It is below all other locks, and held for a walk over the list.

use std::collections::BTreeMap;
use std::iter::successors;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock};

use super::{CommandId, lock};

/// Calls that take fewer microseconds, almost all, are counted per connection for the histogram of their
/// command.
pub(super) const BRIEF_US: usize = 8;

/// A counter that one thread at a time writes to, while any thread may read it.
#[derive(Default)]
pub struct OwnCounter(AtomicU64);

impl OwnCounter {
    /// Adds to the count. Calls from two threads must be ordered by a lock.
    #[inline]
    pub fn add(&self, more: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(more), Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// What one connection has counted since it was accepted. It is small: a connection uses few commands.
#[derive(Default)]
pub struct Meter {
    pub received: OwnCounter,
    pub sent: Arc<OwnCounter>,
    hits: OwnCounter,
    misses: OwnCounter,
    /// Commands that changed data.
    pub changes: OwnCounter,
    slots: Link,
}

/// The commands that a connection has used are a linked list, which only grows.
type Link = OnceLock<Box<Slot>>;

struct Slot {
    command: CommandId,
    counts: PerCommand<OwnCounter>,
    next: Link,
}

/// The counts of one command: those of one connection (`C` is [`OwnCounter`]), or the totals (`u64`).
#[derive(Clone, Default)]
pub struct PerCommand<C = u64> {
    /// How often it was executed.
    pub calls: C,
    /// How long that took altogether.
    pub nanoseconds: C,
    /// How often it was executed and replied with an error.
    pub failed: C,
    /// How often it was refused before it was executed.
    pub rejected: C,
    /// Calls that took 0, 1, 2, … whole microseconds, counted while `latency-tracking` is on.
    pub(super) brief: [C; BRIEF_US],
}

impl Meter {
    /// A new meter. `sent` is the counter in which the connection's outbox counts bytes.
    pub fn new(sent: Arc<OwnCounter>) -> Meter {
        Meter { sent, ..Meter::default() }
    }

    /// Counts keys that a command looked up: those it found, and those it did not find.
    #[inline]
    pub fn looked_up(&self, (hits, misses): (u32, u32)) {
        self.hits.add(hits.into());
        self.misses.add(misses.into());
    }

    /// How many commands it has executed, those inside transactions included.
    pub fn calls(&self) -> u64 {
        let slots = successors(self.slots.get(), |slot| slot.next.get());
        slots.map(|slot| slot.counts.calls.get()).sum()
    }

    /// The counters of one command.
    pub(super) fn of(&self, command: CommandId) -> &PerCommand<OwnCounter> {
        let new = || {
            let (counts, next) = (PerCommand::default(), Link::default());
            Box::new(Slot { command, counts, next })
        };
        let mut slot = self.slots.get_or_init(new);
        while slot.command != command {
            slot = slot.next.get_or_init(new);
        }
        &slot.counts
    }
}

/// The sums over all connections, since the server started or since `CONFIG RESETSTAT`.
#[derive(Clone, Default)]
pub struct Totals {
    /// Bytes received from clients.
    pub received: u64,
    /// Bytes sent to clients.
    pub sent: u64,
    /// Keys that a command that reads found.
    pub hits: u64,
    /// Keys that a command that reads did not find.
    pub misses: u64,
    /// The counts of each command that was ever called.
    pub commands: BTreeMap<CommandId, PerCommand>,
}

impl Totals {
    /// How many commands were executed, those inside transactions included.
    pub fn calls(&self) -> u64 {
        self.commands.values().map(|counts| counts.calls).sum()
    }

    /// Adds a connection's counts, or subtracts them.
    fn apply(&mut self, meter: &Meter, operation: fn(u64, u64) -> u64) {
        let apply = |total: &mut u64, counter: &OwnCounter| {
            *total = operation(*total, counter.get());
        };
        apply(&mut self.received, &meter.received);
        apply(&mut self.sent, &meter.sent);
        apply(&mut self.hits, &meter.hits);
        apply(&mut self.misses, &meter.misses);
        for slot in successors(meter.slots.get(), |slot| slot.next.get()) {
            let (total, counts) = (self.commands.entry(slot.command).or_default(), &slot.counts);
            apply(&mut total.calls, &counts.calls);
            apply(&mut total.nanoseconds, &counts.nanoseconds);
            apply(&mut total.failed, &counts.failed);
            apply(&mut total.rejected, &counts.rejected);
            total
                .brief
                .iter_mut()
                .zip(&counts.brief)
                .for_each(|(total, brief)| apply(total, brief));
        }
    }
}

/// The meters of all connections, by the connections' ids.
#[derive(Default)]
pub struct Meters(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    live: BTreeMap<u64, Arc<Meter>>,
    /// The counts of connections that have ended, minus what the live ones had counted at the last reset.
    /// A difference below zero wraps, and is right again once the counts of the live ones are added.
    base: Totals,
    /// The changes of connections that have ended.
    changes: u64,
}

impl Meters {
    /// Registers a connection's meter.
    pub fn register(&self, id: u64, meter: Arc<Meter>) {
        lock(&self.0).live.insert(id, meter);
    }

    /// Adds the counts of a connection that has ended. No thread may write to its meter any more.
    pub fn deregister(&self, id: u64) {
        let mut inner = lock(&self.0);
        if let Some(meter) = inner.live.remove(&id) {
            inner.changes += meter.changes.get();
            inner.base.apply(&meter, u64::wrapping_add);
        }
    }

    /// The sums over all connections, live and ended.
    pub fn totals(&self) -> Totals {
        let inner = lock(&self.0);
        let mut totals = inner.base.clone();
        inner.live.values().for_each(|meter| totals.apply(meter, u64::wrapping_add));
        totals
    }

    /// How many commands have changed data since the server started. A reset does not touch it.
    pub fn changes(&self) -> u64 {
        let inner = lock(&self.0);
        inner.changes + inner.live.values().map(|meter| meter.changes.get()).sum::<u64>()
    }

    /// Starts again from zero.
    pub(super) fn reset(&self) {
        let mut inner = lock(&self.0);
        let mut base = Totals::default();
        inner.live.values().for_each(|meter| base.apply(meter, u64::wrapping_sub));
        inner.base = base;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(meters: &Meters) -> (u64, u64, u64, Vec<(CommandId, u64, u64)>) {
        let totals = meters.totals();
        let of = |(command, counts): (&CommandId, &PerCommand)| {
            (*command, counts.calls, counts.brief.iter().sum())
        };
        (totals.received, totals.hits, totals.calls(), totals.commands.iter().map(of).collect())
    }

    #[test]
    fn each_count_is_summed_once_while_the_connection_lives_and_after_it_has_ended() {
        let meters = Meters::default();
        let (first, second) = (Arc::new(Meter::default()), Arc::new(Meter::default()));
        meters.register(1, first.clone());
        meters.register(2, second.clone());
        for (meter, command) in [(&first, 7), (&first, 3), (&first, 7), (&second, 7)] {
            meter.received.add(10);
            meter.looked_up((1, 0));
            meter.of(command).calls.add(1);
            meter.of(command).brief[0].add(1);
        }
        let expected = (40, 4, 4, vec![(3, 1, 1), (7, 3, 3)]);
        assert_eq!(counted(&meters), expected);
        meters.deregister(1);
        meters.deregister(1);
        assert_eq!(counted(&meters), expected);
    }

    #[test]
    fn a_reset_forgets_what_live_connections_have_counted_and_no_more() {
        let meters = Meters::default();
        let meter = Arc::new(Meter::default());
        meters.register(1, meter.clone());
        let count = || {
            meter.received.add(5);
            meter.of(7).calls.add(2);
        };
        count();
        meters.reset();
        assert_eq!(counted(&meters), (0, 0, 0, vec![(7, 0, 0)]));
        count();
        assert_eq!(counted(&meters), (5, 0, 2, vec![(7, 2, 0)]));
        meters.deregister(1);
        assert_eq!(counted(&meters), (5, 0, 2, vec![(7, 2, 0)]));
        meters.reset();
        assert_eq!(counted(&meters), (0, 0, 0, vec![]));
    }
}
