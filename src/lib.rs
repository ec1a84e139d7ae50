//! Respite: an in-memory database that speaks the Redis protocol, with a blocking thread per
//! connection and nothing but the standard library.
//!
//! This page is the map. Whoever reads the modules in the order given here knows the whole server.
//!
//! # Reading order and layers
//!
//! Higher uses lower, never back; a test walks the source and says so.
//!
//! | layer | what it owns |
//! |---|---|
//! | [`text`] | what bytes mean: integers, long doubles, patterns, quoted words |
//! | [`config`], [`stats`] | the table of settings, and the log lines on stderr; what was counted |
//! | [`resp`] | the protocol: `request` makes arguments of bytes, `reply` bytes of answers |
//! | [`net`] | a client's socket, how its thread waits for it, the order of what is sent to it |
//! | [`store`] | the keyspace: shards and their locks, views, values, expiry |
//! | [`aof`] | the log: append, flush, sync, replay, rewrite; its format is specified there |
//! | [`watchers`] | subscribers and monitors; clients that cache what they read |
//! | [`session`] | one connection's state, the registry of all, what they share |
//! | [`commands`] | the command table: a file per family, rows on top and handlers below |
//! | [`dispatch`] | from arguments to effect: look up, check, lock, run, log, unlock |
//! | [`server`] | listeners, the connection thread, the threads in the background |
//!
//! # The life of one SET
//!
//! 1. [`server`] accepted the connection and gave it a thread. `Connection::run` waits in
//!    [`net::poll::Wait::receive`]; `*3 $3 SET $1 k $1 v` arrives.
//! 2. [`resp::Request::feed`] takes the bytes, however they were cut, and makes [`resp::Args`]. If more
//!    commands have arrived, [`store::Keyspace::prefetch`] brings their keys near.
//! 3. [`dispatch::execute`] finds the row in the table ([`commands::find`]) and checks the arity, the
//!    password, whether the log is being replayed and whether it can be written.
//! 4. [`store::Keyspace::write`] hashes the key and locks its shard for writing.
//! 5. The handler, `set` in [`commands::strings`], gets a [`store::WriteView`]: it puts the value in,
//!    says `+OK` to the [`resp::Reply`], and returns the [`commands::Propagate`] `Verbatim`.
//! 6. The dispatcher encodes the command again and [`aof::Aof::append`]s it, *while the shard is
//!    still locked*, so the log's order is memory's order. The shard remembers the log position behind
//!    the record, and so does the session. Then the lock goes.
//!    (Around all of this [`dispatch::measure`] has counted the command and looked at the clock.)
//! 7. When the read buffer holds no further command, `Connection::send` first has the log flushed as
//!    far as its replies show ([`aof::Aof::flush_to`]; under `appendfsync always` synced,
//!    [`aof::Aof::sync_to`]), then writes all replies with one call.
//! 8. Within a second a thread syncs the log to the disk.
//!
//! A `GET` of that key from another connection meets the shard's log position in step 4, so its reply
//! waits for the same flush: nobody ever sees what a crash could take back.
//!
//! # A transaction
//!
//! From `MULTI` on, step 3 ends with a copy of the command in [`session::Multi`]. At `EXEC` the dispatcher
//! locks the shards of all queued commands together ([`store::Keyspace::transact`]), looks whether a
//! watched key has changed ([`store::watch`]), and takes steps 5 and 6 for each; their records go to the
//! log as one block ([`aof::Block`]) before the shards are let go.
//!
//! # Lock order
//!
//! 1. Shards, in ascending index: only [`store::keyspace`] takes them.
//! 2. While a rewrite saves shards: its output file, then what waits for it ([`aof::rewrite`]).
//! 3. Who syncs, the log's files, then what is pending: only [`aof::writer`] takes them, and nobody
//!    holds the first during a sync, or the last during a write.
//! 4. The registry of clients, then one client's state: only [`session`] takes them.
//! 5. Who has read what, then who tracks ([`watchers::tracking`]).
//! 6. Who listens ([`watchers::pubsub`]), then what goes to one client ([`net::outbox`]). So whoever
//!    holds shards and the
//!    log may publish.
//! 7. What was counted ([`stats`]), and the log lines that wait ([`config::logger`]), below all others.
//!
//! # Errors
//!
//! Three families, three fates. A [`resp::CommandError`] is a reply, and the connection goes on. A
//! [`resp::ProtocolError`] is a reply, then the connection is closed. An I/O error closes it. A panic
//! ends its connection only, unless data was locked for writing: then it ends the process, because
//! the log is right and memory may not be.

pub mod aof;
pub mod commands;
pub mod config;
pub mod dispatch;
pub mod net;
pub mod resp;
pub mod server;
pub mod session;
pub mod stats;
pub mod store;
pub mod text;
pub mod watchers;

#[cfg(test)]
#[path = "../tests/support/rng.rs"]
mod rng;
