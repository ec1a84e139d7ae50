//! What all connections share: settings, data, log, registries, statistics.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU16, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::Sender;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use super::clients::{Client, Clients};
use super::users::Users;
use crate::aof::Aof;
use crate::config::logger::log_line;
use crate::config::{Config, FsyncPolicy};
use crate::files::nameless;
use crate::net::pause::Pause;
use crate::net::poll::PollPermit;
use crate::rdb::progress::Current;
use crate::rdb::read::Loaded;
use crate::rdb::{Saves, save};
use crate::replication::Replication;
use crate::replication::identity::random_id;
use crate::replication::upstream::{Address, Failover, Upstream};
use crate::stats::{Stats, unix_seconds};
use crate::store::{Garbage, Keyspace};
use crate::watchers::pubsub::PubSub;
use crate::watchers::tracking::Tracking;

/// What all connections share.
pub struct Server {
    pub config: Arc<Config>,
    pub keyspace: Keyspace,
    pub aof: Aof,
    /// The users and their rights.
    pub users: Users,
    /// The registry of connections.
    pub clients: Clients,
    /// Subscriptions and monitors.
    pub pubsub: PubSub,
    /// Client-side caching.
    pub tracking: Tracking,
    /// `CLIENT PAUSE`.
    pub pause: Pause,
    pub stats: Stats,
    /// Which connection's thread may poll instead of sleeping: one at a time.
    pub poll_permit: PollPermit,
    /// The number of writer threads ([`crate::net::outbox`]).
    pub writers: AtomicUsize,
    /// The log is being replayed at startup: only commands that need no data are answered.
    pub loading: AtomicBool,
    /// The TCP port that the server listens on; 0 without one.
    pub port: AtomicU16,
    /// Opens other TCP listeners, after the settings about them have changed.
    pub relisten: OnceLock<Relisten>,
    /// When the process started.
    pub started: Instant,
    /// Identifies this run of the server: 40 hexadecimal digits.
    pub run_id: String,
    /// How saves of the RDB file are going.
    pub saves: Saves,
    /// The master that this server copies, if it is a replica.
    pub upstream: Upstream,
    /// The log as a stream for replicas.
    pub replication: Replication,
    /// Writes may have to be refused. Set by [`Server::note_write_limits`].
    write_limits: AtomicBool,
    /// What everything but the data takes, in bytes, as of the last [`Server::measure_memory`].
    overhead_bytes: AtomicUsize,
    /// The most memory that was ever used, as far as it was measured.
    peak_bytes: AtomicUsize,
    /// When that was: Unix time in seconds.
    peak_at: AtomicI64,
    garbage: Sender<Garbage>,
    snapshots: Sender<Snapshot>,
}

/// What the thread does that takes snapshots.
pub enum Snapshot {
    /// A rewrite of the log.
    Rewrite,
    /// A save of the RDB file.
    Save,
}

/// See [`Server::relisten`]. After an error, the server listens as before.
type Relisten = Box<dyn Fn() -> Result<(), String> + Send + Sync>;

impl Server {
    /// A server without listeners. Values that take long to free are sent to `garbage`; a message to
    /// `snapshots` starts a rewrite of the log or a save.
    pub fn new(
        config: Arc<Config>,
        aof: Aof,
        garbage: Sender<Garbage>,
        snapshots: Sender<Snapshot>,
    ) -> Server {
        let keyspace = Keyspace::new(config.clone());
        let saves = Saves::default();
        saves.since(unix_seconds());
        let fixed_bytes = keyspace.fixed_bytes();
        Server {
            tracking: Tracking::new(config.clone(), keyspace.tracked().clone()),
            upstream: Upstream::new(keyspace.follows().clone()),
            keyspace,
            users: Users::new(&config.requirepass.get()),
            pubsub: PubSub::new(config.clone()),
            config,
            aof,
            clients: Clients::default(),
            pause: Pause::default(),
            stats: Stats::default(),
            poll_permit: PollPermit::default(),
            writers: AtomicUsize::new(0),
            loading: AtomicBool::new(false),
            port: AtomicU16::new(0),
            relisten: OnceLock::new(),
            started: Instant::now(),
            run_id: random_id(),
            overhead_bytes: AtomicUsize::new(fixed_bytes),
            peak_bytes: AtomicUsize::new(0),
            peak_at: AtomicI64::new(unix_seconds() as i64),
            garbage,
            saves,
            replication: Replication::default(),
            write_limits: AtomicBool::new(false),
            snapshots,
        }
    }

