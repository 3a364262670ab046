//! A machine with an nsqd: its disk and clock outlive its processes.

use super::machine::SkewedClock;
use super::risk::Message;
use super::{Cluster, Directory, Machine, Slot, lock};
use crate::disk::SimDisk;
use crate::runner::Sim;
use bytes::Bytes;
use madsim::time::sleep;
use nsq_core::message::PAYLOAD_HEADER;
use nsq_core::name::TopicName;
use nsq_core::options::Options;
use nsq_core::storage::names::{self, TOPICS};
use nsq_core::topic::stats::{ChannelStats, ConsumerStats};
use nsq_net_sim::broker::Broker;
use nsq_net_sim::durable::Durable;
use nsq_net_sim::env::Env;
use nsq_net_sim::http::{Identity, Patience};
use nsq_net_sim::server::{Config, Listeners, Lost, Server};
use nsq_sim_rt::sync::Notify;
use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// See the module's documentation. Clones are the same machine.
#[derive(Clone)]
pub struct Nsqd {
    /// Its power and its process.
    pub machine: Machine,
    /// Its disk.
    pub disk: SimDisk,
    /// What it is started with.
    pub(super) config: NsqdConfig,
    sim: Sim,
    shared: Shared,
}

/// What an nsqd is started with.
#[derive(Clone, Debug)]
pub struct NsqdConfig {
    /// Protocol and queues.
    pub options: Options,
    /// `--mem-queue-bytes`
    pub mem_queue_bytes: usize,
    /// `--durable`
    pub durable: bool,
    /// The addresses of the nsqlookupds it registers with.
    pub lookupds: Vec<String>,
}

impl Default for NsqdConfig {
    fn default() -> Self {
        Self { options: Options::default(), mem_queue_bytes: 1 << 30, durable: false, lookupds: Vec::new() }
    }
}

impl NsqdConfig {
    /// What it is counted as when such an nsqd makes a segment, if it had to: more came than it may keep in memory, and
    /// the file will soon be full.
    fn overflow(&self) -> Option<&'static str> {
        let is_forced = !self.durable && self.options.max_bytes_per_file <= TINY;
        let size = [0, 2].into_iter().position(|size| size == self.options.mem_queue_size);
        size.filter(|_| is_forced).map(|size| OVERFLOWS[size])
    }
}

/// What the processes and the scenario share.
#[derive(Clone, Default)]
struct Shared {
    /// Of the process that is alive.
    broker: Slot<Broker>,
    /// What the process that died last had left to the page cache.
    unsynced: Arc<Mutex<Vec<Message>>>,
    /// How far the process that was started last has come.
    stage: Arc<Mutex<Stage>>,
    /// Topics of which it may have messages twice.
    doubles: Arc<Mutex<BTreeSet<String>>>,
    /// An operator wants it to end.
    end: Arc<Mutex<Arc<Notify>>>,
}

/// How far a process has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Starting,
    /// The disk did not tell what there is.
    Refused,
    /// It serves; whether nothing has failed until then.
    Serving { is_sound: bool },
}

/// A timer is forgotten if it has been due for so long: the runtime's own are exact to a millisecond.
const OVERDUE: Duration = Duration::from_millis(5);
/// With a `--mem-queue-size` of 0, and of 2: what a sweep has to have seen.
pub const OVERFLOWS: [&str; 2] = ["overflows_of_0", "overflows_of_2"];
/// A segment of so many bytes is soon full.
const TINY: u64 = 16 << 10;
const TCP_PORT: u16 = 4150;
const HTTP_PORT: u16 = 4151;

