//! Single stories of a topic and its disk.

use super::files::Files;
use super::world::{CHANNELS, End, World};
use crate::name::ChannelName;
use crate::storage::names::FileName;
use crate::storage::recovered::Trouble;
use crate::time::Duration;
use crate::topic::io::{Input, Notice, Refusal};
use alloc::vec::Vec;

const MS: Duration = Duration::from_millis(1);

fn durable() -> World {
    World::new(true, 10_000, 1, |_, _| {})
}

fn overflowing(mem_queue_size: u64) -> World {
    World::new(false, mem_queue_size, 1, |_, _| {})
}

#[test]
fn a_topic_that_does_not_overflow_has_nothing_to_do_with_the_disk() {
    let mut world = overflowing(100);
    world.consume("a", 3);
    world.publish(90, 50, Duration::ZERO);
    world.publish(10, 50, 10 * MS);
    world.sleep(Duration::from_secs(5));
    assert_eq!((world.bench.jobs.len(), world.files.names().len()), (0, 0));
    assert!(world.messages.iter().all(|message| message.acknowledged));
}

#[test]
fn nothing_is_delivered_before_it_is_on_the_medium() {
    let mut world = durable();
    world.consume("a", 10);
    world.work(usize::MAX);
    world.publish(3, 10, Duration::ZERO);
    assert!(world.held.is_empty() && !world.messages[0].acknowledged);
    let syncs = world.files.syncs;
    while !world.messages[0].acknowledged {
        assert!(world.held.is_empty());
        world.work(1);
    }
    assert!(world.files.syncs > syncs);
    assert_eq!(world.held["a"].len(), 3);
}

#[test]
fn what_comes_during_a_commit_shares_the_next_one() {
    let mut world = durable();
    world.work(usize::MAX);
    (0..50).for_each(|_| world.publish(1, 10, Duration::ZERO));
    let syncs = world.files.syncs;
    world.work(usize::MAX);
    assert!(world.messages.iter().all(|message| message.acknowledged));
    assert!(world.files.syncs - syncs <= 5, "{} fsyncs for 50 publishes", world.files.syncs - syncs);
}

/// How many jobs rest, and how many write.
fn jobs(world: &World) -> (usize, usize) {
    let resting = world.bench.jobs.iter().filter(|job| !job.rest.is_zero()).count();
    (resting, world.bench.jobs.len() - resting)
}

/// Ends the first job, whatever it was.
fn end_job(world: &mut World) {
    let id = world.bench.jobs.remove(0).id;
    world.bench.give([Input::Disk { id, result: Ok(None) }]);
}

#[test]
fn publishers_who_have_shared_a_commit_share_the_next_one_too() {
    let mut world = durable();
    world.work(usize::MAX);
    world.publish(1, 10, Duration::ZERO);
    assert_eq!(jobs(&world), (0, 1));
    (0..2).for_each(|_| world.publish(1, 10, Duration::ZERO));
    end_job(&mut world);
    assert_eq!(jobs(&world), (0, 1), "one publisher was answered, and nobody rests for that");
    end_job(&mut world);
    assert_eq!(jobs(&world), (1, 0), "two were");
    (0..3).for_each(|_| world.publish(1, 10, Duration::ZERO));
    assert_eq!(jobs(&world), (1, 0), "they wait for each other");
    end_job(&mut world);
    assert_eq!(jobs(&world), (0, 1));
    end_job(&mut world);
    assert_eq!(jobs(&world), (1, 0));
    world.publish(70, 2000, Duration::ZERO);
    assert_eq!(jobs(&world), (1, 1), "so much is worth a commit of its own");
    end_job(&mut world);
    assert_eq!(jobs(&world), (0, 1), "the rest has no say in it");
    let mut world = overflowing(0);
    (0..3).for_each(|_| world.publish(1, 10, Duration::ZERO));
    end_job(&mut world);
    end_job(&mut world);
    assert_eq!(jobs(&world), (0, 0), "without fsyncs there is little to share");
    let mut world = durable();
    world.work(usize::MAX);
    let alone = Some(world.bench.connect());
    (0..4).for_each(|_| world.publish_from(alone, 1, 10, Duration::ZERO));
    end_job(&mut world);
    end_job(&mut world);
    assert_eq!(jobs(&world), (0, 0), "one connection has nobody to wait for, however much it has under way");
}

