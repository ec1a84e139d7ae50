//! Client-side caching: clients cache what they read, and are notified when it changes.
//!
//! A client that tracks in the default mode is added to a table ([`Readers`]) for every key it reads, and is
//! notified once when the key changes. A client that tracks with `BCAST` is notified of every change of a
//! key that has one of its prefixes, and is not in the table. Databases do not matter: keys are known by
//! their names alone.
//!
//! No client may keep an outdated value forever. That takes three things:
//!
//! - **No read goes unnoticed.** The dispatcher adds a reader while the key's shard is still locked for the
//!   read. The next writer has to lock the shard, and looks at the table before it unlocks. So a change
//!   either precedes the read, which then sees it, or finds the reader. One flag says whether any client
//!   tracks ([`Tracking::new`]). It is set before the first tracked read; the shard lock makes it visible to
//!   later writers. Without tracking, a command pays for reading the flag.
//! - **A reply precedes its invalidation.** Otherwise the client would keep the old value. From `CLIENT
//!   TRACKING ON` on, a connection's replies and the pushes of others go through one queue
//!   ([`outbox`](crate::net::outbox)); what is pushed while a command runs is held, and follows its reply.
//!   Invalidations of a client's own changes follow the reply as well, inside of EXEC the reply of EXEC.
//!   (There is no such order when `REDIRECT` names *another* connection; as with Redis, the client has to
//!   cope.)
//! - **No invalidation is lost.** Unlike other pushes it does not wait for the log: it reveals no data, and
//!   the reply to reading the key again does wait. If replies are withdrawn because the log cannot be
//!   written, so are the pushes between them, and the client is told to drop its whole cache instead
//!   ([`Tracking::forget_all`]). The table has at most `tracking-table-max-keys` keys: beyond that, a random
//!   key is removed as if it had changed.
//!
//! Swapping databases counts as a flush, which makes every client drop its cache. (Redis up to version 7 does
//! not notify anyone.)
//!
//! A client that does not read its invalidations is disconnected at the `client-output-buffer-limit` of its
//! class. Unless it also subscribes, that is `normal`, which has no limit by default.
//!
//! Invariants ([`Tracking::check`]): the two directions of the prefixes agree; the flag and the count
//! that others read without a lock match the tables.
//!
//! Locks: the table's for a moment; then the clients', held while they are notified, so that a client that
//! has stopped tracking gets nothing more. Both come after the shards and the log, and before
//! [`super::pubsub`] and the outboxes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::config::Config;
use crate::net::outbox::{Listening, Outbox};
use crate::resp::Protocol;
use crate::store::{Garbage, Readers, allocated};
use crate::text::ensure;
use crate::watchers::pubsub::{Message, PubSub, encode_message};

/// The channel that carries invalidations to RESP2 clients, which must have subscribed to some channel.
const CHANNEL: &[u8] = b"__redis__:invalidate";

/// Not the id of any client: the author of changes that no client made.
pub const NOBODY: u64 = 0;

/// How a client tracks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mode {
    /// Which keys it is notified about.
    pub what: Tracked,
    /// It is not notified of its own changes.
    pub noloop: bool,
    /// The client that is notified in its place; 0 for none.
    pub redirect: u64,
}

/// Which keys a client is notified about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tracked {
    /// Those it has read.
    Reads,
    /// Those it has read after `CLIENT CACHING YES`.
    OptIn,
    /// Those it has read, but not after `CLIENT CACHING NO`.
    OptOut,
    /// Those with certain prefixes, read or not.
    Prefixes,
}

impl Mode {
    /// Shows the client's own thread that the client tracks in this mode, or that it no longer does.
    fn show(self, listening: &Listening, tracks: bool) {
        listening.tracks.store(tracks, SeqCst);
        for (shown, caching) in listening.tracks_reads.iter().zip([false, true]) {
            shown.store(tracks && self.tracks_reads(caching), SeqCst);
        }
    }

