//! HyperLogLog: estimates how many different elements were added, within 0.81 %, in at most 12 KB.
//!
//! **The idea** (Flajolet et al., 2007). The hash of an element chooses one of 16384 registers with 14
//! of its bits. The place of the lowest one bit among the others (1 for an odd number, 51 if there is none)
//! is its rank, and the register stores the highest rank it has seen. The number of elements is estimated
//! from how many registers have which rank: see `estimate`.
//!
//! **The layout** is Redis's, byte for byte, and so is everything that decides which of several possible
//! encodings a value has: it is an ordinary string that people copy from server to server. It begins
//! with 16 bytes:
//!
//! | bytes | content |
//! |---|---|
//! | 4 | `HYLL` |
//! | 1 | the form: 0 dense, 1 sparse |
//! | 3 | unused |
//! | 8 | the last estimate, little endian; the highest bit says that it is stale |
//!
//! In the dense form the registers follow, 6 bits each, lowest bits first. In the sparse form runs of equal
//! registers follow, of 1 or 2 bytes:
//!
//! | bits | number of registers | their rank |
//! |---|---|---|
//! | `00nnnnnn` | `n + 1` | 0 |
//! | `01nnnnnn nnnnnnnn` | `n + 1` | 0 |
//! | `1rrrrrnn` | `n + 1` | `r + 1` |
//!
//! A value becomes dense, and stays dense, when the sparse form would exceed a limit or cannot represent a
//! rank.
//!
//! **Corruption.** A client can write any bytes with `SETRANGE`. [`is_valid`] checks the header only, as
//! Redis does. The runs are checked wherever they are read, and are [`Corrupt`] if they do not cover all
//! registers exactly. Unless they say otherwise, the functions below require a valid header.

/// The number of registers.
pub const REGISTERS: usize = 1 << INDEX_BITS;

const INDEX_BITS: u32 = 14;
/// The bits of a hash that give the rank.
const RANK_BITS: u32 = 64 - INDEX_BITS;
const HASH_SEED: u64 = 0xadc8_3b19;

const MAGIC: &[u8] = b"HYLL";
const FORM: usize = 4;
const DENSE: u8 = 0;
const SPARSE: u8 = 1;
const ESTIMATE: std::ops::Range<usize> = 8..16;
const STALE: u8 = 0x80;
const HEADER_BYTES: usize = 16;

const REGISTER_BITS: usize = 6;
/// The values that a register can have.
const RANKS: usize = 1 << REGISTER_BITS;
const DENSE_BYTES: usize = HEADER_BYTES + REGISTERS * REGISTER_BITS / 8;

/// The longest runs, and the highest rank, that the sparse form can represent.
const ZERO_RUN_MAX: usize = 64;
const VALUE_RUN_MAX: usize = 4;
const VALUE_MAX: u8 = 32;

/// The runs of a sparse value do not describe its registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Corrupt;

/// A value to which nothing was added: one run of zeros.
pub fn create() -> Vec<u8> {
    let mut value = vec![0; HEADER_BYTES];
    value[..MAGIC.len()].copy_from_slice(MAGIC);
    value[FORM] = SPARSE;
    value.extend(Runs::default().zeros(REGISTERS).as_slice());
    value
}

/// Whether a string (of any content) may be a HyperLogLog.
pub fn is_valid(value: &[u8]) -> bool {
    value.len() >= HEADER_BYTES
        && value.starts_with(MAGIC)
        && (value[FORM] == SPARSE || (value[FORM] == DENSE && value.len() == DENSE_BYTES))
}

/// Whether the value is in the dense form.
pub fn is_dense(value: &[u8]) -> bool {
    value[FORM] == DENSE
}

/// Adds an element; returns whether a register changed. The sparse form may take `sparse_limit` bytes.
///
/// # Errors
/// [`Corrupt`]; then the value is unchanged.
pub fn add(value: &mut Vec<u8>, element: &[u8], sparse_limit: usize) -> Result<bool, Corrupt> {
    let hash = murmur(element, HASH_SEED);
    let index = hash as usize % REGISTERS;
    let rank = (hash >> INDEX_BITS | 1 << RANK_BITS).trailing_zeros() + 1;
    raise(value, index, rank as u8, sparse_limit, &mut Place::default())
}

