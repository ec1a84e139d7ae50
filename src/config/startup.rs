//! What the server is started with: the command line and configuration files.
//!
//! A file has one setting per line, comments after `#`, and optional quotes. It may include other files. All
//! lines are read before the start fails, so that one message names everything that must be changed.

use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::sync::atomic::Ordering::Relaxed;

use super::setting::{Setting, SettingKind};
use super::unused::{REFUSED, UNUSED};
use super::{Config, MachineMemory, Rename, SETTINGS};
use crate::files::expect_input;
use crate::text::{glob, split_quoted};

/// Deeper inclusions are an error: a file includes itself.
const DEEPEST_INCLUSION: usize = 16;

impl Config {
    /// All settings with their default values.
    pub fn new() -> Config {
        let config = Config::default();
        for setting in SETTINGS {
            if let Ok(value) = setting.parse(setting.default) {
                setting.store(&config, value);
            }
        }
        config
    }

    /// Parses the command line: an optional configuration file, then options `--name value …`, which take
    /// precedence.
    ///
    /// # Errors
    /// A line for each setting that cannot be used; it names the setting, and the line if it is in a file.
    pub fn from_args(args: &[String]) -> Result<Config, String> {
        let config = Config::new();
        let mut errors = Vec::new();
        let mut rest = args;
        if let Some((path, behind)) = args.split_first().filter(|(first, _)| !is_option(first)) {
            let whole = std::path::absolute(path).unwrap_or_else(|_| path.into());
            config.file.get_or_init(|| whole);
            config.load_file(Path::new(path), 0, &mut errors);
            rest = behind;
        }
        while let Some((option, behind)) = rest.split_first() {
            let name = option.strip_prefix("--").unwrap_or_default();
            let values = behind.iter().position(|arg| is_option(arg)).unwrap_or(behind.len());
            let set = config.set_at_start(name, &behind[..values], 0, &mut errors);
            errors.extend(set.err().map(|why| format!("bad setting '{option}': {why}")));
            rest = &behind[values..];
        }
        if config.daemonize.load(Relaxed) && config.pidfile.is_empty() {
            config.pidfile.set("/var/run/redis.pid".into());
        }
        match errors.len() {
            0 => Ok(config),
            1 => Err(errors.concat()),
            count => Err(format!("{count} settings cannot be used:\n{}", errors.join("\n"))),
        }
    }

    /// Reads a configuration file, and adds what is wrong with it to the errors.
    fn load_file(&self, path: &Path, depth: usize, errors: &mut Vec<String>) {
        let path_shown = path.display();
        let bytes = match expect_input(path).and_then(|()| std::fs::read(path)) {
            Ok(bytes) => bytes,
            Err(error) => {
                let text = format!("can't read the configuration file '{path_shown}': {error}");
                return errors.push(text);
            }
        };
        for (number, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
            let line = line.trim_ascii();
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            if let Err(why) = self.load_line(line, depth, errors) {
                let (number, line) = (number + 1, without_secrets(line));
                errors.push(format!("{path_shown}, line {number}: '{line}': {why}"));
            }
        }
    }

    fn load_line(&self, line: &[u8], depth: usize, errors: &mut Vec<String>) -> Result<(), String> {
        let words = split_quoted(line).ok_or("unbalanced quotes")?;
        if let Some((keyword, rest)) = words.split_first()
            && let Some(done) = self.add_line(keyword, rest)
        {
            return done;
        }
        let words: Result<Vec<String>, _> = words.into_iter().map(String::from_utf8).collect();
        let words = words.map_err(|_| "not UTF-8")?;
        let (name, values) = words.split_first().ok_or("unbalanced quotes")?;
        self.set_at_start(name, values, depth, errors)
    }

    /// Sets one setting, or reads the files that `include` names. What is wrong in these is added to the
    /// errors.
    fn set_at_start(
        &self,
        name: &str,
        values: &[String],
        depth: usize,
        errors: &mut Vec<String>,
    ) -> Result<(), String> {
        let words: Vec<Vec<u8>> = values.iter().map(|word| word.as_bytes().to_vec()).collect();
        if let Some(done) = self.add_line(name.as_bytes(), &words) {
            return done;
        }
        if !name.eq_ignore_ascii_case("include") {
            return self.set_by_name(name, values);
        }
        let [pattern] = values else { return Err("wrong number of arguments".into()) };
        if depth == DEEPEST_INCLUSION {
            return Err("too many files include each other".into());
        }
        for path in matching_paths(pattern) {
            self.load_file(&path, depth + 1, errors);
        }
        Ok(())
    }

