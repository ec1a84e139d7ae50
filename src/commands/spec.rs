//! A row of the command table, and everything that follows from it.
//!
//! A row gives the name, the syntax, the handler, the keys, some flags, the version of Redis that first had
//! the command, and a summary. The rest is derived from that, here and nowhere else: the arity (from the
//! syntax), the shards to lock, whether to log, the ACL categories, and the replies of `COMMAND`.
//!
//! What a handler may do is its type. [`Handler::Read`] gets a view that cannot change anything;
//! [`Handler::Write`] must say with its [`Propagate`] what the log gets, so no change is forgotten.

use crate::resp::{Args, CommandError, Reply};
use crate::session::users::KeyUse;
use crate::session::{Server, Session};
use crate::stats::CommandId;
use crate::store::shard::Shard;
use crate::store::{AllShards, ReadAll, ReadView, WriteAll, WriteView, WrongType};
use crate::text::integer::parse_i64;

/// The result of a handler that changes nothing. The handler writes to its [`Reply`]; after an error, what it
/// has written is removed.
pub type Outcome = Result<(), CommandError>;
/// The result of a handler that may change something.
pub type Change = Result<Propagate, CommandError>;

/// What the log gets of a write.
#[derive(Debug, PartialEq, Eq)]
pub enum Propagate {
    /// Nothing: the command changed nothing.
    Nothing,
    /// The command as the client sent it: a replay makes the same change at any time.
    Verbatim,
    /// These encoded commands instead: they state the result of what depended on time or chance.
    Rewritten(Vec<u8>),
    /// Like `Rewritten`, but a crash must leave all of the commands or none: the log frames them with
    /// `MULTI` and `EXEC`.
    Atomically(Vec<u8>),
}

impl Propagate {
    /// One command, in place of the one that was sent.
    pub fn rewritten(args: &[&[u8]]) -> Propagate {
        let mut record = Vec::new();
        crate::resp::request::encode(&mut record, args);
        Propagate::Rewritten(record)
    }

    /// The command as it was sent, if it changed something.
    pub fn verbatim_if(changed: bool) -> Propagate {
        if changed { Propagate::Verbatim } else { Propagate::Nothing }
    }
}

/// What a handler for a connection or the server gets.
pub struct Context<'a> {
    /// What all connections share.
    pub server: &'a Server,
    /// The connection.
    pub session: &'a mut Session,
    /// The transaction that the command is part of, if any. Its shards are locked already, so the handler
    /// must not wait for anything, and may look at the data only through [`Context::visit`].
    pub transaction: Option<&'a dyn AllShards>,
}

impl Context<'_> {
    /// Calls the visitor with every shard, one after the other. The row of a command that does this has the
    /// flag [`Flags::VISITS_KEYS`], so that a transaction locks all shards for it.
    pub fn visit(&mut self, mut visitor: impl FnMut(&Shard)) {
        let mut visitor = |_, shard: &Shard| {
            visitor(shard);
            true
        };
        let lsn = match self.transaction {
            Some(transaction) => transaction.visit(0, &mut visitor),
            None => self.server.keyspace.visit(0, &mut visitor),
        };
        self.session.read_lsn = self.session.read_lsn.max(lsn);
    }
}

/// The function that runs a command. The variant is the kind of the command.
#[derive(Clone, Copy)]
pub enum Handler {
    /// Reads its keys.
    Read(fn(&ReadView, Args, &mut Reply) -> Outcome),
    /// May change its keys.
    Write(fn(&mut WriteView, Args, &mut Reply) -> Change),
    /// Reads the whole keyspace, shard by shard.
    ReadAll(fn(&ReadAll, Args, &mut Reply) -> Outcome),
    /// Changes the whole keyspace, which is locked for it.
    WriteAll(fn(&mut WriteAll, Args, &mut Reply) -> Change),
    /// Concerns the connection or the server, and no keys.
    Session(fn(&mut Context, Args, &mut Reply) -> Outcome),
    /// Runs other commands, so the dispatcher itself implements it.
    Nested(Nested),
    /// Runs one of these subcommands, chosen by the next argument. Without an argument it runs the function,
    /// if there is one (`COMMAND`).
    Container(&'static [Command], Option<fn(&mut Context, Args, &mut Reply) -> Outcome>),
    /// Runs one of these subcommands, which clients do not see: to them it is one command (`DEBUG`).
    Hidden(&'static [Command]),
}

/// A command that runs other commands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Nested {
    /// Those that its connection has queued since MULTI.
    Exec,
    /// Those of the log: `DEBUG LOADAOF`.
    LoadAof,
    /// Those of the log, which is rewritten first: `DEBUG RELOAD`.
    Reload,
    /// Many that make keys: `DEBUG POPULATE`.
    Populate,
    /// Those that delete what has been moved: `MIGRATE`.
    Migrate,
}

/// Where keys are among the arguments, and how they are accessed: what Redis calls a key spec.
#[derive(Clone, Copy)]
pub struct Keys {
    /// The index of the first argument that concerns them.
    pub first: usize,
    /// How to find the keys from there.
    pub find: Find,
    /// The distance from one key to the next.
    pub step: usize,
    /// Redis's flags of a key spec, separated by spaces: `RO access`.
    pub access: &'static str,
    /// The rights that follow from these flags.
    rights: KeyUse,
    /// The flags of one call, where they depend on its options.
    pub access_of_call: Option<fn(Args) -> &'static str>,
    /// Redis's note about these flags; usually empty.
    pub notes: &'static str,
}

impl Keys {
    const fn new(first: usize, find: Find, step: usize, access: &'static str) -> Keys {
        let rights = needed_rights(access);
        Keys { first, find, step, access, rights, access_of_call: None, notes: "" }
    }

