//! The glob patterns of [`KEYS`](https://redis.io/docs/latest/commands/keys/), `SCAN MATCH` and `CONFIG GET`.
//! They match bytes, not characters.
//!
//! | Pattern    | Matches                                                              |
//! |------------|----------------------------------------------------------------------|
//! | `*`        | any run of bytes, even an empty one                                 |
//! | `?`        | any one byte                                                         |
//! | `[a-c_]`   | one byte of a class of bytes and ranges                              |
//! | `[^a-c_]`  | one byte that is not in the class                                    |
//! | `\x`       | the byte `x`, whatever it means elsewhere; also inside a class       |
//! | any other  | itself                                                               |
//!
//! Patterns come from clients, so there are two invariants. Every sequence of bytes is a valid pattern: a
//! class that is never closed ends with the pattern, a trailing backslash stands for itself. And no pattern
//! takes exponential time: everything but `*` matches exactly one byte, so on a mismatch only the *last* star
//! needs to take one more byte. (Whatever an earlier star could match by growing, the last one can match
//! too.) The time is at most proportional to pattern length × text length, and a long class that is tried
//! again and again is turned into a table ([`LongClasses`]), so that it costs one step per byte of text.
//!
//! The corner cases are those of Redis 7.0, found by experiment. A few are odd; comments below name them.

use std::collections::BTreeMap;

/// Whether `pattern` matches all of `text`.
#[must_use]
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    search(pattern, text, false)
}

/// Like [`matches()`], but upper-case and lower-case ASCII letters are the same.
#[must_use]
pub fn matches_ignoring_case(pattern: &[u8], text: &[u8]) -> bool {
    search(pattern, text, true)
}

fn search(mut pattern: &[u8], mut text: &[u8], ignore_case: bool) -> bool {
    // In Redis an empty text matches only an empty pattern: not even `*`. (KEYS and SCAN take a lone `*` for
    // "no pattern", so they find the key with the empty name.)
    if text.is_empty() {
        return pattern.is_empty();
    }
    let mut long_classes = LongClasses::default();
    // The pattern after the last star, and the text at which we last tried to match it.
    let mut last_star: Option<(&[u8], &[u8])> = None;
    loop {
        if let Some(rest) = pattern.strip_prefix(b"*") {
            if rest.is_empty() {
                return true;
            }
            pattern = rest;
            last_star = Some((rest, text));
            continue;
        }
        let Some((&byte, text_rest)) = text.split_first() else {
            // The rest of the pattern needs at least one more byte; a longer star would leave it fewer.
            return pattern.is_empty();
        };
        if let Some(rest) = match_one(pattern, byte, ignore_case, &mut long_classes) {
            pattern = rest;
            text = text_rest;
            continue;
        }
        // Let the star take one more byte, and retry the pattern after it.
        let Some((after_star, [_, tried_rest @ ..])) = last_star else {
            return false;
        };
        pattern = after_star;
        text = tried_rest;
        last_star = Some((after_star, tried_rest));
    }
}

/// Matches one byte against the first element of `pattern`, which is not a star. Returns the pattern after
/// that element, or `None` if the byte does not match or the pattern is empty.
fn match_one<'p>(
    pattern: &'p [u8],
    byte: u8,
    ignore_case: bool,
    long_classes: &mut LongClasses,
) -> Option<&'p [u8]> {
    match pattern {
        [] => None,
        [b'?', rest @ ..] => Some(rest),
        [b'[', class @ ..] => long_classes.matched(class, byte, ignore_case),
        [b'\\', literal, rest @ ..] | [literal, rest @ ..] => {
            same(*literal, byte, ignore_case).then_some(rest)
        }
    }
}

/// The long classes of a pattern, by the length of the pattern that begins with them.
#[derive(Default)]
struct LongClasses(BTreeMap<usize, LongClass>);

#[derive(Default)]
struct LongClass {
    /// How often it was read.
    reads: usize,
    /// Whether each byte matches, and the length of the pattern after the class.
    table: Option<(Box<[bool; 256]>, usize)>,
}

impl LongClasses {
    /// A class of so many bytes is long …
    const LONG: usize = 256;
    /// … and gets a table once it was read so often that this costs no more than the reading did.
    const READS: usize = 256;

