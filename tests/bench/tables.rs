//! Printing the results: aligned for the terminal as they come, and again in Markdown.

use std::array::from_fn;

use crate::servers::Kind;

/// A number per server and round.
pub(crate) type Rounds = [Vec<f64>; 3];

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
    pub(crate) samples: [Vec<Sample>; 3],
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
         | CPU µs: Respite | Redis | floor | p99 ms: Respite | Redis | floor |\n",
    );
    markdown += &format!("|---|{}\n", "---:|".repeat(10));
    let kinds = [Kind::Respite, Kind::Redis, Kind::Floor];
    for case in cases {
        for kind in kinds.into_iter().filter(|&kind| !case.samples[kind as usize].is_empty()) {
            let [speed, rest @ ..] = case.medians(kind);
            let [user, system, p50, p99] = rest.map(|value| show(value, 2));
            let cells = [show(speed, 0), user, system, p50, p99];
            print(&case.name(), kind.name(), cells, &case.ratio(kind));
        }
        let medians = kinds.map(|kind| case.medians(kind));
        let always = if case.appendfsync == "always" { ", `always`" } else { "" };
        let clients = match case.clients {
            1 => ", one client".into(),
            50 => String::new(),
            clients => format!(", {clients} clients"),
        };
        let cells = [
            vec![format!("`{}`, pipeline {}{always}{clients}", case.test, case.pipeline)],
            medians.map(|sample| show(sample[0], 0)).to_vec(),
            vec![case.ratio(Kind::Respite)],
            medians.map(|of| show(of[1] + of[2], 2)).to_vec(),
            medians.map(|of| show(of[4], 2)).to_vec(),
        ];
        markdown += &format!("| {} |\n", cells.concat().join(" | "));
    }
    println!();
    markdown
}

/// The measurements other than requests, one line each, in Markdown.
#[derive(Default)]
pub(crate) struct Facts(String);

impl Facts {
    /// Prints a measurement and keeps it.
    pub(crate) fn add(&mut self, what: &str, rounds: &Rounds, digits: usize) {
        let ratio = ratio(&rounds[0], &rounds[1]);
        let [respite, redis, floor] = rounds.clone().map(|values| show(median(values), digits));
        println!("{what:44} Respite {respite:>9}  Redis {redis:>9}  floor {floor:>5}  {ratio}");
        self.0 += &format!("| {what} | {respite} | {redis} | {floor} | {ratio} |\n");
    }

    /// The table, or an empty string if it has no rows.
    pub(crate) fn markdown(&self) -> String {
        match self.0.as_str() {
            "" => String::new(),
            lines => format!(
                "\n| | Respite | Redis | floor | Respite/Redis (rounds) |\n\
                 |---|---:|---:|---:|---:|\n{lines}"
            ),
        }
    }
}

/// The ratio of the medians, with the lowest and highest ratio of a round.
fn ratio(ones: &[f64], others: &[f64]) -> String {
    let rounds = ones.iter().zip(others).map(|(one, other)| one / other);
    let low = rounds.clone().fold(f64::NAN, f64::min);
    let high = rounds.fold(f64::NAN, f64::max);
    let ratio = median(ones.to_vec()) / median(others.to_vec());
    match ratio.is_finite() {
        true => format!("{ratio:.2} ({low:.2}..{high:.2})"),
        false => show(ratio, 2),
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
fn show(value: f64, digits: usize) -> String {
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
