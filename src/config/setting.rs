//! What a row of the settings table is made of: how a value is parsed, checked, stored and shown.
//!
//! Ranges and error texts are those of Redis. A value is parsed completely before any is stored, so that
//! `CONFIG SET` changes all of its settings or none.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering::Relaxed};

use super::events::{EventClass, WantedEvents};
use super::memory::MachineMemory;
use super::table::SETTINGS;
use super::unused::UNUSED;
use super::{Config, Limit, OutputLimits, Text};
use crate::text::integer;

/// The type of a setting: how it is stored, parsed and shown.
pub(super) enum SettingKind {
    Integer(fn(&Config) -> &AtomicI64, Range),
    /// A number of bytes, which may have a unit (`64mb`).
    Memory(fn(&Config) -> &AtomicI64, Range),
    /// A number of bytes, or a share in percent of what the process may use, stored in bytes.
    MemoryOrShare(fn(&Config) -> &AtomicI64, fn(&Config) -> &AtomicI64),
    /// A number of bytes, or a percentage, stored as a negative number.
    MemoryOrPercent(fn(&Config) -> &AtomicI64),
    /// The permissions of a file, in octal digits.
    Permissions(fn(&Config) -> &AtomicI64),
    YesNo(fn(&Config) -> &AtomicBool),
    /// One of a list of words, stored as its index.
    Choice(fn(&Config) -> &AtomicUsize, &'static [&'static str]),
    Text(fn(&Config) -> &Text),
    /// The name of a file, without a path.
    FileName(fn(&Config) -> &Text),
    /// A directory, which is shown as an absolute path.
    Directory(fn(&Config) -> &Text),
    /// A host and a port, or nothing.
    Master(fn(&Config) -> &Text),
    /// Any number of `class hard soft seconds`; other classes keep their limits.
    OutputLimits(fn(&Config) -> &OutputLimits),
    /// Percentages, separated by spaces.
    Percentiles(fn(&Config) -> &Text),
    /// Letters of event classes.
    Events(fn(&Config) -> &WantedEvents),
    /// Pairs of seconds and changes.
    Schedule(fn(&Config) -> &Text),
    /// Has no effect here: only checked, stored and shown.
    Unused(Shape),
}

/// What the values of an unused setting look like.
pub(super) enum Shape {
    Integer(Range),
    Memory(Range),
    YesNo,
    Choice(&'static [&'static str]),
    Text,
}

/// The values that a number may have.
#[derive(Clone, Copy)]
pub(super) struct Range {
    min: i64,
    max: i64,
    /// In Redis the number has an unsigned type, so that it has another error for a negative one.
    unsigned: bool,
    /// What is stored of a valid number: the nearest within these.
    stored: (i64, i64),
}

impl Range {
    pub(super) const fn stored_within(mut self, least: i64, greatest: i64) -> Range {
        self.stored = (least, greatest);
        self
    }

    fn check(self, value: i64) -> Result<i64, String> {
        let Range { min, max, unsigned, stored } = self;
        if unsigned && value < 0 {
            return Err("argument must be greater or equal to 0".into());
        }
        if !(min..=max).contains(&value) {
            return Err(format!("argument must be between {min} and {max} inclusive"));
        }
        Ok(value.clamp(stored.0, stored.1))
    }
}

pub(super) const fn signed(min: i64, max: i64) -> Range {
    Range { min, max, unsigned: false, stored: (min, max) }
}

pub(super) const fn unsigned(min: i64, max: i64) -> Range {
    Range { unsigned: true, ..signed(min, max) }
}

/// Whether `CONFIG SET` may change a setting.
#[derive(Clone, Copy)]
pub(super) enum Mutability {
    Live,
    /// No: it can be set only when the server starts.
    AtStart,
    /// Only if `enable-protected-configs` says so.
    Protected,
}

/// What a change of a setting leads to, beyond the new value.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Consequence {
    /// Listeners are closed, and others opened.
    Listeners,
    /// The log is opened, closed or moved.
    Log,
    /// There must be descriptors for as many clients.
    Clients,
}