    /// The memory that the data, the clients and the tables take, in bytes. What waits to be written into the
    /// log is not counted.
    pub fn used_memory(&self) -> usize {
        self.keyspace.data_bytes() + self.overhead_bytes.load(Relaxed)
    }

    /// Whether more memory is used than `maxmemory` allows.
    #[inline]
    pub fn is_full(&self) -> bool {
        let limit = self.config.maxmemory.load(Relaxed);
        limit > 0 && self.used_memory() as u64 > limit as u64
    }

    /// Counts the time for which memory exceeds its limit.
    pub fn note_excess(&self) {
        self.stats.excess.note(self.is_full() && !self.evicts_nothing());
    }

    /// Measures what clients and tables take. Costs time in proportion to the number of clients.
    pub fn measure_memory(&self) {
        let overhead = self.keyspace.fixed_bytes()
            + self.clients.all().iter().map(|client| client.own_bytes()).sum::<usize>()
            + self.tracking.memory_bytes()
            + self.pubsub.memory_bytes();
        self.overhead_bytes.store(overhead, Relaxed);
        let used = self.used_memory();
        if self.peak_bytes.fetch_max(used, Relaxed) < used {
            self.peak_at.store(unix_seconds() as i64, Relaxed);
        }
    }

    /// The memory of all clients, as `CLIENT LIST` shows it.
    pub fn clients_bytes(&self) -> usize {
        self.clients.all().iter().map(|client| client.memory_bytes()).sum()
    }

    /// The most memory that was used at any [`Server::measure_memory`].
    pub fn peak_memory(&self) -> usize {
        self.peak_bytes.load(Relaxed)
    }

    /// When it was used: Unix time in seconds.
    pub fn peak_at(&self) -> i64 {
        self.peak_at.load(Relaxed)
    }

    /// Hands garbage to the thread that frees it.
    pub fn discard(&self, garbage: Garbage) {
        if !garbage.is_empty() {
            let objects = garbage.objects();
            self.stats.lazy_free.pending.fetch_add(objects, Relaxed);
            // Without that thread, as in unit tests, it is freed right here.
            if self.garbage.send(garbage).is_err() {
                self.note_freed(objects);
            }
        }
    }

    /// Counts values that were handed over and are free now.
    pub fn note_freed(&self, objects: u64) {
        self.stats.lazy_free.pending.fetch_sub(objects, Relaxed);
        self.stats.lazy_free.freed.add(objects);
    }

    /// Starts a rewrite of the log in the background. Returns false if one is running.
    pub fn start_rewrite(&self) -> bool {
        self.aof.rewrites.claim() && self.snapshots.send(Snapshot::Rewrite).is_ok()
    }

    /// Rewrites the log. The caller has claimed the rewrite. With `appendonly no` that creates a log, but
    /// nothing is appended to it.
    ///
    /// # Errors
    /// The old log is still in use, or there still is none.
    pub fn rewrite(&self) -> io::Result<()> {
        let (before, _) = self.aof.size();
        let annotations = |lsn| self.replication.identity.annotations(lsn);
        self.aof.rewrite(&self.keyspace, &self.config.log_path(), &annotations)?;
        let (after, _) = self.aof.size();
        log_line!(self.config, Notice, "The AOF was rewritten: {before} bytes became {after}");
        if !self.config.appendonly.load(Relaxed) {
            self.close_log();
        }
        Ok(())
    }

