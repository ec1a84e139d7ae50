//! The rules that say what a user may do, as in
//! [`ACL SETUSER`](https://redis.io/docs/latest/commands/acl-setuser/): how they are applied to a user, and
//! how its rights are shown as rules again.
//!
//! The error texts and the shown rules are those of Redis. Applied to a new user, shown rules make the same
//! user, except for some patterns in selectors; the rules for a file always do.

use super::lookup::{by_name, rows};
use super::options::is;
use super::spec::Command;
use crate::session::users::{ChannelRights, CommandRights, KeyRights, KeyUse, Selector, User};
use crate::text::{quote, sha256, split_quoted};

/// Redis's categories, in its order. Those of types that this server lacks are empty.
pub const CATEGORIES: [&str; 21] = [
    "keyspace",
    "read",
    "write",
    "set",
    "sortedset",
    "list",
    "hash",
    "string",
    "bitmap",
    "hyperloglog",
    "geo",
    "stream",
    "pubsub",
    "admin",
    "fast",
    "slow",
    "blocking",
    "dangerous",
    "connection",
    "transaction",
    "scripting",
];

/// What is wrong with a rule.
type Wrong = &'static str;

const SYNTAX: Wrong = "Syntax error";
/// The rule names nothing that exists here.
pub const UNKNOWN: Wrong = "Unknown command or category name in ACL";

/// Joins the words of each selector: one that begins with `(` goes on to the one that ends with `)`.
///
/// # Errors
/// The first word of a selector that does not end.
pub fn join_selectors<'a>(words: impl Iterator<Item = &'a [u8]>) -> Result<Vec<Vec<u8>>, &'a [u8]> {
    let mut rules: Vec<Vec<u8>> = Vec::new();
    let mut open: Option<&[u8]> = None;
    for word in words {
        match open {
            Some(_) => rules.last_mut().into_iter().for_each(|rule| {
                rule.push(b' ');
                rule.extend(word);
            }),
            None => rules.push(word.to_vec()),
        }
        let begins = open.or(word.starts_with(b"(").then_some(word));
        open = begins.filter(|_| !word.ends_with(b")"));
    }
    open.map_or(Ok(rules), Err)
}

/// Applies rules to a user, from left to right. A new user, and one that is reset, may use all channels or
/// none.
///
/// # Errors
/// The first rule that cannot be applied, and what is wrong with it.
pub fn apply<'a>(
    user: &mut User,
    rules: &'a [Vec<u8>],
    all_channels: bool,
) -> Result<(), (&'a [u8], Wrong)> {
    let mut apply = |rule: &'a Vec<u8>| {
        apply_one(user, rule, all_channels).map_err(|wrong| (rule.as_slice(), wrong))
    };
    rules.iter().try_for_each(&mut apply)
}

fn apply_one(user: &mut User, rule: &[u8], all_channels: bool) -> Result<(), Wrong> {
    match rule.to_ascii_lowercase().as_slice() {
        b"" => {}
        b"on" => user.enabled = true,
        b"off" => user.enabled = false,
        b"nopass" => {
            user.nopass = true;
            user.passwords.clear();
        }
        b"resetpass" => {
            user.nopass = false;
            user.passwords.clear();
        }
        b"sanitize-payload" => user.skips_sanitizing = false,
        b"skip-sanitize-payload" => user.skips_sanitizing = true,
        b"clearselectors" => user.selectors.clear(),
        b"reset" => *user = User::new(&user.name, all_channels),
        _ => match rule {
            [b'>' | b'#' | b'<' | b'!', password @ ..] => {
                apply_password(user, rule[0], password)?;
            }
            [b'(', inside @ .., b')'] => {
                let mut selector = Selector::new(all_channels);
                for word in selector_words(inside) {
                    apply_to_selector(&mut selector, &word)?;
                }
                user.selectors.push(selector);
            }
            _ => apply_to_selector(&mut user.root, rule)?,
        },
    }
    Ok(())
}

/// The words between the brackets of a selector. They may be quoted. As in Redis, a null character ends them,
/// and there are none if a quote is not closed.
fn selector_words(inside: &[u8]) -> Vec<Vec<u8>> {
    let end = inside.iter().position(|byte| *byte == 0).unwrap_or(inside.len());
    split_quoted(&inside[..end]).unwrap_or_default()
}

