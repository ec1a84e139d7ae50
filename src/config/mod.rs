//! The settings. The command line, the configuration file, `CONFIG GET`, `CONFIG SET` and `CONFIG REWRITE`
//! are all derived from one table.
//!
//! A setting is a row of [`SETTINGS`] and a field of [`Config`]. The fields are atomics (or texts behind
//! small locks), because all connection threads read them while `CONFIG SET` changes them. A change takes
//! effect with the next read; no lock is held for longer than it takes to copy a text.
//!
//! Names, ranges, defaults and error texts are those of Redis, as in its
//! [`redis.conf`](https://redis.io/docs/latest/operate/oss_and_stack/management/config-file/), apart from
//! three defaults: `appendonly yes`, `appendfilename storage.aof` and `bind 127.0.0.1 -::1`.

pub mod events;
pub mod logger;
mod rewrite;
pub mod trace;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{OnceLock, PoisonError, RwLock};

use crate::text::{glob, integer};
use events::{EventClass, WantedEvents};
pub use logger::Level;

/// A text setting.
#[derive(Default)]
pub struct Text(RwLock<String>);

impl Text {
    /// A copy of the text.
    pub fn get(&self) -> String {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the text is empty.
    pub fn is_empty(&self) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    fn set(&self, text: String) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = text;
    }
}

/// The hard limit in bytes, the soft limit in bytes, and for how many seconds the soft limit may be exceeded.
pub type Limit = (usize, usize, u64);

/// This much output of a client does not count towards its limits: in Redis it fits in a static buffer.
pub const UNCOUNTED_OUTPUT_BYTES: usize = 16 << 10;

/// How many bytes of unsent output a client may have before it is disconnected; 0 means no limit. See
/// [output buffer limits](https://redis.io/docs/latest/develop/reference/clients/#output-buffer-limits).
#[derive(Default)]
pub struct OutputLimit {
    hard_bytes: AtomicUsize,
    soft_bytes: AtomicUsize,
    soft_seconds: AtomicU64,
}

impl OutputLimit {
    /// The current limits.
    pub fn get(&self) -> Limit {
        let soft = (self.soft_bytes.load(Relaxed), self.soft_seconds.load(Relaxed));
        (self.hard_bytes.load(Relaxed), soft.0, soft.1)
    }

    fn set(&self, (hard_bytes, soft_bytes, soft_seconds): Limit) {
        self.hard_bytes.store(hard_bytes, Relaxed);
        self.soft_bytes.store(soft_bytes, Relaxed);
        self.soft_seconds.store(soft_seconds, Relaxed);
    }
}

/// The output limits of each class of clients.
#[derive(Default)]
pub struct OutputLimits {
    /// Clients that get only replies, or invalidations of what they cache.
    pub normal: OutputLimit,
    /// Replicas. We have none, so the value is only stored and shown.
    pub replica: OutputLimit,
    /// Subscribers, and unlike in Redis also monitors.
    pub pubsub: OutputLimit,
}

impl OutputLimits {
    fn class(&self, number: usize) -> &OutputLimit {
        [&self.normal, &self.replica, &self.pubsub][number]
    }
}

/// The current values of all settings. The rows of [`SETTINGS`] say what they mean.
#[derive(Default)]
#[allow(missing_docs)]
pub struct Config {
    /// The configuration file that the server was started with.
    file: OnceLock<PathBuf>,
    pub port: AtomicI64,
    pub bind: Text,
    pub unixsocket: Text,
    pub dir: Text,
    pub save: AtomicUsize,
    pub appendonly: AtomicBool,
    pub appendfilename: Text,
    pub appendfsync: AtomicUsize,
    pub aof_load_truncated: AtomicBool,
    pub auto_aof_rewrite_percentage: AtomicI64,
    pub auto_aof_rewrite_min_size: AtomicI64,
    pub requirepass: Text,
    pub databases: AtomicI64,
    pub maxclients: AtomicI64,
    pub client_query_buffer_limit: AtomicI64,
    pub timeout: AtomicI64,
    pub client_output_buffer_limit: OutputLimits,
    pub loglevel: AtomicUsize,
    pub hash_max_listpack_entries: AtomicI64,
    pub hash_max_listpack_value: AtomicI64,
    pub hll_sparse_max_bytes: AtomicI64,
    pub proto_max_bulk_len: AtomicI64,
    pub notify_keyspace_events: WantedEvents,
    pub enable_debug_command: AtomicUsize,
    pub slowlog_log_slower_than: AtomicI64,
    pub slowlog_max_len: AtomicI64,
    pub acllog_max_len: AtomicI64,
    pub latency_monitor_threshold: AtomicI64,
    pub latency_tracking: AtomicBool,
    pub latency_tracking_info_percentiles: Text,
    pub tracking_table_max_keys: AtomicI64,
}

