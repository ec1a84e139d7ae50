//! A client's connection below the protocol: its socket, how its thread waits for input, the queue of
//! output, `CLIENT PAUSE`, and how many connections there can be.

pub mod descriptors;
pub mod input;
pub mod outbox;
pub mod pause;
pub mod poll;
pub mod socket;
