//! The memory of a topic's log: records appended to chunks, in the layout of `docs/log-format.md`.
//!
//! Every message is here once, however many channels share it. A chunk counts the (channel, message) pairs that still
//! need it and the records not yet given to channels; at zero of both it is freed. Positions ([`Loc`]) stay valid as
//! long as somebody needs the record: that is the one rule, and [`Log::done`] is how it ends.

use crate::budget::Budget;
use crate::message::{ATTEMPTS_AT, MessageId, PAYLOAD_HEADER};
use crate::time::{Duration, Timestamp};
use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// Where a record is: the number of its chunk (which may wrap around) and the offset of its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Loc {
    pub(super) chunk: u32,
    pub(super) offset: u32,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Log {
    /// Consecutive chunks from number `first` on; those that nobody needs are `None`, the first never is.
    chunks: VecDeque<Option<Chunk>>,
    first: u32,
    /// Bytes of memory that the chunks hold.
    bytes: usize,
    /// (channel, message) pairs of all chunks, and those that ended since stragglers were looked for.
    live: u64,
    ended: u64,
    next_seq: u64,
    budget: Budget,
}

#[derive(Debug)]
struct Chunk {
    bytes: Vec<u8>,
    records: u32,
    /// (channel, message) pairs that need this chunk.
    live: u32,
    /// Records not yet given to channels: those that a cursor walks over, and those with a due time.
    plain: u32,
    deferred: u32,
    /// Little of it is needed: stragglers are to be carried forward.
    sparse: bool,
}

/// A message to append.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record<'a> {
    pub(super) time: Timestamp,
    pub(super) id: MessageId,
    pub(super) body: &'a [u8],
    /// Zero for a message that is due at once.
    pub(super) defer: Duration,
}

pub(super) const RECORD_HEADER: usize = 16;
const LENGTH_AT: usize = 4;
const SEQ_AT: usize = 12;
/// Flag in a record's length: due time and delay (8 bytes each) follow the header; cursors pass over the record.
const DEFERRED: u32 = 1 << 31;
/// Flag in a record's length: a straggler carried forward for the channels that still need it; cursors pass over it.
const CARRIED: u32 = 1 << 30;
const LENGTH: u32 = CARRIED - 1;
const DEFERRED_EXTRA: usize = 16;

const CHUNK_MIN: usize = 1024;
const CHUNK_MAX: usize = 256 * 1024;
const SWEEP_MIN: usize = 4 * 1024 * 1024;

impl Log {
    pub(super) fn new(budget: Budget) -> Self {
        Self { chunks: VecDeque::new(), first: 0, bytes: 0, live: 0, ended: 0, next_seq: 1, budget }
    }

    /// An empty log whose first chunk has that number.
    #[cfg(test)]
    pub(super) fn starting_at(budget: Budget, first: u32) -> Self {
        let mut log = Self::new(budget);
        log.first = first;
        log
    }

    /// Appends a message. `more` is how many bytes are known to follow, so that the chunk can be made to fit.
    #[inline]
    pub(super) fn append(&mut self, record: Record<'_>, more: usize) -> Loc {
        let extra = if record.defer.is_zero() { 0 } else { DEFERRED_EXTRA };
        let payload = PAYLOAD_HEADER + record.body.len();
        let size = RECORD_HEADER + extra + payload;
        let flags = if extra == 0 { 0 } else { DEFERRED };
        let seq = self.next_seq;
        self.next_seq += 1;
        let loc = self.reserve(size, more);
        let chunk = self.tail();
        chunk.records += 1;
        let bytes = &mut chunk.bytes;
        // Checksums are filled in when the record is written to disk.
        bytes.extend_from_slice(&[0; LENGTH_AT]);
        bytes.extend_from_slice(&(payload as u32 | flags).to_be_bytes());
        bytes.extend_from_slice(&[0; SEQ_AT - LENGTH_AT - 4]);
        bytes.extend_from_slice(&(seq as u32).to_be_bytes());
        if extra == 0 {
            chunk.plain += 1;
        } else {
            chunk.deferred += 1;
            let delay = i64::try_from(record.defer.as_nanos()).unwrap_or(i64::MAX);
            bytes.extend_from_slice(&record.time.as_nanos().saturating_add(delay).to_be_bytes());
            bytes.extend_from_slice(&delay.to_be_bytes());
        }
        bytes.extend_from_slice(&record.time.as_nanos().to_be_bytes());
        bytes.extend_from_slice(&0u16.to_be_bytes());
        bytes.extend_from_slice(&record.id.0);
        bytes.extend_from_slice(record.body);
        loc
    }

    /// The payload of a record, with attempts 0.
    #[inline]
    pub(super) fn payload(&self, loc: Loc) -> &[u8] {
        let chunk = self.chunks[self.index(loc.chunk)].as_ref().expect("a record that is needed is kept");
        let (start, end) = extent(&chunk.bytes, loc.offset as usize);
        &chunk.bytes[start..end]
    }

