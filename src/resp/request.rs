//! Bytes → the arguments of one command.
//!
//! [`Request`] is a parser that can be stopped at any byte: [`Request::feed`] takes what has arrived,
//! says how much of it it used and whether a command is complete, and goes on from there next time.
//! So it does no I/O, never waits, and the caller decides what to do before it waits for more (the
//! connection sends its replies; the replay knows the tail is torn).
//!
//! Always true: the arguments stand one behind the other in a single buffer that is used again for
//! the next command, so a command costs no allocation; memory grows only with bytes that arrived,
//! never with a length that was merely announced.
//!
//! The limits and the texts of errors are Redis's.

use std::fmt;
use std::ops::Index;

use crate::text::{integer, split_quoted};

/// The longest inline command, and the longest line that announces a length.
const LINE_LIMIT: usize = 64 << 10;
/// The most arguments of one command.
const ARGS_LIMIT: i64 = i32::MAX as i64;
/// What clients that have not given the password may send: few and short arguments.
const UNAUTHENTICATED_ARGS_LIMIT: i64 = 10;
const UNAUTHENTICATED_BULK_LIMIT: i64 = 16 << 10;
/// A buffer that a large command has grown beyond this is given back.
const KEPT_BYTES: usize = 256 << 10;

/// The arguments of one command, its name first.
#[derive(Clone, Copy)]
pub struct Args<'a> {
    bytes: &'a [u8],
    ends: &'a [usize],
    first: usize,
}

impl<'a> Args<'a> {
    /// How many there are, the name included.
    pub fn len(self) -> usize {
        self.ends.len() - self.first
    }

    /// Whether there are none. A complete request has one at least.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The argument of that number, 0 being the name.
    pub fn get(self, number: usize) -> Option<&'a [u8]> {
        let end = *self.ends.get(self.first + number)?;
        Some(&self.bytes[self.start(number)..end])
    }

    /// The arguments from that number on.
    pub fn from(self, number: usize) -> impl ExactSizeIterator<Item = &'a [u8]> + Clone {
        (number.min(self.len())..self.len())
            .map(move |number| &self.bytes[self.start(number)..self.ends[self.first + number]])
    }

    /// The arguments behind the first `count`, as a command of their own (`COMMAND GETKEYS`).
    pub fn skip(self, count: usize) -> Args<'a> {
        Args { first: self.first + count, ..self }
    }

    fn start(self, number: usize) -> usize {
        match self.first + number {
            0 => 0,
            number => self.ends[number - 1],
        }
    }
}

impl Index<usize> for Args<'_> {
    type Output = [u8];

    /// # Panics
    /// If there is no such argument: a handler only asks for what its arity guarantees.
    fn index(&self, number: usize) -> &[u8] {
        &self.bytes[self.start(number)..self.ends[self.first + number]]
    }
}

/// Commands that wait, one behind the other in a single buffer.
#[derive(Default)]
pub struct Queue {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    /// Per command, how many of `ends` there are up to its last.
    commands: Vec<usize>,
}

impl Queue {
    /// Adds a copy of a command.
    pub fn push(&mut self, args: Args) {
        for arg in args.from(0) {
            self.bytes.extend_from_slice(arg);
            self.ends.push(self.bytes.len());
        }
        self.commands.push(self.ends.len());
    }

    /// The commands, in their order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Args<'_>> {
        (0..self.commands.len()).map(|number| {
            let first = if number == 0 { 0 } else { self.commands[number - 1] };
            Args { bytes: &self.bytes, ends: &self.ends[..self.commands[number]], first }
        })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.commands.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }

    /// The memory that they take.
    pub fn memory_bytes(&self) -> usize {
        self.bytes.len() + (self.ends.len() + self.commands.len()) * size_of::<usize>()
    }
}

/// What a client sent is not RESP. It is told so, and its connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolError {
    /// `*` was followed by something that is no acceptable number.
    MultibulkLength,
    /// `$` was followed by something that is no acceptable number.
    BulkLength,
    /// This byte stood where a `$` belongs.
    ExpectedBulk(u8),
    /// A line of `*…` without an end.
    MultibulkLineTooLong,
    /// A line of `$…` without an end.
    BulkLineTooLong,
    /// Something else stood where a line must end. Redis does not look at that in what clients send,
    /// and neither do we; in a log it tells damage from data.
    LineEnd,
    /// An inline command without an end.
    InlineTooLong,
    /// An inline command whose quotes do not close.
    UnbalancedQuotes,
    /// Too many arguments for a client that has not authenticated.
    UnauthenticatedMultibulkLength,
    /// Too long an argument for a client that has not authenticated.
    UnauthenticatedBulkLength,
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MultibulkLength => "invalid multibulk length",
            Self::BulkLength => "invalid bulk length",
            Self::ExpectedBulk(found) => {
                return write!(f, "expected '$', got '{}'", char::from(*found));
            }
            Self::MultibulkLineTooLong => "too big mbulk count string",
            Self::BulkLineTooLong => "too big bulk count string",
            Self::LineEnd => "expected the end of a line",
            Self::InlineTooLong => "too big inline request",
            Self::UnbalancedQuotes => "unbalanced quotes in request",
            Self::UnauthenticatedMultibulkLength => "unauthenticated multibulk length",
            Self::UnauthenticatedBulkLength => "unauthenticated bulk length",
        })
    }
}

