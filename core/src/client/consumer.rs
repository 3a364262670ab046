//! A consumer of one channel over all nsqds that have its topic.
//!
//! In: [`Input`]s, which are what happens to its connections, what nsqlookupds answer and what the application does
//! with its messages. Out: [`Effect`]s. It puts together [discovery](super::discovery), the [sharing](super::sharing)
//! of RDY and [backoff](super::backoff), and keeps the flights: each message that was handed out and not answered. The
//! one rule: every message that comes is handed out once, in at most `max_in_flight` flights, or dropped for a reason
//! that is told.

use super::ConnId;
use super::backoff::{Backoff, BackoffLimits, State};
use super::connection::Command;
use super::discovery::{Discovery, Sources, Step};
use super::handshake::Limits;
use super::notice::Notice;
use super::sharing::Sharing;
use crate::message::MessageId;
use crate::time::{Duration, Instant};
use crate::wire::Message;
use alloc::borrow::ToOwned;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;

/// How a consumer behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The most messages in flight, over all connections.
    pub max_in_flight: u32,
    /// Deliveries of a message after which it is given up; 0 is never.
    pub max_attempts: u16,
    /// A requeued message waits so long for each attempt so far, if nothing else is said.
    pub requeue_delay: Duration,
    /// The longest such wait.
    pub max_requeue_delay: Duration,
    /// What failures do.
    pub backoff: BackoffLimits,
    /// How long an end in order waits for messages to be answered.
    pub stop_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_in_flight: 100,
            max_attempts: 5,
            requeue_delay: Duration::from_secs(90),
            max_requeue_delay: Duration::from_secs(15 * 60),
            backoff: BackoffLimits::default(),
            stop_timeout: Duration::from_secs(30),
        }
    }
}

/// A message on its way to the application, and where its answer goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The connection that it came by.
    pub conn: ConnId,
    /// Tells it from other deliveries, of the same message too.
    pub number: u64,
    /// The message.
    pub message: Message,
}

/// Which delivery an answer is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeliveryId {
    /// See [`Delivery`].
    pub conn: ConnId,
    /// See [`Delivery`].
    pub number: u64,
    /// The message's id.
    pub id: MessageId,
    /// The message's attempts.
    pub attempts: u16,
}

/// What the application does with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is done.
    Finish,
    /// It has failed, or is not wanted now.
    Requeue {
        /// How long it waits; according to its attempts if there is none.
        delay: Option<Duration>,
        /// Whether this is a failure, for backoff.
        failed: bool,
    },
    /// It takes longer.
    Touch,
}

/// What happens to a consumer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Time passes.
    Tick,
    /// A nsqlookupd, by its index, lists these nsqds.
    Listed(usize, Vec<String>),
    /// A nsqlookupd could not be asked, and why.
    NotListed(usize, String),
    /// A connection has subscribed.
    Opened(ConnId, Limits),
    /// A connection is over or could not be made, and why.
    Lost(ConnId, String),
    /// A message has come.
    Message(ConnId, Message),
    /// nsqd would not take an answer; its words.
    AnswerFailed(ConnId, String),
    /// nsqd has answered CLS.
    Closing(ConnId),
    /// The application answers.
    Answer(DeliveryId, Answer),
    /// It is to end in order.
    Stop,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Ask the nsqlookupd of this index, and report with [`Input::Listed`] or [`Input::NotListed`].
    Ask(usize),
    /// Connect to that address, and report with [`Input::Opened`] or [`Input::Lost`].
    Connect(ConnId, String),
    /// Say this to nsqd.
    Send(ConnId, Command),
    /// End a connection once all is said, without a report.
    Disconnect(ConnId),
    /// Hand this to the application.
    Deliver(Delivery),
    /// Hand this to whoever takes what is given up, who answers it.
    GiveUp(Delivery),
    /// Tell who wants to know.
    Notice(Notice),
    /// It has ended: there is nothing more to do or to come.
    Stopped,
}

#[derive(Debug)]
struct Flight {
    conn: ConnId,
    id: MessageId,
    /// When nsqd has certainly taken the message back, and the latest that this can be put off to.
    deadline: Instant,
    latest: Instant,
}

