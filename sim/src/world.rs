//! One nsqd with its producers and consumers, drawn from a seed: what the scenarios of the spine happen to.
//!
//! Two phases. First faults, which the scenario brings, and safety: a watcher checks every invariant of every topic all
//! the time. Then healing and liveness: everything drains within a bound, and the ledger is held against the promises.

use crate::checks::{self, lives};
use crate::clients::{ConsumerPlan, ProducerPlan, Signals, consume, produce};
use crate::cluster::{Cluster, Keeping, Nsqd, Risk};
use crate::disk::Faults;
use crate::runner::Sim;
use madsim::task::NodeId;
use madsim::time::{Instant, sleep};
use nsq_core::random::Random;
use std::time::Duration;

/// See the module's documentation.
pub struct World {
    /// The run.
    pub sim: Sim,
    /// The machines.
    pub cluster: Cluster,
    /// The server.
    pub nsqd: Nsqd,
    /// The machines of producers, then those of consumers.
    pub clients: Vec<NodeId>,
    /// For the scenario's own draws.
    pub random: Random,
    /// What was drawn.
    pub plan: Plan,
    signals: Signals,
}

/// What a world is like.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Topics, each with its channels.
    pub topics: Vec<(String, Vec<String>)>,
    /// For each topic.
    pub producers: usize,
    /// For each channel.
    pub consumers: usize,
    /// A template for producers.
    pub producer: ProducerPlan,
    /// A template for consumers.
    pub consumer: ConsumerPlan,
    /// How nsqd keeps messages.
    pub keeping: Keeping,
}

/// The longest that a packet takes on a healthy link of a world.
pub const LATENCY: Duration = Duration::from_millis(5);
/// After healing, everything has drained by then, not counting the work: a consumer may hear nothing of the end of its
/// nsqd, and waits for a minute and a half before it makes a new connection.
const DRAINED: Duration = Duration::from_secs(180);
/// An nsqd that is started serves by then.
const STARTED: Duration = Duration::from_secs(20);
/// Two looks of the watcher are so far apart.
const WATCH: Duration = Duration::from_millis(20);

impl Plan {
    /// Draws a plan; nothing in it fails yet.
    pub fn draw(random: &mut Random) -> Self {
        let channels = |random: &mut Random| (0..1 + random.below(3)).map(|number| format!("c{number}")).collect();
        let topics = (0..1 + random.below(2)).map(|number| (format!("t{number}"), channels(random))).collect();
        Self {
            topics,
            producers: 1 + random.below(2) as usize,
            consumers: 1 + random.below(3) as usize,
            producer: ProducerPlan {
                topic: String::new(),
                messages: 60 + random.below(120) as usize,
                filler: 600,
                pause: Duration::from_millis(1 + random.below(200)),
                batch_one_in: random.below(8),
                defer_one_in: random.below(8),
                defer: Duration::from_secs(3),
            },
            consumer: ConsumerPlan {
                topic: String::new(),
                channel: String::new(),
                rdy: 1 + random.below(30) as u32,
                msg_timeout: Duration::from_millis(1000 + random.below(3000)),
                work: Duration::from_millis(random.below(300)),
                requeue: random.below(15),
                delay: Duration::from_secs(2),
                forget: random.below(10),
                touch: random.below(20),
                die_one_in: 0,
                stall_one_in: 0,
                heartbeat: Duration::from_millis(1000 + random.below(20_000)),
            },
            keeping: Keeping::draw(random),
        }
    }

    /// The longest that a channel's only consumer, with a RDY of 1, works on all that is published to a topic.
    fn work(&self) -> Duration {
        let messages = self.producers * self.producer.messages;
        (self.consumer.work + 2 * LATENCY) * messages as u32
    }
}

impl World {
    /// Draws a world, lets `adapt` change the plan, and sets everything going.
    pub async fn start(sim: Sim, adapt: impl FnOnce(&mut Plan, &mut Random)) -> Self {
        let mut random = Random::new(sim.seed());
        let mut plan = Plan::draw(&mut random);
        adapt(&mut plan, &mut random);
        sim.options(&plan);
        sim.require(&["accepted", "deliveries", "redeliveries", "requeues", "net_short_reads"]);
        sim.net().configure(|config| config.link.latency = Duration::from_micros(100)..=LATENCY);
        let cluster = Cluster::new(&sim);
        let nsqd = cluster.nsqd("nsqd", plan.keeping.config());
        let mut world = Self { sim, cluster, nsqd, clients: Vec::new(), random, plan, signals: Signals::default() };
        world.populate().await;
        world.sim.net().spawn(world.clients[0], watch(world.cluster.clone(), world.nsqd.clone()));
        world
    }

