//! Consumers: finding nsqds, answering, ending.

use crate::world::{Lookupd, Nsqd, Told, consumer, next, producer, soon, text, until};
use nsq_core::options::Options;
use nsq_net::client::{BuildError, Consumer, Event};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

#[tokio::test]
async fn what_is_published_is_found_through_nsqlookupd_and_finished() {
    let (nsqd, lookupd) = (Nsqd::start().await, Lookupd::start().await);
    let _listed = lookupd.register(&nsqd, "t").await;
    let producer = producer().nsqd(&nsqd.address).build().unwrap();
    producer.publish("t", "one").await.unwrap();
    producer.publish_many("t", ["two", "three"]).await.unwrap();
    let told = Told::default();
    let mut consumer = consumer("t").lookupd(&lookupd.http).on_event(told.listener()).build().unwrap();
    for expected in ["one", "two", "three"] {
        let message = next(&mut consumer).await;
        assert_eq!((text(&message).as_str(), message.attempts(), message.nsqd()), (expected, 1, &*nsqd.address));
        message.finish();
    }
    told.connected(1).await;
    soon("the end", consumer.stop()).await;
    assert!(consumer.next().await.is_none());
    until("nsqd has heard it", || nsqd.in_flight("t") == 0).await;
}

#[tokio::test]
async fn an_ephemeral_topic_is_asked_for_by_its_name() {
    let (nsqd, lookupd) = (Nsqd::start().await, Lookupd::start().await);
    let _listed = lookupd.register(&nsqd, "t#ephemeral").await;
    let mut consumer = consumer("t#ephemeral").lookupd(format!("http://{}/", lookupd.http)).build().unwrap();
    let producer = producer().nsqd(&nsqd.address).build().unwrap();
    producer.publish("t#ephemeral", "x").await.unwrap();
    next(&mut consumer).await.finish();
}

#[tokio::test]
async fn an_nsqd_that_appears_later_is_found() {
    let (first, second, lookupd) = (Nsqd::start().await, Nsqd::start().await, Lookupd::start().await);
    let told = Told::default();
    let mut consumer = consumer("t").lookupd(&lookupd.http).on_event(told.listener()).build().unwrap();
    let _first = lookupd.register(&first, "t").await;
    told.connected(1).await;
    let _second = lookupd.register(&second, "t").await;
    told.connected(2).await;
    // That nobody had the topic yet was no failure.
    assert_eq!(told.count(|event| matches!(event, Event::LookupFailed { .. })), 0);
    for nsqd in [&second, &first] {
        producer().nsqd(&nsqd.address).build().unwrap().publish("t", "x").await.unwrap();
        let message = next(&mut consumer).await;
        assert_eq!(message.nsqd(), nsqd.address);
        message.finish();
    }
}

#[tokio::test]
async fn when_one_nsqd_dies_the_other_goes_on_and_when_it_is_back_so_does_it() {
    let (mut first, second, lookupd) = (Nsqd::start().await, Nsqd::start().await, Lookupd::start().await);
    let _first = lookupd.register(&first, "t").await;
    let _second = lookupd.register(&second, "t").await;
    let told = Told::default();
    let mut consumer = consumer("t").lookupd(&lookupd.http).on_event(told.listener()).build().unwrap();
    told.connected(2).await;
    first.kill().await;
    told.until(1, |event| matches!(event, Event::Disconnected { nsqd, .. } if *nsqd == first.address)).await;
    let to_second = producer().nsqd(&second.address).build().unwrap();
    to_second.publish("t", "from the second").await.unwrap();
    let message = next(&mut consumer).await;
    assert_eq!(message.nsqd(), second.address);
    message.finish();
    first.restart().await;
    told.connected(3).await;
    producer().nsqd(&first.address).build().unwrap().publish("t", "from the first").await.unwrap();
    let message = next(&mut consumer).await;
    assert_eq!(message.nsqd(), first.address);
    message.finish();
}

#[tokio::test]
async fn more_nsqds_than_max_in_flight_are_all_served_and_it_is_kept() {
    let mut nsqds = Vec::new();
    for _ in 0..5 {
        nsqds.push(Nsqd::start().await);
    }
    let mut builder = consumer("t").max_in_flight(2);
    for nsqd in &nsqds {
        builder = builder.nsqd(&nsqd.address);
        let producer = producer().nsqd(&nsqd.address).build().unwrap();
        producer.publish_many("t", vec!["x"; 20]).await.unwrap();
    }
    let mut consumer = builder.build().unwrap();
    let (mut seen, mut held) = (BTreeSet::new(), Vec::new());
    for _ in 0..100 {
        while held.len() > 1 {
            let oldest: nsq_net::client::Message = held.remove(0);
            oldest.finish();
        }
        let message = next(&mut consumer).await;
        seen.insert(message.nsqd().to_string());
        held.push(message);
        // What an nsqd was not told of yet is one at most, for each of two.
        let in_flight: usize = nsqds.iter().map(|nsqd| nsqd.in_flight("t")).sum();
        assert!(consumer.in_flight() <= 2 && in_flight <= 4, "{in_flight}");
    }
    assert_eq!(seen.len(), 5);
}

