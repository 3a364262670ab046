//! A whole NSQ drawn from a seed: datacenters with nsqlookupds and nsqds, producers and consumers, and what the
//! scenarios of the cluster happen to.
//!
//! Two phases. First faults, which the scenario brings, and safety: watchers check every invariant all the time. Then
//! healing and liveness ([`Topology::finish`]): everyone finds everyone within the bounds of [`checks::discovery`], all
//! is delivered, and the ledger is held against the promises.

mod plan;
mod watch;

use crate::checks::{self, discovery};
use crate::cluster::{Cluster, Datacenter, Lookupd, Machine, Nsqd, NsqdConfig, OVERFLOWS};
use crate::fleet::{Consumer, Consuming, Producer, Producing, Signals};
use crate::ledger::Outcome;
use crate::runner::Sim;
use madsim::time::{Instant, sleep};
use nsq_core::random::Random;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

pub use plan::Plan;

/// See the module's documentation.
pub struct Topology {
    /// The run.
    pub sim: Sim,
    /// What all machines share.
    pub cluster: Cluster,
    /// For the scenario's own draws.
    pub random: Random,
    /// What was drawn.
    pub plan: Plan,
    /// All.
    pub datacenters: Vec<Datacenter>,
    /// All.
    pub lookupds: Vec<Lookupd>,
    /// Those that have not left.
    pub nsqds: Vec<Nsqd>,
    /// Those that have not left.
    pub producers: Vec<Producer>,
    /// Those that have not left.
    pub consumers: Vec<Consumer>,
    signals: Signals,
    /// Those that have left, too.
    all_nsqds: Arc<Mutex<Vec<Nsqd>>>,
    /// Machines so far, to name and number them.
    built: usize,
}

/// Two looks at something that is to come about.
const LOOK: Duration = Duration::from_millis(100);
/// A publish has been answered by then.
const ANSWERED: Duration = Duration::from_secs(180);
/// While there is something to deliver, something more is finished within that time: longer than any timeout or pause.
/// How long all of it takes depends on how little a consumer wants at a time.
const MOVING: Duration = Duration::from_secs(120);
/// When nothing is queued any more, files of messages have gone by then.
const CLEANED: Duration = Duration::from_secs(20);
/// A frame may come in several packets and reads.
const FRAME: Duration = Duration::from_millis(10);
/// Publishes go on for so long when everyone has found everyone.
const AFTERGLOW: Duration = Duration::from_secs(3);

impl Topology {
    /// Draws a topology, lets `adapt` change the plan, and sets everything going.
    pub async fn start(sim: Sim, adapt: impl FnOnce(&mut Plan, &mut Random)) -> Self {
        let mut random = Random::new(sim.seed());
        let mut plan = Plan::draw(&mut random);
        adapt(&mut plan, &mut random);
        sim.options(&plan);
        sim.require(&[
            "accepted",
            "deliveries",
            "redeliveries",
            "requeues",
            "net_short_reads",
            "discoveries",
            "backoffs",
            "backoffs_ended",
        ]);
        sim.require(&OVERFLOWS);
        let cluster = Cluster::new(&sim);
        cluster.distance(plan.outside.clone());
        let datacenter = |number| cluster.datacenter(&format!("dc{number}"), plan.inside.clone());
        let datacenters: Vec<_> = (0..plan.datacenters).map(datacenter).collect();
        let mut all = Self {
            sim,
            cluster,
            random,
            plan,
            datacenters,
            lookupds: Vec::new(),
            nsqds: Vec::new(),
            producers: Vec::new(),
            consumers: Vec::new(),
            signals: Signals::default(),
            all_nsqds: Arc::default(),
            built: 0,
        };
        all.populate().await;
        all
    }

    async fn populate(&mut self) {
        for at in 0..self.plan.datacenters * self.plan.lookupds {
            let lookupd = self.cluster.lookupd(&format!("lookupd-{at}"), self.plan.lookup.clone());
            self.place(&lookupd.machine, at);
            self.lookupds.push(lookupd);
        }
        for at in 0..self.plan.datacenters * self.plan.nsqds {
            self.add_nsqd(at);
        }
        let topics = self.plan.topics.clone();
        // Everyone has come up and been registered.
        sleep(Duration::from_secs(2)).await;
        if self.plan.created_first {
            for nsqd in &self.nsqds {
                for (topic, channels) in &topics {
                    let names: Vec<&str> = channels.iter().map(String::as_str).collect();
                    self.cluster.create(nsqd, topic, &names).await;
                }
            }
        }
        for (topic, channels) in &topics {
            for number in 0..self.plan.consumers {
                channels.iter().for_each(|channel| drop(self.add_consumer(topic, channel, number)));
            }
            for at in 0..self.plan.datacenters * self.plan.producers {
                let here = &self.datacenters[at % self.datacenters.len()];
                let nsqds: Vec<_> = self.nsqds.iter().filter(|nsqd| here.has(&nsqd.machine)).cloned().collect();
                self.add_producer(topic, at, &nsqds);
            }
        }
    }

