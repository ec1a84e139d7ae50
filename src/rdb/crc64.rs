//! The checksum: a CRC of 64 bits with the polynomial that Redis took from a paper by David T. Jones, bits
//! reflected, starting at zero.
//!
//! Eight bytes are folded in at once, each with a table of its own (*slicing by eight*), which makes it about
//! four times as fast as byte by byte.

/// The polynomial `ad93d23594c935a9` with its bits in reverse order.
const POLYNOMIAL: u64 = 0x95ac_9329_ac4b_c9b5;

/// `TABLES[n][b]` is the effect of byte `b` that is followed by `n` other bytes.
static TABLES: [[u64; 256]; 8] = tables();

const fn tables() -> [[u64; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let (mut crc, mut bit) = (byte as u64, 0);
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ POLYNOMIAL } else { crc >> 1 };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut place = 1;
    while place < 8 {
        let mut byte = 0;
        while byte < 256 {
            let crc = tables[place - 1][byte];
            tables[place][byte] = (crc >> 8) ^ tables[0][(crc & 0xff) as usize];
            byte += 1;
        }
        place += 1;
    }
    tables
}

/// The checksum of what was summed up in `crc`, followed by these bytes.
pub(super) fn update(mut crc: u64, bytes: &[u8]) -> u64 {
    let (eights, rest) = bytes.as_chunks::<8>();
    for eight in eights {
        let folded = (crc ^ u64::from_le_bytes(*eight)).to_le_bytes();
        crc = (0..8).fold(0, |crc, at| crc ^ TABLES[7 - at][usize::from(folded[at])]);
    }
    let fold = |crc: u64, byte: &u8| (crc >> 8) ^ TABLES[0][usize::from(crc as u8 ^ byte)];
    rest.iter().fold(crc, fold)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_of_the_usual_nine_digits_is_the_known_one_however_they_are_cut() {
        for cut in 0..=9 {
            let (first, rest) = b"123456789".split_at(cut);
            assert_eq!(update(update(0, first), rest), 0xe9c6_d914_c4b8_d9ca);
        }
        let bytes: Vec<u8> = (0..1000).map(|n| (n * n) as u8).collect();
        let one_by_one = bytes.iter().fold(0, |crc, byte| update(crc, &[*byte]));
        assert_eq!(update(0, &bytes), one_by_one);
    }
}
