//! Byte strings that are stored in place while they are short: keys, and strings as values.
//!
//! Most are short. Storing them in place saves an allocation each and, more important, a cache miss: when the
//! data exceeds the CPU cache, following a pointer costs a lookup a tenth of a microsecond, as much as all of
//! its computation. (Redis stores short strings directly after their header for the same reason.)
//!
//! Invariants: equal bytes are equal in either form; the bytes after a short string are zero.

use std::fmt;
use std::ops::Deref;

use super::memory::allocated;

/// Up to `N` bytes in place (255 if `N` is larger), or any number of bytes in an `L` on the heap.
#[derive(Clone)]
pub enum Inline<const N: usize, L> {
    /// The first `length` bytes.
    Short {
        /// At most `N`.
        length: u8,
        /// The bytes, followed by zeros.
        bytes: [u8; N],
    },
    /// More than `N` bytes, or bytes that were changed in place.
    Long(L),
}

impl<const N: usize, L: for<'a> From<&'a [u8]>> Inline<N, L> {
    /// A copy of the bytes.
    pub fn new(bytes: &[u8]) -> Inline<N, L> {
        let mut short = [0; N];
        match (short.get_mut(..bytes.len()), u8::try_from(bytes.len())) {
            (Some(place), Ok(length)) => {
                place.copy_from_slice(bytes);
                Inline::Short { length, bytes: short }
            }
            _ => Inline::Long(bytes.into()),
        }
    }
}

impl<const N: usize, L: Deref<Target = [u8]>> Deref for Inline<N, L> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Inline::Short { length, bytes } => &bytes[..usize::from(*length)],
            Inline::Long(bytes) => bytes,
        }
    }
}

impl<const N: usize> Inline<N, Vec<u8>> {
    /// The bytes as a vector, to change them in place. They stay in the vector from then on.
    pub fn to_mut(&mut self) -> &mut Vec<u8> {
        loop {
            match self {
                Inline::Long(bytes) => return bytes,
                Inline::Short { .. } => *self = Inline::Long(self.to_vec()),
            }
        }
    }

    /// Overwrites the bytes if the reserved memory suits the new ones, neither too small nor much too large.
    /// Returns whether it did.
    pub fn overwrite(&mut self, bytes: &[u8]) -> bool {
        let room = bytes.len()..=2 * bytes.len() + 32;
        match self {
            Inline::Short { .. } if bytes.len() <= N => *self = Inline::new(bytes),
            Inline::Long(old) if room.contains(&old.capacity()) => {
                old.clear();
                old.extend_from_slice(bytes);
            }
            _ => return false,
        }
        true
    }

    /// The heap memory that it takes, in bytes.
    pub fn heap_bytes(&self) -> usize {
        match self {
            Inline::Short { .. } => 0,
            Inline::Long(bytes) => allocated(bytes.capacity()),
        }
    }
}

impl<const N: usize> Inline<N, Box<[u8]>> {
    /// The heap memory in bytes that a copy of `length` bytes takes.
    pub fn heap_bytes_of(length: usize) -> usize {
        if length <= N { 0 } else { allocated(length) }
    }
}

impl<const N: usize> From<Vec<u8>> for Inline<N, Vec<u8>> {
    fn from(bytes: Vec<u8>) -> Inline<N, Vec<u8>> {
        if bytes.len() <= N { Inline::new(&bytes) } else { Inline::Long(bytes) }
    }
}

impl<const N: usize, L: Deref<Target = [u8]>> PartialEq for Inline<N, L> {
    fn eq(&self, other: &Inline<N, L>) -> bool {
        **self == **other
    }
}

impl<const N: usize, L: Deref<Target = [u8]>> Eq for Inline<N, L> {}

impl<const N: usize, L: Deref<Target = [u8]>> fmt::Debug for Inline<N, L> {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        write!(formatter, "\"{}\"", self.escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_the_same_for_every_length_and_form() {
        for length in [0, 1, 37, 38, 39, 255, 256, 1000] {
            let bytes: Vec<u8> = (0..length).map(|byte| byte as u8).collect();
            let copy = Inline::<38, Vec<u8>>::new(&bytes);
            assert_eq!(*copy, *bytes);
            assert_eq!(copy.heap_bytes(), if length <= 38 { 0 } else { allocated(length) });
            assert_eq!(copy, Inline::from(bytes.clone()));
            let mut changed = copy.clone();
            changed.to_mut().push(b'!');
            assert_eq!(*changed, *[&bytes[..], b"!"].concat());
            changed.to_mut().pop();
            assert_eq!(copy, changed);
        }
    }
}
