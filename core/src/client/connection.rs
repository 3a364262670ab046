//! A connection to one nsqd from the client's side (spec: nsqd_protocol §1).
//!
//! In: what was read from the socket, and commands. Out: bytes to write, and [`Event`]s. Heartbeats are answered here,
//! and each reply finds the command that waits for it, because nsqd answers in order. The one rule: what nsqd sends is
//! bounded and believed in nothing; a connection that makes no sense, or is silent for two heartbeats, has a [`Fault`]
//! and is over.

use super::handshake::{Limits, Settings};
use super::publish::Publish;
use crate::message::{MessageId, PAYLOAD_HEADER};
use crate::name::{ChannelName, TopicName};
use crate::time::{Duration, Instant};
use crate::wire::{self, Frame, Message};
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use bytes::{Bytes, BytesMut};
use core::fmt;

/// What a connection is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Publishing.
    Produce,
    /// Being a consumer of this channel.
    Consume(TopicName, ChannelName),
}

/// Names a publish until it has been answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// What a client says to nsqd after the handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// RDY
    Ready(u32),
    /// FIN
    Finish(MessageId),
    /// REQ
    Requeue(MessageId, Duration),
    /// TOUCH
    Touch(MessageId),
    /// CLS
    Close,
    /// PUB, MPUB or DPUB
    Publish(Token, Publish),
}

/// What a connection has to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The handshake is over: commands may be sent.
    Open(Limits),
    /// A message for a consumer.
    Message(Message),
    /// FIN, REQ or TOUCH failed: nsqd's words, which name the message. The connection goes on.
    Failed(String),
    /// A publish was accepted.
    Published(Token),
    /// The answer to CLS. A message that was on its way may still come.
    Closing,
}

/// Why a connection is over.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// What came is not NSQ's protocol, or larger than was agreed to.
    Malformed(String),
    /// nsqd was silent for so long.
    Silent(Duration),
    /// nsqd ended it with these words.
    Refused(String),
    /// A reply that nobody waits for.
    Unexpected(String),
}

/// What became of the publishes of a connection that is over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unanswered {
    /// nsqd refused this one, with these words.
    pub refused: Option<(Token, String)>,
    /// nsqd has certainly not taken these, in the order in which they were sent.
    pub untaken: Vec<Token>,
    /// nsqd may or may not have taken these.
    pub unknown: Vec<Token>,
}

#[derive(Debug)]
enum Awaited {
    Identify {
        sent: Instant,
    },
    Subscribe,
    /// And where its command ends in the stream of bytes.
    Publish {
        token: Token,
        end: u64,
    },
    Close,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Connection {
    settings: Arc<Settings>,
    purpose: Purpose,
    awaited: VecDeque<Awaited>,
    limits: Option<Limits>,
    open: bool,
    heard: Instant,
    /// Bytes put out so far, and how many there were after the last NOP.
    put: u64,
    nop: u64,
    refused: Option<String>,
}

impl Connection {
    /// Begins the handshake.
    pub fn new(now: Instant, settings: Arc<Settings>, purpose: Purpose, out: &mut BytesMut) -> Self {
        let mut connection = Self {
            settings,
            purpose,
            awaited: VecDeque::from([Awaited::Identify { sent: now }]),
            limits: None,
            open: false,
            heard: now,
            put: 0,
            nop: 0,
            refused: None,
        };
        let json = connection.settings.request();
        connection.put(out, |out| {
            out.extend_from_slice(wire::MAGIC);
            wire::identify(&json, out);
        });
        connection
    }

    /// Puts a command into words. Only after [`Event::Open`].
    pub fn send(&mut self, command: Command, out: &mut BytesMut) {
        debug_assert!(self.open, "{command:?} before the end of the handshake");
        self.put(out, |out| match &command {
            Command::Ready(count) => wire::ready(*count, out),
            Command::Finish(id) => wire::finish(*id, out),
            Command::Requeue(id, delay) => wire::requeue(*id, *delay, out),
            Command::Touch(id) => wire::touch(*id, out),
            Command::Close => wire::close(out),
            Command::Publish(_, publish) => publish.write(out),
        });
        match command {
            Command::Publish(token, _) => self.awaited.push_back(Awaited::Publish { token, end: self.put }),
            Command::Close => self.awaited.push_back(Awaited::Close),
            _ => {}
        }
    }

    /// Takes in what was read: all complete frames. `out` is to hold what was put there and has not been written yet.
    ///
    /// # Errors
    /// If the connection is over. Events before that are valid.
    pub fn read(
        &mut self,
        now: Instant,
        input: &mut BytesMut,
        events: &mut Vec<Event>,
        out: &mut BytesMut,
    ) -> Result<(), Fault> {
        self.heard = now;
        let most = self.settings.max_msg_size.saturating_add(4 + PAYLOAD_HEADER).max(FRAME_LEAST);
        while let Some(frame) = wire::decode_within(input, most).map_err(|error| Fault::Malformed(error.0))? {
            match frame {
                Frame::Response(data) if data == wire::HEARTBEAT => self.heartbeat(out),
                Frame::Response(data) => self.replied(now, &data, events, out)?,
                Frame::Error(text) => self.failed(&text, events)?,
                Frame::Message(message) if self.open => events.push(Event::Message(message)),
                Frame::Message(message) => {
                    return Err(Fault::Unexpected(alloc::format!("message {} before SUB was answered", message.id)));
                }
            }
        }
        Ok(())
    }

