//! The number type of [`INCRBYFLOAT`](https://redis.io/docs/latest/commands/incrbyfloat/) and `HINCRBYFLOAT`:
//! C's `long double` on x86, the 80-bit
//! [extended precision format](https://en.wikipedia.org/wiki/Extended_precision).
//!
//! Redis parses both numbers as `long double`, adds them, and prints 17 decimals. An `f64` has too few bits
//! for that: 0.1 + 0.2 would give 0.30000000000000004, not 0.3. Rust has no wider type, so this file
//! implements the three operations that are needed. Each computes the exact result and rounds it once, to
//! the nearest value and ties to even:
//!
//! - [`LongDouble::parse`] turns the text into a fraction of two big integers and divides until it has
//!   enough bits to round;
//! - `+` and `-` align the two mantissas in a `u128`;
//! - [`LongDouble::write_to`] multiplies by 10¹⁷, or prints a big integer.
//!
//! A value is ±mantissa × 2^exponent with a mantissa of 64 bits. The top bit is set unless the exponent is
//! the smallest one (zero and the subnormal numbers), so every value has exactly one representation. There
//! is no NaN: no text parses as NaN, and a sum that would be NaN becomes infinite, which callers refuse with
//! the same error.

use std::cmp::Ordering;
use std::ops::{Add, Sub};

/// The exponent of the largest finite values, about 1.19 × 10⁴⁹³².
const MAX_EXPONENT: i32 = 16_383 - 63;
/// The exponent of zero and of the smallest values, down to about 3.6 × 10⁻⁴⁹⁵¹.
const MIN_EXPONENT: i32 = -16_382 - 63;
/// Redis copies the text to a buffer of 5 KiB with a terminating zero, and refuses longer texts.
const MAX_TEXT_BYTES: usize = 5 * 1024 - 1;
/// Exponents are clamped to this. With a larger one any text overflows or underflows, whatever its digits.
const EXPONENT_BOUND: i32 = 100_000;
/// Redis prints with `%.17Lf`.
const DECIMALS: u32 = 17;

/// A `long double`: finite or infinite, never NaN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LongDouble {
    negative: bool,
    mantissa: u64,
    exponent: i32,
}

impl LongDouble {
    /// The only zero: nothing that is printed depends on its sign.
    pub const ZERO: LongDouble =
        LongDouble { negative: false, mantissa: 0, exponent: MIN_EXPONENT };
    /// The largest finite value.
    pub const MAX: LongDouble =
        LongDouble { negative: false, mantissa: u64::MAX, exponent: MAX_EXPONENT };
    /// The most negative finite value.
    pub const MIN: LongDouble = LongDouble { negative: true, ..LongDouble::MAX };

