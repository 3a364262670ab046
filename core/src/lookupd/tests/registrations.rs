//! The registry, in sentences.

use super::*;
use crate::lookupd::Registration;

/// A registry, and nsqds by the number of their connection. Every step is followed by a check of all invariants.
struct Lookupd(Registry);

impl Lookupd {
    /// Two nsqds, `a` and `b`, on connections 1 and 2.
    fn new() -> Self {
        let mut lookupd = Self(Registry::new(Options::default()));
        lookupd.tell(0, 1, Command::Identify(producer("a", 4151)));
        lookupd.tell(0, 2, Command::Identify(producer("b", 4151)));
        lookupd
    }

    fn tell(&mut self, seconds: u64, peer: u64, command: Command) -> bool {
        let changed = self.0.handle(at(seconds), PeerId(peer), command);
        self.0.check();
        changed
    }

    /// `t` or `t c`.
    fn register(&mut self, peer: u64, names: &str) -> bool {
        let (topic, channel) = parse(names);
        self.tell(0, peer, Command::Register(topic, channel))
    }

    fn unregister(&mut self, peer: u64, names: &str) -> bool {
        let (topic, channel) = parse(names);
        self.tell(0, peer, Command::Unregister(topic, channel))
    }

    fn disconnect(&mut self, peer: u64) {
        assert!(self.0.disconnect(PeerId(peer)).is_some());
        self.0.check();
    }

    fn tombstone(&mut self, seconds: u64, topic: &str, node: &str) {
        self.0.tombstone(at(seconds), &Wanted::new(topic.as_bytes()), node);
        self.0.check();
    }

    /// Channels and addresses, as `c d: a b`.
    fn lookup(&self, seconds: u64, topic: &str) -> String {
        let wanted = Wanted::new(topic.as_bytes());
        let Some(found) = self.0.lookup(at(seconds), &wanted) else { return "none".to_string() };
        let channels: Vec<_> = found.channels.iter().map(|name| name.as_str()).collect();
        let producers: Vec<_> = found.producers.iter().map(|producer| &*producer.broadcast_address).collect();
        assert_eq!(found.channels, self.0.channels(&wanted));
        format!("{}: {}", channels.join(" "), producers.join(" "))
    }

    /// Addresses and their topics, hidden ones in brackets, as `a: t (u)`.
    fn nodes(&self, seconds: u64) -> Vec<String> {
        let shown =
            |(name, hidden): &(&TopicName, bool)| if *hidden { format!(" ({name})") } else { format!(" {name}") };
        let nodes = self.0.nodes(at(seconds));
        let node = |node: &crate::lookupd::Node<'_>| {
            format!("{}:{}", node.producer.broadcast_address, node.topics.iter().map(shown).collect::<String>())
        };
        nodes.iter().map(node).collect()
    }

    fn topics(&self) -> Vec<&str> {
        self.0.topics().map(TopicName::as_str).collect()
    }
}

fn parse(names: &str) -> (TopicName, Option<ChannelName>) {
    match names.split_once(' ') {
        Some((name, second)) => (topic(name), Some(channel(second))),
        None => (topic(names), None),
    }
}

#[test]
fn registering_a_channel_registers_its_topic() {
    let mut lookupd = Lookupd::new();
    assert!(lookupd.register(1, "t c"));
    assert!(!lookupd.register(1, "t"), "nothing new");
    assert!(lookupd.register(2, "t d"));
    assert_eq!(lookupd.lookup(0, "t"), "c d: a b");
    assert_eq!(lookupd.nodes(0), ["a: t", "b: t"]);
    assert_eq!(lookupd.lookup(0, "u"), "none");
}

