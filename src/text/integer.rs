//! Decimal integers, as the protocol and the commands write them.
//!
//! Every integer has exactly one spelling: no leading zeros, a minus only if it is negative, no plus, no
//! spaces. So [`write_i64`] restores the exact bytes that [`parse_i64`] accepted, and the store can keep a
//! string such as `17` as a number, but not `+1` or `007`. Redis has the same rule for arguments.
//!
//! Every command parses and writes integers (lengths, counters, replies), so neither direction converts to
//! `str` or allocates, and writing produces two digits per division.

/// Parses an integer in canonical form. `None` for any other spelling, and if it does not fit in an `i64`.
#[must_use]
pub fn parse_i64(bytes: &[u8]) -> Option<i64> {
    match bytes {
        // "-0" would be a second spelling of zero.
        [b'-', digits @ ..] => match parse_u64(digits)? {
            0 => None,
            magnitude => 0i64.checked_sub_unsigned(magnitude),
        },
        digits => i64::try_from(parse_u64(digits)?).ok(),
    }
}

/// Like [`parse_i64`], without a sign.
#[must_use]
pub fn parse_u64(bytes: &[u8]) -> Option<u64> {
    /// Every number of this many digits fits, so only further digits need an overflow check.
    const SAFE_DIGITS: usize = 19;

    match bytes {
        b"0" => return Some(0),
        [b'1'..=b'9', ..] => {}
        _ => return None,
    }
    let (safe, rest) = bytes.split_at(bytes.len().min(SAFE_DIGITS));
    let mut value = 0u64;
    for byte in safe {
        value = value * 10 + digit(*byte)?;
    }
    for byte in rest {
        value = value.checked_mul(10)?.checked_add(digit(*byte)?)?;
    }
    Some(value)
}

fn digit(byte: u8) -> Option<u64> {
    byte.is_ascii_digit().then(|| u64::from(byte - b'0'))
}

/// Appends `value` in decimal.
pub fn write_i64(out: &mut Vec<u8>, value: i64) {
    if value < 0 {
        out.push(b'-');
    }
    write_u64(out, value.unsigned_abs());
}

/// Appends `value` in decimal.
pub fn write_u64(out: &mut Vec<u8>, mut value: u64) {
    /// `00` to `99` in a row, so that one division yields two digits.
    static PAIRS: [u8; 200] = {
        let mut pairs = [0; 200];
        let mut number = 0;
        while number < 100 {
            pairs[2 * number] = b'0' + (number / 10) as u8;
            pairs[2 * number + 1] = b'0' + (number % 10) as u8;
            number += 1;
        }
        pairs
    };

    // Digits are produced last first; u64::MAX has 20.
    let mut buffer = [0; 20];
    let mut start = buffer.len();
    while value >= 10 {
        let pair = 2 * (value % 100) as usize;
        value /= 100;
        start -= 2;
        buffer[start..start + 2].copy_from_slice(&PAIRS[pair..pair + 2]);
    }
    // At most one digit is left; none if the number of digits is even. Zero never tracks_read the loop.
    if value > 0 || start == buffer.len() {
        start -= 1;
        buffer[start] = b'0' + value as u8;
    }
    out.extend_from_slice(&buffer[start..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_integer_is_read_back_as_written() {
        let mut values = vec![0, i64::MAX, i64::MIN, i64::MIN + 1];
        for power in 0..19 {
            let ten = 10i64.pow(power);
            values.extend([ten - 1, ten, ten + 1, -ten, 1 - ten, -ten - 1]);
        }
        for value in values {
            let mut text = Vec::new();
            write_i64(&mut text, value);
            assert_eq!(text, value.to_string().into_bytes());
            assert_eq!(parse_i64(&text), Some(value));
        }
    }

    #[test]
    fn unsigned_integers_go_up_to_u64_max() {
        let mut text = Vec::new();
        write_u64(&mut text, u64::MAX);
        assert_eq!(text, b"18446744073709551615");
        assert_eq!(parse_u64(&text), Some(u64::MAX));
        assert_eq!(parse_i64(&text), None);
        assert_eq!(parse_u64(b"18446744073709551616"), None);
        assert_eq!(parse_u64(b"99999999999999999999"), None);
        assert_eq!(parse_u64(b"-1"), None);
        assert_eq!(parse_u64(b"-0"), None);
    }

    #[test]
    fn writing_appends_to_the_buffer() {
        let mut out = b":".to_vec();
        write_u64(&mut out, 120);
        write_i64(&mut out, -7);
        assert_eq!(out, b":120-7");
    }

    #[test]
    fn a_number_out_of_range_is_not_an_integer() {
        assert_eq!(parse_i64(b"9223372036854775807"), Some(i64::MAX));
        assert_eq!(parse_i64(b"-9223372036854775808"), Some(i64::MIN));
        assert_eq!(parse_i64(b"9223372036854775808"), None);
        assert_eq!(parse_i64(b"-9223372036854775809"), None);
        assert_eq!(parse_i64(b"999999999999999999999999999"), None);
    }

    #[test]
    fn any_other_spelling_is_not_an_integer() {
        let spellings: [&[u8]; 17] = [
            b"", b"-", b"+", b"-0", b"+1", b"01", b"00", b"-01", b" 1", b"1 ", b"1\0", b"1\n",
            b"0x1", b"1.0", b"1e3", b"--1", b"\xb1",
        ];
        for bytes in spellings {
            assert_eq!(parse_i64(bytes), None, "{bytes:?}");
        }
    }
}
