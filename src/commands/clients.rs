//! `CLIENT`: a client describes and configures its connection, and lists, kills or pauses others.
//!
//! The commands are described at <https://redis.io/docs/latest/commands/?group=connection>.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::docs::help;
use super::options::{integer, is, printable, wrong_subcommand_args};
use super::spec::{Command, Context, Flags, Outcome, session};
use super::tracking;
use crate::net::pause::Paused;
use crate::resp::{Args, CommandError, Reply};
use crate::session::{Client, Replies, Server, Unblocked};
use crate::store::now_ms;
use crate::text::integer::parse_i64;

const CLIENT: Flags = Flags::NOSCRIPT.or(Flags::ALWAYS).or(Flags::KEEPS_CACHING);
const ADMIN: Flags = CLIENT.or(Flags::ADMIN);
const EVERY_NODE: &[&str] = &["request_policy:all_nodes", "response_policy:all_succeeded"];

/// The subcommands of `CLIENT`.
#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    session("client|caching", "<YES | NO>", tracking::caching).flags(CLIENT)
        .arguments(&["yes-no=mode"])
        .doc("6.0.0", "O(1)", "Sets whether the keys that the next command reads are tracked."),
    session("client|capa", "capability [capability ...]", capa).flags(CLIENT)
        .doc("8.0.0", "O(1)", "Says what the client understands, such as REDIRECT. It changes nothing here."),
    session("client|getname", "", getname).flags(CLIENT)
        .doc("2.6.9", "O(1)", "Returns the name of the connection."),
    session("client|getredir", "", tracking::getredir).flags(CLIENT)
        .doc("6.0.0", "O(1)", "Returns the id of the connection that gets the notifications of this one."),
    help("client|help", "5.0.0").flags(Flags::KEEPS_CACHING),
    session("client|id", "", id).flags(CLIENT)
        .doc("5.0.0", "O(1)", "Returns the id of the connection."),
    session("client|import-source", "<ON | OFF>", import_source).flags(CLIENT)
        .doc("8.1.0", "O(1)", "Sets whether the connection copies data here, so that no key expires for it."),
    session("client|info", "", info).flags(CLIENT).tips(&["nondeterministic_output"])
        .doc("6.2.0", "O(1)", "Returns information about the connection."),
    session("client|kill", "<ip:port | filter value> [filter value ...]", kill).flags(ADMIN)
        .history(&[
            ("2.8.12", "Added filters, and the filter `ID`."),
            ("2.8.12", "Added the option `ID`."),
            ("3.2.0", "Added the type `master`."),
            ("5.0.0", "Added the type `replica`."),
            ("6.2.0", "Added the option `LADDR`."),
            ("7.4.0", "Added the option `MAXAGE`."),
        ])
        .doc("2.4.0", "O(N) where N is the number of connections",
             "Closes the connections that match all filters, those of CLIENT LIST."),
    session("client|list",
        "[TYPE <NORMAL | MASTER | REPLICA | PUBSUB>] [ID client-id [client-id ...]] [USER username] \
         [ADDR addr] [LADDR laddr] [SKIPME <YES | NO>] [MAXAGE maxage] [NAME name] [IDLE idle] \
         [FLAGS flags] [LIB-NAME lib-name] [LIB-VER lib-ver] [DB db] [CAPA capa] [IP ip] \
         [NOT-TYPE <NORMAL | PRIMARY | REPLICA | PUBSUB>] [NOT-ID not-client-id [not-client-id ...]] \
         [NOT-USER not-username] [NOT-ADDR not-addr] [NOT-LADDR not-laddr] [NOT-NAME not-name] \
         [NOT-FLAGS not-flags] [NOT-LIB-NAME not-lib-name] [NOT-LIB-VER not-lib-ver] [NOT-DB not-db] \
         [NOT-CAPA not-capa] [NOT-IP not-ip]",
        list).flags(ADMIN).tips(&["nondeterministic_output"])
        .arguments(&[
            "normal-master-replica-pubsub=client-type@5.0.0", "client-id@6.2.0", "yes-no=skipme",
            "normal-primary-replica-pubsub=not-client-type", "not-client-id:integer",
            "maxage:integer", "idle:integer", "db:integer", "not-db:integer",
        ])
        .history(&[
            ("2.8.12", "Added the field `id`."),
            ("5.0.0", "Added the option `TYPE`."),
            ("6.0.0", "Added the field `user`."),
            ("6.2.0", "Added fields and the option `ID`."),
            ("7.0.0", "Added fields."),
            ("7.0.3", "Added the field `ssub`."),
            ("7.2.0", "Added the fields `lib-name` and `lib-ver`."),
            ("7.4.0", "Added the field `watch`."),
            ("8.0.0", "Added the field `io-thread`."),
        ])
        .doc("2.4.0", "O(N) where N is the number of connections",
             "Lists the connections that match all filters: ID, TYPE, USER, NAME, ADDR, LADDR, IP, DB, \
              FLAGS, CAPA, LIB-NAME, LIB-VER, each also with NOT- in front, and SKIPME, MAXAGE, IDLE."),
    session("client|no-evict", "<ON | OFF>", no_evict).flags(ADMIN)
        .arguments(&["on-off=enabled"])
        .doc("7.0.0", "O(1)", "Sets whether the connection is spared by maxmemory-clients."),
    session("client|no-touch", "<ON | OFF>", no_touch).flags(CLIENT)
        .arguments(&["on-off=enabled"])
        .doc("7.2.0", "O(1)", "Sets whether commands of the connection mark keys as used."),
    session("client|pause", "timeout [WRITE | ALL]", pause).flags(ADMIN)
        .arguments(&["write-all=mode@6.2.0"])
        .history(&[("6.2.0", "Added the modes `WRITE` and `ALL`.")])
        .doc("3.0.0", "O(1)", "Suspends all commands, or only writes, for a number of milliseconds."),
    session("client|reply", "<ON | OFF | SKIP>", reply_mode).flags(CLIENT)
        .arguments(&["on-off-skip=action"])
        .doc("3.2.0", "O(1)", "Sets whether the server replies to commands of the connection."),
    session("client|setinfo", "<LIB-NAME libname | LIB-VER libver>", setinfo).flags(CLIENT)
        .tips(EVERY_NODE)
        .arguments(&["libname-libver=attr"])
        .doc("7.2.0", "O(1)", "Sets the name or the version of the client library."),
    session("client|setname", "connection-name", setname).flags(CLIENT)
        .tips(EVERY_NODE)
        .doc("2.6.9", "O(1)", "Sets the name of the connection."),
    session("client|tracking",
        "<ON | OFF> [REDIRECT client-id] [PREFIX prefix [PREFIX prefix ...]] [BCAST] [OPTIN] [OPTOUT] \
         [NOLOOP]",
        tracking::tracking).flags(CLIENT)
        .arguments(&["on-off=status"])
        .doc("6.0.0", "O(1), or O(N) where N is the number of prefixes",
             "Turns on or off notifications about changes to keys that the client caches."),
    session("client|trackinginfo", "", tracking::info).flags(CLIENT)
        .doc("6.2.0", "O(1)", "Returns how keys are tracked for the connection."),
    session("client|unblock", "client-id [TIMEOUT | ERROR]", unblock).flags(ADMIN)
        .arguments(&["timeout-error=unblock-type"])
        .doc("5.0.0", "O(1)", "Unblocks a client that waits in a blocking command."),
    session("client|unpause", "", unpause).flags(ADMIN)
        .doc("6.2.0", "O(1)", "Resumes commands that CLIENT PAUSE suspended."),
];

