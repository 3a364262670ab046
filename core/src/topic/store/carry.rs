//! Carrying stragglers forward: the few messages that keep a large chunk, or a whole segment, alive are copied to the
//! end of the log, and what they were in goes.
//!
//! Chunks in memory only are looked at before a publish when much memory is held, sealed segments when half of all that
//! was needed has ended since they were looked at the last time; so looking costs little for each message, and since a
//! segment goes when three quarters of it are of no use, copying does too. The one rule: a copy is as safe as what it
//! was made of before that goes. It is written, in default mode fsynced too, before the journal tells of it, and the
//! segment is removed after that; so a crash in between finds the old one.

use super::super::channel::Carried;
use super::super::log::{Cursor, Loc, Log, Straggler};
use super::super::{Channel, Topic};
use super::Store;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

/// What is being carried forward.
#[derive(Debug, Default)]
pub(in crate::topic) struct Carry {
    /// Copies of messages on disk that the journal was not told of.
    copies: Vec<Copies>,
    /// Chunks of segments that are to go, in order, and those of them that are being read.
    queue: VecDeque<u64>,
    batch: Vec<u64>,
    /// How many had ended when segments were looked at.
    looked_at: Option<u64>,
    /// Some copies are not written, so the journal has to wait.
    pub(super) unwritten: bool,
}

/// Copies back to back in a chunk.
#[derive(Clone, Copy, Debug)]
struct Copies {
    chunk: u64,
    from: u32,
    to: u32,
}

/// How much a segment holds that is needed.
#[derive(Clone, Copy, Debug, Default)]
struct Needed {
    chunks: u32,
    bytes: u64,
}

/// So many bytes of chunks are read at a time.
const BATCH: usize = 4 * 1024 * 1024;

impl Carry {
    /// The chunks that are to be resident.
    pub(super) fn batch(&self) -> &[u64] {
        &self.batch
    }

    /// How many runs of copies a batch of the journal will tell of.
    pub(in crate::topic) const fn copies(&self) -> usize {
        self.copies.len()
    }

    /// The first so many runs of copies are in the journal.
    pub(super) fn journalled(&mut self, copies: usize) {
        self.copies.drain(..copies);
    }

    /// Takes note of what is written.
    pub(super) fn look(&mut self, log: &Log) {
        self.unwritten = !self.copies.iter().all(|copies| log.is_written(copies.chunk, copies.to));
    }

    /// Whether this is a copy of something that a crash would bring back.
    pub(in crate::topic) fn shelters(&self, loc: Loc) -> bool {
        let is_in = |copies: &Copies| copies.chunk == loc.chunk() && (copies.from..copies.to).contains(&loc.offset());
        self.copies.iter().any(is_in)
    }
}

impl Topic {
    /// Copies the few messages that keep large chunks in memory alive to the end of the log.
    #[cold]
    pub(in crate::topic) fn carry_stragglers(&mut self) {
        self.log.mark_sparse(self.oldest(), self.channels.len() as u32);
        self.carry_marked();
    }

    /// Lets segments go of which little is needed, a few chunks at a time.
    pub(super) fn carry_from_disk(&mut self) {
        let Some(store) = &mut self.store else { return };
        if self.exiting || !store.can_write() {
            return;
        }
        let ended = self.log.ended();
        let is_time = store.carry.looked_at.is_none_or(|then| ended - then >= self.log.live().max(1));
        if store.segments.len() > 1 && is_time && store.carry.queue.is_empty() {
            store.carry.looked_at = Some(ended);
            let queue = self.sparse_chunks();
            self.store.iter_mut().for_each(|store| store.carry.queue.extend(&queue));
        }
        let limit = BATCH.min(self.budget.limit() / 8);
        while let Some(store) = &mut self.store
            && store.next_batch(&mut self.log, limit)
        {
            // Where there is nothing to copy there may be something in the next ones.
            if self.carry_marked() {
                return;
            }
        }
    }

    /// Copies all stragglers in memory to the end of the log; whether there were any on disk.
    fn carry_marked(&mut self) -> bool {
        let mut moved: BTreeMap<Loc, Loc> = BTreeMap::new();
        let mut copies: Vec<Copies> = Vec::new();
        for (_, channel) in &mut self.channels {
            channel.relocate(&mut self.log, |log, loc| match log.straggler(loc) {
                Straggler::Stays => Carried::Stays,
                Straggler::Lost => Carried::Lost,
                Straggler::Moves => Carried::To(*moved.entry(loc).or_insert_with(|| {
                    let new = log.carry(loc);
                    if log.is_placed(loc) {
                        note(&mut copies, new, log);
                    }
                    new
                })),
            });
        }
        self.log.unmark_sparse();
        let was_on_disk = !copies.is_empty();
        for copies in copies {
            self.must_write_copies(copies.chunk);
            self.store.iter_mut().for_each(|store| store.carry.copies.push(copies));
        }
        was_on_disk
    }

