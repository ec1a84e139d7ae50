//! `COMMAND`: the command table, as clients see it.
//!
//! Everything here is derived from the rows. `COMMAND DOCS` describes each argument, and `redis-cli` takes
//! its hints from that; the descriptions are parsed from the syntax of a row:
//!
//! | in the syntax | means |
//! |---|---|
//! | `key` | an argument of this name |
//! | `EX seconds` | an argument with a token |
//! | `KEEPTTL` | a token |
//! | `[…]` | optional |
//! | `a \| b` | one of several |
//! | `key value [key value ...]` | `key value`, once or more often |
//! | `FIELDS numfields …` | a block with a token, up to the end |
//!
//! What Redis says beyond that, such as the name of a group, is a column of the row: [`Command::arguments`].
//!
//! The command is described at <https://redis.io/docs/latest/commands/command/>.

use super::lookup::{by_called_name, callable_rows, find_row, subcommand_name};
use super::names::{callable, find};
use super::options::is;
use super::spec::{
    Command, Context, Family, Find, Flags, Handler, Keys, Outcome, command, is_key_name, session,
};
use crate::resp::{Args, CommandError, Reply};
use crate::text::glob;

const SHARED: Flags = Flags::ALWAYS.or(Flags::CONNECTION);
const ANY_ORDER: &[&str] = &["nondeterministic_output_order"];

/// `COMMAND`.
#[rustfmt::skip]
pub static FAMILY: Family = Family { group: "server", commands: &[
    command("command", "[subcommand] [argument ...]", Handler::Container(COMMANDS, Some(info_all)))
        .flags(SHARED).tips(ANY_ORDER)
        .doc("2.8.13", "O(N) where N is the number of commands",
             "Returns information about all commands; a container for more about commands."),
] };

#[rustfmt::skip]
const COMMANDS: &[Command] = &[
    session("command|count", "", count).flags(SHARED)
        .doc("2.8.13", "O(1)", "Returns the number of commands."),
    session("command|docs", "[command-name [command-name ...]]", docs).flags(SHARED).tips(ANY_ORDER)
        .doc("7.0.0", "O(N) where N is the number of commands", "Returns documentation about commands."),
    session("command|getkeys", "command [arg [arg ...]]", getkeys).flags(SHARED)
        .doc("2.8.13", "O(N) where N is the number of arguments", "Returns the keys of a call of a command."),
    session("command|getkeysandflags", "command [arg [arg ...]]", getkeysandflags).flags(SHARED)
        .doc("7.0.0", "O(N) where N is the number of arguments",
             "Returns the keys of a call of a command and how it accesses them."),
    help("command|help", "5.0.0").flags(SHARED),
    session("command|info", "[command-name [command-name ...]]", info).flags(SHARED).tips(ANY_ORDER)
        .history(&[("7.0.0", "Describes all commands if none is named.")])
        .doc("2.8.13", "O(N) where N is the number of commands", "Returns information about commands."),
    session("command|list", "[FILTERBY <MODULE module-name | ACLCAT category | PATTERN pattern>]", list)
        .flags(SHARED).tips(ANY_ORDER)
        .arguments(&["module-name-category-pattern=filterby"])
        .doc("7.0.0", "O(N) where N is the number of commands", "Returns the names of the commands."),
];

/// The row of a container's `HELP`.
pub(super) const fn help(name: &'static str, since: &'static str) -> Command {
    session(name, "", explain_container).flags(Flags::ALWAYS.or(Flags::HELP)).doc(
        since,
        "O(1)",
        "Prints this help.",
    )
}

fn explain_container(_: &mut Context, args: Args, reply: &mut Reply) -> Outcome {
    let rows = find(&args[0]).map_or(&[][..], Command::subcommands);
    let title = String::from_utf8_lossy(&args[0]).to_uppercase();
    explain_subcommands(&title, rows, reply);
    Ok(())
}

/// The reply to `HELP`: the subcommands, their arguments and summaries.
pub(super) fn explain_subcommands(title: &str, rows: &[Command], reply: &mut Reply) {
    let rows: Vec<&Command> = rows.iter().filter(|row| !row.has(Flags::HELP)).collect();
    reply.array(rows.len() * 2 + 3);
    reply.simple(&format!("{title} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"));
    for row in rows {
        let name = subcommand_name(row).to_uppercase();
        reply.simple(format!("{name} {}", row.syntax).trim_end());
        reply.simple(&format!("    {}", row.summary));
    }
    reply.simple("HELP");
    reply.simple("    Prints this help.");
}

