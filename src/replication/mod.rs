//! Replication: the log is the stream that replicas follow.
//!
//! | module | what it owns |
//! |---|---|
//! | [`identity`] | which history of changes the log holds, and the offset of each LSN |
//! | [`replicas`] | the replicas of this server, and the clients that wait for them (`WAIT`) |
//! | [`feed`] | sending one replica what it lacks |
//! | [`spool`] | snapshots on their way to replicas |
//! | [`upstream`] | the master that this server copies, and the link to it |
//!
//! Two servers with the same id and the same offset have the same data. A replica that comes back relies on
//! that. Its offset is a place in the log, so it goes on from there if the log still has that place, also
//! after a restart of either side. A rewrite makes the log shorter. So the old file is kept while a replica
//! needs it that is connected, or that left less than `repl-backlog-ttl` seconds ago, and until the new file
//! has `repl-backlog-size` bytes of the stream.
//!
//! With `appendonly no` a file without a name stands in for the log, as long as there are replicas, and for
//! `repl-backlog-ttl` seconds more. It is exchanged for a new one as it grows.
//!
//! Records that are not about data are in the stream for replicas only, and mean nothing to a replay: `PING`,
//! `REPLCONF GETACK`, `PUBLISH`.

pub mod feed;
pub mod identity;
pub mod replicas;
pub mod spool;
pub mod upstream;

use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crate::aof::Aof;
use crate::aof::writer::Mark;
use crate::config::Config;
use crate::files::nameless;
use crate::rdb::save::Fact;
use crate::resp::request::encode;
use crate::stats::{Counter, lock};
use identity::{Id, Identity};
use replicas::{Phase, Replica, Replicas};
use spool::Spools;

/// When the file that stands in for the log has this size, another one follows.
const STAND_IN_BYTES: u64 = 64 << 20;

/// So much of the stream is kept for replicas that may come back, or `repl-backlog-size` if that is more.
const AWAITED_BYTES: u64 = 1 << 30;

/// Asks replicas to acknowledge.
const QUESTION: &[u8] = b"*3\r\n$8\r\nREPLCONF\r\n$6\r\nGETACK\r\n$1\r\n*\r\n";

/// How often a shutdown looks whether replicas have caught up.
const SHUTDOWN_CHECK: Duration = Duration::from_millis(50);

/// The state of replication. Its locks are below those of the log.
#[derive(Default)]
pub struct Replication {
    pub identity: Identity,
    pub replicas: Replicas,
    spools: Spools,
    /// How many snapshots in a row have yielded.
    yields: AtomicUsize,
    /// The LSN behind the last [`QUESTION`]; 0 after a replica has come.
    asked: AtomicU64,
    /// The LSN behind the last two of [`Replication::ask_for_end`]; 0 after a replica has come.
    asked_for_end: AtomicU64,
    /// When the last PING was appended.
    pinged: Mutex<Option<Instant>>,
    /// How many replicas are close enough for `min-replicas-to-write`.
    good: AtomicUsize,
    /// A shutdown waits for replicas.
    shutting_down: AtomicBool,
    /// Bytes sent to replicas, and received from a master.
    pub sent: Counter,
    pub received: Counter,
    pub full_syncs: Counter,
    pub partial_syncs: Counter,
    /// Partial resynchronisations that were asked for, and were not possible.
    pub refused_syncs: Counter,
}

impl Replication {
    /// The offset at the end of the log.
    pub fn offset(&self, aof: &Aof) -> u64 {
        self.identity.offset(aof.appended_lsn())
    }

    /// Makes sure that records are kept, and that the log names the id, before a server learns of it.
    ///
    /// # Errors
    /// No file can stand in for the log.
    pub fn prepare(&self, aof: &Aof, config: &Config) -> io::Result<()> {
        if !aof.keeps_records() {
            aof.stand_in(nameless(&config.log_path())?)?;
        }
        if !self.identity.is_announced() {
            aof.annotate(|lsn| self.identity.announce(lsn));
        }
        Ok(())
    }

    /// Goes on under another id: the one that the master has taken, or a new one for this server as master.
    /// What was replicated so far can still be asked for by the old id.
    pub fn change_id(&self, aof: &Aof, id: Option<Id>) {
        aof.annotate(|lsn| self.identity.change(id.unwrap_or_else(identity::random_id), lsn));
    }

