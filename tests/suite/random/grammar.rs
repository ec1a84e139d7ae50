//! The grammar of random commands: parses a row's syntax and generates argument lists that match it.
//!
//! `key [NX | XX] [EX seconds]` names the kinds of the words; a [`WordSource`] supplies the words. So a
//! new row of the table is covered without a change here.

use std::iter::Peekable;
use std::str::SplitWhitespace;

use crate::harness::Reply;

/// A part of a syntax.
#[derive(Debug, PartialEq)]
pub(super) enum Part {
    /// A word that stands for itself: `NX`.
    Token(String),
    /// A word that the source supplies: `seconds`.
    Value(String),
    /// `[a | b]` or `<a | b>`.
    Group { choices: Vec<Vec<Part>>, optional: bool, repeats: bool },
}

/// Supplies words and random choices.
pub(super) trait WordSource {
    fn below(&mut self, end: usize) -> usize;
    /// A word for a value of this name.
    fn value(&mut self, name: &str) -> Vec<u8>;
    /// The token, in upper, lower or mixed case.
    fn token(&mut self, token: &str) -> Vec<u8>;
    /// A count of the values that follow: mostly `actual`.
    fn count(&mut self, actual: usize) -> Vec<u8>;
}

/// Parses a syntax.
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
    assert!(words.next().is_none(), "this syntax could not be parsed: {syntax}");
    parts
}

/// The syntax that the `arguments` of `COMMAND DOCS` describe, written as in the table.
pub(super) fn documented(arguments: &Reply) -> String {
    let Reply::Array(arguments) = arguments else { return String::new() };
    arguments.iter().map(documented_argument).collect::<Vec<_>>().join(" ")
}

fn documented_argument(argument: &Reply) -> String {
    let text = |key| entry(argument, key).cloned().map(Reply::into_text).unwrap_or_default();
    let inner = entry(argument, "arguments").cloned().map(Reply::into_items).unwrap_or_default();
    let inner: Vec<String> = inner.iter().map(documented_argument).collect();
    let value = match text("type").as_str() {
        "pure-token" => String::new(),
        "oneof" => format!("<{}>", inner.join(" | ")),
        "block" => inner.join(" "),
        _ => text("name").to_lowercase(),
    };
    let token = text("token").replace('"', "");
    let flags = entry(argument, "flags").map(Reply::to_string).unwrap_or_default();
    let mut whole = format!("{token} {value}");
    if flags.contains("multiple_token") {
        whole = format!("{whole} [{whole} ...]");
    } else if flags.contains("multiple") {
        whole = format!("{whole} [{value} ...]");
    }
    if flags.contains("optional") { format!("[{whole}]") } else { whole }
}

/// An entry of a map as RESP2 writes it: keys and values in turn.
pub(super) fn entry<'a>(map: &'a Reply, key: &str) -> Option<&'a Reply> {
    let Reply::Array(items) = map else { return None };
    let mut pairs = items.chunks_exact(2);
    pairs.find(|pair| pair[0] == Reply::Bulk(key.into())).map(|pair| &pair[1])
}

type Words<'a> = Peekable<SplitWhitespace<'a>>;

/// Parses up to the end of a choice.
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

/// Parses the inside of brackets, and the closing bracket.
fn group(words: &mut Words, optional: bool) -> Part {
    let mut choices = vec![sequence(words)];
    while words.next_if_eq(&"|").is_some() {
        choices.push(sequence(words));
    }
    let repeats = words.next_if_eq(&"...").is_some();
    words.next();
    Part::Group { choices, optional, repeats }
}

/// Appends words that match the syntax: most options are left out, some come twice, and in any order.
pub(super) fn generate(parts: &[Part], source: &mut impl WordSource, words: &mut Vec<Vec<u8>>) {
    let is_option =
        |part: &Part| matches!(part, Part::Group { optional: true, repeats: false, .. });
    let mut at = 0;
    while at < parts.len() {
        let options = parts[at..].iter().take_while(|part| is_option(part)).count();
        if options > 0 {
            let mut order: Vec<&Part> = parts[at..at + options].iter().collect();
            for place in (1..order.len()).rev() {
                order.swap(place, source.below(place + 1));
            }
            order.into_iter().for_each(|part| generate_part(part, source, words));
            at += options;
            continue;
        }
        match &parts[at] {
            // It counts the values that follow, and the list in brackets after them.
            Part::Value(name) if name.starts_with("num") => {
                let counted = &parts[at + 1..];
                let values = counted.iter().take_while(|p| matches!(p, Part::Value(_))).count();
                let place = words.len();
                let list = &counted[..(values + 1).min(counted.len())];
                generate(list, source, words);
                let count = (words.len() - place) / values.max(1);
                words.insert(place, source.count(count));
                at += list.len();
            }
            part => generate_part(part, source, words),
        }
        at += 1;
    }
}

fn generate_part(part: &Part, source: &mut impl WordSource, words: &mut Vec<Vec<u8>>) {
    match part {
        Part::Token(token) => words.push(source.token(token)),
        Part::Value(name) => words.push(source.value(name)),
        Part::Group { choices, optional, repeats } => {
            let times = match (*optional, *repeats) {
                (false, false) => 1,
                (_, true) => [0, 0, 1, 1, 2, 3, 5, 40][source.below(8)],
                (true, false) => [0, 0, 0, 0, 0, 1, 1, 1, 1, 2][source.below(10)],
            };
            for _ in 0..times {
                generate(&choices[source.below(choices.len())], source, words);
            }
        }
    }
}

#[test]
fn a_syntax_is_parsed_into_alternatives_options_and_repetitions() {
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
