//! The slow log: the last commands that took at least `slowlog-log-slower-than` microseconds. The logs of
//! large requests and large replies are of the same kind.

use std::collections::VecDeque;
use std::sync::Mutex;

use super::lock;

/// How many arguments of a command are kept, and how many bytes of each; both as in Redis.
const ARGS_LIMIT: usize = 32;
const ARG_BYTES: usize = 128;

/// An entry: one slow or large command.
#[derive(Clone, Debug, PartialEq)]
pub struct Slow {
    /// The entry's number, which is never reused.
    pub id: u64,
    /// When the command ended: Unix time in seconds.
    pub at: u64,
    /// How many microseconds the command took, or how many bytes it or its reply had.
    pub amount: u64,
    /// The command and its arguments, shortened by [`shorten`].
    pub args: Vec<Vec<u8>>,
    /// The client's address.
    pub address: String,
    /// The client's name, from `CLIENT SETNAME`.
    pub name: Vec<u8>,
}

/// The last slow, or large, commands.
#[derive(Default)]
pub struct SlowLog(Mutex<Slows>);

#[derive(Default)]
struct Slows {
    last: VecDeque<Slow>,
    next_id: u64,
}

impl SlowLog {
    /// Adds an entry under the next number, then forgets the oldest entries beyond `limit`.
    pub fn add(&self, slow: Slow, limit: usize) {
        let mut slows = lock(&self.0);
        let id = slows.next_id;
        slows.next_id += 1;
        slows.last.push_front(Slow { id, ..slow });
        slows.last.truncate(limit);
    }

    /// Forgets the oldest entries beyond `limit`, after that has been lowered.
    pub fn shorten(&self, limit: usize) {
        let mut slows = lock(&self.0);
        let keep = limit.min(slows.last.len());
        let forgotten = slows.last.split_off(keep);
        drop(slows);
        drop(forgotten); // not under the lock: there may be very many
    }

    /// The last entries, at most `count`, the newest first.
    pub fn last(&self, count: usize) -> Vec<Slow> {
        lock(&self.0).last.iter().take(count).cloned().collect()
    }

    pub fn count(&self) -> usize {
        lock(&self.0).last.len()
    }

    pub fn clear(&self) {
        self.shorten(0);
    }
}

/// Cuts off long arguments, and leaves out the last of many, as Redis does.
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
