//! nsqlookupd: which nsqd has which topics and channels (spec: nsqd_protocol §5).
//!
//! A [`Session`] for each connection turns bytes into [`Command`]s and replies; one [`Registry`] takes all commands and
//! answers queries. Nothing is remembered but what connected nsqds have said and what operators have created.

#[cfg(any(test, feature = "fuzz"))]
pub(crate) mod fuzz;
mod producer;
mod queries;
mod registry;
mod session;
#[cfg(test)]
mod tests;
mod text;

use crate::name::{ChannelName, TopicName};
use alloc::string::String;
use core::time::Duration;
use serde::Serialize;

pub use producer::Producer;
pub use queries::{Entry, Lookup, Node, Registration, Wanted};
pub use registry::{PeerId, Registry};
pub use session::Session;

/// What an operator can set.
#[derive(Clone, Debug)]
pub struct Options {
    /// `--inactive-producer-timeout`: a producer that has been silent for longer is not listed.
    pub inactive_producer_timeout: Duration,
    /// `--tombstone-lifetime`: how long `/lookup` hides a producer of a topic that an operator asked it to.
    pub tombstone_lifetime: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { inactive_producer_timeout: Duration::from_secs(300), tombstone_lifetime: Duration::from_secs(45) }
    }
}

/// Who this nsqlookupd is: the reply to IDENTIFY, keys in alphabetical order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Identity {
    /// `--broadcast-address`
    pub broadcast_address: String,
    /// The machine's name.
    pub hostname: String,
    /// Of the HTTP listener.
    pub http_port: u16,
    /// Of the TCP listener.
    pub tcp_port: u16,
    /// This release.
    pub version: String,
}

/// What a peer asks for; whatever the registry makes of it, the reply is the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// The peer's first words about itself.
    Identify(Producer),
    /// It is alive. A peer may say so before it says who it is.
    Ping,
    /// It has the topic and, if one is named, the channel.
    Register(TopicName, Option<ChannelName>),
    /// It has the channel no more; without a channel, the topic with all its channels.
    Unregister(TopicName, Option<ChannelName>),
}
