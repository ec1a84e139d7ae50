//! Transactions: the rows of the table, then their handlers.
//!
//! The commands are described at <https://redis.io/docs/latest/commands/?group=transactions>. What makes a
//! transaction is elsewhere: the dispatcher queues commands and carries them out, and the shards of the
//! keyspace tell those who watch a key. Here is how one begins, and what ends it without `EXEC`.

use super::spec::{Context, Family, Flags, Handler, Nested, Outcome, command, session};
use crate::resp::{Args, CommandError, Reply};
use crate::session::Multi;

const SHARED: Flags = Flags::NOSCRIPT.or(Flags::ALWAYS);
const FAST: Flags = SHARED.or(Flags::FAST).or(Flags::ALLOW_BUSY);

/// The transactions.
#[rustfmt::skip]
pub static FAMILY: Family = Family { group: "transactions", commands: &[
    session("discard", "", discard).flags(FAST.or(Flags::NOT_QUEUED))
        .doc("2.0.0", "O(N) with N the number of queued commands",
             "Ends a transaction without carrying it out."),
    command("exec", "", Handler::Nested(Nested::Exec))
        .flags(SHARED.or(Flags::SKIP_SLOWLOG).or(Flags::NOT_QUEUED))
        .doc("1.2.0", "depends on the commands of the transaction",
             "Carries out the commands of a transaction, unless a watched key has changed."),
    session("multi", "", multi).flags(FAST.or(Flags::NOT_QUEUED))
        .doc("1.2.0", "O(1)", "Begins a transaction: what follows waits for EXEC."),
    session("unwatch", "", unwatch).flags(FAST)
        .doc("2.2.0", "O(N) with N the number of watched keys", "Watches no key any more."),
    session("watch", "key [key ...]", watch).every_key("RO").flags(FAST.or(Flags::NOT_QUEUED))
        .doc("2.2.0", "O(1) for each key",
             "Lets the next transaction be carried out only if none of the keys changes before it."),
] };

/// That it cannot be nested does not end the transaction that has begun.
fn multi(context: &mut Context, _: Args, reply: &mut Reply) -> Outcome {
    if context.session.multi.is_some() {
        return Err(CommandError::new("ERR MULTI calls can not be nested"));
    }
    context.session.multi = Some(Box::new(Multi::default()));
    reply.ok();
    Ok(())
}

fn discard(context: &mut Context, _: Args, reply: &mut Reply) -> Outcome {
    if context.session.multi.take().is_none() {
        return Err(CommandError::new("ERR DISCARD without MULTI"));
    }
    context.session.unwatch(&context.server.keyspace);
    reply.ok();
    Ok(())
}

fn watch(context: &mut Context, args: Args, reply: &mut Reply) -> Outcome {
    let session = &mut *context.session;
    if session.multi.is_some() {
        return Err(CommandError::new("ERR WATCH inside MULTI is not allowed"));
    }
    let watcher = &session.client.watcher;
    // After a change the transaction is lost, whatever else is watched.
    let keys = args.from(1).take_while(|_| !watcher.has_changed());
    for key in keys {
        if context.server.keyspace.watch(session.db, key, watcher) {
            session.watched.push((session.db, key.to_vec()));
        }
    }
    reply.ok();
    Ok(())
}

/// Inside of a transaction it comes too late to do anything: EXEC has looked at the keys.
fn unwatch(context: &mut Context, _: Args, reply: &mut Reply) -> Outcome {
    context.session.unwatch(&context.server.keyspace);
    reply.ok();
    Ok(())
}
