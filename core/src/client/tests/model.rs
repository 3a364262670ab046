//! A model of several nsqds, the network between, and an application, around a consumer's machine.
//!
//! Time goes from event to event: commands and messages take each nsqd's latency, messages time out, delays end. After
//! each event everything that must always hold is [asserted](World::check). The nsqds do what upstream's do: they send
//! while they have fewer in flight than RDY, and know nothing of max-in-flight.

use crate::client::connection::Command;
use crate::client::consumer::{Answer, Consumer, Delivery, DeliveryId, Effect, Input, Options};
use crate::client::{ConnId, Limits, Notice, Sources};
use crate::message::MessageId;
use crate::time::{Duration, Instant};
use crate::wire::Message;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use bytes::Bytes;

pub(super) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(super) const MSG_TIMEOUT: Duration = ms(5000);

/// An nsqd with one channel.
#[derive(Debug, Default)]
pub(super) struct Nsqd {
    pub(super) up: bool,
    pub(super) latency: Duration,
    /// Accepts connections, but refuses SUB.
    pub(super) refuses: bool,
    pub(super) queue: VecDeque<(MessageId, u16)>,
    pub(super) finished: usize,
}

/// nsqd's side of a connection.
#[derive(Debug)]
struct Conn {
    nsqd: usize,
    rdy: u32,
    closing: bool,
    /// The client hears what nsqd says, and nsqd what the client has said.
    heard: bool,
    obeyed: bool,
    /// By id: which delivery it is, and its attempts.
    in_flight: BTreeMap<MessageId, (u64, u16)>,
    /// Those of them whose answers are on the way.
    answered: BTreeSet<MessageId>,
}

#[derive(Debug)]
enum Event {
    Connected(ConnId, usize),
    Refused(ConnId),
    Command(ConnId, Command),
    Message(ConnId, Message),
    Closing(ConnId),
    /// nsqd learns that a connection is over.
    Closed(ConnId),
    Lost(ConnId),
    Listed(usize),
    /// A delivery times out in nsqd.
    TimesOut(ConnId, usize, MessageId, u64, u16),
    /// A delay is over.
    Comes(usize, MessageId, u16),
}

pub(super) struct World {
    pub(super) now: Instant,
    pub(super) machine: Consumer,
    pub(super) nsqds: Vec<Nsqd>,
    conns: BTreeMap<ConnId, Conn>,
    events: BTreeMap<(Instant, u64), Event>,
    sequence: u64,
    /// What the application holds.
    pub(super) hands: VecDeque<Delivery>,
    pub(super) given_up: Vec<Delivery>,
    pub(super) notices: Vec<Notice>,
    /// Where each message that was handed out came from, and when.
    pub(super) log: Vec<(Instant, usize)>,
    seen: BTreeSet<u64>,
    /// The delays of all REQs.
    pub(super) requeued: Vec<Duration>,
    max_in_flight: usize,
    pub(super) stopped: bool,
    published: u64,
    /// Whether the network keeps what sharing assumes of it.
    pub(super) prompt: bool,
}

pub(super) fn options(max_in_flight: u32) -> Options {
    Options { max_in_flight, max_attempts: 0, ..Options::default() }
}

impl World {
    /// So many nsqds, all up and configured.
    pub(super) fn new(nsqds: usize, options: Options) -> Self {
        let names: Vec<String> = (0..nsqds).map(|index| index.to_string()).collect();
        let sources = Sources { nsqds: names, lookupds: Vec::from(["l".to_string()]), ..Sources::default() };
        let max_in_flight = options.max_in_flight as usize;
        let start = Instant::from_nanos(1_000_000_000);
        let nsqd = || Nsqd { up: true, latency: ms(1), ..Nsqd::default() };
        Self {
            now: start,
            machine: Consumer::new(start, options, sources, 7),
            nsqds: (0..nsqds).map(|_| nsqd()).collect(),
            conns: BTreeMap::new(),
            events: BTreeMap::new(),
            sequence: 0,
            hands: VecDeque::new(),
            given_up: Vec::new(),
            notices: Vec::new(),
            log: Vec::new(),
            seen: BTreeSet::new(),
            requeued: Vec::new(),
            max_in_flight,
            stopped: false,
            published: 0,
            prompt: true,
        }
    }

