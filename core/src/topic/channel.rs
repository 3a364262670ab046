//! A channel: a copy of its topic's messages that its consumers share.
//!
//! It holds no message, only where messages are in the log: ranges not handed out yet, what waits to be handed out again,
//! what is deferred, what is in flight. A message is in exactly one of these, or done: that is the one rule, and
//! [`Channel::check`] keeps the books. It knows nothing of its topic, so it can get a lock of its own one day.

use super::consumers::Consumers;
use super::flights::{Flight, Flights, NewFlight};
use super::io::{ConnId, Consumer, Effects, Refusal, ToConn};
use super::log::{FRAME_HEADER, Loc, Log, write_frame};
use super::{SMALL, STEP};
use crate::message::MessageId;
use crate::name::ChannelName;
use crate::options::Options;
use crate::random::Random;
use crate::time::{Duration, Instant, Now};
use alloc::collections::{BinaryHeap, VecDeque};
use core::cmp::Reverse;

#[derive(Debug)]
pub(super) struct Channel {
    pub(super) name: ChannelName,
    is_ephemeral: bool,
    pub(super) paused: bool,
    pub(super) consumers: Consumers,
    pub(super) flights: Flights,
    pub(super) counters: Counters,
    /// Messages never handed out, oldest first; normally one range.
    ranges: VecDeque<Range>,
    fresh: u64,
    /// The next message to be admitted does not follow the last one that was.
    gap: bool,
    waiting: VecDeque<Waiting>,
    deferred: BinaryHeap<Reverse<Deferred>>,
    /// Messages handed out so far: the clock that messages put back wait by.
    handed_out: u64,
}

/// `count` messages from `next` on, not counting those that cursors pass over.
#[derive(Clone, Copy, Debug)]
struct Range {
    next: Loc,
    count: u64,
}

/// A message put back: it goes first once so many messages have been handed out.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    loc: Loc,
    attempts: u16,
    turn: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Deferred {
    due: Instant,
    loc: Loc,
    attempts: u16,
}

/// What happened since the start; the first three are upstream's, the others keep the books.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counters {
    pub(super) messages: u64,
    pub(super) requeued: u64,
    pub(super) timed_out: u64,
    pub(super) finished: u64,
    /// Dropped by a consumer's sampling.
    pub(super) sampled: u64,
    /// Dropped by an operator's empty.
    pub(super) emptied: u64,
    /// Not admitted, for the channel is ephemeral and was full.
    pub(super) skipped: u64,
}

/// What a channel works with during one call.
pub(super) struct Turn<'a> {
    pub(super) now: Now,
    pub(super) log: &'a mut Log,
    pub(super) out: &'a mut Effects,
    pub(super) random: &'a mut Random,
    pub(super) options: &'a Options,
    /// When the topic wants to be called next, at the latest.
    pub(super) wake: &'a mut Option<Instant>,
    /// Frames that may still be written before others get the lock, bytes; below zero it is over.
    pub(super) budget: &'a mut isize,
}

impl Turn<'_> {
    pub(super) fn wake_at(&mut self, at: Instant) {
        *self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }
}

/// How many messages a message put back waits for at most.
const BEHIND: u64 = 10_000;

impl Channel {
    pub(super) fn new(name: ChannelName) -> Self {
        Self {
            is_ephemeral: name.is_ephemeral(),
            name,
            paused: false,
            consumers: Consumers::default(),
            flights: Flights::default(),
            counters: Counters::default(),
            ranges: VecDeque::new(),
            fresh: 0,
            gap: false,
            waiting: VecDeque::new(),
            deferred: BinaryHeap::new(),
            handed_out: 0,
        }
    }

    /// Messages that could be handed out: never handed out, or waiting to be again.
    pub(super) fn depth(&self) -> u64 {
        self.fresh + self.waiting.len() as u64
    }

    /// Messages that are not done.
    pub(super) fn held(&self) -> usize {
        self.depth() as usize + self.deferred.len() + self.flights.len()
    }

    pub(super) fn deferred(&self) -> usize {
        self.deferred.len()
    }

