//! The settings. The command line, the configuration file, `CONFIG GET`, `CONFIG SET` and `CONFIG REWRITE`
//! are all derived from two tables.
//!
//! A setting is a row of [`SETTINGS`] and a field of [`Config`]. The settings of Redis and Valkey that have
//! no effect here are rows of [`UNUSED`]; their values are only stored and shown. The fields are atomics (or
//! texts behind small locks), because all connection threads read them while `CONFIG SET` changes them. A
//! change takes effect with the next read; no lock is held for longer than it takes to copy a text.
//!
//! Names, ranges, defaults and error texts are those of Redis, as in its
//! [`redis.conf`](https://redis.io/docs/latest/operate/oss_and_stack/management/config-file/), apart from
//! three defaults: `appendonly yes`, `appendfilename storage.aof` and `bind 127.0.0.1 -::1`.

pub mod events;
pub mod logger;
mod memory;
pub mod process;
mod rewrite;
mod setting;
mod startup;
mod table;
pub mod trace;
mod unused;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, OnceLock, PoisonError, RwLock};

use crate::text::glob;
use events::WantedEvents;
pub use logger::Level;
use logger::log_line;
pub use memory::{EvictionOrder, EvictionPolicy, MachineMemory, kilobytes};
pub use rewrite::{UserLine, replace_file};
pub use setting::{Consequence, Setting};
use setting::{Mutability, SettingKind};
pub use table::SETTINGS;
use table::{ALLOWED, FSYNC_POLICIES};
pub use unused::UNUSED;

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

    /// Replaces the text.
    pub fn set(&self, text: String) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = text;
    }
}

