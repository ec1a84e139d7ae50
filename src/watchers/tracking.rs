//! Client-side caching: clients that keep copies of what they read, and are told when it changes.
//!
//! A client that tracks in the default mode is entered in a table ([`Readers`]) with every key it reads,
//! and told once when the key changes. One that tracks by `BCAST` is told of every change of a key with one
//! of its prefixes, and has no place in the table. Databases do not matter: keys are known by their names.
//!
//! What must hold is that nobody keeps a value for good which is no longer current. It takes three things,
//! and each has its place:
//!
//! - **Nobody reads unseen.** The dispatcher enters a reader while the key's shard is still locked for the
//!   read. Whoever changes the key afterwards has to lock the shard for it, and looks into the table before
//!   letting go of it. So a change either came before the read, which then has seen it, or finds the reader.
//!   That there is anybody at all is one flag ([`Tracking::new`]), raised before the first read of the first
//!   client; the shard's lock carries that too. A server without such clients pays for looking at it.
//! - **First the answer, then the news that it is out of date.** If the client got them the other way round
//!   it would keep the old value. So from `CLIENT TRACKING ON` on, a connection's replies and what others
//!   send it go through one queue ([`outbox`](crate::net::outbox)); what others send while a command is
//!   carried out is held, and put behind its reply. (To *another* connection, by `REDIRECT`, there is no
//!   such order. As with Redis, the client has to see to that itself.) What a client changes itself it hears
//!   of behind the reply as well, and behind that to EXEC.
//! - **No news is lost.** It does not wait for the log, unlike all else that others send: it shows nothing
//!   but that a value should be asked for again, and that answer waits. If replies have to be taken back
//!   because the log cannot be written, so is what was put between them, and in its stead the client is told
//!   to forget everything ([`Tracking::forget_all`]). The table has at most `tracking-table-max-keys` keys:
//!   one more, and a random one is taken out as if it had changed.
//!
//! An exchange of databases counts as a flush here, which tells everybody to forget everything. (With Redis
//! up to version 7 nobody hears of it.)
//!
//! Who does not read what it is told is cut off at `client-output-buffer-limit`, like any client of its
//! class: unless it also subscribes, that is the normal one, which has no limit by default.
//!
//! Locks: the table's, for a moment; then the clients, held while they are told, so that whoever has
//! stopped hears nothing more. Both behind the shards and the log; behind them the [`super::pubsub`] and
//! the outboxes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::config::Config;
use crate::net::outbox::Outbox;
use crate::resp::{Protocol, Reply};
use crate::store::{Garbage, Readers};
use crate::watchers::pubsub::Hub;

/// On this channel clients are told that speak RESP2, if they listen to any.
const CHANNEL: &[u8] = b"__redis__:invalidate";

/// Nobody's number: what nobody's command has changed.
pub const NOBODY: u64 = 0;

/// How a client tracks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mode {
    /// Of which keys it is told.
    pub what: Tracked,
    /// It is not told of its own changes.
    pub noloop: bool,
    /// The client that is told in its stead; 0 for none.
    pub redirect: u64,
}

/// Of which keys a client is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tracked {
    /// Of those it has read.
    Reads,
    /// Of those it has read after `CLIENT CACHING YES`.
    OptIn,
    /// Of those it has read, but not after `CLIENT CACHING NO`.
    OptOut,
    /// Of those with certain prefixes, read or not.
    Prefixes,
}

impl Mode {
    /// Whether what is read now is entered, `CLIENT CACHING` having been said or not.
    pub fn enters(self, caching: bool) -> bool {
        match self.what {
            Tracked::Reads => true,
            Tracked::OptIn => caching,
            Tracked::OptOut => !caching,
            Tracked::Prefixes => false,
        }
    }
}