fn id(context: &mut Context, _: Args, reply: &mut Reply) -> Outcome {
    reply.integer(context.session.client.id as i64);
    Ok(())
}

fn getname(context: &mut Context, _: Args, reply: &mut Reply) -> Outcome {
    let state = context.session.client.state();
    reply.bulk_or_null(Some(state.name.as_slice()).filter(|name| !name.is_empty()));
    Ok(())
}

fn setname(context: &mut Context, args: Args, reply: &mut Reply) -> Outcome {
    context.session.client.state().name = printable(&args[2], "Client names")?.to_vec();
    reply.ok();
    Ok(())
}

fn setinfo(context: &mut Context, args: Args, reply: &mut Reply) -> Outcome {
    let mut state = context.session.client.state();
    if is(&args[2], "LIB-NAME") {
        state.lib_name = printable(&args[3], &String::from_utf8_lossy(&args[2]))?.to_vec();
    } else if is(&args[2], "LIB-VER") {
        state.lib_ver = printable(&args[3], &String::from_utf8_lossy(&args[2]))?.to_vec();
    } else {
        return Err([b"ERR Unrecognized option '", &args[2], b"'"].concat().into());
    }
    reply.ok();
    Ok(())
}

fn info(context: &mut Context, _: Args, reply: &mut Reply) -> Outcome {
    context.session.sync_client_state(Instant::now());
    describe(context.server, std::slice::from_ref(&context.session.client), reply);
    Ok(())
}

