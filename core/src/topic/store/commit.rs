//! Writing: commits, which make messages be on disk, and in default mode fsyncs beside them.

use super::super::disk::{Data, Failed, Lane, Op};
use super::super::io::Refusal;
use super::super::log::{Chunk, Cursor, Loc, Log};
use super::super::{Context, Topic};
use super::flush::Flush;
use super::{Closing, Pending, RETRY, Store, WORTH_WRITING, WRITTEN_AT_ONCE};
use crate::storage::names::FileName;
use crate::storage::segment::{self, Region};
use crate::time::{Now, Timestamp};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;

/// A commit under way.
#[derive(Debug)]
pub(super) struct Commit {
    id: u64,
    number: u64,
    written: Vec<Mark>,
    /// How many messages it is the first to write.
    messages: u64,
    syncs: Syncs,
    created: Vec<u32>,
    sealed: Vec<u32>,
    /// Operations that are about messages; the others are about the journal.
    data_ops: usize,
    flush: Option<Flush>,
    end: Cursor,
    pub(super) pending: Pending,
    /// An fsync failed meanwhile, and what this one wrote is written anew: it answers nobody.
    void: bool,
    /// There was more than it could write: the next one answers, and gives messages to channels.
    is_partial: bool,
    /// The journal alone, to show whether the disk works again.
    is_probe: bool,
}

impl Commit {
    const fn new(number: u64, end: Cursor, pending: Pending) -> Self {
        Self {
            id: 0,
            number,
            written: Vec::new(),
            messages: 0,
            syncs: Syncs { segments: BTreeSet::new(), marks: Vec::new(), ops: 0 },
            created: Vec::new(),
            sealed: Vec::new(),
            data_ops: 0,
            flush: None,
            end,
            pending,
            void: false,
            is_partial: false,
            is_probe: false,
        }
    }

    /// Whether it does something to this segment.
    pub(super) fn touches(&self, segment: u32) -> bool {
        let is_written = self.written.iter().any(|mark| mark.segment == segment);
        is_written || [&self.created, &self.sealed].into_iter().any(|it| it.contains(&segment))
    }
}

/// An fsync under way, beside commits.
#[derive(Debug)]
pub(super) struct Syncing {
    id: u64,
    syncs: Syncs,
    /// How many messages were written since the one before it began.
    messages: u64,
    flush: Option<Flush>,
}

/// A chunk, in the segment that it was in, up to an offset.
#[derive(Clone, Copy, Debug)]
struct Mark {
    chunk: u64,
    segment: u32,
    end: u32,
}

/// What fsyncs make stay.
#[derive(Debug, Default)]
struct Syncs {
    segments: BTreeSet<u32>,
    marks: Vec<Mark>,
    ops: usize,
}

/// What a job came to that writes messages, or fsyncs them, and then tells the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// All of it stays. A file may be left that was to be removed.
    Done,
    /// The messages do not, and the journal was not told.
    NoMessages,
    /// They do, but the journal was not told.
    NoJournal,
}

impl Outcome {
    const fn of(messages_failed: bool, journal: bool) -> Self {
        match journal {
            _ if messages_failed => Self::NoMessages,
            true => Self::Done,
            false => Self::NoJournal,
        }
    }
}

impl Store {
    /// Whether a commit has something to do, and may.
    fn wants_commit(&self, log: &mut Log, now: Now, flush: bool) -> bool {
        if self.commit.is_some() || self.trouble.commit.is_waiting(now.instant) {
            return false;
        }
        if self.resting.is_some() && self.ungiven(log) < WORTH_WRITING || self.would_sync_beside_sync() {
            return false;
        }
        let uncovered = self.replies.last().is_some_and(|reply| reply.commit > self.commits);
        let mut unwritten = || self.open.iter().any(|&chunk| log.chunk(chunk).is_some_and(|it| it.ungiven().is_some()));
        (flush && self.disk.durable) || uncovered || unwritten()
    }

    /// Whether fsyncs are under way beside which there should be no others: the system tells of an error once, and that
    /// may be to either.
    pub(super) fn would_sync_beside_commit(&self) -> bool {
        self.commit.as_ref().is_some_and(|commit| !commit.syncs.segments.is_empty())
    }

