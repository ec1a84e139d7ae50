//! A client's connection below the protocol: its socket, how its thread waits for input, the queue of
//! output, and `CLIENT PAUSE`.

pub mod outbox;
pub mod pause;
pub mod poll;
pub mod socket;
