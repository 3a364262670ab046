//! The topics' timers: one task a process that calls each topic when something in it may be due.
//!
//! A topic has one alarm at most, and replaces it only by an earlier one; one that has become useless costs one empty
//! call.

use crate::broker::Broker;
use crate::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use crate::topics::SharedTopic;
use nsq_core::time::Instant;
use std::collections::BTreeMap;
use tokio::sync::Notify;

/// See the module's documentation.
#[derive(Default)]
pub(crate) struct Timers {
    queue: Mutex<Queue>,
    earlier: Notify,
}

#[derive(Default)]
struct Queue {
    alarms: BTreeMap<Alarm, Weak<SharedTopic>>,
    next: u64,
}

/// A call that a topic waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Alarm {
    /// Not before that time.
    pub(crate) at: Instant,
    number: u64,
}

impl Timers {
    /// Asks for a call of the topic at that time, in place of the alarm that it has.
    pub(crate) fn set(&self, at: Instant, topic: &Arc<SharedTopic>, replaced: Option<Alarm>) -> Alarm {
        let mut queue = self.queue();
        if let Some(replaced) = replaced {
            queue.alarms.remove(&replaced);
        }
        let is_first = queue.alarms.first_key_value().is_none_or(|(first, _)| at < first.at);
        let alarm = Alarm { at, number: queue.next };
        queue.next += 1;
        queue.alarms.insert(alarm, Arc::downgrade(topic));
        drop(queue);
        if is_first {
            self.earlier.notify_one();
        }
        alarm
    }

    /// The task: runs until it is dropped.
    pub(crate) async fn run(broker: Arc<Broker>) {
        loop {
            match Self::call_due(&broker) {
                None => broker.timers.earlier.notified().await,
                // A topic with much to do asks to be called again at once: others may go in between.
                Some(at) if at <= broker.now().instant => tokio::task::yield_now().await,
                Some(at) => {
                    tokio::select! {
                        biased;
                        () = broker.timers.earlier.notified() => {}
                        () = tokio::time::sleep_until(broker.clock.at(at)) => {}
                    }
                }
            }
        }
    }

    /// Calls the topics that are due, each once, and returns when the next one will be.
    pub(crate) fn call_due(broker: &Broker) -> Option<Instant> {
        for (alarm, topic) in broker.timers.take_due(broker.now().instant) {
            topic.tick(broker, alarm);
        }
        broker.timers.queue().alarms.first_key_value().map(|(alarm, _)| alarm.at)
    }

    fn take_due(&self, now: Instant) -> Vec<(Alarm, Arc<SharedTopic>)> {
        let alarms = &mut self.queue().alarms;
        let later = alarms.split_off(&Alarm { at: now, number: u64::MAX });
        let due = std::mem::replace(alarms, later);
        due.into_iter().filter_map(|(alarm, topic)| Some((alarm, topic.upgrade()?))).collect()
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
