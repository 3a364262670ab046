//! The command line of `nsq_bench`: one table that parses, tells which command takes which option, and prints itself as
//! help.
//!
//! Comes in: arguments. Goes out: [`Options`], checked, or an error that says what to write instead. The rule: an
//! option that a command does not use is refused, so that no number is ever reported for a setting that had no effect.

use super::connection::Identify;
use anyhow::{Context, Result, bail};
use lexopt::{Arg, Parser, ValueExt};
use std::ffi::OsString;
use std::str::FromStr;
use std::time::Duration;

/// What to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Publish and wait for the `OK`s.
    Pub,
    /// Consume.
    Sub,
    /// Publish at a fixed rate and consume, for the latency between.
    E2e,
    /// Hold connections and topics that do nothing.
    Idle,
    /// Be a server that only moves bytes.
    Sink,
}

/// Everything a run can be told.
#[derive(Clone, Debug)]
pub struct Options {
    /// What to run.
    pub command: Command,
    /// Where nsqd listens; where to listen, for the sink.
    pub address: String,
    /// Topic to use.
    pub topic: String,
    /// Channel to use.
    pub channel: String,
    /// Connections: producers for `pub`, consumers for the rest.
    pub connections: usize,
    /// Producing connections of `e2e` and of `sub --fill`.
    pub producers: usize,
    /// Messages per MPUB; 1 publishes with PUB.
    pub batch: usize,
    /// Bytes of a body.
    pub body_size: usize,
    /// Messages per second over all producers; 0 for as many as possible.
    pub rate: u64,
    /// The length of the measurement; `None` until `count` is reached.
    pub duration: Option<Duration>,
    /// Messages to measure; 0 for no limit.
    pub count: u64,
    /// Load before the measurement begins.
    pub warm_up: Duration,
    /// RDY of each consumer.
    pub rdy: u64,
    /// Unanswered PUBs or MPUBs that a connection may have.
    pub depth: usize,
    /// Messages to publish before consuming.
    pub fill: u64,
    /// Topics of `idle`.
    pub topics: usize,
    /// Channels that the topic of `pub` is given first, which nobody consumes.
    pub channels: usize,
    /// The server's process, to measure its cost.
    pub pid: Option<u32>,
    /// What to negotiate.
    pub identify: Identify,
    /// Print JSON, not a table.
    pub json: bool,
}

/// What the arguments ask for.
pub enum Request {
    /// A run.
    Run(Box<Options>),
    /// The help text.
    Help,
    /// The version.
    Version,
}

/// An option: name, what its value is called, the commands that take it, what it does.
type Row = (&'static str, &'static str, &'static [Command], &'static str);

const ALL: &[Command] = &[PUB, SUB, E2E, IDLE, SINK];
const CLIENT: &[Command] = &[PUB, SUB, E2E, IDLE];
const LOAD: &[Command] = &[PUB, SUB, E2E];
const READING: &[Command] = &[SUB, E2E, IDLE];
const PUB: Command = Command::Pub;
const SUB: Command = Command::Sub;
const E2E: Command = Command::E2e;
const IDLE: Command = Command::Idle;
const SINK: Command = Command::Sink;

const TABLE: &[Row] = &[
    ("nsqd-tcp-address", "HOST:PORT", ALL, "where nsqd listens; for sink, where to listen [127.0.0.1:4150]"),
    ("topic", "NAME", CLIENT, "topic [bench]; idle appends a number"),
    ("channel", "NAME", READING, "channel [bench]"),
    ("channels", "N", &[PUB], "channels to create first, which nobody consumes [0]"),
    ("connections", "N", CLIENT, "connections: pub's producers, else consumers [1]"),
    ("producers", "N", &[SUB, E2E], "producing connections, for sub those of --fill [1]"),
    ("batch", "N", LOAD, "messages per MPUB, 1 for PUB [200; e2e: 1]"),
    ("body-size", "BYTES", &[PUB, SUB, E2E, SINK], "bytes of a body, for e2e at least 16 [200]"),
    ("rate", "N", &[PUB, E2E], "messages per second over all producers, 0 for as many as possible [0; e2e: 1000]"),
    ("duration", "SECONDS", CLIENT, "length of the measurement [10, or until --count]"),
    ("count", "N", LOAD, "messages to measure; publishes whole batches [0: no limit; sub: --fill]"),
    ("warm-up", "SECONDS", LOAD, "load before the measurement [0; e2e: 1]"),
    ("rdy", "N", READING, "RDY of each consumer [200]"),
    ("depth", "N", LOAD, "unanswered PUBs or MPUBs of a connection [4; with --batch 1: 64]"),
    ("fill", "N", &[SUB], "messages to publish before consuming, in whole batches [0]"),
    ("topics", "N", &[IDLE], "topics to spread the connections over, 0 to subscribe to nothing [1]"),
    ("pid", "PID", CLIENT, "nsqd's process, for its CPU time, memory and context switches"),
    ("output-buffer-timeout", "MS", READING, "as in IDENTIFY, -1 for none [nsqd's own]"),
    ("output-buffer-size", "BYTES", READING, "as in IDENTIFY, -1 for none [nsqd's own]"),
    ("json", "", CLIENT, "print one JSON object, not a table"),
];

