//! A topic on a disk that fails and crashes, and what everybody was told: the three states of a message.
//!
//! A message is *acknowledged*, *refused*, or unknown to have been either; for a channel it is finished when it was
//! told so. After a crash everything must be there that was promised, nothing that was settled before may come back,
//! and nothing is handed out earlier or with fewer attempts than is on the medium. Whoever breaks that, panics.

use super::super::bench::{Bench, Delivery, Seen};
use super::super::sentences::{many, plain_consumer};
use super::files::{Files, INCARNATION};
use crate::budget::Budget;
use crate::directory::Entry;
use crate::message::{MessageId, PAYLOAD_HEADER};
use crate::name::{ChannelName, TopicName};
use crate::options::Options;
use crate::random::Random;
use crate::storage::recovered::{Problem, Recovered, Trouble};
use crate::storage::slow_crc;
use crate::time::{Duration, Instant, Timestamp};
use crate::topic::Topic;
use crate::topic::disk::Disk;
use crate::topic::io::{Admin, ConnId, Input, Notice, Slot, ToConn};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// The channels of a world; the last one is ephemeral.
pub(super) const CHANNELS: [&str; 3] = ["a", "b", "e#ephemeral"];

/// How a life ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Kill,
    PowerOff,
    /// Nothing survives that need not.
    WorstPowerOff,
}