/// A row of the settings table.
pub struct Setting {
    /// The name in `redis.conf`.
    pub name: &'static str,
    /// An older name that Redis still accepts, or empty.
    pub alias: &'static str,
    /// The default value.
    pub default: &'static str,
    /// What it is for, in a phrase.
    pub summary: &'static str,
    pub(super) kind: SettingKind,
    pub(super) mutability: Mutability,
    /// Whether the value may be several words.
    pub(super) several_words: bool,
    /// Why no value but the default is accepted, and what to do instead; empty if others are.
    only_default: &'static str,
    /// Whether the value is a secret, which no log shows.
    is_secret: bool,
    /// What has to follow a change, and the error if it cannot; an empty one if that says itself why.
    pub(super) consequence: Option<(Consequence, &'static str)>,
}

/// A row of [`SETTINGS`].
pub(super) const fn row(
    name: &'static str,
    default: &'static str,
    mutability: Mutability,
    kind: SettingKind,
    summary: &'static str,
) -> Setting {
    Setting {
        name,
        alias: "",
        default,
        summary,
        kind,
        mutability,
        several_words: false,
        only_default: "",
        is_secret: false,
        consequence: None,
    }
}

/// A row of [`UNUSED`].
pub(super) const fn unused(
    name: &'static str,
    default: &'static str,
    mutability: Mutability,
    shape: Shape,
) -> Setting {
    row(name, default, mutability, SettingKind::Unused(shape), "")
}

impl Setting {
    pub(super) const fn or(mut self, alias: &'static str) -> Setting {
        self.alias = alias;
        self
    }

    pub(super) const fn several_words(mut self) -> Setting {
        self.several_words = true;
        self
    }

    /// No value but the default is accepted.
    pub(super) const fn only_default(mut self, why: &'static str) -> Setting {
        self.only_default = why;
        self
    }

    /// A change opens other listeners, or fails with this error.
    pub(super) const fn listens(mut self, error: &'static str) -> Setting {
        self.consequence = Some((Consequence::Listeners, error));
        self
    }

    /// A change opens, closes or moves the log, or fails with this error.
    pub(super) const fn logs(mut self, error: &'static str) -> Setting {
        self.consequence = Some((Consequence::Log, error));
        self
    }

    /// A change needs descriptors.
    pub(super) const fn limits_clients(mut self) -> Setting {
        self.consequence = Some((Consequence::Clients, ""));
        self
    }

    pub(super) const fn secret(mut self) -> Setting {
        self.is_secret = true;
        self
    }

    /// Why no value but the default is accepted; empty if others are.
    pub fn refusal(&self) -> &'static str {
        self.only_default
    }
}

/// A valid value of a setting.
pub(super) enum Parsed {
    Integer(i64),
    /// So many bytes, because that is this percentage.
    Share(i64, i64),
    YesNo(bool),
    Choice(usize),
    Text(String),
    OutputLimits(Vec<(usize, Limit)>),
    Events(EventClass),
}

