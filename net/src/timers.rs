//! The topics' timers: one task a process that calls each topic when something in it may be due.
//!
//! A topic asks only for an earlier time than it has asked for; an entry that has become useless costs one empty call.

use crate::broker::Broker;
use crate::topics::SharedTopic;
use nsq_core::time::Instant;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tokio::sync::Notify;

/// See the module's documentation.
#[derive(Default)]
pub(crate) struct Timers {
    queue: Mutex<Queue>,
    earlier: Notify,
}

#[derive(Default)]
struct Queue {
    entries: BTreeMap<(Instant, u64), Weak<SharedTopic>>,
    next: u64,
}

impl Timers {
    /// Asks for a call of the topic at that time.
    pub(crate) fn arm(&self, at: Instant, topic: Arc<SharedTopic>) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let first = queue.entries.first_key_value().is_none_or(|((first, _), _)| at < *first);
        let number = queue.next;
        queue.next += 1;
        queue.entries.insert((at, number), Arc::downgrade(&topic));
        drop(queue);
        if first {
            self.earlier.notify_one();
        }
    }

    /// The task: runs until it is dropped.
    pub(crate) async fn run(broker: Arc<Broker>) {
        let timers = &broker.timers;
        loop {
            let now = broker.now().instant;
            while let Some(topic) = timers.pop_due(now) {
                topic.tick(&broker);
            }
            match timers.first() {
                None => timers.earlier.notified().await,
                Some(at) => {
                    tokio::select! {
                        biased;
                        () = timers.earlier.notified() => {}
                        () = tokio::time::sleep_until(broker.clock.at(at)) => {}
                    }
                }
            }
        }
    }

    fn first(&self) -> Option<Instant> {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.entries.first_key_value().map(|((at, _), _)| *at)
    }

    fn pop_due(&self, now: Instant) -> Option<Arc<SharedTopic>> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let entry = queue.entries.first_entry().filter(|entry| entry.key().0 <= now)?;
            if let Some(topic) = entry.remove().upgrade() {
                return Some(topic);
            }
        }
    }
}
