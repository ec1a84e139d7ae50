//! SHA-256 ([FIPS 180-4](https://csrc.nist.gov/pubs/fips/180-4/upd1/final)). Passwords are kept, compared
//! and shown as SHA-256 digests.
//!
//! The constants are computed from their definition in the standard: the first 32 bits of the fractional
//! parts of the square roots (initial state) and cube roots (rounds) of the first primes.

use std::sync::LazyLock;

/// A SHA-256 digest.
pub type Digest = [u8; 32];

/// The initial state, and a constant for each round.
static CONSTANTS: LazyLock<([u32; 8], [u32; 64])> = LazyLock::new(|| {
    let is_prime = |number: &u128| (2..*number).all(|divisor| !number.is_multiple_of(divisor));
    let (mut state, mut rounds) = ([0; 8], [0; 64]);
    for (word, prime) in state.iter_mut().zip((2..).filter(is_prime)) {
        *word = root_fraction(prime, 2);
    }
    for (word, prime) in rounds.iter_mut().zip((2..).filter(is_prime)) {
        *word = root_fraction(prime, 3);
    }
    (state, rounds)
});

/// The SHA-256 digest of a message.
pub fn digest(message: &[u8]) -> Digest {
    let (mut state, rounds) = *CONSTANTS;
    // Padding: a one bit, zeros, and the length in bits in the last eight bytes of the last block.
    let mut padded = message.to_vec();
    padded.push(0x80);
    padded.resize((padded.len() + 8).next_multiple_of(64) - 8, 0);
    padded.extend((message.len() as u64 * 8).to_be_bytes());
    for block in padded.as_chunks::<64>().0 {
        compress(&mut state, block, &rounds);
    }
    let mut digest = [0; 32];
    for (place, word) in digest.as_chunks_mut::<4>().0.iter_mut().zip(state) {
        *place = word.to_be_bytes();
    }
    digest
}

/// A digest as 64 lower-case hexadecimal digits.
pub fn to_hex(digest: &Digest) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The inverse of [`to_hex`], which accepts nothing else.
pub fn from_hex(text: &[u8]) -> Option<Digest> {
    let text = str::from_utf8(text).ok().filter(|text| text.len() == 64)?;
    let mut digest = [0; 32];
    for (byte, digits) in digest.iter_mut().zip(text.as_bytes().as_chunks::<2>().0) {
        *byte = u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()?;
    }
    (to_hex(&digest) == text).then_some(digest)
}

/// The first 32 bits of the fractional part of the square or cube root of a small prime. That is the lower
/// half of the integer root × 2^32, which is found by bisection.
fn root_fraction(prime: u128, power: u32) -> u32 {
    let scaled = prime << (32 * power);
    let (mut low, mut high) = (0u128, 1 << 37);
    while high - low > 1 {
        let middle = u128::midpoint(low, high);
        if middle.pow(power) <= scaled { low = middle } else { high = middle }
    }
    low as u32
}

fn compress(state: &mut [u32; 8], block: &[u8; 64], rounds: &[u32; 64]) {
    let mut schedule = [0u32; 64];
    for (word, bytes) in schedule.iter_mut().zip(block.as_chunks::<4>().0) {
        *word = u32::from_be_bytes(*bytes);
    }
    for at in 16..64 {
        let (near, far) = (schedule[at - 2], schedule[at - 15]);
        let one = near.rotate_right(17) ^ near.rotate_right(19) ^ (near >> 10);
        let zero = far.rotate_right(7) ^ far.rotate_right(18) ^ (far >> 3);
        schedule[at] =
            schedule[at - 16].wrapping_add(zero).wrapping_add(schedule[at - 7]).wrapping_add(one);
    }
    let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = *state;
    for (word, constant) in schedule.iter().zip(rounds) {
        let sum_e = e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25);
        let choice = (e & f) ^ (!e & g);
        let first = [sum_e, choice, *constant, *word].iter().fold(h, |sum, x| sum.wrapping_add(*x));
        let sum_a = a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22);
        let majority = (a & b) ^ (a & c) ^ (b & c);
        let second = sum_a.wrapping_add(majority);
        (h, g, f, e) = (g, f, e, d.wrapping_add(first));
        (d, c, b, a) = (c, b, a, first.wrapping_add(second));
    }
    for (word, new) in state.iter_mut().zip([a, b, c, d, e, f, g, h]) {
        *word = word.wrapping_add(new);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_the_standard_have_their_digests() {
        let cases: [(&[u8], &str); 4] = [
            (b"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
            (b"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
            (
                b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
                "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
            ),
            (
                &[b'a'; 1_000_000],
                "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0",
            ),
        ];
        for (message, expected) in cases {
            assert_eq!(to_hex(&digest(message)), expected);
            assert_eq!(from_hex(expected.as_bytes()), Some(digest(message)));
        }
    }

    #[test]
    fn only_64_lower_case_digits_are_a_digest() {
        let good = to_hex(&digest(b""));
        let plus = good.replace("e3", "+3");
        for bad in [
            "",
            &good[1..],
            &(good.clone() + "0"),
            &good.to_uppercase(),
            &plus,
            &good.replace('e', "é"),
        ] {
            assert_eq!(from_hex(bad.as_bytes()), None, "{bad}");
        }
    }
}