    /// Takes the `count` plain messages from `fan` on; an ephemeral channel only as many as it has room for.
    pub(super) fn admit(&mut self, fan: Loc, count: u64, log: &mut Log, mem_queue_size: u64) {
        self.counters.messages += count;
        let mut limit = count;
        if self.is_ephemeral && mem_queue_size.saturating_sub(self.depth()) < count {
            let credit = if self.paused { 0 } else { self.consumers.credit() };
            limit = limit.min(credit.saturating_add(mem_queue_size).saturating_sub(self.depth()));
        }
        let admitted = if limit == 0 { 0 } else { log.admit(fan, limit) };
        match self.ranges.back_mut() {
            Some(range) if !self.gap => range.count += admitted,
            _ if admitted > 0 => {
                self.ranges.push_back(Range { next: fan, count: admitted });
                self.gap = false;
            }
            _ => {}
        }
        self.fresh += admitted;
        self.counters.skipped += count - admitted;
        self.gap |= admitted < count;
    }

    /// Messages are left out between the last one admitted and the next.
    pub(super) const fn skip(&mut self) {
        self.gap = true;
    }

    /// Takes a deferred message.
    pub(super) fn admit_deferred(&mut self, loc: Loc, due: Instant, log: &mut Log) {
        self.counters.messages += 1;
        log.keep(loc);
        self.deferred.push(Reverse(Deferred { due, loc, attempts: 0 }));
    }

    /// Hands out messages while there is a consumer with credit.
    pub(super) fn dispatch(&mut self, turn: &mut Turn<'_>) {
        while !self.paused && self.depth() > 0 {
            let Some(consumer) = self.consumers.next_ready() else { return };
            if *turn.budget < 0 {
                self.consumers.not_yet(consumer);
                return turn.wake_at(turn.now.instant);
            }
            let (loc, attempts) = self.take(turn.log);
            let rate = u64::from(self.consumers.get(consumer).settings.sample_rate);
            if rate > 0 && turn.random.below(100) >= rate {
                turn.log.done(loc);
                self.counters.sampled += 1;
                *turn.budget -= STEP;
            } else {
                self.hand_out(consumer, loc, attempts, turn);
            }
            self.consumers.offer(consumer);
        }
    }

    /// FIN.
    #[inline]
    pub(super) fn finish(&mut self, consumer: u32, id: MessageId, log: &mut Log) -> Result<(), Refusal> {
        let flight = self.land(consumer, id)?;
        log.done(flight.loc);
        self.counters.finished += 1;
        self.consumers.get_mut(consumer).finished += 1;
        Ok(())
    }

    /// REQ.
    pub(super) fn requeue(
        &mut self,
        consumer: u32,
        id: MessageId,
        delay: Duration,
        turn: &mut Turn<'_>,
    ) -> Result<(), Refusal> {
        let flight = self.land(consumer, id)?;
        self.counters.requeued += 1;
        self.consumers.get_mut(consumer).requeued += 1;
        if delay.is_zero() {
            self.put_back(flight.loc, flight.attempts);
        } else {
            self.defer(flight.loc, flight.attempts, turn.now.instant + delay, turn);
        }
        Ok(())
    }

    /// TOUCH: a whole timeout from now on, up to `--max-msg-timeout` after the delivery.
    pub(super) fn touch(&mut self, consumer: u32, id: MessageId, turn: &mut Turn<'_>) -> Result<(), Refusal> {
        let (key, flight) = self.flights.find(id).ok_or(Refusal::NotInFlight)?;
        if flight.consumer != consumer {
            return Err(Refusal::NotOwner);
        }
        let limit = flight.delivered + turn.options.max_msg_timeout;
        let consumer = self.consumers.get_mut(consumer);
        let deadline = (turn.now.instant + consumer.settings.msg_timeout).min(limit);
        self.flights.touch(&mut consumer.flights, key, deadline);
        turn.wake_at(deadline);
        Ok(())
    }

