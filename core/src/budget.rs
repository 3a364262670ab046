//! The bound on queued bytes that all topics of a process share (`--mem-queue-bytes`; rule 14 of storage).
//!
//! Chunks of logs are charged when they are allocated and released when they are freed, which happens once for hundreds
//! of messages, so that one shared counter costs nothing. Past the bound each publish waits until the disk has it, and
//! what cannot go to a disk is refused; what was accepted stays.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// A shared count of bytes with a limit. Clones share the count.
#[derive(Clone, Debug)]
pub struct Budget(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    used: AtomicUsize,
    limit: usize,
}

impl Budget {
    /// A budget of `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self(Arc::new(Inner { used: AtomicUsize::new(0), limit }))
    }

    /// Whether so many more bytes fit.
    pub fn fits(&self, bytes: usize) -> bool {
        self.used().saturating_add(bytes) <= self.0.limit
    }

    /// Bytes charged at present.
    pub fn used(&self) -> usize {
        self.0.used.load(Relaxed)
    }

    /// Whether three quarters are used: then topics that have a disk are to give up their memory, busy or not.
    pub fn is_short(&self) -> bool {
        self.used() > self.limit() / 4 * 3
    }

    /// Whether hardly anything fits.
    pub fn is_full(&self) -> bool {
        self.used() > self.limit() / 16 * 15
    }

    /// The limit in bytes.
    pub fn limit(&self) -> usize {
        self.0.limit
    }

    pub(crate) fn charge(&self, bytes: usize) {
        self.0.used.fetch_add(bytes, Relaxed);
    }

    pub(crate) fn release(&self, bytes: usize) {
        let before = self.0.used.fetch_sub(bytes, Relaxed);
        debug_assert!(before >= bytes, "released more than was charged");
    }
}
