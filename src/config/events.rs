//! Keyspace events: what happened to a key, for those who subscribe to the channels on which it is told.
//!
//! Events have classes, each with a letter in `notify-keyspace-events`. Only what that setting asks for is
//! noted at all, so a server of which nobody wants to hear pays one load where an event would be. Handlers
//! say what happened to their view; the dispatcher publishes it when the change has been logged.
//!
//! The letters, the names of the events and of their channels are Redis's
//! (<https://redis.io/docs/latest/develop/pubsub/keyspace-notifications/>).

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// A class of events, or several.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Class(u32);

/// The classes that `A` stands for. Of some there is no event here, as there is no such type.
const IN_ALL: &str = "g$lshzxetd";
/// Every letter in the order in which they are shown. (Behind `A`, Redis 7 does not show `n`.)
const LETTERS: &str = "g$lshzxetdnKEm";

impl Class {
    /// Of keys whatever they hold: `del`, `expire`, `rename_from`.
    pub const GENERIC: Class = Class::of(b'g');
    /// Of strings.
    pub const STRING: Class = Class::of(b'$');
    /// Of hashes.
    pub const HASH: Class = Class::of(b'h');
    /// A key has expired and was removed.
    pub const EXPIRED: Class = Class::of(b'x');
    /// A key is there that was not.
    pub const NEW: Class = Class::of(b'n');
    /// A key was read that is not there.
    pub const KEY_MISS: Class = Class::of(b'm');
    /// Not a class: events are told on the channels of keys.
    pub const KEYSPACE: Class = Class::of(b'K');
    /// Not a class: events are told on the channels of events.
    pub const KEYEVENT: Class = Class::of(b'E');

    const fn of(letter: u8) -> Class {
        let mut place = 0;
        while LETTERS.as_bytes()[place] != letter {
            place += 1;
        }
        Class(1 << place)
    }

    /// These and those.
    pub const fn or(self, other: Class) -> Class {
        Class(self.0 | other.0)
    }

    const fn has(self, other: Class) -> bool {
        self.0 & other.0 == other.0
    }

    fn all() -> Class {
        IN_ALL.bytes().fold(Class(0), |all, letter| all.or(Class::of(letter)))
    }

    /// Those of the letters, unless one is unknown.
    pub fn parse(text: &str) -> Option<Class> {
        text.bytes().try_fold(Class(0), |so_far, letter| match letter {
            b'A' => Some(so_far.or(Class::all())),
            _ if LETTERS.as_bytes().contains(&letter) => Some(so_far.or(Class::of(letter))),
            _ => None,
        })
    }

    /// The letters, in one order however they were given.
    pub fn letters(self) -> String {
        let is_all = self.has(Class::all());
        let hidden = |letter: &char| is_all && (IN_ALL.contains(*letter) || *letter == 'n');
        let set = LETTERS.chars().filter(|letter| self.has(Class::of(*letter as u8)));
        let all = if is_all { "A" } else { "" };
        all.chars().chain(set.filter(|letter| !hidden(letter))).collect()
    }
}

/// The classes that are wanted: the setting.
#[derive(Default)]
pub struct Wanted(AtomicU32);

impl Wanted {
    /// Whether events of one of the classes are.
    #[inline(always)]
    pub fn has(&self, class: Class) -> bool {
        self.0.load(Relaxed) & class.0 != 0
    }

    /// All of them.
    pub fn get(&self) -> Class {
        Class(self.0.load(Relaxed))
    }

    /// From now on these.
    pub fn set(&self, classes: Class) {
        self.0.store(classes.0, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_shown_in_one_order_and_none_is_unknown() {
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
