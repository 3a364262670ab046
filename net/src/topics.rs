//! A topic and its lock: the one road from a batch of inputs to the effects at their destinations.
//!
//! Lock, handle, route, unlock, wake: effects are routed before the topic is let go, or a SUB's `OK` could be overtaken
//! by its first message, and tasks are woken afterwards. Lock order: topic, then outbox or node; nobody who holds one
//! of those takes a topic.

use crate::broker::Broker;
use crate::outbox::{Mail, Outbox};
use crate::storage::{self, Place};
use crate::sync::{Arc, AtomicBool, Mutex, MutexGuard, Ordering, PoisonError};
use crate::timers::Alarm;
use nsq_core::name::TopicName;
use nsq_core::topic::io::{ConnId, Effects, Input, Notice};
use nsq_core::topic::{Handled, Topic};
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;

/// A topic that tasks share.
pub(crate) struct SharedTopic {
    name: TopicName,
    inner: Mutex<Inner>,
    gone: AtomicBool,
    place: Arc<Place>,
}

struct Inner {
    topic: Topic,
    /// Of the consumers.
    outboxes: BTreeMap<ConnId, Arc<Outbox>>,
    /// When the timer task comes.
    alarm: Option<Alarm>,
    /// What was last told of its disk.
    trouble: bool,
}

/// The topic was deleted; what is left of the batch has to go to its successor.
#[derive(Debug)]
pub(crate) struct Gone;

/// Whose batch it is, and where that one's own effects go without a detour.
pub(crate) struct Caller<'a> {
    pub(crate) conn: ConnId,
    pub(crate) mail: &'a mut Mail,
    /// Its outbox, if it is about to subscribe.
    pub(crate) subscribe: Option<&'a Arc<Outbox>>,
}

impl SharedTopic {
    pub(crate) fn new(topic: Topic, place: Arc<Place>) -> Arc<Self> {
        let name = topic.name().clone();
        let inner = Inner { topic, outboxes: BTreeMap::new(), alarm: None, trouble: false };
        Arc::new(Self { name, inner: Mutex::new(inner), gone: AtomicBool::new(false), place })
    }

    /// Where its files are.
    pub(crate) const fn place(&self) -> &Arc<Place> {
        &self.place
    }

    /// Its name.
    pub(crate) const fn name(&self) -> &TopicName {
        &self.name
    }

    /// Whether it was deleted.
    pub(crate) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    /// Hands a batch to the topic, in as many turns as it takes, and its effects to their destinations.
    pub(crate) fn submit(
        self: &Arc<Self>,
        broker: &Broker,
        batch: &mut VecDeque<Input>,
        mut caller: Option<Caller<'_>>,
    ) -> Result<(), Gone> {
        let result = self.turns(broker, batch, caller.as_mut());
        if self.is_gone() {
            broker.forget(&self.name);
        }
        result
    }

    fn turns(
        self: &Arc<Self>,
        broker: &Broker,
        batch: &mut VecDeque<Input>,
        mut caller: Option<&mut Caller<'_>>,
    ) -> Result<(), Gone> {
        SCRATCH.with(|scratch| {
            let Scratch { effects, wakers } = &mut *scratch.borrow_mut();
            loop {
                // A topic that has panicked may have left some, which are nobody else's.
                effects.clear();
                let handled = {
                    let mut inner = self.lock();
                    if let Some(Caller { conn, subscribe: Some(outbox), .. }) = &caller {
                        inner.outboxes.insert(*conn, Arc::clone(outbox));
                    }
                    let handled = inner.topic.handle(broker.now(), batch, effects);
                    self.route(&mut inner, broker, effects, wakers, caller.as_deref_mut());
                    handled
                };
                wakers.drain(..).for_each(Waker::wake);
                match handled {
                    Handled::All => return Ok(()),
                    Handled::Some => {}
                    Handled::Gone => return Err(Gone),
                }
            }
        })
    }

