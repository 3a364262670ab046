//! One nsqd on a disk that lies, each scenario over a fixed set of seeds and in both modes.
//!
//! What must hold is in the ledger: durable topics lose nothing that was acknowledged or delivered, others what the
//! dead process, or its machine without power, says that it had not written. `NSQ_SIM_SEED=17` replays one seed; see
//! `nsq_sim::runner`.
#![cfg(madsim)]

use madsim::time::{Instant, sleep, timeout};
use nsq_core::message::PAYLOAD_HEADER;
use nsq_core::random::Random;
use nsq_core::storage::record::{DEFERRED_EXTRA, HEADER};
use nsq_core::storage::segment::REGION_HEAD;
use nsq_sim::checks;
use nsq_sim::cluster::Found;
use nsq_sim::disk::{IN_A_CHECKPOINT, IN_A_DELETION, IN_A_REMOVAL, IN_A_ROLL};
use nsq_sim::runner::{Sim, sweep};
use nsq_sim::world::{LATENCY, Plan, World};
use std::ops::Range;
use std::time::Duration;

const SEEDS: Range<u64> = 0..25;
/// A disk that works again has been tried by then.
const PROBED: Duration = millis(2500);

/// The most that a chunk, or a segment that has to be small, is long.
const CHUNK: u64 = 256 << 10;

const fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// More messages than memory is for, in files that are soon full.
fn overflowing(plan: &mut Plan, random: &mut Random) {
    plan.keeping.mem_queue_size = 2 * random.below(2);
    plan.keeping.max_bytes_per_file = (1 + random.below(8)) << 10;
    plan.producer.pause = millis(1 + random.below(60));
}

#[test]
fn processes_are_killed() {
    sweep("processes_are_killed", SEEDS, async |sim: Sim| {
        sim.require(&["attempts_gone_on", "delays_kept"]);
        sim.require(&["kills", "torn_writes", "messages_in_memory_only", "messages_found", "segment_reads"]);
        sim.require(&["kills_while_starting", IN_A_ROLL, IN_A_CHECKPOINT, IN_A_REMOVAL]);
        let mut world = World::start(sim, |plan, _| plan.consumer.delay = millis(10_000)).await;
        for _ in 0..3 + world.random.below(4) {
            sleep(world.up_to(millis(1500))).await;
            crash_often(&mut world, 50, false).await;
            sleep(world.up_to(millis(1000))).await;
            world.restart().await;
        }
        world.finish().await;
        world.check_lives();
    });
}

#[test]
fn power_goes_between_any_two_operations() {
    sweep("power_goes_between_any_two_operations", SEEDS, async |sim: Sim| {
        sim.require(&["attempts_gone_on", "delays_kept", "unsynced_for_a_while"]);
        sim.require(&[
            "cuts",
            "power_offs_while_starting",
            "torn_files",
            "undone_directory_changes",
            "messages_unsynced",
        ]);
        sim.require(&["crashes_in_a_carry", IN_A_ROLL, IN_A_CHECKPOINT, IN_A_REMOVAL]);
        let mut world = World::start(sim, |plan, _| plan.consumer.delay = millis(10_000)).await;
        for _ in 0..3 + world.random.below(4) {
            crash_often(&mut world, 150, true).await;
            world.restart().await;
        }
        world.finish().await;
        world.check_lives();
    });
}

/// A crash within so many operations of the disk, or in the next roll of a segment and its like; and perhaps more while
/// nsqd starts. It is not started.
async fn crash_often(world: &mut World, within: u64, power_off: bool) {
    crash_within(world, within, power_off).await;
    while world.random.below(2) == 0 {
        world.cluster.restart(&world.nsqd);
        crash_within(world, 30, power_off).await;
    }
}