    /// Puts back what is due: messages that timed out, deferred messages.
    pub(super) fn expire(&mut self, turn: &mut Turn<'_>) {
        let now = turn.now.instant;
        for consumer in self.consumers.keys() {
            while let Some((key, flight)) = self.consumers.find(consumer).and_then(|it| self.flights.first(&it.flights))
            {
                if flight.deadline > now || *turn.budget < 0 {
                    turn.wake_at(flight.deadline);
                    break;
                }
                *turn.budget -= STEP;
                let flight = self.take_flight(key);
                self.counters.timed_out += 1;
                self.put_back(flight.loc, flight.attempts);
            }
        }
        while let Some(Reverse(first)) = self.deferred.peek().copied() {
            if first.due > now || *turn.budget < 0 {
                turn.wake_at(first.due);
                break;
            }
            *turn.budget -= STEP;
            self.deferred.pop();
            self.put_back(first.loc, first.attempts);
        }
        self.shrink();
    }

    /// Gives memory back that a burst has left unused; timers see to it that this is called some time after one.
    fn shrink(&mut self) {
        self.flights.shrink();
        self.consumers.shrink();
        if self.depth() == 0 {
            self.waiting.shrink_to(SMALL);
            self.ranges.shrink_to(SMALL);
        }
        if self.deferred.is_empty() {
            self.deferred.shrink_to(SMALL);
        }
    }

    /// Drops everything: waiting, deferred and in flight.
    pub(super) fn empty(&mut self, log: &mut Log) {
        self.counters.emptied += self.held() as u64;
        for mut range in core::mem::take(&mut self.ranges) {
            for _ in 0..range.count {
                let loc = log.advance(&mut range.next);
                log.done(loc);
            }
        }
        self.fresh = 0;
        let waiting = core::mem::take(&mut self.waiting).into_iter().map(|waiting| waiting.loc);
        let deferred = core::mem::take(&mut self.deferred).into_iter().map(|Reverse(deferred)| deferred.loc);
        let flights = self.flights.drain().map(|flight| flight.loc);
        waiting.chain(deferred).chain(flights).for_each(|loc| log.done(loc));
        self.consumers.emptied();
    }

    /// Tells all consumers to hang up.
    pub(super) fn disconnect(&self, out: &mut Effects) {
        for conn in self.consumers.conns() {
            out.tell(conn, ToConn::Disconnect);
        }
    }

    /// A consumer joins, without credit.
    pub(super) fn join(&mut self, conn: ConnId, settings: Consumer) -> u32 {
        self.consumers.join(conn, settings)
    }

    /// The oldest position that a cursor of this channel still has to visit.
    pub(super) fn cursor(&self) -> Option<Loc> {
        self.ranges.front().map(|range| range.next)
    }

    /// Where everything is that was handed out or deferred, to be changed when records move.
    pub(super) fn relocate(&mut self, mut moved: impl FnMut(&mut Loc)) {
        self.flights.locs().for_each(&mut moved);
        self.waiting.iter_mut().for_each(|waiting| moved(&mut waiting.loc));
        let mut deferred = core::mem::take(&mut self.deferred).into_vec();
        deferred.iter_mut().for_each(|Reverse(deferred)| moved(&mut deferred.loc));
        self.deferred = deferred.into();
    }

