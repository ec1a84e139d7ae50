//! The names by which clients call commands: those of the table, except where `rename-command` changes them.
//!
//! Renaming concerns calls alone. Rules of users, statistics, and the log use the names of the table, so a
//! log can be replayed under any configuration. A process has one table of commands, so the names are set
//! once, before it serves.

use std::cell::Cell;
use std::sync::{LazyLock, OnceLock};

use super::{Command, all};
use crate::config::Rename;

/// The slots of the table of names: a power of two, and enough that most names have a slot of their own.
const SLOTS: usize = 1024;

type Named = (&'static [u8], &'static Command);

/// The names of the table.
static ORIGINAL: LazyLock<Names> = LazyLock::new(|| Names::new(original()));
/// The names that clients use instead of those, if any command is renamed.
static CHANGED: OnceLock<Names> = OnceLock::new();

/// Names with open addressing; a `HashMap` would need a copy of each searched name in small letters. All
/// names are ours or the operator's, so no client can make them collide.
struct Names(Vec<Option<Named>>);

impl Names {
    fn new(names: Vec<Named>) -> Names {
        let mut table = vec![None; SLOTS];
        for named in names {
            let free = slots(named.0).find(|&slot| table[slot].is_none());
            free.into_iter().for_each(|slot| table[slot] = Some(named));
        }
        Names(table)
    }

    fn search(&self, name: &[u8]) -> Option<Named> {
        let mut found = slots(name).map_while(|slot| self.0[slot]);
        found.find(|(known, _)| name.eq_ignore_ascii_case(known))
    }
}

fn original() -> Vec<Named> {
    all().map(|(_, row)| (row.name.as_bytes(), row)).collect()
}

/// Changes names, in this order. A command whose new name is empty cannot be called any more.
///
/// # Errors
/// Redis's texts: there is no command of that name (any more), or there is one of the new name.
pub fn rename(renames: &[Rename]) -> Result<(), String> {
    let mut names = original();
    for Rename { from, to } in renames {
        let place = names.iter().position(|(name, _)| from.eq_ignore_ascii_case(name));
        let failed = |why: &str| format!("can't rename '{}': {why}", from.escape_ascii());
        let (_, row) =
            names.remove(place.ok_or_else(|| failed("No such command in rename-command"))?);
        if names.iter().any(|(name, _)| to.eq_ignore_ascii_case(name)) {
            return Err(failed("Target command name already exists"));
        }
        if !to.is_empty() {
            names.push((to.clone().leak(), row));
        }
    }
    if !renames.is_empty() {
        CHANGED.set(Names::new(names)).map_err(|_| "commands are renamed already")?;
    }
    Ok(())
}

/// Whether any command is renamed.
pub fn are_changed() -> bool {
    CHANGED.get().is_some()
}

/// Finds a command, not a subcommand, by the name that clients use, in letters of any case. A client often
/// sends the same command again, so each thread remembers the last one.
#[inline]
pub fn find(name: &[u8]) -> Option<&'static Command> {
    thread_local! {
        static LAST: Cell<Option<Named>> = const { Cell::new(None) };
    }
    let is_it = |(known, _): &Named| name.eq_ignore_ascii_case(known);
    let named = LAST.get().filter(is_it).or_else(|| {
        let found = CHANGED.get().unwrap_or(&ORIGINAL).search(name);
        found.inspect(|named| LAST.set(Some(*named)))
    });
    named.map(|(_, row)| row)
}

/// Finds a command by its name in the table, which is the one that the log uses.
pub fn find_original(name: &[u8]) -> Option<&'static Command> {
    if are_changed() { ORIGINAL.search(name).map(|(_, row)| row) } else { find(name) }
}

/// The commands that clients can call, with their groups, in the order of the table.
pub fn callable() -> impl Iterator<Item = (&'static str, &'static Command)> {
    let names = CHANGED.get();
    let has_name = move |row: &Command| {
        names.is_none_or(|Names(all)| all.iter().flatten().any(|(_, named)| named.id == row.id))
    };
    all().filter(move |(_, row)| has_name(row))
}

/// The slots to try for a name: they begin at its hash (FNV-1a, regardless of case).
fn slots(name: &[u8]) -> impl Iterator<Item = usize> {
    let step =
        |hash: u64, byte: &u8| (hash ^ u64::from(byte | 0x20)).wrapping_mul(0x0100_0000_01b3);
    let hash = name.iter().fold(0xcbf2_9ce4_8422_2325, step);
    let first = (hash ^ (hash >> 32)) as usize;
    (first..first.saturating_add(SLOTS)).map(|slot| slot % SLOTS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_found_in_letters_of_any_case_and_only_by_its_whole_name() {
        assert_eq!(find(b"GeT").map(|row| row.name), Some("get"));
        assert!(find(b"ge").is_none() && find(b"").is_none() && find(&[b'g'; 99]).is_none());
    }
}
