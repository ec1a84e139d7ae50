//! What happens after the handler has run. Everyone who must learn what the command did is served here, in a
//! fixed order, from the command's record and the [`Aftermath`](crate::store::Aftermath) of its view.
//!
//! Steps 1 to 5 happen while the shards are still locked. So the log's order is memory's order, and watchers
//! are notified of the changes of a key in the order in which they happened:
//!
//! 1. the statistics: hits and misses;
//! 2. the log: first what had expired, then the record of the command; shards and session remember its LSN;
//! 3. subscribers to keyspace events;
//! 4. clients that cache: those that have read a modified key are invalidated; then this connection, if
//!    it tracks, is registered as a reader of the keys that it has just read;
//! 5. monitors;
//! 6. the shards are unlocked, and values that take long to free go to the thread that frees them.
//!
//! `WATCH` comes before all of this: the store raises the flags of watching connections when it changes a
//! key or, for a value that it lent to be changed in place, when the view gives up its aftermath. What comes
//! from a master is logged as it came, by [`follow`](super::follow).
//!
//! Keyspace events and `MONITOR` lines carry the LSN up to which the log must be flushed before they are
//! sent; within a transaction that is the end of its block, which is not known yet
//! ([`VisibleAt`](crate::net::outbox::VisibleAt)). Invalidations do not wait: they reveal no data.

use super::call::{Call, Locked};
use crate::aof::Block;
use crate::commands::spec::{Change, Flags, Outcome};
use crate::commands::{Propagate, monitor, names};
use crate::config::trace::trace;
use crate::resp::request;
use crate::session::{Origin, Server};
use crate::store::{Cause, Changes, Event, Removal};
use crate::watchers::tracking::NOBODY;

/// A record of expired fields has at most this many.
const RECORD_FIELDS: usize = 1000;

/// The buffer for encoding records is shrunk to this after a larger record.
const SCRATCH_BYTES: usize = 64 << 10;

impl Call<'_> {
    /// Takes the steps above and unlocks the shards. (Inlined, because most commands leave nothing but a
    /// record.)
    #[inline(always)]
    pub(super) fn commit(mut self, mut locked: impl Locked, change: Change) -> Outcome {
        let (propagate, outcome) = match change {
            Ok(propagate) => (propagate, Ok(())),
            Err(error) => (Propagate::Nothing, Err(error)),
        };
        let aftermath = locked.finish(propagate != Propagate::Nothing);
        self.session.client.meter.looked_up(aftermath.lookups);
        if let Some(changes) = &aftermath.changes {
            for expired in &changes.expired {
                locked.set_logged(self.log_removal(expired));
            }
        }
        if propagate != Propagate::Nothing {
            self.session.client.meter.changes.add(1);
            locked.set_logged(self.log(propagate));
        }
        self.session.read_lsn = self.session.read_lsn.max(locked.last_lsn());
        let mut changes = aftermath.changes;
        if let Some(changes) = &mut changes {
            self.notify(changes, locked.last_lsn());
        }
        self.track_reads();
        if self.server.pubsub.is_monitored() {
            self.show();
        }
        trace!(
            "Call::commit",
            "commits; the reply shows the log up to LSN {}", self.session.read_lsn
        );
        drop(locked);
        if let Some(changes) = changes {
            if changes.emptied && !matches!(self.session.origin, Origin::Replay) {
                self.server.save_emptied();
            }
            self.server.discard(changes.garbage);
        }
        outcome
    }

    /// Appends the record of the command to the log. Returns its LSN.
    fn log(&mut self, propagate: Propagate) -> u64 {
        if matches!(self.session.origin, Origin::Replay | Origin::Master(_)) {
            self.session.write_lsn = 0;
            return 0; // the log has it already, or gets it as it came
        }
        let db = self.session.db;
        let lsn = match propagate {
            Propagate::Nothing => return 0,
            Propagate::Verbatim => {
                let mut record = self.session.scratch.take();
                record.clear();
                self.encode_call(&mut record);
                let lsn = self.append(
                    |block| block.push(db, &record),
                    |server| server.aof.append(db, &record),
                );
                record.clear(); // or it would not shrink
                record.shrink_to(SCRATCH_BYTES);
                self.session.scratch.set(record);
                lsn
            }
            Propagate::Rewritten(record) => self
                .append(|block| block.push(db, &record), |server| server.aof.append(db, &record)),
            Propagate::Atomically(records) => self.append(
                |block| block.push_together(db, &records),
                |server| server.aof.append_together(db, &records),
            ),
        };
        self.session.write_lsn = lsn;
        lsn
    }

    /// The arguments of the call, after the name that the table has for the command.
    #[inline(always)]
    fn encode_call(&self, record: &mut Vec<u8>) {
        if names::are_changed() {
            let name = self.command.name.split('|').next().unwrap_or_default();
            let words: Vec<&[u8]> =
                std::iter::once(name.as_bytes()).chain(self.args.from(1)).collect();
            request::encode(record, &words);
        } else {
            request::encode_args(record, self.args);
        }
    }

    /// Appends the record of something that has expired. Returns its LSN.
    #[cold]
    fn log_removal(&mut self, expired: &Removal) -> u64 {
        count_removal(self.server, expired);
        let record = record_of(expired);
        let lsn = self.append(
            |block| block.push(expired.db, &record),
            |server| server.aof.append(expired.db, &record),
        );
        self.session.write_lsn = lsn;
        lsn
    }

    /// Appends records to the log or to the block of the transaction; a replay appends none. Returns the LSN,
    /// or 0 if there is none yet.
    #[inline(always)]
    fn append(
        &mut self,
        to_block: impl FnOnce(&mut Block),
        to_log: impl FnOnce(&Server) -> u64,
    ) -> u64 {
        match &mut self.session.origin {
            Origin::Client => to_log(self.server),
            Origin::Transaction(exec) => {
                to_block(&mut exec.block);
                0
            }
            Origin::Replay | Origin::Master(_) => 0,
        }
    }

    /// Notifies subscribers to keyspace events and clients that cache; does nothing during a replay.
    #[cold]
    fn notify(&mut self, changes: &mut Changes, lsn: u64) {
        let Server { tracking, pubsub, .. } = self.server;
        let by = self.session.client.id;
        if matches!(self.session.origin, Origin::Replay) {
            return;
        }
        for event in &changes.events {
            pubsub.publish_event(event, &self.session.visible_at(lsn));
        }
        if !tracking.is_on() {
            return;
        }
        changes.expired.iter().for_each(|expired| invalidate_expired(self.server, &expired.key));
        changes.found_expired.iter().for_each(|(_, key)| tracking.notify_readers(pubsub, key, by));
        match &mut self.session.origin {
            // This client, and those that track by prefix, are notified at the end of the transaction.
            Origin::Transaction(exec) | Origin::Master(exec) => {
                for key in &changes.modified {
                    if tracking.notify_others(pubsub, key, by) {
                        exec.own.push(key.clone());
                    }
                }
                exec.modified.append(&mut changes.modified);
            }
            _ => {
                changes.modified.iter().for_each(|key| tracking.notify_readers(pubsub, key, by));
                tracking.broadcast(pubsub, &changes.modified, by);
            }
        }
        if changes.replaced_all {
            self.server.discard(tracking.notify_all(pubsub));
        }
    }

    /// If the connection tracks the keys it reads, registers it as a reader of this command's keys. Their
    /// shards are locked, so the next change of the keys finds it.
    #[inline(always)]
    fn track_reads(&self) {
        let listening = &self.session.client.outbox.listening;
        if listening.tracks_reads(self.session.caching) && self.command.is_cacheable() {
            let keys = self.command.keys_of(self.args);
            self.server.tracking.add_reader(&self.server.pubsub, self.session.client.id, keys);
        }
    }

    /// Sends the command to monitors, unless it is for administrators.
    #[cold]
    fn show(&self) {
        let is_replay = matches!(self.session.origin, Origin::Replay);
        if !is_replay && !self.command.has(Flags::ADMIN) {
            let line = monitor::line(self.session, self.command, self.args);
            self.server.pubsub.show(&line, &self.session.visible_at(self.session.read_lsn));
        }
    }
}

