//! RDY: how many messages each connection may send, so that all together never send more than `max_in_flight`.
//!
//! nsqd sends a connection messages while it has fewer in flight than its RDY, and answers no RDY: one that is lowered
//! may still be on its way while messages under the old one come. So a connection may have in flight, at any moment,
//!
//! > `bound` = max(its RDY, a higher RDY that may not have been superseded yet, what it has in flight),
//!
//! and the one rule is **Σ `bound` ≤ `max_in_flight`**. A raise waits for its credit. A lowered RDY counts as
//! superseded after [`patience`](Share): two round trips, measured when the connection was made, and 100 ms; no sooner
//! if as much is in flight as it allowed, for a message that times out makes room at nsqd without a FIN. Should the
//! network be slower than that, what comes too much is *not admitted*: it is held back from the application until there
//! is room for it.
//!
//! When connections outnumber the credit, each can have one message more than it has, or none, and they take turns: an
//! idle one for its patience, a busy one for [`TURN`]; who has waited longest is next, so with n connections and m
//! credits none waits longer than (n / m) × (`TURN` + its patience + the time to handle a message). Otherwise each has
//! at least 1, those that use up what they have share the rest equally, and those that do not give it away
//! ([`REVIEW`]).

use super::ConnId;
use crate::time::{Duration, Instant};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// How long a busy connection keeps its only credit while others have none.
pub(in crate::client) const TURN: Duration = Duration::from_secs(1);
/// How long the use of credit is watched before it is shared anew.
pub(super) const REVIEW: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_millis(100);

/// The credit of one connection.
#[derive(Debug)]
struct Share {
    /// nsqd's limit of RDY.
    cap: u32,
    /// After which nsqd has certainly read what was sent, and what it sent before has come.
    patience: Duration,
    rdy: u32,
    /// A higher RDY that nsqd may still go by, until then.
    settling: Option<(u32, Instant)>,
    in_flight: u32,
    /// The most in flight since the last review.
    peak: u32,
    /// Has used up its RDY since the last review.
    used_up: bool,
    /// What it can use; all it can get if there is none.
    wants: Option<u32>,
    /// When RDY became zero or ceased to be, and when something happened last.
    since: Instant,
    heard: Instant,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Sharing {
    max_in_flight: u32,
    /// The most to ask for: less than `max_in_flight` in backoff.
    budget: u32,
    /// Messages that are held back.
    held: u32,
    /// Messages in flight of connections that are gone: the application still has them.
    orphans: u32,
    shares: BTreeMap<ConnId, Share>,
    review: Option<Instant>,
    changed: bool,
}

impl Share {
    /// What nsqd may believe to be its RDY.
    fn granted(&self) -> u32 {
        self.settling.map_or(self.rdy, |(rdy, _)| rdy.max(self.rdy))
    }

    fn has_room(&self) -> bool {
        self.in_flight < self.granted()
    }

    fn bound(&self) -> u32 {
        self.granted().max(self.in_flight)
    }

    /// When its turn with its only credit is over, if others wait.
    fn turn_ends(&self) -> Option<Instant> {
        match self.in_flight {
            _ if self.rdy == 0 => None,
            0 => Some(self.heard.max(self.since) + self.patience),
            _ => Some(self.since + TURN),
        }
    }

    fn set(&mut self, now: Instant, rdy: u32) {
        if (rdy == 0) != (self.rdy == 0) {
            self.since = now;
        }
        if rdy < self.rdy {
            self.settling = Some((self.granted(), now + self.patience));
        }
        self.rdy = rdy;
    }
}

impl Sharing {
    pub(super) const fn new(max_in_flight: u32) -> Self {
        Self {
            max_in_flight,
            budget: max_in_flight,
            held: 0,
            orphans: 0,
            shares: BTreeMap::new(),
            review: None,
            changed: false,
        }
    }

    /// A connection that has RDY 0 yet.
    pub(super) fn connect(&mut self, now: Instant, conn: ConnId, cap: u32, round_trip: Duration) {
        let share = Share {
            cap,
            patience: PATIENCE + round_trip * 2,
            rdy: 0,
            settling: None,
            in_flight: 0,
            peak: 0,
            used_up: false,
            wants: None,
            since: now,
            heard: now,
        };
        self.shares.insert(conn, share);
        self.changed = true;
    }

