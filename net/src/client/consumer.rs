//! The consumer that applications use: core's machine behind a lock, a task for each connection, and one that keeps
//! time.
//!
//! In: answers from any task or thread. Out: messages, one at a time. Nothing waits under the lock, no task is spawned
//! and nothing of the application is called there.

use super::clock::{Clock, Next, keep_time};
use super::consumer_builder::{ConsumerBuilder, GiveUp};
use super::events::{Listener, guarded};
use super::line::{Line, Terms};
use super::lookup;
use super::message::Message;
use nsq_core::client::connection::{Event, Purpose};
use nsq_core::client::consumer::{Answer, Consumer as Machine, Delivery, DeliveryId, Effect, Input};
use nsq_core::client::{ConnId, Notice, Settings};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// Consumes a channel of a topic, from all nsqds that have the topic.
///
/// ```no_run
/// use nsq_net::client::Consumer;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let mut consumer =
///     Consumer::builder("greetings", "readers").lookupd("127.0.0.1:4161").max_in_flight(100).build()?;
/// while let Some(message) = consumer.next().await {
///     println!("{}", String::from_utf8_lossy(message.body()));
///     message.finish();
/// }
/// # Ok(())
/// # }
/// ```
///
/// To end in order, [`stop`](Self::stop) it, or let another task do so with a [`Stopper`]:
///
/// ```no_run
/// # use nsq_net::client::Consumer;
/// # async fn example(mut consumer: Consumer, signal: impl Future<Output = ()> + Send + 'static) {
/// let stopper = consumer.stopper();
/// tokio::spawn(async move {
///     signal.await;
///     stopper.stop();
/// });
/// while let Some(message) = consumer.next().await {
///     message.finish();
/// }
/// // All messages are answered, all connections closed.
/// # }
/// ```
///
/// When it is dropped, its connections are closed after the answers that were given so far; what is in flight comes
/// again.
pub struct Consumer(Arc<Shared>);

/// Ends a [`Consumer`] from another task.
#[derive(Clone)]
pub struct Stopper(Arc<Shared>);

pub(super) struct Shared {
    clock: Clock,
    settings: Arc<Settings>,
    purpose: Purpose,
    listener: Listener,
    give_up: Option<GiveUp>,
    state: Mutex<State>,
    /// Something is to be done by the task that keeps time, or its deadline has come nearer.
    wake: Notify,
    /// There is a message for the application, or there will be none any more.
    news: Notify,
}

struct State {
    machine: Machine,
    effects: Vec<Effect>,
    lines: BTreeMap<ConnId, Arc<Line>>,
    ready: VecDeque<(Delivery, Arc<str>)>,
    work: VecDeque<Work>,
    /// Tasks of connections.
    serving: usize,
    stopped: bool,
}

/// What the task that keeps time does next.
enum Work {
    Ask(usize, String),
    Connect(ConnId, Arc<Line>),
    GiveUp(Delivery, Arc<str>),
    Tell(Notice),
}

impl Consumer {
    /// What to consume; how and from where is up to the builder.
    pub fn builder(topic: impl Into<String>, channel: impl Into<String>) -> ConsumerBuilder {
        ConsumerBuilder::new(topic.into(), channel.into())
    }

    pub(super) fn start(builder: ConsumerBuilder, purpose: Purpose, seed: u64) -> Self {
        let clock = Clock::new();
        let state = State {
            machine: Machine::new(clock.now(), builder.options, builder.sources, seed),
            effects: Vec::new(),
            lines: BTreeMap::new(),
            ready: VecDeque::new(),
            work: VecDeque::new(),
            serving: 0,
            stopped: false,
        };
        let shared = Arc::new(Shared {
            clock,
            settings: Arc::new(builder.settings),
            purpose,
            listener: builder.listener,
            give_up: builder.give_up,
            state: Mutex::new(state),
            wake: Notify::new(),
            news: Notify::new(),
        });
        tokio::spawn(Arc::clone(&shared).run());
        Self(shared)
    }

    /// The next message; `None` when the consumer has been stopped. May be dropped while it waits: nothing is lost.
    pub async fn next(&mut self) -> Option<Message> {
        loop {
            {
                let mut state = self.0.lock();
                if let Some((delivery, nsqd)) = state.next_ready() {
                    return Some(Message::new(delivery, nsqd, Arc::clone(&self.0), None));
                }
                if state.is_over() {
                    return None;
                }
            }
            self.0.news.notified().await;
        }
    }

    /// Ends in order: nsqds are told to send no more, messages that [`next`](Self::next) has not returned yet go back
    /// to them at once, and those that it has are waited for until they are answered, for
    /// [`stop_timeout`](ConsumerBuilder::stop_timeout) at most.
    pub async fn stop(&mut self) {
        self.0.handle(Input::Stop);
        loop {
            self.give_back();
            if self.0.lock().is_over() {
                return;
            }
            self.0.news.notified().await;
        }
    }

    /// What can stop this consumer from another task.
    pub fn stopper(&self) -> Stopper {
        Stopper(Arc::clone(&self.0))
    }

    /// Messages that are neither answered nor timed out.
    pub fn in_flight(&self) -> usize {
        self.0.lock().machine.in_flight()
    }