    pub(super) fn set_by_name(&self, name: &str, values: &[String]) -> Result<(), String> {
        if let Some((_, why)) = REFUSED.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)) {
            return Err((*why).into());
        }
        let setting = Setting::find(name).ok_or("unknown setting")?;
        if values.is_empty() || (values.len() > 1 && !setting.several_words) {
            return Err("wrong number of arguments".into());
        }
        let mut value = values.join(" ");
        if let SettingKind::Schedule(at) = setting.kind
            && !value.is_empty()
        {
            // Each line adds to the schedule; an empty one clears it.
            value = format!("{} {value}", at(self).get()).trim_start().into();
        }
        setting.store(self, setting.parse(&value)?);
        Ok(())
    }

    /// Keeps a line that is no setting but defines a user or renames a command.
    fn add_line(&self, keyword: &[u8], words: &[Vec<u8>]) -> Option<Result<(), String>> {
        if is_user(keyword) {
            return Some(self.add_user(words));
        }
        keyword.eq_ignore_ascii_case(b"rename-command").then(|| {
            let [from, to] = words else { return Err("wrong number of arguments".into()) };
            let rename = Rename { from: from.clone(), to: to.clone() };
            self.renames.lock().unwrap_or_else(PoisonError::into_inner).push(rename);
            Ok(())
        })
    }

    /// Keeps what defines a user, until the server makes the user of it.
    fn add_user(&self, words: &[Vec<u8>]) -> Result<(), String> {
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        if words.is_empty() {
            return Err("wrong number of arguments".into());
        }
        if users.iter().any(|user| user[0] == words[0]) {
            return Err("a user can only be defined once".into());
        }
        users.push(words.to_vec());
        Ok(())
    }

    /// What the operator must know about these settings: a line about each problem.
    pub fn warnings(&self) -> Vec<String> {
        let has_effect =
            |setting: &&Setting| setting.show(self) != setting.show(&Config::default());
        let unused: Vec<_> = UNUSED.iter().filter(has_effect).map(|setting| setting.name).collect();
        let mut warnings = Vec::new();
        if !unused.is_empty() {
            warnings.push(format!("These settings have no effect here: {}", unused.join(", ")));
        }
        let has_log = self.appendonly.load(Relaxed);
        if !has_log && self.save.is_empty() {
            let text = "'appendonly' is 'no' and 'save' is empty, so no data outlives the server, except \
                        what SAVE and BGSAVE save";
            warnings.push(text.into());
        }
        let memory = MachineMemory::read();
        if self.maxmemory.load(Relaxed) == 0 && memory.is_some_and(|memory| memory.limit.is_some())
        {
            let text = "The memory of this process is limited from outside (cgroup), and 'maxmemory' is not \
                        set. With --maxmemory 80% keys are evicted or writes refused before the process is \
                        killed";
            warnings.push(text.into());
        }
        warnings
    }
}

/// Whether a line that begins with this word defines a user.
fn is_user(word: &[u8]) -> bool {
    word.eq_ignore_ascii_case(b"user")
}

/// A line as the log may show it: of a secret setting only the name, of a user nothing but its name.
fn without_secrets(line: &[u8]) -> String {
    let line = String::from_utf8_lossy(line);
    let mut words = line.split_ascii_whitespace();
    let keyword = words.next().unwrap_or_default();
    if is_user(keyword.as_bytes()) {
        return format!("{keyword} {} …", words.next().unwrap_or_default());
    }
    if Setting::is_secret(keyword.as_bytes()) {
        return format!("{keyword} …");
    }
    line.clone().into_owned()
}

fn is_option(arg: &str) -> bool {
    arg.starts_with("--")
}

/// The path itself; or, if it has wildcards, the paths that match them, sorted.
fn matching_paths(pattern: &str) -> Vec<PathBuf> {
    if !pattern.contains(['*', '?', '[']) {
        return vec![pattern.into()];
    }
    let mut found = vec![PathBuf::new()];
    for part in Path::new(pattern) {
        let part_pattern = part.as_encoded_bytes();
        let mut next = Vec::new();
        for path in found {
            if !part_pattern.iter().any(|byte| b"*?[".contains(byte)) {
                next.push(path.join(part));
                continue;
            }
            let folder = if path.as_os_str().is_empty() { Path::new(".") } else { &path };
            let names = std::fs::read_dir(folder).into_iter().flatten().flatten();
            let names = names.map(|entry| entry.file_name()).filter(|name| {
                let name = name.as_encoded_bytes();
                !name.starts_with(b".") && glob::matches(part_pattern, name)
            });
            next.extend(names.map(|name| path.join(name)));
        }
        found = next;
    }
    found.retain(|path| path.is_file());
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_match_files_in_the_order_of_their_names() {
        let paths = matching_paths("src/conf?g/s[a-z]*.rs");
        assert_eq!(paths, ["src/config/setting.rs", "src/config/startup.rs"].map(PathBuf::from));
        assert_eq!(matching_paths("no/such"), [PathBuf::from("no/such")]);
        assert!(matching_paths("no/such*").is_empty());
    }
}
