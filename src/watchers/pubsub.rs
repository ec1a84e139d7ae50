//! Who listens: to channels, to patterns of channels, to shard channels, and to everything (`MONITOR`).
//!
//! One registry, in both directions: whom a message on a channel is for, and what a client has
//! subscribed to. It is the only place that knows either, so `PUBSUB`, the counts in the confirmations
//! and `CLIENT LIST` cannot disagree, and a client that leaves is gone from everywhere at once.
//!
//! A message is encoded once for each protocol that somebody speaks, and shared by all who get it.
//! It is put into their [`Outbox`]es while the registry is locked: a push waits for nobody, and so
//! no message can follow the confirmation that its channel was left. All who listen to a channel see its
//! messages in one order.
//!
//! Locks: the subscriptions or the monitors (nobody takes both), then an outbox; behind the shards and
//! the log, so that whoever holds those may publish. Without anybody who listens, publishing costs a
//! load of an atomic, and so does what `MONITOR` costs every command.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::config::events::Class;

use crate::config::logger::log_line;
use crate::config::{Config, OutputLimit};
use crate::net::outbox::{Outbox, VisibleAt};
use crate::resp::{Protocol, Reply};
use crate::stats::Counter;
use crate::store::Event;
use crate::text::glob;

/// What a subscription is to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A channel, by its name.
    Channel,
    /// All channels whose names match.
    Pattern,
    /// A shard channel. To a single server it is only one more kind of channel.
    Shard,
}

/// How many subscriptions a client has.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Counts {
    /// To channels.
    pub channels: usize,
    /// To patterns.
    pub patterns: usize,
    /// To shard channels.
    pub shards: usize,
}

impl Counts {
    /// All of them.
    pub fn total(self) -> usize {
        self.channels + self.patterns + self.shards
    }

    /// The number that confirms a change: channels and patterns are counted together.
    pub fn confirmed(self, kind: Kind) -> usize {
        if kind == Kind::Shard { self.shards } else { self.channels + self.patterns }
    }
}

type Receivers = BTreeMap<u64, Arc<Outbox>>;
type Name = Arc<[u8]>;

/// The registry of those who listen.
pub struct Hub {
    config: Arc<Config>,
    subscriptions: Mutex<Subscriptions>,
    /// How many there are, for those who publish when there is none.
    subscription_count: AtomicUsize,
    monitors: Mutex<Receivers>,
    monitored: AtomicBool,
    /// How many clients were disconnected because they did not read.
    pub cut_off: Counter,
}

/// The two directions, which always say the same. The arrays are indexed by [`Kind`].
#[derive(Default)]
struct Subscriptions {
    receivers: [HashMap<Name, Receivers>; 3],
    of_client: HashMap<u64, [BTreeSet<Name>; 3]>,
}

impl Hub {
    /// Nobody listens.
    pub fn new(config: Arc<Config>) -> Hub {
        Hub {
            config,
            subscriptions: Mutex::default(),
            subscription_count: AtomicUsize::new(0),
            monitors: Mutex::default(),
            monitored: AtomicBool::new(false),
            cut_off: Counter::default(),
        }
    }

    // ---- Subscribing ----

    /// Subscribes a client, whose outbox must be holding or drained.
    pub fn subscribe(&self, kind: Kind, name: &[u8], id: u64, outbox: &Arc<Outbox>) -> Counts {
        let mut all = self.lock();
        let shared = all.receivers[kind as usize].get_key_value(name).map(|(name, _)| name.clone());
        let name = shared.unwrap_or_else(|| name.into());
        if all.of_client.entry(id).or_default()[kind as usize].insert(name.clone()) {
            let receivers = all.receivers[kind as usize].entry(name).or_default();
            receivers.insert(id, outbox.clone());
            self.subscription_count.fetch_add(1, SeqCst);
        }
        all.counts(id)
    }

    /// Takes a subscription back, if there is one. No message for it follows.
    pub fn unsubscribe(&self, kind: Kind, name: &[u8], id: u64) -> Counts {
        let mut all = self.lock();
        self.remove(&mut all, kind, name, id);
        let counts = all.counts(id);
        if counts.total() == 0 {
            all.of_client.remove(&id);
        }
        counts
    }

    /// Takes a client out altogether.
    pub fn leave(&self, id: u64) {
        // The lock is taken for each name anew: publishers must not wait for a client that has a million.
        let first = |kind| self.lock().of_client.get(&id)?[kind as usize].first().cloned();
        for kind in [Kind::Channel, Kind::Pattern, Kind::Shard] {
            while let Some(name) = first(kind) {
                self.unsubscribe(kind, &name, id);
            }
        }
        self.stop_monitoring(id);
    }

