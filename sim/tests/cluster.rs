//! A whole NSQ and what can happen to it, each scenario over a fixed set of seeds.
//!
//! `NSQ_SIM_SEED=17` replays one seed, `NSQ_SIM_SEEDS=1000` makes the sweeps longer; see `nsq_sim::runner`.
#![cfg(madsim)]

use madsim::time::{Instant, sleep};
use nsq_sim::checks::discovery;
use nsq_sim::fleet::Consumer;
use nsq_sim::runner::{Sim, sweep};
use nsq_sim::topology::Topology;
use std::ops::Range;
use std::time::Duration;

const SEEDS: Range<u64> = 0..25;
/// All consumers of a healthy topology may be silent for so long: backoff, or all that they may hold was forgotten.
const LULL: Duration = secs(20);
/// A new topic that cannot hear of its channels waits for less than that.
const PRECREATED: Duration = secs(8);
/// A consumer that has just started has asked all nsqlookupds, and again, by then.
const LOOKED_UP: Duration = secs(10);

const fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

#[test]
fn nsqlookupds_are_lost() {
    sweep("nsqlookupds_are_lost", SEEDS, async |sim: Sim| {
        sim.require(&["kills", "power_offs", "all_nsqlookupds_lost", "deliveries_without_nsqlookupds"]);
        let mut all = Topology::start(sim, |plan, _| plan.clients_are_well = true).await;
        for _ in 0..2 {
            all.wait_up_to(secs(10)).await;
            let lost = if all.one_in(2) { all.lookupds.clone() } else { vec![all.any_lookupd()] };
            for lookupd in &lost {
                lookupd.crash(all.one_in(2));
            }
            go_on_without(&mut all, lost.len()).await;
            lost.iter().for_each(|lookupd| lookupd.machine.restart());
        }
        all.finish().await;
    });
}

/// Some nsqlookupds are away. Whoever was connected stays connected, and what is published is delivered.
async fn go_on_without(all: &mut Topology, lost: usize) {
    let (before, connected) = (all.deliveries(), discovery::unconnected(all).is_none());
    let connections: Vec<_> = all.consumers.iter().map(Consumer::connected).collect();
    let span = all.up_to(secs(40));
    sleep(span).await;
    for (consumer, before) in all.consumers.iter().zip(&connections) {
        let (name, after) = (&consumer.machine.name, consumer.connected());
        assert!(after.is_superset(before), "{name} was connected to {before:?}, now to {after:?}");
    }
    if lost < all.lookupds.len() {
        return;
    }
    let delivered = all.deliveries() - before;
    all.sim.count("all_nsqlookupds_lost", 1);
    if connected && span > LULL {
        assert!(delivered > 0, "nothing was delivered in {span:?} without nsqlookupds");
        all.sim.count("deliveries_without_nsqlookupds", delivered as u64);
    }
}

#[test]
fn nsqlookupds_are_cut_off() {
    sweep("nsqlookupds_are_cut_off", SEEDS, async |sim: Sim| {
        sim.require(&["partitions", "one_way_cuts", "holds", "cut_off_until_unlisted", "net_stalls", "net_losses"]);
        let mut all = Topology::start(sim, |_, _| {}).await;
        all.lose_packets();
        for _ in 0..2 {
            all.wait_up_to(secs(20)).await;
            let (nsqd, lookupd) = (all.any_nsqd(), all.any_lookupd());
            let (here, there) = (nsqd.machine.node, lookupd.machine.node);
            let net = all.sim.net().clone();
            let fault = all.random.below(4);
            match fault {
                0 => drop(net.between(&[here], &[there]).hold()),
                1 => net.partition(&[here], &[there]),
                2 => net.cut(here, there),
                _ => net.cut(there, here),
            }
            all.sim.count(["holds", "partitions", "one_way_cuts", "one_way_cuts"][fault as usize], 1);
            let span = all.up_to(secs(110));
            sleep(span).await;
            let is_heard = fault == 3;
            if !is_heard && span > all.plan.lookup.inactive_producer_timeout + secs(1) {
                discovery::is_unlisted(&lookupd, &nsqd, &all.plan.topics);
                all.sim.count("cut_off_until_unlisted", 1);
            }
            net.heal_all();
        }
        all.finish().await;
    });
}

