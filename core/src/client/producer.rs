//! A producer: publishes go to several nsqds in turn, and each ends with an [`Outcome`].
//!
//! In: publishes, each with a [`Token`] that grows, and the fates of connections. Out: [`Effect`]s. What no connection
//! could take waits for one. The one rule: a publish is sent again only if nsqd has certainly not taken it, or if the
//! application said that it may come twice; what an nsqd may have ends as [`Outcome::Unknown`] unless one says that it
//! has.

use super::ConnId;
use super::connection::{Command, Token, Unanswered};
use super::discovery::{Discovery, Sources, Step};
use super::notice::Notice;
use super::publish::Publish;
use crate::time::{Duration, Instant};
use alloc::borrow::ToOwned;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;

/// How a producer behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// How long a publish may take.
    pub timeout: Duration,
    /// Whether what may have been taken is sent again, so that it may come twice.
    pub retry: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(30), retry: false }
    }
}

/// How a publish ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// nsqd has it.
    Accepted,
    /// nsqd would not take it, and no other has it; its words. Of several messages, any may have been taken.
    Refused(String),
    /// It was sent, but not answered: nsqd may have it or not. Why there was no answer.
    Unknown(String),
    /// No nsqd could be reached in time: it was not published. What went wrong last.
    Unsent(String),
    /// The producer is ending, and takes no more.
    Stopped,
}

/// What happens to a producer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Time passes.
    Tick,
    /// The application publishes.
    Publish(Token, Publish),
    /// A connection can be used.
    Opened(ConnId),
    /// nsqd has taken a publish.
    Published(ConnId, Token),
    /// A connection is over or could not be made, and why; and what has become of publishes.
    Lost(ConnId, String, Unanswered),
    /// It is to end: nothing more will be published.
    Stop,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Connect to that address, and report with [`Input::Opened`] or [`Input::Lost`].
    Connect(ConnId, String),
    /// Say this to nsqd.
    Send(ConnId, Command),
    /// End a connection once all is said, without a report.
    Disconnect(ConnId),
    /// End a connection at once for this reason, and report with [`Input::Lost`].
    Abandon(ConnId, String),
    /// A publish has ended.
    Done(Token, Outcome),
    /// Tell who wants to know.
    Notice(Notice),
    /// It has ended: there is nothing more to do or to come.
    Stopped,
}

#[derive(Debug)]
struct Pending {
    publish: Publish,
    deadline: Instant,
    /// The connection that it was given to, and when.
    sent: Option<(ConnId, Instant)>,
    /// An earlier connection was lost before its answer: an nsqd may have it.
    perhaps: bool,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Producer {
    options: Options,
    discovery: Discovery,
    /// Those that can be used, and whether they have taken a publish.
    open: BTreeMap<ConnId, bool>,
    /// The connection that was given something last.
    last: ConnId,
    /// In the order of tokens, which is that of deadlines.
    pending: BTreeMap<Token, Pending>,
    /// Those of them that wait for a connection.
    waiting: BTreeSet<Token>,
    /// Why there is no connection.
    reason: String,
    stopping: bool,
    stopped: bool,
    steps: Vec<Step>,
}

impl Producer {
    /// A producer that has done nothing yet: the first [`Input::Tick`] makes it connect.
    pub fn new(now: Instant, options: Options, sources: Sources, seed: u64) -> Self {
        Self {
            options,
            discovery: Discovery::new(now, Sources { lookupds: Vec::new(), ..sources }, seed),
            open: BTreeMap::new(),
            last: ConnId(0),
            pending: BTreeMap::new(),
            waiting: BTreeSet::new(),
            reason: "no connection yet".to_owned(),
            stopping: false,
            stopped: false,
            steps: Vec::new(),
        }
    }

    /// Takes in what happened.
    pub fn handle(&mut self, now: Instant, input: Input, effects: &mut Vec<Effect>) {
        if let (Input::Publish(token, _), true) = (&input, self.stopping) {
            effects.push(Effect::Done(*token, Outcome::Stopped));
        }
        if self.stopped {
            return;
        }
        match input {
            Input::Tick => {}
            Input::Publish(..) if self.stopping => {}
            Input::Publish(token, publish) => {
                let deadline = now + self.options.timeout;
                self.pending.insert(token, Pending { publish, deadline, sent: None, perhaps: false });
                self.waiting.insert(token);
            }
            Input::Opened(conn) => self.opened(now, conn, effects),
            Input::Published(conn, token) => {
                if let Some(taken) = self.open.get_mut(&conn) {
                    *taken = true;
                }
                self.done(token, Outcome::Accepted, effects);
            }
            Input::Lost(conn, reason, unanswered) => self.lost(now, conn, reason, unanswered, effects),
            Input::Stop => self.stopping = true,
        }
        self.pass_time(now, effects);
        self.send_waiting(now, effects);
        self.end(effects);
    }

    /// When to come back with [`Input::Tick`], if nothing happens before.
    pub fn deadline(&self) -> Option<Instant> {
        if self.stopped {
            return None;
        }
        let publish = self.pending.first_key_value().map(|(_, pending)| pending.deadline);
        publish.into_iter().chain(self.discovery.deadline()).min()
    }

    /// Publishes that have not ended.
    pub fn outstanding(&self) -> usize {
        self.pending.len()
    }

