//! A chunk: a run of records, in memory, on disk, or both.
//!
//! Its number and the offsets in it never change, wherever its bytes are. They are *resident* all or not at all, so
//! that whoever reads needs one look, and a chunk can always be written again as a whole. A *placed* chunk has a region
//! of a segment, to which all its records go, those to come included.

use super::{CHUNK_MAX, Cursor, Loc};
use crate::message::PAYLOAD_HEADER;
use crate::storage::names::FileName;
use crate::storage::record::{DEFERRED, Header, LOST, correct_gaps};
use crate::storage::recovered::{Problem, Trouble};
use crate::storage::segment::{REGION_HEAD, Region};
use alloc::boxed::Box;
use alloc::vec::Vec;

/// See the module's documentation.
#[derive(Debug)]
pub(in crate::topic) struct Chunk {
    pub(in crate::topic) number: u64,
    pub(super) bytes: Vec<u8>,
    /// Up to how many bytes it may grow; nothing is appended to one that has been evicted.
    pub(super) capacity: u32,
    /// The offset behind the last record, if the bytes are not resident; else 0.
    evicted: u32,
    pub(in crate::topic) first_seq: u64,
    /// All records; those that cursors walk over; those with a due time.
    pub(super) records: u32,
    pub(super) plain: u32,
    pub(super) deferred: u32,
    /// (channel, message) pairs that need this chunk.
    pub(super) live: u32,
    /// Records not yet given to channels: plain ones, and those with a due time.
    pub(super) held_back: u32,
    pub(super) held_back_deferred: u32,
    /// Little of it is needed: stragglers are to be carried forward.
    pub(in crate::topic) sparse: bool,
    damaged: bool,
    pub(in crate::topic) placed: Option<Box<Placed>>,
}

/// Where a chunk is on disk, and how much of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::topic) struct Placed {
    pub(in crate::topic) segment: u32,
    /// Where the head of its region is in the file, and how many bytes of records fit into it.
    pub(in crate::topic) region: u64,
    pub(in crate::topic) room: u32,
    /// Up to which offset the records were handed to the disk, are written, are on the medium.
    pub(in crate::topic) given: u32,
    pub(in crate::topic) written: u32,
    pub(in crate::topic) synced: u32,
    /// Up to which offset they are in a segment that was retired, and stays until they are in this one.
    pub(in crate::topic) kept: u32,
    /// Up to which offset the journal may take what is out of it for done: it was placed when that was there already.
    pub(in crate::topic) unjournalled: u32,
    /// It is being read; how often in a row that has failed.
    pub(in crate::topic) loading: bool,
    pub(in crate::topic) failures: u32,
    /// Offsets between which nothing can be read any more.
    damage: Vec<(u32, u32)>,
}

impl Placed {
    /// Room in a segment, of which nothing is used.
    pub(in crate::topic) fn new(segment: u32, region: u64, room: u32) -> Self {
        Self { segment, region, room, ..Self::default() }
    }

    /// Where its records are in the file.
    pub(in crate::topic) const fn records_at(&self) -> u64 {
        self.region + REGION_HEAD as u64
    }

    /// Something is wrong at an offset.
    pub(in crate::topic) fn problem(&self, offset: u32, what: Trouble) -> Problem {
        Problem { file: FileName::Segment(self.segment), offset: self.records_at() + u64::from(offset), what }
    }
}

/// What a cursor comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::topic) enum Step {
    /// A plain record.
    Record(Loc),
    /// So many plain records that cannot be read any more.
    Lost(u32),
    /// This chunk's bytes, which are not resident.
    Missing(u64),
}

/// Why there is no payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::topic) enum Unavailable {
    /// The chunk's bytes are not resident.
    Missing(u64),
    /// It was damaged on disk.
    Lost,
}

impl Chunk {
    pub(super) fn new(number: u64, capacity: usize, first_seq: u64) -> Self {
        let bytes = Vec::with_capacity(capacity);
        Self {
            number,
            capacity: bytes.capacity() as u32,
            bytes,
            evicted: 0,
            first_seq,
            records: 0,
            plain: 0,
            deferred: 0,
            live: 0,
            held_back: 0,
            held_back_deferred: 0,
            sparse: false,
            damaged: false,
            placed: None,
        }
    }

