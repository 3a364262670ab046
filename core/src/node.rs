//! The node: the directory of topics and channels, and when `nsqd.dat` has to be written (spec: nsqd_protocol §3.2).
//! Ephemeral names are in the directory, for nsqlookupds to hear of, but not in the file.
//!
//! Notices of topics come in, in the order in which things happened; out go wishes to save, one at a time and always
//! the latest state, and the answers to pauses once a save at least as new is done. It sees no message.

use crate::directory::Directory;
use crate::name::{ChannelName, TopicName};
use crate::storage;
use crate::storage::journal::Incarnation;
use crate::topic::io::{ConnId, Notice, Refusal, Slot};
use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

pub use crate::directory::{ChannelEntry, Entry};

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Node {
    version: String,
    directory: Directory,
    /// Counts the changes of what is in the file.
    generation: u64,
    saved: u64,
    saving: bool,
    waiting: VecDeque<(u64, ConnId, Slot)>,
}

/// What the node wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeEffect {
    /// Take a [`snapshot`](Node::snapshot), write it to `nsqd.dat`, and say when it is [`saved`](Node::saved).
    Save,
    /// The answer to a slot.
    Reply {
        /// Whose.
        conn: ConnId,
        /// Which.
        slot: Slot,
        /// Whether the pause is saved.
        result: Result<(), Refusal>,
    },
}

impl Node {
    /// A node with the topics that `nsqd.dat` listed; it wants to be saved once.
    pub fn new(version: &str, topics: BTreeMap<TopicName, Entry>) -> Self {
        Self { version: version.to_string(), directory: Directory::new(topics), generation: 1, ..Self::default() }
    }

    /// A topic was read from its files: this is what it has, whatever was listed.
    pub fn found(&mut self, topic: TopicName, entry: Entry) {
        self.directory.found(topic, entry);
    }

    /// Everything that there is.
    pub const fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Takes notices, in order.
    pub fn handle(&mut self, notices: impl IntoIterator<Item = Notice>, out: &mut Vec<NodeEffect>) {
        for notice in notices {
            self.take(notice, out);
        }
        self.save(out);
    }

    /// The state to write, and its generation.
    pub fn snapshot(&self) -> (u64, Vec<u8>) {
        let channel = |(name, &channel): (&ChannelName, &ChannelEntry)| ListedChannel {
            name: name.to_string(),
            paused: channel.paused,
            incarnation: channel.incarnation.map(|Incarnation(number)| number),
        };
        let topic = |(name, entry): (&TopicName, &Entry)| {
            let channels = entry.channels.iter().filter(|(name, _)| !name.is_ephemeral()).map(channel);
            let (paused, channels) = (entry.paused, none_if_empty(channels.collect()));
            ListedTopic { name: name.to_string(), paused, channels }
        };
        let topics = self.directory.topics().iter().filter(|(name, _)| !name.is_ephemeral());
        let topics = none_if_empty(topics.map(topic).collect());
        let file = File { topics, version: self.version.clone() };
        let bytes = serde_json::to_vec(&file).expect("names and flags are valid JSON");
        (self.generation, bytes)
    }

    /// That generation was written, or not; whoever waited for it is answered.
    pub fn saved(&mut self, generation: u64, result: Result<(), Refusal>, out: &mut Vec<NodeEffect>) {
        self.saving = false;
        while let Some((_, conn, slot)) = self.waiting.pop_front_if(|(wanted, ..)| *wanted <= generation) {
            out.push(NodeEffect::Reply { conn, slot, result: result.clone() });
        }
        // A save that failed is the driver's to try again, after a while.
        self.saved = generation;
        self.save(out);
    }

    /// Whether the last change is on disk, or its failure to get there was reported.
    pub const fn is_saved(&self) -> bool {
        self.saved == self.generation
    }

