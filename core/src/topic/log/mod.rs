//! A topic's log: records appended to chunks, in the layout of `docs/log-format.md`.
//!
//! Every message is here once, however many channels share it. A chunk counts the (channel, message) pairs that still
//! need it and the records not yet given to channels; at zero of both it is freed. Positions ([`Loc`]) stay valid as
//! long as somebody needs the record: that is the one rule, and [`Log::done`] is how it ends. Counts are always here,
//! bytes may be on disk only: then whoever needs them is told so, and the topic fetches them.

mod chunk;

use crate::budget::Budget;
use crate::message::{ATTEMPTS_AT, MessageId, PAYLOAD_HEADER};
use crate::storage::CHUNKS_END;
use crate::storage::journal::Place;
use crate::storage::record::{CARRIED, DEFERRED, Header, PAYLOAD_MAX};
use crate::storage::recovered::Problem;
use crate::time::{Duration, Timestamp};
use alloc::collections::VecDeque;
use alloc::vec::Vec;
pub(super) use chunk::{Chunk, Placed, Step, Unavailable};
use core::fmt;

/// Where a record is: the number of its chunk and the offset of its header, in one word, for there is one of these for
/// each message that is out. The order is that of the log.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Loc(u64);

/// Between two records: in front of the one at `offset`, if there is one, and behind so many plain ones of the chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cursor {
    pub(super) chunk: u64,
    pub(super) offset: u32,
    pub(super) passed: u32,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Log {
    /// Those that somebody needs, in the order of their numbers.
    chunks: VecDeque<Chunk>,
    /// The first one's number.
    first: u64,
    next_number: u64,
    /// Bytes of memory that the chunks hold, and how many hold none.
    bytes: usize,
    evicted: usize,
    /// (channel, message) pairs of all chunks, those that have ended, and how many had when stragglers were looked for.
    live: u64,
    ended: u64,
    swept: u64,
    next_seq: u64,
    budget: Budget,
    /// Placed chunks that nobody needs any more, and where they were.
    freed: Vec<(u64, Placed)>,
    /// Chunks whose bytes somebody came to and did not find.
    wanted: Vec<u64>,
}

/// A message to append.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record<'a> {
    pub(super) time: Timestamp,
    pub(super) id: MessageId,
    pub(super) body: &'a [u8],
    /// Zero for a message that is due at once.
    pub(super) defer: Duration,
    /// It may stay in memory only, and channels take it at once.
    pub(super) is_given: bool,
}

/// See [`Log::straggler`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Straggler {
    /// It is none, or it is not resident.
    Stays,
    /// To be carried forward.
    Moves,
    /// It cannot be read any more.
    Lost,
}

const CHUNK_MIN: usize = 1024;
pub(super) const CHUNK_MAX: usize = 256 * 1024;
const SWEEP_MIN: usize = 4 * 1024 * 1024;
/// Bits of an offset at which a record begins: a larger chunk has only one record, at its beginning.
const OFFSET_BITS: u32 = CHUNK_MAX.trailing_zeros();
const _: () = assert!(CHUNK_MAX == 1 << OFFSET_BITS && CHUNKS_END <= 1 << (63 - OFFSET_BITS));
const KEPT: &str = "a record that is needed is kept";

impl Loc {
    #[inline]
    pub(super) const fn new(chunk: u64, offset: u32) -> Self {
        debug_assert!(offset < 1 << OFFSET_BITS, "no record begins there");
        Self(chunk << OFFSET_BITS | offset as u64)
    }

    /// The one that a journal names. What lies names a place between records, and so does this.
    pub(super) fn of(place: Place) -> Self {
        Self::new(place.chunk, place.offset.min((1 << OFFSET_BITS) - 1))
    }

    #[inline]
    pub(super) const fn chunk(self) -> u64 {
        self.0 >> OFFSET_BITS
    }

    #[inline]
    pub(super) const fn offset(self) -> u32 {
        self.0 as u32 & ((1 << OFFSET_BITS) - 1)
    }

    /// How a journal names it.
    pub(super) const fn place(self) -> Place {
        Place { chunk: self.chunk(), offset: self.offset() }
    }
}

impl fmt::Debug for Loc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.chunk(), self.offset())
    }
}

impl Log {
    pub(super) fn new(budget: Budget) -> Self {
        Self::starting_at(budget, 0, 1)
    }