/// What [`Request::feed`] did with the bytes it was given.
#[derive(Debug, PartialEq, Eq)]
pub struct Progress {
    /// So many bytes belong to this command (or were empty lines) and need not be given again.
    pub used: usize,
    /// The command is complete. Without it all bytes were used and more are needed.
    pub complete: bool,
}

/// Where in a command the parser stands.
#[derive(Clone, Copy)]
enum State {
    /// Before its first byte.
    Start,
    /// In a line whose end has not arrived; its beginning is in `Request::line`.
    Inline,
    MultibulkLength,
    BulkLength {
        args_left: usize,
    },
    /// In an argument of which `bytes_left` are missing, the line end behind it included.
    Bulk {
        args_left: usize,
        bytes_left: usize,
    },
}

/// One command, complete or on its way.
pub struct Request {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    line: Vec<u8>,
    state: State,
    /// The longest argument, in bytes (`proto-max-bulk-len`).
    pub bulk_limit: i64,
    /// Whether line ends are looked at.
    pub strict: bool,
    /// Whether the tight limits for clients that have not authenticated apply.
    pub unauthenticated: bool,
}

impl Request {
    /// Nothing yet.
    pub fn new(bulk_limit: i64) -> Request {
        Request {
            bytes: Vec::new(),
            ends: Vec::new(),
            line: Vec::new(),
            state: State::Start,
            bulk_limit,
            strict: false,
            unauthenticated: false,
        }
    }

