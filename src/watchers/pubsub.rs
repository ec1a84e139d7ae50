//! Publish/subscribe: subscriptions to channels, patterns and shard channels; and `MONITOR`.
//!
//! One registry knows both directions: the subscribers of a channel, and the subscriptions of a client. So
//! `PUBSUB`, the counts in replies and `CLIENT LIST` cannot disagree, and a client that disconnects is
//! removed everywhere at once.
//!
//! A message is encoded once per protocol and shared by all receivers. It is put into their [`Outbox`]es
//! while the registry is locked; a push never waits. So no message can follow the reply that confirms an
//! unsubscription, and all subscribers of a channel get its messages in one order.
//!
//! Invariants ([`PubSub::check`]): the two directions agree, without empty entries; the count and the
//! flag that publishers read without a lock match the tables.
//!
//! Locks: the subscriptions or the monitors (never both), then an outbox. They come after the shards and the
//! log, so a thread that holds those may publish. Without subscribers, publishing costs the load of an
//! atomic, and without monitors a command costs another.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::config::events::EventClass;

use crate::config::logger::log_limited;
use crate::config::{Config, OutputLimit, UNCOUNTED_OUTPUT_BYTES};
use crate::memory;
use crate::net::outbox::{Outbox, Pushed, VisibleAt};
use crate::resp::{CommandError, Protocol, Reply};
use crate::stats::Counter;
use crate::store::{Event, allocated};
use crate::text::{ensure, glob};

/// The kind of a subscription.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// To a channel.
    Channel,
    /// To all channels whose names match a pattern.
    Pattern,
    /// To a shard channel. For a single server it is just another kind of channel.
    Shard,
}

/// The numbers of a client's subscriptions.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct SubscriptionCounts {
    /// To channels.
    pub channels: usize,
    /// To patterns.
    pub patterns: usize,
    /// To shard channels.
    pub shards: usize,
}

impl SubscriptionCounts {
    /// The sum.
    pub fn total(self) -> usize {
        self.channels + self.patterns + self.shards
    }

    /// The number in the reply that confirms a change: channels and patterns are counted together.
    pub fn confirmed(self, kind: Kind) -> usize {
        if kind == Kind::Shard { self.shards } else { self.channels + self.patterns }
    }
}

type Receivers = BTreeMap<u64, Arc<Outbox>>;
type Name = Arc<[u8]>;

/// The registry of subscribers and monitors.
pub struct PubSub {
    config: Arc<Config>,
    subscriptions: Mutex<Subscriptions>,
    /// The number of subscriptions, so that publishers need no lock while there are none.
    subscription_count: AtomicUsize,
    monitors: Mutex<Receivers>,
    monitored: AtomicBool,
    /// The number of clients that were disconnected because they did not read.
    pub cut_off: Counter,
}

/// The two directions. The arrays are indexed by [`Kind`].
#[derive(Default)]
struct Subscriptions {
    receivers: [HashMap<Name, Receivers>; 3],
    of_client: HashMap<u64, [BTreeSet<Name>; 3]>,
    /// The memory that the names take, each of which both directions share.
    name_bytes: usize,
}

/// What a subscription takes in the two directions, as an estimate, without its name.
const SUBSCRIPTION_BYTES: usize = 64;
/// What a channel takes, as an estimate, without its name and its subscriptions: its place in the map and its
/// list.
const CHANNEL_BYTES: usize = 256;

fn bytes_of(name: &[u8]) -> usize {
    allocated(2 * size_of::<usize>() + name.len())
}

/// What a subscription adds to the memory of a client. Each subscriber of a channel is charged for its name,
/// which they share.
fn charge_for(name: &[u8]) -> usize {
    bytes_of(name) + SUBSCRIPTION_BYTES
}

/// An encoded message, or an error if the system has no memory for it. Then its receivers are disconnected,
/// because they would miss it without noticing.
pub type Message = Result<Arc<[u8]>, CommandError>;

