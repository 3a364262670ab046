//! A producer's promises, one sentence each, and a model that loses connections at every point.

use crate::client::connection::{Command, Token, Unanswered};
use crate::client::producer::{Effect, Input, Options, Outcome, Producer};
use crate::client::{ConnId, Payload, Publish, Sources};
use crate::name::TopicName;
use crate::time::{Duration, Instant};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use bytes::Bytes;
use proptest::prelude::*;

struct World {
    producer: Producer,
    now: Instant,
    connecting: Vec<(ConnId, String)>,
    /// What each connection was given and has not answered.
    sent: BTreeMap<ConnId, Vec<Token>>,
    given: Vec<(ConnId, Token)>,
    /// Had left on a connection that was lost before the answer.
    sent_before: BTreeSet<Token>,
    done: BTreeMap<Token, Outcome>,
    stopped: bool,
    next: u64,
}

impl World {
    fn new(nsqds: usize, retry: bool) -> Self {
        let now = Instant::from_nanos(1_000_000_000);
        let sources = Sources { nsqds: (0..nsqds).map(|index| index.to_string()).collect(), ..Sources::default() };
        let producer = Producer::new(now, Options { retry, ..Options::default() }, sources, 5);
        let (connecting, given, sent_before) = (Vec::new(), Vec::new(), BTreeSet::new());
        let (sent, done) = (BTreeMap::new(), BTreeMap::new());
        let mut world = Self { producer, now, connecting, sent, given, sent_before, done, stopped: false, next: 0 };
        world.input(Input::Tick);
        world
    }

    fn input(&mut self, input: Input) {
        let mut effects = Vec::new();
        self.producer.handle(self.now, input, &mut effects);
        self.producer.check();
        let mut abandoned = Vec::new();
        for effect in effects {
            match effect {
                Effect::Connect(conn, address) => self.connecting.push((conn, address)),
                Effect::Send(conn, Command::Publish(token, _)) => {
                    self.sent.get_mut(&conn).expect("an open connection").push(token);
                    self.given.push((conn, token));
                }
                Effect::Send(_, command) => panic!("{command:?}"),
                Effect::Disconnect(conn) => drop(self.sent.remove(&conn)),
                Effect::Abandon(conn, reason) => abandoned.push((conn, reason)),
                Effect::Done(token, outcome) => {
                    assert_eq!(self.done.insert(token, outcome), None, "{token:?} ended twice");
                }
                Effect::Notice(_) => {}
                Effect::Stopped => self.stopped = true,
            }
        }
        for (conn, reason) in abandoned {
            let unknown = self.sent.remove(&conn).expect("an open connection");
            self.sent_before.extend(&unknown);
            self.input(Input::Lost(conn, reason, Unanswered { unknown, ..Unanswered::default() }));
        }
    }

    fn publish(&mut self) -> Token {
        self.next += 1;
        let payload = Payload::One(Bytes::from_static(b"x"));
        self.input(Input::Publish(Token(self.next), Publish { topic: TopicName::new("t").unwrap(), payload }));
        Token(self.next)
    }

    fn open_all(&mut self) {
        for (conn, _) in core::mem::take(&mut self.connecting) {
            self.sent.insert(conn, Vec::new());
            self.input(Input::Opened(conn));
        }
    }

    fn answer(&mut self, conn: ConnId) {
        if let Some(sent) = self.sent.get_mut(&conn)
            && !sent.is_empty()
        {
            let token = sent.remove(0);
            self.input(Input::Published(conn, token));
        }
    }

    /// The connection is lost after so many of its publishes had left.
    fn lose(&mut self, conn: ConnId, left: usize) {
        let Some(unknown) = self.sent.remove(&conn) else { return };
        let untaken = unknown[left.min(unknown.len())..].to_vec();
        let unknown = unknown[..left.min(unknown.len())].to_vec();
        self.sent_before.extend(&unknown);
        self.input(Input::Lost(conn, "lost".to_string(), Unanswered { refused: None, untaken, unknown }));
    }

    /// nsqd ends the connection because of its oldest publish.
    fn refuse(&mut self, conn: ConnId) {
        if self.sent[&conn].is_empty() {
            return;
        }
        let sent = self.sent.remove(&conn).expect("it was just there");
        let refused = Some((sent[0], "E_BAD_MESSAGE".to_string()));
        let unanswered = Unanswered { refused, untaken: sent[1..].to_vec(), unknown: Vec::new() };
        self.input(Input::Lost(conn, "refused".to_string(), unanswered));
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(due) = self.producer.deadline().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.input(Input::Tick);
        }
        self.now = end;
    }

    fn conns(&self) -> Vec<ConnId> {
        self.sent.keys().copied().collect()
    }
}

