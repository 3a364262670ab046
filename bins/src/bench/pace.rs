//! When paced requests are due: an open loop whose schedule is fixed before the first byte is sent.
//!
//! Latency is measured from the times in here, never from the moment of sending, so a server that stalls cannot hide
//! its stall by slowing the load down (no coordinated omission). The rule: `due(k) <= now` exactly when `k <
//! due_by(now)`.

use std::time::{Duration, Instant};

/// The due times of one connection's requests.
#[derive(Clone, Debug)]
pub(super) struct Schedule {
    start: Instant,
    /// Messages that all connections together carry from one request of this connection to its next, times a second in
    /// nanoseconds.
    step: u128,
    /// Messages per second of all connections together.
    rate: u128,
    /// This connection's share of the first step, in the unit of `step`, so that connections take turns.
    offset: u128,
}

impl Schedule {
    /// The schedule of connection `index` of `connections`, whose requests of `batch` messages add up to `rate`
    /// messages per second. `rate`, `batch` and `connections` must not be 0.
    pub(super) fn new(start: Instant, rate: u64, batch: usize, index: usize, connections: usize) -> Self {
        let turn = batch as u128 * NANOS;
        Self { start, step: turn * connections as u128, rate: rate.into(), offset: turn * index as u128 }
    }

    /// When request `number` (from 0) is due.
    pub(super) fn due(&self, number: u64) -> Instant {
        let nanos = (self.step * u128::from(number) + self.offset).div_ceil(self.rate);
        self.start + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// How many requests are due by `now`.
    pub(super) fn due_by(&self, now: Instant) -> u64 {
        let Some(passed) = now.checked_duration_since(self.start) else { return 0 };
        match (passed.as_nanos() * self.rate).checked_sub(self.offset) {
            Some(passed) => u64::try_from(passed / self.step + 1).unwrap_or(u64::MAX),
            None => 0,
        }
    }
}

const NANOS: u128 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn due_and_due_by_agree(
            rate in 1u64..10_000_000, batch in 1usize..1000, connections in 1usize..50, at in 0u64..20_000_000_000,
        ) {
            let start = Instant::now();
            let schedule = Schedule::new(start, rate, batch, connections - 1, connections);
            let now = start + Duration::from_nanos(at);
            let count = schedule.due_by(now);
            prop_assert!(count == 0 || schedule.due(count - 1) <= now);
            prop_assert!(schedule.due(count) > now);
        }
    }

    #[test]
    fn the_rate_is_met_exactly_and_connections_take_turns() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let schedules: Vec<_> = (0..3).map(|index| Schedule::new(start, 3000, 10, index, 3)).collect();
        // 300 requests a second over three connections: one every 10 ms each, a third of that apart.
        assert_eq!(schedules[0].due(0), start);
        assert_eq!(schedules[0].due(5), at(50));
        assert_eq!(schedules[1].due(0), start + Duration::from_nanos(3_333_334));
        let due: u64 =
            schedules.iter().map(|schedule| schedule.due_by(start + Duration::from_nanos(9_999_999_999))).sum();
        assert_eq!(due, 3000);
        assert_eq!(schedules[0].due_by(start - Duration::from_millis(1)), 0);
        assert_eq!(schedules[2].due_by(start), 0);
    }
}
