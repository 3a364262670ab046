//! A blocking connection to nsqd: handshake, commands out, frames in (spec: nsqd_protocol §1.1, §1.2, §1.6, §1.9).
//!
//! Comes in: an address and what to negotiate. Goes out: responses and messages; heartbeats are answered here and error
//! frames become errors. The rule: a read gives up after [`TICK`] so that its caller can look at the clock, and nothing
//! else in here waits without an end.

use super::frames::{Frames, Kind};
use anyhow::{Context, Result, anyhow, bail};
use serde::Deserialize;
use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::ops::Range;
use std::time::{Duration, Instant};

/// How long a read waits for bytes before its caller may look around.
pub(super) const TICK: Duration = Duration::from_millis(100);

/// How long nsqd may take to answer a command of the handshake, or to take bytes that were sent.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a connection asks for in IDENTIFY.
#[derive(Clone, Debug, Default)]
pub struct Identify {
    /// `output_buffer_timeout` in milliseconds, if not the server's own.
    pub output_buffer_timeout: Option<i64>,
    /// `output_buffer_size` in bytes, if not the server's own.
    pub output_buffer_size: Option<i64>,
}

/// What nsqd says of itself in its answer to IDENTIFY.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Server {
    /// nsqd's version.
    pub(super) version: String,
    /// The highest RDY that it accepts.
    pub(super) max_rdy_count: u64,
    /// The effective size of its output buffer, in bytes.
    pub(super) output_buffer_size: u64,
    /// The effective bound on how long it holds messages back, in milliseconds.
    pub(super) output_buffer_timeout: u64,
}

/// A connection after its handshake.
pub(super) struct Connection {
    stream: TcpStream,
    frames: Frames,
    server: Server,
}

/// A frame that its reader has to look at.
pub(super) enum Frame {
    /// A response, usually `OK`.
    Response(Range<usize>),
    /// A message.
    Message {
        /// How often it was sent, this time included.
        attempts: u16,
        /// Its ID's place.
        id: Range<usize>,
        /// Its body's place.
        body: Range<usize>,
    },
}

impl Connection {
    /// Connects and identifies; reads will take up to `buffer` bytes.
    pub(super) fn open(address: &str, identify: &Identify, buffer: usize) -> Result<Self> {
        let stream = TcpStream::connect(address)
            .with_context(|| format!("cannot connect to {address}; does nsqd listen there (--nsqd-tcp-address)?"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TICK))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut connection = Self { stream, frames: Frames::new(buffer), server: Server::default() };
        connection.send(&identify.encode()).context("IDENTIFY")?;
        let reply = connection.reply().context("IDENTIFY")?;
        if reply != b"OK" {
            connection.server = serde_json::from_slice(&reply).context("the answer to IDENTIFY is no JSON")?;
        }
        Ok(connection)
    }

    /// What nsqd answered to IDENTIFY.
    pub(super) fn server(&self) -> &Server {
        &self.server
    }

    /// Subscribes to a channel; nothing arrives before [`Connection::ready`].
    pub(super) fn subscribe(&mut self, topic: &str, channel: &str) -> Result<()> {
        self.send(format!("SUB {topic} {channel}\n").as_bytes())?;
        let reply = self.reply().with_context(|| format!("SUB {topic} {channel}"))?;
        if reply != b"OK" {
            bail!("SUB {topic} {channel}: unexpected answer {:?}", String::from_utf8_lossy(&reply));
        }
        Ok(())
    }

    /// Sets RDY, after a look at the limit that nsqd told.
    pub(super) fn ready(&mut self, count: u64) -> Result<()> {
        let limit = self.server.max_rdy_count;
        if limit > 0 && count > limit {
            bail!("--rdy {count} is more than nsqd's --max-rdy-count of {limit}");
        }
        self.send(format!("RDY {count}\n").as_bytes())
    }

    /// Writes all of `bytes`.
    pub(super) fn send(&mut self, bytes: &[u8]) -> Result<()> {
        match self.stream.write_all(bytes) {
            Err(error) if would_block(error.kind()) => bail!("nsqd has read nothing for {} s", PATIENCE.as_secs()),
            // A server that closes often says why first: let that be the error.
            Err(error) => match self.last_words() {
                Some(words) => Err(words),
                None => Err(error).context("connection lost while writing"),
            },
            Ok(()) => Ok(()),
        }
    }

    /// One read; false if nothing arrived within [`TICK`].
    pub(super) fn receive(&mut self) -> Result<bool> {
        match self.frames.fill(&mut self.stream) {
            Ok(0) => bail!("connection lost: nsqd closed it"),
            Ok(_) => Ok(true),
            Err(error) if would_block(error.kind()) => Ok(false),
            Err(error) => Err(error).context("connection lost while reading"),
        }
    }

    /// The next response or message among what was received.
    pub(super) fn next_frame(&mut self) -> Result<Option<Frame>> {
        while let Some(kind) = self.frames.next()? {
            match kind {
                Kind::Response(data) if self.frames.bytes(data.clone()) == b"_heartbeat_" => self.send(b"NOP\n")?,
                Kind::Response(data) => return Ok(Some(Frame::Response(data))),
                Kind::Error(data) => return Err(self.refusal(data)),
                Kind::Message { attempts, id, body } => return Ok(Some(Frame::Message { attempts, id, body })),
            }
        }
        Ok(None)
    }

    /// The bytes of a range that [`Connection::next_frame`] returned.
    pub(super) fn bytes(&self, range: Range<usize>) -> &[u8] {
        self.frames.bytes(range)
    }

    /// The socket, to wait for or to change its mode.
    pub(super) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// The next response, for commands before any message can arrive.
    fn reply(&mut self) -> Result<Vec<u8>> {
        let patience = Instant::now() + PATIENCE;
        loop {
            match self.next_frame()? {
                Some(Frame::Response(data)) => return Ok(self.bytes(data).to_vec()),
                Some(Frame::Message { .. }) => bail!("a message came before RDY"),
                None if Instant::now() > patience => bail!("nsqd gave no answer for {} s", PATIENCE.as_secs()),
                None => self.receive()?,
            };
        }
    }

    fn refusal(&self, data: Range<usize>) -> anyhow::Error {
        anyhow!("nsqd answered {}", String::from_utf8_lossy(self.bytes(data)))
    }

    /// An error frame that waits on a connection which no longer takes bytes.
    fn last_words(&mut self) -> Option<anyhow::Error> {
        loop {
            while let Ok(Some(kind)) = self.frames.next() {
                if let Kind::Error(data) = kind {
                    return Some(self.refusal(data));
                }
            }
            if !matches!(self.frames.fill(&mut self.stream), Ok(1..)) {
                return None;
            }
        }
    }
}

impl Identify {
    /// Magic and IDENTIFY.
    fn encode(&self) -> Vec<u8> {
        let mut body = serde_json::json!({
            "client_id": "nsq_bench",
            "user_agent": concat!("nsq_bench/", env!("CARGO_PKG_VERSION")),
            "feature_negotiation": true,
        });
        for (key, value) in
            [("output_buffer_timeout", self.output_buffer_timeout), ("output_buffer_size", self.output_buffer_size)]
        {
            if let Some(value) = value {
                body[key] = value.into();
            }
        }
        let body = body.to_string();
        [b"  V2IDENTIFY\n", &(body.len() as u32).to_be_bytes()[..], body.as_bytes()].concat()
    }
}

fn would_block(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}