impl Setting {
    /// All settings, those without an effect included.
    pub(super) fn all() -> impl Iterator<Item = &'static Setting> {
        SETTINGS.iter().chain(UNUSED)
    }

    pub(super) fn find(name: &str) -> Option<&'static Setting> {
        let is = |known: &str| !known.is_empty() && known.eq_ignore_ascii_case(name);
        Setting::all().find(|setting| is(setting.name) || is(setting.alias))
    }

    /// Whether the setting of this name has a secret value.
    pub fn is_secret(name: &[u8]) -> bool {
        let name = str::from_utf8(name).ok();
        name.and_then(Setting::find).is_some_and(|setting| setting.is_secret)
    }

    pub(super) fn parse(&self, text: &str) -> Result<Parsed, String> {
        match &self.kind {
            SettingKind::Integer(_, range) => parse_integer(text, *range).map(Parsed::Integer),
            SettingKind::Memory(_, range) => parse_bytes(text, *range).map(Parsed::Integer),
            SettingKind::MemoryOrShare(..) => parse_bytes_or_share(text),
            SettingKind::MemoryOrPercent(_) => parse_bytes_or_percent(text).map(Parsed::Integer),
            SettingKind::Permissions(_) => {
                let bits = i64::from_str_radix(text, 8)
                    .map_err(|_| "argument couldn't be parsed as an octal number")?;
                if bits > 0o777 {
                    return Err("argument must be between 0 and 777 inclusive".into());
                }
                unsigned(0, 0o777).check(bits).map(Parsed::Integer)
            }
            SettingKind::YesNo(_) => parse_yes_no(text).map(Parsed::YesNo),
            SettingKind::Choice(_, words) => parse_choice(text, words).map(Parsed::Choice),
            SettingKind::Text(_) | SettingKind::Directory(_) => Ok(Parsed::Text(text.into())),
            SettingKind::FileName(_) if text.contains('/') => {
                Err(format!("{} can't be a path, just a filename", self.name))
            }
            SettingKind::FileName(_) => Ok(Parsed::Text(text.into())),
            SettingKind::OutputLimits(_) => parse_output_limits(text).map(Parsed::OutputLimits),
            SettingKind::Percentiles(_) => parse_percentiles(text).map(Parsed::Text),
            SettingKind::Events(_) => {
                let classes = EventClass::parse(text).map(Parsed::Events);
                classes.ok_or("Invalid event class character. Use 'Ag$lshzxeKEtmdn'.".into())
            }
            SettingKind::Schedule(_) => parse_schedule(text).map(Parsed::Text),
            SettingKind::Master(_) => parse_master(text).map(Parsed::Text),
            SettingKind::Unused(shape) => {
                let value = shape.normal(text)?;
                let is_allowed = self.only_default.is_empty()
                    || shape.normal(self.default).as_ref() == Ok(&value);
                if is_allowed { Ok(Parsed::Text(value)) } else { Err(self.only_default.into()) }
            }
        }
    }

    pub(super) fn store(&self, config: &Config, value: Parsed) {
        match (&self.kind, value) {
            (
                SettingKind::Integer(at, _)
                | SettingKind::Memory(at, _)
                | SettingKind::MemoryOrPercent(at)
                | SettingKind::Permissions(at),
                Parsed::Integer(value),
            ) => at(config).store(value, Relaxed),
            (SettingKind::MemoryOrShare(at, percent_at), value) => {
                let (bytes, percent) = match value {
                    Parsed::Share(bytes, percent) => (bytes, percent),
                    Parsed::Integer(bytes) => (bytes, 0),
                    _ => unreachable!("a setting parses into its own kind"),
                };
                at(config).store(bytes, Relaxed);
                percent_at(config).store(percent, Relaxed);
            }
            (SettingKind::YesNo(at), Parsed::YesNo(value)) => at(config).store(value, Relaxed),
            (SettingKind::Choice(at, _), Parsed::Choice(value)) => at(config).store(value, Relaxed),
            (
                SettingKind::Text(at)
                | SettingKind::FileName(at)
                | SettingKind::Directory(at)
                | SettingKind::Percentiles(at)
                | SettingKind::Master(at)
                | SettingKind::Schedule(at),
                Parsed::Text(value),
            ) => at(config).set(value),
            (SettingKind::Unused(_), Parsed::Text(value)) => config.unused.set(self.name, value),
            (SettingKind::OutputLimits(at), Parsed::OutputLimits(limits)) => {
                limits.into_iter().for_each(|(class, limit)| at(config).class(class).set(limit));
            }
            (SettingKind::Events(at), Parsed::Events(classes)) => at(config).set(classes),
            _ => unreachable!("a setting parses into its own kind"),
        }
    }

    /// The value as the configuration file has it: a share of the memory is not the same number everywhere.
    pub(super) fn show_in_file(&self, config: &Config) -> String {
        match self.kind {
            SettingKind::MemoryOrShare(_, percent_at) if percent_at(config).load(Relaxed) > 0 => {
                format!("{}%", percent_at(config).load(Relaxed))
            }
            _ => self.show(config),
        }
    }

    /// The value as `CONFIG GET` shows it.
    pub(super) fn show(&self, config: &Config) -> String {
        match &self.kind {
            SettingKind::Integer(at, _)
            | SettingKind::Memory(at, _)
            | SettingKind::MemoryOrShare(at, _) => at(config).load(Relaxed).to_string(),
            SettingKind::MemoryOrPercent(at) => match at(config).load(Relaxed) {
                percent @ ..0 => format!("{}%", percent.unsigned_abs()),
                bytes => bytes.to_string(),
            },
            SettingKind::Permissions(at) => format!("{:o}", at(config).load(Relaxed)),
            SettingKind::YesNo(at) => yes_or_no(at(config).load(Relaxed)).into(),
            SettingKind::Choice(at, words) => words[at(config).load(Relaxed)].into(),
            SettingKind::Text(at)
            | SettingKind::FileName(at)
            | SettingKind::Percentiles(at)
            | SettingKind::Master(at)
            | SettingKind::Schedule(at) => at(config).get(),
            SettingKind::Unused(shape) => {
                let normal = || shape.normal(self.default).unwrap_or_default();
                config.unused.get(self.name).unwrap_or_else(normal)
            }
            SettingKind::Directory(at) => {
                let path = std::path::absolute(at(config).get()).ok();
                path.and_then(|path| path.into_os_string().into_string().ok())
                    .unwrap_or_else(|| at(config).get())
            }
            SettingKind::Events(at) => at(config).get().letters(),
            SettingKind::OutputLimits(at) => {
                let show = |(number, name): (usize, &&str)| {
                    let (hard_bytes, soft_bytes, soft_seconds) = at(config).class(number).get();
                    format!("{name} {hard_bytes} {soft_bytes} {soft_seconds}")
                };
                OUTPUT_CLASSES.iter().enumerate().map(show).collect::<Vec<_>>().join(" ")
            }
        }
    }
}

