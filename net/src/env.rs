//! What a process gets from outside besides sockets and timers: the wall clock, a seed, a disk.
//!
//! Everything else comes from the name `tokio`. The simulator skews the clock, draws the seed and tears the disk.

use crate::disk::Disk;
use nsq_core::time::{Instant, Now, Timestamp};
use std::sync::Arc;

/// Reads the wall clock.
pub type Wall = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// See the module's documentation.
#[derive(Clone)]
pub struct Env {
    /// The wall clock.
    pub wall: Wall,
    /// All randomness of the process follows from it.
    pub seed: u64,
    /// The data directory.
    pub disk: Arc<dyn Disk>,
}

/// Reads both clocks.
pub(crate) struct Clock {
    origin: tokio::time::Instant,
    wall: Wall,
}

impl Clock {
    pub(crate) fn new(wall: Wall) -> Self {
        Self { origin: tokio::time::Instant::now(), wall }
    }

    pub(crate) fn now(&self) -> Now {
        let nanos = self.origin.elapsed().as_nanos();
        Now { instant: Instant::from_nanos(nanos as u64), timestamp: (self.wall)() }
    }

    /// The runtime's name for one of core's instants.
    pub(crate) fn at(&self, instant: Instant) -> tokio::time::Instant {
        self.origin + std::time::Duration::from_nanos(instant.as_nanos())
    }
}
