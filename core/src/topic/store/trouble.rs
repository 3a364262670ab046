//! What is wrong with the disk, and what is done about it.
//!
//! What may not stay is written anew, in other files: at once, and if that fails, every second. Before messages, the
//! journal alone is to show that the disk works again.

use super::super::Topic;
use super::super::disk::Lane;
use super::super::log::{Loc, Log};
use super::{Closing, Store};
use crate::time::{Duration, Instant, Now};
use alloc::collections::BTreeSet;
use alloc::string::String;

/// What is wrong with the disk.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    pub(super) commit: LaneTrouble,
    pub(super) sync: LaneTrouble,
    pub(super) read: LaneTrouble,
    /// Files that nobody needs could not be removed; everything else goes on.
    pub(super) remove: LaneTrouble,
    /// What failed was tried once more in new files, and failed again: publishes are refused.
    pub(super) refusing: bool,
}

/// What is wrong with one lane.
#[derive(Debug, Default)]
pub(super) struct LaneTrouble {
    /// Why the last job failed.
    pub(super) reason: Option<String>,
    /// When to try again.
    pub(super) retry: Option<Instant>,
    /// Since messages were last tried, the journal was, on its own.
    pub(super) probed: bool,
}

/// What a job came to that writes messages, or fsyncs them, and then tells the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// All of it stays. A file may be left that was to be removed.
    Done,
    /// The messages do not, and the journal was not told.
    NoMessages,
    /// They do, but the journal was not told.
    NoJournal,
}

/// How long what is wrong is left alone.
pub(super) const RETRY: Duration = Duration::from_secs(1);

impl LaneTrouble {
    pub(super) fn is_waiting(&self, now: Instant) -> bool {
        self.retry.is_some_and(|retry| retry > now)
    }

    /// Whether the journal should show first that the disk works again.
    pub(super) const fn wants_probe(&self) -> bool {
        self.reason.is_some() && !self.probed
    }
}

impl Outcome {
    pub(super) const fn of(messages_failed: bool, journal: bool) -> Self {
        if messages_failed {
            Self::NoMessages
        } else if journal {
            Self::Done
        } else {
            Self::NoJournal
        }
    }
}

impl Store {
    /// Why the disk cannot be relied upon, if so.
    pub(in crate::topic) fn health(&self) -> Result<(), &str> {
        let Trouble { commit, sync, read, remove, .. } = &self.trouble;
        let reason = [commit, sync, read, remove].into_iter().find_map(|lane| lane.reason.as_deref());
        reason.map_or(Ok(()), Err)
    }

    /// Whether there is no trouble with what is written.
    pub(super) fn can_write(&self) -> bool {
        self.trouble.commit.reason.is_none() && self.trouble.sync.reason.is_none()
    }

    /// Whether what must be written is refused.
    pub(in crate::topic) const fn refuses(&self) -> bool {
        self.trouble.refusing
    }

    /// Something was not written: it is tried once more at once, and then every second.
    pub(super) fn failed(&mut self, lane: Lane, reason: String, now: Now) {
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

    pub(super) fn succeeded(&mut self, lane: Lane) {
        let trouble = if lane == Lane::Sync { &mut self.trouble.sync } else { &mut self.trouble.commit };
        (trouble.reason, trouble.retry) = (None, None);
        self.trouble.refusing &= lane != Lane::Commit;
    }

    /// What is wrong may have passed: a checkpoint, if nothing else, is to show it. Whether it is time for that.
    pub(super) fn try_again(&mut self, now: Now) -> bool {
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

    /// These files are not to be trusted with anything more: what may not stay in them is written anew elsewhere. They
    /// stay until that is done, or nobody needs it, for the sake of what somebody may rely on: what was fsynced and, in
    /// default mode, all that was written, for that was acknowledged, and a new process would find it. What was not
    /// written, or in a durable topic not fsynced, was promised to nobody.
    pub(super) fn retire(&mut self, segments: &BTreeSet<u32>, log: &mut Log) {
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

    /// Whoever was not answered by a commit that failed is covered by the next one.
    pub(super) fn cover_again(&mut self) {
        let next = self.commits + 1;
        let begun = self.commit.as_ref().map_or(next, |commit| commit.number);
        self.replies.iter_mut().filter(|reply| reply.commit < begun).for_each(|reply| reply.commit = next);
    }
}

impl Topic {
    /// What somebody relied on in files that were retired may have ended; then only messages that nobody was promised
    /// are to be written anew, and the files can go first. On a full disk nothing else would make room for them.
    pub(super) fn look_at_replaced(&mut self) {
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
}
