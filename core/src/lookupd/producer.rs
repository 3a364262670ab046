//! What an nsqd says of itself in IDENTIFY (spec: nsqd_protocol §5.2).
//!
//! The body is [JSON under Go's rules](crate::json); a producer has an address that clients can connect to, or is
//! refused.

use super::text::Fatal;
use crate::json::{self, Object, integer, string};
use alloc::string::String;
use core::fmt;
use serde::Serialize;
use serde::de::{IgnoredAny, MapAccess};

/// An nsqd, with the fields in the order in which `/lookup` and `/nodes` show them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Producer {
    /// Where its connection comes from, `ip:port`.
    pub remote_address: String,
    /// Its machine's name; may be empty.
    pub hostname: String,
    /// Where clients find it.
    pub broadcast_address: String,
    /// The same, for TCP.
    pub tcp_port: i64,
    /// The same, for HTTP.
    pub http_port: i64,
    /// Its release.
    pub version: String,
    /// May be empty.
    pub topology_zone: String,
    /// May be empty.
    pub topology_region: String,
}

/// What clients tell nsqds apart by: one address is one nsqd, however many connections it has.
pub(super) type Address<'a> = (&'a str, i64, i64);

impl Producer {
    /// Reads the body of an IDENTIFY that came from that address.
    pub(super) fn parse(body: &[u8], remote_address: &str) -> Result<Self, Fatal<'static>> {
        let producer: Self = json::parse(body).ok_or(Fatal::Json)?;
        let names_missing = producer.broadcast_address.is_empty() || producer.version.is_empty();
        if names_missing || producer.tcp_port == 0 || producer.http_port == 0 {
            return Err(Fatal::MissingFields);
        }
        Ok(Self { remote_address: remote_address.into(), ..producer })
    }

    pub(super) fn address(&self) -> Address<'_> {
        (&self.broadcast_address, self.tcp_port, self.http_port)
    }

    /// Whether `node` means this nsqd: `broadcast_address:http_port`. An IPv6 address may stand in brackets, which is
    /// how nsqadmin writes it.
    pub(super) fn is_node(&self, node: &str) -> bool {
        let Some((host, port)) = node.rsplit_once(':') else { return false };
        let host_is = |host| host == self.broadcast_address;
        let unwrapped = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        Number(self.http_port) == port && (host_is(host) || unwrapped.is_some_and(host_is))
    }
}

/// Equal to its one spelling.
struct Number(i64);

impl PartialEq<&str> for Number {
    fn eq(&self, text: &&str) -> bool {
        text.parse() == Ok(self.0) && !text.starts_with(['+', '0'])
    }
}

impl fmt::Display for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { broadcast_address, tcp_port, http_port, version, .. } = self;
        write!(f, "{broadcast_address:?} TCP:{tcp_port} HTTP:{http_port} version:{version:?}")
    }
}

impl Object for Producer {
    fn set<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "remote_address" => string(map, &mut self.remote_address),
            "hostname" => string(map, &mut self.hostname),
            "broadcast_address" => string(map, &mut self.broadcast_address),
            "tcp_port" => integer(map, &mut self.tcp_port),
            "http_port" => integer(map, &mut self.http_port),
            "version" => string(map, &mut self.version),
            "topology_zone" => string(map, &mut self.topology_zone),
            "topology_region" => string(map, &mut self.topology_region),
            _ => map.next_value::<IgnoredAny>().map(drop),
        }
    }
}