    /// What it has in flight still counts until it [leaves](Self::leave).
    pub(super) fn disconnect(&mut self, conn: ConnId) {
        self.orphans += self.shares.remove(&conn).map_or(0, |share| share.in_flight);
        self.changed = true;
    }

    /// How much may be asked for from now on.
    pub(super) fn set_budget(&mut self, budget: u32) {
        self.changed |= budget != self.budget;
        self.budget = budget;
    }

    /// How many messages are held back.
    pub(super) fn set_held(&mut self, held: usize) {
        let held = u32::try_from(held).unwrap_or(u32::MAX);
        self.changed |= held != self.held;
        self.held = held;
    }

    /// Whether a message that comes is one that nsqd was asked for.
    pub(super) fn has_room(&self, conn: ConnId) -> bool {
        self.shares.get(&conn).is_some_and(Share::has_room)
    }

    /// A message has come: whether there is room for it. If so, it is in flight.
    pub(super) fn admit(&mut self, now: Instant, conn: ConnId) -> bool {
        let rotating = self.is_rotating();
        let Some(share) = self.shares.get(&conn) else { return false };
        if !share.has_room() && self.reserved() >= self.max_in_flight {
            return false;
        }
        let share = self.shares.get_mut(&conn).expect("it was just there");
        share.heard = now;
        share.in_flight += 1;
        share.peak = share.peak.max(share.in_flight);
        if share.in_flight >= share.rdy {
            self.changed |= share.wants.take().is_some() || (rotating && share.turn_ends() <= Some(now));
            share.used_up = true;
            self.review.get_or_insert(now + REVIEW);
        }
        true
    }

    /// A message is not in flight any more.
    pub(super) fn leave(&mut self, now: Instant, conn: ConnId) {
        let Some(share) = self.shares.get_mut(&conn) else {
            self.orphans = self.orphans.saturating_sub(1);
            self.changed = true;
            return;
        };
        self.changed |= share.in_flight > share.granted() || share.rdy == 0;
        share.heard = now;
        share.in_flight = share.in_flight.saturating_sub(1);
    }

    /// Shares anew if something has changed or is due; RDYs to be sent go to the buffer, lowered ones first.
    pub(super) fn share(&mut self, now: Instant, rdys: &mut Vec<(ConnId, u32)>) {
        for share in self.shares.values_mut() {
            if share.settling.is_some_and(|(_, until)| until <= now) {
                share.settling = None;
                self.changed = true;
            }
        }
        if self.review.is_some_and(|due| due <= now) {
            self.look_back(now);
        }
        if !self.changed && self.turn_deadline().is_none_or(|due| now < due) {
            return;
        }
        self.changed = false;
        let targets = self.targets(now);
        for (conn, rdy) in &targets {
            let share = self.shares.get_mut(conn).expect("targets are of shares");
            if *rdy == share.rdy && share.turn_ends().is_some_and(|end| end <= now) {
                // There are more turns than there is anybody waiting.
                share.since = now;
            }
            if *rdy < share.rdy {
                share.set(now, *rdy);
                rdys.push((*conn, *rdy));
            }
        }
        let rotating = self.is_rotating();
        let mut free = self.max_in_flight.saturating_sub(self.reserved());
        for (conn, target) in targets {
            let share = self.shares.get_mut(&conn).expect("targets are of shares");
            let rdy = target.min(share.bound() + free);
            // A credit at a time would be a command at a time, and a turn needs all of its credit.
            if rdy > share.rdy && (rdy == target || (!rotating && rdy / 2 >= share.rdy)) {
                let before = share.bound();
                share.set(now, rdy);
                free -= share.bound() - before;
                rdys.push((conn, rdy));
            }
            if rotating && share.rdy < target {
                // The next credit is for this one, whatever those behind it could have for nothing.
                break;
            }
        }
    }

    /// Whether credit has to be shared anew.
    pub(super) const fn is_changed(&self) -> bool {
        self.changed
    }

    /// When to come back after messages came and went: this may be sooner than [`deadline`](Self::deadline) was before.
    pub(super) fn soonest(&self) -> Option<Instant> {
        self.review.into_iter().chain(self.turn_deadline()).min()
    }

    /// When to come back.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let settled = self.shares.values().filter_map(|share| share.settling).map(|(_, until)| until);
        settled.chain(self.review).chain(self.turn_deadline()).min()
    }

    fn turn_deadline(&self) -> Option<Instant> {
        if self.is_rotating() { self.shares.values().filter_map(Share::turn_ends).min() } else { None }
    }

