//! The invariants of a topic, checked as a whole; tests and the simulator call this after each step.

use super::{Counters, Topic};
use alloc::collections::BTreeMap;

impl Topic {
    /// Checks all invariants.
    ///
    /// # Panics
    /// If one is broken, which is a bug of this crate.
    pub fn check(&self) {
        self.log.check();
        let mut needed: BTreeMap<u32, u32> = BTreeMap::new();
        for (key, channel) in &self.channels {
            assert_eq!(self.by_name.get(&channel.name), Some(&key), "a channel is found by its name");
            channel.check(&self.log, |loc| *needed.entry(loc.chunk).or_default() += 1);
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
        assert!(self.paused || self.channels.is_empty() || self.depth() == 0, "nothing is held back");
        for (conn, member) in &self.members {
            let consumer = self.channels[member.channel].consumers.find(member.consumer);
            assert!(consumer.is_some_and(|consumer| consumer.conn == *conn), "a member is a consumer of its channel");
        }
    }
}