fn count(_: &mut Context, _: Args, reply: &mut Reply) -> Outcome {
    reply.count(callable().count());
    Ok(())
}

fn list(_: &mut Context, args: Args, reply: &mut Reply) -> Outcome {
    let names: Vec<&str> = match args.len() {
        2 => callable_rows().map(|(_, row)| row.name).collect(),
        5 if is(&args[2], "FILTERBY") => {
            let wanted = &args[4];
            if is(&args[3], "MODULE") {
                Vec::new() // there are no modules
            } else if is(&args[3], "ACLCAT") {
                let is_in = |group: &str, row: &Command| {
                    row.categories(group).iter().any(|category| is(wanted, &category[1..]))
                };
                callable_rows()
                    .filter(|(group, row)| is_in(group, row))
                    .map(|(_, row)| row.name)
                    .collect()
            } else if is(&args[3], "PATTERN") {
                let names = callable_rows().map(|(_, row)| row.name);
                names.filter(|name| glob::matches_ignoring_case(wanted, name.as_bytes())).collect()
            } else {
                return Err(CommandError::SYNTAX);
            }
        }
        _ => return Err(CommandError::SYNTAX),
    };
    reply.array(names.len());
    names.iter().for_each(|name| reply.bulk(name.as_bytes()));
    Ok(())
}

fn getkeys(_: &mut Context, args: Args, reply: &mut Reply) -> Outcome {
    let inner = args.skip(2);
    let command = find_with_keys(inner)?;
    let specs = command.keys.iter().flatten();
    let keys: Vec<&[u8]> =
        specs.flat_map(|keys| command.keys_at(keys, inner).map(|(_, key)| key)).collect();
    reply.array(keys.len());
    keys.iter().for_each(|key| reply.bulk(key));
    Ok(())
}

fn getkeysandflags(_: &mut Context, args: Args, reply: &mut Reply) -> Outcome {
    let inner = args.skip(2);
    let command = find_with_keys(inner)?;
    let specs = command.keys.iter().flatten();
    let keys = specs
        .flat_map(|keys| command.keys_at(keys, inner).map(|(_, key)| (key, keys.access(inner))));
    let keys: Vec<(&[u8], &str)> = keys.collect();
    reply.array(keys.len());
    for (key, access) in keys {
        reply.array(2);
        reply.bulk(key);
        // The keys of a call are all there is, whatever the spec may miss.
        let flags: Vec<&str> = access.split(' ').filter(|flag| *flag != "incomplete").collect();
        reply.set(flags.len());
        flags.iter().for_each(|flag| reply.simple(flag));
    }
    Ok(())
}

/// The command of this call.
///
/// # Errors
/// There is no such command, it has no keys, or the call is invalid.
fn find_with_keys(inner: Args) -> Result<&'static Command, CommandError> {
    let invalid = |_| CommandError::new("ERR Invalid command specified");
    let command = find_row(inner).map_err(invalid)?;
    if command.keys[0].is_none_or(|keys| !keys.are_keys()) {
        return Err(CommandError::new("ERR The command has no key arguments"));
    }
    if !command.accepts(inner.len()) {
        return Err(CommandError::new("ERR Invalid number of arguments specified for command"));
    }
    let is_empty = |keys: &Keys| command.keys_at(keys, inner).next().is_none();
    let mut specs = command.keys.iter().flatten();
    // Keys that follow a word stand in place of the one key before.
    let lacks_keys = match command.keys[1] {
        Some(Keys { find: Find::Keyword(_), .. }) => specs.all(is_empty),
        _ => specs.any(is_empty),
    };
    if lacks_keys {
        return Err(CommandError::new("ERR Invalid arguments specified for command"));
    }
    Ok(command)
}

fn info_all(_: &mut Context, _: Args, reply: &mut Reply) -> Outcome {
    reply.array(callable().count());
    callable().for_each(|(group, row)| describe(group, row, reply));
    Ok(())
}

