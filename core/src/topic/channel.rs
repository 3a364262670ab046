//! A channel: a copy of its topic's messages that its consumers share.
//!
//! It holds no message, only where messages are in the log: ranges not handed out yet, what waits to be handed out
//! again, what is deferred, what is in flight. A message is in exactly one of these, or done: that is the one rule, and
//! [`Channel::check`] keeps the books. It knows nothing of its topic, so it can get a lock of its own one day.

use super::consumers::Consumers;
use super::deferred::{Deferred, DeferredQueue};
use super::flights::{Flights, Landed, NewFlight};
use super::io::{ConnId, Consumer, Effects, Refusal, ToConn};
use super::log::{Cursor, FRAME_HEADER, Loc, Log, Step, Unavailable, write_frame};
use super::store::ledger::Ledger;
use super::{SMALL, STEP};
use crate::message::MessageId;
use crate::name::ChannelName;
use crate::options::Options;
use crate::random::Random;
use crate::storage::journal::Incarnation;
use crate::time::{Duration, Instant, Now};
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

#[derive(Debug)]
pub(super) struct Channel {
    pub(super) name: ChannelName,
    pub(super) is_ephemeral: bool,
    pub(super) paused: bool,
    /// Everything is stored, and what happens from now on is not: nothing is handed out any more.
    pub(super) stopped: bool,
    pub(super) incarnation: Incarnation,
    /// What the journal has to be told, if there is one.
    pub(super) ledger: Option<Box<Ledger>>,
    pub(super) consumers: Consumers,
    pub(super) flights: Flights,
    pub(super) counters: Counters,
    /// Messages never handed out, oldest first; normally one range.
    ranges: VecDeque<Range>,
    fresh: u64,
    /// The next message to be admitted does not follow the last one that was.
    gap: bool,
    waiting: VecDeque<Waiting>,
    deferred: DeferredQueue,
    /// Messages handed out so far: the clock that messages put back wait by.
    handed_out: u64,
}

/// `count` messages from `next` on, not counting those that cursors pass over.
#[derive(Clone, Copy, Debug)]
struct Range {
    next: Cursor,
    count: u64,
    /// Behind the last of them, if that is not the fan-out position.
    end: Option<Cursor>,
}

/// What a journal tells of a channel.
pub(super) struct Recalled {
    /// From where to where it has handed out nothing, and how many messages that are.
    pub(super) ranges: Vec<(Cursor, Cursor, u64)>,
    /// What it had handed out, how often, and until when it is deferred.
    pub(super) out: Vec<(Loc, u16, Option<Instant>)>,
}

/// A message put back: it goes first once so many messages have been handed out.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    loc: Loc,
    attempts: u16,
    turn: u64,
}

/// What happened since the start; the first three are upstream's, the others keep the books.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counters {
    pub(super) messages: u64,
    /// Those that were there at the start.
    restored: u64,
    pub(super) requeued: u64,
    pub(super) timed_out: u64,
    pub(super) finished: u64,
    /// Dropped by a consumer's sampling.
    pub(super) sampled: u64,
    /// Dropped by an operator's empty.
    pub(super) emptied: u64,
    /// Not admitted, for the channel is ephemeral and was full.
    pub(super) skipped: u64,
    /// Damaged on disk.
    pub(super) lost: u64,
}

/// What becomes of a message when stragglers are carried forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carried {
    /// Nothing.
    Stays,
    /// There is a copy.
    To(Loc),
    /// It cannot be read any more.
    Lost,
}

/// What is to be handed out next.
struct Taken {
    loc: Loc,
    attempts: u16,
    /// Nobody has heard of it.
    fresh: bool,
}

/// Why nothing is taken.
enum Untaken {
    /// What was next is lost, and was counted: there may be something behind it.
    Lost,
    /// Its bytes have to be fetched first.
    Missing,
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
    pub(super) fn new(name: ChannelName, incarnation: Incarnation) -> Self {
        Self {
            incarnation,
            ledger: None,
            is_ephemeral: name.is_ephemeral(),
            name,
            paused: false,
            stopped: false,
            consumers: Consumers::default(),
            flights: Flights::default(),
            counters: Counters::default(),
            ranges: VecDeque::new(),
            fresh: 0,
            gap: false,
            waiting: VecDeque::new(),
            deferred: DeferredQueue::default(),
            handed_out: 0,
        }
    }

