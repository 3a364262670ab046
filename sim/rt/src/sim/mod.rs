//! The simulated network and the handle by which a test breaks it.
//!
//! In: byte streams of [`crate::net`] and a test's orders ([`Net`]): cut, hold, lose, kill, power off. Out: the same
//! bytes later, or errors. `wire` moves packets in the order of an event heap, `host` keeps machines and ports, `tcp`
//! and `end` the connections. One task drives all of it, and every draw comes from the run's seed.
//!
//! What is modelled: handshake with SYN repetitions, RST, FIN both ways, windows and back-pressure, loss and cuts as
//! stalls of 200 ms·2ⁿ, a killed process (its kernel says FIN, or RST if bytes were unread, and goes on repeating what
//! was written) against a machine without power (silence, and RST once it is back). What is not: bandwidth, congestion
//! control, keepalive, IP fragments.
//!
//! A RST is a single packet: if it is lost, the peer learns of it at its own next packet, as in life.

mod calls;
mod config;
mod dump;
mod end;
mod host;
mod links;
mod tcp;
mod wire;

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use madsim::plugin::{Simulator, simulator};
use madsim::rand::GlobalRng;
use madsim::runtime::Handle;
use madsim::task::{JoinHandle, Spawner};
use madsim::time::TimeHandle;

pub use self::config::{Config, Counters, LinkConfig};
pub use self::links::Links;
pub use madsim::task::NodeId;

pub(crate) use self::calls::register;
pub(crate) use self::end::EndId;
pub(crate) use self::wire::State;
use crate::time::Sleep;

/// A runtime for one run, with the network in it. It must be the first on its thread, or hash maps differ from run to
/// run.
pub fn runtime(seed: u64) -> madsim::runtime::Runtime {
    let runtime = madsim::runtime::Runtime::with_seed_and_config(seed, madsim::Config::default());
    runtime.add_simulator::<Net>();
    runtime
}

/// The network of this run. Cheap to clone.
#[derive(Clone)]
pub struct Net(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    pump: Mutex<Pump>,
    time: TimeHandle,
}

/// When and how the driving task is woken.
#[derive(Default)]
struct Pump {
    waker: Option<Waker>,
    armed: Option<Instant>,
    stop: bool,
}

impl Simulator for Net {
    fn new(_: &GlobalRng, _: &TimeHandle, _: &madsim::Config) -> Self {
        unreachable!("madsim calls new1")
    }

    fn new1(rand: &GlobalRng, time: &TimeHandle, main: &Spawner, _: &madsim::Config) -> Self {
        let state = Mutex::new(State::new(rand.clone(), time.now_instant()));
        let net = Self(Arc::new(Shared { state, pump: Mutex::default(), time: time.clone() }));
        main.spawn(drive(Arc::downgrade(&net.0), time.clone()));
        net
    }

    fn create_node(&self, id: NodeId) {
        self.with(|state| state.hosts.insert(id, host::Host::new(id)));
    }

    /// Runs under madsim's lock of all nodes: it may wake tasks but neither spawn any nor ask the runtime.
    fn reset_node(&self, id: NodeId) {
        self.with(|state| state.kill(id));
    }
}

impl Net {
    /// The network of the runtime we are in.
    ///
    /// # Panics
    /// Outside of a runtime to which it was added (`Runtime::add_simulator::<Net>`).
    pub fn current() -> Self {
        Self::clone(&simulator::<Self>())
    }

    /// Changes what the network is like from now on.
    pub fn configure(&self, change: impl FnOnce(&mut Config)) {
        self.with(|state| change(&mut state.config));
    }

    /// A new machine, see [`NodeBuilder`].
    pub fn node(&self, name: &str) -> NodeBuilder {
        NodeBuilder { net: self.clone(), name: name.to_owned(), ip: None }
    }

    /// The machine the running task belongs to.
    pub fn here() -> NodeId {
        madsim::plugin::node()
    }

    /// The machine of this name.
    pub fn find(&self, name: &str) -> Option<NodeId> {
        self.with(|state| state.hosts.iter().find(|(_, host)| host.name == name).map(|(id, _)| *id))
    }

    /// The address of a machine.
    ///
    /// # Panics
    /// If there is no such machine.
    pub fn ip(&self, node: NodeId) -> IpAddr {
        self.with(|state| state.hosts[&node].ip)
    }

