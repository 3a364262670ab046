//! What may happen to a topic, and the inputs that come of it.
//!
//! An action says it with small numbers, so that any numbers make sense; which consumer and which message that is,
//! the model's state tells.

use super::model::Model;
use super::places::Place;
use crate::identity::ClientInfo;
use crate::message::{Bodies, MessageId};
use crate::name::ChannelName;
use crate::time::{Duration, Timestamp};
use crate::topic::io::{Admin, ConnId, Consumer, Input, Slot};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// Something that happens to a topic. Numbers that choose among things are taken modulo how many there are.
#[derive(Clone, Debug)]
pub(in crate::topic) enum Action {
    Publish {
        count: u8,
        size: u32,
        defer: u16,
    },
    Subscribe {
        channel: u8,
        timeout: u16,
        outbox: u16,
        sample: u8,
    },
    Ready {
        who: u8,
        count: u16,
    },
    Room {
        who: u8,
        bytes: u16,
    },
    Finish {
        who: u8,
        which: u16,
    },
    Requeue {
        who: u8,
        which: u16,
        delay: u16,
    },
    Touch {
        who: u8,
        which: u16,
    },
    /// A consumer finishes all it holds.
    FinishAll {
        who: u8,
    },
    Close {
        who: u8,
    },
    Leave {
        who: u8,
    },
    CreateChannel {
        channel: u8,
    },
    DeleteChannel {
        channel: u8,
    },
    EmptyChannel {
        channel: u8,
    },
    PauseChannel {
        channel: u8,
        paused: bool,
    },
    CreateTopic,
    EmptyTopic,
    PauseTopic {
        paused: bool,
    },
    DeleteTopic,
    /// nsqlookupds have answered: a bit for each channel that they know.
    Channels {
        which: u8,
    },
    /// Stragglers are carried forward, whether that pays or not.
    Carry,
    Sleep {
        millis: u16,
    },
    /// To the next deadline, if there is one, or to a nanosecond before it.
    Deadline {
        early: bool,
    },
}

/// The channels of a model.
pub(super) const CHANNELS: [&str; 4] = ["a", "b", "c#ephemeral", "d#ephemeral"];

impl Model {
    /// The input for an action, if it makes one.
    pub(super) fn input(&mut self, action: &Action) -> Option<Input> {
        let name = |channel: u8| CHANNELS[usize::from(channel) % CHANNELS.len()];
        let channel = |channel| ChannelName::new(name(channel)).expect("valid");
        Some(match *action {
            Action::Publish { count, size, defer } => {
                let (from, slot) = (self.bench.connect(), self.bench.slot());
                let bodies = self.bodies(count, size);
                Input::Publish { from, slot, bodies, defer: Duration::from_millis(defer.into()) }
            }
            Action::Subscribe { channel: name, timeout, outbox, sample } => {
                let (conn, slot) = (self.bench.connect(), self.bench.slot());
                self.subscribers.push(conn);
                Input::Subscribe { conn, slot, channel: channel(name), consumer: consumer(timeout, outbox, sample) }
            }
            Action::Ready { who, count } => Input::Ready { conn: self.who(who)?, count: count.into() },
            Action::Room { who, bytes } => Input::Room { conn: self.who(who)?, bytes: bytes.into() },
            Action::Finish { who, which } => {
                let (conn, id, after) = self.message(who, which)?;
                Input::Finish { conn, id, after }
            }
            Action::Requeue { who, which, delay } => {
                let (conn, id, after) = self.message(who, which)?;
                Input::Requeue { conn, id, delay: Duration::from_millis(delay.into()), after }
            }
            Action::Touch { who, which } => {
                let (conn, id, after) = self.message(who, which)?;
                Input::Touch { conn, id, after }
            }
            Action::FinishAll { who } => {
                let conn = self.who(who)?;
                while let Some(id) = self.held(conn).pop() {
                    let after = self.bench.slot();
                    self.give(Input::Finish { conn, id, after });
                }
                return None;
            }
            Action::Close { who } => Input::Close { conn: self.who(who)?, slot: self.bench.slot() },
            Action::Leave { who } => Input::Leave { conn: self.who(who)? },
            Action::CreateChannel { channel: name } => self.admin(Admin::CreateChannel(channel(name))),
            Action::DeleteChannel { channel: name } => self.admin(Admin::DeleteChannel(channel(name))),
            Action::EmptyChannel { channel: name } => self.admin(Admin::EmptyChannel(channel(name))),
            Action::PauseChannel { channel: name, paused } => self.admin(Admin::PauseChannel(channel(name), paused)),
            Action::CreateTopic => self.admin(Admin::CreateTopic),
            Action::EmptyTopic => self.admin(Admin::EmptyTopic),
            Action::PauseTopic { paused } => self.admin(Admin::PauseTopic(paused)),
            Action::DeleteTopic => self.admin(Admin::DeleteTopic),
            Action::Channels { which } => {
                let known = (0..CHANNELS.len() as u8).filter(|channel| which & (1 << channel) != 0);
                Input::Channels(known.map(channel).collect())
            }
            Action::Carry | Action::Sleep { .. } | Action::Deadline { .. } => return None,
        })
    }

