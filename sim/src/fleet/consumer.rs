//! A consumer: finds nsqds through nsqlookupds, works on as many messages at a time as it may hold, and does with each
//! what the seed says.

use super::Signals;
use crate::cluster::{Cluster, Lookupd, Machine};
use crate::ledger::{Delivery, Fate};
use crate::runner::Sim;
use madsim::time::{Instant, sleep};
use nsq_core::random::Random;
use nsq_net_sim::client::{self, Event, Message};
use nsq_sim_rt::sync::Notify;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A consumer's machine.
#[derive(Clone)]
pub struct Consumer {
    /// Its power and its process.
    pub machine: Machine,
    /// Its number in the ledger.
    pub number: usize,
    /// What it does.
    pub plan: Consuming,
    shared: Arc<Shared>,
}

/// What a consumer is to do.
#[derive(Clone, Debug)]
pub struct Consuming {
    /// From there.
    pub topic: String,
    /// From there.
    pub channel: String,
    /// The most messages to hold, over all its connections.
    pub max_in_flight: u32,
    /// How often it asks nsqlookupds.
    pub poll: Duration,
    /// Its longest pause before it tries a lost nsqd again.
    pub reconnect: Duration,
    /// Its message timeout.
    pub msg_timeout: Duration,
    /// Its longest pause after a failure; zero never backs off.
    pub backoff: Duration,
    /// Its heartbeat interval.
    pub heartbeat: Duration,
    /// The longest it works on a message.
    pub work: Duration,
    /// Of a hundred messages, how many it requeues, lets time out, touches before it finishes them.
    pub requeue: u64,
    /// See `requeue`.
    pub forget: u64,
    /// See `requeue`.
    pub touch: u64,
}

/// What its processes share with the scenario.
#[derive(Default)]
struct Shared {
    /// To be stopped in order.
    leave: Notify,
    /// The nsqds it is connected to, as it sees it.
    connected: Mutex<BTreeSet<String>>,
    has_left: Mutex<bool>,
}

/// Percent of the interval between two polls that is added at random.
const POLL_JITTER: u8 = 30;
/// An ordered end takes no longer: what it holds is finished or times out.
const LEFT: Duration = Duration::from_secs(60);

impl Cluster {
    /// A new machine with a consumer. Its number is its own in this run.
    pub fn consumer(&self, number: usize, lookupds: &[Lookupd], plan: Consuming, signals: &Signals) -> Consumer {
        let name = format!("consumer-{number}-{}-{}", plan.topic, plan.channel);
        let shared = Arc::<Shared>::default();
        let process = Process {
            cluster: self.clone(),
            sim: self.sim().clone(),
            signals: signals.clone(),
            number,
            lookupds: lookupds.iter().map(Lookupd::http_address).collect(),
            shared: Arc::clone(&shared),
            plan: plan.clone(),
        };
        Consumer { machine: self.machine(&name, move |life| process.clone().run(life)), number, plan, shared }
    }
}

impl Consumer {
    /// The nsqds that it is connected to, as it sees it.
    pub fn connected(&self) -> BTreeSet<String> {
        self.shared.connected().clone()
    }

    /// Ends in order: asks for nothing more, finishes what it holds, says goodbye.
    ///
    /// # Panics
    /// If it does not end.
    pub async fn leave(&self, sim: &Sim) {
        self.shared.leave.notify_one();
        let asked = Instant::now();
        while !*lock(&self.shared.has_left) {
            assert!(asked.elapsed() < LEFT, "{} does not end", self.machine.name);
            sleep(Duration::from_millis(50)).await;
        }
        sim.count("consumers_left", 1);
        self.machine.ended();
    }
}

impl Shared {
    fn connected(&self) -> MutexGuard<'_, BTreeSet<String>> {
        lock(&self.connected)
    }

    /// The client tells how it is doing.
    fn notice(&self, sim: &Sim, event: &Event) {
        let counted = match event {
            Event::Connected { nsqd } => {
                self.connected().insert(nsqd.clone());
                "discoveries"
            }
            Event::Disconnected { nsqd, .. } => {
                self.connected().remove(nsqd);
                "consumer_disconnects"
            }
            Event::ConnectFailed { .. } => "consumer_connects_failed",
            Event::LookupFailed { .. } => "lookups_failed",
            Event::Backoff { .. } => "backoffs",
            Event::BackoffEnded => "backoffs_ended",
            Event::AnswerFailed { .. } => "answers_failed",
            Event::AnswerLost { .. } => "answers_lost",
            Event::TimedOut { .. } => "timed_out",
            _ => "other_events",
        };
        sim.count(counted, 1);
    }
}

/// What becomes of a message.
#[derive(Clone, Copy)]
enum End {
    Finish,
    TouchAndFinish,
    /// Takes longer than the message timeout.
    TouchAndWorkOn,
    Requeue(Duration),
    Forget,
}

