//! What the tasks of an nsqd share: topics by name, the node, connections by id, clocks, timers.
//!
//! The road of a message touches none of it but its topic: names are resolved once for each connection and topic, and
//! the map of connections is for answers that take longer than their turn, for `/stats` and for the end.

use crate::durable::Durable;
use crate::env::{Clock, Env};
use crate::lookups::{Lookups, Standing};
use crate::outbox::{Mail, Outbox, Taken};
use crate::storage::{Storage, Stored};
use crate::sync::{Arc, AtomicU8, AtomicU64, Mutex, MutexGuard, Ordering, PoisonError, RwLock, Weak};
use crate::timers::Timers;
use crate::topics::{Caller, SharedTopic};
use nsq_core::budget::Budget;
use nsq_core::directory::Directory;
use nsq_core::identity::ClientInfo;
use nsq_core::message::Bodies;
use nsq_core::name::{ChannelName, TopicName};
use nsq_core::node::{Entry, Node, NodeEffect};
use nsq_core::options::Options;
use nsq_core::session::State;
use nsq_core::time::{Duration, Now, Timestamp};
use nsq_core::topic::Topic;
use nsq_core::topic::io::{Admin, ConnId, Input, Notice, Refusal, Slot, ToConn};
use nsq_core::topic::stats::TopicStats;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::poll_fn;
use std::task::{Context, Poll};
use tokio::sync::Notify;

/// See the module's documentation.
pub struct Broker {
    pub(crate) env: Env,
    pub(crate) clock: Clock,
    pub(crate) timers: Timers,
    pub(crate) save_wanted: Notify,
    /// A connection has ended.
    pub(crate) conn_ended: Notify,
    /// The process ends: no more saves but the last one.
    pub(crate) exiting: Notify,
    pub(crate) lookups: Lookups,
    pub(crate) storage: Storage,
    /// For the tasks of disk jobs, and of removals.
    me: Weak<Self>,
    options: Arc<Options>,
    budget: Budget,
    started: Timestamp,
    topics: RwLock<BTreeMap<TopicName, Arc<SharedTopic>>>,
    node: Mutex<Node>,
    conns: Mutex<Conns>,
    next_conn: AtomicU64,
}

/// All connections and requests.
#[derive(Default)]
struct Conns {
    open: BTreeMap<ConnId, Arc<ConnShared>>,
    /// The process ends, and with it whoever still comes.
    closed: bool,
}

/// What others may see of a connection, and where they reach it.
#[derive(Default)]
pub(crate) struct ConnShared {
    pub(crate) outbox: Arc<Outbox>,
    client: Mutex<Option<Arc<ClientInfo>>>,
    state: AtomicU8,
    published: Mutex<Vec<(TopicName, Arc<AtomicU64>)>>,
}

/// A connection that publishes, for `/stats`.
#[derive(Clone, Debug)]
pub struct ProducerStats {
    /// Its id, under which it may also be a consumer.
    pub conn: ConnId,
    /// Who it is.
    pub client: Arc<ClientInfo>,
    /// How far it is: 0 not subscribed, 3 subscribed, 4 closing.
    pub state: u8,
    /// Messages published to each topic.
    pub published: Vec<(TopicName, u64)>,
}

