//! Who pays for which bytes: chunks freed when nobody needs them, the budget of the process, stragglers, idle topics.

use super::bench::{Bench, Delivery};
use super::sentences::*;
use crate::message::Bodies;
use crate::options::Options;
use crate::time::Duration;
use crate::topic::Topic;
use crate::topic::io::{Admin, ConnId, Input, Refusal, Slot};
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::vec::Vec;

const MIB: usize = 1 << 20;

fn bench_of(memory: usize) -> Bench {
    Bench::new("topic", Options::default(), memory, 1)
}

/// A body that starts with its number.
fn numbered(n: usize, size: usize) -> Vec<u8> {
    let mut body = format!("{n:08}").into_bytes();
    body.resize(size, b'.');
    body
}

fn number(body: &[u8]) -> usize {
    core::str::from_utf8(&body[..8]).expect("text").parse().expect("a number")
}

#[test]
fn what_everybody_finished_is_freed() {
    let mut bench = bench();
    let consumers = ["x", "y"].map(|channel| bench.consumer(channel, 50));
    bench.publish((0..1000).map(|n| numbered(n, 100)));
    assert!(bench.budget.used() >= 100_000);
    assert_eq!(bench.drain(consumers[0]).len(), 1000);
    assert!(bench.budget.used() >= 100_000, "the other channel needs it");
    assert_eq!(bench.drain(consumers[1]).len(), 1000);
    assert_eq!(bench.budget.used(), 0);
    assert_eq!(bench.topic.stats(None, false).memory, 0);
}

#[test]
fn memory_is_near_the_bodies() {
    let mut bench = bench();
    bench.publish((0..10_000).map(|n| numbered(n, 200)));
    let bodies = 10_000 * (200 + 42);
    assert!(bench.budget.used() < bodies + 256 * 1024, "{} for {bodies}", bench.budget.used());
}

#[test]
fn a_deferred_message_costs_a_queued_one_and_its_time() {
    let mut bench = bench();
    let conn = bench.consumer("x", 2500);
    let bodies = many((0..10_000).map(|n| numbered(n, 200)));
    bench.publish_at_once(bodies, Duration::from_secs(60)).expect("taken");
    let bodies = 10_000 * (200 + 42);
    assert!(bench.budget.used() < bodies + 256 * 1024, "{} for {bodies}", bench.budget.used());
    bench.pass(Duration::from_secs(60) - NANO);
    assert!(bench.messages(conn).is_empty());
    bench.pass(NANO);
    assert_eq!(bench.drain(conn).len(), 10_000);
}

#[test]
fn a_queue_that_only_grows_is_not_looked_through_for_stragglers() {
    let mut bench = bench();
    bench.publish((0..6 * MIB / 1000).map(|n| numbered(n, 1000)));
    assert!(bench.topic.log.bytes() > 5 * MIB);
    assert!(!bench.topic.log.wants_sweep(), "nothing has ended, for there is no channel");
}

#[test]
fn a_large_message_takes_a_chunk_of_its_size() {
    let mut bench = bench();
    bench.publish([numbered(1, MIB - 42)]);
    assert_eq!(bench.budget.used(), MIB);
    let mut bench = self::bench();
    bench.publish([numbered(1, 1024 - 42)]);
    assert_eq!(bench.budget.used(), 1024);
}

#[test]
fn a_deleted_channel_frees_what_only_it_needed() {
    let mut bench = bench();
    let conn = bench.consumer("c", 10);
    bench.consumer("slow", 0);
    bench.publish((0..1000).map(|n| numbered(n, 100)));
    bench.drain(conn);
    assert!(bench.budget.used() > 0);
    bench.admin(Admin::DeleteChannel(channel("slow"))).expect("deleted");
    assert_eq!(bench.budget.used(), 0);
}

#[test]
fn a_dropped_topic_gives_its_memory_back() {
    let mut bench = bench();
    bench.publish((0..1000).map(|n| numbered(n, 100)));
    let Bench { topic, budget, .. } = bench;
    assert!(budget.used() > 0);
    drop(topic);
    assert_eq!(budget.used(), 0);
}

