//! The promises, as functions of the ledger.
//!
//! Each says NSQ's real promise and not a nicer one: at least once, in no order, for everything accepted. What a crash
//! excuses is exactly what the dead node calls memory-only (a kill) or unsynced (a power cut), and nothing in durable
//! mode; what an operator drops is what was there then, or on its way.

pub mod discovery;
pub mod lives;

use crate::ledger::{Delivery, Entries, Fate, Outcome, Publish};
use bytes::Bytes;
use madsim::time::Instant;
use nsq_core::message::MessageId;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Everything accepted was delivered to each channel that was there when it was sent, and finished there at last; so
/// was everything else that a durable topic has delivered to anyone, for that is known after any crash. What a producer
/// had several nsqds for is owed to the channels that were there on all of them.
///
/// # Panics
/// If something is missing.
pub fn at_least_once(entries: &Entries) {
    let mut finished = finished(entries);
    let durable = entries.deliveries.iter().filter(|delivery| entries.durable.contains(&delivery.node.0));
    let known: BTreeSet<&Bytes> = durable.map(|delivery| &delivery.body).collect();
    let channels: BTreeSet<(&str, &str)> =
        entries.channels.keys().map(|(_, topic, name)| (&**topic, &**name)).collect();
    for (topic, channel) in channels {
        let finished = finished.remove(&(topic, channel)).unwrap_or_default();
        for (body, publish) in entries.published.iter().filter(|(_, publish)| publish.topic == topic) {
            let is_taken = publish.outcome == Outcome::Accepted || known.contains(body);
            if is_taken
                && is_owed(entries, channel, publish)
                && !finished.contains(body)
                && !is_excused(entries, channel, body, publish)
            {
                let (to, sent) = (&publish.to, publish.sent);
                panic!("{} was taken for {topic} by {to:?} at {sent:?} and never finished in {channel}", name(body));
            }
        }
    }
}

/// Of each topic and channel, what consumers have finished.
pub fn finished(entries: &Entries) -> BTreeMap<(&str, &str), BTreeSet<&Bytes>> {
    let mut finished: BTreeMap<(&str, &str), BTreeSet<&Bytes>> = BTreeMap::new();
    for delivery in &entries.deliveries {
        if matches!(delivery.fate, Fate::Finished(_)) {
            finished.entry((&delivery.topic, &delivery.channel)).or_default().insert(&delivery.body);
        }
    }
    finished
}

fn is_owed(entries: &Entries, channel: &str, publish: &Publish) -> bool {
    let there = |nsqd: &String| {
        let place = (nsqd.clone(), publish.topic.clone(), channel.to_owned());
        entries.channels.get(&place).is_some_and(|known| publish.sent >= known.since)
    };
    publish.to.iter().all(there)
}

fn is_excused(entries: &Entries, channel: &str, body: &Bytes, publish: &Publish) -> bool {
    let lost = |nsqd: &str, channel: &str| {
        let place = (nsqd.to_owned(), publish.topic.clone(), channel.to_owned());
        entries.excused.get(&place).is_some_and(|bodies| bodies.contains(body))
    };
    let dropped = |nsqd: &str| {
        entries.drops.iter().any(|drop| {
            let here = drop.node == nsqd && drop.topic == publish.topic;
            let on_its_way = publish.sent < drop.done && publish.answered.is_none_or(|answered| drop.asked <= answered);
            let held = drop.held.as_ref().map_or(publish.sent < drop.done, |held| held.contains(body));
            let there = held || on_its_way;
            here && there && drop.channel.as_deref().is_none_or(|dropped| dropped == channel)
        })
    };
    publish
        .to
        .iter()
        .any(|nsqd| entries.abandoned.contains(nsqd) || dropped(nsqd) || lost(nsqd, channel) || lost(nsqd, ""))
}

