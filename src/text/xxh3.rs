//! XXH3, the 64-bit hash without a seed, which `DIGEST` returns and `IFDEQ` compares.
//!
//! Written from the [specification](https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md), with its
//! names. XXH3 is one of several algorithms, chosen by the length of the input: up to 3, 8, 16, 128 and 240
//! bytes, and longer. All of them mix the input with words of a fixed secret. Words are little-endian and
//! arithmetic wraps around. For long inputs, the compiler vectorizes the loop over stripes of eight words.

const PRIME32_1: u64 = 0x9E37_79B1;
const PRIME32_2: u64 = 0x85EB_CA77;
const PRIME32_3: u64 = 0xC2B2_AE3D;
const PRIME64_1: u64 = 0x9E37_79B1_85EB_CA87;
const PRIME64_2: u64 = 0xC2B2_AE3D_27D4_EB4F;
const PRIME64_3: u64 = 0x1656_67B1_9E37_79F9;
const PRIME64_4: u64 = 0x85EB_CA77_C2B2_AE63;
const PRIME64_5: u64 = 0x27D4_EB2F_1656_67C5;
const PRIME_MX1: u64 = 0x1656_6791_9E37_79F9;
const PRIME_MX2: u64 = 0x9FB2_1C65_1E98_DF25;

/// The default secret.
#[rustfmt::skip]
const SECRET: [u8; 192] = [
    0xb8, 0xfe, 0x6c, 0x39, 0x23, 0xa4, 0x4b, 0xbe, 0x7c, 0x01, 0x81, 0x2c, 0xf7, 0x21, 0xad, 0x1c,
    0xde, 0xd4, 0x6d, 0xe9, 0x83, 0x90, 0x97, 0xdb, 0x72, 0x40, 0xa4, 0xa4, 0xb7, 0xb3, 0x67, 0x1f,
    0xcb, 0x79, 0xe6, 0x4e, 0xcc, 0xc0, 0xe5, 0x78, 0x82, 0x5a, 0xd0, 0x7d, 0xcc, 0xff, 0x72, 0x21,
    0xb8, 0x08, 0x46, 0x74, 0xf7, 0x43, 0x24, 0x8e, 0xe0, 0x35, 0x90, 0xe6, 0x81, 0x3a, 0x26, 0x4c,
    0x3c, 0x28, 0x52, 0xbb, 0x91, 0xc3, 0x00, 0xcb, 0x88, 0xd0, 0x65, 0x8b, 0x1b, 0x53, 0x2e, 0xa3,
    0x71, 0x64, 0x48, 0x97, 0xa2, 0x0d, 0xf9, 0x4e, 0x38, 0x19, 0xef, 0x46, 0xa9, 0xde, 0xac, 0xd8,
    0xa8, 0xfa, 0x76, 0x3f, 0xe3, 0x9c, 0x34, 0x3f, 0xf9, 0xdc, 0xbb, 0xc7, 0xc7, 0x0b, 0x4f, 0x1d,
    0x8a, 0x51, 0xe0, 0x4b, 0xcd, 0xb4, 0x59, 0x31, 0xc8, 0x9f, 0x7e, 0xc9, 0xd9, 0x78, 0x73, 0x64,
    0xea, 0xc5, 0xac, 0x83, 0x34, 0xd3, 0xeb, 0xc3, 0xc5, 0x81, 0xa0, 0xff, 0xfa, 0x13, 0x63, 0xeb,
    0x17, 0x0d, 0xdd, 0x51, 0xb7, 0xf0, 0xda, 0x49, 0xd3, 0x16, 0x55, 0x26, 0x29, 0xd4, 0x68, 0x9e,
    0x2b, 0x16, 0xbe, 0x58, 0x7d, 0x47, 0xa1, 0xfc, 0x8f, 0xf8, 0xb8, 0xd1, 0x7a, 0xd0, 0x31, 0xce,
    0x45, 0xcb, 0x3a, 0x8f, 0x95, 0x16, 0x04, 0x28, 0xaf, 0xd7, 0xfb, 0xca, 0xbb, 0x4b, 0x40, 0x7e,
];

const STRIPE_BYTES: usize = 64;
/// A block has one stripe for each word of the secret at which a stripe's length can be read.
const BLOCK_BYTES: usize = (SECRET.len() - STRIPE_BYTES) / 8 * STRIPE_BYTES;

/// The 64-bit XXH3 hash of the input.
#[must_use]
pub fn hash(input: &[u8]) -> u64 {
    match input.len() {
        0 => avalanche_xxh64(word(&SECRET, 56) ^ word(&SECRET, 64)),
        1..=3 => hash_1_to_3(input),
        4..=8 => hash_4_to_8(input),
        9..=16 => hash_9_to_16(input),
        17..=128 => hash_17_to_128(input),
        129..=240 => hash_129_to_240(input),
        _ => hash_long(input),
    }
}