#[test]
fn publishes_go_to_all_nsqds_in_turn() {
    let mut world = World::new(3, false);
    world.open_all();
    for _ in 0..9 {
        world.publish();
    }
    let conns = world.conns();
    for round in world.given.chunks(3) {
        assert_eq!(round.iter().map(|(conn, _)| *conn).collect::<BTreeSet<_>>().len(), 3, "{round:?}");
    }
    for conn in conns {
        (0..3).for_each(|_| world.answer(conn));
    }
    assert!(world.done.len() == 9 && world.done.values().all(|outcome| *outcome == Outcome::Accepted));
}

#[test]
fn what_was_not_sent_goes_to_another_nsqd_and_what_was_is_unknown() {
    let mut world = World::new(2, false);
    world.open_all();
    let conns = world.conns();
    let tokens: Vec<_> = (0..4).map(|_| world.publish()).collect();
    let lost: Vec<_> = world.sent[&conns[0]].clone();
    world.lose(conns[0], 1);
    assert!(matches!(world.done[&lost[0]], Outcome::Unknown(_)));
    assert_eq!(world.done.len(), 1);
    assert_eq!(world.sent[&conns[1]].len(), 3, "{tokens:?} {:?}", world.sent);
}

#[test]
fn what_was_sent_is_sent_again_only_if_it_may_come_twice() {
    let mut world = World::new(2, true);
    world.open_all();
    let conns = world.conns();
    for _ in 0..4 {
        world.publish();
    }
    world.lose(conns[0], 2);
    assert!(world.done.is_empty());
    assert_eq!(world.sent[&conns[1]].len(), 4);
}

#[test]
fn what_an_nsqd_may_have_is_never_said_to_be_unpublished() {
    let mut world = World::new(2, true);
    world.open_all();
    let (refused, unsent) = (world.publish(), world.publish());
    let conns = world.conns();
    world.lose(conns[0], 1);
    world.refuse(conns[1]);
    world.pass(Duration::from_secs(1));
    // Both are sent again; one is refused now, the other meets no nsqd any more.
    while !world.done.contains_key(&refused) {
        world.open_all();
        let conn = *world.sent.iter().find(|(_, sent)| sent.contains(&refused)).unwrap().0;
        world.refuse(conn);
        world.pass(Duration::from_millis(100));
    }
    assert_eq!(world.done[&refused], Outcome::Unknown("E_BAD_MESSAGE".to_string()));
    assert!(world.done.contains_key(&unsent));
    let mut world = World::new(1, true);
    world.open_all();
    let token = world.publish();
    world.lose(world.conns()[0], 1);
    world.pass(Duration::from_secs(31));
    assert_eq!(world.done[&token], Outcome::Unknown("0: lost".to_string()));
}

#[test]
fn a_refused_publish_fails_and_those_behind_it_do_not() {
    let mut world = World::new(1, false);
    world.open_all();
    let tokens: Vec<_> = (0..3).map(|_| world.publish()).collect();
    let conn = world.conns()[0];
    world.refuse(conn);
    assert_eq!(world.done[&tokens[0]], Outcome::Refused("E_BAD_MESSAGE".to_string()));
    world.pass(Duration::from_secs(1));
    world.open_all();
    let conn = world.conns()[0];
    assert_eq!(world.sent[&conn], tokens[1..]);
}

#[test]
fn without_an_nsqd_a_publish_fails_in_time_and_says_why() {
    let mut world = World::new(1, false);
    let token = world.publish();
    for _ in 0..20 {
        for (conn, _) in core::mem::take(&mut world.connecting) {
            world.input(Input::Lost(conn, "Connection refused".to_string(), Unanswered::default()));
        }
        world.pass(Duration::from_millis(1499));
    }
    assert!(world.done.is_empty());
    world.pass(Duration::from_millis(20));
    assert_eq!(world.done[&token], Outcome::Unsent("0: Connection refused".to_string()));
}

#[test]
fn without_an_answer_a_publish_is_unknown_in_time() {
    let mut world = World::new(1, true);
    world.open_all();
    let (token, conn) = (world.publish(), world.conns()[0]);
    world.pass(Duration::from_secs(30));
    assert!(matches!(world.done[&token], Outcome::Unknown(_)));
    // An answer after all changes nothing.
    world.input(Input::Published(conn, token));
    assert_eq!(world.done.len(), 1);
}

