//! Users with random rights: `ACL SETUSER`, what is shown of the user then, what `ACL DRYRUN` says of random
//! commands, and whether the user may really run them.
//!
//! Left out on purpose: PFMERGE without a source, for which Redis finds no key at all, so that it needs no
//! right to its destination; MIGRATE with both a key and KEYS, which is a syntax error, so that Redis looks
//! at no key; `%RW~*`, which Redis shows as `~*` although it does not mean that.

use respite::commands::{self, Handler};

use super::compare::{Difference, Pair};
use super::generator::{ALL, Candidate, Generator, Words};
use crate::harness::Client;
use crate::rng::Rng;

/// One step: what is sent, and by whom.
#[derive(Clone)]
pub(super) enum Step {
    /// An administrator changes the user by these rules.
    Rules(Words),
    /// An administrator asks whether the user may run a command.
    Asks(Words),
    /// The user runs a command.
    Runs(Words),
}

impl Step {
    pub(super) fn shown(&self) -> Words {
        let (before, words): (&[&str], _) = match self {
            Step::Rules(words) => (&["ACL", "SETUSER", "u"], words),
            Step::Asks(words) => (&["ACL", "DRYRUN", "u"], words),
            Step::Runs(words) => (&["as-user"], words),
        };
        let before = before.iter().map(|word| word.as_bytes().to_vec());
        before.chain(words.iter().cloned()).collect()
    }
}

/// What steps are made of.
pub(super) struct World {
    /// The rows that both servers have; without containers.
    rows: Vec<&'static Candidate>,
    /// Those of them that read or write data.
    on_data: Vec<&'static Candidate>,
    /// The names of all commands and subcommands that both have.
    names: Vec<&'static str>,
}

const CATEGORIES: &str = "keyspace read write set sortedset list hash string bitmap hyperloglog geo stream pubsub \
                          admin fast slow blocking dangerous connection transaction scripting READ Nonsense";
const KEY_PATTERNS: &str =
    "s* h* b? *1 p[0-2] s0 missing h*[13] ?? [^s]* k\\* x a) (b [)] \"q\" 'q' x\" q'x \"q)\"";
const CHANNEL_PATTERNS: &str = "news news* news.? chat c[0-9] s* *";
const FIRST_ARGS: &str = "0 1 s0 S1 get set nonsense h*";
const OTHERS: &str = "on off nopass resetpass >a >b <a >a reset clearselectors sanitize-payload \
                      skip-sanitize-payload #ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb \
                      !ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb ON";
const BROKEN: &str = "+ - +@ ~ & % %X~a %~a xyz (xyz) +get|x|y -get|x +config|nonsense +client|id|x +nonsense #a \
                      () (+get (+get)) ((+get) +get) (~a)) (~a)b (~\"a\\x00b\") (\"~a\") (\"\") ) +get)";