fn list(context: &mut Context, args: Args, reply: &mut Reply) -> Outcome {
    let filter = Filter::parse(context, args, Purpose::List)?;
    context.session.sync_client_state(Instant::now());
    let all = context.server.clients.all();
    let all = match filter.ids() {
        // The reply keeps the order of the ids in the call.
        Some(ids) => {
            let find = |id: &i64| all.iter().find(|client| client.id as i64 == *id).cloned();
            ids.iter().filter_map(find).collect()
        }
        None => all,
    };
    describe(context.server, &filter.apply(context, all), reply);
    Ok(())
}

fn describe(server: &Server, clients: &[Arc<Client>], reply: &mut Reply) {
    let mut text = Vec::new();
    for client in clients {
        text.extend(server.describe(client));
        text.push(b'\n');
    }
    reply.verbatim(&text);
}

/// What a filter compares with a client's fields in `CLIENT LIST`.
enum Wanted<'a> {
    Ids(Vec<i64>),
    Text(&'a [u8]),
    /// The address without the port.
    Ip(&'a [u8]),
    /// All of these letters.
    Letters(&'a [u8]),
    /// A class of clients: the letter that only these have, or `N` for all others.
    Class(u8),
    AtLeast(i64),
}

impl Wanted<'_> {
    fn is_met_by(&self, value: &[u8]) -> bool {
        match self {
            Wanted::Ids(ids) => parse_i64(value).is_some_and(|id| ids.contains(&id)),
            Wanted::Text(text) => value == *text,
            Wanted::Ip(ip) => {
                let port = value.iter().rposition(|&byte| byte == b':').unwrap_or(value.len());
                value[..port] == **ip
            }
            Wanted::Letters(letters) => letters.iter().all(|letter| value.contains(letter)),
            Wanted::Class(wanted) => {
                let of_class = b"MSP".iter().find(|letter| value.contains(letter));
                of_class.unwrap_or(&b'N') == wanted
            }
            Wanted::AtLeast(least) => parse_i64(value).is_some_and(|number| number >= *least),
        }
    }
}

/// What the value of a filter looks like.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Syntax {
    Ids,
    Text,
    User,
    Ip,
    Class,
    Database,
    /// Letters out of these.
    Letters(&'static str),
    /// Seconds; such a filter has no opposite.
    Seconds,
}

/// The filters of `CLIENT LIST` and `CLIENT KILL`, each with the field that it is about. With `NOT-` in front
/// they select the other clients.
#[rustfmt::skip]
const FILTERS: &[(&str, &str, Syntax)] = &[
    ("ID", "id", Syntax::Ids),
    ("TYPE", "flags", Syntax::Class),
    ("ADDR", "addr", Syntax::Text),
    ("LADDR", "laddr", Syntax::Text),
    ("USER", "user", Syntax::User),
    ("MAXAGE", "age", Syntax::Seconds),
    ("IDLE", "idle", Syntax::Seconds),
    ("NAME", "name", Syntax::Text),
    ("FLAGS", "flags", Syntax::Letters("AbBcdeEiIMNOPrRStTuUx")),
    ("LIB-NAME", "lib-name", Syntax::Text),
    ("LIB-VER", "lib-ver", Syntax::Text),
    ("DB", "db", Syntax::Database),
    ("CAPA", "capa", Syntax::Letters("r")),
    ("IP", "addr", Syntax::Ip),
];

/// What clients are selected for. Redis has other errors for wrong ids in each case.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    List,
    Kill,
}

