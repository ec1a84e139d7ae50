//! `CLIENT TRACKING`, `CACHING`, `GETREDIR` and `TRACKINGINFO`: client-side caching.
//!
//! A client declares that it caches what it reads, and how it wants to be notified of changes. The tables
//! of tracked keys are in [`crate::watchers::tracking`], the rows in [`super::clients`].
//!
//! The main command is described at <https://redis.io/docs/latest/commands/client-tracking/>.

use std::sync::Arc;

use super::options::{OptionCursor, c_text, integer, is};
use super::spec::{Context, Outcome};
use crate::resp::{Args, CommandError, Reply};
use crate::session::Client;
use crate::watchers::tracking::{Mode, Tracked};

/// The options after `ON` or `OFF`.
#[derive(Default)]
struct TrackingOptions<'a> {
    redirect: Option<Arc<Client>>,
    prefixes: Vec<&'a [u8]>,
    bcast: bool,
    optin: bool,
    optout: bool,
    noloop: bool,
}

impl<'a> TrackingOptions<'a> {
    fn parse(context: &Context, args: Args<'a>) -> Result<TrackingOptions<'a>, CommandError> {
        let mut options = TrackingOptions::default();
        let mut words = OptionCursor::new(args, 3);
        while !words.is_done() {
            if let Some(id) = words.take_value("REDIRECT")? {
                let text = "ERR A client can only redirect to a single other client";
                if options.redirect.is_some() {
                    return Err(CommandError::new(text));
                }
                let text = "ERR The client ID you want redirect to does not exist";
                let client = u64::try_from(integer(id)?).ok();
                let client = client.and_then(|id| context.server.clients.get(id));
                options.redirect = Some(client.ok_or(CommandError::new(text))?);
            } else if let Some(prefix) = words.take_value("PREFIX")? {
                options.prefixes.push(prefix);
            } else if words.take("BCAST") {
                options.bcast = true;
            } else if words.take("OPTIN") {
                options.optin = true;
            } else if words.take("OPTOUT") {
                options.optout = true;
            } else if words.take("NOLOOP") {
                options.noloop = true;
            } else {
                return Err(CommandError::SYNTAX);
            }
        }
        Ok(options)
    }

    /// The mode that the options ask for.
    ///
    /// # Errors
    /// The options contradict each other or the current mode of the connection.
    fn mode(&self, current: Option<Mode>) -> Result<Mode, CommandError> {
        let refused = |text| Err(CommandError::new(text));
        if !self.bcast && !self.prefixes.is_empty() {
            return refused("ERR PREFIX option requires BCAST mode to be enabled");
        }
        let current = current.map(|mode| mode.what);
        if current.is_some_and(|what| (what == Tracked::Prefixes) != self.bcast) {
            return refused(
                "ERR You can't switch BCAST mode on/off before disabling tracking for this client, and \
                 then re-enabling it with a different mode.",
            );
        }
        if self.bcast && (self.optin || self.optout) {
            return refused("ERR OPTIN and OPTOUT are not compatible with BCAST");
        }
        if self.optin && self.optout {
            return refused("ERR You can't specify both OPTIN mode and OPTOUT mode");
        }
        if (self.optin && current == Some(Tracked::OptOut))
            || (self.optout && current == Some(Tracked::OptIn))
        {
            return refused(
                "ERR You can't switch OPTIN/OPTOUT mode before disabling tracking for this client, and \
                 then re-enabling it with a different mode.",
            );
        }
        let what = match self {
            TrackingOptions { bcast: true, .. } => Tracked::Prefixes,
            TrackingOptions { optin: true, .. } => Tracked::OptIn,
            TrackingOptions { optout: true, .. } => Tracked::OptOut,
            _ => Tracked::Reads,
        };
        let redirect = self.redirect.as_ref().map_or(0, |client| client.id);
        Ok(Mode { what, noloop: self.noloop, redirect })
    }

    /// Checks that no prefix of the connection begins with another one, or a key would be reported twice.
    fn check_prefixes(&self, existing: &[Box<[u8]>]) -> Outcome {
        let overlap = |one: &[u8], other: &[u8]| one.starts_with(other) || other.starts_with(one);
        let refused = |prefix: &[u8], which: &str, other: &[u8]| {
            let behind = b"'. Prefixes for a single client must not overlap.";
            let (prefix, other) = (c_text(prefix), c_text(other));
            let text =
                [b"ERR Prefix '", prefix, b"' overlaps with ", which.as_bytes(), b" prefix '"];
            Err([&text.concat(), other, &behind[..]].concat().into())
        };
        for (number, prefix) in self.prefixes.iter().enumerate() {
            if let Some(other) = existing.iter().find(|other| overlap(prefix, other)) {
                return refused(prefix, "an existing", other);
            }
            if let Some(other) = self.prefixes[number + 1..].iter().find(|o| overlap(prefix, o)) {
                return refused(prefix, "another provided", other);
            }
        }
        Ok(())
    }
}

pub(super) fn tracking(context: &mut Context, args: Args, reply: &mut Reply) -> Outcome {
    let options = TrackingOptions::parse(context, args)?;
    match &args[2] {
        word if is(word, "ON") => start(context, options)?,
        word if is(word, "OFF") => {
            context.session.stops_listening();
            context.session.stop_tracking(context.server);
        }
        _ => return Err(CommandError::SYNTAX),
    }
    reply.ok();
    Ok(())
}

fn start(context: &mut Context, mut options: TrackingOptions) -> Outcome {
    let Context { server, session, .. } = context;
    let current = server.tracking.state(session.client.id);
    let mode = options.mode(current.as_ref().map(|state| state.mode))?;
    options.check_prefixes(&current.map(|state| state.prefixes).unwrap_or_default())?;
    if options.bcast && options.prefixes.is_empty() {
        options.prefixes.push(b""); // matches every key
    }
    let target = options.redirect.map(|client| client.outbox.clone());
    let client = &session.client;
    client.outbox.hold(); // no message goes out before the confirmation
    server.tracking.start(client.id, &client.outbox, mode, target.as_ref(), &options.prefixes);
    session.delivery.redirected.extend(target);
    Ok(())
}

pub(super) fn caching(context: &mut Context, args: Args, reply: &mut Reply) -> Outcome {
    let Some(state) = context.server.tracking.state(context.session.client.id) else {
        return Err(CommandError::new(
            "ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or \
             OPTOUT mode enabled",
        ));
    };
    let (needed, text) = match &args[2] {
        word if is(word, "YES") => (
            Tracked::OptIn,
            "ERR CLIENT CACHING YES is only valid when tracking is enabled in OPTIN mode.",
        ),
        word if is(word, "NO") => (
            Tracked::OptOut,
            "ERR CLIENT CACHING NO is only valid when tracking is enabled in OPTOUT mode.",
        ),
        _ => return Err(CommandError::SYNTAX),
    };
    if state.mode.what != needed {
        return Err(CommandError::new(text));
    }
    context.session.caching = true;
    reply.ok();
    Ok(())
}

/// Replies with the id of the connection that gets the notifications instead: 0 for none, -1 without
/// tracking.
pub(super) fn getredir(context: &mut Context, _: Args, reply: &mut Reply) -> Outcome {
    let state = context.server.tracking.state(context.session.client.id);
    reply.integer(state.map_or(-1, |state| state.mode.redirect as i64));
    Ok(())
}

pub(super) fn info(context: &mut Context, _: Args, reply: &mut Reply) -> Outcome {
    let state = context.server.tracking.state(context.session.client.id);
    let caching = context.session.caching;
    let mut flags = Vec::new();
    match &state {
        None => flags.push("off"),
        Some(state) => {
            let is = |what| state.mode.what == what;
            let all = [
                ("on", true),
                ("bcast", is(Tracked::Prefixes)),
                ("optin", is(Tracked::OptIn)),
                ("caching-yes", is(Tracked::OptIn) && caching),
                ("optout", is(Tracked::OptOut)),
                ("caching-no", is(Tracked::OptOut) && caching),
                ("noloop", state.mode.noloop),
                ("broken_redirect", state.broken),
            ];
            flags.extend(all.iter().filter(|(_, is_set)| *is_set).map(|(name, _)| *name));
        }
    }
    reply.map(3);
    reply.bulk(b"flags");
    reply.set(flags.len());
    flags.iter().for_each(|flag| reply.bulk(flag.as_bytes()));
    reply.bulk(b"redirect");
    reply.integer(state.as_ref().map_or(-1, |state| state.mode.redirect as i64));
    reply.bulk(b"prefixes");
    let prefixes = state.map(|state| state.prefixes).unwrap_or_default();
    reply.array(prefixes.len());
    prefixes.iter().for_each(|prefix| reply.bulk(prefix));
    Ok(())
}