#[tokio::test]
async fn an_end_in_order_gives_back_what_nobody_took() {
    let nsqd = Nsqd::start().await;
    let producer = producer().nsqd(&nsqd.address).build().unwrap();
    producer.publish_many("t", ["a", "b", "c", "d"]).await.unwrap();
    let mut first = consumer("t").nsqd(&nsqd.address).build().unwrap();
    let message = next(&mut first).await;
    let finishing = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        message.finish();
    };
    soon("the end", async { tokio::join!(first.stop(), finishing) }).await;
    until("nsqd has heard it", || nsqd.in_flight("t") == 0).await;
    // They come to the next one at once, not after their timeout.
    let mut second = consumer("t").nsqd(&nsqd.address).build().unwrap();
    let start = Instant::now();
    for _ in 0..3 {
        next(&mut second).await.finish();
    }
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn a_stopper_lets_what_has_come_be_handled() {
    let nsqd = Nsqd::start().await;
    let producer = producer().nsqd(&nsqd.address).build().unwrap();
    producer.publish_many("t", ["a", "b", "c"]).await.unwrap();
    let mut consumer = consumer("t").nsqd(&nsqd.address).build().unwrap();
    let first = next(&mut consumer).await;
    until("all have come", || nsqd.in_flight("t") == 3 && consumer.in_flight() == 3).await;
    consumer.stopper().stop();
    first.finish();
    let mut rest = 0;
    while let Some(message) = soon("the end", consumer.next()).await {
        message.finish();
        rest += 1;
    }
    assert_eq!(rest, 2);
    until("all are finished", || nsqd.in_flight("t") == 0).await;
}

#[tokio::test]
async fn a_dropped_consumer_says_what_it_was_told_to() {
    let nsqd = Nsqd::start().await;
    producer().nsqd(&nsqd.address).build().unwrap().publish("t", "x").await.unwrap();
    let mut consumer = consumer("t").nsqd(&nsqd.address).build().unwrap();
    next(&mut consumer).await.finish();
    drop(consumer);
    until("it is finished", || nsqd.in_flight("t") == 0).await;
}

#[tokio::test]
async fn attempts_have_a_limit_and_somebody_gets_what_is_given_up() {
    let nsqd = Nsqd::start().await;
    let producer = producer().nsqd(&nsqd.address).build().unwrap();
    producer.publish("t", "poison").await.unwrap();
    let given_up = Arc::new(Mutex::new(Vec::new()));
    let taken = Arc::clone(&given_up);
    let mut consumer = consumer("t")
        .nsqd(&nsqd.address)
        .max_attempts(2)
        .backoff(Duration::ZERO, Duration::ZERO)
        .on_give_up(move |message| taken.lock().unwrap().push((text(&message), message.attempts())))
        .build()
        .unwrap();
    for attempts in 1..=2 {
        let message = next(&mut consumer).await;
        assert_eq!(message.attempts(), attempts);
        message.requeue_after(Duration::ZERO);
    }
    until("it is given up", || !given_up.lock().unwrap().is_empty()).await;
    assert_eq!(*given_up.lock().unwrap(), [("poison".to_string(), 3)]);
    // It was dropped, and is finished: nothing else is waiting.
    until("it is finished", || nsqd.in_flight("t") == 0).await;
    producer.publish("t", "good").await.unwrap();
    let message = next(&mut consumer).await;
    assert_eq!(text(&message), "good");
    message.finish();
}

#[tokio::test]
async fn nothing_is_given_up_if_nobody_takes_it() {
    let nsqd = Nsqd::start().await;
    producer().nsqd(&nsqd.address).build().unwrap().publish("t", "x").await.unwrap();
    let none = Duration::ZERO;
    let mut consumer = consumer("t").nsqd(&nsqd.address).max_attempts(1).backoff(none, none).build().unwrap();
    for attempts in 1..=8 {
        let message = next(&mut consumer).await;
        assert_eq!(message.attempts(), attempts);
        message.requeue_after(none);
    }
}