    fn take(&mut self, notice: Notice, out: &mut Vec<NodeEffect>) {
        match notice {
            Notice::TopicCreated(topic) => {
                self.changes_file(&topic, None);
                self.directory.create_topic(topic);
            }
            Notice::TopicDeleted(topic) => {
                self.changes_file(&topic, None);
                self.directory.delete_topic(&topic);
            }
            Notice::ChannelCreated(topic, channel, incarnation) => {
                self.changes_file(&topic, Some(&channel));
                self.directory.create_channel(&topic, channel, incarnation);
            }
            Notice::ChannelDeleted(topic, channel) => {
                self.changes_file(&topic, Some(&channel));
                self.directory.delete_channel(&topic, &channel);
            }
            // For whoever waits for the process to end; the directory does not change.
            Notice::Stored { .. } | Notice::Damaged { .. } => {}
            Notice::TopicPaused { topic, paused, from, slot } => {
                self.changes_file(&topic, None);
                if let Some(entry) = self.directory.get_mut(&topic) {
                    entry.paused = paused;
                }
                self.answer_when_saved(from, slot, out);
            }
            Notice::ChannelPaused { topic, channel, paused, from, slot } => {
                self.changes_file(&topic, Some(&channel));
                if let Some(entry) = self.directory.get_mut(&topic).and_then(|entry| entry.channels.get_mut(&channel)) {
                    entry.paused = paused;
                }
                self.answer_when_saved(from, slot, out);
            }
        }
    }

    fn changes_file(&mut self, topic: &TopicName, channel: Option<&ChannelName>) {
        if !topic.is_ephemeral() && !channel.is_some_and(ChannelName::is_ephemeral) {
            self.generation += 1;
        }
    }

    /// Answers when everything that has happened so far is on disk, or could not be written.
    pub fn answer_when_saved(&mut self, conn: ConnId, slot: Slot, out: &mut Vec<NodeEffect>) {
        if self.is_saved() {
            out.push(NodeEffect::Reply { conn, slot, result: Ok(()) });
        } else {
            self.waiting.push_back((self.generation, conn, slot));
        }
    }

    fn save(&mut self, out: &mut Vec<NodeEffect>) {
        if !self.saving && !self.is_saved() {
            self.saving = true;
            out.push(NodeEffect::Save);
        }
    }
}

/// Reads `nsqd.dat`. Names that break the rules are left out and returned as the second value.
///
/// # Errors
/// What is wrong with the file, if it is not the JSON that upstream writes.
pub fn parse(bytes: &[u8]) -> Result<(BTreeMap<TopicName, Entry>, Vec<String>), String> {
    let file: File = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let mut topics = BTreeMap::new();
    let mut invalid = Vec::new();
    for topic in file.topics.unwrap_or_default() {
        let Some(name) = TopicName::new(&topic.name) else {
            invalid.push(topic.name);
            continue;
        };
        let entry: &mut Entry = topics.entry(name).or_default();
        entry.paused |= topic.paused;
        for channel in topic.channels.unwrap_or_default() {
            let incarnation = channel.incarnation.filter(|&number| number < storage::NUMBERS_END / 2).map(Incarnation);
            match ChannelName::new(&channel.name) {
                Some(name) => {
                    let listed = entry.channels.entry(name).or_default();
                    listed.paused |= channel.paused;
                    listed.incarnation = listed.incarnation.max(incarnation);
                }
                None => invalid.push(channel.name),
            }
        }
    }
    Ok((topics, invalid))
}

#[derive(Serialize, Deserialize)]
struct File {
    #[serde(default)]
    topics: Option<Vec<ListedTopic>>,
    #[serde(default)]
    version: String,
}

#[derive(Serialize, Deserialize)]
struct ListedTopic {
    #[serde(default)]
    name: String,
    #[serde(default)]
    paused: bool,
    #[serde(default)]
    channels: Option<Vec<ListedChannel>>,
}

