//! What operators do: pause, empty, create and delete, and what the node and the statistics are told.

use super::sentences::*;
use crate::directory::{ChannelEntry, Entry};
use crate::message::Bodies;
use crate::time::Duration;
use crate::topic::Handled;
use crate::topic::io::{Admin, Input, Notice, Refusal, Slot, ToConn};
use alloc::collections::VecDeque;
use alloc::format;

const NOTHING: [&str; 0] = [];

#[test]
fn a_paused_topic_holds_messages_back() {
    let mut bench = bench();
    let conn = bench.consumer("c", 10);
    bench.pause(Admin::PauseTopic(true));
    bench.publish(["a", "b"]);
    assert_eq!(bench.bodies(conn), NOTHING);
    let stats = bench.topic.stats(None, false);
    assert_eq!((stats.depth, stats.message_count, stats.channels[0].depth), (2, 2, 0));
    bench.pause(Admin::PauseTopic(false));
    assert_eq!(bench.bodies(conn), ["a", "b"]);
}

#[test]
fn a_paused_topic_does_not_stop_what_its_channels_have() {
    let mut bench = bench();
    let conn = bench.consumer("c", 1);
    bench.publish(["a", "b"]);
    bench.pause(Admin::PauseTopic(true));
    assert_eq!(bench.drain(conn), ["a", "b"]);
}

#[test]
fn a_channel_created_while_paused_gets_what_was_held_back() {
    let mut bench = bench();
    let old = bench.consumer("old", 10);
    bench.publish(["before"]);
    bench.pause(Admin::PauseTopic(true));
    bench.publish(["held"]);
    let new = bench.consumer("new", 10);
    bench.pause(Admin::PauseTopic(false));
    assert_eq!(bench.bodies(old), ["before", "held"]);
    assert_eq!(bench.bodies(new), ["held"]);
}

#[test]
fn a_paused_channel_hands_out_nothing_but_takes_everything() {
    let mut bench = bench();
    let (conn, other) = (bench.consumer("c", 3), bench.consumer("d", 10));
    bench.publish(["a", "b"]);
    let got = bench.messages(conn);
    bench.pause(Admin::PauseChannel(channel("c"), true));
    bench.publish(["c"]);
    bench.finish(conn, got[0].id);
    bench.requeue(conn, got[1].id, Duration::ZERO);
    bench.publish_deferred("d", ms(1));
    bench.pass(ms(1));
    assert_eq!(bench.bodies(conn), NOTHING);
    assert_eq!(bench.bodies(other).len(), 4, "the other channel goes on");
    assert_eq!((bench.channel("c").depth, bench.channel("c").deferred_count), (3, 0));
    bench.pause(Admin::PauseChannel(channel("c"), false));
    assert_eq!(bench.bodies(conn), ["c", "b", "d"]);
}

#[test]
fn messages_of_a_paused_channel_time_out() {
    let mut bench = bench();
    let conn = bench.consumer("c", 1);
    bench.publish(["a"]);
    bench.messages(conn);
    bench.pause(Admin::PauseChannel(channel("c"), true));
    bench.pass(TIMEOUT);
    assert_eq!((bench.channel("c").timeout_count, bench.channel("c").depth), (1, 1));
}

#[test]
fn an_emptied_topic_keeps_what_its_channels_have() {
    let mut bench = bench();
    let conn = bench.consumer("c", 0);
    bench.publish(["kept"]);
    bench.pause(Admin::PauseTopic(true));
    bench.publish(["dropped"]);
    bench.publish_deferred("dropped too", ms(1));
    assert_eq!(bench.admin(Admin::EmptyTopic), Ok(()));
    bench.publish(["later"]);
    bench.pause(Admin::PauseTopic(false));
    bench.pass(ms(1));
    bench.ready(conn, 10);
    assert_eq!(bench.bodies(conn), ["kept", "later"]);
}

#[test]
fn a_topic_without_channels_can_be_emptied() {
    let mut bench = bench();
    bench.publish(["a", "b"]);
    assert_eq!(bench.admin(Admin::EmptyTopic), Ok(()));
    assert_eq!((bench.topic.stats(None, false).depth, bench.budget.used()), (0, 0));
    let conn = bench.consumer("c", 10);
    bench.publish(["c"]);
    assert_eq!(bench.bodies(conn), ["c"]);
}