/// Raises each register to its rank in the union, if it is lower. See [`add`].
///
/// # Errors
/// [`Corrupt`]; then the value is unchanged.
pub fn raise_all(
    value: &mut Vec<u8>,
    union: &Registers,
    sparse_limit: usize,
) -> Result<(), Corrupt> {
    let before = Registers::of(value)?;
    let mut from = Place::default();
    let ranks = before.0.iter().zip(&union.0);
    for (index, (_, &rank)) in ranks.enumerate().filter(|(_, (before, rank))| rank > before) {
        raise(value, index, rank, sparse_limit, &mut from)?;
    }
    Ok(())
}

/// Raises a register to a rank if it is lower; returns whether it was. The search for its run starts at
/// `place`, which is updated so that the search for any later register can start there.
fn raise(
    value: &mut Vec<u8>,
    index: usize,
    rank: u8,
    sparse_limit: usize,
    from: &mut Place,
) -> Result<bool, Corrupt> {
    if is_dense(value) {
        return Ok(raise_dense(value, index, rank));
    }
    if rank <= VALUE_MAX
        && let Some(raised) = raise_sparse(value, index, rank, sparse_limit, from)?
    {
        return Ok(raised);
    }
    make_dense(value)?;
    Ok(raise_dense(value, index, rank))
}

fn raise_dense(value: &mut [u8], index: usize, rank: u8) -> bool {
    let bit = index * REGISTER_BITS;
    let (at, shift) = (HEADER_BYTES + bit / 8, bit % 8);
    // The last register ends with the value: no part of it is in a further byte.
    let high = value.get(at + 1).copied().unwrap_or(0);
    let pair = u16::from_le_bytes([value[at], high]);
    let mask = (RANKS - 1) as u16;
    if pair >> shift & mask >= rank.into() {
        return false;
    }
    let [low, high] = (pair & !(mask << shift) | u16::from(rank) << shift).to_le_bytes();
    value[at] = low;
    if let Some(byte) = value.get_mut(at + 1) {
        *byte = high;
    }
    true
}

/// Like [`raise`]. None if the value would become too long; then it is as it was.
fn raise_sparse(
    value: &mut Vec<u8>,
    index: usize,
    rank: u8,
    limit: usize,
    from: &mut Place,
) -> Result<Option<bool>, Corrupt> {
    let (mut before, mut place) = (*from, *from);
    let run = loop {
        let run = Run::at(value, place.at).ok_or(Corrupt)?;
        if index < place.first + run.length {
            break run;
        }
        before = place;
        place = Place { at: place.at + run.bytes, first: place.first + run.length };
    };
    if place == *from && place != Place::default() {
        // The run before this one is needed as well.
        *from = Place::default();
        return raise_sparse(value, index, rank, limit, from);
    }
    *from = before;
    let Place { at, first } = place;
    if run.rank >= rank {
        return Ok(Some(false));
    }
    // The run is split into what precedes the register, the register, and what follows it.
    let mut runs = Runs::default();
    runs.of(run.rank, index - first).of(rank, 1).of(run.rank, first + run.length - index - 1);
    let runs = runs.as_slice();
    let length = value.len() + runs.len() - run.bytes;
    if runs.len() > run.bytes && length > limit {
        return Ok(None);
    }
    // If the last run of the value is truncated, Redis truncates what replaces it as well.
    let end = (at + run.bytes).min(value.len());
    value.splice(at..end, runs.iter().copied());
    value.truncate(length);
    join_runs(value, from.at);
    Ok(Some(true))
}

/// Joins neighbours of the same rank that a change may have made, from the run before it on, over as many
/// runs as Redis checks. (The number matters: runs that an earlier change left side by side stay apart.)
fn join_runs(value: &mut Vec<u8>, mut at: usize) {
    const STEPS: usize = 5;
    for _ in 0..STEPS {
        let Some(run) = Run::at(value, at) else { return };
        let next = Run::at(value, at + run.bytes);
        let length = run.length + next.map_or(0, |next| next.length);
        if next.is_some_and(|next| run.rank > 0 && next.rank == run.rank) && length <= VALUE_RUN_MAX
        {
            value[at] = value_run(run.rank, length);
            value.remove(at + 1);
        } else {
            at += run.bytes;
        }
    }
}