impl World {
    pub(super) fn new(pair: &mut Pair) -> World {
        let all = commands::all().flat_map(|(group, row)| {
            std::iter::once(row).chain(row.subcommands()).map(move |row| (group, row))
        });
        let known: Vec<_> = all.filter(|(_, row)| pair.knows(row.name)).collect();
        let is_single = |handler: &Handler| !matches!(handler, Handler::Container(..));
        let rows = known.iter().filter(|(_, row)| is_single(&row.handler));
        // A few hundred bytes for each row, as long as the test runs.
        let leak = |&(group, row): &_| -> &'static Candidate {
            Box::leak(Box::new(Candidate::new(group, row)))
        };
        World {
            rows: rows.map(leak).collect(),
            on_data: ALL.iter().filter(|candidate| pair.knows(candidate.row.name)).collect(),
            names: known.iter().map(|(_, row)| row.name).collect(),
        }
    }

    /// The steps of a seed.
    pub(super) fn steps(&self, seed: u64, count: usize) -> Vec<Step> {
        let mut random = Rng::new(seed);
        let mut any = Generator::new(random.next_u64(), self.rows.clone());
        let mut on_data = Generator::new(random.next_u64(), self.on_data.clone());
        let step = || match random.below(8) {
            0 => Step::Rules(self.rules(&mut random)),
            1..5 => Step::Asks(any.command()),
            _ => Step::Runs(on_data.command()),
        };
        let is_odd = |words: &Words| {
            let is = |name: &str| words[0].eq_ignore_ascii_case(name.as_bytes());
            let has_keys = || words.iter().any(|word| word.eq_ignore_ascii_case(b"keys"));
            let has_key = || words.get(3).is_some_and(|key| !key.is_empty());
            is("pfmerge") && words.len() == 2 || is("migrate") && has_keys() && has_key()
        };
        let is_compared = |step: &Step| match step {
            Step::Rules(_) => true,
            Step::Asks(words) | Step::Runs(words) => !is_odd(words),
        };
        std::iter::repeat_with(step).filter(is_compared).take(count).collect()
    }

    fn rules(&self, random: &mut Rng) -> Words {
        let mut words = Vec::new();
        for _ in 0..=random.below(5) {
            match random.below(12) {
                0..7 => words.push(self.rule(random)),
                7..9 => words.push(one_of(random, OTHERS)),
                9 if random.below(3) == 0 => words.push(one_of(random, BROKEN)),
                _ => {
                    let rules: Words = (0..random.below(5)).map(|_| self.rule(random)).collect();
                    let selector = [b"(", &*rules.join(&b' '), b")"].concat();
                    if random.below(2) == 0 {
                        words.push(selector);
                    } else {
                        words.extend(selector.split(|byte| *byte == b' ').map(<[u8]>::to_vec));
                    }
                }
            }
        }
        words
    }

    /// A rule about commands, keys or channels.
    fn rule(&self, random: &mut Rng) -> Vec<u8> {
        let sign = if random.below(3) == 0 { "-" } else { "+" };
        let name = self.names[random.below(self.names.len())];
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("a word of UTF-8");
        let rule = match random.below(14) {
            0..3 => format!("{sign}{name}"),
            3 => format!("{sign}{}", name.to_uppercase()),
            4 => format!("{sign}{name}|{}", text(one_of(random, FIRST_ARGS))),
            5..8 => format!("{sign}@{}", text(one_of(random, CATEGORIES))),
            8 => text(one_of(random, "+@all -@all allcommands nocommands +@ALL")),
            9 => text(one_of(random, "allkeys resetkeys ~* %R~* resetkeys resetkeys")),
            10 => text(one_of(random, "allchannels resetchannels &* resetchannels")),
            11 => format!("&{}", text(one_of(random, CHANNEL_PATTERNS))),
            _ => {
                let sign = text(one_of(random, "~ ~ %R~ %W~ %RW~ %wr~"));
                format!("{sign}{}", text(one_of(random, KEY_PATTERNS)))
            }
        };
        rule.into_bytes()
    }
}

fn one_of(random: &mut Rng, pool: &str) -> Vec<u8> {
    let words: Vec<&str> = pool.split_whitespace().collect();
    words[random.below(words.len())].into()
}

/// Takes the steps on both servers. Returns the first difference.
pub(super) fn difference(pair: &mut Pair, steps: &[Step]) -> Option<Difference> {
    let mut both = pair.connect().map(|mut admin| {
        admin.expect("FLUSHALL", "+OK");
        admin.reply("ACL DELUSER u");
        admin.expect("ACL SETUSER u on nopass resetchannels", "+OK");
        let mut user = admin.another();
        user.expect("AUTH u any", "+OK");
        (admin, user)
    });
    for (number, step) in steps.iter().enumerate() {
        let [ours, theirs] = both.each_mut().map(|(admin, user)| take(step, admin, user));
        if ours != theirs {
            return Some(Difference { step: number, ours, theirs });
        }
    }
    None
}

/// Takes a step. Returns what must be the same on both servers.
fn take(step: &Step, admin: &mut Client, user: &mut Client) -> String {
    match step {
        Step::Rules(_) => {
            let reply = admin.call(&step.shown()).to_string();
            format!("{reply} {} {}", admin.reply("ACL GETUSER u"), admin.reply("ACL LIST"))
        }
        Step::Asks(_) => admin.call(&step.shown()).to_string(),
        // Other tests compare the replies of commands that are allowed.
        Step::Runs(words) => {
            let reply = user.call(words).to_string();
            if reply.starts_with("-NOPERM") { reply } else { "allowed".into() }
        }
    }
}
