//! Encodes replies. This is the only place where RESP2 and RESP3 differ.
//!
//! A handler replies with a type (a map, a double, null). Whether a map becomes `%2` or `*4`, and a double
//! `,1.5` or a bulk string, depends on the protocol that the client chose with
//! [`HELLO`](https://redis.io/docs/latest/commands/hello/). Replies are appended to a plain `Vec<u8>`; the
//! connection sends it once it has flushed the log up to the last change that the replies reveal.

use std::borrow::Cow;
use std::collections::TryReserveError;

use super::request::header;
use crate::memory;
use crate::text::integer;

/// The most that a number or a length takes, with its type and line ends.
const NUMBER_BYTES: usize = 25;

/// The protocol version of a client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    /// The default.
    Resp2,
    /// After `HELLO 3`.
    Resp3,
}

/// An error reply: one line that starts with a code in capitals. The connection stays open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandError(Cow<'static, [u8]>);

impl CommandError {
    /// An error with a fixed text.
    pub const fn new(text: &'static str) -> CommandError {
        CommandError(Cow::Borrowed(text.as_bytes()))
    }

    /// The line, without the leading `-` and the line end.
    pub fn text(&self) -> &[u8] {
        &self.0
    }

    /// An unknown option, or options that exclude each other.
    pub const SYNTAX: CommandError = CommandError::new("ERR syntax error");
    /// An argument or a stored value is not a 64-bit integer.
    pub const NOT_AN_INTEGER: CommandError =
        CommandError::new("ERR value is not an integer or out of range");
    /// An argument or a stored value is not a number.
    pub const NOT_A_FLOAT: CommandError = CommandError::new("ERR value is not a valid float");
    /// The key holds a value of another type.
    pub const WRONG_TYPE: CommandError =
        CommandError::new("WRONGTYPE Operation against a key holding the wrong kind of value");
    /// The key of RENAME, for example, does not exist.
    pub const NO_SUCH_KEY: CommandError = CommandError::new("ERR no such key");
    /// A string would become longer than `proto-max-bulk-len`.
    pub const TOO_LONG: CommandError =
        CommandError::new("ERR string exceeds maximum allowed size (proto-max-bulk-len)");
    /// The system refuses the memory that a command needs.
    pub const NO_MEMORY: CommandError =
        CommandError::new("OOM the system has not enough memory for a value of this size");
    /// The system refuses the memory that a reply needs.
    const NO_MEMORY_FOR_REPLY: CommandError =
        CommandError::new("OOM the system has not enough memory for a reply of this size");
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

impl From<TryReserveError> for CommandError {
    fn from(_: TryReserveError) -> CommandError {
        CommandError::NO_MEMORY
    }
}

/// The offset of an array whose length is not known yet.
pub struct OpenArray(usize);

/// A buffer of encoded replies to one client.
pub struct Reply {
    bytes: Vec<u8>,
    /// The system has refused memory, so something is missing. See [`Reply::end`].
    refused: bool,
    /// The protocol in which replies are encoded from now on.
    pub protocol: Protocol,
}

impl Reply {
    /// An empty buffer.
    pub fn new(protocol: Protocol) -> Reply {
        Reply { bytes: Vec::new(), refused: false, protocol }
    }

    /// The encoded replies.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The length of the encoded replies in bytes.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The memory that the replies take, and the room for more.
    pub fn memory_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Removes everything after the first `length` bytes.
    pub fn truncate(&mut self, length: usize) {
        self.bytes.truncate(length);
        self.refused = false;
    }

    /// Empties the buffer and frees its memory beyond `kept` bytes.
    pub fn clear(&mut self, kept: usize) {
        self.truncate(0);
        self.bytes.shrink_to(kept);
    }

    /// Ends the reply to one command, or what a command has to reply before it changes anything.
    ///
    /// # Errors
    /// The system has refused memory for it, and what is there of it must be removed.
    #[inline(always)]
    pub fn end(&mut self) -> Result<(), CommandError> {
        if self.refused {
            self.refused = false;
            return Err(CommandError::NO_MEMORY_FOR_REPLY);
        }
        Ok(())
    }

    /// Makes sure that a command that changes what it replies with can reply with so many bytes.
    ///
    /// # Errors
    /// The system refuses the memory.
    pub fn reserve(&mut self, bytes: usize) -> Result<(), CommandError> {
        memory::reserve(&mut self.bytes, bytes).map_err(|_| CommandError::NO_MEMORY_FOR_REPLY)
    }

    /// Whether so many bytes can be appended. Whatever is appended asks first.
    #[inline]
    fn has_room(&mut self, bytes: usize) -> bool {
        self.bytes.capacity() - self.bytes.len() >= bytes || self.grow(bytes)
    }

    #[cold]
    fn grow(&mut self, bytes: usize) -> bool {
        let granted = memory::reserve(&mut self.bytes, bytes).is_ok();
        self.refused |= !granted;
        granted
    }

    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        if self.has_room(bytes.len()) {
            self.bytes.extend_from_slice(bytes);
        }
    }

    #[inline]
    fn header(&mut self, kind: u8, length: usize) {
        if self.has_room(NUMBER_BYTES) {
            header(&mut self.bytes, kind, length);
        }
    }

    fn resp3(&self) -> bool {
        self.protocol == Protocol::Resp3
    }

    /// `+OK`.
    pub fn ok(&mut self) {
        self.put(b"+OK\r\n");
    }

    /// A simple string (a status). `text` must not contain line ends.
    pub fn simple(&mut self, text: &str) {
        for part in [b"+", text.as_bytes(), b"\r\n"] {
            self.put(part);
        }
    }