    /// Parses what Redis accepts as a floating-point number: decimal (`-1.5e3`), hexadecimal (`0x1.8p3`),
    /// or `inf` or `infinity` in any case, with an optional sign. `None` for anything else, including
    /// spaces and NaN, for finite texts that overflow, and for non-zero texts that round to zero.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<LongDouble> {
        if bytes.len() > MAX_TEXT_BYTES {
            return None;
        }
        let (negative, unsigned) = split_sign(bytes);
        if unsigned.eq_ignore_ascii_case(b"inf") || unsigned.eq_ignore_ascii_case(b"infinity") {
            return Some(LongDouble::infinity(negative));
        }
        let number = match unsigned {
            [b'0', b'x' | b'X', hexadecimal @ ..] => Numeral::parse(hexadecimal, 16)?,
            decimal => Numeral::parse(decimal, 10)?,
        };
        if number.digits.is_empty() {
            return Some(LongDouble::ZERO);
        }
        let rounded = number.round(negative);
        (rounded.is_finite() && rounded.mantissa != 0).then_some(rounded)
    }

    /// Whether the value is finite. Redis refuses to store any other.
    #[must_use]
    pub fn is_finite(self) -> bool {
        self.exponent <= MAX_EXPONENT
    }

    /// Appends the value as Redis stores and replies it: 17 decimals, without trailing zeros. Never with an
    /// exponent, so there may be 4933 digits; never `-0`.
    pub fn write_to(self, out: &mut Vec<u8>) {
        let start = out.len();
        if self.negative {
            out.push(b'-');
        }
        if !self.is_finite() {
            out.extend_from_slice(b"inf");
        } else if self.exponent >= 0 {
            BigUint::from(self.mantissa).shifted_left(self.exponent as u32).write_to(out);
        } else {
            // In units of the last decimal, that is times 10¹⁷ = 5¹⁷ × 2¹⁷. The power of two only
            // changes the shift. The fraction that is left is rounded away.
            let product = u128::from(self.mantissa) * 5u128.pow(DECIMALS);
            let shift = self.exponent + DECIMALS as i32;
            let scaled = if shift >= 0 {
                product << shift
            } else {
                shift_right_to_even(product, shift.unsigned_abs())
            };
            if scaled == 0 {
                out.truncate(start);
            }
            let (one, width) = (10u128.pow(DECIMALS), DECIMALS as usize);
            let text = format!("{}.{:0width$}", scaled / one, scaled % one);
            let text = text.trim_end_matches('0').trim_end_matches('.');
            out.extend_from_slice(text.as_bytes());
        }
    }

    fn infinity(negative: bool) -> LongDouble {
        LongDouble { negative, mantissa: 1 << 63, exponent: MAX_EXPONENT + 1 }
    }

    /// The value nearest to `bits` × 2^`exponent`. The lowest bit may be sticky, that is set if any lower bit
    /// was lost. With a sticky bit `bits` has at least 66 bits, so that it lies below the rounding bit.
    fn round(negative: bool, bits: u128, exponent: i32) -> LongDouble {
        if bits == 0 {
            return LongDouble::ZERO;
        }
        // Keep 64 bits, or fewer if the exponent would be below the smallest one.
        let length = (u128::BITS - bits.leading_zeros()) as i32;
        let excess = (length - 64).max(MIN_EXPONENT - exponent);
        let mut exponent = exponent + excess;
        let mut mantissa = if excess > 0 {
            shift_right_to_even(bits, excess.unsigned_abs())
        } else {
            bits << excess.unsigned_abs()
        };
        // Rounding up may carry into a 65th bit, with only zeros below it.
        if mantissa >> 64 != 0 {
            mantissa >>= 1;
            exponent += 1;
        }
        if exponent > MAX_EXPONENT {
            return LongDouble::infinity(negative);
        }
        match mantissa as u64 {
            0 => LongDouble::ZERO,
            mantissa => LongDouble { negative, mantissa, exponent },
        }
    }
}

impl Add for LongDouble {
    type Output = LongDouble;

    /// The sum; infinite if it overflows or if either number is infinite.
    fn add(self, other: LongDouble) -> LongDouble {
        /// The bits of room below the mantissa with the larger exponent.
        const ROOM: u32 = 63;

        let (high, low) =
            if self.exponent >= other.exponent { (self, other) } else { (other, self) };
        if !high.is_finite() {
            return high;
        }
        let greater = u128::from(high.mantissa) << ROOM;
        let smaller = shift_right_sticky(
            u128::from(low.mantissa) << ROOM,
            high.exponent.abs_diff(low.exponent),
        );
        let exponent = high.exponent - ROOM as i32;
        if high.negative == low.negative {
            LongDouble::round(high.negative, greater + smaller, exponent)
        } else if greater >= smaller {
            LongDouble::round(high.negative, greater - smaller, exponent)
        } else {
            LongDouble::round(low.negative, smaller - greater, exponent)
        }
    }
}

impl Sub for LongDouble {
    type Output = LongDouble;

    /// The difference; infinite if it overflows or if either number is infinite.
    fn sub(self, other: LongDouble) -> LongDouble {
        self + LongDouble { negative: !other.negative && other.mantissa != 0, ..other }
    }
}

impl Ord for LongDouble {
    fn cmp(&self, other: &LongDouble) -> Ordering {
        // Only with the smallest exponent is the top bit clear, so comparing exponents first is right.
        let magnitudes = (self.exponent, self.mantissa).cmp(&(other.exponent, other.mantissa));
        match (self.negative, other.negative) {
            (false, false) => magnitudes,
            (true, true) => magnitudes.reverse(),
            (false, true) => Ordering::Greater,
            (true, false) => Ordering::Less,
        }
    }
}

