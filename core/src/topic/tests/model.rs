//! What a topic promises, in the simplest terms: for each channel a map from message to where it is.
//!
//! Actions come in; the model drives a [`Bench`] with them, follows what connections see, and panics at the first thing
//! that the rules do not permit. Who gets which message is the machine's choice where the rules leave it open; whether
//! that consumer may have a message now, and this one, is not. Knows nothing of logs, cursors and timers.

use super::actions::{Action, CHANNELS};
use super::bench::{Bench, Delivery, Seen};
use super::places::{Channel, Place};
use crate::message::{Bodies, MessageId, PAYLOAD_HEADER};
use crate::name::ChannelName;
use crate::options::Options;
use crate::time::{Duration, Instant, Timestamp};
use crate::topic::Handled;
use crate::topic::io::{Admin, ConnId, Input, Refusal, ToConn};
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

/// A topic under test and what it should be.
pub(in crate::topic) struct Model {
    pub(in crate::topic::tests) bench: Bench,
    mem_queue_size: u64,
    max_msg_timeout: Duration,
    ephemeral: bool,
    paused: bool,
    /// It waits for its channels, and what it owes until then.
    awaiting: bool,
    owed: Option<(ConnId, ToConn)>,
    gone: bool,
    /// Messages by number; the number is in the body.
    pub(super) published: Vec<Published>,
    bytes: u64,
    accepted: u64,
    backlog: Vec<u32>,
    pub(super) channels: BTreeMap<&'static str, Channel>,
    pub(super) consumers: BTreeMap<ConnId, Member>,
    /// Everybody who ever subscribed, for actions to choose from.
    pub(super) subscribers: Vec<ConnId>,
    /// Ids that somebody was told, oldest first.
    pub(super) known: Vec<MessageId>,
    /// All inputs given, with the moment: for whoever wants to repeat them.
    pub(in crate::topic::tests) given: Vec<(Instant, Input)>,
}

/// A message as it was published.
pub(super) struct Published {
    time: Timestamp,
    size: u32,
    due: Option<Instant>,
    pub(super) id: Option<MessageId>,
}

/// A consumer.
pub(super) struct Member {
    pub(super) channel: &'static str,
    rdy: u32,
    timeout: Duration,
    outbox: usize,
    outbox_limit: usize,
    sample: u8,
    closing: bool,
}

impl Model {
    pub(in crate::topic) fn new(ephemeral: bool, mem_queue_size: u64, seed: u64) -> Self {
        let max_msg_timeout = Duration::from_millis(400);
        let options = Options { mem_queue_size, max_msg_timeout, ..Options::default() };
        let name = if ephemeral { "topic#ephemeral" } else { "topic" };
        Self {
            bench: Bench::new(name, options, 1 << 30, seed),
            mem_queue_size,
            max_msg_timeout,
            ephemeral,
            paused: false,
            awaiting: false,
            owed: None,
            gone: false,
            published: Vec::new(),
            bytes: 0,
            accepted: 0,
            backlog: Vec::new(),
            channels: BTreeMap::new(),
            consumers: BTreeMap::new(),
            subscribers: Vec::new(),
            known: Vec::new(),
            given: Vec::new(),
        }
    }

    /// The same topic, but new to a cluster: it waits for its channels.
    pub(in crate::topic) fn awaiting(mut self) -> Self {
        self.bench.topic.await_channels();
        self.awaiting = true;
        self
    }

    /// Does all of it, until the topic has gone; then what is left must drain.
    pub(in crate::topic) fn run(&mut self, actions: impl IntoIterator<Item = Action>) {
        for action in actions {
            self.act(&action);
            if self.gone {
                return assert_eq!(self.bench.budget.used(), 0, "a deleted topic holds no memory");
            }
        }
        self.drain();
    }

    /// One action, and everything that follows from it.
    pub(in crate::topic::tests) fn act(&mut self, action: &Action) {
        match *action {
            _ if self.gone => {}
            Action::Carry => {
                self.bench.topic.carry_stragglers();
                self.bench.topic.check();
            }
            Action::Sleep { millis } => self.pass(Duration::from_millis(millis.into())),
            Action::Deadline { early } => {
                let Some(deadline) = self.bench.topic.deadline() else { return };
                let time = deadline.since(self.bench.now());
                self.pass(if early { time.saturating_sub(Duration::from_nanos(1)) } else { time });
            }
            _ => {
                let Some(input) = self.input(action) else { return };
                self.give(input);
            }
        }
    }