    /// What a call with these arguments does with the keys.
    pub fn access(&self, args: Args) -> &'static str {
        self.access_of_call.map_or(self.access, |access| access(args))
    }

    /// The rights that the call needs. It needs none to ask whether a key exists, of what type it is, or how
    /// long.
    pub fn needed_rights(&self, args: Args) -> KeyUse {
        self.access_of_call.map_or(self.rights, |access| needed_rights(access(args)))
    }

    /// Whether these are keys, and not the names of shard channels.
    pub fn are_keys(&self) -> bool {
        self.access != "not_key"
    }
}

/// The rights that an access with these flags of a key spec needs.
const fn needed_rights(access: &str) -> KeyUse {
    let (flags, mut start, mut at) = (access.as_bytes(), 0, 0);
    let mut needed = KeyUse { reads: false, writes: false };
    while at <= flags.len() {
        if at == flags.len() || flags[at] == b' ' {
            match flags.split_at(at).0.split_at(start).1 {
                b"access" => needed.reads = true,
                b"insert" | b"update" | b"delete" => needed.writes = true,
                _ => {}
            }
            start = at + 1;
        }
        at += 1;
    }
    needed
}

/// What a command does with channels. It is checked against the rights of the user; to unsubscribe needs
/// none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChannelUse {
    /// Publishes to the channel that its first argument names.
    Publish,
    /// Subscribes to the channels that its arguments name.
    Subscribe,
    /// Subscribes to the patterns that its arguments are.
    SubscribeToPatterns,
}

/// Which databases a command uses, if that is not only the selected one.
#[derive(Clone, Copy)]
pub enum DatabaseUse {
    /// All of them.
    All,
    /// Those that are named by the arguments for whose index the function returns `true`; and the selected
    /// one, if the command has keys.
    Named(fn(Args, usize) -> bool),
}

/// How keys are found among the arguments.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Find {
    /// The last key has this index. A negative one counts from the end: -1 is the last argument.
    Range(i32),
    /// The first argument is the number of keys, and the keys follow.
    Number,
    /// They follow this word, up to the last argument, if the one key before is empty. The word is looked for
    /// from `first` on.
    Keyword(&'static str),
}

/// Flags that a row sets. `COMMAND INFO` also shows flags that follow from the handler.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Flags(u32);

/// The flags that `COMMAND INFO` shows, with their names. The others add an ACL category, or are our own.
const FLAG_NAMES: [(Flags, &str); 13] = [
    (Flags::DENYOOM, "denyoom"),
    (Flags::ADMIN, "admin"),
    (Flags::PUBSUB, "pubsub"),
    (Flags::NOSCRIPT, "noscript"),
    (Flags::LOADING, "loading"),
    (Flags::STALE, "stale"),
    (Flags::FAST, "fast"),
    (Flags::NO_AUTH, "no_auth"),
    (Flags::NO_MULTI, "no_multi"),
    (Flags::ALLOW_BUSY, "allow_busy"),
    (Flags::NO_ASYNC_LOADING, "no_async_loading"),
    (Flags::BLOCKING, "blocking"),
    (Flags::SKIP_SLOWLOG, "skip_slowlog"),
];

