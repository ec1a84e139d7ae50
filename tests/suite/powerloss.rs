//! Power is lost. What was synced is on the disk; of what the kernel had besides, any pages may be there and
//! others not, and the file may have any length. A start finds what was synced, and a prefix of what came
//! after; or it says where the log is damaged, and `--check-aof --fix` leaves such a prefix.
//!
//! A page that the disk did not get reads as zeros. Records have no checksum, which can hide that in one case
//! only: a value that is longer than the page. The values here are shorter. `POWER_LOSSES` sets how many
//! losses there are.

use std::collections::BTreeMap;
use std::fs;

use crate::harness::{Client, Server, TempDir, check_aof, dump, eventually, skipped_on_redis};
use crate::rng::Rng;

const PAGE: usize = 4096;
const CHANGES: usize = 150;

type Data = BTreeMap<(usize, String), String>;

/// Makes a change unlike all others.
fn change(c: &mut Client, random: &mut Rng, number: usize) {
    let value = format!("{number}:{}", "v\r\n".repeat(random.below(900)));
    let key = format!("k{}", number % 20);
    if random.below(5) == 0 {
        c.expect(&format!("SELECT {}", random.below(3)), "+OK");
    }
    match random.below(4) {
        0 => drop(c.call(&["HSET", "h", &key, &value])),
        1 => {
            c.expect("MULTI", "+OK");
            c.call(&["SET", &key, &value]);
            c.call(&["HSET", "both", "f", &value]);
            c.reply("EXEC");
        }
        _ => drop(c.call(&["SET", &key, &value, "PXAT", "33177117420123"])),
    }
}

/// A log, and the data at each of its lengths.
fn history(random: &mut Rng) -> (Vec<u8>, Vec<(usize, Data)>) {
    let server = Server::start(&["--appendfsync", "no"]);
    let (mut c, mut reader) = (server.client(), server.client());
    let length = || fs::metadata(server.log_path()).expect("the log").len() as usize;
    let mut states = vec![(length(), Data::new())];
    for number in 0..CHANGES {
        change(&mut c, random, number);
        states.push((length(), dump(&mut reader)));
    }
    (fs::read(server.log_path()).expect("read the log"), states)
}

/// The file after a power loss, of which so many bytes had been synced.
fn what_is_left(log: &[u8], synced: usize, random: &mut Rng) -> Vec<u8> {
    let mut left = log.to_vec();
    let share = 1 + random.below(4);
    for page in synced / PAGE..=(log.len() - 1) / PAGE {
        if random.below(4) < share {
            let end = ((page + 1) * PAGE).min(left.len());
            left[(page * PAGE).max(synced).min(end)..end].fill(0);
        }
    }
    match random.below(4) {
        0 => {}
        1 => left.resize(left.len() + random.below(3 * PAGE), 0),
        _ => left.truncate(synced + random.below(left.len() - synced + 1)),
    }
    left
}

/// The offset that a server which refuses to start names.
fn damaged_at(stderr: &str) -> Option<usize> {
    let (_, rest) = stderr.split_once("damaged at offset ")?;
    rest.split(':').next()?.parse().ok()
}

#[test]
fn after_a_power_loss_all_that_was_synced_is_there_and_the_rest_is_a_prefix() {
    if skipped_on_redis() {
        return;
    }
    let losses = std::env::var("POWER_LOSSES").ok().and_then(|losses| losses.parse().ok());
    let mut random = Rng::of_run();
    let (log, states) = history(&mut random);
    let (mut started, mut refused) = (0, 0);
    for _ in 0..losses.unwrap_or(30) {
        let at_sync = random.below(CHANGES);
        let synced = states[at_sync].0;
        let left = what_is_left(&log, synced, &mut random);
        let in_new_home = || {
            let home = TempDir::new();
            fs::write(home.data().join("storage.aof"), &left).expect("write the log");
            home
        };
        let (server, cut_by_itself) = match Server::try_start_in(in_new_home(), &[]) {
            Ok(server) => {
                started += 1;
                (server, true)
            }
            Err(ended) => {
                refused += 1;
                assert_eq!(ended.code, Some(1), "{}", ended.stderr);
                let offset = damaged_at(&ended.stderr).expect("it says where the log is damaged");
                assert!((synced..left.len()).contains(&offset), "{synced}: {}", ended.stderr);
                let home = in_new_home();
                let path = home.data().join("storage.aof");
                let (good, said) = check_aof(&path, &["--fix"]);
                assert!(good, "{said}");
                (Server::start_in(home, &[]), false)
            }
        };
        let data = dump(&mut server.client());
        let found = states.iter().position(|(_, state)| *state == data);
        let found = found.expect("the data is that after one of the changes");
        assert!(found >= at_sync, "{found} of {at_sync} synced changes are there");
        if left.len() > states[found].0 {
            let files = fs::read_dir(server.dir()).expect("list the directory").count();
            assert_eq!(files, 2, "the rest is kept in a side file");
            let said = "ended in the middle of a record: cut ";
            let is_said = || !cut_by_itself || server.stderr().contains(said);
            eventually("it says what it has cut", is_said);
        }
        server.client().expect("SET k v", "+OK");
    }
    assert!(started > 0 && refused > 0, "{started} starts, {refused} refused");
}
