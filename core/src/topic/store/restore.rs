//! A topic from what a recovery has put together.

use super::super::channel::Recalled;
use super::super::disk::Disk;
use super::super::log::{Chunk, Cursor, Loc, Log};
use super::super::{Channel, Topic};
use super::{Segment, Store};
use crate::budget::Budget;
use crate::directory::Entry;
use crate::name::ChannelName;
use crate::options::Options;
use crate::storage::journal::{Incarnation, Place, Position, Safe};
use crate::storage::names::FileName;
use crate::storage::recovered::{self, Due, Out, Recovered};
use crate::time::{Duration, Instant, Now};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cmp::Ordering;

impl Topic {
    /// Makes a new topic what its directory tells. Its channels are those of its journal, and those that `nsqd.dat`
    /// lists and the journal has neither heard of nor seen go: they get all that is there. What is paused is what
    /// `nsqd.dat` lists so, for that is where an answer to a pause comes from.
    ///
    /// # Panics
    /// If it was not made for a disk.
    pub fn recover(&mut self, recovered: Recovered, listed: Option<&Entry>, now: Now) {
        let disk = self.disk.expect("it is on a disk");
        self.ids.start_above(recovered.numbers.id);
        self.next_incarnation = recovered.numbers.incarnation.0;
        self.paused = recovered.paused;
        self.has_gaps = recovered.has_gaps();
        self.has_doubles = !recovered.carried.is_empty();
        self.log = Log::found(self.budget.clone(), &recovered);
        self.store = Some(Box::new(Store::found(disk, self.options.clone(), self.log.end(), &recovered)));
        let Recovered { fan, channels, deferred, gone, carried, .. } = recovered;
        self.fan = self.cursor(fan);
        self.backlog = self.log.counts().map(|(_, _, held_back, _)| u64::from(held_back)).sum();
        self.backlog_deferred = deferred.into_iter().map(|(place, due)| (Loc::of(place), instant(due, now))).collect();
        for (incarnation, channel) in channels {
            self.recall(incarnation, channel, &carried, now);
        }
        if let Some(listed) = listed {
            self.take_listed(listed, &gone, &carried);
        }
        self.counters.restored = self.depth();
        self.log.free_all_unneeded();
        if let Some(store) = &mut self.store {
            // The end of the log may have gone.
            store.synced = self.log.end();
            store.account(self.log.take_freed());
            store.find_unneeded();
        }
        if !self.paused && !self.channels.is_empty() {
            self.admit_all();
        }
        // It begins with a tick, which gives out what can be given out and writes the first checkpoint.
        self.wake = Some(now.instant);
    }

    fn cursor(&self, position: Position) -> Cursor {
        let Position { place, passed } = position;
        self.log.cursor_at(place.chunk, place.offset, passed)
    }

    /// A channel that the journal tells of.
    fn recall(&mut self, incarnation: Incarnation, mut it: recovered::Channel, carried: &[Place], now: Now) {
        for place in carried {
            it.out.entry(*place).or_insert(Out { attempts: 1, due: None });
        }
        let ranges: Vec<_> = it.fresh.iter().map(|range| (self.cursor(range.begin), self.cursor(range.end))).collect();
        let mut recalled = Recalled { ranges: Vec::new(), out: Vec::new() };
        for (begin, end) in ranges {
            let count = self.log.between(begin, end);
            if count > 0 {
                self.log.retake(begin, count);
                recalled.ranges.push((begin, end, count));
            }
        }
        for (place, out) in it.out {
            let loc = Loc::of(place);
            self.log.keep(loc);
            recalled.out.push((loc, out.attempts, out.due.map(|due| instant(due, now))));
        }
        self.add(Channel::recalled(it.name, it.paused, incarnation, recalled));
    }