    /// The same for a commit that would fsync a file of which an fsync is under way.
    pub(super) fn would_sync_beside_sync(&self) -> bool {
        let syncs = |number: &u32| match self.segments.get(number) {
            Some(segment) => !segment.sealed && (self.presses || self.current != Some(*number)),
            None => false,
        };
        self.syncing.as_ref().is_some_and(|syncing| syncing.syncs.segments.iter().any(syncs))
    }

    /// The operations that write all that the disk was not given yet, or as much of it as one commit writes.
    fn write(&mut self, log: &mut Log, now: Timestamp, last_id: crate::message::MessageId) -> (Vec<Op>, Commit) {
        self.close_chunks(log);
        let mut ops = Vec::new();
        let mut commit = Commit::new(self.commits, self.synced, Pending::default());
        let (syncs, mut room) = (self.disk.durable || self.presses, WRITTEN_AT_ONCE);
        // Those that may have something to write, or to be sealed: of the others there may be thousands.
        let unsealed = self.segments.iter().rev().take_while(|(_, segment)| !segment.sealed);
        let mut segments: BTreeMap<u32, Vec<u64>> = unsealed.map(|(&number, _)| (number, Vec::new())).collect();
        for &chunk in &self.open {
            if let Some(segment) = log.chunk(chunk).and_then(|chunk| chunk.segment()) {
                segments.entry(segment).or_default().push(chunk);
            }
        }
        for (number, open) in segments {
            let file = FileName::Segment(number);
            let before = ops.len();
            let mut writes = Vec::new();
            for chunk in open {
                let Some(chunk) = log.chunk(chunk) else { continue };
                if room == 0 && chunk.ungiven().is_some() {
                    commit.is_partial = true;
                    break;
                }
                writes.extend(self.write_chunk(chunk, &mut commit.written, &mut room));
            }
            let seals = self.current != Some(number) && !self.segments[&number].sealed && !commit.is_partial;
            if !self.segments[&number].created && !writes.is_empty() {
                let head = segment::head(self.disk.incarnation, number, now, self.disk.crc);
                ops.push(Op::Create { file });
                ops.push(Op::Write { file, offset: 0, data: Data::whole(head.to_vec()) });
                ops.push(Op::SyncDirectory);
                commit.created.push(number);
            }
            ops.append(&mut writes);
            if seals && (ops.len() > before || self.segments[&number].created) {
                let segment = &self.segments[&number];
                let end = segment::end(&self.regions(number, log), segment.end, last_id, self.disk.crc);
                ops.push(Op::Write { file, offset: segment.end, data: Data::whole(end) });
                commit.sealed.push(number);
            }
            if ops.len() > before && (seals || syncs) {
                ops.push(Op::Sync { file });
                commit.syncs.segments.insert(number);
            }
            if commit.is_partial {
                break;
            }
        }
        if !commit.is_partial {
            (commit.end, commit.pending) = (log.end(), self.pending);
            commit.messages = core::mem::take(&mut self.unwritten);
            self.presses = false;
        }
        commit.syncs.marks = self.marks(&commit.syncs.segments, log);
        let tail = log.tail().map(|tail| tail.number);
        self.open.retain(|&chunk| Some(chunk) == tail || log.chunk(chunk).is_some_and(|it| it.ungiven().is_some()));
        let Self { segments, unneeded, current, .. } = self;
        unneeded.retain(|&number| {
            let stays = segments[&number].created || segments[&number].retired || Some(number) == *current;
            if !stays {
                segments.remove(&number);
            }
            stays
        });
        commit.data_ops = ops.len();
        (ops, commit)
    }