impl Flags {
    /// No flags.
    pub const NONE: Flags = Flags(0);
    /// May use memory: refused when `maxmemory` is reached and no key may be evicted.
    pub const DENYOOM: Flags = Flags(1 << 0);
    /// For administrators.
    pub const ADMIN: Flags = Flags(1 << 1);
    /// Not for scripts.
    pub const NOSCRIPT: Flags = Flags(1 << 2);
    /// Works while the log is being replayed.
    pub const LOADING: Flags = Flags(1 << 3);
    /// Works on a replica that has lost the connection to its master.
    pub const STALE: Flags = Flags(1 << 4);
    /// Takes constant or logarithmic time.
    pub const FAST: Flags = Flags(1 << 5);
    /// Works before authentication.
    pub const NO_AUTH: Flags = Flags(1 << 6);
    /// Not in a transaction.
    pub const NO_MULTI: Flags = Flags(1 << 7);
    /// Works while a script runs.
    pub const ALLOW_BUSY: Flags = Flags(1 << 8);
    /// Not while a replica loads data in the background.
    pub const NO_ASYNC_LOADING: Flags = Flags(1 << 9);
    /// May block the connection.
    pub const BLOCKING: Flags = Flags(1 << 10);
    /// Not recorded in the slow log. The commands that it executes are.
    pub const SKIP_SLOWLOG: Flags = Flags(1 << 11);
    /// In the ACL category of dangerous commands.
    pub const DANGEROUS: Flags = Flags(1 << 12);
    /// In the ACL category of the keyspace, though not in its group.
    pub const KEYSPACE: Flags = Flags(1 << 13);
    /// In the ACL category of reads, though it has no key.
    pub const READ: Flags = Flags(1 << 14);
    /// In the ACL category of connections, though not in its group.
    pub const CONNECTION: Flags = Flags(1 << 15);
    /// Shown as a read, as it only writes what it has computed from the value (PFCOUNT).
    pub const SHOWN_AS_READ: Flags = Flags(1 << 16);
    /// Executed at once after MULTI, not queued.
    pub const NOT_QUEUED: Flags = Flags(1 << 17);
    /// Visits all keys, though it names none: see [`Context::visit`].
    pub const VISITS_KEYS: Flags = Flags(1 << 18);
    /// About publish/subscribe.
    pub const PUBSUB: Flags = Flags(1 << 19);
    /// Its replies are confirmations, which are sent even after `CLIENT REPLY OFF`.
    pub const CONFIRMS: Flags = Flags(1 << 20);
    /// Works on a RESP2 connection with subscriptions.
    pub const SUBSCRIBED: Flags = Flags(1 << 21);
    /// `CLIENT PAUSE … WRITE` suspends it, like a write.
    pub const MAY_REPLICATE: Flags = Flags(1 << 22);
    /// Brief, though Redis does not call it fast: see [`Command::is_brief`].
    pub const BRIEF: Flags = Flags(1 << 23);
    /// In the ACL category of administration, though not only for administrators.
    pub const ADMIN_CATEGORY: Flags = Flags(1 << 24);
    /// Only for clients that `enable-debug-command` allows.
    pub const PROTECTED: Flags = Flags(1 << 25);
    /// A lookup counts as a use of the key even with `CLIENT NO-TOUCH` (TOUCH).
    pub const ALWAYS_A_USE: Flags = Flags(1 << 26);
    /// May be in the log although it neither reads nor writes keys.
    pub const IN_LOG: Flags = Flags(1 << 27);
    /// Leaves `CLIENT CACHING` in effect for the next command.
    pub const KEEPS_CACHING: Flags = Flags(1 << 28);
    /// Lists the subcommands of its container.
    pub const HELP: Flags = Flags(1 << 29);
    /// For those who work on the server: what Redis calls a system command.
    pub const SYSTEM: Flags = Flags(1 << 30);
    /// Works in every state of the server.
    pub const ALWAYS: Flags = Flags::LOADING.or(Flags::STALE);

    /// The union of both.
    pub const fn or(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }

    /// Whether all flags of the other set are in this one.
    pub const fn has(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }
}

/// A row of the table.
#[derive(Clone, Copy)]
pub struct Command {
    /// Its index in the table, subcommands included; set when the table is built.
    pub id: CommandId,
    /// The name in lower case. A subcommand has its container's name in front: `client|id`.
    pub name: &'static str,
    /// The arguments, as Redis's documentation writes them: `key value [NX | XX]`.
    pub syntax: &'static str,
    /// The number of words in a call, the name included; if negative, the minimum.
    pub arity: i32,
    /// The function that executes it.
    pub handler: Handler,
    /// Where its keys are.
    pub keys: [Option<Keys>; 2],
    /// What it does with channels.
    pub channels: Option<ChannelUse>,
    /// Which databases it uses besides the selected one, or instead of it.
    pub databases: Option<DatabaseUse>,
    flags: Flags,
    /// The first version of Redis that has it.
    pub since: &'static str,
    /// The time complexity.
    pub complexity: &'static str,
    /// What it does, in one sentence.
    pub summary: &'static str,
    /// The version of Redis that deprecated it, and what to use instead.
    pub deprecated: Option<(&'static str, &'static str)>,
    /// Redis's tips for clients of clusters.
    pub tips: &'static [&'static str],
    /// What `COMMAND DOCS` says of arguments beyond the syntax: see [`Command::arguments`].
    pub arguments: &'static [&'static str],
    /// Versions of Redis that changed the command, and how.
    pub history: &'static [(&'static str, &'static str)],
    /// Whether the argument at this index is a secret, which neither `MONITOR` nor `SLOWLOG` shows.
    is_secret: fn(Args, usize) -> bool,
}