    /// An error. Line ends in its text, which can come from a client's arguments, become spaces.
    pub fn error(&mut self, error: &CommandError) {
        if !self.has_room(error.0.len() + NUMBER_BYTES) {
            return;
        }
        self.bytes.push(b'-');
        let line_end = |byte: &u8| matches!(byte, b'\r' | b'\n');
        self.bytes.extend(error.0.iter().map(|b| if line_end(b) { b' ' } else { *b }));
        self.bytes.extend_from_slice(b"\r\n");
    }

    pub fn integer(&mut self, value: i64) {
        if !self.has_room(NUMBER_BYTES) {
            return;
        }
        self.bytes.push(b':');
        integer::write_i64(&mut self.bytes, value);
        self.bytes.extend_from_slice(b"\r\n");
    }

    /// An integer, from a length or a count.
    pub fn count(&mut self, value: usize) {
        self.integer(i64::try_from(value).unwrap_or(i64::MAX));
    }

    pub fn bulk(&mut self, value: &[u8]) {
        if !self.has_room(value.len() + NUMBER_BYTES) {
            return;
        }
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

    /// Human-readable text: a verbatim string in RESP3, a bulk string in RESP2.
    pub fn verbatim(&mut self, text: &[u8]) {
        if !self.resp3() {
            return self.bulk(text);
        }
        if !self.has_room(text.len() + 2 * NUMBER_BYTES) {
            return;
        }
        header(&mut self.bytes, b'=', text.len() + 4);
        self.bytes.extend_from_slice(b"txt:");
        self.bytes.extend_from_slice(text);
        self.bytes.extend_from_slice(b"\r\n");
    }

    /// A floating-point number, given as decimal text: a double in RESP3, a bulk string in RESP2.
    pub fn double(&mut self, digits: &[u8]) {
        if !self.resp3() {
            return self.bulk(digits);
        }
        for part in [b",", digits, b"\r\n"] {
            self.put(part);
        }
    }

    /// Null, in place of a value.
    pub fn null(&mut self) {
        self.put(if self.resp3() { b"_\r\n" } else { b"$-1\r\n" });
    }

    /// Null, in place of an array.
    pub fn null_array(&mut self) {
        self.put(if self.resp3() { b"_\r\n" } else { b"*-1\r\n" });
    }

    /// Starts an array of `length` elements; the caller appends them.
    pub fn array(&mut self, length: usize) {
        self.header(b'*', length);
    }

    /// Starts a map of `pairs` keys and values; the caller appends them.
    pub fn map(&mut self, pairs: usize) {
        if self.resp3() {
            self.header(b'%', pairs);
        } else {
            self.array(pairs * 2);
        }
    }

    /// Starts a set of `length` elements; the caller appends them.
    pub fn set(&mut self, length: usize) {
        let kind = if self.resp3() { b'~' } else { b'*' };
        self.header(kind, length);
    }

    /// Starts an array of `pairs` pairs; the caller appends each with [`Reply::pair`].
    pub fn pairs(&mut self, pairs: usize) {
        self.array(if self.resp3() { pairs } else { pairs * 2 });
    }

    /// Two bulk strings, which in RESP3 form an array of their own.
    pub fn pair(&mut self, one: &[u8], other: &[u8]) {
        if self.resp3() {
            self.array(2);
        }
        self.bulk(one);
        self.bulk(other);
    }

    /// Starts a push message of `length` elements: one that is not a reply to a command.
    pub fn push(&mut self, length: usize) {
        let kind = if self.resp3() { b'>' } else { b'*' };
        self.header(kind, length);
    }

    /// Inserts encoded messages at the byte offset `at`.
    pub fn insert(&mut self, at: usize, encoded: &[u8]) {
        if self.has_room(encoded.len()) {
            self.bytes.splice(at..at, encoded.iter().copied());
        }
    }

    /// Starts an array whose length only [`Reply::close_array`] knows.
    pub fn open_array(&mut self) -> OpenArray {
        OpenArray(self.bytes.len())
    }

    /// Ends an array that got `length` elements.
    pub fn close_array(&mut self, open: &OpenArray, length: usize) {
        let mut start = Vec::with_capacity(16);
        header(&mut start, b'*', length);
        self.insert(open.0, &start);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(protocol: Protocol, write: fn(&mut Reply)) -> String {
        let mut reply = Reply::new(protocol);
        write(&mut reply);
        String::from_utf8_lossy(reply.bytes()).into_owned()
    }

    #[test]
    fn each_type_is_encoded_as_its_protocol_says() {
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
        for (write, resp2, resp3) in cases {
            assert_eq!(encoded(Protocol::Resp2, write), resp2);
            assert_eq!(encoded(Protocol::Resp3, write), resp3);
        }
    }

    #[test]
    fn an_array_of_unknown_length_gets_its_header_before_its_elements() {
        let text = encoded(Protocol::Resp2, |reply| {
            reply.ok();
            let open = reply.open_array();
            reply.integer(-7);
            reply.bulk(b"x");
            reply.close_array(&open, 2);
        });
        assert_eq!(text, "+OK\r\n*2\r\n:-7\r\n$1\r\nx\r\n");
    }

    #[test]
    fn line_ends_in_an_error_become_spaces() {
        let text = encoded(Protocol::Resp2, |reply| {
            reply.error(&CommandError::from(String::from("ERR a\r\n+OK")));
        });
        assert_eq!(text, "-ERR a  +OK\r\n");
    }
}
