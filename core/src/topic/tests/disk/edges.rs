//! Where memory ends, where a disk does, and what is believed of it afterwards.

use super::world::{CHANNELS, End, World};
use crate::name::ChannelName;
use crate::storage::recovered::{Problem, Trouble};
use crate::time::Duration;
use crate::topic::disk::{Lane, Op};
use crate::topic::io::{Admin, Input};
use alloc::vec::Vec;

const HOUR: Duration = Duration::from_secs(3600);
const TENTH: Duration = Duration::from_millis(100);

impl World {
    fn tenths(&mut self, count: usize) {
        for _ in 0..count {
            self.work(usize::MAX);
            self.sleep(TENTH);
        }
    }

    fn operations(&self) -> impl Iterator<Item = &Op> {
        self.bench.jobs.iter().flat_map(|job| &job.ops)
    }

    /// A byte of the only segment changes, at so many bytes from where that text is for the first time.
    fn rot_at(&mut self, text: &[u8], further: usize) {
        let segment = self.files.segments()[0];
        let content = self.files.content(segment);
        let at = content.windows(text.len()).position(|window| window == text).expect("the text");
        self.damaged = true;
        self.files.flip(segment, (at + further) * 8);
    }
}

#[test]
fn full_memory_makes_publishers_wait_for_the_disk() {
    let mut world = World::new(false, 1_000_000, 1, |_, memory| *memory = 256 * 1024);
    world.consume("a", 0);
    for number in 0..200 {
        world.publish(1, 10_000, Duration::ZERO);
        // As fast as the disk, and no faster.
        world.work(usize::MAX);
        assert!(world.messages[number].acknowledged, "message {number}");
        let used = world.bench.budget.used();
        assert!(used <= 512 * 1024, "{used} bytes with message {number}");
    }
    assert_eq!(world.bench.topic.health(), Ok(()));
    world.drain();
    // Somebody else has used it up: there is still the disk.
    world.bench.budget.charge(1 << 20);
    world.publish(1, 1000, Duration::ZERO);
    assert!(!world.messages[200].acknowledged, "nothing more stays in memory only");
    world.work(usize::MAX);
    assert!(world.messages[200].acknowledged);
    let mut at_risk = 0;
    world.bench.topic.at_risk(true, |_, _| at_risk += 1);
    assert_eq!(at_risk, 0, "it was fsynced, so that its memory can be had");
    // But what the disk does not take has no place at all.
    world.files.failing = usize::MAX;
    world.publish(1, 1000, Duration::ZERO);
    world.tenths(30);
    world.publish(1, 1000, Duration::ZERO);
    assert!(world.messages[201..].iter().all(|message| message.refused));
    world.files.failing = 0;
    world.bench.budget.release(1 << 20);
}

#[test]
fn a_full_ephemeral_channel_sends_nothing_to_disk() {
    let mut world = World::new(false, 10, 1, |_, _| {});
    CHANNELS[..2].iter().for_each(|channel| world.consume(channel, 100));
    world.consume("e#ephemeral", 0);
    for _ in 0..60 {
        world.publish(1, 100, Duration::ZERO);
        CHANNELS[..2].iter().for_each(|channel| world.finish(channel, 0));
    }
    assert!(world.messages.iter().all(|message| message.acknowledged));
    assert_eq!((world.bench.jobs.len(), world.files.names().len()), (0, 0));
}

#[test]
fn an_ephemeral_channel_is_no_news_to_a_journal() {
    let mut world = World::new(true, 0, 1, |_, _| {});
    world.rest();
    let done = world.files.done;
    world.consume("e#ephemeral", 0);
    world.rest();
    assert_eq!(world.files.done, done);
}

#[test]
fn operators_are_answered_by_the_journal_of_a_full_disk() {
    let mut world = World::new(true, 0, 1, |options, _| options.msg_timeout = HOUR);
    CHANNELS[..2].iter().for_each(|channel| world.consume(channel, 0));
    world.publish(10, 800, Duration::ZERO);
    world.tenths(10);
    world.files.is_full = true;
    world.publish(3, 200, Duration::ZERO);
    world.tenths(30);
    assert!(world.messages[10..].iter().all(|message| message.refused));
    assert_eq!(world.bench.topic.unsaved(), 0, "what was refused is nobody's loss");
    let (from, slot) = (world.bench.connect(), world.bench.slot());
    let action = Admin::EmptyChannel(ChannelName::new("a").expect("a name"));
    world.bench.give([Input::Admin { from, slot, action }]);
    for _ in 0..30 {
        loop {
            let jobs = core::mem::take(&mut world.bench.jobs);
            world.files.add(jobs);
            let Some((id, result)) = world.files.step(&mut world.random) else {
                if world.files.is_idle() && world.bench.jobs.is_empty() {
                    break;
                }
                continue;
            };
            world.bench.give([Input::Disk { id, result }]);
        }
        world.bench.sleep(TENTH);
        world.bench.settle();
    }
    assert_eq!(world.bench.reply(from, slot), Ok(()), "the journal has it");
    let recovered = world.files.recover();
    let emptied = recovered.channels.values().find(|channel| channel.name.as_str() == "a").expect("the channel");
    assert!(emptied.fresh.is_empty() && emptied.out.is_empty());
}

