//! `MODULE`: there are no modules, and none can be loaded.
//!
//! To clients the server behaves like a Redis whose `enable-module-command` is `no`, which is its default.
//!
//! The commands are described at <https://redis.io/docs/latest/commands/?group=server>.

use super::docs::help;
use super::spec::{Command, Context, Family, Flags, Handler, Outcome, command, session};
use crate::resp::{Args, CommandError, Reply};

/// `MODULE`.
#[rustfmt::skip]
pub static FAMILY: Family = Family { group: "server", commands: &[
    command("module", "subcommand [argument ...]", Handler::Container(COMMANDS, None))
        .doc("4.0.0", "depends on the subcommand", "A container for commands about modules."),
] };

const ADMIN: Flags = Flags::ADMIN.or(Flags::NOSCRIPT);

#[rustfmt::skip]
const COMMANDS: &[Command] = &[
    help("module|help", "5.0.0"),
    session("module|list", "", list).flags(ADMIN).tips(&["nondeterministic_output_order"])
        .doc("4.0.0", "O(1)", "Returns the loaded modules: none."),
    session("module|load", "path [arg [arg ...]]", refuse).flags(ADMIN.or(Flags::NO_ASYNC_LOADING))
        .doc("4.0.0", "O(1)", REFUSED),
    session("module|loadex", "path [CONFIG name value [CONFIG name value ...]] [ARGS arg [arg ...]]", refuse)
        .flags(ADMIN.or(Flags::NO_ASYNC_LOADING))
        .doc("7.0.0", "O(1)", REFUSED),
    session("module|unload", "name", refuse).flags(ADMIN.or(Flags::NO_ASYNC_LOADING))
        .doc("4.0.0", "O(1)", REFUSED),
];

const REFUSED: &str = "Returns an error, because there are no modules.";

fn list(_: &mut Context, _: Args, reply: &mut Reply) -> Outcome {
    reply.array(0);
    Ok(())
}

fn refuse(_: &mut Context, _: Args, _: &mut Reply) -> Outcome {
    Err(CommandError::new(
        "ERR MODULE command not allowed. If the enable-module-command option is set to \"local\", you \
         can run it from a local connection, otherwise you need to set this option in the configuration \
         file, and then restart the server.",
    ))
}
