//! The classes of keyspace events, which tell subscribers what happened to a key, and the setting.
//!
//! Each class has a letter in the setting `notify-keyspace-events`. Events of other classes are not even
//! recorded, so without that setting an event costs one atomic load. A handler reports an event to its view;
//! the dispatcher publishes it once the change is in the log.
//!
//! The letters and the names of events and channels are those of Redis
//! (<https://redis.io/docs/latest/develop/pubsub/keyspace-notifications/>).

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// A set of event classes, often just one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EventClass(u32);

/// The classes that `A` stands for. Some belong to types that we do not have.
const IN_ALL: &str = "g$lshzxetd";
/// All letters, in the order in which they are shown. (With `A`, Redis
/// does not show `n`, `o` and `c`.)
const LETTERS: &str = "g$lshzxetdnocKEm";

impl EventClass {
    /// Events of keys of any type: `del`, `expire`, `rename_from`.
    pub const GENERIC: EventClass = EventClass::of(b'g');
    /// Events of strings.
    pub const STRING: EventClass = EventClass::of(b'$');
    /// Events of hashes.
    pub const HASH: EventClass = EventClass::of(b'h');
    /// A key was removed because it has expired.
    pub const EXPIRED: EventClass = EventClass::of(b'x');
    /// A key was removed because its memory was needed.
    pub const EVICTED: EventClass = EventClass::of(b'e');
    /// A key was created.
    pub const NEW: EventClass = EventClass::of(b'n');
    /// A key was overwritten.
    pub const OVERWRITTEN: EventClass = EventClass::of(b'o');
    /// A key now holds a value of another type.
    pub const TYPE_CHANGED: EventClass = EventClass::of(b'c');
    /// A read found no key.
    pub const KEY_MISS: EventClass = EventClass::of(b'm');
    /// Not a class: publishes events on the channels named after keys.
    pub const KEYSPACE: EventClass = EventClass::of(b'K');
    /// Not a class: publishes events on the channels named after events.
    pub const KEYEVENT: EventClass = EventClass::of(b'E');

    const fn of(letter: u8) -> EventClass {
        let mut place = 0;
        while LETTERS.as_bytes()[place] != letter {
            place += 1;
        }
        EventClass(1 << place)
    }

    /// The union of both sets.
    pub const fn or(self, other: EventClass) -> EventClass {
        EventClass(self.0 | other.0)
    }

    const fn has(self, other: EventClass) -> bool {
        self.0 & other.0 == other.0
    }

    fn all() -> EventClass {
        IN_ALL.bytes().fold(EventClass(0), |all, letter| all.or(EventClass::of(letter)))
    }

    /// The classes of the letters; `None` if a letter is unknown.
    pub fn parse(text: &str) -> Option<EventClass> {
        text.bytes().try_fold(EventClass(0), |so_far, letter| match letter {
            b'A' => Some(so_far.or(EventClass::all())),
            _ if LETTERS.as_bytes().contains(&letter) => Some(so_far.or(EventClass::of(letter))),
            _ => None,
        })
    }

    /// The letters of the classes, in a fixed order.
    pub fn letters(self) -> String {
        let is_all = self.has(EventClass::all());
        let hidden =
            |letter: &char| is_all && (IN_ALL.contains(*letter) || "noc".contains(*letter));
        let set = LETTERS.chars().filter(|letter| self.has(EventClass::of(*letter as u8)));
        let all = if is_all { "A" } else { "" };
        all.chars().chain(set.filter(|letter| !hidden(letter))).collect()
    }
}

/// The value of the setting: the classes of events to publish.
#[derive(Default)]
pub struct WantedEvents(AtomicU32);

impl WantedEvents {
    /// Whether any of the classes is wanted.
    #[inline(always)]
    pub fn has(&self, class: EventClass) -> bool {
        self.0.load(Relaxed) & class.0 != 0
    }

    /// All wanted classes.
    pub fn get(&self) -> EventClass {
        EventClass(self.0.load(Relaxed))
    }

    /// Replaces the wanted classes.
    pub fn set(&self, classes: EventClass) {
        self.0.store(classes.0, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_shown_in_a_fixed_order_and_unknown_ones_are_refused() {
        for (given, shown) in [
            ("", ""),
            ("EK", "KE"),
            ("KEA", "AKE"),
            ("xm$gK", "g$xKm"),
            ("g$lshzxetdE", "AE"),
            ("nK", "nK"),
            ("AnmK", "AKm"),
            ("gdnocKEmt", "gtdnocKEm"),
            ("AocnE", "AE"),
        ] {
            assert_eq!(EventClass::parse(given).map(EventClass::letters).as_deref(), Some(shown));
        }
        assert!(EventClass::parse("KEA ").is_none() && EventClass::parse("k").is_none());
    }
}