#[test]
fn a_deferred_message_in_a_chunk_that_is_on_disk_is_there_after_a_crash() {
    let mut world = overflowing(2);
    world.publish(3, 10, Duration::ZERO);
    world.work(usize::MAX);
    ["a", "b"].into_iter().for_each(|channel| {
        world.consume(channel, 3);
        (0..2).for_each(|_| world.finish(channel, 0));
    });
    // There is room in memory, but this is where it is appended to.
    world.publish(1, 10, Duration::from_secs(5));
    assert!(world.messages[3].acknowledged);
    assert_eq!(jobs(&world), (0, 1));
    world.work(usize::MAX);
    let body = |payload: &[u8]| payload.ends_with(b"00000003..........");
    world
        .bench
        .topic
        .at_risk(false, |_, payload| assert!(!body(payload), "it is written, and a kill leaves it behind"));
    world.crash(End::Kill);
    let stats = world.bench.topic.stats(None, false);
    assert!(stats.channels.iter().all(|channel| channel.deferred_count == 1), "{stats:?}");
    world.drain();
}

#[test]
fn three_lagging_channels_write_each_byte_once_and_read_it_as_they_go() {
    let mut world = World::new(false, 0, 1, |options, memory| {
        (options.max_bytes_per_file, *memory) = (1 << 20, 2 << 20);
    });
    CHANNELS.into_iter().for_each(|channel| world.consume(channel, 0));
    let mut bytes = 0;
    for _ in 0..400 {
        world.publish(40, 200, Duration::ZERO);
        bytes += 40 * (208 + 42);
        world.work(usize::MAX);
        world.sleep(MS);
    }
    assert!(world.messages.iter().all(|message| message.acknowledged), "nothing was refused");
    assert!(world.files.written < bytes + bytes / 20, "{} written for {bytes}", world.files.written);
    assert!(world.bench.budget.used() <= 3 << 19, "{} in memory", world.bench.budget.used());
    world.drain();
    assert!(world.files.read > bytes / 2);
}

#[test]
fn a_clean_exit_keeps_everything_as_it_was() {
    for mode in [true, false] {
        let mut world = World::new(mode, 10_000, 1, |_, _| {});
        world.consume("a", 4);
        world.consume("b", 0);
        world.pause("b", true);
        world.publish(10, 30, Duration::ZERO);
        world.publish(2, 30, Duration::from_secs(5));
        world.work(usize::MAX);
        world.requeue("a", 0, Duration::from_secs(3));
        world.finish("a", 0);
        world.requeue("a", 0, Duration::ZERO);
        world.give(Input::Shutdown);
        let (from, slot) = (world.bench.connect(), world.bench.slot());
        let bodies = crate::message::Bodies::one("00000000late".into());
        let handled = world.bench.give([Input::Publish { from, slot, bodies, defer: Duration::ZERO }]);
        assert_eq!(handled, crate::topic::Handled::All);
        assert_eq!(world.bench.reply(from, slot), Err(Refusal::Exiting));
        world.work(usize::MAX);
        let notices = &world.bench.notices;
        assert!(matches!(&notices[..], [.., Notice::Stored { result: Ok(()), .. }]), "{notices:?}");
        world.remember();
        // Nobody would write down what is handed out now.
        let held = world.held.clone();
        world.consume("a", 100);
        world.pause("b", false);
        world.consume("b", 100);
        world.sleep(Duration::from_secs(2));
        assert_eq!(world.held, held);
        world.pause("b", true);
        world.strict = true;
        world.crash(End::WorstPowerOff);
        assert_eq!(world.lives, 2);
        let stats = world.bench.topic.stats(None, false);
        let [a, b] = &stats.channels[..] else { panic!("{stats:?}") };
        assert_eq!((a.depth, a.deferred_count, a.paused), (8, 3, false));
        assert_eq!((b.depth, b.deferred_count, b.paused), (10, 2, true));
        world.drain();
    }
}

