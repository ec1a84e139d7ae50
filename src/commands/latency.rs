//! `LATENCY`: how long commands take, and when something took long.
//!
//! Two sources: the histogram of each command (`LATENCY HISTOGRAM`, setting `latency-tracking`), and the
//! events that took longer than `latency-monitor-threshold`. Which events there are stands in
//! [`crate::stats::latency`]: only what is really measured has a name.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::docs::help;
use super::lookup::by_name;
use super::spec::{Command, Context, Family, Flags, Handler, Outcome, command, session};
use crate::resp::{Args, Reply};
use crate::stats::latency::Event;
use crate::stats::{CommandStats, unix_seconds};

const ADMIN: Flags = Flags::ADMIN.or(Flags::NOSCRIPT).or(Flags::ALWAYS);
const TIPS: &[&str] =
    &["nondeterministic_output", "request_policy:all_nodes", "response_policy:special"];
/// The width of a graph's longest bar.
const BAR_COLUMNS: u64 = 50;

/// Latency.
#[rustfmt::skip]
pub static FAMILY: Family = Family { group: "server", commands: &[
    command("latency", "subcommand [argument ...]", Handler::Container(COMMANDS, None))
        .doc("2.8.13", "depends on the subcommand", "Tells how long commands take."),
] };

#[rustfmt::skip]
const COMMANDS: &[Command] = &[
    session("latency|doctor", "", doctor).flags(ADMIN).tips(TIPS)
        .doc("2.8.13", "O(1)", "Explains in words what took long."),
    session("latency|graph", "event", graph).flags(ADMIN).tips(TIPS)
        .doc("2.8.13", "O(1)", "Draws what is known of an event."),
    help("latency|help", "2.8.13"),
    session("latency|histogram", "[command [command ...]]", histogram).flags(ADMIN).tips(TIPS)
        .doc("7.0.0", "O(N) with N the number of commands",
             "Returns how many calls of commands took how long."),
    session("latency|history", "event", history).flags(ADMIN).tips(TIPS)
        .doc("2.8.13", "O(1)", "Returns when an event took long, and how long."),
    session("latency|latest", "", latest).flags(ADMIN).tips(TIPS)
        .doc("2.8.13", "O(1)", "Returns the last time that each event took long, and the worst."),
    session("latency|reset", "[event [event ...]]", reset).flags(ADMIN)
        .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"])
        .doc("2.8.13", "O(1)", "Forgets events, or all of them."),
];

/// The calls of each command, or of those that are named; a container stands for its subcommands.
fn histogram(context: &mut Context, args: Args, reply: &mut Reply) -> Outcome {
    context.session.count(context.server);
    let called = context.server.collected_stats().commands.called();
    let called: BTreeMap<&str, Arc<CommandStats>> = match args.len() {
        2 => called,
        _ => args
            .from(2)
            .flat_map(names)
            .filter_map(|name| called.get_key_value(name))
            .map(|(name, stats)| (*name, stats.clone()))
            .collect(),
    };
    let tracked: Vec<_> = called
        .iter()
        .filter_map(|(name, stats)| Some((name, stats.histogram()?.cumulative())))
        .collect();
    reply.map(tracked.len());
    for (name, histogram) in tracked {
        reply.bulk(name.as_bytes());
        reply.map(2);
        // Those in the histogram: with latency-tracking off there are others.
        reply.bulk(b"calls");
        reply.integer(histogram.last().map_or(0, |(_, calls)| *calls as i64));
        reply.bulk(b"histogram_usec");
        reply.map(histogram.len());
        for (microseconds, count) in histogram {
            reply.integer(microseconds as i64);
            reply.integer(count as i64);
        }
    }
    Ok(())
}

/// The names under which the calls of a command are counted: a container has its subcommands'.
fn names(asked: &[u8]) -> impl Iterator<Item = &'static str> {
    let rows = by_name(asked).map(|(_, row)| std::iter::once(row).chain(row.subcommands()));
    rows.into_iter().flatten().map(|row| row.name)
}

fn latest(context: &mut Context, _: Args, reply: &mut Reply) -> Outcome {
    let events = context.server.stats.latency.events();
    reply.array(events.len());
    for (name, event) in events {
        let last = event.spikes.back();
        reply.array(4);
        reply.bulk(name.as_bytes());
        reply.integer(last.map_or(0, |spike| spike.at as i64));
        reply.integer(last.map_or(0, |spike| spike.ms as i64));
        reply.integer(event.worst_ms as i64);
    }
    Ok(())
}

