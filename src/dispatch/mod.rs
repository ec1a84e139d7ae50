//! From arguments to effect, in one place: look up, check, lock, run, log, unlock.
//!
//! What always holds here: a record is appended while the locks are still held that guarded its
//! change, so the log's order is memory's order; and `session.read_lsn` is at least the log position of
//! everything that the replies show, whoever changed it, so that the connection knows how far the log
//! must be flushed before they may leave.

use crate::commands::spec::{Change, Outcome};
use crate::commands::{self, Command, Context, Handler, Propagate, spec::Flags};
use crate::config::Level;
use crate::config::events::{Class, Event};
use crate::net::outbox::VisibleAt;
use crate::net::pause::Paused;
use crate::resp::{Args, CommandError, Protocol, Reply, request};
use crate::session::{Server, Session};
use crate::store::{
    Access, Expired, ReadAll, ReadView, Transaction, WhatExpired, WriteAll, WriteView,
};
use crate::watchers::tracking::NOBODY;

mod transaction;

pub mod measure;

/// How much of what it does not know an error repeats.
const QUOTED_BYTES: usize = 128;

/// Carries out one command for a connection. The reply has its answer or its error.
pub fn execute(server: &Server, session: &mut Session, args: Args, reply: &mut Reply) {
    let start = reply.len();
    if session.listens() {
        session.client.outbox.hold();
    }
    // The first words of an HTTP request: somebody makes a browser talk to us. As Redis, we do not.
    if args[0].eq_ignore_ascii_case(b"POST") || args[0].eq_ignore_ascii_case(b"Host:") {
        server.config.say(Level::Warning, format_args!("A client spoke HTTP and was cut off"));
        session.closing = true;
        return;
    }
    let admitted = resolve(args).and_then(|command| {
        session.last_command = command.name;
        permit(server, session, command).map(|()| command)
    });
    let mut confirms = false;
    let result = match admitted {
        Ok(command) if session.multi.is_some() && !command.has(Flags::NOT_QUEUED) => {
            transaction::queue(server, session, args, reply);
            Ok(())
        }
        Ok(command) => {
            let outcome = measure::measured(server, session, command, args, |session| {
                run(server, session, command, args, reply)
            });
            confirms = outcome.is_ok() && command.has(Flags::CONFIRMS);
            outcome
        }
        Err(error) => {
            let error = transaction::refuse(server, session, args, error);
            let command = find_row(args).ok();
            session.last_command = command.map_or("NULL", |command| command.name);
            measure::rejected(server, command, &error);
            Err(error)
        }
    };
    if let Err(error) = result {
        reply.truncate(start);
        reply.error(&error);
    }
    if session.caching && session.multi.is_none() {
        // CLIENT CACHING is for the next command, or transaction, that is not about the connection.
        session.caching = find_row(args).is_ok_and(|row| row.name.starts_with("client|"));
    }
    session.finish(reply, start, confirms);
}

