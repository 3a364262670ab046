//! A running nsqd: listeners, background tasks, and a clean end.
//!
//! The end, in upstream's order (spec: nsqd_protocol §3.3): no new connections, every connection closed whatever state its
//! peer is in, `nsqd.dat` written. What is still queued in memory is lost then, and that is counted and reported.

use crate::broker::Broker;
use crate::conn;
use crate::env::Env;
use crate::http::{self, Api, Http, Identity, LookupdAddresses, Patience, Setting};
use crate::listen::accept;
use crate::metadata;
use crate::peers;
use crate::precreate;
use crate::timers::Timers;
use crate::visits::Visits;
use nsq_core::lookup_peer::Nsqd;
use nsq_core::options::Options;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;

pub use crate::listen::{BindError, Listeners};

/// What a server is started with.
#[derive(Clone, Debug)]
pub struct Config {
    /// Protocol and queues.
    pub options: Options,
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
    /// The task that writes `nsqd.dat`.
    saver: JoinHandle<()>,
}

/// How long the end waits for connections to notice.
const GRACE: Duration = Duration::from_secs(2);

impl Server {
    /// Reads `nsqd.dat`, writes it anew, and serves.
    ///
    /// # Errors
    /// If `nsqd.dat` cannot be read.
    pub async fn start(listeners: Listeners, config: Config, env: Env) -> io::Result<Self> {
        let topics = metadata::load(&*env.disk).await?;
        let broker = Arc::new(Broker::new(config.options, env, config.mem_queue_bytes, topics));
        broker.lookups.configure(Some(config.lookupd_tcp_addresses));
        metadata::save(&broker).await;
        let saver = tokio::spawn(metadata::run(Arc::clone(&broker)));
        let waiting = Arc::new(Visits::new());
        let mut tasks = vec![
            tokio::spawn(peers::run(Arc::clone(&broker), introduce(&broker, &config.identity, &listeners))),
            tokio::spawn(precreate::run(Arc::clone(&broker), Arc::clone(&waiting), config.http_client)),
            tokio::spawn(Timers::run(Arc::clone(&broker))),
            tokio::spawn(accept(listeners.tcp, Arc::clone(&broker), |broker, stream, peer| async move {
                conn::serve(broker, stream, peer.to_string()).await;
            })),
        ];
        let addresses = Setting::Live(Arc::new(LookupdAddresses(Arc::clone(&broker))));
        let mut settings = config.settings;
        settings.insert("nsqlookupd_tcp_addresses", addresses);
        let http = Arc::new(Http::new(Arc::clone(&broker), config.identity, settings));
        if let Some((listener, _)) = listeners.http {
            tasks.push(tokio::spawn(accept(listener, Arc::clone(&http), http::serve)));
        }
        Ok(Self { broker, http, waiting, tasks, saver })
    }

    /// What the tasks share.
    pub const fn broker(&self) -> &Arc<Broker> {
        &self.broker
    }

    /// Ends in order; returns how many messages were in memory only, and are lost.
    pub async fn stop(mut self) -> u64 {
        // The tasks that accept, the peers, who say nothing about it, and the timers: nothing moves by itself any more.
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
        let _ = (&mut self.saver).await;
        metadata::save(&self.broker).await;
        self.report_lost()
    }

    fn report_lost(&self) -> u64 {
        let mut total = 0;
        for topic in self.broker.topic_stats(None, None, false) {
            let held = |channel: &nsq_core::topic::stats::ChannelStats| {
                channel.depth + (channel.in_flight_count + channel.deferred_count) as u64
            };
            let channels: u64 = topic.channels.iter().map(held).sum();
            if topic.depth + channels > 0 {
                tracing::warn!(
                    "TOPIC({}): lost what was in memory: {} messages not given to channels, {channels} in channels",
                    topic.name,
                    topic.depth
                );
            }
            total += topic.depth + channels;
        }
        total
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
        self.saver.abort();
        self.broker.close_all();
        self.http.visits().close();
    }
}
