//! nsqd's options as the server wants them, and the server from its sockets to its end.
//!
//! The rule: this room translates and decides nothing; what an option means is core's or net's business.

use crate::daemon;
use crate::flags::ConfigValue;
use crate::log::LevelHandle;
use crate::nsqd_flags::{self, NsqdOptions};
use crate::os_error::os_error;
use crate::version;
use nsq_core::options::Options;
use nsq_net::disk::Directory;
use nsq_net::durable::Durable;
use nsq_net::env::Env;
use nsq_net::http::{Identity, Live, Patience, Setting};
use nsq_net::server::{Config, Listeners, Lost, Server};
use std::collections::BTreeMap;
use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;

/// Listens, serves until `stopped`, and ends in order; while it starts, which may take long, at once.
///
/// # Errors
/// As [`start`] and [`Nsqd::stop`].
pub async fn serve(
    options: NsqdOptions,
    data_path: &Path,
    level: LevelHandle,
    stopped: impl Future<Output = ()>,
) -> Result<(), String> {
    let mut stopped = pin!(stopped);
    let nsqd = tokio::select! {
        biased;
        nsqd = start(options, data_path, level) => nsqd?,
        () = &mut stopped => return Ok(()),
    };
    stopped.await;
    nsqd.stop().await
}

/// An nsqd that serves.
pub struct Nsqd {
    server: Server,
    /// Where clients connect.
    pub tcp_address: SocketAddr,
    /// Where HTTP is served, if it is.
    pub http_address: Option<SocketAddr>,
}

impl Nsqd {
    /// Ends in order.
    ///
    /// # Errors
    /// The text of the fatal line: messages, or the names of topics and channels, could not be written.
    pub async fn stop(self) -> Result<(), String> {
        tracing::info!("NSQ: stopping");
        let Lost { messages, names } = self.server.stop().await;
        let mut lost = Vec::new();
        if messages > 0 {
            lost.push(format!("failed to store {messages} messages, they are lost"));
        }
        if names {
            lost.push(
                "failed to save nsqd.dat, the last changes of topics, channels and pauses may be lost".to_owned(),
            );
        }
        if lost.is_empty() { Ok(()) } else { Err(lost.join("; ")) }
    }
}

/// Listens and begins to serve.
///
/// # Errors
/// The text of the fatal line: an address that cannot be listened on, or an unreadable `nsqd.dat`.
pub async fn start(mut options: NsqdOptions, data_path: &Path, level: LevelHandle) -> Result<Nsqd, String> {
    let bound = Listeners::bind(&options.tcp_address, &options.http_address).await;
    let listeners = bound.map_err(|failed| daemon::cannot_listen("nsqd", &failed))?;
    let (tcp_address, http_address) = (listeners.tcp_address(), listeners.http_address());
    let tcp_port = tcp_address.port();
    let http_port = http_address.map(|address| address.port());
    options.set_bound_ports(Some(tcp_port), http_port);
    let config = Config {
        options: core_options(&options),
        mem_queue_bytes: usize::try_from(options.mem_queue_bytes).unwrap_or(usize::MAX),
        durable: Durable { all: options.durable, patterns: options.durable_topics.clone() },
        lookupd_tcp_addresses: options.nsqlookupd_tcp_addresses.clone(),
        http_client: Patience {
            connect: options.http_client_connect_timeout,
            request: options.http_client_request_timeout,
        },
        identity: Identity {
            broadcast_address: options.broadcast_address.clone(),
            hostname: daemon::hostname(),
            tcp_port,
            http_port: http_port.unwrap_or(0),
            broadcast_tcp_port: options.broadcast_tcp_port,
            broadcast_http_port: options.broadcast_http_port,
            built_with: version::BUILT_WITH.into(),
        },
        settings: settings(&options, level),
    };
    let started = Server::start(listeners, config, environment(data_path)).await;
    let server = started.map_err(|error| {
        format!("failed to load metadata - {} (in the directory {})", os_error(&error), data_path.display())
    })?;
    Ok(Nsqd { server, tcp_address, http_address })
}

fn core_options(options: &NsqdOptions) -> Options {
    let defaults = Options::default();
    Options {
        node_id: options.id as u16,
        max_msg_size: options.max_msg_size,
        max_body_size: options.max_body_size,
        max_rdy_count: options.max_rdy_count,
        msg_timeout: options.msg_timeout,
        max_msg_timeout: options.max_msg_timeout,
        max_req_timeout: options.max_req_timeout,
        max_heartbeat_interval: options.max_heartbeat_interval,
        max_output_buffer_size: options.max_output_buffer_size,
        output_buffer_timeout: options.output_buffer_timeout,
        min_output_buffer_timeout: options.min_output_buffer_timeout,
        max_output_buffer_timeout: options.max_output_buffer_timeout,
        max_channel_consumers: usize::try_from(options.max_channel_consumers).unwrap_or(usize::MAX),
        mem_queue_size: options.mem_queue_size,
        max_bytes_per_file: options.max_bytes_per_file,
        sync_every: options.sync_every,
        sync_timeout: options.sync_timeout,
        max_deflate_level: options.max_deflate_level as u8,
        topology_region: options.topology_region.clone(),
        topology_zone: options.topology_zone.clone(),
        ..defaults
    }
}

fn settings(options: &NsqdOptions, level: LevelHandle) -> BTreeMap<&'static str, Setting> {
    let setting = |value| match value {
        ConfigValue::Text(text) => Setting::Text(text),
        ConfigValue::Json(json) => Setting::Json(json),
    };
    let values = nsqd_flags::config_values(options).into_iter().map(|(key, value)| (key, setting(value)));
    values.chain([("log_level", Setting::Live(Arc::new(LogLevel(level))))]).collect()
}

/// `/config/log_level`
#[derive(Debug)]
struct LogLevel(LevelHandle);

impl Live for LogLevel {
    fn get(&self) -> String {
        (self.0.get() as u8).to_string()
    }

    fn set(&self, value: &[u8]) -> bool {
        let level = str::from_utf8(value).ok().and_then(|word| word.parse().ok());
        level.map(|level| self.0.set(level)).is_some()
    }
}

fn environment(data_path: &Path) -> Env {
    Env {
        wall: daemon::wall(),
        // The standard library's own source of randomness is good enough for sampling.
        seed: RandomState::new().hash_one(std::process::id()),
        disk: Arc::new(Directory::new(data_path)),
    }
}
