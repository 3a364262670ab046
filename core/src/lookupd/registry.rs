//! The registrations: which peers are alive, and which topics and channels each of them has (spec: nsqd_protocol §5.3).
//!
//! Commands of peers and wishes of operators come in, each with `now`; [`queries`](super::queries) show the state at
//! their own `now`, so nothing in here needs a timer.
//!
//! A name outlives its last producer until an operator deletes it, unless it is ephemeral: then it goes with whoever
//! had it last, however that one left.

use super::producer::Producer;
use super::queries::Wanted;
use super::{Command, Options};
use crate::name::{ChannelName, TopicName};
use crate::time::Now;
use alloc::collections::{BTreeMap, BTreeSet};

/// A connection, in the order in which they were accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub u64);

/// See the module's documentation.
#[derive(Debug)]
pub struct Registry {
    pub(super) options: Options,
    pub(super) peers: BTreeMap<PeerId, Peer>,
    pub(super) topics: BTreeMap<TopicName, Topic>,
}

/// A connection that has said who it is.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) producer: Producer,
    /// The last IDENTIFY or PING.
    pub(super) last_update: Now,
    /// What it registered, and since when an operator wants it hidden there.
    pub(super) topics: BTreeMap<TopicName, Option<Now>>,
}

/// Who has a topic, and its channels.
#[derive(Debug, Default)]
pub(super) struct Topic {
    pub(super) producers: BTreeSet<PeerId>,
    pub(super) channels: BTreeMap<ChannelName, BTreeSet<PeerId>>,
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

    /// Hides an nsqd, named as `broadcast_address:http_port`, from those who look up the topics. Ends after the
    /// lifetime, or when the nsqd unregisters.
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
}
