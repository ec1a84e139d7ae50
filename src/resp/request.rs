//! Parses the arguments of one command.
//!
//! [`Request`] is an incremental parser: [`Request::feed`] takes the bytes that have arrived, returns how
//! many it used and whether a command is complete, and continues there at the next call. It does no I/O and
//! never blocks, so the caller decides what to do when it runs out of bytes: a connection sends its replies,
//! the replay of the log has found a torn tail.
//!
//! Commands that have arrived whole, which is nearly all of them, take a shorter path ([`whole_command`]). A
//! differential test checks that both give the same results, wherever the input is cut.
//!
//! Invariants: all arguments are in one buffer, which is reused for the next command, so parsing does
//! not allocate. Memory grows with the bytes that have arrived, never with an announced length. If the system
//! refuses it, the rest of the command is read all the same, and thrown away: the connection goes on.
//!
//! The limits and error texts are those of Redis
//! (<https://redis.io/docs/latest/develop/reference/protocol-spec/>).

use std::collections::TryReserveError;
use std::fmt;
use std::ops::Index;

use crate::memory;
use crate::text::{integer, split_quoted};

/// The maximum length in bytes of an inline command and of a line with a length.
const LINE_LIMIT: usize = 64 << 10;
/// The maximum number of arguments of a command.
const ARGS_LIMIT: i64 = i32::MAX as i64;
// Limits for clients that have not authenticated.
const UNAUTHENTICATED_ARGS_LIMIT: i64 = 10;
const UNAUTHENTICATED_BULK_LIMIT: i64 = 16 << 10;
/// After a large command, its buffers shrink to this many bytes.
const KEPT_BYTES: usize = 256 << 10;

/// The arguments of one command, its name first.
#[derive(Clone, Copy)]
pub struct Args<'a> {
    bytes: &'a [u8],
    ends: &'a [usize],
    first: usize,
}

impl<'a> Args<'a> {
    /// The number of arguments, including the name.
    pub fn len(self) -> usize {
        self.ends.len() - self.first
    }

    /// Whether there are no arguments. A complete request has at least one.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The argument with that number; 0 is the name.
    pub fn get(self, number: usize) -> Option<&'a [u8]> {
        let end = *self.ends.get(self.first + number)?;
        Some(&self.bytes[self.start(number)..end])
    }

    /// The arguments starting with that number.
    pub fn from(self, number: usize) -> impl ExactSizeIterator<Item = &'a [u8]> + Clone {
        (number.min(self.len())..self.len())
            .map(move |number| &self.bytes[self.start(number)..self.ends[self.first + number]])
    }

    /// The arguments after the first `count`, as a command of their own (`COMMAND GETKEYS`).
    pub fn skip(self, count: usize) -> Args<'a> {
        Args { first: self.first + count, ..self }
    }

    /// The bytes of all arguments.
    #[inline(always)]
    pub fn payload_bytes(self) -> usize {
        self.ends.last().map_or(0, |end| end - self.start(0))
    }

    /// The memory that a copy takes.
    #[inline(always)]
    pub fn memory_bytes(self) -> usize {
        self.payload_bytes() + size_of_val(&self.ends[self.first..])
    }

    /// The length of the request if each argument has its length in front, as long as that is at least
    /// `least`. Almost every request is so short that nothing needs to be counted.
    pub fn encoded_bytes_from(self, least: usize) -> Option<usize> {
        let header = |length: usize| "$\r\n".len() + length.max(1).ilog10() as usize + 1;
        if self.payload_bytes() + (self.len() + 1) * (header(usize::MAX) + "\r\n".len()) < least {
            return None;
        }
        let args = self.from(0).map(|arg| header(arg.len()) + arg.len() + "\r\n".len());
        let bytes = header(self.len()) + args.sum::<usize>();
        (bytes >= least).then_some(bytes)
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
    /// If there is no such argument. A handler may index only arguments that its arity guarantees.
    fn index(&self, number: usize) -> &[u8] {
        &self.bytes[self.start(number)..self.ends[self.first + number]]
    }
}