/// What `CLIENT TRACKINGINFO` and `CLIENT LIST` tell of a client that tracks.
pub struct State {
    /// How it does.
    pub mode: Mode,
    /// The client to which it redirects was not there when it was to be told something.
    pub broken: bool,
    /// In ascending order.
    pub prefixes: Vec<Box<[u8]>>,
}

/// All that there is about client-side caching.
pub struct Tracking {
    config: Arc<Config>,
    /// Somebody tracks.
    on: Arc<AtomicBool>,
    readers: Readers,
    clients: Mutex<Clients>,
    /// How many prefixes there are, for those who change keys when there is none.
    prefix_count: AtomicUsize,
}

#[derive(Default)]
struct Clients {
    all: BTreeMap<u64, Tracker>,
    prefixes: BTreeMap<Box<[u8]>, BTreeSet<u64>>,
}

/// A client that tracks.
struct Tracker {
    mode: Mode,
    outbox: Arc<Outbox>,
    /// The way to whom it redirects to. Gone when that one is.
    target: Option<Weak<Outbox>>,
    broken: bool,
    prefixes: BTreeSet<Box<[u8]>>,
}

impl Tracking {
    /// Nobody tracks. When somebody does, `on` says so to those who change keys.
    pub fn new(config: Arc<Config>, on: Arc<AtomicBool>) -> Tracking {
        let (clients, prefix_count) = (Mutex::default(), AtomicUsize::new(0));
        Tracking { config, on, readers: Readers::default(), clients, prefix_count }
    }

    /// Whether anybody tracks.
    pub fn is_on(&self) -> bool {
        self.on.load(Relaxed)
    }

    // ---- Clients ----

    /// From here on the client tracks, in this mode and with these prefixes beside those that it has. Its
    /// outbox is holding, and so nothing comes before the confirmation.
    pub fn start(
        &self,
        id: u64,
        outbox: &Arc<Outbox>,
        mode: Mode,
        target: Option<&Arc<Outbox>>,
        prefixes: &[&[u8]],
    ) {
        let mut clients = self.lock();
        let Clients { all, prefixes: everybodys } = &mut *clients;
        let old = all.remove(&id);
        let mut own = old.map(|old| old.prefixes).unwrap_or_default();
        for prefix in prefixes {
            own.insert((*prefix).into());
            everybodys.entry((*prefix).into()).or_default().insert(id);
        }
        let (target, outbox) = (target.map(Arc::downgrade), outbox.clone());
        all.insert(id, Tracker { mode, outbox, target, broken: false, prefixes: own });
        self.prefix_count.store(everybodys.len(), SeqCst);
        self.on.store(true, SeqCst);
    }

    /// The client tracks no more, if it did. What comes back takes long to free.
    pub fn leave(&self, id: u64) -> Garbage {
        let mut clients = self.lock();
        let prefixes = clients.all.remove(&id).map(|tracker| tracker.prefixes).unwrap_or_default();
        for prefix in &prefixes {
            if let Some(ids) = clients.prefixes.get_mut(prefix) {
                ids.remove(&id);
                if ids.is_empty() {
                    clients.prefixes.remove(prefix);
                }
            }
        }
        self.prefix_count.store(clients.prefixes.len(), SeqCst);
        // Who is killed may go on reading for a moment, and be entered once more: then it leaves twice.
        if clients.all.is_empty() && (self.is_on() || self.readers.keys() > 0) {
            self.on.store(false, SeqCst);
            return Garbage::of(&self.readers); // nobody is owed anything any more
        }
        Garbage::default()
    }

    /// What there is to tell of the client, if it tracks.
    pub fn state(&self, id: u64) -> Option<State> {
        let clients = self.lock();
        let Tracker { mode, broken, prefixes, .. } = clients.all.get(&id)?;
        Some(State { mode: *mode, broken: *broken, prefixes: prefixes.iter().cloned().collect() })
    }

    /// How many clients track, keys were read by them, pairs of these there are, and prefixes.
    pub fn counts(&self) -> [usize; 4] {
        let clients = self.lock();
        let (keys, entries) = (self.readers.keys(), self.readers.entries());
        [clients.all.len(), keys, entries, clients.prefixes.len()]
    }

