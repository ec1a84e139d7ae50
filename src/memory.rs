//! Memory that the system may refuse.
//!
//! Rust's collections end the process when the system refuses memory. So what a client can make large, an
//! argument, a value or a reply, is asked for first, and its refusal is an error. Small things are not asked
//! for: a system that has no room for them cannot be helped.
//!
//! Linux refuses memory at a limit of the process (`ulimit -v`), or if it is told not to overcommit. By
//! default it grants more than it has, and ends a process later.

use std::collections::TryReserveError;
use std::hint::black_box;

/// From this size on, memory is asked for.
pub const LARGE_BYTES: usize = 64 << 10;
/// A command may allocate so many times the size of its arguments: for a value and for its record, and for
/// what one of them replaces.
pub const COPIES: usize = 3;

/// Reserves memory for that many more bytes, with room for the next ones if there is enough.
///
/// # Errors
/// There is not enough memory.
pub fn reserve(bytes: &mut Vec<u8>, more: usize) -> Result<(), TryReserveError> {
    bytes.try_reserve(more).or_else(|_| bytes.try_reserve_exact(more))
}

/// Asks whether that many bytes are available now. (Somebody else can get them before they are allocated.)
///
/// # Errors
/// There is not enough memory.
#[inline(always)]
pub fn ensure_available(bytes: usize) -> Result<(), TryReserveError> {
    if bytes < LARGE_BYTES { Ok(()) } else { ask(bytes) }
}

#[cold]
fn ask(bytes: usize) -> Result<(), TryReserveError> {
    // The compiler would remove an allocation that is freed at once.
    black_box(&mut Vec::<u8>::new()).try_reserve_exact(bytes)
}

/// A string of zeros.
///
/// # Errors
/// There is not enough memory.
pub fn zeros(length: usize) -> Result<Vec<u8>, TryReserveError> {
    ensure_available(length)?;
    Ok(vec![0; length]) // zeroed memory that the kernel maps page by page, on first use
}