async fn crash_within(world: &mut World, operations: u64, power_off: bool) {
    let operations = world.random.below(operations);
    match [IN_A_ROLL, IN_A_CHECKPOINT, IN_A_REMOVAL].get(world.random.below(6) as usize) {
        Some(stage) => crash_when(world, world.nsqd.disk.cut_in(stage, operations % 4), power_off).await,
        None => crash_when(world, world.nsqd.disk.cut_after(operations), power_off).await,
    }
}

async fn crash_when(world: &World, disk_is_dark: impl Future<Output = ()>, power_off: bool) {
    let cut = timeout(millis(3000), disk_is_dark).await.is_ok();
    world.sim.count("cuts", u64::from(cut));
    world.cluster.crash(&world.nsqd, power_off);
    sleep(millis(100)).await;
}

#[test]
fn files_roll_and_go_under_power_cuts() {
    sweep("files_roll_and_go_under_power_cuts", SEEDS, async |sim: Sim| {
        sim.require(&["cuts", "segments_removed", "topics_deleted", "channels_deleted", "emptied"]);
        sim.require(&["crashes_in_a_carry", IN_A_ROLL, IN_A_CHECKPOINT, IN_A_REMOVAL, IN_A_DELETION]);
        let mut world = World::start(sim, overflowing).await;
        for _ in 0..4 {
            sleep(world.up_to(millis(600))).await;
            let (topic, channels) = world.any_topic();
            let channel = channels[world.random.below(channels.len() as u64) as usize].clone();
            let (channel, delete, what) = match world.random.below(4) {
                0 => (None, true, "topics_deleted"),
                1 => (Some(&*channel), true, "channels_deleted"),
                2 => (None, false, "emptied"),
                _ => (Some(&*channel), false, "emptied"),
            };
            world.sim.count(what, 1);
            let (cluster, nsqd, within) = (world.cluster.clone(), world.nsqd.clone(), world.random.below(4));
            let power = async {
                match what {
                    "topics_deleted" => crash_when(&world, world.nsqd.disk.cut_in(IN_A_DELETION, within), true).await,
                    _ => crash_often(&mut world, 40, true).await,
                }
                world.restart().await;
            };
            nsq_sim_rt::join!(cluster.drop(&nsqd, &topic, channel, delete), power);
            recreate(&world, &topic, &channels).await;
        }
        world.finish().await;
        checks::dropped_stays_dropped(&world.cluster.ledger.open(), 2 * LATENCY);
    });
}

async fn recreate(world: &World, topic: &str, channels: &[String]) {
    let names: Vec<&str> = channels.iter().map(String::as_str).collect();
    world.cluster.create(&world.nsqd, topic, &names).await;
}

#[test]
fn deleted_topics_stay_deleted() {
    sweep("deleted_topics_stay_deleted", SEEDS, async |sim: Sim| {
        sim.require(&["power_offs", "undone_directory_changes"]);
        let mut world = World::start(sim, overflowing).await;
        for _ in 0..3 {
            sleep(world.up_to(millis(600))).await;
            let net = world.sim.net().clone();
            net.partition(&world.clients, &[world.nsqd.machine.node]);
            let (topic, channels) = world.any_topic();
            world.cluster.drop(&world.nsqd, &topic, None, true).await;
            world.cluster.crash(&world.nsqd, true);
            world.restart().await;
            let is_there = world.nsqd.directory().is_some_and(|all| all.contains(&(topic.clone(), None)));
            assert!(!is_there, "{topic} was deleted, and is back");
            recreate(&world, &topic, &channels).await;
            net.heal_all();
        }
        world.finish().await;
        checks::dropped_stays_dropped(&world.cluster.ledger.open(), 2 * LATENCY);
    });
}

#[test]
fn clean_ends_lose_nothing() {
    sweep("clean_ends_lose_nothing", SEEDS, async |sim: Sim| {
        sim.require(&["clean_ends", "messages_found", "attempts_gone_on", "delays_kept"]);
        let mut world = World::start(sim, |_, _| {}).await;
        for _ in 0..3 {
            sleep(world.up_to(millis(2000))).await;
            world.cluster.end(&world.nsqd).await;
            world.restart().await;
        }
        assert!(world.cluster.ledger.open().excused.is_empty(), "a clean end excuses nothing");
        world.finish().await;
        world.check_lives();
    });
}

