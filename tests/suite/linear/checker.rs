//! The search for an order: is there a sequence of the commands of a history in which each gets the reply
//! that it got, and which keeps the order of those that did not overlap?
//!
//! The algorithm is that of Wing and Gong, with the memoisation of Lowe: a depth-first search that appends
//! one command after the other, and never visits the same set of commands with the same state twice.

use std::collections::HashSet;
use std::fmt::Write;

use super::model::{Command, Span, State};
use crate::harness::Reply;

/// A command that a client has sent.
#[derive(Clone, Debug)]
pub(super) struct Op {
    pub(super) client: usize,
    pub(super) db: usize,
    pub(super) command: Command,
    /// When it was sent, in nanoseconds.
    pub(super) call: u64,
    /// When its reply was read. Without a reply, the last moment at which it may have taken effect.
    pub(super) end: u64,
    /// `None` if the connection was lost before: the command may have taken effect or not.
    pub(super) reply: Option<Reply>,
}

/// The commands that were appended so far, one bit each.
type Done = Vec<u64>;

fn is_done(done: &Done, index: usize) -> bool {
    done[index / 64] & (1 << (index % 64)) != 0
}

/// A point of the search: what was appended, and what is still to be tried after it.
struct Step {
    done: Done,
    /// The latest call among what was appended: nothing that ended before it may follow.
    latest_call: u64,
    /// The next commands, and the states after them. The last one is tried first.
    next: Vec<(usize, State)>,
}

/// The search gives up after so many steps: it takes exponential time if many commands have no reply.
const MOST_STEPS: usize = 300_000;

#[derive(Debug, PartialEq)]
pub(super) enum Verdict {
    /// An order explains the replies.
    Explained,
    /// None does. The listing of the history marks the longest sequence that was found.
    Unexplained(String),
    Undecided,
}

/// Looks for an order of the commands on one partition.
pub(super) fn check(history: &[Op]) -> Verdict {
    let done = vec![0; history.len().div_ceil(64)];
    let mut visited = HashSet::from([(done.clone(), State::default())]);
    let mut longest = done.clone();
    let mut steps = vec![Step::new(history, done, &State::default(), 0)];
    while let Some(step) = steps.last_mut() {
        let appended = |done: &Done| done.iter().map(|bits| bits.count_ones()).sum::<u32>();
        if appended(&step.done) > appended(&longest) {
            longest = step.done.clone();
        }
        let is_left = |(index, op): (usize, &Op)| op.reply.is_some() && !is_done(&step.done, index);
        if !history.iter().enumerate().any(is_left) {
            return Verdict::Explained;
        }
        if visited.len() > MOST_STEPS {
            return Verdict::Undecided;
        }
        let Some((index, state)) = step.next.pop() else {
            steps.pop();
            continue;
        };
        let mut done = step.done.clone();
        done[index / 64] |= 1 << (index % 64);
        let latest_call = step.latest_call.max(history[index].call);
        if visited.insert((done.clone(), state.clone())) {
            steps.push(Step::new(history, done, &state, latest_call));
        }
    }
    Verdict::Unexplained(listing(history, &longest))
}

impl Step {
    fn new(history: &[Op], done: Done, state: &State, latest_call: u64) -> Step {
        let left = || history.iter().enumerate().filter(|(index, _)| !is_done(&done, *index));
        // A command that was called after another one's reply comes after it.
        let first_end = left().filter(|(_, op)| op.reply.is_some()).map(|(_, op)| op.end).min();
        let first_end = first_end.unwrap_or(u64::MAX);
        let may_follow = |(_, op): &(usize, &Op)| op.call <= first_end && op.end >= latest_call;
        let mut candidates: Vec<(usize, &Op)> = left().filter(may_follow).collect();
        // Those that ended first are tried first, and those without a reply last.
        candidates.sort_by_key(|(_, op)| std::cmp::Reverse((op.reply.is_none(), op.end)));
        let mut next = Vec::new();
        for (index, op) in candidates {
            let span = Span { call: op.call, end: op.end };
            let outcomes = state.outcomes(op.db, &op.command, span).into_iter();
            let matching =
                outcomes.filter(|(_, reply)| op.reply.as_ref().is_none_or(|got| got == reply));
            next.extend(matching.map(|(state, _)| (index, state)));
        }
        Step { done, latest_call, next }
    }
}

fn listing(history: &[Op], longest: &Done) -> String {
    let mut text = String::from("no order explains these replies; + marks the longest sequence:\n");
    let mut sorted: Vec<(usize, &Op)> = history.iter().enumerate().collect();
    sorted.sort_by_key(|(_, op)| op.call);
    for (index, op) in sorted {
        let mark = if is_done(longest, index) { '+' } else { '-' };
        let us = |ns: u64| if ns == u64::MAX { "…".into() } else { (ns / 1000).to_string() };
        let reply = op.reply.as_ref().map_or("no reply".into(), Reply::to_string);
        writeln!(
            text,
            "{mark} {:>9}..{:<9} client {} in {}: {:?} → {reply}",
            us(op.call),
            us(op.end),
            op.client,
            op.db,
            op.command
        )
        .expect("write to a string");
    }
    text
}

