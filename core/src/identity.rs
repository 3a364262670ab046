//! Who a connection says it is: what IDENTIFY brought, for stats and for deliveries.

use crate::time::Timestamp;
use alloc::string::String;
use core::time::Duration;

/// A client as `/stats` shows it (spec: http_flags_tools §1.8) and as IDENTIFY settled it (spec: nsqd_protocol §1.6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientInfo {
    /// From IDENTIFY; the peer's IP until then.
    pub client_id: String,
    /// From IDENTIFY; the peer's IP until then.
    pub hostname: String,
    /// From IDENTIFY.
    pub user_agent: String,
    /// From IDENTIFY.
    pub topology_region: String,
    /// From IDENTIFY.
    pub topology_zone: String,
    /// `ip:port`.
    pub remote_address: String,
    /// When the connection was accepted.
    pub connected: Timestamp,
    /// Percent of messages it wants; 0 is all.
    pub sample_rate: u8,
    /// How long it may hold a message.
    pub msg_timeout: Duration,
}
