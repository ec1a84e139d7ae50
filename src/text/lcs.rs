//! The longest common subsequence of two strings: what is left of both when as little as possible is
//! struck out of each. `LCS` answers it.
//!
//! The classic table says for each pair of prefixes how long theirs is, and the way back through it
//! finds the bytes. Of several subsequences of the greatest length Redis answers the one to which its
//! way back leads, so ours takes the same turns: where two bytes differ, it goes on in the string whose
//! shorter prefix keeps the longer subsequence, and in the second if both do.
//!
//! That turn is all that is kept of a cell: one bit, where Redis keeps 32. So what many clients
//! compute at once stays small, and the table in the cache.

/// Bytes that stand in both strings, one after the other in each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Where they begin in the first string.
    pub first: usize,
    /// Where they begin in the second.
    pub second: usize,
    /// How many there are.
    pub length: usize,
}

/// The bytes of the longest common subsequence, the last run of them first.
#[must_use]
pub fn runs(first: &[u8], second: &[u8]) -> Vec<Run> {
    // Row by row through the longer string, so that a row is as short as can be.
    let swapped = second.len() > first.len();
    let (rows, columns) = if swapped { (second, first) } else { (first, second) };
    let turns = Turns::compute(rows, columns, swapped);
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
    runs
}

/// For each pair of bytes that differ, where the way back goes on.
struct Turns {
    columns: usize,
    /// One bit a cell: set if it goes to the row above, and not to the column before.
    up: Vec<u64>,
}

impl Turns {
    /// `swapped`: the rows are the second string, in which the way goes on after a tie.
    fn compute(rows: &[u8], columns: &[u8], swapped: bool) -> Turns {
        let cells = rows.len() * columns.len();
        let mut up = Vec::with_capacity(cells.div_ceil(64));
        let (mut bits, mut filled) = (0u64, 0);
        // The row above, which becomes this one cell by cell.
        let mut lengths = vec![0u32; columns.len()];
        for row in rows {
            let (mut before, mut above_before) = (0, 0);
            for (column, length) in columns.iter().zip(&mut lengths) {
                let above = *length;
                // Without a branch, which no processor could foresee.
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
        Turns { columns: columns.len(), up }
    }

    /// Of the cell of the last bytes of two prefixes that are so long.
    fn goes_up(&self, row: usize, column: usize) -> bool {
        let cell = (row - 1) * self.columns + column - 1;
        self.up[cell / 64] >> (cell % 64) & 1 == 1
    }
}

#[cfg(test)]
mod tests {
    use super::{Run, runs};

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

    /// What Redis answers where there are several answers, whichever string is the longer one.
    #[test]
    fn a_tie_is_broken_as_redis_does() {
        assert_eq!(runs(b"ab", b"ba"), [run(1, 0, 1)]);
        assert_eq!(runs(b"ba", b"ab"), [run(1, 0, 1)]);
        assert_eq!(runs(b"ab", b"bac"), [run(1, 0, 1)]);
        assert_eq!(runs(b"bac", b"ab"), [run(1, 0, 1)]);
    }

    /// More cells than a word has bits, in rows that do not end with one.
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
