//! One nsqd and what can happen to it and its clients, each scenario over a fixed set of seeds.
//!
//! `NSQ_SIM_SEED=17` replays one seed, `NSQ_SIM_SEEDS=1000` makes the sweeps longer; see `nsq_sim::runner`.
#![cfg(madsim)]

use madsim::time::sleep;
use nsq_sim::cluster::OVERFLOWS;
use nsq_sim::runner::{Sim, sweep};
use nsq_sim::world::World;
use std::ops::Range;
use std::time::Duration;

const SEEDS: Range<u64> = 0..25;

#[test]
fn consumers_die() {
    sweep("consumers_die", SEEDS, async |sim: Sim| {
        sim.require(&["consumers_died", "forgotten", "touches"]);
        sim.require(&OVERFLOWS);
        let world = World::start(sim, |plan, random| plan.consumer.die_one_in = 5 + random.below(20)).await;
        world.finish().await;
        world.check_timing();
    });
}

#[test]
fn nsqd_crashes() {
    sweep("nsqd_crashes", SEEDS, async |sim: Sim| {
        sim.require(&["kills", "power_offs", "messages_unsynced", "messages_in_memory_only", "refused_or_unknown"]);
        sim.require(&OVERFLOWS);
        sim.require(&["unsynced_for_a_while", "attempts_gone_on"]);
        let mut world = World::start(sim, |_, _| {}).await;
        for _ in 0..2 + world.random.below(4) {
            sleep(world.up_to(Duration::from_secs(6))).await;
            let power_off = world.random.below(2) == 0;
            world.cluster.crash(&world.nsqd, power_off);
            sleep(world.up_to(Duration::from_secs(20))).await;
            world.cluster.restart(&world.nsqd);
        }
        world.finish().await;
        world.check_lives();
    });
}

#[test]
fn partitions() {
    sweep("partitions", SEEDS, async |sim: Sim| {
        sim.require(&["partitions", "one_way_cuts", "holds", "net_stalls"]);
        sim.require(&OVERFLOWS);
        let mut world = World::start(sim, |_, _| {}).await;
        let loss = world.random.below(4) as f64 / 100.0;
        world.sim.net().all_links().loss(loss);
        while world.producing() {
            sleep(world.up_to(Duration::from_secs(5))).await;
            let (client, nsqd) = (world.any_client(), world.nsqd.machine.node);
            let net = world.sim.net().clone();
            match world.random.below(4) {
                0 => {
                    net.between(&[client], &[nsqd]).hold();
                    world.sim.count("holds", 1);
                }
                1 => {
                    net.partition(&[client], &[nsqd]);
                    world.sim.count("partitions", 1);
                }
                2 => {
                    net.cut(client, nsqd);
                    world.sim.count("one_way_cuts", 1);
                }
                _ => {
                    net.cut(nsqd, client);
                    world.sim.count("one_way_cuts", 1);
                }
            }
            sleep(world.up_to(Duration::from_secs(15))).await;
            net.heal_all();
        }
        world.finish().await;
    });
}

#[test]
fn slow_consumers() {
    sweep("slow_consumers", SEEDS, async |sim: Sim| {
        sim.require(&["stalls", "late_answers"]);
        sim.require(&OVERFLOWS);
        let world = World::start(sim, |plan, random| {
            plan.consumer.stall_one_in = 10 + random.below(40);
            plan.consumer.rdy = 1 + random.below(2500) as u32;
            plan.producer.pause = Duration::from_millis(1 + random.below(10));
            plan.producer.messages = 400;
            plan.producer.batch_one_in = 2;
        });
        let world = world.await;
        world.sim.net().configure(|config| (config.receive_window, config.send_buffer) = (8192, 8192));
        world.finish().await;
    });
}

#[test]
fn operators_at_work() {
    sweep("operators_at_work", SEEDS, async |sim: Sim| {
        sim.require(&["channel_pauses", "topic_pauses", "operations", "clock_steps"]);
        sim.require(&OVERFLOWS);
        let mut world = World::start(sim, |_, _| {}).await;
        while world.producing() {
            sleep(world.up_to(Duration::from_secs(2))).await;
            operate(&mut world).await;
        }
        world.finish().await;
        world.check_timing();
    });
}

async fn operate(world: &mut World) {
    world.sim.count("operations", 1);
    let at = world.random.below(world.plan.topics.len() as u64) as usize;
    let (topic, channels) = world.plan.topics[at].clone();
    let channel = &channels[world.random.below(channels.len() as u64) as usize];
    let span = world.up_to(Duration::from_secs(2));
    let (cluster, nsqd) = (&world.cluster, &world.nsqd);
    match world.random.below(9) {
        0 => cluster.drop(nsqd, &topic, Some(channel), false).await,
        1 => cluster.drop(nsqd, &topic, Some(channel), true).await,
        2 => cluster.drop(nsqd, &topic, None, false).await,
        3 => cluster.drop(nsqd, &topic, None, true).await,
        4 => nsqd.machine.skew(world.random.below(7_200_000_000_000) as i64 - 3_600_000_000_000),
        5 => cluster.create(nsqd, "unused", &["one", "two"]).await,
        6 => cluster.pause(nsqd, &topic, None, span).await,
        _ => cluster.pause(nsqd, &topic, Some(channel), span).await,
    }
    let names: Vec<&str> = channels.iter().map(String::as_str).collect();
    cluster.create(nsqd, &topic, &names).await;
}
