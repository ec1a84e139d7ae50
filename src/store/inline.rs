//! Bytes that stand in the map itself while they are short: keys, and strings as values.
//!
//! Most are. That spares an allocation each; and, which is more, a cache miss: in a keyspace that does not
//! fit into the processor's cache, to go where a pointer points costs a lookup a tenth of a microsecond,
//! as much as all it computes. (Redis puts short strings behind their header for the same reason.)

use std::fmt;
use std::ops::Deref;

/// At most `N` bytes in place (255 if `N` is larger), or more of them in an `L` elsewhere.
#[derive(Clone)]
pub enum Inline<const N: usize, L> {
    /// The first `length` bytes.
    Short {
        /// At most `N`.
        length: u8,
        /// The bytes, and zeros behind them.
        bytes: [u8; N],
    },
    /// Bytes that are more, or once were.
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
    /// As a vector, to be changed in place. It stays one from then on.
    pub fn to_mut(&mut self) -> &mut Vec<u8> {
        loop {
            match self {
                Inline::Long(bytes) => return bytes,
                Inline::Short { .. } => *self = Inline::Long(self.to_vec()),
            }
        }
    }

    /// Puts these bytes in the place of the others, if what is reserved is about right for them; says
    /// whether.
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

    /// The memory beside its own that it has reserved, in bytes.
    pub fn heap_bytes(&self) -> usize {
        match self {
            Inline::Short { .. } => 0,
            Inline::Long(bytes) => bytes.capacity(),
        }
    }
}

impl<const N: usize> Inline<N, Box<[u8]>> {
    /// The memory beside its own that a copy of so many bytes takes.
    pub fn heap_bytes_of(length: usize) -> usize {
        if length <= N { 0 } else { length }
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
    fn whatever_its_length_and_its_form_it_is_the_same_bytes() {
        for length in [0, 1, 37, 38, 39, 255, 256, 1000] {
            let bytes: Vec<u8> = (0..length).map(|byte| byte as u8).collect();
            let copy = Inline::<38, Vec<u8>>::new(&bytes);
            assert_eq!(*copy, *bytes);
            assert_eq!(copy.heap_bytes(), if length <= 38 { 0 } else { length });
            assert_eq!(copy, Inline::from(bytes.clone()));
            let mut changed = copy.clone();
            changed.to_mut().push(b'!');
            assert_eq!(*changed, *[&bytes[..], b"!"].concat());
            changed.to_mut().pop();
            assert_eq!(copy, changed);
        }
    }
}