#[test]
fn names_outlive_their_producers_unless_they_are_ephemeral() {
    let mut lookupd = Lookupd::new();
    for peer in [1, 2] {
        for names in ["t c", "t c#ephemeral", "t#ephemeral c"] {
            assert!(lookupd.register(peer, names));
        }
    }
    assert!(lookupd.unregister(1, "t c#ephemeral"));
    assert!(lookupd.unregister(1, "t#ephemeral"));
    assert_eq!(lookupd.lookup(0, "t"), "c c#ephemeral: a b");
    assert_eq!(lookupd.lookup(0, "t#ephemeral"), "c: b");
    // It makes no difference how the last one leaves.
    lookupd.disconnect(2);
    assert_eq!(lookupd.lookup(0, "t"), "c: a");
    assert_eq!(lookupd.lookup(0, "t#ephemeral"), "none");
    assert!(lookupd.unregister(1, "t"));
    assert_eq!(lookupd.lookup(0, "t"), "c: ");
    assert_eq!(lookupd.topics(), ["t"]);
}

#[test]
fn an_ephemeral_name_made_by_an_operator_stays_until_somebody_has_had_it() {
    let mut lookupd = Lookupd::new();
    lookupd.0.create_channel(topic("t"), channel("c#ephemeral"));
    lookupd.register(1, "t d");
    lookupd.disconnect(1);
    assert_eq!(lookupd.lookup(0, "t"), "c#ephemeral d: ");
    lookupd.register(2, "t c#ephemeral");
    lookupd.disconnect(2);
    assert_eq!(lookupd.lookup(0, "t"), "d: ");
}

#[test]
fn unregistering_a_topic_unregisters_its_channels() {
    let mut lookupd = Lookupd::new();
    lookupd.register(1, "t c");
    assert!(lookupd.unregister(1, "t"));
    assert!(!lookupd.unregister(1, "t c"), "it has gone already");
    assert!(!lookupd.unregister(1, "never seen"));
    let lists: Vec<_> =
        lookupd.0.entries().into_iter().map(|(registration, list)| (registration, list.len())).collect();
    let (t, c) = (topic("t"), channel("c"));
    assert_eq!(lists, [(Registration::Channel(&t, &c), 0), (Registration::Client, 2), (Registration::Topic(&t), 0)]);
}

#[test]
fn the_silent_are_hidden_until_they_ping() {
    let mut lookupd = Lookupd::new();
    lookupd.register(1, "t");
    lookupd.tell(10, 2, Command::Ping);
    assert_eq!(lookupd.nodes(300), ["a: t", "b:"]);
    assert_eq!(lookupd.lookup(300, "t"), ": a");
    assert_eq!(lookupd.nodes(301), ["b:"]);
    assert_eq!(lookupd.lookup(301, "t"), ": ");
    assert!(lookupd.tell(302, 1, Command::Register(topic("u"), None)), "no sign of life, but done");
    assert_eq!(lookupd.nodes(302), ["b:"]);
    lookupd.tell(303, 1, Command::Ping);
    assert_eq!(lookupd.nodes(303), ["a: t u", "b:"]);
}

#[test]
fn a_tombstone_hides_one_producer_of_one_topic_for_its_lifetime() {
    let mut lookupd = Lookupd::new();
    for names in ["t c", "u"] {
        lookupd.register(1, names);
        lookupd.register(2, names);
    }
    for node in ["a:4150", "c:4151", "a", "", ":", "a:+4151", "a:04151", "[a:4151"] {
        lookupd.tombstone(100, "t", node);
    }
    lookupd.tombstone(100, "a/b", "a:4151");
    assert_eq!(lookupd.lookup(100, "t"), "c: a b");
    lookupd.tombstone(100, "t", "a:4151");
    lookupd.register(1, "t");
    assert_eq!(lookupd.lookup(144, "t"), "c: b");
    assert_eq!(lookupd.lookup(144, "u"), ": a b");
    assert_eq!(lookupd.nodes(144), ["a: (t) u", "b: t u"]);
    assert_eq!(lookupd.lookup(145, "t"), "c: a b");
    // Registering anew starts clean.
    lookupd.tombstone(200, "t", "a:4151");
    lookupd.unregister(1, "t");
    lookupd.register(1, "t");
    assert_eq!(lookupd.lookup(200, "t"), "c: a b");
}