    /// A new nsqd in one of the datacenters, counted round.
    pub fn add_nsqd(&mut self, datacenter: usize) -> Nsqd {
        self.built += 1;
        let lookupds = self.lookupds.iter().map(Lookupd::address).collect();
        let config = NsqdConfig { lookupds, ..self.plan.keeping.config() };
        let nsqd = self.cluster.nsqd(&format!("nsqd-{}", self.built), config);
        self.place(&nsqd.machine, datacenter);
        self.nsqds.push(nsqd.clone());
        self.all_nsqds.lock().unwrap_or_else(PoisonError::into_inner).push(nsqd.clone());
        watch::watch(self, &nsqd);
        nsqd
    }

    /// A new consumer in one of the datacenters, counted round.
    pub fn add_consumer(&mut self, topic: &str, channel: &str, datacenter: usize) -> Consumer {
        self.built += 1;
        let plan = Consuming { topic: topic.to_owned(), channel: channel.to_owned(), ..self.plan.consumer.clone() };
        let consumer = self.cluster.consumer(self.built, &self.lookupds, plan, &self.signals);
        self.place(&consumer.machine, datacenter);
        if self.plan.clients_are_well {
            watch::watch_credit(self, &consumer);
        }
        self.consumers.push(consumer.clone());
        consumer
    }

    /// A new producer in one of the datacenters, counted round, for those nsqds.
    pub fn add_producer(&mut self, topic: &str, datacenter: usize, nsqds: &[Nsqd]) {
        self.built += 1;
        let plan = Producing { topic: topic.to_owned(), ..self.plan.producer.clone() };
        let producer = self.cluster.producer(self.built, nsqds, plan, &self.signals);
        self.place(&producer.machine, datacenter);
        self.producers.push(producer);
    }

    fn place(&self, machine: &Machine, datacenter: usize) {
        self.datacenters[datacenter % self.datacenters.len()].add(machine);
    }

    /// A duration drawn from the seed.
    pub fn up_to(&mut self, most: Duration) -> Duration {
        Duration::from_nanos(self.random.below(most.as_nanos() as u64))
    }

    /// Waits for a time drawn from the seed.
    pub async fn wait_up_to(&mut self, most: Duration) {
        sleep(self.up_to(most)).await;
    }

    /// True one time in `count`.
    pub fn one_in(&mut self, count: u64) -> bool {
        self.random.below(count) == 0
    }

    /// One of so many.
    pub fn any(&mut self, count: usize) -> usize {
        self.random.below(count as u64) as usize
    }

    /// One of the nsqds that have not left.
    pub fn any_nsqd(&mut self) -> Nsqd {
        let at = self.any(self.nsqds.len());
        self.nsqds[at].clone()
    }

    /// One of the nsqlookupds.
    pub fn any_lookupd(&mut self) -> Lookupd {
        let at = self.any(self.lookupds.len());
        self.lookupds[at].clone()
    }

    /// A server or a client.
    pub fn any_machine(&mut self) -> Machine {
        let machines = self.machines();
        machines[self.any(machines.len())].clone()
    }

    fn machines(&self) -> Vec<Machine> {
        let servers = self.nsqds.iter().map(|nsqd| &nsqd.machine);
        let lookupds = self.lookupds.iter().map(|lookupd| &lookupd.machine);
        let producers = self.producers.iter().map(|producer| &producer.machine);
        let consumers = self.consumers.iter().map(|consumer| &consumer.machine);
        servers.chain(lookupds).chain(producers).chain(consumers).cloned().collect()
    }

    /// How many messages have been delivered so far.
    pub fn deliveries(&self) -> usize {
        self.cluster.ledger.open().deliveries.len()
    }

    /// How many of the deliveries after so many had nothing to do with the datacenter: neither nsqd nor consumer is
    /// there.
    pub fn deliveries_outside(&self, datacenter: &Datacenter, before: usize) -> u64 {
        let machines = self.machines();
        let inside: BTreeSet<&str> =
            machines.iter().filter(|machine| datacenter.has(machine)).map(|machine| &*machine.name).collect();
        let consumers = self.consumers.iter().filter(|consumer| inside.contains(&*consumer.machine.name));
        let consumers: BTreeSet<usize> = consumers.map(|consumer| consumer.number).collect();
        let entries = self.cluster.ledger.open();
        let outside = entries.deliveries[before..]
            .iter()
            .filter(|delivery| !inside.contains(&*delivery.node.0) && !consumers.contains(&delivery.consumer.0));
        outside.count() as u64
    }

    /// Whether the nsqd has accepted something from the producer that has it alone.
    pub fn has_accepted(&self, nsqd: &Nsqd, topic: &str) -> bool {
        let entries = self.cluster.ledger.open();
        entries.published.values().any(|publish| {
            let here = publish.topic == topic && publish.to == [nsqd.machine.name.clone()];
            here && publish.outcome == Outcome::Accepted
        })
    }

