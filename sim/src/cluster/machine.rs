//! A machine: its power, its process, its wall clock, and standing still.
//!
//! Three ways to be away without a word: no power (the process is lost), stopped (`SIGSTOP`: the kernel goes on to take
//! and acknowledge packets), frozen (a virtual machine that is moved: not even the kernel answers). Timers of a process
//! that stood still see time jump when it goes on. Wall clocks are steps away from the truth; the monotonic clock is
//! everybody's.

use super::lock;
use crate::runner::Sim;
use madsim::runtime::Handle;
use madsim::task::NodeId;
use madsim::time::{Instant, TimeHandle};
use nsq_core::time::{self, Now, Timestamp};
use nsq_net_sim::env::Wall;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// See the module's documentation. Clones are the same machine.
#[derive(Clone)]
pub struct Machine {
    /// Its name, by which others find it.
    pub name: String,
    /// It in the network.
    pub node: NodeId,
    sim: Sim,
    state: Arc<Mutex<State>>,
    clock: SkewedClock,
}

/// A wall clock that may be wrong.
#[derive(Clone, Default)]
pub(super) struct SkewedClock(Arc<Mutex<i64>>);

struct State {
    is_up: bool,
    standing: Standing,
    /// When one of the two changed last.
    since: Instant,
    /// When power was cut last.
    darkness: Option<Instant>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    No,
    Stopped,
    Frozen,
}

/// The truth when a run starts: an hour of 2026.
const EPOCH: i64 = 1_795_000_000_000_000_000;

impl Machine {
    pub(super) fn new(sim: &Sim, name: &str, node: NodeId, clock: SkewedClock) -> Self {
        let state = State { is_up: true, standing: Standing::No, since: Instant::now(), darkness: None };
        Self { name: name.to_owned(), node, sim: sim.clone(), state: Arc::new(Mutex::new(state)), clock }
    }

    /// Kills the process; its kernel says so to its peers.
    pub fn kill(&self) {
        self.sim.note(&format!("kill {}", self.name));
        self.sim.count("kills", 1);
        self.change(|state| state.is_up = false);
        self.sim.net().kill(self.node);
    }

    /// Cuts the power; nobody hears of it.
    pub fn power_off(&self) {
        self.sim.note(&format!("power off {}", self.name));
        self.sim.count("power_offs", 1);
        self.change(|state| (state.is_up, state.darkness) = (false, Some(Instant::now())));
        self.sim.net().power_off(self.node);
    }

    /// Power on if it was off, and a new process.
    pub fn restart(&self) {
        self.sim.note(&format!("restart {}", self.name));
        self.change(|state| state.is_up = true);
        self.sim.net().restart(self.node);
    }

    /// Its process has done all it does, and ends by itself.
    pub fn ended(&self) {
        self.sim.note(&format!("{} has ended", self.name));
        self.change(|state| state.is_up = false);
        self.sim.net().kill(self.node);
    }

    /// The process stands still, its kernel does not.
    pub fn stop(&self) {
        self.stand(Standing::Stopped);
        self.sim.count("stopped_processes", 1);
    }

    /// The whole machine stands still.
    pub fn freeze(&self) {
        self.stand(Standing::Frozen);
        self.sim.net().border(&[self.node], true, true).hold();
        self.sim.count("frozen_machines", 1);
    }

    /// It goes on.
    pub fn resume(&self) {
        let before = std::mem::replace(&mut lock(&self.state).standing, Standing::No);
        if before == Standing::No {
            return;
        }
        self.sim.note(&format!("{} goes on", self.name));
        self.change(|_| {});
        if before == Standing::Frozen {
            self.sim.net().border(&[self.node], true, true).release();
        }
        Handle::current().resume(self.node);
    }

    fn stand(&self, standing: Standing) {
        self.sim.note(&format!("{} stands still", self.name));
        self.change(|state| state.standing = standing);
        Handle::current().pause(self.node);
    }

    /// Moves its wall clock so far from the truth.
    pub fn skew(&self, nanos: i64) {
        *lock(&self.clock.0) = nanos;
        self.sim.note(&format!("the wall clock of {} is off by {nanos} ns", self.name));
        self.sim.count("clock_steps", 1);
    }

    /// How far its wall clock is from the truth, nanoseconds.
    pub fn skewed(&self) -> i64 {
        *lock(&self.clock.0)
    }

    /// Its monotonic clock.
    pub fn elapsed(&self) -> Duration {
        TimeHandle::current().elapsed()
    }

    /// What its processes take for now.
    pub(super) fn now(&self) -> Now {
        let instant = time::Instant::from_nanos(self.elapsed().as_nanos() as u64);
        Now { instant, timestamp: (self.clock.wall())() }
    }

    /// Has power and a process.
    pub fn is_up(&self) -> bool {
        lock(&self.state).is_up
    }

    /// Has been running, and not standing still, for at least so long.
    pub fn has_run(&self, span: Duration) -> bool {
        let state = lock(&self.state);
        state.is_up && state.standing == Standing::No && state.since.elapsed() >= span
    }

    /// Since when it is dead; `None` while it is not.
    pub fn dead_since(&self) -> Option<Instant> {
        let state = lock(&self.state);
        (!state.is_up).then_some(state.since)
    }

    /// Whether power was cut so recently; of connections from before, peers may not know that they are dead.
    pub fn was_dark_within(&self, span: Duration) -> bool {
        lock(&self.state).darkness.is_some_and(|since| since.elapsed() <= span)
    }

    /// Which of its lives this is.
    pub fn life(&self) -> u64 {
        self.sim.net().incarnation(self.node)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = lock(&self.state);
        change(&mut state);
        state.since = Instant::now();
    }
}

impl SkewedClock {
    /// What processes read.
    pub(super) fn wall(&self) -> Wall {
        let clock = self.clone();
        let origin = TimeHandle::current();
        Arc::new(move || Timestamp::from_nanos(EPOCH + origin.elapsed().as_nanos() as i64 + *lock(&clock.0)))
    }
}