    /// A channel that is there at the start.
    pub(super) fn recalled(name: ChannelName, paused: bool, incarnation: Incarnation, recalled: Recalled) -> Self {
        let mut channel = Self::new(name, incarnation);
        let Recalled { ranges, out } = recalled;
        (channel.paused, channel.gap) = (paused, true);
        channel.fresh = ranges.iter().map(|(_, _, count)| count).sum();
        channel.ranges = ranges.into_iter().map(|(next, end, count)| Range { next, count, end: Some(end) }).collect();
        for (loc, attempts, due) in out {
            match due {
                Some(due) => channel.deferred.push(Deferred { due, loc, attempts }),
                None => channel.put_back(loc, attempts),
            }
        }
        channel.counters.restored = channel.held() as u64;
        channel.open_ledger();
        channel
    }

    /// What was handed out or deferred and is not done, how often, and until when it is deferred.
    pub(super) fn each_out(&self, mut each: impl FnMut(Loc, u16, Option<Instant>)) {
        self.flights.iter().for_each(|flight| each(flight.loc, flight.attempts, None));
        self.each_at_rest(each);
    }

    /// Those of them that no consumer has.
    pub(super) fn each_at_rest(&self, mut each: impl FnMut(Loc, u16, Option<Instant>)) {
        self.waiting.iter().for_each(|waiting| each(waiting.loc, waiting.attempts, None));
        self.deferred.iter().for_each(|deferred| each(deferred.loc, deferred.attempts, Some(deferred.due)));
    }

