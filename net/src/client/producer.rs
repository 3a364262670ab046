//! The producer that applications use: core's machine behind a lock, a task for each connection, and one that keeps
//! time.
//!
//! In: publishes from any task. Out: a result for each. Nothing waits under the lock, and no task is spawned there.

use super::clock::{Clock, Next, keep_time};
use super::error::PublishError;
use super::events::Listener;
use super::line::{Line, Terms};
use super::producer_builder::ProducerBuilder;
use bytes::Bytes;
use nsq_core::client::connection::{Event, Purpose};
use nsq_core::client::producer::{Effect, Input, Outcome, Producer as Machine};
use nsq_core::client::{ConnId, Notice, Payload, Publish, Settings, Token};
use nsq_core::name::TopicName;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};

/// Publishes to one nsqd or several; cheap to clone.
///
/// Messages go to all nsqds that are connected, in turn. Connections are made in the background and made again when
/// they are lost. When the last clone is dropped, the connections are closed.
///
/// ```no_run
/// use nsq_net::client::Producer;
/// use std::time::Duration;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let producer = Producer::builder().nsqd("127.0.0.1:4150").nsqd("127.0.0.1:5150").build()?;
/// producer.publish("greetings", "hello").await?;
/// producer.publish_many("greetings", ["one", "two"]).await?;
/// producer.publish_deferred("greetings", Duration::from_secs(5), "later").await?;
/// producer.stop().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Producer(Arc<Handle>);

/// Ends the producer when the application has dropped it.
struct Handle(Arc<Shared>);

struct Shared {
    clock: Clock,
    settings: Arc<Settings>,
    listener: Listener,
    room: Arc<Semaphore>,
    state: Mutex<State>,
    /// Something is to be done by the task that keeps time, or its deadline has come nearer.
    wake: Notify,
    ended: Notify,
}

struct State {
    machine: Machine,
    effects: Vec<Effect>,
    lines: BTreeMap<ConnId, Arc<Line>>,
    answers: BTreeMap<Token, (oneshot::Sender<Outcome>, OwnedSemaphorePermit)>,
    next_token: u64,
    connects: VecDeque<ConnId>,
    notices: VecDeque<Notice>,
    /// Tasks of connections.
    serving: usize,
    stopped: bool,
}

/// What the task that keeps time does next.
enum Work {
    Connect(ConnId, Arc<Line>),
    Tell(Notice),
}

impl Producer {
    /// What to publish to, and how.
    pub fn builder() -> ProducerBuilder {
        ProducerBuilder::default()
    }

    pub(super) fn start(builder: ProducerBuilder, seed: u64) -> Self {
        let clock = Clock::new();
        let machine = Machine::new(clock.now(), builder.options, builder.sources, seed);
        let state = State {
            machine,
            effects: Vec::new(),
            lines: BTreeMap::new(),
            answers: BTreeMap::new(),
            next_token: 1,
            connects: VecDeque::new(),
            notices: VecDeque::new(),
            serving: 0,
            stopped: false,
        };
        let shared = Arc::new(Shared {
            clock,
            settings: Arc::new(builder.settings),
            listener: builder.listener,
            room: Arc::new(Semaphore::new(builder.max_outstanding)),
            state: Mutex::new(state),
            wake: Notify::new(),
            ended: Notify::new(),
        });
        tokio::spawn(Arc::clone(&shared).run());
        Self(Arc::new(Handle(shared)))
    }

    /// Publishes a message. When this returns, an nsqd has it.
    ///
    /// Many may be under way at a time; [`max_outstanding`](ProducerBuilder::max_outstanding) bounds how many. If the
    /// future is dropped, the message may or may not be published.
    ///
    /// # Errors
    /// Says whether the message was published for certain not, or perhaps.
    pub async fn publish(&self, topic: &str, body: impl Into<Bytes>) -> Result<(), PublishError> {
        self.send(topic, Payload::One(body.into())).await
    }

    /// Publishes several messages at once: in order, to one nsqd. None at all is no publish, and succeeds.
    ///
    /// # Errors
    /// As [`publish`](Self::publish). If nsqd has refused them, any may have been published.
    pub async fn publish_many<B: Into<Bytes>>(
        &self,
        topic: &str,
        bodies: impl IntoIterator<Item = B>,
    ) -> Result<(), PublishError> {
        let bodies: Vec<Bytes> = bodies.into_iter().map(Into::into).collect();
        if bodies.is_empty() {
            return Ok(());
        }
        self.send(topic, Payload::Many(bodies)).await
    }

    /// Publishes a message that is delivered after `delay`, in whole milliseconds; nsqd takes up to an hour by default.
    ///
    /// # Errors
    /// As [`publish`](Self::publish).
    pub async fn publish_deferred(
        &self,
        topic: &str,
        delay: Duration,
        body: impl Into<Bytes>,
    ) -> Result<(), PublishError> {
        self.send(topic, Payload::Deferred(delay, body.into())).await
    }

    /// Ends in order, for all clones: takes no more, waits for what is under way, closes the connections.
    pub async fn stop(&self) {
        let shared = &self.0.0;
        shared.handle(Input::Stop);
        loop {
            let ended = shared.ended.notified();
            if shared.lock().is_over() {
                return shared.ended.notify_one();
            }
            ended.await;
        }
    }