    /// Whether a key that the client reads is tracked. `caching` says whether it has sent `CLIENT CACHING`.
    fn tracks_reads(self, caching: bool) -> bool {
        match self.what {
            Tracked::Reads => true,
            Tracked::OptIn => caching,
            Tracked::OptOut => !caching,
            Tracked::Prefixes => false,
        }
    }
}

/// What `CLIENT TRACKINGINFO` and `CLIENT LIST` show of a client that tracks.
pub struct TrackingState {
    /// How it tracks.
    pub mode: Mode,
    /// The client to which it redirects was gone when there was something to send.
    pub broken: bool,
    /// Its prefixes in ascending order.
    pub prefixes: Vec<Box<[u8]>>,
}

/// The state of client-side caching.
pub struct Tracking {
    config: Arc<Config>,
    /// Whether any client tracks.
    on: Arc<AtomicBool>,
    readers: Readers,
    clients: Mutex<Clients>,
    /// The number of different prefixes, so that writers need no lock while there are none.
    prefix_count: AtomicUsize,
}

#[derive(Default)]
struct Clients {
    all: BTreeMap<u64, Tracker>,
    prefixes: BTreeMap<Box<[u8]>, BTreeSet<u64>>,
    /// The memory that the prefixes take, in bytes, as an estimate.
    prefix_bytes: usize,
}

/// A client that tracks.
struct Tracker {
    mode: Mode,
    outbox: Arc<Outbox>,
    /// The outbox of the client to which it redirects; gone when that client is.
    target: Option<Weak<Outbox>>,
    broken: bool,
    prefixes: BTreeSet<Box<[u8]>>,
}

impl Tracker {
    /// The memory that its prefixes take, in bytes, as an estimate.
    fn memory_bytes(&self) -> usize {
        self.prefixes.iter().map(|prefix| charge_for(prefix)).sum()
    }
}

/// What a client that tracks a prefix is charged for it: its places in both directions, where it is copied.
fn charge_for(prefix: &[u8]) -> usize {
    2 * (allocated(prefix.len()) + 64)
}

impl Tracking {
    /// A state without clients. `on` is kept true while any client tracks; writers read it.
    pub fn new(config: Arc<Config>, on: Arc<AtomicBool>) -> Tracking {
        let (clients, prefix_count) = (Mutex::default(), AtomicUsize::new(0));
        Tracking { config, on, readers: Readers::default(), clients, prefix_count }
    }

    /// Whether any client tracks.
    pub fn is_on(&self) -> bool {
        self.on.load(Relaxed)
    }

    // ---- Clients ----

    /// Starts tracking for a client, in this mode and with these prefixes in addition to those that it has.
    /// Its outbox is holding, so that nothing precedes the reply.
    pub fn start(
        &self,
        id: u64,
        outbox: &Arc<Outbox>,
        mode: Mode,
        target: Option<&Arc<Outbox>>,
        prefixes: &[&[u8]],
    ) {
        let mut clients = self.lock();
        let Clients { all, prefixes: shared, prefix_bytes } = &mut *clients;
        let old = all.remove(&id);
        let mut own = old.map(|old| old.prefixes).unwrap_or_default();
        for prefix in prefixes {
            if own.insert((*prefix).into()) {
                outbox.listening.memory_bytes.fetch_add(charge_for(prefix), SeqCst);
                *prefix_bytes += charge_for(prefix);
            }
            shared.entry((*prefix).into()).or_default().insert(id);
        }
        mode.show(&outbox.listening, true);
        let (target, outbox) = (target.map(Arc::downgrade), outbox.clone());
        all.insert(id, Tracker { mode, outbox, target, broken: false, prefixes: own });
        self.prefix_count.store(shared.len(), SeqCst);
        self.on.store(true, SeqCst);
    }

