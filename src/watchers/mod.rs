//! Clients that are notified when something happens: subscribers and monitors; clients that cache.

pub mod pubsub;
pub mod tracking;