fn info(context: &mut Context, args: Args, reply: &mut Reply) -> Outcome {
    if args.len() == 2 {
        return info_all(context, args, reply);
    }
    reply.array(args.len() - 2);
    for name in args.from(2) {
        match by_called_name(name) {
            Some((group, row)) => describe(group, row, reply),
            None => reply.null(),
        }
    }
    Ok(())
}

/// One command of `COMMAND INFO`: name, arity, flags, keys, categories, tips, key specs, subcommands.
fn describe(group: &str, row: &Command, reply: &mut Reply) {
    let (first, last, step) = row.key_range();
    reply.array(10);
    reply.bulk(row.name.as_bytes());
    reply.integer(row.arity.into());
    let simple_set = |reply: &mut Reply, names: &[&str]| {
        reply.set(names.len());
        names.iter().for_each(|name| reply.simple(name));
    };
    simple_set(reply, &row.flag_names());
    reply.count(first);
    reply.integer(last.into());
    reply.count(step);
    simple_set(reply, &row.categories(group));
    reply.set(row.tips.len());
    row.tips.iter().for_each(|tip| reply.bulk(tip.as_bytes()));
    reply.set(row.keys.iter().flatten().count());
    for keys in row.keys.iter().flatten() {
        describe_keys(keys, reply);
    }
    let subcommands = row.subcommands();
    reply.set(subcommands.len());
    subcommands.iter().for_each(|row| describe(group, row, reply));
}

/// A key spec: its flags, where the keys begin, and how to find the others.
fn describe_keys(keys: &Keys, reply: &mut Reply) {
    reply.map(if keys.notes.is_empty() { 3 } else { 4 });
    if !keys.notes.is_empty() {
        reply.bulk(b"notes");
        reply.bulk(keys.notes.as_bytes());
    }
    reply.bulk(b"flags");
    let flags: Vec<&str> = keys.access.split(' ').collect();
    reply.set(flags.len());
    flags.iter().for_each(|flag| reply.simple(flag));
    let (first, step) = (keys.first as i64, keys.step as i64);
    let none = ("", "");
    match keys.find {
        Find::Keyword(word) => {
            let word = ("keyword", word);
            describe_part(reply, "begin_search", "keyword", word, &[("startfrom", -2)]);
        }
        _ => describe_part(reply, "begin_search", "index", none, &[("index", first)]),
    }
    match keys.find {
        Find::Range(last) => {
            // Here Redis counts from the first key, or from the end if negative.
            let last = i64::from(last) - if last < 0 { 0 } else { first };
            let range = [("lastkey", last), ("keystep", step), ("limit", 0)];
            describe_part(reply, "find_keys", "range", none, &range);
        }
        Find::Keyword(_) => {
            let range = [("lastkey", -1), ("keystep", step), ("limit", 0)];
            describe_part(reply, "find_keys", "range", none, &range);
        }
        Find::Number => {
            let number = [("keynumidx", 0), ("firstkey", 1), ("keystep", step)];
            describe_part(reply, "find_keys", "keynum", none, &number);
        }
    }
}

/// A part of a key spec: a word, if its name is not empty, and numbers.
fn describe_part(
    reply: &mut Reply,
    name: &str,
    kind: &str,
    word: (&str, &str),
    numbers: &[(&str, i64)],
) {
    reply.bulk(name.as_bytes());
    reply.map(2);
    reply.bulk(b"type");
    reply.bulk(kind.as_bytes());
    reply.bulk(b"spec");
    reply.map(numbers.len() + usize::from(!word.0.is_empty()));
    if !word.0.is_empty() {
        reply.bulk(word.0.as_bytes());
        reply.bulk(word.1.as_bytes());
    }
    for (name, number) in numbers {
        reply.bulk(name.as_bytes());
        reply.integer(*number);
    }
}

fn docs(_: &mut Context, args: Args, reply: &mut Reply) -> Outcome {
    let rows: Vec<(&str, &Command)> = match args.len() {
        2 => callable().collect(),
        _ => args.from(2).filter_map(by_called_name).collect(),
    };
    reply.map(rows.len());
    rows.iter().for_each(|(group, row)| explain(group, row, reply));
    Ok(())
}