    /// Starts a save in the background. Returns false if there is a save already.
    pub fn start_save(&self) -> bool {
        self.saves.claim(Current::Scheduled) && self.snapshots.send(Snapshot::Save).is_ok()
    }

    /// After FLUSHALL, replaces the RDB file by one without the data that was removed, if there are save
    /// points. Redis holds up all clients for that; here it happens in the background. A save that is being
    /// written has begun anew by itself.
    pub fn save_emptied(&self) {
        if !self.config.save.is_empty() {
            self.start_save();
        }
    }

    /// Saves the RDB file. The caller has claimed the save.
    ///
    /// # Errors
    /// It could not be written, or the save was cancelled; an older file is still there.
    pub fn save(&self) -> io::Result<()> {
        let started = Instant::now();
        let mut changes = 0;
        // Read with all shards locked, so the file has exactly these changes.
        let mark = || {
            changes = self.stats.meters.changes();
            self.replication.facts(&self.aof)
        };
        let result = save::save(&self.keyspace, &self.config, &self.saves, mark);
        self.saves.end(result.is_ok(), changes, unix_seconds());
        self.note_write_limits();
        let path = self.config.dump_path();
        let (path, seconds) = (path.display(), started.elapsed().as_secs_f64());
        match result {
            Ok(bytes) => {
                log_line!(self.config, Notice, "Saved '{path}': {bytes} bytes, {seconds:.3} s");
                Ok(())
            }
            Err(error) => {
                log_line!(self.config, Warning, "'{path}' could not be saved: {error}");
                Err(error)
            }
        }
    }

    /// Counts what a file held, and warns of what was left out.
    pub fn note_loaded(&self, loaded: &Loaded) {
        self.saves.loaded.add(loaded.keys);
        self.saves.expired.add(loaded.expired);
        if loaded.libraries > 0 {
            let text = "There are no functions here; libraries of functions that were left out";
            log_line!(self.config, Warning, "{text}: {}", loaded.libraries);
        }
    }

    /// Whether a state may ask for the refusal of writes: then each of them is to be looked at. One flag for
    /// all such states, because every write reads it.
    #[inline]
    pub fn may_refuse_writes(&self) -> bool {
        self.write_limits.load(Relaxed)
    }

    /// Sets that flag. To be called when one of the states may have changed.
    pub fn note_write_limits(&self) {
        let needs_replicas = self.config.min_replicas_to_write.load(Relaxed) > 0;
        self.write_limits.store(self.saves.has_failed() || needs_replicas, Relaxed);
    }

    /// Whether writes are refused because the last save has failed.
    pub fn refuses_unsaved(&self) -> bool {
        self.saves.has_failed()
            && self.config.stop_writes_on_bgsave_error.load(Relaxed)
            && !self.config.save.is_empty()
    }

    /// Closes the log. From now on there is none.
    pub fn close_log(&self) {
        // Replicas go on reading what is appended, and those that left may come back.
        let goes_on = self.replication.is_in_use(&self.aof, &self.config);
        let closed = if goes_on {
            nameless(&self.config.log_path()).and_then(|file| self.aof.stand_in(file))
        } else {
            self.aof.close()
        };
        if let Err(error) = closed {
            log_line!(self.config, Warning, "The AOF could not be closed: {error}");
        }
        if !goes_on && !self.upstream.follows() {
            self.replication.identity.renew();
        }
    }

    /// Makes this server a replica of that one. Returns false if a failover goes on.
    pub fn follow(&self, master: Address) -> bool {
        let setting = format!("{} {}", master.host, master.port);
        self.upstream.begin(master, || self.config.replicaof.set(setting))
    }

