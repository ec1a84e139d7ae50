//! The append-only file: every change, in the order in which memory took it.
//!
//! | module | what it owns |
//! |---|---|
//! | [`writer`] | [`Aof`], the log that is being written: append, flush, sync |
//! | `append` | records that wait for the flush, and their LSNs |
//! | `flush` | the files, and the bytes that they refused |
//! | `group_commit` | syncs that threads share |
//! | `failure` | whether the log can be relied on |
//! | [`block`] | the records of a transaction |
//! | [`follow`] | the log of a replica |
//! | [`replay`] | reading the log at the start, and cutting off a torn tail |
//! | [`rewrite`], `snapshot`, [`progress`] | replacing the log by a shorter one while the server goes on |
//! | [`stream`] | reading what was appended, for replicas |
//! | [`file`](mod@file) | what the log is written to |
//!
//! # The format
//!
//! The log is a sequence of commands in the form in which clients send them: each is a RESP array of bulk
//! strings. The file begins in database 0; `SELECT n` precedes a record whenever the
//! database changes, and the first one after a start of the server or of a rewrite. The log can be read with
//! `less` and piped into a Redis with `redis-cli --pipe`, and Redis loads it as it is. (The lines
//! `#replid` of a stream are errors in a pipe, after which it goes on.)
//!
//! ```text
//! *3\r\n$3\r\nSET\r\n$4\r\nname\r\n$5\r\nahmed\r\n
//! *2\r\n$6\r\nSELECT\r\n$1\r\n7\r\n
//! *3\r\n$3\r\nSET\r\n$3\r\nday\r\n$6\r\nSunday\r\n
//! ```
//!
//! A replay of a record makes the same change at any time. A command whose effect depends on time or chance
//! is therefore written as its result (`SET … PXAT`, not `SET … EX`). A key that expires is a `DEL`,
//! fields of a hash that expire are an `HDEL`. Changes that belong together are enclosed in `MULTI` and
//! `EXEC`.
//!
//! Between records there may be *annotations*, lines that begin with `#`: Respite writes the identity of
//! the replication stream in that form ([`crate::replication`]), and Redis time stamps. There may be empty
//! lines too: the log of a replica is its master's stream, and a master may send them. And the log may
//! begin with an RDB snapshot ([`crate::rdb`]), as Redis's logs do: the commands follow its checksum. The
//! next rewrite leaves plain commands.
//!
//! # The tail
//!
//! A crash can leave the last record unfinished, because the kernel had only a part of it. That is normal
//! and loses nothing that a client has seen, since replies wait for the flush. The *torn tail* begins at
//! the start of
//!
//! * the last record, if the file ends within it;
//! * the last `MULTI`, if it has no `EXEC`;
//! * the last record, or what follows it, if the file ends in zero bytes there (some file systems leave
//!   them after a power loss).
//!
//! A torn tail is cut off and kept in a side file; the server logs that and starts, unless
//! `aof-load-truncated` is `no`. Anything else that is not a record (another first byte, a bad length, an
//! unknown command, a command that fails) is *damage*: the file was changed by something else, what
//! follows cannot be trusted, and the server says where the damage is and stops without touching the
//! file. It also does so if a sound log cannot be held here: it has a database beyond `databases`, or begins
//! with a snapshot that has keys of other types.

mod append;
pub mod block;
mod failure;
pub mod file;
mod flush;
pub mod follow;
mod group_commit;
pub mod progress;
pub mod replay;
pub mod rewrite;
mod snapshot;
pub mod stream;
#[cfg(test)]
mod tests;
pub mod writer;

pub use block::Block;
pub use replay::{ReplayError, Replayed};
pub use snapshot::encode_entry;
/// How annotations about replication begin.
pub const ANNOTATION: &[u8] = b"#replid ";

pub use stream::StreamReader;
pub use writer::Aof;
