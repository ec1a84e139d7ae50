//! The generator: random commands from the command table.
//!
//! Each row is equally likely, except that rows that flush or swap whole databases are rare. The row's
//! syntax names the words, and a word's name there selects how it is generated. The pools below hold
//! words that are likely to matter: few keys, so that commands meet each other's values; the limits of
//! integers; text that is almost a number; binary data. One command in twelve is broken on purpose.
//!
//! It avoids words that would make two runs of the same commands differ. An expiry time is in the past or
//! far away; each relative one is used only once, a thousand seconds from all others, so the order of two
//! does not depend on the milliseconds between the commands. No offset makes a string long.

use std::sync::LazyLock;

use respite::commands::{self, Command as Row, Handler, subcommand_name};

use super::grammar::{self, Part, WordSource};
use crate::harness::{Reply, split_command};
use crate::rng::Rng;

/// A command with its arguments.
pub(super) type Words = Vec<Vec<u8>>;

/// A row from which commands are generated, with its parsed syntax.
pub(super) struct Candidate {
    pub(super) group: &'static str,
    pub(super) row: &'static Row,
    parts: Vec<Part>,
}

impl Candidate {
    pub(super) fn new(group: &'static str, row: &'static Row) -> Candidate {
        Candidate { group, row, parts: grammar::parse(row.syntax) }
    }

    /// The same row with the arguments that another server documents: see [`grammar::documented`].
    pub(super) fn documented(&self, arguments: &Reply) -> Candidate {
        let parts = grammar::parse(&grammar::documented(arguments));
        Candidate { group: self.group, row: self.row, parts }
    }
}

/// Connection commands that take part. The replies of the others depend on the connection.
const OF_SESSIONS: [&str; 3] = ["echo", "ping", "select"];
/// The table marks their replies as nondeterministic, but [`super::compare`] can judge them.
const COMPARABLE: [&str; 7] = ["scan", "hscan", "ttl", "pttl", "httl", "hpttl", "object|encoding"];
/// Commands about the server or about how it stores its data.
const LEFT_OUT: [&str; 4] = ["debug", "lolwut", "memory", "object|refcount"];

/// The rows that take part: those that read or write data and have a deterministic reply.
pub(super) static ALL: LazyLock<Vec<Candidate>> = LazyLock::new(|| {
    let rows = commands::all().flat_map(|(group, row)| {
        std::iter::once(row).chain(row.subcommands()).map(move |row| (group, row))
    });
    let takes_part = |row: &Row| {
        let container = row.name.split('|').next().unwrap_or_default();
        let is_random = row.tips.contains(&"nondeterministic_output");
        let is_on_data = match row.handler {
            Handler::Read(_) | Handler::ReadAll(_) => !is_random || COMPARABLE.contains(&row.name),
            Handler::Write(_) | Handler::WriteAll(_) => true,
            Handler::Session(_) => OF_SESSIONS.contains(&row.name),
            _ => false,
        };
        is_on_data && !LEFT_OUT.contains(&row.name) && !LEFT_OUT.contains(&container)
    };
    rows.filter(|(_, row)| takes_part(row)).map(|(group, row)| Candidate::new(group, row)).collect()
});

/// A stream of commands.
pub(super) struct Generator<'a> {
    random: Rng,
    rows: Vec<&'a Candidate>,
    /// The row of the command being generated.
    current: &'a Candidate,
    /// The number of relative expiry times so far.
    relative_times: usize,
}

