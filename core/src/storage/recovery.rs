//! A topic after a start: its files are read, and what was in the log and in its channels is put together again.
//!
//! [`Recovery`] says which piece of which file it wants next and takes what a disk gives out for it, until it wants
//! nothing more. It never gives up: what cannot be read or understood is a [`Problem`], and everything else is used. After
//! a failure it wants pages, so that a sector costs what is in it and not its file.
//! Nothing in here changes a file, so that a second recovery of the same files comes to the same result.

use super::journal::{self, Incarnation, Numbers, Place, Position, Safe};
use super::names::FileName;
use super::record::{self, CARRIED, DEFERRED, DEFERRED_EXTRA, HEADER, Header, Inspected};
use super::recovered::{Channel, Due, Late, Out, Problem, Recovered, START, Segment, Trouble};
use super::salvage::{Holes, Salvage};
use super::segment::{self, Head, Region};
use super::{Crc, Fields};
use crate::message::MessageId;
use alloc::collections::btree_map::Entry;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;

/// A piece of a file of the topic's directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The file.
    pub file: FileName,
    /// Where it begins, bytes.
    pub offset: u64,
    /// Its length, bytes; it does not reach beyond the file.
    pub length: usize,
}

impl Piece {
    const fn range(&self) -> Range<u64> {
        self.offset..self.offset + self.length as u64
    }
}

/// See the module's documentation. What is read must be on the medium: whoever reads fsyncs the files and the directory
/// first, because what a process that was killed had written may not be.
#[derive(Debug)]
pub struct Recovery {
    incarnation: u64,
    crc: Crc,
    sizes: BTreeMap<FileName, u64>,
    /// Not looked at yet.
    journals: Vec<u32>,
    segments: VecDeque<u32>,
    /// Chunks of sealed segments with records beyond the fan-out position that have to be looked at: deferred ones, or
    /// copies.
    unopened: VecDeque<u64>,
    /// More copies of chunks, and how far copies are intact, by chunk and segment.
    twins: VecDeque<(u32, Region)>,
    intact: BTreeMap<(u64, u32), u32>,
    /// Segments that the journal wants to be there, and how much of them.
    needed: BTreeMap<u32, Safe>,
    /// Whole chunks may have been lost with what is damaged.
    lost_chunks: bool,
    /// The journal does not tell everything; its last batch is damaged.
    is_partial: bool,
    is_spoiled: bool,
    /// Of chunks with regions from there on it may not tell what was handed out of them before.
    placed: Option<(u32, u64)>,
    late: BTreeMap<Place, Late>,
    /// Segments with smaller numbers than this had all their chunks when the journal was written.
    told: u32,
    /// The newest journal that an earlier start has set aside.
    set_aside: Option<u32>,
    wanted: Option<(Step, Piece)>,
    /// The piece that what is wanted is a page of.
    salvage: Option<Salvage>,
    holes: Holes,
    found: Recovered,
}

/// In what cannot be read there may be chunks with numbers that nothing else tells: beyond the largest that is known, but
/// not so far.
const UNKNOWN: u64 = 1 << 20;

/// What a piece is read for.
#[derive(Clone, Copy, Debug)]
enum Step {
    Journal(u32),
    Head(u32),
    Foot(u32),
    Index(u32),
    RegionHead(u32),
    /// The next region behind something that begins there and is none; whether that is more than zeros so far.
    Seek {
        segment: u32,
        from: u64,
        dirty: bool,
    },
    Records(u32, Region),
    /// How far a copy of a chunk is intact.
    Twin(u32, Region),
    Unopened(u64),
}

impl Recovery {
    /// The recovery of a topic whose directory has these files, with their sizes in bytes.
    pub fn new(incarnation: u64, files: impl IntoIterator<Item = (FileName, u64)>, crc: Crc) -> Self {
        Self::among(Holes::default(), incarnation, files.into_iter().collect(), crc)
    }

