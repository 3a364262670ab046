//! What a recovery has put together, and what it leaves out because no file has it.
//!
//! What is left out is loss, and counted, where something is missing or damaged; otherwise it was done, and the journal
//! had not been told.

use super::VERSION;
use super::journal::{FreshRange, Incarnation, Numbers, Place, Position, Safe};
use super::names::FileName;
use super::segment::Region;
use crate::name::ChannelName;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

/// What was put together.
#[derive(Debug, PartialEq, Eq)]
pub struct Recovered {
    /// Numbers that were not used yet.
    pub numbers: Numbers,
    /// Whether the topic gives nothing to channels.
    pub paused: bool,
    /// How far it has given messages to channels.
    pub fan: Position,
    /// The chunks on disk by number, and the segment that each is in.
    pub chunks: BTreeMap<u64, (u32, Region)>,
    /// Channels by creation.
    pub channels: BTreeMap<Incarnation, Channel>,
    /// Deferred records beyond `fan`, in order.
    pub deferred: Vec<(Place, Due)>,
    /// Copies of messages of which the journal, being damaged or not there, does not tell which channels need them: for
    /// all that there may be.
    pub carried: Vec<Place>,
    /// The segments that are there.
    pub segments: BTreeMap<u32, Segment>,
    /// The largest number of a journal, whole or not, 0 if there is none; and the journal that was read.
    pub last_journal: u32,
    /// See `last_journal`.
    pub journal: Option<u32>,
    /// The topic was durable when the journal was written, as far as that is known.
    pub was_durable: bool,
    /// Channels that the journal has seen go.
    pub gone: BTreeMap<ChannelName, Incarnation>,
    /// Files that can go.
    pub obsolete: Vec<FileName>,
    /// Files that the disk did not give out, and journals that are no journals: nothing of them is used. Before the
    /// topic does anything, whoever drives it has to set them aside (see [`UNREADABLE`](super::names::UNREADABLE)) and
    /// fsync the directory: what the topic tells its next journal makes messages done that are in none of its files.
    pub unreadable: Vec<FileName>,
    /// What could not be read or understood.
    pub problems: Vec<Problem>,
}

/// A segment that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Its length, bytes.
    pub length: u64,
    /// How much of it was known to be on the medium. What is beyond that can be read, but may be in the
    /// machine's memory only, if an fsync has failed: before the topic does anything, whoever drives it has to write it
    /// again, as it is, and to fsync it.
    pub safe: Safe,
    /// How much of it is understood.
    pub end: u64,
}

/// A channel as the journal tells of it.
#[derive(Debug, PartialEq, Eq)]
pub struct Channel {
    /// Its name.
    pub name: ChannelName,
    /// Whether it hands out nothing.
    pub paused: bool,
    /// What it has not handed out, up to the fan-out position.
    pub fresh: Vec<FreshRange>,
    /// What it has handed out, or deferred, and is not done.
    pub out: BTreeMap<Place, Out>,
}

/// A message that a channel has handed out, or deferred.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Out {
    /// How often it was handed out.
    pub attempts: u16,
    /// Until when it is deferred.
    pub due: Option<Due>,
}

/// The end of a deferral.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// Unix nanoseconds.
    pub at: i64,
    /// The whole delay, nanoseconds: what is left of it is never more, whatever the wall clock says.
    pub delay: u64,
}

/// A record that may have been handed out without the journal having said so.
#[derive(Clone, Copy, Debug)]
pub(super) struct Late {
    /// Whether ranges of what is fresh count it.
    pub(super) is_plain: bool,
    pub(super) due: Option<Due>,
}

/// Something that could not be read or understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub file: FileName,
    /// Where in there, bytes.
    pub offset: u64,
    /// What.
    pub what: Trouble,
}

/// See [`Problem`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The disk did not give out this page, or anything of the file.
    Unreadable(String),
    /// It does not begin as it should, and nothing in it is used.
    NotOurs,
    /// It is of this version of the format: see [`Recovered::other_version`].
    Version(char),
    /// It is needed, and not there.
    Missing,
    /// So many bytes are damaged, and the messages in them lost.
    Damaged(u64),
    /// So many bytes at the end are of something that was not written to its end, which is normal after a crash.
    Torn(u64),
    /// So many messages of a channel, or more, were said to be there and are not.
    Lost(ChannelName, u64),
}

pub(super) const START: Position = Position { place: Place { chunk: 0, offset: 0 }, passed: 0 };

impl Recovered {
    /// A file of another version of the format: what was put together is not the topic, and must neither be used nor be
    /// written to.
    pub fn other_version(&self) -> Option<&Problem> {
        self.problems.iter().find(|problem| matches!(problem.what, Trouble::Version(_)))
    }