#[test]
fn an_idle_topic_holds_nothing_after_a_burst() {
    let mut bench = bench();
    let conn = bench.consumer("c", 5000);
    bench.publish((0..5000).map(|n| numbered(n, 100)));
    for (n, message) in bench.messages(conn).into_iter().enumerate() {
        match n % 3 {
            0 => bench.finish(conn, message.id),
            1 => bench.requeue(conn, message.id, Duration::ZERO),
            _ => bench.requeue(conn, message.id, ms(10)),
        }
    }
    bench.pass(ms(10));
    bench.drain(conn);
    bench.pause(Admin::PauseTopic(true));
    let bodies = many((0..1000).map(|n| numbered(n, 100)));
    bench.publish_at_once(bodies, ms(10)).expect("taken");
    bench.pause(Admin::PauseTopic(false));
    bench.pass(ms(10));
    bench.drain(conn);
    bench.pass(TIMEOUT);
    assert_eq!(bench.topic.deadline(), None);
    assert_eq!(bench.budget.used(), 0);
    assert!(bench.topic.footprint().largest() <= 16, "{:?}", bench.topic.footprint());
}

#[test]
fn consumers_that_come_and_go_leave_nothing_behind() {
    let mut bench = bench();
    bench.admin(Admin::CreateChannel(channel("c"))).expect("created");
    for _ in 0..100 {
        let conn = bench.consumer("c", 10);
        bench.leave(conn);
    }
    assert!(bench.topic.footprint().largest() <= 16, "{:?}", bench.topic.footprint());
}

#[test]
fn a_used_up_budget_refuses_and_recovers() {
    let mut bench = bench_of(MIB);
    let conn = bench.consumer("c", 0);
    let body = |n| Bodies::one(numbered(n, 10_000).into());
    let mut accepted = 0;
    while bench.publish_at_once(body(accepted), Duration::ZERO).is_ok() {
        accepted += 1;
        assert!(accepted < 200);
    }
    assert!((75..=104).contains(&accepted), "{accepted} of 10,000 bytes in 1 MiB");
    assert_eq!(bench.publish_at_once(body(0), Duration::ZERO), Err(Refusal::QueueFull));
    assert_eq!(bench.topic.stats(None, false).message_count, accepted as u64, "what was refused is not counted");
    bench.ready(conn, 1);
    let got = bench.drain(conn);
    assert_eq!(got.iter().map(|body| number(body.as_bytes())).collect::<Vec<_>>(), (0..accepted).collect::<Vec<_>>());
    assert_eq!(bench.publish_at_once(body(0), Duration::ZERO), Ok(()));
}

#[test]
fn topics_share_the_budget() {
    let mut full = bench_of(MIB);
    full.publish((0..90).map(|n| numbered(n, 10_000)));
    let options = alloc::sync::Arc::new(Options::default());
    let name = crate::name::TopicName::new("other").expect("a name");
    let mut bench = bench();
    bench.topic = Topic::new(name, options, full.budget.clone(), 1);
    let body = || Bodies::one(numbered(0, 200_000).into());
    assert_eq!(bench.publish_at_once(body(), Duration::ZERO), Err(Refusal::QueueFull));
    full.admin(Admin::EmptyTopic).expect("emptied");
    assert_eq!(bench.publish_at_once(body(), Duration::ZERO), Ok(()));
}

type Kept = Vec<(ConnId, Vec<Delivery>)>;

/// Publishes batches of 2,000 messages, of which each channel's consumer finishes all but every hundredth.
fn with_stragglers(bench: &mut Bench, batches: usize) -> Kept {
    let mut kept: Kept = ["x", "y", "z"].map(|name| (bench.consumer(name, 2500), Vec::new())).into();
    for batch in 0..batches {
        bench
            .publish_at_once(many((0..2000).map(|n| numbered(batch * 2000 + n, 1000))), Duration::ZERO)
            .expect("taken");
        for (conn, kept) in &mut kept {
            let (stay, go): (Vec<_>, Vec<_>) =
                bench.messages(*conn).into_iter().partition(|message| number(&message.body) % 100 == 7);
            kept.extend(stay);
            finish_all(bench, *conn, &go);
        }
    }
    kept
}

fn finish_all(bench: &mut Bench, conn: ConnId, messages: &[Delivery]) {
    bench.give(messages.iter().map(|message| Input::Finish { conn, id: message.id, after: Slot::default() }));
}