/// A queue of commands, such as those after `MULTI`, in a single buffer.
#[derive(Default)]
pub struct Queue {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    /// For each command, the index in `ends` after its last argument.
    commands: Vec<usize>,
}

impl Queue {
    /// Adds a copy of a command.
    ///
    /// # Errors
    /// The system refuses the memory for it.
    pub fn push(&mut self, args: Args) -> Result<(), TryReserveError> {
        memory::reserve(&mut self.bytes, args.payload_bytes())?;
        self.ends.try_reserve(args.len())?;
        self.commands.try_reserve(1)?;
        for arg in args.from(0) {
            self.bytes.extend_from_slice(arg);
            self.ends.push(self.bytes.len());
        }
        self.commands.push(self.ends.len());
        Ok(())
    }

    /// The commands, in the order in which they were added.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Args<'_>> {
        (0..self.commands.len()).map(|number| {
            let first = if number == 0 { 0 } else { self.commands[number - 1] };
            Args { bytes: &self.bytes, ends: &self.ends[..self.commands[number]], first }
        })
    }

    pub fn len(&self) -> usize {
        self.commands.len()
    }

    pub fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }

    /// The memory that the commands use.
    pub fn memory_bytes(&self) -> usize {
        self.bytes.len() + (self.ends.len() + self.commands.len()) * size_of::<usize>()
    }
}

/// The input is not RESP. The client gets the error, and its connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolError {
    /// The length of an array is not a number or out of range.
    MultibulkLength,
    /// The length of a bulk string is not a number or out of range.
    BulkLength,
    /// Found this byte instead of a `$`.
    ExpectedBulk(u8),
    /// The line with the length of an array exceeds the limit.
    MultibulkLineTooLong,
    /// The line with the length of a bulk string exceeds the limit.
    BulkLineTooLong,
    /// A line end is missing. Like Redis, we do not check line ends in what clients send; in a log, a missing
    /// one is a sign of damage (see [`Request::strict`]).
    LineEnd,
    /// An inline command exceeds the limit.
    InlineTooLong,
    /// An inline command has an unclosed quote.
    UnbalancedQuotes,
    /// A client that has not authenticated sends too many arguments.
    UnauthenticatedMultibulkLength,
    /// A client that has not authenticated sends too long an argument.
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

/// What [`Request::feed`] did with its input.
#[derive(Debug, PartialEq, Eq)]
pub struct Progress {
    /// How many bytes were consumed. The next call gets the bytes after them.
    pub used: usize,
    /// Whether the command is complete. If not, all bytes were used and more are needed.
    pub complete: bool,
}

/// The part of a command that the parser expects next.
#[derive(Clone, Copy)]
enum State {
    /// The first byte of a command.
    Start,
    // The rest of a line, whose beginning is in `Request::line`.
    Inline,
    ArrayLength,
    BulkLength {
        args_left: usize,
    },
    /// The last `bytes_left` bytes of an argument, including its line end.
    Bulk {
        args_left: usize,
        bytes_left: usize,
    },
}

/// A command that is complete or has arrived in part.
pub struct Request {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    line: Vec<u8>,
    state: State,
    /// The system has refused memory for the command: nothing of it is kept.
    refused: Option<TryReserveError>,
    /// The maximum length of an argument in bytes (`proto-max-bulk-len`), at least 999.
    pub bulk_limit: i64,
    /// Whether the line ends of arrays and bulk strings are checked.
    pub strict: bool,
    /// Whether the limits for clients that have not authenticated apply.
    pub unauthenticated: bool,
}

impl Request {
    /// An empty request; neither strict nor with the limits for unauthenticated clients.
    pub fn new(bulk_limit: i64) -> Request {
        Request {
            bytes: Vec::new(),
            ends: Vec::new(),
            line: Vec::new(),
            state: State::Start,
            refused: None,
            bulk_limit,
            strict: false,
            unauthenticated: false,
        }
    }