#[test]
fn the_disk_is_full_and_is_not() {
    sweep("the_disk_is_full_and_is_not", SEEDS, async |sim: Sim| {
        sim.require(&[
            "full_disks",
            "red_pings",
            "refused_by_the_disk",
            "deliveries_with_a_full_disk",
            "recovered_alone",
        ]);
        let world = World::start(sim, |plan, random| {
            overflowing(plan, random);
            plan.producer.messages = 400;
        });
        let mut world = world.await;
        for _ in 0..2 {
            sleep(world.up_to(millis(1000))).await;
            fill(&mut world).await;
        }
        if world.random.below(2) == 0 {
            world.cluster.crash(&world.nsqd, world.random.below(2) == 0);
            world.restart().await;
        }
        world.finish().await;
    });
}

/// The disk is full for a while, and gets room again when nobody publishes.
async fn fill(world: &mut World) {
    let room = world.random.below(4000);
    let started = Instant::now();
    while world.nsqd.health().is_ok() && world.producing() && started.elapsed() < millis(20_000) {
        take_room(world, room);
        sleep(millis(10)).await;
    }
    if world.nsqd.health().is_err() {
        world.sim.count("full_disks", 1);
        let before = world.cluster.ledger.open().deliveries.len();
        for _ in 0..1 + world.random.below(100) {
            take_room(world, room);
            let is_red = world.cluster.ping(&world.nsqd).await == Ok(500);
            world.sim.count("red_pings", is_red.into());
            sleep(millis(20)).await;
        }
        let delivered = world.cluster.ledger.open().deliveries.len() - before;
        world.sim.count("deliveries_with_a_full_disk", delivered as u64);
        let net = world.sim.net().clone();
        net.partition(&world.clients, &[world.nsqd.machine.node]);
        world.nsqd.disk.configure(|faults| faults.capacity = u64::MAX);
        sleep(PROBED).await;
        assert_eq!(world.nsqd.health(), Ok(()), "there is room again");
        assert_eq!(world.cluster.ping(&world.nsqd).await, Ok(200), "/ping is green");
        world.sim.count("recovered_alone", 1);
        net.heal_all();
    }
    world.nsqd.disk.configure(|faults| faults.capacity = u64::MAX);
}

/// Others take all but so much of the room that there is, also what nsqd gives up.
fn take_room(world: &World, room: u64) {
    let used = world.nsqd.disk.used();
    world.nsqd.disk.configure(|faults| faults.capacity = faults.capacity.min(used + room));
}

#[test]
fn operations_fail_now_and_then() {
    sweep("operations_fail_now_and_then", 0..250, async |sim: Sim| {
        sim.require(&["failed_operations", "failed_and_done", "slow_fsyncs", "kills", "power_offs", "topics_deleted"]);
        sim.require(&["dropped_names"]);
        sim.require(&["refused_by_the_disk", "crashes_in_a_carry", IN_A_ROLL, IN_A_CHECKPOINT, IN_A_REMOVAL]);
        let mut world = World::start(sim, overflowing).await;
        for round in 0..3 {
            let (writes, reads) = (5 + world.random.below(60), 5 + world.random.below(60));
            world.nsqd.disk.configure(|faults| {
                (faults.fail_one_in, faults.fail_reads_one_in) = (writes, reads);
                (faults.slow_one_in, faults.slow) = (20, millis(2000));
            });
            let deleted = Some(world.any_topic()).filter(|_| world.random.below(2) == 0);
            let (cluster, nsqd) = (world.cluster.clone(), world.nsqd.clone());
            let deletion = async {
                if let Some((topic, _)) = &deleted {
                    cluster.drop(&nsqd, topic, None, true).await;
                }
            };
            let end = async {
                sleep(world.up_to(millis(4000))).await;
                // What fails in the last round is made good without a new start.
                if round < 2 {
                    let power_off = world.random.below(2) == 0;
                    crash_within(&mut world, 60, power_off).await;
                    world.nsqd.disk.configure(|faults| *faults = Default::default());
                    world.restart().await;
                }
            };
            nsq_sim_rt::join!(deletion, end);
            if let Some((topic, channels)) = deleted {
                world.sim.count("topics_deleted", 1);
                recreate(&world, &topic, &channels).await;
            }
        }
        world.finish().await;
        checks::dropped_stays_dropped(&world.cluster.ledger.open(), 2 * LATENCY);
    });
}

