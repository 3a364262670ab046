//! What the model keeps of a channel: for each message that is not done, the place where it is.

use super::super::io::ConnId;
use crate::time::Instant;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// A channel as the model sees it.
#[derive(Default)]
pub(super) struct Channel {
    pub(super) paused: bool,
    pub(super) messages: BTreeMap<u32, Place>,
    pub(super) handed_out: u64,
    pub(super) total: u64,
    pub(super) finished: u64,
    pub(super) requeued: u64,
    pub(super) timed_out: u64,
    pub(super) dropped: u64,
    /// How often something was put back: the order of what waits.
    pub(super) put_back: u64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Place {
    Fresh,
    /// `behind`: the number of messages handed out after which it goes first; `order`: put back at the same moment if
    /// equal.
    Waiting {
        attempts: u16,
        behind: u64,
        order: u64,
    },
    Flying {
        attempts: u16,
        owner: ConnId,
        deadline: Instant,
        delivered: Instant,
    },
    Deferred {
        attempts: u16,
        due: Instant,
    },
}

impl Channel {
    pub(super) fn count(&self, wanted: impl Fn(&Place) -> bool) -> u64 {
        self.messages.values().filter(|place| wanted(place)).count() as u64
    }

    pub(super) fn fresh(&self) -> u64 {
        self.count(|place| *place == Place::Fresh)
    }

    pub(super) fn depth(&self) -> u64 {
        self.count(|place| matches!(place, Place::Fresh | Place::Waiting { .. }))
    }

    pub(super) fn held_by(&self, conn: ConnId) -> u32 {
        self.count(|place| matches!(place, Place::Flying { owner, .. } if *owner == conn)) as u32
    }

    pub(super) fn put_back(&mut self, message: u32, attempts: u16) {
        let behind = self.handed_out + self.fresh().min(10_000);
        self.messages.insert(message, Place::Waiting { attempts, behind, order: self.put_back });
    }

    /// Puts back what is due; in which order is open.
    pub(super) fn expire(&mut self, now: Instant) {
        let (mut late, mut due) = (Vec::new(), Vec::new());
        for (&message, place) in &self.messages {
            match *place {
                Place::Flying { attempts, deadline, .. } if deadline <= now => late.push((message, attempts)),
                Place::Deferred { attempts, due: at } if at <= now => due.push((message, attempts)),
                _ => {}
            }
        }
        self.timed_out += late.len() as u64;
        late.into_iter().chain(due).for_each(|(message, attempts)| self.put_back(message, attempts));
        self.put_back += 1;
    }

    /// The messages of which the channel may hand out any next; none if it has none.
    pub(super) fn next(&self) -> Vec<u32> {
        let fresh = self.messages.iter().find(|(_, place)| **place == Place::Fresh).map(|(&message, _)| message);
        let orders = self.messages.values().filter_map(|place| match *place {
            Place::Waiting { order, behind, .. } => Some((order, behind)),
            _ => None,
        });
        match (fresh, orders.min()) {
            (Some(fresh), None) => [fresh].into(),
            (Some(fresh), Some((_, behind))) if self.handed_out < behind => [fresh].into(),
            (_, first) => {
                let first = first.map(|(order, _)| order);
                let is_first = |place: &Place| matches!(place, Place::Waiting { order, .. } if Some(*order) == first);
                self.messages.iter().filter(|(_, place)| is_first(place)).map(|(&message, _)| message).collect()
            }
        }
    }
}