/// On a network whose packets take no longer than `latency`: what a durable topic was told to drop, or what any topic
/// had that was deleted, does not come back once that was answered, whatever happens to the process and the machine.
///
/// # Panics
/// If it does.
pub fn dropped_stays_dropped(entries: &Entries, latency: Duration) {
    for drop in entries.drops.iter().filter(|drop| drop.answered) {
        let is_its = |delivery: &&Delivery| match &drop.channel {
            Some(channel) => entries.durable.contains(&drop.node) && delivery.channel == *channel,
            None => true,
        };
        let here =
            entries.deliveries.iter().filter(|it| it.node.0 == drop.node && it.topic == drop.topic).filter(is_its);
        for delivery in here.filter(|delivery| drop.done + latency < delivery.at) {
            let (name, what, done) = (name(&delivery.body), (&drop.topic, &drop.channel), drop.done);
            assert!(!drop.gone.contains(&delivery.body), "{name} came back after {what:?} was dropped at {done:?}");
        }
    }
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

/// Each delivery of a message in a channel of one life of a node has a number of attempts of its own, unless the topic
/// may have messages twice. That the numbers grow by one is for the model of core to see: here deliveries overtake each
/// other, and some are lost on the way.
///
/// # Panics
/// If a number came twice.
pub fn attempts_differ(entries: &Entries) {
    let mut seen: BTreeMap<Copy<'_>, BTreeMap<u16, &Delivery>> = BTreeMap::new();
    for delivery in &entries.deliveries {
        assert!(delivery.attempts > 0, "the first delivery of {} is number 1", name(&delivery.body));
        let before = seen.entry(copy(delivery)).or_default().insert(delivery.attempts, delivery);
        let is_right = before.is_none() || delivery.may_be_double;
        assert!(is_right, "a delivery of {} came twice: {before:?}, {delivery:?}", name(&delivery.body));
    }
}

/// No consumer held more messages at a time than its RDY, or than it wanted to hold over all its connections. What came
/// longer ago than `held_for` may have timed out and does not count, and what an operator dropped while it was in
/// flight does not either.
///
/// # Panics
/// If one did.
pub fn credit_is_kept(entries: &Entries, rdy: impl Fn(usize) -> u32, held_for: Duration) {
    let mut held: BTreeMap<(usize, u64), Vec<&Delivery>> = BTreeMap::new();
    for delivery in &entries.deliveries {
        let held = held.entry(delivery.consumer).or_default();
        held.retain(|other| {
            let answered = match other.fate {
                Fate::Left => false,
                Fate::Finished(at) | Fate::Requeued(at, _) => at <= delivery.at,
            };
            let dropped = entries.drops.iter().any(|drop| {
                let here = drop.node == other.node.0 && drop.topic == other.topic;
                here && drop.asked <= delivery.at && drop.done >= other.at
            });
            !answered && !dropped && delivery.at.duration_since(other.at) < held_for
        });
        held.push(delivery);
        let limit = rdy(delivery.consumer.0) as usize;
        assert!(held.len() <= limit, "consumer {:?} held {} messages with RDY {limit}", delivery.consumer, held.len());
    }
}

/// On a network whose packets take no longer than `latency`: a message that nobody requeued comes again no sooner than
/// its timeout, and a deferred one no sooner than its time.
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

/// On a network whose packets take no longer than `latency` and where no connection is lost: what was touched does not
/// come again before the timeout that began with that, and never if it was finished by then.
///
/// # Panics
/// If it did.
pub fn touches_are_kept(entries: &Entries, msg_timeout: Duration, latency: Duration) {
    let mut touched: BTreeMap<Copy<'_>, &Delivery> = BTreeMap::new();
    for delivery in &entries.deliveries {
        if let Some((before, asked)) = touched.get(&copy(delivery)).and_then(|before| Some((before, before.touched?))) {
            let until = asked + msg_timeout;
            let in_time = matches!(before.fate, Fate::Finished(at) if at + latency < until);
            let (body, late) = (name(&delivery.body), delivery.at + latency >= until);
            assert!(late && !in_time, "{body} was touched at {asked:?}, its fate {:?}, and came again", before.fate);
        }
        if delivery.touched.is_some() {
            touched.insert(copy(delivery), delivery);
        }
    }
}

/// On a network whose packets take no longer than `latency`: a paused channel is silent, and a paused topic keeps what
/// it got since.
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
pub(crate) fn name(body: &Bytes) -> String {
    let text = String::from_utf8_lossy(body);
    text.rsplit_once('/').map_or_else(|| text.clone().into_owned(), |(name, _)| name.to_owned())
}
