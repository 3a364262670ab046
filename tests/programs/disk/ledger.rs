//! What clients of an nsqd that is ended now and then have been told, and what it must therefore still do.
//!
//! In go publishes, answers, deliveries, finishes and ends; it panics at once when nsqd does what it has promised not
//! to do. The rule: only what an answer or the documentation promises is held against nsqd.

use std::time::{Duration, Instant};

/// The channels of the topic.
pub(super) const CHANNELS: [&str; 2] = ["busy", "late"];

/// What was seen so long before the end is in the journal of a durable topic; it promises a tenth of that.
pub(super) const SETTLED: Duration = Duration::from_secs(1);

/// How nsqd ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// SIGTERM
    Clean,
    /// SIGKILL
    Killed,
}

/// See the module's documentation. Messages have the numbers 0, 1 and so on.
pub(super) struct Ledger {
    durable: bool,
    messages: Vec<Message>,
    pub(super) redelivered: usize,
}

struct Message {
    accepted: bool,
    not_before: Instant,
    channels: [Fate; CHANNELS.len()],
}

/// What a channel has done with a message.
#[derive(Clone, Copy, Default)]
struct Fate {
    /// The attempts of the last delivery that nsqd must remember, and its time.
    delivered: Option<(u16, Instant)>,
    /// The attempts that nsqd had to remember at its last end.
    remembered: u16,
    /// It was finished after its last delivery.
    finished: bool,
    /// When that was, if nsqd still runs.
    finished_at: Option<Instant>,
    /// It was finished so long before an end that it must not come again.
    done: bool,
}

impl Ledger {
    pub(super) const fn new(durable: bool) -> Self {
        Self { durable, messages: Vec::new(), redelivered: 0 }
    }

    /// The number of a message that is about to be published.
    pub(super) fn publishes(&mut self, delay: Duration) -> u64 {
        let not_before = Instant::now() + delay;
        self.messages.push(Message { accepted: false, not_before, channels: Default::default() });
        self.messages.len() as u64 - 1
    }

    /// nsqd has said that it has the message.
    pub(super) fn accepted(&mut self, number: u64) {
        self.messages[number as usize].accepted = true;
    }

    pub(super) fn delivered(&mut self, number: u64, channel: usize, attempts: u16) {
        let now = Instant::now();
        let message = self.messages.get_mut(number as usize).expect("a message was invented");
        assert!(now >= message.not_before, "{number} came {:?} before it was due", message.not_before - now);
        let fate = &mut message.channels[channel];
        assert!(!fate.done, "{number} came again to {channel}, long after it was finished");
        let before = fate.delivered.map_or(fate.remembered, |(attempts, _)| attempts);
        assert!(attempts > before, "{number} came to {channel} with attempts {attempts} after {before}");
        self.redelivered += usize::from(attempts > 1);
        fate.delivered = Some((attempts, now));
        (fate.finished, fate.finished_at) = (false, None);
    }

    pub(super) fn finished(&mut self, number: u64, channel: usize) {
        let fate = &mut self.messages[number as usize].channels[channel];
        (fate.finished, fate.finished_at) = (true, Some(Instant::now()));
    }

    /// nsqd was told to end, or killed, a moment ago.
    pub(super) fn ended(&mut self, at: Instant, end: End) {
        let clean = end == End::Clean;
        for fate in self.messages.iter_mut().flat_map(|message| &mut message.channels) {
            let settled = |time: Instant| (clean || self.durable) && time + SETTLED < at;
            if let Some((attempts, _)) = fate.delivered.take_if(|(_, time)| clean || settled(*time)) {
                fate.remembered = attempts;
            }
            fate.delivered = None;
            fate.done |= fate.finished_at.take().is_some_and(settled);
        }
    }

    pub(super) fn count(&self) -> usize {
        self.messages.iter().filter(|message| message.accepted).count()
    }

    /// Numbers of accepted messages that a channel has not finished.
    pub(super) fn missing(&self, channel: usize) -> Vec<usize> {
        let missing = |message: &Message| message.accepted && !message.channels[channel].finished;
        self.messages.iter().enumerate().filter(|(_, message)| missing(message)).map(|(number, _)| number).collect()
    }
}
