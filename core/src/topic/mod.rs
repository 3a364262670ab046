//! A topic: its log, its channels, and the rules by which messages move from one to the others.
//!
//! [`Topic::handle`] applies inputs one by one, each to its fixed point: after it, no message that could go to a
//! channel or a consumer is left behind, so that batches save locks and wakes but change nothing. It stops early when
//! it has done enough for one turn; what is left of the batch is for the next. All effects go into the caller's buffer.

mod admin;
mod channel;
mod check;
mod consumers;
mod deferred;
pub mod disk;
mod flights;
#[cfg(any(test, feature = "fuzz"))]
pub(crate) mod fuzz;
pub mod io;
mod log;
pub mod stats;
mod store;
#[cfg(any(test, feature = "fuzz"))]
mod tests;

use crate::budget::Budget;
use crate::message::{Bodies, IdMaker, MessageId, PAYLOAD_HEADER};
use crate::name::{ChannelName, TopicName};
use crate::options::Options;
use crate::random::{Random, seed_for};
use crate::storage::journal::Incarnation;
use crate::storage::record;
use crate::time::{Duration, Instant, Now};
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use channel::{Channel, Turn};
use disk::Disk;
use io::{ConnId, Consumer, Effects, Input, Notice, Refusal, Slot, ToConn, Verb};
use litemap::LiteMap;
use log::{Cursor, Loc, Log, Record};
use slab::Slab;
use store::{Pending, Store};

/// See the module's documentation.
#[derive(Debug)]
pub struct Topic {
    name: TopicName,
    options: Arc<Options>,
    budget: Budget,
    random: Random,
    ids: IdMaker,
    log: Log,
    /// Up to where messages have been given to channels.
    fan: Cursor,
    /// Messages beyond `fan`: plain ones, and deferred ones with their time.
    backlog: u64,
    backlog_deferred: VecDeque<(Loc, Instant)>,
    paused: bool,
    /// It waits for nsqlookupds and gives nothing to channels until then.
    awaiting: Option<Awaiting>,
    channels: Slab<Channel>,
    by_name: LiteMap<ChannelName, usize>,
    members: BTreeMap<ConnId, Member>,
    last_member: Option<(ConnId, Member)>,
    /// Not after the first time that something is due.
    wake: Option<Instant>,
    counters: Counters,
    gone: bool,
    exiting: bool,
    has_doubles: bool,
    has_gaps: bool,
    /// Where the next channel's creation is counted.
    next_incarnation: u64,
    /// Where messages may be kept, and what is kept there: nothing, until it is needed.
    disk: Option<Disk>,
    store: Option<Box<Store>>,
}

/// What one call of [`Topic::handle`] came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handled {
    /// The batch is empty.
    All,
    /// Enough for one turn: let others have the lock, then call again with what is left of the batch.
    Some,
    /// The topic was deleted; what is left of the batch has to go to its successor.
    Gone,
}

/// What one call of [`Topic::handle`] works with.
struct Context<'a> {
    now: Now,
    out: &'a mut Effects,
    /// Bytes that may still be published or handed out; below zero the turn is over.
    budget: isize,
}

/// A topic that waits for its channels owes one answer: to the command that created it, which is the first to ask.
#[derive(Debug, Default)]
struct Awaiting {
    owed: Option<(ConnId, ToConn)>,
}

#[derive(Clone, Copy, Debug)]
struct Member {
    channel: usize,
    consumer: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counters {
    messages: u64,
    /// Those that were there at the start.
    restored: u64,
    bytes: u64,
    fanned_out: u64,
    /// Dropped by an operator's empty.
    emptied: u64,
    /// Dropped because the topic is ephemeral and nobody takes its messages.
    overflowed: u64,
    /// Damaged on disk, in channels that are no more.
    lost: u64,
}

/// How much is done under one hold of the lock: inputs, and bytes published or handed out.
const INPUTS_A_TURN: usize = 256;
const BYTES_A_TURN: usize = 256 * 1024;
/// A timer that fires, or a message that sampling drops, counts for so many bytes.
const STEP: isize = BYTES_A_TURN as isize / 256;
/// Room that an idle queue may keep.
const SMALL: usize = 16;

impl Topic {
    /// A topic without messages or channels. `seed` is the process's; the name makes it the topic's.
    pub fn new(name: TopicName, options: Arc<Options>, budget: Budget, seed: u64) -> Self {
        let log = Log::new(budget.clone());
        Self {
            random: Random::new(seed_for(seed, name.as_str())),
            ids: IdMaker::new(options.node_id),
            fan: log.end(),
            log,
            name,
            options,
            budget,
            backlog: 0,
            backlog_deferred: VecDeque::new(),
            paused: false,
            awaiting: None,
            channels: Slab::new(),
            by_name: LiteMap::new(),
            members: BTreeMap::new(),
            last_member: None,
            wake: None,
            counters: Counters::default(),
            gone: false,
            exiting: false,
            has_doubles: false,
            has_gaps: false,
            next_incarnation: 1,
            disk: None,
            store: None,
        }
    }

