//! Stories of a disk that fails in part, and of what may not depend on it.

use super::super::sentences::many;
use super::world::{CHANNELS, End, World, channel_name};
use crate::storage::names::FileName;
use crate::storage::recovered::Trouble;
use crate::time::Duration;
use crate::topic::Handled;
use crate::topic::disk::Op;
use crate::topic::io::{Admin, Input, Notice, Refusal};
use alloc::vec;
use alloc::vec::Vec;

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn the_fsync_covers_the_message_that_it_is_for() {
    for every in [0, 1, 3] {
        let mut world = World::new(false, 0, 1, |options, _| {
            (options.sync_every, options.sync_timeout) = (every, HOUR);
        });
        for number in 0..9 {
            world.publish(1, 10, Duration::ZERO);
            while !world.messages[number].acknowledged {
                assert!(!world.files.is_idle() || !world.bench.jobs.is_empty(), "it is under way");
                world.work(1);
            }
            assert!(at_risk(&world) > 0, "the answer does not wait for an fsync");
            world.work(usize::MAX);
            let unsynced = (number as u64 + 1) % every.max(1);
            assert_eq!(at_risk(&world), 2 * unsynced as usize, "after {number}, an fsync every {every}");
        }
        world.crash(End::WorstPowerOff);
        assert_eq!(world.bench.topic.stats(None, false).channels[0].depth, 9);
    }
}

#[test]
fn files_that_cannot_be_removed_are_reported_and_hold_nothing_up() {
    for (durable, shutdown) in [(true, false), (false, false), (true, true), (false, true)] {
        let mut world = World::new(durable, 0, 1, |options, _| options.max_bytes_per_file = 2000);
        world.consume("a", 0);
        world.publish(1, 1500, Duration::ZERO);
        world.publish(1, 1500, Duration::ZERO);
        world.rest();
        let segments = world.files.segments();
        assert_eq!(segments.len(), 2);
        world.files.stuck.extend(&segments);
        world.finish_all();
        world.rest();
        world.publish(1, 1500, Duration::ZERO);
        world.rest();
        world.finish_all();
        world.rest();
        assert_eq!(world.files.segments(), segments, "others go");
        assert_eq!(world.bench.topic.health(), Err("cannot remove"));
        let (done, journals) = (world.files.done, world.journals());
        world.rest();
        assert!(world.files.done - done < 20, "{} operations in two seconds", world.files.done - done);
        assert_eq!(world.journals(), journals, "no checkpoint is written for it");
        if shutdown {
            world.give(Input::Shutdown);
            world.work(usize::MAX);
            let notices = &world.bench.notices;
            assert!(matches!(&notices[..], [.., Notice::Stored { result: Ok(()), .. }]), "{notices:?}");
            assert_eq!(world.bench.topic.deadline(), None);
            world.crash(End::WorstPowerOff);
            world.files.stuck.clear();
            world.rest();
        } else {
            world.files.stuck.pop_first();
            world.rest();
            assert_eq!(world.bench.topic.health(), Err("cannot remove"));
            world.files.stuck.clear();
            world.rest();
        }
        assert_eq!((world.bench.topic.health(), world.files.segments()), (Ok(()), Vec::new()));
        world.drain();
    }
}

#[test]
fn a_disk_that_takes_nothing_for_an_hour_leaves_nothing_to_clear_up() {
    for durable in [true, false] {
        let mut world = World::new(durable, 0, 1, |_, _| {});
        world.publish(3, 1500, Duration::ZERO);
        world.rest();
        world.files.failing = usize::MAX;
        for _ in 0..60 {
            world.publish(1, 1500, Duration::ZERO);
            world.seconds(60);
        }
        assert!(world.bench.topic.health().is_err() && world.messages[3..].iter().all(|it| !it.acknowledged));
        let tries = world.files.done;
        assert!((3600..3700).contains(&tries), "one operation a second, the first of the journal: {tries}");
        world.files.failing = 0;
        world.rest();
        let more = world.files.done - tries;
        assert!(world.bench.topic.health().is_ok() && more < 100, "{more} operations to make up for it");
        world.drain();
    }
}