/// Whether a pause makes the command wait. One that is going to be refused need not.
pub fn waits_for(what: Paused, server: &Server, session: &Session, args: Args) -> bool {
    let allowed = |command: &&Command| permit(server, session, command).is_ok();
    let writes = |command: &Command| {
        matches!(command.handler, Handler::Write(_) | Handler::WriteAll(_))
            || command.has(Flags::MAY_REPLICATE)
    };
    resolve(args).ok().filter(allowed).is_some_and(|command| {
        let queued = session.multi.iter().flat_map(|multi| multi.queue.iter());
        let mut queued = queued.filter_map(|args| resolve(args).ok());
        what == Paused::Everything
            || writes(command)
            || (matches!(command.handler, Handler::Exec) && queued.any(writes))
    })
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
        Handler::Session(_) | Handler::Exec | Handler::Container(..) | Handler::Hidden(_) => {
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
    let command = find_row(args)?;
    if command.accepts(args.len()) {
        return Ok(command);
    }
    Err(format!("ERR wrong number of arguments for '{}' command", command.name).into())
}

/// Finds the command, or the subcommand.
fn find_row(args: Args) -> Result<&'static Command, CommandError> {
    let command = commands::find(&args[0]).ok_or_else(|| unknown_command(args))?;
    match args.get(1) {
        Some(name) if !command.subcommands().is_empty() => commands::find_subcommand(command, name)
            .ok_or_else(|| unknown_subcommand(command, name)),
        _ => Ok(command),
    }
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
#[inline(always)]
fn permit(server: &Server, session: &Session, command: &Command) -> Outcome {
    if !session.authenticated && !command.has(Flags::NO_AUTH) {
        return Err(CommandError::new("NOAUTH Authentication required."));
    }
    if command.has(Flags::NO_MULTI) && session.multi.is_some() {
        return Err(CommandError::new("ERR Command not allowed inside a transaction"));
    }
    if server.is_loading() && !command.has(Flags::LOADING) {
        return Err(CommandError::new("LOADING Redis is loading the dataset in memory"));
    }
    if matches!(command.handler, Handler::Write(_) | Handler::WriteAll(_))
        && let Some(why) = server.aof.failure()
    {
        return Err(format!("MISCONF Errors writing to the AOF file: {why}").into());
    }
    if session.subscriptions > 0
        && session.client.outbox.protocol() == Protocol::Resp2
        && !command.has(Flags::SUBSCRIBED)
    {
        let text = format!(
            "ERR Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are \
             allowed in this context",
            command.name
        );
        return Err(text.into());
    }
    // To Redis, who watches is a kind of replica.
    if session.client_flags.monitor
        && (command.uses_keyspace() || command.has(Flags::MAY_REPLICATE))
    {
        return Err(CommandError::new("ERR Replica can't interact with the keyspace"));
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
            let view = keyspace
                .read(session.db, command.keys_of(args))
                .with_lru(counts_as_use(session, command));
            let outcome = handler(&view, args, reply);
            session.read_lsn = session.read_lsn.max(view.last_lsn());
            session.tally.looked_up(view.lookups());
            tell_misses(server, session, &view, &outcome, command, args);
            tell_met_expired(server, session, &view, command, args);
            enter_if_tracked(server, session, command, args);
            show_if_monitored(server, session, command, args);
            outcome
        }
        Handler::Write(handler) => {
            let mut view = keyspace
                .write(session.db, command.keys_of(args))
                .with_lru(counts_as_use(session, command));
            let change = handler(&mut view, args, reply);
            let outcome = settle(server, session, &mut view, change, args);
            enter_if_tracked(server, session, command, args);
            session.read_lsn = session.read_lsn.max(view.last_lsn());
            session.tally.looked_up(view.lookups());
            show_if_monitored(server, session, command, args);
            if let Some(garbage) = view.unlock() {
                server.discard(garbage);
            }
            outcome
        }
        Handler::ReadAll(handler) => {
            let view = ReadAll::new(keyspace, session.db);
            let outcome = handler(&view, args, reply);
            session.read_lsn = session.read_lsn.max(view.last_lsn());
            show_if_monitored(server, session, command, args);
            outcome
        }
        Handler::WriteAll(handler) => {
            let mut view = WriteAll::new(keyspace, session.db);
            let change = handler(&mut view, args, reply);
            let outcome = settle_all(server, session, &mut view, change, args);
            session.read_lsn = session.read_lsn.max(view.last_lsn());
            show_if_monitored(server, session, command, args);
            server.discard(view.unlock());
            outcome
        }
        Handler::Exec => {
            let outcome = transaction::execute(server, session, reply);
            show_if_monitored(server, session, command, args);
            outcome
        }
        Handler::Hidden(_) => {
            let found = find_hidden(server, session, command, args)?;
            run(server, session, found, args, reply)
        }
        Handler::Session(_) | Handler::Container(..) => {
            run_session(server, session, None, command, args, reply)
        }
    }
}

/// The row that a command stands for which clients are told of as one. (What it finds for a connection never
/// changes, so a transaction can ask before it locks anything.)
fn find_hidden(
    server: &Server,
    session: &mut Session,
    command: &Command,
    args: Args,
) -> Result<&'static Command, CommandError> {
    let Handler::Hidden(find) = command.handler else { return Err(CommandError::SYNTAX) };
    let found = find(&Context { server, session, transaction: None, replay }, args)?;
    permit(server, session, found)?;
    Ok(found)
}

/// Whether keys that the command looks at count as used: not with `CLIENT NO-TOUCH`, except by TOUCH.
fn counts_as_use(session: &Session, command: &Command) -> bool {
    !session.client_flags.no_touch || command.name == "touch"
}