/// Takes the same steps for what the sweeper has removed; its shard is locked. Returns the LSN of the last
/// record.
pub fn commit_removals(server: &Server, all: &[Removal]) -> u64 {
    let mut lsn = 0;
    for expired in all {
        count_removal(server, expired);
        lsn = server.aof.append(expired.db, &record_of(expired));
    }
    let wanted = &server.config.notify_keyspace_events;
    for Removal { db, key, cause } in all {
        let names = cause.events().iter().filter(|(class, _)| wanted.has(*class));
        for (_, name) in names {
            server.pubsub.publish_event(&Event { db: *db, key: key.clone(), name }, &lsn.into());
        }
        if server.tracking.is_on() {
            invalidate_expired(server, key);
        }
    }
    lsn
}

fn count_removal(server: &Server, removal: &Removal) {
    match &removal.cause {
        Cause::Evicted => server.stats.evicted_keys.add(1),
        Cause::Expired => server.stats.expired_keys.add(1),
        Cause::FieldsExpired(names) => server.stats.expired_fields.add(names.len() as u64),
        Cause::LastFieldsExpired(count) => server.stats.expired_fields.add(*count as u64),
    }
}

/// The record for the log.
fn record_of(Removal { key, cause, .. }: &Removal) -> Vec<u8> {
    let mut record = Vec::new();
    if let Cause::FieldsExpired(names) = cause {
        for some in names.chunks(RECORD_FIELDS) {
            let names = some.iter().map(|name| &**name);
            let words: Vec<&[u8]> = [&b"HDEL"[..], key].into_iter().chain(names).collect();
            request::encode(&mut record, &words);
        }
    } else {
        request::encode(&mut record, &[b"DEL", key]);
    }
    record
}

/// Notifies the clients that cache a key that the key, or some of its fields, have expired.
fn invalidate_expired(server: &Server, key: &[u8]) {
    server.tracking.notify_readers(&server.pubsub, key, NOBODY);
    server.tracking.broadcast(&server.pubsub, &[key], NOBODY);
}
