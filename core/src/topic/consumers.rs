//! The consumers of a channel: their credit, who is ready, and whose turn it is.
//!
//! A consumer is *ready* when it is there, holds fewer messages than its RDY and its outbox has room. Whoever may have
//! become ready is offered and waits in a queue, so that handing out a message never searches, and takes turns.
//! One whose socket has gone stays until its last flight has ended.

use super::flights::{FlightList, Flights};
use super::io::{ConnId, Consumer};
use super::{SMALL, make_room};
use crate::time::Duration;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use slab::Slab;

/// The state of one consumer.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) conn: ConnId,
    pub(super) settings: Consumer,
    pub(super) flights: FlightList,
    /// Where its frames were gathered the last time.
    pub(super) group: usize,
    pub(super) rdy: u32,
    pub(super) in_flight: u32,
    pub(super) delivered: u64,
    pub(super) finished: u64,
    pub(super) requeued: u64,
    pub(super) closing: bool,
    gone: bool,
    queued: bool,
    /// Bytes of frames that have not reached its socket.
    outbox: usize,
}

/// All consumers of a channel.
#[derive(Debug, Default)]
pub(super) struct Consumers {
    members: Slab<Member>,
    ready: VecDeque<u32>,
    present: usize,
}

impl Member {
    fn is_ready(&self) -> bool {
        !self.gone && !self.closing && self.in_flight < self.rdy && self.outbox < self.settings.outbox_limit
    }

    /// A frame of that size was put into its outbox.
    #[inline]
    pub(super) fn handed(&mut self, bytes: usize) {
        self.in_flight += 1;
        self.delivered += 1;
        self.outbox += bytes;
    }
}

impl Consumers {
    /// How many there are.
    pub(super) const fn len(&self) -> usize {
        self.present
    }

    pub(super) fn join(&mut self, conn: ConnId, mut settings: Consumer) -> u32 {
        self.present += 1;
        // A message that timed out when it was handed out would be handed out for ever.
        settings.msg_timeout = settings.msg_timeout.max(Duration::from_nanos(1));
        make_room(&mut self.members);
        self.members.insert(Member {
            conn,
            settings,
            flights: FlightList::default(),
            group: 0,
            rdy: 0,
            in_flight: 0,
            delivered: 0,
            finished: 0,
            requeued: 0,
            closing: false,
            gone: false,
            queued: false,
            outbox: 0,
        }) as u32
    }

    /// Its socket has gone; what it holds is left to its timeouts.
    pub(super) fn leave(&mut self, key: u32) {
        self.present -= 1;
        let member = self.get_mut(key);
        member.gone = true;
        if core::mem::take(&mut member.queued) {
            self.ready.retain(|&queued| queued != key);
        }
        self.forget_if_done(key);
    }

    #[inline]
    pub(super) fn get(&self, key: u32) -> &Member {
        &self.members[key as usize]
    }

    /// The consumer, unless it has gone for good.
    pub(super) fn find(&self, key: u32) -> Option<&Member> {
        self.members.get(key as usize)
    }

    #[inline]
    pub(super) fn get_mut(&mut self, key: u32) -> &mut Member {
        &mut self.members[key as usize]
    }

    /// RDY.
    pub(super) fn set_ready(&mut self, key: u32, rdy: u32) {
        self.get_mut(key).rdy = rdy;
        self.offer(key);
    }

    /// CLS.
    pub(super) fn close(&mut self, key: u32) {
        let member = self.get_mut(key);
        (member.rdy, member.closing) = (0, true);
    }

    /// Frames have left its outbox.
    pub(super) fn room(&mut self, key: u32, bytes: usize) {
        let member = self.get_mut(key);
        member.outbox = member.outbox.saturating_sub(bytes);
        self.offer(key);
    }

    /// One of its flights has ended.
    #[inline]
    pub(super) fn landed(&mut self, key: u32) {
        self.get_mut(key).in_flight -= 1;
        if !self.forget_if_done(key) {
            self.offer(key);
        }
    }

    /// Queues the consumer if it is ready.
    #[inline]
    pub(super) fn offer(&mut self, key: u32) {
        let member = &mut self.members[key as usize];
        if !member.queued && member.is_ready() {
            member.queued = true;
            self.ready.push_back(key);
        }
    }

    /// The ready consumer whose turn it is; offer it again afterwards.
    #[inline]
    pub(super) fn next_ready(&mut self) -> Option<u32> {
        while let Some(key) = self.ready.pop_front() {
            let member = &mut self.members[key as usize];
            member.queued = false;
            if member.is_ready() {
                return Some(key);
            }
        }
        None
    }

    /// The consumer that was next is still the next.
    pub(super) fn not_yet(&mut self, key: u32) {
        self.get_mut(key).queued = true;
        self.ready.push_front(key);
    }

    /// Whether one may be ready.
    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// How many messages the ready consumers would take.
    pub(super) fn credit(&self) -> u64 {
        let ready = self.ready.iter().map(|&key| self.get(key)).filter(|member| member.is_ready());
        ready.map(|member| u64::from(member.rdy - member.in_flight)).sum()
    }

    /// The channel was emptied: nobody holds anything.
    pub(super) fn emptied(&mut self) {
        for key in self.keys() {
            let member = self.get_mut(key);
            (member.in_flight, member.flights) = (0, FlightList::default());
            if !self.forget_if_done(key) {
                self.offer(key);
            }
        }
    }

    /// Gives unused memory back.
    pub(super) fn shrink(&mut self) {
        if self.ready.is_empty() {
            self.ready.shrink_to(SMALL);
        }
        if self.members.is_empty() {
            self.members.shrink_to_fit();
        }
    }

    /// All, those that have gone included.
    pub(super) fn keys(&self) -> Vec<u32> {
        self.members.iter().map(|(key, _)| key as u32).collect()
    }

    /// Those that are there.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().map(|(_, member)| member).filter(|member| !member.gone)
    }

    pub(super) fn conns(&self) -> impl Iterator<Item = ConnId> + '_ {
        self.iter().map(|member| member.conn)
    }

    pub(super) fn check(&self, flights: &Flights) {
        assert_eq!(self.iter().count(), self.present, "consumers are counted");
        let mut held = 0;
        for (key, member) in &self.members {
            let listed = flights.check(&member.flights, key as u32);
            assert_eq!(listed, member.in_flight as usize, "each flight is counted for its consumer");
            assert!(!member.gone || listed > 0, "one that has gone stays for its flights only");
            assert_eq!(member.queued, self.ready.contains(&(key as u32)), "queued once, or not at all");
            held += listed;
        }
        assert_eq!(held, flights.len(), "each flight has a consumer");
    }

    pub(super) fn none_ready_is_forgotten(&self) -> bool {
        self.members.iter().all(|(_, member)| !member.is_ready() || member.queued)
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.members.len() + self.ready.capacity()
    }

    fn forget_if_done(&mut self, key: u32) -> bool {
        let member = &self.members[key as usize];
        let done = member.gone && member.in_flight == 0;
        if done {
            self.members.remove(key as usize);
        }
        done
    }
}
