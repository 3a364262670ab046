//! The scenarios. Each is short: what matters is in how many ways its threads can meet.

use crate::explore;
use crate::nsqd::{Nsqd, channel_name, topic_name};
use nsq_core::topic::io::Admin;
use nsq_core::wire;
use shuttle::future::block_on;
use shuttle::thread::{self, JoinHandle};
use std::time::Duration;

const NO_DELAY: Duration = Duration::ZERO;
const DELAY: Duration = Duration::from_secs(1);

#[test]
fn waiting_consumers_get_everything_once() {
    explore(|| {
        let nsqd = Nsqd::new();
        // So that what is published before the two have come is for both.
        nsqd.create_topic("t");
        for channel in ["c", "d"] {
            assert_eq!(nsqd.administer("t", Admin::CreateChannel(channel_name(channel))), Some(Ok(())));
        }
        let consumers = [("c", 1), ("d", 3)].map(|(channel, ready)| {
            start(&nsqd, move |nsqd| {
                let mut client = nsqd.consumer("t", channel, ready);
                let bodies = client.take(6);
                client.close();
                bodies
            })
        });
        let publishers = ["a", "b"].map(|who| {
            start(&nsqd, move |nsqd| {
                (0..2).for_each(|n| nsqd.publish("t", format!("{who}{n}"), NO_DELAY));
            })
        });
        let pipelining = start(&nsqd, |nsqd| {
            let mut client = nsqd.connect();
            client.send(|out| ["c0", "c1"].iter().for_each(|body| wire::publish("t", body.as_bytes(), out)));
            (0..2).for_each(|_| assert_eq!(client.next(), Some(wire::Frame::Response("OK".into()))));
            client.close();
        });
        nsqd.tick(NO_DELAY);
        publishers.into_iter().chain([pipelining]).for_each(join);
        for consumer in consumers {
            assert_eq!(join(consumer), ["a0", "a1", "b0", "b1", "c0", "c1"]);
        }
        for channel in nsqd.channels("t") {
            assert_eq!((channel.finish_count, channel.depth, channel.in_flight_count), (6, 0, 0));
        }
        nsqd.check();
    });
}

#[test]
fn frames_arrive_in_the_order_in_which_the_topic_made_them() {
    explore(|| {
        let nsqd = Nsqd::new();
        let mut client = nsqd.consumer("t", "c", 100);
        nsqd.publish("t", "first".into(), NO_DELAY);
        let first = client.message().expect("a message").id;
        let publishers = ["a", "b"].map(|who| {
            start(&nsqd, move |nsqd| {
                (0..2).for_each(|n| nsqd.publish("t", format!("{who}{n}"), NO_DELAY));
            })
        });
        let ids: Vec<_> = [first].into_iter().chain((0..4).map(|_| client.message().expect("a message").id)).collect();
        assert!(ids.is_sorted(), "{ids:?}");
        publishers.into_iter().for_each(join);
        client.close();
        nsqd.check();
    });
}

#[test]
fn what_is_deferred_comes_when_it_is_due() {
    explore(|| {
        let nsqd = Nsqd::new();
        let mut client = nsqd.consumer("t", "c", 100);
        let publishers = [1, 2].map(|factor| {
            start(&nsqd, move |nsqd| {
                (0..2).for_each(|n| nsqd.publish("t", format!("{factor}-{n}"), DELAY * (factor + n)));
            })
        });
        let ticker = start(&nsqd, |nsqd| (0..4).for_each(|_| nsqd.tick(DELAY)));
        publishers.into_iter().chain([ticker]).for_each(join);
        // The consumer says nothing in between, so it is the timers alone that make the topic look.
        nsqd.tick(DELAY * 4);
        let messages: Vec<_> = (0..4).map(|_| client.message().expect("a message")).collect();
        let mut bodies: Vec<_> = messages.iter().map(|message| &message.body[..]).collect();
        bodies.sort();
        assert_eq!(bodies, [b"1-0", b"1-1", b"2-0", b"2-1"]);
        client.close();
        nsqd.check();
    });
}