impl Cluster {
    /// A new machine with an nsqd.
    pub fn nsqd(&self, name: &str, config: NsqdConfig) -> Nsqd {
        let (shared, clock) = (Shared::default(), SkewedClock::default());
        let machine_clock = clock.clone();
        let seed = self.sim.seed() ^ name.bytes().fold(0, |mixed: u64, byte| mixed.wrapping_mul(31) + u64::from(byte));
        if config.durable {
            self.ledger.open().durable.insert(name.to_owned());
        }
        let (sim, overflow) = (self.sim.clone(), config.overflow());
        let disk = SimDisk::new(seed, move |what, times| {
            sim.count(what, times);
            if let Some(overflow) = overflow.filter(|_| what == "segments_made") {
                sim.count(overflow, times);
            }
        });
        let start = {
            let (shared, sim, config) = (shared.clone(), self.sim.clone(), config.clone());
            let (name, disk) = (name.to_owned(), disk.clone());
            move || {
                let env = Env { wall: clock.wall(), seed, disk: Arc::new(disk.clone()) };
                serve(name.clone(), sim.clone(), shared.clone(), config.clone(), disk.clone(), env)
            }
        };
        let node = self.sim.net().node(name).run(start);
        let machine = Machine::new(&self.sim, name, node, machine_clock);
        Nsqd { machine, disk, config, sim: self.sim.clone(), shared }
    }