    /// The arguments of the command that [`Request::feed`] called complete.
    pub fn args(&self) -> Args<'_> {
        Args { bytes: &self.bytes, ends: &self.ends, first: 0 }
    }

    /// Whether some bytes of a command have arrived, but not all.
    pub fn is_partial(&self) -> bool {
        !matches!(self.state, State::Start)
    }

    /// Makes room for the next command.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
        self.bytes.shrink_to(KEPT_BYTES);
        self.ends.shrink_to(KEPT_BYTES / size_of::<usize>());
    }

    /// Takes bytes until a command is complete or they are used up.
    ///
    /// # Errors
    /// What is wrong with them; the parser cannot go on after it.
    pub fn feed(&mut self, input: &[u8]) -> Result<Progress, ProtocolError> {
        if let Some(used) = self.take_whole(input) {
            return Ok(Progress { used, complete: true });
        }
        let mut used = 0;
        while used < input.len() {
            let rest = &input[used..];
            match self.state {
                State::Start if rest[0] == b'*' => self.state = State::MultibulkLength,
                State::Start => self.state = State::Inline,
                State::Bulk { args_left, bytes_left } => {
                    used += self.take_bulk(rest, args_left, bytes_left)?;
                }
                State::Inline => {
                    let limit = ProtocolError::InlineTooLong;
                    let (taken, line) = take_line(&mut self.line, rest, LineEnd::Newline, limit)?;
                    used += taken;
                    let Some(line) = line else { continue };
                    for word in split_quoted(line).ok_or(ProtocolError::UnbalancedQuotes)? {
                        self.bytes.extend_from_slice(&word);
                        self.ends.push(self.bytes.len());
                    }
                    self.line.clear();
                    self.state = State::Start;
                }
                State::MultibulkLength => {
                    let limit = ProtocolError::MultibulkLineTooLong;
                    let (taken, line) = take_line(&mut self.line, rest, LineEnd::Return, limit)?;
                    used += taken;
                    let Some(line) = line else { continue };
                    if self.strict && rest[taken - 1] != b'\n' {
                        return Err(ProtocolError::LineEnd);
                    }
                    let least = if self.strict { 1 } else { i64::MIN };
                    let length = integer::parse_i64(&line[1..])
                        .filter(|length| (least..=ARGS_LIMIT).contains(length))
                        .ok_or(ProtocolError::MultibulkLength)?;
                    if self.unauthenticated && length > UNAUTHENTICATED_ARGS_LIMIT {
                        return Err(ProtocolError::UnauthenticatedMultibulkLength);
                    }
                    self.line.clear();
                    self.state = match usize::try_from(length) {
                        Ok(args_left @ 1..) => State::BulkLength { args_left },
                        _ => State::Start, // `*0` and `*-1` are no commands and get no reply
                    };
                    continue;
                }
                State::BulkLength { args_left } => {
                    if self.line.is_empty() && rest[0] != b'$' {
                        return Err(ProtocolError::ExpectedBulk(rest[0]));
                    }
                    let limit = ProtocolError::BulkLineTooLong;
                    let (taken, line) = take_line(&mut self.line, rest, LineEnd::Return, limit)?;
                    used += taken;
                    let Some(line) = line else { continue };
                    if self.strict && rest[taken - 1] != b'\n' {
                        return Err(ProtocolError::LineEnd);
                    }
                    let length = integer::parse_i64(&line[1..])
                        .filter(|length| (0..=self.bulk_limit).contains(length))
                        .ok_or(ProtocolError::BulkLength)?;
                    if self.unauthenticated && length > UNAUTHENTICATED_BULK_LIMIT {
                        return Err(ProtocolError::UnauthenticatedBulkLength);
                    }
                    self.line.clear();
                    self.state = State::Bulk { args_left, bytes_left: length as usize + 2 };
                }
            }
            if matches!(self.state, State::Start) && !self.ends.is_empty() {
                return Ok(Progress { used, complete: true });
            }
        }
        Ok(Progress { used, complete: false })
    }

    /// Takes a command as [`whole_command`] finds it; returns how many bytes that was. Anything else is left
    /// to the states, which are slower by half and miss nothing.
    fn take_whole(&mut self, input: &[u8]) -> Option<usize> {
        if self.is_partial() || self.unauthenticated {
            return None;
        }
        let taken = whole_command(input, |arg| {
            self.bytes.extend_from_slice(arg);
            self.ends.push(self.bytes.len());
        });
        if taken.is_none() {
            self.bytes.clear();
            self.ends.clear();
        }
        taken
    }

    /// Takes what has arrived of an argument; returns how many bytes that was.
    fn take_bulk(
        &mut self,
        input: &[u8],
        args_left: usize,
        bytes_left: usize,
    ) -> Result<usize, ProtocolError> {
        let taken = bytes_left.min(input.len());
        // The last two of `bytes_left` are the line end.
        let (value, line_end) = input[..taken].split_at(taken.min(bytes_left.saturating_sub(2)));
        self.bytes.extend_from_slice(value);
        let expected = &b"\r\n"[2 - bytes_left.min(2)..];
        if self.strict && !expected.starts_with(line_end) {
            return Err(ProtocolError::LineEnd);
        }
        self.state = State::Bulk { args_left, bytes_left: bytes_left - taken };
        if bytes_left == taken {
            self.ends.push(self.bytes.len());
            self.state = match args_left {
                1 => State::Start,
                _ => State::BulkLength { args_left: args_left - 1 },
            };
        }
        Ok(taken)
    }
}

#[derive(Clone, Copy, PartialEq)]
enum LineEnd {
    /// `\n`, and a `\r` before it is no part of the line: inline commands.
    Newline,
    /// `\r` and whatever byte follows it: the lengths. (Redis does not look at that byte either.)
    Return,
}

/// The first arguments of the commands that have arrived whole, which are most likely their keys; empty where
/// there is none. It ends with the first command that is not spelled as every client spells it.
pub fn keys_ahead(mut input: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (mut key, mut number): (&[u8], _) = (b"", 0);
        let used = whole_command(input, |arg| {
            if number == 1 {
                key = arg;
            }
            number += 1;
        })?;
        input = &input[used..];
        Some(key)
    })
}

/// Goes through the arguments of a command that has arrived whole and is spelled as every client spells it,
/// none of them longer than `short_length` says, and so shorter than any limit; returns how many bytes the
/// command has. If there is no such command, some arguments may have been gone through nevertheless.
#[inline(always)]
fn whole_command<'a>(input: &'a [u8], mut take: impl FnMut(&'a [u8])) -> Option<usize> {
    let (args, mut at) = short_length(input, 0, b'*')?;
    for _ in 0..args {
        let (length, start) = short_length(input, at, b'$')?;
        let end = start + length;
        let arg = input.get(start..end)?;
        if input.get(end..end + 2)? != b"\r\n" {
            return None;
        }
        take(arg);
        at = end + 2;
    }
    (args > 0).then_some(at)
}