    /// When nsqd will have been silent for too long.
    pub fn deadline(&self) -> Instant {
        self.heard + self.patience()
    }

    /// Looks at the time.
    ///
    /// # Errors
    /// If nsqd has been silent for too long.
    pub fn tick(&self, now: Instant) -> Result<(), Fault> {
        if now < self.deadline() { Ok(()) } else { Err(Fault::Silent(self.patience())) }
    }

    /// What became of publishes, when the connection is over and so many bytes of it were written to the socket.
    ///
    /// nsqd executes commands in order and none after the one that it refuses (spec: nsqd_protocol §1.5), nor one that
    /// it has not got whole: those are certainly not taken.
    pub fn end(self, written: u64) -> Unanswered {
        let mut unanswered = Unanswered::default();
        let mut refused = self.refused;
        let stopped = refused.is_some();
        for awaited in self.awaited {
            let Awaited::Publish { token, end } = awaited else { continue };
            if let Some(text) = refused.take() {
                unanswered.refused = Some((token, text));
            } else if stopped || end > written {
                unanswered.untaken.push(token);
            } else {
                unanswered.unknown.push(token);
            }
        }
        unanswered
    }

    fn patience(&self) -> Duration {
        match self.limits {
            _ if self.open => self.settings.heartbeat_interval * 2,
            Some(_) => self.settings.connect_timeout + TOPIC_PATIENCE,
            None => self.settings.connect_timeout,
        }
    }

    fn put(&mut self, out: &mut BytesMut, write: impl FnOnce(&mut BytesMut)) {
        let before = out.len();
        write(out);
        self.put += (out.len() - before) as u64;
    }

    /// One NOP that has not left yet, of what is in `out`, answers every heartbeat so far.
    fn heartbeat(&mut self, out: &mut BytesMut) {
        let left = self.put.saturating_sub(out.len() as u64);
        if self.nop <= left {
            self.put(out, wire::nop);
            self.nop = self.put;
        }
    }

    fn replied(
        &mut self,
        now: Instant,
        data: &Bytes,
        events: &mut Vec<Event>,
        out: &mut BytesMut,
    ) -> Result<(), Fault> {
        let unexpected = || Fault::Unexpected(alloc::format!("reply {}", shown(data)));
        match self.awaited.pop_front().ok_or_else(unexpected)? {
            Awaited::Identify { sent } => {
                let limits = self.settings.granted(data, now.since(sent));
                let limits =
                    limits.ok_or_else(|| Fault::Malformed(alloc::format!("IDENTIFY reply {}", shown(data))))?;
                self.limits = Some(limits);
                self.identified(limits, events, out);
            }
            Awaited::Subscribe if data == "OK" => {
                self.open = true;
                events.extend(self.limits.map(Event::Open));
            }
            Awaited::Publish { token, .. } if data == "OK" => events.push(Event::Published(token)),
            Awaited::Close if data == "CLOSE_WAIT" => events.push(Event::Closing),
            awaited => {
                self.awaited.push_front(awaited);
                return Err(unexpected());
            }
        }
        Ok(())
    }

    fn identified(&mut self, limits: Limits, events: &mut Vec<Event>, out: &mut BytesMut) {
        if let Purpose::Consume(topic, channel) = self.purpose.clone() {
            self.put(out, |out| wire::subscribe(topic.as_str(), channel.as_str(), out));
            self.awaited.push_back(Awaited::Subscribe);
        } else {
            self.open = true;
            events.push(Event::Open(limits));
        }
    }

    fn failed(&mut self, text: &Bytes, events: &mut Vec<Event>) -> Result<(), Fault> {
        let harmless = [&b"E_FIN_FAILED"[..], b"E_REQ_FAILED", b"E_TOUCH_FAILED"];
        let text_shown = shown(text);
        if self.open && harmless.iter().any(|code| text.starts_with(code)) {
            events.push(Event::Failed(text_shown));
            return Ok(());
        }
        self.refused = Some(text_shown.clone());
        Err(Fault::Refused(text_shown))
    }
}

/// How much longer SUB may take: the nsqd of a new topic asks nsqlookupds for its channels first, for 5 s by default.
const TOPIC_PATIENCE: Duration = Duration::from_secs(10);
/// No negotiated limit makes replies impossible to read.
const FRAME_LEAST: usize = 64 * 1024;
/// So much of what nsqd said is passed on.
const SHOWN: usize = 1000;

fn shown(data: &[u8]) -> String {
    String::from_utf8_lossy(&data[..data.len().min(SHOWN)]).into_owned()
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(what) => {
                write!(f, "it does not speak NSQ's protocol, or sends too large a message: {what}")
            }
            Self::Silent(time) => write!(f, "nothing came for {time:?}, not even a heartbeat"),
            Self::Refused(text) => write!(f, "nsqd said {text}"),
            Self::Unexpected(what) => write!(f, "unexpected {what}"),
        }
    }
}

impl core::error::Error for Fault {}