impl<'a> Generator<'a> {
    /// Generates commands from these rows. The same seed gives the same commands.
    pub(super) fn new(seed: u64, rows: Vec<&'a Candidate>) -> Generator<'a> {
        let current = rows[0];
        Generator { random: Rng::new(seed), rows, current, relative_times: 0 }
    }

    pub(super) fn command(&mut self) -> Words {
        loop {
            let candidate = self.below(self.rows.len());
            self.current = self.rows[candidate];
            if !matches!(self.current.row.handler, Handler::WriteAll(_)) || self.below(30) == 0 {
                break;
            }
        }
        let row = self.current.row;
        let mut words = Vec::new();
        if let Some((container, _)) = row.name.split_once('|') {
            words.push(self.token(container));
        }
        words.push(self.token(subcommand_name(row)));
        grammar::generate(&self.current.parts, self, &mut words);
        if self.below(12) == 0 {
            self.corrupt(&mut words);
        }
        if row.syntax.contains("offset") {
            words.iter_mut().skip(1).filter(|word| makes_long(word)).for_each(|word| {
                *word = b"7".to_vec();
            });
        }
        words
    }

    /// Makes a change that is likely to cause an error.
    fn corrupt(&mut self, words: &mut Words) {
        let (place, other) = (self.below(words.len()), self.below(words.len()));
        // A small number must not end up in the place of an expiry time.
        let is_timed = self.current.row.syntax.contains("seconds");
        match self.below(7) {
            0 => words.truncate(1 + place),
            1 if words.len() > 1 => _ = words.remove(place.max(1)),
            2 => words.insert(1 + place, words[place].clone()),
            3 => {
                let token = self.one_of("NX GET COUNT EX KEEPTTL BIT nonsense");
                words.insert(1 + place, token.into());
            }
            4 if !is_timed && place > 0 && other > 0 => words.swap(place, other),
            5 if !is_timed && place > 0 => words[place] = self.integer(),
            6 if self.below(10) == 0 => words[0] = b"nonsense".to_vec(),
            _ if !is_timed => words.push(self.text()),
            _ => words.push(b"nonsense".to_vec()),
        }
    }

    /// A random word of the pool.
    fn one_of<'p>(&mut self, pool: &'p str) -> &'p str {
        let count = pool.split_whitespace().count();
        let place = self.below(count);
        pool.split_whitespace().nth(place).unwrap_or_default()
    }

    /// A random word of a pool of quoted words.
    fn quoted(&mut self, pool: &str) -> Vec<u8> {
        split_command(self.one_of(pool)).remove(0)
    }

    /// A key, mostly one that holds the type of the command's group.
    fn key(&mut self) -> Vec<u8> {
        let own = match self.current.group {
            "string" => Some("s"),
            "bitmap" => Some("b"),
            "hash" => Some("h"),
            "hyperloglog" => Some("p"),
            _ => None,
        };
        if self.below(40) == 0 {
            return self.quoted(r#""" "\x00\r\n\xff" a*[b]? missing "k\x201""#);
        }
        let kind = match own {
            Some(own) if self.below(8) > 0 => own,
            _ => self.one_of("s b h p"),
        };
        format!("{kind}{}", self.below(5)).into_bytes()
    }

    fn field(&mut self) -> Vec<u8> {
        match self.below(10) {
            0..6 => format!("f{}", self.below(8)).into_bytes(),
            6..8 => format!("field:{}", self.below(600)).into_bytes(),
            8 => self.quoted(r#""" "\xfe\x00\r\n" 7 -1 FIELDS f*"#),
            _ => self.text(),
        }
    }

    /// A value of any kind.
    fn text(&mut self) -> Vec<u8> {
        match self.below(16) {
            0..6 => self.integer(),
            6..8 => self.float(),
            8..11 => self.quoted(r#""" a b ohmytext mynewtext Hello"#),
            // Around the lengths at which Redis changes the encoding, and a longer one.
            11 => vec![b'x'; [43, 44, 45, 63, 64, 65, 66, 300][self.below(8)]],
            12 => self.quoted(r#""\x00" "\xff\xfe" "\r\n$3\r\n" "caf\xc3\xa9""#),
            13 => (0..self.below(40)).map(|_| self.below(256) as u8).collect(),
            _ => (0..self.below(12)).map(|_| b'a' + self.below(3) as u8).collect(),
        }
    }

    fn integer(&mut self) -> Vec<u8> {
        match self.below(10) {
            0..4 => (self.below(12) as i64 - 3).to_string().into_bytes(),
            4..7 => (self.below(600) as i64 - 300).to_string().into_bytes(),
            _ => self.quoted(INTEGERS),
        }
    }

    fn float(&mut self) -> Vec<u8> {
        self.quoted(FLOATS)
    }

    fn offset(&mut self) -> Vec<u8> {
        match self.below(8) {
            0..5 => self.below(300).to_string().into_bytes(),
            5 => format!("#{}", self.below(30)).into_bytes(),
            6 => self.below(4000).to_string().into_bytes(),
            _ => self.quoted(OFFSETS),
        }
    }

    /// A time to live, or an absolute expiry time, in seconds or milliseconds.
    fn time(&mut self, per_second: i64, absolute: bool) -> Vec<u8> {
        match self.below(12) {
            0 => self.quoted(TIMES),
            1 => self.quoted("0 -1 -100 -9223372036854775808"),
            2 if absolute => (1000 + self.below(2)).to_string().into_bytes(),
            _ if absolute => {
                (4_102_444_800 * per_second + self.below(3) as i64).to_string().into_bytes()
            }
            _ => {
                self.relative_times += 1;
                ((1_000_000 + self.relative_times as i64 * 1000) * per_second)
                    .to_string()
                    .into_bytes()
            }
        }
    }
}

impl WordSource for Generator<'_> {
    fn below(&mut self, end: usize) -> usize {
        self.random.below(end)
    }

    fn token(&mut self, token: &str) -> Vec<u8> {
        match self.below(4) {
            0 => token.to_ascii_uppercase().into_bytes(),
            1 => token.chars().map(|c| self.random_case(c)).collect(),
            _ => token.to_ascii_lowercase().into_bytes(),
        }
    }

    fn count(&mut self, actual: usize) -> Vec<u8> {
        match self.below(12) {
            0 => self.integer(),
            1 => (actual + 1).to_string().into_bytes(),
            2 => actual.saturating_sub(1).to_string().into_bytes(),
            _ => actual.to_string().into_bytes(),
        }
    }

    fn value(&mut self, name: &str) -> Vec<u8> {
        let is_bitmap = self.current.group == "bitmap";
        let is_float = self.current.row.name.contains("float");
        match name {
            "db" | "destination-db" | "index" | "index1" | "index2" => match self.below(20) {
                0 => self.integer(),
                1 => self.quoted("15 16 -1 x 2147483648"),
                _ => self.below(3).to_string().into_bytes(),
            },
            "source" | "destination" => self.key(),
            name if name.contains("key") => self.key(),
            name if name.contains("field") => self.field(),
            "seconds" => self.time(1, false),
            "milliseconds" => self.time(1000, false),
            "unix-time-seconds" => self.time(1, true),
            "unix-time-milliseconds" => self.time(1000, true),
            "pattern" => self.quoted(PATTERNS),
            name if name.contains("channel") => self.one_of("news news.a chat c1").into(),
            // Not `none`, which makes Redis find keys that have expired and were not yet deleted.
            "type" => self.quoted(r#"string HASH hash zset list """#),
            // Only a first page that is the whole can be compared: other pages depend on the server's
            // order.
            "cursor" => self.quoted(r#"0 0 0 0 00 -0 x "" 1x 99999999999999999999"#),
            // A partial page is not compared, so half of the counts ask for everything.
            "count" if self.below(2) == 0 => b"1000000".to_vec(),
            "encoding" => self.encoding(),
            "subcommand" => {
                let name = self.one_of("GETREG ENCODING TODENSE DECODE nonsense");
                self.token(name)
            }
            "bit" | "value" if is_bitmap && self.below(3) > 0 => {
                self.below(2).to_string().into_bytes()
            }
            "value" if is_bitmap => self.integer(),
            "offset" => self.offset(),
            "increment" if is_float && self.below(4) > 0 => self.float(),
            name if name.contains("digest") => self.quoted(DIGESTS),
            name if name.contains("float") => self.float(),
            name if name.contains("value") || name == "element" || name == "message" => self.text(),
            _ if self.below(15) == 0 => self.text(),
            _ => self.integer(),
        }
    }
}

impl Generator<'_> {
    fn random_case(&mut self, c: char) -> u8 {
        let c = if self.below(2) == 0 { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() };
        c as u8
    }

    /// The encoding of an integer in a bitmap.
    fn encoding(&mut self) -> Vec<u8> {
        match self.below(8) {
            0 => self.quoted(r#"i0 u0 u64 i65 x8 i 8 u-1 i+8 i08 """#),
            1 => self.quoted("i64 u63 i1 u1 i63"),
            _ => format!("{}{}", self.one_of("i u"), 1 + self.below(62)).into_bytes(),
        }
    }
}

/// Whether this is an offset (of a byte, a bit or a field) that would make a string very long.
fn makes_long(word: &[u8]) -> bool {
    let digits = word.strip_prefix(b"#").unwrap_or(word);
    let number = str::from_utf8(digits).ok().and_then(|digits| digits.trim().parse::<i64>().ok());
    number.is_some_and(|number| (5000..1 << 32).contains(&number))
}

// The pools: words separated by spaces, quoted as in `redis-cli`.

const INTEGERS: &str = r#"
    0 -0 1 -1 +1 "\x201" "1\x20" 01 -01 "" - + abc 1.0 1e3 0x10 127 128 255 256 65535 2147483647 2147483648
    -2147483648 -2147483649 4294967295 4294967296 9007199254740993 4611686018427387904 9223372036854775806
    9223372036854775807 9223372036854775808 -9223372036854775807 -9223372036854775808 -9223372036854775809
    18446744073709551615 18446744073709551616 99999999999999999999999 "1\x00" "\xb9""#;

const FLOATS: &str = r#"
    0.1 -0.1 1.5 3.0e3 5.0e-2 1e10 .5 5. -.5 +2.5 1e-20 123456.789 1e17 0.30000000000000004 1e400 -1e400
    1e5000 1e-5000 nan inf -inf +inf infinity NaN(1) 0x1p3 0xA.8 1e e5 "\x201.5" "1.5\x20" 1.5x -0.0 3.0e+2
    1_000 1,5 170141183460469231731687303715884105728 99999999999999999 1e4931 "1.5\x00" 1.7e308 -1.7e308
    0.1e-4 1e-17 3.141592653589793238 9223372036854775807.5 5e-324 "" 1e+ +-1 --1 .  0x 1E5 INF"#;

const OFFSETS: &str = r#"
    -1 4294967296 4294967303 9223372036854775807 9223372036854775808 -9223372036854775808 536870912000 #-1
    #9223372036854775807 #x # x "" "\x201" 01 +1 1.0"#;

const TIMES: &str = r#"
    "" x 1.5 9223372036854775807 9223372036854775808 9223372036854775 9223372036854776 9223372036854774
    9223370000000000 9223370000000000000 "\x202000000000" 02000000000 1e10 -9223372036854775
    -9223372036854776 -9223372036854775809 18446744073709551616"#;

/// Includes the digest of the empty string.
const DIGESTS: &str = r#"2d06800538d394c2 2D06800538D394C2 0000000000000000 2d06800538d394c x """#;

const PATTERNS: &str = r#"
    * ? s* h? *1 [sh]* [^s]* [a-p]* [p-a]? [ [^ [] [s []s]* [s- \s* s\ \ ** *?* f[0-3] field:* "" s[0- *[^0-9]
    "\xfe*" F* a[*]* "a\\*\\[b\\]\\?" a*a*a*a*a*b [[]* [\]]* [\-]*"#;

#[test]
fn every_generated_command_has_a_number_of_words_that_its_row_accepts() {
    for candidate in ALL.iter() {
        let mut generator = Generator::new(1, vec![candidate]);
        for _ in 0..100 {
            let mut words = Vec::new();
            grammar::generate(&candidate.parts, &mut generator, &mut words);
            let count = 1 + usize::from(candidate.row.name.contains('|')) + words.len();
            assert!(candidate.row.accepts(count), "{} {:?}", candidate.row.name, words);
        }
    }
}