#[test]
fn nsqds_come_and_go() {
    sweep("nsqds_come_and_go", SEEDS, async |sim: Sim| {
        sim.require(&[
            "nsqds_joined",
            "clean_ends",
            "kills",
            "power_offs",
            "left_for_good",
            "came_back",
            "gone_at_once",
            "silent_deaths_outlived",
            "precreations",
        ]);
        let mut all = Topology::start(sim, |plan, _| plan.clients_are_well = true).await;
        for _ in 0..4 {
            all.wait_up_to(secs(8)).await;
            if all.nsqds.len() < 2 || all.one_in(2) { join(&mut all).await } else { leave(&mut all).await }
        }
        all.finish().await;
    });
}

/// A new nsqd, and publishes for it: its channels are those that nsqlookupds know.
async fn join(all: &mut Topology) {
    let nsqd = all.add_nsqd(0);
    sleep(secs(1)).await;
    for (topic, _) in all.plan.topics.clone() {
        all.expect_precreation(&nsqd, &topic);
        all.add_producer(&topic, 0, std::slice::from_ref(&nsqd));
    }
    all.sim.count("nsqds_joined", 1);
}

/// An nsqd ends, in order or not, and comes back or not.
async fn leave(all: &mut Topology) {
    let nsqd = all.any_nsqd();
    let way = all.random.below(3);
    match way {
        0 => all.cluster.end(&nsqd).await,
        1 => all.cluster.crash(&nsqd, false),
        _ => all.cluster.crash(&nsqd, true),
    }
    let timeout = all.plan.lookup.inactive_producer_timeout + secs(1);
    if way < 2 && !nsqd.machine.was_dark_within(timeout) {
        // Its kernel has said so.
        all.sim.count("gone_at_once", 1);
        sleep(secs(1)).await;
        all.lookupds.iter().for_each(|lookupd| discovery::is_unlisted(lookupd, &nsqd, &all.plan.topics));
    }
    all.wait_up_to(secs(40)).await;
    if all.one_in(2) {
        all.nsqds.retain(|other| other.machine.node != nsqd.machine.node);
        all.cluster.abandon(&nsqd);
        all.sim.count("left_for_good", 1);
    } else {
        all.cluster.restart(&nsqd);
        all.sim.count("came_back", 1);
    }
}

#[test]
fn consumers_come_and_go() {
    sweep("consumers_come_and_go", SEEDS, async |sim: Sim| {
        sim.require(&["consumers_joined", "consumers_left", "kills", "power_offs"]);
        let mut all = Topology::start(sim, |_, _| {}).await;
        for _ in 0..6 {
            all.wait_up_to(secs(6)).await;
            let at = all.any(all.consumers.len());
            let consumer = all.consumers[at].clone();
            let (topic, channel) = (consumer.plan.topic.clone(), consumer.plan.channel.clone());
            let same =
                all.consumers.iter().filter(|other| (&other.plan.topic, &other.plan.channel) == (&topic, &channel));
            match all.random.below(4) {
                0 if same.count() > 1 => {
                    all.consumers.remove(at);
                    consumer.leave(&all.sim).await;
                }
                1 => {
                    consumer.machine.kill();
                    all.wait_up_to(secs(5)).await;
                    consumer.machine.restart();
                }
                2 => {
                    consumer.machine.power_off();
                    all.wait_up_to(secs(30)).await;
                    consumer.machine.restart();
                }
                _ => {
                    all.add_consumer(&topic, &channel, 0);
                    all.sim.count("consumers_joined", 1);
                }
            }
        }
        all.finish().await;
    });
}

#[test]
fn datacenters_fail() {
    sweep("datacenters_fail", SEEDS, async |sim: Sim| {
        sim.require(&["datacenters_cut_off", "datacenters_cut_one_way", "datacenters_lost", "datacenters_flapping"]);
        sim.require(&["deliveries_meanwhile", "net_losses"]);
        let mut all = Topology::start(sim, |plan, random| {
            plan.datacenters = 2;
            plan.lookupds = 1 + random.below(2) as usize;
            plan.nsqds = 1 + random.below(2) as usize;
            plan.producers = 1;
            plan.consumers = 2;
        })
        .await;
        all.lose_packets();
        for _ in 0..2 {
            all.wait_up_to(secs(10)).await;
            let at = all.any(2);
            let datacenter = all.datacenters[at].clone();
            let before = all.deliveries();
            match all.random.below(4) {
                0 => datacenter.cut_off(),
                1 => datacenter.cut_one_way(all.one_in(2)),
                2 => all.lose(&datacenter),
                _ => {
                    all.sim.count("datacenters_flapping", 1);
                    for _ in 0..4 {
                        datacenter.cut_off();
                        all.wait_up_to(secs(4)).await;
                        datacenter.heal();
                        all.wait_up_to(secs(4)).await;
                    }
                }
            }
            all.wait_up_to(secs(60)).await;
            all.sim.count("deliveries_meanwhile", all.deliveries_outside(&datacenter, before));
            all.bring_back(&datacenter);
        }
        all.finish().await;
    });
}

