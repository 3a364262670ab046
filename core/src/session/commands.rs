//! What each command demands of state and words, and what it does.
//!
//! A line comes in; either all is said with it, or a body is to follow. The order of checks within a command is
//! upstream's, for clients see which one fails first (spec: nsqd_protocol §1.4, §1.5).

use super::body::Body;
use super::identify::{Choice, Request, reply};
use super::reading::Reading;
use super::text::{Fatal, Op};
use super::{Command, Session, State, Target, line};
use crate::identity::ClientInfo;
use crate::json;
use crate::message::{Bodies, MessageId};
use crate::name::{ChannelName, TopicName};
use crate::time::{Duration, Now};
use crate::topic::io::{Consumer, Input, OUTBOX_LIMIT};
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use bytes::Bytes;

type Commands = VecDeque<Command>;

impl Session {
    /// Does what a line says, as far as it can be done without a body.
    pub(super) fn command<'a>(&mut self, line: &'a [u8], out: &mut Commands) -> Result<(), Fatal<'a>> {
        let mut words = line.split(|byte| *byte == b' ');
        let name = words.next().unwrap_or_default();
        let (first, second) = (words.next(), words.next());
        match name {
            b"PUB" => self.begin_pub(first),
            b"MPUB" => self.begin_mpub(first),
            b"DPUB" => self.begin_dpub(first, second),
            b"FIN" => self.fin(first, out),
            b"REQ" => self.requeue(first, second, out),
            b"TOUCH" => self.touch(first, out),
            b"RDY" => self.ready(first, out),
            b"NOP" => Ok(()),
            b"SUB" => self.subscribe(first, second, out),
            b"CLS" => self.close(out),
            b"IDENTIFY" => {
                self.demand(Op::Identify, self.state == State::Init)?;
                self.reading = Reading::Size(Body::Identify);
                Ok(())
            }
            b"AUTH" => {
                self.demand(Op::Auth, self.state == State::Init)?;
                self.reading = Reading::Size(Body::Auth);
                if first.is_none() { Ok(()) } else { Err(Fatal::AuthWords) }
            }
            _ => Err(Fatal::UnknownCommand(name)),
        }
    }

    /// Does what a command with a body says, now that it is there.
    pub(super) fn body(
        &mut self,
        now: Now,
        body: Body,
        bytes: Bytes,
        out: &mut Commands,
    ) -> Result<(), Fatal<'static>> {
        match body {
            Body::Pub(topic) => self.publish(Op::Pub, topic, Bodies::one(bytes), Duration::ZERO, out),
            Body::Dpub(topic, defer) => self.publish(Op::Dpub, topic, Bodies::one(bytes), defer, out),
            Body::Identify => self.identify(now, &bytes)?,
            // There is no auth server to ask, so no secret opens anything.
            Body::Auth => return Err(Fatal::AuthDisabled),
        }
        Ok(())
    }

    pub(super) fn publish(&mut self, op: Op, topic: TopicName, bodies: Bodies, defer: Duration, out: &mut Commands) {
        let slot = self.replies.expect(op, bodies.body_bytes());
        let input = Input::Publish { from: self.conn, slot, bodies, defer };
        out.push_back(Command { target: Target::Topic(topic), input });
    }

    fn begin_pub<'a>(&mut self, topic: Option<&'a [u8]>) -> Result<(), Fatal<'a>> {
        let topic = self.topic(Op::Pub, topic.ok_or(Fatal::TooFewWords(Op::Pub))?)?;
        self.reading = Reading::Size(Body::Pub(topic));
        Ok(())
    }

    fn begin_mpub<'a>(&mut self, topic: Option<&'a [u8]>) -> Result<(), Fatal<'a>> {
        let topic = self.topic(Op::Mpub, topic.ok_or(Fatal::TooFewWords(Op::Mpub))?)?;
        self.reading = Reading::MpubSize(topic);
        Ok(())
    }

    fn begin_dpub<'a>(&mut self, topic: Option<&'a [u8]>, delay: Option<&'a [u8]>) -> Result<(), Fatal<'a>> {
        let (Some(topic), Some(delay)) = (topic, delay) else { return Err(Fatal::TooFewWords(Op::Dpub)) };
        let topic = self.topic(Op::Dpub, topic)?;
        let millis = line::number(delay).ok_or(Fatal::TimeoutNumber(Op::Dpub, delay))?;
        let (delay, max) = (Duration::from_millis(millis), self.options.max_req_timeout);
        if delay > max {
            return Err(Fatal::TimeoutRange(millis, max.as_millis()));
        }
        self.reading = Reading::Size(Body::Dpub(topic, delay));
        Ok(())
    }

    fn fin<'a>(&self, id: Option<&'a [u8]>, out: &mut Commands) -> Result<(), Fatal<'a>> {
        self.demand(Op::Fin, self.state != State::Init)?;
        self.finish(message_id(id.ok_or(Fatal::TooFewWords(Op::Fin))?)?, out);
        Ok(())
    }

    #[inline]
    pub(super) fn finish(&self, id: MessageId, out: &mut Commands) {
        self.tell(Input::Finish { conn: self.conn, id, after: self.replies.last() }, out);
    }

    fn touch<'a>(&self, id: Option<&'a [u8]>, out: &mut Commands) -> Result<(), Fatal<'a>> {
        self.demand(Op::Touch, self.state != State::Init)?;
        let id = message_id(id.ok_or(Fatal::TooFewWords(Op::Touch))?)?;
        self.tell(Input::Touch { conn: self.conn, id, after: self.replies.last() }, out);
        Ok(())
    }

    fn requeue<'a>(&self, id: Option<&'a [u8]>, delay: Option<&'a [u8]>, out: &mut Commands) -> Result<(), Fatal<'a>> {
        self.demand(Op::Req, self.state != State::Init)?;
        let (Some(id), Some(delay)) = (id, delay) else { return Err(Fatal::TooFewWords(Op::Req)) };
        let id = message_id(id)?;
        let millis = line::number(delay).ok_or(Fatal::TimeoutNumber(Op::Req, delay))?;
        let delay = Duration::from_millis(millis).min(self.options.max_req_timeout);
        self.tell(Input::Requeue { conn: self.conn, id, delay, after: self.replies.last() }, out);
        Ok(())
    }

    fn ready<'a>(&self, count: Option<&'a [u8]>, out: &mut Commands) -> Result<(), Fatal<'a>> {
        if self.state == State::Closing {
            return Ok(());
        }
        self.demand(Op::Rdy, self.state == State::Subscribed)?;
        let word = count.unwrap_or(b"1");
        let count = line::number(word).ok_or(Fatal::ReadyNumber(word))?;
        let max = self.options.max_rdy_count;
        match u32::try_from(count) {
            Ok(count) if u64::from(count) <= max => self.tell(Input::Ready { conn: self.conn, count }, out),
            _ => return Err(Fatal::ReadyRange(count, max)),
        }
        Ok(())
    }

    fn subscribe<'a>(
        &mut self,
        topic: Option<&'a [u8]>,
        channel: Option<&'a [u8]>,
        out: &mut Commands,
    ) -> Result<(), Fatal<'a>> {
        self.demand(Op::Sub, self.state == State::Init)?;
        if self.pulse.interval().is_none() {
            return Err(Fatal::HeartbeatsDisabled);
        }
        let (Some(topic), Some(channel)) = (topic, channel) else { return Err(Fatal::TooFewWords(Op::Sub)) };
        let topic = self.topic(Op::Sub, topic)?;
        let channel = ChannelName::new(channel).ok_or(Fatal::Channel(channel))?;
        let consumer = Consumer {
            msg_timeout: self.client.msg_timeout,
            sample_rate: self.client.sample_rate,
            outbox_limit: OUTBOX_LIMIT,
            client: Arc::clone(&self.client),
        };
        self.state = State::Subscribed;
        let slot = self.replies.expect(Op::Sub, 0);
        let input = Input::Subscribe { conn: self.conn, slot, channel, consumer };
        out.push_back(Command { target: Target::Topic(topic), input });
        Ok(())
    }

    fn close(&mut self, out: &mut Commands) -> Result<(), Fatal<'static>> {
        self.demand(Op::Cls, self.state == State::Subscribed)?;
        self.state = State::Closing;
        let slot = self.replies.expect(Op::Cls, 0);
        self.tell(Input::Close { conn: self.conn, slot }, out);
        Ok(())
    }

    /// The last IDENTIFY counts for everything, only that the heartbeat does not start anew after the first.
    fn identify(&mut self, now: Now, body: &[u8]) -> Result<(), Fatal<'static>> {
        let request: Request = json::parse(body).ok_or(Fatal::IdentifyJson)?;
        let choices = request.choices(&self.options)?;
        match choices.heartbeat_interval {
            Choice::Keep => {}
            Choice::Off => self.pulse.set_interval(None, now.instant),
            Choice::Value(millis) => self.pulse.set_interval(Some(Duration::from_millis(millis)), now.instant),
        }
        if !core::mem::replace(&mut self.identified, true) {
            self.pulse.restart(now.instant);
        }
        self.output.choose(&choices);
        self.client = Arc::new(ClientInfo {
            client_id: request.client_id,
            hostname: request.hostname,
            user_agent: request.user_agent,
            topology_region: request.topology_region,
            topology_zone: request.topology_zone,
            sample_rate: choices.sample_rate,
            msg_timeout: match choices.msg_timeout {
                Choice::Value(millis) => Duration::from_millis(millis),
                _ => self.client.msg_timeout,
            },
            ..ClientInfo::clone(&self.client)
        });
        if request.feature_negotiation {
            self.replies.push_response(&reply(&self.options, &self.client, &self.output));
        } else {
            self.replies.push_response("OK");
        }
        Ok(())
    }

    #[inline]
    fn tell(&self, input: Input, out: &mut Commands) {
        out.push_back(Command { target: Target::Subscribed, input });
    }

    fn demand(&self, op: Op, allowed: bool) -> Result<(), Fatal<'static>> {
        if allowed { Ok(()) } else { Err(Fatal::State(op)) }
    }

    /// A topic's name; a connection mostly uses the same one again.
    fn topic<'a>(&mut self, op: Op, name: &'a [u8]) -> Result<TopicName, Fatal<'a>> {
        if let Some(topic) = &self.topic
            && topic.as_str().as_bytes() == name
        {
            return Ok(topic.clone());
        }
        let topic = TopicName::new(name).ok_or(Fatal::Topic(op, name))?;
        self.topic = Some(topic.clone());
        Ok(topic)
    }
}

fn message_id(word: &[u8]) -> Result<MessageId, Fatal<'static>> {
    MessageId::new(word).ok_or(Fatal::MessageId)
}
