//! Producers: several nsqds, some of which die.

use crate::world::{LONG, Nsqd, Told, consumer, next, producer, soon, text};
use nsq_core::options::Options;
use nsq_net::client::{BuildError, Event, Producer, PublishError};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

#[tokio::test]
async fn publishes_go_on_with_the_nsqds_that_are_left() {
    let (mut first, second) = (Nsqd::start().await, Nsqd::start().await);
    let told = Told::default();
    let producer = producer().nsqd(&first.address).nsqd(&second.address).on_event(told.listener()).build().unwrap();
    told.connected(2).await;
    for _ in 0..10 {
        producer.publish("t", "x").await.unwrap();
    }
    assert!([&first, &second].iter().all(|nsqd| nsqd.published("t") == 5), "they take turns");
    first.kill().await;
    for _ in 0..10 {
        // One may meet the dying connection; none is lost without a word.
        match producer.publish("t", "y").await {
            Ok(()) | Err(PublishError::Unknown(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert!(second.published("t") >= 14, "{}", second.published("t"));
    first.restart().await;
    told.connected(3).await;
    for _ in 0..10 {
        producer.publish("t", "z").await.unwrap();
    }
    assert_eq!(first.published("t"), 5);
}

#[tokio::test]
async fn an_nsqd_that_comes_back_is_used_again() {
    let mut nsqd = Nsqd::start().await;
    let told = Told::default();
    let producer = producer().nsqd(&nsqd.address).build().unwrap();
    let mut consumer = consumer("t").nsqd(&nsqd.address).on_event(told.listener()).build().unwrap();
    producer.publish("t", "before").await.unwrap();
    next(&mut consumer).await.finish();
    nsqd.kill().await;
    nsqd.restart().await;
    // The first one may be the last on the old connection.
    while soon("a publish", producer.publish("t", "after")).await.is_err() {}
    // What was finished just before the end may not have been heard, and comes again.
    loop {
        let message = next(&mut consumer).await;
        let body = text(&message);
        message.finish();
        if body == "after" {
            break;
        }
        assert_eq!(body, "before");
    }
    told.connected(2).await;
}

#[tokio::test]
async fn many_publishes_are_under_way_at_a_time() {
    let nsqd = Nsqd::start().await;
    let producer = producer().nsqd(&nsqd.address).max_outstanding(64).build().unwrap();
    let tasks: Vec<_> = (0..500)
        .map(|number| {
            let producer = producer.clone();
            tokio::spawn(async move { producer.publish("t", number.to_string()).await })
        })
        .collect();
    for task in tasks {
        soon("a publish", task).await.unwrap().unwrap();
    }
    assert_eq!(nsqd.published("t"), 500);
    let mut consumer = consumer("t").nsqd(&nsqd.address).max_in_flight(50).build().unwrap();
    let mut bodies = BTreeSet::new();
    for _ in 0..500 {
        let message = next(&mut consumer).await;
        assert!(bodies.insert(text(&message)));
        message.finish();
    }
}

#[tokio::test]
async fn one_that_is_refused_costs_the_others_nothing() {
    let nsqd = Nsqd::start_with(Options { max_msg_size: 1000, ..Options::default() }).await;
    let producer = producer().nsqd(&nsqd.address).build().unwrap();
    producer.publish("t", "first").await.unwrap();
    let (large, others) = (vec![b'x'; 2000], (0..50).map(|_| producer.publish("t", "good")));
    let others: Vec<_> = others.collect();
    let refused = producer.publish("t", large);
    let others = async {
        for other in others {
            other.await.unwrap();
        }
    };
    let (refused, ()) = soon("all", async { tokio::join!(refused, others) }).await;
    let Err(PublishError::Refused(reason)) = refused else { panic!("{refused:?}") };
    assert!(reason.starts_with("E_BAD_MESSAGE"), "{reason}");
    assert_eq!(nsqd.published("t"), 51);
}

#[tokio::test]
async fn deferred_messages_come_later() {
    let nsqd = Nsqd::start().await;
    let producer = producer().nsqd(&nsqd.address).build().unwrap();
    let mut consumer = consumer("t").nsqd(&nsqd.address).build().unwrap();
    producer.publish("t", "now").await.unwrap();
    next(&mut consumer).await.finish();
    let start = Instant::now();
    producer.publish_deferred("t", Duration::from_millis(300), "later").await.unwrap();
    next(&mut consumer).await.finish();
    assert!(start.elapsed() >= Duration::from_millis(300));
}

#[tokio::test]
async fn without_an_nsqd_a_publish_says_so_in_time() {
    let producer = producer().nsqd("127.0.0.1:1").timeout(Duration::from_millis(300)).build().unwrap();
    let error = soon("an error", producer.publish("t", "x")).await.unwrap_err();
    let PublishError::Unsent(reason) = &error else { panic!("{error}") };
    assert!(reason.starts_with("127.0.0.1:1: "), "{reason}");
}

#[tokio::test]
async fn without_an_answer_a_publish_is_unknown() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let silent = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"\0\0\0\x06\0\0\0\0OK").await.unwrap();
        let mut heard = Vec::new();
        while !heard.ends_with(b"PUB t\n\0\0\0\x01x") {
            stream.read_buf(&mut heard).await.unwrap();
        }
    });
    let told = Told::default();
    let producer = producer().nsqd(&address).on_event(told.listener()).build().unwrap();
    let error = soon("an error", producer.publish("t", "x")).await.unwrap_err();
    assert!(matches!(error, PublishError::Unknown(_)), "{error}");
    silent.await.unwrap();
    told.until(1, |event| matches!(event, Event::Disconnected { .. })).await;
}