    /// Lets time pass.
    pub(super) fn pass(&mut self, time: Duration) {
        self.pass_until(time, |_| false);
    }

    /// Lets time pass until something holds; whether it did.
    pub(super) fn pass_until(&mut self, time: Duration, holds: impl Fn(&Self) -> bool) -> bool {
        let (end, mut calls, mut last) = (self.now + time, 0, self.now);
        while !holds(self) {
            let event = self.events.first_key_value().map(|((at, _), _)| *at);
            let deadline = self.machine.deadline();
            let Some(next) = event.into_iter().chain(deadline).min().filter(|next| *next <= end) else { break };
            self.now = self.now.max(next);
            calls = if self.now == last { calls + 1 } else { 0 };
            last = self.now;
            assert!(calls < 10_000, "time stands still: {:?} at {:?}", deadline, self.now);
            if event.is_some_and(|event| event <= self.now) {
                let (_, event) = self.events.pop_first().unwrap();
                self.happen(event);
            } else {
                self.input(Input::Tick);
            }
        }
        let held = holds(self);
        if !held {
            self.now = self.now.max(end);
        }
        held
    }

    pub(super) fn publish(&mut self, nsqd: usize, count: usize) {
        for _ in 0..count {
            self.published += 1;
            let id = MessageId(alloc::format!("{:016x}", self.published).into_bytes().try_into().unwrap());
            self.nsqds[nsqd].queue.push_back((id, 1));
        }
        self.pump(nsqd);
    }

    pub(super) fn published(&self) -> usize {
        self.published as usize
    }

    pub(super) fn finished(&self) -> usize {
        self.nsqds.iter().map(|nsqd| nsqd.finished).sum()
    }

    /// Answers the message that the application has held longest.
    pub(super) fn answer(&mut self, answer: Answer) {
        if let Some(delivery) = self.hands.pop_front() {
            self.answer_to(&delivery, answer);
        }
    }

    pub(super) fn answer_to(&mut self, delivery: &Delivery, answer: Answer) {
        let Delivery { conn, number, message } = delivery;
        let id = DeliveryId { conn: *conn, number: *number, id: message.id, attempts: message.attempts };
        self.input(Input::Answer(id, answer));
    }

    /// Everything in hand is finished as it comes, for so long.
    pub(super) fn finish_all_for(&mut self, time: Duration, until: impl Fn(&Self) -> bool) -> bool {
        let end = self.now + time;
        while self.now < end {
            let left = end.since(self.now);
            if self.pass_until(left, |world| until(world) || !world.hands.is_empty()) && until(self) {
                return true;
            }
            self.answer(Answer::Finish);
        }
        until(self)
    }

    pub(super) fn kill(&mut self, nsqd: usize) {
        self.nsqds[nsqd].up = false;
        let conns: Vec<_> = self.live(nsqd).collect();
        conns.into_iter().for_each(|conn| self.cut(conn));
    }

    /// Breaks the connection to an nsqd that lives.
    pub(super) fn disconnect(&mut self, nsqd: usize) {
        let conn = self.live(nsqd).next();
        conn.into_iter().for_each(|conn| self.cut(conn));
    }

    /// Messages from an nsqd that knows no RDY, so many if its connection lasts; how many came.
    pub(super) fn flood(&mut self, nsqd: usize, count: u64) -> u64 {
        let conn = self.live(nsqd).next().unwrap();
        for number in 0..count {
            if !self.is_heard(conn) {
                return number;
            }
            let id = MessageId(alloc::format!("f{number:015x}").into_bytes().try_into().unwrap());
            let body: Vec<u8> = [(nsqd as u64).to_be_bytes(), (u64::MAX - number).to_be_bytes()].concat();
            self.input(Input::Message(conn, Message { timestamp: 0, attempts: 1, id, body: Bytes::from(body) }));
        }
        count
    }