/// What others see in place of a secret.
const REDACTED: &[u8] = b"(redacted)";

/// A row. The arity is counted from the syntax.
pub const fn command(name: &'static str, syntax: &'static str, handler: Handler) -> Command {
    Command {
        id: CommandId::MAX,
        name,
        syntax,
        arity: count_arity(syntax, name_words(name)),
        handler,
        keys: [None; 2],
        channels: None,
        databases: None,
        flags: Flags::NONE,
        since: "1.0.0",
        complexity: "O(1)",
        summary: "",
        deprecated: None,
        tips: &[],
        arguments: &[],
        history: &[],
        is_secret: |_, _| false,
    }
}

/// A row of a command that reads its keys.
pub const fn read(
    name: &'static str,
    syntax: &'static str,
    handler: fn(&ReadView, Args, &mut Reply) -> Outcome,
) -> Command {
    command(name, syntax, Handler::Read(handler))
}

/// A row of a command that may change its keys.
pub const fn write(
    name: &'static str,
    syntax: &'static str,
    handler: fn(&mut WriteView, Args, &mut Reply) -> Change,
) -> Command {
    command(name, syntax, Handler::Write(handler))
}

/// A row of a command about the connection or the server.
pub const fn session(
    name: &'static str,
    syntax: &'static str,
    handler: fn(&mut Context, Args, &mut Reply) -> Outcome,
) -> Command {
    command(name, syntax, Handler::Session(handler))
}

impl Command {
    /// Its first argument is its only key.
    pub const fn key(self, access: &'static str) -> Command {
        self.keys(1, 1, 1, access)
    }

    /// All of its arguments are keys.
    pub const fn every_key(self, access: &'static str) -> Command {
        self.keys(1, -1, 1, access)
    }

    /// Its keys are every `step`-th argument from `first` to `last`, where -1 is the last argument. A second
    /// call adds keys that are accessed in another way.
    pub const fn keys(
        mut self,
        first: usize,
        last: i32,
        step: usize,
        access: &'static str,
    ) -> Command {
        let place = if self.keys[0].is_some() { 1 } else { 0 };
        self.keys[place] = Some(Keys::new(first, Find::Range(last), step, access));
        self
    }

    /// The argument `first` is the number of keys, and the keys follow.
    pub const fn numbered_keys(
        mut self,
        first: usize,
        step: usize,
        access: &'static str,
    ) -> Command {
        self.keys[0] = Some(Keys::new(first, Find::Number, step, access));
        self
    }

    /// In place of its one key, which is empty then, this word and the keys may come at the end. The word is
    /// at the argument `first` or behind it.
    pub const fn keys_after(
        mut self,
        word: &'static str,
        first: usize,
        access: &'static str,
    ) -> Command {
        self.keys[1] = Some(Keys::new(first, Find::Keyword(word), 1, access));
        self
    }

    /// Redis's note about the access of its first keys.
    pub const fn notes(mut self, notes: &'static str) -> Command {
        if let Some(keys) = &mut self.keys[0] {
            keys.notes = notes;
        }
        self
    }

    /// The access of its first keys depends on the options of a call.
    pub const fn access_of_call(mut self, access: fn(Args) -> &'static str) -> Command {
        if let Some(keys) = &mut self.keys[0] {
            keys.access_of_call = Some(access);
        }
        self
    }

    /// It publishes to channels or subscribes to them.
    pub const fn channels(mut self, channels: ChannelUse) -> Command {
        self.channels = Some(channels);
        self
    }

    /// It uses other databases than the selected one.
    pub const fn databases(mut self, databases: DatabaseUse) -> Command {
        self.databases = Some(databases);
        self
    }

    /// Some of its arguments are secrets: those for whose index the function returns `true`.
    pub const fn secrets(mut self, is_secret: fn(Args, usize) -> bool) -> Command {
        self.is_secret = is_secret;
        self
    }

    /// Sets flags.
    pub const fn flags(mut self, flags: Flags) -> Command {
        self.flags = self.flags.or(flags);
        self
    }

    /// It takes constant or logarithmic time.
    pub const fn fast(self) -> Command {
        self.flags(Flags::FAST)
    }