/// The journal that knows of the first channel's end may know nothing of the second's beginning yet.
#[test]
fn channels_that_are_created_again_stay() {
    sweep("channels_that_are_created_again_stay", SEEDS, async |sim: Sim| {
        sim.require(&["kills", "power_offs", "slow_fsyncs"]);
        let mut world = World::start(sim, overflowing).await;
        for _ in 0..4 {
            world.nsqd.disk.configure(|faults| (faults.slow_one_in, faults.slow) = (2, millis(100)));
            sleep(world.up_to(millis(600))).await;
            let (topic, channels) = world.any_topic();
            let channel = channels[world.random.below(channels.len() as u64) as usize].as_str();
            world.cluster.drop(&world.nsqd, &topic, Some(channel), true).await;
            sleep(world.up_to(millis(100))).await;
            world.cluster.create(&world.nsqd, &topic, &[channel]).await;
            sleep(world.up_to(millis(20))).await;
            crash(&mut world);
            world.nsqd.disk.configure(|faults| *faults = Default::default());
            world.restart().await;
            let place = (topic, Some(channel.to_owned()));
            assert!(world.nsqd.directory().is_some_and(|all| all.contains(&place)), "{place:?} was created again");
        }
        world.finish().await;
    });
}

/// A start refuses nothing but to serve: what it cannot read, or make safe, is there for a later one.
#[test]
fn starts_meet_failures() {
    // Most failures are in nobody's way.
    sweep("starts_meet_failures", 0..120, async |sim: Sim| {
        sim.require(&["refused_starts", "topics_left_alone", "failed_and_done", "dropped_pages", "slow_fsyncs"]);
        sim.require(&["kills_while_starting", "power_offs_while_starting", "full_disks", "messages_found"]);
        let world = World::start(sim.clone(), |plan, random| {
            overflowing(plan, random);
            plan.producer.messages += 100;
        });
        let mut world = world.await;
        // The directories' numbers are not those that new ones would get.
        let (topic, channels) = world.any_topic();
        world.cluster.drop(&world.nsqd, &topic, None, true).await;
        recreate(&world, &topic, &channels).await;
        for _ in 0..3 {
            sleep(world.up_to(millis(1500))).await;
            crash(&mut world);
            for _ in 0..1 + world.random.below(3) {
                trouble(&mut world);
                world.cluster.restart(&world.nsqd);
                let long = [100, 4000][world.random.below(2) as usize];
                sleep(world.up_to(millis(long))).await;
                crash(&mut world);
            }
            world.nsqd.disk.configure(|faults| *faults = Default::default());
            world.restart().await;
            assert_eq!(world.nsqd.health(), Ok(()), "the disk is sound");
        }
        world.finish().await;
        sim.count("topics_left_alone", sim.errors("the messages in there are not used") as u64);
        // Of a journal whose directory was never fsynced, an earlier try may be there: nobody relied on it.
        let journals = sim.errors("journal is set aside");
        assert_eq!(sim.errors("is set aside"), journals, "nothing is wrong with any other file");
    });
}