    /// The chunk that copies were put in is to be as safe as what they were made of.
    fn must_write_copies(&mut self, number: u64) {
        let (Some(store), Some(chunk)) = (&mut self.store, self.log.chunk(number)) else { return };
        if chunk.placed.is_none() {
            store.place_late(chunk);
            self.channels.iter_mut().for_each(|(_, channel)| channel.mention(|chunk| chunk == number));
        }
    }

    /// Where the first channel has to go on reading: whatever is before is not fresh anywhere.
    fn oldest(&self) -> Cursor {
        let cursors = self.channels.iter().filter_map(|(_, channel)| channel.cursor());
        cursors.chain([self.fan]).min_by_key(|cursor| self.log.at_or_after(cursor.chunk)).unwrap_or(self.fan)
    }

    /// The chunks of those segments of which less than a quarter is needed, and nothing that is fresh.
    fn sparse_chunks(&self) -> Vec<u64> {
        let Some(store) = self.store.as_deref() else { return Vec::new() };
        let channels = self.channels.len() as u32;
        let mut segments: BTreeMap<u32, Needed> = BTreeMap::new();
        for chunk in self.log.chunks_before(self.oldest()) {
            if let Some(segment) = chunk.segment().filter(|&segment| store.is_full(segment)) {
                let needed = segments.entry(segment).or_default();
                needed.chunks += 1;
                needed.bytes += u64::from(chunk.needed_at_least(channels)) * chunk.average_size();
            }
        }
        segments.retain(|&number, needed| store.is_sparse(number, *needed));
        if segments.is_empty() {
            return Vec::new();
        }
        self.count_needed(&mut segments);
        segments.retain(|&number, needed| store.is_sparse(number, *needed));
        let is_in = |segment: Option<u32>| segment.is_some_and(|segment| segments.contains_key(&segment));
        self.log.chunks().filter(|chunk| is_in(chunk.segment())).map(|chunk| chunk.number).collect()
    }

    /// Counts what channels need of segments that may be sparse, each message once.
    fn count_needed(&self, segments: &mut BTreeMap<u32, Needed>) {
        let mut needed: Vec<(Loc, u32)> = Vec::new();
        for (_, channel) in &self.channels {
            Channel::each_out(channel, |loc, _, _| {
                needed
                    .extend(self.log.segment(loc).filter(|it| segments.contains_key(it)).map(|segment| (loc, segment)));
            });
        }
        needed.sort_unstable();
        needed.dedup();
        segments.values_mut().for_each(|segment| segment.bytes = 0);
        for (loc, segment) in needed {
            segments.entry(segment).or_default().bytes += self.log.average_size(loc);
        }
    }
}

impl Store {
    /// Whether the segment has an index, which tells of all that is to be carried out of it: an index that is written
    /// later would not, and a crash before the journal tells of the copies would lose them.
    fn is_full(&self, number: u32) -> bool {
        self.segments.get(&number).is_some_and(|it| it.sealed && !it.retired)
    }

    /// Whether less than a quarter of the segment is needed, which is in these chunks.
    fn is_sparse(&self, number: u32, needed: Needed) -> bool {
        let segment = &self.segments[&number];
        segment.chunks == needed.chunks && needed.bytes * 4 < segment.end
    }

    /// Marks the next chunks to be emptied, up to `limit` bytes; whether all of them are resident.
    fn next_batch(&mut self, log: &mut Log, limit: usize) -> bool {
        let Carry { queue, batch, .. } = &mut self.carry;
        if batch.is_empty() {
            let mut bytes = 0;
            while let Some(&number) = queue.front() {
                if let Some(chunk) = log.chunk(number) {
                    bytes += chunk.end() as usize;
                    // What is not on the medium yet will be soon.
                    if !chunk.is_settled() || bytes > limit && !batch.is_empty() {
                        break;
                    }
                    chunk.sparse = true;
                    batch.push(number);
                }
                queue.pop_front();
            }
        }
        let is_ready = |&number: &u64| log.chunk(number).is_none_or(|chunk| chunk.is_resident());
        let ready = !batch.is_empty() && batch.iter().all(is_ready);
        if ready {
            batch.clear();
        }
        ready
    }
}

/// Takes note of a copy.
fn note(copies: &mut Vec<Copies>, new: Loc, log: &Log) {
    let (chunk, from, to) = (new.chunk(), new.offset(), log.behind(new));
    match copies.last_mut() {
        Some(last) if last.chunk == chunk && last.to == from => last.to = to,
        _ => copies.push(Copies { chunk, from, to }),
    }
}