    /// Whether something in a segment is damaged, or cannot be read.
    pub(crate) fn has_gaps(&self) -> bool {
        let is_gap = |what: &Trouble| matches!(what, Trouble::Damaged(_) | Trouble::Unreadable(_));
        self.problems.iter().any(|problem| matches!(problem.file, FileName::Segment(_)) && is_gap(&problem.what))
    }

    /// What has to be written again before it can be relied upon: see [`Segment::safe`].
    pub fn unsafe_parts(&self) -> impl Iterator<Item = (FileName, Range<u64>)> {
        let parts = self.segments.iter().filter(|(_, segment)| !segment.safe.sealed);
        parts.map(|(&number, it)| (FileName::Segment(number), it.safe.end..it.length)).filter(|(_, it)| !it.is_empty())
    }

    /// Plain records of a range that are on disk.
    pub fn messages(&self, range: FreshRange) -> u64 {
        let FreshRange { begin, end } = range;
        if begin.place > end.place {
            return 0;
        }
        let chunks = begin.place.chunk..=end.place.chunk;
        let count = |(&number, (_, region)): (&u64, &(u32, Region))| {
            let from = if number == begin.place.chunk { begin.passed } else { 0 };
            let to = if number == end.place.chunk { end.passed.min(region.plain) } else { region.plain };
            u64::from(to.saturating_sub(from))
        };
        self.chunks.range(chunks).map(count).sum()
    }

    /// In front of the first record.
    pub(super) fn begin(&self) -> Position {
        let first = self.chunks.first_key_value();
        first.map_or(START, |(&chunk, _)| Position { place: Place { chunk, offset: 0 }, passed: 0 })
    }

    /// Behind the last record.
    pub(super) fn end(&self) -> Position {
        self.chunks.last_key_value().map_or(START, |(&chunk, (_, region))| Position {
            place: Place { chunk, offset: region.used },
            passed: region.plain,
        })
    }

    pub(super) fn has(&self, place: Place) -> bool {
        self.chunks.get(&place.chunk).is_some_and(|(_, region)| place.offset < region.used)
    }

    /// No position is where no record was, no two channels have a name, and what a channel has not handed out is in
    /// order.
    pub(super) fn drop_what_cannot_be(&mut self) {
        let begin = self.begin();
        self.fan = settle(&self.chunks, self.fan).clamp(begin, self.end());
        let mut names = BTreeSet::new();
        // The newest is the one that exists.
        let newest_first = core::mem::take(&mut self.channels).into_iter().rev();
        self.channels = newest_first.filter(|(_, channel)| names.insert(channel.name.clone())).collect();
        for channel in self.channels.values_mut() {
            let mut behind = begin;
            channel.fresh.retain_mut(|range| {
                range.begin = settle(&self.chunks, range.begin).max(behind);
                range.end = settle(&self.chunks, range.end);
                behind = behind.max(range.end);
                range.begin < range.end
            });
        }
    }

    /// What is beyond the fan-out position, once, as far as it is there.
    pub(super) fn sort_what_is_beyond(&mut self) {
        let mut deferred = core::mem::take(&mut self.deferred);
        deferred.retain(|(place, _)| self.has(*place));
        deferred.sort_unstable_by_key(|(place, _)| *place);
        deferred.dedup_by_key(|(place, _)| *place);
        self.deferred = deferred;
        let mut carried = core::mem::take(&mut self.carried);
        let is_known = |place: &Place| self.channels.values().any(|channel| channel.out.contains_key(place));
        carried.retain(|place| self.has(*place) && !is_known(place));
        carried.sort_unstable();
        carried.dedup();
        self.carried = carried;
    }

    /// Gives the records before the fan-out position of which the journal does not tell what became of them to all
    /// channels that have not got them.
    pub(super) fn give_once_more(&mut self, late: &BTreeMap<Place, Late>) {
        for channel in self.channels.values_mut() {
            for (&place, late) in late {
                let is_in = |it: &FreshRange| (it.begin.place..it.end.place).contains(&place);
                if !(late.is_plain && channel.fresh.iter().any(is_in)) {
                    channel.out.entry(place).or_insert(Out { attempts: 1, due: late.due });
                }
            }
        }
    }

