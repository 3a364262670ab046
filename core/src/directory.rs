//! Which topics and channels there are, ephemeral ones too, and what has changed lately: what nsqlookupds must hear.
//!
//! Changes come in, in the order in which they happened, and are numbered. Whoever follows keeps the number up to which
//! it has heard; one who falls too far behind has to start over with everything there is. So nobody who follows slowly,
//! or not at all, costs memory.

use crate::name::{ChannelName, TopicName};
use crate::storage::journal::Incarnation;
use alloc::collections::{BTreeMap, VecDeque};
use litemap::LiteMap;

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Directory {
    topics: BTreeMap<TopicName, Entry>,
    /// The last changes, oldest first.
    recent: VecDeque<Change>,
    /// How many changes there were.
    position: u64,
    /// The largest incarnation of a channel that `nsqd.dat` may tell of, that channel being there or not.
    largest: Option<Incarnation>,
}

/// A topic as the directory knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// It gives no messages to channels.
    pub paused: bool,
    /// Its channels, which are few: a tree would take room for eleven.
    pub channels: LiteMap<ChannelName, ChannelEntry>,
}

/// A channel as the directory knows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChannelEntry {
    /// It hands out no messages.
    pub paused: bool,
    /// Tells it from one of that name that a journal may know to be gone; `None` if there is none.
    pub incarnation: Option<Incarnation>,
}

/// A topic, or a channel of it, came or went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// It came.
    pub is_new: bool,
    /// The topic.
    pub topic: TopicName,
    /// Its channel, if it is about one.
    pub channel: Option<ChannelName>,
}

/// How many changes are kept at least; as many as there are topics, if that is more.
pub const RECENT: usize = 1024;

impl Entry {
    /// The largest incarnation of its channels; `None` if there is none.
    pub fn largest_incarnation(&self) -> Option<Incarnation> {
        self.channels.values().filter_map(|channel| channel.incarnation).max()
    }
}

impl Directory {
    /// What `nsqd.dat` lists at the start.
    pub(crate) fn new(topics: BTreeMap<TopicName, Entry>) -> Self {
        let largest = topics.values().filter_map(Entry::largest_incarnation).max();
        Self { topics, largest, ..Self::default() }
    }

    /// What there is of a topic at the start.
    pub(crate) fn found(&mut self, topic: TopicName, entry: Entry) {
        self.largest = self.largest.max(entry.largest_incarnation());
        self.topics.insert(topic, entry);
    }

    /// Everything, by name.
    pub const fn topics(&self) -> &BTreeMap<TopicName, Entry> {
        &self.topics
    }

    /// Whether there is such a topic, or such a channel of it.
    pub fn has(&self, topic: &TopicName, channel: Option<&ChannelName>) -> bool {
        self.topics.get(topic).is_some_and(|entry| channel.is_none_or(|channel| entry.channels.contains_key(channel)))
    }

    /// The largest incarnation of a channel that `nsqd.dat` may tell of, be that channel there or not; `None` if it
    /// tells of none.
    pub const fn largest_incarnation(&self) -> Option<Incarnation> {
        self.largest
    }

    /// The number of the last change.
    pub const fn position(&self) -> u64 {
        self.position
    }

    /// The changes behind that number; `None` if some of them are forgotten already.
    pub fn since(&self, position: u64) -> Option<impl Iterator<Item = &Change>> {
        let count = usize::try_from(self.position.saturating_sub(position)).ok()?;
        let skip = self.recent.len().checked_sub(count)?;
        Some(self.recent.iter().skip(skip))
    }

    pub(crate) fn get_mut(&mut self, topic: &TopicName) -> Option<&mut Entry> {
        self.topics.get_mut(topic)
    }

    pub(crate) fn create_topic(&mut self, topic: TopicName) {
        if !self.topics.contains_key(&topic) {
            self.topics.insert(topic.clone(), Entry::default());
            self.changed(true, topic, None);
        }
    }

    /// Its channels go first: that is the order in which nsqlookupd wants to hear of it.
    pub(crate) fn delete_topic(&mut self, topic: &TopicName) {
        if let Some((topic, entry)) = self.topics.remove_entry(topic) {
            for (channel, _) in entry.channels {
                self.changed(false, topic.clone(), Some(channel));
            }
            self.changed(false, topic, None);
        }
    }

    pub(crate) fn create_channel(&mut self, topic: &TopicName, channel: ChannelName, incarnation: Option<Incarnation>) {
        if let Some(entry) = self.topics.get_mut(topic)
            && !entry.channels.contains_key(&channel)
        {
            entry.channels.insert(channel.clone(), ChannelEntry { paused: false, incarnation });
            self.largest = self.largest.max(incarnation);
            self.changed(true, topic.clone(), Some(channel));
        }
    }

    pub(crate) fn delete_channel(&mut self, topic: &TopicName, channel: &ChannelName) {
        if let Some(entry) = self.topics.get_mut(topic)
            && entry.channels.remove(channel).is_some()
        {
            self.changed(false, topic.clone(), Some(channel.clone()));
        }
    }

    fn changed(&mut self, is_new: bool, topic: TopicName, channel: Option<ChannelName>) {
        self.position += 1;
        self.recent.push_back(Change { is_new, topic, channel });
        while self.recent.len() > RECENT.max(self.topics.len()) {
            self.recent.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::string::String;
    use alloc::vec::Vec;

    fn topic(name: &str) -> TopicName {
        TopicName::new(name).unwrap()
    }

    fn channel(name: &str) -> ChannelName {
        ChannelName::new(name).unwrap()
    }

    fn since(directory: &Directory, position: u64) -> Option<Vec<String>> {
        let word = |change: &Change| {
            let sign = if change.is_new { '+' } else { '-' };
            format!("{sign}{} {}", change.topic, change.channel.as_ref().map_or("", |channel| channel.as_str()))
        };
        directory.since(position).map(|changes| changes.map(word).collect())
    }

    #[test]
    fn changes_are_told_in_order_and_only_once() {
        let mut directory = Directory::default();
        directory.create_topic(topic("t"));
        directory.create_topic(topic("t"));
        directory.create_channel(&topic("t"), channel("c#ephemeral"), None);
        directory.create_channel(&topic("t"), channel("c#ephemeral"), None);
        directory.create_channel(&topic("u"), channel("c"), None);
        directory.create_channel(&topic("t"), channel("d"), None);
        directory.delete_channel(&topic("t"), &channel("d"));
        directory.delete_channel(&topic("t"), &channel("d"));
        directory.delete_topic(&topic("t"));
        directory.delete_topic(&topic("t"));
        let all = ["+t ", "+t c#ephemeral", "+t d", "-t d", "-t c#ephemeral", "-t "];
        assert_eq!(since(&directory, 0).unwrap(), all);
        assert_eq!(since(&directory, 4).unwrap(), all[4..]);
        assert_eq!(since(&directory, 6).unwrap(), [""; 0]);
        assert_eq!(directory.position(), 6);
    }

    #[test]
    fn who_falls_behind_has_to_start_over() {
        let mut directory = Directory::default();
        for _ in 0..RECENT {
            directory.create_topic(topic("t"));
            directory.delete_topic(&topic("t"));
        }
        let position = directory.position();
        assert!(since(&directory, position - RECENT as u64 - 1).is_none());
        assert_eq!(since(&directory, position - RECENT as u64).unwrap().len(), RECENT);
    }
}