#[test]
fn a_clean_exit_of_a_topic_without_messages_makes_no_file() {
    let mut world = overflowing(10);
    world.consume("a", 4);
    world.give(Input::Shutdown);
    assert!(matches!(&world.bench.notices[..], [.., Notice::Stored { result: Ok(()), .. }]));
    assert_eq!((world.bench.jobs.len(), world.files.names().len()), (0, 0));
}

#[test]
fn an_idle_topic_gives_its_memory_to_others() {
    let mut world = overflowing(1000);
    CHANNELS[..2].iter().for_each(|channel| world.pause(channel, true));
    world.publish(100, 200, Duration::ZERO);
    world.rest();
    assert!(world.files.names().is_empty() && world.bench.topic.stats(None, false).memory > 20_000);
    world.bench.budget.charge(900 << 20);
    world.bench.give([]);
    world.rest();
    assert_eq!(world.bench.topic.stats(None, false).memory, 0);
    world.bench.budget.release(900 << 20);
    world.drain();
}

#[test]
fn a_long_queue_on_disk_costs_little_memory() {
    for durable in [true, false] {
        let mut world = World::new(durable, 0, 1, |options, _| options.max_bytes_per_file = 4 << 20);
        CHANNELS[..2].iter().for_each(|channel| world.pause(channel, true));
        for _ in 0..60 {
            world.publish(100, 2000, Duration::ZERO);
            world.work(usize::MAX);
        }
        world.rest();
        let memory = world.bench.topic.stats(None, false).memory;
        assert!((7 << 20..9 << 20).contains(&memory), "{memory} of 12 million");
        world.drain();
    }
}

#[test]
fn a_full_disk_refuses_what_needs_it_and_nothing_else() {
    let mut world = overflowing(10);
    world.consume("a", 0);
    world.publish(10, 10, Duration::ZERO);
    world.files.failing = usize::MAX;
    world.publish(5, 10, Duration::ZERO);
    world.work(usize::MAX);
    assert!(world.messages[..10].iter().all(|message| message.acknowledged));
    assert!(world.messages[10..].iter().all(|message| message.refused));
    assert_eq!(world.bench.topic.health(), Err("cannot create"));
    world.publish(1, 10, Duration::ZERO);
    assert!(world.messages[15].refused, "at once");
    // It is tried again every second, without traffic; what was accepted is still there.
    world.sleep(Duration::from_secs(3));
    world.work(usize::MAX);
    assert!(world.bench.topic.health().is_err());
    world.files.failing = 0;
    world.sleep(Duration::from_secs(2));
    world.work(usize::MAX);
    assert_eq!(world.bench.topic.health(), Ok(()));
    world.publish(1, 10, Duration::ZERO);
    world.work(usize::MAX);
    assert!(world.messages[16].acknowledged);
    world.drain();
}

/// The disk is full, and what is published then is refused.
fn is_full_for_the_next(world: &mut World) {
    let before = world.messages.len();
    world.files.is_full = true;
    world.publish(3, 200, Duration::ZERO);
    world.work(usize::MAX);
    world.sleep(Duration::from_secs(3));
    world.work(usize::MAX);
    assert!(world.messages[before..].iter().all(|message| message.refused));
}

