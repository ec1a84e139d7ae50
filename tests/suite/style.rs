//! The rules that a program can check: each test reads the files of the repository and starts no server.
//!
//! The reasons are given where the rules apply: the layers in `src/lib.rs`, the lock order in
//! `src/store/keyspace.rs`. The two lists in `README.md` are generated here: when one is out of date, the
//! failing test prints the list to paste.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use respite::commands::spec::Flags;
use respite::commands::{self, Command as Row, Handler};
use respite::config::{SETTINGS, UNUSED};

use crate::harness::say;

/// The repository's top level, without the files whose names start with a dot.
const TOP_LEVEL: [&str; 7] =
    ["Cargo.lock", "Cargo.toml", "Makefile", "README.md", "src", "storage.aof", "tests"];
/// The files that may lock an `RwLock`: the keyspace locks its shards, the settings their texts.
const LOCKING_FILES: [&str; 2] = ["src/config/mod.rs", "src/store/keyspace.rs"];
const LINE_LIMIT: usize = 110;
/// The columns of a code block in the README that a reader sees without scrolling.
const README_COLUMNS: usize = 90;

// ---- The source --------------------------------------------------------------------------------------

#[test]
fn every_file_opens_with_a_module_comment() {
    let silent = sources().into_iter().filter(|(_, text)| !text.starts_with("//! "));
    let silent: Vec<String> = silent.map(|(path, _)| path).collect();
    assert!(silent.is_empty(), "these files do not begin with `//!`: {silent:#?}");
}

#[test]
fn no_line_is_longer_than_110_characters() {
    let mut long = Vec::new();
    for (path, text) in sources() {
        // A line of a test may be longer if it quotes a command, a reply or bytes.
        let quotes = |line: &str| {
            let transcript = ["-ERR ", "> "].iter().any(|sign| line.trim_start().starts_with(sign));
            path.starts_with("tests/") && (transcript || line.contains('"') || line.ends_with('\\'))
        };
        let is_long = |line: &str| line.chars().count() > LINE_LIMIT && !quotes(line);
        let lines = text.lines().enumerate().filter(|(_, line)| is_long(line));
        long.extend(lines.map(|(index, _)| format!("{path}:{}", index + 1)));
    }
    assert!(long.is_empty(), "these lines are longer than {LINE_LIMIT} characters: {long:#?}");
}

#[test]
fn the_map_in_lib_rs_names_exactly_the_modules_of_src() {
    let on_the_map: BTreeSet<String> = layers().into_keys().collect();
    let existing: BTreeSet<String> = sources().keys().filter_map(|path| module_of(path)).collect();
    assert_eq!(on_the_map, existing, "the modules in the table of src/lib.rs, and those in src/");
}

#[test]
fn a_layer_uses_only_lower_layers() {
    let layers = layers();
    let mut upward = Vec::new();
    for (path, text) in sources() {
        let Some(module) = module_of(&path) else { continue };
        for used in crate_paths(&code(&text)) {
            if used != module && layers.get(&used) >= layers.get(&module) {
                upward.push(format!("{path} uses crate::{used}"));
            }
        }
    }
    assert!(upward.is_empty(), "against the order of the table in src/lib.rs: {upward:#?}");
}

#[test]
fn only_the_keyspace_locks_shards() {
    let mut locking = Vec::new();
    for (path, text) in sources() {
        // The calls that lock have no arguments, unlike those that read or write files.
        let calls = [".read()", ".write()", ".try_read()", ".try_write()"];
        let locks = calls.iter().any(|call| code(&text).contains(call));
        if locks && path.starts_with("src/") && !LOCKING_FILES.contains(&path.as_str()) {
            locking.push(path);
        }
    }
    assert!(locking.is_empty(), "these lock, and only {LOCKING_FILES:?} may: {locking:#?}");
}

#[test]
fn no_code_asks_for_a_command_by_name() {
    let tests = [" == ", " != ", ".starts_with(", ".ends_with(", ".contains(", " {"];
    let rows = ["command.name", "row.name"];
    let mut special = Vec::new();
    for (path, text) in sources().iter().filter(|(path, _)| path.starts_with("src/")) {
        let asks = |line: &str| {
            rows.iter().any(|row| tests.iter().any(|test| line.contains(&[*row, *test].concat())))
        };
        let text = code(text);
        let lines = text.lines().filter(|line| asks(line));
        special.extend(lines.map(|line| format!("{path}: {}", line.trim())));
    }
    assert!(special.is_empty(), "what these ask for belongs in a flag of the row: {special:#?}");
}