    /// A chunk that a segment holds.
    pub(in crate::topic) fn on_disk(segment: u32, region: &Region) -> Self {
        let &Region { chunk, capacity, offset, used, records, plain, deferred, first_seq } = region;
        let (given, written, synced) = (used, used, used);
        let placed = Placed { segment, region: offset, room: capacity, given, written, synced, ..Placed::default() };
        let chunk = Self::new(chunk, 0, first_seq);
        Self { capacity: 0, evicted: used, records, plain, deferred, placed: Some(Box::new(placed)), ..chunk }
    }

    /// Bytes of memory that it holds.
    pub(super) const fn memory(&self) -> usize {
        self.bytes.capacity()
    }

    /// The offset behind the last record.
    #[inline]
    pub(in crate::topic) const fn end(&self) -> u32 {
        self.bytes.len() as u32 + self.evicted
    }

    /// Whether a record of so many bytes can be appended.
    #[inline]
    pub(super) const fn fits(&self, size: usize) -> bool {
        self.capacity as usize >= self.bytes.len() + size
    }

    /// How many bytes of records it may come to hold.
    pub(in crate::topic) fn room(&self) -> u32 {
        self.capacity.max(self.end())
    }

    /// The segment that it is placed in.
    pub(in crate::topic) fn segment(&self) -> Option<u32> {
        self.placed.as_ref().map(|placed| placed.segment)
    }

    /// Whether it has more records than one.
    pub(in crate::topic) const fn has_others(&self) -> bool {
        self.records > 1
    }

    /// Nothing is appended any more.
    pub(in crate::topic) const fn close(&mut self) {
        self.capacity = self.bytes.len() as u32;
    }

    /// Counts a record; its bytes are to be appended.
    #[inline]
    pub(super) const fn count(&mut self, flags: u32) {
        self.records += 1;
        if flags == 0 {
            self.plain += 1;
            self.held_back += 1;
        } else if flags & DEFERRED != 0 {
            self.deferred += 1;
            self.held_back_deferred += 1;
        }
    }

    #[inline]
    pub(in crate::topic) const fn is_needed(&self) -> bool {
        self.live + self.held_back + self.held_back_deferred > 0
    }

    #[inline]
    pub(in crate::topic) const fn is_resident(&self) -> bool {
        self.evicted == 0
    }

    /// All of it is on the medium and in the journal, so its memory can be had.
    pub(in crate::topic) fn is_evictable(&self) -> bool {
        self.is_resident() && !self.sparse && self.is_settled() && self.end() > 0
    }

    /// Some of what is written may not stay.
    pub(in crate::topic) fn has_unsynced(&self) -> bool {
        self.placed.as_ref().is_some_and(|placed| placed.synced < placed.written)
    }

    /// A crash brings back all that is needed of it.
    pub(in crate::topic) fn is_settled(&self) -> bool {
        self.placed.as_ref().is_some_and(|placed| placed.synced == self.end() && placed.unjournalled == 0)
    }

    /// Bytes of the average record.
    pub(in crate::topic) fn average_size(&self) -> u64 {
        u64::from(self.end()).div_ceil(u64::from(self.records.max(1)))
    }

    /// How many records are needed, at the least, if each is for so many channels.
    pub(in crate::topic) const fn needed_at_least(&self, channels: u32) -> u32 {
        if channels == 0 { 0 } else { self.live.div_ceil(channels) }
    }

    /// In front of its first record.
    #[inline]
    pub(super) const fn front(&self) -> Cursor {
        Cursor { chunk: self.number, offset: 0, passed: 0 }
    }

    /// The payload of the record at an offset.
    #[inline]
    pub(super) fn payload(&self, offset: u32) -> Result<&[u8], Unavailable> {
        if self.damaged && self.is_damaged(offset) {
            return Err(Unavailable::Lost);
        }
        let Some(record) = self.bytes.get(offset as usize..).filter(|record| !record.is_empty()) else {
            return Err(Unavailable::Missing(self.number));
        };
        // A journal that lies may name a place between records.
        let payload = Header::first(record).and_then(|header| record.get(header.payload_at()..header.size()));
        payload.filter(|payload| payload.len() >= PAYLOAD_HEADER).ok_or(Unavailable::Lost)
    }

