//! A topic that is new to a cluster: it waits for the channels that nsqlookupds know.

use super::bench::{Bench, Seen};
use super::sentences::*;
use crate::message::Bodies;
use crate::time::Duration;
use crate::topic::Handled;
use crate::topic::io::{Admin, ConnId, Input, Notice, Slot, ToConn};

const NOTHING: [&str; 0] = [];

fn awaiting(name: &str) -> Bench {
    let mut bench = topic_with(name, |options| options.mem_queue_size = 3);
    bench.topic.await_channels();
    bench
}

/// A publish whose answer is not looked at.
fn publish(bench: &mut Bench, body: &'static str) -> (ConnId, Slot) {
    let (from, slot) = (bench.connect(), bench.slot());
    bench.give([Input::Publish { from, slot, bodies: Bodies::one(body.into()), defer: Duration::ZERO }]);
    (from, slot)
}

fn start(bench: &mut Bench, channels: &[&str]) {
    bench.give([Input::Channels(channels.iter().map(|name| channel(name)).collect())]);
}

#[test]
fn its_first_message_reaches_all_channels_that_are_known() {
    let mut bench = awaiting("topic");
    let (creator, slot) = publish(&mut bench, "first");
    assert_eq!(bench.streams.get(&creator), None, "the creator waits");
    bench.publish(["second"]);
    start(&mut bench, &["b", "a"]);
    assert_eq!(bench.reply(creator, slot), Ok(()));
    for name in ["a", "b"] {
        let conn = bench.consumer(name, 10);
        assert_eq!(bench.bodies(conn), ["first", "second"]);
    }
    let created = |name| Notice::ChannelCreated(bench.topic.name().clone(), channel(name), None);
    assert_eq!(bench.notices, [created("b"), created("a")]);
}

#[test]
fn it_takes_everything_and_gives_nothing_until_then() {
    let mut bench = awaiting("topic");
    let (creator, slot) = publish(&mut bench, "a");
    let conn = bench.consumer("c", 10);
    bench.publish(["b"]);
    bench.publish_deferred("c", ms(10));
    bench.pass(ms(20));
    assert_eq!(bench.bodies(conn), NOTHING);
    assert_eq!((bench.topic.stats(None, false).depth, bench.channel("c").depth), (3, 0));
    start(&mut bench, &[]);
    assert_eq!(bench.reply(creator, slot), Ok(()));
    assert_eq!(bench.bodies(conn), ["a", "b", "c"]);
}

#[test]
fn a_pause_outlasts_the_waiting() {
    let mut bench = awaiting("topic");
    bench.pause(Admin::PauseTopic(true));
    let (creator, slot) = publish(&mut bench, "a");
    start(&mut bench, &["c"]);
    assert_eq!(bench.reply(creator, slot), Ok(()));
    let conn = bench.consumer("c", 1);
    assert_eq!(bench.bodies(conn), NOTHING);
    bench.pause(Admin::PauseTopic(false));
    assert_eq!(bench.bodies(conn), ["a"]);
}

#[test]
fn a_consumer_that_created_it_is_answered_before_its_first_message() {
    let mut bench = awaiting("topic");
    let (conn, slot) = (bench.connect(), bench.slot());
    bench.give([Input::Subscribe { conn, slot, channel: channel("c"), consumer: plain_consumer() }]);
    bench.ready(conn, 1);
    bench.publish(["a"]);
    assert_eq!(bench.streams.get(&conn), None);
    start(&mut bench, &["c"]);
    assert_eq!(bench.reply(conn, slot), Ok(()));
    assert_eq!(bench.bodies(conn), ["a"]);
}

#[test]
fn only_one_answer_waits() {
    let mut bench = awaiting("topic");
    let (from, slot) = (bench.connect(), bench.slot());
    bench.give([Input::Admin { from, slot, action: Admin::CreateTopic }]);
    assert_eq!(bench.streams.get(&from), None);
    assert_eq!(bench.admin(Admin::CreateTopic), Ok(()));
    assert_eq!(bench.admin(Admin::EmptyTopic), Ok(()));
    start(&mut bench, &[]);
    assert_eq!(bench.reply(from, slot), Ok(()));
    assert_eq!(bench.admin(Admin::CreateTopic), Ok(()));
}

#[test]
fn whoever_waits_for_a_topic_that_is_deleted_is_answered() {
    let mut bench = awaiting("topic");
    let (creator, slot) = publish(&mut bench, "a");
    assert_eq!(bench.admin(Admin::DeleteTopic), Ok(()));
    assert_eq!(bench.reply(creator, slot), Ok(()));
    assert_eq!(bench.give([Input::Channels([channel("c")].into())]), Handled::Gone);
}

#[test]
fn an_ephemeral_topic_may_go_before_it_has_started() {
    let mut bench = awaiting("topic#ephemeral");
    let (conn, slot) = (bench.connect(), bench.slot());
    bench.give([Input::Subscribe { conn, slot, channel: channel("c#ephemeral"), consumer: plain_consumer() }]);
    bench.leave(conn);
    assert!(bench.topic.is_gone());
    assert_eq!(bench.streams[&conn], [Seen::Event(ToConn::Reply { slot, result: Ok(()) })]);
}

#[test]
fn an_ephemeral_topic_keeps_no_more_than_its_queue_until_then() {
    let mut bench = awaiting("topic#ephemeral");
    let (creator, slot) = publish(&mut bench, "a");
    let conn = bench.consumer("c", 10);
    bench.publish(["b", "c", "d"]);
    start(&mut bench, &[]);
    assert_eq!(bench.reply(creator, slot), Ok(()));
    assert_eq!(bench.bodies(conn), ["a", "b", "c"]);
}

#[test]
fn channels_that_nobody_waits_for_mean_nothing() {
    let mut bench = bench();
    start(&mut bench, &["c"]);
    assert_eq!(bench.topic.stats(None, false).channels.len(), 0);
    bench.topic.await_channels();
    start(&mut bench, &["c"]);
    start(&mut bench, &["d"]);
    assert_eq!(bench.topic.stats(None, false).channels.len(), 1);
}
