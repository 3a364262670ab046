//! One connection's protocol: bytes become commands for topics, replies and deliveries become frames
//! (spec: nsqd_protocol §1).
//!
//! Depends on nothing but the bytes, `now` and the [`Options`]: how the bytes are cut makes no difference. Replies
//! leave in the order of their commands; a fatal error is the last thing sent, and nothing is read after it.
//!
//! `reading` cuts bytes into pieces, `commands` gives them meaning, `replies` keeps the order, `text` has the errors.

mod body;
mod commands;
mod frame;
mod identify;
pub(crate) mod line;
mod pulse;
mod quote;
mod reading;
mod replies;
#[cfg(test)]
mod tests;
mod text;

use crate::identity::ClientInfo;
use crate::name::TopicName;
use crate::options::Options;
use crate::time::{Duration, Instant, Now};
use crate::topic::io::{ConnId, Input, ToConn};
use alloc::collections::VecDeque;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use bytes::BytesMut;
use identify::Output;
use pulse::Pulse;
use reading::{End, Reading};
use replies::Replies;

/// A decoded command that concerns a topic.
#[derive(Clone, Debug)]
pub struct Command {
    /// Which topic it is for.
    pub target: Target,
    /// What the topic is told.
    pub input: Input,
}

/// The topic that a command is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// By name: publishes and SUB; created if need be.
    Topic(TopicName),
    /// The topic that this connection subscribed to.
    Subscribed,
}

/// How far a connection is; the numbers are those of `/stats` (spec: nsqd_protocol §1.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// Not subscribed.
    Init = 0,
    /// After SUB.
    Subscribed = 3,
    /// After CLS.
    Closing = 4,
}

/// The protocol of one connection.
#[derive(Debug)]
pub struct Session {
    conn: ConnId,
    options: Arc<Options>,
    client: Arc<ClientInfo>,
    output: Output,
    /// IDENTIFY was answered.
    identified: bool,
    state: State,
    reading: Reading,
    /// How many bytes the last read left over.
    left: usize,
    /// The topic named last.
    topic: Option<TopicName>,
    replies: Replies,
    pulse: Pulse,
    /// Nothing more comes in or goes out.
    finished: bool,
    /// Who has ended it, if not the peer.
    cause: Option<Cause>,
}

/// Why a session has hung up on its peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A fatal error, with this text.
    Error(Vec<u8>),
    /// The peer did not answer heartbeats.
    Silence,
    /// Its channel, or its topic, was deleted.
    Deleted,
}

impl Session {
    /// A connection accepted at `now` from `remote_address`, as `ip:port`; one without a port has no IP either.
    pub fn new(now: Now, conn: ConnId, remote_address: String, options: Arc<Options>) -> Self {
        let ip = remote_address.rsplit_once(':').map_or("", |(ip, _)| ip.trim_matches(['[', ']']));
        let client = ClientInfo {
            client_id: ip.to_string(),
            hostname: ip.to_string(),
            user_agent: String::new(),
            topology_region: String::new(),
            topology_zone: String::new(),
            remote_address,
            connected: now.timestamp,
            sample_rate: 0,
            msg_timeout: options.msg_timeout,
        };
        Self {
            conn,
            client: Arc::new(client),
            output: Output::new(&options),
            identified: false,
            state: State::Init,
            reading: Reading::Magic,
            left: 0,
            topic: None,
            replies: Replies::default(),
            pulse: Pulse::new(options.heartbeat_interval, now.instant),
            finished: false,
            cause: None,
            options,
        }
    }

    /// Decodes all complete commands in `bytes`, consuming them, and appends those that concern a topic to `out`; an
    /// unfinished one stays in `bytes` for the next call. Everything else the session answers itself. Never fails: a
    /// fatal error becomes the last reply, and nothing is read after it.
    pub fn read(&mut self, now: Now, bytes: &mut BytesMut, out: &mut VecDeque<Command>) {
        let mut heard = self.reading.is_inside_command() && bytes.len() > self.left;
        while !matches!(self.reading, Reading::Ended) {
            match self.step(now, bytes, out) {
                Ok(true) => heard = true,
                Ok(false) => break,
                Err(End) => self.reading = Reading::Ended,
            }
        }
        if heard {
            self.pulse.hear(now.instant);
        }
        if matches!(self.reading, Reading::Ended) {
            bytes.clear();
        }
        self.left = bytes.len();
    }

    /// The peer will send no more. An unfinished body is answered with its "failed to read ..." error; the connection
    /// ends after the replies before it.
    pub fn eof(&mut self, now: Now) {
        self.pulse.hear(now.instant);
        if let Some(fatal) = self.reading.unread() {
            self.replies.push_fatal(&fatal);
        }
        self.reading = Reading::Ended;
    }