    /// Redis's tips.
    pub const fn tips(mut self, tips: &'static [&'static str]) -> Command {
        self.tips = tips;
        self
    }

    /// Redis's name, type and first version of arguments, where they do not follow from the syntax: `old=new`
    /// gives a new name to the argument or group called `old`, and an empty one leaves it out; then `:type`,
    /// `@version` and, for one that may be repeated, `*` may follow.
    pub const fn arguments(mut self, arguments: &'static [&'static str]) -> Command {
        self.arguments = arguments;
        self
    }

    /// Versions of Redis that changed it, and how.
    pub const fn history(mut self, history: &'static [(&'static str, &'static str)]) -> Command {
        self.history = history;
        self
    }

    /// The first version of Redis that has it, the time complexity, and a summary. Call this after the keys.
    ///
    /// # Panics
    /// At compile time, if the row declares other keys than its syntax has: the shard of an undeclared key
    /// is not locked.
    pub const fn doc(
        mut self,
        since: &'static str,
        complexity: &'static str,
        summary: &'static str,
    ) -> Command {
        assert!(
            self.declares_its_keys(),
            "the keys in this row's syntax are not those that it declares (a key is an argument \
             named `...key`, `key1`, `source` or `destination`; call `doc` after the keys)"
        );
        self.since = since;
        self.complexity = complexity;
        self.summary = summary;
        self
    }

    /// Redis deprecated it in this version.
    pub const fn deprecated(mut self, since: &'static str, instead: &'static str) -> Command {
        self.deprecated = Some((since, instead));
        self
    }

    /// Whether the row declares the keys of its syntax. They are compared in the call that has every optional
    /// argument, and every repeated one twice.
    const fn declares_its_keys(&self) -> bool {
        let (mut len, mut last_key) = (name_words(self.name), 0);
        let mut words = Words::new(self.syntax);
        while let Some(word) = words.next() {
            if is_key_name(word) {
                last_key = len;
            }
            len += 1;
        }
        let mut at = name_words(self.name);
        let mut words = Words::new(self.syntax);
        while let Some(word) = words.next() {
            let is_declared = declares(&self.keys[0], at, len, last_key)
                || declares(&self.keys[1], at, len, last_key);
            if is_key_name(word) != is_declared {
                return false;
            }
            at += 1;
        }
        true
    }

    /// Whether the row sets all of these flags.
    pub const fn has(&self, flags: Flags) -> bool {
        self.flags.has(flags)
    }

    /// Whether it is so short that reading the clock would dominate: it is fast, and its first argument is
    /// its only key. Several such commands in a row may be timed together.
    pub const fn is_brief(&self) -> bool {
        self.flags.0 & (Flags::FAST.0 | Flags::BRIEF.0) != 0
            && matches!(self.keys, [Some(Keys { first: 1, find: Find::Range(1), .. }), None])
    }

    /// The arguments of a call as others may see them, with the secrets redacted.
    pub fn without_secrets<'a>(
        &self,
        args: Args<'a>,
    ) -> impl ExactSizeIterator<Item = &'a [u8]> + use<'a> {
        let is_secret = self.is_secret;
        let shown = move |(at, arg)| if is_secret(args, at) { REDACTED } else { arg };
        args.from(0).enumerate().map(shown)
    }

    /// Whether a call may have this many words, the name included.
    pub fn accepts(&self, args: usize) -> bool {
        let arity = self.arity.unsigned_abs() as usize;
        if self.arity >= 0 { args == arity } else { args >= arity }
    }

    /// The rows of its subcommands.
    pub fn subcommands(&self) -> &'static [Command] {
        match self.handler {
            Handler::Container(rows, _) => rows,
            _ => &[],
        }
    }

    /// Its keys as one range: first, last and step. All are 0 if there are no keys, or if only the arguments
    /// of a call tell where they are.
    pub fn key_range(&self) -> (usize, i32, usize) {
        match self.keys {
            [Some(Keys { first, find: Find::Range(last), step, .. }), None]
            | [Some(Keys { first, step, .. }), Some(Keys { find: Find::Range(last), .. })]
            | [
                Some(Keys { first, find: Find::Range(last), step, .. }),
                Some(Keys { find: Find::Keyword(_), .. }),
            ] => (first, last, step),
            _ => (0, 0, 0),
        }
    }

    /// The keys among the arguments. There are none if the arguments give an impossible number of keys.
    pub fn keys_of<'a>(&self, args: Args<'a>) -> impl ExactSizeIterator<Item = &'a [u8]> + use<'a> {
        let (next, end, step) = match self.keys[0] {
            Some(Keys { first, find: Find::Number, step, .. }) => {
                let end = numbered_keys_end(args, first, step);
                (first + 1, end.unwrap_or(0), step)
            }
            _ => {
                let (first, last, step) = self.key_range();
                (first, range_end(args, last), step)
            }
        };
        KeyArgs { args, next, end, step: step.max(1) }
    }

    /// The keys of one of its key specs, each with its place among the arguments.
    pub fn keys_at<'a>(
        &self,
        keys: &Keys,
        args: Args<'a>,
    ) -> impl Iterator<Item = (usize, &'a [u8])> + use<'a> {
        let after_word = self.first_after_word(args);
        let (first, end) = match keys.find {
            Find::Number => (keys.first + 1, numbered_keys_end(args, keys.first, keys.step)),
            Find::Keyword(_) => (after_word.unwrap_or(args.len()), Some(args.len())),
            Find::Range(_) if after_word.is_some() => (0, None),
            Find::Range(last) => (keys.first, Some(range_end(args, last))),
        };
        let places = (first..end.unwrap_or(0).min(args.len())).step_by(keys.step.max(1));
        places.map(move |at| (at, args.get(at).unwrap_or_default()))
    }

    /// The first of the keys that follow a word, if the call has that word: see [`Command::keys_after`].
    fn first_after_word(&self, args: Args) -> Option<usize> {
        let [Some(Keys { first: one, .. }), Some(Keys { find: Find::Keyword(word), first, .. })] =
            self.keys
        else {
            return None;
        };
        let is_word = |at: &usize| args[*at].eq_ignore_ascii_case(word.as_bytes());
        let at = (first..args.len()).find(is_word).filter(|_| args[one].is_empty())?;
        Some(at + 1)
    }

    /// The channels or patterns that it uses, each with its place among the arguments.
    pub fn channels_at<'a>(
        &self,
        args: Args<'a>,
    ) -> impl Iterator<Item = (usize, &'a [u8])> + use<'a> {
        let count = match self.channels {
            None => 0,
            Some(ChannelUse::Publish) => 1,
            Some(ChannelUse::Subscribe | ChannelUse::SubscribeToPatterns) => args.len() - 1,
        };
        (1..).zip(args.from(1).take(count))
    }

    /// Whether it uses the selected database.
    pub fn uses_selected_database(&self) -> bool {
        let has_keys = self.keys.iter().flatten().any(Keys::are_keys);
        let uses_none_other = !matches!(self.databases, Some(DatabaseUse::Named(_)));
        has_keys || uses_none_other && (self.uses_keyspace() || self.has(Flags::READ))
    }

    /// Whether only the arguments of a call tell where its keys are.
    fn has_movable_keys(&self) -> bool {
        let is_range = |keys: &Keys| matches!(keys.find, Find::Range(_));
        !self.keys.iter().flatten().all(is_range)
    }

    /// Whether clients see it as a read, and as a write.
    fn is_shown_as(&self) -> (bool, bool) {
        match self.handler {
            Handler::Read(_) | Handler::ReadAll(_) => (true, false),
            Handler::Write(_) | Handler::WriteAll(_) => {
                let reads = self.has(Flags::SHOWN_AS_READ);
                (reads, !reads)
            }
            Handler::Nested(Nested::Migrate) => (false, true),
            _ => (false, false),
        }
    }

    /// Whether clients see it as a write.
    pub fn is_write(&self) -> bool {
        self.is_shown_as().1
    }

    /// Whether clients may cache its reply: it is shown as a read, it has keys that a notification can name,
    /// and it is not for administrators (`DEBUG`).
    pub fn is_cacheable(&self) -> bool {
        self.is_shown_as().0 && self.keys[0].is_some() && !self.has(Flags::ADMIN)
    }

    /// Whether it reads or writes keys.
    pub fn uses_keyspace(&self) -> bool {
        self.is_shown_as() != (false, false)
    }

    /// Its flags, by the names that `COMMAND INFO` shows.
    pub fn flag_names(&self) -> Vec<&'static str> {
        let (reads, writes) = self.is_shown_as();
        let kind = reads.then_some("readonly").or(writes.then_some("write"));
        let own = FLAG_NAMES.iter().filter(|(flag, _)| self.has(*flag)).map(|(_, name)| *name);
        let movable = self.has_movable_keys().then_some("movablekeys");
        kind.into_iter().chain(own).chain(movable).collect()
    }

    /// Its ACL categories, by the names that `COMMAND INFO` shows.
    pub fn categories(&self, group: &str) -> Vec<&'static str> {
        let (reads, writes) = self.is_shown_as();
        let container = matches!(self.handler, Handler::Container(..));
        let admin = self.has(Flags::ADMIN);
        let fast = self.has(Flags::FAST);
        let all = [
            (
                "@keyspace",
                (group == "generic" && self.uses_keyspace()) || self.has(Flags::KEYSPACE),
            ),
            ("@read", reads || self.has(Flags::READ)),
            ("@write", writes),
            ("@hash", group == "hash"),
            ("@string", group == "string"),
            ("@bitmap", group == "bitmap"),
            ("@hyperloglog", group == "hyperloglog"),
            ("@pubsub", self.has(Flags::PUBSUB)),
            ("@admin", admin || self.has(Flags::ADMIN_CATEGORY)),
            ("@fast", fast),
            ("@slow", !fast),
            ("@blocking", self.has(Flags::BLOCKING)),
            ("@dangerous", admin || self.has(Flags::DANGEROUS)),
            ("@transaction", group == "transactions"),
            ("@connection", (group == "connection" && !container) || self.has(Flags::CONNECTION)),
        ];
        all.into_iter().filter(|(_, is_in)| *is_in).map(|(name, _)| name).collect()
    }
}

