//! Which history of changes the log holds: an id of 40 hexadecimal digits, and an offset for each LSN.
//!
//! Two servers with the same id and the same offset have the same data. So the id must change wherever two
//! histories could part. A replica that becomes a master takes a new id. So does a master that starts
//! again, because a power loss may have taken the end of its log, which a replica has; the replica that is
//! ahead then asks for what the old id does not cover, and gets everything anew. The old ids remain known,
//! each with the offset up to which it was this history, so those that were replicas of it continue.
//!
//! # In the log
//!
//! An annotation of the log says `#replid <id> <offset>`: from here on the id is this one, and the stream
//! has this offset here. (Redis skips such lines if they have less than 128 characters.) A rewrite repeats
//! the old ids. Nothing is written before somebody asks for the stream, so the log of a server without
//! replicas has no annotations. Until then the offset is 0, as in Redis.
//!
//! The lock is below those of the log.

use std::hash::{BuildHasher, RandomState};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

use crate::aof::ANNOTATION;
use crate::stats::lock;

/// An id.
pub type Id = String;

/// The length of an id.
const ID_DIGITS: usize = 40;
/// So many old ids are remembered.
const OLD_IDS: usize = 8;

/// 160 random bits, from the seeds that the standard library draws for its hash maps.
pub fn random_id() -> Id {
    let random = || RandomState::new().hash_one(0u8);
    format!("{:016x}{:016x}{:08x}", random(), random(), random() as u32)
}

/// The identity of the stream.
pub struct Identity {
    state: Mutex<State>,
    /// The offset of an LSN is larger by this, with wraparound.
    shift: AtomicU64,
    /// Whether offsets are counted.
    counts: AtomicBool,
    /// How many other histories there were before this one.
    history: AtomicU64,
}

struct State {
    id: Id,
    /// The ids that the history had before, the oldest first, each with the offset at which it ended.
    old: Vec<(Id, u64)>,
    /// The log names the id.
    announced: bool,
}

/// The ids of a history.
#[derive(Debug, PartialEq, Eq)]
pub struct Ids {
    pub id: Id,
    /// The id before, and the offset at which it ended.
    pub old: Option<(Id, u64)>,
}

impl Default for Identity {
    fn default() -> Identity {
        let state = State { id: random_id(), old: Vec::new(), announced: false };
        Identity {
            state: Mutex::new(state),
            shift: AtomicU64::new(0),
            counts: AtomicBool::new(false),
            history: AtomicU64::new(0),
        }
    }
}

impl Identity {
    pub fn id(&self) -> Id {
        lock(&self.state).id.clone()
    }

    pub fn ids(&self) -> Ids {
        let state = lock(&self.state);
        Ids { id: state.id.clone(), old: state.old.last().cloned() }
    }

    /// The offset at an LSN.
    pub fn offset(&self, lsn: u64) -> u64 {
        if self.counts.load(SeqCst) { lsn.wrapping_add(self.shift.load(SeqCst)) } else { 0 }
    }

    /// The LSN of an offset. One that no LSN had gives an LSN that will not exist either.
    pub fn lsn(&self, offset: u64) -> u64 {
        offset.wrapping_sub(self.shift.load(SeqCst))
    }

    /// The number of the history. With another one, nothing that was read before goes on.
    pub fn history(&self) -> u64 {
        self.history.load(SeqCst)
    }

    /// Whether that id, up to that offset, is a part of this history.
    pub fn covers(&self, id: &[u8], offset: u64) -> bool {
        let state = lock(&self.state);
        let is_old = |(old, end): &(Id, u64)| old.as_bytes() == id && offset <= *end;
        state.id.as_bytes() == id || state.old.iter().any(is_old)
    }

    /// Whether the log names the id.
    pub fn is_announced(&self) -> bool {
        lock(&self.state).announced
    }

    /// Returns the annotation with the id, for the end of the log at that LSN.
    pub fn announce(&self, lsn: u64) -> Vec<u8> {
        self.announce_locked(&mut lock(&self.state), lsn)
    }

