//! RESP, the protocol: [`request`] makes arguments from bytes, [`reply`] makes bytes from answers.
//!
//! Neither reads or writes a socket. The connection thread, the replay of the log and the tests feed
//! the same parser from what they have, and take the reply bytes where they need them.
//! The protocol is described at <https://redis.io/docs/latest/develop/reference/protocol-spec/>.

pub mod reply;
pub mod request;

pub use reply::{CommandError, Protocol, Reply};
pub use request::{Args, ProtocolError, Queue, Request};
