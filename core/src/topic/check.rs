//! A topic looked at as a whole: what it holds, what of that would be lost now, and its invariants, which tests and the
//! simulator check after each step.

use super::disk::Loaded;
use super::log::{Chunk, Loc, Step};
use super::{Counters, Topic};
use crate::name::ChannelName;
use crate::time::Instant;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

impl Topic {
    /// Calls `each` with the payload of every message that is resident: once for those not given to channels yet, with
    /// no name, and once for each channel that needs it.
    pub fn held(&self, mut each: impl FnMut(Option<&ChannelName>, &[u8])) {
        self.each_needed(|name, loc| {
            if let Ok(payload) = self.log.payload(loc) {
                each(name, payload);
            }
        });
    }

    /// The same for every message that would be lost now: if the process ended, or, with `power_off`, if the machine
    /// did. The simulator excuses exactly these when it kills a node.
    pub fn at_risk(&self, power_off: bool, mut each: impl FnMut(Option<&ChannelName>, &[u8])) {
        self.each_needed(|name, loc| {
            if self.is_at_risk(loc, power_off)
                && let Ok(payload) = self.log.payload(loc)
            {
                each(name, payload);
            }
        });
    }

    /// How many messages would be lost now, if the process ended, though they were acknowledged: those that wait for a
    /// commit were not.
    pub fn unsaved(&self) -> usize {
        let mut unsaved = BTreeSet::new();
        self.each_needed(|_, loc| {
            let is_lost = self.is_at_risk(loc, false) && self.log.is_acknowledged(loc);
            unsaved.extend(is_lost.then_some(loc));
        });
        unsaved.len()
    }

    /// Whether stragglers were copied out of segments, and the journal does not say so yet.
    pub fn is_carrying(&self) -> bool {
        self.store.as_ref().is_some_and(|store| store.carry.copies() > 0)
    }

    fn is_at_risk(&self, loc: Loc, power_off: bool) -> bool {
        let is_sheltered = self.store.as_ref().is_some_and(|store| store.carry.shelters(loc));
        !is_sheltered && !self.log.is_safe(loc, power_off)
    }

    /// Every message that is not done.
    fn each_needed(&self, mut each: impl FnMut(Option<&ChannelName>, Loc)) {
        let mut cursor = self.fan;
        let mut left = self.backlog;
        while left > 0 {
            match self.log.advance(&mut cursor) {
                Step::Record(loc) => {
                    each(None, loc);
                    left -= 1;
                }
                Step::Lost(count) => left -= left.min(count.into()),
                // What is not resident is safe, and so is what was written with it.
                Step::Missing(_) => left -= left.min(self.log.pass_chunk(&mut cursor)),
            }
        }
        self.backlog_deferred.iter().for_each(|&(loc, _)| each(None, loc));
        for (_, channel) in &self.channels {
            channel.needed(&self.log, |loc| each(Some(&channel.name), loc));
        }
    }

    /// Checks all invariants.
    ///
    /// # Panics
    /// If one is broken, which is a bug of this crate.
    pub fn check(&self) {
        self.log.check();
        let mut needed: BTreeMap<u64, u32> = BTreeMap::new();
        for (key, channel) in &self.channels {
            assert_eq!(self.by_name.get(&channel.name), Some(&key), "a channel is found by its name");
            channel.check();
            channel.needed_chunks(&self.log, |chunk, count| *needed.entry(chunk).or_default() += count);
            let due = channel.next_due();
            assert!(due.is_none() || self.wake.is_some_and(|wake| Some(wake) <= due), "no timer is forgotten");
        }
        let (mut plain, mut deferred) = (0, 0);
        for (chunk, live, chunk_plain, chunk_deferred) in self.log.counts() {
            let needed = needed.remove(&chunk).unwrap_or(0);
            assert_eq!(live, needed, "chunk {chunk} counts who needs it");
            plain += u64::from(chunk_plain);
            deferred += chunk_deferred as usize;
        }
        assert!(needed.is_empty(), "every record that is needed is there");
        assert_eq!((plain, deferred), (self.backlog, self.backlog_deferred.len()), "the backlog is counted");
        let Counters { messages, restored, fanned_out, emptied, overflowed, .. } = self.counters;
        if !self.gone {
            assert_eq!(
                messages + restored,
                fanned_out + self.depth() + emptied + overflowed,
                "the topic's books balance"
            );
        }
        let mut held_back = 0;
        if let Some(store) = &self.store {
            store.check(&self.log);
            held_back = store.pending.plain + store.pending.deferred as u64;
            assert!(held_back <= self.depth() && (held_back == 0 || store.disk.durable), "{held_back} are held back");
        }
        assert!(self.holds_back() || self.depth() == held_back, "nothing is held back");
        let present: usize = self.channels.iter().map(|(_, channel)| channel.consumers.len()).sum();
        assert_eq!(present, self.members.len(), "each consumer subscribed once");
        for (conn, member) in &self.members {
            let consumer = self.channels[member.channel].consumers.find(member.consumer);
            assert!(consumer.is_some_and(|consumer| consumer.conn == *conn), "a member is a consumer of its channel");
        }
    }
}