    /// The LSN of an offset at which a replica with that history can go on.
    pub fn resumes_at(&self, aof: &Aof, id: &[u8], offset: u64) -> Option<u64> {
        let lsn = self.identity.lsn(offset); // a large number if that is negative
        let is_there = self.stream_from(aof) <= lsn && lsn <= aof.appended_lsn();
        (aof.keeps_records() && self.identity.covers(id, offset) && is_there).then_some(lsn)
    }

    /// The first LSN from which on there is a stream that can be read.
    fn stream_from(&self, aof: &Aof) -> u64 {
        // As far as offsets go back. (The LSN of the first one may be negative.)
        let first = self.identity.lsn(1).cast_signed().max(0).cast_unsigned();
        aof.stream_from().max(first)
    }

    /// What the header of a snapshot says of the stream at this point: where a replica that has the snapshot
    /// goes on. Nothing if the stream was never asked for. The caller has locked all shards.
    pub fn facts(&self, aof: &Aof) -> Vec<Fact> {
        let mut facts = Vec::new();
        if self.identity.is_announced() {
            aof.mark(|mark| facts.extend(self.facts_at(&mark)));
        }
        facts
    }

    fn facts_at(&self, mark: &Mark) -> [Fact; 3] {
        [
            ("repl-stream-db", mark.db.unwrap_or(0).to_string()),
            ("repl-id", self.identity.id()),
            ("repl-offset", self.identity.offset(mark.lsn).to_string()),
        ]
    }

    /// The first offset that can be asked for, and how many bytes there are from it on.
    pub fn backlog(&self, aof: &Aof) -> (u64, u64) {
        if !self.identity.is_announced() || !aof.keeps_records() {
            return (0, 0);
        }
        let (from, end) = (self.stream_from(aof), aof.appended_lsn());
        (self.identity.offset(from) + 1, end.saturating_sub(from))
    }

    /// Asks replicas to acknowledge, unless they were asked since that LSN.
    pub fn ask_since(&self, aof: &Aof, lsn: u64) {
        if self.asked.load(SeqCst) <= lsn {
            self.ask(aof, QUESTION);
        }
    }

    /// Asks replicas to acknowledge the end of the log, unless nothing has come since they were asked. There
    /// are two questions. A replica that acknowledges the first one has received the second one with it, and
    /// so has the whole stream. (It may have acknowledged what precedes the first one before.)
    pub fn ask_for_end(&self, aof: &Aof) {
        if self.asked_for_end.load(SeqCst) != aof.appended_lsn()
            && let Some(lsn) = self.ask(aof, &QUESTION.repeat(2))
        {
            self.asked_for_end.store(lsn, SeqCst);
        }
    }

    /// Returns the LSN behind the questions, if they are in the log.
    fn ask(&self, aof: &Aof, questions: &[u8]) -> Option<u64> {
        let lsn = self.replicas.any().then(|| aof.append_anywhere(questions))??;
        self.asked.store(lsn, SeqCst);
        aof.flush().unwrap_or_default(); // then they are not asked, and the wait ends with its time
        self.replicas.wake();
        Some(lsn)
    }

    /// The offset that replicas acknowledge which have the whole stream. A Redis does not count the question
    /// that it answers; so if the log ends with the two of [`Replication::ask_for_end`], the second may be
    /// missing.
    pub fn complete_offset(&self, aof: &Aof) -> u64 {
        let end = aof.appended_lsn();
        let ends_with_questions = self.asked_for_end.load(SeqCst) == end;
        let question = if ends_with_questions { QUESTION.len() as u64 } else { 0 };
        self.identity.offset(end.saturating_sub(question))
    }

    /// A replica follows the stream from now on. What it has acknowledged before is not known, so it is to be
    /// asked.
    fn go_online(&self, replica: &Replica) {
        replica.enter(Phase::Online);
        self.asked.store(0, SeqCst);
        self.asked_for_end.store(0, SeqCst);
    }

    /// Whether there are too few good replicas for a write.
    pub fn lacks_replicas(&self, config: &Config) -> bool {
        let (least, lag) = (&config.min_replicas_to_write, &config.min_replicas_max_lag);
        lag.load(Relaxed) > 0 && (self.good.load(SeqCst) as i64) < least.load(Relaxed)
    }

    /// How many replicas are good, if that matters.
    pub fn good_replicas(&self, config: &Config) -> Option<usize> {
        let (least, lag) = (&config.min_replicas_to_write, &config.min_replicas_max_lag);
        (least.load(Relaxed) > 0 && lag.load(Relaxed) > 0).then(|| self.good.load(SeqCst))
    }

