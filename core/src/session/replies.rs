//! Replies in the order of their slots: each command that gets exactly one reply takes a slot, and what is answered
//! early waits for what was asked before it.
//!
//! In come answers and message frames, in any order; out go frames. FIN, REQ and TOUCH have no slot: their failures
//! go out behind the reply to the slot before them. Message frames pass, unless SUB's own reply is not out yet.

use super::frame;
use super::text::{Fatal, Op, failure};
use crate::message::MessageId;
use crate::topic::io::{Refusal, Slot, Verb};
use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// What a connection has been promised and not been sent yet.
#[derive(Debug, Default)]
pub(super) struct Replies {
    /// The slot issued last; slots wrap around.
    last: Slot,
    /// The slots not sent, up to `last`.
    slots: VecDeque<Reply>,
    failures: VecDeque<Failure>,
    /// SUB's reply is still among `slots`.
    subscribing: bool,
    /// Bytes of bodies whose publish is not answered.
    owed: usize,
    /// Message frames that came meanwhile.
    held: Vec<u8>,
    /// Bytes of message frames sent since this was last asked for.
    delivered: usize,
}

#[derive(Debug)]
enum Reply {
    /// The answer to a command, with so many bytes of bodies.
    Awaited(Op, usize),
    Ok,
    Subscribed,
    CloseWait,
    /// A whole frame.
    Frame(Vec<u8>),
    /// The last frame of all.
    Fatal(Vec<u8>),
}

/// A failure and the slot that it goes behind.
#[derive(Debug)]
struct Failure {
    after: Slot,
    frame: Vec<u8>,
}

impl Replies {
    /// A slot for the reply to a command that a topic will answer, which brings so many bytes of bodies.
    #[inline]
    pub(super) fn expect(&mut self, op: Op, bytes: usize) -> Slot {
        self.subscribing |= op == Op::Sub;
        self.owed += bytes;
        self.push(Reply::Awaited(op, bytes))
    }

    /// Bytes of bodies whose publish is not answered.
    #[inline]
    pub(super) const fn owed(&self) -> usize {
        self.owed
    }

    /// A reply that is known already.
    pub(super) fn push_response(&mut self, data: &str) {
        self.push(Reply::Frame(frame::response(data.as_bytes())));
    }

    /// The last reply of all.
    pub(super) fn push_fatal(&mut self, error: &Fatal<'_>) {
        self.push(Reply::Fatal(frame::error(&error.text())));
    }

    #[inline]
    fn push(&mut self, reply: Reply) -> Slot {
        self.last = Slot(self.last.0.wrapping_add(1));
        self.slots.push_back(reply);
        self.last
    }

    /// As if so many slots had been issued and answered.
    #[cfg(test)]
    pub(super) fn wind(&mut self, slots: u32) {
        assert!(self.is_empty());
        self.last = Slot(slots);
    }

    /// The slot issued last.
    pub(super) fn last(&self) -> Slot {
        self.last
    }

    /// How many replies and failures wait here.
    #[cfg(any(test, feature = "fuzz"))]
    pub(super) fn len(&self) -> usize {
        self.slots.len() + self.failures.len()
    }

    /// Whether no slot is open.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Takes a topic's answer. True if it is a refusal, which is fatal: nothing more need be read.
    #[inline]
    pub(super) fn answer(&mut self, slot: Slot, result: &Result<(), Refusal>) -> bool {
        let Some(index) = self.index(slot) else { return false };
        let Reply::Awaited(op, bytes) = self.slots[index] else { return false };
        self.owed -= bytes;
        self.slots[index] = match result {
            Ok(()) => match op {
                Op::Sub => Reply::Subscribed,
                Op::Cls => Reply::CloseWait,
                _ => Reply::Ok,
            },
            Err(why) => Reply::Fatal(frame::error(&Fatal::Refused(op, why).text())),
        };
        result.is_err()
    }

