//! Bitmaps: strings whose bits are numbered, with the highest bit of the first byte as bit 0.
//!
//! A missing key and the bits past the end of a string read as zeros. A write first extends the string up to
//! its last bit. BITCOUNT, BITPOS and BITOP work in machine words, as strings may be long. BITFIELD takes a
//! field from a window of 128 bits, which holds it at any bit offset, and adds in 128 bits, where nothing
//! overflows.
//!
//! The commands are described at <https://redis.io/docs/latest/commands/?group=bitmap>.

use std::ops::Range;

use super::options::{OptionCursor, integer, is};
use super::spec::{Change, Family, Flags, Outcome, Propagate, read, write};
use super::strings::grow;
use crate::config::events::EventClass;
use crate::memory;
use crate::resp::{Args, CommandError, Reply};
use crate::store::{Access, Entry, ReadView, StringMut, StringOrigin, Value, WriteView};
use crate::text::integer::parse_i64;

/// The bitmap commands.
#[rustfmt::skip]
pub static FAMILY: Family = Family { group: "bitmap", commands: &[
    read("bitcount", "key [start [end [BYTE | BIT]]]", bitcount).key("RO access")
        .arguments(&["start-end-byte-bit=range", "byte-bit=unit@7.0.0"])
        .history(&[("7.0.0", "Added the option `BYTE|BIT`.")])
        .doc("2.6.0", "O(N) where N is the number of bytes in the range",
             "Counts the bits that are set in a string or in a range of it."),
    write("bitfield", "key [GET encoding offset | [OVERFLOW <WRAP | SAT | FAIL>] \
                       <SET encoding offset value | INCRBY encoding offset increment> ...]", bitfield)
        .key("RW access update variable_flags").access_of_call(bitfield_access)
        .flags(Flags::DENYOOM)
        .notes("This command allows both access and modification of the key")
        .arguments(&[
            "get-wrap-sat-fail-set-incrby=operation*", "get=get-block",
            "wrap-sat-fail-set-incrby=write", "wrap-sat-fail=overflow-block",
            "set-incrby=write-operation", "set=set-block", "incrby=incrby-block", "value:integer",
        ])
        .doc("3.2.0", "O(1) for each operation",
             "Reads, sets and increments integers of any width at any bit offset in a string."),
    read("bitfield_ro", "key [GET encoding offset [GET encoding offset ...]]", bitfield_ro)
        .key("RO access").fast()
        .arguments(&["get=get-block"])
        .doc("6.0.0", "O(1) for each operation",
             "Reads integers of any width at any bit offset in a string."),
    write("bitop", "<AND | OR | XOR | NOT | DIFF | DIFF1 | ANDOR | ONE> destkey key [key ...]", bitop)
        .keys(2, 2, 1, "OW update").keys(3, -1, 1, "RO access").flags(Flags::DENYOOM)
        .arguments(&["and-or-xor-not-diff-diff1-andor-one=operation"])
        .doc("2.6.0", "O(N) where N is the number of bytes of all keys",
             "Combines strings bit by bit and stores the result in a key."),
    read("bitpos", "key bit [start [end [BYTE | BIT]]]", bitpos).key("RO access")
        .arguments(&[
            "start-end-byte-bit=range", "end-byte-bit=end-unit-block", "byte-bit=unit@7.0.0",
        ])
        .history(&[("7.0.0", "Added the option `BYTE|BIT`.")])
        .doc("2.8.7", "O(N) where N is the number of bytes in the range",
             "Finds the first set or clear bit in a string or in a range of it."),
    read("getbit", "key offset", getbit).key("RO access").fast()
        .doc("2.2.0", "O(1)", "Returns the bit at an offset in a string."),
    write("setbit", "key offset value", setbit).key("RW access update").flags(Flags::DENYOOM)
        .arguments(&["value:integer"])
        .doc("2.2.0", "O(1)",
             "Sets or clears the bit at an offset in a string and returns the previous bit."),
] };

fn getbit(view: &ReadView, args: Args, reply: &mut Reply) -> Outcome {
    let offset = bit_offset(&args[2], view.string_limit())?;
    let byte = view.string(&args[1], Access::Use)?.and_then(|value| value.get(offset / 8));
    reply.integer(i64::from(byte.is_some_and(|byte| byte & (0x80 >> (offset % 8)) != 0)));
    Ok(())
}

