//! Printing the results: aligned for the terminal as they come, and again in Markdown.

use std::array::from_fn;

use crate::picture::Group;
use crate::servers::{BY_KIND, Kind};

/// Numbers by [`Kind`] and round.
pub(crate) type Rounds = [Vec<f64>; BY_KIND];

/// One run of redis-benchmark: requests per second, µs of CPU time per request in user and in system
/// mode, median and 99th percentile of latency in ms.
pub(crate) type Sample = [f64; 5];

/// A run of redis-benchmark and its results.
pub(crate) struct Case {
    pub(crate) appendfsync: &'static str,
    pub(crate) test: &'static str,
    pub(crate) pipeline: u64,
    pub(crate) clients: u64,
    pub(crate) requests: u64,
    /// The samples by [`Kind`] and round.
    pub(crate) samples: [Vec<Sample>; BY_KIND],
}

impl Case {
    pub(crate) fn name(&self) -> String {
        let always = if self.appendfsync == "always" { "always/" } else { "" };
        let clients = match self.clients {
            1 => "/alone".into(),
            50 => String::new(),
            clients => format!("/{clients}"),
        };
        format!("{always}{}/{}{clients}", self.test, self.pipeline)
    }

    fn column(&self, kind: Kind, column: usize) -> Vec<f64> {
        self.samples[kind as usize].iter().map(|sample| sample[column]).collect()
    }

    fn medians(&self, kind: Kind) -> Sample {
        from_fn(|column| median(self.column(kind, column)))
    }

    /// The speed as a multiple of Redis's.
    fn ratio(&self, kind: Kind) -> String {
        ratio(&self.column(kind, 0), &self.column(Kind::Redis, 0))
    }

    /// What it is called in the README.
    fn title(&self) -> String {
        let always = if self.appendfsync == "always" { ", always" } else { "" };
        let clients = match self.clients {
            1 => ", one client".into(),
            50 => String::new(),
            clients => format!(", {clients} clients"),
        };
        format!("{}, pipeline {}{always}{clients}", self.test, self.pipeline)
    }

    /// Its bars: requests per second.
    pub(crate) fn group(&self) -> Group {
        (self.title(), Kind::ALL.map(|kind| self.medians(kind)[0]))
    }
}

/// Prints the cases, and returns them as a table in Markdown.
pub(crate) fn print_cases(cases: &[Case]) -> String {
    let print = |case: &str, server: &str, cells: [String; 5], ratio: &str| {
        let cells = cells.map(|cell| format!("{cell:>11}")).concat();
        println!("{case:13} {server:8}{cells}  {ratio}");
    };
    let columns = ["requests/s", "user µs", "system µs", "p50 ms", "p99 ms"];
    print("", "", columns.map(String::from), "to Redis (rounds)");
    let mut markdown = String::from(
        "\n| 50 clients | Respite/s | Redis/s | floor/s | Respite/Redis (rounds) \
         | CPU µs: Respite | Redis | p99 ms: Respite | Redis |\n",
    );
    markdown += &format!("|---|{}\n", "---:|".repeat(8));
    for case in cases {
        let measured =
            Kind::ALL.into_iter().filter(|&kind| !case.samples[kind as usize].is_empty());
        for kind in measured {
            let [speed, rest @ ..] = case.medians(kind);
            let [user, system, p50, p99] = rest.map(|value| show(value, 2));
            let cells = [show(speed, 0), user, system, p50, p99];
            print(&case.name(), kind.name(), cells, &case.ratio(kind));
        }
        let [respite, redis, floor] =
            [Kind::Respite, Kind::Redis, Kind::Floor].map(|kind| case.medians(kind));
        let both = [respite, redis];
        let cells = [
            vec![case.title()],
            [respite, redis, floor].map(|of| show(of[0], 0)).to_vec(),
            vec![case.ratio(Kind::Respite)],
            both.map(|of| show(of[1] + of[2], 2)).to_vec(),
            both.map(|of| show(of[4], 2)).to_vec(),
        ];
        markdown += &format!("| {} |\n", cells.concat().join(" | "));
    }
    println!();
    markdown
}

/// A table of other measurements: what its lines are about, and the lines with the number of digits behind
/// the point.
pub(crate) struct Facts {
    title: String,
    lines: Vec<(String, Rounds, usize)>,
}

impl Facts {
    pub(crate) fn new(title: &str) -> Facts {
        Facts { title: title.into(), lines: Vec::new() }
    }

    /// Prints a measurement and keeps it.
    pub(crate) fn add(&mut self, what: &str, rounds: Rounds, digits: usize) {
        print!("{what:48}");
        for kind in Kind::ALL {
            print!("{} {:<10}", kind.name(), show(median(rounds[kind as usize].clone()), digits));
        }
        println!("{}", ratio(&rounds[0], &rounds[1]));
        self.lines.push((what.into(), rounds, digits));
    }

    /// The bars of the first lines, which are about the same thing.
    pub(crate) fn groups(&self, count: usize) -> Vec<Group> {
        let lines = self.lines.iter().take(count);
        lines.map(|(what, rounds, _)| (what.clone(), rounds.clone().map(median))).collect()
    }

    /// The table in Markdown, with the servers of which anything was measured, or an empty string if it has
    /// no lines.
    pub(crate) fn markdown(&self) -> String {
        let mut kinds = Kind::ALL.to_vec();
        kinds.retain(|&kind| {
            self.lines.iter().any(|(_, rounds, _)| !rounds[kind as usize].is_empty())
        });
        if kinds.is_empty() {
            return String::new();
        }
        let others: Vec<Kind> = kinds
            .iter()
            .copied()
            .filter(|kind| [Kind::Redis, Kind::Valkey].contains(kind))
            .collect();
        let names = kinds.iter().map(|kind| kind.name().to_string());
        let ratios = others.iter().map(|other| format!("Respite/{}", other.name()));
        let heads = [vec![self.title.clone()], names.chain(ratios).collect()].concat();
        let mut text =
            format!("\n| {} |\n|---|{}\n", heads.join(" | "), "---:|".repeat(heads.len() - 1));
        for (what, rounds, digits) in &self.lines {
            let of = |kind: Kind| &rounds[kind as usize];
            let numbers = kinds.iter().map(|&kind| show(median(of(kind).clone()), *digits));
            let ratios = others.iter().map(|&other| ratio(of(Kind::Respite), of(other)));
            let cells: Vec<String> = numbers.chain(ratios).collect();
            text += &format!("| {what} | {} |\n", cells.join(" | "));
        }
        text
    }
}

/// The ratio of the medians, with the lowest and highest ratio of a round if there are several.
fn ratio(ones: &[f64], others: &[f64]) -> String {
    let rounds = ones.iter().zip(others).map(|(one, other)| one / other);
    let low = rounds.clone().fold(f64::NAN, f64::min);
    let high = rounds.fold(f64::NAN, f64::max);
    let ratio = median(ones.to_vec()) / median(others.to_vec());
    match ones.len().min(others.len()) {
        0 | 1 => show(ratio, 2),
        _ => format!("{ratio:.2} ({low:.2}..{high:.2})"),
    }
}

/// The median, or not a number if there are no values.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        count => (values[(count - 1) / 2] + values[count / 2]) / 2.0,
    }
}

/// A number with commas between the thousands, or a dash if it was not measured.
pub(crate) fn show(value: f64, digits: usize) -> String {
    if !value.is_finite() {
        return "–".into();
    }
    let mut text = format!("{value:.digits$}");
    let mut at = text.find('.').unwrap_or(text.len());
    while at > 3 {
        at -= 3;
        text.insert(at, ',');
    }
    text
}