fn crash(world: &mut World) {
    let power_off = world.random.below(2) == 0;
    world.cluster.crash(&world.nsqd, power_off);
}

/// Something is wrong with the disk: its medium fails now and then, or this process may not use all of it, and perhaps
/// it is full or slow.
fn trouble(world: &mut World) {
    let one_in = |random: &mut Random| [0, 1 + random.below(3), 5 + random.below(30)][random.below(3) as usize];
    let [writes, syncs, reads] = [(); 3].map(|()| one_in(&mut world.random));
    let [of_others, is_full, is_slow] = [2, 3, 3].map(|one_in| world.random.below(one_in) == 0);
    let reads = if of_others && world.random.below(2) == 0 { 1 } else { reads };
    let within = ["", "topics", "topics/", "topics/t0"][world.random.below(4) as usize];
    let room = world.random.below(4000);
    world.sim.count("full_disks", is_full.into());
    let capacity = if is_full { world.nsqd.disk.used() + room } else { u64::MAX };
    world.nsqd.disk.configure(|faults| {
        (faults.fail_one_in, faults.fail_syncs_one_in, faults.fail_reads_one_in) = (writes, syncs, reads);
        (faults.of_others, faults.within) = (of_others, within);
        (faults.capacity, faults.slow_one_in, faults.slow) = (capacity, 3 * u64::from(is_slow), millis(2000));
    });
}

#[test]
fn fsyncs_fail_and_power_goes() {
    sweep("fsyncs_fail_and_power_goes", SEEDS, async |sim: Sim| {
        sim.require(&["dropped_pages", "cuts"]);
        let world = World::start(sim, |plan, random| {
            overflowing(plan, random);
            // What was given to the disk soon has to give its memory back.
            plan.keeping.mem_queue_bytes = [1 << 30, 24 << 10][random.below(2) as usize];
        });
        let mut world = world.await;
        for _ in 0..4 {
            let one_in = 1 + world.random.below(6);
            world.nsqd.disk.configure(|faults| faults.fail_syncs_one_in = one_in);
            sleep(world.up_to(millis(500))).await;
            crash_within(&mut world, 60, true).await;
            world.nsqd.disk.configure(|faults| *faults = Default::default());
            world.restart().await;
        }
        world.finish().await;
    });
}

/// After a kill the system still shows what a failed fsync has dropped, and takes it for written. A start must not rely
/// on that.
#[test]
fn fsyncs_fail_and_a_kill_hides_it() {
    // It takes a publish that was refused and is delivered all the same.
    sweep("fsyncs_fail_and_a_kill_hides_it", 0..200, async |sim: Sim| {
        sim.require(&["dropped_pages", "kills", "power_offs", "messages_found"]);
        let mut world = World::start(sim, overflowing).await;
        for _ in 0..4 {
            let one_in = 1 + world.random.below(6);
            world.nsqd.disk.configure(|faults| faults.fail_syncs_one_in = one_in);
            sleep(world.up_to(millis(800))).await;
            world.cluster.crash(&world.nsqd, false);
            world.nsqd.disk.configure(|faults| *faults = Default::default());
            world.restart().await;
            sleep(world.up_to(millis(300))).await;
            world.cluster.crash(&world.nsqd, true);
            world.restart().await;
        }
        world.finish().await;
    });
}