    fn announce_locked(&self, state: &mut State, lsn: u64) -> Vec<u8> {
        if !self.counts.load(SeqCst) {
            self.shift.store(1u64.wrapping_sub(lsn), SeqCst); // as in Redis, the first is 1
            self.counts.store(true, SeqCst);
        }
        state.announced = true;
        line(&state.id, self.offset(lsn))
    }

    /// Goes on under another id from that LSN on. Returns the annotation for the log.
    pub fn change(&self, id: Id, lsn: u64) -> Vec<u8> {
        let mut state = lock(&self.state);
        state.change(id, self.offset(lsn));
        self.announce_locked(&mut state, lsn)
    }

    /// Begins another history, which has this id and this offset at that LSN.
    pub fn begin(&self, id: Id, offset: u64, lsn: u64) {
        let mut state = lock(&self.state);
        self.history.fetch_add(1, SeqCst);
        *state = State { id, old: Vec::new(), announced: true };
        self.shift.store(offset.wrapping_sub(lsn), SeqCst);
        self.counts.store(true, SeqCst);
    }

    /// Begins a history of which nobody has a part: the log has missed changes.
    pub fn renew(&self) {
        let mut state = lock(&self.state);
        self.history.fetch_add(1, SeqCst);
        *state = State { id: random_id(), old: Vec::new(), announced: false };
        self.counts.store(false, SeqCst);
    }

    /// The annotations of a log that begins with a snapshot of that LSN: all ids that are still known.
    pub fn annotations(&self, lsn: u64) -> Vec<u8> {
        let mut state = lock(&self.state);
        if !self.counts.load(SeqCst) {
            return Vec::new();
        }
        state.announced = true;
        let mut begin = 0;
        let mut text = Vec::new();
        for (id, end) in &state.old {
            text.extend(line(id, begin));
            begin = *end;
        }
        if begin > 0 {
            text.extend(line(&state.id, begin));
        }
        text.extend(line(&state.id, self.offset(lsn)));
        text
    }

    /// Takes the history from the annotations of a log that is `length` bytes long; each has its position in
    /// the file behind it. Returns the places of the stream in the file: offsets, which are LSNs from now
    /// on, and positions. What is not an annotation of this kind is ignored.
    pub fn load(&self, annotations: &[(Vec<u8>, u64)], length: u64) -> Vec<(u64, u64)> {
        let mut state = lock(&self.state);
        let mut places: Vec<(u64, u64)> = Vec::new();
        for (text, position) in annotations {
            let Some((id, offset)) = parse(text) else { continue };
            // What the line before has told goes on here, unless this one belongs to the head of a
            // rewritten log.
            let begins = position - text.len() as u64;
            let goes_on = |(at, from): &(u64, u64)| offset.checked_sub(*at) == Some(begins - from);
            if !places.last().is_some_and(goes_on) {
                places.clear();
            }
            places.push((offset, *position));
            if state.announced && state.id != id {
                state.change(id, offset);
            } else {
                state.id = id;
            }
            state.announced = true;
        }
        if let Some((offset, position)) = places.last() {
            debug_assert!(*position <= length && offset.checked_add(length).is_some());
            self.counts.store(true, SeqCst);
        }
        places
    }

    /// Takes a new id at the end of a log that was loaded: see the module. The log is to name it only once
    /// somebody asks.
    pub fn start_as_master(&self, lsn: u64) {
        let mut state = lock(&self.state);
        if state.announced {
            state.change(random_id(), self.offset(lsn));
            state.announced = false;
        }
    }
}

impl State {
    fn change(&mut self, id: Id, offset: u64) {
        let old = std::mem::replace(&mut self.id, id);
        self.old.push((old, offset));
        if self.old.len() > OLD_IDS {
            self.old.remove(0);
        }
    }
}

/// The annotation that from here on the id is this one, and the offset here is this.
pub fn line(id: &str, offset: u64) -> Vec<u8> {
    [ANNOTATION, format!("{id} {offset}\r\n").as_bytes()].concat()
}

fn parse(line: &[u8]) -> Option<(Id, u64)> {
    let text = std::str::from_utf8(line.strip_prefix(ANNOTATION)?).ok()?;
    let (id, offset) = text.trim_end().split_once(' ')?;
    let offset = offset.parse().ok()?;
    is_place(id, offset).then(|| (id.into(), offset))
}

