//! `LCS`: the longest common subsequence of two strings. The algorithm is in [`crate::text::lcs`]; here are
//! the options, the limits and the three forms of the reply.
//!
//! The command is described at <https://redis.io/docs/latest/commands/lcs/>.

use super::options::{OptionCursor, integer};
use super::spec::{Family, Outcome, read};
use crate::resp::{Args, CommandError, Reply};
use crate::store::{Access, ReadView};
use crate::text::lcs::{self, Run};

/// The command.
#[rustfmt::skip]
pub static FAMILY: Family = Family { group: "string", commands: &[
    read("lcs", "key1 key2 [LEN] [IDX] [MINMATCHLEN min-match-len] [WITHMATCHLEN]", lcs)
        .keys(1, 2, 1, "RO access")
        .doc("7.0.0", "O(N*M) where N and M are the lengths of the strings",
             "Finds the longest common subsequence of two strings."),
] };

#[derive(Default)]
struct LcsOptions {
    only_length: bool,
    indexes: bool,
    with_lengths: bool,
    least_length: i64,
}

impl LcsOptions {
    fn parse(args: Args) -> Result<LcsOptions, CommandError> {
        let mut options = LcsOptions::default();
        let mut words = OptionCursor::new(args, 3);
        while !words.is_done() {
            if words.take("LEN") {
                options.only_length = true;
            } else if words.take("IDX") {
                options.indexes = true;
            } else if words.take("WITHMATCHLEN") {
                options.with_lengths = true;
            } else if let Some(length) = words.take_value("MINMATCHLEN")? {
                options.least_length = integer(length)?;
            } else {
                return Err(CommandError::SYNTAX);
            }
        }
        if options.only_length && options.indexes {
            let text = "ERR If you want both the length and indexes, please just use IDX.";
            return Err(CommandError::new(text));
        }
        Ok(options)
    }
}

fn lcs(view: &ReadView, args: Args, reply: &mut Reply) -> Outcome {
    let string = |key| match view.string(key, Access::Use) {
        Ok(value) => Ok(value.unwrap_or_default()),
        Err(_) => Err(CommandError::new("ERR The specified keys must contain string values")),
    };
    let (first, second) = (string(&args[1]), string(&args[2])); // both count as looked up
    let (first, second) = (first?, second?);
    let options = LcsOptions::parse(args)?;
    check_size(first.len(), second.len(), view.string_limit())?;
    const NO_MEMORY: CommandError =
        CommandError::new("ERR Insufficient memory, failed allocating transient memory for LCS");
    let runs = lcs::runs(first, second).map_err(|_| NO_MEMORY)?;
    if options.indexes {
        reply_indexes(&runs, &options, reply);
    } else if options.only_length {
        reply.count(total(&runs));
    } else {
        let parts = runs.iter().rev().map(|run| &first[run.first..run.first + run.length]);
        reply.bulk(&parts.collect::<Vec<_>>().concat());
    }
    Ok(())
}

/// Redis's limits. Redis's table takes 4 bytes per cell and ours a 32nd of that, but filling it takes as
/// long, so the limits hold here too.
fn check_size(first: usize, second: usize, limit: usize) -> Outcome {
    if first.max(second) >= u32::MAX as usize - 1 {
        return Err(CommandError::new("ERR String too long for LCS"));
    }
    if 4 * (first as u128 + 1) * (second as u128 + 1) > limit as u128 {
        let text = "ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len";
        return Err(CommandError::new(text));
    }
    Ok(())
}

fn reply_indexes(runs: &[Run], options: &LcsOptions, reply: &mut Reply) {
    reply.map(2);
    reply.bulk(b"matches");
    let long = runs.iter().filter(|run| run.length as i64 >= options.least_length);
    reply.array(long.clone().count());
    for run in long {
        reply.array(if options.with_lengths { 3 } else { 2 });
        for start in [run.first, run.second] {
            reply.array(2);
            reply.count(start);
            reply.count(start + run.length - 1);
        }
        if options.with_lengths {
            reply.count(run.length);
        }
    }
    reply.bulk(b"len");
    reply.count(total(runs));
}

fn total(runs: &[Run]) -> usize {
    runs.iter().map(|run| run.length).sum()
}
