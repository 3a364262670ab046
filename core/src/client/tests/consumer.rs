//! A consumer's promises, one sentence each.

use super::model::{MSG_TIMEOUT, World, ms, options};
use crate::client::consumer::{Answer, Input, Options};
use crate::client::sharing::TURN;
use crate::client::{BackoffLimits, Notice};
use crate::time::{Duration, Instant};
use alloc::vec::Vec;

const FAILED: Answer = Answer::Requeue { delay: Some(Duration::ZERO), failed: true };

fn backoff(first: u64) -> Options {
    Options { backoff: BackoffLimits { first: ms(first), most: ms(first * 64) }, ..options(10) }
}

/// The longest that each nsqd waited for a message of its own to be handed out.
fn longest_waits(world: &World, start: Instant) -> Vec<Duration> {
    let of = |nsqd| {
        let times = world.log.iter().filter(move |(at, from)| *from == nsqd && *at >= start).map(|(at, _)| *at);
        let times: Vec<_> = [start].into_iter().chain(times).chain([world.now]).collect();
        times.windows(2).map(|pair| pair[1].since(pair[0])).max().unwrap()
    };
    (0..world.nsqds.len()).map(of).collect()
}

#[test]
fn credit_is_shared_and_used_up() {
    let mut world = World::new(4, options(10));
    world.pass(ms(1000));
    (0..4).for_each(|nsqd| world.publish(nsqd, 100));
    world.pass(ms(1000));
    assert_eq!(world.hands.len(), 10, "all of the credit is in use");
    let from: Vec<_> = (0..4).map(|nsqd| world.log.iter().filter(|(_, from)| *from == nsqd).count()).collect();
    assert!(from.iter().all(|count| *count >= 2), "{from:?}");
}

#[test]
fn connections_take_turns_when_they_outnumber_the_credit() {
    for (nsqds, max_in_flight, handling) in [(20, 1, 5), (20, 7, 50), (3, 2, 0), (5, 4, 3000)] {
        let mut world = World::new(nsqds, options(max_in_flight));
        (0..nsqds).for_each(|nsqd| world.publish(nsqd, 100_000));
        world.pass(ms(1000));
        let start = world.now;
        while world.now.since(start) < ms(120_000) {
            world.pass(ms(handling));
            (0..world.hands.len()).for_each(|_| world.answer(Answer::Finish));
            if world.hands.is_empty() {
                world.pass_until(ms(1000), |world| !world.hands.is_empty());
            }
        }
        let turns = nsqds.div_ceil(max_in_flight as usize) as u32;
        let bound = (TURN + ms(200) + ms(handling) * 2) * turns;
        let waits = longest_waits(&world, start);
        assert!(waits.iter().all(|wait| *wait <= bound), "{nsqds}/{max_in_flight}: {waits:?} > {bound:?}");
    }
}

#[test]
fn a_lone_message_is_found_among_idle_connections() {
    for (nsqds, max_in_flight) in [(20, 1), (5, 4), (9, 4), (3, 2)] {
        let mut world = World::new(nsqds, options(max_in_flight));
        for (index, nsqd) in world.nsqds.iter_mut().enumerate() {
            nsqd.latency = ms(7 * index as u64 % 50);
        }
        world.pass(ms(10_000));
        for nsqd in (0..nsqds).chain((0..nsqds).rev()) {
            world.publish(nsqd, 1);
            // For each round of turns, the turn of an idle connection and until its RDY has settled.
            let bound = ms(300) * 2 * (nsqds.div_ceil(max_in_flight as usize) + 1) as u32;
            let found = world.pass_until(bound, |world| !world.hands.is_empty());
            assert!(found, "nsqd {nsqd} of {nsqds}: {:?}", world.machine);
            world.answer(Answer::Finish);
            world.pass(ms(37));
        }
    }
}

#[test]
fn all_credit_can_go_to_the_one_connection_that_has_messages() {
    let mut world = World::new(5, options(2));
    world.publish(3, 10);
    for _ in 0..5 {
        assert!(world.pass_until(ms(4000), |world| world.hands.len() == 2), "{:?}", world.machine);
        (0..2).for_each(|_| world.answer(Answer::Finish));
    }
}

#[test]
fn idle_connections_give_their_credit_away() {
    let mut world = World::new(5, options(100));
    world.pass(ms(1000));
    world.publish(2, 100_000);
    let mut most = 0;
    for _ in 0..100 {
        world.pass(ms(100));
        most = most.max(world.hands.len());
        (0..world.hands.len()).for_each(|_| world.answer(Answer::Finish));
    }
    // The four idle ones keep one each.
    assert_eq!(most, 96);
}

