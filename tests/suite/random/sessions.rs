//! Random sessions of three connections: transactions with WATCH, publish/subscribe and client tracking.
//!
//! Every step is one command on one connection. After it each connection sends PING with a token and reads
//! up to the reply, so everything that the step sent to anybody is compared: the replies, the messages and
//! invalidations, and their order on each connection.

use super::compare::{Difference, Pair};
use crate::harness::{Client, Reply, eventually, split_command};
use crate::rng::Rng;

/// The number of connections.
const COUNT: usize = 3;

/// A command on the connection of this number. `id0` stands for the id of the first connection.
pub(super) type Step = (usize, String);

/// The token of the PING that ends a step.
const TOKEN: &str = "end-of-step";

/// SWAPDB and flushes are left out on purpose: to ours a swap invalidates every key, because the clients'
/// copies are outdated, and Redis 8.2 notifies of a client's own flush before the reply. So are CLIENT
/// TRACKING OFF and RESET: others remember what the client had read, in case that it tracks again.
///
/// One line is one command. `{k}`, `{v}`, `{c}`, `{p}` and `{n}` are a key, a value, a channel, a pattern and
/// the number of a connection.
const COMMANDS: &str = "
    MULTI
    MULTI
    MULTI
    EXEC
    EXEC
    EXEC
    EXEC
    DISCARD
    WATCH {k}
    WATCH {k}
    WATCH {k} {k}
    UNWATCH
    GET {k}
    GET {k}
    GET {k}
    MGET {k} {k}
    EXISTS {k}
    SET {k} {v}
    SET {k} {v}
    SET {k} {v} NX
    SET {k} {v} PX 1000000
    GETSET {k} {v}
    GETDEL {k}
    GETEX {k} PERSIST
    GETEX {k} EX 1000
    INCR {k}
    MSET {k} {v} {k} {v}
    DEL {k}
    DEL {k} {k}
    EXPIRE {k} 1000
    EXPIRE {k} -1
    PERSIST {k}
    RENAME {k} {k}
    COPY {k} {k} REPLACE
    MOVE {k} 1
    HSET h{k} f {v}
    HGET h{k} f
    HDEL h{k} f
    SELECT 0
    SELECT 0
    SELECT 1
    NOSUCH
    SET {k}
    SUBSCRIBE {c}
    SUBSCRIBE {c}
    SUBSCRIBE {c} {c}
    UNSUBSCRIBE {c}
    PSUBSCRIBE {p}
    PSUBSCRIBE {p}
    PUNSUBSCRIBE {p}
    SSUBSCRIBE {c}
    SUNSUBSCRIBE {c}
    PUBLISH {c} {v}
    PUBLISH {c} {v}
    PUBLISH {c} {v}
    SPUBLISH {c} {v}
    PUBSUB NUMSUB {c} {c}
    PUBSUB SHARDNUMSUB {c}
    PUBSUB NUMPAT
    CLIENT TRACKING ON
    CLIENT TRACKING ON
    CLIENT TRACKING ON NOLOOP
    CLIENT TRACKING ON OPTIN
    CLIENT TRACKING ON OPTOUT
    CLIENT TRACKING ON BCAST
    CLIENT TRACKING ON BCAST PREFIX a PREFIX h
    CLIENT TRACKING ON BCAST PREFIX a PREFIX ab
    CLIENT TRACKING ON BCAST NOLOOP
    CLIENT TRACKING ON REDIRECT id{n}
    CLIENT TRACKING ON REDIRECT id{n} BCAST
    CLIENT CACHING YES
    CLIENT CACHING NO
    HELLO 2
    HELLO 3
    HELLO 3
";

/// The steps of a seed.
pub(super) fn steps(seed: u64, count: usize) -> Vec<Step> {
    let mut random = Rng::new(seed);
    let commands: Vec<&str> =
        COMMANDS.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let step = |_| {
        let connection = random.below(COUNT);
        let mut command = commands[random.below(commands.len())].to_owned();
        for (name, words) in [
            ("{k}", &["a", "b", "ab"][..]),
            ("{v}", &["1", "2", "x"]),
            ("{c}", &["a", "b", "invalidate", "__redis__:invalidate"]),
            ("{p}", &["*", "a*", "[ab]", "b"]),
            ("{n}", &["0", "1", "2"]),
        ] {
            while command.contains(name) {
                command = command.replacen(name, words[random.below(words.len())], 1);
            }
        }
        (connection, command)
    };
    (0..count).map(step).collect()
}