    /// The name of a machine.
    pub fn name(&self, node: NodeId) -> String {
        self.with(|state| state.name(node).to_owned())
    }

    /// Which life of the machine this is: grows with each death. What outlives its process can tell by it, and must
    /// then leave the world alone.
    pub fn incarnation(&self, node: NodeId) -> u64 {
        self.with(|state| state.hosts.get(&node).map_or(0, |host| host.incarnation))
    }

    /// Starts a task on a machine.
    ///
    /// # Panics
    /// If there is no such machine.
    #[track_caller]
    pub fn spawn<F>(&self, node: NodeId, task: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        Handle::current().get_node(node).expect("a machine made by Net::node").spawn(task)
    }

    /// Kills the process. Its kernel lives on: it sends what was written, then FIN, or RST where bytes were left
    /// unread.
    pub fn kill(&self, node: NodeId) {
        self.with(|state| {
            state.counters.kills += 1;
            tracing::info!(target: "net", node = state.name(node), "kill");
        });
        Handle::current().kill(node);
    }

    /// Cuts the power: nothing more is sent, peers hear nothing until the machine is back, and then a RST.
    pub fn power_off(&self, node: NodeId) {
        self.with(|state| {
            state.counters.power_offs += 1;
            tracing::info!(target: "net", node = state.name(node), "power off");
            state.power_off(node);
        });
        Handle::current().kill(node);
    }

    /// Power on if it was off, and a fresh process; a running one is killed first.
    pub fn restart(&self, node: NodeId) {
        Handle::current().kill(node);
        self.with(|state| {
            state.counters.restarts += 1;
            tracing::info!(target: "net", node = state.name(node), "restart");
            if let Some(host) = state.hosts.get_mut(&node) {
                host.up = true;
            }
        });
        Handle::current().restart(node);
    }

    /// The direction from one machine to another.
    pub fn link(&self, from: NodeId, to: NodeId) -> Links {
        Links::new(self, vec![(from, to)])
    }

    /// Both directions between each machine of one set and each of the other.
    pub fn between(&self, these: &[NodeId], those: &[NodeId]) -> Links {
        let pairs = these.iter().flat_map(|a| those.iter().flat_map(move |b| [(*a, *b), (*b, *a)]));
        Links::new(self, pairs.filter(|(a, b)| a != b).collect())
    }

    /// The directions that lead out of a set of machines, into it, or both.
    pub fn border(&self, nodes: &[NodeId], out: bool, into: bool) -> Links {
        let others: Vec<_> = self.with(|state| state.hosts.keys().copied().filter(|id| !nodes.contains(id)).collect());
        let pairs = nodes.iter().flat_map(|a| others.iter().map(move |b| (*a, *b)));
        let directions = pairs.flat_map(|(a, b)| [out.then_some((a, b)), into.then_some((b, a))]);
        Links::new(self, directions.flatten().collect())
    }

    /// All directions between all machines made so far.
    pub fn all_links(&self) -> Links {
        let nodes: Vec<_> = self.with(|state| state.hosts.keys().copied().collect());
        let pairs = nodes.iter().flat_map(|a| nodes.iter().map(move |b| (*a, *b)));
        Links::new(self, pairs.filter(|(a, b)| a != b).collect())
    }

    /// Cuts one direction: what is under way and what is sent is lost until [`heal`](Self::heal).
    pub fn cut(&self, from: NodeId, to: NodeId) {
        self.link(from, to).cut();
    }

    /// Ends a [`cut`](Self::cut).
    pub fn heal(&self, from: NodeId, to: NodeId) {
        self.link(from, to).heal();
    }

    /// Cuts both directions between two sets of machines.
    pub fn partition(&self, these: &[NodeId], those: &[NodeId]) {
        self.between(these, those).cut();
    }

    /// Ends all cuts and holds.
    pub fn heal_all(&self) {
        self.all_links().heal().release();
    }

    /// What happened so far.
    pub fn counters(&self) -> Counters {
        self.with(|state| state.counters.clone())
    }

    /// A hash of every packet delivered so far, equal in two runs of one seed.
    pub fn digest(&self) -> u64 {
        self.with(|state| state.digest)
    }