    fn admin(&mut self, action: Admin) -> Input {
        Input::Admin { from: self.bench.connect(), slot: self.bench.slot(), action }
    }

    fn who(&self, who: u8) -> Option<ConnId> {
        let count = self.subscribers.len();
        (count > 0).then(|| self.subscribers[usize::from(who) % count])
    }

    /// Mostly one of the messages that the consumer holds, sometimes any that ever was.
    fn message(&mut self, who: u8, which: u16) -> Option<(ConnId, MessageId, Slot)> {
        let conn = self.who(who)?;
        let held = self.held(conn);
        let from = if held.is_empty() || which.is_multiple_of(8) { &self.known } else { &held };
        let id = *from.get(usize::from(which / 8) % from.len().max(1))?;
        Some((conn, id, self.bench.slot()))
    }

    fn held(&self, conn: ConnId) -> Vec<MessageId> {
        let Some(channel) = self.consumers.get(&conn).and_then(|member| self.channels.get(member.channel)) else {
            return Vec::new();
        };
        let mine = |place: &Place| matches!(place, Place::Flying { owner, .. } if *owner == conn);
        let messages = channel.messages.iter().filter(|(_, place)| mine(place));
        messages.filter_map(|(&message, _)| self.published[message as usize].id).collect()
    }

    /// Bodies that begin with their number.
    fn bodies(&self, count: u8, size: u32) -> Bodies {
        let first = self.published.len();
        let body = |n: usize| {
            let mut body = format!("{:08}", first + n).into_bytes();
            body.resize(8 + size as usize, b'.');
            body
        };
        if count <= 1 {
            return Bodies::one(body(0).into());
        }
        let mut wire = Vec::new();
        for body in (0..usize::from(count)).map(body) {
            wire.extend_from_slice(&(body.len() as u32).to_be_bytes());
            wire.extend_from_slice(&body);
        }
        Bodies::many(wire.into(), count.into())
    }
}

fn consumer(timeout: u16, outbox: u16, sample_rate: u8) -> Consumer {
    let msg_timeout = Duration::from_millis(u64::from(timeout) + 1);
    let client = ClientInfo {
        client_id: String::new(),
        hostname: String::new(),
        user_agent: String::new(),
        topology_region: String::new(),
        topology_zone: String::new(),
        remote_address: String::new(),
        connected: Timestamp::from_nanos(0),
        sample_rate,
        msg_timeout,
    };
    let outbox_limit = if outbox == 0 { usize::MAX } else { outbox.into() };
    Consumer { msg_timeout, sample_rate, outbox_limit, client: Arc::new(client) }
}
