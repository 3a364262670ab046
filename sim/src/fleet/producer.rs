//! A producer: publishes to the nsqds it was told until there is enough, one thing at a time.

use super::Signals;
use crate::cluster::{Cluster, Machine, Nsqd};
use crate::ledger::{Outcome, Publish};
use crate::runner::Sim;
use bytes::Bytes;
use madsim::time::{Instant, sleep};
use nsq_core::random::Random;
use nsq_net_sim::client::{Producer as Client, PublishError};
use std::time::Duration;

/// A producer's machine.
#[derive(Clone)]
pub struct Producer {
    /// Its power and its process.
    pub machine: Machine,
}

/// What a producer is to do.
#[derive(Clone, Debug)]
pub struct Producing {
    /// Where to.
    pub topic: String,
    /// The longest pause between two publishes.
    pub pause: Duration,
    /// What may have been taken is sent again, and may come twice.
    pub retry: bool,
    /// One in so many publishes is an MPUB; 0 is none.
    pub batch_one_in: u64,
    /// One in so many is deferred; 0 is none.
    pub defer_one_in: u64,
}

const BODY_FILLER: u64 = 200;
/// After a publish that failed.
const BREATH: Duration = Duration::from_millis(250);

impl Cluster {
    /// A new machine with a producer. Its number is its own in this run.
    pub fn producer(&self, number: usize, nsqds: &[Nsqd], plan: Producing, signals: &Signals) -> Producer {
        let name = format!("producer-{number}-{}", plan.topic);
        let process = Process {
            cluster: self.clone(),
            sim: self.sim().clone(),
            signals: signals.clone(),
            number,
            addresses: nsqds.iter().map(Nsqd::address).collect(),
            to: nsqds.iter().map(|nsqd| nsqd.machine.name.clone()).collect(),
            plan,
        };
        Producer { machine: self.machine(&name, move |life| process.clone().run(life)) }
    }
}

#[derive(Clone)]
struct Process {
    cluster: Cluster,
    sim: Sim,
    signals: Signals,
    number: usize,
    addresses: Vec<String>,
    to: Vec<String>,
    plan: Producing,
}

impl Process {
    async fn run(self, life: u64) {
        let seed = self.sim.seed().wrapping_mul(31).wrapping_add(self.number as u64).wrapping_add(life << 32);
        let mut random = Random::new(seed);
        let mut builder = Client::builder().seed(seed).retry(self.plan.retry);
        for address in &self.addresses {
            builder = builder.nsqd(address);
        }
        let client = builder.build().expect("the plan makes sense");
        let mut sent = 0;
        while !self.signals.is_enough() {
            let batch = self.plan.batch_one_in > 0 && random.below(self.plan.batch_one_in) == 0;
            let count = if batch { 2 + random.below(8) } else { 1 };
            let bodies: Vec<Bytes> = (0..count).map(|at| self.body(life, sent + at, &mut random)).collect();
            sent += count;
            let deferred = count == 1 && self.plan.defer_one_in > 0 && random.below(self.plan.defer_one_in) == 0;
            let delay = deferred.then(|| Duration::from_millis(1 + random.below(3000)));
            if !self.publish(&client, bodies, delay).await {
                sleep(BREATH).await;
            }
            sleep(Duration::from_nanos(random.below(self.plan.pause.as_nanos() as u64 + 1))).await;
        }
    }

    /// One PUB, DPUB or MPUB, and what came of it; whether it was accepted.
    async fn publish(&self, client: &Client, bodies: Vec<Bytes>, delay: Option<Duration>) -> bool {
        let _publishing = self.signals.publishing();
        let sent = Instant::now();
        let publish = Publish {
            topic: self.plan.topic.clone(),
            to: self.to.clone(),
            sent,
            not_before: delay.map(|delay| sent + delay),
            outcome: Outcome::Unknown,
            answered: None,
        };
        let all = bodies.iter().map(|body| (body.clone(), publish.clone()));
        self.cluster.ledger.open().published.extend(all);
        let topic = &*self.plan.topic;
        let answer = match (&bodies[..], delay) {
            ([body], None) => client.publish(topic, body.clone()).await,
            ([body], Some(delay)) => client.publish_deferred(topic, delay, body.clone()).await,
            (bodies, _) => client.publish_many(topic, bodies.to_vec()).await,
        };
        let (outcome, event) = match &answer {
            Ok(()) => (Outcome::Accepted, "accepted"),
            Err(PublishError::Unsent(_)) => (Outcome::Refused, "unsent"),
            Err(PublishError::Refused(_)) if bodies.len() == 1 => (Outcome::Refused, "refused"),
            Err(_) => (Outcome::Unknown, "unknown"),
        };
        self.sim.count(event, bodies.len() as u64);
        for body in &bodies {
            self.cluster.ledger.open().answer(body, outcome);
        }
        answer.is_ok()
    }

    /// A body that was never used, says where it belongs, and shows if a byte of it was changed.
    fn body(&self, life: u64, number: u64, random: &mut Random) -> Bytes {
        let mut body = format!("{}/{}.{life}/{number}/", self.plan.topic, self.number);
        let filler = random.below(BODY_FILLER);
        body.extend((0..filler).map(|_| char::from(b'a' + random.below(26) as u8)));
        Bytes::from(body)
    }
}
