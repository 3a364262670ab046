//! What `/stats` tells of a topic: plain data, taken under the topic's lock and put into words elsewhere
//! (spec: http_flags_tools §1.8).

use super::io::ConnId;
use crate::identity::ClientInfo;
use crate::name::{ChannelName, TopicName};
use alloc::sync::Arc;
use alloc::vec::Vec;

/// A topic at one moment.
#[derive(Clone, Debug)]
pub struct TopicStats {
    /// Its name.
    pub name: TopicName,
    /// Sorted by name.
    pub channels: Vec<ChannelStats>,
    /// Messages not given to channels yet.
    pub depth: u64,
    /// As many of them as are beyond `--mem-queue-size`.
    pub backend_depth: u64,
    /// Messages accepted since the start.
    pub message_count: u64,
    /// Bytes of their bodies.
    pub message_bytes: u64,
    /// Gives no messages to channels.
    pub paused: bool,
    /// Acknowledges and delivers what is on the medium, and nothing else.
    pub durable: bool,
    /// Bytes of memory that its log holds.
    pub memory: usize,
    /// Messages found to be damaged on disk since the start, each as often as a channel had to go without it.
    pub lost: u64,
}

/// A channel at one moment.
#[derive(Clone, Debug)]
pub struct ChannelStats {
    /// Its name.
    pub name: ChannelName,
    /// Messages that could be handed out.
    pub depth: u64,
    /// As many of them as are beyond `--mem-queue-size`.
    pub backend_depth: u64,
    /// Messages that consumers hold.
    pub in_flight_count: usize,
    /// Messages that wait for their time.
    pub deferred_count: usize,
    /// Messages received from the topic since the start.
    pub message_count: u64,
    /// REQs since the start.
    pub requeue_count: u64,
    /// Messages that timed out in flight since the start.
    pub timeout_count: u64,
    /// Messages finished since the start.
    pub finish_count: u64,
    /// Messages dropped since the start: by sampling, by emptying, by a full ephemeral channel.
    pub dropped_count: u64,
    /// Messages that it had to go without since the start: they are damaged on disk.
    pub lost: u64,
    /// Consumers connected.
    pub client_count: usize,
    /// The consumers, if they were asked for.
    pub clients: Vec<ConsumerStats>,
    /// Hands out no messages.
    pub paused: bool,
}

/// A consumer at one moment.
#[derive(Clone, Debug)]
pub struct ConsumerStats {
    /// Its connection.
    pub conn: ConnId,
    /// Who it is.
    pub client: Arc<ClientInfo>,
    /// It has sent CLS.
    pub closing: bool,
    /// Its RDY.
    pub ready_count: u32,
    /// Messages it holds.
    pub in_flight_count: u32,
    /// Messages sent to it.
    pub message_count: u64,
    /// Its FINs.
    pub finish_count: u64,
    /// Its REQs.
    pub requeue_count: u64,
}
