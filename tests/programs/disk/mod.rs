//! What is safe when: nsqd killed, ended, out of disk, on damaged files. With the real binary on real file systems.
//!
//! In here is what these tests share: an nsqd with a data directory that outlives it, bodies that tell their number and
//! whether a byte of them has changed, and clients that do not care about errors of a server that is about to die.

mod clean_exit;
mod damage;
mod deletion;
mod full;
mod kill;
mod ledger;
mod restart;

use crate::program::{PATIENCE, Program, answer, http};
use nsq_net::client::plain::{Consumer, Event, Producer, Published};
use rustix::process::Signal;
use serde_json::Value;
use std::fs;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// A running nsqd.
struct Nsqd {
    program: Program,
    tcp: String,
    web: String,
}

impl Nsqd {
    /// Starts it on `data` in `dir`, where its log goes too, and waits until it serves.
    fn start(dir: &Path, flags: &[&str]) -> Self {
        Self::serving(Program::start(command(dir, flags), dir))
    }

    fn serving(mut program: Program) -> Self {
        let (tcp, web) = program.addresses();
        let nsqd = Self { program, tcp, web };
        nsqd.wait_for("answer to /ping", |nsqd| answer("GET", &nsqd.web, "/ping", "").ok());
        nsqd
    }

    fn log(&self) -> String {
        self.program.stderr()
    }

    /// Waits until `look` sees what it looks for, asking not too often.
    fn wait_for<T>(&self, what: &str, mut look: impl FnMut(&Self) -> Option<T>) -> T {
        let start = Instant::now();
        loop {
            match look(self) {
                Some(found) => return found,
                None => assert!(start.elapsed() < PATIENCE, "no {what}; the log:\n{}", self.log()),
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// SIGKILL.
    fn kill(self) {
        self.program.kill();
    }

    /// SIGTERM; it must end in order. Its log.
    fn stop(mut self) -> String {
        self.program.signal(Signal::TERM);
        let status = self.program.status();
        assert_eq!(status, 0, "{}", self.log());
        self.log()
    }

    /// Status and text of `/ping`.
    fn ping(&self) -> (u16, String) {
        answer("GET", &self.web, "/ping", "").unwrap()
    }

    /// What `/stats` says of a topic; null if there is none.
    fn stats(&self, topic: &str) -> Value {
        let topic = topic.replace('#', "%23");
        let target = format!("/stats?format=json&include_clients=false&include_mem=false&topic={topic}");
        let stats: Value = serde_json::from_str(&http("GET", &self.web, &target, "").unwrap()).unwrap();
        stats["topics"][0].clone()
    }

    /// Messages waiting, in flight and deferred in a channel.
    fn counts(&self, topic: &str, channel: &str) -> [u64; 3] {
        let stats = self.stats(topic);
        let channels = stats["channels"].as_array().map_or(&[][..], Vec::as_slice);
        let found = channels.iter().find(|it| it["channel_name"] == channel);
        let found = found.unwrap_or_else(|| panic!("no channel {channel}: {stats}\n{}", self.log()));
        ["depth", "in_flight_count", "deferred_count"].map(|field| found[field].as_u64().unwrap())
    }

    fn post(&self, target: &str) {
        assert_eq!(http("POST", &self.web, target, "").unwrap(), "", "{target}");
    }

    /// Makes a topic, if there is none, and a channel.
    fn create(&self, topic: &str, channel: &str) {
        self.post(&format!("/topic/create?topic={topic}"));
        self.post(&format!("/channel/create?topic={topic}&channel={channel}"));
    }

    async fn producer(&self) -> Producer {
        Producer::connect(&self.tcp, None).await.unwrap()
    }

    async fn consumer(&self, topic: &str, channel: &str, ready: u32) -> Consumer {
        let mut consumer = Consumer::connect(&self.tcp, None, topic, channel).await.unwrap();
        consumer.ready(ready);
        consumer
    }

    /// The numbers of the messages that wait in a channel, each finished, in ascending order.
    async fn drain(&self, topic: &str, channel: &str) -> Vec<u64> {
        let mut consumer = self.consumer(topic, channel, 100).await;
        let mut numbers = Vec::new();
        while self.counts(topic, channel) != [0; 3] {
            let quiet = Duration::from_millis(100);
            while let Ok(event) = tokio::time::timeout(quiet, consumer.next()).await {
                let Event::Message(message) = event.unwrap() else { panic!("not a message") };
                numbers.push(number(&message.body));
                consumer.finish(message.id);
            }
        }
        numbers.sort_unstable();
        numbers
    }
}

/// The command that starts nsqd.
fn command(dir: &Path, flags: &[&str]) -> Command {
    fs::create_dir_all(dir.join("data")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_nsqd"));
    command.args(["-tcp-address=127.0.0.1:0", "-http-address=127.0.0.1:0", "-https-address=", "-data-path=data"]);
    command.args(flags);
    command
}

/// Runs clients to their end, which must come soon.
fn run<T>(clients: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(2 * PATIENCE, clients).await.expect("clients come to an end") })
}

/// The directory of a topic, which must have exactly one.
fn directory(dir: &Path, topic: &str) -> PathBuf {
    let found = directories(dir, topic);
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].clone()
}

/// All directories of a topic of a plain name, deleted ones too.
fn directories(dir: &Path, topic: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir.join("data/topics")) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(&format!("{topic}."))).collect()
}

/// Files of a directory that end so, in the order of their numbers.
fn files(directory: &Path, suffix: &str) -> Vec<PathBuf> {
    let paths = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<_> = paths.filter(|path| path.to_str().unwrap().ends_with(suffix)).collect();
    found.sort();
    found
}

/// A body that begins with its number; what follows, and how much, is told by the number too.
fn body(number: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(number);
    let length = if random.u32(..200) == 0 { 100_000 } else { random.usize(..300) };
    sized(number, length)
}

/// A body that begins with its number and goes on with so many bytes that are told by the number.
fn sized(number: u64, length: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(!number);
    let mut body = number.to_be_bytes().to_vec();
    body.resize(8 + length, 0);
    random.fill(&mut body[8..]);
    body
}

/// The number of a body, no byte of which may have changed.
fn number(bytes: &[u8]) -> u64 {
    let number = u64::from_be_bytes(bytes[..8].try_into().unwrap());
    assert!(bytes == sized(number, bytes.len() - 8), "the body of {number} has changed");
    number
}

async fn publish(producer: &mut Producer, topic: &str, numbers: impl Iterator<Item = u64>, length: usize) {
    for number in numbers {
        let published = producer.publish(topic, &sized(number, length), Duration::ZERO).await.unwrap();
        assert_eq!(published, Published::Accepted);
    }
}