    async fn send(&self, topic: &str, payload: Payload) -> Result<(), PublishError> {
        let name = TopicName::new(topic).ok_or_else(|| PublishError::BadTopic(topic.to_string()))?;
        check(&payload)?;
        let shared = &self.0.0;
        let room = Arc::clone(&shared.room).acquire_owned().await.map_err(|_| PublishError::Stopped)?;
        let (sender, answer) = oneshot::channel();
        shared.publish(Publish { topic: name, payload }, sender, room);
        match answer.await {
            Ok(Outcome::Accepted) => Ok(()),
            Ok(Outcome::Refused(reason)) => Err(PublishError::Refused(reason)),
            Ok(Outcome::Unknown(reason)) => Err(PublishError::Unknown(reason)),
            Ok(Outcome::Unsent(reason)) => Err(PublishError::Unsent(reason)),
            Ok(Outcome::Stopped) | Err(_) => Err(PublishError::Stopped),
        }
    }
}

/// What no nsqd takes would cost the connection, and with it the publishes of others.
fn check(payload: &Payload) -> Result<(), PublishError> {
    let bodies = match payload {
        Payload::One(body) | Payload::Deferred(_, body) => std::slice::from_ref(body),
        Payload::Many(bodies) => bodies,
    };
    if bodies.iter().any(Bytes::is_empty) {
        return Err(PublishError::Empty);
    }
    let bytes: usize = bodies.iter().map(|body| 4 + body.len()).sum();
    match payload {
        _ if i32::try_from(bytes).is_err() => Err(PublishError::TooLarge(bytes)),
        Payload::Deferred(delay, _) if i64::try_from(delay.as_nanos()).is_err() => Err(PublishError::TooLong(*delay)),
        _ => Ok(()),
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.stopped = true;
        state.answers.clear();
        std::mem::take(&mut state.lines).into_values().for_each(|line| line.close());
        drop(state);
        self.0.wake.notify_one();
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self, publish: Publish, sender: oneshot::Sender<Outcome>, room: OwnedSemaphorePermit) {
        let mut state = self.lock();
        let token = Token(state.next_token);
        state.next_token += 1;
        state.answers.insert(token, (sender, room));
        self.handle_locked(&mut state, Input::Publish(token, publish));
    }

    fn handle(&self, input: Input) {
        self.handle_locked(&mut self.lock(), input);
    }

    fn handle_locked(&self, state: &mut State, input: Input) {
        let before = state.machine.deadline();
        let mut effects = std::mem::take(&mut state.effects);
        state.machine.handle(self.clock.now(), input, &mut effects);
        let mut wake = false;
        for effect in effects.drain(..) {
            wake |= !matches!(effect, Effect::Send(..) | Effect::Done(..));
            state.perform(effect);
        }
        state.effects = effects;
        let sooner = state.machine.deadline().is_some_and(|due| before.is_none_or(|before| due < before));
        if wake || sooner {
            self.wake.notify_one();
        }
        if state.is_over() {
            self.ended.notify_one();
        }
    }

    /// Works in the background until the client has ended.
    async fn run(self: Arc<Self>) {
        let next = || self.lock().next();
        let tick = || self.handle(Input::Tick);
        keep_time(self.clock, &self.wake, next, |work| self.perform(work), tick).await;
    }

    fn perform(self: &Arc<Self>, work: Work) {
        match work {
            Work::Connect(id, line) => {
                self.lock().serving += 1;
                tokio::spawn(Arc::clone(self).serve(id, line));
            }
            Work::Tell(notice) => self.listener.tell(&notice),
        }
    }

    async fn serve(self: Arc<Self>, id: ConnId, line: Arc<Line>) {
        let terms = Terms { clock: self.clock, settings: Arc::clone(&self.settings), purpose: Purpose::Produce };
        let events = |events: &mut Vec<Event>| {
            let mut state = self.lock();
            for event in events.drain(..) {
                match event {
                    Event::Open(_) => self.handle_locked(&mut state, Input::Opened(id)),
                    Event::Published(token) => self.handle_locked(&mut state, Input::Published(id, token)),
                    // Nothing else was asked for, and it does no harm.
                    Event::Message(_) | Event::Failed(_) | Event::Closing => {}
                }
            }
        };
        let (reason, unanswered) = line.run(terms, events).await;
        let mut state = self.lock();
        state.lines.remove(&id);
        state.serving -= 1;
        self.handle_locked(&mut state, Input::Lost(id, reason, unanswered));
    }
}

impl State {
    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Connect(conn, address) => {
                self.lines.insert(conn, Line::new(&address));
                self.connects.push_back(conn);
            }
            Effect::Send(conn, command) => {
                if let Some(line) = self.lines.get(&conn) {
                    line.send(command);
                }
            }
            Effect::Disconnect(conn) => {
                if let Some(line) = self.lines.remove(&conn) {
                    line.close();
                }
            }
            Effect::Abandon(conn, reason) => {
                if let Some(line) = self.lines.get(&conn) {
                    line.abandon(reason);
                }
            }
            Effect::Done(token, outcome) => {
                if let Some((sender, _room)) = self.answers.remove(&token) {
                    // Nobody waits if the future was dropped.
                    let _ = sender.send(outcome);
                }
            }
            Effect::Notice(notice) => self.notices.push_back(notice),
            Effect::Stopped => self.stopped = true,
        }
    }

    /// Nothing is under way, and everything that was said has left.
    const fn is_over(&self) -> bool {
        self.stopped && self.serving == 0
    }

    fn next(&mut self) -> Next<Work> {
        if let Some(notice) = self.notices.pop_front() {
            return Next::Work(Work::Tell(notice));
        }
        // What is not wanted any more has no line.
        let lines = &self.lines;
        let connect = std::iter::from_fn(|| self.connects.pop_front())
            .find_map(|conn| lines.get(&conn).map(|line| Work::Connect(conn, Arc::clone(line))));
        match connect {
            Some(work) => Next::Work(work),
            None if self.stopped => Next::End,
            None => Next::Wait(self.machine.deadline()),
        }
    }
}