    #[cold]
    fn is_damaged(&self, offset: u32) -> bool {
        let damage = self.placed.iter().flat_map(|placed| &placed.damage);
        self.is_resident() && damage.into_iter().any(|&(from, to)| (from..to).contains(&offset))
    }

    /// Moves a cursor in this chunk over what comes next; `None` if nothing does.
    // A step that is returned through memory costs more than finding it.
    #[inline(always)]
    pub(super) fn advance(&self, cursor: &mut Cursor) -> Option<Step> {
        if self.damaged {
            self.leave_damage(cursor);
            // Where a gap was counted for something else, counts are what everybody agrees on.
            if cursor.passed >= self.plain {
                return None;
            }
        }
        // What begins beyond the largest chunk is not ours.
        while (cursor.offset as usize) < self.bytes.len().min(CHUNK_MAX) {
            let at = cursor.offset;
            let Some(header) = Header::first(&self.bytes[at as usize..]) else { break };
            cursor.offset += header.size() as u32;
            if header.flags == 0 {
                if cursor.passed == self.plain {
                    return None;
                }
                cursor.passed += 1;
                return Some(Step::Record(Loc::new(self.number, at)));
            }
            if header.flags & LOST != 0 {
                let lost = header.sum.min(self.plain.saturating_sub(cursor.passed));
                cursor.passed += lost;
                if lost > 0 {
                    return Some(Step::Lost(lost));
                }
            }
        }
        self.past_the_end(cursor)
    }

    /// A cursor may have stood in front of a record whose header is gone.
    #[cold]
    fn leave_damage(&self, cursor: &mut Cursor) {
        let at = cursor.offset;
        let damage = self.placed.iter().flat_map(|placed| &placed.damage);
        if let Some(&(_, to)) = damage.into_iter().find(|(from, to)| (from + 1..*to).contains(&at)) {
            cursor.offset = to;
        }
    }

    #[cold]
    fn past_the_end(&self, cursor: &mut Cursor) -> Option<Step> {
        let left = self.plain.saturating_sub(cursor.passed);
        if left == 0 {
            return None;
        }
        if !self.is_resident() {
            return Some(Step::Missing(self.number));
        }
        // What was counted when it was written is not there any more.
        cursor.passed = self.plain;
        Some(Step::Lost(left))
    }

    /// The records that were not handed to the disk yet, and where they begin.
    pub(in crate::topic) fn ungiven(&self) -> Option<(u32, &[u8])> {
        let given = self.placed.as_ref().map_or(0, |placed| placed.given);
        (given < self.end() && self.is_resident()).then(|| (given, &self.bytes[given as usize..]))
    }

    /// How an index tells of it.
    pub(in crate::topic) fn region(&self) -> Option<Region> {
        let placed = self.placed.as_ref()?;
        Some(Region {
            chunk: self.number,
            capacity: placed.room,
            offset: placed.region,
            used: self.end(),
            records: self.records,
            plain: self.plain,
            deferred: self.deferred,
            first_seq: self.first_seq,
        })
    }

    /// Gives the memory back.
    pub(super) fn evict(&mut self) {
        (self.evicted, self.capacity) = (self.end(), 0);
        self.bytes = Vec::new();
    }

    /// Takes back what was evicted. `damage` is where it cannot be read any more; what of that was not known is
    /// returned.
    pub(super) fn load(&mut self, mut bytes: Vec<u8>, mut damage: Vec<(u32, u32)>) -> Vec<Problem> {
        let used = bytes.len() as u32;
        damage.extend((used < self.evicted).then_some((used, self.evicted)));
        bytes.shrink_to_fit();
        if !damage.is_empty() {
            correct_gaps(&mut bytes, self.plain);
        }
        (self.bytes, self.capacity, self.evicted) = (bytes, used, 0);
        let end = self.end();
        let Some(placed) = &mut self.placed else { return Vec::new() };
        placed.loading = false;
        // What is missing at the end is not read again, but must not be forgotten.
        (placed.given, placed.written, placed.synced) =
            (placed.given.min(end), placed.written.min(end), placed.synced.min(end));
        damage.retain(|range| !placed.damage.contains(range));
        let problem = |&(from, to): &(u32, u32)| placed.problem(from, Trouble::Damaged((to - from).into()));
        let problems = damage.iter().map(problem).collect();
        placed.damage.append(&mut damage);
        self.damaged = !placed.damage.is_empty();
        problems
    }
}