fn setbit(view: &mut WriteView, args: Args, reply: &mut Reply) -> Change {
    let offset = bit_offset(&args[2], view.string_limit())?;
    let bit = match integer(&args[3]) {
        Ok(bit @ 0..=1) => bit == 1,
        _ => return Err(CommandError::new("ERR bit is not an integer or out of range")),
    };
    let (mut value, grew) = make_room(view, &args[1], offset / 8 + 1)?;
    let (byte, mask) = (&mut value.in_place()[offset / 8], 0x80 >> (offset % 8));
    let was = *byte & mask != 0;
    *byte = if bit { *byte | mask } else { *byte & !mask };
    reply.integer(i64::from(was));
    let changed = grew || was != bit;
    drop(value);
    if changed {
        view.notify(EventClass::STRING, "setbit", &args[1]);
    }
    Ok(Propagate::verbatim_if(changed))
}

/// The offset of a bit, which must lie within the longest string allowed, in bytes.
fn bit_offset(arg: &[u8], limit: usize) -> Result<usize, CommandError> {
    in_limit(parse_i64(arg), limit)
}

fn in_limit(offset: Option<i64>, limit: usize) -> Result<usize, CommandError> {
    let offset = offset.and_then(|offset| usize::try_from(offset).ok());
    let offset = offset.filter(|offset| offset / 8 < limit);
    offset.ok_or(CommandError::new("ERR bit offset is not an integer or out of range"))
}

/// Extends the string at the key to at least `length` bytes, or creates it. Returns it and whether it grew.
fn make_room<'a>(
    view: &'a mut WriteView,
    key: &[u8],
    length: usize,
) -> Result<(StringMut<'a>, bool), CommandError> {
    let old = view.string(key, Access::Use)?.map(<[u8]>::len);
    if old.is_none() {
        view.insert(key, Value::String(memory::zeros(length)?), None);
    }
    let mut value = view.string_mut(key)?.ok_or(CommandError::WRONG_TYPE)?;
    grow(value.in_place(), length)?;
    Ok((value, old.is_none_or(|old| old < length)))
}

// BITCOUNT and BITPOS check the range before they look at the key. (Redis up to 7.4 did not.) BITCOUNT with a
// start but no end is Valkey's.

fn bitcount(view: &ReadView, args: Args, reply: &mut Reply) -> Outcome {
    if args.len() > 5 {
        return Err(CommandError::SYNTAX);
    }
    let start = args.get(2).map_or(Ok(0), integer)?;
    let end = args.get(3).map_or(Ok(-1), integer)?;
    let unit_bits = unit_bits(args.get(4))?;
    let value = view.string(&args[1], Access::Use)?.unwrap_or_default();
    // Two negative indexes in the wrong order mean an empty range, even if both lie before the start.
    if start < 0 && end < 0 && start > end {
        reply.integer(0);
        return Ok(());
    }
    let range = bit_range(value, start, end, unit_bits);
    reply.count(range.map_or(0, |bits| count_in(value, &bits)));
    Ok(())
}

fn bitpos(view: &ReadView, args: Args, reply: &mut Reply) -> Outcome {
    let bit = match integer(&args[2])? {
        bit @ 0..=1 => bit == 1,
        _ => return Err(CommandError::new("ERR The bit argument must be 1 or 0.")),
    };
    if args.len() > 6 {
        return Err(CommandError::SYNTAX);
    }
    let start = args.get(3).map_or(Ok(0), integer)?;
    let unit_bits = unit_bits(args.get(5))?;
    let end = args.get(4).map(integer).transpose()?;
    let Some(value) = view.string(&args[1], Access::Use)? else {
        reply.integer(if bit { -1 } else { 0 });
        return Ok(());
    };
    let range = bit_range(value, start, end.unwrap_or(-1), unit_bits);
    // Zeros follow the string, but not a range with an explicit end.
    let behind = (!bit && end.is_none()).then_some(value.len() * 8);
    match range.and_then(|bits| find_in(value, bits, bit).or(behind)) {
        Some(position) => reply.count(position),
        None => reply.integer(-1),
    }
    Ok(())
}

/// How many bits one unit of a range has.
fn unit_bits(option: Option<&[u8]>) -> Result<usize, CommandError> {
    match option {
        None => Ok(8),
        Some(unit) if is(unit, "BYTE") => Ok(8),
        Some(unit) if is(unit, "BIT") => Ok(1),
        Some(_) => Err(CommandError::SYNTAX),
    }
}