#[test]
fn deferred_messages_keep_their_time() {
    sweep("deferred_messages_keep_their_time", SEEDS, async |sim: Sim| {
        sim.require(&["kills", "power_offs", "clean_ends", "clock_steps", "deferred", "delays_kept"]);
        let world = World::start(sim, |plan, random| {
            plan.producer.defer_one_in = 1 + random.below(2);
            plan.producer.batch_one_in = 0;
        });
        let mut world = world.await;
        // A clock that goes forward while nsqd is down makes messages due.
        let forward = world.random.below(2) == 0;
        for _ in 0..4 {
            sleep(world.up_to(millis(1500))).await;
            let hour = 3_600_000_000_000;
            match world.random.below(3) {
                0 => world.cluster.end(&world.nsqd).await,
                way => world.cluster.crash(&world.nsqd, way == 1),
            }
            let off = world.random.below(hour) as i64;
            world.nsqd.machine.skew(if forward { off } else { world.nsqd.machine.skewed() - off });
            sleep(world.up_to(millis(1000))).await;
            world.restart().await;
        }
        world.finish().await;
        if !forward {
            checks::never_early(&world.cluster.ledger.open(), world.plan.consumer.msg_timeout, 2 * LATENCY);
            world.check_lives();
        }
    });
}

#[test]
fn a_slow_reader_follows_a_rolling_writer() {
    sweep("a_slow_reader_follows_a_rolling_writer", SEEDS, async |sim: Sim| {
        sim.require(&["segments_made", "segments_removed", "segment_reads"]);
        let world = World::start(sim.clone(), |plan, random| {
            overflowing(plan, random);
            plan.keeping.mem_queue_bytes = 64 << 10;
            plan.producer.messages = 600;
            plan.producer.batch_one_in = 2;
            plan.producer.pause = millis(1 + random.below(5));
            plan.consumer.work = millis(20);
            plan.consumer.rdy = 1 + random.below(5) as u32;
        });
        world.await.finish().await;
        let of_clients = sim.errors(": closing - E_");
        assert_eq!(sim.errors("") - of_clients, 0, "a sound disk gives nobody a reason to complain");
    });
}

#[test]
fn flipped_bits_cost_what_they_hit() {
    sweep("flipped_bits_cost_what_they_hit", SEEDS, async |sim: Sim| {
        sim.require(&["flipped_bodies", "reported_damage", "counted_as_lost"]);
        let world = World::start(sim.clone(), |plan, random| {
            overflowing(plan, random);
            plan.consumer.work = millis(300);
        });
        let mut world = world.await;
        for _ in 0..4 {
            sleep(world.up_to(millis(1000))).await;
            world.cluster.end(&world.nsqd).await;
            for _ in 0..3 {
                rot(&world);
            }
            world.restart().await;
        }
        world.finish().await;
        sim.count("reported_damage", sim.errors("damaged") as u64);
        sim.count("counted_as_lost", world.nsqd.lost());
    });
}

/// A bit of a message that is on disk flips, which excuses this message and no other.
fn rot(world: &World) {
    let entries = &mut *world.cluster.ledger.open();
    let bodies: Vec<_> = entries.published.keys().cloned().collect();
    if let Some(body) = world.nsqd.disk.flip_within(".log", &bodies) {
        let topic = entries.published[body].topic.clone();
        entries.excused.entry(("nsqd".into(), topic, String::new())).or_default().insert(body.clone());
        world.sim.count("flipped_bodies", 1);
    }
}

#[test]
fn flipped_bits_never_stop_a_start() {
    sweep("flipped_bits_never_stop_a_start", SEEDS, async |sim: Sim| {
        sim.require(&["flipped_bits"]);
        let mut world = World::start(sim.clone(), overflowing).await;
        for _ in 0..4 {
            sleep(world.up_to(millis(1000))).await;
            world.cluster.crash(&world.nsqd, world.random.below(2) == 0);
            // `nsqd.dat` has no checksum, in the format that it shares with others.
            for ending in [".log", ".log", ".journal"] {
                world.nsqd.disk.flip(ending);
            }
            world.restart().await;
        }
        world.drain().await;
        checks::nothing_invented(&world.cluster.ledger.open());
    });
}

