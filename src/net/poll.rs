//! How a connection's thread waits for its client: awake for a moment, and then asleep.
//!
//! A core that runs out of work and has to be woken loses more time than a short command takes. So before a
//! thread sleeps in a blocking read, it tries to read again and again, and lets others run in between. On
//! two cores a client on the same machine that asks and waits gets 2.4 times as many answers by that, and
//! fifty with pipelines of 16 a tenth more.
//!
//! One thread of the server does so at a time, which keeps one core awake for all of them. And it must
//! pay: if a few times in a row its client sent nothing in that time, and no other thread wanted its turn, a
//! thread tries it but rarely from then on. So the price is a core that is awake in a busy server, and
//! next to nothing in an idle one.
//!
//! Who does not poll at least lets others run once before it sleeps. Often its client has sent by then;
//! and to fall asleep costs the thread, and to wake it the client, more than that. Fifty clients get a
//! fifth to two fifths more answers by it; in return the slowest of them come later.

use std::io::{self, BufRead, BufReader, ErrorKind};
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use crate::net::socket::Socket;

/// How long a thread tries before it sleeps.
const POLL_TIME: Duration = Duration::from_micros(50);
/// How often in a row that may be for nothing …
const USELESS_POLLS: u32 = 8;
/// … before a thread does it only once in so many waits.
const RARE: u32 = 16;

/// Whose turn it is, in all of the server.
#[derive(Default)]
pub struct SpinPermit(AtomicU8);

/// Nobody polls.
const FREE: u8 = 0;
/// Somebody does.
const TAKEN: u8 = 1;
/// Somebody does, and others wanted to: the server is busy.
const WANTED: u8 = 2;

impl SpinPermit {
    /// Takes the turn, if nobody has it.
    fn try_take(&self) -> bool {
        let change = |from, to| self.0.compare_exchange(from, to, Relaxed, Relaxed).is_ok();
        match self.0.load(Relaxed) {
            FREE => change(FREE, TAKEN),
            TAKEN => {
                change(TAKEN, WANTED);
                false
            }
            _ => false,
        }
    }

    /// Gives it back. Returns whether others wanted it meanwhile.
    fn give_back(&self) -> bool {
        self.0.swap(FREE, Relaxed) == WANTED
    }
}

/// One connection's waiting.
#[derive(Default)]
pub struct Wait {
    /// How many waits have passed since a poll was of use.
    useless: u32,
}

impl Wait {
    /// Waits for bytes from the client; returns how many there are, none at the end. For a moment the
    /// socket does not block, and nobody may write to it: what `alone` returns sees to that while it lives,
    /// and if it returns nothing the thread does not poll.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn receive<G>(
        &mut self,
        input: &mut BufReader<&Socket>,
        turn: &SpinPermit,
        alone: impl FnOnce() -> Option<G>,
    ) -> io::Result<usize> {
        let may_pay = self.useless < USELESS_POLLS || self.useless.is_multiple_of(RARE);
        if !may_pay {
            self.useless = self.useless.wrapping_add(1);
        } else if let Some(_alone) = alone()
            && turn.try_take()
        {
            let found = poll(input);
            let was_wanted = turn.give_back();
            let found = found?;
            let was_useful = found.is_some() || was_wanted;
            self.useless = if was_useful { 0 } else { self.useless.wrapping_add(1) };
            if let Some(arrived) = found {
                return Ok(arrived);
            }
        }
        thread::yield_now();
        Ok(input.fill_buf()?.len())
    }
}

/// What arrives soon.
fn poll(input: &mut BufReader<&Socket>) -> io::Result<Option<usize>> {
    let socket = *input.get_ref();
    socket.set_nonblocking(true)?;
    let started = Instant::now();
    let found = loop {
        match input.fill_buf() {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            result => break result.map(|bytes| Some(bytes.len())),
        }
        if started.elapsed() > POLL_TIME {
            break Ok(None);
        }
        thread::yield_now();
    };
    socket.set_nonblocking(false)?;
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    #[test]
    fn the_turn_is_one_threads_and_tells_it_that_others_wanted_it() {
        let turn = SpinPermit::default();
        assert!(turn.try_take());
        assert!(!turn.give_back());
        assert!(turn.try_take());
        assert!(!turn.try_take() && !turn.try_take());
        assert!(turn.give_back());
        assert!(turn.try_take() && !turn.give_back());
    }

    #[test]
    fn who_polls_for_nothing_does_it_rarely_until_it_is_of_use() {
        let (mut client, server) = UnixStream::pair().expect("a pair of sockets");
        let socket = Socket::Unix(server);
        let mut input = BufReader::new(&socket);
        let (mut wait, turn) = (Wait::default(), SpinPermit::default());
        for _ in 0..USELESS_POLLS {
            // Sent while the thread sleeps, as far as a test can see to that.
            assert!(poll(&mut input).is_ok_and(|found| found.is_none()));
            wait.useless += 1;
        }
        let mut receive = |wait: &mut Wait| {
            client.write_all(b"x").expect("to send");
            let arrived = wait.receive(&mut input, &turn, || Some(()));
            assert_eq!(arrived.ok(), Some(1));
            input.consume(1);
        };
        for waits in USELESS_POLLS + 1..=RARE {
            receive(&mut wait);
            assert_eq!(wait.useless, waits);
        }
        receive(&mut wait);
        assert_eq!(wait.useless, 0, "what had arrived was found at once");
    }

    #[test]
    fn the_socket_blocks_again_after_a_poll() {
        let (mut client, server) = UnixStream::pair().expect("a pair of sockets");
        let socket = Socket::Unix(server);
        let mut input = BufReader::new(&socket);
        let arrived = thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(10 * POLL_TIME);
                client.write_all(b"late").expect("to send");
            });
            Wait::default().receive(&mut input, &SpinPermit::default(), || Some(()))
        });
        assert_eq!(arrived.ok(), Some(4));
        drop(client);
        input.consume(4);
        let at_end = Wait::default().receive(&mut input, &SpinPermit::default(), || Some(()));
        assert_eq!(at_end.ok(), Some(0));
    }
}