#[test]
fn machines_stand_still() {
    sweep("machines_stand_still", SEEDS, async |sim: Sim| {
        sim.require(&["stopped_processes", "frozen_machines", "net_losses"]);
        let mut all = Topology::start(sim, |_, _| {}).await;
        all.lose_packets();
        for _ in 0..3 {
            all.wait_up_to(secs(10)).await;
            let machine = all.any_machine();
            if all.one_in(2) {
                machine.stop()
            } else {
                machine.freeze()
            }
            all.wait_up_to(secs(50)).await;
            machine.resume();
        }
        all.finish().await;
    });
}

#[test]
fn clocks_step() {
    sweep("clocks_step", SEEDS, async |sim: Sim| {
        sim.require(&["clock_steps", "touches", "touched_past_timeout", "forgotten"]);
        let mut all = Topology::start(sim, |plan, _| plan.clients_are_well = true).await;
        for _ in 0..10 {
            all.wait_up_to(secs(6)).await;
            let nanos = all.random.below(7_200_000_000_000) as i64 - 3_600_000_000_000;
            all.any_machine().skew(nanos);
        }
        all.finish().await;
        all.check_timing();
    });
}

#[test]
fn topics_appear_on_other_nsqds() {
    sweep("topics_appear_on_other_nsqds", SEEDS, async |sim: Sim| {
        sim.require(&["precreations", "precreations_without_one_nsqlookupd", "starts_without_nsqlookupds"]);
        sim.require(&["at_max_in_flight", "more_connections_than_credit"]);
        let mut all = Topology::start(sim, |plan, random| {
            (plan.producers, plan.created_first, plan.clients_are_well) = (0, false, true);
            plan.nsqds = 2 + random.below(3) as usize;
            // Connections outnumber the credit, as a rule.
            plan.consumer.max_in_flight = 1 + random.below(3) as u32;
            plan.topics.iter_mut().for_each(|(_, channels)| *channels = vec!["c0".into(), "c1".into()]);
        })
        .await;
        let (nsqds, topics) = (all.nsqds.clone(), all.plan.topics.clone());
        for (topic, _) in &topics {
            all.cluster.create(&nsqds[0], topic, &["c0", "c1"]).await;
            all.add_producer(topic, 0, &nsqds[..1]);
        }
        for nsqd in &nsqds[1..] {
            all.wait_up_to(secs(5)).await;
            let away = all.any_lookupd();
            let all_cut = match all.random.below(3) {
                0 => {
                    let lookupds: Vec<_> = all.lookupds.iter().map(|lookupd| lookupd.machine.node).collect();
                    all.sim.net().partition(&[nsqd.machine.node], &lookupds);
                    true
                }
                1 if all.lookupds.len() > 1 => {
                    away.machine.freeze();
                    all.sim.count("precreations_without_one_nsqlookupd", 1);
                    false
                }
                _ => false,
            };
            for (topic, _) in &topics {
                if !all_cut {
                    all.expect_precreation(nsqd, topic);
                }
                all.add_producer(topic, 0, std::slice::from_ref(nsqd));
            }
            if all_cut {
                sleep(PRECREATED).await;
                for (topic, _) in &topics {
                    assert!(all.has_accepted(nsqd, topic), "{} waits for nsqlookupds with {topic}", nsqd.machine.name);
                    all.sim.count("starts_without_nsqlookupds", 1);
                }
            }
            all.wait_up_to(secs(10)).await;
            away.machine.resume();
            all.sim.net().heal_all();
        }
        all.finish().await;
    });
}

