//! Users that files define: the lines `user NAME RULES` of an ACL file, or of the configuration file.
//! Only one of the two may have them. See
//! [ACL](https://redis.io/docs/latest/operate/oss_and_stack/management/security/acl/).
//!
//! A file is used as a whole or, if any line is wrong, not at all.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;

use super::rules::{self, UNKNOWN, is_space};
use crate::config::{Config, UserLine, replace_file};
use crate::files;
use crate::session::Server;
use crate::session::users::User;

/// Replaces the users of a server that starts by those that its files define.
///
/// # Errors
/// A line for each user that cannot be used.
pub fn load_at_start(server: &Server) -> Result<(), String> {
    let lines = server.config.users();
    let Some(path) = path(&server.config) else {
        return load_lines(server, &lines);
    };
    if !lines.is_empty() {
        return Err(
            "users are defined in the configuration file and in an 'aclfile': remove either".into(),
        );
    }
    load(server, &path)
}

/// The path of the ACL file, if there is one.
pub fn path(config: &Config) -> Option<PathBuf> {
    let name = config.aclfile.get();
    (!name.is_empty()).then(|| PathBuf::from(config.dir.get()).join(name))
}

/// `acl-pubsub-default`.
pub fn allows_channels_by_default(config: &Config) -> bool {
    config.acl_pubsub_default.load(Relaxed) == 0
}

fn load_lines(server: &Server, lines: &[Vec<Vec<u8>>]) -> Result<(), String> {
    let all_channels = allows_channels_by_default(&server.config);
    let (mut users, mut errors) = (Vec::new(), Vec::new());
    for words in lines {
        let (name, words) = words.split_first().map_or((&[][..], &[][..]), |(a, b)| (a, b));
        match user_of(name, words.iter().map(Vec::as_slice), all_channels) {
            Ok(user) => users.push(user),
            Err(why) => errors.push(format!("bad user '{}': {why}", name.escape_ascii())),
        }
    }
    if !errors.is_empty() {
        return Err(errors.join("\n"));
    }
    server.users.replace_all(users, &server.config.requirepass.get());
    Ok(())
}

/// Makes a user. The error names the rule that is wrong, unless it may hold a password.
fn user_of<'a>(
    name: &[u8],
    words: impl Iterator<Item = &'a [u8]>,
    all_channels: bool,
) -> Result<User, String> {
    if name.iter().any(|byte| is_space(*byte)) {
        return Err("a name can't contain spaces or null characters".into());
    }
    let rules = rules::join_selectors(words)
        .map_err(|_| "Unmatched parenthesis in selector definition".to_owned())?;
    let mut user = User::new(name, all_channels);
    rules::apply(&mut user, &rules, all_channels).map_err(|(rule, wrong)| {
        // A word that is no rule may be a password, too.
        match wrong == UNKNOWN {
            true => format!("Error in applying operation '{}': {wrong}", rule.escape_ascii()),
            false => wrong.into(),
        }
    })?;
    Ok(user)
}

/// Replaces all users by those in the file.
///
/// # Errors
/// What is wrong with the file; then nothing has changed.
pub fn load(server: &Server, path: &Path) -> Result<(), String> {
    let shown = path.display();
    let content = files::read(path)
        .map_err(|error| format!("Error loading ACLs, opening file '{shown}': {error}"))?;
    let all_channels = allows_channels_by_default(&server.config);
    let (mut users, mut errors) = (Vec::<User>::new(), Vec::new());
    for (number, line) in (1..).zip(content.split(|byte| *byte == b'\n')) {
        let line = line.trim_ascii();
        if line.is_empty() {
            continue;
        }
        let mut words = line.split(|byte| *byte == b' ');
        let (keyword, name) = (words.next(), words.next());
        let Some(name) = name.filter(|_| keyword == Some(b"user")) else {
            let what = "should start with user keyword followed by the username";
            errors.push(format!("{shown}:{number} {what}."));
            continue;
        };
        match user_of(name, words, all_channels) {
            _ if users.iter().any(|user| *user.name == *name) => {
                let name = name.escape_ascii();
                errors.push(format!("WARNING: Duplicate user '{name}' found on line {number}."));
            }
            Ok(user) => users.push(user),
            Err(why) => errors.push(format!("{shown}:{number}: {why}.")),
        }
    }
    if !errors.is_empty() {
        let errors = errors.join(" ");
        return Err(format!(
            "{errors} WARNING: ACL errors detected, no change to the previously active ACL rules was \
             performed"
        ));
    }
    server.users.replace_all(users, &server.config.requirepass.get());
    Ok(())
}

/// The lines that define all users, without line ends: `user NAME RULES`.
pub fn lines(server: &Server, rules: fn(&User) -> Vec<u8>) -> impl Iterator<Item = Vec<u8>> {
    let line = move |user: &User| [b"user ", &*user.name, b" ", &*rules(user)].concat();
    server.users.all().into_iter().map(move |user| line(&user))
}

/// The lines for the configuration file: none if there is an ACL file.
pub fn config_lines(server: &Server) -> Vec<UserLine> {
    if path(&server.config).is_some() {
        return Vec::new();
    }
    let standard = User::with_all_rights(&server.config.requirepass.get());
    let is_standard = |user: &User| {
        user.name == standard.name && rules::describe(user) == rules::describe(&standard)
    };
    let line = |user: &User| UserLine {
        name: user.name.to_vec(),
        rules: rules::describe_for_file(user),
        is_superfluous: is_standard(user),
    };
    server.users.all().iter().map(|user| line(user)).collect()
}

/// Writes all users to the file.
///
/// # Errors
/// It cannot be written; then it is as it was.
pub fn save(server: &Server, path: &Path) -> io::Result<()> {
    let mut content = lines(server, rules::describe_for_file).collect::<Vec<_>>().join(&b'\n');
    content.push(b'\n');
    replace_file(path, &content)
}
