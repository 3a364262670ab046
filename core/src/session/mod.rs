//! One connection's protocol: bytes become commands for topics, replies and deliveries become frames
//! (spec: nsqd_protocol §1).
//!
//! Under construction: the shape below is stable, the bodies follow.

use crate::client::ClientInfo;
use crate::name::TopicName;
use crate::options::Options;
use crate::time::{Duration, Instant, Now};
use crate::topic::io::{ConnId, Input, ToConn};
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use bytes::BytesMut;

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
    client: Arc<ClientInfo>,
}

impl Session {
    /// A connection accepted at `now` from `remote_address` (`ip:port`).
    pub fn new(now: Now, conn: ConnId, remote_address: String, options: Arc<Options>) -> Self {
        let _ = (conn, &options);
        let client = ClientInfo {
            client_id: String::new(),
            hostname: String::new(),
            user_agent: String::new(),
            topology_region: String::new(),
            topology_zone: String::new(),
            remote_address,
            connected: now.timestamp,
            sample_rate: 0,
            msg_timeout: options.msg_timeout,
        };
        Self { client: Arc::new(client) }
    }

    /// Decodes all complete commands in `bytes`, consuming them, and appends those that concern a topic to `out`; an
    /// unfinished one stays in `bytes` for the next call. Everything else the session answers itself. Never fails: a
    /// fatal error becomes the last reply, and nothing is read after it.
    pub fn read(&mut self, now: Now, bytes: &mut BytesMut, out: &mut VecDeque<Command>) {
        let _ = (now, bytes, out);
    }

    /// The peer will send no more. An unfinished body is answered with its "failed to read ..." error; the connection
    /// ends after the replies before it.
    pub fn eof(&mut self, now: Now) {
        let _ = now;
    }

    /// Appends to `out` what topics had to say to this connection: message frames and, at their places between them
    /// and in the order of their slots, replies; then what [`flush`](Self::flush) would. Empties `events` and `frames`.
    ///
    /// Returns how many bytes of message frames went into `out`, which is what the consumer's credit
    /// ([`Input::Room`]) may be given back for once `out` is written: frames wait in here while SUB's own reply does.
    pub fn write(
        &mut self,
        now: Now,
        events: &mut Vec<(usize, ToConn)>,
        frames: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> usize {
        let _ = (now, events, out);
        frames.len()
    }

    /// Appends to `out` the replies of its own that are ready and a heartbeat if one is due; gives up on a silent peer.
    pub fn flush(&mut self, now: Now, out: &mut Vec<u8>) {
        let _ = (now, out);
    }

    /// When to call [`flush`](Self::flush) at the latest: a heartbeat is due, or the peer's silence too long.
    pub fn deadline(&self) -> Option<Instant> {
        None
    }

    /// Hang up once `out` is written: a fatal error was sent, the peer was silent too long, its channel was deleted,
    /// or it closed and all replies are out. Ask after the effects of all commands read were given to
    /// [`write`](Self::write).
    pub fn is_finished(&self) -> bool {
        false
    }

    /// How many replies have not gone out yet: the driver stops reading when they become too many.
    pub fn awaits(&self) -> usize {
        0
    }

    /// How far the connection is, for stats.
    pub fn state(&self) -> State {
        State::Init
    }

    /// Who the peer says it is.
    pub fn client(&self) -> &Arc<ClientInfo> {
        &self.client
    }

    /// The interval of heartbeats, which is also how long a write may take; `None` if the client switched them off.
    pub fn heartbeat_interval(&self) -> Option<Duration> {
        None
    }

    /// Panics if an invariant does not hold.
    pub fn check(&self) {}
}