/// Whether the declaration makes a key of the argument at this index in a call of `len` words. Numbered keys
/// go on to the last key in the syntax, and there must be at least one.
const fn declares(keys: &Option<Keys>, at: usize, len: usize, last_key: usize) -> bool {
    let Some(keys) = keys else { return false };
    let (first, last) = match keys.find {
        Find::Range(last) if last < 0 => (keys.first, len - last.unsigned_abs() as usize),
        Find::Range(last) => (keys.first, last as usize),
        Find::Number if last_key > keys.first => (keys.first + 1, last_key),
        Find::Number => (keys.first + 1, keys.first + 1),
        Find::Keyword(_) => (last_key - 1, last_key), // repeated twice
    };
    let is_in_range = first <= at && at <= last && (at - first).is_multiple_of(keys.step);
    is_in_range && !is_same(keys.access.as_bytes(), b"not_key")
}

/// The index after the last key; 0 without keys.
fn range_end(args: Args, last: i32) -> usize {
    match last {
        0 => 0,
        1.. => (last as usize + 1).min(args.len()),
        _ => (args.len() + 1).saturating_sub(last.unsigned_abs() as usize),
    }
}

/// Every `step`-th argument up to an end. (Written by hand instead of with iterator adapters, since every
/// command pays for it.)
struct KeyArgs<'a> {
    args: Args<'a>,
    next: usize,
    end: usize,
    step: usize,
}

