//! The longest common subsequence of two strings, for the [`LCS`](https://redis.io/docs/latest/commands/lcs/)
//! command.
//!
//! This is the textbook dynamic program: a table holds the length of the longest common subsequence for each
//! pair of prefixes, and tracing back through it from the end finds the bytes. Where several subsequences
//! have the greatest length, the reply depends on the path of the trace, so ours takes the same path as
//! Redis: where two bytes differ, it shortens the string that keeps the longer subsequence, and the second
//! string on a tie.
//!
//! A cell only stores that decision: one bit, where Redis stores a length of 32 bits. So the table fits in
//! the cache, and many clients can run `LCS` at once.

use std::collections::TryReserveError;

/// Consecutive bytes that both strings have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Their offset in the first string.
    pub first: usize,
    /// Their offset in the second string.
    pub second: usize,
    /// The number of bytes.
    pub length: usize,
}

/// The runs that make up the longest common subsequence, last run first.
///
/// # Errors
/// There is not enough memory for the table.
pub fn runs(first: &[u8], second: &[u8]) -> Result<Vec<Run>, TryReserveError> {
    // The longer string gives the rows, so that a row is as short as possible.
    let swapped = second.len() > first.len();
    let (rows, columns) = if swapped { (second, first) } else { (first, second) };
    let turns = Turns::compute(rows, columns, swapped)?;
    let mut runs: Vec<Run> = Vec::new();
    let mut adjoins = false;
    let (mut row, mut column) = (rows.len(), columns.len());
    while row > 0 && column > 0 {
        let is_match = rows[row - 1] == columns[column - 1];
        if is_match {
            (row, column) = (row - 1, column - 1);
            let (first, second) = if swapped { (column, row) } else { (row, column) };
            match runs.last_mut().filter(|_| adjoins) {
                Some(run) => *run = Run { first, second, length: run.length + 1 },
                None => runs.push(Run { first, second, length: 1 }),
            }
        } else if turns.goes_up(row, column) {
            row -= 1;
        } else {
            column -= 1;
        }
        adjoins = is_match;
    }
    Ok(runs)
}

/// For each pair of bytes that differ, where the trace goes next.
struct Turns {
    columns: usize,
    /// One bit per cell: set for the row above, clear for the column before.
    up: Vec<u64>,
}

impl Turns {
    /// `swapped` means that the rows are the second string, which is the one to shorten on a tie.
    fn compute(rows: &[u8], columns: &[u8], swapped: bool) -> Result<Turns, TryReserveError> {
        let cells = rows.len() * columns.len();
        let mut up = Vec::new();
        up.try_reserve_exact(cells / 64 + 1)?;
        let (mut bits, mut filled) = (0u64, 0);
        // The lengths of the row above, overwritten cell by cell with those of this row.
        let mut lengths = vec![0u32; columns.len()];
        for row in rows {
            let (mut before, mut above_before) = (0, 0);
            for (column, length) in columns.iter().zip(&mut lengths) {
                let above = *length;
                // Branch-free: a branch on the bytes would be unpredictable.
                *length = before.max(above).max(above_before + u32::from(row == column));
                bits |= u64::from(above + u32::from(swapped) > before) << filled;
                filled += 1;
                if filled == 64 {
                    up.push(bits);
                    (bits, filled) = (0, 0);
                }
                (before, above_before) = (*length, above);
            }
        }
        up.push(bits);
        Ok(Turns { columns: columns.len(), up })
    }

    /// `row` and `column` are the lengths of the two prefixes, at least 1.
    fn goes_up(&self, row: usize, column: usize) -> bool {
        let cell = (row - 1) * self.columns + column - 1;
        self.up[cell / 64] >> (cell % 64) & 1 == 1
    }
}

#[cfg(test)]
mod tests {
    use super::Run;

    fn runs(first: &[u8], second: &[u8]) -> Vec<Run> {
        super::runs(first, second).unwrap_or_default()
    }

    fn run(first: usize, second: usize, length: usize) -> Run {
        Run { first, second, length }
    }

    #[test]
    fn the_last_run_comes_first() {
        assert_eq!(runs(b"ohmytext", b"mynewtext"), [run(4, 5, 4), run(2, 0, 2)]);
        assert_eq!(runs(b"mynewtext", b"ohmytext"), [run(5, 4, 4), run(0, 2, 2)]);
        assert_eq!(runs(b"same", b"same"), [run(0, 0, 4)]);
        assert_eq!(runs(b"abc", b"xyz"), []);
        assert_eq!(runs(b"", b"xyz"), []);
        assert_eq!(runs(b"", b""), []);
    }

    #[test]
    fn a_tie_is_broken_as_in_redis_whichever_string_is_longer() {
        assert_eq!(runs(b"ab", b"ba"), [run(1, 0, 1)]);
        assert_eq!(runs(b"ba", b"ab"), [run(1, 0, 1)]);
        assert_eq!(runs(b"ab", b"bac"), [run(1, 0, 1)]);
        assert_eq!(runs(b"bac", b"ab"), [run(1, 0, 1)]);
    }

    /// The table has many words of bits, and the ends of its rows are not the ends of words.
    #[test]
    fn a_long_subsequence_is_found() {
        let first: Vec<u8> = (0..97u8).collect();
        let second: Vec<u8> = (0..97u8).filter(|byte| byte % 3 != 0).collect();
        let found = runs(&first, &second);
        assert_eq!(found.iter().map(|run| run.length).sum::<usize>(), second.len());
        assert_eq!(found.first(), Some(&run(94, 62, 2)));
        assert_eq!(found.last(), Some(&run(1, 0, 2)));
    }
}
