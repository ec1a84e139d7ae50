//! `FAILOVER`: a replica of this server becomes the master, and this server its replica; no write is lost.
//!
//! The command only starts or aborts it; [`Upstream`](crate::replication::upstream) keeps its state, and the
//! thread that links replicas to masters carries it out. Meanwhile clients that write wait.
//!
//! The command is described at <https://redis.io/docs/latest/commands/failover/>.

use std::time::{Duration, Instant};

use super::options::{integer, is};
use super::spec::{Context, Family, Flags, Outcome, session};
use crate::replication::replicas::Phase;
use crate::replication::upstream::{Address, Failover};
use crate::resp::{Args, CommandError, Reply};
use crate::session::Server;

/// `FAILOVER`.
#[rustfmt::skip]
pub static FAMILY: Family = Family { group: "server", commands: &[
    session("failover", "[TO host port [FORCE]] [ABORT] [TIMEOUT milliseconds]", failover)
        .flags(Flags::ADMIN.or(Flags::NOSCRIPT).or(Flags::STALE))
        .arguments(&["to=target", "port:integer"])
        .doc("6.2.0", "O(1)", "Makes a replica of this server the master, and this server its replica."),
] };

/// What a call asks for.
#[derive(Default)]
struct Options {
    target: Option<Address>,
    timeout_ms: Option<u64>,
    aborts: bool,
    forces: bool,
}

impl Options {
    fn parse(args: Args) -> Result<Options, CommandError> {
        let mut options = Options::default();
        let mut at = 1;
        while let Some(word) = args.get(at) {
            let left = args.len() - at - 1;
            if is(word, "TIMEOUT") && left >= 1 && options.timeout_ms.is_none() {
                let timeout = integer(&args[at + 1])?;
                if timeout <= 0 {
                    let text = "ERR FAILOVER timeout must be greater than 0";
                    return Err(CommandError::new(text));
                }
                options.timeout_ms = Some(timeout.unsigned_abs());
                at += 1;
            } else if is(word, "ABORT") && !options.aborts {
                options.aborts = true;
            } else if is(word, "TO") && left >= 2 && options.target.is_none() {
                let host = String::from_utf8_lossy(&args[at + 1]).into_owned();
                // No replica has a port that is none.
                let port = u16::try_from(integer(&args[at + 2])?).unwrap_or_default();
                options.target = Some(Address { host, port });
                at += 2;
            } else if is(word, "FORCE") && !options.forces {
                options.forces = true;
            } else {
                return Err(CommandError::SYNTAX);
            }
            at += 1;
        }
        if options.aborts && args.len() > 2 {
            return Err(CommandError::SYNTAX);
        }
        Ok(options)
    }
}

fn failover(context: &mut Context, args: Args, reply: &mut Reply) -> Outcome {
    let options = Options::parse(args)?;
    let server = context.server;
    if options.aborts {
        if !server.abort_failover("Failover manually aborted") {
            return Err(CommandError::new("ERR No failover in progress."));
        }
        reply.ok();
        return Ok(());
    }
    const GOES_ON: CommandError = CommandError::new("ERR FAILOVER already in progress.");
    if server.upstream.failover().is_some() {
        return Err(GOES_ON);
    }
    if server.upstream.follows() {
        return Err(CommandError::new("ERR FAILOVER is not valid when server is a replica."));
    }
    if !server.replication.replicas.any() {
        return Err(CommandError::new("ERR FAILOVER requires connected replicas."));
    }
    if options.forces && (options.timeout_ms.is_none() || options.target.is_none()) {
        let text = "ERR FAILOVER with force option requires both a timeout and target HOST and IP.";
        return Err(CommandError::new(text));
    }
    if let Some(target) = &options.target {
        expect_replica(server, target)?;
    }
    let timeout = options.timeout_ms.map(Duration::from_millis);
    let started = server.start_failover(Failover {
        target: options.target,
        until: timeout.and_then(|timeout| Instant::now().checked_add(timeout)),
        is_forced: options.forces,
        has_begun: false,
    });
    if !started {
        return Err(GOES_ON);
    }
    reply.ok();
    Ok(())
}

/// Checks that a server is a replica that follows the stream.
fn expect_replica(server: &Server, target: &Address) -> Outcome {
    let all = server.replication.replicas.all();
    let replica = all.iter().find(|replica| replica.is_at(target));
    let none = "ERR FAILOVER target HOST and PORT is not a replica.";
    let replica = replica.ok_or(CommandError::new(none))?;
    if replica.phase() != Phase::Online {
        return Err(CommandError::new("ERR FAILOVER target replica is not online."));
    }
    Ok(())
}