    /// From where to where nothing was handed out, up to the fan-out position.
    pub(super) fn fresh_ranges(&self, fan: Cursor) -> impl Iterator<Item = (Cursor, Cursor)> + '_ {
        self.ranges.iter().map(move |range| (range.next, range.end.unwrap_or(fan)))
    }

    /// Whether somebody reads: a consumer has credit, or will when what it holds is done.
    pub(super) fn is_active(&self) -> bool {
        !self.paused && self.depth() > 0 && (self.consumers.has_ready() || self.flights.len() > 0)
    }

    /// The index of the chunk that is read next.
    pub(super) fn place(&self, log: &Log) -> Option<usize> {
        let fresh = self.cursor().map(|cursor| cursor.chunk);
        fresh.or_else(|| self.waiting.front().map(|waiting| waiting.loc.chunk())).map(|chunk| log.at_or_after(chunk))
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

    /// Takes the `count` plain messages from `fan` on; an ephemeral channel only as many as it has room for. Whether it
    /// has taken all, which the log is to be told for all channels at once.
    pub(super) fn admit(&mut self, fan: Cursor, count: u64, log: &mut Log, mem_queue_size: u64) -> bool {
        self.counters.messages += count;
        let mut admitted = count;
        if self.is_ephemeral && mem_queue_size.saturating_sub(self.depth()) < count {
            let credit = if self.paused { 0 } else { self.consumers.credit() };
            admitted = count.min(credit.saturating_add(mem_queue_size).saturating_sub(self.depth()));
        }
        if admitted > 0 && admitted < count {
            log.admit(fan, admitted, 1);
        }
        match self.ranges.back_mut() {
            Some(range) if !self.gap => range.count += admitted,
            _ if admitted > 0 => {
                self.ranges.push_back(Range { next: fan, count: admitted, end: None });
                self.gap = false;
            }
            _ => {}
        }
        self.fresh += admitted;
        if let Some(ledger) = &mut self.ledger {
            ledger.moved = true;
        }
        self.counters.skipped += count - admitted;
        self.gap |= admitted < count;
        admitted == count
    }

    /// Messages are left out between the last one admitted, which was the last before `fan`, and the next.
    pub(super) fn skip(&mut self, fan: Cursor) {
        if let Some(range) = self.ranges.back_mut().filter(|_| !self.gap) {
            range.end = Some(fan);
        }
        self.gap = true;
    }

    /// Takes a deferred message.
    pub(super) fn admit_deferred(&mut self, loc: Loc, due: Instant, log: &mut Log) {
        self.counters.messages += 1;
        log.keep(loc);
        if let Some(ledger) = &mut self.ledger {
            ledger.out(loc, 0, Some(due), true, log);
        }
        self.deferred.push(Deferred { due, loc, attempts: 0 });
    }

    /// Hands out messages while there is a consumer with credit.
    pub(super) fn dispatch(&mut self, turn: &mut Turn<'_>) {
        while !self.paused && !self.stopped && self.depth() > 0 {
            let Some(consumer) = self.consumers.next_ready() else { return };
            if *turn.budget < 0 {
                self.consumers.not_yet(consumer);
                return turn.wake_at(turn.now.instant);
            }
            let Taken { loc, attempts, fresh } = match self.take(turn.log) {
                Ok(taken) => taken,
                Err(untaken) => {
                    self.consumers.not_yet(consumer);
                    *turn.budget -= STEP;
                    match untaken {
                        Untaken::Lost => continue,
                        Untaken::Missing => return,
                    }
                }
            };
            let rate = u64::from(self.consumers.get(consumer).settings.sample_rate);
            if rate > 0 && turn.random.below(100) >= rate {
                self.done(loc, fresh, turn.log);
                self.counters.sampled += 1;
                *turn.budget -= STEP;
            } else {
                self.hand_out(consumer, loc, attempts, fresh, turn);
            }
            self.consumers.offer(consumer);
        }
    }

    /// FIN.
    #[inline]
    pub(super) fn finish(&mut self, consumer: u32, id: MessageId, log: &mut Log) -> Result<(), Refusal> {
        let flight = self.land(consumer, id)?;
        if let Some(ledger) = &mut self.ledger {
            ledger.arrives(flight.loc, flight.journalled, log);
        }
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
        let due = (!delay.is_zero()).then(|| turn.now.instant + delay);
        if let Some(ledger) = &mut self.ledger {
            ledger.lands(flight, due, turn.log);
        }
        match due {
            Some(due) => self.defer(flight.loc, flight.attempts, due, turn),
            None => self.put_back(flight.loc, flight.attempts),
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
            while let Some(flight) = self.consumers.find(consumer).and_then(|it| self.flights.first(&it.flights)) {
                if flight.deadline > now || *turn.budget < 0 {
                    turn.wake_at(flight.deadline);
                    break;
                }
                let Ok(flight) = self.land(consumer, flight.id) else { break };
                *turn.budget -= STEP;
                if let Some(ledger) = &mut self.ledger {
                    ledger.lands(flight, None, turn.log);
                }
                self.counters.timed_out += 1;
                self.put_back(flight.loc, flight.attempts);
            }
        }
        while let Some(Deferred { due, loc, attempts }) = self.deferred.first() {
            if due > now || *turn.budget < 0 {
                turn.wake_at(due);
                break;
            }
            *turn.budget -= STEP;
            self.deferred.pop();
            self.put_back(loc, attempts);
        }
        self.shrink();
    }

    /// Gives memory back that a burst has left unused; timers see to it that this is called some time after one.
    fn shrink(&mut self) {
        self.flights.shrink();
        self.consumers.shrink();
        self.deferred.shrink();
        if self.depth() == 0 {
            self.waiting.shrink_to(SMALL);
            self.ranges.shrink_to(SMALL);
        }
    }

    /// Drops everything: waiting, deferred and in flight.
    pub(super) fn empty(&mut self, log: &mut Log) {
        self.counters.emptied += self.held() as u64;
        if let Some(ledger) = &mut self.ledger {
            ledger.empty();
        }
        core::mem::take(&mut self.ranges).into_iter().for_each(|range| log.skip(range.next, range.count));
        self.fresh = 0;
        let waiting = core::mem::take(&mut self.waiting).into_iter().map(|waiting| waiting.loc);
        let deferred = self.deferred.drain().map(|deferred| deferred.loc);
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
    pub(super) fn cursor(&self) -> Option<Cursor> {
        self.ranges.front().map(|range| range.next)
    }

    /// Moves everything that was handed out or deferred to where `carry` says that there is a copy, which this channel
    /// needs then instead of the old one. What is lost ends, unless a consumer has it.
    pub(super) fn relocate(&mut self, log: &mut Log, mut carry: impl FnMut(&mut Log, Loc) -> Carried) {
        let Self { ledger, counters, .. } = self;
        for flight in self.flights.iter_mut() {
            let Carried::To(new) = carry(log, flight.loc) else { continue };
            log.keep(new);
            if let Some(ledger) = ledger {
                ledger.arrives(flight.loc, flight.journalled, log);
                flight.journalled = ledger.takes_off(new, true);
            }
            log.done(flight.loc);
            flight.loc = new;
        }
        let mut relocate = |loc: &mut Loc, attempts: u16, due: Option<Instant>| {
            let carried = carry(log, *loc);
            if carried == Carried::Stays {
                return true;
            }
            if let Some(ledger) = ledger {
                ledger.done(*loc, false, log);
            }
            if let Carried::To(new) = carried {
                log.keep(new);
                if let Some(ledger) = ledger {
                    ledger.out(new, attempts, due, true, log);
                }
                log.done(*loc);
                *loc = new;
                return true;
            }
            log.done(*loc);
            counters.lost += 1;
            false
        };
        self.waiting.retain_mut(|waiting| relocate(&mut waiting.loc, waiting.attempts, None));
        self.deferred.retain(|deferred| {
            // A field of it cannot be borrowed.
            let Deferred { due, mut loc, attempts } = *deferred;
            let stays = relocate(&mut loc, attempts, Some(due));
            deferred.loc = loc;
            stays
        });
    }

    /// When the first timer is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let deferred = self.deferred.first().map(|first| first.due);
        self.flights.iter().map(|flight| flight.deadline).chain(deferred).min()
    }

    /// How many records the channel needs, by the numbers of their chunks.
    pub(super) fn needed_chunks(&self, log: &Log, mut each: impl FnMut(u64, u32)) {
        self.ranges
            .iter()
            .flat_map(|range| log.numbers(range.next, range.count))
            .for_each(|(chunk, count)| each(chunk, count));
        self.each_out(|loc, _, _| each(loc.chunk(), 1));
    }

    /// Every record that the channel needs.
    pub(super) fn needed(&self, log: &Log, mut each: impl FnMut(Loc)) {
        self.each_fresh(log, &mut each);
        self.each_out(|loc, _, _| each(loc));
    }

    /// Every record that it has not handed out and that can be read.
    pub(super) fn each_fresh(&self, log: &Log, mut each: impl FnMut(Loc)) {
        for mut range in self.ranges.iter().copied() {
            let mut left = range.count;
            while left > 0 {
                match log.advance(&mut range.next) {
                    Step::Record(loc) => {
                        each(loc);
                        left -= 1;
                    }
                    Step::Lost(count) => left -= left.min(count.into()),
                    Step::Missing(_) => left -= left.min(log.pass_chunk(&mut range.next)),
                }
            }
        }
    }

    /// Checks all invariants.
    pub(super) fn check(&self) {
        assert!(self.ranges.iter().all(|range| range.count > 0), "no empty range");
        let fresh: u64 = self.ranges.iter().map(|range| range.count).sum();
        assert_eq!(fresh, self.fresh, "fresh messages are counted");
        assert!(self.waiting.iter().is_sorted_by_key(|waiting| waiting.turn), "what waits keeps its order");
        let Counters { messages, restored, finished, sampled, emptied, skipped, lost, .. } = self.counters;
        assert_eq!(
            messages + restored,
            self.held() as u64 + finished + sampled + emptied + skipped + lost,
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
    fn take(&mut self, log: &mut Log) -> Result<Taken, Untaken> {
        let waiting = self.waiting.front().copied();
        let taken = match waiting {
            Some(waiting) if self.fresh == 0 || self.handed_out >= waiting.turn => self.take_waiting(waiting, log)?,
            _ => self.take_fresh(log)?,
        };
        self.handed_out += 1;
        Ok(taken)
    }

    #[inline(never)]
    fn take_waiting(&mut self, waiting: Waiting, log: &mut Log) -> Result<Taken, Untaken> {
        let Waiting { loc, attempts, .. } = waiting;
        match log.payload(loc) {
            Ok(_) => {
                self.waiting.pop_front();
                Ok(Taken { loc, attempts, fresh: false })
            }
            Err(Unavailable::Missing(chunk)) => {
                log.want(chunk);
                Err(Untaken::Missing)
            }
            Err(Unavailable::Lost) => {
                self.waiting.pop_front();
                self.counters.lost += 1;
                self.done(loc, false, log);
                Err(Untaken::Lost)
            }
        }
    }

    #[inline]
    fn take_fresh(&mut self, log: &mut Log) -> Result<Taken, Untaken> {
        let range = self.ranges.front_mut().expect("fresh messages are in a range");
        match log.advance(&mut range.next) {
            Step::Record(loc) => {
                self.pass(1);
                Ok(Taken { loc, attempts: 0, fresh: true })
            }
            Step::Missing(chunk) => {
                log.want(chunk);
                Err(Untaken::Missing)
            }
            Step::Lost(count) => Err(self.take_lost(count, log)),
        }
    }

    /// So many plain records, which the first range's cursor has just passed, cannot be read any more.
    #[cold]
    fn take_lost(&mut self, count: u32, log: &mut Log) -> Untaken {
        let Some(range) = self.ranges.front() else { return Untaken::Lost };
        let before = Cursor { passed: range.next.passed - count, ..range.next };
        let count = range.count.min(count.into());
        log.skip(before, count);
        self.counters.lost += count;
        // What waits would otherwise wait for them.
        self.handed_out += count;
        self.pass(count);
        if let Some(ledger) = &mut self.ledger {
            ledger.moved = true;
        }
        Untaken::Lost
    }

    /// So many messages, all of the first range, are not fresh any more.
    #[inline]
    fn pass(&mut self, count: u64) {
        let range = self.ranges.front_mut().expect("fresh messages are in a range");
        range.count -= count;
        if range.count == 0 {
            self.ranges.pop_front();
        }
        self.fresh -= count;
    }

    #[inline]
    fn hand_out(&mut self, to: u32, loc: Loc, attempts: u16, fresh: bool, turn: &mut Turn<'_>) {
        let Ok(payload) = turn.log.payload(loc) else { return self.lose(loc, fresh, turn.log) };
        let id = MessageId::of_payload(payload);
        let consumer = self.consumers.get_mut(to);
        let now = turn.now.instant;
        let deadline = now + consumer.settings.msg_timeout;
        let delivery = attempts.saturating_add(1);
        let flight = NewFlight { id, loc, attempts: delivery, consumer: to, deadline, delivered: now };
        let key = match self.flights.start(&mut consumer.flights, flight) {
            Ok(key) => key,
            Err(twin_due) => return self.wait_for_twin(Deferred { due: twin_due, loc, attempts }, fresh, turn),
        };
        if let Some(ledger) = &mut self.ledger {
            self.flights.journalled(key, ledger.takes_off(loc, fresh));
        }
        let size = FRAME_HEADER + payload.len();
        consumer.handed(size);
        write_frame(payload, delivery, &mut turn.out.to(consumer.conn, &mut consumer.group).frames);
        *turn.budget -= size as isize;
        turn.wake_at(deadline);
    }

    /// An imported backlog may hold an id twice; the second one waits for the first.
    #[cold]
    fn wait_for_twin(&mut self, twin: Deferred, fresh: bool, turn: &mut Turn<'_>) {
        *turn.budget -= STEP;
        let Deferred { due, loc, attempts } = twin;
        if let Some(ledger) = &mut self.ledger {
            ledger.out(loc, attempts, Some(due), fresh, turn.log);
        }
        self.defer(loc, attempts, due, turn);
    }

    /// What was taken turns out to be damaged.
    #[cold]
    fn lose(&mut self, loc: Loc, fresh: bool, log: &mut Log) {
        self.counters.lost += 1;
        self.done(loc, fresh, log);
    }

    /// The channel does not need a message any more that is not in flight; `first`: it was fresh before.
    fn done(&mut self, loc: Loc, first: bool, log: &mut Log) {
        if let Some(ledger) = &mut self.ledger {
            ledger.done(loc, first, log);
        }
        log.done(loc);
    }

    /// Behind as many messages as are fresh, but not behind an endless backlog: neither starves the other.
    fn put_back(&mut self, loc: Loc, attempts: u16) {
        let turn = self.handed_out + self.fresh.min(BEHIND);
        self.waiting.push_back(Waiting { loc, attempts, turn });
    }

    fn defer(&mut self, loc: Loc, attempts: u16, due: Instant, turn: &mut Turn<'_>) {
        self.deferred.push(Deferred { due, loc, attempts });
        turn.wake_at(due);
    }

    /// Takes a message back from the consumer that must be holding it.
    #[inline]
    fn land(&mut self, consumer: u32, id: MessageId) -> Result<Landed, Refusal> {
        let landed = self.flights.land(&mut self.consumers.get_mut(consumer).flights, consumer, id)?;
        self.consumers.landed(consumer);
        Ok(landed)
    }
}
