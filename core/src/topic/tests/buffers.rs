//! Threads call a topic in turns, each with a buffer of its own that it uses again and again: what one of them holds
//! says nothing about the others.

use super::sentences::{channel, plain_consumer};
use crate::budget::Budget;
use crate::message::{Bodies, MessageId};
use crate::name::TopicName;
use crate::options::Options;
use crate::random::Random;
use crate::time::{Duration, Now};
use crate::topic::io::{ConnId, Effects, Input, Slot, ToConn};
use crate::topic::{Handled, Topic};
use crate::wire::{self, Frame};
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;
use bytes::BytesMut;

const CONSUMERS: u64 = 5;
const PRODUCER: ConnId = ConnId(99);

#[test]
fn frames_go_to_who_holds_the_message_whoever_calls() {
    for seed in 0..200 {
        let mut random = Random::new(seed);
        let mut topic = topic();
        // As many threads, of which some have not called for long.
        let mut buffers = [Effects::default(), Effects::default(), Effects::default()];
        let mut held: BTreeMap<ConnId, Vec<MessageId>> = BTreeMap::new();
        let mut delivered = BTreeSet::new();
        let channels: BTreeMap<_, _> = (0..CONSUMERS).map(|conn| (ConnId(conn), random.below(3))).collect();
        let subscribe = channels.iter().flat_map(|(conn, of)| subscribe(*conn, *of));
        call(&mut topic, &mut buffers[0], subscribe.collect());
        for _ in 0..50 {
            let buffer = &mut buffers[random.below(3) as usize];
            let batch = if random.below(2) == 0 {
                (0..=random.below(6)).map(|_| publish()).collect()
            } else {
                let conn = ConnId(random.below(CONSUMERS));
                held.remove(&conn).unwrap_or_default().into_iter().map(|id| finish(conn, id)).collect()
            };
            for (conn, ids) in call(&mut topic, buffer, batch) {
                assert!(
                    ids.iter().all(|id| delivered.insert((channels.get(&conn).copied(), *id))),
                    "seed {seed}: delivered twice"
                );
                held.entry(conn).or_default().extend(ids);
            }
            topic.check();
            // Only its holder can finish a message, and all agree on who that is.
            for consumer in topic.stats(None, true).channels.iter().flat_map(|channel| &channel.clients) {
                let known = held.get(&consumer.conn).map_or(0, Vec::len);
                assert_eq!(consumer.in_flight_count, known as u32, "seed {seed}: {:?}", consumer.conn);
            }
        }
        assert!(delivered.len() > 20, "seed {seed}: {} deliveries", delivered.len());
    }
}

/// Hands in a batch as net does, and takes out what it came to: the ids of each connection's frames.
fn call(topic: &mut Topic, effects: &mut Effects, mut batch: VecDeque<Input>) -> Vec<(ConnId, Vec<MessageId>)> {
    assert_eq!(topic.handle(Now::default(), &mut batch, effects), Handled::All);
    let mut told = Vec::new();
    for group in &mut effects.conns {
        assert!(told.iter().all(|(conn, _)| *conn != group.conn), "one group a connection");
        let failed = |(_, event): &(usize, ToConn)| matches!(event, ToConn::Failed { .. });
        assert!(!group.events.iter().any(failed), "{:?}", group.events);
        let mut frames = BytesMut::from(&group.frames[..]);
        let mut ids = Vec::new();
        while let Some(Frame::Message(message)) = wire::decode(&mut frames).expect("frames") {
            ids.push(message.id);
        }
        assert!(frames.is_empty() && (ids.is_empty() || group.conn != PRODUCER));
        told.push((group.conn, ids));
    }
    effects.clear();
    told
}

fn topic() -> Topic {
    let name = TopicName::new("topic").expect("a valid name");
    Topic::new(name, Arc::new(Options::default()), Budget::new(1 << 30), 1)
}

fn subscribe(conn: ConnId, of: u64) -> [Input; 2] {
    let channel = channel(["a", "b", "c"][of as usize]);
    [Input::Subscribe { conn, slot: Slot(1), channel, consumer: plain_consumer() }, Input::Ready { conn, count: 3 }]
}

fn publish() -> Input {
    Input::Publish { from: PRODUCER, slot: Slot(1), bodies: Bodies::one("body".into()), defer: Duration::ZERO }
}

fn finish(conn: ConnId, id: MessageId) -> Input {
    Input::Finish { conn, id, after: Slot(1) }
}
