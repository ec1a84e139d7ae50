//! What follows a command, in one place and one order: everyone who wants to know what it did is served
//! from one value, the [`Aftermath`] of its view and its record.
//!
//! Its shards are still locked meanwhile. So the log's order is memory's order, and everybody hears of the
//! changes of a key in the order in which they happened:
//!
//! 1. the statistics: hits and misses;
//! 2. the log: what had expired, then the record of the command; shards and session remember its LSN;
//! 3. subscribers to keyspace events;
//! 4. clients that cache: those that have read what changed; then this connection, if it tracks, becomes a
//!    reader of what it has just read;
//! 5. monitors;
//! 6. the shards are unlocked, and what takes long to free goes to the thread that frees it.
//!
//! `WATCH` comes before all of this: the store raises the flags of watching connections when it changes a
//! key. A replica would get its stream at step 2.
//!
//! What others are sent in steps 3 to 5 carries the LSN up to which the log must be flushed first. Within a
//! transaction that is the end of its block, which is not known yet: see
//! [`VisibleAt`](crate::net::outbox::VisibleAt).

use super::call::{Call, Scope};
use crate::aof::Block;
use crate::commands::spec::{Change, Flags, Outcome};
use crate::commands::{Propagate, monitor};
use crate::config::trace::trace;
use crate::resp::request;
use crate::session::{Origin, Server};
use crate::store::{Changes, Event, Expired, WhatExpired};
use crate::watchers::tracking::NOBODY;

/// A record of expired fields has at most so many.
const RECORD_FIELDS: usize = 1000;

/// What a connection keeps of the memory in which it encodes records.
const SCRATCH_BYTES: usize = 64 << 10;

impl Call<'_> {
    /// Serves everyone who wants to know what the command did, and unlocks its shards. See the module's
    /// opening words. (Inlined, lest every command pay for what few leave.)
    #[inline(always)]
    pub(super) fn commit(mut self, mut scope: impl Scope, change: Change) -> Outcome {
        let (propagate, outcome) = match change {
            Ok(propagate) => (propagate, Ok(())),
            Err(error) => (Propagate::Nothing, Err(error)),
        };
        let aftermath = scope.finish(propagate != Propagate::Nothing);
        self.session.client.meter.looked_up(aftermath.lookups);
        if let Some(changes) = &aftermath.changes {
            for expired in &changes.expired {
                scope.set_logged(self.log_expired(expired));
            }
        }
        if propagate != Propagate::Nothing {
            scope.set_logged(self.log(propagate));
        }
        self.session.read_lsn = self.session.read_lsn.max(scope.last_lsn());
        let mut changes = aftermath.changes;
        if let Some(changes) = &mut changes {
            self.notify(changes, scope.last_lsn());
        }
        self.track_reads();
        if self.server.hub.is_monitored() {
            self.show();
        }
        trace!(
            "Call::commit",
            "unlocks; the reply shows the log up to LSN {}", self.session.read_lsn
        );
        drop(scope);
        if let Some(changes) = changes {
            self.server.discard(changes.garbage);
        }
        outcome
    }

    /// Appends the record of the command to the log; returns its LSN.
    fn log(&mut self, propagate: Propagate) -> u64 {
        let db = self.session.db;
        let lsn = match propagate {
            Propagate::Nothing => return 0,
            Propagate::Verbatim => {
                let mut record = self.session.scratch.take();
                record.clear();
                request::encode_args(&mut record, self.args);
                let lsn = self.append(
                    |block| block.push(db, &record),
                    |server| server.aof.append(db, &record),
                );
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

    /// Appends the record of what has expired; returns its LSN.
    #[cold]
    fn log_expired(&mut self, expired: &Expired) -> u64 {
        count_expired(self.server, expired);
        let record = record_of(expired);
        let lsn = self.append(
            |block| block.push(expired.db, &record),
            |server| server.aof.append(expired.db, &record),
        );
        self.session.write_lsn = lsn;
        lsn
    }

    /// Puts records where those of this origin go. Their LSN is 0 if there is none, or none yet.
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
            Origin::Replay => 0,
        }
    }

    /// Tells subscribers to keyspace events and clients that cache. During a replay nothing happens anew.
    #[cold]
    fn notify(&mut self, changes: &mut Changes, lsn: u64) {
        let Server { tracking, hub, .. } = self.server;
        let by = self.session.client.id;
        if matches!(self.session.origin, Origin::Replay) {
            return;
        }
        for event in &changes.events {
            hub.publish_event(event, &self.session.visible_at(lsn));
        }
        if !tracking.is_on() {
            return;
        }
        changes.expired.iter().for_each(|expired| invalidate_expired(self.server, &expired.key));
        changes.found_expired.iter().for_each(|key| tracking.tell_readers(hub, key, by));
        changes.modified.iter().for_each(|key| tracking.tell_readers(hub, key, by));
        match &mut self.session.origin {
            // Those who want to hear of all keys hear of a transaction's together.
            Origin::Transaction(exec) => exec.modified.append(&mut changes.modified),
            _ => tracking.broadcast(hub, &changes.modified, by),
        }
        if changes.replaced_all {
            self.server.discard(tracking.tell_all(hub));
        }
    }

    /// If the connection tracks the keys it reads, enters it as a reader of this command's keys. Their shards
    /// are locked, so whoever changes the keys afterwards finds it.
    #[inline(always)]
    fn track_reads(&self) {
        if let Some(mode) = self.session.tracking
            && mode.enters(self.session.caching)
            && self.command.is_cacheable()
        {
            let keys = self.command.keys_of(self.args);
            self.server.tracking.enter(&self.server.hub, self.session.client.id, keys);
        }
    }

    /// Shows the command to monitors, except what is for administrators.
    #[cold]
    fn show(&self) {
        let is_replay = matches!(self.session.origin, Origin::Replay);
        if !is_replay && !self.command.has(Flags::ADMIN) {
            let line = monitor::line(self.session, self.command, self.args);
            self.server.hub.show(&line, &self.session.visible_at(self.session.read_lsn));
        }
    }
}

/// Logs what the sweeper has removed and tells everyone who wants to know. The shard is locked. Returns
/// the LSN of the last record.
pub fn commit_expired(server: &Server, all: &[Expired]) -> u64 {
    let mut lsn = 0;
    for expired in all {
        count_expired(server, expired);
        lsn = server.aof.append(expired.db, &record_of(expired));
    }
    let wanted = &server.config.notify_keyspace_events;
    for Expired { db, key, what } in all {
        let names = what.events().iter().filter(|(class, _)| wanted.has(*class));
        for (_, name) in names {
            server.hub.publish_event(&Event { db: *db, key: key.clone(), name }, &lsn.into());
        }
        if server.tracking.is_on() {
            invalidate_expired(server, key);
        }
    }
    lsn
}

fn count_expired(server: &Server, expired: &Expired) {
    match &expired.what {
        WhatExpired::Key => server.stats.expired_keys.add(1),
        WhatExpired::Fields(names) => server.stats.expired_fields.add(names.len() as u64),
        WhatExpired::LastFields(count) => server.stats.expired_fields.add(*count as u64),
    }
}

/// What the log says of it.
fn record_of(Expired { key, what, .. }: &Expired) -> Vec<u8> {
    let mut record = Vec::new();
    if let WhatExpired::Fields(names) = what {
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

/// Tells clients that cache the key, or asked for its prefix, that something of it has expired.
fn invalidate_expired(server: &Server, key: &[u8]) {
    server.tracking.tell_readers(&server.hub, key, NOBODY);
    server.tracking.broadcast(&server.hub, &[key], NOBODY);
}
