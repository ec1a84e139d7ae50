//! `LATENCY`: how long commands take, and which events took long.
//!
//! It has two sources: a histogram for each command, kept while `latency-tracking` is on, and the events that
//! took at least `latency-monitor-threshold` milliseconds ([`crate::stats::latency`]).

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::Ordering::Relaxed;

use super::docs::help;
use super::info::called;
use super::lookup::by_called_name;
use super::spec::{Command, Context, Family, Flags, Handler, Outcome, command, session};
use crate::resp::{Args, Reply};
use crate::stats::latency::Event;
use crate::stats::unix_seconds;

const ADMIN: Flags = Flags::ADMIN.or(Flags::NOSCRIPT).or(Flags::ALWAYS);
const TIPS: &[&str] =
    &["nondeterministic_output", "request_policy:all_nodes", "response_policy:special"];
/// The width of the longest bar in a graph.
const BAR_COLUMNS: u64 = 50;

/// The commands about latency.
#[rustfmt::skip]
pub static FAMILY: Family = Family { group: "server", commands: &[
    command("latency", "subcommand [argument ...]", Handler::Container(COMMANDS, None))
        .doc("2.8.13", "depends on the subcommand", "Shows how long commands take."),
] };

#[rustfmt::skip]
const COMMANDS: &[Command] = &[
    session("latency|doctor", "", doctor).flags(ADMIN).tips(TIPS)
        .doc("2.8.13", "O(1)", "Explains in words which events took long, and what to do."),
    session("latency|graph", "event", graph).flags(ADMIN).tips(TIPS)
        .doc("2.8.13", "O(1)", "Draws the history of an event."),
    help("latency|help", "2.8.13"),
    session("latency|histogram", "[command [command ...]]", histogram).flags(ADMIN).tips(TIPS)
        .doc("7.0.0", "O(N) with N the number of commands",
             "Returns a histogram of each command's times."),
    session("latency|history", "event", history).flags(ADMIN).tips(TIPS)
        .doc("2.8.13", "O(1)", "Returns when an event took long, and how long it took."),
    session("latency|latest", "", latest).flags(ADMIN).tips(TIPS)
        .doc("2.8.13", "O(1)", "Returns the last and the longest time of each event."),
    session("latency|reset", "[event [event ...]]", reset).flags(ADMIN)
        .tips(&["request_policy:all_nodes", "response_policy:agg_sum"])
        .doc("2.8.13", "O(1)", "Forgets the named events, or all events."),
];

/// The histogram of each command, or of those that are named. A container's name stands for its subcommands.
fn histogram(context: &mut Context, args: Args, reply: &mut Reply) -> Outcome {
    let named: Vec<&Command> =
        args.from(2).filter_map(by_called_name).map(|(_, row)| row).collect();
    let is_named = |row: &Command| {
        let names = |named: &&Command| {
            named.id == row.id || named.subcommands().iter().any(|sub| sub.id == row.id)
        };
        args.len() == 2 || named.iter().any(names)
    };
    let stats = &context.server.stats;
    let tracked: Vec<_> = called(context.server)
        .into_iter()
        .filter(|(row, _)| is_named(row))
        .filter_map(|(row, counts)| {
            Some((row.name, stats.histogram(row.id, &counts)?.cumulative()))
        })
        .collect();
    reply.map(tracked.len());
    for (name, histogram) in tracked {
        reply.bulk(name.as_bytes());
        reply.map(2);
        // Only the calls in the histogram: there may be others, made while latency-tracking was off.
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

/// One line with a bar for each second in which the event took long.
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

/// A number of seconds, shown in the largest unit that fits.
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
        "No events are recorded: latency-monitor-threshold is 0. CONFIG SET \
         latency-monitor-threshold <milliseconds> records the events that take at least so long.\n"
            .into()
    } else if events.is_empty() {
        format!("No event has taken {threshold_ms} milliseconds or longer.\n")
    } else {
        diagnosis(&events, threshold_ms, slow_us)
    };
    reply.verbatim(text.as_bytes());
    Ok(())
}

fn diagnosis(events: &BTreeMap<&str, Event>, threshold_ms: i64, slow_us: i64) -> String {
    let mut text = format!("These events have taken {threshold_ms} milliseconds or longer:\n\n");
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
        advise("SLOWLOG GET shows the slow commands.");
        if slow_us < 0 || slow_us / 1000 > threshold_ms {
            advise("The slow log misses some of them: lower slowlog-log-slower-than.");
        }
    }
    if has("fast-command") {
        advise(
            "Fast commands have taken long: the machine is short of CPU time or memory, or they waited for a \
             key that a slow command was using.",
        );
    }
    if has("aof-write") || has("aof-fsync-always") {
        advise(
            "The disk is slow: with appendfsync everysec, replies do not wait for a sync of the log.",
        );
    }
    if has("expire-cycle") {
        advise("Many keys expire at the same moment: spread their expiry times.");
    }
    text
}
