//! Memory that the system may refuse.
//!
//! Rust's collections end the process when the system refuses memory. So what a client can make large, an
//! argument, a value or a reply, is asked for first, and its refusal is an error. Small things are not asked
//! for: a system that has no room for them cannot be helped.
//!
//! Linux refuses memory at a limit of the process (`ulimit -v`), or if it is told not to overcommit. By
//! default it grants more than it has, and ends a process later.

use std::collections::TryReserveError;

/// Less than this is not asked for.
const SMALL_BYTES: usize = 1 << 20;
/// What becomes of the arguments of a command takes at most so many times as much again: a value, its record,
/// and what either has more than it needs.
pub const COPIES: usize = 3;

/// Reserves memory for that many more bytes, with room for the next ones if there is enough.
///
/// # Errors
/// There is not enough memory.
pub fn reserve(bytes: &mut Vec<u8>, more: usize) -> Result<(), TryReserveError> {
    bytes.try_reserve(more).or_else(|_| bytes.try_reserve_exact(more))
}

/// Asks whether that many bytes could be had now. (Somebody else can get them before they are allocated.)
///
/// # Errors
/// There is not enough memory.
pub fn expect(bytes: usize) -> Result<(), TryReserveError> {
    if bytes < SMALL_BYTES {
        return Ok(());
    }
    Vec::<u8>::new().try_reserve_exact(bytes)
}

/// A string of zeros.
///
/// # Errors
/// There is not enough memory.
pub fn zeros(length: usize) -> Result<Vec<u8>, TryReserveError> {
    expect(length)?;
    Ok(vec![0; length]) // zeroed memory that the kernel maps page by page, on first use
}
