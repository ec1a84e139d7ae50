//! `CLIENT`: a client describes and configures its connection, and lists, kills or pauses others.
//!
//! The commands are described at <https://redis.io/docs/latest/commands/?group=connection>.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::docs::help;
use super::options::{OptionCursor, integer, is, printable, wrong_subcommand_args};
use super::spec::{Command, Context, Flags, Outcome, session};
use super::tracking;
use crate::net::pause::Paused;
use crate::resp::{Args, CommandError, Reply};
use crate::session::{Client, Replies, Server};
use crate::store::now_ms;
use crate::text::integer::parse_i64;

const CLIENT: Flags = Flags::NOSCRIPT.or(Flags::ALWAYS).or(Flags::KEEPS_CACHING);
const ADMIN: Flags = CLIENT.or(Flags::ADMIN);
const EVERY_NODE: &[&str] = &["request_policy:all_nodes", "response_policy:all_succeeded"];

/// The subcommands of `CLIENT`.
#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    session("client|caching", "<YES | NO>", tracking::caching).flags(CLIENT)
        .doc("6.0.0", "O(1)", "Sets whether the keys that the next command reads are tracked."),
    session("client|getname", "", getname).flags(CLIENT)
        .doc("2.6.9", "O(1)", "Returns the name of the connection."),
    session("client|getredir", "", tracking::getredir).flags(CLIENT)
        .doc("6.0.0", "O(1)", "Returns the id of the connection that gets the notifications of this one."),
    help("client|help", "5.0.0").flags(Flags::KEEPS_CACHING),
    session("client|id", "", id).flags(CLIENT)
        .doc("5.0.0", "O(1)", "Returns the id of the connection."),
    session("client|info", "", info).flags(CLIENT).tips(&["nondeterministic_output"])
        .doc("6.2.0", "O(1)", "Returns information about the connection."),
    session("client|kill", "<ip:port | filter value> [filter value ...]", kill).flags(ADMIN)
        .doc("2.4.0", "O(N) where N is the number of connections",
             "Closes the connections that match all filters: ID client-id, TYPE type, USER username, \
              ADDR ip:port, LADDR ip:port, SKIPME YES|NO, MAXAGE seconds."),
    session("client|list", "[TYPE <NORMAL | MASTER | REPLICA | PUBSUB>] [ID client-id [client-id ...]]",
        list).flags(ADMIN).tips(&["nondeterministic_output"])
        .doc("2.4.0", "O(N) where N is the number of connections", "Lists the open connections."),
    session("client|no-evict", "<ON | OFF>", no_evict).flags(ADMIN)
        .doc("7.0.0", "O(1)", "Protects the connection from eviction. No connection is ever evicted here."),
    session("client|no-touch", "<ON | OFF>", no_touch).flags(CLIENT)
        .doc("7.2.0", "O(1)", "Sets whether commands of the connection mark keys as used."),
    session("client|pause", "timeout [WRITE | ALL]", pause).flags(ADMIN)
        .doc("3.0.0", "O(1)", "Suspends all commands, or only writes, for a number of milliseconds."),
    session("client|reply", "<ON | OFF | SKIP>", reply_mode).flags(CLIENT)
        .doc("3.2.0", "O(1)", "Sets whether the server replies to commands of the connection."),
    session("client|setinfo", "<LIB-NAME libname | LIB-VER libver>", setinfo).flags(CLIENT)
        .tips(EVERY_NODE)
        .doc("7.2.0", "O(1)", "Sets the name or the version of the client library."),
    session("client|setname", "connection-name", setname).flags(CLIENT)
        .tips(EVERY_NODE)
        .doc("2.6.9", "O(1)", "Sets the name of the connection."),
    session("client|tracking",
        "<ON | OFF> [REDIRECT client-id] [PREFIX prefix [PREFIX prefix ...]] [BCAST] [OPTIN] [OPTOUT] \
         [NOLOOP]",
        tracking::tracking).flags(CLIENT)
        .doc("6.0.0", "O(1), or O(N) where N is the number of prefixes",
             "Turns on or off notifications about changes to keys that the client caches."),
    session("client|trackinginfo", "", tracking::info).flags(CLIENT)
        .doc("6.2.0", "O(1)", "Returns how keys are tracked for the connection."),
    session("client|unblock", "client-id [TIMEOUT | ERROR]", unblock).flags(ADMIN)
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
        state.lib_name = printable(&args[3], "lib-name")?.to_vec();
    } else if is(&args[2], "LIB-VER") {
        state.lib_ver = printable(&args[3], "lib-ver")?.to_vec();
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
    let mut all = context.server.clients.all();
    match args.get(2) {
        None => {}
        Some(option) if is(option, "TYPE") && args.len() == 4 => {
            let wanted = Type::parse(&args[3])?;
            all.retain(|client| Type::of(context.server, client) == wanted);
        }
        Some(option) if is(option, "ID") && args.len() > 3 => {
            let ids: Option<Vec<i64>> = args.from(3).map(parse_i64).collect();
            let ids = ids.ok_or(CommandError::new("ERR Invalid client ID"))?;
            // The reply keeps the order of the ids in the call.
            let find = |id: &i64| all.iter().find(|client| client.id as i64 == *id).cloned();
            all = ids.iter().filter_map(find).collect();
        }
        Some(_) => return Err(CommandError::SYNTAX),
    }
    context.session.sync_client_state(Instant::now());
    describe(context.server, &all, reply);
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

/// Redis's classes of clients.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Type {
    Normal,
    Pubsub,
    /// Masters and replicas. There are none.
    Other,
}

