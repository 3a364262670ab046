//! What a channel has to say to the journal: what has changed since it was written to the last time.
//!
//! It says what *is* out, not what happened: what was handed out and finished since then leaves no trace. Only messages
//! in placed chunks count, for the others go with the process.

use super::super::log::{Loc, Log};
use crate::storage::journal::Incarnation;
use crate::time::Instant;
use alloc::collections::BTreeMap;

/// See the module's documentation.
#[derive(Debug)]
pub(in crate::topic) struct Ledger {
    pub(in crate::topic) incarnation: Incarnation,
    pub(in crate::topic) changes: BTreeMap<Loc, Change>,
    /// The channel itself, or its pause, is news.
    pub(in crate::topic) announce: bool,
    /// What is fresh has changed.
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

impl Ledger {
    pub(in crate::topic) const fn new(incarnation: Incarnation) -> Self {
        Self { incarnation, changes: BTreeMap::new(), announce: true, moved: true, emptied: false }
    }

    /// A message is handed out, put back, or deferred; `first`: it was fresh until now, or has just come.
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

    /// A message is out in a chunk that the journal has not heard of.
    pub(in crate::topic) fn mention(&mut self, loc: Loc, attempts: u16, due: Option<Instant>) {
        self.changes.insert(loc, Change::Out { attempts, due, first: true });
    }

    /// A message is done; `first`: it was fresh until now.
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
    pub(in crate::topic) fn said(&mut self) {
        self.changes.clear();
        (self.announce, self.moved, self.emptied) = (false, false, false);
    }

    pub(in crate::topic) fn is_clean(&self) -> bool {
        self.changes.is_empty() && !self.announce && !self.moved && !self.emptied
    }
}