/// The type of a setting: how it is stored, parsed and shown.
enum SettingKind {
    Integer {
        at: fn(&Config) -> &AtomicI64,
        min: i64,
        max: i64,
    },
    /// A number of bytes, which may have a unit (`64mb`).
    Memory {
        at: fn(&Config) -> &AtomicI64,
        min: i64,
        max: i64,
    },
    YesNo(fn(&Config) -> &AtomicBool),
    /// One of a list of words, stored as its index.
    Choice(fn(&Config) -> &AtomicUsize, &'static [&'static str]),
    Text(fn(&Config) -> &Text),
    /// A directory, which is shown as an absolute path.
    Directory(fn(&Config) -> &Text),
    /// Any number of `class hard soft seconds`; other classes keep their limits.
    OutputLimits(fn(&Config) -> &OutputLimits),
    /// Percentages, separated by spaces.
    Percentiles(fn(&Config) -> &Text),
    /// Letters of event classes.
    Events(fn(&Config) -> &WantedEvents),
}

/// Whether `CONFIG SET` may change a setting.
enum Mutability {
    Live,
    /// No: it can be set only when the server starts.
    AtStart,
    /// No: Redis requires `enable-protected-configs`, which we do not have.
    Protected,
}

/// A row of the settings table.
pub struct Setting {
    /// The name in `redis.conf`.
    pub name: &'static str,
    /// An older name that Redis still accepts, or empty.
    alias: &'static str,
    /// The default value.
    pub default: &'static str,
    /// What it is for, in a phrase.
    pub summary: &'static str,
    kind: SettingKind,
    mutability: Mutability,
    /// Whether the value may be several words.
    several_words: bool,
}

use Mutability::{AtStart, Live, Protected};

const fn row(
    name: &'static str,
    default: &'static str,
    mutability: Mutability,
    kind: SettingKind,
    summary: &'static str,
) -> Setting {
    Setting { name, alias: "", default, summary, kind, mutability, several_words: false }
}

const fn integer(at: fn(&Config) -> &AtomicI64, min: i64, max: i64) -> SettingKind {
    SettingKind::Integer { at, min, max }
}

impl Setting {
    const fn or(mut self, alias: &'static str) -> Setting {
        self.alias = alias;
        self
    }

    const fn several_words(mut self) -> Setting {
        self.several_words = true;
        self
    }
}

/// The client classes of `client-output-buffer-limit`, as Redis shows them.
const OUTPUT_CLASSES: [&str; 3] = ["normal", "slave", "pubsub"];
/// The values of `appendfsync`, in the order of [`FsyncPolicy`].
const FSYNC_POLICIES: &[&str] = &["everysec", "always", "no"];
/// The values of `loglevel`, in the order of [`Level`].
const LOG_LEVELS: &[&str] = &["debug", "verbose", "notice", "warning", "nothing"];

/// The only value of `save`. The setting exists because tools query it and many configuration files set it.
const NO_SNAPSHOTS: &[&str] = &[""];

/// The values of `enable-debug-command`.
const DEBUG_USERS: &[&str] = &["no", "yes", "local"];

/// When the log is synced to the disk, see
/// [persistence](https://redis.io/docs/latest/operate/oss_and_stack/management/persistence/).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FsyncPolicy {
    /// Once per second, by a background thread.
    EverySecond,
    /// Before every reply that reveals a change.
    Always,
    /// Whenever the operating system does it.
    No,
}