    /// Makes this server a master. The next record of the log is its own. Returns false if it was one.
    pub fn promote(&self) -> bool {
        let was_replica = self.upstream.end(|| self.lead());
        if was_replica {
            self.replication.replicas.disconnect(); // they ask again, and learn of the new id then
        }
        was_replica
    }

    /// The term has ended, and is still locked.
    fn lead(&self) {
        self.replication.change_id(&self.aof, None);
        self.aof.lead();
        self.config.replicaof.set(String::new());
    }

    /// Starts a failover: clients that write wait. Returns false if one goes on, or if this is a replica.
    pub fn start_failover(&self, failover: Failover) -> bool {
        self.upstream.start_failover(failover, || self.pause.set_failover(true))
    }

    /// Makes this server a replica of the target of the failover, unless that was aborted.
    pub fn follow_target(&self, target: Address) {
        let setting = format!("{} {}", target.host, target.port);
        self.upstream.begin_failover(target, || self.config.replicaof.set(setting));
    }

    /// Ends the failover, and lets clients go on. Returns false if there was none.
    pub fn end_failover(&self) -> bool {
        self.upstream.end_failover(|| self.pause.set_failover(false))
    }

    /// Gives the failover up: this server is a master. Returns false if there was none.
    pub fn abort_failover(&self, why: &str) -> bool {
        let go_on = || self.pause.set_failover(false);
        let Some(failover) = self.upstream.abort_failover(|| self.lead(), go_on) else {
            return false;
        };
        log_line!(self.config, Notice, "The failover was aborted: {why}");
        if failover.has_begun {
            self.replication.replicas.disconnect();
        }
        true
    }

    /// The offset of the stream at the end of the log.
    pub fn replication_offset(&self) -> u64 {
        self.replication.offset(&self.aof)
    }

    /// Whether evictions are left to the master.
    pub fn evicts_nothing(&self) -> bool {
        self.upstream.follows() && self.config.replica_ignore_maxmemory.load(Relaxed)
    }

    /// When the log is synced now: with `no-appendfsync-on-rewrite`, a rewrite suspends `appendfsync`.
    pub fn fsync_policy(&self) -> FsyncPolicy {
        let config = &self.config;
        if config.no_appendfsync_on_rewrite.load(Relaxed) && self.aof.rewrites.progress().is_some()
        {
            return FsyncPolicy::No;
        }
        config.fsync_policy()
    }

    /// Ends a client's subscriptions, monitoring and tracking: no thread sends it messages any more.
    pub fn stop_watching(&self, id: u64) {
        self.pubsub.deregister(id);
        self.discard(self.tracking.deregister(id));
    }

    /// Removes a connection from all registries.
    pub fn deregister(&self, id: u64) {
        self.stop_watching(id);
        self.replication.replicas.deregister(id, &self.replication.identity);
        let client = self.clients.lock().remove(&id);
        drop(client); // not under the lock
    }

    /// A connection's fields in `CLIENT LIST`: names and values.
    pub fn client_fields(&self, client: &Client) -> Vec<(&'static str, Vec<u8>)> {
        client.fields(self.pubsub.counts(client.id), self.tracking.state(client.id))
    }

    /// A connection's line in `CLIENT LIST`, without the line end.
    pub fn describe(&self, client: &Client) -> Vec<u8> {
        let fields = self.client_fields(client).into_iter();
        let fields = fields.map(|(name, value)| [name.as_bytes(), b"=", &value].concat());
        fields.collect::<Vec<_>>().join(&b' ')
    }

    /// Ends a connection, from any thread.
    pub fn kill(&self, client: &Client) {
        client.outbox.close();
        self.deregister(client.id);
        if self.pause.is_likely() {
            self.pause.wake();
        }
        self.replication.replicas.wake();
    }

    /// Whether the log is being replayed at startup.
    pub fn is_loading(&self) -> bool {
        self.loading.load(Relaxed)
    }

    /// Whether clients must give a password first.
    pub fn wants_password(&self) -> bool {
        !self.users.default_user().nopass
    }
}