    fn remove(&self, all: &mut Subscriptions, kind: Kind, name: &[u8], id: u64) {
        let own = all.of_client.get_mut(&id);
        if !own.is_some_and(|own| own[kind as usize].remove(name)) {
            return;
        }
        self.subscription_count.fetch_sub(1, SeqCst);
        if let Some(receivers) = all.receivers[kind as usize].get_mut(name) {
            receivers.remove(&id);
            if receivers.is_empty() {
                all.receivers[kind as usize].remove(name);
            }
        }
    }

    // ---- Publishing ----

    /// Sends a message to all who listen to the channel; returns how many times it was sent. What it
    /// shows stands in the log before `position`: nobody gets it before the log is flushed that far.
    pub fn publish(&self, channel: &[u8], message: &[u8], position: &VisibleAt) -> usize {
        if self.subscription_count.load(SeqCst) == 0 {
            return 0;
        }
        let all = self.lock();
        let mut sent = 0;
        if let Some(receivers) = all.receivers[Kind::Channel as usize].get(channel) {
            sent += self.send(receivers, &[b"message", channel, message], position);
        }
        for (pattern, receivers) in &all.receivers[Kind::Pattern as usize] {
            if glob::matches(pattern, channel) {
                sent += self.send(receivers, &[b"pmessage", pattern, channel, message], position);
            }
        }
        sent
    }

    /// Publishes a keyspace event on the channels that are enabled for it.
    pub fn publish_event(&self, Event { db, key, name }: &Event, visible_at: &VisibleAt) {
        let enabled = &self.config.notify_keyspace_events;
        if enabled.has(Class::KEYSPACE) {
            let channel = [format!("__keyspace@{db}__:").as_bytes(), key].concat();
            self.publish(&channel, name.as_bytes(), visible_at);
        }
        if enabled.has(Class::KEYEVENT) {
            self.publish(format!("__keyevent@{db}__:{name}").as_bytes(), key, visible_at);
        }
    }

    /// The same for a shard channel, to which no pattern applies.
    pub fn publish_to_shard(&self, channel: &[u8], message: &[u8], position: &VisibleAt) -> usize {
        if self.subscription_count.load(SeqCst) == 0 {
            return 0;
        }
        let all = self.lock();
        let receivers = all.receivers[Kind::Shard as usize].get(channel);
        let send = |to| self.send(to, &[b"smessage", channel, message], position);
        receivers.map_or(0, send)
    }

    fn send(&self, receivers: &Receivers, message: &[&[u8]], position: &VisibleAt) -> usize {
        let mut encoded: [Option<Arc<[u8]>>; 2] = [None, None];
        for (id, outbox) in receivers {
            let protocol = outbox.protocol();
            let bytes =
                encoded[usize::from(protocol == Protocol::Resp3)].get_or_insert_with(|| {
                    let mut reply = Reply::new(protocol);
                    reply.push(message.len());
                    message.iter().for_each(|part| reply.bulk(part));
                    reply.bytes().into()
                });
            self.push(*id, outbox, bytes, position);
        }
        receivers.len()
    }

    fn push(&self, id: u64, outbox: &Outbox, bytes: &Arc<[u8]>, position: &VisibleAt) {
        if outbox.push(bytes, position.clone(), &self.config.client_output_buffer_limit.pubsub) {
            self.note_cut_off(id);
        }
    }

    /// Sends something to a client that need not listen. It shows nothing that the log must have.
    pub fn send_to(&self, id: u64, outbox: &Outbox, bytes: &Arc<[u8]>) {
        if outbox.push(bytes, 0.into(), self.limit_of(id)) {
            self.note_cut_off(id);
        }
    }

    /// How much may pile up for the client. As with Redis, who only caches is no subscriber.
    fn limit_of(&self, id: u64) -> &OutputLimit {
        let limits = &self.config.client_output_buffer_limit;
        let listens = self.counts(id).total() > 0 || self.lock_monitors().contains_key(&id);
        if listens { &limits.pubsub } else { &limits.normal }
    }

    /// Disconnects a client that has been beyond the soft limit for too long, though nobody sends it
    /// anything at the moment.
    pub fn check(&self, id: u64, outbox: &Outbox) {
        if outbox.check(self.limit_of(id)) {
            self.note_cut_off(id);
        }
    }

    fn note_cut_off(&self, id: u64) {
        self.cut_off.add(1);
        log_line!(
            self.config,
            Warning,
            "Closed client {id}: more than client-output-buffer-limit allows was waiting for it"
        );
    }

    // ---- Looking ----

    /// How many subscriptions the client has.
    pub fn counts(&self, id: u64) -> Counts {
        self.lock().counts(id)
    }

    /// What the client has subscribed to.
    pub fn subscriptions_of(&self, id: u64, kind: Kind) -> Vec<Arc<[u8]>> {
        let all = self.lock();
        let own = all.of_client.get(&id);
        own.map_or_else(Vec::new, |own| own[kind as usize].iter().cloned().collect())
    }

