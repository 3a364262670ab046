//! The journal: when it is written to, and what is said.
//!
//! A batch holds all that has changed since the one before, so that what it says of one message and what it says of
//! another belong together. When the batches have become longer than the checkpoint that they follow, or something has
//! failed, a new journal is begun with a checkpoint; whatever nobody needs any more is removed behind it.

use super::super::disk::{Data, Failed, Op};
use super::super::log::{Cursor, Loc};
use super::super::{Channel, Topic};
use super::ledger::Change;
use super::trouble::{LaneTrouble, RETRY};
use super::{Closing, FLUSH, Segment, Store};
use crate::name::ChannelName;
use crate::storage::journal::{self, Batch, Entry, FreshRange, Incarnation, Numbers, Place, Position};
use crate::storage::names::FileName;
use crate::time::{Instant, Now};
use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// The journal as the store knows it.
#[derive(Debug)]
pub(super) struct Journal {
    /// The file that is written to, once there is one; numbers are used once.
    current: Option<u32>,
    pub(super) last: u32,
    /// Its length, and how much of that is the checkpoint, bytes.
    length: u64,
    checkpoint: u64,
    pub(super) must_checkpoint: bool,
    /// Before the next batch has to be written, if there is something to say.
    pub(super) due: Option<Instant>,
    /// To be removed when a checkpoint stands.
    pub(super) obsolete: Vec<FileName>,
    /// What could not be removed. Nobody needs it, and if a start finds it, that does.
    stuck: Vec<FileName>,
    /// Channels that are gone and of which no batch has told; and all those that `nsqd.dat` may list still.
    pub(super) gone: Vec<(Incarnation, ChannelName)>,
    pub(super) departed: VecDeque<(Incarnation, ChannelName)>,
    /// Something about the topic itself, or one of its channels, that should not wait.
    pub(super) urgent: bool,
    /// What was said last about the topic, and about where regions are.
    fan: Option<Cursor>,
    placed: Option<(u32, u64)>,
}

impl Default for Journal {
    fn default() -> Self {
        Self {
            current: None,
            last: 0,
            length: 0,
            checkpoint: 0,
            must_checkpoint: true,
            due: None,
            obsolete: Vec::new(),
            stuck: Vec::new(),
            gone: Vec::new(),
            departed: VecDeque::new(),
            urgent: false,
            fan: None,
            placed: None,
        }
    }
}

/// A batch under way.
#[derive(Debug)]
pub(super) struct Flush {
    /// How many operations make it stay; those that follow remove files.
    ops: usize,
    /// The journal, and its length then; that of the checkpoint, if it is one.
    number: u32,
    length: u64,
    checkpoint: bool,
    removed: Vec<FileName>,
    /// Chunks of which everything is said in it, and how many runs of copies it tells of.
    journalled: Vec<u64>,
    copies: usize,
}

/// Operations of a checkpoint up to that which gives it its name.
const RENAMED: usize = 3;

/// A journal may grow by so much before its checkpoint is renewed, however small that is.
const GROWTH: u64 = 64 * 1024;

/// `nsqd.dat` is saved soon after a channel goes: of so many it may not know that.
const DEPARTED: usize = 1000;

impl Journal {
    /// Which channels are gone. What is said by name makes the next start not take it from `nsqd.dat`, so each
    /// checkpoint says it again; and the name is said with it, for the journal may never have heard of the channel.
    fn say_gone(&mut self, all: bool, batch: &mut Batch) {
        let news = core::mem::take(&mut self.gone);
        let told = if all { self.departed.len() } else { 0 };
        self.departed.extend(news.iter().cloned());
        for (channel, name) in self.departed.iter().take(told).chain(&news) {
            let (channel, name) = (*channel, name.clone());
            batch.push(&Entry::Channel { channel, name, paused: false });
            batch.push(&Entry::Gone { channel });
        }
        self.departed.drain(..self.departed.len().saturating_sub(DEPARTED));
    }
}

impl Topic {
    /// Whether there is something to say that a recovery would want to know.
    pub(in crate::topic) fn wants_flush(&self) -> bool {
        let Some(store) = &self.store else { return false };
        let journal = &store.journal;
        let matters = store.disk.durable || !store.segments.is_empty();
        let is_news = |(_, channel): (usize, &Channel)| channel.ledger.as_ref().is_some_and(|it| !it.is_clean());
        journal.urgent
            || journal.must_checkpoint
            || !journal.gone.is_empty()
            || store.unneeded.iter().any(|&number| store.is_removable(number))
            || store.closing.is_some() && store.segments.values().any(Segment::is_news)
            || matters && (journal.fan != Some(self.fan) || self.channels.iter().any(is_news))
    }

