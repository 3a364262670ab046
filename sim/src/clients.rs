//! Producers and consumers in the simulator: net's own client, driven at random, writing everything into the ledger.
//!
//! They never give up: a lost connection is made again after a while. What a client never learnt is written down as
//! unknown, and what it did with a message when it did it.

use crate::cluster::{Cluster, Nsqd};
use crate::ledger::{Delivery, Fate, Ledger, Outcome, Publish};
use crate::runner::Sim;
use bytes::Bytes;
use madsim::task::NodeId;
use madsim::time::{Instant, sleep, timeout};
use nsq_core::random::Random;
use nsq_core::wire::Message;
use nsq_net_sim::client::plain::{Consumer, Event, Producer, Published};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

/// What a producer is to do.
#[derive(Clone, Debug)]
pub struct ProducerPlan {
    /// Where to.
    pub topic: String,
    /// How many messages.
    pub messages: usize,
    /// The most bytes of each that say nothing.
    pub filler: u64,
    /// The longest pause between two publishes.
    pub pause: Duration,
    /// One in so many publishes is an MPUB; 0 is none.
    pub batch_one_in: u64,
    /// One in so many is deferred; 0 is none.
    pub defer_one_in: u64,
    /// For at most so long.
    pub defer: Duration,
}

/// What a consumer is to do.
#[derive(Clone, Debug)]
pub struct ConsumerPlan {
    /// From there.
    pub topic: String,
    /// From there.
    pub channel: String,
    /// The most messages to hold.
    pub rdy: u32,
    /// Its message timeout.
    pub msg_timeout: Duration,
    /// The longest it works on a message.
    pub work: Duration,
    /// Of a hundred messages, how many it requeues, lets time out, touches before it finishes them.
    pub requeue: u64,
    /// For how long it puts off what it requeues, at most.
    pub delay: Duration,
    /// See `requeue`.
    pub forget: u64,
    /// See `requeue`.
    pub touch: u64,
    /// One in so many messages makes it drop its connection, with all it holds; 0 is none.
    pub die_one_in: u64,
    /// One in so many messages makes it stop reading for up to four timeouts; 0 is none.
    pub stall_one_in: u64,
    /// Its heartbeat interval.
    pub heartbeat: Duration,
}

/// Tells clients to behave from now on, and how many producers are done.
#[derive(Clone, Default)]
pub struct Signals {
    calm: Arc<AtomicBool>,
    producing: Arc<AtomicUsize>,
}

/// A client without an answer for so long makes a new connection.
const PATIENCE: Duration = Duration::from_secs(90);
const RECONNECT: Duration = Duration::from_millis(500);

impl Signals {
    /// Consumers finish everything from now on.
    pub fn calm_down(&self) {
        self.calm.store(true, Relaxed);
    }

    /// Whether a producer is still at work.
    pub fn producing(&self) -> bool {
        self.producing.load(Relaxed) > 0
    }
}

/// Starts a producer on a machine.
pub fn produce(
    cluster: &Cluster,
    sim: &Sim,
    node: NodeId,
    nsqd: &Nsqd,
    number: usize,
    plan: ProducerPlan,
    signals: &Signals,
) {
    signals.producing.fetch_add(1, Relaxed);
    let task = ProducerTask {
        ledger: cluster.ledger.clone(),
        sim: sim.clone(),
        address: nsqd.address(),
        nsqd: nsqd.machine.name.clone(),
        random: Random::new(sim.seed().wrapping_mul(31).wrapping_add(number as u64)),
        number,
        sent: 0,
        plan,
    };
    let producing = Arc::clone(&signals.producing);
    sim.net().spawn(node, async move {
        task.run().await;
        producing.fetch_sub(1, Relaxed);
    });
}

/// Starts a consumer on a machine.
pub fn consume(
    cluster: &Cluster,
    sim: &Sim,
    node: NodeId,
    nsqd: &Nsqd,
    number: usize,
    plan: ConsumerPlan,
    signals: &Signals,
) {
    let task = ConsumerTask {
        ledger: cluster.ledger.clone(),
        sim: sim.clone(),
        nsqd: nsqd.clone(),
        random: Random::new(sim.seed().wrapping_mul(37).wrapping_add(1000 + number as u64)),
        signals: signals.clone(),
        number,
        connection: 0,
        plan,
    };
    sim.net().spawn(node, task.run());
}