#[test]
fn a_connection_that_does_not_answer_is_given_up() {
    let mut world = World::new(2, true);
    world.open_all();
    let (mute, other) = (world.conns()[0], world.conns()[1]);
    let overdue = world.publish();
    assert_eq!(world.sent[&mute], [overdue]);
    world.pass(Duration::from_secs(20));
    let later: Vec<_> = (0..4).map(|_| world.publish()).collect();
    world.pass(Duration::from_secs(10));
    assert!(matches!(world.done[&overdue], Outcome::Unknown(_)) && world.done.len() == 1);
    assert!(!world.sent.contains_key(&mute), "{:?}", world.sent);
    assert_eq!(world.sent[&other].len(), 4);
    (0..4).for_each(|_| world.answer(other));
    assert!(later.iter().all(|token| world.done[token] == Outcome::Accepted));
    assert_eq!(world.connecting.len(), 0);
    world.pass(Duration::from_secs(1));
    assert_eq!(world.connecting.len(), 1, "it gets another chance");
}

#[test]
fn a_connection_is_not_blamed_for_what_came_to_it_late() {
    let mut world = World::new(1, false);
    let late = world.publish();
    world.pass(Duration::from_secs(29));
    let good = world.publish();
    world.open_all();
    world.pass(Duration::from_secs(2));
    assert!(matches!(world.done[&late], Outcome::Unknown(_)));
    let conn = world.conns()[0];
    (0..2).for_each(|_| world.answer(conn));
    assert_eq!(world.done[&good], Outcome::Accepted);
}

#[test]
fn refusals_do_not_make_an_nsqd_a_bad_one() {
    let mut world = World::new(1, false);
    for _ in 0..20 {
        world.open_all();
        world.publish();
        world.refuse(world.conns()[0]);
        world.pass(Duration::from_millis(200));
        assert_eq!(world.connecting.len(), 1, "at most the first delay");
    }
    for _ in 0..20 {
        world.open_all();
        world.publish();
        let conn = world.conns()[0];
        world.answer(conn);
        world.lose(conn, 0);
        world.pass(Duration::from_millis(200));
        assert_eq!(world.connecting.len(), 1, "it was of use");
    }
}

#[test]
fn an_end_waits_for_what_is_under_way() {
    let mut world = World::new(1, false);
    world.open_all();
    let token = world.publish();
    world.input(Input::Stop);
    assert!(!world.stopped);
    let conn = world.conns()[0];
    world.answer(conn);
    assert!(world.stopped && world.done[&token] == Outcome::Accepted);
    let late = world.publish();
    assert_eq!(world.done[&late], Outcome::Stopped);
    assert_eq!(world.producer.deadline(), None);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Every publish ends once; none that ended as unsent or refused may have been taken by an nsqd before; none is on
    /// two connections' wires unless that was allowed.
    #[test]
    fn every_publish_ends_once(
        nsqds in 1usize..4,
        retry in any::<bool>(),
        actions in proptest::collection::vec((0u8..7, 0usize..4, 0usize..5), 1..150),
    ) {
        let mut world = World::new(nsqds, retry);
        for (kind, index, number) in actions {
            let conn = world.conns().get(index).copied();
            match (kind, conn) {
                (0 | 1, _) => (0..=number).for_each(|_| _ = world.publish()),
                (2 | 3, Some(conn)) => (0..=number).for_each(|_| world.answer(conn)),
                (4, Some(conn)) => {
                    let left: Vec<_> = world.sent[&conn].iter().take(number).copied().collect();
                    for token in left {
                        prop_assert!(!world.sent_before.contains(&token) || retry, "{token:?} was sent twice");
                    }
                    world.lose(conn, number);
                }
                (5, Some(conn)) => world.refuse(conn),
                _ => {
                    world.pass(Duration::from_millis(700 * number as u64));
                    world.open_all();
                }
            }
        }
        world.pass(Duration::from_secs(31));
        prop_assert_eq!(world.done.len() as u64, world.next);
        prop_assert_eq!(world.producer.outstanding(), 0);
        for (token, outcome) in &world.done {
            let unpublished = matches!(outcome, Outcome::Unsent(_) | Outcome::Refused(_));
            prop_assert!(!unpublished || !world.sent_before.contains(token), "{token:?}");
        }
    }
}
