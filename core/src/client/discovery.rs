//! Which nsqds a client is to be connected to: those that were configured, and those that nsqlookupds list.
//!
//! In: answers of nsqlookupds, the fates of connections, time. Out: [`Step`]s, to ask and to connect. All nsqlookupds
//! are asked each time and the union counts; one that fails costs a notice, and what it said last still counts. The one
//! rule: a connection that lives is never given up because nobody lists its nsqd; one that is lost is tried again for
//! as long as its nsqd is configured or listed, and a few times more.

use super::ConnId;
use super::retry::{Retry, up_to};
use crate::random::Random;
use crate::time::{Duration, Instant};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;

/// Where to find nsqds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sources {
    /// Addresses of nsqds, `host:port` of TCP.
    pub nsqds: Vec<String>,
    /// Addresses of nsqlookupds, `host:port` of HTTP.
    pub lookupds: Vec<String>,
    /// How often nsqlookupds are asked.
    pub poll_interval: Duration,
    /// Percent of the interval that is added at random.
    pub poll_jitter: u8,
    /// Before a lost connection is tried again.
    pub retry: Retry,
}

impl Default for Sources {
    fn default() -> Self {
        Self {
            nsqds: Vec::new(),
            lookupds: Vec::new(),
            poll_interval: Duration::from_secs(60),
            poll_jitter: 30,
            retry: Retry::default(),
        }
    }
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Ask the nsqlookupd of this index.
    Ask(usize),
    /// Make this connection.
    Connect(ConnId, String),
}

/// Attempts for an nsqd that nobody lists any more, before it is forgotten.
const LAST_TRIES: u32 = 5;
/// A connection that lasted so long was a good one: its loss is the first failure.
const LASTING: Duration = Duration::from_secs(10);
/// Between two rounds of questions, however many connections are lost.
const ASK_PAUSE: Duration = Duration::from_secs(1);
/// The most nsqds that are kept in mind.
const NSQDS_MAX: usize = 4096;

#[derive(Debug)]
struct Nsqd {
    configured: bool,
    state: State,
    /// In a row.
    failures: u32,
    /// Its connection was of use.
    proved: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    /// Being connected to.
    Trying(ConnId),
    Up(ConnId, Instant),
    /// To be tried again.
    Down(Instant),
}

#[derive(Debug, Default)]
struct Lookupd {
    asked: bool,
    listed: BTreeSet<String>,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Discovery {
    sources: Sources,
    nsqds: BTreeMap<String, Nsqd>,
    lookupds: Vec<Lookupd>,
    addresses: BTreeMap<ConnId, String>,
    next_conn: u64,
    next_poll: Option<Instant>,
    last_poll: Option<Instant>,
    random: Random,
}

impl Nsqd {
    const fn new(now: Instant, configured: bool) -> Self {
        Self { configured, state: State::Down(now), failures: 0, proved: false }
    }
}

impl Discovery {
    /// Knows the configured nsqds, and is due at once.
    pub(super) fn new(now: Instant, sources: Sources, seed: u64) -> Self {
        let configured = sources.nsqds.iter().cloned();
        Self {
            nsqds: configured.map(|address| (address, Nsqd::new(now, true))).collect(),
            lookupds: sources.lookupds.iter().map(|_| Lookupd::default()).collect(),
            addresses: BTreeMap::new(),
            next_conn: 1,
            next_poll: (!sources.lookupds.is_empty()).then_some(now),
            last_poll: None,
            random: Random::new(seed),
            sources,
        }
    }

    pub(super) fn lookupd(&self, index: usize) -> &str {
        self.sources.lookupds.get(index).map_or("", String::as_str)
    }

    /// The nsqd of a connection that lives or is being made.
    pub(super) fn address(&self, conn: ConnId) -> Option<&str> {
        self.addresses.get(&conn).map(String::as_str)
    }

    /// All connections that live or are being made.
    pub(super) fn conns(&self) -> impl Iterator<Item = ConnId> {
        self.addresses.keys().copied()
    }

    /// A nsqlookupd has answered.
    pub(super) fn answered(&mut self, now: Instant, index: usize, nsqds: Vec<String>) {
        let Some(lookupd) = self.lookupds.get_mut(index) else { return };
        lookupd.asked = false;
        lookupd.listed = nsqds.into_iter().collect();
        for address in &lookupd.listed {
            if !self.nsqds.contains_key(address) && self.nsqds.len() < NSQDS_MAX {
                self.nsqds.insert(address.clone(), Nsqd::new(now, false));
            }
        }
    }

