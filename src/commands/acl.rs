//! `ACL`: users and their permissions. There is one user, `default`, which may do everything. Its only
//! property is its password (`requirepass`), shown as a SHA-256 digest. Subcommands that change users do not
//! exist here.
//!
//! The command is described at <https://redis.io/docs/latest/commands/acl/>.

use std::fs::File;
use std::io::Read;

use super::docs::help;
use super::lookup::{find_row, resolve, rows};
use super::options::{integer, is, wrong_subcommand_args};
use super::spec::{Command, Context, Family, Flags, Handler, Outcome, command, session};
use crate::resp::{Args, CommandError, Reply};
use crate::store::now_ms;
use crate::text::sha256;

const SHARED: Flags = Flags::NOSCRIPT.or(Flags::ALWAYS);
const ADMIN: Flags = Flags::ADMIN.or(SHARED);

/// `ACL`.
#[rustfmt::skip]
pub static FAMILY: Family = Family { group: "server", commands: &[
    command("acl", "subcommand [argument ...]", Handler::Container(COMMANDS, None))
        .doc("6.0.0", "depends on the subcommand", "A container for commands about users and permissions."),
] };

#[rustfmt::skip]
const COMMANDS: &[Command] = &[
    session("acl|cat", "[category]", cat).flags(SHARED)
        .doc("6.0.0", "O(N) where N is the number of commands",
             "Lists the ACL categories, or the commands in a category."),
    session("acl|dryrun", "username command [arg [arg ...]]", dryrun).flags(ADMIN)
        .doc("7.0.0", "O(1)", "Returns whether a user may execute a command, without executing it."),
    session("acl|genpass", "[bits]", genpass).flags(SHARED)
        .doc("6.0.0", "O(1)", "Returns a random, secure password."),
    session("acl|getuser", "username", getuser).flags(ADMIN)
        .history(&[
            ("6.2.0", "Added the patterns of channels."),
            ("7.0.0", "Added selectors; patterns became one string."),
        ])
        .doc("6.0.0", "O(1)", "Returns the permissions of a user."),
    help("acl|help", "6.0.0"),
    session("acl|list", "", list).flags(ADMIN)
        .doc("6.0.0", "O(1)", "Lists the users and their permissions."),
    session("acl|log", "[count | RESET]", log).flags(ADMIN)
        .arguments(&["count-reset=operation"])
        .history(&[("7.2.0", "Added the ID and times of an entry.")])
        .doc("6.0.0", "O(N) where N is the number of entries returned",
             "Returns the latest failed logins, ten by default, or clears them."),
    session("acl|users", "", users).flags(ADMIN).doc("6.0.0", "O(1)", "Lists the names of the users."),
    session("acl|whoami", "", whoami).flags(SHARED)
        .doc("6.0.0", "O(1)", "Returns the user of the connection."),
];

/// The only user.
const USER: &[u8] = b"default";

/// Redis's categories, in its order. Those of types that this server lacks are empty.
const CATEGORIES: [&str; 21] = [
    "keyspace",
    "read",
    "write",
    "set",
    "sortedset",
    "list",
    "hash",
    "string",
    "bitmap",
    "hyperloglog",
    "geo",
    "stream",
    "pubsub",
    "admin",
    "fast",
    "slow",
    "blocking",
    "dangerous",
    "connection",
    "transaction",
    "scripting",
];

fn whoami(_: &mut Context, _: Args, reply: &mut Reply) -> Outcome {
    reply.bulk(USER);
    Ok(())
}

fn users(_: &mut Context, _: Args, reply: &mut Reply) -> Outcome {
    reply.array(1);
    reply.bulk(USER);
    Ok(())
}

/// The digest of the user's password, if it has one.
fn password_digest(context: &Context) -> Option<String> {
    let password = context.server.config.requirepass.get();
    (!password.is_empty()).then(|| sha256::hex_digest(password.as_bytes()))
}

fn list(context: &mut Context, _: Args, reply: &mut Reply) -> Outcome {
    let password = match password_digest(context) {
        Some(digest) => format!("sanitize-payload #{digest}"),
        None => "nopass sanitize-payload".into(),
    };
    reply.array(1);
    reply.bulk(format!("user default on {password} ~* &* +@all").as_bytes());
    Ok(())
}