#[test]
fn pages_that_cannot_be_read_cost_what_is_in_them() {
    sweep("pages_that_cannot_be_read_cost_what_is_in_them", SEEDS, async |sim: Sim| {
        sim.require(&["spoiled_pages", "messages_spared", "reported_pages", "reported_damage", "mended"]);
        let world = World::start(sim.clone(), |plan, random| {
            overflowing(plan, random);
            plan.keeping.max_bytes_per_file = (8 + random.below(100)) << 10;
            plan.consumer.work = millis(500);
        });
        let mut world = world.await;
        for _ in 0..3 {
            sleep(world.up_to(millis(2000))).await;
            match world.random.below(3) {
                0 => world.cluster.end(&world.nsqd).await,
                way => world.cluster.crash(&world.nsqd, way == 1),
            }
            if world.random.below(3) == 0 {
                world.nsqd.disk.mend();
                sim.count("mended", 1);
            }
            spoil(&world);
            world.nsqd.disk.spoil(".journal");
            world.restart().await;
        }
        world.finish().await;
        sim.count("reported_pages", sim.errors("cannot be read at") as u64);
        sim.count("reported_damage", sim.errors("damaged") as u64);
    });
}

/// A page with messages cannot be read any more. This excuses those that have a byte in it, and those in a region whose
/// head has, and no others.
fn spoil(world: &World) {
    const REGION: &[u8] = b"CHNK";
    let Some((_, content, page)) = world.nsqd.disk.spoil(".log") else { return };
    let entries = &mut *world.cluster.ledger.open();
    let is_hit = |begin: usize, end: usize| begin < page.end && page.start < end;
    for (body, publish) in &entries.published {
        // It may be there twice.
        let places = content.windows(body.len()).enumerate().filter(|(_, window)| *window == body);
        for (place, _) in places {
            let head = content[..place].windows(REGION.len()).rposition(|window| window == REGION);
            let is_lost = is_hit(place - (HEADER + DEFERRED_EXTRA + PAYLOAD_HEADER), place + body.len())
                || head.is_some_and(|head| is_hit(head, head + REGION_HEAD));
            let excused = entries.excused.entry(("nsqd".into(), publish.topic.clone(), String::new())).or_default();
            is_lost.then(|| excused.insert(body.clone()));
            world.sim.count("messages_spared", u64::from(!is_lost));
        }
    }
}

#[test]
fn flipped_bits_in_journals_lose_nothing() {
    sweep("flipped_bits_in_journals_lose_nothing", SEEDS, async |sim: Sim| {
        sim.require(&["clean_ends", "flipped_bits", "reported_damage"]);
        let mut world = World::start(sim.clone(), |plan, random| {
            overflowing(plan, random);
            plan.keeping.max_bytes_per_file = (8 + random.below(100)) << 10;
            plan.consumer.work = millis(500);
        })
        .await;
        for _ in 0..3 {
            sleep(world.up_to(millis(2000))).await;
            world.cluster.end(&world.nsqd).await;
            world.nsqd.disk.flip(".journal");
            world.restart().await;
        }
        world.finish().await;
        sim.count("reported_damage", sim.errors("damaged") as u64);
    });
}

#[test]
fn a_second_start_finds_the_same() {
    sweep("a_second_start_finds_the_same", SEEDS, async |sim: Sim| {
        sim.require(&["messages_found", "attempts_found", "deferrals_found"]);
        let mut world = World::start(sim, overflowing).await;
        // What a power cut has torn is counted until it is read.
        let mut is_torn = false;
        for _ in 0..3 {
            sleep(world.up_to(millis(1500))).await;
            let net = world.sim.net().clone();
            net.partition(&world.clients, &[world.nsqd.machine.node]);
            let power_off = world.random.below(2) == 0;
            world.cluster.crash(&world.nsqd, power_off);
            is_torn |= power_off;
            let first = world.nsqd.found();
            world.restart().await;
            let queued = world.nsqd.queued();
            for (place, count) in &queued {
                let found = first.get(place).map_or(0, Vec::len) as u64;
                assert!(
                    *count == found || *count > found && is_torn,
                    "{count} in {place:?}, of which {found} are there"
                );
            }
            sleep(world.up_to(millis(100))).await;
            world.cluster.crash(&world.nsqd, power_off);
            assert_eq!(world.nsqd.found(), due_by_now(&world, first), "nothing has happened since");
            world.restart().await;
            assert_eq!(world.nsqd.queued(), queued, "nothing has happened since");
            net.heal_all();
        }
        world.finish().await;
    });
}