    /// The arguments of the command, once [`Request::feed`] has reported it complete.
    ///
    /// # Errors
    /// The system has refused memory for them.
    #[inline(always)]
    pub fn args(&self) -> Result<Args<'_>, TryReserveError> {
        match &self.refused {
            None => Ok(Args { bytes: &self.bytes, ends: &self.ends, first: 0 }),
            Some(error) => Err(error.clone()),
        }
    }

    /// Whether a part of a command has arrived.
    pub fn is_partial(&self) -> bool {
        !matches!(self.state, State::Start)
    }

    /// The bytes of the arguments that have arrived.
    pub fn used_bytes(&self) -> usize {
        self.bytes.len() + self.line.len()
    }

    /// The memory that its buffers take.
    pub fn memory_bytes(&self) -> usize {
        let ends = self.ends.capacity() * size_of::<usize>();
        self.bytes.capacity() + ends + self.line.capacity()
    }

    /// Removes the command, to make room for the next one.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
        self.refused = None;
        self.bytes.shrink_to(KEPT_BYTES);
        self.ends.shrink_to(KEPT_BYTES / size_of::<usize>());
    }

    /// Gives the buffers back, unless a part of a command is in them.
    pub fn release(&mut self) {
        if !self.is_partial() {
            (self.bytes, self.ends, self.line) = Default::default();
        }
    }

    /// Takes bytes until a command is complete or the bytes are used up.
    ///
    /// # Errors
    /// The input is not RESP. The parser cannot go on after an error.
    pub fn feed(&mut self, input: &[u8]) -> Result<Progress, ProtocolError> {
        if let Some(used) = self.take_whole(input) {
            return Ok(Progress { used, complete: true });
        }
        let mut used = 0;
        while used < input.len() {
            let rest = &input[used..];
            used += match self.state {
                State::Start if rest[0] == b'*' => self.take_array_length(rest)?,
                State::ArrayLength => self.take_array_length(rest)?,
                State::Start | State::Inline => self.take_inline(rest)?,
                State::BulkLength { args_left } => self.take_bulk_length(rest, args_left)?,
                State::Bulk { args_left, bytes_left } => {
                    self.take_bulk(rest, args_left, bytes_left)?
                }
            };
            if !self.is_partial() && (!self.ends.is_empty() || self.refused.is_some()) {
                return Ok(Progress { used, complete: true });
            }
        }
        Ok(Progress { used, complete: false })
    }

    /// Takes a command that [`whole_command`] can read, and returns its bytes. Leaves everything else to the
    /// states, which take half as long again.
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

    // Each of these takes what has arrived of one part, moves to the next state when the part is
    // complete, and returns the number of bytes that it took.

    fn take_inline(&mut self, input: &[u8]) -> Result<usize, ProtocolError> {
        self.state = State::Inline;
        let end = input.iter().position(|&byte| byte == b'\n');
        let taken = end.unwrap_or(input.len());
        self.keep_line(&input[..taken], ProtocolError::InlineTooLong)?;
        if end.is_none() {
            return Ok(taken);
        }
        let line = self.line.strip_suffix(b"\r").unwrap_or(&self.line);
        for word in split_quoted(line).ok_or(ProtocolError::UnbalancedQuotes)? {
            self.bytes.extend_from_slice(&word);
            self.ends.push(self.bytes.len());
        }
        self.line.clear();
        self.state = State::Start;
        Ok(taken + 1)
    }

    fn take_array_length(&mut self, input: &[u8]) -> Result<usize, ProtocolError> {
        self.state = State::ArrayLength;
        let (taken, length) = self.take_length(input, ProtocolError::MultibulkLineTooLong)?;
        let Some(length) = length else { return Ok(taken) };
        let least = if self.strict { 1 } else { i64::MIN };
        let length = length
            .filter(|length| (least..=ARGS_LIMIT).contains(length))
            .ok_or(ProtocolError::MultibulkLength)?;
        if self.unauthenticated && length > UNAUTHENTICATED_ARGS_LIMIT {
            return Err(ProtocolError::UnauthenticatedMultibulkLength);
        }
        self.state = match usize::try_from(length) {
            Ok(args_left @ 1..) => State::BulkLength { args_left },
            _ => State::Start, // `*0` and `*-1` are no commands and get no reply
        };
        Ok(taken)
    }

    fn take_bulk_length(&mut self, input: &[u8], args_left: usize) -> Result<usize, ProtocolError> {
        if self.line.is_empty() && input[0] != b'$' {
            return Err(ProtocolError::ExpectedBulk(input[0]));
        }
        let (taken, length) = self.take_length(input, ProtocolError::BulkLineTooLong)?;
        let Some(length) = length else { return Ok(taken) };
        let length = length
            .filter(|length| (0..=self.bulk_limit).contains(length))
            .ok_or(ProtocolError::BulkLength)?;
        if self.unauthenticated && length > UNAUTHENTICATED_BULK_LIMIT {
            return Err(ProtocolError::UnauthenticatedBulkLength);
        }
        self.state = State::Bulk { args_left, bytes_left: length as usize + 2 };
        Ok(taken)
    }

    fn take_bulk(
        &mut self,
        input: &[u8],
        args_left: usize,
        bytes_left: usize,
    ) -> Result<usize, ProtocolError> {
        let taken = bytes_left.min(input.len());
        // The last two bytes of `bytes_left` are the line end.
        let (value, line_end) = input[..taken].split_at(taken.min(bytes_left.saturating_sub(2)));
        self.keep(value, bytes_left);
        let expected = &b"\r\n"[2 - bytes_left.min(2)..];
        if self.strict && !expected.starts_with(line_end) {
            return Err(ProtocolError::LineEnd);
        }
        self.state = State::Bulk { args_left, bytes_left: bytes_left - taken };
        if bytes_left == taken {
            self.end_arg();
            self.state = match args_left {
                1 => State::Start,
                _ => State::BulkLength { args_left: args_left - 1 },
            };
        }
        Ok(taken)
    }

    /// Keeps a part of an argument. `missing` is the most that is still to come of it, this part included.
    fn keep(&mut self, part: &[u8], missing: usize) {
        if self.refused.is_some() {
            return;
        }
        let granted = self.bytes.try_reserve(part.len());
        match granted.or_else(|_| self.bytes.try_reserve_exact(missing)) {
            Ok(()) => self.bytes.extend_from_slice(part),
            Err(error) => self.refuse(error),
        }
    }

    fn end_arg(&mut self) {
        if self.refused.is_some() {
            return;
        }
        match self.ends.try_reserve(1) {
            Ok(()) => self.ends.push(self.bytes.len()),
            Err(error) => self.refuse(error),
        }
    }

    #[cold]
    fn refuse(&mut self, error: TryReserveError) {
        self.refused = Some(error);
        (self.bytes, self.ends) = Default::default();
    }

    /// Takes a line that announces a length, such as `$5`. Returns the number of bytes taken and, once the
    /// line is complete, its number, if it is one.
    fn take_length(
        &mut self,
        input: &[u8],
        too_long: ProtocolError,
    ) -> Result<(usize, Option<Option<i64>>), ProtocolError> {
        // The line ends with `\r` and one more byte, at which only `strict` looks, as in Redis.
        let end = if self.line.ends_with(b"\r") {
            0
        } else {
            let end = input.iter().position(|&byte| byte == b'\r').unwrap_or(input.len());
            self.keep_line(&input[..end], too_long)?;
            if end == input.len() {
                return Ok((end, None));
            }
            self.line.push(b'\r');
            end + 1
        };
        let Some(last) = input.get(end) else { return Ok((end, None)) };
        if self.strict && *last != b'\n' {
            return Err(ProtocolError::LineEnd);
        }
        let length = integer::parse_i64(&self.line[1..self.line.len() - 1]);
        self.line.clear();
        Ok((end + 1, Some(length)))
    }

    fn keep_line(&mut self, bytes: &[u8], too_long: ProtocolError) -> Result<(), ProtocolError> {
        if self.line.len() + bytes.len() > LINE_LIMIT {
            return Err(too_long);
        }
        self.line.extend_from_slice(bytes);
        Ok(())
    }
}

