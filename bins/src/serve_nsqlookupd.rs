//! nsqlookupd's options as the server wants them, and the server from its sockets to its end.
//!
//! The rule: this room translates and decides nothing; what an option means is core's or net's business.

use crate::daemon;
use crate::nsqlookupd_flags::NsqlookupdOptions;
use crate::version;
use nsq_core::lookupd::{Identity, Options};
use nsq_net::listen::Listeners;
use nsq_net::lookupd::{Config, Server};
use std::future::Future;
use std::net::SocketAddr;

/// Listens, serves until `stopped`, and ends in order.
///
/// # Errors
/// As [`start`].
pub async fn serve(options: NsqlookupdOptions, stopped: impl Future<Output = ()>) -> Result<(), String> {
    let nsqlookupd = start(options).await?;
    stopped.await;
    nsqlookupd.stop().await;
    Ok(())
}

/// An nsqlookupd that serves.
pub struct Nsqlookupd {
    server: Server,
    /// Where nsqds connect.
    pub tcp_address: SocketAddr,
    /// Where HTTP is served, if it is.
    pub http_address: Option<SocketAddr>,
}

impl Nsqlookupd {
    /// Ends in order.
    pub async fn stop(self) {
        tracing::info!("NSQLOOKUPD: stopping");
        self.server.stop().await;
    }
}

/// Listens and begins to serve.
///
/// # Errors
/// The text of the fatal line: an address that cannot be listened on.
pub async fn start(options: NsqlookupdOptions) -> Result<Nsqlookupd, String> {
    let bound = Listeners::bind(&options.tcp_address, &options.http_address).await;
    let listeners = bound.map_err(|failed| daemon::cannot_listen("nsqlookupd", &failed))?;
    let (tcp_address, http_address) = (listeners.tcp_address(), listeners.http_address());
    let config = Config {
        options: Options {
            inactive_producer_timeout: options.inactive_producer_timeout,
            tombstone_lifetime: options.tombstone_lifetime,
        },
        identity: Identity {
            broadcast_address: options.broadcast_address,
            hostname: daemon::hostname(),
            http_port: http_address.map_or(0, |address| address.port()),
            tcp_port: tcp_address.port(),
            version: version::VERSION.into(),
        },
    };
    let server = Server::start(listeners, config, daemon::wall());
    Ok(Nsqlookupd { server, tcp_address, http_address })
}
