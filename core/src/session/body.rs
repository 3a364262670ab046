//! Bodies: what follows a line of IDENTIFY, AUTH, PUB, DPUB and MPUB, an int32 size and so many bytes.
//!
//! Sizes are judged as soon as they have arrived. An MPUB's messages are judged one by one as their bytes come, and
//! each byte once; count and sizes delimit it, its outer size is only a claim (spec: nsqd_protocol §1.9).

use super::text::{Fatal, Op};
use crate::name::TopicName;
use crate::options::Options;
use core::time::Duration;

/// Whose body is read, if it is one piece.
#[derive(Debug)]
pub(super) enum Body {
    Identify,
    Auth,
    Pub(TopicName),
    Dpub(TopicName, Duration),
}

impl Body {
    pub(super) fn op(&self) -> Op {
        match self {
            Self::Identify => Op::Identify,
            Self::Auth => Op::Auth,
            Self::Pub(_) => Op::Pub,
            Self::Dpub(..) => Op::Dpub,
        }
    }
}

/// Judges the size that precedes a body.
pub(super) fn size(op: Op, size: i32, options: &Options) -> Result<usize, Fatal<'static>> {
    let max = match op {
        Op::Pub | Op::Dpub => options.message_limit(),
        _ => options.max_body_size,
    };
    match u32::try_from(size) {
        Err(_) | Ok(0) => Err(Fatal::SizeInvalid(op, size)),
        Ok(size) if u64::from(size) > max => Err(Fatal::TooBig(op, size.into(), max)),
        Ok(size) => Ok(size as usize),
    }
}

/// The big-endian int32 at the front of `bytes`.
#[inline]
pub(super) fn int32(bytes: &[u8]) -> Option<i32> {
    bytes.first_chunk().copied().map(i32::from_be_bytes)
}

/// The messages of an MPUB, as far as they have arrived.
#[derive(Debug)]
pub(super) struct Items {
    pub(super) topic: TopicName,
    pub(super) count: u32,
    /// How many have been judged and are all there.
    done: u32,
    /// Bytes that those take, with their sizes.
    bytes: usize,
    /// Bytes of the message after them, once its size is known.
    next: Option<usize>,
}

impl Items {
    /// Judges the count, which comes before the messages.
    pub(super) fn new(topic: TopicName, count: i32, options: &Options) -> Result<Self, Fatal<'static>> {
        let most = options.max_body_size.saturating_sub(4) / 5;
        match u32::try_from(count) {
            Ok(count @ 1..) if u64::from(count) <= most => Ok(Self { topic, count, done: 0, bytes: 0, next: None }),
            _ => Err(Fatal::CountInvalid(count)),
        }
    }

    /// Goes on with all of the `bytes` there are, the same ones as before at their front. Returns how many of them the
    /// messages take, once all are there.
    pub(super) fn read(&mut self, bytes: &[u8], options: &Options) -> Result<Option<usize>, Fatal<'static>> {
        while self.done < self.count {
            let rest = &bytes[self.bytes..];
            let size = match self.next {
                Some(size) => size,
                None => {
                    let Some(size) = int32(rest) else { return Ok(None) };
                    self.size(size, options)?
                }
            };
            self.next = Some(size);
            if rest.len() < 4 + size {
                return Ok(None);
            }
            self.bytes += 4 + size;
            self.done += 1;
            self.next = None;
        }
        Ok(Some(self.bytes))
    }

    /// Judges the size of the next message, and of the body with it.
    fn size(&self, size: i32, options: &Options) -> Result<usize, Fatal<'static>> {
        let Ok(bytes @ 1..) = u32::try_from(size) else { return Err(Fatal::ItemSizeInvalid(self.done, size)) };
        if u64::from(bytes) > options.message_limit() {
            return Err(Fatal::ItemTooBig(bytes.into(), options.message_limit()));
        }
        let body = 4 + self.bytes as u64 + 4 + u64::from(bytes);
        if body > options.max_body_size {
            return Err(Fatal::TooBig(Op::Mpub, body, options.max_body_size));
        }
        Ok(bytes as usize)
    }

    /// What could not be read when the peer sends no more.
    pub(super) fn unread(&self) -> Fatal<'static> {
        match self.next {
            None => Fatal::ItemSizeUnread(self.done),
            Some(_) => Fatal::ItemUnread,
        }
    }

    pub(super) fn check(&self) {
        assert!(self.done < self.count, "an MPUB is complete and was not taken");
        assert!(self.bytes >= 5 * self.done as usize);
    }
}