/// Messages on disk only, of which that one cannot be read.
fn with_a_bad_page(count: usize, size: usize, bad: &[u8]) -> World {
    let mut world = World::new(true, 0, 1, |_, memory| *memory = 100 * 1024);
    CHANNELS[..2].iter().for_each(|channel| world.consume(channel, 0));
    world.publish(count, size, Duration::ZERO);
    world.rest();
    world.crash(End::Kill);
    world.rest();
    let segment = world.files.segments()[0];
    let content = world.files.content(segment);
    let at = content.windows(bad.len()).position(|window| window == bad).expect("it is there");
    (world.files.bad, world.damaged) = (Some((segment, at)), true);
    world
}

#[test]
fn a_page_that_cannot_be_read_costs_its_messages_only() {
    let mut world = with_a_bad_page(200, 200, b"00000100");
    world.consume("a", 1000);
    world.seconds(5);
    assert!(world.held.is_empty() && world.bench.topic.health().is_err(), "it may pass");
    world.seconds(10);
    let lost = 200 - world.held["a"].len();
    assert!((1..=4096 / 250 + 2).contains(&lost), "{lost} are lost");
    assert_eq!(world.bench.topic.health(), Ok(()));
    let stats = world.bench.topic.stats(None, false);
    assert_eq!((stats.channels[0].lost, stats.channels[1].lost), (lost as u64, 0));
    assert!(world.problems.iter().any(|problem| matches!(problem.what, Trouble::Damaged(4096..))), "it is told");
    world.consume("b", 1000);
    world.seconds(15);
    assert_eq!(world.held["b"].len(), 200 - lost);
    world.drain();
}

#[test]
fn a_page_that_can_be_read_again_costs_nothing() {
    let mut world = with_a_bad_page(200, 200, b"00000100");
    world.consume("a", 1000);
    world.seconds(8);
    world.files.bad = None;
    world.seconds(2);
    assert_eq!(world.held["a"].len(), 200);
    world.drain();
}

#[test]
fn what_is_nowhere_to_be_read_is_lost_after_a_while() {
    for repaired in [true, false] {
        let mut world = with_a_bad_page(3, 20, b"00000001");
        world.consume("a", 10);
        world.seconds(20);
        assert!(world.held.is_empty() && world.bench.topic.health().is_err());
        if repaired {
            world.files.bad = None;
        }
        world.publish(1, 20, Duration::ZERO);
        world.seconds(20);
        let stats = world.bench.topic.stats(None, false);
        assert_eq!(stats.channels[0].lost, if repaired { 0 } else { 3 });
        assert_eq!(world.held["a"].len(), if repaired { 4 } else { 1 });
        assert_eq!(world.bench.topic.health(), Ok(()));
        // Memory is short; there is nothing of it that could be given back.
        world.bench.budget.charge(90 * 1024);
        world.publish(1, 20, Duration::ZERO);
        world.seconds(2);
        world.bench.budget.release(90 * 1024);
        world.drain();
    }
}

#[test]
fn a_read_that_nobody_wants_any_more_is_forgotten() {
    for delete in [true, false] {
        let mut world = with_a_bad_page(200, 200, b"00000100");
        world.consume("a", 1000);
        world.seconds(2);
        assert!(world.bench.topic.health().is_err());
        world.end("a", delete);
        world.seconds(2);
        assert_eq!(world.bench.topic.health(), Ok(()), "nobody wants it");
        world.files.bad = None;
        world.drain();
    }
}

