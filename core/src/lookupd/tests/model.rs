//! The registry against a model that keeps it simple: one list of registrations, as upstream has it, and no index.

use super::*;
use crate::lookupd::Registration;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec;
use proptest::collection;
use proptest::prelude::*;

/// What can happen; peers, topics and channels are few, so that they meet.
#[derive(Clone, Debug)]
enum Step {
    Tell(u64, Command),
    Disconnect(u64),
    CreateTopic(TopicName),
    CreateChannel(TopicName, ChannelName),
    DeleteTopic(Wanted),
    DeleteChannel(TopicName, ChannelName),
    Tombstone(Wanted, i64),
    Wait(u64),
}

/// A topic, or a channel of it.
type Key = (TopicName, Option<ChannelName>);

#[derive(Default)]
struct Model {
    now: u64,
    /// Address, and when it was last heard.
    peers: BTreeMap<u64, (i64, u64)>,
    names: BTreeSet<Key>,
    registered: BTreeSet<(Key, u64)>,
    tombstones: BTreeMap<(TopicName, u64), u64>,
}

impl Model {
    fn step(&mut self, step: &Step) {
        match step {
            Step::Tell(peer, Command::Identify(producer)) => {
                self.disconnect(*peer);
                self.peers.insert(*peer, (producer.http_port, self.now));
            }
            Step::Tell(peer, _) if !self.peers.contains_key(peer) => {}
            Step::Tell(peer, Command::Ping) => self.peers.get_mut(peer).unwrap().1 = self.now,
            Step::Tell(peer, Command::Register(topic, channel)) => {
                for key in [(topic.clone(), None), (topic.clone(), channel.clone())] {
                    self.names.insert(key.clone());
                    self.registered.insert((key, *peer));
                }
            }
            Step::Tell(peer, Command::Unregister(topic, channel)) => {
                let keys: Vec<_> = self.names.iter().filter(|key| key.0 == *topic).cloned().collect();
                let meant = |key: &&Key| channel.is_none() || key.1 == *channel;
                keys.iter().filter(meant).for_each(|key| self.leave(key, *peer));
            }
            Step::Disconnect(peer) => self.disconnect(*peer),
            Step::CreateTopic(topic) => drop(self.names.insert((topic.clone(), None))),
            Step::CreateChannel(topic, channel) => {
                self.names.extend([(topic.clone(), None), (topic.clone(), Some(channel.clone()))]);
            }
            Step::DeleteTopic(wanted) => self.forget(|(topic, _)| is_wanted(wanted, topic)),
            Step::DeleteChannel(topic, channel) => {
                self.forget(|key| *key == (topic.clone(), Some(channel.clone())));
            }
            Step::Tombstone(wanted, http_port) => {
                for ((topic, channel), peer) in &self.registered {
                    if channel.is_none() && is_wanted(wanted, topic) && self.peers[peer].0 == *http_port {
                        self.tombstones.insert((topic.clone(), *peer), self.now);
                    }
                }
            }
            Step::Wait(seconds) => self.now += seconds,
        }
        self.tombstones.retain(|(topic, peer), _| self.registered.contains(&((topic.clone(), None), *peer)));
    }

    fn disconnect(&mut self, peer: u64) {
        let left: Vec<_> = self.registered.iter().filter(|(_, of)| *of == peer).map(|(key, _)| key.clone()).collect();
        left.iter().for_each(|key| self.leave(key, peer));
        self.peers.remove(&peer);
    }

    fn leave(&mut self, key: &Key, peer: u64) {
        let was_there = self.registered.remove(&(key.clone(), peer));
        let is_left = self.registered.iter().any(|(other, _)| other == key);
        match key {
            (_, Some(channel)) if was_there && !is_left && channel.is_ephemeral() => self.forget(|other| other == key),
            (topic, None) if was_there && !is_left && topic.is_ephemeral() => self.forget(|other| other.0 == *topic),
            _ => {}
        }
    }

    fn forget(&mut self, which: impl Fn(&Key) -> bool) {
        self.names.retain(|key| !which(key));
        self.registered.retain(|(key, _)| !which(key));
    }

    /// Those active, by their HTTP ports, which are their addresses.
    fn active(&self) -> impl Iterator<Item = (u64, i64)> {
        self.peers.iter().filter(|(_, (_, heard))| self.now - heard <= 300).map(|(peer, (port, _))| (*peer, *port))
    }

    fn is_hidden(&self, topic: &TopicName, peer: u64) -> bool {
        self.tombstones.get(&(topic.clone(), peer)).is_some_and(|since| self.now - since < 45)
    }

    fn has(&self, peer: u64, topic: &TopicName) -> bool {
        self.registered.contains(&((topic.clone(), None), peer))
    }

    fn lookup(&self, wanted: &Wanted) -> Option<(BTreeSet<&ChannelName>, BTreeSet<i64>)> {
        let topics: Vec<_> = self.names.iter().filter(|(topic, _)| is_wanted(wanted, topic)).collect();
        let shows = |peer, topic| self.has(peer, topic) && !self.is_hidden(topic, peer);
        let producers = self.active().filter(|(peer, _)| topics.iter().any(|(topic, _)| shows(*peer, topic)));
        let found =
            || (topics.iter().filter_map(|(_, name)| name.as_ref()).collect(), producers.map(|at| at.1).collect());
        (!topics.is_empty()).then(found)
    }