    /// Lets time pass, stopping wherever the topic wants to be called; an early tick must not do anything.
    fn pass(&mut self, duration: Duration) {
        let end = self.bench.now() + duration;
        loop {
            let next = self.bench.topic.deadline().filter(|deadline| *deadline <= end);
            self.bench.sleep(next.unwrap_or(end).since(self.bench.now()));
            self.channels.values_mut().for_each(|channel| channel.expire(self.bench.now()));
            if next.is_none() {
                self.bench.turn(&mut VecDeque::new());
            }
            self.bench.settle();
            self.follow(Vec::new());
            if next.is_none() {
                return;
            }
        }
    }

    pub(super) fn give(&mut self, input: Input) {
        self.given.push((self.bench.now(), input.clone()));
        let handled = self.bench.give([input.clone()]);
        let expected = self.expect(&input);
        self.follow(expected);
        assert_eq!(handled == Handled::Gone, self.gone, "the topic goes when it should");
    }

    // What the rules say about an input.

    /// Applies an input to the model; returns what its sender must be told.
    fn expect(&mut self, input: &Input) -> Vec<(ConnId, ToConn)> {
        let awaited = self.awaiting;
        let mut answer = self.answer_to(input);
        let creates = matches!(input, Input::Publish { .. } | Input::Subscribe { .. })
            || matches!(input, Input::Admin { action: Admin::CreateTopic, .. });
        if self.awaiting && creates && self.owed.is_none() {
            self.owed = answer.take();
        }
        let ended = awaited && (self.gone || !self.awaiting);
        let owed = if ended { self.owed.take() } else { None };
        let mut answers: Vec<_> = owed.into_iter().chain(answer).collect();
        answers.sort_by_key(|(conn, _)| *conn);
        answers
    }

    fn answer_to(&mut self, input: &Input) -> Option<(ConnId, ToConn)> {
        let now = self.bench.now();
        match input {
            Input::Publish { from, slot, bodies, defer } => {
                self.publish(bodies, *defer);
                Some((*from, ToConn::Reply { slot: *slot, result: Ok(()) }))
            }
            Input::Subscribe { conn, slot, channel, consumer } => {
                let channel = self.create(channel);
                let member = Member {
                    channel,
                    rdy: 0,
                    timeout: consumer.msg_timeout,
                    outbox: 0,
                    outbox_limit: consumer.outbox_limit,
                    sample: consumer.sample_rate,
                    closing: false,
                };
                self.consumers.insert(*conn, member);
                Some((*conn, ToConn::Reply { slot: *slot, result: Ok(()) }))
            }
            Input::Ready { conn, count } => {
                self.consumers.get_mut(conn)?.rdy = *count;
                None
            }
            Input::Room { conn, bytes } => {
                let member = self.consumers.get_mut(conn)?;
                member.outbox = member.outbox.saturating_sub(*bytes);
                None
            }
            Input::Close { conn, slot } => {
                if let Some(member) = self.consumers.get_mut(conn) {
                    (member.closing, member.rdy) = (true, 0);
                }
                Some((*conn, ToConn::Reply { slot: *slot, result: Ok(()) }))
            }
            Input::Leave { conn } => {
                let member = self.consumers.remove(conn)?;
                let left = self.consumers.values().all(|other| other.channel != member.channel);
                if left && member.channel.ends_with("#ephemeral") {
                    self.delete(member.channel);
                }
                None
            }
            Input::Finish { conn, id, .. } | Input::Requeue { conn, id, .. } | Input::Touch { conn, id, .. } => {
                self.landing(*conn, *id, input, now).err().map(|why| (*conn, failed(input, why)))
            }
            Input::Disk { .. } | Input::Shutdown => None,
            Input::Admin { from, slot, action } => {
                let result = self.administer(action)?;
                Some((*from, ToConn::Reply { slot: *slot, result }))
            }
            Input::Channels(names) => {
                if self.awaiting {
                    for name in names {
                        self.channels.entry(known(name)).or_default();
                    }
                    self.awaiting = false;
                    self.fan_out();
                }
                None
            }
        }
    }

    fn publish(&mut self, bodies: &Bodies, defer: Duration) {
        let held_back = self.paused || self.awaiting || self.channels.is_empty();
        let time = self.bench.timestamp();
        let due = (!defer.is_zero()).then(|| self.bench.now() + defer);
        bodies.clone().take_while(|body| {
            self.accepted += 1;
            self.bytes += body.len() as u64;
            let number = self.published.len() as u32;
            self.published.push(Published { time, size: body.len() as u32, due, id: None });
            if !(held_back && self.ephemeral && self.backlog.len() as u64 >= self.mem_queue_size) {
                self.backlog.push(number);
            }
            true
        });
        self.fan_out();
    }

