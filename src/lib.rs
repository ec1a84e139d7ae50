//! Respite is an in-memory database that speaks the Redis protocol. Each connection has a blocking thread,
//! all threads share one table of keys that is cut into 4096 shards with a lock each, and every change goes
//! into an append-only log before a client sees it. It uses nothing but the standard library.
//!
//! This page is the map. It follows one command through the server, says where to find things, and ends with
//! the modules and the errors. `respite --trace` prints the same walk for the commands that you send.
//!
//! # The life of a SET
//!
//! 1. The server ([`server`]) has accepted the connection and given it a thread, which waits for input
//!    ([`net::poll`]). `*3 $3 SET $1 k $1 v` arrives.
//! 2. [`resp::Request::feed`] turns bytes into arguments, wherever the network has cut them. If more commands
//!    have arrived, their keys are prefetched into the CPU cache ([`store::Keyspace::prefetch`]).
//! 3. [`dispatch::execute`] finds the command's row in the table ([`commands`]) and checks whether this
//!    client may run it now: arity, login, the rights of its user, `LOADING`, a log that cannot be written.
//! 4. [`store::Keyspace::write`] hashes the key and locks its shard. The handler, `set` in
//!    [`commands::strings`], gets a [`store::WriteView`]: it stores the value, puts `+OK` into the
//!    [`resp::Reply`], and returns what the log gets: [`commands::Propagate::Verbatim`].
//! 5. `Call::commit` ([`dispatch`]) appends the record *while the shard is still locked*, so the log's order
//!    is memory's order, and notifies everyone who watches. Shard and session remember the record's LSN.
//!    Then the shard is unlocked.
//! 6. When the input is drained, `Connection::send` flushes the log up to the highest LSN that the replies
//!    show ([`aof::Aof::flush_to`]; under `appendfsync always` [`aof::Aof::sync_to`]), then writes all
//!    replies with one system call. Under `everysec`, a thread syncs the log once a second.
//!
//! A `GET` of that key by another client takes over the shard's LSN in step 5, so its reply waits for the
//! same flush: no client sees a change that a crash of the server could take back.
//!
//! Inside `MULTI`, step 3 ends with a copy of the command in the session's queue. `EXEC` locks the shards of
//! all queued commands together, takes steps 4 and 5 for each, and appends their records as one block. A
//! replay reads the log as in step 2 and runs its records without the checks of step 3; it appends nothing
//! and notifies nobody. Plain commands, `EXEC` and a replay all go through `Call::run`.
//!
//! # Where is …
//!
//! | | |
//! |---|---|
//! | a command's row, and everything derived from it | [`commands::spec`] |
//! | expiry | commands that meet expired keys and the sweeper remove them: [`store::view`], [`server`] |
//! | a replica's link to its master | `link` in [`server`], `follow` in [`dispatch`], [`replication`] |
//! | how keys lie in memory | `table`, `pages` and `record` in [`store`] |
//! | eviction | before a command that may use memory: `evict` in [`dispatch`], `eviction` in [`store`] |
//! | `WATCH` | flags that a shard raises when a key changes: [`store::watch`] |
//! | what others hear of a change, and in which order | `commit` in [`dispatch`]; [`watchers`] |
//! | the log's format, and where a torn tail is cut | [`aof`]; [`aof::replay`] |
//! | group commit | `group_commit` in [`aof`] |
//! | the rewrite of the log without a fork | [`aof::rewrite`], with [`store::Keyspace::snapshot`] |
//! | what a failing disk leads to | `failure` in [`aof`] |
//! | the order of replies and messages to one client | [`net::outbox`] |
//! | what replicas get | [`replication`], [`aof::stream`] |
//! | who may do what | [`session::users`]; [`commands::rules`], [`commands::permission`] |
//!
//! # Threads
//!
//! A few threads that accept, one thread per connection, and a writer thread for each client that others
//! send messages to and for each replica. In the background: the syncer (log and idle connections, once a
//! second), the sweeper (expired keys), the link to the master, the rewriter, one that frees large values,
//! one that writes log lines. Stopping needs no ceremony: everything that a client was told of is in the
//! log.
//!
//! # Lock order
//!
//! A thread that holds one of these locks may take locks further down the list, never further up:
//!
//! 1. Shards, in ascending index: only [`store`] takes them.
//! 2. The term of the master ([`replication::upstream`]).
//! 3. A snapshot's output and the queue in front of it ([`store::snapshot`]).
//! 4. Group commit, the log's files, pending records ([`aof`]). No lock is held during a sync, and
//!    the lock on pending records is not held during a write either.
//! 5. Spools of snapshots, the registry of replicas, the ids of the stream ([`replication`]).
//! 6. The table of users, the registry of clients, one client's state ([`session`]).
//! 7. The table of tracked keys, then the clients that track ([`watchers::tracking`]).
//! 8. Subscriptions or monitors ([`watchers::pubsub`]), then one client's queue ([`net::outbox`]).
//! 9. Statistics ([`stats`]), then the queue of log lines ([`config::logger`]).
//!
//! # Glossary
//!
//! * **row**: a line of the command table. **record**: what one change adds to the log: a command, or several
//!   that are appended as one piece. (In [`store`], a record is a key with its value in a page.)
//! * **LSN**: log sequence number, the count of bytes appended to the log up to the end of a record.
//! * **shard**: the keys that one lock guards. **view**: what a handler sees of the shards it may use.
//! * **propagation**: what the log gets of a write: the command as it was sent, or its result.
//! * **flush**: handing records to the kernel. **sync**: making the kernel put them on disk. **group
//!   commit**: several threads share one sync.
//! * **torn tail**: an unfinished record at the end of the log, left by a crash.
//! * **snapshot**: the keyspace at one point in time, saved shard by shard, each before its next change.
//! * **tracked key**: a key that a client caches, and whose change invalidates the copy.
//!
//! # Modules, lowest layer first
//!
//! A module uses only modules in earlier rows; a test checks that. The last column marks the core,
//! about 8,000 lines of code: read that in a day, and skip the rest.
//!
//! | module | what it owns | the core |
//! |---|---|---|
//! | [`text`] | what bytes mean: integers, long doubles, patterns, quoted words | |
//! | [`memory`] | memory that the system may refuse | |
//! | [`files`] | files that take the place of others | |
//! | [`stats`] | counters, times, the slow log | |
//! | [`config`] | the table of settings; log lines; `--trace` | |
//! | [`resp`] | the protocol: bytes to arguments, answers to bytes | all |
//! | [`net`] | a client's socket, how its thread waits, the order of its output | `socket`, `poll` |
//! | [`store`] | the keyspace: shards, locks, views, values, expiry | all but: |
//! | | `hash` `packed` `indexed` `live` `hyperloglog` `watch` `readers` `transaction` `whole` | |
//! | | `memory` `eviction` `usage` `environment` `field` `varint` | |
//! | [`rdb`] | the format in which data comes in and goes out: files, `DUMP` | |
//! | [`aof`] | the log: append, flush, sync, replay, rewrite | all but: |
//! | | `rewrite` `snapshot` `progress` `stream` `follow` | |
//! | [`replication`] | the log as a stream that replicas follow | |
//! | [`watchers`] | subscribers and monitors; clients that cache what they read | |
//! | [`session`] | one connection's state, the registry of all, what they share | all but `users` |
//! | [`commands`] | the command table: a file per family | `lookup`, `spec`, `strings` |
//! | [`dispatch`] | from arguments to effect: look up, admit, lock, run, commit | `mod`, `call`, `commit` |
//! | [`server`] | listeners, the connection thread, the threads in the background | all but: |
//! | | `link` `import` `check` | |
//!
//! # Errors
//!
//! There are four kinds. A [`resp::CommandError`] is a reply, and the connection goes on. A
//! `ProtocolError` is a reply, and the connection is closed. An I/O error closes the connection. A
//! panic ends its connection only, unless a shard was locked for writing: then it ends the process, because
//! the log is right and memory may not be.

mod aof;
pub mod commands;
pub mod config;
mod dispatch;
mod files;
pub mod memory;
mod net;
mod rdb;
mod replication;
mod resp;
pub mod server;
mod session;
mod stats;
mod store;
mod text;
mod watchers;

#[cfg(test)]
#[path = "../tests/support/hostile.rs"]
mod hostile;
#[cfg(test)]
#[path = "../tests/support/rng.rs"]
mod rng;