/// Converts the value to the dense form.
///
/// # Errors
/// [`Corrupt`]; then the value is unchanged.
pub fn make_dense(value: &mut Vec<u8>) -> Result<(), Corrupt> {
    if is_dense(value) {
        return Ok(());
    }
    let registers = Registers::of(value)?;
    value.truncate(HEADER_BYTES);
    value.reserve_exact(DENSE_BYTES - HEADER_BYTES);
    value[FORM] = DENSE;
    for four in registers.0.chunks_exact(4) {
        let packed =
            four.iter().rev().fold(0, |packed, rank| packed << REGISTER_BITS | u32::from(*rank));
        value.extend_from_slice(&packed.to_le_bytes()[..3]);
    }
    Ok(())
}

/// The last estimate, unless it is stale.
pub fn cached_estimate(value: &[u8]) -> Option<i64> {
    let bytes = value[ESTIMATE].try_into().ok()?;
    Some(i64::from_le_bytes(bytes)).filter(|_| value[ESTIMATE.end - 1] & STALE == 0)
}

/// Stores the estimate in the value.
pub fn cache_estimate(value: &mut [u8], estimate: i64) {
    value[ESTIMATE].copy_from_slice(&estimate.to_le_bytes());
}

/// Marks the stored estimate as stale.
pub fn mark_stale(value: &mut [u8]) {
    value[ESTIMATE.end - 1] |= STALE;
}

/// Estimates how many different elements were added.
///
/// # Errors
/// [`Corrupt`].
pub fn count(value: &[u8]) -> Result<i64, Corrupt> {
    let mut histogram = [0; RANKS];
    if is_dense(value) {
        for_dense(value, |_, rank| histogram[usize::from(rank)] += 1);
    } else {
        for_runs(value, |_, run| histogram[usize::from(run.rank)] += run.length)?;
    }
    Ok(estimate(&histogram))
}

/// The registers, spread out to a byte each.
pub struct Registers(Vec<u8>);

impl Default for Registers {
    fn default() -> Registers {
        Registers(vec![0; REGISTERS])
    }
}

impl Registers {
    /// The registers of a value.
    ///
    /// # Errors
    /// [`Corrupt`].
    pub fn of(value: &[u8]) -> Result<Registers, Corrupt> {
        let mut registers = Registers::default();
        registers.merge(value)?;
        Ok(registers)
    }

    /// Raises each register to that of a value if it is lower: the result is the union.
    ///
    /// # Errors
    /// [`Corrupt`].
    pub fn merge(&mut self, value: &[u8]) -> Result<(), Corrupt> {
        if is_dense(value) {
            for_dense(value, |index, rank| self.0[index] = self.0[index].max(rank));
            return Ok(());
        }
        for_runs(value, |first, run| {
            if run.rank > 0 {
                let registers = self.0[first..].iter_mut().take(run.length);
                registers.for_each(|register| *register = run.rank.max(*register));
            }
        })
    }

    /// The rank of each register.
    pub fn ranks(&self) -> &[u8] {
        &self.0
    }

    /// The estimate, as the function [`count`] computes it.
    pub fn count(&self) -> i64 {
        let mut histogram = [0; RANKS];
        self.0.iter().for_each(|rank| histogram[usize::from(*rank)] += 1);
        estimate(&histogram)
    }
}

/// Visits each register of a dense value, with its index.
fn for_dense(value: &[u8], mut visit: impl FnMut(usize, u8)) {
    for (place, bytes) in value[HEADER_BYTES..].chunks_exact(3).enumerate() {
        let four = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], 0]);
        for part in 0..4 {
            visit(place * 4 + part, (four >> (part * REGISTER_BITS)) as u8 % RANKS as u8);
        }
    }
}