    /// Stops tracking for a client, if it tracks. The result may take long to free.
    pub fn deregister(&self, id: u64) -> Garbage {
        let mut clients = self.lock();
        let tracker = clients.all.remove(&id);
        if let Some(tracker) = &tracker {
            let listening = &tracker.outbox.listening;
            tracker.mode.show(listening, false);
            let bytes = tracker.memory_bytes();
            listening.memory_bytes.fetch_sub(bytes, SeqCst);
            clients.prefix_bytes -= bytes;
        }
        for prefix in tracker.iter().flat_map(|tracker| &tracker.prefixes) {
            if let Some(ids) = clients.prefixes.get_mut(prefix) {
                ids.remove(&id);
                if ids.is_empty() {
                    clients.prefixes.remove(prefix);
                }
            }
        }
        self.prefix_count.store(clients.prefixes.len(), SeqCst);
        // A killed client may read for another moment and be added once more; then it stops twice.
        if clients.all.is_empty() && (self.is_on() || self.readers.keys() > 0) {
            self.on.store(false, SeqCst);
            return Garbage::of(&self.readers);
        }
        Garbage::default()
    }

    /// The state of a client, if it tracks.
    pub fn state(&self, id: u64) -> Option<TrackingState> {
        let clients = self.lock();
        let Tracker { mode, broken, prefixes, .. } = clients.all.get(&id)?;
        Some(TrackingState {
            mode: *mode,
            broken: *broken,
            prefixes: prefixes.iter().cloned().collect(),
        })
    }

    /// The numbers of clients that track, of keys that they have read, of pairs of a client and a key, and of
    /// prefixes.
    pub fn counts(&self) -> [usize; 4] {
        let clients = self.lock();
        let (keys, entries) = (self.readers.keys(), self.readers.entries());
        [clients.all.len(), keys, entries, clients.prefixes.len()]
    }

