//! The hit rate of a cache with the same `maxmemory`: a client reads the keys of a trace, and sets those that
//! it does not find.
//!
//! All servers get the same trace, side by side and at one pace, because LRU clocks count seconds. The first
//! third of the requests fills the cache, and is not counted.

use std::thread;
use std::time::{Duration, Instant};

use crate::load::{get, set_of_any_size};
use crate::rng::Rng;
use crate::servers::{BY_KIND, Kind, Server};

/// What is measured on a trace of this size.
#[derive(Clone, Copy)]
pub(crate) struct Cache {
    pub(crate) maxmemory: &'static str,
    pub(crate) requests: usize,
}

pub(crate) const POLICIES: [&str; 2] = ["allkeys-lru", "allkeys-lfu"];

/// A trace: its name, and the key that the request with this number asks for.
pub(crate) type Trace = (&'static str, fn(usize, &mut Rng) -> usize);

pub(crate) const TRACES: &[Trace] = &[
    ("Zipf", |_, random| zipf(random)),
    ("Zipf, 30 % scans", |number, random| match random.below(10) {
        0..3 => ONCE + number,
        _ => zipf(random),
    }),
    // The newest key is the most popular; for each ten requests there is a new one.
    ("popularity that shifts", |number, random| KEYS + number / 10 - zipf(random)),
];

/// The number of keys among which the popular ones are.
const KEYS: usize = 2_000_000;
/// From here on, keys come once.
const ONCE: usize = 1_000_000_000;
/// The seed of every trace.
const SEED: u64 = 7;
/// Requests in a pipeline, and the time from one to the next: 100,000 requests in a second.
const BATCH: usize = 100;
const PACE: Duration = Duration::from_millis(1);

/// A number from 1 to [`KEYS`], `k` with a probability in proportion to ln(1 + 1/k), which is nearly 1/k.
fn zipf(random: &mut Rng) -> usize {
    let part = random.below(1 << 53) as f64 / (1u64 << 53) as f64;
    ((KEYS as f64 + 1.0).powf(part) as usize).min(KEYS)
}

/// The hit rates of new servers of these kinds, in percent.
pub(crate) fn hit_rates(
    kinds: &[Kind],
    policy: &str,
    trace: Trace,
    cache: Cache,
) -> [Option<f64>; BY_KIND] {
    let mut rates = [None; BY_KIND];
    thread::scope(|scope| {
        let start = |kind| scope.spawn(move || hit_rate(kind, policy, trace, cache));
        let clients: Vec<_> = kinds.iter().map(|&kind| (kind, start(kind))).collect();
        for (kind, client) in clients {
            rates[kind as usize] = Some(client.join().expect("a client failed"));
        }
    });
    rates
}

fn hit_rate(kind: Kind, policy: &str, (_, key): Trace, cache: Cache) -> f64 {
    let server = Server::start(kind, "everysec");
    let mut client = server.connect();
    for setting in
        [["appendonly", "no"], ["maxmemory-policy", policy], ["maxmemory", cache.maxmemory]]
    {
        let answer = client.ask(&["CONFIG", "SET", setting[0], setting[1]]);
        assert_eq!(answer.expect("an answer"), "+OK", "{setting:?}");
    }
    let mut random = Rng::new(SEED);
    let (mut misses, mut counted) = (0, 0);
    let mut next = Instant::now();
    for first in (0..cache.requests).step_by(BATCH) {
        let keys: Vec<usize> =
            (first..first + BATCH).map(|number| key(number, &mut random)).collect();
        let reads: Vec<u8> = keys.iter().flat_map(|&key| get(key)).collect();
        let found = client.find(&reads, keys.len());
        let mut missing: Vec<usize> =
            keys.into_iter().zip(found).filter(|(_, found)| !found).map(|(key, _)| key).collect();
        // The second request for a key in one pipeline would find it, had the client waited.
        missing.sort_unstable();
        missing.dedup();
        if first >= cache.requests / 3 {
            misses += missing.len();
            counted += BATCH;
        }
        let writes: Vec<u8> = missing.iter().flat_map(|&key| set_of_any_size(key)).collect();
        client.send(&writes, missing.len());
        // A batch that took too long is not made up for: hurrying would be another load.
        next = Instant::now().max(next + PACE);
        thread::sleep(next - Instant::now());
    }
    100.0 - misses as f64 / counted as f64 * 100.0
}