    fn write_chunk(&self, chunk: &mut Chunk, written: &mut Vec<Mark>, room: &mut usize) -> Option<Op> {
        let (from, records) = chunk.ungiven()?;
        *room = room.saturating_sub(records.len());
        let placed = chunk.placed.as_ref()?;
        let (segment, file) = (placed.segment, FileName::Segment(placed.segment));
        let op = if from == 0 {
            let head = segment::region_head(chunk.number, chunk.first_seq, placed.room, self.disk.crc);
            Op::Write { file, offset: placed.region, data: Data::records(head.to_vec(), records) }
        } else {
            let offset = placed.records_at() + u64::from(from);
            Op::Write { file, offset, data: Data::records(Vec::new(), records) }
        };
        let end = chunk.end();
        written.push(Mark { chunk: chunk.number, segment, end });
        if let Some(placed) = &mut chunk.placed {
            placed.given = end;
        }
        Some(op)
    }

    /// What the index of a segment tells of.
    fn regions(&self, number: u32, log: &Log) -> Vec<Region> {
        let its = log.chunks().filter(|chunk| chunk.segment() == Some(number));
        let mut regions: Vec<Region> = its.filter_map(Chunk::region).collect();
        let segment = &self.segments[&number];
        if regions.iter().all(|region| region.chunk != segment.last_chunk) {
            // Nobody needs it any more, but its numbers were used.
            let (chunk, first_seq) = (segment.last_chunk, log.next().0);
            let (offset, capacity, used, records, plain, deferred) = (segment.end, 0, 0, 0, 0, 0);
            regions.push(Region { chunk, capacity, offset, used, records, plain, deferred, first_seq });
        }
        regions
    }

    /// What an fsync of these segments makes stay, once all that the disk was given before is written.
    fn marks(&self, segments: &BTreeSet<u32>, log: &mut Log) -> Vec<Mark> {
        let mut marks = Vec::new();
        if segments.is_empty() {
            return marks;
        }
        for &number in self.unsynced.union(&self.open) {
            if let Some(chunk) = log.chunk(number)
                && let Some(placed) = &chunk.placed
                && segments.contains(&placed.segment)
            {
                marks.push(Mark { chunk: number, segment: placed.segment, end: placed.given });
            }
        }
        marks
    }

    /// Messages of a commit did not get there: they go elsewhere.
    fn not_written(&mut self, commit: &Commit, log: &mut Log) {
        self.unwritten += commit.messages;
        let mut touched = commit.syncs.segments.clone();
        touched.extend(commit.written.iter().map(|mark| mark.segment).chain(commit.created.iter().copied()));
        self.retire(&touched, log);
    }

    /// The messages of a commit are written, and fsynced where it was to do that.
    fn on_disk(&mut self, commit: &Commit, log: &mut Log, now: Now) {
        *(if commit.void { &mut self.unwritten } else { &mut self.written }) += commit.messages;
        self.is_written(&commit.written, log);
        self.vouch(&commit.syncs, &commit.sealed, log);
        self.stays(&commit.syncs, log);
        for number in &commit.created {
            self.segments.entry(*number).and_modify(|segment| segment.created = true);
        }
        for number in &commit.sealed {
            self.segments.entry(*number).and_modify(|segment| segment.sealed = true);
        }
        if self.disk.durable {
            self.pending.plain -= commit.pending.plain.min(self.pending.plain);
            self.pending.deferred -= commit.pending.deferred.min(self.pending.deferred);
            self.synced = commit.end;
        } else if !self.unsynced.is_empty() {
            self.sync_due.get_or_insert(now.instant + self.options.sync_timeout);
        }
    }

    fn is_written(&mut self, marks: &[Mark], log: &mut Log) {
        for mark in marks {
            if let Some(chunk) = log.chunk(mark.chunk)
                && let Some(placed) = &mut chunk.placed
                && placed.segment == mark.segment
            {
                placed.written = placed.written.max(mark.end);
                self.unsynced.insert(mark.chunk);
            }
        }
    }

    fn stays(&mut self, syncs: &Syncs, log: &mut Log) {
        for mark in &syncs.marks {
            let Some(chunk) = log.chunk(mark.chunk) else {
                self.unsynced.remove(&mark.chunk);
                self.replaced.remove(&mark.chunk);
                continue;
            };
            if let Some(placed) = &mut chunk.placed
                && placed.segment == mark.segment
            {
                placed.synced = placed.synced.max(mark.end.min(placed.written));
                if placed.synced == placed.given && placed.given > 0 {
                    self.evictable.insert(mark.chunk);
                    self.unsynced.remove(&mark.chunk);
                    self.replaced.remove(&mark.chunk);
                }
            }
        }
    }

