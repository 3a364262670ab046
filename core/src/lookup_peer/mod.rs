//! nsqd's side of its connection to one nsqlookupd (spec: nsqd_protocol §5.5).
//!
//! In come news of the connection, the bytes of replies, and the [`Directory`]; out go wishes to connect or hang up and
//! the bytes to send: who we are, everything there is, then each change in its order, and a PING every 15 s.
//!
//! The rule: a connection that fails, for whatever reason, is replaced after a while and begins with everything there
//! is. So no change is ever lost, and nothing has to be kept for a peer that is away.

#[cfg(any(test, feature = "fuzz"))]
pub(crate) mod fuzz;
#[cfg(test)]
mod tests;
mod words;

use crate::directory::{Change, Directory};
use crate::random::Random;
use crate::time::{Duration, Instant, Now};
use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use bytes::{Bytes, BytesMut};

pub use words::{Channels, Lookupd, Nsqd, channels};

/// See the module's documentation.
#[derive(Debug)]
pub struct LookupPeer {
    /// The magic and IDENTIFY.
    hello: Bytes,
    reply_max: usize,
    random: Random,
    stage: Stage,
    /// Connections that have failed in a row, none of which was good for long.
    failures: u32,
    /// Who answered IDENTIFY the last time.
    lookupd: Option<Lookupd>,
    /// Of the list that a connection begins with, what was not sent yet.
    list: VecDeque<Change>,
    /// The directory's changes up to here were sent, or are in the list.
    said: u64,
    /// Where the directory was when the last connection ended.
    lost_at: u64,
    /// Commands whose replies have not come, and when the next of them is too late.
    unanswered: usize,
    answer_by: Instant,
    ping_at: Instant,
    /// What was told last with [`Effect::Up`] or [`Effect::Down`].
    told_up: Option<bool>,
}

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// There is none until that time.
    Waiting(Instant),
    /// One is being made, by that time.
    Connecting(Instant),
    /// We have said who we are and want an answer by that time.
    Identifying(Instant),
    /// Since that time nsqlookupd knows who we are.
    Talking(Instant),
}

/// What a peer is told.
#[derive(Debug)]
pub enum Input<'a> {
    /// The directory may have changed, or a deadline may have come.
    Tick,
    /// The connection that was asked for is there.
    Connected,
    /// Bytes have come; what is no complete reply yet stays in the buffer.
    Received(&'a mut BytesMut),
    /// The connection has ended, or could not be made, and why.
    Lost(String),
}

/// What a peer wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Connect, and say when that is done or has failed.
    Connect,
    /// Send this, behind what was to be sent before.
    Send(Vec<u8>),
    /// Drop the connection, or the attempt to make one, and everything that was to be sent.
    Close,
    /// For the log: everything is registered.
    Up,
    /// For the log: a connection has failed.
    Down {
        /// What happened.
        why: String,
        /// It is the first failure since everything was registered, or since the start.
        is_news: bool,
    },
}

/// How often nsqlookupd hears that we are alive.
pub const PING_INTERVAL: Duration = Duration::from_secs(15);
/// How long a connection may take to be made, and a reply to come.
pub const PATIENCE: Duration = Duration::from_secs(1);
/// Pauses between connections: at least half of the first one, twice as long with each failure, and no more than the
/// last.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(15);
/// Commands that may wait for their replies.
const WINDOW: usize = 256;
/// Bytes of a reply: a few hundred would do.
const REPLY_MAX: usize = 64 * 1024;

impl LookupPeer {
    /// A peer that is to be connected at once. Replies are limited by `max_body_size` too.
    pub fn new(now: Now, nsqd: &Nsqd, max_body_size: u64, seed: u64) -> Self {
        Self {
            hello: nsqd.hello(),
            reply_max: usize::try_from(max_body_size).unwrap_or(usize::MAX).min(REPLY_MAX),
            random: Random::new(seed),
            stage: Stage::Waiting(now.instant),
            failures: 0,
            lookupd: None,
            list: VecDeque::new(),
            said: 0,
            lost_at: u64::MAX,
            unanswered: 0,
            answer_by: now.instant,
            ping_at: now.instant,
            told_up: None,
        }
    }