/// One command of `COMMAND DOCS`.
fn explain(group: &str, row: &Command, reply: &mut Reply) {
    let arguments = match row.handler {
        Handler::Container(..) | Handler::Hidden(_) => Vec::new(),
        _ => refine(parse_syntax(row.syntax), row.arguments),
    };
    let has_flags = row.deprecated.is_some() || row.has(Flags::SYSTEM);
    let sections =
        [has_flags, !row.history.is_empty(), !arguments.is_empty(), !row.subcommands().is_empty()];
    let sections = sections.iter().filter(|is_there| **is_there).count();
    reply.bulk(row.name.as_bytes());
    reply.map(4 + sections + row.deprecated.map_or(0, |_| 2));
    for (title, text) in [
        ("summary", row.summary),
        ("since", row.since),
        ("group", group),
        ("complexity", row.complexity),
    ] {
        reply.bulk(title.as_bytes());
        reply.bulk(text.as_bytes());
    }
    if has_flags {
        reply.bulk(b"doc_flags");
        reply.set(1);
        reply.simple(if row.has(Flags::SYSTEM) { "syscmd" } else { "deprecated" });
    }
    if let Some((since, instead)) = row.deprecated {
        for (title, text) in [("deprecated_since", since), ("replaced_by", instead)] {
            reply.bulk(title.as_bytes());
            reply.bulk(text.as_bytes());
        }
    }
    if !row.history.is_empty() {
        reply.bulk(b"history");
        reply.set(row.history.len());
        for (version, change) in row.history {
            reply.array(2);
            reply.bulk(version.as_bytes());
            reply.bulk(change.as_bytes());
        }
    }
    if !arguments.is_empty() {
        reply.bulk(b"arguments");
        reply.array(arguments.len());
        // If a row has two key specs, the first is for one key and the second for the rest.
        let last = row.keys.iter().flatten().count().saturating_sub(1);
        let mut key_specs = (0..).map(|number: usize| number.min(last));
        arguments.iter().for_each(|argument| argument.explain(&mut key_specs, reply));
    }
    if !row.subcommands().is_empty() {
        reply.bulk(b"subcommands");
        reply.map(row.subcommands().len());
        row.subcommands().iter().for_each(|row| explain(group, row, reply));
    }
}

/// An argument, or several that form a group.
#[derive(Clone, Debug, PartialEq)]
struct Argument {
    name: String,
    /// Redis's name for its type.
    kind: &'static str,
    token: Option<String>,
    since: Option<&'static str>,
    optional: bool,
    multiple: bool,
    /// The token is repeated, too.
    multiple_token: bool,
    /// The parts of a `block`, the alternatives of a `oneof`.
    inner: Vec<Argument>,
}

impl Argument {
    fn new(name: &str, kind: &'static str) -> Argument {
        let (name, inner) = (name.into(), Vec::new());
        let (token, since) = (None, None);
        let (optional, multiple, multiple_token) = (false, false, false);
        Argument { name, kind, token, since, optional, multiple, multiple_token, inner }
    }

    /// Groups several arguments; a single one stays as it is.
    fn group(mut parts: Vec<Argument>, kind: &'static str) -> Argument {
        if parts.len() == 1 {
            return parts.remove(0);
        }
        let names: Vec<&str> = parts.iter().map(|part| part.name.as_str()).collect();
        let name = match names[0] {
            "nx" | "fnx" | "ifeq-value" => "condition".into(),
            "seconds" => "expiration".into(),
            "float" => "increment".into(),
            _ => names.join("-"),
        };
        let mut group = Argument::new(&name, kind);
        // `AUTH username password`: the token is the block's.
        if kind == "block" && parts[0].kind == "pure-token" {
            let token = parts.remove(0);
            group.name = token.name;
            group.token = token.token;
        }
        group.inner = parts;
        group
    }