#[derive(Clone)]
struct Process {
    cluster: Cluster,
    sim: Sim,
    signals: Signals,
    number: usize,
    lookupds: Vec<String>,
    shared: Arc<Shared>,
    plan: Consuming,
}

impl Process {
    async fn run(self, life: u64) {
        let seed = self.sim.seed().wrapping_mul(37).wrapping_add(self.number as u64).wrapping_add(life << 32);
        let mut random = Random::new(seed);
        self.shared.connected().clear();
        let mut client = self.client(seed);
        loop {
            let message = nsq_sim_rt::select! {
                biased;
                () = self.shared.leave.notified() => break,
                message = client.next() => message,
            };
            let Some(message) = message else { break };
            let work = Duration::from_nanos(random.below(self.plan.work.as_nanos() as u64 + 1));
            let end = self.draw(&mut random);
            let delivery = self.write_down(&message, life);
            nsq_sim_rt::spawn(self.clone().work(message, delivery, work, end));
        }
        client.stop().await;
        *lock(&self.shared.has_left) = true;
        std::future::pending().await
    }

    fn client(&self, seed: u64) -> client::Consumer {
        let mut builder = client::Consumer::builder(&self.plan.topic, &self.plan.channel);
        for address in &self.lookupds {
            builder = builder.lookupd(address);
        }
        let (sim, shared) = (self.sim.clone(), Arc::clone(&self.shared));
        builder
            .max_in_flight(self.plan.max_in_flight)
            .max_attempts(0)
            .backoff(self.plan.backoff / 4, self.plan.backoff)
            .lookup_poll(self.plan.poll, POLL_JITTER)
            .msg_timeout(self.plan.msg_timeout)
            .heartbeat_interval(self.plan.heartbeat)
            .reconnect(self.plan.reconnect / 16, self.plan.reconnect)
            .seed(seed)
            .on_event(move |event| shared.notice(&sim, event))
            .build()
            .expect("the plan makes sense")
    }

    fn draw(&self, random: &mut Random) -> End {
        let Consuming { requeue, forget, touch, .. } = self.plan;
        let draw = if self.signals.is_calm() { u64::MAX } else { random.below(100) };
        if draw < requeue {
            End::Requeue(Duration::from_millis(random.below(3) * random.below(1000)))
        } else if draw < requeue + forget {
            End::Forget
        } else if draw < requeue + forget + touch {
            // One in four, for they hold up all others.
            if draw % 4 == 0 { End::TouchAndWorkOn } else { End::TouchAndFinish }
        } else {
            End::Finish
        }
    }

    /// Returns which of the deliveries it is.
    fn write_down(&self, message: &Message, life: u64) -> usize {
        self.sim.count("deliveries", 1);
        if message.attempts() > 1 {
            self.sim.count("redeliveries", 1);
        }
        let address = message.nsqd();
        let name = address.rsplit_once(':').map_or(address, |(name, _)| name).to_owned();
        let node_life = self.sim.net().find(&name).map_or(0, |node| self.sim.net().incarnation(node));
        let mut entries = self.cluster.ledger.open();
        entries.deliveries.push(Delivery {
            topic: self.plan.topic.clone(),
            channel: self.plan.channel.clone(),
            node: (name, node_life),
            consumer: (self.number, life),
            at: Instant::now(),
            id: message.id(),
            attempts: message.attempts(),
            // No disk fails where it is used.
            may_be_double: false,
            body: message.body().clone(),
            touched: None,
            fate: Fate::Left,
        });
        entries.deliveries.len() - 1
    }

    async fn work(self, message: Message, delivery: usize, work: Duration, end: End) {
        sleep(work).await;
        let fate = match end {
            End::Forget => {
                self.sim.count("forgotten", 1);
                // It is held for as long as it can be.
                sleep(2 * self.plan.msg_timeout).await;
                return drop(message);
            }
            End::Requeue(delay) => {
                self.sim.count("requeues", 1);
                if delay.is_zero() {
                    message.requeue_without_backoff(delay)
                } else {
                    message.requeue_after(delay)
                }
                Fate::Requeued(Instant::now(), delay)
            }
            End::Finish => {
                message.finish();
                Fate::Finished(Instant::now())
            }
            End::TouchAndFinish => {
                self.sim.count("touches", 1);
                message.touch();
                message.finish();
                Fate::Finished(Instant::now())
            }
            End::TouchAndWorkOn => {
                sleep(self.plan.msg_timeout.mul_f64(0.6)).await;
                message.touch();
                self.cluster.ledger.open().deliveries[delivery].touched = Some(Instant::now());
                sleep(self.plan.msg_timeout.mul_f64(0.6)).await;
                self.sim.count("touched_past_timeout", 1);
                message.finish();
                Fate::Finished(Instant::now())
            }
        };
        self.cluster.ledger.open().deliveries[delivery].fate = fate;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