    fn is_rotating(&self) -> bool {
        self.to_share() > 0 && (self.to_share() as usize) < self.shares.len()
    }

    /// What may be asked for: what is held back is asked for no more.
    fn to_share(&self) -> u32 {
        self.budget.min(self.max_in_flight.saturating_sub(self.held))
    }

    fn reserved(&self) -> u32 {
        self.shares.values().fold(self.orphans, |sum, share| sum.saturating_add(share.bound()))
    }

    /// The RDY that each is to have, in the order in which they get it.
    fn targets(&self, now: Instant) -> Vec<(ConnId, u32)> {
        if self.to_share() == 0 {
            return self.shares.keys().map(|conn| (*conn, 0)).collect();
        }
        if self.is_rotating() { self.turns(now) } else { self.portions() }
    }

    /// One credit each for those whose turn it is.
    fn turns(&self, now: Instant) -> Vec<(ConnId, u32)> {
        let probing = self.budget < self.max_in_flight;
        let mut order: Vec<_> = self.shares.iter().collect();
        order.sort_by_key(|(_, share)| {
            let holds = share.turn_ends().is_some_and(|end| now < end);
            // A credit on its way back is not for who gives it up; and a probe needs a connection that is free for it.
            let returns = share.rdy == 0 && (share.settling.is_some() || (probing && share.in_flight > 0));
            // Holders first; who has waited longest is next.
            (!holds, returns || share.rdy > 0, share.rdy == 0, share.since)
        });
        let credits = self.to_share() as usize;
        let rdy = |share: &Share| match share.rdy {
            // A probe is one message. Otherwise a credit is for a message more than it has.
            _ if probing => 1,
            0 => (share.in_flight + 1).min(share.cap),
            rdy => rdy,
        };
        let turns = order.into_iter().enumerate();
        turns.map(|(place, (conn, share))| (*conn, if place < credits { rdy(share) } else { 0 })).collect()
    }

    /// At least one credit each; the rest to those who use it.
    fn portions(&self) -> Vec<(ConnId, u32)> {
        let mut portions: Vec<_> = self.shares.iter().map(|(conn, share)| (*conn, share, 1)).collect();
        let mut left = self.to_share().saturating_sub(portions.len() as u32);
        for most in [|share: &Share| share.wants.unwrap_or(share.cap).min(share.cap), |share: &Share| share.cap] {
            while left > 0 {
                let takers = portions.iter().filter(|(_, share, has)| *has < most(share)).count() as u32;
                if takers == 0 {
                    break;
                }
                let each = (left / takers).max(1);
                for (_, share, has) in portions.iter_mut().filter(|(_, share, has)| *has < most(share)) {
                    let more = each.min(most(share) - *has).min(left);
                    *has += more;
                    left -= more;
                }
            }
        }
        portions.into_iter().map(|(conn, _, portion)| (conn, portion)).collect()
    }

    /// Learns from the use of credit since the last time. If everybody had enough, nothing is moved.
    fn look_back(&mut self, now: Instant) {
        let contended = self.shares.values().any(|share| share.used_up);
        self.review = contended.then(|| now + REVIEW);
        for share in self.shares.values_mut() {
            if contended {
                share.wants = (!share.used_up).then(|| share.peak.saturating_mul(2).saturating_add(1));
            }
            share.used_up = share.in_flight >= share.rdy && share.in_flight > 0;
            share.peak = share.in_flight;
        }
        self.changed |= contended;
    }

    /// Asserts what always holds.
    pub(super) fn check(&self) {
        assert!(self.reserved() <= self.max_in_flight, "more than max_in_flight: {self:?}");
        let asked: u32 = self.shares.values().map(|share| share.rdy).sum();
        let most = if self.budget < self.max_in_flight { self.to_share() } else { self.max_in_flight };
        assert!(self.changed || asked <= most, "asked for more than may be: {self:?}");
        for share in self.shares.values() {
            assert!(share.rdy <= share.cap && share.in_flight <= share.bound(), "{share:?}");
            assert!(share.settling.is_none_or(|(rdy, _)| rdy > 0), "{share:?}");
        }
    }

    /// Messages in flight.
    pub(super) fn in_flight(&self) -> usize {
        self.shares.values().fold(self.orphans, |sum, share| sum + share.in_flight) as usize
    }
}
