//! What a topic keeps on disk: which chunks are in which segments, what is being written, and who waits for that.
//!
//! A topic has a store from the first time on that something must be written; until then none of this exists. Jobs go
//! out as effects, one commit and one sync at a time, and come back as [`Input::Disk`](super::io::Input::Disk); all
//! that came while a commit was under way is the next one, so that many publishes share a write, and an fsync. Where
//! several connections did in a durable topic, a rest of [`MOMENT`] lets those who were just answered share the next
//! one too; a connection that publishes alone never waits. The one rule: nothing is acknowledged, given to channels (in
//! a durable topic) or forgotten before the disk has said that it is there.

mod carry;
mod commit;
mod flush;
pub(super) mod ledger;
mod placing;
mod reading;
mod restore;
mod sync;
mod trouble;

use super::disk::{Disk, Failed, Job, Lane, Loaded, Op};
use super::io::{ConnId, Effects, Slot};
use super::log::{Chunk, Cursor, Log, Placed};
use super::{Context, Topic};
use crate::name::ChannelName;
use crate::options::Options;
use crate::storage::journal::{Incarnation, Safe};
use crate::storage::segment;
use crate::time::{Duration, Instant};
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;
use carry::Carry;
use commit::Commit;
use flush::Journal;
use reading::Salvage;
use sync::Syncing;
use trouble::Trouble;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) disk: Disk,
    options: Arc<Options>,
    /// Those that are there, or will be with the next commit.
    segments: BTreeMap<u32, Segment>,
    /// The one that regions are added to.
    current: Option<u32>,
    /// Those in which nobody needs a chunk.
    unneeded: BTreeSet<u32>,
    next_segment: u32,
    /// Placed chunks that may have records which the disk was not given.
    open: BTreeSet<u64>,
    /// Chunks with records that are written and may not stay.
    unsynced: BTreeSet<u64>,
    /// Chunks of files that were retired, and are not safe in another one yet: up to which offset somebody may rely on
    /// what is there. The files stay until this is empty.
    replaced: BTreeMap<u64, u32>,
    pub(super) carry: Carry,
    /// Resident chunks that may be evicted, as far as what was given to the disk goes: when memory is short, few.
    evictable: BTreeSet<u64>,
    /// Chunks of which the journal was not told everything that was handed out before they were placed.
    unjournalled: BTreeSet<u64>,
    /// Memory is full: the next commit makes what it writes stay, whatever the mode.
    pub(super) presses: bool,
    /// Messages to be written that no commit covers, and those that were since the last fsync beside commits began.
    unwritten: u64,
    written: u64,
    journal: Journal,
    /// The oldest of the channels that a journal may know to be gone: `nsqd.dat` tells younger ones from them.
    pub(super) first_gone: Option<Incarnation>,
    next_job: u64,
    /// Commits begun so far.
    commits: u64,
    commit: Option<Commit>,
    /// The job that rests before the next commit.
    resting: Option<u64>,
    syncing: Option<Syncing>,
    /// Jobs that read, and the chunks that they read.
    reads: BTreeMap<u64, u64>,
    /// Chunks that are read a page at a time.
    salvages: BTreeMap<u64, Salvage>,
    replies: Vec<Reply>,
    /// Publishes of which a part is appended, and must be written.
    parts: Vec<(ConnId, Slot)>,
    /// The number of the next chunk when all that was in memory only was last made to be written.
    spilled: u64,
    /// A durable topic's messages beyond the fan-out position that are not on the medium: plain and deferred ones.
    /// Those before it end here.
    pub(super) pending: Pending,
    pub(super) synced: Cursor,
    /// Before an fsync has to begin.
    sync_due: Option<Instant>,
    trouble: Trouble,
    closing: Option<Closing>,
}

/// A file of chunks.
#[derive(Debug, Default)]
struct Segment {
    /// Where the next region begins.
    end: u64,
    /// Chunks in it that somebody needs.
    chunks: u32,
    /// The file exists; it has an index, or is one that was found at the start or retired: nothing is added to it.
    created: bool,
    sealed: bool,
    /// How much of it is on the medium, and what of that the journal says.
    safe: Safe,
    journalled: Option<Safe>,
    /// The largest number of a chunk that was placed in it.
    last_chunk: u64,
    /// It failed, and what it has is not written anew yet.
    retired: bool,
}