impl<'a> Iterator for KeyArgs<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        let key = self.args.get(self.next).filter(|_| self.next < self.end)?;
        self.next += self.step;
        Some(key)
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.end.saturating_sub(self.next);
        let keys = if left < 2 { left } else { left.div_ceil(self.step) };
        (keys, Some(keys))
    }
}

impl ExactSizeIterator for KeyArgs<'_> {}

/// A family of commands: a file of this folder.
pub struct Family {
    /// Redis's name for the group.
    pub group: &'static str,
    /// Its rows.
    pub commands: &'static [Command],
}

/// The number of keys that the argument `at` gives, if it is a positive 32-bit integer.
pub fn number_of_keys(args: Args, at: usize) -> Option<usize> {
    let number = i32::try_from(parse_i64(args.get(at)?)?).ok()?;
    usize::try_from(number).ok().filter(|&number| number > 0)
}

/// The index after the last of the numbered keys, if the call has that many.
fn numbered_keys_end(args: Args, at: usize, step: usize) -> Option<usize> {
    let end = (number_of_keys(args, at)? - 1).checked_mul(step)? + at + 2;
    (end <= args.len()).then_some(end)
}

/// The number of words in a name: `client|id` is sent as two.
const fn name_words(name: &str) -> usize {
    let mut at = 0;
    while at < name.len() {
        if name.as_bytes()[at] == b'|' {
            return 2;
        }
        at += 1;
    }
    1
}

/// Counts the words that are not in square brackets. Words in these, and alternatives of several lengths,
/// make the number a minimum.
const fn count_arity(syntax: &str, name_words: usize) -> i32 {
    let (fewest, varies, _) = count_alternatives(syntax.as_bytes(), 0);
    let required = fewest + name_words as i32;
    if varies { -required } else { required }
}

/// Counts the words of the alternatives from an index up to the end or to a closing bracket. Returns how
/// many there are at least, whether there may be more, and the index behind.
const fn count_alternatives(syntax: &[u8], mut at: usize) -> (i32, bool, usize) {
    let (mut fewest, mut varies) = (i32::MAX, false);
    loop {
        let mut count = 0;
        while at < syntax.len() && !matches!(syntax[at], b'|' | b']' | b'>') {
            let starts_word = at == 0 || matches!(syntax[at - 1], b' ' | b'[' | b'<');
            match syntax[at] {
                b'[' => {
                    (_, _, at) = count_alternatives(syntax, at + 1);
                    varies = true;
                    continue;
                }
                b'<' => {
                    let (inside, inside_varies, behind) = count_alternatives(syntax, at + 1);
                    count += inside;
                    varies |= inside_varies;
                    at = behind;
                    continue;
                }
                b' ' | b'.' => {}
                _ if starts_word => count += 1,
                _ => {}
            }
            at += 1;
        }
        varies |= fewest != i32::MAX && count != fewest;
        fewest = if count < fewest { count } else { fewest };
        if at == syntax.len() || syntax[at] != b'|' {
            return (fewest, varies, at + 1);
        }
        at += 1;
    }
}

/// Walks over the words of a syntax, at compile time. Of the alternatives in `<a | b>` or `[a | b]` it
/// takes the first.
struct Words<'a> {
    syntax: &'a [u8],
    at: usize,
    depth: usize,
    /// The depth of the alternatives that are being skipped; 0 outside of them.
    skipping: usize,
}

