//! What goes into a topic and what comes out of it.
//!
//! Inputs are a connection's commands, an operator's actions, and news of sockets. Effects are grouped by destination:
//! for every connection its frames and the events between them, for the node what its directory must know.

use super::disk::{Failed, Job, Loaded};
use crate::identity::ClientInfo;
use crate::message::{Bodies, MessageId};
use crate::name::{ChannelName, TopicName};
use crate::storage::journal::Incarnation;
use crate::storage::recovered::Problem;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

/// A connection, or an HTTP request; unique within a process and never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

/// One reply that a connection awaits; replies leave in the order of their slots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u32);

/// What a topic is told.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "the variants' documentation names their fields")]
pub enum Input {
    /// PUB, MPUB, DPUB, `/pub`, `/mpub`: replied to when the last body is in the log.
    Publish { from: ConnId, slot: Slot, bodies: Bodies, defer: Duration },
    /// SUB; creates the channel if need be.
    Subscribe { conn: ConnId, slot: Slot, channel: ChannelName, consumer: Consumer },
    /// RDY: the most messages the consumer may hold.
    Ready { conn: ConnId, count: u32 },
    /// So many bytes of delivered frames have left the consumer's outbox for its socket.
    Room { conn: ConnId, bytes: usize },
    /// FIN. No reply on success; a failure is told behind the reply to slot `after`.
    Finish { conn: ConnId, id: MessageId, after: Slot },
    /// REQ, answered like FIN; `delay` was clamped by the session.
    Requeue { conn: ConnId, id: MessageId, delay: Duration, after: Slot },
    /// TOUCH, answered like FIN.
    Touch { conn: ConnId, id: MessageId, after: Slot },
    /// CLS: no more messages; what is in flight may still be finished.
    Close { conn: ConnId, slot: Slot },
    /// The consumer's socket is gone.
    Leave { conn: ConnId },
    /// An operator's action.
    Admin { from: ConnId, slot: Slot, action: Admin },
    /// A job of [`Effects::disk`] was done (and what it read, if it was to read), or has failed.
    Disk { id: u64, result: Result<Option<Loaded>, Failed> },
    /// The process is about to end: write everything. [`Notice::Stored`] says when that is done; nothing is published
    /// from now on.
    Shutdown,
    /// What nsqlookupds know of the topic's channels, or as much of it as they have told in time: a topic that
    /// [awaits](super::Topic::await_channels) this creates them and starts; for any other it means nothing.
    Channels(Vec<ChannelName>),
}

/// Bytes of frames that may wait for a consumer's socket before nothing more is handed to it; the frame that exceeds
/// them still may, so one of any size always can.
pub const OUTBOX_LIMIT: usize = 64 * 1024;

/// A consumer as SUB brings it.
#[derive(Clone, Debug)]
pub struct Consumer {
    /// How long it may hold a message before that is given to another.
    pub msg_timeout: Duration,
    /// 1 to 99: it gets about so many percent of the messages, the rest is dropped; 0 is off.
    pub sample_rate: u8,
    /// Bytes that may wait for its socket before nothing more is handed to it.
    pub outbox_limit: usize,
    /// For stats.
    pub client: Arc<ClientInfo>,
}

/// What an operator does to a topic or to one of its channels, over HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admin {
    /// Nothing more than that there is the topic, and that it has started.
    CreateTopic,
    /// Create the channel if it does not exist.
    CreateChannel(ChannelName),
    /// Remove the channel with all it holds; its consumers are disconnected.
    DeleteChannel(ChannelName),
    /// Drop all the channel holds.
    EmptyChannel(ChannelName),
    /// Stop (true) or resume (false) handing out the channel's messages.
    PauseChannel(ChannelName, bool),
    /// Drop what has not been given to channels.
    EmptyTopic,
    /// Stop (true) or resume (false) giving messages to channels.
    PauseTopic(bool),
    /// Remove the topic and its channels; what comes after is answered [`Handled::Gone`](super::Handled).
    DeleteTopic,
}

/// All that a topic wants done; the driver routes it before it lets go of the topic, then wakes who got something.
#[derive(Debug, Default)]
pub struct Effects {
    /// One entry a connection and turn.
    pub conns: Vec<Outgoing>,
    /// For the node, in order.
    pub notices: Vec<Notice>,
    /// For the disk, in order for each lane.
    pub disk: Vec<Job>,
    /// Buffers of groups, to be used again.
    spare: Vec<(Vec<u8>, Events)>,
}

