//! Carrying out a failover: waiting until a replica has everything, and becoming its replica.
//!
//! Clients that write are held back from the beginning. A write that was admitted before may still come; it
//! is in the log before this server follows anybody, since the link waits for it (`stop_writing`), and then
//! the link waits until the target has it too. So no write that was answered is lost.
//!
//! By themselves, replicas say once a second how far they are. So they are asked, each time that something
//! has come.

use std::time::{Duration, Instant};

use super::{End, Link};
use crate::config::logger::log_line;
use crate::replication::replicas::{Phase, Replica};
use crate::replication::upstream::{Address, Failover};
use crate::session::Server;

/// How often the replicas are looked at, and asked if something has come.
const SLICE: Duration = Duration::from_millis(100);
/// How long the target may take to confirm the last writes. It confirms something every second.
const LAST_WRITES: Duration = Duration::from_secs(10);

/// Waits until the target, or any replica, has caught up, and makes it the master of this server.
pub(super) fn carry_out(server: &Server) {
    while let Some(failover) = server.upstream.failover() {
        let Failover { target, until, is_forced, .. } = failover;
        if until.is_some_and(|until| until <= Instant::now()) {
            match target {
                Some(target) if is_forced => {
                    let text = "The failover has timed out, and is forced";
                    log_line!(server.config, Notice, "{text}: {}:{}", target.host, target.port);
                    server.follow_target(target);
                }
                _ => drop(server.abort_failover("Replica never caught up before timeout")),
            }
            return;
        }
        server.replication.ask_for_end(&server.aof);
        let offset = server.replication.complete_offset(&server.aof);
        let is_synced = |replica: &Replica| {
            replica.applied() >= offset
                && target.as_ref().is_none_or(|target| replica.is_at(target))
        };
        let replicas = &server.replication.replicas;
        let all = replicas.all();
        let online = all.iter().filter(|replica| replica.phase() == Phase::Online);
        if let Some(found) = online.into_iter().find(|replica| is_synced(replica)) {
            let target = found.place();
            let text = "Failover target is synced, failing over";
            log_line!(server.config, Notice, "{text}: {}:{}", target.host, target.port);
            server.follow_target(target);
            return;
        }
        let left = until.map_or(SLICE, |until| until.saturating_duration_since(Instant::now()));
        replicas.wait(1, left.min(SLICE), is_synced);
    }
}

impl Link {
    /// If the master is the target of a failover: waits until it has the last writes. Returns whether it is.
    pub(super) fn hand_over(&self) -> Result<bool, End> {
        let server = &self.server;
        let Some(failover) = server.upstream.failover().filter(|failover| failover.has_begun)
        else {
            return Ok(false);
        };
        if !failover.is_forced {
            let offset = server.replication.complete_offset(&server.aof);
            let has_all =
                |replica: &Replica| replica.is_at(&self.master) && replica.applied() >= offset;
            if server.replication.replicas.wait(1, LAST_WRITES, has_all) == 0 {
                server.abort_failover("The replica did not take the last writes");
                return Err(End::Over);
            }
        }
        Ok(true)
    }

    /// The target of a failover has answered the request for its stream.
    pub(super) fn end_failover(&self) {
        if self.server.end_failover() {
            self.server.replication.replicas.disconnect();
            let Address { host, port } = &self.master;
            log_line!(self.server.config, Notice, "The failover to {host}:{port} is complete");
        }
    }
}