impl Shape {
    /// The canonical spelling of a value, which is shown.
    fn normal(&self, text: &str) -> Result<String, String> {
        match self {
            Shape::Integer(range) => parse_integer(text, *range).map(|value| value.to_string()),
            Shape::Memory(range) => parse_bytes(text, *range).map(|value| value.to_string()),
            Shape::YesNo => parse_yes_no(text).map(|yes| yes_or_no(yes).into()),
            Shape::Choice(words) => parse_choice(text, words).map(|index| words[index].into()),
            Shape::Text => Ok(text.into()),
        }
    }
}

fn parse_integer(text: &str, range: Range) -> Result<i64, String> {
    let value = integer::parse_i64(text.as_bytes());
    range.check(value.ok_or("argument couldn't be parsed into an integer")?)
}

fn parse_bytes(text: &str, range: Range) -> Result<i64, String> {
    range.check(parse_memory(text).ok_or("argument must be a memory value")?)
}

/// A number of bytes, or minus a percentage.
fn parse_bytes_or_percent(text: &str) -> Result<i64, String> {
    match parse_percent(text) {
        Some(percent @ 0..=100) => Ok(-percent),
        Some(_) => Err("percentage argument must be less or equal to 100".into()),
        None => {
            let bytes = parse_memory(text).ok_or("argument must be a memory or percent value")?;
            unsigned(0, i64::MAX).check(bytes)
        }
    }
}

/// A number of bytes, or a percentage of the memory that the process may use.
fn parse_bytes_or_share(text: &str) -> Result<Parsed, String> {
    let Some(percent) = parse_percent(text) else {
        return parse_bytes(text, unsigned(0, i64::MAX)).map(Parsed::Integer);
    };
    if !(1..=100).contains(&percent) {
        return Err("percentage argument must be between 1 and 100".into());
    }
    let memory = MachineMemory::read().ok_or("the memory of this machine is unknown")?;
    Ok(Parsed::Share((memory.usable() / 100) as i64 * percent, percent))
}

fn parse_percent(text: &str) -> Option<i64> {
    let percent = text.strip_suffix('%').and_then(|number| integer::parse_i64(number.as_bytes()));
    percent.filter(|percent| *percent >= 0)
}

fn parse_yes_no(text: &str) -> Result<bool, String> {
    let yes = text.eq_ignore_ascii_case("yes");
    let is_valid = yes || text.eq_ignore_ascii_case("no");
    is_valid.then_some(yes).ok_or("argument must be 'yes' or 'no'".into())
}

fn yes_or_no(yes: bool) -> &'static str {
    if yes { "yes" } else { "no" }
}