    /// Sets the time by which changes have to be in the journal.
    pub(super) fn look_at_what_changed(&mut self, now: Now) {
        let Some(store) = &mut self.store else { return };
        store.account(self.log.take_freed());
        store.carry.look(&self.log);
        let wants = self.wants_flush();
        let Some(store) = &mut self.store else { return };
        let wait = if store.disk.durable { FLUSH } else { store.options.sync_timeout };
        let at_once = store.journal.urgent || store.closing == Some(Closing::Wanted);
        let due = if at_once { now.instant } else { now.instant + wait };
        store.journal.due = wants.then(|| store.journal.due.map_or(due, |before| before.min(due)));
        // Files that could not be removed are a reason to write, but none to wait for.
        store.journal.due = store.journal.due.into_iter().chain(store.trouble.remove.retry).min();
    }

    pub(super) fn is_flush_due(&self, now: Now) -> bool {
        let store = self.store.as_deref();
        store.is_some_and(|store| store.journal.due.is_some_and(|due| due <= now.instant) && store.may_flush())
    }

    /// Adds to a job what makes all changes be in the journal, and removes what is of no use then.
    pub(super) fn flush(&mut self, now: Now, ops: &mut Vec<Op>) -> Option<Flush> {
        let store = self.store.as_deref_mut()?;
        let grown = store.journal.length > 2 * store.journal.checkpoint + GROWTH;
        let checkpoint = store.journal.must_checkpoint || grown || store.journal.current.is_none();
        // What is told to be needed was created; what is not needed is not told of after this.
        let mut removed = store.drop_segments();
        let mut batch = Batch::default();
        self.say(checkpoint, &removed, now, &mut batch);
        let store = self.store.as_deref_mut()?;
        let before = ops.len();
        let journal = &mut store.journal;
        if checkpoint {
            journal.last += 1;
            removed.extend(journal.current.map(FileName::Journal));
            removed.append(&mut journal.obsolete);
        }
        if !store.trouble.remove.is_waiting(now.instant) {
            store.trouble.remove.retry = None;
            removed.append(&mut journal.stuck);
        }
        let number = if checkpoint { journal.last } else { journal.current? };
        let (file, unfinished) = (FileName::Journal(number), FileName::Unfinished(number));
        let length = if checkpoint {
            let head = journal::head(store.disk.incarnation, number, store.disk.crc);
            let data = Data::batch(head.to_vec(), batch);
            let length = data.len() as u64;
            ops.push(Op::Create { file: unfinished });
            ops.push(Op::Write { file: unfinished, offset: 0, data });
            ops.push(Op::Sync { file: unfinished });
            ops.push(Op::Rename { from: unfinished, to: file });
            ops.push(Op::SyncDirectory);
            length
        } else {
            let (offset, data) = (journal.length, Data::batch(Vec::new(), batch));
            let length = offset + data.len() as u64;
            ops.push(Op::Write { file, offset, data });
            ops.push(Op::Sync { file });
            length
        };
        (journal.due, journal.urgent, journal.must_checkpoint) = (None, false, false);
        let stay = ops.len() - before;
        ops.extend(removed.iter().map(|&file| Op::Remove { file }));
        let journalled = store.unjournalled.iter().copied().collect();
        let copies = store.carry.copies();
        Some(Flush { ops: stay, number, length, checkpoint, removed, journalled, copies })
    }

    /// Takes note of what came of a batch; whether it stays.
    pub(super) fn flushed(
        &mut self,
        flush: Option<Flush>,
        before: usize,
        result: &Result<(), Failed>,
        now: Now,
    ) -> bool {
        let (Some(flush), Some(store)) = (flush, self.store.as_deref_mut()) else { return true };
        let journal = &mut store.journal;
        let failed = result.as_ref().err().map(|failed| failed.op);
        let stays = failed.is_none_or(|op| op >= before + flush.ops);
        if stays {
            store.carry.journalled(flush.copies);
            (journal.current, journal.length) = (Some(flush.number), flush.length);
            for number in flush.journalled {
                if let Some(placed) = self.log.chunk(number).and_then(|chunk| chunk.placed.as_mut()) {
                    placed.unjournalled = 0;
                }
                store.unjournalled.remove(&number);
                store.evictable.insert(number);
            }
            if flush.checkpoint {
                journal.checkpoint = flush.length;
            }
        } else {
            if flush.checkpoint && failed.is_some_and(|op| op < before + RENAMED) {
                // There is no file of that name, and the next try makes the unfinished one anew.
                journal.last = flush.number - 1;
            } else if flush.checkpoint {
                journal.obsolete.extend([FileName::Unfinished(flush.number), FileName::Journal(flush.number)]);
            }
            // Somebody may be waiting for it.
            (journal.must_checkpoint, journal.urgent) = (true, true);
            let current = journal.current.map(FileName::Journal);
            journal.obsolete.extend(flush.removed.into_iter().filter(|file| Some(*file) != current));
            return false;
        }
        if let Err(failed) = result {
            // The one that it was comes last, so that it is not in the way of others.
            let mut left = flush.removed.into_iter().skip(failed.op - before - flush.ops);
            let failing = left.next();
            journal.stuck.extend(left.chain(failing));
            let reason = Some(failed.reason.clone());
            store.trouble.remove = LaneTrouble { reason, retry: Some(now.instant + RETRY), probed: false };
        } else if journal.stuck.is_empty() {
            store.trouble.remove.reason = None;
        }
        true
    }