impl Type {
    fn parse(name: &[u8]) -> Result<Type, CommandError> {
        match name.to_ascii_lowercase().as_slice() {
            b"normal" => Ok(Type::Normal),
            b"pubsub" => Ok(Type::Pubsub),
            b"master" | b"slave" | b"replica" => Ok(Type::Other),
            _ => Err([b"ERR Unknown client type '", name, b"'"].concat().into()),
        }
    }

    fn of(server: &Server, client: &Client) -> Type {
        if server.pubsub.counts(client.id).total() > 0 { Type::Pubsub } else { Type::Normal }
    }
}

/// Selects the connections to close: those that match every filter that was given.
struct Filter<'a> {
    id: Option<i64>,
    class: Option<Type>,
    address: Option<&'a [u8]>,
    local_address: Option<&'a [u8]>,
    least_age_seconds: Option<u64>,
    skips_own: bool,
}

impl<'a> Filter<'a> {
    /// Matches every connection but the client's own.
    fn new() -> Filter<'a> {
        Filter {
            id: None,
            class: None,
            address: None,
            local_address: None,
            least_age_seconds: None,
            skips_own: true,
        }
    }

    fn parse(args: Args<'a>) -> Result<Filter<'a>, CommandError> {
        let mut filter = Filter::new();
        let mut words = OptionCursor::new(args, 2);
        while !words.is_done() {
            if let Some(id) = words.take_value("ID")? {
                let id = parse_i64(id).filter(|&id| id > 0);
                let text = "ERR client-id should be greater than 0";
                filter.id = Some(id.ok_or(CommandError::new(text))?);
            } else if let Some(name) = words.take_value("TYPE")? {
                filter.class = Some(Type::parse(name)?);
            } else if let Some(address) = words.take_value("ADDR")? {
                filter.address = Some(address);
            } else if let Some(address) = words.take_value("LADDR")? {
                filter.local_address = Some(address);
            } else if let Some(user) = words.take_value("USER")? {
                // There is one user, so the filter matches every connection.
                if user != b"default" {
                    return Err([b"ERR No such user '", user, b"'"].concat().into());
                }
            } else if let Some(word) = words.take_value("SKIPME")? {
                filter.skips_own = if is(word, "yes") {
                    true
                } else if is(word, "no") {
                    false
                } else {
                    return Err(CommandError::SYNTAX);
                };
            } else if let Some(age) = words.take_value("MAXAGE")? {
                let text = "ERR maxage is not an integer or out of range";
                let age = parse_i64(age).ok_or(CommandError::new(text))?;
                let age = u64::try_from(age).ok().filter(|&age| age > 0);
                let text = "ERR maxage should be greater than 0";
                filter.least_age_seconds = Some(age.ok_or(CommandError::new(text))?);
            } else {
                return Err(CommandError::SYNTAX);
            }
        }
        Ok(filter)
    }

    fn applies(&self, server: &Server, client: &Client, own_id: u64) -> bool {
        let (address, local_address) = client.addresses();
        self.id.is_none_or(|id| id.unsigned_abs() == client.id)
            && self.class.is_none_or(|class| class == Type::of(server, client))
            && self.address.is_none_or(|wanted| wanted == address.as_bytes())
            && self.local_address.is_none_or(|wanted| wanted == local_address.as_bytes())
            && self.least_age_seconds.is_none_or(|age| client.age_seconds() >= age)
            && !(self.skips_own && client.id == own_id)
    }
}

/// Closes connections. The client's own one is closed after the reply.
fn kill(context: &mut Context, args: Args, reply: &mut Reply) -> Outcome {
    let is_old_form = args.len() == 3;
    let filter = if is_old_form {
        Filter { address: Some(&args[2]), skips_own: false, ..Filter::new() }
    } else {
        Filter::parse(args)?
    };
    let own_id = context.session.client.id;
    let mut killed = context.server.clients.all();
    killed.retain(|client| filter.applies(context.server, client, own_id));
    for client in &killed {
        if client.id == own_id {
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

/// No command blocks a connection here, so there is nothing to unblock. As in Redis, a command that a pause
/// suspends is not unblocked.
fn unblock(_: &mut Context, args: Args, reply: &mut Reply) -> Outcome {
    if args.len() > 4 {
        return Err(wrong_subcommand_args(args));
    }
    if args.get(3).is_some_and(|reason| !is(reason, "TIMEOUT") && !is(reason, "ERROR")) {
        let text = "ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR";
        return Err(CommandError::new(text));
    }
    integer(&args[2])?;
    reply.integer(0);
    Ok(())
}