    fn among(holes: Holes, incarnation: u64, sizes: BTreeMap<FileName, u64>, crc: Crc) -> Self {
        let (mut journals, mut segments, mut obsolete) = (Vec::new(), VecDeque::new(), Vec::new());
        let (mut last_journal, mut set_aside) = (0, None);
        let mut numbers = Numbers { seq: 1, chunk: 0, segment: 0, incarnation: Incarnation(1), id: MessageId([0; 16]) };
        for &file in sizes.keys() {
            match file {
                FileName::Journal(number) => {
                    journals.push(number);
                    last_journal = last_journal.max(number);
                }
                FileName::Segment(number) => {
                    segments.push_back(number);
                    numbers.segment = number + 1;
                }
                FileName::Unfinished(number) => {
                    obsolete.push(file);
                    last_journal = last_journal.max(number);
                }
                FileName::SetAside(number) => {
                    set_aside = set_aside.max(Some(number));
                    last_journal = last_journal.max(number);
                }
            }
        }
        let found = Recovered {
            numbers,
            paused: false,
            fan: START,
            chunks: BTreeMap::new(),
            channels: BTreeMap::new(),
            deferred: Vec::new(),
            carried: Vec::new(),
            segments: BTreeMap::new(),
            last_journal,
            journal: None,
            gone: BTreeMap::new(),
            obsolete,
            unreadable: Vec::new(),
            problems: Vec::new(),
        };
        let (unopened, twins, wanted) = (VecDeque::new(), VecDeque::new(), None);
        let (intact, needed) = (BTreeMap::new(), BTreeMap::new());
        let mut recovery = Self {
            incarnation,
            crc,
            sizes,
            journals,
            segments,
            unopened,
            twins,
            intact,
            needed,
            lost_chunks: false,
            is_partial: false,
            is_spoiled: false,
            placed: None,
            late: BTreeMap::new(),
            told: 0,
            set_aside,
            wanted,
            salvage: None,
            holes,
            found,
        };
        recovery.next_file();
        recovery
    }

    /// What it wants to read next; `None` if it has seen enough.
    pub fn wants(&self) -> Option<Piece> {
        self.wanted.map(|(_, piece)| piece)
    }

    /// Takes what was read, or why it was not.
    pub fn handle(&mut self, result: Result<Vec<u8>, String>) {
        let Some((step, piece)) = self.wanted.take() else { return };
        let bytes = result.and_then(|bytes| match bytes.len() == piece.length {
            true => Ok(bytes),
            false => Err(alloc::format!("{} of {} bytes", bytes.len(), piece.length)),
        });
        match (bytes, self.salvage.take()) {
            (Ok(bytes), salvage) => {
                self.holes.can_read(piece.file);
                match salvage {
                    None => self.take(step, piece, bytes),
                    Some(mut salvage) => {
                        salvage.take(&bytes);
                        self.go_on(step, salvage);
                    }
                }
            }
            // What half of one knows nothing of would be taken for done.
            (Err(reason), _) if matches!(piece.file, FileName::Journal(_)) => {
                self.problem(piece.file, piece.offset, Trouble::Unreadable(reason));
                self.begin_without(piece.file);
            }
            (Err(reason), salvage) => {
                if self.holes.add(piece) == Some(true) {
                    self.problem(piece.file, piece.offset, Trouble::Unreadable(reason));
                }
                if self.holes.are_too_many(piece.file) {
                    self.begin_without(piece.file);
                } else {
                    self.go_on(step, salvage.unwrap_or_else(|| Salvage::new(piece)));
                }
            }
        }
    }

    /// Asks for the next page of a piece, or takes what could be read of it.
    fn go_on(&mut self, step: Step, mut salvage: Salvage) {
        match salvage.next(&self.holes) {
            Some(page) => (self.wanted, self.salvage) = (Some((step, page)), Some(salvage)),
            None => self.take(step, salvage.piece, salvage.bytes),
        }
    }

