//! The connection: authentication, the database and the protocol.
//!
//! The commands are described at <https://redis.io/docs/latest/commands/?group=connection>.

use super::clients;
use super::options::{OptionCursor, database, integer_32, is, printable};
use super::permission;
use super::spec::{Context, DatabaseUse, Family, Flags, Handler, Outcome, command, session};
use crate::resp::{Args, CommandError, Protocol, Reply};
use crate::session::users::DEFAULT;
use crate::session::{Access, Login, Replies, Then};
use crate::stats::denials::Reason;

/// The version of Redis that the server reports, because some clients choose features by it.
pub const REDIS_VERSION: &str = "7.4.0";

/// The flags of commands that work before authentication.
const NO_AUTH: Flags =
    Flags::NOSCRIPT.or(Flags::ALWAYS).or(Flags::FAST).or(Flags::NO_AUTH).or(Flags::ALLOW_BUSY);

/// The connection commands.
#[rustfmt::skip]
pub static FAMILY: Family = Family { group: "connection", commands: &[
    session("auth", "[username] password", auth).flags(NO_AUTH).secrets(|_, at| at > 0)
        .arguments(&["username@6.0.0"])
        .history(&[("6.0.0", "Added the user name.")])
        .doc("1.0.0", "O(1)", "Authenticates the connection."),
    command("client", "subcommand [argument ...]", Handler::Container(clients::COMMANDS, None))
        .doc("2.4.0", "depends on the subcommand", "A container for commands about connections."),
    session("echo", "message", echo).fast().flags(Flags::ALWAYS)
        .doc("1.0.0", "O(1)", "Returns the given string."),
    session("hello", "[protover [AUTH username password] [SETNAME clientname]]", hello).flags(NO_AUTH)
        .secrets(is_credential)
        .arguments(&["protover-auth-clientname=arguments"])
        .history(&[("6.2.0", "`protover` became optional.")])
        .doc("6.0.0", "O(1)", "Switches the protocol version and returns properties of the server."),
    session("ping", "[message]", ping).fast().flags(Flags::SUBSCRIBED.or(Flags::IN_LOG))
        .tips(&["request_policy:all_shards", "response_policy:all_succeeded"])
        .doc("1.0.0", "O(1)", "Returns PONG or the given message, which shows that the server responds."),
    session("quit", "[argument ...]", quit).flags(NO_AUTH.or(Flags::SUBSCRIBED).or(Flags::NOT_QUEUED))
        .arguments(&["argument="])
        .doc("1.0.0", "O(1)", "Closes the connection.")
        .deprecated("7.2.0", "just closing the connection"),
    session("reset", "", reset).flags(NO_AUTH.or(Flags::SUBSCRIBED).or(Flags::NOT_QUEUED))
        .doc("6.2.0", "O(1)", "Resets the connection to the state of a new one."),
    session("select", "index", select).fast().flags(Flags::ALWAYS.or(Flags::IN_LOG))
        .databases(DatabaseUse::Named(|_, at| at == 1))
        .doc("1.0.0", "O(1)", "Selects the database of the connection."),
] };

fn ping(context: &mut Context, args: Args, reply: &mut Reply) -> Outcome {
    // In RESP2, a subscribed client expects arrays whose first element is the kind of message.
    let as_message =
        context.session.client.outbox.listening.subscribes() && reply.protocol == Protocol::Resp2;
    match args.len() {
        1 | 2 if as_message => {
            reply.array(2);
            reply.bulk(b"pong");
            reply.bulk(args.get(1).unwrap_or_default());
        }
        1 => reply.simple("PONG"),
        2 => reply.bulk(&args[1]),
        _ => {
            return Err(CommandError::new("ERR wrong number of arguments for 'ping' command"));
        }
    }
    Ok(())
}

fn echo(_: &mut Context, args: Args, reply: &mut Reply) -> Outcome {
    reply.bulk(&args[1]);
    Ok(())
}

/// A monitor gets no line for its own `QUIT`.
fn quit(context: &mut Context, _: Args, reply: &mut Reply) -> Outcome {
    let session = &mut *context.session;
    session.closing = true;
    if session.client.outbox.listening.monitors() {
        session.stops_listening();
        context.server.pubsub.stop_monitoring(session.client.id);
    }
    reply.ok();
    Ok(())
}

fn select(context: &mut Context, args: Args, reply: &mut Reply) -> Outcome {
    let count = context.server.config.database_count();
    context.session.db = database(integer_32(&args[1])?, count)?;
    reply.ok();
    Ok(())
}

