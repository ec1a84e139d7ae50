//! Random commands, reproducible from a seed: they must get the same replies as from a real Redis, and
//! leave the same data before and after a `kill -9`.
//!
//! [`grammar`] parses the syntax of the command table's rows, [`generator`] generates commands from it,
//! [`sessions`] has sessions of several connections, [`users`] users with random rights, [`compare`]
//! decides which differences between two servers count, and [`shrink`] shortens a list of commands to those
//! that show a difference.
//!
//! An episode is [`EPISODE`] commands from one seed, on empty servers. A failure names its seed, and
//! `RANDOM_SEED=seed RANDOM_COMMANDS=1` repeats that episode alone. `RANDOM_FAILURES=20` goes on after a
//! failure, until as many have been found.

mod compare;
mod generator;
mod grammar;
mod on_purpose;
mod sessions;
mod shrink;
mod users;

use std::collections::BTreeMap;

use respite::commands;

use crate::harness::{Client, Reply, Server, dump, say, skipped_on_redis};
use crate::rng::{Rng, seed_of_run};
use compare::{Difference, Pair, Setup, in_transactions, listing, read_of_transactions};
use generator::{ALL, Candidate, Generator, Words};
use shrink::shrink;

const EPISODE: usize = 5000;

/// A number from the environment.
fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// The seeds of all episodes: consecutive numbers from the seed of this run.
fn seeds(default_commands: u64) -> Vec<u64> {
    let commands = setting("RANDOM_COMMANDS").unwrap_or(default_commands);
    let first = seed_of_run();
    (first..first + commands.div_ceil(EPISODE as u64)).collect()
}

fn setup_of(seed: u64) -> Setup {
    let mut random = Rng::new(seed).fork();
    Setup {
        protocol: 2 + random.below(2),
        packed_entries: [512, 512, 16, 3][random.below(4)],
        sparse_bytes: [3000, 300, 40][random.below(3)],
    }
}

