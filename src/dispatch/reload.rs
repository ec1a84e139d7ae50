//! `DEBUG LOADAOF`, `RELOAD` and `POPULATE`: commands for test tools that run other commands.
//!
//! `LOADAOF` and `RELOAD` read the log into a second keyspace while every shard of the first is locked, and
//! then exchange the two. So no client sees half-loaded data, and if the log cannot be read, everything stays
//! as it was. The data is in memory twice meanwhile.

use std::fs::File;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::mpsc;

use super::{apply, replay};
use crate::aof::replay::ANY_LENGTH;
use crate::aof::{Aof, ReplayError};
use crate::commands::options::{integer, is, wrong_subcommand_args};
use crate::commands::spec::Outcome;
use crate::memory;
use crate::resp::{Args, CommandError, Protocol, Reply, Request, request};
use crate::session::{Origin, Server, Session};

/// Creates keys that do not exist: runs a SETNX for each, which is logged.
pub(super) fn populate(
    server: &Server,
    session: &mut Session,
    args: Args,
    reply: &mut Reply,
) -> Outcome {
    const NOT_POSITIVE: CommandError =
        CommandError::new("ERR value is out of range, must be positive");
    let number = |arg: &[u8]| {
        let number = integer(arg).ok().and_then(|number| usize::try_from(number).ok());
        number.ok_or(NOT_POSITIVE)
    };
    if args.len() > 5 {
        return Err(wrong_subcommand_args(args));
    }
    let count = number(&args[2])?;
    let prefix = args.get(3).unwrap_or(b"key");
    let size = args.get(4).map_or(Ok(0), number)?;
    if size > server.config.proto_max_bulk_len.load(Relaxed) as usize {
        return Err(CommandError::TOO_LONG);
    }
    // The value is stored, and until then there are three more copies of it.
    memory::ensure_available(size.saturating_mul(4))?;
    // To Redis it is no write, so a replica takes it too. What a client changes there is not logged.
    let follows = server.upstream.follows();
    let origin = if follows { Origin::Replay } else { Origin::Client };
    let origin = std::mem::replace(&mut session.origin, origin);
    let created = create(server, session, prefix, count, size);
    session.origin = origin;
    created?;
    reply.ok();
    Ok(())
}

/// Runs that many SETNX.
fn create(
    server: &Server,
    session: &mut Session,
    prefix: &[u8],
    count: usize,
    size: usize,
) -> Outcome {
    let (mut request, mut record) = (Request::new(ANY_LENGTH), Vec::new());
    let mut ignored = Reply::new(Protocol::Resp2);
    for index in 0..count {
        let key = [prefix, b":", index.to_string().as_bytes()].concat();
        let mut value = format!("value:{index}").into_bytes();
        if size > 0 {
            value.resize(size, 0);
        }
        record.clear();
        request::encode(&mut record, &[b"SETNX", &key, &value]);
        request.clear();
        request.feed(&record).map_err(|error| format!("ERR {error}"))?;
        let args = request.args()?;
        apply(server, session, args, &mut ignored).map_err(|why| format!("ERR {why}"))?;
    }
    Ok(())
}

/// Replaces the data by a replay of the log.
pub(super) fn load_aof(server: &Server, session: &mut Session, reply: &mut Reply) -> Outcome {
    expect_log(server)?;
    load(server, session)?;
    reply.ok();
    Ok(())
}

/// Rewrites the log, unless NOSAVE is given, and then replaces the data by a replay of it. The log has
/// everything that is in memory, so MERGE and NOFLUSH change nothing.
pub(super) fn reload(
    server: &Server,
    session: &mut Session,
    args: Args,
    reply: &mut Reply,
) -> Outcome {
    let mut rewrites = true;
    for option in args.from(2) {
        if is(option, "NOSAVE") {
            rewrites = false;
        } else if !is(option, "MERGE") && !is(option, "NOFLUSH") {
            return Err(CommandError::new(
                "ERR DEBUG RELOAD only supports the MERGE, NOFLUSH and NOSAVE options.",
            ));
        }
    }
    expect_log(server)?;
    if rewrites {
        server.aof.rewrites.claim_next();
        server.rewrite().map_err(|error| format!("ERR The log could not be rewritten: {error}"))?;
    }
    load(server, session)?;
    reply.ok();
    Ok(())
}

/// Refuses if there is no log to load.
fn expect_log(server: &Server) -> Outcome {
    let off = CommandError::new("ERR There is no log to load from: appendonly is no");
    if server.aof.is_enabled() { Ok(()) } else { Err(off) }
}

fn load(server: &Server, session: &mut Session) -> Outcome {
    let mut all = server.keyspace.write_all(0);
    all.stop();
    let loaded = read_log(server)
        .map_err(|why| format!("ERR The log could not be loaded, nothing has changed: {why}"))?;
    all.take_over(loaded.keyspace.write_all(0));
    let changes = all.finish().changes.unwrap_or_default();
    server.discard(server.tracking.notify_all(&server.pubsub));
    session.read_lsn = session.read_lsn.max(all.last_lsn());
    drop(all);
    server.discard(changes.garbage);
    Ok(())
}

/// Replays the log into a server that has no log and no clients.
fn read_log(server: &Server) -> Result<Server, ReplayError> {
    let path = server.config.log_path();
    server.aof.flush()?;
    if !server.aof.is_at(&path) {
        return Err(std::io::Error::other("it is still being written").into());
    }
    let config = server.config.clone();
    let mut other = Server::new(config, Aof::disabled(), mpsc::channel().0, mpsc::channel().0);
    other.keyspace = server.keyspace.new_like();
    other.loading.store(true, SeqCst);
    let replayed = replay::load(&other, &mut File::open(&path)?, |_| other.keyspace.tick())?;
    if replayed.torn_bytes > 0 {
        return Err(std::io::Error::other("it ends in the middle of a record").into());
    }
    Ok(other)
}
