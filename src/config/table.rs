//! The table of the settings that have an effect. A setting is a row here and a field of
//! [`Config`](super::Config).

use super::logger::{LOG_FORMATS, TIMESTAMPS};
use super::memory::POLICIES;
use super::setting::Mutability::{AtStart, Live, Protected};
use super::setting::SettingKind::{
    Choice, Directory, Events, FileName, Integer, Master, Memory, MemoryOrPercent, MemoryOrShare,
    OutputLimits, Percentiles, Permissions, Schedule, Text, YesNo,
};
use super::setting::{Setting, row, signed, unsigned};

const INT_MAX: i64 = i32::MAX as i64;

/// The values of `appendfsync`, in the order of [`FsyncPolicy`](super::FsyncPolicy).
pub(super) const FSYNC_POLICIES: &[&str] = &["everysec", "always", "no"];
/// The values of `loglevel`, in the order of [`Level`](super::Level).
const LOG_LEVELS: &[&str] = &["debug", "verbose", "notice", "warning", "nothing"];
/// The values of `rdb-field-expiry`.
pub(super) const DIALECTS: &[&str] = &["redis", "valkey"];
/// The values of `supervised`.
pub(super) const SUPERVISORS: &[&str] = &["no", "systemd", "auto"];

/// The values of `acl-pubsub-default`.
const CHANNEL_DEFAULTS: &[&str] = &["allchannels", "resetchannels"];
/// The values of `enable-debug-command` and `enable-protected-configs`.
pub(super) const ALLOWED: &[&str] = &["no", "yes", "local"];