    /// `key_specs` gives the index of the key spec of each argument that is a key.
    fn explain(&self, key_specs: &mut impl Iterator<Item = usize>, reply: &mut Reply) {
        let flags = [
            ("optional", self.optional),
            ("multiple", self.multiple),
            ("multiple_token", self.multiple_token),
        ];
        let flags: Vec<&str> = flags.iter().filter(|(_, is)| *is).map(|(name, _)| *name).collect();
        let (is_key, is_leaf) = (self.kind == "key", self.inner.is_empty());
        let (has_token, has_since) = (self.token.is_some(), self.since.is_some());
        // One of `display_text` and `arguments`, and what else there is.
        let fields = [is_key, has_token, has_since, !flags.is_empty()];
        reply.map(3 + fields.iter().filter(|is| **is).count());
        reply.bulk(b"name");
        reply.bulk(self.name.as_bytes());
        reply.bulk(b"type");
        reply.bulk(self.kind.as_bytes());
        if is_leaf {
            reply.bulk(b"display_text");
            reply.bulk(self.name.as_bytes());
        }
        if is_key {
            reply.bulk(b"key_spec_index");
            reply.count(key_specs.next().unwrap_or_default());
        }
        if let Some(token) = &self.token {
            reply.bulk(b"token");
            reply.bulk(token.as_bytes());
        }
        if let Some(since) = self.since {
            reply.bulk(b"since");
            reply.bulk(since.as_bytes());
        }
        if !flags.is_empty() {
            reply.bulk(b"flags");
            reply.set(flags.len());
            flags.iter().for_each(|flag| reply.simple(flag));
        }
        if !is_leaf {
            reply.bulk(b"arguments");
            reply.array(self.inner.len());
            self.inner.iter().for_each(|argument| argument.explain(key_specs, reply));
        }
    }
}

/// Applies what a row says of its arguments: see [`Command::arguments`].
fn refine(mut arguments: Vec<Argument>, notes: &'static [&'static str]) -> Vec<Argument> {
    for argument in &mut arguments {
        argument.inner = refine(std::mem::take(&mut argument.inner), notes);
        for note in notes {
            let (note, is_multiple) = note.strip_suffix('*').map_or((*note, false), |a| (a, true));
            let (note, since) = note.split_once('@').map_or((note, None), |(a, b)| (a, Some(b)));
            let (note, kind) = note.split_once(':').map_or((note, None), |(a, b)| (a, Some(b)));
            let (old, new) = note.split_once('=').unwrap_or((note, note));
            if argument.name == old {
                argument.name = new.into();
                argument.since = since.or(argument.since);
                argument.kind = kind.unwrap_or(argument.kind);
                argument.multiple |= is_multiple;
                break;
            }
        }
    }
    arguments.retain(|argument| !argument.name.is_empty());
    arguments
}

/// Parses the arguments of a syntax.
fn parse_syntax(syntax: &str) -> Vec<Argument> {
    let mut spaced = String::new();
    for c in syntax.chars() {
        match c {
            '[' | ']' | '<' | '>' => spaced.extend([' ', c, ' ']),
            c => spaced.push(c),
        }
    }
    sequence(&mut spaced.split_whitespace().peekable())
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

/// Parses arguments up to a closing bracket, a bar or the end.
fn sequence(words: &mut Words) -> Vec<Argument> {
    let mut found: Vec<Argument> = Vec::new();
    while let Some(word) = words.next_if(|word| !matches!(*word, "]" | ">" | "|")) {
        match word {
            "..." => {}
            "[" => {
                let mut option = alternatives(words);
                if !repeat(&mut found, &option) {
                    option.optional = true;
                    found.push(option);
                }
            }
            "<" => {
                let choice = alternatives(words);
                found.push(choice);
            }
            word if is_token(word) => {
                let mut token = Argument::new(&word.to_lowercase(), "pure-token");
                token.token = Some(word.into());
                // `FIELDS numfields field [field ...]`: a counted list is a block that goes on to the end.
                if words.peek() == Some(&"numfields") && !found.is_empty() {
                    let rest = sequence(words);
                    found.push(Argument { kind: "block", inner: rest, ..token });
                } else {
                    found.push(token);
                }
            }
            word => {
                let argument = Argument::new(word, kind_of(word));
                found.push(argument);
            }
        }
    }
    join_tokens(found)
}

/// Parses the content of brackets, and the closing bracket.
fn alternatives(words: &mut Words) -> Argument {
    let mut choices = Vec::new();
    loop {
        choices.push(Argument::group(sequence(words), "block"));
        if words.next() != Some("|") {
            return Argument::group(choices, "oneof");
        }
    }
}

/// `key value [key value ...]`: marks the arguments before the bracket as repeatable, if they are the same.
fn repeat(found: &mut Vec<Argument>, option: &Argument) -> bool {
    // `PREFIX prefix [PREFIX prefix ...]`
    let start = found.len().saturating_sub(2);
    if join_tokens(found[start..].to_vec()) == [option.clone()] && option.token.is_some() {
        found.truncate(start);
        let (multiple, multiple_token) = (true, true);
        found.push(Argument { multiple, multiple_token, ..option.clone() });
        return true;
    }
    let mut again =
        if option.kind == "block" { option.inner.clone() } else { vec![option.clone()] };
    if option.kind == "block" && option.token.is_some() {
        let token = Argument::new(&option.name, "pure-token");
        again.insert(0, Argument { token: option.token.clone(), ..token });
    }
    if !found.ends_with(&again) {
        return false;
    }
    let mut all = Argument::group(found.split_off(found.len() - again.len()), "block");
    all.multiple = true;
    if all.token.is_some() {
        all.multiple_token = true;
    } else if all.kind == "block" {
        all.name = "data".into();
    }
    found.push(all);
    true
}

/// Joins a token and one argument, such as `EX seconds`, to an argument with a token.
fn join_tokens(found: Vec<Argument>) -> Vec<Argument> {
    if found.len() != 2 || found[0].kind != "pure-token" {
        return found;
    }
    let [token, mut argument]: [Argument; 2] = match found.try_into() {
        Ok(pair) => pair,
        Err(found) => return found,
    };
    argument.token = token.token;
    vec![argument]
}

/// A token has capitals, digits and dashes.
fn is_token(word: &str) -> bool {
    word.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'-')
}