/// The bits from one unit to another, both included. A negative unit counts from the end. `None` if the
/// range is empty.
fn bit_range(value: &[u8], start: i64, end: i64, unit_bits: usize) -> Option<Range<usize>> {
    let units = (value.len() * 8 / unit_bits) as i64;
    let from_end = |index: i64| {
        if index < 0 { (index + units).max(0) } else { index }
    };
    let (start, end) = (from_end(start), from_end(end).min(units - 1));
    (start <= end).then(|| start as usize * unit_bits..(end as usize + 1) * unit_bits)
}

/// How many of these bits are set. The range must not be empty.
fn count_in(value: &[u8], bits: &Range<usize>) -> usize {
    let (first, last) = (bits.start / 8, (bits.end - 1) / 8);
    let before = value[first] & !(0xff >> (bits.start % 8));
    let behind = value[last] & (0x7f >> ((bits.end - 1) % 8));
    count_ones(&value[first..=last]) - (before.count_ones() + behind.count_ones()) as usize
}

fn count_ones(bytes: &[u8]) -> usize {
    let (words, rest) = bytes.as_chunks::<8>();
    let in_words: u64 =
        words.iter().map(|word| u64::from(u64::from_ne_bytes(*word).count_ones())).sum();
    let in_rest: u32 = rest.iter().map(|byte| byte.count_ones()).sum();
    in_words as usize + in_rest as usize
}

/// The offset of the first of these bits that has the given value.
fn find_in(value: &[u8], bits: Range<usize>, bit: bool) -> Option<usize> {
    // A byte with this value does not contain the wanted bit.
    let skipped = if bit { 0x00 } else { 0xff };
    let (first, last) = (bits.start / 8, (bits.end - 1) / 8);
    let matches = (value[first] ^ skipped) & (0xff >> (bits.start % 8));
    let (place, matches) = match matches {
        0 => {
            let place = first + 1 + skip(&value[first + 1..=last], skipped)?;
            (place, value[place] ^ skipped)
        }
        matches => (first, matches),
    };
    let position = place * 8 + matches.leading_zeros() as usize;
    Some(position).filter(|position| bits.contains(position))
}

/// The index of the first byte that is not `skipped`.
fn skip(bytes: &[u8], skipped: u8) -> Option<usize> {
    let (words, _) = bytes.as_chunks::<8>();
    let alike = words.iter().take_while(|word| **word == [skipped; 8]).count() * 8;
    bytes[alike..].iter().position(|byte| *byte != skipped).map(|place| alike + place)
}

/// How BITOP combines the bits of its sources.
#[derive(Clone, Copy, PartialEq)]
enum Operation {
    And,
    Or,
    Xor,
    Not,
    /// In the first, but in none of the others.
    Diff,
    /// Not in the first, but in one of the others.
    Diff1,
    /// In the first and in one of the others.
    AndOr,
    /// In one and no more.
    One,
}

impl Operation {
    /// The operation of this name.
    ///
    /// # Errors
    /// There is none, or it takes another number of sources.
    fn parse(name: &[u8], sources: usize) -> Result<Operation, CommandError> {
        let name = name.to_ascii_uppercase();
        let operation = match name.as_slice() {
            b"AND" => Operation::And,
            b"OR" => Operation::Or,
            b"XOR" => Operation::Xor,
            b"NOT" if sources == 1 => Operation::Not,
            b"NOT" => {
                let text = "ERR BITOP NOT must be called with a single source key.";
                return Err(CommandError::new(text));
            }
            b"DIFF" => Operation::Diff,
            b"DIFF1" => Operation::Diff1,
            b"ANDOR" => Operation::AndOr,
            b"ONE" => Operation::One,
            _ => return Err(CommandError::SYNTAX),
        };
        if matches!(operation, Operation::Diff | Operation::Diff1 | Operation::AndOr) && sources < 2
        {
            let name = String::from_utf8_lossy(&name);
            let text = format!("ERR BITOP {name} must be called with at least two source keys.");
            return Err(text.into());
        }
        Ok(operation)
    }
}