/// Carries out a command that has no keys.
fn run_session(
    server: &Server,
    session: &mut Session,
    transaction: Option<&Transaction>,
    command: &Command,
    args: Args,
    reply: &mut Reply,
) -> Outcome {
    match command.handler {
        Handler::Session(handler) | Handler::Container(_, Some(handler)) => {
            let mut context = Context { server, session, transaction, replay };
            let outcome = handler(&mut context, args, reply);
            show_if_monitored(server, session, command, args);
            outcome
        }
        _ => Err(CommandError::SYNTAX), // the arity of a container asks for more
    }
}

/// Shows a command to those who watch with `MONITOR`, except what is for administrators. The locks are
/// still held, so that two commands on a key are shown in the order in which they were carried out.
fn show_if_monitored(server: &Server, session: &Session, command: &Command, args: Args) {
    if server.hub.is_monitored() {
        show(server, session, command, args);
    }
}

#[cold]
fn show(server: &Server, session: &Session, command: &Command, args: Args) {
    if !command.has(Flags::ADMIN) && !server.is_loading() {
        let line = commands::monitor::line(session, command, args);
        server.hub.show(&line, &session.visible_at(session.read_lsn));
    }
}

/// Logs what a write did, while its shards are still locked. (Inlined, as [`permit`], lest every command pay
/// for what transactions share.)
#[inline(always)]
fn settle(
    server: &Server,
    session: &mut Session,
    view: &mut WriteView,
    change: Change,
    args: Args,
) -> Outcome {
    for expired in view.take_expired() {
        let record = Propagate::Rewritten(record_of(server, &expired));
        view.logged(log(server, session, expired.db, args, record));
        if server.tracking.is_on() {
            tell_removed(server, &expired.key);
        }
    }
    let outcome = match change {
        Ok(Propagate::Nothing) => Ok(()),
        Ok(effect) => {
            view.changed();
            view.logged(log(server, session, session.db, args, effect));
            Ok(())
        }
        Err(error) => Err(error),
    };
    let events = view.take_events();
    if !events.is_empty() {
        tell(server, &events, &session.visible_at(view.last_lsn()));
    }
    let changed = view.take_changed();
    if !changed.is_empty() {
        tell_changed(server, session, changed);
    }
    outcome
}

/// Tells those who cache the keys that these have changed; those who want to hear of all keys hear of a
/// transaction's together.
#[cold]
fn tell_changed(server: &Server, session: &mut Session, changed: Vec<Box<[u8]>>) {
    let Server { tracking, hub, .. } = server;
    let by = session.client.id;
    changed.iter().for_each(|key| tracking.tell_readers(hub, key, by));
    match session.block {
        Some(_) => session.changed.extend(changed),
        None => tracking.broadcast(hub, &changed, by),
    }
}

/// Tells those who cache a key, or want to hear of it, that something of it has expired: nobody did that.
#[cold]
fn tell_removed(server: &Server, key: &[u8]) {
    server.tracking.tell_readers(&server.hub, key, NOBODY);
    server.tracking.broadcast(&server.hub, &[key], NOBODY);
}

/// Enters a connection that tracks with the keys that it has read, while their shards are still locked:
/// whoever changes them then finds it.
#[inline(always)]
fn enter_if_tracked(server: &Server, session: &Session, command: &Command, args: Args) {
    if let Some(mode) = session.tracking
        && mode.enters(session.caching)
        && command.is_cacheable()
    {
        server.tracking.enter(&server.hub, session.client.id, command.keys_of(args));
    }
}

/// A command that reads does not remove what it finds to be expired; but from then on it is known to be out
/// of date, and those who cache it need not wait for the sweeper.
#[inline(always)]
fn tell_met_expired(
    server: &Server,
    session: &Session,
    view: &ReadView,
    command: &Command,
    args: Args,
) {
    let (_, missed) = view.lookups();
    if missed > 0 && server.tracking.is_on() {
        let expired = command.keys_of(args).filter(|key| view.has_expired(key));
        let by = session.client.id;
        expired.for_each(|key| server.tracking.tell_readers(&server.hub, key, by));
    }
}

/// Publishes what happened, behind the change in the log: nobody hears of what may still be lost. The shards
/// are locked, so that what happens to a key is heard of in the order in which it happened. While the log is
/// replayed nothing happens anew.
#[cold]
fn tell(server: &Server, events: &[Event], position: &VisibleAt) {
    if server.is_loading() {
        return;
    }
    for event in events {
        event.tell(&server.config.notify_keyspace_events, |channel, message| {
            server.hub.publish(channel, message, position);
        });
    }
}