impl Broker {
    /// `topics` are those that `nsqd.dat` lists.
    pub(crate) fn new(
        options: Options,
        env: Env,
        mem_queue_bytes: usize,
        durable: Durable,
        topics: BTreeMap<TopicName, Entry>,
        mut stored: Stored,
    ) -> Arc<Self> {
        let clock = Clock::new(Arc::clone(&env.wall));
        let now = clock.now();
        let options = Arc::new(options);
        let budget = Budget::new(mem_queue_bytes);
        let storage = Storage::new(Arc::clone(&env.disk), durable, &stored);
        let mut node = Node::new(&options.version, topics);
        let mut restored = BTreeMap::new();
        let names: BTreeSet<_> = node.directory().topics().keys().chain(stored.topics.keys()).cloned().collect();
        for name in names {
            let found = stored.topics.remove(&name);
            let (disk, place) = storage.open(&name, found.as_ref().map(|(incarnation, _)| *incarnation));
            let (options, budget) = (Arc::clone(&options), budget.clone());
            let listed = node.directory().topics().get(&name);
            let mut topic = Topic::on_disk(name.clone(), options, budget, env.seed, disk);
            match found {
                Some((_, recovered)) => {
                    topic.recover(recovered, listed, now);
                    node.found(name.clone(), topic.entry());
                }
                None => {
                    if let Some(listed) = listed {
                        topic.restore(listed);
                    }
                }
            }
            restored.insert(name, SharedTopic::new(topic, place));
        }
        Arc::new_cyclic(|me| Self {
            clock,
            timers: Timers::default(),
            save_wanted: Notify::new(),
            conn_ended: Notify::new(),
            exiting: Notify::new(),
            lookups: Lookups::new(),
            storage,
            me: Weak::clone(me),
            started: now.timestamp,
            topics: RwLock::new(restored),
            node: Mutex::new(node),
            conns: Mutex::default(),
            next_conn: AtomicU64::new(1),
            options,
            budget,
            env,
        })
    }

    /// Lets every topic do what there is to do: begin with what was read from disk, or give up its memory.
    pub(crate) fn call_all(&self) {
        for topic in self.all_topics() {
            topic.call(self, None);
        }
    }

    /// Has every topic write all that it holds, and waits for that; what could not be written, and why.
    pub(crate) async fn store_all(&self) -> BTreeMap<TopicName, String> {
        let topics = self.all_topics();
        let topics: BTreeMap<_, _> = topics.into_iter().map(|topic| (topic.name().clone(), topic)).collect();
        self.storage.expect(topics.keys().cloned());
        for (name, topic) in &topics {
            if !topic.call(self, Some(Input::Shutdown)) && !topic.has_panicked() {
                self.storage.stored(name.clone(), Ok(()));
            }
        }
        self.storage.all_stored(|name| topics[name].has_panicked()).await
    }

