//! `MONITOR`: shows a client every command that the server executes, one line each.
//!
//! Commands for administrators are not shown, and passwords are redacted. The lines are messages like any
//! other ([`outbox`](crate::net::outbox)): a monitor that does not read slows down no other client and is
//! disconnected.
//!
//! The command is described at <https://redis.io/docs/latest/commands/monitor/>.

use std::time::{SystemTime, UNIX_EPOCH};

use super::spec::{Command, Context, Family, Flags, Outcome, session};
use crate::memory;
use crate::resp::{Args, CommandError, Reply};
use crate::session::Session;
use crate::text::quote;

const ADMIN: Flags = Flags::ADMIN.or(Flags::NOSCRIPT).or(Flags::ALWAYS);

/// `MONITOR`.
#[rustfmt::skip]
pub static FAMILY: Family = Family { group: "server", commands: &[
    session("monitor", "", monitor).flags(ADMIN)
        .doc("1.0.0", "O(N) for each command, where N is the number of monitors",
             "Streams every command that the server executes."),
] };

/// A client that is a monitor already gets no second reply. In a transaction it is refused, as lines would
/// get between the replies.
fn monitor(context: &mut Context, _: Args, reply: &mut Reply) -> Outcome {
    if context.transaction.is_some() {
        return Err(CommandError::new("ERR MONITOR isn't allowed for DENY BLOCKING client"));
    }
    let session = &mut *context.session;
    if !session.client.outbox.listening.monitors() {
        session.client.outbox.hold();
        context.server.pubsub.monitor(session.client.id, &session.client.outbox);
        reply.ok();
    }
    Ok(())
}

/// A quoted byte takes at most four, and while the line grows half as much again as it has.
const QUOTED_BYTES: usize = 12;

/// The line for a command: the time, the database, the client's address and the arguments.
pub fn line(session: &Session, command: &Command, args: Args) -> Vec<u8> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let (address, unix_path) = session.client.addresses();
    let from = match unix_path.strip_suffix(":0").filter(|_| session.client.is_unix()) {
        Some(path) => format!("unix:{path}"),
        None => address,
    };
    let (seconds, micros) = (now.as_secs(), now.subsec_micros());
    let mut line = format!("{seconds}.{micros:06} [{} {from}]", session.db).into_bytes();
    if memory::ensure_available(QUOTED_BYTES * args.payload_bytes()).is_err() {
        line.extend_from_slice(b" (a command for whose arguments the system has no memory)");
        return line;
    }
    for arg in command.without_secrets(args) {
        line.push(b' ');
        quote(arg, &mut line);
    }
    line
}