    async fn populate(&mut self) {
        let Self { sim, cluster, nsqd, plan, signals, .. } = &*self;
        let mut clients = Vec::new();
        for (topic, channels) in &plan.topics {
            let names: Vec<&str> = channels.iter().map(String::as_str).collect();
            cluster.create(nsqd, topic, &names).await;
            for number in 0..plan.producers {
                let node = cluster.client(&format!("producer-{topic}-{number}"));
                let plan = ProducerPlan { topic: topic.clone(), ..plan.producer.clone() };
                produce(cluster, sim, node, nsqd, clients.len(), plan, signals);
                clients.push(node);
            }
        }
        for (topic, channels) in &plan.topics {
            for (channel, number) in
                channels.iter().flat_map(|name| (0..plan.consumers).map(move |number| (name, number)))
            {
                let node = cluster.client(&format!("consumer-{topic}-{channel}-{number}"));
                let (topic, channel) = (topic.clone(), channel.clone());
                let plan = ConsumerPlan { topic, channel, ..plan.consumer.clone() };
                consume(cluster, sim, node, nsqd, clients.len(), plan, signals);
                clients.push(node);
            }
        }
        self.clients = clients;
    }

    /// Whether a producer is still at work.
    pub fn producing(&self) -> bool {
        self.signals.producing()
    }

    /// The bytes of all messages that were sent.
    pub fn published(&self) -> u64 {
        self.cluster.ledger.open().published.keys().map(|body| body.len() as u64).sum()
    }

    /// A time drawn from the seed.
    pub fn up_to(&mut self, most: Duration) -> Duration {
        Duration::from_nanos(self.random.below(most.as_nanos() as u64))
    }

    /// One of the clients' machines.
    pub fn any_client(&mut self) -> NodeId {
        self.clients[self.random.below(self.clients.len() as u64) as usize]
    }

    /// One of the topics, and its channels.
    pub fn any_topic(&mut self) -> (String, Vec<String>) {
        let at = self.random.below(self.plan.topics.len() as u64) as usize;
        self.plan.topics[at].clone()
    }

    /// Starts nsqd again and waits until it serves.
    ///
    /// # Panics
    /// If it does not.
    pub async fn restart(&self) {
        self.cluster.restart(&self.nsqd);
        within(STARTED, || self.nsqd.broker().is_none().then(|| "nsqd does not start".into())).await;
        self.sim.count("messages_found", self.nsqd.queued().values().sum());
    }

    /// Heals everything, waits until all is delivered and no file of messages is left, and holds the ledger against the
    /// promises.
    pub async fn finish(&self) {
        self.drain().await;
        within(DRAINED, || self.nsqd.left_on_disk()).await;
        let entries = self.cluster.ledger.open();
        checks::nothing_invented(&entries);
        checks::at_least_once(&entries);
        checks::attempts_differ(&entries);
    }

    /// Heals everything and waits until all is delivered.
    pub async fn drain(&self) {
        self.sim.note("heal");
        self.sim.net().heal_all();
        self.nsqd.disk.configure(|faults| *faults = Faults::default());
        within(4 * DRAINED, || self.producing().then(|| "the producers do not come to an end".into())).await;
        self.sim.note("calm");
        self.signals.calm_down();
        within(DRAINED + self.plan.work(), || self.nsqd.undrained()).await;
        // What was drained at the server may still be on its way to the ledger.
        sleep(Duration::from_secs(2)).await;
    }

    /// What only holds where no packet is late.
    pub fn check_timing(&self) {
        let entries = self.cluster.ledger.open();
        // The clock of a flight starts when it enters the outbox, some time before it comes.
        checks::credit_is_kept(&entries, |_| self.plan.consumer.rdy, self.plan.consumer.msg_timeout / 2);
        checks::never_early(&entries, self.plan.consumer.msg_timeout, 2 * LATENCY);
        checks::pauses_are_kept(&entries, 2 * LATENCY);
        lives::delays_are_kept(&entries, self.plan.consumer.msg_timeout, 2 * LATENCY);
    }

    /// What only holds where no operation of the disk has failed, and no packet is late.
    pub fn check_lives(&self) {
        let entries = self.cluster.ledger.open();
        self.sim.count("attempts_gone_on", lives::attempts_go_on(&entries));
        let kept = lives::delays_are_kept(&entries, self.plan.consumer.msg_timeout, 2 * LATENCY);
        self.sim.count("delays_kept", kept);
    }
}

/// Looks until nothing is amiss.
async fn within(bound: Duration, amiss: impl Fn() -> Option<String>) {
    let started = Instant::now();
    while let Some(what) = amiss() {
        assert!(started.elapsed() < bound, "after {bound:?}: {what}");
        sleep(Duration::from_millis(100)).await;
    }
}

/// Looks at every topic again and again: all invariants hold, no timer is forgotten, and now and then: a crash would
/// not take more than it may.
async fn watch(cluster: Cluster, nsqd: Nsqd) {
    let mut risk = Risk::default();
    for look in 0u64.. {
        nsqd.check();
        if look.is_multiple_of(10) {
            risk.look(&cluster, &nsqd);
        }
        sleep(WATCH).await;
    }
}
