//! HTTP, and nsqd's interface (spec: http_flags_tools §1): publishing, administration, statistics, options.
//!
//! A request comes from [`connection`], [`service`] finds out by [`router`] what it is for and lets the daemon's
//! [`Api`] do it, and [`respond`] makes an answer of what came out; `body`, `query` and `go` read and write what Go
//! would. These rooms are any daemon's. The others are nsqd's: [`nsqd`] has the routes, and `publish`, `admin`,
//! `config` and `stats` the handlers, which know topics only through the [`Broker`]'s public face. Nothing of a body is
//! read before its declared length has been looked at.

mod admin;
mod body;
mod config;
mod connection;
pub(crate) mod fetch;
mod gather;
mod go;
mod lines;
mod nsqd;
mod publish;
mod query;
mod respond;
mod router;
mod service;
mod stats;
#[cfg(test)]
mod tests;
mod text;

use crate::broker::Broker;
use crate::visits::Visits;
use std::collections::BTreeMap;
use std::sync::Arc;

pub(crate) use config::LookupdAddresses;
pub use config::{Live, Setting};
pub(crate) use connection::serve;
pub use fetch::Patience;
pub(crate) use query::Query;
pub(crate) use respond::{Answer, Failure};
pub(crate) use router::{Entry, GET, POST};
pub(crate) use service::{Api, Asked};

/// What `/info` tells about the process (spec: http_flags_tools §1.7).
#[derive(Clone, Debug, Default)]
pub struct Identity {
    /// `--broadcast-address`
    pub broadcast_address: String,
    /// The machine's name.
    pub hostname: String,
    /// Of the TCP listener.
    pub tcp_port: u16,
    /// Of the HTTP listener; 0 if there is none.
    pub http_port: u16,
    /// `--broadcast-tcp-port`: what nsqlookupds are told; 0 is the listener's.
    pub broadcast_tcp_port: u16,
    /// `--broadcast-http-port`, like the other.
    pub broadcast_http_port: u16,
    /// What is behind the version: `rust1.95.0`.
    pub built_with: String,
}

/// What the handlers share.
pub(crate) struct Http {
    broker: Arc<Broker>,
    identity: Identity,
    settings: BTreeMap<&'static str, Setting>,
    visits: Visits,
}

impl Http {
    pub(crate) fn new(broker: Arc<Broker>, identity: Identity, settings: BTreeMap<&'static str, Setting>) -> Self {
        Self { broker, identity, settings, visits: Visits::new() }
    }
}
