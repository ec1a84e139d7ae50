//! The settings of Redis and Valkey that have no effect here. They are accepted, so that any configuration
//! file starts the server, and shown by `CONFIG GET`, so that tools find them.
//!
//! Most are about things that do not exist here (replicas, a cluster, other types, snapshots); some about
//! what the standard library cannot change (the backlog of a listener, TCP keepalive, the title of a
//! process). The default is the value that describes what the server does. At the start, one line names the
//! settings that have another. Where another value would promise something that matters, only the default
//! is accepted. Rows are sorted by name.

use super::setting::Mutability::{AtStart, Live};
use super::setting::Shape::{Choice, Integer, Memory, Text, YesNo};
use super::setting::{Setting, signed, unsigned, unused};

const INT_MAX: i64 = i32::MAX as i64;
const UINT_MAX: i64 = u32::MAX as i64;

const NO_CLUSTER: &str = "there is no cluster mode here: remove the line";
const NO_TLS: &str = "there is no TLS here: remove the line, and let a proxy (stunnel) encrypt";
const NO_GROUP: &str = "the group of a socket cannot be set here: remove the line, and give the socket's \
                        directory that group";
const NO_TIMESTAMPS: &str = "the log has no times here: remove the line";
const NO_OOM_SCORE: &str = "the server does not change its OOM score: remove the line, and let the service \
                            manager do it (systemd: OOMScoreAdjust)";
const NO_SYSLOG: &str = "log lines go to stderr or 'logfile' here: remove the line, and let the service \
                         manager or logger(1) take stderr";
const NO_MODULES: &str = "there are no modules here: remove the line";

/// The lines of a configuration file that are no settings and have no counterpart here, and what to do.
pub(super) const REFUSED: &[(&str, &str)] = &[
    ("loadmodule", NO_MODULES),
    ("loadmodule-ex", NO_MODULES),
    ("sentinel", "there is no Sentinel mode here: remove the line"),
];