    /// Like [`match_class`], which it calls unless there is a table.
    fn matched<'p>(&mut self, class: &'p [u8], byte: u8, ignore_case: bool) -> Option<&'p [u8]> {
        if class.len() < Self::LONG {
            return match_class(class, byte, ignore_case);
        }
        if let Some(LongClass { table: Some((table, rest)), .. }) = self.0.get(&class.len()) {
            return table[usize::from(byte)].then(|| &class[class.len() - rest..]);
        }
        let (is_member, rest) = read_class(class, byte, ignore_case);
        if class.len() - rest.len() >= Self::LONG {
            let long = self.0.entry(class.len()).or_default();
            long.reads += 1;
            if long.reads == Self::READS {
                let mut table = Box::new([false; 256]);
                for byte in 0..=u8::MAX {
                    table[usize::from(byte)] = read_class(class, byte, ignore_case).0;
                }
                long.table = Some((table, rest.len()));
            }
        }
        is_member.then_some(rest)
    }
}

/// Like [`match_one`], for a class without its `[`.
fn match_class(class: &[u8], byte: u8, ignore_case: bool) -> Option<&[u8]> {
    let (is_member, rest) = read_class(class, byte, ignore_case);
    is_member.then_some(rest)
}

/// Whether the class, which comes without its `[`, has the byte, and the pattern after the class.
fn read_class(class: &[u8], byte: u8, ignore_case: bool) -> (bool, &[u8]) {
    let (negated, mut class) = match class {
        [b'^', members @ ..] => (true, members),
        members => (false, members),
    };
    let mut found = false;
    // The order of the arms matters: an escape takes precedence over the closing bracket, and the bracket
    // over a range. So `[]` is an empty class, but `[a-]` is a range up to `]`.
    let rest = loop {
        class = match class {
            [] => break class,
            // In Redis an escaped member is case-sensitive even if case is ignored.
            [b'\\', member, rest @ ..] => {
                found |= *member == byte;
                rest
            }
            [b']', rest @ ..] => break rest,
            [first, b'-', last, rest @ ..] => {
                found |= in_range(*first, *last, byte, ignore_case);
                rest
            }
            [member, rest @ ..] => {
                found |= same(*member, byte, ignore_case);
                rest
            }
        };
    };
    (found != negated, rest)
}

/// Whether `byte` is in a range, whose ends may come in either order.
///
/// Two oddities come from Redis: bytes are compared as C's signed `char`, so 0x80 to 0xff are negative; and
/// the ends are swapped before case is folded, so with `ignore_case` the range `[Z-a]` is empty.
fn in_range(first: u8, last: u8, byte: u8, ignore_case: bool) -> bool {
    let (low, high) =
        if first.cast_signed() <= last.cast_signed() { (first, last) } else { (last, first) };
    let place = |byte| fold_case(byte, ignore_case).cast_signed();
    (place(low)..=place(high)).contains(&place(byte))
}

fn same(a: u8, b: u8, ignore_case: bool) -> bool {
    fold_case(a, ignore_case) == fold_case(b, ignore_case)
}