impl<'a> Words<'a> {
    const fn new(syntax: &'a str) -> Words<'a> {
        Words { syntax: syntax.as_bytes(), at: 0, depth: 0, skipping: 0 }
    }

    const fn next(&mut self) -> Option<&'a [u8]> {
        let mut start = self.at;
        loop {
            let is_end = self.at == self.syntax.len();
            let byte = if is_end { b' ' } else { self.syntax[self.at] };
            if !matches!(byte, b' ' | b'.' | b'[' | b']' | b'<' | b'>' | b'|') {
                self.at += 1;
                continue;
            }
            if start < self.at && self.skipping == 0 {
                return Some(self.syntax.split_at(self.at).0.split_at(start).1);
            }
            if is_end {
                return None;
            }
            match byte {
                b'[' | b'<' => self.depth += 1,
                b'|' if self.skipping == 0 => self.skipping = self.depth,
                b']' | b'>' => {
                    if self.skipping == self.depth {
                        self.skipping = 0;
                    }
                    self.depth -= 1;
                }
                _ => {}
            }
            self.at += 1;
            start = self.at;
        }
    }
}

/// Whether an argument of this name is a key: `key`, `key2`, `newkey`, `source`, `destination`.
pub const fn is_key_name(name: &[u8]) -> bool {
    let mut end = name.len();
    while end > 0 && name[end - 1].is_ascii_digit() {
        end -= 1;
    }
    (end >= 3 && is_same(name.split_at(end).0.split_at(end - 3).1, b"key"))
        || is_same(name, b"source")
        || is_same(name, b"destination")
}

/// `==`, at compile time.
const fn is_same(one: &[u8], other: &[u8]) -> bool {
    let mut at = 0;
    while at < one.len() && at < other.len() && one[at] == other[at] {
        at += 1;
    }
    at == one.len() && at == other.len()
}

impl From<WrongType> for CommandError {
    fn from(_: WrongType) -> CommandError {
        CommandError::WRONG_TYPE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn row(syntax: &'static str) -> Command {
        write("test", syntax, |_, _, _| Ok(Propagate::Nothing))
    }

    #[test]
    #[should_panic(expected = "the keys in this row's syntax are not those that it declares")]
    fn a_row_with_two_keys_that_declares_one_is_refused() {
        row("key newkey").key("RW").doc("1.0.0", "O(1)", "Renames a key.");
    }

    #[test]
    fn a_row_declares_the_keys_of_its_syntax_and_no_others() {
        let accepted = [
            row("seconds [NX | XX]"),
            row("key value").key("RW"),
            row("key newkey").keys(1, 1, 1, "RW").keys(2, 2, 1, "OW"),
            row("key1 key2").keys(1, 2, 1, "RO"),
            row("<AND | OR> destkey key [key ...]").keys(2, 2, 1, "OW").keys(3, -1, 1, "RO"),
            row("[key [key ...]]").every_key("RO"),
            row("key value [key value ...]").keys(1, -1, 2, "OW"),
            row("numkeys key [key ...] [LIMIT count]").numbered_keys(1, 1, "RO"),
            row("numkeys key value [key value ...] [NX]").numbered_keys(1, 2, "OW"),
            row("shardchannel").key("not_key"),
        ];
        for row in accepted {
            assert!(row.declares_its_keys(), "{}", row.syntax);
        }
        let refused = [
            row("key value"),
            row("seconds").key("RW"),
            row("key [key ...]").key("RW"),
            row("key value [key value ...]").every_key("OW"),
            row("key value").every_key("OW"),
            row("source destination [REPLACE]").key("RO"),
            row("destination key [key ...]").keys(2, -1, 1, "RO"),
            row("key newkey").keys(1, 1, 1, "RW").keys(3, 3, 1, "OW"),
            row("destination numkeys key [key ...]").numbered_keys(2, 1, "RO"),
            row("numkeys key value [key value ...]").numbered_keys(1, 1, "OW"),
            row("numkeys value").numbered_keys(1, 1, "OW"),
            row("key").key("not_key"),
        ];
        for row in refused {
            assert!(!row.declares_its_keys(), "{}", row.syntax);
        }
    }

    #[test]
    fn the_arity_follows_from_the_syntax() {
        assert_eq!(count_arity("", 1), 1);
        assert_eq!(count_arity("key", 1), 2);
        assert_eq!(count_arity("key [key ...]", 1), -2);
        assert_eq!(count_arity("key value [NX | XX] [EX seconds | PX milliseconds]", 1), -3);
        assert_eq!(count_arity("<LIB-NAME name | LIB-VER version>", 2), 4);
        assert_eq!(count_arity("slot <NODE node-id | STABLE>", 2), -4);
        assert_eq!(count_arity("<RANGE start end | BY metric [LIMIT limit]> last", 1), -4);
        assert_eq!(count_arity("<ip:port | filter value> [filter value ...]", 2), -3);
        assert_eq!(count_arity("[ON | OFF]", 2), -2);
    }
}
