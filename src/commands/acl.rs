//! `ACL`: users and what they may do.
//!
//! [`super::rules`] parses and shows the rules, [`super::permission`] applies them to commands, and
//! [`super::aclfile`] reads and writes files of users. Connections whose user is deleted, or may no longer
//! hear what they are subscribed to, are ended here.
//!
//! The command is described at <https://redis.io/docs/latest/commands/acl/>.

use std::fs::File;
use std::io::Read;

use super::aclfile;
use super::docs::help;
use super::lookup::{find_row, resolve, rows};
use super::options::{integer, is, wrong_subcommand_args};
use super::permission::{self, Databases};
use super::rules::{self, CATEGORIES, is_space};
use super::spec::{Command, Context, Family, Flags, Handler, Outcome, command, session};
use crate::config::logger::log_line;
use crate::resp::{Args, CommandError, Reply};
use crate::session::users::{DEFAULT, Selector, User};
use crate::session::{Client, Server};
use crate::store::now_ms;
use crate::text::sha256;
use crate::watchers::pubsub::Kind;

const SHARED: Flags = Flags::NOSCRIPT.or(Flags::ALWAYS);
const ADMIN: Flags = Flags::ADMIN.or(SHARED);

const EVERY_NODE: &[&str] = &["request_policy:all_nodes", "response_policy:all_succeeded"];

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
    session("acl|deluser", "username [username ...]", deluser).flags(ADMIN).secrets(|_, at| at > 1)
        .tips(EVERY_NODE)
        .doc("6.0.0", "O(1) amortized time considering the typical user",
             "Deletes users, and ends their connections."),
    session("acl|dryrun", "username command [arg [arg ...]]", dryrun).flags(ADMIN)
        .doc("7.0.0", "O(1)", "Returns whether a user may execute a command, without executing it."),
    session("acl|genpass", "[bits]", genpass).flags(SHARED)
        .doc("6.0.0", "O(1)", "Returns a random, secure password."),
    session("acl|getuser", "username", getuser).flags(ADMIN).secrets(|_, at| at > 1)
        .history(&[
            ("6.2.0", "Added the patterns of channels."),
            ("7.0.0", "Added selectors; patterns became one string."),
        ])
        .doc("6.0.0", "O(1)", "Returns the permissions of a user."),
    help("acl|help", "6.0.0"),
    session("acl|list", "", list).flags(ADMIN)
        .doc("6.0.0", "O(1)", "Lists the users and their permissions."),
    session("acl|load", "", load).flags(ADMIN)
        .doc("6.0.0", "O(N) where N is the number of users",
             "Replaces the users by those in the `aclfile`, or changes nothing if the file is wrong."),
    session("acl|log", "[count | RESET]", log).flags(ADMIN)
        .arguments(&["count-reset=operation"])
        .history(&[("7.2.0", "Added the ID and times of an entry.")])
        .doc("6.0.0", "O(N) where N is the number of entries returned",
             "Returns what users were denied lately: ten entries by default. Or forgets all."),
    session("acl|save", "", save).flags(ADMIN).tips(EVERY_NODE)
        .doc("6.0.0", "O(N) where N is the number of users", "Writes the users to the `aclfile`."),
    session("acl|setuser", "username [rule [rule ...]]", setuser).flags(ADMIN).secrets(|_, at| at > 1)
        .tips(EVERY_NODE)
        .history(&[
            ("6.2.0", "Added the patterns of channels."),
            ("7.0.0", "Added selectors and the uses of keys."),
        ])
        .doc("6.0.0", "O(N) where N is the number of rules",
             "Adds a user, or changes what a user may do: all of the rules are applied, or none."),
    session("acl|users", "", users).flags(ADMIN).doc("6.0.0", "O(1)", "Lists the names of the users."),
    session("acl|whoami", "", whoami).flags(SHARED)
        .doc("6.0.0", "O(1)", "Returns the user of the connection."),
];

fn whoami(context: &mut Context, _: Args, reply: &mut Reply) -> Outcome {
    reply.bulk(&context.session.login.user().name);
    Ok(())
}

fn users(context: &mut Context, _: Args, reply: &mut Reply) -> Outcome {
    let users = context.server.users.all();
    reply.array(users.len());
    users.iter().for_each(|user| reply.bulk(&user.name));
    Ok(())
}

fn list(context: &mut Context, _: Args, reply: &mut Reply) -> Outcome {
    let lines: Vec<Vec<u8>> = aclfile::lines(context.server, rules::describe).collect();
    reply.array(lines.len());
    lines.iter().for_each(|line| reply.bulk(line));
    Ok(())
}

fn getuser(context: &mut Context, args: Args, reply: &mut Reply) -> Outcome {
    let Some(user) = context.server.users.get(&args[2]) else {
        reply.null();
        return Ok(());
    };
    let flags = rules::flags(&user);
    reply.map(6 + usize::from(user.root.databases.is_some()));
    reply.bulk(b"flags");
    reply.set(flags.len());
    flags.iter().for_each(|flag| reply.bulk(flag.as_bytes()));
    reply.bulk(b"passwords");
    reply.array(user.passwords.len());
    user.passwords.iter().for_each(|digest| reply.bulk(sha256::to_hex(digest).as_bytes()));
    show_selector(&user.root, reply);
    reply.bulk(b"selectors");
    reply.array(user.selectors.len());
    for selector in &user.selectors {
        reply.map(3 + usize::from(selector.databases.is_some()));
        show_selector(selector, reply);
    }
    Ok(())
}

