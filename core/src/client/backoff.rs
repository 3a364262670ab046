//! Backoff: when handling messages fails, a consumer stops asking for more, and comes back one message at a time.
//!
//! In: successes and failures. Out: how many messages may be asked for. The first failure begins a pause; after it, one
//! message at a time is asked for, wherever it may come from. A failure makes the pause twice as long, a success
//! shortens it by half, and after as many successes as failures all is normal again. The one rule: a pause always ends
//! by time, and a probe needs no particular message or connection: whatever succeeds first counts.

use super::retry::doubled;
use crate::time::{Duration, Instant};

/// How a consumer backs off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackoffLimits {
    /// The first pause; zero never backs off.
    pub first: Duration,
    /// The longest pause.
    pub most: Duration,
}

impl Default for BackoffLimits {
    fn default() -> Self {
        Self { first: Duration::from_secs(1), most: Duration::from_secs(120) }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Off,
    Pause(Instant),
    Probe,
}

#[derive(Debug)]
pub(super) struct Backoff {
    limits: BackoffLimits,
    state: State,
    /// Failures that have not been made up for.
    level: u32,
}

impl Backoff {
    pub(super) const fn new(limits: BackoffLimits) -> Self {
        Self { limits, state: State::Off, level: 0 }
    }

    pub(super) const fn state(&self) -> State {
        self.state
    }

    /// How many messages may be asked for, of so many.
    pub(super) fn budget(&self, max_in_flight: u32) -> u32 {
        match self.state {
            State::Off => max_in_flight,
            State::Pause(_) => 0,
            State::Probe => max_in_flight.min(1),
        }
    }

    /// A message has failed. In a pause that means nothing: it was asked for before. Returns the pause that begins.
    pub(super) fn failed(&mut self, now: Instant) -> Option<Duration> {
        if self.limits.first.is_zero() || matches!(self.state, State::Pause(_)) {
            return None;
        }
        if self.level == 0 || self.pause() < self.limits.most {
            self.level += 1;
        }
        self.state = State::Pause(now + self.pause());
        Some(self.pause())
    }

    /// A message has succeeded. Returns the pause that begins, if that was not enough.
    pub(super) fn succeeded(&mut self, now: Instant) -> Option<Duration> {
        if self.state != State::Probe {
            return None;
        }
        self.level -= 1;
        if self.level == 0 {
            self.state = State::Off;
            return None;
        }
        self.state = State::Pause(now + self.pause());
        Some(self.pause())
    }

    /// Ends a pause whose time has come.
    pub(super) fn tick(&mut self, now: Instant) {
        if matches!(self.state, State::Pause(until) if until <= now) {
            self.state = State::Probe;
        }
    }

    pub(super) const fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Pause(until) => Some(until),
            State::Off | State::Probe => None,
        }
    }

    fn pause(&self) -> Duration {
        doubled(self.limits.first, self.level.saturating_sub(1)).min(self.limits.most)
    }

    /// Asserts what always holds.
    pub(super) fn check(&self) {
        assert_eq!(self.state == State::Off, self.level == 0, "{self:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    const fn at(secs: u64) -> Instant {
        Instant::from_nanos(secs * 1_000_000_000)
    }

    fn backoff(first: u64, most: u64) -> Backoff {
        Backoff::new(BackoffLimits { first: Duration::from_secs(first), most: Duration::from_secs(most) })
    }

    #[test]
    fn pauses_double_and_halve() {
        let (mut backoff, mut now, mut pauses) = (backoff(1, 10), at(0), Vec::new());
        for failed in [true, true, true, true, true, true, true, false, false, false, false, false] {
            let pause = if failed { backoff.failed(now) } else { backoff.succeeded(now) };
            backoff.check();
            pauses.push(pause.map_or(0, |pause| pause.as_secs()));
            now = backoff.deadline().unwrap_or(now);
            backoff.tick(now);
        }
        assert_eq!(pauses, [1, 2, 4, 8, 10, 10, 10, 8, 4, 2, 1, 0]);
        assert_eq!(backoff.state(), State::Off);
    }

    #[test]
    fn what_was_asked_for_before_a_pause_means_nothing() {
        let mut backoff = backoff(1, 10);
        assert_eq!(backoff.succeeded(at(0)), None);
        backoff.failed(at(0));
        assert_eq!((backoff.failed(at(0)), backoff.succeeded(at(0))), (None, None));
        assert_eq!((backoff.budget(9), backoff.deadline()), (0, Some(at(1))));
        backoff.tick(at(0));
        assert_eq!(backoff.budget(9), 0);
        backoff.tick(at(1));
        assert_eq!((backoff.budget(9), backoff.deadline()), (1, None));
    }

    #[test]
    fn it_can_be_switched_off() {
        let mut backoff = backoff(0, 10);
        assert_eq!((backoff.failed(at(0)), backoff.budget(9)), (None, 9));
    }
}