    /// Begins anew without a file that cannot be read: what was understood so far may have come from it.
    fn begin_without(&mut self, file: FileName) {
        let mut sizes = core::mem::take(&mut self.sizes);
        sizes.remove(&file);
        let anew = Self::among(core::mem::take(&mut self.holes), self.incarnation, sizes, self.crc);
        let Self { found: before, .. } = core::mem::replace(self, anew);
        self.count_from(before.numbers);
        self.found.last_journal = self.found.last_journal.max(before.last_journal);
        let is_read = |problem: &Problem| matches!(problem.what, Trouble::Unreadable(_));
        self.found.problems.extend(before.problems.into_iter().filter(is_read));
        let is_gone = |other: &FileName| !self.sizes.contains_key(other);
        self.found.unreadable.extend(before.unreadable.into_iter().filter(is_gone));
        self.found.unreadable.push(file);
    }

    /// What there is, once nothing more is wanted.
    pub fn finish(mut self) -> Recovered {
        let fresh = self.found.fresh_missing();
        if self.may_have_lost_numbers() {
            self.found.numbers.chunk += UNKNOWN;
            // So that the next start knows better, once a journal has said so.
            self.found.numbers.segment += 1;
        }
        self.found.drop_what_cannot_be();
        self.found.sort_what_is_beyond();
        self.late.retain(|place, _| self.found.has(*place));
        self.found.give_once_more(&self.late);
        for file in self.missing().collect::<Vec<_>>() {
            self.problem(file, 0, Trouble::Missing);
        }
        let knows_all = self.knows_all();
        self.found.drop_what_is_missing(&fresh, knows_all, self.lost_chunks);
        self.found
    }

    fn take(&mut self, step: Step, piece: Piece, mut bytes: Vec<u8>) {
        match step {
            Step::Journal(number) => self.take_journal(number, &bytes),
            Step::Head(number) => self.take_head(number, piece.file, &bytes),
            Step::Foot(number) => match segment::index_place(&bytes, self.size(piece.file)) {
                Some((at, _)) => self.want(Step::Index(number), piece.file, at, u64::MAX),
                None => self.next_region(number, segment::HEAD as u64),
            },
            Step::Index(number) => match segment::read_end(&bytes, self.crc) {
                Some((regions, id)) if self.safe(number).sealed => self.take_index(number, regions, id),
                // What it tells of may have been lost with the power that was there for it: all is looked at up to here.
                Some(_) => {
                    self.understand(number);
                    self.sizes.insert(piece.file, piece.offset);
                    self.next_region(number, segment::HEAD as u64);
                }
                None => self.next_region(number, segment::HEAD as u64),
            },
            Step::RegionHead(number) => match segment::read_region_head(&bytes, self.crc) {
                Some((chunk, first_seq, capacity)) => {
                    let (used, records, plain, deferred) = (0, 0, 0, 0);
                    let offset = piece.offset;
                    let region = Region { chunk, capacity, offset, used, records, plain, deferred, first_seq };
                    self.want(Step::Records(number, region), piece.file, region.records_at(), capacity.into());
                }
                None => {
                    let dirty = bytes.first().is_some_and(|&byte| byte != 0);
                    self.seek(Step::Seek { segment: number, from: piece.offset, dirty }, piece.offset + 1);
                }
            },
            Step::Seek { segment, from, dirty } => self.take_sought(segment, from, dirty, piece, &bytes),
            Step::Records(number, region) => self.take_records(number, region, piece, &mut bytes),
            Step::Twin(segment, region) => {
                let inspected = record::inspect(&mut bytes, region.first_seq, self.crc);
                let intact = inspected.damage.first().map_or(inspected.used, |(begin, _)| *begin);
                self.intact.insert((region.chunk, segment), intact as u32);
                self.next_file();
            }
            Step::Unopened(chunk) => {
                if let Some((segment, region)) = self.found.chunks.get(&chunk).copied() {
                    let inspected = record::inspect(&mut bytes, region.first_seq, self.crc);
                    // Nobody may have a reason to read what is damaged.
                    self.report(piece, &inspected);
                    self.collect(segment, &region, &bytes[..inspected.used]);
                }
                self.next_file();
            }
        }
    }

