//! Who gets which message: fan-out, competing consumers, RDY, room in the outbox, FIN and REQ and their errors.

use super::bench::Seen;
use super::sentences::*;
use crate::time::Duration;
use crate::topic::io::{Consumer, Input, Refusal, Slot, ToConn, Verb};
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

const NOTHING: [&str; 0] = [];

#[test]
fn the_first_channel_gets_the_backlog() {
    let mut bench = bench();
    bench.publish(["a", "b"]);
    let first = bench.consumer("first", 10);
    let second = bench.consumer("second", 10);
    assert_eq!(bench.bodies(first), ["a", "b"]);
    assert_eq!(bench.bodies(second), NOTHING);
    bench.publish(["c"]);
    assert_eq!(bench.bodies(first), ["c"]);
    assert_eq!(bench.bodies(second), ["c"]);
}

#[test]
fn channels_share_a_message_with_its_id_and_time() {
    let mut bench = bench();
    let consumers = ["x", "y", "z"].map(|channel| bench.consumer(channel, 1));
    bench.publish(["a"]);
    let copies = consumers.map(|conn| bench.message(conn));
    assert!(copies.iter().all(|copy| *copy == copies[0] && copy.attempts == 1));
    bench.finish(consumers[0], copies[0].id);
    assert_eq!(bench.channel("x").finish_count, 1);
    assert_eq!(bench.channel("y").in_flight_count, 1);
}

#[test]
fn a_frame_has_the_time_the_attempts_the_id_and_the_body() {
    let mut bench = bench();
    let conn = bench.consumer("c", 1);
    bench.sleep(ms(5));
    bench.publish(["the body"]);
    let message = bench.message(conn);
    assert_eq!(message.published.as_nanos(), 1_800_000_000_005_000_000);
    assert_eq!((message.attempts, message.body.as_slice()), (1, &b"the body"[..]));
    let tick = (message.published.as_nanos() >> 20) - 1_288_834_974_288;
    assert_eq!(format!("{}", message.id), format!("{:016x}", tick << 22));
}

#[test]
fn without_rdy_nothing_comes() {
    let mut bench = bench();
    let conn = bench.consumer("c", 0);
    bench.publish(["a"]);
    assert_eq!(bench.bodies(conn), NOTHING);
    assert_eq!(bench.channel("c").depth, 1);
}

#[test]
fn rdy_is_the_most_that_is_in_flight() {
    let mut bench = bench();
    let conn = bench.consumer("c", 2);
    bench.publish(["a", "b", "c", "d"]);
    let got = bench.messages(conn);
    assert_eq!(got.len(), 2);
    bench.finish(conn, got[0].id);
    assert_eq!(bench.bodies(conn), ["c"]);
    bench.requeue(conn, got[1].id, Duration::ZERO);
    assert_eq!(bench.bodies(conn), ["d"]);
    assert_eq!(bench.client("c", conn).in_flight_count, 2);
}

#[test]
fn rdy_below_what_is_in_flight_stops_delivery() {
    let mut bench = bench();
    let conn = bench.consumer("c", 3);
    bench.publish(["a", "b", "c", "d", "e"]);
    let got = bench.messages(conn);
    bench.ready(conn, 1);
    bench.finish(conn, got[0].id);
    bench.finish(conn, got[1].id);
    assert_eq!(bench.bodies(conn), NOTHING, "one is still in flight, and RDY is 1");
    bench.finish(conn, got[2].id);
    assert_eq!(bench.bodies(conn), ["d"]);
}

#[test]
fn rdy_again_with_the_same_number_hands_out_nothing_more() {
    let mut bench = bench();
    let conn = bench.consumer("c", 2);
    bench.publish(["a", "b", "c"]);
    bench.ready(conn, 2);
    assert_eq!(bench.bodies(conn), ["a", "b"]);
}

#[test]
fn competing_consumers_take_turns() {
    let mut bench = bench();
    let consumers = [1, 2, 3].map(|_| bench.consumer("c", 100));
    bench.publish((0..9).map(|n| format!("{n}")));
    assert_eq!(consumers.map(|conn| bench.bodies(conn)), [["0", "3", "6"], ["1", "4", "7"], ["2", "5", "8"]]);
}