/// The first two arguments, most likely a key and perhaps a field, of the commands that `input` holds whole;
/// empty where there is none. Stops at the first command that [`whole_command`] cannot read.
pub fn keys_ahead(mut input: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    std::iter::from_fn(move || {
        let (mut key, mut field, mut number): (&[u8], &[u8], _) = (b"", b"", 0);
        let used = whole_command(input, |arg| {
            match number {
                1 => key = arg,
                2 => field = arg,
                _ => {}
            }
            number += 1;
        })?;
        input = &input[used..];
        Some((key, field))
    })
}

/// Reads a command of the usual form: an array, complete, with no length of more than three digits, so that
/// no argument can exceed a limit. Passes its arguments to `take` and returns its bytes. For anything else
/// it returns `None`, and may have passed some arguments before.
#[inline(always)]
fn whole_command<'a>(input: &'a [u8], mut take: impl FnMut(&'a [u8])) -> Option<usize> {
    let (args, mut at) = short_length(input, 0, b'*')?;
    for _ in 0..args {
        let (length, start) = short_length(input, at, b'$')?;
        let (arg, line_end) = input.get(start..start + length + 2)?.split_at(length);
        if line_end != b"\r\n" {
            return None;
        }
        take(arg);
        at = start + length + 2;
    }
    (args > 0).then_some(at)
}