/// The values of [`UNUSED`] settings that are not the defaults, by name.
#[derive(Default)]
struct UnusedValues(RwLock<BTreeMap<&'static str, String>>);

impl UnusedValues {
    fn get(&self, name: &str) -> Option<String> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    fn set(&self, name: &'static str, value: String) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(name, value);
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
    /// Replicas. They are fed from files, so the value is only stored and shown.
    pub replica: OutputLimit,
    /// Subscribers, and unlike in Redis also monitors.
    pub pubsub: OutputLimit,
}

impl OutputLimits {
    fn class(&self, number: usize) -> &OutputLimit {
        [&self.normal, &self.replica, &self.pubsub][number]
    }
}

/// A `rename-command`: the name of a command, and the one that clients shall use; if that is empty, they
/// cannot call it any more.
#[derive(Clone)]
#[allow(missing_docs)]
pub struct Rename {
    pub from: Vec<u8>,
    pub to: Vec<u8>,
}

/// The current values of all settings. The rows of [`SETTINGS`] say what they mean.
#[derive(Default)]
#[allow(missing_docs)]
pub struct Config {
    /// The configuration file that the server was started with.
    file: OnceLock<PathBuf>,
    unused: UnusedValues,
    users: Mutex<Vec<Vec<Vec<u8>>>>,
    renames: Mutex<Vec<Rename>>,
    pub port: AtomicI64,
    pub maxmemory: AtomicI64,
    /// What it was set to, if that was a percentage; else 0.
    pub maxmemory_percent: AtomicI64,
    pub maxmemory_policy: AtomicUsize,
    pub maxmemory_samples: AtomicI64,
    pub maxmemory_eviction_tenacity: AtomicI64,
    /// Negative: a share of `maxmemory` in percent.
    pub maxmemory_clients: AtomicI64,
    pub lfu_log_factor: AtomicI64,
    pub lfu_decay_time: AtomicI64,
    pub bind: Text,
    pub unixsocket: Text,
    pub dir: Text,
    pub unixsocketperm: AtomicI64,
    pub protected_mode: AtomicBool,
    pub save: Text,
    pub appendonly: AtomicBool,
    pub appendfilename: Text,
    pub appenddirname: Text,
    pub appendfsync: AtomicUsize,
    pub aof_load_truncated: AtomicBool,
    pub no_appendfsync_on_rewrite: AtomicBool,
    pub auto_aof_rewrite_percentage: AtomicI64,
    pub auto_aof_rewrite_min_size: AtomicI64,
    pub dbfilename: Text,
    pub stop_writes_on_bgsave_error: AtomicBool,
    pub rdbcompression: AtomicBool,
    pub rdbchecksum: AtomicBool,
    pub rdb_field_expiry: AtomicUsize,
    pub repl_timeout: AtomicI64,
    pub repl_ping_replica_period: AtomicI64,
    pub repl_diskless_sync: AtomicBool,
    pub repl_diskless_sync_delay: AtomicI64,
    pub repl_disable_tcp_nodelay: AtomicBool,
    pub repl_backlog_size: AtomicI64,
    pub repl_backlog_ttl: AtomicI64,
    pub min_replicas_to_write: AtomicI64,
    pub min_replicas_max_lag: AtomicI64,
    pub shutdown_timeout: AtomicI64,
    pub requirepass: Text,
    pub aclfile: Text,
    pub acl_pubsub_default: AtomicUsize,
    pub databases: AtomicI64,
    pub maxclients: AtomicI64,
    pub client_query_buffer_limit: AtomicI64,
    pub timeout: AtomicI64,
    pub client_output_buffer_limit: OutputLimits,
    pub loglevel: AtomicUsize,
    pub logfile: Text,
    pub log_format: AtomicUsize,
    pub log_timestamp_format: AtomicUsize,
    pub crash_log_enabled: AtomicBool,
    pub daemonize: AtomicBool,
    pub pidfile: Text,
    pub supervised: AtomicUsize,
    pub hz: AtomicI64,
    pub availability_zone: Text,
    pub hash_max_listpack_entries: AtomicI64,
    pub hash_max_listpack_value: AtomicI64,
    pub hll_sparse_max_bytes: AtomicI64,
    pub proto_max_bulk_len: AtomicI64,
    pub notify_keyspace_events: WantedEvents,
    pub enable_debug_command: AtomicUsize,
    pub enable_protected_configs: AtomicUsize,
    pub slowlog_log_slower_than: AtomicI64,
    pub slowlog_max_len: AtomicI64,
    pub commandlog_request_larger_than: AtomicI64,
    pub commandlog_large_request_max_len: AtomicI64,
    pub commandlog_reply_larger_than: AtomicI64,
    pub commandlog_large_reply_max_len: AtomicI64,
    pub replicaof: Text,
    pub masteruser: Text,
    pub masterauth: Text,
    pub replica_serve_stale_data: AtomicBool,
    pub replica_read_only: AtomicBool,
    pub replica_priority: AtomicI64,
    pub replica_announced: AtomicBool,
    pub replica_announce_ip: Text,
    pub replica_announce_port: AtomicI64,
    pub replica_ignore_maxmemory: AtomicBool,
    pub import_mode: AtomicBool,
    pub acllog_max_len: AtomicI64,
    pub latency_monitor_threshold: AtomicI64,
    pub latency_tracking: AtomicBool,
    pub latency_tracking_info_percentiles: Text,
    pub tracking_table_max_keys: AtomicI64,
}

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

impl Config {
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
        let found = Setting::all().flat_map(names);
        found.filter_map(|(name, setting)| Some((shown(name)?, setting.show(self)))).collect()
    }

    /// `CONFIG SET`: changes all of the settings, or none if one of them is refused.
    ///
    ///
    /// # Errors
    /// The error text of Redis, without `ERR`.
    pub fn set(&self, pairs: &[(&[u8], &[u8])]) -> Result<(), String> {
        self.set_as(true, pairs, |_| Ok(()))
    }

    /// The same for a client; `is_local` means that it is connected from this machine. `follow` does what the
    /// new values ask for, or nothing; then the old values are restored.
    ///
    /// # Errors
    /// The error text of Redis, without `ERR`.
    pub fn set_as(
        &self,
        is_local: bool,
        pairs: &[(&[u8], &[u8])],
        follow: impl Fn(Consequence) -> Result<(), String>,
    ) -> Result<(), String> {
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
                Mutability::AtStart => return Err(refuse(known, "can't set immutable config")),
                Mutability::Protected if !allows(&self.enable_protected_configs, is_local) => {
                    return Err(refuse(known, "can't set protected config"));
                }
                Mutability::Protected | Mutability::Live => {}
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
            let value = value.and_then(|value| {
                self.check_directory(setting, value)?;
                setting.parse(value)
            });
            values.push(value.map_err(|why| refuse(known, &why))?);
        }
        let old = settings.iter().map(|(setting, _)| setting.show_in_file(self));
        let old: Vec<String> = old.collect();
        for ((setting, _), value) in settings.iter().zip(values) {
            setting.store(self, value);
        }
        let mut followed = Vec::new();
        for (setting, known) in &settings {
            let Some((consequence, error)) = setting.consequence else { continue };
            if followed.contains(&consequence) {
                continue;
            }
            let Err(why) = follow(consequence) else {
                followed.push(consequence);
                continue;
            };
            log_line!(self, Warning, "CONFIG SET {known}: {why}");
            for ((setting, _), value) in settings.iter().zip(old) {
                setting.parse(&value).map(|value| setting.store(self, value)).unwrap_or_default();
            }
            for consequence in followed {
                follow(consequence).unwrap_or_else(|why| log_line!(self, Warning, "{why}"));
            }
            return Err(refuse(known, if error.is_empty() { &why } else { error }));
        }
        Ok(())
    }

    /// Checks that the log can move to another directory.
    fn check_directory(&self, setting: &Setting, path: &str) -> Result<(), String> {
        let SettingKind::Directory(at) = setting.kind else { return Ok(()) };
        let (old, new) = (std::fs::canonicalize(at(self).get()), std::fs::canonicalize(path));
        let new = new.ok().filter(|new| new.is_dir()).ok_or("No such file or directory")?;
        let is_other = old.ok().as_ref() != Some(&new);
        if is_other && new.join(self.appendfilename.get()).exists() {
            return Err("there is a log in that directory".into());
        }
        Ok(())
    }

    /// The configuration file that the server was started with, if any.
    pub fn file(&self) -> Option<&Path> {
        self.file.get().map(PathBuf::as_path)
    }

    /// What `rename-command` asks for, in its order.
    pub fn renames(&self) -> Vec<Rename> {
        self.renames.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The users that the command line and the configuration file define: each has a name and then rules.
    pub fn users(&self) -> Vec<Vec<Vec<u8>>> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The value of `appendfsync`.
    pub fn fsync_policy(&self) -> FsyncPolicy {
        match FSYNC_POLICIES[self.appendfsync.load(Relaxed)] {
            "always" => FsyncPolicy::Always,
            "no" => FsyncPolicy::No,
            _ => FsyncPolicy::EverySecond,
        }
    }

    /// Whether hashes with expiring fields are written for Valkey, not for Redis.
    pub fn writes_for_valkey(&self) -> bool {
        table::DIALECTS[self.rdb_field_expiry.load(Relaxed)] == "valkey"
    }

    /// Which keys are evicted when memory is full, by `maxmemory-policy`; `None` for none.
    #[inline]
    pub fn eviction_policy(&self) -> Option<EvictionPolicy> {
        memory::policy(self.maxmemory_policy.load(Relaxed))
    }

    /// Whether `maxmemory-policy` counts the uses of keys (LFU).
    #[inline(always)]
    pub fn counts_uses(&self) -> bool {
        memory::counts_uses(self.maxmemory_policy.load(Relaxed))
    }

    /// Whether with `maxmemory-policy` only a change counts as a use (LRM).
    #[inline(always)]
    pub fn ignores_reads(&self) -> bool {
        memory::ignores_reads(self.maxmemory_policy.load(Relaxed))
    }

    /// The value of `maxmemory-policy`.
    pub fn eviction_policy_name(&self) -> &'static str {
        memory::POLICIES[self.maxmemory_policy.load(Relaxed)]
    }

    /// The most memory that the buffers of all clients may take, in bytes (`maxmemory-clients`); 0 for no
    /// limit.
    pub fn maxmemory_clients(&self) -> u64 {
        match self.maxmemory_clients.load(Relaxed) {
            // A share of `maxmemory`.
            percent @ ..0 => self.maxmemory.load(Relaxed) as u64 / 100 * percent.unsigned_abs(),
            bytes => bytes as u64,
        }
    }

    /// Logs a line on stderr unless `loglevel` suppresses it. Never waits: see [`logger`].
    pub fn log_line(&self, level: Level, text: std::fmt::Arguments) {
        if level as usize >= self.loglevel.load(Relaxed) {
            let (format, times) = (&self.log_format, &self.log_timestamp_format);
            logger::log_in(format.load(Relaxed), times.load(Relaxed), level, text);
        }
    }

    /// The path of the log.
    pub fn log_path(&self) -> PathBuf {
        PathBuf::from(self.dir.get()).join(self.appendfilename.get())
    }

    /// The path of the RDB file.
    pub fn dump_path(&self) -> PathBuf {
        PathBuf::from(self.dir.get()).join(self.dbfilename.get())
    }

    /// When the RDB file is saved (`save`): after so many seconds, if there were so many changes.
    pub fn save_points(&self) -> Vec<(u64, u64)> {
        let schedule = self.save.get();
        let numbers: Vec<u64> = schedule.split_whitespace().flat_map(str::parse).collect();
        numbers.as_chunks().0.iter().map(|[seconds, changes]| (*seconds, *changes)).collect()
    }

    /// Whether a client may use `DEBUG`. `is_local` means that it is connected from this machine.
    pub fn allows_debug(&self, is_local: bool) -> bool {
        allows(&self.enable_debug_command, is_local)
    }

    /// The maximum number of entries in the slow log.
    pub fn slowlog_limit(&self) -> usize {
        self.slowlog_max_len.load(Relaxed).try_into().unwrap_or(usize::MAX)
    }

    /// The maximum number of connections.
    pub fn client_limit(&self) -> usize {
        usize::try_from(self.maxclients.load(Relaxed)).unwrap_or(usize::MAX)
    }

    /// Lowers `maxclients` to the number for which there are descriptors.
    pub fn lower_client_limit(&self, possible: usize) {
        let wanted = self.client_limit();
        if possible < wanted {
            self.maxclients.store(possible as i64, Relaxed);
            log_line!(
                self,
                Warning,
                "'maxclients' is {possible} instead of {wanted}, because the limit on open files allows no \
                 more. Raise it with 'ulimit -n'."
            );
        }
    }

    /// The number of databases.
    pub fn database_count(&self) -> usize {
        self.databases.load(Relaxed) as usize
    }
}

/// Whether the setting with the values [`ALLOWED`] allows something to a client.
fn allows(setting: &AtomicUsize, is_local: bool) -> bool {
    match ALLOWED[setting.load(Relaxed)] {
        "yes" => true,
        "local" => is_local,
        _ => false,
    }
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
            assert!(setting::parse_output_limits(refused).is_err(), "{refused}");
        }
    }

    #[test]
    fn memory_sizes_have_units_of_1000_and_1024() {
        assert_eq!(setting::parse_memory("1k"), Some(1000));
        assert_eq!(setting::parse_memory("1Kb"), Some(1024));
        assert_eq!(setting::parse_memory("2gb"), Some(2 << 30));
        assert_eq!(setting::parse_memory("2x"), None);
        assert_eq!(setting::parse_memory("99999999999gb"), None);
    }
}
