//! The runtime's clock in core's terms.

use nsq_core::time::Instant;

/// Counts from when it was made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock(tokio::time::Instant);

impl Clock {
    pub(super) fn new() -> Self {
        Self(tokio::time::Instant::now())
    }

    pub(super) fn now(self) -> Instant {
        Instant::from_nanos(u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    pub(super) fn at(self, instant: Instant) -> tokio::time::Instant {
        self.0 + std::time::Duration::from_nanos(instant.as_nanos())
    }
}