/// Whether these are an id and an offset that can still grow.
pub fn is_place(id: &str, offset: u64) -> bool {
    let is_id = id.len() == ID_DIGITS && id.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_id && offset < 1 << 62
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(digit: char) -> Id {
        digit.to_string().repeat(ID_DIGITS)
    }

    /// The annotations of a log in which so many bytes precede each line; and its length, with what follows.
    fn log(lines: &[(u64, Vec<u8>)], rest: u64) -> (Vec<(Vec<u8>, u64)>, u64) {
        let mut position = 0;
        let placed = lines.iter().map(|(before, line)| {
            position += before + line.len() as u64;
            (line.clone(), position)
        });
        let placed = placed.collect();
        (placed, position + rest)
    }

    #[test]
    fn a_server_without_replicas_counts_from_0_and_annotates_nothing() {
        let identity = Identity::default();
        assert_eq!((identity.offset(700), identity.annotations(700)), (0, Vec::new()));
        assert_eq!(identity.announce(700), line(&identity.id(), 1));
        assert_eq!((identity.offset(700), identity.offset(712), identity.lsn(13)), (1, 13, 712));
    }

    #[test]
    fn a_history_is_found_again_in_the_log_with_its_ids_and_places() {
        let lines = [(100, line(&id('a'), 5)), (50, line(&id('b'), 55)), (20, line(&id('c'), 75))];
        let (placed, length) = log(&lines, 7);
        let identity = Identity::default();
        let places = identity.load(&placed, length);
        let positions: Vec<u64> = placed.iter().map(|(_, position)| *position).collect();
        assert_eq!(places, [(5, positions[0]), (55, positions[1]), (75, positions[2])]);
        assert_eq!(identity.ids(), Ids { id: id('c'), old: Some((id('b'), 75)) });
        let covers = |digit, offset| identity.covers(id(digit).as_bytes(), offset);
        assert!(covers('a', 55) && !covers('a', 56) && covers('b', 75) && !covers('b', 76));
        assert!(covers('c', 999) && !covers('d', 1));
        // A rewrite at 80 keeps that, and the stream begins behind its snapshot.
        let head = identity.annotations(80);
        let lines: Vec<(u64, Vec<u8>)> =
            head.split_inclusive(|byte| *byte == b'\n').map(|line| (0, line.to_vec())).collect();
        let again = Identity::default();
        let (placed, length) = log(&lines, 0);
        assert_eq!(again.load(&placed, length), [(80, length)]);
        assert_eq!(again.ids(), identity.ids());
        assert!(again.covers(id('a').as_bytes(), 55) && !again.covers(id('a').as_bytes(), 56));
    }

    #[test]
    fn a_start_as_master_takes_a_new_id_and_the_log_names_it_once_it_is_asked_for() {
        let identity = Identity::default();
        let (placed, length) = log(&[(9, line(&id('a'), 1000))], 30);
        identity.load(&placed, length);
        identity.start_as_master(1030);
        let Ids { id: new, old } = identity.ids();
        assert_eq!(old, Some((id('a'), 1030)));
        assert!(new != id('a') && !identity.is_announced());
        assert_eq!(identity.announce(1040), line(&new, 1040));
        // That of a log that names none is not the end of anything.
        let fresh = Identity::default();
        let before = fresh.id();
        fresh.start_as_master(0);
        assert_eq!(fresh.ids(), Ids { id: before, old: None });
    }

    #[test]
    fn what_is_not_such_an_annotation_is_ignored() {
        for bad in ["#replid x 1\r\n", "#replid \r\n", "#replid  1\r\n", "#replid é 1\r\n"] {
            assert_eq!(parse(bad.as_bytes()), None, "{bad}");
        }
        let hex = id('a');
        for bad in
            [format!("{hex}\r\n"), format!("{hex} -1\r\n"), format!("{hex} {}\r\n", u64::MAX)]
        {
            assert_eq!(parse(format!("#replid {bad}").as_bytes()), None, "{bad}");
        }
        assert_eq!(parse(&line(&hex, 7)), Some((hex, 7)));
    }
}