    fn fan_out(&mut self) {
        if self.paused || self.awaiting || self.channels.is_empty() {
            return;
        }
        let backlog = core::mem::take(&mut self.backlog);
        for (&name, channel) in &mut self.channels {
            let ready = self.consumers.iter().filter(|(conn, member)| member.is_ready(name, channel, **conn));
            let credit: u64 = ready.map(|(conn, member)| u64::from(member.rdy - channel.held_by(*conn))).sum();
            let room = self.mem_queue_size + if channel.paused { 0 } else { credit };
            for &message in &backlog {
                channel.total += 1;
                match self.published[message as usize].due {
                    Some(due) => {
                        channel.messages.insert(message, Place::Deferred { attempts: 0, due });
                    }
                    None if name.ends_with("#ephemeral") && channel.depth() >= room => channel.dropped += 1,
                    None => {
                        channel.messages.insert(message, Place::Fresh);
                    }
                }
            }
            channel.expire(self.bench.now());
        }
    }

    fn landing(&mut self, conn: ConnId, id: MessageId, input: &Input, now: Instant) -> Result<(), Refusal> {
        let member = self.consumers.get(&conn).ok_or(Refusal::NotInFlight)?;
        let channel = self.channels.get_mut(member.channel).expect("a consumer's channel");
        let is_it = |message: &u32| self.published[*message as usize].id == Some(id);
        let found = channel.messages.iter_mut().find(|(message, _)| is_it(message));
        let Some((&message, Place::Flying { attempts, owner, deadline, delivered })) = found else {
            return Err(Refusal::NotInFlight);
        };
        if *owner != conn {
            return Err(Refusal::NotOwner);
        }
        let attempts = *attempts;
        match *input {
            Input::Finish { .. } => {
                channel.messages.remove(&message);
                channel.finished += 1;
            }
            Input::Requeue { delay, .. } => {
                channel.requeued += 1;
                if delay.is_zero() {
                    channel.put_back(message, attempts);
                    channel.put_back += 1;
                } else {
                    channel.messages.insert(message, Place::Deferred { attempts, due: now + delay });
                }
            }
            _ => {
                *deadline = (now + member.timeout).min(*delivered + self.max_msg_timeout);
                channel.expire(now);
            }
        }
        Ok(())
    }

    fn administer(&mut self, action: &Admin) -> Option<Result<(), Refusal>> {
        let missing = |name: &ChannelName| !self.channels.contains_key(name.as_str());
        match action {
            Admin::DeleteChannel(name) | Admin::EmptyChannel(name) | Admin::PauseChannel(name, _) if missing(name) => {
                return Some(Err(Refusal::NoChannel));
            }
            Admin::CreateTopic => {}
            Admin::CreateChannel(name) => {
                self.create(name);
            }
            Admin::DeleteChannel(name) => self.delete(known(name)),
            Admin::EmptyChannel(name) => {
                let channel = self.channels.get_mut(name.as_str())?;
                channel.dropped += channel.messages.len() as u64;
                channel.messages.clear();
            }
            Admin::PauseChannel(name, paused) => {
                self.channels.get_mut(name.as_str())?.paused = *paused;
                return None;
            }
            Admin::EmptyTopic => self.backlog.clear(),
            Admin::PauseTopic(paused) => {
                self.paused = *paused;
                self.fan_out();
                return None;
            }
            Admin::DeleteTopic => {
                while let Some((&name, _)) = self.channels.first_key_value() {
                    self.delete(name);
                }
                self.gone = true;
            }
        }
        Some(Ok(()))
    }