    // ---- Keys ----

    /// Enters a client with the keys that it reads, whose shards are locked.
    pub fn enter<'a>(&self, hub: &Hub, id: u64, keys: impl Iterator<Item = &'a [u8]>) {
        keys.for_each(|key| self.readers.enter(key, id));
        self.shrink(hub);
    }

    /// Takes random keys out of the table, as long as it has more than it may.
    pub fn shrink(&self, hub: &Hub) {
        let limit = self.config.tracking_table_max_keys.load(Relaxed);
        let limit = usize::try_from(limit).ok().filter(|&limit| limit > 0).unwrap_or(usize::MAX);
        while self.readers.keys() > limit
            && let Some((key, readers)) = self.readers.take_random()
        {
            self.tell_clients(hub, &key, &readers, NOBODY);
        }
    }

    /// Tells those who have read a key that it has changed, by a client's doing or nobody's. Its shard is
    /// locked.
    pub fn tell_readers(&self, hub: &Hub, key: &[u8], by: u64) {
        let readers = self.readers.take(key);
        if !readers.is_empty() {
            self.tell_clients(hub, key, &readers, by);
        }
    }

    fn tell_clients(&self, hub: &Hub, key: &[u8], readers: &[u64], by: u64) {
        let keys = [key];
        let mut news = News::of(Some(&keys));
        let mut clients = self.lock();
        for id in readers {
            let tracker = clients.all.get_mut(id);
            // Whoever has changed to BCAST meanwhile is not told of what he read before.
            if let Some(tracker) = tracker.filter(|t| t.mode.what != Tracked::Prefixes) {
                tracker.tell(hub, *id, &mut news, by);
            }
        }
    }

    /// Tells those who want to hear of such keys, read or not, that they have changed.
    pub fn broadcast(&self, hub: &Hub, keys: &[impl AsRef<[u8]>], by: u64) {
        if keys.is_empty() || self.prefix_count.load(SeqCst) == 0 {
            return;
        }
        let keys: BTreeSet<&[u8]> = keys.iter().map(AsRef::as_ref).collect();
        let mut clients = self.lock();
        let Clients { all, prefixes } = &mut *clients;
        for (prefix, ids) in prefixes {
            let keys = keys.iter().copied().filter(|key| key.starts_with(prefix));
            let keys: Vec<&[u8]> = keys.collect();
            if keys.is_empty() {
                continue;
            }
            let mut news = News::of(Some(&keys));
            for id in &*ids {
                if let Some(tracker) = all.get_mut(id) {
                    tracker.tell(hub, *id, &mut news, by);
                }
            }
        }
    }

    /// Tells everybody to forget everything. All shards are locked; what comes back takes long to free.
    pub fn tell_all(&self, hub: &Hub) -> Garbage {
        let mut news = News::of(None);
        for (id, tracker) in &mut self.lock().all {
            tracker.tell(hub, *id, &mut news, NOBODY);
        }
        Garbage::of(&self.readers)
    }

    /// Whatever this connection was told between its last replies, for itself or for others, has been taken
    /// back with them: it is told to forget everything.
    pub fn forget_all(&self, hub: &Hub, id: u64) {
        let mut news = News::of(None);
        for (other, tracker) in &mut self.lock().all {
            if *other == id || tracker.mode.redirect == id {
                tracker.tell(hub, *other, &mut news, NOBODY);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Clients> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tracker {
    /// Tells the client, or whom it redirects to.
    fn tell(&mut self, hub: &Hub, id: u64, news: &mut News, by: u64) {
        if self.mode.noloop && by == id {
            return;
        }
        let Some(target) = &self.target else {
            if self.outbox.protocol() == Protocol::Resp3 {
                hub.send_to(id, &self.outbox, news.as_push());
            }
            return;
        };
        let redirect = self.mode.redirect;
        match target.upgrade().filter(|outbox| !outbox.is_closed()) {
            Some(outbox) if outbox.protocol() == Protocol::Resp3 => {
                hub.send_to(redirect, &outbox, news.as_push());
            }
            // In RESP2 only who listens expects anything but replies.
            Some(outbox) if hub.counts(redirect).total() > 0 => {
                hub.send_to(redirect, &outbox, news.as_message());
            }
            Some(_) => {}
            None => {
                self.broken = true;
                if self.outbox.protocol() == Protocol::Resp3 {
                    let mut reply = Reply::new(Protocol::Resp3);
                    reply.push(2);
                    reply.bulk(b"tracking-redir-broken");
                    reply.integer(redirect as i64);
                    hub.send_to(id, &self.outbox, &reply.bytes().into());
                }
            }
        }
    }
}

/// What clients are told, encoded once for each form in which somebody gets it.
struct News<'a> {
    /// The keys to forget, or all.
    keys: Option<&'a [&'a [u8]]>,
    push: Option<Arc<[u8]>>,
    message: Option<Arc<[u8]>>,
}

impl<'a> News<'a> {
    fn of(keys: Option<&'a [&'a [u8]]>) -> News<'a> {
        News { keys, push: None, message: None }
    }

    fn as_push(&mut self) -> &Arc<[u8]> {
        let keys = self.keys;
        self.push.get_or_insert_with(|| encode(Protocol::Resp3, &[b"invalidate"], keys))
    }

    fn as_message(&mut self) -> &Arc<[u8]> {
        let keys = self.keys;
        self.message.get_or_insert_with(|| encode(Protocol::Resp2, &[b"message", CHANNEL], keys))
    }
}