/// How many buffers are kept, and how large one for frames may be.
const SPARE: usize = 4;
const SPARE_MAX: usize = 2 * OUTBOX_LIMIT;

/// What one connection gets: message frames, and events at places between them.
#[derive(Debug)]
pub struct Outgoing {
    /// To whom.
    pub conn: ConnId,
    /// Whole V2 message frames, back to back.
    pub frames: Vec<u8>,
    /// Each belongs in front of the frames' byte at that position (or at their end), in this order.
    pub events: Events,
}

/// Events for a connection, each with its place among the bytes of frames.
pub type Events = Vec<(usize, ToConn)>;

/// An event for a connection; its session (or the HTTP handler) makes words of it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the variants' documentation names their fields")]
pub enum ToConn {
    /// The answer to a slot.
    Reply { slot: Slot, result: Result<(), Refusal> },
    /// A FIN, REQ or TOUCH failed; goes out behind the reply to slot `after`.
    Failed { after: Slot, verb: Verb, id: MessageId, why: Refusal },
    /// The channel was deleted: hang up.
    Disconnect,
}

/// Which command on a message in flight failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// FIN
    Fin,
    /// REQ
    Req,
    /// TOUCH
    Touch,
}

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The message is not in flight: finished, timed out, or never was.
    NotInFlight,
    /// The message is in flight to another connection.
    NotOwner,
    /// `--max-channel-consumers` is reached.
    TooManyConsumers {
        /// The topic.
        topic: TopicName,
        /// The channel.
        channel: ChannelName,
        /// The limit.
        limit: usize,
    },
    /// `--mem-queue-bytes` is used up; more can be published when consumers have caught up.
    QueueFull,
    /// It could not be written, and whether it will be, and delivered, is open; or the disk fails, and it was not
    /// tried.
    NotWritten,
    /// The topic, or the process, is going away.
    Exiting,
    /// The change could not be written to `nsqd.dat`.
    NotSaved,
    /// There is no such channel.
    NoChannel,
}

/// What the node's directory must know.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the variants' documentation names their fields")]
pub enum Notice {
    /// A topic was created.
    TopicCreated(TopicName),
    /// A topic was deleted, with all its channels.
    TopicDeleted(TopicName),
    /// A channel was created; with what tells it from one that is [gone](crate::directory::ChannelEntry::incarnation).
    ChannelCreated(TopicName, ChannelName, Option<Incarnation>),
    /// A channel was deleted.
    ChannelDeleted(TopicName, ChannelName),
    /// Everything that the topic has is on disk, after [`Input::Shutdown`]; or why it is not.
    Stored { topic: TopicName, result: Result<(), String> },
    /// Messages that were on disk are damaged, or cannot be read at present: for the log.
    Damaged { topic: TopicName, problem: Problem },
    /// Paused or resumed; whoever asked is answered when that is saved.
    TopicPaused { topic: TopicName, paused: bool, from: ConnId, slot: Slot },
    /// Paused or resumed; whoever asked is answered when that is saved.
    ChannelPaused { topic: TopicName, channel: ChannelName, paused: bool, from: ConnId, slot: Slot },
}

impl Effects {
    /// Empties the lists, keeping their memory.
    pub fn clear(&mut self) {
        for mut group in self.conns.drain(..) {
            if self.spare.len() < SPARE && group.frames.capacity() <= SPARE_MAX {
                group.frames.clear();
                group.events.clear();
                self.spare.push((group.frames, group.events));
            }
        }
        self.notices.clear();
        self.disk.clear();
    }

    /// The group of a connection; `hint` is where it was the last time, in whatever buffer that was.
    #[inline]
    pub(super) fn to(&mut self, conn: ConnId, hint: &mut usize) -> &mut Outgoing {
        if self.conns.get(*hint).is_none_or(|group| group.conn != conn) {
            *hint = self.conns.iter().rposition(|group| group.conn == conn).unwrap_or(self.conns.len());
            if *hint == self.conns.len() {
                let (frames, events) = self.spare.pop().unwrap_or_default();
                self.conns.push(Outgoing { conn, frames, events });
            }
        }
        &mut self.conns[*hint]
    }

    pub(super) fn tell(&mut self, conn: ConnId, event: ToConn) {
        let group = self.to(conn, &mut 0);
        group.events.push((group.frames.len(), event));
    }
}
