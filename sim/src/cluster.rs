//! A cluster in the simulator: nsqds on machines of their own, each with a disk and a clock that outlive its processes.
//!
//! What runs on a machine is net's own server. From outside, a scenario may look at its broker, kill it, cut its power,
//! and ask it over HTTP; when it dies, the ledger is told what was in its memory only, and nothing else is excused.

use crate::disk::SimDisk;
use crate::ledger::{Drop, Ledger, Pause};
use crate::runner::Sim;
use bytes::Bytes;
use madsim::task::NodeId;
use madsim::time::{Instant, sleep, timeout};
use nsq_core::message::PAYLOAD_HEADER;
use nsq_core::options::Options;
use nsq_core::time::Timestamp;
use nsq_net_sim::broker::Broker;
use nsq_net_sim::env::Env;
use nsq_net_sim::http::Identity;
use nsq_net_sim::server::{Config, Listeners, Server};
use nsq_sim_rt::io::{AsyncReadExt, AsyncWriteExt};
use nsq_sim_rt::net::TcpStream;
use std::future::pending;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The cluster of one run.
#[derive(Clone)]
pub struct Cluster {
    sim: Sim,
    /// Where operators sit.
    desk: NodeId,
    /// What clients saw.
    pub ledger: Ledger,
}

/// An nsqd's machine.
#[derive(Clone)]
pub struct Nsqd {
    /// Its name.
    pub name: String,
    /// Its machine.
    pub node: NodeId,
    /// Its disk.
    pub disk: SimDisk,
    shared: Arc<Shared>,
    sim: Sim,
}

struct Shared {
    /// Of the process that is alive.
    broker: Mutex<Option<Arc<Broker>>>,
    /// How far its wall clock is from the truth, in nanoseconds.
    skew: Mutex<i64>,
}

/// The truth when a run starts: an hour of 2026.
const EPOCH: i64 = 1_795_000_000_000_000_000;
const TCP_PORT: u16 = 4150;
const HTTP_PORT: u16 = 4151;
const HTTP_TIMEOUT: Duration = Duration::from_secs(60);

impl Cluster {
    /// A cluster without machines, but for the operators' desk.
    pub fn new(sim: &Sim) -> Self {
        Self { sim: sim.clone(), desk: sim.net().node("desk").idle(), ledger: Ledger::default() }
    }

    /// A new machine with an nsqd.
    pub fn nsqd(&self, name: &str, options: Options) -> Nsqd {
        let shared = Arc::new(Shared { broker: Mutex::default(), skew: Mutex::default() });
        let disk = SimDisk::new(self.sim.seed() ^ name.bytes().map(u64::from).sum::<u64>());
        let (for_process, disk_of_process, seed) = (Arc::clone(&shared), disk.clone(), self.sim.seed());
        let node = self
            .sim
            .net()
            .node(name)
            .run(move || serve(Arc::clone(&for_process), disk_of_process.clone(), options.clone(), seed));
        Nsqd { name: name.to_owned(), node, disk, shared, sim: self.sim.clone() }
    }

    /// A machine for clients.
    pub fn client(&self, name: &str) -> NodeId {
        self.sim.net().node(name).idle()
    }