    /// Takes note of what these fsyncs make stay of their segments, in time for the batch of the journal that follows
    /// them. A chunk that may still grow, or has more than that, is the end of what is known to be there.
    fn vouch(&mut self, syncs: &Syncs, sealed: &[u32], log: &mut Log) {
        let tail = log.tail().map(|tail| tail.number).filter(|_| self.closing.is_none());
        for number in &syncs.segments {
            let (mut end, mut limit) = (0, u64::MAX);
            for mark in syncs.marks.iter().filter(|mark| mark.segment == *number) {
                let chunk = log.chunk(mark.chunk).and_then(|chunk| chunk.placed.as_ref());
                let Some(placed) = chunk.filter(|placed| placed.segment == *number) else { continue };
                let upto = mark.end.max(placed.synced);
                let safe = if upto == 0 { placed.region } else { placed.records_at() + u64::from(upto) };
                end = if upto == 0 { end } else { end.max(safe) };
                if Some(mark.chunk) == tail && Some(*number) == self.current || upto < placed.given {
                    limit = limit.min(safe);
                }
            }
            if let Some(segment) = self.segments.get_mut(number) {
                segment.safe.end = segment.safe.end.max(end.min(limit));
                segment.safe.sealed |= sealed.contains(number);
            }
        }
    }

    /// These files are not to be trusted with anything more: what may not stay in them is written anew elsewhere. They
    /// stay until that is done, or nobody needs it, for the sake of what somebody may rely on: what was fsynced and, in
    /// default mode, all that was written, for that was acknowledged, and a new process would find it. What was not
    /// written, or in a durable topic not fsynced, was promised to nobody.
    fn retire(&mut self, segments: &BTreeSet<u32>, log: &mut Log) {
        for number in segments {
            if let Some(segment) = self.segments.get_mut(number) {
                (segment.sealed, segment.retired) = (true, true);
            }
        }
        self.current = self.current.filter(|current| !segments.contains(current));
        for chunk in log.chunks_mut() {
            let Some(placed) = &chunk.placed else { continue };
            if !segments.contains(&placed.segment) {
                continue;
            }
            if placed.synced == chunk.end() {
                chunk.close();
            } else {
                let left = placed.segment;
                let (kept, unjournalled) = (placed.synced.max(placed.kept), placed.unjournalled);
                let relied_on = if self.disk.durable { kept } else { placed.written.max(kept) };
                self.unsynced.remove(&chunk.number);
                if relied_on > 0 {
                    let before = self.replaced.entry(chunk.number).or_default();
                    *before = relied_on.max(*before);
                }
                self.leave(left);
                self.place(chunk);
                chunk.placed.iter_mut().for_each(|placed| (placed.kept, placed.unjournalled) = (kept, unjournalled));
            }
        }
        self.journal.must_checkpoint = true;
    }

    /// Something was not written: it is tried once more at once, and then every second.
    fn failed(&mut self, lane: Lane, reason: String, now: Now) {
        let trouble = if lane == Lane::Sync { &mut self.trouble.sync } else { &mut self.trouble.commit };
        let again = trouble.reason.is_some();
        (trouble.reason, trouble.probed) = (Some(reason), false);
        if again {
            trouble.retry = Some(now.instant + RETRY);
            self.trouble.refusing |= lane == Lane::Commit;
            if let Some(closing) = self.closing
                && closing != Closing::Said
            {
                self.closing = Some(Closing::Failed);
            }
        }
    }

    fn succeeded(&mut self, lane: Lane) {
        let trouble = if lane == Lane::Sync { &mut self.trouble.sync } else { &mut self.trouble.commit };
        (trouble.reason, trouble.retry) = (None, None);
        self.trouble.refusing &= lane != Lane::Commit;
    }