    fn opened(&mut self, now: Instant, conn: ConnId, effects: &mut Vec<Effect>) {
        let Some(nsqd) = self.discovery.address(conn).map(ToOwned::to_owned) else { return };
        self.discovery.opened(now, conn);
        self.open.insert(conn, false);
        effects.push(Effect::Notice(Notice::Connected { nsqd }));
    }

    fn lost(&mut self, now: Instant, conn: ConnId, reason: String, unanswered: Unanswered, effects: &mut Vec<Effect>) {
        let Some(nsqd) = self.discovery.address(conn).map(ToOwned::to_owned) else { return };
        let was_up = self.discovery.is_up(conn);
        // A refusal is the publish's fault: nsqd is well.
        if self.open.remove(&conn).unwrap_or_default() || unanswered.refused.is_some() {
            self.discovery.proved(conn);
        }
        let retry = self.discovery.lost(now, conn);
        self.reason = alloc::format!("{nsqd}: {reason}");
        if let Some((token, text)) = unanswered.refused {
            self.done(token, Outcome::Refused(text), effects);
        }
        for token in unanswered.unknown {
            if self.options.retry {
                self.wait_again(token, true);
            } else {
                self.done(token, Outcome::Unknown(self.reason.clone()), effects);
            }
        }
        unanswered.untaken.into_iter().for_each(|token| self.wait_again(token, false));
        // What the connection was given and never knew of.
        let of_conn = |pending: &Pending| pending.sent.is_some_and(|(sent, _)| sent == conn);
        let unheard: Vec<_> =
            self.pending.iter().filter(|(_, pending)| of_conn(pending)).map(|(token, _)| *token).collect();
        unheard.into_iter().for_each(|token| self.wait_again(token, false));
        effects.push(Effect::Notice(match was_up {
            true => Notice::Disconnected { nsqd, reason, retry },
            false => Notice::ConnectFailed { nsqd, reason, retry },
        }));
    }

    fn wait_again(&mut self, token: Token, perhaps: bool) {
        if let Some(pending) = self.pending.get_mut(&token) {
            pending.sent = None;
            pending.perhaps |= perhaps;
            self.waiting.insert(token);
        }
    }

    fn done(&mut self, token: Token, outcome: Outcome, effects: &mut Vec<Effect>) {
        let Some(pending) = self.pending.remove(&token) else { return };
        self.waiting.remove(&token);
        let outcome = match outcome {
            Outcome::Refused(reason) | Outcome::Unsent(reason) if pending.perhaps => Outcome::Unknown(reason),
            outcome => outcome,
        };
        effects.push(Effect::Done(token, outcome));
    }

    fn pass_time(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        while let Some((token, pending)) = self.pending.first_key_value()
            && pending.deadline <= now
        {
            let (token, sent) = (*token, pending.sent);
            let outcome = match sent {
                Some((conn, since)) => {
                    let reason = alloc::format!("no answer within {:?}", self.options.timeout);
                    self.condemn(now, conn, since, &reason, effects);
                    Outcome::Unknown(reason)
                }
                None => Outcome::Unsent(self.reason.clone()),
            };
            self.done(token, outcome, effects);
        }
        if !self.stopping || !self.pending.is_empty() {
            let mut steps = core::mem::take(&mut self.steps);
            self.discovery.tick(now, &mut steps);
            effects.extend(steps.drain(..).filter_map(|step| match step {
                Step::Connect(conn, address) => Some(Effect::Connect(conn, address)),
                Step::Ask(_) => None,
            }));
            self.steps = steps;
        }
    }

    /// nsqd answers in order: what is behind an overdue publish would be overdue as well, so the connection has to go.
    /// One that was given the publish in its last moments is not to blame.
    fn condemn(&mut self, now: Instant, conn: ConnId, since: Instant, reason: &str, effects: &mut Vec<Effect>) {
        if now.since(since) >= self.options.timeout / 2 && self.open.remove(&conn).is_some() {
            effects.push(Effect::Abandon(conn, reason.to_owned()));
        }
    }

    fn send_waiting(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        while !self.open.is_empty()
            && let Some(token) = self.waiting.pop_first()
        {
            let Some(pending) = self.pending.get_mut(&token) else { continue };
            let next = self.open.range(ConnId(self.last.0 + 1)..).next().or_else(|| self.open.first_key_value());
            let Some((&conn, _)) = next else { return };
            self.last = conn;
            pending.sent = Some((conn, now));
            effects.push(Effect::Send(conn, Command::Publish(token, pending.publish.clone())));
        }
    }

    fn end(&mut self, effects: &mut Vec<Effect>) {
        if self.stopping && self.pending.is_empty() {
            effects.extend(self.discovery.conns().map(Effect::Disconnect));
            self.stopped = true;
            effects.push(Effect::Stopped);
        }
    }

    /// Asserts what always holds.
    pub fn check(&self) {
        self.discovery.check();
        let waits = |token| self.waiting.contains(token);
        for (token, pending) in &self.pending {
            assert_eq!(pending.sent.is_none(), waits(token), "{token:?} is either sent or waits");
            assert!(pending.sent.is_none_or(|(conn, _)| self.discovery.is_up(conn)), "{token:?} is nowhere");
        }
        assert!(self.open.keys().all(|conn| self.discovery.is_up(*conn)) || self.stopped);
        assert!(self.waiting.iter().all(|token| self.pending.contains_key(token)));
        assert!(self.waiting.is_empty() || self.open.is_empty() || self.stopped, "nothing waits without need");
    }
}