    /// A topic that may keep messages on a disk, unless it is ephemeral. Nothing is on it yet.
    pub fn on_disk(name: TopicName, options: Arc<Options>, budget: Budget, seed: u64, disk: Disk) -> Self {
        let disk = (!name.is_ephemeral()).then_some(disk);
        Self { disk, ..Self::new(name, options, budget, seed) }
    }

    /// Its name.
    pub const fn name(&self) -> &TopicName {
        &self.name
    }

    /// Whether everything that it keeps is on the medium before it is acknowledged or delivered.
    pub fn is_durable(&self) -> bool {
        self.disk.is_some_and(|disk| disk.durable)
    }

    /// Whether messages may be in it twice, each time with attempts of its own: its journal was gone or damaged, and
    /// did not tell which of two copies is the one.
    pub const fn has_doubles(&self) -> bool {
        self.has_doubles
    }

    /// Whether something was damaged in what its start found. How many messages that were is a guess, so places in the
    /// log may be off by some, and what is left may come twice.
    pub const fn has_gaps(&self) -> bool {
        self.has_gaps
    }

    /// Why its disk cannot be relied upon at present.
    ///
    /// # Errors
    /// What the last operation failed with, until the disk has shown that it works again.
    pub fn health(&self) -> Result<(), &str> {
        self.store.as_deref().map_or(Ok(()), Store::health)
    }

    /// Does what is due, then applies the inputs in order. An empty batch is a tick, and too early a tick does nothing,
    /// unless [memory is short](Budget::is_short): then a topic with a disk gives up its own.
    pub fn handle(&mut self, now: Now, batch: &mut VecDeque<Input>, out: &mut Effects) -> Handled {
        let cx = &mut Context { now, out, budget: BYTES_A_TURN as isize };
        let handled = self.apply_all(batch, cx);
        if self.disk.is_some() && self.log.bytes() > 0 && self.budget.is_short() {
            // What is in memory only goes to disk, and its memory can be had then.
            self.open_store();
            self.spill_new();
        }
        self.pump(cx);
        handled
    }

    fn apply_all(&mut self, batch: &mut VecDeque<Input>, cx: &mut Context<'_>) -> Handled {
        let mut inputs = 0;
        while !self.gone {
            if self.is_due(cx.now) && cx.budget >= 0 {
                self.expire(cx);
            }
            // What is due, and what a turn left undone, comes before the next input: so nobody sees where turns end.
            if batch.is_empty() {
                return Handled::All;
            }
            if inputs == INPUTS_A_TURN || cx.budget < 0 {
                return Handled::Some;
            }
            if let Some(input) = batch.pop_front() {
                self.apply(input, batch, cx);
            }
            inputs += 1;
        }
        Handled::Gone
    }

    fn is_due(&self, now: Now) -> bool {
        self.wake.is_some_and(|wake| wake <= now.instant)
    }

    /// When the topic wants to be called, at the latest: a timeout or a deferral may be due then. If that is not in the
    /// future, there was too much to do for one turn.
    pub fn deadline(&self) -> Option<Instant> {
        let store = self.store.as_deref().and_then(Store::deadline);
        self.wake.into_iter().chain(store).min().filter(|_| !self.gone)
    }