#[test]
fn what_was_refused_does_not_keep_a_disk_full() {
    for (durable, deferred) in [(false, true), (false, false), (true, true)] {
        for end in [None, Some(End::Kill)] {
            let mut world = World::new(durable, 0, 1, |options, _| {
                (options.sync_timeout, options.msg_timeout) = (Duration::from_secs(2), HOUR);
            });
            world.publish(10, 800, Duration::ZERO);
            world.seconds(5);
            world.files.is_full = true;
            world.publish(3, 200, if deferred { HOUR } else { Duration::ZERO });
            world.seconds(5);
            assert!(world.messages[10..].iter().all(|message| message.refused));
            assert!(world.bench.topic.health().is_err());
            for channel in &CHANNELS[..2] {
                world.consume(channel, 10);
                world.seconds(1);
                world.consume(channel, 0);
                assert_eq!(world.held[channel].len(), 10);
                (1..10).for_each(|_| world.finish(channel, 0));
            }
            world.seconds(5);
            assert!(world.files.is_full, "one message is left that was promised");
            if let Some(end) = end {
                world.crash(end);
                world.seconds(2);
                for channel in &CHANNELS[..2] {
                    world.consume(channel, 100);
                    world.seconds(1);
                    let promised = world.held[channel].iter().filter(|(_, number)| *number < 10);
                    assert_eq!(promised.count(), 1);
                }
            }
            CHANNELS[..2].iter().for_each(|channel| world.finish(channel, 0));
            world.seconds(5);
            assert_eq!(world.bench.topic.health(), Ok(()));
            // A new process may have found a part of what was refused in the file.
            assert!(!world.files.is_full || end.is_some());
            world.files.is_full = false;
            world.sleep(HOUR);
            world.drain();
        }
    }
}

#[test]
fn whoever_waits_for_a_durable_topic_that_is_deleted_is_refused() {
    for durable in [true, false] {
        let mut world = World::new(durable, 0, 1, |_, _| {});
        world.work(usize::MAX);
        world.publish(2, 10, Duration::ZERO);
        world.publish(1, 10, Duration::ZERO);
        let mut asked = Vec::new();
        for action in [Admin::EmptyTopic, Admin::DeleteTopic] {
            let (from, slot) = (world.bench.connect(), world.bench.slot());
            asked.push((from, slot));
            world.bench.give([Input::Admin { from, slot, action }]);
        }
        let replies: Vec<_> = asked.into_iter().map(|(from, slot)| world.bench.reply(from, slot)).collect();
        assert_eq!(replies, [if durable { Err(Refusal::Exiting) } else { Ok(()) }, Ok(())]);
        world.give(Input::Channels(Vec::new()));
        let settled = world.messages.iter().map(|message| (message.acknowledged, message.refused));
        assert!(settled.into_iter().all(|answer| answer == (!durable, durable)));
    }
}

#[test]
fn what_nobody_has_credit_for_is_not_kept_in_memory() {
    let mut world = World::new(true, 0, 1, |_, memory| *memory = 256 * 1024);
    CHANNELS[..2].iter().for_each(|channel| world.consume(channel, 0));
    for _ in 0..10 {
        world.publish(100, 1000, Duration::ZERO);
        world.rest();
    }
    world.crash(End::Kill);
    world.rest();
    let read = world.files.read;
    CHANNELS[..2].iter().for_each(|channel| world.consume(channel, 0));
    world.rest();
    assert_eq!(world.files.read, read, "nobody can take a message");
    world.consume("a", 1);
    world.work(usize::MAX);
    assert!(world.bench.topic.stats(None, false).memory > 2 * 64 * 1024, "one chunk, and the one after it");
    world.bench.budget.charge(128 * 1024);
    world.bench.give([]);
    world.rest();
    assert!(
        world.bench.topic.stats(None, false).memory > 2 * 64 * 1024,
        "it reads on when it has finished its message"
    );
    world.consume("a", 0);
    // What it holds times out.
    world.rest();
    assert_eq!(world.bench.topic.stats(None, false).memory, 0);
    world.bench.budget.release(128 * 1024);
    world.drain();
}

#[test]
fn a_publish_that_is_refused_half_way_leaves_nothing_behind() {
    let mut world = World::new(true, 0, 1, |_, _| {});
    world.work(usize::MAX);
    let (from, slot) = (world.bench.connect(), world.bench.slot());
    let bodies = many((0..2).map(|_| vec![b'0'; 300 * 1024]));
    let mut batch = [Input::Publish { from, slot, bodies, defer: Duration::ZERO }].into();
    assert_eq!(world.bench.turn(&mut batch), Handled::Some);
    world.bench.give([Input::Shutdown]);
    assert_eq!(world.bench.turn(&mut batch), Handled::All);
    assert_eq!(world.bench.reply(from, slot), Err(Refusal::Exiting));
    world.rest();
    assert!(world.bench.topic.is_settled(), "nobody is waited for");
}

