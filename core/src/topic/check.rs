//! A topic looked at as a whole: its invariants, and what it holds. Tests and the simulator call this after each step.

use super::{Counters, Topic};
use crate::name::ChannelName;
use alloc::collections::BTreeMap;

impl Topic {
    /// Calls `each` with the payload of every message held in memory: once for those not given to channels yet, with
    /// no name, and once for each channel that needs it. The simulator excuses exactly these when it kills a node.
    pub fn held(&self, mut each: impl FnMut(Option<&ChannelName>, &[u8])) {
        let mut cursor = self.fan;
        (0..self.backlog).for_each(|_| each(None, self.log.payload(self.log.advance(&mut cursor))));
        self.backlog_deferred.iter().for_each(|&(loc, _)| each(None, self.log.payload(loc)));
        for (_, channel) in &self.channels {
            channel.needed(&self.log, |loc| each(Some(&channel.name), self.log.payload(loc)));
        }
    }

    /// Checks all invariants.
    ///
    /// # Panics
    /// If one is broken, which is a bug of this crate.
    pub fn check(&self) {
        self.log.check();
        let mut needed: BTreeMap<u32, u32> = BTreeMap::new();
        for (key, channel) in &self.channels {
            assert_eq!(self.by_name.get(&channel.name), Some(&key), "a channel is found by its name");
            channel.check();
            channel.needed(&self.log, |loc| *needed.entry(loc.chunk).or_default() += 1);
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
        let Counters { messages, fanned_out, emptied, overflowed, .. } = self.counters;
        if !self.gone {
            assert_eq!(messages, fanned_out + self.depth() + emptied + overflowed, "the topic's books balance");
        }
        assert!(self.holds_back() || self.depth() == 0, "nothing is held back");
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

    /// Makes the same ids once more.
    pub(super) fn repeat_ids(&mut self) {
        self.ids = crate::message::IdMaker::new(self.options.node_id);
    }

    /// Replaces the log of a topic that has no messages.
    pub(super) fn start_log(&mut self, log: super::log::Log) {
        self.fan = log.end();
        self.log = log;
    }
}