    /// What `nsqd.dat` lists.
    fn take_listed(&mut self, listed: &Entry, gone: &BTreeMap<ChannelName, Incarnation>, carried: &[Place]) {
        self.paused = listed.paused;
        self.start_incarnations_above(listed.largest_incarnation());
        for (name, &channel) in &listed.channels {
            match (gone.get(name), &mut self.store) {
                (Some(&gone), _) if channel.incarnation > Some(gone) => self.create_again(name.clone(), channel.paused),
                // The next start is to know it as well, unless `nsqd.dat` is saved before.
                (Some(&gone), Some(store)) => store.journal.departed.push_back((gone, name.clone())),
                _ => self.list(name.clone(), channel.paused, carried),
            }
        }
    }

    /// A channel that came after the last batch of the journal, which tells of the end of one of that name: nothing is
    /// its own that was given to channels by then.
    fn create_again(&mut self, name: ChannelName, paused: bool) {
        let incarnation = self.new_incarnation();
        self.add(Channel::recalled(name, paused, incarnation, Recalled { ranges: Vec::new(), out: Vec::new() }));
    }

    /// A channel that `nsqd.dat` lists, and which may be known by its name only.
    fn list(&mut self, name: ChannelName, paused: bool, carried: &[Place]) {
        if let Some(&channel) = self.by_name.get(&name) {
            self.channels[channel].paused = paused;
            return;
        }
        let incarnation = self.new_incarnation();
        let mut recalled = Recalled { ranges: Vec::new(), out: Vec::new() };
        let (begin, end) = (self.log.begin(), self.fan);
        let count = self.log.between(begin, end);
        if count > 0 && !name.is_ephemeral() {
            self.log.retake(begin, count);
            recalled.ranges.push((begin, end, count));
        }
        for &place in carried.iter().filter(|_| !name.is_ephemeral()) {
            self.log.keep(Loc::of(place));
            recalled.out.push((Loc::of(place), 1, None));
        }
        self.add(Channel::recalled(name, paused, incarnation, recalled));
    }
}

impl Log {
    /// The chunks that a start has found, all of them on disk.
    fn found(budget: Budget, recovered: &Recovered) -> Self {
        let Recovered { numbers, fan, chunks, deferred, .. } = recovered;
        let mut held_back: BTreeMap<u64, u32> = BTreeMap::new();
        for (place, _) in deferred {
            *held_back.entry(place.chunk).or_default() += 1;
        }
        let mut log = Self::starting_at(budget, numbers.chunk, numbers.seq);
        for (&number, (segment, region)) in chunks {
            let passed = match number.cmp(&fan.place.chunk) {
                Ordering::Less => None,
                Ordering::Equal => Some(fan.passed),
                Ordering::Greater => Some(0),
            };
            log.restore(Chunk::on_disk(*segment, region), passed, held_back.remove(&number).unwrap_or(0));
        }
        log
    }
}

impl Store {
    /// The files that a start has found.
    fn found(disk: Disk, options: Arc<Options>, synced: Cursor, recovered: &Recovered) -> Self {
        let mut store = Self::new(disk, options, synced);
        store.segments.extend(recovered.segments.iter().map(|(&number, &found)| (number, Segment::found(found))));
        for &(segment, _) in recovered.chunks.values() {
            store.segments.entry(segment).or_default().chunks += 1;
        }
        store.next_segment = recovered.numbers.segment.max(1);
        store.first_gone = recovered.gone.values().min().copied();
        store.journal.last = recovered.last_journal;
        store.journal.obsolete.extend(recovered.journal.map(FileName::Journal));
        store.journal.obsolete.extend(&recovered.obsolete);
        store
    }
}

impl Segment {
    /// One that a start has found: nothing is added to it.
    fn found(found: recovered::Segment) -> Self {
        let safe = Safe { end: found.end, ..found.safe };
        Self { end: found.length, created: true, sealed: true, safe, ..Self::default() }
    }
}

/// When a deferral ends: never later than its whole delay from now on, whatever the wall clock says.
fn instant(due: Due, now: Now) -> Instant {
    let left = i128::from(due.at) - i128::from(now.timestamp.as_nanos());
    now.instant + Duration::from_nanos(left.clamp(0, due.delay.into()) as u64)
}