/// The table of settings.
#[rustfmt::skip]
pub static SETTINGS: &[Setting] = &[
    row("port", "6379", AtStart, integer(|c| &c.port, 0, 65535),
        "TCP port; 0 picks a free port or, with a `unixsocket`, disables TCP"),
    row("bind", "127.0.0.1 -::1", AtStart, SettingKind::Text(|c| &c.bind),
        "addresses to listen on, `*` for all; one with `-` in front may be unavailable").several_words(),
    row("unixsocket", "", AtStart, SettingKind::Text(|c| &c.unixsocket),
        "path of a Unix socket to listen on, in addition to TCP"),
    row("dir", ".", Protected, SettingKind::Directory(|c| &c.dir),
        "directory of the append-only file"),
    row("save", "", Live, SettingKind::Choice(|c| &c.save, NO_SNAPSHOTS),
        "snapshot schedule; there are no snapshots, so only the empty value is allowed"),
    row("appendonly", "yes", Live, SettingKind::YesNo(|c| &c.appendonly),
        "log changes to the append-only file, and replay it at startup"),
    row("appendfilename", "storage.aof", AtStart, SettingKind::Text(|c| &c.appendfilename),
        "name of the append-only file"),
    row("appendfsync", "everysec", Live, SettingKind::Choice(|c| &c.appendfsync, FSYNC_POLICIES),
        "when the file is synced to disk: `always` (before each reply), `everysec`, or `no` (by the system)"),
    row("aof-load-truncated", "yes", Live, SettingKind::YesNo(|c| &c.aof_load_truncated),
        "truncate a torn tail at startup; if `no`, the server refuses to start"),
    row("auto-aof-rewrite-percentage", "100", Live,
        integer(|c| &c.auto_aof_rewrite_percentage, 0, i32::MAX as i64),
        "growth of the file since the last rewrite, in percent, that starts a rewrite; 0 for never"),
    row("auto-aof-rewrite-min-size", "64mb", Live,
        SettingKind::Memory { at: |c| &c.auto_aof_rewrite_min_size, min: 0, max: i64::MAX },
        "size of the file below which no automatic rewrite starts"),
    row("requirepass", "", Live, SettingKind::Text(|c| &c.requirepass),
        "password of the default user; empty for none"),
    row("databases", "16", AtStart, integer(|c| &c.databases, 1, 65536),
        "number of databases"),
    row("maxclients", "10000", Live, integer(|c| &c.maxclients, 1, u32::MAX as i64),
        "maximum number of connections"),
    row("client-query-buffer-limit", "1gb", Live,
        SettingKind::Memory { at: |c| &c.client_query_buffer_limit, min: 1 << 20, max: i64::MAX },
        "maximum memory of commands queued after MULTI; beyond it the client is disconnected"),
    row("timeout", "0", Live, integer(|c| &c.timeout, 0, i32::MAX as i64),
        "seconds after which an idle connection is closed; 0 for never"),
    row("client-output-buffer-limit", "normal 0 0 0 replica 256mb 64mb 60 pubsub 32mb 8mb 60", Live,
        SettingKind::OutputLimits(|c| &c.client_output_buffer_limit),
        "output that may wait for a client before it is disconnected: class, hard limit, soft limit, seconds")
        .several_words(),
    row("loglevel", "notice", Live, SettingKind::Choice(|c| &c.loglevel, LOG_LEVELS),
        "least severity that is logged"),
    row("hash-max-listpack-entries", "512", Live,
        integer(|c| &c.hash_max_listpack_entries, 0, i64::MAX),
        "maximum number of fields in the compact form of a hash").or("hash-max-ziplist-entries"),
    row("hash-max-listpack-value", "64", Live,
        SettingKind::Memory { at: |c| &c.hash_max_listpack_value, min: 0, max: i64::MAX },
        "maximum length of a field or value in the compact form, in bytes").or("hash-max-ziplist-value"),
    row("hll-sparse-max-bytes", "3000", Live,
        SettingKind::Memory { at: |c| &c.hll_sparse_max_bytes, min: 0, max: i64::MAX },
        "maximum length of the sparse form of a HyperLogLog, in bytes"),
    row("proto-max-bulk-len", "512mb", Live,
        SettingKind::Memory { at: |c| &c.proto_max_bulk_len, min: 1 << 20, max: i64::MAX },
        "maximum length of an argument or a string value, in bytes"),
    row("notify-keyspace-events", "", Live, SettingKind::Events(|c| &c.notify_keyspace_events),
        "classes of keyspace events to publish, by letter, with `K` or `E` for the channels; empty for none"),
    row("enable-debug-command", "no", AtStart,
        SettingKind::Choice(|c| &c.enable_debug_command, DEBUG_USERS),
        "which clients may use `DEBUG`: none (`no`), all (`yes`), or those on this machine (`local`)"),
    row("slowlog-log-slower-than", "10000", Live,
        integer(|c| &c.slowlog_log_slower_than, -1, i64::MAX),
        "least duration of a command in the slow log, in microseconds; 0 for every command, -1 for none"),
    row("slowlog-max-len", "128", Live, integer(|c| &c.slowlog_max_len, 0, i64::MAX),
        "maximum number of entries in the slow log"),
    row("acllog-max-len", "128", Live, integer(|c| &c.acllog_max_len, 0, i64::MAX),
        "maximum number of failed logins in `ACL LOG`"),
    row("latency-monitor-threshold", "0", Live,
        integer(|c| &c.latency_monitor_threshold, 0, i64::MAX),
        "least duration of an event that `LATENCY` records, in milliseconds; 0 for none"),
    row("latency-tracking", "yes", Live, SettingKind::YesNo(|c| &c.latency_tracking),
        "keep a latency histogram of each command"),
    row("latency-tracking-info-percentiles", "50 99 99.9", Live,
        SettingKind::Percentiles(|c| &c.latency_tracking_info_percentiles),
        "percentiles that `INFO latencystats` shows").several_words(),
    row("tracking-table-max-keys", "1000000", Live,
        integer(|c| &c.tracking_table_max_keys, 0, i64::MAX),
        "maximum number of keys in the tracking table; 0 for no limit"),
];