fn hash_1_to_3(input: &[u8]) -> u64 {
    let length = input.len();
    let (first, middle, last) = (input[0], input[length >> 1], input[length - 1]);
    let combined = u32::from_le_bytes([last, length as u8, first, middle]);
    avalanche_xxh64(half_word(&SECRET, 0) ^ half_word(&SECRET, 4) ^ u64::from(combined))
}

fn hash_4_to_8(input: &[u8]) -> u64 {
    let (first, last) = (half_word(input, 0), half_word(input, input.len() - 4));
    let mut value = word(&SECRET, 8) ^ word(&SECRET, 16) ^ (last | first << 32);
    value ^= value.rotate_left(49) ^ value.rotate_left(24);
    value = value.wrapping_mul(PRIME_MX2);
    value ^= (value >> 35).wrapping_add(input.len() as u64);
    value = value.wrapping_mul(PRIME_MX2);
    value ^ value >> 28
}

fn hash_9_to_16(input: &[u8]) -> u64 {
    let low = word(&SECRET, 24) ^ word(&SECRET, 32) ^ word(input, 0);
    let high = word(&SECRET, 40) ^ word(&SECRET, 48) ^ word(input, input.len() - 8);
    let sum = (input.len() as u64).wrapping_add(low.swap_bytes()).wrapping_add(high);
    avalanche(sum.wrapping_add(multiply_and_fold(low, high)))
}

fn hash_17_to_128(input: &[u8]) -> u64 {
    let length = input.len();
    let mut acc = (length as u64).wrapping_mul(PRIME64_1);
    // Pairs of chunks, one from the start and one from the end, until these meet.
    for pair in 0..=(length - 1) / 32 {
        acc = acc.wrapping_add(mix(input, pair * 16, pair * 32));
        acc = acc.wrapping_add(mix(input, length - pair * 16 - 16, pair * 32 + 16));
    }
    avalanche(acc)
}

fn hash_129_to_240(input: &[u8]) -> u64 {
    let length = input.len();
    let mut acc = (length as u64).wrapping_mul(PRIME64_1);
    for chunk in 0..8 {
        acc = acc.wrapping_add(mix(input, chunk * 16, chunk * 16));
    }
    acc = avalanche(acc);
    for chunk in 8..length / 16 {
        acc = acc.wrapping_add(mix(input, chunk * 16, (chunk - 8) * 16 + 3));
    }
    avalanche(acc.wrapping_add(mix(input, length - 16, 119)))
}

fn hash_long(input: &[u8]) -> u64 {
    let mut acc =
        [PRIME32_3, PRIME64_1, PRIME64_2, PRIME64_3, PRIME64_4, PRIME32_2, PRIME64_5, PRIME32_1];
    // Without the last byte, so that the last block is never processed here.
    let blocks = input[..input.len() - 1].chunks_exact(BLOCK_BYTES);
    let rest = blocks.remainder();
    for block in blocks {
        accumulate_stripes(&mut acc, block);
        scramble(&mut acc);
    }
    accumulate_stripes(&mut acc, rest);
    // The last stripe is the last 64 bytes, even where it overlaps the one before.
    let last = &input[input.len() - STRIPE_BYTES..];
    accumulate(&mut acc, last, SECRET.len() - STRIPE_BYTES - 7);
    let mut result = (input.len() as u64).wrapping_mul(PRIME64_1);
    for pair in 0..4 {
        let (one, other) = (2 * pair, 2 * pair + 1);
        let one = acc[one] ^ word(&SECRET, 11 + 8 * one);
        let other = acc[other] ^ word(&SECRET, 11 + 8 * other);
        result = result.wrapping_add(multiply_and_fold(one, other));
    }
    avalanche(result)
}

/// Accumulates the whole stripes of a block. Each uses the secret at an offset of eight more bytes.
fn accumulate_stripes(acc: &mut [u64; 8], block: &[u8]) {
    for (number, stripe) in block.chunks_exact(STRIPE_BYTES).enumerate() {
        accumulate(acc, stripe, number * 8);
    }
}

fn accumulate(acc: &mut [u64; 8], stripe: &[u8], secret: usize) {
    let (stripe, secret) = (&stripe[..STRIPE_BYTES], &SECRET[secret..secret + STRIPE_BYTES]);
    for lane in 0..8 {
        let input = word(stripe, lane * 8);
        let value = input ^ word(secret, lane * 8);
        acc[lane ^ 1] = acc[lane ^ 1].wrapping_add(input);
        acc[lane] = acc[lane].wrapping_add((value & 0xFFFF_FFFF) * (value >> 32));
    }
}

fn scramble(acc: &mut [u64; 8]) {
    let secret = &SECRET[SECRET.len() - STRIPE_BYTES..];
    for (lane, acc) in acc.iter_mut().enumerate() {
        *acc = (*acc ^ *acc >> 47 ^ word(secret, lane * 8)).wrapping_mul(PRIME32_1);
    }
}