#[derive(Debug)]
struct Conn {
    limits: Limits,
    closing: bool,
    /// Messages that came though there was no room for them, and are held back or were given back.
    surplus: u32,
}

#[derive(Debug, PartialEq, Eq)]
enum Life {
    Running,
    /// Until then at the latest.
    Stopping(Instant),
    Stopped,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Consumer {
    options: Options,
    discovery: Discovery,
    sharing: Sharing,
    backoff: Backoff,
    /// Those that are open.
    conns: BTreeMap<ConnId, Conn>,
    flights: BTreeMap<u64, Flight>,
    /// Messages that came though there was no room for them, and when they are worth nothing any more.
    held: VecDeque<(Instant, Delivery)>,
    deliveries: u64,
    /// No flight ends by time before this.
    next_expiry: Option<Instant>,
    life: Life,
    /// When something may have to be done.
    due: Option<Instant>,
    rdys: Vec<(ConnId, u32)>,
    steps: Vec<Step>,
}

impl Consumer {
    /// A consumer that has done nothing yet: the first [`Input::Tick`] makes it ask and connect.
    pub fn new(now: Instant, options: Options, sources: Sources, seed: u64) -> Self {
        Self {
            discovery: Discovery::new(now, sources, seed),
            sharing: Sharing::new(options.max_in_flight),
            backoff: Backoff::new(options.backoff),
            options,
            conns: BTreeMap::new(),
            flights: BTreeMap::new(),
            held: VecDeque::new(),
            deliveries: 0,
            next_expiry: None,
            life: Life::Running,
            due: Some(now),
            rdys: Vec::new(),
            steps: Vec::new(),
        }
    }

    /// Takes in what happened.
    pub fn handle(&mut self, now: Instant, input: Input, effects: &mut Vec<Effect>) {
        if self.life == Life::Stopped {
            return;
        }
        let alters_course = match input {
            Input::Message(..) | Input::AnswerFailed(..) => false,
            Input::Answer(delivery, answer) => self.answer(now, delivery, answer, effects),
            _ => true,
        };
        match input {
            Input::Tick | Input::Answer(..) => {}
            Input::Listed(index, nsqds) => self.discovery.answered(now, index, nsqds),
            Input::NotListed(index, reason) => self.not_listed(index, reason, effects),
            Input::Opened(conn, limits) => self.opened(now, conn, limits, effects),
            Input::Lost(conn, reason) => self.lost(now, conn, reason, effects),
            Input::Message(conn, message) => self.message(now, conn, message, effects),
            Input::AnswerFailed(conn, text) => {
                effects.push(Effect::Notice(Notice::AnswerFailed { nsqd: self.nsqd(conn), reason: text }));
            }
            Input::Closing(conn) => {
                if let Some(conn) = self.conns.get_mut(&conn) {
                    conn.closing = true;
                }
            }
            Input::Stop => self.stop(now, effects),
        }
        // Most messages and answers change nothing but a count.
        if alters_course || self.due.is_some_and(|due| due <= now) || self.is_unsettled() {
            self.pass_time(now, effects);
            self.admit_held(now, effects);
            self.share(now, effects);
            self.end(now, effects);
            self.due = self.next_deadline();
        } else {
            self.due = self.due.into_iter().chain(self.next_expiry).chain(self.sharing.soonest()).min();
        }
    }

    /// When to come back with [`Input::Tick`], if nothing happens before. May be early, but is never late.
    pub const fn deadline(&self) -> Option<Instant> {
        self.due
    }

    fn is_unsettled(&self) -> bool {
        self.sharing.is_changed() || !self.held.is_empty() || self.life != Life::Running
    }

    fn next_deadline(&self) -> Option<Instant> {
        let held = self.held.front().map(|(until, _)| *until);
        let running = [self.discovery.deadline(), held, self.backoff.deadline(), self.sharing.deadline()];
        match self.life {
            Life::Running => running.into_iter().chain([self.next_expiry]).flatten().min(),
            Life::Stopping(until) => Some(self.next_expiry.map_or(until, |due| due.min(until))),
            Life::Stopped => None,
        }
    }