const COMMANDS: &[(&str, Command, &str)] = &[
    ("pub", PUB, "publish and wait for the OKs"),
    ("sub", SUB, "consume and FIN, after publishing --fill messages"),
    ("e2e", E2E, "publish on a fixed schedule and consume: latency from the scheduled time"),
    ("idle", IDLE, "open connections and topics and hold them: what nothing costs"),
    ("sink", SINK, "be a server that only moves bytes, the ceiling for pub and sub; runs until it is killed"),
];

impl Options {
    /// Parses arguments, without the program's name.
    pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Request> {
        let mut parser = Parser::from_args(arguments);
        let mut options = match parser.next()? {
            Some(Arg::Value(name)) => Self::new(command(&name.string()?)?),
            Some(Arg::Long("version")) => return Ok(Request::Version),
            Some(Arg::Long("help") | Arg::Short('h')) => return Ok(Request::Help),
            _ => bail!("name a command first: {}", names()),
        };
        while let Some(argument) = parser.next()? {
            let name = match argument {
                Arg::Long("help") | Arg::Short('h') => return Ok(Request::Help),
                Arg::Long(name) => name.to_owned(),
                other => return Err(other.unexpected().into()),
            };
            let Some((_, value, commands, _)) = TABLE.iter().find(|row| row.0 == name) else {
                bail!("--{name} is unknown; see --help");
            };
            if !commands.contains(&options.command) {
                bail!("--{name} has no effect on this command; see --help");
            }
            let value = if value.is_empty() { String::new() } else { parser.value()?.string()? };
            options.set(&name, &value).with_context(|| format!("--{name} {value:?}"))?;
        }
        options.complete()?;
        Ok(Request::Run(Box::new(options)))
    }

    fn new(command: Command) -> Self {
        let e2e = command == Command::E2e;
        Self {
            command,
            address: "127.0.0.1:4150".to_owned(),
            topic: "bench".to_owned(),
            channel: "bench".to_owned(),
            connections: 1,
            producers: 1,
            batch: if e2e { 1 } else { 200 },
            body_size: 200,
            rate: if e2e { 1000 } else { 0 },
            duration: None,
            count: 0,
            warm_up: Duration::from_secs(e2e.into()),
            rdy: 200,
            depth: 0,
            fill: 0,
            topics: 1,
            channels: 0,
            pid: None,
            identify: Identify::default(),
            json: false,
        }
    }

    fn set(&mut self, name: &str, value: &str) -> Result<()> {
        match name {
            "nsqd-tcp-address" => self.address = value.to_owned(),
            "topic" => self.topic = word(value)?,
            "channel" => self.channel = word(value)?,
            "connections" => self.connections = positive(value)?,
            "producers" => self.producers = positive(value)?,
            "batch" => self.batch = positive(value)?,
            "body-size" => self.body_size = positive(value)?,
            "rate" => self.rate = number(value)?,
            "duration" => self.duration = Some(seconds(value)?),
            "count" => self.count = number(value)?,
            "warm-up" => self.warm_up = seconds(value)?,
            "rdy" => self.rdy = number(value)?,
            "depth" => self.depth = positive(value)?,
            "fill" => self.fill = number(value)?,
            "topics" => self.topics = number(value)?,
            "channels" => self.channels = number(value)?,
            "pid" => self.pid = Some(number(value)?),
            "output-buffer-timeout" => self.identify.output_buffer_timeout = Some(number(value)?),
            "output-buffer-size" => self.identify.output_buffer_size = Some(number(value)?),
            "json" => self.json = true,
            other => bail!("--{other} is in the table but not understood"),
        }
        Ok(())
    }

