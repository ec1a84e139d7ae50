//! The end-to-end tests: they start the real binary and drive it from outside, over its sockets.
//!
//! Read [`harness`] first. [`persistence`], [`durability`], [`crash`], [`faults`], [`inject`], [`fuzz`],
//! [`soak`], [`linear`], [`crowd`], [`startup`], [`logger`] and [`style`] test what is our own. All other
//! files describe the behaviour of Redis and must also pass against a real one:
//!
//! ```text
//! REDIS_ADDR=127.0.0.1:6379 cargo test --test suite
//! ```
//!
//! The tests delete all data of that Redis and change its settings: start one for them alone.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub)]

mod acl;
mod bitmaps;
mod clients;
mod compare;
mod connection;
mod crash;
mod crowd;
mod debug;
mod durability;
mod faults;
mod fields;
mod fuzz;
mod harness;
mod hashes;
#[path = "../support/hostile.rs"]
mod hostile;
mod hyperloglog;
mod increx;
mod inject;
mod inspect;
mod keys;
mod lcs;
mod library;
mod linear;
mod logger;
mod memory;
mod notify;
mod output;
mod persistence;
mod powerloss;
mod protocol;
mod pubsub;
mod random;
mod rdb;
mod rename;
mod replica;
mod replication;
#[path = "../support/rng.rs"]
mod rng;
mod server;
mod soak;
mod startup;
mod stats;
mod strings;
mod style;
mod tracking;
mod transactions;
