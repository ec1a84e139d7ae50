//! One client's connection, below the protocol: its socket, how its thread waits for input, the order
//! of what is sent to it, and what makes its commands wait.

pub mod outbox;
pub mod pause;
pub mod poll;
pub mod socket;
