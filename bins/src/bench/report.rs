//! What a run prints: an aligned table, or one JSON object with the same figures under the same names.
//!
//! The rule: a figure's name carries its unit, and everything needed to repeat the run (machine, server, parameters) is
//! part of the report.

use super::connection::Server;
use super::measure::Measured;
use super::options::{Command, Options};
use super::process::{self, Cost};
use hdrhistogram::Histogram;
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Value;
use std::fmt;
use std::time::Duration;

/// Sections of named figures, in the order in which they are shown.
#[derive(Default)]
pub(super) struct Report(Vec<(&'static str, Section)>);

/// Names and figures, in order.
#[derive(Default)]
pub(super) struct Section(Vec<(String, Value)>);

impl Report {
    /// A report that begins with the machine, the server and the parameters.
    pub(super) fn new(options: &Options, server: &Server) -> Self {
        let mut report = Self::default();
        report.section("machine").extend([
            ("cores", std::thread::available_parallelism().map_or(0, usize::from).into()),
            ("processor", Value::from(process::processor())),
            ("kernel", process::kernel().into()),
            ("nsq_bench", env!("CARGO_PKG_VERSION").into()),
            ("profile", if cfg!(debug_assertions) { "debug" } else { "release" }.into()),
        ]);
        let section = report.section("server");
        section.extend([
            ("address", options.address.clone().into()),
            ("version", Value::from(server.version.clone())),
            ("output_buffer_size", server.output_buffer_size.into()),
            ("output_buffer_timeout_ms", server.output_buffer_timeout.into()),
        ]);
        if let Some(pid) = options.pid {
            section.extend([("command", process::command_line(pid).into())]);
        }
        report.section("parameters").parameters(options);
        report
    }

    /// Begins a section.
    pub(super) fn section(&mut self, name: &'static str) -> &mut Section {
        self.0.push((name, Section::default()));
        let last = self.0.len() - 1;
        &mut self.0[last].1
    }
}

impl Section {
    /// Adds figures.
    pub(super) fn extend<'a>(&mut self, rows: impl IntoIterator<Item = (&'a str, Value)>) {
        self.0.extend(rows.into_iter().map(|(name, value)| (name.to_owned(), value)));
    }

    /// Throughput: `messages` with bodies of `bytes` together in the measured time.
    pub(super) fn rate(&mut self, measured: &Measured, messages: u64, bytes: u64) {
        let seconds = measured.elapsed.as_secs_f64();
        let per_second = messages as f64 / seconds;
        self.extend([
            ("seconds", float(seconds)),
            ("messages", messages.into()),
            ("messages_per_second", float(per_second)),
            ("megabytes_per_second", float(bytes as f64 / seconds / 1e6)),
        ]);
    }

    /// What `messages` cost the server and this client.
    pub(super) fn costs(&mut self, measured: &Measured, messages: u64) {
        for (who, cost) in [("server", &measured.server), ("client", &measured.client)] {
            if let Some(cost) = cost {
                self.cost(who, cost, measured.elapsed);
                self.row(format!("{who}_cpu_us_per_message"), float(micros(cost.cpu) / messages as f64));
                self.row(format!("{who}_growth_bytes_per_message"), float(cost.growth as f64 / messages as f64));
            }
        }
    }

    /// What a process cost in a time.
    pub(super) fn cost(&mut self, who: &str, cost: &Cost, elapsed: Duration) {
        let seconds = elapsed.as_secs_f64();
        let switches = |count: u64| float(count as f64 / seconds);
        self.row(format!("{who}_cpu_percent"), float(100.0 * cost.cpu.as_secs_f64() / seconds));
        self.row(format!("{who}_rss_mb"), float(cost.after.rss as f64 / 1e6));
        self.row(format!("{who}_peak_rss_mb"), float(cost.after.peak_rss as f64 / 1e6));
        self.row(format!("{who}_threads"), cost.after.threads.into());
        self.row(format!("{who}_voluntary_switches_per_second"), switches(cost.voluntary_switches));
        self.row(format!("{who}_involuntary_switches_per_second"), switches(cost.involuntary_switches));
    }

    /// The percentiles of a histogram of nanoseconds; nothing if it is empty.
    pub(super) fn percentiles(&mut self, what: &str, histogram: &Histogram<u64>) {
        if histogram.is_empty() {
            return;
        }
        for (name, quantile) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)] {
            self.row(format!("{what}_{name}_us"), float(histogram.value_at_quantile(quantile) as f64 / 1e3));
        }
        self.row(format!("{what}_mean_us"), float(histogram.mean() / 1e3));
    }

    fn parameters(&mut self, options: &Options) {
        let command = options.command;
        let name = match command {
            Command::Pub => "pub",
            Command::Sub => "sub",
            Command::E2e => "e2e",
            Command::Idle => "idle",
            Command::Sink => "sink",
        };
        self.extend([("command", Value::from(name)), ("topic", options.topic.clone().into())]);
        if command != Command::Pub {
            self.extend([("channel", Value::from(options.channel.clone())), ("rdy", options.rdy.into())]);
        }
        self.extend([
            ("connections", Value::from(options.connections)),
            ("duration_seconds", options.duration.map_or(Value::Null, |duration| float(duration.as_secs_f64()))),
        ]);
        if command == Command::Idle {
            return self.extend([("topics", options.topics.into())]);
        }
        self.extend([("count", options.count.into()), ("warm_up_seconds", float(options.warm_up.as_secs_f64()))]);
        if command == Command::Sub {
            self.extend([("fill", options.fill.into())]);
            if options.fill == 0 {
                return;
            }
        }
        if command != Command::Pub {
            self.extend([("producers", options.producers.into())]);
        }
        self.extend([
            ("batch", Value::from(options.batch)),
            ("body_bytes", options.body_size.into()),
            ("depth", options.depth.into()),
        ]);
        if command != Command::Sub {
            self.extend([("rate", options.rate.into())]);
        }
        if command == Command::Pub {
            self.extend([("channels", options.channels.into())]);
        }
    }

    fn row(&mut self, name: String, value: Value) {
        self.0.push((name, value));
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = || self.0.iter().flat_map(|(_, section)| &section.0);
        let names = rows().map(|(name, _)| name.len()).max().unwrap_or(0);
        let numbers = rows().filter(|(_, value)| !value.is_string()).map(|(_, value)| value.to_string().len()).max();
        for (index, (title, section)) in self.0.iter().enumerate() {
            writeln!(out, "{}{title}", if index == 0 { "" } else { "\n" })?;
            for (name, value) in &section.0 {
                let name = name.replace('_', " ");
                match value {
                    Value::String(text) => writeln!(out, "  {name:names$}  {text}")?,
                    number => writeln!(out, "  {name:names$}  {:>1$}", number.to_string(), numbers.unwrap_or(0))?,
                }
            }
        }
        Ok(())
    }
}

