//! When things happen: timeouts, TOUCH, REQ with a delay, deferred publishes. Exactly when due, not a nanosecond early.

use super::bench::Bench;
use super::sentences::*;
use crate::time::Duration;
use crate::topic::io::{Admin, ConnId, Refusal};
use alloc::collections::{BTreeSet, VecDeque};
use alloc::format;
use alloc::vec::Vec;

const NOTHING: [&str; 0] = [];

/// Nothing comes until just before the end of that time, and then exactly this.
fn comes_exactly_after(bench: &mut Bench, conn: ConnId, duration: Duration, body: &str) {
    bench.pass(duration - NANO);
    bench.turn(&mut VecDeque::new());
    assert_eq!(bench.bodies(conn), NOTHING, "a nanosecond early");
    bench.pass(NANO);
    assert_eq!(bench.bodies(conn), [body]);
}

#[test]
fn a_message_times_out_exactly_at_its_deadline() {
    let mut bench = bench();
    let owner = bench.consumer_with("c", 1, |consumer| consumer.msg_timeout = ms(1500));
    bench.publish(["a"]);
    let message = bench.message(owner);
    assert_eq!(bench.topic.deadline(), Some(bench.now() + ms(1500)));
    bench.ready(owner, 0);
    let other = bench.consumer("c", 1);
    comes_exactly_after(&mut bench, other, ms(1500), "a");
    let stats = bench.channel("c");
    assert_eq!((stats.timeout_count, stats.requeue_count), (1, 0));
    assert_eq!(bench.client("c", owner).in_flight_count, 0);
    bench.finish(owner, message.id);
    assert_eq!(bench.failure(owner), Refusal::NotOwner);
}

#[test]
fn a_timeout_gives_the_consumer_its_credit_back() {
    let mut bench = bench();
    let conn = bench.consumer("c", 1);
    bench.publish(["a", "b"]);
    assert_eq!(bench.bodies(conn), ["a"]);
    bench.pass(TIMEOUT);
    assert_eq!(bench.bodies(conn), ["b"], "what timed out goes behind what is fresh");
    bench.pass(TIMEOUT);
    let again = bench.message(conn);
    assert_eq!((again.attempts, again.body.as_slice()), (2, &b"a"[..]));
}

#[test]
fn finishing_after_the_timeout_fails() {
    let mut bench = bench();
    let conn = bench.consumer("c", 1);
    bench.publish(["a"]);
    let id = bench.message(conn).id;
    bench.ready(conn, 0);
    bench.pass(TIMEOUT);
    bench.finish(conn, id);
    assert_eq!(bench.failure(conn), Refusal::NotInFlight);
}

#[test]
fn what_is_due_comes_before_the_input_of_the_same_moment() {
    let mut bench = bench();
    let conn = bench.consumer("c", 1);
    bench.publish(["a"]);
    let id = bench.message(conn).id;
    bench.ready(conn, 0);
    bench.sleep(TIMEOUT);
    bench.finish(conn, id);
    assert_eq!(bench.failure(conn), Refusal::NotInFlight);
}

#[test]
fn a_finish_just_before_the_deadline_counts() {
    let mut bench = bench();
    let conn = bench.consumer("c", 1);
    bench.publish(["a"]);
    let id = bench.message(conn).id;
    bench.pass(TIMEOUT - NANO);
    bench.finish(conn, id);
    bench.pass(TIMEOUT);
    assert_eq!((bench.channel("c").finish_count, bench.channel("c").timeout_count), (1, 0));
}

#[test]
fn consumers_have_their_own_timeouts() {
    let mut bench = bench();
    let slow = bench.consumer_with("c", 1, |consumer| consumer.msg_timeout = ms(300));
    let fast = bench.consumer_with("c", 1, |consumer| consumer.msg_timeout = ms(200));
    bench.publish(["a", "b"]);
    assert_eq!((bench.bodies(slow).len(), bench.bodies(fast).len()), (1, 1));
    bench.ready(slow, 0);
    bench.ready(fast, 0);
    bench.pass(ms(200));
    assert_eq!(bench.channel("c").timeout_count, 1);
    bench.pass(ms(100));
    assert_eq!(bench.channel("c").timeout_count, 2);
}