    /// Whether a delivery is neither answered nor timed out.
    pub fn is_in_flight(&self, number: u64) -> bool {
        self.flights.contains_key(&number)
    }

    /// Messages that were handed out, and are neither answered nor timed out.
    pub fn in_flight(&self) -> usize {
        self.flights.len()
    }

    /// The nsqlookupd of an index.
    pub fn lookupd(&self, index: usize) -> &str {
        self.discovery.lookupd(index)
    }

    fn nsqd(&self, conn: ConnId) -> String {
        self.discovery.address(conn).unwrap_or_default().to_owned()
    }

    fn not_listed(&mut self, index: usize, reason: String, effects: &mut Vec<Effect>) {
        self.discovery.unanswered(index);
        let nsqlookupd = self.discovery.lookupd(index).to_owned();
        effects.push(Effect::Notice(Notice::LookupFailed { nsqlookupd, reason }));
    }

    fn opened(&mut self, now: Instant, conn: ConnId, limits: Limits, effects: &mut Vec<Effect>) {
        if self.life != Life::Running || self.discovery.address(conn).is_none() {
            return;
        }
        self.discovery.opened(now, conn);
        self.sharing.connect(now, conn, limits.max_rdy, limits.round_trip);
        self.conns.insert(conn, Conn { limits, closing: false, surplus: 0 });
        effects.push(Effect::Notice(Notice::Connected { nsqd: self.nsqd(conn) }));
    }

    /// What it has in flight stays there until it is answered or taken back.
    fn lost(&mut self, now: Instant, conn: ConnId, reason: String, effects: &mut Vec<Effect>) {
        let nsqd = self.nsqd(conn);
        let retry = self.discovery.lost(now, conn).filter(|_| self.life == Life::Running);
        self.held.retain(|(_, delivery)| delivery.conn != conn);
        if self.conns.remove(&conn).is_some() {
            self.sharing.disconnect(conn);
            effects.push(Effect::Notice(Notice::Disconnected { nsqd, reason, retry }));
        } else if !nsqd.is_empty() {
            effects.push(Effect::Notice(Notice::ConnectFailed { nsqd, reason, retry }));
        }
    }

    fn message(&mut self, now: Instant, conn: ConnId, message: Message, effects: &mut Vec<Effect>) {
        let Some(Conn { limits, .. }) = self.conns.get(&conn) else { return };
        let until = now + patience(limits);
        self.deliveries += 1;
        let delivery = Delivery { conn, number: self.deliveries, message };
        if (self.held.is_empty() || self.sharing.has_room(conn)) && self.sharing.admit(now, conn) {
            self.deliver(now, delivery, effects);
        } else if self.has_too_many(conn) {
            effects.push(Effect::Disconnect(conn));
            self.lost(now, conn, "it sends more messages than RDY allows".to_owned(), effects);
        } else if self.life == Life::Running {
            self.held.push_back((until, delivery));
        } else {
            effects.push(give_back(&delivery));
        }
    }

    /// Counts one more message for which there is no room. No RDY is above `max_in_flight`; as many again may have
    /// timed out and have come anew.
    fn has_too_many(&mut self, conn: ConnId) -> bool {
        let Some(conn) = self.conns.get_mut(&conn) else { return false };
        conn.surplus = conn.surplus.saturating_add(1);
        conn.surplus > self.options.max_in_flight.saturating_mul(2)
    }

    fn deliver(&mut self, now: Instant, delivery: Delivery, effects: &mut Vec<Effect>) {
        let Some(Conn { limits, .. }) = self.conns.get(&delivery.conn) else { return };
        let deadline = now + patience(limits);
        let latest = now + limits.max_msg_timeout.max(limits.msg_timeout) + limits.round_trip;
        let flight = Flight { conn: delivery.conn, id: delivery.message.id, deadline, latest };
        self.flights.insert(delivery.number, flight);
        self.next_expiry = Some(self.next_expiry.map_or(deadline, |next| next.min(deadline)));
        let given_up = self.options.max_attempts > 0 && delivery.message.attempts > self.options.max_attempts;
        if given_up {
            let Message { id, attempts, .. } = delivery.message;
            effects.push(Effect::Notice(Notice::GaveUp { nsqd: self.nsqd(delivery.conn), id, attempts }));
            effects.push(Effect::GiveUp(delivery));
        } else {
            effects.push(Effect::Deliver(delivery));
        }
    }