fn bitop(view: &mut WriteView, args: Args, reply: &mut Reply) -> Change {
    let operation = Operation::parse(&args[1], args.len() - 3)?;
    // An expired source must be removed, not just skipped: the log must record that it was gone, or a
    // replay would find it.
    for key in args.from(3) {
        view.remove_if_expired(key);
        view.notify_if_missing(key);
        view.string(key, Access::Silent)?; // sources after one of the wrong type are not looked up
    }
    let sources: Result<Vec<&[u8]>, _> = args
        .from(3)
        .map(|key| view.string(key, Access::Answer).map(Option::unwrap_or_default))
        .collect();
    let result = combine(operation, &sources?)?;
    reply.count(result.len());
    if result.is_empty() {
        let removed = view.remove(&args[2]);
        if removed {
            view.notify(EventClass::GENERIC, "del", &args[2]);
        }
        return Ok(Propagate::verbatim_if(removed));
    }
    let mut result = Entry::new(Value::String(result), None);
    result.origin = StringOrigin::InPlace;
    view.insert_entry(&args[2], result);
    view.notify(EventClass::STRING, "set", &args[2]);
    Ok(Propagate::Verbatim)
}

/// How much of the result is computed at a time. A block stays in the L1 cache while the sources are read.
const BLOCK_BYTES: usize = 8 << 10;

/// The result, as long as the longest source. Shorter sources are padded with zeros.
fn combine(operation: Operation, sources: &[&[u8]]) -> Result<Vec<u8>, CommandError> {
    let length = sources.iter().map(|source| source.len()).max().unwrap_or(0);
    let mut result = Vec::new();
    memory::reserve(&mut result, length)?;
    for start in (0..length).step_by(BLOCK_BYTES) {
        let end = length.min(start + BLOCK_BYTES);
        let part = |bytes: &[u8]| start.min(bytes.len())..end.min(bytes.len());
        let parts: Vec<&[u8]> = sources.iter().map(|source| &source[part(source)]).collect();
        combine_block(operation, &parts, &mut result, end);
    }
    Ok(result)
}

/// Appends a block to the result, up to `end`, computed from these parts of the sources.
fn combine_block(operation: Operation, parts: &[&[u8]], result: &mut Vec<u8>, end: usize) {
    let [first, others @ ..] = parts else { return };
    // These two combine the other sources with OR, and apply the first source last.
    let (seed, folded) = match (operation, others) {
        (Operation::Diff1 | Operation::AndOr, [second, others @ ..]) => (second, others),
        _ => (first, others),
    };
    let start = result.len();
    result.extend_from_slice(seed);
    result.resize(end, 0);
    let block = &mut result[start..];
    match operation {
        Operation::And => folded.iter().for_each(|part| intersect(block, part)),
        Operation::Xor => folded.iter().for_each(|part| each_word(block, part, |a, b| a ^ b)),
        Operation::Diff => folded.iter().for_each(|part| each_word(block, part, |a, b| a & !b)),
        Operation::Not => block.iter_mut().for_each(|byte| *byte = !*byte),
        Operation::One => keep_single(block, folded),
        Operation::Or | Operation::Diff1 | Operation::AndOr => {
            folded.iter().for_each(|part| each_word(block, part, |a, b| a | b));
        }
    }
    match operation {
        Operation::Diff1 => each_word(block, first, |any, first| any & !first),
        Operation::AndOr => intersect(block, first),
        _ => {}
    }
}

/// Keeps the bits that are also in the part, which is padded with zeros.
fn intersect(block: &mut [u8], part: &[u8]) {
    each_word(block, part, |a, b| a & b);
    block[part.len()..].fill(0);
}

/// Leaves the bits that are set in exactly one of the block and the parts.
fn keep_single(block: &mut [u8], parts: &[&[u8]]) {
    let mut several = vec![0; block.len()];
    for part in parts {
        let mut again = block[..part.len()].to_vec();
        each_word(&mut again, part, |a, b| a & b);
        each_word(&mut several, &again, |a, b| a | b);
        each_word(block, part, |a, b| a | b);
    }
    each_word(block, &several, |any, several| any & !several);
}

/// Combines a block with a part, which may be shorter, word by word.
fn each_word(block: &mut [u8], part: &[u8], operation: impl Fn(u64, u64) -> u64) {
    let (words, rest) = block[..part.len()].as_chunks_mut::<8>();
    let (part_words, part_rest) = part.as_chunks::<8>();
    for (word, other) in words.iter_mut().zip(part_words) {
        *word = operation(u64::from_ne_bytes(*word), u64::from_ne_bytes(*other)).to_ne_bytes();
    }
    for (byte, other) in rest.iter_mut().zip(part_rest) {
        *byte = operation((*byte).into(), (*other).into()) as u8;
    }
}