/// Encodes a message.
///
/// # Errors
/// The system has no memory for it.
pub fn encode_message(protocol: Protocol, write: impl FnOnce(&mut Reply)) -> Message {
    let mut reply = Reply::new(protocol);
    write(&mut reply);
    reply.end()?;
    memory::ensure_available(reply.len())?;
    Ok(reply.bytes().into())
}

impl PubSub {
    pub fn new(config: Arc<Config>) -> PubSub {
        PubSub {
            config,
            subscriptions: Mutex::default(),
            subscription_count: AtomicUsize::new(0),
            monitors: Mutex::default(),
            monitored: AtomicBool::new(false),
            cut_off: Counter::default(),
        }
    }

    // ---- Subscribing ----

    /// Subscribes a client, whose outbox must be holding or drained. Returns its subscriptions.
    pub fn subscribe(
        &self,
        kind: Kind,
        name: &[u8],
        id: u64,
        outbox: &Arc<Outbox>,
    ) -> SubscriptionCounts {
        let mut all = self.lock();
        let shared = all.receivers[kind as usize].get_key_value(name).map(|(name, _)| name.clone());
        let name = shared.unwrap_or_else(|| name.into());
        if all.of_client.entry(id).or_default()[kind as usize].insert(name.clone()) {
            let (charge, bytes) = (charge_for(&name), bytes_of(&name) + CHANNEL_BYTES);
            let receivers = all.receivers[kind as usize].entry(name).or_default();
            let is_new = receivers.is_empty();
            receivers.insert(id, outbox.clone());
            all.name_bytes += if is_new { bytes } else { 0 };
            outbox.listening.subscriptions.fetch_add(1, SeqCst);
            outbox.listening.memory_bytes.fetch_add(charge, SeqCst);
            self.subscription_count.fetch_add(1, SeqCst);
        }
        all.counts(id)
    }

    /// Removes a subscription, if it exists. No message for it follows.
    pub fn unsubscribe(&self, kind: Kind, name: &[u8], id: u64) -> SubscriptionCounts {
        let mut all = self.lock();
        self.remove(&mut all, kind, name, id);
        let counts = all.counts(id);
        if counts.total() == 0 {
            all.of_client.remove(&id);
        }
        counts
    }

