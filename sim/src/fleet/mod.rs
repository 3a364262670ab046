//! The fleet: producers and consumers as applications have them, on net's full client, each a process on a machine.
//!
//! They come and go, are killed and stand still like servers; what they saw goes into the ledger. Producers are told
//! their nsqds, consumers find theirs through nsqlookupds. What a client never learnt is written down as unknown.

mod consumer;
mod producer;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

pub use consumer::{Consumer, Consuming};
pub use producer::{Producer, Producing};

/// What the scenario tells all clients, and what they tell it.
#[derive(Clone, Default)]
pub struct Signals(Arc<Flags>);

#[derive(Default)]
struct Flags {
    enough: AtomicBool,
    calm: AtomicBool,
    producing: AtomicUsize,
}

impl Signals {
    /// Producers publish nothing more.
    pub fn enough(&self) {
        self.0.enough.store(true, Relaxed);
    }

    /// Consumers finish everything from now on.
    pub fn calm_down(&self) {
        self.0.calm.store(true, Relaxed);
    }

    /// Whether a producer waits for an answer.
    pub fn producing(&self) -> bool {
        self.0.producing.load(Relaxed) > 0
    }

    fn is_enough(&self) -> bool {
        self.0.enough.load(Relaxed)
    }

    fn is_calm(&self) -> bool {
        self.0.calm.load(Relaxed)
    }

    /// Counts a publish until it is dropped, also with its process.
    fn publishing(&self) -> Publishing {
        self.0.producing.fetch_add(1, Relaxed);
        Publishing(self.clone())
    }
}

struct Publishing(Signals);

impl Drop for Publishing {
    fn drop(&mut self) {
        self.0.0.producing.fetch_sub(1, Relaxed);
    }
}