    /// The memory that keys and prefixes take, in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.readers.memory_bytes() + self.lock().prefix_bytes
    }

    // ---- Keys ----

    /// Adds a client to the readers of these keys. Their shards are locked.
    pub fn add_reader<'a>(&self, pubsub: &PubSub, id: u64, keys: impl Iterator<Item = &'a [u8]>) {
        keys.for_each(|key| self.readers.add(key, id));
        self.shrink(pubsub);
    }

    /// Removes random keys while the table exceeds its limit, and notifies their readers.
    pub fn shrink(&self, pubsub: &PubSub) {
        let limit = self.config.tracking_table_max_keys.load(Relaxed);
        let limit = usize::try_from(limit).ok().filter(|&limit| limit > 0).unwrap_or(usize::MAX);
        while self.readers.keys() > limit
            && let Some((key, readers)) = self.readers.take_random()
        {
            self.notify_clients(pubsub, &key, &readers, NOBODY);
        }
    }

    /// Notifies the readers of a key that the client `by`, or [`NOBODY`], has changed it. The key's shard is
    /// locked.
    pub fn notify_readers(&self, pubsub: &PubSub, key: &[u8], by: u64) {
        let readers = self.readers.take(key);
        if !readers.is_empty() {
            self.notify_clients(pubsub, key, &readers, by);
        }
    }

    /// Like [`Tracking::notify_readers`], but does not notify the client `by` itself: only returns whether it
    /// is a reader.
    pub fn notify_others(&self, pubsub: &PubSub, key: &[u8], by: u64) -> bool {
        let mut readers = self.readers.take(key);
        let count = readers.len();
        readers.retain(|id| *id != by);
        if !readers.is_empty() {
            self.notify_clients(pubsub, key, &readers, by);
        }
        readers.len() < count
    }

    /// Notifies a client that has changed a key which it had read. As in Redis, it gets the message although
    /// it has stopped tracking in the same transaction, if it understands it.
    pub fn notify_self(&self, pubsub: &PubSub, key: &[u8], id: u64, outbox: &Outbox) {
        if self.state(id).is_some() {
            self.notify_clients(pubsub, key, &[id], id);
        } else if outbox.protocol() == Protocol::Resp3 {
            pubsub.send_to(id, outbox, Invalidation::of(Some(&[key])).as_push());
        }
    }

    fn notify_clients(&self, pubsub: &PubSub, key: &[u8], readers: &[u64], by: u64) {
        let keys = [key];
        let mut invalidation = Invalidation::of(Some(&keys));
        let mut clients = self.lock();
        for id in readers {
            let tracker = clients.all.get_mut(id);
            // A client that has switched to BCAST is not notified of what it read before.
            if let Some(tracker) = tracker.filter(|t| t.mode.what != Tracked::Prefixes) {
                tracker.notify(pubsub, *id, &mut invalidation, by);
            }
        }
    }

    /// Notifies the clients that track the prefixes of these keys.
    pub fn broadcast(&self, pubsub: &PubSub, keys: &[impl AsRef<[u8]>], by: u64) {
        if keys.is_empty() || self.prefix_count.load(SeqCst) == 0 {
            return;
        }
        let keys: BTreeSet<&[u8]> = keys.iter().map(AsRef::as_ref).collect();
        let mut clients = self.lock();
        let Clients { all, prefixes, .. } = &mut *clients;
        for (prefix, ids) in prefixes {
            let keys = keys.iter().copied().filter(|key| key.starts_with(prefix));
            let keys: Vec<&[u8]> = keys.collect();
            if keys.is_empty() {
                continue;
            }
            let mut invalidation = Invalidation::of(Some(&keys));
            for id in &*ids {
                if let Some(tracker) = all.get_mut(id) {
                    tracker.notify(pubsub, *id, &mut invalidation, by);
                }
            }
        }
    }

    /// Tells every client to drop its cache. All shards are locked. The result may take long to free.
    pub fn notify_all(&self, pubsub: &PubSub) -> Garbage {
        let mut invalidation = Invalidation::of(None);
        for (id, tracker) in &mut self.lock().all {
            tracker.notify(pubsub, *id, &mut invalidation, NOBODY);
        }
        Garbage::of(&self.readers)
    }

    /// Tells a client, and the clients that redirect to it, to drop their caches. Called after replies were
    /// withdrawn together with the invalidations between them.
    pub fn forget_all(&self, pubsub: &PubSub, id: u64) {
        let mut invalidation = Invalidation::of(None);
        for (other, tracker) in &mut self.lock().all {
            if *other == id || tracker.mode.redirect == id {
                tracker.notify(pubsub, *other, &mut invalidation, NOBODY);
            }
        }
    }

    /// Checks the invariants.
    ///
    /// # Errors
    /// A sentence about what is wrong.
    pub fn check(&self) -> Result<(), String> {
        self.readers.check()?;
        let Clients { all, prefixes, prefix_bytes } = &*self.lock();
        let (on, count) = (self.is_on(), self.prefix_count.load(SeqCst));
        ensure!(on != all.is_empty(), "{} clients track, but the flag is {on}", all.len());
        ensure!(count == prefixes.len(), "{} prefixes, counted: {count}", prefixes.len());
        let mut by_prefix = BTreeMap::<Box<[u8]>, BTreeSet<u64>>::new();
        for (id, tracker) in all {
            let shown = tracker.outbox.listening.tracks.load(SeqCst);
            ensure!(shown, "client {id} tracks, but its outbox says no");
            for prefix in &tracker.prefixes {
                by_prefix.entry(prefix.clone()).or_default().insert(*id);
            }
        }
        ensure!(by_prefix == *prefixes, "prefixes {prefixes:?}, by client {by_prefix:?}");
        let bytes: usize = all.values().map(Tracker::memory_bytes).sum();
        ensure!(bytes == *prefix_bytes, "prefixes take {bytes} bytes, counted: {prefix_bytes}");
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Clients> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tracker {
    /// Notifies the client, or the one to which it redirects.
    fn notify(&mut self, pubsub: &PubSub, id: u64, invalidation: &mut Invalidation, by: u64) {
        if self.mode.noloop && by == id {
            return;
        }
        let Some(target) = &self.target else {
            if self.outbox.protocol() == Protocol::Resp3 {
                pubsub.send_to(id, &self.outbox, invalidation.as_push());
            }
            return;
        };
        let redirect = self.mode.redirect;
        let sent = target.upgrade().is_some_and(|target| {
            if target.protocol() == Protocol::Resp3 {
                pubsub.send_to(redirect, &target, invalidation.as_push())
            } else if target.listening.subscribes() {
                pubsub.send_to(redirect, &target, invalidation.as_message())
            } else {
                // A RESP2 client expects nothing but replies unless it subscribes.
                !target.is_ending()
            }
        });
        if !sent {
            self.broken = true;
            if self.outbox.protocol() == Protocol::Resp3 {
                let message = encode_message(Protocol::Resp3, |reply| {
                    reply.push(2);
                    reply.bulk(b"tracking-redir-broken");
                    reply.integer(redirect as i64);
                });
                pubsub.send_to(id, &self.outbox, &message);
            }
        }
    }
}

/// An invalidation, encoded at most once in each form.
struct Invalidation<'a> {
    /// The keys that changed; `None` for all.
    keys: Option<&'a [&'a [u8]]>,
    push: Option<Message>,
    message: Option<Message>,
}

