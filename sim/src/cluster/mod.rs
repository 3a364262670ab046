//! A cluster in the simulator: nsqds and nsqlookupds on machines of their own, grouped into datacenters.
//!
//! What runs on a machine is net's own server. From outside, a scenario may look into it, stop it, kill it, cut its
//! power, let it stand still, and ask it over HTTP; when an nsqd dies, the ledger is told what was in its memory only,
//! and nothing else is excused.

mod datacenter;
mod found;
mod keeping;
mod lookupd;
mod machine;
mod nsqd;
mod operator;
mod risk;

use self::machine::SkewedClock;
use self::risk::{Message, at_risk};
use crate::ledger::{Death, Known, Ledger};
use crate::runner::Sim;
use madsim::task::NodeId;
use madsim::time::Instant;
use nsq_sim_rt::sim::Net;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use datacenter::Datacenter;
pub use found::Found;
pub use keeping::Keeping;
pub use lookupd::Lookupd;
pub use machine::Machine;
pub use nsqd::{Nsqd, NsqdConfig, OVERFLOWS};
pub use risk::Risk;

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

    /// A new machine with a process that runs `main` at the start and at each restart. `main` gets the number of its
    /// life.
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

    /// Kills the process, or cuts the power, after writing down what that excuses.
    pub fn crash(&self, nsqd: &Nsqd, power_off: bool) {
        // What a process has left to the page cache is safe once another has started without a failure.
        let mut unsynced = if nsqd.has_started_soundly() { Vec::new() } else { nsqd.unsynced() };
        if power_off || nsqd.disk.unsure() > 0 {
            self.excuse(nsqd, &unsynced);
        }
        if let Some(broker) = nsqd.broker() {
            let (memory_only, all) = (at_risk(&broker, false), at_risk(&broker, true));
            if nsqd.is_accountable() {
                risk::check(nsqd, &broker, &memory_only, &self.ledger.open());
            }
            let lost = if power_off { &all } else { &memory_only };
            self.sim.count(if power_off { "messages_unsynced" } else { "messages_in_memory_only" }, lost.len() as u64);
            // Where no message may stay in memory only, a kill takes none that was acknowledged.
            if power_off || nsqd.config.options.mem_queue_size > 0 || nsqd.disk.failed() > 0 {
                self.excuse(nsqd, lost);
            }
            unsynced.extend(all);
            broker.inspect(|topic| self.sim.count("crashes_in_a_carry", topic.is_carrying().into()));
        } else if nsqd.is_starting() {
            self.sim.count(if power_off { "power_offs_while_starting" } else { "kills_while_starting" }, 1);
        }
        nsqd.leave_unsynced(unsynced);
        self.bury(nsqd, false);
        nsqd.gone();
        if power_off {
            nsqd.machine.power_off();
            nsqd.disk.power_off();
        } else {
            nsqd.machine.kill();
            nsqd.disk.kill();
        }
        self.forget_unsaved(nsqd);
    }

    /// Writes down that a life has ended.
    fn bury(&self, nsqd: &Nsqd, in_order: bool) {
        let life = (nsqd.machine.name.clone(), nsqd.machine.life());
        self.ledger.open().deaths.entry(life).or_insert_with(|| Death { at: Instant::now(), in_order });
    }

    /// Nothing is excused for durable topics: nobody was told of what is lost of them, and nobody has seen it.
    fn excuse(&self, nsqd: &Nsqd, lost: &[Message]) {
        let entries = &mut *self.ledger.open();
        if !entries.durable.contains(&nsqd.machine.name) {
            for (topic, channel, body) in lost {
                let place = (nsqd.machine.name.clone(), topic.clone(), channel.clone());
                entries.excused.entry(place).or_default().insert(body.clone());
            }
        }
    }

    /// It is dead and does not come back.
    pub fn abandon(&self, nsqd: &Nsqd) {
        self.ledger.open().abandoned.insert(nsqd.machine.name.clone());
    }

    /// Starts it again.
    pub fn restart(&self, nsqd: &Nsqd) {
        nsqd.machine.restart();
    }

    /// What it got to know a moment ago may not be in `nsqd.dat` yet.
    fn forget_unsaved(&self, nsqd: &Nsqd) {
        let saved = |known: &Known| known.answered || known.since.elapsed() > SAVED;
        self.ledger.open().channels.retain(|(name, ..), known| *name != nsqd.machine.name || saved(known));
    }
}

/// A server that is alive, as the scenario may see it.
type Slot<T> = Arc<Mutex<Option<Arc<T>>>>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