#[test]
fn a_disk_full_of_messages_is_well_again_when_they_are_finished() {
    for durable in [true, false] {
        let mut world = World::new(durable, 0, 1, |options, _| options.max_bytes_per_file = 2000);
        world.consume("a", 0);
        for _ in 0..10 {
            world.publish(1, 800, Duration::ZERO);
            world.work(usize::MAX);
        }
        assert!(world.files.segments().len() > 2);
        is_full_for_the_next(&mut world);
        assert!(world.bench.topic.health().is_err(), "the journal alone shows nothing");
        // What was refused is still tried to be written; only a segment that goes makes room for it.
        world.drain();
        assert!(!world.files.is_full);
    }
}

#[test]
fn a_disk_full_of_one_segment_is_well_again_when_its_messages_are_finished() {
    for crash in [None, Some(End::Kill), Some(End::WorstPowerOff)] {
        let mut world = durable();
        world.consume("a", 0);
        world.publish(10, 800, Duration::ZERO);
        world.work(usize::MAX);
        is_full_for_the_next(&mut world);
        if let Some(end) = crash {
            world.crash(end);
        }
        world.drain();
        assert!(!world.files.is_full);
    }
}

#[test]
fn a_failed_fsync_is_not_repeated_but_the_messages_are_written_anew() {
    let mut world = durable();
    world.consume("a", 0);
    world.publish(3, 10, Duration::ZERO);
    world.work(usize::MAX);
    world.publish(3, 10, Duration::ZERO);
    world.work(1);
    // The write is done; its fsync is not.
    world.files.failing = 1;
    world.work(usize::MAX);
    assert!(world.messages.iter().all(|message| message.acknowledged));
    assert_eq!(world.bench.topic.health(), Ok(()));
    world.crash(End::WorstPowerOff);
    world.drain();
}

#[test]
fn a_chunk_that_was_done_before_it_was_written_leaves_no_damage() {
    let mut world = World::new(false, 0, 1, |options, _| options.max_bytes_per_file = 64 * 1024);
    CHANNELS[..2].iter().for_each(|channel| world.consume(channel, 2));
    world.publish(1, 1000, Duration::ZERO);
    // The first one is being written.
    world.publish(1, 1000, Duration::ZERO);
    CHANNELS[..2].iter().for_each(|channel| world.finish(channel, 1));
    world.publish(1, 1000, Duration::ZERO);
    world.rest();
    let segment = world.files.segments()[0];
    let content = world.files.content(segment);
    assert!(content.windows(4096).any(|window| window.iter().all(|&byte| byte == 0)), "there is a hole");
    // The world asserts that nothing is damaged.
    world.crash(End::Kill);
    assert_eq!(world.problems, []);
    world.drain();
}

#[test]
fn a_read_that_fails_is_tried_again() {
    let mut world = World::new(false, 0, 1, |_, memory| *memory = 16 * 1024);
    world.consume("a", 0);
    for _ in 0..30 {
        world.publish(5, 200, Duration::ZERO);
        world.work(usize::MAX);
        world.sleep(60 * MS);
    }
    world.files.failing_reads = true;
    world.consume("a", 2500);
    world.work(usize::MAX);
    assert!(world.bench.topic.health().is_err());
    world.files.failing_reads = false;
    world.sleep(Duration::from_secs(2));
    world.work(usize::MAX);
    assert_eq!(world.bench.topic.health(), Ok(()));
    world.drain();
}

#[test]
fn a_read_that_fails_for_another_reason_than_the_medium_never_gives_up() {
    let mut world = World::new(false, 0, 1, |_, memory| *memory = 16 * 1024);
    for _ in 0..30 {
        world.publish(5, 200, Duration::ZERO);
        world.work(usize::MAX);
        world.sleep(60 * MS);
    }
    (world.files.failing_reads, world.files.is_busy) = (true, true);
    world.consume("a", 2500);
    let before = world.files.done;
    for _ in 0..100 {
        world.work(usize::MAX);
        world.sleep(Duration::from_secs(1));
    }
    assert!(world.files.done - before < 1000, "a second passes between two tries");
    assert!(world.bench.topic.health().is_err());
    (world.files.failing_reads, world.files.is_busy) = (false, false);
    world.sleep(Duration::from_secs(2));
    // The world asserts that nothing is damaged.
    world.drain();
}

