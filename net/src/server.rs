//! A running nsqd: listeners, background tasks, and a clean end.
//!
//! The end, in upstream's order (spec: nsqd_protocol §3.3): no new connections, every connection closed whatever state
//! its peer is in, `nsqd.dat` written, and everything that is still queued. What cannot be written is counted and
//! reported.

use crate::broker::Broker;
use crate::conn;
use crate::durable::Durable;
use crate::env::Env;
use crate::http::{self, Api, Http, Identity, LookupdAddresses, Patience, Setting};
use crate::listen::accept;
use crate::metadata;
use crate::peers;
use crate::precreate;
use crate::recovery;
use crate::timers::Timers;
use crate::visits::Visits;
use nsq_core::lookup_peer::Nsqd;
use nsq_core::name::TopicName;
use nsq_core::options::Options;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::Instant;

pub use crate::listen::{BindError, Listeners};

/// What a server is started with.
#[derive(Clone, Debug)]
pub struct Config {
    /// Protocol and queues.
    pub options: Options,
    /// `--durable`, `--durable-topic`: the topics whose messages are on the medium before they are acknowledged.
    pub durable: Durable,
    /// `--mem-queue-bytes`
    pub mem_queue_bytes: usize,
    /// `--lookupd-tcp-address`: the nsqlookupds to be told of all topics and channels.
    pub lookupd_tcp_addresses: Vec<String>,
    /// For nsqlookupds that are asked for the channels of a new topic.
    pub http_client: Patience,
    /// What `/info` and nsqlookupds are told.
    pub identity: Identity,
    /// What `/config/KEY` tells.
    pub settings: BTreeMap<&'static str, Setting>,
}

/// A running nsqd. Dropping it stops it at once, [`stop`](Self::stop) in order.
pub struct Server {
    broker: Arc<Broker>,
    http: Arc<Http>,
    /// New topics that wait for answers of nsqlookupds.
    waiting: Arc<Visits>,
    tasks: Vec<JoinHandle<()>>,
    timers: JoinHandle<()>,
    /// The task that writes `nsqd.dat`; in the end, whether it was written the last time.
    saver: JoinHandle<bool>,
}

/// What ends with the process, and should not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// So many messages were to be on disk, and could not be written.
    pub messages: u64,
    /// `nsqd.dat` does not have all topics, channels and pauses.
    pub names: bool,
}

/// How long the end waits for connections to notice.
const GRACE: Duration = Duration::from_secs(2);
/// How often is seen whether memory is short.
const RELIEF: Duration = Duration::from_secs(1);
/// How often is seen whether the reserve is whole.
const RESERVE: Duration = Duration::from_secs(1);

impl Server {
    /// Reads `nsqd.dat` and all topics, writes the former anew, and serves.
    ///
    /// # Errors
    /// If `nsqd.dat` cannot be read, or the list of topics that have messages on disk.
    pub async fn start(listeners: Listeners, config: Config, env: Env) -> io::Result<Self> {
        let begun = Instant::now();
        let topics = metadata::load(&*env.disk).await?;
        recovery::tell_of_foreign(&*env.disk).await;
        let stored = recovery::load(&env.disk, &config.durable).await?;
        let broker = Broker::new(config.options, env, config.mem_queue_bytes, config.durable, topics, stored);
        broker.storage.keep_reserve().await;
        broker.call_all();
        announce(&broker, begun.elapsed());
        broker.lookups.configure(Some(config.lookupd_tcp_addresses));
        let is_saved = metadata::save(&broker).await;
        let timers = tokio::spawn(Timers::run(Arc::clone(&broker)));
        let saver = tokio::spawn(metadata::run(Arc::clone(&broker), is_saved));
        let waiting = Arc::new(Visits::new());
        let mut tasks = vec![
            tokio::spawn(relieve(Arc::clone(&broker))),
            tokio::spawn(keep_reserve(Arc::clone(&broker))),
            tokio::spawn(peers::run(Arc::clone(&broker), introduce(&broker, &config.identity, &listeners))),
            tokio::spawn(precreate::run(Arc::clone(&broker), Arc::clone(&waiting), config.http_client)),
            tokio::spawn(accept(listeners.tcp, Arc::clone(&broker), conn::serve)),
        ];
        let addresses = Setting::Live(Arc::new(LookupdAddresses(Arc::clone(&broker))));
        let mut settings = config.settings;
        settings.insert("nsqlookupd_tcp_addresses", addresses);
        let http = Arc::new(Http::new(Arc::clone(&broker), config.identity, settings));
        if let Some((listener, _)) = listeners.http {
            tasks.push(tokio::spawn(accept(listener, Arc::clone(&http), http::serve)));
        }
        Ok(Self { broker, http, waiting, tasks, timers, saver })
    }

