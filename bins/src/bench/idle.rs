//! `idle`: connections, topics and channels that do nothing, and what they cost.
//!
//! Comes in: how many of each. Goes out: the server's memory before, with them open, and after holding them, and its
//! CPU time and context switches while holding. The rule: this side only answers heartbeats, about once a second for
//! all connections together.

use super::connection::{Connection, Frame};
use super::options::Options;
use super::process::Usage;
use super::report::{Report, float};
use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::thread;
use std::time::{Duration, Instant};

/// An idle connection reads heartbeats only.
const BUFFER: usize = 512;

/// Between two looks at all connections; far below any heartbeat's deadline.
const SWEEP: Duration = Duration::from_secs(1);

/// Lets the server finish what opening began.
const SETTLE: Duration = Duration::from_millis(500);

/// Opens, holds, measures.
pub(super) fn run(options: &Options) -> Result<Report> {
    let usage = || options.pid.map(Usage::of).transpose().context("--pid");
    // One connection before the first snapshot: it shows what the server says, and its cost is not the others'.
    let first = Connection::open(&options.address, &options.identify, BUFFER)?;
    let before = usage()?;
    let opening = Instant::now();
    let mut connections = open(options)?;
    let opening = opening.elapsed();
    thread::sleep(SETTLE);
    let opened = usage()?;
    let client = Usage::of(std::process::id()).ok();
    let start = Instant::now();
    let end = start + options.duration.unwrap_or_default();
    while let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        thread::sleep(left.min(SWEEP));
        answer(&mut connections)?;
    }
    let held = start.elapsed();

    let mut report = Report::new(options, first.server());
    let section = report.section("results");
    section.extend([("open_seconds", float(opening.as_secs_f64())), ("hold_seconds", float(held.as_secs_f64()))]);
    if let (Some(before), Some(opened), Some(after)) = (before, opened, usage()?) {
        let growth = opened.rss.saturating_sub(before.rss) as f64;
        section.extend([
            ("server_rss_before_mb", float(before.rss as f64 / 1e6)),
            ("server_rss_opened_mb", float(opened.rss as f64 / 1e6)),
            ("server_growth_bytes_per_connection", float(growth / options.connections as f64)),
        ]);
        if options.topics > 0 {
            section.extend([("server_growth_bytes_per_topic", float(growth / options.topics as f64))]);
        }
        section.cost("server", &after.since(&opened), held);
    }
    if let Some(client) = client {
        section.cost("client", &Usage::of(std::process::id())?.since(&client), held);
    }
    Ok(report)
}

/// The connections to hold. Topics beyond their number are created by a subscription that ends at once.
fn open(options: &Options) -> Result<Vec<Connection>> {
    let mut held = Vec::with_capacity(options.connections);
    for index in 0..options.connections.max(options.topics) {
        let mut connection = Connection::open(&options.address, &options.identify, BUFFER).with_context(|| {
            format!("connection {index} (this process and nsqd each need a file per connection: ulimit -Hn)")
        })?;
        if options.topics > 0 {
            connection.subscribe(&numbered(&options.topic, index % options.topics), &options.channel)?;
            connection.ready(options.rdy)?;
        }
        if index < options.connections {
            held.push(connection);
        }
    }
    Ok(held)
}

/// Answers the heartbeats that have arrived.
fn answer(connections: &mut [Connection]) -> Result<()> {
    let mut fds: Vec<_> =
        connections.iter().map(|connection| PollFd::new(connection.stream(), PollFlags::IN)).collect();
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
    let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
    for (connection, _) in connections.iter_mut().zip(ready).filter(|(_, ready)| *ready) {
        connection.receive()?;
        match connection.next_frame()? {
            None => (),
            Some(Frame::Message { .. }) => bail!("a message arrived: the topic is not idle; choose another --topic"),
            Some(Frame::Response(_)) => bail!("an answer that nothing was asked for"),
        }
    }
    Ok(())
}

/// The name of a topic or channel with a number, before the suffix that makes it ephemeral.
pub(super) fn numbered(name: &str, number: usize) -> String {
    match name.strip_suffix("#ephemeral") {
        Some(stem) => format!("{stem}{number}#ephemeral"),
        None => format!("{name}{number}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbered_topics_stay_ephemeral() {
        assert_eq!(numbered("bench", 12), "bench12");
        assert_eq!(numbered("bench#ephemeral", 3), "bench3#ephemeral");
    }
}
