//! The replicas of this server: what each has said of itself, which offset it has acknowledged, and the
//! clients that wait for acknowledgements.
//!
//! A replica is a connection that has sent `PSYNC` or `SYNC`. Its own thread goes on reading, for the replica
//! acknowledges offsets, and a second one feeds it ([`super::feed`]).
//!
//! The lock on the registry is below those of the log, and above the lock of a replica.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::identity::Identity;
use super::upstream::Address;
use crate::net::outbox::Outbox;
use crate::rdb::Dialect;
use crate::stats::lock;

/// More than this is not on its way to a replica: what the kernels of both sides and the replica buffer.
const ON_ITS_WAY_BYTES: u64 = 64 << 20;

/// What a replica says of itself with `REPLCONF`, before it asks for data.
#[derive(Clone, Default)]
pub struct Profile {
    /// The port that it listens on.
    pub port: i64,
    /// The address that others shall use; empty for that of the connection.
    pub address: String,
    /// It can take a snapshot whose length is not known before its end.
    pub takes_unknown_length: bool,
    /// It knows that an id can change (`psync2`): every replica since Redis 4.0.
    pub knows_new_ids: bool,
    /// How it wants hashes with expiring fields; `None` if it has not said that it is a Valkey.
    pub dialect: Option<Dialect>,
    /// It wants a snapshot and no stream.
    pub wants_snapshot_only: bool,
    /// It wants no keys in the snapshot.
    pub wants_no_keys: bool,
}

/// What a replica is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// It waits for the snapshot.
    Waiting,
    /// It receives the snapshot.
    Receiving,
    /// It has the snapshot and wants nothing else.
    Done,
    /// It follows the stream.
    Online,
}

impl Phase {
    const ALL: [Phase; 4] = [Phase::Waiting, Phase::Receiving, Phase::Done, Phase::Online];

    /// Redis's name.
    pub fn name(self) -> Option<&'static str> {
        match self {
            Phase::Waiting => Some("wait_bgsave"),
            Phase::Receiving => Some("send_bulk"),
            Phase::Online => Some("online"),
            Phase::Done => None,
        }
    }
}

/// A replica.
pub struct Replica {
    /// The id of its connection.
    pub id: u64,
    pub outbox: Arc<Outbox>,
    pub profile: Profile,
    /// Its address, as INFO and ROLE show it.
    pub address: String,
    /// The history that it follows.
    pub(super) history: u64,
    phase: AtomicU8,
    /// The LSN up to which the stream was sent, or from which on it will be.
    sent: AtomicU64,
    /// The offsets that it has acknowledged: applied, and synced to its own log.
    applied: AtomicU64,
    synced: AtomicU64,
    /// When it was last heard of, and whether it has acknowledged anything.
    heard: Mutex<(Instant, bool)>,
}

impl Replica {
    /// One that needs the stream from that LSN on.
    pub fn new(
        id: u64,
        outbox: Arc<Outbox>,
        profile: Profile,
        identity: &Identity,
        lsn: u64,
    ) -> Replica {
        let mut address = profile.address.clone();
        if address.is_empty() {
            let peer = outbox.socket().map(|socket| socket.addresses().0).unwrap_or_default();
            let ip = peer.rsplit_once(':').map_or("", |(ip, _)| ip);
            address = ip.trim_start_matches('[').trim_end_matches(']').to_string();
        }
        Replica {
            id,
            outbox,
            profile,
            address,
            history: identity.history(),
            phase: AtomicU8::new(Phase::Waiting as u8),
            sent: AtomicU64::new(lsn),
            applied: AtomicU64::new(0),
            synced: AtomicU64::new(0),
            heard: Mutex::new((Instant::now(), false)),
        }
    }

    /// Where it says that it listens.
    pub fn place(&self) -> Address {
        let port = u16::try_from(self.profile.port).unwrap_or_default();
        Address { host: self.address.clone(), port }
    }

    /// Whether that is where it listens.
    pub fn is_at(&self, place: &Address) -> bool {
        self.place() == *place
    }

    pub fn phase(&self) -> Phase {
        Phase::ALL[usize::from(self.phase.load(SeqCst)) % Phase::ALL.len()]
    }

    pub(super) fn enter(&self, phase: Phase) {
        self.heard();
        self.phase.store(phase as u8, SeqCst);
    }

    /// It is there: something has arrived from it, or it takes what is sent.
    pub fn heard(&self) {
        lock(&self.heard).0 = Instant::now();
    }

    /// How long nothing was heard of it.
    pub fn silence(&self) -> Duration {
        lock(&self.heard).0.elapsed()
    }

    pub(super) fn has_acknowledged(&self) -> bool {
        lock(&self.heard).1
    }

    /// The offset up to which it has applied the stream.
    pub fn applied(&self) -> u64 {
        self.applied.load(SeqCst)
    }

    /// The offset up to which it has the stream on its disk.
    pub fn synced(&self) -> u64 {
        self.synced.load(SeqCst)
    }

    pub(super) fn set_sent(&self, lsn: u64) {
        self.sent.store(lsn, SeqCst);
    }

