//! Many threads, real sockets, everything at once, for a few seconds.
//!
//! Producers and consumers come and go, channels are paused and resumed, a topic is deleted and made again. What must
//! hold: a message that was accepted by a topic that nobody deletes is finished at least once on every channel, nothing
//! comes out that was not put in, no task panics, and at the end nothing is left: no message, no byte of memory, no
//! connection.

#[allow(dead_code, reason = "each test uses a part of it")]
mod common;

use common::{LONG, Nsqd, soon, until};
use nsq_core::name::{ChannelName, TopicName};
use nsq_core::options::Options;
use nsq_core::random::Random;
use nsq_core::topic::io::Admin;
use nsq_net::broker::Broker;
use nsq_net::client::plain::{Consumer, Event, Producer, Published};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

const TOPICS: [&str; 3] = ["one", "two", "three"];
const CHANNELS: [&str; 2] = ["left", "right"];
/// Deleted all the time.
const DOOMED: &str = "doomed";
const TIME: Duration = Duration::from_secs(3);
const NO_DELAY: Duration = Duration::ZERO;

/// What the clients have seen.
#[derive(Default)]
struct Ledger {
    /// By topic: all that was ever sent, and what was accepted of it.
    sent: BTreeMap<&'static str, BTreeSet<String>>,
    accepted: BTreeMap<&'static str, BTreeSet<String>>,
    /// By topic and channel.
    finished: BTreeMap<(&'static str, &'static str), BTreeSet<String>>,
}

