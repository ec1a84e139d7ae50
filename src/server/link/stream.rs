//! The master's stream: commands, each of which is executed as it comes, or with those of its transaction.

use std::convert::Infallible;
use std::io::{self, BufRead};
use std::sync::Arc;
use std::time::Instant;

use super::wire::Wire;
use super::{End, Link};
use crate::aof::replay::ANY_LENGTH;
use crate::dispatch::follow::{Failure, follow};
use crate::dispatch::measure::end_batch;
use crate::resp::{Args, Queue, Request};
use crate::session::{Client, Login, Origin, Session};

/// Commands that belong together, and their bytes.
#[derive(Default)]
struct Unit {
    bytes: Vec<u8>,
    commands: Queue,
    /// `MULTI` has come, and `EXEC` has not.
    is_open: bool,
    /// The master asks for an acknowledgement.
    asks: bool,
}

impl Link {
    /// Executes what the master sends, beginning in that database, until the link breaks.
    pub(super) fn follow_stream(
        &self,
        wire: &mut Wire,
        client: Arc<Client>,
        db: usize,
    ) -> Result<Infallible, End> {
        let server = &*self.server;
        let login = Login::for_replay();
        let mut session = Session { db, origin: Origin::Client, ..Session::new(client, login) };
        session.client_flags.master = true;
        server.stats.meters.register(session.client.id, session.client.meter.clone());
        let id = session.client.id;
        let _registered = OnDrop(|| server.stats.meters.deregister(id));
        wire.send_acknowledgements()?;
        let mut request = Request::new(ANY_LENGTH);
        request.strict = true; // as it will be read from our log
        let mut unit = Unit::default();
        loop {
            session.sync_client_state(Instant::now());
            let buffer = wire.input().fill_buf()?;
            let length = buffer.len();
            session.client.meter.received.add(length as u64);
            let mut asked = false;
            let mut used = 0;
            while used < length {
                // As in Redis: a master may send empty lines, but no commands without lengths.
                if !request.is_partial() && !matches!(buffer[used], b'*' | b'\r' | b'\n') {
                    let found = buffer[used].escape_ascii();
                    return Err(End::Diverged(format!("expected '*', got '{found}'")));
                }
                let step = request.feed(&buffer[used..]);
                let step = step.map_err(|error| End::Diverged(error.to_string()))?;
                unit.bytes.extend_from_slice(&buffer[used..used + step.used]);
                used += step.used;
                if !step.complete {
                    continue;
                }
                if unit.take(request.args().map_err(io::Error::from)?)? {
                    follow(server, &mut session, self.term, &unit.commands, &unit.bytes)
                        .map_err(End::from)?;
                    asked |= unit.asks;
                    unit = Unit::default();
                }
                request.clear();
            }
            wire.input().consume(length);
            end_batch(server, &mut session);
            // Others are fed from the file.
            server.aof.flush()?;
            if asked {
                wire.acknowledge()?;
            }
            wire.keep_alive()?;
        }
    }
}

impl Unit {
    /// Takes a command. Returns whether the unit is complete.
    ///
    /// # Errors
    /// The system refuses the memory for it.
    fn take(&mut self, args: Args) -> io::Result<bool> {
        if args[0].eq_ignore_ascii_case(b"MULTI") && !self.is_open {
            self.is_open = true;
            return Ok(false);
        }
        if args[0].eq_ignore_ascii_case(b"EXEC") && self.is_open {
            return Ok(true);
        }
        let second = args.get(1).unwrap_or_default();
        self.asks |=
            args[0].eq_ignore_ascii_case(b"REPLCONF") && second.eq_ignore_ascii_case(b"GETACK");
        self.commands.push(args)?;
        Ok(!self.is_open)
    }
}

impl From<Failure> for End {
    fn from(failure: Failure) -> End {
        match failure {
            Failure::Over => End::Over,
            Failure::Command(why) => End::Diverged(why),
        }
    }
}

/// Calls a function when it is dropped.
struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
