//! What an operator can set about the protocol and the queues. Names and defaults are upstream's flags
//! (spec: nsqd_protocol, appendix A); drivers and programs add their own.

use alloc::string::{String, ToString};
use core::time::Duration;

/// Options of an nsqd as far as the machines in core look at them.
#[derive(Clone, Debug)]
pub struct Options {
    /// The version reported to clients and in `nsqd.dat`.
    pub version: String,
    /// `--node-id`: 10 bits that go into every message id.
    pub node_id: u16,
    /// `--max-msg-size`, bytes; what holds is [`message_limit`](Self::message_limit).
    pub max_msg_size: u64,
    /// `--max-body-size`, bytes: bodies of IDENTIFY, AUTH and MPUB.
    pub max_body_size: u64,
    /// `--max-rdy-count`
    pub max_rdy_count: u64,
    /// `--msg-timeout`
    pub msg_timeout: Duration,
    /// `--max-msg-timeout`: how far TOUCH can extend a timeout, and the most a client may ask for.
    pub max_msg_timeout: Duration,
    /// `--max-req-timeout`: the longest deferral of REQ (clamped) and DPUB (refused).
    pub max_req_timeout: Duration,
    /// Default interval of heartbeats; not a flag (half of upstream's client timeout).
    pub heartbeat_interval: Duration,
    /// `--max-heartbeat-interval`
    pub max_heartbeat_interval: Duration,
    /// `--max-output-buffer-size`, bytes.
    pub max_output_buffer_size: u64,
    /// `--output-buffer-timeout`
    pub output_buffer_timeout: Duration,
    /// `--min-output-buffer-timeout`
    pub min_output_buffer_timeout: Duration,
    /// `--max-output-buffer-timeout`
    pub max_output_buffer_timeout: Duration,
    /// `--max-channel-consumers`; 0 is no limit.
    pub max_channel_consumers: usize,
    /// `--mem-queue-size`: messages a queue keeps in memory before it overflows.
    pub mem_queue_size: u64,
    /// `--max-bytes-per-file`: a segment of the log is not made larger, unless by a single message.
    pub max_bytes_per_file: u64,
    /// `--sync-every`: after so many messages written the disk is told to keep them.
    pub sync_every: u64,
    /// `--sync-timeout`: after so long it is in any case.
    pub sync_timeout: Duration,
    /// `--max-deflate-level`
    pub max_deflate_level: u8,
    /// `--topology-region`
    pub topology_region: String,
    /// `--topology-zone`
    pub topology_zone: String,
}

/// The largest body that a record of the log can hold, with some room to spare, bytes.
pub const MESSAGE_MAX: u64 = (1 << 29) - 1024;

impl Options {
    /// The largest message that is taken, bytes: `--max-msg-size`, up to [`MESSAGE_MAX`].
    pub fn message_limit(&self) -> u64 {
        self.max_msg_size.min(MESSAGE_MAX)
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").to_string(),
            node_id: 0,
            max_msg_size: 1024 * 1024,
            max_body_size: 5 * 1024 * 1024,
            max_rdy_count: 2500,
            msg_timeout: Duration::from_secs(60),
            max_msg_timeout: Duration::from_secs(15 * 60),
            max_req_timeout: Duration::from_secs(60 * 60),
            heartbeat_interval: Duration::from_secs(30),
            max_heartbeat_interval: Duration::from_secs(60),
            max_output_buffer_size: 64 * 1024,
            output_buffer_timeout: Duration::from_millis(250),
            min_output_buffer_timeout: Duration::from_millis(25),
            max_output_buffer_timeout: Duration::from_secs(30),
            max_channel_consumers: 0,
            mem_queue_size: 10_000,
            max_bytes_per_file: 100 * 1024 * 1024,
            sync_every: 2500,
            sync_timeout: Duration::from_secs(2),
            max_deflate_level: 6,
            topology_region: String::new(),
            topology_zone: String::new(),
        }
    }
}
