//! Shortens a failing list of thousands of commands to the few that matter.

/// A shortened `list` that still fails. `first_failure` returns the index at which a list fails; for the
/// whole list that is `failed_at`.
///
/// It tries to leave out halves, then quarters, and so on down to single commands, until no single
/// command can be left out.
pub(super) fn shrink<T: Clone>(
    list: &[T],
    failed_at: usize,
    mut first_failure: impl FnMut(&[T]) -> Option<usize>,
) -> Vec<T> {
    let mut list = list[..list.len().min(failed_at + 1)].to_vec();
    let mut size = list.len().div_ceil(2).max(1);
    loop {
        let (before, mut at) = (list.len(), 0);
        while at < list.len() {
            let end = (at + size).min(list.len());
            let shorter = [&list[..at], &list[end..]].concat();
            match first_failure(&shorter) {
                Some(step) => {
                    list = shorter;
                    list.truncate(step + 1);
                }
                None => at = end,
            }
        }
        if size == 1 && list.len() == before {
            return list;
        }
        size = size.div_ceil(2);
    }
}

#[test]
fn only_the_commands_that_the_failure_needs_remain() {
    // It fails at 501 after 3 and 500; a 7 cancels the 3.
    let fails = |list: &[u32]| {
        let mut state = 0;
        list.iter().position(|&number| {
            state = match (number, state) {
                (3, _) => 1,
                (7, _) => 0,
                (500, 1) => 2,
                (501, 2) => return true,
                (_, state) => state,
            };
            false
        })
    };
    let all: Vec<u32> = (0..1000).map(|n| if n == 10 { 3 } else { n }).collect();
    let at = fails(&all).expect("it fails");
    assert_eq!(shrink(&all, at, fails), [3, 500, 501]);
    assert_eq!(shrink(&[1], 0, |_| Some(0)), []);
}
