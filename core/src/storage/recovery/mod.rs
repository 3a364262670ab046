//! A topic after a start: its files are read, and what was in the log and in its channels is put together again.
//!
//! [`Recovery`] says which piece of which file it wants next and takes what a disk gives out for it, until it wants
//! nothing more. It never gives up: what cannot be read or understood is a [`Problem`], and everything else is used.
//! After a failure it wants pages, so that a sector costs what is in it and not its file. Nothing in here changes a
//! file, so that a second recovery of the same files comes to the same result.

mod journals;
mod segments;

use super::Crc;
use super::journal::{Incarnation, Numbers, Place, Safe};
use super::names::FileName;
use super::record;
use super::recovered::{Late, Problem, Recovered, START, Trouble};
use super::salvage::{Holes, Salvage};
use super::segment::{self, Region};
use crate::message::MessageId;
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

/// In what cannot be read there may be chunks with numbers that nothing else tells: beyond the largest that is known,
/// but not so far.
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
            was_durable: false,
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
        // In default mode each checkpoint has it.
        self.found.was_durable = knows_all && self.found.journal.is_some() && self.placed.is_none();
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
                // What it tells of may have been lost with the power that was there for it: all is looked at up to
                // here.
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

    /// Whether there may be chunks in what could not be read whose numbers are told by nothing else: if it can be read
    /// the next time, they must not be those of new ones. Of all but the newest segment, the journal knows that it
    /// knows them.
    fn may_have_lost_numbers(&self) -> bool {
        let is_unknown = |file: &FileName| !matches!(file, FileName::Segment(number) if *number < self.told);
        self.holes.files().any(|file| is_unknown(&file) && !self.found.unreadable.contains(&file))
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