/// Redis's name for the type of an argument, which follows from its name.
fn kind_of(name: &str) -> &'static str {
    match name {
        _ if is_key_name(name.as_bytes()) => "key",
        "pattern" => "pattern",
        _ if name.starts_with("unix-time") => "unix-time",
        "increment" | "seconds" | "milliseconds" | "count" | "cursor" | "offset" | "start"
        | "end" | "db" | "index" | "index1" | "index2" | "decrement" | "protover" | "client-id"
        | "numkeys" | "min-match-len" | "integer" | "timeout" | "numreplicas" | "numlocal"
        | "destination-db" | "bit" | "bits" | "version" | "numfields" => "integer",
        "float" => "double",
        _ => "string",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The arguments in a short form: `name:kind`, `?` for optional, `*` for multiple, `**` for a multiple
    /// token, `(inner)`.
    fn short(arguments: &[Argument]) -> String {
        let one = |a: &Argument| {
            let token = a.token.as_ref().map(|token| format!("{token}=")).unwrap_or_default();
            let inner =
                if a.inner.is_empty() { "".into() } else { format!("({})", short(&a.inner)) };
            let mark = |is_set, mark| if is_set { mark } else { "" };
            let multiple_token = mark(a.multiple_token, "*");
            let marks = [mark(a.optional, "?"), mark(a.multiple, "*"), multiple_token];
            format!("{token}{}:{}{}{inner}", a.name, a.kind, marks.concat())
        };
        arguments.iter().map(one).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_arguments_follow_from_the_syntax() {
        let cases = [
            ("key", "key:key"),
            ("key [key ...]", "key:key*"),
            ("key [PREFIX prefix [PREFIX prefix ...]]", "key:key PREFIX=prefix:string?**"),
            (
                "[GET encoding offset [GET encoding offset ...]]",
                "GET=get:block?**(encoding:string offset:integer)",
            ),
            (
                "key FIELDS numfields field [field ...]",
                "key:key FIELDS=fields:block(numfields:integer field:string*)",
            ),
            ("numreplicas timeout", "numreplicas:integer timeout:integer"),
            ("key value [key value ...]", "data:block*(key:key value:string)"),
            (
                "cursor [MATCH pattern] [COUNT count]",
                "cursor:integer MATCH=pattern:pattern? COUNT=count:integer?",
            ),
            (
                "key [NX | XX] [EX seconds | KEEPTTL]",
                "key:key condition:oneof?(NX=nx:pure-token XX=xx:pure-token) \
              expiration:oneof?(EX=seconds:integer KEEPTTL=keepttl:pure-token)",
            ),
            (
                "[protover [AUTH username password]]",
                "protover-auth:block?(protover:string AUTH=auth:block?(username:string password:string))",
            ),
        ];
        for (syntax, expected) in cases {
            let found = short(&parse_syntax(syntax)).replace("protover:integer", "protover:string");
            assert_eq!(found, expected, "{syntax}");
        }
    }
}