/// `>` and `#` add a password or its digest, `<` and `!` remove it.
fn apply_password(user: &mut User, sign: u8, password: &[u8]) -> Result<(), Wrong> {
    let digest = match sign {
        b'>' | b'<' => sha256::digest(password),
        _ => sha256::from_hex(password).ok_or(
            "The password hash must be exactly 64 characters and contain only lowercase hexadecimal \
             characters",
        )?,
    };
    let place = user.passwords.iter().position(|known| *known == digest);
    match (sign, place) {
        (b'>' | b'#', place) => {
            user.nopass = false;
            if place.is_none() {
                user.passwords.push(digest);
            }
        }
        (_, Some(place)) => _ = user.passwords.remove(place),
        (_, None) => {
            return Err("The password you are trying to remove from the user does not exist");
        }
    }
    Ok(())
}

fn apply_to_selector(selector: &mut Selector, rule: &[u8]) -> Result<(), Wrong> {
    match rule.to_ascii_lowercase().as_slice() {
        b"allkeys" | b"~*" => selector.keys = KeyRights { all: true, patterns: Vec::new() },
        b"resetkeys" => selector.keys = KeyRights::default(),
        b"allchannels" | b"&*" => {
            selector.channels = ChannelRights { all: true, patterns: Vec::new() };
        }
        b"resetchannels" => selector.channels = ChannelRights::default(),
        b"alldbs" => selector.databases = None,
        b"resetdbs" => selector.databases = Some(Vec::new()),
        [b'd', b'b', b'=', list @ ..] => selector.databases = Some(parse_databases(list)?),
        b"allcommands" | b"+@all" => selector.commands.set_all(true),
        b"nocommands" | b"-@all" => selector.commands.set_all(false),
        [b'+', b'@', category @ ..] => apply_category(&mut selector.commands, category, true)?,
        [b'-', b'@', category @ ..] => apply_category(&mut selector.commands, category, false)?,
        [b'+', name @ ..] => apply_command(&mut selector.commands, name, true)?,
        [b'-', name @ ..] => apply_command(&mut selector.commands, name, false)?,
        _ => match rule {
            [b'~' | b'%', ..] => add_key_pattern(&mut selector.keys, rule)?,
            [b'&', pattern @ ..] => add_channel_pattern(&mut selector.channels, pattern)?,
            _ => return Err(SYNTAX),
        },
    }
    Ok(())
}

/// The numbers after `db=`, in order.
fn parse_databases(list: &[u8]) -> Result<Vec<usize>, Wrong> {
    let parse = |number: &[u8]| {
        let digits = number.strip_prefix(b"-").or(number.strip_prefix(b"+")).unwrap_or(number);
        if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
            return Err(SYNTAX);
        }
        let number = str::from_utf8(number).ok().and_then(|number| number.parse::<i32>().ok());
        let db = number.and_then(|number| usize::try_from(number).ok());
        db.ok_or("The provided database ID is out of range")
    };
    let mut databases =
        list.split(|byte| *byte == b',').map(parse).collect::<Result<Vec<_>, _>>()?;
    databases.sort_unstable();
    databases.dedup();
    Ok(databases)
}

fn add_channel_pattern(channels: &mut ChannelRights, pattern: &[u8]) -> Result<(), Wrong> {
    if channels.all {
        return Err(
            "Adding a pattern after the * pattern (or the 'allchannels' flag) is not valid and does not \
             have any effect. Try 'resetchannels' to start with an empty list of channels",
        );
    }
    if pattern.iter().any(|byte| is_space(*byte)) {
        return Err(SYNTAX);
    }
    channels.add(pattern);
    Ok(())
}

/// `~pattern`, `%R~pattern`, `%W~pattern`, `%RW~pattern`. The last one is shown like the first, so with `*`
/// it must mean all keys like that one.
fn add_key_pattern(keys: &mut KeyRights, rule: &[u8]) -> Result<(), Wrong> {
    if keys.all {
        return Err(
            "Adding a pattern after the * pattern (or the 'allkeys' flag) is not valid and does not have \
             any effect. Try 'resetkeys' to start with an empty list of patterns",
        );
    }
    let (granted, pattern) = match rule {
        [b'~', pattern @ ..] => (KeyUse { reads: true, writes: true }, pattern),
        [b'%', rest @ ..] => {
            // As in Redis, `%R` alone is `%R~`: it grants the empty key.
            let end = rest.iter().position(|byte| *byte == b'~').unwrap_or(rest.len());
            let granted = match rest[..end].to_ascii_uppercase().as_slice() {
                b"R" => KeyUse { reads: true, writes: false },
                b"W" => KeyUse { reads: false, writes: true },
                b"RW" | b"WR" => KeyUse { reads: true, writes: true },
                _ => return Err(SYNTAX),
            };
            (granted, rest.get(end + 1..).unwrap_or_default())
        }
        _ => return Err(SYNTAX),
    };
    if pattern.iter().any(|byte| is_space(*byte)) {
        return Err(SYNTAX);
    }
    keys.add(granted, pattern);
    if keys.allows_every_use_of(b"*") {
        *keys = KeyRights { all: true, patterns: Vec::new() };
    }
    Ok(())
}