#[test]
fn touch_starts_the_timeout_again() {
    let mut bench = bench();
    let conn = bench.consumer("c", 1);
    bench.publish(["a"]);
    let id = bench.message(conn).id;
    bench.pass(TIMEOUT - NANO);
    bench.touch(conn, id);
    comes_exactly_after(&mut bench, conn, TIMEOUT, "a");
}

#[test]
fn touch_extends_up_to_the_cap_after_the_delivery() {
    let mut bench = bench_with(|options| options.max_msg_timeout = Duration::from_secs(150));
    let conn = bench.consumer("c", 1);
    bench.publish(["a"]);
    let id = bench.message(conn).id;
    for _ in 0..2 {
        bench.pass(Duration::from_secs(50));
        bench.touch(conn, id);
    }
    // 100 s after the delivery: a whole timeout would be 160 s after it.
    assert_eq!(bench.topic.deadline(), Some(bench.now() + Duration::from_secs(10)).min(bench.topic.deadline()));
    comes_exactly_after(&mut bench, conn, Duration::from_secs(50), "a");
    assert_eq!(bench.channel("c").timeout_count, 1);
}

#[test]
fn touch_of_one_message_leaves_the_others_their_deadlines() {
    let mut bench = bench();
    let conn = bench.consumer("c", 3);
    bench.publish(["a", "b", "c"]);
    let got = bench.messages(conn);
    bench.pass(Duration::from_secs(10));
    bench.touch(conn, got[0].id);
    bench.pass(Duration::from_secs(50));
    assert_eq!(bench.messages(conn).iter().map(text).collect::<Vec<_>>(), ["b", "c"]);
    bench.pass(Duration::from_secs(10));
    assert_eq!(bench.bodies(conn), ["a"]);
}

#[test]
fn a_cap_shorter_than_the_timeout_ends_a_touched_message_at_once() {
    let mut bench = bench_with(|options| options.max_msg_timeout = Duration::from_secs(10));
    let conn = bench.consumer("c", 1);
    bench.publish(["a"]);
    let id = bench.message(conn).id;
    bench.pass(Duration::from_secs(20));
    assert_eq!(bench.channel("c").timeout_count, 0, "only TOUCH knows the cap");
    bench.touch(conn, id);
    assert_eq!(bench.message(conn).attempts, 2);
}

#[test]
fn a_requeue_with_a_delay_comes_exactly_then() {
    let mut bench = bench();
    let conn = bench.consumer("c", 1);
    bench.publish(["a"]);
    let id = bench.message(conn).id;
    bench.requeue(conn, id, ms(700));
    let stats = bench.channel("c");
    assert_eq!((stats.deferred_count, stats.depth, stats.requeue_count), (1, 0, 1));
    comes_exactly_after(&mut bench, conn, ms(700), "a");
}

#[test]
fn a_consumer_with_a_deferred_requeue_has_its_credit_back() {
    let mut bench = bench();
    let conn = bench.consumer("c", 1);
    bench.publish(["a", "b"]);
    let id = bench.message(conn).id;
    bench.requeue(conn, id, ms(700));
    assert_eq!(bench.bodies(conn), ["b"]);
}

#[test]
fn a_deferred_publish_comes_exactly_then() {
    let mut bench = bench();
    let consumers = ["x", "y"].map(|channel| bench.consumer(channel, 1));
    bench.publish_deferred("a", ms(700));
    assert_eq!((bench.channel("x").deferred_count, bench.channel("x").message_count), (1, 1));
    bench.pass(ms(700) - NANO);
    assert_eq!(consumers.map(|conn| bench.bodies(conn)), [NOTHING; 2]);
    bench.pass(NANO);
    assert_eq!(consumers.map(|conn| bench.bodies(conn)), [["a"]; 2]);
}

#[test]
fn deferred_messages_come_in_the_order_of_their_time() {
    let mut bench = bench();
    let conn = bench.consumer("c", 100);
    for millis in [30, 10, 20, 10] {
        bench.publish_deferred(&format!("{millis}"), ms(millis));
    }
    bench.publish(["now"]);
    bench.pass(ms(30));
    assert_eq!(bench.bodies(conn), ["now", "10", "10", "20", "30"]);
}

