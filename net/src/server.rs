//! A running nsqd: listeners, background tasks, and a clean end.
//!
//! The end, in upstream's order (spec: nsqd_protocol §3.3): no new connections, every connection closed whatever state its
//! peer is in, `nsqd.dat` written. What is still queued in memory is lost then, and that is counted and reported.

use crate::broker::Broker;
use crate::conn;
use crate::env::Env;
use crate::http::{self, Http, Identity, Setting};
use crate::metadata;
use crate::timers::Timers;
use nsq_core::options::Options;
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Bound sockets that nobody serves yet.
pub struct Listeners {
    tcp: TcpListener,
    tcp_address: SocketAddr,
    http: Option<(TcpListener, SocketAddr)>,
}

/// An address that could not be listened on.
#[derive(Debug)]
pub struct BindError {
    /// The address as it was given.
    pub address: String,
    /// What the system said.
    pub error: io::Error,
}

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
    tasks: Vec<JoinHandle<()>>,
}

/// How long the end waits for connections to notice.
const GRACE: Duration = Duration::from_secs(2);
/// After an error of `accept`, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

impl Listeners {
    /// Binds `--tcp-address` and, unless it is empty, `--http-address`; port 0 takes any that is free.
    ///
    /// # Errors
    /// The address that could not be bound, and why.
    pub async fn bind(tcp: &str, http: &str) -> Result<Self, BindError> {
        let (tcp, tcp_address) = listen(tcp).await?;
        tracing::info!("TCP: listening on {tcp_address}");
        if http.is_empty() {
            return Ok(Self { tcp, tcp_address, http: None });
        }
        let http = listen(http).await?;
        tracing::info!("HTTP: listening on {}", http.1);
        Ok(Self { tcp, tcp_address, http: Some(http) })
    }

    /// Where clients connect.
    pub const fn tcp_address(&self) -> SocketAddr {
        self.tcp_address
    }

    /// Where HTTP is served, if it is.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http.as_ref().map(|(_, address)| *address)
    }
}

impl Server {
    /// Reads `nsqd.dat`, writes it anew, and serves.
    ///
    /// # Errors
    /// If `nsqd.dat` cannot be read.
    pub async fn start(listeners: Listeners, config: Config, env: Env) -> io::Result<Self> {
        let topics = metadata::load(&*env.disk).await?;
        let broker = Arc::new(Broker::new(config.options, env, config.mem_queue_bytes, topics));
        metadata::save(&broker).await;
        let mut tasks = vec![
            tokio::spawn(Timers::run(Arc::clone(&broker))),
            tokio::spawn(metadata::run(Arc::clone(&broker))),
            tokio::spawn(accept(listeners.tcp, Arc::clone(&broker), |broker, stream, peer| async move {
                conn::serve(broker, stream, peer.to_string()).await;
            })),
        ];
        if let Some((listener, _)) = listeners.http {
            let state = Arc::new(Http::new(Arc::clone(&broker), config.identity, config.settings));
            tasks.push(tokio::spawn(accept(listener, state, http::serve)));
        }
        Ok(Self { broker, tasks })
    }

    /// What the tasks share.
    pub const fn broker(&self) -> &Arc<Broker> {
        &self.broker
    }

    /// Ends in order; returns how many messages were in memory only, and are lost.
    pub async fn stop(mut self) -> u64 {
        // The tasks that accept, and the timers, after which nothing moves by itself any more.
        self.tasks.drain(..).for_each(|task| task.abort());
        let ended = async {
            while self.broker.open_conns() > 0 {
                self.broker.close_all();
                self.broker.conn_ended.notified().await;
            }
        };
        if tokio::time::timeout(GRACE, ended).await.is_err() {
            tracing::warn!("{} connections did not end in time", self.broker.open_conns());
        }
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
        self.broker.close_all();
    }
}

async fn listen(address: &str) -> Result<(TcpListener, SocketAddr), BindError> {
    // Go's way to say all interfaces.
    let full = if address.starts_with(':') { format!("0.0.0.0{address}") } else { address.to_string() };
    let bound = async {
        let listener = TcpListener::bind(full.as_str()).await?;
        let address = listener.local_addr()?;
        io::Result::Ok((listener, address))
    };
    bound.await.map_err(|error| BindError { address: address.to_string(), error })
}

/// Accepts connections until it is dropped, each with a task of its own.
async fn accept<T, F>(listener: TcpListener, state: Arc<T>, serve: impl Fn(Arc<T>, TcpStream, SocketAddr) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // Frames are batched here, not by the kernel.
                let _ = stream.set_nodelay(true);
                tokio::spawn(serve(Arc::clone(&state), stream, peer));
            }
            Err(error) => {
                tracing::error!("failed to accept - {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "listen ({}) failed - {}", self.address, self.error)
    }
}

impl std::error::Error for BindError {}