    /// Hands it something on behalf of no connection; a panic in it, now or before, is nobody else's problem. Whether
    /// it has taken it: a topic that was deleted in the meantime has nothing to do.
    pub(crate) fn call(self: &Arc<Self>, broker: &Broker, input: Option<Input>) -> bool {
        let mut batch = input.into_iter().collect();
        // The topic is locked up by it for good.
        catch_unwind(AssertUnwindSafe(|| self.submit(broker, &mut batch, None))).is_ok_and(|done| done.is_ok())
    }

    /// The timer's call; `alarm` is the one that has gone off.
    pub(crate) fn tick(self: &Arc<Self>, broker: &Broker, alarm: Alarm) {
        let Ok(mut inner) = self.inner.lock() else { return };
        // It may have been replaced after the timer task took it.
        inner.alarm.take_if(|set| *set == alarm);
        drop(inner);
        self.call(broker, None);
    }

    /// A consumer's connection has ended.
    pub(crate) fn leave(self: &Arc<Self>, broker: &Broker, conn: ConnId) {
        let Ok(mut inner) = self.inner.lock() else { return };
        inner.outboxes.remove(&conn);
        drop(inner);
        self.call(broker, Some(Input::Leave { conn }));
    }

    /// Whether a bug has stopped it for good.
    pub(crate) fn has_panicked(&self) -> bool {
        self.look(|_| ()).is_none()
    }

    /// Looks at the topic, changing nothing; `None` if it has panicked.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&Topic) -> T) -> Option<T> {
        self.inner.lock().ok().map(|inner| look(&inner.topic))
    }

    fn route(
        self: &Arc<Self>,
        inner: &mut Inner,
        broker: &Broker,
        effects: &mut Effects,
        wakers: &mut Vec<Waker>,
        mut caller: Option<&mut Caller<'_>>,
    ) {
        for group in &mut effects.conns {
            match &mut caller {
                Some(caller) if caller.conn == group.conn => caller.mail.append(group),
                _ => match inner.outboxes.get(&group.conn) {
                    Some(outbox) => wakers.extend(outbox.push(group)),
                    // It did not subscribe here: an answer that took longer than its turn.
                    None => wakers.extend(broker.outbox(group.conn).and_then(|outbox| outbox.push(group))),
                },
            }
        }
        if !effects.notices.is_empty() {
            let damage = |notice: &mut Notice| matches!(notice, Notice::Damaged { .. });
            let damage = effects.notices.extract_if(.., damage).filter_map(|notice| match notice {
                Notice::Damaged { problem, .. } => Some(problem),
                _ => None,
            });
            storage::tell_damage(&self.name, self.place.path(), &damage.collect::<Vec<_>>());
            broker.notice(effects.notices.drain(..));
        }
        for job in effects.disk.drain(..) {
            if let Some(broker) = broker.me() {
                storage::start(broker, Arc::clone(self), job);
            }
        }
        effects.clear();
        self.report_health(inner, broker);
        if inner.topic.is_gone()
            && !self.gone.swap(true, Ordering::AcqRel)
            && let Some(broker) = broker.me()
        {
            storage::start_to_remove(broker, Arc::clone(&self.place));
        }
        if let Some(deadline) = inner.topic.deadline()
            && inner.alarm.is_none_or(|alarm| deadline < alarm.at)
        {
            inner.alarm = Some(broker.timers.set(deadline, self, inner.alarm));
        }
    }

    fn report_health(&self, inner: &mut Inner, broker: &Broker) {
        let health = inner.topic.health();
        if health.is_err() != inner.trouble {
            broker.storage.report(&storage::in_topic(&self.name), health);
            inner.trouble = health.is_err();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic inside a topic is a bug that leaves it in an unknown state: whoever uses it is disconnected, but
        // timers, statistics, the end of the process and all other topics go on without it.
        self.inner.lock().unwrap_or_else(|_: PoisonError<_>| panic!("this topic has panicked before"))
    }
}

/// Buffers that a thread uses again for each turn.
#[derive(Default)]
struct Scratch {
    effects: Effects,
    wakers: Vec<Waker>,
}

crate::sync::thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}
