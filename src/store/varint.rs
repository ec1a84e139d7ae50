//! Lengths of any size, short ones in one byte: seven bits in each byte, the lowest first; the top bit means
//! that more bytes follow.

/// How many bytes the number takes.
#[inline]
pub fn len(n: usize) -> usize {
    if n < 0x80 {
        return 1;
    }
    let bits = usize::BITS - n.leading_zeros();
    bits.div_ceil(7) as usize
}

/// Appends a number.
#[inline]
pub fn push(bytes: &mut Vec<u8>, mut n: usize) {
    while n >= 0x80 {
        bytes.push(n as u8 | 0x80);
        n >>= 7;
    }
    bytes.push(n as u8);
}

/// Writes a number into as many bytes as it takes.
#[inline]
pub fn write(bytes: &mut [u8], mut n: usize) {
    for byte in bytes {
        let more = if n < 0x80 { 0 } else { 0x80 };
        *byte = n as u8 & 0x7f | more;
        n >>= 7;
    }
}

/// Splits off the number that the bytes begin with. Returns it and the bytes behind it.
///
/// # Panics
/// If they do not begin with one.
#[inline]
pub fn split(bytes: &[u8]) -> (usize, &[u8]) {
    let (first, rest) = (bytes[0], &bytes[1..]);
    if first < 0x80 { (first.into(), rest) } else { split_long(bytes) }
}

#[cold]
fn split_long(mut bytes: &[u8]) -> (usize, &[u8]) {
    let (mut n, mut shift) = (0, 0);
    loop {
        let byte = bytes[0];
        bytes = &bytes[1..];
        n |= usize::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return (n, bytes);
        }
        shift += 7;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_takes_as_many_bytes_as_it_says_and_is_read_back() {
        for n in [0, 1, 127, 128, 16_383, 16_384, 1 << 29, usize::MAX] {
            let mut bytes = Vec::new();
            push(&mut bytes, n);
            assert_eq!(bytes.len(), len(n), "{n}");
            let mut written = vec![0; bytes.len()];
            write(&mut written, n);
            assert_eq!(written, bytes);
            bytes.push(7);
            assert_eq!(split(&bytes), (n, &[7][..]));
        }
    }
}