    /// Takes an input, does what is due, and says what there is to say. Too early a tick changes nothing.
    pub fn handle(&mut self, now: Now, input: Input<'_>, directory: &Directory, out: &mut Vec<Effect>) {
        match (input, self.stage) {
            (Input::Connected, Stage::Connecting(_)) => {
                send(&self.hello, out);
                self.stage = Stage::Identifying(now.instant + PATIENCE);
            }
            (Input::Received(bytes), Stage::Identifying(_) | Stage::Talking(_)) => {
                if let Err(why) = self.receive(now, bytes, directory, out) {
                    bytes.clear();
                    self.fail(now, why, directory, out);
                }
            }
            (Input::Received(bytes), _) => bytes.clear(),
            (Input::Lost(_), Stage::Waiting(_)) => {}
            (Input::Lost(why), _) => self.fail(now, why, directory, out),
            (Input::Connected | Input::Tick, _) => {}
        }
        self.expire(now, directory, out);
        self.say(now, directory, out);
    }

    /// When to call again at the latest, if nothing happens before.
    pub fn deadline(&self) -> Option<Instant> {
        Some(match self.stage {
            Stage::Waiting(until) => until,
            Stage::Connecting(by) | Stage::Identifying(by) => by,
            // With no room for a PING its time means nothing.
            Stage::Talking(_) if self.unanswered == WINDOW => self.answer_by,
            Stage::Talking(_) if self.unanswered > 0 => self.ping_at.min(self.answer_by),
            Stage::Talking(_) => self.ping_at,
        })
    }

    /// Who answered IDENTIFY the last time; that connection may have ended.
    pub const fn lookupd(&self) -> Option<&Lookupd> {
        self.lookupd.as_ref()
    }

    /// Whether nsqlookupd knows who we are.
    pub const fn is_identified(&self) -> bool {
        matches!(self.stage, Stage::Talking(_))
    }

    /// The change up to which nsqlookupd has confirmed everything, if it has; see [`Directory::position`].
    pub fn registered(&self) -> Option<u64> {
        let done = self.is_identified() && self.list.is_empty() && self.unanswered == 0;
        done.then_some(self.said)
    }

    /// Whether the first connection has neither failed nor got as far as it should yet.
    pub const fn is_untried(&self) -> bool {
        self.failures == 0 && self.lookupd.is_none()
    }

    /// Panics if an invariant does not hold.
    pub fn check(&self, directory: &Directory) {
        assert!(self.unanswered <= WINDOW, "asks for more than it waits for");
        assert!(self.said <= directory.position(), "says what has not happened");
        assert!(self.is_identified() || (self.list.is_empty() && self.unanswered == 0), "talks to nobody");
        assert!(!self.is_identified() || self.lookupd.is_some());
    }

    /// Takes complete replies off the bytes. What each makes possible is said before the next is looked at, so that it
    /// does not matter how they were cut.
    fn receive(
        &mut self,
        now: Now,
        bytes: &mut BytesMut,
        directory: &Directory,
        out: &mut Vec<Effect>,
    ) -> Result<(), String> {
        while let Some(reply) = words::take_reply(bytes, self.reply_max)? {
            if !self.is_identified() {
                let lookupd = Lookupd::parse(&reply);
                self.lookupd =
                    Some(lookupd.ok_or_else(|| format!("it answered IDENTIFY with {}", words::shown(&reply)))?);
                self.begin(now, directory);
            } else if self.unanswered == 0 {
                return Err(format!("it said {} without being asked", words::shown(&reply)));
            } else if reply != "OK" {
                return Err(format!("it answered {}", words::shown(&reply)));
            } else {
                self.unanswered -= 1;
                self.answer_by = now.instant + PATIENCE;
            }
            self.say(now, directory, out);
            if !self.is_identified() {
                bytes.clear();
                break;
            }
        }
        Ok(())
    }