#[test]
fn a_publish_whose_end_needs_no_disk_is_answered_though_none_writes_its_beginning() {
    let mut world = World::new(false, 2, 1, |_, _| {});
    world.publish(2, 10, Duration::ZERO);
    world.rest();
    // Its first message overflows, and its second one has to wait for another turn.
    let (from, slot) = (world.bench.connect(), world.bench.slot());
    let bodies = many((0..2).map(|_| vec![b'0'; 300 * 1024]));
    let mut batch = [Input::Publish { from, slot, bodies, defer: Duration::ZERO }].into();
    assert_eq!(world.bench.turn(&mut batch), Handled::Some);
    world.files.failing = usize::MAX;
    world.seconds(3);
    let refused = world.bench.connect();
    let (late, bodies) = (world.bench.slot(), many(["late"]));
    world.bench.give([Input::Publish { from: refused, slot: late, bodies, defer: Duration::ZERO }]);
    assert_eq!(world.bench.reply(refused, late), Err(Refusal::NotWritten), "the disk is known to fail");
    // Now there is room in memory, and nothing left to write.
    for channel in &CHANNELS[..2] {
        let (from, slot, channel) = (world.bench.connect(), world.bench.slot(), channel_name(channel));
        world.bench.give([Input::Admin { from, slot, action: Admin::EmptyChannel(channel) }]);
    }
    world.seconds(3);
    assert_eq!(world.bench.turn(&mut batch), Handled::All);
    assert_eq!(world.bench.reply(from, slot), Err(Refusal::NotWritten));
}

#[test]
fn nothing_is_added_to_a_file_whose_fsync_failed() {
    let mut world = World::new(false, 3, 1, |_, _| {});
    // A chunk in memory only, which somebody reads, and one behind it that overflows and has room for more.
    world.consume("a", 1);
    world.publish(3, 300, Duration::ZERO);
    world.publish(1, 2000, Duration::ZERO);
    world.rest();
    let [given_up] = world.files.segments()[..] else { panic!("one segment") };
    assert_eq!(at_risk(&world), 6, "the one that overflowed is on the medium");
    // Memory is short: the first one is written, and its fsync fails.
    world.bench.budget.charge(900 << 20);
    world.bench.give([]);
    world.files.failing_syncs = 1;
    let (id, result) = loop {
        let jobs = core::mem::take(&mut world.bench.jobs);
        world.files.add(jobs);
        match world.files.step(&mut world.random) {
            Some((id, Ok(loaded))) => world.give(Input::Disk { id, result: Ok(loaded) }),
            Some(failed) => break failed,
            None => {}
        }
    };
    world.bench.budget.release(900 << 20);
    let (from, slot, bodies) = (world.bench.connect(), world.bench.slot(), many(["late"]));
    world.bench.give([Input::Disk { id, result }, Input::Publish { from, slot, bodies, defer: Duration::ZERO }]);
    let ops: Vec<_> = world.bench.jobs.iter().flat_map(|job| &job.ops).collect();
    assert!(ops.iter().any(|op| matches!(op, Op::Write { file: FileName::Segment(_), .. })), "they are written");
    assert!(ops.iter().all(|op| !matches!(op, Op::Write { file, .. } if *file == given_up)), "elsewhere");
}

impl World {
    /// The disk works for so long.
    fn seconds(&mut self, seconds: usize) {
        for _ in 0..10 * seconds {
            self.work(usize::MAX);
            self.sleep(Duration::from_millis(100));
        }
    }

    /// Whatever there is comes and is finished.
    fn finish_all(&mut self) {
        for channel in &CHANNELS[..2] {
            self.consume(channel, 100);
            self.work(usize::MAX);
            while self.held.get(channel).is_some_and(|held| !held.is_empty()) {
                self.finish(channel, 0);
            }
            self.consume(channel, 0);
        }
    }

    fn journals(&self) -> Vec<FileName> {
        self.files.names().into_iter().filter(|name| matches!(name, FileName::Journal(_))).collect()
    }
}

/// How many messages, in how many channels, a loss of power would cost now.
fn at_risk(world: &World) -> usize {
    let mut count = 0;
    world.bench.topic.at_risk(true, |_, _| count += 1);
    count
}