#[test]
fn whoever_needs_credit_again_gets_it() {
    let mut world = World::new(2, options(100));
    world.publish(0, 100_000);
    assert!(!world.finish_all_for(ms(200), |_| false));
    world.pass(ms(4000));
    (0..world.hands.len()).for_each(|_| world.answer(Answer::Finish));
    world.pass(ms(2500));
    world.publish(1, 100_000);
    for _ in 0..40 {
        (0..world.hands.len()).for_each(|_| world.answer(Answer::Finish));
        world.pass(ms(50));
    }
    let rates = [0, 1].map(|nsqd| world.log.iter().rev().take(500).filter(|(_, from)| *from == nsqd).count());
    assert!(rates[1] >= 200, "{rates:?}");
}

#[test]
fn a_failure_stops_everything_and_a_probe_brings_it_back() {
    let mut world = World::new(3, backoff(1000));
    (0..3).for_each(|nsqd| world.publish(nsqd, 100));
    world.pass(ms(500));
    world.answer(FAILED);
    let pause = |world: &World| world.notices.iter().filter(|notice| matches!(notice, Notice::Backoff { .. })).count();
    assert_eq!(pause(&world), 1);
    // Failures of what was asked for before do not count again.
    (0..world.hands.len()).for_each(|_| world.answer(FAILED));
    assert_eq!(pause(&world), 1);
    world.pass(ms(990));
    assert!(world.hands.is_empty(), "nothing comes during the pause");
    assert!(world.pass_until(ms(1000), |world| !world.hands.is_empty()));
    world.pass(ms(5));
    assert_eq!(world.hands.len(), 1, "a probe is one message");
    world.answer(Answer::Finish);
    assert!(world.notices.contains(&Notice::BackoffEnded));
    world.pass(ms(1000));
    assert_eq!(world.hands.len(), 10);
}

#[test]
fn a_requeue_is_a_failure_unless_it_says_otherwise() {
    let mut world = World::new(1, backoff(1000));
    world.publish(0, 100);
    world.pass(ms(500));
    world.answer(Answer::Requeue { delay: None, failed: false });
    world.pass(ms(10));
    assert!(!world.notices.iter().any(|notice| matches!(notice, Notice::Backoff { .. })));
    // A failed probe makes the next pause longer, and is no success.
    for expected in [1000, 2000, 4000] {
        world.answer(FAILED);
        assert_eq!(world.notices.last(), Some(&Notice::Backoff { pause: ms(expected) }));
        world.pass(ms(10));
        (0..world.hands.len()).for_each(|_| world.answer(Answer::Finish));
        world.notices.clear();
        assert!(world.pass_until(ms(expected + 1000), |world| !world.hands.is_empty()));
    }
}

#[test]
fn a_probe_survives_whatever_happens_to_it() {
    // Its connection is lost.
    let mut world = World::new(2, backoff(1000));
    (0..2).for_each(|nsqd| world.publish(nsqd, 5));
    world.pass(ms(500));
    world.answer(FAILED);
    (0..world.hands.len()).for_each(|_| world.answer(Answer::Finish));
    assert!(world.pass_until(ms(2000), |world| !world.hands.is_empty()));
    world.disconnect(world.log.last().unwrap().1);
    world.hands.clear();
    assert!(world.finish_all_for(ms(60_000), |world| world.finished() == 10), "{:?}", world.machine);
    // No message comes for a long time.
    let mut world = World::new(3, backoff(1000));
    world.publish(0, 1);
    world.pass(ms(500));
    world.answer(Answer::Requeue { delay: Some(ms(7_200_000)), failed: true });
    world.pass(ms(3_600_000));
    world.publish(2, 10);
    assert!(world.finish_all_for(ms(2000), |world| world.finished() == 10), "{:?}", world.machine);
    // It times out.
    let mut world = World::new(1, backoff(1000));
    world.publish(0, 1);
    world.pass(ms(500));
    world.answer(FAILED);
    assert!(world.pass_until(ms(2000), |world| !world.hands.is_empty()));
    world.hands.clear();
    world.pass(MSG_TIMEOUT + ms(10));
    assert_eq!(world.notices.last(), Some(&Notice::Backoff { pause: ms(2000) }));
    assert!(world.finish_all_for(ms(60_000), |world| world.finished() == 1));
}

#[test]
fn a_message_is_given_up_after_its_last_attempt() {
    let mut world = World::new(1, Options { max_attempts: 3, backoff: backoff(0).backoff, ..options(10) });
    world.publish(0, 1);
    for attempts in 1..=3 {
        assert!(world.pass_until(ms(1000), |world| !world.hands.is_empty()));
        assert_eq!(world.hands[0].message.attempts, attempts);
        world.answer(FAILED);
    }
    assert!(world.pass_until(ms(1000), |world| !world.given_up.is_empty()));
    assert!(world.hands.is_empty());
    let given_up = world.given_up.remove(0);
    assert!(matches!(world.notices.last(), Some(Notice::GaveUp { attempts: 4, .. })));
    world.answer_to(&given_up, Answer::Finish);
    world.pass(ms(10));
    assert_eq!((world.finished(), world.machine.in_flight()), (1, 0));
}