    /// nsqlookupd knows who we are: now it is to hear of everything. What came up since the last connection ended is in
    /// the list, and then said once more, as upstream does; that changes nothing.
    fn begin(&mut self, now: Now, directory: &Directory) {
        self.stage = Stage::Talking(now.instant);
        self.ping_at = now.instant + PING_INTERVAL;
        for (topic, entry) in directory.topics() {
            let change = |channel| Change { is_new: true, topic: topic.clone(), channel };
            if entry.channels.is_empty() {
                self.list.push_back(change(None));
            }
            self.list.extend(entry.channels.keys().map(|channel| change(Some(channel.clone()))));
        }
        let since = directory.since(self.lost_at).into_iter().flatten();
        let is_there = |change: &&Change| change.is_new && directory.has(&change.topic, change.channel.as_ref());
        self.list.extend(since.filter(is_there).cloned());
        self.said = directory.position();
    }

    fn expire(&mut self, now: Now, directory: &Directory, out: &mut Vec<Effect>) {
        let late = |by: Instant| by <= now.instant;
        match self.stage {
            Stage::Waiting(until) if late(until) => {
                self.stage = Stage::Connecting(now.instant + PATIENCE);
                out.push(Effect::Connect);
            }
            Stage::Connecting(by) if late(by) => self.fail(now, words::late("connection"), directory, out),
            Stage::Identifying(by) if late(by) => self.fail(now, words::late("answer to IDENTIFY"), directory, out),
            Stage::Talking(_) if self.unanswered > 0 && late(self.answer_by) => {
                self.fail(now, words::late("answer"), directory, out);
            }
            _ => {}
        }
    }

    /// Says as much as may be unanswered.
    fn say(&mut self, now: Now, directory: &Directory, out: &mut Vec<Effect>) {
        if !self.is_identified() {
            return;
        }
        let (mut bytes, before) = (Vec::new(), self.unanswered);
        if self.ping_at <= now.instant && self.unanswered < WINDOW {
            self.ping_at = now.instant + PING_INTERVAL;
            bytes.extend_from_slice(b"PING\n");
            self.unanswered += 1;
        }
        while self.unanswered < WINDOW
            && let Some(change) = self.list.pop_front()
        {
            words::command(&change, &mut bytes);
            self.unanswered += 1;
        }
        if self.list.is_empty() {
            self.list.shrink_to(0);
            let Some(changes) = directory.since(self.said) else {
                let why = "more has changed than it could be told".into();
                return self.fail(now, why, directory, out);
            };
            for change in changes.take(WINDOW - self.unanswered) {
                words::command(change, &mut bytes);
                self.said += 1;
                self.unanswered += 1;
            }
        }
        if before == 0 && self.unanswered > 0 {
            self.answer_by = now.instant + PATIENCE;
        }
        send(&bytes, out);
        if self.registered().is_some() && self.told_up != Some(true) {
            self.told_up = Some(true);
            out.push(Effect::Up);
        }
    }

    /// Gives the connection up, to make another after a pause.
    fn fail(&mut self, now: Now, why: String, directory: &Directory, out: &mut Vec<Effect>) {
        if let Stage::Talking(since) = self.stage
            && now.instant.since(since) >= PING_INTERVAL
        {
            self.failures = 0;
        }
        let pause = PAUSE_MIN.saturating_mul(1 << self.failures.min(16)).min(PAUSE_MAX);
        let jitter = Duration::from_nanos(self.random.below(pause.as_nanos() as u64 / 2));
        self.failures = self.failures.saturating_add(1);
        self.stage = Stage::Waiting(now.instant + (pause - jitter));
        self.lost_at = directory.position();
        self.list = VecDeque::new();
        self.unanswered = 0;
        out.push(Effect::Close);
        out.push(Effect::Down { why, is_news: self.told_up != Some(false) });
        self.told_up = Some(false);
    }
}

fn send(bytes: &[u8], out: &mut Vec<Effect>) {
    match out.last_mut() {
        _ if bytes.is_empty() => {}
        Some(Effect::Send(more)) => more.extend_from_slice(bytes),
        _ => out.push(Effect::Send(bytes.into())),
    }
}
