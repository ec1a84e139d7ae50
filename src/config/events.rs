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
pub struct Class(u32);

/// The classes that `A` stands for. Some belong to types that we do not have.
const IN_ALL: &str = "g$lshzxetd";
/// All letters, in the order in which they are shown. (Redis 7 does not show `n` together with `A`.)
const LETTERS: &str = "g$lshzxetdnKEm";

impl Class {
    /// Events of keys of any type: `del`, `expire`, `rename_from`.
    pub const GENERIC: Class = Class::of(b'g');
    /// Events of strings.
    pub const STRING: Class = Class::of(b'$');
    /// Events of hashes.
    pub const HASH: Class = Class::of(b'h');
    /// A key was removed because it has expired.
    pub const EXPIRED: Class = Class::of(b'x');
    /// A key was created.
    pub const NEW: Class = Class::of(b'n');
    /// A read found no key.
    pub const KEY_MISS: Class = Class::of(b'm');
    /// Not a class: publishes events on the channels named after keys.
    pub const KEYSPACE: Class = Class::of(b'K');
    /// Not a class: publishes events on the channels named after events.
    pub const KEYEVENT: Class = Class::of(b'E');

    const fn of(letter: u8) -> Class {
        let mut place = 0;
        while LETTERS.as_bytes()[place] != letter {
            place += 1;
        }
        Class(1 << place)
    }

    /// The union of both sets.
    pub const fn or(self, other: Class) -> Class {
        Class(self.0 | other.0)
    }

    const fn has(self, other: Class) -> bool {
        self.0 & other.0 == other.0
    }

    fn all() -> Class {
        IN_ALL.bytes().fold(Class(0), |all, letter| all.or(Class::of(letter)))
    }

    /// The classes of the letters; `None` if a letter is unknown.
    pub fn parse(text: &str) -> Option<Class> {
        text.bytes().try_fold(Class(0), |so_far, letter| match letter {
            b'A' => Some(so_far.or(Class::all())),
            _ if LETTERS.as_bytes().contains(&letter) => Some(so_far.or(Class::of(letter))),
            _ => None,
        })
    }

    /// The letters of the classes, in a fixed order.
    pub fn letters(self) -> String {
        let is_all = self.has(Class::all());
        let hidden = |letter: &char| is_all && (IN_ALL.contains(*letter) || *letter == 'n');
        let set = LETTERS.chars().filter(|letter| self.has(Class::of(*letter as u8)));
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
    pub fn has(&self, class: Class) -> bool {
        self.0.load(Relaxed) & class.0 != 0
    }

    /// All wanted classes.
    pub fn get(&self) -> Class {
        Class(self.0.load(Relaxed))
    }

    /// Replaces the wanted classes.
    pub fn set(&self, classes: Class) {
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
        ] {
            assert_eq!(Class::parse(given).map(Class::letters).as_deref(), Some(shown));
        }
        assert!(Class::parse("KEA ").is_none() && Class::parse("k").is_none());
    }
}