/// Visits each run of a sparse value, with the index of its first register.
fn for_runs(value: &[u8], mut visit: impl FnMut(usize, Run)) -> Result<(), Corrupt> {
    let (mut at, mut first) = (HEADER_BYTES, 0);
    while let Some(run) = Run::at(value, at) {
        if first + run.length > REGISTERS {
            return Err(Corrupt);
        }
        visit(first, run);
        at += run.bytes;
        first += run.length;
    }
    if first == REGISTERS { Ok(()) } else { Err(Corrupt) }
}

/// The runs of a sparse value, as text: `z` and `Z` are zeros in 1 and 2 bytes.
pub fn describe_runs(value: &[u8]) -> String {
    let (mut at, mut words) = (HEADER_BYTES, Vec::new());
    while let Some(run) = Run::at(value, at) {
        words.push(match run {
            Run { rank: 0, bytes: 1, length } => format!("z:{length}"),
            Run { rank: 0, length, .. } => format!("Z:{length}"),
            Run { rank, length, .. } => format!("v:{rank},{length}"),
        });
        at += run.bytes;
    }
    words.join(" ")
}

/// A run of equal registers.
#[derive(Clone, Copy)]
struct Run {
    rank: u8,
    /// The number of registers.
    length: usize,
    /// The length of its encoding in bytes.
    bytes: usize,
}

impl Run {
    /// The run that begins at that byte of a value. If it is cut off, the missing byte counts as zero.
    fn at(value: &[u8], at: usize) -> Option<Run> {
        let byte = *value.get(at)?;
        let six_bits = usize::from(byte & 0x3f);
        Some(match byte >> 6 {
            0 => Run { rank: 0, length: six_bits + 1, bytes: 1 },
            1 => {
                let low = value.get(at + 1).copied().unwrap_or(0);
                Run { rank: 0, length: (six_bits << 8 | usize::from(low)) + 1, bytes: 2 }
            }
            _ => Run { rank: (byte >> 2 & 0x1f) + 1, length: usize::from(byte & 3) + 1, bytes: 1 },
        })
    }
}

/// Where a run begins.
#[derive(Clone, Copy, PartialEq)]
struct Place {
    /// Its first byte in the value.
    at: usize,
    /// The index of its first register.
    first: usize,
}

impl Default for Place {
    fn default() -> Place {
        Place { at: HEADER_BYTES, first: 0 }
    }
}

fn value_run(rank: u8, length: usize) -> u8 {
    0x80 | (rank - 1) << 2 | (length - 1) as u8
}

/// Up to three encoded runs.
#[derive(Default)]
struct Runs {
    bytes: [u8; 5],
    used: usize,
}

impl Runs {
    fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.used]
    }

    /// Appends a run of that many registers of a rank; nothing if there are none.
    fn of(&mut self, rank: u8, length: usize) -> &mut Runs {
        match (rank, length) {
            (_, 0) => self,
            (0, _) => self.zeros(length),
            _ => self.push(value_run(rank, length)),
        }
    }

    fn zeros(&mut self, length: usize) -> &mut Runs {
        let [high, low] = ((length - 1) as u16).to_be_bytes();
        if length <= ZERO_RUN_MAX { self.push(low) } else { self.push(0x40 | high).push(low) }
    }

    fn push(&mut self, byte: u8) -> &mut Runs {
        self.bytes[self.used] = byte;
        self.used += 1;
        self
    }
}

/// The number of elements, from how many registers have which rank: the improved raw estimator of Otmar
/// Ertl, "New cardinality estimation algorithms for HyperLogLog sketches" (2017), algorithm 6. It needs
/// no corrections for small or large numbers. The order of the operations is part of the format: the
/// result is stored.
fn estimate(histogram: &[usize; RANKS]) -> i64 {
    let (registers, saturated) = (REGISTERS as f64, RANK_BITS as usize + 1);
    let part = |count: usize| count as f64 / registers;
    let mut z = registers * tau(part(REGISTERS - histogram[saturated]));
    for count in histogram[1..saturated].iter().rev() {
        z = (z + *count as f64) * 0.5;
    }
    z += registers * sigma(part(histogram[0]));
    let estimate = (0.5 / std::f64::consts::LN_2 * registers * registers / z).round();
    // Registers that no hash produces may give an estimate that does not fit. Redis's processor then converts
    // it to the lowest number, which Redis stores, and so do we.
    if estimate < i64::MAX as f64 { estimate as i64 } else { i64::MIN }
}

