//! Watchers: what holds at every moment, looked at again and again while a scenario runs.

use super::Topology;
use crate::checks::discovery;
use crate::cluster::{Cluster, Nsqd, Risk};
use crate::fleet::Consumer;
use madsim::time::sleep;
use std::sync::PoisonError;
use std::time::Duration;

/// Two looks are so far apart.
const WATCH: Duration = Duration::from_millis(100);
/// What stood still may need so long to do what is overdue.
const AWAKE: Duration = Duration::from_millis(50);
/// Deadlines of nsqlookupd need no timer, so only a packet that was under way can make a difference.
const UNDER_WAY: Duration = Duration::from_secs(1);

/// Sets a watcher to an nsqd.
pub(super) fn watch(topology: &Topology, nsqd: &Nsqd) {
    let (cluster, nsqd) = (topology.cluster.clone(), nsqd.clone());
    let (lookupds, options) = (topology.lookupds.clone(), topology.plan.lookup.clone());
    let (sim, topics) = (topology.sim.clone(), topology.plan.topics.clone());
    topology.cluster.at_desk(async move {
        let (mut counted, mut risk) = (None, Risk::default());
        loop {
            look(&cluster, &nsqd);
            risk.look(&cluster, &nsqd);
            let timeout = options.inactive_producer_timeout + UNDER_WAY;
            if let Some(since) = nsqd.machine.dead_since().filter(|since| since.elapsed() > timeout) {
                // What is dead is not told of any more once its timeout is over, however it died.
                let alive = lookupds.iter().filter(|lookupd| lookupd.machine.is_up());
                alive.for_each(|lookupd| discovery::is_unlisted(lookupd, &nsqd, &topics));
                if counted.replace(since) != Some(since) && nsqd.machine.was_dark_within(since.elapsed()) {
                    sim.count("silent_deaths_outlived", 1);
                }
            }
            sleep(WATCH).await;
        }
    });
}

/// Sets a watcher to the credit of a consumer.
pub(super) fn watch_credit(topology: &Topology, consumer: &Consumer) {
    let (cluster, consumer) = (topology.cluster.clone(), consumer.clone());
    let sim = topology.sim.clone();
    let (nsqds, latency) = (topology.all_nsqds.clone(), *topology.plan.inside.end());
    topology.cluster.at_desk(async move {
        loop {
            let nsqds = nsqds.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let moment = AWAKE + 2 * latency;
            let given = discovery::credit_is_kept(&consumer, &nsqds, &cluster.ledger.open(), moment);
            let wanted = consumer.plan.max_in_flight;
            sim.count("at_max_in_flight", u64::from(given == wanted));
            sim.count("more_connections_than_credit", u64::from(consumer.connected().len() > wanted as usize));
            sleep(WATCH).await;
        }
    });
}

/// All invariants of all topics hold, no timer is forgotten; and channels that are there are owed messages from now on.
fn look(cluster: &Cluster, nsqd: &Nsqd) {
    if nsqd.machine.has_run(AWAKE) {
        nsqd.check();
    }
    let mut entries = cluster.ledger.open();
    for (topic, channel) in nsqd.directory().into_iter().flatten() {
        if let Some(channel) = channel {
            entries.channel_exists(&nsqd.machine.name, &topic, &channel, false);
        }
    }
}
