//! One connection of the V1 protocol: bytes become commands for the registry and the replies to them
//! (spec: nsqd_protocol §5.1, §5.2).
//!
//! How the bytes are cut makes no difference. Every error is fatal: it is the last thing said, and nothing is read
//! after it. Upstream reads any length and waits for ever; here lines, bodies and silences have bounds far above every
//! use.

use super::text::Fatal;
use super::{Command, Identity, Options, Producer};
use crate::json;
use crate::name::{ChannelName, TopicName};
use crate::session::line::{self, Found};
use crate::time::{Duration, Instant, Now};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use bytes::{Buf, BytesMut};

const MAGIC: &[u8] = b"  V1";
/// The most bytes of IDENTIFY's body.
pub(super) const BODY_MAX: usize = 1024 * 1024;
/// How long a peer may take to send the magic.
const MAGIC_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a peer may be silent at least: nsqd pings every 15 s.
const SILENCE_MIN: Duration = Duration::from_secs(600);

/// See the module's documentation.
#[derive(Debug)]
pub struct Session {
    identity: Arc<Identity>,
    remote_address: String,
    identified: bool,
    reading: Reading,
    /// How long the peer may be silent.
    patience: Duration,
    /// When it last finished a command, or connected.
    heard: Instant,
}

/// What comes next from the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    /// Four bytes that say which protocol it is.
    Magic,
    /// A line; there is no LF in so many of its first bytes.
    Line(usize),
    /// The size of IDENTIFY's body.
    Size,
    /// The body, of so many bytes.
    Body(usize),
    /// Nothing, whatever may come.
    Ended,
}

impl Session {
    /// A connection accepted at `now` from `remote_address`, as `ip:port`.
    ///
    /// An identified peer may be silent for twice the inactive-producer-timeout, and ten minutes at least: one that is
    /// only slow is hidden long before, and comes back with its next PING.
    pub fn new(now: Now, remote_address: String, identity: Arc<Identity>, options: &Options) -> Self {
        let patience = options.inactive_producer_timeout.saturating_mul(2).max(SILENCE_MIN);
        let heard = now.instant;
        Self { identity, remote_address, identified: false, reading: Reading::Magic, patience, heard }
    }

    /// Decodes all complete commands in `bytes`, consuming them; an unfinished one stays in `bytes` for the next call.
    /// Appends the commands to `commands` and the replies, in order, to `out`: whoever reads a reply may expect to see
    /// what was asked for, so the registry comes first.
    pub fn read(&mut self, now: Now, bytes: &mut BytesMut, commands: &mut Vec<Command>, out: &mut Vec<u8>) {
        loop {
            match self.step(now, bytes, commands, out) {
                Ok(true) => {}
                Ok(false) => break,
                Err(fatal) => {
                    reply(&fatal.text(), out);
                    self.reading = Reading::Ended;
                }
            }
        }
        if self.is_finished() {
            bytes.clear();
        }
    }

    /// The peer will send no more. An unfinished body is answered with its "failed to read ..." error.
    pub fn eof(&mut self, out: &mut Vec<u8>) {
        match self.reading {
            Reading::Size => reply(&Fatal::SizeUnread.text(), out),
            Reading::Body(_) => reply(&Fatal::BodyUnread.text(), out),
            Reading::Magic | Reading::Line(_) | Reading::Ended => {}
        }
        self.reading = Reading::Ended;
    }

    /// Gives up a peer that has been silent for too long; an early call changes nothing.
    pub fn tick(&mut self, now: Now) {
        if self.deadline().is_some_and(|deadline| deadline <= now.instant) {
            self.reading = Reading::Ended;
        }
    }

    /// When to call [`tick`](Self::tick); `None` once finished.
    pub fn deadline(&self) -> Option<Instant> {
        match self.reading {
            Reading::Ended => None,
            Reading::Magic => Some(self.heard + MAGIC_TIMEOUT),
            Reading::Line(_) | Reading::Size | Reading::Body(_) => Some(self.heard + self.patience),
        }
    }

    /// Hang up once the replies are written.
    pub fn is_finished(&self) -> bool {
        self.reading == Reading::Ended
    }

    /// Panics if an invariant does not hold.
    pub fn check(&self) {
        assert!(!self.identified || self.reading != Reading::Magic, "IDENTIFY before the magic");
        assert!(!self.identified || !matches!(self.reading, Reading::Size | Reading::Body(_)), "IDENTIFY twice");
        assert!(!matches!(self.reading, Reading::Body(size) if size > BODY_MAX), "waits for a body that is too big");
        assert!(!matches!(self.reading, Reading::Line(searched) if searched >= line::MAX), "keeps an endless line");
        assert!(self.deadline().is_none() == self.is_finished());
    }