#[test]
fn a_channel_that_was_deleted_does_not_come_back_from_an_old_nsqd_dat() {
    for is_known in [true, false] {
        let mut world = durable();
        let name = ChannelName::new("a").expect("a name");
        if is_known {
            world.publish(3, 10, Duration::ZERO);
            world.rest();
        }
        world.saved = Some(world.bench.topic.entry());
        world.end("a", true);
        world.publish(3, 10, Duration::ZERO);
        // What fails makes the next batch a checkpoint.
        world.files.failing = 1;
        world.rest();
        // Each process begins with a checkpoint.
        for _ in 0..3 {
            world.crash(End::Kill);
            assert!(!world.bench.topic.has_channel(&name));
            world.rest();
            assert!(world.files.recover().gone.contains_key(&name));
        }
        // Until `nsqd.dat` does not list it any more.
        world.saved = None;
        world.crash(End::Kill);
        world.rest();
        assert!(world.files.recover().gone.is_empty());
        world.consume("a", 0);
        world.rest();
        world.crash(End::Kill);
        assert!(world.bench.topic.has_channel(&name));
        world.drain();
    }
}

#[test]
fn a_flipped_bit_costs_one_message_and_is_counted() {
    let mut world = durable();
    world.consume("a", 0);
    world.consume("b", 0);
    world.publish(10, 40, Duration::ZERO);
    world.rest();
    world.crash(End::Kill);
    let segment = world.files.segments()[0];
    let at = position(&mut world.files, segment, b"00000004");
    world.damaged = true;
    world.files.flip(segment, (at + 20) * 8);
    world.crash(End::Kill);
    world.consume("a", 100);
    world.work(usize::MAX);
    let numbers: Vec<_> = world.held["a"].iter().map(|(_, number)| *number).collect();
    assert_eq!(numbers, [0, 1, 2, 3, 5, 6, 7, 8, 9]);
    let problems: Vec<_> = world.problems.iter().map(|problem| (problem.file, problem.what.clone())).collect();
    // The segment was not sealed, so it was looked at when the topic started, and then it was read.
    let problem = (segment, Trouble::Damaged(16 + 26 + 48));
    assert_eq!(problems, [problem.clone(), problem]);
    let stats = world.bench.topic.stats(None, false);
    let lost: Vec<_> = stats.channels.iter().map(|channel| channel.lost).collect();
    assert_eq!((stats.lost, &lost[..]), (1, &[1, 0][..]), "the other channel has not come to it");
    world.drain();
    let stats = world.bench.topic.stats(None, false);
    assert_eq!((stats.lost, world.problems.len()), (2, 2), "it is not reported again");
}

/// Fifty messages at a time, of which one is deferred for hours and one is held by whoever got it.
fn with_stragglers(world: &mut World, rounds: usize) {
    const HOURS: Duration = Duration::from_secs(3 * 60 * 60);
    for _ in 0..rounds {
        world.publish(48, 100, Duration::ZERO);
        world.publish(1, 100, HOURS);
        world.publish(1, 100, Duration::ZERO);
        world.work(usize::MAX);
        for channel in &CHANNELS[..2] {
            let held = world.held[channel].len();
            let kept = held - 49;
            // The one published last stays, and so do those from before.
            (0..48).for_each(|_| world.finish(channel, kept));
            assert_eq!(world.held[channel].len(), kept + 1);
        }
        world.work(usize::MAX);
        world.sleep(60 * MS);
    }
}