    /// What is wrong may have passed: a checkpoint, if nothing else, is to show it. Whether it is time for that.
    fn try_again(&mut self, now: Now) -> bool {
        let mut is_time = false;
        for trouble in [&mut self.trouble.commit, &mut self.trouble.sync] {
            if trouble.retry.is_some() && !trouble.is_waiting(now.instant) {
                trouble.retry = None;
                (self.journal.urgent, self.journal.must_checkpoint) = (true, true);
                is_time = true;
            }
        }
        is_time
    }

    /// Bytes of records that the disk was not given yet.
    fn ungiven(&self, log: &mut Log) -> usize {
        let ungiven = |&chunk: &u64| log.chunk(chunk).and_then(|chunk| chunk.ungiven()).map_or(0, |(_, it)| it.len());
        self.open.iter().map(ungiven).sum()
    }

    pub(super) fn messages_given(&self, log: &mut Log) -> bool {
        self.open.iter().all(|&chunk| log.chunk(chunk).is_none_or(|it| it.ungiven().is_none()))
    }
}

impl Topic {
    /// Begins what the disk has to do and may do.
    pub(in crate::topic) fn pump(&mut self, cx: &mut Context<'_>) {
        let Some(store) = &mut self.store else { return };
        store.account(self.log.take_freed());
        if self.gone || store.closing == Some(Closing::Said) {
            return;
        }
        if store.try_again(cx.now) {
            self.look_at_replaced();
        }
        self.carry_from_disk();
        self.look_at_what_changed(cx.now);
        self.begin_sync(cx);
        self.begin_commit(cx);
        self.begin_reads(cx);
        self.evict();
        self.say_closed(cx);
    }

    /// What somebody relied on in files that were retired may have ended; then only messages that nobody was promised
    /// are to be written anew, and the files can go first. On a full disk nothing else would make room for them.
    fn look_at_replaced(&mut self) {
        let (Some(store), log) = (&self.store, &self.log) else { return };
        if store.replaced.is_empty() {
            return;
        }
        let mut needed = BTreeSet::new();
        let mut need = |loc: Loc| {
            let number = loc.chunk();
            let is_relied_on = store.replaced.get(&number).is_some_and(|&end| loc.offset() < end);
            needed.extend(is_relied_on.then_some(number));
        };
        let fresh = self.channels.iter().flat_map(|(_, channel)| channel.fresh_ranges(self.fan));
        for (begin, end) in fresh.chain([(self.fan, log.end())]) {
            for &number in store.replaced.keys() {
                log.first_between(begin, end, number).into_iter().for_each(&mut need);
            }
        }
        self.channels.iter().for_each(|(_, channel)| channel.each_out(|loc, _, _| need(loc)));
        self.backlog_deferred.iter().for_each(|&(loc, _)| need(loc));
        let (Some(store), log) = (&mut self.store, &mut self.log) else { return };
        store.replaced.retain(|&number, _| {
            let stays = needed.contains(&number);
            if let Some(placed) = log.chunk(number).filter(|_| !stays).and_then(|chunk| chunk.placed.as_mut()) {
                placed.kept = 0;
            }
            stays
        });
    }

    fn begin_commit(&mut self, cx: &mut Context<'_>) {
        let flush = self.is_flush_due(cx.now);
        let Some(store) = &mut self.store else { return };
        if !store.wants_commit(&mut self.log, cx.now, flush) {
            return;
        }
        let probes = store.trouble.commit.wants_probe() && !store.carry.unwritten;
        if store.disk.durable && flush && probes {
            return self.begin_probe(cx);
        }
        if !store.disk.durable && store.trouble.refusing && probes {
            // The journal has a lane of its own, and its turn: each try would leave a file to be removed.
            return;
        }
        store.trouble.commit.probed = false;
        store.commits += 1;
        let (mut ops, mut commit) = store.write(&mut self.log, cx.now.timestamp, self.ids.last());
        // What is in doubt does not carry the journal with it.
        let is_sure = !commit.is_partial && store.trouble.commit.reason.is_none();
        if store.disk.durable && flush && is_sure {
            store.vouch(&commit.syncs, &commit.sealed, &mut self.log);
            commit.flush = self.flush(cx.now, &mut ops);
        }
        let Some(store) = &mut self.store else { return };
        if ops.is_empty() {
            return self.committed(commit, Ok(()), cx);
        }
        commit.id = store.job(Lane::Commit, ops, cx.out);
        store.commit = Some(commit);
    }