/// Allows or forbids the commands of a category, with all of their subcommands.
fn apply_category(commands: &mut CommandRights, name: &[u8], allow: bool) -> Result<(), Wrong> {
    let category = CATEGORIES.iter().find(|category| is(name, category)).ok_or(UNKNOWN)?;
    for (group, row) in rows() {
        if row.categories(group).iter().any(|found| found[1..] == **category) {
            set(commands, row, allow);
        }
    }
    commands.note_rule(allow, format!("@{category}").as_bytes());
    Ok(())
}

/// Allows or forbids a command with its subcommands, or a subcommand. `+name|arg`, where that is no
/// subcommand, allows the command with this first argument.
fn apply_command(commands: &mut CommandRights, name: &[u8], allow: bool) -> Result<(), Wrong> {
    if let Some((_, row)) = by_name(name) {
        set(commands, row, allow);
        commands.note_rule(allow, row.name.as_bytes());
        return Ok(());
    }
    let bar = name.iter().rposition(|byte| *byte == b'|').filter(|_| allow).ok_or(UNKNOWN)?;
    let (container, first_arg) = (&name[..bar], &name[bar + 1..]);
    let (_, row) = by_name(container).ok_or(UNKNOWN)?;
    if container.contains(&b'|') {
        return Err("Allowing first-arg of a subcommand is not supported");
    }
    if first_arg.is_empty() || first_arg.iter().any(|byte| is_space(*byte)) {
        return Err(SYNTAX);
    }
    if !row.subcommands().is_empty() {
        return Err(UNKNOWN);
    }
    commands.allow_first_arg(row.id, &first_arg.to_ascii_lowercase());
    commands.note_rule(allow, &name.to_ascii_lowercase());
    Ok(())
}

/// Allows or forbids a command with its subcommands.
fn set(commands: &mut CommandRights, row: &Command, allow: bool) {
    std::iter::once(row).chain(row.subcommands()).for_each(|row| commands.set(row.id, allow));
}

/// White space separates rules, so it may not be part of one. Neither may a null character, as in Redis.
pub fn is_space(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == b'\x0b' || byte == 0
}

// ---- Showing -----------------------------------------------------------------------------------------

/// The rules that make the user, in the order in which Redis shows them. A selector is shown as if its words
/// could not be mistaken: one that ends with a bracket seems to end the selector.
pub fn describe(user: &User) -> Vec<u8> {
    describe_with(user, describe_selector)
}

/// The same for a file: quoted are those words of selectors that would be read in another way.
pub fn describe_for_file(user: &User) -> Vec<u8> {
    describe_with(user, |selector| {
        let shown = describe_selector(selector);
        shown.split(|byte| *byte == b' ').map(readable_word).collect::<Vec<_>>().join(&b' ')
    })
}

fn readable_word(word: &[u8]) -> Vec<u8> {
    if !word.ends_with(b")") && !word.iter().any(|byte| matches!(byte, b'"' | b'\'')) {
        return word.into();
    }
    let mut quoted = Vec::new();
    quote(word, &mut quoted);
    quoted
}

fn describe_with(user: &User, describe_inside: impl Fn(&Selector) -> Vec<u8>) -> Vec<u8> {
    let mut words: Vec<Vec<u8>> = flags(user).into_iter().map(Vec::from).collect();
    words.extend(user.passwords.iter().map(|digest| format!("#{}", sha256::to_hex(digest)).into()));
    words.push(describe_selector(&user.root));
    for selector in &user.selectors {
        words.push([b"(", &*describe_inside(selector), b")"].concat());
    }
    words.join(&b' ')
}

/// What a user is apart from passwords and selectors.
pub fn flags(user: &User) -> Vec<&'static str> {
    let mut flags = vec![if user.enabled { "on" } else { "off" }];
    flags.extend(user.nopass.then_some("nopass"));
    flags.push(if user.skips_sanitizing { "skip-sanitize-payload" } else { "sanitize-payload" });
    flags
}

fn describe_selector(selector: &Selector) -> Vec<u8> {
    let mut words = vec![describe_keys(&selector.keys)];
    if !selector.channels.all {
        words.push(b"resetchannels".into());
    }
    words.push(describe_channels(&selector.channels));
    if let Some(databases) = &selector.databases {
        words.push(if databases.is_empty() {
            b"resetdbs".into()
        } else {
            describe_databases(databases)
        });
    }
    words.push(describe_commands(&selector.commands));
    words.retain(|word| !word.is_empty());
    words.join(&b' ')
}

