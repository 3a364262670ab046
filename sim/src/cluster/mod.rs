//! A cluster in the simulator: nsqds and nsqlookupds on machines of their own, grouped into datacenters.
//!
//! What runs on a machine is net's own server. From outside, a scenario may look into it, stop it, kill it, cut its power,
//! let it stand still, and ask it over HTTP; when an nsqd dies, the ledger is told what was in its memory only, and
//! nothing else is excused.

mod datacenter;
mod lookupd;
mod machine;
mod nsqd;
mod operator;

use self::machine::SkewedClock;
use crate::ledger::Ledger;
use crate::runner::Sim;
use bytes::Bytes;
use madsim::task::NodeId;
use madsim::time::Instant;
use nsq_core::message::PAYLOAD_HEADER;
use nsq_net_sim::broker::Broker;
use nsq_sim_rt::sim::Net;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use datacenter::Datacenter;
pub use lookupd::Lookupd;
pub use machine::Machine;
pub use nsqd::{Nsqd, NsqdConfig};

/// The cluster of one run.
#[derive(Clone)]
pub struct Cluster {
    sim: Sim,
    /// Where operators sit.
    desk: NodeId,
    /// What clients saw.
    pub ledger: Ledger,
}

/// The topics and channels of an nsqd, a topic as one without a channel.
pub type Directory = BTreeSet<(String, Option<String>)>;

/// `nsqd.dat` is written behind the answers, and has been by then.
const SAVED: Duration = Duration::from_secs(1);

impl Cluster {
    /// A cluster without machines, but for the operators' desk.
    pub fn new(sim: &Sim) -> Self {
        Self { sim: sim.clone(), desk: sim.net().node("desk").idle(), ledger: Ledger::default() }
    }

    /// The run it is part of.
    pub const fn sim(&self) -> &Sim {
        &self.sim
    }

    /// A new machine with a process that runs `main` at the start and at each restart. `main` gets the number of its life.
    pub fn machine<F>(&self, name: &str, main: impl Fn(u64) -> F + Send + Sync + 'static) -> Machine
    where
        F: Future<Output = ()> + 'static,
    {
        let (main, net) = (Arc::new(main), self.sim.net().clone());
        let node = self.sim.net().node(name).run(move || {
            let (main, net) = (Arc::clone(&main), net.clone());
            // Only in there is it known where we are.
            async move { main(net.incarnation(Net::here())).await }
        });
        Machine::new(&self.sim, name, node, SkewedClock::default())
    }

    /// Starts a task that belongs to no machine of the cluster.
    pub fn at_desk(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.sim.net().spawn(self.desk, task);
    }

    /// A machine for clients, whose processes are started from outside.
    pub fn client(&self, name: &str) -> NodeId {
        self.sim.net().node(name).idle()
    }

    /// Kills the process, or cuts the power, after writing down what it held in memory.
    pub fn crash(&self, nsqd: &Nsqd, power_off: bool) {
        if let Some(broker) = nsqd.broker() {
            let lost = excuse(&self.ledger, &nsqd.machine.name, &broker);
            self.sim.count("messages_lost_with_memory", lost);
        }
        nsqd.gone();
        if power_off {
            nsqd.machine.power_off();
            nsqd.disk.power_off();
        } else {
            nsqd.machine.kill();
        }
        self.forget_unsaved(nsqd);
    }

    /// Starts it again.
    pub fn restart(&self, nsqd: &Nsqd) {
        nsqd.machine.restart();
    }

    /// What it got to know a moment ago may not be in `nsqd.dat` yet.
    fn forget_unsaved(&self, nsqd: &Nsqd) {
        let saved = |since: &Instant| since.elapsed() > SAVED;
        self.ledger.open().channels.retain(|(name, ..), since| *name != nsqd.machine.name || saved(since));
    }
}

/// Writes down what an nsqd that dies holds in memory only. Returns how many messages of channels that is.
fn excuse(ledger: &Ledger, nsqd: &str, broker: &Broker) -> u64 {
    let excused = &mut ledger.open().excused;
    let mut lost = 0;
    broker.inspect(|topic| {
        let channels: Vec<_> = topic.stats(None, false).channels.into_iter().map(|channel| channel.name).collect();
        topic.held(|channel, payload| {
            let body = Bytes::copy_from_slice(&payload[PAYLOAD_HEADER..]);
            // What was not given to channels is missing in all of them, those to come included.
            let names = channel.map_or_else(|| channels.iter().collect(), |channel| vec![channel]);
            let all = names.into_iter().map(|name| name.to_string());
            for channel in all.chain(channel.is_none().then(String::new)) {
                let key = (nsqd.to_owned(), topic.name().to_string(), channel);
                excused.entry(key).or_default().insert(body.clone());
            }
            lost += 1;
        });
    });
    lost
}

/// A server that is alive, as the scenario may see it.
type Slot<T> = Arc<Mutex<Option<Arc<T>>>>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
