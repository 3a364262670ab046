//! Commits: they make messages be on disk, in durable topics for good, and answer who waits for that.

use super::super::disk::{Data, Failed, Lane, Op};
use super::super::io::Refusal;
use super::super::log::{Chunk, Cursor, Log};
use super::super::{Context, Topic};
use super::flush::Flush;
use super::sync::{Mark, Syncs};
use super::trouble::Outcome;
use super::{Pending, Store, WORTH_WRITING, WRITTEN_AT_ONCE};
use crate::storage::names::FileName;
use crate::storage::segment::{self, Region};
use crate::time::{Now, Timestamp};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// A commit under way.
#[derive(Debug)]
pub(super) struct Commit {
    pub(super) id: u64,
    pub(super) number: u64,
    written: Vec<Mark>,
    /// How many messages it is the first to write.
    messages: u64,
    pub(super) syncs: Syncs,
    created: Vec<u32>,
    sealed: Vec<u32>,
    /// Operations that are about messages; the others are about the journal.
    data_ops: usize,
    flush: Option<Flush>,
    end: Cursor,
    pub(super) pending: Pending,
    /// An fsync failed meanwhile, and what this one wrote is written anew: it answers nobody.
    pub(super) void: bool,
    /// There was more than it could write: the next one answers, and gives messages to channels.
    is_partial: bool,
    /// The journal alone, to show whether the disk works again.
    is_probe: bool,
}

impl Commit {
    fn new(number: u64, end: Cursor, pending: Pending) -> Self {
        Self {
            id: 0,
            number,
            written: Vec::new(),
            messages: 0,
            syncs: Syncs::default(),
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
    pub(super) fn begin_commit(&mut self, cx: &mut Context<'_>) {
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

    /// Takes note of what came of a commit, and answers whom it decides about.
    pub(super) fn committed(&mut self, mut commit: Commit, result: Result<(), Failed>, cx: &mut Context<'_>) {
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
}
