//! A clean exit with a million messages queued in memory: waiting, in flight, requeued and deferred ones are all there
//! at the next start, once, with their attempts and due times.

use super::{Nsqd, number, run, sized};
use nsq_core::wire::Message;
use nsq_net::client::plain::{Consumer, Event, Published};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

const TOPIC: &str = "t";
const CHANNEL: &str = "c";
const MESSAGES: u64 = 1_000_000;
/// Of those, so many are handed out, and then held, requeued or requeued with a delay in turn.
const HANDED_OUT: u64 = 1_500;
/// Deferred messages beyond those, to be due in an hour, and soon.
const LATER: u64 = 1_000;
const SOON: u64 = 10;
const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn a_million_messages_outlive_a_clean_exit() {
    let dir = tempfile::tempdir().unwrap();
    let flags = ["--mem-queue-size=10000000"];
    let nsqd = Nsqd::start(dir.path(), &flags);
    let (twice, due) = run(fill(&nsqd));
    let (begin, stopped) = (Instant::now(), nsqd.stop());
    let ended = begin.elapsed();
    assert!(!stopped.contains("WARNING: TOPIC"), "{stopped}");
    let begin = Instant::now();
    let nsqd = Nsqd::start(dir.path(), &flags);
    println!("ended in {ended:?}, started in {:?}", begin.elapsed());

    let deferred = HANDED_OUT / 3 + LATER;
    let [depth, in_flight, waiting] = nsqd.counts(TOPIC, CHANNEL);
    assert_eq!((in_flight, depth + waiting), (0, MESSAGES + LATER + SOON), "{}", nsqd.log());
    run(empty(&nsqd, &twice, due));
    assert_eq!(nsqd.counts(TOPIC, CHANNEL), [0, 0, deferred]);
    let begin = Instant::now();
    nsqd.stop();
    let nsqd = Nsqd::start(dir.path(), &flags);
    println!("ended and started with what is left in {:?}", begin.elapsed());
    assert_eq!(nsqd.counts(TOPIC, CHANNEL), [0, 0, deferred], "what was finished is finished");
}

/// Publishes everything and touches some; the numbers that will have attempts 2, and when the last of [`SOON`] is due.
async fn fill(nsqd: &Nsqd) -> (BTreeSet<u64>, Instant) {
    let mut consumer = nsqd.consumer(TOPIC, CHANNEL, 0).await;
    consumer.flush().await.unwrap();
    let mut producer = nsqd.producer().await;
    for first in (0..MESSAGES).step_by(500) {
        let bodies: Vec<_> = (first..first + 500).map(short).collect();
        assert_eq!(producer.publish_many(TOPIC, &bodies).await.unwrap(), Published::Accepted);
    }
    let mut twice = BTreeSet::new();
    consumer.ready(HANDED_OUT as u32);
    let mut held = Vec::new();
    for _ in 0..HANDED_OUT {
        held.push(next(&mut consumer).await);
    }
    consumer.ready(0);
    for (turn, message) in held.into_iter().enumerate() {
        assert_eq!(message.attempts, 1);
        match turn % 3 {
            0 => consumer.requeue(message.id, HOUR),
            rest => {
                twice.insert(number(&message.body));
                if rest == 1 {
                    consumer.requeue(message.id, Duration::ZERO);
                }
            }
        }
    }
    consumer.flush().await.unwrap();
    for number in 0..LATER {
        let published = producer.publish(TOPIC, &short(MESSAGES + number), HOUR).await.unwrap();
        assert_eq!(published, Published::Accepted);
    }
    let delay = Duration::from_secs(5);
    let due = Instant::now() + delay;
    for number in 0..SOON {
        let published = producer.publish(TOPIC, &short(MESSAGES + LATER + number), delay).await.unwrap();
        assert_eq!(published, Published::Accepted);
    }
    // The requeues were sent before these publishes, but on another connection.
    while nsqd.counts(TOPIC, CHANNEL)[2] < HANDED_OUT / 3 + LATER + SOON {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    (twice, due)
}

/// Consumes everything that is due within seconds.
async fn empty(nsqd: &Nsqd, twice: &BTreeSet<u64>, due: Instant) {
    let begin = Instant::now();
    let mut consumer = nsqd.consumer(TOPIC, CHANNEL, 2_500).await;
    let mut seen = BTreeSet::new();
    let expected = MESSAGES - HANDED_OUT / 3 + SOON;
    for _ in 0..expected {
        let message = next(&mut consumer).await;
        let number = number(&message.body);
        assert!(seen.insert(number), "{number} came twice");
        assert_eq!(message.attempts, if twice.contains(&number) { 2 } else { 1 }, "{number}");
        assert!(number < MESSAGES + LATER || Instant::now() >= due, "{number} came before it was due");
        consumer.finish(message.id);
    }
    println!("consumed in {:?}", begin.elapsed());
    assert!(twice.is_subset(&seen));
    consumer.close();
    assert_eq!(consumer.next().await.unwrap(), Event::Closed);
}

async fn next(consumer: &mut Consumer) -> Message {
    match tokio::time::timeout(Duration::from_secs(10), consumer.next()).await.expect("a message in 10 s").unwrap() {
        Event::Message(message) => message,
        other => panic!("{other:?}"),
    }
}

fn short(number: u64) -> Vec<u8> {
    sized(number, 8)
}
