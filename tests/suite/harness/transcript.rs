//! The parser of transcripts and of commands written as in `redis-cli`.

pub(super) struct Step {
    pub(super) servers: Option<String>,
    pub(super) sorted: bool,
    pub(super) connection: Option<String>,
    pub(super) command: String,
    pub(super) expected: String,
}

pub(super) fn steps(session: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for line in session.lines().map(str::trim) {
        if line.is_empty() || line.starts_with("//") {
            continue;
        }
        if let Some((prompt, command)) = split_prompt(line) {
            let selects = |word: &str| word.starts_with(|c: char| c.is_ascii_digit());
            let selects =
                prompt.split('+').any(|word| selects(word) || ["redis", "valkey"].contains(&word));
            let is_name = !prompt.is_empty() && prompt != "sorted" && !selects;
            steps.push(Step {
                servers: selects.then(|| prompt.to_owned()),
                sorted: prompt == "sorted",
                connection: is_name.then(|| prompt.to_owned()),
                command: command.to_owned(),
                expected: String::new(),
            });
            continue;
        }
        let step = steps.last_mut().expect("a reply before any command");
        if !step.expected.is_empty() {
            step.expected.push(' ');
        }
        step.expected.push_str(line);
    }
    for step in &steps {
        assert!(!step.expected.is_empty(), "no reply to: {}", step.command);
    }
    steps
}

/// Splits `word> command`; the word may be missing. A push (`>[…]`) is not a prompt, because no space
/// follows.
fn split_prompt(line: &str) -> Option<(&str, &str)> {
    let (prompt, command) = line.split_once("> ")?;
    let is_word = |c: char| c.is_ascii_alphanumeric() || ".+".contains(c);
    prompt.chars().all(is_word).then_some((prompt, command))
}

/// Splits a command into arguments as `redis-cli` does: `"…"` with escapes, `'…'` without.
pub(crate) fn split_command(line: &str) -> Vec<Vec<u8>> {
    let mut args = Vec::new();
    let mut rest = line.as_bytes().iter().copied().peekable();
    loop {
        while rest.next_if(u8::is_ascii_whitespace).is_some() {}
        let mut arg = Vec::new();
        match rest.peek() {
            None => return args,
            Some(b'"') => {
                rest.next();
                loop {
                    match rest.next().expect("a closing quote") {
                        b'"' => break,
                        b'\\' => match rest.next().expect("an escaped character") {
                            b'n' => arg.push(b'\n'),
                            b'r' => arg.push(b'\r'),
                            b't' => arg.push(b'\t'),
                            b'a' => arg.push(7),
                            b'b' => arg.push(8),
                            b'x' => {
                                let digits = [rest.next(), rest.next()].map(|d| d.unwrap_or(b'?'));
                                let digits = str::from_utf8(&digits).unwrap_or("?");
                                arg.push(u8::from_str_radix(digits, 16).expect("two hex digits"));
                            }
                            other => arg.push(other),
                        },
                        byte => arg.push(byte),
                    }
                }
            }
            Some(b'\'') => {
                rest.next();
                arg.extend(rest.by_ref().take_while(|&byte| byte != b'\''));
            }
            Some(_) => {
                while let Some(byte) = rest.next_if(|byte| !byte.is_ascii_whitespace()) {
                    arg.push(byte);
                }
            }
        }
        args.push(arg);
    }
}