fn getuser(context: &mut Context, args: Args, reply: &mut Reply) -> Outcome {
    if &args[2] != USER {
        reply.null();
        return Ok(());
    }
    let digest = password_digest(context);
    let flags: &[&str] = match digest {
        Some(_) => &["on", "sanitize-payload"],
        None => &["on", "nopass", "sanitize-payload"],
    };
    reply.map(6);
    reply.bulk(b"flags");
    reply.set(flags.len());
    flags.iter().for_each(|flag| reply.bulk(flag.as_bytes()));
    reply.bulk(b"passwords");
    reply.array(digest.iter().len());
    digest.iter().for_each(|digest| reply.bulk(digest.as_bytes()));
    for (title, rule) in [("commands", "+@all"), ("keys", "~*"), ("channels", "&*")] {
        reply.bulk(title.as_bytes());
        reply.bulk(rule.as_bytes());
    }
    reply.bulk(b"selectors");
    reply.array(0);
    Ok(())
}

fn cat(_: &mut Context, args: Args, reply: &mut Reply) -> Outcome {
    if args.len() > 3 {
        return Err(wrong_subcommand_args(args));
    }
    let Some(wanted) = args.get(2) else {
        reply.array(CATEGORIES.len());
        CATEGORIES.iter().for_each(|category| reply.bulk(category.as_bytes()));
        return Ok(());
    };
    if !CATEGORIES.iter().any(|category| is(wanted, category)) {
        return Err([b"ERR Unknown category '".as_slice(), wanted, b"'"].concat().into());
    }
    let is_in = |(group, row): &(&str, &Command)| {
        row.categories(group).iter().any(|category| is(wanted, &category[1..]))
    };
    let names: Vec<&str> = rows().filter(is_in).map(|(_, row)| row.name).collect();
    reply.array(names.len());
    names.iter().for_each(|name| reply.bulk(name.as_bytes()));
    Ok(())
}

/// The user may execute every command that exists.
fn dryrun(_: &mut Context, args: Args, reply: &mut Reply) -> Outcome {
    if &args[2] != USER {
        return Err([b"ERR User '".as_slice(), &args[2], b"' not found"].concat().into());
    }
    let inner = args.skip(3);
    let unknown = |_| [b"ERR Command '".as_slice(), &inner[0], b"' not found"].concat();
    find_row(inner).map_err(unknown)?;
    resolve(inner)?;
    reply.ok();
    Ok(())
}

fn log(context: &mut Context, args: Args, reply: &mut Reply) -> Outcome {
    let log = &context.server.stats.failed_logins;
    let count = match args.get(2) {
        _ if args.len() > 3 => return Err(wrong_subcommand_args(args)),
        None => 10,
        Some(word) if is(word, "RESET") => {
            log.clear();
            reply.ok();
            return Ok(());
        }
        Some(count) => integer(count)?.max(0),
    };
    let entries = log.last(usize::try_from(count).unwrap_or(usize::MAX));
    let now_ms = now_ms();
    reply.array(entries.len());
    for entry in entries {
        reply.map(10);
        reply.bulk(b"count");
        reply.integer(entry.count as i64);
        let context: &[u8] = if entry.in_transaction { b"multi" } else { b"toplevel" };
        let texts: [(&str, &[u8]); 4] = [
            ("reason", b"auth"),
            ("context", context),
            ("object", &entry.command),
            ("username", &entry.user),
        ];
        for (name, text) in texts {
            reply.bulk(name.as_bytes());
            reply.bulk(text);
        }
        reply.bulk(b"age-seconds");
        let age_ms = now_ms.saturating_sub(entry.last_ms).max(0);
        reply.double((age_ms as f64 / 1000.0).to_string().as_bytes());
        reply.bulk(b"client-info");
        reply.bulk(&entry.client);
        let numbers = [
            ("entry-id", entry.id as i64),
            ("timestamp-created", entry.first_ms),
            ("timestamp-last-updated", entry.last_ms),
        ];
        for (name, number) in numbers {
            reply.bulk(name.as_bytes());
            reply.integer(number);
        }
    }
    Ok(())
}

fn genpass(_: &mut Context, args: Args, reply: &mut Reply) -> Outcome {
    const LIMIT: i64 = 4096;
    if args.len() > 3 {
        return Err(wrong_subcommand_args(args));
    }
    let bits = args.get(2).map_or(Ok(256), integer)?;
    if !(1..=LIMIT).contains(&bits) {
        return Err(CommandError::new(
            "ERR ACL GENPASS argument must be the number of bits for the output password, a positive \
             number up to 4096",
        ));
    }
    let digits = (bits as usize).div_ceil(4);
    let mut random = vec![0; digits.div_ceil(2)];
    let read = File::open("/dev/urandom").and_then(|mut source| source.read_exact(&mut random));
    read.map_err(|error| format!("ERR the source of randomness cannot be read: {error}"))?;
    let hex: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    reply.bulk(&hex.as_bytes()[..digits]);
    Ok(())
}
