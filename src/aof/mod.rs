//! The append-only file: every change, in the order in which memory took it.
//!
//! [`writer`] appends, flushes and syncs to a [`file`](mod@file), a transaction's records in one
//! [`block`]; [`replay`] reads it back at the start; [`rewrite`] puts a shorter one in its place while the
//! server goes on.
//!
//! # The format
//!
//! The log is a sequence of commands in the form in which clients send them: a RESP array of bulk
//! strings each, and nothing else. `SELECT n` stands where the database changes (at the start of the
//! file and after each start of the server, always). It can be read with `less`, piped into a Redis
//! with `redis-cli --pipe`, and Redis loads it as it is.
//!
//! ```text
//! *2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n
//! *3\r\n$3\r\nSET\r\n$4\r\nname\r\n$5\r\nahmed\r\n
//! ```
//!
//! A record says what became of the data, not what was asked: what depends on the moment or on
//! chance is written as its result (`SET … PXAT`, not `SET … EX`), and the end of a key by expiry is
//! a `DEL`, that of fields of a hash an `HDEL`. Changes that belong together stand between `MULTI` and
//! `EXEC`.
//!
//! We also read what Redis writes beside that: lines that begin with `#` (its time stamps).
//!
//! # The tail
//!
//! A crash can leave the last record unfinished, because the kernel had only part of it. That is
//! normal and loses nothing that anyone was told, since replies wait for the flush. So, when the file
//! ends
//!
//! * within a record: the tail is *torn* from the start of that record on;
//! * within a `MULTI` without its `EXEC`: from the start of the `MULTI` on;
//! * in zero bytes (some file systems leave these after a power loss), behind whole records or within
//!   one: from the start of that record on.
//!
//! A torn tail is cut off and kept in a side file, and the server says so and starts (unless
//! `aof-load-truncated` is `no`). Anything else
//! that is no record (another first byte, a bad length, an unknown command, a command that fails) is
//! *damage*: something has changed the file, what follows cannot be trusted, and the server says
//! where and stops without touching it.

pub mod block;
pub mod file;
pub mod replay;
pub mod rewrite;
pub mod writer;

pub use block::Block;
pub use replay::{ReplayError, Replayed};
pub use writer::Aof;
