//! The shape of `/stats` (spec: http_flags_tools §1.8): the fields of these types, in their order, are the JSON.
//!
//! In: what `gather` has collected. Out: JSON here, text in `text`. Whether a list is `null` or `[]` matters to
//! clients: `None` is a list that was not asked for, or of a topic that does not exist.

use nsq_core::identity::ClientInfo;
use nsq_core::session::State;
use nsq_core::time::Timestamp;
use nsq_core::topic::stats::{ChannelStats, ConsumerStats, TopicStats};
use serde::{Serialize, Serializer};

#[derive(Debug, Serialize)]
pub(super) struct Stats<'a> {
    pub(super) version: &'a str,
    pub(super) health: &'a str,
    #[serde(serialize_with = "seconds")]
    pub(super) start_time: Timestamp,
    pub(super) topics: Option<Vec<Topic<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) memory: Option<Memory>,
    pub(super) producers: Option<Vec<Client<'a>>>,
}

#[derive(Debug, Serialize)]
pub(super) struct Topic<'a> {
    pub(super) topic_name: &'a str,
    pub(super) channels: Vec<Channel<'a>>,
    pub(super) depth: u64,
    pub(super) backend_depth: u64,
    pub(super) message_count: u64,
    pub(super) message_bytes: u64,
    pub(super) paused: bool,
    /// Ours, like `lost`, and told only where it says something.
    #[serde(skip_serializing_if = "is_default")]
    pub(super) durable: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub(super) lost: u64,
    pub(super) e2e_processing_latency: Latency,
}

#[derive(Debug, Serialize)]
pub(super) struct Channel<'a> {
    pub(super) channel_name: &'a str,
    pub(super) depth: u64,
    pub(super) backend_depth: u64,
    pub(super) in_flight_count: usize,
    pub(super) deferred_count: usize,
    pub(super) message_count: u64,
    pub(super) requeue_count: u64,
    pub(super) timeout_count: u64,
    pub(super) client_count: usize,
    pub(super) clients: Option<Vec<Client<'a>>>,
    pub(super) paused: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub(super) lost: u64,
    pub(super) e2e_processing_latency: Latency,
}

/// A connection, as a consumer, a producer, or both.
#[derive(Debug, Serialize)]
pub(super) struct Client<'a> {
    pub(super) client_id: &'a str,
    pub(super) hostname: &'a str,
    pub(super) version: &'static str,
    pub(super) remote_address: &'a str,
    pub(super) state: u8,
    pub(super) ready_count: u32,
    pub(super) in_flight_count: u32,
    pub(super) message_count: u64,
    pub(super) finish_count: u64,
    pub(super) requeue_count: u64,
    #[serde(serialize_with = "seconds")]
    pub(super) connect_ts: Timestamp,
    sample_rate: u8,
    deflate: bool,
    snappy: bool,
    pub(super) user_agent: &'a str,
    topology_zone: &'a str,
    topology_region: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) pub_counts: Vec<PubCount<'a>>,
    tls: bool,
    tls_cipher_suite: &'static str,
    tls_version: &'static str,
    tls_negotiated_protocol: &'static str,
    tls_negotiated_protocol_is_mutual: bool,
}

#[derive(Debug, Serialize)]
pub(super) struct PubCount<'a> {
    pub(super) topic: &'a str,
    pub(super) count: u64,
}

/// Percentiles are not collected, which upstream shows like this.
#[derive(Debug, Default, Serialize)]
pub(super) struct Latency {
    count: u64,
    percentiles: Option<()>,
}

/// Upstream's view of Go's heap. What we hold on purpose is in use; nobody collects garbage here.
#[derive(Debug, Default, Serialize)]
pub(super) struct Memory {
    heap_objects: u64,
    heap_idle_bytes: u64,
    heap_in_use_bytes: usize,
    heap_released_bytes: u64,
    gc_pause_usec_100: u64,
    gc_pause_usec_99: u64,
    gc_pause_usec_95: u64,
    next_gc_bytes: u64,
    gc_total_runs: u64,
}

impl<'a> Topic<'a> {
    pub(super) fn new(stats: &'a TopicStats, channels: Vec<Channel<'a>>) -> Self {
        Self {
            topic_name: stats.name.as_str(),
            channels,
            depth: stats.depth,
            backend_depth: stats.backend_depth,
            message_count: stats.message_count,
            message_bytes: stats.message_bytes,
            paused: stats.paused,
            durable: stats.durable,
            lost: stats.lost,
            e2e_processing_latency: Latency::default(),
        }
    }
}

impl<'a> Channel<'a> {
    pub(super) fn new(stats: &'a ChannelStats, clients: Option<Vec<Client<'a>>>) -> Self {
        Self {
            channel_name: stats.name.as_str(),
            depth: stats.depth,
            backend_depth: stats.backend_depth,
            in_flight_count: stats.in_flight_count,
            deferred_count: stats.deferred_count,
            message_count: stats.message_count,
            requeue_count: stats.requeue_count,
            timeout_count: stats.timeout_count,
            client_count: stats.client_count,
            clients,
            paused: stats.paused,
            lost: stats.lost,
            e2e_processing_latency: Latency::default(),
        }
    }
}

impl<'a> Client<'a> {
    /// A connection that has consumed nothing.
    pub(super) fn new(client: &'a ClientInfo, state: u8, pub_counts: Vec<PubCount<'a>>) -> Self {
        Self {
            client_id: &client.client_id,
            hostname: &client.hostname,
            version: "V2",
            remote_address: &client.remote_address,
            state,
            ready_count: 0,
            in_flight_count: 0,
            message_count: 0,
            finish_count: 0,
            requeue_count: 0,
            connect_ts: client.connected,
            sample_rate: client.sample_rate,
            // Neither compression nor TLS can be negotiated.
            deflate: false,
            snappy: false,
            user_agent: &client.user_agent,
            topology_zone: &client.topology_zone,
            topology_region: &client.topology_region,
            pub_counts,
            tls: false,
            tls_cipher_suite: "",
            tls_version: "",
            tls_negotiated_protocol: "",
            tls_negotiated_protocol_is_mutual: false,
        }
    }

    /// The same connection's share of a channel.
    pub(super) fn consuming(self, consumer: &ConsumerStats) -> Self {
        Self {
            state: if consumer.closing { State::Closing } else { State::Subscribed } as u8,
            ready_count: consumer.ready_count,
            in_flight_count: consumer.in_flight_count,
            message_count: consumer.message_count,
            finish_count: consumer.finish_count,
            requeue_count: consumer.requeue_count,
            ..self
        }
    }
}

impl Memory {
    /// `queued` is the size in bytes of all messages that are held.
    pub(super) fn new(queued: usize) -> Self {
        Self { heap_in_use_bytes: queued, ..Self::default() }
    }

    /// By name, in order.
    pub(super) const fn rows(&self) -> [(&'static str, u64); 9] {
        [
            ("heap_objects", self.heap_objects),
            ("heap_idle_bytes", self.heap_idle_bytes),
            ("heap_in_use_bytes", self.heap_in_use_bytes as u64),
            ("heap_released_bytes", self.heap_released_bytes),
            ("gc_pause_usec_100", self.gc_pause_usec_100),
            ("gc_pause_usec_99", self.gc_pause_usec_99),
            ("gc_pause_usec_95", self.gc_pause_usec_95),
            ("next_gc_bytes", self.next_gc_bytes),
            ("gc_total_runs", self.gc_total_runs),
        ]
    }
}

fn seconds<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_i64(time.as_secs())
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