#[test]
fn a_requeued_message_waits_longer_each_time() {
    let mut world = World::new(1, Options { backoff: backoff(0).backoff, ..options(1) });
    world.publish(0, 1);
    world.pass(ms(100));
    for minutes in [1.5, 3.0, 4.5] {
        world.answer(Answer::Requeue { delay: None, failed: true });
        let delay = Duration::from_secs_f64(minutes * 60.0);
        assert!(!world.pass_until(delay, |world| !world.hands.is_empty()), "{minutes}");
        assert!(world.pass_until(ms(10), |world| !world.hands.is_empty()), "{minutes}");
    }
    for _ in 0..20 {
        world.answer(Answer::Requeue { delay: None, failed: true });
        assert!(world.pass_until(ms(15 * 60 * 1000 + 10), |world| !world.hands.is_empty()));
    }
}

#[test]
fn absurd_delays_are_long_ones() {
    let requeue_delay = Duration::MAX;
    let mut world = World::new(1, Options { requeue_delay, max_requeue_delay: Duration::MAX, ..options(2) });
    world.publish(0, 2);
    world.pass(ms(100));
    let longest = ms(u64::from(u32::MAX));
    for delay in [None, Some(Duration::MAX)] {
        world.answer(Answer::Requeue { delay, failed: false });
        assert_eq!(world.requeued.last(), Some(&longest));
    }
}

#[test]
fn a_flood_ends_its_connection() {
    for stopping in [false, true] {
        let mut world = World::new(2, options(5));
        world.pass(ms(100));
        if stopping {
            // It waits for the answer to this one.
            world.publish(1, 1);
            world.pass(ms(100));
            world.input(Input::Stop);
        }
        let sent = world.flood(0, 1000);
        assert!((10..20).contains(&sent), "{sent}");
        let ended = |notice: &Notice| matches!(notice, Notice::Disconnected { nsqd, reason, .. } if nsqd == "0" && reason.contains("RDY"));
        assert!(world.notices.iter().any(ended), "{:?}", world.notices);
    }
}

#[test]
fn a_touched_message_stays() {
    let mut world = World::new(1, options(1));
    world.publish(0, 2);
    world.pass(ms(100));
    for _ in 0..5 {
        world.pass(MSG_TIMEOUT - ms(100));
        let delivery = world.hands[0].clone();
        world.answer_to(&delivery, Answer::Touch);
    }
    assert_eq!((world.hands.len(), world.machine.in_flight()), (1, 1));
    world.answer(Answer::Finish);
    world.pass(ms(100));
    assert_eq!((world.finished(), world.hands.len()), (1, 1));
}

#[test]
fn what_is_not_answered_comes_again_and_its_credit_too() {
    let mut world = World::new(1, options(1));
    world.publish(0, 1);
    world.pass(ms(100));
    world.hands.clear();
    world.pass(MSG_TIMEOUT + ms(10));
    assert!(world.notices.iter().any(|notice| matches!(notice, Notice::TimedOut { .. })));
    assert!(world.finish_all_for(ms(60_000), |world| world.finished() == 1));
}

#[test]
fn a_message_whose_connection_is_lost_still_counts() {
    let mut world = World::new(2, options(1));
    world.publish(0, 1);
    world.pass_until(ms(5000), |world| !world.hands.is_empty());
    world.disconnect(0);
    world.publish(1, 1);
    world.pass(ms(1000));
    assert_eq!(world.hands.len(), 1, "the application has its one message");
    world.answer(Answer::Finish);
    assert!(matches!(world.notices.last(), Some(Notice::AnswerLost { .. })), "{:?}", world.notices);
    assert!(world.pass_until(ms(2000), |world| !world.hands.is_empty()));
}

#[test]
fn an_end_in_order_waits_for_answers() {
    let mut world = World::new(3, options(10));
    (0..3).for_each(|nsqd| world.publish(nsqd, 100));
    world.pass(ms(1000));
    world.input(Input::Stop);
    world.pass(ms(3000));
    assert!(!world.stopped);
    assert_eq!(world.hands.len(), 10, "nothing more comes");
    (0..10).for_each(|_| world.answer(Answer::Finish));
    assert!(world.stopped);
    world.pass(ms(10));
    assert_eq!(world.finished(), 10, "answers leave before connections do");
}

#[test]
fn an_end_does_not_wait_for_ever() {
    let mut world = World::new(1, Options { stop_timeout: ms(2000), ..options(10) });
    world.publish(0, 5);
    world.pass(ms(1000));
    world.input(Input::Stop);
    assert!(!world.pass_until(ms(1999), |world| world.stopped));
    assert!(world.pass_until(ms(2), |world| world.stopped));
    let mut unconnected = World::new(0, options(1));
    unconnected.input(Input::Stop);
    assert!(unconnected.stopped, "there is nothing to wait for");
}

#[test]
fn an_idle_consumer_does_nothing_but_ask() {
    let mut world = World::new(3, options(10));
    world.pass(ms(30_000));
    let due = world.machine.deadline().unwrap();
    assert!(due.since(world.now) > ms(20_000), "{:?}", due.since(world.now));
}