struct ProducerTask {
    ledger: Ledger,
    sim: Sim,
    address: String,
    nsqd: String,
    random: Random,
    number: usize,
    sent: usize,
    plan: ProducerPlan,
}

impl ProducerTask {
    async fn run(mut self) {
        while self.sent < self.plan.messages {
            let connected = timeout(PATIENCE, Producer::connect(&self.address, None)).await;
            if let Ok(Ok(mut producer)) = connected {
                // Whatever ended the connection is in the ledger.
                let _ = self.publish_all(&mut producer).await;
            }
            sleep(RECONNECT).await;
        }
    }

    async fn publish_all(&mut self, producer: &mut Producer) -> io::Result<()> {
        while self.sent < self.plan.messages {
            self.publish_one(producer).await?;
            sleep(self.up_to(self.plan.pause)).await;
        }
        Ok(())
    }

    /// One PUB, DPUB or MPUB, and what came of it.
    async fn publish_one(&mut self, producer: &mut Producer) -> io::Result<()> {
        let count = if self.one_in(self.plan.batch_one_in) { 2 + self.random.below(20) as usize } else { 1 };
        let delay = match count == 1 && self.one_in(self.plan.defer_one_in) {
            true => Duration::from_millis(1 + self.random.below(self.plan.defer.as_millis() as u64)),
            false => Duration::ZERO,
        };
        let bodies: Vec<Bytes> = (0..count).map(|_| self.body()).collect();
        let sent = Instant::now();
        for body in &bodies {
            let not_before = (!delay.is_zero()).then(|| sent + delay);
            let publish = Publish {
                topic: self.plan.topic.clone(),
                to: vec![self.nsqd.clone()],
                sent,
                not_before,
                outcome: Outcome::Unknown,
                answered: None,
            };
            self.ledger.open().published.insert(body.clone(), publish);
        }
        let answer = async {
            match &bodies[..] {
                [body] => producer.publish(&self.plan.topic, body, delay).await,
                bodies => producer.publish_many(&self.plan.topic, bodies).await,
            }
        };
        let answer = timeout(PATIENCE, answer).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let outcome = match &answer {
            Ok(Published::Accepted) => Outcome::Accepted,
            // A durable topic that was deleted meanwhile, and by a crash was not, may have it.
            Ok(Published::Refused(text)) if text.contains("exiting") => Outcome::Unknown,
            // It was tried, perhaps.
            Ok(Published::Refused(text)) if text.contains("the disk failed") => {
                self.sim.count("refused_by_the_disk", 1);
                Outcome::Unknown
            }
            Ok(Published::Refused(_)) if count == 1 => Outcome::Refused,
            _ => Outcome::Unknown,
        };
        let event = if outcome == Outcome::Accepted { "accepted" } else { "refused_or_unknown" };
        self.sim.count(event, count as u64);
        self.sim.count("deferred", u64::from(!delay.is_zero()));
        for body in &bodies {
            self.ledger.open().answer(body, outcome);
        }
        answer.and_then(|answer| match answer {
            Published::Accepted => Ok(()),
            Published::Refused(text) => Err(io::Error::other(text)),
        })
    }

    /// A body that was never used, says where it belongs, and shows if a byte of it was changed.
    fn body(&mut self) -> Bytes {
        let mut body = format!("{}/{}/{}/", self.plan.topic, self.number, self.sent);
        self.sent += 1;
        let filler = self.random.below(self.plan.filler);
        body.extend((0..filler).map(|_| char::from(b'a' + self.random.below(26) as u8)));
        Bytes::from(body)
    }

    fn one_in(&mut self, count: u64) -> bool {
        count > 0 && self.random.below(count) == 0
    }

    fn up_to(&mut self, most: Duration) -> Duration {
        Duration::from_nanos(self.random.below(most.as_nanos() as u64 + 1))
    }
}

struct ConsumerTask {
    ledger: Ledger,
    sim: Sim,
    nsqd: Nsqd,
    random: Random,
    signals: Signals,
    number: usize,
    connection: u64,
    plan: ConsumerPlan,
}

/// Messages being worked on: when the work ends, and which delivery it is.
type Work = BTreeMap<(Instant, usize), Message>;

impl ConsumerTask {
    async fn run(mut self) {
        loop {
            self.connection += 1;
            // Whatever ended the connection, the next one is the answer.
            let _ = self.serve().await;
            sleep(RECONNECT).await;
        }
    }

