//! What must be known from one life of an nsqd to the next, if its disk is sound: how often a message was handed out,
//! and until when a consumer has put it off.
//!
//! An end in order writes all of that. After a crash a durable topic knows what the journal was told, which is
//! everything that was so for [`HEARD`]; a default topic may have forgotten it.

use super::name;
use crate::ledger::{Death, Delivery, Entries, Fate};
use bytes::Bytes;
use madsim::time::Instant;
use std::collections::BTreeMap;
use std::time::Duration;

/// The journal is told within 100 ms, by a commit that may have to wait for another.
const HEARD: Duration = Duration::from_secs(1);

/// Later lives go on counting deliveries: how often there was something to go on with.
///
/// # Panics
/// If attempts were forgotten.
pub fn attempts_go_on(entries: &Entries) -> u64 {
    let mut went_on = 0;
    for deliveries in by_message(entries).into_values() {
        let mut known: Option<&Delivery> = None;
        for (at, delivery) in deliveries.iter().enumerate() {
            let earlier = deliveries[..at].iter().filter(|it| it.node != delivery.node);
            let kept = earlier.copied().filter(|it| is_kept(entries, it, it.at));
            known = known.into_iter().chain(kept).max_by_key(|it| it.attempts);
            let Some(before) = known.filter(|_| !delivery.may_be_double) else { continue };
            let body = name(&delivery.body);
            assert!(delivery.attempts > before.attempts, "attempts of {body}: {delivery:?} after {before:?}");
            went_on += 1;
        }
    }
    went_on
}

/// On a network whose packets take no longer than `latency`, and which loses none: what a consumer has put off comes no
/// sooner than it wished. How often that was in another life.
///
/// # Panics
/// If it does.
pub fn delays_are_kept(entries: &Entries, msg_timeout: Duration, latency: Duration) -> u64 {
    let mut kept = 0;
    for deliveries in by_message(entries).into_values() {
        for pair in deliveries.windows(2) {
            let (before, after) = (pair[0], pair[1]);
            let Fate::Requeued(at, delay) = before.fate else { continue };
            let is_same_life = before.node == after.node;
            if !is_same_life && !is_kept(entries, before, at + latency) || after.may_be_double {
                continue;
            }
            // If it came too late, or in the same life never, the timeout counts.
            let timeout = before.at + msg_timeout - latency;
            let due = if is_same_life || at + latency >= timeout { timeout.min(at + delay) } else { at + delay };
            let (body, early) = (name(&after.body), due.saturating_duration_since(after.at));
            assert!(early.is_zero(), "{body} was put off at {at:?} for {delay:?}, and came {early:?} early: {after:?}");
            let death = entries.deaths.get(&before.node).filter(|_| !is_same_life);
            kept += u64::from(death.is_some_and(|death| death.at < at + delay));
        }
    }
    kept
}

/// Whether what was so at that time is known in the lives to come.
fn is_kept(entries: &Entries, delivery: &Delivery, since: Instant) -> bool {
    match entries.deaths.get(&delivery.node) {
        Some(Death { at, in_order: true }) => since <= *at,
        Some(Death { at, .. }) => entries.durable.contains(&delivery.node.0) && since + HEARD <= *at,
        None => false,
    }
}

/// The deliveries of each message of a node in a channel, in order.
fn by_message(entries: &Entries) -> BTreeMap<(&str, &str, &str, &Bytes), Vec<&Delivery>> {
    let mut all: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for it in &entries.deliveries {
        all.entry((&*it.node.0, &*it.topic, &*it.channel, &it.body)).or_default().push(it);
    }
    all
}