#[test]
fn topics_are_hidden_and_deleted() {
    sweep("topics_are_hidden_and_deleted", SEEDS, async |sim: Sim| {
        sim.require(&["joined_while_hidden"]);
        sim.require(&["tombstones", "topics_deleted", "channels_deleted", "recreated", "unused"]);
        let mut all = Topology::start(sim, |_, _| {}).await;
        for _ in 0..6 {
            all.wait_up_to(secs(6)).await;
            let at = all.any(all.plan.topics.len());
            let (topic, channels) = all.plan.topics[at].clone();
            let channel = &channels[all.any(channels.len())];
            match all.random.below(5) {
                4 => create_in_vain(&mut all).await,
                0 | 1 => hide(&mut all, &topic, channel).await,
                2 => delete(&mut all, &topic, None).await,
                _ => delete(&mut all, &topic, Some(channel)).await,
            }
        }
        sleep(all.plan.lookup.tombstone_lifetime).await;
        // What has just come or gone is still on its way.
        all.within(secs(1), || discovery::misdirected(&all)).await;
        all.finish().await;
    });
}

/// Tombstones an nsqd at all nsqlookupds, as nsqadmin does: nobody is sent there until the tombstone's end.
async fn hide(all: &mut Topology, topic: &str, channel: &str) {
    let nsqd = all.any_nsqd();
    let (lookupds, asked) = (all.lookupds.clone(), Instant::now());
    let mut hidden = 0;
    for lookupd in &lookupds {
        let shown = lookupd.shown(topic).contains(&nsqd.machine.name);
        all.cluster.tombstone(lookupd, topic, &nsqd).await.expect("nsqlookupd is up");
        // Where it was not registered yet, there was nothing to hide.
        if shown {
            assert!(!lookupd.shown(topic).contains(&nsqd.machine.name), "{} is shown", nsqd.machine.name);
            all.sim.count("tombstones", 1);
            hidden += 1;
        }
    }
    if hidden < lookupds.len() {
        return;
    }
    let newcomer = all.add_consumer(topic, channel, 0);
    all.sim.count("joined_while_hidden", 1);
    while asked.elapsed() < all.plan.lookup.tombstone_lifetime.min(LOOKED_UP) {
        let name = &newcomer.machine.name;
        assert!(!newcomer.connected().contains(&nsqd.address()), "{name} was sent to {}", nsqd.machine.name);
        sleep(Duration::from_millis(100)).await;
    }
}

/// Deletes a topic or channel everywhere, as nsqadmin does, and, maybe, creates it again.
async fn delete(all: &mut Topology, topic: &str, channel: Option<&str>) {
    let (lookupds, nsqds) = (all.lookupds.clone(), all.nsqds.clone());
    for lookupd in &lookupds {
        // There may be none of that name.
        let _ = all.cluster.forget(lookupd, topic, channel).await;
    }
    for nsqd in &nsqds {
        all.cluster.drop(nsqd, topic, channel, true).await;
    }
    all.sim.count(if channel.is_some() { "channels_deleted" } else { "topics_deleted" }, 1);
    if all.one_in(2) {
        let nsqd = all.any_nsqd();
        all.cluster.create(&nsqd, topic, channel.as_slice()).await;
        all.sim.count("recreated", 1);
    }
}

/// What nobody uses is deleted on its nsqd only, which is to tell nsqlookupds.
async fn create_in_vain(all: &mut Topology) {
    let nsqd = all.any_nsqd();
    all.cluster.create(&nsqd, "unused", &["c0", "c1"]).await;
    all.wait_up_to(secs(2)).await;
    let channel = all.one_in(2).then_some("c0");
    all.cluster.drop(&nsqd, "unused", channel, true).await;
    all.sim.count("unused", 1);
}

#[test]
fn all_at_defaults() {
    sweep("all_at_defaults", SEEDS, async |sim: Sim| {
        sim.require(&["power_offs", "kills"]);
        let mut all = Topology::start(sim, |plan, _| {
            plan.lookup = nsq_core::lookupd::Options::default();
            plan.consumer.poll = secs(60);
            plan.consumer.heartbeat = secs(30);
            plan.consumer.msg_timeout = secs(60);
            plan.consumer.reconnect = secs(30);
            plan.producer.pause = secs(3);
        })
        .await;
        all.wait_up_to(secs(100)).await;
        let (nsqd, lookupd) = (all.any_nsqd(), all.any_lookupd());
        all.cluster.crash(&nsqd, true);
        all.wait_up_to(secs(200)).await;
        lookupd.crash(false);
        all.wait_up_to(secs(100)).await;
        lookupd.machine.restart();
        all.wait_up_to(secs(100)).await;
        all.cluster.restart(&nsqd);
        all.finish().await;
    });
}