    fn apply(&mut self, input: Input, batch: &mut VecDeque<Input>, cx: &mut Context<'_>) {
        match input {
            Input::Finish { conn, id, after } => {
                let done = self.in_channel(conn, cx, |channel, consumer, turn| channel.finish(consumer, id, turn.log));
                tell_failure(done, conn, id, after, Verb::Fin, cx);
            }
            Input::Requeue { conn, id, delay, after } => {
                let done =
                    self.in_channel(conn, cx, |channel, consumer, turn| channel.requeue(consumer, id, delay, turn));
                tell_failure(done, conn, id, after, Verb::Req, cx);
            }
            Input::Touch { conn, id, after } => {
                let done = self.in_channel(conn, cx, |channel, consumer, turn| channel.touch(consumer, id, turn));
                tell_failure(done, conn, id, after, Verb::Touch, cx);
            }
            Input::Ready { conn, count } => {
                let _ = self.in_channel(conn, cx, |channel, consumer, _| {
                    channel.consumers.set_ready(consumer, count);
                    Ok(())
                });
            }
            Input::Room { conn, bytes } => {
                let _ = self.in_channel(conn, cx, |channel, consumer, _| {
                    channel.consumers.room(consumer, bytes);
                    Ok(())
                });
            }
            Input::Close { conn, slot } => {
                let result = self.in_channel(conn, cx, |channel, consumer, _| {
                    channel.consumers.close(consumer);
                    Ok(())
                });
                // A consumer whose channel has gone is about to be disconnected.
                cx.out.tell(conn, ToConn::Reply { slot, result: result.or(Ok(())) });
            }
            Input::Publish { from, slot, mut bodies, defer } => {
                match self.publish(&mut bodies, defer, cx) {
                    Ok(waits) if !bodies.is_empty() => {
                        if let Some(store) = self.store.as_deref_mut().filter(|_| waits) {
                            store.goes_on(from, slot);
                        }
                        batch.push_front(Input::Publish { from, slot, bodies, defer });
                    }
                    result => self.answer_publish(from, slot, result, cx.out),
                }
                self.fan_out(cx);
            }
            Input::Subscribe { conn, slot, channel, consumer } => {
                let result = self.subscribe(conn, channel, consumer, cx);
                self.answer(conn, slot, result, cx.out);
            }
            Input::Leave { conn } => self.leave(conn, cx.out),
            Input::Disk { id, result } => self.disk_done(id, result, cx),
            Input::Shutdown => self.shut_down(cx),
            Input::Admin { from, slot, action } => self.administer(from, slot, action, cx),
            Input::Channels(channels) => self.start(channels, cx),
        }
    }

    /// Lets the consumer's channel do something, then hands out what that made possible.
    #[inline]
    fn in_channel(
        &mut self,
        conn: ConnId,
        cx: &mut Context<'_>,
        act: impl FnOnce(&mut Channel, u32, &mut Turn<'_>) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let Member { channel, consumer } = self.member(conn).ok_or(Refusal::NotInFlight)?;
        let (channel, mut turn) = self.turn(channel, cx);
        let result = act(channel, consumer, &mut turn);
        channel.dispatch(&mut turn);
        result
    }

    /// A channel, and what it works with.
    #[inline]
    fn turn<'a>(&'a mut self, channel: usize, cx: &'a mut Context<'_>) -> (&'a mut Channel, Turn<'a>) {
        let Self { channels, log, random, options, wake, .. } = self;
        let Context { now, out, budget } = cx;
        (&mut channels[channel], Turn { now: *now, log, out, random, options, wake, budget })
    }

    #[inline]
    fn member(&mut self, conn: ConnId) -> Option<Member> {
        if let Some((last, member)) = self.last_member
            && last == conn
        {
            return Some(member);
        }
        let member = *self.members.get(&conn)?;
        self.last_member = Some((conn, member));
        Some(member)
    }

    /// Appends bodies to the log, as many as fit into a turn: always the same slices, whatever was done before them.
    /// Whether some of that must be written before it is acknowledged.
    fn publish(&mut self, bodies: &mut Bodies, defer: Duration, cx: &mut Context<'_>) -> Result<bool, Refusal> {
        const HEADERS: usize = record::HEADER + PAYLOAD_HEADER;
        if self.log.wants_sweep() {
            self.carry_stragglers();
        }
        let is_full = !self.budget.fits(bodies.body_bytes());
        let mut in_memory = match self.disk {
            Some(_) => self.prepare_disk(bodies.len() as u64, is_full)?,
            None if is_full => return Err(Refusal::QueueFull),
            None => u64::MAX,
        };
        let mut waits = false;
        // Nobody takes an ephemeral topic's messages, and it keeps only so many of them.
        let bounded = self.name.is_ephemeral() && self.holds_back();
        let mut room = if bounded { self.options.mem_queue_size.saturating_sub(self.depth()) } else { u64::MAX };
        let gives = !self.holds_back();
        let mut more = bodies.body_bytes() + bodies.len() * HEADERS;
        let mut slice = BYTES_A_TURN as isize;
        bodies.take_while(|body| {
            self.counters.messages += 1;
            self.counters.bytes += body.len() as u64;
            slice -= (HEADERS + body.len()) as isize;
            more -= HEADERS + body.len();
            if room == 0 {
                self.counters.overflowed += 1;
                return slice >= 0;
            }
            room -= 1;
            let (time, id) = (cx.now.timestamp, self.ids.next(cx.now.timestamp));
            let record = Record { time, id, body, defer, is_given: gives && in_memory > 0 };
            let loc = self.log.append(record, more);
            if defer.is_zero() {
                self.backlog += 1;
            } else {
                self.backlog_deferred.push_back((loc, cx.now.instant + defer));
            }
            if in_memory == 0 {
                waits = true;
                self.must_write(defer.is_zero());
            } else {
                in_memory -= 1;
            }
            slice >= 0
        });
        cx.budget -= BYTES_A_TURN as isize - slice;
        Ok(waits)
    }