    /// The journal alone, before messages that could not be written are tried again: what it says lets files be
    /// removed, and on a full disk that is what makes room for them. It is also the answer to what operators have done.
    fn begin_probe(&mut self, cx: &mut Context<'_>) {
        let mut ops = Vec::new();
        let flush = self.flush(cx.now, &mut ops);
        let Some(store) = &mut self.store else { return };
        store.trouble.commit.probed = true;
        store.replies.iter_mut().for_each(|reply| reply.told = reply.journal);
        let mut commit = Commit::new(store.commits, store.synced, Pending::default());
        (commit.id, commit.flush, commit.is_probe) = (store.job(Lane::Commit, ops, cx.out), flush, true);
        store.commit = Some(commit);
    }

    /// In default mode fsyncs, and the journal, do not hold up commits.
    fn begin_sync(&mut self, cx: &mut Context<'_>) {
        let flush = self.is_flush_due(cx.now);
        let Some(store) = &mut self.store else { return };
        if store.disk.durable || store.syncing.is_some() || store.trouble.sync.is_waiting(cx.now.instant) {
            return;
        }
        if store.would_sync_beside_commit() {
            return;
        }
        // What is on the medium can give its memory back.
        let is_short = self.budget.used() > self.budget.limit() / 2;
        let log = &mut self.log;
        // What would be written anew each time that an fsync fails would fill the disk. But a copy is fsynced before
        // the journal names it.
        let probes = flush && store.trouble.sync.wants_probe() && store.carry.copies() == 0;
        // What a commit under way writes no fsync can cover yet.
        let mut unsynced = |chunk: &u64| log.chunk(*chunk).filter(|chunk| !probes && chunk.has_unsynced())?.segment();
        let hurry = (is_short || store.closing.is_some()) && store.unsynced.iter().any(|it| unsynced(it).is_some());
        let many = store.written >= store.options.sync_every.max(1);
        if !many && !hurry && !flush && store.sync_due.is_none_or(|due| due > cx.now.instant) {
            return;
        }
        let mut syncs = Syncs { segments: store.unsynced.iter().filter_map(unsynced).collect(), ..Syncs::default() };
        syncs.marks = store.marks(&syncs.segments, &mut self.log);
        for mark in &mut syncs.marks {
            let placed = self.log.chunk(mark.chunk).and_then(|chunk| chunk.placed.as_ref());
            mark.end = placed.map_or(0, |placed| placed.written);
        }
        let mut ops: Vec<_> =
            syncs.segments.iter().map(|&number| Op::Sync { file: FileName::Segment(number) }).collect();
        syncs.ops = ops.len();
        // What was not tried is due still.
        let messages = if probes { 0 } else { core::mem::take(&mut store.written) };
        store.sync_due = store.sync_due.filter(|_| probes);
        store.trouble.sync.probed = probes;
        store.vouch(&syncs, &[], &mut self.log);
        let flush = if flush { self.flush(cx.now, &mut ops) } else { None };
        let Some(store) = &mut self.store else { return };
        if !ops.is_empty() {
            let id = store.job(Lane::Sync, ops, cx.out);
            store.syncing = Some(Syncing { id, syncs, messages, flush });
        }
    }

    /// Takes the outcome of a job.
    pub(in crate::topic) fn disk_done(
        &mut self,
        id: u64,
        result: Result<Option<super::super::disk::Loaded>, Failed>,
        cx: &mut Context<'_>,
    ) {
        let Some(store) = &mut self.store else { return };
        store.account(self.log.take_freed());
        store.resting.take_if(|resting| *resting == id);
        if let Some(commit) = store.commit.take_if(|commit| commit.id == id) {
            self.committed(commit, result.map(|_| ()), cx);
        } else if let Some(syncing) = store.syncing.take_if(|syncing| syncing.id == id) {
            self.synced(syncing, result.map(|_| ()), cx.now);
        } else if let Some(chunk) = store.reads.remove(&id) {
            self.loaded(chunk, result, cx);
        }
    }