    /// Returns whether this begins or ends something.
    fn answer(&mut self, now: Instant, delivery: DeliveryId, answer: Answer, effects: &mut Vec<Effect>) -> bool {
        let DeliveryId { conn, number, id, attempts } = delivery;
        let mut judged = false;
        if answer == Answer::Touch {
            if !self.touch(now, number) {
                // It would give time to another delivery of the message, if to any.
                return false;
            }
        } else if self.flights.remove(&number).is_some() {
            judged = self.judge(now, answer, effects);
            if judged {
                // RDY goes out before the answer that makes room.
                self.share(now, effects);
            }
            self.sharing.leave(now, conn);
        }
        if !self.conns.contains_key(&conn) {
            effects.push(Effect::Notice(Notice::AnswerLost { id }));
            return judged;
        }
        // One that is late is nsqd's to judge.
        let command = match answer {
            Answer::Finish => Command::Finish(id),
            Answer::Requeue { delay, .. } => {
                let delay = delay.unwrap_or_else(|| self.requeue_delay(attempts));
                Command::Requeue(id, delay.min(LONGEST_DELAY))
            }
            Answer::Touch => Command::Touch(id),
        };
        effects.push(Effect::Send(conn, command));
        judged
    }

    /// Gives a message more time, unless it has timed out.
    fn touch(&mut self, now: Instant, number: u64) -> bool {
        let Some(flight) = self.flights.get_mut(&number) else { return false };
        if let Some(Conn { limits, .. }) = self.conns.get(&flight.conn) {
            flight.deadline = (now + patience(limits)).min(flight.latest);
        }
        true
    }

    fn requeue_delay(&self, attempts: u16) -> Duration {
        self.options.requeue_delay.saturating_mul(u32::from(attempts.max(1))).min(self.options.max_requeue_delay)
    }

    /// Returns whether that changes how much may be asked for.
    fn judge(&mut self, now: Instant, answer: Answer, effects: &mut Vec<Effect>) -> bool {
        let before = self.backoff.state();
        let pause = match answer {
            Answer::Finish => self.backoff.succeeded(now),
            Answer::Requeue { failed: true, .. } => self.backoff.failed(now),
            Answer::Requeue { .. } | Answer::Touch => None,
        };
        if let Some(pause) = pause {
            effects.push(Effect::Notice(Notice::Backoff { pause }));
        } else if before != State::Off && self.backoff.state() == State::Off {
            effects.push(Effect::Notice(Notice::BackoffEnded));
        }
        before != self.backoff.state()
    }

    /// Ends flights that nsqd has taken back, pauses, and waits.
    fn pass_time(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        if self.next_expiry.is_some_and(|due| due <= now) {
            let late: Vec<u64> =
                self.flights.iter().filter(|(_, flight)| flight.deadline <= now).map(|(number, _)| *number).collect();
            for number in late {
                let flight = self.flights.remove(&number).expect("it was just there");
                self.sharing.leave(now, flight.conn);
                effects.push(Effect::Notice(Notice::TimedOut { nsqd: self.nsqd(flight.conn), id: flight.id }));
                self.judge(now, Answer::Requeue { delay: None, failed: true }, effects);
            }
            self.next_expiry = self.flights.values().map(|flight| flight.deadline).min();
        }
        self.backoff.tick(now);
        if self.life == Life::Running {
            let mut steps = core::mem::take(&mut self.steps);
            self.discovery.tick(now, &mut steps);
            effects.extend(steps.drain(..).map(|step| match step {
                Step::Ask(index) => Effect::Ask(index),
                Step::Connect(conn, address) => Effect::Connect(conn, address),
            }));
            self.steps = steps;
        }
    }