/// Selects connections: those that meet every condition. Redis has few of these filters, Valkey all of them.
struct Filter<'a> {
    conditions: Vec<Condition<'a>>,
    skips_own: bool,
}

struct Condition<'a> {
    /// The word that gave it.
    word: &'a [u8],
    field: &'static str,
    wanted: Wanted<'a>,
    negated: bool,
}

impl<'a> Filter<'a> {
    fn parse(
        context: &Context,
        args: Args<'a>,
        purpose: Purpose,
    ) -> Result<Filter<'a>, CommandError> {
        let mut filter = Filter { conditions: Vec::new(), skips_own: purpose == Purpose::Kill };
        let mut at = 2;
        while let Some(word) = args.get(at) {
            let value = args.get(at + 1).ok_or(CommandError::SYNTAX)?;
            at += 2;
            if is(word, "SKIPME") {
                filter.skips_own = is(value, "yes");
                if !filter.skips_own && !is(value, "no") {
                    return Err(CommandError::SYNTAX);
                }
                continue;
            }
            let (name, negated) = match word.split_at_checked(4) {
                Some((prefix, name)) if is(prefix, "NOT-") => (name, true),
                _ => (word, false),
            };
            let found = FILTERS.iter().find(|(known, ..)| is(name, known));
            let &(name, field, syntax) = found.ok_or(CommandError::SYNTAX)?;
            let wanted = match syntax {
                Syntax::Ids => {
                    let first = at - 1;
                    let ids = args.from(first).map_while(parse_i64);
                    let ids: Vec<i64> = ids.collect();
                    at = first + ids.len();
                    check_ids(&ids, args.get(at), purpose, negated)?;
                    Wanted::Ids(ids)
                }
                Syntax::Seconds if negated => return Err(CommandError::SYNTAX),
                _ => parse_value(context.server, name, value, syntax, negated)?,
            };
            // As in Redis, the last one counts.
            filter.conditions.retain(|other| !other.word.eq_ignore_ascii_case(word));
            filter.conditions.push(Condition { word, field, wanted, negated });
        }
        Ok(filter)
    }

    /// The ids that were asked for.
    fn ids(&self) -> Option<&[i64]> {
        self.conditions.iter().find_map(|condition| match &condition.wanted {
            Wanted::Ids(ids) if !condition.negated => Some(ids.as_slice()),
            _ => None,
        })
    }

    fn apply(&self, context: &Context, mut clients: Vec<Arc<Client>>) -> Vec<Arc<Client>> {
        let own_id = context.session.client.id;
        clients.retain(|client| {
            let fields = context.server.client_fields(client);
            let is_met = |condition: &Condition| {
                let mut values = fields.iter().filter(|(name, _)| *name == condition.field);
                let is_met = values.any(|(_, value)| condition.wanted.is_met_by(value));
                is_met != condition.negated
            };
            !(self.skips_own && client.id == own_id) && self.conditions.iter().all(is_met)
        });
        clients
    }
}

/// Checks the ids of a filter. `next` is the word after them.
fn check_ids(
    ids: &[i64],
    next: Option<&[u8]>,
    purpose: Purpose,
    negated: bool,
) -> Result<(), CommandError> {
    let is_filter = |word: &[u8]| {
        let name = word.split_at_checked(4).filter(|(prefix, _)| is(prefix, "NOT-"));
        let name = name.map_or(word, |(_, name)| name);
        is(word, "SKIPME") || FILTERS.iter().any(|(known, ..)| is(name, known))
    };
    let ends = !ids.is_empty() && next.is_none_or(is_filter);
    match purpose {
        _ if negated && !ends => Err(CommandError::SYNTAX),
        Purpose::List if !ends => Err(CommandError::new("ERR Invalid client ID")),
        Purpose::Kill if ids.first().is_none_or(|id| *id <= 0) || ids.iter().any(|id| *id <= 0) => {
            Err(CommandError::new("ERR client-id should be greater than 0"))
        }
        Purpose::Kill if !ends => Err(CommandError::SYNTAX),
        Purpose::List | Purpose::Kill => Ok(()),
    }
}

