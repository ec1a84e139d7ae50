//! Many crashes: the server is killed again and again while clients write, and each time it must come back
//! with every write that it has acknowledged.
//!
//! `CRASH_ROUNDS` sets the number of crashes: `make crash` runs many more than `make test`.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread;

use crate::harness::{
    Client, Reply, Server, assert_survives_kill_9, encode, eventually, fill, pipeline, rewrite,
    skipped_on_redis,
};
use crate::rng::Rng;

const WRITERS: usize = 4;
/// Each writer writes its places in turn, again and again.
const PLACES: u64 = 200;
/// The number of writes in a pipeline.
const DEPTH: u64 = 20;

/// What one writer knows of its data. Its writes are numbered across all rounds.
struct Writer {
    id: usize,
    /// The number of its next write.
    next: u64,
    /// What it knows of each place.
    places: Vec<Place>,
    /// The last known value of its counter, and the increments that it has sent, and got replies to, since.
    counter: u64,
    confirmed: u64,
    sent: u64,
}

#[derive(Clone, Default)]
struct Place {
    /// The number of the last write that is known to be there.
    known: Option<u64>,
    /// The number of the last write that was sent.
    sent: Option<u64>,
}

impl Writer {
    fn new(id: usize) -> Writer {
        let places = vec![Place::default(); PLACES as usize];
        Writer { id, next: 0, places, counter: 0, confirmed: 0, sent: 0 }
    }

    /// A value that starts with the number, of varying length, with bytes that look like RESP.
    fn value(&self, number: u64) -> String {
        format!("{number}\r\n$3\r\n{}\x00", self.id).repeat(1 + (number as usize * 7) % 30)
    }

    /// A write. Each place always gets the same kind of command.
    fn command(&self, number: u64) -> Vec<u8> {
        let (place, value) = (number % PLACES, self.value(number));
        let key = format!("{}:{place}", self.id);
        match place % 4 {
            0 => encode(&["SET", &key, &value]),
            1 => encode(&["SET", &key, &value, "PXAT", "33177117420123"]),
            2 => encode(&["HSET", &format!("hash:{}", self.id), &key, &value]),
            _ => encode(&["MSET", &key, &value, &format!("{key}:twin"), &value]),
        }
    }

    /// Writes until the connection is lost.
    fn write(&mut self, mut c: Client, acknowledged: &AtomicU64) {
        loop {
            let numbers = self.next..self.next + DEPTH;
            self.next = numbers.end;
            let mut batch = Vec::new();
            for number in numbers.clone() {
                batch.extend(self.command(number));
                batch.extend(encode(&["INCR", &format!("counter:{}", self.id)]));
                batch.extend(encode(&["INCR", "counter"]));
                self.places[(number % PLACES) as usize].sent = Some(number);
            }
            self.sent += DEPTH;
            c.try_send_raw(batch);
            for number in numbers {
                let written = c.read_reply();
                assert!(!matches!(written, Reply::Error(_)), "{written}");
                if written == Reply::Closed {
                    return;
                }
                self.places[(number % PLACES) as usize].known = Some(number);
                if c.read_reply() == Reply::Closed {
                    return;
                }
                self.confirmed += 1;
                if c.read_reply() == Reply::Closed {
                    return;
                }
                acknowledged.fetch_add(1, SeqCst);
            }
        }
    }

    /// Compares the data with what it knows; from then on, it knows the data.
    fn check(&mut self, c: &mut Client) {
        let key = |place: u64| format!("{}:{place}", self.id);
        let probes = (0..PLACES).map(|place| match place % 4 {
            2 => encode(&["HGET", &format!("hash:{}", self.id), &key(place)]),
            _ => encode(&["GET", &key(place)]),
        });
        let twins = (0..PLACES).map(|place| encode(&["GET", &format!("{}:twin", key(place))]));
        let replies = pipeline(c, &probes.chain(twins).collect::<Vec<_>>());
        for index in 0..PLACES as usize {
            let (Place { known, sent }, reply) = (&self.places[index], &replies[index]);
            let found = match reply {
                Reply::Bulk(value) => {
                    let value = String::from_utf8(value.clone()).expect("UTF-8");
                    let number = value.split("\r\n").next().and_then(|number| number.parse().ok());
                    assert!(number.is_some_and(|number| value == self.value(number)), "torn");
                    number
                }
                _ => None,
            };
            let id = self.id;
            assert!(found >= *known, "writer {id}, place {index}: {known:?} is lost: {found:?}");
            assert!(found <= *sent, "writer {id}, place {index}: {found:?}, but {sent:?} was sent");
            if index % 4 == 3 {
                assert_eq!(reply, &replies[index + PLACES as usize], "an MSET is there by half");
            }
            self.places[index] = Place { known: found, sent: found };
        }
        let counter = number(c, &format!("counter:{}", self.id));
        let possible = self.counter + self.confirmed..=self.counter + self.sent;
        assert!(possible.contains(&counter), "the counter is {counter}, not in {possible:?}");
        (self.counter, self.confirmed, self.sent) = (counter, 0, 0);
    }
}