/// See the module's documentation.
pub(super) struct World {
    pub(super) bench: Bench,
    pub(super) files: Files,
    pub(super) random: Random,
    pub(super) options: Options,
    durable: bool,
    memory: usize,
    /// By number, which is in the body.
    pub(super) messages: Vec<Message>,
    /// Publishes that wait for an answer: the numbers of their messages.
    waiting: BTreeMap<Slot, Vec<usize>>,
    consumers: BTreeMap<&'static str, ConnId>,
    /// What each consumer holds: id and number.
    pub(super) held: BTreeMap<&'static str, Vec<(MessageId, usize)>>,
    /// What a crash right now must bring back, when everything was on the medium the last time.
    pub(super) settled: BTreeMap<(&'static str, usize), Settled>,
    pub(super) largest_chunk: u64,
    /// Some bits were flipped: messages may be lost, but nothing else may happen.
    pub(super) damaged: bool,
    pub(super) lives: u32,
    /// What is remembered must come back exactly, in default mode too.
    pub(super) strict: bool,
    paused: BTreeSet<&'static str>,
    /// Channels that the disk may not have heard of.
    new: BTreeSet<&'static str>,
    /// Answers that are awaited to a channel's end, and the messages that it had.
    ending: BTreeMap<Slot, (&'static str, Vec<usize>)>,
    ids: BTreeMap<MessageId, usize>,
    /// The wall clock was set: what was deferred may come earlier after a start.
    pub(super) stepped: bool,
    /// What `nsqd.dat` has, if that is not what it should have.
    pub(super) saved: Option<Entry>,
    /// What was reported to be damaged.
    pub(super) problems: Vec<Problem>,
    /// Messages that a flipped bit may have cost.
    pub(super) flipped: BTreeSet<usize>,
    /// It was in room of a segment that nothing uses.
    pub(super) room_hit: bool,
    /// What was not fsynced may be there in part: nobody can tell what is missing, so something may come twice.
    pub(super) torn: bool,
    /// A gap was found in a chunk, which only what was at risk leaves there. How many messages were in it is a guess,
    /// so cursors may be off by some of those that are left.
    pub(super) gap: bool,
}

/// A message as the world knows it.
#[derive(Debug, Default)]
pub(super) struct Message {
    pub(super) acknowledged: bool,
    pub(super) refused: bool,
    pub(super) due: Option<Instant>,
    pub(super) size: usize,
    id: Option<MessageId>,
    /// For each channel that has seen it.
    pub(super) seen: BTreeMap<&'static str, View>,
}

/// A message in a channel.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct View {
    pub(super) attempts: u16,
    pub(super) finished: bool,
    /// REQ said so.
    due: Option<Instant>,
    /// It may be there or not: it came before the channel did, or what there was has been dropped.
    free: bool,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Settled {
    attempts: u16,
    finished: bool,
    due: Option<Instant>,
}

impl World {
    pub(super) fn new(
        durable: bool,
        mem_queue_size: u64,
        seed: u64,
        set: impl FnOnce(&mut Options, &mut usize),
    ) -> Self {
        let mut options = Options {
            mem_queue_size,
            max_bytes_per_file: 8 * 1024,
            sync_every: 20,
            sync_timeout: Duration::from_millis(50),
            msg_timeout: Duration::from_secs(1),
            ..Options::default()
        };
        let mut memory = 1 << 30;
        set(&mut options, &mut memory);
        let budget = Budget::new(memory);
        let name = TopicName::new("topic").expect("a name");
        let topic = Topic::on_disk(name, Arc::new(options.clone()), budget.clone(), seed, disk(durable));
        let mut world = Self {
            bench: Bench::of(topic, budget),
            files: Files::default(),
            random: Random::new(seed),
            options,
            durable,
            memory,
            messages: Vec::new(),
            waiting: BTreeMap::new(),
            consumers: BTreeMap::new(),
            held: BTreeMap::new(),
            settled: BTreeMap::new(),
            largest_chunk: 0,
            damaged: false,
            lives: 1,
            strict: false,
            paused: BTreeSet::new(),
            new: BTreeSet::new(),
            ending: BTreeMap::new(),
            ids: BTreeMap::new(),
            stepped: false,
            saved: None,
            problems: Vec::new(),
            flipped: BTreeSet::new(),
            room_hit: false,
            torn: false,
            gap: false,
        };
        // They are there before anything is published.
        CHANNELS[..2].iter().for_each(|channel| world.consume(channel, 0));
        world
    }

    // What happens.

    pub(super) fn publish(&mut self, count: usize, size: usize, defer: Duration) {
        self.publish_from(None, count, size, defer);
    }

    pub(super) fn publish_from(&mut self, from: Option<ConnId>, count: usize, size: usize, defer: Duration) {
        let first = self.messages.len();
        let bodies = (first..first + count).map(|number| {
            let mut body = format!("{number:08}").into_bytes();
            body.resize(8 + size, b'.');
            body
        });
        let bodies = many(bodies);
        let due = (!defer.is_zero()).then(|| self.bench.now() + defer);
        self.messages.extend((0..count).map(|_| Message { due, size: 8 + size, ..Message::default() }));
        for channel in CHANNELS.into_iter().filter(|channel| !self.bench.topic.has_channel(&channel_name(channel))) {
            self.messages[first..].iter_mut().for_each(|message| message.seen.entry(channel).or_default().free = true);
        }
        let (from, slot) = (from.unwrap_or_else(|| self.bench.connect()), self.bench.slot());
        self.waiting.insert(slot, (first..first + count).collect());
        self.give(Input::Publish { from, slot, bodies, defer });
    }

    pub(super) fn consume(&mut self, channel: &'static str, rdy: u32) {
        let conn = match self.consumers.get(channel) {
            Some(conn) => *conn,
            None => {
                let (conn, slot) = (self.bench.connect(), self.bench.slot());
                let mut consumer = plain_consumer();
                consumer.msg_timeout = self.options.msg_timeout;
                let name = channel_name(channel);
                if !self.bench.topic.has_channel(&name) {
                    self.messages.iter_mut().for_each(|message| message.seen.entry(channel).or_default().free = true);
                    self.new.insert(channel);
                }
                self.consumers.insert(channel, conn);
                self.give(Input::Subscribe { conn, slot, channel: name, consumer });
                conn
            }
        };
        self.give(Input::Ready { conn, count: rdy });
    }

    pub(super) fn finish(&mut self, channel: &'static str, which: usize) {
        if let Some((conn, id, number)) = self.take(channel, which) {
            let view = self.messages[number].seen.get_mut(channel).expect("it was seen");
            view.finished = true;
            self.give(Input::Finish { conn, id, after: Slot(0) });
        }
    }

    pub(super) fn requeue(&mut self, channel: &'static str, which: usize, delay: Duration) {
        if let Some((conn, id, number)) = self.take(channel, which) {
            let due = (!delay.is_zero()).then(|| self.bench.now() + delay);
            let view = self.messages[number].seen.get_mut(channel).expect("it was seen");
            view.due = due;
            self.give(Input::Requeue { conn, id, delay, after: Slot(0) });
        }
    }

    /// An operator empties the channel, or deletes it.
    pub(super) fn end(&mut self, channel: &'static str, delete: bool) {
        let name = channel_name(channel);
        if !self.bench.topic.has_channel(&name) {
            return;
        }
        let (backlog, whole) = self.backlog();
        let mut ended = Vec::new();
        for (number, message) in self.messages.iter_mut().enumerate() {
            let view = message.seen.entry(channel).or_default();
            view.free = true;
            if view.attempts > 0 || whole && !backlog.contains(&number) {
                (view.finished, view.due) = (true, None);
                ended.push(number);
            }
        }
        self.held.remove(channel);
        if delete {
            self.consumers.remove(channel);
            self.paused.remove(channel);
        }
        let action = if delete { Admin::DeleteChannel(name) } else { Admin::EmptyChannel(name) };
        let slot = self.administer(action, |world, slot| {
            world.ending.insert(slot, (channel, ended));
        });
        assert!(self.durable || !self.ending.contains_key(&slot), "default mode answers at once");
    }

    /// An operator drops what was not given to channels.
    pub(super) fn empty_topic(&mut self) {
        let (backlog, whole) = self.backlog();
        for number in if whole { backlog.into_iter().collect() } else { (0..self.messages.len()).collect::<Vec<_>>() } {
            for channel in CHANNELS {
                let view = self.messages[number].seen.entry(channel).or_default();
                view.free |= view.attempts == 0;
                view.finished |= whole;
            }
        }
        self.administer(Admin::EmptyTopic, |_, _| {});
    }

    pub(super) fn pause(&mut self, channel: &'static str, paused: bool) {
        if self.bench.topic.has_channel(&channel_name(channel)) {
            if paused {
                self.paused.insert(channel)
            } else {
                self.paused.remove(channel)
            };
            self.administer(Admin::PauseChannel(channel_name(channel), paused), |_, _| {});
        }
    }

    pub(super) fn pause_topic(&mut self, paused: bool) {
        self.administer(Admin::PauseTopic(paused), |_, _| {});
    }

    /// The wall clock is set.
    pub(super) fn step(&mut self, millis: i64) {
        self.stepped = true;
        let clock = self.bench.clock();
        clock.timestamp = Timestamp::from_nanos(clock.timestamp.as_nanos() + millis * 1_000_000);
    }

    fn administer(&mut self, action: Admin, asked: impl FnOnce(&mut Self, Slot)) -> Slot {
        let (from, slot) = (self.bench.connect(), self.bench.slot());
        asked(self, slot);
        self.give(Input::Admin { from, slot, action });
        slot
    }

    /// What was not given to channels, and whether that is all of it.
    fn backlog(&self) -> (BTreeSet<usize>, bool) {
        let mut backlog = BTreeSet::new();
        self.bench.topic.outstanding(|channel, payload, _, _| {
            backlog.extend(channel.is_none().then(|| number(&payload[PAYLOAD_HEADER..])));
        });
        let depth = self.bench.topic.stats(None, false).depth;
        let whole = backlog.len() as u64 == depth;
        (backlog, whole)
    }

    fn take(&mut self, channel: &'static str, which: usize) -> Option<(ConnId, MessageId, usize)> {
        let held = self.held.get_mut(channel).filter(|held| !held.is_empty())?;
        let (id, number) = held.swap_remove(which % held.len());
        Some((*self.consumers.get(channel)?, id, number))
    }

    pub(super) fn give(&mut self, input: Input) {
        self.bench.give([input]);
        self.follow();
    }

    /// Lets time pass.
    pub(super) fn sleep(&mut self, time: Duration) {
        let end = self.bench.now() + time;
        while let Some(next) = self.bench.topic.deadline().filter(|next| *next <= end) {
            self.bench.sleep(next.since(self.bench.now()));
            self.bench.settle();
            self.follow();
        }
        self.bench.sleep(end.since(self.bench.now()));
    }

    /// The disk does so many operations.
    pub(super) fn work(&mut self, steps: usize) {
        for _ in 0..steps {
            self.files.add(core::mem::take(&mut self.bench.jobs));
            if self.files.is_idle() {
                break;
            }
            if let Some((id, result)) = self.files.step(&mut self.random) {
                self.give(Input::Disk { id, result });
            }
        }
        self.files.add(core::mem::take(&mut self.bench.jobs));
        if self.is_settled() {
            self.remember();
        }
    }

    /// The disk does all that it has to do, now and as long as time is given to it.
    pub(super) fn rest(&mut self) {
        for _ in 0..40 {
            self.work(usize::MAX);
            self.sleep(Duration::from_millis(60));
        }
        self.work(usize::MAX);
        assert!(self.files.is_idle(), "the disk comes to rest");
    }

    fn is_settled(&self) -> bool {
        self.files.is_idle() && self.bench.topic.is_settled()
    }

    pub(super) fn remember(&mut self) {
        self.settled.clear();
        self.new.clear();
        for (number, message) in self.messages.iter().enumerate() {
            for (channel, view) in &message.seen {
                let settled = Settled { attempts: view.attempts, finished: view.finished, due: view.due };
                self.settled.insert((channel, number), settled);
            }
        }
    }

    // What everybody sees.

    fn follow(&mut self) {
        let (mut acknowledged, mut delivered) = (BTreeSet::new(), false);
        for (conn, stream) in core::mem::take(&mut self.bench.streams) {
            for seen in stream {
                match seen {
                    Seen::Event(ToConn::Reply { slot, result }) => {
                        for number in self.waiting.remove(&slot).unwrap_or_default() {
                            let message = &mut self.messages[number];
                            (message.acknowledged, message.refused) = (result.is_ok(), result.is_err());
                            acknowledged.extend(result.is_ok().then_some(number));
                        }
                        for (channel, number) in self.ended(slot, result.is_ok()) {
                            let View { attempts, .. } = self.messages[number].seen[channel];
                            let settled = Settled { attempts, finished: true, due: None };
                            self.settled.insert((channel, number), settled);
                        }
                    }
                    // What timed out may be answered late.
                    Seen::Event(ToConn::Failed { id, .. }) => self.unfinish(conn, id),
                    Seen::Event(ToConn::Disconnect) => {}
                    Seen::Message(delivery) => {
                        delivered = true;
                        self.delivered(conn, &delivery);
                    }
                }
            }
        }
        let topic = &self.bench.topic;
        let problems = self.bench.notices.iter().filter_map(|notice| match notice {
            Notice::Damaged { problem, .. } => Some(problem.clone()),
            _ => None,
        });
        self.problems.extend(problems);
        self.bench.notices.retain(|notice| !matches!(notice, Notice::Damaged { .. }));
        if !acknowledged.is_empty() && (self.options.mem_queue_size == 0 || self.durable) {
            topic.at_risk(self.durable, |channel, payload| {
                let ephemeral = channel.is_some_and(ChannelName::is_ephemeral);
                let number = number(&payload[PAYLOAD_HEADER..]);
                assert!(ephemeral || !acknowledged.contains(&number), "{number} was acknowledged too early");
            });
        }
        if self.durable && delivered {
            topic.at_risk(true, |channel, payload| {
                let number = number(&payload[PAYLOAD_HEADER..]);
                assert!(channel.is_none(), "{number} was given to {channel:?} too early");
            });
        }
    }

    /// In a durable topic, whoever was told that a channel is empty, or gone, can rely on that.
    fn ended(&mut self, slot: Slot, is_ok: bool) -> Vec<(&'static str, usize)> {
        let Some((channel, numbers)) = self.ending.remove(&slot) else { return Vec::new() };
        let is_settled = |number: &usize| {
            let view = self.messages[*number].seen.get(channel);
            is_ok && self.durable && view.is_some_and(|view| view.finished)
        };
        numbers.into_iter().filter(is_settled).map(|number| (channel, number)).collect()
    }

    /// A FIN came too late: the message goes to somebody else, so it is not done.
    fn unfinish(&mut self, conn: ConnId, id: MessageId) {
        let channel = self.consumers.iter().find(|(_, consumer)| **consumer == conn).map(|(channel, _)| *channel);
        let message = self.messages.iter_mut().find(|message| message.id == Some(id));
        if let (Some(channel), Some(message)) = (channel, message)
            && let Some(view) = message.seen.get_mut(channel)
        {
            view.finished = false;
            view.due = None;
        }
    }

    fn delivered(&mut self, conn: ConnId, delivery: &Delivery) {
        let Some((&channel, _)) = self.consumers.iter().find(|(_, consumer)| **consumer == conn) else { return };
        let number = number(&delivery.body);
        let now = self.bench.now();
        assert!(!self.paused.contains(channel), "{channel} is paused");
        assert_eq!(*self.ids.entry(delivery.id).or_insert(number), number, "an id is used once");
        let message = &mut self.messages[number];
        assert_eq!(delivery.body.len(), message.size, "the body of {number}");
        assert_eq!(*message.id.get_or_insert(delivery.id), delivery.id, "{number} keeps its id");
        assert!(message.due.is_none_or(|due| due <= now), "{number} comes before it is due");
        let view = message.seen.entry(channel).or_default();
        assert!(view.due.is_none_or(|due| due <= now), "{number} comes to {channel} before it is due again");
        assert!(!view.finished || self.gap, "{number} comes to {channel} again");
        assert!(
            delivery.attempts > 0 && (delivery.attempts == view.attempts + 1 || self.gap),
            "attempts of {number}: {view:?} and {}",
            delivery.attempts
        );
        *view = View { attempts: delivery.attempts, due: None, free: false, ..*view };
        let held = self.held.entry(channel).or_default();
        held.retain(|(_, other)| *other != number);
        held.push((delivery.id, number));
    }

    // Ends and beginnings.

    /// The process, or the machine, ends, and a new one begins with the same files.
    pub(super) fn crash(&mut self, end: End) {
        self.files.add(core::mem::take(&mut self.bench.jobs));
        let at_risk = self.at_risk(end != End::Kill);
        self.torn |= end == End::PowerOff && !self.durable;
        match end {
            End::Kill => self.files.kill(&mut self.random),
            End::PowerOff => self.files.power_off(false, &mut self.random),
            End::WorstPowerOff => self.files.power_off(true, &mut self.random),
        }
        self.begin(&at_risk);
    }

    fn at_risk(&self, power_off: bool) -> BTreeSet<(Option<String>, usize)> {
        let mut at_risk = BTreeSet::new();
        self.bench.topic.at_risk(power_off, |channel, payload| {
            let channel = channel.map(|name| name.as_str().into());
            at_risk.insert((channel, number(&payload[PAYLOAD_HEADER..])));
        });
        at_risk
    }

    /// Starts the topic from its files, and compares what there is with what there must be.
    fn begin(&mut self, at_risk: &BTreeSet<(Option<String>, usize)>) {
        self.lives += 1;
        self.files.sync_all();
        let (recovered, again) = (self.files.recover(), self.files.recover());
        recovered.unreadable.iter().for_each(|&file| self.files.set_aside(file));
        if !self.damaged {
            let is_loss = |problem: &&Problem| matches!(problem.what, Trouble::Missing | Trouble::Lost(..));
            let loss: Vec<_> = recovered.problems.iter().filter(is_loss).collect();
            assert!(
                loss.is_empty() || !self.durable || !self.flipped.is_empty() || self.room_hit || self.torn,
                "what the journal speaks of is there: {loss:?}"
            );
            assert!(recovered.numbers.chunk >= self.largest_chunk, "chunk {} again", recovered.numbers.chunk);
            self.largest_chunk = recovered.numbers.chunk;
        }
        let is_gap = |problem: &&Problem| matches!(problem.what, Trouble::Damaged(_) | Trouble::Unreadable(_));
        let damage: Vec<_> = recovered.problems.iter().filter(is_gap).collect();
        assert!(damage.is_empty() || self.files.may_be_damaged, "nothing damaged it: {damage:?}");
        self.gap |= !damage.is_empty() && (!self.durable || !self.flipped.is_empty());
        // A number that no file came to have looks like a segment that a journal has let go.
        if recovered.journal.is_none() && !recovered.carried.is_empty() {
            // Nor does anything tell until when it was deferred.
            (self.gap, self.stepped) = (true, true);
        }
        self.problems.extend(recovered.problems.iter().cloned());
        let mut listed = self.saved.clone().unwrap_or_else(|| self.bench.topic.entry());
        listed.channels.retain(|name, _| !name.is_ephemeral());
        let mut topic = self.recover(again, Some(&listed), &Budget::new(1 << 30));
        topic.load_all(|segment, at, length, first_seq| self.files.load(segment, at, length, first_seq));
        self.compare(&topic, at_risk);
        if self.stepped {
            self.messages.iter_mut().for_each(Message::may_come_at_any_time);
        }
        let (budget, clock) = (Budget::new(self.memory), *self.bench.clock());
        let topic = self.recover(recovered, Some(&listed), &budget);
        topic.check();
        let old = core::mem::replace(&mut self.bench, Bench::of(topic, budget));
        self.bench.goes_on_from(&old);
        *self.bench.clock() = clock;
        self.waiting.clear();
        self.ending.clear();
        self.new.clear();
        self.paused.retain(|channel| self.bench.topic.has_channel(&channel_name(channel)));
        self.consumers.clear();
        self.held.clear();
        self.bench.settle();
        self.follow();
    }

    fn recover(&mut self, recovered: Recovered, listed: Option<&Entry>, budget: &Budget) -> Topic {
        let (name, options) = (TopicName::new("topic").expect("a name"), Arc::new(self.options.clone()));
        let mut topic = Topic::on_disk(name, options, budget.clone(), self.random.next(), disk(self.durable));
        topic.recover(recovered, listed, *self.bench.clock());
        topic
    }

    /// Everything is there that must be, and with what is known of it.
    fn compare(&mut self, topic: &Topic, at_risk: &BTreeSet<(Option<String>, usize)>) {
        let mut there: BTreeMap<(&'static str, usize), u16> = BTreeMap::new();
        let mut backlog = BTreeSet::new();
        topic.outstanding(|channel, payload, attempts, _| {
            let number = number(&payload[PAYLOAD_HEADER..]);
            match channel {
                Some(channel) => {
                    let name = CHANNELS.into_iter().find(|known| *known == channel.as_str()).expect("known");
                    let is_new = there.insert((name, number), attempts).is_none();
                    assert!(is_new || self.torn || self.gap, "{number} is in {name} twice");
                }
                None => assert!(backlog.insert(number), "{number} is in the backlog twice"),
            }
        });
        for number in 0..self.messages.len() {
            for channel in CHANNELS.into_iter().filter(|channel| topic.has_channel(&channel_name(channel))) {
                let view = self.messages[number].seen.get(channel).copied();
                let is_there = there.contains_key(&(channel, number)) || backlog.contains(&number);
                let is_excused = at_risk.contains(&(Some(channel.into()), number)) || at_risk.contains(&(None, number));
                self.compare_one(number, channel, view, is_there, is_excused);
                if is_excused && !is_there {
                    self.messages[number].seen.entry(channel).or_default().free = true;
                }
                if let Some(&attempts) = there.get(&(channel, number)) {
                    let settled = self.settled.get(&(channel, number)).map_or(0, |settled| settled.attempts);
                    assert!(
                        attempts >= settled
                            || self.damaged
                            || self.new.contains(channel)
                            || !(self.durable || self.strict),
                        "attempts of {number} in {channel}: {attempts} after {settled}"
                    );
                }
            }
            // From now on it is as it was found.
            let message = &mut self.messages[number];
            message.seen.retain(|channel, _| !channel.ends_with("#ephemeral"));
            for (channel, view) in &mut message.seen {
                let attempts = there.get(&(*channel, number)).copied();
                let back = attempts.or_else(|| backlog.contains(&number).then_some(0));
                let settled = self.settled.get(&(*channel, number));
                let due = settled
                    .filter(|settled| (self.durable || self.strict) && Some(settled.attempts) == back && !self.damaged)
                    .and_then(|settled| settled.due);
                *view = View {
                    attempts: back.unwrap_or(0),
                    finished: back.is_none(),
                    due,
                    free: view.free && back.is_none(),
                };
            }
            let anywhere = backlog.contains(&number) || there.keys().any(|(_, other)| *other == number);
            message.acknowledged &= anywhere;
            if let Some(id) = message.id.take_if(|_| !anywhere) {
                self.ids.remove(&id);
            }
        }
        self.settled.clear();
    }

    fn compare_one(&self, number: usize, channel: &'static str, view: Option<View>, is_there: bool, excused: bool) {
        let message = &self.messages[number];
        let excused = excused || self.flipped.contains(&number);
        let excused = excused || self.new.contains(channel) || view.is_some_and(|view| view.free);
        let finished = view.is_some_and(|view| view.finished);
        let delivered = view.is_some_and(|view| view.attempts > 0);
        // The channels of a world are created before anything is published.
        if !finished && !excused && !self.damaged && (message.acknowledged || delivered) {
            assert!(is_there, "{number} is lost in {channel}: {message:?}");
        }
        if let Some(settled) = self.settled.get(&(channel, number)) {
            assert!(
                !settled.finished
                    || !is_there
                    || self.damaged
                    || self.new.contains(channel)
                    || !(self.durable || self.strict),
                "{number} comes back to {channel}"
            );
        }
    }

    /// Nothing is paused, nothing fails, and everything is on the medium.
    pub(super) fn calm_down(&mut self) {
        (self.files.failing, self.files.failing_reads) = (0, false);
        self.files.stuck.clear();
        CHANNELS.into_iter().for_each(|channel| self.pause(channel, false));
        self.pause_topic(false);
        self.rest();
    }

    /// Everything that is left comes, is finished, and leaves nothing behind.
    pub(super) fn drain(&mut self) {
        self.calm_down();
        for channel in CHANNELS {
            self.consume(channel, 2500);
        }
        for round in 0.. {
            self.rest();
            let before = self.held.values().map(Vec::len).sum::<usize>();
            for channel in CHANNELS {
                while self.held.get(channel).is_some_and(|held| !held.is_empty()) {
                    self.finish(channel, 0);
                }
            }
            let stats = self.bench.topic.stats(None, false);
            let left = |channel: &crate::topic::stats::ChannelStats| {
                channel.depth + channel.in_flight_count as u64 + channel.deferred_count as u64
            };
            if before == 0 && stats.depth + stats.channels.iter().map(left).sum::<u64>() == 0 {
                break;
            }
            assert!(round < 300, "it drains: {stats:?}");
        }
        self.rest();
        for (number, message) in self.messages.iter().enumerate().filter(|(_, message)| message.acknowledged) {
            for channel in &CHANNELS[..2] {
                let finished = message.seen.get(channel).is_some_and(|view| view.finished || view.free);
                let was_hit = self.flipped.contains(&number) && !self.problems.is_empty();
                assert!(finished || self.damaged || was_hit, "{number} did not come to {channel}: {message:?}");
            }
        }
        assert_eq!(self.files.segments(), [], "nobody needs a segment any more");
        assert_eq!(self.bench.budget.used(), 0, "nobody needs memory any more");
        assert_eq!(self.bench.topic.health(), Ok(()));
    }
}

impl Message {
    fn may_come_at_any_time(&mut self) {
        self.due = None;
        self.seen.values_mut().for_each(|view| view.due = None);
    }
}

pub(super) fn channel_name(channel: &str) -> ChannelName {
    ChannelName::new(channel).expect("a name")
}

pub(super) fn disk(durable: bool) -> Disk {
    Disk { incarnation: INCARNATION, durable, crc: slow_crc }
}

fn number(body: &[u8]) -> usize {
    core::str::from_utf8(&body[..8]).ok().and_then(|text| text.parse().ok()).expect("a number")
}
