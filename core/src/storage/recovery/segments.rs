//! What a segment holds: by its index, or by a walk through its regions.

use super::{Piece, Recovery, Step};
use crate::message::MessageId;
use crate::storage::Fields;
use crate::storage::journal::Place;
use crate::storage::names::FileName;
use crate::storage::record::{self, CARRIED, DEFERRED, DEFERRED_EXTRA, HEADER, Inspected};
use crate::storage::recovered::{Due, Late, Segment, Trouble};
use crate::storage::segment::{self, Head, Region};
use alloc::collections::btree_map::Entry;
use alloc::vec::Vec;

impl Recovery {
    pub(super) fn take_head(&mut self, number: u32, file: FileName, bytes: &[u8]) {
        if self.holes.are_in(file, 0..segment::HEAD as u64) {
            // Its zeros say nothing, and it was said that it cannot be read.
            return self.after_head(number);
        }
        match segment::read_head(bytes, self.incarnation, number, self.crc) {
            Head::Ours => {
                self.understand(number);
                self.after_head(number);
            }
            Head::Others => {
                self.problem(file, 0, Trouble::NotOurs);
                self.next_file();
            }
            Head::Version(version) => {
                self.problem(file, 0, Trouble::Version(version));
                self.next_file();
            }
            // What it says is in the file's name as well.
            Head::Damaged => {
                self.problem(file, 0, Trouble::Damaged(segment::HEAD as u64));
                self.after_head(number);
            }
            Head::Unwritten if self.safe(number).end > 0 => self.set_aside(file),
            // It was just made when the machine lost power, and nothing in it was relied upon.
            Head::Unwritten => {
                self.found.obsolete.push(file);
                self.next_file();
            }
        }
    }

    pub(super) fn after_head(&mut self, segment: u32) {
        let file = FileName::Segment(segment);
        match self.size(file).checked_sub(segment::FOOT as u64) {
            Some(foot) if foot >= segment::HEAD as u64 => self.want(Step::Foot(segment), file, foot, u64::MAX),
            _ => self.next_region(segment, segment::HEAD as u64),
        }
    }

    /// Looks for a region's head from there on, a window at a time.
    pub(super) fn seek(&mut self, step: Step, at: u64) {
        const WINDOW: u64 = 64 * 1024;
        if let Step::Seek { segment, .. } = step {
            self.want(step, FileName::Segment(segment), at, WINDOW);
        }
    }

    /// A region's head may have been damaged: then others may still come behind it. Zeros are room that was kept for a
    /// chunk which nobody needed any more before it was written.
    pub(super) fn take_sought(&mut self, segment: u32, from: u64, dirty: bool, piece: Piece, bytes: &[u8]) {
        let (file, end) = (piece.file, piece.offset + bytes.len() as u64);
        let is_head = |&at: &usize| segment::read_region_head(&bytes[at..], self.crc).is_some();
        let found = (0..bytes.len()).find(is_head);
        // A head may reach from this window into the next one.
        let next = (end + 1).saturating_sub(segment::REGION_HEAD as u64).max(piece.offset + 1);
        let is_last = end >= self.size(file);
        let passed = found.unwrap_or(if is_last { bytes.len() } else { (next - piece.offset) as usize });
        let dirty = dirty || bytes[..passed].iter().any(|&byte| byte != 0);
        match found.map(|at| piece.offset + at as u64) {
            Some(at) => {
                if dirty || self.holes.are_in(file, from..at) {
                    self.problem(file, from, Trouble::Damaged(at - from));
                    self.lost_chunks = true;
                }
                self.next_region(segment, at);
            }
            None if !is_last => self.seek(Step::Seek { segment, from, dirty }, next),
            None => {
                if self.holes.are_in(file, from..end) {
                    self.problem(file, from, Trouble::Damaged(end - from));
                } else if dirty {
                    self.problem(file, from, Trouble::Torn(end - from));
                }
                self.leave(segment);
            }
        }
    }