#[test]
fn stragglers_do_not_keep_files() {
    for (durable, memory) in [(true, 1 << 30), (false, 1 << 30), (true, 256 * 1024), (false, 256 * 1024)] {
        let mut world = World::new(durable, 0, 1, |options, limit| {
            (options.msg_timeout, *limit) = (Duration::from_secs(60 * 60), memory);
            (options.max_msg_timeout, options.max_bytes_per_file) = (options.msg_timeout, 64 * 1024);
        });
        CHANNELS[..2].iter().for_each(|channel| world.consume(channel, 2500));
        with_stragglers(&mut world, 200);
        world.rest();
        let kept = 2 * 200 * (108 + 42 + 16);
        let length: usize = world.files.segments().into_iter().map(|file| world.files.content(file).len()).sum();
        let written = world.files.written;
        assert!(
            length < 6 * kept && written > 20 * kept as u64,
            "{length} bytes of files for {kept}, {written} written"
        );
        assert!(written < 2 * 200 * 50 * (108 + 42), "{written} bytes written, durable: {durable}, {memory} of memory");
        world.strict = true;
        world.crash(End::WorstPowerOff);
        world.sleep(Duration::from_secs(4 * 60 * 60));
        world.drain();
    }
}

#[test]
fn without_the_journal_stragglers_come_to_everybody() {
    for (durable, in_head) in [(true, false), (false, false), (true, true), (false, true)] {
        let mut world = World::new(durable, 0, 1, |options, _| {
            options.msg_timeout = Duration::from_secs(60 * 60);
            (options.max_msg_timeout, options.max_bytes_per_file) = (options.msg_timeout, 16 * 1024);
        });
        CHANNELS[..2].iter().for_each(|channel| world.consume(channel, 2500));
        with_stragglers(&mut world, 60);
        world.rest();
        // In the head of the journal, or in one of the batches behind the checkpoint.
        world.rot_journal(|bits| if in_head { 8 * 3 } else { bits / 2 });
        assert!(!world.problems.is_empty());
        world.sleep(Duration::from_secs(4 * 60 * 60));
        world.drain();
    }
}

#[test]
fn what_was_handed_out_in_memory_is_not_lost_with_the_batch_that_tells_of_it() {
    // In the length of the batch, in its checksum, and in what it says; or nowhere.
    for flipped in [Some(0), Some(8 * 3), Some(8 * 7), Some(8 * 60 + 3), None] {
        let mut world = overflowing(5);
        world.consume("a", 3);
        world.publish(4, 10, Duration::ZERO);
        world.publish(1, 10, Duration::from_secs(5));
        world.finish("a", 0);
        // The journal is told of a channel, and so how far the messages were given to them.
        world.bench.topic.open_store();
        world.pause("b", true);
        world.rest();
        let journal = *world.files.names().last().expect("a journal");
        let end = world.files.content(journal).len();
        assert!(world.files.segments().is_empty(), "they are in memory only");
        world.give(Input::Shutdown);
        world.work(usize::MAX);
        assert!(world.files.content(journal).len() > end + 60);
        match flipped {
            Some(bit) => world.rot_journal(|_| 8 * end + bit),
            None => world.crash(End::Kill),
        }
        let stats = world.bench.topic.stats(None, false);
        let counts: Vec<_> = stats.channels.iter().map(|it| (it.depth, it.deferred_count)).collect();
        // Of a damaged batch, what was finished comes again, and what was deferred comes early.
        assert_eq!(counts, if flipped.is_some() { [(5, 0), (5, 0)] } else { [(3, 1), (4, 1)] }, "{flipped:?}");
        assert_eq!(world.problems.len(), usize::from(flipped.is_some()), "{:?}", world.problems);
        world.consume("a", 5);
        world.rest();
        (0..2).for_each(|_| world.finish("a", 0));
        world.rest();
        world.remember();
        world.strict = true;
        world.crash(End::Kill);
        let a = &world.bench.topic.stats(None, false).channels[0];
        assert_eq!(a.depth + a.deferred_count as u64, if flipped.is_some() { 3 } else { 2 }, "{a:?}");
        world.drain();
    }
}

fn position(files: &mut Files, file: FileName, what: &[u8]) -> usize {
    files.content(file).windows(what.len()).position(|window| window == what).expect("it is there")
}