    /// Machines, listeners, connections and disturbed links, one a line, like netstat.
    pub fn dump(&self) -> String {
        self.with(|state| dump::dump(state))
    }

    /// Ends the run: kills every process and stops the network, so that nothing of it stays in memory. For the runner.
    pub async fn end(&self) {
        let nodes: Vec<_> = self.with(|state| state.hosts.keys().copied().skip(1).collect());
        for node in nodes {
            Handle::current().kill(node);
        }
        madsim::time::sleep(Duration::from_millis(1)).await;
        let waker = {
            let mut pump = self.pump();
            pump.stop = true;
            pump.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        self.with(|state| state.ends.clear());
        madsim::time::sleep(Duration::from_millis(1)).await;
    }

    /// One step of the network: `f` under the lock, then the wakes it caused.
    pub(crate) fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        self.0.with(f)
    }

    fn pump(&self) -> MutexGuard<'_, Pump> {
        lock(&self.0.pump)
    }
}

impl std::fmt::Debug for Net {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Net")
    }
}

impl Shared {
    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        let (result, wakes, next) = {
            let mut state = lock(&self.state);
            state.now = self.time.now_instant();
            let result = f(&mut state);
            (result, std::mem::take(&mut state.wakes), state.next_event())
        };
        // A waker may own a task that owns a socket: it must not run under the lock.
        wakes.into_iter().for_each(Waker::wake);
        if let Some(next) = next {
            self.wake_pump_by(next);
        }
        result
    }

    fn wake_pump_by(&self, next: Instant) {
        let waker = {
            let mut pump = lock(&self.pump);
            if pump.armed.is_some_and(|armed| armed <= next) {
                return;
            }
            pump.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// The one task that performs what is due and sleeps until the next event.
async fn drive(shared: Weak<Shared>, time: TimeHandle) {
    let mut timer = crate::time::sleep_of(&time);
    std::future::poll_fn(|cx| match shared.upgrade() {
        Some(shared) => drive_once(&shared, Pin::new(&mut timer), cx),
        None => Poll::Ready(()),
    })
    .await;
}

fn drive_once(shared: &Shared, mut timer: Pin<&mut Sleep>, cx: &mut Context<'_>) -> Poll<()> {
    loop {
        {
            let mut pump = lock(&shared.pump);
            if pump.stop {
                return Poll::Ready(());
            }
            // While it runs, what is scheduled needs no wake.
            pump.armed = Some(shared.time.now_instant());
            pump.waker = Some(cx.waker().clone());
        }
        let next = shared.with(|state| {
            state.run_due();
            state.next_event()
        });
        lock(&shared.pump).armed = next;
        let Some(next) = next else { return Poll::Pending };
        // Unlike a fresh sleep, a reset one may be shorter than a millisecond.
        if timer.deadline() != next.into() {
            timer.as_mut().reset(next.into());
        }
        if timer.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A machine to be: a name, an address (10.0.0.x by default) and what its process does.
#[derive(Debug)]
pub struct NodeBuilder {
    net: Net,
    name: String,
    ip: Option<IpAddr>,
}

impl NodeBuilder {
    /// Gives it this address.
    pub fn ip(mut self, ip: IpAddr) -> Self {
        self.ip = Some(ip);
        self
    }

    /// Starts it with a process that runs `main` at the start and at each restart, and exits when that returns.
    pub fn run<F>(self, main: impl Fn() -> F + Send + Sync + 'static) -> NodeId
    where
        F: Future + 'static,
    {
        let node = Handle::current().create_node().name(self.name.clone()).init(main).build().id();
        self.register(node)
    }

    /// Starts it without a process: a place for [`Net::spawn`].
    pub fn idle(self) -> NodeId {
        let node = Handle::current().create_node().name(self.name.clone()).build().id();
        self.register(node)
    }

    fn register(self, node: NodeId) -> NodeId {
        self.net.with(|state| {
            let taken = state
                .hosts
                .iter()
                .find(|(id, host)| **id != node && (host.name == self.name || Some(host.ip) == self.ip));
            assert!(taken.is_none(), "two machines share the name {} or the address {:?}", self.name, self.ip);
            let host = state.hosts.get_mut(&node).expect("madsim announces each node");
            host.ip = self.ip.unwrap_or(host.ip);
            host.name = self.name;
        });
        node
    }
}