/// The table of settings.
#[rustfmt::skip]
pub static SETTINGS: &[Setting] = &[
    row("port", "6379", Live, Integer(|c| &c.port, signed(0, 65535)),
        "TCP port; 0 picks a free port or, with a `unixsocket`, disables TCP")
        .listens("Unable to listen on this port. Check server logs."),
    row("bind", "127.0.0.1 -::1", Live, Text(|c| &c.bind),
        "addresses to listen on, `*` for all; one with `-` in front may be unavailable")
        .several_words().listens("Failed to bind to specified addresses."),
    row("unixsocket", "", AtStart, Text(|c| &c.unixsocket),
        "path of a Unix socket to listen on, in addition to TCP"),
    row("unixsocketperm", "0", AtStart, Permissions(|c| &c.unixsocketperm),
        "permissions of the Unix socket, in octal digits; 0 for those that the umask leaves"),
    row("protected-mode", "yes", Live, YesNo(|c| &c.protected_mode),
        "without a password, serve only clients on this machine"),
    row("dir", ".", Protected, Directory(|c| &c.dir),
        "directory of the append-only file and the RDB file")
        .logs("The log can't be written there. Check server logs."),
    row("save", "", Live, Schedule(|c| &c.save),
        "when to save an RDB file: after how many seconds if how many commands changed data, in pairs")
        .several_words(),
    row("dbfilename", "dump.rdb", Protected, FileName(|c| &c.dbfilename),
        "name of the RDB file, in `dir`"),
    row("stop-writes-on-bgsave-error", "yes", Live, YesNo(|c| &c.stop_writes_on_bgsave_error),
        "refuse writes while `save` is set and the last save in the background has failed"),
    row("appendonly", "yes", Live, YesNo(|c| &c.appendonly),
        "log changes to the append-only file, and replay it at startup; if `no`, the RDB file is loaded")
        .logs("Unable to turn on AOF. Check server logs."),
    row("appendfilename", "storage.aof", AtStart, Text(|c| &c.appendfilename),
        "name of the append-only file"),
    row("appenddirname", "appendonlydir", AtStart, FileName(|c| &c.appenddirname),
        "directory of a log that Redis left, which a start without a log loads"),
    row("appendfsync", "everysec", Live, Choice(|c| &c.appendfsync, FSYNC_POLICIES),
        "when the file is synced to disk: `always` (before each reply), `everysec`, or `no` (by the system)"),
    row("aof-load-truncated", "yes", Live, YesNo(|c| &c.aof_load_truncated),
        "truncate a torn tail at startup; if `no`, the server refuses to start"),
    row("no-appendfsync-on-rewrite", "no", Live, YesNo(|c| &c.no_appendfsync_on_rewrite),
        "do not sync the file while it is being rewritten, as if `appendfsync` were `no`"),
    row("auto-aof-rewrite-percentage", "100", Live,
        Integer(|c| &c.auto_aof_rewrite_percentage, signed(0, INT_MAX)),
        "growth of the file since the last rewrite, in percent, that starts a rewrite; 0 for never"),
    row("auto-aof-rewrite-min-size", "64mb", Live,
        Memory(|c| &c.auto_aof_rewrite_min_size, signed(0, i64::MAX)),
        "size of the file below which no automatic rewrite starts"),
    row("rdbcompression", "yes", Live, YesNo(|c| &c.rdbcompression),
        "compress strings in RDB files and `DUMP`"),
    row("rdbchecksum", "yes", AtStart, YesNo(|c| &c.rdbchecksum),
        "write a checksum into RDB files, and check it when they are loaded"),
    row("rdb-field-expiry", "redis", Live, Choice(|c| &c.rdb_field_expiry, DIALECTS),
        "who reads expiring fields in RDB files and `DUMP`: `redis` (since 7.4) or `valkey` (since 9)"),
    row("repl-timeout", "60", Live, Integer(|c| &c.repl_timeout, signed(1, INT_MAX)),
        "seconds without a word from the other side after which a link of replication is closed"),
    row("repl-ping-replica-period", "10", Live,
        Integer(|c| &c.repl_ping_replica_period, signed(1, INT_MAX)),
        "seconds between the pings that replicas get").or("repl-ping-slave-period"),
    row("repl-diskless-sync", "yes", Live, YesNo(|c| &c.repl_diskless_sync),
        "send a snapshot to replicas while it is taken; if `no`, when it is complete"),
    row("repl-backlog-size", "1mb", Live, Memory(|c| &c.repl_backlog_size, signed(1, i64::MAX)),
        "how much of the stream a rewrite of the log leaves readable for replicas that come back"),
    row("repl-backlog-ttl", "3600", Live, Integer(|c| &c.repl_backlog_ttl, signed(0, i64::MAX)),
        "seconds for which that is kept after the last replica has left; 0 for ever"),
    row("min-replicas-to-write", "0", Live,
        Integer(|c| &c.min_replicas_to_write, signed(0, INT_MAX)),
        "refuse writes with fewer good replicas than this; 0 for never").or("min-slaves-to-write"),
    row("min-replicas-max-lag", "10", Live, Integer(|c| &c.min_replicas_max_lag, signed(0, INT_MAX)),
        "seconds since its last acknowledgement after which a replica is not good; 0 for no such check")
        .or("min-slaves-max-lag"),
    row("shutdown-timeout", "10", Live, Integer(|c| &c.shutdown_timeout, signed(0, INT_MAX)),
        "seconds that `SHUTDOWN` waits for replicas that lag"),
    row("requirepass", "", Live, Text(|c| &c.requirepass),
        "password of the default user; empty for none").secret(),
    row("aclfile", "", AtStart, Text(|c| &c.aclfile),
        "file of users, for `ACL LOAD` and `ACL SAVE`; in `dir`, unless the path is absolute"),
    row("acl-pubsub-default", "resetchannels", Live,
        Choice(|c| &c.acl_pubsub_default, CHANNEL_DEFAULTS),
        "channels of a new user: none (`resetchannels`) or all (`allchannels`)"),
    row("databases", "16", AtStart, Integer(|c| &c.databases, signed(1, 65536)),
        "number of databases"),
    row("maxclients", "10000", Live, Integer(|c| &c.maxclients, unsigned(1, u32::MAX as i64)),
        "maximum number of connections").limits_clients(),
    row("maxmemory", "0", Live, MemoryOrShare(|c| &c.maxmemory),
        "memory beyond which keys are evicted or writes refused, in bytes, or `80%` of what the process may \
         use; 0 for no limit"),
    row("maxmemory-policy", "noeviction", Live, Choice(|c| &c.maxmemory_policy, POLICIES),
        "which keys are evicted: of all keys or of those that expire (`volatile-`), the least recently used \
         (`lru`) or modified (`lrm`), the least often used (`lfu`), any (`random`), those that expire \
         soonest (`ttl`), or none"),
    row("maxmemory-samples", "5", Live, Integer(|c| &c.maxmemory_samples, signed(1, 64)),
        "how thoroughly keys to evict are searched: this many times 64 are looked at"),
    row("maxmemory-eviction-tenacity", "10", Live,
        Integer(|c| &c.maxmemory_eviction_tenacity, signed(0, 100)),
        "how long a command may wait for evictions: up to 10 in steps of 50 microseconds, then growing, 100 \
         for no limit"),
    row("maxmemory-clients", "0", Live, MemoryOrPercent(|c| &c.maxmemory_clients),
        "memory of all clients' buffers, in bytes or in percent of `maxmemory`, beyond which the largest \
         clients are disconnected; 0 for no limit"),
    row("lfu-log-factor", "10", Live, Integer(|c| &c.lfu_log_factor, signed(0, INT_MAX)),
        "how many uses the LFU counter of a key distinguishes: the higher, the more"),
    row("lfu-decay-time", "1", Live, Integer(|c| &c.lfu_decay_time, signed(0, INT_MAX)),
        "minutes after which an LFU counter falls by one; 0 for never"),
    row("client-query-buffer-limit", "1gb", Live,
        Memory(|c| &c.client_query_buffer_limit, unsigned(1 << 20, i64::MAX)),
        "maximum memory of commands queued after MULTI; beyond it the client is disconnected"),
    row("timeout", "0", Live, Integer(|c| &c.timeout, signed(0, INT_MAX)),
        "seconds after which an idle connection is closed; 0 for never"),
    row("client-output-buffer-limit", "normal 0 0 0 replica 256mb 64mb 60 pubsub 32mb 8mb 60", Live,
        OutputLimits(|c| &c.client_output_buffer_limit),
        "output that may wait for a client before it is disconnected: class, hard limit, soft limit, seconds")
        .several_words(),
    row("loglevel", "notice", Live, Choice(|c| &c.loglevel, LOG_LEVELS),
        "least severity that is logged"),
    row("logfile", "", AtStart, Text(|c| &c.logfile),
        "file for log lines, which is opened for each batch of them; empty for stderr"),
    row("log-format", "legacy", Live, Choice(|c| &c.log_format, LOG_FORMATS),
        "format of log lines: `legacy`, or `logfmt` (`key=value`)"),
    row("log-timestamp-format", "legacy", Live, Choice(|c| &c.log_timestamp_format, TIMESTAMPS),
        "time in log lines: `legacy`, `iso8601`, or `milliseconds` since 1970"),
    row("crash-log-enabled", "yes", Live, YesNo(|c| &c.crash_log_enabled),
        "log a backtrace when a thread panics"),
    row("daemonize", "no", AtStart, YesNo(|c| &c.daemonize),
        "run in the background: the process starts another one, and ends when that is ready"),
    row("pidfile", "", AtStart, Text(|c| &c.pidfile),
        "file for the process id; with `daemonize`, `/var/run/redis.pid` if it is not set"),
    row("supervised", "no", AtStart, Choice(|c| &c.supervised, SUPERVISORS),
        "tell the service manager when the server is ready: `no`, or `systemd` or `auto` by `NOTIFY_SOCKET`"),
    row("hz", "10", Live, Integer(|c| &c.hz, signed(0, INT_MAX).stored_within(1, 500)),
        "how often per second expired keys are removed in the background"),
    row("availability-zone", "", Live, Text(|c| &c.availability_zone),
        "name of the zone that `INFO` shows"),
    row("hash-max-listpack-entries", "512", Live,
        Integer(|c| &c.hash_max_listpack_entries, unsigned(0, i64::MAX)),
        "maximum number of fields in the compact form of a hash").or("hash-max-ziplist-entries"),
    row("hash-max-listpack-value", "64", Live,
        Memory(|c| &c.hash_max_listpack_value, unsigned(0, i64::MAX)),
        "maximum length of a field or value in the compact form, in bytes").or("hash-max-ziplist-value"),
    row("hll-sparse-max-bytes", "3000", Live,
        Memory(|c| &c.hll_sparse_max_bytes, unsigned(0, i64::MAX)),
        "maximum length of the sparse form of a HyperLogLog, in bytes"),
    row("proto-max-bulk-len", "512mb", Live,
        Memory(|c| &c.proto_max_bulk_len, signed(1 << 20, i64::MAX)),
        "maximum length of an argument or a string value, in bytes"),
    row("notify-keyspace-events", "", Live, Events(|c| &c.notify_keyspace_events),
        "classes of keyspace events to publish, by letter, with `K` or `E` for the channels; empty for none"),
    row("enable-debug-command", "no", AtStart,
        Choice(|c| &c.enable_debug_command, ALLOWED),
        "which clients may use `DEBUG`: none (`no`), all (`yes`), or those on this machine (`local`)"),
    row("enable-protected-configs", "no", AtStart,
        Choice(|c| &c.enable_protected_configs, ALLOWED),
        "which clients may set `dir`: none (`no`), all (`yes`), or those on this machine (`local`)"),
    row("slowlog-log-slower-than", "10000", Live,
        Integer(|c| &c.slowlog_log_slower_than, signed(-1, i64::MAX)),
        "least duration of a command in the slow log, in microseconds; 0 for every command, -1 for none")
        .or("commandlog-execution-slower-than"),
    row("slowlog-max-len", "128", Live, Integer(|c| &c.slowlog_max_len, signed(0, i64::MAX)),
        "maximum number of entries in the slow log").or("commandlog-slow-execution-max-len"),
    row("commandlog-request-larger-than", "1048576", Live,
        Integer(|c| &c.commandlog_request_larger_than, signed(-1, i64::MAX)),
        "least size of a request in its `COMMANDLOG`, in bytes; -1 for none"),
    row("commandlog-large-request-max-len", "128", Live,
        Integer(|c| &c.commandlog_large_request_max_len, signed(0, i64::MAX)),
        "maximum number of large requests in `COMMANDLOG`"),
    row("commandlog-reply-larger-than", "1048576", Live,
        Integer(|c| &c.commandlog_reply_larger_than, signed(-1, i64::MAX)),
        "least size of a reply in its `COMMANDLOG`, in bytes; -1 for none"),
    row("commandlog-large-reply-max-len", "128", Live,
        Integer(|c| &c.commandlog_large_reply_max_len, signed(0, i64::MAX)),
        "maximum number of large replies in `COMMANDLOG`"),
    row("replicaof", "", AtStart, Master(|c| &c.replicaof),
        "master to copy: host and port; empty, or `no one`, for none. `REPLICAOF` changes it")
        .or("slaveof").several_words(),
    row("masteruser", "", Live, Text(|c| &c.masteruser),
        "user to log in as on the master; empty for the default user").or("primaryuser").secret(),
    row("masterauth", "", Live, Text(|c| &c.masterauth),
        "password for the master; empty for none").or("primaryauth").secret(),
    row("replica-serve-stale-data", "yes", Live, YesNo(|c| &c.replica_serve_stale_data),
        "let a replica answer while its link to the master is down").or("slave-serve-stale-data"),
    row("replica-read-only", "yes", Live, YesNo(|c| &c.replica_read_only),
        "let a replica refuse writes; what clients write on one that does not is not logged")
        .or("slave-read-only"),
    row("replica-priority", "100", Live, Integer(|c| &c.replica_priority, signed(0, INT_MAX)),
        "the lower, the sooner Sentinel promotes this replica; 0 for never").or("slave-priority"),
    row("replica-announced", "yes", Live, YesNo(|c| &c.replica_announced),
        "let Sentinel tell clients of this replica"),
    row("replica-announce-ip", "", Live, Text(|c| &c.replica_announce_ip),
        "address under which the master lists this replica; empty for the one that it sees")
        .or("slave-announce-ip"),
    row("replica-announce-port", "0", Live,
        Integer(|c| &c.replica_announce_port, signed(0, 65535)),
        "port under which the master lists this replica; 0 for `port`").or("slave-announce-port"),
    row("replica-ignore-maxmemory", "yes", Live, YesNo(|c| &c.replica_ignore_maxmemory),
        "let a replica evict nothing of its own: evictions come from the master")
        .or("slave-ignore-maxmemory"),
    row("import-mode", "no", Live, YesNo(|c| &c.import_mode),
        "remove no expired keys in the background, and let none expire for a `CLIENT IMPORT-SOURCE`"),
    row("acllog-max-len", "128", Live, Integer(|c| &c.acllog_max_len, signed(0, i64::MAX)),
        "maximum number of entries in `ACL LOG`"),
    row("latency-monitor-threshold", "0", Live,
        Integer(|c| &c.latency_monitor_threshold, signed(0, i64::MAX)),
        "least duration of an event that `LATENCY` records, in milliseconds; 0 for none"),
    row("latency-tracking", "yes", Live, YesNo(|c| &c.latency_tracking),
        "keep a latency histogram of each command"),
    row("latency-tracking-info-percentiles", "50 99 99.9", Live,
        Percentiles(|c| &c.latency_tracking_info_percentiles),
        "percentiles that `INFO latencystats` shows").several_words(),
    row("tracking-table-max-keys", "1000000", Live,
        Integer(|c| &c.tracking_table_max_keys, unsigned(0, i64::MAX)),
        "maximum number of keys in the tracking table; 0 for no limit"),
];
