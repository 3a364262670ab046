//! What the registry tells: lookups, nodes, everything (spec: nsqd_protocol §5.4).
//!
//! A question comes in with `now`, which decides who is active and what is hidden; out comes a view that borrows from
//! the registry, for whoever writes it down. All is in order of names, addresses or connections: equal states, equal
//! answers.

use super::producer::{Address, Producer};
use super::registry::{Peer, PeerId, Registry, Topic};
use crate::name::{ChannelName, TopicName};
use crate::time::Now;
use alloc::collections::btree_map::Entry::{Occupied, Vacant};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

/// The topics that a query or an operator means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Written as `*` (spec: http_flags_tools §2.2).
    All,
    /// The one of that name.
    One(TopicName),
    /// What was written is no name, so there is no such topic.
    Nothing,
}

/// What `/lookup` tells of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lookup<'a> {
    /// By name.
    pub channels: BTreeSet<&'a ChannelName>,
    /// By address, each once; only those that are active and have no tombstone.
    pub producers: Vec<&'a Producer>,
}

/// What `/nodes` tells of an nsqd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node<'a> {
    /// As it last identified itself.
    pub producer: &'a Producer,
    /// What it has, by name, and whether a tombstone hides it there.
    pub topics: Vec<(&'a TopicName, bool)>,
}

/// What a list of producers in `/debug` is about; in the order of upstream's keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registration<'a> {
    /// A channel of a topic.
    Channel(&'a TopicName, &'a ChannelName),
    /// All peers.
    Client,
    /// A topic.
    Topic(&'a TopicName),
}

/// One producer in `/debug`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Who.
    pub producer: &'a Producer,
    /// Its last IDENTIFY or PING.
    pub last_update: Now,
    /// When an operator hid it, even if that has lapsed.
    pub tombstoned_at: Option<Now>,
}

impl Wanted {
    /// Reads what a client wrote.
    pub fn new(topic: &[u8]) -> Self {
        match topic {
            b"*" => Self::All,
            name => TopicName::new(name).map_or(Self::Nothing, Self::One),
        }
    }
}

impl Registry {
    /// All topics, by name.
    pub fn topics(&self) -> impl Iterator<Item = &TopicName> {
        self.topics.keys()
    }

    /// The channels of topics, by name.
    pub fn channels(&self, wanted: &Wanted) -> BTreeSet<&ChannelName> {
        self.wanted(wanted).flat_map(|(_, topic)| topic.channels.keys()).collect()
    }

    /// Where to find topics; `None` if there are none. An nsqd that is connected twice, because the end of its last
    /// connection was not noticed yet, is listed once.
    pub fn lookup(&self, now: Now, wanted: &Wanted) -> Option<Lookup<'_>> {
        let mut topics = self.wanted(wanted).peekable();
        topics.peek()?;
        let shown =
            topics.flat_map(|(name, topic)| topic.producers.iter().filter(move |id| self.shows(now, **id, name)));
        let shown: BTreeSet<_> = shown.collect();
        let producers = shown.into_iter().filter_map(|id| self.peers.get(id)).map(|peer| &peer.producer);
        // The newest connection of an nsqd comes last, and is the one that is left.
        let producers: BTreeMap<Address<'_>, _> = producers.map(|producer| (producer.address(), producer)).collect();
        Some(Lookup { channels: self.channels(wanted), producers: producers.into_values().collect() })
    }

    /// All active nsqds by address, each once, with what all its connections have registered.
    pub fn nodes(&self, now: Now) -> Vec<Node<'_>> {
        let mut nodes: BTreeMap<Address<'_>, Node<'_>> = BTreeMap::new();
        // The newest connection of an nsqd comes first, and is the one that is shown.
        for peer in self.peers.values().rev().filter(|peer| self.is_active(now, peer)) {
            let topics = peer.topics.iter().map(|(name, tombstone)| (name, self.is_hidden(now, *tombstone)));
            match nodes.entry(peer.producer.address()) {
                Vacant(place) => drop(place.insert(Node { producer: &peer.producer, topics: topics.collect() })),
                Occupied(mut node) => node.get_mut().merge(topics),
            }
        }
        nodes.into_values().collect()
    }

    /// All that is known, for `/debug`; sorted by category, topic and channel, then by connection.
    pub fn entries(&self) -> Vec<(Registration<'_>, Vec<Entry<'_>>)> {
        let channels = self.topics.iter().flat_map(|(topic, known)| {
            let list = move |(channel, peers)| (Registration::Channel(topic, channel), self.listed(peers, None));
            known.channels.iter().map(list)
        });
        let clients = self.peers.values().map(|peer| peer.entry(None)).collect();
        let topics = self
            .topics
            .iter()
            .map(|(name, topic)| (Registration::Topic(name), self.listed(&topic.producers, Some(name))));
        channels.chain([(Registration::Client, clients)]).chain(topics).collect()
    }

    fn wanted<'a>(&'a self, wanted: &Wanted) -> impl Iterator<Item = (&'a TopicName, &'a Topic)> + use<'a> {
        let (all, one) = match wanted {
            Wanted::All => (Some(&self.topics), None),
            Wanted::One(name) => (None, self.topics.get_key_value(name)),
            Wanted::Nothing => (None, None),
        };
        all.into_iter().flatten().chain(one)
    }

    fn listed(&self, peers: &BTreeSet<PeerId>, topic: Option<&TopicName>) -> Vec<Entry<'_>> {
        let peers = peers.iter().filter_map(|id| self.peers.get(id));
        peers.map(|peer| peer.entry(topic.and_then(|topic| *peer.topics.get(topic)?))).collect()
    }

    fn shows(&self, now: Now, id: PeerId, topic: &TopicName) -> bool {
        self.peers.get(&id).is_some_and(|peer| {
            let tombstone = peer.topics.get(topic).copied().flatten();
            self.is_active(now, peer) && !self.is_hidden(now, tombstone)
        })
    }

    fn is_active(&self, now: Now, peer: &Peer) -> bool {
        now.instant.since(peer.last_update.instant) <= self.options.inactive_producer_timeout
    }

    fn is_hidden(&self, now: Now, tombstone: Option<Now>) -> bool {
        tombstone.is_some_and(|since| now.instant.since(since.instant) < self.options.tombstone_lifetime)
    }
}

impl Peer {
    const fn entry(&self, tombstoned_at: Option<Now>) -> Entry<'_> {
        Entry { producer: &self.producer, last_update: self.last_update, tombstoned_at }
    }
}

impl<'a> Node<'a> {
    /// Adds what an older connection of the same nsqd has registered. It is hidden only where all of them are.
    fn merge(&mut self, topics: impl Iterator<Item = (&'a TopicName, bool)>) {
        let mut merged: BTreeMap<_, _> = self.topics.drain(..).collect();
        for (name, hidden) in topics {
            *merged.entry(name).or_insert(hidden) &= hidden;
        }
        self.topics.extend(merged);
    }
}