fn show_selector(selector: &Selector, reply: &mut Reply) {
    for (title, rules) in [
        ("commands", rules::describe_commands(&selector.commands)),
        ("keys", rules::describe_keys(&selector.keys)),
        ("channels", rules::describe_channels(&selector.channels)),
    ] {
        reply.bulk(title.as_bytes());
        reply.bulk(&rules);
    }
    // Redis has no such rights, so nothing is shown unless some are given.
    if let Some(databases) = &selector.databases {
        reply.bulk(b"databases");
        reply.bulk(&rules::describe_databases(databases));
    }
}

fn setuser(context: &mut Context, args: Args, reply: &mut Reply) -> Outcome {
    let name = &args[2];
    if name.iter().any(|byte| is_space(*byte)) {
        return Err(CommandError::new("ERR Usernames can't contain spaces or null characters"));
    }
    let rules = rules::join_selectors(args.from(3)).map_err(|begin| {
        let text = b"ERR Unmatched parenthesis in acl selector starting at '";
        [text, begin, b"'."].concat()
    })?;
    let all_channels = aclfile::allows_channels_by_default(&context.server.config);
    let create = || User::new(name, all_channels);
    let changed =
        context.server.users.update(name, create, |user| rules::apply(user, &rules, all_channels));
    changed.map_err(|(rule, wrong)| {
        [b"ERR Error in ACL SETUSER modifier '", rule, b"': ", wrong.as_bytes()].concat()
    })?;
    end_unentitled(context);
    reply.ok();
    Ok(())
}

fn deluser(context: &mut Context, args: Args, reply: &mut Reply) -> Outcome {
    if args.from(2).any(|name| name == DEFAULT) {
        return Err(CommandError::new("ERR The 'default' user cannot be removed"));
    }
    let removed = args.from(2).filter(|name| context.server.users.remove(name)).count();
    end_unentitled(context);
    reply.count(removed);
    Ok(())
}

const NO_FILE: CommandError = CommandError::new(
    "ERR This Redis instance is not configured to use an ACL file. You may want to specify users via the \
     ACL SETUSER command and then issue a CONFIG REWRITE (assuming you have a Redis configuration file set) \
     in order to store users in the Redis configuration.",
);

fn load(context: &mut Context, _: Args, reply: &mut Reply) -> Outcome {
    let path = aclfile::path(&context.server.config).ok_or(NO_FILE)?;
    aclfile::load(context.server, &path).map_err(|why| format!("ERR {why}"))?;
    end_unentitled(context);
    reply.ok();
    Ok(())
}

fn save(context: &mut Context, _: Args, reply: &mut Reply) -> Outcome {
    let server = context.server;
    let path = aclfile::path(&server.config).ok_or(NO_FILE)?;
    aclfile::save(server, &path).map_err(|error| {
        log_line!(server.config, Warning, "ACL SAVE to '{}': {error}", path.display());
        CommandError::new(
            "ERR There was an error trying to save the ACLs. Please check the server logs for more \
             information",
        )
    })?;
    reply.ok();
    Ok(())
}

/// Ends the connections of users that exist no longer, and those that are subscribed to something that their
/// user may not hear any more. The connection of the client itself ends after the reply.
fn end_unentitled(context: &mut Context) {
    for client in context.server.clients.all() {
        let name = client.state().user.clone();
        let user = context.server.users.get(&name);
        if user.is_some_and(|user| is_entitled(context.server, &client, &user)) {
            continue;
        }
        if client.id == context.session.client.id {
            context.session.closing = true;
        } else {
            context.server.kill(&client);
        }
    }
}

/// Whether a client may hear everything that it is subscribed to.
pub(super) fn is_entitled(server: &Server, client: &Client, user: &User) -> bool {
    !client.outbox.listening.subscribes()
        || [Kind::Channel, Kind::Pattern, Kind::Shard].into_iter().all(|kind| {
            let names = server.pubsub.subscriptions_of(client.id, kind);
            names.iter().all(|name| user.may_hear(name, kind == Kind::Pattern))
        })
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

/// Says whether the user may run a command. The reply names what it may not use.
fn dryrun(context: &mut Context, args: Args, reply: &mut Reply) -> Outcome {
    let user = context.server.users.get(&args[2]);
    let user = user.ok_or_else(|| [b"ERR User '".as_slice(), &args[2], b"' not found"].concat())?;
    let inner = args.skip(3);
    let unknown = |_| [b"ERR Command '".as_slice(), &inner[0], b"' not found"].concat();
    find_row(inner).map_err(unknown)?;
    let databases = Databases::of(context.server, context.session);
    match permission::check(&user, resolve(inner)?, inner, &databases) {
        Ok(()) => reply.ok(),
        Err(lacking) => reply.bulk(&lacking.explain(&user)),
    }
    Ok(())
}

fn log(context: &mut Context, args: Args, reply: &mut Reply) -> Outcome {
    let log = &context.server.stats.denials;
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
            ("reason", entry.reason.name().as_bytes()),
            ("context", context),
            ("object", &entry.object),
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