    /// Counts the good replicas again.
    pub fn count_good(&self, config: &Config) {
        let lag = config.min_replicas_max_lag.load(Relaxed) as u64;
        self.good.store(self.replicas.count(|replica| replica.lag() <= lag), SeqCst);
    }

    /// What is to be done once a second.
    pub fn tick(&self, aof: &Aof, config: &Config) {
        let seconds = |setting: i64| Duration::from_secs(setting.max(0) as u64);
        let timeout = seconds(config.repl_timeout.load(Relaxed));
        for replica in self.replicas.all() {
            if replica.silence() > timeout {
                replica.outbox.close();
            }
        }
        self.count_good(config);
        if self.replicas.any() {
            let period = seconds(config.repl_ping_replica_period.load(Relaxed));
            let mut pinged = lock(&self.pinged);
            if pinged.is_none_or(|last| last.elapsed() >= period) {
                *pinged = Some(Instant::now());
                let mut record = Vec::new();
                encode(&mut record, &[b"PING"]);
                aof.append_anywhere(&record);
            }
        }
        self.forget(aof, config);
    }

    /// Whether there are replicas, or some may come back.
    pub fn is_in_use(&self, aof: &Aof, config: &Config) -> bool {
        self.replicas.any() || self.awaited(aof, config).is_some()
    }

    /// The least LSN that replicas need which may come back.
    fn awaited(&self, aof: &Aof, config: &Config) -> Option<u64> {
        let kept = (config.repl_backlog_size.load(Relaxed) as u64).max(AWAITED_BYTES);
        let seconds = config.repl_backlog_ttl.load(Relaxed) as u64;
        let patience = (seconds > 0).then(|| Duration::from_secs(seconds));
        self.replicas.awaited(patience, aof.appended_lsn().saturating_sub(kept))
    }

    /// Gives up what no replica needs any more.
    fn forget(&self, aof: &Aof, config: &Config) {
        let awaited = self.awaited(aof, config);
        let needs = [self.replicas.needs(&self.identity), self.spools.needs(), awaited];
        if !self.replicas.any() && awaited.is_none() {
            if aof.has_stand_in() {
                aof.close().unwrap_or_default(); // there is nothing to lose
                if !aof.follows() {
                    self.identity.renew();
                }
            }
            return aof.forget_before(u64::MAX);
        }
        let kept = config.repl_backlog_size.load(Relaxed) as u64;
        let from = aof.appended_lsn().saturating_sub(kept);
        aof.forget_before(needs.into_iter().flatten().chain([from]).min().unwrap_or(from));
        if aof.has_stand_in() && aof.size().0 > STAND_IN_BYTES {
            let next = nameless(&config.log_path()).and_then(|file| aof.stand_in(file));
            next.unwrap_or_default(); // the old one serves as well
        }
    }

    /// How many of the replicas that follow the stream lack some of it.
    pub fn lagging(&self, aof: &Aof) -> usize {
        let offset = self.complete_offset(aof);
        self.replicas.count(|replica| replica.applied() < offset)
    }

    /// Waits until no replica lags, or until that time. Returns false if [`Replication::abort_shutdown`] was
    /// called meanwhile.
    pub fn wait_for_shutdown(&self, aof: &Aof, until: Instant) -> bool {
        self.shutting_down.store(true, SeqCst);
        let lags = || {
            self.ask_for_end(aof);
            self.lagging(aof) > 0
        };
        while lags() && Instant::now() < until && self.shutting_down.load(SeqCst) {
            self.replicas.wait_for_news(SHUTDOWN_CHECK);
        }
        self.shutting_down.swap(false, SeqCst)
    }

    /// Makes a shutdown that waits for replicas end without effect. Returns whether there was one.
    pub fn abort_shutdown(&self) -> bool {
        let was = self.shutting_down.swap(false, SeqCst);
        self.replicas.wake();
        was
    }

    /// Counts from zero again: `CONFIG RESETSTAT`.
    pub fn reset_counters(&self) {
        let Replication { sent, received, full_syncs, partial_syncs, refused_syncs, .. } = self;
        let all = [sent, received, full_syncs, partial_syncs, refused_syncs];
        all.into_iter().for_each(Counter::reset);
    }

    /// The replicas as INFO and ROLE list them, and what each is doing.
    pub fn listed(&self) -> Vec<(std::sync::Arc<Replica>, Phase)> {
        let all = self.replicas.all().into_iter();
        all.map(|replica| (replica.clone(), replica.phase())).collect()
    }
}