    fn committed(&mut self, mut commit: Commit, result: Result<(), Failed>, cx: &mut Context<'_>) {
        let Some(store) = &mut self.store else { return };
        let messages_failed = result.as_ref().is_err_and(|failed| failed.op < commit.data_ops);
        if messages_failed {
            store.not_written(&commit, &mut self.log);
        } else {
            store.on_disk(&commit, &mut self.log, cx.now);
        }
        let flush = commit.flush.take();
        let has_journal = flush.is_some();
        let outcome = Outcome::of(messages_failed, self.flushed(flush, commit.data_ops, &result, cx.now));
        let Some(store) = &mut self.store else { return };
        let answers = match outcome {
            Outcome::Done if commit.is_probe => store.answered_by_journal(),
            Outcome::NoMessages => Vec::new(),
            _ if commit.void || commit.is_partial || commit.is_probe => Vec::new(),
            _ => store.answered(commit.number, has_journal && outcome == Outcome::Done),
        };
        match result {
            Err(failed) if outcome != Outcome::Done => store.failed(Lane::Commit, failed.reason, cx.now),
            // The next one is to show whether messages can be written.
            _ if commit.is_probe && store.wants_commit(&mut self.log, cx.now, false) => {}
            _ => store.succeeded(Lane::Commit),
        }
        // What operators have done waits for the journal, unless that cannot be written either.
        let is_over = outcome == Outcome::NoJournal;
        let refused = if store.trouble.refusing { store.answered(u64::MAX, is_over) } else { Vec::new() };
        store.cover_again();
        let is_durable = store.disk.durable;
        if is_durable && answers.iter().any(|(conn, _)| *conn != answers[0].0) {
            store.rest(cx.out);
        }
        answers.into_iter().for_each(|(conn, slot)| self.answer(conn, slot, Ok(()), cx.out));
        refused.into_iter().for_each(|(conn, slot)| self.answer(conn, slot, Err(Refusal::NotWritten), cx.out));
        if is_durable {
            self.fan_out(cx);
        }
    }

    fn synced(&mut self, syncing: Syncing, result: Result<(), Failed>, now: Now) {
        let Some(store) = &mut self.store else { return };
        let messages_failed = result.as_ref().is_err_and(|failed| failed.op < syncing.syncs.ops);
        if messages_failed {
            if let Some(commit) = &mut store.commit {
                commit.void = true;
            }
            store.unwritten += syncing.messages;
            store.retire(&syncing.syncs.segments, &mut self.log);
        } else {
            store.stays(&syncing.syncs, &mut self.log);
        }
        if !store.unsynced.is_empty() {
            store.sync_due.get_or_insert(now.instant + store.options.sync_timeout);
        }
        let has_journal = syncing.flush.is_some();
        let outcome = Outcome::of(messages_failed, self.flushed(syncing.flush, syncing.syncs.ops, &result, now));
        let Some(store) = &mut self.store else { return };
        store.trouble.commit.probed |= has_journal && outcome == Outcome::Done;
        match result {
            Err(failed) if outcome != Outcome::Done => store.failed(Lane::Sync, failed.reason, now),
            // The next one is to show whether messages can be fsynced.
            _ if store.trouble.sync.probed && !store.unsynced.is_empty() => store.sync_due = Some(now.instant),
            _ => {
                store.succeeded(Lane::Sync);
                if store.commit.is_none() && store.messages_given(&mut self.log) {
                    // There is nothing left that a commit could show.
                    store.succeeded(Lane::Commit);
                }
            }
        }
    }
}

impl Store {
    /// Whoever was not answered by a commit that failed is covered by the next one.
    fn cover_again(&mut self) {
        let next = self.commits + 1;
        let begun = self.commit.as_ref().map_or(next, |commit| commit.number);
        self.replies.iter_mut().filter(|reply| reply.commit < begun).for_each(|reply| reply.commit = next);
    }

    /// What was to be given to channels is dropped.
    pub(in crate::topic) fn drop_pending(&mut self) {
        self.pending = Pending::default();
        if let Some(commit) = &mut self.commit {
            commit.pending = Pending::default();
        }
    }
}