#[derive(Serialize, Deserialize)]
struct ListedChannel {
    #[serde(default)]
    name: String,
    #[serde(default)]
    paused: bool,
    /// Ours: upstream neither writes it nor minds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    incarnation: Option<u64>,
}

/// Upstream writes `null` for an empty list.
fn none_if_empty<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(name: &str) -> TopicName {
        TopicName::new(name).unwrap()
    }

    fn channel(name: &str) -> ChannelName {
        ChannelName::new(name).unwrap()
    }

    #[test]
    fn writes_and_reads_upstreams_format_and_knows_channels_apart() {
        let mut node = Node::new("1.3.0", BTreeMap::new());
        assert_eq!(node.snapshot().1, br#"{"topics":null,"version":"1.3.0"}"#);
        let notices = [
            Notice::TopicCreated(topic("t")),
            Notice::ChannelCreated(topic("t"), channel("c"), None),
            Notice::ChannelCreated(topic("t"), channel("c#ephemeral"), None),
            Notice::TopicCreated(topic("e#ephemeral")),
            Notice::ChannelCreated(topic("e#ephemeral"), channel("c"), None),
            Notice::TopicCreated(topic("u")),
            Notice::ChannelCreated(topic("u"), channel("again"), Some(Incarnation(3))),
            Notice::TopicCreated(topic("v")),
        ];
        node.handle(notices, &mut Vec::new());
        let file = node.snapshot().1;
        let expected = r#"{"topics":[{"name":"t","paused":false,"channels":[{"name":"c","paused":false}]},"#
            .to_string()
            + r#"{"name":"u","paused":false,"channels":[{"name":"again","paused":false,"incarnation":3}]},"#
            + r#"{"name":"v","paused":false,"channels":null}],"version":"1.3.0"}"#;
        assert_eq!(String::from_utf8(file.clone()).unwrap(), expected);
        let (listed, _) = parse(&file).unwrap();
        assert_eq!(listed.keys().map(TopicName::as_str).collect::<Vec<_>>(), ["t", "u", "v"]);
        let again = ChannelEntry { paused: false, incarnation: Some(Incarnation(3)) };
        assert_eq!(listed[&topic("u")].channels, [(channel("again"), again)].into_iter().collect());
        assert!(node.directory().has(&topic("t"), Some(&channel("c#ephemeral"))), "nsqlookupds hear of it");
        assert!(node.directory().has(&topic("e#ephemeral"), Some(&channel("c"))));
    }

    #[test]
    fn a_file_that_is_odd_or_broken() {
        let (topics, invalid) =
            parse(br#"{"topics":[{"name":"a/b"},{"name":"t","x":1,"channels":[{"name":""}]}]}"#).unwrap();
        assert_eq!(topics.into_keys().collect::<Vec<_>>(), [topic("t")]);
        assert_eq!(invalid, ["a/b", ""]);
        assert!(parse(b"").is_err());
        assert!(parse(b"{\"topics\":[").is_err());
    }

    #[test]
    fn a_pause_is_answered_when_it_is_saved() {
        let mut node = Node::new("", BTreeMap::new());
        let mut out = Vec::new();
        node.handle([Notice::TopicCreated(topic("t"))], &mut out);
        assert_eq!(out, [NodeEffect::Save]);
        let (generation, _) = node.snapshot();
        out.clear();
        // The pause comes while the older state is being written, so it needs the next save.
        let (from, slot) = (ConnId(7), Slot(0));
        node.handle([Notice::TopicPaused { topic: topic("t"), paused: true, from, slot }], &mut out);
        assert_eq!(out, []);
        node.saved(generation, Ok(()), &mut out);
        assert_eq!(out, [NodeEffect::Save]);
        out.clear();
        node.saved(node.snapshot().0, Ok(()), &mut out);
        assert_eq!(out, [NodeEffect::Reply { conn: from, slot, result: Ok(()) }]);
        assert!(node.is_saved());
    }
}
