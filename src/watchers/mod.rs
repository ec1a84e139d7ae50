//! Clients that are notified when something happens: subscribers, monitors, and clients that cache.

pub mod pubsub;
pub mod tracking;