/// Parses the value of a filter other than `ID`. The error texts are those of Redis and Valkey.
fn parse_value<'a>(
    server: &Server,
    name: &str,
    value: &'a [u8],
    syntax: Syntax,
    negated: bool,
) -> Result<Wanted<'a>, CommandError> {
    let shown = if negated { format!("NOT-{name}") } else { name.to_string() };
    match syntax {
        Syntax::Ids | Syntax::Text => Ok(Wanted::Text(value)),
        Syntax::Ip => Ok(Wanted::Ip(value)),
        Syntax::User if server.users.get(value).is_some() => Ok(Wanted::Text(value)),
        Syntax::User => Err([b"ERR No such user '", value, b"'"].concat().into()),
        Syntax::Class => match value.to_ascii_lowercase().as_slice() {
            b"normal" => Ok(Wanted::Class(b'N')),
            b"pubsub" => Ok(Wanted::Class(b'P')),
            b"master" | b"primary" => Ok(Wanted::Class(b'M')),
            b"slave" | b"replica" => Ok(Wanted::Class(b'S')),
            _ => Err([b"ERR Unknown client type '", value, b"'"].concat().into()),
        },
        Syntax::Letters(known) => {
            if value.iter().all(|letter| known.as_bytes().contains(letter)) {
                return Ok(Wanted::Letters(value));
            }
            let place = if negated { format!("the {shown}") } else { "the provided".into() };
            let text = format!("ERR Unknown {} found in {place} filter: ", name.to_lowercase());
            Err([text.as_bytes(), value].concat().into())
        }
        Syntax::Database => {
            let text = || format!("ERR {shown} is not an integer or out of range");
            let number = parse_i64(value).ok_or_else(text)?;
            let last = server.config.database_count() as i64 - 1;
            if !(0..=last).contains(&number) {
                return Err(format!("ERR {shown} number should be between 0 and {last}").into());
            }
            Ok(Wanted::Text(value))
        }
        Syntax::Seconds => {
            let name = name.to_lowercase();
            let text = || format!("ERR {name} is not an integer or out of range");
            let seconds = parse_i64(value).ok_or_else(text)?;
            if seconds <= 0 {
                return Err(format!("ERR {name} should be greater than 0").into());
            }
            Ok(Wanted::AtLeast(seconds))
        }
    }
}

/// Closes connections. The client's own one is closed after the reply.
fn kill(context: &mut Context, args: Args, reply: &mut Reply) -> Outcome {
    let is_old_form = args.len() == 3;
    let filter = if is_old_form {
        let (word, field, wanted) = (&args[1], "addr", Wanted::Text(&args[2]));
        let condition = Condition { word, field, wanted, negated: false };
        Filter { conditions: vec![condition], skips_own: false }
    } else {
        Filter::parse(context, args, Purpose::Kill)?
    };
    context.session.sync_client_state(Instant::now());
    let killed = filter.apply(context, context.server.clients.all());
    for client in &killed {
        if client.id == context.session.client.id {
            context.session.closing = true;
        } else {
            context.server.kill(client);
        }
    }
    if !is_old_form {
        reply.count(killed.len());
    } else if killed.is_empty() {
        return Err(CommandError::new("ERR No such client"));
    } else {
        reply.ok();
    }
    Ok(())
}

/// Unknown capabilities are ignored, so that newer clients can ask for theirs.
fn capa(context: &mut Context, args: Args, reply: &mut Reply) -> Outcome {
    if args.from(2).any(|name| is(name, "REDIRECT")) {
        context.session.client_flags.redirect = true;
    }
    reply.ok();
    Ok(())
}