// ---- The repository ----------------------------------------------------------------------------------

#[test]
fn the_top_level_holds_nothing_but_the_fixed_list() {
    // Files that git does not track are the user's own: notes, a configuration, the log of a server.
    let tracked = Command::new("git").args(["ls-files", "-z"]).current_dir(root()).output();
    let tracked = tracked.map(|output| output.stdout).unwrap_or_default();
    if tracked.is_empty() {
        say("skipped: this copy of the source is not a git checkout");
        return;
    }
    let tracked = String::from_utf8(tracked).expect("paths in UTF-8");
    let names = tracked.split('\0').filter_map(|path| path.split('/').next());
    let found: BTreeSet<&str> =
        names.filter(|name| !name.is_empty() && !name.starts_with('.')).collect();
    assert_eq!(found, BTreeSet::from(TOP_LEVEL));
}

#[test]
fn the_only_dependency_is_the_client_library_of_the_tests() {
    let mut section = String::new();
    let mut found = Vec::new();
    for line in read("Cargo.toml").lines() {
        if let Some(header) = line.strip_prefix('[') {
            section = header.trim_end_matches(']').to_owned();
            // In the manifest that `cargo package` writes, each dependency has a section of its own.
            if section.contains("dependencies.") {
                found.push(section.clone());
            }
        } else if section.ends_with("dependencies") && line.contains('=') {
            found.push(format!("{section}.{}", line.split('=').next().unwrap_or_default().trim()));
        }
    }
    assert_eq!(found, ["dev-dependencies.redis"]);
}

// ---- The README --------------------------------------------------------------------------------------

#[test]
fn the_readme_lists_the_commands_of_the_table() {
    let mut groups: Vec<(&str, Vec<String>)> = Vec::new();
    for (group, row) in commands::all() {
        if !groups.iter().any(|(name, _)| *name == group) {
            groups.push((group, Vec::new()));
        }
        let (_, usages) = groups.iter_mut().find(|(name, _)| *name == group).expect("a group");
        // A container lists its subcommands, and itself only if it may be sent alone.
        match row.handler {
            Handler::Container(_, Some(_)) => usages.push(row.name.to_uppercase()),
            Handler::Container(_, None) => {}
            _ => usages.push(usage(row)),
        }
        // Each container has HELP, so the list omits it.
        let subcommands = row.subcommands().iter().filter(|row| !row.has(Flags::HELP));
        usages.extend(subcommands.map(usage));
    }
    let list = groups.iter().map(|(group, usages)| {
        let lines = in_lines(usages);
        format!("**{group}**\n\n```text\n{lines}\n```\n")
    });
    readme_holds("commands", &list.collect::<Vec<_>>().join("\n"));
}

#[test]
fn the_readme_lists_the_settings_of_the_table() {
    let mut table = String::from("| setting | default | what it is |\n|---|---|---|\n");
    for setting in SETTINGS {
        let default = match setting.default {
            "" => String::new(),
            value => format!("`{value}`"),
        };
        let summary = setting.summary.replace('|', "\\|");
        writeln!(table, "| `{}` | {default} | {summary} |", setting.name)
            .expect("write to a string");
    }
    readme_holds("settings", &table);
}

#[test]
fn the_readme_lists_the_settings_that_have_no_effect() {
    let names = |only_default: bool| {
        let rows = UNUSED.iter().filter(|row| row.refusal().is_empty() != only_default);
        in_lines(&rows.map(|row| row.name.to_owned()).collect::<Vec<_>>())
    };
    let (any, only_default) = (names(false), names(true));
    let list = format!(
        "Any value:\n\n```text\n{any}\n```\n\nOnly the default:\n\n```text\n{only_default}\n```\n"
    );
    readme_holds("unused settings", &list);
}

/// The syntax of a command with its name: `CLIENT SETNAME connection-name`.
fn usage(row: &Row) -> String {
    let name = row.name.replace('|', " ").to_uppercase();
    format!("{name} {}", row.syntax).trim_end().to_owned()
}

/// The items with dots between them, wrapped at [`README_COLUMNS`].
fn in_lines(items: &[String]) -> String {
    let mut lines: Vec<String> = Vec::new();
    for item in items {
        match lines.last_mut() {
            Some(line) if line.chars().count() + item.chars().count() + 3 <= README_COLUMNS => {
                line.push_str(" · ");
                line.push_str(item);
            }
            _ => lines.push(item.clone()),
        }
    }
    lines.join("\n")
}