    fn admit_held(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        for (until, delivery) in core::mem::take(&mut self.held) {
            if now < until && !self.sharing.admit(now, delivery.conn) {
                self.held.push_back((until, delivery));
                continue;
            }
            if let Some(conn) = self.conns.get_mut(&delivery.conn) {
                conn.surplus -= 1;
            }
            if now < until {
                self.deliver(now, delivery, effects);
            } else {
                let nsqd = self.nsqd(delivery.conn);
                effects.push(Effect::Notice(Notice::TimedOut { nsqd, id: delivery.message.id }));
            }
        }
        self.sharing.set_held(self.held.len());
    }

    fn share(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        if self.life != Life::Running {
            return;
        }
        self.sharing.set_budget(self.backoff.budget(self.options.max_in_flight));
        let mut rdys = core::mem::take(&mut self.rdys);
        self.sharing.share(now, &mut rdys);
        effects.extend(rdys.drain(..).map(|(conn, rdy)| Effect::Send(conn, Command::Ready(rdy))));
        self.rdys = rdys;
    }

    fn stop(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        if self.life != Life::Running {
            return;
        }
        self.life = Life::Stopping(now + self.options.stop_timeout);
        effects.extend(self.held.drain(..).map(|(_, delivery)| give_back(&delivery)));
        let unopened: Vec<_> = self.discovery.conns().filter(|conn| !self.conns.contains_key(conn)).collect();
        for conn in unopened {
            self.discovery.lost(now, conn);
            effects.push(Effect::Disconnect(conn));
        }
        effects.extend(self.conns.keys().map(|conn| Effect::Send(*conn, Command::Close)));
    }

    /// Ends connections that have nothing more to say, and then itself.
    fn end(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let Life::Stopping(until) = self.life else { return };
        let flights = &self.flights;
        let done = |id: ConnId, conn: &Conn| {
            now >= until || (conn.closing && flights.values().all(|flight| flight.conn != id))
        };
        let ended: Vec<_> = self.conns.iter().filter(|(id, conn)| done(**id, conn)).map(|(id, _)| *id).collect();
        for conn in ended {
            self.conns.remove(&conn);
            self.sharing.disconnect(conn);
            self.discovery.lost(now, conn);
            effects.push(Effect::Disconnect(conn));
        }
        if self.conns.is_empty() {
            self.life = Life::Stopped;
            effects.push(Effect::Stopped);
        }
    }

    /// Asserts what always holds.
    pub fn check(&self) {
        self.discovery.check();
        self.sharing.check();
        self.backoff.check();
        assert!(self.flights.len() <= self.options.max_in_flight as usize, "{} in flight", self.flights.len());
        assert_eq!(self.flights.len(), self.sharing.in_flight(), "flights and credit agree");
        assert!(self.flights.values().all(|flight| self.next_expiry.is_some_and(|next| next <= flight.deadline)));
        let here = |conn: &ConnId| self.conns.contains_key(conn);
        assert!(self.held.iter().all(|(_, delivery)| here(&delivery.conn)), "held back for nothing");
        let surplus: usize = self.conns.values().map(|conn| conn.surplus as usize).sum();
        assert!(self.life != Life::Running || surplus == self.held.len(), "{surplus} held back");
        let next = self.next_deadline();
        assert!(next.is_none_or(|next| self.due.is_some_and(|due| due <= next)), "{:?} is after {next:?}", self.due);
    }
}

/// The longest delay of REQ that is asked for; nsqd allows an hour by default.
const LONGEST_DELAY: Duration = Duration::from_millis(u32::MAX as u64);

/// A message that was never handed out goes back at once.
const fn give_back(delivery: &Delivery) -> Effect {
    Effect::Send(delivery.conn, Command::Requeue(delivery.message.id, Duration::ZERO))
}

/// After which a message that came, or was touched, now has certainly timed out in nsqd.
fn patience(limits: &Limits) -> Duration {
    limits.msg_timeout + limits.round_trip * 2
}