/// What was found, with deferrals that have ended.
fn due_by_now(world: &World, mut found: Found) -> Found {
    let now = world.nsqd.machine.elapsed();
    for (_, attempts, due) in found.values_mut().flatten() {
        *due = due.filter(|due| *due > now);
        world.sim.count("attempts_found", (*attempts).into());
        world.sim.count("deferrals_found", due.is_some().into());
    }
    found.values_mut().for_each(|messages| messages.sort_unstable());
    found
}

/// The answer to a pause waits for `nsqd.dat`, so whatever happens then, what is paused stays paused.
#[test]
fn pauses_outlive_processes() {
    sweep("pauses_outlive_processes", SEEDS, async |sim: Sim| {
        sim.require(&["channel_pauses", "topic_pauses", "kills", "power_offs", "clean_ends", "messages_found"]);
        let mut world = World::start(sim, |_, _| {}).await;
        while world.producing() {
            sleep(world.up_to(millis(500))).await;
            let (topic, channels) = world.any_topic();
            let channel = channels.get(world.random.below(channels.len() as u64 + 1) as usize).cloned();
            let span = world.up_to(millis(3000));
            let (cluster, nsqd) = (world.cluster.clone(), world.nsqd.clone());
            let end = async {
                sleep(world.up_to(span)).await;
                match world.random.below(3) {
                    0 => world.cluster.end(&world.nsqd).await,
                    way => world.cluster.crash(&world.nsqd, way == 1),
                }
                world.restart().await;
            };
            nsq_sim_rt::join!(cluster.pause(&nsqd, &topic, channel.as_deref(), span), end);
        }
        world.finish().await;
        checks::pauses_are_kept(&world.cluster.ledger.open(), 2 * LATENCY);
    });
}

/// What little is needed of a segment is carried out of it, and the segment goes.
#[test]
fn stragglers_do_not_keep_files() {
    const FILLER: u64 = 10_000;
    sweep("stragglers_do_not_keep_files", SEEDS, async |sim: Sim| {
        sim.require(&["stragglers", "most_is_gone", "segments_made"]);
        let world = World::start(sim.clone(), |plan, random| {
            plan.keeping.mem_queue_size = 2 * random.below(2);
            plan.keeping.max_bytes_per_file = 16 << 10;
            plan.topics.truncate(1);
            (plan.producer.messages, plan.producer.pause, plan.producer.filler) = (800, millis(10), FILLER);
            (plan.producer.defer_one_in, plan.producer.defer) = (50, millis(100_000));
            (plan.consumer.work, plan.consumer.forget) = (millis(5), 0);
        });
        let world = world.await;
        while world.producing() {
            sleep(millis(100)).await;
        }
        sleep(millis(10_000)).await;
        let needed: u64 = world.nsqd.found().values().flatten().map(|(body, ..)| body.len() as u64).sum();
        let (files, made) = (world.nsqd.segments(), world.published());
        sim.count("stragglers", world.nsqd.queued().values().sum());
        sim.count("most_is_gone", (made > files.iter().sum::<u64>() * 3).into());
        // Segments of which a quarter is needed stay; and the last ones, which nothing has been added to yet, or was
        // just now; and what has ended since the last look, as long as that are fewer than what is needed.
        let ended = world.nsqd.queued().values().sum::<u64>() * FILLER;
        let most = 4 * needed + 3 * CHUNK + ended;
        assert!(files.iter().sum::<u64>() <= most, "{files:?} are left of {made} bytes, of which {needed} are needed");
        world.finish().await;
    });
}