    async fn serve(&mut self) -> io::Result<()> {
        let ConsumerPlan { msg_timeout, heartbeat, .. } = self.plan;
        let (msg_timeout, heartbeat) = (msg_timeout.as_millis(), heartbeat.as_millis());
        let identify = format!(r#"{{"msg_timeout":{msg_timeout},"heartbeat_interval":{heartbeat}}}"#);
        let (address, topic, channel) = (self.nsqd.address(), &self.plan.topic, &self.plan.channel);
        let connecting = Consumer::connect(&address, Some(&identify), topic, channel);
        let mut consumer = timeout(PATIENCE, connecting).await.map_err(|_| io::ErrorKind::TimedOut)??;
        let life = self.nsqd.machine.life();
        consumer.ready(self.plan.rdy);
        let mut work = Work::new();
        loop {
            let until = work.first_key_value().map_or(PATIENCE, |((end, _), _)| end.duration_since(Instant::now()));
            match timeout(until, consumer.next()).await {
                Ok(Ok(Event::Message(message))) => {
                    self.begin(message, life, &mut work)?;
                    self.stall().await;
                }
                Ok(Ok(Event::Failed(_))) => self.sim.count("late_answers", 1),
                Ok(Ok(Event::Closed)) => return Ok(()),
                Ok(Err(error)) => return Err(error),
                Err(_) if work.is_empty() => return Err(io::ErrorKind::TimedOut.into()),
                Err(_) => {}
            }
            while let Some(done) = work.first_entry().filter(|entry| entry.key().0 <= Instant::now()) {
                let ((_, delivery), message) = done.remove_entry();
                self.end(&mut consumer, delivery, &message);
            }
        }
    }

    /// Writes a delivery down and decides how long it takes; an error drops the connection.
    fn begin(&mut self, message: Message, life: u64, work: &mut Work) -> io::Result<()> {
        let now = Instant::now();
        self.sim.count("deliveries", 1);
        if message.attempts > 1 {
            self.sim.count("redeliveries", 1);
        }
        let may_be_double = self.nsqd.has_doubles(&self.plan.topic);
        let mut entries = self.ledger.open();
        let delivery = entries.deliveries.len();
        entries.deliveries.push(Delivery {
            topic: self.plan.topic.clone(),
            channel: self.plan.channel.clone(),
            node: (self.nsqd.machine.name.clone(), life),
            consumer: (self.number, self.connection),
            at: now,
            id: message.id,
            attempts: message.attempts,
            may_be_double,
            body: message.body.clone(),
            touched: None,
            fate: Fate::Left,
        });
        drop(entries);
        if !self.calm() && self.plan.die_one_in > 0 && self.random.below(self.plan.die_one_in) == 0 {
            self.sim.count("consumers_died", 1);
            return Err(io::Error::other("this consumer dies"));
        }
        let most = self.plan.work.as_nanos() as u64 + 1;
        work.insert((now + Duration::from_nanos(self.random.below(most)), delivery), message);
        Ok(())
    }

    /// Reads nothing for a while, now and then.
    async fn stall(&mut self) {
        let ConsumerPlan { stall_one_in, msg_timeout, .. } = self.plan;
        if !self.calm() && stall_one_in > 0 && self.random.below(stall_one_in) == 0 {
            self.sim.count("stalls", 1);
            sleep(Duration::from_nanos(self.random.below(4 * msg_timeout.as_nanos() as u64))).await;
        }
    }

    /// Finishes a message, or not.
    fn end(&mut self, consumer: &mut Consumer, delivery: usize, message: &Message) {
        let ConsumerPlan { requeue, delay, forget, touch, .. } = self.plan;
        let draw = if self.calm() { u64::MAX } else { self.random.below(100) };
        let fate = if draw < requeue {
            let delay = Duration::from_millis(self.random.below(3) * self.random.below(delay.as_millis() as u64 / 2));
            consumer.requeue(message.id, delay);
            self.sim.count("requeues", 1);
            Fate::Requeued(Instant::now(), delay)
        } else if draw < requeue + forget {
            self.sim.count("forgotten", 1);
            Fate::Left
        } else {
            if draw < requeue + forget + touch {
                consumer.touch(message.id);
                self.sim.count("touches", 1);
            }
            consumer.finish(message.id);
            Fate::Finished(Instant::now())
        };
        self.ledger.open().deliveries[delivery].fate = fate;
    }

    fn calm(&self) -> bool {
        self.signals.calm.load(Relaxed)
    }
}
