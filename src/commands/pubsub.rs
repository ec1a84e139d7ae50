//! Publish and subscribe. A message goes to the clients that are subscribed at that moment, and is not kept.
//!
//! [`watchers::pubsub`](crate::watchers::pubsub) owns the subscriptions. The
//! [`outbox`](crate::net::outbox) delivers messages in order and without blocking the publisher. On a single
//! server, shard channels are channels that patterns do not match.
//!
//! The commands are described at <https://redis.io/docs/latest/commands/?group=pubsub>.

use super::acl::is_entitled;
use super::docs::help;
use super::options::wrong_subcommand_args;
use super::spec::{
    ChannelUse, Command, Context, Family, Flags, Handler, Outcome, command, session,
};
use crate::resp::{Args, CommandError, Reply, request};
use crate::session::Origin;
use crate::watchers::pubsub::{Kind, SubscriptionCounts};

const SHOWN: Flags = Flags::PUBSUB.or(Flags::ALWAYS);
/// The flags of commands that subscribe and unsubscribe.
const LISTENER: Flags = SHOWN.or(Flags::NOSCRIPT).or(Flags::CONFIRMS).or(Flags::SUBSCRIBED);
const PUBLISHER: Flags = SHOWN.or(Flags::FAST).or(Flags::MAY_REPLICATE).or(Flags::IN_LOG);

/// The publish/subscribe commands.
#[rustfmt::skip]
pub static FAMILY: Family = Family { group: "pubsub", commands: &[
    session("psubscribe", "pattern [pattern ...]", psubscribe)
        .channels(ChannelUse::SubscribeToPatterns).flags(LISTENER)
        .doc("2.0.0", "O(N) where N is the number of patterns",
             "Subscribes to the channels that match one or more patterns."),
    session("publish", "channel message", publish).channels(ChannelUse::Publish).flags(PUBLISHER)
        .doc("2.0.0", "O(N+M) where N is the number of subscribers and M the number of patterns",
             "Publishes a message to a channel."),
    command("pubsub", "subcommand [argument ...]", Handler::Container(PUBSUB_COMMANDS, None))
        .doc("2.8.0", "depends on the subcommand", "A container for commands about subscriptions."),
    session("punsubscribe", "[pattern [pattern ...]]", punsubscribe).flags(LISTENER)
        .doc("2.0.0", "O(N) where N is the number of patterns",
             "Unsubscribes from patterns, or from all of them."),
    session("spublish", "shardchannel message", spublish).key("not_key")
        .channels(ChannelUse::Publish).flags(PUBLISHER)
        .doc("7.0.0", "O(N) where N is the number of subscribers",
             "Publishes a message to a shard channel."),
    session("ssubscribe", "shardchannel [shardchannel ...]", ssubscribe).every_key("not_key")
        .channels(ChannelUse::Subscribe).flags(LISTENER)
        .doc("7.0.0", "O(N) where N is the number of channels", "Subscribes to one or more shard channels."),
    session("subscribe", "channel [channel ...]", subscribe)
        .channels(ChannelUse::Subscribe).flags(LISTENER)
        .doc("2.0.0", "O(N) where N is the number of channels", "Subscribes to one or more channels."),
    session("sunsubscribe", "[shardchannel [shardchannel ...]]", sunsubscribe).every_key("not_key")
        .flags(LISTENER)
        .doc("7.0.0", "O(N) where N is the number of channels",
             "Unsubscribes from shard channels, or from all of them."),
    session("unsubscribe", "[channel [channel ...]]", unsubscribe).flags(LISTENER)
        .doc("2.0.0", "O(N) where N is the number of channels",
             "Unsubscribes from channels, or from all of them."),
] };

#[rustfmt::skip]
const PUBSUB_COMMANDS: &[Command] = &[
    session("pubsub|channels", "[pattern]", channels).flags(SHOWN)
        .doc("2.8.0", "O(N) where N is the number of channels",
             "Returns the channels that have subscribers, or those of them that match a pattern."),
    help("pubsub|help", "6.2.0"),
    session("pubsub|numpat", "", numpat).flags(SHOWN)
        .doc("2.8.0", "O(1)", "Returns the number of distinct patterns that have subscribers."),
    session("pubsub|numsub", "[channel [channel ...]]", numsub).flags(SHOWN)
        .doc("2.8.0", "O(N) where N is the number of channels",
             "Returns the number of subscribers of each channel, not counting patterns."),
    session("pubsub|shardchannels", "[pattern]", shardchannels).flags(SHOWN)
        .doc("7.0.0", "O(N) where N is the number of channels",
             "Returns the shard channels that have subscribers, or those of them that match a pattern."),
    session("pubsub|shardnumsub", "[shardchannel [shardchannel ...]]", shardnumsub).flags(SHOWN)
        .doc("7.0.0", "O(N) where N is the number of channels",
             "Returns the number of subscribers of each shard channel."),
];

fn subscribe(context: &mut Context, args: Args, reply: &mut Reply) -> Outcome {
    listen(context, args, reply, Kind::Channel)
}

fn psubscribe(context: &mut Context, args: Args, reply: &mut Reply) -> Outcome {
    listen(context, args, reply, Kind::Pattern)
}

/// Redis refuses this one in a transaction, unlike the subscriptions to channels and patterns.
fn ssubscribe(context: &mut Context, args: Args, reply: &mut Reply) -> Outcome {
    if context.transaction.is_some() {
        let text = "ERR SSUBSCRIBE isn't allowed for a DENY BLOCKING client";
        return Err(CommandError::new(text));
    }
    listen(context, args, reply, Kind::Shard)
}

