//! The registrations: which peers are alive, and which topics and channels each of them has (spec: nsqd_protocol §5.3).
//!
//! Commands of peers and wishes of operators come in, each with `now`; queries show the state at their own `now`, so
//! nothing in here needs a timer. Everything is in order of names, addresses or connections: equal inputs, equal answers.
//!
//! A name outlives its last producer until an operator deletes it, unless it is ephemeral: then it goes with whoever had
//! it last, however that one left.

use super::producer::{Address, Producer};
use super::{Command, Options};
use crate::name::{ChannelName, TopicName};
use crate::time::Now;
use alloc::collections::btree_map::Entry::{Occupied, Vacant};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

/// A connection, in the order in which they were accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub u64);

/// See the module's documentation.
#[derive(Debug)]
pub struct Registry {
    options: Options,
    peers: BTreeMap<PeerId, Peer>,
    topics: BTreeMap<TopicName, Topic>,
}

/// A connection that has said who it is.
#[derive(Debug)]
struct Peer {
    producer: Producer,
    /// The last IDENTIFY or PING.
    last_update: Now,
    /// What it registered, and since when an operator wants it hidden there.
    topics: BTreeMap<TopicName, Option<Now>>,
}

/// Who has a topic, and its channels.
#[derive(Debug, Default)]
struct Topic {
    producers: BTreeSet<PeerId>,
    channels: BTreeMap<ChannelName, BTreeSet<PeerId>>,
}

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
    /// One that knows nobody.
    pub const fn new(options: Options) -> Self {
        Self { options, peers: BTreeMap::new(), topics: BTreeMap::new() }
    }

    /// What it was made with.
    pub const fn options(&self) -> &Options {
        &self.options
    }

    /// Does what a peer asks for. True if a registration came or went.
    pub fn handle(&mut self, now: Now, peer: PeerId, command: Command) -> bool {
        match command {
            Command::Identify(producer) => {
                self.disconnect(peer);
                self.peers.insert(peer, Peer { producer, last_update: now, topics: BTreeMap::new() });
                true
            }
            Command::Ping => {
                if let Some(peer) = self.peers.get_mut(&peer) {
                    peer.last_update = now;
                }
                false
            }
            Command::Register(topic, channel) => self.register(peer, topic, channel),
            Command::Unregister(topic, None) => self.unregister(peer, &topic),
            Command::Unregister(topic, Some(channel)) => self.unregister_channel(peer, &topic, &channel),
        }
    }

    /// A connection has ended. Who it was, if it had said so.
    pub fn disconnect(&mut self, id: PeerId) -> Option<Producer> {
        let peer = self.peers.remove(&id)?;
        for topic in peer.topics.keys() {
            self.leave(id, topic);
        }
        Some(peer.producer)
    }

    /// Makes the name known.
    pub fn create_topic(&mut self, topic: TopicName) {
        self.topics.entry(topic).or_default();
    }

    /// Makes both names known.
    pub fn create_channel(&mut self, topic: TopicName, channel: ChannelName) {
        self.topics.entry(topic).or_default().channels.entry(channel).or_default();
    }

    /// Forgets topics, their channels and who had them. The nsqds themselves stay.
    pub fn delete_topic(&mut self, wanted: &Wanted) {
        let deleted = match wanted {
            Wanted::All => core::mem::take(&mut self.topics),
            Wanted::One(name) => self.topics.remove_entry(name).into_iter().collect(),
            Wanted::Nothing => return,
        };
        for (name, topic) in deleted {
            for id in topic.producers {
                if let Some(peer) = self.peers.get_mut(&id) {
                    peer.topics.remove(&name);
                }
            }
        }
    }

    /// Forgets a channel and who had it; false if there is none.
    pub fn delete_channel(&mut self, topic: &TopicName, channel: &ChannelName) -> bool {
        self.topics.get_mut(topic).is_some_and(|topic| topic.channels.remove(channel).is_some())
    }

    /// Hides an nsqd, named as `broadcast_address:http_port`, from those who look up the topics. Ends after the lifetime,
    /// or when the nsqd unregisters.
    pub fn tombstone(&mut self, now: Now, wanted: &Wanted, node: &str) {
        for peer in self.peers.values_mut().filter(|peer| peer.producer.is_node(node)) {
            match wanted {
                Wanted::All => peer.topics.values_mut().for_each(|tombstone| *tombstone = Some(now)),
                Wanted::One(name) => {
                    if let Some(tombstone) = peer.topics.get_mut(name) {
                        *tombstone = Some(now);
                    }
                }
                Wanted::Nothing => {}
            }
        }
    }

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

    /// Panics if an invariant does not hold.
    pub fn check(&self) {
        for (name, topic) in &self.topics {
            for id in &topic.producers {
                assert!(self.peers.get(id).is_some_and(|peer| peer.topics.contains_key(name)), "{id:?} in {name}");
            }
            for (channel, peers) in &topic.channels {
                assert!(peers.is_subset(&topic.producers), "{name} {channel} has a producer that the topic has not");
            }
        }
        for (id, peer) in &self.peers {
            for name in peer.topics.keys() {
                assert!(self.topics.get(name).is_some_and(|topic| topic.producers.contains(id)), "{name} of {id:?}");
            }
        }
    }

    /// Registering again changes nothing: not a tombstone either.
    fn register(&mut self, id: PeerId, topic: TopicName, channel: Option<ChannelName>) -> bool {
        let Some(peer) = self.peers.get_mut(&id) else { return false };
        let entry = self.topics.entry(topic);
        // All producers of a topic share the memory of its name.
        let name = entry.key().clone();
        let topic = entry.or_default();
        peer.topics.entry(name).or_default();
        let new_to_channel = channel.is_some_and(|channel| topic.channels.entry(channel).or_default().insert(id));
        topic.producers.insert(id) | new_to_channel
    }

    fn unregister(&mut self, id: PeerId, topic: &TopicName) -> bool {
        let was_there = self.peers.get_mut(&id).is_some_and(|peer| peer.topics.remove(topic).is_some());
        if was_there {
            self.leave(id, topic);
        }
        was_there
    }

    fn unregister_channel(&mut self, id: PeerId, topic: &TopicName, channel: &ChannelName) -> bool {
        let Some(topic) = self.topics.get_mut(topic) else { return false };
        let Some(peers) = topic.channels.get_mut(channel) else { return false };
        let was_there = peers.remove(&id);
        if was_there && peers.is_empty() && channel.is_ephemeral() {
            topic.channels.remove(channel);
        }
        was_there
    }

    /// Takes a peer off a topic and its channels, and ephemeral names away with their last producer.
    fn leave(&mut self, id: PeerId, name: &TopicName) {
        let Some(topic) = self.topics.get_mut(name) else { return };
        topic.producers.remove(&id);
        topic.channels.retain(|channel, peers| {
            let was_there = peers.remove(&id);
            !(was_there && peers.is_empty() && channel.is_ephemeral())
        });
        if topic.producers.is_empty() && name.is_ephemeral() {
            self.topics.remove(name);
        }
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