#[test]
fn the_clock_of_a_deferred_publish_runs_without_a_channel() {
    let mut bench = bench();
    bench.publish_deferred("a", ms(700));
    assert_eq!(bench.topic.deadline(), None, "there is nobody to hand it to");
    bench.pass(ms(300));
    let conn = bench.consumer("c", 1);
    comes_exactly_after(&mut bench, conn, ms(400), "a");
}

#[test]
fn the_clock_of_a_deferred_publish_runs_in_a_paused_topic() {
    let mut bench = bench();
    let conn = bench.consumer("c", 1);
    bench.pause(Admin::PauseTopic(true));
    bench.publish_deferred("a", ms(700));
    bench.pass(ms(900));
    assert_eq!(bench.bodies(conn), NOTHING);
    bench.pause(Admin::PauseTopic(false));
    assert_eq!(bench.bodies(conn), ["a"]);
}

#[test]
fn a_consumer_that_vanished_leaves_its_messages_to_their_timeouts() {
    let mut bench = bench();
    let (gone, other) = (bench.consumer("c", 2), bench.consumer("c", 0));
    bench.publish(["a", "b"]);
    assert_eq!(bench.bodies(gone), ["a", "b"]);
    bench.pass(ms(1000));
    bench.leave(gone);
    bench.ready(other, 10);
    assert_eq!((bench.channel("c").client_count, bench.channel("c").in_flight_count), (1, 2));
    bench.pass(TIMEOUT - ms(1000) - NANO);
    assert_eq!(bench.bodies(other), NOTHING);
    bench.pass(NANO);
    assert_eq!(bench.bodies(other), ["a", "b"]);
}

#[test]
fn nothing_is_handed_to_a_consumer_that_vanished() {
    let mut bench = bench();
    let gone = bench.consumer("c", 2);
    bench.leave(gone);
    bench.publish(["a"]);
    assert_eq!(bench.bodies(gone), NOTHING);
    assert_eq!(bench.channel("c").depth, 1);
    bench.leave(gone);
}

#[test]
fn a_burst_of_timeouts_is_spread_over_turns_and_completes() {
    let mut bench = bench();
    let conn = bench.consumer("c", 2000);
    bench.publish((0..2000).map(|n| format!("{n}")));
    assert_eq!(bench.messages(conn).len(), 2000);
    bench.ready(conn, 0);
    bench.sleep(TIMEOUT);
    bench.turn(&mut VecDeque::new());
    let after_one = bench.channel("c").timeout_count;
    assert!((200..400).contains(&after_one), "a turn is bounded, but does something: {after_one}");
    bench.settle();
    assert_eq!(bench.channel("c").timeout_count, 2000);
    bench.ready(conn, 2000);
    let bodies: BTreeSet<_> = bench.bodies(conn).into_iter().collect();
    assert_eq!(bodies.len(), 2000);
}

#[test]
fn a_burst_of_deferred_messages_is_spread_over_turns_and_completes() {
    let mut bench = bench();
    let consumers = ["x", "y"].map(|channel| bench.consumer(channel, 2000));
    let bodies = many((0..1000).map(|n| format!("{n}")));
    bench.publish_at_once(bodies, ms(10)).expect("taken");
    bench.sleep(ms(10));
    let before = bench.turns;
    bench.settle();
    assert!(bench.turns - before >= 7, "2,000 timers in {} turns", bench.turns - before);
    assert_eq!(consumers.map(|conn| bench.messages(conn).len()), [1000; 2]);
}

#[test]
fn a_timeout_of_no_time_at_all_does_not_stop_the_topic() {
    let mut bench = bench();
    let conn = bench.consumer_with("c", 1, |consumer| consumer.msg_timeout = Duration::ZERO);
    bench.publish(["a", "b"]);
    let got = bench.messages(conn);
    bench.finish(conn, got.last().expect("one").id);
    assert_eq!(bench.channel("c").finish_count, 1);
}

#[test]
fn early_ticks_change_nothing() {
    let mut bench = bench();
    let conn = bench.consumer("c", 1);
    bench.publish(["a", "b"]);
    bench.publish_deferred("c", ms(700));
    bench.messages(conn);
    let before = format!("{:?}", bench.topic);
    bench.turn(&mut VecDeque::new());
    bench.sleep(ms(700) - NANO);
    bench.turn(&mut VecDeque::new());
    assert_eq!(format!("{:?}", bench.topic), before);
}
