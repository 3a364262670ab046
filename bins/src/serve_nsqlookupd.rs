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

/// Listens, serves until `stopped`, and ends in order.
///
/// # Errors
/// The text of the fatal line: an address that cannot be listened on.
pub async fn serve(options: NsqlookupdOptions, stopped: impl Future<Output = ()>) -> Result<(), String> {
    let bound = Listeners::bind(&options.tcp_address, &options.http_address).await;
    let listeners = bound.map_err(|failed| daemon::cannot_listen("nsqlookupd", &failed))?;
    let config = Config {
        options: Options {
            inactive_producer_timeout: options.inactive_producer_timeout,
            tombstone_lifetime: options.tombstone_lifetime,
        },
        identity: Identity {
            broadcast_address: options.broadcast_address,
            hostname: daemon::hostname(),
            http_port: listeners.http_address().map_or(0, |address| address.port()),
            tcp_port: listeners.tcp_address().port(),
            version: version::VERSION.into(),
        },
    };
    let server = Server::start(listeners, config, daemon::wall());
    stopped.await;
    tracing::info!("NSQLOOKUPD: stopping");
    server.stop().await;
    Ok(())
}