impl Serialize for Report {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (title, section) in &self.0 {
            map.serialize_entry(title, section)?;
        }
        map.end()
    }
}

impl Serialize for Section {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

/// A figure with as many digits as mean something; null if there is none (nothing was counted).
pub(super) fn float(number: f64) -> Value {
    let digits = if number.abs() < 10.0 { 1e4 } else { 1e1 };
    Value::from((number * digits).round() / digits)
}

/// A time in microseconds.
pub(super) fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_and_json_show_the_same_in_order() {
        let mut report = Report::default();
        report.section("machine").extend([("cores", 2.into()), ("processor", "Name".into())]);
        report.section("results").extend([("latency_p99.9_us", float(1234.5678)), ("cpu_us", float(0.055_123))]);
        assert_eq!(
            report.to_string(),
            "machine\n  cores                  2\n  processor         Name\n\nresults\n  latency p99.9 us  1234.6\n  cpu us            0.0551\n"
        );
        assert_eq!(
            serde_json::to_string(&report).unwrap(),
            r#"{"machine":{"cores":2,"processor":"Name"},"results":{"latency_p99.9_us":1234.6,"cpu_us":0.0551}}"#
        );
    }

    #[test]
    fn no_division_by_nothing_gets_into_json() {
        assert_eq!(float(f64::INFINITY), Value::Null);
        assert_eq!(float(f64::NAN), Value::Null);
    }
}