#[test]
fn an_emptied_channel_forgets_everything_and_frees_its_consumers() {
    let mut bench = bench();
    let (conn, other) = (bench.consumer("c", 3), bench.consumer("d", 0));
    bench.publish(["fly", "wait", "defer", "fresh", "fresh"]);
    let got = bench.messages(conn);
    bench.ready(conn, 1);
    bench.requeue(conn, got[1].id, Duration::ZERO);
    bench.requeue(conn, got[2].id, ms(10));
    assert_eq!(bench.admin(Admin::EmptyChannel(channel("c"))), Ok(()));
    let stats = bench.channel("c");
    assert_eq!((stats.depth, stats.deferred_count, stats.in_flight_count, stats.dropped_count), (0, 0, 0, 5));
    assert_eq!(stats.clients[0].in_flight_count, 0);
    bench.finish(conn, got[0].id);
    assert_eq!(bench.failure(conn), Refusal::NotInFlight);
    bench.pass(TIMEOUT);
    bench.publish(["new"]);
    assert_eq!(bench.bodies(conn), ["new"], "the consumer has its credit back");
    bench.ready(other, 10);
    assert_eq!(bench.bodies(other).len(), 6, "the other channel keeps its own");
}

#[test]
fn a_consumer_that_vanished_before_its_channel_was_emptied_is_forgotten() {
    let mut bench = bench();
    let (gone, stays) = (bench.consumer("c", 1), bench.consumer("c", 0));
    bench.publish(["a"]);
    bench.leave(gone);
    assert_eq!(bench.admin(Admin::EmptyChannel(channel("c"))), Ok(()));
    bench.ready(stays, 1);
    bench.publish(["b"]);
    assert_eq!(bench.bodies(stays), ["b"]);
}

#[test]
fn a_deleted_channel_disconnects_its_consumers() {
    let mut bench = bench();
    let (conn, other) = (bench.consumer("c", 1), bench.consumer("d", 0));
    bench.publish(["a", "b"]);
    let id = bench.message(conn).id;
    assert_eq!(bench.admin(Admin::DeleteChannel(channel("c"))), Ok(()));
    assert_eq!(bench.events(conn), [ToConn::Disconnect]);
    bench.finish(conn, id);
    assert_eq!(bench.failure(conn), Refusal::NotInFlight);
    bench.leave(conn);
    bench.ready(other, 2);
    assert_eq!(bench.bodies(other), ["a", "b"]);
    assert!(!bench.topic.has_channel(&channel("c")));
}

#[test]
fn a_channel_created_again_starts_with_nothing() {
    let mut bench = bench();
    bench.consumer("keep", 0);
    bench.consumer("c", 0);
    bench.publish(["old"]);
    assert_eq!(bench.admin(Admin::DeleteChannel(channel("c"))), Ok(()));
    let conn = bench.consumer("c", 10);
    bench.publish(["new"]);
    assert_eq!(bench.bodies(conn), ["new"]);
}

#[test]
fn a_topic_that_lost_its_last_channel_collects_messages_again() {
    let mut bench = bench();
    bench.consumer("c", 0);
    bench.publish(["lost"]);
    assert_eq!(bench.admin(Admin::DeleteChannel(channel("c"))), Ok(()));
    bench.publish(["kept"]);
    let conn = bench.consumer("d", 10);
    assert_eq!(bench.bodies(conn), ["kept"]);
}

#[test]
fn actions_on_a_channel_that_is_not_there_are_refused() {
    let mut bench = bench();
    let name = || channel("c");
    let actions = [Admin::DeleteChannel(name()), Admin::EmptyChannel(name()), Admin::PauseChannel(name(), true)];
    for action in actions {
        assert_eq!(bench.admin(action), Err(Refusal::NoChannel));
    }
    assert_eq!(bench.notices, []);
}

