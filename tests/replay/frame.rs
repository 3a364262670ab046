//! Frames of NSQ's V2 protocol, as they come and as transcripts expect them.
//!
//! In come bytes of a connection and the text of a step, out goes whether they fit. Read here on its own, not with
//! the server's code: a mistake there must not hide itself here.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::conn::Conn;
use super::facts::{Facts, Misfit};
use super::failure::Outcome;
use super::text::{Text, show};

const SHOWN: usize = 1000;
const SLACK: Duration = Duration::from_secs(1);

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    Response(Vec<u8>),
    Error(Vec<u8>),
    Message { id: Vec<u8>, timestamp: i64, attempts: u16, body: Vec<u8> },
}

impl Frame {
    pub(crate) fn take(conn: &mut Conn, deadline: Instant) -> Outcome<Self> {
        let mut frame = conn.take_sized(deadline)?;
        if frame.len() < 4 {
            return Err(format!("a frame without a type: {}", show(&frame, SHOWN)).into());
        }
        let data = frame.split_off(4);
        match (frame.as_slice(), data.len()) {
            ([0, 0, 0, 0], _) => Ok(Self::Response(data)),
            ([0, 0, 0, 1], _) => Ok(Self::Error(data)),
            ([0, 0, 0, 2], 26..) => Ok(Self::Message {
                timestamp: i64::from_be_bytes(data[..8].try_into().expect("eight bytes")),
                attempts: u16::from_be_bytes([data[8], data[9]]),
                id: data[10..26].to_vec(),
                body: data[26..].to_vec(),
            }),
            ([0, 0, 0, 2], _) => Err(format!("a message frame that is too short: {}", show(&data, SHOWN)).into()),
            _ => Err(format!("not a frame type: {}", show(&frame, SHOWN)).into()),
        }
    }
}

impl std::fmt::Display for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Response(data) => write!(f, "response {}", show(data, SHOWN)),
            Self::Error(data) => write!(f, "error {}", show(data, SHOWN)),
            Self::Message { id, timestamp, attempts, body } => {
                write!(f, "message {} {timestamp} {attempts} {}", show(id, 16), show(body, SHOWN))
            }
        }
    }
}

/// `response TEXT`, `error TEXT` or `message ID TS ATTEMPTS BODY`.
#[derive(Debug)]
pub(crate) enum FramePattern {
    Response(Text),
    Error(Text),
    Message([Text; 4]),
}

impl FramePattern {
    pub(crate) fn parse(source: &str) -> Result<Self, String> {
        let (kind, rest) = source.split_once(' ').unwrap_or((source, ""));
        match kind {
            "response" => Text::parse(rest).map(Self::Response),
            "error" => Text::parse(rest).map(Self::Error),
            "message" => {
                let mut fields = rest.splitn(4, ' ').map(Text::parse);
                let mut field = || fields.next().unwrap_or_else(|| Err("message needs ID TS ATTEMPTS BODY".into()));
                Ok(Self::Message([field()?, field()?, field()?, field()?]))
            }
            _ => Err(format!("no such expectation: {kind}")),
        }
    }

    /// The frame fits, and a message is not older than the scenario (`began`) nor from the future.
    pub(crate) fn fit(&self, facts: &mut Facts, frame: &Frame, began: SystemTime) -> Result<(), Misfit> {
        match (self, frame) {
            (Self::Response(pattern), Frame::Response(data)) | (Self::Error(pattern), Frame::Error(data)) => {
                facts.fit(pattern, data)
            }
            (Self::Message(patterns), Frame::Message { id, timestamp, attempts, body })
                if (nanos(began - SLACK)..=nanos(SystemTime::now() + SLACK)).contains(timestamp) =>
            {
                let (timestamp, attempts) = (timestamp.to_string(), attempts.to_string());
                let data: [&[u8]; 4] = [id, timestamp.as_bytes(), attempts.as_bytes(), body];
                facts.fit_all(&patterns.iter().zip(data).collect::<Vec<_>>())
            }
            _ => Err(Misfit::default()),
        }
    }
}

fn nanos(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}