/// The length that stands at that place, behind its sigil, and the place behind its line, if it has few
/// digits.
fn short_length(input: &[u8], at: usize, sigil: u8) -> Option<(usize, usize)> {
    let digit = |byte: u8| byte.is_ascii_digit().then(|| usize::from(byte - b'0'));
    let (length, digits) = match *input.get(at..)? {
        [first, a, b'\r', b'\n', ..] if first == sigil => (digit(a)?, 1),
        [first, a, b, b'\r', b'\n', ..] if first == sigil && a != b'0' => {
            (digit(a)? * 10 + digit(b)?, 2)
        }
        [first, a, b, c, b'\r', b'\n', ..] if first == sigil && a != b'0' => {
            (digit(a)? * 100 + digit(b)? * 10 + digit(c)?, 3)
        }
        _ => return None,
    };
    Some((length, at + digits + 3))
}

/// Takes a line from `input`, whose beginning may be in `kept` from before. Returns how many bytes
/// of the input were used, and the line without its end; if that has not arrived, none, and the
/// beginning is kept.
fn take_line<'a>(
    kept: &'a mut Vec<u8>,
    input: &'a [u8],
    end: LineEnd,
    too_long: ProtocolError,
) -> Result<(usize, Option<&'a [u8]>), ProtocolError> {
    let (line_end, end_bytes) = match end {
        LineEnd::Newline => (input.iter().position(|&byte| byte == b'\n'), 1),
        // A `\r` that came last time waits for the one byte behind it.
        LineEnd::Return if kept.last() == Some(&b'\r') => (Some(0), 1),
        LineEnd::Return => match input.iter().position(|&byte| byte == b'\r') {
            Some(at) if at + 1 < input.len() => (Some(at), 2),
            _ => (None, 0),
        },
    };
    let taken = line_end.unwrap_or(input.len());
    if kept.len() + taken > LINE_LIMIT {
        return Err(too_long);
    }
    kept.extend_from_slice(&input[..taken]);
    if line_end.is_none() {
        return Ok((taken, None));
    }
    Ok((taken + end_bytes, Some(kept.strip_suffix(b"\r").unwrap_or(kept))))
}

/// Appends a command in the form in which clients send it and the log keeps it.
pub fn encode(out: &mut Vec<u8>, args: &[&[u8]]) {
    encode_iter(out, args.iter().copied());
}

/// As [`encode`], for the arguments of a request.
pub fn encode_args(out: &mut Vec<u8>, args: Args) {
    encode_iter(out, args.from(0));
}

fn encode_iter<'a>(out: &mut Vec<u8>, args: impl ExactSizeIterator<Item = &'a [u8]>) {
    header(out, b'*', args.len());
    for arg in args {
        header(out, b'$', arg.len());
        out.extend_from_slice(arg);
        out.extend_from_slice(b"\r\n");
    }
}

