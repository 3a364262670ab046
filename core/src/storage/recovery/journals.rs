//! What a journal says, and how much of it is to be believed.

use super::Recovery;
use crate::storage::journal::{self, Incarnation, Numbers, Position, Safe};
use crate::storage::names::FileName;
use crate::storage::recovered::{Channel, Due, Out, Trouble};
use crate::storage::segment::Region;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

impl Recovery {
    pub(super) fn take_journal(&mut self, number: u32, bytes: &[u8]) {
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

    pub(super) fn apply(&mut self, entry: journal::Entry) {
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
    pub(super) fn count_from(&mut self, used: Numbers) {
        let Numbers { seq, chunk, segment, incarnation, id } = &mut self.found.numbers;
        (*seq, *chunk) = (used.seq.max(*seq), used.chunk.max(*chunk));
        (*segment, *incarnation) = (used.segment.max(*segment), used.incarnation.max(*incarnation));
        *id = used.id.max(*id);
    }

    pub(super) fn in_channel(&mut self, channel: Incarnation, change: impl FnOnce(&mut Channel)) {
        if let Some(channel) = self.found.channels.get_mut(&channel) {
            change(channel);
        }
    }

    /// What the journal says of a segment.
    pub(super) fn safe(&self, segment: u32) -> Safe {
        self.needed.get(&segment).copied().unwrap_or_default()
    }

    /// Segments that the journal wants to be there and that are not.
    pub(super) fn missing(&self) -> impl Iterator<Item = FileName> {
        let files = self.needed.keys().map(|&number| FileName::Segment(number));
        files.filter(|file| !self.sizes.contains_key(file) && !self.found.unreadable.contains(file))
    }

    /// Whether all is known that was ever said of who needs what. If there is no journal, there may never have been
    /// one: then nothing was removed yet. The start that set one aside may have come to its end before it wrote a new
    /// one.
    pub(super) fn knows_all(&self) -> bool {
        let is_journal = |file: &FileName| matches!(file, FileName::Journal(_));
        let segments = self.sizes.keys().filter(|file| matches!(file, FileName::Segment(_))).count();
        let are_all_there = segments as u64 + 1 >= u64::from(self.found.numbers.segment);
        let is_newest = self.set_aside <= self.found.journal;
        let is_whole = !self.is_partial && is_newest && !self.found.unreadable.iter().any(is_journal);
        is_whole && (self.found.journal.is_some() || are_all_there)
    }

    /// The last position in a chunk that the journal tells of.
    pub(super) fn last_position(&self, chunk: u64) -> Option<Position> {
        let ranges = self.found.channels.values().flat_map(|channel| &channel.fresh);
        let positions = ranges.flat_map(|range| [range.begin, range.end]).chain([self.found.fan]);
        positions.filter(|position| position.place.chunk == chunk).max_by_key(|position| position.place)
    }

    /// Whether the chunk may have been in memory only when the journal spoke the last time, and what was handed out of
    /// it then is said in what is damaged.
    pub(super) fn is_late(&self, segment: u32, region: &Region) -> bool {
        let is_new = self.placed.is_some_and(|placed| placed <= (segment, region.offset));
        is_new && (self.is_spoiled || !self.knows_all())
    }
}
