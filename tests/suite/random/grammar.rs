//! The grammar of random commands: a row's syntax, as the command table has it, read as a set of sentences.
//!
//! `key [NX | XX] [EX seconds]` says what a word may be, not which one: the generator asks a [`Speaker`]
//! for the words. So a row that is added to the table is covered without a change here.

use std::iter::Peekable;
use std::str::SplitWhitespace;

/// A part of a syntax.
#[derive(Debug, PartialEq)]
pub(super) enum Part {
    /// A word that stands for itself: `NX`.
    Token(String),
    /// A word that the speaker fills in: `seconds`.
    Value(String),
    /// `[a | b]` or `<a | b>`.
    Group { choices: Vec<Vec<Part>>, optional: bool, repeats: bool },
}

/// Who knows the words and throws the dice.
pub(super) trait Speaker {
    fn below(&mut self, end: usize) -> usize;
    /// Some word for a value of that name.
    fn value(&mut self, name: &str) -> Vec<u8>;
    /// That token, in letters of some case.
    fn token(&mut self, token: &str) -> Vec<u8>;
    /// How many follow, of which there are so many.
    fn count(&mut self, actual: usize) -> Vec<u8>;
}

/// Reads a syntax.
pub(super) fn parse(syntax: &str) -> Vec<Part> {
    let mut spaced = String::new();
    for c in syntax.chars() {
        match c {
            '[' | ']' | '<' | '>' => spaced.extend([' ', c, ' ']),
            c => spaced.push(c),
        }
    }
    let mut words = spaced.split_whitespace().peekable();
    let parts = sequence(&mut words);
    assert!(words.next().is_none(), "this syntax was not understood: {syntax}");
    parts
}

type Words<'a> = Peekable<SplitWhitespace<'a>>;

/// Reads up to what ends a choice.
fn sequence(words: &mut Words) -> Vec<Part> {
    let mut parts = Vec::new();
    while let Some(word) = words.next_if(|word| !matches!(*word, "]" | ">" | "|" | "...")) {
        parts.push(match word {
            "[" | "<" => group(words, word == "["),
            word if word.chars().any(|c| c.is_ascii_lowercase()) => Part::Value(word.into()),
            word => Part::Token(word.into()),
        });
    }
    parts
}

/// Reads what stands in brackets, and the closing bracket.
fn group(words: &mut Words, optional: bool) -> Part {
    let mut choices = vec![sequence(words)];
    while words.next_if_eq(&"|").is_some() {
        choices.push(sequence(words));
    }
    let repeats = words.next_if_eq(&"...").is_some();
    words.next();
    Part::Group { choices, optional, repeats }
}

/// A sentence: most options are left out, some are given twice, and they come in any order.
pub(super) fn speak(parts: &[Part], speaker: &mut impl Speaker, said: &mut Vec<Vec<u8>>) {
    let is_option =
        |part: &Part| matches!(part, Part::Group { optional: true, repeats: false, .. });
    let mut at = 0;
    while at < parts.len() {
        let options = parts[at..].iter().take_while(|part| is_option(part)).count();
        if options > 0 {
            let mut order: Vec<&Part> = parts[at..at + options].iter().collect();
            for place in (1..order.len()).rev() {
                order.swap(place, speaker.below(place + 1));
            }
            order.into_iter().for_each(|part| speak_part(part, speaker, said));
            at += options;
            continue;
        }
        match &parts[at] {
            // It counts the words that follow, and those of the list in brackets behind them.
            Part::Value(name) if name.starts_with("num") => {
                let counted = &parts[at + 1..];
                let words = counted.iter().take_while(|p| matches!(p, Part::Value(_))).count();
                let place = said.len();
                let list = &counted[..(words + 1).min(counted.len())];
                speak(list, speaker, said);
                let count = (said.len() - place) / words.max(1);
                said.insert(place, speaker.count(count));
                at += list.len();
            }
            part => speak_part(part, speaker, said),
        }
        at += 1;
    }
}

fn speak_part(part: &Part, speaker: &mut impl Speaker, said: &mut Vec<Vec<u8>>) {
    match part {
        Part::Token(token) => said.push(speaker.token(token)),
        Part::Value(name) => said.push(speaker.value(name)),
        Part::Group { choices, optional, repeats } => {
            let times = match (*optional, *repeats) {
                (false, false) => 1,
                (_, true) => [0, 0, 1, 1, 2, 3, 5, 40][speaker.below(8)],
                (true, false) => [0, 0, 0, 0, 0, 1, 1, 1, 1, 2][speaker.below(10)],
            };
            for _ in 0..times {
                speak(&choices[speaker.below(choices.len())], speaker, said);
            }
        }
    }
}

#[test]
fn a_syntax_is_read_as_its_alternatives_options_and_repetitions() {
    let value = |name: &str| Part::Value(name.into());
    let token = |name: &str| Part::Token(name.into());
    let group = |optional, repeats, choices| Part::Group { choices, optional, repeats };
    assert_eq!(
        parse("numkeys key [key ...] [NX | EX seconds]"),
        [
            value("numkeys"),
            value("key"),
            group(true, true, vec![vec![value("key")]]),
            group(true, false, vec![vec![token("NX")], vec![token("EX"), value("seconds")]]),
        ]
    );
    let inner = group(false, false, vec![vec![token("C")], vec![token("D")]]);
    assert_eq!(
        parse("[A | B <C | D> ...]"),
        [group(true, true, vec![vec![token("A")], vec![token("B"), inner]])]
    );
}