/// What all tasks of a run share.
#[derive(Clone)]
struct Run {
    tcp: Arc<str>,
    broker: Arc<Broker>,
    ledger: Arc<Mutex<Ledger>>,
    end: Instant,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn everything_at_once() {
    let options = Options { msg_timeout: Duration::from_secs(1), ..Options::default() };
    let nsqd = Nsqd::start(options, 1 << 30).await;
    let run = Run {
        tcp: nsqd.tcp.as_str().into(),
        broker: Arc::clone(nsqd.server.broker()),
        ledger: Arc::default(),
        end: Instant::now() + TIME,
    };
    for (topic, channel) in channels() {
        run.broker.create_topic(&name(topic)).await.unwrap();
        let created = run.broker.administer(&name(topic), Admin::CreateChannel(channel_name(channel))).await;
        assert_eq!(created, Some(Ok(())));
    }
    let consumers = channels().chain([(DOOMED, "left")]).enumerate();
    let consumers: Vec<_> = consumers
        .flat_map(|(seed, pair)| [(seed * 2, pair), (seed * 2 + 1, pair)])
        .map(|(seed, (topic, channel))| tokio::spawn(consume(run.clone(), seed as u64, topic, channel)))
        .collect();
    let mut others: Vec<_> = (100..104).map(|seed| tokio::spawn(produce(run.clone(), seed))).collect();
    others.push(tokio::spawn(operate(run.clone(), 200)));
    others.push(tokio::spawn(ask_for_stats(run.clone())));
    join(others).await;

    for (topic, channel) in channels() {
        let resumed = run.broker.administer(&name(topic), Admin::PauseChannel(channel_name(channel), false)).await;
        assert_eq!(resumed, Some(Ok(())));
    }
    let start = Instant::now();
    while !drained(&run.broker) {
        let stats = || run.broker.topic_stats(None, None, true);
        assert!(start.elapsed() < LONG, "not everything was finished: {:#?}", stats());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    consumers.iter().for_each(JoinHandle::abort);
    let _ = run.broker.administer(&name(DOOMED), Admin::DeleteTopic).await;

    {
        let ledger = run.ledger.lock().unwrap();
        for (topic, channel) in channels() {
            let (sent, accepted) = (&ledger.sent[topic], &ledger.accepted[topic]);
            let finished = &ledger.finished[&(topic, channel)];
            assert!(accepted.len() > 100, "{topic} got {} messages only", accepted.len());
            assert_eq!(accepted.difference(finished).next(), None, "{topic}/{channel}: lost");
            assert_eq!(finished.difference(sent).next(), None, "{topic}/{channel}: nobody has sent this");
        }
    }
    run.broker.inspect(nsq_core::topic::Topic::check);
    until("the memory to be given back", || run.broker.budget().used() == 0).await;
    assert_eq!(nsqd.stop().await, 0);
}

/// Publishes, on one connection after the other.
async fn produce(run: Run, seed: u64) {
    let mut random = Random::new(seed);
    let mut number = 0;
    while Instant::now() < run.end {
        let mut producer = Producer::connect(&run.tcp, None).await.unwrap();
        for _ in 0..random.below(200) {
            let topic = [TOPICS[0], TOPICS[1], TOPICS[2], DOOMED][random.below(4) as usize];
            let bodies: Vec<_> = (0..=random.below(8)).map(|n| format!("{seed}-{number}-{n}")).collect();
            number += 1;
            run.ledger.lock().unwrap().sent.entry(topic).or_default().extend(bodies.iter().cloned());
            let published = match &bodies[..] {
                [body] => {
                    let delay = Duration::from_millis(random.below(3) * 20);
                    soon("an answer to PUB", producer.publish(topic, body.as_bytes(), delay)).await
                }
                bodies => soon("an answer to MPUB", producer.publish_many(topic, bodies)).await,
            };
            assert_eq!(published.unwrap(), Published::Accepted);
            tokio::time::sleep(Duration::from_micros(random.below(2000))).await;
            run.ledger.lock().unwrap().accepted.entry(topic).or_default().extend(bodies);
        }
        if random.below(4) == 0 {
            // Gone before the answer.
            let body = format!("{seed}-{number}-last");
            run.ledger.lock().unwrap().sent.entry(TOPICS[0]).or_default().insert(body.clone());
            let publish = producer.publish(TOPICS[0], body.as_bytes(), NO_DELAY);
            let _ = tokio::time::timeout(Duration::from_micros(random.below(200)), publish).await;
        }
    }
}

/// Consumes for ever, on one connection after the other, holding messages when it hangs up.
async fn consume(run: Run, seed: u64, topic: &'static str, channel: &'static str) {
    let mut random = Random::new(seed);
    loop {
        // The topic may be deleted between SUB and its answer.
        let Ok(mut consumer) = Consumer::connect(&run.tcp, None, topic, channel).await else { continue };
        consumer.ready(random.below(50) as u32 + 1);
        let patience = if Instant::now() < run.end { random.below(500) } else { u64::MAX };
        for _ in 0..patience {
            let Ok(event) = consumer.next().await else { break };
            let Event::Message(message) = event else { continue };
            match random.below(500) {
                0..25 => {
                    consumer.requeue(message.id, Duration::from_millis(random.below(3) * 10));
                    continue;
                }
                25..50 => consumer.touch(message.id),
                50..75 => consumer.ready(random.below(50) as u32 + 1),
                // Held until it times out, or to the end of the connection and some time more.
                75 => continue,
                _ => {}
            }
            consumer.finish(message.id);
            let body = String::from_utf8(message.body.to_vec()).unwrap();
            run.ledger.lock().unwrap().finished.entry((topic, channel)).or_default().insert(body);
        }
    }
}

/// Pauses and resumes, deletes the doomed topic, and channels that nobody counts on.
async fn operate(run: Run, seed: u64) {
    let mut random = Random::new(seed);
    let extra = || channel_name("extra");
    while Instant::now() < run.end {
        let topic = name(TOPICS[random.below(3) as usize]);
        let channel = channel_name(CHANNELS[random.below(2) as usize]);
        let (topic, action) = match random.below(7) {
            0 => (name(DOOMED), Admin::DeleteTopic),
            1 => (topic, Admin::PauseChannel(channel, true)),
            2 => (topic, Admin::PauseChannel(channel, false)),
            3 => (topic, Admin::CreateChannel(extra())),
            4 => (topic, Admin::EmptyChannel(extra())),
            5 => (topic, Admin::DeleteChannel(extra())),
            _ => (name(DOOMED), Admin::EmptyTopic),
        };
        let _ = soon("an operator's answer", run.broker.administer(&topic, action)).await;
        tokio::time::sleep(Duration::from_millis(random.below(10))).await;
    }
    for topic in TOPICS {
        let _ = run.broker.administer(&name(topic), Admin::DeleteChannel(extra())).await;
    }
}

/// Looks at everything and checks every topic, now and then.
async fn ask_for_stats(run: Run) {
    while Instant::now() < run.end {
        run.broker.inspect(nsq_core::topic::Topic::check);
        run.broker.producer_stats();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn drained(broker: &Broker) -> bool {
    let topics = TOPICS.iter().flat_map(|topic| broker.topic_stats(Some(topic), None, false));
    topics.into_iter().all(|topic| {
        let idle = |channel: &nsq_core::topic::stats::ChannelStats| {
            (channel.depth, channel.in_flight_count, channel.deferred_count) == (0, 0, 0)
        };
        topic.depth == 0 && topic.channels.iter().all(idle)
    })
}

async fn join(tasks: Vec<JoinHandle<()>>) {
    for task in tasks {
        soon("a task", task).await.unwrap();
    }
}

fn channels() -> impl Iterator<Item = (&'static str, &'static str)> {
    TOPICS.into_iter().flat_map(|topic| CHANNELS.map(|channel| (topic, channel)))
}

fn name(name: &str) -> TopicName {
    TopicName::new(name).unwrap()
}

fn channel_name(name: &str) -> ChannelName {
    ChannelName::new(name).unwrap()
}
