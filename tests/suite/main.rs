//! The end-to-end tests: they start the real binary and drive it from outside.
//!
//! Read [`harness`] first. Everything but [`persistence`], [`durability`], [`crash`], [`startup`],
//! [`logger`] and [`style`], which are about us, describes the behaviour of Redis and must also pass
//! against a real one:
//!
//! ```text
//! REDIS_ADDR=127.0.0.1:6379 cargo test --test suite
//! ```
//!
//! That Redis is emptied and its settings are changed for a while: give it one of its own.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub)]

mod bitmaps;
mod compare;
mod connection;
mod crash;
mod debug;
mod durability;
mod fields;
mod harness;
mod hashes;
mod hyperloglog;
mod increx;
mod inspect;
mod keys;
mod lcs;
mod library;
mod logger;
mod notify;
mod persistence;
mod protocol;
mod pubsub;
mod random;
#[path = "../support/rng.rs"]
mod rng;
mod server;
mod startup;
mod stats;
mod strings;
mod style;
mod tracking;
mod transactions;