    /// When the first timer is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let deferred = self.deferred.peek().map(|Reverse(first)| first.due);
        self.flights.iter().map(|flight| flight.deadline).chain(deferred).min()
    }

    /// Every record that the channel needs.
    pub(super) fn needed(&self, log: &Log, mut each: impl FnMut(Loc)) {
        for mut range in self.ranges.iter().copied() {
            (0..range.count).for_each(|_| each(log.advance(&mut range.next)));
        }
        self.waiting.iter().for_each(|waiting| each(waiting.loc));
        self.deferred.iter().for_each(|Reverse(deferred)| each(deferred.loc));
        self.flights.iter().for_each(|flight| each(flight.loc));
    }

    /// Checks all invariants.
    pub(super) fn check(&self) {
        assert!(self.ranges.iter().all(|range| range.count > 0), "no empty range");
        let fresh: u64 = self.ranges.iter().map(|range| range.count).sum();
        assert_eq!(fresh, self.fresh, "fresh messages are counted");
        assert!(self.waiting.iter().is_sorted_by_key(|waiting| waiting.turn), "what waits keeps its order");
        let Counters { messages, finished, sampled, emptied, skipped, .. } = self.counters;
        assert_eq!(
            messages,
            self.held() as u64 + finished + sampled + emptied + skipped,
            "the books of {} balance",
            self.name
        );
        self.consumers.check(&self.flights);
        let idle = self.paused || self.depth() == 0;
        assert!(idle || self.consumers.none_ready_is_forgotten(), "a consumer with credit is remembered");
    }

    #[cfg(test)]
    pub(super) fn add_to(&self, footprint: &mut super::check::Footprint) {
        footprint.flights += self.flights.capacity();
        footprint.waiting += self.waiting.capacity();
        footprint.deferred += self.deferred.capacity();
        footprint.ranges += self.ranges.capacity();
        footprint.consumers += self.consumers.capacity();
    }

    /// The next message to hand out; there must be one.
    #[inline]
    fn take(&mut self, log: &Log) -> (Loc, u16) {
        let waiting = self.waiting.front().copied();
        let taken = match waiting {
            Some(waiting) if self.fresh == 0 || self.handed_out >= waiting.turn => {
                self.waiting.pop_front();
                (waiting.loc, waiting.attempts)
            }
            _ => (self.take_fresh(log), 0),
        };
        self.handed_out += 1;
        taken
    }

    #[inline]
    fn take_fresh(&mut self, log: &Log) -> Loc {
        let range = self.ranges.front_mut().expect("fresh messages are in a range");
        let loc = log.advance(&mut range.next);
        range.count -= 1;
        if range.count == 0 {
            self.ranges.pop_front();
        }
        self.fresh -= 1;
        loc
    }

    #[inline]
    fn hand_out(&mut self, to: u32, loc: Loc, attempts: u16, turn: &mut Turn<'_>) {
        let payload = turn.log.payload(loc);
        let id = MessageId::of_payload(payload);
        let consumer = self.consumers.get_mut(to);
        let now = turn.now.instant;
        let deadline = now + consumer.settings.msg_timeout;
        let delivery = attempts.saturating_add(1);
        let flight = NewFlight { id, loc, attempts: delivery, consumer: to, deadline, delivered: now };
        if let Err(twin_due) = self.flights.start(&mut consumer.flights, flight) {
            // An imported backlog may hold an id twice; the second one waits for the first.
            *turn.budget -= STEP;
            return self.defer(loc, attempts, twin_due, turn);
        }
        let size = FRAME_HEADER + payload.len();
        consumer.handed(size);
        write_frame(payload, delivery, &mut turn.out.to(consumer.conn, &mut consumer.group).frames);
        *turn.budget -= size as isize;
        turn.wake_at(deadline);
    }

    /// Behind as many messages as are fresh, but not behind an endless backlog: neither starves the other.
    fn put_back(&mut self, loc: Loc, attempts: u16) {
        let turn = self.handed_out + self.fresh.min(BEHIND);
        self.waiting.push_back(Waiting { loc, attempts, turn });
    }

    fn defer(&mut self, loc: Loc, attempts: u16, due: Instant, turn: &mut Turn<'_>) {
        self.deferred.push(Reverse(Deferred { due, loc, attempts }));
        turn.wake_at(due);
    }

    /// Takes a message back from the consumer that must be holding it.
    #[inline]
    fn land(&mut self, consumer: u32, id: MessageId) -> Result<Flight, Refusal> {
        let (key, flight) = self.flights.find(id).ok_or(Refusal::NotInFlight)?;
        if flight.consumer != consumer {
            return Err(Refusal::NotOwner);
        }
        Ok(self.take_flight(key))
    }

    #[inline]
    fn take_flight(&mut self, key: u32) -> Flight {
        let owner = self.flights.owner(key);
        let flight = self.flights.end(&mut self.consumers.get_mut(owner).flights, key);
        self.consumers.landed(owner);
        flight
    }
}