#[tokio::test]
async fn an_nsqd_that_answers_nothing_but_lives_is_left() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mute = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let (mut reading, mut writing) = stream.into_split();
        tokio::spawn(async move { tokio::io::copy(&mut reading, &mut tokio::io::sink()).await });
        writing.write_all(b"\0\0\0\x06\0\0\0\0OK").await.unwrap();
        while writing.write_all(b"\0\0\0\x0f\0\0\0\0_heartbeat_").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let good = Nsqd::start().await;
    let told = Told::default();
    let builder = producer().nsqd(&mute).nsqd(&good.address).reconnect(LONG, LONG).timeout(Duration::from_millis(500));
    let producer = builder.on_event(told.listener()).build().unwrap();
    told.connected(2).await;
    let (one, other) = tokio::join!(producer.publish("t", "x"), producer.publish("t", "x"));
    let failed: Vec<_> = [one, other].into_iter().filter_map(Result::err).collect();
    assert!(matches!(&failed[..], [PublishError::Unknown(_)]), "{failed:?}");
    let given_up = |event: &Event| matches!(event, Event::Disconnected { nsqd, reason, .. } if *nsqd == mute && reason.contains("no answer"));
    told.until(1, given_up).await;
    for _ in 0..10 {
        producer.publish("t", "x").await.unwrap();
    }
    assert_eq!(good.published("t"), 11);
}

#[tokio::test]
async fn what_nsqd_would_not_take_is_not_sent() {
    let nsqd = Nsqd::start().await;
    let producer = producer().nsqd(&nsqd.address).build().unwrap();
    assert_eq!(producer.publish("no topic", "x").await, Err(PublishError::BadTopic("no topic".into())));
    assert_eq!(producer.publish("t", "").await, Err(PublishError::Empty));
    assert_eq!(producer.publish_many("t", ["x", ""]).await, Err(PublishError::Empty));
    assert_eq!(producer.publish_many("t", [""; 0]).await, Ok(()));
    let never = producer.publish_deferred("t", Duration::MAX, "x").await;
    assert_eq!(never, Err(PublishError::TooLong(Duration::MAX)));
    assert!(matches!(Producer::builder().nsqd("nsqd").build().err(), Some(BuildError::BadAddress(..))));
    assert_eq!(Producer::builder().build().err(), Some(BuildError::NoAddress));
    producer.publish("t", "x").await.unwrap();
    soon("the end", producer.stop()).await;
    assert!(matches!(producer.publish("t", "x").await, Err(PublishError::Stopped)));
}