    /// How many of the next `count` messages may stay in memory only: as long as every queue is shorter than
    /// `--mem-queue-size`. Where memory is full, none: each publish waits for an fsync, so that its memory can be had,
    /// and is as fast as the disk.
    fn prepare_disk(&mut self, count: u64, is_full: bool) -> Result<u64, Refusal> {
        if self.exiting {
            return Err(Refusal::Exiting);
        }
        let in_memory = if is_full { 0 } else { self.room_in_memory(count) };
        if in_memory < count {
            self.open_store();
            if let Some(store) = &mut self.store {
                if store.refuses() {
                    return Err(Refusal::NotWritten);
                }
                store.presses |= is_full;
            }
        }
        Ok(in_memory)
    }

    fn room_in_memory(&self, count: u64) -> u64 {
        if self.is_durable() {
            return 0;
        }
        let limit = self.options.mem_queue_size;
        if self.log.live() + self.depth() + count <= limit {
            return u64::MAX;
        }
        // An ephemeral channel leaves out what does not fit into memory.
        let channels = self.channels.iter().map(|(_, channel)| channel).filter(|channel| !channel.is_ephemeral);
        let channels = channels.map(|channel| channel.depth() + channel.deferred() as u64);
        limit.saturating_sub(channels.max().unwrap_or(0).max(self.depth()))
    }

    fn answer_publish(&mut self, from: ConnId, slot: Slot, result: Result<bool, Refusal>, out: &mut Effects) {
        let Some(store) = self.store.as_deref_mut() else {
            return self.answer(from, slot, result.map(|_| ()), out);
        };
        let has_part = store.take_part(from, slot);
        match result {
            // No commit need come that would say so.
            Ok(false) if has_part && store.refuses() => self.answer(from, slot, Err(Refusal::NotWritten), out),
            Ok(waits) if waits || has_part => store.answer_later(from, slot, false),
            result => self.answer(from, slot, result.map(|_| ()), out),
        }
    }

    /// Whether messages stay in the topic for now.
    fn holds_back(&self) -> bool {
        self.paused || self.awaiting.is_some() || self.channels.is_empty()
    }

    /// Gives messages to all channels, unless they are held back.
    fn fan_out(&mut self, cx: &mut Context<'_>) {
        if self.holds_back() || self.depth() == 0 {
            return;
        }
        if let Some(store) = &self.store
            && store.pending != Pending::default()
        {
            return self.fan_out_synced(cx);
        }
        self.admit_all();
        self.dispatch_all(cx);
    }

    /// Gives all channels everything.
    fn admit_all(&mut self) {
        self.admit(self.backlog, self.backlog_deferred.len());
        if let Some(due) = self.backlog_deferred.iter().map(|&(_, due)| due).min() {
            self.wake = Some(self.wake.map_or(due, |wake| wake.min(due)));
        }
        self.counters.fanned_out += self.depth();
        self.drop_backlog();
    }

    /// Gives all channels the first so many plain and deferred messages.
    fn admit(&mut self, plain: u64, deferred: usize) {
        let mut takers = 0;
        for (_, channel) in &mut self.channels {
            if plain > 0 {
                takers += u32::from(channel.admit(self.fan, plain, &mut self.log, self.options.mem_queue_size));
            }
            for &(loc, due) in self.backlog_deferred.iter().take(deferred) {
                channel.admit_deferred(loc, due, &mut self.log);
            }
        }
        if takers > 0 {
            self.log.admit(self.fan, plain, takers);
        }
    }

    /// Gives only those messages to channels that are on the medium.
    fn fan_out_synced(&mut self, cx: &mut Context<'_>) {
        let Some(store) = self.store.as_deref() else { return };
        let (plain, deferred) = self.synced_backlog(store);
        if plain == 0 && deferred == 0 {
            return;
        }
        let synced = store.synced;
        self.admit(plain, deferred);
        let given: VecDeque<_> = self.backlog_deferred.drain(..deferred).collect();
        let due = given.iter().map(|&(_, due)| due).chain(self.wake).min();
        (self.wake, self.backlog) = (due, self.backlog - plain);
        self.counters.fanned_out += plain + deferred as u64;
        self.log.fanned_out_partly(self.fan, plain, given.into_iter().map(|(loc, _)| loc));
        self.fan = synced;
        self.dispatch_all(cx);
    }

