//! A machine with an nsqd: its disk and clock outlive its processes.

use super::machine::SkewedClock;
use super::{Cluster, Directory, Machine, Slot, excuse, lock};
use crate::disk::SimDisk;
use crate::runner::Sim;
use bytes::Bytes;
use madsim::time::sleep;
use nsq_core::message::PAYLOAD_HEADER;
use nsq_core::options::Options;
use nsq_core::topic::stats::{ChannelStats, ConsumerStats};
use nsq_net_sim::broker::Broker;
use nsq_net_sim::env::Env;
use nsq_net_sim::http::{Identity, Patience};
use nsq_net_sim::server::{Config, Listeners, Server};
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
    sim: Sim,
    shared: Shared,
}

/// What an nsqd is started with.
#[derive(Clone, Debug, Default)]
pub struct NsqdConfig {
    /// Protocol and queues.
    pub options: Options,
    /// The addresses of the nsqlookupds it registers with.
    pub lookupds: Vec<String>,
}

/// What the processes and the scenario share.
#[derive(Clone, Default)]
struct Shared {
    /// Of the process that is alive.
    broker: Slot<Broker>,
    /// An operator wants it to end.
    end: Arc<Mutex<Arc<Notify>>>,
}

/// A timer is forgotten if it has been due for so long: the runtime's own are exact to a millisecond.
const OVERDUE: Duration = Duration::from_millis(5);
const TCP_PORT: u16 = 4150;
const HTTP_PORT: u16 = 4151;

impl Cluster {
    /// A new machine with an nsqd.
    pub fn nsqd(&self, name: &str, config: NsqdConfig) -> Nsqd {
        let (shared, clock) = (Shared::default(), SkewedClock::default());
        let seed = self.sim.seed() ^ name.bytes().fold(0, |mixed: u64, byte| mixed.wrapping_mul(31) + u64::from(byte));
        let disk = SimDisk::new(seed);
        let start = {
            let (cluster, shared, clock) = (self.clone(), shared.clone(), clock.clone());
            let (name, disk) = (name.to_owned(), disk.clone());
            move || {
                let env = Env { wall: clock.wall(), seed, disk: Arc::new(disk.clone()) };
                serve(cluster.clone(), name.clone(), shared.clone(), config.clone(), env)
            }
        };
        let node = self.sim.net().node(name).run(start);
        let machine = Machine::new(&self.sim, name, node, clock);
        Nsqd { machine, disk, sim: self.sim.clone(), shared }
    }

    /// Ends its process in order, as an operator's SIGTERM does.
    ///
    /// # Panics
    /// If it does not end.
    pub async fn end(&self, nsqd: &Nsqd) {
        let broker = nsqd.broker().expect("only what runs can be ended");
        lock(&nsqd.shared.end).notify_one();
        for _ in 0..1000 {
            if nsqd.broker().is_none() {
                drop(broker);
                // Its sockets have been closed; a machine without a process keeps nothing else.
                nsqd.machine.ended();
                self.forget_unsaved(nsqd);
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
        let held = topics.iter().find(|topic| {
            let held =
                |channel: &ChannelStats| channel.depth + (channel.in_flight_count + channel.deferred_count) as u64;
            topic.depth + topic.channels.iter().map(held).sum::<u64>() > 0
        });
        held.map(|topic| format!("{name}: {topic:?}")).or_else(|| {
            let used = broker.budget().used();
            (used > 0).then(|| format!("{name}: {used} bytes are held for nobody"))
        })
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

    /// The bodies of a topic that it holds in memory: those of the channel and those not given to channels yet, or all.
    pub(super) fn held(&self, topic: &str, channel: Option<&str>) -> BTreeSet<Bytes> {
        let mut bodies = BTreeSet::new();
        let Some(broker) = self.broker() else { return bodies };
        broker.inspect(|held| {
            if held.name().to_string() != topic {
                return;
            }
            held.held(|place, payload| {
                if channel.zip(place).is_none_or(|(channel, place)| place.to_string() == channel) {
                    bodies.insert(Bytes::copy_from_slice(&payload[PAYLOAD_HEADER..]));
                }
            });
        });
        bodies
    }

    pub(super) fn gone(&self) {
        *lock(&self.shared.broker) = None;
    }
}

async fn serve(cluster: Cluster, name: String, shared: Shared, config: NsqdConfig, env: Env) {
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
        mem_queue_bytes: 1 << 30,
        lookupd_tcp_addresses: config.lookupds,
        http_client: Patience::default(),
        identity,
        settings: BTreeMap::new(),
    };
    let (tcp, http) = (format!("0.0.0.0:{TCP_PORT}"), format!("0.0.0.0:{HTTP_PORT}"));
    let listeners = Listeners::bind(&tcp, &http).await.expect("the machine is its own");
    let server = Server::start(listeners, config, env).await.expect("the disk can be read");
    let broker = Arc::clone(server.broker());
    *lock(&shared.broker) = Some(Arc::clone(&broker));
    end.notified().await;
    server.stop().await;
    // Nothing comes in or goes out any more: what is left goes with the process.
    cluster.sim.count("messages_lost_with_memory", excuse(&cluster.ledger, &name, &broker));
    *lock(&shared.broker) = None;
    pending::<()>().await;
}