#[test]
fn a_deleted_topic_leaves_the_rest_of_the_batch() {
    let mut bench = bench();
    let conn = bench.consumer("c", 1);
    bench.publish(["a"]);
    bench.messages(conn);
    bench.notices.clear();
    let (from, slot) = (bench.connect(), bench.slot());
    let publish = Input::Publish { from, slot: Slot(99), bodies: Bodies::one("b".into()), defer: Duration::ZERO };
    let mut batch: VecDeque<_> = [Input::Admin { from, slot, action: Admin::DeleteTopic }, publish].into();
    assert_eq!(bench.turn(&mut batch), Handled::Gone);
    assert_eq!(batch.len(), 1);
    assert_eq!(bench.reply(from, slot), Ok(()));
    assert_eq!(bench.events(conn), [ToConn::Disconnect]);
    assert_eq!(bench.notices, [Notice::TopicDeleted(bench.topic.name().clone())]);
    assert_eq!((bench.budget.used(), bench.topic.deadline()), (0, None));
    assert_eq!(bench.turn(&mut batch), Handled::Gone, "and it stays gone");
    assert_eq!(batch.len(), 1);
}

#[test]
fn the_node_hears_of_channels_and_pauses() {
    let mut bench = bench();
    assert_eq!(bench.admin(Admin::CreateChannel(channel("c"))), Ok(()));
    assert_eq!(bench.admin(Admin::CreateChannel(channel("c"))), Ok(()));
    let from = bench.connect();
    let actions = [
        Admin::PauseChannel(channel("c"), true),
        Admin::PauseTopic(true),
        Admin::PauseTopic(false),
        Admin::DeleteChannel(channel("c")),
    ];
    let inputs = actions.into_iter().zip(1..);
    bench.give(inputs.map(|(action, slot)| Input::Admin { from, slot: Slot(slot), action }));
    let (topic, name) = (bench.topic.name().clone(), channel("c"));
    assert_eq!(
        bench.notices,
        [
            Notice::ChannelCreated(topic.clone(), name.clone(), None),
            Notice::ChannelPaused { topic: topic.clone(), channel: name.clone(), paused: true, from, slot: Slot(1) },
            Notice::TopicPaused { topic: topic.clone(), paused: true, from, slot: Slot(2) },
            Notice::TopicPaused { topic: topic.clone(), paused: false, from, slot: Slot(3) },
            Notice::ChannelDeleted(topic, name),
        ]
    );
    assert_eq!(bench.events(from), [ToConn::Reply { slot: Slot(4), result: Ok(()) }]);
}

#[test]
fn a_restored_topic_is_as_it_was() {
    let mut bench = bench();
    let listed = |paused| ChannelEntry { paused, incarnation: None };
    let channels = [(channel("a"), listed(false)), (channel("b"), listed(true))];
    bench.topic.restore(&Entry { paused: true, channels: channels.into_iter().collect() });
    bench.publish(["x"]);
    let (a, b) = (bench.consumer("a", 1), bench.consumer("b", 1));
    assert_eq!(bench.notices, [], "nothing new");
    bench.pause(Admin::PauseTopic(false));
    assert_eq!(bench.bodies(a), ["x"]);
    assert_eq!(bench.bodies(b), NOTHING);
    assert!(bench.channel("b").paused);
}

#[test]
fn statistics_add_up() {
    let mut bench = bench_with(|options| options.mem_queue_size = 3);
    let conn = bench.consumer("c", 2);
    bench.publish((0..10).map(|n| format!("{n}")));
    let got = bench.messages(conn);
    bench.finish(conn, got[0].id);
    bench.pause(Admin::PauseTopic(true));
    bench.publish(["p", "q", "r", "s"]);
    let stats = bench.topic.stats(None, true);
    assert_eq!((stats.message_count, stats.message_bytes, stats.paused), (14, 14, true));
    assert_eq!((stats.depth, stats.backend_depth), (4, 1));
    let channel = &stats.channels[0];
    assert_eq!((channel.depth, channel.backend_depth, channel.in_flight_count), (7, 4, 2));
    assert_eq!((channel.message_count, channel.finish_count), (10, 1));
    let client = &channel.clients[0];
    assert_eq!((client.message_count, client.in_flight_count, client.finish_count), (3, 2, 1));
    assert!(bench.topic.stats(Some("other"), true).channels.is_empty());
}
