//! The promises of discovery: who is registered, who is listed, who is connected to whom, and by when.
//!
//! The bounds are what the parts add up to in the worst case, each from its own timeouts; the checks are of a topology
//! in which everything works again.

use crate::cluster::{Lookupd, Nsqd};
use crate::fleet::{Consumer, Consuming};
use crate::ledger::{Entries, Fate};
use crate::topology::{Plan, Topology};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// nsqd says PING so often, and waits so long for a connection or an answer.
const PING_INTERVAL: Duration = Duration::from_secs(15);
const PATIENCE: Duration = Duration::from_secs(1);
/// nsqd's longest pause before it tries a nsqlookupd again.
const PEER_PAUSE: Duration = Duration::from_secs(15);
/// A client waits so long for a connection, or for an answer of nsqlookupd.
const CLIENT_PATIENCE: Duration = Duration::from_secs(5);
/// Round trips and the like.
const SLACK: Duration = Duration::from_secs(2);

/// All works again: by then all nsqlookupds know everything, and nothing that is not so. An nsqd may believe for an
/// interval that all is well, then wait in vain for the answer to its PING, then pause, and then it connects and
/// registers everything. What has died in silence goes with its timeout.
pub fn registration_bound(plan: &Plan) -> Duration {
    let registered = PING_INTERVAL + PATIENCE + PEER_PAUSE + PATIENCE;
    registered.max(plan.lookup.inactive_producer_timeout) + SLACK
}

/// All works again and nsqlookupds know everything: by then all consumers are connected to all nsqds that have their
/// topic. A consumer hears of an nsqd at its next poll (the interval and up to 30 % of it), or knows it and pauses; a
/// connection that is dead is noticed by the heartbeats that do not come.
pub fn connection_bound(plan: &Plan) -> Duration {
    let consumer = &plan.consumer;
    let poll = consumer.poll.mul_f64(1.3) + CLIENT_PATIENCE;
    2 * consumer.heartbeat + poll.max(consumer.reconnect) + CLIENT_PATIENCE + SLACK
}

/// An nsqd is gone, and an nsqlookupd should know it: neither operators nor consumers of those topics are told of it.
///
/// # Panics
/// If it is listed.
pub fn is_unlisted(lookupd: &Lookupd, nsqd: &Nsqd, topics: &[(String, Vec<String>)]) {
    let registered = lookupd.registered().unwrap_or_default();
    let (who, whom) = (&lookupd.machine.name, &nsqd.machine.name);
    assert!(!registered.contains_key(whom), "{who} still tells of {whom}: {:?}", registered[whom]);
    for (topic, _) in topics {
        assert!(!lookupd.shown(topic).contains(whom), "{who} still sends consumers of {topic} to {whom}");
    }
}

/// A difference between the nsqds that have a topic and those that consumers of it are sent to, where there is no
/// tombstone.
pub fn misdirected(topology: &Topology) -> Option<String> {
    topology.plan.topics.iter().find_map(|(topic, _)| {
        let has_topic = |nsqd: &&Nsqd| nsqd.directory().is_some_and(|all| all.contains(&(topic.clone(), None)));
        let having: BTreeSet<_> =
            topology.nsqds.iter().filter(has_topic).map(|nsqd| nsqd.machine.name.clone()).collect();
        topology.lookupds.iter().find_map(|lookupd| {
            let (name, shown) = (&lookupd.machine.name, lookupd.shown(topic));
            (shown != having).then(|| format!("{name} sends consumers of {topic} to {shown:?}, it is on {having:?}"))
        })
    })
}

/// A difference between what nsqds have and what nsqlookupds tell of them, operators or consumers.
pub fn unregistered(topology: &Topology) -> Option<String> {
    let nsqds = topology.nsqds.iter().filter_map(|nsqd| Some((nsqd.machine.name.clone(), nsqd.directory()?)));
    let directories: BTreeMap<_, _> = nsqds.collect();
    let told = topology.lookupds.iter().find_map(|lookupd| {
        let name = &lookupd.machine.name;
        let Some(registered) = lookupd.registered() else { return Some(format!("{name} is down")) };
        (registered != directories).then(|| format!("{name} tells {registered:?}, but nsqds have {directories:?}"))
    });
    told.or_else(|| misdirected(topology))
}

/// Where no client's connection is lost without a word: nsqds have given a consumer no more than it wants, over all its
/// connections; what it has answered within the last moment may still be on its way. Returns how many that is.
///
/// # Panics
/// If they have.
pub fn credit_is_kept(consumer: &Consumer, nsqds: &[Nsqd], entries: &Entries, moment: Duration) -> u32 {
    let Consuming { topic, channel, max_in_flight, msg_timeout, .. } = &consumer.plan;
    let given = nsqds.iter().filter_map(|nsqd| nsqd.in_flight(topic, channel, &consumer.machine)).sum::<u32>();
    if given <= *max_in_flight {
        return given;
    }
    let recent = entries.deliveries.iter().rev().take_while(|delivery| delivery.at.elapsed() < 3 * *msg_timeout);
    let answered =
        recent.filter(|delivery| delivery.consumer.0 == consumer.number).filter(|delivery| match delivery.fate {
            Fate::Left => false,
            Fate::Finished(at) | Fate::Requeued(at, _) => at.elapsed() < moment,
        });
    let (name, answered) = (&consumer.machine.name, answered.count());
    let most = *max_in_flight as usize + answered;
    assert!(
        given as usize <= most,
        "{name} wants {max_in_flight}, has answered {answered}, and has been given {given}"
    );
    given
}

/// A consumer without a connection to an nsqd that has its topic, as either of them sees it.
pub fn unconnected(topology: &Topology) -> Option<String> {
    topology.consumers.iter().find_map(|consumer| {
        let (topic, channel) = (&*consumer.plan.topic, &*consumer.plan.channel);
        let connected = consumer.connected();
        let has_topic = |nsqd: &&Nsqd| nsqd.directory().is_some_and(|all| all.contains(&(topic.to_owned(), None)));
        let missing = topology.nsqds.iter().filter(has_topic).find(|nsqd| {
            !connected.contains(&nsqd.address()) || nsqd.in_flight(topic, channel, &consumer.machine).is_none()
        });
        missing.map(|nsqd| format!("{} is not connected to {}", consumer.machine.name, nsqd.machine.name))
    })
}