#[test]
fn stragglers_do_not_hold_the_memory_of_their_neighbours() {
    let mut bench = bench();
    let kept = with_stragglers(&mut bench, 20);
    assert!(bench.budget.used() < 10 * MIB, "{} bytes for 400 messages of 1 KB", bench.budget.used());
    for (conn, mut kept) in kept {
        assert_eq!(kept.len(), 400);
        let last = kept.split_off(300);
        finish_all(&mut bench, conn, &last);
        bench.requeue(conn, kept[1].id, ms(1));
        bench.requeue(conn, kept[0].id, Duration::ZERO);
        bench.pass(ms(1));
        let again = bench.messages(conn);
        assert_eq!(again.iter().map(|message| number(&message.body)).collect::<Vec<_>>(), [7, 107]);
        for (again, before) in again.iter().zip(&kept) {
            assert_eq!((again.id, &again.body, again.attempts), (before.id, &before.body, 2));
        }
        finish_all(&mut bench, conn, &kept);
        assert_eq!(bench.events(conn), []);
    }
    assert_eq!(bench.budget.used(), 0);
}

#[test]
fn stragglers_keep_their_deadlines_and_their_turns() {
    let mut bench = bench();
    let mut kept = with_stragglers(&mut bench, 5);
    let (conn, mine) = kept.remove(0);
    bench.leave(conn);
    let heir = bench.consumer("x", 2500);
    bench.pass(TIMEOUT);
    let again = bench.messages(heir);
    assert_eq!(again.len(), 100);
    let ids: Vec<_> = again.iter().map(|message| message.id).collect();
    assert_eq!(ids, mine.iter().map(|message| message.id).collect::<Vec<_>>());
}

#[test]
fn stragglers_are_looked_for_before_a_publish_is_refused() {
    let mut bench = bench_of(16 * MIB);
    let conn = bench.consumer("c", 20_000);
    bench.pause(Admin::PauseChannel(channel("c"), true));
    while bench.publish_at_once(many((0..100).map(|n| numbered(n, 1000))), Duration::ZERO).is_ok() {}
    bench.pause(Admin::PauseChannel(channel("c"), false));
    let got = bench.messages(conn);
    let go: Vec<_> = got.into_iter().filter(|message| number(&message.body) != 50).collect();
    finish_all(&mut bench, conn, &go);
    let held = bench.channel("c").in_flight_count;
    assert!((100..200).contains(&held) && bench.budget.used() > 12 * MIB, "a few hold it all: {held}");
    bench.publish((0..100).map(|n| numbered(n, 1000)));
    assert!(bench.budget.used() < 2 * MIB, "{}", bench.budget.used());
}

#[test]
fn deferred_stragglers_come_at_their_time() {
    let mut bench = bench();
    let conn = bench.consumer("c", 500);
    for round in 0..40 {
        let others = || many((0..500).map(|n| numbered(n, 1000)));
        bench.publish_at_once(others(), Duration::ZERO).expect("taken");
        bench.publish_at_once(Bodies::one(numbered(round, 1000).into()), Duration::from_secs(10)).expect("taken");
        bench.publish_at_once(others(), Duration::ZERO).expect("taken");
        bench.drain(conn);
    }
    assert!(bench.budget.used() < 6 * MIB, "{}", bench.budget.used());
    bench.pass(Duration::from_secs(10) - NANO);
    assert!(bench.messages(conn).is_empty());
    bench.pass(NANO);
    let numbers: BTreeSet<_> = bench.drain(conn).iter().map(|body| number(body.as_bytes())).collect();
    assert_eq!(numbers, (0..40).collect());
    assert_eq!(bench.budget.used(), 0);
}

#[test]
fn what_waits_is_found_however_many_chunks_came_and_went() {
    for chunks in [1 << 31, 1 << 32, (1 << 33) + 5] {
        let mut bench = bench();
        let slow = bench.consumer("slow", 0);
        let kept = with_stragglers(&mut bench, 2);
        bench.publish_deferred("later", ms(10));
        bench.topic.skip_chunks(chunks);
        bench.publish(["after"]);
        bench.topic.check();
        bench.pass(ms(10));
        bench.ready(slow, 2500);
        let order: Vec<_> = bench.drain(slow);
        assert_eq!(order.len(), 4002);
        assert!(order[..4000].iter().enumerate().all(|(n, body)| number(body.as_bytes()) == n));
        for (conn, kept) in kept {
            finish_all(&mut bench, conn, &kept);
            assert_eq!(bench.drain(conn), ["after", "later"]);
        }
        assert_eq!(bench.budget.used(), 0);
    }
}
