//! The runtime's clock in core's terms, and how a client's machine is driven by it.

use nsq_core::time::Instant;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::sleep_until;

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
        self.0 + Duration::from_nanos(instant.as_nanos())
    }
}

/// What the task of a client has to do.
pub(super) enum Next<W> {
    Work(W),
    /// Call the machine then, if there is such a time.
    Wait(Option<Instant>),
    End,
}

/// Does a machine's work and ticks it when it is due, until it has ended. `wake` is notified when there is work, or the
/// machine is due sooner.
pub(super) async fn keep_time<W>(
    clock: Clock,
    wake: &Notify,
    mut next: impl FnMut() -> Next<W>,
    mut perform: impl FnMut(W),
    mut tick: impl FnMut(),
) {
    const FAR: Duration = Duration::from_secs(3600);
    tick();
    loop {
        let due = match next() {
            Next::Work(work) => {
                perform(work);
                continue;
            }
            Next::Wait(due) => due.map_or_else(|| tokio::time::Instant::now() + FAR, |due| clock.at(due)),
            Next::End => return,
        };
        tokio::select! {
            biased;
            () = wake.notified() => {}
            () = sleep_until(due) => tick(),
        }
    }
}
