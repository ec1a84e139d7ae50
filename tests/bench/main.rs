//! Placeholder until the driver is here.
fn main() {}