    /// Takes the next piece off `bytes`; false if more of them are needed.
    fn step(
        &mut self,
        now: Now,
        bytes: &mut BytesMut,
        commands: &mut Vec<Command>,
        out: &mut Vec<u8>,
    ) -> Result<bool, Fatal<'static>> {
        match self.reading {
            Reading::Magic => {
                let Some(magic) = bytes.first_chunk::<4>() else { return Ok(false) };
                if magic != MAGIC {
                    return Err(Fatal::Protocol);
                }
                bytes.advance(MAGIC.len());
                self.reading = Reading::Line(0);
            }
            Reading::Line(searched) => return self.line(now, searched, bytes, commands, out),
            Reading::Size => {
                let Some(size) = bytes.first_chunk().copied().map(i32::from_be_bytes) else { return Ok(false) };
                bytes.advance(size_of::<i32>());
                self.reading = Reading::Body(body_size(size)?);
            }
            Reading::Body(size) => {
                if bytes.len() < size {
                    return Ok(false);
                }
                let producer = Producer::parse(&bytes.split_to(size), &self.remote_address)?;
                commands.push(Command::Identify(producer));
                self.identified = true;
                self.done(now, json::write(&*self.identity).as_bytes(), out);
            }
            Reading::Ended => return Ok(false),
        }
        Ok(true)
    }

    fn line(
        &mut self,
        now: Now,
        searched: usize,
        bytes: &mut BytesMut,
        commands: &mut Vec<Command>,
        out: &mut Vec<u8>,
    ) -> Result<bool, Fatal<'static>> {
        match line::find(bytes, searched) {
            Found::Line(line, size) => {
                match self.command(line) {
                    Ok(Some(command)) => {
                        commands.push(command);
                        self.done(now, b"OK", out);
                    }
                    Ok(None) => self.reading = Reading::Size,
                    Err(fatal) => {
                        reply(&fatal.text(), out);
                        self.reading = Reading::Ended;
                    }
                }
                bytes.advance(size);
                Ok(true)
            }
            Found::Nothing(searched) => {
                self.reading = Reading::Line(searched);
                Ok(false)
            }
            Found::TooLong => Err(Fatal::LineTooLong),
        }
    }

    /// What a line says; nothing yet if it is IDENTIFY's, which has a body.
    fn command<'a>(&self, line: &'a [u8]) -> Result<Option<Command>, Fatal<'a>> {
        let mut words = trim(line).split(|byte| *byte == b' ');
        let name = words.next().unwrap_or_default();
        match name {
            b"PING" => Ok(Some(Command::Ping)),
            b"IDENTIFY" if self.identified => Err(Fatal::IdentifyAgain),
            b"IDENTIFY" => Ok(None),
            b"REGISTER" => {
                let (topic, channel) = self.names("REGISTER", words)?;
                Ok(Some(Command::Register(topic, channel)))
            }
            b"UNREGISTER" => {
                let (topic, channel) = self.names("UNREGISTER", words)?;
                Ok(Some(Command::Unregister(topic, channel)))
            }
            _ => Err(Fatal::UnknownCommand(name)),
        }
    }

    /// A topic and perhaps a channel. A channel without a name, as after a doubled space, is none.
    fn names<'a>(
        &self,
        verb: &'static str,
        mut words: impl Iterator<Item = &'a [u8]>,
    ) -> Result<(TopicName, Option<ChannelName>), Fatal<'a>> {
        if !self.identified {
            return Err(Fatal::NotIdentified);
        }
        let topic = words.next().ok_or(Fatal::TooFewWords(verb))?;
        let topic = TopicName::new(topic).ok_or(Fatal::Topic(verb, topic))?;
        let channel = match words.next().unwrap_or_default() {
            b"" => None,
            name => Some(ChannelName::new(name).ok_or(Fatal::Channel(verb, name))?),
        };
        Ok((topic, channel))
    }

    /// A command is complete.
    fn done(&mut self, now: Now, data: &[u8], out: &mut Vec<u8>) {
        reply(data, out);
        self.reading = Reading::Line(0);
        self.heard = now.instant;
    }
}

/// A reply is a size and so many bytes; nothing tells errors from others.
fn reply(data: &[u8], out: &mut Vec<u8>) {
    // Data is a line of 16 KiB or a JSON reply at most.
    let size = u32::try_from(data.len()).expect("a reply is small");
    out.extend_from_slice(&size.to_be_bytes());
    out.extend_from_slice(data);
}

/// Judges the size of IDENTIFY's body. Upstream's daemon dies of a negative one.
fn body_size(size: i32) -> Result<usize, Fatal<'static>> {
    match usize::try_from(size) {
        Err(_) => Err(Fatal::SizeInvalid(size)),
        Ok(bytes) if bytes > BODY_MAX => Err(Fatal::TooBig(size)),
        Ok(bytes) => Ok(bytes),
    }
}

/// Without surrounding white space, which is Unicode's.
fn trim(line: &[u8]) -> &[u8] {
    core::str::from_utf8(line).map_or_else(|_| line.trim_ascii(), |line| line.trim().as_bytes())
}