/// Takes the steps on both servers, which are empty at first. Returns the first difference.
pub(super) fn difference(pair: &mut Pair, steps: &[Step]) -> Option<Difference> {
    let [mut ours, mut theirs] = pair.connect().map(Connections::open);
    let mut in_transaction = [false; COUNT];
    for (step, (connection, command)) in steps.iter().enumerate() {
        let is_open = &mut in_transaction[*connection];
        // On purpose: in Valkey these two abort the transaction that they are refused in.
        let aborts = pair.is_valkey() && (command == "MULTI" || command.starts_with("WATCH"));
        // On purpose: in a transaction, ours notifies of a change as the client tracked when it happened,
        // others as the client tracks at the end.
        let retracks = command.starts_with("HELLO") || command.starts_with("CLIENT TRACKING");
        // Each channel has a reply, but EXEC's array has one element for the command: the rest would be taken
        // for replies to later commands.
        let is_long = command.starts_with("SUBSCRIBE") && command.split(' ').count() > 2;
        if *is_open && (aborts || retracks || is_long) {
            continue;
        }
        match command.as_str() {
            "MULTI" => *is_open = true,
            "EXEC" | "DISCARD" | "RESET" => *is_open = false,
            _ => {}
        }
        let one = ours.take(*connection, command);
        let other = theirs.take(*connection, command);
        let is_same = one.iter().zip(&other).all(|(one, other)| pair.is_same_text(one, other));
        if !is_same {
            let [ours, theirs] = [one, other].map(|lines| lines.join("\n         "));
            return Some(Difference { step, ours, theirs });
        }
    }
    None
}

/// The connections to one server.
struct Connections {
    clients: Vec<Client>,
    ids: Vec<i64>,
}

impl Connections {
    fn open(mut first: Client) -> Connections {
        // Those of an earlier session must not be counted any more.
        eventually("no client subscribes", || first.text("CLIENT LIST TYPE pubsub").is_empty());
        first.expect("FLUSHALL", "+OK");
        let mut clients: Vec<Client> = (0..COUNT).map(|_| first.another()).collect();
        let ids = clients.iter_mut().map(|client| client.integer("CLIENT ID")).collect();
        Connections { clients, ids }
    }

    /// Sends a command. Returns what each connection received.
    fn take(&mut self, connection: usize, command: &str) -> Vec<String> {
        let mut sent = command.to_owned();
        for (number, id) in self.ids.iter().enumerate() {
            sent = sent.replace(&format!("id{number}"), &id.to_string());
        }
        let client = &mut self.clients[connection];
        client.send(&split_command(&sent));
        // Something arrives once the command has run, so PING runs after it and what it causes.
        let mut first = client.read_reply();
        // A message or an invalidation can come before the reply.
        let mut before = String::new();
        while matches!(&first, Reply::Push(parts) if is_message(&parts[0])) {
            before += &format!("{first} ");
            first = client.read_reply();
        }
        let mut received = vec![Vec::new(); COUNT];
        received[connection] = vec![before, first.to_string()];
        let others = (0..COUNT).filter(|&number| number != connection);
        for number in std::iter::once(connection).chain(others) {
            let client = &mut self.clients[number];
            client.send(&["PING", TOKEN]);
            loop {
                let reply = client.read_reply();
                if is_end(&reply) {
                    break;
                }
                received[number].push(reply.to_string());
            }
        }
        received.into_iter().map(in_defined_order).collect()
    }
}

/// What a connection received, with the messages of a channel's patterns sorted: they come in the order of a
/// hash table. (For the same reason no UNSUBSCRIBE leaves out the names.) HELLO's description of the server
/// is left out.
fn in_defined_order(mut replies: Vec<String>) -> String {
    let is_unordered = |reply: &String| reply.trim_start_matches('>').starts_with("[\"pmessage");
    for run in replies.chunk_by_mut(|one, next| is_unordered(one) && is_unordered(next)) {
        run.sort();
    }
    let describes = |reply: &&String| !reply.contains("\"modules\"");
    replies.iter().filter(describes).cloned().collect::<Vec<_>>().join(" ")
}

/// Whether a push that begins so is a message or an invalidation, and not the reply to a subscription.
fn is_message(kind: &Reply) -> bool {
    let kinds = ["message", "pmessage", "smessage", "invalidate", "tracking-redir-broken"];
    kinds.iter().any(|name| *kind == Reply::Bulk(name.as_bytes().to_vec()))
}

/// Whether this is the reply to the PING that ends a step.
fn is_end(reply: &Reply) -> bool {
    let token = Reply::Bulk(TOKEN.into());
    match reply {
        Reply::Array(parts) => *parts == [Reply::Bulk(b"pong".to_vec()), token],
        Reply::Closed => true,
        reply => *reply == token || *reply == Reply::Simple("QUEUED".into()),
    }
}
