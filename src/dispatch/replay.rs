//! Reading a log into the keyspace: the snapshot that it may begin with, then its records.

use std::fs::File;

use super::apply;
use crate::aof::replay::Fault;
use crate::aof::{ReplayError, Replayed, replay};
use crate::rdb::read::{Record, Rules, beyond_databases};
use crate::resp::{Args, Protocol, Reply};
use crate::session::{Server, Session};
use crate::text::integer::parse_i64;

/// Reads a log from its beginning. Calls `progress` now and then with the number of bytes read so far.
///
/// # Errors
/// The log cannot be read or is damaged. What came before that is in the keyspace.
pub fn load(
    server: &Server,
    log: &mut File,
    mut progress: impl FnMut(u64),
) -> Result<Replayed, ReplayError> {
    let rules = Rules::of(&server.config, &server.keyspace, None);
    let store = |record: Record| record.store(&server.keyspace);
    let preamble = replay::read_preamble(log, &rules, store, &mut progress)?;
    server.note_loaded(&preamble);
    let mut session = Session::for_replay();
    let mut ignored = Reply::new(Protocol::Resp2);
    let apply = |args: Args| match beyond(rules.databases, args) {
        Some(what) => Err(Fault::Unsupported(what)),
        None => Ok(apply(server, &mut session, args, &mut ignored)?),
    };
    let replayed = replay::replay(log, preamble.bytes, replay::ANY_LENGTH, apply, progress)?;
    Ok(Replayed { db: session.db, ..replayed })
}

/// If a record selects a database that does not exist here: says so.
fn beyond(databases: usize, args: Args) -> Option<String> {
    let number = args.get(1).filter(|_| args[0].eq_ignore_ascii_case(b"SELECT"))?;
    let number = parse_i64(number).and_then(|number| u64::try_from(number).ok())?;
    (number >= databases as u64).then(|| beyond_databases(number, databases))
}