/// The contribution of saturated registers.
fn tau(mut x: f64) -> f64 {
    if x == 0.0 || x == 1.0 {
        return 0.0;
    }
    let (mut y, mut z) = (1.0, 1.0 - x);
    loop {
        x = x.sqrt();
        y *= 0.5;
        let before = z;
        z -= (1.0 - x) * (1.0 - x) * y;
        if z == before {
            return z / 3.0;
        }
    }
}

/// The contribution of registers that are zero.
fn sigma(mut x: f64) -> f64 {
    if x == 1.0 {
        return f64::INFINITY;
    }
    let (mut y, mut z) = (1.0, x);
    loop {
        x *= x;
        let before = z;
        z += x * y;
        y += y;
        if z == before {
            return z;
        }
    }
}

/// Austin Appleby's MurmurHash64A.
fn murmur(bytes: &[u8], seed: u64) -> u64 {
    const FACTOR: u64 = 0xc6a4_a793_5bd1_e995;
    const SHIFT: u32 = 47;
    let mix = |word: u64| word ^ word >> SHIFT;
    let (words, rest) = bytes.as_chunks::<8>();
    let mut hash = seed ^ (bytes.len() as u64).wrapping_mul(FACTOR);
    for word in words {
        let word = mix(u64::from_le_bytes(*word).wrapping_mul(FACTOR)).wrapping_mul(FACTOR);
        hash = (hash ^ word).wrapping_mul(FACTOR);
    }
    if !rest.is_empty() {
        let rest = rest.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
        hash = (hash ^ rest).wrapping_mul(FACTOR);
    }
    mix(mix(hash).wrapping_mul(FACTOR))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    fn filled(elements: u32, limit: usize) -> Vec<u8> {
        let mut value = create();
        for element in 0..elements {
            assert!(add(&mut value, &element.to_le_bytes(), limit).is_ok());
        }
        value
    }

    #[test]
    fn both_forms_give_the_same_registers_and_estimate() {
        for elements in [0, 1, 10, 100, 1000, 10_000] {
            let (sparse, mut dense) = (filled(elements, usize::MAX), filled(elements, 0));
            assert!(!is_dense(&sparse) && is_dense(&dense) == (elements > 0));
            assert_eq!(count(&sparse), count(&dense));
            let mut promoted = sparse.clone();
            assert_eq!(make_dense(&mut promoted), Ok(()));
            assert_eq!(make_dense(&mut dense), Ok(()));
            assert!(promoted == dense);
        }
    }

    #[test]
    fn the_estimate_is_within_its_error_bound() {
        for elements in [1, 10, 100, 1000, 10_000, 100_000] {
            let estimate = count(&filled(elements, 3000)).unwrap_or(-1) as f64;
            let error = (estimate - f64::from(elements)).abs() / f64::from(elements);
            assert!(error < 0.03, "{elements} elements were taken for {estimate}");
        }
    }

    #[test]
    fn any_bytes_are_accepted_or_refused_without_a_panic() {
        let mut random = Rng::of_run();
        let whole = filled(300, usize::MAX);
        for _ in 0..20_000 {
            let mut value = whole.clone();
            for _ in 0..=random.below(3) {
                let at = HEADER_BYTES + random.below(value.len() - HEADER_BYTES);
                value[at] = random.below(256) as u8;
            }
            value.truncate(HEADER_BYTES + random.below(2 * value.len()));
            let total = || for_runs(&value, |_, _| {}).is_ok();
            assert_eq!(count(&value).is_ok(), total());
            let before = value.clone();
            let element = random.next_u64().to_le_bytes();
            if add(&mut value, &element, random.below(1000)).is_err() {
                assert!(value == before, "a refused value was changed");
            }
            let _ = (describe_runs(&value), make_dense(&mut value));
        }
    }
}