    /// Ends its process in order, as an operator's SIGTERM does.
    ///
    /// # Panics
    /// If it does not end.
    pub async fn end(&self, nsqd: &Nsqd) {
        let broker = nsqd.broker().expect("only what runs can be ended");
        self.bury(nsqd, true);
        lock(&nsqd.shared.end).notify_one();
        for _ in 0..1000 {
            if nsqd.broker().is_none() {
                drop(broker);
                // Its sockets have been closed; a machine without a process keeps nothing else. What a clean end leaves
                // to the disk is on the medium.
                nsqd.machine.ended();
                nsqd.disk.end();
                self.sim.count("clean_ends", 1);
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
        panic!("{} does not end", nsqd.machine.name);
    }
}

impl Nsqd {
    /// Where clients connect.
    pub fn address(&self) -> String {
        format!("{}:{TCP_PORT}", self.machine.name)
    }

    /// Where operators ask, and what they call it when they talk of it to nsqlookupd.
    pub(super) fn http_address(&self) -> String {
        format!("{}:{HTTP_PORT}", self.machine.name)
    }

    /// The broker of the process that is alive and serving.
    pub fn broker(&self) -> Option<Arc<Broker>> {
        lock(&self.shared.broker).clone()
    }

    /// Its topics and channels; `None` while it is dead.
    pub fn directory(&self) -> Option<Directory> {
        let topics = self.broker()?.topic_stats(None, None, false);
        let names = topics.iter().flat_map(|topic| {
            let channels = topic.channels.iter().map(|channel| Some(channel.name.to_string()));
            [None].into_iter().chain(channels).map(|channel| (topic.name.to_string(), channel))
        });
        Some(names.collect())
    }

    /// How many messages of the channel the consumers on that machine hold; `None` if there is none connected.
    pub fn in_flight(&self, topic: &str, channel: &str, consumer: &Machine) -> Option<u32> {
        let address = self.sim.net().ip(consumer.node).to_string();
        let stats = self.broker()?.topic_stats(Some(topic), Some(channel), true);
        let channels = stats.iter().flat_map(|topic| &topic.channels);
        let is_there = |client: &&ConsumerStats| {
            client.client.remote_address.rsplit_once(':').is_some_and(|(ip, _)| ip == address)
        };
        let clients = channels.flat_map(|channel| &channel.clients).filter(is_there);
        clients.map(|client| client.in_flight_count).reduce(|sum, count| sum + count)
    }

    /// What it still holds, if anything, or that it is down.
    pub fn undrained(&self) -> Option<String> {
        let name = &self.machine.name;
        let Some(broker) = self.broker() else { return Some(format!("{name} is down")) };
        let topics = broker.topic_stats(None, None, false);
        let held = topics.iter().find(|topic| topic.depth + topic.channels.iter().map(queued_in).sum::<u64>() > 0);
        held.map(|topic| format!("{name}: {topic:?}")).or_else(|| {
            let used = broker.budget().used();
            (used > 0).then(|| format!("{name}: {used} bytes are held for nobody"))
        })
    }

    /// A file or directory that is there for nobody if nothing is queued, or that it is down.
    pub fn left_on_disk(&self) -> Option<String> {
        let name = &self.machine.name;
        let Some(broker) = self.broker() else { return Some(format!("{name} is down")) };
        let topics: BTreeSet<_> = broker.topic_stats(None, None, false).into_iter().map(|topic| topic.name).collect();
        self.unneeded_file(&topics).map(|left| format!("{name}: {left} is left on disk"))
    }

    fn unneeded_file(&self, topics: &BTreeSet<TopicName>) -> Option<String> {
        let mut seen = BTreeSet::new();
        self.disk.list(TOPICS).into_iter().map(|found| found.name).find_map(|directory| {
            let topic = names::parse_directory(&directory).map(|(topic, _)| topic);
            let is_live = topic.is_some_and(|topic| topics.contains(&topic) && seen.insert(topic));
            let files = self.disk.list(&format!("{TOPICS}/{directory}"));
            let is_obsolete = |name: &str| !is_live || name.ends_with(".log") || name.ends_with(".tmp");
            let left = files.into_iter().map(|found| found.name).find(|name| is_obsolete(name));
            left.map(|name| format!("{directory}/{name}")).or_else(|| (!is_live).then(|| directory.clone()))
        })
    }

    /// The lengths of its segments.
    pub fn segments(&self) -> Vec<u64> {
        let files = self.disk.files().into_iter();
        files.filter(|(name, _)| name.ends_with(".log")).map(|(_, length)| length).collect()
    }

    /// Whether it says that its disk can be relied upon, as `/ping` does.
    ///
    /// # Errors
    /// If not, or if it is down.
    pub fn health(&self) -> Result<(), String> {
        self.broker().map_or_else(|| Err("it is down".into()), |broker| broker.health())
    }

    /// How many messages each channel has, and each topic that it has not given to channels.
    pub fn queued(&self) -> BTreeMap<(String, Option<String>), u64> {
        let topics = self.broker().map(|broker| broker.topic_stats(None, None, false)).unwrap_or_default();
        let queued = topics.iter().flat_map(|topic| {
            let channels = topic.channels.iter().map(|it| (Some(it.name.to_string()), queued_in(it)));
            let all = [(None, topic.depth)].into_iter().chain(channels);
            all.map(|(channel, count)| ((topic.name.to_string(), channel), count))
        });
        queued.collect()
    }

    /// How many messages of channels its process has found damaged, or missing, on disk.
    pub fn lost(&self) -> u64 {
        let topics = self.broker().map(|broker| broker.topic_stats(None, None, false)).unwrap_or_default();
        topics.iter().flat_map(|topic| &topic.channels).map(|channel| channel.lost).sum()
    }

    /// All invariants of all its topics hold, and no timer is overdue.
    ///
    /// # Panics
    /// If not.
    pub fn check(&self) {
        let Some(broker) = self.broker() else { return };
        let now = broker.now().instant;
        broker.inspect(|topic| {
            topic.check();
            let overdue = topic.deadline().map_or(Duration::ZERO, |deadline| now.since(deadline));
            assert!(overdue < OVERDUE, "a timer of {} is overdue by {overdue:?}", topic.name());
        });
    }

    /// The bodies of a topic that it holds: those of the channel and those not given to channels yet, or all; nothing
    /// if some of that is not in memory. And those in memory that the channel was given.
    pub(super) fn held(&self, topic: &str, channel: Option<&str>) -> (Option<BTreeSet<Bytes>>, BTreeSet<Bytes>) {
        let (mut held, mut given) = (BTreeSet::new(), BTreeSet::new());
        let (mut queued, mut seen) = (0, 0);
        let Some(broker) = self.broker() else { return (None, given) };
        broker.inspect(|machine| {
            if machine.name().to_string() != topic {
                return;
            }
            let stats = machine.stats(None, false);
            queued = stats.depth + stats.channels.iter().map(queued_in).sum::<u64>();
            machine.held(|place, payload| {
                seen += 1;
                let body = Bytes::copy_from_slice(&payload[PAYLOAD_HEADER..]);
                let is_its = channel.zip(place).map(|(channel, place)| place.to_string() == channel);
                if is_its == Some(true) {
                    given.insert(body.clone());
                }
                if is_its != Some(false) {
                    held.insert(body);
                }
            });
        });
        ((seen == queued).then_some(held), given)
    }

    /// Whether messages of the topic may come twice: a process has lost the journal that told which copy is the one, or
    /// has had to guess how many messages were in a gap, and all that came after it go on with that.
    pub fn has_doubles(&self, topic: &str) -> bool {
        lock(&self.shared.doubles).contains(topic)
    }

    pub(super) fn leave_unsynced(&self, messages: Vec<Message>) {
        *lock(&self.shared.unsynced) = messages;
    }

    pub(super) fn unsynced(&self) -> Vec<Message> {
        lock(&self.shared.unsynced).clone()
    }

    pub(super) fn gone(&self) {
        *lock(&self.shared.broker) = None;
    }

    /// What can be had of its process is on its way.
    pub(super) fn is_starting(&self) -> bool {
        self.machine.is_up() && *lock(&self.shared.stage) == Stage::Starting
    }

    /// What its process found when it started was all there is, and is safe.
    pub(super) fn has_started_soundly(&self) -> bool {
        *lock(&self.shared.stage) == Stage::Serving { is_sound: true }
    }

    /// Whether there is a bound on what a crash may take of it: its disk has always been sound, and it may lose
    /// something.
    pub(super) fn is_accountable(&self) -> bool {
        !self.config.durable && self.disk.is_sound()
    }
}

fn queued_in(channel: &ChannelStats) -> u64 {
    channel.depth + (channel.in_flight_count + channel.deferred_count) as u64
}

async fn serve(name: String, sim: Sim, shared: Shared, config: NsqdConfig, disk: SimDisk, env: Env) {
    *lock(&shared.stage) = Stage::Starting;
    let end = Arc::new(Notify::new());
    *lock(&shared.end) = Arc::clone(&end);
    let identity = Identity {
        broadcast_address: name.clone(),
        hostname: name.clone(),
        tcp_port: TCP_PORT,
        http_port: HTTP_PORT,
        ..Identity::default()
    };
    let config = Config {
        options: config.options,
        mem_queue_bytes: config.mem_queue_bytes,
        durable: Durable { all: config.durable, patterns: Vec::new() },
        lookupd_tcp_addresses: config.lookupds,
        http_client: Patience::default(),
        identity,
        settings: BTreeMap::new(),
    };
    let (tcp, http) = (format!("0.0.0.0:{TCP_PORT}"), format!("0.0.0.0:{HTTP_PORT}"));
    let listeners = Listeners::bind(&tcp, &http).await.expect("the machine is its own");
    let server = match Server::start(listeners, config, env).await {
        Ok(server) => server,
        Err(error) => {
            assert!(disk.unsure() > 0, "{name} does not start: {error}");
            tracing::info!("does not start: {error}");
            sim.count("refused_starts", 1);
            *lock(&shared.stage) = Stage::Refused;
            return pending().await;
        }
    };
    let broker = Arc::clone(server.broker());
    broker.inspect(|topic| {
        // A durable topic relies on nothing that a power cut may have torn.
        let has_gaps = topic.has_gaps() && (!topic.is_durable() || disk.is_rotten());
        if topic.has_doubles() || has_gaps {
            lock(&shared.doubles).insert(topic.name().to_string());
        }
    });
    *lock(&shared.stage) = Stage::Serving { is_sound: disk.unsure() == 0 };
    *lock(&shared.broker) = Some(Arc::clone(&broker));
    end.notified().await;
    let lost = server.stop().await;
    assert_eq!(lost, Lost::default(), "{name} loses nothing at a clean end");
    *lock(&shared.broker) = None;
    pending::<()>().await;
}