    pub(super) fn take_index(&mut self, segment: u32, regions: Vec<Region>, id: MessageId) {
        self.found.numbers.id = self.found.numbers.id.max(id);
        for region in regions {
            let (fan, is_late) = (self.found.fan.place.chunk, self.is_late(segment, &region));
            let is_carried = region.records > region.plain + region.deferred && (is_late || !self.knows_all());
            let is_beyond = region.chunk >= fan && (region.deferred > 0 || is_carried);
            if is_beyond || region.chunk <= fan && is_late {
                self.unopened.push_back(region.chunk);
            }
            self.take_region(segment, region, region.first_seq + u64::from(region.records));
        }
        self.next_file();
    }

    pub(super) fn take_records(&mut self, segment: u32, mut region: Region, piece: Piece, bytes: &mut [u8]) {
        let inspected = record::inspect(bytes, region.first_seq, self.crc);
        region.used = inspected.used as u32;
        (region.records, region.plain, region.deferred) = (inspected.records, inspected.plain, inspected.deferred);
        if let Some(known) = self.last_position(region.chunk).filter(|_| !inspected.damage.is_empty()) {
            // What is in a gap was counted as plain records. The journal knows better.
            let counted = record::plain_before(&bytes[..inspected.used], known.place.offset as usize);
            region.plain -= counted.saturating_sub(known.passed);
        }
        self.report(piece, &inspected);
        self.take_region(segment, region, inspected.next_seq);
        let records = &bytes[..inspected.used];
        for (at, header) in record::walk(records) {
            if header.flags & record::LOST == 0 {
                let id = MessageId::of_payload(&records[at + header.payload_at()..]);
                self.found.numbers.id = self.found.numbers.id.max(id);
            }
        }
        self.collect(segment, &region, records);
        self.next_region(segment, region.end());
    }

    /// What is damaged of a piece with records.
    pub(super) fn report(&mut self, piece: Piece, inspected: &Inspected) {
        for (begin, end) in &inspected.damage {
            self.problem(piece.file, piece.offset + *begin as u64, Trouble::Damaged((end - begin) as u64));
        }
        let from = piece.offset + inspected.used as u64;
        let torn = from + inspected.torn as u64;
        match self.holes.end_within(piece.file, from..piece.range().end) {
            // Nothing behind it tells whether these were records.
            Some(end) => self.problem(piece.file, from, Trouble::Damaged(end.max(torn) - from)),
            None if torn > from => self.problem(piece.file, from, Trouble::Torn(torn - from)),
            None => {}
        }
    }

    /// Comes to the end of a segment that was walked through. If something in it cannot be read or is not there, and no
    /// record can be read, all of it is for somebody who knows how.
    pub(super) fn leave(&mut self, segment: u32) {
        let file = FileName::Segment(segment);
        let regions = self.found.chunks.values().chain(&self.twins).filter(|(its, _)| *its == segment);
        let end = regions.map(|(_, region)| region.records_at() + u64::from(region.used)).max();
        let is_short = self.report_missing(file, end.unwrap_or(0), self.safe(segment).end);
        if end.is_none() && (is_short || self.holes.are_in(file, 0..u64::MAX)) {
            return self.set_aside(file);
        }
        self.lost_chunks |= is_short;
        if let Some(found) = self.found.segments.get_mut(&segment) {
            found.end = end.unwrap_or(0);
        }
        self.next_file();
    }

    /// What was fsynced and is not there is damaged, and not torn. Whether there is such.
    pub(super) fn report_missing(&mut self, file: FileName, end: u64, safe: u64) -> bool {
        let (mut is_short, mut is_told) = (end < safe, false);
        for problem in self.found.problems.iter_mut().filter(|it| it.file == file && it.offset < safe) {
            if let Trouble::Torn(bytes) = problem.what {
                problem.what = Trouble::Damaged(bytes);
                is_short = true;
            }
            is_told |= problem.offset >= end;
        }
        if end < safe && !is_told {
            self.problem(file, end, Trouble::Damaged(safe - end));
        }
        is_short
    }