fn encode(protocol: Protocol, head: &[&[u8]], keys: Option<&[&[u8]]>) -> Arc<[u8]> {
    let mut reply = Reply::new(protocol);
    reply.push(head.len() + 1);
    head.iter().for_each(|part| reply.bulk(part));
    match keys {
        None => reply.null(),
        Some(keys) => {
            reply.array(keys.len());
            keys.iter().for_each(|key| reply.bulk(key));
        }
    }
    reply.bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const READS: Mode = Mode { what: Tracked::Reads, noloop: false, redirect: 0 };

    struct Place {
        config: Arc<Config>,
        hub: Hub,
        on: Arc<AtomicBool>,
        tracking: Tracking,
    }

    fn place() -> Place {
        let (config, on) = (Arc::new(Config::new()), Arc::<AtomicBool>::default());
        let tracking = Tracking::new(config.clone(), on.clone());
        Place { hub: Hub::new(config.clone()), config, on, tracking }
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

        fn change(&self, keys: &[&str], by: u64) {
            let keys: Vec<Box<[u8]>> = keys.iter().map(|key| key.as_bytes().into()).collect();
            keys.iter().for_each(|key| self.tracking.tell_readers(&self.hub, key, by));
            self.tracking.broadcast(&self.hub, &keys, by);
        }

        fn read(&self, id: u64, keys: &[&str]) {
            self.tracking.enter(&self.hub, id, keys.iter().map(|key| key.as_bytes()));
        }
    }

    /// What the client has been told since it was last asked, without what is always the same.
    fn told(outbox: &Outbox) -> String {
        let mut reply = Reply::new(Protocol::Resp3);
        outbox.take_held(&mut reply, 0, true);
        let text = String::from_utf8_lossy(reply.bytes()).replace("\r\n", " ");
        text.replace(">2 $10 invalidate ", "| ")
    }

    #[test]
    fn a_reader_is_told_once_and_only_while_it_tracks() {
        let place = place();
        let (one, other) = (place.client(1, READS, &[]), place.client(2, READS, &[]));
        place.read(1, &["a", "b"]);
        place.read(2, &["a"]);
        place.change(&["a", "a", "c"], NOBODY);
        place.change(&["a"], NOBODY);
        assert_eq!((told(&one), told(&other)), ("| *1 $1 a ".into(), "| *1 $1 a ".into()));
        place.tracking.leave(1);
        place.change(&["b"], NOBODY);
        assert_eq!(told(&one), "");
        assert_eq!(place.tracking.counts(), [1, 0, 0, 0]);
    }

    #[test]
    fn when_nobody_tracks_any_more_nothing_is_kept() {
        let place = place();
        assert!(!place.on.load(SeqCst));
        let _one = place.client(1, READS, &[]);
        let prefixes = Mode { what: Tracked::Prefixes, ..READS };
        let _other = place.client(2, prefixes, &[b"x", b"y"]);
        place.read(1, &["a", "b"]);
        assert_eq!(place.tracking.counts(), [2, 2, 2, 2]);
        place.tracking.leave(2);
        assert_eq!(place.tracking.counts(), [1, 2, 2, 0]);
        assert!(place.on.load(SeqCst));
        place.tracking.leave(1);
        assert_eq!(place.tracking.counts(), [0; 4]);
        place.read(1, &["a"]);
        place.tracking.leave(1);
        assert_eq!(place.tracking.counts(), [0; 4], "it was killed while it read");
        assert!(!place.on.load(SeqCst));
    }

    #[test]
    fn who_broadcasts_is_told_by_prefix_in_order_and_not_of_its_own() {
        let place = place();
        let mode = Mode { what: Tracked::Prefixes, noloop: true, redirect: 0 };
        let one = place.client(1, mode, &[b"a", b"b"]);
        let other = place.client(2, mode, &[b""]);
        place.change(&["c", "b1", "a2", "a1", "a2"], 2);
        assert_eq!(told(&one), "| *2 $2 a1 $2 a2 | *1 $2 b1 ");
        assert_eq!(told(&other), "");
        place.change(&["c"], NOBODY);
        assert_eq!((told(&one), told(&other)), (String::new(), "| *1 $1 c ".into()));
    }

    #[test]
    fn beyond_its_limit_the_table_forgets_keys_as_if_they_had_changed() {
        let place = place();
        let client = place.client(1, READS, &[]);
        place.config.set(&[(b"tracking-table-max-keys", b"2")]).expect("a setting");
        place.read(1, &["a", "b", "c", "d"]);
        assert_eq!(told(&client).matches("| *1 ").count(), 2);
        place.change(&["a", "b", "c", "d"], NOBODY);
        assert_eq!(told(&client).matches("| *1 ").count(), 2);
        place.config.set(&[(b"tracking-table-max-keys", b"0")]).expect("a setting");
        place.read(1, &["a", "b", "c", "d"]);
        assert_eq!(place.tracking.counts(), [1, 4, 4, 0]);
    }

    #[test]
    fn a_redirection_breaks_with_its_target_and_says_so() {
        let place = place();
        let (target, own) = (Arc::new(Outbox::new(None)), Arc::new(Outbox::new(None)));
        own.set_protocol(Protocol::Resp3);
        [&target, &own].into_iter().for_each(|outbox| outbox.hold());
        place.tracking.start(1, &own, Mode { redirect: 2, ..READS }, Some(&target), &[]);
        let is_broken = || place.tracking.state(1).is_some_and(|state| state.broken);
        place.read(1, &["a"]);
        place.change(&["a"], NOBODY);
        assert_eq!(told(&target), "", "it speaks RESP2 and does not listen");
        target.set_protocol(Protocol::Resp3);
        drop(place.tracking.tell_all(&place.hub));
        assert_eq!((told(&target), told(&own)), ("| _ ".into(), String::new()));
        assert!(!is_broken());
        drop(target);
        drop(place.tracking.tell_all(&place.hub));
        assert_eq!(told(&own), ">2 $21 tracking-redir-broken :2 ");
        assert!(is_broken());
    }
}