    pub(crate) fn all_topics(&self) -> Vec<Arc<SharedTopic>> {
        self.topics.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// For a task that outlives whoever starts it.
    pub(crate) fn me(&self) -> Option<Arc<Self>> {
        self.me.upgrade()
    }

    /// The options it runs with.
    pub fn options(&self) -> &Arc<Options> {
        &self.options
    }

    /// When it was started.
    pub const fn started(&self) -> Timestamp {
        self.started
    }

    /// Both clocks.
    pub fn now(&self) -> Now {
        self.clock.now()
    }

    /// The bound on queued bytes, and how much of it is used.
    pub const fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Whether the disk can be relied upon (spec: nsqd_protocol §3.4).
    ///
    /// # Errors
    /// What an operation has failed with, from the first failure until the disk has shown that it works again.
    pub fn health(&self) -> Result<(), String> {
        self.storage.health()
    }

    /// Which topics are durable.
    pub fn durable(&self) -> &Durable {
        self.storage.durable()
    }

    /// The topic of that name; it is created if there is none.
    pub(crate) fn topic(&self, name: &TopicName) -> Arc<SharedTopic> {
        if let Some(topic) = self.find(name) {
            return topic;
        }
        let mut topics = self.topics.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(topic) = topics.get(name).filter(|topic| !topic.is_gone()) {
            return Arc::clone(topic);
        }
        tracing::info!("TOPIC({name}): created");
        let asks = self.lookups.may_be_asked();
        let topic = self.new_topic(name, asks == Some(true));
        topics.insert(name.clone(), Arc::clone(&topic));
        self.notice([Notice::TopicCreated(name.clone())]);
        match asks {
            // The answer makes channels, of which the directory must not hear before it hears of the topic.
            Some(true) => self.lookups.ask_for(Arc::clone(&topic)),
            Some(false) => {}
            None => tracing::warn!("TOPIC({name}): starts without its channels, no nsqlookupd was reached so far"),
        }
        topic
    }

    fn new_topic(&self, name: &TopicName, awaits_channels: bool) -> Arc<SharedTopic> {
        let (disk, place) = self.storage.open(name, None);
        let (options, budget) = (Arc::clone(&self.options), self.budget.clone());
        let mut topic = Topic::on_disk(name.clone(), options, budget, self.env.seed, disk);
        topic.start_incarnations_above(self.node().directory().largest_incarnation());
        if awaits_channels {
            topic.await_channels();
        }
        SharedTopic::new(topic, place)
    }

    /// The topic of that name, if there is one.
    pub(crate) fn find(&self, name: &TopicName) -> Option<Arc<SharedTopic>> {
        let topics = self.topics.read().unwrap_or_else(PoisonError::into_inner);
        topics.get(name).filter(|topic| !topic.is_gone()).cloned()
    }

    /// Whether there is a topic of that name.
    pub fn has_topic(&self, name: &TopicName) -> bool {
        self.find(name).is_some()
    }

    /// Whether there is a topic of that name with a channel of that name.
    pub fn has_channel(&self, topic: &TopicName, channel: &ChannelName) -> bool {
        self.find(topic).is_some_and(|topic| topic.look(|topic| topic.has_channel(channel)).unwrap_or(false))
    }

    /// Creates the topic if there is none, and waits until it has the channels that nsqlookupds know.
    ///
    /// # Errors
    /// If the process ends before.
    pub async fn create_topic(&self, name: &TopicName) -> Result<(), Refusal> {
        let input = |from, slot| Input::Admin { from, slot, action: Admin::CreateTopic };
        self.ask(|| Some(self.topic(name)), input).await.unwrap_or(Err(Refusal::Exiting))?;
        self.saved_so_far().await;
        Ok(())
    }

    /// How each nsqlookupd on the list stands, by address; for tests and the simulator.
    pub fn lookupds(&self) -> BTreeMap<String, Standing> {
        let position = self.look_up(Directory::position);
        let stand = |(address, standing): (&String, &Standing)| {
            let is_registered = standing.registered == Some(position);
            (address.clone(), Standing { is_registered, ..standing.clone() })
        };
        self.lookups.list().borrow().standings().map(stand).collect()
    }

    /// Looks at the directory.
    pub(crate) fn look_up<T>(&self, look: impl FnOnce(&Directory) -> T) -> T {
        look(self.node().directory())
    }

    /// Whether the last change was written to `nsqd.dat`, if the last write has succeeded.
    pub(crate) fn is_saved(&self) -> bool {
        self.node().is_saved()
    }

    /// Publishes for an HTTP request; the topic is created if there is none.
    ///
    /// # Errors
    /// The topic's refusal; some of several messages may have been accepted.
    pub async fn publish(&self, topic: &TopicName, bodies: Bodies, defer: Duration) -> Result<(), Refusal> {
        let input = |from, slot| Input::Publish { from, slot, bodies, defer };
        self.ask(|| Some(self.topic(topic)), input).await.unwrap_or(Err(Refusal::Exiting))
    }

    /// Does what an operator asks for, and waits until it is done and as durable as the disk allows; `None` if there is
    /// no such topic.
    ///
    /// # Errors
    /// The topic's refusal.
    pub async fn administer(&self, topic: &TopicName, action: Admin) -> Option<Result<(), Refusal>> {
        let deleted = (action == Admin::DeleteTopic).then(|| self.find(topic)).flatten();
        let result = self.ask(|| self.find(topic), |from, slot| Input::Admin { from, slot, action }).await;
        self.saved_so_far().await;
        match (deleted, result) {
            (Some(deleted), Some(Ok(()))) => Some(deleted.place().removed().await),
            (_, result) => result,
        }
    }

    /// Waits until `nsqd.dat` has everything that has happened so far, or could not be written, which is in the log.
    async fn saved_so_far(&self) {
        let asker = self.asker();
        let mut effects = Vec::new();
        self.node().answer_when_saved(asker.conn, Slot(0), &mut effects);
        self.perform(effects);
        // What was done is done; like upstream, only a pause that could not be saved is an error.
        let _ = asker.answer(&mut Mail::default()).await;
    }

    /// Asks a topic for something on behalf of no connection, and waits for the answer.
    async fn ask(
        &self,
        topic: impl Fn() -> Option<Arc<SharedTopic>>,
        input: impl FnOnce(ConnId, Slot) -> Input,
    ) -> Option<Result<(), Refusal>> {
        let asker = self.asker();
        let mut mail = Mail::default();
        let mut batch = VecDeque::from([input(asker.conn, Slot(0))]);
        while !batch.is_empty() {
            let caller = Caller { conn: asker.conn, mail: &mut mail, subscribe: None };
            // A topic that was deleted in the meantime leaves the batch as it was.
            let _ = topic()?.submit(self, &mut batch, Some(caller));
        }
        Some(asker.answer(&mut mail).await)
    }

    fn asker(&self) -> Asker<'_> {
        let conn = self.next_conn();
        Asker { broker: self, conn, outbox: Arc::clone(&self.connected(conn).outbox) }
    }

