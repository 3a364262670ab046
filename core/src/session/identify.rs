//! IDENTIFY: what a client says about itself, what it may choose, and the reply (spec: nsqd_protocol §1.6).
//!
//! The body is [JSON under Go's rules](crate::json). [`Request`] is what was asked, [`Choices`] what of it is in range.

use super::text::Fatal;
use crate::identity::ClientInfo;
use crate::json::{self, Object, boolean, integer, string};
use crate::options::Options;
use alloc::string::String;
use core::time::Duration;
use serde::de::{Error, IgnoredAny, MapAccess};

/// The body of IDENTIFY.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) client_id: String,
    pub(super) hostname: String,
    pub(super) user_agent: String,
    pub(super) topology_region: String,
    pub(super) topology_zone: String,
    pub(super) feature_negotiation: bool,
    heartbeat_interval: i64,
    output_buffer_size: i64,
    output_buffer_timeout: i64,
    sample_rate: i64,
    msg_timeout: i64,
}

/// What a client may choose for one setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// 0: as it is.
    Keep,
    /// -1: switched off.
    Off,
    /// A number in range, in the setting's unit.
    Value(u64),
}

/// The settings of a request that was checked.
#[derive(Debug)]
pub(super) struct Choices {
    /// ms
    pub(super) heartbeat_interval: Choice,
    /// ms
    output_buffer_timeout: Choice,
    /// bytes
    output_buffer_size: Choice,
    /// percent
    pub(super) sample_rate: u8,
    /// ms
    pub(super) msg_timeout: Choice,
}

impl Request {
    /// Checks the ranges, in the order in which upstream does.
    pub(super) fn choices(&self, options: &Options) -> Result<Choices, Fatal<'static>> {
        let heartbeat_interval =
            choice("heartbeat interval", self.heartbeat_interval, 1000, millis(options.max_heartbeat_interval))?;
        let output_buffer_timeout = choice(
            "output buffer timeout",
            self.output_buffer_timeout,
            millis(options.min_output_buffer_timeout),
            millis(options.max_output_buffer_timeout),
        )?;
        let output_buffer_size =
            choice("output buffer size", self.output_buffer_size, 64, options.max_output_buffer_size)?;
        let sample_rate = match u8::try_from(self.sample_rate) {
            Ok(rate @ ..=99) => rate,
            _ => return Err(Fatal::IdentifyRange("sample rate", self.sample_rate)),
        };
        let msg_timeout = choice("msg timeout", self.msg_timeout, 1000, millis(options.max_msg_timeout))?;
        if msg_timeout == Choice::Off {
            return Err(Fatal::IdentifyRange("msg timeout", -1));
        }
        Ok(Choices { heartbeat_interval, output_buffer_timeout, output_buffer_size, sample_rate, msg_timeout })
    }
}

impl Object for Request {
    fn set<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "client_id" => string(map, &mut self.client_id),
            "hostname" => string(map, &mut self.hostname),
            "user_agent" => string(map, &mut self.user_agent),
            "topology_region" => string(map, &mut self.topology_region),
            "topology_zone" => string(map, &mut self.topology_zone),
            "feature_negotiation" => boolean(map, &mut self.feature_negotiation),
            "heartbeat_interval" => integer(map, &mut self.heartbeat_interval),
            "output_buffer_size" => integer(map, &mut self.output_buffer_size),
            "output_buffer_timeout" => integer(map, &mut self.output_buffer_timeout),
            "msg_timeout" => integer(map, &mut self.msg_timeout),
            "sample_rate" => {
                integer(map, &mut self.sample_rate)?;
                i32::try_from(self.sample_rate).map(drop).map_err(A::Error::custom)
            }
            // Not granted, but a wrong type is an error all the same.
            "tls_v1" | "snappy" | "deflate" => boolean(map, &mut false),
            "deflate_level" => integer(map, &mut 0),
            _ => map.next_value::<IgnoredAny>().map(drop),
        }
    }
}

fn choice(what: &'static str, value: i64, min: u64, max: u64) -> Result<Choice, Fatal<'static>> {
    match u64::try_from(value) {
        Err(_) if value == -1 => Ok(Choice::Off),
        Ok(0) => Ok(Choice::Keep),
        Ok(value) if (min..=max).contains(&value) => Ok(Choice::Value(value)),
        _ => Err(Fatal::IdentifyRange(what, value)),
    }
}

/// Milliseconds, as the protocol has durations.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// What the client chose about the output, which it is told again. Frames leave as soon as there is nothing more to
/// send with them, so both are only upper bounds.
#[derive(Debug)]
pub(super) struct Output {
    /// bytes
    buffer_size: u64,
    buffer_timeout: Duration,
}

impl Output {
    pub(super) fn new(options: &Options) -> Self {
        Self { buffer_size: 16 * 1024, buffer_timeout: options.output_buffer_timeout }
    }

    /// No buffer needs no timeout.
    pub(super) fn choose(&mut self, choices: &Choices) {
        match choices.output_buffer_timeout {
            Choice::Keep => {}
            Choice::Off => self.buffer_timeout = Duration::ZERO,
            Choice::Value(millis) => self.buffer_timeout = Duration::from_millis(millis),
        }
        match choices.output_buffer_size {
            Choice::Keep => {}
            Choice::Off => *self = Self { buffer_size: 1, buffer_timeout: Duration::ZERO },
            Choice::Value(bytes) => self.buffer_size = bytes,
        }
    }
}

/// The reply to a client that negotiates; nsqd's own region and zone, not the client's.
pub(super) fn reply(options: &Options, client: &ClientInfo, output: &Output) -> String {
    let level = options.max_deflate_level;
    json::write(&Reply {
        max_rdy_count: options.max_rdy_count,
        version: &options.version,
        max_msg_timeout: millis(options.max_msg_timeout),
        msg_timeout: millis(client.msg_timeout),
        tls_v1: false,
        deflate: false,
        deflate_level: level.min(6),
        max_deflate_level: level,
        snappy: false,
        sample_rate: client.sample_rate,
        auth_required: false,
        output_buffer_size: output.buffer_size,
        output_buffer_timeout: millis(output.buffer_timeout),
        topology_region: &options.topology_region,
        topology_zone: &options.topology_zone,
    })
}

/// Keys in upstream's order.
#[derive(serde::Serialize)]
struct Reply<'a> {
    max_rdy_count: u64,
    version: &'a str,
    max_msg_timeout: u64,
    msg_timeout: u64,
    tls_v1: bool,
    deflate: bool,
    deflate_level: u8,
    max_deflate_level: u8,
    snappy: bool,
    sample_rate: u8,
    auth_required: bool,
    output_buffer_size: u64,
    output_buffer_timeout: u64,
    topology_region: &'a str,
    topology_zone: &'a str,
}