fn reset(context: &mut Context, _: Args, reply: &mut Reply) -> Outcome {
    context.session.stops_listening();
    context.session.release(context.server);
    context.session.db = 0;
    context.session.login = Login::new(&context.server.users);
    {
        let mut state = context.session.client.state();
        state.user = DEFAULT.into();
        state.name.clear();
    }
    if context.session.delivery.replies != Replies::Skipped {
        context.session.delivery.replies = Replies::On; // a reply that is being skipped stays skipped
    }
    speak(context, reply, Protocol::Resp2);
    reply.simple("RESET");
    Ok(())
}

const WRONG_PASSWORD: CommandError =
    CommandError::new("WRONGPASS invalid username-password pair or user is disabled.");

fn auth(context: &mut Context, args: Args, reply: &mut Reply) -> Outcome {
    let (user, password): (&[u8], &[u8]) = match args.len() {
        2 if !context.server.wants_password() => {
            return Err(CommandError::new(
                "ERR AUTH <password> called without any password configured for the default \
                 user. Are you sure your configuration is correct?",
            ));
        }
        2 => (DEFAULT, &args[1]),
        3 => (&args[1], &args[2]),
        _ => return Err(CommandError::SYNTAX),
    };
    authenticate(context, &args[0], user, password)?;
    reply.ok();
    Ok(())
}

/// Logs in. After a failure, the connection's thread lets some time pass before it goes on.
fn authenticate(context: &mut Context, command: &[u8], name: &[u8], password: &[u8]) -> Outcome {
    let Context { server, session, .. } = context;
    match server.users.log_in(&session.client, name, password) {
        Some(user) => session.login = Login::of(user, &server.users),
        None => {
            let before = match session.then {
                Some(Then::Delay(failures)) => failures,
                _ => 0,
            };
            session.then = Some(Then::Delay(before + 1));
            permission::note(server, session, Reason::Auth, command, name);
            return Err(WRONG_PASSWORD);
        }
    }
    Ok(())
}

fn hello(context: &mut Context, args: Args, reply: &mut Reply) -> Outcome {
    let protocol = match args.get(1).map(crate::text::integer::parse_i64) {
        None => reply.protocol,
        Some(Some(2)) => Protocol::Resp2,
        Some(Some(3)) => Protocol::Resp3,
        Some(Some(_)) => return Err(CommandError::new("NOPROTO unsupported protocol version")),
        Some(None) => {
            return Err(CommandError::new(
                "ERR Protocol version is not an integer or out of range",
            ));
        }
    };
    let (mut credentials, mut name) = (None, None);
    let mut words = OptionCursor::new(args, 2);
    while let Some(option) = words.peek() {
        if words.len() > 2 && words.take("AUTH") {
            credentials = words.next().zip(words.next());
        } else if words.len() > 1 && words.take("SETNAME") {
            name = words.next();
        } else {
            let text = [b"ERR Syntax error in HELLO option '", option, b"'"].concat();
            return Err(text.into());
        }
    }
    if let Some((user, password)) = credentials {
        authenticate(context, &args[0], user, password)?;
    }
    if context.session.login.access() == Access::LoginFirst {
        return Err(CommandError::new(
            "NOAUTH HELLO must be called with the client already authenticated, otherwise the \
             HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client and \
             select the RESP protocol version at the same time",
        ));
    }
    if let Some(name) = name {
        context.session.client.state().name = printable(name, "Client names")?.to_vec();
    }
    speak(context, reply, protocol);
    reply.map(7);
    reply.bulk(b"server");
    reply.bulk(b"redis");
    reply.bulk(b"version");
    reply.bulk(REDIS_VERSION.as_bytes());
    reply.bulk(b"proto");
    reply.integer(if protocol == Protocol::Resp2 { 2 } else { 3 });
    reply.bulk(b"id");
    reply.integer(context.session.client.id as i64);
    reply.bulk(b"mode");
    reply.bulk(b"standalone");
    reply.bulk(b"role");
    let role: &[u8] = if context.server.upstream.follows() { b"replica" } else { b"master" };
    reply.bulk(role);
    reply.bulk(b"modules");
    reply.array(0);
    Ok(())
}

/// Whether this argument of HELLO is one of the two that follow AUTH.
fn is_credential(args: Args, at: usize) -> bool {
    (at.saturating_sub(2)..at).any(|before| before >= 2 && is(&args[before], "AUTH"))
}

fn speak(context: &mut Context, reply: &mut Reply, protocol: Protocol) {
    reply.protocol = protocol;
    context.session.client.outbox.set_protocol(protocol);
}