fn history(context: &mut Context, args: Args, reply: &mut Reply) -> Outcome {
    let event = find_event(context, &args[2]).unwrap_or_default();
    reply.array(event.spikes.len());
    for spike in event.spikes {
        reply.array(2);
        reply.integer(spike.at as i64);
        reply.integer(spike.ms as i64);
    }
    Ok(())
}

fn find_event(context: &Context, name: &[u8]) -> Option<Event> {
    let events = context.server.stats.latency.events();
    events.into_iter().find(|(known, _)| known.as_bytes() == name).map(|(_, event)| event)
}

fn reset(context: &mut Context, args: Args, reply: &mut Reply) -> Outcome {
    let wanted = |name: &str| args.len() == 2 || args.from(2).any(|arg| arg == name.as_bytes());
    reply.count(context.server.stats.latency.reset(wanted));
    Ok(())
}

/// A line for each second in which the event took long, with a bar.
fn graph(context: &mut Context, args: Args, reply: &mut Reply) -> Outcome {
    let name = &args[2];
    let event = find_event(context, name)
        .ok_or_else(|| [b"ERR No samples available for event '".as_slice(), name, b"'"].concat())?;
    let name = String::from_utf8_lossy(name);
    let (now, times) = (unix_seconds(), || event.spikes.iter().map(|spike| spike.ms));
    let (high, low) = (times().max().unwrap_or(0), times().min().unwrap_or(0));
    let mut text = format!(
        "{name} - high {high} ms, low {low} ms (all time high {} ms)\n{}\n",
        event.worst_ms,
        "-".repeat(80)
    );
    for spike in &event.spikes {
        let bar = "#".repeat((spike.ms * BAR_COLUMNS / high.max(1)).max(1) as usize);
        let age = shown_age(now.saturating_sub(spike.at));
        // Writing to a String does not fail.
        writeln!(text, "{age:>4} ago {:>8} ms  {bar}", spike.ms).unwrap_or_default();
    }
    reply.verbatim(text.as_bytes());
    Ok(())
}

/// Seconds in the largest unit that fits.
fn shown_age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

fn doctor(context: &mut Context, _: Args, reply: &mut Reply) -> Outcome {
    let config = &context.server.config;
    let threshold_ms = config.latency_monitor_threshold.load(Relaxed);
    let slow_us = config.slowlog_log_slower_than.load(Relaxed);
    let events = context.server.stats.latency.events();
    let text = if threshold_ms == 0 {
        "Nothing is monitored: latency-monitor-threshold is 0. With CONFIG SET \
         latency-monitor-threshold <milliseconds> the events that take longer are kept.\n"
            .into()
    } else if events.is_empty() {
        format!("Nothing has taken {threshold_ms} milliseconds or longer.\n")
    } else {
        diagnosis(&events, threshold_ms, slow_us)
    };
    reply.verbatim(text.as_bytes());
    Ok(())
}

fn diagnosis(events: &BTreeMap<&str, Event>, threshold_ms: i64, slow_us: i64) -> String {
    let mut text = format!("These have taken {threshold_ms} milliseconds or longer:\n\n");
    for (name, event) in events {
        let count = event.spikes.len().max(1) as u64;
        let sum: u64 = event.spikes.iter().map(|spike| spike.ms).sum();
        let (average, worst) = (sum / count, event.worst_ms);
        let line = format!(
            "- {name}: in {count} seconds, {average} ms on average, {worst} ms at worst.\n"
        );
        text.push_str(&line);
    }
    text.push('\n');
    let has = |name: &str| events.contains_key(name);
    let mut advise = |advice: &str| text.push_str(&format!("{advice}\n"));
    if has("command") {
        advise("SLOWLOG GET shows which commands those were.");
        if slow_us < 0 || slow_us / 1000 > threshold_ms {
            advise("The slow log keeps only slower ones: lower slowlog-log-slower-than.");
        }
    }
    if has("fast-command") {
        advise(
            "Commands that do little have taken long: the machine lacks processors or memory, or they \
             waited for a key that a slow command was using.",
        );
    }
    if has("aof-write") || has("aof-fsync-always") {
        advise("The disk is slow: with appendfsync everysec no reply waits for a sync of the log.");
    }
    if has("expire-cycle") {
        advise("Many keys expire at the same moment: spread their deadlines.");
    }
    text
}