    /// How many plain and deferred messages are on the medium, and not given to channels yet.
    fn synced_backlog(&self, store: &Store) -> (u64, usize) {
        let plain = self.backlog.saturating_sub(store.pending.plain);
        (plain, self.backlog_deferred.len().saturating_sub(store.pending.deferred))
    }

    /// Lets every channel hand out what it can.
    fn dispatch_all(&mut self, cx: &mut Context<'_>) {
        for channel in 0..self.channels.capacity() {
            if self.channels.contains(channel) {
                let (channel, mut turn) = self.turn(channel, cx);
                channel.dispatch(&mut turn);
            }
        }
    }

    /// Forgets what was not given to channels, because it was just now or is not to be.
    fn drop_backlog(&mut self) {
        self.log.fanned_out(self.fan);
        self.fan = self.log.end();
        self.backlog = 0;
        if !self.backlog_deferred.is_empty() {
            self.backlog_deferred.clear();
            self.backlog_deferred.shrink_to(SMALL);
        }
    }

    /// Messages not given to channels yet.
    fn depth(&self) -> u64 {
        self.backlog + self.backlog_deferred.len() as u64
    }

    /// Puts back what is due in every channel, and hands it out.
    #[cold]
    fn expire(&mut self, cx: &mut Context<'_>) {
        self.wake = None;
        for channel in 0..self.channels.capacity() {
            if self.channels.contains(channel) {
                let (channel, mut turn) = self.turn(channel, cx);
                channel.expire(&mut turn);
                channel.dispatch(&mut turn);
            }
        }
    }

    fn subscribe(
        &mut self,
        conn: ConnId,
        name: ChannelName,
        consumer: Consumer,
        cx: &mut Context<'_>,
    ) -> Result<(), Refusal> {
        let limit = self.options.max_channel_consumers;
        let present = self.by_name.get(&name).map_or(0, |&channel| self.channels[channel].consumers.len());
        if limit > 0 && present >= limit {
            return Err(Refusal::TooManyConsumers { topic: self.name.clone(), channel: name, limit });
        }
        let channel = self.create_channel(name, cx);
        let consumer = self.channels[channel].join(conn, consumer);
        self.members.insert(conn, Member { channel, consumer });
        Ok(())
    }

    /// The channel of that name; a new one starts where fan-out stands, so the first one gets the backlog.
    fn create_channel(&mut self, name: ChannelName, cx: &mut Context<'_>) -> usize {
        if let Some(&channel) = self.by_name.get(&name) {
            return channel;
        }
        let incarnation = self.new_incarnation();
        let mut channel = Channel::new(name.clone(), incarnation);
        // No journal tells of an ephemeral one.
        if self.is_durable() && !channel.is_ephemeral {
            self.open_store();
        }
        if let Some(store) = self.store.as_mut().filter(|_| !channel.is_ephemeral) {
            channel.open_ledger();
            store.news();
        }
        let channel = self.add(channel);
        let listed = self.listed(incarnation);
        cx.out.notices.push(Notice::ChannelCreated(self.name.clone(), name, listed));
        self.fan_out(cx);
        channel
    }

    fn add(&mut self, channel: Channel) -> usize {
        let name = channel.name.clone();
        make_room(&mut self.channels);
        let channel = self.channels.insert(channel);
        self.by_name.insert(name, channel);
        channel
    }

    const fn new_incarnation(&mut self) -> Incarnation {
        self.next_incarnation += 1;
        Incarnation(self.next_incarnation - 1)
    }

    fn leave(&mut self, conn: ConnId, out: &mut Effects) {
        self.last_member = None;
        let Some(Member { channel, consumer }) = self.members.remove(&conn) else { return };
        let left = &mut self.channels[channel];
        left.consumers.leave(consumer);
        if left.name.is_ephemeral() && left.consumers.len() == 0 {
            self.delete_channel(channel, out);
        }
    }
}

/// Room for one more: most topics have one channel, and most channels one consumer, and there may be very many of them.
fn make_room<T>(slab: &mut Slab<T>) {
    if slab.len() == slab.capacity() {
        slab.reserve_exact(slab.len() / 2 + 1);
    }
}

fn tell_failure(
    result: Result<(), Refusal>,
    conn: ConnId,
    id: MessageId,
    after: Slot,
    verb: Verb,
    cx: &mut Context<'_>,
) {
    if let Err(why) = result {
        cx.out.tell(conn, ToConn::Failed { after, verb, id, why });
    }
}