    /// Of what channels have not handed out, how many messages no file has: at least so many for each, by what the
    /// journal says of the last chunk of a range, and by the sequence numbers on both sides of what is missing.
    pub(super) fn fresh_missing(&self) -> BTreeMap<Incarnation, u64> {
        let missing = |FreshRange { begin, end }: &FreshRange| {
            if begin.place >= end.place {
                return 0;
            }
            let (mut missing, mut next) = (0u64, None);
            for (_, region) in self.chunks.range(begin.place.chunk..=end.place.chunk).map(|(_, found)| found) {
                missing = missing.saturating_add(next.map_or(0, |next| region.first_seq.saturating_sub(next)));
                next = Some(region.first_seq + u64::from(region.records));
            }
            let passed = if begin.place.chunk == end.place.chunk { begin.passed } else { 0 };
            let there = self.chunks.get(&end.place.chunk).map_or(0, |(_, region)| region.plain);
            missing.saturating_add(end.passed.saturating_sub(passed.max(there)).into())
        };
        let count = |channel: &Channel| channel.fresh.iter().map(missing).fold(0, u64::saturating_add);
        self.channels.iter().map(|(&it, channel)| (it, count(channel))).collect()
    }

    /// Leaves out of the channels what no segment has. An index leaves out the chunks that nobody needed when it was
    /// written, which the journal may not have heard of; so it is only where something else is wrong that this is loss.
    /// `lost_chunks`: whole chunks may have been lost with what is damaged.
    pub(super) fn drop_what_is_missing(
        &mut self,
        fresh: &BTreeMap<Incarnation, u64>,
        knows_all: bool,
        lost_chunks: bool,
    ) {
        let of_segments = self.problems.iter().filter(|problem| matches!(problem.file, FileName::Segment(_)));
        // A journal that does not tell everything may not tell that it is done, or was carried.
        let is_loss = knows_all && of_segments.clone().any(|problem| !matches!(problem.what, Trouble::Torn(_)));
        // What was fresh may have been done since the journal was written, but not in a whole segment.
        let is_gone = lost_chunks
            || of_segments.clone().any(|problem| match problem.what {
                Trouble::Missing | Trouble::NotOurs => true,
                Trouble::Unreadable(_) => self.unreadable.contains(&problem.file),
                _ => false,
            });
        let mut channels = core::mem::take(&mut self.channels);
        for (it, channel) in &mut channels {
            let is_fresh =
                |place: &Place| channel.fresh.iter().any(|it| (it.begin.place..it.end.place).contains(place));
            let lost = channel.out.keys().copied().filter(|place| !self.has(*place));
            let (in_ranges, elsewhere): (Vec<_>, Vec<_>) = lost.partition(is_fresh);
            // A deferred message in a range has a sequence number, too.
            let fresh = if is_gone { fresh.get(it).copied().unwrap_or(0) } else { 0 };
            let lost = elsewhere.len() as u64 + fresh.max(in_ranges.len() as u64);
            channel.out.retain(|place, _| self.has(*place));
            for range in &mut channel.fresh {
                range.end = range.end.min(self.fan);
            }
            channel.fresh.retain(|range| self.messages(*range) > 0);
            if lost > 0 && is_loss {
                let file = FileName::Journal(0);
                self.problems.push(Problem { file, offset: 0, what: Trouble::Lost(channel.name.clone(), lost) });
            }
        }
        self.channels = channels;
    }
}

/// A position among what there is: in its chunk, if there is that.
fn settle(chunks: &BTreeMap<u64, (u32, Region)>, position: Position) -> Position {
    match chunks.get(&position.place.chunk) {
        Some((_, Region { used, plain, .. })) if position.place.offset > *used || position.passed > *plain => {
            Position { place: Place { offset: *used, ..position.place }, passed: *plain }
        }
        _ => position,
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (file, offset) = (self.file.name(), self.offset);
        match &self.what {
            Trouble::Unreadable(reason) => write!(f, "{file} cannot be read at {offset} - {reason}"),
            Trouble::NotOurs => write!(f, "{file} does not begin as it should, and nothing in it is used"),
            Trouble::Version(version) => {
                write!(f, "{file} is of version {version} of the format, and this nsqd reads version {VERSION} only")
            }
            Trouble::Missing => write!(f, "{file} is missing, and the messages in it are lost"),
            Trouble::Damaged(bytes) if matches!(self.file, FileName::Journal(_)) => {
                write!(f, "{file} is damaged at {offset}, {bytes} bytes: what channels did from then on is done again")
            }
            Trouble::Damaged(bytes) => {
                write!(f, "{file} is damaged at {offset}: the messages in {bytes} bytes are lost")
            }
            Trouble::Torn(bytes) => {
                write!(f, "{file} ends at {offset} with {bytes} bytes that were not written to their end")
            }
            Trouble::Lost(channel, count) => write!(f, "at least {count} messages of channel {channel} are lost"),
        }
    }
}