#[test]
fn a_history_is_accepted_only_if_some_order_explains_it() {
    use Command::*;
    const MS: u64 = 1_000_000;
    let op = |call: u64, end: u64, command: Command, reply: &str| Op {
        client: 0,
        db: 0,
        command,
        call: call * MS,
        end: end * MS,
        reply: match reply {
            "?" => None,
            "nil" => Some(Reply::NullBulk),
            "nil*" => Some(Reply::NullArray),
            "OK" => Some(Reply::Simple("OK".into())),
            "OKs" => Some(Reply::Array(vec![Reply::Simple("OK".into())])),
            text => Some(match text.strip_prefix(':') {
                Some(number) => Reply::Integer(number.parse().expect("a number")),
                None => Reply::Bulk(text.into()),
            }),
        },
    };
    let set = |key, value: &str| Set(key, value.into(), None);
    let brief = |key, value: &str| Set(key, value.into(), Some(50));
    let both = || MSet(vec![(0, "1".into()), (1, "1".into())]);
    let exec =
        |seen: &str| Exec(vec![(0, Reply::Bulk(seen.into()))], vec![Set(0, "9".into(), None)]);
    let mut second = op(30, 40, Get(0), "1");
    second.db = 1;
    let cases: Vec<(&str, bool, Vec<Op>)> = vec![
        ("nothing", true, vec![]),
        ("a write and a read", true, vec![op(0, 10, set(0, "1"), "OK"), op(20, 30, Get(0), "1")]),
        ("a stale read", false, vec![op(0, 10, set(0, "1"), "OK"), op(20, 30, Get(0), "nil")]),
        ("an overlap", true, vec![op(0, 25, set(0, "1"), "OK"), op(20, 30, Get(0), "nil")]),
        (
            "two values of one moment",
            false,
            vec![op(0, 90, set(0, "1"), "OK"), op(20, 30, Get(0), "1"), op(40, 50, Get(0), "nil")],
        ),
        ("a lost increment", false, vec![op(0, 50, Incr(0), ":1"), op(0, 50, Incr(0), ":1")]),
        ("two increments", true, vec![op(0, 50, Incr(0), ":2"), op(0, 50, Incr(0), ":1")]),
        (
            "half an MSET",
            false,
            vec![op(0, 90, both(), "OK"), op(10, 20, Get(0), "1"), op(30, 40, Get(1), "nil")],
        ),
        (
            "a renamed key that is still there",
            false,
            vec![
                op(0, 10, set(0, "1"), "OK"),
                op(20, 30, Rename(0, 1), "OK"),
                op(40, 50, Get(1), "1"),
                op(60, 70, Get(0), "1"),
            ],
        ),
        (
            "a transaction although the watched key has changed",
            false,
            vec![
                op(0, 10, set(0, "1"), "OK"),
                op(20, 30, set(0, "2"), "OK"),
                op(40, 50, exec("1"), "OKs"),
            ],
        ),
        (
            "a transaction that is aborted",
            true,
            vec![
                op(0, 10, set(0, "1"), "OK"),
                op(20, 30, set(0, "2"), "OK"),
                op(40, 50, exec("1"), "nil*"),
                op(60, 70, Get(0), "2"),
            ],
        ),
        (
            "a write without a reply that took effect",
            true,
            vec![op(0, 50, set(0, "1"), "?"), op(60, 70, Get(0), "1")],
        ),
        (
            "a write without a reply that did not",
            true,
            vec![op(0, 50, set(0, "1"), "?"), op(60, 70, Get(0), "nil")],
        ),
        (
            "a write that takes effect after its end",
            false,
            vec![op(0, 50, set(0, "1"), "?"), op(60, 70, Get(0), "nil"), op(80, 90, Get(0), "1")],
        ),
        (
            "a key that expires",
            true,
            vec![op(0, 1, brief(0, "1"), "OK"), op(80, 90, Get(0), "nil")],
        ),
        (
            "a key that outlives its time",
            false,
            vec![op(0, 1, brief(0, "1"), "OK"), op(80, 90, Get(0), "1")],
        ),
        (
            "a key that expires too early",
            false,
            vec![op(0, 1, brief(0, "1"), "OK"), op(20, 30, Get(0), "nil")],
        ),
        (
            "an expired key that comes back",
            false,
            vec![op(0, 1, brief(0, "1"), "OK"), op(48, 49, Get(0), "nil"), op(50, 51, Get(0), "1")],
        ),
        (
            "swapped databases",
            true,
            vec![op(0, 10, set(0, "1"), "OK"), op(20, 25, SwapDb, "OK"), second],
        ),
        (
            "a flushed key",
            false,
            vec![op(0, 10, set(0, "1"), "OK"), op(20, 25, FlushAll, "OK"), op(30, 40, Get(0), "1")],
        ),
    ];
    for (what, is_good, history) in cases {
        match check(&history) {
            Verdict::Explained => assert!(is_good, "{what}"),
            verdict => assert!(!is_good && verdict != Verdict::Undecided, "{what}: {verdict:?}"),
        }
    }
}