    /// An empty log whose first chunk and record have these numbers.
    pub(super) fn starting_at(budget: Budget, next_number: u64, next_seq: u64) -> Self {
        let (chunks, freed, wanted) = (VecDeque::new(), Vec::new(), Vec::new());
        let (bytes, live, ended) = (0, 0, 0);
        let (first, evicted, swept) = (0, 0, 0);
        Self { chunks, first, next_number, bytes, evicted, live, ended, swept, next_seq, budget, freed, wanted }
    }

    /// Appends a message. `more` is how many bytes are known to follow, so that the chunk can be made to fit.
    #[inline]
    pub(super) fn append(&mut self, record: Record<'_>, more: usize) -> Loc {
        let flags = self.flags(&record);
        let payload = PAYLOAD_HEADER + record.body.len();
        debug_assert!(payload <= PAYLOAD_MAX as usize, "larger than a session lets through");
        let header = Header { flags, payload: payload as u32, seq: self.next_seq as u32, sum: 0 };
        let (loc, chunk) = self.reserve(header.size(), more);
        chunk.count(flags);
        let bytes = &mut chunk.bytes;
        header.write(bytes);
        if flags == DEFERRED {
            let delay = i64::try_from(record.defer.as_nanos()).unwrap_or(i64::MAX);
            bytes.extend_from_slice(&record.time.as_nanos().saturating_add(delay).to_be_bytes());
            bytes.extend_from_slice(&delay.to_be_bytes());
        }
        bytes.extend_from_slice(&record.time.as_nanos().to_be_bytes());
        bytes.extend_from_slice(&0u16.to_be_bytes());
        bytes.extend_from_slice(&record.id.0);
        bytes.extend_from_slice(record.body);
        self.next_seq += 1;
        loc
    }

    /// How a message is appended. When a deferred one is due, its channels know, so that in memory nothing else says
    /// it; if it comes to be written, they tell the journal.
    #[inline]
    fn flags(&mut self, record: &Record<'_>) -> u32 {
        let is_in_memory = |tail: &mut Chunk| tail.placed.is_none();
        match record.defer.is_zero() {
            true => 0,
            false if record.is_given && self.tail().is_none_or(is_in_memory) => CARRIED,
            false => DEFERRED,
        }
    }

    /// The payload of a record, with attempts 0.
    #[inline]
    pub(super) fn payload(&self, loc: Loc) -> Result<&[u8], Unavailable> {
        self.get(loc.chunk()).payload(loc.offset())
    }

    /// Behind the last record.
    pub(super) fn end(&self) -> Cursor {
        match self.chunks.back() {
            Some(tail) if tail.number + 1 == self.next_number => {
                Cursor { chunk: tail.number, offset: tail.end(), passed: tail.plain }
            }
            _ => Cursor { chunk: self.next_number, offset: 0, passed: 0 },
        }
    }

    /// Moves a cursor over the next plain record, and tells where that is, if it can be read. There must be one.
    #[inline(always)]
    pub(super) fn advance(&self, cursor: &mut Cursor) -> Step {
        if let Some(chunk) = self.chunks.get(cursor.chunk.wrapping_sub(self.first) as usize)
            && chunk.number == cursor.chunk
            && let Some(step) = chunk.advance(cursor)
        {
            return step;
        }
        self.advance_to_next(cursor)
    }

    #[cold]
    fn advance_to_next(&self, cursor: &mut Cursor) -> Step {
        let mut index = self.at_or_after(cursor.chunk);
        loop {
            let chunk = &self.chunks[index];
            if chunk.number != cursor.chunk {
                *cursor = chunk.front();
            }
            if let Some(step) = chunk.advance(cursor) {
                return step;
            }
            index += 1;
        }
    }

    /// The chunk after the one that a cursor is in, if it is not resident.
    pub(super) fn missing_after(&self, cursor: Cursor) -> Option<u64> {
        let next = self.at_or_after(cursor.chunk) + 1;
        self.chunks.get(next).filter(|chunk| !chunk.is_resident()).map(|chunk| chunk.number)
    }

    /// Moves a cursor behind the chunk that it is in; how many plain records that were.
    pub(super) fn pass_chunk(&self, cursor: &mut Cursor) -> u64 {
        let chunk = &self.chunks[self.find(cursor.chunk)];
        let passed = chunk.plain.saturating_sub(cursor.passed);
        (cursor.offset, cursor.passed) = (chunk.end(), chunk.plain);
        passed.into()
    }

