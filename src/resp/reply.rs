//! Answers → bytes: the only place where RESP2 and RESP3 differ.
//!
//! A handler says what it answers (a map, a double, nothing); whether that is `%2` or `*4`, `,1.5`
//! or a bulk string, is decided here by the protocol that the client asked for with `HELLO`. Replies
//! collect in a plain `Vec<u8>`, which never writes itself anywhere: the connection sends it when
//! the log is flushed as far as the replies show.

use std::borrow::Cow;

use super::request::header;
use crate::text::integer;

/// The version of the protocol that a client speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    /// What every client speaks unless it says otherwise.
    Resp2,
    /// After `HELLO 3`.
    Resp3,
}

/// A command's refusal: one line, which starts with a code in capitals. The connection goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandError(Cow<'static, [u8]>);

impl CommandError {
    /// A fixed text.
    pub const fn new(text: &'static str) -> CommandError {
        CommandError(Cow::Borrowed(text.as_bytes()))
    }

    /// The line, without `-` and line end.
    pub fn text(&self) -> &[u8] {
        &self.0
    }

    /// Options that do not fit together, or are unknown.
    pub const SYNTAX: CommandError = CommandError::new("ERR syntax error");
    /// An argument, or a stored value, that is no 64-bit integer.
    pub const NOT_AN_INTEGER: CommandError =
        CommandError::new("ERR value is not an integer or out of range");
    /// An argument, or a stored value, that is no number.
    pub const NOT_A_FLOAT: CommandError = CommandError::new("ERR value is not a valid float");
    /// The key holds a value of another type.
    pub const WRONG_TYPE: CommandError =
        CommandError::new("WRONGTYPE Operation against a key holding the wrong kind of value");
    /// RENAME and others, on a key that is not there.
    pub const NO_SUCH_KEY: CommandError = CommandError::new("ERR no such key");
    /// A string that would become longer than `proto-max-bulk-len`.
    pub const TOO_LONG: CommandError =
        CommandError::new("ERR string exceeds maximum allowed size (proto-max-bulk-len)");
}

impl From<String> for CommandError {
    fn from(text: String) -> CommandError {
        CommandError(Cow::Owned(text.into_bytes()))
    }
}

impl From<Vec<u8>> for CommandError {
    fn from(text: Vec<u8>) -> CommandError {
        CommandError(Cow::Owned(text))
    }
}

/// Where an array of yet unknown length began.
pub struct OpenArray(usize);

/// Replies on their way to one client.
pub struct Reply {
    bytes: Vec<u8>,
    /// How to say it.
    pub protocol: Protocol,
}

impl Reply {
    /// Nothing yet.
    pub fn new(protocol: Protocol) -> Reply {
        Reply { bytes: Vec::new(), protocol }
    }

    /// What is to be sent.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Bytes collected.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing was said.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Takes back what was said since there were `length` bytes.
    pub fn truncate(&mut self, length: usize) {
        self.bytes.truncate(length);
    }

    /// Forgets everything, and the memory beyond `kept` bytes.
    pub fn clear(&mut self, kept: usize) {
        self.bytes.clear();
        self.bytes.shrink_to(kept);
    }

    fn resp3(&self) -> bool {
        self.protocol == Protocol::Resp3
    }

    /// `+OK`.
    pub fn ok(&mut self) {
        self.bytes.extend_from_slice(b"+OK\r\n");
    }

    /// A status line.
    pub fn simple(&mut self, text: &str) {
        self.bytes.push(b'+');
        self.bytes.extend_from_slice(text.as_bytes());
        self.bytes.extend_from_slice(b"\r\n");
    }

    /// An error. Line ends that a client's own bytes brought into the text become spaces.
    pub fn error(&mut self, error: &CommandError) {
        self.bytes.push(b'-');
        let line_end = |byte: &u8| matches!(byte, b'\r' | b'\n');
        self.bytes.extend(error.0.iter().map(|b| if line_end(b) { b' ' } else { *b }));
        self.bytes.extend_from_slice(b"\r\n");
    }

    /// An integer.
    pub fn integer(&mut self, value: i64) {
        self.bytes.push(b':');
        integer::write_i64(&mut self.bytes, value);
        self.bytes.extend_from_slice(b"\r\n");
    }

    /// A length or a count, as an integer.
    pub fn count(&mut self, value: usize) {
        self.integer(i64::try_from(value).unwrap_or(i64::MAX));
    }

    /// A bulk string.
    pub fn bulk(&mut self, value: &[u8]) {
        header(&mut self.bytes, b'$', value.len());
        self.bytes.extend_from_slice(value);
        self.bytes.extend_from_slice(b"\r\n");
    }

    /// A bulk string, or null.
    pub fn bulk_or_null(&mut self, value: Option<&[u8]>) {
        match value {
            Some(value) => self.bulk(value),
            None => self.null(),
        }
    }

