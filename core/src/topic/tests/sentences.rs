//! The words that scenarios are made of: publish, consume, finish, and what came of it.
//!
//! Each does one thing at the present moment and everything that follows from it. Answers that a scenario did not ask
//! about must be what one expects: a publish or a SUB that is refused by surprise fails the test.

use super::bench::{Bench, Delivery, Seen};
use crate::identity::ClientInfo;
use crate::message::{Bodies, MessageId};
use crate::name::ChannelName;
use crate::options::Options;
use crate::time::{Duration, Timestamp};
use crate::topic::Handled;
use crate::topic::io::{Admin, ConnId, Consumer, Input, Refusal, Slot, ToConn};
use crate::topic::stats::{ChannelStats, ConsumerStats};
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use bytes::Bytes;

pub(super) const GIB: usize = 1 << 30;
/// The timeout of consumers that do not say otherwise.
pub(super) const TIMEOUT: Duration = Duration::from_secs(60);
pub(super) const NANO: Duration = Duration::from_nanos(1);

pub(super) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(super) fn channel(name: &str) -> ChannelName {
    ChannelName::new(name).expect("a valid name")
}

/// A consumer as most scenarios need it.
pub(super) fn plain_consumer() -> Consumer {
    let client = ClientInfo {
        client_id: String::new(),
        hostname: String::new(),
        user_agent: String::new(),
        topology_region: String::new(),
        topology_zone: String::new(),
        remote_address: String::new(),
        connected: Timestamp::from_nanos(0),
        sample_rate: 0,
        msg_timeout: TIMEOUT,
    };
    Consumer { msg_timeout: TIMEOUT, sample_rate: 0, outbox_limit: usize::MAX, client: Arc::new(client) }
}

/// The bodies of an MPUB in their wire form.
pub(super) fn many<B: AsRef<[u8]>>(bodies: impl IntoIterator<Item = B>) -> Bodies {
    let (mut wire, mut count) = (Vec::new(), 0);
    for body in bodies {
        let body = body.as_ref();
        wire.extend_from_slice(&(body.len() as u32).to_be_bytes());
        wire.extend_from_slice(body);
        count += 1;
    }
    Bodies::many(wire.into(), count)
}

/// A bench with upstream's options.
pub(super) fn bench() -> Bench {
    bench_with(|_| {})
}

pub(super) fn bench_with(set: impl FnOnce(&mut Options)) -> Bench {
    topic_with("topic", set)
}

pub(super) fn topic_with(name: &str, set: impl FnOnce(&mut Options)) -> Bench {
    let mut options = Options::default();
    set(&mut options);
    Bench::new(name, options, GIB, 1)
}

impl Bench {
    // Producers.

    /// Publishes one message with each of the bodies.
    pub(super) fn publish<B: AsRef<[u8]>>(&mut self, bodies: impl IntoIterator<Item = B>) {
        for body in bodies {
            self.publish_at_once(Bodies::one(Bytes::copy_from_slice(body.as_ref())), Duration::ZERO).expect("taken");
        }
    }

    pub(super) fn publish_deferred(&mut self, body: &str, defer: Duration) {
        self.publish_at_once(Bodies::one(Bytes::copy_from_slice(body.as_bytes())), defer).expect("taken");
    }

    pub(super) fn publish_at_once(&mut self, bodies: Bodies, defer: Duration) -> Result<(), Refusal> {
        let (from, slot) = (self.connect(), self.slot());
        self.give([Input::Publish { from, slot, bodies, defer }]);
        self.reply(from, slot)
    }

    // Consumers.

    /// A consumer of the channel with that RDY.
    pub(super) fn consumer(&mut self, channel: &str, rdy: u32) -> ConnId {
        self.consumer_with(channel, rdy, |_| {})
    }

    pub(super) fn consumer_with(&mut self, channel: &str, rdy: u32, set: impl FnOnce(&mut Consumer)) -> ConnId {
        let mut consumer = plain_consumer();
        set(&mut consumer);
        let (conn, result) = self.subscribe(channel, consumer);
        result.expect("subscribed");
        self.ready(conn, rdy);
        conn
    }

    pub(super) fn subscribe(&mut self, name: &str, consumer: Consumer) -> (ConnId, Result<(), Refusal>) {
        let (conn, slot) = (self.connect(), self.slot());
        self.give([Input::Subscribe { conn, slot, channel: channel(name), consumer }]);
        (conn, self.reply(conn, slot))
    }