#[test]
fn a_disk_that_fails_for_long_is_not_asked_for_more_and_more() {
    let mut world = World::new(true, 0, 1, |_, _| {});
    CHANNELS[..2].iter().for_each(|channel| world.consume(channel, 0));
    world.publish(3, 100, Duration::ZERO);
    world.rest();
    world.files.failing = usize::MAX;
    world.publish(3, 100, Duration::ZERO);
    let mut most = 0;
    for _ in 0..1000 {
        world.tenths(1);
        most = most.max(world.operations().filter(|op| matches!(op, Op::Remove { .. })).count());
    }
    assert!(most < 20, "{most} files to remove in one job");
    world.files.failing = 0;
    world.tenths(20);
    assert_eq!(world.bench.topic.health(), Ok(()));
}

#[test]
fn fsyncs_that_fail_for_long_do_not_fill_the_disk() {
    let mut world = World::new(false, 0, 1, |_, _| {});
    CHANNELS[..2].iter().for_each(|channel| world.consume(channel, 0));
    world.files.failing_syncs = usize::MAX;
    world.files.failing_journals = true;
    world.publish(100, 1000, Duration::ZERO);
    world.tenths(600);
    let segments = world.files.segments().len();
    assert!(segments <= 4, "{segments} segments in a minute");
    (world.files.failing_syncs, world.files.failing_journals) = (0, false);
    world.tenths(30);
    assert_eq!(world.bench.topic.health(), Ok(()));
    world.drain();
}

#[test]
fn a_large_backlog_is_written_in_parts() {
    let mut world = World::new(false, 1_000_000, 1, |_, _| {});
    (0..20).for_each(|_| world.publish(100, 1000, Duration::ZERO));
    assert!(world.bench.jobs.is_empty());
    assert_eq!(world.bench.topic.unsaved(), 2000, "each once, however many channels need it");
    world.bench.give([Input::Shutdown]);
    let commits = world.bench.jobs.iter().filter(|job| job.lane == Lane::Commit);
    let written: usize =
        commits.flat_map(|job| &job.ops).map(|op| if let Op::Write { data, .. } = op { data.len() } else { 0 }).sum();
    assert!(written < 600_000, "{written} bytes at once");
    world.work(usize::MAX);
    let unsafe_parts: Vec<_> = world.files.recover().unsafe_parts().collect();
    assert!(unsafe_parts.is_empty(), "the journal knows that it is safe, but for {unsafe_parts:?}");
    world.crash(End::WorstPowerOff);
    assert_eq!(world.bench.topic.stats(None, false).channels[0].depth, 2000);
}

#[test]
fn what_was_fsynced_and_does_not_check_out_is_lost_and_not_torn() {
    let mut world = World::new(true, 10_000, 1, |_, _| {});
    world.publish(20, 100, Duration::ZERO);
    world.rest();
    let segment = world.files.segments()[0];
    world.rot_at(b"CHNK", 6);
    world.crash(End::Kill);
    assert!(
        world.problems.iter().any(|problem| matches!(problem.what, Trouble::Unreadable(_))),
        "{:?}",
        world.problems
    );
    let lost = |problem: &Problem| matches!(problem.what, Trouble::Lost(_, 20));
    assert_eq!(world.problems.iter().filter(|problem| lost(problem)).count(), 2, "{:?}", world.problems);
    assert!(!world.files.segments().contains(&segment), "it is set aside, and not removed");
}

#[test]
fn a_deferred_message_that_is_damaged_is_reported_at_once() {
    let mut world = World::new(false, 0, 1, |_, _| {});
    world.pause_topic(true);
    for _ in 0..4 {
        world.publish(1, 300_000, HOUR);
        world.work(usize::MAX);
    }
    world.rest();
    world.rot_at(b"00000000", 20);
    world.crash(End::Kill);
    let told = world.problems.iter().any(|problem| matches!(problem.what, Trouble::Damaged(_)));
    assert!(told, "{:?}", world.problems);
}

#[test]
fn a_channel_that_was_created_again_stays() {
    let mut world = World::new(false, 0, 1, |_, _| {});
    world.publish(1, 100, Duration::ZERO);
    world.rest();
    world.end("a", true);
    world.rest();
    world.consume("a", 0);
    world.publish(1, 100, Duration::ZERO);
    // The message is written, and `nsqd.dat` is saved. The journal that tells of the new channel is not.
    world.bench.jobs.retain(|job| job.lane != Lane::Sync);
    world.work(usize::MAX);
    assert!(world.messages[1].acknowledged);
    // Twice: the first start has written nothing when it is killed, but for `nsqd.dat`.
    for _ in 0..2 {
        world.crash(End::Kill);
        assert!(world.bench.topic.has_channel(&ChannelName::new("a").expect("a name")));
        let stats = world.bench.topic.stats(Some("a"), false);
        assert_eq!(stats.channels[0].depth, 1, "what the first one had stays dropped");
    }
    world.drain();
    assert!(world.messages[1].seen["a"].finished, "it came to the new channel");
}

#[test]
fn what_waits_on_disk_is_found_however_many_chunks_came_and_went() {
    for durable in [false, true] {
        let mut world = World::new(durable, 0, 1, |_, _| {});
        CHANNELS[..2].iter().for_each(|channel| world.consume(channel, 0));
        world.publish(1, 100, 2 * HOUR);
        world.publish(5, 100, Duration::ZERO);
        world.rest();
        world.bench.topic.skip_chunks((1 << 33) + 1);
        world.publish(5, 100, Duration::ZERO);
        world.rest();
        world.crash(End::PowerOff);
        assert_eq!(world.problems, []);
        world.bench.topic.skip_chunks(1 << 33);
        world.publish(5, 100, Duration::ZERO);
        world.rest();
        world.crash(End::Kill);
        assert_eq!(world.problems, []);
        world.sleep(2 * HOUR);
        world.drain();
    }
}