    /// Whether the record is written, or, for `power_off`, on the medium.
    pub(super) fn is_safe(&self, loc: Loc, power_off: bool) -> bool {
        let placed = self.chunks[self.find(loc.chunk())].placed.as_ref();
        let end = |placed: &Placed| if power_off { placed.synced } else { placed.written };
        placed.is_some_and(|placed| loc.offset() >= placed.unjournalled && loc.offset() < end(placed).max(placed.kept))
    }

    /// Whether a publish was answered before the record was written: its chunk was in memory only.
    pub(super) fn is_acknowledged(&self, loc: Loc) -> bool {
        let placed = self.chunks[self.find(loc.chunk())].placed.as_ref();
        placed.is_none_or(|placed| loc.offset() < placed.unjournalled)
    }

    /// A channel does not need the next `count` plain records from `cursor` on any more.
    pub(super) fn skip(&mut self, cursor: Cursor, count: u64) {
        let spread: Vec<_> = self.spread(cursor, count).collect();
        for (index, count) in spread.into_iter().rev() {
            self.chunks[index].live -= count;
            self.free_unneeded(index);
        }
        self.live -= count;
        self.ended += count;
    }

    /// How the next `count` plain records from `cursor` on are spread over chunks: index, and how many.
    fn spread(&self, cursor: Cursor, count: u64) -> impl Iterator<Item = (usize, u32)> + '_ {
        let begin = self.at_or_after(cursor.chunk);
        let mut left = count;
        self.chunks.iter().enumerate().skip(begin).map_while(move |(index, chunk)| {
            let passed = if chunk.number == cursor.chunk { cursor.passed } else { 0 };
            let here = left.min(u64::from(chunk.plain.saturating_sub(passed)));
            left -= here;
            (here > 0 || left > 0).then_some((index, here as u32))
        })
    }

    /// [`spread`](Self::spread) by the chunks' numbers.
    pub(super) fn numbers(&self, cursor: Cursor, count: u64) -> impl Iterator<Item = (u64, u32)> + '_ {
        self.spread(cursor, count).map(|(index, count)| (self.chunks[index].number, count))
    }

    /// So many channels take the `count` plain records from `fan` on, which are held back.
    pub(super) fn admit(&mut self, fan: Cursor, count: u64, channels: u32) {
        let mut left = count;
        let before = self.at_or_after(fan.chunk);
        for chunk in self.chunks.range_mut(before..) {
            let take = u64::from(chunk.held_back).min(left);
            chunk.live += take as u32 * channels;
            left -= take;
        }
        debug_assert_eq!(left, 0, "what is given to channels was held back");
        self.live += count * u64::from(channels);
    }

    /// A channel takes the next `count` plain records from a cursor on, whoever else has them.
    pub(super) fn retake(&mut self, from: Cursor, count: u64) {
        let spread: Vec<_> = self.spread(from, count).collect();
        for (index, count) in spread {
            self.chunks[index].live += count;
            self.live += u64::from(count);
        }
    }

    /// A channel takes a deferred record, or a copy of one that another channel has.
    pub(super) fn keep(&mut self, loc: Loc) {
        let index = self.find(loc.chunk());
        self.chunks[index].live += 1;
        self.live += 1;
    }

    /// All records from `fan` on have been given to the channels that wanted them.
    pub(super) fn fanned_out(&mut self, fan: Cursor) {
        let mut index = self.at_or_after(fan.chunk);
        while let Some(chunk) = self.chunks.get_mut(index) {
            (chunk.held_back, chunk.held_back_deferred) = (0, 0);
            index += usize::from(!self.free_unneeded(index));
        }
    }

    /// So many plain records from `fan` on have been given to the channels, and these deferred ones.
    pub(super) fn fanned_out_partly(&mut self, fan: Cursor, count: u64, deferred: impl Iterator<Item = Loc>) {
        for loc in deferred {
            let index = self.find(loc.chunk());
            self.chunks[index].held_back_deferred -= 1;
        }
        let spread: Vec<_> = self.spread(fan, count).collect();
        spread.into_iter().for_each(|(index, count)| self.chunks[index].held_back -= count);
        let mut index = self.at_or_after(fan.chunk);
        while index < self.chunks.len() {
            index += usize::from(!self.free_unneeded(index));
        }
    }

    /// A channel does not need the record any more.
    #[inline]
    pub(super) fn done(&mut self, loc: Loc) {
        self.live -= 1;
        self.ended += 1;
        let index = self.find(loc.chunk());
        let chunk = &mut self.chunks[index];
        chunk.live -= 1;
        if !chunk.is_needed() {
            self.free(index);
        }
    }

    /// Bytes of memory held.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// (channel, message) pairs that are not done.
    pub(super) const fn live(&self) -> u64 {
        self.live
    }

    /// Numbers that were not used yet: of a record, and of a chunk.
    pub(super) const fn next(&self) -> (u64, u64) {
        (self.next_seq, self.next_number)
    }

    /// (channel, message) pairs that are done.
    pub(super) const fn ended(&self) -> u64 {
        self.ended
    }

    /// Whether stragglers should be looked for: much is held, and as much has ended as has not, so that looking at all
    /// that is left costs little for each message.
    #[inline]
    pub(super) const fn wants_sweep(&self) -> bool {
        self.bytes >= SWEEP_MIN && self.ended > self.swept && self.ended - self.swept >= self.live
    }

    /// Marks the chunks before `limit` that are in memory only and of which less than a quarter is needed, if each
    /// record was for so many channels.
    pub(super) fn mark_sparse(&mut self, limit: Cursor, channels: u32) {
        let before = self.at_or_after(limit.chunk);
        for chunk in self.chunks.range_mut(..before).filter(|chunk| chunk.placed.is_none()) {
            chunk.sparse |= u64::from(chunk.live) * 4 < u64::from(chunk.records) * u64::from(channels);
        }
        self.swept = self.ended;
    }

    /// The chunks before the one that a cursor is in.
    pub(super) fn chunks_before(&self, limit: Cursor) -> impl Iterator<Item = &Chunk> {
        self.chunks.range(..self.at_or_after(limit.chunk))
    }

    /// What becomes of a record that somebody needs when stragglers are carried forward.
    pub(super) fn straggler(&self, loc: Loc) -> Straggler {
        let chunk = &self.chunks[self.find(loc.chunk())];
        match chunk.payload(loc.offset()) {
            _ if !chunk.sparse => Straggler::Stays,
            Ok(_) => Straggler::Moves,
            Err(Unavailable::Missing(_)) => Straggler::Stays,
            Err(Unavailable::Lost) => Straggler::Lost,
        }
    }

    /// All stragglers in memory were carried forward.
    pub(super) fn unmark_sparse(&mut self) {
        self.chunks.iter_mut().filter(|chunk| chunk.is_resident()).for_each(|chunk| chunk.sparse = false);
    }

    /// Appends a copy of a straggler that nobody needs yet; the old one is still needed by those who need it.
    pub(super) fn carry(&mut self, loc: Loc) -> Loc {
        let payload = self.payload(loc).expect("a straggler can be read").to_vec();
        let header = Header { flags: CARRIED, payload: payload.len() as u32, seq: self.next_seq as u32, sum: 0 };
        let (new, chunk) = self.reserve(header.size(), 0);
        chunk.count(CARRIED);
        header.write(&mut chunk.bytes);
        chunk.bytes.extend_from_slice(&payload);
        self.next_seq += 1;
        new
    }

    /// The chunks that somebody needs, oldest first.
    pub(super) fn chunks(&self) -> impl Iterator<Item = &Chunk> {
        self.chunks.iter()
    }

    pub(super) fn chunks_mut(&mut self) -> impl Iterator<Item = &mut Chunk> {
        self.chunks.iter_mut()
    }

    /// The chunk that is appended to, if there is one.
    #[inline]
    pub(super) fn tail(&mut self) -> Option<&mut Chunk> {
        self.chunks.back_mut().filter(|tail| tail.number + 1 == self.next_number)
    }

    /// The chunk of that number, if somebody still needs it.
    pub(super) fn chunk(&mut self, number: u64) -> Option<&mut Chunk> {
        let index = self.at_or_after(number);
        self.chunks.get_mut(index).filter(|chunk| chunk.number == number)
    }

    /// In front of the first record that somebody needs.
    pub(super) fn begin(&self) -> Cursor {
        self.chunks.front().map_or_else(|| self.end(), Chunk::front)
    }

    /// Plain records between two cursors.
    pub(super) fn between(&self, begin: Cursor, end: Cursor) -> u64 {
        let (first, last) = (self.at_or_after(begin.chunk), self.at_or_after(end.chunk));
        let passed = |cursor: Cursor, chunk: &Chunk| {
            let is_in = chunk.number == cursor.chunk;
            if is_in { u64::from(cursor.passed) } else { 0 }
        };
        let mut count = 0;
        for (index, chunk) in self.chunks.iter().enumerate().skip(first).take_while(|(index, _)| *index <= last) {
            let to = if index < last { chunk.plain.into() } else { passed(end, chunk) };
            count += to.saturating_sub(passed(begin, chunk));
        }
        count
    }

    /// The first plain record of that chunk between two cursors, if it can be read.
    pub(super) fn first_between(&self, begin: Cursor, end: Cursor, number: u64) -> Option<Loc> {
        let chunk = self.chunks.get(self.at_or_after(number)).filter(|chunk| chunk.number == number)?;
        let mut cursor = if begin.chunk < number { chunk.front() } else { begin };
        if cursor.chunk != number {
            return None;
        }
        match chunk.advance(&mut cursor) {
            Some(Step::Record(loc)) => Some(loc).filter(|loc| (loc.chunk(), loc.offset()) < (end.chunk, end.offset)),
            _ => None,
        }
    }

    /// Chunks whose bytes are not resident.
    pub(super) const fn evicted(&self) -> usize {
        self.evicted
    }

    /// Whether a chunk is written up to that offset, or nobody needs it.
    pub(super) fn is_written(&self, number: u64, end: u32) -> bool {
        let chunk = self.chunks.get(self.at_or_after(number)).filter(|chunk| chunk.number == number);
        chunk.and_then(|chunk| chunk.placed.as_ref()).is_none_or(|placed| placed.written >= end)
    }

    /// Whether the record is in a chunk that is on disk, or will be.
    pub(super) fn is_placed(&self, loc: Loc) -> bool {
        self.segment(loc).is_some()
    }

    /// The segment that the record is in, or will be.
    pub(super) fn segment(&self, loc: Loc) -> Option<u32> {
        self.chunks[self.find(loc.chunk())].segment()
    }

    /// The offset behind the record, which is resident.
    pub(super) fn behind(&self, loc: Loc) -> u32 {
        loc.offset() + Header::of(&self.get(loc.chunk()).bytes[loc.offset() as usize..]).size() as u32
    }

    /// Bytes of the average record of the chunk that this one is in.
    pub(super) fn average_size(&self, loc: Loc) -> u64 {
        self.chunks[self.find(loc.chunk())].average_size()
    }

    /// Placed chunks that nobody needs any more, and where they were.
    pub(super) fn take_freed(&mut self) -> Vec<(u64, Placed)> {
        core::mem::take(&mut self.freed)
    }

    /// Somebody cannot go on without the bytes of this chunk.
    #[cold]
    pub(super) fn want(&mut self, number: u64) {
        self.wanted.push(number);
    }

    /// What somebody cannot go on without.
    pub(super) fn take_wanted(&mut self) -> Vec<u64> {
        core::mem::take(&mut self.wanted)
    }

    /// Gives the memory of a chunk back that is on the medium.
    pub(super) fn evict(&mut self, number: u64) {
        if let Some(chunk) = self.chunk(number) {
            let memory = chunk.memory();
            chunk.evict();
            self.evicted += 1;
            self.bytes -= memory;
            self.budget.release(memory);
        }
    }

    /// Takes the bytes of a chunk back into memory; the damage in it that was not known.
    pub(super) fn load(&mut self, number: u64, bytes: Vec<u8>, damage: Vec<(u32, u32)>) -> Vec<Problem> {
        let Some(chunk) = self.chunk(number) else { return Vec::new() };
        let problems = chunk.load(bytes, damage);
        let memory = chunk.memory();
        self.evicted -= 1;
        self.bytes += memory;
        self.budget.charge(memory);
        problems
    }

    /// Adds a chunk from disk, whose plain records from `passed` on, and so many deferred ones, are held back.
    pub(super) fn restore(&mut self, mut chunk: Chunk, passed: Option<u32>, deferred: u32) {
        chunk.held_back = passed.map_or(0, |passed| chunk.plain.saturating_sub(passed));
        chunk.held_back_deferred = deferred;
        self.evicted += 1;
        self.chunks.push_back(chunk);
        self.first = self.chunks[0].number;
    }

    /// A cursor where a journal says that one was: in front of the next record that is there.
    pub(super) fn cursor_at(&self, number: u64, offset: u32, passed: u32) -> Cursor {
        match self.chunks.get(self.at_or_after(number)) {
            Some(chunk) if chunk.number == number && offset <= chunk.end() && passed <= chunk.plain => {
                Cursor { chunk: number, offset, passed }
            }
            Some(chunk) if chunk.number == number => Cursor { chunk: number, offset: chunk.end(), passed: chunk.plain },
            Some(chunk) => chunk.front(),
            None => self.end(),
        }
    }

    /// Frees what nobody turned out to need.
    pub(super) fn free_all_unneeded(&mut self) {
        (0..self.chunks.len()).rev().for_each(|index| {
            self.free_unneeded(index);
        });
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.chunks.capacity()
    }

    #[cfg(test)]
    pub(super) const fn skip_numbers(&mut self, count: u64) {
        self.next_number += count;
    }

    pub(super) fn check(&self) {
        let held: usize = self.chunks.iter().map(Chunk::memory).sum();
        assert_eq!(held, self.bytes, "bytes held are counted");
        let evicted = self.chunks.iter().filter(|chunk| !chunk.is_resident()).count();
        assert_eq!(evicted, self.evicted, "what is not resident is counted");
        let live: u64 = self.chunks.iter().map(|chunk| u64::from(chunk.live)).sum();
        assert_eq!(live, self.live, "what is needed is counted");
        assert!(self.chunks.iter().is_sorted_by(|one, next| one.number < next.number), "chunks are in order");
        assert!(self.chunks.iter().all(Chunk::is_needed), "a chunk is kept for somebody");
        for Placed { given, written, synced, .. } in self.chunks.iter().filter_map(|chunk| chunk.placed.as_deref()) {
            assert!(synced <= written && written <= given, "{synced} of {written} of {given} are on the medium");
        }
    }

    /// The (channel, message) pairs counted for each chunk, and its records not given to channels.
    pub(super) fn counts(&self) -> impl Iterator<Item = (u64, u32, u32, u32)> + '_ {
        let counts = |chunk: &Chunk| (chunk.number, chunk.live, chunk.held_back, chunk.held_back_deferred);
        self.chunks.iter().map(counts)
    }

    /// Makes room for a record of `size` bytes at the end.
    #[inline]
    fn reserve(&mut self, size: usize, more: usize) -> (Loc, &mut Chunk) {
        if !self.chunks.back().is_some_and(|tail| tail.fits(size) && tail.number + 1 == self.next_number) {
            self.open(size, more);
        }
        let tail = self.chunks.back_mut().expect("a chunk with room");
        (Loc::new(tail.number, tail.bytes.len() as u32), tail)
    }

    #[cold]
    fn open(&mut self, size: usize, more: usize) {
        let grown = self.tail().map_or(0, |tail| 2 * tail.memory());
        let wanted = (size + more).max(grown);
        let capacity = wanted.next_power_of_two().clamp(CHUNK_MIN, CHUNK_MAX).max(size);
        let chunk = Chunk::new(self.next_number, capacity, self.next_seq);
        self.bytes += chunk.memory();
        self.budget.charge(chunk.memory());
        self.chunks.push_back(chunk);
        self.first = self.chunks[0].number;
        self.next_number += 1;
    }

    fn free_unneeded(&mut self, index: usize) -> bool {
        let unneeded = !self.chunks[index].is_needed();
        if unneeded {
            self.free(index);
        }
        unneeded
    }

    fn free(&mut self, index: usize) {
        let Some(chunk) = self.chunks.remove(index) else { return };
        self.first = self.chunks.front().map_or(0, |first| first.number);
        self.bytes -= chunk.memory();
        self.evicted -= usize::from(!chunk.is_resident());
        self.budget.release(chunk.memory());
        self.freed.extend(chunk.placed.map(|placed| (chunk.number, *placed)));
        if self.chunks.is_empty() && self.chunks.capacity() > 16 {
            self.chunks = VecDeque::new();
        }
    }

    /// The index of a chunk that somebody needs.
    #[inline]
    fn find(&self, number: u64) -> usize {
        let index = self.at_or_after(number);
        debug_assert!(self.chunks.get(index).is_some_and(|chunk| chunk.number == number), "{KEPT}");
        index
    }

    /// The index of the first chunk that does not come before the one of that number.
    #[inline]
    pub(super) fn at_or_after(&self, number: u64) -> usize {
        // Where it is if none is left out before it.
        let distance = number.wrapping_sub(self.first) as usize;
        match self.chunks.get(distance) {
            Some(chunk) if chunk.number == number => distance,
            _ => self.search(number),
        }
    }

    /// A chunk that somebody needs.
    #[inline]
    fn get(&self, number: u64) -> &Chunk {
        match self.chunks.get(number.wrapping_sub(self.first) as usize) {
            Some(chunk) if chunk.number == number => chunk,
            _ => &self.chunks[self.search(number)],
        }
    }

    #[cold]
    fn search(&self, number: u64) -> usize {
        self.chunks.partition_point(|chunk| chunk.number < number)
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
