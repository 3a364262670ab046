//! Orders to links: a set of directions, and verbs for all of them.
//!
//! In: `net.link(a, b)`, `net.between(dc1, dc2)`, `net.all_links()`. Out: changed links.
//! The rule: each verb counts only what it really changed, so that the counters prove faults.

use std::ops::RangeInclusive;
use std::time::Duration;

use madsim::task::NodeId;

use super::Net;
use super::wire::{Link, Step};

/// Some directions between machines, chosen by [`Net::link`], [`Net::between`] or [`Net::all_links`].
#[derive(Clone, Debug)]
pub struct Links {
    net: Net,
    pairs: Vec<(NodeId, NodeId)>,
}

impl Links {
    pub(super) fn new(net: &Net, pairs: Vec<(NodeId, NodeId)>) -> Self {
        Self { net: net.clone(), pairs }
    }

    /// Each packet takes a time drawn from this range.
    pub fn latency(&self, latency: RangeInclusive<Duration>) -> &Self {
        self.each(|link| link.config.latency = latency.clone());
        self
    }

    /// Each packet is lost with this chance.
    pub fn loss(&self, loss: f64) -> &Self {
        self.each(|link| link.config.loss = loss);
        self
    }

    /// All packets are lost, those under way included.
    pub fn cut(&self) -> &Self {
        let cuts = self.each(|link| !std::mem::replace(&mut link.cut, true));
        self.note("cut", cuts, |counters, count| counters.cuts += count)
    }

    /// Ends a cut.
    pub fn heal(&self) -> &Self {
        let heals = self.each(|link| std::mem::replace(&mut link.cut, false));
        self.note("heal", heals, |counters, count| counters.heals += count)
    }

    /// Packets wait at the receiver's door, none is lost.
    pub fn hold(&self) -> &Self {
        let holds = self.each(|link| !std::mem::replace(&mut link.hold, true));
        self.note("hold", holds, |counters, count| counters.holds += count)
    }

    /// What was held arrives now, in its order.
    pub fn release(&self) -> &Self {
        for (from, to) in &self.pairs {
            self.net.with(|state| {
                let link = state.link(*from, *to);
                link.hold = false;
                for packet in std::mem::take(&mut link.held) {
                    state.schedule(state.now, Step::Arrive(packet));
                }
            });
        }
        self
    }

    /// Applies `change` to every link.
    fn each<T>(&self, change: impl Fn(&mut Link) -> T) -> Vec<T> {
        self.net.with(|state| self.pairs.iter().map(|(from, to)| change(state.link(*from, *to))).collect())
    }

    fn note(&self, verb: &str, changed: Vec<bool>, count: impl FnOnce(&mut super::Counters, u64)) -> &Self {
        self.net.with(|state| {
            count(&mut state.counters, changed.iter().filter(|changed| **changed).count() as u64);
            for ((from, to), _) in self.pairs.iter().zip(changed).filter(|(_, changed)| *changed) {
                tracing::info!(target: "net", from = state.name(*from), to = state.name(*to), "{verb}");
            }
        });
        self
    }
}