/// For each seed of the run, makes steps and takes them on both servers. Fails with the shortest lists of
/// steps that show a difference.
fn compare<S: Clone>(
    pair: &mut Pair,
    mut make: impl FnMut(&Pair, u64) -> Vec<S>,
    difference: impl Fn(&mut Pair, u64, &[S]) -> Option<Difference>,
    shown: impl Fn(u64, &[S]) -> String,
) {
    let mut found = Vec::new();
    for seed in seeds(300_000) {
        let steps = make(pair, seed);
        let Some(first) = difference(pair, seed, &steps) else { continue };
        let shortest = shrink(&steps, first.step, |list| {
            difference(pair, seed, list).map(|difference| difference.step)
        });
        let Difference { ours, theirs, .. } = difference(pair, seed, &shortest).unwrap_or(first);
        found.push(format!(
            "RANDOM_SEED={seed}: the servers differ after these steps\n\n{}\n\n\
             ours:    {ours}\ntheirs:  {theirs}\n",
            shown(seed, &shortest)
        ));
        if found.len() as u64 >= setting("RANDOM_FAILURES").unwrap_or(1) {
            break;
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn random_commands_get_the_same_replies_as_from_a_redis() {
    // Without a Redis there is nothing to compare with: `make conformance` starts one.
    if std::env::var_os("REDIS_ADDR").is_none() {
        return;
    }
    let mut pair = Pair::start();
    let rows = pair.rows();
    say(&format!("{} episodes from RANDOM_SEED={}", seeds(300_000).len(), seed_of_run()));
    let make = |pair: &Pair, seed| {
        let mut generator = Generator::new(seed, rows.clone());
        let commands = std::iter::repeat_with(|| generator.command());
        commands.filter(|command| pair.is_known(command)).take(EPISODE).collect::<Vec<Words>>()
    };
    compare(
        &mut pair,
        make,
        |pair, seed, commands| pair.difference(setup_of(seed), commands),
        |seed, commands| format!("{:?}\n{}", setup_of(seed), listing(commands)),
    );
}

#[test]
fn random_sessions_of_three_connections_receive_what_they_receive_from_a_redis() {
    if std::env::var_os("REDIS_ADDR").is_none() {
        return;
    }
    let line = |(connection, line): &(usize, String)| format!("{connection}> {line}");
    compare(
        &mut Pair::start(),
        |_, seed| sessions::steps(seed, EPISODE / 20),
        |pair, _, steps| sessions::difference(pair, steps),
        |_, steps| steps.iter().map(line).collect::<Vec<_>>().join("\n"),
    );
}

#[test]
fn random_users_may_do_what_they_may_do_in_a_redis() {
    if std::env::var_os("REDIS_ADDR").is_none() {
        return;
    }
    let mut pair = Pair::start();
    if !pair.is_redis_since((8, 2)) {
        say("skipped: the texts and the shown rules are those of Redis 8.2");
        return;
    }
    let world = users::World::new(&mut pair);
    compare(
        &mut pair,
        |_, seed| world.steps(seed, EPISODE / 5),
        |pair, _, steps| users::difference(pair, steps),
        |_, steps| listing(&steps.iter().map(users::Step::shown).collect::<Vec<Words>>()),
    );
}

#[test]
fn random_commands_leave_the_same_data_after_a_replay() {
    if skipped_on_redis() {
        return;
    }
    let rows: Vec<&Candidate> = ALL.iter().collect();
    for seed in seeds(20_000) {
        let mut generator = Generator::new(seed, rows.clone());
        let commands: Vec<Words> =
            std::iter::repeat_with(|| generator.command()).take(EPISODE).collect();
        let setup = setup_of(seed);
        let Some(first) = replay_difference(setup, &commands) else { continue };
        let shortest =
            shrink(&commands, EPISODE, |list| replay_difference(setup, list).map(|_| list.len()));
        let last = replay_difference(setup, &shortest).unwrap_or(first);
        panic!(
            "RANDOM_SEED={seed}, {setup:?}: {last} after these commands\n\n{}\n",
            listing(&shortest)
        );
    }
}

/// Sends the commands to a server that is killed in the middle and at the end, and rewrites its log in
/// between. Returns the first difference after a restart, if any.
fn replay_difference(setup: Setup, commands: &[Words]) -> Option<String> {
    let entries = setup.packed_entries.to_string();
    let bytes = setup.sparse_bytes.to_string();
    let mut args = vec!["--hash-max-listpack-entries", &entries, "--hll-sparse-max-bytes", &bytes];
    args.extend(["--enable-debug-command", "yes"]);
    let mut server = Server::start(&args);
    let (first, rest) = commands.split_at(commands.len() / 2);
    let (second, third) = rest.split_at(rest.len() / 2);
    for (parts, rewrites) in [([first, &[]], false), ([second, third], true)] {
        let mut c = server.client();
        for (number, part) in parts.into_iter().enumerate() {
            if rewrites && number == 1 {
                c.expect("BGREWRITEAOF", "+Background append only file rewriting started");
            }
            for batch in part.chunks(64) {
                c.send_raw(in_transactions(batch));
                read_of_transactions(&mut c, batch);
            }
        }
        let (before, fault_before) = (state(&mut server.client()), fault(&mut server.client()));
        server.kill_9();
        server.restart();
        let (after, fault_after) = (state(&mut server.client()), fault(&mut server.client()));
        if let Some(fault) = fault_before.or(fault_after) {
            return Some(fault);
        }
        let differs = |key: &&(usize, String)| before.get(key) != after.get(key);
        if let Some(key) = before.keys().chain(after.keys()).find(differs) {
            let (was, is) = (before.get(key), after.get(key));
            return Some(format!("{key:?} was {was:?} and is {is:?}"));
        }
    }
    None
}

/// What `DEBUG CHECK` finds wrong.
fn fault(c: &mut Client) -> Option<String> {
    let reply = c.reply("DEBUG CHECK").to_string();
    (reply != "+OK").then_some(reply)
}

/// All data of a server: see [`dump`]. For hashes, also the expiry times of all fields.
fn state(c: &mut Client) -> BTreeMap<(usize, String), String> {
    let mut all = dump(c);
    if commands::find(b"hpexpiretime").is_none() {
        return all;
    }
    for ((db, key), value) in all.iter_mut().filter(|(_, value)| value.starts_with("+hash")) {
        c.expect(&format!("SELECT {db}"), "+OK");
        let mut fields = c.reply(&format!("HKEYS {key}")).into_items();
        fields.sort_by_cached_key(Reply::to_string);
        let names: Vec<String> = fields.iter().map(Reply::to_string).collect();
        let (count, names) = (names.len(), names.join(" "));
        let expiries = c.reply(&format!("HPEXPIRETIME {key} FIELDS {count} {names}"));
        value.push_str(&expiries.to_string());
    }
    all
}