impl<'a> Invalidation<'a> {
    fn of(keys: Option<&'a [&'a [u8]]>) -> Invalidation<'a> {
        Invalidation { keys, push: None, message: None }
    }

    fn as_push(&mut self) -> &Message {
        let keys = self.keys;
        self.push.get_or_insert_with(|| encode(Protocol::Resp3, &[b"invalidate"], keys))
    }

    fn as_message(&mut self) -> &Message {
        let keys = self.keys;
        self.message.get_or_insert_with(|| encode(Protocol::Resp2, &[b"message", CHANNEL], keys))
    }
}

fn encode(protocol: Protocol, head: &[&[u8]], keys: Option<&[&[u8]]>) -> Message {
    encode_message(protocol, |reply| {
        reply.push(head.len() + 1);
        head.iter().for_each(|part| reply.bulk(part));
        match keys {
            None => reply.null(),
            Some(keys) => {
                reply.array(keys.len());
                keys.iter().for_each(|key| reply.bulk(key));
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::Reply;

    const READS: Mode = Mode { what: Tracked::Reads, noloop: false, redirect: 0 };

    struct Place {
        config: Arc<Config>,
        pubsub: PubSub,
        on: Arc<AtomicBool>,
        tracking: Tracking,
    }

    fn place() -> Place {
        let (config, on) = (Arc::new(Config::new()), Arc::<AtomicBool>::default());
        let tracking = Tracking::new(config.clone(), on.clone());
        Place { pubsub: PubSub::new(config.clone()), config, on, tracking }
    }

    impl Place {
        /// A client that speaks RESP3 and tracks.
        fn client(&self, id: u64, mode: Mode, prefixes: &[&[u8]]) -> Arc<Outbox> {
            let outbox = Arc::new(Outbox::new(None));
            outbox.set_protocol(Protocol::Resp3);
            outbox.hold();
            self.tracking.start(id, &outbox, mode, None, prefixes);
            outbox
        }

        #[track_caller]
        fn counts(&self) -> [usize; 4] {
            assert_eq!(self.tracking.check(), Ok(()));
            self.tracking.counts()
        }

        fn change(&self, keys: &[&str], by: u64) {
            let keys: Vec<Box<[u8]>> = keys.iter().map(|key| key.as_bytes().into()).collect();
            keys.iter().for_each(|key| self.tracking.notify_readers(&self.pubsub, key, by));
            self.tracking.broadcast(&self.pubsub, &keys, by);
        }

        fn read(&self, id: u64, keys: &[&str]) {
            self.tracking.add_reader(&self.pubsub, id, keys.iter().map(|key| key.as_bytes()));
        }
    }

    /// What the client was sent since the last call, without what is always the same.
    fn pushed(outbox: &Outbox) -> String {
        let mut reply = Reply::new(Protocol::Resp3);
        outbox.take_held(&mut reply, 0, true);
        let text = String::from_utf8_lossy(reply.bytes()).replace("\r\n", " ");
        text.replace(">2 $10 invalidate ", "| ")
    }

    #[test]
    fn a_reader_is_notified_once_and_only_while_it_tracks() {
        let place = place();
        let (one, other) = (place.client(1, READS, &[]), place.client(2, READS, &[]));
        place.read(1, &["a", "b"]);
        place.read(2, &["a"]);
        place.change(&["a", "a", "c"], NOBODY);
        place.change(&["a"], NOBODY);
        assert_eq!((pushed(&one), pushed(&other)), ("| *1 $1 a ".into(), "| *1 $1 a ".into()));
        place.tracking.deregister(1);
        place.change(&["b"], NOBODY);
        assert_eq!(pushed(&one), "");
        assert_eq!(place.counts(), [1, 0, 0, 0]);
    }

    #[test]
    fn when_the_last_client_stops_tracking_the_tables_are_empty() {
        let place = place();
        assert!(!place.on.load(SeqCst));
        let _one = place.client(1, READS, &[]);
        let prefixes = Mode { what: Tracked::Prefixes, ..READS };
        let _other = place.client(2, prefixes, &[b"x", b"y"]);
        place.read(1, &["a", "b"]);
        assert_eq!(place.counts(), [2, 2, 2, 2]);
        place.tracking.deregister(2);
        assert_eq!(place.counts(), [1, 2, 2, 0]);
        assert!(place.on.load(SeqCst));
        place.tracking.deregister(1);
        assert_eq!(place.counts(), [0; 4]);
        place.read(1, &["a"]);
        place.tracking.deregister(1);
        assert_eq!(place.counts(), [0; 4], "a killed client that was reading stops twice");
        assert!(!place.on.load(SeqCst));
    }

    #[test]
    fn a_bcast_client_is_notified_by_prefix_in_order_and_with_noloop_not_of_its_own_changes() {
        let place = place();
        let mode = Mode { what: Tracked::Prefixes, noloop: true, redirect: 0 };
        let one = place.client(1, mode, &[b"a", b"b"]);
        let other = place.client(2, mode, &[b""]);
        place.change(&["c", "b1", "a2", "a1", "a2"], 2);
        assert_eq!(pushed(&one), "| *2 $2 a1 $2 a2 | *1 $2 b1 ");
        assert_eq!(pushed(&other), "");
        place.change(&["c"], NOBODY);
        assert_eq!((pushed(&one), pushed(&other)), (String::new(), "| *1 $1 c ".into()));
    }

    #[test]
    fn beyond_its_limit_the_table_drops_keys_as_if_they_had_changed() {
        let place = place();
        let client = place.client(1, READS, &[]);
        place.config.set(&[(b"tracking-table-max-keys", b"2")]).expect("a setting");
        place.read(1, &["a", "b", "c", "d"]);
        assert_eq!(pushed(&client).matches("| *1 ").count(), 2);
        place.change(&["a", "b", "c", "d"], NOBODY);
        assert_eq!(pushed(&client).matches("| *1 ").count(), 2);
        place.config.set(&[(b"tracking-table-max-keys", b"0")]).expect("a setting");
        place.read(1, &["a", "b", "c", "d"]);
        assert_eq!(place.counts(), [1, 4, 4, 0]);
    }

    #[test]
    fn a_redirection_breaks_when_its_target_is_gone_and_the_client_is_notified() {
        let place = place();
        let (target, own) = (Arc::new(Outbox::new(None)), Arc::new(Outbox::new(None)));
        own.set_protocol(Protocol::Resp3);
        [&target, &own].into_iter().for_each(|outbox| outbox.hold());
        place.tracking.start(1, &own, Mode { redirect: 2, ..READS }, Some(&target), &[]);
        let is_broken = || place.tracking.state(1).is_some_and(|state| state.broken);
        place.read(1, &["a"]);
        place.change(&["a"], NOBODY);
        assert_eq!(pushed(&target), "", "it speaks RESP2 and has not subscribed");
        target.set_protocol(Protocol::Resp3);
        drop(place.tracking.notify_all(&place.pubsub));
        assert_eq!((pushed(&target), pushed(&own)), ("| _ ".into(), String::new()));
        assert!(!is_broken());
        drop(target);
        drop(place.tracking.notify_all(&place.pubsub));
        assert_eq!(pushed(&own), ">2 $21 tracking-redir-broken :2 ");
        assert!(is_broken());
    }
}
