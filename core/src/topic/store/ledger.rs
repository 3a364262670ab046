//! What a channel has to say to the journal: what has changed since it was written to the last time.
//!
//! It says what *is* out, not what happened: what was handed out and finished since then leaves no trace. So a flight
//! itself knows what was said of it, and most messages come and go without an entry in here. Only messages in placed
//! chunks count, for the others go with the process.

use super::super::Channel;
use super::super::flights::Landed;
use super::super::log::{Loc, Log};
use crate::storage::journal::Incarnation;
use crate::time::Instant;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;

/// See the module's documentation.
#[derive(Debug)]
pub(in crate::topic) struct Ledger {
    pub(in crate::topic) incarnation: Incarnation,
    pub(in crate::topic) changes: BTreeMap<Loc, Change>,
    /// The channel itself, or its pause, is news.
    pub(in crate::topic) announce: bool,
    /// What is fresh, or in flight, has changed.
    pub(in crate::topic) moved: bool,
    /// All that was out is done.
    pub(in crate::topic) emptied: bool,
}

/// How it is with a message now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::topic) enum Change {
    /// Handed out, put back, or deferred; `first`: the journal has not heard of it.
    Out { attempts: u16, due: Option<Instant>, first: bool },
    /// Done, and the journal may think that it is out.
    Done,
}

/// What the journal has heard of a message that is in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::topic) enum Journalled {
    /// Nothing, or that it is fresh.
    Nothing,
    /// That it is out, but not of this delivery.
    Out,
    /// Everything.
    This,
}

impl Ledger {
    pub(in crate::topic) const fn new(incarnation: Incarnation) -> Self {
        Self { incarnation, changes: BTreeMap::new(), announce: true, moved: true, emptied: false }
    }

    /// A flight begins; `first`: the message was fresh until now.
    #[inline]
    pub(in crate::topic) fn takes_off(&mut self, loc: Loc, first: bool) -> Journalled {
        self.moved = true;
        if first { Journalled::Nothing } else { self.takes_off_again(loc) }
    }

    #[inline(never)]
    fn takes_off_again(&mut self, loc: Loc) -> Journalled {
        match self.changes.remove(&loc) {
            Some(Change::Out { first: true, .. }) => Journalled::Nothing,
            _ => Journalled::Out,
        }
    }

    /// A flight ends, and the message is put back, or deferred.
    pub(in crate::topic) fn lands(&mut self, flight: Landed, due: Option<Instant>, log: &Log) {
        let Landed { loc, attempts, journalled } = flight;
        if log.is_placed(loc) && (journalled != Journalled::This || due.is_some()) {
            self.changes.insert(loc, Change::Out { attempts, due, first: journalled == Journalled::Nothing });
        }
    }

    /// A flight ends, and the message is done.
    #[inline]
    pub(in crate::topic) fn arrives(&mut self, loc: Loc, journalled: Journalled, log: &Log) {
        if journalled != Journalled::Nothing && log.is_placed(loc) {
            self.changes.insert(loc, Change::Done);
        }
    }

    /// A message that is not in flight is put back, or deferred; `first`: it was fresh until now, or has just come.
    #[inline(never)]
    pub(in crate::topic) fn out(&mut self, loc: Loc, attempts: u16, due: Option<Instant>, first: bool, log: &Log) {
        self.moved |= first;
        if log.is_placed(loc) {
            let unheard = match self.changes.get(&loc) {
                Some(Change::Out { first, .. }) => *first,
                Some(Change::Done) => false,
                None => first,
            };
            self.changes.insert(loc, Change::Out { attempts, due, first: unheard });
        }
    }

    /// A message that is not in flight is out in a chunk that the journal has not heard of.
    pub(in crate::topic) fn mention(&mut self, loc: Loc, attempts: u16, due: Option<Instant>) {
        self.changes.insert(loc, Change::Out { attempts, due, first: true });
    }

    /// A message that is not in flight is done; `first`: it was fresh until now.
    #[inline(never)]
    pub(in crate::topic) fn done(&mut self, loc: Loc, first: bool, log: &Log) {
        self.moved |= first;
        if !first && log.is_placed(loc) {
            match self.changes.get(&loc) {
                Some(Change::Out { first: true, .. }) => {
                    self.changes.remove(&loc);
                }
                _ => {
                    self.changes.insert(loc, Change::Done);
                }
            }
        }
    }

    /// Everything is done.
    pub(in crate::topic) fn empty(&mut self) {
        self.changes.clear();
        (self.emptied, self.moved) = (true, true);
    }

    /// The journal has been told.
    pub(in crate::topic) fn journalled(&mut self) {
        self.changes.clear();
        (self.announce, self.moved, self.emptied) = (false, false, false);
    }

    pub(in crate::topic) fn is_clean(&self) -> bool {
        self.changes.is_empty() && !self.announce && !self.moved && !self.emptied
    }
}

impl Channel {
    /// The journal is to be told of this channel from now on.
    pub(in crate::topic) fn open_ledger(&mut self) {
        if !self.is_ephemeral {
            self.ledger = Some(Box::new(Ledger::new(self.incarnation)));
        }
    }

    /// Everything that is out and in these chunks is something to tell the journal, to which no flight from there was
    /// said.
    pub(in crate::topic) fn mention(&mut self, is_one: impl Fn(u64) -> bool) {
        let Some(mut ledger) = self.ledger.take() else { return };
        self.each_at_rest(|loc, attempts, due| {
            if is_one(loc.chunk()) {
                ledger.mention(loc, attempts, due);
            }
        });
        ledger.moved = true;
        self.ledger = Some(ledger);
    }

    /// What the journal has not heard of messages that are out, or all there is to say; then it has heard it.
    pub(in crate::topic) fn tell_out(&mut self, all: bool, log: &Log, mut tell: impl FnMut(Loc, Change)) {
        for flight in self.flights.iter_mut().filter(|flight| log.is_placed(flight.loc)) {
            if all || flight.journalled != Journalled::This {
                flight.journalled = Journalled::This;
                tell(flight.loc, Change::Out { attempts: flight.attempts, due: None, first: false });
            }
        }
        if all {
            self.each_at_rest(|loc, attempts, due| {
                if log.is_placed(loc) {
                    tell(loc, Change::Out { attempts, due, first: false });
                }
            });
        } else if let Some(ledger) = &self.ledger {
            ledger.changes.iter().for_each(|(&loc, &change)| tell(loc, change));
        }
        if let Some(ledger) = &mut self.ledger {
            ledger.journalled();
        }
    }
}
