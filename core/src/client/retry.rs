//! How long to wait before trying again.
//!
//! In: how often it has failed. Out: a delay that doubles each time up to a bound, half of it random, so that the
//! clients of an nsqd that comes back do not all come at once.

use crate::random::Random;
use crate::time::Duration;

/// The delays before a connection is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// After the first failure.
    pub first: Duration,
    /// The longest.
    pub most: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self { first: Duration::from_millis(200), most: Duration::from_secs(30) }
    }
}

impl Retry {
    /// The delay after so many failures in a row: between half of it and all of it.
    pub(super) fn delay(self, failures: u32, random: &mut Random) -> Duration {
        let whole = doubled(self.first, failures.saturating_sub(1)).min(self.most);
        up_to(whole / 2, random) + whole / 2
    }
}

/// Twice as long, so many times.
pub(super) fn doubled(delay: Duration, times: u32) -> Duration {
    delay.saturating_mul(1u32.checked_shl(times).unwrap_or(u32::MAX))
}

/// Any duration up to this one.
pub(super) fn up_to(most: Duration, random: &mut Random) -> Duration {
    let nanos = u64::try_from(most.as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(random.below(nanos.saturating_add(1).max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_a_bound() {
        let retry = Retry { first: Duration::from_millis(100), most: Duration::from_secs(10) };
        let mut random = Random::new(1);
        for (failures, whole) in
            [(1, 100), (2, 200), (3, 400), (7, 6400), (8, 10_000), (40, 10_000), (u32::MAX, 10_000)]
        {
            let whole = Duration::from_millis(whole);
            for _ in 0..100 {
                let delay = retry.delay(failures, &mut random);
                assert!(whole / 2 <= delay && delay <= whole, "{failures} failures: {delay:?}");
            }
        }
    }
}