/// A valid value of a setting.
enum Parsed {
    Integer(i64),
    YesNo(bool),
    Choice(usize),
    Text(String),
    OutputLimits(Vec<(usize, Limit)>),
    Events(EventClass),
}

impl Setting {
    fn find(name: &str) -> Option<&'static Setting> {
        let is = |known: &str| !known.is_empty() && known.eq_ignore_ascii_case(name);
        SETTINGS.iter().find(|setting| is(setting.name) || is(setting.alias))
    }

    fn parse(&self, text: &str) -> Result<Parsed, String> {
        match self.kind {
            SettingKind::Integer { min, max, .. } => {
                let value = integer::parse_i64(text.as_bytes())
                    .ok_or("argument couldn't be parsed into an integer")?;
                Parsed::within(value, min, max)
            }
            SettingKind::Memory { min, max, .. } => {
                let value = parse_memory(text).ok_or("argument must be a memory value")?;
                Parsed::within(value, min, max)
            }
            SettingKind::YesNo(_) if text.eq_ignore_ascii_case("yes") => Ok(Parsed::YesNo(true)),
            SettingKind::YesNo(_) if text.eq_ignore_ascii_case("no") => Ok(Parsed::YesNo(false)),
            SettingKind::YesNo(_) => Err("argument must be 'yes' or 'no'".into()),
            SettingKind::Choice(_, words) => {
                let is = |word: &&str| word.eq_ignore_ascii_case(text);
                words.iter().position(is).map(Parsed::Choice).ok_or_else(|| {
                    format!("argument(s) must be one of the following: {}", words.join(", "))
                })
            }
            SettingKind::Text(_) | SettingKind::Directory(_) => Ok(Parsed::Text(text.into())),
            SettingKind::OutputLimits(_) => parse_output_limits(text).map(Parsed::OutputLimits),
            SettingKind::Percentiles(_) => parse_percentiles(text).map(Parsed::Text),
            SettingKind::Events(_) => {
                let classes = EventClass::parse(text).map(Parsed::Events);
                classes.ok_or("Invalid event class character. Use 'Ag$lshzxeKEtmdn'.".into())
            }
        }
    }

    fn store(&self, config: &Config, value: Parsed) {
        match (&self.kind, value) {
            (
                SettingKind::Integer { at, .. } | SettingKind::Memory { at, .. },
                Parsed::Integer(value),
            ) => {
                at(config).store(value, Relaxed);
            }
            (SettingKind::YesNo(at), Parsed::YesNo(value)) => at(config).store(value, Relaxed),
            (SettingKind::Choice(at, _), Parsed::Choice(value)) => at(config).store(value, Relaxed),
            (
                SettingKind::Text(at) | SettingKind::Directory(at) | SettingKind::Percentiles(at),
                Parsed::Text(value),
            ) => {
                at(config).set(value);
            }
            (SettingKind::OutputLimits(at), Parsed::OutputLimits(limits)) => {
                limits.into_iter().for_each(|(class, limit)| at(config).class(class).set(limit));
            }
            (SettingKind::Events(at), Parsed::Events(classes)) => at(config).set(classes),
            _ => unreachable!("a setting parses into its own kind"),
        }
    }

    fn show(&self, config: &Config) -> String {
        match self.kind {
            SettingKind::Integer { at, .. } | SettingKind::Memory { at, .. } => {
                at(config).load(Relaxed).to_string()
            }
            SettingKind::YesNo(at) => if at(config).load(Relaxed) { "yes" } else { "no" }.into(),
            SettingKind::Choice(at, words) => words[at(config).load(Relaxed)].into(),
            SettingKind::Text(at) | SettingKind::Percentiles(at) => at(config).get(),
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

impl Parsed {
    fn within(value: i64, min: i64, max: i64) -> Result<Parsed, String> {
        if (min..=max).contains(&value) {
            return Ok(Parsed::Integer(value));
        }
        Err(format!("argument must be between {min} and {max} inclusive"))
    }
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
fn parse_memory(text: &str) -> Option<i64> {
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
    text[..digits].parse::<i64>().ok()?.checked_mul(unit)
}

/// Parses output limits into pairs of a class (its index) and its limit. The error texts are those of Redis.
fn parse_output_limits(text: &str) -> Result<Vec<(usize, Limit)>, String> {
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

impl Config {
    /// All settings with their default values.
    pub fn new() -> Config {
        let config = Config::default();
        for setting in SETTINGS {
            if let Ok(value) = setting.parse(setting.default) {
                setting.store(&config, value);
            }
        }
        config
    }

    /// Parses the command line: an optional configuration file, then options `--name value …`, which take
    /// precedence.
    ///
    /// # Errors
    /// A message that names the setting, and the line if it is in the file.
    pub fn from_args(args: &[String]) -> Result<Config, String> {
        let config = Config::new();
        let mut rest = args;
        if let Some((path, behind)) = args.split_first().filter(|(first, _)| !is_option(first)) {
            config.load_file(path)?;
            rest = behind;
        }
        while let Some((option, behind)) = rest.split_first() {
            let name = option.strip_prefix("--").unwrap_or_default();
            let values = behind.iter().position(|arg| is_option(arg)).unwrap_or(behind.len());
            config
                .set_at_start(name, &behind[..values])
                .map_err(|why| format!("bad setting '{option}': {why}"))?;
            rest = &behind[values..];
        }
        Ok(config)
    }

    /// Reads a configuration file: one setting per line, comments after `#`, optional quotes.
    fn load_file(&self, path: &str) -> Result<(), String> {
        let bytes = std::fs::read(path)
            .map_err(|error| format!("can't read the configuration file '{path}': {error}"))?;
        let whole = std::path::absolute(path).unwrap_or_else(|_| path.into());
        self.file.get_or_init(|| whole);
        for (number, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
            let line = line.trim_ascii();
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            let at = |why: &str| {
                let line = String::from_utf8_lossy(line);
                format!("{path}, line {}: '{line}': {why}", number + 1)
            };
            let words = crate::text::split_quoted(line).ok_or_else(|| at("unbalanced quotes"))?;
            let mut words = words.into_iter().map(String::from_utf8);
            let name = words.next().and_then(Result::ok).unwrap_or_default();
            let values: Result<Vec<String>, _> = words.collect();
            let values = values.map_err(|_| at("not UTF-8"))?;
            self.set_at_start(&name, &values).map_err(|why| at(&why))?;
        }
        Ok(())
    }

    fn set_at_start(&self, name: &str, values: &[String]) -> Result<(), String> {
        let setting = Setting::find(name).ok_or("unknown setting")?;
        if values.is_empty() || (values.len() > 1 && !setting.several_words) {
            return Err("wrong number of arguments".into());
        }
        setting.store(self, setting.parse(&values.join(" "))?);
        Ok(())
    }

    /// `CONFIG GET`: the names and values of the settings whose names match any of the patterns. A name
    /// without wildcards is returned in the spelling of the request.
    pub fn matching(&self, patterns: &[&[u8]]) -> Vec<(String, String)> {
        let is_pattern = |text: &[u8]| text.iter().any(|byte| b"*?[".contains(byte));
        let shown = |name: &str| {
            let matches = |pattern: &&&[u8]| {
                if is_pattern(pattern) {
                    glob::matches_ignoring_case(pattern, name.as_bytes())
                } else {
                    name.as_bytes().eq_ignore_ascii_case(pattern)
                }
            };
            let pattern = patterns.iter().find(matches).filter(|_| !name.is_empty())?;
            Some(if is_pattern(pattern) {
                name.to_string()
            } else {
                String::from_utf8_lossy(pattern).into()
            })
        };
        let names = |setting: &'static Setting| [(setting.name, setting), (setting.alias, setting)];
        let found = SETTINGS.iter().flat_map(names);
        found.filter_map(|(name, setting)| Some((shown(name)?, setting.show(self)))).collect()
    }

    /// `CONFIG SET`: changes all of the settings, or none if one of them is refused.
    ///
    /// # Errors
    /// The error text of Redis, without `ERR`.
    pub fn set(&self, pairs: &[(&[u8], &[u8])]) -> Result<(), String> {
        let refuse = |name: &str, why: &str| {
            format!("CONFIG SET failed (possibly related to argument '{name}') - {why}")
        };
        // Like Redis, check all names before any value.
        let mut settings: Vec<(&'static Setting, &str)> = Vec::new();
        for (name, _) in pairs {
            let name = String::from_utf8_lossy(name);
            let setting = Setting::find(&name).ok_or_else(|| {
                format!("Unknown option or number of arguments for CONFIG SET - '{name}'")
            })?;
            let is_alias = name.eq_ignore_ascii_case(setting.alias);
            let known = if is_alias { setting.alias } else { setting.name };
            match setting.mutability {
                AtStart => return Err(refuse(known, "can't set immutable config")),
                Protected => return Err(refuse(known, "can't set protected config")),
                Live => {}
            }
            if settings.iter().any(|(other, _)| std::ptr::eq(*other, setting)) {
                // In this error Redis shows the name as it was given.
                return Err(refuse(&name, "duplicate parameter"));
            }
            settings.push((setting, known));
        }
        let mut values = Vec::new();
        for ((setting, known), (_, value)) in settings.iter().zip(pairs) {
            let value = std::str::from_utf8(value).map_err(|_| "argument is not UTF-8".to_string());
            let value = value.and_then(|value| setting.parse(value));
            values.push(value.map_err(|why| refuse(known, &why))?);
        }
        for ((setting, _), value) in settings.iter().zip(values) {
            setting.store(self, value);
        }
        Ok(())
    }

    /// The configuration file that the server was started with, if any.
    pub fn file(&self) -> Option<&Path> {
        self.file.get().map(PathBuf::as_path)
    }

    /// The value of `appendfsync`.
    pub fn fsync_policy(&self) -> FsyncPolicy {
        match FSYNC_POLICIES[self.appendfsync.load(Relaxed)] {
            "always" => FsyncPolicy::Always,
            "no" => FsyncPolicy::No,
            _ => FsyncPolicy::EverySecond,
        }
    }

    /// Logs a line on stderr unless `loglevel` suppresses it. Never waits: see [`logger`].
    pub fn log_line(&self, level: Level, text: std::fmt::Arguments) {
        if level as usize >= self.loglevel.load(Relaxed) {
            logger::log(level, text);
        }
    }

    /// The path of the log.
    pub fn log_path(&self) -> PathBuf {
        PathBuf::from(self.dir.get()).join(self.appendfilename.get())
    }

    /// Whether a client may use `DEBUG`. `is_local` means that it is connected from this machine.
    pub fn allows_debug(&self, is_local: bool) -> bool {
        match DEBUG_USERS[self.enable_debug_command.load(Relaxed)] {
            "yes" => true,
            "local" => is_local,
            _ => false,
        }
    }

    /// The maximum number of entries in the slow log.
    pub fn slowlog_limit(&self) -> usize {
        self.slowlog_max_len.load(Relaxed).try_into().unwrap_or(usize::MAX)
    }

    /// The number of databases.
    pub fn database_count(&self) -> usize {
        self.databases.load(Relaxed) as usize
    }
}

fn is_option(arg: &str) -> bool {
    arg.starts_with("--")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(line: &str) -> Result<Config, String> {
        Config::from_args(&line.split_whitespace().map(String::from).collect::<Vec<_>>())
    }

    #[test]
    fn every_default_is_a_valid_value() {
        for setting in SETTINGS {
            assert!(setting.parse(setting.default).is_ok(), "{}", setting.name);
        }
    }

    #[test]
    fn a_setting_takes_all_words_up_to_the_next_option() {
        let config = args("--bind 127.0.0.1 ::1 --port 0").unwrap_or_default();
        assert_eq!(config.bind.get(), "127.0.0.1 ::1");
        assert_eq!(config.port.load(Relaxed), 0);
    }

    #[test]
    fn an_error_in_the_command_line_names_the_setting() {
        let refused = |line| args(line).err().unwrap_or_default();
        assert_eq!(refused("--prot 1"), "bad setting '--prot': unknown setting");
        let text = "bad setting '--port': argument couldn't be parsed into an integer";
        assert_eq!(refused("--port x"), text);
        assert_eq!(refused("--port 1 2"), "bad setting '--port': wrong number of arguments");
        assert_eq!(refused("--port"), "bad setting '--port': wrong number of arguments");
    }

    #[test]
    fn the_directory_is_shown_as_an_absolute_path() {
        let config = Config::new();
        let shown = || Setting::find("dir").map(|setting| setting.show(&config));
        let here = std::env::current_dir().expect("a directory");
        assert_eq!(shown().as_deref(), here.to_str());
        config.dir.set("data".into());
        assert_eq!(shown().as_deref(), here.join("data").to_str());
        assert_eq!(config.log_path(), PathBuf::from("data/storage.aof"));
    }

    #[test]
    fn config_set_changes_all_or_nothing() {
        let config = Config::new();
        assert!(config.set(&[(b"timeout", b"5"), (b"maxclients", b"x")]).is_err());
        assert_eq!(config.timeout.load(Relaxed), 0);
        assert!(config.set(&[(b"timeout", b"5"), (b"MAXCLIENTS", b"7")]).is_ok());
        assert_eq!(config.timeout.load(Relaxed), 5);
    }

    #[test]
    fn output_limits_change_only_for_the_classes_that_are_named() {
        let config = args("--client-output-buffer-limit pubsub 1k 2kb 3 Replica 4 5 6");
        let config = config.unwrap_or_default();
        let found = config.matching(&[b"client-output-buffer-limit"]).remove(0).1;
        assert_eq!(found, "normal 0 0 0 slave 4 5 6 pubsub 1000 2048 3");
        for refused in ["pubsub 1 2", "master 1 2 3", "pubsub -1 2 3", "pubsub 1 2 x"] {
            assert!(parse_output_limits(refused).is_err(), "{refused}");
        }
    }

    #[test]
    fn memory_sizes_have_units_of_1000_and_1024() {
        assert_eq!(parse_memory("1k"), Some(1000));
        assert_eq!(parse_memory("1Kb"), Some(1024));
        assert_eq!(parse_memory("2gb"), Some(2 << 30));
        assert_eq!(parse_memory("2x"), None);
        assert_eq!(parse_memory("9999999999gb"), None);
    }
}
