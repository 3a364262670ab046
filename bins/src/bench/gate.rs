//! Where the threads of a run meet: its phase, its counters, its end.
//!
//! Producers claim requests from it and report what was acknowledged, consumers report what they received, and the main
//! thread moves the phase and waits. The rule: per batch a thread touches a few atomics and no lock; the lock is for
//! the end only.

use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How far a run has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Phase {
    /// Load, but nothing counts yet.
    WarmUp,
    /// What happens now is measured.
    Measure,
    /// Producers send nothing more; what is under way still arrives.
    Drain,
    /// Everybody leaves.
    Stop,
}

/// The meeting point.
pub(super) struct Gate {
    origin: Instant,
    phase: AtomicU8,
    measured_from: AtomicU64,
    claimable: AtomicI64,
    published: AtomicU64,
    received: AtomicU64,
    received_bytes: AtomicU64,
    goal: AtomicU64,
    producers: AtomicUsize,
    total_producers: usize,
    round_trip: bool,
    finished: Mutex<Option<Instant>>,
    wake: Condvar,
}

/// A producer's presence; dropping it is leaving.
pub(super) struct Presence<'a>(&'a Gate);

impl Gate {
    /// A gate for `producers` producing threads. `round_trip`: the run is finished when all that was published was
    /// received.
    pub(super) fn new(producers: usize, round_trip: bool) -> Self {
        Self {
            origin: Instant::now(),
            phase: AtomicU8::new(Phase::WarmUp as u8),
            measured_from: AtomicU64::new(u64::MAX),
            claimable: AtomicI64::new(i64::MAX),
            published: AtomicU64::new(0),
            received: AtomicU64::new(0),
            received_bytes: AtomicU64::new(0),
            goal: AtomicU64::new(u64::MAX),
            producers: AtomicUsize::new(producers),
            total_producers: producers,
            round_trip,
            finished: Mutex::new(None),
            wake: Condvar::new(),
        }
    }

    /// How far the run has come.
    pub(super) fn phase(&self) -> Phase {
        match self.phase.load(Relaxed) {
            0 => Phase::WarmUp,
            1 => Phase::Measure,
            2 => Phase::Drain,
            _ => Phase::Stop,
        }
    }

    /// A time as nanoseconds of this run, for a message's body.
    pub(super) fn nanos(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.origin).as_nanos()).unwrap_or(u64::MAX)
    }

    /// The [`Gate::nanos`] at which the measurement began; `u64::MAX` before.
    pub(super) fn measured_from(&self) -> u64 {
        self.measured_from.load(Relaxed)
    }

    /// Begins the measurement, of at most `requests` claimed and `messages` received from now on (`None`: no limit).
    pub(super) fn measure(&self, requests: Option<u64>, messages: Option<u64>) {
        if let Some(requests) = requests {
            self.claimable.store(i64::try_from(requests).unwrap_or(i64::MAX), SeqCst);
        }
        if let Some(messages) = messages {
            self.goal.store(self.received().saturating_add(messages), SeqCst);
        }
        self.measured_from.store(self.nanos(Instant::now()), SeqCst);
        self.enter(Phase::Measure);
    }

    /// Moves the run on.
    pub(super) fn enter(&self, phase: Phase) {
        self.phase.fetch_max(phase as u8, SeqCst);
    }

    /// A producer asks to send `wanted` requests; less than that granted means that it may never send again.
    pub(super) fn claim(&self, wanted: usize) -> usize {
        if self.phase() >= Phase::Drain {
            return 0;
        }
        let before = self.claimable.fetch_sub(wanted as i64, Relaxed);
        wanted.min(usize::try_from(before).unwrap_or(0))
    }

    /// A producing thread that was counted in [`Gate::new`] begins.
    pub(super) fn presence(&self) -> Presence<'_> {
        Presence(self)
    }

    /// `count` messages were acknowledged.
    pub(super) fn add_published(&self, count: u64) {
        self.published.fetch_add(count, SeqCst);
    }

    /// `count` messages with bodies of `bytes` together were received.
    pub(super) fn add_received(&self, count: u64, bytes: u64) {
        self.received_bytes.fetch_add(bytes, Relaxed);
        if self.received.fetch_add(count, SeqCst) + count >= self.goal.load(SeqCst) {
            self.finish();
        }
    }

    /// Messages acknowledged so far.
    pub(super) fn published(&self) -> u64 {
        self.published.load(SeqCst)
    }

    /// Messages received so far.
    pub(super) fn received(&self) -> u64 {
        self.received.load(SeqCst)
    }

    /// Bytes of bodies received so far.
    pub(super) fn received_bytes(&self) -> u64 {
        self.received_bytes.load(Relaxed)
    }

    /// Ends the waiting of [`Gate::finished_within`]: the goal is reached, or it cannot be any more.
    pub(super) fn finish(&self) {
        self.finished().get_or_insert_with(Instant::now);
        self.wake.notify_all();
    }

    /// Waits for the end, at most this long; its time, if it has come.
    pub(super) fn finished_within(&self, wait: Duration) -> Option<Instant> {
        let guard = self.finished();
        let result = self.wake.wait_timeout_while(guard, wait, |finished| finished.is_none());
        *result.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Whether this run has producers.
    pub(super) fn produces(&self) -> bool {
        self.total_producers > 0
    }

    /// Whether messages or acknowledgements are still under way.
    pub(super) fn is_draining(&self) -> bool {
        self.producers.load(SeqCst) > 0 || self.round_trip && self.received() < self.published()
    }

    fn finished(&self) -> MutexGuard<'_, Option<Instant>> {
        self.finished.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Presence<'_> {
    fn drop(&mut self) {
        if self.0.producers.fetch_sub(1, SeqCst) == 1 {
            // Whoever comes second, this or the last consumer, sees what the other one stored.
            self.0.goal.store(if self.0.round_trip { self.0.published() } else { 0 }, SeqCst);
            self.0.add_received(0, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_end_with_the_count_and_with_the_phase() {
        let gate = Gate::new(1, false);
        assert_eq!(gate.claim(1000), 1000);
        gate.measure(Some(5), None);
        assert_eq!([gate.claim(3), gate.claim(3), gate.claim(3)], [3, 2, 0]);
        let gate = Gate::new(1, false);
        gate.enter(Phase::Drain);
        assert_eq!(gate.claim(1), 0);
        gate.enter(Phase::Measure);
        assert_eq!(gate.phase(), Phase::Drain);
    }

    #[test]
    fn a_round_trip_ends_when_all_is_back_in_either_order() {
        for producer_first in [true, false] {
            let gate = Gate::new(1, true);
            let presence = gate.presence();
            gate.add_published(10);
            gate.add_received(9, 0);
            if producer_first {
                drop(presence);
                assert_eq!(gate.finished_within(Duration::ZERO), None);
                gate.add_received(1, 0);
            } else {
                gate.add_received(1, 0);
                assert_eq!(gate.finished_within(Duration::ZERO), None);
                drop(presence);
            }
            assert!(gate.finished_within(Duration::ZERO).is_some() && !gate.is_draining());
        }
    }

    #[test]
    fn consuming_ends_at_its_count_of_the_measured_part() {
        let gate = Gate::new(0, false);
        gate.add_received(100, 0);
        gate.measure(None, Some(10));
        gate.add_received(9, 0);
        assert_eq!(gate.finished_within(Duration::ZERO), None);
        gate.add_received(1, 0);
        assert!(gate.finished_within(Duration::ZERO).is_some());
    }
}
