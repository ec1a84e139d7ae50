//! Keeps memory within `maxmemory`.
//!
//! Before a command that may use memory, and outside its locks, keys are evicted until there is room. That
//! takes a bounded time for each command; what is left to do the sweeper's thread does. A replay evicts
//! nothing: it does not come this way.
//!
//! The rules are Redis's: <https://redis.io/docs/latest/develop/reference/eviction/>.

use std::cmp::Reverse;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::commit::commit_removals;
use crate::commands::lookup::resolve;
use crate::commands::spec::{Flags, Nested, Outcome};
use crate::commands::{Command, Handler};
use crate::resp::CommandError;
use crate::session::{Server, Session};

/// For each of `maxmemory-samples`, so many keys are looked at.
const KEYS_PER_SAMPLE: usize = 64;

const OUT_OF_MEMORY: CommandError =
    CommandError::new("OOM command not allowed when used memory > 'maxmemory'.");

/// Makes room for the command if it may use memory.
///
/// # Errors
/// Memory is full, and there is no key that may be evicted.
#[inline(always)]
pub(super) fn make_room(server: &Server, session: &Session, command: &Command) -> Outcome {
    if !server.is_full() || server.evicts_nothing() || !may_use_memory(session, command) {
        return Ok(());
    }
    let tenacity = server.config.maxmemory_eviction_tenacity.load(Relaxed);
    evict_for(server, patience(tenacity))
}

fn may_use_memory(session: &Session, command: &Command) -> bool {
    let queued = session.multi.iter().flat_map(|multi| multi.queue.iter());
    let is_exec = matches!(command.handler, Handler::Nested(Nested::Exec));
    command.has(Flags::DENYOOM)
        || is_exec
            && queued.filter_map(|args| resolve(args).ok()).any(|row| row.has(Flags::DENYOOM))
}

/// How long a command may wait for evictions; `None` without a limit. As in Redis: half a millisecond by
/// default, then growing by 15 percent per step.
fn patience(tenacity: i64) -> Option<Duration> {
    let micros = match tenacity {
        ..=10 => 50.0 * tenacity as f64,
        100.. => return None,
        _ => 500.0 * 1.15f64.powi(tenacity as i32 - 10),
    };
    Some(Duration::from_secs_f64(micros / 1e6))
}

/// Evicts keys until memory is within its limit or the time is up.
///
/// # Errors
/// There is no key that may be evicted.
#[cold]
pub fn evict_for(server: &Server, patience: Option<Duration>) -> Outcome {
    let threshold_ms = server.config.latency_monitor_threshold.load(Relaxed);
    let outcome =
        server.stats.latency.timed("eviction-cycle", threshold_ms, || evict(server, patience));
    server.note_excess();
    outcome
}

fn evict(server: &Server, patience: Option<Duration>) -> Outcome {
    let started = Instant::now();
    let Some(policy) = server.config.eviction_policy() else { return Err(OUT_OF_MEMORY) };
    let samples = server.config.maxmemory_samples.load(Relaxed) as usize * KEYS_PER_SAMPLE;
    while server.is_full() {
        let log = |removals: &[_]| commit_removals(server, removals);
        let found = server.keyspace.evict(policy, samples, log, |garbage| server.discard(garbage));
        if !found && server.is_full() {
            return Err(OUT_OF_MEMORY);
        }
        if patience.is_some_and(|limit| started.elapsed() > limit) {
            break;
        }
    }
    Ok(())
}

/// Disconnects the clients that take most, while all together exceed `maxmemory-clients`.
pub fn evict_clients(server: &Server) {
    let limit = server.config.maxmemory_clients();
    if limit == 0 {
        return;
    }
    let mut all: Vec<_> =
        server.clients.all().into_iter().map(|client| (client.memory_bytes(), client)).collect();
    let mut total: usize = all.iter().map(|(bytes, _)| bytes).sum();
    all.sort_by_key(|(bytes, _)| Reverse(*bytes));
    for (bytes, client) in all.into_iter().filter(|(_, client)| !client.is_spared()) {
        if total as u64 <= limit {
            break;
        }
        server.kill(&client);
        server.stats.evicted_clients.add(1);
        total -= bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_waits_for_evictions_as_long_as_in_redis() {
        let micros = |tenacity| patience(tenacity).map(|time| time.as_micros());
        assert_eq!([0, 1, 10].map(micros), [Some(0), Some(50), Some(500)]);
        assert_eq!((micros(11), micros(100)), (Some(575), None));
    }
}
