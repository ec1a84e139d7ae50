//! `LOLWUT`: the version and a picture. Every version of Redis draws another one; ours is a night at sea.
//!
//! The command is described at <https://redis.io/docs/latest/commands/lolwut/>.

use super::options::{integer, is};
use super::spec::{Command, Family, Outcome, command};
use super::{Handler, connection::REDIS_VERSION};
use crate::resp::{Args, Reply};
use crate::store::{ReadAll, now_ms};

/// `LOLWUT`.
#[rustfmt::skip]
pub static FAMILY: Family = Family { group: "server", commands: &[LOLWUT] };

const LOLWUT: Command =
    command("lolwut", "[VERSION version] [columns] [rows]", Handler::ReadAll(lolwut))
        .fast()
        .arguments(&["columns=", "rows="])
        .doc("5.0.0", "O(1)", "Draws a picture and shows the version of the server.");

/// A boat, from top to bottom.
const BOAT: [&str; 5] = ["   |\\", "   | \\", "   |__\\", " __|____", " \\_____/"];

/// The picture is the same for every version; two numbers after it set its size.
fn lolwut(_: &ReadAll, args: Args, reply: &mut Reply) -> Outcome {
    let mut options = args.from(1);
    if args.get(1).is_some_and(|option| is(option, "VERSION")) && args.len() >= 3 {
        integer(&args[2])?;
        options = args.from(3);
    }
    let mut size = |default: i64, least, most| -> usize {
        let wanted = options.next().and_then(|arg| integer(arg).ok()).unwrap_or(default);
        wanted.clamp(least, most) as usize
    };
    let (columns, rows) = (size(60, 20, 200), size(9, 7, 60));
    let mut text = draw(columns, rows, now_ms() as u64);
    text.push_str(&format!(
        "\nA night at sea. Respite ver. {} (as Redis ver. {REDIS_VERSION})\n",
        env!("CARGO_PKG_VERSION")
    ));
    reply.verbatim(text.as_bytes());
    Ok(())
}

/// Stars, a moon, a boat, and three lines of water below.
fn draw(columns: usize, rows: usize, seed: u64) -> String {
    let mut state = seed | 1;
    let mut random = move |below: u64| {
        // One step of xorshift is random enough for stars.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    let mut picture = vec![vec![' '; columns]; rows];
    for cell in picture.iter_mut().flatten() {
        *cell = match random(40) {
            0 => '.',
            1 => '*',
            _ => ' ',
        };
    }
    let moon = columns - 8;
    for (row, part) in [" _ ", "( \\", "(_/"].iter().enumerate() {
        stamp(&mut picture[row], moon, part);
    }
    let place = 2 + random(columns as u64 - 18) as usize;
    for (row, part) in BOAT.iter().enumerate() {
        stamp(&mut picture[rows - BOAT.len() + row], place, part);
    }
    let phase = random(8) as usize;
    for line in 0..3 {
        let wave = "~~-.__.-".chars().cycle().skip(phase + line * 3);
        picture.push(wave.take(columns).collect());
    }
    let line = |row: Vec<char>| row.into_iter().collect::<String>().trim_end().to_string() + "\n";
    picture.into_iter().map(line).collect()
}

/// Puts a part of the picture over what was there.
fn stamp(row: &mut [char], place: usize, part: &str) {
    row.iter_mut().skip(place).zip(part.chars()).for_each(|(cell, new)| *cell = new);
}

#[cfg(test)]
mod tests {
    use super::draw;

    #[test]
    fn a_picture_of_any_size_shows_the_boat_and_fits_its_width() {
        for (columns, rows) in [(20, 7), (60, 9), (200, 60)] {
            for seed in 0..200 {
                let picture = draw(columns, rows, seed);
                assert_eq!(picture.lines().count(), rows + 3);
                assert!(picture.lines().all(|line| line.chars().count() <= columns));
                assert!(picture.contains("\\_____/"), "no boat:\n{picture}");
            }
        }
    }
}