/// Places for messages and consumers that a topic holds memory for, used or not.
#[cfg(test)]
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Footprint {
    pub(super) flights: usize,
    pub(super) waiting: usize,
    pub(super) deferred: usize,
    pub(super) ranges: usize,
    pub(super) consumers: usize,
    pub(super) chunks: usize,
    pub(super) backlog: usize,
}

#[cfg(test)]
impl Footprint {
    /// The most that is held for one purpose.
    pub(super) fn largest(&self) -> usize {
        let Self { flights, waiting, deferred, ranges, consumers, chunks, backlog } = *self;
        [flights, waiting, deferred, ranges, consumers, chunks, backlog].into_iter().max().unwrap_or(0)
    }
}

#[cfg(any(test, feature = "fuzz"))]
impl Topic {
    /// How many messages there are to check.
    pub(super) fn burden(&self) -> usize {
        let channels = self.channels.iter().map(|(_, channel)| channel.held());
        self.depth() as usize + channels.sum::<usize>()
    }
}

#[cfg(test)]
impl Topic {
    pub(super) fn footprint(&self) -> Footprint {
        let (chunks, backlog) = (self.log.capacity(), self.backlog_deferred.capacity());
        let mut footprint = Footprint { chunks, backlog, ..Footprint::default() };
        self.channels.iter().for_each(|(_, channel)| channel.add_to(&mut footprint));
        footprint
    }

    /// Whether everything is on the medium that is meant to be, and nobody is at work on it.
    pub(super) fn is_settled(&self) -> bool {
        self.store.as_ref().is_none_or(|store| store.is_settled() && !self.wants_flush())
    }

    /// Makes the same ids once more.
    pub(super) fn repeat_ids(&mut self) {
        self.ids = crate::message::IdMaker::new(self.options.node_id);
    }

    /// So many chunks came and went.
    pub(super) const fn skip_chunks(&mut self, count: u64) {
        self.log.skip_numbers(count);
    }
}

/// For a topic that nobody uses: what its files hold.
impl Topic {
    /// Reads all chunks that are not resident.
    pub fn load_all(&mut self, read: impl Fn(u32, u64, usize, u64) -> Loaded) {
        let missing = self.log.chunks().filter(|chunk| !chunk.is_resident());
        let missing: Vec<_> = missing.filter_map(Chunk::region).collect();
        for region in missing {
            let segment = self.log.chunk(region.chunk).and_then(|chunk| chunk.segment()).expect("it is on disk");
            let loaded = read(segment, region.records_at(), region.used as usize, region.first_seq);
            self.log.load(region.chunk, loaded.bytes, loaded.damage);
        }
    }

    /// Everything that is not done and can be read, with how often it was handed out and until when it is deferred:
    /// what is not given to channels yet without a name.
    pub fn outstanding(&self, mut each: impl FnMut(Option<&ChannelName>, &[u8], u16, Option<Instant>)) {
        let mut give = |name: Option<&ChannelName>, loc, attempts, due| {
            if let Ok(payload) = self.log.payload(loc) {
                each(name, payload, attempts, due);
            }
        };
        let mut cursor = self.fan;
        let mut left = self.backlog;
        while left > 0 {
            match self.log.advance(&mut cursor) {
                Step::Record(loc) => {
                    give(None, loc, 0, None);
                    left -= 1;
                }
                Step::Lost(count) => left -= left.min(count.into()),
                Step::Missing(_) => left -= left.min(self.log.pass_chunk(&mut cursor)),
            }
        }
        self.backlog_deferred.iter().for_each(|&(loc, due)| give(None, loc, 0, Some(due)));
        for (_, channel) in &self.channels {
            channel.each_fresh(&self.log, |loc| give(Some(&channel.name), loc, 0, None));
            channel.each_out(|loc, attempts, due| give(Some(&channel.name), loc, attempts, due));
        }
    }
}