    /// Appends to `out` what topics had to say to this connection: message frames and, at their places between them
    /// and in the order of their slots, replies; then what [`flush`](Self::flush) would. Empties `events` and `frames`.
    ///
    /// Returns how many bytes of message frames went into `out`. So many, and no more, may be reported as
    /// [`Input::Room`] once `out` is written: frames wait in here while SUB's own reply does.
    pub fn write(
        &mut self,
        now: Now,
        events: &mut Vec<(usize, ToConn)>,
        frames: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> usize {
        let mut sent = 0;
        for (at, event) in events.drain(..) {
            if self.finished {
                break;
            }
            let at = at.clamp(sent, frames.len());
            self.replies.deliver(&frames[sent..at], out);
            sent = at;
            self.event(now, event, out);
        }
        if self.finished {
            // What a topic says after the end is for nobody.
        } else if sent == 0 {
            self.replies.deliver_all(frames, out);
        } else {
            self.replies.deliver(&frames[sent..], out);
        }
        frames.clear();
        self.flush(now, out);
        self.replies.take_delivered()
    }

    /// Appends to `out` the replies of its own that are ready, and a heartbeat if one is due; gives up a peer that has
    /// been silent for too long. After a read, topics come first: what they say to the commands goes to
    /// [`write`](Self::write), or a fatal error may overtake the failure of a FIN before it.
    pub fn flush(&mut self, now: Now, out: &mut Vec<u8>) {
        if self.finished {
            return;
        }
        self.send(now, out);
        // Not before all that came with the reply before it: it may have been the failure of a FIN.
        if let Some(frame) = self.replies.fatal() {
            out.extend_from_slice(frame);
            let text = frame[frame::HEAD..].to_vec();
            self.hang_up(Cause::Error(text));
        } else if self.silence_due().is_some_and(|due| due <= now.instant) {
            self.hang_up(Cause::Silence);
        } else if self.heartbeat_due().is_some_and(|due| due <= now.instant) && self.pulse.beats(now.instant) {
            out.extend_from_slice(frame::HEARTBEAT);
        }
    }

    /// When to call [`flush`](Self::flush) at the latest: a heartbeat is due, or the peer's silence too long.
    pub fn deadline(&self) -> Option<Instant> {
        [self.heartbeat_due(), self.silence_due()].into_iter().flatten().min()
    }

    /// Hang up once `out` is written: a fatal error was sent, the peer was silent for too long, its channel was
    /// deleted, or it sends no more and all replies are out. Ask after what topics had to say to the commands read was
    /// given to [`write`](Self::write).
    pub fn is_finished(&self) -> bool {
        self.finished || matches!(self.reading, Reading::Ended) && self.replies.is_empty()
    }

    /// Why it has hung up; `None` if it has not, or the peer has.
    pub fn cause(&self) -> Option<&Cause> {
        self.cause.as_ref()
    }

    /// How many replies and failures have not gone out.
    #[cfg(any(test, feature = "fuzz"))]
    pub(crate) fn awaits(&self) -> usize {
        self.replies.len()
    }

    /// Bytes of bodies whose publish is not answered. While that is much, whoever sends them is not read, so that
    /// memory is not taken faster than it can be had.
    pub const fn owes(&self) -> usize {
        self.replies.owed()
    }

    /// How far the connection is, for stats.
    pub fn state(&self) -> State {
        self.state
    }

    /// Who the peer says it is; another one after each IDENTIFY.
    pub fn client(&self) -> &Arc<ClientInfo> {
        &self.client
    }

    /// The interval of heartbeats, which is also how long a write may take; `None` if the client switched them off.
    pub fn heartbeat_interval(&self) -> Option<Duration> {
        self.pulse.interval()
    }

    fn event(&mut self, now: Now, event: ToConn, out: &mut Vec<u8>) {
        match event {
            ToConn::Reply { slot, result } => {
                if self.replies.answer(slot, &result) {
                    self.reading = Reading::Ended;
                }
                self.send(now, out);
            }
            ToConn::Failed { after, verb, id, why } => self.replies.fail(after, verb, id, &why, out),
            ToConn::Disconnect => {
                self.send(now, out);
                self.hang_up(Cause::Deleted);
            }
        }
    }

    /// Sends the replies that are ready. Patience starts anew when the peer has been told all it asked for.
    fn send(&mut self, now: Now, out: &mut Vec<u8>) {
        let waiting = !self.replies.is_empty();
        self.replies.send(out);
        if waiting && self.replies.is_empty() {
            self.pulse.hear(now.instant);
        }
    }

    fn hang_up(&mut self, cause: Cause) {
        self.finished = true;
        self.cause = Some(cause);
        self.reading = Reading::Ended;
        self.replies.clear();
    }

    /// Heartbeats start when the peer has said that it speaks this protocol.
    fn heartbeat_due(&self) -> Option<Instant> {
        let beating = !self.is_finished() && !matches!(self.reading, Reading::Magic);
        beating.then(|| self.pulse.heartbeat_due()).flatten()
    }

    /// A peer that awaits a reply may be silent, and its driver may have stopped reading.
    fn silence_due(&self) -> Option<Instant> {
        let listening = self.replies.is_empty() && !matches!(self.reading, Reading::Ended);
        listening.then(|| self.pulse.silence_due()).flatten()
    }

    /// Panics if an invariant does not hold.
    pub fn check(&self) {
        self.replies.check();
        if let Reading::MpubItems(items) = &self.reading {
            items.check();
        }
        let ended = matches!(self.reading, Reading::Ended);
        assert!(!self.replies.has_fatal() || ended, "reads on after a fatal error");
        assert!(!self.finished || ended && self.replies.is_empty(), "has things to say after the end");
        assert!(self.state == State::Init || self.pulse.interval().is_some(), "a consumer without heartbeats");
        assert!(!self.identified || !matches!(self.reading, Reading::Magic), "IDENTIFY before the magic");
        assert!(self.deadline().is_none() || !self.is_finished(), "waits after the end");
    }
}
