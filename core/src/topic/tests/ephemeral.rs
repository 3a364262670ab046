//! Ephemeral channels and topics: what they admit, what they drop, and when they go.

use super::sentences::*;
use crate::time::Duration;
use crate::topic::Handled;
use crate::topic::io::{Admin, Input, Notice, Slot};
use alloc::format;

#[test]
fn an_ephemeral_channel_keeps_as_much_as_fits_and_counts_the_rest() {
    let mut bench = bench_with(|options| options.mem_queue_size = 3);
    let conn = bench.consumer("c#ephemeral", 0);
    let all = bench.consumer("d", 0);
    bench.publish(["a", "b", "c", "d", "e"]);
    let stats = bench.channel("c#ephemeral");
    assert_eq!((stats.depth, stats.backend_depth), (3, 0));
    assert_eq!((stats.message_count, stats.dropped_count), (5, 2));
    bench.ready(conn, 10);
    bench.publish(["f"]);
    assert_eq!(bench.drain(conn), ["a", "b", "c", "f"]);
    bench.ready(all, 10);
    assert_eq!(bench.bodies(all).len(), 6, "the other channel got everything");
}

#[test]
fn without_memory_an_ephemeral_channel_takes_what_is_wanted_now() {
    let mut bench = bench_with(|options| options.mem_queue_size = 0);
    let conn = bench.consumer("c#ephemeral", 2);
    bench.publish_at_once(many(["a", "b", "c"]), Duration::ZERO).expect("taken");
    let got = bench.messages(conn);
    assert_eq!(got.iter().map(text).collect::<alloc::vec::Vec<_>>(), ["a", "b"]);
    bench.finish(conn, got[0].id);
    bench.publish(["d", "e"]);
    assert_eq!(bench.bodies(conn), ["d"]);
    assert_eq!(bench.channel("c#ephemeral").dropped_count, 2);
}

#[test]
fn a_paused_ephemeral_channel_counts_no_credit() {
    let mut bench = bench_with(|options| options.mem_queue_size = 1);
    let conn = bench.consumer("c#ephemeral", 10);
    bench.pause(Admin::PauseChannel(channel("c#ephemeral"), true));
    bench.publish(["a", "b", "c"]);
    bench.pause(Admin::PauseChannel(channel("c#ephemeral"), false));
    assert_eq!(bench.bodies(conn), ["a"]);
}

#[test]
fn what_is_put_back_into_an_ephemeral_channel_is_never_dropped() {
    let mut bench = bench_with(|options| options.mem_queue_size = 1);
    let conn = bench.consumer("c#ephemeral", 5);
    bench.publish(["a", "b", "c", "d", "e"]);
    let got = bench.messages(conn);
    bench.ready(conn, 0);
    bench.requeue(conn, got[0].id, Duration::ZERO);
    bench.requeue(conn, got[1].id, ms(10));
    bench.pass(TIMEOUT);
    assert_eq!((bench.channel("c#ephemeral").depth, bench.channel("c#ephemeral").dropped_count), (5, 0));
    bench.publish(["f"]);
    assert_eq!(bench.channel("c#ephemeral").dropped_count, 1, "a new one finds it full");
    bench.ready(conn, 5);
    assert_eq!(bench.drain(conn).len(), 5);
}

#[test]
fn a_gap_in_an_ephemeral_channel_does_not_shift_what_follows() {
    let mut bench = bench_with(|options| options.mem_queue_size = 2);
    let conn = bench.consumer("c#ephemeral", 0);
    let all = bench.consumer("d", 0);
    bench.publish((0..5).map(|n| format!("{n}")));
    bench.ready(conn, 1);
    let first = bench.message(conn);
    bench.publish((5..8).map(|n| format!("{n}")));
    bench.finish(conn, first.id);
    assert_eq!(bench.drain(conn), ["1", "5"]);
    bench.ready(all, 10);
    assert_eq!(bench.bodies(all).len(), 8);
}

#[test]
fn an_ephemeral_channel_goes_with_its_last_consumer() {
    let mut bench = bench();
    bench.consumer("keep", 0);
    let (one, two) = (bench.consumer("c#ephemeral", 1), bench.consumer("c#ephemeral", 0));
    bench.publish(["a", "b"]);
    bench.leave(one);
    assert!(bench.topic.has_channel(&channel("c#ephemeral")));
    bench.leave(two);
    assert!(!bench.topic.has_channel(&channel("c#ephemeral")));
    let deleted = Notice::ChannelDeleted(bench.topic.name().clone(), channel("c#ephemeral"));
    assert_eq!(bench.notices.last(), Some(&deleted));
}

#[test]
fn an_ephemeral_channel_that_nobody_ever_used_stays() {
    let mut bench = bench();
    assert_eq!(bench.admin(Admin::CreateChannel(channel("c#ephemeral"))), Ok(()));
    bench.publish(["a"]);
    let conn = bench.consumer("c#ephemeral", 1);
    assert_eq!(bench.bodies(conn), ["a"]);
}

#[test]
fn an_ephemeral_topic_keeps_as_much_as_fits() {
    let mut bench = topic_with("t#ephemeral", |options| options.mem_queue_size = 3);
    bench.publish(["a", "b", "c", "d", "e"]);
    let stats = bench.topic.stats(None, false);
    assert_eq!((stats.depth, stats.backend_depth, stats.message_count), (3, 0, 5));
    let conn = bench.consumer("c", 10);
    assert_eq!(bench.bodies(conn), ["a", "b", "c"]);
    bench.pause(Admin::PauseTopic(true));
    bench.publish_at_once(many(["f", "g", "h", "i"]), Duration::ZERO).expect("taken");
    bench.pause(Admin::PauseTopic(false));
    assert_eq!(bench.bodies(conn), ["f", "g", "h"]);
}

#[test]
fn a_normal_channel_of_an_ephemeral_topic_is_not_bounded() {
    let mut bench = topic_with("t#ephemeral", |options| options.mem_queue_size = 3);
    let conn = bench.consumer("c", 0);
    bench.publish((0..10).map(|n| format!("{n}")));
    bench.ready(conn, 10);
    assert_eq!(bench.bodies(conn).len(), 10);
}

#[test]
fn an_ephemeral_topic_goes_with_its_last_channel() {
    let mut bench = topic_with("t#ephemeral", |_| {});
    let one = bench.consumer("c#ephemeral", 0);
    bench.consumer("d", 0);
    bench.publish(["a"]);
    bench.leave(one);
    assert!(!bench.topic.is_gone());
    let (from, slot) = (bench.connect(), bench.slot());
    let delete = Input::Admin { from, slot, action: Admin::DeleteChannel(channel("d")) };
    assert_eq!(bench.give([delete]), Handled::Gone);
    assert_eq!(bench.reply(from, slot), Ok(()));
    assert_eq!(bench.notices.last(), Some(&Notice::TopicDeleted(bench.topic.name().clone())));
    assert_eq!(bench.budget.used(), 0);
}

#[test]
fn an_ephemeral_topic_that_never_had_a_channel_stays() {
    let mut bench = topic_with("t#ephemeral", |_| {});
    bench.publish(["a"]);
    assert_eq!(bench.give([Input::Leave { conn: crate::topic::io::ConnId(77) }]), Handled::All);
    assert_eq!(bench.topic.stats(None, false).depth, 1);
    let conn = bench.connect();
    assert_eq!(bench.give([Input::Close { conn, slot: Slot(1) }]), Handled::All);
}
