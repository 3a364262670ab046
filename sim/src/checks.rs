//! The promises, as functions of the ledger.
//!
//! Each says NSQ's real promise and not a nicer one: at least once, in no order, for everything accepted. What a crash excuses
//! is exactly what the dead node held in memory only; what an operator drops is what was sent before the action's end.

use crate::ledger::{Delivery, Entries, Fate, Outcome, Publish};
use bytes::Bytes;
use madsim::time::Instant;
use nsq_core::message::MessageId;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Everything accepted was delivered to each channel that was there when it was sent, and finished there at last.
///
/// # Panics
/// If something is missing.
pub fn at_least_once(entries: &Entries) {
    let mut finished: BTreeMap<(&str, &str), BTreeSet<&Bytes>> = BTreeMap::new();
    for delivery in &entries.deliveries {
        if matches!(delivery.fate, Fate::Finished(_)) {
            finished.entry((&delivery.topic, &delivery.channel)).or_default().insert(&delivery.body);
        }
    }
    for ((topic, channel), since) in &entries.channels {
        let finished = finished.remove(&(topic.as_str(), channel.as_str())).unwrap_or_default();
        for (body, publish) in &entries.published {
            let owed = publish.outcome == Outcome::Accepted && publish.topic == *topic && publish.sent >= *since;
            if owed && !finished.contains(body) && !is_excused(entries, topic, channel, body, publish) {
                panic!("{} was accepted for {topic} and never finished in {channel}", name(body));
            }
        }
    }
}

fn is_excused(entries: &Entries, topic: &str, channel: &str, body: &Bytes, publish: &Publish) -> bool {
    let lost = |channel: &str| {
        let key = (topic.to_owned(), channel.to_owned());
        entries.excused.get(&key).is_some_and(|bodies| bodies.contains(body))
    };
    let dropped = entries.drops.iter().any(|drop| {
        let here = drop.topic == topic && drop.channel.as_deref().is_none_or(|dropped| dropped == channel);
        here && publish.sent < drop.done
    });
    dropped || lost(channel) || lost("")
}

/// What was delivered was published, to that topic, in those bytes, and not refused.
///
/// # Panics
/// If something was invented, changed, or leaked from another topic.
pub fn nothing_invented(entries: &Entries) {
    for delivery in &entries.deliveries {
        let Some(publish) = entries.published.get(&delivery.body) else {
            panic!("{:?} was delivered from {} and never published", delivery.body, delivery.topic);
        };
        assert_eq!(publish.topic, delivery.topic, "{} leaked", name(&delivery.body));
        assert_ne!(publish.outcome, Outcome::Refused, "{} was refused and delivered", name(&delivery.body));
    }
}

/// Each delivery of a message in a channel of one life of a node has a higher number of attempts than those before.
///
/// # Panics
/// If a number came twice, or was skipped by more than the deliveries that got lost on the way can explain.
pub fn attempts_grow(entries: &Entries) {
    let mut seen: BTreeMap<Copy<'_>, BTreeSet<u16>> = BTreeMap::new();
    for delivery in &entries.deliveries {
        assert!(delivery.attempts > 0, "the first delivery of {} is number 1", name(&delivery.body));
        let key = copy(delivery);
        let is_new = seen.entry(key).or_default().insert(delivery.attempts);
        assert!(is_new, "delivery {} of {} came twice", delivery.attempts, name(&delivery.body));
    }
}

/// On a network without partitions: no consumer held more messages at a time than its RDY. What may have timed out does
/// not count, and what an operator dropped while it was in flight does not either.
///
/// # Panics
/// If one did.
pub fn credit_is_kept(entries: &Entries, rdy: impl Fn(usize) -> u32, msg_timeout: Duration) {
    let mut held: BTreeMap<(usize, u64), Vec<&Delivery>> = BTreeMap::new();
    for delivery in &entries.deliveries {
        let held = held.entry(delivery.consumer).or_default();
        held.retain(|other| {
            let answered = match other.fate {
                Fate::Left => false,
                Fate::Finished(at) | Fate::Requeued(at) => at <= delivery.at,
            };
            let dropped = entries
                .drops
                .iter()
                .any(|drop| drop.topic == other.topic && drop.asked <= delivery.at && drop.done >= other.at);
            // The clock of a flight starts when it enters the outbox, some time before it comes.
            !answered && !dropped && delivery.at.duration_since(other.at) < msg_timeout / 2
        });
        held.push(delivery);
        let limit = rdy(delivery.consumer.0) as usize;
        assert!(held.len() <= limit, "consumer {:?} held {} messages with RDY {limit}", delivery.consumer, held.len());
    }
}

/// On a network whose packets take no longer than `latency`: a message that nobody requeued comes again no sooner than its
/// timeout, and a deferred one no sooner than its time.
///
/// # Panics
/// If one came early.
pub fn never_early(entries: &Entries, msg_timeout: Duration, latency: Duration) {
    let mut last: BTreeMap<Copy<'_>, &Delivery> = BTreeMap::new();
    for delivery in &entries.deliveries {
        let publish = entries.published.get(&delivery.body);
        if let Some(due) = publish.and_then(|publish| publish.not_before) {
            // DPUB counts whole milliseconds from when nsqd gets it.
            assert!(delivery.at >= due, "{} came {:?} early", name(&delivery.body), due - delivery.at);
        }
        let key = copy(delivery);
        if let Some(before) = last.insert(key, delivery)
            && before.attempts + 1 == delivery.attempts
            && before.fate == Fate::Left
        {
            let gap = delivery.at.duration_since(before.at) + latency;
            assert!(gap >= msg_timeout, "{} came again after {gap:?}", name(&delivery.body));
        }
    }
}

/// On a network whose packets take no longer than `latency`: a paused channel is silent, and a paused topic keeps what it
/// got since.
///
/// # Panics
/// If one did not.
pub fn pauses_are_kept(entries: &Entries, latency: Duration) {
    for pause in &entries.pauses {
        let (from, until) = (pause.from + latency, pause.until.unwrap_or_else(Instant::now));
        for delivery in entries.deliveries.iter().filter(|delivery| delivery.topic == pause.topic) {
            let sent = entries.published.get(&delivery.body).map(|publish| publish.sent);
            let held = match &pause.channel {
                Some(channel) => *channel == delivery.channel,
                None => sent.is_some_and(|sent| from < sent),
            };
            let silent = from < delivery.at && delivery.at < until;
            assert!(!(held && silent), "{} came during {pause:?}", name(&delivery.body));
        }
    }
}

/// A message in one channel of one life of a node: what numbers of attempts belong to.
type Copy<'a> = (&'a (String, u64), &'a str, &'a str, MessageId);

fn copy(delivery: &Delivery) -> Copy<'_> {
    (&delivery.node, &delivery.topic, &delivery.channel, delivery.id)
}

/// The part of a body that names the message.
fn name(body: &Bytes) -> String {
    let text = String::from_utf8_lossy(body);
    text.rsplit_once('/').map_or_else(|| text.clone().into_owned(), |(name, _)| name.to_owned())
}
