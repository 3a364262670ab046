//! A datacenter: machines that are near to one another and far from all others, and that are lost together.
//!
//! Distances are latencies: every link is long ([`Cluster::distance`]) unless both its ends are in one datacenter.

use super::{Cluster, Machine, lock};
use crate::runner::Sim;
use madsim::task::NodeId;
use nsq_sim_rt::sim::Links;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// See the module's documentation. Clones are the same datacenter.
#[derive(Clone)]
pub struct Datacenter {
    /// Its name.
    pub name: String,
    sim: Sim,
    inside: RangeInclusive<Duration>,
    nodes: Arc<Mutex<Vec<NodeId>>>,
}

impl Cluster {
    /// How long packets take between machines that share no datacenter; to be said before there are any.
    pub fn distance(&self, latency: RangeInclusive<Duration>) {
        self.sim.net().configure(|config| config.link.latency = latency);
    }

    /// A datacenter without machines, and how long packets take inside of it.
    pub fn datacenter(&self, name: &str, inside: RangeInclusive<Duration>) -> Datacenter {
        Datacenter { name: name.to_owned(), sim: self.sim.clone(), inside, nodes: Arc::default() }
    }
}

impl Datacenter {
    /// Puts a machine there.
    pub fn add(&self, machine: &Machine) {
        let mut nodes = lock(&self.nodes);
        self.sim.net().between(&[machine.node], &nodes).latency(self.inside.clone());
        nodes.push(machine.node);
    }

    /// Whether the machine is there.
    pub fn has(&self, machine: &Machine) -> bool {
        lock(&self.nodes).contains(&machine.node)
    }

    /// Nothing comes in and nothing goes out.
    pub fn cut_off(&self) {
        self.note("is cut off");
        self.sim.count("datacenters_cut_off", 1);
        self.border(true, true).cut();
    }

    /// Nothing goes out, or nothing comes in.
    pub fn cut_one_way(&self, out: bool) {
        self.note(if out { "cannot be heard" } else { "cannot hear" });
        self.sim.count("datacenters_cut_one_way", 1);
        self.border(out, !out).cut();
    }

    /// All its lines work again.
    pub fn heal(&self) {
        self.note("is healed");
        self.border(true, true).heal();
    }

    /// The links that lead out, and those that lead in.
    fn border(&self, out: bool, into: bool) -> Links {
        let nodes = lock(&self.nodes).clone();
        self.sim.net().border(&nodes, out, into)
    }

    fn note(&self, event: &str) {
        self.sim.note(&format!("datacenter {} {event}", self.name));
    }
}