    /// A nsqlookupd could not be asked.
    pub(super) fn unanswered(&mut self, index: usize) {
        if let Some(lookupd) = self.lookupds.get_mut(index) {
            lookupd.asked = false;
        }
    }

    /// A connection can be used.
    pub(super) fn opened(&mut self, now: Instant, conn: ConnId) {
        if let Some(nsqd) = self.addresses.get(&conn).and_then(|address| self.nsqds.get_mut(address)) {
            nsqd.state = State::Up(conn, now);
        }
    }

    /// A connection was of use: however soon it is lost, that is its nsqd's first failure.
    pub(super) fn proved(&mut self, conn: ConnId) {
        if let Some(nsqd) = self.addresses.get(&conn).and_then(|address| self.nsqds.get_mut(address)) {
            nsqd.proved = true;
        }
    }

    /// Whether a connection can be used.
    pub(super) fn is_up(&self, conn: ConnId) -> bool {
        let nsqd = self.addresses.get(&conn).and_then(|address| self.nsqds.get(address));
        nsqd.is_some_and(|nsqd| matches!(nsqd.state, State::Up(..)))
    }

    /// A connection is over, or could not be made. Returns when it is tried again, if it is.
    pub(super) fn lost(&mut self, now: Instant, conn: ConnId) -> Option<Duration> {
        let address = self.addresses.remove(&conn)?;
        let listed = self.lookupds.iter().any(|lookupd| lookupd.listed.contains(&address));
        let nsqd = self.nsqds.get_mut(&address)?;
        let up_since = if let State::Up(_, since) = nsqd.state { Some(since) } else { None };
        let lasted = core::mem::take(&mut nsqd.proved) || up_since.is_some_and(|since| now.since(since) >= LASTING);
        nsqd.failures = if lasted { 1 } else { nsqd.failures.saturating_add(1) };
        if up_since.is_some() {
            // An attempt that failed is no news.
            self.ask_soon(now);
        }
        let nsqd = self.nsqds.get_mut(&address)?;
        if !nsqd.configured && !listed && nsqd.failures > LAST_TRIES {
            self.nsqds.remove(&address);
            return None;
        }
        let delay = self.sources.retry.delay(nsqd.failures, &mut self.random);
        nsqd.state = State::Down(now + delay);
        Some(delay)
    }

    /// Does what is due.
    pub(super) fn tick(&mut self, now: Instant, steps: &mut Vec<Step>) {
        if self.next_poll.is_some_and(|due| due <= now) {
            let unasked = self.lookupds.iter_mut().enumerate().filter(|(_, lookupd)| !lookupd.asked);
            steps.extend(unasked.map(|(index, lookupd)| {
                lookupd.asked = true;
                Step::Ask(index)
            }));
            self.last_poll = Some(now);
            self.next_poll = Some(now + self.interval());
        }
        for (address, nsqd) in &mut self.nsqds {
            if matches!(nsqd.state, State::Down(due) if due <= now) {
                let conn = ConnId(self.next_conn);
                self.next_conn += 1;
                nsqd.state = State::Trying(conn);
                self.addresses.insert(conn, address.clone());
                steps.push(Step::Connect(conn, address.clone()));
            }
        }
    }

    /// When something is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let retries = self.nsqds.values().filter_map(|nsqd| match nsqd.state {
            State::Down(due) => Some(due),
            _ => None,
        });
        retries.chain(self.next_poll).min()
    }

    /// Something has changed: nsqlookupds are asked before their time, but not more than once in [`ASK_PAUSE`].
    fn ask_soon(&mut self, now: Instant) {
        let soon = self.last_poll.map_or(now, |last| (last + ASK_PAUSE).max(now));
        self.next_poll = self.next_poll.map(|due| due.min(soon));
    }

    fn interval(&mut self) -> Duration {
        let jitter = self.sources.poll_interval.saturating_mul(u32::from(self.sources.poll_jitter)) / 100;
        self.sources.poll_interval.saturating_add(up_to(jitter, &mut self.random))
    }

    /// Asserts what always holds.
    pub(super) fn check(&self) {
        for (conn, address) in &self.addresses {
            let state = &self.nsqds.get(address).expect("a connection belongs to an nsqd").state;
            assert!(matches!(state, State::Trying(id) | State::Up(id, _) if id == conn), "{conn:?} {state:?}");
        }
        let connected = self.nsqds.values().filter(|nsqd| !matches!(nsqd.state, State::Down(_))).count();
        assert_eq!(connected, self.addresses.len(), "each nsqd has one connection at most");
    }
}
