//! `SAVE`, `BGSAVE` and `LASTSAVE`: saving all data to an RDB file.
//!
//! Unlike in Redis, `SAVE` holds up nobody but the client that waits for it: both commands write the same
//! snapshot ([`crate::rdb::save`]). A snapshot waits for a rewrite of the log that is running.
//!
//! The commands are described at <https://redis.io/docs/latest/commands/?group=server>.

use super::options::is;
use super::spec::{Context, Family, Flags, Outcome, session};
use crate::rdb::progress::Current;
use crate::resp::{Args, CommandError, Reply};

const SAVES: Flags = Flags::ADMIN.or(Flags::NOSCRIPT).or(Flags::NO_ASYNC_LOADING);

/// The commands about the RDB file.
#[rustfmt::skip]
pub static FAMILY: Family = Family { group: "server", commands: &[
    session("bgsave", "[SCHEDULE | CANCEL]", bgsave).flags(SAVES)
        .arguments(&["schedule-cancel=operation", "schedule@3.2.2", "cancel@8.1.0"])
        .history(&[("3.2.2", "Added the option `SCHEDULE`."),
                   ("8.1.0", "Valkey added the option `CANCEL`.")])
        .doc("1.0.0", "O(1)", "Saves all databases to the RDB file in the background."),
    session("lastsave", "", lastsave).fast()
        .flags(Flags::ALWAYS.or(Flags::ADMIN_CATEGORY).or(Flags::DANGEROUS))
        .tips(&["nondeterministic_output"])
        .doc("1.0.0", "O(1)", "Returns the Unix time of the last save."),
    session("save", "", save).flags(SAVES.or(Flags::NO_MULTI))
        .doc("1.0.0", "O(N) where N is the number of keys in all databases",
             "Saves all databases to the RDB file, and replies when that is done."),
] };

const IN_PROGRESS: CommandError = CommandError::new("ERR Background save already in progress");

fn save(context: &mut Context, _: Args, reply: &mut Reply) -> Outcome {
    if !context.server.saves.claim(Current::Waited) {
        return Err(IN_PROGRESS);
    }
    context.server.save().map_err(|error| format!("ERR The RDB file was not saved: {error}"))?;
    reply.ok();
    Ok(())
}

fn bgsave(context: &mut Context, args: Args, reply: &mut Reply) -> Outcome {
    let schedules = match args.get(1) {
        None => false,
        Some(option) if args.len() == 2 && is(option, "SCHEDULE") => true,
        Some(option) if args.len() == 2 && is(option, "CANCEL") => return cancel(context, reply),
        Some(_) => return Err(CommandError::SYNTAX),
    };
    let server = context.server;
    let rewrites = server.aof.rewrites.progress().is_some();
    if let Some(Current::Running(_) | Current::Waited) = server.saves.current() {
        return Err(IN_PROGRESS);
    }
    if rewrites && !schedules && context.transaction.is_none() {
        return Err(CommandError::new(
            "ERR Another child process is active (AOF?): can't BGSAVE right now. Use BGSAVE SCHEDULE in \
             order to schedule a BGSAVE whenever possible.",
        ));
    }
    server.start_save(); // false if one is scheduled already
    let waits = rewrites || context.transaction.is_some();
    reply.simple(if waits { "Background saving scheduled" } else { "Background saving started" });
    Ok(())
}

fn cancel(context: &mut Context, reply: &mut Reply) -> Outcome {
    let saves = &context.server.saves;
    match saves.current() {
        Some(Current::Running(_)) => reply.simple("Background saving cancelled"),
        Some(Current::Scheduled) => reply.simple("Scheduled background saving cancelled"),
        Some(Current::Waited) | None => {
            let text = "ERR Background saving is currently not in progress or scheduled";
            return Err(CommandError::new(text));
        }
    }
    saves.cancel();
    Ok(())
}

fn lastsave(context: &mut Context, _: Args, reply: &mut Reply) -> Outcome {
    reply.integer(context.server.saves.saved_at() as i64);
    Ok(())
}