/// An integer of some width at some bit offset.
#[derive(Clone, Copy)]
struct Field {
    signed: bool,
    bits: usize,
    offset: usize,
}

impl Field {
    /// Parses `i16 100`, or `i16 #3` for the fourth of consecutive fields.
    fn parse(encoding: &[u8], offset: &[u8], limit: usize) -> Result<Field, CommandError> {
        let (signed, bits) = match encoding {
            [b'i', bits @ ..] => (true, parse_i64(bits).filter(|bits| (1..=64).contains(bits))),
            [b'u', bits @ ..] => (false, parse_i64(bits).filter(|bits| (1..=63).contains(bits))),
            _ => (false, None),
        };
        let bits = bits.ok_or(CommandError::new(
            "ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported \
             but i64 is.",
        ))?;
        let offset = match offset {
            // As in Redis, a product that wraps around may fall within the limit.
            [b'#', number @ ..] => parse_i64(number).map(|number| number.wrapping_mul(bits)),
            offset => parse_i64(offset),
        };
        Ok(Field { signed, bits: bits as usize, offset: in_limit(offset, limit)? })
    }

    /// How many bytes a string needs to hold the field.
    fn end(self) -> usize {
        (self.offset + self.bits).div_ceil(8)
    }

    /// The distance to the low end of a window that starts with the field's first byte.
    fn shift(self) -> usize {
        128 - self.offset % 8 - self.bits
    }

    fn mask(self) -> u128 {
        (1 << self.bits) - 1
    }

    /// The integer that the lowest bits represent, as many bits as the field has.
    fn meaning(self, bits: u128) -> i128 {
        let unused = 128 - self.bits;
        let bits = bits << unused;
        if self.signed { bits.cast_signed() >> unused } else { (bits >> unused).cast_signed() }
    }

    fn get(self, value: &[u8]) -> i128 {
        let mut window = [0; 16];
        let bytes = value.get(self.offset / 8..self.end().min(value.len())).unwrap_or_default();
        window[..bytes.len()].copy_from_slice(bytes);
        self.meaning(u128::from_be_bytes(window) >> self.shift())
    }

    /// Writes the field to a string that is long enough.
    fn set(self, value: &mut [u8], integer: i128) {
        let bytes = &mut value[self.offset / 8..self.end()];
        let mut window = [0; 16];
        window[..bytes.len()].copy_from_slice(bytes);
        let kept = u128::from_be_bytes(window) & !(self.mask() << self.shift());
        let new = kept | (integer.cast_unsigned() & self.mask()) << self.shift();
        bytes.copy_from_slice(&new.to_be_bytes()[..bytes.len()]);
    }

    fn highest(self) -> i128 {
        self.mask().cast_signed() >> i32::from(self.signed)
    }

    /// The integer that SET means. As in Redis, a number far too low counts as far too high: in an unsigned
    /// field any negative number, in a signed one a number whose distance to the highest does not fit in 64
    /// bits. Only saturation shows the difference; wrapped, the bits are the same.
    fn wanted(self, integer: i64) -> i128 {
        let integer = i128::from(integer);
        let lowest = if self.signed { self.highest() - i128::from(i64::MAX) } else { 0 };
        let is_far = integer < lowest && self.bits < 64;
        if is_far { integer + (1 << 64) } else { integer }
    }

    /// The integer to store; `None` if it does not fit and must be refused.
    fn fit(self, integer: i128, overflow: Overflow) -> Option<i128> {
        let highest = self.highest();
        let lowest = if self.signed { -highest - 1 } else { 0 };
        if (lowest..=highest).contains(&integer) {
            return Some(integer);
        }
        match overflow {
            Overflow::Wrap => Some(self.meaning(integer.cast_unsigned())),
            Overflow::Saturate => Some(integer.clamp(lowest, highest)),
            Overflow::Fail => None,
        }
    }
}

/// What happens to an integer that does not fit.
#[derive(Clone, Copy)]
enum Overflow {
    Wrap,
    Saturate,
    Fail,
}