    /// Takes the failure of a command without a slot.
    pub(super) fn fail(&mut self, after: Slot, verb: Verb, id: MessageId, why: &Refusal, out: &mut Vec<u8>) {
        let frame = frame::error(&failure(verb, id, why));
        match self.index(after) {
            None => out.extend_from_slice(&frame),
            Some(index) => {
                let place = self.failures.partition_point(|other| self.index(other.after) <= Some(index));
                self.failures.insert(place, Failure { after, frame });
            }
        }
    }

    /// Sends what is ready, in order, up to a fatal error.
    #[inline]
    pub(super) fn send(&mut self, out: &mut Vec<u8>) {
        while let Some(reply) = self.slots.front() {
            match reply {
                Reply::Awaited(..) | Reply::Fatal(_) => return,
                Reply::Ok => out.extend_from_slice(frame::OK),
                Reply::Subscribed => {
                    out.extend_from_slice(frame::OK);
                    out.extend_from_slice(&self.held);
                    self.delivered += self.held.len();
                    self.held = Vec::new();
                    self.subscribing = false;
                }
                Reply::CloseWait => out.extend_from_slice(frame::CLOSE_WAIT),
                Reply::Frame(frame) => out.extend_from_slice(frame),
            }
            self.slots.pop_front();
            while let Some(failure) = self.failures.front()
                && self.index(failure.after).is_none()
            {
                out.extend_from_slice(&failure.frame);
                self.failures.pop_front();
            }
        }
    }

    /// The frame of a fatal error, if its turn has come.
    pub(super) fn fatal(&self) -> Option<&[u8]> {
        match self.slots.front() {
            Some(Reply::Fatal(frame)) => Some(frame),
            _ => None,
        }
    }

    /// Sends message frames, or keeps them until SUB's reply is out.
    #[inline]
    pub(super) fn deliver(&mut self, frames: &[u8], out: &mut Vec<u8>) {
        if self.subscribing {
            self.held.extend_from_slice(frames);
        } else {
            out.extend_from_slice(frames);
            self.delivered += frames.len();
        }
    }

    /// Sends message frames as [`deliver`](Self::deliver) does, but by handing over their memory if nothing precedes
    /// them.
    pub(super) fn deliver_all(&mut self, frames: &mut Vec<u8>, out: &mut Vec<u8>) {
        if out.is_empty() && !self.subscribing {
            self.delivered += frames.len();
            core::mem::swap(frames, out);
        } else {
            self.deliver(frames, out);
        }
    }

    /// Bytes of message frames sent since the last call.
    pub(super) fn take_delivered(&mut self) -> usize {
        core::mem::take(&mut self.delivered)
    }

    /// Forgets all that was not sent.
    pub(super) fn clear(&mut self) {
        *self = Self { last: self.last, delivered: self.delivered, ..Self::default() };
    }

    /// The place of a slot among those not sent; `None` if its reply has gone out.
    #[inline]
    fn index(&self, slot: Slot) -> Option<usize> {
        let behind = self.last.0.wrapping_sub(slot.0) as usize;
        self.slots.len().checked_sub(1 + behind)
    }

    pub(super) fn has_fatal(&self) -> bool {
        self.slots.iter().any(|reply| matches!(reply, Reply::Fatal(_)))
    }

    pub(super) fn check(&self) {
        let places: Vec<_> = self.failures.iter().map(|failure| self.index(failure.after)).collect();
        assert!(places.iter().all(Option::is_some), "a failure waits for a reply that is out");
        assert!(places.is_sorted(), "failures are out of order");
        assert!(self.held.is_empty() || self.subscribing, "frames are held for no reason");
        let owed = |reply: &Reply| if let Reply::Awaited(_, bytes) = reply { *bytes } else { 0 };
        assert_eq!(self.owed, self.slots.iter().map(owed).sum::<usize>(), "what is owed is counted");
        let waits = |reply: &&Reply| matches!(reply, Reply::Awaited(Op::Sub, _) | Reply::Subscribed);
        let waiting = self.slots.iter().filter(waits).count();
        assert!(waiting == usize::from(self.subscribing) || self.has_fatal(), "frames wait for a reply that is out");
    }
}
