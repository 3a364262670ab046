//! Messages on the wire and in the log: layout, ids, batches of bodies (spec: nsqd_protocol §2.1, §2.2).
//!
//! Payload: publish time (8 bytes, Unix ns), attempts (2), id (16, lower-case hex), body; all integers big-endian.

use crate::time::Timestamp;
use bytes::{Buf, Bytes};
use core::fmt;

/// Bytes of a payload before the body.
pub const PAYLOAD_HEADER: usize = 26;
/// Where the attempts stand in a payload.
pub const ATTEMPTS_AT: usize = 8;
/// Where the id stands in a payload.
pub const ID_AT: usize = 10;

/// A message's id: 16 bytes, unique within a topic of a node; nsqd makes them of hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(pub [u8; 16]);

impl MessageId {
    /// Reads an id as a command names it; `None` unless it has 16 bytes.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The id inside a payload.
    pub fn of_payload(payload: &[u8]) -> Self {
        Self(payload[ID_AT..PAYLOAD_HEADER].try_into().expect("a payload holds an id"))
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.escape_ascii().fmt(f)
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Makes the ids of one topic: `(tick - epoch) << 22 | node << 12 | sequence`, where a tick is 2^20 ns.
///
/// Ids only grow: when the clock stands, steps back or a tick's 4,096 ids are used up, the next tick is borrowed.
#[derive(Clone, Debug)]
pub struct IdMaker {
    node: u64,
    tick: i64,
    sequence: u16,
    /// The last id, as a number: written byte by byte and then read as a whole it would stall.
    id: u128,
}

const EPOCH_TICK: i64 = 1_288_834_974_288;
const IDS_PER_TICK: u16 = 4096;

impl IdMaker {
    /// A maker for a node id below 1,024.
    pub fn new(node: u16) -> Self {
        Self { node: u64::from(node) & 0x3ff, tick: i64::MIN, sequence: IDS_PER_TICK, id: 0 }
    }

    /// The next id, for a message published at `time`.
    #[inline]
    pub fn next(&mut self, time: Timestamp) -> MessageId {
        let tick = time.as_nanos() >> 20;
        if tick > self.tick {
            self.start_tick(tick);
        } else if self.sequence == IDS_PER_TICK {
            self.start_tick(self.tick + 1);
        }
        // The sequence is the id's last three digits, so the other thirteen are written once a tick.
        let sequence = self.sequence;
        let digit = |at: u16| u128::from(HEX[usize::from(sequence >> at & 15)]) << (2 * at);
        self.id = self.id & !0xff_ffff | digit(8) | digit(4) | digit(0);
        self.sequence += 1;
        self.last()
    }

    /// The last id that was made; zeros if none was.
    pub const fn last(&self) -> MessageId {
        MessageId(self.id.to_be_bytes())
    }

    /// Whatever the clock says, ids are larger than this one from now on.
    pub fn start_above(&mut self, id: MessageId) {
        let digits = core::str::from_utf8(&id.0).ok();
        if let Some(number) = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok()) {
            self.tick = ((number >> 22) as i64).wrapping_add(EPOCH_TICK);
            (self.id, self.sequence) = (u128::from_be_bytes(id.0), IDS_PER_TICK);
        }
    }

    fn start_tick(&mut self, tick: i64) {
        self.tick = tick;
        self.sequence = 0;
        let id = ((tick.wrapping_sub(EPOCH_TICK) as u64) << 22) | (self.node << 12);
        let digits = (0..16).map(|at| HEX[(id >> (60 - 4 * at) & 15) as usize]);
        self.id = digits.fold(0, |id, digit| id << 8 | u128::from(digit));
    }
}

const HEX: &[u8; 16] = b"0123456789abcdef";

/// The bodies of one publish: a single one, or those of an MPUB still in their wire form (int32 size and bytes each).
///
/// Whoever makes one has validated sizes and counts; taking a body cannot fail.
#[derive(Clone, Debug)]
pub struct Bodies {
    bytes: Bytes,
    count: u32,
    sized: bool,
}

impl Bodies {
    /// A single message.
    pub const fn one(body: Bytes) -> Self {
        Self { bytes: body, count: 1, sized: false }
    }

    /// `count` messages, each as a big-endian int32 size and so many bytes, exactly filling `bytes`.
    pub const fn many(bytes: Bytes, count: u32) -> Self {
        Self { bytes, count, sized: true }
    }

    /// How many messages are left.
    pub const fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether none is left.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes of all bodies that are left.
    pub fn body_bytes(&self) -> usize {
        if self.sized { self.bytes.len() - 4 * self.len() } else { self.bytes.len() * self.len() }
    }

    /// Hands the bodies to `take` one by one, until it returns false or none is left.
    #[inline]
    pub fn take_while(&mut self, mut take: impl FnMut(&[u8]) -> bool) {
        let mut rest: &[u8] = &self.bytes;
        while self.count > 0 {
            let body = if self.sized {
                let (size, after) = rest.split_at(4);
                let size = u32::from_be_bytes(size.try_into().expect("four bytes")) as usize;
                let (body, after) = after.split_at(size);
                rest = after;
                body
            } else {
                core::mem::take(&mut rest)
            };
            self.count -= 1;
            if !take(body) {
                break;
            }
        }
        let used = self.bytes.len() - rest.len();
        self.bytes.advance(used);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn ids_have_upstreams_layout() {
        let time = Timestamp::from_nanos(1_795_371_173_000_000_000);
        let mut maker = IdMaker::new(617);
        let expected = (((time.as_nanos() >> 20) - EPOCH_TICK) << 22) as u64 | 617 << 12;
        assert_eq!(maker.next(time).0, *alloc::format!("{expected:016x}").as_bytes());
        assert_eq!(maker.next(time).0, *alloc::format!("{:016x}", expected + 1).as_bytes());
    }

    #[test]
    fn ids_only_grow() {
        let mut maker = IdMaker::new(1);
        let mut last = maker.next(Timestamp::from_nanos(1_000_000_000_000_000_000));
        for step in 0..20_000i64 {
            // A clock that stands, and now and then goes back.
            let id = maker.next(Timestamp::from_nanos(1_000_000_000_000_000_000 - step % 7 * 1_000_000_000));
            assert!(id > last, "{id} after {last}");
            last = id;
        }
    }

    #[test]
    fn bodies_are_taken_in_slices() {
        let mut wire = Vec::new();
        for body in ["a", "bb", "ccc"] {
            wire.extend_from_slice(&(body.len() as u32).to_be_bytes());
            wire.extend_from_slice(body.as_bytes());
        }
        let mut bodies = Bodies::many(wire.into(), 3);
        assert_eq!((bodies.len(), bodies.body_bytes()), (3, 6));
        let mut seen = Vec::new();
        bodies.take_while(|body| {
            seen.push(body.to_vec());
            seen.len() < 2
        });
        assert_eq!((bodies.len(), bodies.body_bytes()), (1, 3));
        bodies.take_while(|body| {
            seen.push(body.to_vec());
            true
        });
        assert_eq!(seen, [&b"a"[..], b"bb", b"ccc"]);
        assert!(bodies.is_empty());
    }
}