/// The length of at most three digits in the line at `at`, such as `$12\r\n`, and the place after the line.
/// At least two bytes come behind the line.
#[inline(always)]
fn short_length(input: &[u8], at: usize, sigil: u8) -> Option<(usize, usize)> {
    let digit = |byte: u8| (byte.is_ascii_digit()).then(|| usize::from(byte - b'0'));
    let &[first, a, b, c, d, e] = input.get(at..)?.first_chunk()?;
    if first != sigil {
        return None;
    }
    let length = digit(a)?;
    if [b, c] == *b"\r\n" {
        return Some((length, at + 4));
    }
    if length == 0 {
        return None; // a zero in front
    }
    let length = length * 10 + digit(b)?;
    if [c, d] == *b"\r\n" {
        return Some((length, at + 5));
    }
    let length = length * 10 + digit(c)?;
    ([d, e] == *b"\r\n").then_some((length, at + 6))
}

/// Appends a command as an array of bulk strings, the form that clients send and the log stores.
pub fn encode(out: &mut Vec<u8>, args: &[&[u8]]) {
    let bytes = args.iter().map(|arg| arg.len()).sum();
    encode_iter(out, args.iter().copied(), bytes);
}

/// Like [`encode`], for the arguments of a request.
pub fn encode_args(out: &mut Vec<u8>, args: Args) {
    encode_iter(out, args.from(0), args.payload_bytes());
}

fn encode_iter<'a>(
    out: &mut Vec<u8>,
    args: impl ExactSizeIterator<Item = &'a [u8]>,
    payload_bytes: usize,
) {
    // All at once: one byte too little would double the memory of a large record.
    out.reserve(payload_bytes + HEADER_BYTES * (args.len() + 1));
    header(out, b'*', args.len());
    for arg in args {
        header(out, b'$', arg.len());
        out.extend_from_slice(arg);
        out.extend_from_slice(b"\r\n");
    }
}

/// The most that stands around an argument: a type byte, a length and two line ends.
const HEADER_BYTES: usize = 25;