    /// The channels (or patterns) that somebody has subscribed to, if their names match.
    pub fn names(&self, kind: Kind, pattern: &[u8]) -> Vec<Arc<[u8]>> {
        let all = self.lock();
        let names = all.receivers[kind as usize].keys();
        names.filter(|name| glob::matches(pattern, name)).cloned().collect()
    }

    /// How many clients have subscribed to it.
    pub fn subscribers(&self, kind: Kind, name: &[u8]) -> usize {
        self.lock().receivers[kind as usize].get(name).map_or(0, BTreeMap::len)
    }

    /// How many different channels (or patterns) somebody has subscribed to.
    pub fn count(&self, kind: Kind) -> usize {
        self.lock().receivers[kind as usize].len()
    }

    /// Whether anybody listens to anything.
    pub fn has_listeners(&self) -> bool {
        self.is_monitored() || self.subscription_count.load(SeqCst) > 0
    }

    // ---- MONITOR ----

    /// From here on the client is shown every command.
    pub fn monitor(&self, id: u64, outbox: &Arc<Outbox>) {
        let mut monitors = self.lock_monitors();
        monitors.insert(id, outbox.clone());
        self.monitored.store(true, SeqCst);
    }

    /// The client is not shown commands any more.
    pub fn stop_monitoring(&self, id: u64) {
        let mut monitors = self.lock_monitors();
        monitors.remove(&id);
        self.monitored.store(!monitors.is_empty(), SeqCst);
    }

    /// Whether commands have to be shown. Every command asks.
    pub fn is_monitored(&self) -> bool {
        self.monitored.load(Relaxed)
    }

    /// Shows a line, without `+` and line end, to all monitors.
    pub fn show(&self, line: &[u8], position: &VisibleAt) {
        let bytes: Arc<[u8]> = [b"+", line, b"\r\n"].concat().into();
        let monitors = self.lock_monitors();
        monitors.iter().for_each(|(id, outbox)| self.push(*id, outbox, &bytes, position));
    }

    fn lock(&self) -> MutexGuard<'_, Subscriptions> {
        self.subscriptions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_monitors(&self) -> MutexGuard<'_, Receivers> {
        self.monitors.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Subscriptions {
    fn counts(&self, id: u64) -> Counts {
        let own = self.of_client.get(&id);
        own.map_or_else(Counts::default, |[channels, patterns, shards]| Counts {
            channels: channels.len(),
            patterns: patterns.len(),
            shards: shards.len(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_leaves_is_gone_in_both_directions() {
        let hub = Hub::new(Arc::new(Config::new()));
        let outboxes = [Arc::new(Outbox::new(None)), Arc::new(Outbox::new(None))];
        for (id, outbox) in [1, 2].into_iter().zip(&outboxes) {
            hub.subscribe(Kind::Channel, b"a", id, outbox);
            hub.subscribe(Kind::Pattern, b"a*", id, outbox);
            let counts = hub.subscribe(Kind::Shard, b"a", id, outbox);
            assert_eq!(counts, Counts { channels: 1, patterns: 1, shards: 1 });
        }
        let start = VisibleAt::Lsn(0);
        assert_eq!(hub.publish(b"a", b"x", &start), 4);
        assert_eq!(hub.publish_to_shard(b"a", b"x", &start), 2);
        hub.leave(1);
        assert_eq!(hub.publish(b"a", b"x", &start), 2);
        assert_eq!(hub.unsubscribe(Kind::Channel, b"a", 2).total(), 2);
        assert_eq!(hub.unsubscribe(Kind::Channel, b"a", 2).total(), 2, "it was none any more");
        hub.leave(2);
        let all = hub.lock();
        assert!(all.of_client.is_empty() && all.receivers.iter().all(HashMap::is_empty));
        assert_eq!(hub.subscription_count.load(SeqCst), 0);
    }

    #[test]
    fn a_message_is_encoded_once_for_each_protocol() {
        let hub = Hub::new(Arc::new(Config::new()));
        let outboxes: Vec<Arc<Outbox>> = (0..4).map(|_| Arc::new(Outbox::new(None))).collect();
        for (id, outbox) in (0..).zip(&outboxes) {
            outbox.set_protocol(if id < 2 { Protocol::Resp2 } else { Protocol::Resp3 });
            outbox.hold();
            hub.subscribe(Kind::Channel, b"a", id, outbox);
        }
        hub.publish(b"a", b"x", &VisibleAt::Lsn(0));
        for (outbox, expected) in outboxes.iter().zip([b'*', b'*', b'>', b'>']) {
            let mut reply = Reply::new(Protocol::Resp2);
            outbox.take_held(&mut reply, 0, true);
            assert_eq!(reply.bytes()[0], expected);
        }
    }
}
