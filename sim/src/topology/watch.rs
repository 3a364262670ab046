//! Watchers: what holds at every moment, looked at again and again while a scenario runs.

use super::Topology;
use crate::checks::discovery;
use crate::cluster::{Cluster, Lookupd, Nsqd};
use crate::fleet::Consumer;
use crate::world::inspect;
use madsim::time::sleep;
use nsq_core::lookupd::Options;
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
    topology.cluster.at_desk(async move {
        loop {
            look(&cluster, &nsqd);
            lookupds.iter().for_each(|lookupd| nothing_dead_is_listed(lookupd, &nsqd, &options));
            sleep(WATCH).await;
        }
    });
}

/// Sets a watcher to the credit of a consumer.
pub(super) fn watch_credit(topology: &Topology, consumer: &Consumer) {
    let (cluster, consumer) = (topology.cluster.clone(), consumer.clone());
    let (nsqds, latency) = (topology.all_nsqds.clone(), *topology.plan.inside.end());
    topology.cluster.at_desk(async move {
        loop {
            let nsqds = nsqds.lock().unwrap_or_else(PoisonError::into_inner).clone();
            discovery::credit_is_kept(&consumer, &nsqds, &cluster.ledger.open(), AWAKE + 2 * latency);
            sleep(WATCH).await;
        }
    });
}

/// All invariants of all topics hold, no timer is forgotten; and channels that are there are owed messages from now on.
fn look(cluster: &Cluster, nsqd: &Nsqd) {
    let Some(broker) = nsqd.broker() else { return };
    if nsqd.machine.has_run(AWAKE) {
        inspect(&broker);
    }
    let mut entries = cluster.ledger.open();
    for (topic, channel) in nsqd.directory().into_iter().flatten() {
        if let Some(channel) = channel {
            entries.channel_exists(&nsqd.machine.name, &topic, &channel);
        }
    }
}

/// What is dead is not listed any more once its timeout is over, however it died.
fn nothing_dead_is_listed(lookupd: &Lookupd, nsqd: &Nsqd, options: &Options) {
    let (Some(since), Some(registered)) = (nsqd.machine.dead_since(), lookupd.registered()) else { return };
    if since.elapsed() > options.inactive_producer_timeout + UNDER_WAY {
        let name = &nsqd.machine.name;
        assert!(
            !registered.contains_key(name),
            "{} lists {name}, dead for {:?}",
            lookupd.machine.name,
            since.elapsed()
        );
    }
}
