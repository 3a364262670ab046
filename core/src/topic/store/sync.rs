//! Fsyncs: what they make stay, and those that in default mode are made beside commits.

use super::super::disk::{Failed, Lane, Op};
use super::super::log::Log;
use super::super::{Context, Topic};
use super::Store;
use super::flush::Flush;
use super::trouble::Outcome;
use crate::storage::names::FileName;
use crate::time::Now;
use alloc::collections::BTreeSet;
use alloc::vec::Vec;

/// What fsyncs make stay.
#[derive(Debug, Default)]
pub(super) struct Syncs {
    pub(super) segments: BTreeSet<u32>,
    pub(super) marks: Vec<Mark>,
    ops: usize,
}

/// A chunk, in the segment that it was in, up to an offset.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    pub(super) chunk: u64,
    pub(super) segment: u32,
    pub(super) end: u32,
}

/// An fsync under way, beside commits.
#[derive(Debug)]
pub(super) struct Syncing {
    pub(super) id: u64,
    syncs: Syncs,
    /// How many messages were written since the one before it began.
    messages: u64,
    flush: Option<Flush>,
}

impl Store {
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

    /// What an fsync of these segments makes stay, once all that the disk was given before is written.
    pub(super) fn marks(&self, segments: &BTreeSet<u32>, log: &mut Log) -> Vec<Mark> {
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

    /// Takes note of what these fsyncs make stay of their segments, in time for the batch of the journal that follows
    /// them. A chunk that may still grow, or has more than that, is the end of what is known to be there.
    pub(super) fn vouch(&mut self, syncs: &Syncs, sealed: &[u32], log: &mut Log) {
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

    /// These fsyncs are done.
    pub(super) fn stays(&mut self, syncs: &Syncs, log: &mut Log) {
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
}

impl Topic {
    /// In default mode fsyncs, and the journal, do not hold up commits.
    pub(super) fn begin_sync(&mut self, cx: &mut Context<'_>) {
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

    /// Takes note of what came of fsyncs beside commits.
    pub(super) fn synced(&mut self, syncing: Syncing, result: Result<(), Failed>, now: Now) {
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