impl PartialOrd for LongDouble {
    fn partial_cmp(&self, other: &LongDouble) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A parsed numeral: its value is `digits` × `radix`^`scale` × 2^`binary_scale`.
struct Numeral {
    /// The values of the digits, not characters; no leading zeros.
    digits: Vec<u8>,
    radix: u32,
    scale: i32,
    binary_scale: i32,
}

impl Numeral {
    /// Parses at least one digit, at most one point, and an optional exponent.
    fn parse(text: &[u8], radix: u32) -> Option<Numeral> {
        let mut number = Numeral { digits: Vec::new(), radix, scale: 0, binary_scale: 0 };
        let mut any_digit = false;
        let mut after_point = false;
        let mut rest = text;
        while let [byte, tail @ ..] = rest {
            if let Some(digit) = char::from(*byte).to_digit(radix) {
                any_digit = true;
                number.scale -= i32::from(after_point);
                if digit != 0 || !number.digits.is_empty() {
                    number.digits.push(digit as u8);
                }
            } else if *byte == b'.' && !after_point {
                after_point = true;
            } else {
                break;
            }
            rest = tail;
        }
        if !any_digit {
            return None;
        }
        match (radix, rest) {
            (_, []) => {}
            (10, [b'e' | b'E', exponent @ ..]) => number.scale += parse_exponent(exponent)?,
            (16, [b'p' | b'P', exponent @ ..]) => number.binary_scale = parse_exponent(exponent)?,
            _ => return None,
        }
        Some(number)
    }

    /// The nearest value. `digits` must not be empty.
    fn round(&self, negative: bool) -> LongDouble {
        // Settle extreme magnitudes first, so that the big integers stay small.
        if self.radix == 10 {
            let magnitude = self.scale + self.digits.len() as i32;
            if magnitude > 5_000 {
                return LongDouble::infinity(negative);
            }
            if magnitude < -5_000 {
                return LongDouble::ZERO;
            }
        }
        // 10^scale = 5^scale × 2^scale, and 16^scale is a power of two.
        let mut numerator = BigUint::from_digits(&self.digits, self.radix);
        let mut denominator = BigUint::from(1);
        let exponent = if self.radix == 10 {
            let fives = if self.scale >= 0 { &mut numerator } else { &mut denominator };
            fives.multiply_by_power_of_5(self.scale.unsigned_abs());
            self.scale
        } else {
            4 * self.scale + self.binary_scale
        };
        let (bits, quotient_exponent) = divide_to_66_bits(numerator, denominator);
        LongDouble::round(negative, bits, exponent + quotient_exponent)
    }
}

fn split_sign(bytes: &[u8]) -> (bool, &[u8]) {
    match bytes {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    }
}

/// Parses a signed decimal exponent, clamped to ±`EXPONENT_BOUND` so that no later sum overflows.
fn parse_exponent(bytes: &[u8]) -> Option<i32> {
    let (negative, digits) = split_sign(bytes);
    if digits.is_empty() {
        return None;
    }
    let mut exponent = 0;
    for byte in digits {
        let digit = char::from(*byte).to_digit(10)?;
        exponent = (exponent * 10 + digit as i32).min(EXPONENT_BOUND);
    }
    Some(if negative { -exponent } else { exponent })
}

/// `numerator` / `denominator` as bits × 2^exponent: at least the first 66 bits of the quotient, and a sticky
/// bit below them. This is binary long division: slow per bit, but it needs few bits, and unlike division
/// with larger digits it does not estimate any.
fn divide_to_66_bits(mut numerator: BigUint, mut denominator: BigUint) -> (u128, i32) {
    const BITS: u32 = 66;

    // Give both the same bit length, so that the first or second bit of the quotient is set.
    let (above, below) = (numerator.bit_length(), denominator.bit_length());
    if above < below {
        numerator = numerator.shifted_left(below - above);
    } else {
        denominator = denominator.shifted_left(above - below);
    }
    let mut bits = 0;
    // One more step in case the first bit is clear.
    for _ in 0..=BITS {
        let fits = numerator.subtract_if_it_fits(&denominator);
        bits = bits << 1 | u128::from(fits);
        numerator = numerator.shifted_left(1);
    }
    bits = bits << 1 | u128::from(!numerator.is_zero());
    (bits, above as i32 - below as i32 - BITS as i32 - 1)
}

/// `bits` / 2^`shift`, with the lowest bit set if any bit was lost.
fn shift_right_sticky(bits: u128, shift: u32) -> u128 {
    let kept = bits.checked_shr(shift).unwrap_or(0);
    let lost = bits != kept.checked_shl(shift).unwrap_or(0);
    kept | u128::from(lost)
}

/// `bits` / 2^`shift`, rounded to the nearest integer, ties to even. The top two bits must be clear: a shift
/// by less than two needs them.
fn shift_right_to_even(bits: u128, shift: u32) -> u128 {
    // Keep two fractional bits: the half, and a sticky bit.
    let quarters =
        if shift >= 2 { shift_right_sticky(bits, shift - 2) } else { bits << (2 - shift) };
    let (floor, quarter) = (quarters >> 2, quarters & 0b11);
    let up = quarter == 0b11 || quarter == 0b10 && floor & 1 == 1;
    floor + u128::from(up)
}

/// An unsigned integer of any size: limbs of 32 bits, least significant first, the last one not zero.
struct BigUint {
    limbs: Vec<u32>,
}

impl From<u64> for BigUint {
    fn from(value: u64) -> BigUint {
        let mut number = BigUint { limbs: vec![value as u32, (value >> 32) as u32] };
        number.trim();
        number
    }
}

impl BigUint {
    fn from_digits(digits: &[u8], radix: u32) -> BigUint {
        let mut number = BigUint { limbs: Vec::new() };
        // Seven digits fit in a limb in either radix.
        for chunk in digits.chunks(7) {
            let value = chunk.iter().fold(0, |value, digit| value * radix + u32::from(*digit));
            number.multiply_add(radix.pow(chunk.len() as u32), value);
        }
        number
    }

