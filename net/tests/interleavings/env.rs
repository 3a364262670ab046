//! Stands for the module of this name in net: both clocks are the one that the test moves.

use nsq_core::time::{Instant, Now};
pub(crate) use nsq_net::env::{Env, Wall};

/// Reads both clocks.
pub(crate) struct Clock(Wall);

impl Clock {
    pub(crate) fn new(wall: Wall) -> Self {
        Self(wall)
    }

    pub(crate) fn now(&self) -> Now {
        let timestamp = (self.0)();
        Now { instant: Instant::from_nanos(timestamp.as_nanos() as u64), timestamp }
    }

    /// So late that no test sees it.
    pub(crate) fn at(&self, instant: Instant) -> tokio::time::Instant {
        tokio::time::Instant::now() + std::time::Duration::from_nanos(instant.as_nanos())
    }
}
