//! Bounded turns: large publishes and long backlogs are done in slices, and where they are cut is invisible.

use super::sentences::*;
use crate::message::Bodies;
use crate::time::Duration;
use crate::topic::Handled;
use crate::topic::io::{Admin, Input, Slot, ToConn};
use crate::topic::{BYTES_A_TURN, INPUTS_A_TURN};
use alloc::collections::VecDeque;
use alloc::format;
use alloc::vec::Vec;

#[test]
fn a_large_mpub_is_sliced_and_answered_after_the_last_slice() {
    let mut bench = bench();
    let conn = bench.consumer("c", 2500);
    let (from, slot) = (bench.connect(), Slot(5));
    let bodies = many((0..1000).map(|_| [b'x'; 1024]));
    let mut batch: VecDeque<_> = [Input::Publish { from, slot, bodies, defer: Duration::ZERO }].into();
    let mut turns = 0;
    while bench.turn(&mut batch) == Handled::Some {
        turns += 1;
        let delivered = bench.channel("c").in_flight_count;
        assert!(delivered <= (turns + 1) * 256, "{delivered} after {turns} turns");
        assert_eq!(bench.streams.get(&from), None, "no answer before the last slice");
    }
    assert!(turns >= 3, "{turns}");
    bench.settle();
    assert_eq!(bench.reply(from, slot), Ok(()));
    assert_eq!(bench.messages(conn).len(), 1000);
}

#[test]
fn tiny_messages_count_for_more_than_their_bodies() {
    let mut bench = bench();
    let bodies = many((0..50_000).map(|_| b"x"));
    let (from, slot) = (bench.connect(), Slot(5));
    let mut batch: VecDeque<_> = [Input::Publish { from, slot, bodies, defer: Duration::ZERO }].into();
    assert_eq!(bench.turn(&mut batch), Handled::Some);
    assert!(bench.topic.stats(None, false).message_count < 10_000);
}

#[test]
fn a_long_batch_is_cut() {
    let mut bench = bench();
    let from = bench.connect();
    let publish =
        |slot| Input::Publish { from, slot: Slot(slot), bodies: Bodies::one("x".into()), defer: Duration::ZERO };
    let mut batch: VecDeque<_> = (0..1000).map(publish).collect();
    assert_eq!(bench.turn(&mut batch), Handled::Some);
    assert_eq!(batch.len(), 1000 - INPUTS_A_TURN);
    assert_eq!(bench.handle(batch), Handled::All);
    let replies = (0..1000).map(|slot| ToConn::Reply { slot: Slot(slot), result: Ok(()) });
    assert_eq!(bench.events(from), replies.collect::<Vec<_>>());
}

#[test]
fn a_long_backlog_is_handed_out_in_slices() {
    let mut bench = bench();
    bench.publish((0..2000).map(|_| [b'x'; 1000]));
    let conn = bench.consumer("c", 0);
    let mut batch: VecDeque<_> = [Input::Ready { conn, count: 2500 }].into();
    assert_eq!(bench.turn(&mut batch), Handled::All);
    let first = bench.messages(conn).iter().map(|message| message.bytes).sum::<usize>();
    assert!((BYTES_A_TURN..BYTES_A_TURN + 2000).contains(&first), "{first}");
    assert_eq!(bench.topic.deadline(), Some(bench.now()), "it wants to go on");
    bench.settle();
    assert_eq!(bench.messages(conn).len(), 2000 - first / 1034);
}

#[test]
fn what_was_cut_is_done_before_the_next_input() {
    let mut bench = bench();
    bench.publish((0..2000).map(|_| [b'x'; 1000]));
    let (early, late) = (bench.consumer("c", 0), bench.consumer("c", 0));
    // However the two RDYs are batched, the first consumer's is fulfilled before the second one's counts.
    bench.give([Input::Ready { conn: early, count: 2000 }, Input::Ready { conn: late, count: 2000 }]);
    assert_eq!((bench.messages(early).len(), bench.messages(late).len()), (2000, 0));
}

#[test]
fn where_a_turn_ends_does_not_change_whose_turn_it_is() {
    let mut bench = bench();
    bench.publish((0..1000).map(|n| format!("{n:01000}")));
    let consumers = [1, 2, 3].map(|_| bench.consumer("c", 0));
    bench.pause(Admin::PauseChannel(channel("c"), true));
    consumers.iter().for_each(|&conn| bench.ready(conn, 2500));
    bench.pause(Admin::PauseChannel(channel("c"), false));
    for (n, conn) in consumers.into_iter().enumerate() {
        let numbers = bench.bodies(conn).into_iter().map(|body| body.parse::<usize>().expect("a number"));
        assert!(numbers.eq((n..1000).step_by(3)), "consumer {n} gets every third");
    }
}

#[test]
fn timeouts_that_were_cut_come_before_the_next_input() {
    let mut bench = bench();
    let conn = bench.consumer("c", 1000);
    bench.publish((0..1000).map(|n| format!("{n}")));
    let last = bench.messages(conn).pop().expect("messages").id;
    bench.ready(conn, 0);
    bench.sleep(TIMEOUT);
    bench.finish(conn, last);
    assert_eq!(bench.failure(conn), crate::topic::io::Refusal::NotInFlight);
    assert_eq!(bench.channel("c").timeout_count, 1000);
}

#[test]
fn sampling_drops_a_bounded_number_in_a_turn() {
    let mut bench = bench();
    bench.publish((0..5000).map(|n| format!("{n}")));
    let conn = bench.consumer_with("c", 0, |consumer| consumer.sample_rate = 1);
    bench.turn(&mut [Input::Ready { conn, count: 2500 }].into());
    let dropped = bench.channel("c").dropped_count;
    assert!((200..300).contains(&dropped), "{dropped} in one turn");
    bench.settle();
    assert_eq!(bench.channel("c").depth, 0);
}

#[test]
fn effects_of_another_buffer_are_not_mixed_up() {
    let mut bench = bench();
    let (one, two) = (bench.consumer("c", 10), bench.consumer("d", 10));
    for body in ["a", "b", "c"] {
        // Each call has a new buffer, as if different threads called.
        bench.new_buffer();
        let from = bench.connect();
        let bodies = Bodies::one(body.into());
        bench.give([Input::Publish { from, slot: Slot(1), bodies, defer: Duration::ZERO }]);
        bench.new_buffer();
        let got = bench.message(two);
        bench.finish(two, got.id);
    }
    assert_eq!(bench.bodies(one), ["a", "b", "c"]);
}
