//! Heartbeats, and patience with a silent peer (spec: nsqd_protocol §2.9).
//!
//! A heartbeat goes out every interval, whatever the traffic; the peer has two intervals to say something. Without an
//! interval there is neither.

use crate::time::{Duration, Instant};

/// When a connection was last heard of, and when it last got a heartbeat.
#[derive(Debug)]
pub(super) struct Pulse {
    interval: Option<Duration>,
    beat: Instant,
    heard: Instant,
}

impl Pulse {
    /// Starts both clocks.
    pub(super) fn new(interval: Duration, now: Instant) -> Self {
        Self { interval: (!interval.is_zero()).then_some(interval), beat: now, heard: now }
    }

    pub(super) fn interval(&self) -> Option<Duration> {
        self.interval
    }

    /// Another interval, or none, from now on. The beat goes on, unless it had stopped.
    pub(super) fn set_interval(&mut self, interval: Option<Duration>, now: Instant) {
        if self.interval.is_none() {
            self.restart(now);
        }
        self.interval = interval;
    }

    /// The next heartbeat is due a whole interval from now.
    pub(super) fn restart(&mut self, now: Instant) {
        self.beat = now;
    }

    /// The peer has said something, or may begin to.
    #[inline]
    pub(super) fn hear(&mut self, now: Instant) {
        self.heard = now;
    }

    /// When the next heartbeat is due.
    pub(super) fn heartbeat_due(&self) -> Option<Instant> {
        Some(self.beat + self.interval?)
    }

    /// When the peer will have been silent for too long.
    pub(super) fn silence_due(&self) -> Option<Instant> {
        Some(self.heard + self.interval? * 2)
    }

    /// Whether a heartbeat is due, which is then taken as sent. Those missed by a late call are not made up for, and
    /// the beat keeps its phase.
    pub(super) fn beats(&mut self, now: Instant) -> bool {
        let Some(interval) = self.interval else { return false };
        let Ok(interval) = u64::try_from(interval.as_nanos()) else { return false };
        let beats = now.as_nanos().saturating_sub(self.beat.as_nanos()) / interval;
        self.beat = Instant::from_nanos(self.beat.as_nanos() + beats * interval);
        beats > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(millis: u64) -> Instant {
        Instant::from_nanos(millis * 1_000_000)
    }

    #[test]
    fn beats_keep_their_phase() {
        let mut pulse = Pulse::new(Duration::from_secs(1), at(500));
        assert_eq!(pulse.heartbeat_due(), Some(at(1500)));
        assert!(!pulse.beats(at(1499)));
        assert!(pulse.beats(at(1500)));
        assert!(!pulse.beats(at(1500)));
        assert!(pulse.beats(at(4700)));
        assert_eq!(pulse.heartbeat_due(), Some(at(5500)));
    }

    #[test]
    fn silence_counts_from_what_was_heard() {
        let mut pulse = Pulse::new(Duration::from_secs(1), at(0));
        pulse.hear(at(700));
        assert_eq!(pulse.silence_due(), Some(at(2700)));
        pulse.set_interval(None, at(800));
        assert_eq!((pulse.silence_due(), pulse.heartbeat_due()), (None, None));
        pulse.set_interval(Some(Duration::from_secs(3)), at(900));
        assert_eq!((pulse.silence_due(), pulse.heartbeat_due()), (Some(at(6700)), Some(at(3900))));
    }
}