    /// All topics, or the one of that name, sorted by name; see [`Topic::stats`].
    pub fn topic_stats(&self, topic: Option<&str>, channel: Option<&str>, clients: bool) -> Vec<TopicStats> {
        let topics: Vec<_> = {
            let topics = self.topics.read().unwrap_or_else(PoisonError::into_inner);
            let wanted = topics.iter().filter(|(name, _)| topic.is_none_or(|topic| topic == name.as_str()));
            wanted.map(|(_, topic)| Arc::clone(topic)).filter(|topic| !topic.is_gone()).collect()
        };
        topics.iter().filter_map(|shared| shared.look(|topic| topic.stats(channel, clients))).collect()
    }

    /// Looks at every topic, changing nothing; for tests and the simulator, which want to hear of one that has
    /// panicked.
    pub fn inspect(&self, mut look: impl FnMut(&Topic)) {
        for shared in self.all_topics() {
            shared.look(&mut look).expect("no topic has panicked");
        }
    }

    /// The connections that have published something, in the order in which they connected.
    pub fn producer_stats(&self) -> Vec<ProducerStats> {
        let conns: Vec<_> = self.conns().open.iter().map(|(conn, shared)| (*conn, Arc::clone(shared))).collect();
        conns.into_iter().filter_map(|(conn, shared)| shared.stats(conn)).collect()
    }

    /// Removes a deleted topic from the map, unless it was replaced already.
    pub(crate) fn forget(&self, name: &TopicName) {
        let mut topics = self.topics.write().unwrap_or_else(PoisonError::into_inner);
        if topics.get(name).is_some_and(|topic| topic.is_gone()) {
            topics.remove(name);
            tracing::info!("TOPIC({name}): deleted");
        }
    }

    /// Tells the node what happened; may be called under a topic's lock.
    pub(crate) fn notice(&self, notices: impl IntoIterator<Item = Notice>) {
        let mut effects = Vec::new();
        let news = {
            let mut node = self.node();
            node.handle(notices.into_iter().filter_map(|notice| self.take(notice)), &mut effects);
            node.is_saved().then(|| node.directory().position())
        };
        self.announce(news);
        self.perform(effects);
    }

    /// Takes what is not for the node.
    fn take(&self, notice: Notice) -> Option<Notice> {
        match notice {
            Notice::Stored { topic, result } => self.storage.stored(topic, result),
            notice => {
                match &notice {
                    Notice::ChannelCreated(topic, channel, _) => {
                        tracing::info!("TOPIC({topic}): new channel({channel})")
                    }
                    Notice::ChannelDeleted(topic, channel) => {
                        tracing::info!("TOPIC({topic}): deleted channel({channel})");
                    }
                    _ => {}
                }
                return Some(notice);
            }
        }
        None
    }

    /// Lets peers know that the directory has changed. What goes into `nsqd.dat` is announced when it is there, or
    /// could not be written, so that hardly anything is announced that a crash forgets.
    fn announce(&self, position: Option<u64>) {
        if let Some(position) = position {
            self.lookups.news.send_if_modified(|news| std::mem::replace(news, position) != position);
        }
    }

    pub(crate) fn snapshot(&self) -> (u64, Vec<u8>) {
        self.node().snapshot()
    }

    pub(crate) fn saved(&self, generation: u64, result: Result<(), Refusal>) {
        let mut effects = Vec::new();
        let position = {
            let mut node = self.node();
            node.saved(generation, result, &mut effects);
            node.directory().position()
        };
        self.announce(Some(position));
        self.perform(effects);
    }