#[test]
fn a_slow_consumer_does_not_hold_up_a_fast_one() {
    let mut bench = bench();
    let (slow, fast) = (bench.consumer("c", 1), bench.consumer("c", 1));
    bench.publish((0..10).map(|n| format!("{n}")));
    assert_eq!(bench.bodies(slow).len(), 1);
    assert_eq!(bench.drain(fast).len(), 9);
}

#[test]
fn finishing_twice_fails() {
    let mut bench = bench();
    let conn = bench.consumer("c", 1);
    bench.publish(["a"]);
    let id = bench.message(conn).id;
    bench.finish(conn, id);
    let after = Slot(17);
    bench.give([Input::Finish { conn, id, after }]);
    bench.give([Input::Requeue { conn, id, delay: ms(1), after }]);
    bench.give([Input::Touch { conn, id, after }]);
    let failed = |verb| ToConn::Failed { after, verb, id, why: Refusal::NotInFlight };
    assert_eq!(bench.events(conn), [Verb::Fin, Verb::Req, Verb::Touch].map(failed));
}

#[test]
fn only_the_owner_can_finish_requeue_or_touch() {
    let mut bench = bench();
    let (owner, other) = (bench.consumer("c", 1), bench.consumer("c", 0));
    bench.publish(["a"]);
    let id = bench.message(owner).id;
    bench.finish(other, id);
    assert_eq!(bench.failure(other), Refusal::NotOwner);
    bench.requeue(other, id, Duration::ZERO);
    assert_eq!(bench.failure(other), Refusal::NotOwner);
    bench.touch(other, id);
    assert_eq!(bench.failure(other), Refusal::NotOwner);
    bench.finish(owner, id);
    assert_eq!(bench.channel("c").finish_count, 1);
}

#[test]
fn a_message_in_flight_in_one_channel_is_not_in_flight_in_another() {
    let mut bench = bench();
    let (conn, stranger) = (bench.consumer("c", 1), bench.consumer("d", 0));
    bench.publish(["a"]);
    let id = bench.message(conn).id;
    bench.finish(stranger, id);
    assert_eq!(bench.failure(stranger), Refusal::NotInFlight);
}

#[test]
fn attempts_count_deliveries() {
    let mut bench = bench();
    let conn = bench.consumer("c", 1);
    bench.publish(["a"]);
    for attempts in 1..=5 {
        let message = bench.message(conn);
        assert_eq!(message.attempts, attempts);
        bench.requeue(conn, message.id, Duration::ZERO);
    }
    assert_eq!((bench.channel("c").requeue_count, bench.channel("c").timeout_count), (5, 0));
}

#[test]
fn attempts_stay_at_the_most_that_a_frame_can_say() {
    let mut bench = bench();
    let conn = bench.consumer("c", 1);
    bench.publish(["a"]);
    let id = bench.message(conn).id;
    for _ in 0..66_000 {
        bench.requeue(conn, id, Duration::ZERO);
    }
    assert_eq!(bench.messages(conn).pop().map(|message| message.attempts), Some(u16::MAX));
}

#[test]
fn what_is_requeued_goes_behind_what_is_fresh() {
    let mut bench = bench();
    let conn = bench.consumer("c", 1);
    bench.publish(["a", "b", "c"]);
    let first = bench.message(conn);
    bench.requeue(conn, first.id, Duration::ZERO);
    // Published after the requeue, so behind it.
    bench.publish(["d"]);
    assert_eq!(bench.drain(conn), ["b", "c", "a", "d"]);
}

#[test]
fn what_is_requeued_waits_for_ten_thousand_messages_at_most() {
    let mut bench = bench();
    let conn = bench.consumer("c", 1);
    bench.publish_at_once(many((0..15_000).map(|n| format!("{n}"))), Duration::ZERO).expect("taken");
    let first = bench.message(conn);
    bench.requeue(conn, first.id, Duration::ZERO);
    let order = bench.drain(conn);
    assert_eq!(order.iter().position(|body| body == "0"), Some(10_000));
    assert_eq!(order.len(), 15_000);
}

