//! `kill -9` and SIGTERM at random moments under load, and every acknowledged message accounted for.
//!
//! Producers publish one, many and deferred messages; consumers finish some, requeue some, defer some and sit on some.
//! nsqd is ended and started again on the same files, also killed while it starts. In the end everything must drain.

use super::ledger::{CHANNELS, End, Ledger, SETTLED};
use super::{Nsqd, body, command, number, run};
use crate::program::{PATIENCE, Program};
use nsq_core::wire::Message;
use nsq_net::client::plain::{Consumer, Event, Producer, Published};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

const TOPIC: &str = "t";
const ROUNDS: usize = 4;
const PRODUCERS: usize = 4;

type Shared = Arc<Mutex<Ledger>>;

#[test]
fn durable_topics_lose_nothing_and_remember_what_channels_have_done() {
    ended_again_and_again(&["--durable"], true, &[End::Killed, End::Clean]);
}

#[test]
fn with_no_queue_in_memory_nothing_that_was_acknowledged_is_lost() {
    ended_again_and_again(&["--mem-queue-size=0"], false, &[End::Killed]);
}

#[test]
fn a_clean_end_in_the_middle_of_a_load_loses_nothing_and_keeps_attempts() {
    ended_again_and_again(&[], false, &[End::Clean]);
}

fn ended_again_and_again(flags: &[&str], durable: bool, ends: &[End]) {
    let dir = tempfile::tempdir().unwrap();
    let flags = &[flags, &["--max-bytes-per-file=1000000"]].concat()[..];
    let ledger: Shared = Arc::new(Mutex::new(Ledger::new(durable)));
    let random = &mut fastrand::Rng::new();
    println!("seed {}", random.get_seed());
    for round in 0..ROUNDS {
        if round > 0 && ends.contains(&End::Killed) && random.bool() {
            let starting = Program::start(command(dir.path(), flags), dir.path());
            sleep(Duration::from_millis(random.u64(..50)));
            starting.kill();
        }
        let nsqd = Nsqd::start(dir.path(), flags);
        let end = random.choice(ends.iter().copied()).unwrap();
        run(load(nsqd, &ledger, Duration::from_millis(random.u64(200..2000)), end));
    }
    let mut nsqd = Nsqd::start(dir.path(), flags);
    run(drain(&nsqd, &ledger));
    let ledger = lock(&ledger);
    println!("{} messages, {} deliveries with attempts above 1", ledger.count(), ledger.redelivered);
    assert!(ledger.count() > 1000 && ledger.redelivered > 100, "that was not much of a load");
    if durable {
        nsqd = killed_when_all_is_finished(nsqd, dir.path(), flags);
    }
    nsqd.stop();
}

fn killed_when_all_is_finished(nsqd: Nsqd, dir: &Path, flags: &[&str]) -> Nsqd {
    sleep(SETTLED);
    nsqd.kill();
    let nsqd = Nsqd::start(dir, flags);
    for channel in CHANNELS {
        assert_eq!(nsqd.counts(TOPIC, channel), [0; 3], "what was finished is finished");
    }
    nsqd
}

/// Publishes and consumes, and ends nsqd in the middle of it.
async fn load(nsqd: Nsqd, ledger: &Shared, time: Duration, end: End) {
    // Channels first: what is published before the first one is there is given to one channel only.
    nsqd.consumer(TOPIC, CHANNELS[1], 0).await;
    let mut clients = JoinSet::new();
    for _ in 0..2 {
        let consumer = nsqd.consumer(TOPIC, CHANNELS[0], 500).await;
        clients.spawn(consume(consumer, Arc::clone(ledger)));
    }
    for _ in 0..PRODUCERS {
        clients.spawn(produce(nsqd.producer().await, Arc::clone(ledger)));
    }
    tokio::time::sleep(time).await;
    let log = nsqd.log();
    let at = Instant::now();
    match end {
        End::Killed => nsqd.kill(),
        End::Clean => drop(nsqd.stop()),
    }
    while let Some(ended) = clients.join_next().await {
        let error = ended.unwrap_or_else(|error| panic!("{error}, the log:\n{log}")).unwrap_err();
        assert!(Instant::now() >= at, "{error} before it was ended");
    }
    lock(ledger).ended(at, end);
}

/// Until the connection is lost.
async fn produce(mut producer: Producer, ledger: Shared) -> io::Result<()> {
    loop {
        let kind = fastrand::u32(..10);
        let delay = if kind == 0 { Duration::from_millis(fastrand::u64(1..3000)) } else { Duration::ZERO };
        let count = if kind > 6 { fastrand::usize(1..50) } else { 1 };
        let numbers: Vec<_> = (0..count).map(|_| lock(&ledger).publishes(delay)).collect();
        let bodies: Vec<_> = numbers.iter().copied().map(body).collect();
        let published = match &bodies[..] {
            [body] => producer.publish(TOPIC, body, delay).await?,
            bodies => producer.publish_many(TOPIC, bodies).await?,
        };
        if let Published::Refused(text) = published {
            return Err(io::Error::other(text));
        }
        numbers.into_iter().for_each(|number| lock(&ledger).accepted(number));
        tokio::time::sleep(Duration::from_micros(fastrand::u64(..2000))).await;
    }
}

/// Until the connection is lost.
async fn consume(mut consumer: Consumer, ledger: Shared) -> io::Result<()> {
    loop {
        let Message { id, attempts, body, .. } = message(&mut consumer).await?;
        let number = number(&body);
        lock(&ledger).delivered(number, 0, attempts);
        match fastrand::u32(..20) {
            0 => {} // in flight until the end
            1 => consumer.requeue(id, Duration::from_millis(fastrand::u64(1..1000))),
            2..6 => consumer.requeue(id, Duration::ZERO),
            _ => {
                lock(&ledger).finished(number, 0);
                consumer.finish(id);
            }
        }
    }
}

/// Finishes everything in all channels, and holds it against the ledger.
async fn drain(nsqd: &Nsqd, ledger: &Shared) {
    let begin = Instant::now();
    for (channel, name) in CHANNELS.into_iter().enumerate() {
        let mut consumer = nsqd.consumer(TOPIC, name, 500).await;
        loop {
            let quiet = Duration::from_millis(200);
            while let Ok(message) = tokio::time::timeout(quiet, message(&mut consumer)).await {
                let message = message.unwrap();
                let number = number(&message.body);
                let mut ledger = lock(ledger);
                ledger.delivered(number, channel, message.attempts);
                ledger.finished(number, channel);
                consumer.finish(message.id);
            }
            let counts = nsqd.counts(TOPIC, name);
            if counts == [0; 3] {
                break;
            }
            assert!(begin.elapsed() < PATIENCE, "{name} does not drain: {counts:?}\n{}", nsqd.log());
        }
        let missing = lock(ledger).missing(channel);
        assert!(missing.is_empty(), "{name} has lost {} messages: {missing:?}\n{}", missing.len(), nsqd.log());
    }
}

async fn message(consumer: &mut Consumer) -> io::Result<Message> {
    match consumer.next().await? {
        Event::Message(message) => Ok(message),
        other => panic!("{other:?}"),
    }
}

fn lock(ledger: &Shared) -> std::sync::MutexGuard<'_, Ledger> {
    ledger.lock().unwrap()
}