/// `*3\r\n` and its like: a type byte, a length, a line end.
pub(super) fn header(out: &mut Vec<u8>, kind: u8, length: usize) {
    out.push(kind);
    integer::write_u64(out, length as u64);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: i64 = 512 << 20;

    /// All commands in the bytes, which arrive in pieces of that size; then the error, if any.
    fn parse(bytes: &[u8], piece: usize) -> (Vec<Vec<String>>, Option<ProtocolError>) {
        let mut request = Request::new(LIMIT);
        let mut commands = Vec::new();
        for mut input in bytes.chunks(piece) {
            while !input.is_empty() {
                match request.feed(input) {
                    Err(error) => return (commands, Some(error)),
                    Ok(progress) => {
                        input = &input[progress.used..];
                        if progress.complete {
                            let args = request.args().from(0);
                            commands.push(args.map(|arg| arg.escape_ascii().to_string()).collect());
                            request.clear();
                        }
                    }
                }
            }
        }
        (commands, None)
    }

    #[test]
    fn a_pipeline_is_the_same_commands_however_it_is_cut() {
        let bytes = b"*2\r\n$3\r\nGET\r\n$0\r\n\r\nPING \"a b\"\r\n*0\r\n\r\n*-1\r\n\
            *1\r\n$4\r\n\r\n\r\n\r\nQUIT\n";
        let expected: Vec<Vec<String>> =
            [&["GET", ""][..], &["PING", "a b"], &[r"\r\n\r\n"], &["QUIT"]]
                .map(|words| words.iter().map(ToString::to_string).collect())
                .to_vec();
        for piece in 1..=bytes.len() {
            assert_eq!(parse(bytes, piece), (expected.clone(), None), "pieces of {piece}");
        }
    }

    #[test]
    fn keys_are_seen_ahead_as_far_as_commands_are_whole() {
        let gets = b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n*1\r\n$4\r\nPING\r\n\
            *3\r\n$3\r\nSET\r\n$0\r\n\r\n$1\r\nv\r\n*2\r\n$3\r\nGET\r\n$2\r\nbc\r\n";
        let keys = |input| -> Vec<&[u8]> { keys_ahead(input).collect() };
        assert_eq!(keys(gets), [&b"a"[..], b"", b"", b"bc"]);
        assert_eq!(keys(&gets[..gets.len() - 1]), [&b"a"[..], b"", b""]);
        assert!(keys(b"GET a\r\n").is_empty() && keys(b"").is_empty());
        assert!(keys(b"*1\r\n$1\r\nx\r*").is_empty());
    }

    #[test]
    fn queued_commands_keep_their_arguments() {
        let commands: [&[u8]; 3] =
            [b"*2\r\n$3\r\nGET\r\n$0\r\n\r\n", b"PING\r\n", b"*2\r\n$1\r\na\r\n$2\r\nbc\r\n"];
        let mut queue = Queue::default();
        let mut request = Request::new(LIMIT);
        for command in commands {
            assert!(request.feed(command).is_ok_and(|progress| progress.complete));
            queue.push(request.args());
            request.clear();
        }
        let words = |args: Args| args.from(0).map(|arg| arg.escape_ascii().to_string()).collect();
        let queued: Vec<Vec<String>> = queue.iter().map(words).collect();
        assert_eq!(queued, [vec!["GET", ""], vec!["PING"], vec!["a", "bc"]]);
        let last = queue.iter().last().map(|args| (args.len(), args[1].to_vec()));
        assert_eq!(last, Some((2, b"bc".to_vec())));
        assert_eq!((queue.len(), queue.memory_bytes()), (3, 10 + 8 * 8));
    }

    #[test]
    fn every_malformed_request_has_its_error() {
        use ProtocolError::*;
        let long = |start: &str| format!("{start}{}", "1".repeat(LINE_LIMIT + 1)).into_bytes();
        let cases: [(Vec<u8>, ProtocolError); 14] = [
            (b"*x\r\n".into(), MultibulkLength),
            (b"*2147483648\r\n".into(), MultibulkLength),
            (b"*\r\n".into(), MultibulkLength),
            (b"*+1\r\n".into(), MultibulkLength),
            (b"*1\r\nx".into(), ExpectedBulk(b'x')),
            (b"*1\r\n\r\n".into(), ExpectedBulk(b'\r')),
            (b"*1\r\n$x\r\n".into(), BulkLength),
            (b"*1\r\n$-1\r\n".into(), BulkLength),
            (b"*1\r\n$536870913\r\n".into(), BulkLength),
            (b"GET \"a\r\n".into(), UnbalancedQuotes),
            (long("*"), MultibulkLineTooLong),
            (long("*1\r\n$"), BulkLineTooLong),
            (long("GET "), InlineTooLong),
            (long("GET \r"), InlineTooLong),
        ];
        for (bytes, error) in cases {
            for piece in [1, 7, bytes.len()] {
                assert_eq!(parse(&bytes, piece), (vec![], Some(error)));
            }
        }
    }

    #[test]
    fn a_client_without_the_password_may_send_little() {
        let mut request = Request::new(LIMIT);
        request.unauthenticated = true;
        let error = request.feed(b"*11\r\n");
        assert_eq!(error, Err(ProtocolError::UnauthenticatedMultibulkLength));
        let mut request = Request::new(LIMIT);
        request.unauthenticated = true;
        let error = request.feed(b"*1\r\n$16385\r\n");
        assert_eq!(error, Err(ProtocolError::UnauthenticatedBulkLength));
    }

    #[test]
    fn an_announced_length_reserves_nothing() {
        let mut request = Request::new(LIMIT);
        let progress = request.feed(b"*1000000\r\n$536870912\r\nabc");
        assert_eq!(progress, Ok(Progress { used: 25, complete: false }));
        assert!(request.bytes.capacity() < 1024 && request.ends.capacity() < 1024);
    }

    #[test]
    fn what_is_encoded_is_parsed_to_the_same() {
        let mut bytes = Vec::new();
        encode(&mut bytes, &[b"SET", b"", b"a\r\nb"]);
        assert_eq!(bytes, b"*3\r\n$3\r\nSET\r\n$0\r\n\r\n$4\r\na\r\nb\r\n");
        assert_eq!(parse(&bytes, 3).0, [["SET", "", r"a\r\nb"]]);
    }
}
