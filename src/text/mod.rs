//! What bytes mean: integers, long doubles, patterns, quoted words, what two strings share, hashes.
//!
//! The lowest layer. Nothing here knows of sockets, keys or commands; each module is a pure function
//! of bytes whose rules are Redis's, found by asking a real one.

pub mod glob;
pub mod integer;
pub mod lcs;
pub mod long_double;
pub mod sha1;
pub mod sha256;
pub mod xxh3;

/// Splits a line into words as Redis does for inline commands and configuration files.
///
/// Words are separated by white space. Within `"…"`, `\xHH` is a byte and `\n \r \t \b \a` are what
/// they are in C; any other escaped byte stands for itself. Within `'…'` only `\'` is an escape.
/// `None` if a quote is not closed, or its end is not the end of a word.
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

/// Appends the bytes within quotes, such that [`split_quoted`] reads them back, in ASCII.
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

/// Skips what C calls white space. Of it, vertical tabs and form feeds only count before a word.
fn skip_space(bytes: &[u8]) -> &[u8] {
    let is_space = |byte: &u8| byte.is_ascii_whitespace() || *byte == b'\x0b';
    &bytes[bytes.iter().position(|byte| !is_space(byte)).unwrap_or(bytes.len())..]
}

/// Appends what stands up to the closing quote and returns what follows it.
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

/// The value of a byte that is a hexadecimal digit.
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
    fn double_quotes_know_escapes_and_single_quotes_only_their_own() {
        let line = r#""a b\x00\n\"" 'c\n\'d' """#;
        let expected = [r#"a b\x00\n\""#, r"c\\n\'d", ""];
        assert_eq!(words(line), Some(expected.map(String::from).to_vec()));
    }

    #[test]
    fn what_is_quoted_is_read_back() {
        let bytes: Vec<u8> = (0..=255).collect();
        let mut line = Vec::new();
        quote(&bytes, &mut line);
        assert!(line.iter().all(|byte| (b' '..=b'~').contains(byte)));
        assert_eq!(split_quoted(&line), Some(vec![bytes]));
    }

    #[test]
    fn a_quote_that_is_open_or_closes_inside_a_word_is_unbalanced() {
        for line in [r#""abc"#, "'abc", r#""a"b"#, "'a'b", r#""a\"#] {
            assert_eq!(words(line), None, "{line}");
        }
    }
}
