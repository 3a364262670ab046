//! A topic on a bench: inputs go in, effects come out as what each connection would see, and time is moved by hand.
//!
//! Frames are parsed back into deliveries, in order with the events between them. Calls of the machine are followed by
//! [`Topic::check`]: each one, as long as the topic holds little, and so often that checking takes a bounded time for a
//! call when it holds much. That is the one rule, and why nothing here touches the topic otherwise.

use crate::budget::Budget;
use crate::message::MessageId;
use crate::options::Options;
use crate::time::{Duration, Instant, Now, Timestamp};
use crate::topic::disk::Job;
use crate::topic::io::{ConnId, Effects, Input, Notice, Outgoing, Slot, ToConn};
use crate::topic::{Handled, Topic};
use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Bench {
    pub(super) topic: Topic,
    pub(super) budget: Budget,
    pub(super) notices: Vec<Notice>,
    /// What each connection has seen and no test has looked at yet.
    pub(super) streams: BTreeMap<ConnId, Vec<Seen>>,
    /// Calls of the machine so far.
    pub(super) turns: usize,
    /// Calls since the last check.
    unchecked: usize,
    now: Now,
    out: Effects,
    /// What the topic wants its disk to do.
    pub(super) jobs: Vec<Job>,
    last_conn: u64,
    last_slot: u32,
}

/// One thing that a connection sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// A message frame.
    Message(Delivery),
    /// An event between frames.
    Event(ToConn),
}

/// A message frame, parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Delivery {
    pub(super) id: MessageId,
    pub(super) attempts: u16,
    pub(super) published: Timestamp,
    pub(super) body: Vec<u8>,
    /// The size of the whole frame.
    pub(super) bytes: usize,
}

const START: Timestamp = Timestamp::from_nanos(1_800_000_000_000_000_000);

impl Bench {
    pub(super) fn new(name: &str, options: Options, memory: usize, seed: u64) -> Self {
        let budget = Budget::new(memory);
        let name = crate::name::TopicName::new(name).expect("a valid name");
        Self::of(Topic::new(name, Arc::new(options), budget.clone(), seed), budget)
    }

    /// A bench for a topic that there is.
    pub(super) fn of(topic: Topic, budget: Budget) -> Self {
        Self {
            topic,
            budget,
            notices: Vec::new(),
            streams: BTreeMap::new(),
            turns: 0,
            unchecked: 0,
            now: Now { instant: Instant::from_nanos(1_000_000_000), timestamp: START },
            out: Effects::default(),
            jobs: Vec::new(),
            last_conn: 0,
            last_slot: 0,
        }
    }

    pub(super) fn now(&self) -> Instant {
        self.now.instant
    }

    /// Connections and slots are numbered as they would be on the other bench.
    #[cfg(test)]
    pub(super) const fn goes_on_from(&mut self, other: &Self) {
        (self.last_conn, self.last_slot) = (other.last_conn, other.last_slot);
    }

    /// Both clocks, to be looked at or set.
    #[cfg(test)]
    pub(super) fn clock(&mut self) -> &mut Now {
        &mut self.now
    }

    pub(super) fn timestamp(&self) -> Timestamp {
        self.now.timestamp
    }

    /// A connection that was never used.
    pub(super) fn connect(&mut self) -> ConnId {
        self.last_conn += 1;
        ConnId(self.last_conn)
    }

    /// A slot that was never used.
    pub(super) fn slot(&mut self) -> Slot {
        self.last_slot += 1;
        Slot(self.last_slot)
    }

    /// Applies the inputs and everything that follows from them at this moment.
    pub(super) fn give(&mut self, inputs: impl IntoIterator<Item = Input>) -> Handled {
        let handled = self.handle(inputs);
        self.settle();
        handled
    }

    /// Applies the inputs, coming back as often as the topic asks for it.
    pub(super) fn handle(&mut self, inputs: impl IntoIterator<Item = Input>) -> Handled {
        let mut batch: VecDeque<Input> = inputs.into_iter().collect();
        loop {
            let left = batch.len();
            match self.turn(&mut batch) {
                Handled::Some => assert!(batch.len() <= left, "inputs do not multiply"),
                done => return done,
            }
        }
    }

    /// One call of the machine.
    pub(super) fn turn(&mut self, batch: &mut VecDeque<Input>) -> Handled {
        self.turns += 1;
        let handled = self.topic.handle(self.now, batch, &mut self.out);
        self.unchecked += 1;
        if self.unchecked * 32 >= self.topic.burden() {
            self.topic.check();
            self.unchecked = 0;
        }
        assert_eq!(handled == Handled::Gone, self.topic.is_gone(), "only a deleted topic is gone");
        assert!(handled != Handled::All || batch.is_empty(), "all is all");
        for outgoing in &self.out.conns {
            parse(outgoing, self.streams.entry(outgoing.conn).or_default());
        }
        self.notices.append(&mut self.out.notices);
        self.jobs.append(&mut self.out.disk);
        self.out.clear();
        handled
    }

    /// Ticks until nothing more is due at this moment.
    pub(super) fn settle(&mut self) {
        let limit = self.turns + 100_000;
        while self.topic.deadline().is_some_and(|deadline| deadline <= self.now.instant) {
            self.turn(&mut VecDeque::new());
            assert!(self.turns < limit, "the topic comes to rest");
        }
    }

    /// The next effects go into a new buffer.
    #[cfg(test)]
    pub(super) fn new_buffer(&mut self) {
        self.out = Effects::default();
    }

    /// Lets time pass without calling the topic.
    pub(super) fn sleep(&mut self, duration: Duration) {
        self.now.instant = self.now.instant + duration;
        let nanos = i64::try_from(duration.as_nanos()).expect("a short sleep");
        self.now.timestamp = Timestamp::from_nanos(self.now.timestamp.as_nanos() + nanos);
    }

    /// Lets time pass, calling the topic whenever it wants to be called.
    #[cfg(test)]
    pub(super) fn pass(&mut self, duration: Duration) {
        let end = self.now.instant + duration;
        while let Some(deadline) = self.topic.deadline().filter(|deadline| *deadline <= end) {
            self.sleep(deadline.since(self.now.instant));
            self.settle();
        }
        self.sleep(end.since(self.now.instant));
    }
}

/// Takes what a connection gets apart, and checks that it is well-formed.
fn parse(outgoing: &Outgoing, seen: &mut Vec<Seen>) {
    let mut events = outgoing.events.iter().peekable();
    let mut at = 0;
    assert!(events.clone().is_sorted_by_key(|(position, _)| *position), "events are in order");
    loop {
        while let Some((_, event)) = events.next_if(|(position, _)| *position == at) {
            seen.push(Seen::Event(event.clone()));
        }
        let rest = &outgoing.frames[at..];
        if rest.is_empty() {
            break;
        }
        let word = |at: usize| u32::from_be_bytes(rest[at..at + 4].try_into().expect("four bytes"));
        assert_eq!(word(4), 2, "a message frame");
        let bytes = word(0) as usize + 4;
        let payload = &rest[8..bytes];
        seen.push(Seen::Message(Delivery {
            published: Timestamp::from_nanos(i64::from_be_bytes(payload[..8].try_into().expect("eight bytes"))),
            attempts: u16::from_be_bytes(payload[8..10].try_into().expect("two bytes")),
            id: MessageId::of_payload(payload),
            body: payload[26..].to_vec(),
            bytes,
        }));
        at += bytes;
    }
    assert_eq!(events.next(), None, "every event is at the edge of a frame");
}
