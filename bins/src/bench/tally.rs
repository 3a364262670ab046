//! What one thread of a run has seen, to be added up at the end.
//!
//! Latencies go into HDR histograms: nanoseconds to three significant digits, so that percentiles of any range cost a
//! few hundred KiB.

use hdrhistogram::Histogram;
use std::time::Duration;

/// One thread's observations of the measured part.
#[derive(Clone, Debug)]
pub(super) struct Tally {
    /// Nanoseconds from a request, or from when it was due, to its `OK`.
    pub(super) acknowledgement: Histogram<u64>,
    /// Nanoseconds from when a message was due to its arrival.
    pub(super) latency: Histogram<u64>,
    /// Nanoseconds by which requests were sent later than scheduled.
    pub(super) lag: Histogram<u64>,
    /// Messages that nsqd had sent before, of the whole run.
    pub(super) redelivered: u64,
    /// Messages that another run published, of the whole run.
    pub(super) foreign: u64,
}

impl Tally {
    /// Adds up.
    pub(super) fn add(&mut self, other: &Self) {
        self.acknowledgement += &other.acknowledgement;
        self.latency += &other.latency;
        self.lag += &other.lag;
        self.redelivered += other.redelivered;
        self.foreign += other.foreign;
    }
}

impl Default for Tally {
    fn default() -> Self {
        Self { acknowledgement: histogram(), latency: histogram(), lag: histogram(), redelivered: 0, foreign: 0 }
    }
}

/// From 1 ns to an hour; what is longer counts as an hour.
fn histogram() -> Histogram<u64> {
    const HOUR: u64 = 3600 * 1_000_000_000;
    Histogram::new_with_bounds(1, HOUR, 3).expect("these bounds are valid")
}

/// A duration as a histogram takes it.
pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_threads_add_up() {
        let (mut one, mut two) = (Tally::default(), Tally::default());
        (1..=500).for_each(|us| one.latency.saturating_record(us * 1000));
        (501..=1000).for_each(|us| two.latency.saturating_record(us * 1000));
        two.redelivered = 3;
        one.add(&two);
        assert_eq!((one.latency.len(), one.redelivered), (1000, 3));
        for (quantile, us) in [(0.5, 500), (0.9, 900), (0.99, 990), (0.999, 999), (1.0, 1000)] {
            let seen = one.latency.value_at_quantile(quantile) / 1000;
            assert!(seen.abs_diff(us) <= 1, "{quantile}: {seen} us");
        }
        one.latency.saturating_record(nanos(Duration::MAX));
        assert!(one.latency.max() >= 3600 * 1_000_000_000);
    }
}
