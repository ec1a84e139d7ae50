//! How many descriptors the process can open. Each client takes one, and so does each open file: without some
//! in reserve, clients could take them all, and the log could not be rewritten.
//!
//! The standard library cannot ask for the limit, so this counts: it opens as many as are wanted, and closes
//! them again.

use std::fs::File;

/// Kept for files, as in Redis: a rewrite needs the most, eight at a time.
const FOR_FILES: usize = 32;
/// More than anybody needs, and few enough to be counted in half a second.
const MOST: usize = 1 << 20;

/// How many more descriptors can be opened, but not more than are wanted. For a moment they are open.
fn available(wanted: usize) -> usize {
    let Ok(first) = File::open("/dev/null") else { return 0 };
    let others = std::iter::repeat_with(|| first.try_clone()).take(wanted.min(MOST) - 1);
    let opened = 1 + others.map_while(Result::ok).collect::<Vec<_>>().len();
    if opened == MOST { wanted } else { opened }
}

/// How many clients there can be besides those that there are, but not more than are wanted.
pub fn for_clients(wanted: usize) -> usize {
    available(wanted.saturating_add(FOR_FILES)).saturating_sub(FOR_FILES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_are_counted_than_are_wanted_and_all_are_closed_again() {
        for _ in 0..100 {
            assert_eq!(available(50), 50);
            assert_eq!(for_clients(18), 18);
        }
    }
}
