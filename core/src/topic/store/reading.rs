//! Reading back: which chunks are fetched, and which give their memory back.

use super::super::disk::{Failed, Lane, Loaded, Op};
use super::super::io::Notice;
use super::super::log::{Chunk, Log, Placed};
use super::super::{Context, Topic};
use super::Store;
use super::trouble::RETRY;
use crate::storage::names::FileName;
use crate::storage::recovered::Trouble;
use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

/// A chunk that could not be read as a whole, and is read a page at a time, those that cannot be again every second.
#[derive(Debug)]
pub(super) struct Salvage {
    bytes: Vec<u8>,
    /// To be read now, and in the next round.
    pages: VecDeque<Range<usize>>,
    failed: VecDeque<Range<usize>>,
    why: Option<Failed>,
    has_read: bool,
}

/// So many bytes a topic keeps resident of what is on the medium too: consumers that are not far behind read no file,
/// and a long queue costs no memory.
const SHARE: usize = 8 * 1024 * 1024;
/// What a disk reads as a whole or not at all.
const PAGE: u64 = 4096;
/// After so many failures in a row, a second apart, a chunk is read page by page.
const SALVAGE: u32 = 3;
/// After so many what cannot be read is lost: if something else in the chunk can be, and if nothing can, which may be
/// a disk that is away for a while.
const LOST: u32 = 10;
const ALL_LOST: u32 = 30;

impl Salvage {
    fn new(at: u64, length: usize) -> Self {
        let (mut pages, mut from) = (VecDeque::new(), 0);
        while from < length {
            let to = length.min(from + (PAGE - (at + from as u64) % PAGE) as usize);
            pages.push_back(from..to);
            from = to;
        }
        Self { bytes: vec![0; length], pages, failed: VecDeque::new(), why: None, has_read: false }
    }

    /// Takes the first page, or why it cannot be read.
    fn take(&mut self, page: Result<Option<Loaded>, Failed>) {
        let Some(place) = self.pages.pop_front() else { return };
        match page {
            Ok(page) => {
                let page = page.map_or(Vec::new(), |page| page.bytes);
                let length = page.len().min(place.len());
                self.bytes[place.start..][..length].copy_from_slice(&page[..length]);
                self.has_read = true;
            }
            Err(failed) => {
                self.failed.push_back(place);
                // One for which the medium is not at fault is remembered, for it makes this round count for nothing.
                if self.why.as_ref().is_none_or(|why| why.is_of_medium) {
                    self.why = Some(failed);
                }
            }
        }
    }

    /// Whether nothing more is to be tried, after so many failures.
    fn is_done(&self, failures: u32) -> bool {
        self.failed.is_empty() || failures >= if self.has_read { LOST } else { ALL_LOST }
    }
}

impl Topic {
    /// Fetches what channels cannot go on without, and what they will come to next.
    pub(super) fn begin_reads(&mut self, cx: &mut Context<'_>) {
        let Some(store) = &mut self.store else { return };
        let is_waiting = store.trouble.read.is_waiting(cx.now.instant);
        if !is_waiting && store.trouble.read.retry.take().is_some() {
            // Whoever could not go on asks once more.
            self.dispatch_all(cx);
        }
        let Some(store) = &mut self.store else { return };
        let mut wanted = self.log.take_wanted();
        wanted.extend(store.carry.batch());
        if self.log.evicted() > 0 {
            let ahead = |cursor| self.log.missing_after(cursor);
            let active = self.channels.iter().filter(|(_, channel)| channel.is_active());
            wanted.extend(active.filter_map(|(_, channel)| channel.cursor().and_then(ahead)));
        }
        for number in wanted {
            let Some(chunk) = self.log.chunk(number).filter(|chunk| !chunk.is_resident()) else { continue };
            let is_wanted = |placed: &Placed| !(placed.loading || is_waiting && placed.failures > 0);
            if chunk.placed.as_deref().is_some_and(is_wanted) {
                store.read(chunk, cx);
            }
        }
        if !is_waiting && store.reads.is_empty() {
            // Nobody wants what could not be read.
            store.trouble.read.reason = None;
            store.salvages.clear();
        }
    }

