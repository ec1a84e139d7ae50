//! Decimal integers as the protocol and the commands spell them.
//!
//! Every integer has one spelling: digits without a leading zero, a minus only before a number
//! below zero, no plus, no spaces. So for all that [`parse_i64`] accepts, [`write_i64`] gives back
//! the same bytes: a string that holds an integer can be kept as a number without anybody noticing,
//! which `+1` or `007` would not survive. Redis holds arguments to the same rule.
//!
//! Both directions are on the path of every command (lengths, counters, replies), hence no detour
//! through `str`, no allocation, and two digits a step when writing.

/// The integer that `bytes` spells in its one canonical form, if it is one and fits.
#[must_use]
pub fn parse_i64(bytes: &[u8]) -> Option<i64> {
    match bytes {
        // The magnitude is never zero here, or "-0" would be a second spelling of zero.
        [b'-', digits @ ..] => match parse_u64(digits)? {
            0 => None,
            magnitude => 0i64.checked_sub_unsigned(magnitude),
        },
        digits => i64::try_from(parse_u64(digits)?).ok(),
    }
}

/// Like [`parse_i64`], for what can have no sign.
#[must_use]
pub fn parse_u64(bytes: &[u8]) -> Option<u64> {
    /// Any number of this many digits fits, so that only longer ones need a check for overflow.
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
    /// `00` to `99` in a row: one division yields two digits.
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

    // Digits come out last first; 20 is the length of u64::MAX.
    let mut buffer = [0; 20];
    let mut start = buffer.len();
    while value >= 10 {
        let pair = 2 * (value % 100) as usize;
        value /= 100;
        start -= 2;
        buffer[start..start + 2].copy_from_slice(&PAIRS[pair..pair + 2]);
    }
    // What is left is a single digit, or nothing after a pair that had no leading zero. Zero
    // itself never entered the loop.
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
    fn every_integer_reads_back_as_it_was_written() {
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
    fn unsigned_integers_reach_further_than_signed_ones() {
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
    fn writing_appends_after_what_is_there() {
        let mut out = b":".to_vec();
        write_u64(&mut out, 120);
        write_i64(&mut out, -7);
        assert_eq!(out, b":120-7");
    }

    #[test]
    fn a_number_past_either_end_is_no_integer() {
        assert_eq!(parse_i64(b"9223372036854775807"), Some(i64::MAX));
        assert_eq!(parse_i64(b"-9223372036854775808"), Some(i64::MIN));
        assert_eq!(parse_i64(b"9223372036854775808"), None);
        assert_eq!(parse_i64(b"-9223372036854775809"), None);
        assert_eq!(parse_i64(b"999999999999999999999999999"), None);
    }

    #[test]
    fn any_other_spelling_of_a_number_is_no_integer() {
        let spellings: [&[u8]; 17] = [
            b"", b"-", b"+", b"-0", b"+1", b"01", b"00", b"-01", b" 1", b"1 ", b"1\0", b"1\n",
            b"0x1", b"1.0", b"1e3", b"--1", b"\xb1",
        ];
        for bytes in spellings {
            assert_eq!(parse_i64(bytes), None, "{bytes:?}");
        }
    }
}