#[test]
fn a_poison_message_does_not_starve_the_others() {
    let mut bench = bench();
    let conn = bench.consumer("c", 1);
    bench.publish((0..50).map(|n| format!("{n}")));
    let mut seen = BTreeMap::<String, usize>::new();
    for round in 0.. {
        assert!(round < 200, "everything else is finished by now");
        let message = bench.message(conn);
        *seen.entry(text(&message)).or_default() += 1;
        match text(&message).as_str() {
            "0" => bench.requeue(conn, message.id, Duration::ZERO),
            _ => bench.finish(conn, message.id),
        }
        if bench.channel("c").finish_count == 49 {
            break;
        }
    }
    assert_eq!(seen.remove("0"), Some(1), "49 others were fresh when it was put back");
    assert!(seen.values().all(|&times| times == 1));
}

#[test]
fn nothing_is_handed_out_beyond_the_outbox() {
    let mut bench = bench();
    let conn = bench.consumer_with("c", 100, |consumer| consumer.outbox_limit = 100);
    bench.publish(["x".repeat(26), "y".repeat(26), "z".repeat(26)]);
    // Frames of 60 bytes: the first leaves room, the second is let in whole and fills it.
    let got = bench.messages(conn);
    assert_eq!(got.iter().map(|message| message.bytes).collect::<Vec<_>>(), [60, 60]);
    bench.give([Input::Room { conn, bytes: 20 }]);
    assert_eq!(bench.bodies(conn), NOTHING, "100 bytes are in it");
    bench.give([Input::Room { conn, bytes: 1 }]);
    assert_eq!(bench.message(conn).body, [b'z'; 26]);
}

#[test]
fn a_full_outbox_leaves_messages_to_others() {
    let mut bench = bench();
    let full = bench.consumer_with("c", 100, |consumer| consumer.outbox_limit = 1);
    let free = bench.consumer("c", 100);
    bench.publish(["a", "b", "c"]);
    assert_eq!(bench.bodies(full), ["a"]);
    assert_eq!(bench.bodies(free), ["b", "c"]);
}

#[test]
fn a_finish_does_not_make_room_in_the_outbox() {
    let mut bench = bench();
    let conn = bench.consumer_with("c", 100, |consumer| consumer.outbox_limit = 1);
    bench.publish(["a", "b"]);
    let message = bench.message(conn);
    bench.finish(conn, message.id);
    assert_eq!(bench.bodies(conn), NOTHING);
    bench.give([Input::Room { conn, bytes: message.bytes }]);
    assert_eq!(bench.bodies(conn), ["b"]);
}

#[test]
fn after_cls_nothing_new_comes_but_the_rest_can_be_finished() {
    let mut bench = bench();
    let conn = bench.consumer("c", 2);
    bench.publish(["a", "b", "c"]);
    let got = bench.messages(conn);
    let slot = bench.slot();
    bench.give([Input::Close { conn, slot }]);
    assert_eq!(bench.reply(conn, slot), Ok(()));
    bench.finish(conn, got[0].id);
    bench.requeue(conn, got[1].id, Duration::ZERO);
    assert_eq!(bench.bodies(conn), NOTHING);
    let stats = bench.channel("c");
    assert_eq!((stats.finish_count, stats.requeue_count, stats.depth), (1, 1, 2));
    assert_eq!((stats.client_count, stats.clients[0].closing, stats.clients[0].ready_count), (1, true, 0));
}

#[test]
fn cls_does_not_make_a_message_free_before_its_timeout() {
    let mut bench = bench();
    let (closing, other) = (bench.consumer("c", 1), bench.consumer("c", 0));
    bench.publish(["a"]);
    assert_eq!(bench.bodies(closing), ["a"]);
    let slot = bench.slot();
    bench.give([Input::Close { conn: closing, slot }]);
    bench.ready(other, 1);
    bench.pass(TIMEOUT - NANO);
    assert_eq!(bench.bodies(other), NOTHING);
    bench.pass(NANO);
    assert_eq!(bench.message(other).attempts, 2);
}

