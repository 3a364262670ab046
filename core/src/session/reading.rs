//! From bytes to pieces: the magic, lines, sizes, bodies.
//!
//! Each step takes one piece from the front of the bytes, or leaves them for when more have come and remembers what is
//! known of them, so that no byte is looked at twice however they are cut.

use super::body::{self, Body, Items, int32};
use super::line::{self, Found};
use super::text::{Fatal, Op};
use super::{Command, Session, State};
use crate::message::Bodies;
use crate::name::TopicName;
use crate::time::{Duration, Now};
use alloc::collections::VecDeque;
use bytes::{Buf, BytesMut};

const MAGIC: &[u8] = b"  V2";

/// What comes next from the peer.
#[derive(Debug)]
pub(super) enum Reading {
    /// Four bytes that say which protocol it is.
    Magic,
    /// A line; there is no LF in so many of its first bytes.
    Line(usize),
    /// The size of a body.
    Size(Body),
    /// A body of so many bytes.
    Body(Body, usize),
    /// The size of an MPUB.
    MpubSize(TopicName),
    /// The number of its messages.
    MpubCount(TopicName),
    /// Its messages.
    MpubItems(Items),
    /// Nothing, whatever may come.
    Ended,
}

/// Nothing more is to be read: a fatal error has taken the last slot, or a line was too long to be answered.
pub(super) struct End;

impl Reading {
    /// Whether a command's line was read and its body was not.
    pub(super) fn is_inside_command(&self) -> bool {
        !matches!(self, Self::Magic | Self::Line(_) | Self::Ended)
    }

    /// What cannot be read if the peer sends no more; between commands that is no error.
    pub(super) fn unread(&self) -> Option<Fatal<'static>> {
        match self {
            Self::Magic | Self::Line(_) | Self::Ended => None,
            Self::Size(body) => Some(Fatal::SizeUnread(body.op())),
            Self::Body(body, _) => Some(Fatal::BodyUnread(body.op())),
            Self::MpubSize(_) => Some(Fatal::SizeUnread(Op::Mpub)),
            Self::MpubCount(_) => Some(Fatal::CountUnread),
            Self::MpubItems(items) => Some(items.unread()),
        }
    }
}

impl Session {
    /// Takes the next piece off `bytes`; false if more of them are needed.
    #[inline]
    pub(super) fn step(&mut self, now: Now, bytes: &mut BytesMut, out: &mut VecDeque<Command>) -> Result<bool, End> {
        match core::mem::replace(&mut self.reading, Reading::Line(0)) {
            Reading::Line(searched) => self.line(searched, bytes, out),
            reading => self.piece(now, reading, bytes, out).map_err(|fatal| self.end(&fatal)),
        }
    }

    #[inline]
    fn line(&mut self, searched: usize, bytes: &mut BytesMut, out: &mut VecDeque<Command>) -> Result<bool, End> {
        if searched == 0 && (self.usual_fin(bytes, out) || self.usual_pub(bytes, out)) {
            return Ok(true);
        }
        match line::find(bytes, searched) {
            Found::Line(line, size) => {
                if let Err(fatal) = self.command(line, out) {
                    return Err(self.end(&fatal));
                }
                bytes.advance(size);
                Ok(true)
            }
            Found::Nothing(searched) => Ok(self.wait(Reading::Line(searched))),
            Found::TooLong => Err(End),
        }
    }

    /// A short way for nearly all commands of a consumer.
    #[inline]
    fn usual_fin(&self, bytes: &mut BytesMut, out: &mut VecDeque<Command>) -> bool {
        let Some(id) = line::plain_fin(bytes) else { return false };
        let allowed = self.state != State::Init;
        if allowed {
            self.finish(id, out);
            bytes.advance(line::PLAIN_FIN);
        }
        allowed
    }

    /// A short way for nearly all commands of a producer: PUB to the same topic as before, the body all there.
    #[inline]
    fn usual_pub(&mut self, bytes: &mut BytesMut, out: &mut VecDeque<Command>) -> bool {
        let Some(topic) = &self.topic else { return false };
        let Some(rest) = bytes.strip_prefix(b"PUB ") else { return false };
        let Some([b'\n', rest @ ..]) = rest.strip_prefix(topic.as_str().as_bytes()) else { return false };
        let Some((size, rest)) = rest.split_first_chunk() else { return false };
        let size = u32::from_be_bytes(*size) as usize;
        if size == 0 || size > rest.len() || size as u64 > self.options.message_limit() {
            return false;
        }
        let before = bytes.len() - rest.len();
        let mut body = bytes.split_to(before + size).freeze();
        body.advance(before);
        self.publish(Op::Pub, topic.clone(), Bodies::one(body), Duration::ZERO, out);
        true
    }

    /// Takes what is not a line.
    fn piece(
        &mut self,
        now: Now,
        reading: Reading,
        bytes: &mut BytesMut,
        out: &mut VecDeque<Command>,
    ) -> Result<bool, Fatal<'static>> {
        match reading {
            Reading::Magic => {
                let Some(magic) = bytes.first_chunk::<4>() else { return Ok(self.wait(Reading::Magic)) };
                if magic != MAGIC {
                    return Err(Fatal::Protocol);
                }
                bytes.advance(4);
                self.pulse.restart(now.instant);
            }
            Reading::Size(body) => {
                let Some(size) = int32(bytes) else { return Ok(self.wait(Reading::Size(body))) };
                let size = body::size(body.op(), size, &self.options)?;
                bytes.advance(4);
                self.reading = Reading::Body(body, size);
            }
            Reading::Body(body, size) => {
                if bytes.len() < size {
                    return Ok(self.wait(Reading::Body(body, size)));
                }
                let bytes = bytes.split_to(size).freeze();
                self.body(now, body, bytes, out)?;
            }
            Reading::MpubSize(topic) => {
                let Some(size) = int32(bytes) else { return Ok(self.wait(Reading::MpubSize(topic))) };
                body::size(Op::Mpub, size, &self.options)?;
                bytes.advance(4);
                self.reading = Reading::MpubCount(topic);
            }
            Reading::MpubCount(topic) => {
                let Some(count) = int32(bytes) else { return Ok(self.wait(Reading::MpubCount(topic))) };
                self.reading = Reading::MpubItems(Items::new(topic, count, &self.options)?);
                bytes.advance(4);
            }
            Reading::MpubItems(mut items) => {
                let Some(size) = items.read(bytes, &self.options)? else {
                    return Ok(self.wait(Reading::MpubItems(items)));
                };
                let bodies = Bodies::many(bytes.split_to(size).freeze(), items.count);
                self.publish(Op::Mpub, items.topic, bodies, Duration::ZERO, out);
            }
            reading @ (Reading::Line(_) | Reading::Ended) => return Ok(self.wait(reading)),
        }
        Ok(true)
    }

    /// Goes on with `reading` when more bytes have come.
    fn wait(&mut self, reading: Reading) -> bool {
        self.reading = reading;
        false
    }

    /// Gives a fatal error the last slot.
    fn end(&mut self, fatal: &Fatal<'_>) -> End {
        self.replies.push_fatal(fatal);
        End
    }
}
