//! Hostile bytes: commands that fit the command table, and mutations of any bytes.
//!
//! The unit tests of `src` feed them to the parser, to the replay of a log, to all commands and to the
//! configuration; the suite sends them to the real binary. Each case has a seed of its own, and a test that
//! fails prints the case. `FUZZ_CASES` sets how many cases there are in all; `make fuzz` sets ten million.

#![allow(dead_code, reason = "each crate that includes this file uses a part of it")]

use crate::rng::Rng;

const DEFAULT_CASES: usize = 20_000;

/// How many cases a test runs that gets this share of all.
pub(crate) fn cases(per_mille: usize) -> usize {
    let all = std::env::var("FUZZ_CASES").ok().and_then(|cases| cases.parse().ok());
    (all.unwrap_or(DEFAULT_CASES) * per_mille).div_ceil(1000)
}

/// Prints the case if the test fails in it.
pub(crate) struct Case<'a>(pub(crate) &'a [u8]);

impl Drop for Case<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("in this case: \"{}\"", self.0.escape_ascii());
        }
    }
}

/// Values that are likely to matter, for any argument.
const VALUES: [&[u8]; 24] = [
    b"",
    b"0",
    b"1",
    b"-1",
    b"2",
    b"10",
    b"100",
    b"1000",
    b"4294967295",
    b"4294967296",
    b"9223372036854775807",
    b"9223372036854775808",
    b"-9223372036854775808",
    b"1.5",
    b"1e308",
    b"nan",
    b"-inf",
    b" 1",
    b"01",
    b"*",
    b"[a-",
    b"u64",
    b"\r\n",
    b"\xff\x00",
];

/// A source of commands and mutations.
pub(crate) struct Hostile {
    pub(crate) random: Rng,
    /// The names of commands and the words of their syntaxes.
    rows: Vec<(Vec<String>, Vec<String>)>,
}

impl Hostile {
    /// Commands of these names and syntaxes.
    pub(crate) fn new<'a>(random: Rng, rows: impl Iterator<Item = (&'a str, &'a str)>) -> Hostile {
        let words = |text: &str| text.split_whitespace().map(String::from).collect();
        let rows = rows.map(|(name, syntax)| {
            let mut spaced = String::new();
            for c in syntax.chars() {
                match c {
                    '[' | ']' | '<' | '>' => spaced.extend([' ', c, ' ']),
                    c => spaced.push(c),
                }
            }
            (words(&name.replace('|', " ")), words(&spaced))
        });
        Hostile { random, rows: rows.collect() }
    }

    /// Whether something happens that does once in so many times.
    fn one_in(&mut self, times: usize) -> bool {
        self.random.below(times) == 0
    }

    /// A command that mostly fits its syntax.
    pub(crate) fn command(&mut self) -> Vec<Vec<u8>> {
        let (name, syntax) = self.rows[self.random.below(self.rows.len())].clone();
        let mut words: Vec<Vec<u8>> = name.into_iter().map(String::into_bytes).collect();
        self.expand(&syntax, &mut words);
        words
    }

    /// The commands as an array of bulk strings each, one after the other.
    pub(crate) fn pipeline(&mut self, most: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        for _ in 0..1 + self.random.below(most) {
            let words = self.command();
            bytes.extend(format!("*{}\r\n", words.len()).bytes());
            for word in words {
                bytes.extend(format!("${}\r\n", word.len()).bytes());
                bytes.extend(word);
                bytes.extend(b"\r\n");
            }
        }
        bytes
    }

    fn expand(&mut self, syntax: &[String], words: &mut Vec<Vec<u8>>) {
        let mut rest = syntax;
        while let Some((word, behind)) = rest.split_first() {
            rest = behind;
            match word.as_str() {
                "[" | "<" => {
                    let choices = alternatives(&mut rest);
                    if word == "<" || self.one_in(2) {
                        let choice = choices[self.random.below(choices.len())].to_vec();
                        self.expand(&choice, words);
                    }
                }
                "..." => {}
                token if token.chars().any(|c| c.is_ascii_uppercase()) => {
                    words.push(token.as_bytes().to_vec());
                }
                name => words.push(self.value(name)),
            }
        }
    }

    fn value(&mut self, name: &str) -> Vec<u8> {
        let is_key = ["key", "source", "destination"].iter().any(|word| name.contains(word));
        match self.random.below(10) {
            0..6 if is_key || name == "field" => vec![b'a' + self.random.below(4) as u8],
            0..6 if name.starts_with("num") => vec![b'1' + self.random.below(2) as u8],
            0 => vec![b'x'; 1 + self.random.below(2000)],
            1 => self.random.bytes(20),
            _ => VALUES[self.random.below(VALUES.len())].to_vec(),
        }
    }

    /// Changes some of the bytes, or none.
    pub(crate) fn mutate(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..self.random.below(5) {
            let at = self.random.below(bytes.len() + 1);
            let length = self.random.below(1 + (bytes.len() - at).min(40));
            match self.random.below(9) {
                0 if at < bytes.len() => bytes[at] ^= 1 << self.random.below(8),
                1 if at < bytes.len() => {
                    let special = b"\0\r\n$*:\"'-#09 \xff";
                    bytes[at] = special[self.random.below(special.len())];
                }
                2 => drop(bytes.drain(at..at + length)),
                3 => {
                    let copy = bytes[at..at + length].to_vec();
                    let to = self.random.below(bytes.len() + 1);
                    bytes.splice(to..to, copy);
                }
                4 => drop(bytes.splice(at..at, self.random.bytes(12))),
                5 => bytes.truncate(at),
                6 => bytes.rotate_left(at),
                7 => {
                    let count = 1 + self.random.below(3000);
                    let byte = bytes.get(at).copied().unwrap_or(0);
                    bytes.splice(at..at, std::iter::repeat_n(byte, count));
                }
                _ => self.replace_number(bytes, at),
            }
        }
    }

    /// Replaces the first number from there on by another one.
    fn replace_number(&mut self, bytes: &mut Vec<u8>, at: usize) {
        let Some(start) = bytes[at..].iter().position(u8::is_ascii_digit) else { return };
        let start = at + start;
        let length = bytes[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let value = VALUES[self.random.below(VALUES.len())];
        bytes.splice(start..start + length, value.iter().copied());
    }
}

/// Takes a group up to its closing bracket, and returns what is between its bars.
fn alternatives<'a>(rest: &mut &'a [String]) -> Vec<&'a [String]> {
    let (mut choices, mut depth, mut start) = (Vec::new(), 0, 0);
    let all = *rest;
    for (at, word) in all.iter().enumerate() {
        match word.as_str() {
            "[" | "<" => depth += 1,
            "]" | ">" if depth > 0 => depth -= 1,
            "]" | ">" => {
                choices.push(&all[start..at]);
                *rest = &all[at + 1..];
                return choices;
            }
            "|" if depth == 0 => {
                choices.push(&all[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    panic!("a group without an end: {all:?}")
}
