//! nsqd's HTTP interface, under construction.

use crate::broker::Broker;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpStream;

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

/// An option's value as `/config/KEY` renders it (spec: http_flags_tools §1.9).
#[derive(Clone, Debug)]
pub enum Setting {
    /// A string, as it is.
    Text(String),
    /// Anything else, as JSON.
    Json(String),
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

/// Serves one connection to its end.
pub(crate) async fn serve(_http: Arc<Http>, _stream: TcpStream, _peer: SocketAddr) {}
