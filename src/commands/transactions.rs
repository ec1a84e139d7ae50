//! Transactions: the rows of the table, then their handlers.
//!
//! Here a transaction begins, and may be discarded. The dispatcher queues the commands and executes them; the
//! shards of the keyspace notify the sessions that watch a key.
//!
//! The commands are described at <https://redis.io/docs/latest/commands/?group=transactions>.

use super::spec::{Context, Family, Flags, Handler, Nested, Outcome, command, session};
use crate::resp::{Args, CommandError, Reply};
use crate::session::Multi;
use crate::store::allocated;

const SHARED: Flags = Flags::NOSCRIPT.or(Flags::ALWAYS);
const FAST: Flags = SHARED.or(Flags::FAST).or(Flags::ALLOW_BUSY);

/// The transaction commands.
#[rustfmt::skip]
pub static FAMILY: Family = Family { group: "transactions", commands: &[
    session("discard", "", discard).flags(FAST.or(Flags::NOT_QUEUED))
        .doc("2.0.0", "O(N) where N is the number of queued commands",
             "Discards a transaction."),
    command("exec", "", Handler::Nested(Nested::Exec))
        .flags(SHARED.or(Flags::SKIP_SLOWLOG).or(Flags::NOT_QUEUED))
        .doc("1.2.0", "depends on the commands of the transaction",
             "Executes the commands of a transaction unless a watched key has changed."),
    session("multi", "", multi).flags(FAST.or(Flags::NOT_QUEUED))
        .doc("1.2.0", "O(1)", "Starts a transaction: the commands that follow are queued until EXEC."),
    session("unwatch", "", unwatch).flags(FAST)
        .doc("2.2.0", "O(N) where N is the number of watched keys", "Stops watching all keys."),
    session("watch", "key [key ...]", watch).every_key("RO").flags(FAST.or(Flags::NOT_QUEUED))
        .doc("2.2.0", "O(1) for each key",
             "Watches keys: the next transaction is executed only if none of them has changed."),
] };

/// A nested MULTI fails, but the transaction goes on.
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
    // Once a watched key has changed the transaction will fail, so nothing else need be watched.
    let keys = args.from(1).take_while(|_| !watcher.has_changed());
    for key in keys {
        if context.server.keyspace.watch(session.db, key, watcher) {
            session.watched.push((session.db, key.to_vec()));
            session.watched_bytes += size_of::<(usize, Vec<u8>)>() + allocated(key.len());
        }
    }
    reply.ok();
    Ok(())
}

/// In a transaction it has no effect, as EXEC has already checked the keys.
fn unwatch(context: &mut Context, _: Args, reply: &mut Reply) -> Outcome {
    context.session.unwatch(&context.server.keyspace);
    reply.ok();
    Ok(())
}
