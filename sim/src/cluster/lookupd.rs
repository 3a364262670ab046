//! A machine with an nsqlookupd, and what it tells of whom.

use super::machine::SkewedClock;
use super::{Cluster, Directory, Machine, Slot, lock};
use nsq_core::lookupd::{Identity, Options, Registration, Wanted};
use nsq_net_sim::listen::Listeners;
use nsq_net_sim::lookupd::{Config, Server};
use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::sync::Arc;

/// See the module's documentation. Clones are the same machine.
#[derive(Clone)]
pub struct Lookupd {
    /// Its power and its process.
    pub machine: Machine,
    server: Slot<Server>,
}

const TCP_PORT: u16 = 4160;
const HTTP_PORT: u16 = 4161;

impl Cluster {
    /// A new machine with an nsqlookupd.
    pub fn lookupd(&self, name: &str, options: Options) -> Lookupd {
        let (server, clock) = (Slot::default(), SkewedClock::default());
        let start = {
            let (server, clock, name) = (Arc::clone(&server), clock.clone(), name.to_owned());
            move || serve(name.clone(), Arc::clone(&server), options.clone(), clock.clone())
        };
        let node = self.sim.net().node(name).run(start);
        Lookupd { machine: Machine::new(&self.sim, name, node, clock), server }
    }
}

impl Lookupd {
    /// Where nsqds register.
    pub fn address(&self) -> String {
        format!("{}:{TCP_PORT}", self.machine.name)
    }

    /// Where consumers and operators ask.
    pub fn http_address(&self) -> String {
        format!("{}:{HTTP_PORT}", self.machine.name)
    }

    /// Kills the process, or cuts the power.
    pub fn crash(&self, power_off: bool) {
        *lock(&self.server) = None;
        if power_off {
            self.machine.power_off();
        } else {
            self.machine.kill();
        }
    }

    /// The names of active nsqds, each with all that it has registered; `None` while it is dead.
    pub fn registered(&self) -> Option<BTreeMap<String, Directory>> {
        let server = lock(&self.server).clone()?;
        let mut registered: BTreeMap<String, Directory> = BTreeMap::new();
        server.inspect(|now, registry| {
            registry.check();
            for node in registry.nodes(now) {
                let topics = node.topics.iter().map(|(topic, _)| (topic.to_string(), None));
                registered.entry(node.producer.broadcast_address.clone()).or_default().extend(topics);
            }
            // Who has a channel is told by no query but this one, which also tells of those that have been silent too
            // long.
            let timeout = registry.options().inactive_producer_timeout;
            for (registration, entries) in registry.entries() {
                let Registration::Channel(topic, channel) = registration else { continue };
                for entry in entries.iter().filter(|entry| now.instant.since(entry.last_update.instant) <= timeout) {
                    let directory = registered.entry(entry.producer.broadcast_address.clone()).or_default();
                    directory.insert((topic.to_string(), Some(channel.to_string())));
                }
            }
        });
        Some(registered)
    }

    /// The channels that it knows of a topic, on whatever nsqd.
    pub fn channels(&self, topic: &str) -> BTreeSet<String> {
        let Some(server) = lock(&self.server).clone() else { return BTreeSet::new() };
        server.inspect(|_, registry| {
            registry.channels(&Wanted::new(topic.as_bytes())).into_iter().map(ToString::to_string).collect()
        })
    }

    /// The nsqds that it sends consumers of a topic to.
    pub fn shown(&self, topic: &str) -> BTreeSet<String> {
        let Some(server) = lock(&self.server).clone() else { return BTreeSet::new() };
        server.inspect(|now, registry| {
            let found = registry.lookup(now, &Wanted::new(topic.as_bytes()));
            let producers = found.into_iter().flat_map(|found| found.producers);
            producers.map(|producer| producer.broadcast_address.clone()).collect()
        })
    }
}

async fn serve(name: String, slot: Slot<Server>, options: Options, clock: SkewedClock) {
    let identity = Identity {
        broadcast_address: name.clone(),
        hostname: name,
        http_port: HTTP_PORT,
        tcp_port: TCP_PORT,
        version: "1.3.0".into(),
    };
    let (tcp, http) = (format!("0.0.0.0:{TCP_PORT}"), format!("0.0.0.0:{HTTP_PORT}"));
    let listeners = Listeners::bind(&tcp, &http).await.expect("the machine is its own");
    let server = Arc::new(Server::start(listeners, Config { options, identity }, clock.wall()));
    *lock(&slot) = Some(Arc::clone(&server));
    pending::<()>().await;
    drop(server);
}