/// Mixes two words of the input with two words of the secret.
fn mix(input: &[u8], at: usize, secret: usize) -> u64 {
    let low = word(input, at) ^ word(&SECRET, secret);
    let high = word(input, at + 8) ^ word(&SECRET, secret + 8);
    multiply_and_fold(low, high)
}

/// The XOR of the two halves of the 128-bit product.
fn multiply_and_fold(one: u64, other: u64) -> u64 {
    let product = u128::from(one) * u128::from(other);
    product as u64 ^ (product >> 64) as u64
}

fn avalanche(mut x: u64) -> u64 {
    x = (x ^ x >> 37).wrapping_mul(PRIME_MX1);
    x ^ x >> 32
}

fn avalanche_xxh64(mut x: u64) -> u64 {
    x = (x ^ x >> 33).wrapping_mul(PRIME64_2);
    x = (x ^ x >> 29).wrapping_mul(PRIME64_3);
    x ^ x >> 32
}

fn word(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

fn half_word(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word).into()
}

#[cfg(test)]
mod tests {
    use super::hash;

    /// Pseudo-random bytes, the same in every run.
    fn bytes(length: usize) -> Vec<u8> {
        let mut state = 1u64;
        let mut next = || {
            state = state.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
            (state >> 56) as u8
        };
        (0..length).map(|_| next()).collect()
    }

    /// The shortest and the longest input of each algorithm, and the lengths around the ends of stripes and
    /// blocks. The expected hashes come from the reference implementation.
    #[test]
    fn every_length_has_the_hash_of_the_reference_implementation() {
        #[rustfmt::skip]
        let expected = [
            (0, 0x2d06_8005_38d3_94c2), (1, 0xc00f_9d4f_580c_0c3a), (2, 0xb248_061f_b52b_d64c),
            (3, 0xe921_12d1_e602_af4a), (4, 0x9008_de7e_1006_06d1), (5, 0xaba4_062f_2484_5bdc),
            (7, 0x7187_a123_2e2d_811b), (8, 0xcca6_ee6f_8e08_0c52), (9, 0x568f_9d2e_69ad_8bd0),
            (12, 0x373d_a156_a0ef_76b0), (15, 0xf79a_07c5_5beb_f28a), (16, 0x600a_07a4_f5a9_911c),
            (17, 0xdeab_0265_f35d_fc24), (31, 0x423b_58cf_0cc7_d932), (32, 0xd045_81c5_6661_6653),
            (33, 0xe2f9_6cd2_71e7_2881), (64, 0xad06_85da_bb3c_e66b), (65, 0x7d4e_3da0_65c2_1b2d),
            (96, 0xbf9a_1938_3014_28ca), (97, 0xae7c_2604_94b7_847c), (127, 0x422f_a93a_f255_d6f6),
            (128, 0x410b_d3b4_d8d8_4f51), (129, 0x5596_4eec_3962_5032), (143, 0x8733_fa80_2952_9e24),
            (144, 0x827f_bbc0_3ec4_8dd7), (160, 0x94b0_4a6b_e24b_e84b), (239, 0xf5e2_3450_0a1f_2b94),
            (240, 0x977b_659b_dc81_fdb1), (241, 0x2cb1_ed4a_30c8_bded), (255, 0xc77e_ae9c_20c2_1088),
            (256, 0x7fd9_7c64_50f1_9383), (257, 0x42c7_23a9_3a4c_46b9), (511, 0xf2bf_2354_a8c6_03a7),
            (512, 0xd21b_608b_4432_0be0), (513, 0x4b10_9def_3349_5091), (1023, 0x296b_8bdb_d696_752e),
            (1024, 0x5ec1_11a1_e5a2_93ae), (1025, 0x5ea0_2645_28a9_03fc), (1087, 0x1978_5ff0_14f9_95e6),
            (1088, 0x5caa_7335_3133_0766), (1089, 0x093a_ae8d_6736_e7b3), (2047, 0xa8a5_5cc8_0e14_93a4),
            (2048, 0x8265_1c64_d545_e737), (2049, 0x35fa_9759_e87c_7270), (4096, 0xa765_7054_8864_595e),
            (10000, 0x55b5_0192_c3f1_b288),
        ];
        for (length, hash_of_it) in expected {
            assert_eq!(hash(&bytes(length)), hash_of_it, "{length} bytes");
        }
    }

    /// The second one begins with zeros.
    #[test]
    fn the_examples_of_the_redis_documentation_have_their_hashes() {
        assert_eq!(hash(b"Hello world"), 0xb6ac_b9d8_4a38_ff74);
        let zeros =
            b"v8lf0c11xh8ymlqztfd3eeq16kfn4sspw7fqmnuuq3k3t75em5wdizgcdw7uc26nnf961u2jkfzkjyt\
                      ls2kwlj7626sd";
        assert_eq!(hash(zeros), 0x0000_6c38_adf3_1777);
    }
}