fn import_source(context: &mut Context, args: Args, reply: &mut Reply) -> Outcome {
    if !is(&args[2], "OFF") && !context.server.config.import_mode.load(Relaxed) {
        return Err(CommandError::new("ERR Server is not in import mode"));
    }
    context.session.client_flags.import_source = on_or_off(&args[2])?;
    reply.ok();
    Ok(())
}

/// Longer pauses are cut to this, so that the end of a pause can be represented.
const LONGEST_PAUSE: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

fn pause(context: &mut Context, args: Args, reply: &mut Reply) -> Outcome {
    let what = match args.get(3) {
        None => Paused::Everything,
        Some(_) if args.len() > 4 => return Err(wrong_subcommand_args(args)),
        Some(word) if is(word, "WRITE") => Paused::Writes,
        Some(word) if is(word, "ALL") => Paused::Everything,
        Some(_) => return Err(CommandError::new("ERR CLIENT PAUSE mode must be WRITE or ALL")),
    };
    let text = "ERR timeout is not an integer or out of range";
    let timeout_ms = parse_i64(&args[2]).ok_or(CommandError::new(text))?;
    let timeout_ms = u64::try_from(timeout_ms);
    let timeout_ms = timeout_ms.map_err(|_| CommandError::new("ERR timeout is negative"))?;
    if timeout_ms.checked_add_signed(now_ms()).is_none_or(|end| end > i64::MAX as u64) {
        return Err(CommandError::new("ERR timeout is out of range"));
    }
    let until = Instant::now() + Duration::from_millis(timeout_ms).min(LONGEST_PAUSE);
    context.server.pause.start(what, until);
    reply.ok();
    Ok(())
}

fn unpause(context: &mut Context, _: Args, reply: &mut Reply) -> Outcome {
    context.server.pause.end();
    reply.ok();
    Ok(())
}

fn reply_mode(context: &mut Context, args: Args, reply: &mut Reply) -> Outcome {
    let session = &mut *context.session;
    match args[2].to_ascii_uppercase().as_slice() {
        b"ON" => {
            session.delivery.replies = Replies::On;
            reply.ok();
        }
        b"OFF" => session.delivery.replies = Replies::Off,
        b"SKIP" if session.delivery.replies == Replies::Off => {}
        b"SKIP" => session.delivery.replies = Replies::SkipNext,
        _ => return Err(CommandError::SYNTAX),
    }
    Ok(())
}

fn no_evict(context: &mut Context, args: Args, reply: &mut Reply) -> Outcome {
    context.session.client_flags.no_evict = on_or_off(&args[2])?;
    reply.ok();
    Ok(())
}

fn no_touch(context: &mut Context, args: Args, reply: &mut Reply) -> Outcome {
    context.session.client_flags.no_touch = on_or_off(&args[2])?;
    reply.ok();
    Ok(())
}

fn on_or_off(word: &[u8]) -> Result<bool, CommandError> {
    let on = is(word, "ON");
    if on || is(word, "OFF") { Ok(on) } else { Err(CommandError::SYNTAX) }
}

/// Ends a wait for replicas. As in Redis, a command that a pause suspends is not unblocked.
fn unblock(context: &mut Context, args: Args, reply: &mut Reply) -> Outcome {
    if args.len() > 4 {
        return Err(wrong_subcommand_args(args));
    }
    if args.get(3).is_some_and(|reason| !is(reason, "TIMEOUT") && !is(reason, "ERROR")) {
        let text = "ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR";
        return Err(CommandError::new(text));
    }
    let id = integer(&args[2])?;
    let is_error = args.get(3).is_some_and(|reason| is(reason, "ERROR"));
    let how = if is_error { Unblocked::Error } else { Unblocked::Timeout };
    let Context { server, .. } = context;
    let client = u64::try_from(id).ok().and_then(|id| server.clients.get(id));
    let unblocked = client.is_some_and(|client| client.unblocking.unblock(how));
    server.replication.replicas.wake();
    reply.integer(i64::from(unblocked));
    Ok(())
}