#[test]
fn an_ipv6_node_is_named_with_or_without_brackets() {
    for node in ["::1:4151", "[::1]:4151"] {
        let mut lookupd = Lookupd::new();
        lookupd.tell(0, 3, Command::Identify(producer("::1", 4151)));
        lookupd.register(3, "t");
        lookupd.tombstone(0, "t", node);
        assert_eq!(lookupd.lookup(0, "t"), ": ", "{node}");
    }
}

#[test]
fn a_star_means_every_topic() {
    let mut lookupd = Lookupd::new();
    assert_eq!(lookupd.lookup(0, "*"), "none");
    lookupd.register(1, "t c");
    lookupd.register(1, "u c");
    lookupd.register(2, "u d");
    assert_eq!(lookupd.lookup(0, "*"), "c d: a b");
    lookupd.tombstone(0, "*", "a:4151");
    assert_eq!(lookupd.nodes(0), ["a: (t) (u)", "b: u"]);
    assert_eq!(lookupd.lookup(0, "*"), "c d: b");
    lookupd.0.delete_topic(&Wanted::All);
    lookupd.0.check();
    assert_eq!(lookupd.lookup(0, "*"), "none");
    assert_eq!(lookupd.nodes(0), ["a:", "b:"]);
}

#[test]
fn operators_create_and_delete() {
    let mut lookupd = Lookupd::new();
    lookupd.0.create_topic(topic("t"));
    lookupd.0.create_channel(topic("u"), channel("c"));
    assert_eq!((lookupd.lookup(0, "t"), lookupd.lookup(0, "u")), (": ".into(), "c: ".into()));
    lookupd.register(1, "u c");
    lookupd.register(1, "u d");
    assert!(lookupd.0.delete_channel(&topic("u"), &channel("c")));
    assert!(!lookupd.0.delete_channel(&topic("u"), &channel("c")));
    assert!(!lookupd.0.delete_channel(&topic("v"), &channel("c")));
    assert_eq!(lookupd.lookup(0, "u"), "d: a");
    lookupd.0.delete_topic(&Wanted::Nothing);
    lookupd.0.delete_topic(&Wanted::new(b"u"));
    lookupd.0.check();
    assert_eq!(lookupd.topics(), ["t"]);
    assert_eq!(lookupd.nodes(0), ["a:", "b:"]);
}

#[test]
fn an_nsqd_that_came_back_before_its_old_connection_ended_is_listed_once() {
    let mut lookupd = Lookupd::new();
    lookupd.register(1, "t");
    lookupd.register(1, "u");
    let newer = Producer { version: "1.4.0".into(), ..producer("a", 4151) };
    lookupd.tell(0, 3, Command::Identify(newer.clone()));
    lookupd.register(3, "t");
    assert_eq!(lookupd.lookup(0, "t"), ": a");
    // What it has not registered again yet is not lost in the meantime.
    assert_eq!(lookupd.lookup(0, "u"), ": a");
    assert_eq!(lookupd.nodes(0), ["a: t u", "b:"]);
    assert_eq!(lookupd.0.lookup(at(0), &Wanted::new(b"t")).unwrap().producers, [&newer]);
    assert_eq!(lookupd.0.nodes(at(0))[0].producer, &newer);
    lookupd.disconnect(1);
    assert_eq!(lookupd.lookup(0, "u"), ": ");
    assert_eq!(lookupd.nodes(0), ["a: t", "b:"]);
}

#[test]
fn who_has_not_said_who_it_is_registers_nothing() {
    let mut lookupd = Lookupd::new();
    assert!(!lookupd.tell(0, 9, Command::Ping));
    assert!(!lookupd.register(9, "t c"));
    assert_eq!(lookupd.topics(), [""; 0]);
    assert!(lookupd.0.disconnect(PeerId(9)).is_none());
}