    /// A chunk was read, or was not.
    pub(super) fn loaded(&mut self, number: u64, result: Result<Option<Loaded>, Failed>, cx: &mut Context<'_>) {
        let Some(store) = &mut self.store else { return };
        let salvage = store.salvages.remove(&number);
        // What nobody needs any more may well be gone.
        let Some(chunk) = self.log.chunk(number) else { return };
        let result = match salvage {
            Some(salvage) => match store.salvage(salvage, chunk, result, cx) {
                Some(result) => result,
                None => return,
            },
            None => result,
        };
        match result {
            Ok(loaded) => {
                let Loaded { bytes, damage } =
                    loaded.unwrap_or_else(|| Loaded { bytes: Vec::new(), damage: Vec::new() });
                store.trouble.read.reason = None;
                chunk.placed.iter_mut().for_each(|placed| placed.failures = 0);
                store.evictable.insert(number);
                for problem in self.log.load(number, bytes, damage) {
                    cx.out.notices.push(Notice::Damaged { topic: self.name.clone(), problem });
                }
                self.dispatch_all(cx);
            }
            Err(failed) => {
                if let Some(placed) = &mut chunk.placed {
                    placed.loading = false;
                    placed.failures = if failed.is_of_medium { placed.failures + 1 } else { placed.failures.max(1) };
                    if store.trouble.read.reason.is_none() {
                        let problem = placed.problem(0, Trouble::Unreadable(failed.reason.clone()));
                        cx.out.notices.push(Notice::Damaged { topic: self.name.clone(), problem });
                    }
                }
                store.trouble.read.reason = Some(failed.reason);
                store.trouble.read.retry.get_or_insert(cx.now.instant + RETRY);
            }
        }
    }

    /// Gives back the memory of chunks that are on the medium, first of those that are the farthest from where somebody
    /// reads: what is more than the topic's share, and more while memory is short.
    pub(super) fn evict(&mut self) {
        let Some(store) = &mut self.store else { return };
        let budget = self.budget.clone();
        let is_enough = |log: &Log| log.bytes() <= SHARE && budget.used() <= budget.limit() / 2;
        if store.evictable.is_empty() || is_enough(&self.log) {
            return;
        }
        let active = self.channels.iter().filter(|(_, channel)| channel.is_active());
        let mut readers: Vec<_> = active.filter_map(|(_, channel)| channel.place(&self.log)).collect();
        readers.sort_unstable();
        let mut chunks = Vec::new();
        for &number in &store.evictable {
            if self.log.chunk(number).is_some_and(|chunk| chunk.is_evictable()) {
                let index = self.log.at_or_after(number);
                let before = readers.partition_point(|&reader| reader <= index);
                let distance = before.checked_sub(1).map_or(usize::MAX, |reader| index - readers[reader]);
                chunks.push((distance, number));
            }
        }
        chunks.sort_unstable();
        // Where somebody reads, and the chunk after that, stay.
        while let Some((2.., number)) = chunks.pop() {
            if is_enough(&self.log) {
                break;
            }
            self.log.evict(number);
            store.evictable.remove(&number);
        }
    }
}

impl Store {
    /// Has a chunk read: as a whole, or if that fails for good, a page at a time.
    fn read(&mut self, chunk: &mut Chunk, cx: &mut Context<'_>) {
        let (number, length, first_seq) = (chunk.number, chunk.end() as usize, chunk.first_seq);
        let Some(placed) = &mut chunk.placed else { return };
        placed.loading = true;
        let (file, at) = (FileName::Segment(placed.segment), placed.records_at());
        let (mut range, mut first_seq) = (0..length, Some(first_seq));
        if placed.failures >= SALVAGE {
            let salvage = self.salvages.entry(number).or_insert_with(|| Salvage::new(at, length));
            (range, first_seq) = (salvage.pages.front().cloned().unwrap_or_default(), None);
        }
        let (offset, length) = (at + range.start as u64, range.len());
        let id = self.job(Lane::Read, [Op::Read { file, offset, length, first_seq }].into(), cx.out);
        self.reads.insert(id, number);
    }

    /// Takes a page of a chunk, and asks for the next one; what came of the chunk, if that was the last.
    fn salvage(
        &mut self,
        mut salvage: Salvage,
        chunk: &mut Chunk,
        page: Result<Option<Loaded>, Failed>,
        cx: &mut Context<'_>,
    ) -> Option<Result<Option<Loaded>, Failed>> {
        salvage.take(page);
        if !salvage.pages.is_empty() {
            self.salvages.insert(chunk.number, salvage);
            self.read(chunk, cx);
            return None;
        }
        let failures = chunk.placed.as_ref().map_or(0, |placed| placed.failures);
        match salvage.why.take().filter(|why| !(why.is_of_medium && salvage.is_done(failures))) {
            Some(failed) => {
                salvage.pages = core::mem::take(&mut salvage.failed);
                self.salvages.insert(chunk.number, salvage);
                Some(Err(failed))
            }
            // What was not read is damage.
            None => Some(Ok(Some(Loaded::new(salvage.bytes, Some(chunk.first_seq), self.disk.crc)))),
        }
    }
}
