//! The messages of a channel that wait for their time, earliest first.
//!
//! There may be millions of them, and all that they cost beside their records is in here: 18 bytes each.

use super::SMALL;
use super::log::Loc;
use crate::time::Instant;
use alloc::collections::BinaryHeap;
use core::cmp::Reverse;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct DeferredQueue(BinaryHeap<Reverse<Deferred>>);

/// A message that waits for its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(Rust, packed(2))]
pub(super) struct Deferred {
    pub(super) due: Instant,
    pub(super) loc: Loc,
    pub(super) attempts: u16,
}

const _: () = assert!(size_of::<Deferred>() == 18);

impl DeferredQueue {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn push(&mut self, deferred: Deferred) {
        self.0.push(Reverse(deferred));
    }

    /// The one that is due first.
    pub(super) fn first(&self) -> Option<Deferred> {
        self.0.peek().map(|Reverse(first)| *first)
    }

    pub(super) fn pop(&mut self) {
        self.0.pop();
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Deferred> {
        self.0.iter().map(|Reverse(deferred)| *deferred)
    }

    /// Takes out all of them.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Deferred> + use<> {
        core::mem::take(&mut self.0).into_iter().map(|Reverse(deferred)| deferred)
    }

    /// Changes each of them, but not when it is due, or drops it.
    pub(super) fn retain(&mut self, mut stays: impl FnMut(&mut Deferred) -> bool) {
        let mut all = core::mem::take(&mut self.0).into_vec();
        all.retain_mut(|Reverse(deferred)| stays(deferred));
        self.0 = all.into();
    }

    /// Gives memory back if there are none.
    pub(super) fn shrink(&mut self) {
        if self.0.is_empty() {
            self.0.shrink_to(SMALL);
        }
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.0.capacity()
    }
}