    fn take_head(&mut self, number: u32, file: FileName, bytes: &[u8]) {
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

    fn after_head(&mut self, segment: u32) {
        let file = FileName::Segment(segment);
        match self.size(file).checked_sub(segment::FOOT as u64) {
            Some(foot) if foot >= segment::HEAD as u64 => self.want(Step::Foot(segment), file, foot, u64::MAX),
            _ => self.next_region(segment, segment::HEAD as u64),
        }
    }

    /// Looks for a region's head from there on, a window at a time.
    fn seek(&mut self, step: Step, at: u64) {
        const WINDOW: u64 = 64 * 1024;
        if let Step::Seek { segment, .. } = step {
            self.want(step, FileName::Segment(segment), at, WINDOW);
        }
    }

    /// A region's head may have been damaged: then others may still come behind it. Zeros are room that was kept for a
    /// chunk which nobody needed any more before it was written.
    fn take_sought(&mut self, segment: u32, from: u64, dirty: bool, piece: Piece, bytes: &[u8]) {
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

    fn take_journal(&mut self, number: u32, bytes: &[u8]) {
        let file = FileName::Journal(number);
        match journal::read(bytes, self.incarnation, number, self.crc) {
            Some(contents) => {
                contents.entries.into_iter().for_each(|entry| self.apply(entry));
                self.is_partial = !contents.damage.is_empty();
                for (begin, end) in contents.damage {
                    self.problem(file, begin as u64, Trouble::Damaged((end - begin) as u64));
                }
                // Without what was said before, what is said of a message may make it done that is not.
                let stands_alone = |entry: &journal::Entry| {
                    matches!(entry, journal::Entry::Numbers(_) | journal::Entry::Segment { .. })
                };
                contents.later.into_iter().filter(stands_alone).for_each(|entry| self.apply(entry));
                let torn = bytes.len() - contents.end;
                if torn > 0 {
                    // What a batch makes superfluous is removed when it is on the medium: this one was whole then.
                    let was_whole = self.missing().next().is_some();
                    self.is_partial |= was_whole;
                    self.is_spoiled = contents.is_spoiled;
                    let is_damaged = was_whole || contents.is_spoiled;
                    let what = if is_damaged { Trouble::Damaged } else { Trouble::Torn };
                    self.problem(file, contents.end as u64, what(torn as u64));
                }
                self.found.journal = Some(number);
                let older = core::mem::take(&mut self.journals);
                self.found.obsolete.extend(older.into_iter().map(FileName::Journal));
            }
            None => match journal::other_version(bytes, self.crc) {
                Some(version) => self.problem(file, 0, Trouble::Version(version)),
                None => {
                    self.problem(file, 0, Trouble::NotOurs);
                    self.found.unreadable.push(file);
                }
            },
        }
        self.next_file();
    }

    fn apply(&mut self, entry: journal::Entry) {
        let found = &mut self.found;
        match entry {
            journal::Entry::Numbers(numbers) => {
                self.told = self.told.max(numbers.segment.saturating_sub(1));
                self.count_from(numbers);
            }
            journal::Entry::Topic { paused, fan } => (found.paused, found.fan) = (paused, fan),
            journal::Entry::Channel { channel, name, paused } => {
                found.numbers.incarnation = found.numbers.incarnation.max(Incarnation(channel.0 + 1));
                found.gone.remove(&name);
                let new = Channel { name, paused, fresh: Vec::new(), out: BTreeMap::new() };
                found.channels.entry(channel).or_insert(new).paused = paused;
            }
            journal::Entry::Gone { channel } => {
                found.gone.extend(found.channels.remove(&channel).map(|it| (it.name, channel)));
            }
            journal::Entry::Segment { number, needed: Some(safe) } => {
                found.numbers.segment = found.numbers.segment.max(number + 1);
                self.needed.insert(number, safe);
            }
            journal::Entry::Segment { number, needed: None } => {
                self.needed.remove(&number);
            }
            journal::Entry::Placed { segment, offset } => self.placed = Some((segment, offset)),
            journal::Entry::Fresh { channel, ranges } => self.in_channel(channel, |it| it.fresh = ranges),
            journal::Entry::Out { channel, place, attempts, due, delay } => {
                let due = (due != 0).then_some(Due { at: due, delay });
                self.in_channel(channel, |it| {
                    it.out.insert(place, Out { attempts, due });
                });
            }
            journal::Entry::Done { channel, place } => self.in_channel(channel, |it| {
                it.out.remove(&place);
            }),
            journal::Entry::Empty { channel } => self.in_channel(channel, |it| it.out.clear()),
        }
    }

    /// So many numbers were used.
    fn count_from(&mut self, used: Numbers) {
        let Numbers { seq, chunk, segment, incarnation, id } = &mut self.found.numbers;
        (*seq, *chunk) = (used.seq.max(*seq), used.chunk.max(*chunk));
        (*segment, *incarnation) = (used.segment.max(*segment), used.incarnation.max(*incarnation));
        *id = used.id.max(*id);
    }

    fn in_channel(&mut self, channel: Incarnation, change: impl FnOnce(&mut Channel)) {
        if let Some(channel) = self.found.channels.get_mut(&channel) {
            change(channel);
        }
    }

    fn take_index(&mut self, segment: u32, regions: Vec<Region>, id: MessageId) {
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

    fn take_records(&mut self, segment: u32, mut region: Region, piece: Piece, bytes: &mut [u8]) {
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
        for (_, header, record) in walk(records) {
            if header.flags & record::LOST == 0 {
                let id = MessageId::of_payload(&record[header.payload_at()..]);
                self.found.numbers.id = self.found.numbers.id.max(id);
            }
        }
        self.collect(segment, &region, records);
        self.next_region(segment, region.end());
    }

    /// What is damaged of a piece with records.
    fn report(&mut self, piece: Piece, inspected: &Inspected) {
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
    fn leave(&mut self, segment: u32) {
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
    fn report_missing(&mut self, file: FileName, end: u64, safe: u64) -> bool {
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
    fn set_aside(&mut self, file: FileName) {
        self.problem(file, 0, Trouble::Unreadable("nothing in it is understood".into()));
        self.begin_without(file);
    }

    /// What the journal says of a segment.
    fn safe(&self, segment: u32) -> Safe {
        self.needed.get(&segment).copied().unwrap_or_default()
    }

    /// Takes note of a segment that is there.
    fn understand(&mut self, number: u32) {
        let (length, safe) = (self.size(FileName::Segment(number)), self.safe(number));
        self.found.segments.entry(number).or_insert(Segment { length, safe, end: safe.end });
    }

    /// Whether there may be chunks in what could not be read whose numbers are told by nothing else: if it can be read the
    /// next time, they must not be those of new ones. Of all but the newest segment, the journal knows that it knows them.
    fn may_have_lost_numbers(&self) -> bool {
        let is_unknown = |file: &FileName| !matches!(file, FileName::Segment(number) if *number < self.told);
        self.holes.files().any(|file| is_unknown(&file) && !self.found.unreadable.contains(&file))
    }

    /// Segments that the journal wants to be there and that are not.
    fn missing(&self) -> impl Iterator<Item = FileName> {
        let files = self.needed.keys().map(|&number| FileName::Segment(number));
        files.filter(|file| !self.sizes.contains_key(file) && !self.found.unreadable.contains(file))
    }

    /// Whether all is known that was ever said of who needs what. If there is no journal, there may never have been one:
    /// then nothing was removed yet. The start that set one aside may have come to its end before it wrote a new one.
    fn knows_all(&self) -> bool {
        let is_journal = |file: &FileName| matches!(file, FileName::Journal(_));
        let segments = self.sizes.keys().filter(|file| matches!(file, FileName::Segment(_))).count();
        let are_all_there = segments as u64 + 1 >= u64::from(self.found.numbers.segment);
        let is_newest = self.set_aside <= self.found.journal;
        let is_whole = !self.is_partial && is_newest && !self.found.unreadable.iter().any(is_journal);
        is_whole && (self.found.journal.is_some() || are_all_there)
    }

    /// The last position in a chunk that the journal tells of.
    fn last_position(&self, chunk: u64) -> Option<Position> {
        let ranges = self.found.channels.values().flat_map(|channel| &channel.fresh);
        let positions = ranges.flat_map(|range| [range.begin, range.end]).chain([self.found.fan]);
        positions.filter(|position| position.place.chunk == chunk).max_by_key(|position| position.place)
    }

    /// A chunk may be in two segments, if the disk failed while it was written to the first: both hold a beginning of it.
    /// Only what was fsynced can be relied upon, and that may be the first or the second: the one counts that is intact
    /// as far as the other, or farther.
    fn take_region(&mut self, segment: u32, region: Region, next_seq: u64) {
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
    fn next_twin(&mut self) -> Option<(u32, Region)> {
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

    fn next_unopened(&mut self) -> Option<(u64, (u32, Region))> {
        let chunk = self.unopened.pop_front()?;
        self.found.chunks.get(&chunk).map(|found| (chunk, *found))
    }

    /// Whether the chunk may have been in memory only when the journal spoke the last time, and what was handed out of it
    /// then is said in what is damaged.
    fn is_late(&self, segment: u32, region: &Region) -> bool {
        let is_new = self.placed.is_some_and(|placed| placed <= (segment, region.offset));
        is_new && (self.is_spoiled || !self.knows_all())
    }

    /// Takes note of what is beyond the fan-out position, and is no matter of cursors, and of what is before it, and the
    /// journal may not tell of.
    fn collect(&mut self, segment: u32, region: &Region, records: &[u8]) {
        let (is_late, knows_all) = (self.is_late(segment, region), self.knows_all());
        for (offset, header, record) in walk(records) {
            let place = Place { chunk: region.chunk, offset: offset as u32 };
            let is_beyond = place >= self.found.fan.place;
            if !(is_beyond || is_late) || header.flags & record::LOST != 0 {
                continue;
            }
            let due = || {
                let mut fields = Fields(&record[HEADER..HEADER + DEFERRED_EXTRA]);
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

    fn next_region(&mut self, segment: u32, at: u64) {
        let file = FileName::Segment(segment);
        if self.size(file) >= at + segment::REGION_HEAD as u64 {
            self.want(Step::RegionHead(segment), file, at, segment::REGION_HEAD as u64);
        } else {
            self.leave(segment);
        }
    }

    /// Journals first, the newest first, until one is whole; then segments; then what is left to be opened.
    fn next_file(&mut self) {
        if let Some(number) = self.journals.pop() {
            self.want(Step::Journal(number), FileName::Journal(number), 0, u64::MAX);
        } else if let Some(number) = self.segments.pop_front() {
            self.want(Step::Head(number), FileName::Segment(number), 0, segment::HEAD as u64);
        } else if let Some((segment, region)) = self.next_twin() {
            let file = FileName::Segment(segment);
            self.want(Step::Twin(segment, region), file, region.records_at(), region.used.into());
        } else if let Some((chunk, (segment, region))) = self.next_unopened() {
            let file = FileName::Segment(segment);
            self.want(Step::Unopened(chunk), file, region.records_at(), region.used.into());
        }
    }

    fn want(&mut self, step: Step, file: FileName, offset: u64, length: u64) {
        let left = self.size(file).saturating_sub(offset);
        let piece = Piece { file, offset, length: length.min(left) as usize };
        if self.holes.are_in(file, piece.range()) {
            self.go_on(step, Salvage::new(piece));
        } else {
            self.wanted = Some((step, piece));
        }
    }

    fn size(&self, file: FileName) -> u64 {
        self.sizes.get(&file).copied().unwrap_or(0)
    }

    fn problem(&mut self, file: FileName, offset: u64, what: Trouble) {
        self.found.problems.push(Problem { file, offset, what });
    }
}

/// The records of a chunk as it is in memory: offset, header, bytes.
fn walk(records: &[u8]) -> impl Iterator<Item = (usize, Header, &[u8])> {
    let mut at = 0;
    core::iter::from_fn(move || {
        let rest = &records[at..];
        if rest.is_empty() {
            return None;
        }
        let header = Header::of(rest);
        let record = (at, header, &rest[..header.size()]);
        at += header.size();
        Some(record)
    })
}