#[tokio::test]
async fn what_the_application_panics_at_costs_no_message_and_no_consumer() {
    let nsqd = Nsqd::start_with(Options { msg_timeout: Duration::from_secs(1), ..Options::default() }).await;
    let producer = producer().nsqd(&nsqd.address).build().unwrap();
    producer.publish("t", "poison").await.unwrap();
    let given_up = Arc::new(Mutex::new(Vec::new()));
    let taken = Arc::clone(&given_up);
    let take = move |message: nsq_net::client::Message| {
        let attempts = message.attempts();
        taken.lock().unwrap().push(attempts);
        assert!(attempts > 2, "a panic of on_give_up");
    };
    let mut consumer = consumer("t")
        .nsqd(&nsqd.address)
        .max_attempts(1)
        .backoff(Duration::ZERO, Duration::ZERO)
        .on_give_up(take)
        .on_event(|event| panic!("a panic of on_event at {event}"))
        .build()
        .unwrap();
    next(&mut consumer).await.requeue_after(Duration::ZERO);
    until("it is given up twice", || given_up.lock().unwrap().len() == 2).await;
    assert_eq!(*given_up.lock().unwrap(), [2, 3]);
    until("it is finished", || nsqd.in_flight("t") == 0).await;
    producer.publish("t", "good").await.unwrap();
    next(&mut consumer).await.finish();
    soon("the end", consumer.stop()).await;
}

#[tokio::test]
async fn failures_can_be_seen() {
    let nsqd = Nsqd::start_with(Options { msg_timeout: Duration::from_secs(1), ..Options::default() }).await;
    let producer = producer().nsqd(&nsqd.address).build().unwrap();
    producer.publish("t", "x").await.unwrap();
    let told = Told::default();
    let mut consumer = consumer("t")
        .nsqd(&nsqd.address)
        .nsqd("127.0.0.1:1")
        .lookupd("127.0.0.1:1")
        .backoff(Duration::from_millis(200), Duration::from_millis(200))
        .on_event(told.listener())
        .build()
        .unwrap();
    let late = next(&mut consumer).await;
    let again = next(&mut consumer).await;
    assert_eq!((again.id(), again.attempts()), (late.id(), 2));
    told.until(1, |event| matches!(event, Event::TimedOut { .. })).await;
    told.until(1, |event| matches!(event, Event::Backoff { .. })).await;
    again.touch();
    again.finish();
    late.finish();
    told.until(1, |event| matches!(event, Event::AnswerFailed { reason, .. } if reason.starts_with("E_FIN_FAILED")))
        .await;
    producer.publish("t", "probe").await.unwrap();
    next(&mut consumer).await.finish();
    told.until(1, |event| matches!(event, Event::BackoffEnded)).await;
    told.until(1, |event| matches!(event, Event::ConnectFailed { nsqd, .. } if nsqd == "127.0.0.1:1")).await;
    told.until(1, |event| matches!(event, Event::LookupFailed { .. })).await;
}

#[tokio::test]
async fn what_cannot_work_is_not_built() {
    let bad = |consumer: nsq_net::client::ConsumerBuilder| consumer.build().err().expect("an error");
    assert_eq!(bad(Consumer::builder("t", "c")), BuildError::NoAddress);
    for address in [
        "",
        "nsqd",
        "nsqd:",
        ":4150",
        "nsqd:0",
        "nsqd:+1",
        "nsqd:65536",
        "tcp://nsqd:4150",
        "a b:1",
        "::1:4150",
        "[x]:1",
    ] {
        let error = bad(consumer("t").nsqd(address));
        assert!(matches!(&error, BuildError::BadAddress(bad, _) if bad == address), "{address}: {error}");
    }
    for address in ["nsqlookupd", "https://nsqlookupd:4161", "http://nsqlookupd", "nsqlookupd:4161/lookup"] {
        let error = bad(consumer("t").lookupd(address));
        assert!(error.to_string().contains("127.0.0.1:4161"), "{address}: {error}");
    }
    for address in ["nsqd:4150", "127.0.0.1:4150", "[::1]:4150", "a-b.example:65535"] {
        consumer("t").nsqd(address).build().unwrap();
    }
    assert_eq!(bad(consumer("no topic").nsqd("a:1")), BuildError::BadTopic("no topic".into()));
    assert_eq!(bad(Consumer::builder("t", "").nsqd("a:1")), BuildError::BadChannel(String::new()));
    assert!(matches!(bad(consumer("t").nsqd("a:1").max_in_flight(0)), BuildError::OutOfRange("max_in_flight", _)));
    assert!(matches!(bad(consumer("t").nsqd("a:1").sample_rate(100)), BuildError::OutOfRange("sample_rate", _)));
    let heartbeat = consumer("t").nsqd("a:1").heartbeat_interval(Duration::from_millis(999));
    assert!(bad(heartbeat).to_string().contains("1 to 60 s"));
}