/// Tells of the keys that a command wanted to read and that are not there. What only looks into the server
/// (`OBJECT`, `MEMORY`) misses nothing.
#[inline(always)]
fn tell_misses(
    server: &Server,
    session: &Session,
    view: &ReadView,
    outcome: &Outcome,
    command: &Command,
    args: Args,
) {
    let wanted = server.config.notify_keyspace_events.has(Class::KEY_MISS);
    if wanted && outcome.is_ok() && !command.name.contains('|') {
        let missing = command.keys_of(args).filter(|key| view.get(key, Access::Look).is_none());
        let event = |key: &[u8]| Event { db: view.db, key: key.into(), name: "keymiss" };
        let events: Vec<Event> = missing.map(event).collect();
        tell(server, &events, &session.visible_at(view.last_lsn()));
    }
}

/// Publishes what has expired, and stands in the log before that position.
pub fn tell_expired(server: &Server, expired: &[Expired], position: u64) {
    let wanted = &server.config.notify_keyspace_events;
    for Expired { db, key, what } in expired {
        if server.tracking.is_on() {
            tell_removed(server, key);
        }
        for (_, name) in what.events().iter().filter(|(class, _)| wanted.has(*class)) {
            tell(server, &[Event { db: *db, key: key.clone(), name }], &position.into());
        }
    }
}

/// As [`settle`], for a write to the whole keyspace.
fn settle_all(
    server: &Server,
    session: &mut Session,
    view: &mut WriteAll,
    change: Change,
    args: Args,
) -> Outcome {
    match change? {
        Propagate::Nothing => {}
        effect => view.logged(log(server, session, session.db, args, effect)),
    }
    if view.has_replaced() && server.tracking.is_on() {
        server.discard(server.tracking.tell_all(&server.hub));
    }
    Ok(())
}

/// Appends a record to the log; returns the position behind it. While the log is replayed there is
/// nothing to append. Within a transaction the record waits in its block for the others, and the position
/// is not known yet.
fn log(server: &Server, session: &mut Session, db: usize, args: Args, effect: Propagate) -> u64 {
    if server.is_loading() {
        return 0;
    }
    let mut append = |record: &[u8]| match &mut session.block {
        None => server.aof.append(db, record),
        Some(block) => {
            block.push(db, record);
            0
        }
    };
    session.write_lsn = match effect {
        Propagate::Nothing => 0,
        Propagate::Rewritten(record) => append(&record),
        Propagate::Atomically(records) => match &mut session.block {
            None => server.aof.append_together(db, &records),
            Some(block) => {
                block.push_together(db, &records);
                0
            }
        },
        Propagate::Verbatim => {
            let mut record = session.scratch.take();
            record.clear();
            request::encode_args(&mut record, args);
            let position = append(&record);
            record.shrink_to(SCRATCH_BYTES);
            session.scratch.set(record);
            position
        }
    };
    session.write_lsn
}

/// Counts what has expired, and appends its record. Its shard is locked.
pub fn log_expired(server: &Server, expired: &Expired) -> u64 {
    server.aof.append(expired.db, &record_of(server, expired))
}

/// Counts what has expired; returns its record.
fn record_of(server: &Server, Expired { key, what, .. }: &Expired) -> Vec<u8> {
    match what {
        WhatExpired::Key => server.stats.expired_keys.add(1),
        WhatExpired::Fields(names) => server.stats.expired_fields.add(names.len() as u64),
        WhatExpired::LastFields(count) => server.stats.expired_fields.add(*count as u64),
    }
    let mut record = Vec::new();
    if let WhatExpired::Fields(names) = what {
        for some in names.chunks(RECORD_FIELDS) {
            let names = some.iter().map(|name| &**name);
            let words: Vec<&[u8]> = [&b"HDEL"[..], key].into_iter().chain(names).collect();
            request::encode(&mut record, &words);
        }
    } else {
        request::encode(&mut record, &[b"DEL", key]);
    }
    record
}

/// A record of expired fields has at most so many.
const RECORD_FIELDS: usize = 1000;

/// What a connection keeps of the memory in which it encodes records.
const SCRATCH_BYTES: usize = 64 << 10;
