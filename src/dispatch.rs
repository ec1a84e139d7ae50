//! From arguments to effect, in one place: look up, check, lock, run, log, unlock.
//!
//! What always holds here: a record is appended while the locks are still held that guarded its
//! change, so the log's order is memory's order; and `session.seen` is at least the log position of
//! everything that the replies show, whoever changed it, so that the connection knows how far the log
//! must be flushed before they may leave.

use crate::commands::spec::{Change, Outcome};
use crate::commands::{self, Command, Context, Effect, Handler, spec::Flags};
use crate::config::Level;
use crate::resp::{Args, CommandError, Reply, request};
use crate::session::{Server, Session};
use crate::store::{ReadAll, WriteAll};

/// How much of what it does not know an error repeats.
const QUOTED_BYTES: usize = 128;

/// Carries out one command for a connection. The reply has its answer or its error.
pub fn execute(server: &Server, session: &mut Session, args: Args, reply: &mut Reply) {
    let start = reply.len();
    // The first words of an HTTP request: somebody makes a browser talk to us. As Redis, we do not.
    if args[0].eq_ignore_ascii_case(b"POST") || args[0].eq_ignore_ascii_case(b"Host:") {
        server.config.say(Level::Warning, format_args!("A client spoke HTTP and was cut off"));
        session.closing = true;
        return;
    }
    let result = resolve(args).and_then(|command| {
        session.last_command = command.name;
        permit(server, session, command)?;
        run(server, session, command, args, reply)
    });
    if let Err(error) = result {
        reply.truncate(start);
        reply.error(&error);
    }
}

/// Carries out one command of the log, which is not logged again.
///
/// # Errors
/// It is no command that can stand in a log, or it fails.
pub fn replay(
    server: &Server,
    session: &mut Session,
    args: Args,
    reply: &mut Reply,
) -> Result<(), String> {
    let result = resolve(args).and_then(|command| {
        belongs_in_a_log(command)?;
        run(server, session, command, args, reply)
    });
    reply.clear(0);
    result.map_err(|error| describe_failure(args, &error))
}

/// Whether this could stand in a log: what `--check-aof` asks.
///
/// # Errors
/// It is no command, or not one that can stand in a log, or lacks arguments.
pub fn check(args: Args) -> Result<(), String> {
    let result = resolve(args).and_then(belongs_in_a_log);
    result.map_err(|error| describe_failure(args, &error))
}

/// Reads and writes belong in a log, and SELECT.
fn belongs_in_a_log(command: &Command) -> Outcome {
    match command.handler {
        Handler::Session(_) if command.name == "select" => Ok(()),
        Handler::Session(_) | Handler::Container(..) | Handler::Hidden(_) => {
            Err(CommandError::new("ERR a command that does not belong in a log"))
        }
        _ => Ok(()),
    }
}

fn describe_failure(args: Args, error: &CommandError) -> String {
    let name = args[0].escape_ascii();
    format!("'{name}': {}", String::from_utf8_lossy(error.text()))
}

/// Finds the command and checks the number of its arguments.
pub fn resolve(args: Args) -> Result<&'static Command, CommandError> {
    let command = commands::find(&args[0]).ok_or_else(|| unknown_command(args))?;
    let command = match args.get(1) {
        Some(name) if !command.subcommands().is_empty() && !is_help(args) => {
            commands::find_subcommand(command, name)
                .ok_or_else(|| unknown_subcommand(command, name))?
        }
        _ => command,
    };
    if command.accepts(args.len()) {
        return Ok(command);
    }
    Err(format!("ERR wrong number of arguments for '{}' command", command.name).into())
}

/// Every container answers `HELP`, from its rows.
fn is_help(args: Args) -> bool {
    args.len() == 2 && args[1].eq_ignore_ascii_case(b"HELP")
}

fn unknown_command(args: Args) -> CommandError {
    let mut quoted = Vec::new();
    for arg in args.from(1) {
        if quoted.len() >= QUOTED_BYTES {
            break;
        }
        let room = QUOTED_BYTES - quoted.len();
        quoted.extend([b"'", quotable(arg, room), b"' "].concat());
    }
    let name = quotable(&args[0], QUOTED_BYTES);
    [b"ERR unknown command '", name, b"', with args beginning with: ", &quoted].concat().into()
}

/// What an error repeats of an argument: as Redis, up to a zero byte or a limit.
fn quotable(arg: &[u8], limit: usize) -> &[u8] {
    let end = arg.iter().position(|&byte| byte == 0).unwrap_or(arg.len());
    &arg[..end.min(limit)]
}