    fn live(&self, nsqd: usize) -> impl Iterator<Item = ConnId> {
        self.conns.iter().filter(move |(_, conn)| conn.nsqd == nsqd && conn.heard).map(|(id, _)| *id)
    }

    fn cut(&mut self, id: ConnId) {
        let conn = self.conns.get_mut(&id).unwrap();
        (conn.heard, conn.obeyed) = (false, false);
        let latency = self.nsqds[conn.nsqd].latency;
        self.after(latency, Event::Lost(id));
    }

    fn is_heard(&self, id: ConnId) -> bool {
        self.conns.get(&id).is_some_and(|conn| conn.heard)
    }

    pub(super) fn input(&mut self, input: Input) {
        let mut effects = Vec::new();
        self.machine.handle(self.now, input, &mut effects);
        effects.into_iter().for_each(|effect| self.perform(effect));
        self.check();
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Ask(index) => self.after(ms(3), Event::Listed(index)),
            Effect::Connect(conn, address) => {
                let index: usize = address.parse().unwrap();
                let nsqd = &self.nsqds[index];
                let connects = nsqd.up && !nsqd.refuses;
                let event = if connects { Event::Connected(conn, index) } else { Event::Refused(conn) };
                self.after(nsqd.latency * 2, event);
            }
            Effect::Send(conn, command) => {
                let Some(known) = self.conns.get_mut(&conn) else { return };
                if let Command::Finish(message) | Command::Requeue(message, _) = command {
                    known.answered.insert(message);
                }
                let latency = self.nsqds[known.nsqd].latency;
                if let Command::Requeue(_, delay) = command {
                    self.requeued.push(delay);
                }
                self.after(latency, Event::Command(conn, command));
            }
            Effect::Disconnect(conn) => {
                if let Some(known) = self.conns.get_mut(&conn) {
                    known.heard = false;
                    let latency = self.nsqds[known.nsqd].latency;
                    self.after(latency, Event::Closed(conn));
                }
            }
            Effect::Deliver(delivery) => self.hand_out(delivery, false),
            Effect::GiveUp(delivery) => self.hand_out(delivery, true),
            Effect::Notice(notice) => self.notices.push(notice),
            Effect::Stopped => self.stopped = true,
        }
    }

    fn hand_out(&mut self, delivery: Delivery, given_up: bool) {
        let nsqd: u64 = u64::from_be_bytes(delivery.message.body[..8].try_into().unwrap());
        let serial = u64::from_be_bytes(delivery.message.body[8..].try_into().unwrap());
        assert!(self.seen.insert(serial), "delivery {serial} was handed out twice");
        self.log.push((self.now, nsqd as usize));
        if given_up { self.given_up.push(delivery) } else { self.hands.push_back(delivery) }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Connected(id, nsqd) => {
                if !self.nsqds[nsqd].up {
                    return self.input(Input::Lost(id, "gone".to_string()));
                }
                let conn = Conn {
                    nsqd,
                    rdy: 0,
                    closing: false,
                    heard: true,
                    obeyed: true,
                    in_flight: BTreeMap::new(),
                    answered: BTreeSet::new(),
                };
                self.conns.insert(id, conn);
                let round_trip = self.nsqds[nsqd].latency * 2;
                let limits =
                    Limits { max_rdy: 2500, msg_timeout: MSG_TIMEOUT, max_msg_timeout: MSG_TIMEOUT * 10, round_trip };
                self.input(Input::Opened(id, limits));
            }
            Event::Refused(conn) => self.input(Input::Lost(conn, "refused".to_string())),
            Event::Lost(conn) => self.input(Input::Lost(conn, "lost".to_string())),
            Event::Command(conn, command) => self.obey(conn, command),
            Event::Message(conn, message) if self.is_heard(conn) => {
                self.input(Input::Message(conn, message));
            }
            Event::Closing(conn) if self.is_heard(conn) => self.input(Input::Closing(conn)),
            Event::Message(..) | Event::Closing(_) => {}
            Event::Closed(conn) => self.conns.get_mut(&conn).unwrap().obeyed = false,
            Event::Listed(index) => {
                let up = self.nsqds.iter().enumerate().filter(|(_, nsqd)| nsqd.up);
                let listed = up.map(|(index, _)| index.to_string()).collect();
                self.input(Input::Listed(index, listed));
            }
            Event::TimesOut(conn, nsqd, id, serial, attempts) => {
                let conn = self.conns.get_mut(&conn).unwrap();
                if conn.in_flight.get(&id).is_none_or(|(current, _)| *current != serial) {
                    return;
                }
                conn.in_flight.remove(&id);
                conn.answered.remove(&id);
                self.nsqds[nsqd].queue.push_back((id, attempts + 1));
                self.pump(nsqd);
            }
            Event::Comes(nsqd, id, attempts) => {
                self.nsqds[nsqd].queue.push_back((id, attempts));
                self.pump(nsqd);
            }
        }
    }

    /// What nsqd does with a command.
    fn obey(&mut self, id: ConnId, command: Command) {
        let Some(conn) = self.conns.get_mut(&id).filter(|conn| conn.obeyed) else { return };
        let (nsqd, latency) = (conn.nsqd, self.nsqds[conn.nsqd].latency);
        if let Command::Finish(message) | Command::Requeue(message, _) = command {
            conn.answered.remove(&message);
        }
        match command {
            Command::Ready(rdy) => conn.rdy = rdy,
            Command::Finish(message) => {
                self.nsqds[nsqd].finished += usize::from(conn.in_flight.remove(&message).is_some());
            }
            Command::Requeue(message, delay) => {
                if let Some((_, attempts)) = conn.in_flight.remove(&message) {
                    self.after(delay, Event::Comes(nsqd, message, attempts + 1));
                }
            }
            Command::Touch(message) => {
                if let Some((serial, attempts)) = conn.in_flight.get_mut(&message) {
                    // It is another delivery for its old timer.
                    self.sequence += 1;
                    *serial = self.sequence;
                    let event = Event::TimesOut(id, nsqd, message, *serial, *attempts);
                    self.after(MSG_TIMEOUT, event);
                }
            }
            Command::Close => {
                conn.closing = true;
                self.after(latency, Event::Closing(id));
            }
            Command::Publish(..) => panic!("a consumer publishes"),
        }
        self.pump(nsqd);
    }

    /// Sends what RDY allows.
    fn pump(&mut self, nsqd: usize) {
        loop {
            let ready = |conn: &&mut Conn| {
                conn.nsqd == nsqd && conn.obeyed && !conn.closing && conn.in_flight.len() < conn.rdy as usize
            };
            let Some((conn_id, conn)) =
                self.conns.iter_mut().map(|(id, conn)| (*id, conn)).find(|(_, conn)| ready(conn))
            else {
                break;
            };
            let Some((id, attempts)) = self.nsqds[nsqd].queue.pop_front() else { break };
            self.sequence += 1;
            let serial = self.sequence;
            conn.in_flight.insert(id, (serial, attempts));
            let body: Vec<u8> = [(nsqd as u64).to_be_bytes(), serial.to_be_bytes()].concat();
            let message = Message { timestamp: 0, attempts, id, body: Bytes::from(body) };
            self.after(MSG_TIMEOUT, Event::TimesOut(conn_id, nsqd, id, serial, attempts));
            self.after(self.nsqds[nsqd].latency, Event::Message(conn_id, message));
        }
        self.check();
    }

    fn after(&mut self, delay: Duration, event: Event) {
        self.sequence += 1;
        self.events.insert((self.now + delay, self.sequence), event);
    }

    /// What must hold at any moment.
    fn check(&self) {
        self.machine.check();
        // What has been answered is in flight no more for a consumer, though its nsqd does not know yet.
        let unanswered = |conn: &Conn| conn.in_flight.keys().filter(|id| !conn.answered.contains(*id)).count();
        let of_conns: usize = self.conns.values().filter(|conn| conn.heard).map(unanswered).sum();
        if self.prompt {
            assert!(of_conns <= self.max_in_flight, "{of_conns} in flight, of {}", self.max_in_flight);
        }
        assert!(self.machine.in_flight() <= self.max_in_flight);
    }
}