    /// The nsqd is about to hear of the topic for the first time, and an nsqlookupd that it can ask knows channels of
    /// it: from now on they are owed what the nsqd accepts.
    pub fn expect_precreation(&self, nsqd: &Nsqd, topic: &str) {
        let is_new = nsqd.directory().is_some_and(|directory| !directory.contains(&(topic.to_owned(), None)));
        let able = self.lookupds.iter().filter(|lookupd| lookupd.machine.has_run(Duration::from_secs(1)));
        let channels: BTreeSet<_> = able.flat_map(|lookupd| lookupd.channels(topic)).collect();
        if !is_new {
            return;
        }
        for channel in &channels {
            self.cluster.ledger.open().channel_exists(&nsqd.machine.name, topic, channel, false);
            self.sim.count("precreations", 1);
        }
    }

    /// From now on, up to two packets in a hundred are lost between the machines that there are.
    pub fn lose_packets(&mut self) {
        let loss = self.random.below(3) as f64 / 100.0;
        self.sim.net().all_links().loss(loss);
    }

    /// Cuts the power of a whole datacenter.
    pub fn lose(&self, datacenter: &Datacenter) {
        self.sim.count("datacenters_lost", 1);
        self.nsqds.iter().filter(|nsqd| datacenter.has(&nsqd.machine)).for_each(|nsqd| self.cluster.crash(nsqd, true));
        self.lookupds.iter().filter(|lookupd| datacenter.has(&lookupd.machine)).for_each(|lookupd| lookupd.crash(true));
        let clients = self.machines().into_iter().filter(|machine| datacenter.has(machine) && machine.is_up());
        clients.for_each(|machine| machine.power_off());
    }

    /// Its lines work again, and its machines are started again.
    pub fn bring_back(&self, datacenter: &Datacenter) {
        datacenter.heal();
        let dead = self.machines().into_iter().filter(|machine| datacenter.has(machine) && !machine.is_up());
        dead.for_each(|machine| machine.restart());
    }

    /// Heals everything, demands that everyone finds everyone and that all is delivered, each within its bound, and
    /// holds the ledger against the promises. Machines are to be up again before.
    pub async fn finish(&self) {
        self.sim.note("heal");
        self.sim.net().heal_all();
        self.sim.net().all_links().loss(0.0);
        let healed = Instant::now();
        self.within(discovery::registration_bound(&self.plan), || discovery::unregistered(self)).await;
        self.within(discovery::connection_bound(&self.plan), || discovery::unconnected(self)).await;
        self.sim.count("convergences", 1);
        sleep(AFTERGLOW).await;
        self.sim.note("enough");
        self.signals.enough();
        self.within(ANSWERED, || self.signals.producing().then(|| "a publish without an answer".into())).await;
        self.sim.note("calm");
        self.signals.calm_down();
        self.drain().await;
        self.within(CLEANED, || self.nsqds.iter().find_map(Nsqd::left_on_disk)).await;
        // What was drained at the servers may still be on its way to the ledger.
        sleep(Duration::from_secs(2)).await;
        self.stays_so(healed).await;
        let entries = self.cluster.ledger.open();
        checks::nothing_invented(&entries);
        checks::at_least_once(&entries);
        checks::attempts_differ(&entries);
        let Consuming { max_in_flight, msg_timeout, .. } = self.plan.consumer;
        checks::credit_is_kept(&entries, |_| max_in_flight, msg_timeout);
    }

    /// What was good at once may have been the memory of connections whose end was not noticed yet: still good when
    /// everything that was begun before all was healed has come to its end.
    async fn stays_so(&self, healed: Instant) {
        let noticed = discovery::registration_bound(&self.plan) + discovery::connection_bound(&self.plan);
        sleep((noticed + self.plan.lookup.inactive_producer_timeout).saturating_sub(healed.elapsed())).await;
        assert_eq!(discovery::unregistered(self), None, "it was good before");
        assert_eq!(discovery::unconnected(self), None, "it was good before");
    }

    /// What only holds where no packet is late and no connection was lost.
    pub fn check_timing(&self) {
        let latency = 2 * *self.plan.inside.end() + FRAME;
        let (entries, msg_timeout) = (self.cluster.ledger.open(), self.plan.consumer.msg_timeout);
        checks::never_early(&entries, msg_timeout, latency);
        checks::touches_are_kept(&entries, msg_timeout, latency);
    }

    /// Looks until nothing is amiss.
    ///
    /// # Panics
    /// If the time is up.
    pub async fn within(&self, bound: Duration, amiss: impl Fn() -> Option<String>) {
        let started = Instant::now();
        while let Some(what) = amiss() {
            assert!(started.elapsed() < bound, "after {bound:?}: {what}");
            sleep(LOOK).await;
        }
    }

    /// Looks until nothing is left. What comes again and again is no progress.
    async fn drain(&self) {
        let finished = || checks::finished(&self.cluster.ledger.open()).values().map(BTreeSet::len).sum::<usize>();
        let (mut count, mut since) = (finished(), Instant::now());
        while let Some(what) = self.nsqds.iter().find_map(Nsqd::undrained) {
            if since.elapsed() > MOVING {
                let before = std::mem::replace(&mut count, finished());
                assert!(count > before, "nothing more has been finished for {MOVING:?}: {what}");
                since = Instant::now();
            }
            sleep(LOOK).await;
        }
    }
}