/// The operation on a field.
#[derive(Clone, Copy)]
enum Action {
    Get,
    Set(i64, Overflow),
    Add(i64, Overflow),
}

/// The operations of BITFIELD.
fn parse_actions(args: Args, limit: usize) -> Result<Vec<(Field, Action)>, CommandError> {
    let mut actions = Vec::new();
    let mut overflow = Overflow::Wrap;
    let mut words = OptionCursor::new(args, 2);
    while !words.is_done() {
        if let Some(word) = words.take_value("OVERFLOW")? {
            overflow = match word.to_ascii_uppercase().as_slice() {
                b"WRAP" => Overflow::Wrap,
                b"SAT" => Overflow::Saturate,
                b"FAIL" => Overflow::Fail,
                _ => return Err(CommandError::new("ERR Invalid OVERFLOW type specified")),
            };
            continue;
        }
        let action: Option<fn(i64, Overflow) -> Action> = if words.take("GET") {
            None
        } else if words.take("SET") {
            Some(Action::Set)
        } else if words.take("INCRBY") {
            Some(Action::Add)
        } else {
            return Err(CommandError::SYNTAX);
        };
        let (encoding, offset) = (words.value()?, words.value()?);
        // A missing number is reported before an invalid encoding or offset.
        let action =
            action.map(|action| words.value().map(|number| (action, number))).transpose()?;
        let field = Field::parse(encoding, offset, limit)?;
        let action = match action {
            None => Action::Get,
            Some((action, number)) => action(integer(number)?, overflow),
        };
        actions.push((field, action));
    }
    Ok(actions)
}

fn bitfield_ro(view: &ReadView, args: Args, reply: &mut Reply) -> Outcome {
    let actions = parse_actions(args, view.string_limit())?;
    if actions.iter().any(|(_, action)| !matches!(action, Action::Get)) {
        return Err(CommandError::new("ERR BITFIELD_RO only supports the GET subcommand"));
    }
    let value = view.string(&args[1], Access::Use)?.unwrap_or_default();
    reply_fields(value, &actions, reply);
    Ok(())
}

fn reply_fields(value: &[u8], actions: &[(Field, Action)], reply: &mut Reply) {
    reply.array(actions.len());
    for (field, _) in actions {
        reply.integer(field.get(value) as i64);
    }
}

/// A call that is nothing but GETs, and OVERFLOWs, only reads the key. Any other, even an invalid one, counts
/// as a write, as in Redis.
fn bitfield_access(args: Args) -> &'static str {
    let mut words = OptionCursor::new(args, 2);
    while !words.is_done() {
        if words.len() > 2 && words.take("GET") {
            words.take_words(2);
        } else if words.len() > 1 && words.take("OVERFLOW") {
            words.next();
        } else {
            return "RW access update";
        }
    }
    "RO access"
}

fn bitfield(view: &mut WriteView, args: Args, reply: &mut Reply) -> Change {
    let actions = parse_actions(args, view.string_limit())?;
    let written = actions.iter().filter(|(_, action)| !matches!(action, Action::Get));
    // Like Redis, make room for a field before it is known whether the field is written.
    let Some(room) = written.map(|(field, _)| field.end()).max() else {
        reply_fields(view.string(&args[1], Access::Answer)?.unwrap_or_default(), &actions, reply);
        view.notify_if_missing(&args[1]);
        return Ok(Propagate::Nothing);
    };
    let (mut lent, grew) = make_room(view, &args[1], room)?;
    let value = lent.in_place();
    let (mut changed, mut wrote) = (grew, false);
    reply.array(actions.len());
    for (field, action) in actions {
        let old = field.get(value);
        let (new, overflow) = match action {
            Action::Get => (old, Overflow::Wrap),
            Action::Add(increment, overflow) => (old + i128::from(increment), overflow),
            Action::Set(integer, overflow) => (field.wanted(integer), overflow),
        };
        let Some(new) = field.fit(new, overflow) else {
            reply.null();
            continue;
        };
        if new != old {
            field.set(value, new);
            changed = true;
        }
        wrote |= (grew || new != old) && !matches!(action, Action::Get);
        reply.integer(if matches!(action, Action::Set(..)) { old } else { new } as i64);
    }
    drop(lent);
    if wrote {
        view.notify(EventClass::STRING, "setbit", &args[1]);
    }
    Ok(Propagate::verbatim_if(changed))
}