/// Appends a type byte, a length and a line end, such as `*3\r\n`.
pub(super) fn header(out: &mut Vec<u8>, kind: u8, length: usize) {
    out.push(kind);
    integer::write_u64(out, length as u64);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    const LIMIT: i64 = 512 << 20;

    /// The commands in `bytes` if they arrive in pieces of that size, and the error, if any.
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
                            let args = request.args().expect("memory").from(0);
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
    fn a_pipeline_has_the_same_commands_for_pieces_of_any_size() {
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

    /// Random requests, well-formed and malformed.
    struct Random(Rng);

    impl Random {
        fn below(&mut self, end: usize) -> usize {
            self.0.below(end)
        }

        fn pick<T: Copy>(&mut self, list: &[T]) -> T {
            list[self.below(list.len())]
        }

        fn arg(&mut self) -> Vec<u8> {
            let length = match self.below(8) {
                0 => 0,
                1 => self.pick(&[9, 10, 99, 100, 999, 1000, 1001, 16_384, 16_385]),
                _ => self.below(12),
            };
            (0..length).map(|_| self.pick(b"*$\r\n 019-ab\"\\\0\xff")).collect()
        }

        /// A command in one of the forms that clients send, or an empty one.
        fn command(&mut self, out: &mut Vec<u8>) {
            let empty: [&[u8]; 6] = [b"*0\r\n", b"*-1\r\n", b"\r\n", b"\n", b"  \r\n", b"*-9\r\n"];
            let inline: [&[u8]; 5] =
                [b"PING\r\n", b"GET a\n", b" a \"\" \r\n", b"a\rb\r\n", b"\"\\x00\"\n"];
            match self.below(6) {
                0 => out.extend_from_slice(self.pick(&empty)),
                1 => out.extend_from_slice(self.pick(&inline)),
                _ => {
                    let most = self.pick(&[1, 3, 3, 3, 11, 120]);
                    let count = 1 + self.below(most);
                    self.length(out, b'*', count);
                    for _ in 0..count {
                        let arg = self.arg();
                        self.length(out, b'$', arg.len());
                        out.extend_from_slice(&arg);
                        self.line_end(out);
                    }
                }
            }
        }

        /// A line with a length, in one of several wrong spellings now and then.
        fn length(&mut self, out: &mut Vec<u8>, sigil: u8, length: usize) {
            out.push(sigil);
            let spelling = match self.below(200) {
                0 => format!("0{length}"),
                1 => format!("+{length}"),
                2 => format!("-{length}"),
                3 => format!("{length} "),
                4 => String::new(),
                5 => format!("{length}0000000"),
                _ => length.to_string(),
            };
            out.extend_from_slice(spelling.as_bytes());
            self.line_end(out);
        }

        fn line_end(&mut self, out: &mut Vec<u8>) {
            out.extend_from_slice(match self.below(200) {
                0 => b"\n",
                1 => b"\rx",
                2 => b"\r\r",
                _ => b"\r\n",
            });
        }

        /// A pipeline, often with an error in it, and sometimes with lines as long as the limit.
        fn input(&mut self) -> Vec<u8> {
            let mut input = Vec::new();
            (0..1 + self.below(6)).for_each(|_| self.command(&mut input));
            if self.below(8) == 0 {
                let start: &[u8] = self.pick(&[b"*", b"*1\r\n$", b"", b"+"]);
                input.extend_from_slice(start);
                let length = LINE_LIMIT - 3 + self.below(5);
                input.resize(input.len() + length, b'1');
                input.extend_from_slice(self.pick(&[&b"\r\n"[..], b"\n", b"\r", b""]));
                self.command(&mut input);
            }
            for _ in 0..self.below(3) {
                let at = self.below(input.len());
                match self.below(4) {
                    0 => input[at] = self.pick(b"*$\r\n\"'0123456789- x"),
                    1 => input.insert(at, self.pick(b"*$\r\n\"'0123456789-+ x")),
                    2 => _ = input.remove(at),
                    _ => input.truncate(at + 1),
                }
                if input.is_empty() {
                    input.push(b'*');
                }
            }
            input
        }
    }

    /// What became of an input: each command with the bytes up to its end, the error, and whether a command
    /// was left incomplete.
    #[derive(Debug, Default, PartialEq)]
    struct Outcome {
        commands: Vec<(usize, Vec<Vec<u8>>)>,
        error: Option<String>,
        is_partial: bool,
    }

    /// Feeds the input in pieces of the lengths that `piece` gives.
    fn outcome(mut request: Request, input: &[u8], mut piece: impl FnMut() -> usize) -> Outcome {
        let mut outcome = Outcome::default();
        let (mut at, mut arrived) = (0, 0);
        while at < input.len() {
            if at == arrived {
                arrived = input.len().min(arrived.saturating_add(piece()));
            }
            match request.feed(&input[at..arrived]) {
                Err(error) => {
                    outcome.error = Some(error.to_string());
                    return outcome;
                }
                Ok(Progress { used, complete }) => {
                    at += used;
                    assert!(complete || at == arrived, "bytes were left over");
                    if complete {
                        assert!(!request.is_partial(), "a complete command leaves nothing to do");
                        let args =
                            request.args().expect("memory").from(0).map(<[u8]>::to_vec).collect();
                        outcome.commands.push((at, args));
                        request.clear();
                    }
                }
            }
        }
        outcome.is_partial = request.is_partial();
        outcome
    }

    #[test]
    fn commands_and_errors_do_not_depend_on_where_the_input_is_cut() {
        let mut random = Random(Rng::of_run());
        for _ in 0..1500 {
            let input = random.input();
            let bulk_limit = random.pick(&[LIMIT, LIMIT, 16_384, 1000]);
            let (strict, unauthenticated) = (random.below(3) == 0, random.below(3) == 0);
            let request = || Request { strict, unauthenticated, ..Request::new(bulk_limit) };
            // Bytes that arrive one at a time never take the quick path.
            let expected = outcome(request(), &input, || 1);
            let shown = || input.escape_ascii();
            assert_eq!(outcome(request(), &input, || usize::MAX), expected, "{}", shown());
            for longest in [3, 40, 2000] {
                let cut = outcome(request(), &input, || 1 + random.below(longest));
                assert_eq!(cut, expected, "pieces of up to {longest}, {}", shown());
            }
            if unauthenticated {
                continue;
            }
            let owned = |(key, field): (&[u8], &[u8])| [key.to_vec(), field.to_vec()];
            let keys: Vec<[Vec<u8>; 2]> = keys_ahead(&input).map(owned).collect();
            let commands = expected.commands.iter();
            let first: Vec<[Vec<u8>; 2]> = commands
                .map(|(_, args)| [1, 2].map(|at| args.get(at).cloned().unwrap_or_default()))
                .take(keys.len())
                .collect();
            assert_eq!(keys, first, "{}", shown());
        }
    }

    #[test]
    fn keys_ahead_are_those_of_whole_commands() {
        let gets = b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n*1\r\n$4\r\nPING\r\n\
            *3\r\n$3\r\nSET\r\n$0\r\n\r\n$1\r\nv\r\n*2\r\n$3\r\nGET\r\n$2\r\nbc\r\n";
        let keys = |input| -> Vec<(&[u8], &[u8])> { keys_ahead(input).collect() };
        let all: [(&[u8], &[u8]); 4] = [(b"a", b""), (b"", b""), (b"", b"v"), (b"bc", b"")];
        assert_eq!(keys(gets), all);
        assert_eq!(keys(&gets[..gets.len() - 1]), all[..3]);
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
            queue.push(request.args().expect("memory")).expect("memory");
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
    fn a_client_that_has_not_authenticated_has_tight_limits() {
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
    fn an_announced_length_allocates_nothing() {
        let mut request = Request::new(LIMIT);
        let progress = request.feed(b"*1000000\r\n$536870912\r\nabc");
        assert_eq!(progress, Ok(Progress { used: 25, complete: false }));
        assert!(request.bytes.capacity() < 1024 && request.ends.capacity() < 1024);
    }

    #[test]
    fn an_encoded_command_is_parsed_back() {
        let mut bytes = Vec::new();
        encode(&mut bytes, &[b"SET", b"", b"a\r\nb"]);
        assert_eq!(bytes, b"*3\r\n$3\r\nSET\r\n$0\r\n\r\n$4\r\na\r\nb\r\n");
        assert_eq!(parse(&bytes, 3).0, [["SET", "", r"a\r\nb"]]);
    }
}
