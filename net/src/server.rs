//! A running nsqd: listeners, background tasks, and a clean end.
//!
//! The end, in upstream's order (spec: nsqd_protocol §3.3): no new connections, every connection closed whatever state its
//! peer is in, `nsqd.dat` written. What is still queued in memory is lost then, and that is counted and reported.

use crate::broker::Broker;
use crate::conn;
use crate::env::Env;
use crate::http::{self, Api, Http, Identity, Setting};
use crate::listen::accept;
use crate::metadata;
use crate::timers::Timers;
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
    /// What `/info` tells.
    pub identity: Identity,
    /// What `/config/KEY` tells.
    pub settings: BTreeMap<&'static str, Setting>,
}

/// A running nsqd. Dropping it stops it at once, [`stop`](Self::stop) in order.
pub struct Server {
    broker: Arc<Broker>,
    http: Arc<Http>,
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
        metadata::save(&broker).await;
        let saver = tokio::spawn(metadata::run(Arc::clone(&broker)));
        let mut tasks = vec![
            tokio::spawn(Timers::run(Arc::clone(&broker))),
            tokio::spawn(accept(listeners.tcp, Arc::clone(&broker), |broker, stream, peer| async move {
                conn::serve(broker, stream, peer.to_string()).await;
            })),
        ];
        let http = Arc::new(Http::new(Arc::clone(&broker), config.identity, config.settings));
        if let Some((listener, _)) = listeners.http {
            tasks.push(tokio::spawn(accept(listener, Arc::clone(&http), http::serve)));
        }
        Ok(Self { broker, http, tasks, saver })
    }

    /// What the tasks share.
    pub const fn broker(&self) -> &Arc<Broker> {
        &self.broker
    }

    /// Ends in order; returns how many messages were in memory only, and are lost.
    pub async fn stop(mut self) -> u64 {
        // The tasks that accept, and the timers, after which nothing moves by itself any more.
        self.tasks.drain(..).for_each(|task| task.abort());
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

impl Drop for Server {
    fn drop(&mut self) {
        self.tasks.drain(..).for_each(|task| task.abort());
        self.saver.abort();
        self.broker.close_all();
        self.http.visits().close();
    }
}