    fn create(&mut self, name: &ChannelName) -> &'static str {
        let name = known(name);
        self.channels.entry(name).or_default();
        self.fan_out();
        name
    }

    fn delete(&mut self, name: &'static str) {
        self.channels.remove(name);
        self.consumers.retain(|conn, member| {
            let stays = member.channel != name;
            if !stays {
                let disconnect = Seen::Event(ToConn::Disconnect);
                let stream = self.bench.streams.get_mut(conn).expect("it was told to hang up");
                let at = stream.iter().position(|seen| *seen == disconnect).expect("it was told to hang up");
                stream.remove(at);
            }
            stays
        });
        self.gone |= self.ephemeral && self.channels.is_empty();
    }

    // What the rules say about deliveries.

    /// Follows what connections saw, which must be the expected answer and deliveries that are permitted.
    fn follow(&mut self, expected: Vec<(ConnId, ToConn)>) {
        let mut answers = Vec::new();
        let mut deliveries: BTreeMap<(&str, ConnId), VecDeque<Delivery>> = BTreeMap::new();
        for (conn, stream) in core::mem::take(&mut self.bench.streams) {
            for seen in stream {
                match seen {
                    Seen::Event(event) => answers.push((conn, event)),
                    Seen::Message(message) => {
                        let channel = self.consumers.get(&conn).expect("only consumers get messages").channel;
                        deliveries.entry((channel, conn)).or_default().push_back(message);
                    }
                }
            }
        }
        assert_eq!(answers, expected);
        let names: Vec<_> = self.channels.keys().copied().collect();
        for name in names {
            let mut streams: Vec<_> = deliveries.extract_if((name, ConnId(0)).., |(of, _), _| *of == name).collect();
            let mut sampled = self.sampled(name);
            // The order between consumers is not seen, but there must be one that is permitted.
            loop {
                let next = self.channels[name].next();
                let heads = streams.iter_mut().map(|((_, conn), stream)| (*conn, stream));
                if let Some(at) = sampled.iter().position(|message| next.contains(message)) {
                    self.drop_sampled(name, sampled.remove(at));
                } else if let Some((conn, message)) = take_head(heads, &next) {
                    self.deliver(name, conn, &message);
                } else {
                    break;
                }
            }
            let left: Vec<_> = streams.iter().flat_map(|(_, stream)| stream).collect();
            assert!(left.is_empty() && sampled.is_empty(), "{left:?} or {sampled:?} of {name} out of turn");
        }
        assert!(deliveries.is_empty(), "only existing channels deliver");
        self.at_rest();
        self.compare();
    }

    /// The messages that the machine does not hold any more.
    fn sampled(&self, name: &str) -> Vec<u32> {
        let mut missing = self.channels[name].messages.clone();
        self.bench.topic.held(|channel, payload| {
            if channel.is_some_and(|channel| channel.as_str() == name) {
                missing.remove(&number(&payload[PAYLOAD_HEADER..]));
            }
        });
        missing.into_keys().collect()
    }

    fn drop_sampled(&mut self, name: &str, message: u32) {
        let channel = self.channels.get_mut(name).expect("a channel");
        let mut ready = self.consumers.iter().filter(|(conn, member)| member.is_ready(name, channel, **conn));
        let samples = !channel.paused && ready.any(|(_, member)| member.sample > 0);
        assert!(samples, "only a ready consumer that samples may drop message {message} of {name}");
        channel.messages.remove(&message);
        channel.dropped += 1;
        channel.handed_out += 1;
    }

    fn deliver(&mut self, name: &str, conn: ConnId, message: &Delivery) {
        let now = self.bench.now();
        let channel = self.channels.get_mut(name).expect("a channel");
        let member = &self.consumers[&conn];
        assert!(!channel.paused, "a paused channel hands out nothing");
        assert!(member.is_ready(name, channel, conn), "{conn:?} may not have {message:?} now");
        let number = number(&message.body);
        let published = &mut self.published[number as usize];
        assert_eq!((message.published, message.body.len()), (published.time, published.size as usize));
        assert_eq!(*published.id.get_or_insert(message.id), message.id, "an id for life");
        self.known.push(message.id);
        let before = match channel.messages[&number] {
            Place::Waiting { attempts, .. } => attempts,
            _ => 0,
        };
        assert_eq!(message.attempts, before + 1, "attempts count deliveries");
        let deadline = now + member.timeout;
        let flying = Place::Flying { attempts: message.attempts, owner: conn, deadline, delivered: now };
        channel.messages.insert(number, flying);
        channel.handed_out += 1;
        self.consumers.get_mut(&conn).expect("a consumer").outbox += message.bytes;
    }

    /// Nothing that could be handed out is left, and every timer is in the topic's deadline.
    fn at_rest(&self) {
        let mut due = Vec::new();
        for (&name, channel) in &self.channels {
            let ready = self.consumers.iter().any(|(conn, member)| member.is_ready(name, channel, *conn));
            assert!(channel.paused || channel.depth() == 0 || !ready, "{name} hands out what it can");
            due.extend(channel.messages.values().filter_map(|place| match *place {
                Place::Flying { deadline, .. } => Some(deadline),
                Place::Deferred { due, .. } => Some(due),
                _ => None,
            }));
        }
        let due = due.into_iter().min();
        assert!(due.is_none_or(|due| due > self.bench.now()), "nothing due is left");
        let deadline = self.bench.topic.deadline();
        assert!(due.is_none() || deadline.is_some_and(|deadline| Some(deadline) <= due), "{deadline:?} for {due:?}");
    }

    fn compare(&self) {
        let stats = self.bench.topic.stats(None, true);
        assert_eq!((stats.message_count, stats.message_bytes), (self.accepted, self.bytes));
        if self.gone {
            return;
        }
        assert_eq!((stats.depth, stats.paused), (self.backlog.len() as u64, self.paused));
        let names: Vec<_> = stats.channels.iter().map(|channel| channel.name.as_str()).collect();
        assert!(names.iter().eq(self.channels.keys()), "{names:?}");
        for (stats, (&name, channel)) in stats.channels.iter().zip(&self.channels) {
            let flying = channel.count(|place| matches!(place, Place::Flying { .. }));
            let deferred = channel.count(|place| matches!(place, Place::Deferred { .. }));
            assert_eq!(
                [stats.depth, stats.in_flight_count as u64, stats.deferred_count as u64, stats.message_count],
                [channel.depth(), flying, deferred, channel.total],
                "depth, in flight, deferred and all of {name}"
            );
            assert_eq!(
                [stats.finish_count, stats.requeue_count, stats.timeout_count, stats.dropped_count],
                [channel.finished, channel.requeued, channel.timed_out, channel.dropped],
                "finished, requeued, timed out and dropped of {name}"
            );
            assert_eq!(stats.client_count, self.consumers.values().filter(|member| member.channel == name).count());
            for client in &stats.clients {
                let member = &self.consumers[&client.conn];
                assert_eq!((client.ready_count, client.closing), (member.rdy, member.closing));
                assert_eq!(client.in_flight_count, channel.held_by(client.conn));
            }
        }
        if self.backlog.is_empty() && self.channels.values().all(|channel| channel.messages.is_empty()) {
            assert_eq!(self.bench.budget.used(), 0, "nobody needs anything");
        }
    }

    /// Gives every channel one willing consumer: all that is left must come.
    fn drain(&mut self) {
        for conn in self.consumers.keys().copied().collect::<Vec<_>>() {
            self.give(Input::Ready { conn, count: 0 });
        }
        self.act(&Action::PauseTopic { paused: false });
        self.act(&Action::Channels { which: 0 });
        let names: Vec<_> = self.channels.keys().copied().collect();
        for name in names {
            let channel = CHANNELS.iter().position(|known| *known == name).expect("known") as u8;
            self.act(&Action::PauseChannel { channel, paused: false });
            self.act(&Action::Subscribe { channel, timeout: u16::MAX, outbox: 0, sample: 0 });
            let who = (self.subscribers.len() - 1) as u8;
            let conn = *self.subscribers.last().expect("one");
            self.give(Input::Ready { conn, count: u32::MAX });
            for round in 0.. {
                self.act(&Action::FinishAll { who });
                if self.channels[name].messages.is_empty() {
                    break;
                }
                assert!(round < 1000, "{name} drains");
                self.act(&Action::Deadline { early: false });
            }
        }
    }
}

