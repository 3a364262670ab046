//! The wire: packets between machines, in the order of an event heap `(time, number)`.
//!
//! In: packets and timers of connections. Out: packets handed to [`State::receive`] after the latency of their link, or
//! never. The rule: loss and cuts only ever lose packets, and connections repeat what was lost, so no byte is lost or
//! overtakes another.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::SocketAddr;
use std::task::Waker;
use std::time::{Duration, Instant};

use madsim::rand::{GlobalRng, Rng};
use madsim::task::NodeId;

use super::config::{Config, Counters, LinkConfig};
use super::end::{End, EndId};
use super::host::Host;

/// The network: machines, links, connections and what is under way. One value for each run, behind one lock.
pub(crate) struct State {
    /// Simulated time of the present step.
    pub(crate) now: Instant,
    pub(crate) config: Config,
    pub(crate) counters: Counters,
    pub(crate) hosts: BTreeMap<NodeId, Host>,
    pub(crate) links: BTreeMap<(NodeId, NodeId), Link>,
    pub(crate) ends: BTreeMap<EndId, End>,
    /// Who has something to do once the lock is released.
    pub(crate) wakes: Vec<Waker>,
    /// A running hash of all that was delivered, to compare two runs.
    pub(crate) digest: u64,
    rand: GlobalRng,
    heap: BinaryHeap<Reverse<Event>>,
    numbers: u64,
}

/// One direction between two machines.
#[derive(Default)]
pub(crate) struct Link {
    pub(crate) config: LinkConfig,
    pub(crate) cut: bool,
    pub(crate) hold: bool,
    pub(crate) held: Vec<Packet>,
}

#[derive(Debug)]
pub(crate) struct Packet {
    pub(crate) from: NodeId,
    pub(crate) to: NodeId,
    pub(crate) dst: EndId,
    pub(crate) body: Body,
}

/// What a packet says. Offsets count the bytes of one direction from its start.
#[derive(Debug)]
pub(crate) enum Body {
    Syn { client: SocketAddr, server: SocketAddr },
    SynAck,
    Data { offset: u64, bytes: Vec<u8>, fin: bool },
    Ack { received: u64, fin: bool, limit: u64 },
    Rst,
}

pub(crate) enum Step {
    Arrive(Packet),
    /// The retransmission timer of a connection.
    Timer(EndId),
    /// A closed connection is forgotten.
    Expire(EndId),
}

struct Event {
    at: Instant,
    number: u64,
    step: Step,
}

impl PartialEq for Event {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for Event {}
impl PartialOrd for Event {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Event {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

impl State {
    pub(crate) fn new(rand: GlobalRng, now: Instant) -> Self {
        Self {
            now,
            config: Config::default(),
            counters: Counters::default(),
            hosts: BTreeMap::new(),
            links: BTreeMap::new(),
            ends: BTreeMap::new(),
            wakes: Vec::new(),
            digest: 0xcbf2_9ce4_8422_2325,
            rand,
            heap: BinaryHeap::new(),
            numbers: 0,
        }
    }

    /// A number never given before.
    pub(crate) fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    pub(crate) fn chance(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.rand.gen_bool(probability.min(1.0))
    }

    /// At random one of `1..=len`, with the given chance, otherwise `len`; the flag says whether it is less.
    pub(crate) fn shorten(&mut self, len: usize, probability: f64) -> (usize, bool) {
        if len > 1 && self.chance(probability) { (self.rand.gen_range(1..len), true) } else { (len, false) }
    }

    pub(crate) fn link(&mut self, from: NodeId, to: NodeId) -> &mut Link {
        let default = &self.config.link;
        self.links.entry((from, to)).or_insert_with(|| Link { config: default.clone(), ..Link::default() })
    }

    /// The longest a packet and its answer may take on this link, hold aside.
    pub(crate) fn round_trip(&mut self, from: NodeId, to: NodeId) -> Duration {
        *self.link(from, to).config.latency.end() + *self.link(to, from).config.latency.end()
    }

    pub(crate) fn schedule(&mut self, at: Instant, step: Step) {
        let number = self.number();
        self.heap.push(Reverse(Event { at, number, step }));
    }

    pub(crate) fn next_event(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse(event)| event.at)
    }

    /// Performs everything that is due.
    pub(crate) fn run_due(&mut self) {
        while self.next_event().is_some_and(|at| at <= self.now) {
            let Some(Reverse(event)) = self.heap.pop() else { return };
            match event.step {
                Step::Arrive(packet) => self.arrive(packet),
                Step::Timer(id) => self.timer(id, event.at),
                Step::Expire(id) => _ = self.ends.remove(&id),
            }
        }
    }

    /// Puts a packet on its way, to arrive not before `after`; returns when it will arrive, lost or not.
    pub(crate) fn send(&mut self, packet: Packet, after: Instant) -> Instant {
        self.counters.packets += 1;
        let local = packet.from == packet.to;
        let link = self.link(packet.from, packet.to);
        let (cut, loss) = (link.cut && !local, link.config.loss);
        let latency = if local { self.config.loopback.clone() } else { link.config.latency.clone() };
        let at = after.max(self.now + self.rand.gen_range(latency));
        if cut {
            self.lose_to_cut(&packet);
        } else if !local && self.chance(loss) {
            self.counters.losses += 1;
            self.trace("lost", &packet);
        } else {
            self.schedule(at, Step::Arrive(packet));
        }
        at
    }

    fn arrive(&mut self, packet: Packet) {
        let link = self.link(packet.from, packet.to);
        if packet.from != packet.to && link.cut {
            return self.lose_to_cut(&packet);
        }
        if packet.from != packet.to && link.hold {
            link.held.push(packet);
            self.counters.held_packets += 1;
            return;
        }
        if !self.hosts.get(&packet.to).is_some_and(|host| host.up) {
            self.counters.dark_packets += 1;
            return;
        }
        self.trace("arrives", &packet);
        self.mix(packet.dst.conn << 1 | u64::from(packet.dst.server));
        if let Body::Data { offset, bytes, .. } = &packet.body {
            self.mix(*offset);
            self.digest = digest(self.digest, bytes);
        }
        self.receive(packet);
    }

    fn lose_to_cut(&mut self, packet: &Packet) {
        self.counters.cut_packets += 1;
        self.trace("cut off", packet);
    }

    fn trace(&self, what: &str, packet: &Packet) {
        let Packet { from, to, dst, body } = packet;
        tracing::trace!(target: "net", "{what}: {dst:?} {} -> {}: {body}", self.name(*from), self.name(*to));
    }

    fn mix(&mut self, word: u64) {
        self.digest = digest(self.digest, &word.to_le_bytes());
    }
}

/// FNV-1a over words of eight bytes.
fn digest(mut hash: u64, bytes: &[u8]) -> u64 {
    for chunk in bytes.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        hash = (hash ^ u64::from_le_bytes(word)).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
    }
    hash
}

impl std::fmt::Display for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Syn { server, .. } => write!(f, "SYN {server}"),
            Self::SynAck => write!(f, "SYN-ACK"),
            Self::Data { offset, bytes, fin } => {
                write!(f, "{offset}+{}{}", bytes.len(), if *fin { " FIN" } else { "" })
            }
            Self::Ack { received, fin, limit } => {
                write!(f, "ACK {received} of {limit}{}", if *fin { " FIN" } else { "" })
            }
            Self::Rst => write!(f, "RST"),
        }
    }
}