fn listen(context: &mut Context, args: Args, reply: &mut Reply, kind: Kind) -> Outcome {
    let client = &context.session.client;
    client.outbox.hold(); // no message goes out before the confirmation
    for name in args.from(1) {
        let counts = context.server.pubsub.subscribe(kind, name, client.id, &client.outbox);
        confirm(reply, kind, "subscribe", Some(name), counts);
    }
    // A client that takes a right away ends the connections with subscriptions that need it. It may have
    // looked for them before this subscription existed.
    let Context { server, session, .. } = context;
    if session.login.refresh(&server.users)
        && !is_entitled(server, &session.client, session.login.user())
    {
        session.closing = true;
    }
    Ok(())
}

fn unsubscribe(context: &mut Context, args: Args, reply: &mut Reply) -> Outcome {
    stop_listening(context, args, reply, Kind::Channel)
}

fn punsubscribe(context: &mut Context, args: Args, reply: &mut Reply) -> Outcome {
    stop_listening(context, args, reply, Kind::Pattern)
}

fn sunsubscribe(context: &mut Context, args: Args, reply: &mut Reply) -> Outcome {
    stop_listening(context, args, reply, Kind::Shard)
}

fn stop_listening(context: &mut Context, args: Args, reply: &mut Reply, kind: Kind) -> Outcome {
    let (pubsub, id) = (&context.server.pubsub, context.session.client.id);
    context.session.stops_listening();
    let all = if args.len() == 1 { pubsub.subscriptions_of(id, kind) } else { Vec::new() };
    if args.len() == 1 && all.is_empty() {
        confirm(reply, kind, "unsubscribe", None, pubsub.counts(id));
        return Ok(());
    }
    for name in args.from(1).chain(all.iter().map(AsRef::as_ref)) {
        let counts = pubsub.unsubscribe(kind, name, id);
        confirm(reply, kind, "unsubscribe", Some(name), counts);
    }
    Ok(())
}

fn confirm(
    reply: &mut Reply,
    kind: Kind,
    change: &str,
    name: Option<&[u8]>,
    counts: SubscriptionCounts,
) {
    let prefix = match kind {
        Kind::Channel => "",
        Kind::Pattern => "p",
        Kind::Shard => "s",
    };
    reply.push(3);
    reply.bulk([prefix, change].concat().as_bytes());
    reply.bulk_or_null(name);
    reply.count(counts.confirmed(kind));
}

/// Puts a message into the log for replicas, if there are any. Returns whether it is to be delivered here:
/// not when it comes from the log.
fn propagates(context: &mut Context, args: Args) -> bool {
    let Context { server, session, .. } = context;
    if matches!(session.origin, Origin::Replay) {
        return false;
    }
    if server.replication.replicas.any() {
        let mut record = Vec::new();
        request::encode_args(&mut record, args);
        match &mut session.origin {
            Origin::Transaction(exec) => exec.block.push(session.db, &record),
            _ => _ = server.aof.append_anywhere(&record),
        }
    }
    true
}

/// A message may reveal what the connection has read. So no subscriber gets it before the log has those
/// changes: no client may know of a change that a crash could undo.
/// A master's stream, and so a log, may have messages. In a replay they are old.
fn publish(context: &mut Context, args: Args, reply: &mut Reply) -> Outcome {
    if !propagates(context, args) {
        return Ok(());
    }
    let visible_at = context.session.visible_at(context.session.read_lsn);
    reply.count(context.server.pubsub.publish(&args[1], &args[2], &visible_at));
    Ok(())
}

fn spublish(context: &mut Context, args: Args, reply: &mut Reply) -> Outcome {
    if !propagates(context, args) {
        return Ok(());
    }
    let visible_at = context.session.visible_at(context.session.read_lsn);
    reply.count(context.server.pubsub.publish_to_shard(&args[1], &args[2], &visible_at));
    Ok(())
}

fn channels(context: &mut Context, args: Args, reply: &mut Reply) -> Outcome {
    list(context, args, reply, Kind::Channel)
}

fn shardchannels(context: &mut Context, args: Args, reply: &mut Reply) -> Outcome {
    list(context, args, reply, Kind::Shard)
}

fn list(context: &mut Context, args: Args, reply: &mut Reply, kind: Kind) -> Outcome {
    if args.len() > 3 {
        return Err(wrong_subcommand_args(args));
    }
    let names = context.server.pubsub.names(kind, args.get(2));
    reply.array(names.len());
    names.iter().for_each(|name| reply.bulk(name));
    Ok(())
}

fn numsub(context: &mut Context, args: Args, reply: &mut Reply) -> Outcome {
    count(context, args, reply, Kind::Channel)
}

fn shardnumsub(context: &mut Context, args: Args, reply: &mut Reply) -> Outcome {
    count(context, args, reply, Kind::Shard)
}

fn count(context: &mut Context, args: Args, reply: &mut Reply, kind: Kind) -> Outcome {
    reply.array(2 * (args.len() - 2)); // an array in RESP3, too, where a map might be expected
    for name in args.from(2) {
        reply.bulk(name);
        reply.count(context.server.pubsub.subscribers(kind, name));
    }
    Ok(())
}

fn numpat(context: &mut Context, _: Args, reply: &mut Reply) -> Outcome {
    reply.count(context.server.pubsub.count(Kind::Pattern));
    Ok(())
}