    fn nodes(&self) -> BTreeMap<i64, BTreeMap<&TopicName, bool>> {
        let mut nodes: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
        for (peer, address) in self.active() {
            let topics = nodes.entry(address).or_default();
            for (name, _) in self.names.iter().filter(|(name, channel)| channel.is_none() && self.has(peer, name)) {
                *topics.entry(name).or_insert(true) &= self.is_hidden(name, peer);
            }
        }
        nodes
    }
}

fn is_wanted(wanted: &Wanted, topic: &TopicName) -> bool {
    match wanted {
        Wanted::All => true,
        Wanted::One(name) => name == topic,
        Wanted::Nothing => false,
    }
}

fn apply(registry: &mut Registry, now: Now, step: Step) {
    match step {
        Step::Tell(peer, command) => drop(registry.handle(now, PeerId(peer), command)),
        Step::Disconnect(peer) => drop(registry.disconnect(PeerId(peer))),
        Step::CreateTopic(topic) => registry.create_topic(topic),
        Step::CreateChannel(topic, channel) => registry.create_channel(topic, channel),
        Step::DeleteTopic(wanted) => registry.delete_topic(&wanted),
        Step::DeleteChannel(topic, channel) => drop(registry.delete_channel(&topic, &channel)),
        Step::Tombstone(wanted, http_port) => registry.tombstone(now, &wanted, &format!("n:{http_port}")),
        Step::Wait(_) => {}
    }
}

fn compare(registry: &Registry, model: &Model) {
    registry.check();
    let now = at(model.now);
    for wanted in ["*", "a", "b", "c#ephemeral", "a/b"].map(|name| Wanted::new(name.as_bytes())) {
        let found = registry.lookup(now, &wanted).map(|found| {
            let ports: BTreeSet<_> = found.producers.iter().map(|producer| producer.http_port).collect();
            assert_eq!(ports.len(), found.producers.len(), "an nsqd is listed twice");
            (found.channels, ports)
        });
        assert_eq!(found, model.lookup(&wanted), "{wanted:?}");
    }
    let nodes = registry.nodes(now).into_iter();
    let nodes: BTreeMap<_, BTreeMap<_, _>> =
        nodes.map(|node| (node.producer.http_port, node.topics.into_iter().collect())).collect();
    assert_eq!(nodes, model.nodes());
    for (registration, list) in registry.entries() {
        let key = match registration {
            Registration::Client => {
                assert_eq!(list.len(), model.peers.len());
                continue;
            }
            Registration::Topic(topic) => (topic.clone(), None),
            Registration::Channel(topic, channel) => (topic.clone(), Some(channel.clone())),
        };
        assert!(model.names.contains(&key), "{key:?}");
        assert_eq!(list.len(), model.registered.iter().filter(|(other, _)| *other == key).count(), "{key:?}");
    }
    assert_eq!(registry.entries().len(), 1 + model.names.len());
}

fn step() -> impl Strategy<Value = Step> {
    let peer = || 1..5u64;
    let topics = || prop::sample::select(&["a", "b", "c#ephemeral"][..]).prop_map(topic);
    let channels = || prop::sample::select(&["x", "y#ephemeral"][..]).prop_map(channel);
    let wanted = || prop::sample::select(&["*", "a", "b", "c#ephemeral", "a/b"][..]);
    let wanted = move || wanted().prop_map(|name| Wanted::new(name.as_bytes()));
    let port = || 4151..4154i64;
    let some = move || prop::option::of(channels());
    prop_oneof![
        4 => (peer(), port()).prop_map(|(peer, port)| Step::Tell(peer, Command::Identify(producer("n", port)))),
        2 => peer().prop_map(|peer| Step::Tell(peer, Command::Ping)),
        10 => (peer(), topics(), some()).prop_map(|(peer, t, c)| Step::Tell(peer, Command::Register(t, c))),
        6 => (peer(), topics(), some()).prop_map(|(peer, t, c)| Step::Tell(peer, Command::Unregister(t, c))),
        2 => peer().prop_map(Step::Disconnect),
        1 => topics().prop_map(Step::CreateTopic),
        1 => (topics(), channels()).prop_map(|(t, c)| Step::CreateChannel(t, c)),
        1 => wanted().prop_map(Step::DeleteTopic),
        1 => (topics(), channels()).prop_map(|(t, c)| Step::DeleteChannel(t, c)),
        3 => (wanted(), port()).prop_map(|(wanted, port)| Step::Tombstone(wanted, port)),
        2 => prop::sample::select(&[1, 44, 45, 150, 301][..]).prop_map(Step::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn the_registry_is_the_model(steps in collection::vec(step(), 1..60)) {
        let (mut registry, mut model) = (Registry::new(Options::default()), Model::default());
        for step in steps {
            model.step(&step);
            apply(&mut registry, at(model.now), step);
            compare(&registry, &model);
        }
    }
}
