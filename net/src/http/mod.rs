//! nsqd's HTTP interface (spec: http_flags_tools §1): publishing, administration, statistics, options.
//!
//! A request comes from [`connection`], [`router`] says what it is for, one of `publish`, `admin`, `config` and `stats`
//! does it, and [`respond`] makes an answer of what came out. All of them know topics only through the [`Broker`]'s
//! public face, and nothing of a body is read before its declared length has been looked at.

mod admin;
mod body;
mod config;
mod connection;
mod gather;
mod go;
mod lines;
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
use std::collections::BTreeMap;
use std::sync::Arc;

pub use config::{Live, Setting};
pub(crate) use connection::serve;

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
    /// What is behind the version: `rust1.95.0`.
    pub built_with: String,
}

/// What the handlers share.
pub(crate) struct Http {
    broker: Arc<Broker>,
    identity: Identity,
    settings: BTreeMap<&'static str, Setting>,
}

impl Http {
    pub(crate) const fn new(
        broker: Arc<Broker>,
        identity: Identity,
        settings: BTreeMap<&'static str, Setting>,
    ) -> Self {
        Self { broker, identity, settings }
    }
}