    /// All that has changed, or all that there is.
    fn say(&mut self, all: bool, removed: &[FileName], now: Now, batch: &mut Batch) {
        let Self { store: Some(store), log, channels, ids, fan, paused, next_incarnation, .. } = self else { return };
        let (seq, chunk) = log.next();
        let (segment, incarnation) = (store.next_segment, Incarnation(*next_incarnation));
        batch.push(&Entry::Numbers(Numbers { seq, chunk, segment, incarnation, id: ids.last() }));
        let position = |cursor: Cursor| Position {
            place: Place { chunk: cursor.chunk, offset: cursor.offset },
            passed: cursor.passed,
        };
        batch.push(&Entry::Topic { paused: *paused, fan: position(*fan) });
        store.journal.fan = Some(*fan);
        for (&number, segment) in &mut store.segments {
            if segment.is_news() || all && segment.is_usable() {
                segment.journalled = Some(segment.safe);
                batch.push(&Entry::Segment { number, needed: segment.journalled });
            }
        }
        for file in removed {
            if let FileName::Segment(number) = *file {
                batch.push(&Entry::Segment { number, needed: None });
            }
        }
        // A durable topic hands out nothing that has no region.
        if let Some((segment, offset)) = store.next_region().filter(|it| all || store.journal.placed != Some(*it)) {
            store.journal.placed = Some((segment, offset));
            batch.push(&Entry::Placed { segment, offset });
        }
        store.journal.say_gone(all, batch);
        for (_, channel) in channels.iter_mut() {
            let Some(ledger) = channel.ledger.as_deref().filter(|ledger| all || !ledger.is_clean()) else { continue };
            let it = ledger.incarnation;
            if all || ledger.announce {
                batch.push(&Entry::Channel { channel: it, name: channel.name.clone(), paused: channel.paused });
            }
            if ledger.emptied && !all {
                batch.push(&Entry::Empty { channel: it });
            }
            let ranges = channel.fresh_ranges(*fan);
            let ranges = ranges.map(|(begin, end)| FreshRange { begin: position(begin), end: position(end) }).collect();
            batch.push(&Entry::Fresh { channel: it, ranges });
            let out = |loc: Loc, attempts, due: Option<Instant>| {
                let delay = due.map_or(0, |due| u64::try_from(due.since(now.instant).as_nanos()).unwrap_or(u64::MAX));
                let at = now.timestamp.as_nanos().saturating_add_unsigned(delay).max(1);
                let due = if due.is_some() { at } else { 0 };
                Entry::Out { channel: it, place: loc.place(), attempts, due, delay }
            };
            channel.tell_out(all, log, |loc, change| {
                batch.push(&match change {
                    Change::Out { attempts, due, .. } => out(loc, attempts, due),
                    Change::Done => Entry::Done { channel: it, place: loc.place() },
                });
            });
        }
    }
}

impl Store {
    /// No region that a chunk gets from now on is before this: segment and offset. `None` if nobody wants to know.
    fn next_region(&self) -> Option<(u32, u64)> {
        let next = self.current.map_or((self.next_segment, 0), |current| (current, self.segments[&current].end));
        (!self.disk.durable).then_some(next)
    }

    /// Whether all copies are written that the journal would tell of, or will be in the same job.
    pub(super) const fn may_flush(&self) -> bool {
        self.disk.durable || !self.carry.unwritten
    }

    /// Whether a segment in which nobody needs a chunk can go: nobody is about to write to it. On one that was retired
    /// somebody may still rely, unless it never came to be.
    fn is_removable(&self, number: u32) -> bool {
        let segment = &self.segments[&number];
        let in_use = self.commit.as_ref().is_some_and(|commit| commit.touches(number));
        (segment.created || segment.retired)
            && !in_use
            && (!segment.retired || !segment.created || self.replaced.is_empty())
    }

    /// Takes the segments that nobody needs out of the books.
    fn drop_segments(&mut self) -> Vec<FileName> {
        let numbers: Vec<_> = self.unneeded.iter().copied().filter(|&number| self.is_removable(number)).collect();
        for number in &numbers {
            self.segments.remove(number);
            self.unneeded.remove(number);
        }
        self.current = self.current.filter(|current| !numbers.contains(current));
        numbers.into_iter().map(FileName::Segment).collect()
    }
}