    /// Removes all subscriptions of a client, and stops sending it commands.
    pub fn deregister(&self, id: u64) {
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
            if let Some(outbox) = receivers.remove(&id) {
                outbox.listening.subscriptions.fetch_sub(1, SeqCst);
                outbox.listening.memory_bytes.fetch_sub(charge_for(name), SeqCst);
            }
            if receivers.is_empty()
                && let Some((name, _)) = all.receivers[kind as usize].remove_entry(name)
            {
                all.name_bytes -= bytes_of(&name) + CHANNEL_BYTES;
            }
        }
    }

    /// The memory that the tables take, in bytes, as an estimate. What waits to be sent is not among it.
    pub fn memory_bytes(&self) -> usize {
        let all = self.lock();
        let clients = all.of_client.len() * size_of::<(u64, [BTreeSet<Name>; 3])>();
        all.name_bytes + clients + self.subscription_count.load(SeqCst) * SUBSCRIPTION_BYTES
    }

    // ---- Publishing ----

    /// Sends a message to the subscribers of the channel and of patterns that match it; returns how many
    /// times it was sent. No client receives it before the log is flushed up to `visible_at`.
    pub fn publish(&self, channel: &[u8], message: &[u8], visible_at: &VisibleAt) -> usize {
        if self.subscription_count.load(SeqCst) == 0 {
            return 0;
        }
        let all = self.lock();
        let mut sent = 0;
        if let Some(receivers) = all.receivers[Kind::Channel as usize].get(channel) {
            sent += self.send(receivers, &[b"message", channel, message], visible_at);
        }
        for (pattern, receivers) in &all.receivers[Kind::Pattern as usize] {
            if glob::matches(pattern, channel) {
                sent += self.send(receivers, &[b"pmessage", pattern, channel, message], visible_at);
            }
        }
        sent
    }

    /// Publishes a keyspace event on the channels that are enabled for it.
    pub fn publish_event(&self, Event { db, key, name }: &Event, visible_at: &VisibleAt) {
        let enabled = &self.config.notify_keyspace_events;
        if enabled.has(EventClass::KEYSPACE) {
            let channel = [format!("__keyspace@{db}__:").as_bytes(), key].concat();
            self.publish(&channel, name.as_bytes(), visible_at);
        }
        if enabled.has(EventClass::KEYEVENT) {
            self.publish(format!("__keyevent@{db}__:{name}").as_bytes(), key, visible_at);
        }
    }

    /// Like [`PubSub::publish`], for a shard channel, to which patterns do not apply.
    pub fn publish_to_shard(
        &self,
        channel: &[u8],
        message: &[u8],
        visible_at: &VisibleAt,
    ) -> usize {
        if self.subscription_count.load(SeqCst) == 0 {
            return 0;
        }
        let all = self.lock();
        let receivers = all.receivers[Kind::Shard as usize].get(channel);
        let send = |to| self.send(to, &[b"smessage", channel, message], visible_at);
        receivers.map_or(0, send)
    }

    fn send(&self, receivers: &Receivers, message: &[&[u8]], visible_at: &VisibleAt) -> usize {
        let mut encoded: [Option<Message>; 2] = [None, None];
        for (id, outbox) in receivers {
            let protocol = outbox.protocol();
            let encode = |reply: &mut Reply| {
                reply.push(message.len());
                message.iter().for_each(|part| reply.bulk(part));
            };
            let bytes = encoded[usize::from(protocol == Protocol::Resp3)]
                .get_or_insert_with(|| encode_message(protocol, encode));
            self.push(*id, outbox, bytes, visible_at);
        }
        receivers.len()
    }

    fn push(&self, id: u64, outbox: &Outbox, message: &Message, visible_at: &VisibleAt) {
        let limit = &self.config.client_output_buffer_limit.pubsub;
        let pushed = match message {
            Ok(bytes) => outbox.push(bytes, visible_at.clone(), limit),
            Err(_) => outbox.refuse(),
        };
        self.note(id, pushed);
    }

    /// Sends something to a client that need not be subscribed. It does not wait for the log. Returns false
    /// if the client will not get it, because its connection ends.
    pub fn send_to(&self, id: u64, outbox: &Outbox, message: &Message) -> bool {
        let pushed = match message {
            Ok(bytes) => outbox.push(bytes, 0.into(), self.limit_of(outbox)),
            Err(_) => outbox.refuse(),
        };
        self.note(id, pushed);
        pushed == Pushed::Queued
    }

    /// The output limit of the client. As in Redis, tracking alone does not make it a subscriber.
    fn limit_of(&self, outbox: &Outbox) -> &OutputLimit {
        let limits = &self.config.client_output_buffer_limit;
        let subscribes = outbox.listening.subscribes() || outbox.listening.monitors();
        if subscribes { &limits.pubsub } else { &limits.normal }
    }

    /// Queues a client's own replies.
    pub fn push_replies(&self, id: u64, outbox: &Outbox, replies: &[u8]) {
        self.note(id, outbox.push_replies(replies, self.limit_of(outbox)));
    }

    /// Whether so many bytes alone exceed the client's hard limit.
    pub fn exceeds_limit(&self, outbox: &Outbox, bytes: usize) -> bool {
        let (hard_bytes, ..) = self.limit_of(outbox).get();
        hard_bytes > 0 && bytes > hard_bytes.saturating_add(UNCOUNTED_OUTPUT_BYTES)
    }

    /// Disconnects a client that has exceeded the soft limit for too long. Called regularly, for clients that
    /// get no more messages.
    pub fn enforce_limit(&self, id: u64, outbox: &Outbox) {
        if outbox.check(self.limit_of(outbox)) {
            self.note(id, Pushed::CutOff);
        }
    }

    fn note(&self, id: u64, pushed: Pushed) {
        let why = match pushed {
            Pushed::Queued | Pushed::Refused => return,
            Pushed::CutOff => "more than client-output-buffer-limit allows was waiting for it",
            Pushed::NoMemory => "the system has no memory for what it should get",
        };
        self.cut_off.add(u64::from(pushed == Pushed::CutOff));
        log_limited!(self.config, Warning, "Closed client {id}: {why}");
    }

    // ---- Looking ----

    /// The numbers of the client's subscriptions.
    pub fn counts(&self, id: u64) -> SubscriptionCounts {
        self.lock().counts(id)
    }

    /// The channels (or patterns) that the client has subscribed to.
    pub fn subscriptions_of(&self, id: u64, kind: Kind) -> Vec<Arc<[u8]>> {
        let all = self.lock();
        let own = all.of_client.get(&id);
        own.map_or_else(Vec::new, |own| own[kind as usize].iter().cloned().collect())
    }

    /// The channels (or patterns) that have subscribers and whose names match the pattern, if there is one.
    pub fn names(&self, kind: Kind, pattern: Option<&[u8]>) -> Vec<Arc<[u8]>> {
        let all = self.lock();
        let matches = |name: &Name| pattern.is_none_or(|pattern| glob::matches(pattern, name));
        all.receivers[kind as usize].keys().filter(|name| matches(name)).cloned().collect()
    }

    /// The number of clients that have subscribed to the channel (or pattern).
    pub fn subscribers(&self, kind: Kind, name: &[u8]) -> usize {
        self.lock().receivers[kind as usize].get(name).map_or(0, BTreeMap::len)
    }

    /// The number of channels (or patterns) that have subscribers.
    pub fn count(&self, kind: Kind) -> usize {
        self.lock().receivers[kind as usize].len()
    }

    // ---- MONITOR ----

    /// Adds a monitor: from now on every command is sent to the client.
    pub fn monitor(&self, id: u64, outbox: &Arc<Outbox>) {
        let mut monitors = self.lock_monitors();
        monitors.insert(id, outbox.clone());
        outbox.listening.monitors.store(true, SeqCst);
        self.monitored.store(true, SeqCst);
    }

    /// Removes a monitor.
    pub fn stop_monitoring(&self, id: u64) {
        let mut monitors = self.lock_monitors();
        if let Some(outbox) = monitors.remove(&id) {
            outbox.listening.monitors.store(false, SeqCst);
        }
        self.monitored.store(!monitors.is_empty(), SeqCst);
    }

    /// Whether there are monitors. Every command asks.
    pub fn is_monitored(&self) -> bool {
        self.monitored.load(Relaxed)
    }

    /// Sends a line, given without `+` and line end, to all monitors.
    pub fn show(&self, line: &[u8], visible_at: &VisibleAt) {
        let message = memory::ensure_available(2 * line.len()).map_err(CommandError::from);
        let message = message.map(|()| [b"+", line, b"\r\n"].concat().into());
        let monitors = self.lock_monitors();
        monitors.iter().for_each(|(id, outbox)| self.push(*id, outbox, &message, visible_at));
    }

    /// Checks the invariants.
    ///
    /// # Errors
    /// A sentence about what is wrong.
    pub fn check(&self) -> Result<(), String> {
        let all = self.lock();
        let mut by_client = HashMap::<u64, [BTreeSet<Name>; 3]>::new();
        let mut outboxes = BTreeMap::new();
        for (kind, channels) in all.receivers.iter().enumerate() {
            for (name, receivers) in channels {
                ensure!(!receivers.is_empty(), "{} has no subscribers", name.escape_ascii());
                for (id, outbox) in receivers {
                    by_client.entry(*id).or_default()[kind].insert(name.clone());
                    let (_, bytes) = outboxes.entry(*id).or_insert((&outbox.listening, 0));
                    *bytes += charge_for(name);
                }
            }
        }
        let of_client = &all.of_client;
        ensure!(by_client == *of_client, "subscriptions {of_client:?}, by channel {by_client:?}");
        let sum: usize = of_client.keys().map(|id| all.counts(*id).total()).sum();
        let count = self.subscription_count.load(SeqCst);
        ensure!(sum == count, "{sum} subscriptions, counted: {count}");
        let names = all.receivers.iter().flat_map(HashMap::keys);
        let names: usize = names.map(|name| bytes_of(name) + CHANNEL_BYTES).sum();
        ensure!(names == all.name_bytes, "names take {names} bytes, counted: {}", all.name_bytes);
        for (id, (listening, bytes)) in outboxes {
            let (shown, total) = (listening.subscriptions.load(SeqCst), all.counts(id).total());
            ensure!(
                shown == total,
                "client {id} has {total} subscriptions, its outbox says {shown}"
            );
            let shown = listening.memory_bytes.load(SeqCst);
            ensure!(shown >= bytes, "client {id}'s subscriptions take {bytes} bytes, not {shown}");
        }
        drop(all);
        let (monitors, monitored) = (self.lock_monitors(), self.is_monitored());
        ensure!(monitored != monitors.is_empty(), "{} monitors, flag {monitored}", monitors.len());
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Subscriptions> {
        self.subscriptions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_monitors(&self) -> MutexGuard<'_, Receivers> {
        self.monitors.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Subscriptions {
    fn counts(&self, id: u64) -> SubscriptionCounts {
        let own = self.of_client.get(&id);
        own.map_or_else(SubscriptionCounts::default, |[channels, patterns, shards]| {
            SubscriptionCounts {
                channels: channels.len(),
                patterns: patterns.len(),
                shards: shards.len(),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deregistered_client_is_removed_in_both_directions() {
        let pubsub = PubSub::new(Arc::new(Config::new()));
        let outboxes = [Arc::new(Outbox::new(None)), Arc::new(Outbox::new(None))];
        for (id, outbox) in [1, 2].into_iter().zip(&outboxes) {
            pubsub.subscribe(Kind::Channel, b"a", id, outbox);
            pubsub.subscribe(Kind::Pattern, b"a*", id, outbox);
            let counts = pubsub.subscribe(Kind::Shard, b"a", id, outbox);
            assert_eq!(counts, SubscriptionCounts { channels: 1, patterns: 1, shards: 1 });
        }
        let start = VisibleAt::Lsn(0);
        assert_eq!(pubsub.publish(b"a", b"x", &start), 4);
        assert_eq!(pubsub.publish_to_shard(b"a", b"x", &start), 2);
        assert_eq!(pubsub.check(), Ok(()));
        pubsub.deregister(1);
        assert_eq!(pubsub.check(), Ok(()));
        assert_eq!(pubsub.publish(b"a", b"x", &start), 2);
        assert_eq!(pubsub.unsubscribe(Kind::Channel, b"a", 2).total(), 2);
        assert_eq!(
            pubsub.unsubscribe(Kind::Channel, b"a", 2).total(),
            2,
            "it was already unsubscribed"
        );
        pubsub.deregister(2);
        assert_eq!(pubsub.check(), Ok(()));
        let all = pubsub.lock();
        assert!(all.of_client.is_empty() && all.receivers.iter().all(HashMap::is_empty));
        assert_eq!(pubsub.subscription_count.load(SeqCst), 0);
    }

    #[test]
    fn a_message_is_encoded_once_for_each_protocol() {
        let pubsub = PubSub::new(Arc::new(Config::new()));
        let outboxes: Vec<Arc<Outbox>> = (0..4).map(|_| Arc::new(Outbox::new(None))).collect();
        for (id, outbox) in (0..).zip(&outboxes) {
            outbox.set_protocol(if id < 2 { Protocol::Resp2 } else { Protocol::Resp3 });
            outbox.hold();
            pubsub.subscribe(Kind::Channel, b"a", id, outbox);
        }
        pubsub.publish(b"a", b"x", &VisibleAt::Lsn(0));
        for (outbox, expected) in outboxes.iter().zip([b'*', b'*', b'>', b'>']) {
            let mut reply = Reply::new(Protocol::Resp2);
            outbox.take_held(&mut reply, 0, true);
            assert_eq!(reply.bytes()[0], expected);
        }
    }
}
