//! One publish: a message, several, or one for later.
//!
//! Bodies are shared, not copied, until they are written, so that a publish can be kept until it has been answered.

use crate::name::TopicName;
use crate::time::Duration;
use crate::wire;
use alloc::vec::Vec;
use bytes::{Bytes, BytesMut};

/// What is published, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    /// The topic.
    pub topic: TopicName,
    /// The message or messages.
    pub payload: Payload,
}

/// See [`Publish`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// PUB
    One(Bytes),
    /// MPUB: all or, if nsqd fails on the way, some.
    Many(Vec<Bytes>),
    /// DPUB: to be delivered after so long.
    Deferred(Duration, Bytes),
}

impl Publish {
    /// Puts it into words.
    pub(super) fn write(&self, out: &mut BytesMut) {
        let topic = self.topic.as_str();
        match &self.payload {
            Payload::One(body) => wire::publish(topic, body, out),
            Payload::Many(bodies) => wire::publish_many(topic, bodies, out),
            Payload::Deferred(delay, body) => wire::publish_deferred(topic, *delay, body, out),
        }
    }
}