impl Segment {
    /// It is there, and what is in it counts.
    const fn is_usable(&self) -> bool {
        self.created && !self.retired
    }

    /// The journal does not know all of it.
    fn is_news(&self) -> bool {
        self.is_usable() && self.journalled != Some(self.safe)
    }
}

/// Messages that are appended and not given to channels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Pending {
    pub(super) plain: u64,
    pub(super) deferred: usize,
}

/// An answer that waits for a commit.
#[derive(Debug)]
struct Reply {
    /// The commit that covers it, and whether that is so only with its journal; whether a batch under way tells of it.
    commit: u64,
    journal: bool,
    told: bool,
    conn: ConnId,
    slot: Slot,
}

/// The topic was told to write everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Closing {
    Wanted,
    /// It cannot be done.
    Failed,
    Said,
}

/// What several publishers of a durable topic give for a share in the next commit: less than most fsyncs take.
const MOMENT: Duration = Duration::from_micros(100);
/// So many bytes to be written are worth a commit of their own.
const WORTH_WRITING: usize = 128 * 1024;
/// So many bytes are one commit, and what is more is the next one, for they are copied under the topic's lock. In tests
/// few, so that it happens.
const WRITTEN_AT_ONCE: usize = if cfg!(test) { 4 * 1024 } else { 16 * 1024 * 1024 };
/// How long a change in a durable topic's channels may wait for the journal.
const FLUSH: Duration = Duration::from_millis(100);