    pub(super) fn ready(&mut self, conn: ConnId, count: u32) {
        self.give([Input::Ready { conn, count }]);
    }

    pub(super) fn finish(&mut self, conn: ConnId, id: MessageId) {
        self.give([Input::Finish { conn, id, after: Slot::default() }]);
    }

    pub(super) fn requeue(&mut self, conn: ConnId, id: MessageId, delay: Duration) {
        self.give([Input::Requeue { conn, id, delay, after: Slot::default() }]);
    }

    pub(super) fn touch(&mut self, conn: ConnId, id: MessageId) {
        self.give([Input::Touch { conn, id, after: Slot::default() }]);
    }

    pub(super) fn leave(&mut self, conn: ConnId) {
        self.give([Input::Leave { conn }]);
    }

    /// Finishes all it got until nothing more comes; returns the bodies.
    pub(super) fn drain(&mut self, conn: ConnId) -> Vec<String> {
        let mut bodies = Vec::new();
        loop {
            let got = self.messages(conn);
            if got.is_empty() {
                return bodies;
            }
            self.give(got.iter().map(|message| Input::Finish { conn, id: message.id, after: Slot::default() }));
            bodies.extend(got.into_iter().map(|message| text(&message)));
        }
    }

    // Operators.

    pub(super) fn admin(&mut self, action: Admin) -> Result<(), Refusal> {
        let (from, slot) = (self.connect(), self.slot());
        self.give([Input::Admin { from, slot, action }]);
        self.reply(from, slot)
    }

    /// A pause or its end, which the node answers.
    pub(super) fn pause(&mut self, action: Admin) {
        let (from, slot) = (self.connect(), self.slot());
        assert_eq!(self.give([Input::Admin { from, slot, action }]), Handled::All);
        assert_eq!(self.streams.remove(&from), None, "pauses are answered when they are saved");
    }

    // What came of it.

    /// The messages that it got since the last look, and nothing else.
    pub(super) fn messages(&mut self, conn: ConnId) -> Vec<Delivery> {
        let message = |seen| match seen {
            Seen::Message(message) => message,
            Seen::Event(event) => panic!("{conn:?} was told {event:?}"),
        };
        self.streams.remove(&conn).unwrap_or_default().into_iter().map(message).collect()
    }

    /// The bodies of those messages.
    pub(super) fn bodies(&mut self, conn: ConnId) -> Vec<String> {
        self.messages(conn).iter().map(text).collect()
    }

    /// The only message that it got.
    pub(super) fn message(&mut self, conn: ConnId) -> Delivery {
        let mut messages = self.messages(conn);
        assert_eq!(messages.len(), 1, "one message, not {messages:?}");
        messages.remove(0)
    }

    /// The events that it was told since the last look, and nothing else.
    pub(super) fn events(&mut self, conn: ConnId) -> Vec<ToConn> {
        let event = |seen| match seen {
            Seen::Event(event) => event,
            Seen::Message(message) => panic!("{conn:?} got {message:?}"),
        };
        self.streams.remove(&conn).unwrap_or_default().into_iter().map(event).collect()
    }

    /// The only failure that it was told.
    pub(super) fn failure(&mut self, conn: ConnId) -> Refusal {
        match self.events(conn).as_slice() {
            [ToConn::Failed { why, .. }] => why.clone(),
            events => panic!("one failure, not {events:?}"),
        }
    }

    /// The reply to a slot, which must be the next thing that the connection sees.
    pub(super) fn reply(&mut self, conn: ConnId, wanted: Slot) -> Result<(), Refusal> {
        let stream = self.streams.get_mut(&conn).expect("something was said");
        let seen = stream.remove(0);
        if stream.is_empty() {
            self.streams.remove(&conn);
        }
        match seen {
            Seen::Event(ToConn::Reply { slot, result }) if slot == wanted => result,
            other => panic!("a reply to {wanted:?}, not {other:?}"),
        }
    }

    pub(super) fn channel(&self, name: &str) -> ChannelStats {
        let mut channels = self.topic.stats(Some(name), true).channels;
        assert_eq!(channels.len(), 1, "there is a channel {name}");
        channels.remove(0)
    }

    pub(super) fn client(&self, name: &str, conn: ConnId) -> ConsumerStats {
        self.channel(name).clients.into_iter().find(|client| client.conn == conn).expect("it is a consumer")
    }
}

pub(super) fn text(message: &Delivery) -> String {
    core::str::from_utf8(&message.body).expect("text").to_string()
}