    fn perform(&self, effects: Vec<NodeEffect>) {
        for effect in effects {
            match effect {
                NodeEffect::Save => self.save_wanted.notify_one(),
                NodeEffect::Reply { conn, slot, result } => {
                    let waker = self.outbox(conn).and_then(|outbox| outbox.tell(ToConn::Reply { slot, result }));
                    if let Some(waker) = waker {
                        waker.wake();
                    }
                }
            }
        }
    }

    pub(crate) fn next_conn(&self) -> ConnId {
        ConnId(self.next_conn.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn connected(&self, conn: ConnId) -> Arc<ConnShared> {
        let shared = Arc::new(ConnShared::default());
        let mut conns = self.conns();
        conns.open.insert(conn, Arc::clone(&shared));
        if conns.closed {
            shared.outbox.close();
        }
        shared
    }

    pub(crate) fn disconnected(&self, conn: ConnId) {
        self.conns().open.remove(&conn);
        self.conn_ended.notify_one();
    }

    pub(crate) fn outbox(&self, conn: ConnId) -> Option<Arc<Outbox>> {
        self.conns().open.get(&conn).map(|shared| Arc::clone(&shared.outbox))
    }

    pub(crate) fn open_conns(&self) -> usize {
        self.conns().open.len()
    }

    /// Ends all connections, and those that were accepted and are not known yet, because the process ends.
    pub(crate) fn close_all(&self) {
        let outboxes: Vec<_> = {
            let mut conns = self.conns();
            conns.closed = true;
            conns.open.values().map(|shared| Arc::clone(&shared.outbox)).collect()
        };
        outboxes.iter().for_each(|outbox| outbox.close());
    }

    fn node(&self) -> MutexGuard<'_, Node> {
        self.node.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn conns(&self) -> MutexGuard<'_, Conns> {
        self.conns.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that waits for its answer; it is forgotten when whoever made it goes away.
struct Asker<'a> {
    broker: &'a Broker,
    conn: ConnId,
    outbox: Arc<Outbox>,
}

impl Asker<'_> {
    async fn answer(&self, mail: &mut Mail) -> Result<(), Refusal> {
        poll_fn(|cx| self.poll_answer(cx, mail)).await
    }

    fn poll_answer(&self, cx: &Context<'_>, mail: &mut Mail) -> Poll<Result<(), Refusal>> {
        loop {
            for (_, event) in mail.events.drain(..) {
                if let ToConn::Reply { result, .. } = event {
                    return Poll::Ready(result);
                }
            }
            match self.outbox.take(cx, mail) {
                Taken::Mail => {}
                Taken::Nothing => return Poll::Pending,
                Taken::Closed => return Poll::Ready(Err(Refusal::Exiting)),
            }
        }
    }
}

impl Drop for Asker<'_> {
    fn drop(&mut self) {
        self.broker.disconnected(self.conn);
    }
}

impl ConnShared {
    /// The connection's own view of itself has changed.
    pub(crate) fn update(&self, client: &Arc<ClientInfo>, state: State) {
        self.state.store(state as u8, Ordering::Relaxed);
        let mut known = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        if known.as_ref().is_none_or(|known| !Arc::ptr_eq(known, client)) {
            *known = Some(Arc::clone(client));
        }
    }

    /// The count of messages that the connection has published to a topic.
    pub(crate) fn published(&self, topic: &TopicName) -> Arc<AtomicU64> {
        let mut published = self.published.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, count)) = published.iter().find(|(name, _)| name == topic) {
            return Arc::clone(count);
        }
        let count = Arc::new(AtomicU64::new(0));
        published.push((topic.clone(), Arc::clone(&count)));
        count
    }

    fn stats(&self, conn: ConnId) -> Option<ProducerStats> {
        let published = self.published.lock().unwrap_or_else(PoisonError::into_inner);
        let published: Vec<_> =
            published.iter().map(|(topic, count)| (topic.clone(), count.load(Ordering::Relaxed))).collect();
        let client = self.client.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        let state = self.state.load(Ordering::Relaxed);
        (!published.is_empty()).then_some(ProducerStats { conn, client, state, published })
    }
}