impl Topic {
    /// Begins what the disk has to do and may do.
    pub(super) fn pump(&mut self, cx: &mut Context<'_>) {
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

    /// Takes the outcome of a job.
    pub(super) fn disk_done(&mut self, id: u64, result: Result<Option<Loaded>, Failed>, cx: &mut Context<'_>) {
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
}

impl Store {
    pub(super) fn new(disk: Disk, options: Arc<Options>, synced: Cursor) -> Self {
        Self {
            disk,
            options,
            segments: BTreeMap::new(),
            current: None,
            unneeded: BTreeSet::new(),
            next_segment: 1,
            open: BTreeSet::new(),
            unsynced: BTreeSet::new(),
            replaced: BTreeMap::new(),
            carry: Carry::default(),
            evictable: BTreeSet::new(),
            unjournalled: BTreeSet::new(),
            presses: false,
            unwritten: 0,
            written: 0,
            journal: Journal::default(),
            first_gone: None,
            next_job: 1,
            commits: 0,
            commit: None,
            resting: None,
            syncing: None,
            reads: BTreeMap::new(),
            salvages: BTreeMap::new(),
            replies: Vec::new(),
            parts: Vec::new(),
            spilled: 0,
            pending: Pending::default(),
            synced,
            sync_due: None,
            trouble: Trouble::default(),
            closing: None,
        }
    }

    /// When it wants the topic to be called, at the latest.
    pub(super) fn deadline(&self) -> Option<Instant> {
        if self.closing == Some(Closing::Said) {
            return None;
        }
        let Trouble { commit, sync, read, .. } = &self.trouble;
        let no_commit = self.commit.is_none() && self.resting.is_none();
        let writes = commit.retry.filter(|_| no_commit && !self.would_sync_beside_sync());
        let (idle, retry) = match self.disk.durable {
            true => (no_commit, commit.retry),
            false => (self.syncing.is_none() && !self.would_sync_beside_commit(), sync.retry),
        };
        let journal = self.journal.due.filter(|_| self.may_flush());
        let due = [journal, self.sync_due].into_iter().flatten().min();
        let syncs = due.filter(|_| idle).map(|due| retry.map_or(due, |retry| retry.max(due)));
        [writes, syncs, read.retry].into_iter().flatten().min()
    }

    /// Gives a chunk a region, so that all of it is written.
    pub(super) fn place(&mut self, chunk: &mut Chunk) {
        let room = chunk.room();
        let size = (segment::REGION_HEAD as u64) + u64::from(room);
        let full = |segment: &Segment| {
            segment.end > segment::HEAD as u64 && segment.end + size > self.options.max_bytes_per_file
        };
        if self.current.is_some_and(|current| full(&self.segments[&current])) {
            self.current = None;
        }
        let number = *self.current.get_or_insert_with(|| {
            let number = self.next_segment;
            self.next_segment += 1;
            self.segments.insert(number, Segment { end: segment::HEAD as u64, ..Segment::default() });
            number
        });
        let segment = self.segments.get_mut(&number).expect("the current segment");
        let placed = Placed::new(number, segment.end, room);
        segment.end += size;
        segment.chunks += 1;
        self.unneeded.remove(&number);
        segment.last_chunk = segment.last_chunk.max(chunk.number);
        chunk.placed = Some(Box::new(placed));
        self.open.insert(chunk.number);
    }

    /// A chunk is placed that was in memory only: the journal knows nothing of what was handed out of it, and should
    /// soon.
    fn place_late(&mut self, chunk: &mut Chunk) {
        self.place(chunk);
        let end = chunk.end();
        chunk.placed.iter_mut().for_each(|placed| placed.unjournalled = end);
        self.unjournalled.insert(chunk.number);
        self.journal.urgent = true;
    }

    /// What is placed in a segment that nothing is added to any more does not grow.
    fn close_chunks(&self, log: &mut Log) {
        for &number in &self.open {
            if let Some(chunk) = log.chunk(number)
                && chunk.placed.as_ref().is_some_and(|placed| Some(placed.segment) != self.current)
            {
                chunk.close();
            }
        }
    }

    /// Takes note of chunks that nobody needs any more.
    fn account(&mut self, freed: Vec<(u64, Placed)>) {
        for (chunk, placed) in freed {
            for chunks in [&mut self.unsynced, &mut self.evictable, &mut self.unjournalled] {
                chunks.remove(&chunk);
            }
            self.replaced.remove(&chunk);
            self.leave(placed.segment);
        }
    }

    /// A chunk is not in that segment any more.
    fn leave(&mut self, number: u32) {
        if let Some(segment) = self.segments.get_mut(&number) {
            segment.chunks -= 1;
            if segment.chunks == 0 {
                self.unneeded.insert(number);
            }
        }
    }

    /// Takes note of segments in which nobody ever needed a chunk.
    fn find_unneeded(&mut self) {
        self.unneeded = self.segments.iter().filter(|(_, it)| it.chunks == 0).map(|(&number, _)| number).collect();
    }

    /// The next commit to begin covers this answer.
    pub(super) fn answer_later(&mut self, conn: ConnId, slot: Slot, journal: bool) {
        let commit = self.commits + 1;
        self.replies.push(Reply { commit, journal, told: false, conn, slot });
    }

    /// A publish goes on in another turn; some of it must be written.
    pub(super) fn goes_on(&mut self, conn: ConnId, slot: Slot) {
        if !self.parts.contains(&(conn, slot)) {
            self.parts.push((conn, slot));
        }
    }

    /// A publish comes to its end: whether an earlier part of it must be written.
    pub(super) fn take_part(&mut self, conn: ConnId, slot: Slot) -> bool {
        self.parts.extract_if(.., |part| *part == (conn, slot)).count() > 0
    }

    /// Takes out who waited for this commit, in the order in which they asked.
    fn answered(&mut self, commit: u64, journal: bool) -> Vec<(ConnId, Slot)> {
        let is_it = |reply: &mut Reply| reply.commit <= commit && (journal || !reply.journal);
        self.replies.extract_if(.., is_it).map(|reply| (reply.conn, reply.slot)).collect()
    }

    /// Takes out who waited for the journal only, which has told of it now.
    fn answered_by_journal(&mut self) -> Vec<(ConnId, Slot)> {
        self.replies.extract_if(.., |reply| reply.told).map(|reply| (reply.conn, reply.slot)).collect()
    }

    /// Takes out everybody who waits: the topic is deleted.
    pub(super) fn answered_all(&mut self) -> Vec<(ConnId, Slot)> {
        self.answered(u64::MAX, true)
    }

    /// Something about the topic or its channels that the journal should hear of at once.
    pub(super) const fn news(&mut self) {
        self.journal.urgent = true;
    }

    /// A channel does not exist any more.
    pub(super) fn forget(&mut self, channel: Incarnation, name: ChannelName) {
        self.first_gone = self.first_gone.into_iter().chain([channel]).min();
        self.journal.gone.push((channel, name));
        self.journal.urgent = true;
    }

    /// What was to be given to channels is dropped.
    pub(super) fn drop_pending(&mut self) {
        self.pending = Pending::default();
        if let Some(commit) = &mut self.commit {
            commit.pending = Pending::default();
        }
    }

    fn job(&mut self, lane: Lane, ops: Vec<Op>, out: &mut Effects) -> u64 {
        self.job_after(Duration::ZERO, lane, ops, out)
    }

    /// Several connections have shared a commit: the next one is not to begin at once.
    fn rest(&mut self, out: &mut Effects) {
        self.resting = Some(self.job_after(MOMENT, Lane::Commit, Vec::new(), out));
    }

    fn job_after(&mut self, rest: Duration, lane: Lane, ops: Vec<Op>, out: &mut Effects) -> u64 {
        let id = self.next_job;
        self.next_job += 1;
        out.disk.push(Job { id, lane, rest, ops });
        id
    }

    /// Whether all that was appended is on the medium, as far as it is meant to be, and no job is under way.
    #[cfg(test)]
    pub(super) fn is_settled(&self) -> bool {
        let jobs = self.commit.is_some() || self.resting.is_some() || self.syncing.is_some() || !self.reads.is_empty();
        !jobs && self.unsynced.is_empty() && self.replies.is_empty() && self.parts.is_empty()
    }

    /// Checks what holds between jobs.
    pub(super) fn check(&self, log: &Log) {
        let mut chunks: BTreeMap<u32, u32> = BTreeMap::new();
        let mut regions: BTreeMap<u32, Vec<(u64, u64)>> = BTreeMap::new();
        for chunk in log.chunks() {
            let Some(placed) = &chunk.placed else {
                assert!(chunk.is_resident(), "chunk {} is somewhere", chunk.number);
                continue;
            };
            *chunks.entry(placed.segment).or_default() += 1;
            let end = placed.records_at() + u64::from(placed.room);
            regions.entry(placed.segment).or_default().push((placed.region, end));
            assert!(chunk.end() <= placed.room, "chunk {} fits into its region", chunk.number);
            assert!(chunk.is_resident() || placed.synced == chunk.end(), "what is not resident stays on disk");
            let is_known = placed.synced == chunk.end() || self.open.contains(&chunk.number);
            let is_known = is_known || (placed.written < placed.given && self.commit.is_some());
            assert!(
                is_known || self.unsynced.contains(&chunk.number),
                "chunk {} is not forgotten: {placed:?}",
                chunk.number
            );
            assert!(placed.given == chunk.end() || self.open.contains(&chunk.number), "the rest will be written");
        }
        for (number, mut regions) in regions {
            regions.sort_unstable();
            assert!(regions.is_sorted_by(|one, next| one.1 <= next.0), "regions of segment {number} do not overlap");
        }
        for (number, segment) in &self.segments {
            assert_eq!(segment.chunks, chunks.remove(number).unwrap_or(0), "chunks of segment {number} are counted");
        }
        assert!(chunks.is_empty(), "chunks are in segments that exist");
        let unneeded = self.segments.iter().filter(|(_, segment)| segment.chunks == 0).map(|(number, _)| number);
        assert!(unneeded.eq(&self.unneeded), "segments that nobody needs are known");
        assert!(self.segments.values().is_sorted_by_key(|segment| !segment.sealed), "the last ones are not sealed");
        let evictable = log.chunks().filter(|chunk| chunk.is_evictable()).all(|it| self.evictable.contains(&it.number));
        assert!(evictable, "what can be evicted is known");
        let is_unjournalled = |chunk: &&Chunk| chunk.placed.as_ref().is_some_and(|placed| placed.unjournalled > 0);
        let unjournalled = log.chunks().filter(is_unjournalled).map(|chunk| chunk.number);
        assert!(unjournalled.eq(self.unjournalled.iter().copied()), "what is unjournalled is known");
        assert!(self.replies.iter().all(|reply| reply.commit <= self.commits + 1), "every answer is covered");
    }
}
