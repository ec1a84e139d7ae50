//! Replies: how they are read from the wire, strictly, and how a test writes them down.

use std::fmt;
use std::io::{self, BufRead};

/// One reply, of either protocol. Different replies are displayed differently:
///
/// | | | | |
/// |---|---|---|---|
/// | `+OK` simple string | `"a\x00"` bulk string | `nil` null bulk string | `[a, b]` array |
/// | `-ERR …` error | `:1` integer | `nil*` null array | `{k: v}` map (RESP3, as all below) |
/// | `~[a]` set | `>[a]` push | `,1.5` double | `#t` `#f` boolean |
/// | `_` null | `(123` big number | `=txt:"a"` verbatim | `<closed>` no reply: connection closed |
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Reply {
    Simple(String),
    Error(String),
    Integer(i64),
    Bulk(Vec<u8>),
    NullBulk,
    NullArray,
    Array(Vec<Reply>),
    Map(Vec<(Reply, Reply)>),
    Set(Vec<Reply>),
    Push(Vec<Reply>),
    Double(String),
    Boolean(bool),
    Null,
    BigNumber(String),
    Verbatim(String, Vec<u8>),
    Closed,
}

impl Reply {
    /// The elements of an array, set or push; the keys and values of a map in turn.
    #[track_caller]
    pub(crate) fn into_items(self) -> Vec<Reply> {
        match self {
            Reply::Array(items) | Reply::Set(items) | Reply::Push(items) => items,
            Reply::Map(pairs) => pairs.into_iter().flat_map(|(k, v)| [k, v]).collect(),
            other => panic!("not an array: {other}"),
        }
    }

    #[track_caller]
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        match self {
            Reply::Bulk(bytes) | Reply::Verbatim(_, bytes) => bytes,
            Reply::Simple(text) => text.into_bytes(),
            other => panic!("not a string: {other}"),
        }
    }

    #[track_caller]
    pub(crate) fn into_text(self) -> String {
        String::from_utf8(self.into_bytes()).expect("a string of UTF-8")
    }

    /// Sorts the elements as displayed, for replies that come in any order.
    pub(crate) fn sort(&mut self) {
        match self {
            Reply::Array(items) | Reply::Set(items) => items.sort_by_cached_key(Reply::to_string),
            Reply::Map(pairs) => pairs.sort_by_cached_key(|(key, _)| key.to_string()),
            _ => {}
        }
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Reply::Simple(text) => write!(out, "+{text}"),
            Reply::Error(text) => write!(out, "-{text}"),
            Reply::Integer(number) => write!(out, ":{number}"),
            Reply::Bulk(bytes) => write!(out, "{}", quote(bytes)),
            Reply::NullBulk => write!(out, "nil"),
            Reply::NullArray => write!(out, "nil*"),
            Reply::Array(items) => write_items(out, "", items),
            Reply::Set(items) => write_items(out, "~", items),
            Reply::Push(items) => write_items(out, ">", items),
            Reply::Map(pairs) => {
                write!(out, "{{")?;
                for (index, (key, value)) in pairs.iter().enumerate() {
                    let comma = if index == 0 { "" } else { ", " };
                    write!(out, "{comma}{key}: {value}")?;
                }
                write!(out, "}}")
            }
            Reply::Double(text) => write!(out, ",{text}"),
            Reply::Boolean(value) => write!(out, "#{}", if *value { 't' } else { 'f' }),
            Reply::Null => write!(out, "_"),
            Reply::BigNumber(text) => write!(out, "({text}"),
            Reply::Verbatim(kind, bytes) => write!(out, "={kind}:{}", quote(bytes)),
            Reply::Closed => write!(out, "<closed>"),
        }
    }
}

fn write_items(out: &mut fmt::Formatter, mark: &str, items: &[Reply]) -> fmt::Result {
    write!(out, "{mark}[")?;
    for (index, item) in items.iter().enumerate() {
        let comma = if index == 0 { "" } else { ", " };
        write!(out, "{comma}{item}")?;
    }
    write!(out, "]")
}

/// A byte string, quoted as `redis-cli` accepts it.
pub(crate) fn quote(bytes: &[u8]) -> String {
    let mut text = String::from("\"");
    for &byte in bytes {
        match byte {
            b'"' | b'\\' => text.extend(['\\', byte as char]),
            b'\n' => text.push_str("\\n"),
            b'\r' => text.push_str("\\r"),
            b'\t' => text.push_str("\\t"),
            b' '..=b'~' => text.push(byte as char),
            _ => text.push_str(&format!("\\x{byte:02x}")),
        }
    }
    text.push('"');
    text
}

/// Reads one reply. Anything that is not exactly RESP is an error.
pub(crate) fn read_reply(reader: &mut impl BufRead) -> io::Result<Reply> {
    let mut line = Vec::new();
    reader.read_until(b'\n', &mut line)?;
    if !line.ends_with(b"\n") {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let body = line.strip_suffix(b"\r\n").unwrap_or(&[]);
    let Some((&kind, rest)) = body.split_first() else {
        return Err(malformed(&line));
    };
    let text = String::from_utf8_lossy(rest).into_owned();
    let length = || text.parse::<i64>().map_err(|_| malformed(&line));
    let mut items = |per_entry: i64| -> io::Result<Vec<Reply>> {
        let count = length()? * per_entry;
        (0..count).map(|_| read_reply(reader)).collect()
    };
    Ok(match kind {
        b'+' => Reply::Simple(text),
        b'-' => Reply::Error(text),
        b':' => Reply::Integer(length()?),
        b'$' if text == "-1" => Reply::NullBulk,
        b'$' => Reply::Bulk(read_body(reader, length()?)?),
        b'*' if text == "-1" => Reply::NullArray,
        b'*' => Reply::Array(items(1)?),
        b'~' => Reply::Set(items(1)?),
        b'>' => Reply::Push(items(1)?),
        b'%' => {
            let mut flat = items(2)?.into_iter();
            let mut pairs = Vec::new();
            while let (Some(key), Some(value)) = (flat.next(), flat.next()) {
                pairs.push((key, value));
            }
            Reply::Map(pairs)
        }
        b',' => Reply::Double(text),
        b'#' if text == "t" || text == "f" => Reply::Boolean(text == "t"),
        b'_' if text.is_empty() => Reply::Null,
        b'(' => Reply::BigNumber(text),
        b'=' => {
            let body = read_body(reader, length()?)?;
            match body.iter().position(|&byte| byte == b':') {
                Some(3) => {
                    let kind = String::from_utf8_lossy(&body[..3]).into_owned();
                    Reply::Verbatim(kind, body[4..].to_vec())
                }
                _ => return Err(malformed(&line)),
            }
        }
        _ => return Err(malformed(&line)),
    })
}

fn read_body(reader: &mut impl BufRead, length: i64) -> io::Result<Vec<u8>> {
    let length = usize::try_from(length).map_err(|_| malformed(b"a negative length"))?;
    let mut body = vec![0; length + 2];
    reader.read_exact(&mut body)?;
    if !body.ends_with(b"\r\n") {
        return Err(malformed(&body));
    }
    body.truncate(length);
    Ok(body)
}

fn malformed(bytes: &[u8]) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not RESP: {}", quote(bytes)))
}
