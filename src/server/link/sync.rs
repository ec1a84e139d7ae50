//! A full synchronisation: the master's data takes the place of ours.
//!
//! The data is read into shards of its own, and a log with it is written, while ours are still in use. When
//! both are complete they replace ours in one moment, with all shards locked. If anything goes wrong before
//! that, nothing has changed. So both are in memory, and on the disk, for a while.

use std::io::{BufRead, Read};
use std::time::Instant;

use super::wire::Wire;
use super::{End, Link};
use crate::aof::follow::write_log;
use crate::aof::rewrite::temporary;
use crate::config::logger::log_line;
use crate::files::{remove, sync_directory};
use crate::rdb::read::{Loaded, Record, Rules, read_from};
use crate::replication::identity;
use crate::replication::upstream::{Stage, Transfer};
use crate::store::Keyspace;
use std::fs::File;

/// How the master marks the end of its data.
enum Extent {
    /// It has so many bytes.
    Bytes(u64),
    /// This follows it.
    Mark(Vec<u8>),
}

impl Link {
    /// Replaces our data by the master's, which has this id and offset. Returns the database in which the
    /// stream begins.
    pub(super) fn fetch_all(&self, wire: &mut Wire, id: &str, offset: u64) -> Result<usize, End> {
        let server = &self.server;
        server.upstream.enter(self.term, Stage::Sync).then_some(()).ok_or(End::Over)?;
        log_line!(server.config, Notice, "The master sends all of its data, up to {id}:{offset}");
        wire.send_empty_lines();
        let started = Instant::now();
        let extent = extent(&wire.line()?)?;
        if matches!(extent, Extent::Mark(_)) {
            wire.expects_acknowledgements();
        }
        let fetched = server.keyspace.new_like();
        let loaded = self.read(wire, &extent, &fetched)?;
        let Loaded { keys, bytes, stream_db: db, .. } = loaded;
        let seconds = started.elapsed().as_secs_f64();
        log_line!(
            server.config,
            Notice,
            "The master's data: {keys} keys, {bytes} bytes, {seconds:.3} s"
        );
        server.aof.rewrites.claim_next();
        let started = Instant::now();
        let taken = self.take_over(wire, &fetched, id, offset, db);
        if taken.is_err() {
            remove(&temporary(&server.config.log_path()));
        }
        server.aof.rewrites.end(taken.is_ok(), started.elapsed());
        taken.map(|()| db)
    }

    /// Reads the master's data into another keyspace.
    fn read(&self, wire: &mut Wire, extent: &Extent, into: &Keyspace) -> Result<Loaded, End> {
        let server = &self.server;
        // As in Redis, a replica keeps what has expired until its master says so.
        let rules = Rules::of(&server.config, into, None);
        let store = |record: Record| record.store(into);
        let total_bytes = if let Extent::Bytes(bytes) = extent { *bytes } else { 0 };
        let progress = |read_bytes| {
            into.tick();
            server.upstream.transferred(self.term, Transfer { total_bytes, read_bytes });
        };
        progress(0);
        let input = wire.input();
        let loaded = match extent {
            Extent::Bytes(bytes) => {
                let mut input = input.take(*bytes);
                let loaded = read_from(&mut input, &rules, store, progress)?;
                expect_end(input.fill_buf()?.is_empty())?;
                loaded
            }
            Extent::Mark(mark) => {
                let loaded = read_from(input, &rules, store, progress)?;
                let mut found = vec![0; mark.len()];
                input.read_exact(&mut found)?;
                expect_end(found == *mark)?;
                loaded
            }
        };
        server.note_loaded(&loaded);
        Ok(loaded)
    }

    /// Puts the fetched data, and a log with it, in the place of ours.
    fn take_over(
        &self,
        wire: &mut Wire,
        fetched: &Keyspace,
        id: &str,
        offset: u64,
        db: usize,
    ) -> Result<(), End> {
        let server = &self.server;
        let path = server.config.log_path();
        let log: Option<File> = if server.aof.is_enabled() {
            let end = identity::line(id, offset);
            Some(write_log(fetched, &path, db, &end, || wire.keep_alive())?)
        } else {
            None
        };
        let mut all = server.keyspace.write_all(0);
        all.stop();
        let in_term = server.upstream.in_term(self.term).ok_or(End::Over)?;
        // It may have been turned off meanwhile.
        if server.aof.is_enabled()
            && let Some(log) = log
        {
            server.aof.take_over(log, &path)?;
        } else {
            remove(&temporary(&path));
            server.aof.end_stand_in(); // it holds another history
        }
        all.take_over(fetched.write_all(0));
        let lsn = server.aof.begin_foreign(db);
        server.replication.identity.begin(id.into(), offset, lsn);
        all.logged(lsn);
        let changes = all.finish().changes.unwrap_or_default();
        server.discard(server.tracking.notify_all(&server.pubsub));
        drop(in_term);
        drop(all);
        server.replication.replicas.disconnect();
        server.discard(changes.garbage);
        sync_directory(&path)?;
        Ok(())
    }
}

fn extent(line: &str) -> Result<Extent, End> {
    let extent = match line.strip_prefix("$EOF:") {
        Some(mark) => (mark.len() == 40).then(|| Extent::Mark(mark.into())),
        None => line.strip_prefix('$').and_then(|bytes| bytes.parse().ok()).map(Extent::Bytes),
    };
    extent.ok_or_else(|| End::Broken(format!("it sends '{line}' in place of its data")))
}

fn expect_end(is_end: bool) -> Result<(), End> {
    is_end.then_some(()).ok_or_else(|| End::Broken("its data does not end where it should".into()))
}