    /// What the tasks share.
    pub const fn broker(&self) -> &Arc<Broker> {
        &self.broker
    }

    /// Ends in order.
    pub async fn stop(mut self) -> Lost {
        // The tasks that accept, and the peers, who say nothing about it.
        self.tasks.drain(..).for_each(|task| task.abort());
        self.waiting.close();
        self.broker.close_all();
        let ended = async {
            while self.broker.open_conns() > 0 {
                self.broker.conn_ended.notified().await;
            }
        };
        let (left, _) = tokio::join!(self.http.visits().end(GRACE), tokio::time::timeout(GRACE, ended));
        let left = left + self.broker.open_conns();
        if left > 0 {
            tracing::warn!("{left} connections did not end in time");
        }
        // A write that has begun goes on even if nobody waits for it, and must not end up on top of the last one.
        self.broker.exiting.notify_one();
        let was_saved = (&mut self.saver).await.unwrap_or(false) && self.broker.is_saved();
        let names = !metadata::save(&self.broker).await && !was_saved;
        let failed = self.broker.store_all().await;
        self.timers.abort();
        Lost { messages: self.report_lost(&failed), names }
    }

    /// What is not on disk now ends with the process.
    fn report_lost(&self, failed: &BTreeMap<TopicName, String>) -> u64 {
        let mut total = 0;
        for topic in self.broker.all_topics() {
            // What one that has panicked had is not known.
            let lost = topic.look(|topic| topic.unsaved() as u64).unwrap_or(0);
            match failed.get(topic.name()) {
                _ if lost == 0 => {}
                Some(why) => {
                    tracing::error!("TOPIC({}): lost {lost} messages: {why}", topic.name());
                    total += lost;
                }
                None => tracing::warn!(
                    "TOPIC({}): lost {lost} messages: an ephemeral topic is in memory only",
                    topic.name()
                ),
            }
        }
        total
    }
}

/// What a start has found.
fn announce(broker: &Broker, took: Duration) {
    let topics = broker.topic_stats(None, None, false);
    let channels: Vec<_> = topics.iter().flat_map(|topic| &topic.channels).collect();
    let waiting = topics.iter().map(|topic| topic.depth).sum::<u64>()
        + channels.iter().map(|channel| channel.depth + channel.deferred_count as u64).sum::<u64>();
    tracing::info!(
        "NSQ: found {} topics with {} channels, {waiting} messages in their queues, in {} ms",
        topics.len(),
        channels.len(),
        took.as_millis()
    );
}

/// Has topics give up their memory while it is short, for those that nobody calls hold some too.
async fn relieve(broker: Arc<Broker>) {
    let mut was_full = false;
    loop {
        tokio::time::sleep(RELIEF).await;
        let budget = broker.budget();
        if budget.is_full() && !was_full {
            tracing::warn!(
                "MEMORY: {} of the {} bytes of --mem-queue-bytes are used; publishes wait for the disk, and those of \
                 ephemeral topics are refused",
                budget.used(),
                budget.limit()
            );
            was_full = true;
        }
        if budget.is_short() {
            broker.call_all();
        } else if was_full {
            tracing::info!("MEMORY: there is some again");
            was_full = false;
        }
    }
}

/// Makes the reserve whole when it was spent, or when there was no room for it.
async fn keep_reserve(broker: Arc<Broker>) {
    loop {
        tokio::time::sleep(RESERVE).await;
        broker.storage.keep_reserve().await;
    }
}

/// What nsqlookupds are told of this nsqd.
fn introduce(broker: &Broker, identity: &Identity, listeners: &Listeners) -> Nsqd {
    let options = broker.options();
    let bound = listeners.http_address().map_or(0, |address| address.port());
    let http_port = if identity.broadcast_http_port == 0 { bound } else { identity.broadcast_http_port };
    if http_port == 0 && !broker.lookupds().is_empty() {
        tracing::warn!("LOOKUPD: nsqlookupds refuse an nsqd without HTTP; set --http-address or --broadcast-http-port");
    }
    Nsqd {
        broadcast_address: identity.broadcast_address.clone(),
        hostname: identity.hostname.clone(),
        http_port,
        tcp_port: match identity.broadcast_tcp_port {
            0 => listeners.tcp_address().port(),
            port => port,
        },
        topology_region: options.topology_region.clone(),
        topology_zone: options.topology_zone.clone(),
        version: options.version.clone(),
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.tasks.drain(..).for_each(|task| task.abort());
        self.waiting.close();
        self.timers.abort();
        self.saver.abort();
        self.broker.close_all();
        self.http.visits().close();
    }
}