    fn give_back(&self) {
        let mut state = self.0.lock();
        while let Some((delivery, _)) = state.next_ready() {
            let Delivery { conn, number, message } = delivery;
            let delivery = DeliveryId { conn, number, id: message.id, attempts: message.attempts };
            let answer = Answer::Requeue { delay: Some(Duration::ZERO), failed: false };
            self.0.handle_locked(&mut state, Input::Answer(delivery, answer));
        }
    }
}

impl Stopper {
    /// Ends the consumer in order: nsqds are told to send no more, [`Consumer::next`] returns what has come already,
    /// and then, when all is answered or [`stop_timeout`](ConsumerBuilder::stop_timeout) is over, `None`.
    pub fn stop(&self) {
        self.0.handle(Input::Stop);
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.stopped = true;
        std::mem::take(&mut state.lines).into_values().for_each(|line| line.close());
        drop(state);
        self.0.wake.notify_one();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn handle(&self, input: Input) {
        self.handle_locked(&mut self.lock(), input);
    }

    fn handle_locked(&self, state: &mut State, input: Input) {
        let before = state.machine.deadline();
        let mut effects = std::mem::take(&mut state.effects);
        state.machine.handle(self.clock.now(), input, &mut effects);
        let mut news = false;
        for effect in effects.drain(..) {
            news |= matches!(effect, Effect::Deliver(_) | Effect::Stopped);
            state.perform(effect);
        }
        state.effects = effects;
        let sooner = state.machine.deadline().is_some_and(|due| before.is_none_or(|before| due < before));
        if sooner || !state.work.is_empty() || state.stopped {
            self.wake.notify_one();
        }
        if news {
            self.news.notify_one();
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
            Work::Ask(index, address) => drop(tokio::spawn(Arc::clone(self).ask(index, address))),
            Work::Connect(id, line) => {
                self.lock().serving += 1;
                tokio::spawn(Arc::clone(self).serve(id, line));
            }
            Work::GiveUp(delivery, nsqd) => self.give_up(delivery, nsqd),
            Work::Tell(notice) => self.listener.tell(&notice),
        }
    }

    async fn serve(self: Arc<Self>, id: ConnId, line: Arc<Line>) {
        let terms = Terms { clock: self.clock, settings: Arc::clone(&self.settings), purpose: self.purpose.clone() };
        let events = |events: &mut Vec<Event>| {
            let mut state = self.lock();
            for event in events.drain(..) {
                let input = match event {
                    Event::Open(limits) => Input::Opened(id, limits),
                    Event::Message(message) => Input::Message(id, message),
                    Event::Failed(text) => Input::AnswerFailed(id, text),
                    Event::Closing => Input::Closing(id),
                    Event::Published(_) => continue,
                };
                self.handle_locked(&mut state, input);
            }
        };
        let (reason, _) = line.run(terms, events).await;
        let mut state = self.lock();
        state.lines.remove(&id);
        state.serving -= 1;
        self.handle_locked(&mut state, Input::Lost(id, reason));
        if state.is_over() {
            self.news.notify_one();
        }
    }

    async fn ask(self: Arc<Self>, index: usize, address: String) {
        let Purpose::Consume(topic, _) = &self.purpose else { return };
        let input = match lookup::nsqds(&address, topic).await {
            Ok(nsqds) => {
                self.listener.recovered(&address);
                Input::Listed(index, nsqds)
            }
            Err(reason) => Input::NotListed(index, reason),
        };
        self.handle(input);
    }

    fn give_up(self: &Arc<Self>, delivery: Delivery, nsqd: Arc<str>) {
        let message = Message::new(delivery, nsqd, Arc::clone(self), Some(Answer::Finish));
        if let Some(take) = &self.give_up {
            guarded("on_give_up", || take(message));
        }
    }
}

impl State {
    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Ask(index) => {
                let address = self.machine.lookupd(index).to_string();
                self.work.push_back(Work::Ask(index, address));
            }
            Effect::Connect(conn, address) => {
                let line = Line::new(&address);
                self.lines.insert(conn, Arc::clone(&line));
                self.work.push_back(Work::Connect(conn, line));
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
            Effect::Deliver(delivery) => {
                if let Some(line) = self.lines.get(&delivery.conn) {
                    self.ready.push_back((delivery, Arc::clone(&line.address)));
                }
            }
            Effect::GiveUp(delivery) => {
                if let Some(line) = self.lines.get(&delivery.conn) {
                    self.work.push_back(Work::GiveUp(delivery, Arc::clone(&line.address)));
                }
            }
            Effect::Notice(notice) => self.work.push_back(Work::Tell(notice)),
            Effect::Stopped => self.stopped = true,
        }
    }

    /// Nothing more comes, and everything that was said has left.
    const fn is_over(&self) -> bool {
        self.stopped && self.serving == 0
    }

    fn next(&mut self) -> Next<Work> {
        match self.work.pop_front() {
            Some(work) => Next::Work(work),
            None if self.stopped => Next::End,
            None => Next::Wait(self.machine.deadline()),
        }
    }

    /// What has timed out while it waited here comes again, and need not be handled twice.
    fn next_ready(&mut self) -> Option<(Delivery, Arc<str>)> {
        let machine = &self.machine;
        std::iter::from_fn(|| self.ready.pop_front()).find(|(delivery, _)| machine.is_in_flight(delivery.number))
    }
}
