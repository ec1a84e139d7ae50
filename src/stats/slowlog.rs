//! The slow log: the last commands that took longer than `slowlog-log-slower-than`.

use std::collections::VecDeque;
use std::sync::Mutex;

use super::lock;

/// How many arguments of a command are kept, and how much of each: as in Redis.
const ARGS_LIMIT: usize = 32;
const ARG_BYTES: usize = 128;

/// A command that took long.
#[derive(Clone, Debug, PartialEq)]
pub struct Slow {
    /// Its number, never given twice.
    pub id: u64,
    /// When it had ended: Unix time in seconds.
    pub at: u64,
    /// How long it took.
    pub microseconds: u64,
    /// The command and its arguments; long ones and many cut off.
    pub args: Vec<Vec<u8>>,
    /// Where its client is connected from.
    pub address: String,
    /// The name that the client has given itself.
    pub name: Vec<u8>,
}

/// The last slow commands.
#[derive(Default)]
pub struct SlowLog(Mutex<Slows>);

#[derive(Default)]
struct Slows {
    last: VecDeque<Slow>,
    next_id: u64,
}

impl SlowLog {
    /// Enters a command under the next number, and forgets the oldest beyond `limit`.
    pub fn add(&self, slow: Slow, limit: usize) {
        let mut slows = lock(&self.0);
        let id = slows.next_id;
        slows.next_id += 1;
        slows.last.push_front(Slow { id, ..slow });
        slows.last.truncate(limit);
    }

    /// Forgets the oldest beyond `limit`, which has been lowered.
    pub fn shorten(&self, limit: usize) {
        let mut slows = lock(&self.0);
        let keep = limit.min(slows.last.len());
        let forgotten = slows.last.split_off(keep);
        drop(slows);
        drop(forgotten); // not under the lock: there may be very many
    }

    /// The last so many, the newest first.
    pub fn last(&self, count: usize) -> Vec<Slow> {
        lock(&self.0).last.iter().take(count).cloned().collect()
    }

    /// How many are kept.
    pub fn len(&self) -> usize {
        lock(&self.0).last.len()
    }

    /// Whether none is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets all.
    pub fn clear(&self) {
        self.shorten(0);
    }
}

/// What is kept of the arguments.
pub fn shorten<'a>(args: impl ExactSizeIterator<Item = &'a [u8]>) -> Vec<Vec<u8>> {
    let count = args.len();
    let kept = if count > ARGS_LIMIT { ARGS_LIMIT - 1 } else { count };
    let shorten = |arg: &[u8]| match arg.len().checked_sub(ARG_BYTES) {
        None | Some(0) => arg.to_vec(),
        Some(more) => [&arg[..ARG_BYTES], format!("... ({more} more bytes)").as_bytes()].concat(),
    };
    let mut shortened: Vec<Vec<u8>> = args.take(kept).map(shorten).collect();
    if count > kept {
        shortened.push(format!("... ({} more arguments)", count - kept).into_bytes());
    }
    shortened
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_shortened_in_length_and_in_number() {
        let (whole, long) = ([b'x'; 128], [b'x'; 129]);
        let args: [&[u8]; 2] = [&whole, &long];
        let shortened = shorten(args.into_iter());
        assert_eq!(shortened[0], whole);
        assert_eq!(shortened[1], [&whole, &b"... (1 more bytes)"[..]].concat());
        let many = vec![&b"a"[..]; 33];
        assert_eq!(shorten(many[..32].iter().copied()).len(), 32);
        let shortened = shorten(many.iter().copied());
        assert_eq!((shortened.len(), &shortened[31][..]), (32, &b"... (2 more arguments)"[..]));
    }
}
