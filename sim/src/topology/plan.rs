//! What a topology is like, drawn from the seed.

use crate::cluster::Keeping;
use crate::fleet::{Consuming, Producing};
use nsq_core::lookupd;
use nsq_core::random::Random;
use std::ops::RangeInclusive;
use std::time::Duration;

/// See the module's documentation. A scenario may change it before anything is built.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How many.
    pub datacenters: usize,
    /// In each datacenter; each nsqd registers with all of them.
    pub lookupds: usize,
    /// In each datacenter.
    pub nsqds: usize,
    /// Topics, each with its channels.
    pub topics: Vec<(String, Vec<String>)>,
    /// For each topic in each datacenter, publishing to its nsqds.
    pub producers: usize,
    /// For each channel, spread over the datacenters.
    pub consumers: usize,
    /// Topics and channels are created by an operator, on each nsqd; otherwise they come with their clients.
    pub created_first: bool,
    /// A template for producers.
    pub producer: Producing,
    /// A template for consumers.
    pub consumer: Consuming,
    /// Of all nsqlookupds.
    pub lookup: lookupd::Options,
    /// How long packets take within a datacenter.
    pub inside: RangeInclusive<Duration>,
    /// How long packets take between datacenters.
    pub outside: RangeInclusive<Duration>,
    /// No client's connection is lost without a word, so that what nsqds have given to consumers is watched, too.
    pub clients_are_well: bool,
    /// How nsqds keep messages.
    pub keeping: Keeping,
}

impl Plan {
    /// Draws a plan; nothing in it fails yet.
    pub fn draw(random: &mut Random) -> Self {
        let channels = |random: &mut Random| (0..1 + random.below(2)).map(|number| format!("c{number}")).collect();
        let topics = (0..1 + random.below(2)).map(|number| (format!("t{number}"), channels(random))).collect();
        let millis = Duration::from_millis;
        Self {
            datacenters: 1,
            lookupds: 1 + random.below(3) as usize,
            nsqds: 2 + random.below(2) as usize,
            topics,
            producers: 1 + random.below(2) as usize,
            consumers: 1 + random.below(2) as usize,
            created_first: random.below(2) == 0,
            producer: Producing {
                topic: String::new(),
                pause: millis(200 + random.below(800)),
                retry: random.below(2) == 0,
                batch_one_in: random.below(8),
                defer_one_in: random.below(8),
            },
            consumer: Consuming {
                topic: String::new(),
                channel: String::new(),
                max_in_flight: 1 + random.below(8) as u32,
                poll: millis(3000 + random.below(3000)),
                reconnect: millis(2000 + random.below(8000)),
                msg_timeout: millis(4000 + random.below(4000)),
                heartbeat: millis(2000 + random.below(8000)),
                backoff: millis([0, 1000, 4000, 8000][random.below(4) as usize]),
                work: millis(random.below(300)),
                requeue: random.below(6),
                forget: random.below(4),
                touch: random.below(20),
            },
            lookup: lookupd::Options {
                inactive_producer_timeout: millis(30_000),
                tombstone_lifetime: millis(5000 + random.below(20_000)),
            },
            inside: millis(0)..=millis(1 + random.below(4)),
            outside: millis(10)..=millis(15 + random.below(45)),
            clients_are_well: false,
            keeping: Keeping::draw(random),
        }
    }
}
