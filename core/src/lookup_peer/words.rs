//! What nsqd and nsqlookupd say to each other, as nsqd writes and reads it (spec: nsqd_protocol §5.1, §5.2, §5.4).
//!
//! What is read comes from the network: sizes and counts have bounds, names are parsed, nothing is believed.

use super::PATIENCE;
use crate::directory::Change;
use crate::json::{self, Object, integer, string};
use crate::name::ChannelName;
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use bytes::{Buf, Bytes, BytesMut};
use core::fmt;
use serde::Serialize;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Who this nsqd is, as IDENTIFY tells it: keys in alphabetical order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Nsqd {
    /// `--broadcast-address`
    pub broadcast_address: String,
    /// The machine's name.
    pub hostname: String,
    /// Where clients find its HTTP side; nsqlookupds refuse 0.
    pub http_port: u16,
    /// The same for TCP.
    pub tcp_port: u16,
    /// `--topology-region`
    pub topology_region: String,
    /// `--topology-zone`
    pub topology_zone: String,
    /// This release.
    pub version: String,
}

impl Nsqd {
    /// The magic and IDENTIFY.
    pub(super) fn hello(&self) -> Bytes {
        let body = json::write(self);
        let size = u32::try_from(body.len()).expect("a few options are short");
        [b"  V1IDENTIFY\n", &size.to_be_bytes()[..], body.as_bytes()].concat().into()
    }
}

/// Who an nsqlookupd is, as its reply to IDENTIFY tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lookupd {
    broadcast_address: String,
    http_port: i64,
    /// Its release, for the log.
    pub version: String,
}

impl Lookupd {
    /// Reads the reply; `None` if it is none.
    pub(super) fn parse(reply: &[u8]) -> Option<Self> {
        json::parse(reply)
    }

    /// Where its HTTP side is, `host:port`, if it has told.
    pub fn http_address(&self) -> Option<String> {
        let host = &self.broadcast_address;
        let port = u16::try_from(self.http_port).ok().filter(|port| *port > 0 && !host.is_empty())?;
        Some(if host.contains(':') && !host.starts_with('[') {
            format!("[{host}]:{port}")
        } else {
            format!("{host}:{port}")
        })
    }
}

impl Object for Lookupd {
    fn set<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "broadcast_address" => string(map, &mut self.broadcast_address),
            "http_port" => integer(map, &mut self.http_port),
            "version" => string(map, &mut self.version),
            _ => map.next_value::<IgnoredAny>().map(drop),
        }
    }
}

/// REGISTER or UNREGISTER.
pub(super) fn command(change: &Change, out: &mut Vec<u8>) {
    let Change { is_new, topic, channel } = change;
    out.extend_from_slice(if *is_new { b"REGISTER " } else { b"UNREGISTER " });
    out.extend_from_slice(topic.as_str().as_bytes());
    if let Some(channel) = channel {
        out.push(b' ');
        out.extend_from_slice(channel.as_str().as_bytes());
    }
    out.push(b'\n');
}

/// Takes the first complete reply off the bytes, if there is one. Upstream's nsqd dies of a negative size, and makes
/// room for any other.
pub(super) fn take_reply(bytes: &mut BytesMut, max: usize) -> Result<Option<Bytes>, String> {
    let Some(size) = bytes.first_chunk().copied().map(i32::from_be_bytes) else { return Ok(None) };
    let Some(length) = usize::try_from(size).ok().filter(|length| *length <= max) else {
        return Err(format!("it announced a reply of {size} bytes, the most is {max}"));
    };
    if bytes.len() - size_of::<i32>() < length {
        return Ok(None);
    }
    bytes.advance(size_of::<i32>());
    Ok(Some(bytes.split_to(length).freeze()))
}

/// The beginning of what a peer said, for a log line.
pub(super) fn shown(reply: &[u8]) -> String {
    const SHOWN: usize = 100;
    let dots = if reply.len() > SHOWN { "..." } else { "" };
    format!("\"{}{dots}\"", reply[..reply.len().min(SHOWN)].escape_ascii())
}

pub(super) fn late(what: &str) -> String {
    format!("no {what} within {} s", PATIENCE.as_secs())
}

/// What an nsqlookupd knows of a topic's channels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Channels {
    /// Those to be created: not the ephemeral ones, which live as long as somebody uses them.
    pub names: BTreeSet<ChannelName>,
    /// How many were left out: no names, or too many of them.
    pub refused: usize,
}

/// The most channels that are taken from one answer.
const CHANNELS_MAX: usize = 1000;

/// Reads the answer to `GET /channels?topic=T`.
///
/// # Errors
/// What is wrong with it.
pub fn channels(json: &[u8]) -> Result<Channels, String> {
    #[derive(serde::Deserialize)]
    struct Answer {
        channels: Option<Channels>,
    }
    let answer: Answer = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    Ok(answer.channels.unwrap_or_default())
}

impl<'de> Deserialize<'de> for Channels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = Channels;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of names")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Channels, A::Error> {
                let mut channels = Channels::default();
                while let Some(name) = list.next_element::<String>()? {
                    match ChannelName::new(&name) {
                        Some(name) if name.is_ephemeral() => {}
                        Some(name) if channels.names.len() < CHANNELS_MAX => drop(channels.names.insert(name)),
                        _ => channels.refused += 1,
                    }
                }
                Ok(channels)
            }
        }
        deserializer.deserialize_seq(Names)
    }
}