    /// Where the next record will be.
    pub(super) fn end(&self) -> Loc {
        match self.chunks.back() {
            Some(Some(tail)) => Loc { chunk: self.number(self.chunks.len() - 1), offset: tail.bytes.len() as u32 },
            _ => Loc { chunk: self.number(self.chunks.len()), offset: 0 },
        }
    }

    /// Moves a cursor over the next record that cursors do not pass over, and tells where that is.
    /// There must be one.
    #[inline]
    pub(super) fn advance(&self, cursor: &mut Loc) -> Loc {
        let mut index = cursor.chunk.wrapping_sub(self.first) as usize;
        if index >= self.chunks.len() {
            // The chunk it stood in has gone: nobody needed what was left of it.
            (*cursor, index) = (Loc { chunk: self.first, offset: 0 }, 0);
        }
        loop {
            if let Some(chunk) = &self.chunks[index] {
                while (cursor.offset as usize) < chunk.bytes.len() {
                    let at = *cursor;
                    let word = length_word(&chunk.bytes, at.offset as usize);
                    cursor.offset = extent(&chunk.bytes, at.offset as usize).1 as u32;
                    if word & !LENGTH == 0 {
                        return at;
                    }
                }
            }
            index += 1;
            *cursor = Loc { chunk: self.number(index), offset: 0 };
        }
    }

    /// A channel takes up to `limit` of the plain records from `fan` on; returns how many it took.
    pub(super) fn admit(&mut self, fan: Loc, limit: u64) -> u64 {
        let mut left = limit;
        let before = self.distance(fan);
        for chunk in self.chunks.iter_mut().skip(before).flatten() {
            let take = u64::from(chunk.plain).min(left);
            chunk.live += take as u32;
            left -= take;
        }
        self.live += limit - left;
        limit - left
    }

    /// A channel takes a deferred record, or a copy of one that another channel has.
    pub(super) fn keep(&mut self, loc: Loc) {
        self.chunk(loc.chunk).live += 1;
        self.live += 1;
    }

    /// All records from `fan` on have been given to the channels that wanted them.
    pub(super) fn fanned_out(&mut self, fan: Loc) {
        for index in self.distance(fan)..self.chunks.len() {
            if let Some(chunk) = &mut self.chunks[index] {
                (chunk.plain, chunk.deferred) = (0, 0);
                if chunk.live == 0 {
                    self.free(index);
                }
            }
        }
        self.trim();
    }

    /// A channel does not need the record any more.
    #[inline]
    pub(super) fn done(&mut self, loc: Loc) {
        self.live -= 1;
        self.ended += 1;
        let index = self.index(loc.chunk);
        let chunk = self.chunks[index].as_mut().expect("a record that is needed is kept");
        chunk.live -= 1;
        if chunk.live == 0 && chunk.plain == 0 && chunk.deferred == 0 {
            self.free(index);
            self.trim();
        }
    }

    /// Bytes of memory held.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether stragglers should be looked for: much is held, and as much has ended as has not, so that looking at all
    /// that is left costs little for each message.
    #[inline]
    pub(super) const fn wants_sweep(&self) -> bool {
        self.bytes >= SWEEP_MIN && self.ended >= self.live
    }

    /// Marks the chunks before `limit` of which less than a quarter is needed, if each record was for so many channels.
    pub(super) fn mark_sparse(&mut self, limit: Loc, channels: u32) {
        let before = self.distance(limit);
        for chunk in self.chunks.iter_mut().take(before).flatten() {
            chunk.sparse = u64::from(chunk.live) * 4 < u64::from(chunk.records) * u64::from(channels);
        }
        self.ended = 0;
    }

    /// Whether the record is a straggler: its chunk was marked.
    pub(super) fn is_sparse(&self, loc: Loc) -> bool {
        self.chunks[self.index(loc.chunk)].as_ref().is_some_and(|chunk| chunk.sparse)
    }

    /// Appends a copy of a straggler that nobody needs yet; the old one is still needed by those who need it.
    pub(super) fn carry(&mut self, loc: Loc) -> Loc {
        let payload = self.payload(loc).to_vec();
        let seq = self.next_seq;
        self.next_seq += 1;
        let new = self.reserve(RECORD_HEADER + payload.len(), 0);
        let chunk = self.tail();
        chunk.records += 1;
        chunk.bytes.extend_from_slice(&[0; LENGTH_AT]);
        chunk.bytes.extend_from_slice(&(payload.len() as u32 | CARRIED).to_be_bytes());
        chunk.bytes.extend_from_slice(&[0; SEQ_AT - LENGTH_AT - 4]);
        chunk.bytes.extend_from_slice(&(seq as u32).to_be_bytes());
        chunk.bytes.extend_from_slice(&payload);
        new
    }

