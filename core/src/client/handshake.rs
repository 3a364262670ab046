//! IDENTIFY from the client's side: what a client says of itself, and what nsqd grants (spec: nsqd_protocol §1.6).
//!
//! Settings go out as JSON. The reply is JSON again, or a plain `OK` of an nsqd that negotiates nothing; whatever a
//! reply leaves out keeps upstream's default.

use crate::time::Duration;
use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// What a connection asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Names the process in nsqd's statistics.
    pub client_id: String,
    /// The machine's name, for statistics.
    pub hostname: String,
    /// The program and its version, for statistics.
    pub user_agent: String,
    /// How often nsqd sends heartbeats; a connection that is silent for twice as long is given up. At least a second.
    pub heartbeat_interval: Duration,
    /// How long a message may be in flight; nsqd decides if there is none.
    pub msg_timeout: Option<Duration>,
    /// Percent of messages to get; 0 is all.
    pub sample_rate: u8,
    /// The largest message to accept, in bytes.
    pub max_msg_size: usize,
    /// How long connecting and being accepted may take.
    pub connect_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            client_id: String::new(),
            hostname: String::new(),
            user_agent: concat!("nsq-rust/", env!("CARGO_PKG_VERSION")).into(),
            heartbeat_interval: Duration::from_secs(30),
            msg_timeout: None,
            sample_rate: 0,
            max_msg_size: 64 << 20,
            connect_timeout: Duration::from_secs(5),
        }
    }
}

/// What nsqd grants a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The highest RDY it takes.
    pub max_rdy: u32,
    /// How long a message may be in flight.
    pub msg_timeout: Duration,
    /// How long with any number of TOUCHes.
    pub max_msg_timeout: Duration,
    /// How long the way there and back took.
    pub round_trip: Duration,
}

#[derive(Serialize)]
struct Request<'a> {
    client_id: &'a str,
    hostname: &'a str,
    user_agent: &'a str,
    feature_negotiation: bool,
    heartbeat_interval: u64,
    #[serde(skip_serializing_if = "is_zero")]
    msg_timeout: u64,
    #[serde(skip_serializing_if = "is_zero")]
    sample_rate: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[derive(Deserialize)]
#[serde(default)]
struct Reply {
    max_rdy_count: i64,
    msg_timeout: i64,
    max_msg_timeout: i64,
}

impl Default for Reply {
    fn default() -> Self {
        Self { max_rdy_count: 2500, msg_timeout: 60_000, max_msg_timeout: 900_000 }
    }
}

impl Settings {
    /// The body of IDENTIFY.
    pub(super) fn request(&self) -> Vec<u8> {
        let request = Request {
            client_id: &self.client_id,
            hostname: &self.hostname,
            user_agent: &self.user_agent,
            feature_negotiation: true,
            heartbeat_interval: millis(self.heartbeat_interval),
            msg_timeout: self.msg_timeout.map_or(0, millis),
            sample_rate: self.sample_rate.into(),
        };
        serde_json::to_vec(&request).expect("strings and numbers can be written")
    }

    /// Reads the reply to IDENTIFY; `None` if it is neither `OK` nor JSON that makes sense.
    pub(super) fn granted(&self, reply: &[u8], round_trip: Duration) -> Option<Limits> {
        let reply = match reply {
            b"OK" => {
                Reply { msg_timeout: self.msg_timeout.map_or(60_000, |asked| millis(asked) as i64), ..Reply::default() }
            }
            [b'{', ..] => serde_json::from_slice(reply).ok()?,
            _ => return None,
        };
        Some(Limits {
            max_rdy: u32::try_from(reply.max_rdy_count).ok().filter(|most| *most > 0)?,
            msg_timeout: Duration::from_millis(u64::try_from(reply.msg_timeout).ok().filter(|millis| *millis > 0)?),
            max_msg_timeout: Duration::from_millis(u64::try_from(reply.max_msg_timeout).ok()?),
            round_trip,
        })
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_set_is_asked_for() {
        let mut settings = Settings { client_id: "a\"b".into(), user_agent: "x/1".into(), ..Settings::default() };
        assert_eq!(
            String::from_utf8(settings.request()).unwrap(),
            r#"{"client_id":"a\"b","hostname":"","user_agent":"x/1","feature_negotiation":true,"heartbeat_interval":30000}"#
        );
        settings.msg_timeout = Some(Duration::from_millis(1500));
        settings.sample_rate = 7;
        assert!(settings.request().ends_with(br#","msg_timeout":1500,"sample_rate":7}"#));
    }

    #[test]
    fn replies_of_all_kinds() {
        let settings = Settings { msg_timeout: Some(Duration::from_secs(3)), ..Settings::default() };
        let granted = |reply: &str| settings.granted(reply.as_bytes(), Duration::from_millis(1));
        let limits = granted(r#"{"max_rdy_count":5,"msg_timeout":2000,"max_msg_timeout":9000,"new":[{}]}"#).unwrap();
        assert_eq!(
            (limits.max_rdy, limits.msg_timeout.as_millis(), limits.max_msg_timeout.as_millis()),
            (5, 2000, 9000)
        );
        assert_eq!(granted("{}").unwrap().max_rdy, 2500);
        assert_eq!(granted("OK").unwrap().msg_timeout.as_secs(), 3);
        for nonsense in
            ["", "ok", "[]", "{", "null", r#"{"max_rdy_count":0}"#, r#"{"max_rdy_count":"5"}"#, r#"{"msg_timeout":-1}"#]
        {
            assert_eq!(granted(nonsense), None, "{nonsense}");
        }
    }
}