    fn multiply_by_power_of_5(&mut self, power: u32) {
        /// 5¹³ is the largest power of 5 that fits in a limb.
        const STEP: u32 = 13;

        for _ in 0..power / STEP {
            self.multiply_add(5u32.pow(STEP), 0);
        }
        self.multiply_add(5u32.pow(power % STEP), 0);
    }

    fn multiply_add(&mut self, factor: u32, summand: u32) {
        let mut carry = u64::from(summand);
        for limb in &mut self.limbs {
            carry += u64::from(*limb) * u64::from(factor);
            *limb = carry as u32;
            carry >>= 32;
        }
        self.limbs.push(carry as u32);
        self.trim();
    }

    fn shifted_left(mut self, shift: u32) -> BigUint {
        self.multiply_add(1 << (shift % 32), 0);
        self.limbs.splice(0..0, std::iter::repeat_n(0, shift as usize / 32));
        self.trim();
        self
    }

    /// Subtracts `other` and returns true, unless it is larger.
    fn subtract_if_it_fits(&mut self, other: &BigUint) -> bool {
        // The last limb is not zero, so the longer number is the larger one.
        let by_length = self.limbs.len().cmp(&other.limbs.len());
        if by_length.then_with(|| self.limbs.iter().rev().cmp(other.limbs.iter().rev())).is_lt() {
            return false;
        }
        let mut borrow = false;
        let subtrahend = other.limbs.iter().copied().chain(std::iter::repeat(0));
        for (limb, subtrahend) in self.limbs.iter_mut().zip(subtrahend) {
            let (difference, first) = limb.overflowing_sub(subtrahend);
            let (difference, second) = difference.overflowing_sub(u32::from(borrow));
            *limb = difference;
            borrow = first || second;
        }
        self.trim();
        true
    }

    /// Appends the number in decimal.
    fn write_to(mut self, out: &mut Vec<u8>) {
        const CHUNK: u64 = 1_000_000_000;

        // Nine digits per division, last ones first.
        let mut chunks = Vec::new();
        while !self.is_zero() {
            let mut remainder = 0;
            for limb in self.limbs.iter_mut().rev() {
                let dividend = remainder << 32 | u64::from(*limb);
                *limb = (dividend / CHUNK) as u32;
                remainder = dividend % CHUNK;
            }
            self.trim();
            chunks.push(remainder);
        }
        out.extend_from_slice(chunks.pop().unwrap_or(0).to_string().as_bytes());
        for chunk in chunks.iter().rev() {
            out.extend_from_slice(format!("{chunk:09}").as_bytes());
        }
    }