fn unknown_subcommand(container: &Command, name: &[u8]) -> CommandError {
    let name = quotable(name, QUOTED_BYTES);
    let container = container.name.to_uppercase();
    let help = format!("'. Try {container} HELP.");
    [b"ERR unknown subcommand '", name, help.as_bytes()].concat().into()
}

/// Whether the connection may use the command now.
fn permit(server: &Server, session: &Session, command: &Command) -> Outcome {
    if !session.authenticated && !command.has(Flags::NO_AUTH) {
        return Err(CommandError::new("NOAUTH Authentication required."));
    }
    if server.is_loading() && !command.has(Flags::LOADING) {
        return Err(CommandError::new("LOADING Redis is loading the dataset in memory"));
    }
    if matches!(command.handler, Handler::Write(_) | Handler::WriteAll(_))
        && let Some(why) = server.aof.failure()
    {
        return Err(format!("MISCONF Errors writing to the AOF file: {why}").into());
    }
    Ok(())
}

fn run(
    server: &Server,
    session: &mut Session,
    command: &Command,
    args: Args,
    reply: &mut Reply,
) -> Outcome {
    let keyspace = &server.keyspace;
    match command.handler {
        Handler::Read(handler) => {
            let view = keyspace.read(session.db, command.keys_of(args));
            let outcome = handler(&view, args, reply);
            session.seen = session.seen.max(view.last_record());
            outcome
        }
        Handler::Write(handler) => {
            let mut view = keyspace.write(session.db, command.keys_of(args));
            let change = handler(&mut view, args, reply);
            for (db, key) in view.take_expired() {
                server.stats.expired_keys.add(1);
                view.logged(log_expired(server, db, &key));
            }
            let outcome = settle(change, |effect| {
                let position = log(server, session, session.db, args, effect);
                view.logged(position);
            });
            session.seen = session.seen.max(view.last_record());
            server.discard(view.unlock());
            outcome
        }
        Handler::ReadAll(handler) => {
            let view = ReadAll::new(keyspace, session.db);
            let outcome = handler(&view, args, reply);
            session.seen = session.seen.max(view.last_record());
            outcome
        }
        Handler::WriteAll(handler) => {
            let mut view = WriteAll::new(keyspace, session.db);
            let outcome = settle(handler(&mut view, args, reply), |effect| {
                let position = log(server, session, session.db, args, effect);
                view.logged(position);
            });
            session.seen = session.seen.max(view.last_record());
            server.discard(view.unlock());
            outcome
        }
        Handler::Container(..) if is_help(args) => {
            commands::docs::help(command, reply);
            Ok(())
        }
        Handler::Session(handler) | Handler::Container(_, Some(handler)) => {
            handler(&mut Context { server, session, replay }, args, reply)
        }
        Handler::Hidden(find) => {
            let found = find(&Context { server, session, replay }, args)?;
            permit(server, session, found)?;
            run(server, session, found, args, reply)
        }
        Handler::Container(_, None) => Err(CommandError::SYNTAX), // its arity asks for more
    }
}

/// Hands on the effect of a write that changed something.
fn settle(change: Change, log: impl FnOnce(Effect)) -> Outcome {
    match change? {
        Effect::None => {}
        effect => log(effect),
    }
    Ok(())
}

/// Appends a record to the log; returns the position behind it. While the log is replayed there is
/// nothing to append.
fn log(server: &Server, session: &mut Session, db: usize, args: Args, effect: Effect) -> u64 {
    if server.is_loading() {
        return 0;
    }
    session.written = match effect {
        Effect::None => 0,
        Effect::Replay(record) => server.aof.append(db, &record),
        Effect::ReplayTogether(records) => {
            let mut block = Vec::with_capacity(records.len() + 32);
            request::encode(&mut block, &[b"MULTI"]);
            block.extend_from_slice(&records);
            request::encode(&mut block, &[b"EXEC"]);
            server.aof.append(db, &block)
        }
        Effect::AsReceived => {
            let mut record = session.scratch.take();
            record.clear();
            request::encode_args(&mut record, args);
            let position = server.aof.append(db, &record);
            record.shrink_to(SCRATCH_BYTES);
            session.scratch.set(record);
            position
        }
    };
    session.written
}

/// Appends the record of a key's expiry, whose shard is locked.
pub fn log_expired(server: &Server, db: usize, key: &[u8]) -> u64 {
    let mut record = Vec::new();
    request::encode(&mut record, &[b"DEL", key]);
    server.aof.append(db, &record)
}

/// What a connection keeps of the memory in which it encodes records.
const SCRATCH_BYTES: usize = 64 << 10;