    /// A file of which nothing is understood, though it should be.
    pub(super) fn set_aside(&mut self, file: FileName) {
        self.problem(file, 0, Trouble::Unreadable("nothing in it is understood".into()));
        self.begin_without(file);
    }

    /// Takes note of a segment that is there.
    pub(super) fn understand(&mut self, number: u32) {
        let (length, safe) = (self.size(FileName::Segment(number)), self.safe(number));
        self.found.segments.entry(number).or_insert(Segment { length, safe, end: safe.end });
    }

    /// A chunk may be in two segments, if the disk failed while it was written to the first: both hold a beginning of
    /// it. Only what was fsynced can be relied upon, and that may be the first or the second: the one counts that is
    /// intact as far as the other, or farther.
    pub(super) fn take_region(&mut self, segment: u32, region: Region, next_seq: u64) {
        self.understand(segment);
        let numbers = &mut self.found.numbers;
        numbers.seq = numbers.seq.max(next_seq);
        numbers.chunk = numbers.chunk.max(region.chunk.saturating_add(1));
        if region.records > 0 {
            match self.found.chunks.entry(region.chunk) {
                Entry::Vacant(place) => {
                    place.insert((segment, region));
                }
                Entry::Occupied(_) => self.twins.push_back((segment, region)),
            }
        }
    }

    /// The copy of a chunk that has to be looked at before one of them can be chosen; `None` if there is none.
    pub(super) fn next_twin(&mut self) -> Option<(u32, Region)> {
        while let Some(&(segment, region)) = self.twins.front() {
            let chunk = region.chunk;
            let (first, other) = self.found.chunks[&chunk];
            let unknown = [(first, other), (segment, region)];
            if let Some(copy) = unknown.into_iter().find(|(segment, _)| !self.intact.contains_key(&(chunk, *segment))) {
                return Some(copy);
            }
            self.twins.pop_front();
            let mut loser = (segment, region);
            if self.intact[&(chunk, segment)] >= self.intact[&(chunk, first)] {
                self.found.chunks.insert(chunk, (segment, region));
                loser = (first, other);
            }
            // Nothing of it is missed.
            let (file, its) = (FileName::Segment(loser.0), loser.1.offset..=loser.1.end());
            self.found.problems.retain(|problem| problem.file != file || !its.contains(&problem.offset));
        }
        None
    }

    pub(super) fn next_unopened(&mut self) -> Option<(u64, (u32, Region))> {
        let chunk = self.unopened.pop_front()?;
        self.found.chunks.get(&chunk).map(|found| (chunk, *found))
    }

    /// Takes note of what is beyond the fan-out position, and is no matter of cursors, and of what is before it, and
    /// the journal may not tell of.
    pub(super) fn collect(&mut self, segment: u32, region: &Region, records: &[u8]) {
        let (is_late, knows_all) = (self.is_late(segment, region), self.knows_all());
        for (offset, header) in record::walk(records) {
            let place = Place { chunk: region.chunk, offset: offset as u32 };
            let is_beyond = place >= self.found.fan.place;
            if !(is_beyond || is_late) || header.flags & record::LOST != 0 {
                continue;
            }
            let due = || {
                let mut fields = Fields(&records[offset + HEADER..offset + HEADER + DEFERRED_EXTRA]);
                Due { at: fields.u64().unwrap_or(0) as i64, delay: fields.u64().unwrap_or(0) }
            };
            match header.flags {
                CARRIED if is_late || !knows_all => self.found.carried.push(place),
                DEFERRED if is_beyond => self.found.deferred.push((place, due())),
                DEFERRED => _ = self.late.insert(place, Late { is_plain: false, due: Some(due()) }),
                0 if !is_beyond => _ = self.late.insert(place, Late { is_plain: true, due: None }),
                _ => {}
            }
        }
    }

    pub(super) fn next_region(&mut self, segment: u32, at: u64) {
        let file = FileName::Segment(segment);
        if self.size(file) >= at + segment::REGION_HEAD as u64 {
            self.want(Step::RegionHead(segment), file, at, segment::REGION_HEAD as u64);
        } else {
            self.leave(segment);
        }
    }
}