/// The rules about commands.
pub fn describe_commands(commands: &CommandRights) -> Vec<u8> {
    let mut words = vec![if commands.from_all { b"+@all".to_vec() } else { b"-@all".to_vec() }];
    for (allow, name) in &commands.rules {
        words.push([if *allow { b"+" } else { b"-" }, name.as_slice()].concat());
    }
    words.join(&b' ')
}

/// The rules about keys; empty if there are none.
pub fn describe_keys(keys: &KeyRights) -> Vec<u8> {
    if keys.all {
        return b"~*".into();
    }
    let describe = |(granted, pattern): &(KeyUse, Vec<u8>)| {
        let sign: &[u8] = match granted {
            KeyUse { writes: false, .. } => b"%R~",
            KeyUse { reads: false, .. } => b"%W~",
            _ => b"~",
        };
        [sign, pattern].concat()
    };
    keys.patterns.iter().map(describe).collect::<Vec<_>>().join(&b' ')
}

/// The rules about channels; empty if there are none.
pub fn describe_channels(channels: &ChannelRights) -> Vec<u8> {
    if channels.all {
        return b"&*".into();
    }
    let describe = |pattern: &Vec<u8>| [b"&", pattern.as_slice()].concat();
    channels.patterns.iter().map(describe).collect::<Vec<_>>().join(&b' ')
}

/// The rule about databases; empty if there is none that may be used.
pub fn describe_databases(databases: &[usize]) -> Vec<u8> {
    let numbers: Vec<String> = databases.iter().map(usize::to_string).collect();
    if numbers.is_empty() { Vec::new() } else { format!("db={}", numbers.join(",")).into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    /// Parts of rules; random rules are made of some of them.
    const PARTS: [&[u8]; 38] = [
        b"resetdbs",
        b"db=1",
        b"+",
        b"-",
        b"@",
        b"|",
        b"~",
        b"%R~",
        b"%W~",
        b"%RW~",
        b"&",
        b"(",
        b")",
        b" ",
        b"*",
        b"a*",
        b">",
        b"<",
        b"#",
        b"!",
        b"on",
        b"off",
        b"reset",
        b"resetkeys",
        b"resetchannels",
        b"nopass",
        b"all",
        b"read",
        b"get",
        b"set",
        b"config",
        b"select",
        b"\"",
        b"\\",
        b"\xff",
        b"\0",
        b"\r\n",
        b"ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb",
    ];

    #[test]
    fn any_bytes_are_a_rule_or_an_error_and_what_is_shown_makes_the_same_user() {
        let mut random = Rng::of_run();
        let (mut applied, mut refused) = (0, 0);
        for _ in 0..2000 {
            let all_channels = random.below(2) == 0;
            let mut user = User::new(b"u", all_channels);
            for _ in 0..random.below(30) {
                let parts = 1 + random.below(4);
                let word = |random: &mut Rng| -> Vec<u8> {
                    (0..parts).flat_map(|_| PARTS[random.below(PARTS.len())]).copied().collect()
                };
                let words: Vec<Vec<u8>> =
                    (0..1 + random.below(3)).map(|_| word(&mut random)).collect();
                let Ok(rules) = join_selectors(words.iter().map(Vec::as_slice)) else { continue };
                let mut changed = user.clone();
                match apply(&mut changed, &rules, all_channels) {
                    Ok(()) => user = changed,
                    Err(_) => refused += 1,
                }
                applied += 1;
            }
            let shown = describe_for_file(&user);
            let words = shown.split(|byte| *byte == b' ');
            let Ok(rules) = join_selectors(words) else { panic!("{}", shown.escape_ascii()) };
            let mut again = User::new(b"u", !all_channels);
            if let Err((rule, wrong)) = apply(&mut again, &rules, !all_channels) {
                panic!("{}: {wrong} in {}", rule.escape_ascii(), shown.escape_ascii());
            }
            assert_eq!(
                describe_for_file(&again).escape_ascii().to_string(),
                shown.escape_ascii().to_string()
            );
            for (_, row) in rows() {
                let may = |user: &User| user.root.commands.allows(row.id, Some(b"get"));
                assert_eq!(may(&user), may(&again), "{} in {}", row.name, shown.escape_ascii());
            }
        }
        assert!(applied > refused && refused > 0, "{refused} of {applied} refused");
    }
}