impl Member {
    fn is_ready(&self, channel: &str, its: &Channel, conn: ConnId) -> bool {
        self.channel == channel && !self.closing && its.held_by(conn) < self.rdy && self.outbox < self.outbox_limit
    }
}

fn known(name: &ChannelName) -> &'static str {
    CHANNELS.into_iter().find(|known| *known == name.as_str()).expect("one of ours")
}

/// The first message of one of the streams that may be next.
fn take_head<'a>(
    heads: impl Iterator<Item = (ConnId, &'a mut VecDeque<Delivery>)>,
    next: &[u32],
) -> Option<(ConnId, Delivery)> {
    for (conn, stream) in heads {
        if stream.front().is_some_and(|head| next.contains(&number(&head.body))) {
            return stream.pop_front().map(|message| (conn, message));
        }
    }
    None
}

fn number(body: &[u8]) -> u32 {
    core::str::from_utf8(&body[..8]).ok().and_then(|number| number.parse().ok()).expect("a number")
}

fn failed(input: &Input, why: Refusal) -> ToConn {
    use crate::topic::io::Verb;
    match *input {
        Input::Finish { id, after, .. } => ToConn::Failed { after, verb: Verb::Fin, id, why },
        Input::Requeue { id, after, .. } => ToConn::Failed { after, verb: Verb::Req, id, why },
        Input::Touch { id, after, .. } => ToConn::Failed { after, verb: Verb::Touch, id, why },
        _ => panic!("{input:?} cannot fail like that"),
    }
}