#[test]
fn a_deleted_topic_takes_with_it_only_what_it_had() {
    explore(|| {
        let nsqd = Nsqd::new();
        nsqd.create_topic("t");
        let publishers = ["a", "b"].map(|who| {
            start(&nsqd, move |nsqd| {
                (0..2).for_each(|n| nsqd.publish("t", format!("{who}{n}"), NO_DELAY));
            })
        });
        // The consumer of a deleted topic is disconnected; it comes back until it has what was published last.
        let consumer = start(&nsqd, |nsqd| {
            let mut bodies = Vec::new();
            while bodies.last().is_none_or(|last| last != "last") {
                let mut client = nsqd.connect();
                client.send(|out| {
                    wire::subscribe("t", "c", out);
                    wire::ready(1, out);
                });
                if client.next().is_some() {
                    while let Some(message) = client.message() {
                        client.send(|out| wire::finish(message.id, out));
                        bodies.push(String::from_utf8(message.body.to_vec()).unwrap());
                        if message.body == "last" {
                            break;
                        }
                    }
                }
                client.close();
            }
            bodies
        });
        let deleter = start(&nsqd, |nsqd| {
            let deleted = nsqd.broker.find(&topic_name("t")).expect("nobody else deletes it");
            assert_eq!(nsqd.administer("t", Admin::DeleteTopic), Some(Ok(())));
            deleted.look(|topic| topic.stats(None, false).message_count).expect("it has not panicked")
        });
        publishers.into_iter().for_each(join);
        let deleted = join(deleter);
        nsqd.publish("t", "last".into(), NO_DELAY);
        let mut bodies = join(consumer);
        // Each message went into one of the two topics, and all of the second one's came out.
        let channel = nsqd.channels("t").pop().expect("the channel");
        assert_eq!(deleted + channel.message_count, 5);
        assert_eq!((channel.finish_count, channel.depth, channel.in_flight_count), (channel.message_count, 0, 0));
        assert!(bodies.len() as u64 >= channel.message_count, "{bodies:?}");
        let delivered = bodies.len();
        bodies.sort();
        bodies.dedup();
        assert_eq!(bodies.len(), delivered, "{bodies:?}");
        nsqd.check();
    });
}

#[test]
fn the_directory_hears_of_everything_in_order() {
    explore(|| {
        let nsqd = Nsqd::new();
        nsqd.create_topic("t");
        let operators = [0, 1].map(|_| {
            start(&nsqd, |nsqd| {
                let _ = nsqd.administer("t", Admin::CreateChannel(channel_name("c")));
                let _ = nsqd.administer("t", Admin::DeleteChannel(channel_name("c")));
                let _ = nsqd.administer("t", Admin::DeleteTopic);
                nsqd.create_topic("t");
            })
        });
        operators.into_iter().for_each(join);
        nsqd.check();
    });
}

#[test]
fn pauses_are_answered_once_they_are_saved() {
    explore(|| {
        let nsqd = Nsqd::new();
        nsqd.create_topic("t");
        let operators = [true, false].map(|paused| {
            start(&nsqd, move |nsqd| {
                assert_eq!(nsqd.administer("t", Admin::PauseTopic(paused)), Some(Ok(())));
            })
        });
        let saver = start(&nsqd, |nsqd| block_on(nsqd.save()));
        operators.into_iter().for_each(join);
        nsqd.broker.exiting.notify_one();
        join(saver);
        nsqd.check();
    });
}

#[test]
fn whoever_comes_at_the_end_is_sent_away() {
    explore(|| {
        let nsqd = Nsqd::new();
        let subscribed = nsqd.consumer("t", "c", 1);
        let late = start(&nsqd, |nsqd| {
            let mut client = nsqd.connect();
            assert_eq!(client.next(), None);
            client.close();
        });
        let publisher = start(&nsqd, |nsqd| nsqd.publish("t", "a".into(), NO_DELAY));
        nsqd.broker.close_all();
        for thread in [late, publisher] {
            join(thread);
        }
        let mut subscribed = subscribed;
        while subscribed.next().is_some() {}
        subscribed.close();
        nsqd.check();
    });
}

fn start<T: Send + 'static>(nsqd: &Nsqd, run: impl FnOnce(&Nsqd) -> T + Send + 'static) -> JoinHandle<T> {
    let nsqd = nsqd.clone();
    thread::spawn(move || run(&nsqd))
}

fn join<T>(thread: JoinHandle<T>) -> T {
    thread.join().unwrap()
}