    /// Fills in what depends on other options, and refuses what cannot be run.
    fn complete(&mut self) -> Result<()> {
        if self.depth == 0 {
            self.depth = if self.batch == 1 { 64 } else { 4 };
        }
        if self.count == 0 {
            self.count = self.fill;
        }
        if self.count == 0 {
            self.duration.get_or_insert(Duration::from_secs(10));
        }
        if self.command == Command::E2e && self.body_size < super::publisher::STAMP {
            bail!("--body-size must be at least {} for e2e: the body carries its time", super::publisher::STAMP);
        }
        if self.batch.saturating_mul(4 + self.body_size) > i32::MAX as usize - 4 {
            bail!("--batch {} of --body-size {} is more than an MPUB can carry", self.batch, self.body_size);
        }
        if self.fill > 0 && self.count > self.fill {
            bail!("--count {} is more than --fill {}", self.count, self.fill);
        }
        if self.command != Command::Idle && self.rdy == 0 {
            bail!("--rdy 0 would receive nothing");
        }
        Ok(())
    }
}

/// The text for `--help`.
pub fn help() -> String {
    let mut text = String::from(
        "nsq_bench measures any nsqd over TCP.\n\nUsage: nsq_bench COMMAND [--option value]...\n\nCommands:\n",
    );
    for (name, _, what) in COMMANDS {
        text += &format!("  {name:<6}{what}\n");
    }
    text += "\nOptions, each with the commands that take it:\n";
    for (name, value, commands, what) in TABLE {
        let takers: Vec<_> = COMMANDS.iter().filter(|row| commands.contains(&row.1)).map(|row| row.0).collect();
        let takers = if commands.len() == ALL.len() { "all".to_owned() } else { takers.join(" ") };
        text += &format!("  {:<30} {takers:<17} {what}\n", format!("--{name} {value}"));
    }
    text
}

/// The commands' names.
fn names() -> String {
    COMMANDS.iter().map(|row| row.0).collect::<Vec<_>>().join(", ")
}

fn command(name: &str) -> Result<Command> {
    let row = COMMANDS.iter().find(|row| row.0 == name);
    row.map(|row| row.1).with_context(|| format!("{name:?} is no command; there are {}", names()))
}

fn number<T: FromStr>(value: &str) -> Result<T> {
    value.parse().ok().context("is no number that fits")
}

fn positive(value: &str) -> Result<usize> {
    match number(value)? {
        0 => bail!("must be at least 1"),
        number => Ok(number),
    }
}

fn seconds(value: &str) -> Result<Duration> {
    let seconds: f64 = number(value)?;
    Duration::try_from_secs_f64(seconds).context("is no number of seconds, like 10 or 0.5")
}

/// A name as a parameter of a command; whether it is a valid one is nsqd's to say.
fn word(value: &str) -> Result<String> {
    if value.is_empty() || value.contains(|letter: char| letter.is_whitespace() || letter.is_control()) {
        bail!("must not be empty nor have blanks in it");
    }
    Ok(value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options> {
        match Options::parse(line.split_whitespace().map(OsString::from))? {
            Request::Run(options) => Ok(*options),
            _ => bail!("not a run"),
        }
    }

    #[test]
    fn every_option_of_the_table_is_understood_by_its_commands_only() {
        for (name, command, _) in COMMANDS {
            for (option, value, takers, _) in TABLE {
                let value = if value.is_empty() { "" } else { "20" };
                // A count makes sense for `sub` only up to what it fills in.
                let fill = if *name == "sub" { "--fill 20" } else { "" };
                let result = parse(&format!("{name} {fill} --{option} {value}"));
                assert_eq!(result.is_ok(), takers.contains(command), "{name} --{option}: {result:?}");
            }
        }
    }

    #[test]
    fn defaults_follow_the_command() {
        let options = parse("pub --batch 1").unwrap();
        assert_eq!((options.depth, options.rate, options.duration), (64, 0, Some(Duration::from_secs(10))));
        let options = parse("sub --fill=1000").unwrap();
        assert_eq!((options.count, options.duration), (1000, None));
        let options = parse("e2e --duration 2.5").unwrap();
        assert_eq!((options.batch, options.rate, options.duration), (1, 1000, Some(Duration::from_millis(2500))));
    }

    #[test]
    fn what_cannot_run_is_refused() {
        for (line, words) in [
            ("", "command"),
            ("publish", "\"publish\" is no command"),
            ("pub --speed 9", "--speed is unknown"),
            ("pub --rdy 9", "no effect"),
            ("pub --batch 0", "--batch \"0\""),
            ("pub --duration -1", "--duration \"-1\""),
            ("e2e --body-size 8", "at least 16"),
            ("sub --fill 10 --count 20", "more than --fill"),
            ("sub --rdy 0", "--rdy 0"),
            ("pub extra", "extra"),
        ] {
            let error = format!("{:#}", parse(line).unwrap_err());
            assert!(error.contains(words), "{line}: {error}");
        }
        assert!(word("two words").is_err() && word("line\nend").is_err() && word("").is_err());
    }
}
