//! `nsq_bench`: a load generator that measures any nsqd over TCP, its latency, its throughput and what a message costs
//! it.
//!
//! Comes in: a command line ([`Options`]). Goes out: a table or one JSON object. [`publisher`] and [`consumer`] are one
//! blocking connection each on a thread of its own, [`gate`] is where they meet, [`measure`] runs them between two
//! snapshots of [`process`], [`report`] prints. The rule: the client shares its cores with the server, so it does as
//! little as it can for each message, and reports its own cost too.

mod connection;
mod consumer;
mod frames;
mod gate;
mod idle;
mod measure;
mod options;
mod pace;
mod process;
mod publisher;
mod report;
mod sink;
mod tally;

pub use options::{Options, Request, help};

use crate::daemon::raise_file_limit;
use anyhow::{Result, bail};
use connection::{Connection, Server};
use consumer::Consumer;
use frames::READ_BUFFER;
use gate::Gate;
use measure::{Measured, Worker, drive};
use options::Command;
use pace::Schedule;
use publisher::Publisher;
use report::Report;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Runs a command and returns what it prints.
pub fn run(options: &Options) -> Result<String> {
    raise_file_limit();
    let report = match options.command {
        Command::Pub => publish(options)?,
        Command::Sub => consume(options)?,
        Command::E2e => end_to_end(options)?,
        Command::Idle => idle::run(options)?,
        Command::Sink => {
            sink::run(options)?;
            return Ok(String::new());
        }
    };
    Ok(if options.json { serde_json::to_string(&report)? + "\n" } else { report.to_string() })
}

/// `pub`: as fast as answers come, or on a schedule.
fn publish(options: &Options) -> Result<Report> {
    for number in 0..options.channels {
        let mut connection = Connection::open(&options.address, &options.identify, 4096)?;
        connection.subscribe(&options.topic, &idle::numbered(&options.channel, number))?;
    }
    let gate = Gate::new(options.connections, false);
    let (workers, server) = producers(options, options.connections, None)?;
    let measured = drive(options, &gate, workers)?;
    let mut report = Report::new(options, &server);
    let section = report.section("results");
    section.rate(&measured, measured.published, measured.published * options.body_size as u64);
    section.costs(&measured, measured.published);
    section.percentiles("acknowledgement", &measured.tally.acknowledgement);
    section.percentiles("sent_late", &measured.tally.lag);
    Ok(report)
}

/// `sub`: consumes what is there, after filling the channel if asked to.
fn consume(options: &Options) -> Result<Report> {
    // Subscribed before the filling, so that the messages wait in the channel and moving them there is not measured.
    let (workers, server) = consumers(options, None)?;
    if options.fill > 0 {
        fill(options)?;
    }
    let gate = Gate::new(0, false);
    let measured = drive(options, &gate, workers)?;
    let mut report = Report::new(options, &server);
    let section = report.section("results");
    section.rate(&measured, measured.received, measured.received_bytes);
    section.extend([("redelivered", measured.tally.redelivered.into())]);
    section.costs(&measured, measured.received);
    Ok(report)
}

/// `e2e`: producers on a schedule and consumers, timed by what the bodies carry.
fn end_to_end(options: &Options) -> Result<Report> {
    let gate = Gate::new(options.producers, true);
    let run = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, tally::nanos);
    let (mut workers, server) = consumers(options, Some(run))?;
    workers.extend(producers(options, options.producers, Some(run))?.0);
    let measured = drive(options, &gate, workers)?;
    if measured.tally.latency.is_empty() {
        bail!("no message that was published in the measured time came back");
    }
    let mut report = Report::new(options, &server);
    let section = report.section("results");
    section.rate(&measured, measured.received, measured.received_bytes);
    section.extend([
        ("published", measured.published.into()),
        ("missing", gate.published().saturating_sub(gate.received()).into()),
        ("redelivered", measured.tally.redelivered.into()),
        ("of_other_runs", measured.tally.foreign.into()),
    ]);
    section.costs(&measured, measured.received);
    section.percentiles("latency", &measured.tally.latency);
    section.percentiles("sent_late", &measured.tally.lag);
    Ok(report)
}

/// Publishes what `sub` is to consume, unmeasured.
fn fill(options: &Options) -> Result<()> {
    let filling =
        Options { count: options.fill, duration: None, warm_up: Duration::ZERO, rate: 0, pid: None, ..options.clone() };
    let gate = Gate::new(options.producers, false);
    let (workers, _) = producers(&filling, options.producers, None)?;
    let Measured { published, elapsed, .. } = drive(&filling, &gate, workers)?;
    eprintln!("nsq_bench: filled with {published} messages in {:.1} s", elapsed.as_secs_f64());
    // Upstream's topic hands its messages on after the OK.
    thread::sleep(Duration::from_millis(500));
    Ok(())
}

/// Producing connections, open and ready to run.
fn producers(options: &Options, count: usize, run: Option<u64>) -> Result<(Vec<Worker<'static>>, Server)> {
    let open = || Connection::open(&options.address, &options.identify, 4096);
    let connections = (0..count).map(|_| open()).collect::<Result<Vec<_>>>()?;
    let server = connections[0].server().clone();
    let start = Instant::now() + Duration::from_millis(10);
    let worker = |(index, connection)| -> Worker<'static> {
        let schedule = (options.rate > 0).then(|| Schedule::new(start, options.rate, options.batch, index, count));
        let publisher = Publisher::new(connection, options, schedule, run);
        Box::new(move |gate| publisher.run(gate))
    };
    Ok((connections.into_iter().enumerate().map(worker).collect(), server))
}

/// Consuming connections, subscribed and ready to run.
fn consumers(options: &Options, run: Option<u64>) -> Result<(Vec<Worker<'static>>, Server)> {
    let mut workers: Vec<Worker<'static>> = Vec::new();
    let mut server = Server::default();
    for _ in 0..options.connections {
        let mut connection = Connection::open(&options.address, &options.identify, READ_BUFFER)?;
        connection.subscribe(&options.topic, &options.channel)?;
        server = connection.server().clone();
        let consumer = Consumer::new(connection, options.rdy, run);
        workers.push(Box::new(move |gate| consumer.run(gate)));
    }
    Ok((workers, server))
}

#[cfg(test)]
mod tests;