fn fold_case(byte: u8, ignore_case: bool) -> u8 {
    if ignore_case { byte.to_ascii_lowercase() } else { byte }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    #[test]
    fn a_table_of_a_long_class_has_the_bytes_that_the_class_has() {
        let mut random = Rng::of_run();
        for ignore_case in [false, true].repeat(100) {
            let alphabet = b"ab]^-\\zZ\xe9";
            let mut class: Vec<u8> =
                (0..600).map(|_| alphabet[random.below(alphabet.len())]).collect();
            class.insert(random.below(class.len()), b']');
            let mut classes = LongClasses::default();
            for _ in 0..600 {
                let byte = random.below(256) as u8;
                let expected = match_class(&class, byte, ignore_case);
                let found = classes.matched(&class, byte, ignore_case);
                assert_eq!(found, expected, "{} {byte}", class.escape_ascii());
            }
        }
    }

    #[test]
    fn a_long_class_is_tried_at_every_byte_of_a_long_text() {
        let class = format!("*[{}]b", "a".repeat(20_000));
        let text = "a".repeat(20_000);
        assert!(!matches(class.as_bytes(), text.as_bytes()));
        assert!(matches(class.as_bytes(), format!("{text}b").as_bytes()));
        assert!(!matches_ignoring_case(class.as_bytes(), text.to_uppercase().as_bytes()));
    }

    /// Redis 7.0 matches the texts in `yes` and does not match those in `no`.
    fn check(pattern: &str, yes: &[&str], no: &[&str]) {
        for (texts, expected) in [(yes, true), (no, false)] {
            for text in texts {
                let matched = matches(pattern.as_bytes(), text.as_bytes());
                assert_eq!(matched, expected, "{pattern} on {text}");
            }
        }
    }

    #[test]
    fn a_pattern_without_special_bytes_matches_only_itself() {
        check("key", &["key"], &["", "ke", "keys", "Key"]);
        check("", &[""], &["a"]);
    }

    #[test]
    fn a_question_mark_takes_exactly_one_byte() {
        check("h?llo", &["hello", "h?llo"], &["hllo", "heello"]);
    }

    #[test]
    fn a_star_takes_any_run_of_bytes() {
        check("h*llo", &["hllo", "heeello", "hllollo"], &["hell", "ello"]);
        check("*a*b", &["ab", "aab", "xaybb"], &["", "a", "ba", "abx"]);
        check("a**", &["a", "ab"], &["", "b"]);
    }

    #[test]
    fn only_the_empty_pattern_matches_the_empty_text() {
        check("", &[""], &[]);
        check("*", &["a"], &[""]);
        check("**", &["a"], &[""]);
    }

    #[test]
    fn a_class_takes_one_of_its_bytes() {
        check("h[ae]llo", &["hello", "hallo"], &["hillo", "hllo", "haello"]);
        check("h[^e]llo", &["hallo", "h^llo"], &["hello", "hllo"]);
        check("[a^]", &["a", "^"], &["b"]);
    }

    #[test]
    fn a_range_may_be_written_in_either_order() {
        check("[a-c]", &["a", "b", "c"], &["d", "-"]);
        check("[c-a]", &["a", "b", "c"], &["d", "-"]);
        check("[-a]", &["-", "a"], &["b"]);
    }

    #[test]
    fn an_empty_class_matches_nothing_and_its_negation_any_byte() {
        check("[]", &[], &["", "]", "a", "[]"]);
        check("[^]", &["a", "]"], &["", "aa"]);
    }

    #[test]
    fn a_dash_before_the_bracket_makes_a_range_up_to_the_bracket() {
        check("[a-]", &["a", "]", "_"], &["-", "b", "\\a"]);
        check("[a-]b]", &["_", "b"], &["_b]"]);
    }

    #[test]
    fn a_class_that_is_not_closed_ends_with_the_pattern() {
        check("[ab", &["a", "b"], &["[ab", "c", ""]);
        check("[^a", &["b"], &["a"]);
        check("x[", &[], &["x", "x["]);
        check("x[^", &["xy"], &["x"]);
        check("[a-", &["a", "-"], &["b"]);
    }

    #[test]
    fn a_backslash_takes_the_next_byte_literally() {
        check(r"\*", &["*"], &["a", r"\*"]);
        check(r"a\bc", &["abc"], &[r"a\bc"]);
        check(r"[\]]", &["]"], &[r"\"]);
        check(r"[\^a]", &["^", "a"], &["b"]);
        check(r"[\a-c]", &["a", "-", "c"], &["b"]);
        check(r"[a-\]", &["a", r"\", "]"], &["-", "b"]);
    }

    #[test]
    fn a_trailing_backslash_stands_for_itself() {
        check(r"a\", &[r"a\"], &["a"]);
        check(r"[\", &[r"\"], &["["]);
    }

    #[test]
    fn case_is_ignored_on_request_except_for_an_escaped_member_of_a_class() {
        assert!(matches_ignoring_case(b"APPEND*", b"appendonly"));
        assert!(matches_ignoring_case(br"\Appendonly", b"appendonly"));
        assert!(matches_ignoring_case(b"[A-C]ppendonly", b"appendonly"));
        assert!(!matches_ignoring_case(br"[\A]ppendonly", b"appendonly"));
        assert!(!matches_ignoring_case(b"[Z-a]ppendonly", b"appendonly"));
        assert!(!matches(b"APPEND*", b"appendonly"));
    }

    #[test]
    fn ranges_order_bytes_as_signed_chars() {
        let matched = |pattern: &[u8]| {
            let bytes = (0..=u8::MAX).filter(|byte| matches(pattern, &[*byte]));
            bytes.collect::<Vec<_>>()
        };
        assert_eq!(matched(b"[\x01-\xff]"), [0x00, 0x01, 0xff]);
        assert_eq!(matched(b"[\x80-\xff]"), (0x80..=0xff).collect::<Vec<_>>());
    }

    #[test]
    fn many_stars_take_no_more_than_pattern_times_text() {
        let text = vec![b'a'; 20_000];
        let stars = b"a*".repeat(500);
        assert!(matches(&stars, &text));
        assert!(!matches(&[&stars[..], b"b"].concat(), &text));
    }
}
