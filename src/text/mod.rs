//! Pure functions on bytes: integers, long doubles, glob patterns, quoted words, LCS, hashes.
//!
//! This is the lowest layer: it knows nothing about sockets, keys or commands, and takes no locks. The rules
//! are those of Redis, found by experiments with a real server; the hashes follow their specifications.

pub mod glob;
pub mod integer;
pub mod lcs;
pub mod long_double;
pub mod sha1;
pub mod sha256;
pub mod xxh3;

/// Returns an error that holds this text, formatted, unless the condition holds: for `check` functions.
macro_rules! ensure {
    ($holds:expr, $($text:tt)+) => {
        if !$holds {
            return Err(format!($($text)+));
        }
    };
}
pub(crate) use ensure;

/// Splits a line into words as Redis does for
/// [inline commands](https://redis.io/docs/latest/develop/reference/protocol-spec/#inline-commands) and
/// configuration files.
///
/// White space separates words. Within `"…"`, `\xHH` is a byte and `\n \r \t \b \a` mean what they mean in
/// C; any other escaped byte stands for itself. Within `'…'` only `\'` is an escape. Returns `None` if a
/// quote is not closed, or if something other than white space follows the closing quote.
pub fn split_quoted(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut words = Vec::new();
    let mut rest = skip_space(line);
    while !rest.is_empty() {
        let mut word = Vec::new();
        loop {
            match *rest {
                [] | [b' ' | b'\n' | b'\r' | b'\t', ..] => break,
                [quote @ (b'"' | b'\''), ref behind @ ..] => {
                    rest = take_quoted(quote, behind, &mut word)?;
                    if rest.first().is_some_and(|byte| !byte.is_ascii_whitespace()) {
                        return None;
                    }
                }
                [byte, ref behind @ ..] => {
                    word.push(byte);
                    rest = behind;
                }
            }
        }
        words.push(word);
        rest = skip_space(rest);
    }
    Some(words)
}

/// Appends the bytes in double quotes, escaped to printable ASCII; [`split_quoted`] is the inverse.
pub fn quote(bytes: &[u8], to: &mut Vec<u8>) {
    to.push(b'"');
    for &byte in bytes {
        match byte {
            b'"' | b'\\' => to.extend([b'\\', byte]),
            b'\n' => to.extend(b"\\n"),
            b'\r' => to.extend(b"\\r"),
            b'\t' => to.extend(b"\\t"),
            7 => to.extend(b"\\a"),
            8 => to.extend(b"\\b"),
            b' '..=b'~' => to.push(byte),
            _ => to.extend(format!("\\x{byte:02x}").bytes()),
        }
    }
    to.push(b'"');
}

/// Skips the white space that C's `isspace` knows. A vertical tab or form feed counts only before a word.
fn skip_space(bytes: &[u8]) -> &[u8] {
    let is_space = |byte: &u8| byte.is_ascii_whitespace() || *byte == b'\x0b';
    &bytes[bytes.iter().position(|byte| !is_space(byte)).unwrap_or(bytes.len())..]
}

/// Appends the bytes up to the closing quote to `word` and returns the rest after the quote.
fn take_quoted<'a>(quote: u8, mut rest: &'a [u8], word: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        let (byte, behind) = match (quote, rest) {
            (_, []) => return None,
            (_, [byte, behind @ ..]) if *byte == quote => return Some(behind),
            (b'"', [b'\\', b'x', high, low, behind @ ..])
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                (hex_digit(*high) << 4 | hex_digit(*low), behind)
            }
            (b'"', [b'\\', escaped, behind @ ..]) => (unescape(*escaped), behind),
            (b'\'', [b'\\', b'\'', behind @ ..]) => (b'\'', behind),
            (_, [byte, behind @ ..]) => (*byte, behind),
        };
        word.push(byte);
        rest = behind;
    }
}

fn unescape(escaped: u8) -> u8 {
    match escaped {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 8,
        b'a' => 7,
        other => other,
    }
}

/// The value of a byte, which must be a hexadecimal digit.
fn hex_digit(byte: u8) -> u8 {
    match byte {
        b'0'..=b'9' => byte - b'0',
        _ => (byte | 0x20) - b'a' + 10,
    }
}

#[cfg(test)]
mod tests {
    use super::{quote, split_quoted};

    fn words(line: &str) -> Option<Vec<String>> {
        let words = split_quoted(line.as_bytes())?;
        Some(words.iter().map(|word| word.escape_ascii().to_string()).collect())
    }

    #[test]
    fn words_are_separated_by_any_white_space() {
        assert_eq!(words("  SET a\t b  "), Some(vec!["SET".into(), "a".into(), "b".into()]));
        assert_eq!(words("   "), Some(vec![]));
    }

    #[test]
    fn double_quotes_have_all_escapes_and_single_quotes_only_one() {
        let line = r#""a b\x00\n\"" 'c\n\'d' """#;
        let expected = [r#"a b\x00\n\""#, r"c\\n\'d", ""];
        assert_eq!(words(line), Some(expected.map(String::from).to_vec()));
    }

    #[test]
    fn quoted_bytes_are_read_back() {
        let bytes: Vec<u8> = (0..=255).collect();
        let mut line = Vec::new();
        quote(&bytes, &mut line);
        assert!(line.iter().all(|byte| (b' '..=b'~').contains(byte)));
        assert_eq!(split_quoted(&line), Some(vec![bytes]));
    }

    #[test]
    fn an_open_quote_and_one_that_closes_inside_a_word_are_refused() {
        for line in [r#""abc"#, "'abc", r#""a"b"#, "'a'b", r#""a\"#] {
            assert_eq!(words(line), None, "{line}");
        }
    }
}