    fn bit_length(&self) -> u32 {
        let top = self.limbs.last().map_or(0, |limb| limb.leading_zeros());
        self.limbs.len() as u32 * u32::BITS - top
    }

    fn is_zero(&self) -> bool {
        self.limbs.is_empty()
    }

    fn trim(&mut self) {
        while self.limbs.last() == Some(&0) {
            self.limbs.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Option<LongDouble> {
        LongDouble::parse(text.as_bytes())
    }

    /// The reply of `SET key a` and `INCRBYFLOAT key b`, as observed in Redis 7.0: the sum, `refused` if it
    /// is not finite, `invalid` if a text is not a number.
    fn sum(a: &str, b: &str) -> String {
        let (Some(a), Some(b)) = (parse(a), parse(b)) else {
            return "invalid".to_owned();
        };
        let sum = a + b;
        if !sum.is_finite() {
            return "refused".to_owned();
        }
        let mut text = Vec::new();
        sum.write_to(&mut text);
        String::from_utf8_lossy(&text).into_owned()
    }

    /// How a number is stored.
    fn kept(text: &str) -> String {
        sum(text, "0")
    }

    #[test]
    fn decimal_fractions_add_up_as_people_expect() {
        assert_eq!(sum("0.1", "0.2"), "0.3");
        assert_eq!(sum("10.5", "0.1"), "10.6");
        assert_eq!(sum("-0.1", "0.05"), "-0.05");
        assert_eq!(sum("5.0e3", "200"), "5200");
        assert_eq!(sum("1", "1e-17"), "1.00000000000000001");
    }

    #[test]
    fn seventeen_decimals_are_printed_without_trailing_zeros() {
        assert_eq!(kept("3.14159265358979323846"), "3.14159265358979324");
        assert_eq!(kept("3.0"), "3");
        assert_eq!(kept("100"), "100");
        assert_eq!(kept("0.00000000000000001"), "0.00000000000000001");
    }

    #[test]
    fn a_tie_in_the_last_decimal_rounds_to_even() {
        assert_eq!(kept("0x1p-18"), "0.00000381469726562");
        assert_eq!(kept("0x3p-18"), "0.00001144409179688");
    }

    #[test]
    fn zero_is_printed_without_a_sign() {
        for zero in ["-0", "-0.0", "0e99999999999999999999", "-1e-20", "1e-4950", "0x0p-99999"] {
            assert_eq!(kept(zero), "0", "{zero}");
        }
        assert_eq!(sum("1", "-1"), "0");
    }

    #[test]
    fn a_text_is_rounded_to_64_bits_with_ties_to_even() {
        assert_eq!(kept("18446744073709551615"), "18446744073709551615");
        assert_eq!(kept("18446744073709551617"), "18446744073709551616");
        assert_eq!(kept("18446744073709551619"), "18446744073709551620");
        assert_eq!(kept("0x10000000000000001"), "18446744073709551616");
        assert_eq!(kept("0x10000000000000003"), "18446744073709551620");
        assert_eq!(kept("123456789012345678901234567890"), "123456789012345678899921813504");
    }

    #[test]
    fn a_digit_thousands_of_places_away_breaks_a_tie() {
        let above = format!("18446744073709551617.{}1", "0".repeat(3000));
        assert_eq!(kept(&above), "18446744073709551618");
    }

    #[test]
    fn a_sum_is_rounded_to_64_bits_with_ties_to_even() {
        assert_eq!(sum("18446744073709551615", "0.5"), "18446744073709551616");
        assert_eq!(sum("18446744073709551615", "0.25"), "18446744073709551615");
        assert_eq!(sum("0x1p64", "1"), "18446744073709551616");
        assert_eq!(sum("0x1p64", "3"), "18446744073709551620");
        assert_eq!(sum("0x1p64", "0x1.00000001p0"), "18446744073709551618");
        assert_eq!(sum("0x1p64", "-0x1p-1"), "18446744073709551616");
        assert_eq!(sum("0x1p127", "-1"), "170141183460469231731687303715884105728");
    }

    #[test]
    fn the_difference_of_neighbours_is_exact() {
        let difference = sum("0x8000000000000001p60", "-0x8000000000000000p60");
        assert_eq!(difference, "1152921504606846976");
    }

    #[test]
    fn decimal_and_hexadecimal_spellings_are_read() {
        for (text, value) in [
            (".5", "0.5"),
            ("5.", "5"),
            ("+1", "1"),
            ("00001", "1"),
            ("1E5", "100000"),
            ("5.e3", "5000"),
            (".5e+1", "5"),
            ("1e-1", "0.1"),
            ("0x10", "16"),
            ("-0X.8", "-0.5"),
            ("0x1.8p-3", "0.1875"),
        ] {
            assert_eq!(kept(text), value, "{text}");
        }
    }

    #[test]
    fn anything_else_is_not_a_number() {
        for text in [
            "", ".", "-", "-.", "+-1", "1e", "1e+", ".e5", "1.2.3", "1,5", "1_0", "1f", " 1", "1 ",
            "\t1", "1\n", "1\0", "+ 1", "0x", "0x.p1", "0x1p", "0xg", "0x1p1.5", "infinit", "nan",
            "-nan", "nan(123)",
        ] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn infinity_is_read_but_its_sums_are_refused() {
        for infinity in ["inf", "+INF", "-inf", "Infinity"] {
            assert_eq!(sum(infinity, "1"), "refused");
            assert_eq!(sum("1", infinity), "refused");
            assert_eq!(sum(infinity, "-inf"), "refused");
        }
    }

    #[test]
    fn a_text_that_overflows_is_not_a_number_and_a_sum_that_overflows_is_refused() {
        let greatest = "1.18973149535723176502e4932";
        for text in ["1e4933", "1.2e4932", "0x1p16384", "-1e5000", "1e99999999999999999999"] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(sum(greatest, greatest), "refused");
        assert_eq!(sum(greatest, "3.3e4912"), "refused");
        assert_eq!(sum(greatest, "3.2e4912"), kept(greatest));
    }

    #[test]
    fn numbers_are_ordered_and_the_sign_of_a_difference_follows_the_order() {
        let texts = [
            "-inf",
            "-1e4932",
            "-2",
            "-1.5",
            "-0x1p-16445",
            "0",
            "0x1p-16445",
            "1e-30",
            "1",
            "1.5",
        ];
        let mut numbers: Vec<LongDouble> = texts.iter().filter_map(|text| parse(text)).collect();
        numbers.extend([LongDouble::MAX, LongDouble::infinity(false)]);
        assert_eq!(numbers.len(), texts.len() + 2);
        for pair in numbers.windows(2) {
            assert!(pair[0] < pair[1], "{pair:?}");
            assert!(pair[1] - pair[0] > LongDouble::ZERO, "{pair:?}");
            assert!(pair[0] - pair[1] < LongDouble::ZERO, "{pair:?}");
        }
        assert_eq!(LongDouble::ZERO - LongDouble::ZERO, LongDouble::ZERO);
        assert_eq!(LongDouble::MIN + LongDouble::MAX, LongDouble::ZERO);
        assert!(!(LongDouble::MIN - LongDouble::MAX).is_finite());
    }

    #[test]
    fn a_text_that_underflows_is_not_a_number() {
        assert_eq!(parse("1.8e-4951"), None);
        assert_eq!(parse("0x1p-16446"), None);
        assert_eq!(parse("1e-99999999999999999999"), None);
        // These round to the smallest number.
        assert_eq!(parse("1.9e-4951"), parse("0x1p-16445"));
        assert_eq!(parse("0x1.8p-16446"), parse("0x1p-16445"));
        assert!(parse("0x1p-16445").is_some());
    }

    #[test]
    fn a_huge_number_is_printed_to_its_last_digit() {
        let huge = sum("1e4000", "1");
        assert_eq!(huge.len(), 4000);
        assert!(huge.starts_with("9999999999999999999965463873099623784932"));
        assert!(huge.ends_with("9901340672"));
        let huge = kept("1e4932");
        assert_eq!(huge.len(), 4933);
        assert!(huge.starts_with("1000000000000000000006018949387963891323"));
        assert!(huge.ends_with("1886622720"));
    }

    #[test]
    fn a_text_of_5120_bytes_is_never_a_number() {
        assert_eq!(kept(&format!("{}1", "0".repeat(5118))), "1");
        assert_eq!(parse(&format!("{}1", "0".repeat(5119))), None);
        assert_eq!(kept(&format!("0.{}1e5001", "0".repeat(5000))), "1");
    }
}
