//! What a crash would take at this moment, as the process says that dies, and how much of that it may say.
//!
//! Whoever excuses too much proves nothing, so the excuse has bounds. They hold in default mode, as long as no
//! operation of the disk has failed:
//!
//! - A message stays in memory only while every queue of its topic is shorter than `--mem-queue-size`. So of what a
//!   channel has not handed out, no more than twice as much is in memory only, for a topic that is paused is a queue,
//!   too; and what is in flight.
//! - What was written is fsynced within `--sync-timeout`, and an fsync that was under way before.

use super::{Cluster, Nsqd};
use crate::ledger::{Entries, Outcome};
use bytes::Bytes;
use madsim::time::Instant;
use nsq_core::message::PAYLOAD_HEADER;
use nsq_net_sim::broker::Broker;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A message by its topic, channel and body; no channel if it was not given to any: it is missing in all of them then,
/// those to come included.
pub(super) type Message = (String, String, Bytes);

/// What an nsqd says again and again that a crash would take; see the module's documentation.
#[derive(Debug, Default)]
pub struct Risk {
    life: u64,
    /// What is written and not fsynced, and since when that is known.
    unsynced: BTreeMap<Message, Instant>,
}

/// Two fsyncs on a sound disk, each with a checkpoint and all it has to wait for.
const FSYNCED: Duration = Duration::from_secs(1);

impl Risk {
    /// Looks once more.
    ///
    /// # Panics
    /// If it is more than the rules permit.
    pub fn look(&mut self, cluster: &Cluster, nsqd: &Nsqd) {
        let Some(broker) = nsqd.broker().filter(|_| nsqd.is_accountable()) else { return };
        if !nsqd.machine.has_run(Duration::ZERO) {
            // What stands still fsyncs nothing.
            return self.unsynced.clear();
        }
        let memory_only = at_risk(&broker, false);
        check(nsqd, &broker, &memory_only, &cluster.ledger.open());
        let memory_only: BTreeSet<_> = memory_only.into_iter().collect();
        let unsynced = at_risk(&broker, true).into_iter().filter(|message| !memory_only.contains(message));
        let before = std::mem::take(&mut self.unsynced);
        let is_same = std::mem::replace(&mut self.life, nsqd.machine.life()) == self.life;
        let since = |message: &Message| before.get(message).copied().filter(|_| is_same).unwrap_or_else(Instant::now);
        self.unsynced = unsynced.map(|message| (message.clone(), since(&message))).collect();
        let bound = nsqd.config.options.sync_timeout + FSYNCED;
        for ((topic, channel, body), since) in &self.unsynced {
            let (name, age) = (crate::checks::name(body), since.elapsed());
            assert!(age < bound, "{name} of {topic}/{channel} is written and for {age:?} not fsynced");
        }
        cluster.sim.count("unsynced_for_a_while", self.unsynced.values().any(|it| !it.elapsed().is_zero()).into());
    }
}

/// What ends with an nsqd's process, or with the power of its machine.
pub(super) fn at_risk(broker: &Broker, power_off: bool) -> Vec<Message> {
    let mut lost = Vec::new();
    broker.inspect(|topic| {
        topic.at_risk(power_off, |channel, payload| {
            let (topic, channel) = (topic.name().to_string(), channel.map_or_else(String::new, ToString::to_string));
            lost.push((topic, channel, Bytes::copy_from_slice(&payload[PAYLOAD_HEADER..])));
        });
    });
    lost
}

/// Whether no more is in memory only than may be.
///
/// # Panics
/// If there is.
pub(super) fn check(nsqd: &Nsqd, broker: &Broker, memory_only: &[Message], entries: &Entries) {
    let limit = 2 * nsqd.config.options.mem_queue_size;
    let mut queues: BTreeMap<(&str, &str), BTreeSet<&Bytes>> = BTreeMap::new();
    for (topic, channel, body) in memory_only {
        let is_accepted = entries.published.get(body).is_some_and(|publish| publish.outcome == Outcome::Accepted);
        is_accepted.then(|| queues.entry((topic, channel)).or_default().insert(body));
    }
    queues.retain(|_, bodies| bodies.len() as u64 > limit);
    if queues.is_empty() {
        return;
    }
    for delivery in &entries.deliveries {
        if let Some(bodies) = queues.get_mut(&(&*delivery.topic, &*delivery.channel)) {
            bodies.remove(&delivery.body);
        }
    }
    for ((topic, channel), bodies) in queues {
        let stats = broker.topic_stats(Some(topic), Some(channel), false);
        let on_their_way = stats.iter().flat_map(|topic| &topic.channels).map(|channel| channel.in_flight_count as u64);
        let (count, most) = (bodies.len() as u64, limit + on_their_way.sum::<u64>());
        assert!(count <= most, "{count} new messages of {topic}/{channel} are in memory only, and {most} may be");
    }
}