/// The index of the word.
fn parse_choice(text: &str, words: &[&str]) -> Result<usize, String> {
    let is = |word: &&str| word.eq_ignore_ascii_case(text);
    words
        .iter()
        .position(is)
        .ok_or_else(|| format!("argument(s) must be one of the following: {}", words.join(", ")))
}

/// A host and a port, separated by a space, or nothing.
fn parse_master(text: &str) -> Result<String, String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    match words[..] {
        [] => Ok(String::new()),
        [no, one] if no.eq_ignore_ascii_case("no") && one.eq_ignore_ascii_case("one") => {
            Ok(String::new())
        }
        [host, port] if port.parse::<u16>().is_ok() => Ok(format!("{host} {port}")),
        [_, _] => Err("Invalid master port".into()),
        _ => Err("wrong number of arguments".into()),
    }
}

/// Checks pairs of seconds and changes.
fn parse_schedule(text: &str) -> Result<String, String> {
    let words: Vec<&str> = text.split(' ').filter(|_| !text.is_empty()).collect();
    let numbers = words.iter().map(|word| word.parse::<i64>());
    let least = [1, 0].into_iter().cycle();
    let are_valid = numbers.zip(least).all(|(number, least)| number.is_ok_and(|n| n >= least));
    if !are_valid || words.len() % 2 == 1 {
        return Err("Invalid save parameters".into());
    }
    Ok(text.into())
}

/// Parses percentiles into the form in which they are shown: `99.90` becomes `99.9`. The error texts are
/// those of Redis.
fn parse_percentiles(text: &str) -> Result<String, String> {
    let mut shown = Vec::new();
    for word in text.split(' ').filter(|_| !text.is_empty()) {
        let percent = word.parse().ok().filter(|percent: &f64| !percent.is_nan());
        let percent = percent.ok_or("Invalid latency-tracking-info-percentiles parameters")?;
        if !(0.0..=100.0).contains(&percent) {
            let text =
                "latency-tracking-info-percentiles parameters should sit between [0.0,100.0]";
            return Err(text.into());
        }
        shown.push(percent.to_string());
    }
    Ok(shown.join(" "))
}

/// Parses a number of bytes. As in Redis, `k`, `m` and `g` are powers of 1000; `kb`, `mb` and `gb` of 1024.
pub(super) fn parse_memory(text: &str) -> Option<i64> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let unit = match text[digits..].to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" => 1000,
        "kb" => 1 << 10,
        "m" => 1_000_000,
        "mb" => 1 << 20,
        "g" => 1_000_000_000,
        "gb" => 1 << 30,
        _ => return None,
    };
    // As in Redis, a number of 64 bits is valid, and counts as a negative one beyond 63 bits; none means 0.
    let number = if digits == 0 { 0 } else { text[..digits].parse::<u64>().ok()? };
    number.checked_mul(unit).map(|bytes| bytes as i64)
}

/// The client classes of `client-output-buffer-limit`, as Redis shows them.
const OUTPUT_CLASSES: [&str; 3] = ["normal", "slave", "pubsub"];

/// Parses output limits into pairs of a class (its index) and its limit. The error texts are those of Redis.
pub(super) fn parse_output_limits(text: &str) -> Result<Vec<(usize, Limit)>, String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let (limits, rest) = words.as_chunks::<4>();
    if !rest.is_empty() {
        return Err("Wrong number of arguments in buffer limit configuration.".into());
    }
    let parse = |[class, hard, soft, seconds]: &[&str; 4]| {
        let class = if class.eq_ignore_ascii_case("replica") { "slave" } else { class };
        let is = |name: &&str| name.eq_ignore_ascii_case(class);
        let class = OUTPUT_CLASSES.iter().position(is);
        let class = class.ok_or("Invalid client class specified in buffer limit configuration.")?;
        let bytes = |text| usize::try_from(parse_memory(text)?).ok();
        let limit = bytes(hard).zip(bytes(soft)).zip(seconds.parse().ok());
        let ((hard, soft), seconds) = limit
            .ok_or("Error in hard, soft or soft_seconds setting in buffer limit configuration.")?;
        Ok((class, (hard, soft, seconds)))
    };
    limits.iter().map(parse).collect()
}