/// The README must hold this text between `<!-- name -->` and `<!-- /name -->`.
#[track_caller]
fn readme_holds(name: &str, expected: &str) {
    let readme = read("README.md");
    let [begin, end] = [format!("<!-- {name} -->\n"), format!("<!-- /{name} -->")];
    let found = readme
        .split_once(&begin)
        .and_then(|(_, behind)| behind.split_once(&end))
        .map(|(found, _)| found.trim());
    let found = found.unwrap_or_else(|| panic!("README.md lacks the marks {begin} and {end}"));
    assert!(
        found == expected.trim(),
        "README.md is out of date between {} and {end}:\n\n{}",
        begin.trim(),
        difference(found, expected.trim())
    );
}

/// The lines to remove (`-`) and to add (`+`), with the line before each.
fn difference(found: &str, expected: &str) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (found.lines().collect(), expected.lines().collect());
    let mut shown = String::new();
    let mut mark = |sign: char, lines: &[&str], others: &[&str]| {
        for (at, line) in lines.iter().enumerate().filter(|(_, line)| !others.contains(line)) {
            let before = at.checked_sub(1).map_or("", |before| lines[before]);
            if others.contains(&before) {
                writeln!(shown, "  {before}").expect("write to a string");
            }
            writeln!(shown, "{sign} {line}").expect("write to a string");
        }
    };
    mark('-', &old, &new);
    mark('+', &new, &old);
    shown
}

// ---- Reading -----------------------------------------------------------------------------------------

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A file of the repository with LF line ends, whatever git has checked out.
fn read(path: &str) -> String {
    let text = fs::read_to_string(root().join(path)).unwrap_or_else(|why| panic!("{path}: {why}"));
    text.replace("\r\n", "\n")
}

/// The texts of all Rust files, by path from the top of the repository.
fn sources() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![PathBuf::from("src"), PathBuf::from("tests")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root().join(&folder)).expect("list a folder of the source") {
            let entry = entry.expect("an entry of a folder");
            let path = folder.join(entry.file_name());
            if entry.file_type().expect("the type of an entry").is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let path = path.to_str().expect("a path of UTF-8").to_owned();
                let text = read(&path);
                found.insert(path, text);
            }
        }
    }
    assert!(found.contains_key("src/lib.rs"), "the source was not found");
    found
}

/// The crate's top-level module that a file belongs to; `None` for `lib.rs`, `main.rs` and tests.
fn module_of(path: &str) -> Option<String> {
    let name = path.strip_prefix("src/")?.split('/').next()?.trim_end_matches(".rs");
    (!["lib", "main"].contains(&name)).then(|| name.to_owned())
}

/// The layer of each module: the number of its row in the table of `src/lib.rs`, lowest layer first.
fn layers() -> BTreeMap<String, usize> {
    let text = read("src/lib.rs");
    let mut layers = BTreeMap::new();
    for (number, row) in text.lines().filter(|line| line.starts_with("//! | [`")).enumerate() {
        let cell = row.split('|').nth(1).unwrap_or_default();
        // Splitting at backquotes makes every second piece a name.
        for name in cell.split('`').skip(1).step_by(2) {
            layers.insert(name.to_owned(), number);
        }
    }
    assert!(layers.len() > 5, "the table of layers in src/lib.rs could not be parsed: {layers:?}");
    layers
}

/// The text without comment lines, which may name any module.
fn code(text: &str) -> String {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

/// The modules that code names with `crate::a` or `crate::{a, b::{c, d}}`.
fn crate_paths(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, prefix) in code.match_indices("crate::") {
        let rest = &code[at + prefix.len()..];
        let Some(list) = rest.strip_prefix('{') else {
            found.insert(first_name(rest));
            continue;
        };
        // The names of the list are outside its inner braces.
        let (mut depth, mut names) = (1, String::new());
        for c in list.chars() {
            depth += i32::from(c == '{') - i32::from(c == '}');
            match depth {
                0 => break,
                1 => names.push(c),
                _ => {}
            }
        }
        found.extend(names.split(',').map(|item| first_name(item.trim())));
    }
    found.remove("");
    found
}

fn first_name(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

#[test]
fn every_path_into_the_crate_is_found() {
    let code = code(
        "use crate::a;\n// crate::b\nuse crate::{c::d, e::{f, g},\n h};\nlet x = crate::i::j();",
    );
    assert_eq!(crate_paths(&code), ["a", "c", "e", "h", "i"].map(String::from).into());
}