#[test]
fn a_consumer_too_many_is_refused() {
    let mut bench = bench_with(|options| options.max_channel_consumers = 2);
    let first = bench.consumer("c", 0);
    bench.consumer("c", 0);
    let (_, refused) = bench.subscribe("c", plain_consumer());
    let (topic, name) = (bench.topic.name().clone(), channel("c"));
    assert_eq!(refused, Err(Refusal::TooManyConsumers { topic, channel: name, limit: 2 }));
    bench.consumer("d", 0);
    bench.leave(first);
    let (_, allowed) = bench.subscribe("c", plain_consumer());
    assert_eq!(allowed, Ok(()));
}

#[test]
fn a_refused_consumer_does_not_create_the_channel() {
    let mut bench = bench_with(|options| options.max_channel_consumers = 1);
    bench.consumer("c", 0);
    let created = bench.notices.len();
    bench.subscribe("c", plain_consumer()).1.expect_err("refused");
    assert_eq!(bench.notices.len(), created);
}

#[test]
fn sampling_passes_about_its_percentage_and_counts_the_rest() {
    for rate in [1, 42, 99] {
        let mut bench = bench();
        let conn = bench.consumer_with("c", 20_000, |consumer| consumer.sample_rate = rate);
        bench.publish_at_once(many((0..10_000).map(|n| format!("{n}"))), Duration::ZERO).expect("taken");
        let got = bench.messages(conn).len();
        assert!(got.abs_diff(usize::from(rate) * 100) < 200, "{got} of 10,000 at {rate} %");
        let stats = bench.channel("c");
        assert_eq!((stats.in_flight_count, stats.depth), (got, 0));
        assert_eq!(stats.dropped_count, 10_000 - got as u64);
    }
}

#[test]
fn sampling_drops_only_what_the_sampling_consumer_takes() {
    let mut bench = bench();
    let all = bench.consumer("c", 1000);
    let sampling = |consumer: &mut Consumer| consumer.sample_rate = 1;
    let few = bench.consumer_with("c", 1000, sampling);
    bench.publish((0..1000).map(|n| format!("{n}")));
    let (all, few) = (bench.messages(all).len(), bench.messages(few).len());
    assert!(all >= 480, "they take turns, so it got about half: {all}");
    assert_eq!(all as u64 + few as u64 + bench.channel("c").dropped_count, 1000);
}

#[test]
fn events_keep_their_places_between_messages() {
    let mut bench = bench();
    let conn = bench.consumer("c", 1);
    let (one, two) = (bench.slot(), bench.slot());
    let publish = |slot, body: &'static str| Input::Publish {
        from: conn,
        slot,
        bodies: crate::message::Bodies::one(body.as_bytes().into()),
        defer: Duration::ZERO,
    };
    bench.give([publish(one, "a"), Input::Ready { conn, count: 2 }, publish(two, "b")]);
    let seen = bench.streams.remove(&conn).expect("something");
    let place = |wanted: &dyn Fn(&Seen) -> bool| seen.iter().position(wanted).expect("seen");
    let reply = |slot| place(&|seen| matches!(seen, Seen::Event(ToConn::Reply { slot: at, .. }) if *at == slot));
    let message = |body: &[u8]| place(&|seen| matches!(seen, Seen::Message(message) if message.body == body));
    assert!(reply(one) < message(b"b") && message(b"a") < reply(two), "{seen:?}");
    assert_eq!(seen.len(), 4);
}

#[test]
fn a_message_whose_id_is_in_flight_waits_for_that_one() {
    let mut bench = bench();
    let (first, second) = (bench.consumer("c", 1), bench.consumer("c", 0));
    bench.publish(["a"]);
    let message = bench.message(first);
    // As an imported backlog might hold it.
    bench.topic.repeat_ids();
    bench.publish(["b"]);
    bench.ready(second, 1);
    assert_eq!(bench.bodies(second), NOTHING);
    assert_eq!(bench.channel("c").deferred_count, 1);
    bench.finish(first, message.id);
    bench.ready(first, 0);
    bench.pass(TIMEOUT - NANO);
    assert_eq!(bench.bodies(second), NOTHING);
    bench.pass(NANO);
    let twin = bench.message(second);
    assert_eq!((twin.id, twin.attempts, text(&twin).as_str()), (message.id, 1, "b"));
}