fn number(c: &mut Client, key: &str) -> u64 {
    match c.reply(&format!("GET {key}")) {
        Reply::Bulk(digits) => String::from_utf8_lossy(&digits).parse().expect("a number"),
        _ => 0,
    }
}

#[test]
fn a_server_killed_under_load_comes_back_with_every_acknowledged_write() {
    if skipped_on_redis() {
        return;
    }
    let rounds = std::env::var("CRASH_ROUNDS").ok().and_then(|rounds| rounds.parse().ok());
    let mut server = Server::start(&["--enable-debug-command", "yes"]);
    fill(&mut server.client(), 1000);
    let mut writers: Vec<Writer> = (0..WRITERS).map(Writer::new).collect();
    let mut random = Rng::of_run();
    let (mut shared, mut rewrites) = (0, 0);
    for round in 0..rounds.unwrap_or(12) {
        let (fsync, most) = if round % 2 == 0 { ("everysec", 4000) } else { ("always", 1000) };
        let mut c = server.client();
        c.expect(&format!("CONFIG SET appendfsync {fsync}"), "+OK");
        let acknowledged = AtomicU64::new(0);
        let enough = 1 + random.below(most) as u64;
        thread::scope(|scope| {
            for writer in &mut writers {
                let (c, acknowledged) = (server.client(), &acknowledged);
                scope.spawn(move || writer.write(c, acknowledged));
            }
            if round % 4 >= 2 {
                let rewrites = &mut rewrites;
                scope.spawn(move || {
                    loop {
                        match c.reply("BGREWRITEAOF") {
                            Reply::Closed => return,
                            Reply::Simple(_) => *rewrites += 1,
                            _ => {}
                        }
                    }
                });
            }
            eventually("enough is acknowledged", || acknowledged.load(SeqCst) >= enough);
            server.kill_9();
        });
        server.restart();
        let mut c = server.client();
        c.expect("DEBUG CHECK", "+OK");
        let sent: u64 = writers.iter().map(|writer| writer.sent).sum();
        let possible = shared + acknowledged.into_inner()..=shared + sent;
        shared = number(&mut c, "counter");
        assert!(possible.contains(&shared), "the counter is {shared}, not in {possible:?}");
        writers.iter_mut().for_each(|writer| writer.check(&mut c));
    }
    assert!(rewrites > 0, "the log was never rewritten");
    assert_survives_kill_9(&mut server);
}

#[test]
fn increments_of_20_clients_sum_up_exactly_across_rewrites_and_a_restart() {
    const CLIENTS: usize = 20;
    if skipped_on_redis() {
        return;
    }
    let mut server = Server::start(&["--enable-debug-command", "yes"]);
    fill(&mut server.client(), 1000);
    let running = AtomicBool::new(true);
    let counts: Vec<u64> = thread::scope(|scope| {
        let count = |id: usize, mut c: Client| {
            let mut count = 0;
            while running.load(SeqCst) {
                let commands = [
                    encode(&["INCR", "shared"]),
                    encode(&["INCR", &format!("own:{id}")]),
                    encode(&["HINCRBY", "shared:hash", "field", "1"]),
                    encode(&["HINCRBY", "own:hash", &id.to_string(), "1"]),
                ];
                c.send_raw(commands.concat().repeat(10));
                for _ in 0..10 * commands.len() {
                    assert!(matches!(c.read_reply(), Reply::Integer(_)));
                }
                count += 10;
            }
            count
        };
        let clients: Vec<_> = (0..CLIENTS)
            .map(|id| {
                let c = server.client();
                scope.spawn(move || count(id, c))
            })
            .collect();
        let mut c = server.client();
        (0..5).for_each(|_| rewrite(&mut c));
        running.store(false, SeqCst);
        clients.into_iter().map(|client| client.join().expect("it counts")).collect()
    });
    let check = |c: &mut Client| {
        c.expect("DEBUG CHECK", "+OK");
        let sum: u64 = counts.iter().sum();
        assert_eq!(number(c, "shared"), sum);
        assert_eq!(c.text("HGET shared:hash field"), sum.to_string());
        for (id, count) in counts.iter().enumerate() {
            assert_eq!(number(c, &format!("own:{id}")), *count);
            assert_eq!(c.text(&format!("HGET own:hash {id}")), count.to_string());
        }
    };
    check(&mut server.client());
    assert_survives_kill_9(&mut server);
    check(&mut server.client());
}