/// The table.
#[rustfmt::skip]
pub static UNUSED: &[Setting] = &[
    unused("active-defrag-cycle-max", "25", Live, Integer(signed(1, 99))),
    unused("active-defrag-cycle-min", "1", Live, Integer(signed(1, 99))),
    unused("active-defrag-cycle-us", "500", Live, Integer(signed(0, 100_000))),
    unused("active-defrag-ignore-bytes", "100mb", Live, Memory(unsigned(1, i64::MAX))),
    unused("active-defrag-max-scan-fields", "1000", Live, Integer(signed(1, i64::MAX))),
    unused("active-defrag-threshold-lower", "10", Live, Integer(signed(0, 1000))),
    unused("active-defrag-threshold-upper", "100", Live, Integer(signed(0, 1000))),
    unused("active-expire-effort", "1", Live, Integer(signed(1, 10))),
    unused("activedefrag", "no", Live, YesNo),
    unused("activerehashing", "yes", Live, YesNo),
    unused("always-show-logo", "no", AtStart, YesNo),
    unused("aof-disable-auto-gc", "no", Live, YesNo),
    unused("aof-rewrite-cpulist", "", AtStart, Text).or("aof_rewrite_cpulist"),
    unused("aof-rewrite-incremental-fsync", "yes", Live, YesNo),
    unused("aof-timestamp-enabled", "no", Live, YesNo).only_default(NO_TIMESTAMPS),
    unused("aof-use-rdb-preamble", "no", Live, YesNo),
    unused("bgsave-cpulist", "", AtStart, Text).or("bgsave_cpulist"),
    unused("bind-source-addr", "", Live, Text),
    unused("bio-cpulist", "", AtStart, Text).or("bio_cpulist"),
    unused("busy-reply-threshold", "5000", Live, Integer(signed(0, i64::MAX))).or("lua-time-limit"),
    unused("cluster-allow-pubsubshard-when-down", "yes", Live, YesNo),
    unused("cluster-allow-reads-when-down", "no", Live, YesNo),
    unused("cluster-allow-replica-migration", "yes", Live, YesNo),
    unused("cluster-announce-bus-port", "0", Live, Integer(signed(0, 65535))),
    unused("cluster-announce-client-ipv4", "", Live, Text),
    unused("cluster-announce-client-ipv6", "", Live, Text),
    unused("cluster-announce-client-port", "0", Live, Integer(signed(0, 65535))),
    unused("cluster-announce-client-tls-port", "0", Live, Integer(signed(0, 65535))),
    unused("cluster-announce-hostname", "", Live, Text),
    unused("cluster-announce-human-nodename", "", Live, Text),
    unused("cluster-announce-ip", "", Live, Text),
    unused("cluster-announce-port", "0", Live, Integer(signed(0, 65535))),
    unused("cluster-announce-tls-port", "0", Live, Integer(signed(0, 65535))),
    unused("cluster-blacklist-ttl", "60", Live, Integer(signed(0, i64::MAX))),
    unused("cluster-compatibility-sample-ratio", "0", Live, Integer(signed(0, 100))),
    unused("cluster-config-file", "nodes.conf", AtStart, Text),
    unused("cluster-config-save-behavior", "sync", Live, Choice(&["sync", "best-effort"])),
    unused("cluster-databases", "1", AtStart, Integer(signed(1, INT_MAX))),
    unused("cluster-enabled", "no", AtStart, YesNo).only_default(NO_CLUSTER),
    unused("cluster-link-sendbuf-limit", "0", Live, Memory(unsigned(0, i64::MAX))),
    unused("cluster-manual-failover-timeout", "5000", Live, Integer(signed(1, INT_MAX))),
    unused("cluster-migration-barrier", "1", Live, Integer(signed(0, INT_MAX))),
    unused("cluster-node-timeout", "15000", Live, Integer(signed(0, i64::MAX))),
    unused("cluster-port", "0", AtStart, Integer(signed(0, 65535))),
    unused("cluster-preferred-endpoint-type", "ip", Live, Choice(&["ip", "hostname", "unknown-endpoint"])),
    unused("cluster-replica-no-failover", "no", Live, YesNo).or("cluster-slave-no-failover"),
    unused("cluster-replica-validity-factor", "10", Live, Integer(signed(0, INT_MAX)))
        .or("cluster-slave-validity-factor"),
    unused("cluster-require-full-coverage", "yes", Live, YesNo),
    unused("cluster-slot-migration-log-max-len", "1000", Live, Integer(signed(0, i64::MAX))),
    unused("cluster-slot-stats-enabled", "no", Live, YesNo),
    unused("crash-memcheck-enabled", "yes", Live, YesNo),
    unused("disable-thp", "yes", AtStart, YesNo),
    unused("dual-channel-replication-enabled", "no", Live, YesNo),
    unused("dynamic-hz", "yes", Live, YesNo),
    unused("enable-module-command", "no", AtStart, Choice(&["no", "yes", "local"]))
        .only_default(NO_MODULES),
    unused("extended-redis-compatibility", "no", Live, YesNo),
    unused("hash-seed", "", AtStart, Text),
    unused("hide-user-data-from-log", "no", Live, YesNo),
    unused("ignore-warnings", "", Live, Text),
    unused("io-threads", "1", AtStart, Integer(signed(1, 128))),
    unused("io-threads-do-reads", "no", AtStart, YesNo),
    unused("jemalloc-bg-thread", "yes", Live, YesNo),
    unused("lazyfree-lazy-eviction", "no", Live, YesNo),
    unused("lazyfree-lazy-expire", "no", Live, YesNo),
    unused("lazyfree-lazy-server-del", "no", Live, YesNo),
    unused("lazyfree-lazy-user-del", "no", Live, YesNo),
    unused("lazyfree-lazy-user-flush", "no", Live, YesNo),
    unused("list-compress-depth", "0", Live, Integer(signed(0, INT_MAX))),
    unused("list-max-listpack-size", "-2", Live, Integer(signed(i32::MIN as i64, INT_MAX)))
        .or("list-max-ziplist-size"),
    unused("locale-collate", "", Live, Text),
    unused("max-new-connections-per-cycle", "10", Live, Integer(unsigned(1, 1000))),
    unused("max-new-tls-connections-per-cycle", "1", Live, Integer(unsigned(1, 1000))),
    unused("mptcp", "no", AtStart, YesNo),
    unused("oom-score-adj", "no", Live, Choice(&["no", "yes", "relative", "absolute"]))
        .only_default(NO_OOM_SCORE),
    unused("oom-score-adj-values", "0 200 800", Live, Text).several_words(),
    unused("prefetch-batch-max-size", "16", Live, Integer(signed(0, 128))),
    unused("proc-title-template", "{title} {listen-addr} {server-mode}", Live, Text),
    unused("propagation-error-behavior", "ignore", Live, Choice(&["ignore", "panic", "panic-on-replicas"])),
    unused("rdb-del-sync-files", "no", Live, YesNo),
    unused("rdb-save-incremental-fsync", "yes", Live, YesNo),
    unused("rdb-version-check", "strict", Live, Choice(&["strict", "relaxed"])),
    unused("repl-diskless-load", "disabled", Live, Choice(&["disabled", "on-empty-db", "swapdb"])),
    unused("repl-diskless-sync-max-replicas", "0", Live, Integer(signed(0, INT_MAX))),
    unused("repl-mptcp", "no", Live, YesNo),
    unused("replica-full-sync-buffer-limit", "0", Live, Memory(unsigned(0, i64::MAX))),
    unused("replica-ignore-disk-write-errors", "no", Live, YesNo),
    unused("replica-lazy-flush", "no", Live, YesNo).or("slave-lazy-flush"),
    unused("sanitize-dump-payload", "no", Live, Choice(&["no", "yes", "clients"])),
    unused("server-cpulist", "", AtStart, Text).or("server_cpulist"),
    unused("set-max-intset-entries", "512", Live, Integer(unsigned(0, i64::MAX))),
    unused("set-max-listpack-entries", "128", Live, Integer(unsigned(0, i64::MAX))),
    unused("set-max-listpack-value", "64", Live, Integer(unsigned(0, i64::MAX))),
    unused("set-proc-title", "yes", AtStart, YesNo),
    unused("shutdown-on-sigint", "default", Live, Choice(&["default", "save", "nosave", "now", "force"])),
    unused("shutdown-on-sigterm", "default", Live, Choice(&["default", "save", "nosave", "now", "force"])),
    unused("slot-migration-max-failover-repl-bytes", "0", Live, Memory(signed(-1, i64::MAX))),
    unused("socket-mark-id", "0", AtStart, Integer(unsigned(0, UINT_MAX))),
    unused("stream-node-max-bytes", "4096", Live, Memory(unsigned(0, i64::MAX))),
    unused("stream-node-max-entries", "100", Live, Integer(signed(0, i64::MAX))),
    unused("syslog-enabled", "no", AtStart, YesNo).only_default(NO_SYSLOG),
    unused("syslog-facility", "local0", AtStart,
        Choice(&["user", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7"])),
    unused("syslog-ident", "redis", AtStart, Text),
    unused("tcp-backlog", "128", AtStart, Integer(signed(0, INT_MAX))),
    unused("tcp-keepalive", "0", Live, Integer(signed(0, INT_MAX))),
    unused("tls-auth-clients", "yes", Live, Choice(&["no", "yes", "optional"])),
    unused("tls-auth-clients-user", "off", Live, Choice(&["off", "cn", "uri"])),
    unused("tls-auto-reload-interval", "0", Live, Integer(signed(0, INT_MAX))),
    unused("tls-ca-cert-dir", "", Live, Text),
    unused("tls-ca-cert-file", "", Live, Text),
    unused("tls-cert-file", "", Live, Text),
    unused("tls-ciphers", "", Live, Text),
    unused("tls-ciphersuites", "", Live, Text),
    unused("tls-client-cert-file", "", Live, Text),
    unused("tls-client-key-file", "", Live, Text),
    unused("tls-client-key-file-pass", "", Live, Text).secret(),
    unused("tls-cluster", "no", Live, YesNo),
    unused("tls-dh-params-file", "", Live, Text),
    unused("tls-key-file", "", Live, Text),
    unused("tls-key-file-pass", "", Live, Text).secret(),
    unused("tls-port", "0", Live, Integer(signed(0, 65535))).only_default(NO_TLS),
    unused("tls-prefer-server-ciphers", "no", Live, YesNo),
    unused("tls-protocols", "", Live, Text),
    unused("tls-replication", "no", Live, YesNo),
    unused("tls-session-cache-size", "20480", Live, Integer(signed(0, INT_MAX))),
    unused("tls-session-cache-timeout", "300", Live, Integer(signed(0, INT_MAX))),
    unused("tls-session-caching", "yes", Live, YesNo),
    unused("unixsocketgroup", "", AtStart, Text).only_default(NO_GROUP),
    unused("vset-force-single-threaded-execution", "no", Live, YesNo),
    unused("zset-max-listpack-entries", "128", Live, Integer(unsigned(0, i64::MAX)))
        .or("zset-max-ziplist-entries"),
    unused("zset-max-listpack-value", "64", Live, Memory(unsigned(0, i64::MAX)))
        .or("zset-max-ziplist-value"),
];
