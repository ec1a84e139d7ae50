//! RESP, the Redis protocol: [`request`] parses commands, [`reply`] encodes replies.
//!
//! Neither does I/O: the connection thread, the replay of the log and the tests feed bytes to the same parser
//! and fetch the encoded replies. The protocol is specified at
//! <https://redis.io/docs/latest/develop/reference/protocol-spec/>.

pub mod reply;
pub mod request;

pub use reply::{CommandError, Protocol, Reply};
pub use request::{Args, Queue, Request};