    /// The (channel, message) pairs counted for each chunk, and its records not given to channels.
    pub(super) fn counts(&self) -> impl Iterator<Item = (u32, u32, u32, u32)> + '_ {
        let chunks = self.chunks.iter().enumerate();
        chunks.filter_map(|(index, chunk)| {
            chunk.as_ref().map(|chunk| (self.number(index), chunk.live, chunk.plain, chunk.deferred))
        })
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.chunks.capacity()
    }

    pub(super) fn check(&self) {
        let held: usize = self.chunks.iter().flatten().map(|chunk| chunk.bytes.capacity()).sum();
        assert_eq!(held, self.bytes, "bytes held are counted");
        let live: u64 = self.chunks.iter().flatten().map(|chunk| u64::from(chunk.live)).sum();
        assert_eq!(live, self.live, "what is needed is counted");
        assert!(!matches!(self.chunks.front(), Some(None)), "no freed chunk at the front");
        for chunk in self.chunks.iter().flatten() {
            assert!(chunk.live + chunk.plain + chunk.deferred > 0, "a chunk is kept for somebody");
        }
    }

    /// Makes room for a record of `size` bytes at the end.
    #[inline]
    fn reserve(&mut self, size: usize, more: usize) -> Loc {
        match self.chunks.back() {
            Some(Some(tail)) if tail.bytes.capacity() - tail.bytes.len() >= size => {}
            tail => {
                let grown = tail.and_then(Option::as_ref).map_or(0, |tail| 2 * tail.bytes.capacity());
                self.open(size, (size + more).max(grown));
            }
        }
        self.end()
    }

    #[cold]
    fn open(&mut self, size: usize, wanted: usize) {
        let capacity = wanted.next_power_of_two().clamp(CHUNK_MIN, CHUNK_MAX).max(size);
        let bytes = Vec::with_capacity(capacity);
        self.bytes += bytes.capacity();
        self.budget.charge(bytes.capacity());
        self.chunks.push_back(Some(Chunk { bytes, records: 0, live: 0, plain: 0, deferred: 0, sparse: false }));
    }

    fn free(&mut self, index: usize) {
        if let Some(chunk) = self.chunks[index].take() {
            self.bytes -= chunk.bytes.capacity();
            self.budget.release(chunk.bytes.capacity());
        }
    }

    fn trim(&mut self) {
        while let Some(None) = self.chunks.front() {
            self.chunks.pop_front();
            self.first = self.first.wrapping_add(1);
        }
        if self.chunks.is_empty() && self.chunks.capacity() > 16 {
            self.chunks = VecDeque::new();
        }
    }

    fn tail(&mut self) -> &mut Chunk {
        self.chunks.back_mut().and_then(Option::as_mut).expect("a record was just given room")
    }

    fn chunk(&mut self, number: u32) -> &mut Chunk {
        let index = self.index(number);
        self.chunks[index].as_mut().expect("a record that is needed is kept")
    }

    const fn index(&self, number: u32) -> usize {
        number.wrapping_sub(self.first) as usize
    }

    /// How many chunks are before the one of `loc`; none if that has gone.
    pub(super) fn distance(&self, loc: Loc) -> usize {
        let distance = self.index(loc.chunk);
        if distance > self.chunks.len() { 0 } else { distance }
    }

    const fn number(&self, index: usize) -> u32 {
        self.first.wrapping_add(index as u32)
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.budget.release(self.bytes);
    }
}

/// Appends the V2 message frame for a payload, as the attempts-th delivery (spec: nsqd_protocol §1.3, §2.1).
#[inline]
pub(super) fn write_frame(payload: &[u8], attempts: u16, out: &mut Vec<u8>) {
    const MESSAGE_FRAME: u32 = 2;
    let mut head = [0; FRAME_HEADER];
    head[..4].copy_from_slice(&(payload.len() as u32 + 4).to_be_bytes());
    head[4..].copy_from_slice(&MESSAGE_FRAME.to_be_bytes());
    out.reserve(FRAME_HEADER + payload.len());
    out.extend_from_slice(&head);
    let at = out.len() + ATTEMPTS_AT;
    out.extend_from_slice(payload);
    out[at..at + 2].copy_from_slice(&attempts.to_be_bytes());
}

/// Bytes of a frame before its data.
pub(super) const FRAME_HEADER: usize = 8;

#[inline]
fn length_word(bytes: &[u8], offset: usize) -> u32 {
    let at = offset + LENGTH_AT;
    u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

/// Start and end of the payload of the record at `offset`.
#[inline]
fn extent(bytes: &[u8], offset: usize) -> (usize, usize) {
    let word = length_word(bytes, offset);
    let extra = if word & DEFERRED == 0 { 0 } else { DEFERRED_EXTRA };
    let start = offset + RECORD_HEADER + extra;
    (start, start + (word & LENGTH) as usize)
}