    /// Kills the process, or cuts the power, after writing down what it held in memory.
    pub fn crash(&self, nsqd: &Nsqd, power_off: bool) {
        self.excuse(nsqd);
        self.sim.note(&format!("{} {}", if power_off { "power off" } else { "kill" }, nsqd.name));
        if power_off {
            self.sim.net().power_off(nsqd.node);
            nsqd.disk.power_off();
            self.sim.count("power_offs", 1);
        } else {
            self.sim.net().kill(nsqd.node);
            self.sim.count("kills", 1);
        }
        *nsqd.shared.broker.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Starts it again.
    pub fn restart(&self, nsqd: &Nsqd) {
        self.sim.note(&format!("restart {}", nsqd.name));
        self.sim.net().restart(nsqd.node);
    }

    /// An operator's POST; tried again until it is answered with 200, or the time is up.
    ///
    /// # Errors
    /// What the last try came to.
    pub async fn post(&self, nsqd: &Nsqd, path: &str) -> Result<(), String> {
        let address = nsqd.http_address();
        let request = format!("POST {path} HTTP/1.1\r\nHost: nsqd\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        let asked = self.sim.net().spawn(self.desk, async move {
            loop {
                let answer = timeout(Duration::from_secs(5), exchange(&address, &request)).await;
                match answer.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                    Ok(status) if status == 200 || status == 404 => return status,
                    _ => sleep(Duration::from_millis(200)).await,
                }
            }
        });
        match timeout(HTTP_TIMEOUT, asked).await {
            Ok(Ok(200)) => Ok(()),
            Ok(Ok(status)) => Err(format!("POST {path}: {status}")),
            other => Err(format!("POST {path}: {other:?}")),
        }
    }

    /// Creates a topic and channels, and writes down that they are there.
    pub async fn create(&self, nsqd: &Nsqd, topic: &str, channels: &[&str]) {
        self.post(nsqd, &format!("/topic/create?topic={topic}")).await.expect("a topic can be created");
        for channel in channels {
            let path = format!("/channel/create?topic={topic}&channel={channel}");
            self.post(nsqd, &path).await.expect("a channel can be created");
            let key = (topic.to_owned(), (*channel).to_owned());
            self.ledger.open().channels.entry(key).or_insert_with(Instant::now);
        }
    }

    /// Drops what a channel, or a topic before its channels, holds; the channel or topic too if `delete`, which is then owed
    /// nothing until it is created again.
    pub async fn drop(&self, nsqd: &Nsqd, topic: &str, channel: Option<&str>, delete: bool) {
        let verb = if delete { "delete" } else { "empty" };
        let path = match channel {
            Some(channel) => format!("/channel/{verb}?topic={topic}&channel={channel}"),
            None => format!("/topic/{verb}?topic={topic}"),
        };
        let asked = Instant::now();
        // Whatever the answer, it may have happened.
        let _ = self.post(nsqd, &path).await;
        let (topic, channel) = (topic.to_owned(), channel.map(str::to_owned));
        let mut entries = self.ledger.open();
        if delete {
            let deleted = |name: &str| channel.as_deref().is_none_or(|channel| channel == name);
            entries.channels.retain(|(of, name), _| *of != topic || !deleted(name));
        }
        entries.drops.push(Drop { topic, channel, asked, done: Instant::now() });
    }

    /// Pauses a channel, or a whole topic, for a while, and writes that down.
    pub async fn pause(&self, nsqd: &Nsqd, topic: &str, channel: Option<&str>, span: Duration) {
        let path = |verb| match channel {
            Some(channel) => format!("/channel/{verb}?topic={topic}&channel={channel}"),
            None => format!("/topic/{verb}?topic={topic}"),
        };
        if self.post(nsqd, &path("pause")).await.is_err() {
            return;
        }
        let from = Instant::now();
        let pause = Pause { topic: topic.to_owned(), channel: channel.map(str::to_owned), from, until: None };
        let number = {
            let pauses = &mut self.ledger.open().pauses;
            pauses.push(pause);
            pauses.len() - 1
        };
        sleep(span).await;
        self.ledger.open().pauses[number].until = Some(Instant::now());
        // What was deleted meanwhile is not paused any more either.
        let _ = self.post(nsqd, &path("unpause")).await;
        self.sim.count(if channel.is_some() { "channel_pauses" } else { "topic_pauses" }, 1);
    }

    fn excuse(&self, nsqd: &Nsqd) {
        let Some(broker) = nsqd.broker() else { return };
        let excused = &mut self.ledger.open().excused;
        let mut lost = 0;
        broker.inspect(|topic| {
            let channels: Vec<_> = topic.stats(None, false).channels.into_iter().map(|channel| channel.name).collect();
            topic.held(|channel, payload| {
                let body = Bytes::copy_from_slice(&payload[PAYLOAD_HEADER..]);
                // What was not given to channels is missing in all of them, those to come included.
                let names = channel.map_or_else(|| channels.iter().collect(), |channel| vec![channel]);
                let all = names.into_iter().map(|name| name.to_string());
                for channel in all.chain(channel.is_none().then(String::new)) {
                    excused.entry((topic.name().to_string(), channel)).or_default().insert(body.clone());
                }
                lost += 1;
            });
        });
        self.sim.count("messages_lost_with_memory", lost);
    }
}

impl Nsqd {
    /// Where clients connect.
    pub fn address(&self) -> String {
        format!("{}:{TCP_PORT}", self.sim.net().ip(self.node))
    }

    fn http_address(&self) -> String {
        format!("{}:{HTTP_PORT}", self.sim.net().ip(self.node))
    }

    /// The broker of the process that is alive and serving.
    pub fn broker(&self) -> Option<Arc<Broker>> {
        self.shared.broker.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Which of its lives this is.
    pub fn life(&self) -> u64 {
        self.sim.net().incarnation(self.node)
    }

    /// Moves its wall clock so far from the truth.
    pub fn skew(&self, nanos: i64) {
        *self.shared.skew.lock().unwrap_or_else(PoisonError::into_inner) = nanos;
        self.sim.note(&format!("the wall clock of {} is off by {nanos} ns", self.name));
        self.sim.count("clock_steps", 1);
    }
}

async fn serve(shared: Arc<Shared>, disk: SimDisk, options: Options, seed: u64) {
    let clock = Arc::clone(&shared);
    let origin = madsim::time::TimeHandle::current();
    let wall = move || {
        let skew = *clock.skew.lock().unwrap_or_else(PoisonError::into_inner);
        Timestamp::from_nanos(EPOCH + origin.elapsed().as_nanos() as i64 + skew)
    };
    let env = Env { wall: Arc::new(wall), seed, disk: Arc::new(disk) };
    let config = Config {
        options,
        mem_queue_bytes: 1 << 30,
        identity: Identity::default(),
        settings: std::collections::BTreeMap::new(),
    };
    let (tcp, http) = (format!("0.0.0.0:{TCP_PORT}"), format!("0.0.0.0:{HTTP_PORT}"));
    let listeners = Listeners::bind(&tcp, &http).await.expect("the machine is its own");
    let server = Server::start(listeners, config, env).await.expect("the disk can be read");
    *shared.broker.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(server.broker()));
    pending::<()>().await;
    drop(server);
}

/// Sends a request on a connection of its own and returns the status.
async fn exchange(address: &str, request: &str) -> io::Result<u16> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let status = answer.get(9..12).and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
    status.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not HTTP"))
}