    /// The LSN from which on it needs the stream. What was sent may be lost with the connection, but no more
    /// than is on its way, so one that acknowledges nothing does not need everything.
    pub(super) fn needs(&self, identity: &Identity) -> u64 {
        let sent = self.sent.load(SeqCst);
        if self.phase() != Phase::Online {
            return sent;
        }
        // Before the first acknowledgement, this LSN may be negative.
        let applied = identity.lsn(self.applied()).cast_signed().max(0).cast_unsigned();
        applied.clamp(sent.saturating_sub(ON_ITS_WAY_BYTES), sent)
    }

    /// Seconds since it was last heard of, as far as it follows the stream.
    pub fn lag(&self) -> u64 {
        if self.phase() == Phase::Online { self.silence().as_secs() } else { 0 }
    }
}

/// The registry of replicas, by the ids of their connections.
#[derive(Default)]
pub struct Replicas {
    all: Mutex<BTreeMap<u64, Arc<Replica>>>,
    /// Wakes those who wait for acknowledgements.
    acknowledged: Condvar,
    count: AtomicUsize,
    /// Those that have left, by address and port: they may come back.
    left: Mutex<BTreeMap<(String, i64), Left>>,
}

/// A replica that has left.
struct Left {
    at: Instant,
    /// The LSN from which on it needs the stream.
    needs: u64,
}

impl Replicas {
    pub fn register(&self, replica: Arc<Replica>) {
        let mut all = self.lock();
        lock(&self.left).remove(&(replica.address.clone(), replica.profile.port));
        all.insert(replica.id, replica);
        self.count.store(all.len(), SeqCst);
    }

    /// Removes a replica, if the connection is one.
    pub fn deregister(&self, id: u64, identity: &Identity) {
        let mut all = self.lock();
        let Some(replica) = all.remove(&id) else { return };
        self.count.store(all.len(), SeqCst);
        // One whose connection was cut may be back already.
        let is_same = |other: &Arc<Replica>| {
            other.address == replica.address && other.profile.port == replica.profile.port
        };
        if replica.phase() == Phase::Online && !all.values().any(is_same) {
            let left = Left { at: Instant::now(), needs: replica.needs(identity) };
            lock(&self.left).insert((replica.address.clone(), replica.profile.port), left);
        }
        self.acknowledged.notify_all();
    }

    /// Whether there are any.
    pub fn any(&self) -> bool {
        self.count.load(SeqCst) > 0
    }

    /// Forgets those that have left longer than this ago, or need more of the stream than from this LSN on.
    /// Returns the least LSN that the others need.
    pub(super) fn awaited(&self, patience: Option<Duration>, from: u64) -> Option<u64> {
        let mut left = lock(&self.left);
        left.retain(|_, left| {
            patience.is_none_or(|patience| left.at.elapsed() < patience) && left.needs >= from
        });
        left.values().map(|left| left.needs).min()
    }

    pub fn all(&self) -> Vec<Arc<Replica>> {
        self.lock().values().cloned().collect()
    }

    /// Ends the connections of all.
    pub fn disconnect(&self) {
        for replica in self.all() {
            replica.outbox.close();
        }
    }

    /// Records what a replica has applied and, if it says so, synced.
    pub fn acknowledge(&self, replica: &Replica, applied: u64, synced: Option<u64>) {
        replica.applied.fetch_max(applied, SeqCst);
        if let Some(synced) = synced {
            replica.synced.fetch_max(synced, SeqCst);
        }
        *lock(&replica.heard) = (Instant::now(), true);
        drop(self.lock()); // one that has just looked waits by now
        self.acknowledged.notify_all();
    }

    /// How many follow the stream and meet a condition.
    pub fn count(&self, meets: impl Fn(&Replica) -> bool) -> usize {
        count(&self.lock(), meets)
    }

    /// Waits for that long until enough of those that follow the stream meet a condition. Returns how many
    /// do.
    pub fn wait(
        &self,
        enough: usize,
        patience: Duration,
        meets: impl Fn(&Replica) -> bool,
    ) -> usize {
        let missing = |all: &mut BTreeMap<_, _>| count(all, &meets) < enough;
        let waited = self.acknowledged.wait_timeout_while(self.lock(), patience, missing);
        count(&waited.unwrap_or_else(PoisonError::into_inner).0, &meets)
    }

    /// Waits for that long until something may have changed.
    pub(super) fn wait_for_news(&self, patience: Duration) {
        drop(self.acknowledged.wait_timeout(self.lock(), patience));
    }

    /// Wakes all that wait.
    pub fn wake(&self) {
        drop(self.lock());
        self.acknowledged.notify_all();
    }

    /// The least LSN that a replica still needs.
    pub(super) fn needs(&self, identity: &Identity) -> Option<u64> {
        self.lock().values().map(|replica| replica.needs(identity)).min()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Replica>>> {
        lock(&self.all)
    }
}

fn count(all: &BTreeMap<u64, Arc<Replica>>, meets: impl Fn(&Replica) -> bool) -> usize {
    let online = all.values().filter(|replica| replica.phase() == Phase::Online);
    online.filter(|replica| meets(replica)).count()
}
