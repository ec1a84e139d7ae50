//! LZF, the compression of strings: runs of bytes, and copies of what came up to 8 KiB before.
//!
//! A compressed string is a sequence of
//!
//! ```text
//! 000nnnnn byte …             the next n + 1 bytes are literal
//! nnndddddd dddddddd          copy n + 2 bytes (n below 7) from d + 1 bytes before
//! 111ddddd nnnnnnnn dddddddd  copy n + 9 bytes from d + 1 bytes before
//! ```

/// A copy of up to 264 bytes takes three: no string is compressed more.
pub(super) const GREATEST_RATIO: usize = 88;
const LONGEST_LITERAL: usize = 32;
const SHORTEST_COPY: usize = 3;
const LONGEST_COPY: usize = 264;
const FARTHEST: usize = 1 << 13;
/// log2 of the number of places in which the compressor remembers where bytes occurred.
const PLACE_BITS: u32 = 13;

/// The original of compressed bytes, if it has that length; `None` if they are not sound.
pub(super) fn decompress(compressed: &[u8], length: usize) -> Option<Vec<u8>> {
    if length > compressed.len().saturating_mul(GREATEST_RATIO) {
        return None;
    }
    let mut out = Vec::with_capacity(length);
    let mut rest = compressed.iter();
    let mut next = || rest.next().map(|byte| usize::from(*byte));
    while let Some(control) = next() {
        if control < LONGEST_LITERAL {
            for _ in 0..=control {
                out.push(next()? as u8);
            }
        } else {
            let short = control >> 5;
            let count = if short == 7 { 7 + next()? } else { short } + 2;
            let distance = ((control & 0x1f) << 8 | next()?) + 1;
            let from = out.len().checked_sub(distance)?;
            if out.len() + count > length {
                return None;
            }
            // Byte by byte: a copy may overlap what it adds.
            for at in from..from + count {
                out.push(out[at]);
            }
        }
        if out.len() > length {
            return None;
        }
    }
    (out.len() == length).then_some(out)
}

/// Compresses strings. It keeps its table from one string to the next.
pub(super) struct Compressor {
    /// For each hash of three bytes where they last occurred. What is left of another string does no harm,
    /// because bytes are compared before they count as the same.
    places: Box<[u32]>,
}

impl Compressor {
    pub(super) fn new() -> Compressor {
        Compressor { places: vec![0; 1 << PLACE_BITS].into() }
    }

    /// The compressed bytes, if they are at least four bytes shorter.
    pub(super) fn compress(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        let limit = bytes.len().checked_sub(4)?;
        let mut out = Vec::with_capacity(bytes.len());
        let (mut at, mut literal) = (0, 0);
        while at + SHORTEST_COPY <= bytes.len() && out.len() <= limit {
            let three = &bytes[at..at + SHORTEST_COPY];
            let number = u32::from_be_bytes([0, three[0], three[1], three[2]]);
            let place = (number.wrapping_mul(0x9e37_79b1) >> (32 - PLACE_BITS)) as usize;
            let from = std::mem::replace(&mut self.places[place], at as u32) as usize;
            let is_copy =
                from < at && at - from <= FARTHEST && &bytes[from..from + SHORTEST_COPY] == three;
            if !is_copy {
                at += 1;
                continue;
            }
            let longest = LONGEST_COPY.min(bytes.len() - at);
            let same = |more: &usize| bytes[from + more] == bytes[at + more];
            let count = SHORTEST_COPY + (SHORTEST_COPY..longest).take_while(same).count();
            write_literals(&mut out, &bytes[literal..at]);
            write_copy(&mut out, count, at - from);
            at += count;
            literal = at;
        }
        write_literals(&mut out, &bytes[literal..]);
        (out.len() <= limit).then_some(out)
    }
}

fn write_literals(out: &mut Vec<u8>, bytes: &[u8]) {
    for run in bytes.chunks(LONGEST_LITERAL) {
        out.push(run.len() as u8 - 1);
        out.extend_from_slice(run);
    }
}

fn write_copy(out: &mut Vec<u8>, count: usize, distance: usize) {
    let [high, low] = (distance as u16 - 1).to_be_bytes();
    match count - 2 {
        short @ ..7 => out.extend([(short as u8) << 5 | high, low]),
        long => out.extend([7 << 5 | high, (long - 7) as u8, low]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    #[test]
    fn what_was_compressed_is_the_same_again() {
        let mut rng = Rng::of_run();
        let mut compressor = Compressor::new();
        let mut shorter = 0;
        for _ in 0..2000 {
            let length = rng.below(3000);
            let letters = 1 + rng.below(40);
            let mut bytes: Vec<u8> = (0..length).map(|_| rng.below(letters) as u8).collect();
            if length > 100 {
                bytes.extend_from_within(..length / 2);
            }
            if let Some(compressed) = compressor.compress(&bytes) {
                shorter += 1;
                assert!(compressed.len() + 4 <= bytes.len());
                assert_eq!(decompress(&compressed, bytes.len()).as_ref(), Some(&bytes));
                assert_eq!(decompress(&compressed, bytes.len() + 1), None);
            }
        }
        assert!(shorter > 500, "only {shorter} strings were compressed");
        let long = vec![7; 100_000];
        let compressed = compressor.compress(&long).expect("it is all the same");
        assert!(compressed.len() < 1200);
        assert_eq!(decompress(&compressed, long.len()), Some(long));
    }

    #[test]
    fn bytes_that_are_not_compressed_data_are_refused() {
        for (bytes, length) in [
            (&b"\x00"[..], 1),      // a literal that is missing
            (b"\x20", 3),           // a copy without its distance
            (b"\x20\x00", 3),       // a copy of what is not there
            (b"\x00a\xe0\x01", 11), // a long copy without its distance
            (b"\x00a\x20\x01", 4),  // a copy from before the beginning
            (b"\x00a", 2),          // too short
            (b"\x01ab", 1),         // too long
            (b"\x00a\xe0\xff\x00", 8),
            (b"\x00a", usize::MAX),
        ] {
            assert_eq!(decompress(bytes, length), None, "{}", bytes.escape_ascii());
        }
        assert_eq!(decompress(b"\x00a\x20\x00", 4), Some(b"aaaa".to_vec()));
    }
}