    /// Text for people: a verbatim string in RESP3.
    pub fn verbatim(&mut self, text: &[u8]) {
        if !self.resp3() {
            return self.bulk(text);
        }
        header(&mut self.bytes, b'=', text.len() + 4);
        self.bytes.extend_from_slice(b"txt:");
        self.bytes.extend_from_slice(text);
        self.bytes.extend_from_slice(b"\r\n");
    }

    /// A floating-point number, given as its digits: a bulk string in RESP2.
    pub fn double(&mut self, digits: &[u8]) {
        if !self.resp3() {
            return self.bulk(digits);
        }
        self.bytes.push(b',');
        self.bytes.extend_from_slice(digits);
        self.bytes.extend_from_slice(b"\r\n");
    }

    /// No value.
    pub fn null(&mut self) {
        self.bytes.extend_from_slice(if self.resp3() { b"_\r\n" } else { b"$-1\r\n" });
    }

    /// No array.
    pub fn null_array(&mut self) {
        self.bytes.extend_from_slice(if self.resp3() { b"_\r\n" } else { b"*-1\r\n" });
    }

    /// The start of an array of so many elements, which follow.
    pub fn array(&mut self, length: usize) {
        header(&mut self.bytes, b'*', length);
    }

    /// The start of a map of so many pairs, which follow.
    pub fn map(&mut self, pairs: usize) {
        match self.protocol {
            Protocol::Resp2 => self.array(pairs * 2),
            Protocol::Resp3 => header(&mut self.bytes, b'%', pairs),
        }
    }

    /// The start of a set of so many elements, which follow.
    pub fn set(&mut self, length: usize) {
        let kind = if self.resp3() { b'~' } else { b'*' };
        header(&mut self.bytes, kind, length);
    }

    /// The start of an array of so many pairs, each of which follows as [`Reply::pair`].
    pub fn pairs(&mut self, pairs: usize) {
        self.array(if self.resp3() { pairs } else { pairs * 2 });
    }

    /// Two bulk strings: an array of their own in RESP3.
    pub fn pair(&mut self, one: &[u8], other: &[u8]) {
        if self.resp3() {
            self.array(2);
        }
        self.bulk(one);
        self.bulk(other);
    }

    /// The start of a message of so many elements that answers nothing.
    pub fn push(&mut self, length: usize) {
        let kind = if self.resp3() { b'>' } else { b'*' };
        header(&mut self.bytes, kind, length);
    }

    /// Puts in what is encoded already, to where there were `at` bytes.
    pub fn insert(&mut self, at: usize, encoded: &[u8]) {
        self.bytes.splice(at..at, encoded.iter().copied());
    }

    /// Begins an array whose length will be known when [`Reply::close_array`] is called.
    pub fn open_array(&mut self) -> OpenArray {
        OpenArray(self.bytes.len())
    }

    /// Ends an array, which has got so many elements.
    pub fn close_array(&mut self, open: &OpenArray, length: usize) {
        let mut start = Vec::with_capacity(16);
        header(&mut start, b'*', length);
        self.bytes.splice(open.0..open.0, start);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(protocol: Protocol, say: fn(&mut Reply)) -> String {
        let mut reply = Reply::new(protocol);
        say(&mut reply);
        String::from_utf8_lossy(reply.bytes()).into_owned()
    }

    #[test]
    fn the_two_protocols_differ_where_they_should() {
        type Case = (fn(&mut Reply), &'static str, &'static str);
        let pairs = |reply: &mut Reply| {
            reply.pairs(1);
            reply.pair(b"a", b"1");
        };
        let cases: [Case; 8] = [
            (|r| r.null(), "$-1\r\n", "_\r\n"),
            (|r| r.null_array(), "*-1\r\n", "_\r\n"),
            (|r| r.map(2), "*4\r\n", "%2\r\n"),
            (|r| r.set(2), "*2\r\n", "~2\r\n"),
            (pairs, "*2\r\n$1\r\na\r\n$1\r\n1\r\n", "*1\r\n*2\r\n$1\r\na\r\n$1\r\n1\r\n"),
            (|r| r.push(3), "*3\r\n", ">3\r\n"),
            (|r| r.verbatim(b"hi"), "$2\r\nhi\r\n", "=6\r\ntxt:hi\r\n"),
            (|r| r.bulk(b""), "$0\r\n\r\n", "$0\r\n\r\n"),
        ];
        for (say, resp2, resp3) in cases {
            assert_eq!(said(Protocol::Resp2, say), resp2);
            assert_eq!(said(Protocol::Resp3, say), resp3);
        }
    }

    #[test]
    fn an_array_of_unknown_length_gets_its_header_in_front() {
        let text = said(Protocol::Resp2, |reply| {
            reply.ok();
            let open = reply.open_array();
            reply.integer(-7);
            reply.bulk(b"x");
            reply.close_array(&open, 2);
        });
        assert_eq!(text, "+OK\r\n*2\r\n:-7\r\n$1\r\nx\r\n");
    }

    #[test]
    fn an_error_stays_on_its_line() {
        let text = said(Protocol::Resp2, |reply| {
            reply.error(&CommandError::from(String::from("ERR a\r\n+OK")));
        });
        assert_eq!(text, "-ERR a  +OK\r\n");
    }
}
